"""Chapters 3.8 to 3.11 and 4.7: subscriptions, where test_broker_subscriptions.py leaves something."""

from __future__ import annotations

from itertools import chain

import pytest

from tests.broker.house import Client, House, Verdict, ack, properties, publish, subscribe, topic_filter, unsubscribe
from tests.reference import codec

VERSIONS = [3, 4, 5]


def identifiers(client: Client) -> list[list[int]]:
    """The subscription identifiers of what came, each message's in ascending order."""
    packets = client.read()
    assert all(packet["type"] == "PUBLISH" for packet in packets), packets
    return [sorted(v for name, v in packet["properties"] if name == "subscription_identifier") for packet in packets]


def enlist(client: Client, number: int | None, *filters: dict[str, object]) -> None:
    """Subscribes under an identifier."""
    props = properties(subscription_identifier=number) if number is not None else []
    answer = client.ask(subscribe(*filters, number=9, props=props), "SUBACK")
    assert all(reason < 0x80 for reason in answer["reasons"])


# --- subscription identifiers -----------------------------------------------------------------------------------------


def test_an_identifier_comes_with_what_its_subscription_brings() -> None:
    """MQTT-3.3.4-3: and a subscription without one brings none; the largest there can be is a number like any other."""
    house = House()
    client = house.join()
    for number, pattern in ((1, "a"), (268435455, "b"), (None, "c"), (128, "d/#")):
        enlist(client, number, topic_filter(pattern))
    for topic in ("a", "b", "c", "d", "d/e"):
        house.publish(topic)
    assert identifiers(client) == [[1], [268435455], [], [128], [128]]


def test_overlapping_subscriptions_all_give_their_identifiers() -> None:
    """MQTT-3.3.4-3, MQTT-3.3.4-4, MQTT-3.3.4-5: one copy with all of them, or a copy for each with its own."""
    house = House()
    client = house.join()
    enlist(client, 1, topic_filter("a/b", 1))
    enlist(client, 2, topic_filter("a/+", 0))
    enlist(client, None, topic_filter("+/b", 2))
    enlist(client, 3, topic_filter("#", 1))
    house.publish("a/b", qos=2)
    got = identifiers(client)
    assert sorted(chain(*got)) == [1, 2, 3]
    assert len(got) in (1, 4)


def test_an_identifier_is_replaced_with_its_subscription() -> None:
    """MQTT-3.8.4-3, 5.0 §3.8.2.1.2: by another, and by none; it ends with the subscription."""
    house = House()
    client = house.join()
    for number, expected in ((5, [[5]]), (6, [[6]]), (None, [[]])):
        enlist(client, number, topic_filter("a"))
        house.publish("a")
        assert identifiers(client) == expected
    enlist(client, 7, topic_filter("a"), topic_filter("#"))
    client.ask(unsubscribe("a"), "UNSUBACK")
    house.publish("a")
    assert identifiers(client) == [[7]]


def test_identifiers_come_with_retained_and_kept_messages() -> None:
    """MQTT-3.3.4-3: a retained message with that of the subscription that fetched it; one that waited, with those
    that it matched."""
    house = House()
    house.publish("a", b"kept", qos=1, retain=True)
    client = house.keeper("k")
    enlist(client, 1, topic_filter("#", 1))
    assert identifiers(client) == [[1]]
    client.send(subscribe(topic_filter("a", 1), number=2, props=properties(subscription_identifier=2)))
    answers = client.read()
    assert [packet["type"] for packet in answers] == ["SUBACK", "PUBLISH"]
    assert answers[1]["properties"] == properties(subscription_identifier=2)
    client.lose()
    house.publish("a", b"waited", qos=1)
    client = house.keeper("k")
    waited = [packet for packet in client.read() if packet["payload"] == b"waited"]
    assert sorted(value for packet in waited for _, value in packet["properties"]) == [1, 2]


def test_an_identifier_is_no_news_for_others() -> None:
    """5.0 §3.3.2.3.8: each client gets its own, whatever others have for the same filter; 3.1.1 gets none."""
    house = House()
    one, two, plain, old = house.join("one"), house.join("two"), house.join("plain"), house.join("old", 4)
    enlist(one, 11, topic_filter("a"))
    enlist(two, 22, topic_filter("a"))
    plain.subscribe("a")
    old.subscribe("a")
    house.publish("a", b"x")
    assert [identifiers(client) for client in (one, two, plain)] == [[[11]], [[22]], [[]]]
    assert old.payloads() == [b"x"]


@pytest.mark.parametrize("number", ["00", "80 00", "80 80 80 80 01"])
def test_an_identifier_of_zero_or_too_large_is_an_error(number: str) -> None:
    """5.0 §3.8.2.1.2: Protocol Error; a variable byte integer of five bytes is malformed."""
    raw = b"\x0b" + bytes.fromhex(number)
    client = House().join()
    client.feed(bytes([0x82, 2 + 1 + len(raw) + 4]) + b"\0\1" + bytes([len(raw)]) + raw + b"\0\1a\0")
    assert client.closed in (0x81, 0x82)


def test_a_client_sends_no_identifier() -> None:
    """MQTT-3.3.4-6: a PUBLISH with one is a Protocol Error, and is not passed on."""
    house = House()
    listener, client = house.join("l"), house.join("c")
    listener.subscribe("#")
    client.send(publish("a", props=properties(subscription_identifier=1)))
    assert client.closed == 0x82
    assert listener.read() == []


# --- SUBSCRIBE and SUBACK ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_retained_messages_come_again_when_a_subscription_is_replaced(version: int) -> None:
    """MQTT-3.8.4-4; 3.1.1 MQTT-3.8.4-3: and what is published meanwhile is not lost."""
    house = House()
    house.publish("a", b"kept", qos=1, retain=True)
    client = house.join("c", version)
    got = []
    for qos in (0, 1, 0):
        client.send(subscribe(topic_filter("a", qos)))
        house.publish("a", b"passing", qos=1)
        got += [packet["payload"] for packet in client.read() if packet["type"] == "PUBLISH"]
    assert got == [b"kept", b"passing"] * 3
    assert house.stat("subscriptions") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_many_filters_at_once_are_as_many_one_by_one(version: int) -> None:
    """MQTT-3.8.4-5, MQTT-3.10.4-6, MQTT-3.8.4-6, MQTT-3.9.3-1, MQTT-3.11.3-1; 3.1.1 MQTT-3.8.4-4, MQTT-3.8.4-5,
    MQTT-3.9.3-1, MQTT-3.10.4-6: one answer, a code for each in their order, and the same in force."""
    wanted = ["a", "b/+", "a", "x/#/y", "c/#", "b/+", "$SYS/x", "+"]
    qos = [0, 1, 2, 1, 2, 0, 1, 2]
    answers: list[list[int]] = []
    states = []
    for together in (True, False):
        house = House()
        for topic in ("a", "b/1", "c/d", "$SYS/x"):
            house.publish(topic, b"kept", qos=2, retain=True)
        client = house.join("c", version)
        if together:
            client.send(subscribe(*map(topic_filter, wanted, qos), number=7))
        else:
            for n, (pattern, level) in enumerate(zip(wanted, qos, strict=True)):
                client.send(subscribe(topic_filter(pattern, level), number=7 + n))
        packets = client.read()
        answers.append([*chain(*(packet["reasons"] for packet in packets if packet["type"] == "SUBACK"))])
        assert sum(packet["type"] == "SUBACK" for packet in packets) == (1 if together else len(wanted))
        kept = sorted((p["topic"], p["qos"]) for p in packets if p["type"] == "PUBLISH")
        for topic in ("a", "b/1", "c/d", "$SYS/x", "d", "x/y"):
            house.publish(topic, qos=2)
        passing = client.messages()
        gone = ["a", "never", "c/#", "a", "+"]
        if together:
            reasons = client.ask(unsubscribe(*gone, number=8), "UNSUBACK")["reasons"]
        else:
            reasons = [*chain(*(client.ask(unsubscribe(one, number=8), "UNSUBACK")["reasons"] for one in gone))]
        for topic in ("a", "b/1", "c/d", "$SYS/x", "d"):
            house.publish(topic, qos=2)
        states.append((kept, passing, reasons, client.messages()))
    assert answers[0] == answers[1] == [0, 1, 2, 0x8F if version == 5 else 0x80, 2, 0, 1, 2]
    assert states[0] == states[1]
    assert states[0][2] == ([0, 0x11, 0, 0x11, 0] if version == 5 else [])
    assert [topic for topic, _, _ in states[0][3]] == ["b/1", "$SYS/x"]


@pytest.mark.parametrize("version", VERSIONS)
def test_no_filter_at_all_is_an_error(version: int) -> None:
    """MQTT-3.8.3-2, MQTT-3.10.3-2; 3.1.1 MQTT-3.8.3-3, MQTT-3.10.3-2."""
    for first in (0x82, 0xA2):
        client = House().join("c", version)
        body = b"\0\7" + (b"\0" if version == 5 else b"")
        client.feed(bytes([first, len(body)]) + body)
        assert client.closed in ((0x82,) if version == 5 else (0x81, 0x82))


@pytest.mark.parametrize("version", VERSIONS)
def test_filters_with_wildcards_are_supported(version: int) -> None:
    """3.1.1 MQTT-3.8.3-2; 5.0 §3.2.2.3.11: and 5.0 is told so, or nothing, which means the same."""
    house = House()
    client = house.join("c", version)
    assert client.subscribe("a/+", "b/#") == [0, 0]
    if version == 5:
        assert client.connack is not None
        assert dict(client.connack["properties"]).get("wildcard_subscription_available", 1) == 1


def test_no_local_with_a_shared_subscription_is_an_error() -> None:
    """MQTT-3.8.3-4: Protocol Error; and the other filters of the packet are not in force."""
    house = House()
    client = house.keeper("k")
    client.send(subscribe(topic_filter("a"), topic_filter("$share/g/a", no_local=True)))
    assert client.closed == 0x82
    client.lose()
    client = house.keeper("k")
    house.publish("a", qos=1)
    assert client.read() == []


@pytest.mark.parametrize("version", [4, 5])
def test_the_qos_that_is_granted_is_the_one_that_is_told(version: int) -> None:
    """MQTT-3.8.4-7, MQTT-3.8.4-8; 3.1.1 MQTT-3.8.4-6: and messages come at no higher one."""
    house = House()
    client = house.join("c", version)
    for qos in (0, 1, 2):
        (granted,) = client.subscribe(f"t/{qos}", qos=qos)
        assert granted == qos
        for sent in (0, 1, 2):
            house.publish(f"t/{qos}", qos=sent)
        assert [got for _, _, got in client.messages()] == [min(granted, sent) for sent in (0, 1, 2)]


# --- UNSUBSCRIBE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_filters_are_compared_character_by_character(version: int) -> None:
    """MQTT-3.10.4-1; 3.1.1 MQTT-3.10.4-1: what only matches, or looks alike, ends nothing."""
    house = House()
    client = house.join("c", version)
    client.subscribe("a/+", "a/b", "e\u0301", "#")
    answer = client.ask(unsubscribe("a/c", "A/b", "a/b/", "/a/b", "\u00e9", "+/b", "+", "a/#", "a/+ "), "UNSUBACK")
    assert answer["reasons"] == ([0x11] * 9 if version == 5 else [])
    assert house.stat("subscriptions") == 4
    answer = client.ask(unsubscribe("a/+", "#"), "UNSUBACK")
    assert answer["reasons"] == ([0, 0] if version == 5 else [])
    for topic in ("a/c", "a/b", "x"):
        house.publish(topic)
    assert [topic for topic, _, _ in client.messages()] == ["a/b"]


@pytest.mark.parametrize("version", VERSIONS)
def test_after_unsubscribe_nothing_new_and_what_was_begun(version: int) -> None:
    """MQTT-3.10.4-2, MQTT-3.10.4-3; 3.1.1 MQTT-3.10.4-2, MQTT-3.10.4-3: messages that were under way are completed,
    also on the next connection; later ones do not come."""
    house = House()
    client = house.keeper("k", version)
    client.subscribe("a", qos=2)
    house.publish("a", b"1", qos=1)
    house.publish("a", b"2", qos=2)
    first, second = client.read()
    client.ask(unsubscribe("a"), "UNSUBACK")
    house.publish("a", b"3", qos=2)
    assert client.read() == []
    client.send(ack("PUBACK", first["id"]))
    client.lose()
    client = house.keeper("k", version)
    packet = client.only()
    assert (packet["id"], packet["payload"], packet["dup"]) == (second["id"], b"2", True)
    client.send(ack("PUBREC", second["id"]))
    assert client.only() == ack("PUBREL", second["id"])


# --- topic names and filters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_at_least_one_character(version: int) -> None:
    """MQTT-4.7.3-1; 3.1.1 MQTT-4.7.3-1: no empty topic, no empty filter; a space or a slash is enough."""
    house = House()
    client = house.join("c", version)
    assert client.subscribe(" ", "/") == [0, 0]
    for topic in (" ", "/"):
        house.publish(topic)
    assert [topic for topic, _, _ in client.messages()] == [" ", "/"]
    for packet in (publish(""), subscribe(topic_filter("")), unsubscribe("")):
        client = house.join("bad", version)
        client.feed(codec.encode(packet, version))
        assert client.closed is not None or client.read()[-1]["reasons"] == [0x8F]
        client.lose()


@pytest.mark.parametrize("version", VERSIONS)
def test_no_null_character(version: int) -> None:
    """MQTT-4.7.3-2; 3.1.1 MQTT-4.7.3-2."""
    for packet in (publish("aXb"), subscribe(topic_filter("aXb")), unsubscribe("aXb")):
        client = House().join("c", version)
        client.feed(codec.encode(packet, version).replace(b"aXb", b"a\0b"))
        assert client.closed == 0x81


@pytest.mark.parametrize("version", VERSIONS)
def test_the_longest_topic_there_is(version: int) -> None:
    """MQTT-4.7.3-3; 3.1.1 MQTT-4.7.3-3: 65,535 bytes, which the length field ends at; here with our limit at its
    most."""
    house = House(max_topic_length=65535)
    client = house.join("c", version)
    topic = "x" * 65535
    assert client.subscribe(topic) == [0]
    house.publish(topic)
    assert [len(found) for found, _, _ in client.messages()] == [65535]
    with pytest.raises(codec.MqttError):
        codec.encode(publish(topic + "x"), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plus_stands_for_one_level_wherever_it_is(version: int) -> None:
    """MQTT-4.7.1-2; 3.1.1 MQTT-4.7.1-3: at the beginning, in the middle, at the end, alone, several, beside `#`."""
    topics = ["a", "a/b", "a/b/c", "/a", "a/", "//", "x/b/c"]
    expected = {
        "+": {"a"},
        "+/b": {"a/b"},
        "a/+": {"a/b", "a/"},
        "+/+": {"a/b", "/a", "a/"},
        "a/+/c": {"a/b/c"},
        "+/b/+": {"a/b/c", "x/b/c"},
        "+/+/+": {"a/b/c", "//", "x/b/c"},
        "+/#": set(topics),
        "a/+/#": {"a/b", "a/b/c", "a/"},
    }
    for pattern, matches in expected.items():
        house = House()
        client = house.join("c", version)
        client.subscribe(pattern)
        for topic in topics:
            house.publish(topic)
        assert {topic for topic, _, _ in client.messages()} == matches, pattern


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hash_is_last_and_alone_in_its_level(version: int) -> None:
    """MQTT-4.7.1-1; 3.1.1 MQTT-4.7.1-2: and includes the level above it."""
    house = House()
    client = house.join("c", version)
    refused = 0x8F if version == 5 else 0x80
    assert client.subscribe("a/#", "#", "/#") == [0, 0, 0]
    for bad in ("a#", "#/", "a/#/", "a/#/b", "#/#", "##", "a/b#"):
        assert client.subscribe(bad) == [refused]
    house.publish("a")
    assert len(client.messages()) == 1


def test_topics_of_the_server_are_not_for_leading_wildcards() -> None:
    """MQTT-4.7.2-1; 3.1.1 MQTT-4.7.2-1: passing and retained; with the first level named they are."""
    for retain in (False, True):
        house = House()
        blind, seeing = house.join("blind", 4), house.join("seeing")
        if not retain:
            blind.subscribe("#", "+/x", "+/#")
            seeing.subscribe("$SYS/#", "$SYS/+")
        house.publish("$SYS/x", retain=retain)
        if retain:
            blind.subscribe("#", "+/x", "+/#")
            seeing.subscribe("$SYS/+")
        assert blind.read() == []
        assert len(seeing.messages()) == 1


# --- no local ---------------------------------------------------------------------------------------------------------


def test_no_local_is_about_the_client_not_the_connection() -> None:
    """MQTT-3.8.3-3: what a client published before it reconnected does not come to it either; another client's does."""
    house = House()
    client = house.keeper("k")
    client.subscribe("a", qos=1, no_local=True)
    client.send(publish("a", b"own", 1))
    client.read()
    client.lose()
    other = house.join("other", verdict=Verdict(identity="you"))
    other.send(publish("a", b"other's", 1))
    client = house.keeper("k")
    assert client.payloads() == [b"other's"]


def test_no_local_is_about_forwarding() -> None:
    """5.0 §3.3.1.3, §3.8.3.1: what was retained before the subscription is the topic's, and nobody's publication any
    more: it comes to whoever subscribes, as other brokers read it too."""
    house = House()
    client = house.join("c")
    client.send(publish("a", b"own", retain=True))
    client.subscribe("a", no_local=True)
    assert client.payloads() == [b"own"]
    client.send(publish("a", b"own again", retain=True))
    assert client.read() == []
