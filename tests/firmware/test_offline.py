"""The time without a gateway: what was measured comes late, in order, without haste, and is kept until acknowledged."""

from __future__ import annotations

import json
import time
from typing import Any

from tools.fleet import Node

from .conftest import MakeNode
from .gateway import CONNECT, PUBLISH, SUBSCRIBE, Gateway, Packet, Peer, publish

TELEMETRY = "/plant/peanut/telemetry"
ROOT = "/plant/peanut"
REPORT = {"telemetry_s": 0.2, "keep_s": 0.2}


def stored(node: Node) -> None:
    """Waits until a page of records has been written: 16 of them."""
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in (node.workdir / "buf").glob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def late_message(peer: Peer, acknowledge: bool = True) -> tuple[Packet, list[dict[str, Any]], int]:
    """The next late message, its records, and how many live ones came before it."""
    live = 0
    while True:
        found = peer.read()
        assert found is not None
        if found.type != PUBLISH:
            continue
        if found.topic == TELEMETRY:
            body = found.json
            assert body["sim"] is True
            if body.get("late"):
                assert found.qos == 1
                if acknowledge:
                    peer.puback(found)
                return found, body["batch"], live
            assert found.qos == 0
            live += 1
        elif found.qos:
            peer.puback(found)


def test_readings_come_late_and_are_kept_until_acknowledged(gateway: Gateway, make_node: MakeNode) -> None:
    """Five records a message, a message a second beside the live ones; without PUBACK the file stays."""
    node = make_node(gateway.port, report=REPORT)
    begun_unix = time.time()
    node.start()
    stored(node)
    peer = gateway.accept()
    at = time.monotonic()
    peer.welcome()
    _first, records, _live = late_message(peer)
    assert len(records) == 5
    assert all(set(record["readings"]) == {"temperature", "outside"} for record in records)
    assert all(record["tq"] == "rtc" and begun_unix - 2 < record["ts"] < time.time() + 2 for record in records)
    second, more, live = late_message(peer, acknowledge=False)
    assert time.monotonic() - at > 0.7
    assert live >= 1  # live readings go on beside it
    assert records[-1]["ts"] <= more[0]["ts"]
    # It is not acknowledged: nothing more comes, and nothing is removed.
    quiet = time.monotonic()
    while time.monotonic() - quiet < 1.2:
        found = peer.read()
        assert found is not None
        assert not (found.type == PUBLISH and found.topic == TELEMETRY and found.json.get("late"))
    assert list((node.workdir / "buf").iterdir())
    peer.close()
    # The same session again: the same message again, as a duplicate; then the rest, then the files are gone.
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack(1)
    again = peer.expect(PUBLISH, TELEMETRY)
    assert (again.id, again.payload, again.dup) == (second.id, second.payload, True)
    peer.suback(peer.expect(SUBSCRIBE))
    deadline = time.monotonic() + 90
    seen = [record["ts"] for record in [*records, *more]]
    while list((node.workdir / "buf").iterdir()):
        assert time.monotonic() < deadline
        found = peer.read()
        assert found is not None
        if found.type == PUBLISH and found.qos:
            peer.puback(found)
            if found.topic == TELEMETRY:
                seen += [record["ts"] for record in found.json["batch"]]
    assert seen == sorted(seen)
    assert len(seen) >= 8


def test_late_readings_wait_for_what_is_live(gateway: Gateway, make_node: MakeNode) -> None:
    """Acks on their way: nothing late is sent until the gateway has taken them."""
    node = make_node(gateway.port, report={"telemetry_s": 0.1, "keep_s": 0.1})
    node.start()
    stored(node)
    peer = gateway.accept()
    peer.welcome()
    peer.send(publish(ROOT + "/UpdateTemperature", "temperature:19"))
    held = []
    begun = time.monotonic()
    while time.monotonic() - begun < 2.2:  # two turns of the back-fill
        found = peer.read()
        assert found is not None
        if found.type == PUBLISH and found.qos:
            assert found.topic != TELEMETRY or not held
            held.append(found)
    for found in held:
        peer.puback(found)
    assert late_message(peer)[1]


def test_a_command_that_expired_while_the_node_was_away_is_refused(gateway: Gateway, make_node: MakeNode) -> None:
    """The gateway kept it in the session; the node says `expired`, and does not obey."""
    node = make_node(gateway.port)
    node.start()
    gateway.accept().close()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack(1)
    body = {"temperature": 31, "id": "late", "exp": int(time.time() - 3000)}
    peer.send(publish(ROOT + "/UpdateTemperature", json.dumps(body)))
    peer.suback(peer.expect(SUBSCRIBE))
    ack = peer.expect(PUBLISH, ROOT + "/ack").json
    assert (ack["id"], ack["stage"], ack["state"]["setpoint"]) == ("late", "rejected", 18.0)
    assert ack["why"].startswith("expired 3")  # thousand seconds ago, and those that the test has taken
