/* buf.h: a span of somebody else's bytes, and a growing queue of bytes of one's own.
 *
 * The rule it keeps: a span never owns; a buffer always does, takes no memory while it is empty and new, and grows by
 * doubling only as bytes arrive, never because a length field announces them.
 */
#ifndef PEANUT_BUF_H
#define PEANUT_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes borrowed from a chunk, a buffer or a message; valid as long as that is. */
typedef struct pn_span {
    const uint8_t *p;
    uint32_t n;
} pn_span;

static inline pn_span pn_span_of(const void *p, size_t n) {
    return (pn_span){(const uint8_t *)p, (uint32_t)n};
}

static inline bool pn_span_eq(pn_span a, pn_span b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Bytes go in at the tail and leave at the head. All zero is an empty buffer. */
typedef struct pn_buf {
    uint8_t *p; /* owned */
    uint32_t head, tail, cap;
} pn_buf;

static inline uint32_t pn_buf_len(const pn_buf *b) { return b->tail - b->head; }

static inline const uint8_t *pn_buf_head(const pn_buf *b) { return b->p ? b->p + b->head : NULL; }

uint8_t *pn_buf_grow(pn_buf *b, size_t n); /* what pn_buf_room does where there is no room yet */

/* Room for `n` more bytes at the tail; returns where to write them, NULL without memory. Does not move the tail. */
static inline uint8_t *pn_buf_room(pn_buf *b, size_t n) {
    if (b->cap - b->tail < n) return pn_buf_grow(b, n);
    return b->p ? b->p + b->tail : NULL;
}

/* Copies `n` bytes to the tail; false without memory, and then nothing was added. */
static inline bool pn_buf_add(pn_buf *b, const void *data, size_t n) {
    uint8_t *at = pn_buf_room(b, n);
    if (n == 0) return true;
    if (!at) return false;
    memcpy(at, data, n);
    b->tail += (uint32_t)n;
    return true;
}

/* Drops `n` bytes at the head (at most what is there). An emptied buffer rewinds. */
void pn_buf_drop(pn_buf *b, size_t n);

/* Gives the memory back and leaves an empty buffer. */
void pn_buf_free(pn_buf *b);

#endif
