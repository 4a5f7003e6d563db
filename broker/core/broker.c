/* broker.c: the work of broker.h. From bytes to packets to sessions and back; the rest is in session.c, subs.c, topic.c.
 *
 * Two habits keep it free of re-entrance: nothing is closed in the middle of routing (a wire that breaks is only marked, and `settle`
 * ends its link when the call is over), and a will is published when its session is already detached.
 */
#include "broker.h"

#include "hash.h"
#include "mem.h"
#include "subs.h"

enum link_state {
    LINK_NEW,     /* waits for CONNECT */
    LINK_ASKING,  /* its CONNECT, at the head of `in`, waits for the verdict */
    LINK_PROVING, /* the same, and the client's next AUTH is waited for first (5.0 §4.12) */
    LINK_LIVE,    /* has a session */
    LINK_CLOSING, /* PN_EVENT_CLOSED has been raised; what it sends is ignored */
};

enum reauth {
    REAUTH_NONE,
    REAUTH_ASKING,  /* an AUTH waits to be judged */
    REAUTH_WAITING, /* the client's next AUTH is waited for */
};

struct pn_link {
    pn_broker *broker;
    void *owner;
    pn_session *session; /* while LIVE */
    pn_link *dirty_prev, *dirty_next;
    pn_wire wire;
    pn_message **aliases; /* owned: the topics of the client's Topic Aliases, as messages without payload; [0] is alias 1 */
    pn_buf method, proof; /* enhanced authentication: its method, and the data of the AUTH that waits to be judged */
    int64_t rate_since;   /* milliseconds: when the counts below began */
    uint32_t rate_publishes, rate_bytes;
    pn_buf in; /* a packet that is not complete yet; while ASKING also what came behind the CONNECT */
    int64_t heard, opened;
    uint32_t index; /* in broker->links */
    uint16_t keep_alive, alias_max;
    uint8_t state, version;
    uint8_t proving; /* while LIVE, enum reauth */
    bool dirty;
};

typedef struct queued_event {
    uint8_t kind, reason;
    pn_link *link;
    void *owner;
    uint32_t text, text_n; /* in broker->texts */
} queued_event;

struct pn_broker {
    pn_env env;
    uint64_t seed;
    pn_subs *subs;
    pn_trie *retained; /* topic name -> pn_message, one reference */
    int64_t retained_due;  /* no retained message expires before; PN_NEVER: none does */
    int64_t retained_rest; /* the store is not looked through for expired messages before */
    pn_rules *rules[PN_RULE_SETS];
    pn_link **links; /* owned array */
    uint32_t link_count, link_cap;
    pn_session **buckets; /* hash table of sessions by key; bucket_count is a power of two */
    uint32_t bucket_count, session_count;
    pn_session *sleepers; /* offline sessions that something is due to */
    pn_link *dirty, *dirty_last;
    queued_event *events; /* owned */
    uint32_t event_head, event_count, event_cap, denied_room;
    pn_buf texts;   /* of the events */
    pn_buf scratch; /* properties and reason lists under construction */
};

/* --- tables --- */

#define LIMIT(field, otherwise, least, most) {#field, offsetof(pn_limits, field), otherwise, least, most}
const pn_limit_row pn_limit_table[] = {
    LIMIT(max_packet_size, PN_MAX_PACKET_SIZE, 128, PN_PACKET_SIZE_MAX),
    LIMIT(max_topic_length, PN_MAX_TOPIC_LENGTH, 1, PN_STRING_MAX),
    LIMIT(max_topic_levels, PN_MAX_TOPIC_LEVELS, 1, 1024),
    LIMIT(max_client_id, PN_MAX_CLIENT_ID, 23, PN_STRING_MAX), /* MQTT-3.1.3-5: at least 23 */
    LIMIT(max_subscriptions, PN_MAX_SUBSCRIPTIONS, 1, 10000000),
    LIMIT(receive_maximum, PN_RECEIVE_MAXIMUM_DEFAULT, 1, 65535),
    LIMIT(max_inflight, PN_MAX_INFLIGHT, 1, 16384),
    LIMIT(max_queued_messages, PN_MAX_QUEUED_MESSAGES, 1, 100000000),
    LIMIT(max_queued_bytes, PN_MAX_QUEUED_BYTES, 1024, 4000000000u),
    LIMIT(max_output_bytes, PN_MAX_OUTPUT_BYTES, 4096, 1000000000),
    LIMIT(max_parked_bytes, PN_MAX_PARKED_BYTES, 1024, 1000000000),
    LIMIT(max_session_expiry, PN_MAX_SESSION_EXPIRY, 0, PN_EXPIRY_NEVER),
    LIMIT(max_keep_alive, PN_MAX_KEEP_ALIVE, 1, 65535),
    LIMIT(connect_timeout, PN_CONNECT_TIMEOUT, 100, 3600000),
    LIMIT(max_sessions, PN_MAX_SESSIONS, 1, 100000000),
    LIMIT(max_retained, PN_MAX_RETAINED, 0, 100000000),
    LIMIT(max_retained_bytes, PN_MAX_RETAINED_BYTES, 0, 4000000000u),
    LIMIT(max_qos, 2, 0, 2),
    LIMIT(retain_available, 1, 0, 1),
    LIMIT(wildcard_subscriptions, 1, 0, 1),
    LIMIT(shared_subscriptions, 1, 0, 1),
    LIMIT(topic_alias_maximum, PN_TOPIC_ALIAS_MAXIMUM_DEFAULT, 0, 65535),
    LIMIT(payload_format_check, 0, 0, 1),
    LIMIT(publish_rate, 0, 0, 1000000000),
    LIMIT(byte_rate, 0, 0, 4000000000u),
    {0},
};
#undef LIMIT

#define STAT(field) {#field, offsetof(pn_stats, field)}
const pn_stat_row pn_stat_table[] = {
    STAT(packets_in), STAT(publishes_in), STAT(publishes_out), STAT(bytes_in), STAT(bytes_out),
    STAT(dropped_queue_full), STAT(dropped_slow_reader), STAT(dropped_expired), STAT(dropped_too_large),
    STAT(dropped_denied), STAT(dropped_no_memory), STAT(dropped_retained_full), STAT(links), STAT(sessions),
    STAT(subscriptions), STAT(retained), STAT(retained_bytes),
    {0},
};
#undef STAT

void pn_limits_default(pn_limits *limits) {
    for (const pn_limit_row *row = pn_limit_table; row->name; row++) {
        *(uint32_t *)((char *)limits + row->offset) = row->otherwise;
    }
}

/* --- events --- */

static void raise_event(pn_broker *b, uint8_t kind, pn_link *l, uint8_t reason, const char *what, pn_span text) {
    if (b->event_count == b->event_cap) {
        /* Room for one CLOSED, DISCONNECT, CONNECT and AUTH each a link, and the DENIED of one feed, was reserved in pn_link_open. */
        return;
    }
    queued_event *e = &b->events[b->event_count++];
    *e = (queued_event){.kind = kind, .reason = reason, .link = l, .owner = l->owner, .text = pn_buf_len(&b->texts)};
    if (what && pn_buf_add(&b->texts, what, strlen(what)) && pn_buf_add(&b->texts, text.p, text.n)) {
        e->text_n = pn_buf_len(&b->texts) - e->text;
    }
}

static void raise_denied(pn_link *l, const char *what, pn_span topic) {
    pn_broker *b = l->broker;
    b->env.stats.dropped_denied++;
    if (b->denied_room == 0) return;
    b->denied_room--;
    raise_event(b, PN_EVENT_DENIED, l, PN_NOT_AUTHORIZED, what, topic);
}

bool pn_broker_event(pn_broker *b, pn_event *out) {
    if (b->event_head == b->event_count) {
        b->event_head = b->event_count = 0;
        return false;
    }
    const queued_event *e = &b->events[b->event_head++];
    *out = (pn_event){.kind = e->kind, .reason = e->reason, .link = e->link, .owner = e->owner};
    if (e->text_n) out->text = pn_span_of(pn_buf_head(&b->texts) + e->text, e->text_n);
    return true;
}

/* Every call that takes `now` begins here. */
static void settle(pn_broker *b);

static pn_env *enter(pn_broker *b, int64_t now) {
    if (b->event_head == b->event_count) {
        b->event_head = b->event_count = 0;
        b->denied_room = PN_DENIED_EVENTS_MAX;
        pn_buf_drop(&b->texts, pn_buf_len(&b->texts));
    }
    b->env.now = now;
    return &b->env;
}

/* --- links --- */

static void mark_dirty(pn_link *l) {
    pn_broker *b = l->broker;
    if (l->dirty || pn_buf_len(&l->wire.out) == 0) return;
    l->dirty = true;
    l->dirty_prev = b->dirty_last;
    l->dirty_next = NULL;
    *(b->dirty_last ? &b->dirty_last->dirty_next : &b->dirty) = l;
    b->dirty_last = l;
}

static void unmark_dirty(pn_link *l) {
    pn_broker *b = l->broker;
    if (!l->dirty) return;
    l->dirty = false;
    *(l->dirty_prev ? &l->dirty_prev->dirty_next : &b->dirty) = l->dirty_next;
    *(l->dirty_next ? &l->dirty_next->dirty_prev : &b->dirty_last) = l->dirty_prev;
}

pn_link *pn_broker_dirty(pn_broker *b) {
    pn_link *l = b->dirty;
    if (l) unmark_dirty(l);
    return l;
}

pn_link *pn_link_open(pn_broker *b, void *owner, int64_t now) {
    enter(b, now);
    enum { EVENTS_PER_LINK = 4, LINKS_FIRST = 16 };
    if (b->link_count == b->link_cap) {
        uint32_t cap = b->link_cap ? b->link_cap * 2 : LINKS_FIRST;
        pn_link **links = pn_realloc(b->links, cap * sizeof *links);
        if (!links) return NULL;
        b->links = links;
        uint32_t event_cap = cap * EVENTS_PER_LINK + PN_DENIED_EVENTS_MAX;
        queued_event *events = pn_realloc(b->events, event_cap * sizeof *events);
        if (!events) return NULL;
        b->events = events;
        b->event_cap = event_cap;
        b->link_cap = cap;
    }
    pn_link *l = pn_calloc(1, sizeof *l);
    if (!l) return NULL;
    l->broker = b;
    l->owner = owner;
    l->heard = l->opened = now;
    l->index = b->link_count;
    l->wire.max_packet = PN_PACKET_SIZE_MAX;
    b->links[b->link_count++] = l;
    b->env.stats.links = b->link_count;
    return l;
}

void *pn_link_owner(const pn_link *l) { return l->owner; }

pn_span pn_link_output(const pn_link *l) { return (pn_span){pn_buf_head(&l->wire.out), pn_buf_len(&l->wire.out)}; }

void pn_link_sent(pn_link *l, size_t n, int64_t now) {
    enum { KEEP = 4096 };
    pn_env *env = enter(l->broker, now);
    pn_buf *out = &l->wire.out;
    env->stats.bytes_out += n;
    pn_buf_drop(out, n);
    if (pn_buf_len(out) == 0 && out->cap > KEEP) pn_buf_free(out);
    if (l->session && l->session->cursor < l->session->ring_count) {
        pn_session_pump(l->session, env);
        mark_dirty(l);
        settle(l->broker);
    }
}

/* --- sessions by key --- */

static pn_session **bucket_of(pn_broker *b, pn_span key) {
    return &b->buckets[pn_hash(key.p, key.n, b->seed) & (b->bucket_count - 1)];
}

static pn_session *session_find(pn_broker *b, pn_span key) {
    pn_session *s = *bucket_of(b, key);
    while (s && !pn_span_eq(pn_session_key(s), key)) s = s->next;
    return s;
}

static void buckets_grow(pn_broker *b) {
    uint32_t n = b->bucket_count * 2;
    pn_session **buckets = pn_calloc(n, sizeof *buckets);
    if (!buckets) return; /* longer chains are slower, not wrong */
    pn_session **old = b->buckets;
    uint32_t old_n = b->bucket_count;
    b->buckets = buckets;
    b->bucket_count = n;
    for (uint32_t i = 0; i < old_n; i++) {
        for (pn_session *s = old[i], *next; s; s = next) {
            next = s->next;
            pn_session **to = bucket_of(b, pn_session_key(s));
            s->next = *to;
            *to = s;
        }
    }
    pn_free(old);
}

static void sleepers_remove(pn_broker *b, pn_session *s) {
    if (s->sleeper_prev) {
        s->sleeper_prev->sleeper_next = s->sleeper_next;
    } else if (b->sleepers == s) {
        b->sleepers = s->sleeper_next;
    } else {
        return;
    }
    if (s->sleeper_next) s->sleeper_next->sleeper_prev = s->sleeper_prev;
    s->sleeper_prev = s->sleeper_next = NULL;
}

static void sleepers_add(pn_broker *b, pn_session *s) {
    s->sleeper_next = b->sleepers;
    if (b->sleepers) b->sleepers->sleeper_prev = s;
    b->sleepers = s;
}

static void pass_on(void *ctx, pn_session *s, pn_pub *pub, const pn_delivery *how);

/* Ends a session that is offline. Others of its shared subscriptions get what it has not acknowledged; its will is not published. */
static void session_end(pn_broker *b, pn_session *s) {
    pn_session **at = bucket_of(b, pn_session_key(s));
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    sleepers_remove(b, s);
    pn_subs_hand_over(s, pass_on, b);
    pn_subs_drop(b->subs, s, &b->env);
    pn_session_free(s);
    b->env.stats.sessions = --b->session_count;
}

static pn_session *session_begin(pn_broker *b, pn_span key, pn_span identity) {
    if (b->session_count >= b->env.limits.max_sessions) return NULL;
    pn_session *s = pn_session_new(key, identity);
    if (!s) return NULL;
    if (b->session_count >= b->bucket_count) buckets_grow(b);
    pn_session **to = bucket_of(b, key);
    s->next = *to;
    *to = s;
    b->env.stats.sessions = ++b->session_count;
    return s;
}

/* Takes from a session what its rules do not allow, now that they have changed: subscriptions and the will. */
static void judge(pn_broker *b, pn_session *s) {
    const pn_rules *rules = pn_broker_rules(b, s->rules);
    pn_span id = pn_session_identity(s);
    for (uint32_t i = s->sub_count; i-- > 0;) { /* what is removed is replaced by the last one, which has been judged */
        pn_span filter = pn_subs_filter(s, i);
        if (rules && pn_rules_may_subscribe(rules, id, filter, NULL)) continue;
        pn_subs_remove_at(b->subs, s, i, &b->env);
    }
    if (s->will && !(rules && pn_rules_may_publish(rules, id, s->will->topic, s->will->retain, NULL))) {
        b->env.stats.dropped_denied++;
        pn_message_drop(s->will);
        s->will = NULL;
    }
}

/* --- publishing --- */

/* Takes `m` out of the store. */
static void unretain(pn_broker *b, pn_message *m) {
    b->env.stats.retained--;
    b->env.stats.retained_bytes -= pn_message_bytes(m);
    pn_trie_remove(b->retained, m->topic);
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

/* Forgets retained messages that have expired (5.0 §3.3.2.3.3). It looks at every one, so it does that once in a while. */
static void sweep_retained(pn_broker *b) {
    enum { PAUSE = 60000 };
    expiring x = {.now = b->env.now, .next = PN_NEVER};
    if (b->retained_due > x.now || b->retained_rest > x.now) return;
    bool all = pn_trie_each(b->retained, find_expired, &x);
    while (pn_buf_len(&x.found)) {
        pn_message *m;
        memcpy(&m, pn_buf_head(&x.found), sizeof m);
        pn_buf_drop(&x.found, sizeof m);
        unretain(b, m);
    }
    pn_buf_free(&x.found);
    b->retained_due = all ? x.next : x.now;
    b->retained_rest = x.now + PAUSE;
}

/* Whether the store may have `more` messages and `bytes` bytes beside what it has. */
static bool retained_room(const pn_broker *b, uint32_t more, uint64_t bytes) {
    const pn_env *env = &b->env;
    return env->stats.retained + more <= env->limits.max_retained && env->stats.retained_bytes + bytes <= env->limits.max_retained_bytes;
}

/* PN_SUCCESS, or PN_QUOTA_EXCEEDED; then what was retained before is as it was. */
static uint8_t retain(pn_broker *b, pn_pub *pub) {
    void **slot = pn_trie_get(b->retained, pub->topic);
    if (pub->payload.n == 0) { /* MQTT-3.3.1-6 */
        if (slot && *slot) unretain(b, *slot);
        return PN_SUCCESS;
    }
    uint32_t bytes = pn_pub_bytes(pub), before = slot && *slot ? pn_message_bytes(*slot) : 0, more = !before;
    if (!retained_room(b, more, bytes > before ? bytes - before : 0)) {
        sweep_retained(b); /* it may have taken the one that was there */
        slot = pn_trie_get(b->retained, pub->topic);
        before = slot && *slot ? pn_message_bytes(*slot) : 0, more = !before;
        if (!retained_room(b, more, bytes > before ? bytes - before : 0)) {
            b->env.stats.dropped_retained_full++;
            return PN_QUOTA_EXCEEDED;
        }
    }
    pn_message *m = pn_pub_share(pub);
    if (m && !slot) slot = pn_trie_put(b->retained, pub->topic);
    if (!m || !slot) {
        pn_message_drop(m);
        b->env.stats.dropped_no_memory++;
        return PN_QUOTA_EXCEEDED;
    }
    pn_message_drop(*slot);
    *slot = m;
    b->env.stats.retained += more;
    b->env.stats.retained_bytes += (uint64_t)bytes - before;
    if (m->expires < b->retained_due) b->retained_due = m->expires;
    return PN_SUCCESS;
}

typedef struct routing {
    pn_broker *broker;
    pn_pub *pub;
} routing;

static void pass_on(void *ctx, pn_session *s, pn_pub *pub, const pn_delivery *how) {
    pn_broker *b = ctx;
    pn_session_deliver(s, pub, how, &b->env);
    if (s->link) mark_dirty(s->link);
}

static void route_one(void *ctx, pn_session *s, const pn_delivery *how) {
    const routing *r = ctx;
    pn_delivery d = *how;
    if (r->pub->qos < d.qos) d.qos = r->pub->qos; /* MQTT-3.8.4-8 */
    d.retain = d.retain && r->pub->retain;
    pass_on(r->broker, s, r->pub, &d);
}

/* Keeps it when it is to be retained, and sends it to everyone. PN_SUCCESS, PN_NO_MATCHING_SUBSCRIBERS or
 * PN_QUOTA_EXCEEDED, and then it went nowhere. */
static uint8_t publish(pn_broker *b, pn_pub *pub, const pn_session *publisher) {
    pn_message *before = pub->shared;
    uint8_t reason = PN_SUCCESS;
    if (pub->retain) reason = retain(b, pub);
    if (reason == PN_SUCCESS) {
        int64_t reached = pn_subs_route(b->subs, pub->topic, publisher, route_one, &(routing){b, pub});
        if (reached < 0) b->env.stats.dropped_no_memory++;
        if (reached <= 0) reason = reached < 0 ? PN_QUOTA_EXCEEDED : PN_NO_MATCHING_SUBSCRIBERS;
    }
    if (pub->shared != before) pn_message_drop(pub->shared);
    return reason;
}

bool pn_broker_publish(pn_broker *b, pn_span topic, pn_span payload, uint8_t qos, bool retained, int64_t now) {
    enter(b, now);
    pn_pub pub = {.topic = topic, .payload = payload, .qos = qos, .retain = retained, .expires = PN_NEVER};
    bool kept = publish(b, &pub, NULL) != PN_QUOTA_EXCEEDED;
    settle(b);
    return kept;
}

const pn_message *pn_broker_retained(const pn_broker *b, pn_span topic) {
    void **slot = pn_trie_get(b->retained, topic);
    const pn_message *m = slot ? *slot : NULL;
    return m && m->expires > b->env.now ? m : NULL;
}

static void publish_will(pn_broker *b, pn_session *s) {
    pn_message *will = s->will;
    s->will = NULL;
    s->will_at = PN_NEVER;
    if (!will) return;
    if (s->will_lifetime != PN_NEVER) will->expires = b->env.now + s->will_lifetime; /* nobody else has seen it yet */
    pn_pub pub = pn_message_pub(will);
    publish(b, &pub, s);
    pn_message_drop(will);
}

/* What of a PUBLISH or a will is forwarded unaltered (5.0 §3.3.2.3); when something must be left out, built in `scratch`. */
static bool forwarded(pn_broker *b, const pn_props *props, pn_span *out) {
    const uint64_t own = 1ull << PN_TOPIC_ALIAS | 1ull << PN_MESSAGE_EXPIRY_INTERVAL | 1ull << PN_WILL_DELAY_INTERVAL;
    *out = props->raw;
    if (!(props->present & own)) return true;
    pn_buf_drop(&b->scratch, pn_buf_len(&b->scratch));
    uint32_t at = 0;
    for (pn_prop p; pn_prop_next(props, &at, &p);) {
        if (!(own >> p.id & 1) && !pn_buf_add(&b->scratch, p.wire.p, p.wire.n)) return false;
    }
    *out = pn_span_of(pn_buf_head(&b->scratch), pn_buf_len(&b->scratch));
    return true;
}

/* Milliseconds that a message is valid for. */
static int64_t lifetime_of(const pn_props *props) {
    if (!pn_prop_has(props, PN_MESSAGE_EXPIRY_INTERVAL)) return PN_NEVER;
    return 1000 * (int64_t)pn_prop_num(props, PN_MESSAGE_EXPIRY_INTERVAL, 0);
}

/* --- the end of a link --- */

static int64_t later(int64_t now, uint32_t seconds) {
    return seconds == PN_EXPIRY_NEVER ? PN_NEVER : now + 1000 * (int64_t)seconds;
}

/* Does what is due to an offline session. False when that was its end. */
static bool session_wake(pn_broker *b, pn_session *s) {
    if (s->will_at <= b->env.now) publish_will(b, s);
    if (s->ends_at > b->env.now) return true;
    session_end(b, s);
    return false;
}

/* Leaves a session to time: its will and its end come when they are due, which may be now. */
static void session_sleep(pn_broker *b, pn_session *s) {
    s->ends_at = later(b->env.now, s->expiry);
    s->will_at = s->will ? later(b->env.now, s->will_delay) : PN_NEVER;
    if (s->will_at > s->ends_at) s->will_at = s->ends_at; /* 5.0 §3.1.3.2.2: whichever comes first */
    if (session_wake(b, s) && (s->ends_at != PN_NEVER || s->will)) sleepers_add(b, s);
}

/* The session goes on without its link, or ends with it. */
static void session_offline(pn_link *l, uint8_t reason, bool with_will) {
    pn_broker *b = l->broker;
    pn_session *s = l->session;
    l->session = NULL;
    s->link = NULL;
    pn_session_detach(s);
    raise_event(b, PN_EVENT_DISCONNECT, l, reason, NULL, (pn_span){0});
    if (!with_will) { /* MQTT-3.14.4-3 */
        pn_message_drop(s->will);
        s->will = NULL;
    }
    session_sleep(b, s);
}

/* Nothing more is read from this link; what is in its output may still go out. */
static void link_end(pn_link *l, uint8_t reason, bool with_will) {
    if (l->state == LINK_CLOSING) return;
    if (l->session) session_offline(l, reason, with_will);
    l->state = LINK_CLOSING;
    pn_buf_free(&l->in);
    raise_event(l->broker, PN_EVENT_CLOSED, l, reason, NULL, (pn_span){0});
    mark_dirty(l);
}

static void add_prop(pn_broker *b, pn_props *props, uint8_t id, pn_span text, uint32_t num) {
    size_t n = pn_prop_size(id, (pn_span){0}, text, num);
    uint8_t *at = pn_buf_room(&b->scratch, n);
    if (!at) return; /* a Reason String may be left out; for what may not, pn_link_accept makes room first */
    pn_prop_put(at, id, (pn_span){0}, text, num);
    b->scratch.tail += (uint32_t)n;
    props->present |= 1ull << id;
    props->raw = pn_span_of(pn_buf_head(&b->scratch), pn_buf_len(&b->scratch));
}

static pn_props props_begin(pn_broker *b) {
    pn_buf_drop(&b->scratch, pn_buf_len(&b->scratch));
    return (pn_props){0};
}

/* A Reason String (5.0 §3.1.2.11.7) where the client wants them: `text`, or the reason's name. It goes where it fits only. */
static void explain(pn_link *l, pn_packet *p, pn_span text) {
    pn_broker *b = l->broker;
    char words[48] = "";
    if (!text.n) {
        const char *name = pn_reason_name(p->reason);
        size_t n = name ? strlen(name) : 0;
        if (!n || n >= sizeof words) return;
        for (size_t i = 0; i < n; i++) words[i] = name[i] == '_' ? ' ' : name[i];
        text = pn_span_of(words, n);
    }
    pn_props before = p->props;
    add_prop(b, &p->props, PN_REASON_STRING, text, 0);
    int64_t n = pn_packet_encode(p, PN_V5, NULL, 0);
    if (n < 0 || n > l->wire.max_packet) { /* MQTT-3.2.2-19, MQTT-3.4.2-2, MQTT-3.14.2-3 */
        p->props = before;
        p->props.raw = pn_span_of(pn_buf_head(&b->scratch), before.raw.n);
    }
}

/* The acknowledgement of a publication, with its reason in words where that is worth it. */
static void acknowledge(pn_link *l, uint8_t type, uint16_t id, uint8_t reason) {
    pn_env *env = &l->broker->env;
    if (reason < 0x80 || !l->wire.explains) {
        pn_wire_ack(&l->wire, type, id, reason, env);
        return;
    }
    pn_packet p = {.type = type, .id = id, .reason = reason, .props = props_begin(l->broker)};
    explain(l, &p, (pn_span){0});
    pn_wire_send(&l->wire, &p, env);
}

/* The last word to a 5.0 client that was let in. `text` is the Server Reference for the two reasons that have one, else the Reason String. */
static void send_disconnect(pn_link *l, uint8_t reason, pn_span text) {
    if (l->state != LINK_LIVE || l->version < PN_V5 || l->wire.broken) return;
    pn_packet p = {.type = PN_DISCONNECT, .reason = reason, .props = props_begin(l->broker)};
    if ((reason == PN_USE_ANOTHER_SERVER || reason == PN_SERVER_MOVED) && text.n) {
        add_prop(l->broker, &p.props, PN_SERVER_REFERENCE, text, 0);
    } else if (text.n || (l->wire.explains && reason >= 0x80)) {
        explain(l, &p, text);
    }
    pn_wire_send(&l->wire, &p, &l->broker->env);
}

/* Ends a link because of what its peer did, or on our own account: with a DISCONNECT where the protocol has one. */
static void link_fail(pn_link *l, uint8_t reason) {
    if (l->state == LINK_CLOSING) return;
    if (l->state == LINK_LIVE && reason == PN_UNSUPPORTED_VERSION) reason = PN_PROTOCOL_ERROR; /* MQTT-3.1.0-2, whatever it asks for */
    send_disconnect(l, reason, (pn_span){0});
    if (l->state == LINK_NEW && reason == PN_UNSUPPORTED_VERSION) { /* MQTT-3.1.2-2, 3.1.1: return code 1 */
        l->wire.version = PN_V311;
        pn_packet p = {.type = PN_CONNACK, .reason = 1};
        pn_wire_send(&l->wire, &p, &l->broker->env);
    }
    link_end(l, reason, true);
}

/* Every call that can make output ends here: links whose wires broke in its course are ended. Their wills may break others. */
static void settle(pn_broker *b) {
    for (pn_wire *w; (w = b->env.broken) != NULL;) {
        b->env.broken = w->next_broken;
        link_fail((pn_link *)((char *)w - offsetof(pn_link, wire)), PN_QUOTA_EXCEEDED);
    }
}

void pn_link_close(pn_link *l, uint8_t reason, pn_span text, int64_t now) {
    enter(l->broker, now);
    if (l->state == LINK_CLOSING) return;
    send_disconnect(l, reason, text);
    link_end(l, reason, reason != PN_SUCCESS);
    settle(l->broker);
}

static void link_free(pn_link *l) {
    pn_broker *b = l->broker;
    unmark_dirty(l);
    b->links[l->index] = b->links[--b->link_count];
    b->links[l->index]->index = l->index;
    b->env.stats.links = b->link_count;
    for (uint16_t i = 0; l->aliases && i < l->alias_max; i++) pn_message_drop(l->aliases[i]);
    pn_free(l->aliases);
    pn_buf_free(&l->in);
    pn_buf_free(&l->method);
    pn_buf_free(&l->proof);
    pn_wire_free(&l->wire);
    pn_free(l);
}

void pn_link_lost(pn_link *l, int64_t now) {
    pn_broker *b = l->broker;
    enter(b, now);
    if (l->session) session_offline(l, PN_UNSPECIFIED_ERROR, true);
    settle(b);
    link_free(l);
}

/* --- CONNECT --- */

bool pn_link_connect(const pn_link *l, pn_packet *out) {
    if (l->state != LINK_ASKING) return false;
    return pn_packet_decode(pn_buf_head(&l->in), pn_buf_len(&l->in), 0, l->broker->env.limits.max_packet_size, out) > 0;
}

/* The return code of 3.1.1 (§3.2.2.3) nearest to a reason code of 5.0. */
static uint8_t return_code(uint8_t reason) {
    switch (reason) {
    case PN_SUCCESS: return 0;
    case PN_UNSUPPORTED_VERSION: return 1;
    case PN_CLIENT_ID_NOT_VALID: return 2;
    case PN_SERVER_UNAVAILABLE:
    case PN_SERVER_BUSY:
    case PN_SERVER_SHUTTING_DOWN:
    case PN_USE_ANOTHER_SERVER:
    case PN_SERVER_MOVED:
    case PN_CONNECTION_RATE_EXCEEDED:
    case PN_UNSPECIFIED_ERROR:
    case PN_QUOTA_EXCEEDED: return 3;
    case PN_BAD_USER_OR_PASSWORD: return 4;
    default: return 5;
    }
}

static void refuse(pn_link *l, uint8_t reason, pn_span text) {
    pn_broker *b = l->broker;
    pn_packet connect;
    if (!pn_link_connect(l, &connect)) return;
    pn_packet p = {.type = PN_CONNACK, .reason = l->version >= PN_V5 ? reason : return_code(reason)};
    l->wire.version = l->version;
    if (l->version >= PN_V5) {
        l->wire.max_packet = pn_prop_num(&connect.props, PN_MAXIMUM_PACKET_SIZE, PN_PACKET_SIZE_MAX);
        p.props = props_begin(b);
        bool referred = (reason == PN_USE_ANOTHER_SERVER || reason == PN_SERVER_MOVED) && text.n;
        if (referred) {
            add_prop(b, &p.props, PN_SERVER_REFERENCE, text, 0);
        } else if (text.n || pn_prop_num(&connect.props, PN_REQUEST_PROBLEM_INFORMATION, 0)) {
            explain(l, &p, text);
        }
    }
    pn_wire_send(&l->wire, &p, &b->env);
    link_end(l, reason, false);
}

void pn_link_refuse(pn_link *l, uint8_t reason, pn_span text, int64_t now) {
    enter(l->broker, now);
    refuse(l, reason, text);
    settle(l->broker);
}

/* MQTT-3.1.2-8: the will is kept with the session. False without memory. */
static bool keep_will(pn_broker *b, pn_session *s, const pn_packet *connect) {
    if (!connect->has_will) return true;
    pn_pub pub = {.topic = connect->will_topic, .payload = connect->will_payload, .qos = connect->will_qos,
                  .retain = connect->will_retain, .expires = PN_NEVER};
    if (!forwarded(b, &connect->will_props, &pub.props)) return false;
    s->will = pn_message_new(&pub);
    s->will_lifetime = lifetime_of(&connect->will_props); /* 5.0 §3.1.3.2.4: counted from its publication */
    s->will_delay = pn_prop_num(&connect->will_props, PN_WILL_DELAY_INTERVAL, 0);
    return s->will != NULL;
}

/* The session under `v->session`, emptied or as it was left, without a link; NULL when there is no room for one. */
static pn_session *session_for(pn_broker *b, const pn_verdict *v, bool clean_start, bool *present) {
    pn_session *s = session_find(b, v->session);
    if (s && s->link) { /* MQTT-3.1.4-3 */
        pn_link *other = s->link;
        link_fail(other, PN_SESSION_TAKEN_OVER);
        s = session_find(b, v->session);
    } else if (s && !session_wake(b, s)) { /* its time was up before a tick said so */
        s = NULL;
    }
    if (s && clean_start) { /* MQTT-3.1.2-4 */
        publish_will(b, s); /* 5.0 §3.1.3.2.2: a delayed will is due when its session ends */
        session_end(b, s);
        s = NULL;
    }
    *present = s != NULL;
    if (!s) return session_begin(b, v->session, v->identity);
    sleepers_remove(b, s);
    pn_message_drop(s->will); /* MQTT-3.1.3-9: the client is back before the delay is over */
    s->will = NULL;
    s->will_at = s->ends_at = PN_NEVER;
    return s;
}

static void drain(pn_link *l);

/* Whether a payload that calls itself text is (5.0 §3.3.2.3.2: a receiver may check). */
static bool payload_is_as_said(const pn_broker *b, const pn_props *props, pn_span payload) {
    if (!b->env.limits.payload_format_check || !pn_prop_num(props, PN_PAYLOAD_FORMAT_INDICATOR, 0)) return true;
    return pn_utf8_valid(payload.p, payload.n);
}

/* Seconds that the session is to outlive its connection: what the client wishes, and what it gets (5.0 §3.1.2.11.2; §3.1.2.4 says how 3.1.1 maps). */
static uint32_t wished_expiry(const pn_link *l, const pn_packet *connect) {
    if (connect->version >= PN_V5) return pn_prop_num(&connect->props, PN_SESSION_EXPIRY_INTERVAL, 0);
    return connect->clean_start ? 0 : l->broker->env.limits.max_session_expiry;
}

static uint32_t granted_expiry(const pn_link *l, const pn_packet *connect) {
    uint32_t wish = wished_expiry(l, connect), most = l->broker->env.limits.max_session_expiry;
    return wish < most ? wish : most;
}

/* What the CONNECT says about the connection, within our limits. */
static void set_up(pn_link *l, const pn_packet *connect) {
    const pn_limits *limits = &l->broker->env.limits;
    const pn_props *props = &connect->props; /* empty before 5.0, so that the defaults count */
    bool v5 = connect->version >= PN_V5;
    l->keep_alive = connect->keep_alive;
    if (v5 && (l->keep_alive == 0 || l->keep_alive > limits->max_keep_alive) && limits->max_keep_alive < PN_MAX_KEEP_ALIVE) {
        l->keep_alive = (uint16_t)limits->max_keep_alive; /* MQTT-3.1.2-21 */
    }
    uint32_t window = pn_prop_num(props, PN_RECEIVE_MAXIMUM, 65535), aliases = pn_prop_num(props, PN_TOPIC_ALIAS_MAXIMUM, 0);
    l->wire.window = (uint16_t)(window < limits->max_inflight ? window : limits->max_inflight);
    l->wire.max_packet = pn_prop_num(props, PN_MAXIMUM_PACKET_SIZE, PN_PACKET_SIZE_MAX);
    l->wire.version = connect->version;
    l->wire.explains = pn_prop_num(props, PN_REQUEST_PROBLEM_INFORMATION, 0); /* absent would allow it too; asked for is better */
    l->wire.alias_max = (uint16_t)(aliases < limits->topic_alias_maximum ? aliases : limits->topic_alias_maximum);
    l->alias_max = v5 ? (uint16_t)limits->topic_alias_maximum : 0;
}

/* The CONNACK that lets the client in; its properties are in `scratch`, where objection has seen to the room. */
static pn_packet connack(pn_link *l, const pn_verdict *v, const pn_packet *connect, bool present) {
    pn_broker *b = l->broker;
    const pn_limits *limits = &b->env.limits;
    const pn_span none = {0};
    pn_packet ack = {.type = PN_CONNACK, .session_present = present && connect->version >= PN_V311};
    if (connect->version < PN_V5) return ack;
    pn_props *props = &ack.props;
    *props = props_begin(b);
    uint32_t expiry = granted_expiry(l, connect);
    if (expiry != wished_expiry(l, connect)) add_prop(b, props, PN_SESSION_EXPIRY_INTERVAL, none, expiry);
    add_prop(b, props, PN_RECEIVE_MAXIMUM, none, limits->receive_maximum);
    add_prop(b, props, PN_MAXIMUM_PACKET_SIZE, none, limits->max_packet_size);
    if (v->assigned.n) add_prop(b, props, PN_ASSIGNED_CLIENT_IDENTIFIER, v->assigned, 0);
    if (l->keep_alive != connect->keep_alive) add_prop(b, props, PN_SERVER_KEEP_ALIVE, none, l->keep_alive);
    if (l->alias_max) add_prop(b, props, PN_TOPIC_ALIAS_MAXIMUM, none, l->alias_max);
    if (limits->max_qos < 2) add_prop(b, props, PN_MAXIMUM_QOS, none, limits->max_qos);
    if (!limits->retain_available) add_prop(b, props, PN_RETAIN_AVAILABLE, none, 0);
    if (!limits->wildcard_subscriptions) add_prop(b, props, PN_WILDCARD_SUBSCRIPTION_AVAILABLE, none, 0);
    if (!limits->shared_subscriptions) add_prop(b, props, PN_SHARED_SUBSCRIPTION_AVAILABLE, none, 0);
    if (v->response_information.n && pn_prop_num(&connect->props, PN_REQUEST_RESPONSE_INFORMATION, 0)) { /* MQTT-3.1.2-28 */
        add_prop(b, props, PN_RESPONSE_INFORMATION, v->response_information, 0);
    }
    if (pn_buf_len(&l->method)) { /* MQTT-4.12.0-5 */
        add_prop(b, props, PN_AUTHENTICATION_METHOD, pn_span_of(pn_buf_head(&l->method), pn_buf_len(&l->method)), 0);
        if (v->proof.n) add_prop(b, props, PN_AUTHENTICATION_DATA, v->proof, 0);
    }
    return ack;
}

/* What stands against letting the client in although the driver would; PN_SUCCESS: nothing. */
static uint8_t objection(pn_link *l, const pn_verdict *v, const pn_packet *connect) {
    enum { PROPS = 96 }; /* bytes of all properties that a CONNACK may have, without the texts */
    pn_broker *b = l->broker;
    const pn_limits *limits = &b->env.limits;
    if (connect->has_will) {
        if (connect->will_qos > limits->max_qos) return PN_QOS_NOT_SUPPORTED;                        /* MQTT-3.2.2-12 */
        if (connect->will_retain && !limits->retain_available) return PN_RETAIN_NOT_SUPPORTED;       /* MQTT-3.2.2-13 */
        if (!payload_is_as_said(b, &connect->will_props, connect->will_payload)) return PN_PAYLOAD_FORMAT_INVALID;
        if (!pn_topic_name_valid(connect->will_topic, limits->max_topic_length, limits->max_topic_levels)) return PN_TOPIC_NAME_INVALID;
        const pn_rules *rules = pn_broker_rules(b, v->rules);
        if (!rules || !pn_rules_may_publish(rules, v->identity, connect->will_topic, connect->will_retain, NULL)) {
            raise_denied(l, "will ", connect->will_topic);
            return PN_NOT_AUTHORIZED;
        }
    }
    props_begin(b);
    size_t texts = (size_t)v->assigned.n + v->proof.n + v->response_information.n + pn_buf_len(&l->method);
    if (!pn_buf_room(&b->scratch, PROPS + texts)) return PN_QUOTA_EXCEEDED;
    pn_packet ack = connack(l, v, connect, false);
    int64_t size = pn_packet_encode(&ack, connect->version, NULL, 0);
    return size > 0 && size <= l->wire.max_packet ? PN_SUCCESS : PN_PACKET_TOO_LARGE; /* MQTT-3.2.0-1: nothing can go before it */
}

bool pn_link_accept(pn_link *l, const pn_verdict *v, int64_t now) {
    pn_broker *b = l->broker;
    pn_env *env = enter(b, now);
    pn_packet c;
    if (!pn_link_connect(l, &c)) return false;
    set_up(l, &c);
    bool present = false;
    pn_session *s = NULL;
    uint8_t reason = objection(l, v, &c);
    if (!reason) {
        s = session_for(b, v, c.clean_start, &present);
        if (!s || !keep_will(b, s, &c)) reason = PN_QUOTA_EXCEEDED;
    }
    if (reason) {
        if (s) session_sleep(b, s); /* no room for its will: a session that was there goes on sleeping */
        refuse(l, reason, (pn_span){0});
        settle(b);
        return false;
    }
    s->expiry = granted_expiry(l, &c);
    s->version = c.version;
    bool judged_anew = present && s->rules != v->rules;
    s->rules = v->rules;
    if (judged_anew) judge(b, s);
    pn_packet ack = connack(l, v, &c, present);
    pn_wire_send(&l->wire, &ack, env);
    pn_buf_free(&l->proof);
    l->session = s;
    l->state = LINK_LIVE;
    s->link = l;
    pn_buf_drop(&l->in, (size_t)pn_packet_size(pn_buf_head(&l->in), pn_buf_len(&l->in)));
    pn_session_attach(s, &l->wire, env);
    drain(l);
    mark_dirty(l);
    settle(b);
    return true;
}

/* --- packets from the client --- */

/* A handler returns PN_SUCCESS, or the reason code with which the link ends. */

/* The topic of a PUBLISH, by way of its Topic Alias where it has one (5.0 §3.3.2.3.4). */
static uint8_t resolve_topic(pn_link *l, const pn_packet *p, pn_span *topic) {
    const pn_limits *limits = &l->broker->env.limits;
    *topic = p->topic;
    uint32_t alias = p->props.present ? pn_prop_num(&p->props, PN_TOPIC_ALIAS, 0) : 0;
    if (alias > l->alias_max) return PN_TOPIC_ALIAS_INVALID; /* MQTT-3.3.2-9 */
    if (alias && !p->topic.n) {
        pn_message *known = l->aliases ? l->aliases[alias - 1] : NULL;
        if (!known) return PN_PROTOCOL_ERROR; /* 5.0 §3.3.2.3.4 */
        *topic = known->topic;
        return PN_SUCCESS;
    }
    if (!pn_topic_name_valid(p->topic, limits->max_topic_length, limits->max_topic_levels)) return PN_TOPIC_NAME_INVALID;
    if (!alias) return PN_SUCCESS;
    if (!l->aliases) l->aliases = pn_calloc(l->alias_max, sizeof *l->aliases);
    pn_message *known = l->aliases ? pn_message_new(&(pn_pub){.topic = p->topic, .expires = PN_NEVER}) : NULL;
    if (!known) return PN_QUOTA_EXCEEDED;
    pn_message_drop(l->aliases[alias - 1]);
    l->aliases[alias - 1] = known;
    return PN_SUCCESS;
}

/* Counts against a rate: so much a second, in whole seconds from the first. */
static bool too_fast(pn_link *l, uint32_t publishes, size_t bytes) {
    const pn_env *env = &l->broker->env;
    if (!env->limits.publish_rate && !env->limits.byte_rate) return false;
    if (env->now - l->rate_since >= 1000) {
        l->rate_since = env->now;
        l->rate_publishes = l->rate_bytes = 0;
    }
    l->rate_publishes += publishes;
    l->rate_bytes = bytes > UINT32_MAX - l->rate_bytes ? UINT32_MAX : l->rate_bytes + (uint32_t)bytes;
    return (env->limits.publish_rate && l->rate_publishes > env->limits.publish_rate) ||
           (env->limits.byte_rate && l->rate_bytes > env->limits.byte_rate);
}

/* What becomes of a PUBLISH that has not been here before: sent on, or the reason why not. */
static uint8_t judge_publish(pn_link *l, const pn_packet *p, pn_span topic) {
    pn_broker *b = l->broker;
    pn_session *s = l->session;
    const pn_rules *rules = pn_broker_rules(b, s->rules);
    if (!rules || !pn_rules_may_publish(rules, pn_session_identity(s), topic, p->retain, NULL)) {
        raise_denied(l, p->retain ? "publish retained " : "publish ", topic);
        return PN_NOT_AUTHORIZED; /* 3.1.1 has no word for it: acknowledged and dropped (3.1.1 MQTT-3.3.5-2) */
    }
    pn_pub pub = {.topic = topic, .payload = p->payload, .qos = p->qos, .retain = p->retain, .expires = PN_NEVER};
    if (p->props.present) {
        if (!payload_is_as_said(b, &p->props, p->payload)) return PN_PAYLOAD_FORMAT_INVALID;
        int64_t lifetime = lifetime_of(&p->props);
        if (lifetime != PN_NEVER) pub.expires = b->env.now + lifetime;
    }
    return forwarded(b, &p->props, &pub.props) ? publish(b, &pub, s) : PN_QUOTA_EXCEEDED;
}

static uint8_t on_publish(pn_link *l, const pn_packet *p) {
    pn_env *env = &l->broker->env;
    pn_session *s = l->session;
    env->stats.publishes_in++;
    if (too_fast(l, 1, 0)) return PN_MESSAGE_RATE_TOO_HIGH;
    if (p->qos > env->limits.max_qos) return PN_QOS_NOT_SUPPORTED;                        /* MQTT-3.2.2-11 */
    if (p->retain && !env->limits.retain_available) return PN_RETAIN_NOT_SUPPORTED;       /* MQTT-3.2.2-14 */
    if (pn_prop_has(&p->props, PN_SUBSCRIPTION_IDENTIFIER)) return PN_PROTOCOL_ERROR;      /* MQTT-3.3.4-6 */
    pn_span topic;
    uint8_t reason = resolve_topic(l, p, &topic);
    if (reason) return reason;
    bool again = false;
    if (p->qos == 2) {
        uint8_t begun = pn_session_begin_qos2(s, p->id, env);
        if (begun == PN_RECEIVE_MAXIMUM_EXCEEDED || begun == PN_QUOTA_EXCEEDED) return begun; /* MQTT-3.3.4-7 */
        again = begun == PN_PACKET_ID_IN_USE; /* MQTT-4.3.3-10 */
    }
    if (!again) reason = judge_publish(l, p, topic);
    if (p->qos == 0) return reason == PN_PAYLOAD_FORMAT_INVALID ? reason : PN_SUCCESS; /* there is no other way to tell */
    if (p->qos == 2 && reason >= 0x80) pn_session_end_qos2(s, p->id); /* MQTT-4.3.3: a PUBREC of 0x80 or more ends the exchange */
    acknowledge(l, p->qos == 1 ? PN_PUBACK : PN_PUBREC, p->id, reason);
    return PN_SUCCESS;
}

static uint8_t on_ack(pn_link *l, const pn_packet *p) {
    pn_session_acked(l->session, p->type, p->id, p->reason, &l->broker->env);
    return PN_SUCCESS;
}

static uint8_t on_pubrel(pn_link *l, const pn_packet *p) {
    bool known = pn_session_end_qos2(l->session, p->id);
    pn_wire_ack(&l->wire, PN_PUBCOMP, p->id, known ? PN_SUCCESS : PN_PACKET_ID_NOT_FOUND, &l->broker->env); /* MQTT-4.3.3-11 */
    return PN_SUCCESS;
}

/* What a SUBSCRIBE's filter is answered with; below 0x80 it is in force. */
static uint8_t subscribe_one(pn_link *l, const pn_filter *f, uint32_t id, bool *existed) {
    pn_broker *b = l->broker;
    pn_session *s = l->session;
    const pn_limits *limits = &b->env.limits;
    pn_span group, filter;
    if (!pn_subs_split(f->filter, &group, &filter)) return PN_TOPIC_FILTER_INVALID;
    if (group.n && !limits->shared_subscriptions) return PN_SHARED_NOT_SUPPORTED;
    if (!pn_topic_filter_valid(filter, limits->max_topic_length, limits->max_topic_levels)) return PN_TOPIC_FILTER_INVALID;
    if (!limits->wildcard_subscriptions && pn_topic_has_wildcard(filter)) return PN_WILDCARDS_NOT_SUPPORTED;
    const pn_rules *rules = pn_broker_rules(b, s->rules);
    if (!rules || !pn_rules_may_subscribe(rules, pn_session_identity(s), filter, NULL)) {
        raise_denied(l, "subscribe ", f->filter);
        return PN_NOT_AUTHORIZED;
    }
    pn_filter granted = *f;
    if (granted.qos > limits->max_qos) granted.qos = (uint8_t)limits->max_qos; /* MQTT-3.2.2-9, MQTT-3.8.4-7 */
    uint8_t failed = pn_subs_add(b->subs, s, &granted, id, existed, &b->env);
    return failed ? failed : granted.qos;
}

typedef struct retained_walk {
    pn_broker *broker;
    pn_session *session;
    uint8_t qos;
    uint32_t id; /* Subscription Identifier, or 0 */
} retained_walk;

/* Goes on until the client cannot take any more: a hostile SUBSCRIBE is not worth a walk through the whole store for each filter. */
static bool deliver_retained(void *ctx, void *value) {
    const retained_walk *w = ctx;
    pn_message *m = value;
    pn_env *env = &w->broker->env;
    if (m->expires <= env->now) return true;
    pn_pub pub = pn_message_pub(m);
    uint64_t dropped = env->stats.dropped_slow_reader + env->stats.dropped_queue_full;
    pn_delivery how = {.qos = m->qos < w->qos ? m->qos : w->qos, .retain = true, .ids = &w->id, .id_count = w->id != 0}; /* MQTT-3.3.1-8 */
    pn_session_deliver(w->session, &pub, &how, env);
    return env->stats.dropped_slow_reader + env->stats.dropped_queue_full == dropped;
}

static uint8_t on_subscribe(pn_link *l, const pn_packet *p) {
    enum { SKIP_RETAINED = 0x40 }; /* in a verdict, beside the granted QoS */
    pn_broker *b = l->broker;
    uint32_t id = pn_prop_num(&p->props, PN_SUBSCRIPTION_IDENTIFIER, 0), at = 0;
    for (pn_filter f; pn_filter_next(p, &at, &f);) {
        if (f.no_local && pn_topic_is_shared(f.filter)) return PN_PROTOCOL_ERROR; /* MQTT-3.8.3-4 */
    }
    pn_buf verdicts = {0}, *wire = &b->scratch;
    pn_buf_drop(wire, pn_buf_len(wire));
    at = 0;
    bool kept = true;
    for (pn_filter f; kept && pn_filter_next(p, &at, &f);) {
        bool existed = false;
        uint8_t verdict = subscribe_one(l, &f, id, &existed);
        uint8_t reason = verdict >= 0x80 && l->version < PN_V5 ? PN_UNSPECIFIED_ERROR : verdict; /* 3.1.1 MQTT-3.9.3-2 */
        bool skip = f.retain_handling == 2 || (f.retain_handling == 1 && existed) || pn_topic_is_shared(f.filter); /* 5.0 §4.8.2 */
        if (verdict < 0x80 && skip) verdict |= SKIP_RETAINED;
        kept = pn_buf_add(&verdicts, &verdict, 1) && pn_buf_add(wire, &reason, 1);
    }
    if (kept) {
        pn_packet ack = {.type = PN_SUBACK, .id = p->id, .payload = {pn_buf_head(wire), pn_buf_len(wire)}};
        pn_wire_send(&l->wire, &ack, &b->env);
        const uint8_t *verdict = pn_buf_head(&verdicts);
        at = 0;
        for (pn_filter f; pn_filter_next(p, &at, &f); verdict++) {
            if (*verdict > 2) continue;
            pn_trie_search(b->retained, f.filter, deliver_retained, &(retained_walk){b, l->session, *verdict, id});
        }
    }
    pn_buf_free(&verdicts);
    return kept ? PN_SUCCESS : PN_QUOTA_EXCEEDED;
}

static uint8_t on_unsubscribe(pn_link *l, const pn_packet *p) {
    pn_broker *b = l->broker;
    pn_buf *reasons = &b->scratch;
    pn_buf_drop(reasons, pn_buf_len(reasons));
    uint32_t at = 0;
    for (pn_filter f; pn_filter_next(p, &at, &f);) {
        bool existed = pn_subs_remove(b->subs, l->session, f.filter, &b->env);
        uint8_t reason = existed ? PN_SUCCESS : PN_NO_SUBSCRIPTION_EXISTED;
        if (!pn_buf_add(reasons, &reason, 1)) return PN_QUOTA_EXCEEDED;
    }
    pn_packet ack = {.type = PN_UNSUBACK, .id = p->id};
    if (l->version >= PN_V5) ack.payload = pn_span_of(pn_buf_head(reasons), pn_buf_len(reasons));
    pn_wire_send(&l->wire, &ack, &b->env);
    return PN_SUCCESS;
}

static uint8_t on_pingreq(pn_link *l, const pn_packet *p) {
    (void)p;
    pn_packet answer = {.type = PN_PINGRESP};
    pn_wire_send(&l->wire, &answer, &l->broker->env);
    return PN_SUCCESS;
}

static uint8_t on_disconnect(pn_link *l, const pn_packet *p) {
    pn_session *s = l->session;
    if (pn_prop_has(&p->props, PN_SESSION_EXPIRY_INTERVAL)) {
        uint32_t wish = pn_prop_num(&p->props, PN_SESSION_EXPIRY_INTERVAL, 0), most = l->broker->env.limits.max_session_expiry;
        if (s->expiry == 0 && wish != 0 && most != 0) return PN_PROTOCOL_ERROR; /* 5.0 §3.14.2.2.2; with 0 the most, it was us who made it 0 */
        s->expiry = wish < most ? wish : most;
    }
    link_end(l, p->reason, p->reason != PN_SUCCESS);
    return PN_SUCCESS;
}

/* Whether a packet names the method that this connection began with (MQTT-4.12.0-5, MQTT-4.12.1-1). */
static bool same_method(const pn_link *l, const pn_packet *p) {
    pn_prop method;
    return pn_buf_len(&l->method) && pn_prop_find(&p->props, PN_AUTHENTICATION_METHOD, &method) &&
           pn_span_eq(method.value, pn_span_of(pn_buf_head(&l->method), pn_buf_len(&l->method)));
}

/* Hands the data of an AUTH to the driver. */
static uint8_t ask_proof(pn_link *l, const pn_packet *p) {
    pn_prop data;
    pn_buf_drop(&l->proof, pn_buf_len(&l->proof));
    if (pn_prop_find(&p->props, PN_AUTHENTICATION_DATA, &data) && !pn_buf_add(&l->proof, data.value.p, data.value.n)) {
        return PN_QUOTA_EXCEEDED;
    }
    raise_event(l->broker, PN_EVENT_AUTH, l, p->reason, NULL, (pn_span){0});
    return PN_SUCCESS;
}

/* AUTH of a client that is in: it begins to authenticate anew, or goes on with that (5.0 §4.12.1). */
static uint8_t on_auth(pn_link *l, const pn_packet *p) {
    bool begins = p->reason == PN_REAUTHENTICATE;
    if (!same_method(l, p) || (begins ? l->proving != REAUTH_NONE : p->reason != PN_CONTINUE_AUTHENTICATION || l->proving != REAUTH_WAITING)) {
        return PN_PROTOCOL_ERROR;
    }
    l->proving = REAUTH_ASKING;
    return ask_proof(l, p);
}

static uint8_t on_connect_again(pn_link *l, const pn_packet *p) {
    (void)l, (void)p;
    return PN_PROTOCOL_ERROR; /* MQTT-3.1.0-2 */
}

/* What a server may be sent once it has answered a CONNECT. NULL: only servers send it. */
static uint8_t (*const handlers[PN_TYPES])(pn_link *, const pn_packet *) = {
    [PN_CONNECT] = on_connect_again, [PN_PUBLISH] = on_publish,         [PN_PUBACK] = on_ack,
    [PN_PUBREC] = on_ack,            [PN_PUBREL] = on_pubrel,           [PN_PUBCOMP] = on_ack,
    [PN_SUBSCRIBE] = on_subscribe,   [PN_UNSUBSCRIBE] = on_unsubscribe, [PN_PINGREQ] = on_pingreq,
    [PN_DISCONNECT] = on_disconnect, [PN_AUTH] = on_auth,
};

/* Takes one packet from `data`. Bytes consumed; 0: no more can be taken now. The link may have ended. */
static size_t step(pn_link *l, const uint8_t *data, size_t n) {
    pn_broker *b = l->broker;
    pn_packet p;
    int64_t used = pn_packet_decode(data, n, l->version, b->env.limits.max_packet_size, &p);
    if (used <= 0) {
        if (used < 0) link_fail(l, (uint8_t)-used);
        return 0;
    }
    b->env.stats.packets_in++;
    if (l->state == LINK_NEW) { /* a CONNECT, which stays at the head of `in` until the verdict: see ask */
        l->version = p.version;
        l->state = LINK_ASKING;
        return 0;
    }
    uint8_t (*handle)(pn_link *, const pn_packet *) = handlers[p.type];
    uint8_t reason = handle ? handle(l, &p) : PN_PROTOCOL_ERROR;
    if (reason) link_fail(l, reason);
    return (size_t)used;
}

/* Works off what is in `in`, as far as it goes. */
static void drain(pn_link *l) {
    size_t used;
    while (l->state == LINK_LIVE && !l->wire.broken && pn_buf_len(&l->in) &&
           (used = step(l, pn_buf_head(&l->in), pn_buf_len(&l->in))) != 0) {
        if (l->state == LINK_LIVE) pn_buf_drop(&l->in, used);
    }
    if (pn_buf_len(&l->in) == 0) pn_buf_free(&l->in);
}

/* Keeps bytes for later. */
static bool keep(pn_link *l, const uint8_t *data, size_t n) {
    if (pn_buf_add(&l->in, data, n)) return true;
    link_fail(l, PN_QUOTA_EXCEEDED);
    return false;
}

/* Whether what a client that waits for its verdict has sent behind its CONNECT is too much with `n` bytes more. */
static bool parks_too_much(const pn_link *l, size_t n) {
    size_t held = pn_buf_len(&l->in);
    return held + n > (size_t)pn_packet_size(pn_buf_head(&l->in), held) + l->broker->env.limits.max_parked_bytes;
}

/* A CONNECT is at the head of `in`: asks the driver for its verdict, unless there is nothing to ask. */
static void ask(pn_link *l) {
    pn_packet connect;
    if (!pn_link_connect(l, &connect)) return;
    if (connect.client_id.n > l->broker->env.limits.max_client_id) {
        refuse(l, PN_CLIENT_ID_NOT_VALID, (pn_span){0}); /* MQTT-3.1.3-8; 3.1.1 MQTT-3.1.3-9 */
    } else if (parks_too_much(l, 0)) {
        link_fail(l, PN_QUOTA_EXCEEDED);
    } else {
        pn_prop method;
        if (pn_prop_find(&connect.props, PN_AUTHENTICATION_METHOD, &method) &&
            !pn_buf_add(&l->method, method.value.p, method.value.n)) {
            link_fail(l, PN_QUOTA_EXCEEDED);
            return;
        }
        raise_event(l->broker, PN_EVENT_CONNECT, l, PN_SUCCESS, NULL, (pn_span){0});
    }
}

/* Sends an AUTH with the connection's method. */
static void send_auth(pn_link *l, uint8_t reason, pn_span data) {
    pn_broker *b = l->broker;
    pn_packet p = {.type = PN_AUTH, .reason = reason, .props = props_begin(b)};
    if (!pn_buf_room(&b->scratch, 16 + (size_t)pn_buf_len(&l->method) + data.n)) {
        link_fail(l, PN_QUOTA_EXCEEDED);
        return;
    }
    add_prop(b, &p.props, PN_AUTHENTICATION_METHOD, pn_span_of(pn_buf_head(&l->method), pn_buf_len(&l->method)), 0);
    if (data.n) add_prop(b, &p.props, PN_AUTHENTICATION_DATA, data, 0);
    pn_wire_send(&l->wire, &p, &b->env);
}

/* The client's AUTH behind its CONNECT, when it is there: the only thing but a DISCONNECT that may come now (MQTT-3.1.2-30). */
static void prove(pn_link *l) {
    uint8_t *head = l->in.p + l->in.head;
    size_t held = pn_buf_len(&l->in), connect = (size_t)pn_packet_size(head, held);
    pn_packet p;
    int64_t used = pn_packet_decode(head + connect, held - connect, l->version, l->broker->env.limits.max_parked_bytes, &p);
    if (used == 0) return;
    if (used > 0 && p.type == PN_DISCONNECT) {
        link_end(l, p.reason, false);
        return;
    }
    uint8_t reason = PN_PROTOCOL_ERROR;
    if (used < 0) {
        reason = (uint8_t)-used;
    } else if (p.type == PN_AUTH && p.reason == PN_CONTINUE_AUTHENTICATION && same_method(l, &p)) {
        l->state = LINK_ASKING;
        reason = ask_proof(l, &p);
        memmove(head + connect, head + connect + used, held - connect - (size_t)used);
        l->in.tail -= (uint32_t)used;
    }
    if (reason) {
        l->state = LINK_ASKING; /* so that it is answered with a CONNACK */
        refuse(l, reason, (pn_span){0});
    }
}

bool pn_link_proof(const pn_link *l, pn_span *method, pn_span *data) {
    *method = pn_span_of(pn_buf_head(&l->method), pn_buf_len(&l->method));
    *data = pn_span_of(pn_buf_head(&l->proof), pn_buf_len(&l->proof));
    return l->state == LINK_ASKING ? method->n != 0 : l->state == LINK_LIVE && l->proving == REAUTH_ASKING;
}

bool pn_link_challenge(pn_link *l, pn_span data, int64_t now) {
    enter(l->broker, now);
    pn_span method, proof;
    if (!pn_link_proof(l, &method, &proof)) return false;
    l->wire.version = l->version;
    send_auth(l, PN_CONTINUE_AUTHENTICATION, data);
    if (l->state == LINK_LIVE) {
        l->proving = REAUTH_WAITING;
    } else if (l->state == LINK_ASKING) {
        l->state = LINK_PROVING;
        prove(l);
    }
    mark_dirty(l);
    settle(l->broker);
    return true;
}

bool pn_link_authenticated(pn_link *l, pn_span data, int64_t now) {
    enter(l->broker, now);
    if (l->state != LINK_LIVE || l->proving != REAUTH_ASKING) return false;
    l->proving = REAUTH_NONE;
    pn_buf_free(&l->proof);
    send_auth(l, PN_SUCCESS, data);
    mark_dirty(l);
    settle(l->broker);
    return true;
}

static void feed(pn_link *l, const uint8_t *data, size_t n) {
    uint32_t held = pn_buf_len(&l->in);
    if (l->state == LINK_ASKING || l->state == LINK_PROVING) {
        if (parks_too_much(l, n)) {
            link_fail(l, PN_QUOTA_EXCEEDED);
        } else if (keep(l, data, n) && l->state == LINK_PROVING) {
            prove(l);
        }
        return;
    }
    /* A packet begun in an earlier chunk: top it up to its end and no further, so that the rest is read where it lies. */
    while (held && n) {
        int64_t size = pn_packet_size(pn_buf_head(&l->in), held);
        size_t missing = size > (int64_t)held ? (size_t)size - held : 1; /* a header not complete yet grows by the byte */
        size_t part = missing < n ? missing : n;
        if (!keep(l, data, part)) return;
        data += part;
        n -= part;
        held += (uint32_t)part;
        size_t used = step(l, pn_buf_head(&l->in), held);
        if (l->state == LINK_CLOSING) return;
        if (l->state == LINK_ASKING) {
            if (keep(l, data, n)) ask(l);
            return;
        }
        if (used) {
            pn_buf_free(&l->in);
            held = 0;
        }
    }
    while (n && !l->wire.broken) {
        size_t used = step(l, data, n);
        if (l->state == LINK_CLOSING) return;
        if (!used) {
            if (keep(l, data, n) && l->state == LINK_ASKING) ask(l);
            return;
        }
        data += used;
        n -= used;
    }
}

void pn_link_feed(pn_link *l, const uint8_t *data, size_t n, int64_t now) {
    pn_broker *b = l->broker;
    pn_env *env = enter(b, now);
    env->stats.bytes_in += n;
    if (l->state == LINK_CLOSING) return;
    l->heard = now; /* any byte: a large packet on a slow line is a sign of life as well */
    if (l->state == LINK_LIVE && too_fast(l, 0, n)) {
        link_fail(l, PN_MESSAGE_RATE_TOO_HIGH);
    } else {
        feed(l, data, n);
    }
    mark_dirty(l);
    settle(b);
}

/* --- time --- */

void pn_broker_tick(pn_broker *b, int64_t now) {
    pn_env *env = enter(b, now);
    for (uint32_t i = 0; i < b->link_count; i++) { /* link_end leaves the array alone */
        pn_link *l = b->links[i];
        if (l->state == LINK_LIVE) {
            if (l->keep_alive && now - l->heard > l->keep_alive * 1500ll) link_fail(l, PN_KEEP_ALIVE_TIMEOUT); /* MQTT-3.1.2-22 */
        } else if (l->state != LINK_CLOSING && now - l->opened > env->limits.connect_timeout) {
            link_fail(l, PN_KEEP_ALIVE_TIMEOUT);
        }
    }
    for (pn_session *s = b->sleepers, *next; s; s = next) {
        next = s->sleeper_next;
        session_wake(b, s);
    }
    sweep_retained(b);
    settle(b);
}

/* --- the broker itself --- */

const pn_stats *pn_broker_stats(const pn_broker *b) { return &b->env.stats; }

int64_t pn_broker_now(const pn_broker *b) { return b->env.now; }

uint64_t pn_broker_seed(const pn_broker *b) { return b->seed; }

void pn_broker_set_limits(pn_broker *b, const pn_limits *limits) { b->env.limits = *limits; }

const pn_rules *pn_broker_rules(const pn_broker *b, uint8_t slot) { return slot < PN_RULE_SETS ? b->rules[slot] : NULL; }

void pn_broker_set_rules(pn_broker *b, uint8_t slot, pn_rules *rules) {
    if (slot >= PN_RULE_SETS) {
        pn_rules_free(rules);
        return;
    }
    pn_rules_free(b->rules[slot]);
    b->rules[slot] = rules;
    for (uint32_t i = 0; i < b->bucket_count; i++) {
        for (pn_session *s = b->buckets[i]; s; s = s->next) {
            if (s->rules == slot) judge(b, s);
        }
    }
}

pn_broker *pn_broker_new(const pn_limits *limits, uint64_t seed) {
    enum { BUCKETS_FIRST = 64 };
    pn_broker *b = pn_calloc(1, sizeof *b);
    if (!b) return NULL;
    b->env.limits = *limits;
    b->seed = seed;
    b->denied_room = PN_DENIED_EVENTS_MAX;
    b->retained_due = PN_NEVER;
    b->retained_rest = INT64_MIN;
    b->bucket_count = BUCKETS_FIRST;
    b->buckets = pn_calloc(b->bucket_count, sizeof *b->buckets);
    b->subs = pn_subs_new(seed + 1);
    b->retained = pn_trie_new(seed + 2);
    if (b->buckets && b->subs && b->retained) return b;
    pn_broker_free(b);
    return NULL;
}

static bool drop_message(void *ctx, void *value) {
    (void)ctx;
    pn_message_drop(value);
    return true;
}

void pn_broker_free(pn_broker *b) {
    if (!b) return;
    while (b->link_count) {
        pn_link *l = b->links[b->link_count - 1];
        if (l->session) l->session->link = NULL, l->session->wire = NULL;
        link_free(l);
    }
    for (uint32_t i = 0; b->buckets && i < b->bucket_count; i++) {
        for (pn_session *s = b->buckets[i], *next; s; s = next) {
            next = s->next;
            pn_subs_drop(b->subs, s, &b->env);
            pn_session_free(s);
        }
    }
    if (b->retained) {
        pn_trie_each(b->retained, drop_message, NULL);
        pn_trie_free(b->retained);
    }
    pn_subs_free(b->subs);
    for (int i = 0; i < PN_RULE_SETS; i++) pn_rules_free(b->rules[i]);
    pn_free(b->buckets);
    pn_free(b->links);
    pn_free(b->events);
    pn_buf_free(&b->texts);
    pn_buf_free(&b->scratch);
    pn_free(b);
}
