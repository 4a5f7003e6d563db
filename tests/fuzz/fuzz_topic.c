/* fuzz_topic.c: libFuzzer target: two tries (of filters, of names) and a list of rules against plain arrays.
 *
 * The rule it keeps: the input is a stream of steps, each an operation byte, a length byte and so many bytes of topic;
 * after every step the tries must say what the arrays say, with pn_topic_matches as the definition. What covers and
 * overlaps say must hold for every filter and name that the stream has brought. Any difference is a crash.
 */
#include <stdio.h>
#include <stdlib.h>

#include "topic.h"

enum { KEYS = 48, RULES = 24, TEXT = 96, OPS = 6 };

typedef struct key {
    uint8_t text[TEXT];
    uint32_t n;
    bool used;
    int hits;
} key;

typedef struct list {
    pn_trie *trie;
    key keys[KEYS];
} list;

typedef struct law {
    key filter;
    bool allow;
    uint8_t actions, retain, qos_max;
    uint8_t who; /* 0: everybody; 1: the name "n" only; 2: nobody */
} law;

#define MUST(expr)                                                                    \
    do {                                                                              \
        if (!(expr)) {                                                                \
            (void)fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #expr); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

static pn_span topic_of(const key *k) { return pn_span_of(k->text, k->n); }

static bool hit(void *ctx, void *value) {
    (void)ctx;
    ((key *)value)->hits++;
    return true;
}

static key *find(list *l, pn_span topic) {
    for (int i = 0; i < KEYS; i++) {
        if (l->keys[i].used && pn_span_eq(topic_of(&l->keys[i]), topic)) return &l->keys[i];
    }
    return NULL;
}

static void put(list *l, pn_span topic) {
    key *k = find(l, topic);
    for (int i = 0; !k && i < KEYS; i++) {
        if (!l->keys[i].used) k = &l->keys[i];
    }
    if (!k) return; /* the list is full */
    void **slot = pn_trie_put(l->trie, topic);
    MUST(slot && *slot == (k->used ? k : NULL));
    *slot = k;
    k->used = true;
    k->n = topic.n;
    if (topic.n) memcpy(k->text, topic.p, topic.n);
}

static void drop(list *l, pn_span topic) {
    key *k = find(l, topic);
    pn_trie_remove(l->trie, topic);
    if (k) k->used = false;
    MUST(pn_trie_get(l->trie, topic) == NULL);
}

/* A topic out of `n` bytes of the input: as they are, or each standing for a word, so that most streams are about the
 * same few levels. */
static uint32_t read_topic(uint8_t out[TEXT], const uint8_t *in, uint32_t n, bool raw) {
    static const char *const words[] = {"a", "b", "/", "+", "#", "$", "/", "{id}", "/+/", "/#", "a", "/"};
    uint32_t length = 0;
    for (uint32_t i = 0; i < n; i++) {
        const char *word = words[in[i] % (sizeof words / sizeof *words)];
        size_t more = raw ? 1 : strlen(word);
        if (length + more > TEXT) break;
        memcpy(out + length, raw ? (const void *)(in + i) : word, more);
        length += (uint32_t)more;
    }
    return length;
}

/* Each key was visited exactly as often as it should be; forgets the visits. */
static void check(list *l, pn_span topic, bool keys_are_filters, bool all) {
    size_t count = 0;
    for (int i = 0; i < KEYS; i++) {
        key *k = &l->keys[i];
        bool want = k->used;
        if (want && !all && keys_are_filters) want = pn_topic_matches(topic_of(k), topic);
        if (want && !all && !keys_are_filters) want = pn_topic_matches(topic, topic_of(k));
        MUST(k->hits == want);
        k->hits = 0;
        count += k->used;
        void **slot = k->used ? pn_trie_get(l->trie, topic_of(k)) : NULL;
        MUST(!k->used || (slot && *slot == k));
    }
    MUST(pn_trie_count(l->trie) == count);
}

/* The filter with `{id}` spelled out. */
static pn_span spell(const key *filter, pn_span id, uint8_t out[TEXT * 64]) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < filter->n;) {
        uint32_t end = i;
        while (end < filter->n && filter->text[end] != '/') end++;
        bool is_id = end - i == 4 && memcmp(filter->text + i, "{id}", 4) == 0;
        pn_span level = is_id ? id : pn_span_of(filter->text + i, end - i);
        if (level.n) memcpy(out + n, level.p, level.n);
        n += level.n;
        if (end < filter->n) out[n++] = '/';
        i = end + 1;
    }
    return pn_span_of(out, n);
}

static void check_rules(const pn_rules *r, const law *laws, int count, pn_span id, pn_span topic, bool retain, uint8_t qos,
                        bool shared) {
    static uint8_t text[TEXT * 64];
    bool usable = id.n > 0 && id.p[0] != '$' && !pn_topic_has_wildcard(id) && !memchr(id.p, '/', id.n);
    bool name = pn_topic_name_valid(topic, TEXT, TEXT);
    int publish = -1, subscribe = -1, got = -2;
    for (int i = count - 1; i >= 0; i--) {
        if (laws[i].who == 2 || (laws[i].who == 1 && !pn_span_eq(id, pn_span_of("n", 1)))) continue;
        if (!usable && pn_span_eq(spell(&laws[i].filter, pn_span_of("{id}", 4), text), topic_of(&laws[i].filter)) &&
            !pn_span_eq(spell(&laws[i].filter, pn_span_of("x", 1), text), topic_of(&laws[i].filter))) {
            continue; /* has a level {id}, and nothing to stand for it */
        }
        pn_span filter = spell(&laws[i].filter, id, text);
        bool fits = laws[i].retain == PN_RETAIN_ANY || (laws[i].retain == PN_RETAIN_ONLY) == retain;
        if ((laws[i].actions & PN_MAY_PUBLISH) && fits && qos <= laws[i].qos_max && pn_topic_matches(filter, topic)) publish = i;
        if ((laws[i].actions & (shared ? PN_MAY_SHARE : PN_MAY_SUBSCRIBE)) &&
            (laws[i].allow ? pn_topic_covers(filter, topic) : pn_topic_overlaps(filter, topic))) {
            subscribe = i;
        }
    }
    if (name) {
        MUST(pn_rules_may_publish(r, id, topic, qos, retain, &got) == (publish >= 0 && laws[publish].allow));
        MUST(got == publish);
    }
    uint8_t granted = qos;
    MUST(pn_rules_may_subscribe(r, id, topic, shared, &granted, &got) == (subscribe >= 0 && laws[subscribe].allow));
    MUST(got == subscribe);
    MUST(granted == (subscribe >= 0 && qos > laws[subscribe].qos_max ? laws[subscribe].qos_max : qos));
}

/* What covers and overlaps claim about two filters holds for the names at hand. */
static void check_sets(const list *filters, const list *names, pn_span a) {
    for (int i = 0; i < KEYS; i++) {
        if (!filters->keys[i].used) continue;
        pn_span b = topic_of(&filters->keys[i]);
        bool covers = pn_topic_covers(a, b), overlaps = pn_topic_overlaps(a, b);
        MUST(!covers || overlaps);
        MUST(overlaps == pn_topic_overlaps(b, a));
        for (int n = 0; n < KEYS; n++) {
            if (!names->keys[n].used) continue;
            bool in_a = pn_topic_matches(a, topic_of(&names->keys[n]));
            bool in_b = pn_topic_matches(b, topic_of(&names->keys[n]));
            MUST(!covers || !in_b || in_a);
            MUST(overlaps || !in_a || !in_b);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static list filters, names;
    static law laws[RULES];
    memset(&filters, 0, sizeof filters);
    memset(&names, 0, sizeof names);
    uint64_t seed = size;
    filters.trie = pn_trie_new(seed);
    names.trie = pn_trie_new(seed + 1);
    pn_rules *rules = pn_rules_new(seed + 2);
    MUST(filters.trie && names.trie && rules);
    int count = 0;
    uint8_t id[TEXT] = {'n'};
    uint32_t id_n = 1;

    for (size_t at = 0; at + 2 <= size;) {
        uint8_t op = data[at];
        size_t bytes = data[at + 1] % TEXT;
        at += 2;
        if (bytes > size - at) bytes = size - at;
        uint8_t text[TEXT];
        uint32_t n = read_topic(text, data + at, (uint32_t)bytes, op & 0x80);
        at += bytes;
        pn_span topic = pn_span_of(text, n);
        bool name = pn_topic_name_valid(topic, TEXT, TEXT), filter = pn_topic_filter_valid(topic, TEXT, TEXT);
        MUST(!name || filter);
        MUST(!name || !pn_topic_has_wildcard(topic));
        MUST(name || !filter || pn_topic_has_wildcard(topic));
        if (!filter) {
            MUST(pn_rules_add(rules, &(pn_rule){.allow = true, .actions = 7, .filter = topic}) == PN_TOPIC_FILTER_INVALID);
            memcpy(id, text, n); /* any bytes may be a name that somebody tries */
            id_n = n;
            continue;
        }
        switch ((op & 0x7F) % OPS) {
        case 0:
            put(&filters, topic);
            check_sets(&filters, &names, topic);
            break;
        case 1:
            if (name) put(&names, topic);
            break;
        case 2:
            drop(&filters, topic);
            drop(&names, topic);
            break;
        case 3:
            if (name) {
                memcpy(id, text, n);
                id_n = n;
            }
            break;
        case 4: {
            if (count == RULES) break;
            law *l = &laws[count];
            *l = (law){.allow = op & 8, .actions = op >> 4 & 7, .retain = (uint8_t)(n % 3), .qos_max = (uint8_t)(n / 3 % 3), .who = (uint8_t)(n / 9 % 3)};
            memcpy(l->filter.text, text, n);
            l->filter.n = n;
            const pn_span name_n = pn_span_of("n", 1);
            int code = pn_rules_add(rules, &(pn_rule){l->allow, l->actions, l->retain, l->qos_max, topic, l->who ? &name_n : NULL,
                                                      l->who == 1 ? 1 : 0});
            MUST(code == PN_SUCCESS || code == PN_TOPIC_FILTER_INVALID);
            count += code == PN_SUCCESS;
            break;
        }
        default:
            MUST(pn_trie_each(filters.trie, hit, NULL));
            check(&filters, topic, true, true);
            MUST(pn_trie_each(names.trie, hit, NULL));
            check(&names, topic, false, true);
        }
        if (name) {
            MUST(pn_trie_match(filters.trie, topic, hit, NULL));
            check(&filters, topic, true, false);
        }
        MUST(pn_trie_search(names.trie, topic, hit, NULL));
        check(&names, topic, false, false);
        check_rules(rules, laws, count, pn_span_of(id, id_n), topic, op & 8, (uint8_t)(bytes % 3), op & 16);
    }
    pn_trie_free(filters.trie);
    pn_trie_free(names.trie);
    pn_rules_free(rules);
    return 0;
}
