/* test.h: the harness of the C tests: named tests, checks that print what they saw, an exit status.
 *
 * The rule it keeps: a check that fails prints file, line, expression and values, and ends its test; the other tests
 * still run. A program's arguments are names of the tests to run (none: all of them). A test that is written but not
 * listed in TEST_MAIN does not compile (-Wunused-function -Werror).
 *
 *     TEST(empty_is_empty) { CHECK_EQ(pn_buf_len(&b), 0); }
 *     TEST_MAIN(CASE(empty_is_empty))
 */
#ifndef PEANUT_TEST_H
#define PEANUT_TEST_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test_case {
    const char *name;
    void (*run)(void);
} test_case;

static jmp_buf test_end;            /* where a failed check goes */
static char test_context[256];      /* what a loop is at: printed with a failure; set it with CONTEXT */

#define TEST(name) static void test_##name(void)
#define CASE(name) {#name, test_##name}

/* Says what a loop is working on (a vector's name, an offset), so that a failure names it. */
#define CONTEXT(...) ((void)snprintf(test_context, sizeof test_context, __VA_ARGS__))

#define TEST_FAIL(...)                                                            \
    do {                                                                          \
        printf("%s:%d: ", __FILE__, __LINE__);                                    \
        printf(__VA_ARGS__);                                                      \
        if (test_context[0]) printf("  [%s]", test_context);                      \
        printf("\n");                                                             \
        longjmp(test_end, 1);                                                     \
    } while (0)

#define CHECK(expr)                                                               \
    do {                                                                          \
        if (!(expr)) TEST_FAIL("%s is false", #expr);                             \
    } while (0)

/* Integers of any width and sign that fits 64 bits. */
#define CHECK_EQ(got, want)                                                       \
    do {                                                                          \
        int64_t got_ = (int64_t)(got), want_ = (int64_t)(want);                   \
        if (got_ != want_)                                                        \
            TEST_FAIL("%s is %" PRId64 " (0x%" PRIX64 "), want %" PRId64 " (0x%" PRIX64 ")", #got, got_,          \
                      (uint64_t)got_, want_, (uint64_t)want_);                    \
    } while (0)

#define CHECK_BYTES(got, got_n, want, want_n)                                                              \
    do {                                                                                                   \
        const void *got_ = (got), *want_ = (want);                                                         \
        size_t got_n_ = (size_t)(got_n), want_n_ = (size_t)(want_n);                                       \
        if (got_n_ != want_n_ || (got_n_ && memcmp(got_, want_, got_n_) != 0)) {                           \
            printf("%s:%d: %s differs\n", __FILE__, __LINE__, #got);                                       \
            test_dump("got ", got_, got_n_);                                                               \
            test_dump("want", want_, want_n_);                                                             \
            TEST_FAIL("bytes differ");                                                                     \
        }                                                                                                  \
    } while (0)

/* A string literal against a pointer and a length. */
#define CHECK_TEXT(got, got_n, literal) CHECK_BYTES(got, got_n, literal, sizeof(literal) - 1)

static inline void test_dump(const char *what, const void *data, size_t n) {
    const unsigned char *p = data;
    printf("  %s (%zu):", what, n);
    for (size_t i = 0; i < n && i < 256; i++) printf(" %02X", (unsigned)p[i]);
    printf(n > 256 ? " …\n" : "\n");
}

static inline int test_main(int argc, char **argv, const test_case *cases, size_t count) {
    volatile int failed = 0, ran = 0;
    for (volatile size_t i = 0; i < count; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++) wanted = wanted || strcmp(argv[a], cases[i].name) == 0;
        if (!wanted) continue;
        ran++;
        test_context[0] = 0;
        if (setjmp(test_end) == 0) {
            cases[i].run();
            printf("ok   %s\n", cases[i].name);
        } else {
            printf("FAIL %s\n", cases[i].name);
            failed++;
        }
        (void)fflush(stdout);
    }
    printf("%d run, %d failed\n", ran, failed);
    return failed || ran == 0 ? 1 : 0;
}

#define TEST_MAIN(...)                                                            \
    int main(int argc, char **argv) {                                             \
        static const test_case cases[] = {__VA_ARGS__};                           \
        return test_main(argc, argv, cases, sizeof cases / sizeof *cases);        \
    }

#endif
