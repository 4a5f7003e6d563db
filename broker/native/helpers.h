/* helpers.h: threads that take the steps of TLS handshakes, so that the loop's own never does: a step takes up to a millisecond, in which
 * commands could have gone through.
 *
 * The rule it keeps: a session is one thread's at a time. It goes with its step and comes back with it, the bytes that go in and that come out beside it;
 * nothing else is shared, so a connection may end while its session is away: whoever gets the step back finds nobody of that name, and frees it.
 */
#ifndef PEANUT_HELPERS_H
#define PEANUT_HELPERS_H

#include "mail.h"
#include "tls.h"

#define PN_HELPERS_MAX 64u

/* A handshake that can go on. Owned by whoever has it at the time. */
typedef struct pn_step {
    struct pn_step *next;
    uint64_t name;    /* of the connection */
    SSL_CTX *context; /* owned; of a session that is not made yet */
    SSL *ssl;         /* owned; bound to no pipe while it goes from one thread to another */
    pn_buf in, out;   /* owned: what has come, and afterwards what is left of it; what is to be sent */
    int result;       /* enum pn_tls_result; FAILED also without memory */
    pn_tls_failure failure;
} pn_step;

typedef struct pn_helpers pn_helpers;

/* What a helper does with a step that is done; called in its thread. */
typedef void (*pn_step_done)(void *arg, pn_step *step);

/* Starts up to `count` threads. Owned; NULL without memory or threads. */
pn_helpers *pn_helpers_new(unsigned count, pn_step_done done, void *arg);
void pn_helpers_free(pn_helpers *helpers); /* waits for the steps that are being taken, and frees those that wait */

void pn_helpers_give(pn_helpers *helpers, pn_step *step); /* steals */
void pn_step_free(pn_step *step);

#endif
