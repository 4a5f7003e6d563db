/* broker.h: the whole broker without a socket and without a clock: links, sessions, routing, retained messages, wills, time.
 *
 * The rule it keeps: bytes in, bytes out, and time is an argument. The core never calls back. A driver does this:
 *
 *     link = pn_link_open(broker, owner, now)        a socket was accepted
 *     pn_link_feed(link, data, n, now)               bytes have come
 *     while pn_broker_event(broker, &event) …        after every call that takes `now`, before the next one
 *     while (link = pn_broker_dirty(broker, lane)) …  once a turn of its loop: pn_link_output, send, pn_link_sent
 *     pn_broker_tick(broker, now)                    once a second or more often
 *     pn_broker_work(broker, now)                    once a turn of its loop, while pn_broker_busy
 *     pn_link_lost(link, now)                        the socket is gone; frees the link
 *
 * and, when what was promised is to outlive the process (journal.h, records.h):
 *
 *     pn_broker_keep, pn_broker_restore …, pn_broker_restored     at the start, after the rules are set
 *     pn_broker_batch, write, pn_broker_taken, pn_broker_committed     whenever there is something
 *
 * `now` is milliseconds of a monotonic clock. Not thread-safe: one broker, one thread.
 */
#ifndef PEANUT_BROKER_H
#define PEANUT_BROKER_H

#include "session.h"
#include "topic.h"

#define PN_RULE_SETS 16
#define PN_LANES 17 /* drivers side by side: 16 native loops (PN_LOOPS_MAX), and lane 0 for whoever is none */
#define PN_RULE_CHECKS_MAX 500000 /* rules that the SUBSCRIBEs of one call are held against; what comes then gets PN_QUOTA_EXCEEDED */
#define PN_DENIED_EVENTS_MAX 32 /* PN_EVENT_DENIED that one feed reports; all are counted */

typedef struct pn_broker pn_broker;
typedef struct pn_link pn_link;

/* One row a limit: its name in gateway.toml, the field, the default, what it may be set to. */
typedef struct pn_limit_row {
    const char *name;
    size_t offset;
    uint32_t otherwise, least, most;
} pn_limit_row;
extern const pn_limit_row pn_limit_table[]; /* ends with a NULL name */
void pn_limits_default(pn_limits *limits);

/* One row a counter or gauge of pn_stats. */
typedef struct pn_stat_row {
    const char *name;
    size_t offset;
} pn_stat_row;
extern const pn_stat_row pn_stat_table[]; /* ends with a NULL name */

pn_broker *pn_broker_new(const pn_limits *limits, uint64_t seed); /* owned; NULL without memory */
void pn_broker_free(pn_broker *b);                                /* with every link and session */
const pn_stats *pn_broker_stats(pn_broker *b); /* looks at every session: not for the packet path */
int64_t pn_broker_now(const pn_broker *b);  /* of the last call that brought the time */
uint64_t pn_broker_seed(const pn_broker *b); /* for the rule sets */
void pn_broker_set_limits(pn_broker *b, const pn_limits *limits); /* for what comes from now on */

/* Steals `rules` and puts them in `slot`, freeing what was there. Sessions of that slot lose the subscriptions
 * and the will that are no longer allowed. */
void pn_broker_set_rules(pn_broker *b, uint8_t slot, pn_rules *rules);
const pn_rules *pn_broker_rules(const pn_broker *b, uint8_t slot); /* borrowed; may be NULL: denies everything */

/* From now on everything that must survive a crash is recorded, and, if `waits`, acknowledged only when it is on the disk. `wall` is the wall
 * clock less `now`, in milliseconds; calling again sets both anew. False without memory. Before there are any sessions. */
bool pn_broker_keep(pn_broker *b, bool waits, int64_t wall);
/* What there was, record by record, in the order of the keys; after pn_broker_keep and before any link. False for a record that means
 * nothing (a damaged one, or one whose session is missing): it is left out. restored: that was all. Sessions that were
 * online count as lost now; wills and sessions that are due go; what the rules do not allow any more goes too. */
bool pn_broker_restore(pn_broker *b, pn_span key, pn_span value, int64_t now);
void pn_broker_restored(pn_broker *b, int64_t now);
/* The records that are to be written next, borrowed until the next call; false: none. taken: the driver has a copy; returns its number. */
bool pn_broker_batch(pn_broker *b, pn_span *batch);
uint64_t pn_broker_taken(pn_broker *b);
/* The batch of that number and all before it are on the disk: lets go what waited for them. */
void pn_broker_committed(pn_broker *b, uint64_t number, int64_t now);
/* The disk keeps nothing at present, or does again. Meanwhile everything that would have to be kept is refused (PN_QUOTA_EXCEEDED), and
 * clients before 5.0, which cannot be told, lose their connection without an acknowledgement; the rest is served. */
void pn_broker_failing(pn_broker *b, bool fails, int64_t now);

/* Whoever was known under that slot and identity is so no longer: delayed wills of its sessions are dropped when they are due. */
void pn_broker_revoke(pn_broker *b, uint8_t slot, pn_span identity, int64_t now);

/* Publishes in the gateway's own name; no rule is asked. lifetime: milliseconds after which it waits for nobody any more, or
 * PN_NEVER. False when the retained store is full or there is no memory. */
bool pn_broker_publish(pn_broker *b, pn_span topic, pn_span payload, uint8_t qos, bool retain, int64_t lifetime, int64_t now);
/* The retained message of exactly `topic` that has not expired, borrowed until the next call, or NULL. */
const pn_message *pn_broker_retained(const pn_broker *b, pn_span topic);

/* Whether the session of that key is online. */
bool pn_broker_online(pn_broker *b, pn_span session);

void pn_broker_tick(pn_broker *b, int64_t now);

/* Long work is done in slices: while pn_broker_busy, a driver calls pn_broker_work once a turn of its loop. */
bool pn_broker_busy(const pn_broker *b);
void pn_broker_work(pn_broker *b, int64_t now);

/* The next link of a lane that has output, or NULL. A link is handed out once until it gets more output. */
pn_link *pn_broker_dirty(pn_broker *b, uint8_t lane);
bool pn_broker_has_dirty(const pn_broker *b, uint8_t lane); /* whether there is one */

enum pn_event_kind {
    PN_EVENT_NONE,
    PN_EVENT_CONNECT,    /* a CONNECT waits: pn_link_connect, then accept or refuse */
    PN_EVENT_DISCONNECT, /* the session of an accepted link is offline; once for each accept that let it in */
    PN_EVENT_CLOSED,     /* send what is left of the output, close the socket, call pn_link_lost */
    PN_EVENT_DENIED,     /* `text` says what was not done: PN_NOT_AUTHORIZED no rule allows it, PN_QUOTA_EXCEEDED it was not retained */
    PN_EVENT_PAUSE,      /* the client sends too fast: read no more from it until */
    PN_EVENT_RESUME,     /* … the core says so */
    PN_EVENT_AUTH        /* the client's AUTH has come, with `reason` 0x18 or 0x19: pn_link_proof, then challenge, accept or authenticated, refuse or close */
};
typedef struct pn_event {
    uint8_t kind, reason;
    pn_link *link; /* freed already when pn_link_lost on it raised the event */
    void *owner;   /* the link's */
    pn_span text; /* borrowed until the next call that takes `now` */
} pn_event;
bool pn_broker_event(pn_broker *b, pn_event *out);

pn_link *pn_link_open(pn_broker *b, void *owner, int64_t now); /* NULL without memory */
void *pn_link_owner(const pn_link *l);
/* Drivers that share a broker have a lane each, below PN_LANES; a link begins in lane 0. Output that it has already counts as new. */
void pn_link_set_lane(pn_link *l, uint8_t lane);
void pn_link_feed(pn_link *l, const uint8_t *data, size_t n, int64_t now);

/* The CONNECT that waits for its verdict; its spans are borrowed until the next call on this link. */
bool pn_link_connect(const pn_link *l, pn_packet *out);

typedef struct pn_verdict {
    pn_span session;  /* the key its session is kept under: unique to identity and client id */
    pn_span identity; /* what {id} stands for in the rules */
    pn_span assigned; /* Assigned Client Identifier, or empty */
    pn_span proof;    /* Authentication Data of the CONNACK, or empty; after an enhanced authentication */
    pn_span response_information; /* for a client that asks for it (5.0 §3.2.2.3.15), or empty */
    uint8_t rules;    /* the slot */
} pn_verdict;
/* Lets the client in, and goes on with what it sent behind its CONNECT. False when it was refused instead: a will that the
 * rules do not allow (PN_NOT_AUTHORIZED) or that has no valid topic (PN_TOPIC_NAME_INVALID), max_sessions or no memory
 * (PN_QUOTA_EXCEEDED); or when no CONNECT waits. */
bool pn_link_accept(pn_link *l, const pn_verdict *v, int64_t now);
/* CONNACK with `reason`, and the end. `text` is the Server Reference with PN_USE_ANOTHER_SERVER and PN_SERVER_MOVED, else the
 * Reason String, for which the reason's name stands in (MQTT-3.2.2-19: left out when it does not fit). */
void pn_link_refuse(pn_link *l, uint8_t reason, pn_span text, int64_t now);
/* Ends the link from our side; `text` as in refuse. The will is published unless `reason` is PN_SUCCESS. */
void pn_link_close(pn_link *l, uint8_t reason, pn_span text, int64_t now);

/* Enhanced authentication (5.0 §4.12). proof: the method of the CONNECT and the data of the AUTH (of a CONNECT: read it there)
 * that waits to be judged; false when none does. challenge: sends an AUTH and waits for the client's. authenticated: ends, with
 * success, what a client that is in has begun with an AUTH 0x19. False when there was nothing to answer. */
bool pn_link_proof(const pn_link *l, pn_span *method, pn_span *data);
bool pn_link_challenge(pn_link *l, pn_span data, int64_t now);
bool pn_link_authenticated(pn_link *l, pn_span data, int64_t now);
/* When the proof of who the client of a link that is in is ends: its certificate or token. A will that is delayed beyond that is
 * dropped; one that is due at the end of the connection is published whatever ends it. After an accept it is PN_NEVER. */
void pn_link_proved_until(pn_link *l, int64_t until, int64_t now);
/* The socket is gone. Frees the link. */
void pn_link_lost(pn_link *l, int64_t now);
/* The same where the link's owner goes as well: no event names either any more, not even one that waits already. */
void pn_link_drop(pn_link *l, int64_t now);

/* Encoded output, borrowed until the next call; pn_link_sent drops `n` bytes of it and may make room for what waited. */
pn_span pn_link_output(const pn_link *l);
void pn_link_sent(pn_link *l, size_t n, int64_t now);

#endif
