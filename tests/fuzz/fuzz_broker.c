/* fuzz_broker.c: the whole broker as a stream of (link, chunk, tick).
 *
 * The input is a list of records: one byte of operation and link, then what the operation needs.
 *   op 0 feed: two bytes of length (big endian), that many bytes        op 3 the socket is lost
 *   op 1 tick: one byte, the time that passes in half seconds           op 4 the verdict on the next CONNECTs: refuse when the byte is odd,
 *   op 2 the peer reads: one byte, how many 256ths of the output               else accept under rule set (byte / 2) % 2; with bit 2
 *   op 5 close from our side with the byte as reason                           set not now, but at the next op 4; with bits 3 and 4
 *                                                                              set it challenges who authenticates first, and once more;
 *                                                                              with bit 5 the proof ends after 5 s
 *   op 6 the gateway publishes, as the byte's bits say: QoS 1, retain   op 7 the rules are loaded anew: which, the byte's bits say; bit 2:
 *                                                                              who is known under one of them is so no longer; the
 *                                                                              link's bits: publish_rate, byte_rate, rate_action, and
 *                                                                              the disk fails
 * When the first record is an op 7 with bit 6 set, acknowledgements wait for the disk; ticks are its commits. Ticks and reading are turns
 * of the driver's loop, in which work that was left is gone on with.
 * Beside crashes it looks for: output that does not decode, a link with output that was never reported dirty, output behind the end,
 * more output or retained messages than the limits allow, events that do not add up (one DISCONNECT for each accepted link, at most one
 * CLOSED, nothing behind it), work that is left when nobody is there.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../broker/core/broker.h"
#include "require.h"

#define LINKS 6

typedef struct peer {
    pn_link *link;
    uint8_t version;
    bool dirty, asking, accepted, closed;
    uint32_t rest;  /* of a closed one: the output that it may still have */
    pn_buf stream; /* what it was sent and has not decoded yet */
} peer;

static void flush(pn_broker *b) {
    for (pn_link *l; (l = pn_broker_dirty(b, 0)) != NULL;) ((peer *)pn_link_owner(l))->dirty = true;
}

static void judge(peer *p, uint8_t verdict, int64_t now) {
    pn_packet c;
    require(pn_link_connect(p->link, &c), "no CONNECT behind the event");
    p->asking = false;
    p->version = c.version;
    char key[80];
    size_t n = c.client_id.n < 60 ? c.client_id.n : 60;
    memcpy(key, "fuzz/", 5);
    if (n) memcpy(key + 5, c.client_id.p, n);
    pn_verdict v = {.session = pn_span_of(key, 5 + n), .identity = pn_span_of("me", 2), .rules = (verdict / 2) % 2};
    if (n == 0) v.assigned = pn_span_of("assigned", 8);
    if (verdict & 8 && pn_link_challenge(p->link, pn_span_of("prove it", 8), now)) {
        /* its AUTH comes as an event, or nothing does */
    } else if (verdict & 1) {
        pn_link_refuse(p->link, PN_NOT_AUTHORIZED, pn_span_of("no", 2), now);
    } else {
        p->accepted = pn_link_accept(p->link, &v, now);
        if (verdict & 32) pn_link_proved_until(p->link, now + 5000, now);
    }
}

static void handle_events(pn_broker *b, uint8_t verdict, int64_t now) {
    /* accept and refuse raise events too; the queue is worked off until it is empty */
    for (pn_event e; pn_broker_event(b, &e);) {
        peer *p = e.owner;
        switch (e.kind) {
        case PN_EVENT_CONNECT:
            require(!p->accepted && !p->asking && !p->closed, "CONNECT on a link that is live or closed");
            p->asking = true;
            if (!(verdict & 4)) judge(p, verdict, now);
            break;
        case PN_EVENT_AUTH: {
            pn_span method, data;
            require(!p->closed && pn_link_proof(p->link, &method, &data) && method.n, "AUTH without a method");
            if (verdict & 16) {
                pn_link_challenge(p->link, data, now);
            } else if (p->accepted) {
                pn_link_authenticated(p->link, data, now);
            } else {
                judge(p, verdict, now);
            }
            break;
        }
        case PN_EVENT_DISCONNECT:
            require(p->accepted, "DISCONNECT without accept");
            p->accepted = false;
            break;
        case PN_EVENT_CLOSED:
            require(!p->closed && !p->accepted, "CLOSED twice, or before DISCONNECT");
            p->closed = true;
            p->asking = false;
            p->rest = pn_link_output(p->link).n;
            break;
        case PN_EVENT_PAUSE:
        case PN_EVENT_RESUME: require(p->accepted && !p->closed, "PAUSE or RESUME of a link that is not live"); break;
        case PN_EVENT_DENIED: require(e.text.n > 0, "DENIED without a text"); break;
        default: require(false, "an event of no kind");
        }
    }
}

static void rules(pn_broker *b, uint8_t which) {
    static const struct {
        uint8_t slot, allow, actions, retain, qos_max, names; /* names: 0 is everybody, 1 is "me" and "you", 2 is nobody */
        const char *filter;
    } table[] = {
        {0, 1, PN_MAY_PUBLISH | PN_MAY_SUBSCRIBE | PN_MAY_SHARE, PN_RETAIN_ANY, 2, 0, "#"},
        {1, 0, PN_MAY_PUBLISH, PN_RETAIN_ONLY, 2, 0, "/plant/+/UpdateTemperature"},
        {1, 1, PN_MAY_PUBLISH | PN_MAY_SUBSCRIBE, PN_RETAIN_ANY, 1, 1, "/plant/{id}/#"},
        {1, 0, PN_MAY_PUBLISH | PN_MAY_SUBSCRIBE | PN_MAY_SHARE, PN_RETAIN_ANY, 2, 2, "#"},
        {1, 1, PN_MAY_SUBSCRIBE | PN_MAY_SHARE, PN_RETAIN_ANY, 2, 0, "a/+/b"},
    };
    const pn_span names[] = {pn_span_of("you", 3), pn_span_of("me", 2)};
    for (uint8_t slot = 0; slot < 2; slot++) {
        if (!(which >> slot & 1)) { /* nobody may do anything */
            pn_broker_set_rules(b, slot, NULL);
            continue;
        }
        pn_rules *r = pn_rules_new(7);
        if (!r) return;
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            if (table[i].slot != slot) continue;
            pn_rules_add(r, &(pn_rule){table[i].allow, table[i].actions, table[i].retain, table[i].qos_max,
                                       pn_span_of(table[i].filter, strlen(table[i].filter)), table[i].names ? names : NULL,
                                       table[i].names == 1 ? 2 : 0});
        }
        pn_broker_set_rules(b, slot, r);
    }
}

/* A disk: takes what there is, and has it when it commits. */
typedef struct disk {
    bool used, fails;
    uint64_t taken;
} disk;

static void commit(pn_broker *b, disk *d, int64_t now) {
    pn_span batch;
    if (!d->used || d->fails) return;
    if (pn_broker_batch(b, &batch)) d->taken = pn_broker_taken(b);
    pn_broker_committed(b, d->taken, now);
}

static void change_limits(pn_broker *b, pn_limits *limits, disk *d, uint8_t bits, int64_t now) {
    limits->publish_rate = bits & 1 ? 3 : 0;
    limits->byte_rate = bits & 2 ? 500 : 0;
    limits->rate_action = bits >> 2 & 1;
    pn_broker_set_limits(b, limits);
    if (!d->used || d->fails == !!(bits & 8)) return;
    d->fails = !d->fails;
    if (!d->fails) commit(b, d, now); /* what was written first, then everybody may go on */
    pn_broker_failing(b, d->fails, now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pn_limits limits;
    pn_limits_default(&limits);
    limits.max_packet_size = 4096;
    limits.max_queued_messages = 32;
    limits.max_queued_bytes = 8192;
    limits.max_output_bytes = 16384;
    limits.max_inflight = 4;
    limits.receive_maximum = 4;
    limits.max_subscriptions = 16;
    limits.max_sessions = 8;
    limits.max_retained = 16;
    limits.max_retained_bytes = 8192;
    limits.max_parked_bytes = 1024;
    limits.session_expiry_max = 60;
    pn_broker *b = pn_broker_new(&limits, 1);
    if (!b) return 0;
    rules(b, 3);
    disk d = {.used = size >= 2 && (data[0] & 7) == 7 && data[1] & 64};
    if (d.used && !pn_broker_keep(b, true, 0)) return 0;
    peer peers[LINKS] = {0};
    int64_t now = 1000;
    uint8_t verdict = 0;
    while (size >= 2) {
        uint8_t op = data[0] & 7, bits = data[0] >> 3, argument = data[1];
        peer *p = &peers[(data[0] >> 3) % LINKS];
        data++, size--;
        switch (op) {
        case 0: {
            if (size < 2) break;
            size_t n = (size_t)(data[0] << 8 | data[1]);
            data += 2, size -= 2;
            if (n > size) n = size;
            if (!p->link) {
                p->link = pn_link_open(b, p, now);
                if (!p->link) break;
            }
            pn_link_feed(p->link, data, n, now);
            data += n, size -= n;
            break;
        }
        case 1:
            now += argument * 500;
            pn_broker_tick(b, now);
            handle_events(b, verdict, now);
            commit(b, &d, now);
            handle_events(b, verdict, now);
            if (pn_broker_busy(b)) pn_broker_work(b, now);
            data++, size--;
            break;
        case 2:
            data++, size--;
            if (!p->link) break;
            {
                pn_span out = pn_link_output(p->link);
                require(out.n <= limits.max_output_bytes + 65536u + 3 * limits.max_packet_size, "more output than the limits allow");
                require(!p->closed || out.n <= p->rest, "output behind the end");
                flush(b);
                require(out.n == 0 || p->dirty, "output that nobody was told of");
                size_t n = (size_t)out.n * (argument + 1u) / 256u;
                require(pn_buf_add(&p->stream, out.p, n), "memory");
                pn_link_sent(p->link, n, now);
                p->rest -= p->closed ? (uint32_t)n : 0;
                if (pn_link_output(p->link).n == 0) p->dirty = false;
                require_packets(&p->stream, p->version);
                handle_events(b, verdict, now);
                if (pn_broker_busy(b)) pn_broker_work(b, now);
            }
            break;
        case 3:
            if (!p->link) break;
            pn_link_lost(p->link, now);
            handle_events(b, verdict, now);
            require(!p->accepted, "a lost link without DISCONNECT");
            pn_buf_free(&p->stream);
            *p = (peer){0};
            break;
        case 4:
            verdict = argument;
            data++, size--;
            for (int i = 0; !(verdict & 4) && i < LINKS; i++) {
                if (!peers[i].asking) continue;
                judge(&peers[i], verdict, now);
                handle_events(b, verdict, now);
            }
            break;
        case 5:
            data++, size--;
            if (p->link) pn_link_close(p->link, argument, pn_span_of("why", argument & 2 ? 3 : 0), now);
            break;
        case 6:
            pn_broker_publish(b, pn_span_of("/plant/me/state", 15), pn_span_of(&argument, argument >> 2 & 1), argument & 1, argument >> 1 & 1, argument & 4 ? 1000 : PN_NEVER, now);
            data++, size--;
            break;
        default:
            rules(b, argument);
            if (argument & 4) pn_broker_revoke(b, argument & 1, pn_span_of("me", 2), now);
            change_limits(b, &limits, &d, bits, now);
            data++, size--;
        }
        handle_events(b, verdict, now);
        flush(b);
        const pn_stats *stats = pn_broker_stats(b);
        require(stats->retained <= limits.max_retained && stats->retained_bytes <= limits.max_retained_bytes, "too much is retained");
        require(stats->sessions <= limits.max_sessions, "too many sessions");
    }
    for (int i = 0; i < LINKS; i++) {
        if (peers[i].link) {
            pn_link_lost(peers[i].link, now);
            handle_events(b, verdict, now);
            require(!peers[i].accepted, "a lost link without DISCONNECT");
        }
        pn_buf_free(&peers[i].stream);
    }
    require(pn_broker_stats(b)->links == 0, "links left over");
    require(!pn_broker_busy(b), "work for nobody");
    pn_broker_tick(b, now + 1000000);
    require(pn_broker_stats(b)->sessions == 0, "sessions past their expiry"); /* all are bounded by session_expiry_max */
    require(pn_broker_stats(b)->subscriptions == 0, "subscriptions of nobody");
    pn_broker_free(b);
    return 0;
}
