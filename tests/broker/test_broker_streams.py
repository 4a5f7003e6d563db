"""The stream: order, the bytes themselves, slow readers, and that it does not matter how a stream is cut."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.broker.house import (
    PINGREQ,
    Client,
    House,
    ack,
    connect,
    disconnect,
    properties,
    publish,
    subscribe,
    topic_filter,
    unsubscribe,
    will,
)
from tests.effort import tries
from tests.reference import codec

# --- order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_of_a_publisher_arrive_in_its_order(qos: int) -> None:
    """MQTT-4.6.0-5, MQTT-4.6.0-6: per topic and QoS, whatever the window; and to every subscriber."""
    house = House(max_inflight=7)
    listeners = [house.join(f"l{n}", 4 + n % 2) for n in range(4)]
    for listener in listeners:
        listener.subscribe("#", qos=qos)
    publisher = house.join("p")
    publisher.send(*[publish(f"t/{n % 3}", b"%d" % n, qos, n + 1) for n in range(100)])
    for listener in listeners:
        got = []
        while packets := listener.read():
            got += [packet["payload"] for packet in packets if packet["type"] == "PUBLISH"]
            for packet in packets:
                if packet["type"] == "PUBREL":
                    listener.send(ack("PUBCOMP", packet["id"]))
                elif packet["qos"]:
                    listener.send(ack("PUBACK" if qos == 1 else "PUBREC", packet["id"]))
        assert got == [b"%d" % n for n in range(100)]


def test_answers_come_in_the_order_of_the_questions() -> None:
    """MQTT-4.6.0-2, MQTT-4.6.0-3: PUBACK and PUBREC as their PUBLISH came; so do all others."""
    client = House().join()
    client.send(
        publish("a", qos=1, number=7),
        publish("a", qos=2, number=3),
        PINGREQ,
        publish("a", qos=1, number=5),
        subscribe(topic_filter("x"), number=9),
        ack("PUBREL", 3),
        unsubscribe("x", number=2),
    )
    answers = [(packet["type"], packet.get("id")) for packet in client.read()]
    assert answers == [
        ("PUBACK", 7),
        ("PUBREC", 3),
        ("PINGRESP", None),
        ("PUBACK", 5),
        ("SUBACK", 9),
        ("PUBCOMP", 3),
        ("UNSUBACK", 2),
    ]


# --- bytes ----------------------------------------------------------------------------------------------------------


@given(
    payload=st.binary(max_size=3000), qos=st.sampled_from([0, 1, 2]), versions=st.tuples(*[st.sampled_from([4, 5])] * 2)
)
@settings(max_examples=tries(40))
def test_payloads_arrive_as_they_were(payload: bytes, qos: int, versions: tuple[int, int]) -> None:
    """5.0 §3.3.3: any bytes, any length, from every version to every version, passing, waiting and retained."""
    house = House()
    waiting = house.keeper("w", versions[1])
    waiting.subscribe("#", qos=qos)
    waiting.lose()
    listener = house.join("l", versions[1])
    listener.subscribe("#", qos=qos)
    house.join("p", versions[0]).send(publish("t/ä€😀", payload, qos, retain=True))
    late = house.join("late", versions[1])
    late.subscribe("#", qos=qos)
    there = [("t/ä€😀", payload, qos)]
    assert listener.messages() == there
    assert late.messages() == (there if payload else [])
    assert house.keeper("w", versions[1]).messages() == (there if qos else [])


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_one_message_in_many_queues_is_one_in_memory() -> None:
    """message.h: a message is shared, so a large one for 200 that are away costs its size once."""
    house = House()
    for n in range(200):
        client = house.keeper(f"k{n}")
        client.subscribe("#", qos=1)
        client.lose()
    before = resident()
    payload = b"x" * 900_000
    for _ in range(3):
        house.publish("a", payload, qos=1)
    assert resident() - before < 50_000_000, "copies would be 540,000,000"
    assert house.keeper("k7").payloads() == [payload] * 3


# --- slow readers -----------------------------------------------------------------------------------------------------


def test_a_slow_reader_costs_a_bounded_output_and_loses_no_qos_1() -> None:
    """MQTT-4.5.0-1: what is promised waits in the session while the output is full, and others are not held up."""
    house = House(max_output_bytes=10_000, max_inflight=500)
    slow, quick = house.join("slow"), house.join("quick")
    for client in (slow, quick):
        client.subscribe("one", qos=1)
        client.subscribe("zero")
    publisher = house.join("p")
    got = []
    for n in range(300):
        publisher.send(publish("one", b"%d" % n, 1), publish("zero", b"x" * 500))
        publisher.take()
        assert slow.link.pending < 10_000 + 600
        for packet in quick.read():
            if packet["qos"]:
                got.append(packet["payload"])
                quick.send(ack("PUBACK", packet["id"]))
    assert got == [b"%d" % n for n in range(300)]
    assert [payload for topic, payload, _ in slow.messages() if topic == "one"] == got
    assert house.stat("dropped_slow_reader") > 200


def test_output_taken_in_pieces_is_the_same_stream() -> None:
    """Law 2 of the house: bytes out, in any split."""
    house = House(max_output_bytes=4096)
    one, two = house.join("one"), house.join("two")
    for client in (one, two):
        client.subscribe("#", qos=1)
        client.take()
    data = [b"", b""]
    random_pieces = random.Random(5)
    for n in range(200):
        house.publish("a", b"x" * (n * 7 % 300), qos=1)
        data[0] += one.take()
        data[1] += two.link.take(random_pieces.randrange(1, 400))
        if n % 3 == 0:
            for client in (one, two):
                client.send(ack("PUBACK", n // 3 + 1))
    while chunk := two.link.take(13):
        data[1] += chunk
    assert data[0] == data[1]
    assert one.link.take(0) == b""


def test_a_link_is_dirty_when_it_has_new_output_and_not_before() -> None:
    """broker.h: each link that has output is handed out once until it gets more."""
    house = House()
    one, two = house.join("one"), house.join("two")
    house.broker.dirty()
    one.take()
    two.take()
    assert house.broker.dirty() == []
    one.link.feed(codec.encode(subscribe(topic_filter("a")), 5), house.now)
    assert house.broker.dirty() == [one.link]
    assert house.broker.dirty() == []
    two.link.feed(codec.encode(publish("a"), 5) * 3, house.now)
    assert house.broker.dirty() == [one.link]
    one.take()
    two.link.feed(codec.encode(publish("a", qos=1), 5), house.now)
    assert set(house.broker.dirty()) == {one.link, two.link}


# --- cuts -----------------------------------------------------------------------------------------------------------

_names = st.sampled_from(["a", "a/b", "b"])
_patterns = st.sampled_from(["a", "a/+", "#", "b", "a/#", "$share/g/a", "a#"])
_qos = st.sampled_from([0, 1, 2])
_numbers = st.integers(1, 4)
_packets: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(
        lambda t, q, n, r, p: publish(t, p, q, n, retain=r),
        _names,
        _qos,
        _numbers,
        st.booleans(),
        st.binary(max_size=9),
    ),
    st.builds(lambda f, q, n: subscribe(topic_filter(f, q), number=n), _patterns, _qos, _numbers),
    st.builds(lambda f, n: unsubscribe(f, number=n), _patterns, _numbers),
    st.builds(ack, st.sampled_from(["PUBACK", "PUBREC", "PUBREL", "PUBCOMP"]), _numbers),
    st.just(PINGREQ),
    st.just(disconnect()),
)


@given(
    version=st.sampled_from([4, 5]),
    packets=st.lists(_packets, max_size=12),
    garbage=st.binary(max_size=3),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
@settings(max_examples=tries(100))
def test_it_does_not_matter_how_a_stream_is_cut(
    version: int, packets: list[Any], garbage: bytes, cuts: list[int]
) -> None:
    """3.1.1 and 5.0 §4.2: whole, byte by byte and cut anywhere it gives the same output and events."""
    left = will("a", qos=1)
    stream = (
        b"".join(codec.encode(packet, version) for packet in (connect("c", version, will=left), *packets)) + garbage
    )
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    results = []
    for pieces in (
        [stream],
        [stream[n : n + 1] for n in range(len(stream))],
        [stream[begin:end] for begin, end in pairwise(edges)],
    ):
        house = House(max_inflight=3)
        house.publish("a/b", b"kept", qos=1, retain=True)
        watcher = house.join("watcher")
        watcher.subscribe("#", qos=2)
        client = house.open()
        for piece in pieces:
            client.feed(piece)
        results.append((client.take(), client.events, client.closed, watcher.take(), house.broker.retained("a")))
    assert results[0] == results[1] == results[2]


def test_a_packet_in_many_chunks_is_read_in_linear_time() -> None:
    """A megabyte in 64-byte chunks is decoded once it is whole, not with each chunk (see also test_broker_growth)."""
    house = House()
    listener = house.join("l")
    listener.subscribe("a")
    data = codec.encode(publish("a", b"x" * 1_000_000), 5)
    client: Client = house.join("p", props=properties(session_expiry_interval=0))
    for begin in range(0, len(data), 64):
        client.link.feed(data[begin : begin + 64], house.now)
    assert listener.payloads() == [b"x" * 1_000_000]
