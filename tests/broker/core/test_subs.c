/* test_subs.c: what is remembered of a topic (subs.h) says at every moment what a walk through the index says.
 *
 * That the index itself is right is shown from Python (tests/broker/test_broker_subscriptions.py, test_broker_model.py).
 */
#include "subs.h"

#include "broker.h"
#include "failmem.h"
#include "test.h"

enum { SESSIONS = 6, TOPICS = 40, TEXT = 64, NAME = TEXT + 16, REACHED_MAX = 64, IDS_MAX = 64 };

static uint64_t random_state;

static uint32_t below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

static pn_span text(const char *s) { return pn_span_of(s, strlen(s)); }

/* An index, some sessions, and what was remembered of some topics. */
typedef struct house {
    pn_env env;
    pn_subs *subs;
    pn_session *sessions[SESSIONS];
    char topics[TOPICS][TEXT];
    pn_matched memory[TOPICS];
} house;

static void begin(house *h) {
    *h = (house){0};
    pn_limits_default(&h->env.limits);
    h->subs = pn_subs_new(42);
    for (int i = 0; i < SESSIONS; i++) {
        char key[TEXT];
        (void)snprintf(key, sizeof key, "session-%d", i);
        h->sessions[i] = pn_session_new(text(key), text("me"));
    }
}

static void end(house *h) {
    for (int i = 0; i < SESSIONS; i++) {
        pn_subs_drop(h->subs, h->sessions[i], &h->env);
        pn_session_free(h->sessions[i]);
    }
    pn_subs_free(h->subs);
    CHECK_EQ(failmem_live(), 0);
}

static void add(house *h, int session, const char *name, uint32_t id) {
    bool existed;
    pn_filter f = {.filter = text(name), .qos = (uint8_t)below(3), .no_local = below(8) == 0 && name[0] != '$', .retain_as_published = below(2)};
    CHECK_EQ(pn_subs_add(h->subs, h->sessions[session], &f, id, &existed, &h->env), PN_SUCCESS);
}

/* --- what a routing yields --- */

typedef struct reached {
    const pn_session *session; /* NULL of a group: whose turn it is changes with each routing */
    uint64_t group;
    uint8_t qos;
    bool retain;
    uint32_t id_count, ids[IDS_MAX];
} reached;

typedef struct outcome {
    reached list[REACHED_MAX];
    uint32_t count;
} outcome;

static void note(void *ctx, pn_session *s, const pn_delivery *how) {
    outcome *o = ctx;
    CHECK(o->count < REACHED_MAX && how->id_count <= IDS_MAX);
    reached *r = &o->list[o->count++];
    *r = (reached){.group = how->group};
    if (how->group) return;
    r->session = s;
    r->qos = how->qos;
    r->retain = how->retain;
    r->id_count = how->id_count;
    if (how->id_count) memcpy(r->ids, how->ids, how->id_count * sizeof *r->ids);
}

/* Routes by memory and by a walk: the same, in the same order; both count as work. */
static void compare(house *h, int topic, int publisher) {
    static outcome by_memory, by_walk;
    by_memory.count = by_walk.count = 0;
    pn_span name = text(h->topics[topic]);
    CONTEXT("%s", h->topics[topic]);
    uint64_t start = pn_subs_visited(h->subs);
    int64_t first = pn_subs_route(h->subs, name, &h->memory[topic], h->sessions[publisher], note, &by_memory);
    uint64_t middle = pn_subs_visited(h->subs);
    int64_t second = pn_subs_route(h->subs, name, NULL, h->sessions[publisher], note, &by_walk);
    CHECK_EQ(first, second);
    CHECK(middle > start && pn_subs_visited(h->subs) > middle);
    CHECK_EQ(by_memory.count, by_walk.count);
    for (uint32_t i = 0; i < by_walk.count; i++) {
        const reached *a = &by_memory.list[i], *b = &by_walk.list[i];
        CHECK(a->session == b->session && a->group == b->group && a->qos == b->qos && a->retain == b->retain);
        CHECK_EQ(a->id_count, b->id_count);
        CHECK(a->id_count == 0 || memcmp(a->ids, b->ids, a->id_count * sizeof *a->ids) == 0);
    }
}

/* --- anything may happen --- */

static const char *const LEVELS[] = {"a", "b", "", "c", "$x"};

/* A topic of one to five levels, or a filter. */
static void make(char *out, bool filter) {
    size_t n = 0;
    for (uint32_t left = 1 + below(5); left; left--) {
        const char *level = LEVELS[below(5)];
        if (filter && below(3) == 0) level = "+";
        if (filter && left == 1 && below(3) == 0) level = "#";
        n += (size_t)snprintf(out + n, TEXT - n, "%s%s", level, left > 1 ? "/" : "");
    }
    if (n == 0) (void)snprintf(out, TEXT, "a");
}

TEST(a_memory_is_never_stale) {
    house h;
    begin(&h);
    random_state = 7;
    for (int i = 0; i < TOPICS; i++) {
        make(h.topics[i], false);
        h.memory[i] = pn_subs_matched(h.subs, text(h.topics[i]));
    }
    enum { STEPS = 6000 };
    char held[STEPS][NAME]; /* every name there was, so that many are taken back */
    for (int step = 0; step < STEPS; step++) {
        char filter[TEXT];
        make(filter, true);
        (void)snprintf(held[step], NAME, "%s%s", below(4) ? "" : below(2) ? "$share/g/" : "$share/h/", filter);
        int session = (int)below(SESSIONS);
        switch (below(16)) {
        case 0: pn_subs_drop(h.subs, h.sessions[session], &h.env); break;
        case 1:
        case 2:
        case 3:
        case 4: add(&h, session, held[step], below(3)); break;
        case 5:
        case 6:
        case 7: /* the same filter as somebody had, or has still */
            add(&h, session, held[below((uint32_t)step + 1)], below(3));
            break;
        case 8:
        case 9:
        case 10: (void)pn_subs_remove(h.subs, h.sessions[session], text(held[below((uint32_t)step + 1)]), &h.env); break;
        default: break; /* nothing, which is when memories count */
        }
        for (int i = 0; i < 8; i++) compare(&h, (int)below(TOPICS), (int)below(SESSIONS));
        if (h.env.stats.subscriptions > 20) pn_subs_drop(h.subs, h.sessions[session], &h.env); /* few match, so that much is remembered */
    }
    uint64_t recalled = pn_subs_recalled(h.subs);
    CHECK(recalled > STEPS && recalled < 8 * STEPS - STEPS); /* memories were good often, and were not */
    end(&h);
}

/* What happens elsewhere leaves it alone: a thousand others that come and go, and other subscribers of the same filter. */
TEST(a_memory_outlives_what_happens_elsewhere) {
    static const char *const topics[] = {"/plant/peanut/cmd/on", "vin/WVW1/cmd/lock", "a", "a/b"};
    static const char *const filters[] = {"/plant/peanut/cmd/+", "vin/WVW1/#", "a", "a/b"};
    static const char *const others[] = {"/plant/n%d/cmd/+", "vin/V%d/#", "b%d", "a/c%d"};
    enum { OTHERS = 1000, RARE = 5 }; /* some have the same place by chance: one in 4,096 */
    for (size_t kind = 0; kind < sizeof topics / sizeof *topics; kind++) {
        house h;
        begin(&h);
        CONTEXT("%s", topics[kind]);
        (void)snprintf(h.topics[0], TEXT, "%s", topics[kind]);
        h.memory[0] = pn_subs_matched(h.subs, text(h.topics[0]));
        add(&h, 0, filters[kind], 0);
        compare(&h, 0, 1);
        CHECK_EQ(pn_subs_recalled(h.subs), 0);
        for (int i = 0; i < OTHERS; i++) {
            char name[TEXT];
            (void)snprintf(name, sizeof name, others[kind], i);
            add(&h, 1, name, 0);
            add(&h, 2, filters[kind], 0);
            compare(&h, 0, 1);
            CHECK(pn_subs_remove(h.subs, h.sessions[1], text(name), &h.env));
            CHECK(pn_subs_remove(h.subs, h.sessions[2], text(filters[kind]), &h.env));
            compare(&h, 0, 1);
        }
        CHECK(pn_subs_recalled(h.subs) >= 2 * (OTHERS - RARE));
        uint64_t before = pn_subs_recalled(h.subs);
        add(&h, 3, "#", 0); /* a wildcard that matches everything ends every memory */
        compare(&h, 0, 1);
        CHECK_EQ(pn_subs_recalled(h.subs), before);
        compare(&h, 0, 1);
        CHECK_EQ(pn_subs_recalled(h.subs), before + 1);
        end(&h);
    }
}

/* More filters than a memory has room for are found by walking, as ever. */
TEST(what_many_filters_match_is_not_remembered) {
    static const char *const filters[] = {"a/b", "a/+", "+/b", "a/#"};
    house h;
    begin(&h);
    (void)snprintf(h.topics[0], TEXT, "a/b");
    h.memory[0] = pn_subs_matched(h.subs, text(h.topics[0]));
    for (uint32_t i = 0; i <= PN_MATCHED_MAX; i++) {
        uint64_t before = pn_subs_recalled(h.subs);
        add(&h, (int)i, filters[i], 0);
        compare(&h, 0, 5);
        compare(&h, 0, 5);
        CHECK_EQ(pn_subs_recalled(h.subs) - before, i < PN_MATCHED_MAX);
    }
    end(&h);
}

TEST_MAIN(CASE(a_memory_is_never_stale), CASE(a_memory_outlives_what_happens_elsewhere), CASE(what_many_filters_match_is_not_remembered))
