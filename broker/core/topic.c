/* topic.c: the work of topic.h.
 *
 * How a trie is built. Nodes are 64 bytes and live in one growing array; an index, not a pointer, names them, so the
 * array may move. Node 0 is the root, and as nothing points down to it, index 0 also means "none". A node knows its
 * `+` and its `#` child directly. Its literal children hang in a list (for search and each) and are found through one
 * hash table for the whole trie, keyed by (parent, level): open addressing, linear probing, backward-shift deletion,
 * so there are no tombstones and removal leaves no trace. An only child is found without it: there is nothing to choose,
 * and so nothing to hash. The invariant: every node but the root is a key or has a child. The arrays keep the size of the largest content the trie has had; the owners' limits bound that.
 *
 * Why crafted levels cannot slow the table down. A level is hashed with SipHash-1-3, a pseudo-random function under a
 * key that peers do not have and whose outputs they never see: different levels land independently of each other.
 * Equal levels under different parents differ by parent times a secret odd number, which is universal hashing: two of
 * them collide no more often than chance has it. Split like this, a level of a topic is hashed once, not once for every
 * node that the walk stands on.
 *
 * Depth. Nothing here recurses. A key has at most PN_TRIE_MAX_LEVELS levels, so the walks keep what is pending in
 * arrays of a fixed size and allocate nothing. A name may have more levels: no key is that deep, so the walk ends by
 * itself. A walk stands on a node at most once.
 */
#include "topic.h"

#include <stdlib.h>

#include "hash.h"
#include "mem.h"

/* ---- Levels ---------------------------------------------------------------------------------------------------- */

enum kind { LITERAL, PLUS, MANY }; /* a level's text, `+`, `#` */

/* What is left of a topic. `more` tells "a/" (an empty level follows) from "a" (none does). */
typedef struct levels {
    const uint8_t *p;
    uint32_t n;
    bool more;
} levels;

static inline levels levels_of(pn_span topic) { return (levels){topic.p, topic.n, true}; }

/* The next level; only while `more`. */
static inline pn_span next_level(levels *l) {
    const uint8_t *slash = l->n ? memchr(l->p, '/', l->n) : NULL;
    pn_span level = {l->p, slash ? (uint32_t)(slash - l->p) : l->n};
    l->more = slash != NULL;
    if (slash) {
        l->p = slash + 1;
        l->n -= level.n + 1;
    }
    return level;
}

static inline enum kind kind_of(pn_span level) {
    if (level.n != 1) return LITERAL;
    return level.p[0] == '+' ? PLUS : level.p[0] == '#' ? MANY : LITERAL;
}

static inline bool is_dollar(pn_span topic) { return topic.n > 0 && topic.p[0] == '$'; }

static const uint8_t ID_TEXT[] = {'{', 'i', 'd', '}'};
static const pn_span ID_LEVEL = {ID_TEXT, sizeof ID_TEXT};

/* ---- Names and filters by themselves --------------------------------------------------------------------------- */

/* Both kinds in one pass. The four bytes that matter are all below '0', which few bytes of a topic are. */
static bool topic_valid(pn_span topic, uint32_t max_length, uint32_t max_levels, bool wildcards) {
    if (topic.n == 0 || topic.n > max_length) return false;
    uint32_t count = 1;
    for (uint32_t i = 0; i < topic.n; i++) {
        uint8_t c = topic.p[i];
        if (c > '/') continue;
        if (c == '/') {
            count++;
        } else if (c == '+' || c == '#') {
            if (!wildcards || (i > 0 && topic.p[i - 1] != '/')) return false;
            if (i + 1 < topic.n && (c == '#' || topic.p[i + 1] != '/')) return false;
        } else if (c == 0) {
            return false;
        }
    }
    return count <= max_levels;
}

bool pn_topic_name_valid(pn_span name, uint32_t max_length, uint32_t max_levels) {
    return topic_valid(name, max_length, max_levels, false);
}

bool pn_topic_filter_valid(pn_span filter, uint32_t max_length, uint32_t max_levels) {
    return topic_valid(filter, max_length, max_levels, true);
}

bool pn_topic_has_wildcard(pn_span filter) {
    return filter.n > 0 && (memchr(filter.p, '+', filter.n) || memchr(filter.p, '#', filter.n));
}

bool pn_topic_is_shared(pn_span filter) {
    static const char prefix[] = "$share/";
    return filter.n >= sizeof prefix - 1 && memcmp(filter.p, prefix, sizeof prefix - 1) == 0;
}

bool pn_topic_matches(pn_span filter, pn_span name) {
    levels f = levels_of(filter), n = levels_of(name);
    for (bool first = true;; first = false) {
        if (!f.more) return !n.more;
        pn_span want = next_level(&f);
        enum kind kind = kind_of(want);
        if (kind != LITERAL && first && is_dollar(name)) return false;
        if (kind == MANY) return !f.more; /* "a/#" matches "a" as well; a `#` that is not last matches nothing */
        if (!n.more) return false;
        pn_span have = next_level(&n);
        if (kind == LITERAL && !pn_span_eq(want, have)) return false;
    }
}

/* A level of a filter, or of a rule: where `id` is given, `{id}` stands for it, as literal bytes. */
static inline enum kind next_of_rule(levels *l, const pn_span *id, pn_span *level) {
    *level = next_level(l);
    if (id && pn_span_eq(*level, ID_LEVEL)) {
        *level = *id;
        return LITERAL;
    }
    return kind_of(*level);
}

static bool covers(pn_span outer, const pn_span *id, pn_span inner) {
    levels o = levels_of(outer), i = levels_of(inner);
    for (bool first = true;; first = false) {
        if (!o.more) return !i.more;
        pn_span a, b;
        enum kind ka = next_of_rule(&o, id, &a);
        if (!i.more) return ka == MANY; /* "a/#" covers "a" */
        enum kind kb = next_of_rule(&i, NULL, &b);
        if (ka != LITERAL && first && kb == LITERAL && is_dollar(b)) return false;
        if (ka == MANY) return true;
        if (kb == MANY) {
            /* "a/+/#" lacks the "a" of "a/#". But the parent of "#" and of "/#" would be the empty name, which is none:
             * "+/#" says the same as "#", and "/+/#" the same as "/#". */
            return inner.n <= 2 && ka == PLUS && o.more && o.n == 1 && o.p[0] == '#';
        }
        if (ka == LITERAL && (kb == PLUS || !pn_span_eq(a, b))) return false;
    }
}

static bool overlaps(pn_span rule, const pn_span *id, pn_span filter) {
    levels x = levels_of(rule), y = levels_of(filter);
    for (bool first = true;; first = false) {
        if (!x.more && !y.more) return true;
        pn_span a = {NULL, 0}, b = {NULL, 0};
        enum kind ka = LITERAL, kb = LITERAL;
        bool has_a = x.more, has_b = y.more;
        if (has_a) ka = next_of_rule(&x, id, &a);
        if (has_b) kb = next_of_rule(&y, NULL, &b);
        if (first && ka != kb && ((ka == LITERAL && is_dollar(a)) || (kb == LITERAL && is_dollar(b)))) return false;
        if (has_a && has_b && (ka == MANY || kb == MANY)) return true;
        if (!has_a) return kb == MANY && filter.n > 2; /* "a" and "a/#"; but not "+" and "/#", as in covers() */
        if (!has_b) return ka == MANY && rule.n > 2;
        if (ka == LITERAL && kb == LITERAL && !pn_span_eq(a, b)) return false;
    }
}

bool pn_topic_covers(pn_span outer, pn_span inner) { return covers(outer, NULL, inner); }

bool pn_topic_overlaps(pn_span a, pn_span b) { return overlaps(a, NULL, b); }

/* ---- The trie -------------------------------------------------------------------------------------------------- */

/* What a walk does next with the node it stands on: look at it, go down from it, or on to its sibling or parent. */
enum phase { WALK_HERE, WALK_DOWN, WALK_UP };

enum { LINE = 64, NEAR = 24, FIRST_NODES = 16, FIRST_BITS = 4, MAX_BITS = 31 };

typedef struct node {
    void *value;            /* the owner's */
    uint32_t parent;
    uint32_t first;         /* literal children */
    uint32_t next, prev;    /* literal siblings; a free node's `next` is the next free one */
    uint32_t plus, many;    /* the children `+` and `#` */
    uint32_t hash;          /* of (parent, level): where the table has it; literal nodes only */
    uint16_t length;        /* of the level */
    bool key : 1;           /* put and not removed */
    bool watched : 1;       /* a walk that was left may stand here */
    bool only : 1;          /* has one literal child */
    union {
        uint8_t near[NEAR];
        uint8_t *far; /* owned; a level longer than NEAR */
    } level;
} node;

/* An index has 32 bits and an array's bytes fit size_t. No limit of the core lets a peer come near it. */
#define MAX_NODES (SIZE_MAX / sizeof(node) > 0x80000000u ? 0x80000000u : 0x2000000u)

_Static_assert(sizeof(node) <= LINE, "a node is no more than a cache line");
_Static_assert(PN_STRING_MAX <= UINT16_MAX, "a level's length fits its field");
_Static_assert(PN_MAX_TOPIC_LEVELS <= PN_TRIE_MAX_LEVELS, "the default limit fits the trie");

typedef struct slot {
    uint32_t hash;
    uint32_t node; /* 0 is an empty slot */
} slot;

struct pn_trie {
    node *nodes; /* owned; `used` of `cap` have been in use, those on the free list are not now */
    uint32_t used, cap, free;
    slot *slots; /* owned; 2^bits of them, `filled` not empty, at most two thirds */
    uint32_t filled, bits;
    uint64_t seed, by_parent, by_sum; /* secrets; the last two are odd */
    size_t count;
    uint64_t visited;    /* nodes, by all matches */
    pn_trie_walk *walks; /* that have begun */
};

/* A level and, once somebody needs it, the half of its hash that does not depend on the parent; 0 before. */
typedef struct hashed {
    pn_span text;
    uint64_t hash;
} hashed;

static inline uint32_t hash_under(const pn_trie *t, uint32_t parent, hashed *level) {
    if (!level->hash) level->hash = pn_hash(level->text.p, level->text.n, t->seed);
    uint64_t x = level->hash + parent * t->by_parent;
    return (uint32_t)(((x ^ x >> 32) * t->by_sum) >> 32);
}

static inline uint64_t load8(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static inline const uint8_t *level_bytes(const node *n) { return n->length > NEAR ? n->level.far : n->level.near; }

/* Whether that is the node's level. Of a short one no byte behind it is looked at, as memcmp may: that would be another cache line. */
static inline bool reads(const node *n, pn_span text) {
    if (n->length != text.n) return false;
    if (text.n > NEAR) return memcmp(n->level.far, text.p, text.n) == 0;
    const uint8_t *a = n->level.near, *b = text.p;
    if (text.n >= 8) {
        uint32_t last = text.n - 8;
        for (uint32_t i = 0; i < last; i += 8) {
            if (load8(a + i) != load8(b + i)) return false;
        }
        return load8(a + last) == load8(b + last);
    }
    for (uint32_t i = 0; i < text.n; i++) {
        if (a[i] != b[i]) return false;
    }
    return true;
}

/* The literal child of `parent`, 0 when there is none. */
static inline uint32_t child(const pn_trie *t, uint32_t parent, hashed *level) {
    const node *p = &t->nodes[parent];
    if (!p->first) return 0;
    if (p->only) return reads(&t->nodes[p->first], level->text) ? p->first : 0;
    uint32_t hash = hash_under(t, parent, level), mask = (1u << t->bits) - 1;
    for (uint32_t i = hash >> (32 - t->bits); t->slots[i].node; i = (i + 1) & mask) {
        if (t->slots[i].hash != hash) continue;
        const node *n = &t->nodes[t->slots[i].node];
        if (n->parent == parent && reads(n, level->text)) return t->slots[i].node;
    }
    return 0;
}

static void slot_fill(slot *slots, uint32_t bits, slot s) {
    uint32_t mask = (1u << bits) - 1, i = s.hash >> (32 - bits);
    while (slots[i].node) i = (i + 1) & mask;
    slots[i] = s;
}

static void slot_empty(pn_trie *t, uint32_t index) {
    uint32_t mask = (1u << t->bits) - 1, hole = t->nodes[index].hash >> (32 - t->bits);
    while (t->slots[hole].node != index) hole = (hole + 1) & mask;
    for (uint32_t i = (hole + 1) & mask; t->slots[i].node; i = (i + 1) & mask) {
        uint32_t home = t->slots[i].hash >> (32 - t->bits);
        if (((i - home) & mask) < ((i - hole) & mask)) continue; /* its home is past the hole */
        t->slots[hole] = t->slots[i];
        hole = i;
    }
    t->slots[hole] = (slot){0, 0};
    t->filled--;
}

static slot *slots_new(uint32_t bits) {
    size_t size = sizeof(slot) << bits;
    slot *slots = pn_table_new(size);
    return slots ? memset(slots, 0, size) : NULL;
}

/* Room in the table for one more. Slots lie in the order of their hashes: this reads and writes from front to back. */
static bool slots_grow(pn_trie *t) {
    if ((t->filled + 1) * 3ull <= 2ull << t->bits) return true;
    if (t->bits == MAX_BITS) return false;
    uint32_t bits = t->bits + 1;
    slot *slots = slots_new(bits);
    if (!slots) return false;
    for (size_t i = 0; i < (size_t)1 << t->bits; i++) {
        if (t->slots[i].node) slot_fill(slots, bits, t->slots[i]);
    }
    pn_free(t->slots);
    t->slots = slots;
    t->bits = bits;
    return true;
}

/* An array of `cap` nodes, no fewer than there are. Each on a cache line of its own: a walk over a trie that fits no
 * cache waits for memory and for little else. */
static bool nodes_resize(pn_trie *t, uint32_t cap) {
    node *nodes = pn_table_new(sizeof(node) * cap);
    if (!nodes) return false;
    if (t->used) memcpy(nodes, t->nodes, sizeof(node) * t->used);
    pn_free(t->nodes);
    t->nodes = nodes;
    t->cap = cap;
    return true;
}

/* Room in the array for one more. */
static bool nodes_grow(pn_trie *t) {
    if (t->free || t->used < t->cap) return true;
    return t->cap < MAX_NODES && nodes_resize(t, 2 * t->cap);
}

/* A new node that carries nothing yet; 0 without memory, and then nothing has changed. */
static uint32_t add_node(pn_trie *t, uint32_t parent, enum kind kind, hashed *level) {
    uint8_t *far = NULL;
    if (!nodes_grow(t) || (kind == LITERAL && !slots_grow(t))) return 0;
    if (level->text.n > NEAR && !(far = pn_malloc(level->text.n))) return 0;

    uint32_t index = t->free ? t->free : t->used++;
    node *n = &t->nodes[index], *p = &t->nodes[parent];
    if (index == t->free) t->free = n->next;
    *n = (node){.parent = parent, .length = (uint16_t)level->text.n};
    if (far) n->level.far = far;
    if (level->text.n) memcpy(far ? far : n->level.near, level->text.p, level->text.n);

    if (kind == PLUS) {
        p->plus = index;
    } else if (kind == MANY) {
        p->many = index;
    } else {
        n->next = p->first;
        if (p->first) t->nodes[p->first].prev = index;
        p->first = index;
        p->only = !n->next;
        n->hash = hash_under(t, parent, level);
        slot_fill(t->slots, t->bits, (slot){n->hash, index});
        t->filled++;
    }
    return index;
}

/* A node that nothing hangs on any more goes: the walks that stand there step back to its sibling, whose subtree they have done, or to
 * its parent, whose children they then begin with again: it was the first of them. */
static void move_walks(pn_trie *t, uint32_t index) {
    const node *n = &t->nodes[index];
    for (pn_trie_walk *w = t->walks; w; w = w->next) {
        if (w->at != index) continue;
        w->at = n->prev ? n->prev : n->parent;
        w->depth -= !n->prev;
        w->phase = n->prev ? WALK_UP : WALK_DOWN;
        t->nodes[w->at].watched = true;
    }
}

static void drop_node(pn_trie *t, uint32_t index) {
    node *n = &t->nodes[index], *p = &t->nodes[n->parent];
    if (n->watched) move_walks(t, index);
    if (p->plus == index) {
        p->plus = 0;
    } else if (p->many == index) {
        p->many = 0;
    } else {
        slot_empty(t, index);
        if (n->next) t->nodes[n->next].prev = n->prev;
        *(n->prev ? &t->nodes[n->prev].next : &p->first) = n->next;
        p->only = p->first && !t->nodes[p->first].next;
    }
    if (n->length > NEAR) pn_free(n->level.far);
    *n = (node){.next = t->free};
    t->free = index;
}

/* Restores the invariant from `index` upwards. */
static void prune(pn_trie *t, uint32_t index) {
    while (index) {
        const node *n = &t->nodes[index];
        if (n->key || n->first || n->plus || n->many) return;
        uint32_t parent = n->parent;
        drop_node(t, index);
        index = parent;
    }
}

/* In the tries of rules the level `{id}` is kept as this one, which no level of a topic can be. */
static const pn_span MARKER = {(const uint8_t *)"/", 1};

/* One step down from `at`, as keys go: wildcards are levels like others. */
static uint32_t step(const pn_trie *t, uint32_t at, enum kind kind, hashed *level) {
    if (kind == PLUS) return t->nodes[at].plus;
    if (kind == MANY) return t->nodes[at].many;
    return child(t, at, level);
}

/* The node of `key`; 0 when there is none. Where `make` is not NULL it is `t` again, and missing nodes are made; then
 * 0 means no memory or too deep, and the trie is as it was. */
static uint32_t find(const pn_trie *t, pn_trie *make, pn_span key, bool rule) {
    if (key.n > PN_STRING_MAX) return 0;
    levels l = levels_of(key);
    uint32_t at = 0, depth = 0;
    do {
        pn_span text = next_level(&l);
        if (rule && pn_span_eq(text, ID_LEVEL)) text = MARKER;
        enum kind kind = kind_of(text);
        hashed level = {text, 0};
        uint32_t down = step(t, at, kind, &level);
        if (!down && make && depth < PN_TRIE_MAX_LEVELS) down = add_node(make, at, kind, &level);
        if (!down) {
            if (make) prune(make, at);
            return 0;
        }
        at = down;
        depth++;
    } while (l.more);
    return at;
}

pn_trie *pn_trie_new(uint64_t seed) {
    pn_trie *t = pn_calloc(1, sizeof *t);
    if (!t) return NULL;
    t->slots = slots_new(FIRST_BITS);
    if (!t->slots || !nodes_resize(t, FIRST_NODES)) {
        pn_free(t->slots);
        pn_free(t);
        return NULL;
    }
    t->nodes[0] = (node){0}; /* the root */
    t->used = 1;
    t->bits = FIRST_BITS;
    t->seed = seed;
    t->by_parent = pn_hash("parent", 6, seed) | 1;
    t->by_sum = pn_hash("sum", 3, seed) | 1;
    return t;
}

void pn_trie_free(pn_trie *t) {
    if (!t) return;
    for (uint32_t i = 1; i < t->used; i++) { /* a free node has length 0 */
        if (t->nodes[i].length > NEAR) pn_free(t->nodes[i].level.far);
    }
    pn_free(t->nodes);
    pn_free(t->slots);
    pn_free(t);
}

static void **put(pn_trie *t, pn_span key, bool rule) {
    uint32_t at = find(t, t, key, rule);
    if (!at) return NULL;
    node *n = &t->nodes[at];
    if (!n->key) {
        n->key = true;
        t->count++;
    }
    return &n->value;
}

void **pn_trie_put(pn_trie *t, pn_span key) { return put(t, key, false); }

void **pn_trie_get(pn_trie *t, pn_span key) {
    node *n = &t->nodes[find(t, NULL, key, false)];
    return n->key ? &n->value : NULL; /* the root is no key */
}

void pn_trie_remove(pn_trie *t, pn_span key) {
    uint32_t at = find(t, NULL, key, false);
    node *n = &t->nodes[at];
    if (!n->key) return;
    n->key = false;
    n->value = NULL;
    t->count--;
    prune(t, at);
}

size_t pn_trie_count(const pn_trie *t) { return t->count; }

uint64_t pn_trie_visited(const pn_trie *t) { return t->visited; }

size_t pn_trie_appetite(const pn_trie *t) {
    enum { SPARE = 64 }; /* nodes of the key to come; a few more make it round */
    size_t nodes = t->used + SPARE > t->cap ? 2 * t->cap * sizeof(node) : 0; /* the old ones are there meanwhile */
    bool full = (t->filled + SPARE) * 3ull > 2ull << t->bits;
    return nodes + (full ? sizeof(slot) << (t->bits + 1) : 0);
}

/* ---- Walks ----------------------------------------------------------------------------------------------------- */

static inline bool visit(const pn_trie *t, uint32_t index, pn_trie_fn each, void *ctx) {
    void *value = t->nodes[index].value;
    return !value || each(ctx, value);
}

/* Every filter that matches `name`; with `id`, also through `{id}` where the level is `id`. */
static inline bool match(const pn_trie *t, pn_span name, const pn_span *id, uint64_t *visited, pn_trie_fn each, void *ctx) {
    struct {
        uint32_t node, depth; /* a node, and how many levels of the name lead to it */
    } todo[2 * PN_TRIE_MAX_LEVELS + 1]; /* a node leaves at most two more behind than the one that is taken up next */
    hashed level[PN_TRIE_MAX_LEVELS];   /* the first `known` levels of the name */
    uint32_t todos = 0, known = 0;
    levels rest = levels_of(name);
    hashed marker = {MARKER, 0};

    todo[todos].node = 0;
    todo[todos++].depth = 0;
    while (todos) {
        ++*visited;
        uint32_t at = todo[--todos].node, depth = todo[todos].depth;
        const node *n = &t->nodes[at];
        bool wild = at || !is_dollar(name); /* MQTT-4.7.2-1 */
        if (n->plus) __builtin_prefetch(&t->nodes[n->plus]); /* a large trie fits no cache: what is looked at soon is on its way meanwhile */
        if (n->many && wild && !visit(t, n->many, each, ctx)) return false;
        if (depth == known) {
            if (!rest.more) { /* the name ends here */
                if (!visit(t, at, each, ctx)) return false;
                continue;
            }
            if (!n->first && !n->plus) continue; /* also: nothing is as deep as PN_TRIE_MAX_LEVELS and has children */
            level[known++] = (hashed){next_level(&rest), 0};
        }
        uint32_t down[3] = {wild ? n->plus : 0, 0, 0};
        if (n->first) {
            if (id && pn_span_eq(level[depth].text, *id)) down[1] = child(t, at, &marker);
            down[2] = child(t, at, &level[depth]);
        }
        for (int i = 0; i < 3; i++) {
            if (!down[i]) continue;
            todo[todos].node = down[i];
            todo[todos++].depth = depth + 1;
        }
    }
    return true;
}

bool pn_trie_match(pn_trie *t, pn_span name, pn_trie_fn each, void *ctx) {
    return match(t, name, NULL, &t->visited, each, ctx);
}

/* Everything, parents first: literals, then `+`, then `#`. */
bool pn_trie_each(const pn_trie *t, pn_trie_fn each, void *ctx) {
    for (uint32_t at = 0;;) {
        if (!visit(t, at, each, ctx)) return false;
        const node *n = &t->nodes[at];
        uint32_t next = n->first ? n->first : n->plus ? n->plus : n->many;
        while (!next) { /* all below `at` is done: on to its sibling, else up */
            if (at == 0) return true;
            n = &t->nodes[at];
            const node *p = &t->nodes[n->parent];
            if (at == p->plus) {
                next = p->many;
            } else if (at != p->many) {
                next = n->next ? n->next : p->plus ? p->plus : p->many;
            }
            at = n->parent;
        }
        at = next;
    }
}

/* `index` or the first of its later siblings that a wildcard may stand for. */
static uint32_t skip_dollar(const pn_trie *t, uint32_t index) {
    while (index && t->nodes[index].parent == 0 && t->nodes[index].length && level_bytes(&t->nodes[index])[0] == '$') {
        index = t->nodes[index].next;
    }
    return index;
}

void pn_trie_walk_begin(pn_trie_walk *w, pn_trie *t, pn_span filter) {
    *w = (pn_trie_walk){.trie = t, .filter = filter, .next = t->walks, .phase = WALK_HERE};
    if (w->next) w->next->prev = w;
    t->walks = w;
}

void pn_trie_walk_end(pn_trie_walk *w) {
    if (!w->trie) return;
    *(w->prev ? &w->prev->next : &w->trie->walks) = w->next;
    if (w->next) w->next->prev = w->prev;
    w->trie = NULL;
}

bool pn_trie_walk_on(pn_trie_walk *w, uint64_t *steps, pn_trie_fn each, void *ctx) {
    pn_trie *t = w->trie;
    struct {
        enum kind kind;
        hashed level;
    } want[PN_TRIE_MAX_LEVELS + 1]; /* the filter's levels but for a `#`, as far as the walk has come */
    uint32_t known = 0, at = w->at, depth = w->depth;
    levels rest = levels_of(w->filter);
    bool many = false; /* the filter's next level is a `#` */
    enum phase phase = (enum phase)w->phase;
    bool more = true;

    while (more) {
        while (known <= depth && rest.more && !many) {
            pn_span text = next_level(&rest);
            enum kind kind = kind_of(text);
            many = kind == MANY;
            if (many) break;
            want[known].kind = kind;
            want[known++].level = (hashed){text, 0};
        }
        if (phase == WALK_HERE) {
            if (*steps == 0) break;
            --*steps;
            phase = WALK_DOWN;
            if (depth >= known && at && !rest.more) more = visit(t, at, each, ctx);
        } else if (phase == WALK_DOWN) {
            uint32_t down = 0;
            if (depth < known) {
                bool literal = want[depth].kind == LITERAL;
                down = literal ? child(t, at, &want[depth].level) : skip_dollar(t, t->nodes[at].first);
            } else if (many && !rest.more) {
                down = skip_dollar(t, t->nodes[at].first);
            }
            phase = down ? WALK_HERE : WALK_UP;
            if (down) at = down, depth++;
        } else {
            if (depth == 0) return true;
            bool literal = depth - 1 < known && want[depth - 1].kind == LITERAL;
            uint32_t next = literal ? 0 : skip_dollar(t, t->nodes[at].next);
            at = next ? next : t->nodes[at].parent;
            depth -= !next;
            phase = next ? WALK_HERE : WALK_UP;
        }
    }
    w->at = at;
    w->depth = depth;
    w->phase = phase;
    t->nodes[at].watched = true;
    return false;
}

bool pn_trie_search(pn_trie *t, pn_span filter, pn_trie_fn each, void *ctx) {
    uint64_t steps = UINT64_MAX;
    pn_trie_walk walk;
    pn_trie_walk_begin(&walk, t, filter);
    bool all = pn_trie_walk_on(&walk, &steps, each, ctx);
    pn_trie_walk_end(&walk);
    return all;
}

/* ---- Rules ----------------------------------------------------------------------------------------------------- */

struct rule {
    uint8_t *filter; /* owned */
    pn_span *names;  /* owned, with their text behind them, sorted; NULL: everybody */
    uint32_t length, name_count;
    uint32_t plain; /* bytes of the filter before its first wildcard or `{id}` */
    uint32_t next, last; /* rules of the same filter: the next one (0: none), and in the first one the last */
    uint8_t actions, retain, qos_max;
    bool allow, has_id;
};

struct pn_rules {
    pn_trie *trie; /* owned; the value of a filter is the number of its first rule plus one */
    struct rule *rules; /* owned */
    uint32_t count, cap;
};

pn_rules *pn_rules_new(uint64_t seed) {
    pn_rules *r = pn_calloc(1, sizeof *r);
    if (!r) return NULL;
    r->trie = pn_trie_new(seed);
    if (!r->trie) {
        pn_free(r);
        return NULL;
    }
    return r;
}

void pn_rules_free(pn_rules *r) {
    if (!r) return;
    for (uint32_t i = 0; i < r->count; i++) {
        pn_free(r->rules[i].filter);
        pn_free(r->rules[i].names);
    }
    pn_free(r->rules);
    pn_trie_free(r->trie);
    pn_free(r);
}

/* Whether `{id}` is a level of `filter`; -1 where it is only a part of one, which would never be what was meant. */
static int has_id_level(pn_span filter) {
    int found = 0;
    levels l = levels_of(filter);
    while (l.more) {
        pn_span level = next_level(&l);
        if (pn_span_eq(level, ID_LEVEL)) {
            found = 1;
            continue;
        }
        for (uint32_t i = 0; i + ID_LEVEL.n <= level.n; i++) {
            if (memcmp(level.p + i, ID_LEVEL.p, ID_LEVEL.n) == 0) return -1;
        }
    }
    return found;
}

uint32_t pn_rules_count(const pn_rules *r) { return r->count; }

/* Bytes of a filter before its first wildcard, or, of a rule, `{id}`. */
static uint32_t plain_part(pn_span filter, bool rule) {
    levels l = levels_of(filter);
    while (l.more) {
        uint32_t at = filter.n - l.n;
        pn_span level = next_level(&l);
        if (kind_of(level) != LITERAL || (rule && pn_span_eq(level, ID_LEVEL))) return at;
    }
    return filter.n;
}

static int by_text(const void *a, const void *b) {
    const pn_span *x = a, *y = b;
    int order = x->n && y->n ? memcmp(x->p, y->p, x->n < y->n ? x->n : y->n) : 0;
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* The names of a rule, copied and sorted; NULL without memory. */
static pn_span *names_copy(const pn_rule *rule) {
    size_t text = 0;
    for (uint32_t i = 0; i < rule->name_count; i++) text += rule->names[i].n;
    pn_span *names = pn_malloc(rule->name_count * sizeof *names + text + 1); /* nobody at all is a list as well */
    if (!names) return NULL;
    uint8_t *at = (uint8_t *)(names + rule->name_count);
    for (uint32_t i = 0; i < rule->name_count; i++) {
        pn_span name = rule->names[i];
        if (name.n) memcpy(at, name.p, name.n);
        names[i] = (pn_span){at, name.n};
        at += name.n;
    }
    if (rule->name_count) qsort(names, rule->name_count, sizeof *names, by_text);
    return names;
}

int pn_rules_add(pn_rules *r, const pn_rule *rule) {
    pn_span filter = rule->filter;
    if (!pn_topic_filter_valid(filter, PN_STRING_MAX, PN_TRIE_MAX_LEVELS)) return PN_TOPIC_FILTER_INVALID;
    int has_id = has_id_level(filter);
    if (has_id < 0) return PN_TOPIC_FILTER_INVALID;
    if (r->count == INT32_MAX) return PN_QUOTA_EXCEEDED;
    if (r->count == r->cap) {
        uint32_t cap = r->cap ? r->cap * 2 : 16;
        struct rule *rules = pn_realloc(r->rules, sizeof *rules * cap);
        if (!rules) return PN_QUOTA_EXCEEDED;
        r->rules = rules;
        r->cap = cap;
    }
    pn_span *names = rule->names ? names_copy(rule) : NULL;
    uint8_t *copy = !rule->names || names ? pn_malloc(filter.n) : NULL;
    void **value = copy ? put(r->trie, filter, true) : NULL;
    if (!value) {
        pn_free(names);
        pn_free(copy);
        return PN_QUOTA_EXCEEDED;
    }
    memcpy(copy, filter.p, filter.n);
    uint32_t number = r->count++;
    r->rules[number] = (struct rule){.filter = copy, .names = names, .length = filter.n, .name_count = rule->name_count,
                                     .plain = plain_part(filter, true),
                                     .last = number, .actions = rule->actions, .retain = rule->retain,
                                     .qos_max = rule->qos_max, .allow = rule->allow, .has_id = has_id > 0};
    if (*value) {
        struct rule *head = &r->rules[(uintptr_t)*value - 1];
        r->rules[head->last].next = number;
        head->last = number;
    } else {
        *value = (void *)((uintptr_t)number + 1);
    }
    return PN_SUCCESS;
}

/* An identity that could smuggle in more than one literal level, or a topic that begins with `$`, stands for nothing. */
static bool id_usable(pn_span id) {
    return id.n > 0 && !is_dollar(id) && !pn_topic_has_wildcard(id) && !memchr(id.p, '/', id.n);
}

/* Whether the rule is for this identity. */
static inline bool is_for(const struct rule *x, pn_span id) {
    if (!x->names) return true;
    return x->name_count && bsearch(&id, x->names, x->name_count, sizeof *x->names, by_text);
}

typedef struct decision {
    const pn_rules *rules;
    pn_span id;
    bool retain;
    uint8_t qos;
    uint32_t best; /* lowest number so far; the count of the rules when none */
} decision;

static bool decide(void *ctx, void *value) {
    decision *d = ctx;
    uint32_t number = (uint32_t)((uintptr_t)value - 1);
    while (number < d->best) { /* ascending: the first that applies is the lowest of this filter */
        const struct rule *r = &d->rules->rules[number];
        bool applies = (r->actions & PN_MAY_PUBLISH) && d->qos <= r->qos_max &&
                       (r->retain == PN_RETAIN_ANY || (r->retain == PN_RETAIN_ONLY) == d->retain) && is_for(r, d->id);
        if (applies) {
            d->best = number;
        } else if (!r->next) {
            break;
        } else {
            number = r->next;
        }
    }
    return true;
}

static bool decided(const pn_rules *r, uint32_t number, int *rule) {
    bool some = number < r->count;
    if (rule) *rule = some ? (int)number : -1;
    return some && r->rules[number].allow;
}

bool pn_rules_may_publish(const pn_rules *r, pn_span id, pn_span topic, uint8_t qos, bool retain, int *rule) {
    decision d = {r, id, retain, qos, r->count};
    uint64_t visited = 0; /* rules are the gateway's own, and few */
    match(r->trie, topic, id_usable(id) ? &id : NULL, &visited, decide, &d);
    return decided(r, d.best, rule);
}

bool pn_rules_may_subscribe(const pn_rules *r, pn_span id, pn_span filter, bool shared, uint8_t *qos, int *rule) {
    bool usable = id_usable(id);
    uint8_t wanted = shared ? PN_MAY_SHARE : PN_MAY_SUBSCRIBE;
    uint32_t i = 0, plain = plain_part(filter, false);
    for (; i < r->count; i++) {
        const struct rule *x = &r->rules[i];
        /* What differs before either has a wildcard has no topic in common. */
        if (memcmp(x->filter, filter.p, x->plain < plain ? x->plain : plain) != 0) continue;
        if (!(x->actions & wanted) || (x->has_id && !usable) || !is_for(x, id)) continue;
        pn_span own = {x->filter, x->length};
        const pn_span *stands = x->has_id ? &id : NULL;
        if (x->allow ? covers(own, stands, filter) : overlaps(own, stands, filter)) break;
    }
    if (qos && i < r->count && *qos > r->rules[i].qos_max) *qos = r->rules[i].qos_max;
    return decided(r, i, rule);
}
