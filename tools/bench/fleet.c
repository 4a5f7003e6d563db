/* fleet.c -- ten thousand nodes: some report, an operator commands any of them, the gateway restarts.
 *
 * Rules it keeps:
 *   - Each node has an address, a name and a certificate of its own, and comes back as the firmware does (node/backoff.py): at a
 *     random moment of the first seconds, then at growing random distances. Their key is one and the same, the operator's: to make
 *     them fast, and no matter to a handshake.
 *   - An open loop: reports and commands are due by the clock, however fast the gateway is.
 *   - A command is answered by its node at once; the time from its PUBLISH to the answer at the operator is what is measured.
 *   - Reports and answers are heard by the operator and checked: lost, doubled, out of turn.
 *   - It does what it is told, a line of standard input at a time, says what came of it in a line of JSON, and ends with its input:
 *
 *         connect          all come in, a hundred at a time            steady SECONDS   reports and commands
 *         recover SECONDS  the gateway goes away and comes back: until all are back, with commands to those who are; a line says
 *                          when it may go
 *
 * Exit status 1: it could not be done in time, and standard error says why; 2: usage.
 *
 * Build: cc -std=c11 -O2 -DWITH_TLS=1 fleet.c wire.c -lssl -lcrypto
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <openssl/pem.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "wire.h"

enum {
    NODES_MAX = 50000,
    STEPS_TURN = 4,              /* handshakes: a real node does its own, and does not keep the others waiting */
    AT_ONCE = 100,               /* connections under way while all come in for the first time */
    COMMANDS_MAX = 1 << 20,      /* of a phase */
    NAME_MAX_BYTES = 15,
    LOOK_MS = 10,                /* between two looks at who is to come back */
    PING_S = 60, KEEP_ALIVE_S = 150,
    CONNECT_S = 30,              /* until a node gives up an attempt; this and the next as in node/config.py */
    FIRST_MS = 10000, BASE_MS = 1000, CAP_MS = 60000,
    LATE_MS = 5000,              /* a command unanswered so long after a phase is lost */
    OPERATOR_RETRY_MS = 200
};

struct node {
    struct conn *conn;
    char name[NAME_MAX_BYTES + 1];
    uint64_t due;                /* to connect; 0: not */
    uint64_t since;              /* the attempt's beginning; then when it last said something */
    uint64_t lost_at, back_at;
    unsigned delay_ms, attempts;
    uint64_t said, heard;        /* reports: sent, and the number of the latest that the operator has had, from 1 */
};

static struct {
    unsigned reporters, commands;  /* reports a second, one of each; commands a second */
    const char *certs;
} opt = {.reporters = 1000, .commands = 50};

static struct node *nodes;
static struct conn *conns;       /* the nodes', then the operator's */
static unsigned n_nodes, opening, up;
static struct conn *operator;
static uint64_t waited, operator_due;

/* A phase. */
static bool steady, recovering;
static uint64_t began, first_lost, first_back;
static uint64_t reports, reports_due, commands, commands_due, heard, answered, doubled, reordered;
static uint64_t *sent_at;        /* of the command with that number; 0: it has been answered */
static float *taken_ms;

static double uniform(double low, double high)
{
    return low + (high - low) * drand48();
}

static struct node *node_of(const struct conn *c)
{
    return c == operator ? NULL : &nodes[c->number];
}

const char *who(const struct conn *c)
{
    return c == operator ? "the operator" : nodes[c->number].name;
}

/* --- packets --- */

static void send_packet(struct conn *c, unsigned type, unsigned flags, const void *body, size_t len)
{
    uint8_t header[8];
    size_t n = put_header(header, type, flags, len);
    uint8_t *at = reserve(c, n + len);
    memcpy(at, header, n);
    if (len > 0)
        memcpy(at + n, body, len);
}

static void send_publish(struct conn *c, const char *root, const char *leaf, unsigned qos, unsigned id, const char *payload)
{
    uint8_t body[PACKET_MAX];
    char topic[64];
    int len = snprintf(topic, sizeof topic, "/plant/%s/%s", root, leaf);
    size_t n = put_string(body, topic, (size_t)len);
    if (qos > 0)
        n += put_u16(body + n, id);
    memcpy(body + n, payload, strlen(payload));
    send_packet(c, PUBLISH, qos << 1, body, n + strlen(payload));
}

void on_open(struct conn *c)
{
    const char *name = c == operator ? "bench-operator" : who(c);
    uint8_t body[64];
    size_t n = put_string(body, "MQTT", 4);
    body[n++] = 4;
    body[n++] = 2;  /* clean session */
    n += put_u16(body + n, KEEP_ALIVE_S);
    n += put_string(body + n, name, strlen(name));
    send_packet(c, CONNECT, 0, body, n);
    c->stage = GREETED;
}

static size_t add_filter(uint8_t *at, const char *filter, unsigned qos)
{
    size_t n = put_string(at, filter, strlen(filter));
    at[n] = (uint8_t)qos;
    return n + 1;
}

static void subscribe(struct conn *c)
{
    uint8_t body[128];
    size_t n = put_u16(body, 1);
    if (c == operator) {
        n += add_filter(body + n, "/plant/+/ack", 1);
        n += add_filter(body + n, "/plant/+/telemetry", 0);
    } else {
        char filter[64];
        snprintf(filter, sizeof filter, "/plant/%s/UpdateTemperature", who(c));
        n += add_filter(body + n, filter, 1);
    }
    send_packet(c, SUBSCRIBE, 2, body, n);
    c->stage = SUBSCRIBING;
}

static void is_up(struct conn *c)
{
    struct node *node = node_of(c);
    c->stage = UP;
    up++;
    opening--;
    if (node == NULL)
        return;
    node->back_at = now;
    node->delay_ms = BASE_MS;
    if (recovering && first_back == 0)
        first_back = now;
}

/* The number behind `word` in a payload; 0: none. */
static uint64_t number_in(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    return at == NULL ? 0 : strtoull(at + strlen(word), NULL, 10);
}

/* The node that a topic names; NULL: none. */
static struct node *named(const char *topic, size_t len)
{
    if (len < 9 || memcmp(topic, "/plant/n", 8) != 0)
        return NULL;
    unsigned long number = strtoul(topic + 8, NULL, 10);
    return number < n_nodes ? &nodes[number] : NULL;
}

static void on_answer(const char *payload)
{
    uint64_t number = number_in(payload, "\"id\":\"b");
    if (number == 0 || number > commands)
        return;  /* of an earlier phase */
    uint64_t *at = &sent_at[number - 1];
    if (*at == 0) {
        doubled++;
        return;
    }
    taken_ms[answered++] = (float)((double)(now - *at) / 1e6);
    *at = 0;
}

static void on_report(struct node *node, const char *payload)
{
    uint64_t number = number_in(payload, "\"n\":");
    if (number <= node->heard) {
        doubled += number == node->heard;
        reordered += number < node->heard;
        return;
    }
    heard++;
    node->heard = number;
}

static void on_publish(struct conn *c, unsigned qos, const uint8_t *body, size_t len)
{
    char payload[1024];
    size_t topic_len = (size_t)body[0] << 8 | body[1], at = 2 + topic_len + (qos > 0 ? 2 : 0);
    if (len < at || len - at >= sizeof payload)
        die("%s got a malformed PUBLISH", who(c));
    memcpy(payload, body + at, len - at);
    payload[len - at] = '\0';
    if (qos > 0)
        send_packet(c, PUBACK, 0, body + 2 + topic_len, 2);
    if (c == operator) {
        struct node *node = named((const char *)body + 2, topic_len);
        if (node == NULL)
            die("the operator got a message that nobody sent");
        if (topic_len > 4 && memcmp(body + 2 + topic_len - 4, "/ack", 4) == 0)
            on_answer(payload);
        else
            on_report(node, payload);
        return;
    }
    char answer[256];
    uint64_t number = number_in(payload, "\"id\":\"b");
    snprintf(answer, sizeof answer, "{\"id\":\"b%08" PRIu64 "\",\"cmd\":\"UpdateTemperature\",\"stage\":\"done\",\"ts\":%ld}", number,
             (long)time(NULL));
    send_publish(c, who(c), "ack", 1, 1, answer);
    node_of(c)->since = now;
}

void on_packet(struct conn *c, uint8_t first, const uint8_t *body, size_t len)
{
    switch (first >> 4) {
    case CONNACK:
        if (len != 2 || body[1] != 0)
            die("the gateway refused %s: CONNACK return code %u", who(c), len == 2 ? body[1] : 0);
        subscribe(c);
        break;
    case SUBACK:
        for (size_t i = 2; i < len; i++)
            if (body[i] > 2)
                die("the gateway refused a subscription of %s", who(c));
        is_up(c);
        break;
    case PUBLISH:
        if (len < 2)
            die("%s got a malformed PUBLISH", who(c));
        on_publish(c, first >> 1 & 3, body, len);
        break;
    case PUBACK: case PINGRESP: break;
    default: die("%s got a packet of type %u", who(c), first >> 4);
    }
}

/* --- connections --- */

void on_lost(struct conn *c, const char *why)
{
    struct node *node = node_of(c);
    if (!recovering)
        die("the gateway dropped %s during %s: %s", who(c), stage_names[c->stage], why);
    bool was_up = c->stage == UP;
    up -= was_up;
    opening -= !was_up;
    conn_close(c);
    if (node == NULL) {
        operator_due = now + OPERATOR_RETRY_MS * UINT64_C(1000000);
        return;
    }
    if (was_up) {
        node->lost_at = now;
        node->back_at = 0;
        node->attempts = 0;
        if (first_lost == 0)
            first_lost = now;
    }
    double most = 3.0 * node->delay_ms;
    double delay = was_up ? uniform(0, FIRST_MS) : uniform(BASE_MS, most > BASE_MS ? most : BASE_MS);
    if (!was_up)
        node->delay_ms = delay < CAP_MS ? (unsigned)delay : CAP_MS;
    node->due = now + (uint64_t)((delay < CAP_MS ? delay : CAP_MS) * 1e6);
}

static void begin(struct node *node)
{
    node->due = 0;
    node->since = now;
    node->attempts++;
    opening++;
    conn_open(node->conn);
}

/* Who is to connect, who has waited too long, who has said nothing for long. */
static void look_around(void)
{
    static uint64_t last;
    if (now - last < LOOK_MS * UINT64_C(1000000))
        return;
    last = now;
    if (operator_due != 0 && now >= operator_due) {
        operator_due = 0;
        opening++;
        conn_open(operator);
    }
    for (unsigned i = 0; i < n_nodes; i++) {
        struct node *node = &nodes[i];
        uint64_t age = now - node->since;
        if (node->due != 0 && now >= node->due && (recovering || opening < AT_ONCE)) {
            begin(node);
        } else if (node->conn->stage == UP && age > PING_S * UINT64_C(1000000000)) {
            send_packet(node->conn, PINGREQ, 0, NULL, 0);
            node->since = now;
        } else if (node->conn->stage != CLOSED && node->conn->stage != UP && age > CONNECT_S * UINT64_C(1000000000)) {
            on_lost(node->conn, "no answer in time");
        }
    }
}

/* --- traffic --- */

static void report(struct node *node)
{
    char payload[256];
    snprintf(payload, sizeof payload,
             "{\"ts\":%ld,\"tq\":\"ntp\",\"n\":%" PRIu64 ",\"readings\":{\"temperature\":[%.1f,\"ok\",1],\"humidity\":[%.1f,\"ok\",1]}}",
             (long)time(NULL), ++node->said, uniform(15, 25), uniform(40, 80));
    send_publish(node->conn, node->name, "telemetry", 0, 0, payload);
    node->since = now;
    reports++;
}

static void command(struct node *node)
{
    char payload[128];
    sent_at[commands++] = now;
    snprintf(payload, sizeof payload, "{\"id\":\"b%08" PRIu64 "\",\"temperature\":%d}", commands, (int)uniform(15, 25));
    send_publish(operator, node->name, "UpdateTemperature", 1, (unsigned)(commands % 65535 + 1), payload);
}

/* Sends what is due by the clock. In a recovery there are no reports, and commands go to nodes that are back. */
static void send_due(void)
{
    double seconds = (double)(now - began) / 1e9;
    unsigned reporters = opt.reporters < n_nodes ? opt.reporters : n_nodes;
    for (; steady && reports_due < (uint64_t)(seconds * reporters); reports_due++)
        report(&nodes[reports_due % reporters]);
    for (; commands_due < (uint64_t)(seconds * opt.commands) && commands < COMMANDS_MAX; commands_due++) {
        struct node *node = &nodes[(unsigned)lrand48() % n_nodes];
        if (operator->stage == UP && node->conn->stage == UP && (steady || node->back_at > began))
            command(node);
    }
}

static void turn(void)
{
    struct epoll_event events[EVENTS_MAX];
    flush_all();
    uint64_t before = clock_ns(CLOCK_MONOTONIC);
    int n = epoll_wait(epoll_fd, events, EVENTS_MAX, 1);
    now = clock_ns(CLOCK_MONOTONIC);
    waited += now - before;
    if (n < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    unsigned steps = 0;
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c->stage > TLS || c == operator || steps++ < STEPS_TURN)
            conn_event(c, events[i].events);
    }
    look_around();
}

/* --- phases --- */

static void begin_phase(void)
{
    now = began = clock_ns(CLOCK_MONOTONIC);
    reports = reports_due = commands = commands_due = heard = answered = doubled = reordered = 0;
    first_lost = first_back = waited = 0;
    memset(sent_at, 0, COMMANDS_MAX * sizeof *sent_at);
    for (unsigned i = 0; i < n_nodes; i++)
        nodes[i].heard = nodes[i].said;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double share_ms(double share)
{
    return answered == 0 ? 0 : (double)taken_ms[(uint64_t)(share * (double)(answered - 1))];
}

/* Waits for what is on its way still. */
static void finish_traffic(void)
{
    steady = false;
    uint64_t end = now + LATE_MS * UINT64_C(1000000);
    while ((answered < commands || heard < reports) && now < end)
        turn();
    qsort(taken_ms, answered, sizeof *taken_ms, by_size);
}

static void print_commands(void)
{
    printf("\"commands\":%" PRIu64 ",\"unanswered\":%" PRIu64 ",\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f", commands,
           commands - answered, share_ms(0.5), share_ms(0.99), share_ms(1));
}

static void print_end(void)
{
    printf(",\"doubled\":%" PRIu64 ",\"reordered\":%" PRIu64 ",\"waiting\":%.3f}\n", doubled, reordered,
           (double)waited / (double)(now - began));
    fflush(stdout);
}

static void connect_all(void)
{
    begin_phase();
    for (unsigned i = 0; i < n_nodes; i++)
        nodes[i].due = now;
    operator_due = now;
    while (up < n_nodes + 1)
        turn();
    double seconds = (double)(now - began) / 1e9;
    printf("{\"phase\":\"connect\",\"nodes\":%u,\"seconds\":%.3f", n_nodes, seconds);
    print_end();
}

static void run_steady(double seconds)
{
    begin_phase();
    for (steady = true; (double)(now - began) < seconds * 1e9; turn())
        send_due();
    finish_traffic();
    printf("{\"phase\":\"steady\",\"seconds\":%.1f,\"reports\":%" PRIu64 ",\"lost\":%" PRIu64 ",", seconds, reports, reports - heard);
    print_commands();
    print_end();
}

static void recover(double seconds)
{
    begin_phase();
    recovering = true;
    printf("{\"phase\":\"ready\"}\n");  /* the gateway may go now */
    fflush(stdout);
    while (first_lost == 0 || up < n_nodes + 1) {
        turn();
        send_due();
        if ((double)(now - began) > seconds * 1e9)
            die("%u of %u are not back after %.0f seconds", n_nodes + 1 - up, n_nodes + 1, seconds);
    }
    uint64_t end = now;
    finish_traffic();
    recovering = false;
    unsigned attempts = 0;
    double longest = 0, sum = 0;
    for (unsigned i = 0; i < n_nodes; i++) {
        double away = (double)(nodes[i].back_at - nodes[i].lost_at) / 1e9;
        longest = away > longest ? away : longest;
        sum += away;
        attempts = nodes[i].attempts > attempts ? nodes[i].attempts : attempts;
    }
    printf("{\"phase\":\"recover\",\"seconds\":%.3f,\"first_back_s\":%.3f,\"mean_s\":%.3f,\"longest_s\":%.3f,\"attempts\":%u,",
           (double)(end - first_lost) / 1e9, (double)(first_back - first_lost) / 1e9, sum / n_nodes, longest, attempts);
    print_commands();
    print_end();
}

/* --- the run --- */

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: fleet --port PORT --ca FILE --cert FILE --key FILE --certs FILE\n"
                    "             [--host NAME] [--reporters N] [--commands N]\n");
    exit(2);
}

static void parse_options(int argc, char **argv)
{
    static const char *const names[] = {"port", "ca", "cert", "key", "certs", "host", "reporters", "commands"};
    enum { COUNT = sizeof names / sizeof names[0] };
    struct option options[COUNT + 1] = {{0}};
    for (int i = 0; i < COUNT; i++)
        options[i] = (struct option){.name = names[i], .has_arg = required_argument};
    int which;
    for (int found; (found = getopt_long(argc, argv, "", options, &which)) != -1;) {
        if (found != 0)
            usage();
        unsigned number = (unsigned)strtoul(optarg, NULL, 10);
        switch (which) {
        case 0: wire.port = number; break;
        case 1: wire.ca = optarg; break;
        case 2: wire.cert = optarg; break;
        case 3: wire.key = optarg; break;
        case 4: opt.certs = optarg; break;
        case 5: wire.host = optarg; break;
        case 6: opt.reporters = number; break;
        default: opt.commands = number; break;
        }
    }
    if (wire.port == 0 || wire.ca == NULL || wire.cert == NULL || wire.key == NULL || opt.certs == NULL)
        usage();
}

static void prepare(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        die("getrlimit: %s", strerror(errno));
    files.rlim_cur = files.rlim_max;
    FILE *file = fopen(opt.certs, "r");
    if (file == NULL)
        die("%s: %s", opt.certs, strerror(errno));
    X509 **certs = allocate(NODES_MAX, sizeof *certs);
    while (n_nodes < NODES_MAX && (certs[n_nodes] = PEM_read_X509(file, NULL, NULL, NULL)) != NULL)
        n_nodes++;
    fclose(file);
    if (n_nodes == 0)
        die("%s: no certificates", opt.certs);
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_max < n_nodes + 16)
        die("%u nodes need a higher limit of open files (ulimit -n %u)", n_nodes, n_nodes + 16);
    wire.lean = true;
    wire_begin(n_nodes + 1);
    nodes = allocate(n_nodes, sizeof *nodes);
    conns = allocate(n_nodes + 1, sizeof *conns);
    operator = &conns[n_nodes];
    sent_at = allocate(COMMANDS_MAX, sizeof *sent_at);
    taken_ms = allocate(COMMANDS_MAX, sizeof *taken_ms);
    for (unsigned i = 0; i < n_nodes; i++) {
        nodes[i] = (struct node){.conn = &conns[i], .delay_ms = BASE_MS};
        snprintf(nodes[i].name, sizeof nodes[i].name, "n%05u", i);
        conns[i] = (struct conn){.number = i, .cert = certs[i], .from = 0x7F010000u + i};
    }
    operator->number = n_nodes;
    free(certs);
}

static void release(void)
{
    for (unsigned i = 0; i <= n_nodes; i++) {
        conn_free(&conns[i]);
        X509_free(conns[i].cert);
    }
    free(conns);
    free(nodes);
    free(sent_at);
    free(taken_ms);
    wire_end();
}

/* The next line that it is told, while the nodes are looked after. False: the end. */
static bool next_order(char *line, size_t size)
{
    size_t len = 0;
    for (;;) {
        ssize_t n = read(STDIN_FILENO, line + len, 1);
        if (n == 0)
            return false;
        if (n < 0 && errno != EAGAIN)
            die("standard input: %s", strerror(errno));
        if (n < 0) {
            turn();
            continue;
        }
        if (line[len] == '\n') {
            line[len] = '\0';
            return true;
        }
        if (++len == size)
            die("a line that is too long");
    }
}

int main(int argc, char **argv)
{
    char line[64];
    parse_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    unsigned short seed[3];
    if (getrandom(seed, sizeof seed, 0) != sizeof seed)
        die("getrandom: %s", strerror(errno));
    seed48(seed);
    prepare();
    if (fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl: %s", strerror(errno));
    now = clock_ns(CLOCK_MONOTONIC);
    while (next_order(line, sizeof line)) {
        double seconds = 0;
        if (strcmp(line, "connect") == 0)
            connect_all();
        else if (sscanf(line, "steady %lf", &seconds) == 1)
            run_steady(seconds);
        else if (sscanf(line, "recover %lf", &seconds) == 1)
            recover(seconds);
        else
            die("what is %s?", line);
    }
    release();
    return 0;
}
