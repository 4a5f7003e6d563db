/* buf.c: the work of buf.h. */
#include "buf.h"

#include "mem.h"

enum { PN_BUF_FIRST = 256 };

uint8_t *pn_buf_grow(pn_buf *b, size_t n) {
    uint32_t len = pn_buf_len(b);
    if (n > UINT32_MAX / 2 - len) return NULL;
    if (b->cap - len >= n && b->head >= b->cap / 2) { /* half of it is gone: closing up is cheaper than growing */
        memmove(b->p, b->p + b->head, len);
        b->head = 0;
        b->tail = len;
        return b->p + b->tail;
    }
    uint32_t cap = b->cap ? b->cap : PN_BUF_FIRST;
    while (cap - len < n) cap *= 2;
    uint8_t *p = pn_malloc(cap);
    if (!p) return NULL;
    if (len) memcpy(p, b->p + b->head, len);
    pn_free(b->p);
    *b = (pn_buf){p, 0, len, cap};
    return b->p + b->tail;
}

void pn_buf_drop(pn_buf *b, size_t n) {
    if (n >= pn_buf_len(b)) {
        b->head = b->tail = 0;
    } else {
        b->head += (uint32_t)n;
    }
}

void pn_buf_free(pn_buf *b) {
    pn_free(b->p);
    *b = (pn_buf){0};
}
