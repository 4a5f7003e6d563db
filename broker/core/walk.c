/* walk.c: retained messages for new subscriptions (5.0 §3.3.1.3), a slice at a time.
 *
 * The rule it keeps: a subscription that matches a million retained messages gets them all, as fast as its client reads them, and
 * nobody else waits for that. What a SUBSCRIBE starts is a walk through the retained store (topic.h). It goes on at once for a slice
 * (WALK_STEPS nodes), then whenever pn_broker_work is called, and rests while the session has enough that waits to be read. What is
 * published meanwhile reaches the subscription by itself, so a walk leaves out messages that came after it had begun.
 */
#include "inside.h"

#include "mem.h"

enum {
    WALK_STEPS = 2048,    /* nodes of the retained store that one call visits: well under a millisecond or two */
    WALK_OUTPUT = 65536,  /* bytes of output that are enough for a client to read */
    WALK_WAITING = 256,   /* messages of QoS 1 and 2 that are */
};

typedef struct pn_walk {
    struct pn_walk *next;
    pn_trie_walk trie;
    uint64_t last; /* the number of the message that had been retained last when it was asked for */
    uint32_t id;   /* Subscription Identifier, or 0 */
    uint8_t qos;   /* of the subscription */
    uint32_t n;
    uint8_t filter[];
} walk;

struct pn_walks {
    walk *first, *last; /* owned */
    uint32_t count;
    bool going; /* the session is one of those whose walks can go on: */
    pn_session *prev, *next;
};

/* The walks go when the last of them does, unless the session is among those whose walks can go on. */
static void drop_first(pn_session *s) {
    struct pn_walks *x = s->walks;
    walk *w = x->first;
    pn_trie_walk_end(&w->trie);
    x->first = w->next;
    x->count--;
    pn_free(w);
}

void pn_walks_drop(pn_session *s) {
    while (s->walks && s->walks->first) drop_first(s);
    pn_free(s->walks);
    s->walks = NULL;
}

/* Whether the session could take another message of these walks now. */
static bool may_walk(const pn_session *s, const pn_env *env) {
    const pn_limits *limits = &env->limits;
    uint32_t output = limits->max_output_bytes < WALK_OUTPUT ? limits->max_output_bytes : WALK_OUTPUT;
    uint32_t waiting = limits->max_queued_messages < WALK_WAITING ? limits->max_queued_messages : WALK_WAITING;
    return s->walks && s->walks->first && s->wire && !s->wire->broken && pn_buf_len(&s->wire->out) < output &&
           pn_session_waiting(s) < waiting && pn_session_bytes(s) < limits->max_queued_bytes / 2;
}

void pn_walks_leave(pn_broker *b, pn_session *s) {
    struct pn_walks *x = s->walks;
    if (!x || !x->going) return;
    *(x->prev ? &x->prev->walks->next : &b->walkers) = x->next;
    *(x->next ? &x->next->walks->prev : &b->last_walker) = x->prev;
    x->prev = x->next = NULL;
    x->going = false;
}

void pn_walks_end(pn_broker *b, pn_session *s) {
    if (!s->walks) return;
    pn_walks_leave(b, s);
    b->env.stats.walks -= s->walks->count;
    pn_walks_drop(s);
}

void pn_walks_wake(pn_broker *b, pn_session *s) {
    struct pn_walks *x = s->walks;
    if (!x || x->going || !may_walk(s, &b->env)) return;
    x->going = true;
    x->prev = b->last_walker;
    x->next = NULL;
    *(b->last_walker ? &b->last_walker->walks->next : &b->walkers) = s;
    b->last_walker = s;
}

typedef struct step {
    pn_broker *broker;
    pn_session *session;
    const walk *walk;
} step;

static bool deliver(void *ctx, void *value) {
    const step *x = ctx;
    pn_message *m = value;
    pn_env *env = &x->broker->env;
    if (m->expires <= env->now || m->retained > x->walk->last) return true;
    pn_pub pub = pn_message_pub(m);
    uint8_t qos = m->qos < x->walk->qos ? m->qos : x->walk->qos;
    pn_delivery how = {.qos = qos, .retain = true, .ids = &x->walk->id, .id_count = x->walk->id != 0}; /* MQTT-3.3.1-8 */
    pn_session_deliver(x->session, &pub, &how, env);
    return may_walk(x->session, env);
}

/* Goes on with the walks of one session while it can take more and *steps are left. */
static void go_on(pn_broker *b, pn_session *s, uint64_t *steps) {
    while (may_walk(s, &b->env) && *steps) {
        walk *w = s->walks->first;
        bool wanted = pn_subs_has(b->subs, s, pn_span_of(w->filter, w->n));
        --*steps;
        if (wanted && !pn_trie_walk_on(&w->trie, steps, deliver, &(step){b, s, w})) continue;
        b->env.stats.walks--;
        drop_first(s);
    }
    if (s->wire) pn_mark_dirty(pn_link_of(s->wire));
    if (s->walks && s->walks->count == 0) pn_walks_end(b, s);
}

bool pn_walk_begin(pn_broker *b, pn_session *s, pn_span filter, uint8_t qos, uint32_t id) {
    if (b->env.stats.retained == 0) return true;
    if (!s->walks) s->walks = pn_calloc(1, sizeof *s->walks);
    struct pn_walks *x = s->walks;
    if (!x || x->count >= b->env.limits.max_subscriptions) return false; /* it subscribes faster than it reads */
    walk *w = pn_malloc(sizeof *w + filter.n);
    if (!w) return false;
    *w = (walk){.last = pn_retained_last(b->retained), .id = id, .qos = qos, .n = filter.n};
    memcpy(w->filter, filter.p, filter.n);
    pn_retained_walk(b->retained, pn_span_of(w->filter, w->n), &w->trie);
    *(x->first ? &x->last->next : &x->first) = w;
    x->last = w;
    x->count++;
    b->env.stats.walks++;
    return true;
}

void pn_walks_go(pn_broker *b, pn_session *s) {
    uint64_t left = WALK_STEPS > b->walked ? WALK_STEPS - b->walked : 0, steps = left;
    go_on(b, s, &steps);
    b->walked += left - steps;
    pn_walks_wake(b, s);
}

bool pn_broker_busy(const pn_broker *b) { return b->walkers || b->behind; }

void pn_broker_work(pn_broker *b, int64_t now) {
    pn_enter(b, now);
    pn_behind_work(b);
    uint64_t steps = WALK_STEPS;
    while (b->walkers && steps) {
        pn_session *s = b->walkers;
        pn_walks_leave(b, s);
        go_on(b, s, &steps);
        pn_walks_wake(b, s); /* behind the others, if there is more */
    }
    pn_settle(b);
}
