/* repeatable.h: OpenSSL without chance, for fuzz targets: the same input makes the same handshakes again.
 *
 * The rule it keeps: for targets only. Keys and nonces come from a counter that everybody knows.
 */
#ifndef PEANUT_FUZZ_REPEATABLE_H
#define PEANUT_FUZZ_REPEATABLE_H

#include <openssl/rand.h>
#include <stdint.h>

static uint64_t chance;

static int no_chance(unsigned char *to, int n) {
    for (int i = 0; i < n; i++) { /* splitmix64 */
        uint64_t z = (chance += 0x9e3779b97f4a7c15u);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        to[i] = (unsigned char)(z ^ z >> 31);
    }
    return 1;
}

static int always(void) { return 1; }

/* Before everything else of OpenSSL; `chance` = 0 begins anew. */
static void be_repeatable(void) {
    static const RAND_METHOD method = {.bytes = no_chance, .pseudorand = no_chance, .status = always};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* its successor is a provider of one's own */
    RAND_set_rand_method(&method);
#pragma GCC diagnostic pop
}

#endif
