/* journal.c: the work of journal.h. */
#include "journal.h"

#include "hash.h"
#include "mem.h"

enum {
    TABLE_FIRST = 256,
    BATCH_KEEPS = 1 << 18, /* bytes of memory that an empty batch keeps */
    TABLE_KEEPS = 4096,    /* slots of an empty table */
    PUT = 'P',
    FRESH = 'p', /* while the batch gathers: a PUT of a key that the disk does not know */
    DELETE = 'D',
    NOTHING = '-',
};

pn_journal *pn_journal_new(uint64_t seed) {
    pn_journal *j = pn_calloc(1, sizeof *j);
    if (!j) return NULL;
    j->seed = seed;
    j->pending = 1;
    return j;
}

void pn_journal_free(pn_journal *j) {
    if (!j) return;
    pn_buf_free(&j->batch);
    pn_free(j->table);
    pn_free(j);
}

static uint8_t *digits(uint8_t *at, int count, uint32_t value) {
    for (int i = count; i-- > 0; value /= 10) at[i] = (uint8_t)('0' + value % 10);
    return at + count;
}

static uint32_t number(const uint8_t *at, int count) {
    uint32_t value = 0;
    while (count-- > 0) value = value * 10 + (uint32_t)(*at++ - '0');
    return value;
}

static uint32_t key_length(const uint8_t *record) { return number(record + 1, 5); }
static uint32_t value_length(const uint8_t *record) { return number(record + 6, 9); }

static bool has_key(const uint8_t *record, const pn_key *key) {
    const uint8_t *at = record + PN_RECORD_HEADER;
    return key_length(record) == key->n + key->rest.n && memcmp(at, key->head, key->n) == 0 &&
           (key->rest.n == 0 || memcmp(at + key->n, key->rest.p, key->rest.n) == 0);
}

static uint64_t hash_of(const pn_journal *j, pn_span head, pn_span rest) {
    uint64_t h = pn_hash(head.p, head.n, j->seed);
    return rest.n ? h ^ pn_hash(rest.p, rest.n, j->seed + 1) : h;
}

/* The hash of a record's key, which is taken apart as its maker has put it together: what follows a head of 9 or 17 bytes is the rest. */
static uint64_t hash_of_record(const pn_journal *j, const uint8_t *record) {
    const uint8_t *key = record + PN_RECORD_HEADER;
    uint32_t n = key_length(record), head = *key == PN_RECORD_RETAINED ? 1 : *key == PN_RECORD_SUBSCRIPTION ? 9 : n;
    return hash_of(j, pn_span_of(key, head), pn_span_of(key + head, n - head));
}

static uint8_t *record_at(const pn_journal *j, uint32_t place) { return j->batch.p + j->batch.head + place - 1; }

/* The slot of `key`: that of its record in the batch, or an empty one. */
static uint32_t *slot_of(pn_journal *j, const pn_key *key) {
    uint64_t at = hash_of(j, pn_span_of(key->head, key->n), key->rest);
    for (;; at++) {
        uint32_t *slot = &j->table[at & (j->table_cap - 1)];
        if (!*slot || has_key(record_at(j, *slot), key)) return slot;
    }
}

/* Room for one more in the table. */
static bool table_grow(pn_journal *j) {
    if (j->table && j->table_count < j->table_cap / 2) return true;
    uint32_t cap = j->table_cap ? j->table_cap * 2 : TABLE_FIRST;
    uint32_t *table = pn_calloc(cap, sizeof *table);
    if (!table) return j->table && j->table_count < j->table_cap - j->table_cap / 8;
    for (uint32_t i = 0; i < j->table_cap; i++) {
        if (!j->table[i]) continue;
        uint64_t at = hash_of_record(j, record_at(j, j->table[i]));
        while (table[at & (cap - 1)]) at++;
        table[at & (cap - 1)] = j->table[i];
    }
    pn_free(j->table);
    j->table = table;
    j->table_cap = cap;
    return true;
}

/* A record at the end of the batch; returns where its value goes. */
static uint8_t *append(pn_journal *j, uint32_t *slot, uint8_t kind, const pn_key *key, uint32_t n) {
    uint32_t key_n = key->n + key->rest.n;
    uint8_t *start = pn_buf_room(&j->batch, (size_t)PN_RECORD_HEADER + key_n + n);
    if (!start) return NULL;
    uint32_t place = pn_buf_len(&j->batch) + 1;
    uint8_t *at = start;
    *at++ = kind;
    at = digits(at, 5, key_n);
    at = digits(at, 9, n);
    memcpy(at, key->head, key->n);
    at += key->n;
    if (key->rest.n) memcpy(at, key->rest.p, key->rest.n);
    j->batch.tail += PN_RECORD_HEADER + key_n + n;
    if (!*slot) j->table_count++;
    *slot = place;
    return at + key->rest.n;
}

uint8_t *pn_journal_put(pn_journal *j, const pn_key *key, uint32_t n, bool fresh) {
    if (!table_grow(j)) return NULL;
    uint32_t *slot = slot_of(j, key);
    uint8_t before = *slot ? *record_at(j, *slot) : NOTHING;
    if ((before == PUT || before == FRESH) && value_length(record_at(j, *slot)) == n) {
        j->changes++;
        return record_at(j, *slot) + PN_RECORD_HEADER + key->n + key->rest.n;
    }
    uint32_t old = *slot;
    uint8_t kind = before == FRESH || (before == NOTHING && fresh) ? FRESH : PUT;
    uint8_t *value = append(j, slot, kind, key, n);
    if (!value) return NULL;
    if (old) *record_at(j, old) = NOTHING;
    j->changes++;
    return value;
}

/* Whether keys of this kind are deleted by runs: those that end in a number which grows and is never used again. */
static bool runs(const pn_key *key) { return key->head[0] == PN_RECORD_MESSAGE || key->head[0] == PN_RECORD_QUEUED; }

/* Adds `key` to the run before it, if it is the next one. */
static bool extend(pn_journal *j, const pn_key *key) {
    enum { NUMBER = 8 };
    if (!runs(key) || !j->runs[key->head[0]]) return false;
    uint8_t *last = record_at(j, j->runs[key->head[0]]) + PN_RECORD_HEADER + key->n, next[PN_RECORD_KEY_HEAD];
    memcpy(next, last, key->n);
    for (int i = key->n; i-- > key->n - NUMBER && ++next[i] == 0;) continue;
    if (memcmp(next, key->head, key->n) != 0) return false;
    memcpy(last, next, key->n);
    return true;
}

/* A 'D' at the end of the batch; false without memory. */
static bool append_delete(pn_journal *j, uint32_t *slot, const pn_key *key) {
    uint32_t n = runs(key) ? key->n : 0;
    uint8_t *last = append(j, slot, DELETE, key, n);
    if (!last || !n) return last != NULL;
    memcpy(last, key->head, n);
    j->runs[key->head[0]] = *slot;
    return true;
}

void pn_journal_delete(pn_journal *j, const pn_key *key) {
    if (!table_grow(j)) {
        j->lost++;
        return;
    }
    uint32_t *slot = slot_of(j, key);
    uint8_t before = *slot ? *record_at(j, *slot) : NOTHING;
    uint32_t old = *slot;
    j->changes++;
    if (before == DELETE) return;
    if (before == FRESH) {
        *record_at(j, old) = NOTHING; /* and what is put under this key from now on is fresh again */
    } else if (!extend(j, key) && !append_delete(j, slot, key)) {
        j->lost++;
    } else if (old) {
        *record_at(j, old) = NOTHING;
    }
}

bool pn_journal_batch(pn_journal *j, pn_span *batch) {
    uint32_t n = pn_buf_len(&j->batch);
    if (!n) return false;
    for (uint8_t *at = j->batch.p + j->batch.head, *end = at + n; at < end;) {
        if (*at == FRESH) *at = PUT;
        at += PN_RECORD_HEADER + key_length(at) + value_length(at);
    }
    *batch = pn_span_of(pn_buf_head(&j->batch), n);
    return true;
}

uint64_t pn_journal_taken(pn_journal *j) {
    pn_buf_drop(&j->batch, pn_buf_len(&j->batch));
    if (j->batch.cap > BATCH_KEEPS) pn_buf_free(&j->batch);
    if (j->table_cap > TABLE_KEEPS) {
        pn_free(j->table);
        j->table = NULL;
        j->table_cap = 0;
    } else if (j->table) {
        memset(j->table, 0, j->table_cap * sizeof *j->table);
    }
    j->table_count = 0;
    memset(j->runs, 0, sizeof j->runs);
    return j->pending++;
}
