/* test_tls.c: sessions that are resumed by a ticket, and what is said of the gateway's certificate; the client is OpenSSL's, in memory.
 *
 * That the gateway judges who is resumed like anybody else is proved from Python (tests/broker/test_tickets.py).
 */
#include "certificates.h"
#include "test.h"
#include "tls.h"

typedef struct scene {
    pair root, gateway, own;
    SSL_CTX *server, *client;
    pn_tls_pipe pipe;
    SSL_SESSION *kept; /* the client's */
    bool resumed;      /* at the last meeting, as both see it */
} scene;

static void scene_init(scene *s, long tickets, int version) {
    char why[100];
    *s = (scene){.root = make("root", NULL, true)};
    s->gateway = make("gateway", &s->root, false);
    s->own = make("own", &s->root, false);
    s->server = serve_for(&s->root, &s->gateway, PN_TLS_REQUIRED, false, tickets, why, sizeof why);
    s->client = call_with(&s->root, &s->own);
    SSL_CTX_set_max_proto_version(s->client, version);
    CHECK(s->server && pn_tls_pipe_init(&s->pipe));
}

static void scene_end(scene *s) {
    SSL_SESSION_free(s->kept);
    SSL_CTX_free(s->server);
    SSL_CTX_free(s->client);
    pn_tls_pipe_end(&s->pipe);
    unmake(s->root), unmake(s->gateway), unmake(s->own);
}

/* A handshake by `server` and a byte there and back, with the session that was kept, if any; the client keeps the one that it gets. Whether it came about. */
static bool meet(scene *s, SSL_CTX *server) {
    SSL *ours = pn_tls_session(server, &s->pipe), *theirs = SSL_new(s->client);
    bool done = false, heard = false;
    SSL_set_bio(theirs, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(theirs);
    if (s->kept) SSL_set_session(theirs, s->kept);
    for (int i = 0; i < 10 && !heard; i++) {
        uint8_t byte = 'x';
        char *text;
        pn_tls_failure failure;
        int result = PN_TLS_MORE;
        if (!SSL_is_init_finished(theirs)) SSL_do_handshake(theirs);
        else if (i < 9) SSL_write(theirs, &byte, 1);
        s->pipe.in_n = (size_t)BIO_get_mem_data(SSL_get_wbio(theirs), &text);
        s->pipe.in = (const uint8_t *)text;
        if (!done) done = pn_tls_handshake(ours, &failure) == PN_TLS_DONE;
        if (done && pn_tls_read(ours, &byte, 1, &result) == 1) CHECK(pn_tls_write(ours, &byte, 1));
        (void)BIO_reset(SSL_get_wbio(theirs));
        BIO_write(SSL_get_rbio(theirs), pn_buf_head(&s->pipe.out), (int)pn_buf_len(&s->pipe.out));
        pn_buf_drop(&s->pipe.out, pn_buf_len(&s->pipe.out));
        heard = SSL_is_init_finished(theirs) && SSL_read(theirs, &byte, 1) == 1;
    }
    if (heard) {
        size_t n;
        uint8_t *der = pn_tls_peer(ours, &n);
        const uint8_t *at = der;
        X509 *peer = d2i_X509(NULL, &at, (long)n);
        CHECK(peer && X509_cmp(peer, s->own.certificate) == 0); /* resumed or not */
        X509_free(peer);
        OPENSSL_free(der);
        SSL_SESSION_free(s->kept);
        s->kept = SSL_get1_session(theirs);
        s->resumed = SSL_session_reused(theirs);
        CHECK_EQ(s->resumed, SSL_session_reused(ours));
    }
    SSL_set_shutdown(theirs, SSL_SENT_SHUTDOWN); /* a session that was broken off would not be offered again */
    SSL_free(ours);
    SSL_free(theirs);
    ERR_clear_error();
    return heard;
}

static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};

TEST(there_are_no_tickets) {
    for (int i = 0; i < 2; i++) {
        scene s;
        scene_init(&s, 0, versions[i]);
        for (int k = 0; k < 2; k++) {
            CHECK(meet(&s, s.server));
            CHECK(!s.resumed);
            CHECK(!SSL_SESSION_has_ticket(s.kept));
        }
        scene_end(&s);
    }
}

TEST(a_ticket_resumes_until_its_key_is_gone) {
    for (int i = 0; i < 2; i++) {
        scene s;
        scene_init(&s, 60, versions[i]);
        CHECK(meet(&s, s.server) && !s.resumed && SSL_SESSION_has_ticket(s.kept));
        CHECK_EQ(SSL_SESSION_get_ticket_lifetime_hint(s.kept), 60);
        CHECK(meet(&s, s.server) && s.resumed);
        SSL_SESSION *old = SSL_SESSION_dup(s.kept);
        CHECK(pn_tls_rotate(s.server));
        CHECK(meet(&s, s.server) && s.resumed); /* and gets a ticket of the new key */
        CHECK(pn_tls_rotate(s.server));
        CHECK(meet(&s, s.server) && s.resumed);
        SSL_SESSION_free(s.kept);
        s.kept = old;
        CHECK(meet(&s, s.server) && !s.resumed);
        scene_end(&s);
    }
}

/* Who was let in without a certificate is not to come in by his ticket where one is asked for. */
TEST(a_ticket_is_for_the_context_that_gave_it) {
    for (int i = 0; i < 2; i++) {
        char why[100];
        scene s;
        scene_init(&s, 60, versions[i]);
        SSL_CTX *other = serve_for(&s.root, &s.gateway, PN_TLS_REQUIRED, false, 60, why, sizeof why);
        CHECK(meet(&s, s.server));
        CHECK(meet(&s, other) && !s.resumed);
        SSL_CTX_free(other);
        scene_end(&s);
    }
}

static int measure(SSL *ssl, void *arg) {
    const unsigned char *said;
    *(long *)arg = SSL_get_tlsext_status_ocsp_resp(ssl, &said);
    return 1;
}

TEST(what_is_said_of_the_gateway_is_what_was_said_last) {
    for (int i = 0; i < 2; i++) {
        scene s;
        long n = 0;
        scene_init(&s, 0, versions[i]);
        SSL_CTX_set_tlsext_status_type(s.client, TLSEXT_STATUSTYPE_ocsp);
        SSL_CTX_set_tlsext_status_cb(s.client, measure);
        SSL_CTX_set_tlsext_status_arg(s.client, &n);
        static const char *said[] = {"good", "for another hour", ""};
        for (int k = 0; k < 3; k++) {
            CHECK(pn_tls_staple(s.server, pn_span_of(said[k], strlen(said[k]))));
            CHECK(meet(&s, s.server));
            CHECK_EQ(n, k == 2 ? -1 : (long)strlen(said[k]));
        }
        scene_end(&s);
    }
}

TEST_MAIN(CASE(there_are_no_tickets), CASE(a_ticket_resumes_until_its_key_is_gone), CASE(a_ticket_is_for_the_context_that_gave_it),
          CASE(what_is_said_of_the_gateway_is_what_was_said_last))
