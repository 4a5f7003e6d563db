"""$SYS: the numbers themselves, who may read them, who may not write them, and the news of clients."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from peanutd.status import Status, event

LOOPS = ("asyncio", "uvloop")
SETTINGS = """
[listen]
mqtts = "127.0.0.1:0"
mqtt = "127.0.0.1:0"
[access]
anonymous = true
[mqtt]
sys_interval = 1
"""

STATS = {
    "sessions": 3,
    "subscriptions": 4,
    "retained": 5,
    "packets_in": 600,
    "bytes_in": 7,
    "bytes_out": 8,
    "publishes_in": 9,
    "publishes_out": 10,
    "dropped_queue_full": 1,
    "dropped_expired": 2,
}

# mosquitto(8), "Broker Status": the names that its users look for, as far as the gateway counts them.
NAMES = [
    "bytes/received",
    "bytes/sent",
    "clients/connected",
    "clients/disconnected",
    "clients/maximum",
    "clients/total",
    "messages/received",
    "publish/messages/dropped",
    "publish/messages/received",
    "publish/messages/sent",
    "retained messages/count",
    "subscriptions/count",
    "uptime",
    "version",
    "load/messages/received/1min",
    "load/messages/received/5min",
    "load/messages/received/15min",
    "load/publish/received/1min",
    "load/publish/sent/1min",
    "load/publish/dropped/1min",
]


# --- the numbers ---


def numbers(status: Status, connected: int, now: float, **changed: int) -> dict[str, str]:
    return {
        topic.removeprefix("$SYS/broker/"): text for topic, text in status.report({**STATS, **changed}, connected, now)
    }


def test_a_report() -> None:
    status = Status("1.2.3", 100.0)
    found = numbers(status, 2, 161.0)
    assert set(NAMES) <= set(found)
    assert found["version"] == "peanutd version 1.2.3"
    assert found["uptime"] == "61 seconds"
    assert (found["clients/connected"], found["clients/disconnected"], found["clients/total"]) == ("2", "1", "3")
    assert found["publish/messages/dropped"] == "3"
    assert found["messages/received"] == "600"
    assert found["retained messages/count"] == "5"
    assert "messages/sent" not in found, "what the core does not count has no topic"
    assert numbers(status, 2, 162.0, packets_out=11)["messages/sent"] == "11"
    found = numbers(status, 2, 222.0, connects=60, sockets=120, memory=7, expired_sessions=1, publish_bytes_in=5)
    assert (found["clients/expired"], found["publish/bytes/received"]) == ("1", "5")
    assert 20 < float(found["load/connections/1min"]) < float(found["load/sockets/1min"]) < 120
    assert (found["heap/current"], found["heap/maximum"]) == ("7", "7")
    found = numbers(status, 2, 223.0, memory=3)
    assert (found["heap/current"], found["heap/maximum"]) == ("3", "7")


def test_the_most_clients_are_not_forgotten() -> None:
    status = Status("", 0.0)
    status.joined(7)
    assert numbers(status, 2, 1.0)["clients/maximum"] == "7"
    assert numbers(status, 9, 2.0)["clients/maximum"] == "9"
    assert numbers(status, 0, 3.0)["clients/maximum"] == "9"


def test_more_online_than_sessions_is_never_negative() -> None:
    """A session that ends in the same turn as its connection may be counted in one and not in the other."""
    assert numbers(Status("", 0.0), 5, 1.0)["clients/disconnected"] == "0"


def test_averages_fade_as_they_should() -> None:
    """A steady 600 a minute from rest: after t minutes 1 - e^(-t/window) of it, whatever the interval."""
    for interval in (1, 10, 60):
        status, count = Status("", 0.0), 0
        numbers(status, 0, 0.0, packets_in=0)
        for now in range(interval, 301, interval):
            count += 10 * interval
            found = numbers(status, 0, float(now), packets_in=count)
        for window in (1, 5, 15):
            expected = 600 * (1 - math.exp(-5 / window))
            assert float(found[f"load/messages/received/{window}min"]) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("session", "topic"),
    [
        ("plant/peanut", "plant/peanut"),
        ("operator/anna/phone", "operator/anna/phone"),
        ("operator/anna/a/b", "operator/anna/a%2Fb"),
        ("user/ben/#", "user/ben/%23"),
        ("psk/tank:1/a/b", "psk/tank:1/a%2Fb"),
        ("anonymous/a+b/%", "anonymous/a%2Bb%2F%25"),
        ("anonymous/ü", "anonymous/%C3%BC"),
    ],
)
def test_a_client_id_cannot_make_a_topic_of_its_own(session: str, topic: str) -> None:
    assert event(session, "connected", address="x", tls=None, ts=1) == (
        f"$SYS/broker/clients/{topic}/connected",
        b'{"address":"x","ts":1}',
    )


# --- on real sockets ---


@pytest.mark.parametrize("loop", LOOPS)
def test_operators_read_it_and_nobody_writes_it(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(SETTINGS)
    daemon = start(fleet.home, loop=loop)
    anna = dial(daemon.port(), fleet.context(fleet.issue("peanut:operator/anna")))
    assert anna.connect("reader")[1] == 0
    node = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/peanut")))
    assert node.connect("peanut")[1] == 0
    anyone = dial(daemon.port("mqtt"))
    assert anyone.connect("local")[1] == 0
    assert node.subscribe("$SYS/#", "$SYS/broker/uptime", "#", "+/broker/uptime") == b"\x87" * 4
    for wire in (anna, node, anyone):
        assert wire.publish("$SYS/broker/uptime", b"forged", retain=True) == 0x87
        assert wire.publish("$SYS/broker/clients/plant/peanut/connected", b"forged") == 0x87
    assert anyone.subscribe("#", "+/broker/uptime") == b"\x01\x01"
    anyone.ping()
    assert not [body for kind, body in anyone._kept if kind >> 4 == 3 and b"$SYS" in body], "hidden from wildcards"
    for wire in (anna, anyone):
        assert wire.subscribe("$SYS/broker/+") == b"\x01"
        found = dict(wire.message()[:2] for _ in range(2))
        assert found["$SYS/broker/uptime"].endswith(b" seconds")
        assert found["$SYS/broker/version"].startswith(b"peanutd version ")
        assert wire.subscribe("$SYS/broker/clients/connected") == b"\x01"
        while wire.message()[:2] != ("$SYS/broker/clients/connected", b"3"):
            pass  # the next report says so


@pytest.mark.parametrize("loop", LOOPS)
def test_news_of_clients(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(SETTINGS)
    daemon = start(fleet.home, loop=loop)
    anna = dial(daemon.port(), fleet.context(fleet.issue("peanut:operator/anna")))
    assert anna.connect("reader")[1] == 0
    assert anna.subscribe("$SYS/broker/clients/plant/+/+") == b"\x01"
    leaf = fleet.context(fleet.issue("peanut:plant/peanut"))
    node = dial(daemon.port(), leaf)
    assert node.connect("peanut")[1] == 0

    def news() -> tuple[str, dict[str, Any]]:
        topic, payload, retained = anna.message()
        assert not retained
        return topic.removeprefix("$SYS/broker/clients/"), json.loads(payload)

    topic, said = news()
    assert topic == "plant/peanut/connected"
    assert said["address"].startswith(node.source)
    assert (said["mqtt"], said["tls"]) == ("5.0", "TLSv1.3")
    again = dial(daemon.port(), leaf)
    assert again.connect("peanut")[1] == 0
    assert news()[0] == "plant/peanut/connected", "a takeover is no going"
    again.disconnect()
    topic, said = news()
    assert topic == "plant/peanut/disconnected"
    assert (said["code"], said["why"]) == (0, "the client said goodbye")
    late = dial(daemon.port("mqtt"))
    assert late.connect("late")[1] == 0
    assert late.subscribe("$SYS/broker/clients/plant/#") == b"\x01"
    late.ping()
    assert not late._kept, "news are not kept"


def test_off_is_off(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(SETTINGS.replace("sys_interval = 1", "sys_interval = 0"))
    daemon = start(fleet.home)
    reader = dial(daemon.port("mqtt"))
    assert reader.connect("reader")[1] == 0
    assert reader.subscribe("$SYS/#") == b"\x01"
    assert dial(daemon.port("mqtt")).connect("other")[1] == 0
    reader.ping()
    assert not reader._kept
