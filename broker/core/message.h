/* message.h: an application message: borrowed while it is routed, shared once somebody has to keep it.
 *
 * The rule it keeps: a message is immutable and counted, the only thing in the core that is. A publication that nobody has to keep
 * (QoS 0, not retained) never becomes one.
 */
#ifndef PEANUT_MESSAGE_H
#define PEANUT_MESSAGE_H

#include "packet.h"

#define PN_NEVER INT64_MAX

/* A message kept by sessions, the retained store or a will. */
typedef struct pn_message {
    uint32_t refs;
    uint16_t topic_n;
    uint8_t qos; /* as published */
    bool retain;
    uint32_t payload_n, props_n;
    uint64_t retained; /* its number in the retained store, where it is in there: those that came later have larger ones */
    int64_t expires; /* milliseconds of the broker's clock, PN_NEVER without Message Expiry Interval; a will's is set when it is published */
    uint64_t kept;   /* the number of its record, 0: none (records.h); the record goes when the message does */
    struct pn_journal *journal; /* borrowed: the one that has the record */
    uint8_t data[]; /* topic, payload, properties */
} pn_message;

static inline pn_span pn_message_topic(const pn_message *m) { return (pn_span){m->data, m->topic_n}; }
static inline pn_span pn_message_payload(const pn_message *m) { return (pn_span){m->data + m->topic_n, m->payload_n}; }
static inline pn_span pn_message_props(const pn_message *m) { return (pn_span){m->data + m->topic_n + m->payload_n, m->props_n}; }

/* A message on its way. The spans are borrowed for the time of the call that gets it. */
typedef struct pn_pub {
    pn_span topic, payload;
    pn_span props; /* what is forwarded unaltered: no topic alias, no expiry, no subscription identifier (5.0 §3.3.2.3) */
    uint8_t qos;
    bool retain;
    int64_t expires;
    pn_message *shared; /* borrowed or owned as the maker says; see pn_pub_share */
    uint32_t plain_sent; /* session.c: deliveries in the plainest form so far, */
    pn_span plain[2];    /* and that form's bytes, before 5.0 and in 5.0, once a second one asks for them */
} pn_pub;

/* A new message with one reference, the caller's; NULL without memory, and for a topic that is too long to be one. */
pn_message *pn_message_new(const pn_pub *pub);
pn_message *pn_message_ref(pn_message *m);
void pn_message_drop(pn_message *m); /* NULL is fine */

/* The same message as a publication; borrows from `m`. */
pn_pub pn_message_pub(pn_message *m);

/* A reference to the one shared message of this publication, made when first asked for and then held in pub->shared too:
 * whoever made the pn_pub drops that one at the end. NULL without memory. */
pn_message *pn_pub_share(pn_pub *pub);

/* Bytes that keeping it costs, for queue limits. */
static inline uint32_t pn_message_bytes(const pn_message *m) { return m->topic_n + m->payload_n + m->props_n; }
static inline uint32_t pn_pub_bytes(const pn_pub *pub) { return pub->topic.n + pub->payload.n + pub->props.n; }

/* How a publication goes to one client. The fields below `id` say something to 5.0 only. */
typedef struct pn_send {
    uint32_t max_packet;
    uint8_t version, qos;
    bool retain, dup;
    uint16_t id;        /* packet identifier, with QoS 1 and 2 */
    uint16_t alias;     /* Topic Alias, 0: none */
    bool alias_known;   /* the client has been told its topic: it goes without (5.0 §3.3.2.3.4) */
    uint32_t id_count;
    const uint32_t *ids; /* Subscription Identifiers (MQTT-3.3.4-3 to -5), borrowed */
} pn_send;

/* Appends a PUBLISH packet to `out`. The remaining Message Expiry Interval is counted from `now` (MQTT-3.3.2-6).
 * Returns the bytes appended, 0 when it would exceed `max_packet` (MQTT-3.1.2-25: it is then dropped), -1 without memory. */
int64_t pn_pub_encode(const pn_pub *pub, pn_buf *out, const pn_send *form, int64_t now);

#endif
