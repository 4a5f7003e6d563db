/* test_journal.c: the journal where Python cannot look: memory that runs out at any point, and what a batch then says.
 *
 * The rule under test: a batch is always whole, whatever could not be recorded; what says that something is kept is not sent when it
 * was not; and restoring from any part of a batch is survived. What is recorded is shown from Python (tests/broker/test_durability_*.py).
 */
#include "broker.h"
#include "journal.h"

#include "failmem.h"
#include "guard.h"
#include "test.h"

static pn_span text(const char *s) { return pn_span_of(s, strlen(s)); }

static pn_key key_of(uint8_t kind, uint64_t number) {
    pn_key key = {.n = 9};
    key.head[0] = kind;
    for (int i = 8; i > 0; i--, number >>= 8) key.head[i] = (uint8_t)number;
    return key;
}

typedef struct record {
    char kind;
    pn_span key, value;
} record;

/* The next record that counts; false at the end. Everything is inside the batch. */
static bool next(pn_span batch, uint32_t *at, record *out) {
    while (*at < batch.n) {
        const uint8_t *p = batch.p + *at;
        uint32_t sizes[2] = {0};
        CHECK(*at + PN_RECORD_HEADER <= batch.n);
        for (int i = 1; i < 15; i++) {
            CHECK(p[i] >= '0' && p[i] <= '9');
            sizes[i > 5] = sizes[i > 5] * 10 + (uint32_t)(p[i] - '0');
        }
        *at += PN_RECORD_HEADER + sizes[0] + sizes[1];
        CHECK(*at <= batch.n);
        CHECK(*p == 'P' || *p == 'D' || *p == '-');
        *out = (record){(char)*p, {p + PN_RECORD_HEADER, sizes[0]}, {p + PN_RECORD_HEADER + sizes[0], sizes[1]}};
        if (*p != '-') return true;
    }
    return false;
}

static uint32_t count(pn_journal *j, char kind) {
    pn_span batch = {0};
    uint32_t n = 0, at = 0;
    if (!pn_journal_batch(j, &batch)) return 0;
    for (record r; next(batch, &at, &r);) n += r.kind == kind;
    return n;
}

TEST(a_key_stands_once_in_a_batch) {
    pn_journal *j = pn_journal_new(7);
    for (int round = 0; round < 3; round++) {
        for (uint8_t i = 0; i < 200; i++) {
            pn_key key = key_of(PN_RECORD_SENT, i);
            uint8_t *value = pn_journal_put(j, &key, (uint32_t)(round == 1 ? 4 : 8), false);
            CHECK(value != NULL);
            memset(value, round, round == 1 ? 4 : 8);
        }
    }
    CHECK_EQ(count(j, 'P'), 200);
    pn_span batch;
    CHECK(pn_journal_batch(j, &batch));
    uint32_t at = 0;
    for (record r; next(batch, &at, &r);) CHECK(r.value.n == 8 && r.value.p[0] == 2);
    CHECK_EQ(pn_journal_taken(j), 1);
    CHECK(!pn_journal_batch(j, &batch));
    pn_journal_free(j);
}

TEST(what_never_was_on_the_disk_is_not_deleted_there) {
    pn_journal *j = pn_journal_new(7);
    pn_key fresh = key_of(PN_RECORD_MESSAGE, 1), known = key_of(PN_RECORD_SESSION, 2);
    CHECK(pn_journal_put(j, &fresh, 3, true) != NULL);
    CHECK(pn_journal_put(j, &known, 3, false) != NULL);
    pn_journal_delete(j, &fresh);
    pn_journal_delete(j, &known);
    pn_journal_delete(j, &known);
    CHECK_EQ(count(j, 'P'), 0);
    CHECK_EQ(count(j, 'D'), 1);
    CHECK(pn_journal_put(j, &known, 3, true) != NULL); /* it is there again: deleted and put is put, and the disk knows it */
    CHECK_EQ(count(j, 'D'), 0);
    pn_journal_delete(j, &known);
    CHECK_EQ(count(j, 'D'), 1);
    pn_journal_taken(j);
    pn_journal_free(j);
}

/* Messages 1 to 300 but for 100, which has never been on the disk, and 200, which is deleted last; and a session between them. */
TEST(what_is_deleted_in_order_is_a_run) {
    pn_journal *j = pn_journal_new(7);
    pn_key fresh = key_of(PN_RECORD_MESSAGE, 100), changed = key_of(PN_RECORD_MESSAGE, 150);
    CHECK(pn_journal_put(j, &fresh, 3, true) != NULL);
    CHECK(pn_journal_put(j, &changed, 3, false) != NULL);
    for (uint64_t i = 1; i <= 300; i++) {
        pn_key message = key_of(PN_RECORD_MESSAGE, i), session = key_of(PN_RECORD_SESSION, i);
        if (i != 200) pn_journal_delete(j, &message);
        if (i == 2 || i == 3) pn_journal_delete(j, &session);
    }
    pn_key left = key_of(PN_RECORD_MESSAGE, 200);
    pn_journal_delete(j, &left);
    pn_journal_delete(j, &left);
    const struct {
        uint8_t kind;
        uint64_t first, last;
    } wanted[] = {{PN_RECORD_MESSAGE, 1, 99}, {PN_RECORD_SESSION, 2, 2}, {PN_RECORD_SESSION, 3, 3}, {PN_RECORD_MESSAGE, 101, 199},
                  {PN_RECORD_MESSAGE, 201, 300}, {PN_RECORD_MESSAGE, 200, 200}};
    pn_span batch;
    uint32_t at = 0, n = 0;
    CHECK(pn_journal_batch(j, &batch));
    for (record r; next(batch, &at, &r); n++) {
        CHECK(n < sizeof wanted / sizeof *wanted && r.kind == 'D');
        pn_key first = key_of(wanted[n].kind, wanted[n].first), last = key_of(wanted[n].kind, wanted[n].last);
        CHECK(pn_span_eq(r.key, pn_span_of(first.head, first.n)));
        CHECK(wanted[n].kind == PN_RECORD_SESSION ? r.value.n == 0 : pn_span_eq(r.value, pn_span_of(last.head, last.n)));
    }
    CHECK_EQ(n, 6);
    pn_journal_taken(j);
    pn_key next_one = key_of(PN_RECORD_MESSAGE, 201); /* a new batch knows of no run */
    pn_journal_delete(j, &next_one);
    CHECK_EQ(count(j, 'D'), 1);
    pn_journal_free(j);
}

TEST(a_topic_is_part_of_the_key) {
    pn_journal *j = pn_journal_new(7);
    char names[300][16];
    for (int i = 0; i < 300; i++) {
        snprintf(names[i], sizeof names[i], "t/%d", i);
        pn_key key = {.head = {PN_RECORD_RETAINED}, .n = 1, .rest = text(names[i])};
        CHECK(pn_journal_put(j, &key, 1, true) != NULL);
    }
    for (int i = 0; i < 300; i += 2) {
        pn_key key = {.head = {PN_RECORD_RETAINED}, .n = 1, .rest = text(names[i])};
        pn_journal_delete(j, &key);
    }
    CHECK_EQ(count(j, 'P'), 150);
    pn_journal_free(j);
}

/* --- the broker on top of it --- */

enum { PACKET = 512 };

typedef struct peer {
    pn_link *link;
    const char *name;
    bool closed;
} peer;

typedef struct house {
    pn_broker *broker;
    int64_t now;
    uint8_t *disk; /* the batches that were written, one behind the other */
    uint32_t disk_n;
} house;

static void events(house *h) {
    for (pn_event e; pn_broker_event(h->broker, &e);) {
        peer *p = e.owner;
        if (e.kind == PN_EVENT_CLOSED) p->closed = true;
        if (e.kind != PN_EVENT_CONNECT) continue;
        pn_verdict v = {.session = text(p->name), .identity = text("me")};
        pn_link_accept(p->link, &v, h->now);
    }
}

static void feed(house *h, peer *p, pn_packet *packet) {
    uint8_t bytes[PACKET];
    if (!p->link || p->closed) return;
    int64_t n = pn_packet_encode(packet, PN_V5, bytes, sizeof bytes);
    CHECK(n > 0 && n <= PACKET);
    pn_link_feed(p->link, bytes, (size_t)n, h->now);
    events(h);
}

static void commit(house *h) {
    pn_span batch;
    if (!pn_broker_batch(h->broker, &batch)) return;
    uint32_t at = 0;
    for (record r; next(batch, &at, &r);) continue; /* whole, whatever could not be recorded */
    h->disk = realloc(h->disk, h->disk_n + batch.n); /* the test's own memory does not fail */
    memcpy(h->disk + h->disk_n, batch.p, batch.n);
    h->disk_n += batch.n;
    pn_broker_committed(h->broker, pn_broker_taken(h->broker), h->now);
    events(h);
}

static void join(house *h, peer *p, const char *name, bool with_will) {
    static const uint8_t expiry[] = {PN_SESSION_EXPIRY_INTERVAL, 0, 0, 14, 16};
    *p = (peer){.name = name};
    p->link = pn_link_open(h->broker, p, h->now);
    pn_packet c = {.type = PN_CONNECT, .version = PN_V5, .client_id = text(name)};
    c.props = (pn_props){{expiry, sizeof expiry}, 1ull << PN_SESSION_EXPIRY_INTERVAL};
    if (with_will) c.has_will = true, c.will_topic = text("w"), c.will_payload = text("gone"), c.will_qos = 1;
    feed(h, p, &c);
}

static void lose(house *h, peer *p) {
    if (p->link) pn_link_lost(p->link, h->now);
    p->link = NULL;
    events(h);
}

static void allow(pn_broker *b) {
    pn_rules *rules = pn_rules_new(1);
    if (!rules) return;
    pn_rules_add(rules, &(pn_rule){.allow = true, .actions = PN_MAY_PUBLISH | PN_MAY_SUBSCRIBE, .qos_max = 2, .filter = text("#")});
    pn_broker_set_rules(b, 0, rules);
}

static house begin(void) {
    house h = {.now = 1000};
    pn_limits limits;
    pn_limits_default(&limits);
    h.broker = pn_broker_new(&limits, 5);
    if (h.broker && !pn_broker_keep(h.broker, true, 1000000)) {
        pn_broker_free(h.broker);
        h.broker = NULL;
    }
    if (h.broker) allow(h.broker);
    return h;
}

/* Everything that is recorded, once: a subscriber, QoS 1 and 2 both ways, retained messages, wills, a queue. */
static void scenario(house *h) {
    peer sub, pub;
    static const uint8_t filter[] = {0, 1, '#', 2};
    join(h, &sub, "sub", true);
    join(h, &pub, "pub", true);
    commit(h);
    feed(h, &sub, &(pn_packet){.type = PN_SUBSCRIBE, .id = 1, .filters = {filter, sizeof filter}});
    feed(h, &pub, &(pn_packet){.type = PN_PUBLISH, .qos = 1, .id = 1, .topic = text("a"), .payload = text("one"), .retain = true});
    feed(h, &pub, &(pn_packet){.type = PN_PUBLISH, .qos = 2, .id = 2, .topic = text("b"), .payload = text("two")});
    commit(h);
    feed(h, &pub, &(pn_packet){.type = PN_PUBREL, .id = 2});
    feed(h, &sub, &(pn_packet){.type = PN_PUBACK, .id = 1});
    feed(h, &sub, &(pn_packet){.type = PN_PUBREC, .id = 2});
    commit(h);
    lose(h, &sub);
    for (uint16_t i = 3; i < 9; i++) {
        feed(h, &pub, &(pn_packet){.type = PN_PUBLISH, .qos = 1, .id = i, .topic = text("c"), .payload = text("waits")});
    }
    feed(h, &pub, &(pn_packet){.type = PN_PUBLISH, .qos = 1, .id = 9, .topic = text("a"), .retain = true});
    lose(h, &pub);
    commit(h);
    h->now += 5000;
    pn_broker_tick(h->broker, h->now);
    events(h);
    commit(h);
}

static void close_house(house *h) {
    pn_broker_free(h->broker);
    free(h->disk);
}

TEST(without_memory_a_batch_is_whole_and_nothing_leaks) {
    for (long n = 0;; n++) {
        failmem_after(n);
        house h = begin();
        if (h.broker) scenario(&h);
        bool failed = failmem_failed();
        failmem_never();
        close_house(&h);
        CHECK_EQ(failmem_live(), 0);
        if (!failed) break;
    }
    for (long n = 0; n < 400; n++) {
        failmem_all_after(n);
        house h = begin();
        if (h.broker) scenario(&h);
        failmem_never();
        close_house(&h);
        CHECK_EQ(failmem_live(), 0);
    }
}

/* Records in the order of keys, as a disk would have them: the last word on each. */
static int by_key(const void *a, const void *b) {
    const record *x = a, *y = b;
    uint32_t n = x->key.n < y->key.n ? x->key.n : y->key.n;
    int order = memcmp(x->key.p, y->key.p, n);
    return order ? order : x->key.n < y->key.n ? -1 : x->key.n > y->key.n;
}

static uint32_t last_words(pn_span disk, record *out, uint32_t most) {
    uint32_t found = 0, at = 0;
    for (record r; next(disk, &at, &r);) {
        uint32_t i = 0;
        while (i < found && !pn_span_eq(out[i].key, r.key)) i++;
        CHECK(i < most);
        if (i == found) found++;
        out[i] = r;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < found; i++) {
        if (out[i].kind == 'P') out[kept++] = out[i];
    }
    qsort(out, kept, sizeof *out, by_key);
    return kept;
}

/* Each value lies at the end of a page behind which nothing may be read. */
static void restore(house *h, const record *records, uint32_t n, guard *room, uint32_t cut, uint32_t to) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t length = i == cut ? to : records[i].value.n;
        const uint8_t *value = guard_at_end(room, records[i].value.p, length);
        pn_broker_restore(h->broker, records[i].key, pn_span_of(value, length), h->now);
    }
    pn_broker_restored(h->broker, h->now);
    events(h);
}

TEST(what_was_kept_is_restored_also_in_part_and_without_memory) {
    enum { MOST = 200, NOTHING_CUT = MOST };
    guard room = guard_new(4096);
    record records[MOST];
    house first = begin();
    scenario(&first);
    uint32_t n = last_words(pn_span_of(first.disk, first.disk_n), records, MOST);
    CHECK(n > 10);
    house second = begin();
    restore(&second, records, n, &room, NOTHING_CUT, 0);
    CHECK_EQ(pn_broker_stats(second.broker)->sessions, 2);
    CHECK_EQ(pn_broker_stats(second.broker)->subscriptions, 1);
    CHECK_EQ(pn_broker_stats(second.broker)->stored, pn_broker_stats(first.broker)->stored);
    close_house(&second);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t to = 0; to < records[i].value.n; to++) {
            house third = begin();
            restore(&third, records, n, &room, i, to);
            close_house(&third);
        }
    }
    for (long calls = 0;; calls++) {
        failmem_after(calls);
        house fourth = begin();
        if (fourth.broker) restore(&fourth, records, n, &room, NOTHING_CUT, 0);
        bool failed = failmem_failed();
        failmem_never();
        close_house(&fourth);
        if (!failed) break;
    }
    close_house(&first);
    guard_free(&room);
    CHECK_EQ(failmem_live(), 0);
}

TEST_MAIN(CASE(a_key_stands_once_in_a_batch),
          CASE(what_never_was_on_the_disk_is_not_deleted_there),
          CASE(what_is_deleted_in_order_is_a_run),
          CASE(a_topic_is_part_of_the_key),
          CASE(without_memory_a_batch_is_whole_and_nothing_leaks),
          CASE(what_was_kept_is_restored_also_in_part_and_without_memory))
