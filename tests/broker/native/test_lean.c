/* test_lean.c: what OpenSSL can do when it has only a part of its algorithms (lean.h), against what it can do with all of them. */
#include "certificates.h"
#include "lean.h"
#include "test.h"
#include "tls.h"

/* A key that a client may have, made by this process's own library. */
static EVP_PKEY *key_of(int kind) {
    switch (kind) {
    case 0: return EVP_EC_gen("P-256");
    case 1: return EVP_EC_gen("P-384");
    case 2: return EVP_RSA_gen(2048);
    default: return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    }
}

/* The certificate of a key, which `root` signs. */
static pair certify(EVP_PKEY *key, const pair *root) {
    pair made = make("own", root, false);
    EVP_PKEY_free(made.key);
    made.key = key;
    must(X509_set_pubkey(made.certificate, key) && X509_sign(made.certificate, root->key, EVP_sha256()) > 0, "not signed");
    return made;
}

static bool meet(SSL_CTX *server, SSL_CTX *client) {
    pn_tls_pipe pipe;
    pn_tls_failure failure;
    CHECK(pn_tls_pipe_init(&pipe));
    SSL *ours = pn_tls_session(server, &pipe), *theirs = SSL_new(client);
    SSL_set_bio(theirs, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(theirs);
    int result = PN_TLS_MORE;
    for (int i = 0; i < 6 && result == PN_TLS_MORE; i++) {
        char *text;
        SSL_do_handshake(theirs);
        pipe.in_n = (size_t)BIO_get_mem_data(SSL_get_wbio(theirs), &text);
        pipe.in = (const uint8_t *)text;
        result = pn_tls_handshake(ours, &failure);
        (void)BIO_reset(SSL_get_wbio(theirs));
        BIO_write(SSL_get_rbio(theirs), pn_buf_head(&pipe.out), (int)pn_buf_len(&pipe.out));
        pn_buf_drop(&pipe.out, pn_buf_len(&pipe.out));
    }
    SSL_free(ours);
    SSL_free(theirs);
    pn_tls_pipe_end(&pipe);
    ERR_clear_error();
    return result == PN_TLS_DONE;
}

TEST(whoever_could_prove_himself_can) {
    static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
    char why[100];
    pair root = make("root", NULL, true), other = make("other", NULL, true), gateway = make("gateway", &root, false);
    SSL_CTX *server = serve_with(&root, &gateway, PN_TLS_REQUIRED, false, why, sizeof why);
    for (int kind = 0; kind < 4; kind++) {
        pair own = certify(key_of(kind), &root), stranger = certify(key_of(kind), &other);
        for (int i = 0; i < 2; i++) {
            CONTEXT("key %d, version %d", kind, i);
            SSL_CTX *client = call_with(&root, &own), *unknown = call_with(&root, &stranger);
            SSL_CTX_set_max_proto_version(client, versions[i]);
            SSL_CTX_set_max_proto_version(unknown, versions[i]);
            bool may = kind != 1 || i == 0; /* TLS 1.2 takes no other curve than that of the exchange of keys, whatever the library */
            CHECK_EQ(meet(server, client), may);
            CHECK(!meet(server, unknown));
            SSL_CTX_free(client), SSL_CTX_free(unknown);
        }
        unmake(own), unmake(stranger);
    }
    SSL_CTX_free(server);
    unmake(root), unmake(other), unmake(gateway);
}

/* Whether a library takes a point as the other side's key on `curve`, and finds nothing wrong with it. */
static bool takes(OSSL_LIB_CTX *library, const char *curve, const unsigned char *point, size_t n) {
    EVP_PKEY *key = EVP_PKEY_Q_keygen(library, NULL, "EC", curve), *peer = EVP_PKEY_new();
    bool read = key && peer && EVP_PKEY_copy_parameters(peer, key) > 0 && EVP_PKEY_set1_encoded_public_key(peer, point, n) > 0;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(library, key, NULL);
    bool taken = read && EVP_PKEY_derive_init(context) > 0 && EVP_PKEY_derive_set_peer(context, peer) > 0;
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(peer);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return taken;
}

TEST(a_point_that_is_not_on_the_curve_is_refused) {
    static const char *const curves[] = {"P-256", "P-384"};
    OSSL_LIB_CTX *libraries[] = {pn_lean_library(), NULL};
    for (int l = 0; l < 2; l++) {
        for (int c = 0; c < 2; c++) {
            CONTEXT("library %d, %s", l, curves[c]);
            EVP_PKEY *good = EVP_EC_gen(curves[c]);
            unsigned char *point = NULL;
            size_t n = EVP_PKEY_get1_encoded_public_key(good, &point);
            CHECK(takes(libraries[l], curves[c], point, n));
            CHECK(!takes(libraries[l], curves[c == 0], point, n)); /* it is on another one */
            point[n - 1] ^= 1;
            CHECK(!takes(libraries[l], curves[c], point, n));
            memset(point + 1, 0, n - 1);
            CHECK(!takes(libraries[l], curves[c], point, n));
            memset(point + 1, 0xff, n - 1); /* both beyond the field */
            CHECK(!takes(libraries[l], curves[c], point, n));
            point[0] = 0; /* the point at infinity */
            CHECK(!takes(libraries[l], curves[c], point, 1));
            OPENSSL_free(point);
            EVP_PKEY_free(good);
        }
    }
}

TEST(it_is_for_one_openssl_and_there_is_one_of_it) {
    bool old = OPENSSL_version_major() == 3 && OPENSSL_version_minor() == 0;
    CHECK_EQ(pn_lean_library() != NULL, old && !EVP_default_properties_is_fips_enabled(NULL));
    CHECK(pn_lean_library() == pn_lean_library());
    EVP_CIPHER *unused = old ? EVP_CIPHER_fetch(pn_lean_library(), "CAMELLIA-128-CBC", NULL) : NULL;
    CHECK(unused == NULL);
    ERR_clear_error();
}

TEST_MAIN(CASE(whoever_could_prove_himself_can), CASE(a_point_that_is_not_on_the_curve_is_refused),
          CASE(it_is_for_one_openssl_and_there_is_one_of_it))
