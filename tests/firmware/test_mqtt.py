"""The MQTT client of the node on the unix port, whole and over TLS, against a gateway that misbehaves on purpose.

Numbers in brackets are statements of MQTT 3.1.1.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise

import pytest

from .conftest import MakeNode
from .gateway import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    Gateway,
    Packet,
    Peer,
    packet,
    publish,
)

FILTERS = (b"config/desired", b"ota/chunk", b"ota/desired", b"cmd/+")  # below the root, beside SET and $cert
SET = "/plant/peanut/UpdateTemperature"
VENT = "/plant/peanut/cmd/vent"
ACK = "/plant/peanut/ack"


def command(body: object, topic: str = SET, ident: int = 1, flags: int = 0) -> bytes:
    return publish(topic, body if isinstance(body, str) else json.dumps(body), ident=ident, flags=flags)


def start(gateway: Gateway, make_node: MakeNode, **tables: dict[str, object]) -> Peer:
    make_node(gateway.port, **tables).start()
    peer = gateway.accept()
    peer.welcome()
    return peer


def in_turn(peer: Peer) -> Packet:
    """The next packet that waits for something or answers: not the health and the log lines, which have no QoS and come
    whenever their task has its turn."""
    while True:
        found = peer.read()
        assert found is not None, "the node closed"
        if found.type != PUBLISH or found.qos:
            return found


def test_connect_keeps_the_session_and_leaves_a_will(gateway: Gateway, make_node: MakeNode) -> None:
    """Level 4, persistent session, will retained with QoS 1 [3.1.2], client id = the node's name."""
    make_node(gateway.port, link={"keepalive_s": 60}).start()
    body = gateway.accept().expect(CONNECT).body
    assert body[:7] == b"\x00\x04MQTT\x04"
    assert body[7] == 0b00101100  # will retain, will QoS 1, will; no clean session, no user name
    assert int.from_bytes(body[8:10]) == 60
    fields, at = [], 10
    while at < len(body):
        size = int.from_bytes(body[at : at + 2])
        fields.append(body[at + 2 : at + 2 + size])
        at += 2 + size
    assert fields[:2] == [b"peanut", b"/plant/peanut/status"]
    will = json.loads(fields[2])
    assert will["state"] == "offline"
    assert will["kind"] == "greenhouse"
    assert will["sim"] is True


@pytest.mark.parametrize("session", [0, 1])
def test_birth_after_the_subscriptions(gateway: Gateway, make_node: MakeNode, session: int) -> None:
    """Session present or not [3.2.2.2], the node subscribes, then publishes status and state, retained, QoS 1."""
    make_node(gateway.port).start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack(session)
    subscribe = peer.expect(SUBSCRIBE)
    assert subscribe.first == 0x82
    filters = [b"$cert/plant/peanut", SET.encode(), *(b"/plant/peanut/" + name for name in FILTERS)]
    assert subscribe.body[2:] == b"".join(len(f).to_bytes(2, "big") + f + b"\x01" for f in filters)
    peer.suback(subscribe)
    status = peer.expect(PUBLISH)
    assert (status.topic, status.qos, status.retain) == ("/plant/peanut/status", 1, True)
    assert status.json["state"] == "online"
    state = peer.expect(PUBLISH, "/plant/peanut/state")
    assert (state.qos, state.retain) == (1, True)
    assert state.json["setpoint"] == 18
    assert state.json["mode"] == "auto"


def test_one_byte_at_a_time(gateway: Gateway, make_node: MakeNode) -> None:
    """Any split of the stream gives the same packets."""
    make_node(gateway.port).start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.dribble(b"\x20\x02\x00\x00")
    subscribe = peer.expect(SUBSCRIBE)
    granted = packet(0x90, subscribe.body[:2] + b"\x01" * (2 + len(FILTERS)))
    peer.dribble(granted + command({"temperature": 15.5, "id": "a"}))
    for stage in ("accepted", "done"):
        ack = peer.expect(PUBLISH, ACK).json
        assert (ack["id"], ack["stage"], ack["state"]["setpoint"]) == ("a", stage, 15.5)


def test_many_packets_in_one_record_and_a_command_before_suback(gateway: Gateway, make_node: MakeNode) -> None:
    """What was queued may come before SUBACK; the handler is there before CONNECT, and it is obeyed."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    first, second = command("temperature:16", ident=7), command("temperature:17", ident=8)
    peer.send(b"\x20\x02\x01\x00" + first + b"\xd0\x00" + second)
    assert [peer.expect(PUBACK).id, peer.expect(PUBACK).id] == [7, 8]
    node.wait_for_log("accepted UpdateTemperature 17")


def test_half_a_packet_then_silence(gateway: Gateway, make_node: MakeNode) -> None:
    """Nothing whole within 1.5 times keep alive: the node drops the connection and comes back."""
    node = make_node(gateway.port, link={"keepalive_s": 2})
    node.start()
    peer = gateway.accept()
    begun = time.monotonic()
    peer.welcome()
    peer.send(command("temperature:15")[:20])
    peer.expect_closed()
    assert time.monotonic() - begun > 3
    node.wait_for_log("no whole packet heard for 3 s")
    gateway.accept().welcome(session=1)


def test_close_by_the_gateway_is_noticed_at_once(gateway: Gateway, make_node: MakeNode) -> None:
    """After SUBACK the gateway closes; with 600 s of keep alive only the close itself can bring the node back."""
    node = make_node(gateway.port, link={"keepalive_s": 600})
    node.start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.suback(peer.expect(SUBSCRIBE))
    peer.close()
    begun = time.monotonic()
    gateway.accept().welcome()
    assert time.monotonic() - begun < 100
    node.wait_for_log("closed by the gateway")


def test_pings_at_a_quarter_of_keep_alive(gateway: Gateway, make_node: MakeNode) -> None:
    """PINGREQ when nothing was heard or sent for keep alive / 4, again and again."""
    times = [time.monotonic()]  # before there was anything to be heard or sent
    peer = start(gateway, make_node, link={"keepalive_s": 4})
    for _ in range(3):
        assert peer.expect(PINGREQ).body == b""
        peer.send(b"\xd0\x00")
        times.append(time.monotonic())
    assert times[-1] - times[0] > 2
    assert min(after - before for before, after in pairwise(times)) < 3  # a busy machine delays one, not all of them


# What a gateway may not send once a session is up, and the words in which the node ends it.
MALFORMED = [
    (b"\x30\xff\xff\xff\x7f", "packet of 268435455 bytes, limit 4096"),
    (b"\x32\x81\x20", "packet of 4097 bytes, limit 4096"),
    (b"\x30\x80\x80\x80\x80", "malformed: remaining length"),  # 2.2.3
    (b"\x20\x02\x00\x00", "protocol error: second CONNACK"),
    (b"\x00\x00", "protocol error: packet type 0"),
    (b"\xf0\x00", "protocol error: packet type 15"),
    (b"\xc0\x00", "protocol error: packet type 12"),
    (b"\x50\x02\x00\x01", "protocol error: packet type 5"),
    (b"\xd1\x00", "malformed: reserved flags of packet type 13"),  # [MQTT-2.2.2-2]
    (b"\xd0\x01\x00", "malformed: PINGRESP"),
    (b"\x41\x02\x00\x01", "malformed: reserved flags of packet type 4"),
    (b"\x40\x01\x00", "malformed: PUBACK"),
    (b"\x90\x03\x00\x01\x01", "malformed: SUBACK"),
    (b"\x36\x05\x00\x01a\x00\x01", "malformed: QoS 3"),  # [MQTT-3.3.1-4]
    (b"\x34\x05\x00\x01a\x00\x01", "protocol error: QoS 2"),
    (b"\x38\x03\x00\x01a", "malformed: DUP with QoS 0"),  # [MQTT-3.3.1-2]
    (b"\x30\x00", "malformed: PUBLISH"),
    (b"\x30\x02\x00\x00", "malformed: PUBLISH"),  # [MQTT-4.7.3-1]
    (b"\x30\x03\x00\x09a", "malformed: PUBLISH"),
    (b"\x32\x04\x00\x01a\x00", "malformed: PUBLISH"),
    (b"\x32\x05\x00\x01a\x00\x00", "malformed: packet id 0"),  # [MQTT-2.3.1-1]
    (b"\x30\x03\x00\x01#", "malformed: topic"),  # [MQTT-3.3.2-2]
    (b"\x30\x03\x00\x01\x00", "malformed: topic"),  # [MQTT-1.5.3-2]
    (b"\x30\x03\x00\x01\xff", "malformed: topic is not UTF-8"),  # [MQTT-1.5.3-1]
]


def test_malformed_packets_end_the_session_never_the_node(gateway: Gateway, make_node: MakeNode) -> None:
    """Each is answered by closing, with the reason in the log; the same process comes back each time."""
    node = make_node(gateway.port, link={"cap_s": 0.05})
    node.start()
    for data, reason in MALFORMED:
        before = len(node.log)
        peer = gateway.accept()
        peer.welcome(session=1)
        peer.send(data)
        peer.expect_closed()
        node.wait_for_log(reason, after=before)
    gateway.accept().welcome(session=1)
    assert "internal" not in node.log


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x20\x02\x00\x05", "not authorised by the gateway"),
        (b"\x20\x02\x00\x04", "the gateway refused user name or password"),
        (b"\x20\x02\x00\x02", "does not take this client id"),
        (b"\x20\x02\x00\x03", "not available now"),
        (b"\x20\x02\x00\x77", "unknown code 119"),
        (b"\x20\x02\x02\x00", "malformed: CONNACK"),
        (b"\x20\x01\x00", "malformed: CONNACK"),
        (b"\x90\x03\x00\x01\x01", "packet type 9 before CONNACK"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "before CONNACK"),
    ],
)
def test_bad_connack(gateway: Gateway, make_node: MakeNode, answer: bytes, reason: str) -> None:
    """Every other answer than a good CONNACK is a reason in words, and the node tries again."""
    node = make_node(gateway.port, link={"refused_cap_s": 0.1})
    node.start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.send(answer)
    peer.expect_closed()
    node.wait_for_log(reason)
    gateway.accept().expect(CONNECT)


def test_refused_subscription_is_named(gateway: Gateway, make_node: MakeNode) -> None:
    """SUBACK 0x80 [3.9.3]: the node says which filter it may not have."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.suback(peer.expect(SUBSCRIBE), 1, 1, 1, 1, 1, 0x80)
    peer.expect_closed()
    node.wait_for_log("not allowed to subscribe to /plant/peanut/cmd/+")


def test_unacknowledged_messages_are_repeated(gateway: Gateway, make_node: MakeNode) -> None:
    """On the same session with DUP and the same id, in order [MQTT-4.4.0-1]; on a new one as new [MQTT-3.3.1-1]."""
    make_node(gateway.port).start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.suback(peer.expect(SUBSCRIBE))
    first = [peer.read(), peer.read()]
    assert all(found is not None and not found.dup for found in first)
    peer.close()
    for session in (1, 0):
        peer = gateway.accept()
        peer.expect(CONNECT)
        peer.connack(session)
        for old in first:
            again = peer.read()
            assert again is not None
            assert old is not None
            assert (again.id, again.topic, again.payload) == (old.id, old.topic, old.payload)
            assert again.dup is bool(session)
        peer.close()


def test_four_in_flight_at_the_most(gateway: Gateway, make_node: MakeNode) -> None:
    """A gateway that acknowledges nothing gets four QoS 1 messages; each PUBACK lets one more out."""
    make_node(gateway.port).start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.suback(peer.expect(SUBSCRIBE))
    for i in range(6):
        peer.send(command({"temperature": 10 + i, "id": str(i)}, ident=i + 1))
    waiting = [in_turn(peer) for _ in range(4 + 6)]  # the six PUBACKs, and what fills the window
    flight = [p for p in waiting if p.type == PUBLISH]
    assert len(flight) == 4
    for ident in (50, 51):  # turns of the node in which nothing else may come
        peer.send(command("temperature:99", ident=ident))
        answer = in_turn(peer)
        assert (answer.type, answer.id) == (PUBACK, ident)
    peer.puback(flight[0])
    fifth = in_turn(peer)
    assert fifth.type == PUBLISH
    assert fifth.id not in {p.id for p in flight}


def test_acknowledgements_in_another_order(gateway: Gateway, make_node: MakeNode) -> None:
    """The last first, one twice, one that nobody asked for: what was acknowledged is not sent again, the rest is."""
    make_node(gateway.port).start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.suback(peer.expect(SUBSCRIBE))
    for i in range(2):
        peer.send(command({"temperature": 10 + i, "id": str(i)}, ident=i + 1))
    flight = [p for p in [in_turn(peer) for _ in range(4 + 2)] if p.type == PUBLISH]
    assert len(flight) == 4
    kept = flight[1]
    for ident in (flight[3].id, flight[2].id, flight[2].id, 60000, flight[0].id):
        assert ident is not None
        peer.send(packet(PUBACK << 4, ident.to_bytes(2)))
    fresh = in_turn(peer)  # there is room again
    peer.puback(fresh)
    assert fresh.type == PUBLISH
    assert fresh.id not in {p.id for p in flight}
    peer.close()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack(1)
    again = peer.read()
    assert again is not None
    assert (again.id, again.payload, again.dup) == (kept.id, kept.payload, True)
    after = peer.read()
    assert after is None or after.id not in {p.id for p in flight}


def test_an_old_command_that_comes_late_changes_nothing_back(gateway: Gateway, make_node: MakeNode) -> None:
    """A repetition behind a newer command, as a session that was resumed may bring it: the newer one stays in force."""
    peer = start(gateway, make_node)
    old, new = {"temperature": 15, "id": "old"}, {"temperature": 20, "id": "new"}
    for number, order in enumerate((old, new), 1):
        peer.send(command(order, ident=number))
        assert [peer.expect(PUBLISH, ACK).json["stage"] for _ in range(2)] == ["accepted", "done"]
    peer.send(command(old, ident=1, flags=8))
    again = peer.expect(PUBLISH, ACK).json
    assert (again["id"], again["stage"], again["state"]["setpoint"]) == ("old", "done", 20)


def test_puback_comes_after_the_command_is_stored(gateway: Gateway, make_node: MakeNode) -> None:
    """Once the gateway may forget the command, a power cut must not lose it."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.welcome()
    peer.send(command("temperature:21.5", ident=9))
    assert peer.expect(PUBACK).id == 9
    node.kill()
    assert json.loads((node.workdir / "state.json").read_text())["setpoint"] == 21.5
    node.start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.suback(peer.expect(SUBSCRIBE))
    assert peer.expect(PUBLISH, "/plant/peanut/state").json["setpoint"] == 21.5


def test_duplicate_is_answered_and_not_done_twice(gateway: Gateway, make_node: MakeNode) -> None:
    """The same id again: the last answer again, without a second act; the id with other content: malformed."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.welcome()
    order = {"id": "v1", "args": {"mode": "open"}}
    peer.send(command(order, VENT))
    assert [peer.expect(PUBLISH, ACK).json["stage"] for _ in range(2)] == ["accepted", "done"]
    peer.send(command(order, VENT, flags=8))
    again = peer.expect(PUBLISH, ACK).json
    assert (again["id"], again["stage"], again["state"]["vent"]) == ("v1", "done", True)
    assert node.log.count("accepted vent") == 1
    peer.send(command({"id": "v1", "args": {"mode": "closed"}}, VENT))
    other = peer.expect(PUBLISH, ACK).json
    assert other["stage"] == "rejected"
    assert other["why"].startswith("malformed")
    assert other["state"]["vent"] is True


REJECTED = [
    (SET, {"temperature": 41}, 0, "range"),
    (SET, {"temperature": 15, "exp": 1}, 0, "expired"),
    (SET, {"temperature": True}, 0, "malformed"),
    (SET, {"temperature": 15, "colour": 1}, 0, "malformed"),
    (SET, {"temperature": 15}, 1, "retained"),
    ("/plant/peanut/cmd/explode", {}, 0, "unknown"),
    (VENT, {"args": {"mode": "ajar"}}, 0, "malformed"),
    (SET, "temperature:nan", 0, "malformed"),
    (SET, "temperature:99", 0, "range"),
    (SET, "temperature:15", 1, "retained"),
    (SET, "", 0, "malformed"),
]


def test_rejections_reach_the_ack_topic_with_their_reason(gateway: Gateway, make_node: MakeNode) -> None:
    """Each word of the agreement; the set point stays; an id or, without one, the payload says which command it was."""
    peer = start(gateway, make_node)
    for number, (topic, body, flags, word) in enumerate(REJECTED):
        if isinstance(body, dict):
            body = {**body, "id": f"x{number}"}
        peer.send(command(body, topic, flags=flags))
        ack = peer.expect(PUBLISH, ACK).json
        assert ack["stage"] == "rejected"
        assert ack["why"].split(":")[0].split()[0] == word
        assert ack["state"]["setpoint"] == 18
        assert ack["cmd"] == topic.rsplit("/", 1)[1]
        assert ack.get("id") == f"x{number}" if isinstance(body, dict) else ack["echo"] == body
        assert isinstance(ack["ts"], int)


def test_a_flood_is_survived_and_answered(gateway: Gateway, make_node: MakeNode) -> None:
    """2,000 commands at once: every one acknowledged to the gateway, the answers bounded, busy said, the node well."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.welcome()
    total = 2000
    stages: Counter[str] = Counter()
    received = 0
    for base in range(0, total, 500):
        peer.send(b"".join(command({"temperature": 15, "id": f"f{i}"}, ident=i + 1) for i in range(base, base + 500)))
        while received < base + 500:
            found = peer.read()
            assert found is not None, node.log[-2000:]
            if found.type == PUBLISH and found.qos:
                peer.puback(found)
                if found.topic == ACK:
                    stages[found.json.get("why", found.json["stage"]).split(":")[0]] += 1
            received += found.type == PUBACK
    peer.send(command({"temperature": 19, "id": "last"}))
    while (ack := peer.expect(PUBLISH, ACK).json)["id"] != "last" or ack["stage"] != "done":
        stages[ack.get("why", ack["stage"]).split(":")[0]] += 1
        if ack["id"] == "last" and ack["stage"] == "rejected":
            peer.send(command({"temperature": 19, "id": "last"}))
    assert stages["busy"] > 0
    assert stages["accepted"] > 0
    assert stages["done"] == stages["accepted"] or stages["done"] == stages["accepted"] - 1
    assert node.running


def test_planned_stop(gateway: Gateway, make_node: MakeNode) -> None:
    """`offline` with the reason, retained, then DISCONNECT [MQTT-3.14.4-3], and exit status 0."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.welcome()
    node.ask_to_stop()
    last = peer.expect(PUBLISH, "/plant/peanut/status")
    assert last.retain
    assert (last.json["state"], last.json["why"]) == ("offline", "shutdown")
    assert peer.expect(DISCONNECT).first == 0xE0
    peer.expect_closed()
    assert node.stop() == 0


def test_planned_stop_does_not_wait_for_a_deaf_gateway(gateway: Gateway, make_node: MakeNode) -> None:
    """Without a single PUBACK the node still ends within its bound."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    peer.suback(peer.expect(SUBSCRIBE))
    node.wait_for_log("online")
    begun = time.monotonic()
    assert node.stop(timeout=60) == 0  # it was not killed
    assert time.monotonic() - begun < 60
