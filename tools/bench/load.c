/* load.c -- the traffic generator of the benchmark: MQTT 3.1.1 publishers and subscribers in one thread.
 *
 * Rules it keeps:
 *   - It blocks nowhere but in epoll_wait, and it counts the time it waits there: a generator that never waits is the
 *     bottleneck, and the figures of that run are its own and not the broker's.
 *   - Closed loop: a publisher has at most `window` messages that are not yet delivered to every subscriber and, for
 *     QoS 1 and 2, acknowledged. So nothing queues up without bound, in the broker or here.
 *   - Every message carries run, publisher and sequence number; loss, duplication, reordering and damage are counted.
 *   - It ends by itself: by count, by time, by a stall, by the deadline; a SIGALRM stands behind all of them.
 *
 * The broker is read from outside, by its process id: CPU time of all its threads, dead ones included, in nanoseconds
 * (clock_getcpuclockid, the scheduler's own sum), resident memory from /proc/PID/smaps_rollup.
 *
 * Output: one JSON object on one line. Exit status 0: the run was measured (look at lost, duplicated, reordered and
 * damaged); 1: it could not be, and stderr says why; 2: usage.
 *
 * Build: cc -std=c11 -O2 -DWITH_TLS=1 load.c wire.c -lssl -lcrypto    or    cc -std=c11 -O2 -DWITH_TLS=0 load.c wire.c
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

/* Limits, every one by name. */
enum {
    CLIENTS_MAX = 60000,         /* one source address, one ephemeral port each */
    WINDOW_MAX = 1024,           /* a power of two; bits in tracker.seen */
    PAYLOAD_MIN = 24,            /* run, publisher, sequence, time stamp */
    FILTERS_MAX = 900000,        /* and of retained messages; rounded up for every client: still six digits */
    MADE_MAX = 31,               /* bytes of a topic or filter made from `wild` or `retained_topic` */
    SUBSCRIBERS_MAX = 100,       /* that come one after the other for what is retained */
    FILTERS_AT_ONCE = 10,        /* filters in a SUBSCRIBE of the wildcard run; a client has one on its way */
    STRIDE = 7919,               /* from a wildcard topic to the next: prime, so neighbours in memory do not follow */
    CONNECTS_AT_ONCE = 32,       /* below the listen backlog of any broker */
    STORM_AT_ONCE = 96,          /* that still */
    RATE_MAX = 1000,             /* messages a second of one sparse publisher */
    KEEP_ALIVE_S = 900,          /* longer than DEADLINE_MAX_S: no pings in the figures */
    DEADLINE_MAX_S = 600,
    WAIT_MS = 100,               /* the clock is looked at so often even if nothing happens */
    SETTLE_STEP_MS = 2,          /* the broker is at rest when its CPU time stands still for so long */
    SETTLE_STEPS_MAX = 100
};

/* FAN_OUT has one topic, to which every publisher sends and which every subscriber holds; BROADCAST is the same with one publisher.
 * WILDCARD is PAIRS whose subscribers hold a crowd of filters; every message goes to a topic that matches one of them.
 * SPARSE is PAIRS in which every publisher sends `rate` messages a second, all of them evenly spread: nothing to batch.
 * RETAINED publishes first; then subscribers come one after the other and get what was retained.
 * KEPT is PAIRS whose subscribers have sessions that outlive their connections; DRAIN has one such subscriber, which goes
 * away, and comes back when everything that the publishers have for it is in its queue.
 * STORM and IDLE connect and publish nothing: STORM as many at a time as a broker's backlog holds. */
enum scenario { FAN_IN, FAN_OUT, BROADCAST, PAIRS, SPARSE, KEPT, DRAIN, WILDCARD, RETAINED, STORM, IDLE };
static const char *const scenario_names[] = {"fan-in", "fan-out",  "broadcast", "pairs", "sparse", "kept",
                                             "drain",  "wildcard", "retained",  "storm", "idle"};

/* Filters of the wildcard run and the topic that each matches; "{}" is the number of the filter, six digits. No topic
 * matches the filter of another number or line, and all are equally long, so that their packets are. */
static const struct { const char *filter, *topic; } wild[] = {
    {"/plant/+/r{}/#",     "/plant/a/r{}/temp"},
    {"/plant/n{}/+/temp",  "/plant/n{}/c/temp"},
    {"vin/v{}/#",          "vin/v{}/door/open"},
    {"+/x{}/+/on",         "site/x{}/state/on"},
};
enum { WILD = sizeof wild / sizeof wild[0] };
static const char retained_topic[] = "/plant/n{}/state", retained_filter[] = "/plant/#";

static struct {
    enum scenario scenario;
    unsigned publishers, subscribers, clients, base, qos, window;
    size_t payload;
    unsigned filters, retained;  /* in all; rounded up to as many for every client */
    uint64_t messages;           /* deliveries to measure */
    double seconds, deadline;
    unsigned rate;               /* SPARSE: messages a second of a publisher */
    unsigned stall;              /* seconds: nothing received for so long, and what is missing is lost */
    pid_t broker;
    const char *topic, *filter;  /* "{}" stands for the publisher's number, four digits */
} opt = {
    .scenario = FAN_IN, .publishers = 50, .subscribers = 50, .clients = 1100, .base = 100, .window = 4, .rate = 1, .payload = 64,
    .filters = 100000, .retained = 10000,
    .messages = 100000, .seconds = 10, .deadline = 60, .stall = 3, .topic = "/plant/n{}/cmd/bench",
    .filter = "/plant/+/cmd/bench",
};

/* A message in flight. It is delivered when the last packet that tells a subscriber of it has come: PUBLISH, or PUBREL
 * for QoS 2. */
struct slot {
    struct publisher *owner;     /* borrowed */
    unsigned waiting;            /* deliveries, and one for the acknowledgement, still to come; 0: free */
    uint8_t reply;               /* the packet type the broker owes us: PUBACK, PUBREC, PUBCOMP; 0: none */
};

struct publisher {
    struct conn *conn;           /* borrowed */
    uint8_t *packet;             /* owned; the PUBLISH to copy and to fill in */
    size_t packet_len, topic_at, id_at, payload_at;
    char topic[TOPIC_MAX + 1];
    size_t topic_len;
    char (*topics)[MADE_MAX + 1];  /* owned; WILDCARD and RETAINED: as many as `shared_out`, each of topic_len bytes */
    uint64_t sent, target;
    bool queued;                 /* is in the refill list */
    struct slot *slots;          /* owned; message n in slot n % window; its packet id is the slot's index plus one */
};

/* What a subscriber has from a publisher: bit n % WINDOW_MAX of `seen` says that message n was received. No message
 * older than the window can be missing, so these bits tell a late one from a second one exactly. */
struct tracker {
    uint64_t next, received;
    uint64_t seen[WINDOW_MAX / 64];
};

struct subscriber {
    struct conn *conn;           /* borrowed */
    unsigned first;              /* the publishers it hears: first .. first + count - 1 */
    unsigned count;
    struct tracker *trackers;    /* owned */
    unsigned asked, granted;     /* WILDCARD: filters in a SUBSCRIBE, and in a SUBACK */
    uint64_t *seen;              /* owned; RETAINED: bit n says that message n was received; topics have no order */
    struct slot bundle;          /* RETAINED and DRAIN: all of the messages as one that waits for each of them */
    struct slot **releases;      /* owned; QoS 2: by packet id, the message that PUBREL will complete; borrowed slots */
};

static struct conn *conns;
static unsigned n_conns, n_publishers, n_subscribers;
static unsigned shared_out;      /* filters of a subscriber, or messages that each publisher has retained */
static unsigned publish_qos;
static struct publisher *publishers;
static struct subscriber *subscribers;
static struct publisher **refill_list;
static unsigned refill_count;
static uint8_t *filler;
static uint32_t run_id;

static uint64_t subscribed_at;   /* RETAINED and DRAIN: when the subscriber whose turn it is asked, or came back */
static bool resumed;             /* DRAIN: it has come back */
static uint64_t open_filters;    /* WILDCARD: asked for, not granted */
static uint64_t started, waited, turns;
static uint64_t unsent, open_slots;
static uint64_t paced_from, paced, paced_end;  /* SPARSE: since when, messages that were due so far, and in all */
static uint64_t delivered, duplicated, reordered, damaged;
static unsigned opening, up;     /* connections on their way, connections that are there */

/* Latency, ns: 16 linear steps in every power of two, 6 % wide. */
enum { HIST_STEPS = 16, HIST_SIZE = 64 * HIST_STEPS };
static uint64_t histogram[HIST_SIZE], latency_max;
static bool measuring;

/* Whether nobody publishes anything. */
static bool silent(void)
{
    return opt.scenario >= STORM;
}

static bool one_topic(void)
{
    return opt.scenario == FAN_OUT || opt.scenario == BROADCAST;
}

const char *who(const struct conn *c)
{
    static char name[32];
    if (silent())
        snprintf(name, sizeof name, "client %u", c->number);
    else if (c->number < n_publishers)
        snprintf(name, sizeof name, "publisher %u", c->number);
    else
        snprintf(name, sizeof name, "subscriber %u", c->number - n_publishers);
    return name;
}

/* --- Reading the broker and the machine from /proc ------------------------------------------------------------- */

struct sample {
    uint64_t broker_ns, own_ns;                /* CPU time of all threads */
    uint64_t broker_user, broker_system;       /* the same in clock ticks, for the share of the kernel */
    uint64_t machine_busy, machine_steal;      /* clock ticks of all cores */
    uint64_t at;
};

static uint64_t broker_cpu(void)
{
    static clockid_t id;
    static bool known;
    if (opt.broker == 0)
        return 0;
    if (!known && clock_getcpuclockid(opt.broker, &id) != 0)
        die("no broker process %d", (int)opt.broker);
    known = true;
    struct timespec t;
    if (clock_gettime(id, &t) != 0)
        die("the broker (process %d) has ended", (int)opt.broker);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool read_proc(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static struct sample take_sample(void)
{
    struct sample s = {.broker_ns = broker_cpu(), .own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID)};
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)opt.broker);
    if (opt.broker != 0 && read_proc(path, text, sizeof text)) {
        const char *after_name = strrchr(text, ')');  /* proc(5): utime and stime are fields 14 and 15 */
        if (after_name != NULL)
            sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64,
                   &s.broker_user, &s.broker_system);
    }
    uint64_t user, nice, system, idle, iowait, irq, softirq, steal;
    if (read_proc("/proc/stat", text, sizeof text) &&
        sscanf(text, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64,
               &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal) == 8) {
        s.machine_busy = user + nice + system + irq + softirq;
        s.machine_steal = steal;
    }
    s.at = clock_ns(CLOCK_MONOTONIC);
    return s;
}

/* Resident bytes of the broker. smaps_rollup walks the pages; VmRSS of /proc/PID/status may lag by 64 pages a core. */
static uint64_t broker_rss(void)
{
    char path[64], text[4096];
    uint64_t kib = 0;
    if (opt.broker == 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)opt.broker);
    const char *line = read_proc(path, text, sizeof text) ? strstr(text, "\nRss:") : NULL;
    if (line != NULL && sscanf(line, "\nRss: %" SCNu64, &kib) == 1)
        return kib * 1024;
    snprintf(path, sizeof path, "/proc/%d/status", (int)opt.broker);
    line = read_proc(path, text, sizeof text) ? strstr(text, "\nVmRSS:") : NULL;
    if (line != NULL && sscanf(line, "\nVmRSS: %" SCNu64, &kib) == 1)
        return kib * 1024;
    die("cannot read the memory of process %d", (int)opt.broker);
}

/* Waits until the broker has done what it still had to do. */
static void settle(void)
{
    uint64_t before = broker_cpu();
    for (int i = 0; i < SETTLE_STEPS_MAX; i++) {
        nanosleep(&(struct timespec){.tv_nsec = SETTLE_STEP_MS * 1000000L}, NULL);
        uint64_t after = broker_cpu();
        if (after == before)
            return;
        before = after;
    }
}

static void record_latency(uint64_t ns)
{
    unsigned power = ns < HIST_STEPS ? 0 : (unsigned)(63 - __builtin_clzll(ns)) - 3;
    unsigned step = power == 0 ? (unsigned)ns : (unsigned)(ns >> (power - 1)) - HIST_STEPS;
    histogram[power * HIST_STEPS + step]++;
    if (ns > latency_max)
        latency_max = ns;
}

/* The upper end of the step that holds the given share of all deliveries, microseconds. */
static double latency_us(double share)
{
    uint64_t total = 0, below = 0;
    for (unsigned i = 0; i < HIST_SIZE; i++)
        total += histogram[i];
    uint64_t rank = (uint64_t)(share * (double)total);
    for (unsigned i = 0; i < HIST_SIZE; i++) {
        below += histogram[i];
        if (below > rank) {
            unsigned power = i / HIST_STEPS, step = i % HIST_STEPS;
            double top = power == 0 ? step + 1 : (double)(HIST_STEPS + step + 1) * (double)(1ull << (power - 1));
            return (top < (double)latency_max ? top : (double)latency_max) / 1000;
        }
    }
    return 0;
}

/* --- MQTT 3.1.1 ------------------------------------------------------------------------------------------------- */

/* Nobody may be lost. */
void on_lost(struct conn *c, const char *why)
{
    die("the broker dropped %s during %s: %s", who(c), stage_names[c->stage], why);
}

void on_open(struct conn *c)
{
    char id[24];
    size_t id_len = (size_t)snprintf(id, sizeof id, "bench-%05u", c->number);
    uint8_t packet[64];
    size_t n = put_header(packet, CONNECT, 0, 10 + 2 + id_len);
    n += put_string(packet + n, "MQTT", 4);
    packet[n++] = 4;  /* protocol level: 3.1.1 */
    packet[n++] = (opt.scenario == KEPT || opt.scenario == DRAIN) && c->number >= n_publishers ? 0 : 2;  /* clean session */
    n += put_u16(packet + n, KEEP_ALIVE_S);
    n += put_string(packet + n, id, id_len);
    memcpy(reserve(c, n), packet, n);
    c->stage = GREETED;
}

static void send_subscribe(struct conn *c, const char *filter)
{
    size_t len = strlen(filter);
    uint8_t packet[TOPIC_MAX + 16];
    size_t n = put_header(packet, SUBSCRIBE, 2, 2 + 2 + len + 1);
    n += put_u16(packet + n, 1);
    n += put_string(packet + n, filter, len);
    packet[n++] = (uint8_t)opt.qos;
    memcpy(reserve(c, n), packet, n);
    c->stage = SUBSCRIBING;
}

/* Writes `pattern` with `digits` digits of `number` for its "{}". Returns the length; dies beyond `most`. */
static size_t fill_in(char *to, size_t most, const char *pattern, int digits, unsigned number)
{
    const char *mark = strstr(pattern, "{}");
    int len = mark == NULL
                  ? snprintf(to, most + 1, "%s", pattern)
                  : snprintf(to, most + 1, "%.*s%0*u%s", (int)(mark - pattern), pattern, digits, number, mark + 2);
    if (len < 1 || (size_t)len > most)
        die("the topic must have 1 to %zu bytes", most);
    return (size_t)len;
}

/* The next filters of a subscriber of the wildcard run. */
static void send_filters(struct subscriber *s)
{
    uint8_t body[2 + FILTERS_AT_ONCE * (MADE_MAX + 3)];
    size_t n = put_u16(body, s->asked / FILTERS_AT_ONCE % 65535 + 1);
    for (unsigned i = 0; i < FILTERS_AT_ONCE && s->asked < shared_out; i++, s->asked++) {
        char filter[MADE_MAX + 1];
        unsigned which = (s->conn->number - n_publishers) * shared_out + s->asked;
        n += put_string(body + n, filter, fill_in(filter, MADE_MAX, wild[which % WILD].filter, 6, which));
        body[n++] = (uint8_t)opt.qos;
    }
    uint8_t header[8];
    size_t header_len = put_header(header, SUBSCRIBE, 2, n);
    uint8_t *at = reserve(s->conn, header_len + n);
    memcpy(at, header, header_len);
    memcpy(at + header_len, body, n);
}

static void on_filters_granted(struct conn *c, const uint8_t *body, size_t len)
{
    struct subscriber *s = &subscribers[c->number - n_publishers];
    unsigned due = s->asked - s->granted;
    size_t id = s->granted / FILTERS_AT_ONCE % 65535 + 1;
    if (due == 0 || len != 2 + due || ((size_t)body[0] << 8 | body[1]) != id)
        die("%s got a SUBACK that was not due", who(c));
    for (unsigned i = 0; i < due; i++)
        if (body[2 + i] != opt.qos)
            die("the broker answered filter %u of %s with 0x%02x, not with QoS %u", s->granted + i, who(c), body[2 + i],
                opt.qos);
    s->granted += due;
    open_filters -= due;
    if (s->asked < shared_out)
        send_filters(s);
}

static void send_reply(struct conn *c, unsigned type, size_t id)
{
    uint8_t *at = reserve(c, 4);
    put_header(at, type, type == PUBREL ? 2 : 0, 2);
    put_u16(at + 2, id);
}

static void prepare_publisher(struct publisher *p, unsigned number)
{
    if (opt.scenario == WILDCARD || opt.scenario == RETAINED) {
        p->topics = allocate(shared_out, sizeof *p->topics);
        for (unsigned i = 0; i < shared_out; i++) {
            unsigned which = number * shared_out + i;
            const char *pattern = opt.scenario == WILDCARD ? wild[which % WILD].topic : retained_topic;
            p->topic_len = fill_in(p->topics[i], MADE_MAX, pattern, 6, which);
        }
        memcpy(p->topic, p->topics[0], p->topic_len);
    } else {
        p->topic_len = fill_in(p->topic, TOPIC_MAX, opt.topic, 4, one_topic() ? 0 : number);
    }
    size_t id_len = publish_qos > 0 ? 2 : 0;
    p->packet = allocate(1, opt.payload + p->topic_len + 16);
    size_t n = put_header(p->packet, PUBLISH, publish_qos << 1 | (opt.scenario == RETAINED),
                          2 + p->topic_len + id_len + opt.payload);
    p->topic_at = n + 2;
    n += put_string(p->packet + n, p->topic, p->topic_len);
    p->id_at = n;
    p->payload_at = n + id_len;
    p->packet_len = p->payload_at + opt.payload;
    uint8_t *payload = p->packet + p->payload_at;
    memcpy(payload, &run_id, 4);
    memcpy(payload + 4, &number, 4);
    memcpy(payload + PAYLOAD_MIN, filler, opt.payload - PAYLOAD_MIN);
}

/* The topic of a publisher's message `seq`. */
static const char *topic_of(const struct publisher *p, uint64_t seq)
{
    if (p->topics == NULL)
        return p->topic;
    return p->topics[(opt.scenario == WILDCARD ? seq * STRIDE : seq) % shared_out];
}

/* Deliveries of a message that a publisher waits for. */
static unsigned audience(void)
{
    return one_topic() ? n_subscribers : opt.scenario == RETAINED || opt.scenario == DRAIN ? 0 : 1;
}

static void publish(struct publisher *p)
{
    struct slot *s = &p->slots[p->sent % opt.window];
    uint8_t *at = reserve(p->conn, p->packet_len);
    memcpy(at, p->packet, p->packet_len);
    if (p->topics != NULL)
        memcpy(at + p->topic_at, topic_of(p, p->sent), p->topic_len);
    if (publish_qos > 0)
        put_u16(at + p->id_at, p->sent % opt.window + 1);
    memcpy(at + p->payload_at + 8, &p->sent, 8);
    memcpy(at + p->payload_at + 16, &now, 8);
    p->sent++;
    s->waiting = audience() + (publish_qos > 0);
    s->reply = publish_qos == 0 ? 0 : publish_qos == 1 ? PUBACK : PUBREC;
    open_slots++;
    unsent--;
}

static void queue_refill(struct publisher *p)
{
    if (!p->queued) {
        p->queued = true;
        refill_list[refill_count++] = p;
    }
}

static void refill(struct publisher *p)
{
    while (p->sent < p->target && p->slots[p->sent % opt.window].waiting == 0)
        publish(p);
    p->queued = false;
}

static void tick_off(struct slot *s)
{
    if (--s->waiting == 0) {
        open_slots--;
        queue_refill(s->owner);
    }
}

static void on_reply(struct conn *c, unsigned type, size_t id)
{
    if (c->number >= n_publishers || id < 1 || id > opt.window)
        die("%s got an acknowledgement (type %u) of packet id %zu, which it never sent", who(c), type, id);
    struct slot *s = &publishers[c->number].slots[id - 1];
    if (s->waiting == 0 || s->reply != type)
        die("%s got an acknowledgement (type %u) of packet id %zu that was not due", who(c), type, id);
    if (type == PUBREC) {
        send_reply(c, PUBREL, id);
        s->reply = PUBCOMP;
    } else {
        s->reply = 0;
        tick_off(s);
    }
}

/* Checks a message. Returns its slot, NULL when it is damaged or a duplicate. */
static struct slot *check_message(struct subscriber *s, const uint8_t *topic, size_t topic_len, unsigned flags,
                                  const uint8_t *payload, size_t len)
{
    uint32_t run, number;
    uint64_t seq, stamp;
    if (len != opt.payload) {
        damaged++;
        return NULL;
    }
    memcpy(&run, payload, 4);
    memcpy(&number, payload + 4, 4);
    memcpy(&seq, payload + 8, 8);
    memcpy(&stamp, payload + 16, 8);
    unsigned retain = opt.scenario == RETAINED;  /* a message that was retained says so, another one does not */
    if (run != run_id || (flags >> 1 & 3) != opt.qos || (flags & 1) != retain || number < s->first ||
        number - s->first >= s->count || seq >= publishers[number].sent || topic_len != publishers[number].topic_len ||
        memcmp(topic, topic_of(&publishers[number], seq), topic_len) != 0 ||
        memcmp(payload + PAYLOAD_MIN, filler, len - PAYLOAD_MIN) != 0) {
        damaged++;
        return NULL;
    }
    if (opt.scenario == RETAINED) {
        uint64_t which = number * (uint64_t)shared_out + seq, bit = UINT64_C(1) << which % 64;
        if ((s->seen[which / 64] & bit) != 0) {
            duplicated++;
            return NULL;
        }
        s->seen[which / 64] |= bit;
        s->trackers[number].received++;
        delivered++;
        if (measuring)
            record_latency(now > subscribed_at ? now - subscribed_at : 0);
        return &s->bundle;
    }
    struct tracker *t = &s->trackers[number - s->first];
    if (seq >= t->next) {
        for (; t->next <= seq; t->next++)
            t->seen[t->next % WINDOW_MAX / 64] &= ~(UINT64_C(1) << t->next % 64);
    } else if (t->next - seq > WINDOW_MAX || (t->seen[seq % WINDOW_MAX / 64] >> seq % 64 & 1) != 0) {
        duplicated++;
        return NULL;
    } else {
        reordered++;
    }
    t->seen[seq % WINDOW_MAX / 64] |= UINT64_C(1) << seq % 64;
    t->received++;
    delivered++;
    if (measuring)
        record_latency(opt.scenario == DRAIN ? now - subscribed_at : now > stamp ? now - stamp : 0);
    return opt.scenario == DRAIN ? &s->bundle : &publishers[number].slots[seq % opt.window];
}

static void on_publish(struct conn *c, unsigned flags, const uint8_t *body, size_t len)
{
    unsigned qos = flags >> 1 & 3;
    if (silent() || c->number < n_publishers)
        die("%s got a message without a subscription", who(c));
    size_t topic_len = len >= 2 ? (size_t)body[0] << 8 | body[1] : SIZE_MAX;
    size_t id_len = qos > 0 ? 2 : 0;
    if (qos == 3 || topic_len > len - 2 || len - 2 - topic_len < id_len)
        die("%s got a malformed PUBLISH", who(c));
    const uint8_t *rest = body + 2 + topic_len;
    struct subscriber *s = &subscribers[c->number - n_publishers];
    struct slot *slot = check_message(s, body + 2, topic_len, flags, rest + id_len, len - 2 - topic_len - id_len);
    size_t id = qos > 0 ? (size_t)rest[0] << 8 | rest[1] : 0;
    if (qos > 0)
        send_reply(c, qos == 1 ? PUBACK : PUBREC, id);
    if (slot != NULL && qos == 2)
        s->releases[id] = slot;
    else if (slot != NULL)
        tick_off(slot);
}

static void on_release(struct conn *c, size_t id)
{
    if (opt.qos != 2 || c->number < n_publishers)
        die("%s got a PUBREL that was not due", who(c));
    struct slot **slot = &subscribers[c->number - n_publishers].releases[id];
    send_reply(c, PUBCOMP, id);
    if (*slot != NULL)
        tick_off(*slot);
    *slot = NULL;
}

void on_packet(struct conn *c, uint8_t first, const uint8_t *body, size_t len)
{
    unsigned type = first >> 4;
    switch (type) {
    case PUBLISH:
        on_publish(c, first & 15, body, len);
        return;
    case PUBACK:
    case PUBREC:
    case PUBCOMP:
        if (len != 2)
            die("%s got an acknowledgement of %zu bytes", who(c), len);
        on_reply(c, type, (size_t)body[0] << 8 | body[1]);
        return;
    case PUBREL:
        if (len != 2)
            die("%s got a PUBREL of %zu bytes", who(c), len);
        on_release(c, (size_t)body[0] << 8 | body[1]);
        return;
    case CONNACK:
        if (len != 2 || c->stage != GREETED)
            die("%s got a CONNACK that was not due", who(c));
        if (body[1] != 0)
            die("the broker refused %s: CONNACK return code %u", who(c), body[1]);
        if (opt.scenario <= DRAIN && c->number >= n_publishers && !resumed) {  /* the others subscribe later, and are measured */
            unsigned number = c->number - n_publishers;
            send_subscribe(c, opt.scenario == FAN_IN || opt.scenario == DRAIN
                                  ? opt.filter
                                  : publishers[one_topic() ? 0 : number].topic);
            return;
        }
        break;
    case SUBACK:
        if (opt.scenario == WILDCARD && c->stage == UP && c->number >= n_publishers) {
            on_filters_granted(c, body, len);
            return;
        }
        if (len != 3 || c->stage != SUBSCRIBING)
            die("%s got a SUBACK that was not due", who(c));
        if (body[2] != opt.qos)
            die("the broker answered the subscription of %s with 0x%02x, not with QoS %u", who(c), body[2], opt.qos);
        if (opt.scenario == RETAINED) {
            c->stage = UP;
            tick_off(&subscribers[c->number - n_publishers].bundle);
            return;
        }
        break;
    default:
        die("%s got a packet of type %u", who(c), type);
    }
    c->stage = UP;
    opening--;
    up++;
}

/* --- The loop --------------------------------------------------------------------------------------------------- */

/* SPARSE: when its next message is due, monotonic ns; 0: never. */
static uint64_t next_due(void)
{
    return paced < paced_end ? paced_from + paced * UINT64_C(1000000000) / ((uint64_t)n_publishers * opt.rate) : 0;
}

/* SPARSE: the messages that are due by now may be sent, one publisher after the other. */
static void pace(void)
{
    for (uint64_t due; (due = next_due()) != 0 && due <= now; paced++) {
        struct publisher *p = &publishers[paced % n_publishers];
        p->target++;
        queue_refill(p);
    }
}

/* Waits for something to happen, or for the moment of the next message. */
static int await(struct epoll_event *events)
{
    uint64_t due = next_due(), wait = WAIT_MS * UINT64_C(1000000);
    if (due != 0 && due < now + wait)
        wait = due > now ? due - now : 0;
    return epoll_pwait2(epoll_fd, events, EVENTS_MAX, &(struct timespec){.tv_nsec = (long)wait}, NULL);
}

/* Publishes what the windows allow, writes everything out, waits for something to happen and reads it. */
static void turn(void)
{
    pace();
    for (unsigned i = 0; i < refill_count; i++)
        refill(refill_list[i]);
    refill_count = 0;
    flush_all();

    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(epoll_fd, events, EVENTS_MAX, 0);
    now = clock_ns(CLOCK_MONOTONIC);
    if (n == 0) {  /* only here does it wait for the broker */
        uint64_t before = now;
        n = await(events);
        now = clock_ns(CLOCK_MONOTONIC);
        waited += now - before;
    }
    if (n < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    turns++;
    for (int i = 0; i < n; i++)
        conn_event(events[i].data.ptr, events[i].events);
    if ((double)(now - started) > opt.deadline * 1e9)
        die("not finished after %.0f seconds", opt.deadline);
}

static bool stalled(void)
{
    return now - last_progress > opt.stall * UINT64_C(1000000000);
}

static void connect_until(unsigned count)
{
    static unsigned begun;
    last_progress = now = clock_ns(CLOCK_MONOTONIC);
    while (up < count) {
        for (; begun < count && opening < (opt.scenario == STORM ? STORM_AT_ONCE : CONNECTS_AT_ONCE); opening++)
            conn_open(&conns[begun++]);
        turn();
        if (stalled())
            die("the broker left %u connections without an answer for %u seconds", opening, opt.stall);
    }
}

/* Each publisher sends `each` messages, fewer when `seconds` are over. Returns when all is delivered and acknowledged,
 * or when nothing more comes; the time of the last event is in `last_progress`. */
static void phase(uint64_t each, double seconds)
{
    last_progress = now = clock_ns(CLOCK_MONOTONIC);
    uint64_t end = now + (uint64_t)(seconds * 1e9);
    if (opt.scenario == SPARSE) {
        paced_from = now, paced = 0, paced_end = each * n_publishers;
    } else {
        for (unsigned i = 0; i < n_publishers; i++) {
            publishers[i].target += each;
            queue_refill(&publishers[i]);
        }
    }
    unsent += each * n_publishers;
    while (unsent + open_slots > 0 && !stalled()) {
        turn();
        if (unsent > 0 && now > end) {
            for (unsigned i = 0; i < n_publishers; i++)
                publishers[i].target = publishers[i].sent;
            unsent = 0;
            paced = paced_end;
        }
    }
    flush_all();  /* the subscribers' last acknowledgements */
}

/* Every subscriber of the wildcard run asks for its filters. Returns when all are granted. */
static void subscribe_all(void)
{
    last_progress = now = clock_ns(CLOCK_MONOTONIC);
    open_filters = (uint64_t)n_subscribers * shared_out;
    for (unsigned i = 0; i < n_subscribers; i++)
        send_filters(&subscribers[i]);
    while (open_filters > 0) {
        turn();
        if (stalled())
            die("the broker left %" PRIu64 " filters without an answer for %u seconds", open_filters, opt.stall);
    }
}

/* Subscribers `from` to `to` ask, one after the other, and get all that is retained. No one more asks after `seconds`
 * or when something is missing. Returns how many had their turn. */
static unsigned collect(unsigned from, unsigned to, double seconds)
{
    uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
    unsigned i = from;
    for (; i < to && open_slots == 0 && (i == from || now < end); i++) {
        struct subscriber *s = &subscribers[i];
        last_progress = now = subscribed_at = clock_ns(CLOCK_MONOTONIC);
        s->count = n_publishers;
        s->bundle = (struct slot){.owner = &publishers[0], .waiting = n_publishers * shared_out + 1};  /* and SUBACK */
        open_slots = 1;
        send_subscribe(s->conn, retained_filter);
        while (open_slots > 0 && !stalled())
            turn();
    }
    flush_all();
    return i - from;
}

static const uint8_t disconnect[] = {0xE0, 0};

/* The subscriber of the drain run goes away in order. */
static void leave(struct conn *c)
{
    flush_all();
    (void)transmit(c, disconnect, sizeof disconnect);
    conn_close(c);
    up--;
}

/* It comes back, and gets its queue of `count` messages. */
static void drain(struct subscriber *s, uint64_t count)
{
    last_progress = now = subscribed_at = clock_ns(CLOCK_MONOTONIC);
    s->bundle = (struct slot){.owner = &publishers[0], .waiting = (unsigned)count};
    open_slots = 1;
    resumed = true;
    conn_open(s->conn);
    opening++;
    while (open_slots > 0 && !stalled())
        turn();
    flush_all();
}

static void disconnect_all(void)
{
    for (unsigned i = 0; i < n_conns; i++) {
        struct conn *c = &conns[i];
        if (c->stage == UP && c->used == c->sent)
            (void)transmit(c, disconnect, sizeof disconnect);
        conn_free(c);
    }
}

/* --- The run ---------------------------------------------------------------------------------------------------- */

static _Noreturn void usage(const char *problem)
{
    fprintf(stderr,
            "load: %s\n"
            "usage: load --port PORT [--broker PID]\n"
            "            [--scenario fan-in|fan-out|broadcast|pairs|sparse|kept|drain|wildcard|retained|storm|idle]\n"
            "            [--publishers N] [--rate N] [--filters N] [--retained N]\n"
            "            [--subscribers N] [--clients N] [--base N] [--qos 0|1|2] [--payload BYTES] [--window N]\n"
            "            [--messages DELIVERIES] [--seconds S] [--deadline S] [--stall S] [--topic T] [--filter F]\n"
            "            [--ca FILE [--cert FILE --key FILE]] [--host NAME] [--ciphersuites LIST]\n",
            problem);
    exit(2);
}

static unsigned long long number(const char *text, const char *name, unsigned long long least, unsigned long long most)
{
    char *end, problem[128];
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < least || value > most) {
        snprintf(problem, sizeof problem, "--%s must be a number from %llu to %llu", name, least, most);
        usage(problem);
    }
    return value;
}

static void parse_options(int argc, char **argv)
{
    enum { SCENARIO, PORT, BROKER, PUBLISHERS, SUBSCRIBERS, CLIENTS, BASE, QOS, PAYLOAD, WINDOW, MESSAGES, SECONDS,
           RATE, DEADLINE, STALL, TOPIC, FILTER, CA, CERT, KEY, HOST, CIPHERSUITES, FILTERS, RETAIN, COUNT };
    static const char *const names[COUNT] = {
        "scenario", "port", "broker", "publishers", "subscribers", "clients", "base", "qos", "payload", "window",
        "messages", "seconds", "rate", "deadline", "stall", "topic", "filter", "ca", "cert", "key", "host", "ciphersuites",
        "filters", "retained"};
    struct option options[COUNT + 1] = {{0}};
    for (int i = 0; i < COUNT; i++)
        options[i] = (struct option){.name = names[i], .has_arg = required_argument};
    int which, scenario;
    for (int found; (found = getopt_long(argc, argv, "", options, &which)) != -1;) {
        if (found != 0)
            usage("unknown option, or its value is missing");
        const char *name = names[which];
        switch (which) {
        case SCENARIO:
            for (scenario = FAN_IN; scenario <= IDLE && strcmp(optarg, scenario_names[scenario]) != 0; scenario++)
                ;
            if (scenario > IDLE)
                usage("no such scenario");
            opt.scenario = (enum scenario)scenario;
            break;
        case PORT: wire.port = (unsigned)number(optarg, name, 1, 65535); break;
        case BROKER: opt.broker = (pid_t)number(optarg, name, 1, INT32_MAX); break;
        case PUBLISHERS: opt.publishers = (unsigned)number(optarg, name, 1, CLIENTS_MAX / 2); break;
        case SUBSCRIBERS: opt.subscribers = (unsigned)number(optarg, name, 1, CLIENTS_MAX / 2); break;
        case CLIENTS: opt.clients = (unsigned)number(optarg, name, 1, CLIENTS_MAX); break;
        case BASE: opt.base = (unsigned)number(optarg, name, 0, CLIENTS_MAX); break;
        case QOS: opt.qos = (unsigned)number(optarg, name, 0, 2); break;
        case PAYLOAD: opt.payload = (size_t)number(optarg, name, PAYLOAD_MIN, PAYLOAD_MAX); break;
        case WINDOW: opt.window = (unsigned)number(optarg, name, 1, WINDOW_MAX); break;
        case MESSAGES: opt.messages = number(optarg, name, 1, 1000000000); break;
        case SECONDS: opt.seconds = (double)number(optarg, name, 1, DEADLINE_MAX_S); break;
        case RATE: opt.rate = (unsigned)number(optarg, name, 1, RATE_MAX); break;
        case DEADLINE: opt.deadline = (double)number(optarg, name, 1, DEADLINE_MAX_S); break;
        case STALL: opt.stall = (unsigned)number(optarg, name, 1, DEADLINE_MAX_S); break;
        case TOPIC: opt.topic = optarg; break;
        case FILTER: opt.filter = optarg; break;
        case CA: wire.ca = optarg; break;
        case CERT: wire.cert = optarg; break;
        case KEY: wire.key = optarg; break;
        case HOST: wire.host = optarg; break;
        case CIPHERSUITES: wire.ciphersuites = optarg; break;
        case FILTERS: opt.filters = (unsigned)number(optarg, name, 1, FILTERS_MAX); break;
        case RETAIN: opt.retained = (unsigned)number(optarg, name, 1, FILTERS_MAX); break;
        default: usage("unknown option");
        }
    }
    if (optind < argc)
        usage("there are no arguments but options");
    if (wire.port == 0)
        usage("--port is missing");
    if ((wire.cert == NULL) != (wire.key == NULL) || (wire.ca == NULL && wire.cert != NULL))
        usage("--cert and --key belong together, and to --ca");
    if (!WITH_TLS && tls_wanted())
        usage("built without TLS: install libssl-dev and build again");
    if (strlen(opt.filter) > TOPIC_MAX || opt.filter[0] == '\0')
        usage("the filter is too long or empty");
    if (tls_wanted() && (opt.scenario == WILDCARD || opt.scenario == RETAINED))
        usage("wildcard and retained run without TLS: their topics are for those who may publish everywhere");
    if ((opt.scenario == KEPT || opt.scenario == DRAIN) && opt.qos == 0)
        usage("kept and drain need --qos 1 or 2: nothing of QoS 0 is kept");
    if (silent() && opt.base >= opt.clients)
        usage("--base must be below --clients");
}

static void prepare(void)
{
    switch (opt.scenario) {
    case FAN_IN: n_publishers = opt.publishers, n_subscribers = 1; break;
    case FAN_OUT: n_publishers = opt.publishers, n_subscribers = opt.subscribers; break;
    case BROADCAST: n_publishers = 1, n_subscribers = opt.subscribers; break;
    case PAIRS: case SPARSE: case KEPT: n_publishers = n_subscribers = opt.publishers; break;
    case DRAIN: n_publishers = opt.publishers, n_subscribers = 1; break;
    case WILDCARD:
        n_publishers = n_subscribers = opt.publishers < opt.filters ? opt.publishers : opt.filters;
        shared_out = opt.filters / n_publishers + (opt.filters % n_publishers != 0);
        break;
    case RETAINED:  /* the first subscriber warms up */
        n_publishers = opt.publishers < opt.retained ? opt.publishers : opt.retained;
        shared_out = opt.retained / n_publishers + (opt.retained % n_publishers != 0);
        n_subscribers = 1 + (unsigned)(opt.messages / opt.retained < SUBSCRIBERS_MAX ? opt.messages / opt.retained
                                                                                      : SUBSCRIBERS_MAX);
        n_subscribers += n_subscribers == 1;
        break;
    case STORM: case IDLE: break;
    }
    publish_qos = opt.scenario == RETAINED && opt.qos == 0 ? 1 : opt.qos;  /* to know when it is there */
    n_conns = silent() ? opt.clients : n_publishers + n_subscribers;

    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        die("getrlimit: %s", strerror(errno));
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_max < n_conns + 16)
        die("%u connections need a higher limit of open files (ulimit -n %u)", n_conns, n_conns + 16);

    while (run_id == 0)
        if (getrandom(&run_id, sizeof run_id, 0) != sizeof run_id)
            die("getrandom: %s", strerror(errno));
    filler = allocate(1, PAYLOAD_MAX);
    for (size_t i = 0; i < PAYLOAD_MAX; i++)
        filler[i] = (uint8_t)(i * 31 + 7);
    conns = allocate(n_conns, sizeof *conns);
    refill_list = allocate(n_publishers + 1, sizeof *refill_list);
    publishers = allocate(n_publishers + 1, sizeof *publishers);
    subscribers = allocate(n_subscribers + 1, sizeof *subscribers);
    for (unsigned i = 0; i < n_conns; i++)
        conns[i].number = i;
    for (unsigned i = 0; i < n_publishers; i++) {
        publishers[i].conn = &conns[i];
        publishers[i].slots = allocate(opt.window, sizeof *publishers[i].slots);
        for (unsigned k = 0; k < opt.window; k++)
            publishers[i].slots[k].owner = &publishers[i];
        prepare_publisher(&publishers[i], i);
    }
    for (unsigned i = 0; i < n_subscribers; i++) {
        struct subscriber *s = &subscribers[i];
        s->conn = &conns[n_publishers + i];
        switch (opt.scenario) {
        case FAN_IN: case FAN_OUT: case BROADCAST: case DRAIN: s->count = n_publishers; break;
        case RETAINED: break;  /* has not asked yet */
        default: s->first = i, s->count = 1; break;
        }
        s->trackers = allocate(opt.scenario == RETAINED ? n_publishers : s->count, sizeof *s->trackers);
        s->seen = opt.scenario == RETAINED ? allocate(n_publishers * shared_out / 64 + 1, sizeof *s->seen) : NULL;
        s->releases = opt.qos == 2 ? allocate(65536, sizeof *s->releases) : NULL;
    }
    wire.lean = silent();
    wire_begin(n_conns);
}

static void release(void)
{
    for (unsigned i = 0; i < n_publishers; i++) {
        free(publishers[i].packet);
        free(publishers[i].topics);
        free(publishers[i].slots);
    }
    for (unsigned i = 0; i < n_subscribers; i++) {
        free(subscribers[i].trackers);
        free(subscribers[i].seen);
        free(subscribers[i].releases);
    }
    free(publishers);
    free(subscribers);
    free(refill_list);
    free(conns);
    free(filler);
    wire_end();
}

static uint64_t count_sent(void)
{
    uint64_t sent = 0;
    for (unsigned i = 0; i < n_publishers; i++)
        sent += publishers[i].sent;
    return sent;
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    alarm((unsigned)opt.deadline + 5);
    signal(SIGPIPE, SIG_IGN);
    prepare();
    started = now = clock_ns(CLOCK_MONOTONIC);

    /* Connect. An idle run, and a storm, leave out the first `base` clients: what is allocated once is not a connection's. */
    uint64_t rss_start = broker_rss();
    unsigned base = silent() ? opt.base : 0;
    connect_until(base);
    settle();
    uint64_t rss_base = broker_rss(), connect_from = broker_cpu(), connect_at = clock_ns(CLOCK_MONOTONIC);
    waited = 0;
    connect_until(n_conns);
    double connect_seconds = (double)(now - connect_at) / 1e9, connect_waiting = (double)waited / 1e9 / connect_seconds;
    settle();
    double connect_us = (double)(broker_cpu() - connect_from) / 1e3 / (n_conns - base);
    uint64_t rss_connected = broker_rss();

    double filter_us = 0, filter_bytes = 0, filter_seconds = 0;
    if (opt.scenario == WILDCARD) {
        uint64_t cpu = broker_cpu(), at = clock_ns(CLOCK_MONOTONIC);
        double filters = (double)n_subscribers * shared_out;
        subscribe_all();
        filter_seconds = (double)(now - at) / 1e9;
        settle();
        filter_us = (double)(broker_cpu() - cpu) / 1e3 / filters;
        filter_bytes = ((double)broker_rss() - (double)rss_connected) / filters;
    }

    /* Warm up with a tenth, or with the first subscriber, then measure from rest to rest. */
    struct sample from = {0}, to = {0};
    uint64_t first_delivery = 0, first_sent = 0, begin = 0, end = 0, own_begin = 0, own_end = 0;
    unsigned collected = 0;
    if (!silent()) {
        uint64_t each = opt.scenario == RETAINED ? shared_out
                                                 : opt.messages / ((uint64_t)n_publishers * (audience() > 0 ? audience() : 1));
        each = each > 0 ? each : 1;
        if (opt.scenario == RETAINED) {
            phase(each, opt.deadline);
            settle();
            if (open_slots == 0)
                (void)collect(0, 1, opt.seconds);
        } else if (opt.scenario == DRAIN) {
            leave(subscribers[0].conn);
            phase(each, opt.deadline);
        } else {
            phase(each / 10 + 1, opt.seconds / 10);
        }
        if (open_slots == 0) {
            settle();
            from = take_sample();
            first_delivery = delivered, first_sent = count_sent();
            waited = turns = 0;
            measuring = true;
            begin = clock_ns(CLOCK_MONOTONIC);
            own_begin = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
            if (opt.scenario == RETAINED)
                collected = collect(1, n_subscribers, opt.seconds);
            else if (opt.scenario == DRAIN)
                drain(&subscribers[0], each * n_publishers);
            else
                phase(each, opt.seconds);
            end = last_progress;
            own_end = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
            settle();
            to = take_sample();
        }
    }
    uint64_t rss_end = broker_rss();

    uint64_t lost = 0, sent = count_sent() - first_sent, messages = delivered - first_delivery;
    for (unsigned i = 0; i < n_subscribers; i++)
        for (unsigned k = 0; k < subscribers[i].count; k++)
            lost += publishers[subscribers[i].first + k].sent - subscribers[i].trackers[k].received;
    double wall = end > begin ? (double)(end - begin) / 1e9 : 0;
    double per = messages > 0 ? 1e-3 / (double)messages : 0;  /* ns of the run to microseconds a message */
    double broker_ns = (double)(to.broker_ns - from.broker_ns);
    double ticks = (double)sysconf(_SC_CLK_TCK);
    double user = (double)(to.broker_user - from.broker_user), system = (double)(to.broker_system - from.broker_system);
    double span = (double)(to.at - from.at) / 1e9;
    double others = (double)(to.machine_busy - from.machine_busy) / ticks -
                    (double)(to.broker_ns - from.broker_ns + to.own_ns - from.own_ns) / 1e9;

    printf("{\"scenario\":\"%s\",\"qos\":%u,\"payload\":%zu,\"window\":%u,\"publishers\":%u,\"subscribers\":%u,"
           "\"connections\":%u,\"tls\":",
           scenario_names[opt.scenario], opt.qos, opt.payload, opt.window, n_publishers, n_subscribers, n_conns);
    printf(tls_wanted() ? "\"%s\"" : "null", tls_name);
    printf(",\"sent\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"duplicated\":%" PRIu64
           ",\"reordered\":%" PRIu64 ",\"damaged\":%" PRIu64 ",\"unacknowledged\":%" PRIu64,
           sent, messages, lost, duplicated, reordered, damaged, open_slots);
    printf(",\"seconds\":%.6f,\"per_second\":%.1f,\"latency_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f}", wall,
           wall > 0 ? (double)messages / wall : 0, latency_us(0.5), latency_us(0.99), (double)latency_max / 1e3);
    printf(",\"broker\":{\"cpu_us\":%.4f,\"busy\":%.4f,\"kernel_share\":%.3f,\"rss_start\":%" PRIu64
           ",\"rss_base\":%" PRIu64 ",\"rss_connected\":%" PRIu64 ",\"rss_end\":%" PRIu64
           ",\"connect_us\":%.2f,\"connect_bytes\":%.0f}",
           broker_ns * per, wall > 0 ? broker_ns / 1e9 / wall : 0, user + system > 0 ? system / (user + system) : 0,
           rss_start, rss_base, rss_connected, rss_end, connect_us,
           ((double)rss_connected - (double)rss_base) / (n_conns - base));
    if (opt.scenario == WILDCARD)
        printf(",\"filters\":{\"count\":%" PRIu64 ",\"subscribe_us\":%.4f,\"bytes\":%.1f,\"seconds\":%.4f}",
               (uint64_t)n_subscribers * shared_out, filter_us, filter_bytes, filter_seconds);
    if (opt.scenario == RETAINED)
        printf(",\"retained\":{\"count\":%" PRIu64 ",\"subscribers\":%u,\"all_ms\":%.3f}",
               (uint64_t)n_publishers * shared_out, collected, collected > 0 ? wall * 1e3 / collected : 0);
    if (opt.scenario == DRAIN)
        printf(",\"queue\":{\"count\":%" PRIu64 ",\"all_ms\":%.3f}", messages, wall * 1e3);
    printf(",\"counted\":%u", n_conns - base);
    printf(",\"generator\":{\"cpu_us\":%.4f,\"waiting\":%.4f,\"turns\":%" PRIu64
           ",\"connect_seconds\":%.4f,\"connect_waiting\":%.4f}",
           (double)(own_end - own_begin) * per, wall > 0 ? (double)waited / 1e9 / wall : 0, turns, connect_seconds,
           connect_waiting);
    printf(",\"machine\":{\"others\":%.4f,\"steal\":%.4f}}\n", span > 0 ? (others > 0 ? others / span : 0) : 0,
           span > 0 ? (double)(to.machine_steal - from.machine_steal) / ticks / span : 0);

    disconnect_all();
    release();
    return fflush(stdout) == 0 ? 0 : 1;
}
