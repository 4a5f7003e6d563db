/* loop.c: the work of loop.h. */
#define _GNU_SOURCE
#include "loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "loops.h"
#include "mem.h"

enum state {
    GREETING, /* TLS: nothing came yet, or not enough */
    ASKING,   /* its first bytes, in `in`, have been posted */
    SHAKING,  /* in the handshake */
    PROVED,   /* the certificate has been posted */
    LIVE,     /* has a link */
    ENDING,   /* no link any more: sends what is in `out`, then half closes */
    SHUT,     /* half closed: waits for the peer */
    DEAD,     /* closed; freed at the end of the turn */
};

/* Connections that must have moved on by `due`, in that order. */
typedef struct waiting {
    struct pn_conn *first, *last;
} waiting;

struct pn_conn {
    int fd;
    uint8_t state, armed; /* enum state; what epoll looks for */
    bool held : 1;        /* reads no more for now */
    bool parked : 1;      /* nor does it while Python has not seen its CONNECT, or AUTH */
    bool deaf : 1;        /* the peer sends no more */
    bool blocked : 1;     /* the socket takes no more for now */
    bool conversing : 1;  /* the kernel need not acknowledge each receive */
    bool queued : 1;      /* in the queue for a step of the handshake */
    bool away : 1;        /* its session is at a helper's */
    uint32_t received_at; /* milliseconds, the latest receive */
    uint32_t due;         /* milliseconds, in a list */
    uint64_t name;
    void *object;
    pn_link *link; /* while LIVE */
    pn_owner *owner; /* of the link to come; NULL: ATTACH brings one */
    SSL_CTX *context; /* owned: what the handshake goes by, until its first step */
    SSL *ssl;      /* owned */
    pn_buf in;     /* what came before it can be read: the first bytes, and what followed the handshake at once */
    pn_buf out;    /* encrypted, or what the link has left behind */
    waiting *list; /* that it is in */
    struct pn_conn *prev, *next;
    struct pn_conn *same; /* hash chain */
    struct pn_conn *after; /* in the queue for a step of the handshake, or among the dead */
};
typedef struct pn_conn pn_conn;

typedef struct order {
    uint64_t name;
    void *thing;
    uint8_t kind;
} order;

/* What a connection that is in has said in this turn: bytes of `plain`, and how it ended. */
typedef struct heard {
    pn_conn *conn;
    uint32_t at, n;
    uint8_t end; /* enum ending */
} heard;

enum ending { GOES_ON, HUNG_UP, BROKE /* its session of TLS is over */ };

/* What it is sent in this turn: bytes of `going`. */
typedef struct leaving {
    pn_conn *conn;
    uint32_t n;
    bool more; /* there is more in the core */
} leaving;

enum { LEAVING_MAX = 64 }; /* links whose output is taken before it is sent */

struct pn_loop {
    pn_loops *all;
    pn_house *house;
    unsigned index;
    int epoll;
    pthread_t thread;
    bool threaded;
    bool locked; /* the core is ours */
    atomic_bool called, asleep; /* there is something in the core; nobody has looked for it since, and may not for long */
    atomic_uint_fast64_t turns, receives, sends, count;
    pn_mail orders;
    pn_conn **table; /* owned: hash table of all connections by name */
    uint32_t table_cap, table_count;
    pn_conn *steps, *last_step; /* those whose handshake can go on */
    pn_conn *dead;
    waiting stalled, lingering;
    pn_tls_pipe pipe;
    int64_t now;
    int64_t woke;   /* nanoseconds, in the latest turn */
    uint32_t spoke; /* links that had something in it */
    bool busy; /* the core has work to go on with */
    bool clear; /* OpenSSL's queue of errors, in this turn */
    uint32_t heard_count, plain_n, leaving_count;
    pn_buf going;
    leaving leaving[LEAVING_MAX];
    heard heard[PN_READY_TURN];
    uint8_t received[PN_RECEIVE_BUFFER], plain[4 * PN_RECEIVE_BUFFER];
};

static inline bool alone(const pn_loop *l) { return l->all->count == 1; }

static inline uint8_t lane(const pn_loop *l) { return (uint8_t)(l->index + 1); }

static int64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Milliseconds, as Python counts them (now_ms of peanutd/connection.py). */
static int64_t clock_now(void) { return nanoseconds() / 1000000; }

/* The core's time never goes back: whoever had the lock before may have looked at the clock later. */
static void look_at_the_clock(pn_loop *l) {
    int64_t now = clock_now(), latest = pn_broker_now(l->house->broker);
    l->now = now > latest ? now : latest;
}

static void enter(pn_loop *l) {
    pn_lock_take(&l->house->lock);
    l->locked = true;
    look_at_the_clock(l);
}

/* Ends what `enter` has begun. */
static void leave(pn_loop *l) {
    l->locked = false;
    pn_lock_give(&l->house->lock);
}

/* `enter`, unless the core is ours already; then false. */
static bool enter_once(pn_loop *l) {
    if (l->locked) return false;
    enter(l);
    return true;
}

static void share(pn_loop *l) {
    if (pn_lock_share(&l->house->lock)) look_at_the_clock(l);
}

/* ==== Posts ===================================================================================================== */

/* Puts it in the mail by `put`. False without memory: then it is as lost as a packet on the line, and who waits for an answer has its deadline.
 * POST_GONE is tried again. */
static bool write_post(pn_loop *l, pn_post p, const void *text, size_t n, bool (*put)(pn_mail *, const void *, size_t)) {
    if (n && (p.text = pn_malloc(n)) != NULL) {
        memcpy(p.text, text, n);
        p.n = (uint32_t)n;
    }
    bool written = put(&l->all->posts, &p, sizeof p);
    if (!written) pn_free(p.text);
    return written;
}

static bool post(pn_loop *l, pn_post p, const void *text, size_t n) { return write_post(l, p, text, n, pn_mail_put); }

static bool tell(pn_loop *l, const pn_conn *c, uint8_t kind, uint8_t reason, const void *text, size_t n) {
    return post(l, (pn_post){.kind = kind, .reason = reason, .object = c->object}, text, n);
}

/* ==== Connections =============================================================================================== */

static uint32_t slot_of(const pn_loop *l, uint64_t name) {
    return (uint32_t)(name * 0x9e3779b97f4a7c15u >> 32) & (l->table_cap - 1);
}

static pn_conn *find(const pn_loop *l, uint64_t name) {
    pn_conn *c = l->table_cap ? l->table[slot_of(l, name)] : NULL;
    while (c && c->name != name) c = c->same;
    return c;
}

static bool table_add(pn_loop *l, pn_conn *c) {
    if (l->table_count == l->table_cap) {
        uint32_t old_cap = l->table_cap;
        pn_conn **old = l->table, **table = pn_calloc(old_cap ? old_cap * 2u : 64, sizeof *table);
        if (!table) return false;
        l->table = table;
        l->table_cap = old_cap ? old_cap * 2 : 64;
        for (uint32_t i = 0; i < old_cap; i++) {
            for (pn_conn *one = old[i], *next; one; one = next) {
                next = one->same;
                one->same = table[slot_of(l, one->name)];
                table[slot_of(l, one->name)] = one;
            }
        }
        pn_free(old);
    }
    c->same = l->table[slot_of(l, c->name)];
    l->table[slot_of(l, c->name)] = c;
    atomic_store_explicit(&l->count, ++l->table_count, memory_order_relaxed);
    return true;
}

static void table_remove(pn_loop *l, const pn_conn *c) {
    pn_conn **at = &l->table[slot_of(l, c->name)];
    while (*at && *at != c) at = &(*at)->same;
    if (!*at) return;
    *at = c->same;
    atomic_store_explicit(&l->count, --l->table_count, memory_order_relaxed);
}

/* --- deadlines --- */

static void wait_no_more(pn_conn *c) {
    if (!c->list) return;
    *(c->prev ? &c->prev->next : &c->list->first) = c->next;
    *(c->next ? &c->next->prev : &c->list->last) = c->prev;
    c->list = NULL;
}

static void wait_in(pn_conn *c, waiting *list, int64_t due) {
    wait_no_more(c);
    c->list = list;
    c->due = (uint32_t)due;
    c->prev = list->last;
    c->next = NULL;
    *(list->last ? &list->last->next : &list->first) = c;
    list->last = c;
}

/* --- what epoll looks for --- */

static void arm(pn_loop *l, pn_conn *c) {
    static const bool reads[] = {[GREETING] = true, [SHAKING] = true, [LIVE] = true, [ENDING] = true, [SHUT] = true, [DEAD] = false};
    bool hears = reads[c->state] && !c->deaf && !c->queued && !c->away && !((c->held || c->parked) && c->state == LIVE);
    uint8_t mask = (uint8_t)((hears ? EPOLLIN : 0) | (c->blocked ? EPOLLOUT : 0));
    if (c->state == DEAD || mask == c->armed) return;
    struct epoll_event event = {.events = mask, .data.ptr = c};
    epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &event);
    c->armed = mask;
}

/* --- the end --- */

/* The link is Python's to give up. */
static void lose(pn_loop *l, pn_conn *c) {
    if (!c->link) return;
    bool entered = enter_once(l);
    pn_owner *owner = pn_link_owner(c->link);
    owner->conn = 0;
    owner->at = NULL;
    c->link = NULL;
    if (entered) leave(l);
    tell(l, c, PN_POST_LOST, 0, NULL, 0);
}

/* Throws away what a session of TLS has written: nobody else may be sent it. */
static void empty_pipe(pn_loop *l) {
    l->pipe.full = false;
    pn_buf_drop(&l->pipe.out, pn_buf_len(&l->pipe.out));
}

/* Closes the socket. */
static void die(pn_loop *l, pn_conn *c) {
    if (c->state == DEAD) return;
    lose(l, c);
    wait_no_more(c);
    empty_pipe(l);
    c->state = DEAD;
    /* epoll goes by open files, not by descriptors: a child that has just been forked holds this one open, until it becomes another program. */
    epoll_ctl(l->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    table_remove(l, c);
    if (!c->queued) { /* else whoever empties the queue does this */
        c->after = l->dead;
        l->dead = c;
    }
}

static void cut(pn_loop *l, pn_conn *c) {
    static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (c->state != DEAD) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); /* what it has not read goes with it */
    die(l, c);
}

static void bury(pn_loop *l) {
    pn_conn *c = l->dead;
    l->dead = NULL;
    for (pn_conn *next; c; c = next) {
        next = c->after;
        if (!tell(l, c, PN_POST_GONE, 0, NULL, 0)) {
            c->after = l->dead;
            l->dead = c;
            continue;
        }
        SSL_free(c->ssl);
        SSL_CTX_free(c->context);
        pn_buf_free(&c->in);
        pn_buf_free(&c->out);
        pn_free(c);
    }
}

/* ==== Sending =================================================================================================== */

/* How many bytes the socket took; -1: the connection is dead now. */
static ssize_t send_bytes(pn_loop *l, pn_conn *c, const uint8_t *p, size_t n) {
    atomic_fetch_add_explicit(&l->sends, 1, memory_order_relaxed);
    ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return sent;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return 0;
    die(l, c);
    return -1;
}

/* The socket took less than there is. */
static void block(pn_loop *l, pn_conn *c, bool moved) {
    int64_t stall = atomic_load_explicit(&l->all->stall, memory_order_relaxed);
    if (stall && c->state != ENDING && (!c->blocked || moved)) wait_in(c, &l->stalled, l->now + stall);
    c->blocked = true;
}

static void unblock(pn_conn *c) {
    c->blocked = false;
    if (c->state != ENDING && c->state != SHUT) wait_no_more(c);
}

/* Sends what is in `out`; true when nothing is left. */
static bool send_out(pn_loop *l, pn_conn *c) {
    if (pn_buf_len(&c->out) == 0) return true;
    ssize_t sent = send_bytes(l, c, pn_buf_head(&c->out), pn_buf_len(&c->out));
    if (sent < 0) return false;
    pn_buf_drop(&c->out, (size_t)sent);
    if (pn_buf_len(&c->out)) {
        block(l, c, sent > 0);
        return false;
    }
    pn_buf_free(&c->out);
    return true;
}

/* Sends what a session of TLS has written. False: something is left, or the connection is dead. */
static bool send_pipe(pn_loop *l, pn_conn *c) {
    enum { KEEP = 64 * 1024 };
    pn_buf *out = &l->pipe.out;
    bool done = true;
    if (l->pipe.full) {
        l->pipe.full = false;
        die(l, c);
    }
    if (c->state == DEAD) {
        done = false;
    } else if (pn_buf_len(out)) {
        ssize_t sent = pn_buf_len(&c->out) ? 0 : send_bytes(l, c, pn_buf_head(out), pn_buf_len(out));
        done = sent == (ssize_t)pn_buf_len(out);
        if (sent >= 0 && !done) {
            pn_buf_drop(out, (size_t)sent);
            if (pn_buf_add(&c->out, pn_buf_head(out), pn_buf_len(out))) {
                block(l, c, sent > 0);
            } else {
                die(l, c);
            }
        }
    }
    pn_buf_drop(out, pn_buf_len(out));
    if (out->cap > KEEP + PN_SEND_TURN) pn_buf_free(out);
    return done;
}

/* Keeps what a session of TLS has written. */
static void keep_pipe(pn_loop *l, pn_conn *c) {
    pn_buf *out = &l->pipe.out;
    if (l->pipe.full || !pn_buf_add(&c->out, pn_buf_head(out), pn_buf_len(out))) die(l, c);
    l->pipe.full = false;
    pn_buf_drop(out, pn_buf_len(out));
}

/* Its TLS session, to read or to write: whoever had this thread before, OpenSSL's queue of errors is empty. A turn without TLS pays nothing for that. */
static SSL *session(pn_loop *l, const pn_conn *c) {
    if (!l->clear) pn_tls_turn();
    l->clear = true;
    return c->ssl;
}

/* Sends what was taken from the core: all of it is the loop's by now, so what the socket does not take waits here. */
static void send_off(pn_loop *l) {
    if (!l->leaving_count) return;
    const uint8_t *p = pn_buf_head(&l->going);
    for (uint32_t i = 0; i < l->leaving_count; p += l->leaving[i++].n) {
        pn_conn *c = l->leaving[i].conn;
        size_t n = l->leaving[i].n;
        if (c->state != LIVE) continue;
        bool done = false;
        if (c->ssl) {
            if (pn_tls_write(session(l, c), p, n)) done = send_pipe(l, c);
            else die(l, c);
        } else {
            ssize_t sent = pn_buf_len(&c->out) ? 0 : send_bytes(l, c, p, n);
            if (sent < 0) continue;
            done = (size_t)sent == n;
            if (!done && pn_buf_add(&c->out, p + sent, n - (size_t)sent)) block(l, c, sent > 0);
            else if (!done) die(l, c);
        }
        if (c->state != LIVE) continue;
        if (done && l->leaving[i].more) block(l, c, true); /* in the next turn: a socket that takes it is ready at once */
        else if (done) unblock(c);
        arm(l, c);
    }
    l->leaving_count = 0;
    pn_buf_drop(&l->going, pn_buf_len(&l->going));
    if (l->going.cap > 2 * PN_SEND_TURN) pn_buf_free(&l->going);
}

/* Takes the output of a link from the core, to be sent when the lock is another's. Under the lock, which is given for a while when many have gathered. */
static void take(pn_loop *l, pn_conn *c) {
    leaving one = {.conn = c};
    if (l->leaving_count == LEAVING_MAX || pn_buf_len(&l->going) >= PN_SEND_TURN) {
        leave(l);
        send_off(l);
        enter(l);
    }
    while (c->state == LIVE) {
        pn_span out = pn_link_output(c->link);
        one.more = out.n != 0;
        uint32_t n = out.n < PN_SEND_TURN - one.n ? out.n : PN_SEND_TURN - one.n;
        if (!n) break;
        if (!pn_buf_add(&l->going, out.p, n)) {
            die(l, c);
            l->going.tail -= one.n;
            return;
        }
        pn_link_sent(c->link, n, l->now);
        one.n += n;
    }
    if (one.n) l->leaving[l->leaving_count++] = one;
    else arm(l, c);
}

/* Sends the output of a link, until there is none or the socket takes no more. Under the lock. */
static void flush(pn_loop *l, pn_conn *c) {
    size_t most = PN_SEND_TURN;
    send_off(l);
    if (c->state != LIVE || !send_out(l, c)) {
        arm(l, c);
        return;
    }
    bool done = true;
    while (done) {
        pn_span out = pn_link_output(c->link);
        if (!out.n) break;
        if (!most) { /* more in the next turn: a socket that takes it is ready at once */
            done = false;
            block(l, c, true);
            break;
        }
        size_t n = out.n < most ? out.n : most;
        if (c->ssl) {
            if (!pn_tls_write(session(l, c), out.p, n)) {
                die(l, c);
                return;
            }
            pn_link_sent(c->link, n, l->now);
            most -= n;
            /* Unless there is more, which may go along with it: one send for all. */
            if (pn_link_output(c->link).n && most) continue;
            done = send_pipe(l, c);
        } else {
            ssize_t sent = send_bytes(l, c, out.p, n);
            if (sent < 0) return;
            pn_link_sent(c->link, (size_t)sent, l->now);
            most -= (size_t)sent;
            done = (size_t)sent == n;
            if (!done) block(l, c, sent > 0);
        }
        if (c->state != LIVE) return;
    }
    if (done) unblock(c);
    arm(l, c);
}

/* What the core has for a link that is not blocked goes: now, or as soon as nobody has to wait for that. Under the lock. */
static void put_out(pn_loop *l, pn_conn *c) {
    if (alone(l)) flush(l, c);
    else take(l, c);
}

/* The socket takes something again: what waits here goes first, and then the core may be asked for more. */
static bool goes_on(pn_loop *l, pn_conn *c) {
    if (alone(l)) return true; /* all in one: flush */
    if (!send_out(l, c)) return false;
    unblock(c);
    return true;
}

/* `out` is empty, and nothing more comes from a link. */
static void all_sent(pn_loop *l, pn_conn *c) {
    unblock(c);
    if (c->state == ENDING) {
        c->state = SHUT;
        shutdown(c->fd, SHUT_WR);
    }
    arm(l, c);
}

/* Nothing more comes from the link: what is in `out` goes, and then the socket is half closed. */
static void end(pn_loop *l, pn_conn *c) {
    if (c->state >= ENDING) return;
    c->state = ENDING;
    wait_in(c, &l->lingering, l->now + atomic_load_explicit(&l->all->linger, memory_order_relaxed));
    if (send_out(l, c)) all_sent(l, c);
    arm(l, c);
}

/* Takes over what a link has put out by now. No more than that: what is still queued would take its place, and be held twice. False: the
 * connection is dead. Under the lock. */
static bool take_rest(pn_loop *l, pn_conn *c) {
    pn_span out = pn_link_output(c->link);
    if (!out.n) return true;
    if (c->ssl) {
        (void)pn_tls_write(session(l, c), out.p, out.n); /* a session that is broken has said so itself */
    } else if (!pn_buf_add(&c->out, out.p, out.n)) {
        die(l, c);
        return false;
    }
    pn_link_sent(c->link, out.n, l->now);
    return true;
}

/* The core is done with the link: the rest of its output, the goodbye of TLS. Under the lock. */
static void finish(pn_loop *l, pn_conn *c) {
    send_off(l);
    if (c->state >= ENDING || (c->link && !take_rest(l, c))) return;
    if (c->ssl && SSL_is_init_finished(c->ssl)) pn_tls_goodbye(c->ssl);
    if (c->ssl) send_pipe(l, c);
    if (c->state == DEAD) return;
    lose(l, c);
    end(l, c);
}

/* ==== What the core says ======================================================================================== */

/* An event of another loop's link: what follows from it is that loop's to do. False: it is of no interest to anybody else. */
static bool pass_on(pn_loop *l, const pn_event *e, uint64_t conn) {
    pn_loop *other = l->all->of[pn_loop_of(conn)];
    bool reads = e->kind == PN_EVENT_PAUSE || e->kind == PN_EVENT_RESUME;
    if (reads) pn_loop_order(other, PN_ORDER_READ, conn, NULL);
    if (e->kind == PN_EVENT_CLOSED) pn_loop_order(other, PN_ORDER_FINISH, conn, NULL);
    return !reads || (e->kind == PN_EVENT_PAUSE && e->reason);
}

static void pass_on_events(pn_loop *l) {
    for (pn_event e; pn_house_event(l->house, &e);) {
        pn_owner *owner = e.owner;
        bool ours = owner->conn && pn_loop_of(owner->conn) == l->index;
        pn_conn *c = ours ? owner->at : NULL;
        pn_post p = {.kind = e.kind, .reason = e.reason, .owner = owner};
        if (owner->conn && !ours && !pass_on(l, &e, owner->conn)) continue;
        if (c && e.kind == PN_EVENT_PAUSE) {
            c->held = owner->held;
            arm(l, c);
            if (!e.reason) continue;
        } else if (c && e.kind == PN_EVENT_RESUME) {
            c->held = owner->held;
            arm(l, c);
            continue;
        } else if (e.kind == PN_EVENT_DENIED && pn_mail_bytes(&l->all->posts) / sizeof p >= PN_POSTS_MAX) {
            continue;
        }
        post(l, p, e.text.p, e.text.n);
        if (c && (e.kind == PN_EVENT_CONNECT || e.kind == PN_EVENT_AUTH)) {
            c->parked = true;
            arm(l, c);
        }
        if (c && e.kind == PN_EVENT_CLOSED) finish(l, c);
    }
}

/* ==== Receiving ================================================================================================= */

static void feed(pn_loop *l, pn_conn *c, const uint8_t *data, size_t n) {
    pn_link_feed(c->link, data, n, l->now);
    pass_on_events(l);
}

/* What TLS itself has to say, an alert say. At once: what the core does next may be about another connection, which uses the pipe as well. */
static void answer(pn_loop *l, pn_conn *c, bool over) {
    if (pn_buf_len(&l->pipe.out) == 0) return;
    if (pn_buf_len(&c->out) && !over) {
        tell(l, c, PN_POST_PESTERS, 0, NULL, 0);
        cut(l, c);
        return;
    }
    send_pipe(l, c);
    arm(l, c);
}

/* The peer sends no more, so MQTT is over; what is written goes out still. Under the lock. */
static void hear_the_end(pn_loop *l, pn_conn *c) {
    flush(l, c);
    if (c->state != LIVE) return;
    if (c->blocked) {
        if (!c->ssl && !take_rest(l, c)) return;
        lose(l, c);
        end(l, c);
    } else {
        die(l, c);
    }
}

/* Gives the core what was heard. */
static void tell_core(pn_loop *l) {
    if (!l->heard_count) return;
    bool entered = enter_once(l);
    for (uint32_t i = 0; i < l->heard_count; i++) {
        const heard *h = &l->heard[i];
        if (h->n && h->conn->state == LIVE) feed(l, h->conn, l->plain + h->at, h->n);
        if (h->end == HUNG_UP && h->conn->state == LIVE) hear_the_end(l, h->conn);
        if (h->end == BROKE && h->conn->state == LIVE) finish(l, h->conn);
        if (i % PN_SHARE_EVERY == PN_SHARE_EVERY - 1) share(l);
    }
    l->heard_count = l->plain_n = 0;
    if (entered) leave(l);
}

/* Room for what one receive brings. */
static uint8_t *room(pn_loop *l) {
    if (sizeof l->plain - l->plain_n < PN_RECEIVE_BUFFER || l->heard_count == PN_READY_TURN) tell_core(l);
    return l->plain + l->plain_n;
}

static void hear(pn_loop *l, pn_conn *c, size_t n, uint8_t end) {
    if (!n && end == GOES_ON) return;
    l->heard[l->heard_count++] = (heard){c, l->plain_n, (uint32_t)n, end};
    l->plain_n += (uint32_t)n;
}

/* Decrypts what is in the pipe. More than fits goes to the core in between: a CONNECT may park it. */
static void decrypt(pn_loop *l, pn_conn *c) {
    int result = PN_TLS_DONE;
    while (result == PN_TLS_DONE && c->state == LIVE && !c->parked) {
        uint8_t *to = room(l);
        if (c->state != LIVE) break;
        size_t n = pn_tls_read(session(l, c), to, PN_RECEIVE_BUFFER, &result);
        answer(l, c, result == PN_TLS_FAILED);
        hear(l, c, n, result == PN_TLS_FAILED ? BROKE : GOES_ON);
        if (result == PN_TLS_DONE) tell_core(l);
    }
    if (c->parked && !pn_buf_add(&c->in, l->pipe.in, l->pipe.in_n)) die(l, c);
    l->pipe.in_n = 0;
}

/* Goes on with what came before it could be read. Under the lock. */
static void decrypt_first(pn_loop *l, pn_conn *c) {
    pn_buf first = c->in;
    c->in = (pn_buf){0};
    l->pipe.in = pn_buf_head(&first);
    l->pipe.in_n = pn_buf_len(&first);
    decrypt(l, c);
    tell_core(l);
    pn_buf_free(&first);
}

/* Somebody who sends often and is answered nothing (QoS 0) is acknowledged by the kernel in a segment for each receive, which is half of what a
 * receive costs; told that this is a conversation, it acknowledges every other one, and what stands alone after 40 ms. It forgets that when
 * that happens, so it is told again after a pause; and who sends rarely is left alone: his segment would be sent all the same. */
static void converse(const pn_loop *l, pn_conn *c) {
    enum { PAUSE = 35 };
    static const int no = 0;
    uint32_t at = (uint32_t)l->now;
    bool pause = at - c->received_at >= PAUSE;
    c->received_at = at;
    if (pause) {
        c->conversing = false;
    } else if (!c->conversing) {
        c->conversing = true;
        setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &no, sizeof no); /* another kind of socket has no need of it */
    }
}

static void receive_live(pn_loop *l, pn_conn *c) {
    uint8_t *to = room(l);
    if (c->state != LIVE) return;
    if (c->ssl) to = l->received;
    converse(l, c);
    atomic_fetch_add_explicit(&l->receives, 1, memory_order_relaxed);
    ssize_t n = recv(c->fd, to, PN_RECEIVE_BUFFER, MSG_DONTWAIT);
    if (n < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) die(l, c);
    } else if (c->ssl && n) {
        l->pipe.in = l->received;
        l->pipe.in_n = (size_t)n;
        decrypt(l, c);
    } else {
        hear(l, c, (size_t)n, n ? GOES_ON : HUNG_UP);
    }
}

/* Bytes of somebody who is not to be heard: they are thrown away. */
static void receive_nothing(pn_loop *l, pn_conn *c) {
    ssize_t n = recv(c->fd, l->received, sizeof l->received, MSG_DONTWAIT);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return;
    if (n == 0 && c->state == ENDING) { /* it half closed, and may still read the rest */
        c->deaf = true;
        arm(l, c);
        return;
    }
    die(l, c);
}

/* --- handshakes, without the lock --- */

static void queue_step(pn_loop *l, pn_conn *c) {
    if (c->queued) return;
    c->queued = true;
    c->after = NULL;
    *(l->last_step ? &l->last_step->after : &l->steps) = c;
    l->last_step = c;
    arm(l, c);
}

/* Whether nine bytes may begin a ClientHello. What may not is explained by Python (no_hello of peanutd/tls.py). */
static bool is_hello(const uint8_t *p) {
    uint32_t record = (uint32_t)p[3] << 8 | p[4], hello = (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8];
    return p[0] == 0x16 && p[1] == 3 && record >= 4 && record <= PN_HELLO_MAX && p[5] == 1 && hello <= PN_HELLO_MAX;
}

static void receive_greeting(pn_loop *l, pn_conn *c) {
    uint32_t before = pn_buf_len(&c->in);
    ssize_t n = recv(c->fd, l->received, sizeof l->received, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0 || !pn_buf_add(&c->in, l->received, (size_t)n)) {
        die(l, c);
        return;
    }
    uint32_t held = pn_buf_len(&c->in);
    if (before >= PN_HELLO_BYTES) return;
    if (c->context && held >= PN_HELLO_BYTES && is_hello(pn_buf_head(&c->in))) {
        pn_post hello = {.kind = PN_POST_HELLO, .reason = 1, .object = c->object};
        write_post(l, hello, pn_buf_head(&c->in), PN_HELLO_BYTES, pn_mail_leave);
        c->state = SHAKING;
        queue_step(l, c);
        return;
    }
    c->state = ASKING;
    tell(l, c, PN_POST_HELLO, 0, pn_buf_head(&c->in), held < PN_HELLO_BYTES ? held : PN_HELLO_BYTES);
    arm(l, c);
}

/* Under the lock. */
static void attach(const pn_loop *l, pn_conn *c, pn_link *link) {
    pn_owner *owner = pn_link_owner(link);
    pn_link_set_lane(link, lane(l));
    c->link = link;
    c->state = LIVE;
    owner->conn = c->name;
    owner->at = c;
}

/* It has proved who it is, and what it says is listened to; its CONNECT will wait for Python, who has read of it by then. Under the lock. */
static void let_in(pn_loop *l, pn_conn *c) {
    size_t n;
    uint8_t *der = pn_tls_peer(c->ssl, &n);
    pn_link *link = pn_link_open(l->house->broker, c->owner, l->now);
    pn_post opened = {.kind = PN_POST_OPENED, .reason = 3, .object = c->object, .link = link};
    bool told = link && write_post(l, opened, der, n, pn_mail_leave);
    OPENSSL_free(der);
    if (!told) {
        if (link) pn_link_lost(link, l->now);
        die(l, c);
        return;
    }
    attach(l, c, link);
    c->owner = NULL;
    send_out(l, c);
    if (c->state == LIVE && pn_buf_len(&c->in)) decrypt_first(l, c);
    arm(l, c);
}

static void proved(pn_loop *l, pn_conn *c) {
    size_t n;
    uint8_t *der = pn_tls_peer(c->ssl, &n);
    c->state = PROVED;
    c->owner = NULL;
    tell(l, c, PN_POST_READY, SSL_version(c->ssl) == TLS1_3_VERSION ? 3 : 2, der, n);
    OPENSSL_free(der);
    arm(l, c);
}

/* What has come of a step of the handshake; what it wants to be sent is in the pipe, and what came behind it in `rest`. */
static void shaken(pn_loop *l, pn_conn *c, int result, const pn_tls_failure *failure, pn_span rest) {
    if (result == PN_TLS_DONE) keep_pipe(l, c); /* what finishes the handshake of TLS 1.2 goes when it is known who that is */
    else send_pipe(l, c);
    if (c->state == DEAD) return;
    if (result == PN_TLS_FAILED) {
        tell(l, c, PN_POST_FAILED, (uint8_t)failure->verify, failure->reason, strlen(failure->reason));
        end(l, c);
    } else if (rest.n && !pn_buf_add(&c->in, rest.p, rest.n)) {
        die(l, c);
    } else if (result == PN_TLS_DONE && c->owner && SSL_version(c->ssl) == TLS1_3_VERSION) {
        bool entered = enter_once(l);
        let_in(l, c);
        if (entered) leave(l);
    } else if (result == PN_TLS_DONE) {
        proved(l, c);
    }
    arm(l, c);
}

/* A step of the handshake, here and now. */
static void shake(pn_loop *l, pn_conn *c, pn_span in) {
    pn_tls_failure failure = {0};
    if (!c->ssl) c->ssl = pn_tls_session(c->context, &l->pipe);
    SSL_CTX_free(c->context);
    c->context = NULL;
    if (!c->ssl) {
        die(l, c);
        return;
    }
    l->pipe.in = in.p;
    l->pipe.in_n = in.n;
    int result = pn_tls_handshake(c->ssl, &failure);
    pn_span rest = pn_span_of(l->pipe.in, l->pipe.in_n);
    l->pipe.in_n = 0;
    shaken(l, c, result, &failure, rest);
}

/* The same by a helper: the session goes away and comes back with PN_ORDER_STEPPED. */
static void send_away(pn_loop *l, pn_conn *c, pn_span in) {
    pn_step *step = pn_calloc(1, sizeof *step);
    if (!step || !pn_buf_add(&step->in, in.p, in.n)) {
        pn_step_free(step);
        die(l, c);
        return;
    }
    step->name = c->name;
    step->ssl = c->ssl;
    step->context = c->context;
    c->ssl = NULL;
    c->context = NULL;
    c->away = true;
    if (step->ssl) pn_tls_bind(step->ssl, NULL);
    arm(l, c);
    pn_helpers_give(l->all->helpers, step);
}

/* A step is back. `c`: the connection, if there is one still. */
static void stepped(pn_loop *l, pn_conn *c, pn_step *step) {
    if (c) c->away = false;
    if (c && c->state == SHAKING) {
        pn_buf own = l->pipe.out;
        c->ssl = step->ssl;
        step->ssl = NULL;
        if (c->ssl) pn_tls_bind(c->ssl, &l->pipe);
        l->pipe.out = step->out;
        step->out = (pn_buf){0};
        shaken(l, c, step->result, &step->failure, pn_span_of(pn_buf_head(&step->in), pn_buf_len(&step->in)));
        pn_buf_free(&l->pipe.out);
        l->pipe.out = own;
    }
    pn_step_free(step);
}

/* Goes on with a handshake, by what came before it began or what the socket has now. */
static void go_on(pn_loop *l, pn_conn *c) {
    pn_buf first = c->in;
    c->in = (pn_buf){0};
    pn_span in = pn_span_of(pn_buf_head(&first), pn_buf_len(&first));
    if (!in.n) {
        ssize_t n = recv(c->fd, l->received, sizeof l->received, MSG_DONTWAIT);
        if (n > 0) in = pn_span_of(l->received, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR)) die(l, c);
    }
    if (!in.n) arm(l, c);
    else if (l->all->helpers) send_away(l, c, in);
    else shake(l, c, in);
    pn_buf_free(&first);
}

static void take_steps(pn_loop *l) {
    for (uint32_t i = 0; (i < PN_STEPS_TURN || l->all->helpers) && l->steps; i++) {
        pn_conn *c = l->steps;
        l->steps = c->after;
        if (!l->steps) l->last_step = NULL;
        c->queued = false;
        if (c->state == DEAD) {
            c->after = l->dead;
            l->dead = c;
            continue;
        }
        if (c->state == SHAKING) go_on(l, c);
        arm(l, c);
    }
}

/* ==== Orders ==================================================================================================== */

/* Steals what it is given, unless it returns false. */
static bool add(pn_loop *l, pn_conn given) {
    pn_conn *c = pn_malloc(sizeof *c);
    if (!c) return false;
    *c = given;
    if (pn_mail_put(&l->orders, &(order){given.name, c, PN_ORDER_ADD}, sizeof(order))) return true;
    pn_free(c);
    return false;
}

bool pn_loop_add(pn_loop *l, uint64_t name, int fd, void *object, pn_link *link) {
    return add(l, (pn_conn){.name = name, .fd = fd, .object = object, .link = link, .state = link ? LIVE : GREETING});
}

bool pn_loop_welcome(pn_loop *l, uint64_t name, int fd, void *object, SSL_CTX *context, pn_owner *owner) {
    return add(l, (pn_conn){.name = name, .fd = fd, .object = object, .context = context, .owner = owner, .state = GREETING});
}

bool pn_loop_order(pn_loop *l, uint8_t kind, uint64_t conn, void *thing) {
    return pn_mail_put(&l->orders, &(order){conn, thing, kind}, sizeof(order));
}

/* What is to be seen is there before `called` is, and `called` before `asleep` is looked at; in pn_loop_turn it is the other way round. */
void pn_loop_call(pn_loop *l) {
    atomic_store(&l->called, true);
    if (atomic_exchange(&l->asleep, false)) pn_mail_ring(&l->orders);
}

static void begin(pn_loop *l, pn_conn *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    pn_link *link = c->link;
    c->link = NULL;
    c->armed = EPOLLIN;
    if (!table_add(l, c)) {
        close(c->fd);
        c->state = DEAD;
        c->after = l->dead;
        l->dead = c;
    } else if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0) {
        die(l, c);
    } else if (link) {
        attach(l, c, link);
    }
}

/* Under the lock. */
static void obey(pn_loop *l, const order *o) {
    pn_conn *c = o->kind == PN_ORDER_ADD ? o->thing : find(l, o->name);
    if (!c) {
        if (o->kind == PN_ORDER_BEGIN) SSL_CTX_free(o->thing);
        if (o->kind == PN_ORDER_STEPPED) pn_step_free(o->thing);
        return;
    }
    switch (o->kind) {
    case PN_ORDER_ADD: begin(l, c); break;
    case PN_ORDER_BEGIN:
        if (c->state != ASKING) {
            SSL_CTX_free(o->thing);
            break;
        }
        SSL_CTX_free(c->context);
        c->context = o->thing;
        c->state = SHAKING;
        queue_step(l, c);
        break;
    case PN_ORDER_STEPPED: stepped(l, c, o->thing); break;
    case PN_ORDER_MORE:
        if (c->state == ASKING) c->state = GREETING;
        break;
    case PN_ORDER_ATTACH:
        if (c->state != PROVED) break;
        attach(l, c, o->thing);
        send_out(l, c);
        if (c->state == DEAD) break;
        if (pn_buf_len(&c->in)) decrypt_first(l, c);
        break;
    case PN_ORDER_READ:
        if (c->link) c->held = ((const pn_owner *)pn_link_owner(c->link))->held;
        if (o->thing && c->parked) {
            c->parked = false;
            if (c->ssl && c->state == LIVE) decrypt_first(l, c);
        }
        break;
    case PN_ORDER_FINISH: finish(l, c); break;
    case PN_ORDER_ABORT: cut(l, c); break;
    default: break;
    }
    arm(l, c);
}

/* ==== Turns ===================================================================================================== */

static void obey_all(pn_loop *l) {
    pn_buf items = pn_mail_take(&l->orders);
    const order *orders = (const order *)(const void *)items.p;
    uint32_t count = pn_buf_len(&items) / (uint32_t)sizeof *orders;
    if (count) enter(l);
    for (uint32_t i = 0; i < count; i++) {
        obey(l, &orders[i]);
        if (i % PN_SHARE_EVERY == PN_SHARE_EVERY - 1) share(l);
    }
    if (count) leave(l);
    pn_buf_free(&items);
}

/* Whether the first of a list is: both count to 2^32, and nobody waits half as long. */
static bool is_late(const pn_loop *l, const pn_conn *c) { return c && (int32_t)(c->due - (uint32_t)l->now) <= 0; }

/* Under the lock. */
static void cut_the_late(pn_loop *l) {
    for (pn_conn *c; is_late(l, c = l->stalled.first);) {
        tell(l, c, PN_POST_STALLED, 0, NULL, 0);
        cut(l, c);
    }
    for (pn_conn *c; is_late(l, c = l->lingering.first);) cut(l, c);
}

/* Sends what has gathered, or takes it to be sent. Under the lock. */
static void flush_all(pn_loop *l) {
    pn_broker *broker = l->house->broker;
    pn_link *link;
    uint32_t count = 0;
    while ((link = pn_broker_dirty(broker, lane(l))) != NULL) {
        const pn_owner *owner = pn_link_owner(link);
        if (!owner->conn || owner->at->blocked) continue;
        put_out(l, owner->at);
        pass_on_events(l);
        if (++count % PN_SHARE_EVERY == 0) share(l);
    }
    while ((link = pn_broker_dirty(broker, 0)) != NULL) {
        post(l, (pn_post){.kind = PN_POST_PUMP, .owner = pn_link_owner(link)}, NULL, 0);
    }
}

/* The end of a turn: what has gathered is sent; a slice of work, and what that has made; what others have to do. Under the lock. */
static void settle(pn_loop *l) {
    pn_house *house = l->house;
    flush_all(l);
    if (l->index == 0 && pn_broker_busy(house->broker)) {
        pn_broker_work(house->broker, l->now);
        pass_on_events(l);
        flush_all(l);
    }
    l->busy = l->index == 0 && pn_broker_busy(house->broker);
    pn_span batch;
    if (house->idle && pn_broker_batch(house->broker, &batch)) {
        house->idle = false;
        post(l, (pn_post){.kind = PN_POST_JOURNAL}, NULL, 0);
    }
}

/* What a socket of somebody who is not in is ready for. */
static void look_at(pn_loop *l, pn_conn *c, uint32_t events) {
    if (events & EPOLLOUT && c->state != DEAD && send_out(l, c)) all_sent(l, c);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    switch (c->state) {
    case GREETING: receive_greeting(l, c); break;
    case SHAKING:
        if (events & EPOLLIN) queue_step(l, c);
        else die(l, c);
        break;
    case ENDING:
    case SHUT: receive_nothing(l, c); break;
    case DEAD: break;
    default: die(l, c); break; /* it was reset while it waited */
    }
}

void pn_loop_turn(pn_loop *l, int timeout) {
    struct epoll_event ready[PN_READY_TURN];
    enum { TICK = 500 };
    if (l->steps || l->busy) timeout = 0;
    if (timeout) atomic_store(&l->asleep, true);
    if (atomic_load(&l->called)) timeout = 0;
    if ((timeout < 0 || timeout > TICK) && (l->stalled.first || l->lingering.first || l->dead)) timeout = TICK;
    int n = epoll_wait(l->epoll, ready, PN_READY_TURN, timeout);
    atomic_store(&l->asleep, false);
    atomic_store(&l->called, false);
    l->woke = nanoseconds();
    l->now = l->woke / 1000000;
    l->spoke = 0;
    l->clear = false;
    atomic_fetch_add_explicit(&l->turns, 1, memory_order_relaxed);
    bool ordered = false;
    for (int i = 0; i < n; i++) {
        pn_conn *c = ready[i].data.ptr;
        if (!c) ordered = true;
        else if (c->state != LIVE) look_at(l, c, ready[i].events);
    }
    if (ordered) obey_all(l);
    take_steps(l);
    for (int i = 0; i < n; i++) {
        pn_conn *c = ready[i].data.ptr;
        if (!c || c->state != LIVE) continue;
        l->spoke++;
        if (ready[i].events & EPOLLOUT && !goes_on(l, c)) ready[i].events &= ~(uint32_t)EPOLLOUT;
        if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && c->state == LIVE) receive_live(l, c);
    }
    enter(l);
    tell_core(l);
    for (int i = 0; i < n; i++) {
        pn_conn *c = ready[i].data.ptr;
        if (!c || c->state != LIVE || !(ready[i].events & EPOLLOUT)) continue;
        put_out(l, c);
        pass_on_events(l);
    }
    cut_the_late(l);
    settle(l);
    uint32_t others = alone(l) ? 0 : pn_loops_due(l->all) & ~(1u << l->index);
    leave(l);
    send_off(l);
    pn_loops_wake(l->all, others);
    bury(l);
}

int64_t pn_loop_rest(uint32_t spoke, int64_t took) {
    int64_t whole = (int64_t)spoke * PN_REST_EACH;
    if (whole > PN_REST_MOST) whole = PN_REST_MOST;
    return spoke >= PN_REST_FROM && took < whole ? whole - took : 0;
}

static void *turn_and_turn(void *arg) {
    pn_loop *l = arg;
    prctl(PR_SET_TIMERSLACK, 1000UL); /* nanoseconds; a rest of 20 us would take 70 otherwise */
    while (!atomic_load(&l->all->ending)) {
        pn_loop_turn(l, -1);
        if (l->spoke < PN_REST_FROM || l->busy || l->steps) continue;
        struct timespec rest = {.tv_nsec = pn_loop_rest(l->spoke, nanoseconds() - l->woke)};
        if (rest.tv_nsec) nanosleep(&rest, NULL);
    }
    return NULL;
}

bool pn_loop_start(pn_loop *l) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of Python */
    l->threaded = pthread_create(&l->thread, NULL, turn_and_turn, l) == 0;
    if (l->threaded) pthread_setname_np(l->thread, "peanut-loop");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return l->threaded;
}

void pn_loop_join(pn_loop *l) {
    if (!l->threaded) return;
    pthread_join(l->thread, NULL);
    l->threaded = false;
}

pn_loop_counts pn_loop_count(pn_loop *l) {
    return (pn_loop_counts){.connections = atomic_load_explicit(&l->count, memory_order_relaxed),
                            .turns = atomic_load_explicit(&l->turns, memory_order_relaxed),
                            .receives = atomic_load_explicit(&l->receives, memory_order_relaxed),
                            .sends = atomic_load_explicit(&l->sends, memory_order_relaxed)};
}

pn_loop *pn_loop_new(pn_loops *all, unsigned index) {
    pn_loop *l = pn_calloc(1, sizeof *l);
    if (!l) return NULL;
    l->all = all;
    l->house = all->house;
    l->index = index;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    bool made = pn_mail_init(&l->orders);
    made = pn_tls_pipe_init(&l->pipe) && made;
    if (made && l->epoll >= 0 && epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->orders.bell, &event) == 0) return l;
    pn_loop_free(l);
    return NULL;
}

void pn_loop_clear(pn_loop *l) {
    obey_all(l); /* what was added last is known then, and goes like the others */
    for (uint32_t i = 0; i < l->table_cap; i++) {
        while (l->table[i]) die(l, l->table[i]);
    }
    while (l->steps) take_steps(l);
    bury(l);
}

void pn_loop_free(pn_loop *l) {
    pn_tls_pipe_end(&l->pipe);
    pn_mail_end(&l->orders);
    pn_buf_free(&l->going);
    if (l->epoll >= 0) close(l->epoll);
    pn_free(l->table);
    pn_free(l);
}
