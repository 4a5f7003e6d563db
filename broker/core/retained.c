/* retained.c: the work of retained.h. */
#include "retained.h"

#include "mem.h"
#include "records.h"

struct pn_retained {
    pn_trie *trie; /* topic name -> pn_message, one reference */
    int64_t due;   /* nothing expires before; PN_NEVER: nothing does */
    int64_t rest;  /* it is not looked through for expired messages before */
    uint64_t count; /* messages that have been put, the last one's number */
};

pn_retained *pn_retained_new(uint64_t seed) {
    pn_retained *r = pn_calloc(1, sizeof *r);
    if (!r) return NULL;
    r->due = PN_NEVER;
    r->rest = INT64_MIN;
    r->trie = pn_trie_new(seed);
    if (r->trie) return r;
    pn_free(r);
    return NULL;
}

static bool drop(void *ctx, void *value) {
    (void)ctx;
    pn_message_drop(value);
    return true;
}

void pn_retained_free(pn_retained *r) {
    if (!r) return;
    pn_trie_each(r->trie, drop, NULL);
    pn_trie_free(r->trie);
    pn_free(r);
}

static void forget(pn_retained *r, pn_message *m, pn_env *env) {
    pn_forget_retained(m, env);
    env->stats.retained--;
    env->stats.retained_bytes -= pn_message_bytes(m);
    pn_trie_remove(r->trie, pn_message_topic(m));
    pn_message_drop(m);
}

typedef struct expiring {
    int64_t now, next; /* next: when the first of those still valid expires */
    pn_buf found;      /* pointers to those that have */
} expiring;

static bool find_expired(void *ctx, void *value) {
    expiring *x = ctx;
    const pn_message *m = value;
    if (m->expires <= x->now) return pn_buf_add(&x->found, &value, sizeof value);
    if (m->expires < x->next) x->next = m->expires;
    return true;
}

void pn_retained_tick(pn_retained *r, pn_env *env) {
    enum { PAUSE = 60000 };
    expiring x = {.now = env->now, .next = PN_NEVER};
    if (r->due > x.now || r->rest > x.now) return;
    bool all = pn_trie_each(r->trie, find_expired, &x);
    while (pn_buf_len(&x.found)) {
        pn_message *m;
        memcpy(&m, pn_buf_head(&x.found), sizeof m);
        pn_buf_drop(&x.found, sizeof m);
        forget(r, m, env);
    }
    pn_buf_free(&x.found);
    r->due = all ? x.next : x.now;
    r->rest = x.now + PAUSE;
}

/* Whether the disk must keep it and cannot. */
static bool unkept(const pn_pub *pub, const pn_env *env) { return pn_topic_is_kept(pub->topic) && pn_cannot_keep(env); }

/* Whether there may be `more` messages and `bytes` bytes beside what there is. */
static bool room(const pn_retained *r, const pn_env *env, uint32_t more, uint64_t bytes) {
    return env->stats.retained + more <= env->limits.max_retained &&
           env->stats.retained_bytes + bytes <= env->limits.max_retained_bytes &&
           pn_memory_has(env, (size_t)bytes + (more ? pn_trie_appetite(r->trie) : 0), PN_MEMORY_NEW);
}

/* Puts `m`, whose reference it takes, in the place of what is there. */
static void set(pn_retained *r, void **slot, pn_message *m, pn_env *env) {
    if (*slot) env->stats.retained--, env->stats.retained_bytes -= pn_message_bytes(*slot);
    pn_message_drop(*slot);
    *slot = m;
    m->retained = ++r->count;
    env->stats.retained++;
    env->stats.retained_bytes += pn_message_bytes(m);
    if (m->expires < r->due) r->due = m->expires;
}

uint8_t pn_retained_put(pn_retained *r, pn_pub *pub, pn_env *env) {
    void **slot = pn_trie_get(r->trie, pub->topic);
    if (pub->payload.n == 0) {
        if (slot && *slot) forget(r, *slot, env);
        return PN_SUCCESS;
    }
    uint32_t bytes = pn_pub_bytes(pub), before = slot && *slot ? pn_message_bytes(*slot) : 0, more = !before;
    if (unkept(pub, env)) {
        if (before) forget(r, *slot, env);
        env->stats.dropped_unkept++;
        return PN_QUOTA_EXCEEDED;
    }
    if (!room(r, env, more, bytes > before ? bytes - before : 0)) {
        pn_retained_tick(r, env); /* it may have taken the one that was there */
        slot = pn_trie_get(r->trie, pub->topic);
        before = slot && *slot ? pn_message_bytes(*slot) : 0, more = !before;
        if (!room(r, env, more, bytes > before ? bytes - before : 0)) {
            if (slot && *slot) forget(r, *slot, env);
            env->stats.dropped_retained_full++;
            return PN_QUOTA_EXCEEDED;
        }
    }
    pn_message *m = pn_pub_share(pub);
    if (m && !slot) slot = pn_trie_put(r->trie, pub->topic);
    if (!m || !slot || !pn_record_retained(m, !*slot, env)) {
        if (slot && *slot) {
            forget(r, *slot, env);
        } else if (slot) {
            pn_trie_remove(r->trie, pub->topic);
        }
        pn_message_drop(m);
        env->stats.dropped_no_memory++;
        return PN_QUOTA_EXCEEDED;
    }
    set(r, slot, m, env);
    return PN_SUCCESS;
}

bool pn_retained_restore(pn_retained *r, pn_pub *pub, pn_env *env) {
    pn_message *m = pn_pub_share(pub);
    void **slot = m ? pn_trie_put(r->trie, pub->topic) : NULL;
    if (slot) {
        set(r, slot, m, env);
    } else {
        pn_message_drop(m);
    }
    return slot;
}

const pn_message *pn_retained_get(const pn_retained *r, pn_span topic, const pn_env *env) {
    void **slot = pn_trie_get(r->trie, topic);
    const pn_message *m = slot ? *slot : NULL;
    return m && m->expires > env->now ? m : NULL;
}

uint64_t pn_retained_last(const pn_retained *r) { return r->count; }

void pn_retained_walk(pn_retained *r, pn_span filter, pn_trie_walk *out) { pn_trie_walk_begin(out, r->trie, filter); }
