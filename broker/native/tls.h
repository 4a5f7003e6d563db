/* tls.h: TLS by OpenSSL, for the native loop: bytes in, bytes out, no socket.
 *
 * The rule it keeps: what a context allows is what peanutd/tls.py says: TLS 1.2 and 1.3, AEAD ciphers with forward secrecy on
 * P-256 or X25519, certificates of this fleet; OpenSSL does not look at the clock. No sessions are kept, and without tickets, which are off
 * unless asked for, a handshake is always a whole one, but for the chain of a certificate that has been verified before (known.h). A ticket
 * holds the certificate, and who is resumed is judged by it like anybody else. All sessions of a thread share one BIO without state of its
 * own: what a session reads is what the thread has just received, and what it writes gathers in one buffer, so that there is one receive and
 * one send a turn.
 *
 * A context with keys (psk.h) is for devices that have no certificates, and shows none itself: who shares no key with the gateway gets no
 * handshake there. An ephemeral exchange of keys goes along with it, in TLS 1.2 as in 1.3, so that a key that is lost opens no session of before.
 */
#ifndef PEANUT_TLS_H
#define PEANUT_TLS_H

#include <openssl/ssl.h>

#include "buf.h"
#include "psk.h"

#define PN_TLS_CHAIN_MAX (16 * 1024) /* bytes of the certificates that a client sends, at most */

/* Whether a client must have a certificate. */
enum pn_tls_certificate { PN_TLS_NONE, PN_TLS_OPTIONAL, PN_TLS_REQUIRED };

/* What a context is made of: PEM texts and OpenSSL's names. Borrowed. */
typedef struct pn_tls_files {
    pn_span chain, key, authorities;
    const char *ciphers, *groups; /* those of TLS 1.2; for the exchange of keys */
    int certificate;             /* enum pn_tls_certificate */
    long tickets;                /* seconds that a session can be resumed for by its ticket; 0: there are none */
    pn_psks *keys;               /* sealed, and the context's from then on, if there is one. NULL: certificates; else there are none, nor tickets */
} pn_tls_files;

const char *pn_tls_library(void); /* which OpenSSL this is, in its own words */

/* Owned (SSL_CTX_free); NULL with the reason in `why`. Any thread. */
SSL_CTX *pn_tls_context(const pn_tls_files *files, char *why, size_t size);

/* What is said of the gateway's certificate to clients that ask: an OCSP response in DER, copied; empty: nothing. False without memory,
 * and then nothing is said. Any thread. */
bool pn_tls_staple(SSL_CTX *context, pn_span answer);

/* Another key for tickets to come. Those of the key before it are good still, older ones are not. False without random numbers. Any thread. */
bool pn_tls_rotate(SSL_CTX *context);

/* Between sessions and sockets; one for a thread. */
typedef struct pn_tls_pipe {
    const uint8_t *in; /* borrowed: received, and not read yet */
    size_t in_n;
    pn_buf out; /* owned: to be sent */
    bool full;  /* there was no memory for what was to be sent: the session is broken */
    BIO *bio;   /* owned */
    BIO_METHOD *method; /* owned */
} pn_tls_pipe;

bool pn_tls_pipe_init(pn_tls_pipe *pipe); /* false without memory */
void pn_tls_pipe_end(pn_tls_pipe *pipe);  /* after all sessions */

/* From now on the session reads from and writes to this one; NULL: to none, until it is bound again. */
void pn_tls_bind(SSL *ssl, pn_tls_pipe *pipe);

/* A session of a server, at its beginning. Owned (SSL_free); NULL without memory. */
SSL *pn_tls_session(SSL_CTX *context, pn_tls_pipe *pipe);

enum pn_tls_result { PN_TLS_MORE, PN_TLS_DONE, PN_TLS_FAILED };

/* Why a handshake failed. */
typedef struct pn_tls_failure {
    char reason[96]; /* OpenSSL's words, "" when it has none */
    long verify;     /* X509_V_ERR_…, 0 when it was not about the client's certificate */
} pn_tls_failure;

/* Goes on with the handshake by what is in the pipe. */
int pn_tls_handshake(SSL *ssl, pn_tls_failure *failure);
/* In a turn before the first reading or writing, in the thread that does it: OpenSSL's queue of errors is empty, whoever had this thread before. */
void pn_tls_turn(void);
/* Decrypts up to `n` bytes; how many, and in `*result` MORE (all is read), DONE (there may be more) or FAILED (the session is over). */
size_t pn_tls_read(SSL *ssl, uint8_t *to, size_t n, int *result);
/* Encrypts all of `n` bytes; false when the session is broken. */
bool pn_tls_write(SSL *ssl, const uint8_t *from, size_t n);
void pn_tls_goodbye(SSL *ssl); /* close_notify */

/* What the peer has proved to be by a handshake that is done: its certificate in DER or, by a context with keys, the identity whose key it has.
 * Owned (OPENSSL_free), its length in `*n`; NULL when there is none. */
uint8_t *pn_tls_peer(SSL *ssl, size_t *n);

#endif
