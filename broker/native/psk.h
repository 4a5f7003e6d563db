/* psk.h: keys that devices share with the gateway, by their identities, for handshakes without certificates (RFC 8446 §2.2, RFC 5489).
 *
 * The rule it keeps: an identity that nobody has is looked for by the same steps as one that somebody has, and gets a key, which nobody knows:
 * a stranger sees his handshake fail in the same way, whether he has guessed a name or not. A table does not change once it is sealed, so any
 * thread may look; keys are wiped wherever they have been.
 */
#ifndef PEANUT_PSK_H
#define PEANUT_PSK_H

#include "buf.h"

/* Bytes of an identity and of a key (IDENTITY_MAX, KEY_MIN and KEY_MAX of peanutd/psk.py); keys of a table. */
#define PN_PSK_IDENTITY_MAX 128u
#define PN_PSK_KEY_MIN 16u
#define PN_PSK_KEY_MAX 64u
#define PN_PSK_KEYS_MAX 4096u

typedef struct pn_psk pn_psk;   /* an identity and its key */
typedef struct pn_psks pn_psks; /* a table of them */

pn_psks *pn_psks_new(size_t count); /* room for so many; owned; NULL when they are too many, without memory or without random numbers */
void pn_psks_free(pn_psks *psks);

/* Copies both. False when there is no room or one of them has not the length that it must have. */
bool pn_psks_add(pn_psks *psks, pn_span identity, pn_span key);
bool pn_psks_seal(pn_psks *psks); /* before the first look; false when two have the same identity */

/* Whose key this is to be tried with: NULL for an identity of any length that nobody has. `key`, of PN_PSK_KEY_MAX bytes, and `*n` are set
 * in either case, and the caller wipes them. False: they are not, for OpenSSL has no memory. Any thread. */
bool pn_psks_find(const pn_psks *psks, pn_span identity, const pn_psk **whose, uint8_t *key, size_t *n);

pn_span pn_psk_identity(const pn_psk *psk); /* borrowed from the table */

#endif
