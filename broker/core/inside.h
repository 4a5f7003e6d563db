/* inside.h: what the files of the broker share of it, and nobody else sees.
 *
 *   broker.c   sessions, publishing, time        connect.c   from a CONNECT to a session: verdicts, AUTH
 *   link.c     bytes, output, the end            handlers.c  what a client that is in may send
 *   rate.c     how fast a client may send        walk.c      retained messages for new subscriptions
 *   share.c    how much of a call is one client's    topics.c    what a client publishes to again and again
 *
 * Two habits keep it free of re-entrance: nothing is closed in the middle of routing (a wire that breaks is only marked, and
 * pn_settle ends its link when the call is over), and a will is published when its session is already detached.
 */
#ifndef PEANUT_INSIDE_H
#define PEANUT_INSIDE_H

#include "broker.h"
#include "records.h"
#include "retained.h"
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

/* A topic that a link publishes to again and again, and what has been found out about it (topics.c). */
enum { KNOWN_TOPICS_MAX = 4, KNOWN_TOPIC_BYTES = 72 };
typedef struct known_topic {
    pn_matched matched;
    uint32_t generation; /* of which broker->generation it is a valid name, and what follows holds; 0: of none */
    uint8_t allowed;     /* what the rules allow: a bit for each QoS, and three more for retained ones */
    uint8_t length;
    uint8_t topic[KNOWN_TOPIC_BYTES];
} known_topic;

/* Enhanced authentication (5.0 §4.12) of a client that asks for it. */
typedef struct link_proof {
    pn_buf method, data; /* data: of the AUTH that waits to be judged */
    uint8_t state;       /* while LIVE, enum reauth */
} link_proof;

/* How fast a client sends where that is limited (rate.c), and its place among those that have had their share (share.c). */
typedef struct link_pace {
    int64_t since;        /* milliseconds: when the counts began */
    int64_t paused_until; /* milliseconds; 0: it is not throttled */
    uint64_t bytes;
    uint32_t publishes;
    pn_link *behind_prev, *behind_next;
} link_pace;

/* What every message touches stands in front, and what few links have behind a pointer: ten thousand of them are idle most of the time. */
struct pn_link {
    pn_buf in; /* a packet that is not complete yet; while ASKING also what came behind the CONNECT */
    struct link_topics *topics; /* owned; NULL before the first PUBLISH */
    int64_t heard;
    pn_broker *broker;
    pn_session *session; /* while LIVE */
    uint32_t max_packet; /* what the client was told at its CONNECT, and is held to: a limit that changes later is for others */
    uint16_t alias_max, receive_max, keep_alive;
    uint8_t state, version;
    uint8_t max_qos : 2, lane : 5; /* lane: whose driver looks after it */
    bool dirty : 1, behind : 1, paused : 1; /* paused: until pace->paused_until */
    bool retains : 1;
    uint8_t untold, untold_reason; /* events of its end for which there was no memory: a bit each (broker.c) */
    pn_wire wire;
    pn_link *dirty_prev, *dirty_next;
    void *owner;
    int64_t opened;
    uint32_t index;       /* in broker->links */
    link_pace *pace;      /* owned, see pn_pace */
    link_proof *proof;    /* owned; NULL: its CONNECT has no Authentication Method */
    pn_message **aliases; /* owned: the topics of the client's Topic Aliases, as messages without payload; [0] is alias 1 */
};

/* Those of one lane that have output. */
typedef struct dirty_links {
    pn_link *first, *last;
} dirty_links;

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
    pn_retained *retained;
    pn_rules *rules[PN_RULE_SETS];
    uint32_t generation; /* how often rules or limits were set, from 1 */
    /* Who is there, and when it is worth while to look at him next: before, a tick leaves him alone. In a row, so that a tick reads a few bytes of
     * each of ten thousand that are idle, and not their links. */
    struct link_place {
        pn_link *link;
        int64_t due; /* milliseconds */
    } *links; /* owned array */
    uint32_t link_count, link_cap;
    pn_session **buckets; /* hash table of sessions by key; bucket_count is a power of two */
    uint32_t bucket_count, session_count;
    pn_session *sleepers; /* offline sessions that something is due to */
    dirty_links dirty[PN_LANES];
    queued_event *events; /* owned */
    uint32_t event_head, event_count, event_cap, denied_room;
    uint32_t untold; /* links that have such events */
    uint64_t judged; /* rules that the SUBSCRIBEs of this call were held against */
    uint64_t spent;         /* work that this call has done: deliveries, and nodes of the index visited for them */
    pn_link *behind, *last_behind; /* links that have had their share of a call, and have more in `in` (share.c) */
    uint64_t walked; /* nodes of the retained store that this call has visited */
    pn_session *walkers, *last_walker; /* sessions whose walks can go on (walk.c) */
    struct pn_restoring *restoring; /* owned; while records are being restored */
    pn_buf texts;   /* of the events */
    pn_buf scratch; /* properties and reason lists under construction */
};

/* --- broker.c --- */

/* Every call that takes `now` begins with pn_enter, and every one that can make output ends with pn_settle. */
pn_env *pn_enter(pn_broker *b, int64_t now);

void pn_raise(pn_broker *b, uint8_t kind, pn_link *l, uint8_t reason, const char *what, pn_span text);
void pn_raise_denied(pn_link *l, uint8_t reason, const char *what, pn_span topic); /* within PN_DENIED_EVENTS_MAX */

pn_session *pn_session_find(pn_broker *b, pn_span key);
pn_session *pn_session_begin(pn_broker *b, pn_span key, pn_span identity); /* NULL: no room, or no memory */
void pn_session_end(pn_broker *b, pn_session *s);
void pn_session_judge(pn_broker *b, pn_session *s);
bool pn_session_keep(pn_broker *b, pn_session *s); /* records it as one that is online; false without memory */
bool pn_session_wake(pn_broker *b, pn_session *s);
void pn_session_sleep(pn_broker *b, pn_session *s);
void pn_session_resume_sleep(pn_broker *b, pn_session *s, int64_t ends_at, int64_t will_at); /* one that slept before a restart */
void pn_session_unsleep(pn_broker *b, pn_session *s); /* nothing is due to it any more */

uint8_t pn_publish(pn_broker *b, pn_pub *pub, pn_matched *memory, const pn_session *publisher); /* memory: of its topic, or NULL */
void pn_publish_will(pn_broker *b, pn_session *s);
bool pn_forwarded(pn_broker *b, const pn_props *props, pn_span *out);
int64_t pn_lifetime_of(const pn_props *props);

/* --- restore.c --- */

void pn_restoring_free(struct pn_restoring *r); /* NULL is fine */

/* --- link.c --- */

static inline pn_link *pn_link_of(pn_wire *w) { return (pn_link *)((char *)w - offsetof(pn_link, wire)); }
void pn_mark_dirty(pn_link *l);
void pn_link_watch(pn_link *l); /* the next tick is to look at it: it may be due earlier than was thought */
void pn_link_end(pn_link *l, uint8_t reason, bool with_will);
void pn_link_fail(pn_link *l, uint8_t reason);
void pn_link_free(pn_link *l);
void pn_settle(pn_broker *b);
void pn_drain(pn_link *l);
bool pn_parks_too_much(const pn_link *l, size_t n);

/* Properties under construction, in `scratch`. */
pn_props pn_props_begin(pn_broker *b);
void pn_add_prop(pn_broker *b, pn_props *props, uint8_t id, pn_span text, uint32_t num);
void pn_explain(pn_link *l, pn_packet *p, pn_span text);
void pn_acknowledge(pn_link *l, uint8_t type, uint16_t id, uint8_t reason);

/* --- connect.c --- */

void pn_ask(pn_link *l);
void pn_proof_free(link_proof *p); /* NULL is fine */
void pn_refuse(pn_link *l, uint8_t reason, pn_span text);
void pn_prove(pn_link *l);
uint8_t pn_on_auth(pn_link *l, const pn_packet *p);
bool pn_payload_is_as_said(const pn_broker *b, const pn_props *props, pn_span payload);

/* --- handlers.c --- */

/* What a server may be sent once it has answered a CONNECT; NULL: only servers send it. A handler returns PN_SUCCESS, or
 * the reason code with which the link ends. */
extern uint8_t (*const pn_handlers[PN_TYPES])(pn_link *l, const pn_packet *p);

/* --- topics.c --- */

/* What the link knows of `topic`, or NULL. learn: it is to be known if it has been heard before; NULL if not, or without memory. Borrowed until the
 * next call of these. */
known_topic *pn_known_topic(const pn_link *l, pn_span topic);
known_topic *pn_learn_topic(pn_link *l, pn_span topic);

/* --- rate.c --- */

/* The link's pace, made when it is asked for; NULL without memory, and then the link is about to end. */
link_pace *pn_pace(pn_link *l);
/* Whether the next publication may be taken now; if not, the link is paused, and it waits in `in`. */
bool pn_may_publish(pn_link *l);
/* Count a publication and bytes that have been taken. PN_SUCCESS, or PN_MESSAGE_RATE_TOO_HIGH (PN_QUOTA_EXCEEDED without memory): that is to be
 * the end of the link. */
uint8_t pn_count_publish(pn_link *l);
uint8_t pn_count_bytes(pn_link *l, size_t n);
/* Goes on with what waits on a paused link, when its time has come. */
void pn_rate_tick(pn_link *l);

/* --- share.c --- */

/* Whether the link may go on; if not, what comes waits in `in`, and pn_broker_work goes on with it. */
bool pn_may_go_on(pn_link *l);
void pn_behind_leave(pn_link *l); /* it is no longer one of them */
void pn_behind_work(pn_broker *b);

/* --- walk.c --- */

/* The retained messages that `filter` matches are to come. False: too many walks, or no memory. */
bool pn_walk_begin(pn_broker *b, pn_session *s, pn_span filter, uint8_t qos, uint32_t id);
void pn_walks_go(pn_broker *b, pn_session *s);   /* as far as this call may go */
void pn_walks_wake(pn_broker *b, pn_session *s); /* the session may be able to take more */
void pn_walks_leave(pn_broker *b, pn_session *s); /* it is offline: its walks rest until it is back */
void pn_walks_end(pn_broker *b, pn_session *s);  /* gives up all of them */

#endif
