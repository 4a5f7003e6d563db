"""The reference codec: MQTT 3.1, 3.1.1 and 5.0 control packets between bytes and dictionaries, written to be read.

The rule it keeps: it says what one packet alone may be, and nothing else. Facts of the standard stand in tables; the
code below them only walks the tables. Speed is no aim. What depends on a session (a second CONNECT, an unknown packet
identifier, who sent the packet) and the syntax of topic filters are not judged here.

Packets are dictionaries as tests/vectors/README.md describes them, with `bytes` in binary fields.
"""

from collections.abc import Callable
from typing import Any

Packet = dict[str, Any]

# Reason codes that the codec itself gives (5.0 §2.4).
MALFORMED_PACKET = 0x81
PROTOCOL_ERROR = 0x82
UNSUPPORTED_PROTOCOL_VERSION = 0x84
TOPIC_NAME_INVALID = 0x90
TOPIC_ALIAS_INVALID = 0x94
PACKET_TOO_LARGE = 0x95

REMAINING_LENGTH_MAX = 268_435_455  # 5.0 §1.5.5: four bytes of seven bits
PACKET_SIZE_MAX = 1 + 4 + REMAINING_LENGTH_MAX  # bytes of the largest packet
STRING_MAX = 65_535  # 5.0 §1.5.4: bytes of a string or of binary data


class MqttError(Exception):
    """A packet that breaks the standard.

    `code` is the MQTT 5.0 reason code that says how (used for the older versions as well, which have none on the
    wire); `why` is a sentence for people.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"0x{code:02X}: {why}")
        self.code = code
        self.why = why


def _malformed(why: str) -> MqttError:
    return MqttError(MALFORMED_PACKET, why)


def _protocol(why: str) -> MqttError:
    return MqttError(PROTOCOL_ERROR, why)


# Protocol names and the levels each may carry (5.0 §3.1.2.1, 3.1.1 §3.1.2.1; "MQIsdp" is MQTT 3.1).
PROTOCOLS = {"MQIsdp": (3,), "MQTT": (4, 5)}
PROTOCOL_NAME = {3: "MQIsdp", 4: "MQTT", 5: "MQTT"}

# Packet types (5.0 §2.1.2). 3.1.1 reserves type 15.
TYPES = {
    1: "CONNECT",
    2: "CONNACK",
    3: "PUBLISH",
    4: "PUBACK",
    5: "PUBREC",
    6: "PUBREL",
    7: "PUBCOMP",
    8: "SUBSCRIBE",
    9: "SUBACK",
    10: "UNSUBSCRIBE",
    11: "UNSUBACK",
    12: "PINGREQ",
    13: "PINGRESP",
    14: "DISCONNECT",
    15: "AUTH",
}
TYPE_NUMBER = {name: number for number, name in TYPES.items()}

# The low four bits of the first byte (5.0 §2.1.3); PUBLISH has flags of its own.
FLAGS = {name: 0b0010 if name in ("PUBREL", "SUBSCRIBE", "UNSUBSCRIBE") else 0 for name in TYPES.values()}

# Properties (5.0 §2.2.2.2, table 2-4): identifier, name, wire form, packets that may have it.
_ACKS = "PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK"
_PROPERTY_TABLE = [
    (0x01, "payload_format_indicator", "byte", "PUBLISH will"),
    (0x02, "message_expiry_interval", "four", "PUBLISH will"),
    (0x03, "content_type", "string", "PUBLISH will"),
    (0x08, "response_topic", "string", "PUBLISH will"),
    (0x09, "correlation_data", "binary", "PUBLISH will"),
    (0x0B, "subscription_identifier", "varint", "PUBLISH SUBSCRIBE"),
    (0x11, "session_expiry_interval", "four", "CONNECT CONNACK DISCONNECT"),
    (0x12, "assigned_client_identifier", "string", "CONNACK"),
    (0x13, "server_keep_alive", "two", "CONNACK"),
    (0x15, "authentication_method", "string", "CONNECT CONNACK AUTH"),
    (0x16, "authentication_data", "binary", "CONNECT CONNACK AUTH"),
    (0x17, "request_problem_information", "byte", "CONNECT"),
    (0x18, "will_delay_interval", "four", "will"),
    (0x19, "request_response_information", "byte", "CONNECT"),
    (0x1A, "response_information", "string", "CONNACK"),
    (0x1C, "server_reference", "string", "CONNACK DISCONNECT"),
    (0x1F, "reason_string", "string", f"CONNACK {_ACKS} DISCONNECT AUTH"),
    (0x21, "receive_maximum", "two", "CONNECT CONNACK"),
    (0x22, "topic_alias_maximum", "two", "CONNECT CONNACK"),
    (0x23, "topic_alias", "two", "PUBLISH"),
    (0x24, "maximum_qos", "byte", "CONNACK"),
    (0x25, "retain_available", "byte", "CONNACK"),
    (0x26, "user_property", "pair", f"CONNECT CONNACK PUBLISH will {_ACKS} SUBSCRIBE UNSUBSCRIBE DISCONNECT AUTH"),
    (0x27, "maximum_packet_size", "four", "CONNECT CONNACK"),
    (0x28, "wildcard_subscription_available", "byte", "CONNACK"),
    (0x29, "subscription_identifier_available", "byte", "CONNACK"),
    (0x2A, "shared_subscription_available", "byte", "CONNACK"),
]
PROPERTIES = {number: (name, form, frozenset(where.split())) for number, name, form, where in _PROPERTY_TABLE}
PROPERTY_NUMBER = {name: number for number, (name, _, _) in PROPERTIES.items()}

# (property, packet) that may stand more than once; any other twice is a Protocol Error.
_REPEATABLE = {("user_property", where) for where in PROPERTIES[0x26][2]} | {("subscription_identifier", "PUBLISH")}

# Properties that may not be zero, and the reason code when they are (5.0 §3.1.2.11.3, §3.1.2.11.4, §3.8.2.1.2, §3.3.4).
_NOT_ZERO = {
    "receive_maximum": PROTOCOL_ERROR,
    "maximum_packet_size": PROTOCOL_ERROR,
    "subscription_identifier": PROTOCOL_ERROR,
    "topic_alias": TOPIC_ALIAS_INVALID,
}

# Reason codes a packet may carry (5.0 §3.2.2.2 … §3.15.2.1). 0x8C is in table 2-6 for DISCONNECT, though not in
# table 3-10: accepted.
REASONS = {
    "CONNACK": bytes.fromhex("00 80 81 82 83 84 85 86 87 88 89 8A 8C 90 95 97 99 9A 9B 9C 9D 9F"),
    "PUBACK": bytes.fromhex("00 10 80 83 87 90 91 97 99"),
    "PUBREC": bytes.fromhex("00 10 80 83 87 90 91 97 99"),
    "PUBREL": bytes.fromhex("00 92"),
    "PUBCOMP": bytes.fromhex("00 92"),
    "SUBACK": bytes.fromhex("00 01 02 80 83 87 8F 91 97 9E A1 A2"),
    "UNSUBACK": bytes.fromhex("00 11 80 83 87 8F 91"),
    "DISCONNECT": bytes.fromhex(
        "00 04 80 81 82 83 87 89 8B 8C 8D 8E 8F 90 93 94 95 96 97 98 99 9A 9B 9C 9D 9E 9F A0 A1 A2"
    ),
    "AUTH": bytes.fromhex("00 18 19"),
}
# The return codes of 3.1.1 (§3.2.2.3, §3.9.3).
REASONS_V4 = {"CONNACK": bytes.fromhex("00 01 02 03 04 05"), "SUBACK": bytes.fromhex("00 01 02 80")}


# --- reading -------------------------------------------------------------------------------------------------------


class _Reader:
    """Takes fields off the front of some bytes; a field that is not wholly there makes the packet malformed."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _malformed(f"a field of {size} bytes where {self.left} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self) -> bytes:
        return self.take(self.left)

    def end(self) -> None:
        if self.left:
            raise _malformed(f"{self.left} bytes too many")

    def byte(self) -> int:
        return self.take(1)[0]

    def two(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def four(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        """A variable byte integer in its shortest form (5.0 §1.5.5, MQTT-1.5.5-1)."""
        found = _varint(self.data[self.at :])
        if found is None:
            raise _malformed("a variable byte integer without end")
        value, size = found
        if size != len(_varint_bytes(value)):
            raise _malformed("a variable byte integer longer than need be")
        self.at += size
        return value

    def binary(self) -> bytes:
        return self.take(self.two())

    def string(self) -> str:
        """A UTF-8 string (5.0 §1.5.4): well-formed, without surrogates and without U+0000."""
        try:
            text = self.binary().decode("utf-8", "strict")
        except UnicodeDecodeError as error:
            raise _malformed(f"not UTF-8: {error.reason}") from None
        if "\0" in text:
            raise _malformed("U+0000 in a string")
        return text

    def pair(self) -> list[str]:
        return [self.string(), self.string()]

    def packet_id(self) -> int:
        number = self.two()
        if number == 0:
            raise _protocol("packet identifier 0")
        return number


def _varint(data: bytes) -> tuple[int, int] | None:
    """The variable byte integer at the head of `data` and its size in bytes; None when it goes on behind the end."""
    value = 0
    for index, byte in enumerate(data[:4]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, index + 1
    if len(data) >= 4:
        raise _malformed("a variable byte integer of more than four bytes")
    return None


def _check_topic_name(topic: str) -> str:
    """A topic name has no wildcards and is not empty (MQTT-4.7.1-1, MQTT-4.7.3-1)."""
    if "+" in topic or "#" in topic:
        raise MqttError(TOPIC_NAME_INVALID, f"a wildcard in the topic name {topic!r}")
    if not topic:
        raise MqttError(TOPIC_NAME_INVALID, "an empty topic name")
    return topic


def _check_property(name: str, form: str, value: Any) -> None:
    if form == "byte" and value > 1:
        raise _protocol(f"{name} is {value}, neither 0 nor 1")
    if value == 0 and name in _NOT_ZERO:
        raise MqttError(_NOT_ZERO[name], f"{name} is 0")
    if name == "response_topic":
        _check_topic_name(value)


def _read_properties(reader: _Reader, version: int, where: str) -> list[list[Any]]:
    if version != 5:
        return []
    part = _Reader(reader.take(reader.varint()))
    found: list[list[Any]] = []
    seen = set()
    while part.left:
        number = part.varint()
        name, form, places = PROPERTIES.get(number, ("", "", frozenset()))
        if where not in places:
            raise _malformed(f"property 0x{number:02X} has no place in {where}")
        value = getattr(part, form)()
        if name in seen and (name, where) not in _REPEATABLE:
            raise _protocol(f"{name} occurs twice")
        _check_property(name, form, value)
        seen.add(name)
        found.append([name, value])
    if "authentication_data" in seen and "authentication_method" not in seen and where == "CONNECT":
        raise _protocol("authentication data without a method")
    return found


def _check_reason(packet_type: str, version: int, reason: int) -> int:
    table = REASONS if version == 5 else REASONS_V4
    if reason not in table[packet_type]:
        raise _protocol(f"reason code 0x{reason:02X} in {packet_type}")
    return reason


def _read_connect(reader: _Reader, _version: int, _flags: int) -> Packet:
    name = reader.string()
    level = reader.byte()
    if level not in PROTOCOLS.get(name, ()):
        raise MqttError(UNSUPPORTED_PROTOCOL_VERSION, f"protocol {name!r} level {level}")
    flags = reader.byte()
    has_username, has_password, will_retain = bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20)
    will_qos, has_will, clean_start = flags >> 3 & 3, bool(flags & 0x04), bool(flags & 0x02)
    if flags & 0x01:
        raise _malformed("the reserved connect flag is set")
    if will_qos == 3:
        raise _malformed("will QoS 3")
    if not has_will and (will_qos or will_retain):
        raise _malformed("will QoS or will retain without a will")
    if has_password and not has_username and level != 5:
        raise _malformed("a password without a user name")
    keep_alive = reader.two()
    properties = _read_properties(reader, level, "CONNECT")
    client_id = reader.string()
    will = None
    if has_will:
        will_properties = _read_properties(reader, level, "will")
        will = {
            "qos": will_qos,
            "retain": will_retain,
            "topic": _check_topic_name(reader.string()),
            "payload": reader.binary(),
            "properties": will_properties,
        }
    return {
        "version": level,
        "clean_start": clean_start,
        "keep_alive": keep_alive,
        "client_id": client_id,
        "properties": properties,
        "will": will,
        "username": reader.string() if has_username else None,
        "password": reader.binary() if has_password else None,
    }


def _read_connack(reader: _Reader, version: int, _flags: int) -> Packet:
    flags = reader.byte()
    if flags > 1:
        raise _malformed("a reserved connect acknowledge flag is set")
    reason = _check_reason("CONNACK", version, reader.byte())
    if flags and reason:
        raise _protocol("session present in a refusal")
    properties = _read_properties(reader, version, "CONNACK")
    return {"session_present": bool(flags), "reason": reason, "properties": properties}


def _read_publish(reader: _Reader, version: int, flags: int) -> Packet:
    qos = flags >> 1 & 3
    topic = reader.string()
    packet_id = reader.packet_id() if qos else None
    properties = _read_properties(reader, version, "PUBLISH")
    if topic or version != 5:
        _check_topic_name(topic)
    elif all(name != "topic_alias" for name, _ in properties):
        raise _protocol("neither a topic name nor a topic alias")
    return {
        "dup": bool(flags & 8),
        "qos": qos,
        "retain": bool(flags & 1),
        "topic": topic,
        "id": packet_id,
        "properties": properties,
        "payload": reader.rest(),
    }


def _read_ack(packet_type: str) -> Callable[[_Reader, int, int], Packet]:
    """PUBACK, PUBREC, PUBREL, PUBCOMP: 5.0 lets reason code and properties go where they say nothing (§3.4.2.1)."""

    def read(reader: _Reader, version: int, _flags: int) -> Packet:
        packet_id = reader.packet_id()
        reason = 0
        properties: list[list[Any]] = []
        if version == 5 and reader.left:
            reason = _check_reason(packet_type, version, reader.byte())
        if version == 5 and reader.left:
            properties = _read_properties(reader, version, packet_type)
        return {"id": packet_id, "reason": reason, "properties": properties}

    return read


def _read_subscribe(reader: _Reader, version: int, _flags: int) -> Packet:
    packet_id = reader.packet_id()
    properties = _read_properties(reader, version, "SUBSCRIBE")
    filters = []
    while reader.left:
        topic_filter = reader.string()
        options = reader.byte()
        if not topic_filter:
            raise _protocol("an empty topic filter")
        if options & (0xC0 if version == 5 else 0xFC):
            raise _malformed("a reserved subscription option is set")
        qos, retain_handling = options & 3, options >> 4 & 3
        if qos == 3:  # 5.0 §3.8.3.1 calls it a Protocol Error, 3.1.1 (MQTT-3-8.3-4) malformed
            raise (_protocol if version == 5 else _malformed)("maximum QoS 3")
        if retain_handling == 3:
            raise _protocol("retain handling 3")
        filters.append(
            {
                "filter": topic_filter,
                "qos": qos,
                "no_local": bool(options & 4),
                "retain_as_published": bool(options & 8),
                "retain_handling": retain_handling,
            }
        )
    if not filters:
        raise _protocol("no topic filter")
    return {"id": packet_id, "properties": properties, "filters": filters}


def _read_suback(reader: _Reader, version: int, _flags: int) -> Packet:
    packet_id = reader.packet_id()
    properties = _read_properties(reader, version, "SUBACK")
    reasons = [_check_reason("SUBACK", version, reason) for reason in reader.rest()]
    if not reasons:
        raise _protocol("no reason code")
    return {"id": packet_id, "properties": properties, "reasons": reasons}


def _read_unsubscribe(reader: _Reader, version: int, _flags: int) -> Packet:
    packet_id = reader.packet_id()
    properties = _read_properties(reader, version, "UNSUBSCRIBE")
    filters = []
    while reader.left:
        filters.append(reader.string())
        if not filters[-1]:
            raise _protocol("an empty topic filter")
    if not filters:
        raise _protocol("no topic filter")
    return {"id": packet_id, "properties": properties, "filters": filters}


def _read_unsuback(reader: _Reader, version: int, _flags: int) -> Packet:
    packet_id = reader.packet_id()
    properties = _read_properties(reader, version, "UNSUBACK")
    reasons: list[int] = []
    if version == 5:
        reasons = [_check_reason("UNSUBACK", version, reason) for reason in reader.rest()]
        if not reasons:
            raise _protocol("no reason code")
    return {"id": packet_id, "properties": properties, "reasons": reasons}


def _read_ping(_reader: _Reader, _version: int, _flags: int) -> Packet:
    return {}


def _read_disconnect(reader: _Reader, version: int, _flags: int) -> Packet:
    reason = 0
    properties: list[list[Any]] = []
    if version == 5 and reader.left:
        reason = _check_reason("DISCONNECT", version, reader.byte())
    if version == 5 and reader.left:
        properties = _read_properties(reader, version, "DISCONNECT")
    return {"reason": reason, "properties": properties}


def _read_auth(reader: _Reader, version: int, _flags: int) -> Packet:
    """AUTH may be empty, which means reason 0 without properties (5.0 §3.15.2.1); else it names its method."""
    if not reader.left:
        return {"reason": 0, "properties": []}
    reason = _check_reason("AUTH", version, reader.byte())
    properties = _read_properties(reader, version, "AUTH")
    if (reason or properties) and all(name != "authentication_method" for name, _ in properties):
        raise _protocol("AUTH without an authentication method")
    return {"reason": reason, "properties": properties}


_READERS: dict[str, Callable[[_Reader, int, int], Packet]] = {
    "CONNECT": _read_connect,
    "CONNACK": _read_connack,
    "PUBLISH": _read_publish,
    "PUBACK": _read_ack("PUBACK"),
    "PUBREC": _read_ack("PUBREC"),
    "PUBREL": _read_ack("PUBREL"),
    "PUBCOMP": _read_ack("PUBCOMP"),
    "SUBSCRIBE": _read_subscribe,
    "SUBACK": _read_suback,
    "UNSUBSCRIBE": _read_unsubscribe,
    "UNSUBACK": _read_unsuback,
    "PINGREQ": _read_ping,
    "PINGRESP": _read_ping,
    "DISCONNECT": _read_disconnect,
    "AUTH": _read_auth,
}


def _check_first_byte(first: int, version: int | None) -> str:
    """The packet type that the first byte names; raises MqttError when type or flags are not allowed."""
    packet_type, flags = TYPES.get(first >> 4, ""), first & 0x0F
    if not packet_type or (packet_type == "AUTH" and version in (3, 4)):
        raise _malformed(f"packet type {first >> 4} is reserved")
    if packet_type == "PUBLISH":
        if flags >> 1 & 3 == 3:
            raise _malformed("QoS 3")
        if flags & 8 and not flags >> 1 & 3:
            raise _malformed("DUP with QoS 0")
    elif flags != FLAGS[packet_type]:
        raise _malformed(f"flags {flags:04b} in {packet_type}")
    if version is None and packet_type != "CONNECT":
        raise _protocol(f"{packet_type} before CONNECT")
    return packet_type


def decode(data: bytes, version: int | None, max_size: int = PACKET_SIZE_MAX) -> tuple[Packet, int] | None:
    """Reads one packet from the head of `data`.

    `version` is the protocol level of the connection (3, 4 or 5), or None before CONNECT; a CONNECT goes by the level
    that it names itself. `max_size` bounds the whole packet in bytes.

    Returns the packet and its size in bytes, or None when more bytes are needed. Raises MqttError: for the fixed header
    as soon as the wrong byte is there, for the rest when the packet is complete.
    """
    if not data:
        return None
    packet_type = _check_first_byte(data[0], version)
    length = _varint(data[1:])
    if length is None:
        return None
    remaining, length_size = length
    shortest = length_size == len(_varint_bytes(remaining))
    if not shortest and version == 5 and packet_type != "CONNECT":
        raise _malformed("a remaining length longer than need be")
    size = 1 + length_size + remaining
    if size > max_size:
        raise MqttError(PACKET_TOO_LARGE, f"{packet_type} of {size} bytes where {max_size} are allowed")
    if size > len(data):
        return None

    reader = _Reader(data[1 + length_size : size])
    packet: Packet = {"type": packet_type} | _READERS[packet_type](reader, version or 0, data[0] & 0x0F)
    reader.end()
    # 3.1 and 3.1.1 do not ask for the shortest form; whether this is 5.0 a CONNECT says only in its body.
    if not shortest and packet.get("version") == 5:
        raise _malformed("a remaining length longer than need be")
    return packet, size


class Decoder:
    """Packets out of a stream of chunks, cut anywhere.

    `version` is the protocol level of the connection, or None before CONNECT; each CONNECT that passes sets it.
    """

    def __init__(self, version: int | None = None, max_size: int = PACKET_SIZE_MAX) -> None:
        self.version = version
        self.max_size = max_size
        self._buffer = b""

    def feed(self, chunk: bytes) -> list[Packet]:
        """The packets that `chunk` completes. Raises MqttError; the stream is not to be fed after that."""
        self._buffer += chunk
        packets = []
        while (found := decode(self._buffer, self.version, self.max_size)) is not None:
            packet, size = found
            self._buffer = self._buffer[size:]
            if packet["type"] == "CONNECT":
                self.version = packet["version"]
            packets.append(packet)
        return packets


# --- writing -------------------------------------------------------------------------------------------------------


def _unsigned(value: int, size: int) -> bytes:
    if not 0 <= value < 1 << 8 * size:
        raise _protocol(f"{value} does not fit {size} bytes")
    return value.to_bytes(size, "big")


def _byte_bytes(value: int) -> bytes:
    return _unsigned(value, 1)


def _two_bytes(value: int) -> bytes:
    return _unsigned(value, 2)


def _four_bytes(value: int) -> bytes:
    return _unsigned(value, 4)


def _varint_bytes(value: int) -> bytes:
    if not 0 <= value <= REMAINING_LENGTH_MAX:
        raise _protocol(f"{value} does not fit a variable byte integer")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _binary_bytes(value: bytes) -> bytes:
    if len(value) > STRING_MAX:
        raise MqttError(PACKET_TOO_LARGE, f"{len(value)} bytes do not fit a field of {STRING_MAX}")
    return _two_bytes(len(value)) + value


def _string_bytes(value: str) -> bytes:
    return _binary_bytes(value.encode("utf-8"))


def _pair_bytes(value: list[str]) -> bytes:
    return b"".join(map(_string_bytes, value))


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "byte": _byte_bytes,
    "two": _two_bytes,
    "four": _four_bytes,
    "varint": _varint_bytes,
    "binary": _binary_bytes,
    "string": _string_bytes,
    "pair": _pair_bytes,
}


def _properties_bytes(properties: list[list[Any]], version: int) -> bytes:
    if version != 5:
        if properties:
            raise _protocol("properties before 5.0")
        return b""
    out = b""
    for name, value in properties:
        number = PROPERTY_NUMBER[name]
        out += _varint_bytes(number) + _WRITERS[PROPERTIES[number][1]](value)
    return _varint_bytes(len(out)) + out


def _reason_bytes(packet: Packet, version: int) -> bytes:
    """Reason code and properties at the end of a packet, in the shortest form (5.0 §3.4.2.1, §3.14.2.1)."""
    if version != 5 or not (packet["reason"] or packet["properties"]):
        return b""
    if not packet["properties"]:
        return _byte_bytes(packet["reason"])
    return _byte_bytes(packet["reason"]) + _properties_bytes(packet["properties"], version)


def _qos_bits(qos: int) -> int:
    if qos not in (0, 1, 2):
        raise _protocol(f"QoS {qos}")
    return qos


def _id_bytes(packet: Packet) -> bytes:
    if not packet["id"]:
        raise _protocol("packet identifier 0")
    return _two_bytes(packet["id"])


def _connect_bytes(packet: Packet, _version: int) -> bytes:
    level, will = packet["version"], packet["will"]
    flags = packet["clean_start"] << 1 | (packet["username"] is not None) << 7 | (packet["password"] is not None) << 6
    if will is not None:
        flags |= 0x04 | _qos_bits(will["qos"]) << 3 | will["retain"] << 5
    out = _string_bytes(PROTOCOL_NAME[level]) + bytes([level, flags]) + _two_bytes(packet["keep_alive"])
    out += _properties_bytes(packet["properties"], level) + _string_bytes(packet["client_id"])
    if will is not None:
        out += _properties_bytes(will["properties"], level)
        out += _string_bytes(will["topic"]) + _binary_bytes(will["payload"])
    if packet["username"] is not None:
        out += _string_bytes(packet["username"])
    if packet["password"] is not None:
        out += _binary_bytes(packet["password"])
    return out


def _publish_bytes(packet: Packet, version: int) -> bytes:
    packet_id = _id_bytes(packet) if packet["qos"] else b""
    properties = _properties_bytes(packet["properties"], version)
    return _string_bytes(packet["topic"]) + packet_id + properties + bytes(packet["payload"])


def _subscription_bytes(entry: Packet) -> bytes:
    if entry["retain_handling"] not in (0, 1, 2):
        raise _protocol(f"retain handling {entry['retain_handling']}")
    options = _qos_bits(entry["qos"]) | entry["no_local"] << 2 | entry["retain_as_published"] << 3
    return _string_bytes(entry["filter"]) + _byte_bytes(options | entry["retain_handling"] << 4)


def _body_bytes(packet: Packet, version: int) -> bytes:
    match packet["type"]:
        case "CONNECT":
            return _connect_bytes(packet, version)
        case "CONNACK":
            head = bytes([packet["session_present"]]) + _byte_bytes(packet["reason"])
            return head + _properties_bytes(packet["properties"], version)
        case "PUBLISH":
            return _publish_bytes(packet, version)
        case "PUBACK" | "PUBREC" | "PUBREL" | "PUBCOMP":
            return _id_bytes(packet) + _reason_bytes(packet, version)
        case "SUBSCRIBE":
            head = _id_bytes(packet) + _properties_bytes(packet["properties"], version)
            return head + b"".join(map(_subscription_bytes, packet["filters"]))
        case "UNSUBSCRIBE":
            head = _id_bytes(packet) + _properties_bytes(packet["properties"], version)
            return head + b"".join(map(_string_bytes, packet["filters"]))
        case "SUBACK" | "UNSUBACK":
            head = _id_bytes(packet) + _properties_bytes(packet["properties"], version)
            return head + b"".join(map(_byte_bytes, packet["reasons"]))
        case "DISCONNECT" | "AUTH":
            return _reason_bytes(packet, version)
        case _:
            return b""


def encode(packet: Packet, version: int) -> bytes:
    """The packet as bytes, in the shortest form that the standard allows; a CONNECT goes by its own `version`.

    Raises MqttError with PACKET_TOO_LARGE for what is too long (a string over 65,535 bytes, a remaining length over
    REMAINING_LENGTH_MAX), with PROTOCOL_ERROR for a number outside its field and for properties before 5.0. That
    strings and properties suit the packet is the caller's word.
    """
    packet_type = packet["type"]
    flags = FLAGS[packet_type]
    if packet_type == "PUBLISH":
        flags = packet["dup"] << 3 | _qos_bits(packet["qos"]) << 1 | packet["retain"]
    body = _body_bytes(packet, version)
    if len(body) > REMAINING_LENGTH_MAX:
        raise MqttError(PACKET_TOO_LARGE, f"{packet_type} of {len(body)} bytes behind the fixed header")
    return bytes([TYPE_NUMBER[packet_type] << 4 | flags]) + _varint_bytes(len(body)) + body
