"""Time: keep alive to the millisecond, the wait for a CONNECT."""

import pytest

from tests.broker.house import PINGREQ, PINGRESP, House, Verdict, ack, connect, properties, publish
from tests.reference import codec

VERSIONS = [3, 4, 5]
KEEP_ALIVE_TIMEOUT = 0x8D


@pytest.mark.parametrize("version", VERSIONS)
def test_keep_alive_is_one_and_a_half_times_exactly(version: int) -> None:
    """MQTT-3.1.2-22; 3.1.1 MQTT-3.1.2-24."""
    house = House()
    client = house.join("c", version, keep_alive=10)
    house.wait(15)
    assert client.closed is None
    house.wait(0.001)
    assert client.closed == client.offline == KEEP_ALIVE_TIMEOUT
    said = [(packet["type"], packet["reason"]) for packet in client.read()]
    assert said == ([("DISCONNECT", KEEP_ALIVE_TIMEOUT)] if version == 5 else [])


def test_any_packet_keeps_a_connection_alive() -> None:
    """MQTT-3.1.2-20, MQTT-3.1.2-22, MQTT-3.12.4-1."""
    house = House()
    client = house.join("c", keep_alive=10)
    for packet in (PINGREQ, publish("a"), ack("PUBACK", 1), publish("a", qos=1)):
        house.wait(14.9)
        client.send(packet)
    assert [packet["type"] for packet in client.read()] == ["PINGRESP", "PUBACK"]
    house.wait(14.9)
    assert client.closed is None


def test_a_large_packet_on_a_slow_line_keeps_it_alive_too() -> None:
    """MQTT-3.1.2-22 speaks of packets; a client in the middle of one cannot send another, so its bytes count."""
    house = House()
    client = house.join("c", keep_alive=10)
    for byte in codec.encode(publish("a", b"x" * 20, 1), 5):
        house.wait(10)
        client.feed(bytes([byte]))
    assert client.only()["type"] == "PUBACK"


def test_what_the_broker_sends_does_not_keep_a_connection_alive() -> None:
    """MQTT-3.1.2-22: the client has to be heard of."""
    house = House()
    client = house.join("c", keep_alive=10)
    client.subscribe("a")
    for _ in range(4):
        house.wait(5)
        house.publish("a")
    assert client.closed == KEEP_ALIVE_TIMEOUT


def test_a_keep_alive_of_zero_is_none() -> None:
    """5.0 §3.1.2.10."""
    house = House()
    client = house.join("c", keep_alive=0)
    house.wait(1_000_000)
    assert client.ask(PINGREQ, "PINGRESP") == PINGRESP


def test_the_longest_keep_alive() -> None:
    """5.0 §3.1.2.10: 18 hours, 12 minutes and 15 seconds, and half of it again."""
    house = House()
    client = house.join("c", keep_alive=65535)
    house.wait(98302.5)
    assert client.closed is None
    house.wait(0.001)
    assert client.closed == KEEP_ALIVE_TIMEOUT


@pytest.mark.parametrize("limit", ["keepalive_max", "server_keepalive"])
def test_a_keep_alive_set_by_the_server_is_the_one_that_counts(limit: str) -> None:
    """MQTT-3.1.2-21, MQTT-3.2.2-21; before 5.0 it cannot be told, so the client's own counts."""
    house = House(**{limit: 10})
    new, old, silent = (
        house.join("new", keep_alive=60),
        house.join("old", 4, keep_alive=60),
        house.join("s", keep_alive=0),
    )
    house.wait(15.001)
    assert (new.closed, old.closed, silent.closed) == (KEEP_ALIVE_TIMEOUT, None, KEEP_ALIVE_TIMEOUT)
    house.wait(75)
    assert old.closed == KEEP_ALIVE_TIMEOUT


@pytest.mark.parametrize("begun", [b"", codec.encode(connect("c"), 5)[:-1]])
def test_a_connection_must_say_who_it_is(begun: bytes) -> None:
    """5.0 §3.1: the server closes when no CONNECT comes within a reasonable time; here to the millisecond."""
    house = House(connect_timeout=5000)
    client = house.open()
    client.feed(begun)
    house.wait(5)
    assert client.closed is None
    house.wait(0.001)
    assert client.closed == KEEP_ALIVE_TIMEOUT
    assert client.read() == []


def test_the_verdict_has_the_same_time() -> None:
    """A CONNECT that nobody judges does not hold its connection for ever; a verdict too late finds nothing."""
    house = House(connect_timeout=5000)
    client = house.open(Verdict(wait=True))
    client.send(connect("c"))
    house.wait(5.001)
    assert client.closed == KEEP_ALIVE_TIMEOUT
    assert client.link.connect is None


def test_a_tick_does_everything_that_is_due() -> None:
    """Keep alive, session expiry and connect timeout of many clients in one call, each once."""
    house = House(connect_timeout=1000)
    silent = [house.join(f"s{n}", keep_alive=1, props=properties(session_expiry_interval=1)) for n in range(100)]
    new = [house.open() for _ in range(100)]
    house.wait(2)
    assert {client.closed for client in silent + new} == {KEEP_ALIVE_TIMEOUT}
    assert house.stat("sessions") == 100
    house.wait(1)
    assert house.stat("sessions") == 0
    assert house.stat("links") == 200, "they are the driver's to report lost"


def test_ticks_are_exact_however_often_they_come() -> None:
    """A tick looks at a link when it may be due, and not before: that must not be too late for anybody."""
    house = House(connect_timeout=5000)
    silent = house.join("silent", keep_alive=10)
    talker = house.join("talker", keep_alive=10)
    forever = house.join("forever", keep_alive=0)
    nobody = house.open()
    for half_second in range(60):
        assert (silent.closed is None) == (half_second * 0.5 <= 15)
        assert (nobody.closed is None) == (half_second * 0.5 <= 5)
        if half_second == 20:
            talker.send(PINGREQ)
        assert (talker.closed is None) == (half_second * 0.5 <= 25)
        house.wait(0.5)
    assert forever.closed is None


def test_a_shorter_wait_for_connect_counts_for_who_waits_already() -> None:
    house = House(connect_timeout=60_000)
    client = house.open()
    house.wait(6)
    assert client.closed is None
    house.broker.set_limits(connect_timeout=5000)
    house.wait(0.001)
    assert client.closed == KEEP_ALIVE_TIMEOUT
