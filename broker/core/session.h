/* session.h: one client's session: what must reach it, what it is in the midst of sending, what it subscribed to, its will.
 *
 * The rule it keeps: a session lives whole here, with or without a connection. It writes packets to the wire it is attached to
 * and nothing else; who may attach, and where publications go, is the broker's (broker.c).
 *
 * Delivery of QoS 1 and 2 is one ring in the order of arrival. Its entries run through
 *   waiting → published → done                     (QoS 1)
 *   waiting → published → released → done          (QoS 2)
 * Packet identifiers are given in ring order, so an acknowledgement finds its entry by subtraction, and redelivery after a
 * reconnect is a walk from the head (MQTT-4.4.0-1, MQTT-4.6.0-1).
 */
#ifndef PEANUT_SESSION_H
#define PEANUT_SESSION_H

#include "journal.h"
#include "message.h"

/* What a peer may make the core hold. All have defaults in mqtt.h. */
typedef struct pn_limits {
    uint32_t max_packet_size, max_connect_size, max_topic_length, max_topic_levels, max_client_id, max_subscriptions, receive_maximum,
        max_inflight, max_queued_messages, max_queued_bytes, max_output_bytes, max_parked_bytes, session_expiry_max,
        keepalive_max, server_keepalive, connect_timeout, max_sessions, max_retained, max_retained_bytes, max_qos, retain_available,
        wildcard_subscriptions, shared_subscriptions, topic_alias_maximum, payload_format_check, publish_rate, byte_rate, rate_action,
        max_memory, max_journal_bytes;
} pn_limits;

/* What becomes of a client that is over publish_rate or byte_rate. */
enum pn_rate_action { PN_RATE_THROTTLE, PN_RATE_DISCONNECT };

/* Counters since the start, and gauges of now. */
typedef struct pn_stats {
    uint64_t packets_in;
    uint64_t packets_out, publishes_in, publishes_out; /* sums; counted when asked for */
    uint64_t bytes_in, bytes_out;
    uint64_t answers_out; /* packets that are no PUBLISH */
    uint64_t publishes_in_qos[3], publishes_out_qos[3], publish_bytes_in, publish_bytes_out; /* bytes of payloads */
    uint64_t dropped_queue_full, dropped_slow_reader, dropped_expired, dropped_too_large, dropped_denied, dropped_no_memory,
        dropped_retained_full, dropped_max_memory, dropped_unkept;
    uint64_t refused_max_memory; /* sessions and subscriptions */
    uint64_t throttled, expired_sessions;
    uint64_t links, sessions, subscriptions, shared_subscriptions, retained, retained_bytes, walks;
    uint64_t memory; /* bytes that the core holds; counted when asked for */
    uint64_t stored, stored_bytes; /* messages that sessions hold, and what they cost; counted when asked for */
} pn_stats;

/* Output buffers that nobody needs just now, for whoever has something to say next: a connection that is idle has none, and what many are
 * sent at once costs no memory anew in every turn. Large ones (from PN_SPARE_FROM bytes on) are kept apart, for who needs one. They go where
 * nobody has asked for them from one tick to the next. */
enum { PN_SPARES_MAX = 256, PN_SPARE_FROM = 4096, PN_SPARE_MOST = 1024 * 1024, PN_SPARE_BYTES = 16 * 1024 * 1024 };
typedef struct pn_spares {
    pn_buf list[PN_SPARES_MAX]; /* owned, empty */
    uint32_t count, unused;     /* unused: the fewest there have been since the last tick */
    size_t bytes;
} pn_spares;

/* What every call needs to know of its surroundings. */
typedef struct pn_env {
    pn_limits limits;
    pn_stats stats;
    int64_t now; /* milliseconds, monotonic */
    pn_journal *journal;    /* owned; NULL: nothing outlives the process */
    pn_buf plain[2];        /* owned: behind pn_pub.plain of the publication under way */
    pn_spares small, large; /* spare outputs */
    struct pn_wire *broken; /* wires that broke in this call; the broker ends their links at its end */
} pn_env;

/* How far max_memory lets one go. The sessions there are live on while no new ones come; the last part of it is for what is small and
 * must go: answers, and what a client reads at once. */
enum pn_memory_use {
    PN_MEMORY_NEW = 14, /* sixteenths: sessions, subscriptions, retained messages */
    PN_MEMORY_KEPT = 15 /* what waits for the sessions there are, or comes in pieces */
};

/* Whether `more` bytes may be taken for that. */
bool pn_memory_has(const pn_env *env, size_t more, enum pn_memory_use use);

/* The way out to a connected client. */
typedef struct pn_wire {
    pn_buf out;
    struct pn_hold *hold; /* owned; NULL: nothing has ever waited for the disk */
    uint32_t max_packet;  /* the client's Maximum Packet Size (5.0 §3.1.2.11.4) */
    uint16_t window;     /* QoS 1 and 2 publications that may be unacknowledged: the smaller of its Receive Maximum and max_inflight */
    uint16_t alias_max;
    uint8_t version;
    bool began : 1;    /* something has been sent */
    bool explains : 1; /* the client has asked for Reason Strings (5.0 §3.1.2.11.7) */
    bool broken : 1;   /* something that must not be lost did not fit: the broker ends the connection */
    struct pn_wire *next_broken;
    struct pn_aliases *aliases; /* owned: topics that the client has been told an alias for */
} pn_wire;

/* Output that waits for the disk: from `from` bytes behind the head of `out` on it waits for batch `number`, until the next of them.
 * Two are enough: what would wait for a third waits for it together with the second. */
typedef struct pn_hold {
    struct {
        uint64_t number;
        uint32_t from;
    } parts[2];
    uint8_t count;
    pn_wire *wire;
    struct pn_hold *prev, *next; /* among journal->held */
} pn_hold;

void pn_wire_free(pn_wire *w);

/* Marks it as broken; the connection ends when the call does. */
void pn_wire_break(pn_wire *w, pn_env *env);

/* What stands in the output from byte `from` on says that something is kept: it waits until all that is recorded now is on the disk, or until
 * batch `number` is. Packets keep their order, so what is behind it waits as well. While the disk fails nothing waits: what would have to is
 * not sent at all (handlers.c). */
void pn_wire_hold(pn_wire *w, uint32_t from, pn_env *env);
void pn_wire_hold_until(pn_wire *w, uint32_t from, uint64_t number, pn_env *env);
/* Lets go what is on the disk; true when that was something. */
bool pn_wire_release(pn_wire *w, pn_env *env);
/* Takes back what waits: the connection ends, and what was not acknowledged is not kept. */
void pn_wire_take_back(pn_wire *w, pn_env *env);
/* Bytes that may go. */
static inline uint32_t pn_wire_ready(const pn_wire *w) {
    return w->hold && w->hold->count ? w->hold->parts[0].from : pn_buf_len(&w->out);
}
/* `n` of them have gone. */
void pn_wire_sent(pn_wire *w, uint32_t n, pn_env *env);
/* Gives back spares, all of them or those that were not needed since this was called last. */
void pn_spares_tick(pn_env *env, bool all);

/* How a publication is to reach one session. */
typedef struct pn_delivery {
    uint8_t qos;
    bool retain;
    uint32_t id_count;
    const uint32_t *ids;       /* Subscription Identifiers, borrowed */
    uint64_t group;            /* the shared subscription it comes by, 0: none (subs.h) */
} pn_delivery;

/* What few deliveries have, kept with those that have it. */
typedef struct pn_out_extra {
    uint64_t group;
    uint32_t id_count;
    uint32_t ids[];
} pn_out_extra;

enum pn_out_state { PN_OUT_WAITING, PN_OUT_PUBLISHED, PN_OUT_RELEASED, PN_OUT_DONE };

typedef struct pn_out {
    pn_message *message; /* one reference, until released or done */
    pn_out_extra *extra; /* owned, as long; NULL: neither identifiers nor a group */
    uint16_t id;
    uint8_t state;
    uint8_t qos : 2;
    uint8_t retain : 1;
} pn_out;

/* What is to reach the client at QoS 1 and 2, from the oldest that is not done on. */
typedef struct pn_queue {
    uint32_t cap, head, count; /* of the ring; cap is a power of two */
    uint32_t numbered;         /* entries from the head on that have a packet identifier */
    uint32_t cursor;           /* entries from the head on that this connection has been sent */
    uint32_t unacked;          /* of those, the ones not done */
    uint64_t place;    /* of the entry at the head among all that there ever were; it gives the packet identifier, so that a restart does not change it */
    uint64_t recorded; /* the batch that has the latest record of it */
    uint32_t bytes;
    pn_out ring[];
} pn_queue;

/* What is published when the client is gone (5.0 §3.1.2.5). */
typedef struct pn_will {
    pn_message *message; /* one reference */
    int64_t lifetime;    /* milliseconds from its publication to its expiry, or PN_NEVER */
    int64_t at;          /* when it is due: while the session is offline, milliseconds; else PN_NEVER */
    uint32_t delay;      /* seconds */
} pn_will;

/* Where one of the session's subscriptions stands in the index (subs.h). */
typedef struct pn_sub_ref {
    struct pn_sub_node *node;
    uint32_t at;
} pn_sub_ref;

/* What every delivery touches stands in front, and what few have behind a pointer. */
typedef struct pn_session {
    pn_wire *wire;   /* its link's; NULL while offline */
    pn_queue *queue; /* owned; NULL: there never was anything for it */
    uint64_t mark;
    uint32_t mark_at; /* subs.c: where this session stands in the routing of publication `mark` */
    uint8_t version, rules;
    bool whole; /* all that is its is kept, not only the will */
    pn_sub_ref *subs; /* owned array */
    uint32_t sub_count, sub_cap;
    uint16_t *in_ids; /* owned: QoS 2 identifiers received and not yet released */
    uint16_t in_count, in_cap;
    uint32_t expiry;        /* seconds; PN_EXPIRY_NEVER: for ever, 0: ends with the connection */
    struct pn_walks *walks; /* owned: retained messages that its new subscriptions have yet to get (walk.c); NULL: none */
    pn_will *will;          /* owned, or NULL */
    struct pn_session *next; /* in its hash bucket */
    struct pn_session *sleeper_prev, *sleeper_next; /* among the offline ones */
    int64_t proved_until; /* when what its client has proved to be ends, or PN_NEVER */
    int64_t ends_at;      /* while offline, milliseconds; PN_NEVER: not */
    uint64_t kept;        /* the number of its record, 0: none (records.h) */
    uint32_t key_length, identity_length;
    uint8_t text[]; /* key, then identity */
} pn_session;

static inline pn_span pn_session_key(const pn_session *s) { return (pn_span){s->text, s->key_length}; }
static inline pn_span pn_session_identity(const pn_session *s) {
    return (pn_span){s->text + s->key_length, s->identity_length};
}

/* Of its queue: messages that wait to be sent, all that are not done, what they cost, and the place behind the last one sent. */
static inline uint32_t pn_session_waiting(const pn_session *s) { return s->queue ? s->queue->count - s->queue->cursor : 0; }
static inline uint32_t pn_session_queued(const pn_session *s) { return s->queue ? s->queue->count : 0; }
static inline uint32_t pn_session_bytes(const pn_session *s) { return s->queue ? s->queue->bytes : 0; }
static inline uint64_t pn_session_sent(const pn_session *s) { return s->queue ? s->queue->place + s->queue->numbered : 0; }

pn_will *pn_will_new(const pn_pub *pub, int64_t lifetime, uint32_t delay); /* owned, not due; NULL without memory */
void pn_will_free(pn_will *w);                                           /* NULL is fine */
static inline void pn_session_drop_will(pn_session *s) {
    pn_will_free(s->will);
    s->will = NULL;
}

void pn_walks_drop(pn_session *s); /* walk.c */

pn_session *pn_session_new(pn_span key, pn_span identity); /* owned; NULL without memory */
void pn_session_free(pn_session *s);                       /* its subscriptions must be gone from the index */

/* Attaches a wire and sends again what was under way, then what waited. Detach with pn_session_detach. */
void pn_session_attach(pn_session *s, pn_wire *wire, pn_env *env);
void pn_session_detach(pn_session *s);

/* Sends `pub` at `qos`, or keeps it until it can be sent. What cannot be kept within the limits is dropped and counted: the newest goes,
 * so that what was promised first is kept. QoS 0 is not kept for a client that is away or does not read. */
void pn_session_deliver(pn_session *s, pn_pub *pub, const pn_delivery *how, pn_env *env);

/* The i-th of what has not been acknowledged, from the oldest on; NULL at the end. Borrowed until the session changes. */
const pn_out *pn_session_outgoing(const pn_session *s, uint32_t i);

/* Sends what waits, as far as window and wire allow. */
void pn_session_pump(pn_session *s, pn_env *env);

/* The client's PUBACK, PUBREC or PUBCOMP. */
void pn_session_acked(pn_session *s, uint8_t type, uint16_t id, uint8_t reason, pn_env *env);

/* QoS 2 from the client. begin: PN_SUCCESS when new, PN_PACKET_ID_IN_USE when it was received before (do not route again),
 * PN_RECEIVE_MAXIMUM_EXCEEDED, or PN_QUOTA_EXCEEDED without memory. end: false when the identifier is unknown. */
bool pn_session_received(const pn_session *s, uint16_t id); /* and not yet released */
uint8_t pn_session_begin_qos2(pn_session *s, uint16_t id, uint16_t most, pn_env *env); /* most: the Receive Maximum it was told */
bool pn_session_end_qos2(pn_session *s, uint16_t id, pn_env *env);

/* A session as it was before a restart; false without memory and for what cannot be. out: the entry at `place`, behind those before it; without a
 * message it is released. sent: those before that place have been sent; the last of the three. */
bool pn_session_restore_received(pn_session *s, uint16_t id);
bool pn_session_restore_out(pn_session *s, uint64_t place, pn_message *m, const pn_delivery *how);
bool pn_session_restore_sent(pn_session *s, uint64_t sent);

/* Appends a packet other than PUBLISH. The wire is broken when the packet is longer than the client takes (MQTT-3.1.2-24), and when a
 * client makes us answer without ever reading: above max_output_bytes, one packet and a margin. */
void pn_wire_send(pn_wire *w, const pn_packet *p, pn_env *env);
/* PUBACK, PUBREC, PUBREL or PUBCOMP. */
void pn_wire_ack(pn_wire *w, uint8_t type, uint16_t id, uint8_t reason, pn_env *env);

#endif
