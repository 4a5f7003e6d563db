"""What holds for every packet, tried on packets that nobody thought of (hypothesis).

Proves: decode(encode(p)) is p; both codecs write the same bytes; cutting a stream changes nothing; and on damaged
bytes both codecs accept the same packets, and refuse the others.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peanutd import _core
from tests.effort import tries
from tests.reference import codec as reference
from tests.reference import vectors
from tests.reference.codec import Packet

CODECS: dict[str, Any] = {"reference": reference, "core": _core}
Case = tuple[int, Packet]  # protocol level of the connection, packet

# Damaged bytes may be wrong in two ways at once, and either may be told.
EITHER = {reference.MALFORMED_PACKET, reference.PROTOCOL_ERROR}

# --- packets -------------------------------------------------------------------------------------------------------

_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(_characters, max_size=12)
topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=12)
filters = st.text(_characters, min_size=1, max_size=12)
blobs = st.binary(max_size=12)
ids = st.integers(1, 0xFFFF)
bits = st.booleans()
levels = st.sampled_from([4, 5])

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "byte": st.integers(0, 1),
    "two": st.integers(0, 0xFFFF),
    "four": st.integers(0, 0xFFFFFFFF),
    "varint": st.one_of(st.integers(1, 300), st.integers(1, reference.REMAINING_LENGTH_MAX)),
    "binary": blobs,
    "string": texts,
    "pair": st.tuples(texts, texts).map(list),
}
_SPECIAL = {
    "response_topic": topics,
    "receive_maximum": ids,
    "topic_alias": ids,
    "maximum_packet_size": st.integers(1, 0xFFFFFFFF),
}


@st.composite
def properties(draw: st.DrawFn, version: int, where: str) -> list[list[Any]]:
    """Properties that `where` may have, each once or, where that is allowed, more often, in any order."""
    if version != 5:
        return []
    allowed = sorted(name for name, _, places in reference.PROPERTIES.values() if where in places)
    names = draw(st.lists(st.sampled_from(allowed), max_size=6, unique=True))
    names += [name for name in ("user_property",) for _ in range(draw(st.integers(0, 2)))]
    if where == "PUBLISH":
        names += ["subscription_identifier"] * draw(st.integers(0, 2))
    if where in ("CONNECT", "CONNACK") and "authentication_data" in names and "authentication_method" not in names:
        names.append("authentication_method")
    if where == "AUTH" and "authentication_method" not in names:
        names.append("authentication_method")
    forms = {name: form for name, form, _ in reference.PROPERTIES.values()}
    return [[name, draw(_SPECIAL.get(name, _VALUES[forms[name]]))] for name in draw(st.permutations(names))]


@st.composite
def connects(draw: st.DrawFn) -> Case:
    version = draw(st.sampled_from([3, 4, 5]))
    will = st.fixed_dictionaries(
        {
            "qos": st.integers(0, 2),
            "retain": bits,
            "topic": topics,
            "payload": blobs,
            "properties": properties(version, "will"),
        }
    )
    username = draw(st.none() | texts)
    may_have_password = version == 5 or username is not None  # 3.1.1: MQTT-3.1.2-22
    return version, {
        "type": "CONNECT",
        "version": version,
        "clean_start": draw(bits),
        "keep_alive": draw(st.integers(0, 0xFFFF)),
        "client_id": draw(texts),
        "properties": draw(properties(version, "CONNECT")),
        "will": draw(st.none() | will),
        "username": username,
        "password": draw(st.none() | blobs) if may_have_password else None,
    }


@st.composite
def connacks(draw: st.DrawFn) -> Case:
    version = draw(levels)
    table = reference.REASONS if version == 5 else reference.REASONS_V4
    reason = draw(st.sampled_from(table["CONNACK"]))
    return version, {
        "type": "CONNACK",
        "session_present": draw(bits) if reason == 0 else False,
        "reason": reason,
        "properties": draw(properties(version, "CONNACK")),
    }


@st.composite
def publishes(draw: st.DrawFn) -> Case:
    version, qos = draw(levels), draw(st.integers(0, 2))
    found = draw(properties(version, "PUBLISH"))
    has_alias = any(name == "topic_alias" for name, _ in found)
    return version, {
        "type": "PUBLISH",
        "dup": draw(bits) if qos else False,
        "qos": qos,
        "retain": draw(bits),
        "topic": draw(topics | st.just("") if has_alias else topics),
        "id": draw(ids) if qos else None,
        "properties": found,
        "payload": draw(st.one_of(blobs, st.binary(min_size=100, max_size=200))),
    }


@st.composite
def acks(draw: st.DrawFn) -> Case:
    version, packet_type = draw(levels), draw(st.sampled_from(["PUBACK", "PUBREC", "PUBREL", "PUBCOMP"]))
    reason = draw(st.sampled_from(reference.REASONS[packet_type])) if version == 5 else 0
    found = draw(properties(version, packet_type))
    return version, {"type": packet_type, "id": draw(ids), "reason": reason, "properties": found}


@st.composite
def subscribes(draw: st.DrawFn) -> Case:
    version = draw(levels)
    new = bits if version == 5 else st.just(False)
    entry = st.fixed_dictionaries(
        {
            "filter": filters,
            "qos": st.integers(0, 2),
            "no_local": new,
            "retain_as_published": new,
            "retain_handling": st.integers(0, 2 if version == 5 else 0),
        }
    )
    return version, {
        "type": "SUBSCRIBE",
        "id": draw(ids),
        "properties": draw(properties(version, "SUBSCRIBE")),
        "filters": draw(st.lists(entry, min_size=1, max_size=4)),
    }


@st.composite
def subacks(draw: st.DrawFn) -> Case:
    version, packet_type = draw(levels), draw(st.sampled_from(["SUBACK", "UNSUBACK"]))
    table = reference.REASONS if version == 5 else reference.REASONS_V4
    codes = table.get(packet_type, b"")  # an UNSUBACK of 3.1.1 has none
    return version, {
        "type": packet_type,
        "id": draw(ids),
        "properties": draw(properties(version, packet_type)),
        "reasons": draw(st.lists(st.sampled_from(codes), min_size=1, max_size=4)) if codes else [],
    }


@st.composite
def unsubscribes(draw: st.DrawFn) -> Case:
    version = draw(levels)
    return version, {
        "type": "UNSUBSCRIBE",
        "id": draw(ids),
        "properties": draw(properties(version, "UNSUBSCRIBE")),
        "filters": draw(st.lists(filters, min_size=1, max_size=4)),
    }


@st.composite
def endings(draw: st.DrawFn) -> Case:
    packet_type = draw(st.sampled_from(["DISCONNECT", "AUTH"]))
    version = draw(levels) if packet_type == "DISCONNECT" else 5
    reason = draw(st.sampled_from(reference.REASONS[packet_type])) if version == 5 else 0
    return version, {
        "type": packet_type,
        "reason": reason,
        "properties": draw(properties(version, packet_type)),
    }


pings = st.tuples(levels, st.sampled_from(["PINGREQ", "PINGRESP"]).map(lambda name: {"type": name}))
cases: st.SearchStrategy[Case] = st.one_of(
    connects(), connacks(), publishes(), acks(), subscribes(), subacks(), unsubscribes(), endings(), pings
)

# --- properties of codecs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
@given(case=cases)
@settings(max_examples=tries(100))
def test_decode_of_encode_is_the_packet(name: str, case: Case) -> None:
    version, packet = case
    codec = CODECS[name]
    data = codec.encode(packet, version)
    assert codec.decode(data, version, len(data)) == (packet, len(data))
    assert codec.decode(data + data, version, len(data)) == (packet, len(data))
    assert codec.decode(data[:-1], version, len(data)) is None


@given(case=cases)
@settings(max_examples=tries(150))
def test_both_codecs_write_the_same_bytes(case: Case) -> None:
    version, packet = case
    assert _core.encode(packet, version) == reference.encode(packet, version)


@pytest.mark.parametrize("name", CODECS)
@given(version=levels, many=st.lists(cases, min_size=1, max_size=5), cuts=st.lists(st.integers(1, 40), min_size=1))
@settings(max_examples=tries(50))
def test_cutting_a_stream_changes_nothing(name: str, version: int, many: list[Case], cuts: list[int]) -> None:
    codec = CODECS[name]
    packets = [packet for level, packet in many if level == version and packet["type"] != "CONNECT"]
    stream = b"".join(reference.encode(packet, version) for packet in packets)
    decoder, got, at, turn = codec.Decoder(version), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        got += decoder.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert got == packets


# --- damaged packets -----------------------------------------------------------------------------------------------

_VECTORS = vectors.load()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[int, bytes]:
    """A packet, made up or from the vectors, with a few bytes changed, put in, taken out or cut off."""
    if draw(bits):
        version, packet = draw(cases)
        data = bytearray(reference.encode(packet, version))
    else:
        vector = draw(st.sampled_from(_VECTORS))
        version, data = vector.version, bytearray(vector.data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["flip", "set", "insert", "delete", "cut", "grow"]))
        if how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=3))
        elif how == "cut":
            del data[at:]
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 3))]
        elif how == "grow" and len(data) > 1:  # the remaining length one up or down: fields shift against the end
            data[1] = (data[1] + draw(st.sampled_from([-1, 1]))) % 0x80
        elif data:
            data[at] = data[at] ^ (1 << draw(st.integers(0, 7))) if how == "flip" else draw(st.integers(0, 255))
    return version, bytes(data)


def verdict(codec: Any, data: bytes, version: int | None, max_size: int) -> Any:
    """What decode answers: (packet, size), None for more, or the reason code of the MqttError."""
    try:
        return codec.decode(data, version, max_size)
    except codec.MqttError as error:
        return error.code


def assert_alike(data: bytes, version: int | None, max_size: int) -> None:
    """Both accept the same packet, both ask for more, or both refuse: with one code, or each with one of `EITHER`."""
    core, plain = verdict(_core, data, version, max_size), verdict(reference, data, version, max_size)
    if not (isinstance(core, int) and isinstance(plain, int) and {core, plain} <= EITHER):
        assert core == plain


@given(case=damaged(), max_size=st.sampled_from([40, reference.PACKET_SIZE_MAX]), before_connect=bits)
@settings(max_examples=tries(300))
def test_both_codecs_judge_damaged_packets_alike(case: tuple[int, bytes], max_size: int, before_connect: bool) -> None:
    version, data = case
    level = None if before_connect and data[:1] == b"\x10" else version
    assert_alike(data, level, max_size)


@given(data=st.binary(max_size=60), version=st.sampled_from([None, 3, 4, 5]))
@settings(max_examples=tries(200))
def test_both_codecs_judge_noise_alike(data: bytes, version: int | None) -> None:
    assert_alike(data, version, reference.PACKET_SIZE_MAX)
