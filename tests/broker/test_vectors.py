"""Every codec against the protocol vectors: they say what each byte means, so a codec that disagrees is wrong.

Proves, for the C core and for the reference codec alike: valid packets decode to what the vector says and encode to its
bytes; invalid ones are refused with an allowed reason code; it makes no difference how the stream is cut; a prefix of
a packet is never an error and never a packet.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from peanutd import _core
from tests.reference import codec as reference
from tests.reference import vectors
from tests.reference.vectors import Vector

CODECS: dict[str, Any] = {"reference": reference, "core": _core}
ALL = vectors.load()
VALID = [vector for vector in ALL if vector.packet is not None]
INVALID = [vector for vector in ALL if vector.packet is None]
FILES = sorted({vector.file for vector in ALL})

PINGREQ = b"\xc0\x00"


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Any:
    """Each codec in turn."""
    return CODECS[request.param]


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> str:
    """Each file of vectors in turn."""
    return str(request.param)


def check(chosen: Iterable[Vector], judge: Callable[[Vector], str]) -> None:
    """Runs `judge` on each vector; fails with every complaint, so that one run shows them all."""
    complaints = [f"{v.name} ({v.clause}: {v.why}) {said}" for v in chosen if (said := judge(v))]
    assert not complaints, "\n".join([f"{len(complaints)} vectors failed", *complaints])


def outcome(codec: Any, data: bytes, version: int | None, max_size: int = reference.PACKET_SIZE_MAX) -> Any:
    """What decode answers: (packet, size), None for more, or the reason code of the MqttError."""
    try:
        return codec.decode(data, version, max_size)
    except codec.MqttError as error:
        return error.code


def feed(codec: Any, version: int | None, chunks: Iterable[bytes]) -> tuple[list[Any], int | None]:
    """The packets that a stream of chunks gives, and the reason code when it ends in an error."""
    decoder = codec.Decoder(version)
    packets: list[Any] = []
    try:
        for chunk in chunks:
            packets += decoder.feed(chunk)
    except codec.MqttError as error:
        return packets, error.code
    return packets, None


def cut(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """`data` in pieces of random sizes, empty ones among them."""
    at = 0
    while at < len(data):
        size = dice.choice((0, 1, 1, 2, 3, 7, 50))
        yield data[at : at + size]
        at += size


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# --- the vectors themselves -----------------------------------------------------------------------------------------


def test_there_are_enough_vectors() -> None:
    for version, valid, invalid in ((4, 75, 125), (5, 150, 250)):
        assert sum(v.version == version for v in VALID) >= valid
        assert sum(v.version == version for v in INVALID) >= invalid
    assert len(VALID) >= 150
    assert len(INVALID) >= 250


def test_names_are_unique() -> None:
    names = [vector.name for vector in ALL]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("version", [4, 5])
def test_every_packet_type_is_there_valid_and_invalid(version: int) -> None:
    types = set(reference.TYPES.values()) - ({"AUTH"} if version == 4 else set())
    assert {v.packet["type"] for v in VALID if v.packet and v.version == version} == types
    assert {reference.TYPES.get(v.data[0] >> 4, "") for v in INVALID if v.version == version} >= types


def places(vector: Vector) -> set[tuple[str, str]]:
    """(property, packet or will) that a valid vector shows."""
    packet = vector.packet or {}
    found = {(name, packet["type"]) for name, _ in packet.get("properties", [])}
    return found | {(name, "will") for name, _ in (packet.get("will") or {}).get("properties", [])}


def test_every_property_is_there_in_and_out_of_place() -> None:
    where = {"CONNECT", "will", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK"}
    where |= {"UNSUBSCRIBE", "UNSUBACK", "DISCONNECT", "AUTH"}
    allowed = {(name, place) for name, _, those in reference.PROPERTIES.values() for place in those}
    assert set().union(*map(places, VALID)) == allowed
    names = {vector.name for vector in INVALID}
    for name in reference.PROPERTY_NUMBER:
        for place in where:
            label = f"property-{name.replace('_', '-')}-{place.lower()}"
            if (name, place) not in allowed:
                assert f"{label}-misplaced" in names
            elif name != "user_property" and (name, place) != ("subscription_identifier", "PUBLISH"):
                assert f"{label}-twice" in names


def test_every_reason_code_is_there() -> None:
    packets = [vector.packet for vector in VALID if vector.packet and vector.version == 5]
    for packet_type, codes in reference.REASONS.items():
        shown = {p["reason"] for p in packets if p["type"] == packet_type and "reason" in p}
        shown |= {reason for p in packets if p["type"] == packet_type for reason in p.get("reasons", [])}
        tables_differ = {0x8C} if packet_type == "DISCONNECT" else set()  # 5.0 table 2-6 has it, table 3-10 does not
        assert shown == set(codes) - tables_differ


# --- one packet -----------------------------------------------------------------------------------------------------


def test_valid_packets_decode_to_the_vector(codec: Any, file: str) -> None:
    def judge(vector: Vector) -> str:
        for version in {vector.version} | ({None} if vector.packet and vector.packet["type"] == "CONNECT" else set()):
            got = outcome(codec, vector.data, version, vector.max_size)
            if got != (vector.packet, len(vector.data)):
                return f"as version {version} is {got}"
        return ""

    check((v for v in VALID if v.file == file), judge)


def test_packets_end_where_they_end(codec: Any, file: str) -> None:
    def judge(vector: Vector) -> str:
        got = outcome(codec, vector.data + b"\xff\xff\xff\xff\xff", vector.version, vector.max_size)
        return "" if got == (vector.packet, len(vector.data)) else f"with bytes behind it is {got}"

    check((v for v in VALID if v.file == file), judge)


def test_invalid_packets_are_refused_with_an_allowed_code(codec: Any, file: str) -> None:
    def judge(vector: Vector) -> str:
        got = outcome(codec, vector.data, vector.version, vector.max_size)
        return "" if got in vector.codes else f"gives {got}, not one of {sorted(vector.codes)}"

    check((v for v in INVALID if v.file == file), judge)


def test_the_reference_gives_the_error_that_the_vector_names(file: str) -> None:
    def judge(vector: Vector) -> str:
        got = outcome(reference, vector.data, vector.version, vector.max_size)
        return "" if got == vectors.ERRORS[vector.error] else f"gives {got}, not {vector.error}"

    check((v for v in INVALID if v.file == file), judge)


def test_packets_encode_to_the_vector_or_to_less(codec: Any, file: str) -> None:
    def judge(vector: Vector) -> str:
        written = codec.encode(vector.packet, vector.version)
        if vector.canonical:
            return "" if written == vector.data else f"encodes to {written.hex(' ')}"
        if len(written) >= len(vector.data):
            return f"is not canonical, yet encodes to {written.hex(' ')}"
        return "" if outcome(codec, written, vector.version) == (vector.packet, len(written)) else "does not survive"

    check((v for v in VALID if v.file == file), judge)


def test_a_prefix_of_a_valid_packet_asks_for_more(codec: Any, file: str) -> None:
    def judge(vector: Vector) -> str:
        for size in range(len(vector.data)):
            got = outcome(codec, vector.data[:size], vector.version, vector.max_size)
            if got is not None:
                return f"cut to {size} bytes is {got}"
        return ""

    check((v for v in VALID if v.file == file), judge)


def test_a_prefix_of_an_invalid_packet_asks_for_more_or_is_refused_alike(codec: Any, file: str) -> None:
    def judge(vector: Vector) -> str:
        refused = False
        for size in range(len(vector.data)):
            got = outcome(codec, vector.data[:size], vector.version, vector.max_size)
            if refused and got is None:
                return f"was refused, and cut to {size} bytes is not"
            if got is not None and got not in vector.codes:
                return f"cut to {size} bytes gives {got}"
            refused = refused or got is not None
        return ""

    check((v for v in INVALID if v.file == file), judge)


# --- streams --------------------------------------------------------------------------------------------------------


def test_whole_equals_byte_by_byte_equals_random_pieces(codec: Any, file: str) -> None:
    def judge(vector: Vector) -> str:
        dice = random.Random(vector.name)
        for how, chunks in (
            ("whole", [vector.data]),
            ("byte by byte", one_by_one(vector.data)),
            ("in pieces", list(cut(vector.data, dice))),
        ):
            packets, error = feed(codec, vector.version, chunks)
            if vector.packet is not None and (packets, error) != ([vector.packet], None):
                return f"{how} gives {packets} and {error}"
            if vector.packet is None and (packets or error not in vector.codes):
                return f"{how} gives {packets} and {error}"
        return ""

    check((v for v in ALL if v.file == file and v.max_size == reference.PACKET_SIZE_MAX), judge)


@pytest.mark.parametrize("version", [4, 5])
def test_all_valid_packets_as_one_stream(codec: Any, version: int) -> None:
    chosen = [vector for vector in VALID if vector.version == version]
    stream = b"".join(vector.data for vector in chosen)
    for seed in range(3):
        packets, error = feed(codec, version, cut(stream, random.Random(seed)))
        assert error is None
        assert packets == [vector.packet for vector in chosen]
    assert feed(codec, version, [stream]) == ([vector.packet for vector in chosen], None)


@pytest.mark.parametrize("version", [4, 5])
def test_a_connect_sets_the_version_of_its_stream(codec: Any, version: int) -> None:
    """An UNSUBACK of 3.1.1 is malformed in 5.0 and the other way round, so the version shows (5.0 §3.1.2.2)."""
    stream = {vector.name: vector.data for vector in VALID}
    connect, ours = stream[f"connect-v{version}-client-id"], stream["unsuback-v4" if version == 4 else "unsuback-v5"]
    others = stream["unsuback-v5" if version == 4 else "unsuback-v4"]
    packets, error = feed(codec, None, [connect + ours])
    assert [packet["type"] for packet in packets] == ["CONNECT", "UNSUBACK"]
    assert error is None
    assert feed(codec, None, [connect, others])[1] in (reference.MALFORMED_PACKET, reference.PROTOCOL_ERROR)


def test_nothing_but_connect_comes_first(codec: Any) -> None:
    """MQTT-3.1.0-1, told from the first byte alone; reserved types and flags stay malformed."""
    for first in range(256):
        packet_type, flags = reference.TYPES.get(first >> 4), first & 0x0F
        got = outcome(codec, bytes([first]), None)
        if first == 0x10:
            assert got is None
        elif packet_type == "PUBLISH":
            assert got in (reference.PROTOCOL_ERROR, reference.MALFORMED_PACKET)
        elif packet_type and flags == reference.FLAGS[packet_type]:
            assert got == reference.PROTOCOL_ERROR
        else:
            assert got == reference.MALFORMED_PACKET


# --- sizes that make no good hex ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("remaining", "length"),
    [
        (127, "7F"),
        (128, "80 01"),
        (16_383, "FF 7F"),
        (16_384, "80 80 01"),
        (2_097_151, "FF FF 7F"),
        (2_097_152, "80 80 80 01"),
    ],
)
def test_remaining_length_at_its_borders(codec: Any, version: int, remaining: int, length: str) -> None:
    """5.0 §1.5.5, table 1-1: how many bytes a length takes, low seven bits first."""
    head = b"\x00\x01a" + (b"\x00" if version == 5 else b"")
    data = b"\x30" + bytes.fromhex(length) + head + bytes(remaining - len(head))
    packet, size = codec.decode(data, version, len(data))
    assert size == len(data)
    assert packet["payload"] == bytes(remaining - len(head))
    assert codec.encode(packet, version) == data
    assert outcome(codec, data[:-1], version) is None
    assert outcome(codec, data[:5], version, len(data) - 1) == reference.PACKET_TOO_LARGE


def test_the_largest_remaining_length_asks_for_more(codec: Any) -> None:
    """268,435,455 bytes may come (5.0 §1.5.5); nothing is wrong until a smaller limit says so."""
    assert outcome(codec, bytes.fromhex("30 FF FF FF 7F 00 01 61"), 4) is None


@pytest.mark.parametrize("version", [4, 5])
def test_strings_and_binary_data_of_65535_bytes(codec: Any, version: int) -> None:
    """5.0 §1.5.4, §1.5.6: the length has two bytes, so one byte more cannot be written."""

    def connect(extra: int) -> dict[str, Any]:
        return {
            "type": "CONNECT",
            "version": version,
            "clean_start": True,
            "keep_alive": 0,
            "client_id": "ä" * 32_767 + "a" * (1 + extra),
            "properties": [],
            "will": None,
            "username": "u",
            "password": bytes(65_535),
        }

    data = codec.encode(connect(0), version)
    assert b"\xff\xff\xc3\xa4" in data
    assert codec.decode(data, version, len(data)) == (connect(0), len(data))
    with pytest.raises(codec.MqttError) as refused:
        codec.encode(connect(1), version)
    assert refused.value.code == reference.PACKET_TOO_LARGE


# --- what no packet can say ----------------------------------------------------------------------------------------


def publish(**fields: Any) -> dict[str, Any]:
    packet = {"type": "PUBLISH", "dup": False, "qos": 0, "retain": False, "topic": "a", "id": None}
    return packet | {"properties": [], "payload": b""} | fields


def subscribe(**options: Any) -> dict[str, Any]:
    entry = {"filter": "a", "qos": 0, "no_local": False, "retain_as_published": False, "retain_handling": 0}
    return {"type": "SUBSCRIBE", "id": 1, "properties": [], "filters": [entry | options]}


@pytest.mark.parametrize(
    ("version", "packet"),
    [
        (5, publish(qos=3, id=1)),
        (5, publish(qos=1, id=0)),
        (5, publish(qos=1, id=65_536)),
        (5, publish(properties=[["topic_alias", 65_536]])),
        (5, publish(properties=[["message_expiry_interval", 1 << 32]])),
        (5, publish(properties=[["payload_format_indicator", 256]])),
        (5, publish(properties=[["subscription_identifier", 268_435_456]])),
        (4, publish(properties=[["topic_alias", 1]])),
        (5, subscribe(qos=3)),
        (5, subscribe(retain_handling=3)),
        (5, {"type": "PUBACK", "id": 0, "reason": 0, "properties": []}),
        (5, {"type": "PUBACK", "id": 1, "reason": 256, "properties": []}),
        (5, {"type": "SUBACK", "id": 1, "properties": [], "reasons": [256]}),
    ],
)
def test_what_no_packet_can_say_is_not_written(codec: Any, version: int, packet: dict[str, Any]) -> None:
    """A number outside its field, or a field that the version does not have, is an error and never other bytes."""
    with pytest.raises(codec.MqttError) as refused:
        codec.encode(packet, version)
    assert refused.value.code == reference.PROTOCOL_ERROR


def test_a_packet_over_the_largest_remaining_length_is_not_written(codec: Any) -> None:
    """5.0 §1.5.5: 268,435,455 bytes behind the fixed header, of which topic and payload take 3 and the rest."""
    payload = bytes(reference.REMAINING_LENGTH_MAX - 2)
    with pytest.raises(codec.MqttError) as refused:
        codec.encode(publish(payload=payload), 4)
    assert refused.value.code == reference.PACKET_TOO_LARGE
