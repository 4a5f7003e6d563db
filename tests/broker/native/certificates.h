/* certificates.h: a fleet of two certificates for C tests of TLS, made in memory: the gateway's and a client's.
 *
 * The rule it keeps: nothing is read from a disk, so a test needs nothing beside it; what cannot be made ends the program.
 */
#ifndef PEANUT_TEST_CERTIFICATES_H
#define PEANUT_TEST_CERTIFICATES_H

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

#include "tls.h"

static inline void must(bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "certificates: %s\n", what);
    abort();
}

typedef struct pair {
    EVP_PKEY *key;
    X509 *certificate;
} pair;

/* A key and its certificate, for an hour; without an issuer signed by itself. To be given to unmake. */
static inline pair make(const char *name, const pair *issuer, bool authority) {
    pair made = {EVP_EC_gen("P-256"), X509_new()};
    must(made.key && made.certificate, "no memory");
    X509_set_version(made.certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), issuer ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(made.certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(made.certificate), 3600);
    X509_set_pubkey(made.certificate, made.key);
    X509_NAME *subject = X509_get_subject_name(made.certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made.certificate, issuer ? X509_get_subject_name(issuer->certificate) : subject);
    X509_EXTENSION *basic = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, authority ? "critical,CA:TRUE" : "CA:FALSE");
    X509_add_ext(made.certificate, basic, -1);
    X509_EXTENSION_free(basic);
    must(X509_sign(made.certificate, issuer ? issuer->key : made.key, EVP_sha256()) > 0, "not signed");
    return made;
}

static inline void unmake(pair p) {
    EVP_PKEY_free(p.key);
    X509_free(p.certificate);
}

/* What is in a memory BIO; borrowed. */
static inline pn_span text_in(BIO *bio) {
    char *text;
    long n = BIO_get_mem_data(bio, &text);
    return pn_span_of(text, (size_t)n);
}

/* What a gateway serves with; `wrong_key`: with a key that is none; tickets: seconds. Owned; NULL with the reason in `why`. */
static inline SSL_CTX *serve_for(const pair *root, const pair *gateway, int certificate, bool wrong_key, long tickets, char *why, size_t size) {
    BIO *chain = BIO_new(BIO_s_mem()), *key = BIO_new(BIO_s_mem()), *authorities = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(chain, gateway->certificate);
    PEM_write_bio_PrivateKey(key, gateway->key, NULL, NULL, 0, NULL, NULL);
    PEM_write_bio_X509(authorities, root->certificate);
    pn_tls_files files = {.chain = text_in(chain),
                          .key = text_in(wrong_key ? chain : key),
                          .authorities = text_in(authorities),
                          .ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256",
                          .groups = "prime256v1:X25519",
                          .certificate = certificate,
                          .tickets = tickets};
    SSL_CTX *context = pn_tls_context(&files, why, size);
    BIO_free(chain);
    BIO_free(key);
    BIO_free(authorities);
    return context;
}

static inline SSL_CTX *serve_with(const pair *root, const pair *gateway, int certificate, bool wrong_key, char *why, size_t size) {
    return serve_for(root, gateway, certificate, wrong_key, 0, why, size);
}

/* A client that trusts `root`; without a certificate of its own when `own` is NULL. Owned. */
static inline SSL_CTX *call_with(const pair *root, const pair *own) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    must(context && X509_STORE_add_cert(SSL_CTX_get_cert_store(context), root->certificate), "no client");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (own) must(SSL_CTX_use_certificate(context, own->certificate) && SSL_CTX_use_PrivateKey(context, own->key), "no certificate");
    return context;
}

#endif
