/* test_topic.c: names and filters against the standard's clauses, the tries and the rules against plain models.
 *
 * The rule it keeps: what is expected comes from the standard (5.0 §4.7, statement numbers beside the rows) or from a
 * model written here on arrays of levels, never from the code under test. A random test has a fixed seed and names it,
 * and its step, with a failure.
 */
#include <time.h>

#include "failmem.h"
#include "guard.h"
#include "mem.h"
#include "test.h"
#include "topic.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static pn_span span(const char *text) { return pn_span_of(text, strlen(text)); }

/* ---- The model: a topic as an array of levels ------------------------------------------------------------------ */

enum { PATH_MAX_LEVELS = 6 };

typedef struct path {
    int n;
    const char *level[PATH_MAX_LEVELS];
} path;

static pn_span join(const path *p, char out[256]) {
    size_t n = 0;
    for (int i = 0; i < p->n; i++) {
        if (i) out[n++] = '/';
        size_t length = strlen(p->level[i]);
        memcpy(out + n, p->level[i], length);
        n += length;
    }
    return pn_span_of(out, n);
}

static bool is(const char *a, const char *b) { return strcmp(a, b) == 0; }

/* 5.0 §4.7.1 and §4.7.2. With `id`, the level "{id}" of the filter stands for it (NULL: for nothing at all). */
static bool model_matches_as(const path *f, const path *n, bool rule, const char *id) {
    for (int i = 0; i < f->n; i++) {
        const char *level = f->level[i];
        if (rule && is(level, "{id}")) {
            if (!id || i >= n->n || !is(n->level[i], id)) return false;
            continue;
        }
        bool wild = is(level, "+") || is(level, "#");
        if (i == 0 && wild && n->level[0][0] == '$') return false;
        if (is(level, "#")) return i <= n->n;
        if (i >= n->n || (!wild && !is(level, n->level[i]))) return false;
    }
    return f->n == n->n;
}

static bool model_matches(const path *f, const path *n) { return model_matches_as(f, n, false, NULL); }

/* All paths of up to `depth` levels; filters where `wild` (then `#` stands last only). The empty topic is none. */
static int all_paths(path *out, int room, int depth, const char *const *levels, int count, bool wild) {
    int n = 0, from = 0;
    path start = {0};
    for (int d = 1; d <= depth; d++) {
        int to = n;
        for (int p = d == 1 ? -1 : from; p < (d == 1 ? 0 : to); p++) {
            const path *base = p < 0 ? &start : &out[p];
            if (base->n != d - 1 || (d > 1 && is(base->level[d - 2], "#"))) continue;
            for (int l = 0; l < count + (wild ? 1 : 0); l++) {
                CHECK(n < room);
                out[n] = *base;
                out[n].level[out[n].n++] = l < count ? levels[l] : "#";
                n++;
            }
        }
        from = to;
    }
    for (int i = 0; i < n; i++) {
        if (out[i].n == 1 && out[i].level[0][0] == 0) out[i--] = out[--n];
    }
    return n;
}

/* ---- Chance ---------------------------------------------------------------------------------------------------- */

static uint64_t chance;
static uint64_t chance_seed;

static void seed_with(uint64_t seed) { chance = chance_seed = seed; }

static uint32_t dice(uint32_t sides) {
    uint64_t x = chance += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((x ^ x >> 31) >> 32) % sides;
}

#define LONG_LEVEL "a-level-that-is-longer-than-a-node-has-room-for"
#define EDGE_LEVEL "exactly-twenty-four-byte" /* what a node holds itself; the next is one byte more */
static const char *const LEVELS[] = {"", "a", "b", "$s", LONG_LEVEL, EDGE_LEVEL, EDGE_LEVEL "s", "{id}"};

static path random_path(int depth, bool wild) {
    path p = {.n = 1 + (int)dice((uint32_t)depth)};
    for (int i = 0; i < p.n; i++) {
        p.level[i] = LEVELS[dice(dice(3) ? 4 : COUNT(LEVELS))];
        if (wild && dice(3) == 0) p.level[i] = "+";
    }
    if (wild && dice(4) == 0) p.level[p.n - 1] = "#";
    if (p.n == 1 && p.level[0][0] == 0) p.level[0] = "a";
    return p;
}

/* ---- Counting what a walk visits ------------------------------------------------------------------------------- */

enum { KEYS = 64 };

typedef struct seen {
    int hits[KEYS];
    int calls, stop_after; /* stop_after 0: never */
} seen;

static char tokens[KEYS]; /* key k has the value &tokens[k] */

static bool see(void *ctx, void *value) {
    seen *s = ctx;
    s->hits[(char *)value - tokens]++;
    s->calls++;
    return s->calls != s->stop_after;
}

static bool tally(void *ctx, void *value) {
    (void)value;
    ++*(int *)ctx;
    return true;
}

static int matches_of(pn_trie *t, pn_span name) {
    int n = 0;
    CHECK(pn_trie_match(t, name, tally, &n));
    return n;
}

static int found_by(pn_trie *t, pn_span filter) {
    int n = 0;
    CHECK(pn_trie_search(t, filter, tally, &n));
    return n;
}

static void put(pn_trie *t, const char *key) {
    void **slot = pn_trie_put(t, span(key));
    CHECK(slot != NULL);
    *slot = tokens;
}

/* ---- Names and filters by themselves --------------------------------------------------------------------------- */

static const struct {
    const char *filter, *name;
    bool match;
    const char *clause;
} STANDARD[] = {
    {"sport/tennis/player1/#", "sport/tennis/player1", true, "4.7.1.2"},
    {"sport/tennis/player1/#", "sport/tennis/player1/ranking", true, "4.7.1.2"},
    {"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true, "4.7.1.2"},
    {"sport/#", "sport", true, "4.7.1.2: # includes the parent level"},
    {"sport/#", "sports", false, "4.7.1.2"},
    {"#", "sport", true, "4.7.1.2"},
    {"#", "/", true, "4.7.1.2"},
    {"sport/tennis/#", "sport/tennis/", true, "4.7.1.2"},
    {"sport/tennis/#", "sport/football", false, "4.7.1.2"},
    {"sport/tennis/+", "sport/tennis/player1", true, "4.7.1.3"},
    {"sport/tennis/+", "sport/tennis/player2", true, "4.7.1.3"},
    {"sport/tennis/+", "sport/tennis/player1/ranking", false, "4.7.1.3"},
    {"sport/+", "sport", false, "4.7.1.3"},
    {"sport/+", "sport/", true, "4.7.1.3: + matches an empty level"},
    {"+/+", "/finance", true, "4.7.1.3"},
    {"/+", "/finance", true, "4.7.1.3"},
    {"+", "/finance", false, "4.7.1.3"},
    {"+", "sport", true, "4.7.1.3"},
    {"+/tennis/#", "sport/tennis", true, "4.7.1.3"},
    {"+/tennis/#", "sport/tennis/a/b", true, "4.7.1.3"},
    {"+/tennis/#", "tennis", false, "4.7.1.3"},
    {"sport/+/player1", "sport/tennis/player1", true, "4.7.1.3"},
    {"#", "$SYS/broker/clients", false, "MQTT-4.7.2-1"},
    {"+/monitor/Clients", "$SYS/monitor/Clients", false, "MQTT-4.7.2-1"},
    {"+", "$SYS", false, "MQTT-4.7.2-1"},
    {"+/#", "$SYS/x", false, "MQTT-4.7.2-1"},
    {"$SYS/#", "$SYS/broker", true, "4.7.2"},
    {"$SYS/#", "$SYS", true, "4.7.2"},
    {"$SYS/monitor/+", "$SYS/monitor/Clients", true, "4.7.2"},
    {"a/+", "a/$b", true, "4.7.2: only a leading $"},
    {"a/#", "a/$b/c", true, "4.7.2: only a leading $"},
    {"ACCOUNTS", "Accounts", false, "4.7.3: case sensitive"},
    {"a b/c", "a b/c", true, "4.7.3: may contain spaces"},
    {"/a", "a", false, "4.7.3: a leading / makes another topic"},
    {"a/", "a", false, "4.7.3: so does a trailing one"},
    {"a", "a/", false, "4.7.3"},
    {"/", "/", true, "4.7.3: / alone is a topic"},
    {"+/+", "/", true, "4.7.3"},
    {"+", "/", false, "4.7.3"},
    {"//", "//", true, "4.7.3"},
    {"+/+", "//", false, "4.7.3"},
    {"+//+", "//", true, "4.7.3"},
    {"\xC3\x85", "A\xCC\x8A", false, "MQTT-4.7.3-4: no normalisation"},
    {"\xF0\xAA\x9B\x94/a", "\xF0\xAA\x9B\x94/a", true, "MQTT-4.7.3-4"},
    {"plant/#", "/plant/peanut/telemetry", false, "the README's second agreement"},
    {"/plant/+/telemetry", "/plant/peanut/telemetry", true, "the README's second agreement"},
};

TEST(the_standards_examples_match) {
    for (int i = 0; i < COUNT(STANDARD); i++) {
        pn_span filter = span(STANDARD[i].filter), name = span(STANDARD[i].name);
        CONTEXT("%s against %s, %s", STANDARD[i].filter, STANDARD[i].name, STANDARD[i].clause);
        CHECK(pn_topic_filter_valid(filter, PN_MAX_TOPIC_LENGTH, PN_MAX_TOPIC_LEVELS));
        CHECK(pn_topic_name_valid(name, PN_MAX_TOPIC_LENGTH, PN_MAX_TOPIC_LEVELS));
        CHECK_EQ(pn_topic_matches(filter, name), STANDARD[i].match);

        pn_trie *filters = pn_trie_new(1), *names = pn_trie_new(2);
        put(filters, STANDARD[i].filter);
        put(names, STANDARD[i].name);
        CHECK_EQ(matches_of(filters, name), STANDARD[i].match);
        CHECK_EQ(found_by(names, filter), STANDARD[i].match);
        pn_trie_free(filters);
        pn_trie_free(names);
    }
}

TEST(invalid_names_and_filters_are_told) {
    static const struct {
        const char *text;
        size_t n;
        bool name, filter;
        const char *clause;
    } rows[] = {
        {"", 0, false, false, "MQTT-4.7.3-1"},
        {"a", 1, true, true, "MQTT-4.7.3-1"},
        {"/", 1, true, true, "4.7.3"},
        {"a\0b", 3, false, false, "MQTT-4.7.3-2"},
        {"\0", 1, false, false, "MQTT-4.7.3-2"},
        {"a/\0", 3, false, false, "MQTT-4.7.3-2"},
        {"#", 1, false, true, "MQTT-4.7.1-1"},
        {"a/#", 3, false, true, "MQTT-4.7.1-1"},
        {"/#", 2, false, true, "MQTT-4.7.1-1"},
        {"a#", 2, false, false, "MQTT-4.7.1-1"},
        {"#a", 2, false, false, "MQTT-4.7.1-1"},
        {"a/#/b", 5, false, false, "MQTT-4.7.1-1"},
        {"#/", 2, false, false, "MQTT-4.7.1-1"},
        {"#/#", 3, false, false, "MQTT-4.7.1-1"},
        {"##", 2, false, false, "MQTT-4.7.1-1"},
        {"+", 1, false, true, "MQTT-4.7.1-2"},
        {"+/", 2, false, true, "MQTT-4.7.1-2"},
        {"/+", 2, false, true, "MQTT-4.7.1-2"},
        {"+/+/#", 5, false, true, "MQTT-4.7.1-2"},
        {"a+", 2, false, false, "MQTT-4.7.1-2"},
        {"+a", 2, false, false, "MQTT-4.7.1-2"},
        {"++", 2, false, false, "MQTT-4.7.1-2"},
        {"+#", 2, false, false, "MQTT-4.7.1-2"},
        {"a/+b/c", 6, false, false, "MQTT-4.7.1-2"},
        {"a/b+/c", 6, false, false, "MQTT-4.7.1-2"},
        {"$SYS/a", 6, true, true, "4.7.2"},
        {" !\"$%&'()*,-.", 13, true, true, "4.7.3: every other character below / is an ordinary one"},
        {"\xE2\x82\xAC/\xC3\xA4", 6, true, true, "4.7.3"},
    };
    for (int i = 0; i < COUNT(rows); i++) {
        CONTEXT("%s, %s", rows[i].text, rows[i].clause);
        pn_span topic = pn_span_of(rows[i].text, rows[i].n);
        CHECK_EQ(pn_topic_name_valid(topic, PN_MAX_TOPIC_LENGTH, PN_MAX_TOPIC_LEVELS), rows[i].name);
        CHECK_EQ(pn_topic_filter_valid(topic, PN_MAX_TOPIC_LENGTH, PN_MAX_TOPIC_LEVELS), rows[i].filter);
    }
}

TEST(limits_of_length_and_levels_hold_at_the_edge) {
    static char text[PN_STRING_MAX + 1];
    memset(text, 'a', sizeof text);
    bool (*const valid[])(pn_span, uint32_t, uint32_t) = {pn_topic_name_valid, pn_topic_filter_valid};
    for (int i = 0; i < 2; i++) {
        CHECK(valid[i](pn_span_of(text, PN_MAX_TOPIC_LENGTH), PN_MAX_TOPIC_LENGTH, PN_MAX_TOPIC_LEVELS));
        CHECK(!valid[i](pn_span_of(text, PN_MAX_TOPIC_LENGTH + 1), PN_MAX_TOPIC_LENGTH, PN_MAX_TOPIC_LEVELS));
        CHECK(valid[i](pn_span_of(text, PN_STRING_MAX), PN_STRING_MAX, 1)); /* MQTT-4.7.3-3 */
        CHECK(!valid[i](pn_span_of(text, PN_STRING_MAX + 1), PN_STRING_MAX, 1));
    }
    memset(text, '/', sizeof text);
    for (int i = 0; i < 2; i++) { /* n slashes part n + 1 levels */
        CHECK(valid[i](pn_span_of(text, PN_MAX_TOPIC_LEVELS - 1), PN_MAX_TOPIC_LENGTH, PN_MAX_TOPIC_LEVELS));
        CHECK(!valid[i](pn_span_of(text, PN_MAX_TOPIC_LEVELS), PN_MAX_TOPIC_LENGTH, PN_MAX_TOPIC_LEVELS));
        CHECK(valid[i](pn_span_of(text, PN_STRING_MAX), PN_STRING_MAX, PN_STRING_MAX + 1));
    }
}

TEST(shared_filters_and_wildcards_are_recognised) {
    CHECK(pn_topic_is_shared(span("$share/group/a"))); /* MQTT-4.8.2-1 */
    CHECK(pn_topic_is_shared(span("$share//a")));
    CHECK(pn_topic_is_shared(span("$share/group")));
    CHECK(pn_topic_is_shared(span("$share/")));
    CHECK(!pn_topic_is_shared(span("$share")));
    CHECK(!pn_topic_is_shared(span("$shared/group/a")));
    CHECK(!pn_topic_is_shared(span("$Share/group/a")));
    CHECK(!pn_topic_is_shared(span("/$share/group/a")));
    CHECK(!pn_topic_is_shared(span("")));
    CHECK(pn_topic_has_wildcard(span("+")));
    CHECK(pn_topic_has_wildcard(span("a/+/b")));
    CHECK(pn_topic_has_wildcard(span("a/#")));
    CHECK(!pn_topic_has_wildcard(span("a/b")));
    CHECK(!pn_topic_has_wildcard(span("$SYS/")));
    CHECK(!pn_topic_has_wildcard(span("")));
}

TEST(covers_and_overlaps_of_the_corner_cases) {
    static const struct {
        const char *a, *b;
        bool covers, overlaps;
    } rows[] = {
        {"#", "$SYS/#", false, false},
        {"+/x", "$SYS/x", false, false},
        {"$SYS/#", "#", false, false},
        {"$SYS/+", "$SYS/#", false, true},
        {"#", "+/#", true, true},
        {"+/#", "#", true, true},
        {"+/+/#", "#", false, true},
        {"a/+/#", "a/#", false, true},
        {"a/#", "a", true, true},
        {"a", "a/#", false, true},
        {"a/#", "a/+", true, true},
        {"a/#", "a/b/#", true, true},
        {"a/#", "a/#", true, true},
        {"+", "a", true, true},
        {"a", "+", false, true},
        {"+", "#", false, true},
        {"+/b", "a/+", false, true},
        {"a/+", "b/+", false, false},
        {"+/+", "/", true, true},
        {"+", "/", false, false},
        {"/#", "#", false, true},
        {"/+/#", "/#", true, true}, /* for want of an empty name */
        {"+", "/#", false, false},
        {"a/b", "a/b/c", false, false},
        {"a/+/c", "a/#", false, true},
        {"$share/g/a", "a", false, false}, /* callers strip the prefix: it is nothing special here */
    };
    for (int i = 0; i < COUNT(rows); i++) {
        CONTEXT("%s, %s", rows[i].a, rows[i].b);
        CHECK_EQ(pn_topic_covers(span(rows[i].a), span(rows[i].b)), rows[i].covers);
        CHECK_EQ(pn_topic_overlaps(span(rows[i].a), span(rows[i].b)), rows[i].overlaps);
        CHECK_EQ(pn_topic_overlaps(span(rows[i].b), span(rows[i].a)), rows[i].overlaps);
    }
}

/* Sets of names as bits: every filter up to 4 levels, every name up to 5, of an alphabet with a level ("z") that no
 * filter spells out; so a filter that covers all these names covers all there are. */
enum { FILTER_DEPTH = 4, NAME_DEPTH = 5, MAX_FILTERS = 512, MAX_NAMES = 1536, WORDS = MAX_NAMES / 64 };
static path filters[MAX_FILTERS], names[MAX_NAMES];
static uint64_t matched[MAX_FILTERS][WORDS];

TEST(covers_and_overlaps_agree_with_the_sets_of_names) {
    static const char *const of_filters[] = {"", "a", "$", "+"}, *const of_names[] = {"", "a", "$", "z"};
    int nf = all_paths(filters, MAX_FILTERS, FILTER_DEPTH, of_filters, 4, true);
    int nn = all_paths(names, MAX_NAMES, NAME_DEPTH, of_names, 4, false);
    CHECK_EQ(nf, 4 + 1 + 16 + 4 + 64 + 16 + 256 + 64 - 1);
    CHECK_EQ(nn, 4 + 16 + 64 + 256 + 1024 - 1);
    memset(matched, 0, sizeof matched);
    static char text[MAX_FILTERS][256];
    static pn_span topic[MAX_FILTERS];
    for (int f = 0; f < nf; f++) {
        topic[f] = join(&filters[f], text[f]);
        CHECK(pn_topic_filter_valid(topic[f], 256, FILTER_DEPTH));
        for (int n = 0; n < nn; n++) {
            char name[256];
            bool match = model_matches(&filters[f], &names[n]);
            if (match) matched[f][n / 64] |= 1ull << (n % 64);
            if (pn_topic_matches(topic[f], join(&names[n], name)) != match) TEST_FAIL("%s, %s", text[f], name);
        }
    }
    for (int a = 0; a < nf; a++) {
        for (int b = 0; b < nf; b++) {
            bool covers = true, overlaps = false;
            for (int w = 0; w < WORDS; w++) {
                covers = covers && !(matched[b][w] & ~matched[a][w]);
                overlaps = overlaps || (matched[a][w] & matched[b][w]);
            }
            CONTEXT("%.*s, %.*s", (int)topic[a].n, text[a], (int)topic[b].n, text[b]);
            CHECK_EQ(pn_topic_covers(topic[a], topic[b]), covers);
            CHECK_EQ(pn_topic_overlaps(topic[a], topic[b]), overlaps);
        }
    }
}

/* ---- The trie -------------------------------------------------------------------------------------------------- */

TEST(an_empty_trie_holds_nothing) {
    pn_trie *t = pn_trie_new(0);
    CHECK_EQ(pn_trie_count(t), 0);
    CHECK(pn_trie_get(t, span("a")) == NULL);
    CHECK(pn_trie_get(t, span("")) == NULL);
    pn_trie_remove(t, span("a"));
    CHECK_EQ(matches_of(t, span("a/b")), 0);
    CHECK_EQ(found_by(t, span("#")), 0);
    CHECK_EQ(found_by(t, span("+")), 0);
    int n = 0;
    CHECK(pn_trie_each(t, tally, &n));
    CHECK_EQ(n, 0);
    pn_trie_free(t);
    pn_trie_free(NULL);
}

TEST(a_slot_stays_until_a_key_is_added_or_it_is_removed) {
    pn_trie *t = pn_trie_new(3);
    put(t, "a/b/c");
    void **slot = pn_trie_put(t, span("a/b"));
    CHECK(slot && *slot == NULL);
    CHECK_EQ(pn_trie_count(t), 2);
    pn_trie_remove(t, span("a/b/c")); /* "a/b" has neither a value nor children now, but it was put */
    CHECK_EQ(pn_trie_count(t), 1);
    CHECK(pn_trie_get(t, span("a/b")) == slot);
    CHECK(pn_trie_put(t, span("a/b")) == slot);
    CHECK(pn_trie_get(t, span("a")) == NULL);
    CHECK_EQ(matches_of(t, span("a/b")), 0); /* NULL is no value */
    *slot = tokens;
    CHECK_EQ(matches_of(t, span("a/b")), 1);
    pn_trie_remove(t, span("a"));
    pn_trie_remove(t, span("a/b/c"));
    CHECK_EQ(pn_trie_count(t), 1);
    pn_trie_remove(t, span("a/b"));
    CHECK_EQ(pn_trie_count(t), 0);
    CHECK(*pn_trie_put(t, span("a/b")) == NULL); /* a removed value does not come back */
    pn_trie_free(t);
}

TEST(levels_are_not_glued_together) {
    pn_trie *t = pn_trie_new(4);
    put(t, "ab/c");
    put(t, "a/bc");
    put(t, "abc");
    put(t, "/abc");
    CHECK(pn_trie_get(t, span("a/b/c")) == NULL);
    CHECK(pn_trie_get(t, span("abc/")) == NULL);
    CHECK(pn_trie_get(t, span("ab")) == NULL);
    CHECK_EQ(matches_of(t, span("ab/c")), 1);
    CHECK_EQ(matches_of(t, span("abc")), 1);
    pn_trie_free(t);
}

TEST(levels_of_every_length_are_told_apart) {
    enum { LONGEST = 70 };
    char text[LONGEST + 1];
    memset(text, 'x', sizeof text);
    pn_trie *t = pn_trie_new(5);
    for (size_t n = 0; n <= LONGEST; n++) *pn_trie_put(t, pn_span_of(text, n)) = tokens;
    CHECK_EQ(pn_trie_count(t), LONGEST + 1);
    for (size_t n = 1; n <= LONGEST; n++) {
        CONTEXT("%zu bytes", n);
        CHECK_EQ(matches_of(t, pn_span_of(text, n)), 1);
        for (size_t i = 0; i < n; i++) { /* each byte counts */
            text[i] ^= 1;
            CHECK_EQ(matches_of(t, pn_span_of(text, n)), 0);
            text[i] ^= 1;
        }
    }
    for (size_t n = 0; n <= LONGEST; n += 2) pn_trie_remove(t, pn_span_of(text, n));
    for (size_t n = 0; n <= LONGEST; n++) CHECK_EQ(pn_trie_get(t, pn_span_of(text, n)) != NULL, n % 2);
    pn_trie_free(t);
}

/* A search in slices, while keys come and go between them: what is there all the time is found once, what never was is not found, and
 * memory is not touched that is not there (the sanitizers). Several stand in the trie at once. */
TEST(a_walk_may_be_left_and_taken_up_again) {
    enum { WALKS = 3, ROUNDS = 3000 };
    static path keys[KEYS];
    static char text[KEYS][256];
    static pn_span topic[KEYS];
    bool present[KEYS] = {false};
    struct {
        pn_trie_walk walk;
        path asked;
        char text[256];
        seen seen;
        bool always[KEYS], never[KEYS];
    } walks[WALKS];
    seed_with(77);
    memset(walks, 0, sizeof walks);
    for (int k = 0; k < KEYS; k++) {
        keys[k] = random_path(4, false);
        topic[k] = join(&keys[k], text[k]);
        for (int j = 0; j < k; j++) {
            if (pn_span_eq(topic[j], topic[k])) topic[k].n = 0; /* there already */
        }
    }
    pn_trie *t = pn_trie_new(77);
    int finished = 0;
    for (int round = 0; round < ROUNDS; round++) {
        CONTEXT("round %d", round);
        for (uint32_t changes = dice(6); changes; changes--) {
            int k = (int)dice(KEYS);
            if (!topic[k].n) continue;
            present[k] = dice(2);
            if (present[k]) {
                *pn_trie_put(t, topic[k]) = &tokens[k];
            } else {
                pn_trie_remove(t, topic[k]);
            }
            for (int i = 0; i < WALKS; i++) *(present[k] ? &walks[i].never[k] : &walks[i].always[k]) = false;
        }
        int i = (int)dice(WALKS);
        if (!walks[i].walk.trie) {
            walks[i].asked = random_path(5, true);
            walks[i].seen = (seen){0};
            for (int k = 0; k < KEYS; k++) walks[i].always[k] = present[k], walks[i].never[k] = !present[k];
            pn_trie_walk_begin(&walks[i].walk, t, join(&walks[i].asked, walks[i].text));
        }
        if (dice(50) == 0) {
            pn_trie_walk_end(&walks[i].walk);
            continue;
        }
        uint64_t steps = dice(8);
        walks[i].seen.stop_after = walks[i].seen.calls + (int)dice(5) + 1;
        if (!pn_trie_walk_on(&walks[i].walk, &steps, see, &walks[i].seen)) continue;
        for (int k = 0; k < KEYS; k++) {
            bool match = topic[k].n && model_matches(&walks[i].asked, &keys[k]);
            if (walks[i].always[k]) CHECK_EQ(walks[i].seen.hits[k], match);
            if (walks[i].never[k] || !match) CHECK_EQ(walks[i].seen.hits[k], 0);
        }
        finished++;
        pn_trie_walk_end(&walks[i].walk);
    }
    CHECK(finished > 50);
    for (int i = 0; i < WALKS; i++) pn_trie_walk_end(&walks[i].walk);
    for (int k = 0; k < KEYS; k++) pn_trie_remove(t, topic[k]);
    CHECK_EQ(pn_trie_count(t), 0);
    pn_trie_free(t);
}

/* Whatever is put and removed: get, count, each, match and search say what a list of keys says. */
static void churn(bool wild, uint64_t seed, int steps) {
    seed_with(seed);
    path keys[KEYS];
    char text[KEYS][256];
    pn_span topic[KEYS];
    bool present[KEYS] = {false};
    int kinds = 0;
    while (kinds < KEYS) { /* different ones */
        keys[kinds] = random_path(4, wild);
        topic[kinds] = join(&keys[kinds], text[kinds]);
        bool fresh = true;
        for (int k = 0; k < kinds; k++) fresh = fresh && !pn_span_eq(topic[k], topic[kinds]);
        if (fresh) kinds++;
    }
    pn_trie *t = pn_trie_new(seed);
    size_t count = 0;
    for (int step = 0; step < steps; step++) {
        CONTEXT("seed %" PRIu64 ", step %d", chance_seed, step);
        int k = (int)dice(KEYS);
        bool more = (step / 256) % 3 != 2; /* grow in two thirds of the time, shrink in one */
        if (dice(4) ? more : !more) {
            void **slot = pn_trie_put(t, topic[k]);
            CHECK(slot != NULL);
            CHECK(*slot == (present[k] ? &tokens[k] : NULL));
            *slot = &tokens[k];
            count += !present[k];
            present[k] = true;
        } else {
            pn_trie_remove(t, topic[k]);
            count -= present[k];
            present[k] = false;
        }
        CHECK_EQ(pn_trie_count(t), count);
        int other = (int)dice(KEYS);
        void **slot = pn_trie_get(t, topic[other]);
        CHECK_EQ(slot != NULL, present[other]);
        CHECK(!slot || *slot == &tokens[other]);

        path asked = random_path(5, !wild);
        char asked_text[256];
        pn_span question = join(&asked, asked_text);
        seen s = {0};
        CHECK(wild ? pn_trie_match(t, question, see, &s) : pn_trie_search(t, question, see, &s));
        for (int i = 0; i < KEYS; i++) {
            bool match = present[i] && (wild ? model_matches(&keys[i], &asked) : model_matches(&asked, &keys[i]));
            if (s.hits[i] != match) {
                TEST_FAIL("%.*s, %.*s: %d times, want %d", (int)topic[i].n, text[i], (int)question.n, asked_text,
                          s.hits[i], match);
            }
        }
        if (step % 16 == 0) {
            s = (seen){0};
            CHECK(pn_trie_each(t, see, &s));
            for (int i = 0; i < KEYS; i++) CHECK_EQ(s.hits[i], present[i]);
        }
    }
    for (int k = 0; k < KEYS; k++) pn_trie_remove(t, topic[k]);
    CHECK_EQ(pn_trie_count(t), 0);
    pn_trie_free(t);
}

TEST(filters_come_and_go_as_in_a_list) {
    for (uint64_t seed = 1; seed <= 100; seed++) churn(true, seed, 1500);
}

TEST(names_come_and_go_as_in_a_list) {
    for (uint64_t seed = 1; seed <= 100; seed++) churn(false, seed, 1500);
}

TEST(a_walk_ends_when_it_is_told_to) {
    pn_trie *fs = pn_trie_new(6), *ns = pn_trie_new(7);
    static const char *const keys[] = {"#", "+/#", "a/#", "a/b", "a/+", "+/b", "+/+", "a/b/#"};
    for (int i = 0; i < COUNT(keys); i++) put(fs, keys[i]);
    static const char *const topics[] = {"a", "a/b", "a/b/c", "b/c", "b/c/d", "/"};
    for (int i = 0; i < COUNT(topics); i++) put(ns, topics[i]);
    for (int stop = 1; stop <= COUNT(keys) + 1; stop++) {
        seen s = {.stop_after = stop};
        bool all = stop > COUNT(keys);
        CHECK_EQ(pn_trie_match(fs, span("a/b"), see, &s), all);
        CHECK_EQ(s.calls, all ? COUNT(keys) : stop);
        s = (seen){.stop_after = stop};
        CHECK_EQ(pn_trie_each(fs, see, &s), all);
        CHECK_EQ(s.calls, all ? COUNT(keys) : stop);
    }
    static const struct {
        const char *filter;
        int names;
    } searches[] = {{"#", 6}, {"+/#", 6}, {"a/#", 3}, {"+/+", 3}, {"+", 1}, {"a", 1}, {"+/c/#", 2}};
    for (int i = 0; i < COUNT(searches); i++) {
        for (int stop = 1; stop <= searches[i].names + 1; stop++) {
            CONTEXT("%s, %d", searches[i].filter, stop);
            seen s = {.stop_after = stop};
            bool all = stop > searches[i].names;
            CHECK_EQ(pn_trie_search(ns, span(searches[i].filter), see, &s), all);
            CHECK_EQ(s.calls, all ? searches[i].names : stop);
        }
    }
    pn_trie_free(fs);
    pn_trie_free(ns);
}

TEST(a_filter_with_a_misplaced_wildcard_finds_nothing_and_harms_nothing) {
    pn_trie *fs = pn_trie_new(8), *ns = pn_trie_new(9);
    put(fs, "a/#/b");
    put(fs, "#/b");
    CHECK_EQ(matches_of(fs, span("a/x/b")), 0);
    CHECK_EQ(matches_of(fs, span("a")), 0);
    CHECK(!pn_topic_matches(span("a/#/b"), span("a/x/b")));
    put(ns, "a/x/b");
    CHECK_EQ(found_by(ns, span("a/#/b")), 0);
    CHECK_EQ(found_by(ns, span("#/b")), 0);
    int n = 0;
    CHECK(pn_trie_each(fs, tally, &n));
    CHECK_EQ(n, 2);
    pn_trie_remove(fs, span("a/#/b"));
    pn_trie_remove(fs, span("#/b"));
    CHECK_EQ(pn_trie_count(fs), 0);
    pn_trie_free(fs);
    pn_trie_free(ns);
}

TEST(no_walk_allocates) {
    pn_trie *t = pn_trie_new(10);
    put(t, "a/+/" LONG_LEVEL);
    put(t, "#");
    put(t, "a/b/" LONG_LEVEL);
    failmem_after(0);
    CHECK_EQ(matches_of(t, span("a/b/" LONG_LEVEL)), 3);
    CHECK(pn_trie_get(t, span("#")) != NULL);
    CHECK(pn_trie_put(t, span("#")) != NULL); /* neither does a key that is there */
    CHECK_EQ(found_by(t, span("a/b/#")), 1);
    CHECK_EQ(failmem_calls(), 0);
    failmem_never();
    pn_trie_free(t);
}

TEST(memory_is_used_again) {
    pn_trie *t = pn_trie_new(11);
    char key[64];
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 500; i++) {
            (void)snprintf(key, sizeof key, "r%d/k%d/+", round, i);
            put(t, key);
        }
        for (int i = 0; i < 500; i++) {
            (void)snprintf(key, sizeof key, "r%d/k%d/+", round, i);
            pn_trie_remove(t, span(key));
        }
        CHECK_EQ(pn_trie_count(t), 0);
        if (round == 0) failmem_never(); /* count from here */
    }
    CHECK_EQ(failmem_calls(), 0);
    CHECK_EQ(failmem_live(), 3); /* the trie, its nodes, its table */
    pn_trie_free(t);
    CHECK_EQ(failmem_live(), 0);
}

/* Every allocation fails in turn: the put that hits it leaves no trace, all others are there, nothing leaks. */
TEST(without_memory_a_put_leaves_the_trie_as_it_was) {
    char key[40][128];
    for (int i = 0; i < COUNT(key); i++) {
        static const char *const forms[] = {"a/%d", "a/%d/" LONG_LEVEL "%d/" LONG_LEVEL, "+/%d/#", LONG_LEVEL "%d/+/b",
                                            "%d/b/c/d"};
        (void)snprintf(key[i], sizeof key[i], forms[i % COUNT(forms)], i, i);
    }
    for (int lasting = 0; lasting < 2; lasting++) {
        for (long n = 0;; n++) {
            CONTEXT("allocation %ld", n);
            (lasting ? failmem_all_after : failmem_after)(n);
            bool there[COUNT(key)] = {false};
            size_t count = 0;
            pn_trie *t = pn_trie_new(12);
            for (int i = 0; t && i < COUNT(key); i++) {
                long live = failmem_live();
                void **slot = pn_trie_put(t, span(key[i]));
                there[i] = slot != NULL;
                count += there[i];
                if (slot) *slot = &tokens[i];
                CHECK(slot || failmem_live() == live);
            }
            bool failed = failmem_failed();
            CHECK(!failed || !t || count < COUNT(key));
            if (t) {
                CHECK_EQ(pn_trie_count(t), count);
                seen s = {0};
                CHECK(pn_trie_each(t, see, &s));
                for (int i = 0; i < COUNT(key); i++) {
                    CHECK_EQ(s.hits[i], there[i]);
                    CHECK_EQ(pn_trie_get(t, span(key[i])) != NULL, there[i]);
                }
                failmem_never();
                for (int i = 0; i < COUNT(key); i++) { /* what failed can be done again */
                    if (!there[i]) put(t, key[i]);
                }
                CHECK_EQ(pn_trie_count(t), COUNT(key));
                for (int i = 0; i < COUNT(key); i++) pn_trie_remove(t, span(key[i]));
                CHECK_EQ(pn_trie_count(t), 0);
            }
            pn_trie_free(t);
            CHECK_EQ(failmem_live(), 0);
            failmem_never();
            if (!failed) {
                CHECK(n > 20);
                break;
            }
        }
    }
}

TEST(no_function_reads_past_its_input) {
    guard g = guard_new(PN_STRING_MAX), h = guard_new(PN_STRING_MAX);
    static const char *const topics[] = {"",  "a",    "/",      "a/",     "/a",   "+",          "#",       "a/#",
                                         "$", "$SYS", "$share", "$share/", "{id}", "a/{id}/b", LONG_LEVEL, "abcdefgh",
                                         "abcdefg", "abcdefghi", "+/" LONG_LEVEL, EDGE_LEVEL, EDGE_LEVEL "s", "x/{id"};
    for (int i = 0; i < COUNT(topics); i++) {
        for (int j = 0; j < COUNT(topics); j++) {
            for (int side = 0; side < 2; side++) {
                size_t na = strlen(topics[i]), nb = strlen(topics[j]);
                pn_span a = pn_span_of((side ? guard_at_start : guard_at_end)(&g, topics[i], na), na);
                pn_span b = pn_span_of((side ? guard_at_start : guard_at_end)(&h, topics[j], nb), nb);
                (void)pn_topic_name_valid(a, 100, 10);
                (void)pn_topic_filter_valid(a, 100, 10);
                (void)pn_topic_has_wildcard(a);
                (void)pn_topic_is_shared(a);
                (void)pn_topic_matches(a, b);
                (void)pn_topic_covers(a, b);
                (void)pn_topic_overlaps(a, b);
                pn_trie *t = pn_trie_new(13);
                CHECK(pn_trie_put(t, a) != NULL);
                *pn_trie_get(t, a) = tokens;
                CHECK(pn_trie_put(t, b) != NULL);
                *pn_trie_get(t, b) = tokens;
                (void)matches_of(t, b);
                (void)found_by(t, a);
                pn_trie_remove(t, b);
                pn_trie_free(t);
                pn_rules *r = pn_rules_new(14);
                uint8_t qos = 2;
                (void)pn_rules_add(r, &(pn_rule){.allow = true, .actions = 3, .qos_max = 2, .filter = a});
                (void)pn_rules_add(r, &(pn_rule){.allow = true, .actions = 7, .filter = b, .names = (pn_span[]){a, b}, .name_count = 2});
                (void)pn_rules_may_publish(r, b, a, 0, false, NULL);
                (void)pn_rules_may_subscribe(r, b, a, false, &qos, NULL);
                (void)pn_rules_may_publish(r, a, b, 1, false, NULL);
                (void)pn_rules_may_subscribe(r, a, b, true, NULL, NULL);
                pn_rules_free(r);
            }
        }
    }
    guard_free(&g);
    guard_free(&h);
}

/* ---- Hostile sizes --------------------------------------------------------------------------------------------- */

/* "a/a/…" with so many levels; the caller frees. */
static char *deep(size_t levels, char letter) {
    char *text = malloc(2 * levels);
    CHECK(text != NULL);
    for (size_t i = 0; i < levels; i++) {
        text[2 * i] = letter;
        text[2 * i + 1] = '/';
    }
    text[2 * levels - 1] = 0;
    return text;
}

TEST(the_depth_of_keys_has_a_limit_and_that_of_names_has_none) {
    pn_trie *t = pn_trie_new(15);
    char *fits = deep(PN_TRIE_MAX_LEVELS, 'a'), *more = deep(PN_TRIE_MAX_LEVELS + 1, 'a');
    char *most = deep(PN_STRING_MAX / 2, 'a'), *plus = deep(PN_TRIE_MAX_LEVELS, '+');
    put(t, fits);
    long live = failmem_live();
    CHECK(pn_trie_put(t, span(more)) == NULL);
    CHECK(pn_trie_put(t, span(most)) == NULL);
    more[0] = 'b'; /* nothing of this one is there yet, and nothing of it stays */
    CHECK(pn_trie_put(t, span(more)) == NULL);
    CHECK(pn_trie_get(t, span(more)) == NULL);
    CHECK_EQ(failmem_live(), live);
    CHECK_EQ(pn_trie_count(t), 1);
    pn_trie_remove(t, span(more));
    pn_trie_remove(t, span(most));
    put(t, plus);
    put(t, "#");
    put(t, "a/#");
    put(t, "+/a/#");
    put(t, "a/+");
    CHECK_EQ(matches_of(t, span(fits)), 5);
    CHECK_EQ(matches_of(t, span(most)), 3);
    CHECK_EQ(matches_of(t, span(more)), 2); /* begins with b: `#`, `+/a/#` */
    plus[2 * PN_TRIE_MAX_LEVELS - 2] = '#';
    put(t, plus);
    CHECK_EQ(matches_of(t, span(most)), 4);
    CHECK_EQ(pn_trie_count(t), 7);
    pn_trie_free(t);

    t = pn_trie_new(16); /* names, found by filters as deep, one deeper ("…/#" is that too), and as deep as can be */
    put(t, fits);
    CHECK_EQ(found_by(t, span(fits)), 1);
    plus[2 * PN_TRIE_MAX_LEVELS - 2] = '+';
    CHECK_EQ(found_by(t, span(plus)), 1);
    plus[2 * PN_TRIE_MAX_LEVELS - 2] = '#';
    CHECK_EQ(found_by(t, span(plus)), 1);
    more[0] = 'a';
    CHECK_EQ(found_by(t, span(more)), 0);
    more[2 * PN_TRIE_MAX_LEVELS] = '#';
    CHECK_EQ(found_by(t, span(more)), 1);
    CHECK_EQ(found_by(t, span(most)), 0);
    CHECK_EQ(found_by(t, span("#")), 1);
    pn_trie_free(t);
    free(fits);
    free(more);
    free(most);
    free(plus);
}

TEST(the_length_of_keys_has_a_limit) {
    static char text[PN_STRING_MAX + 1];
    memset(text, 'x', sizeof text);
    pn_trie *t = pn_trie_new(17);
    CHECK(pn_trie_put(t, pn_span_of(text, PN_STRING_MAX + 1)) == NULL);
    void **slot = pn_trie_put(t, pn_span_of(text, PN_STRING_MAX));
    CHECK(slot != NULL);
    *slot = tokens;
    CHECK_EQ(matches_of(t, pn_span_of(text, PN_STRING_MAX)), 1);
    CHECK_EQ(matches_of(t, pn_span_of(text, PN_STRING_MAX - 1)), 0);
    CHECK(pn_trie_get(t, pn_span_of(text, PN_STRING_MAX + 1)) == NULL);
    pn_trie_free(t);
}

TEST(each_of_two_to_the_twelfth_paths_is_walked_once) {
    enum { DEPTH = 12 };
    pn_trie *t = pn_trie_new(18);
    char key[2 * DEPTH + 1] = {0};
    for (int bits = 0; bits < 1 << DEPTH; bits++) {
        for (int i = 0; i < DEPTH; i++) {
            key[2 * i] = bits >> i & 1 ? '+' : 'a';
            key[2 * i + 1] = '/';
        }
        key[2 * DEPTH - 1] = 0;
        put(t, key);
    }
    memset(key, 'a', sizeof key);
    for (int i = 1; i < 2 * DEPTH; i += 2) key[i] = '/';
    key[2 * DEPTH - 1] = 0;
    CHECK_EQ(matches_of(t, span(key)), 1 << DEPTH);
    pn_trie_free(t);
}

/* CPU seconds of `work(n)`, the best of three. */
static double cost(void (*work)(int), int n) {
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        clock_t from = clock();
        work(n);
        double spent = (double)(clock() - from) / CLOCKS_PER_SEC;
        if (spent < best) best = spent;
    }
    return best;
}

/* Eight times the work must not cost 32 times as much: linear is 8 (and caches that get too small), quadratic is 64. */
static void check_linear(const char *what, void (*work)(int), int n) {
    double small = cost(work, n / 8), large = cost(work, n);
    CONTEXT("%s: %.4f s for %d, %.4f s for %d", what, small, n / 8, large, n);
    CHECK(large < 32 * small + 0.01);
}

static void siblings(int n) {
    pn_trie *t = pn_trie_new(19);
    char key[64];
    for (int i = 0; i < n; i++) {
        (void)snprintf(key, sizeof key, "plant/%d/x", i); /* and the same level under as many parents */
        put(t, key);
    }
    CHECK_EQ(found_by(t, span("plant/+/x")), n);
    CHECK_EQ(found_by(t, span("plant/#")), n);
    CHECK_EQ(found_by(t, span("plant/+/y")), 0);
    for (int i = 0; i < n; i++) {
        (void)snprintf(key, sizeof key, "plant/%d/x", i);
        CHECK_EQ(matches_of(t, span(key)), 1);
    }
    for (int i = 0; i < n; i++) { /* from the middle of the list, in a scattered order */
        (void)snprintf(key, sizeof key, "plant/%d/x", (int)((long)i * 7919 % n));
        pn_trie_remove(t, span(key));
    }
    CHECK_EQ(pn_trie_count(t), 0);
    pn_trie_free(t);
}

TEST(a_hundred_thousand_siblings_cost_what_they_should) { check_linear("siblings", siblings, 100000); }

/* The table keeps 32 bits of a hash. Of 300,000 levels of one length under one parent, and of as many parents of one
 * level, ten pairs each may be expected to agree in all 32; the nodes must tell them apart. */
TEST(keys_whose_hashes_are_equal_are_told_apart) {
    enum { PAIRS = 300000 };
    pn_trie *t = pn_trie_new(29);
    char key[16];
    for (int i = 0; i < PAIRS; i++) {
        (void)snprintf(key, sizeof key, "%06d/x", i);
        void **slot = pn_trie_put(t, span(key));
        CHECK(slot && !*slot);
        *slot = tokens;
    }
    CHECK_EQ(pn_trie_count(t), PAIRS);
    CHECK_EQ(found_by(t, span("+/x")), PAIRS);
    pn_trie_free(t);
}

/* Filters that share every prefix with a name and part from it at the end; asked with names as long as can be. */
static void long_topics(int n) {
    char *text = deep((size_t)n / 2, 'a'), *plus = deep((size_t)n / 2, '+');
    pn_span name = span(text), filter = span(plus);
    for (int i = 0; i < 40; i++) {
        CHECK(pn_topic_matches(filter, name));
        CHECK(pn_topic_covers(filter, name));
        CHECK(pn_topic_overlaps(name, filter));
        CHECK(pn_topic_name_valid(name, PN_STRING_MAX, PN_STRING_MAX));
        CHECK(pn_topic_filter_valid(filter, PN_STRING_MAX, PN_STRING_MAX));
    }
    free(text);
    free(plus);
}

TEST(long_topics_cost_what_they_should) { check_linear("long topics", long_topics, PN_STRING_MAX); }

/* k filters "+/+/…/b" of every depth against "a/a/…": a walk that would start again for each would be quadratic. */
static void near_misses(int n) {
    pn_trie *t = pn_trie_new(20);
    char *plus = deep((size_t)n, '+'), *name = deep((size_t)n, 'a');
    for (int i = 0; i < n; i++) {
        plus[2 * i] = 'b';
        CHECK(pn_trie_put(t, pn_span_of(plus, 2 * (size_t)i + 1)) != NULL);
        plus[2 * i] = '+';
    }
    for (int i = 0; i < 100; i++) CHECK_EQ(matches_of(t, span(name)), 0);
    pn_trie_free(t);
    free(plus);
    free(name);
}

TEST(a_thousand_levels_cost_what_they_should) {
    char *name = deep(1000, 'a'), *plus = deep(1000, '+');
    pn_trie *t = pn_trie_new(21);
    put(t, name);
    put(t, plus);
    CHECK_EQ(matches_of(t, span(name)), 2);
    CHECK_EQ(found_by(t, span(name)), 1);
    pn_trie_free(t);
    free(name);
    free(plus);
    check_linear("near misses", near_misses, 1000);
}

/* ---- Rules ----------------------------------------------------------------------------------------------------- */

static int add(pn_rules *r, bool allow, uint8_t actions, uint8_t retain, const char *filter) {
    return pn_rules_add(r, &(pn_rule){.allow = allow, .actions = actions, .retain = retain, .qos_max = 2, .filter = span(filter)});
}

/* The number of the deciding rule, and that the answer is what the rule says. */
static int publish(const pn_rules *r, const char *id, const char *topic, bool retain, bool want) {
    int rule = -2;
    CHECK_EQ(pn_rules_may_publish(r, span(id), span(topic), 2, retain, &rule), want);
    CHECK_EQ(pn_rules_may_publish(r, span(id), span(topic), 2, retain, NULL), want);
    return rule;
}

static int subscribe(const pn_rules *r, const char *id, const char *filter, bool want) {
    int rule = -2;
    CHECK_EQ(pn_rules_may_subscribe(r, span(id), span(filter), false, NULL, &rule), want);
    CHECK_EQ(pn_rules_may_subscribe(r, span(id), span(filter), false, NULL, NULL), want);
    return rule;
}

TEST(a_node_reads_its_commands_and_writes_its_reports_only) {
    enum { PUB = PN_MAY_PUBLISH, SUB = PN_MAY_SUBSCRIBE };
    pn_rules *r = pn_rules_new(22);
    CHECK_EQ(add(r, false, PUB, PN_RETAIN_ONLY, "/plant/{id}/ack"), PN_SUCCESS);
    CHECK_EQ(add(r, true, PUB, PN_RETAIN_ANY, "/plant/{id}/ack"), PN_SUCCESS);
    CHECK_EQ(add(r, true, PUB, PN_RETAIN_ANY, "/plant/{id}/status"), PN_SUCCESS);
    CHECK_EQ(add(r, true, PUB, PN_RETAIN_NEVER, "/plant/{id}/telemetry"), PN_SUCCESS);
    CHECK_EQ(add(r, true, SUB, PN_RETAIN_ANY, "/plant/{id}/cmd/+"), PN_SUCCESS);
    CHECK_EQ(add(r, true, SUB, PN_RETAIN_ANY, "/plant/{id}/UpdateTemperature"), PN_SUCCESS);

    CHECK_EQ(publish(r, "peanut", "/plant/peanut/ack", false, true), 1);
    CHECK_EQ(publish(r, "peanut", "/plant/peanut/ack", true, false), 0);
    CHECK_EQ(publish(r, "peanut", "/plant/peanut/status", true, true), 2);
    CHECK_EQ(publish(r, "peanut", "/plant/peanut/telemetry", false, true), 3);
    CHECK_EQ(publish(r, "peanut", "/plant/peanut/telemetry", true, false), -1);
    CHECK_EQ(publish(r, "peanut", "/plant/tomato/status", true, false), -1);
    CHECK_EQ(publish(r, "peanut", "/plant/peanut/UpdateTemperature", false, false), -1);
    CHECK_EQ(publish(r, "peanut", "/plant/peanut/cmd/open", false, false), -1);
    CHECK_EQ(publish(r, "peanut", "plant/peanut/ack", false, false), -1);
    CHECK_EQ(publish(r, "pea", "/plant/peanut/ack", false, false), -1);
    CHECK_EQ(publish(r, "peanut", "/plant/pea/ack", false, false), -1);

    CHECK_EQ(subscribe(r, "peanut", "/plant/peanut/UpdateTemperature", true), 5);
    CHECK_EQ(subscribe(r, "peanut", "/plant/peanut/cmd/+", true), 4);
    CHECK_EQ(subscribe(r, "peanut", "/plant/peanut/cmd/open", true), 4);
    CHECK_EQ(subscribe(r, "peanut", "/plant/peanut/cmd/#", false), -1);
    CHECK_EQ(subscribe(r, "peanut", "/plant/+/cmd/open", false), -1);
    CHECK_EQ(subscribe(r, "peanut", "/plant/tomato/cmd/open", false), -1);
    CHECK_EQ(subscribe(r, "peanut", "/plant/peanut/ack", false), -1);
    CHECK_EQ(subscribe(r, "peanut", "#", false), -1);
    pn_rules_free(r);
}

TEST(the_first_rule_that_applies_decides) {
    pn_rules *r = pn_rules_new(23);
    CHECK_EQ(publish(r, "x", "a", false, false), -1); /* no rules: deny */
    CHECK_EQ(subscribe(r, "x", "a", false), -1);
    CHECK_EQ(add(r, true, PN_MAY_PUBLISH, PN_RETAIN_ANY, "a/b"), PN_SUCCESS);
    CHECK_EQ(add(r, false, PN_MAY_PUBLISH | PN_MAY_SUBSCRIBE, PN_RETAIN_ANY, "a/#"), PN_SUCCESS);
    CHECK_EQ(add(r, true, PN_MAY_PUBLISH | PN_MAY_SUBSCRIBE, PN_RETAIN_ANY, "#"), PN_SUCCESS);
    CHECK_EQ(add(r, false, PN_MAY_PUBLISH, PN_RETAIN_ANY, "a/b"), PN_SUCCESS);
    CHECK_EQ(publish(r, "x", "a/b", false, true), 0);
    CHECK_EQ(publish(r, "x", "a/c", false, false), 1);
    CHECK_EQ(publish(r, "x", "a", false, false), 1);
    CHECK_EQ(publish(r, "x", "b", false, true), 2);
    CHECK_EQ(publish(r, "x", "$SYS/b", false, false), -1); /* MQTT-4.7.2-1 holds for rules */
    CHECK_EQ(subscribe(r, "x", "a/b", false), 1);
    CHECK_EQ(subscribe(r, "x", "+/b", false), 1); /* overlaps what is denied */
    CHECK_EQ(subscribe(r, "x", "#", false), 1);
    CHECK_EQ(subscribe(r, "x", "b/+", true), 2);
    CHECK_EQ(subscribe(r, "x", "$SYS/#", false), -1);
    pn_rules_free(r);
    pn_rules_free(NULL);
}

TEST(an_identity_is_literal_bytes_or_nothing) {
    pn_rules *r = pn_rules_new(24);
    CHECK_EQ(add(r, true, 3, PN_RETAIN_ANY, "p/{id}/#"), PN_SUCCESS);
    CHECK_EQ(add(r, true, 3, PN_RETAIN_ANY, "{id}"), PN_SUCCESS);
    CHECK_EQ(publish(r, "n", "p/n/x", false, true), 0);
    CHECK_EQ(publish(r, "n", "p/{id}/x", false, false), -1); /* a topic that reads {id} is not the level */
    CHECK_EQ(subscribe(r, "n", "p/{id}/x", false), -1);
    CHECK_EQ(publish(r, "{id}", "p/{id}/x", false, true), 0); /* unless that is the name */
    static const char *const smugglers[] = {"", "+", "#", "a/b", "/", "n+", "#n", "a/", "+/+", "$n", "$SYS", "$share"};
    static const char *const topics[] = {"$n",    "$SYS", "$share", "p/$n/x", "p/n/x", "p//x", "p/+/x", "p/#", "p/a/b", "p/a/b/x",
                                         "p///",  "+",    "#",      "n",   "/"};
    for (int i = 0; i < COUNT(smugglers); i++) {
        for (int j = 0; j < COUNT(topics); j++) {
            CONTEXT("%s at %s", smugglers[i], topics[j]);
            CHECK_EQ(publish(r, smugglers[i], topics[j], false, false), -1);
            CHECK_EQ(subscribe(r, smugglers[i], topics[j], false), -1);
        }
    }
    pn_rules_free(r);

    r = pn_rules_new(25); /* a denial for the identity denies nobody who has no usable one */
    CHECK_EQ(add(r, false, 3, PN_RETAIN_ANY, "p/{id}"), PN_SUCCESS);
    CHECK_EQ(add(r, true, 3, PN_RETAIN_ANY, "#"), PN_SUCCESS);
    CHECK_EQ(subscribe(r, "n", "p/#", false), 0);
    CHECK_EQ(subscribe(r, "", "p/#", true), 1);
    CHECK_EQ(publish(r, "n", "p/n", false, false), 0);
    CHECK_EQ(publish(r, "", "p/n", false, true), 1);
    pn_rules_free(r);
}

TEST(a_rule_for_names_is_for_nobody_else) {
    pn_rules *r = pn_rules_new(29);
    const pn_span some[] = {span("zoe"), span("anna"), span("b"), span("anna-2"), span("")};
    CHECK_EQ(pn_rules_add(r, &(pn_rule){true, 3, PN_RETAIN_ANY, 2, span("a/#"), some, COUNT(some)}), PN_SUCCESS);
    CHECK_EQ(pn_rules_add(r, &(pn_rule){true, 3, PN_RETAIN_ANY, 2, span("a/#"), some, 0}), PN_SUCCESS); /* nobody */
    CHECK_EQ(pn_rules_add(r, &(pn_rule){true, 3, PN_RETAIN_ANY, 2, span("a/x"), some + 1, 1}), PN_SUCCESS);
    static const char *const in[] = {"zoe", "anna", "b", "anna-2", ""}, *const out[] = {"ann", "anna-", "anna-22", "zoe ", "Zoe", "c", "aa", "+"};
    for (int i = 0; i < COUNT(in); i++) {
        CONTEXT("%s", in[i]);
        CHECK_EQ(publish(r, in[i], "a/x", false, true), 0);
        CHECK_EQ(subscribe(r, in[i], "a/+", true), 0);
    }
    for (int i = 0; i < COUNT(out); i++) {
        CONTEXT("%s", out[i]);
        CHECK_EQ(publish(r, out[i], "a/x", false, false), -1);
        CHECK_EQ(subscribe(r, out[i], "a/x", false), -1);
    }
    pn_rules_free(r);
}

TEST(a_rule_may_have_a_highest_qos) {
    pn_rules *r = pn_rules_new(30);
    CHECK_EQ(pn_rules_add(r, &(pn_rule){.allow = true, .actions = 7, .qos_max = 1, .filter = span("a/#")}), PN_SUCCESS);
    CHECK_EQ(pn_rules_add(r, &(pn_rule){.allow = true, .actions = 7, .qos_max = 2, .filter = span("a/b")}), PN_SUCCESS);
    int rule = -2;
    CHECK(pn_rules_may_publish(r, span("n"), span("a/b"), 1, false, &rule) && rule == 0);
    CHECK(pn_rules_may_publish(r, span("n"), span("a/b"), 2, false, &rule) && rule == 1);
    CHECK(!pn_rules_may_publish(r, span("n"), span("a/c"), 2, false, &rule) && rule == -1);
    for (uint8_t asked = 0; asked <= 2; asked++) {
        uint8_t qos = asked;
        CHECK(pn_rules_may_subscribe(r, span("n"), span("a/b"), false, &qos, &rule) && rule == 0);
        CHECK_EQ(qos, asked < 1 ? asked : 1);
    }
    pn_rules_free(r);
}

TEST(shared_subscriptions_have_an_action_of_their_own) {
    pn_rules *r = pn_rules_new(31);
    CHECK_EQ(add(r, false, PN_MAY_SHARE, PN_RETAIN_ANY, "a/secret"), PN_SUCCESS);
    CHECK_EQ(add(r, true, PN_MAY_SUBSCRIBE, PN_RETAIN_ANY, "#"), PN_SUCCESS);
    CHECK_EQ(add(r, true, PN_MAY_SHARE, PN_RETAIN_ANY, "a/#"), PN_SUCCESS);
    int rule = -2;
    CHECK(pn_rules_may_subscribe(r, span("n"), span("a/secret"), false, NULL, &rule) && rule == 1);
    CHECK(!pn_rules_may_subscribe(r, span("n"), span("a/+"), true, NULL, &rule) && rule == 0);
    CHECK(pn_rules_may_subscribe(r, span("n"), span("a/b"), true, NULL, &rule) && rule == 2);
    CHECK(!pn_rules_may_subscribe(r, span("n"), span("b"), true, NULL, &rule) && rule == -1);
    pn_rules_free(r);
}

TEST(rules_that_cannot_be_meant_are_refused) {
    pn_rules *r = pn_rules_new(26);
    static const char *const bad[] = {"", "a/#/b", "a+", "#a", "node-{id}", "{id}x/a", "a/{id}{id}", "a/{{id}}/b"};
    for (int i = 0; i < COUNT(bad); i++) CHECK_EQ(add(r, true, 3, PN_RETAIN_ANY, bad[i]), PN_TOPIC_FILTER_INVALID);
    CHECK_EQ(add(r, true, 3, PN_RETAIN_ANY, "{id/id}/{ID}/{}"), PN_SUCCESS); /* these are text */
    char *fits = deep(PN_TRIE_MAX_LEVELS, '+'), *more = deep(PN_TRIE_MAX_LEVELS + 1, '+');
    CHECK_EQ(add(r, true, 3, PN_RETAIN_ANY, more), PN_TOPIC_FILTER_INVALID);
    CHECK_EQ(publish(r, "x", fits, false, false), -1);
    CHECK_EQ(add(r, true, 3, PN_RETAIN_ANY, fits), PN_SUCCESS);
    CHECK_EQ(publish(r, "x", fits, false, true), 1); /* the refused ones have no number */
    free(fits);
    free(more);
    pn_rules_free(r);
}

/* The lists of rules are walked one by one here, with sets of names in place of covers and overlaps. */
TEST(rules_decide_as_a_list_does) {
    enum { RULES = 12, ROUNDS = 1500 };
    static const char *const of_names[] = {"a", "$", "{id}", "z"};
    static const char *const ids[] = {"a", "$", "{id}", "z", "", "+", "#", "a/a"};
    static const char *const of_rules[] = {"a", "$", "+", "{id}"}, *const of_filters[] = {"a", "$", "+", "{id}", "z"};
    int nn = all_paths(names, MAX_NAMES, 4, of_names, COUNT(of_names), false);
    seed_with(27);
    for (int round = 0; round < ROUNDS; round++) {
        CONTEXT("seed %" PRIu64 ", round %d", chance_seed, round);
        path filter[RULES];
        bool allow[RULES];
        uint8_t actions[RULES], retain[RULES], most[RULES];
        uint32_t named[RULES]; /* a bit for each of `ids`; 0: everybody */
        pn_rules *r = pn_rules_new((uint64_t)round);
        for (int i = 0; i < RULES; i++) {
            path p = {.n = 1 + (int)dice(3)};
            for (int l = 0; l < p.n; l++) p.level[l] = of_rules[dice(COUNT(of_rules))];
            if (dice(4) == 0) p.level[p.n - 1] = "#";
            if (i && dice(4) == 0) p = filter[dice((uint32_t)i)]; /* the same filter more than once */
            filter[i] = p;
            allow[i] = dice(2);
            actions[i] = (uint8_t)dice(8);
            retain[i] = (uint8_t)dice(3);
            most[i] = (uint8_t)dice(3);
            named[i] = dice(3) ? 0 : dice(1u << COUNT(ids));
            pn_span who[COUNT(ids)];
            uint32_t count = 0;
            for (int k = COUNT(ids) - 1; k >= 0; k--) {
                if (named[i] >> k & 1) who[count++] = span(ids[k]);
            }
            char text[256];
            pn_rule rule = {allow[i], actions[i], retain[i], most[i], join(&p, text), count ? who : NULL, count};
            CHECK_EQ(pn_rules_add(r, &rule), PN_SUCCESS);
        }
        uint32_t me = dice(COUNT(ids));
        const char *id = ids[me];
        const char *usable = is(id, "") || is(id, "+") || is(id, "#") || is(id, "a/a") || is(id, "$") ? NULL : id;
        for (int ask = 0; ask < 30; ask++) {
            const path *name = &names[dice((uint32_t)nn)];
            bool retained = dice(2);
            uint8_t qos = (uint8_t)dice(3);
            int want = -1;
            for (int i = 0; i < RULES && want < 0; i++) {
                if (!(actions[i] & PN_MAY_PUBLISH) || qos > most[i] || (named[i] && !(named[i] >> me & 1))) continue;
                if (retain[i] == PN_RETAIN_ONLY && !retained) continue;
                if (retain[i] == PN_RETAIN_NEVER && retained) continue;
                if (model_matches_as(&filter[i], name, true, usable)) want = i;
            }
            char text[256];
            int got = -2;
            CHECK_EQ(pn_rules_may_publish(r, span(id), join(name, text), qos, retained, &got), want >= 0 && allow[want]);
            CHECK_EQ(got, want);
        }
        for (int ask = 0; ask < 2; ask++) {
            path asked = {.n = 1 + (int)dice(3)};
            for (int l = 0; l < asked.n; l++) asked.level[l] = of_filters[dice(COUNT(of_filters))];
            if (dice(4) == 0) asked.level[asked.n - 1] = "#";
            bool shared = dice(2);
            int want = -1;
            for (int i = 0; i < RULES && want < 0; i++) {
                if (!(actions[i] & (shared ? PN_MAY_SHARE : PN_MAY_SUBSCRIBE)) || (named[i] && !(named[i] >> me & 1))) continue;
                bool covers = true, overlaps = false;
                for (int n = 0; n < nn; n++) {
                    if (!model_matches(&asked, &names[n])) continue;
                    bool match = model_matches_as(&filter[i], &names[n], true, usable);
                    covers = covers && match;
                    overlaps = overlaps || match;
                }
                if (allow[i] ? covers : overlaps) want = i;
            }
            char text[256];
            int got = -2;
            uint8_t qos = 2;
            CHECK_EQ(pn_rules_may_subscribe(r, span(id), join(&asked, text), shared, &qos, &got), want >= 0 && allow[want]);
            CHECK_EQ(got, want);
            CHECK_EQ(qos, want >= 0 ? most[want] : 2);
        }
        pn_rules_free(r);
    }
}

TEST(without_memory_no_rule_is_added_in_part) {
    static const char *const filter[] = {"a/{id}/b", "a/{id}/b", LONG_LEVEL "/+", "c/#", "a/b/c", "a/d/e", "f", "g/h",
                                         "i/j/k", "l/m/n", "o/p", "q/r/s", "t", "u/v", "w/x", "y", "z", "aa", "bb"};
    for (long n = 0;; n++) {
        CONTEXT("allocation %ld", n);
        failmem_after(n);
        pn_rules *r = pn_rules_new(28);
        int number[COUNT(filter)], count = 0;
        for (int i = 0; r && i < COUNT(filter); i++) {
            int rc = add(r, true, 3, PN_RETAIN_ANY, filter[i]);
            CHECK(rc == PN_SUCCESS || (rc == PN_QUOTA_EXCEEDED && failmem_failed()));
            number[i] = rc == PN_SUCCESS ? count++ : -1;
        }
        if (r) {
            CHECK(failmem_failed() ? count == COUNT(filter) - 1 : count == COUNT(filter));
            for (int i = 2; i < COUNT(filter); i++) {
                CHECK_EQ(subscribe(r, "x", filter[i], number[i] >= 0), number[i]);
                if (!pn_topic_has_wildcard(span(filter[i]))) {
                    CHECK_EQ(publish(r, "x", filter[i], false, number[i] >= 0), number[i]);
                }
            }
            CHECK_EQ(publish(r, "x", "a/x/b", false, true), 0);
        }
        pn_rules_free(r);
        CHECK_EQ(failmem_live(), 0);
        if (!failmem_failed()) {
            CHECK(n > COUNT(filter));
            break;
        }
    }
    failmem_never();
}

TEST_MAIN(CASE(the_standards_examples_match), CASE(invalid_names_and_filters_are_told),
          CASE(limits_of_length_and_levels_hold_at_the_edge), CASE(shared_filters_and_wildcards_are_recognised),
          CASE(covers_and_overlaps_of_the_corner_cases), CASE(covers_and_overlaps_agree_with_the_sets_of_names),
          CASE(an_empty_trie_holds_nothing), CASE(a_slot_stays_until_a_key_is_added_or_it_is_removed),
          CASE(levels_are_not_glued_together), CASE(levels_of_every_length_are_told_apart), CASE(a_walk_may_be_left_and_taken_up_again),
          CASE(filters_come_and_go_as_in_a_list), CASE(names_come_and_go_as_in_a_list),
          CASE(a_walk_ends_when_it_is_told_to),
          CASE(a_filter_with_a_misplaced_wildcard_finds_nothing_and_harms_nothing), CASE(no_walk_allocates),
          CASE(memory_is_used_again), CASE(without_memory_a_put_leaves_the_trie_as_it_was),
          CASE(no_function_reads_past_its_input), CASE(the_depth_of_keys_has_a_limit_and_that_of_names_has_none),
          CASE(the_length_of_keys_has_a_limit), CASE(each_of_two_to_the_twelfth_paths_is_walked_once),
          CASE(a_hundred_thousand_siblings_cost_what_they_should), CASE(keys_whose_hashes_are_equal_are_told_apart),
          CASE(long_topics_cost_what_they_should),
          CASE(a_thousand_levels_cost_what_they_should), CASE(a_node_reads_its_commands_and_writes_its_reports_only),
          CASE(the_first_rule_that_applies_decides), CASE(an_identity_is_literal_bytes_or_nothing),
          CASE(a_rule_for_names_is_for_nobody_else), CASE(a_rule_may_have_a_highest_qos),
          CASE(shared_subscriptions_have_an_action_of_their_own),
          CASE(rules_that_cannot_be_meant_are_refused), CASE(rules_decide_as_a_list_does),
          CASE(without_memory_no_rule_is_added_in_part))
