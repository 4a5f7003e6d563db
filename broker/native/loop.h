/* loop.h: the native driver of the core: sockets, TLS and time, in a thread of its own or a turn at a time.
 *
 * The rule it keeps: it moves bytes and decides nothing. Who may come in, how fast and for how long, Python says; the two of them talk by
 * two queues, and neither ever waits for the other:
 *
 *     pn_loop_order          any thread: what is to be done with a connection; the loop does it in its next turn
 *     pn_loop_posts          any thread: what has happened; pn_loop_bell is readable while there is anything
 *
 * A connection is named by a number that is never used again, so an order for one that is gone is no harm. The loop's own things (sockets,
 * sessions of TLS) are touched in its turn only; the core by whoever holds the house's lock (lock.h). One receive for a socket that is
 * ready, into one buffer for all; what a link has to say is sent at once, when all that came in this turn has been looked at;
 * a socket is waited for only after it has really taken no more.
 *
 * The life of a connection: pn_loop_add, then
 *     plain   it has its link already; or it gets it by ATTACH
 *     TLS     POST_HELLO (the first bytes) … BEGIN … POST_READY (who it is) … ATTACH, or POST_FAILED
 *             and where Python has said before that it may (pn_loop_welcome) the loop waits neither for BEGIN nor for ATTACH; HELLO and
 *             POST_OPENED ring no bell then, but come along with the next post: who comes in wakes Python once, with its CONNECT
 *     then    the core's events as posts; READ, FINISH
 *     at last POST_LOST (the link is to be given up: pn_link_lost) if it had one, and POST_GONE
 */
#ifndef PEANUT_LOOP_H
#define PEANUT_LOOP_H

#include "house.h"
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
    PN_ORDER_FLUSH,  /* it has output */
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

pn_loop *pn_loop_new(pn_house *house, const pn_loop_times *times); /* owned; NULL without memory or file descriptors */
void pn_loop_free(pn_loop *loop, void (*give)(void *object));     /* after the thread has ended; gives every object back */
bool pn_loop_start(pn_loop *loop); /* a thread of its own, which turns until: */
/* Has up to so many threads take the steps of handshakes (helpers.h). Before the first turn; false: there is none, and the loop takes them. */
bool pn_loop_help(pn_loop *loop, unsigned threads);
void pn_loop_stop(pn_loop *loop);  /* ends the threads and waits for them; none is no harm */

/* Nanoseconds that the thread rests after a turn of `took`, in which `spoke` links had something. Where several speak in turns that follow each
 * other closely, others do so while it rests, and one wake-up and one send serve them all, as a network card does with its interrupts. Nobody
 * waits for longer than PN_REST_MOST, and what goes through is never less than a socket in PN_REST_EACH. */
int64_t pn_loop_rest(uint32_t spoke, int64_t took);

/* One turn, for those without a thread: waits `timeout` milliseconds at the most, -1 for ever. */
void pn_loop_turn(pn_loop *loop, int timeout);

void pn_loop_set_times(pn_loop *loop, const pn_loop_times *times);
int pn_loop_bell(const pn_loop *loop); /* borrowed: a file descriptor that is readable while there are posts */

/* A socket, not blocking, which is the loop's from now on. `object` comes with its posts. `link`: plain MQTT; NULL: TLS. Its
 * name, or 0 without memory, and then nothing has happened. */
uint64_t pn_loop_add(pn_loop *loop, int fd, void *object, pn_link *link);
/* The same for TLS that waits less. `context`: the handshake may begin as soon as a ClientHello does (a reference goes over); NULL: BEGIN
 * says so. `owner`: of the link that is opened when a handshake of TLS 1.3 is done, when there is nothing left to be kept back; borrowed
 * until POST_GONE is read. With TLS 1.2 ATTACH brings a link, and lets the last message of the handshake go. */
uint64_t pn_loop_welcome(pn_loop *loop, int fd, void *object, SSL_CTX *context, pn_owner *owner);
/* `thing` is the SSL_CTX of BEGIN (a reference goes over), the pn_link of ATTACH, anything for READ. False without memory. */
bool pn_loop_order(pn_loop *loop, uint8_t kind, uint64_t conn, void *thing);

void pn_loop_ring(pn_loop *loop); /* any thread: another turn, now; the core has work */

/* All posts that wait; owned (pn_free, and the texts). Between this and the next call of pn_loop_forget owners are alive. */
pn_post *pn_loop_posts(pn_loop *loop, uint32_t *count);
/* The owner of a link is about to go: no post names it any more. */
void pn_loop_forget(pn_loop *loop, const pn_owner *owner);

/* Connections of now, the turns that were made, receives and sends so far. */
typedef struct pn_loop_counts {
    uint64_t connections, turns, receives, sends;
} pn_loop_counts;
pn_loop_counts pn_loop_count(pn_loop *loop);

#endif
