"""Chapters 3.1 and 3.2: CONNECT and CONNACK, beside test_broker_connect.py, _sessions, _wills and _time."""

from __future__ import annotations

import string
from typing import Any

import pytest

from tests.broker.conformance.tour import Said, heard, tour
from tests.broker.house import (
    MAY,
    House,
    Packet,
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

VERSIONS = [3, 4, 5]


def told(client: Any) -> dict[str, Any]:
    """The properties of its CONNACK."""
    assert client.connack is not None
    return dict(client.connack["properties"])


# --- who comes in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_client_identifiers_that_every_server_takes(version: int) -> None:
    """MQTT-3.1.3-5; 3.1.1 MQTT-3.1.3-5: 1 to 23 characters out of 62."""
    house = House()
    letters = string.digits + string.ascii_lowercase + string.ascii_uppercase
    assert len(letters) == 62
    wanted = [letters[n : n + 23] for n in range(0, 62, 13)] + [letters[:n] for n in range(1, 24)] + list(letters)
    for client_id in wanted:
        client = house.join(client_id, version)
        assert client.closed is None
        client.lose()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_identifier_is_compared_as_it_is(version: int) -> None:
    """MQTT-3.1.3-2; 3.1.1 MQTT-3.1.3-2: a session is found by exactly the client identifier that it was begun with."""
    house = House()
    for client_id in ("peanut", "Peanut", "peanut ", " peanut", "peanut/", "pe\u0301", "p\u00e9"):
        client = house.keeper(client_id, version)
        assert client.connack is not None
        assert not client.connack["session_present"], client_id
        client.subscribe(f"for/{client_id.encode().hex()}", qos=1)
        client.lose()
    house.publish(f"for/{b'peanut'.hex()}", b"1", qos=1)
    for client_id in ("Peanut", "peanut "):
        assert house.keeper(client_id, version).read() == []
    assert house.keeper("peanut", version).payloads() == [b"1"]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("flags", range(8))
def test_the_fields_of_a_connect_are_found_in_their_order(version: int, flags: int) -> None:
    """MQTT-3.1.3-1, MQTT-3.1.3-3, MQTT-3.1.2-9, MQTT-3.1.2-16 to MQTT-3.1.2-19; 3.1.1 MQTT-3.1.3-1, MQTT-3.1.3-3,
    MQTT-3.1.2-9, MQTT-3.1.2-18 to MQTT-3.1.2-21: with each set of optional fields, each field is what was sent as it.
    """
    has_will, username, password = flags & 1, "user" if flags & 2 else None, b"pass" if flags & 4 else None
    if version == 4 and password and not username:
        return  # 3.1.1 MQTT-3.1.2-22: test_a_password_needs_a_user_name_before_v5
    house = House()
    watcher = house.join("watcher")
    watcher.subscribe("#", qos=2, retain_as_published=True)
    client = house.open(Verdict(wait=True))
    left = will("last/words", b"payload", qos=1) if has_will else None
    client.connect("me", version, clean=True, keep_alive=30, will=left, username=username, password=password)
    wish = client.link.connect
    assert wish is not None
    assert (wish.version, wish.client_id, wish.clean_start, wish.keep_alive) == (version, "me", True, 30)
    assert (wish.username, wish.password) == (username, password)
    assert wish.will_topic == ("last/words" if has_will else None)
    client.verdict = Verdict()
    house.judge(client)
    client.lose()
    assert watcher.messages() == ([("last/words", b"payload", 1)] if has_will else [])


def test_a_password_needs_a_user_name_before_v5() -> None:
    """3.1.1 MQTT-3.1.2-22; in 5.0 (§3.1.2.9) a password may stand alone."""
    for version, closed in ((4, 0x81), (5, None)):
        client = House().join("c", version, password=b"secret")
        assert client.closed == closed


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_will_flag_there_is_no_will(version: int) -> None:
    """MQTT-3.1.2-11, MQTT-3.1.2-13; 3.1.1 MQTT-3.1.2-12: whatever way the client goes, nothing is published."""
    house = House()
    watcher = house.join("watcher")
    watcher.subscribe("#", qos=2)
    for end in range(4):
        client = house.keeper("w", version, clean=True, keep_alive=10)
        if end == 0:
            client.lose()
        elif end == 1:
            client.feed(b"\0\0")
        elif end == 2:
            house.wait(16)
        else:
            house.keeper("w", version)
        house.wait(4000)
    assert watcher.read() == []


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [4, 5])
def test_a_will_has_one_of_three_qos(version: int, qos: int) -> None:
    """MQTT-3.1.2-12; 3.1.1 MQTT-3.1.2-14: 3 is refused, test_wrong_packets.py."""
    house = House()
    watcher = house.join("watcher")
    watcher.subscribe("#", qos=2)
    house.join("w", version, will=will(qos=qos)).lose()
    assert watcher.messages() == [("will", b"gone", qos)]


def test_user_properties_of_a_will_keep_their_order() -> None:
    """MQTT-3.1.3-10, MQTT-3.3.2-17: with repetitions, and when the will waited for its delay."""
    said = [["user_property", [key, value]] for key, value in ("b1", "a2", "b1", "a1", "b0", "  ")]
    for delay in (0, 5):
        house = House()
        watcher = house.join("watcher")
        watcher.subscribe("#")
        left = will()
        left["properties"] = [*said[:3], ["will_delay_interval", delay], *said[3:]]
        house.keeper("w", will=left).lose()
        house.wait(delay)
        assert watcher.only()["properties"] == said


def test_a_will_is_with_the_session_until_it_is_published() -> None:
    """MQTT-3.1.2-10; 3.1.1 MQTT-3.1.2-10: published once, though the session comes and goes afterwards."""
    house = House()
    watcher = house.join("watcher")
    watcher.subscribe("#")
    house.keeper("w", will=will()).lose()
    assert len(watcher.messages()) == 1
    for _ in range(3):
        house.keeper("w").lose()
        house.wait(10)
    house.join("w").lose()
    assert watcher.messages() == []


@pytest.mark.parametrize("version", [4, 5])
def test_messages_that_match_at_the_end_of_the_connection_are_kept(version: int) -> None:
    """3.1.1 MQTT-3.1.2-5; MQTT-3.1.2-23, MQTT-4.5.0-1: QoS 1 and 2, for the subscriptions there were."""
    house = House()
    client = house.keeper("k", version)
    client.subscribe("a", qos=1)
    client.subscribe("b", qos=2)
    client.send(disconnect())
    for topic, qos in (("a", 1), ("b", 2), ("c", 1), ("a", 2)):
        house.publish(topic, topic.encode(), qos=qos)
    assert house.keeper("k", version).messages() == [("a", b"a", 1), ("b", b"b", 2), ("a", b"a", 1)]


@pytest.mark.parametrize("version", [4, 5])
def test_the_end_of_a_session_leaves_retained_messages_alone(version: int) -> None:
    """3.1.1 MQTT-3.1.2.7; 5.0 §4.1."""
    house = House()
    for clean in (True, False):
        client = house.join("c", version, clean=clean)
        client.send(publish("a", b"kept", retain=True))
        client.lose()
        assert house.join("c", version, clean=True).closed is None
        assert house.broker.retained("a") == b"kept"


# --- what the server may send -----------------------------------------------------------------------------------------


def busy(house: House, **props: int) -> list[Said]:
    """Everything that one client is sent which asked for it with these properties, as bytes."""
    house.broker.set_rules(1, [(False, MAY, 0, "no/#"), (True, MAY, 0, "#")])
    house.publish("kept/short", b"x", qos=1, retain=True)
    house.publish("kept/long", b"x" * 300, qos=1, retain=True)
    client = house.open(Verdict(slot=1))
    client.send(connect("busy", props=properties(**props)))
    said = heard(client, "CONNECT")
    if client.closed is not None:
        return said
    for packet in (
        subscribe(topic_filter("#", 2), topic_filter("no/x"), topic_filter("a/#/b"), number=5),
        publish("no/one", qos=1, number=6),
        publish("no/two", qos=2, number=7),
        publish("a", b"x" * 20, qos=2, number=8),
        ack("PUBREL", 8),
        ack("PUBREL", 9),
        ack("PUBREC", 9),
        unsubscribe("never", "#", number=10),
        {"type": "PINGREQ"},
        {"type": "CONNACK", "session_present": False, "reason": 0, "properties": []},
    ):
        client.send(packet)
        said += heard(client, str(packet["type"]))
    return said


@pytest.mark.parametrize("limit", [*range(1, 80), 100, 200, 400])
def test_nothing_larger_than_the_client_takes_is_sent(limit: int) -> None:
    """MQTT-3.1.2-24, MQTT-3.2.2-19, MQTT-3.2.2-20, MQTT-3.4.2-2, MQTT-3.5.2-2, MQTT-3.6.2-2, MQTT-3.7.2-2,
    MQTT-3.9.2-1, MQTT-3.11.2-1, MQTT-3.14.2-3: for every limit, every packet of a busy connection fits."""
    said = busy(House(), maximum_packet_size=limit, request_problem_information=1)
    assert [one for one in said if len(one.raw) > limit] == []
    assert [one.packet["type"] for one in said][:1] in (["CONNACK"], []), "MQTT-3.2.0-1"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_one_too_large_is_dropped_for_that_client_alone(qos: int) -> None:
    """MQTT-3.1.2-24, MQTT-3.1.2-25: wherever it stands among those who get the message, of either version; to it the
    message counts as sent, so that the next one comes."""
    house = House()
    takes = [1000, 40, 1000, 40, None, 40, 1000]
    clients = [
        house.join(
            f"c{i}", 4 if most is None else 5, props=[] if most is None else properties(maximum_packet_size=most)
        )
        for i, most in enumerate(takes)
    ]
    for client in clients:
        client.subscribe("t", qos=qos)
    house.publish("t", b"x" * 100, qos=qos)
    house.publish("t", b"after", qos=qos)
    for most, client in zip(takes, clients, strict=True):
        assert client.closed is None
        assert client.payloads() == ([b"after"] if most == 40 else [b"x" * 100, b"after"])
    assert house.stat("dropped_too_large") == takes.count(40)


def test_a_client_that_takes_no_connack_is_not_left_waiting() -> None:
    """MQTT-3.2.0-1, MQTT-3.1.4-5 with MQTT-3.1.2-24: nothing may come before a CONNACK, so without one the connection
    ends; its session is as if it had not come."""
    for limit in (1, 4):
        house = House()
        client = house.join(props=properties(maximum_packet_size=limit, session_expiry_interval=60))
        assert client.connack is None
        assert client.closed is not None
        assert client.offline is None, "it was never online"
        assert house.stat("sessions") == 0
        kept = house.keeper("c")
        kept.subscribe("a")
        assert house.join("c", props=properties(maximum_packet_size=limit)).closed is not None
        assert kept.closed is None, "and takes nothing over"


SILENT = {"SUBSCRIBE", "UNSUBSCRIBE", "PUBREL", "PUBREC"}
"""Questions whose answers have a code and no words; the standard does not ask for any."""


@pytest.mark.parametrize("question", ["SUBSCRIBE", "PUBLISH", "PUBREL", "PUBREC", "UNSUBSCRIBE"])
def test_an_answer_that_fits_without_its_reason_string_is_sent_without(question: str) -> None:
    """MQTT-3.4.2-2, MQTT-3.5.2-2, MQTT-3.6.2-2, MQTT-3.7.2-2, MQTT-3.9.2-1, MQTT-3.11.2-1: it is left out, and not the
    answer with it."""

    def answers(limit: int) -> list[Packet]:
        said = busy(House(), maximum_packet_size=limit, request_problem_information=1)
        return [one.packet for one in said if one.about == question and one.packet["type"] != "PUBLISH"]

    def plain(packets: list[Packet]) -> list[Packet]:
        return [{**packet, "properties": []} for packet in packets]

    free = answers(1000)
    assert any("reason_string" in dict(packet["properties"]) for packet in free) or question in SILENT
    tight = answers(20)  # in which a CONNACK has room, and an answer without the reason's words
    assert plain(free) == plain(tight) == tight


def test_reason_strings_only_where_they_are_asked_for() -> None:
    """MQTT-3.1.2-29: with Request Problem Information 0, on CONNACK and DISCONNECT at the most."""
    for said in (busy(House(), request_problem_information=0), tour(5, ["request_problem_information", 0])):
        kinds = {one.packet["type"] for one in said}
        assert {"PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "DISCONNECT"} <= kinds
        for one in said:
            if one.packet["type"] not in ("PUBLISH", "CONNACK", "DISCONNECT", "PINGRESP"):
                assert one.packet["properties"] == [], one


def test_no_response_information_unless_it_is_asked_for() -> None:
    """MQTT-3.1.2-28: neither by saying nothing nor by saying 0."""
    for props in ([], properties(request_response_information=0)):
        assert "response_information" not in told(House().join(props=props))


# --- aliases to the client --------------------------------------------------------------------------------------------


def aliased(most: int | None) -> list[tuple[str, int | None, str]]:
    """Topic as sent, alias, and the topic that both mean, of messages on seven topics that come three times round."""
    house = House()
    client = house.join(props=properties(topic_alias_maximum=most) if most is not None else [])
    client.subscribe("#", qos=1)
    topics = [f"greenhouse/{n}/telemetry" for n in range(7)]
    for _ in range(3):
        for topic in topics:
            house.publish(topic, topic.encode(), qos=1)
    known: dict[int, str] = {}
    out = []
    for packet in client.read():
        alias = dict(packet["properties"]).get("topic_alias")
        if packet["topic"]:
            meant = packet["topic"]
            if alias is not None:
                known[alias] = meant
        else:
            assert alias is not None, "neither topic nor alias"
            meant = known[alias]
        assert meant.encode() == packet["payload"], "MQTT-3.3.2-3: the topic is the one that was published to"
        out.append((packet["topic"], alias, meant))
    assert [meant for _, _, meant in out] == topics * 3
    return out


@pytest.mark.parametrize("most", [1, 2, 7, 8, 65535])
def test_aliases_stay_within_what_the_client_takes(most: int) -> None:
    """MQTT-3.1.2-26, MQTT-3.3.2-11, MQTT-3.3.2-8: from 1 to its Topic Alias Maximum; and they are made use of."""
    aliases = [alias for _, alias, _ in aliased(most) if alias is not None]
    assert aliases
    assert all(1 <= alias <= most for alias in aliases)
    assert any(not topic for topic, _, _ in aliased(most)) or most < 7, "a topic that comes again needs no name"


@pytest.mark.parametrize("most", [None, 0])
def test_without_a_maximum_there_are_no_aliases(most: int | None) -> None:
    """MQTT-3.1.2-27."""
    assert {alias for _, alias, _ in aliased(most)} == {None}


def test_aliases_to_a_client_end_with_its_connection() -> None:
    """MQTT-3.3.2-7: what was an alias on one connection is none on the next, for redelivery and for what is new."""
    house = House()
    wish = properties(topic_alias_maximum=3)
    client = house.keeper("k", props=wish)
    client.subscribe("#", qos=1)
    for payload in (b"1", b"2", b"3"):
        house.publish("a", payload, qos=1)
    assert [packet["topic"] for packet in client.read()][:1] == ["a"]
    client.lose()
    for props, topics in ((wish, 1), ([], 4)):
        house.publish("a", b"more", qos=1)
        client = house.keeper("k", props=props)
        packets = client.read()
        assert packets[0]["topic"] == "a"
        assert sum(packet["topic"] == "a" for packet in packets) >= topics
        if not props:
            assert all(packet["topic"] and not packet["properties"] for packet in packets)
        client.lose()


# --- what the server announces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1])
def test_maximum_qos_is_announced_and_subscriptions_still_taken(most: int) -> None:
    """MQTT-3.2.2-9, MQTT-3.2.2-10: every requested QoS is accepted, and granted up to the maximum."""
    house = House(max_qos=most)
    client = house.join()
    assert told(client)["maximum_qos"] == most
    assert [client.subscribe(f"q{qos}", qos=qos)[0] for qos in (0, 1, 2)] == [min(qos, most) for qos in (0, 1, 2)]
    old = house.join("old", 4)
    assert [old.subscribe(f"q{qos}", qos=qos)[0] for qos in (0, 1, 2)] == [min(qos, most) for qos in (0, 1, 2)]
    assert "maximum_qos" not in told(House().join())


@pytest.mark.parametrize("most", [0, 1])
def test_a_publication_above_the_maximum_qos_ends_the_connection(most: int) -> None:
    """MQTT-3.2.2-11, 5.0 §3.2.2.3.4: 0x9B; up to the maximum all is well."""
    house = House(max_qos=most)
    listener = house.join("l")
    listener.subscribe("#", qos=2)
    for qos in range(3):
        client = house.join("c")
        client.send(publish("a", b"%d" % qos, qos))
        assert client.closed == (0x9B if qos > most else None)
        client.lose()
    assert listener.payloads() == [b"%d" % qos for qos in range(most + 1)]


@pytest.mark.parametrize("version", [4, 5])
def test_a_will_above_the_maximum_qos_is_refused(version: int) -> None:
    """MQTT-3.2.2-12: CONNACK 0x9B and the end."""
    house = House(max_qos=1)
    assert house.join("good", version, will=will(qos=1)).closed is None
    client = house.join("bad", version, will=will(qos=2))
    assert client.closed == 0x9B
    assert client.connack is not None
    assert client.connack["reason"] == (0x9B if version == 5 else client.connack["reason"]) != 0
    assert client.offline is None


@pytest.mark.parametrize("version", [4, 5])
def test_a_retained_will_without_retention_is_refused(version: int) -> None:
    """MQTT-3.2.2-13: CONNACK 0x9A and the end."""
    house = House(retain_available=0)
    assert house.join("good", version, will=will()).closed is None
    client = house.join("bad", version, will=will(retain=True))
    assert client.closed == 0x9A
    assert client.connack is not None
    assert client.connack["reason"] == (0x9A if version == 5 else client.connack["reason"]) != 0


def test_retention_that_is_not_available_is_announced_and_kept_to() -> None:
    """MQTT-3.2.2-14, 5.0 §3.2.2.3.5: 0x9A for a publication with RETAIN."""
    house = House(retain_available=0)
    client = house.join()
    assert told(client)["retain_available"] == 0
    client.send(publish("a", qos=1))
    assert client.read()[0]["type"] == "PUBACK"
    client.send(publish("a", qos=1, retain=True))
    assert client.closed == 0x9A
    assert house.broker.retained("a") is None
    assert told(House().join()).get("retain_available", 1) == 1


def test_assigned_identifiers_belong_to_nobody_else() -> None:
    """MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16: the session is the assigned identifier's. That the gateway never
    assigns one twice: test_access.py."""
    house = House()
    client = house.open(Verdict(assigned="auto-1"))
    client.connect("", clean=False, props=properties(session_expiry_interval=60))
    assert told(client)["assigned_client_identifier"] == "auto-1"
    client.subscribe("a", qos=1)
    client.lose()
    house.publish("a", b"1", qos=1)
    back = house.keeper("auto-1")
    assert back.payloads() == [b"1"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_rejected_identifier_is_told_and_the_connection_closed(version: int) -> None:
    """MQTT-3.1.3-8; 3.1.1 MQTT-3.1.3-8, MQTT-3.1.3-9: 0x85, before 5.0 return code 2."""
    client = House().join("", version, clean=False, verdict=Verdict(refuse=0x85))
    assert client.connack is not None
    assert client.connack["reason"] == (0x85 if version == 5 else 2)
    assert not client.connack["session_present"]
    assert client.closed == 0x85


@pytest.mark.parametrize("version", VERSIONS)
def test_connack_comes_once(version: int) -> None:
    """MQTT-3.2.0-2: not again for a second verdict, another CONNECT or anything else."""
    house = House()
    client = house.join("c", version)
    with pytest.raises(ValueError, match="no CONNECT waits"):
        client.link.accept(session="me/c", identity="me", rules=0, now=house.now)
    client.send({"type": "PINGREQ"})
    client.feed(codec.encode(connect("c", version), version))
    assert "CONNACK" not in [packet["type"] for packet in client.read()]


def test_keep_alive_is_the_clients_where_the_server_says_nothing() -> None:
    """MQTT-3.2.2-22."""
    house = House(keepalive_max=1000)
    client = house.join(keep_alive=20)
    assert "server_keep_alive" not in told(client)
    house.wait(30)
    assert client.closed is None
    house.wait(0.001)
    assert client.closed == 0x8D


@pytest.mark.parametrize("version", VERSIONS)
def test_no_disconnect_before_a_connack(version: int) -> None:
    """MQTT-3.14.0-1: whatever ends a connection that was not let in, the broker does not say DISCONNECT."""
    house = House(connect_timeout=1000)
    silent, wrong, refused, closed = (house.open(Verdict(wait=True)) for _ in range(4))
    for client in (refused, closed):
        client.version = version
        client.send(connect("c", version))
    wrong.feed(b"\xe0\0")
    house.handle(refused.link.refuse(0x87, now=house.now))
    house.handle(closed.link.close(0x8B, house.now))
    house.wait(2)
    for client in (silent, wrong, refused, closed):
        assert client.closed is not None
        assert "DISCONNECT" not in [one.packet["type"] for one in heard(client)]
