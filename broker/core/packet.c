/* packet.c: the work of packet.h: two tables of the standard's facts, and small functions that walk them.
 *
 * The rule it keeps: what differs between packet types or properties stands in `packet_rules` and `property_rules`; code
 * that branches on a type number is a mistake. A `reader` never goes behind its end, a `writer` counts before it writes.
 * Functions that return int return 0 or minus a reason code.
 */
#include "packet.h"

#define TRY(call)                          \
    do {                                   \
        int error_ = (call);               \
        if (error_) return error_;         \
    } while (0)

typedef struct reader {
    const uint8_t *p, *end; /* borrowed; p <= end */
} reader;

typedef struct writer {
    uint8_t *p;   /* borrowed; NULL: count only */
    uint64_t n;   /* bytes written or counted so far */
    int error;    /* minus the reason code of the first thing that cannot be expressed */
} writer;

/* ---- the tables ------------------------------------------------------------------------------------------------ */

/* A set of reason codes: those below 0x40 and those from 0x80 to 0xBF; the standard has no others. */
typedef struct code_set {
    uint64_t good, bad;
} code_set;

#define G(code) (UINT64_C(1) << (code))
#define F(code) (UINT64_C(1) << ((code) - 0x80))

typedef struct packet_rule {
    const char *name;
    uint8_t flags;                                 /* what the low half of the first byte must be; PUBLISH has its own */
    uint8_t since;                                 /* lowest protocol level that has this type */
    uint64_t props, repeat;                        /* properties allowed, properties allowed more than once */
    code_set codes_v4, codes_v5;                   /* reason codes before 5.0 and in 5.0 */
    int (*read)(reader *r, pn_packet *out);        /* variable header and payload; type, version and flags are set */
    void (*write)(writer *w, const pn_packet *p, uint8_t version);
} packet_rule;

static int read_connect(reader *, pn_packet *), read_connack(reader *, pn_packet *), read_publish(reader *, pn_packet *);
static int read_ack(reader *, pn_packet *), read_subscribe(reader *, pn_packet *), read_suback(reader *, pn_packet *);
static int read_unsuback(reader *, pn_packet *), read_ping(reader *, pn_packet *), read_disconnect(reader *, pn_packet *);
static int read_auth(reader *, pn_packet *);
static void write_connect(writer *, const pn_packet *, uint8_t), write_connack(writer *, const pn_packet *, uint8_t);
static void write_publish(writer *, const pn_packet *, uint8_t), write_ack(writer *, const pn_packet *, uint8_t);
static void write_subscribe(writer *, const pn_packet *, uint8_t), write_suback(writer *, const pn_packet *, uint8_t);
static void write_unsuback(writer *, const pn_packet *, uint8_t), write_ping(writer *, const pn_packet *, uint8_t);
static void write_disconnect(writer *, const pn_packet *, uint8_t);

#define P(property) (UINT64_C(1) << PN_##property)
#define P_ACK (P(REASON_STRING) | P(USER_PROPERTY))
#define P_MESSAGE                                                                                              \
    (P(PAYLOAD_FORMAT_INDICATOR) | P(MESSAGE_EXPIRY_INTERVAL) | P(CONTENT_TYPE) | P(RESPONSE_TOPIC) |           \
     P(CORRELATION_DATA) | P(USER_PROPERTY))
#define P_WILL (P_MESSAGE | P(WILL_DELAY_INTERVAL))
#define P_AUTH (P(AUTHENTICATION_METHOD) | P(AUTHENTICATION_DATA))

#define CODES_PUBACK                                                                                            \
    {G(0x00) | G(0x10), F(0x80) | F(0x83) | F(0x87) | F(0x90) | F(0x91) | F(0x97) | F(0x99)}
#define CODES_PUBREL {G(0x00), F(0x92)}

/* Packet types: 5.0 §2.1.2 and §2.1.3, properties §2.2.2.2, reason codes §3.2.2.2 … §3.15.2.1; 3.1.1 §3.2.2.3, §3.9.3.
 * 0x8C is allowed in DISCONNECT: table 2-6 of §2.4 names it there, although the table of §3.14.2.1 leaves it out. */
static const packet_rule packet_rules[16] = {
    [PN_CONNECT] = {"CONNECT", 0, PN_V31,
        P(SESSION_EXPIRY_INTERVAL) | P_AUTH | P(REQUEST_PROBLEM_INFORMATION) | P(REQUEST_RESPONSE_INFORMATION) |
            P(RECEIVE_MAXIMUM) | P(TOPIC_ALIAS_MAXIMUM) | P(USER_PROPERTY) | P(MAXIMUM_PACKET_SIZE),
        P(USER_PROPERTY), {0, 0}, {0, 0}, read_connect, write_connect},
    [PN_CONNACK] = {"CONNACK", 0, PN_V31,
        P(SESSION_EXPIRY_INTERVAL) | P(ASSIGNED_CLIENT_IDENTIFIER) | P(SERVER_KEEP_ALIVE) | P_AUTH |
            P(RESPONSE_INFORMATION) | P(SERVER_REFERENCE) | P_ACK | P(RECEIVE_MAXIMUM) | P(TOPIC_ALIAS_MAXIMUM) |
            P(MAXIMUM_QOS) | P(RETAIN_AVAILABLE) | P(MAXIMUM_PACKET_SIZE) | P(WILDCARD_SUBSCRIPTION_AVAILABLE) |
            P(SUBSCRIPTION_IDENTIFIER_AVAILABLE) | P(SHARED_SUBSCRIPTION_AVAILABLE),
        P(USER_PROPERTY),
        {G(0) | G(1) | G(2) | G(3) | G(4) | G(5), 0},
        {G(0x00), F(0x80) | F(0x81) | F(0x82) | F(0x83) | F(0x84) | F(0x85) | F(0x86) | F(0x87) | F(0x88) | F(0x89) |
            F(0x8A) | F(0x8C) | F(0x90) | F(0x95) | F(0x97) | F(0x99) | F(0x9A) | F(0x9B) | F(0x9C) | F(0x9D) | F(0x9F)},
        read_connack, write_connack},
    [PN_PUBLISH] = {"PUBLISH", 0, PN_V31, P_MESSAGE | P(SUBSCRIPTION_IDENTIFIER) | P(TOPIC_ALIAS),
        P(USER_PROPERTY) | P(SUBSCRIPTION_IDENTIFIER), {0, 0}, {0, 0}, read_publish, write_publish},
    [PN_PUBACK] = {"PUBACK", 0, PN_V31, P_ACK, P(USER_PROPERTY), {G(0), 0}, CODES_PUBACK, read_ack, write_ack},
    [PN_PUBREC] = {"PUBREC", 0, PN_V31, P_ACK, P(USER_PROPERTY), {G(0), 0}, CODES_PUBACK, read_ack, write_ack},
    [PN_PUBREL] = {"PUBREL", 2, PN_V31, P_ACK, P(USER_PROPERTY), {G(0), 0}, CODES_PUBREL, read_ack, write_ack},
    [PN_PUBCOMP] = {"PUBCOMP", 0, PN_V31, P_ACK, P(USER_PROPERTY), {G(0), 0}, CODES_PUBREL, read_ack, write_ack},
    [PN_SUBSCRIBE] = {"SUBSCRIBE", 2, PN_V31, P(SUBSCRIPTION_IDENTIFIER) | P(USER_PROPERTY), P(USER_PROPERTY),
        {0, 0}, {0, 0}, read_subscribe, write_subscribe},
    [PN_SUBACK] = {"SUBACK", 0, PN_V31, P_ACK, P(USER_PROPERTY), {G(0) | G(1) | G(2), F(0x80)},
        {G(0) | G(1) | G(2), F(0x80) | F(0x83) | F(0x87) | F(0x8F) | F(0x91) | F(0x97) | F(0x9E) | F(0xA1) | F(0xA2)},
        read_suback, write_suback},
    [PN_UNSUBSCRIBE] = {"UNSUBSCRIBE", 2, PN_V31, P(USER_PROPERTY), P(USER_PROPERTY), {0, 0}, {0, 0},
        read_subscribe, write_subscribe},
    [PN_UNSUBACK] = {"UNSUBACK", 0, PN_V31, P_ACK, P(USER_PROPERTY), {0, 0},
        {G(0x00) | G(0x11), F(0x80) | F(0x83) | F(0x87) | F(0x8F) | F(0x91)}, read_unsuback, write_unsuback},
    [PN_PINGREQ] = {"PINGREQ", 0, PN_V31, 0, 0, {0, 0}, {0, 0}, read_ping, write_ping},
    [PN_PINGRESP] = {"PINGRESP", 0, PN_V31, 0, 0, {0, 0}, {0, 0}, read_ping, write_ping},
    [PN_DISCONNECT] = {"DISCONNECT", 0, PN_V31, P(SESSION_EXPIRY_INTERVAL) | P(SERVER_REFERENCE) | P_ACK,
        P(USER_PROPERTY), {G(0), 0},
        {G(0x00) | G(0x04), F(0x80) | F(0x81) | F(0x82) | F(0x83) | F(0x87) | F(0x89) | F(0x8B) | F(0x8C) | F(0x8D) |
            F(0x8E) | F(0x8F) | F(0x90) | F(0x93) | F(0x94) | F(0x95) | F(0x96) | F(0x97) | F(0x98) | F(0x99) |
            F(0x9A) | F(0x9B) | F(0x9C) | F(0x9D) | F(0x9E) | F(0x9F) | F(0xA0) | F(0xA1) | F(0xA2)},
        read_disconnect, write_disconnect},
    [PN_AUTH] = {"AUTH", 0, PN_V5, P_AUTH | P_ACK, P(USER_PROPERTY), {0, 0}, {G(0x00) | G(0x18) | G(0x19), 0},
        read_auth, write_disconnect},
};

/* What a text must be. A name is a topic that messages go to: no wildcard in it (MQTT-4.7.1-1), at least a character. */
enum text_kind { ANY_TEXT, TOPIC_NAME };

typedef struct property_rule {
    const char *name;
    uint8_t form;      /* enum pn_form */
    uint8_t text;      /* enum text_kind, of a PN_STRING */
    uint8_t error;     /* reason code of a number out of range; 0: PN_PROTOCOL_ERROR */
    uint32_t min, max; /* range of a number */
} property_rule;

/* Properties: 5.0 §2.2.2.2 table 2-4; ranges from the clauses of each. */
static const property_rule property_rules[PN_PROPERTY_IDS] = {
    [PN_PAYLOAD_FORMAT_INDICATOR] = {.name = "payload_format_indicator", .form = PN_BYTE, .max = 1},
    [PN_MESSAGE_EXPIRY_INTERVAL] = {.name = "message_expiry_interval", .form = PN_FOUR, .max = UINT32_MAX},
    [PN_CONTENT_TYPE] = {.name = "content_type", .form = PN_STRING},
    [PN_RESPONSE_TOPIC] = {.name = "response_topic", .form = PN_STRING, .text = TOPIC_NAME},
    [PN_CORRELATION_DATA] = {.name = "correlation_data", .form = PN_BINARY},
    [PN_SUBSCRIPTION_IDENTIFIER] = {.name = "subscription_identifier", .form = PN_VARINT, .min = 1, .max = UINT32_MAX},
    [PN_SESSION_EXPIRY_INTERVAL] = {.name = "session_expiry_interval", .form = PN_FOUR, .max = UINT32_MAX},
    [PN_ASSIGNED_CLIENT_IDENTIFIER] = {.name = "assigned_client_identifier", .form = PN_STRING},
    [PN_SERVER_KEEP_ALIVE] = {.name = "server_keep_alive", .form = PN_TWO, .max = UINT16_MAX},
    [PN_AUTHENTICATION_METHOD] = {.name = "authentication_method", .form = PN_STRING},
    [PN_AUTHENTICATION_DATA] = {.name = "authentication_data", .form = PN_BINARY},
    [PN_REQUEST_PROBLEM_INFORMATION] = {.name = "request_problem_information", .form = PN_BYTE, .max = 1},
    [PN_WILL_DELAY_INTERVAL] = {.name = "will_delay_interval", .form = PN_FOUR, .max = UINT32_MAX},
    [PN_REQUEST_RESPONSE_INFORMATION] = {.name = "request_response_information", .form = PN_BYTE, .max = 1},
    [PN_RESPONSE_INFORMATION] = {.name = "response_information", .form = PN_STRING},
    [PN_SERVER_REFERENCE] = {.name = "server_reference", .form = PN_STRING},
    [PN_REASON_STRING] = {.name = "reason_string", .form = PN_STRING},
    [PN_RECEIVE_MAXIMUM] = {.name = "receive_maximum", .form = PN_TWO, .min = 1, .max = UINT16_MAX},
    [PN_TOPIC_ALIAS_MAXIMUM] = {.name = "topic_alias_maximum", .form = PN_TWO, .max = UINT16_MAX},
    [PN_TOPIC_ALIAS] = {.name = "topic_alias", .form = PN_TWO, .min = 1, .max = UINT16_MAX, .error = PN_TOPIC_ALIAS_INVALID},
    [PN_MAXIMUM_QOS] = {.name = "maximum_qos", .form = PN_BYTE, .max = 1},
    [PN_RETAIN_AVAILABLE] = {.name = "retain_available", .form = PN_BYTE, .max = 1},
    [PN_USER_PROPERTY] = {.name = "user_property", .form = PN_PAIR},
    [PN_MAXIMUM_PACKET_SIZE] = {.name = "maximum_packet_size", .form = PN_FOUR, .min = 1, .max = UINT32_MAX},
    [PN_WILDCARD_SUBSCRIPTION_AVAILABLE] = {.name = "wildcard_subscription_available", .form = PN_BYTE, .max = 1},
    [PN_SUBSCRIPTION_IDENTIFIER_AVAILABLE] = {.name = "subscription_identifier_available", .form = PN_BYTE, .max = 1},
    [PN_SHARED_SUBSCRIPTION_AVAILABLE] = {.name = "shared_subscription_available", .form = PN_BYTE, .max = 1},
};

/* Reason codes (5.0 §2.4, table 2-6). 0x00, 0x01 and 0x02 have a name for each packet; the first one stands here. */
static const char *const reason_names[] = {
    [PN_SUCCESS] = "success", [PN_GRANTED_QOS1] = "granted_qos_1", [PN_GRANTED_QOS2] = "granted_qos_2",
    [PN_DISCONNECT_WITH_WILL] = "disconnect_with_will_message",
    [PN_NO_MATCHING_SUBSCRIBERS] = "no_matching_subscribers",
    [PN_NO_SUBSCRIPTION_EXISTED] = "no_subscription_existed",
    [PN_CONTINUE_AUTHENTICATION] = "continue_authentication", [PN_REAUTHENTICATE] = "re_authenticate",
    [PN_UNSPECIFIED_ERROR] = "unspecified_error", [PN_MALFORMED_PACKET] = "malformed_packet",
    [PN_PROTOCOL_ERROR] = "protocol_error", [PN_IMPLEMENTATION_ERROR] = "implementation_specific_error",
    [PN_UNSUPPORTED_VERSION] = "unsupported_protocol_version",
    [PN_CLIENT_ID_NOT_VALID] = "client_identifier_not_valid",
    [PN_BAD_USER_OR_PASSWORD] = "bad_user_name_or_password", [PN_NOT_AUTHORIZED] = "not_authorized",
    [PN_SERVER_UNAVAILABLE] = "server_unavailable", [PN_SERVER_BUSY] = "server_busy", [PN_BANNED] = "banned",
    [PN_SERVER_SHUTTING_DOWN] = "server_shutting_down", [PN_BAD_AUTH_METHOD] = "bad_authentication_method",
    [PN_KEEP_ALIVE_TIMEOUT] = "keep_alive_timeout", [PN_SESSION_TAKEN_OVER] = "session_taken_over",
    [PN_TOPIC_FILTER_INVALID] = "topic_filter_invalid", [PN_TOPIC_NAME_INVALID] = "topic_name_invalid",
    [PN_PACKET_ID_IN_USE] = "packet_identifier_in_use", [PN_PACKET_ID_NOT_FOUND] = "packet_identifier_not_found",
    [PN_RECEIVE_MAXIMUM_EXCEEDED] = "receive_maximum_exceeded", [PN_TOPIC_ALIAS_INVALID] = "topic_alias_invalid",
    [PN_PACKET_TOO_LARGE] = "packet_too_large", [PN_MESSAGE_RATE_TOO_HIGH] = "message_rate_too_high",
    [PN_QUOTA_EXCEEDED] = "quota_exceeded", [PN_ADMINISTRATIVE_ACTION] = "administrative_action",
    [PN_PAYLOAD_FORMAT_INVALID] = "payload_format_invalid", [PN_RETAIN_NOT_SUPPORTED] = "retain_not_supported",
    [PN_QOS_NOT_SUPPORTED] = "qos_not_supported", [PN_USE_ANOTHER_SERVER] = "use_another_server",
    [PN_SERVER_MOVED] = "server_moved", [PN_SHARED_NOT_SUPPORTED] = "shared_subscriptions_not_supported",
    [PN_CONNECTION_RATE_EXCEEDED] = "connection_rate_exceeded", [PN_MAXIMUM_CONNECT_TIME] = "maximum_connect_time",
    [PN_SUBSCRIPTION_IDS_NOT_SUPPORTED] = "subscription_identifiers_not_supported",
    [PN_WILDCARDS_NOT_SUPPORTED] = "wildcard_subscriptions_not_supported",
};

const char *pn_reason_name(uint8_t code) {
    return code < sizeof reason_names / sizeof *reason_names ? reason_names[code] : NULL;
}

const char *pn_type_name(uint8_t type) { return type < PN_TYPES ? packet_rules[type].name : NULL; }

const char *pn_prop_name(uint8_t id) { return id < PN_PROPERTY_IDS ? property_rules[id].name : NULL; }

uint8_t pn_prop_form(uint8_t id) { return id < PN_PROPERTY_IDS ? property_rules[id].form : (uint8_t)PN_NONE; }

/* Whether `code` may stand in a packet of this type at this protocol level. */
static int check_code(const pn_packet *p, uint8_t code, uint8_t version) {
    const packet_rule *rule = &packet_rules[p->type];
    const code_set *set = version >= PN_V5 ? &rule->codes_v5 : &rule->codes_v4;
    uint64_t half = code < 0x40 ? set->good : code >= 0x80 && code < 0xC0 ? set->bad : 0;
    return half >> (code & 0x3F) & 1 ? 0 : -PN_PROTOCOL_ERROR;
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

#define EVERY(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Whether eight characters are all ASCII and not U+0000, and none is a wildcard when `name` is set. A byte b of 1 to 0x7F has
 * the top bit neither in b nor in b - 1; the lowest byte that breaks this has it before any borrow can reach it.
 * `#` (0x23) and `+` (0x2B) differ in one bit, so that one comparison finds both. */
static inline bool plain_word(uint64_t w, bool name) {
    uint64_t bad = w | (w - EVERY(0x01));
    if (name) bad |= ((w | EVERY(0x08)) ^ EVERY(0x2B)) - EVERY(0x01);
    return (bad & EVERY(0x80)) == 0;
}

static inline uint64_t load8(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static inline uint64_t load4(const uint8_t *p) {
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* Whether the whole text is plain (see above): nearly every text there is. */
static inline bool plain_text(const uint8_t *p, size_t n, bool name) {
    if (n >= 8) { /* the last word overlaps the one before it rather than the end */
        size_t last = n - 8;
        for (size_t i = 0; i < last; i += 8)
            if (!plain_word(load8(p + i), name)) return false;
        return plain_word(load8(p + last), name);
    }
    if (n >= 4) return plain_word(load4(p) | load4(p + n - 4) << 32, name);
    if (n == 0) return true;
    return plain_word(p[0] | (uint64_t)p[n / 2] << 8 | (uint64_t)p[n - 1] << 16 | EVERY(0x20) << 24, name);
}

static inline bool continues(const uint8_t *p, size_t i, uint8_t low, uint8_t high) { return p[i] >= low && p[i] <= high; }

/* The length of the well-formed UTF-8 sequence at p, of at most n bytes (Unicode, table 3-7); 0 when it is none, or U+0000. */
static size_t sequence(const uint8_t *p, size_t n) {
    uint8_t c = p[0];
    if (c < 0x80) return c != 0;
    if (c < 0xC2) return 0; /* a continuation, or an overlong form */
    if (c < 0xE0) return n >= 2 && continues(p, 1, 0x80, 0xBF) ? 2 : 0;
    if (c < 0xF0) {
        uint8_t low = c == 0xE0 ? 0xA0 : 0x80, high = c == 0xED ? 0x9F : 0xBF; /* overlong; surrogates */
        return n >= 3 && continues(p, 1, low, high) && continues(p, 2, 0x80, 0xBF) ? 3 : 0;
    }
    if (c > 0xF4) return 0;
    uint8_t low = c == 0xF0 ? 0x90 : 0x80, high = c == 0xF4 ? 0x8F : 0xBF; /* overlong; above U+10FFFF */
    return n >= 4 && continues(p, 1, low, high) && continues(p, 2, 0x80, 0xBF) && continues(p, 3, 0x80, 0xBF) ? 4 : 0;
}

static int check_any_text(const uint8_t *p, size_t n, bool name) {
    bool wildcard = false;
    for (size_t i = 0; i < n;) {
        if (n - i >= 8 && plain_word(load8(p + i), name)) {
            i += 8;
            continue;
        }
        size_t step = sequence(p + i, n - i);
        if (step == 0) return -PN_MALFORMED_PACKET;
        wildcard = wildcard || p[i] == '+' || p[i] == '#';
        i += step;
    }
    return name && wildcard ? -PN_TOPIC_NAME_INVALID : 0;
}

/* 0, -PN_MALFORMED_PACKET, or -PN_TOPIC_NAME_INVALID for a wildcard in what must be a topic name. */
static inline int check_text(pn_span text, enum text_kind kind) {
    bool name = kind == TOPIC_NAME;
    return plain_text(text.p, text.n, name) ? 0 : check_any_text(text.p, text.n, name);
}

bool pn_utf8_valid(const uint8_t *p, size_t n) { return plain_text(p, n, false) || check_any_text(p, n, false) == 0; }

/* ---- reading fields -------------------------------------------------------------------------------------------- */

static inline size_t left(const reader *r) { return (size_t)(r->end - r->p); }

static inline int read_u8(reader *r, uint8_t *out) {
    if (left(r) < 1) return -PN_MALFORMED_PACKET;
    *out = *r->p++;
    return 0;
}

static inline int read_u16(reader *r, uint16_t *out) {
    if (left(r) < 2) return -PN_MALFORMED_PACKET;
    *out = (uint16_t)(r->p[0] << 8 | r->p[1]);
    r->p += 2;
    return 0;
}

static inline int read_u32(reader *r, uint32_t *out) {
    if (left(r) < 4) return -PN_MALFORMED_PACKET;
    *out = (uint32_t)r->p[0] << 24 | (uint32_t)r->p[1] << 16 | (uint32_t)r->p[2] << 8 | r->p[3];
    r->p += 4;
    return 0;
}

static inline int read_binary(reader *r, pn_span *out) {
    uint16_t n;
    TRY(read_u16(r, &n));
    if (left(r) < n) return -PN_MALFORMED_PACKET;
    *out = (pn_span){r->p, n};
    r->p += n;
    return 0;
}

static inline int read_text(reader *r, pn_span *out) {
    TRY(read_binary(r, out));
    return check_text(*out, ANY_TEXT);
}

/* MQTT-2.2.1-3 (5.0), MQTT-2.3.1-1 (3.1.1): not zero. */
static inline int read_id(reader *r, pn_packet *out) {
    TRY(read_u16(r, &out->id));
    return out->id ? 0 : -PN_PROTOCOL_ERROR;
}

/* A variable byte integer in any length up to four: bytes read, 0 need more, < 0 minus a reason code. */
static inline int read_any_varint(const uint8_t *p, size_t n, uint32_t *value) {
    if (n && p[0] < 0x80) {
        *value = p[0];
        return 1;
    }
    uint32_t v = 0;
    for (size_t i = 0; i < 4; i++) {
        if (i == n) return 0;
        v |= (p[i] & 0x7Fu) << (7 * i);
        if (p[i] < 0x80) {
            *value = v;
            return (int)i + 1;
        }
    }
    return -PN_MALFORMED_PACKET;
}

int pn_varint_get(const uint8_t *p, size_t n, uint32_t *value) {
    int size = read_any_varint(p, n, value);
    return size > 1 && (uint32_t)size != pn_varint_len(*value) ? -PN_MALFORMED_PACKET : size;
}

static inline int read_varint(reader *r, uint32_t *out) {
    int size = pn_varint_get(r->p, left(r), out);
    if (size <= 0) return -PN_MALFORMED_PACKET;
    r->p += size;
    return 0;
}

/* ---- properties ------------------------------------------------------------------------------------------------ */

/* Takes one property apart, its value not judged. Identifiers are all of one byte; one that goes on is unknown. */
static int read_prop(reader *r, pn_prop *out) {
    const uint8_t *start = r->p;
    uint8_t byte = 0;
    uint16_t two = 0;
    *out = (pn_prop){0};
    TRY(read_u8(r, &out->id));
    switch ((enum pn_form)pn_prop_form(out->id)) {
    case PN_NONE: return -PN_MALFORMED_PACKET;
    case PN_BYTE: TRY(read_u8(r, &byte)); out->num = byte; break;
    case PN_TWO: TRY(read_u16(r, &two)); out->num = two; break;
    case PN_FOUR: TRY(read_u32(r, &out->num)); break;
    case PN_VARINT: TRY(read_varint(r, &out->num)); break;
    case PN_PAIR: TRY(read_binary(r, &out->key)); TRY(read_binary(r, &out->value)); break;
    case PN_BINARY:
    case PN_STRING: TRY(read_binary(r, &out->value)); break;
    }
    out->wire = pn_span_of(start, (size_t)(r->p - start));
    return 0;
}

/* A property alone: its text and its range. */
static int check_prop(const pn_prop *prop) {
    const property_rule *rule = &property_rules[prop->id];
    if (rule->form < PN_BINARY) {
        bool inside = prop->num >= rule->min && prop->num <= rule->max;
        return inside ? 0 : rule->error ? -rule->error : -PN_PROTOCOL_ERROR;
    }
    if (rule->form == PN_BINARY) return 0;
    TRY(check_text(prop->key, ANY_TEXT));
    TRY(check_text(prop->value, (enum text_kind)rule->text));
    return rule->text == TOPIC_NAME && prop->value.n == 0 ? -PN_TOPIC_NAME_INVALID : 0; /* MQTT-4.7.3-1 */
}

/* Length and properties (5.0 §2.2.2): each of `allowed`, none twice but those of `repeat`. */
static int read_props_of(reader *r, uint64_t allowed, uint64_t repeat, pn_props *out) {
    uint32_t n;
    TRY(read_varint(r, &n));
    if (left(r) < n) return -PN_MALFORMED_PACKET;
    reader part = {r->p, r->p + n};
    out->raw = (pn_span){r->p, n};
    r->p += n;
    while (left(&part)) {
        pn_prop prop;
        TRY(read_prop(&part, &prop));
        uint64_t bit = UINT64_C(1) << prop.id;
        if (!(allowed & bit)) return -PN_MALFORMED_PACKET; /* 5.0 §2.2.2.2: not valid for the packet type */
        int error = check_prop(&prop);
        if (error == -PN_MALFORMED_PACKET) return error;
        if (out->present & bit & ~repeat) return -PN_PROTOCOL_ERROR;
        if (error) return error;
        out->present |= bit;
    }
    return 0;
}

static inline int read_props(reader *r, pn_packet *out) {
    if (out->version < PN_V5) return 0;
    if (r->p < r->end && *r->p == 0) { /* none: the most usual case */
        r->p++;
        return 0;
    }
    return read_props_of(r, packet_rules[out->type].props, packet_rules[out->type].repeat, &out->props);
}

bool pn_prop_next(const pn_props *props, uint32_t *at, pn_prop *out) {
    if (*at >= props->raw.n) return false;
    reader r = {props->raw.p + *at, props->raw.p + props->raw.n};
    if (read_prop(&r, out)) return false;
    *at = (uint32_t)(r.p - props->raw.p);
    return true;
}

bool pn_prop_find(const pn_props *props, uint8_t id, pn_prop *out) {
    if (id >= PN_PROPERTY_IDS || !pn_prop_has(props, id)) return false;
    uint32_t at = 0;
    while (pn_prop_next(props, &at, out))
        if (out->id == id) return true;
    return false;
}

uint32_t pn_prop_num(const pn_props *props, uint8_t id, uint32_t otherwise) {
    pn_prop prop;
    return pn_prop_find(props, id, &prop) ? prop.num : otherwise;
}

/* ---- reading packets ------------------------------------------------------------------------------------------- */

/* Connect flags (5.0 §3.1.2.3); bits 3 and 4 are the QoS of the will. */
enum { CONNECT_RESERVED = 0x01, CONNECT_CLEAN = 0x02, CONNECT_WILL = 0x04,
       CONNECT_WILL_RETAIN = 0x20, CONNECT_PASSWORD = 0x40, CONNECT_USERNAME = 0x80 };

/* Protocol names and the levels they may stand with (5.0 §3.1.2.1; 3.1 §3.1). */
static const struct { const char *name; uint8_t size, lowest, highest; } protocols[] = {
    {"MQTT", 4, PN_V311, PN_V5}, {"MQIsdp", 6, PN_V31, PN_V31}};

static int read_protocol(reader *r, uint8_t *level) {
    pn_span name;
    TRY(read_text(r, &name));
    TRY(read_u8(r, level));
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (pn_span_eq(name, pn_span_of(protocols[i].name, protocols[i].size)))
            return *level >= protocols[i].lowest && *level <= protocols[i].highest ? 0 : -PN_UNSUPPORTED_VERSION;
    return -PN_UNSUPPORTED_VERSION;
}

static int read_will(reader *r, pn_packet *out) {
    if (out->version >= PN_V5) TRY(read_props_of(r, P_WILL, P(USER_PROPERTY), &out->will_props));
    TRY(read_binary(r, &out->will_topic));
    TRY(check_text(out->will_topic, TOPIC_NAME));
    if (out->will_topic.n == 0) return -PN_TOPIC_NAME_INVALID;
    return read_binary(r, &out->will_payload);
}

static int read_connect(reader *r, pn_packet *out) {
    uint8_t flags;
    TRY(read_protocol(r, &out->version));
    TRY(read_u8(r, &flags));
    out->clean_start = flags & CONNECT_CLEAN;
    out->has_will = flags & CONNECT_WILL;
    out->will_qos = flags >> 3 & 3;
    out->will_retain = flags & CONNECT_WILL_RETAIN;
    out->has_username = flags & CONNECT_USERNAME;
    out->has_password = flags & CONNECT_PASSWORD;
    if (flags & CONNECT_RESERVED) return -PN_MALFORMED_PACKET;                                   /* MQTT-3.1.2-3 */
    if (out->will_qos > 2) return -PN_MALFORMED_PACKET;                                          /* MQTT-3.1.2-12 */
    if (!out->has_will && (out->will_qos || out->will_retain)) return -PN_MALFORMED_PACKET;      /* MQTT-3.1.2-11, -13 */
    if (out->version < PN_V5 && out->has_password && !out->has_username) return -PN_MALFORMED_PACKET; /* 3.1.1 MQTT-3.1.2-22 */
    TRY(read_u16(r, &out->keep_alive));
    TRY(read_props(r, out));
    if (pn_prop_has(&out->props, PN_AUTHENTICATION_DATA) && !pn_prop_has(&out->props, PN_AUTHENTICATION_METHOD))
        return -PN_PROTOCOL_ERROR; /* 5.0 §3.1.2.11.10 */
    TRY(read_text(r, &out->client_id));
    if (out->has_will) TRY(read_will(r, out));
    if (out->has_username) TRY(read_text(r, &out->username));
    if (out->has_password) TRY(read_binary(r, &out->password));
    return 0;
}

static int read_connack(reader *r, pn_packet *out) {
    uint8_t flags;
    TRY(read_u8(r, &flags));
    if (flags > 1) return -PN_MALFORMED_PACKET; /* MQTT-3.2.2-1 */
    out->session_present = flags;
    TRY(read_u8(r, &out->reason));
    TRY(check_code(out, out->reason, out->version));
    if (out->session_present && out->reason) return -PN_PROTOCOL_ERROR; /* MQTT-3.2.2-6; 3.1.1 MQTT-3.2.2-4 */
    return read_props(r, out);
}

static int read_publish(reader *r, pn_packet *out) {
    TRY(read_binary(r, &out->topic));
    int topic = check_text(out->topic, TOPIC_NAME); /* a wildcard is told only when the rest can be parsed */
    if (topic == -PN_MALFORMED_PACKET) return topic;
    if (out->qos) TRY(read_id(r, out));
    TRY(read_props(r, out));
    if (topic) return topic;
    if (out->topic.n == 0) {
        if (out->version < PN_V5) return -PN_TOPIC_NAME_INVALID;                           /* MQTT-4.7.3-1 */
        if (!pn_prop_has(&out->props, PN_TOPIC_ALIAS)) return -PN_PROTOCOL_ERROR;          /* 5.0 §3.3.2.1 */
    }
    out->payload = pn_span_of(r->p, left(r));
    r->p = r->end;
    return 0;
}

/* PUBACK, PUBREC, PUBREL, PUBCOMP: reason and properties may be left out (5.0 §3.4.2.1). */
static int read_ack(reader *r, pn_packet *out) {
    TRY(read_id(r, out));
    if (out->version < PN_V5 || left(r) == 0) return 0;
    TRY(read_u8(r, &out->reason));
    TRY(check_code(out, out->reason, out->version));
    return left(r) ? read_props(r, out) : 0;
}

/* One entry of a SUBSCRIBE or, without options, of an UNSUBSCRIBE. */
static int read_filter(reader *r, uint8_t type, pn_filter *out) {
    uint8_t options = 0;
    *out = (pn_filter){0};
    TRY(read_binary(r, &out->filter));
    if (type == PN_SUBSCRIBE) TRY(read_u8(r, &options));
    out->qos = options & 3;
    out->no_local = options >> 2 & 1;
    out->retain_as_published = options >> 3 & 1;
    out->retain_handling = options >> 4 & 3;
    return options >> 6 ? -PN_MALFORMED_PACKET : 0; /* MQTT-3.8.3-5 */
}

/* The filters from r to its end: at least one (MQTT-3.8.3-2, MQTT-3.10.3-2), none empty (MQTT-4.7.3-1), options in range
 * (5.0 §3.8.3.1; before that everything but the QoS is reserved). */
static int check_filters(reader *r, uint8_t type, uint8_t version) {
    if (left(r) == 0) return -PN_PROTOCOL_ERROR;
    while (left(r)) {
        pn_filter f;
        TRY(read_filter(r, type, &f));
        TRY(check_text(f.filter, ANY_TEXT));
        if (f.filter.n == 0 || f.qos > 2 || f.retain_handling > 2) return -PN_PROTOCOL_ERROR;
        if (version < PN_V5 && (f.no_local || f.retain_as_published || f.retain_handling)) return -PN_MALFORMED_PACKET;
    }
    return 0;
}

static int read_subscribe(reader *r, pn_packet *out) {
    TRY(read_id(r, out));
    TRY(read_props(r, out));
    out->filters = pn_span_of(r->p, left(r));
    return check_filters(r, out->type, out->version);
}

bool pn_filter_next(const pn_packet *p, uint32_t *at, pn_filter *out) {
    if (*at >= p->filters.n) return false;
    reader r = {p->filters.p + *at, p->filters.p + p->filters.n};
    if (read_filter(&r, p->type, out)) return false;
    *at = (uint32_t)(r.p - p->filters.p);
    return true;
}

/* The reason codes from r to its end, at least one (5.0 §3.9.3: one for each filter). */
static int read_codes(reader *r, pn_packet *out) {
    if (left(r) == 0) return -PN_PROTOCOL_ERROR;
    out->payload = pn_span_of(r->p, left(r));
    for (; r->p < r->end; r->p++) TRY(check_code(out, *r->p, out->version));
    return 0;
}

static int read_suback(reader *r, pn_packet *out) {
    TRY(read_id(r, out));
    TRY(read_props(r, out));
    return read_codes(r, out);
}

static int read_unsuback(reader *r, pn_packet *out) {
    TRY(read_id(r, out));
    TRY(read_props(r, out));
    return out->version < PN_V5 ? 0 : read_codes(r, out);
}

static int read_ping(reader *r, pn_packet *out) {
    (void)r, (void)out;
    return 0;
}

/* Reason and properties may be left out (5.0 §3.14.2.1, §3.14.2.2.1). */
static int read_disconnect(reader *r, pn_packet *out) {
    if (out->version < PN_V5 || left(r) == 0) return 0;
    TRY(read_u8(r, &out->reason));
    TRY(check_code(out, out->reason, out->version));
    return left(r) ? read_props(r, out) : 0;
}

/* Empty means success without properties (5.0 §3.15.2.1); what says anything names its method (§3.15.2.2.2). */
static int read_auth(reader *r, pn_packet *out) {
    if (left(r) == 0) return 0;
    TRY(read_u8(r, &out->reason));
    TRY(check_code(out, out->reason, out->version));
    TRY(read_props(r, out));
    bool says = out->reason || out->props.present;
    return says && !pn_prop_has(&out->props, PN_AUTHENTICATION_METHOD) ? -PN_PROTOCOL_ERROR : 0;
}

/* Flags of PUBLISH (5.0 §3.3.1): QoS 3 is none (MQTT-3.3.1-4), DUP goes with a QoS above 0 (MQTT-3.3.1-2). */
static inline bool publish_flags_valid(uint8_t first) {
    uint8_t qos = first >> 1 & 3;
    return qos < 3 && (qos || !(first & 8));
}

int64_t pn_packet_size(const uint8_t *data, size_t n) {
    if (n < 2) return 0;
    uint32_t body;
    int size = read_any_varint(data + 1, n - 1, &body);
    return size <= 0 ? size : 1 + (int64_t)size + body;
}

/* All zero, in pieces that compilers write with a few wide stores; the whole at once they make a `rep stos`, whose start-up
 * alone takes longer than everything else about a PINGREQ. */
static inline void clear(pn_packet *out) {
    enum { PIECE = 64, WHOLE = sizeof *out / PIECE * PIECE };
    uint8_t *p = (uint8_t *)out;
    for (size_t i = 0; i < WHOLE; i += PIECE) memset(p + i, 0, PIECE);
    memset(p + WHOLE, 0, sizeof *out - WHOLE);
}

int64_t pn_packet_decode(const uint8_t *data, size_t n, uint8_t version, uint32_t max_size, pn_packet *out) {
    if (n == 0) return 0;
    uint8_t first = data[0], type = first >> 4;
    const packet_rule *rule = &packet_rules[type];
    if (!rule->name || (version && version < rule->since)) return -PN_MALFORMED_PACKET;
    if (type == PN_PUBLISH ? !publish_flags_valid(first) : (first & 0x0F) != rule->flags)
        return -PN_MALFORMED_PACKET; /* MQTT-2.1.3-1 */
    if (!version && type != PN_CONNECT) return -PN_PROTOCOL_ERROR; /* MQTT-3.1.0-1 */

    uint32_t body;
    int size = read_any_varint(data + 1, n - 1, &body);
    if (size <= 0) return size;
    bool shortest = size == 1 || (uint32_t)size == pn_varint_len(body);
    if (!shortest && version >= PN_V5 && type != PN_CONNECT) return -PN_MALFORMED_PACKET; /* MQTT-1.5.5-1 */
    size_t total = 1 + (size_t)size + body;
    if (total > max_size) return -PN_PACKET_TOO_LARGE;
    if (total > n) return 0;

    clear(out);
    out->type = type;
    out->version = version;
    if (type == PN_PUBLISH) {
        out->dup = first & 8;
        out->qos = first >> 1 & 3;
        out->retain = first & 1;
    }
    reader r = {data + 1 + size, data + total};
    TRY(rule->read(&r, out));
    if (left(&r)) return -PN_MALFORMED_PACKET;
    /* Before 5.0 nothing asks for the shortest form; only its body tells which a CONNECT is. */
    if (!shortest && out->version >= PN_V5) return -PN_MALFORMED_PACKET;
    return (int64_t)total;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static inline void fail(writer *w, int reason) {
    if (!w->error) w->error = -reason;
}

static inline void put_u8(writer *w, uint8_t v) {
    if (w->p) w->p[w->n] = v;
    w->n += 1;
}

static inline void put_u16(writer *w, uint16_t v) {
    put_u8(w, (uint8_t)(v >> 8));
    put_u8(w, (uint8_t)v);
}

static inline void put_raw(writer *w, pn_span s) {
    if (w->p && s.n) memcpy(w->p + w->n, s.p, s.n);
    w->n += s.n;
}

static inline void put_text(writer *w, pn_span s) {
    if (s.n > PN_STRING_MAX) fail(w, PN_PACKET_TOO_LARGE);
    put_u16(w, (uint16_t)s.n);
    put_raw(w, s);
}

static inline void put_id(writer *w, uint16_t id) {
    if (id == 0) fail(w, PN_PROTOCOL_ERROR);
    put_u16(w, id);
}

static inline void put_code(writer *w, const pn_packet *p, uint8_t code, uint8_t version) {
    if (check_code(p, code, version)) fail(w, PN_PROTOCOL_ERROR);
    put_u8(w, code);
}

uint8_t *pn_varint_put(uint8_t *at, uint32_t value) {
    while (value > 0x7F) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

static inline void put_props(writer *w, const pn_props *props, uint8_t version) {
    if (version < PN_V5) return;
    if (props->raw.n > PN_REMAINING_LENGTH_MAX) {
        fail(w, PN_PACKET_TOO_LARGE);
        return;
    }
    if (w->p) (void)pn_varint_put(w->p + w->n, props->raw.n);
    w->n += pn_varint_len(props->raw.n);
    put_raw(w, props->raw);
}

static void write_connect(writer *w, const pn_packet *p, uint8_t version) {
    size_t old = version < PN_V311;
    if (p->has_will ? p->will_qos > 2 : p->will_qos || p->will_retain) fail(w, PN_PROTOCOL_ERROR);
    if (version < PN_V5 && p->has_password && !p->has_username) fail(w, PN_PROTOCOL_ERROR);
    put_text(w, pn_span_of(protocols[old].name, protocols[old].size));
    put_u8(w, version);
    put_u8(w, (uint8_t)((p->clean_start ? CONNECT_CLEAN : 0) | (p->has_will ? CONNECT_WILL : 0) | p->will_qos << 3 |
                        (p->will_retain ? CONNECT_WILL_RETAIN : 0) | (p->has_password ? CONNECT_PASSWORD : 0) |
                        (p->has_username ? CONNECT_USERNAME : 0)));
    put_u16(w, p->keep_alive);
    put_props(w, &p->props, version);
    put_text(w, p->client_id);
    if (p->has_will) {
        put_props(w, &p->will_props, version);
        put_text(w, p->will_topic);
        put_text(w, p->will_payload);
    }
    if (p->has_username) put_text(w, p->username);
    if (p->has_password) put_text(w, p->password);
}

static void write_connack(writer *w, const pn_packet *p, uint8_t version) {
    if (p->session_present && p->reason) fail(w, PN_PROTOCOL_ERROR);
    put_u8(w, p->session_present);
    put_code(w, p, p->reason, version);
    put_props(w, &p->props, version);
}

static inline void write_publish(writer *w, const pn_packet *p, uint8_t version) {
    if (p->qos > 2 || (p->dup && !p->qos)) fail(w, PN_PROTOCOL_ERROR);
    put_text(w, p->topic);
    if (p->qos) put_id(w, p->id);
    put_props(w, &p->props, version);
    put_raw(w, p->payload);
}

/* What PUBACK … PUBCOMP and DISCONNECT and AUTH end with: nothing, the reason, or the reason and properties. */
static void put_outcome(writer *w, const pn_packet *p, uint8_t version) {
    if (version < PN_V5) return;
    if (p->reason || p->props.raw.n) put_code(w, p, p->reason, version);
    if (p->props.raw.n) put_props(w, &p->props, version);
}

static void write_ack(writer *w, const pn_packet *p, uint8_t version) {
    put_id(w, p->id);
    put_outcome(w, p, version);
}

static void write_disconnect(writer *w, const pn_packet *p, uint8_t version) { put_outcome(w, p, version); }

static void write_subscribe(writer *w, const pn_packet *p, uint8_t version) {
    reader r = {p->filters.p, p->filters.n ? p->filters.p + p->filters.n : p->filters.p};
    if (!w->p && check_filters(&r, p->type, version)) fail(w, PN_PROTOCOL_ERROR);
    put_id(w, p->id);
    put_props(w, &p->props, version);
    put_raw(w, p->filters);
}

static void put_codes(writer *w, const pn_packet *p, uint8_t version) {
    if (p->payload.n == 0) fail(w, PN_PROTOCOL_ERROR);
    for (uint32_t i = 0; i < p->payload.n; i++) put_code(w, p, p->payload.p[i], version);
}

static void write_suback(writer *w, const pn_packet *p, uint8_t version) {
    put_id(w, p->id);
    put_props(w, &p->props, version);
    put_codes(w, p, version);
}

static void write_unsuback(writer *w, const pn_packet *p, uint8_t version) {
    put_id(w, p->id);
    put_props(w, &p->props, version);
    if (version >= PN_V5) put_codes(w, p, version);
}

static void write_ping(writer *w, const pn_packet *p, uint8_t version) { (void)w, (void)p, (void)version; }

int64_t pn_ack_put(uint8_t *out, uint8_t type, uint16_t id) {
    out[0] = (uint8_t)(type << 4 | packet_rules[type].flags);
    out[1] = 2;
    out[2] = (uint8_t)(id >> 8);
    out[3] = (uint8_t)id;
    return PN_ACK_SIZE;
}

int64_t pn_packet_encode(const pn_packet *p, uint8_t version, uint8_t *out, size_t cap) {
    if (p->type == 0 || p->type >= PN_TYPES || version < packet_rules[p->type].since || version > PN_V5)
        return -PN_PROTOCOL_ERROR;
    const packet_rule *rule = &packet_rules[p->type];
    writer count = {0};
    rule->write(&count, p, version);
    if (count.error) return count.error;
    if (count.n > PN_REMAINING_LENGTH_MAX) return -PN_PACKET_TOO_LARGE;
    size_t total = 1 + (size_t)pn_varint_len((uint32_t)count.n) + (size_t)count.n;
    if (total > cap) return (int64_t)total;

    uint8_t flags = rule->flags;
    if (p->type == PN_PUBLISH) flags = (uint8_t)(p->dup << 3 | p->qos << 1 | p->retain);
    out[0] = (uint8_t)(p->type << 4 | flags);
    writer w = {.p = pn_varint_put(out + 1, (uint32_t)count.n)};
    rule->write(&w, p, version);
    return (int64_t)total;
}

size_t pn_prop_size(uint8_t id, pn_span key, pn_span value, uint32_t num) {
    static const uint8_t fixed[] = {[PN_BYTE] = 1, [PN_TWO] = 2, [PN_FOUR] = 4, [PN_BINARY] = 2, [PN_STRING] = 2, [PN_PAIR] = 4};
    uint8_t form = pn_prop_form(id);
    size_t size = 1 + (size_t)fixed[form];
    if (form == PN_VARINT) size += pn_varint_len(num);
    if (form == PN_PAIR) size += key.n;
    if (form >= PN_BINARY) size += value.n;
    return size;
}

uint8_t *pn_prop_put(uint8_t *at, uint8_t id, pn_span key, pn_span value, uint32_t num) {
    writer w = {.p = at};
    uint8_t form = pn_prop_form(id);
    put_u8(&w, id);
    switch ((enum pn_form)form) {
    case PN_NONE: break;
    case PN_BYTE: put_u8(&w, (uint8_t)num); break;
    case PN_FOUR: put_u16(&w, (uint16_t)(num >> 16)); /* fall through */
    case PN_TWO: put_u16(&w, (uint16_t)num); break;
    case PN_VARINT: w.n = (uint64_t)(pn_varint_put(at + 1, num) - at); break;
    case PN_PAIR: put_text(&w, key); /* fall through */
    case PN_BINARY:
    case PN_STRING: put_text(&w, value); break;
    }
    return at + w.n;
}
