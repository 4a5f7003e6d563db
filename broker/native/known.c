/* known.c: the work of known.h. */
#include "known.h"

#include <pthread.h>
#include <string.h>

#include "mem.h"

typedef struct set {
    uint8_t digest[PN_KNOWN_WAYS][PN_KNOWN_DIGEST];
} set;

struct pn_known {
    pthread_mutex_t mutex;
    uint8_t used[PN_KNOWN_SETS], next[PN_KNOWN_SETS]; /* entries of a set; the one that gives way */
    set sets[PN_KNOWN_SETS];
};

/* Whoever gets a certificate signed can choose in which set it is, and gains nothing by it. */
static uint32_t set_of(const uint8_t *digest) { return (digest[0] | (uint32_t)digest[1] << 8) % PN_KNOWN_SETS; }

pn_known *pn_known_new(void) {
    pn_known *k = pn_calloc(1, sizeof *k);
    if (k) pthread_mutex_init(&k->mutex, NULL);
    return k;
}

void pn_known_free(pn_known *k) {
    if (!k) return;
    pthread_mutex_destroy(&k->mutex);
    pn_free(k);
}

/* Under the mutex. */
static bool is_in(const pn_known *k, uint32_t at, const uint8_t *digest) {
    for (uint32_t i = 0; i < k->used[at]; i++) {
        if (memcmp(k->sets[at].digest[i], digest, PN_KNOWN_DIGEST) == 0) return true;
    }
    return false;
}

bool pn_known_has(pn_known *k, const uint8_t *digest) {
    pthread_mutex_lock(&k->mutex);
    bool found = is_in(k, set_of(digest), digest);
    pthread_mutex_unlock(&k->mutex);
    return found;
}

void pn_known_add(pn_known *k, const uint8_t *digest) {
    uint32_t at = set_of(digest);
    pthread_mutex_lock(&k->mutex);
    if (!is_in(k, at, digest)) {
        memcpy(k->sets[at].digest[k->next[at]], digest, PN_KNOWN_DIGEST);
        k->next[at] = (uint8_t)((k->next[at] + 1) % PN_KNOWN_WAYS);
        if (k->used[at] < PN_KNOWN_WAYS) k->used[at]++;
    }
    pthread_mutex_unlock(&k->mutex);
}
