/* test_broker.c: the broker where Python cannot look: memory that runs out at any point, chunks that end at a guard page, and the
 * contract of broker.h for its driver.
 *
 * What the broker says to its clients is shown from Python (tests/broker/test_broker_*.py).
 */
#include "broker.h"

#include "failmem.h"
#include "guard.h"
#include "mem.h"
#include "session.h"
#include "test.h"

enum { NAMED = 5, PEERS = 80, PACKET = 4096, KEEP_MS = 60000 };

/* A client as a driver sees it. */
typedef struct peer {
    pn_link *link; /* NULL: none */
    uint8_t version;
    bool live, closed;
    int connects, disconnects;
} peer;

typedef struct house {
    pn_broker *broker;
    int64_t now;
    peer peers[PEERS];
    uint32_t denied, published; /* PUBLISH packets read, by all */
} house;

static guard room;
static bool at_start; /* on which side of a chunk its guard page lies */

static pn_span text(const char *s) { return pn_span_of(s, strlen(s)); }

/* --- driving --- */

static void events(house *h) {
    for (pn_event e; pn_broker_event(h->broker, &e);) {
        peer *p = e.owner;
        switch (e.kind) {
        case PN_EVENT_CONNECT: {
            pn_packet c;
            CHECK(pn_link_connect(p->link, &c));
            p->version = c.version;
            p->connects++;
            char key[64];
            int n = snprintf(key, sizeof key, "me/%.*s", (int)c.client_id.n, (const char *)c.client_id.p);
            pn_verdict v = {.session = pn_span_of(key, (size_t)n), .identity = text("me")};
            if (c.client_id.n == 0) v.assigned = text("assigned");
            p->live = pn_link_accept(p->link, &v, h->now);
            break;
        }
        case PN_EVENT_DISCONNECT:
            CHECK(p->live);
            p->live = false;
            p->disconnects++;
            break;
        case PN_EVENT_CLOSED:
            CHECK(!p->live && !p->closed);
            p->closed = true;
            break;
        case PN_EVENT_DENIED: h->denied++; break;
        default: TEST_FAIL("an event of kind %d", e.kind);
        }
    }
}

static void open_peer(house *h, int i) {
    h->peers[i] = (peer){0};
    h->peers[i].link = pn_link_open(h->broker, &h->peers[i], h->now); /* NULL without memory: then nothing is heard of it */
}

static void feed(house *h, int i, const void *data, size_t n) {
    if (!h->peers[i].link) return;
    const uint8_t *chunk = at_start ? guard_at_start(&room, data, n) : guard_at_end(&room, data, n);
    pn_link_feed(h->peers[i].link, chunk, n, h->now);
    events(h);
}

static size_t encode(const pn_packet *p, uint8_t version, uint8_t *out) {
    int64_t n = pn_packet_encode(p, version, out, PACKET);
    CHECK(n > 0 && n <= PACKET);
    return (size_t)n;
}

static void say(house *h, int i, const pn_packet *p) {
    uint8_t data[PACKET];
    if (h->peers[i].version) feed(h, i, data, encode(p, h->peers[i].version, data));
}

/* Reads all output of a peer; whatever it is, it decodes. */
static void read_all(house *h, int i) {
    peer *p = &h->peers[i];
    if (!p->link) return;
    for (pn_span out; (out = pn_link_output(p->link)).n > 0;) {
        pn_packet packet;
        int64_t n = pn_packet_decode(out.p, out.n, p->version ? p->version : PN_V311, PN_PACKET_SIZE_MAX, &packet);
        CHECK(n > 0);
        if (packet.type == PN_PUBLISH) h->published++;
        uint8_t type = packet.type, qos = packet.qos;
        uint16_t id = packet.id;
        pn_link_sent(p->link, (size_t)n, h->now);
        events(h);
        if (!p->live) continue;
        if (type == PN_PUBLISH && qos) say(h, i, &(pn_packet){.type = qos == 1 ? PN_PUBACK : PN_PUBREC, .id = id});
        if (type == PN_PUBREL) say(h, i, &(pn_packet){.type = PN_PUBCOMP, .id = id});
    }
}

static void read_everybody(house *h) {
    while (pn_broker_dirty(h->broker, 0)) continue;
    for (int i = 0; i < PEERS; i++) read_all(h, i);
}

static void lose(house *h, int i) {
    if (!h->peers[i].link) return;
    pn_link_lost(h->peers[i].link, h->now);
    h->peers[i].link = NULL;
    events(h);
    CHECK(!h->peers[i].live);
    h->peers[i] = (peer){0};
}

static void tick(house *h, int64_t ms) {
    h->now += ms;
    pn_broker_tick(h->broker, h->now);
    events(h);
}

/* --- packets --- */

static void hello(house *h, int i, const char *id, uint8_t version, bool keep, bool with_will) {
    uint8_t expiry[8], late[16], data[PACKET];
    uint8_t *end = pn_prop_put(expiry, PN_SESSION_EXPIRY_INTERVAL, (pn_span){0}, (pn_span){0}, KEEP_MS / 1000);
    pn_packet p = {.type = PN_CONNECT, .version = version, .clean_start = !keep, .keep_alive = 30, .client_id = text(id)};
    if (keep && version == PN_V5) p.props = (pn_props){pn_span_of(expiry, (size_t)(end - expiry)), 1ull << PN_SESSION_EXPIRY_INTERVAL};
    if (with_will) {
        p.has_will = p.will_retain = true;
        p.will_qos = 1;
        p.will_topic = text("will/of/somebody");
        p.will_payload = text("gone");
        if (version == PN_V5) {
            end = pn_prop_put(late, PN_WILL_DELAY_INTERVAL, (pn_span){0}, (pn_span){0}, 5);
            end = pn_prop_put(end, PN_MESSAGE_EXPIRY_INTERVAL, (pn_span){0}, (pn_span){0}, 20);
            p.will_props.raw = pn_span_of(late, (size_t)(end - late));
        }
    }
    open_peer(h, i);
    h->peers[i].version = version;
    feed(h, i, data, encode(&p, version, data));
}

static void subscribe(house *h, int i, const char *const *filters, uint8_t qos) {
    uint8_t list[PACKET];
    size_t n = 0;
    for (; *filters; filters++) {
        size_t length = strlen(*filters);
        list[n++] = 0;
        list[n++] = (uint8_t)length;
        memcpy(list + n, *filters, length);
        n += length;
        list[n++] = qos;
    }
    say(h, i, &(pn_packet){.type = PN_SUBSCRIBE, .id = 1, .filters = pn_span_of(list, n)});
}

static void publish(house *h, int i, const char *topic, const char *payload, uint8_t qos, uint16_t id, bool retain) {
    uint8_t props[64];
    pn_packet p = {.type = PN_PUBLISH, .qos = qos, .id = qos ? id : 0, .retain = retain, .topic = text(topic), .payload = text(payload)};
    if (h->peers[i].version == PN_V5) {
        uint8_t *end = pn_prop_put(props, PN_MESSAGE_EXPIRY_INTERVAL, (pn_span){0}, (pn_span){0}, 10);
        end = pn_prop_put(end, PN_USER_PROPERTY, text("key"), text("value"), 0);
        p.props.raw = pn_span_of(props, (size_t)(end - props));
    }
    say(h, i, &p);
    if (qos == 2) say(h, i, &(pn_packet){.type = PN_PUBREL, .id = id});
}

static void unsubscribe(house *h, int i, const char *filter) {
    uint8_t list[64];
    size_t n = strlen(filter);
    list[0] = 0;
    list[1] = (uint8_t)n;
    memcpy(list + 2, filter, n);
    say(h, i, &(pn_packet){.type = PN_UNSUBSCRIBE, .id = 2, .filters = pn_span_of(list, n + 2)});
}

static bool allow(house *h, const char *publishing) {
    pn_rules *r = pn_rules_new(7);
    if (!r) return false;
    const pn_rule reading = {.allow = true, .actions = PN_MAY_SUBSCRIBE | PN_MAY_SHARE, .qos_max = 2, .filter = text("#")};
    bool whole = pn_rules_add(r, &(pn_rule){.allow = true, .actions = PN_MAY_PUBLISH, .qos_max = 2, .filter = text(publishing)}) == 0 &&
                 pn_rules_add(r, &reading) == 0;
    if (whole) {
        pn_broker_set_rules(h->broker, 0, r);
    } else {
        pn_rules_free(r);
    }
    return whole;
}

/* --- one busy day --- */

static const char *const EVERYTHING[] = {"#", NULL};
static const char *const SOME[] = {"a/+/b", "a/#", "/plant/a-greenhouse-with-a-rather-long-name/cmd/+", "r/+", NULL};

static void live_a_day(house *h) {
    bool allowed = allow(h, "#");
    hello(h, 0, "watcher", PN_V5, true, true);
    subscribe(h, 0, EVERYTHING, 2);
    hello(h, 1, "old", PN_V311, true, true);
    subscribe(h, 1, SOME, 1);
    hello(h, 2, "", PN_V5, false, false);
    for (uint16_t n = 1; n < 12; n++) {
        publish(h, 2, n % 2 ? "a/x/b" : "/plant/a-greenhouse-with-a-rather-long-name/cmd/x", "payload", (uint8_t)(n % 3), n, false);
    }
    publish(h, 1, "r/1", "kept", 1, 1, true);
    publish(h, 2, "r/2", "kept for a while", 2, 20, true);
    publish(h, 2, "r/2", "and replaced", 0, 0, true);
    read_everybody(h);

    lose(h, 1); /* its will is due, and what comes now waits for it */
    for (uint16_t n = 1; n < 12; n++) publish(h, 2, "a/x/b", "waits", (uint8_t)(1 + n % 2), n, false);
    hello(h, 3, "watcher", PN_V5, true, true); /* takes over */
    hello(h, 4, "old", PN_V311, true, false);
    lose(h, 0);
    read_everybody(h);

    publish(h, 4, "r/1", "", 1, 2, true);
    (void)pn_broker_publish(h->broker, text("r/gateway"), text("own"), 1, true, PN_NEVER, h->now);
    events(h);
    unsubscribe(h, 3, "#");
    subscribe(h, 3, SOME, 2);
    (void)allow(h, "r/#");
    publish(h, 2, "a/x/b", "no longer allowed", 1, 30, false);
    CHECK(!allowed || h->denied > 0 || failmem_failed());
    say(h, 4, &(pn_packet){.type = PN_PINGREQ});
    read_everybody(h);

    char name[32], topic[64];
    for (int i = NAMED; i < PEERS; i++) { /* a crowd: every table grows */
        (void)snprintf(name, sizeof name, "crowd-%d", i);
        hello(h, i, name, i % 2 ? PN_V5 : PN_V311, i % 3 == 0, i % 5 == 0);
        subscribe(h, i, SOME, (uint8_t)(i % 3));
        (void)snprintf(topic, sizeof topic, "r/a-level-of-its-own-for-number-%d", i);
        publish(h, i, topic, "kept", 1, 1, i % 4 == 0);
    }
    for (uint16_t n = 1; n < 20; n++) { /* begun and never released */
        say(h, 2, &(pn_packet){.type = PN_PUBLISH, .qos = 2, .id = n, .topic = text("r/x"), .payload = text("half")});
    }
    read_everybody(h);

    lose(h, 3);
    tick(h, 6000); /* the delay of its will */
    tick(h, 50000); /* silence, and messages that expire */
    say(h, 2, &(pn_packet){.type = PN_DISCONNECT});
    read_everybody(h);
    for (int i = 0; i < PEERS; i++) lose(h, i);
    tick(h, PN_SESSION_EXPIRY_MAX * 1000ll);
    const pn_stats *stats = pn_broker_stats(h->broker);
    CHECK_EQ(stats->links, 0);
    CHECK_EQ(stats->sessions, 0);
    CHECK_EQ(stats->subscriptions, 0);
}

/* Whether two new clients of the same broker can talk. */
static void check_service(house *h) {
    CHECK(allow(h, "#"));
    h->published = 0;
    hello(h, 0, "fresh", PN_V5, false, false);
    hello(h, 1, "fresh too", PN_V311, false, false);
    CHECK(h->peers[0].live && h->peers[1].live);
    subscribe(h, 0, SOME, 1);
    read_everybody(h);
    uint32_t retained = h->published;
    publish(h, 1, "a/x/b", "still there", 2, 1, false);
    publish(h, 1, "r/9", "kept", 1, 2, true);
    read_everybody(h);
    CHECK_EQ(h->published, retained + 2);
    CHECK(pn_broker_retained(h->broker, text("r/9")) != NULL);
    lose(h, 0);
    lose(h, 1);
}

/* Every allocation fails in turn with EFFORT in the environment (make test-long); else every fourth, each time another
 * one of the four for the two ways of failing. */
static void run_out(bool for_good) {
    room = guard_new(PACKET);
    pn_limits limits;
    pn_limits_default(&limits);
    long tried = 0, step = getenv("EFFORT") ? 1 : 4;
    for (long n = for_good ? step / 2 : 0;; n += step) {
        CONTEXT("allocation %ld fails%s", n, for_good ? ", and all behind it" : "");
        (for_good ? failmem_all_after : failmem_after)(n);
        house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
        if (h.broker) {
            live_a_day(&h);
            bool failed = failmem_failed();
            failmem_never();
            check_service(&h);
            pn_broker_free(h.broker);
            if (!failed) break;
        }
        CHECK_EQ(failmem_live(), 0);
        tried++;
    }
    failmem_never();
    CHECK_EQ(failmem_live(), 0);
    CHECK(tried * step > 500); /* the day is busy enough to mean something */
    guard_free(&room);
}

TEST(an_allocation_that_fails_hurts_nobody_for_long) { run_out(false); }

TEST(memory_that_is_gone_for_good_crashes_nothing) { run_out(true); }

/* A broker is freed in the middle of its day, with links, sessions, queues and wills. */
TEST(a_broker_frees_all_it_has) {
    room = guard_new(PACKET);
    pn_limits limits;
    pn_limits_default(&limits);
    house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
    CHECK(allow(&h, "#"));
    hello(&h, 0, "watcher", PN_V5, true, true);
    subscribe(&h, 0, EVERYTHING, 2);
    hello(&h, 1, "old", PN_V311, true, true);
    subscribe(&h, 1, SOME, 1);
    for (uint16_t n = 1; n < 100; n++) publish(&h, 1, "a/x/b", "payload", 2, n, n % 2);
    lose(&h, 1);
    open_peer(&h, 2);
    feed(&h, 2, "\x10\x20", 2);
    CHECK(pn_broker_stats(h.broker)->links == 2 && pn_broker_stats(h.broker)->sessions == 2);
    pn_broker_free(h.broker);
    CHECK_EQ(failmem_live(), 0);
    pn_broker_free(NULL);
    guard_free(&room);
}

/* --- chunks --- */

/* A stream in two chunks, cut at each place, each chunk at a guard page: the output is the same, and no byte too many is read. */
TEST(no_byte_outside_a_chunk_is_read) {
    enum { STREAM = 2048 };
    pn_limits limits;
    pn_limits_default(&limits);
    room = guard_new(STREAM);
    for (uint8_t version = PN_V31; version <= PN_V5; version++) {
        uint8_t stream[STREAM], want[STREAM];
        size_t n = 0, want_n = 0;
        pn_packet packets[] = {
            {.type = PN_CONNECT, .version = version, .clean_start = true, .client_id = text("c"), .has_will = true,
             .will_topic = text("w"), .will_payload = text("gone")},
            {.type = PN_SUBSCRIBE, .id = 1, .filters = pn_span_of("\0\3a/+\2", 6)},
            {.type = PN_PUBLISH, .topic = text("a/b"), .payload = text("payload"), .qos = 2, .id = 9},
            {.type = PN_PUBREL, .id = 9},
            {.type = PN_PUBLISH, .topic = text("a/c"), .retain = true, .payload = text("x")},
            {.type = PN_UNSUBSCRIBE, .id = 2, .filters = pn_span_of("\0\3a/+", 5)},
            {.type = PN_PINGREQ},
            {.type = PN_DISCONNECT},
        };
        for (size_t i = 0; i < sizeof packets / sizeof *packets; i++) {
            int64_t size = pn_packet_encode(&packets[i], version, stream + n, STREAM - n);
            CHECK(size > 0 && (size_t)size <= STREAM - n);
            n += (size_t)size;
        }
        for (int side = 0; side < 2; side++) {
            at_start = side == 1;
            for (size_t cut = 0; cut <= n; cut++) {
                CONTEXT("version %d cut at %zu of %zu", version, cut, n);
                house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
                CHECK(allow(&h, "#"));
                open_peer(&h, 0);
                feed(&h, 0, stream, cut);
                feed(&h, 0, stream + cut, n - cut);
                CHECK(h.peers[0].closed && h.peers[0].disconnects == 1);
                pn_span out = pn_link_output(h.peers[0].link);
                if (want_n == 0) {
                    want_n = out.n;
                    memcpy(want, out.p, out.n);
                }
                CHECK_BYTES(out.p, out.n, want, want_n);
                pn_broker_free(h.broker);
            }
        }
    }
    at_start = false;
    guard_free(&room);
    CHECK_EQ(failmem_live(), 0);
}

/* --- the driver's side of the contract --- */

TEST(a_verdict_needs_a_connect) {
    pn_limits limits;
    pn_limits_default(&limits);
    house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
    open_peer(&h, 0);
    pn_packet c;
    CHECK(!pn_link_connect(h.peers[0].link, &c));
    CHECK(!pn_link_accept(h.peers[0].link, &(pn_verdict){.session = text("k")}, 1000));
    pn_link_refuse(h.peers[0].link, PN_NOT_AUTHORIZED, text("no"), 1000);
    pn_event e;
    CHECK(!pn_broker_event(h.broker, &e));
    CHECK_EQ(pn_link_output(h.peers[0].link).n, 0);
    CHECK_EQ(pn_broker_stats(h.broker)->sessions, 0);
    pn_broker_free(h.broker);
    CHECK_EQ(failmem_live(), 0);
}

TEST(a_slot_that_is_none_denies_and_frees) {
    pn_limits limits;
    pn_limits_default(&limits);
    pn_broker *b = pn_broker_new(&limits, 42);
    pn_broker_set_rules(b, PN_RULE_SETS, pn_rules_new(1));
    CHECK(pn_broker_rules(b, PN_RULE_SETS) == NULL);
    CHECK(pn_broker_rules(b, 0) == NULL);
    pn_rules *r = pn_rules_new(1);
    pn_broker_set_rules(b, PN_RULE_SETS - 1, r);
    CHECK(pn_broker_rules(b, PN_RULE_SETS - 1) == r);
    pn_broker_set_rules(b, PN_RULE_SETS - 1, NULL);
    CHECK(pn_broker_rules(b, PN_RULE_SETS - 1) == NULL);
    pn_broker_free(b);
    CHECK_EQ(failmem_live(), 0);
}

/* The limits may be set anew: they count for who comes from then on. */
TEST(limits_may_change) {
    room = guard_new(PACKET);
    pn_limits limits;
    pn_limits_default(&limits);
    house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
    CHECK(allow(&h, "#"));
    hello(&h, 0, "a", PN_V5, false, false);
    limits.max_sessions = 1;
    limits.max_packet_size = 128;
    pn_broker_set_limits(h.broker, &limits);
    CHECK(h.peers[0].live);
    hello(&h, 1, "b", PN_V5, false, false);
    CHECK(h.peers[1].closed && !h.peers[1].live);
    char long_text[200];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    publish(&h, 0, "a/x/b", long_text, 1, 1, false);
    CHECK(h.peers[0].live && !h.peers[0].closed); /* it was told more */
    pn_broker_free(h.broker);
    guard_free(&room);
    CHECK_EQ(failmem_live(), 0);
}

/* A driver is told of output by lanes: each link in its own, wherever it was put last, and nowhere when it has gone. */
TEST(a_link_with_output_waits_in_its_drivers_lane) {
    room = guard_new(PACKET);
    pn_limits limits;
    pn_limits_default(&limits);
    house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
    CHECK(allow(&h, "#"));
    for (int i = 0; i < 2; i++) {
        hello(&h, i, i ? "other" : "one", PN_V311, false, false);
        subscribe(&h, i, EVERYTHING, 0);
    }
    read_everybody(&h);
    pn_link *one = h.peers[0].link, *other = h.peers[1].link;
    pn_link_set_lane(one, 1);
    pn_link_set_lane(other, PN_LANES - 1);
    for (uint8_t lane = 0; lane < PN_LANES; lane++) CHECK(!pn_broker_has_dirty(h.broker, lane)); /* nothing new */
    publish(&h, 1, "a/b", "x", 0, 0, false);
    CHECK(!pn_broker_dirty(h.broker, 0));
    CHECK(pn_broker_has_dirty(h.broker, 1));
    CHECK(pn_broker_dirty(h.broker, 1) == one);
    CHECK(!pn_broker_has_dirty(h.broker, 1));
    pn_link_set_lane(other, 2); /* and takes along what it has */
    CHECK(!pn_broker_dirty(h.broker, PN_LANES - 1));
    CHECK(pn_broker_dirty(h.broker, 2) == other && !pn_broker_dirty(h.broker, 2));
    publish(&h, 1, "a/b", "x", 0, 0, false);
    lose(&h, 0);
    CHECK(!pn_broker_has_dirty(h.broker, 1)); /* who has gone waits nowhere */
    pn_broker_free(h.broker);
    guard_free(&room);
}

/* Many messages at once, for two that read them later. The outputs grow; then what one has let go serves the other, and from the third time on
 * nothing is asked for any more, whoever it is for. Who has nothing to say has no output; and what is spare is given back when nobody has needed
 * it from one tick to the next. */
TEST(an_output_that_has_gone_serves_the_next) {
    enum { MESSAGES = 100 };
    room = guard_new(PACKET);
    pn_limits limits;
    pn_limits_default(&limits);
    house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
    CHECK(allow(&h, "#"));
    char long_text[129];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    hello(&h, 0, "one", PN_V311, false, false);
    hello(&h, 1, "other", PN_V5, false, false);
    hello(&h, 2, "publisher", PN_V311, false, false);
    subscribe(&h, 0, EVERYTHING, 0);
    subscribe(&h, 1, EVERYTHING, 0);
    read_everybody(&h);
    long calls[4] = {0};
    for (int round = 0; round < 4; round++) {
        failmem_never();
        h.published = 0;
        for (int i = 0; i < MESSAGES; i++) publish(&h, 2, "a/x/b", long_text, 0, 0, false);
        CHECK(pn_link_output(h.peers[0].link).n > PN_SPARE_FROM && pn_link_output(h.peers[1].link).n > PN_SPARE_FROM);
        read_everybody(&h);
        CHECK_EQ(h.published, 2 * MESSAGES);
        calls[round] = failmem_calls();
    }
    CHECK(calls[1] < calls[0]);
    CHECK_EQ(calls[1], 2 * 5 - 1); /* what is small grows once more, 256 bytes to 4096; the first of these has been spared */
    CHECK_EQ(calls[2], 0);
    CHECK_EQ(calls[3], 0);
    long live = failmem_live();
    tick(&h, 100); /* they have been needed */
    CHECK_EQ(failmem_live(), live);
    tick(&h, 100);
    CHECK_EQ(failmem_live(), live - 4); /* for each of the two a large one and a small one */
    pn_broker_free(h.broker);
    guard_free(&room);
    CHECK_EQ(failmem_live(), 0);
}

/* Everybody falls silent at once, when there is no memory to say so: each end is told all the same, the session's before the link's (`events`
 * checks that), and what the telling takes is given back. */
TEST(that_a_link_has_ended_is_told_without_memory) {
    room = guard_new(PACKET);
    pn_limits limits;
    pn_limits_default(&limits);
    house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
    for (int without = 1; without >= 0; without--) {
        char name[32];
        for (int i = 0; i < PEERS; i++) {
            (void)snprintf(name, sizeof name, "crowd-%d", i);
            hello(&h, i, name, PN_V311, false, false);
            CHECK(h.peers[i].live);
        }
        read_everybody(&h);
        if (without) failmem_all_after(0);
        tick(&h, 46000); /* one and a half times their keep alive of 30 s, and more */
        CHECK_EQ(failmem_failed(), without);
        failmem_never();
        for (int i = 0; i < PEERS; i++) {
            CHECK_EQ(h.peers[i].disconnects, 1);
            CHECK(h.peers[i].closed);
            lose(&h, i);
        }
    }
    size_t held = pn_mem_held();
    tick(&h, 1000);
    CHECK(pn_mem_held() < held);
    pn_broker_free(h.broker);
    guard_free(&room);
    CHECK_EQ(failmem_live(), 0);
}

/* What is known of topics that are said again and again is a few of them, each of a bounded length, whatever a client says. */
TEST(what_is_known_of_topics_is_bounded) {
    enum { SAID = 3, MANY = 200, LONG = 100, A_FEW = 700 /* bytes: four of them */ };
    room = guard_new(PACKET);
    pn_limits limits;
    pn_limits_default(&limits);
    house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
    CHECK(allow(&h, "#"));
    hello(&h, 0, "talker", PN_V311, false, false);
    char topic[LONG + 16];
    size_t before = pn_mem_held();
    memset(topic, 'x', LONG);
    (void)snprintf(topic + LONG, 16, "/long");
    for (int n = 0; n < SAID; n++) publish(&h, 0, topic, "hello", 0, 0, false);
    size_t none = pn_mem_held();
    CHECK_EQ(none, before);
    for (int i = 0; i < MANY; i++) { /* each once: nothing is learned of that */
        (void)snprintf(topic, sizeof topic, "once/%d", i);
        publish(&h, 0, topic, "hello", 0, 0, false);
    }
    CHECK(pn_mem_held() - none < A_FEW / 16);
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(topic, sizeof topic, "again/%d", i);
        for (int n = 0; n < SAID; n++) publish(&h, 0, topic, "hello", 0, 0, false);
    }
    CHECK(pn_mem_held() - none > A_FEW / 2 && pn_mem_held() - before <= A_FEW);
    CHECK(h.peers[0].live);
    pn_broker_free(h.broker);
    guard_free(&room);
    CHECK_EQ(failmem_live(), 0);
}

/* Ten thousand nodes that say nothing: what each of them costs is counted, its share of the tables included. */
TEST(an_idle_client_costs_little) {
    enum { CLIENTS = 1024, MOST = 450 }; /* a power of two: the tables have just doubled */
    static peer peers[2 * CLIENTS];
    pn_limits limits;
    pn_limits_default(&limits);
    house h = {.broker = pn_broker_new(&limits, 42), .now = 1000};
    size_t held[2];
    for (int i = 0; i < 2 * CLIENTS; i++) {
        uint8_t data[64];
        char name[32];
        (void)snprintf(name, sizeof name, "says-nothing-%d", i);
        size_t n = encode(&(pn_packet){.type = PN_CONNECT, .version = PN_V311, .clean_start = true, .client_id = text(name)}, PN_V311, data);
        peers[i] = (peer){.link = pn_link_open(h.broker, &peers[i], h.now)};
        pn_link_feed(peers[i].link, data, n, h.now);
        events(&h);
        CHECK(peers[i].live && pn_broker_dirty(h.broker, 0) == peers[i].link);
        pn_link_sent(peers[i].link, pn_link_output(peers[i].link).n, h.now);
        if ((i + 1) % CLIENTS == 0) held[i / CLIENTS] = pn_mem_held();
    }
    CHECK(held[1] - held[0] <= (size_t)CLIENTS * MOST);
    pn_broker_free(h.broker);
    CHECK_EQ(failmem_live(), 0);
}

/* The tables that the bindings read: each row in its place, each default within its bounds. */
TEST(tables_are_whole) {
    pn_limits limits;
    memset(&limits, 0xFF, sizeof limits);
    pn_limits_default(&limits);
    size_t rows = 0;
    for (const pn_limit_row *row = pn_limit_table; row->name; row++, rows++) {
        CONTEXT("%s", row->name);
        CHECK_EQ(row->offset, rows * sizeof(uint32_t)); /* in the order of the struct, none left out */
        CHECK(row->least <= row->otherwise && row->otherwise <= row->most);
        CHECK_EQ(*(const uint32_t *)((const char *)&limits + row->offset), row->otherwise);
    }
    CHECK_EQ(rows * sizeof(uint32_t), sizeof limits);
    rows = 0;
    for (const pn_stat_row *row = pn_stat_table; row->name; row++, rows++) CHECK_EQ(row->offset, rows * sizeof(uint64_t));
    CHECK_EQ(rows * sizeof(uint64_t), sizeof(pn_stats));
}

TEST_MAIN(CASE(an_allocation_that_fails_hurts_nobody_for_long), CASE(memory_that_is_gone_for_good_crashes_nothing),
          CASE(a_broker_frees_all_it_has), CASE(no_byte_outside_a_chunk_is_read), CASE(a_verdict_needs_a_connect),
          CASE(a_slot_that_is_none_denies_and_frees), CASE(limits_may_change),
          CASE(a_link_with_output_waits_in_its_drivers_lane), CASE(an_output_that_has_gone_serves_the_next),
          CASE(that_a_link_has_ended_is_told_without_memory), CASE(what_is_known_of_topics_is_bounded),
          CASE(an_idle_client_costs_little), CASE(tables_are_whole))
