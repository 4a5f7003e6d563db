/* lean.h: OpenSSL 3.0 with those of its algorithms that a handshake of the gateway can come to, and without the others.
 *
 * The rule it keeps: every algorithm is OpenSSL's own, and whatever a peer can prove itself by here it can prove without this. OpenSSL 3.0 walks
 * through all that it has (140 algorithms, and each name of each) whenever it reads a certificate, which is a fifth of a handshake over mutual TLS;
 * here there are forty. Newer ones remember what they have found, and are used whole.
 *
 * One thing is left out: that the key on P-256 which a client exchanges, and whose point has been found to be on the curve as it was read, is multiplied
 * by the order of the curve to see that nothing comes of it. The curve has a prime order, so nothing else can come of it, and TLS asks for no more
 * (RFC 8446 §4.2.8.2: partial validation; SP 800-56A §5.6.2.3.4). On any other curve it is done.
 */
#ifndef PEANUT_LEAN_H
#define PEANUT_LEAN_H

#include <openssl/types.h>

/* The library for contexts of TLS, one for the process and for ever. NULL: the one that is everybody's (another OpenSSL than 3.0, one that is bound to
 * FIPS, no memory). Any thread. */
OSSL_LIB_CTX *pn_lean_library(void);

#endif
