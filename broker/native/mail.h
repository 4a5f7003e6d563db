/* mail.h: a queue of small things from any threads to one, with a bell.
 *
 * The rule it keeps: whoever puts something in never waits for the other side, and the bell rings once for however much there is. What is
 * in it is taken out all at once, in order.
 */
#ifndef PEANUT_MAIL_H
#define PEANUT_MAIL_H

#include <pthread.h>
#include <stdatomic.h>

#include "buf.h"

typedef struct pn_mail {
    pthread_mutex_t mutex;
    int bell; /* owned: an eventfd */
    bool rung; /* since it was taken last */
    pn_buf items;
} pn_mail;

bool pn_mail_init(pn_mail *m); /* false without file descriptors */
void pn_mail_end(pn_mail *m);
bool pn_mail_put(pn_mail *m, const void *item, size_t size);   /* false without memory */
bool pn_mail_leave(pn_mail *m, const void *item, size_t size); /* the same without the bell: it goes along with what comes next */
pn_buf pn_mail_take(pn_mail *m);                             /* owned; silences the bell */
uint32_t pn_mail_bytes(pn_mail *m); /* that wait */
void pn_mail_ring(pn_mail *m);

#endif
