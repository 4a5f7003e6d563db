/* fields.h: numbers and spans in a row, big-endian, written and read: the values of records.
 *
 * The rule it keeps: a reader never goes past its end; what is not there reads as zero and leaves `bad` set.
 */
#ifndef PEANUT_FIELDS_H
#define PEANUT_FIELDS_H

#include "buf.h"

static inline uint8_t *pn_put_number(uint8_t *at, uint64_t value, uint32_t bytes) {
    for (uint32_t i = bytes; i-- > 0; value >>= 8) at[i] = (uint8_t)value;
    return at + bytes;
}

/* A span behind its length in four bytes. */
static inline uint8_t *pn_put_span(uint8_t *at, pn_span s) {
    at = pn_put_number(at, s.n, 4);
    if (s.n) memcpy(at, s.p, s.n);
    return at + s.n;
}

typedef struct pn_reader {
    const uint8_t *p;
    uint32_t n;
    bool bad;
} pn_reader;

static inline pn_span pn_get_bytes(pn_reader *r, uint32_t n) {
    if (n > r->n) {
        r->bad = true;
        n = 0;
    }
    pn_span s = {r->p, n};
    if (n) r->p += n;
    r->n -= n;
    return s;
}

static inline uint64_t pn_get_number(pn_reader *r, uint32_t bytes) {
    pn_span s = pn_get_bytes(r, bytes);
    uint64_t value = 0;
    for (uint32_t i = 0; i < s.n; i++) value = value << 8 | s.p[i];
    return value;
}

static inline pn_span pn_get_span(pn_reader *r) { return pn_get_bytes(r, (uint32_t)pn_get_number(r, 4)); }

#endif
