"""Chapters 1 and 2 of the standards: how data and packets are written, and by the broker too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker.conformance.tour import Said, tour
from tests.broker.house import House, ack, connect, properties, publish, subscribe, topic_filter, unsubscribe, will
from tests.reference import codec

FROM_SERVERS = {
    4: {"CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "PINGRESP"},
    5: {"CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "PINGRESP", "DISCONNECT"},
}


@pytest.fixture(scope="module", params=[4, 5])
def said(request: pytest.FixtureRequest) -> list[Said]:
    return tour(request.param)


def version_of(said: list[Said]) -> int:
    return 5 if any(one.packet["type"] == "DISCONNECT" for one in said) else 4


def test_the_tour_has_every_packet_that_servers_send(said: list[Said]) -> None:
    """What the tests below judge is complete (AUTH has its own place, test_authentication.py)."""
    assert {one.packet["type"] for one in said} == FROM_SERVERS[version_of(said)]


def test_a_byte_order_mark_is_a_character() -> None:
    """MQTT-1.5.4-3; 3.1.1 MQTT-1.5.3-3: U+FEFF is neither skipped nor stripped, in topics, names and properties."""
    for version in (4, 5):
        house = House()
        client = house.join("c", version)
        client.subscribe("a\ufeff", "\ufeffa", "a")
        for topic in ("a\ufeff", "\ufeffa", "a"):
            house.publish(topic, topic.encode())
        assert [(topic, payload.decode()) for topic, payload, _ in client.messages()] == [
            (topic, topic) for topic in ("a\ufeff", "\ufeffa", "a")
        ]
    publisher = house.join("p")
    said = properties(content_type="\ufeff", user_property=["\ufeffk", "v\ufeff"])
    publisher.send(publish("a", props=said))
    assert client.only()["properties"] == said


def test_two_client_identifiers_that_differ_by_a_mark_are_two() -> None:
    """MQTT-1.5.4-3; 3.1.1 MQTT-1.5.3-3."""
    house = House()
    one, other = house.join("c"), house.join("\ufeffc")
    assert (one.closed, other.closed) == (None, None)


@pytest.mark.parametrize("version", [4, 5])
def test_every_string_of_a_client_is_judged(version: int) -> None:
    """MQTT-1.5.4-1, MQTT-1.5.4-2, MQTT-1.5.7-1, MQTT-3.1.3-4, MQTT-3.1.3-11, MQTT-3.1.3-12, MQTT-3.3.2-1,
    MQTT-3.3.2-13, MQTT-3.3.2-19, MQTT-3.8.3-1, MQTT-3.10.3-1; 3.1.1 MQTT-1.5.3-1, MQTT-1.5.3-2, MQTT-3.1.3-4,
    MQTT-3.1.3-10, MQTT-3.1.3-11, MQTT-3.3.2-1, MQTT-3.8.3-1, MQTT-3.10.3-1: what is not UTF-8, or has U+0000, ends
    the connection."""
    mark = "MARK"
    packets: list[dict[str, Any]] = [
        {"client_id": mark},
        {"username": mark},
        {"will": will(mark)},
        publish(mark),
        subscribe(topic_filter(mark)),
        unsubscribe(mark),
    ]
    if version == 5:
        packets += [
            publish("a", props=properties(response_topic=mark)),
            publish("a", props=properties(content_type=mark)),
            publish("a", props=properties(user_property=[mark, "v"])),
            publish("a", props=properties(user_property=["k", mark])),
            {"will": will(content_type=mark)},
            {"will": will(response_topic=mark)},
            {"will": will(user_property=[mark, mark])},
        ]
    for packet in packets:
        for bad in (b"\xff...", b"\xed\xa0\x80.", b"a\0bc", b"\xc0\xaf..", b"abc\xc3"):
            assert len(bad) == len(mark)
            house = House()
            if "type" in packet:
                client = house.join("c", version)
                client.feed(codec.encode(packet, version).replace(mark.encode(), bad))
            else:
                client = house.open()
                data = codec.encode(connect(**{"client_id": "c", "version": version, **packet}), version)
                client.feed(data.replace(mark.encode(), bad))
                assert client.link.connect is None
            assert client.closed == 0x81, (packet, bad)


def test_lengths_are_written_in_the_fewest_bytes(said: list[Said]) -> None:
    """MQTT-1.5.5-1: the remaining length of everything the broker sends; 127, 128 and 16,384 are borders."""

    def shortest(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    assert all(one.length == shortest(len(one.body)) for one in said)
    for size in (0, 100, 120, 121, 122, 123, 124, 125, 126, 127, 128, 16378, 16379, 16380, 16381, 16384):
        house = House()
        client = house.join("c", version_of(said))
        client.subscribe("a")
        house.publish("a", b"x" * size)
        data = client.take()
        body = 3 + (1 if client.version == 5 else 0) + size
        assert data[: 1 + len(shortest(body))] == b"\x30" + shortest(body)
        assert len(data) == 1 + len(shortest(body)) + body


def test_reserved_flags_are_written_as_the_table_says(said: list[Said]) -> None:
    """MQTT-2.1.3-1, MQTT-3.6.1-1; 3.1.1 MQTT-2.2.2-1."""
    for one in said:
        if one.packet["type"] != "PUBLISH":
            assert one.flags == (2 if one.packet["type"] == "PUBREL" else 0), one
        else:
            assert one.flags & 6 != 6, "QoS 3"


def test_qos_0_has_no_packet_identifier(said: list[Said]) -> None:
    """MQTT-2.2.1-2, MQTT-4.3.1-1; 3.1.1 MQTT-2.3.1-5, MQTT-4.3.1-1: and DUP is 0 (MQTT-3.3.1-2)."""
    publishes = [one for one in said if one.packet["type"] == "PUBLISH"]
    zero = [one for one in publishes if one.flags & 6 == 0]
    assert zero
    for one in zero:
        assert one.flags & 8 == 0
        topic = codec.encode(publish(one.packet["topic"], b"", 0), 4)[2:]
        props = one.body[len(topic) : len(one.body) - len(one.packet["payload"])]
        assert len(props) == (1 + props[0] if version_of(said) == 5 else 0), (
            "between topic and payload: properties only"
        )
    assert all(one.packet["id"] for one in publishes if one.flags & 6)


def test_a_packet_identifier_comes_back_in_its_answer() -> None:
    """MQTT-2.2.1-5, MQTT-2.2.1-6, MQTT-3.8.4-2, MQTT-3.10.4-5; 3.1.1 MQTT-2.3.1-6, MQTT-2.3.1-7, MQTT-3.8.4-2,
    MQTT-3.10.4-4: each of the 65,535, for each question."""
    for version in (4, 5):
        client = House().join("c", version)
        for number in (1, 2, 255, 256, 257, 32767, 32768, 65279, 65280, 65534, 65535):
            client.send(
                publish("a", qos=1, number=number),
                publish("a", qos=2, number=number),
                ack("PUBREL", number),
                subscribe(topic_filter("b"), number=number),
                unsubscribe("b", number=number),
                ack("PUBREC", number),
            )
            assert [(packet["type"], packet["id"]) for packet in client.read()] == [
                (kind, number) for kind in ("PUBACK", "PUBREC", "PUBCOMP", "SUBACK", "UNSUBACK", "PUBREL")
            ]


def test_identifiers_of_client_and_server_are_two_sets() -> None:
    """5.0 §2.2.1, 3.1.1 §2.3.1: both may use the same number at once, in both directions and at both QoS."""
    for version in (4, 5):
        house = House()
        client = house.keeper("k", version)
        client.subscribe("a", qos=2)
        house.publish("a", b"from the broker", qos=2)
        number = client.only()["id"]
        client.send(publish("b", b"from the client", 2, number))
        assert client.only()["type"] == "PUBREC"
        client.send(ack("PUBREC", number))
        assert client.only() == ack("PUBREL", number)
        client.send(ack("PUBREL", number))
        assert client.only() == ack("PUBCOMP", number)
        client.send(ack("PUBCOMP", number))
        assert client.read() == []
        client.lose()
        assert house.keeper("k", version).read() == []


def test_no_properties_are_written_as_a_length_of_zero(said: list[Said]) -> None:
    """MQTT-2.2.2-1; what may end before its properties (5.0 §3.4.2.1, §3.14.2.1) is left out of the count."""
    if version_of(said) == 4:
        client = House().join("c", 4)
        client.send(publish("a", qos=1), subscribe(topic_filter("a")))
        assert client.take() == bytes.fromhex("40 02 0001  90 03 0001 00"), "before 5.0 there are none"
        return
    at = {"CONNACK": 2, "SUBACK": 2, "UNSUBACK": 2}
    seen = set()
    for one in said:
        kind = one.packet["type"]
        if kind == "PUBLISH":
            begin = 2 + len(one.packet["topic"].encode()) + (2 if one.packet["qos"] else 0)
        elif kind in at:
            begin = at[kind]
        else:
            continue
        if one.packet["properties"] == []:
            assert one.body[begin] == 0, one
            seen.add(kind)
    assert seen == {"CONNACK", "PUBLISH", "SUBACK", "UNSUBACK"}


def test_every_code_that_is_said_is_in_its_table(said: list[Said]) -> None:
    """MQTT-3.2.2-8, MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1, MQTT-3.9.3-2, MQTT-3.11.3-2, MQTT-3.14.2-1;
    3.1.1 MQTT-3.9.3-2: the codes of every packet of the tour, and those of servers only in DISCONNECT."""
    tables = codec.REASONS if version_of(said) == 5 else codec.REASONS_V4
    codes: dict[str, set[int]] = {}
    for one in said:
        found = one.packet.get("reasons", [one.packet["reason"]] if "reason" in one.packet else [])
        codes.setdefault(one.packet["type"], set()).update(found)
    for kind, found in codes.items():
        assert found <= set(tables.get(kind, b"\0")), (kind, found)
    if version_of(said) == 5:
        assert 0x04 not in codes["DISCONNECT"], "with will message: for clients"
        assert 0x87 in codes["PUBACK"] & codes["PUBREC"] & codes["SUBACK"] & codes["CONNACK"], "the tour has failures"
    elif version_of(said) == 4:
        assert 0x80 in codes["SUBACK"], "of 3.1.1 too"


def test_no_acknowledgement_has_a_user_property(said: list[Said]) -> None:
    """MQTT-3.2.2-20, MQTT-3.4.2-3, MQTT-3.5.2-3, MQTT-3.6.2-3, MQTT-3.7.2-3, MQTT-3.9.2-2, MQTT-3.11.2-2,
    MQTT-3.14.2-4, MQTT-3.15.2-3: none, so none makes a packet too large."""
    for one in said:
        if one.packet["type"] != "PUBLISH":
            assert "user_property" not in dict(one.packet.get("properties", [])), one


def test_no_disconnect_has_a_session_expiry(said: list[Said]) -> None:
    """MQTT-3.14.2-2."""
    for one in said:
        if one.packet["type"] == "DISCONNECT":
            assert "session_expiry_interval" not in dict(one.packet["properties"]), one


def test_connack_flags_have_one_bit(said: list[Said]) -> None:
    """MQTT-3.2.2-1: bits 7 to 1 are 0; both values of bit 0 occur, and only 0 in a refusal (MQTT-3.2.2-6)."""
    first = [(one.body[0], one.body[1]) for one in said if one.packet["type"] == "CONNACK"]
    assert {flags for flags, code in first if code == 0} == {0, 1}
    assert {flags for flags, code in first if code} == {0}
