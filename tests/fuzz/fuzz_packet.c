/* fuzz_packet.c: the packet codec on a stream: the first byte is the protocol level, the rest are packets.
 *
 * Beside crashes it looks for: a packet that a byte less would also have been, one that does not survive being written and
 * read again, a shortest form that is not shortest or not stable, spans that leave the packet, properties and filters that
 * do not add up, text that is none.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"
#include "require.h"

static void inside(pn_span s, const uint8_t *data, int64_t n) {
    require(s.n == 0 || (s.p >= data && s.p + s.n <= data + n), "a span leaves the packet");
}

static void check_props(const pn_props *props) {
    uint32_t at = 0;
    uint64_t seen = 0;
    for (pn_prop prop, found; pn_prop_next(props, &at, &prop);) {
        seen |= UINT64_C(1) << prop.id;
        require(pn_prop_name(prop.id) != NULL, "a property without a name");
        require(pn_prop_find(props, prop.id, &found) && found.id == prop.id, "a property that cannot be found");
        size_t n = pn_prop_size(prop.id, prop.key, prop.value, prop.num);
        require(n == prop.wire.n, "a property of another size than it has");
        uint8_t *copy = malloc(n);
        require(copy && pn_prop_put(copy, prop.id, prop.key, prop.value, prop.num) == copy + n, "a property that grew");
        require(memcmp(copy, prop.wire.p, n) == 0, "a property that changed");
        free(copy);
        uint8_t form = pn_prop_form(prop.id);
        if (form == PN_STRING || form == PN_PAIR) require(pn_utf8_valid(prop.value.p, prop.value.n), "text that is none");
    }
    require(at == props->raw.n && seen == props->present, "properties that do not add up");
}

static void check_packet(const pn_packet *p, const uint8_t *data, int64_t n) {
    const pn_span spans[] = {p->topic,    p->payload,  p->filters,    p->props.raw,    p->client_id,
                             p->username, p->password, p->will_topic, p->will_payload, p->will_props.raw};
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) inside(spans[i], data, n);
    require(pn_utf8_valid(p->topic.p, p->topic.n) && pn_utf8_valid(p->client_id.p, p->client_id.n) &&
                pn_utf8_valid(p->username.p, p->username.n) && pn_utf8_valid(p->will_topic.p, p->will_topic.n),
            "text that is none");
    check_props(&p->props);
    check_props(&p->will_props);
    uint32_t at = 0;
    for (pn_filter f; pn_filter_next(p, &at, &f);)
        require(f.filter.n && pn_utf8_valid(f.filter.p, f.filter.n) && f.qos < 3 && f.retain_handling < 3, "a bad filter");
    require(at == p->filters.n, "filters that do not add up");
}

static bool same(pn_span a, pn_span b) { return pn_span_eq(a, b); }

static bool equal(const pn_packet *a, const pn_packet *b) {
    return a->type == b->type && a->version == b->version && a->qos == b->qos && a->dup == b->dup &&
           a->retain == b->retain && a->reason == b->reason && a->session_present == b->session_present &&
           a->clean_start == b->clean_start && a->has_will == b->has_will && a->has_username == b->has_username &&
           a->has_password == b->has_password && a->will_qos == b->will_qos && a->will_retain == b->will_retain &&
           a->id == b->id && a->keep_alive == b->keep_alive && a->props.present == b->props.present &&
           a->will_props.present == b->will_props.present && same(a->topic, b->topic) && same(a->payload, b->payload) &&
           same(a->filters, b->filters) && same(a->props.raw, b->props.raw) && same(a->client_id, b->client_id) &&
           same(a->username, b->username) && same(a->password, b->password) && same(a->will_topic, b->will_topic) &&
           same(a->will_payload, b->will_payload) && same(a->will_props.raw, b->will_props.raw);
}

/* Written, read, and written again. */
static void round_trip(const pn_packet *p, int64_t n) {
    pn_packet q;
    int64_t size = pn_packet_encode(p, p->version, NULL, 0);
    require(size > 0 && size <= n, "the shortest form is longer than what came");
    uint8_t *first = malloc((size_t)size), *second = malloc((size_t)size);
    require(first && second, "memory");
    require(pn_packet_encode(p, p->version, first, (size_t)size) == size, "a packet that changed its size");
    require(pn_packet_decode(first, (size_t)size, p->version, PN_PACKET_SIZE_MAX, &q) == size, "it is not read again");
    require(equal(p, &q), "it is another packet when read again");
    require(pn_packet_encode(&q, q.version, second, (size_t)size) == size && memcmp(first, second, (size_t)size) == 0,
            "the shortest form is not stable");
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    uint8_t version = data[0] % 6;
    if (version && version < PN_V31) version = PN_V5;
    data++, size--;
    for (;;) {
        pn_packet p, q;
        int64_t n = pn_packet_decode(data, size, version, PN_PACKET_SIZE_MAX, &p);
        require(n <= (int64_t)size, "more used than there is");
        require(n >= 0 || (n <= -0x80 && pn_reason_name((uint8_t)-n)), "a refusal without a reason code");
        if (n <= 0) return 0;
        require(pn_packet_size(data, size) == n, "two opinions of the size");
        require(pn_packet_decode(data, (size_t)n - 1, version, PN_PACKET_SIZE_MAX, &q) == 0, "a byte less is enough");
        require(pn_packet_decode(data, size, version, (uint32_t)n - 1, &q) == -PN_PACKET_TOO_LARGE, "no limit holds");
        check_packet(&p, data, n);
        round_trip(&p, n);
        version = p.version;
        data += n;
        size -= (size_t)n;
    }
}
