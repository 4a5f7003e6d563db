/* wire.c -- the work of wire.h. */
#define _GNU_SOURCE 1

#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#if WITH_TLS
#include <openssl/err.h>
#include <openssl/x509v3.h>
#endif

struct wire wire = {.host = "localhost", .ciphersuites = "TLS_AES_256_GCM_SHA384"};
const char *const stage_names[] = {"the end", "connecting", "the TLS handshake", "CONNECT", "SUBSCRIBE", "traffic"};
int epoll_fd;
uint64_t now, last_progress;
char tls_name[96];

static struct conn **flush_list;
static unsigned flush_count;
static uint8_t *receive_buffer;  /* PACKET_MAX for what was left over, RECEIVE_SIZE for what arrives */

_Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

void *allocate(size_t count, size_t size)
{
    void *block = calloc(count, size);
    if (block == NULL)
        die("out of memory");
    return block;
}

uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    if (clock_gettime(id, &t) != 0)
        die("clock_gettime: %s", strerror(errno));
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool tls_wanted(void)
{
    return wire.ca != NULL;
}

/* --- Sockets and TLS ------------------------------------------------------------------------------------------- */

#if WITH_TLS
static SSL_CTX *tls_context;

static _Noreturn void die_tls(const char *what)
{
    char reason[256] = "no reason given";
    unsigned long code = ERR_get_error();
    if (code != 0)
        ERR_error_string_n(code, reason, sizeof reason);
    die("%s: %s", what, reason);
}

static void tls_setup(void)
{
    tls_context = SSL_CTX_new(TLS_client_method());
    if (tls_context == NULL || SSL_CTX_set_min_proto_version(tls_context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(tls_context, wire.ciphersuites) != 1 ||
        SSL_CTX_set1_groups_list(tls_context, "X25519:P-256") != 1)  /* what nodes have; 3.5 would offer ML-KEM first */
        die_tls("TLS 1.3");
    if (SSL_CTX_load_verify_locations(tls_context, wire.ca, NULL) != 1)
        die_tls(wire.ca);
    if (wire.cert != NULL && SSL_CTX_use_certificate_chain_file(tls_context, wire.cert) != 1)
        die_tls(wire.cert);
    if (wire.key != NULL && SSL_CTX_use_PrivateKey_file(tls_context, wire.key, SSL_FILETYPE_PEM) != 1)
        die_tls(wire.key);
    SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(tls_context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(tls_context, 1);  /* one recv for many records; else two for each */
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (wire.lean)
        SSL_CTX_set_mode(tls_context, SSL_MODE_RELEASE_BUFFERS);
}

static void tls_begin(struct conn *c)
{
    c->ssl = SSL_new(tls_context);
    if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1 || SSL_set_tlsext_host_name(c->ssl, wire.host) != 1 ||
        SSL_set1_host(c->ssl, wire.host) != 1)
        die_tls("TLS");
    if (c->cert != NULL && SSL_use_certificate(c->ssl, c->cert) != 1)
        die_tls("certificate");
    SSL_set_connect_state(c->ssl);
}

/* TLS moved nothing, and not because it waits: the end of the stream is the connection's, all else ends the program. */
static void tls_over(struct conn *c, int why, const char *what)
{
    if (why == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) != SSL_R_UNEXPECTED_EOF_WHILE_READING)
        die_tls(what);
    on_lost(c, why != SSL_ERROR_SYSCALL || errno == 0 ? "end of stream" : strerror(errno));
}
#endif

static void want(struct conn *c, uint32_t events, int operation)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &e) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void set_blocked(struct conn *c, bool blocked)
{
    if (c->blocked != blocked) {
        c->blocked = blocked;
        want(c, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    }
}

/* Reads once. Returns the number of bytes, 0 when there is nothing now. */
static size_t receive(struct conn *c, uint8_t *to, size_t size)
{
#if WITH_TLS
    if (c->ssl != NULL) {
        size_t n = 0;
        ERR_clear_error();
        if (SSL_read_ex(c->ssl, to, size, &n) == 1)
            return n;
        int why = SSL_get_error(c->ssl, 0);
        if (why != SSL_ERROR_WANT_READ)
            tls_over(c, why, who(c));
        return 0;
    }
#endif
    ssize_t n = recv(c->fd, to, size, 0);
    if (n > 0)
        return (size_t)n;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    on_lost(c, n == 0 ? "end of stream" : strerror(errno));
    return 0;
}

/* Writes once. Returns the number of bytes, 0 when the socket takes none now. */
size_t transmit(struct conn *c, const uint8_t *from, size_t size)
{
#if WITH_TLS
    if (c->ssl != NULL) {
        size_t n = 0;
        ERR_clear_error();
        if (SSL_write_ex(c->ssl, from, size, &n) == 1)
            return n;
        int why = SSL_get_error(c->ssl, 0);
        if (why != SSL_ERROR_WANT_WRITE)
            tls_over(c, why, who(c));
        return 0;
    }
#endif
    ssize_t n = send(c->fd, from, size, MSG_NOSIGNAL);
    if (n >= 0)
        return (size_t)n;
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    on_lost(c, strerror(errno));
    return 0;
}

/* Room for `size` more bytes of output, which the caller fills; they go out with the turn's flush. */
uint8_t *reserve(struct conn *c, size_t size)
{
    if (c->used + size > c->room) {
        c->room = 2 * (c->used + size);
        c->out = realloc(c->out, c->room);
        if (c->out == NULL)
            die("out of memory");
    }
    uint8_t *at = c->out + c->used;
    c->used += size;
    if (!c->dirty) {
        c->dirty = true;
        flush_list[flush_count++] = c;
    }
    return at;
}

static void flush(struct conn *c)
{
    while (c->sent < c->used) {
        size_t n = transmit(c, c->out + c->sent, c->used - c->sent);
        if (n == 0) {
            if (c->stage != CLOSED)
                set_blocked(c, true);
            return;
        }
        c->sent += n;
    }
    c->sent = c->used = 0;
    set_blocked(c, false);
}

void flush_all(void)
{
    for (unsigned i = 0; i < flush_count; i++) {
        flush_list[i]->dirty = false;
        if (!flush_list[i]->blocked && flush_list[i]->stage != CLOSED)
            flush(flush_list[i]);
    }
    flush_count = 0;
}

/* --- MQTT 3.1.1 ------------------------------------------------------------------------------------------------- */

size_t put_u16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
    return 2;
}

size_t put_string(uint8_t *at, const char *text, size_t len)
{
    memcpy(at + put_u16(at, len), text, len);
    return 2 + len;
}

size_t put_header(uint8_t *at, unsigned type, unsigned flags, size_t remaining)
{
    size_t n = 0;
    at[n++] = (uint8_t)(type << 4 | flags);
    do {
        at[n++] = (uint8_t)((remaining & 127) | (remaining > 127 ? 128 : 0));
        remaining >>= 7;
    } while (remaining > 0);
    return n;
}

/* Takes whole packets off `data`. Returns the number of bytes taken. */
static size_t parse(struct conn *c, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    for (;;) {
        const uint8_t *at = data + taken;
        size_t left = len - taken, head = 1, remaining = 0;
        unsigned shift = 0;
        for (;; head++, shift += 7) {
            if (head >= left)
                return taken;
            if (shift > 21)
                die("%s got a remaining length of more than four bytes", who(c));
            remaining |= (size_t)(at[head] & 127) << shift;
            if (at[head] < 128)
                break;
        }
        head++;
        if (head + remaining > PACKET_MAX)
            die("%s got a packet of %zu bytes; at most %d are expected", who(c), head + remaining, PACKET_MAX);
        if (left - head < remaining)
            return taken;
        on_packet(c, at[0], at + head, remaining);
        taken += head + remaining;
    }
}

static void keep_part(struct conn *c, const uint8_t *data, size_t len)
{
    if (len > c->part_room) {
        c->part_room = 2 * len;
        free(c->part);
        c->part = allocate(1, c->part_room);
    }
    if (len > 0)
        memcpy(c->part, data, len);
    c->part_used = len;
}

static void read_ready(struct conn *c)
{
    for (;;) {
        size_t kept = c->part_used;
        size_t n = receive(c, receive_buffer + kept, RECEIVE_SIZE);
        if (n == 0)
            return;
        now = last_progress = clock_ns(CLOCK_MONOTONIC);
        if (kept > 0)
            memcpy(receive_buffer, c->part, kept);
        size_t taken = parse(c, receive_buffer, kept + n);
        keep_part(c, receive_buffer + taken, kept + n - taken);
#if WITH_TLS
        if (c->ssl != NULL && SSL_has_pending(c->ssl))
            continue;
#endif
        return;
    }
}

/* --- A connection's life ----------------------------------------------------------------------------------------- */

#if WITH_TLS
static void handshake(struct conn *c)
{
    ERR_clear_error();
    int result = SSL_do_handshake(c->ssl);
    if (result == 1) {
        if (tls_name[0] == '\0')
            snprintf(tls_name, sizeof tls_name, "%s %s", SSL_get_version(c->ssl), SSL_get_cipher_name(c->ssl));
        set_blocked(c, false);
        on_open(c);
        return;
    }
    int why = SSL_get_error(c->ssl, result);
    long verdict = SSL_get_verify_result(c->ssl);
    if (why == SSL_ERROR_SSL && verdict != X509_V_OK)
        die("TLS handshake: the broker's certificate is refused: %s", X509_verify_cert_error_string(verdict));
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        set_blocked(c, why == SSL_ERROR_WANT_WRITE);
    else
        tls_over(c, why, "TLS handshake");
}
#endif

void conn_open(struct conn *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wire.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s", strerror(errno));
    if (setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) != 0)
        die("TCP_NODELAY: %s", strerror(errno));
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(c->from)};
    if (c->from != 0 && (setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int)) != 0 ||
                         bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0))
        die("bind: %s", strerror(errno));
    c->stage = TCP;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS) {
        on_lost(c, strerror(errno));
        return;
    }
    c->blocked = true;
    want(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void finish_connection(struct conn *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        on_lost(c, strerror(error != 0 ? error : errno));
        return;
    }
    last_progress = now;
#if WITH_TLS
    if (tls_wanted()) {
        c->stage = TLS;
        tls_begin(c);
        handshake(c);
        return;
    }
#endif
    set_blocked(c, false);
    on_open(c);
}

void conn_event(struct conn *c, uint32_t events)
{
    if (c->stage == CLOSED)
        return;
    if (c->stage == TCP) {
        finish_connection(c);
        return;
    }
#if WITH_TLS
    if (c->stage == TLS) {
        last_progress = now;
        handshake(c);
        return;
    }
#endif
    if (events & EPOLLOUT)
        flush(c);
    if (c->stage != CLOSED && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        read_ready(c);
}

void conn_close(struct conn *c)
{
#if WITH_TLS
    if (c->ssl != NULL && c->stage > TLS)
        (void)SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    c->ssl = NULL;
#endif
    if (c->stage != CLOSED)
        close(c->fd);
    c->stage = CLOSED;
    c->used = c->sent = c->part_used = 0;
    c->blocked = false;
}

void conn_free(struct conn *c)
{
    conn_close(c);
    free(c->out);
    free(c->part);
}

void wire_begin(unsigned most)
{
    receive_buffer = allocate(1, PACKET_MAX + RECEIVE_SIZE);
    flush_list = allocate(most, sizeof *flush_list);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1: %s", strerror(errno));
#if WITH_TLS
    if (tls_wanted())
        tls_setup();
#endif
}

void wire_end(void)
{
    free(receive_buffer);
    free(flush_list);
    close(epoll_fd);
#if WITH_TLS
    SSL_CTX_free(tls_context);
#endif
}
