/* test_psk.c: keys of devices: the table, and handshakes that go by it; the client is OpenSSL's, in memory.
 *
 * What becomes of who has proved an identity is proved from Python (tests/broker/test_psk.py).
 */
#include <openssl/err.h>

#include "psk.h"
#include "test.h"
#include "tls.h"

#define SPAN(literal) pn_span_of(literal, sizeof(literal) - 1)

static const uint8_t KEY[] = "a key which nobody can guess, who has not read this file, and longer than it may be";

/* --- the table --- */

TEST(lengths_have_limits) {
    static const uint8_t name[PN_PSK_IDENTITY_MAX + 1] = {1};
    static const struct {
        size_t identity, key;
        bool good;
    } cases[] = {{0, 32, false},
                 {1, PN_PSK_KEY_MIN, true},
                 {PN_PSK_IDENTITY_MAX, PN_PSK_KEY_MAX, true},
                 {PN_PSK_IDENTITY_MAX + 1, 32, false},
                 {8, PN_PSK_KEY_MIN - 1, false},
                 {8, PN_PSK_KEY_MAX + 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CONTEXT("case %zu", i);
        pn_psks *psks = pn_psks_new(1);
        CHECK(psks);
        CHECK_EQ(pn_psks_add(psks, pn_span_of(name, cases[i].identity), pn_span_of(KEY, cases[i].key)), cases[i].good);
        CHECK_EQ(pn_psks_add(psks, SPAN("another"), pn_span_of(KEY, 32)), !cases[i].good); /* there is room for one */
        pn_psks_free(psks);
    }
    CONTEXT("%s", "");
    CHECK(pn_psks_new(PN_PSK_KEYS_MAX + 1) == NULL);
    pn_psks_free(pn_psks_new(PN_PSK_KEYS_MAX));
    pn_psks_free(NULL);
}

TEST(everybody_is_found_and_nobody_else) {
    enum { COUNT = 100 };
    const pn_psk *whose;
    uint8_t key[PN_PSK_KEY_MAX], decoy[PN_PSK_KEY_MAX], other[PN_PSK_KEY_MAX];
    char name[16];
    size_t n;
    for (unsigned count = 0; count <= COUNT; count += count < 4 ? 1 : 16) {
        pn_psks *psks = pn_psks_new(count);
        for (unsigned i = 0; i < count; i++) {
            snprintf(name, sizeof name, "device-%u", i);
            CHECK(pn_psks_add(psks, pn_span_of(name, strlen(name)), pn_span_of(&KEY[i % 32], 16 + i % 8)));
        }
        CHECK(pn_psks_seal(psks));
        for (unsigned i = 0; i < count; i++) {
            snprintf(name, sizeof name, "device-%u", i);
            CHECK(pn_psks_find(psks, pn_span_of(name, strlen(name)), &whose, key, &n) && whose);
            CHECK_BYTES(pn_psk_identity(whose).p, pn_psk_identity(whose).n, name, strlen(name));
            CHECK_BYTES(key, n, &KEY[i % 32], 16 + i % 8);
        }
        CHECK(pn_psks_find(psks, SPAN("device-"), &whose, decoy, &n) && !whose && n == 32);
        CHECK(pn_psks_find(psks, SPAN("device-"), &whose, key, &n));
        CHECK_BYTES(key, 32, decoy, 32); /* the same again */
        CHECK(pn_psks_find(psks, SPAN("device-0\0"), &whose, other, &n) && !whose && memcmp(other, decoy, 32) != 0);
        CHECK(pn_psks_find(psks, (pn_span){0}, &whose, other, &n) && !whose && n == 32);
        pn_psks_free(psks);
    }
    pn_psks *one = pn_psks_new(0), *two = pn_psks_new(0);
    CHECK(pn_psks_find(one, SPAN("who"), &whose, key, &n) && pn_psks_find(two, SPAN("who"), &whose, other, &n));
    CHECK(memcmp(key, other, 32) != 0); /* each table has its own decoys */
    pn_psks_free(one), pn_psks_free(two);
}

TEST(an_identity_is_there_once) {
    pn_psks *psks = pn_psks_new(3);
    CHECK(pn_psks_add(psks, SPAN("one"), pn_span_of(KEY, 32)) && pn_psks_add(psks, SPAN("two"), pn_span_of(KEY, 16)));
    CHECK(pn_psks_add(psks, SPAN("one"), pn_span_of(KEY, 16)));
    CHECK(!pn_psks_seal(psks));
    pn_psks_free(psks);
}

/* --- handshakes --- */

/* A context in which `name` has the key. */
static SSL_CTX *serve(const char *name, pn_span key) {
    char why[100];
    pn_psks *psks = pn_psks_new(2);
    CHECK(pn_psks_add(psks, pn_span_of(name, strlen(name)), key) && pn_psks_add(psks, SPAN("neighbour"), pn_span_of(KEY, 16)) && pn_psks_seal(psks));
    pn_tls_files files = {.ciphers = "ECDHE-PSK-CHACHA20-POLY1305", .groups = "prime256v1:X25519", .certificate = PN_TLS_NONE, .keys = psks};
    SSL_CTX *context = pn_tls_context(&files, why, sizeof why);
    if (!context) printf("%s\n", why);
    return context;
}

typedef struct offer {
    pn_span identity, key;
    unsigned early; /* bytes that it takes it may send with its first words */
} offer;

static int use_session(SSL *ssl, const EVP_MD *digest, const unsigned char **identity, size_t *n, SSL_SESSION **session) {
    const offer *o = SSL_get_app_data(ssl);
    static const unsigned char suite[] = {0x13, 0x01};
    (void)digest;
    *session = SSL_SESSION_new();
    *identity = o->identity.p;
    *n = o->identity.n;
    return SSL_SESSION_set1_master_key(*session, o->key.p, o->key.n) && SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, suite)) &&
           SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION) && SSL_SESSION_set_max_early_data(*session, o->early);
}

static unsigned use_key(SSL *ssl, const char *hint, char *identity, unsigned room, unsigned char *key, unsigned key_room) {
    const offer *o = SSL_get_app_data(ssl);
    (void)hint;
    if (o->identity.n >= room || o->key.n > key_room) return 0;
    memcpy(identity, o->identity.p, o->identity.n);
    identity[o->identity.n] = 0;
    memcpy(key, o->key.p, o->key.n);
    return o->key.n;
}

static SSL_CTX *call(int version) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    CHECK(context && SSL_CTX_set_min_proto_version(context, version) && SSL_CTX_set_max_proto_version(context, version));
    CHECK(SSL_CTX_set_cipher_list(context, "PSK:ECDHE"));
    return context;
}

typedef struct outcome {
    bool in;
    char who[PN_PSK_IDENTITY_MAX + 1];
    size_t sent[8]; /* bytes by the server, in each of its turns */
    int alert;      /* that the client got */
    char why[96];
    bool ticket;
} outcome;

static int outcome_index = -1; /* of it among the client's extra data */

static void hear_alert(const SSL *ssl, int where, int ret) {
    if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT) ((outcome *)SSL_get_ex_data(ssl, outcome_index))->alert = ret;
}

/* A client by `client` tries to come in; without `o` it has no key. */
static outcome meet(SSL_CTX *server, SSL_CTX *client, const offer *o) {
    outcome found = {0};
    pn_tls_pipe pipe;
    pn_tls_failure failure = {0};
    size_t n;
    CHECK(pn_tls_pipe_init(&pipe));
    if (outcome_index < 0) outcome_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    SSL *ours = pn_tls_session(server, &pipe), *theirs = SSL_new(client);
    SSL_set_bio(theirs, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(theirs);
    SSL_set_ex_data(theirs, outcome_index, &found);
    SSL_set_info_callback(theirs, hear_alert);
    if (o) {
        SSL_set_app_data(theirs, (void *)(uintptr_t)o);
        SSL_set_psk_use_session_callback(theirs, use_session);
        if (SSL_get_max_proto_version(theirs) == TLS1_2_VERSION) SSL_set_psk_client_callback(theirs, use_key);
    }
    int result = PN_TLS_MORE;
    for (int i = 0; i < 8; i++) {
        char *text;
        SSL_do_handshake(theirs);
        pipe.in_n = (size_t)BIO_get_mem_data(SSL_get_wbio(theirs), &text);
        pipe.in = (const uint8_t *)text;
        if (result == PN_TLS_MORE && pipe.in_n) {
            uint8_t *early = pn_tls_peer(ours, &n);
            CHECK(early == NULL && n == 0); /* whatever it has said it is: it has proved nothing yet */
            result = pn_tls_handshake(ours, &failure);
        }
        (void)BIO_reset(SSL_get_wbio(theirs));
        found.sent[i] = pn_buf_len(&pipe.out);
        BIO_write(SSL_get_rbio(theirs), pn_buf_head(&pipe.out), (int)pn_buf_len(&pipe.out));
        pn_buf_drop(&pipe.out, pn_buf_len(&pipe.out));
    }
    uint8_t *who = pn_tls_peer(ours, &n);
    if (who) memcpy(found.who, who, n);
    OPENSSL_free(who);
    found.in = result == PN_TLS_DONE && SSL_is_init_finished(theirs);
    CHECK_EQ(found.in, n != 0); /* who has come in is somebody, and nobody else is */
    if (found.in) found.ticket = SSL_SESSION_has_ticket(SSL_get0_session(theirs));
    memcpy(found.why, failure.reason, sizeof found.why);
    SSL_free(ours);
    SSL_free(theirs);
    pn_tls_pipe_end(&pipe);
    ERR_clear_error();
    return found;
}

static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};

TEST(who_has_a_key_is_who_it_belongs_to) {
    for (int i = 0; i < 2; i++) {
        CONTEXT("version %d", i);
        SSL_CTX *server = serve("shed", pn_span_of(KEY, 32)), *client = call(versions[i]);
        offer o = {SPAN("shed"), pn_span_of(KEY, 32), 0};
        for (int k = 0; k < 2; k++) {
            outcome found = meet(server, client, &o);
            CHECK(found.in && !found.ticket);
            CHECK_TEXT(found.who, strlen(found.who), "shed");
        }
        o = (offer){SPAN("neighbour"), pn_span_of(KEY, 16), 0};
        outcome other = meet(server, client, &o);
        CHECK_TEXT(other.who, strlen(other.who), "neighbour");
        SSL_CTX_free(server), SSL_CTX_free(client);
    }
}

static void same(const outcome *a, const outcome *b) {
    for (int i = 0; i < 8; i++) CHECK_EQ(a->sent[i], b->sent[i]);
    CHECK_EQ(a->alert, b->alert);
    CHECK(strcmp(a->why, b->why) == 0);
}

/* By what it is told, and by how many bytes, a stranger cannot find out whether there is an identity. */
TEST(a_wrong_key_and_a_wrong_name_fail_alike) {
    static const uint8_t odd[] = {'s', 'h', 'e', 'd', 0xff, 0xc0};
    static uint8_t lengthy[PN_PSK_IDENTITY_MAX + 1];
    memset(lengthy, 'x', sizeof lengthy);
    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve("shed", pn_span_of(KEY, 32)), *client = call(versions[i]);
        offer wrong = {SPAN("shed"), pn_span_of(&KEY[1], 32), 0}, others = {SPAN("shed"), pn_span_of(KEY, 16), 0};
        outcome known = meet(server, client, &wrong);
        CHECK(!known.in && known.alert != 0 && known.why[0]);
        CHECK(!meet(server, client, &others).in);
        pn_span strangers[] = {SPAN("shop"), SPAN("SHED"), pn_span_of(odd, sizeof odd), pn_span_of(lengthy, sizeof lengthy), SPAN("shed\0")};
        for (size_t k = 0; k < sizeof strangers / sizeof *strangers; k++) {
            CONTEXT("version %d, stranger %zu", i, k);
            if (i == 1 && k == 4) continue; /* a client of TLS 1.2 has no way to say it */
            offer o = {strangers[k], pn_span_of(KEY, 32), 0};
            outcome unknown = meet(server, client, &o);
            CHECK(!unknown.in);
            same(&unknown, &known);
        }
        SSL_CTX_free(server), SSL_CTX_free(client);
    }
}

TEST(who_has_no_key_gets_no_handshake) {
    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve("shed", pn_span_of(KEY, 32)), *client = call(versions[i]);
        CHECK(!meet(server, client, NULL).in);
        SSL_CTX_free(server), SSL_CTX_free(client);
    }
}

/* A key alone would open what was recorded before it was lost. */
TEST(keys_are_exchanged_beside_it) {
    SSL_CTX *server = serve("shed", pn_span_of(KEY, 32)), *later = call(TLS1_3_VERSION), *before = call(TLS1_2_VERSION);
    offer o = {SPAN("shed"), pn_span_of(KEY, 32), 0};
    SSL_CTX_set_options(later, SSL_OP_ALLOW_NO_DHE_KEX);
    CHECK(meet(server, later, &o).in);
    CHECK(SSL_CTX_set1_groups_list(later, "secp384r1")); /* there is no group in common, and it would do without */
    CHECK(!meet(server, later, &o).in);
    CHECK(SSL_CTX_set_cipher_list(before, "kPSK:kDHEPSK"));
    CHECK(!meet(server, before, &o).in);
    SSL_CTX_free(server), SSL_CTX_free(later), SSL_CTX_free(before);
}

/* What was a reload: the key of before is worth nothing with the context that has another. */
TEST(each_context_has_its_own_keys) {
    for (int i = 0; i < 2; i++) {
        SSL_CTX *old = serve("shed", pn_span_of(KEY, 32)), *new = serve("shed", pn_span_of(&KEY[8], 32)), *client = call(versions[i]);
        offer o = {SPAN("shed"), pn_span_of(KEY, 32), 0};
        CHECK(meet(old, client, &o).in && !meet(new, client, &o).in);
        o.key = pn_span_of(&KEY[8], 32);
        CHECK(!meet(old, client, &o).in && meet(new, client, &o).in);
        SSL_CTX_free(old), SSL_CTX_free(new), SSL_CTX_free(client);
    }
}

TEST(keys_stand_alone) {
    static const pn_tls_files wrong[] = {{.certificate = PN_TLS_OPTIONAL}, {.certificate = PN_TLS_REQUIRED}, {.certificate = PN_TLS_NONE, .tickets = 60}};
    for (int i = 0; i < 3; i++) {
        char why[100] = "";
        pn_tls_files files = wrong[i];
        files.ciphers = "ECDHE-PSK-CHACHA20-POLY1305";
        files.groups = "prime256v1";
        files.keys = pn_psks_new(0);
        CHECK(pn_tls_context(&files, why, sizeof why) == NULL);
        CHECK(strncmp(why, "keys stand alone", 16) == 0);
        pn_psks_free(files.keys); /* still ours */
    }
}

/* --- what is carried over, and what outlives what --- */

/* Both sides speak once, the client first; what pn_tls_handshake says. */
static int turn(SSL *ours, SSL *theirs, pn_tls_pipe *pipe) {
    char *text;
    pn_tls_failure failure;
    SSL_do_handshake(theirs);
    pipe->in_n = (size_t)BIO_get_mem_data(SSL_get_wbio(theirs), &text);
    pipe->in = (const uint8_t *)text;
    int result = pn_tls_handshake(ours, &failure);
    (void)BIO_reset(SSL_get_wbio(theirs));
    BIO_write(SSL_get_rbio(theirs), pn_buf_head(&pipe->out), (int)pn_buf_len(&pipe->out));
    pn_buf_drop(&pipe->out, pn_buf_len(&pipe->out));
    return result;
}

/* A client with a key, that has said nothing yet. */
static SSL *caller(SSL_CTX *client, const offer *o) {
    SSL *ssl = SSL_new(client);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(ssl);
    SSL_set_app_data(ssl, (void *)(uintptr_t)o);
    SSL_set_psk_use_session_callback(ssl, use_session);
    SSL_set_psk_client_callback(ssl, use_key);
    return ssl;
}

/* A reload lets go of a context while handshakes by it are on their way, and their sessions point at its keys. */
TEST(keys_live_as_long_as_their_handshakes) {
    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve("shed", pn_span_of(KEY, 32)), *client = call(versions[i]);
        offer o = {SPAN("shed"), pn_span_of(KEY, 32), 0};
        pn_tls_pipe pipe;
        size_t n = 0;
        CHECK(pn_tls_pipe_init(&pipe));
        SSL *ours = pn_tls_session(server, &pipe), *theirs = caller(client, &o);
        CHECK_EQ(turn(ours, theirs, &pipe), PN_TLS_MORE);
        SSL_CTX_free(server);
        CHECK_EQ(turn(ours, theirs, &pipe), PN_TLS_DONE);
        uint8_t *who = pn_tls_peer(ours, &n);
        CHECK_TEXT(who, n, "shed");
        OPENSSL_free(who);
        SSL_SESSION *session = SSL_get1_session(ours);
        SSL_free(ours);
        SSL_SESSION_free(session); /* after its keys, which it does not look at */
        SSL_free(theirs);
        pn_tls_pipe_end(&pipe);
        SSL_CTX_free(client);
    }
}

/* What came in by one key is no way in without it, nor with another one. */
TEST(no_session_is_resumed) {
    for (int i = 0; i < 2; i++) {
        SSL_CTX *server = serve("shed", pn_span_of(KEY, 32)), *client = call(versions[i]);
        offer first = {SPAN("shed"), pn_span_of(KEY, 32), 0}, second = {SPAN("neighbour"), pn_span_of(KEY, 16), 0};
        offer nobody = {SPAN("shed"), pn_span_of(&KEY[3], 32), 0};
        const offer *offers[] = {&first, &second, &nobody};
        SSL_SESSION *kept = NULL;
        for (int k = 0; k < 3; k++) {
            CONTEXT("version %d, offer %d", i, k);
            pn_tls_pipe pipe;
            size_t n = 0;
            CHECK(pn_tls_pipe_init(&pipe));
            SSL *ours = pn_tls_session(server, &pipe), *theirs = caller(client, offers[k]);
            if (kept) CHECK(SSL_set_session(theirs, kept));
            (void)turn(ours, theirs, &pipe);
            int done = turn(ours, theirs, &pipe);
            uint8_t *who = pn_tls_peer(ours, &n);
            if (k == 2) {
                CHECK_EQ(done, PN_TLS_FAILED);
                CHECK(who == NULL);
            } else {
                CHECK_EQ(done, PN_TLS_DONE);
                CHECK_BYTES(who, n, offers[k]->identity.p, offers[k]->identity.n);
                SSL_do_handshake(theirs);
                CHECK_EQ(SSL_SESSION_has_ticket(SSL_get0_session(theirs)), 0);
            }
            OPENSSL_free(who);
            if (!kept) kept = SSL_get1_session(theirs);
            SSL_free(ours);
            SSL_free(theirs);
            pn_tls_pipe_end(&pipe);
        }
        SSL_SESSION_free(kept);
        SSL_CTX_free(server), SSL_CTX_free(client);
    }
}

/* What anybody could send again, who has recorded it, is not listened to. */
TEST(early_data_is_not_taken) {
    SSL_CTX *server = serve("shed", pn_span_of(KEY, 32)), *client = call(TLS1_3_VERSION);
    offer o = {SPAN("shed"), pn_span_of(KEY, 32), 1000};
    pn_tls_pipe pipe;
    uint8_t got[100];
    char *text;
    size_t n;
    int more;
    CHECK(pn_tls_pipe_init(&pipe));
    SSL *ours = pn_tls_session(server, &pipe), *theirs = caller(client, &o);
    CHECK(SSL_write_early_data(theirs, "early", 5, &n) && n == 5);
    CHECK_EQ(turn(ours, theirs, &pipe), PN_TLS_MORE);
    CHECK_EQ(turn(ours, theirs, &pipe), PN_TLS_DONE);
    CHECK_EQ(SSL_get_early_data_status(theirs), SSL_EARLY_DATA_REJECTED);
    CHECK(SSL_write_ex(theirs, "late", 4, &n));
    pipe.in_n = (size_t)BIO_get_mem_data(SSL_get_wbio(theirs), &text);
    pipe.in = (const uint8_t *)text;
    n = pn_tls_read(ours, got, sizeof got, &more);
    CHECK_TEXT(got, n, "late");
    SSL_free(ours);
    SSL_free(theirs);
    pn_tls_pipe_end(&pipe);
    SSL_CTX_free(server), SSL_CTX_free(client);
}

TEST_MAIN(CASE(lengths_have_limits), CASE(everybody_is_found_and_nobody_else), CASE(an_identity_is_there_once), CASE(who_has_a_key_is_who_it_belongs_to),
          CASE(a_wrong_key_and_a_wrong_name_fail_alike), CASE(who_has_no_key_gets_no_handshake), CASE(keys_are_exchanged_beside_it),
          CASE(each_context_has_its_own_keys), CASE(keys_stand_alone), CASE(keys_live_as_long_as_their_handshakes), CASE(no_session_is_resumed),
          CASE(early_data_is_not_taken))
