/* packet.h: one MQTT control packet between bytes and fields, both ways, for MQTT 3.1, 3.1.1 and 5.0.
 *
 * The rule it keeps: pure functions over spans. Decoding copies nothing and allocates nothing: every span in a decoded
 * packet is borrowed from the chunk that was decoded and lives as long as that. What depends on a session
 * (a second CONNECT, an unknown packet identifier) is not judged here; everything that one packet alone can
 * break (reserved bits, UTF-8, lengths, property tables) is.
 */
#ifndef PEANUT_PACKET_H
#define PEANUT_PACKET_H

#include "buf.h"
#include "mqtt.h"

/* The properties of a packet or of a will, checked but left in wire form. */
typedef struct pn_props {
    pn_span raw;      /* without the length in front */
    uint64_t present; /* bit `id` is set when property `id` occurs */
} pn_props;

/* One property as the iterator hands it out. */
typedef struct pn_prop {
    uint8_t id;
    uint32_t num;  /* PN_BYTE, PN_TWO, PN_FOUR, PN_VARINT */
    pn_span value; /* PN_BINARY, PN_STRING; the value of a PN_PAIR */
    pn_span key;   /* the name of a PN_PAIR */
    pn_span wire;  /* identifier and value as they stand on the wire */
} pn_prop;

/* A packet with its fields; those that its type does not have are zero. */
typedef struct pn_packet {
    uint8_t type;    /* enum pn_type */
    uint8_t version; /* CONNECT: the level it asks for */
    uint8_t qos;     /* PUBLISH */
    bool dup, retain;
    uint8_t reason;       /* CONNACK (v4: its return code), PUBACK … PUBCOMP, DISCONNECT, AUTH */
    bool session_present; /* CONNACK */
    bool clean_start;     /* CONNECT; "clean session" before 5.0 */
    bool has_will, has_username, has_password;
    uint8_t will_qos;
    bool will_retain;
    uint16_t id; /* packet identifier; 0 where there is none */
    uint16_t keep_alive;
    pn_span topic;   /* PUBLISH */
    pn_span payload; /* PUBLISH; SUBACK and UNSUBACK: the reason codes, a byte each */
    pn_span filters; /* SUBSCRIBE and UNSUBSCRIBE: checked, read with pn_filter_next */
    pn_props props;
    pn_span client_id, username, password; /* CONNECT */
    pn_span will_topic, will_payload;
    pn_props will_props;
} pn_packet;

/* Reads one packet from the head of `data`. `version` is the connection's, or 0 before CONNECT: then the packet must be a CONNECT,
 * and its own level decides. `max_size` bounds the whole packet in bytes.
 * Returns the bytes consumed, 0 when more are needed, or minus a reason code:
 * a fixed header that is wrong is refused as soon as it is there, a body when it is complete. `out` is valid only
 * when the result is positive. Touches no byte at or behind data + n. Linear in n. */
int64_t pn_packet_decode(const uint8_t *data, size_t n, uint8_t version, uint32_t max_size, pn_packet *out);

/* The size of the packet at the head of `data` as its fixed header says, without judging type, flags or body;
 * 0 when the header is not complete, minus PN_MALFORMED_PACKET when the remaining length has a fifth byte. */
int64_t pn_packet_size(const uint8_t *data, size_t n);

/* Writes `p` in the shortest form (5.0 §3.4.2.1 lets reason and properties go where they say nothing). Returns the
 * bytes written, or, when `cap` is too small (0 is fine, `out` may be NULL then), the bytes needed: compare with cap.
 * Minus PN_PACKET_TOO_LARGE when it cannot be expressed (a string over 65,535 bytes, remaining length over its maximum),
 * minus PN_PROTOCOL_ERROR when a field is outside its range. Strings and properties are trusted to be valid; filters are
 * judged as in decoding. `version` decides, p->version is not read. What a version does not have is not written:
 * before 5.0 no properties, and no reason codes but those of CONNACK and SUBACK. */
int64_t pn_packet_encode(const pn_packet *p, uint8_t version, uint8_t *out, size_t cap);

/* A PUBACK, PUBREC, PUBREL or PUBCOMP that says success, for `id` other than 0, in its shortest form, which is the same in every version (5.0 §3.4.2.1).
 * Writes PN_ACK_SIZE bytes and returns that. */
#define PN_ACK_SIZE 4
int64_t pn_ack_put(uint8_t *out, uint8_t type, uint16_t id);

/* Subscriptions of a SUBSCRIBE, or filters of an UNSUBSCRIBE, in order: start with *at = 0; false at the end. */
typedef struct pn_filter {
    pn_span filter;
    uint8_t qos;
    bool no_local, retain_as_published;
    uint8_t retain_handling;
} pn_filter;
bool pn_filter_next(const pn_packet *p, uint32_t *at, pn_filter *out);

/* Properties in order: start with *at = 0; false at the end. */
bool pn_prop_next(const pn_props *props, uint32_t *at, pn_prop *out);

/* The first property `id`, or false. */
bool pn_prop_find(const pn_props *props, uint8_t id, pn_prop *out);

/* The numeric property `id`, or `otherwise` when it is absent. */
uint32_t pn_prop_num(const pn_props *props, uint8_t id, uint32_t otherwise);

static inline bool pn_prop_has(const pn_props *props, uint8_t id) { return (props->present >> id) & 1u; }

/* Appends one property in wire form to `at` (room for pn_prop_size is the caller's); returns the end. Trusts: `id` exists,
 * `key` and `value` have at most PN_STRING_MAX bytes, `num` fits the form. */
size_t pn_prop_size(uint8_t id, pn_span key, pn_span value, uint32_t num);
uint8_t *pn_prop_put(uint8_t *at, uint8_t id, pn_span key, pn_span value, uint32_t num);

/* The wire form of property `id` (enum pn_form), PN_NONE when there is no such property. */
uint8_t pn_prop_form(uint8_t id);

/* The standard's name of a property in snake_case ("session_expiry_interval"), NULL when there is none; and of a packet type ("CONNECT"). */
const char *pn_prop_name(uint8_t id);
const char *pn_type_name(uint8_t type);

/* The standard's name of a reason code in snake_case ("malformed_packet"; 0 is "success"), NULL when there is none. */
const char *pn_reason_name(uint8_t code);

/* Variable byte integers (5.0 §1.5.5). put: 1 to 4 bytes, returns the end. get: bytes read, 0 need more, < 0 minus a reason code;
 * a longer form than needed is malformed (MQTT-1.5.5-1). */
uint8_t *pn_varint_put(uint8_t *at, uint32_t value);
int pn_varint_get(const uint8_t *p, size_t n, uint32_t *value);
static inline uint32_t pn_varint_len(uint32_t v) { return v < 128u ? 1 : v < 16384u ? 2 : v < 2097152u ? 3 : 4; }

/* Well-formed UTF-8 without U+0000 and without surrogates (MQTT-1.5.4-1, MQTT-1.5.4-2). */
bool pn_utf8_valid(const uint8_t *p, size_t n);

#endif
