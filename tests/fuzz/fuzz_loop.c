/* fuzz_loop.c: the native loop with four clients on sockets, what Python does about them, and a kernel that is in a bad mood.
 *
 * The input is a list of records, two bytes and what the operation needs: operation (4 bits), client (4); argument.
 *   op 0 dials: argument % 4 is plain MQTT, TLS 1.3, TLS 1.2, or bytes at a door for TLS; with bit 2 by a socket that holds little;
 *        with bit 3 it is expected, and gets its link without Python, with bit 4 also its handshake
 *   op 1 a byte of length, and that many: the client says them (with TLS encrypted); they wait on its wire
 *   op 2 the same, but TLS knows nothing of it; with TLS the client has meddled then
 *   op 3 argument bytes of its wire go into the socket, 0: all
 *   op 4 it reads argument * 32 bytes, 0: all
 *   op 5 it sends no more, closes, reads no more, asks TLS for new keys or for another handshake, by argument % 5
 *   op 6 argument % 8 + 1 turns        op 7 argument * 100 ms pass
 *   op 8 Python reads its posts: bit 0 it refuses whom it judges, bit 1 it does not judge yet, bit 2 it lets nobody begin, bit 3 it cuts
 *        who has proved who it is; bit 4 who knocks is told to say more
 *   op 9 Python orders: 3 bits the order; bit 3: of a connection that never was
 *   op 10 Python publishes argument * 64 bytes, QoS 0 or 1 by the client's bits
 *   op 11, 12 the next receives, sends go wrong: 2 bits how (again, interrupted, reset, less), 6 bits how often, or how little
 *   op 13 Python ends the client's link with argument as the reason
 *   op 14 the client may publish so many a second; who reads nothing may do so for argument * 100 ms
 *   op 15 judges those who wait
 * Beside crashes it looks for: what a client gets and no codec or its TLS takes, what the core gets and no client has said, posts that do not
 * add up, a loop that is woken for nothing, output or input that is left when nothing is in its way, connections and memory that are left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../broker/native/certificates.h"
#include "loops.h"
#include "mem.h"
#include "repeatable.h"
#include "require.h"

enum { CLIENTS = 4, LIVES = 24, LINGER = 1000 }; /* at a time; in all; milliseconds */
enum { PLAIN, V13, V12, RAW };

typedef struct life { /* a connection: what Python knows of it, and the client at the other end */
    int fd; /* the client's end; -1: closed */
    uint8_t kind, version;
    uint64_t name;
    pn_link *link;
    pn_owner owner;
    bool asking, accepted, helloed, ready, failed, lost, gone;
    bool expected;
    bool dishonest, mute, deaf; /* it has meddled with TLS; it sends, reads no more */
    SSL *ssl;             /* the client's, owned */
    bool ended;           /* it has read the end */
    pn_buf wire, heard;   /* to be sent; what it has been sent and is no whole packet yet */
    pn_buf said;          /* of its MQTT, what the core has not got yet */
} life;

static struct {
    SSL_CTX *server, *clients[3];
} world;

static struct {
    pn_house house;
    pn_loops *loops;
    life lives[LIVES];
    int count;
    uint8_t mood; /* op 8 */
} s;

/* --- the kernel --- */

/* native/ is compiled with these in place of what they are called after. */
ssize_t fuzz_recv(int fd, void *to, size_t n, int flags);
ssize_t fuzz_send(int fd, const void *from, size_t n, int flags);
int fuzz_clock_gettime(clockid_t clock, struct timespec *t);
int fuzz_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout);
void fuzz_link_feed(pn_link *link, const uint8_t *data, size_t n, int64_t now);

static struct {
    int64_t now; /* milliseconds */
    uint8_t how[2], times[2]; /* of receives, sends */
    uint64_t woken;
} kernel;

/* True when the call is to fail, else `n` may have become less. */
static bool goes_wrong(int which, size_t *n) {
    static const int errors[] = {EAGAIN, EINTR, ECONNRESET};
    if (!kernel.times[which]) return false;
    if (kernel.how[which] == 3) {
        if (*n > kernel.times[which]) *n = kernel.times[which];
        kernel.times[which] = 0;
        return false;
    }
    kernel.times[which]--;
    errno = errors[kernel.how[which]];
    return true;
}

ssize_t fuzz_recv(int fd, void *to, size_t n, int flags) { return goes_wrong(0, &n) ? -1 : recv(fd, to, n, flags); }
ssize_t fuzz_send(int fd, const void *from, size_t n, int flags) { return goes_wrong(1, &n) ? -1 : send(fd, from, n, flags); }

int fuzz_clock_gettime(clockid_t clock, struct timespec *t) {
    (void)clock;
    *t = (struct timespec){.tv_sec = kernel.now / 1000, .tv_nsec = kernel.now % 1000 * 1000000};
    return 0;
}

int fuzz_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
    (void)timeout; /* time is the input's */
    int n = epoll_wait(epoll, events, most, 0);
    if (n > 0) kernel.woken += (uint64_t)n;
    return n;
}

void fuzz_link_feed(pn_link *link, const uint8_t *data, size_t n, int64_t now) {
    life *p = ((pn_owner *)pn_link_owner(link))->object;
    require(n <= pn_buf_len(&p->said) && memcmp(data, pn_buf_head(&p->said), n) == 0, "the core gets what its client has not said");
    pn_buf_drop(&p->said, n);
    pn_link_feed(link, data, n, now);
}

static void make_world(void) {
    be_repeatable();
    pair root = make("root", NULL, true), gateway = make("gateway", &root, false), client = make("client", &root, false);
    char why[100];
    require((world.server = serve_with(&root, &gateway, PN_TLS_REQUIRED, false, why, sizeof why)) != NULL, why);
    for (int kind = V13; kind <= V12; kind++) world.clients[kind] = call_with(&root, &client);
    SSL_CTX_set_max_proto_version(world.clients[V12], TLS1_2_VERSION);
    unmake(root), unmake(gateway), unmake(client);
}

/* --- what Python does --- */

static int64_t enter(void) { return pn_house_enter(&s.house, kernel.now); }

/* What Python does after each of its calls: it takes the events, and says who has output. */
static void leave(void);

static void judge(life *p) {
    int64_t now = enter();
    pn_packet c;
    p->asking = false;
    if (p->link && pn_link_connect(p->link, &c)) {
        char key[64] = "fuzz/";
        size_t n = c.client_id.n < 50 ? c.client_id.n : 50;
        if (n) memcpy(key + 5, c.client_id.p, n);
        pn_verdict v = {.session = pn_span_of(key, 5 + n), .identity = pn_span_of("me", 2)};
        if (n == 0) v.assigned = pn_span_of("assigned", 8);
        p->version = c.version;
        if (s.mood & 1) pn_link_refuse(p->link, PN_NOT_AUTHORIZED, pn_span_of("no", 2), now);
        else p->accepted = pn_link_accept(p->link, &v, now);
    }
    leave();
    pn_loops_order(s.loops, PN_ORDER_READ, p->name, &s);
}

static void happened(life *p, uint8_t kind) {
    switch (kind) {
    case PN_EVENT_CONNECT:
        require(!p->asking && !p->accepted, "CONNECT of who is in");
        p->asking = p->link != NULL;
        break;
    case PN_EVENT_DISCONNECT:
        require(p->accepted, "DISCONNECT without accept");
        p->accepted = false;
        break;
    case PN_EVENT_CLOSED: pn_loops_order(s.loops, PN_ORDER_FINISH, p->name, NULL); break;
    case PN_EVENT_PAUSE:
    case PN_EVENT_RESUME: pn_loops_order(s.loops, PN_ORDER_READ, p->name, NULL); break;
    case PN_EVENT_AUTH:
        if (p->link) {
            int64_t now = enter();
            pn_link_close(p->link, PN_NOT_AUTHORIZED, (pn_span){0}, now);
            leave();
        }
        break;
    default: break;
    }
}

static void leave(void) {
    struct {
        life *of;
        uint8_t kind;
    } events[64];
    size_t n = 0;
    for (pn_event e; n < 64 && pn_house_event(&s.house, &e); n++) {
        events[n].of = ((pn_owner *)e.owner)->object;
        events[n].kind = e.kind;
    }
    pn_house_leave(&s.house);
    pn_loops_wake(s.loops, UINT32_MAX);
    for (size_t i = 0; i < n; i++) happened(events[i].of, events[i].kind);
}

static void open_link(life *p) {
    p->owner = (pn_owner){.object = p};
    int64_t now = enter();
    p->link = pn_link_open(s.house.broker, &p->owner, now);
    pn_house_leave(&s.house);
    require(p->link != NULL, "no link");
}

static void lose_link(life *p) {
    if (!p->link) return;
    int64_t now = enter();
    pn_link_lost(p->link, now);
    p->link = NULL;
    p->asking = false;
    leave();
    require(!p->accepted, "a lost link without DISCONNECT");
}

static void begin(life *p) {
    SSL_CTX_up_ref(world.server);
    if (!pn_loops_order(s.loops, PN_ORDER_BEGIN, p->name, world.server)) SSL_CTX_free(world.server);
}

static void told(life *p, const pn_post *post) {
    require(!p->gone || post->owner, "a post about one that is gone"); /* what the core says of its link may come later */
    switch (post->kind) {
    case PN_POST_HELLO:
        require(p->kind != PLAIN && !p->ready && !p->failed && post->n <= PN_HELLO_BYTES, "a greeting at the wrong time");
        p->helloed = true;
        if (s.mood & 4 || post->reason) break;
        if (post->n && post->text[0] != 0x16) pn_loops_order(s.loops, PN_ORDER_FINISH, p->name, NULL);
        else if (post->n < PN_HELLO_BYTES || s.mood & 16) pn_loops_order(s.loops, PN_ORDER_MORE, p->name, NULL);
        else begin(p);
        break;
    case PN_POST_READY:
    case PN_POST_OPENED:
        require(p->helloed && !p->ready && !p->failed, "READY at the wrong time");
        require(post->n > 100, "READY without a certificate");
        p->ready = true;
        if (post->kind == PN_POST_OPENED) {
            require(p->expected && p->kind != V12 && !p->link && post->link, "a link for somebody who is not expected");
            p->link = post->link;
        }
        if (s.mood & 8) {
            pn_loops_order(s.loops, PN_ORDER_ABORT, p->name, NULL);
        } else if (!p->link) {
            open_link(p);
            pn_loops_order(s.loops, PN_ORDER_ATTACH, p->name, p->link);
        }
        break;
    case PN_POST_FAILED:
        require(p->helloed && !p->ready && !p->failed, "FAILED at the wrong time");
        require(p->dishonest || p->kind == RAW, "an honest client is refused");
        p->failed = true;
        break;
    case PN_POST_LOST:
        require((p->kind == PLAIN || p->ready) && !p->lost, "LOST at the wrong time");
        require(!p->owner.conn, "a link that is lost and has a connection");
        p->lost = true;
        lose_link(p);
        break;
    case PN_POST_GONE:
        p->gone = true;
        lose_link(p);
        break;
    case PN_POST_STALLED:
    case PN_POST_PESTERS: require(!p->lost || p->dishonest, "cut, and lost already"); break;
    default: happened(p, post->kind); break;
    }
}

static void hear(void) {
    uint32_t count;
    pn_post *posts = pn_loops_posts(s.loops, &count);
    for (uint32_t i = 0; i < count; i++) {
        if (posts[i].object) told(posts[i].object, &posts[i]);
        pn_free(posts[i].text);
    }
    pn_free(posts);
    for (int i = 0; i < s.count && !(s.mood & 2); i++) {
        if (s.lives[i].asking) judge(&s.lives[i]);
    }
}

static void order(life *p, uint8_t argument) {
    uint64_t name = argument & 8 ? p->name + 1000 : p->name;
    switch (argument & 7) {
    case 0: pn_loops_order(s.loops, PN_ORDER_MORE, name, NULL); break;
    case 1: pn_loops_order(s.loops, PN_ORDER_READ, name, NULL); break;
    case 2: pn_loops_order(s.loops, PN_ORDER_FINISH, name, NULL); break;
    case 3: pn_loops_order(s.loops, PN_ORDER_ABORT, name, NULL); break;
    case 4: pn_loops_wake(s.loops, 1); break;
    case 5:
        if (p->helloed && name == p->name) begin(p);
        break;
    case 6:
        if (p->link && p->ready) pn_loops_order(s.loops, PN_ORDER_ATTACH, name, p->link);
        break;
    default: pn_loops_order(s.loops, PN_ORDER_READ, name, &s); break;
    }
}

/* --- clients --- */

/* What TLS of the client has to say goes on its wire. */
static void speak(life *p) {
    static uint8_t plain[4096];
    size_t got;
    if (!p->ssl) return;
    ERR_clear_error();
    if (!SSL_is_init_finished(p->ssl)) SSL_do_handshake(p->ssl);
    while (SSL_is_init_finished(p->ssl) && SSL_read_ex(p->ssl, plain, sizeof plain, &got)) {
        require(pn_buf_add(&p->heard, plain, got), "memory");
        require_packets(&p->heard, p->version);
    }
    require(p->dishonest || ERR_peek_error() == 0, "an honest client gets what its TLS does not take");
    ERR_clear_error();
    char *text;
    long n = BIO_get_mem_data(SSL_get_wbio(p->ssl), &text);
    require(n <= 0 || pn_buf_add(&p->wire, text, (size_t)n), "memory");
    (void)BIO_reset(SSL_get_wbio(p->ssl));
}

static void push(life *p, size_t n) {
    if (p->fd < 0 || p->mute) return;
    if (n == 0 || n > pn_buf_len(&p->wire)) n = pn_buf_len(&p->wire);
    ssize_t sent = n ? send(p->fd, pn_buf_head(&p->wire), n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (sent > 0) pn_buf_drop(&p->wire, (size_t)sent);
}

static bool listen_to(life *p, size_t most) {
    static uint8_t bytes[1 << 16];
    bool some = false;
    for (size_t left = most ? most : SIZE_MAX; p->fd >= 0 && left;) {
        ssize_t n = recv(p->fd, bytes, left < sizeof bytes ? left : sizeof bytes, MSG_DONTWAIT);
        p->ended |= n == 0 && !p->deaf;
        if (n <= 0) break;
        left -= (size_t)n;
        some = true;
        if (p->ssl) {
            BIO_write(SSL_get_rbio(p->ssl), bytes, (int)n);
        } else if (p->kind == PLAIN) {
            require(pn_buf_add(&p->heard, bytes, (size_t)n), "memory");
        }
    }
    if (p->kind == PLAIN) require_packets(&p->heard, p->version);
    speak(p);
    return some;
}

static void remember(life *p, const uint8_t *data, size_t n) { require(pn_buf_add(&p->said, data, n), "memory"); }

static void say(life *p, const uint8_t *data, size_t n, bool meddles) {
    size_t put;
    if (p->ssl && !meddles) {
        if (n && SSL_is_init_finished(p->ssl) && SSL_write_ex(p->ssl, data, n, &put)) remember(p, data, put);
        speak(p);
    } else {
        p->dishonest = true;
        require(pn_buf_add(&p->wire, data, n), "memory");
        if (!p->ssl) remember(p, data, n);
    }
}

static void dial(life *p, uint8_t argument) {
    int ends[2], little = 1;
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "no sockets");
    if (argument & 4) setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    *p = (life){.fd = ends[0], .kind = argument % 4};
    if (p->kind == V13 || p->kind == V12) {
        p->ssl = SSL_new(world.clients[p->kind]);
        SSL_set_bio(p->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        SSL_set_connect_state(p->ssl);
        speak(p);
    }
    if (p->kind == PLAIN) open_link(p);
    p->expected = p->kind != PLAIN && argument & 8;
    if (p->expected) {
        p->owner = (pn_owner){.object = p};
        if (argument & 16) SSL_CTX_up_ref(world.server);
        p->name = pn_loops_welcome(s.loops, ends[1], p, argument & 16 ? world.server : NULL, &p->owner);
    } else {
        p->name = pn_loops_add(s.loops, ends[1], p, p->link);
    }
    require(p->name != 0, "no connection");
}

static void ask(life *p, bool keys) {
    if (!p->ssl) return;
    p->dishonest = true;
    if (keys) SSL_key_update(p->ssl, SSL_KEY_UPDATE_REQUESTED);
    else if (SSL_renegotiate(p->ssl)) SSL_do_handshake(p->ssl);
    ERR_clear_error();
    if (keys && SSL_is_init_finished(p->ssl) && SSL_write(p->ssl, "\xC0", 2) == 2) remember(p, (const uint8_t *)"\xC0", 2);
    speak(p);
}

static void hang_up(life *p, uint8_t how) {
    if (p->fd < 0) return;
    if (how == 0 || how == 2) shutdown(p->fd, how == 0 ? SHUT_WR : SHUT_RD);
    p->mute |= how == 0;
    p->deaf |= how == 2;
    p->dishonest = true;
    if (how == 1) {
        close(p->fd);
        p->fd = -1;
    }
}

/* --- the end --- */

static void rules(uint8_t slot) {
    pn_rules *r = pn_rules_new(7);
    pn_rule all = {true, PN_MAY_PUBLISH | PN_MAY_SUBSCRIBE | PN_MAY_SHARE, PN_RETAIN_ANY, 2, pn_span_of("#", 1), NULL, 0};
    require(r && pn_rules_add(r, &all) == 0, "no rules");
    pn_broker_set_rules(s.house.broker, slot, r);
}

static void give(void *object) { ((life *)object)->gone = true; }

/* Nobody does anything, and nothing goes wrong: the loop does what it can, and then it sleeps. */
static void freeze(void) {
    memset(kernel.times, 0, sizeof kernel.times);
    uint64_t woken;
    int turns = 0;
    do {
        require(turns++ < 3000, "it is woken for nothing");
        woken = kernel.woken;
        pn_loops_turn(s.loops, 0);
    } while (kernel.woken != woken);
}

/* Nothing is in anybody's way any more: everybody reads, the kernel is well. All that can go goes, and then the loop sleeps. */
static void calm_down(void) {
    freeze();
    s.mood = 0;
    uint64_t woken = 0;
    int quiet = 0;
    for (int i = 0; quiet < 3; i++) {
        require(i < 3000, "it never comes to rest");
        bool moved = false;
        for (int k = 0; k < s.count; k++) {
            uint32_t before = pn_buf_len(&s.lives[k].wire);
            moved |= listen_to(&s.lives[k], 0);
            push(&s.lives[k], 0);
            moved |= pn_buf_len(&s.lives[k].wire) != before;
        }
        woken = kernel.woken;
        pn_loops_turn(s.loops, 0);
        moved |= kernel.woken != woken;
        hear();
        quiet = moved ? 0 : quiet + 1;
    }
    for (int k = 0; k < s.count; k++) {
        life *p = &s.lives[k];
        if (p->gone || !p->link || !p->owner.conn || p->fd < 0) continue;
        require(pn_link_output(p->link).n == 0, "output that nobody sends");
        require(p->owner.held || p->mute || (p->ssl && p->dishonest) || pn_buf_len(&p->said) == 0, "input that nobody reads");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!world.server) make_world();
    chance = 0;
    memset(&kernel, 0, sizeof kernel);
    memset(&s, 0, sizeof s);
    kernel.now = 1000;
    size_t held = pn_mem_held();
    pn_limits limits;
    pn_limits_default(&limits);
    limits.max_output_bytes = 65536;
    pn_lock_init(&s.house.lock);
    s.house.broker = pn_broker_new(&limits, 1);
    rules(0);
    pn_loop_times times = {.stall = 2000, .linger = LINGER};
    s.loops = s.house.loops = pn_loops_new(&s.house, &times, size % 2 ? 3 : 1);
    require(s.loops != NULL, "no loop");
    life *at[CLIENTS] = {0};
    while (size >= 2) {
        uint8_t op = data[0] & 15, which = data[0] >> 4, argument = data[1];
        life **place = &at[which % CLIENTS], *p = *place;
        data += 2, size -= 2;
        if (op == 0) {
            if (s.count == LIVES) continue;
            if (p) hang_up(p, 1);
            dial(*place = &s.lives[s.count++], argument);
            continue;
        }
        if (!p && op < 6) continue;
        switch (op) {
        case 1:
        case 2: {
            size_t n = argument < size ? argument : size;
            say(p, data, n, op == 2);
            data += n, size -= n;
            break;
        }
        case 3: push(p, argument); break;
        case 4: listen_to(p, argument * 32u); break;
        case 5:
            if (argument % 5 < 3) hang_up(p, argument % 5);
            else ask(p, argument % 5 == 3);
            break;
        case 6:
            for (int i = 0; i <= argument % 8; i++) pn_loops_turn(s.loops, 0);
            break;
        case 7:
            kernel.now += argument * 100;
            pn_broker_tick(s.house.broker, enter());
            leave();
            break;
        case 8:
            s.mood = argument;
            hear();
            break;
        case 9:
            if (p) order(p, argument);
            break;
        case 10: {
            static const uint8_t payload[256 * 64];
            int64_t now = enter();
            pn_broker_publish(s.house.broker, pn_span_of("t", 1), pn_span_of(payload, argument * 64u), which & 1, false, PN_NEVER, now);
            leave();
            break;
        }
        case 11:
        case 12:
            kernel.how[op - 11] = argument & 3;
            kernel.times[op - 11] = argument >> 2;
            break;
        case 13:
            if (p && p->link) {
                int64_t now = enter();
                pn_link_close(p->link, argument, (pn_span){0}, now);
                leave();
            }
            break;
        case 14: {
            limits.publish_rate = which;
            int64_t now = enter();
            (void)now;
            pn_broker_set_limits(s.house.broker, &limits);
            leave();
            times.stall = argument * 100;
            pn_loops_set_times(s.loops, &times);
            break;
        }
        default:
            for (int i = 0; i < s.count; i++) {
                if (s.lives[i].asking) judge(&s.lives[i]);
            }
        }
    }
    calm_down();
    kernel.now += LINGER;
    for (int i = 0; i < 3; i++) pn_loops_turn(s.loops, 0);
    hear();
    for (int i = 0; i < s.count; i++) require(!s.lives[i].ended || s.lives[i].gone, "one that lingers");
    for (int i = 0; i < s.count; i++) hang_up(&s.lives[i], 1);
    for (int i = 0; i < 20; i++) {
        kernel.now += LINGER;
        pn_loops_turn(s.loops, 0);
        hear();
    }
    require(pn_loops_count(s.loops).connections == 0, "connections that nobody has");
    pn_loops_free(s.loops, give);
    s.house.loops = NULL;
    for (int i = 0; i < s.count; i++) {
        life *p = &s.lives[i];
        require(p->gone, "one that was never given back");
        require(!p->link, "a link without a connection");
        SSL_free(p->ssl);
        pn_buf_free(&p->wire);
        pn_buf_free(&p->heard);
        pn_buf_free(&p->said);
    }
    pn_broker_free(s.house.broker);
    pn_lock_end(&s.house.lock);
    require(pn_mem_held() == held, "memory that nobody has");
    return 0;
}
