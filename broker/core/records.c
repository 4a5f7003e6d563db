/* records.c: the work of records.h. */
#include "records.h"

#include "fields.h"
#include "hash.h"

enum {
    FORMAT = 1, /* of sessions and messages: another format is another number */
    SEAL = 4,
    MESSAGE_FIXED = 2 + 8 + 4 + 4,
    SESSION_FIXED = 4 + 4 + 4 + 8 + 8 + 8 + 8 + 4 + 4,
    ONLINE = 1,
    WHOLE = 2,
    HAS_WILL = 4,
};

bool pn_cannot_keep(const pn_env *env) {
    const pn_journal *j = env->journal;
    return j && (j->fails || pn_journal_backlog(j) > env->limits.max_journal_bytes);
}

/* --- times --- */

static uint64_t to_wall(int64_t t, int64_t wall) { return (uint64_t)(t == PN_NEVER ? t : t + wall); }

/* Times far beyond what anybody can have meant are for ever, whichever way a damaged record spells them. */
static int64_t from_wall(uint64_t t, int64_t wall) {
    const int64_t far = (int64_t)1 << 52;
    int64_t at = (int64_t)t;
    return at > far || at < -far ? PN_NEVER : at - wall;
}

/* --- keys --- */

static pn_key key_of(uint8_t kind, uint64_t number) {
    pn_key key = {.n = 9};
    key.head[0] = kind;
    pn_put_number(key.head + 1, number, 8);
    return key;
}

static pn_key key_in(uint8_t kind, const pn_session *s, uint64_t number) {
    pn_key key = key_of(kind, s->kept);
    pn_put_number(key.head + 9, number, 8);
    key.n = 17;
    return key;
}

static pn_key key_for(uint8_t kind, const pn_session *s, pn_span rest) {
    pn_key key = key_of(kind, s->kept);
    key.rest = rest;
    return key;
}

static pn_key key_of_topic(pn_span topic) { return (pn_key){.head = {PN_RECORD_RETAINED}, .n = 1, .rest = topic}; }

/* --- what a disk may do to bytes --- */

/* A value begins with the checksum of the key and its other bytes, so that what a disk has damaged is left out, and neither sent to anybody
 * nor taken for somebody else's. */
static uint32_t checksum(pn_span key, const uint8_t *p, size_t n) { return (uint32_t)pn_hash(p, n, pn_hash(key.p, key.n, 0)); }

/* Room for the value of `key`, as pn_journal_put, behind its seal. Whoever fills it seals it. */
static uint8_t *put_sealed(pn_journal *j, const pn_key *key, uint32_t n, bool fresh) {
    uint8_t *at = pn_journal_put(j, key, SEAL + n, fresh);
    return at ? at + SEAL : NULL;
}

/* `at`: from put_sealed, where the key stands before it (journal.h); `end`: of what was put there. */
static void seal(const pn_key *key, uint8_t *at, const uint8_t *end) {
    uint32_t n = key->n + key->rest.n;
    pn_put_number(at - SEAL, checksum((pn_span){at - SEAL - n, n}, at, (size_t)(end - at)), SEAL);
}

bool pn_unseal(pn_span key, pn_span *value) {
    pn_reader r = {value->p, value->n, false};
    uint64_t sum = pn_get_number(&r, SEAL);
    *value = (pn_span){r.p, r.n};
    return !r.bad && sum == checksum(key, r.p, r.n);
}

/* --- messages --- */

static uint32_t message_size(const pn_message *m) { return MESSAGE_FIXED + pn_message_bytes(m); }

static uint8_t *put_message(uint8_t *at, const pn_message *m, int64_t wall) {
    *at++ = FORMAT;
    *at++ = (uint8_t)(m->qos | m->retain << 2);
    at = pn_put_number(at, to_wall(m->expires, wall), 8);
    at = pn_put_span(at, pn_message_topic(m));
    at = pn_put_span(at, pn_message_props(m));
    if (m->payload_n) memcpy(at, pn_message_payload(m).p, m->payload_n);
    return at + m->payload_n;
}

static bool get_message(pn_reader *r, int64_t wall, pn_pub *out) {
    uint64_t format = pn_get_number(r, 1), flags = pn_get_number(r, 1);
    *out = (pn_pub){.qos = flags & 3, .retain = flags & 4, .expires = from_wall(pn_get_number(r, 8), wall)};
    out->topic = pn_get_span(r);
    out->props = pn_get_span(r);
    out->payload = pn_get_bytes(r, r->n);
    return !r->bad && format == FORMAT && out->qos < 3 && out->topic.n && out->topic.n <= PN_STRING_MAX;
}

bool pn_read_message(pn_span value, int64_t wall, pn_pub *out) {
    pn_reader r = {value.p, value.n, false};
    return get_message(&r, wall, out);
}

/* Sees to it that a message has a record; its number is gone with the message (message.c). */
static bool record_message(pn_journal *j, pn_message *m) {
    if (m->kept) return true;
    pn_key key = key_of(PN_RECORD_MESSAGE, j->messages + 1);
    uint8_t *at = put_sealed(j, &key, message_size(m), true);
    if (!at) return false;
    seal(&key, at, put_message(at, m, j->wall));
    m->kept = ++j->messages;
    m->journal = j;
    return true;
}

void pn_forget_message(const pn_message *m) {
    if (m->journal->silent) return;
    pn_key key = key_of(PN_RECORD_MESSAGE, m->kept);
    pn_journal_delete(m->journal, &key);
}

bool pn_topic_is_kept(pn_span topic) {
    static const char own[] = "$SYS/";
    return topic.n < sizeof own - 1 || memcmp(topic.p, own, sizeof own - 1) != 0;
}

bool pn_record_retained(const pn_message *m, bool fresh, pn_env *env) {
    pn_journal *j = pn_recording(env);
    if (!j || !pn_topic_is_kept(pn_message_topic(m))) return true;
    pn_key key = key_of_topic(pn_message_topic(m));
    uint8_t *at = put_sealed(j, &key, message_size(m), fresh);
    if (at) seal(&key, at, put_message(at, m, j->wall));
    return at;
}

void pn_forget_retained(const pn_message *m, pn_env *env) {
    pn_journal *j = pn_recording(env);
    if (!j || !pn_topic_is_kept(pn_message_topic(m))) return;
    pn_key key = key_of_topic(pn_message_topic(m));
    pn_journal_delete(j, &key);
}

/* --- sessions --- */

bool pn_record_session(pn_session *s, bool online, pn_env *env) {
    pn_journal *j = pn_recording(env);
    if (!j) return true;
    bool fresh = !s->kept;
    if (fresh) s->kept = j->sessions + 1;
    pn_key key = key_of(PN_RECORD_SESSION, s->kept);
    pn_span name = pn_session_key(s), identity = pn_session_identity(s);
    const pn_will *will = s->will;
    uint8_t *at = put_sealed(j, &key, SESSION_FIXED + name.n + identity.n + (will ? message_size(will->message) : 0), fresh);
    if (!at) {
        if (fresh) s->kept = 0;
        return false;
    }
    if (fresh) j->sessions++;
    s->whole = s->expiry > 0;
    uint8_t *start = at;
    *at++ = FORMAT;
    *at++ = s->version;
    *at++ = s->rules;
    *at++ = (uint8_t)((online ? ONLINE : 0) | (s->whole ? WHOLE : 0) | (will ? HAS_WILL : 0));
    at = pn_put_number(at, s->expiry, 4);
    at = pn_put_number(at, will ? will->delay : 0, 4);
    at = pn_put_number(at, to_wall(s->ends_at, j->wall), 8);
    at = pn_put_number(at, to_wall(will ? will->at : PN_NEVER, j->wall), 8);
    at = pn_put_number(at, to_wall(s->proved_until, j->wall), 8);
    at = pn_put_number(at, will ? (uint64_t)will->lifetime : 0, 8);
    at = pn_put_span(at, name);
    at = pn_put_span(at, identity);
    seal(&key, start, will ? put_message(at, will->message, j->wall) : at);
    return true;
}

bool pn_read_session(pn_span value, int64_t wall, pn_session_record *out) {
    pn_reader r = {value.p, value.n, false};
    *out = (pn_session_record){0};
    uint64_t format = pn_get_number(&r, 1);
    out->version = (uint8_t)pn_get_number(&r, 1);
    out->rules = (uint8_t)pn_get_number(&r, 1);
    uint64_t flags = pn_get_number(&r, 1);
    out->online = flags & ONLINE, out->whole = flags & WHOLE, out->has_will = flags & HAS_WILL;
    out->expiry = (uint32_t)pn_get_number(&r, 4);
    out->will_delay = (uint32_t)pn_get_number(&r, 4);
    out->ends_at = from_wall(pn_get_number(&r, 8), wall);
    out->will_at = from_wall(pn_get_number(&r, 8), wall);
    out->proved_until = from_wall(pn_get_number(&r, 8), wall);
    out->will_lifetime = from_wall(pn_get_number(&r, 8), 0);
    out->key = pn_get_span(&r);
    out->identity = pn_get_span(&r);
    if (r.bad || format != FORMAT || !out->key.n) return false;
    return !out->has_will || get_message(&r, wall, &out->will);
}

bool pn_record_sent(const pn_session *s, pn_env *env) {
    pn_journal *j = s->whole ? pn_recording(env) : NULL;
    if (!j) return true;
    pn_key key = key_of(PN_RECORD_SENT, s->kept);
    uint8_t *at = put_sealed(j, &key, 8, false);
    if (at) seal(&key, at, pn_put_number(at, pn_session_sent(s), 8));
    return at;
}

bool pn_record_queued(pn_session *s, uint64_t place, const pn_out *out, bool fresh, pn_env *env) {
    pn_journal *j = s->whole ? pn_recording(env) : NULL;
    if (!j) return true;
    if (out->message && !record_message(j, out->message)) return false;
    uint32_t ids = out->extra ? out->extra->id_count : 0;
    pn_key key = key_in(PN_RECORD_QUEUED, s, place);
    uint8_t *at = put_sealed(j, &key, 8 + 1 + 8 + 4 * ids, fresh), *start = at;
    if (!at) return false;
    s->queue->recorded = j->pending;
    at = pn_put_number(at, out->message ? out->message->kept : 0, 8); /* released: there is none any more */
    *at++ = (uint8_t)(out->qos | out->retain << 2);
    at = pn_put_number(at, out->extra ? out->extra->group : 0, 8);
    for (uint32_t i = 0; i < ids; i++) at = pn_put_number(at, out->extra->ids[i], 4);
    seal(&key, start, at);
    return true;
}

void pn_forget_queued(const pn_session *s, uint64_t place, pn_env *env) {
    pn_journal *j = s->whole ? pn_recording(env) : NULL;
    if (!j) return;
    pn_key key = key_in(PN_RECORD_QUEUED, s, place);
    pn_journal_delete(j, &key);
}

bool pn_record_received(const pn_session *s, uint16_t id, pn_env *env) {
    pn_journal *j = s->whole ? pn_recording(env) : NULL;
    if (!j) return true;
    pn_key key = key_in(PN_RECORD_RECEIVED, s, id);
    uint8_t *at = put_sealed(j, &key, 0, true);
    if (at) seal(&key, at, at);
    return at;
}

void pn_forget_received(const pn_session *s, uint16_t id, pn_env *env) {
    pn_journal *j = s->whole ? pn_recording(env) : NULL;
    if (!j) return;
    pn_key key = key_in(PN_RECORD_RECEIVED, s, id);
    pn_journal_delete(j, &key);
}

bool pn_record_subscription(const pn_session *s, pn_span filter, uint8_t options, uint32_t id, uint64_t group, bool fresh, pn_env *env) {
    pn_journal *j = s->whole ? pn_recording(env) : NULL;
    if (!j) return true;
    pn_key key = key_for(PN_RECORD_SUBSCRIPTION, s, filter);
    uint8_t *at = put_sealed(j, &key, 1 + 4 + 8, fresh);
    if (at) {
        *at = options;
        seal(&key, at, pn_put_number(pn_put_number(at + 1, id, 4), group, 8));
    }
    return at;
}

void pn_forget_subscription(const pn_session *s, pn_span filter, pn_env *env) {
    pn_journal *j = s->whole ? pn_recording(env) : NULL;
    if (!j) return;
    pn_key key = key_for(PN_RECORD_SUBSCRIPTION, s, filter);
    pn_journal_delete(j, &key);
}

void pn_forget_session(pn_session *s, pn_env *env) {
    pn_journal *j = pn_recording(env);
    if (!j || !s->kept) return;
    pn_key key = key_of(PN_RECORD_SESSION, s->kept);
    pn_journal_delete(j, &key);
    if (!s->whole) return;
    key = key_of(PN_RECORD_SENT, s->kept);
    pn_journal_delete(j, &key);
    for (uint32_t i = 0; i < s->in_count; i++) pn_forget_received(s, s->in_ids[i], env);
    const pn_out *out;
    for (uint32_t i = 0; (out = pn_session_outgoing(s, i)) != NULL; i++) {
        if (out->state != PN_OUT_DONE) pn_forget_queued(s, s->queue->place + i, env);
    }
    s->kept = 0;
    s->whole = false;
}
