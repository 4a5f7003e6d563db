/* broker.c: sessions, publishing and time: the part of broker.h that is not about one connection. */
#include "inside.h"

#include "hash.h"
#include "mem.h"

/* --- tables --- */

#define LIMIT(field, otherwise, least, most) {#field, offsetof(pn_limits, field), otherwise, least, most}
const pn_limit_row pn_limit_table[] = {
    LIMIT(max_packet_size, PN_MAX_PACKET_SIZE, 128, PN_PACKET_SIZE_MAX),
    LIMIT(max_connect_size, PN_MAX_CONNECT_SIZE, 128, PN_PACKET_SIZE_MAX),
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
    LIMIT(session_expiry_max, PN_SESSION_EXPIRY_MAX, 0, PN_EXPIRY_NEVER),
    LIMIT(keepalive_max, PN_KEEPALIVE_MAX, 1, 65535),
    LIMIT(server_keepalive, 0, 0, 65535),
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
    LIMIT(rate_action, PN_RATE_THROTTLE, PN_RATE_THROTTLE, PN_RATE_DISCONNECT),
    LIMIT(max_memory, PN_MAX_MEMORY, 0, 16777216),
    LIMIT(max_journal_bytes, PN_MAX_JOURNAL_BYTES, 65536, 500000000),
    {0},
};

#undef LIMIT

#define STAT(field) {#field, offsetof(pn_stats, field)}
#define BY_QOS(field) \
    {#field "0", offsetof(pn_stats, field[0])}, {#field "1", offsetof(pn_stats, field[1])}, {#field "2", offsetof(pn_stats, field[2])}
const pn_stat_row pn_stat_table[] = {
    STAT(packets_in), STAT(packets_out), STAT(publishes_in), STAT(publishes_out), STAT(bytes_in), STAT(bytes_out),
    STAT(answers_out),
    BY_QOS(publishes_in_qos), BY_QOS(publishes_out_qos), STAT(publish_bytes_in), STAT(publish_bytes_out),
    STAT(dropped_queue_full), STAT(dropped_slow_reader), STAT(dropped_expired), STAT(dropped_too_large),
    STAT(dropped_denied), STAT(dropped_no_memory), STAT(dropped_retained_full), STAT(dropped_max_memory), STAT(dropped_unkept),
    STAT(refused_max_memory), STAT(throttled), STAT(expired_sessions), STAT(links), STAT(sessions),
    STAT(subscriptions), STAT(shared_subscriptions), STAT(retained), STAT(retained_bytes), STAT(walks), STAT(memory),
    STAT(stored), STAT(stored_bytes),
    {0},
};

#undef STAT
#undef BY_QOS

void pn_limits_default(pn_limits *limits) {
    for (const pn_limit_row *row = pn_limit_table; row->name; row++) {
        *(uint32_t *)((char *)limits + row->offset) = row->otherwise;
    }
}

/* --- events --- */

/* There is always room for what one feed can say about its own link; what says something of many (a tick, say) makes more, until the next tick. */
enum { EVENTS_FIRST = 2 * PN_DENIED_EVENTS_MAX };

static bool events_resize(pn_broker *b, uint32_t cap) {
    queued_event *events = pn_realloc(b->events, cap * sizeof *events);
    if (!events) return false;
    b->events = events;
    b->event_cap = cap;
    return true;
}

/* There is no memory to say it. That a link has ended is never lost: the link keeps it. A link that the driver would wait for is ended. */
static void untold(pn_link *l, uint8_t kind, uint8_t reason) {
    if (kind == PN_EVENT_DISCONNECT || kind == PN_EVENT_CLOSED) {
        l->broker->untold += !l->untold;
        l->untold |= (uint8_t)(1 << kind);
        l->untold_reason = reason;
    } else if (kind != PN_EVENT_DENIED && l->state != LINK_CLOSING) {
        pn_wire_break(&l->wire, &l->broker->env);
    }
}

/* What links have kept of their ends: DISCONNECT first, which it was. */
static bool tell_untold(pn_broker *b, pn_event *out) {
    for (uint32_t i = 0; b->untold && i < b->link_count; i++) {
        pn_link *l = b->links[i].link;
        if (!l->untold) continue;
        uint8_t kind = l->untold & 1 << PN_EVENT_DISCONNECT ? PN_EVENT_DISCONNECT : PN_EVENT_CLOSED;
        *out = (pn_event){.kind = kind, .reason = l->untold_reason, .link = l, .owner = l->owner};
        l->untold &= (uint8_t)~(1 << kind);
        b->untold -= !l->untold;
        return true;
    }
    return false;
}

void pn_raise(pn_broker *b, uint8_t kind, pn_link *l, uint8_t reason, const char *what, pn_span text) {
    if (l->untold || (b->event_count == b->event_cap && !events_resize(b, 2 * b->event_cap))) { /* in the order in which it was */
        untold(l, kind, reason);
        return;
    }
    queued_event *e = &b->events[b->event_count++];
    *e = (queued_event){.kind = kind, .reason = reason, .link = l, .owner = l->owner, .text = pn_buf_len(&b->texts)};
    if (what && pn_buf_add(&b->texts, what, strlen(what)) && pn_buf_add(&b->texts, text.p, text.n)) {
        e->text_n = pn_buf_len(&b->texts) - e->text;
    }
}

void pn_raise_denied(pn_link *l, uint8_t reason, const char *what, pn_span topic) {
    pn_broker *b = l->broker;
    if (reason == PN_NOT_AUTHORIZED) b->env.stats.dropped_denied++;
    if (b->denied_room == 0) return;
    b->denied_room--;
    pn_raise(b, PN_EVENT_DENIED, l, reason, what, topic);
}

bool pn_broker_event(pn_broker *b, pn_event *out) {
    while (b->event_head < b->event_count && b->events[b->event_head].kind == PN_EVENT_NONE) b->event_head++; /* pn_link_drop */
    if (b->event_head == b->event_count) {
        b->event_head = b->event_count = 0;
        return tell_untold(b, out);
    }
    const queued_event *e = &b->events[b->event_head++];
    *out = (pn_event){.kind = e->kind, .reason = e->reason, .link = e->link, .owner = e->owner};
    if (e->text_n) out->text = pn_span_of(pn_buf_head(&b->texts) + e->text, e->text_n);
    return true;
}

pn_env *pn_enter(pn_broker *b, int64_t now) {
    if (b->event_head == b->event_count) {
        b->event_head = b->event_count = 0;
        b->denied_room = PN_DENIED_EVENTS_MAX;
        pn_buf_drop(&b->texts, pn_buf_len(&b->texts));
    }
    b->env.now = now;
    b->walked = b->judged = b->spent = 0;
    return &b->env;
}

/* --- sessions by key --- */

static pn_session **bucket_of(pn_broker *b, pn_span key) {
    return &b->buckets[pn_hash(key.p, key.n, b->seed) & (b->bucket_count - 1)];
}

pn_session *pn_session_find(pn_broker *b, pn_span key) {
    pn_session *s = *bucket_of(b, key);
    while (s && !pn_span_eq(pn_session_key(s), key)) s = s->next;
    return s;
}

bool pn_broker_online(pn_broker *b, pn_span session) {
    const pn_session *s = pn_session_find(b, session);
    return s && s->wire;
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

void pn_session_unsleep(pn_broker *b, pn_session *s) {
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
void pn_session_end(pn_broker *b, pn_session *s) {
    pn_session **at = bucket_of(b, pn_session_key(s));
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    pn_session_unsleep(b, s);
    pn_walks_end(b, s);
    pn_subs_hand_over(s, pass_on, b);
    pn_subs_drop(b->subs, s, &b->env);
    pn_forget_session(s, &b->env);
    pn_session_free(s);
    b->env.stats.sessions = --b->session_count;
}

pn_session *pn_session_begin(pn_broker *b, pn_span key, pn_span identity) {
    if (b->session_count >= b->env.limits.max_sessions) return NULL;
    if (!pn_memory_has(&b->env, sizeof(pn_session) + key.n + identity.n, PN_MEMORY_NEW)) {
        b->env.stats.refused_max_memory++;
        return NULL;
    }
    pn_session *s = pn_session_new(key, identity);
    if (!s) return NULL;
    if (b->session_count >= b->bucket_count) buckets_grow(b);
    pn_session **to = bucket_of(b, key);
    s->next = *to;
    *to = s;
    b->env.stats.sessions = ++b->session_count;
    return s;
}

/* A session that is to end with its connection is kept for its will only. */
bool pn_session_keep(pn_broker *b, pn_session *s) {
    if (s->kept && !s->expiry) {
        for (uint32_t i = 0; i < s->sub_count; i++) pn_forget_subscription(s, pn_subs_name(s, i), &b->env);
        pn_forget_session(s, &b->env);
    }
    return (!s->expiry && !s->will) || pn_record_session(s, true, &b->env);
}

/* Takes from a session what its rules do not allow, now that they have changed: subscriptions, their QoS, and the will. */
void pn_session_judge(pn_broker *b, pn_session *s) {
    const pn_rules *rules = pn_broker_rules(b, s->rules);
    pn_span id = pn_session_identity(s);
    for (uint32_t i = s->sub_count; i-- > 0;) { /* what is removed is replaced by the last one, which has been judged */
        uint8_t qos = pn_subs_qos(s, i);
        if (rules && pn_rules_may_subscribe(rules, id, pn_subs_filter(s, i), pn_subs_shared(s, i), &qos, NULL)) {
            pn_subs_lower(s, i, qos);
        } else {
            pn_subs_remove_at(b->subs, s, i, &b->env);
        }
    }
    const pn_message *will = s->will ? s->will->message : NULL;
    if (will && !(rules && pn_rules_may_publish(rules, id, pn_message_topic(will), will->qos, will->retain, NULL))) {
        b->env.stats.dropped_denied++;
        pn_session_drop_will(s);
        if (s->kept && !pn_record_session(s, s->wire, &b->env)) b->env.journal->lost++;
    }
}

/* --- publishing --- */

typedef struct routing {
    pn_broker *broker;
    pn_pub *pub;
} routing;

static void pass_on(void *ctx, pn_session *s, pn_pub *pub, const pn_delivery *how) {
    pn_broker *b = ctx;
    pn_session_deliver(s, pub, how, &b->env);
    if (s->wire) pn_mark_dirty(pn_link_of(s->wire));
}

static void route_one(void *ctx, pn_session *s, const pn_delivery *how) {
    const routing *r = ctx;
    /* Field by field: read whole, what was just written in parts has to be waited for; that is a tenth of a fan-out. */
    pn_delivery d = {.qos = r->pub->qos < how->qos ? r->pub->qos : how->qos, /* MQTT-3.8.4-8 */
                     .retain = how->retain && r->pub->retain,
                     .id_count = how->id_count, .ids = how->ids, .group = how->group};
    pass_on(r->broker, s, r->pub, &d);
}

/* Sends it to everyone, and keeps it when it is to be retained; that the store is full is counted, and no reason to keep it from
 * those who listen. PN_SUCCESS, PN_NO_MATCHING_SUBSCRIBERS or, without memory, PN_QUOTA_EXCEEDED. */
uint8_t pn_publish(pn_broker *b, pn_pub *pub, pn_matched *memory, const pn_session *publisher) {
    pn_message *before = pub->shared;
    if (pub->retain) pn_retained_put(b->retained, pub, &b->env);
    uint64_t visited = pn_subs_visited(b->subs);
    int64_t reached = pn_subs_route(b->subs, pub->topic, memory, publisher, route_one, &(routing){b, pub});
    b->spent += pn_subs_visited(b->subs) - visited + (reached > 0 ? (uint64_t)reached : 0);
    if (reached < 0) b->env.stats.dropped_no_memory++;
    if (pub->shared != before) pn_message_drop(pub->shared);
    for (int i = 0; i < 2; i++) {
        enum { KEEP = 65536 }; /* a large message does not leave a large buffer behind */
        if (b->env.plain[i].cap > KEEP) pn_buf_free(&b->env.plain[i]);
    }
    return reached > 0 ? PN_SUCCESS : reached < 0 ? PN_QUOTA_EXCEEDED : PN_NO_MATCHING_SUBSCRIBERS;
}

bool pn_broker_publish(pn_broker *b, pn_span topic, pn_span payload, uint8_t qos, bool retained, int64_t lifetime, int64_t now) {
    pn_enter(b, now);
    int64_t expires = lifetime == PN_NEVER ? PN_NEVER : now + lifetime;
    pn_pub pub = {.topic = topic, .payload = payload, .qos = qos, .retain = retained, .expires = expires};
    uint64_t dropped = b->env.stats.dropped_retained_full + b->env.stats.dropped_no_memory;
    pn_publish(b, &pub, NULL, NULL);
    pn_settle(b);
    return b->env.stats.dropped_retained_full + b->env.stats.dropped_no_memory == dropped;
}

const pn_message *pn_broker_retained(const pn_broker *b, pn_span topic) {
    return pn_retained_get(b->retained, topic, &b->env);
}

void pn_publish_will(pn_broker *b, pn_session *s) {
    pn_will *will = s->will;
    s->will = NULL;
    if (!will) return;
    if (will->lifetime != PN_NEVER) will->message->expires = b->env.now + will->lifetime; /* nobody else has seen it yet */
    pn_pub pub = pn_message_pub(will->message);
    pn_publish(b, &pub, NULL, s);
    pn_will_free(will);
}

/* What of a PUBLISH or a will is forwarded unaltered (5.0 §3.3.2.3); when something must be left out, built in `scratch`. */
bool pn_forwarded(pn_broker *b, const pn_props *props, pn_span *out) {
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
int64_t pn_lifetime_of(const pn_props *props) {
    if (!pn_prop_has(props, PN_MESSAGE_EXPIRY_INTERVAL)) return PN_NEVER;
    return 1000 * (int64_t)pn_prop_num(props, PN_MESSAGE_EXPIRY_INTERVAL, 0);
}

/* --- time --- */

static int64_t later(int64_t now, uint32_t seconds) {
    return seconds == PN_EXPIRY_NEVER ? PN_NEVER : now + 1000 * (int64_t)seconds;
}

static void drop_will(pn_broker *b, pn_session *s) {
    if (!s->will) return;
    b->env.stats.dropped_denied++;
    pn_session_drop_will(s);
}

void pn_broker_revoke(pn_broker *b, uint8_t slot, pn_span identity, int64_t now) {
    pn_enter(b, now);
    for (uint32_t i = 0; i < b->bucket_count; i++) {
        for (pn_session *s = b->buckets[i]; s; s = s->next) {
            if (s->rules != slot || s->proved_until <= now || !pn_span_eq(pn_session_identity(s), identity)) continue;
            s->proved_until = now;
            if (s->will && s->kept && !pn_record_session(s, s->wire, &b->env)) b->env.journal->lost++;
        }
    }
}

/* Does what is due to an offline session. False when that was its end. */
bool pn_session_wake(pn_broker *b, pn_session *s) {
    bool publishes = s->will && s->will->at <= b->env.now;
    if (publishes && s->will->delay && s->will->at > s->proved_until) drop_will(b, s);
    if (publishes) pn_publish_will(b, s);
    if (s->ends_at > b->env.now) {
        if (publishes && !pn_record_session(s, false, &b->env)) b->env.journal->lost++;
        return true;
    }
    if (s->expiry) b->env.stats.expired_sessions++;
    pn_session_end(b, s);
    return false;
}

/* Leaves a session to time: its will and its end come when they are due, which may be now. */
void pn_session_sleep(pn_broker *b, pn_session *s) {
    s->ends_at = later(b->env.now, s->expiry);
    if (s->will) {
        int64_t due = later(b->env.now, s->will->delay);
        s->will->at = due < s->ends_at ? due : s->ends_at; /* 5.0 §3.1.3.2.2: whichever comes first */
    }
    if (!pn_session_wake(b, s)) return;
    if (!pn_record_session(s, false, &b->env)) b->env.journal->lost++;
    if (s->ends_at != PN_NEVER || s->will) sleepers_add(b, s);
}

void pn_session_resume_sleep(pn_broker *b, pn_session *s, int64_t ends_at, int64_t will_at) {
    s->ends_at = ends_at;
    if (s->will) s->will->at = will_at;
    if (pn_session_wake(b, s) && (ends_at != PN_NEVER || s->will)) sleepers_add(b, s);
}

/* When a link ends unless it is heard of by then. */
static int64_t due_at(const pn_link *l) {
    if (l->state == LINK_LIVE) return l->keep_alive ? l->heard + l->keep_alive * 1500ll + 1 : PN_NEVER; /* MQTT-3.1.2-22 */
    return l->state == LINK_CLOSING ? PN_NEVER : l->opened + l->broker->env.limits.connect_timeout + 1;
}

void pn_broker_tick(pn_broker *b, int64_t now) {
    pn_enter(b, now);
    if (b->event_count == 0 && b->event_cap > EVENTS_FIRST) events_resize(b, EVENTS_FIRST);
    for (uint32_t i = 0; i < b->link_count; i++) { /* link_end leaves the array alone */
        if (b->links[i].due > now) continue;
        pn_link *l = b->links[i].link;
        if (l->state == LINK_LIVE && l->paused) {
            pn_rate_tick(l);
            continue; /* and again */
        }
        b->links[i].due = due_at(l);
        if (b->links[i].due <= now) pn_link_fail(l, PN_KEEP_ALIVE_TIMEOUT);
    }
    for (pn_session *s = b->sleepers, *next; s; s = next) {
        next = s->sleeper_next;
        pn_session_wake(b, s);
    }
    pn_retained_tick(b->retained, &b->env);
    pn_spares_tick(&b->env, false);
    pn_settle(b);
}

/* --- the broker itself --- */

const pn_stats *pn_broker_stats(pn_broker *b) {
    pn_stats *stats = &b->env.stats;
    stats->stored = stats->stored_bytes = 0;
    stats->memory = pn_mem_held();
    stats->publishes_in = stats->publishes_out = 0;
    for (int qos = 0; qos <= 2; qos++) {
        stats->publishes_in += stats->publishes_in_qos[qos];
        stats->publishes_out += stats->publishes_out_qos[qos];
    }
    stats->packets_out = stats->answers_out + stats->publishes_out;
    for (uint32_t i = 0; i < b->bucket_count; i++) {
        for (const pn_session *s = b->buckets[i]; s; s = s->next) {
            stats->stored += pn_session_queued(s);
            stats->stored_bytes += pn_session_bytes(s);
        }
    }
    return stats;
}

int64_t pn_broker_now(const pn_broker *b) { return b->env.now; }

uint64_t pn_broker_seed(const pn_broker *b) { return b->seed; }

static void next_generation(pn_broker *b) {
    if (++b->generation == 0) b->generation = 1;
}

void pn_broker_set_limits(pn_broker *b, const pn_limits *limits) {
    b->env.limits = *limits;
    next_generation(b); /* what was a valid topic may be so no longer */
    for (uint32_t i = 0; i < b->link_count; i++) b->links[i].due = 0; /* connect_timeout may be shorter */
}

const pn_rules *pn_broker_rules(const pn_broker *b, uint8_t slot) { return slot < PN_RULE_SETS ? b->rules[slot] : NULL; }

void pn_broker_set_rules(pn_broker *b, uint8_t slot, pn_rules *rules) {
    if (slot >= PN_RULE_SETS) {
        pn_rules_free(rules);
        return;
    }
    pn_rules_free(b->rules[slot]);
    b->rules[slot] = rules;
    next_generation(b); /* what was allowed under others is so no longer */
    for (uint32_t i = 0; i < b->bucket_count; i++) {
        for (pn_session *s = b->buckets[i]; s; s = s->next) {
            if (s->rules == slot) pn_session_judge(b, s);
        }
    }
}

pn_broker *pn_broker_new(const pn_limits *limits, uint64_t seed) {
    enum { BUCKETS_FIRST = 64 };
    pn_broker *b = pn_calloc(1, sizeof *b);
    if (!b) return NULL;
    b->env.limits = *limits;
    b->seed = seed;
    b->generation = 1;
    b->denied_room = PN_DENIED_EVENTS_MAX;
    b->bucket_count = BUCKETS_FIRST;
    b->buckets = pn_calloc(b->bucket_count, sizeof *b->buckets);
    b->subs = pn_subs_new(seed + 1);
    b->retained = pn_retained_new(seed + 2);
    if (events_resize(b, EVENTS_FIRST) && b->buckets && b->subs && b->retained) return b;
    pn_broker_free(b);
    return NULL;
}

void pn_broker_free(pn_broker *b) {
    if (!b) return;
    if (b->env.journal) b->env.journal->silent = true;
    pn_restoring_free(b->restoring);
    while (b->link_count) {
        pn_link *l = b->links[b->link_count - 1].link;
        if (l->session) l->session->wire = NULL;
        pn_link_free(l);
    }
    for (uint32_t i = 0; b->buckets && i < b->bucket_count; i++) {
        for (pn_session *s = b->buckets[i], *next; s; s = next) {
            next = s->next;
            pn_session_free(s);
        }
    }
    pn_retained_free(b->retained);
    pn_subs_free(b->subs);
    for (int i = 0; i < PN_RULE_SETS; i++) pn_rules_free(b->rules[i]);
    pn_free(b->buckets);
    pn_free(b->links);
    pn_free(b->events);
    pn_spares_tick(&b->env, true);
    pn_buf_free(&b->texts);
    pn_buf_free(&b->scratch);
    for (int i = 0; i < 2; i++) pn_buf_free(&b->env.plain[i]);
    pn_journal_free(b->env.journal);
    pn_free(b);
}
