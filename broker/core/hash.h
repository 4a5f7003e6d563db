/* hash.h: SipHash-1-3, the keyed hash of every table whose keys a peer chooses.
 *
 * The rule it keeps: without the seed nobody can find keys that collide, so a table stays a table under attack.
 * J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", 2012; one compression and three finalisation rounds
 * are what hash tables of several languages settled on. A 64-bit seed is spread over the 128-bit key.
 */
#ifndef PEANUT_HASH_H
#define PEANUT_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PN_ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define PN_SIPROUND(a, b, c, d)                                                                                        \
    do {                                                                                                               \
        a += b, b = PN_ROTL(b, 13), b ^= a, a = PN_ROTL(a, 32);                                                        \
        c += d, d = PN_ROTL(d, 16), d ^= c;                                                                            \
        a += d, d = PN_ROTL(d, 21), d ^= a;                                                                            \
        c += b, b = PN_ROTL(b, 17), b ^= c, c = PN_ROTL(c, 32);                                                        \
    } while (0)

static inline uint64_t pn_hash(const void *data, size_t n, uint64_t seed) {
    const uint8_t *p = data;
    uint64_t k0 = seed, k1 = seed * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u;
    uint64_t a = k0 ^ 0x736f6d6570736575u, b = k1 ^ 0x646f72616e646f6du;
    uint64_t c = k0 ^ 0x6c7967656e657261u, d = k1 ^ 0x7465646279746573u;
    uint64_t last = (uint64_t)n << 56;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t m;
        memcpy(&m, p, 8);
        d ^= m;
        PN_SIPROUND(a, b, c, d);
        a ^= m;
    }
    for (size_t i = 0; i < n; i++) last |= (uint64_t)p[i] << (8 * i);
    d ^= last;
    PN_SIPROUND(a, b, c, d);
    a ^= last;
    c ^= 0xff;
    PN_SIPROUND(a, b, c, d);
    PN_SIPROUND(a, b, c, d);
    PN_SIPROUND(a, b, c, d);
    return a ^ b ^ c ^ d;
}

#undef PN_SIPROUND
#undef PN_ROTL

#endif
