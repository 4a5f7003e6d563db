/* known.h: certificates whose chain has been found good, so that it is looked at once and not with every handshake.
 *
 * The rule it keeps: an entry is the SHA-256 of a whole certificate, signature and all, and stands for one thing only: those whom one context
 * trusts have issued it, for a client. That never changes, for OpenSSL does not look at the clock here (tls.h); who trusts others makes another
 * context, whose table is empty. That the peer has the key is proved in each handshake, and who it is and whether it may come in is
 * judged elsewhere. Only what has been verified gets in, so a stranger can push nobody out.
 */
#ifndef PEANUT_KNOWN_H
#define PEANUT_KNOWN_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PN_KNOWN_DIGEST = 32,
    PN_KNOWN_SETS = 4096, /* sets of … */
    PN_KNOWN_WAYS = 4     /* … certificates: room for a fleet of ten thousand; the oldest of a full set gives way */
};

typedef struct pn_known pn_known;

pn_known *pn_known_new(void); /* owned; NULL without memory. Half a MiB, of which the kernel gives what is used */
void pn_known_free(pn_known *known);
bool pn_known_has(pn_known *known, const uint8_t *digest); /* any thread */
void pn_known_add(pn_known *known, const uint8_t *digest); /* any thread */

#endif
