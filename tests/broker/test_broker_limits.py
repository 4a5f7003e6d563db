"""Every limit by name: what happens at the limit, and what one beyond it.

The rule it keeps: a row of LIMITS has a test of its own, called test_<its name>.
"""

import pytest

from peanutd import _core
from tests.broker.disk import DiskHouse
from tests.broker.house import (
    PINGREQ,
    Client,
    House,
    Verdict,
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
from tests.reference import codec


def closed_with(client: Client, reason: int) -> bool:
    """A 5.0 client is told why, then closed; the broker still serves others."""
    assert client.closed == reason
    assert client.read()[-1:] == [{"type": "DISCONNECT", "reason": reason, "properties": []}]
    other = client.house.join("other")
    return other.ask(PINGREQ, "PINGRESP")["type"] == "PINGRESP"


def test_max_packet_size() -> None:
    """5.0 §3.2.2.3.6: a packet of the announced size passes; a longer one ends with 0x95 once its header is there."""
    house = House(max_packet_size=200)
    client = house.join()
    client.subscribe("a")
    fits = codec.encode(publish("a", b"x" * (200 - 3 - 3 - 1)), 5)
    assert len(fits) == 200
    client.feed(fits)
    assert len(client.messages()) == 1
    client.feed(codec.encode(publish("a", b"x" * (200 - 3 - 3)), 5)[:3])
    assert closed_with(client, 0x95)


def test_max_topic_length() -> None:
    """5.0 §3.3.2.1, §3.9.3: 0x90 for a topic name, 0x8F for a filter."""
    house = House(max_topic_length=10)
    client = house.join()
    assert client.subscribe("x" * 10, "x" * 11) == [0, 0x8F]
    client.send(publish("x" * 10, qos=1))
    assert {packet["type"] for packet in client.read()} == {"PUBACK", "PUBLISH"}
    client.send(publish("x" * 11, qos=1))
    assert closed_with(client, 0x90)
    assert house.join("w", will=will("x" * 10)).closed is None
    assert house.join("v", will=will("x" * 11)).closed == 0x90


def test_max_topic_levels() -> None:
    """As max_topic_length, by the count of levels."""
    house = House(max_topic_levels=3)
    client = house.join()
    assert client.subscribe("a/b/c", "a/b/#", "a/b/c/d", "///") == [0, 0, 0x8F, 0x8F]
    client.send(publish("a/b/c"))
    assert len(client.messages()) == 1
    client.send(publish("a/b/c/d"))
    assert closed_with(client, 0x90)


@pytest.mark.parametrize(("version", "code"), [(3, 2), (4, 2), (5, 0x85)])
def test_max_client_id(version: int, code: int) -> None:
    """MQTT-3.1.3-5, MQTT-3.1.3-8; 3.1.1 MQTT-3.1.3-9: rejected in words, the driver is not asked. 23 always pass."""
    house = House(max_client_id=23)
    assert house.join("x" * 23, version).closed is None
    client = house.join("x" * 24, version)
    assert client.connack is not None
    assert client.connack["reason"] == code
    assert client.events == [(_core.EVENT_CLOSED, 0x85, "")]
    with pytest.raises(ValueError, match="max_client_id is from 23"):
        House(max_client_id=22)


def test_max_subscriptions() -> None:
    """5.0 §3.9.3: 0x97 for what is one too many; replacing is not, and what ends makes room."""
    house = House(max_subscriptions=3)
    client = house.join()
    assert client.subscribe("a", "b", "c", "d", "a") == [0, 0, 0, 0x97, 0]
    assert house.join("old", 4).subscribe("a", "b", "c", "d") == [0, 0, 0, 0x80]
    client.ask(unsubscribe("b"), "UNSUBACK")
    assert client.subscribe("d", "b") == [0, 0x97]
    assert house.stat("subscriptions") == 6


def test_receive_maximum() -> None:
    """5.0 §3.3.4, §4.9: QoS 2 messages not yet released; one more than announced ends with 0x93. QoS 1 is acknowledged
    before the next packet is read and never counts."""
    house = House(receive_maximum=3)
    client = house.join()
    client.send(*[publish("a", qos=1, number=n) for n in range(1, 20)])
    client.send(*[publish("a", qos=2, number=n) for n in (1, 2, 3)], publish("a", qos=2, number=2, dup=True))
    client.send(ack("PUBREL", 2), publish("a", qos=2, number=4))
    assert client.closed is None
    client.read()
    client.send(publish("a", qos=2, number=5))
    assert closed_with(client, 0x93)


def test_max_inflight() -> None:
    """Our own bound beside the client's Receive Maximum (MQTT-3.3.4-9): the smaller one counts."""
    house = House(max_inflight=3)
    for wish, expected in ((None, 3), (2, 2), (100, 3)):
        client = house.join(props=properties(receive_maximum=wish) if wish else [])
        client.subscribe("a", qos=1)
        for _ in range(5):
            house.publish("a", qos=1)
        assert len(client.messages()) == expected


def test_max_queued_messages() -> None:
    """Messages that wait; not those under way. The newest is dropped, what was promised first is kept."""
    house = House(max_queued_messages=3, max_inflight=2)
    client = house.keeper("k")
    client.subscribe("a", qos=1)
    for n in range(7):
        house.publish("a", b"%d" % n, qos=1)
    assert house.stat("dropped_queue_full") == 2
    got = []
    while packets := client.read():
        got += [packet["payload"] for packet in packets]
        client.send(*(ack("PUBACK", packet["id"]) for packet in packets))
    assert got == [b"0", b"1", b"2", b"3", b"4"]
    client.lose()
    for n in range(4):
        house.publish("a", b"%d" % n, qos=1)
    assert house.keeper("k").payloads() == [b"0", b"1"]
    assert house.stat("dropped_queue_full") == 3


def test_max_queued_bytes() -> None:
    """Topics, payloads and properties of what waits or is under way for one session."""
    house = House(max_queued_bytes=1024)
    client = house.keeper("k")
    client.subscribe("a", qos=1)
    house.publish("a", b"x" * 511, qos=1)
    house.publish("a", b"x" * 511, qos=1)
    house.publish("a", b"", qos=1)
    first, second = client.read()
    assert len(second["payload"]) == 511, "the one that fills it to the last byte"
    assert house.stat("dropped_queue_full") == 1
    client.send(ack("PUBACK", first["id"]))
    house.publish("a", b"x" * 511, qos=1)
    assert len(client.messages()) == 1
    client.send(ack("PUBACK", second["id"]))
    house.publish("a", b"x" * 512, qos=1)
    assert house.stat("dropped_queue_full") == 2


def test_max_output_bytes() -> None:
    """A client that does not read: QoS 0 is dropped once its output is full, QoS 1 waits and comes later, in order."""
    house = House(max_output_bytes=4096, max_inflight=1000)
    client = house.join()
    client.subscribe("zero")
    client.subscribe("one", qos=1)
    client.take()
    payload = b"x" * (1024 - 3 - 6 - 1)
    assert len(codec.encode(publish("zero", payload), 5)) == 1024
    for _ in range(3):
        house.publish("zero", payload)
    house.publish("zero", payload[1:])
    assert client.link.pending == 4095
    house.publish("zero", payload)
    pending = client.link.pending
    assert pending == 4095 + 1024, "one byte of room is room for one more"
    house.publish("zero", b"dropped")
    assert house.stat("dropped_slow_reader") == 1
    client.take()
    for _ in range(5):
        house.publish("zero", payload)
    assert (client.link.pending, house.stat("dropped_slow_reader")) == (4096, 2), "at the limit there is none"
    pending = client.link.pending
    for n in range(10):
        house.publish("one", b"%d" % n, qos=1)
    assert client.link.pending == pending
    messages = client.messages()
    assert [payload for topic, payload, _ in messages if topic == "one"] == [b"%d" % n for n in range(10)]
    assert [found for topic, found, _ in messages if topic == "zero"] == [payload] * 4


def test_what_is_answered_to_a_client_that_never_reads_is_bounded() -> None:
    """max_output_bytes, one packet and a margin of 64 KiB: then the connection ends, without a word."""
    house = House(max_output_bytes=4096, max_packet_size=1000)
    client = house.join()
    sent = 0
    while client.closed is None:
        client.send(*[PINGREQ] * 1000)
        sent += 2000
        assert sent < 200_000
    assert client.closed == 0x97
    assert 4096 + 65536 < client.link.pending < 4096 + 1000 + 65536 + 3000


def test_a_client_with_a_large_message_in_its_output_may_ping() -> None:
    """The bound on answers leaves room for a message that was begun just below max_output_bytes."""
    house = House(max_output_bytes=4096, max_packet_size=500_000)
    client = house.join()
    client.subscribe("a")
    house.publish("a", b"x" * 400_000)
    client.send(PINGREQ)
    assert client.closed is None
    assert [packet["type"] for packet in client.read()] == ["PUBLISH", "PINGRESP"]


def test_max_parked_bytes() -> None:
    """What comes behind a CONNECT while it waits for its verdict, in one chunk with it or later."""
    for first in (b"", b"\xc0\0" * 256):
        for surplus in (0, 1):
            house = House(max_parked_bytes=1024)
            client = house.open(Verdict(wait=True))
            client.feed(codec.encode(connect("c"), 5) + first)
            client.feed(b"\xc0\0" * ((1024 - len(first)) // 2) + b"\xc0" * surplus)
            assert client.closed == (0x97 if surplus else None)
            if not surplus:
                client.verdict = Verdict()
                house.judge(client)
                assert [packet["type"] for packet in client.read()] == ["CONNACK"] + ["PINGRESP"] * 512
    for size in (512, 513):
        house = House(max_parked_bytes=1024)
        client = house.open()
        client.feed(codec.encode(connect("c"), 5) + b"\xc0\0" * size)
        kinds = [kind for kind, _, _ in client.events]
        assert kinds == ([_core.EVENT_CONNECT] if size == 512 else [_core.EVENT_CLOSED])


def test_session_expiry_max() -> None:
    """5.0 §3.2.2.3.2: longer wishes are cut, also in DISCONNECT; older clients that keep their session get it whole."""
    for version in (4, 5):
        house = House(session_expiry_max=10)
        client = house.join(
            "c", version, clean=False, props=properties(session_expiry_interval=11) if version == 5 else []
        )
        client.send(disconnect(session_expiry_interval=0xFFFFFFFF) if version == 5 else disconnect())
        house.wait(9.999)
        assert house.stat("sessions") == 1
        house.wait(0.001)
        assert house.stat("sessions") == 0


def test_session_expiry_max_may_be_for_ever() -> None:
    """5.0 §3.1.2.11.2: 0xFFFFFFFF does not expire."""
    house = House(session_expiry_max=0xFFFFFFFF)
    house.join("c", props=properties(session_expiry_interval=0xFFFFFFFF)).lose()
    house.join("d", 4, clean=False).lose()
    house.join("e", props=properties(session_expiry_interval=0xFFFFFFFE)).lose()
    house.wait(0xFFFFFFFE)
    assert house.stat("sessions") == 2


def test_keepalive_max() -> None:
    """MQTT-3.1.2-21: a longer wish, or none, is replaced by the limit."""
    house = House(keepalive_max=10)
    for wish in (10, 11, 0):
        client = house.join(keep_alive=wish)
        house.wait(15)
        assert client.closed is None
        house.wait(0.001)
        assert client.closed == 0x8D


def test_connect_timeout() -> None:
    """Milliseconds from the connection to a CONNECT and its verdict."""
    house = House(connect_timeout=100)
    client = house.open()
    house.wait(0.1)
    assert client.closed is None
    house.wait(0.001)
    assert client.closed is not None


def test_max_sessions() -> None:
    """Those away included. Whoever has a session is let in; one more is refused with 0x97 (before 5.0: 3)."""
    house = House(max_sessions=2)
    house.keeper("a").lose()
    house.keeper("b")
    for version, code in ((5, 0x97), (4, 3)):
        client = house.join("c", version)
        assert client.connack is not None
        assert client.connack["reason"] == code
        assert client.closed == 0x97
        assert client.offline is None
    assert house.keeper("a").closed is None
    assert house.join("b").closed is None
    house.join("b").lose()
    assert house.join("c").closed is None


def test_max_retained() -> None:
    """What cannot be retained is sent on all the same, and the driver hears of it. Replacing and clearing go on, and
    clearing makes room."""
    house = House(max_retained=2)
    client = house.join()
    client.subscribe("#")
    for topic in ("a", "b", "c", "a"):
        client.send(publish(topic, topic.encode(), 1, retain=True))
        answer = client.read()
        assert [packet["reason"] for packet in answer if packet["type"] == "PUBACK"] == [0]
        assert [packet["topic"] for packet in answer if packet["type"] == "PUBLISH"] == [topic]
    assert house.stat("dropped_retained_full") == 1
    assert client.denied == ["retain c"]
    assert house.broker.retained("c") is None
    house.publish("a", b"", retain=True)
    house.publish("c", b"c", retain=True)
    with pytest.raises(MemoryError):
        house.publish("d", b"d", retain=True)
    assert house.stat("retained") == 2
    nothing = House(max_retained=0).join()
    nothing.send(publish("a", qos=1, retain=True))
    assert nothing.only() == ack("PUBACK", 1, 0x10)
    assert nothing.denied == ["retain a"]


def test_max_retained_bytes() -> None:
    """Topics, payloads and properties of all retained messages. What one too large was to replace is forgotten: an old
    state must not pass for the present one."""
    house = House(max_retained_bytes=20)
    client = house.join()
    for topic, size, kept in (
        ("a", 9, True),
        ("b", 9, True),
        ("c", 1, False),
        ("a", 10, False),
        ("a", 8, True),
        ("b", 10, True),
    ):
        client.send(publish(topic, b"x" * size, 1, retain=True))
        assert client.only() == ack("PUBACK", 1, 0x10)
        assert house.broker.retained(topic) == (b"x" * size if kept else None)
    assert house.stat("retained_bytes") == 20
    assert client.denied == ["retain c", "retain a"]
    client.send(publish("a", b"", 1, retain=True), publish("c", b"x" * 8, 1, retain=True))
    assert [packet["reason"] for packet in client.read()] == [0x10, 0x10]


def test_max_journal_bytes() -> None:
    """What waits for the disk, all together. More is refused until the disk has caught up; what need not be kept
    is not."""
    house = DiskHouse(max_journal_bytes=65_536)
    client = house.join()
    sent = 0
    while sent <= 65_536:
        client.send(publish(f"r/{sent}", b"x" * 8_000, 1, retain=True))
        sent += 8_000
    assert client.read() == []  # even the CONNACK waits
    client.send(publish("one/more", b"x", 1, 2, retain=True), publish("not/kept", b"x", 1, 3))
    assert house.broker.retained("one/more") is None
    house.commit()
    answers = client.read()
    assert [packet["reason"] for packet in answers] == [*([0x10] * (len(answers) - 2)), 0x97, 0x10]
    assert house.stat("dropped_unkept") == 1
    client.send(publish("one/more", b"x", 1, 2, retain=True))
    house.commit()
    assert client.only() == ack("PUBACK", 2, 0x10)


def test_every_limit_has_a_test() -> None:
    assert [name for name in _core.LIMITS if f"test_{name}" not in globals()] == []


@pytest.mark.parametrize("name", sorted(_core.LIMITS))
def test_a_limit_out_of_its_range_is_refused_by_name(name: str) -> None:
    """And the default is within it."""
    House(**{name: _core.LIMITS[name]})
    for number in (-1, 1 << 32):
        with pytest.raises(ValueError, match=f"{name} is from"):
            House(**{name: number})


def test_a_limit_that_is_none() -> None:
    with pytest.raises(TypeError, match="max_pakcet_size"):
        House(max_pakcet_size=1)


# The switches are limits too: what they do is in test_broker_v5.py, here they are at their borders.


def test_max_qos() -> None:
    for most in (0, 1, 2):
        assert House(max_qos=most).join().subscribe("t", qos=2) == [most]


def test_retain_available() -> None:
    for available, closed in ((1, None), (0, 0x9A)):
        client = House(retain_available=available).join()
        client.send(publish("t", retain=True))
        assert client.closed == closed


def test_wildcard_subscriptions() -> None:
    assert [House(wildcard_subscriptions=n).join().subscribe("#")[0] for n in (1, 0)] == [0, 0xA2]


def test_shared_subscriptions() -> None:
    assert [House(shared_subscriptions=n).join().subscribe("$share/g/t")[0] for n in (1, 0)] == [0, 0x9E]


def test_topic_alias_maximum() -> None:
    for alias, closed in ((3, None), (4, 0x94)):
        client = House(topic_alias_maximum=3).join()
        client.send(publish("t", props=properties(topic_alias=alias)))
        assert client.closed == closed


def test_payload_format_check() -> None:
    for check, closed in ((0, None), (1, 0x99)):
        client = House(payload_format_check=check).join()
        client.send(publish("t", b"\xff", props=properties(payload_format_indicator=1)))
        assert client.closed == closed


def test_publish_rate() -> None:
    """So many in a second are fine, second after second; with one more it has to wait, and no other client."""
    house = House(publish_rate=10)
    client, other = house.join("c"), house.join("o")
    for _ in range(3):
        client.send(*[publish("t")] * 10)
        assert client.closed is None
        house.wait(1)
        assert not client.paused
    watcher = house.join("w")
    watcher.subscribe("t")
    client.send(*[publish("t", bytes([n])) for n in range(25)], publish("t", b"more", qos=1), PINGREQ)
    assert watcher.payloads() == [bytes([n]) for n in range(10)]
    assert client.paused
    assert house.stat("throttled") == 1
    other.send(*[publish("t", b"o")] * 10)
    assert not other.paused
    assert watcher.payloads() == [b"o"] * 10
    house.wait(0.5)
    assert watcher.payloads() == []
    house.wait(0.5)
    assert watcher.payloads() == [bytes([n]) for n in range(10, 20)]
    assert client.paused
    assert client.read() == []
    house.wait(1)
    assert watcher.payloads() == [bytes([n]) for n in range(20, 25)] + [b"more"]
    assert [packet["type"] for packet in client.read()] == ["PUBACK", "PINGRESP"]
    assert not client.paused
    assert client.closed is None


def test_who_is_throttled_in_pieces_loses_nothing() -> None:
    """However the bytes are cut, and however long it takes: its keep alive does not run out meanwhile."""
    house = House(publish_rate=1)
    client, watcher = house.join("c", keep_alive=2), house.join("w")
    watcher.subscribe("t")
    data = b"".join(codec.encode(publish("t", bytes([n])), 5) for n in range(12))
    for at in range(0, len(data), 5):
        client.feed(data[at : at + 5])
    got = watcher.payloads()
    for _ in range(12):
        house.wait(1)
        got += watcher.payloads()
    assert got == [bytes([n]) for n in range(12)]
    assert client.closed is None
    house.wait(3)
    assert not client.paused
    house.wait(1)
    assert client.closed == 0x8D


def test_byte_rate() -> None:
    house = House(byte_rate=1000)
    client = house.join()
    for _ in range(3):
        client.feed(b"\xc0\x00" * 500)
        assert not client.paused
        house.wait(1)
    client.feed(b"\xc0\x00" * 2000)
    assert len(client.read()) == 3 * 500 + 2000
    for _ in range(3):
        house.wait(1)
        assert client.paused
    house.wait(1)
    assert not client.paused
    assert client.closed is None


def test_rate_action() -> None:
    """1: who is too fast is gone, and nobody else."""
    house = House(publish_rate=10, byte_rate=1000, rate_action=1)
    client, other, third = house.join("c"), house.join("o"), house.join("t")
    for _ in range(3):
        client.send(*[publish("t")] * 10)
        third.feed(b"\xc0\x00" * 500)
        house.wait(1)
    client.send(*[publish("t")] * 11)
    third.feed(b"\xc0\x00" * 501)
    assert (client.closed, third.closed) == (0x96, 0x96)
    other.send(*[publish("t")] * 10)
    assert other.closed is None


def test_limits_can_be_changed_while_it_runs() -> None:
    """For what comes from then on; what is not named is the default again; a wrong one changes nothing."""
    house = House(max_topic_length=5)
    client = house.join()
    assert client.subscribe("123456") == [0x8F]
    with pytest.raises(ValueError, match="max_topic_length"):
        house.broker.set_limits(max_qos=1, max_topic_length=0)
    with pytest.raises(TypeError, match="no limit"):
        house.broker.set_limits(max_topic_lenght=9)
    assert client.subscribe("123456", qos=2) == [0x8F]
    house.broker.set_limits(max_qos=1)
    assert client.subscribe("123456", qos=2) == [1]


def test_who_is_connected_is_held_to_what_it_was_told() -> None:
    """5.0 §3.2.2.3: a client that keeps to its CONNACK has done nothing wrong when a limit is lowered."""
    house = House()
    told, v4 = house.join("told"), house.join("v4", 4)
    house.broker.set_limits(max_packet_size=128, receive_maximum=1, max_qos=0, retain_available=False)
    for client in (told, v4):
        client.send(*(publish("t", b"x" * 200, qos=2, number=n, retain=True) for n in (1, 2)))
        assert [(packet["type"], packet["id"]) for packet in client.read()] == [("PUBREC", 1), ("PUBREC", 2)]
        assert client.closed is None
    client = house.join("next")
    assert client.connack is not None
    limits = dict(client.connack["properties"])
    names = ("maximum_packet_size", "receive_maximum", "maximum_qos", "retain_available")
    assert [limits[name] for name in names] == [128, 1, 0, 0]
    client.send(publish("t", qos=1))
    assert closed_with(client, 0x9B)


def test_max_connect_size() -> None:
    """Before the verdict nobody may make us hold more than this, however large packets may be afterwards."""
    fits = codec.encode(connect("c", username="u" * 150), 5)
    house = House(max_connect_size=len(fits))
    for more, closed in ((0, None), (1, 0x95)):
        client = house.open()
        client.feed(codec.encode(connect("c" + "c" * more, username="u" * 150), 5))
        assert client.closed == closed
    client = house.join()
    client.send(publish("t", b"x" * 1000, qos=1))
    assert client.only()["type"] == "PUBACK"


def test_filters_that_visit_everything_and_find_nothing_cost_others_nothing() -> None:
    """Thousands of them in a SUBSCRIBE are worked off in slices; what others ask for meanwhile has its turn."""
    house = House()
    for number in range(5000):
        house.publish(f"/plant/n{number}/state", retain=True)
    hostile, client = house.join("hostile"), house.join("usual")
    hostile.send(subscribe(*[topic_filter(f"+/+/+/none{number}") for number in range(100)]))
    assert hostile.only()["type"] == "SUBACK"
    assert house.broker.busy
    assert client.subscribe(*[f"/plant/+/{report}" for report in ("state", "status", "telemetry", "ack")]) == [0] * 4
    found = client.messages()
    for _ in range(50):
        house.handle(house.broker.work(house.now))
        found += client.messages()
    assert len(found) == 5000
    assert house.broker.busy
    hostile.lose()
    assert not house.broker.busy
    assert house.stat("walks") == 0


def test_max_memory() -> None:
    """MiB. Before the ceiling nothing new is taken, at the ceiling nothing is kept; who is there goes on."""
    used = House().stat("memory")
    house = House(max_memory=(used >> 20) + 24, max_queued_bytes=1 << 30, max_queued_messages=1 << 20)
    limit = ((used >> 20) + 24) << 20
    keeper, talker, reader = house.keeper("k"), house.join("t"), house.join("r")
    keeper.subscribe("q", qos=1)
    reader.subscribe("live")
    keeper.lose()
    reasons = set()
    for number in range(400):
        talker.send(publish(f"r/{number}", bytes(100_000), qos=1, retain=True))
        reasons.add(talker.only()["reason"])
    assert reasons == {0x10}  # sent on, whether or not it could be kept
    assert house.stat("dropped_retained_full") > 100
    assert house.stat("memory") < limit * 14 // 16 + 200_000
    newcomers = [house.join(f"new{number}") for number in range(1000)]  # more than the last message that found no room
    assert newcomers[-1].closed == 0x97
    refused = house.stat("refused_max_memory")
    assert refused > 0
    assert talker.subscribe("another") == [0x97]
    assert reader.subscribe("live") == [0]  # what there is may be asked for again
    assert house.stat("refused_max_memory") == refused + 1
    for _ in range(400):
        talker.send(publish("q", bytes(50_000), qos=1))
    assert house.stat("dropped_max_memory") > 200
    assert house.stat("memory") < limit
    talker.read()
    talker.send(publish("live", b"still here"))
    assert reader.payloads() == [b"still here"]
    for number in range(400):
        talker.send(publish(f"r/{number}", b"", retain=True))
    assert house.join("new").closed is None


def test_a_packet_that_comes_in_pieces_counts_as_memory() -> None:
    used = House().stat("memory")
    house = House(max_memory=(used >> 20) + 4)
    clients = [house.join(f"c{number}") for number in range(10)]
    for client in clients:
        client.feed(codec.encode(publish("t", bytes(1_000_000)), 5)[:-1])
    assert {client.closed for client in clients} == {None, 0x97}
    assert house.stat("memory") < ((used >> 20) + 4) << 20


def test_server_keepalive() -> None:
    """MQTT-3.2.2-21: a 5.0 client uses ours in place of its own; before 5.0 there is no way to tell one."""
    house = House(server_keepalive=20)
    for wish in (0, 10, 60):
        connack = house.join(f"c{wish}", keep_alive=wish).connack
        assert connack is not None
        assert ["server_keep_alive", 20] in connack["properties"]
    old = house.join("old", 4, keep_alive=60)
    house.wait(30)
    assert house.stat("links") == 4
    house.wait(1)
    assert old.closed is None
    assert house.stat("sessions") == 1
    same = house.join("same", keep_alive=20).connack
    assert same is not None
    assert "server_keep_alive" not in dict(same["properties"])
