/* test_buf.c: the growing queue of bytes: order, growth by what arrives, and an orderly end without memory. */
#include "buf.h"
#include "failmem.h"
#include "test.h"

TEST(empty_takes_no_memory) {
    long before = failmem_live();
    pn_buf b = {0};
    CHECK_EQ(pn_buf_len(&b), 0);
    CHECK(pn_buf_head(&b) == NULL);
    CHECK(pn_buf_add(&b, NULL, 0));
    pn_buf_drop(&b, 10);
    CHECK_EQ(failmem_live(), before);
    pn_buf_free(&b);
}

TEST(bytes_leave_in_the_order_they_came) {
    pn_buf b = {0};
    uint32_t in = 0, out = 0;
    for (uint32_t round = 0; round < 2000; round++) {
        for (uint32_t i = 0; i < round % 37; i++, in++) {
            uint8_t byte = (uint8_t)(in * 7u);
            CHECK(pn_buf_add(&b, &byte, 1));
        }
        uint32_t take = round % 29 < pn_buf_len(&b) ? round % 29 : pn_buf_len(&b);
        for (uint32_t i = 0; i < take; i++, out++) CHECK_EQ(pn_buf_head(&b)[i], (uint8_t)(out * 7u));
        pn_buf_drop(&b, take);
        CHECK_EQ(pn_buf_len(&b), in - out);
    }
    CHECK(b.cap <= 4 * (in - out) + 512);
    pn_buf_drop(&b, in);
    CHECK_EQ(pn_buf_len(&b), 0);
    pn_buf_free(&b);
    CHECK_EQ(b.cap, 0);
}

TEST(room_that_is_too_much_is_refused) {
    pn_buf b = {0};
    CHECK(pn_buf_add(&b, "abc", 3));
    CHECK(pn_buf_room(&b, SIZE_MAX) == NULL);
    CHECK(pn_buf_room(&b, UINT32_MAX) == NULL);
    CHECK_TEXT(pn_buf_head(&b), pn_buf_len(&b), "abc");
    pn_buf_free(&b);
}

TEST(without_memory_nothing_was_added) {
    pn_buf b = {0};
    failmem_after(0);
    CHECK(!pn_buf_add(&b, "abc", 3));
    CHECK_EQ(pn_buf_len(&b), 0);
    CHECK(pn_buf_add(&b, "abc", 3));
    uint8_t much[4096] = {0};
    failmem_after(0);
    CHECK(!pn_buf_add(&b, much, sizeof much));
    failmem_never();
    CHECK_TEXT(pn_buf_head(&b), pn_buf_len(&b), "abc");
    pn_buf_free(&b);
}

TEST_MAIN(CASE(empty_takes_no_memory), CASE(bytes_leave_in_the_order_they_came), CASE(room_that_is_too_much_is_refused),
          CASE(without_memory_nothing_was_added))
