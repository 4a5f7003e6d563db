"""Errors of a client: each ends its own connection as the standard says, and nobody else's."""

import gc

import pytest

from tests.broker.house import PINGREQ, Client, House, Verdict, connect, properties, publish
from tests.reference import codec, vectors

# What a server is never sent, or not in a connection without enhanced authentication.
NOT_FROM_A_CLIENT = {
    "CONNACK": "20 03 00 00 00",
    "SUBACK": "90 04 0001 00 00",
    "UNSUBACK": "B0 04 0001 00 00",
    "PINGRESP": "D0 00",
    "AUTH": "F0 00",
}


@pytest.mark.parametrize("kind", NOT_FROM_A_CLIENT)
def test_a_packet_that_only_servers_send_is_a_protocol_error(kind: str) -> None:
    """5.0 §2.1.2 (direction of flow), MQTT-4.13.1-1; AUTH: 5.0 §4.12, none was begun in CONNECT."""
    client = House().join()
    client.feed(bytes.fromhex(NOT_FROM_A_CLIENT[kind]))
    assert client.only() == {"type": "DISCONNECT", "reason": 0x82, "properties": []}
    assert client.closed == client.offline == 0x82


@pytest.mark.parametrize("packet", ["20 02 00 00", "90 03 0001 00", "B0 02 0001", "D0 00", "F0 00"])
def test_before_v5_the_connection_is_just_closed(packet: str) -> None:
    """3.1.1 MQTT-4.8.0-1."""
    client = House().join("c", 4)
    client.feed(bytes.fromhex(packet))
    assert client.closed is not None
    assert client.take() == b""


def test_a_subscription_identifier_from_a_client_is_a_protocol_error() -> None:
    """MQTT-3.3.4-6."""
    house = House()
    client = house.join()
    client.subscribe("a")
    client.send(publish("a", props=properties(subscription_identifier=1)))
    assert client.only() == {"type": "DISCONNECT", "reason": 0x82, "properties": []}


def said(vector: vectors.Vector) -> bool:
    """Whether a connected client could say it and only the codec decides about it."""
    connects = vector.data[0] >> 4 == 1
    return vector.source == "client" and not connects and vector.max_size == codec.PACKET_SIZE_MAX


@pytest.mark.parametrize("vector", [v for v in vectors.invalid() if said(v)], ids=lambda vector: vector.name)
def test_an_invalid_packet_ends_its_connection_and_no_other(vector: vectors.Vector) -> None:
    """MQTT-4.13.1-1; 3.1.1 MQTT-4.8.0-1: told with its reason code (5.0), and closed. The vector names the clause."""
    house = House()
    other = house.join("other", vector.version)
    client = house.join("c", vector.version)
    client.feed(vector.data)
    assert client.closed is not None
    assert client.closed == client.offline
    assert client.closed in vector.codes | {0x82}
    packets = client.read()
    if vector.version == 5:
        assert packets == [{"type": "DISCONNECT", "reason": client.closed, "properties": []}]
    else:
        assert packets == []
    client.feed(vector.data)
    assert client.take() == b""
    other.subscribe("a")
    house.publish("a")
    assert len(other.messages()) == 1
    assert other.ask(PINGREQ, "PINGRESP")["type"] == "PINGRESP"


@pytest.mark.parametrize("version", [3, 4, 5])
def test_what_came_before_an_error_in_the_same_chunk_is_done(version: int) -> None:
    """5.0 §4.13: the packets before it were valid; those behind it are not read."""
    house = House()
    watcher = house.join("watcher")
    watcher.subscribe("#")
    client = house.join("c", version)
    good = [codec.encode(publish("a", payload), version) for payload in (b"1", b"2")]
    client.feed(good[0] + b"\0\0" + good[1])
    client.feed(good[1])
    assert watcher.payloads() == [b"1"]
    assert client.closed == 0x81


def test_an_error_behind_a_connect_that_waits_shows_after_the_verdict() -> None:
    """5.0 §3.1.4: nothing behind the CONNECT is looked at before."""
    house = House()
    client = house.open(Verdict(wait=True))
    client.feed(codec.encode(connect("c"), 5) + b"\0\0")
    assert client.closed is None
    client.verdict = Verdict()
    house.judge(client)
    assert [packet["type"] for packet in client.read()] == ["CONNACK", "DISCONNECT"]
    assert client.closed == 0x81


def test_the_collector_takes_no_events_of_others_with_it() -> None:
    """peanutd._core: a link dropped without lost() is lost silently, even while events are being built."""

    class Owner:
        link: object

    house = House()
    gc.collect()
    gc.disable()
    kept = [house.join(f"kept{n}", keep_alive=1) for n in range(100)]
    for n in range(100):  # each one a cycle that nobody holds
        owner = Owner()
        link = owner.link = house.broker.open(owner, house.now)
        link.feed(codec.encode(connect(f"c{n}", keep_alive=1), 5), house.now)
        link.accept(session=f"s{n}", identity="me", rules=0, now=house.now)
    del owner, link
    before = gc.get_threshold()
    house.now += 10_000
    try:
        gc.set_threshold(1, 1, 1)
        gc.enable()
        events = house.broker.tick(house.now)
    finally:
        gc.set_threshold(*before)
        gc.enable()
    house.handle([event for event in events if isinstance(event[1].owner, Client)])
    assert [client.closed for client in kept] == [0x8D] * 100
    del events
    gc.collect()
    assert house.stat("links") == 100


def test_a_lost_link_is_deaf_and_dumb() -> None:
    """peanutd._core: every call after lost() does nothing."""
    house = House()
    client = house.join()
    client.subscribe("a")
    client.lose()
    house.publish("a")
    client.send(PINGREQ)
    assert client.take() == b""
    assert client.link.pending == 0
    assert client.link.connect is None
    house.handle(client.link.close(0, house.now))
    client.lose()
    assert client.offline == 0x80
