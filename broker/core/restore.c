/* restore.c: from records (records.h) to a broker as it was when they were written.
 *
 * The rule it keeps: a record that makes no sense costs itself and nothing else. Records come in the order of their keys, so what one
 * refers to has come before it; what refers to nothing is left out and counted. Nothing is recorded meanwhile.
 */
#include "fields.h"
#include "inside.h"
#include "mem.h"

enum { IDENTIFIER_MAX = 268435455 }; /* 5.0 §3.8.2.1.2 */

static const uint64_t NUMBER_MAX = (uint64_t)1 << 62; /* of sessions and messages; no process lives so long */

/* What has a number, in the order of the numbers. */
typedef struct numbered {
    uint64_t number;
    void *thing;
} numbered;

typedef struct list {
    numbered *items; /* owned */
    uint32_t count, cap;
} list;

typedef struct waking {
    pn_session *session;
    uint64_t number, sent;
    int64_t ends_at, will_at;
    bool online;
} waking;

struct pn_restoring {
    list messages; /* with a reference each */
    waking *sessions; /* owned; in the order of their numbers */
    uint32_t count, cap;
};

static bool add(list *l, uint64_t number, void *thing) {
    if (l->count && l->items[l->count - 1].number >= number) return false;
    if (l->count == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 64;
        numbered *items = pn_realloc(l->items, cap * sizeof *items);
        if (!items) return false;
        l->items = items;
        l->cap = cap;
    }
    l->items[l->count++] = (numbered){number, thing};
    return true;
}

static pn_message *find_message(const list *l, uint64_t number) {
    uint32_t low = 0, high = l->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (l->items[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < l->count && l->items[low].number == number ? l->items[low].thing : NULL;
}

static waking *find_session(const struct pn_restoring *r, uint64_t number) {
    uint32_t low = 0, high = r->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (r->sessions[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < r->count && r->sessions[low].number == number ? &r->sessions[low] : NULL;
}

void pn_restoring_free(struct pn_restoring *r) {
    if (!r) return;
    for (uint32_t i = 0; i < r->messages.count; i++) pn_message_drop(r->messages.items[i].thing);
    pn_free(r->messages.items);
    pn_free(r->sessions);
    pn_free(r);
}

static bool restore_message(pn_broker *b, uint64_t number, pn_span value) {
    pn_journal *j = b->env.journal;
    pn_pub pub;
    if (!pn_read_message(value, j->wall, &pub)) return false;
    pn_message *m = pn_message_new(&pub);
    if (!m) return false;
    if (!add(&b->restoring->messages, number, m)) {
        pn_message_drop(m);
        return false;
    }
    m->kept = number;
    m->journal = j;
    return true;
}

static bool restore_session(pn_broker *b, uint64_t number, pn_span value) {
    pn_journal *j = b->env.journal;
    struct pn_restoring *r = b->restoring;
    pn_session_record record;
    if (!pn_read_session(value, j->wall, &record) || record.rules >= PN_RULE_SETS) return false;
    if (pn_session_find(b, record.key) || (r->count && r->sessions[r->count - 1].number >= number)) return false;
    if (r->count == r->cap) {
        uint32_t cap = r->cap ? r->cap * 2 : 64;
        waking *more = pn_realloc(r->sessions, cap * sizeof *more);
        if (!more) return false;
        r->sessions = more;
        r->cap = cap;
    }
    pn_will *will = record.has_will ? pn_will_new(&record.will, record.will_lifetime, record.will_delay) : NULL;
    pn_session *s = record.has_will && !will ? NULL : pn_session_begin(b, record.key, record.identity);
    if (!s) {
        pn_will_free(will);
        return false;
    }
    s->kept = number;
    s->whole = record.whole;
    s->version = record.version;
    s->rules = record.rules;
    s->expiry = record.expiry;
    s->will = will;
    s->proved_until = record.proved_until;
    r->sessions[r->count++] = (waking){s, number, 0, record.ends_at, record.will_at, record.online};
    return true;
}

static bool restore_subscription(pn_broker *b, pn_session *s, pn_span filter, pn_reader *r) {
    pn_filter f = {.filter = filter};
    pn_subs_options((uint8_t)pn_get_number(r, 1), &f);
    uint32_t id = (uint32_t)pn_get_number(r, 4);
    uint64_t group = pn_get_number(r, 8);
    pn_span name, plain;
    if (r->bad || f.qos > 2 || id > IDENTIFIER_MAX || !pn_utf8_valid(filter.p, filter.n) || !pn_subs_split(filter, &name, &plain) || !pn_topic_filter_valid(plain, PN_STRING_MAX, PN_TRIE_MAX_LEVELS)) {
        return false;
    }
    bool existed = false;
    if (pn_subs_add(b->subs, s, &f, id, &existed, &b->env) || existed) return false;
    pn_subs_restore_serial(b->subs, s, s->sub_count - 1, group);
    return true;
}

static bool restore_queued(pn_broker *b, pn_session *s, uint64_t place, pn_reader *r) {
    enum { IDS_MAX = 1u << 20 };
    uint64_t number = pn_get_number(r, 8), flags = pn_get_number(r, 1), group = pn_get_number(r, 8);
    pn_delivery how = {.qos = flags & 3, .retain = flags & 4, .group = group, .id_count = r->n / 4};
    pn_message *m = number ? find_message(&b->restoring->messages, number) : NULL;
    if (r->bad || (number && !m) || how.qos < 1 || how.qos > 2 || (!number && how.qos != 2) || how.id_count > IDS_MAX) return false;
    uint32_t *ids = how.id_count ? pn_malloc(how.id_count * sizeof *ids) : NULL;
    if (how.id_count && !ids) return false;
    bool valid = true;
    for (uint32_t i = 0; i < how.id_count; i++) {
        ids[i] = (uint32_t)pn_get_number(r, 4);
        valid = valid && ids[i] && ids[i] <= IDENTIFIER_MAX;
    }
    how.ids = ids;
    bool done = valid && pn_session_restore_out(s, place, m, &how);
    pn_subs_restore_serial(b->subs, NULL, 0, how.group);
    pn_free(ids);
    return done;
}

static bool restore_retained(pn_broker *b, pn_span topic, pn_span value) {
    pn_pub pub;
    if (!pn_read_message(value, b->env.journal->wall, &pub) || !pn_span_eq(pub.topic, topic) || !pub.payload.n ||
        !pn_topic_name_valid(topic, PN_STRING_MAX, PN_TRIE_MAX_LEVELS)) {
        return false;
    }
    bool done = pn_retained_restore(b->retained, &pub, &b->env);
    pn_message_drop(pub.shared);
    return done;
}

static bool restore(pn_broker *b, pn_span key, pn_span value) {
    bool sound = pn_unseal(key, &value);
    pn_reader k = {key.p, key.n, false}, r = {value.p, value.n, false};
    uint64_t kind = pn_get_number(&k, 1);
    if (kind == PN_RECORD_RETAINED) return sound && restore_retained(b, (pn_span){k.p, k.n}, value);
    uint64_t number = pn_get_number(&k, 8);
    if (k.bad || !number || number > NUMBER_MAX) return false;
    /* Also the number of a record that means nothing is not given again: what else is under it would come to life. */
    uint64_t *last = kind == PN_RECORD_MESSAGE ? &b->env.journal->messages : &b->env.journal->sessions;
    if (number > *last) *last = number;
    if (!sound) return false;
    if (kind == PN_RECORD_MESSAGE) return !k.n && restore_message(b, number, value);
    if (kind == PN_RECORD_SESSION) return !k.n && restore_session(b, number, value);
    waking *w = find_session(b->restoring, number);
    if (!w || !w->session->whole) return false;
    if (kind == PN_RECORD_SUBSCRIPTION) return restore_subscription(b, w->session, (pn_span){k.p, k.n}, &r);
    if (kind == PN_RECORD_SENT) {
        w->sent = pn_get_number(&r, 8);
        return !r.bad && !k.n;
    }
    uint64_t place = pn_get_number(&k, 8);
    if (k.bad || k.n) return false;
    if (kind == PN_RECORD_RECEIVED) return place <= UINT16_MAX && pn_session_restore_received(w->session, (uint16_t)place);
    return kind == PN_RECORD_QUEUED && restore_queued(b, w->session, place, &r);
}

bool pn_broker_restore(pn_broker *b, pn_span key, pn_span value, int64_t now) {
    pn_env *env = pn_enter(b, now);
    if (!env->journal || b->link_count) return false;
    if (!b->restoring) b->restoring = pn_calloc(1, sizeof *b->restoring);
    if (!b->restoring) return false;
    pn_limits limits = env->limits; /* what was within the limits then is kept */
    env->limits.max_sessions = env->limits.max_subscriptions = UINT32_MAX;
    env->limits.max_memory = 0;
    env->journal->silent = true;
    bool done = restore(b, key, value);
    env->journal->silent = false;
    env->limits = limits;
    return done;
}

void pn_broker_restored(pn_broker *b, int64_t now) {
    pn_env *env = pn_enter(b, now);
    struct pn_restoring *r = b->restoring;
    if (!r) return;
    b->restoring = NULL;
    for (uint32_t i = 0; i < r->count; i++) {
        const waking *w = &r->sessions[i];
        /* The last word on what was sent to a client that was online may have been lost. What it may have heard of has been sent: it is sent
         * again as a duplicate, and does not expire any more. */
        pn_session *s = w->session;
        bool restored = pn_session_restore_sent(s, w->sent + (w->online && pn_session_queued(s) ? env->limits.max_inflight : 0));
        if (!restored || (pn_session_sent(s) != w->sent && !pn_record_sent(s, env))) env->journal->lost++;
    }
    for (uint32_t i = 0; i < r->count; i++) pn_session_judge(b, r->sessions[i].session);
    for (uint32_t i = 0; i < r->count; i++) {
        waking *w = &r->sessions[i];
        if (w->online) {
            pn_session_sleep(b, w->session);
        } else {
            pn_session_resume_sleep(b, w->session, w->ends_at, w->will_at);
        }
    }
    pn_restoring_free(r); /* messages that nobody waits for go now, and their records */
    pn_settle(b);
}

/* --- the driver's side of the journal --- */

bool pn_broker_keep(pn_broker *b, bool waits, int64_t wall) {
    if (!b->env.journal) b->env.journal = b->session_count ? NULL : pn_journal_new(b->seed + 3);
    if (!b->env.journal) return false;
    b->env.journal->waits = waits;
    b->env.journal->wall = wall;
    return true;
}

bool pn_broker_batch(pn_broker *b, pn_span *batch) { return b->env.journal && pn_journal_batch(b->env.journal, batch); }

uint64_t pn_broker_taken(pn_broker *b) { return pn_journal_taken(b->env.journal); }
