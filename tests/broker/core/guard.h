/* guard.h: memory between two pages that nobody may touch.
 *
 * The rule it keeps: a read or write of one byte too far, at either end, is a crash in every build, also where the
 * sanitizers do not look (word-wise reads, hand-written loops, release builds).
 */
#ifndef PEANUT_GUARD_H
#define PEANUT_GUARD_H

#include <stddef.h>
#include <stdint.h>

typedef struct guard {
    uint8_t *map;  /* owned; the first byte of the page in front */
    size_t mapped; /* bytes, both guard pages included */
    size_t page;
} guard;

/* Room for at least `room` bytes between two guard pages; ends the program when there is no memory. */
guard guard_new(size_t room);
void guard_free(guard *g);

/* `n` bytes whose last one lies right before a guard page, filled from `data`, or with 0xA5 when `data` is NULL.
 * Valid until the next call for this guard. n = 0 gives a pointer to the guard page itself. */
uint8_t *guard_at_end(guard *g, const void *data, size_t n);

/* The same, with the first byte right behind a guard page. */
uint8_t *guard_at_start(guard *g, const void *data, size_t n);

#endif
