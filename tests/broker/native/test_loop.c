/* test_loop.c: the native loop with clients that are sockets of this process, a turn at a time, and once with threads.
 *
 * What a client gets to see is proved from Python as well, by the whole suite (tests/broker); here is what only C can see: how many system calls
 * a turn makes, what is read and what is left, and that two threads never touch the same thing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "certificates.h"
#include "loops.h"
#include "mem.h"
#include "test.h"
#include "tls.h"

enum { MANY = 20, TURNS = 200, BYTES = 1 << 16 };

/* A client, and what Python would know of it. */
typedef struct peer {
    int fd, ours; /* the client's end; the loop's */
    uint64_t name;
    pn_link *link;
    pn_owner owner;
    int hellos, ready, failed, connects, lost, gone, stalled, pesters, closed;
    uint32_t certificate; /* bytes */
    char why[100];
    SSL *ssl; /* the client's */
} peer;

typedef struct scene {
    pn_house house;
    pn_loops *loops;
    peer peers[MANY];
    SSL_CTX *context, *client; /* the gateway's; that of clients with TLS */
    bool park; /* CONNECTs are not judged */
} scene;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What holds with one loop holds with several: the environment may ask for them. */
static unsigned loops(void) {
    const char *wanted = getenv("PEANUT_LOOPS");
    return wanted ? (unsigned)atoi(wanted) : 1;
}

static scene *scene_with(unsigned count, int64_t stall) {
    scene *s = calloc(1, sizeof *s);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes to sockets whose other end is cut */
    pn_limits limits;
    pn_limits_default(&limits);
    pn_lock_init(&s->house.lock);
    s->house.broker = pn_broker_new(&limits, 1);
    pn_rules *rules = pn_rules_new(1);
    pn_rule all = {.allow = true, .actions = PN_MAY_PUBLISH | PN_MAY_SUBSCRIBE, .filter = pn_span_of("#", 1), .qos_max = 2};
    CHECK(rules && pn_rules_add(rules, &all) == 0);
    pn_broker_set_rules(s->house.broker, 0, rules);
    s->loops = s->house.loops = pn_loops_new(&s->house, &(pn_loop_times){.stall = stall, .linger = 5000}, count);
    CHECK(s->loops);
    return s;
}

static scene *scene_new(int64_t stall) { return scene_with(loops(), stall); }

/* --- what Python does --- */

static void judge(scene *s, peer *p) {
    int64_t at = pn_house_enter(&s->house, now());
    pn_packet c;
    if (pn_link_connect(p->link, &c)) {
        char key[64];
        int n = snprintf(key, sizeof key, "me/%.*s", (int)c.client_id.n, (const char *)c.client_id.p);
        pn_verdict v = {.session = pn_span_of(key, (size_t)n), .identity = pn_span_of("me", 2)};
        CHECK(pn_link_accept(p->link, &v, at));
    }
    pn_house_leave(&s->house);
    pn_loops_order(s->loops, PN_ORDER_READ, p->name, s);
}

static void hear(scene *s) {
    uint32_t count;
    pn_post *posts = pn_loops_posts(s->loops, &count);
    for (uint32_t i = 0; i < count; i++) {
        peer *p = posts[i].object;
        if (!p) continue;
        switch (posts[i].kind) {
        case PN_EVENT_CONNECT:
            p->connects++;
            if (!s->park) judge(s, p);
            break;
        case PN_EVENT_CLOSED: p->closed++; break;
        case PN_POST_HELLO:
            p->hellos++;
            if (posts[i].reason) break;
            if (posts[i].text[0] != 0x16) {
                pn_loops_order(s->loops, PN_ORDER_FINISH, p->name, NULL);
            } else if (posts[i].n < PN_HELLO_BYTES) {
                pn_loops_order(s->loops, PN_ORDER_MORE, p->name, NULL);
            } else {
                SSL_CTX_up_ref(s->context);
                pn_loops_order(s->loops, PN_ORDER_BEGIN, p->name, s->context);
            }
            break;
        case PN_POST_READY: {
            p->ready++;
            p->certificate = posts[i].n;
            int64_t at = pn_house_enter(&s->house, now());
            p->owner = (pn_owner){.object = p};
            p->link = pn_link_open(s->house.broker, &p->owner, at);
            pn_house_leave(&s->house);
            pn_loops_order(s->loops, PN_ORDER_ATTACH, p->name, p->link);
            break;
        }
        case PN_POST_OPENED:
            p->ready++;
            p->certificate = posts[i].n;
            p->link = posts[i].link;
            break;
        case PN_POST_FAILED:
            p->failed++;
            snprintf(p->why, sizeof p->why, "%.*s", (int)posts[i].n, posts[i].text);
            break;
        case PN_POST_LOST: {
            int64_t at = pn_house_enter(&s->house, now());
            CHECK_EQ(p->owner.conn, 0);
            pn_link_lost(p->link, at);
            p->link = NULL;
            pn_house_leave(&s->house);
            p->lost++;
            break;
        }
        case PN_POST_STALLED: p->stalled++; break;
        case PN_POST_PESTERS: p->pesters++; break;
        case PN_POST_GONE: p->gone++; break;
        default: break;
        }
        pn_free(posts[i].text);
    }
    pn_free(posts);
}

static void turn(scene *s) {
    pn_loops_turn(s->loops, 0);
    hear(s);
}

/* Turns until `*flag` of a client is set, which is a matter of a helper's time. */
static void await(scene *s, const int *flag) {
    for (int i = 0; i < 60000 && !*flag; i++) {
        pn_loops_turn(s->loops, 1);
        hear(s);
    }
    CHECK_EQ(*flag, 1);
}

static void give(void *object) { ((peer *)object)->gone++; }

static void scene_end(scene *s) {
    pn_loops_free(s->loops, give);
    s->house.loops = NULL;
    for (int i = 0; i < MANY; i++) {
        if (s->peers[i].link) pn_link_lost(s->peers[i].link, now());
        if (s->peers[i].name) {
            SSL_free(s->peers[i].ssl);
            close(s->peers[i].fd);
            CHECK_EQ(s->peers[i].gone, 1);
        }
    }
    SSL_CTX_free(s->context);
    SSL_CTX_free(s->client);
    pn_broker_free(s->house.broker);
    pn_lock_end(&s->house.lock);
    free(s);
}

/* --- clients --- */

static peer *dial(scene *s, int i, bool plain) {
    int ends[2];
    peer *p = &s->peers[i];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    p->fd = ends[0];
    p->ours = ends[1];
    if (plain) {
        p->owner = (pn_owner){.object = p};
        int64_t at = pn_house_enter(&s->house, now());
        p->link = pn_link_open(s->house.broker, &p->owner, at);
        pn_house_leave(&s->house);
    }
    p->name = pn_loops_add(s->loops, ends[1], p, plain ? p->link : NULL);
    CHECK(p->name);
    return p;
}

static void say(const peer *p, const void *data, size_t n) { CHECK_EQ(write(p->fd, data, n), (ssize_t)n); }

static size_t connect_packet(uint8_t *at, int i) {
    uint8_t head[] = {0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 2, 'c', (uint8_t)('a' + i)};
    memcpy(at, head, sizeof head);
    return sizeof head;
}

/* What has come for a client, with turns until there are `want` bytes. */
static size_t get(scene *s, const peer *p, uint8_t *to, size_t want) {
    size_t n = 0;
    for (int i = 0; i < TURNS && n < want; i++) {
        turn(s);
        ssize_t got = read(p->fd, to + n, BYTES - n);
        if (got > 0) n += (size_t)got;
    }
    return n;
}

static peer *come_in(scene *s, int i) {
    uint8_t data[64], answer[BYTES];
    peer *p = dial(s, i, true);
    say(p, data, connect_packet(data, i));
    CHECK_EQ(get(s, p, answer, 4), 4);
    CHECK_BYTES(answer, 4, "\x20\x02\0\0", 4);
    return p;
}

static const uint8_t subscribe[] = {0x82, 6, 0, 1, 0, 1, 't', 0}, publish[] = {0x30, 5, 0, 1, 't', 'h', 'i'}, ping[] = {0xC0, 0};

static uint64_t receives(scene *s) { return pn_loops_count(s->loops).receives; }
static uint64_t sends(scene *s) { return pn_loops_count(s->loops).sends; }

/* --- plain --- */

TEST(one_receive_and_one_send_for_all_that_came) {
    scene *s = scene_new(0);
    uint8_t answer[BYTES];
    peer *p = come_in(s, 0);
    uint64_t got = receives(s), sent = sends(s);
    for (int i = 0; i < 100; i++) say(p, ping, 2);
    CHECK_EQ(get(s, p, answer, 200), 200);
    CHECK_EQ(receives(s) - got, 1);
    CHECK_EQ(sends(s) - sent, 1);
    scene_end(s);
}

TEST(one_send_for_a_subscriber_and_turn) {
    scene *s = scene_new(0);
    uint8_t answer[BYTES];
    for (int i = 0; i < MANY; i++) come_in(s, i);
    for (int i = 1; i < MANY; i++) {
        say(&s->peers[i], subscribe, sizeof subscribe);
        CHECK_EQ(get(s, &s->peers[i], answer, 5), 5);
    }
    uint64_t sent = sends(s);
    for (int i = 0; i < 10; i++) say(&s->peers[0], publish, sizeof publish);
    turn(s);
    CHECK_EQ(sends(s) - sent, MANY - 1);
    for (int i = 1; i < MANY; i++) CHECK_EQ(get(s, &s->peers[i], answer, 70), 70);
    CHECK_EQ(sends(s) - sent, MANY - 1);
    scene_end(s);
}

TEST(a_connect_parks_its_link_and_nobody_else) {
    scene *s = scene_new(0);
    uint8_t data[64], answer[BYTES];
    peer *other = come_in(s, 1), *p = dial(s, 0, true);
    s->park = true;
    say(p, data, connect_packet(data, 0));
    await(s, &p->connects);
    uint64_t got = receives(s);
    say(p, ping, 2);
    for (int i = 0; i < 3; i++) turn(s);
    CHECK_EQ(receives(s) - got, 0);
    say(other, ping, 2);
    CHECK_EQ(get(s, other, answer, 2), 2);
    judge(s, p);
    CHECK_EQ(get(s, p, answer, 6), 6);
    CHECK_BYTES(answer, 6, "\x20\x02\0\0\xD0\0", 6);
    scene_end(s);
}

TEST(who_reads_nothing_is_cut_and_waited_for_only_when_it_takes_no_more) {
    scene *s = scene_new(1);
    uint8_t answer[BYTES];
    static uint8_t large[8192] = {0x30, 0xFD, 0x3F, 0, 1, 't'};
    peer *p = come_in(s, 0), *slow = come_in(s, 1);
    say(slow, subscribe, sizeof subscribe);
    CHECK_EQ(get(s, slow, answer, 5), 5);
    for (int i = 0; i < 2000 && !slow->gone; i++) {
        ssize_t n = write(p->fd, large, sizeof large);
        CHECK(n == sizeof large || (n < 0 && errno == EAGAIN));
        turn(s);
        if (i % 100 == 99) usleep(2000); /* the time that it may stall */
    }
    CHECK_EQ(slow->stalled, 1);
    CHECK_EQ(slow->lost, 1);
    CHECK_EQ(slow->gone, 1);
    CHECK_EQ(p->gone, 0);
    scene_end(s);
}

TEST(finish_sends_the_rest_and_waits_for_the_peer) {
    scene *s = scene_new(0);
    uint8_t answer[BYTES];
    peer *p = come_in(s, 0);
    pn_house_enter(&s->house, now());
    pn_link_close(p->link, PN_SERVER_SHUTTING_DOWN, (pn_span){0}, now());
    pn_event e;
    while (pn_house_event(&s->house, &e)) {}
    pn_house_leave(&s->house);
    pn_loops_order(s->loops, PN_ORDER_FINISH, p->name, NULL);
    for (int i = 0; i < 3; i++) turn(s);
    CHECK_EQ(read(p->fd, answer, sizeof answer), 0); /* half closed */
    CHECK_EQ(p->lost, 1);
    CHECK_EQ(p->gone, 0);
    shutdown(p->fd, SHUT_WR);
    for (int i = 0; i < 3; i++) turn(s);
    CHECK_EQ(p->gone, 1);
    scene_end(s);
}

TEST(orders_for_one_that_is_gone_do_nothing) {
    scene *s = scene_new(0);
    peer *p = come_in(s, 0);
    shutdown(p->fd, SHUT_RDWR);
    await(s, &p->gone);
    for (uint8_t kind = PN_ORDER_MORE; kind <= PN_ORDER_ABORT; kind++) pn_loops_order(s->loops, kind, p->name, s);
    turn(s);
    CHECK_EQ(pn_loops_count(s->loops).connections, 0);
    scene_end(s);
}

/* --- TLS --- */

/* A scene with contexts for the gateway and its clients, who have a certificate or none, and with so many helpers. */
static scene *scene_tls(bool certified, unsigned helpers) {
    scene *s = scene_new(0);
    pair root = make("root", NULL, true), gateway = make("gateway", &root, false), client = make("client", &root, false);
    char why[100];
    s->context = serve_with(&root, &gateway, PN_TLS_REQUIRED, false, why, sizeof why);
    CHECK(s->context);
    CHECK(!serve_with(&root, &gateway, PN_TLS_REQUIRED, true, why, sizeof why));
    CHECK(strncmp(why, "the gateway's key: ", 19) == 0);
    s->client = call_with(&root, certified ? &client : NULL);
    unmake(root);
    unmake(gateway);
    unmake(client);
    if (helpers) CHECK(pn_loops_help(s->loops, helpers));
    return s;
}

static peer *dial_tls(scene *s, int i) {
    peer *p = dial(s, i, false);
    p->ssl = SSL_new(s->client);
    SSL_set_fd(p->ssl, p->fd);
    for (int t = 0; t < TURNS && !SSL_is_init_finished(p->ssl) && !p->failed; t++) {
        SSL_connect(p->ssl);
        turn(s);
    }
    return p;
}

static size_t get_tls(scene *s, peer *p, uint8_t *to, size_t want) {
    size_t n = 0, got;
    for (int i = 0; i < TURNS && n < want; i++) {
        turn(s);
        while (n < want && SSL_read_ex(p->ssl, to + n, want - n, &got)) n += got;
        if (n < want && SSL_get_error(p->ssl, 0) == SSL_ERROR_SSL) break; /* while OpenSSL knows why: a turn forgets it */
    }
    return n;
}

TEST(mutual_tls_there_and_back_one_send_a_turn) {
    scene *s = scene_tls(true, 0);
    uint8_t data[BYTES], answer[BYTES];
    peer *p = dial_tls(s, 0);
    size_t n = connect_packet(data, 0);
    SSL_write(p->ssl, data, (int)n);
    CHECK_EQ(get_tls(s, p, answer, 4), 4);
    CHECK_EQ(p->ready, 1);
    CHECK(p->certificate > 100);
    SSL_write(p->ssl, subscribe, sizeof subscribe);
    CHECK_EQ(get_tls(s, p, answer, 5), 5);
    /* 40 KB there and back: three records, cut anywhere */
    memset(data, 'x', 40000);
    memcpy(data, "\x30\xBD\xB8\x02\0\1t", 7); /* 0x30, 39997 - 1 - … as a variable byte integer */
    size_t body = 0x3D + 0x38 * 128 + 2 * 16384;
    uint64_t sent = sends(s);
    for (size_t at = 0; at < body + 4;) {
        int put = SSL_write(p->ssl, data + at, (int)(body + 4 - at < 7000 ? body + 4 - at : 7000));
        CHECK(put > 0);
        at += (size_t)put;
        turn(s);
    }
    CHECK_EQ(get_tls(s, p, answer, body + 4), body + 4);
    CHECK_BYTES(answer, body + 4, data, body + 4);
    CHECK(sends(s) - sent <= 4);
    SSL_shutdown(p->ssl);
    await(s, &p->lost);
    scene_end(s);
}

static void come_in_tls(scene *s, peer *p, int i) {
    uint8_t data[64], answer[4];
    SSL_write(p->ssl, data, (int)connect_packet(data, i));
    CHECK_EQ(get_tls(s, p, answer, 4), 4);
}

/* A PING, and at once a record that is none: what TLS says about it is for this client, and not for whoever is sent something next. */
TEST(the_alert_of_one_is_not_sent_to_another) {
    static const uint8_t broken[5 + 32] = "\x17\x03\x03\0\x20 this is not what was encrypted";
    scene *s = scene_tls(true, 0);
    uint8_t answer[2];
    peer *wrong = dial_tls(s, 0), *good = dial_tls(s, 1);
    come_in_tls(s, wrong, 0);
    come_in_tls(s, good, 1);
    SSL_write(wrong->ssl, ping, sizeof ping);
    say(wrong, broken, sizeof broken);
    await(s, &wrong->lost);
    CHECK_EQ(get_tls(s, wrong, answer, 2), 0);
    CHECK_EQ(SSL_get_error(wrong->ssl, 0), SSL_ERROR_SSL);
    for (int i = 0; i < 3; i++) {
        SSL_write(good->ssl, ping, sizeof ping);
        CHECK_EQ(get_tls(s, good, answer, 2), 2);
    }
    scene_end(s);
}

/* Whoever asks gets new keys; and TLS 1.2 answers each request for another handshake, but not one of who takes none of the answers. */
TEST(tls_answers_those_who_read) {
    enum { LARGE = 512 * 1024 };
    scene *s = scene_tls(true, 0);
    uint8_t answer[5], *payload = calloc(1, LARGE);
    peer *p = dial_tls(s, 0);
    come_in_tls(s, p, 0);
    for (int i = 0; i < 3; i++) {
        SSL_key_update(p->ssl, SSL_KEY_UPDATE_REQUESTED);
        SSL_write(p->ssl, ping, sizeof ping);
        CHECK_EQ(get_tls(s, p, answer, 2), 2);
    }
    SSL_CTX_set_max_proto_version(s->client, TLS1_2_VERSION);
    p = dial_tls(s, 1);
    come_in_tls(s, p, 1);
    SSL_write(p->ssl, subscribe, sizeof subscribe);
    CHECK_EQ(get_tls(s, p, answer, 5), 5);
    int64_t at = pn_house_enter(&s->house, now());
    for (int i = 0; i < 4; i++) {
        CHECK(pn_broker_publish(s->house.broker, pn_span_of("t", 1), pn_span_of(payload, LARGE), 0, false, PN_NEVER, at));
    }
    pn_house_leave(&s->house);
    for (int i = 0; i < 3; i++) turn(s);
    CHECK_EQ(p->gone + p->pesters, 0);
    SSL_set0_rbio(p->ssl, BIO_new(BIO_s_mem())); /* it reads nothing */
    CHECK_EQ(SSL_renegotiate(p->ssl), 1);
    SSL_do_handshake(p->ssl);
    for (int i = 0; i < TURNS && !p->gone; i++) turn(s);
    CHECK_EQ(p->pesters, 1);
    CHECK_EQ(p->gone, 1);
    free(payload);
    scene_end(s);
}

/* A session that outlives its connection has many large messages waiting, when its client stops to listen. What is on its way goes, the others
 * are not held a second time. */
TEST(who_hangs_up_takes_no_more_than_what_is_on_its_way) {
    enum { LARGE = 512 * 1024, COUNT = 28 };
    scene *s = scene_new(0);
    uint8_t data[64], *payload = calloc(1, LARGE);
    peer *p = dial(s, 0, true);
    size_t n = connect_packet(data, 0);
    data[9] = 0; /* the session is kept */
    say(p, data, n);
    CHECK_EQ(get(s, p, data, 4), 4);
    say(p, "\x82\6\0\1\0\1t\1", 8);
    CHECK_EQ(get(s, p, data, 5), 5);
    int64_t at = pn_house_enter(&s->house, now());
    for (int i = 0; i < COUNT; i++) {
        CHECK(pn_broker_publish(s->house.broker, pn_span_of("t", 1), pn_span_of(payload, LARGE), 1, false, PN_NEVER, at));
    }
    pn_house_leave(&s->house);
    for (int i = 0; i < 3; i++) turn(s);
    uint64_t before = pn_mem_held();
    shutdown(p->fd, SHUT_WR);
    await(s, &p->lost);
    CHECK(pn_mem_held() < before + PN_MAX_OUTPUT_BYTES);
    free(payload);
    scene_end(s);
}

/* What a child has of ours between its fork and its exec. */
TEST(a_socket_that_a_child_holds_open_is_forgotten_all_the_same) {
    scene *s = scene_new(0);
    peer *p = come_in(s, 0);
    int child = dup(p->ours);
    pn_loops_order(s->loops, PN_ORDER_ABORT, p->name, NULL);
    await(s, &p->gone);
    say(p, ping, sizeof ping);
    for (int i = 0; i < 3; i++) turn(s);
    close(child);
    scene_end(s);
}

TEST(without_a_certificate_the_handshake_fails_in_words) {
    scene *s = scene_tls(false, 0);
    peer *p = dial_tls(s, 0);
    CHECK_EQ(p->failed, 1);
    CHECK_EQ(strcmp(p->why, "peer did not return a certificate"), 0);
    CHECK_EQ(p->ready, 0);
    shutdown(p->fd, SHUT_WR);
    await(s, &p->gone);
    scene_end(s);
}

TEST(what_is_not_tls_and_what_comes_byte_by_byte) {
    scene *s = scene_tls(true, 0);
    peer *wrong = dial(s, 0, false), *slow = dial(s, 1, false);
    say(wrong, "GET / HTTP/1.1", 14);
    for (int i = 0; i < 8; i++) {
        say(slow, "\x16\x03\x01\0\xff\x01\0\0" + i, 1);
        turn(s);
        turn(s);
    }
    CHECK_EQ(wrong->hellos, 1);
    CHECK_EQ(slow->hellos, 8);
    CHECK_EQ(slow->ready + slow->failed, 0);
    scene_end(s);
}

/* --- threads --- */

enum { ROUNDS = 300 };

static void *chatter(void *arg) {
    peer *p = arg;
    uint8_t answer[256];
    for (int i = 0; i < ROUNDS; i++) {
        if (send(p->fd, publish, sizeof publish, MSG_NOSIGNAL) < 0 && errno != EAGAIN) break;
        if (read(p->fd, answer, sizeof answer) < 0) usleep(100);
    }
    return NULL;
}

/* Four clients talk, Python publishes, looks at numbers, judges and cuts; the thread sanitizer looks on. */
TEST(two_threads_and_a_house) {
    scene *s = scene_new(1000);
    enum { TALKERS = 4 };
    pthread_t threads[TALKERS];
    uint8_t data[64];
    CHECK(pn_loops_start(s->loops));
    for (int i = 0; i < TALKERS; i++) {
        peer *p = dial(s, i, true);
        say(p, data, connect_packet(data, i));
        for (int t = 0; t < 30000 && !p->connects; t++) {
            hear(s);
            usleep(1000);
        }
        CHECK_EQ(p->connects, 1);
        say(p, subscribe, sizeof subscribe);
    }
    for (int i = 0; i < TALKERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, chatter, &s->peers[i]), 0);
    for (int i = 0; i < ROUNDS; i++) {
        int64_t at = pn_house_enter(&s->house, now());
        CHECK(pn_broker_publish(s->house.broker, pn_span_of("t", 1), pn_span_of("x", 1), 0, false, PN_NEVER, at));
        CHECK(pn_broker_stats(s->house.broker)->links >= 1);
        uint32_t due = pn_loops_due(s->loops);
        pn_house_leave(&s->house);
        pn_loops_wake(s->loops, due);
        hear(s);
        if (i == ROUNDS / 2) pn_loops_order(s->loops, PN_ORDER_ABORT, s->peers[0].name, NULL);
    }
    for (int i = 0; i < TALKERS; i++) pthread_join(threads[i], NULL);
    for (int t = 0; t < 30000 && !s->peers[0].gone; t++) {
        hear(s);
        usleep(1000);
    }
    CHECK_EQ(s->peers[0].gone, 1);
    pn_loops_stop(s->loops);
    hear(s);
    scene_end(s);
}

/* --- several loops --- */

static bool comes(const peer *p, const void *what, size_t n) {
    uint8_t got[64];
    size_t have = 0;
    struct pollfd at = {.fd = p->fd, .events = POLLIN};
    while (have < n && poll(&at, 1, 60000) == 1) {
        ssize_t more = read(p->fd, got + have, sizeof got - have);
        if (more <= 0) break;
        have += (size_t)more;
    }
    return have == n && memcmp(got, what, n) == 0;
}

TEST(newcomers_are_spread_in_turn_and_their_names_say_where_they_are) {
    scene *s = scene_with(3, 0);
    for (int i = 0; i < 7; i++) CHECK_EQ(pn_loop_of(come_in(s, i)->name), (unsigned)i % 3);
    CHECK_EQ(pn_loops_count_of(s->loops, 0).connections, 3);
    CHECK_EQ(pn_loops_count_of(s->loops, 1).connections, 2);
    CHECK_EQ(pn_loops_count_of(s->loops, 2).connections, 2);
    CHECK_EQ(pn_loops_count(s->loops).connections, 7);
    CHECK(!pn_loops_new(&s->house, &(pn_loop_times){0}, PN_LOOPS_MAX + 1));
    scene_end(s);
}

/* Whoever comes with the client id of one of another loop ends that one, which is told by its own loop. */
TEST(a_session_goes_to_another_loop) {
    scene *s = scene_with(2, 0);
    uint8_t data[64], answer[BYTES];
    peer *old = come_in(s, 0), *new = dial(s, 1, true);
    say(new, data, connect_packet(data, 0));
    CHECK_EQ(get(s, new, answer, 4), 4);
    await(s, &old->lost);
    CHECK_EQ(old->closed, 1);
    CHECK_EQ(read(old->fd, answer, sizeof answer), 0);
    say(new, ping, 2);
    CHECK_EQ(get(s, new, answer, 2), 2);
    scene_end(s);
}

/* One publishes in one loop, one hears it in the other and answers: nobody is left asleep, and nobody turns for nothing. */
TEST(a_loop_wakes_the_other_one_once) {
    enum { THERE_AND_BACK = 200 };
    scene *s = scene_with(2, 0);
    uint8_t answer[8];
    peer *one = come_in(s, 0), *other = come_in(s, 1);
    say(one, "\x82\6\0\1\0\1b\0", 8);
    say(other, subscribe, sizeof subscribe);
    CHECK_EQ(get(s, one, answer, 5), 5);
    CHECK_EQ(get(s, other, answer, 5), 5);
    CHECK(pn_loops_start(s->loops));
    uint64_t before = pn_loops_count(s->loops).turns;
    for (int i = 0; i < THERE_AND_BACK; i++) {
        say(one, publish, sizeof publish);
        CHECK(comes(other, publish, sizeof publish));
        say(other, "\x30\5\0\1bhi", 7);
        CHECK(comes(one, "\x30\5\0\1bhi", 7));
    }
    uint64_t turns = pn_loops_count(s->loops).turns - before;
    CHECK(turns >= 2 * THERE_AND_BACK && turns <= 7 * THERE_AND_BACK);
    pn_loops_stop(s->loops);
    hear(s);
    scene_end(s);
}

/* Four large messages, more than sockets take at once: all of it comes, whoever sends it, and then nobody turns any more. */
TEST(who_reads_slowly_gets_all_and_leaves_rest_behind) {
    enum { LARGE = 510 * 1024, COUNT = 4, HEADER = 1 + 3 + 3 };
    scene *s = scene_new(0);
    static uint8_t answer[BYTES];
    uint8_t *payload = calloc(1, LARGE);
    come_in(s, 0);
    peer *slow = come_in(s, 1);
    say(slow, subscribe, sizeof subscribe);
    CHECK_EQ(get(s, slow, answer, 5), 5);
    CHECK(pn_loops_start(s->loops));
    int64_t at = pn_house_enter(&s->house, now());
    for (int i = 0; i < COUNT; i++) {
        CHECK(pn_broker_publish(s->house.broker, pn_span_of("t", 1), pn_span_of(payload, LARGE), 0, false, PN_NEVER, at));
    }
    uint32_t due = pn_loops_due(s->loops);
    pn_house_leave(&s->house);
    CHECK_EQ(due, loops() > 1 ? 2 : 1);
    pn_loops_wake(s->loops, due);
    size_t n = 0;
    struct pollfd ready = {.fd = slow->fd, .events = POLLIN};
    while (n < COUNT * (LARGE + HEADER) && poll(&ready, 1, 60000) == 1) {
        ssize_t more = read(slow->fd, answer, sizeof answer);
        if (more <= 0) break;
        n += (size_t)more;
    }
    CHECK_EQ(n, COUNT * (LARGE + HEADER));
    /* That nothing happens is no event to wait for: it is looked at until a tenth of a second has passed without a turn. */
    uint64_t before = 0, turns = 1;
    for (int i = 0; i < 600 && turns != before; i++) {
        before = turns;
        usleep(100000);
        turns = pn_loops_count(s->loops).turns;
    }
    CHECK_EQ(turns, before);
    pn_loops_stop(s->loops);
    hear(s);
    free(payload);
    scene_end(s);
}

/* The end, while all of them are busy with each other. */
TEST(the_end_of_three_loops) {
    enum { TALKERS = 6 };
    scene *s = scene_with(3, 0);
    pthread_t threads[TALKERS];
    uint8_t answer[8];
    for (int i = 0; i < TALKERS; i++) {
        peer *p = come_in(s, i);
        say(p, subscribe, sizeof subscribe);
        CHECK_EQ(get(s, p, answer, 5), 5);
    }
    uint64_t before = sends(s);
    CHECK(pn_loops_start(s->loops));
    for (int i = 0; i < TALKERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, chatter, &s->peers[i]), 0);
    while (sends(s) == before) usleep(100);
    pn_loops_stop(s->loops);
    for (int i = 0; i < TALKERS; i++) pthread_join(threads[i], NULL);
    hear(s);
    scene_end(s);
}

/* --- those who are expected --- */

/* A client goes on with its handshake, until `*flag` of it is set. */
static void shake_until(scene *s, peer *p, const int *flag) {
    for (int i = 0; i < 60000 && !*flag; i++) {
        SSL_do_handshake(p->ssl);
        pn_loops_turn(s->loops, 1);
        hear(s);
    }
    CHECK_EQ(*flag, 1);
}

static bool rings(const scene *s) {
    struct pollfd bell = {.fd = pn_loops_bell(s->loops), .events = POLLIN};
    return poll(&bell, 1, 0) == 1;
}

static peer *dial_expected(scene *s, int i) {
    int ends[2];
    peer *p = &s->peers[i];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    p->fd = ends[0];
    p->ours = ends[1];
    p->owner = (pn_owner){.object = p};
    SSL_CTX_up_ref(s->context);
    p->name = pn_loops_welcome(s->loops, ends[1], p, s->context, &p->owner);
    CHECK(p->name);
    p->ssl = SSL_new(s->client);
    SSL_set_fd(p->ssl, p->fd);
    SSL_set_connect_state(p->ssl);
    return p;
}

/* Python is woken once, by the CONNECT, and knows by then whose it is. Where a step is taken makes no difference. */
static void come_in_with_one_bell(unsigned helpers) {
    scene *s = scene_tls(true, helpers);
    uint8_t data[64], answer[4];
    peer *p = dial_expected(s, 0);
    for (int t = 0; t < 60000 && pn_loops_count(s->loops).sends == 0; t++) {
        SSL_do_handshake(p->ssl);
        pn_loops_turn(s->loops, 1);
    }
    CHECK(!rings(s));
    while (!SSL_is_init_finished(p->ssl)) CHECK(SSL_do_handshake(p->ssl) == 1 || SSL_want_read(p->ssl));
    for (int i = 0; i < 3; i++) pn_loops_turn(s->loops, 1);
    CHECK(!rings(s));
    SSL_write(p->ssl, data, (int)connect_packet(data, 0));
    for (int t = 0; t < 60000 && !rings(s); t++) pn_loops_turn(s->loops, 1);
    CHECK_EQ(p->hellos + p->ready + p->connects, 0);
    hear(s);
    CHECK_EQ(p->hellos, 1);
    CHECK_EQ(p->ready, 1);
    CHECK_EQ(p->connects, 1);
    CHECK(p->certificate > 100);
    CHECK_EQ(get_tls(s, p, answer, 4), 4);
    SSL_shutdown(p->ssl);
    await(s, &p->lost);
    scene_end(s);
}

TEST(who_comes_in_rings_once) { come_in_with_one_bell(0); }

TEST(who_comes_in_rings_once_with_helpers) { come_in_with_one_bell(2); }

/* The last message of TLS 1.2 waits for Python; what is no hello is shown to it; who leaves does not leave anything. */
TEST(the_expected_who_are_otherwise) {
    scene *s = scene_tls(true, 0);
    uint8_t data[64];
    SSL_CTX_set_max_proto_version(s->client, TLS1_2_VERSION);
    peer *old = dial_expected(s, 0);
    shake_until(s, old, &old->ready);
    for (int i = 0; i < TURNS && !SSL_is_init_finished(old->ssl); i++) {
        SSL_do_handshake(old->ssl);
        turn(s);
    }
    CHECK(old->owner.conn == old->name);
    come_in_tls(s, old, 0);
    peer *wrong = dial_expected(s, 1), *slow = dial_expected(s, 2), *early = dial_expected(s, 3);
    say(wrong, "\x16\x03\x01\x7f\xff\x01\0\0\xff", 9);
    say(slow, "\x16\x03", 2);
    await(s, &wrong->hellos);
    await(s, &slow->hellos);
    shutdown(early->fd, SHUT_WR);
    await(s, &early->gone);
    SSL_CTX_set_max_proto_version(s->client, TLS1_3_VERSION);
    peer *last = dial_expected(s, 4);
    for (int t = 0; t < 60000 && !SSL_is_init_finished(last->ssl); t++) {
        SSL_do_handshake(last->ssl);
        pn_loops_turn(s->loops, 1);
    }
    SSL_write(last->ssl, data, (int)connect_packet(data, 4));
    for (int t = 0; t < 60000 && !rings(s); t++) pn_loops_turn(s->loops, 1);
    scene_end(s); /* nobody has read that it has a link, and a CONNECT */
}

/* --- helpers --- */

static peer *greet(scene *s, int i) {
    peer *p = dial(s, i, false);
    p->ssl = SSL_new(s->client);
    SSL_set_fd(p->ssl, p->fd);
    SSL_connect(p->ssl);
    return p;
}

/* TLS 1.3 and 1.2, a CONNECT right behind the handshake, one who is not let in, and one whose bytes come one by one. */
TEST(helpers_take_the_steps) {
    scene *s = scene_tls(true, 2);
    uint8_t data[64], answer[64];
    for (int i = 0; i < 6; i++) {
        if (i == 3) SSL_CTX_set_max_proto_version(s->client, TLS1_2_VERSION);
        peer *p = greet(s, i);
        shake_until(s, p, &p->ready);
        for (int t = 0; t < 60000 && !SSL_is_init_finished(p->ssl); t++) {
            SSL_do_handshake(p->ssl);
            pn_loops_turn(s->loops, 1);
        }
        SSL_write(p->ssl, data, (int)connect_packet(data, i));
        CHECK_EQ(get_tls(s, p, answer, 4), 4);
        CHECK_BYTES(answer, 4, "\x20\x02\0\0", 4);
    }
    SSL_CTX_free(s->client);
    s->client = SSL_CTX_new(TLS_client_method());
    peer *p = greet(s, 6);
    shake_until(s, p, &p->failed);
    CHECK_EQ(strcmp(p->why, "peer did not return a certificate"), 0);
    CHECK_EQ(p->ready, 0);
    scene_end(s);
}

/* It is cut, or hangs up, when its session is away, or just back: nothing is left behind, and the others come in. */
TEST(who_leaves_while_its_session_is_away) {
    scene *s = scene_tls(true, 1);
    for (int i = 0; i < 8; i++) {
        peer *p = greet(s, i);
        for (int t = 0; t < 2 + i / 2; t++) turn(s); /* HELLO, BEGIN, the step goes away … */
        if (i % 2) pn_loops_order(s->loops, PN_ORDER_ABORT, p->name, NULL);
        else shutdown(p->fd, SHUT_RDWR);
        await(s, &p->gone);
    }
    peer *last = greet(s, 8), *finished = greet(s, 9);
    turn(s);
    turn(s);
    pn_loops_order(s->loops, PN_ORDER_FINISH, finished->name, NULL);
    shake_until(s, last, &last->ready);
    shutdown(finished->fd, SHUT_WR);
    await(s, &finished->gone);
    CHECK_EQ(finished->ready, 0);
    scene_end(s);
}

/* The end comes while steps wait for the only helper. */
TEST(the_end_waits_for_no_step) {
    scene *s = scene_tls(true, 1);
    for (int i = 0; i < MANY; i++) greet(s, i);
    turn(s);
    turn(s);
    scene_end(s);
}

/* The loop, two helpers and Python at once: some come in, some are cut in between, and a plain client talks all the time. */
TEST(a_storm_with_helpers) {
    scene *s = scene_tls(true, 2);
    uint8_t data[64], answer[256];
    peer *plain = come_in(s, 0);
    CHECK(pn_loops_start(s->loops));
    for (int i = 1; i < MANY; i++) greet(s, i);
    int in = 0, cut_off = 0, answers = 0;
    for (int t = 0; t < 60000 && (in + cut_off < MANY - 1 || answers < 10); t++) {
        if (send(plain->fd, ping, sizeof ping, MSG_NOSIGNAL) == sizeof ping) usleep(1000);
        if (read(plain->fd, answer, sizeof answer) >= 2) answers++;
        hear(s);
        in = cut_off = 0;
        for (int i = 1; i < MANY; i++) {
            peer *p = &s->peers[i];
            SSL_do_handshake(p->ssl);
            if (i % 4 == 0 && t == i / 4 && !p->ready) pn_loops_order(s->loops, PN_ORDER_ABORT, p->name, NULL);
            cut_off += p->gone;
            in += p->ready && !p->gone;
        }
    }
    CHECK_EQ(in + cut_off, MANY - 1);
    CHECK(in >= MANY / 2);
    CHECK(answers >= 10);
    for (int i = 1; i < MANY; i++) {
        if (s->peers[i].gone || !SSL_is_init_finished(s->peers[i].ssl)) continue;
        SSL_write(s->peers[i].ssl, data, (int)connect_packet(data, i));
    }
    pn_loops_stop(s->loops);
    hear(s);
    scene_end(s);
}

/* The rest that a thread has after a turn, by what loop.h promises of it: never for a few, nobody waits longer than the most of it, and with it
 * a turn is no longer than its links' time, so that no rest makes it fewer of them a second. */
TEST(a_turn_rests_for_many_and_not_for_long) {
    for (uint32_t spoke = 0; spoke < PN_REST_FROM; spoke++) CHECK_EQ(pn_loop_rest(spoke, 0), 0);
    for (uint32_t spoke = PN_REST_FROM; spoke <= PN_READY_TURN; spoke++) {
        for (int64_t took = 0; took <= 2 * PN_REST_MOST; took += 500) {
            int64_t rest = pn_loop_rest(spoke, took), whole = took + rest;
            CHECK(rest >= 0 && rest <= PN_REST_MOST);
            CHECK(rest == 0 || (whole <= PN_REST_MOST && whole <= (int64_t)spoke * PN_REST_EACH));
            CHECK(rest > 0 || took >= PN_REST_MOST || took >= (int64_t)spoke * PN_REST_EACH);
        }
    }
}

TEST_MAIN(CASE(a_turn_rests_for_many_and_not_for_long), CASE(one_receive_and_one_send_for_all_that_came), CASE(one_send_for_a_subscriber_and_turn),
          CASE(a_connect_parks_its_link_and_nobody_else), CASE(who_reads_nothing_is_cut_and_waited_for_only_when_it_takes_no_more),
          CASE(finish_sends_the_rest_and_waits_for_the_peer), CASE(orders_for_one_that_is_gone_do_nothing),
          CASE(mutual_tls_there_and_back_one_send_a_turn), CASE(the_alert_of_one_is_not_sent_to_another),
          CASE(tls_answers_those_who_read), CASE(who_hangs_up_takes_no_more_than_what_is_on_its_way), CASE(a_socket_that_a_child_holds_open_is_forgotten_all_the_same), CASE(without_a_certificate_the_handshake_fails_in_words),
          CASE(what_is_not_tls_and_what_comes_byte_by_byte), CASE(two_threads_and_a_house),
          CASE(newcomers_are_spread_in_turn_and_their_names_say_where_they_are), CASE(a_session_goes_to_another_loop),
          CASE(a_loop_wakes_the_other_one_once), CASE(who_reads_slowly_gets_all_and_leaves_rest_behind),
          CASE(the_end_of_three_loops), CASE(who_comes_in_rings_once),
          CASE(who_comes_in_rings_once_with_helpers), CASE(the_expected_who_are_otherwise), CASE(helpers_take_the_steps),
          CASE(who_leaves_while_its_session_is_away), CASE(the_end_waits_for_no_step), CASE(a_storm_with_helpers))
