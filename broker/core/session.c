/* session.c: the work of session.h. */
#include "session.h"

#include "hash.h"
#include "mem.h"
#include "records.h"

enum {
    RING_FIRST = 8,
    IDS_SPAN = 32768,    /* identifiers under way span less than half their space, so that none can be given twice */
    SMALL_OUTPUT = 4096, /* bytes that may stand in every output, whatever max_memory says */
    WIRE_MARGIN = 65536, /* bytes of answers that may stand in the output above max_output_bytes and one publication */
};

bool pn_memory_has(const pn_env *env, size_t more, enum pn_memory_use use) {
    enum { MIB_SHIFT = 20 };
    uint64_t most = ((uint64_t)env->limits.max_memory << MIB_SHIFT) / 16 * (uint64_t)use;
    return env->limits.max_memory == 0 || pn_mem_held() + more <= most;
}

pn_session *pn_session_new(pn_span key, pn_span identity) {
    pn_session *s = pn_calloc(1, sizeof *s + key.n + identity.n);
    if (!s) return NULL;
    s->ends_at = s->proved_until = PN_NEVER;
    s->key_length = key.n;
    s->identity_length = identity.n;
    if (key.n) memcpy(s->text, key.p, key.n);
    if (identity.n) memcpy(s->text + key.n, identity.p, identity.n);
    return s;
}

static pn_out *at(pn_queue *q, uint32_t i) { return &q->ring[(q->head + i) & (q->cap - 1)]; }

pn_will *pn_will_new(const pn_pub *pub, int64_t lifetime, uint32_t delay) {
    pn_will *w = pn_malloc(sizeof *w);
    if (!w) return NULL;
    *w = (pn_will){.message = pn_message_new(pub), .lifetime = lifetime, .at = PN_NEVER, .delay = delay};
    if (w->message) return w;
    pn_free(w);
    return NULL;
}

void pn_will_free(pn_will *w) {
    if (!w) return;
    pn_message_drop(w->message);
    pn_free(w);
}

void pn_session_free(pn_session *s) {
    if (!s) return;
    pn_walks_drop(s);
    for (uint32_t i = 0; i < pn_session_queued(s); i++) {
        pn_message_drop(at(s->queue, i)->message);
        pn_free(at(s->queue, i)->extra);
    }
    pn_session_drop_will(s);
    pn_free(s->queue);
    pn_free(s->in_ids);
    pn_free(s->subs);
    pn_free(s);
}

/* --- the wire --- */

static void spare_drop(pn_spares *spares) {
    pn_buf *last = &spares->list[--spares->count];
    spares->bytes -= last->cap;
    pn_buf_free(last);
}

static void spares_tick(pn_spares *spares, bool all) {
    for (uint32_t n = all ? spares->count : spares->unused; n; n--) spare_drop(spares);
    spares->unused = spares->count;
}

void pn_spares_tick(pn_env *env, bool all) {
    spares_tick(&env->small, all);
    spares_tick(&env->large, all);
}

/* An output that has gone keeps no memory: it is for whoever needs it next. */
static void rest(pn_wire *w, pn_env *env) {
    uint32_t cap = w->out.cap;
    bool large = cap > PN_SPARE_FROM;
    pn_spares *spares = large ? &env->large : &env->small;
    bool kept = spares->count < PN_SPARES_MAX && (!large || (cap <= PN_SPARE_MOST && spares->bytes + cap <= PN_SPARE_BYTES &&
                                                             pn_memory_has(env, 0, PN_MEMORY_NEW)));
    if (!kept || !cap) {
        pn_buf_free(&w->out);
        return;
    }
    spares->list[spares->count++] = (pn_buf){.p = w->out.p, .cap = cap};
    spares->bytes += cap;
    w->out = (pn_buf){0};
}

/* The output has no room for `n` bytes: one that has no memory yet, or would have to grow large, gets a spare. */
static void take_spare(pn_wire *w, size_t n, pn_env *env) {
    uint32_t len = pn_buf_len(&w->out);
    bool large = len + n > PN_SPARE_FROM;
    pn_spares *spares = large ? &env->large : &env->small;
    if (!spares->count || w->out.cap > (large ? PN_SPARE_FROM : 0)) return;
    pn_buf spare = spares->list[spares->count - 1];
    if (spare.cap < len + n) return;
    if (len) memcpy(spare.p, pn_buf_head(&w->out), len);
    spare.tail = len;
    spares->bytes -= spare.cap;
    if (--spares->count < spares->unused) spares->unused = spares->count;
    if (w->out.cap) rest(w, env);
    w->out = spare;
}

/* Before the output gets `n` bytes more. */
static inline void make_room(pn_wire *w, size_t n, pn_env *env) {
    if (w->out.cap - w->out.tail < n) take_spare(w, n, env);
}

void pn_wire_break(pn_wire *w, pn_env *env) {
    if (w->broken) return;
    w->broken = true;
    w->next_broken = env->broken;
    env->broken = w;
}

/* Room for `n` bytes of an answer; NULL: the wire is broken, perhaps by now. */
static uint8_t *answer_room(pn_wire *w, size_t n, pn_env *env) {
    if (w->broken) return NULL;
    uint8_t *room = NULL;
    if (pn_buf_len(&w->out) <= (uint64_t)env->limits.max_output_bytes + env->limits.max_packet_size + WIRE_MARGIN) {
        make_room(w, n, env);
        room = pn_buf_room(&w->out, n);
    }
    if (!room) pn_wire_break(w, env);
    return room;
}

/* An answer of `n` bytes stands behind the output. */
static void answered(pn_wire *w, int64_t n, pn_env *env) {
    if (n < 0 || (uint64_t)n > w->max_packet) { /* MQTT-3.1.2-24: it may not go, and the client waits for it */
        pn_wire_break(w, env);
    } else {
        w->out.tail += (uint32_t)n;
        env->stats.answers_out++;
    }
}

void pn_wire_send(pn_wire *w, const pn_packet *p, pn_env *env) {
    enum { USUAL = 64 };
    uint8_t *room = answer_room(w, USUAL, env);
    if (!room) return;
    int64_t n = pn_packet_encode(p, w->version, room, USUAL);
    if (n > USUAL) {
        room = pn_buf_room(&w->out, (size_t)n);
        n = room ? pn_packet_encode(p, w->version, room, (size_t)n) : -1;
    }
    answered(w, n, env);
}

/* Without memory nothing that should wait goes out: the connection ends. */
static pn_hold *hold_of(pn_wire *w, uint32_t from, pn_env *env) {
    if (w->hold) return w->hold;
    w->hold = pn_calloc(1, sizeof *w->hold);
    if (w->hold) {
        w->hold->wire = w;
    } else {
        w->out.tail = w->out.head + from;
        pn_wire_break(w, env);
    }
    return w->hold;
}

void pn_wire_hold_until(pn_wire *w, uint32_t from, uint64_t number, pn_env *env) {
    pn_journal *j = env->journal;
    if (!j->waits || j->fails || number <= j->committed || from >= pn_buf_len(&w->out)) return;
    pn_hold *h = hold_of(w, from, env);
    if (!h) return;
    if (h->count == 0) {
        h->prev = NULL;
        h->next = j->held;
        if (j->held) j->held->prev = h;
        j->held = h;
    } else if (h->parts[h->count - 1].number >= number) {
        return;
    } else if (h->count == 2) {
        h->parts[1].number = number;
        return;
    }
    h->parts[h->count].number = number;
    h->parts[h->count++].from = from;
}

void pn_wire_hold(pn_wire *w, uint32_t from, pn_env *env) {
    if (env->journal) pn_wire_hold_until(w, from, pn_journal_latest(env->journal), env);
}

static void unhold(pn_hold *h, pn_env *env) {
    *(h->prev ? &h->prev->next : &env->journal->held) = h->next;
    if (h->next) h->next->prev = h->prev;
    h->prev = h->next = NULL;
}

bool pn_wire_release(pn_wire *w, pn_env *env) {
    pn_hold *h = w->hold;
    uint8_t n = 0;
    while (h && n < h->count && h->parts[n].number <= env->journal->committed) n++;
    if (n == 0) return false;
    h->count = (uint8_t)(h->count - n);
    if (h->count) {
        h->parts[0] = h->parts[1];
    } else {
        unhold(h, env);
    }
    return true;
}

void pn_wire_take_back(pn_wire *w, pn_env *env) {
    pn_hold *h = w->hold;
    if (!h || h->count == 0) return;
    w->out.tail = w->out.head + h->parts[0].from;
    h->count = 0;
    unhold(h, env);
}

void pn_wire_sent(pn_wire *w, uint32_t n, pn_env *env) {
    pn_buf_drop(&w->out, n);
    if (pn_buf_len(&w->out) == 0) rest(w, env);
    if (n) w->began = true;
    for (uint8_t i = 0; w->hold && i < w->hold->count; i++) w->hold->parts[i].from -= n;
}

void pn_wire_ack(pn_wire *w, uint8_t type, uint16_t id, uint8_t reason, pn_env *env) {
    if (reason && w->version >= PN_V5) {
        pn_wire_send(w, &(pn_packet){.type = type, .id = id, .reason = reason}, env);
        return;
    }
    uint8_t *room = answer_room(w, PN_ACK_SIZE, env);
    if (room) answered(w, pn_ack_put(room, type, id), env);
}

/* Topic Aliases: the n-th topic has alias n + 1. */
struct pn_aliases {
    uint16_t count;
    struct pn_alias {
        uint64_t hash;
        uint8_t *topic; /* owned */
        uint32_t n;
    } list[];
};

void pn_wire_free(pn_wire *w) {
    for (uint16_t i = 0; w->aliases && i < w->aliases->count; i++) pn_free(w->aliases->list[i].topic);
    pn_free(w->aliases);
    pn_free(w->hold);
    pn_buf_free(&w->out);
}

/* A topic that the client is to know by its alias from now on. Without memory it stays unknown, which the caller must not have promised. */
static bool learn(pn_wire *w, pn_span topic, uint64_t hash) {
    if (!w->aliases) w->aliases = pn_calloc(1, sizeof *w->aliases + w->alias_max * sizeof *w->aliases->list);
    uint8_t *copy = w->aliases ? pn_malloc(topic.n) : NULL;
    if (!copy) return false;
    memcpy(copy, topic.p, topic.n);
    w->aliases->list[w->aliases->count++] = (struct pn_alias){hash, copy, topic.n};
    return true;
}

/* Encodes to a wire, by way of a Topic Alias where the client takes them: the first topics it hears get one (MQTT-3.3.2-8).
 * Returns as pn_pub_encode. */
static int64_t encode(pn_wire *w, const pn_pub *pub, pn_send *form, pn_env *env) {
    enum { HEADERS = 64 };
    int64_t now = env->now;
    form->version = w->version;
    form->max_packet = w->max_packet;
    make_room(w, pn_pub_bytes(pub) + HEADERS, env);
    if (w->alias_max == 0 || pub->topic.n == 0) return pn_pub_encode(pub, &w->out, form, now);
    uint64_t hash = pn_hash(pub->topic.p, pub->topic.n, 0);
    uint16_t i = 0, count = w->aliases ? w->aliases->count : 0;
    for (; i < count; i++) {
        const struct pn_alias *a = &w->aliases->list[i];
        if (a->hash == hash && a->n == pub->topic.n && memcmp(a->topic, pub->topic.p, pub->topic.n) == 0) break;
    }
    form->alias_known = i < count;
    bool fresh = !form->alias_known && i < w->alias_max && learn(w, pub->topic, hash);
    if (form->alias_known || fresh) form->alias = (uint16_t)(i + 1);
    int64_t n = pn_pub_encode(pub, &w->out, form, now);
    if (n <= 0 && fresh) pn_free(w->aliases->list[--w->aliases->count].topic); /* it was not sent, so the client does not know it */
    return n;
}

/* --- to the client --- */

/* Where the i-th entry stands among all that there ever were. */
static uint64_t place_of(const pn_queue *q, uint32_t i) { return q->place + i; }

static uint16_t id_of(uint64_t place) { return (uint16_t)(place % UINT16_MAX + 1); }

/* Forgets what an entry held; it keeps its place and identifier until it reaches the head. */
static void empty(pn_queue *q, pn_out *e, uint8_t state) {
    if (e->message) {
        q->bytes -= pn_message_bytes(e->message);
        pn_message_drop(e->message);
        e->message = NULL;
        pn_free(e->extra);
        e->extra = NULL;
    }
    e->state = state;
}

/* The i-th entry is done with. */
static inline void finish(pn_session *s, uint32_t i, pn_env *env) {
    pn_queue *q = s->queue;
    pn_forget_queued(s, place_of(q, i), env);
    empty(q, at(q, i), PN_OUT_DONE);
}

static inline void trim(pn_session *s) {
    pn_queue *q = s->queue;
    while (q->cursor > 0 && at(q, 0)->state == PN_OUT_DONE) {
        q->head = (q->head + 1) & (q->cap - 1);
        q->count--;
        q->place++;
        q->numbered--;
        q->cursor--;
    }
    if (q->count == 0 && q->cap > RING_FIRST) { /* a backlog has been worked off: an idle session is small again */
        q->cap = RING_FIRST;
        q->head = 0;
        pn_queue *small = pn_realloc(q, sizeof *q + RING_FIRST * sizeof *q->ring);
        if (small) s->queue = small;
    }
}

/* Whether what the client is about to be sent must be on the disk first. A QoS 2 message: were it forgotten in a crash, its identifier would go
 * to another one, which the client would take for this one. Its PUBREL: were that forgotten, it would be published again to a client that
 * has forgotten it. */
static bool waits_for_disk(const pn_session *s, const pn_out *e, const pn_env *env) {
    return e->qos == 2 && s->whole && env->journal && s->queue->recorded > env->journal->committed;
}

static void count_out(pn_env *env, const pn_pub *pub, uint8_t qos) {
    env->stats.publishes_out_qos[qos]++;
    env->stats.publish_bytes_out += pub->payload.n;
}

/* Publishes the entry at the cursor, or again. Returns as pn_pub_encode. */
static int64_t publish_next(pn_queue *q, pn_out *e, pn_wire *w, const pn_pub *pub, pn_env *env) {
    bool again = e->state == PN_OUT_PUBLISHED;
    if (!again) {
        e->id = id_of(place_of(q, q->cursor));
        q->numbered = q->cursor + 1;
        if (pub->expires <= env->now) { /* MQTT-3.3.2-5 */
            env->stats.dropped_expired++;
            return 0;
        }
    }
    pn_send form = {.qos = e->qos, .retain = e->retain, .dup = again, .id = e->id};
    if (e->extra) form.ids = e->extra->ids, form.id_count = e->extra->id_count;
    int64_t n = encode(w, pub, &form, env);
    if (n == 0) env->stats.dropped_too_large++;
    return n;
}

/* Whether something waits, and the window is open. */
static inline bool may_send(const pn_queue *q, const pn_wire *w) { return q->cursor < q->count && q->unacked < w->window; }

/* Sends what waits to the wire there is. `last`, where it is not NULL, is the message of the last entry. */
static void send_waiting(pn_session *s, const pn_pub *last, pn_env *env) {
    pn_wire *w = s->wire;
    pn_queue *q = s->queue;
    uint64_t sent = q->place + q->numbered;
    while (may_send(q, w) && !w->broken && pn_buf_len(&w->out) < env->limits.max_output_bytes) {
        pn_out *e = at(q, q->cursor);
        if (e->state == PN_OUT_DONE) {
            if (++q->cursor > q->numbered) q->numbered = q->cursor; /* a gap that was restored */
            continue;
        }
        bool waits = waits_for_disk(s, e, env);
        if (waits && env->journal->fails) break;
        uint32_t from = pn_buf_len(&w->out);
        if (e->state == PN_OUT_RELEASED) {
            pn_wire_ack(w, PN_PUBREL, e->id, PN_SUCCESS, env);
        } else {
            if (e->state != PN_OUT_PUBLISHED && q->numbered >= IDS_SPAN) { /* many may just have been dropped as expired */
                trim(s);
                q = s->queue;
                if (q->numbered >= IDS_SPAN) break;
                continue;
            }
            pn_pub own;
            const pn_pub *pub = last;
            if (!last || q->cursor + 1 != q->count) own = pn_message_pub(e->message), pub = &own;
            int64_t n = publish_next(q, e, w, pub, env);
            if (n == 0) { /* MQTT-3.1.2-25: as if it had been delivered */
                finish(s, q->cursor, env);
                q->cursor++;
                continue;
            }
            e->state = PN_OUT_PUBLISHED;
            if (n < 0) {
                pn_wire_break(w, env);
                break;
            }
            count_out(env, pub, e->qos);
        }
        if (waits) pn_wire_hold_until(w, from, q->recorded, env);
        q->cursor++;
        q->unacked++;
    }
    if (q->place + q->numbered != sent && !pn_record_sent(s, env)) env->journal->lost++;
}

void pn_session_pump(pn_session *s, pn_env *env) {
    if (!s->wire || !s->queue) return;
    if (may_send(s->queue, s->wire)) send_waiting(s, NULL, env);
    trim(s);
}

/* Whether there is room for one more entry; false without memory. */
static bool queue_grow(pn_session *s);
static inline bool queue_room(pn_session *s) { return (s->queue && s->queue->count < s->queue->cap) || queue_grow(s); }

static bool queue_grow(pn_session *s) {
    pn_queue *old = s->queue;
    uint32_t cap = old ? old->cap * 2 : RING_FIRST;
    pn_queue *q = pn_malloc(sizeof *q + cap * sizeof *q->ring);
    if (!q) return false;
    *q = old ? *old : (pn_queue){0};
    q->cap = cap;
    q->head = 0;
    for (uint32_t i = 0; i < q->count; i++) q->ring[i] = *at(old, i);
    pn_free(old);
    s->queue = q;
    return true;
}

/* QoS 0 as most clients get it, byte for byte the same for all of one version: encoded for the second, copied from then on. Returns as
 * pn_pub_encode. */
static int64_t send_plain(pn_wire *w, pn_pub *pub, pn_env *env) {
    bool v5 = w->version >= PN_V5;
    pn_span *image = &pub->plain[v5];
    if (!image->n) {
        pn_buf *buf = &env->plain[v5];
        pn_buf_drop(buf, pn_buf_len(buf));
        int64_t n = pn_pub_encode(pub, buf, &(pn_send){.version = w->version, .max_packet = PN_PACKET_SIZE_MAX}, env->now);
        if (n <= 0) return n;
        *image = pn_span_of(pn_buf_head(buf), (size_t)n);
    }
    if (image->n > w->max_packet) return 0;
    make_room(w, image->n, env);
    return pn_buf_add(&w->out, image->p, image->n) ? (int64_t)image->n : -1;
}

const pn_out *pn_session_outgoing(const pn_session *s, uint32_t i) { return i < pn_session_queued(s) ? at(s->queue, i) : NULL; }

/* What `how` has beside QoS and retain, to be kept; false without memory. */
static bool keep_extra(const pn_delivery *how, pn_out_extra **out) {
    *out = NULL;
    if (!how->group && how->id_count == 0) return true;
    pn_out_extra *extra = pn_malloc(sizeof *extra + how->id_count * sizeof *extra->ids);
    if (!extra) return false;
    extra->group = how->group;
    extra->id_count = how->id_count;
    if (how->id_count) memcpy(extra->ids, how->ids, how->id_count * sizeof *extra->ids);
    *out = extra;
    return true;
}

void pn_session_deliver(pn_session *s, pn_pub *pub, const pn_delivery *how, pn_env *env) {
    if (pub->expires <= env->now) {
        env->stats.dropped_expired++;
        return;
    }
    pn_wire *w = s->wire;
    if (how->qos == 0) {
        if (!w || w->broken) return;
        if (pn_buf_len(&w->out) >= env->limits.max_output_bytes) {
            env->stats.dropped_slow_reader++;
            return;
        }
        if (pn_buf_len(&w->out) >= SMALL_OUTPUT && !pn_memory_has(env, pn_pub_bytes(pub), PN_MEMORY_KEPT)) {
            env->stats.dropped_max_memory++;
            return;
        }
        bool plain = !how->retain && !how->id_count && !w->alias_max && pub->expires == PN_NEVER;
        int64_t n = plain && pub->plain_sent++
                        ? send_plain(w, pub, env)
                        : encode(w, pub, &(pn_send){.retain = how->retain, .ids = how->ids, .id_count = how->id_count}, env);
        if (n > 0) {
            count_out(env, pub, 0);
        } else if (n == 0) {
            env->stats.dropped_too_large++;
        } else {
            env->stats.dropped_no_memory++;
        }
        return;
    }
    uint64_t bytes = (uint64_t)pn_session_bytes(s) + pn_pub_bytes(pub);
    if (pn_session_waiting(s) >= env->limits.max_queued_messages || bytes > env->limits.max_queued_bytes) {
        env->stats.dropped_queue_full++;
        return;
    }
    if (!pn_memory_has(env, pn_pub_bytes(pub), PN_MEMORY_KEPT)) {
        env->stats.dropped_max_memory++;
        return;
    }
    if (!queue_room(s)) {
        env->stats.dropped_no_memory++;
        return;
    }
    pn_out_extra *extra;
    pn_message *m = keep_extra(how, &extra) ? pn_pub_share(pub) : NULL;
    if (!m) {
        pn_free(extra);
        env->stats.dropped_no_memory++;
        return;
    }
    pn_queue *q = s->queue;
    uint32_t i = q->count++;
    pn_out *e = at(q, i);
    *e = (pn_out){.message = m, .extra = extra, .state = PN_OUT_WAITING, .qos = how->qos & 3u, .retain = how->retain};
    q->bytes += pn_message_bytes(m);
    if (!pn_record_queued(s, place_of(q, i), e, true, env)) {
        empty(q, e, PN_OUT_DONE);
        q->count--;
        env->stats.dropped_no_memory++;
        return;
    }
    if (!w || !may_send(q, w)) return;
    send_waiting(s, pub, env);
    trim(s);
}

void pn_session_acked(pn_session *s, uint8_t type, uint16_t id, uint8_t reason, pn_env *env) {
    pn_queue *q = s->queue;
    pn_out *e = NULL;
    uint32_t i = 0;
    if (q && q->numbered) {
        uint32_t first = at(q, 0)->id;
        i = id >= first ? id - first : id + 65535u - first; /* identifiers run from 1 to 65535 and round */
        if (i < q->numbered) e = at(q, i);
    }
    bool known = e && (type == PN_PUBACK   ? e->state == PN_OUT_PUBLISHED && e->qos == 1
                       : type == PN_PUBREC ? (e->state == PN_OUT_PUBLISHED && e->qos == 2) || e->state == PN_OUT_RELEASED
                                           : e->state == PN_OUT_RELEASED);
    if (!known) { /* 5.0 §4.13.1: nothing to end; but a PUBREC must be answered so that the client can let go */
        if (type == PN_PUBREC && reason < 0x80) pn_wire_ack(s->wire, PN_PUBREL, id, PN_PACKET_ID_NOT_FOUND, env);
        return;
    }
    if (type == PN_PUBREC && reason < 0x80) {
        uint32_t from = pn_buf_len(&s->wire->out);
        empty(q, e, PN_OUT_RELEASED);
        if (!pn_record_queued(s, place_of(q, i), e, false, env)) pn_wire_break(s->wire, env);
        pn_wire_ack(s->wire, PN_PUBREL, id, PN_SUCCESS, env);
        if (s->whole) pn_wire_hold(s->wire, from, env); /* else, after a crash, it would be published again to a client that has forgotten it */
        return;
    }
    finish(s, i, env);
    if (i < q->cursor) q->unacked--;
    pn_session_pump(s, env);
}

void pn_session_attach(pn_session *s, pn_wire *wire, pn_env *env) {
    s->wire = wire;
    if (s->queue) s->queue->cursor = s->queue->unacked = 0;
    pn_session_pump(s, env);
}

void pn_session_detach(pn_session *s) {
    s->wire = NULL;
    if (s->queue) s->queue->cursor = s->queue->unacked = 0;
}

/* --- from the client --- */

bool pn_session_received(const pn_session *s, uint16_t id) {
    for (uint32_t i = s->in_count; i-- > 0;) {
        if (s->in_ids[i] == id) return true;
    }
    return false;
}

static bool ids_grow(pn_session *s) {
    uint32_t cap = s->in_cap ? s->in_cap * 2u : 8u;
    if (cap > UINT16_MAX) cap = UINT16_MAX;
    if (s->in_count == cap) return false;
    uint16_t *ids = pn_realloc(s->in_ids, cap * sizeof *ids);
    if (!ids) return false;
    s->in_ids = ids;
    s->in_cap = (uint16_t)cap;
    return true;
}

uint8_t pn_session_begin_qos2(pn_session *s, uint16_t id, uint16_t most, pn_env *env) {
    if (pn_session_received(s, id)) return PN_PACKET_ID_IN_USE;
    if (s->in_count >= most) return PN_RECEIVE_MAXIMUM_EXCEEDED;
    if (s->in_count == s->in_cap && !ids_grow(s)) return PN_QUOTA_EXCEEDED;
    if (!pn_record_received(s, id, env)) return PN_QUOTA_EXCEEDED;
    s->in_ids[s->in_count++] = id;
    return PN_SUCCESS;
}

bool pn_session_end_qos2(pn_session *s, uint16_t id, pn_env *env) {
    for (uint32_t i = 0; i < s->in_count; i++) {
        if (s->in_ids[i] != id) continue;
        s->in_ids[i] = s->in_ids[--s->in_count];
        pn_forget_received(s, id, env);
        return true;
    }
    return false;
}

/* --- as it was before a restart --- */

bool pn_session_restore_received(pn_session *s, uint16_t id) {
    if (id == 0 || pn_session_received(s, id) || (s->in_count == s->in_cap && !ids_grow(s))) return false;
    s->in_ids[s->in_count++] = id;
    return true;
}

bool pn_session_restore_out(pn_session *s, uint64_t place, pn_message *m, const pn_delivery *how) {
    if (!queue_room(s)) return false;
    pn_queue *q = s->queue;
    if (q->count == 0) q->place = place;
    uint64_t next = place_of(q, q->count);
    if (place < next) return false;
    if (place - q->place >= IDS_SPAN && place != next) return false; /* what was acknowledged out of turn leaves gaps, but none so wide */
    for (; next < place; next++) {
        *at(q, q->count++) = (pn_out){.state = PN_OUT_DONE, .id = id_of(next)};
        if (!queue_room(s)) return false;
        q = s->queue;
    }
    pn_out entry = {.state = m ? PN_OUT_WAITING : PN_OUT_RELEASED, .id = id_of(place), .qos = how->qos & 3u, .retain = how->retain};
    if (m && !keep_extra(how, &entry.extra)) return false;
    if (m) {
        entry.message = pn_message_ref(m);
        q->bytes += pn_message_bytes(m);
    }
    *at(q, q->count++) = entry;
    if (!m) q->numbered = q->count;
    return true;
}

bool pn_session_restore_sent(pn_session *s, uint64_t sent) {
    if (!s->queue && sent && !queue_room(s)) return false;
    pn_queue *q = s->queue;
    if (!q) return true;
    if (q->count == 0) {
        q->place = sent;
        return true;
    }
    uint64_t n = sent > q->place ? sent - q->place : 0;
    if (n > q->count) n = q->count;
    if (n > IDS_SPAN) n = IDS_SPAN;
    if (n > q->numbered) q->numbered = (uint32_t)n;
    for (uint32_t i = 0; i < q->numbered; i++) {
        if (at(q, i)->state == PN_OUT_WAITING) at(q, i)->state = PN_OUT_PUBLISHED;
    }
    return true;
}
