/* psk.c: the work of psk.h. */
#include "psk.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

enum { TAG = 32, DECOY = 32 }; /* the two halves of a digest */

struct pn_psk {
    uint8_t tag[TAG]; /* what it is found by */
    uint8_t identity[PN_PSK_IDENTITY_MAX], key[PN_PSK_KEY_MAX];
    uint8_t identity_n, key_n;
};

struct pn_psks {
    uint8_t secret[32]; /* of this table: nobody can tell in advance where an identity would be, nor what its decoy is */
    uint32_t count, room;
    pn_psk all[]; /* by tag, once it is sealed */
};

pn_psks *pn_psks_new(size_t count) {
    pn_psks *k = count <= PN_PSK_KEYS_MAX ? pn_calloc(1, sizeof *k + count * sizeof k->all[0]) : NULL;
    if (!k) return NULL;
    k->room = (uint32_t)count;
    if (RAND_priv_bytes(k->secret, sizeof k->secret) > 0) return k;
    pn_psks_free(k);
    return NULL;
}

void pn_psks_free(pn_psks *k) {
    if (!k) return;
    OPENSSL_cleanse(k, sizeof *k + k->room * sizeof k->all[0]);
    pn_free(k);
}

/* What an identity is found by, and behind it the key that it has when it is nobody's. False without memory. */
static bool digest_of(const pn_psks *k, pn_span identity, uint8_t digest[TAG + DECOY]) {
    static const uint8_t nothing[1] = {0}; /* an empty span may have no address */
    unsigned size = 0;
    const uint8_t *p = identity.n ? identity.p : nothing;
    return HMAC(EVP_sha512(), k->secret, sizeof k->secret, p, identity.n, digest, &size) && size == TAG + DECOY;
}

bool pn_psks_add(pn_psks *k, pn_span identity, pn_span key) {
    uint8_t digest[TAG + DECOY];
    if (k->count == k->room || identity.n == 0 || identity.n > PN_PSK_IDENTITY_MAX || key.n < PN_PSK_KEY_MIN || key.n > PN_PSK_KEY_MAX) return false;
    if (!digest_of(k, identity, digest)) return false;
    pn_psk *one = &k->all[k->count++];
    memcpy(one->tag, digest, TAG);
    memcpy(one->identity, identity.p, identity.n);
    memcpy(one->key, key.p, key.n);
    one->identity_n = (uint8_t)identity.n;
    one->key_n = (uint8_t)key.n;
    OPENSSL_cleanse(digest, sizeof digest);
    return true;
}

/* Heapsort: it needs no memory of its own, in which keys would stay behind, as they might with qsort. */
static void swap(pn_psk *a, pn_psk *b) {
    pn_psk kept = *a;
    *a = *b;
    *b = kept;
    OPENSSL_cleanse(&kept, sizeof kept);
}

static void sink(pn_psk *all, uint32_t at, uint32_t count) {
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && memcmp(all[child].tag, all[child + 1].tag, TAG) < 0) child++;
        if (memcmp(all[at].tag, all[child].tag, TAG) >= 0) return;
        swap(&all[at], &all[child]);
    }
}

bool pn_psks_seal(pn_psks *k) {
    for (uint32_t i = k->count / 2; i > 0; i--) sink(k->all, i - 1, k->count);
    for (uint32_t left = k->count; left > 1; left--) {
        swap(&k->all[0], &k->all[left - 1]);
        sink(k->all, 0, left - 1);
    }
    for (uint32_t i = 1; i < k->count; i++) {
        if (memcmp(k->all[i - 1].tag, k->all[i].tag, TAG) == 0) return false;
    }
    return true;
}

bool pn_psks_find(const pn_psks *k, pn_span identity, const pn_psk **whose, uint8_t *key, size_t *n) {
    uint8_t digest[TAG + DECOY];
    if (!digest_of(k, identity, digest)) return false;
    uint32_t from = 0, to = k->count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (memcmp(k->all[middle].tag, digest, TAG) < 0) from = middle + 1;
        else to = middle;
    }
    const pn_psk *found = from < k->count && memcmp(k->all[from].tag, digest, TAG) == 0 ? &k->all[from] : NULL;
    *whose = found;
    *n = found ? found->key_n : DECOY;
    memcpy(key, found ? found->key : digest + TAG, *n);
    OPENSSL_cleanse(digest, sizeof digest);
    return true;
}

pn_span pn_psk_identity(const pn_psk *psk) { return pn_span_of(psk->identity, psk->identity_n); }
