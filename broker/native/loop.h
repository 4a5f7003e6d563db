/* loop.h: the native driver of the core: sockets, TLS and time, in a thread of its own or a turn at a time. There is one of it, or several
 * side by side (loops.h, which is what others see of it).
 *
 * The rule it keeps: it moves bytes and decides nothing. Who may come in, how fast and for how long, Python says; the two of them talk by
 * two queues, orders and posts, and neither ever waits for the other.
 *
 * A connection is named by a number that is never used again, so an order for one that is gone is no harm. The loop's own things (sockets,
 * sessions of TLS) are touched in its turn only; the core by whoever holds the house's lock (lock.h). One receive for a socket that is
 * ready; what a link has to say is sent at once, when all that came in this turn has been looked at; a socket is waited for only after it
 * has really taken no more.
 *
 * Where there are several, the lock is held for the core's work alone: what comes is received and decrypted before it is taken, and what goes is
 * encrypted and sent after it was given. Output for a link of another loop stays in the core, in that loop's lane, and the loop is woken for
 * it once, if it may be asleep. What the core says about such a link is an order to its loop, as it would be from Python.
 *
 * The life of a connection: pn_loops_add, then
 *     plain   it has its link already; or it gets it by ATTACH
 *     TLS     POST_HELLO (the first bytes) … BEGIN … POST_READY (who it is) … ATTACH, or POST_FAILED
 *             and where Python has said before that it may (pn_loops_welcome) the loop waits neither for BEGIN nor for ATTACH; HELLO and
 *             POST_OPENED ring no bell then, but come along with the next post: who comes in wakes Python once, with its CONNECT
 *     then    the core's events as posts; READ, FINISH
 *     at last POST_LOST (the link is to be given up: pn_link_lost) if it had one, and POST_GONE
 */
#ifndef PEANUT_LOOP_H
#define PEANUT_LOOP_H

#include "helpers.h"
#include "house.h"
#include "mail.h"
#include "tls.h"

typedef struct pn_loop pn_loop;

enum pn_post_kind { /* beside those of pn_event_kind */
    PN_POST_HELLO = 32, /* text: up to PN_HELLO_BYTES that a client has begun with. It waits for BEGIN, or MORE, or its end; reason 1:
                         * it waits for nothing, and its handshake has begun */
    PN_POST_READY,      /* the handshake is done: reason 3 for TLS 1.3, 2 for 1.2; text: what pn_tls_peer says, or nothing */
    PN_POST_OPENED,     /* the same, and it has its `link` already */
    PN_POST_FAILED,     /* it is not: text has OpenSSL's words, reason the X509_V_ERR_…; the connection ends by itself */
    PN_POST_LOST,       /* the link has no connection any more: pn_link_lost */
    PN_POST_STALLED,    /* it reads nothing, and is cut */
    PN_POST_PESTERS,    /* it reads nothing and makes TLS answer, and is cut */
    PN_POST_GONE,       /* the socket is closed; the last one, and the object is given back */
    PN_POST_PUMP,       /* a link of another driver has output */
    PN_POST_JOURNAL     /* there is something to be written; no object */
};

typedef struct pn_post {
    uint8_t kind, reason;
    void *object;    /* of the connection, or the owner's of the link; NULL: it is gone */
    pn_owner *owner; /* of the link, for the events of the core and PUMP */
    pn_link *link;   /* of OPENED; it is the reader's to give up, as all are */
    char *text;      /* owned (pn_free) */
    uint32_t n;
} pn_post;

enum pn_order_kind {
    PN_ORDER_ADD,
    PN_ORDER_BEGIN,  /* the handshake, with `context` */
    PN_ORDER_MORE,   /* the first bytes are not enough */
    PN_ORDER_ATTACH, /* the link, which is open already */
    PN_ORDER_READ,   /* looks whether it is to read: somebody has taken PN_EVENT_PAUSE or PN_EVENT_RESUME (house.h); with a `thing`,
                      * the CONNECT or AUTH has been seen for which it was parked */
    PN_ORDER_FINISH, /* sends what there is, says goodbye, waits for the peer to close */
    PN_ORDER_ABORT,  /* closes it at once */
    PN_ORDER_STEPPED /* of helpers only: a step of its handshake is done */
};

#define PN_HELLO_BYTES 9u
#define PN_HELLO_MAX (16u * 1024) /* bytes of a ClientHello, at most (HELLO_MAX of peanutd/tls.py) */
#define PN_RECEIVE_BUFFER (16u * 1024) /* bytes of one receive: what one peer gets before the others have their turn */
#define PN_SEND_TURN (256u * 1024)     /* bytes that one peer is sent in a turn */
#define PN_READY_TURN 256u             /* sockets looked at in a turn */
#define PN_REST_FROM 4u                /* links that have something in a turn, from which on its thread may rest after it */
#define PN_REST_EACH 10000             /* nanoseconds that such a turn takes for each of them, with the rest, */
#define PN_REST_MOST 100000            /* and at the most */
#define PN_STEPS_TURN 4u               /* steps of handshakes in a turn without helpers: each takes up to a millisecond */
#define PN_SHARE_EVERY 16u             /* sockets after which whoever waits for the core has a go */
#define PN_POSTS_MAX 65536u            /* posts that wait, beyond which no more denials are posted: they are counted all the same */

typedef struct pn_loop_times {
    int64_t stall, linger; /* milliseconds until who reads nothing is cut, 0 never; until who does not close is; more than 10^9 is 10^9 */
} pn_loop_times;

/* Connections of now, the turns that were made, receives and sends so far. */
typedef struct pn_loop_counts {
    uint64_t connections, turns, receives, sends;
} pn_loop_counts;

#define PN_LOOPS_MAX 16u /* a lane of the core each (PN_LANES) */

/* What the loops of a house share. */
typedef struct pn_loops {
    pn_house *house;
    pn_mail posts;
    pn_helpers *helpers; /* owned; NULL: handshakes are the loops' own */
    atomic_int_fast64_t stall, linger;
    atomic_uint_fast64_t names;
    atomic_bool ending;
    unsigned count;
    pn_loop *of[PN_LOOPS_MAX]; /* owned */
} pn_loops;

pn_loop *pn_loop_new(pn_loops *all, unsigned index); /* owned; NULL without memory or file descriptors */
void pn_loop_clear(pn_loop *loop); /* closes every connection; after the threads have ended */
void pn_loop_free(pn_loop *loop);  /* after that */
bool pn_loop_start(pn_loop *loop); /* a thread of its own, which turns until `ending` */
void pn_loop_join(pn_loop *loop);
void pn_loop_turn(pn_loop *loop, int timeout);

/* Nanoseconds that the thread rests after a turn of `took`, in which `spoke` links had something. Where several speak in turns that follow each
 * other closely, others do so while it rests, and one wake-up and one send serve them all, as a network card does with its interrupts. Nobody
 * waits for longer than PN_REST_MOST, and what goes through is never less than a socket in PN_REST_EACH. */
int64_t pn_loop_rest(uint32_t spoke, int64_t took);

/* A connection of this loop, by a name that is its own; see pn_loops_add and pn_loops_welcome. */
bool pn_loop_add(pn_loop *loop, uint64_t name, int fd, void *object, pn_link *link);
bool pn_loop_welcome(pn_loop *loop, uint64_t name, int fd, void *object, SSL_CTX *context, pn_owner *owner);
bool pn_loop_order(pn_loop *loop, uint8_t kind, uint64_t conn, void *thing);
void pn_loop_call(pn_loop *loop); /* any thread: there is something for it in the core; wakes it if it may be asleep */
pn_loop_counts pn_loop_count(pn_loop *loop);

/* The loop that a name is of. */
static inline unsigned pn_loop_of(uint64_t name) { return (unsigned)(name % PN_LOOPS_MAX); }

#endif
