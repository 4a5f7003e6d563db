/* subs.c: the work of subs.h. */
#include "subs.h"

#include <stdlib.h>

#include "hash.h"
#include "mem.h"
#include "records.h"

typedef struct entry {
    pn_session *session;
    uint32_t ref; /* its place in session->subs */
    uint32_t id : 28; /* Subscription Identifier, or 0 */
    uint32_t qos : 2;
    uint32_t no_local : 1;
    uint32_t rap : 1;
} entry;

/* A filter's subscribers, or one group's of them. The nodes of a filter hang on its slot in the trie as a list, the one without a group
 * first; those with one are found by x->groups, because a filter may have very many. Most have one subscriber, and what a publication looks
 * at stands in front: among a hundred thousand of them each cache line that it touches has to come from memory. */
typedef struct pn_sub_node {
    struct pn_sub_node *next;
    uint32_t count, cap; /* cap 0: the only one is `one` */
    union {
        entry one;
        entry *list; /* owned */
    };
    struct pn_sub_node *prev;
    uint64_t serial;         /* group: never 0, never used again; a delivery that comes by way of it remembers it by this */
    uint32_t turn;           /* group: where the search for the next one to serve begins */
    uint16_t group, length;  /* bytes of the group's name, 0: everyone is served; of `text` */
    uint8_t text[];          /* the filter as it was subscribed to, with $share and the group */
} node;

_Static_assert(sizeof(entry) == 16, "an identifier (5.0 §1.5.5) and the options fit a word");

enum { IDENTIFIER = 0xFFFFFFF };

static inline entry *entries(node *n) { return n->cap ? n->list : &n->one; }

static inline pn_span name_of(const node *n) { return (pn_span){n->text, n->length}; }

enum { SHARE = sizeof "$share/" - 1 }; /* bytes before a group's name */

/* The filter, without share and group. */
static inline pn_span filter_of(const node *n) {
    uint32_t before = n->group ? (uint32_t)SHARE + n->group + 1 : 0;
    return (pn_span){n->text + before, n->length - before};
}

/* The key under which a group's node is found: `group/filter`. */
static inline pn_span key_of(const node *n) { return (pn_span){n->text + SHARE, n->length - (uint32_t)SHARE}; }

typedef struct target {
    pn_session *session;
    uint32_t ids, id_count; /* a list in x->ids: the place of the first plus 1 */
    uint8_t qos;
    bool rap;
} target;

typedef struct linked_id {
    uint32_t id, next; /* next: its place plus 1, 0 at the end */
} linked_id;

enum { EPOCHS = 4096 };

struct pn_subs {
    pn_trie *trie;      /* filter -> the first of its nodes */
    pn_trie *groups;    /* group/filter -> its node */
    node **matched;     /* scratch of route */
    target *targets;    /* scratch of route, when several filters match */
    linked_id *ids;     /* scratch of route: the identifiers that a target collects */
    uint32_t *list;     /* scratch of route: those of one target in a row */
    uint32_t matched_count, matched_cap, targets_cap, ids_cap, list_cap;
    uint64_t seed;
    uint64_t mark, serials;
    uint64_t recalled, spared; /* how often a memory was good, and the nodes that it saved */
    uint64_t epochs[EPOCHS];   /* how many filters have come and gone: see below */
};

/* --- which memories are good --- */

/* A filter can match only topics that begin as it does before its first wildcard. So one that comes or goes counts in one place: that of its
 * literal levels, PN_EPOCH_LEVELS of them at the most. And what is remembered of a topic depends on the places of its first level, its first two,
 * and so on, and on that of no level at all. Counts only grow: their sum is the same when each of them is. */
static uint16_t epoch_at(const pn_subs *x, pn_span levels) { return (uint16_t)(pn_hash(levels.p, levels.n, x->seed) % EPOCHS); }

/* The first levels of a topic, or of a filter those before a wildcard: how many there are, and the bytes that the first of them, the first two
 * and so on have. */
static uint32_t first_levels(pn_span topic, uint32_t ends[PN_EPOCH_LEVELS]) {
    uint32_t count = 0;
    for (uint32_t from = 0, at = 0; count < PN_EPOCH_LEVELS && at <= topic.n; at++) {
        if (at < topic.n && topic.p[at] != '/') continue;
        if (at == from + 1 && (topic.p[from] == '+' || topic.p[from] == '#')) break;
        ends[count++] = at;
        from = at + 1;
    }
    return count;
}

/* A filter comes or goes. */
static void new_epoch(pn_subs *x, pn_span filter) {
    uint32_t ends[PN_EPOCH_LEVELS], count = first_levels(filter, ends);
    x->epochs[count ? epoch_at(x, (pn_span){filter.p, ends[count - 1]}) : 0]++;
}

pn_matched pn_subs_matched(const pn_subs *x, pn_span topic) {
    pn_matched m = {0};
    uint32_t ends[PN_EPOCH_LEVELS], count = first_levels(topic, ends);
    for (uint32_t i = 0; i < count; i++) m.epochs[i] = epoch_at(x, (pn_span){topic.p, ends[i]});
    return m;
}

static inline uint64_t epoch_of(const pn_subs *x, const pn_matched *m) {
    uint64_t sum = x->epochs[0];
    for (int i = 0; i < PN_EPOCH_LEVELS; i++) sum += x->epochs[m->epochs[i]];
    return sum;
}

uint64_t pn_subs_recalled(const pn_subs *x) { return x->recalled; }

pn_subs *pn_subs_new(uint64_t seed) {
    pn_subs *x = pn_calloc(1, sizeof *x);
    if (!x) return NULL;
    x->seed = seed;
    x->epochs[0] = 1;
    x->trie = pn_trie_new(seed);
    x->groups = pn_trie_new(seed);
    if (x->trie && x->groups) return x;
    pn_trie_free(x->trie);
    pn_trie_free(x->groups);
    pn_free(x);
    return NULL;
}

static bool free_list(void *ctx, void *value) {
    (void)ctx;
    for (node *n = value, *next; n; n = next) {
        next = n->next;
        if (n->cap) pn_free(n->list);
        pn_free(n);
    }
    return true;
}

void pn_subs_free(pn_subs *x) {
    if (!x) return;
    pn_trie_each(x->trie, free_list, NULL);
    pn_trie_free(x->trie);
    pn_trie_free(x->groups);
    pn_free(x->matched);
    pn_free(x->targets);
    pn_free(x->ids);
    pn_free(x->list);
    pn_free(x);
}

pn_span pn_subs_filter(const pn_session *s, uint32_t i) { return filter_of(s->subs[i].node); }

bool pn_subs_shared(const pn_session *s, uint32_t i) { return s->subs[i].node->group != 0; }

static entry *entry_of(const pn_session *s, uint32_t i) { return &entries(s->subs[i].node)[s->subs[i].at]; }

uint8_t pn_subs_qos(const pn_session *s, uint32_t i) { return entry_of(s, i)->qos; }

void pn_subs_lower(pn_session *s, uint32_t i, uint8_t qos) {
    entry *e = entry_of(s, i);
    if (qos < e->qos) e->qos = qos & 3u;
}

pn_span pn_subs_name(const pn_session *s, uint32_t i) { return name_of(s->subs[i].node); }

/* The session's entry in `n`, by way of the shorter of the two lists. */
static entry *find(node *n, const pn_session *s) {
    if (n->count <= s->sub_count) {
        for (uint32_t i = 0; i < n->count; i++) {
            if (entries(n)[i].session == s) return &entries(n)[i];
        }
    } else {
        for (uint32_t i = 0; i < s->sub_count; i++) {
            if (s->subs[i].node == n) return entry_of(s, i);
        }
    }
    return NULL;
}

/* `*list` with room for one more element of `size`. */
static bool grow(void *list, uint32_t count, uint32_t *cap, uint32_t first, size_t size) {
    if (count < *cap) return true;
    void **p = list;
    uint32_t wanted = *cap ? *cap * 2 : first;
    void *more = pn_realloc(*p, wanted * size);
    if (!more) return false;
    *p = more;
    *cap = wanted;
    return true;
}

/* Room for one more subscriber in `n`; what is there moves. */
static bool node_grow(node *n) {
    if (n->count < n->cap || n->count == 0) return true;
    if (n->cap) return grow(&n->list, n->count, &n->cap, 0, sizeof *n->list);
    entry *list = pn_malloc(2 * sizeof *list);
    if (!list) return false;
    list[0] = n->one;
    n->list = list;
    n->cap = 2;
    return true;
}

bool pn_subs_split(pn_span topic_filter, pn_span *group, pn_span *filter) {
    const uint32_t n = SHARE;
    *group = (pn_span){0};
    *filter = topic_filter;
    if (!pn_topic_is_shared(topic_filter)) return true;
    const uint8_t *name = topic_filter.p + n, *end = topic_filter.p + topic_filter.n;
    const uint8_t *slash = topic_filter.n > n ? memchr(name, '/', (size_t)(end - name)) : NULL;
    if (!slash || slash == name || slash + 1 == end) return false;
    *group = pn_span_of(name, (size_t)(slash - name));
    *filter = pn_span_of(slash + 1, (size_t)(end - slash - 1));
    return !memchr(name, '+', group->n) && !memchr(name, '#', group->n);
}

/* The node of `group` under `filter`, or NULL. */
static node *node_of(const pn_subs *x, pn_span group, pn_span filter) {
    void **slot = group.n ? pn_trie_get(x->groups, pn_span_of(group.p, (size_t)group.n + 1 + filter.n)) : pn_trie_get(x->trie, filter);
    node *n = slot ? *slot : NULL;
    return n && n->group == group.n ? n : NULL;
}

static void node_free(pn_subs *x, node *n) {
    new_epoch(x, filter_of(n));
    if (n->next) n->next->prev = n->prev;
    if (n->prev) {
        n->prev->next = n->next;
    } else if (n->next) {
        *pn_trie_get(x->trie, filter_of(n)) = n->next;
    } else {
        pn_trie_remove(x->trie, filter_of(n));
    }
    if (n->group) pn_trie_remove(x->groups, key_of(n));
    if (n->cap) pn_free(n->list);
    pn_free(n);
}

static node *node_new(pn_subs *x, void **slot, pn_span name, uint32_t group_n) {
    if (name.n > PN_STRING_MAX) return NULL;
    node *n = pn_calloc(1, sizeof *n + name.n);
    if (!n) return NULL;
    memcpy(n->text, name.p, name.n);
    n->length = (uint16_t)name.n;
    n->group = (uint16_t)group_n;
    if (group_n) {
        void **place = pn_trie_put(x->groups, key_of(n));
        if (!place) {
            pn_free(n);
            return NULL;
        }
        *place = n;
    }
    n->serial = ++x->serials;
    new_epoch(x, filter_of(n));
    node *first = *slot;
    if (first && group_n && !first->group) { /* behind the one without a group */
        n->prev = first;
        n->next = first->next;
        first->next = n;
    } else {
        n->next = first;
        *slot = n;
    }
    if (n->next) n->next->prev = n;
    return n;
}

/* A subscription's options in one byte, and back. */
static uint8_t options_of(const entry *e) { return (uint8_t)(e->qos | e->no_local << 2 | e->rap << 3); }

void pn_subs_options(uint8_t options, pn_filter *f) {
    f->qos = options & 3;
    f->no_local = options & 4;
    f->retain_as_published = options & 8;
}

uint8_t pn_subs_add(pn_subs *x, pn_session *s, const pn_filter *f, uint32_t id, bool *existed, pn_env *env) {
    pn_span group, filter;
    if (!pn_subs_split(f->filter, &group, &filter)) return PN_TOPIC_FILTER_INVALID;
    enum { FIXED = 256 }; /* nodes of the trie and places in lists, beside the text */
    if (!pn_memory_has(env, FIXED + 2 * (size_t)filter.n + pn_trie_appetite(x->trie), PN_MEMORY_NEW) && !pn_subs_has(x, s, f->filter)) {
        env->stats.refused_max_memory++;
        return PN_QUOTA_EXCEEDED;
    }
    void **slot = pn_trie_put(x->trie, filter);
    if (!slot) return PN_QUOTA_EXCEEDED;
    node *n = node_of(x, group, filter);
    entry *e = n ? find(n, s) : NULL;
    *existed = e != NULL;
    if (!e) {
        bool fresh = !n;
        if (fresh) n = node_new(x, slot, f->filter, group.n);
        if (!n) {
            if (!*slot) pn_trie_remove(x->trie, filter);
            return PN_QUOTA_EXCEEDED;
        }
        if (s->sub_count >= env->limits.max_subscriptions ||
            !grow(&s->subs, s->sub_count, &s->sub_cap, 1, sizeof *s->subs) || !node_grow(n)) {
            if (fresh) node_free(x, n);
            return PN_QUOTA_EXCEEDED;
        }
        e = &entries(n)[n->count];
        *e = (entry){.session = s, .ref = s->sub_count};
        s->subs[s->sub_count++] = (pn_sub_ref){n, n->count++};
        env->stats.subscriptions++;
        env->stats.shared_subscriptions += n->group != 0;
    }
    e->id = id & IDENTIFIER;
    e->qos = f->qos & 3u;
    e->no_local = f->no_local;
    e->rap = f->retain_as_published;
    if (pn_record_subscription(s, name_of(n), options_of(e), id, n->serial, !*existed, env)) return PN_SUCCESS;
    pn_subs_remove_at(x, s, e->ref, env);
    return PN_QUOTA_EXCEEDED;
}

void pn_subs_restore_serial(pn_subs *x, const pn_session *s, uint32_t i, uint64_t serial) {
    if (serial && s) s->subs[i].node->serial = serial;
    if (serial > x->serials) x->serials = serial;
}

void pn_subs_remove_at(pn_subs *x, pn_session *s, uint32_t ref, pn_env *env) {
    node *n = s->subs[ref].node;
    pn_forget_subscription(s, name_of(n), env);
    uint32_t i = s->subs[ref].at;
    entry last = entries(n)[--n->count];
    if (i < n->count) {
        entries(n)[i] = last;
        last.session->subs[last.ref].at = i;
    }
    pn_sub_ref moved = s->subs[--s->sub_count];
    if (ref < s->sub_count) {
        s->subs[ref] = moved;
        entries(moved.node)[moved.at].ref = ref;
    }
    env->stats.subscriptions--;
    env->stats.shared_subscriptions -= n->group != 0;
    if (n->count == 0) node_free(x, n);
}

bool pn_subs_remove(pn_subs *x, pn_session *s, pn_span topic_filter, pn_env *env) {
    pn_span group, filter;
    if (!pn_subs_split(topic_filter, &group, &filter)) return false;
    node *n = node_of(x, group, filter);
    entry *e = n ? find(n, s) : NULL;
    if (!e) return false;
    pn_subs_remove_at(x, s, e->ref, env);
    return true;
}

bool pn_subs_has(const pn_subs *x, const pn_session *s, pn_span topic_filter) {
    pn_span group, filter;
    node *n = pn_subs_split(topic_filter, &group, &filter) ? node_of(x, group, filter) : NULL;
    return n && find(n, s);
}

void pn_subs_drop(pn_subs *x, pn_session *s, pn_env *env) {
    while (s->sub_count) pn_subs_remove_at(x, s, s->sub_count - 1, env);
}

/* Whose turn it is in a group: the next one that is connected, or, when nobody is, the next one; never `not`. NULL: there is nobody else. */
static entry *choose(node *n, const pn_session *not) {
    entry *fallback = NULL, *list = entries(n);
    for (uint32_t i = 0; i < n->count; i++) {
        entry *e = &list[(n->turn + i) % n->count];
        if (e->session == not) continue;
        if (e->session->wire) {
            n->turn = (n->turn + i + 1) % n->count;
            return e;
        }
        if (!fallback) fallback = e;
    }
    if (fallback) n->turn = (uint32_t)(fallback - list + 1) % n->count;
    return fallback;
}

static int by_serial(const void *a, const void *b) {
    uint64_t x = (*(node *const *)a)->serial, y = (*(node *const *)b)->serial;
    return x < y ? -1 : x > y;
}

void pn_subs_hand_over(const pn_session *s, pn_subs_pass pass, void *ctx) {
    if (!pn_session_outgoing(s, 0) || !s->sub_count) return;
    node **groups = pn_malloc(s->sub_count * sizeof(node *)); /* those of the session, to find one by its serial */
    if (!groups) return;
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->sub_count; i++) {
        if (s->subs[i].node->group) groups[count++] = s->subs[i].node;
    }
    if (count) qsort(groups, count, sizeof *groups, by_serial);
    const pn_out *out;
    for (uint32_t i = 0; count && (out = pn_session_outgoing(s, i)) != NULL; i++) {
        if (!out->extra || !out->extra->group || !out->message) continue;
        if (out->state != PN_OUT_WAITING && !(out->state == PN_OUT_PUBLISHED && out->qos == 1)) continue;
        const node wanted = {.serial = out->extra->group}, *key = &wanted;
        node **found = bsearch(&key, groups, count, sizeof *groups, by_serial);
        const entry *e = found ? choose(*found, s) : NULL;
        if (!e) continue;
        pn_pub pub = pn_message_pub(out->message);
        uint8_t qos = e->qos < pub.qos ? e->qos : pub.qos;
        uint32_t id = e->id;
        pass(ctx, e->session, &pub,
             &(pn_delivery){.qos = qos, .retain = e->rap && pub.retain, .group = wanted.serial, .ids = &id, .id_count = id != 0});
    }
    pn_free(groups);
}

static bool collect(void *ctx, void *value) {
    pn_subs *x = ctx;
    for (node *n = value; n; n = n->next) {
        if (!grow(&x->matched, x->matched_count, &x->matched_cap, 16, sizeof *x->matched)) return false;
        x->matched[x->matched_count++] = n;
    }
    return true;
}

static inline void serve(const entry *e, uint64_t group, pn_subs_fn each, void *ctx) {
    uint32_t id = e->id;
    each(ctx, e->session, &(pn_delivery){.qos = e->qos, .retain = e->rap, .ids = &id, .id_count = id != 0, .group = group});
}

/* `*list` with room for `wanted` elements of `size`. */
static bool room(void *list, uint64_t wanted, uint32_t *cap, size_t size) {
    if (wanted <= *cap) return true;
    if (wanted > UINT32_MAX / 2) return false;
    uint32_t more = *cap ? *cap : 64;
    while (more < wanted) more *= 2;
    void **p = list, *moved = pn_realloc(*p, more * size);
    if (!moved) return false;
    *p = moved;
    *cap = more;
    return true;
}

/* Several filters match: everyone once, with what all of them ask for. */
static int64_t route_merged(pn_subs *x, node *const *matched, uint32_t matched_count, const pn_session *publisher, pn_subs_fn each, void *ctx) {
    uint64_t total = 0;
    for (uint32_t m = 0; m < matched_count; m++) total += matched[m]->group ? 1 : matched[m]->count;
    if (!room(&x->targets, total, &x->targets_cap, sizeof *x->targets) || !room(&x->ids, total, &x->ids_cap, sizeof *x->ids) ||
        !room(&x->list, matched_count, &x->list_cap, sizeof *x->list)) {
        return -1;
    }
    uint32_t count = 0, ids = 0;
    uint64_t mark = ++x->mark;
    for (uint32_t m = 0; m < matched_count; m++) {
        node *n = matched[m];
        if (n->group) continue;
        for (uint32_t i = 0; i < n->count; i++) {
            entry e = entries(n)[i];
            if (e.no_local && e.session == publisher) continue;
            if (e.session->mark != mark) {
                e.session->mark = mark;
                e.session->mark_at = count;
                x->targets[count++] = (target){.session = e.session};
            }
            target *t = &x->targets[e.session->mark_at];
            if (e.qos > t->qos) t->qos = e.qos & 3u;
            t->rap |= e.rap;
            if (e.id) {
                x->ids[ids] = (linked_id){e.id, t->ids};
                t->ids = ++ids;
                t->id_count++;
            }
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        const target *t = &x->targets[i];
        uint32_t k = t->id_count; /* the list runs from the last one to the first */
        for (uint32_t at = t->ids; at; at = x->ids[at - 1].next) x->list[--k] = x->ids[at - 1].id;
        each(ctx, t->session, &(pn_delivery){.qos = t->qos, .retain = t->rap, .ids = x->list, .id_count = t->id_count});
    }
    int64_t reached = count;
    for (uint32_t m = 0; m < matched_count; m++) {
        node *n = matched[m];
        const entry *e = n->group ? choose(n, NULL) : NULL;
        if (!e) continue;
        serve(e, n->serial, each, ctx);
        reached++;
    }
    return reached;
}

uint64_t pn_subs_visited(const pn_subs *x) { return pn_trie_visited(x->trie) + x->spared; }

/* Finds the nodes, and remembers them. */
static bool find_matching(pn_subs *x, pn_span topic, pn_matched *memory) {
    uint64_t visited = pn_trie_visited(x->trie);
    x->matched_count = 0;
    if (!pn_trie_match(x->trie, topic, collect, x)) return false;
    if (!memory) return true;
    visited = pn_trie_visited(x->trie) - visited;
    bool fits = x->matched_count <= PN_MATCHED_MAX && visited <= UINT32_MAX;
    memory->epoch = fits ? epoch_of(x, memory) : 0;
    if (!fits) return true;
    memory->count = (uint8_t)x->matched_count;
    memory->visited = (uint32_t)visited;
    for (uint32_t i = 0; i < x->matched_count; i++) memory->nodes[i] = x->matched[i];
    return true;
}

int64_t pn_subs_route(pn_subs *x, pn_span topic, pn_matched *memory, const pn_session *publisher, pn_subs_fn each, void *ctx) {
    node *const *matched;
    uint32_t count;
    if (memory && memory->epoch == epoch_of(x, memory)) {
        matched = memory->nodes;
        count = memory->count;
        x->recalled++;
        x->spared += memory->visited;
    } else {
        if (!find_matching(x, topic, memory)) return -1;
        matched = x->matched;
        count = x->matched_count;
    }
    if (count != 1 || matched[0]->group) return route_merged(x, matched, count, publisher, each, ctx);
    node *n = matched[0]; /* the usual case: no session can stand in one list twice */
    const entry *list = entries(n);
    int64_t reached = 0;
    for (uint32_t i = 0; i < n->count; i++) {
        const entry *e = &list[i];
        if (e->no_local && e->session == publisher) continue;
        serve(e, 0, each, ctx);
        reached++;
    }
    return reached;
}
