/* link.c: one connection: bytes in, bytes out, and how it ends. What the packets mean is in connect.c and handlers.c. */
#include "inside.h"

#include "mem.h"

/* --- output --- */

void pn_mark_dirty(pn_link *l) {
    pn_broker *b = l->broker;
    if (l->dirty || pn_wire_ready(&l->wire) == 0) return;
    dirty_links *of = &b->dirty[l->lane];
    l->dirty = true;
    l->dirty_prev = of->last;
    l->dirty_next = NULL;
    *(of->last ? &of->last->dirty_next : &of->first) = l;
    of->last = l;
}

static void unmark_dirty(pn_link *l) {
    dirty_links *of = &l->broker->dirty[l->lane];
    if (!l->dirty) return;
    l->dirty = false;
    *(l->dirty_prev ? &l->dirty_prev->dirty_next : &of->first) = l->dirty_next;
    *(l->dirty_next ? &l->dirty_next->dirty_prev : &of->last) = l->dirty_prev;
}

pn_link *pn_broker_dirty(pn_broker *b, uint8_t lane) {
    pn_link *l = b->dirty[lane].first;
    if (l) unmark_dirty(l);
    return l;
}

bool pn_broker_has_dirty(const pn_broker *b, uint8_t lane) { return b->dirty[lane].first != NULL; }

void pn_link_set_lane(pn_link *l, uint8_t lane) {
    unmark_dirty(l);
    l->lane = lane & 31u;
    pn_mark_dirty(l);
}

void *pn_link_owner(const pn_link *l) { return l->owner; }

void pn_link_watch(pn_link *l) { l->broker->links[l->index].due = 0; }

pn_span pn_link_output(const pn_link *l) { return (pn_span){pn_buf_head(&l->wire.out), pn_wire_ready(&l->wire)}; }

void pn_link_sent(pn_link *l, size_t n, int64_t now) {
    pn_env *env = pn_enter(l->broker, now);
    env->stats.bytes_out += n;
    pn_wire_sent(&l->wire, (uint32_t)n, env);
    if (!l->session) return;
    if (pn_session_waiting(l->session)) {
        pn_session_pump(l->session, env);
        pn_mark_dirty(l);
        pn_settle(l->broker);
    }
    if (l->session && l->session->walks) pn_walks_wake(l->broker, l->session);
}

void pn_broker_committed(pn_broker *b, uint64_t number, int64_t now) {
    pn_env *env = pn_enter(b, now);
    pn_journal *j = env->journal;
    if (!j || number <= j->committed || number >= j->pending) return;
    j->committed = number;
    for (pn_hold *h = j->held, *next; h; h = next) {
        next = h->next;
        if (pn_wire_release(h->wire, env)) pn_mark_dirty(pn_link_of(h->wire));
    }
}

void pn_broker_failing(pn_broker *b, bool fails, int64_t now) {
    pn_env *env = pn_enter(b, now);
    pn_journal *j = env->journal;
    if (!j || j->fails == fails) return;
    j->fails = fails;
    if (fails) { /* nobody waits for what may never be: they are told, and come back to be refused or served */
        while (j->held) pn_link_fail(pn_link_of(j->held->wire), PN_QUOTA_EXCEEDED);
    } else {
        for (uint32_t i = 0; i < b->link_count; i++) {
            pn_link *l = b->links[i].link;
            if (l->state != LINK_LIVE) continue;
            pn_session_pump(l->session, env);
            pn_mark_dirty(l);
        }
    }
    pn_settle(b);
}

/* --- words --- */

void pn_add_prop(pn_broker *b, pn_props *props, uint8_t id, pn_span text, uint32_t num) {
    size_t n = pn_prop_size(id, (pn_span){0}, text, num);
    uint8_t *at = pn_buf_room(&b->scratch, n);
    if (!at) return; /* a Reason String may be left out; for what may not, pn_link_accept makes room first */
    pn_prop_put(at, id, (pn_span){0}, text, num);
    b->scratch.tail += (uint32_t)n;
    props->present |= 1ull << id;
    props->raw = pn_span_of(pn_buf_head(&b->scratch), pn_buf_len(&b->scratch));
}

pn_props pn_props_begin(pn_broker *b) {
    pn_buf_drop(&b->scratch, pn_buf_len(&b->scratch));
    return (pn_props){0};
}

/* A Reason String (5.0 §3.1.2.11.7) where the client wants them: `text`, or the reason's name. It goes where it fits only. */
void pn_explain(pn_link *l, pn_packet *p, pn_span text) {
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
    pn_add_prop(b, &p->props, PN_REASON_STRING, text, 0);
    int64_t n = pn_packet_encode(p, PN_V5, NULL, 0);
    if (n < 0 || n > l->wire.max_packet) { /* MQTT-3.2.2-19, MQTT-3.4.2-2, MQTT-3.14.2-3 */
        p->props = before;
        p->props.raw = pn_span_of(pn_buf_head(&b->scratch), before.raw.n);
    }
}

/* The acknowledgement of a publication, with its reason in words where that is worth it. */
void pn_acknowledge(pn_link *l, uint8_t type, uint16_t id, uint8_t reason) {
    pn_env *env = &l->broker->env;
    if (reason < 0x80 || !l->wire.explains) {
        pn_wire_ack(&l->wire, type, id, reason, env);
        return;
    }
    pn_packet p = {.type = type, .id = id, .reason = reason, .props = pn_props_begin(l->broker)};
    pn_explain(l, &p, (pn_span){0});
    pn_wire_send(&l->wire, &p, env);
}

/* The last word to a 5.0 client that was let in. `text` is the Server Reference for the two reasons that have one, else the Reason String. */
static void send_disconnect(pn_link *l, uint8_t reason, pn_span text) {
    if (l->state != LINK_LIVE || l->version < PN_V5 || l->wire.broken) return;
    pn_wire_take_back(&l->wire, &l->broker->env);
    if (!l->wire.began && pn_buf_len(&l->wire.out) == 0) return; /* MQTT-3.2.0-1: the CONNACK was among that */
    pn_packet p = {.type = PN_DISCONNECT, .reason = reason, .props = pn_props_begin(l->broker)};
    if ((reason == PN_USE_ANOTHER_SERVER || reason == PN_SERVER_MOVED) && text.n) {
        pn_add_prop(l->broker, &p.props, PN_SERVER_REFERENCE, text, 0);
    } else if (text.n || (l->wire.explains && reason >= 0x80)) {
        pn_explain(l, &p, text);
    }
    pn_wire_send(&l->wire, &p, &l->broker->env);
}

/* --- the end --- */

/* The session goes on without its link, or ends with it. */
static void session_offline(pn_link *l, uint8_t reason, bool with_will) {
    pn_broker *b = l->broker;
    pn_session *s = l->session;
    l->session = NULL;
    pn_session_detach(s);
    pn_walks_leave(b, s);
    pn_raise(b, PN_EVENT_DISCONNECT, l, reason, NULL, (pn_span){0});
    if (!with_will) { /* MQTT-3.14.4-3 */
        pn_session_drop_will(s);
    }
    pn_session_sleep(b, s);
}

/* Nothing more is read from this link; what is in its output may still go out. */
void pn_link_end(pn_link *l, uint8_t reason, bool with_will) {
    if (l->state == LINK_CLOSING) return;
    if (l->session) session_offline(l, reason, with_will);
    l->state = LINK_CLOSING;
    pn_behind_leave(l);
    pn_wire_take_back(&l->wire, &l->broker->env);
    pn_buf_free(&l->in);
    pn_raise(l->broker, PN_EVENT_CLOSED, l, reason, NULL, (pn_span){0});
    pn_mark_dirty(l);
}

/* Ends a link because of what its peer did, or on our own account: with a DISCONNECT where the protocol has one. */
void pn_link_fail(pn_link *l, uint8_t reason) {
    if (l->state == LINK_CLOSING) return;
    if (l->state == LINK_LIVE && reason == PN_UNSUPPORTED_VERSION) reason = PN_PROTOCOL_ERROR; /* MQTT-3.1.0-2, whatever it asks for */
    send_disconnect(l, reason, (pn_span){0});
    if (l->state == LINK_NEW && reason == PN_UNSUPPORTED_VERSION) { /* MQTT-3.1.2-2, 3.1.1: return code 1 */
        l->wire.version = PN_V311;
        pn_packet p = {.type = PN_CONNACK, .reason = 1};
        pn_wire_send(&l->wire, &p, &l->broker->env);
    }
    pn_link_end(l, reason, true);
}

/* Every call that can make output ends here: links whose wires broke in its course are ended. Their wills may break others. */
void pn_settle(pn_broker *b) {
    for (pn_wire *w; (w = b->env.broken) != NULL;) {
        b->env.broken = w->next_broken;
        pn_link_fail(pn_link_of(w), PN_QUOTA_EXCEEDED);
    }
}

void pn_link_close(pn_link *l, uint8_t reason, pn_span text, int64_t now) {
    pn_enter(l->broker, now);
    if (l->state == LINK_CLOSING) return;
    send_disconnect(l, reason, text);
    pn_link_end(l, reason, reason != PN_SUCCESS);
    pn_settle(l->broker);
}

void pn_link_free(pn_link *l) {
    pn_broker *b = l->broker;
    unmark_dirty(l);
    pn_behind_leave(l);
    b->untold -= l->untold != 0;
    b->links[l->index] = b->links[--b->link_count];
    b->links[l->index].link->index = l->index;
    b->env.stats.links = b->link_count;
    for (uint16_t i = 0; l->aliases && i < l->alias_max; i++) pn_message_drop(l->aliases[i]);
    pn_free(l->aliases);
    pn_free(l->topics);
    pn_buf_free(&l->in);
    pn_proof_free(l->proof);
    pn_free(l->pace);
    pn_wire_take_back(&l->wire, &b->env);
    pn_wire_free(&l->wire);
    pn_free(l);
}

void pn_link_proved_until(pn_link *l, int64_t until, int64_t now) {
    pn_env *env = pn_enter(l->broker, now);
    pn_session *s = l->session;
    if (!s) return;
    s->proved_until = until;
    if (s->will && s->kept && !pn_record_session(s, true, env)) env->journal->lost++;
}

static void lose(pn_link *l, int64_t now) {
    pn_enter(l->broker, now);
    if (l->session) session_offline(l, PN_UNSPECIFIED_ERROR, true);
    pn_settle(l->broker);
}

void pn_link_lost(pn_link *l, int64_t now) {
    lose(l, now);
    pn_link_free(l);
}

void pn_link_drop(pn_link *l, int64_t now) {
    pn_broker *b = l->broker;
    lose(l, now);
    for (uint32_t i = b->event_head; i < b->event_count; i++) {
        if (b->events[i].link == l) b->events[i].kind = PN_EVENT_NONE;
    }
    pn_link_free(l);
}

/* --- the beginning --- */

pn_link *pn_link_open(pn_broker *b, void *owner, int64_t now) {
    pn_enter(b, now);
    enum { LINKS_FIRST = 16 };
    if (b->link_count == b->link_cap) {
        uint32_t cap = b->link_cap ? b->link_cap * 2 : LINKS_FIRST;
        struct link_place *links = pn_realloc(b->links, cap * sizeof *links);
        if (!links) return NULL;
        b->links = links;
        b->link_cap = cap;
    }
    pn_link *l = pn_calloc(1, sizeof *l);
    if (!l) return NULL;
    l->broker = b;
    l->owner = owner;
    l->heard = l->opened = now;
    l->index = b->link_count;
    l->wire.max_packet = PN_PACKET_SIZE_MAX;
    b->links[b->link_count++] = (struct link_place){.link = l};
    b->env.stats.links = b->link_count;
    return l;
}

/* --- input --- */

/* Takes one packet from `data`. Bytes consumed; 0: no more can be taken now. The link may have ended. */
static size_t step(pn_link *l, const uint8_t *data, size_t n) {
    pn_broker *b = l->broker;
    pn_packet p;
    if (!pn_may_go_on(l)) return 0;
    const pn_limits *limits = &b->env.limits;
    uint32_t most = l->max_packet;
    if (l->state == LINK_NEW) most = limits->max_connect_size < limits->max_packet_size ? limits->max_connect_size : limits->max_packet_size;
    int64_t used = pn_packet_decode(data, n, l->version, most, &p);
    if (used <= 0) {
        if (used < 0) pn_link_fail(l, (uint8_t)-used);
        return 0;
    }
    if (p.type == PN_PUBLISH && l->state == LINK_LIVE && !pn_may_publish(l)) return 0;
    b->env.stats.packets_in++;
    if (l->state == LINK_NEW) { /* a CONNECT, which stays at the head of `in` until the verdict: see ask */
        l->version = p.version;
        l->state = LINK_ASKING;
        return 0;
    }
    uint8_t (*handle)(pn_link *, const pn_packet *) = pn_handlers[p.type];
    uint8_t reason = handle ? handle(l, &p) : PN_PROTOCOL_ERROR;
    if (reason) pn_link_fail(l, reason);
    return (size_t)used;
}

/* Works off what is in `in`, as far as it goes. */
void pn_drain(pn_link *l) {
    size_t used;
    while (l->state == LINK_LIVE && !l->wire.broken && !l->paused && pn_buf_len(&l->in) &&
           (used = step(l, pn_buf_head(&l->in), pn_buf_len(&l->in))) != 0) {
        if (l->state == LINK_LIVE) pn_buf_drop(&l->in, used);
    }
    if (pn_buf_len(&l->in) == 0) pn_buf_free(&l->in);
}

/* Keeps bytes for later. */
static bool keep(pn_link *l, const uint8_t *data, size_t n) {
    enum { SMALL = 4096 }; /* a packet that may come in pieces, whatever max_memory says */
    pn_env *env = &l->broker->env;
    bool room = pn_buf_len(&l->in) + n <= SMALL || pn_memory_has(env, n, PN_MEMORY_KEPT);
    if (!room) env->stats.dropped_max_memory++;
    if (room && pn_buf_add(&l->in, data, n)) return true;
    pn_link_fail(l, PN_QUOTA_EXCEEDED);
    return false;
}

/* Whether what a client that waits for its verdict has sent behind its CONNECT is too much with `n` bytes more. */
bool pn_parks_too_much(const pn_link *l, size_t n) {
    size_t held = pn_buf_len(&l->in);
    return held + n > (size_t)pn_packet_size(pn_buf_head(&l->in), held) + l->broker->env.limits.max_parked_bytes;
}

static void feed(pn_link *l, const uint8_t *data, size_t n) {
    uint32_t held = pn_buf_len(&l->in);
    if (l->state == LINK_ASKING || l->state == LINK_PROVING) {
        if (pn_parks_too_much(l, n)) {
            pn_link_fail(l, PN_QUOTA_EXCEEDED);
        } else if (keep(l, data, n) && l->state == LINK_PROVING) {
            pn_prove(l);
        }
        return;
    }
    if (l->paused || l->behind) { /* the driver has been told to read no more, and had this already */
        keep(l, data, n);
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
            if (keep(l, data, n)) pn_ask(l);
            return;
        }
        if (used) {
            pn_buf_free(&l->in);
            held = 0;
        } else if (l->paused || l->behind) {
            keep(l, data, n);
            return;
        }
    }
    while (n && !l->wire.broken) {
        size_t used = step(l, data, n);
        if (l->state == LINK_CLOSING) return;
        if (!used) {
            if (keep(l, data, n) && l->state == LINK_ASKING) pn_ask(l);
            return;
        }
        data += used;
        n -= used;
    }
}

void pn_link_feed(pn_link *l, const uint8_t *data, size_t n, int64_t now) {
    pn_broker *b = l->broker;
    pn_env *env = pn_enter(b, now);
    env->stats.bytes_in += n;
    if (l->state == LINK_CLOSING) return;
    l->heard = now; /* any byte: a large packet on a slow line is a sign of life as well */
    feed(l, data, n);
    uint8_t reason = l->state == LINK_LIVE ? pn_count_bytes(l, n) : PN_SUCCESS;
    if (reason) pn_link_fail(l, reason);
    pn_mark_dirty(l);
    pn_settle(b);
}
