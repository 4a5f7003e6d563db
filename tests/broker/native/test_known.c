/* test_known.c: the table of certificates whose chain has been found good: what it holds, what gives way, two threads at once. */
#include "known.h"

#include <pthread.h>

#include "test.h"

enum { ROUNDS = 20000 };

/* The digest of a number, in the set that it says. */
static const uint8_t *digest_of(uint8_t *to, uint16_t in_set, uint32_t number) {
    memset(to, 0, PN_KNOWN_DIGEST);
    memcpy(to, &in_set, sizeof in_set);
    memcpy(to + PN_KNOWN_DIGEST - sizeof number, &number, sizeof number);
    return to;
}

TEST(what_was_added_is_known_and_nothing_else) {
    uint8_t d[PN_KNOWN_DIGEST];
    pn_known *k = pn_known_new();
    CHECK(!pn_known_has(k, digest_of(d, 0, 0)));
    for (uint32_t i = 0; i < 4 * PN_KNOWN_SETS; i++) pn_known_add(k, digest_of(d, (uint16_t)i, i));
    for (uint32_t i = 0; i < 4 * PN_KNOWN_SETS; i++) {
        CHECK(pn_known_has(k, digest_of(d, (uint16_t)i, i)));
        CHECK(!pn_known_has(k, digest_of(d, (uint16_t)i, i + PN_KNOWN_SETS * 8)));
    }
    pn_known_free(k);
    pn_known_free(NULL);
}

TEST(the_oldest_of_a_full_set_gives_way) {
    uint8_t d[PN_KNOWN_DIGEST];
    pn_known *k = pn_known_new();
    for (uint32_t i = 0; i < PN_KNOWN_WAYS; i++) {
        pn_known_add(k, digest_of(d, 7, i));
        pn_known_add(k, digest_of(d, 7, 0)); /* again: it stays one */
    }
    for (uint32_t i = 0; i < PN_KNOWN_WAYS; i++) CHECK(pn_known_has(k, digest_of(d, 7, i)));
    pn_known_add(k, digest_of(d, 7, 99));
    CHECK(!pn_known_has(k, digest_of(d, 7, 0)));
    CHECK(pn_known_has(k, digest_of(d, 7, 1)));
    CHECK(pn_known_has(k, digest_of(d, 7, 99)));
    pn_known_free(k);
}

static void *add_many(void *arg) {
    uint8_t d[PN_KNOWN_DIGEST];
    for (uint32_t i = 0; i < ROUNDS; i++) pn_known_add(arg, digest_of(d, (uint16_t)(i % 64), i));
    return NULL;
}

TEST(two_threads) {
    uint8_t d[PN_KNOWN_DIGEST];
    pthread_t other;
    pn_known *k = pn_known_new();
    CHECK_EQ(pthread_create(&other, NULL, add_many, k), 0);
    for (uint32_t i = 0; i < ROUNDS; i++) pn_known_has(k, digest_of(d, (uint16_t)(i % 64), i));
    pthread_join(other, NULL);
    CHECK(pn_known_has(k, digest_of(d, (ROUNDS - 1) % 64, ROUNDS - 1)));
    pn_known_free(k);
}

TEST_MAIN(CASE(what_was_added_is_known_and_nothing_else), CASE(the_oldest_of_a_full_set_gives_way), CASE(two_threads))
