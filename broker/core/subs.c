/* subs.c: the work of subs.h. */
#include "subs.h"

#include "mem.h"

typedef struct entry {
    pn_session *session;
    uint32_t ref; /* its place in session->subs */
    uint8_t qos : 2;
    uint8_t no_local : 1;
    uint8_t rap : 1;
} entry;

typedef struct pn_sub_node {
    entry *list; /* owned */
    uint32_t count, cap;
    pn_span filter; /* in `text` */
    uint8_t text[];
} node;

typedef struct target {
    pn_session *session;
    uint8_t qos;
    bool rap;
} target;

struct pn_subs {
    pn_trie *trie;      /* filter -> node */
    node **matched;     /* scratch of route */
    target *targets;    /* scratch of route, when several filters match */
    uint32_t matched_count, matched_cap, targets_cap;
    uint64_t mark;
};

pn_subs *pn_subs_new(uint64_t seed) {
    pn_subs *x = pn_calloc(1, sizeof *x);
    if (!x) return NULL;
    x->trie = pn_trie_new(seed);
    if (!x->trie) {
        pn_free(x);
        return NULL;
    }
    return x;
}

void pn_subs_free(pn_subs *x) {
    if (!x) return;
    pn_trie_free(x->trie);
    pn_free(x->matched);
    pn_free(x->targets);
    pn_free(x);
}

pn_span pn_subs_filter(const pn_session *s, uint32_t i) { return s->subs[i].node->filter; }

/* The session's entry in `n`, by way of the shorter of the two lists. */
static entry *find(node *n, const pn_session *s) {
    if (n->count <= s->sub_count) {
        for (uint32_t i = 0; i < n->count; i++) {
            if (n->list[i].session == s) return &n->list[i];
        }
    } else {
        for (uint32_t i = 0; i < s->sub_count; i++) {
            if (s->subs[i].node == n) return &n->list[s->subs[i].at];
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

static void node_free(pn_subs *x, node *n) {
    pn_trie_remove(x->trie, n->filter);
    pn_free(n->list);
    pn_free(n);
}

uint8_t pn_subs_add(pn_subs *x, pn_session *s, const pn_filter *f, bool *existed, pn_env *env) {
    void **slot = pn_trie_put(x->trie, f->filter);
    if (!slot) return PN_QUOTA_EXCEEDED;
    node *n = *slot;
    entry *e = n ? find(n, s) : NULL;
    *existed = e != NULL;
    if (!e) {
        bool fresh = !n;
        if (fresh) {
            n = pn_calloc(1, sizeof *n + f->filter.n);
            if (!n) {
                pn_trie_remove(x->trie, f->filter);
                return PN_QUOTA_EXCEEDED;
            }
            memcpy(n->text, f->filter.p, f->filter.n);
            n->filter = (pn_span){n->text, f->filter.n};
            *slot = n;
        }
        if (s->sub_count >= env->limits.max_subscriptions ||
            !grow(&s->subs, s->sub_count, &s->sub_cap, 4, sizeof *s->subs) ||
            !grow(&n->list, n->count, &n->cap, 1, sizeof *n->list)) {
            if (fresh) node_free(x, n);
            return PN_QUOTA_EXCEEDED;
        }
        e = &n->list[n->count];
        *e = (entry){.session = s, .ref = s->sub_count};
        s->subs[s->sub_count++] = (pn_sub_ref){n, n->count++};
        env->stats.subscriptions++;
    }
    e->qos = f->qos & 3u;
    e->no_local = f->no_local;
    e->rap = f->retain_as_published;
    return PN_SUCCESS;
}

/* Takes out the session's ref-th subscription: the last of each list moves into the gap. */
static void unlink_ref(pn_subs *x, pn_session *s, uint32_t ref, pn_env *env) {
    node *n = s->subs[ref].node;
    uint32_t i = s->subs[ref].at;
    entry last = n->list[--n->count];
    if (i < n->count) {
        n->list[i] = last;
        last.session->subs[last.ref].at = i;
    }
    pn_sub_ref moved = s->subs[--s->sub_count];
    if (ref < s->sub_count) {
        s->subs[ref] = moved;
        moved.node->list[moved.at].ref = ref;
    }
    if (n->count == 0) node_free(x, n);
    env->stats.subscriptions--;
}

bool pn_subs_remove(pn_subs *x, pn_session *s, pn_span filter, pn_env *env) {
    void **slot = pn_trie_get(x->trie, filter);
    entry *e = slot && *slot ? find(*slot, s) : NULL;
    if (!e) return false;
    unlink_ref(x, s, e->ref, env);
    return true;
}

void pn_subs_drop(pn_subs *x, pn_session *s, pn_env *env) {
    while (s->sub_count) unlink_ref(x, s, s->sub_count - 1, env);
}

static bool collect(void *ctx, void *value) {
    pn_subs *x = ctx;
    if (!grow(&x->matched, x->matched_count, &x->matched_cap, 16, sizeof *x->matched)) return false;
    x->matched[x->matched_count++] = value;
    return true;
}

int64_t pn_subs_route(pn_subs *x, pn_span topic, const pn_session *publisher, pn_subs_fn each, void *ctx) {
    x->matched_count = 0;
    if (!pn_trie_match(x->trie, topic, collect, x)) return -1;
    int64_t reached = 0;
    if (x->matched_count == 1) { /* the usual case: no session can stand in one list twice */
        const node *n = x->matched[0];
        for (uint32_t i = 0; i < n->count; i++) {
            entry e = n->list[i];
            if (e.no_local && e.session == publisher) continue;
            each(ctx, e.session, e.qos, e.rap);
            reached++;
        }
        return reached;
    }
    uint64_t total = 0;
    for (uint32_t m = 0; m < x->matched_count; m++) total += x->matched[m]->count;
    if (total > x->targets_cap) {
        if (total > UINT32_MAX / 2) return -1;
        uint32_t cap = x->targets_cap ? x->targets_cap : 64;
        while (cap < total) cap *= 2;
        target *more = pn_realloc(x->targets, cap * sizeof *more);
        if (!more) return -1;
        x->targets = more;
        x->targets_cap = cap;
    }
    uint32_t count = 0;
    uint64_t mark = ++x->mark;
    for (uint32_t m = 0; m < x->matched_count; m++) {
        const node *n = x->matched[m];
        for (uint32_t i = 0; i < n->count; i++) {
            entry e = n->list[i];
            if (e.no_local && e.session == publisher) continue;
            if (e.session->mark != mark) {
                e.session->mark = mark;
                e.session->mark_at = count;
                x->targets[count++] = (target){e.session, e.qos, e.rap};
                continue;
            }
            target *t = &x->targets[e.session->mark_at];
            if (e.qos > t->qos) t->qos = e.qos;
            t->rap |= e.rap;
        }
    }
    for (uint32_t i = 0; i < count; i++) each(ctx, x->targets[i].session, x->targets[i].qos, x->targets[i].rap);
    return count;
}
