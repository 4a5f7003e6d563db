/* lean.c: the work of lean.h: a provider that hands on what the default one has.
 *
 * What it hands on are the default provider's functions, called with the default provider's own context: to OpenSSL it is another name for a part of
 * that provider. All that is in here is written once, before anybody else sees it.
 */
#include "lean.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

enum { OPERATIONS = 32, ALGORITHMS = 16, FUNCTIONS = 48 };

/* The names by which OpenSSL calls what is handed on, by operation; whatever is left out, and DER of public keys is all that is decoded. */
static const char *const wanted[OPERATIONS][ALGORITHMS] = {
    [OSSL_OP_DIGEST] = {"SHA1", "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512"},
    [OSSL_OP_CIPHER] = {"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305", "AES-256-CBC", "AES-256-CTR"},
    [OSSL_OP_MAC] = {"HMAC"},
    [OSSL_OP_KDF] = {"HKDF", "TLS13-KDF", "TLS1-PRF"},
    [OSSL_OP_RAND] = {"CTR-DRBG", "SEED-SRC"},
    [OSSL_OP_KEYMGMT] = {"HMAC", "EC", "X25519", "RSA", "RSA-PSS", "ED25519", "ED448"},
    [OSSL_OP_KEYEXCH] = {"ECDH", "X25519"},
    [OSSL_OP_SIGNATURE] = {"HMAC", "ECDSA", "RSA", "ED25519", "ED448"},
    [OSSL_OP_DECODER] = {"EC", "RSA", "RSA-PSS", "ED25519", "ED448"},
};

static OSSL_PROVIDER *whole; /* the default provider, in a library of its own */
static OSSL_ALGORITHM kept[OPERATIONS][ALGORITHMS + 1];
static OSSL_DISPATCH curves[FUNCTIONS + 1]; /* how keys on curves are managed */
static OSSL_FUNC_keymgmt_validate_fn *validate;
static OSSL_FUNC_keymgmt_get_params_fn *describe;

/* --- keys on curves --- */

static bool is_p256(const void *key) {
    char name[32] = "";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, name, sizeof name), OSSL_PARAM_construct_end()};
    return describe((void *)(uintptr_t)key, params) && strcmp(name, "prime256v1") == 0;
}

/* In place of the default provider's: of the public half of a key on P-256 the point alone. */
static int validate_key(const void *key, int selection, int how) {
    bool point = (selection & OSSL_KEYMGMT_SELECT_KEYPAIR) == OSSL_KEYMGMT_SELECT_PUBLIC_KEY && is_p256(key);
    return validate(key, selection, point ? OSSL_KEYMGMT_VALIDATE_QUICK_CHECK : how);
}

static void take_over_curves(OSSL_ALGORITHM *ec) {
    size_t n = 0;
    for (const OSSL_DISPATCH *f = ec->implementation; f->function_id && n < FUNCTIONS; f++) {
        curves[n] = *f;
        if (f->function_id == OSSL_FUNC_KEYMGMT_GET_PARAMS) describe = OSSL_FUNC_keymgmt_get_params(f);
        if (f->function_id == OSSL_FUNC_KEYMGMT_VALIDATE) {
            validate = OSSL_FUNC_keymgmt_validate(f);
            curves[n].function = (void (*)(void))validate_key;
        }
        n++;
    }
    if (validate && describe && n < FUNCTIONS) ec->implementation = curves;
}

/* --- the provider --- */

/* Whether the first of the names "A:B:C" is one of those. */
static bool is_wanted(const char *names, const char *const *these) {
    size_t n = strcspn(names, ":");
    for (int i = 0; i < ALGORITHMS && these[i]; i++) {
        if (strlen(these[i]) == n && strncmp(names, these[i], n) == 0) return true;
    }
    return false;
}

/* Takes over what is wanted for an operation. */
static void keep(int operation) {
    int no_cache, count = 0;
    const OSSL_ALGORITHM *a = wanted[operation][0] ? OSSL_PROVIDER_query_operation(whole, operation, &no_cache) : NULL;
    for (; a && a->algorithm_names && count < ALGORITHMS; a++) {
        if (!is_wanted(a->algorithm_names, wanted[operation])) continue;
        if (operation == OSSL_OP_DECODER &&
            !(strstr(a->property_definition, "input=der") && strstr(a->property_definition, "structure=SubjectPublicKeyInfo"))) {
            continue;
        }
        kept[operation][count] = *a;
        if (operation == OSSL_OP_KEYMGMT && strncmp(a->algorithm_names, "EC:", 3) == 0) take_over_curves(&kept[operation][count]);
        count++;
    }
}

static const OSSL_ALGORITHM *query(void *context, int operation, int *no_cache) {
    (void)context;
    *no_cache = 0;
    return operation >= 0 && operation < OPERATIONS && kept[operation][0].algorithm_names ? kept[operation] : NULL;
}

static int capabilities(void *context, const char *capability, OSSL_CALLBACK *tell, void *arg) {
    (void)context;
    return OSSL_PROVIDER_get_capabilities(whole, capability, tell, arg);
}

static int begin(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **context) {
    static const OSSL_DISPATCH functions[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
                                              {OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))capabilities},
                                              {0, NULL}};
    (void)handle, (void)in;
    *out = functions;
    *context = OSSL_PROVIDER_get0_provider_ctx(whole);
    return 1;
}

/* --- the library --- */

static OSSL_LIB_CTX *library;

static void make(void) {
    OSSL_LIB_CTX *behind = OSSL_LIB_CTX_new();
    whole = behind ? OSSL_PROVIDER_load(behind, "default") : NULL;
    if (!whole) {
        OSSL_LIB_CTX_free(behind);
        return;
    }
    for (int operation = 0; operation < OPERATIONS; operation++) keep(operation);
    OSSL_LIB_CTX *lean = OSSL_LIB_CTX_new();
    if (lean && OSSL_PROVIDER_add_builtin(lean, "lean", begin) && OSSL_PROVIDER_load(lean, "lean")) library = lean;
    else OSSL_LIB_CTX_free(lean);
}

OSSL_LIB_CTX *pn_lean_library(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    bool old = OPENSSL_version_major() == 3 && OPENSSL_version_minor() == 0;
    if (!old || EVP_default_properties_is_fips_enabled(NULL) || !OSSL_PROVIDER_available(NULL, "default")) return NULL;
    pthread_once(&once, make);
    return library;
}
