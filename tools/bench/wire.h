/* wire.h -- connections of a generator: sockets, TLS and packets of MQTT 3.1.1, for one thread.
 *
 * Rules it keeps:
 *   - It blocks nowhere; whoever turns the loop waits in epoll_wait on `epoll_fd`, and passes on what is ready.
 *   - One recv for a ready socket, one send for a connection and turn: what a good client does, and cheap.
 *   - It talks to 127.0.0.1 only.
 *   - What a connection is for is not known here: the program has on_open, on_packet and on_lost.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if WITH_TLS
#include <openssl/ssl.h>
#endif

enum {
    PAYLOAD_MAX = 65536,
    TOPIC_MAX = 128,
    PACKET_MAX = PAYLOAD_MAX + TOPIC_MAX + 16,  /* longest packet accepted from the broker */
    RECEIVE_SIZE = 256 * 1024,   /* one recv at the most, shared by all connections */
    EVENTS_MAX = 256             /* ready sockets a turn */
};

enum { CONNECT = 1, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, PINGREQ = 12, PINGRESP };

/* A connection's way up. The last three are the program's to set. */
enum stage { CLOSED, TCP, TLS, GREETED, SUBSCRIBING, UP };
extern const char *const stage_names[];

struct conn {
    int fd;
    enum stage stage;
    bool dirty, blocked;         /* is in the flush list; waits for EPOLLOUT */
    unsigned number;             /* the program's */
    uint32_t from;               /* its own address, in 127.0.0.0/8; 0: any */
    uint8_t *out;                /* owned; bytes [sent, used) are to be written */
    size_t sent, used, room;
    uint8_t *part;               /* owned; the beginning of a packet whose rest has not arrived */
    size_t part_used, part_room;
#if WITH_TLS
    SSL *ssl;                    /* owned */
    X509 *cert;                  /* borrowed; NULL: that of `wire` */
#endif
};

/* Where the broker is, and what for TLS is needed: no `ca`, no TLS; no `cert` and `key`, no certificate of the client. */
extern struct wire {
    unsigned port;
    const char *ca, *cert, *key, *host, *ciphersuites;
    bool lean;                   /* many connections that say little: their memory counts, not the time of an allocation */
} wire;

extern int epoll_fd;             /* its data is a pointer to the conn */
extern uint64_t now;             /* monotonic ns, read after every wait and every recv */
extern uint64_t last_progress;   /* when bytes arrived last */
extern char tls_name[];          /* version and cipher, once there is a session */

void wire_begin(unsigned most);  /* `most` connections; after parsing options */
void wire_end(void);

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *allocate(size_t count, size_t size);
uint64_t clock_ns(clockid_t id);
bool tls_wanted(void);

void conn_open(struct conn *c);
void conn_event(struct conn *c, uint32_t events);
void conn_close(struct conn *c); /* at once; what was to be written is forgotten */
void conn_free(struct conn *c);  /* the same, and what it owns is given back */
uint8_t *reserve(struct conn *c, size_t size);
size_t transmit(struct conn *c, const uint8_t *from, size_t size);
void flush_all(void);

size_t put_u16(uint8_t *at, size_t value);
size_t put_string(uint8_t *at, const char *text, size_t len);
size_t put_header(uint8_t *at, unsigned type, unsigned flags, size_t remaining);

/* The program's. */
const char *who(const struct conn *c);
void on_open(struct conn *c);                                                      /* CONNECT may be sent */
void on_packet(struct conn *c, uint8_t first, const uint8_t *body, size_t len);
void on_lost(struct conn *c, const char *why);                                     /* ends the program, or closes it */

#endif
