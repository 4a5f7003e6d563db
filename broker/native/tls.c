/* tls.c: the work of tls.h. */
#include "tls.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>

#include "known.h"
#include "lean.h"
#include "mem.h"

/* --- what a context has beside OpenSSL's own --- */

/* What tickets are sealed with. They are good for the context alone that has given them out: another one may ask more of a client. */
typedef struct ticket_key {
    uint8_t name[16], cipher[32], mac[32];
} ticket_key;

typedef struct extra {
    pn_known *known; /* owned */
    pthread_mutex_t mutex;
    pn_buf staple;      /* owned; under the mutex, as the next two */
    ticket_key keys[2]; /* the one for tickets to come, and the one before it */
    unsigned key_count;
    pn_psks *psks; /* owned; NULL: certificates */
} extra;

static int extra_index; /* of it among a context's extra data; set once */
static int whose_index; /* of the pn_psk among a session's, borrowed from the context that the session is of; set once */

static extra *extra_of(const SSL *ssl) { return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), extra_index); }

static void free_extra(void *parent, void *of, CRYPTO_EX_DATA *data, int index, long number, void *pointer) {
    (void)parent, (void)data, (void)index, (void)number, (void)pointer;
    extra *x = of;
    if (!x) return;
    pn_known_free(x->known);
    pn_psks_free(x->psks);
    pn_buf_free(&x->staple);
    pthread_mutex_destroy(&x->mutex);
    OPENSSL_cleanse(x->keys, sizeof x->keys);
    pn_free(x);
}

static void make_extra_index(void) {
    extra_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_extra);
    whose_index = SSL_SESSION_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

/* In place of X509_verify_cert: the same for a certificate that is new, for another one what was found then. */
static int verify(X509_STORE_CTX *chain, void *arg) {
    pn_known *known = arg;
    X509 *leaf = X509_STORE_CTX_get0_cert(chain);
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    bool printed = leaf && X509_digest(leaf, EVP_sha256(), digest, &size) && size == PN_KNOWN_DIGEST;
    if (printed && pn_known_has(known, digest)) {
        X509_STORE_CTX_set_error(chain, X509_V_OK);
        return 1;
    }
    int good = X509_verify_cert(chain) > 0;
    if (good && printed) pn_known_add(known, digest);
    return good;
}

/* A client asks for what an OCSP responder says of the gateway's certificate (RFC 6066 §8). */
static int staple(SSL *ssl, void *arg) {
    extra *x = arg;
    pthread_mutex_lock(&x->mutex);
    size_t n = pn_buf_len(&x->staple);
    uint8_t *copy = n ? OPENSSL_memdup(pn_buf_head(&x->staple), n) : NULL;
    pthread_mutex_unlock(&x->mutex);
    if (copy && SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)n)) return SSL_TLSEXT_ERR_OK; /* steals it */
    OPENSSL_free(copy);
    return SSL_TLSEXT_ERR_NOACK;
}

bool pn_tls_staple(SSL_CTX *context, pn_span answer) {
    extra *x = SSL_CTX_get_ex_data(context, extra_index);
    pthread_mutex_lock(&x->mutex);
    pn_buf_drop(&x->staple, pn_buf_len(&x->staple));
    bool kept = answer.n == 0 || pn_buf_add(&x->staple, answer.p, answer.n);
    pthread_mutex_unlock(&x->mutex);
    return kept;
}

bool pn_tls_rotate(SSL_CTX *context) {
    extra *x = SSL_CTX_get_ex_data(context, extra_index);
    ticket_key made;
    bool random = RAND_bytes(made.name, sizeof made.name) > 0 && RAND_priv_bytes(made.cipher, sizeof made.cipher) > 0 &&
                  RAND_priv_bytes(made.mac, sizeof made.mac) > 0;
    pthread_mutex_lock(&x->mutex);
    if (random) {
        x->keys[1] = x->keys[0];
        x->keys[0] = made;
        if (x->key_count < 2) x->key_count++;
    }
    pthread_mutex_unlock(&x->mutex);
    OPENSSL_cleanse(&made, sizeof made);
    return random;
}

/* The key for a ticket to be sealed, or the one that a ticket names: 1, or 2 for one that is to be replaced; 0: it is nobody's. */
static int find_key(extra *x, const uint8_t *name, bool sealing, ticket_key *found) {
    int which = 0;
    pthread_mutex_lock(&x->mutex);
    for (unsigned i = 0; i < x->key_count && !which; i++) {
        if (!sealing && memcmp(x->keys[i].name, name, sizeof found->name) != 0) continue;
        *found = x->keys[i];
        which = i == 0 ? 1 : 2;
    }
    pthread_mutex_unlock(&x->mutex);
    return which;
}

/* OpenSSL seals or opens a ticket (SSL_CTX_set_tlsext_ticket_key_evp_cb). */
static int seal(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int sealing) {
    ticket_key key;
    int which = find_key(extra_of(ssl), name, sealing, &key);
    if (!which) return 0;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac, sizeof key.mac),
                           OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0), OSSL_PARAM_construct_end()};
    bool ready = EVP_MAC_CTX_set_params(mac, params);
    if (ready && sealing) {
        memcpy(name, key.name, sizeof key.name);
        ready = RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) > 0;
    }
    ready = ready && EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.cipher, iv, sealing);
    OPENSSL_cleanse(&key, sizeof key);
    return ready ? which : -1;
}

static bool offer_tickets(SSL_CTX *context) {
    return pn_tls_rotate(context) && SSL_CTX_set_tlsext_ticket_key_evp_cb(context, seal);
}

/* --- keys in place of certificates --- */

/* The suites of TLS 1.3 for sessions that begin with a key: all of them with SHA-256, which a key is bound to (RFC 8446 §4.2.11). */
#define PSK_SUITES "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"

/* A client of TLS 1.3 names an identity (SSL_CTX_set_psk_find_session_callback). That it has its key is proved afterwards: there is always a session
 * to try it with. 0 without memory. */
static int find_session(SSL *ssl, const unsigned char *identity, size_t n, SSL_SESSION **found) {
    static const unsigned char suite[] = {0x13, 0x01}; /* TLS_AES_128_GCM_SHA256 */
    uint8_t key[PN_PSK_KEY_MAX];
    size_t key_n = 0;
    const pn_psk *whose;
    SSL_SESSION *session = SSL_SESSION_new();
    bool made = session && pn_psks_find(extra_of(ssl)->psks, pn_span_of(identity, n), &whose, key, &key_n) &&
                SSL_SESSION_set1_master_key(session, key, key_n) && SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, suite)) &&
                SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) && SSL_SESSION_set_ex_data(session, whose_index, (void *)(uintptr_t)whose);
    OPENSSL_cleanse(key, sizeof key);
    if (!made) {
        SSL_SESSION_free(session);
        session = NULL;
    }
    *found = session;
    return made;
}

/* The same of TLS 1.2 (SSL_CTX_set_psk_server_callback): the bytes of the key, or 0. An identity ends there where it has a zero. */
static unsigned find_secret(SSL *ssl, const char *identity, unsigned char *to, unsigned room) {
    uint8_t key[PN_PSK_KEY_MAX];
    size_t n = 0;
    const pn_psk *whose;
    bool found = identity && pn_psks_find(extra_of(ssl)->psks, pn_span_of(identity, strlen(identity)), &whose, key, &n) && n <= room &&
                 SSL_SESSION_set_ex_data(SSL_get_session(ssl), whose_index, (void *)(uintptr_t)whose);
    if (found) memcpy(to, key, n);
    OPENSSL_cleanse(key, sizeof key);
    return found ? (unsigned)n : 0;
}

/* Whose key the peer has. A session names somebody before anything is proved, so it counts only when the handshake is done, and was one by key. */
static const pn_psk *proved_by_key(const SSL *ssl) {
    const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
    if (!SSL_is_init_finished(ssl) || !cipher) return NULL;
    bool resumed = SSL_session_reused(ssl); /* which is what TLS 1.3 calls it; and of TLS 1.2 no session is kept */
    bool by_key = SSL_version(ssl) == TLS1_3_VERSION ? resumed : !resumed && SSL_CIPHER_get_auth_nid(cipher) == NID_auth_psk;
    return by_key ? SSL_SESSION_get_ex_data(SSL_get_session(ssl), whose_index) : NULL;
}

/* --- certificates --- */

/* The suites of TLS 1.3, in the order of those of TLS 1.2: what SHA-256 goes with costs the gateway less, and a node no more. */
#define SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

/* --- all of it --- */

/* Gives a context what it has beside OpenSSL's own. False without memory. */
static bool give_extra(SSL_CTX *context) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_extra_index);
    extra *x = pn_calloc(1, sizeof *x);
    if (!x) return false;
    pthread_mutex_init(&x->mutex, NULL);
    x->known = pn_known_new();
    if (!x->known || extra_index < 0 || !SSL_CTX_set_ex_data(context, extra_index, x)) {
        free_extra(NULL, x, NULL, 0, 0, NULL);
        return false;
    }
    SSL_CTX_set_cert_verify_callback(context, verify, x->known);
    SSL_CTX_set_tlsext_status_cb(context, staple);
    SSL_CTX_set_tlsext_status_arg(context, x);
    return true;
}

/* Has a context go by keys, which are its own from now on. False where OpenSSL cannot. */
static bool offer_keys(SSL_CTX *context, pn_psks *keys) {
    if (!SSL_CTX_set_ciphersuites(context, PSK_SUITES)) return false;
    SSL_CTX_set_psk_find_session_callback(context, find_session);
    SSL_CTX_set_psk_server_callback(context, find_secret);
    ((extra *)SSL_CTX_get_ex_data(context, extra_index))->psks = keys;
    return true;
}

const char *pn_tls_library(void) { return OpenSSL_version(OPENSSL_VERSION); }

/* --- contexts --- */

/* Keys of the fleet home are not encrypted; without this OpenSSL would ask at the terminal. */
static int no_password(char *buf, int size, int writing, void *arg) {
    (void)buf, (void)size, (void)writing, (void)arg;
    return 0;
}

static BIO *reader(pn_span text) { return BIO_new_mem_buf(text.p, (int)text.n); }

/* The certificates of a PEM text, one by one, to `use`; how many, or -1. */
static int each_certificate(pn_span text, int (*use)(SSL_CTX *, X509 *, int), SSL_CTX *context) {
    BIO *bio = reader(text);
    int count = 0;
    for (X509 *one; bio && (one = PEM_read_bio_X509(bio, NULL, no_password, NULL)) != NULL; count++) {
        int used = use(context, one, count);
        X509_free(one);
        if (!used) {
            count = -1;
            break;
        }
    }
    if (count > 0) ERR_clear_error(); /* the end of the text is an error to PEM_read */
    BIO_free(bio);
    return count;
}

static int use_of_chain(SSL_CTX *context, X509 *one, int at) {
    return at == 0 ? SSL_CTX_use_certificate(context, one) : (int)SSL_CTX_add1_chain_cert(context, one);
}

static int use_authority(SSL_CTX *context, X509 *one, int at) {
    (void)at;
    return X509_STORE_add_cert(SSL_CTX_get_cert_store(context), one);
}

static int use_key(SSL_CTX *context, pn_span text) {
    BIO *bio = reader(text);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    int used = key && SSL_CTX_use_PrivateKey(context, key) && SSL_CTX_check_private_key(context);
    EVP_PKEY_free(key);
    BIO_free(bio);
    return used;
}

static int allow(SSL_CTX *context, const pn_tls_files *files) {
    static const unsigned char name[] = "peanut";
    X509_VERIFY_PARAM *verify = SSL_CTX_get0_param(context);
    int mode = files->certificate == PN_TLS_NONE       ? SSL_VERIFY_NONE
               : files->certificate == PN_TLS_OPTIONAL ? SSL_VERIFY_PEER
                                                       : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(context, mode, NULL);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     (files->tickets ? 0 : SSL_OP_NO_TICKET));
    SSL_CTX_set_timeout(context, files->tickets ? files->tickets : 1);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(context, PN_TLS_CHAIN_MAX); /* it keeps room for whatever a header announces */
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) && SSL_CTX_set_num_tickets(context, files->tickets ? 1 : 0) &&
           SSL_CTX_set_session_id_context(context, name, sizeof name - 1) &&
           X509_VERIFY_PARAM_set_flags(verify, X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_TRUSTED_FIRST) &&
           SSL_CTX_set_cipher_list(context, files->ciphers) && SSL_CTX_set_ciphersuites(context, SUITES) &&
           SSL_CTX_set1_groups_list(context, files->groups);
}

SSL_CTX *pn_tls_context(const pn_tls_files *files, char *why, size_t size) {
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new_ex(files->keys ? NULL : pn_lean_library(), NULL, TLS_server_method());
    const char *what = "no memory";
    if (context && !allow(context, files)) {
        what = "the settings of TLS";
    } else if (context && files->keys && (files->certificate != PN_TLS_NONE || files->tickets)) {
        what = "keys stand alone, without certificates and tickets";
    } else if (context && !files->keys && each_certificate(files->chain, use_of_chain, context) <= 0) {
        what = "the gateway's certificate";
    } else if (context && !files->keys && !use_key(context, files->key)) {
        what = "the gateway's key";
    } else if (context && !files->keys && each_certificate(files->authorities, use_authority, context) <= 0) {
        what = "the CA certificates";
    } else if (context && (!give_extra(context) || (files->tickets && !offer_tickets(context)))) {
        what = "no memory";
    } else if (context && files->keys && !offer_keys(context, files->keys)) {
        what = "the keys of devices";
    } else if (context) {
        return context;
    }
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(why, size, "%s: %s", what, reason ? reason : "not usable");
    ERR_clear_error();
    SSL_CTX_free(context);
    return NULL;
}

/* --- the pipe --- */

static int pipe_read(BIO *bio, char *to, size_t n, size_t *got) {
    pn_tls_pipe *pipe = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    *got = n < pipe->in_n ? n : pipe->in_n;
    if (*got == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    memcpy(to, pipe->in, *got);
    pipe->in += *got;
    pipe->in_n -= *got;
    return 1;
}

static int pipe_write(BIO *bio, const char *from, size_t n, size_t *put) {
    pn_tls_pipe *pipe = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    *put = 0;
    if (!pn_buf_add(&pipe->out, from, n)) {
        pipe->full = true;
        return 0;
    }
    *put = n;
    return 1;
}

static long pipe_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

bool pn_tls_pipe_init(pn_tls_pipe *pipe) {
    *pipe = (pn_tls_pipe){0};
    pipe->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "peanut");
    bool made = pipe->method && BIO_meth_set_read_ex(pipe->method, pipe_read) && BIO_meth_set_write_ex(pipe->method, pipe_write) &&
                BIO_meth_set_ctrl(pipe->method, pipe_control);
    pipe->bio = made ? BIO_new(pipe->method) : NULL;
    if (!pipe->bio) {
        pn_tls_pipe_end(pipe);
        return false;
    }
    BIO_set_data(pipe->bio, pipe);
    BIO_set_init(pipe->bio, 1);
    return true;
}

void pn_tls_pipe_end(pn_tls_pipe *pipe) {
    BIO_free(pipe->bio);
    BIO_meth_free(pipe->method);
    pn_buf_free(&pipe->out);
    *pipe = (pn_tls_pipe){0};
}

/* --- sessions --- */

/* Whoever fails clears up, so that reading and writing need not: it would cost them as much as copying a record. */
void pn_tls_turn(void) { ERR_clear_error(); }

void pn_tls_bind(SSL *ssl, pn_tls_pipe *pipe) {
    BIO *bio = pipe ? pipe->bio : NULL;
    if (bio) BIO_up_ref(bio);
    SSL_set0_rbio(ssl, bio);
    if (bio) BIO_up_ref(bio);
    SSL_set0_wbio(ssl, bio);
}

SSL *pn_tls_session(SSL_CTX *context, pn_tls_pipe *pipe) {
    SSL *ssl = SSL_new(context);
    if (!ssl) return NULL;
    pn_tls_bind(ssl, pipe);
    SSL_set_accept_state(ssl);
    return ssl;
}

int pn_tls_handshake(SSL *ssl, pn_tls_failure *failure) {
    ERR_clear_error();
    int done = SSL_do_handshake(ssl);
    if (done == 1) {
        ERR_clear_error(); /* verifying a chain may leave some */
        return PN_TLS_DONE;
    }
    int error = SSL_get_error(ssl, done);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        ERR_clear_error();
        return PN_TLS_MORE;
    }
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    snprintf(failure->reason, sizeof failure->reason, "%s", reason ? reason : "");
    bool verify = ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED;
    failure->verify = verify ? SSL_get_verify_result(ssl) : 0;
    ERR_clear_error();
    return PN_TLS_FAILED;
}

size_t pn_tls_read(SSL *ssl, uint8_t *to, size_t n, int *result) {
    const pn_tls_pipe *pipe = BIO_get_data(SSL_get_rbio(ssl));
    size_t filled = 0, got;
    while (filled < n) {
        bool read = SSL_read_ex(ssl, to + filled, n - filled, &got);
        if (read) filled += got;
        if (read && (pipe->in_n || SSL_has_pending(ssl))) continue; /* else another call would only say that there is no more */
        *result = read || SSL_get_error(ssl, 0) == SSL_ERROR_WANT_READ ? PN_TLS_MORE : PN_TLS_FAILED;
        if (*result == PN_TLS_FAILED) ERR_clear_error();
        return filled;
    }
    *result = PN_TLS_DONE;
    return filled;
}

bool pn_tls_write(SSL *ssl, const uint8_t *from, size_t n) {
    size_t put = 0;
    for (; n; from += put, n -= put) {
        if (SSL_write_ex(ssl, from, n, &put)) continue;
        ERR_clear_error();
        return false;
    }
    return true;
}

void pn_tls_goodbye(SSL *ssl) {
    ERR_clear_error();
    (void)SSL_shutdown(ssl);
    ERR_clear_error();
}

uint8_t *pn_tls_peer(SSL *ssl, size_t *n) {
    if (extra_of(ssl)->psks) {
        const pn_psk *whose = proved_by_key(ssl);
        pn_span identity = whose ? pn_psk_identity(whose) : (pn_span){0};
        uint8_t *copy = whose ? OPENSSL_memdup(identity.p, identity.n) : NULL;
        *n = copy ? identity.n : 0;
        return copy;
    }
    X509 *peer = SSL_get0_peer_certificate(ssl);
    unsigned char *der = NULL;
    int size = peer ? i2d_X509(peer, &der) : -1;
    *n = size > 0 ? (size_t)size : 0;
    return size > 0 ? der : NULL;
}
