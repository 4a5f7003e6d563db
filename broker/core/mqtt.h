/* mqtt.h: the facts of MQTT 3.1.1 and 5.0 as names and tables, and every limit of the core by name.
 *
 * The rule it keeps: protocol facts are data. Nothing here allocates or decides; packet.c reads the tables.
 * "5.0 §x" and "MQTT-x.y.z-n" name clauses of the OASIS standards.
 */
#ifndef PEANUT_MQTT_H
#define PEANUT_MQTT_H

#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>

/* Protocol levels as CONNECT carries them (5.0 §3.1.2.2). */
enum { PN_V31 = 3, PN_V311 = 4, PN_V5 = 5 };

/* Packet types (5.0 §2.1.2, table 2-1). */
enum pn_type {
    PN_CONNECT = 1, PN_CONNACK, PN_PUBLISH, PN_PUBACK, PN_PUBREC, PN_PUBREL, PN_PUBCOMP, PN_SUBSCRIBE,
    PN_SUBACK, PN_UNSUBSCRIBE, PN_UNSUBACK, PN_PINGREQ, PN_PINGRESP, PN_DISCONNECT, PN_AUTH,
    PN_TYPES
};

/* Reason codes (5.0 §2.4, table 2-6). From 0x80 on they mean failure and serve as the core's error type:
 * a C function returns > 0 consumed, 0 need more, < 0 minus the reason code. */
enum pn_reason {
    PN_SUCCESS = 0x00, PN_GRANTED_QOS1 = 0x01, PN_GRANTED_QOS2 = 0x02, PN_DISCONNECT_WITH_WILL = 0x04,
    PN_NO_MATCHING_SUBSCRIBERS = 0x10, PN_NO_SUBSCRIPTION_EXISTED = 0x11,
    PN_CONTINUE_AUTHENTICATION = 0x18, PN_REAUTHENTICATE = 0x19,
    PN_UNSPECIFIED_ERROR = 0x80, PN_MALFORMED_PACKET = 0x81, PN_PROTOCOL_ERROR = 0x82,
    PN_IMPLEMENTATION_ERROR = 0x83, PN_UNSUPPORTED_VERSION = 0x84, PN_CLIENT_ID_NOT_VALID = 0x85,
    PN_BAD_USER_OR_PASSWORD = 0x86, PN_NOT_AUTHORIZED = 0x87, PN_SERVER_UNAVAILABLE = 0x88, PN_SERVER_BUSY = 0x89,
    PN_BANNED = 0x8A, PN_SERVER_SHUTTING_DOWN = 0x8B, PN_BAD_AUTH_METHOD = 0x8C, PN_KEEP_ALIVE_TIMEOUT = 0x8D,
    PN_SESSION_TAKEN_OVER = 0x8E, PN_TOPIC_FILTER_INVALID = 0x8F, PN_TOPIC_NAME_INVALID = 0x90,
    PN_PACKET_ID_IN_USE = 0x91, PN_PACKET_ID_NOT_FOUND = 0x92, PN_RECEIVE_MAXIMUM_EXCEEDED = 0x93,
    PN_TOPIC_ALIAS_INVALID = 0x94, PN_PACKET_TOO_LARGE = 0x95, PN_MESSAGE_RATE_TOO_HIGH = 0x96,
    PN_QUOTA_EXCEEDED = 0x97, PN_ADMINISTRATIVE_ACTION = 0x98, PN_PAYLOAD_FORMAT_INVALID = 0x99,
    PN_RETAIN_NOT_SUPPORTED = 0x9A, PN_QOS_NOT_SUPPORTED = 0x9B, PN_USE_ANOTHER_SERVER = 0x9C,
    PN_SERVER_MOVED = 0x9D, PN_SHARED_NOT_SUPPORTED = 0x9E, PN_CONNECTION_RATE_EXCEEDED = 0x9F,
    PN_MAXIMUM_CONNECT_TIME = 0xA0, PN_SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xA1, PN_WILDCARDS_NOT_SUPPORTED = 0xA2
};

/* Properties (5.0 §2.2.2.2, table 2-4). Every identifier is below 64, so a set of them is one 64-bit word. */
enum pn_property {
    PN_PAYLOAD_FORMAT_INDICATOR = 0x01, PN_MESSAGE_EXPIRY_INTERVAL = 0x02, PN_CONTENT_TYPE = 0x03,
    PN_RESPONSE_TOPIC = 0x08, PN_CORRELATION_DATA = 0x09, PN_SUBSCRIPTION_IDENTIFIER = 0x0B,
    PN_SESSION_EXPIRY_INTERVAL = 0x11, PN_ASSIGNED_CLIENT_IDENTIFIER = 0x12, PN_SERVER_KEEP_ALIVE = 0x13,
    PN_AUTHENTICATION_METHOD = 0x15, PN_AUTHENTICATION_DATA = 0x16, PN_REQUEST_PROBLEM_INFORMATION = 0x17,
    PN_WILL_DELAY_INTERVAL = 0x18, PN_REQUEST_RESPONSE_INFORMATION = 0x19, PN_RESPONSE_INFORMATION = 0x1A,
    PN_SERVER_REFERENCE = 0x1C, PN_REASON_STRING = 0x1F, PN_RECEIVE_MAXIMUM = 0x21,
    PN_TOPIC_ALIAS_MAXIMUM = 0x22, PN_TOPIC_ALIAS = 0x23, PN_MAXIMUM_QOS = 0x24, PN_RETAIN_AVAILABLE = 0x25,
    PN_USER_PROPERTY = 0x26, PN_MAXIMUM_PACKET_SIZE = 0x27, PN_WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28,
    PN_SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29, PN_SHARED_SUBSCRIPTION_AVAILABLE = 0x2A,
    PN_PROPERTY_IDS = 0x2B
};

/* The wire forms a property value takes (5.0 §2.2.2.2). */
enum pn_form { PN_NONE = 0, PN_BYTE, PN_TWO, PN_FOUR, PN_VARINT, PN_BINARY, PN_STRING, PN_PAIR };

/* Numbers of the standard. */
#define PN_REMAINING_LENGTH_MAX 268435455u        /* 5.0 §1.5.5: four bytes of seven bits */
#define PN_PACKET_SIZE_MAX (PN_REMAINING_LENGTH_MAX + 5u)
#define PN_STRING_MAX 65535u                      /* 5.0 §1.5.4 */
#define PN_EXPIRY_NEVER 0xFFFFFFFFu               /* 5.0 §3.1.2.11.2: the session does not expire */

/* Limits of the core: the defaults of `struct pn_limits` (session.h). Each has a test of its own. */
#define PN_MAX_PACKET_SIZE 1048576u               /* bytes of one inbound packet */
#define PN_MAX_CONNECT_SIZE 65536u                /* bytes of a CONNECT, and of anything before the verdict on it */
#define PN_MAX_TOPIC_LENGTH 1024u                 /* bytes of a topic name or filter */
#define PN_MAX_TOPIC_LEVELS 64u                   /* levels of a topic name or filter */
#define PN_MAX_CLIENT_ID 256u                     /* bytes of a client identifier */
#define PN_MAX_SUBSCRIPTIONS 10000u               /* per session */
#define PN_RECEIVE_MAXIMUM_DEFAULT 256u           /* inbound QoS 1 and 2 messages not yet completed, per session */
#define PN_MAX_INFLIGHT 64u                       /* outbound QoS 1 and 2 messages not yet acknowledged, per session */
#define PN_MAX_QUEUED_MESSAGES 10000u             /* outbound messages waiting, per session */
#define PN_MAX_QUEUED_BYTES 16777216u             /* their bytes, per session */
#define PN_MAX_OUTPUT_BYTES 4194304u              /* encoded output a link may hold: above it QoS 0 is dropped */
#define PN_MAX_PARKED_BYTES 65536u                /* input held while a CONNECT waits for its verdict */
#define PN_SESSION_EXPIRY_MAX 604800u             /* seconds; longer wishes are cut to this */
#define PN_TOPIC_ALIAS_MAXIMUM_DEFAULT 16u        /* topics, each way, that a connection may give an alias */
#define PN_KEEPALIVE_MAX 65535u                  /* seconds */
#define PN_CONNECT_TIMEOUT 10000                  /* milliseconds from open to an accepted CONNECT */
#define PN_MAX_SESSIONS 100000u                   /* sessions in all, offline ones included */
#define PN_MAX_RETAINED 1000000u                  /* retained messages in all */
#define PN_MAX_JOURNAL_BYTES 67108864u            /* changes that wait for the disk, in all */
#define PN_MAX_RETAINED_BYTES 268435456u          /* their bytes in all: topics, payloads and properties */
#define PN_MAX_MEMORY 1024u                       /* MiB that the core holds in all; 0: no ceiling */

#endif
