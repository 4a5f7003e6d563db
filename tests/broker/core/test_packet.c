/* test_packet.c: the packet codec: every vector on guard pages, cut and damaged everywhere, and what no vector can say.
 *
 * The vectors come from vectors.txt in the working directory (flatten.py writes it out of tests/vectors). That the fields of
 * a packet have the right values is shown from Python (tests/broker/test_vectors.py); here: no byte is touched that is
 * not the packet's, every span lies in the packet, and what was decoded encodes to the same.
 */
#define _POSIX_C_SOURCE 200809L
#include "packet.h"

#include "failmem.h"
#include "guard.h"
#include "test.h"

enum { ROOM = 1 << 17, CODES = 4 };

typedef struct vector {
    char name[128];
    uint8_t version;
    int codes[CODES], code_count; /* none: it is valid */
    bool canonical;
    uint32_t limit;
    uint8_t *data; /* owned */
    size_t n;
} vector;

static vector *vectors; /* loaded once, for the life of the program */
static size_t vector_count;
static guard room, room2;

static int digit(char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }

static void load(void) {
    if (vectors) return;
    room = guard_new(ROOM);
    room2 = guard_new(ROOM);
    FILE *f = fopen("vectors.txt", "r");
    if (!f) TEST_FAIL("vectors.txt is not in the working directory: run `make -C tests/broker/core check`");
    char *line = NULL, codes[64];
    size_t size = 0, cap = 0;
    for (long n; (n = getline(&line, &size, f)) > 0;) {
        if (vector_count == cap) {
            cap = cap ? 2 * cap : 256;
            vectors = realloc(vectors, cap * sizeof *vectors);
        }
        vector *v = &vectors[vector_count++];
        *v = (vector){0};
        int canonical, version, at = 0;
        if (sscanf(line, "%127s %d %63s %d %u %n", v->name, &version, codes, &canonical, &v->limit, &at) != 5)
            TEST_FAIL("vectors.txt: cannot read: %s", line);
        v->version = (uint8_t)version;
        v->canonical = canonical;
        for (char *word = strtok(codes[0] == '-' ? codes + 1 : codes, ","); word; word = strtok(NULL, ","))
            v->codes[v->code_count++] = atoi(word);
        v->n = strcspn(line + at, "\n") / 2;
        v->data = malloc(v->n + 1);
        for (size_t i = 0; i < v->n; i++)
            v->data[i] = (uint8_t)(digit(line[at + 2 * (long)i]) << 4 | digit(line[at + 2 * (long)i + 1]));
    }
    free(line);
    (void)fclose(f);
}

#define EACH_VECTOR(v) (vector * v = vectors; v < vectors + vector_count; v++)

/* Whether a refusal is one that the vector allows. */
static bool allowed(const vector *v, int64_t result) {
    for (int i = 0; i < v->code_count; i++)
        if (result == -v->codes[i]) return true;
    return false;
}

static void check_span(pn_span s, const uint8_t *data, size_t n) {
    if (s.n) CHECK(s.p >= data && s.p + s.n <= data + n);
}

static void check_spans(const pn_packet *p, const uint8_t *data, size_t n) {
    const pn_span all[] = {p->topic,    p->payload,  p->filters,    p->props.raw,    p->client_id,
                           p->username, p->password, p->will_topic, p->will_payload, p->will_props.raw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) check_span(all[i], data, n);
}

/* Reads every property and writes it again. */
static void check_props(const pn_props *props) {
    uint32_t at = 0, before = 0;
    uint64_t seen = 0;
    for (pn_prop prop, found; pn_prop_next(props, &at, &prop); before = at) {
        CHECK_EQ(at - before, prop.wire.n);
        CHECK(prop.wire.p == props->raw.p + before);
        CHECK_EQ(pn_prop_size(prop.id, prop.key, prop.value, prop.num), prop.wire.n);
        uint8_t *copy = guard_at_end(&room2, NULL, prop.wire.n);
        CHECK(pn_prop_put(copy, prop.id, prop.key, prop.value, prop.num) == copy + prop.wire.n);
        CHECK_BYTES(copy, prop.wire.n, prop.wire.p, prop.wire.n);
        CHECK(pn_prop_find(props, prop.id, &found));
        CHECK_EQ(found.id, prop.id);
        if (!(seen >> prop.id & 1)) {
            CHECK(found.wire.p == prop.wire.p);
            CHECK_EQ(pn_prop_num(props, prop.id, 12345), prop.num);
        }
        seen |= UINT64_C(1) << prop.id;
    }
    CHECK_EQ(at, props->raw.n);
    CHECK_EQ(seen, props->present);
    for (uint8_t id = 0; id < PN_PROPERTY_IDS; id++)
        if (!(seen >> id & 1)) CHECK_EQ(pn_prop_num(props, id, 12345), 12345);
}

static size_t check_filters(const pn_packet *p) {
    uint32_t at = 0;
    size_t count = 0;
    for (pn_filter f; pn_filter_next(p, &at, &f); count++) {
        check_span(f.filter, p->filters.p, p->filters.n);
        CHECK(f.filter.n > 0);
        CHECK(f.qos <= 2 && f.retain_handling <= 2);
    }
    CHECK_EQ(at, p->filters.n);
    return count;
}

static void check_same_span(pn_span a, pn_span b) { CHECK_BYTES(a.p, a.n, b.p, b.n); }

static void check_same(const pn_packet *a, const pn_packet *b) {
    CHECK_EQ(a->type, b->type);
    CHECK_EQ(a->version, b->version);
    CHECK_EQ(a->qos, b->qos);
    CHECK_EQ(a->dup, b->dup);
    CHECK_EQ(a->retain, b->retain);
    CHECK_EQ(a->reason, b->reason);
    CHECK_EQ(a->session_present, b->session_present);
    CHECK_EQ(a->clean_start, b->clean_start);
    CHECK_EQ(a->has_will, b->has_will);
    CHECK_EQ(a->has_username, b->has_username);
    CHECK_EQ(a->has_password, b->has_password);
    CHECK_EQ(a->will_qos, b->will_qos);
    CHECK_EQ(a->will_retain, b->will_retain);
    CHECK_EQ(a->id, b->id);
    CHECK_EQ(a->keep_alive, b->keep_alive);
    CHECK_EQ(a->props.present, b->props.present);
    CHECK_EQ(a->will_props.present, b->will_props.present);
    check_same_span(a->topic, b->topic);
    check_same_span(a->payload, b->payload);
    check_same_span(a->filters, b->filters);
    check_same_span(a->props.raw, b->props.raw);
    check_same_span(a->client_id, b->client_id);
    check_same_span(a->username, b->username);
    check_same_span(a->password, b->password);
    check_same_span(a->will_topic, b->will_topic);
    check_same_span(a->will_payload, b->will_payload);
    check_same_span(a->will_props.raw, b->will_props.raw);
}

/* ---- the vectors ----------------------------------------------------------------------------------------------- */

TEST(vectors_between_guard_pages) {
    load();
    size_t valid = 0, invalid = 0;
    pn_packet p;
    failmem_after(0);
    for EACH_VECTOR(v) {
        CONTEXT("%s", v->name);
        for (int start = 0; start < 2; start++) {
            const uint8_t *data = start ? guard_at_start(&room, v->data, v->n) : guard_at_end(&room, v->data, v->n);
            int64_t result = pn_packet_decode(data, v->n, v->version, v->limit, &p);
            if (v->code_count) {
                if (!allowed(v, result)) TEST_FAIL("the answer is %" PRId64, result);
                continue;
            }
            CHECK_EQ(result, v->n);
            CHECK_EQ(pn_packet_size(data, v->n), v->n);
            check_spans(&p, data, v->n);
            check_props(&p.props);
            check_props(&p.will_props);
            if (p.type == PN_SUBSCRIBE || p.type == PN_UNSUBSCRIBE) CHECK(check_filters(&p) > 0);
        }
        *(v->code_count ? &invalid : &valid) += 1;
    }
    CHECK_EQ(failmem_calls(), 0); /* the codec asks for no memory */
    failmem_never();
    CONTEXT("%s", "");
    CHECK(valid >= 150);
    CHECK(invalid >= 250);
}

TEST(prefixes_ask_for_more) {
    load();
    pn_packet p;
    for EACH_VECTOR(v) {
        int64_t before = 0;
        for (size_t n = 0; n < v->n; n++) {
            CONTEXT("%s cut to %zu", v->name, n);
            int64_t result = pn_packet_decode(guard_at_end(&room, v->data, n), n, v->version, v->limit, &p);
            if (result && !allowed(v, result)) TEST_FAIL("the answer is %" PRId64, result);
            if (before) CHECK_EQ(result, before); /* what was wrong stays wrong, for the same reason */
            before = result;
        }
    }
}

TEST(every_split_gives_the_same) {
    load();
    pn_packet p;
    for EACH_VECTOR(v) {
        for (size_t cut = 0; cut <= v->n; cut++) {
            CONTEXT("%s split at %zu", v->name, cut);
            pn_buf b = {0};
            CHECK(pn_buf_add(&b, v->data, cut));
            int64_t result = pn_packet_decode(pn_buf_head(&b), pn_buf_len(&b), v->version, v->limit, &p);
            if (result == 0) {
                CHECK(pn_buf_add(&b, v->data + cut, v->n - cut));
                result = pn_packet_decode(pn_buf_head(&b), pn_buf_len(&b), v->version, v->limit, &p);
            }
            pn_buf_free(&b);
            if (v->code_count ? !allowed(v, result) : result != (int64_t)v->n) TEST_FAIL("the answer is %" PRId64, result);
        }
    }
}

TEST(bytes_behind_a_packet_are_not_its) {
    load();
    pn_packet p, q;
    for EACH_VECTOR(v) {
        if (v->code_count) continue;
        CONTEXT("%s", v->name);
        uint8_t *data = guard_at_end(&room, NULL, v->n + 7);
        memcpy(data, v->data, v->n);
        memset(data + v->n, 0xFF, 7);
        CHECK_EQ(pn_packet_decode(data, v->n + 7, v->version, v->limit, &p), v->n);
        CHECK_EQ(pn_packet_decode(v->data, v->n, v->version, v->limit, &q), v->n);
        check_same(&p, &q);
    }
}

TEST(encode_with_every_capacity) {
    load();
    pn_packet p, q;
    for EACH_VECTOR(v) {
        if (v->code_count) continue;
        CONTEXT("%s", v->name);
        CHECK_EQ(pn_packet_decode(v->data, v->n, v->version, v->limit, &p), v->n);
        uint8_t version = p.type == PN_CONNECT ? p.version : v->version;
        int64_t need = pn_packet_encode(&p, version, NULL, 0);
        CHECK(need > 0 && need <= (int64_t)v->n);
        if (v->canonical) CHECK_EQ(need, v->n);
        size_t size = (size_t)need;
        for (size_t cap = size > 600 ? size - 300 : 0; cap < size; cap++) {
            uint8_t *out = guard_at_end(&room, NULL, cap);
            CHECK_EQ(pn_packet_encode(&p, version, out, cap), need);
            for (size_t i = 0; i < cap; i++) CHECK_EQ(out[i], 0xA5);
        }
        uint8_t *out = guard_at_end(&room, NULL, size);
        CHECK_EQ(pn_packet_encode(&p, version, out, size), need);
        if (v->canonical) CHECK_BYTES(out, size, v->data, v->n);
        CHECK_EQ(pn_packet_decode(out, size, version, PN_PACKET_SIZE_MAX, &q), need);
        check_same(&p, &q);
        uint8_t *more = guard_at_start(&room2, NULL, size + 9); /* more room than needed is left alone */
        CHECK_EQ(pn_packet_encode(&p, version, more, size + 9), need);
        CHECK_BYTES(more, size, out, size);
        for (size_t i = size; i < size + 9; i++) CHECK_EQ(more[i], 0xA5);
    }
}

/* Every bit of every vector turned, and every byte left out: nothing behind the end is read, what still is a packet
 * survives the way out and in again. */
TEST(damaged_vectors_do_no_damage) {
    load();
    pn_packet p, q;
    for EACH_VECTOR(v) {
        if (v->n > 300) continue;
        for (size_t at = 0; at < v->n * 9; at++) {
            CONTEXT("%s damage %zu", v->name, at);
            size_t n = at < v->n * 8 ? v->n : v->n - 1, skip = at - v->n * 8;
            uint8_t *data = guard_at_end(&room, v->data, n);
            if (n == v->n)
                data[at / 8] ^= (uint8_t)(1u << at % 8);
            else
                memcpy(data + skip, v->data + skip + 1, n - skip);
            int64_t result = pn_packet_decode(data, n, v->version, v->limit, &p);
            CHECK(result <= (int64_t)n && result > -256);
            CHECK(result >= 0 || -result >= 0x80);
            if (result <= 0) continue;
            check_spans(&p, data, (size_t)result);
            check_props(&p.props);
            check_props(&p.will_props);
            uint8_t version = p.version, copy[1024];
            int64_t size = pn_packet_encode(&p, version, copy, sizeof copy);
            CHECK(size > 0 && size <= result);
            CHECK_EQ(pn_packet_decode(copy, (size_t)size, version, v->limit, &q), size);
            check_same(&p, &q);
        }
    }
}

/* ---- framing --------------------------------------------------------------------------------------------------- */

TEST(variable_byte_integers_at_their_borders) {
    /* 5.0 §1.5.5, table 1-1 */
    static const struct { uint32_t value; uint8_t size, bytes[4]; } cases[] = {
        {0, 1, {0}}, {1, 1, {1}}, {127, 1, {0x7F}}, {128, 2, {0x80, 1}}, {16383, 2, {0xFF, 0x7F}},
        {16384, 3, {0x80, 0x80, 1}}, {2097151, 3, {0xFF, 0xFF, 0x7F}}, {2097152, 4, {0x80, 0x80, 0x80, 1}},
        {268435455, 4, {0xFF, 0xFF, 0xFF, 0x7F}}};
    load();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *out = guard_at_end(&room, NULL, cases[i].size);
        CHECK(pn_varint_put(out, cases[i].value) == out + cases[i].size);
        CHECK_BYTES(out, cases[i].size, cases[i].bytes, cases[i].size);
        CHECK_EQ(pn_varint_len(cases[i].value), cases[i].size);
        uint32_t value = 99;
        CHECK_EQ(pn_varint_get(out, cases[i].size, &value), cases[i].size);
        CHECK_EQ(value, cases[i].value);
        for (size_t n = 0; n < cases[i].size; n++)
            CHECK_EQ(pn_varint_get(guard_at_end(&room2, cases[i].bytes, n), n, &value), 0);
    }
}

TEST(variable_byte_integers_that_are_none) {
    static const struct { uint8_t size, bytes[5]; } cases[] = {
        {2, {0x80, 0}}, {2, {0xFF, 0}}, {3, {0x80, 0x80, 0}}, {4, {0x80, 0x80, 0x80, 0}},
        {4, {0xFF, 0xFF, 0xFF, 0xFF}}, {5, {0x80, 0x80, 0x80, 0x80, 1}}};
    load();
    uint32_t value;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_EQ(pn_varint_get(guard_at_end(&room, cases[i].bytes, cases[i].size), cases[i].size, &value),
                 -PN_MALFORMED_PACKET);
}

TEST(packet_size_reads_the_header_only) {
    load();
    const uint8_t header[] = {0x30, 0xFF, 0xFF, 0xFF, 0x7F};
    for (size_t n = 0; n < 5; n++) CHECK_EQ(pn_packet_size(guard_at_end(&room, header, n), n), 0);
    CHECK_EQ(pn_packet_size(guard_at_end(&room, header, 5), 5), PN_PACKET_SIZE_MAX);
    CHECK_EQ(pn_packet_size((const uint8_t *)"\x00\x05", 2), 7); /* type 0 is not judged */
    CHECK_EQ(pn_packet_size((const uint8_t *)"\x30\xFF\xFF\xFF\xFF", 5), -PN_MALFORMED_PACKET);
}

TEST(too_large_is_told_by_the_header) {
    const uint8_t publish[] = {0x30, 0x80, 0x01}; /* 131 bytes announced */
    pn_packet p;
    load();
    CHECK_EQ(pn_packet_decode(guard_at_end(&room, publish, 3), 3, 4, 131, &p), 0);
    CHECK_EQ(pn_packet_decode(guard_at_end(&room, publish, 3), 3, 4, 130, &p), -PN_PACKET_TOO_LARGE);
    CHECK_EQ(pn_packet_decode(guard_at_end(&room, publish, 3), 3, 5, 0, &p), -PN_PACKET_TOO_LARGE);
}

TEST(the_shortest_remaining_length_is_asked_for_in_v5) {
    /* MQTT-1.5.5-1; 3.1.1 §2.2.3 does not ask */
    const uint8_t ping[] = {0xC0, 0x80, 0x00};
    const uint8_t connect[] = {0x10, 0x8D, 0x00, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 0};
    uint8_t connect4[sizeof connect - 1];
    pn_packet p;
    CHECK_EQ(pn_packet_decode(ping, 3, 4, 100, &p), 3);
    CHECK_EQ(pn_packet_decode(ping, 3, 3, 100, &p), 3);
    CHECK_EQ(pn_packet_decode(ping, 3, 5, 100, &p), -PN_MALFORMED_PACKET);
    CHECK_EQ(pn_packet_decode(connect, sizeof connect, 0, 100, &p), -PN_MALFORMED_PACKET);
    memcpy(connect4, connect, sizeof connect4); /* without the property length, at level 4 */
    connect4[1] = 0x8C;
    connect4[9] = 4;
    CHECK_EQ(pn_packet_decode(connect4, sizeof connect4, 0, 100, &p), sizeof connect4);
}

TEST(before_connect_there_is_only_connect) {
    /* MQTT-3.1.0-1, and told by the first byte */
    pn_packet p;
    for (unsigned type = 0; type < 16; type++) {
        bool second = type == PN_PUBREL || type == PN_SUBSCRIBE || type == PN_UNSUBSCRIBE;
        uint8_t first = (uint8_t)(type << 4 | (second ? 2 : 0));
        int64_t want = type == 0 ? -PN_MALFORMED_PACKET : type == PN_CONNECT ? 0 : -PN_PROTOCOL_ERROR;
        CONTEXT("type %u", type);
        CHECK_EQ(pn_packet_decode(&first, 1, 0, 100, &p), want);
    }
}

TEST(first_bytes) {
    /* 5.0 table 2-2 (MQTT-2.1.3-1), MQTT-3.3.1-2, MQTT-3.3.1-4: flags allowed of each type, a bit for each of the 16 */
    static const uint16_t flags[16] = {0, 1, 1, 0x3C3F, 1, 1, 4, 1, 4, 1, 4, 1, 1, 1, 1, 1};
    pn_packet p;
    for (unsigned first = 0; first < 256; first++) {
        for (uint8_t version = 4; version <= 5; version++) {
            uint8_t byte = (uint8_t)first;
            bool fine = flags[first >> 4] >> (first & 15) & 1 && (first >> 4 != PN_AUTH || version == 5);
            CONTEXT("first byte 0x%02X version %d", first, version);
            CHECK_EQ(pn_packet_decode(&byte, 1, version, 100, &p), fine ? 0 : -PN_MALFORMED_PACKET);
        }
    }
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

/* Writes a code point in UTF-8 by the definition (Unicode, table 3-6); the size. */
static size_t utf8_of(uint32_t c, uint8_t *out) {
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) out[i] = (uint8_t)(0x80 | (c & 0x3F));
    out[0] = (uint8_t)(lead[n] | c);
    return n;
}

TEST(every_code_point) {
    /* MQTT-1.5.4-1: no surrogates; MQTT-1.5.4-2: no U+0000; MQTT-1.5.4-3 and the non-characters: allowed */
    uint8_t text[4];
    load();
    for (uint32_t c = 0; c < 0x110000; c++) {
        size_t n = utf8_of(c, text);
        bool fine = c != 0 && (c < 0xD800 || c > 0xDFFF);
        if (pn_utf8_valid(text, n) != fine) TEST_FAIL("U+%04X: %d", (unsigned)c, !fine);
        if (n > 1 && pn_utf8_valid(text, n - 1)) TEST_FAIL("U+%04X cut short is accepted", (unsigned)c);
    }
    for (uint32_t c = 0x110000; c < 0x200000; c += 0x3FF) {
        CHECK_EQ(utf8_of(c, text), 4);
        CHECK(!pn_utf8_valid(text, 4));
    }
}

/* Whether n bytes are one sequence: the code point read without care, written with care, must be the same bytes. */
static bool one_sequence(const uint8_t *p, size_t n) {
    uint8_t again[4];
    uint32_t c = n == 2 ? p[0] & 0x1Fu : n == 3 ? p[0] & 0x0Fu : p[0] & 0x07u;
    for (size_t i = 1; i < n; i++) c = c << 6 | (p[i] & 0x3Fu);
    return c < 0x110000 && !(c >= 0xD800 && c <= 0xDFFF) && utf8_of(c, again) == n && memcmp(p, again, n) == 0;
}

TEST(every_short_sequence) {
    uint8_t p[4];
    for (unsigned i = 0; i < 0x10000; i++) {
        p[0] = (uint8_t)(i >> 8);
        p[1] = (uint8_t)i;
        bool fine = (p[0] && p[0] < 0x80 && p[1] && p[1] < 0x80) || (p[0] >= 0x80 && one_sequence(p, 2));
        if (pn_utf8_valid(p, 2) != fine) TEST_FAIL("%02X %02X", p[0], p[1]);
    }
    for (uint32_t i = 0xE00000; i < 0x1000000; i++) {
        p[0] = (uint8_t)(i >> 16);
        p[1] = (uint8_t)(i >> 8);
        p[2] = (uint8_t)i;
        if (pn_utf8_valid(p, 3) != one_sequence(p, 3)) TEST_FAIL("%02X %02X %02X", p[0], p[1], p[2]);
        p[3] = (uint8_t)(i * 2654435761u >> 24); /* four bytes: the last one at random, half of them continuations */
        if (i & 1) p[3] = (uint8_t)(0x80 | (p[3] & 0x3F));
        if (p[0] >= 0xF0 && pn_utf8_valid(p, 4) != one_sequence(p, 4))
            TEST_FAIL("%02X %02X %02X %02X", p[0], p[1], p[2], p[3]);
    }
}

/* One odd sequence at every place of texts of every length, so that each way through the word-wise check meets it. */
TEST(text_at_every_length_and_place) {
    static const struct { const char *bytes; size_t n; bool text, name; } odd[] = {
        {"\0", 1, false, false}, {"\x80", 1, false, false}, {"\xFF", 1, false, false}, {"\xC0\x80", 2, false, false},
        {"\xED\xA0\x80", 3, false, false}, {"\xC3\xA4", 2, true, true}, {"\xF0\x9F\x8C\xB1", 4, true, true},
        {"\x01", 1, true, true}, {"\x7F", 1, true, true}, {"+", 1, true, false}, {"#", 1, true, false},
        {"*", 1, true, true}, {",", 1, true, true}, {"\"", 1, true, true}, {"$", 1, true, true}, {"/", 1, true, true},
        {"\x03", 1, true, true}, {"\x0B", 1, true, true}, {"\x13", 1, true, true}, {"k", 1, true, true}};
    load();
    pn_packet p;
    for (size_t length = 1; length <= 40; length++) {
        for (size_t o = 0; o < sizeof odd / sizeof *odd; o++) {
            for (size_t at = 0; at + odd[o].n <= length; at++) {
                CONTEXT("odd %zu at %zu of %zu", o, at, length);
                uint8_t *data = guard_at_end(&room, NULL, 4 + length);
                memcpy(data, (const uint8_t[]){0x30, (uint8_t)(2 + length), 0, (uint8_t)length}, 4);
                memset(data + 4, 'a', length);
                memcpy(data + 4 + at, odd[o].bytes, odd[o].n);
                CHECK_EQ(pn_utf8_valid(data + 4, length), odd[o].text);
                int64_t want = !odd[o].text ? -PN_MALFORMED_PACKET : !odd[o].name ? -PN_TOPIC_NAME_INVALID
                                                                                  : (int64_t)(4 + length);
                CHECK_EQ(pn_packet_decode(data, 4 + length, 4, 100, &p), want);
            }
        }
    }
    CHECK(pn_utf8_valid(NULL, 0));
}

TEST(malformed_text_weighs_more_than_a_wildcard) {
    pn_packet p;
    const uint8_t data[] = {0x30, 5, 0, 3, '#', 0xC3, 'a'};
    CHECK_EQ(pn_packet_decode(data, sizeof data, 4, 100, &p), -PN_MALFORMED_PACKET);
}

/* ---- what cannot be written ------------------------------------------------------------------------------------ */

TEST(packets_that_cannot_be_written) {
    static uint8_t long_text[PN_STRING_MAX + 1];
    const pn_span text = {long_text, PN_STRING_MAX + 1}, huge = {long_text, PN_REMAINING_LENGTH_MAX};
    const pn_span filter = pn_span_of("\0\1a\0", 4), bad_filter = pn_span_of("\0\1a\3", 4), codes = pn_span_of("\x99", 1);
    const struct { const char *what; uint8_t version; int want; pn_packet p; } cases[] = {
        {"type 0", 5, PN_PROTOCOL_ERROR, {.type = 0}},
        {"type 16", 5, PN_PROTOCOL_ERROR, {.type = 16}},
        {"version 0", 0, PN_PROTOCOL_ERROR, {.type = PN_PINGREQ}},
        {"version 2", 2, PN_PROTOCOL_ERROR, {.type = PN_PINGREQ}},
        {"version 6", 6, PN_PROTOCOL_ERROR, {.type = PN_PINGREQ}},
        {"AUTH in 3.1.1", 4, PN_PROTOCOL_ERROR, {.type = PN_AUTH}},
        {"QoS 3", 5, PN_PROTOCOL_ERROR, {.type = PN_PUBLISH, .qos = 3, .id = 1}},
        {"DUP with QoS 0", 5, PN_PROTOCOL_ERROR, {.type = PN_PUBLISH, .dup = true}},
        {"QoS 1 without id", 5, PN_PROTOCOL_ERROR, {.type = PN_PUBLISH, .qos = 1}},
        {"PUBACK without id", 4, PN_PROTOCOL_ERROR, {.type = PN_PUBACK}},
        {"PUBACK reason", 5, PN_PROTOCOL_ERROR, {.type = PN_PUBACK, .id = 1, .reason = 0x92}},
        {"CONNACK reason of 5.0", 4, PN_PROTOCOL_ERROR, {.type = PN_CONNACK, .reason = 0x87}},
        {"CONNACK reason of 3.1.1", 5, PN_PROTOCOL_ERROR, {.type = PN_CONNACK, .reason = 5}},
        {"CONNACK refusal with session", 5, PN_PROTOCOL_ERROR,
         {.type = PN_CONNACK, .reason = 0x87, .session_present = true}},
        {"will QoS 3", 5, PN_PROTOCOL_ERROR, {.type = PN_CONNECT, .has_will = true, .will_qos = 3}},
        {"will QoS without will", 5, PN_PROTOCOL_ERROR, {.type = PN_CONNECT, .will_qos = 1}},
        {"will retain without will", 5, PN_PROTOCOL_ERROR, {.type = PN_CONNECT, .will_retain = true}},
        {"password alone", 4, PN_PROTOCOL_ERROR, {.type = PN_CONNECT, .has_password = true}},
        {"no filter", 5, PN_PROTOCOL_ERROR, {.type = PN_SUBSCRIBE, .id = 1}},
        {"filter QoS 3", 5, PN_PROTOCOL_ERROR, {.type = PN_SUBSCRIBE, .id = 1, .filters = bad_filter}},
        {"SUBSCRIBE without id", 5, PN_PROTOCOL_ERROR, {.type = PN_SUBSCRIBE, .filters = filter}},
        {"no code", 5, PN_PROTOCOL_ERROR, {.type = PN_SUBACK, .id = 1}},
        {"no code", 5, PN_PROTOCOL_ERROR, {.type = PN_UNSUBACK, .id = 1}},
        {"SUBACK code", 5, PN_PROTOCOL_ERROR, {.type = PN_SUBACK, .id = 1, .payload = codes}},
        {"long topic", 5, PN_PACKET_TOO_LARGE, {.type = PN_PUBLISH, .topic = text}},
        {"long client id", 5, PN_PACKET_TOO_LARGE, {.type = PN_CONNECT, .client_id = text}},
        {"long user name", 5, PN_PACKET_TOO_LARGE, {.type = PN_CONNECT, .has_username = true, .username = text}},
        {"long password", 5, PN_PACKET_TOO_LARGE, {.type = PN_CONNECT, .has_password = true, .password = text}},
        {"long will payload", 5, PN_PACKET_TOO_LARGE, {.type = PN_CONNECT, .has_will = true, .will_payload = text}},
        {"payload over the maximum", 4, PN_PACKET_TOO_LARGE, {.type = PN_PUBLISH, .payload = huge}},
        {"properties over the maximum", 5, PN_PACKET_TOO_LARGE,
         {.type = PN_PUBLISH, .props.raw = {long_text, PN_REMAINING_LENGTH_MAX + 1}}},
    };
    load();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CONTEXT("%s", cases[i].what);
        uint8_t *out = guard_at_end(&room, NULL, 64);
        CHECK_EQ(pn_packet_encode(&cases[i].p, cases[i].version, out, 64), -cases[i].want);
        for (size_t b = 0; b < 64; b++) CHECK_EQ(out[b], 0xA5);
    }
    pn_packet largest = {.type = PN_PUBLISH, .topic = pn_span_of("a", 1)};
    largest.payload = (pn_span){long_text, PN_REMAINING_LENGTH_MAX - 3};
    CHECK_EQ(pn_packet_encode(&largest, 4, NULL, 0), PN_PACKET_SIZE_MAX); /* counted, not read */
}

TEST(fields_a_version_does_not_have_are_not_written) {
    uint8_t out[64];
    uint8_t props[] = {PN_PAYLOAD_FORMAT_INDICATOR, 1};
    pn_packet p = {.type = PN_PUBLISH, .topic = pn_span_of("a", 1), .props.raw = {props, 2}};
    CHECK_EQ(pn_packet_encode(&p, 4, out, sizeof out), 5);
    CHECK_TEXT(out, 5, "\x30\x03\x00\x01\x61");
    CHECK_EQ(pn_packet_encode(&p, 5, out, sizeof out), 8);
    CHECK_TEXT(out, 8, "\x30\x06\x00\x01\x61\x02\x01\x01");
    p = (pn_packet){.type = PN_PUBACK, .id = 7, .reason = PN_NOT_AUTHORIZED};
    CHECK_EQ(pn_packet_encode(&p, 4, out, sizeof out), 4);
    CHECK_TEXT(out, 4, "\x40\x02\x00\x07");
    CHECK_EQ(pn_packet_encode(&p, 5, out, sizeof out), 5);
    CHECK_TEXT(out, 5, "\x40\x03\x00\x07\x87");
    p = (pn_packet){.type = PN_DISCONNECT, .reason = PN_SERVER_SHUTTING_DOWN};
    CHECK_EQ(pn_packet_encode(&p, 4, out, sizeof out), 2);
    CHECK_TEXT(out, 2, "\xE0\x00");
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

TEST(names_of_everything) {
    unsigned types = 0, props = 0, reasons = 0;
    for (unsigned i = 0; i < 256; i++) {
        uint8_t n = (uint8_t)i;
        types += pn_type_name(n) != NULL;
        props += pn_prop_name(n) != NULL;
        reasons += pn_reason_name(n) != NULL;
        CHECK_EQ(pn_prop_name(n) != NULL, pn_prop_form(n) != PN_NONE);
    }
    CHECK_EQ(types, 15);   /* 5.0 table 2-1 */
    CHECK_EQ(props, 27);   /* 5.0 table 2-4 */
    CHECK_EQ(reasons, 43); /* 5.0 table 2-6: 43 values */
    CHECK(strcmp(pn_type_name(PN_CONNECT), "CONNECT") == 0);
    CHECK(strcmp(pn_prop_name(PN_SESSION_EXPIRY_INTERVAL), "session_expiry_interval") == 0);
    CHECK(strcmp(pn_reason_name(PN_MALFORMED_PACKET), "malformed_packet") == 0);
}

TEST_MAIN(CASE(vectors_between_guard_pages), CASE(prefixes_ask_for_more), CASE(every_split_gives_the_same),
          CASE(bytes_behind_a_packet_are_not_its), CASE(encode_with_every_capacity), CASE(damaged_vectors_do_no_damage),
          CASE(variable_byte_integers_at_their_borders), CASE(variable_byte_integers_that_are_none),
          CASE(packet_size_reads_the_header_only), CASE(too_large_is_told_by_the_header),
          CASE(the_shortest_remaining_length_is_asked_for_in_v5), CASE(before_connect_there_is_only_connect),
          CASE(first_bytes), CASE(every_code_point), CASE(every_short_sequence), CASE(text_at_every_length_and_place),
          CASE(malformed_text_weighs_more_than_a_wildcard), CASE(packets_that_cannot_be_written),
          CASE(fields_a_version_does_not_have_are_not_written), CASE(names_of_everything))
