/* fuzz_tls.c: three sessions of native/tls.c on their one pipe, each with a client of OpenSSL or with nobody but the input at the other end.
 *
 * The input is a list of records, two bytes and what the operation needs: operation (3 bits), session (2), more (3); argument.
 *   op 0 begins anew: argument % 5 is the client (TLS 1.3, TLS 1.2, without a certificate, with one of another fleet, nobody),
 *        argument / 8 % 3 what the server asks for (a certificate required, optional, none); with more & 1 it offers the ticket that it got last;
 *        with more & 2 the server goes by keys (native/psk.h), and the clients are: TLS 1.3, TLS 1.2, one without a key, one with a wrong key, nobody
 *   op 1 argument and one byte more are a length, that many bytes follow: on the wire to the server, behind what is there, and all of it arrives
 *   op 2 that many bytes of what is on the wire to the server arrive; 0: all
 *   op 3 a bit (`more`) of the byte at argument * 2 on that wire is turned
 *   op 4 argument bytes of it are lost; with more & 1 they arrive twice
 *   op 5 the client says argument << more bytes; with 7 it asks for new keys, for another handshake, says goodbye, by the argument
 *   op 6 the server says argument << more bytes; with 7 it says goodbye
 *   op 7 that many bytes of what is on the wire to the client arrive, 0: all; with more & 1 the first of them is turned
 * Beside crashes it looks for: plaintext that nobody has said, a handshake that is done without the certificate or key that was asked for or with
 * another one, an honest client that is refused, bytes that are read and not used, and a server that answers a little with a lot.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../broker/native/certificates.h"
#include "repeatable.h"
#include "require.h"

enum { SESSIONS = 3, STARTS = 40 }; /* at a time; in all */
enum { V13, V12, BARE, STRANGER, NOBODY };
enum { KEYED = 3 }; /* what a server asks for, beside certificates by PN_TLS_… from the strictest on */
enum { FLIGHT = 16 * 1024, MOST = 1 << 16 }; /* bytes: a server's part of a handshake and then some; of plaintext in a record */

static const char STAPLE[] = "what is said of the server's certificate"; /* only STRANGER does not ask for it */

static struct {
    SSL_CTX *servers[KEYED + 1], *clients[NOBODY], *keyed[NOBODY];
    X509 *certificate; /* of those clients that have a good one */
    SSL_SESSION *kept[NOBODY]; /* owned, while an input runs: what a client would resume */
} world;

typedef struct side {
    SSL *server, *client; /* owned; no client: nobody */
    pn_buf up, down;      /* on the wire to the server, and back */
    uint64_t said[2], heard[2]; /* bytes of plaintext by the client, and by the server; each is the one before and 1 */
    uint64_t came, went, own;   /* bytes that the server has got, has put out, and those of them that it was told to */
    uint8_t kind, asks;
    bool in, over;  /* the server's handshake is done; its session has ended */
    bool dishonest; /* somebody has meddled, or has said goodbye */
} side;

/* --- keys in place of certificates --- */

static const char SHED[] = "shed", KEY[] = "thirty-two bytes that are a key.", WRONG[] = "thirty-two bytes that are no key";

static int use_session(SSL *ssl, const EVP_MD *digest, const unsigned char **identity, size_t *n, SSL_SESSION **session) {
    static const unsigned char suite[] = {0x13, 0x01};
    const char *key = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    (void)digest;
    *session = SSL_SESSION_new();
    *identity = (const unsigned char *)SHED;
    *n = strlen(SHED);
    return SSL_SESSION_set1_master_key(*session, (const unsigned char *)key, strlen(key)) && SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, suite)) &&
           SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION);
}

static unsigned use_key(SSL *ssl, const char *hint, char *identity, unsigned room, unsigned char *to, unsigned key_room) {
    const char *key = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    (void)hint;
    require(room > strlen(SHED) && key_room >= strlen(key), "no room for a key");
    memcpy(identity, SHED, sizeof SHED);
    memcpy(to, key, strlen(key));
    return (unsigned)strlen(key);
}

static void make_keyed(const pair *root) {
    char why[100];
    pn_tls_files files = {.ciphers = "ECDHE-PSK-CHACHA20-POLY1305", .groups = "prime256v1:X25519", .certificate = PN_TLS_NONE, .keys = pn_psks_new(2)};
    require(files.keys && pn_psks_add(files.keys, pn_span_of("neighbour", 9), pn_span_of(WRONG, strlen(WRONG))) &&
                pn_psks_add(files.keys, pn_span_of(SHED, strlen(SHED)), pn_span_of(KEY, strlen(KEY))) && pn_psks_seal(files.keys), "no keys");
    require((world.servers[KEYED] = pn_tls_context(&files, why, sizeof why)) != NULL, why);
    const char *keys[] = {[V13] = KEY, [V12] = KEY, [BARE] = NULL, [STRANGER] = WRONG};
    for (int i = 0; i < NOBODY; i++) {
        world.keyed[i] = call_with(root, NULL);
        SSL_CTX_set_app_data(world.keyed[i], (void *)(uintptr_t)keys[i]);
        if (i == V12) SSL_CTX_set_psk_client_callback(world.keyed[i], use_key);
        else if (keys[i]) SSL_CTX_set_psk_use_session_callback(world.keyed[i], use_session);
    }
    require(SSL_CTX_set_max_proto_version(world.keyed[V12], TLS1_2_VERSION) && SSL_CTX_set_cipher_list(world.keyed[V12], "PSK"), "no cipher");
}

static void make_world(void) {
    be_repeatable();
    pair root = make("root", NULL, true), gateway = make("gateway", &root, false), good = make("good", &root, false);
    pair other = make("root", NULL, true), stranger = make("good", &other, false);
    static const int asks[] = {PN_TLS_REQUIRED, PN_TLS_OPTIONAL, PN_TLS_NONE};
    char why[100];
    for (int i = 0; i < 3; i++) {
        require((world.servers[i] = serve_for(&root, &gateway, asks[i], false, 600, why, sizeof why)) != NULL, why);
        require(pn_tls_staple(world.servers[i], pn_span_of(STAPLE, strlen(STAPLE))), "no staple");
    }
    const pair *own[] = {[V13] = &good, [V12] = &good, [BARE] = NULL, [STRANGER] = &stranger};
    for (int i = 0; i < NOBODY; i++) {
        world.clients[i] = call_with(&root, own[i]);
        if (i != STRANGER) SSL_CTX_set_tlsext_status_type(world.clients[i], TLSEXT_STATUSTYPE_ocsp);
    }
    SSL_CTX_set_max_proto_version(world.clients[V12], TLS1_2_VERSION);
    make_keyed(&root);
    X509_up_ref(good.certificate);
    world.certificate = good.certificate;
    unmake(root), unmake(gateway), unmake(good), unmake(other), unmake(stranger);
}

/* --- plaintext --- */

static void speak(uint8_t *to, size_t n, uint64_t from) {
    for (size_t i = 0; i < n; i++) to[i] = (uint8_t)(from + i);
}

static void compare(const uint8_t *text, size_t n, uint64_t *heard, uint64_t said) {
    for (size_t i = 0; i < n; i++) require(text[i] == (uint8_t)(*heard + i), "plaintext that nobody has said");
    *heard += n;
    require(*heard <= said, "more plaintext than was said");
}

/* --- the two ends --- */

static void collect(pn_tls_pipe *pipe, side *s) {
    require(!pipe->full, "no memory");
    size_t n = pn_buf_len(&pipe->out);
    require(pn_buf_add(&s->down, pn_buf_head(&pipe->out), n), "memory");
    pn_buf_drop(&pipe->out, n);
    s->went += n;
    require(s->went <= FLIGHT + 4 * s->came + s->own, "a lot for a little");
}

/* Who has come in by a key is who it belongs to. */
static void welcome_by_key(side *s) {
    size_t n;
    uint8_t *who = pn_tls_peer(s->server, &n);
    require(who && n == strlen(SHED) && memcmp(who, SHED, n) == 0, "in by the key of nobody");
    require(s->kind == V13 || s->kind == V12, "a key that its client has not got");
    OPENSSL_free(who);
    s->in = true;
}

static void welcome(side *s) {
    size_t n;
    if (s->asks == KEYED) {
        welcome_by_key(s);
        return;
    }
    uint8_t *der = pn_tls_peer(s->server, &n);
    if (der) {
        X509 *theirs = d2i_X509(NULL, &(const unsigned char *){der}, (long)n);
        require(theirs && X509_cmp(theirs, world.certificate) == 0, "a certificate of nobody");
        X509_free(theirs);
    }
    require(der || s->asks != 0, "in without a certificate");
    require(!der || s->kind == V13 || s->kind == V12, "a certificate that its client has not got");
    OPENSSL_free(der);
    s->in = true;
}

static void end(side *s, const char *why) {
    bool fits = s->asks == KEYED ? s->kind == V13 || s->kind == V12 : s->kind == BARE ? s->asks != 0 : s->kind == STRANGER ? s->asks == 2 : s->kind != NOBODY;
    require(s->dishonest || !fits, why);
    s->over = true;
}

/* Whatever a client says it is, it is nobody before the handshake is done. */
static void require_nobody(const side *s) {
    size_t n;
    uint8_t *who = s->asks == KEYED ? pn_tls_peer(s->server, &n) : NULL;
    require(who == NULL, "somebody before it is proved");
}

/* What a loop does with what it has received. */
static void arrive(pn_tls_pipe *pipe, side *s, size_t n) {
    static uint8_t plain[4096];
    if (n == 0 || n > pn_buf_len(&s->up)) n = pn_buf_len(&s->up);
    uint8_t *bytes = n ? malloc(n) : NULL; /* a block of its own: what is read behind it is seen */
    if (!bytes) return;
    memcpy(bytes, pn_buf_head(&s->up), n);
    pn_buf_drop(&s->up, n);
    s->came += n;
    pipe->in = bytes;
    pipe->in_n = n;
    if (!s->in && !s->over) {
        pn_tls_failure failure = {0};
        int result = pn_tls_handshake(s->server, &failure);
        require(strlen(failure.reason) < sizeof failure.reason, "a reason without an end");
        require(result != PN_TLS_MORE || pipe->in_n == 0, "bytes that were not looked at");
        if (result == PN_TLS_DONE) welcome(s);
        if (result == PN_TLS_FAILED) end(s, failure.reason);
        if (!s->in) require_nobody(s);
        collect(pipe, s);
    }
    for (int result = PN_TLS_DONE; s->in && !s->over && result == PN_TLS_DONE;) {
        size_t got = pn_tls_read(s->server, plain, sizeof plain, &result);
        compare(plain, got, &s->heard[0], s->said[0]);
        require(result != PN_TLS_DONE || got == sizeof plain, "less than there was room for, and no reason");
        require(result != PN_TLS_MORE || pipe->in_n == 0, "bytes that were not looked at");
        if (result == PN_TLS_FAILED) end(s, "an honest session was ended");
        collect(pipe, s);
    }
    pipe->in_n = 0;
    free(bytes);
}

/* The client's next step; what it has to say goes on the wire. */
static void go_on(side *s) {
    static uint8_t plain[4096];
    size_t got;
    if (!s->client) return;
    ERR_clear_error();
    if (!SSL_is_init_finished(s->client) && SSL_do_handshake(s->client) == 1) {
        const unsigned char *said;
        long n = SSL_get_tlsext_status_ocsp_resp(s->client, &said);
        bool whole = n == (long)strlen(STAPLE) && memcmp(said, STAPLE, (size_t)n) == 0;
        require(s->kind == STRANGER || s->asks == KEYED || SSL_session_reused(s->client) ? n <= 0 : whole, "the wrong thing is said of the certificate");
    }
    while (SSL_is_init_finished(s->client) && SSL_read_ex(s->client, plain, sizeof plain, &got)) compare(plain, got, &s->heard[1], s->said[1]);
    if (SSL_is_init_finished(s->client) && SSL_SESSION_has_ticket(SSL_get0_session(s->client))) {
        SSL_SESSION_free(world.kept[s->kind]);
        world.kept[s->kind] = SSL_SESSION_dup(SSL_get0_session(s->client));
    }
    ERR_clear_error();
    BIO *out = SSL_get_wbio(s->client);
    char *text;
    long n = BIO_get_mem_data(out, &text);
    require(n <= 0 || pn_buf_add(&s->up, text, (size_t)n), "memory");
    (void)BIO_reset(out);
}

static void stop(side *s) {
    SSL_free(s->server);
    SSL_free(s->client);
    pn_buf_free(&s->up);
    pn_buf_free(&s->down);
    *s = (side){0};
}

static void start(pn_tls_pipe *pipe, side *s, uint8_t kind, uint8_t asks, bool resumes) {
    stop(s);
    s->kind = kind;
    s->asks = asks;
    s->dishonest = kind == NOBODY;
    s->server = pn_tls_session(world.servers[asks], pipe);
    require(s->server != NULL, "no session");
    if (kind == NOBODY) return;
    s->client = SSL_new(asks == KEYED ? world.keyed[kind] : world.clients[kind]);
    SSL_set_bio(s->client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(s->client);
    if (resumes && asks != KEYED && world.kept[kind]) SSL_set_session(s->client, world.kept[kind]);
    go_on(s);
}

static void client_says(side *s, size_t n) {
    static uint8_t text[MOST];
    size_t put;
    if (!s->client || !SSL_is_init_finished(s->client) || n == 0) return;
    n = n < MOST ? n : MOST;
    speak(text, n, s->said[0]);
    if (SSL_write_ex(s->client, text, n, &put)) s->said[0] += put;
    go_on(s);
}

static void client_does(side *s, uint8_t what) {
    if (!s->client) return;
    if (what % 4 == 0) SSL_key_update(s->client, what & 4 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
    if (what % 4 > 1) s->dishonest = true; /* what a server does to who asks for a second handshake is for it to say */
    if (what % 4 == 2 && SSL_renegotiate(s->client)) SSL_do_handshake(s->client);
    if (what % 4 == 3) SSL_shutdown(s->client);
    go_on(s);
}

static void server_says(pn_tls_pipe *pipe, side *s, size_t n) {
    static uint8_t text[MOST];
    if (!s->in || s->over || n == 0) return;
    n = n < MOST ? n : MOST;
    speak(text, n, s->said[1]);
    s->own += n + 64 * (1 + n / 1024);
    if (pn_tls_write(s->server, text, n)) s->said[1] += n;
    else end(s, "an honest session takes nothing");
    collect(pipe, s);
}

static void hear(side *s, size_t n, bool turned) {
    if (n == 0 || n > pn_buf_len(&s->down)) n = pn_buf_len(&s->down);
    if (n == 0) return;
    if (turned) s->down.p[s->down.head] ^= 1, s->dishonest = true;
    if (s->client) BIO_write(SSL_get_rbio(s->client), pn_buf_head(&s->down), (int)n);
    pn_buf_drop(&s->down, n);
    go_on(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!world.certificate) make_world();
    chance = 0;
    pn_tls_pipe pipe;
    side sides[SESSIONS] = {0};
    int starts = 0;
    require(pn_tls_pipe_init(&pipe), "no pipe");
    while (size >= 2) {
        uint8_t op = data[0] & 7, more = data[0] >> 5, argument = data[1];
        side *s = &sides[(data[0] >> 3 & 3) % SESSIONS];
        data += 2, size -= 2;
        if (op == 0) {
            if (starts++ == STARTS) break;
            start(&pipe, s, argument % 5, more & 2 ? KEYED : argument / 8 % 3, more & 1);
            continue;
        }
        if (!s->server) start(&pipe, s, NOBODY, 0, false);
        size_t waits = pn_buf_len(&s->up);
        switch (op) {
        case 1: {
            size_t n = size ? (size_t)(argument << 8 | data[0]) : 0;
            if (size) data++, size--;
            if (n > size) n = size;
            if (n == 0) break;
            s->dishonest = true;
            require(pn_buf_add(&s->up, data, n), "memory");
            data += n, size -= n;
            arrive(&pipe, s, 0);
            break;
        }
        case 2: arrive(&pipe, s, argument); break;
        case 3:
            if (argument * 2u >= waits) break;
            s->up.p[s->up.head + argument * 2u] ^= (uint8_t)(1u << more);
            s->dishonest = true;
            break;
        case 4:
            if (!waits || !argument) break;
            s->dishonest = true;
            if (more & 1) {
                uint8_t twice[256];
                size_t n = argument < waits ? argument : waits;
                memcpy(twice, pn_buf_head(&s->up), n);
                arrive(&pipe, s, n);
                arrive(&pipe, s, (pn_buf_add(&s->up, twice, n), 0));
            } else {
                pn_buf_drop(&s->up, argument);
            }
            break;
        case 5:
            if (more == 7) client_does(s, argument);
            else client_says(s, (size_t)argument << more);
            break;
        case 6:
            if (more < 7) server_says(&pipe, s, (size_t)argument << more);
            else if (s->in) pn_tls_goodbye(s->server), s->dishonest = true, collect(&pipe, s);
            break;
        default: hear(s, argument, more & 1);
        }
    }
    for (int i = 0; i < SESSIONS; i++) stop(&sides[i]);
    for (int i = 0; i < NOBODY; i++) {
        SSL_SESSION_free(world.kept[i]);
        world.kept[i] = NULL;
    }
    pn_tls_pipe_end(&pipe);
    return 0;
}
