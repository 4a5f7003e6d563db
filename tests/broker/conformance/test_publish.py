"""Chapters 3.3 to 3.7: PUBLISH and its acknowledgements, where test_broker_qos.py and test_broker_retained.py leave
something."""

from __future__ import annotations

import pytest

from tests.broker.house import House, Verdict, ack, properties, publish, subscribe, topic_filter
from tests.reference import codec

VERSIONS = [3, 4, 5]


@pytest.mark.parametrize("version", VERSIONS)
def test_dup_is_set_on_redelivery_only(version: int) -> None:
    """MQTT-3.3.1-1, MQTT-3.3.1-2, MQTT-3.3.1-3, MQTT-4.3.2-2, MQTT-4.3.3-2; 3.1.1 MQTT-3.3.1-1, MQTT-3.3.1-2,
    MQTT-3.3.1-3: first 0, whatever the publisher's was; on the next connection 1; at QoS 0 never."""
    house = House()
    keeper = house.keeper("k", version)
    keeper.subscribe("#", qos=2)
    publisher = house.join("p")
    publisher.send(publish("a", b"0"), publish("a", b"1", 1, 1, dup=True), publish("a", b"2", 2, 2, dup=True))
    assert [(p["payload"], p["dup"]) for p in keeper.read()] == [(b"0", False), (b"1", False), (b"2", False)]
    keeper.lose()
    house.publish("a", b"3", qos=1)
    again = house.keeper("k", version).read()
    assert [(p["payload"], p["dup"]) for p in again] == [(b"1", True), (b"2", True), (b"3", False)]


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_sent_again_on_the_same_connection(version: int) -> None:
    """MQTT-4.4.0-1; 3.1.1 §4.4: however long an acknowledgement does not come."""
    house = House()
    client = house.join("c", version)
    client.subscribe("#", qos=2)
    house.publish("a", qos=1)
    house.publish("a", qos=2)
    assert len(client.read()) == 2
    for _ in range(100):
        house.wait(60)
    assert client.read() == []
    assert client.ask({"type": "PINGREQ"}, "PINGRESP")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_retained_message_of_qos_0_replaces_what_was_there(version: int) -> None:
    """MQTT-3.3.1-5; 3.1.1 MQTT-3.3.1-5, MQTT-3.3.1-7: stored with its QoS; a later one replaces it, at QoS 0 too."""
    house = House()
    client = house.join("c", version)
    for qos in (2, 0, 1):
        client.send(publish("a", b"%d" % qos, qos, retain=True))
        if qos == 2:
            client.send(ack("PUBREL", 1))
        client.read()
        late = house.join("late", version)
        late.subscribe("a", qos=2)
        assert late.messages() == [("a", b"%d" % qos, qos)]
    assert house.stat("retained") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_retained_payload_is_never_kept(version: int) -> None:
    """MQTT-3.3.1-6, MQTT-3.3.1-7; 3.1.1 MQTT-3.3.1-10, MQTT-3.3.1-11: heard by who is there, found by nobody later."""
    house = House()
    here = house.join("here", version)
    here.subscribe("#")
    house.publish("a", b"kept", retain=True)
    client = house.join("c", version)
    client.send(publish("a", b"", retain=True), publish("b", b"", retain=True))
    assert here.payloads() == [b"kept", b"", b""]
    late = house.join("late", version)
    late.subscribe("#")
    assert late.read() == []
    assert house.stat("retained") == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_topic_that_arrives_is_the_one_that_was_published(version: int) -> None:
    """MQTT-3.3.2-3, MQTT-4.7.3-4; 3.1.1 MQTT-3.3.2-3, MQTT-4.7.3-4: it matches the filter; no byte is changed."""
    house = House()
    client = house.join("c", version)
    client.subscribe("#", qos=1)
    topics = [
        "/",
        "//",
        "a//b",
        "/a/",
        " a ",
        "A",
        "a",
        "\u00e9",
        "e\u0301",
        "\U0001f331/x",
        "a\tb",
        "x" * 1000,
        "$SYS/x",
    ]
    for topic in topics:
        house.publish(topic)
        house.publish(topic, b"r", qos=1, retain=True)
    got = [topic for topic, _, _ in client.messages()]
    assert got == [topic for topic in topics[:-1] for _ in (0, 1)]
    late = house.join("late", version)
    for topic in topics:
        late.subscribe(topic)
        assert [found for found, _, _ in late.messages()] == [topic]


def test_an_interval_that_is_over_on_arrival_is_not_delivered_later() -> None:
    """MQTT-3.3.2-5: to a client that is away, or whose window is full, it does not come; to one that is there, at
    once."""
    house = House(max_inflight=1)
    here, busy, away = house.join("here"), house.keeper("busy"), house.keeper("away")
    for client in (here, busy, away):
        client.subscribe("a", qos=1)
    house.publish("a", b"first", qos=1)
    number = busy.only()["id"]
    here.send(ack("PUBACK", here.only()["id"]))
    away.lose()
    publisher = house.join("p")
    publisher.send(publish("a", b"short", 1, props=properties(message_expiry_interval=1)))
    publisher.send(publish("a", b"long", 1, props=properties(message_expiry_interval=100)))
    assert here.only()["properties"] == properties(message_expiry_interval=1)
    house.wait(1)
    busy.send(ack("PUBACK", number))
    packet = busy.only()
    assert (packet["payload"], packet["properties"]) == (b"long", properties(message_expiry_interval=99))
    assert [p["payload"] for p in house.keeper("away").read()] == [b"first"]


def test_an_expiry_interval_counts_down_in_whole_seconds() -> None:
    """MQTT-3.3.2-6: the received value minus the time that it has waited, and never more than was said."""
    house = House()
    away = house.keeper("away")
    away.subscribe("a", qos=1)
    away.lose()
    house.join("p").send(publish("a", qos=1, props=properties(message_expiry_interval=100)))
    for seconds, left in ((0, {100}), (0.5, {99, 100}), (9.5, {90}), (80, {10}), (9.4, {1, 0})):
        house.wait(seconds)
        away = house.keeper("away")
        (packet,) = away.read()
        assert dict(packet["properties"])["message_expiry_interval"] in left
        away.lose()


def test_payload_format_is_passed_on_as_it_is() -> None:
    """MQTT-3.3.2-4: 0, 1 and absent, also for a payload that was retained or has waited."""
    for value in (0, 1, None):
        said = properties(payload_format_indicator=value) if value is not None else []
        house = House()
        here, away = house.join("here"), house.keeper("away")
        for client in (here, away):
            client.subscribe("a", qos=1)
        away.lose()
        house.join("p").send(publish("a", "text é".encode(), 1, retain=True, props=said))
        late = house.join("late")
        late.subscribe("a")
        assert [c.only()["properties"] for c in (here, house.keeper("away"), late)] == [said] * 3


def test_every_alias_up_to_the_announced_maximum_is_taken() -> None:
    """MQTT-3.3.2-12, MQTT-3.2.2-17, MQTT-3.2.2-18: each of them, set, used and set anew; one beyond ends the
    connection."""
    house = House()
    client = house.join("p")
    assert client.connack is not None
    most = dict(client.connack["properties"]).get("topic_alias_maximum", 0)
    assert most > 0, "announced"
    listener = house.join("l")
    listener.subscribe("#")
    for alias in range(1, most + 1):
        client.send(publish(f"t/{alias}", b"set", props=properties(topic_alias=alias)))
    for alias in range(most, 0, -1):
        client.send(publish("", b"used", props=properties(topic_alias=alias)))
    client.send(publish("new", b"set anew", props=properties(topic_alias=most)))
    client.send(publish("", b"used", props=properties(topic_alias=most)))
    topics = [f"t/{alias}" for alias in range(1, most + 1)]
    packets = listener.read()
    assert [packet["topic"] for packet in packets] == [*topics, *reversed(topics), "new", "new"]
    assert all(packet["properties"] == [] for packet in packets), "an alias is between two ends of one connection"
    client.send(publish("a", props=properties(topic_alias=most + 1)))
    assert client.closed == 0x94


def test_aliases_of_two_clients_are_their_own() -> None:
    """MQTT-3.3.2-7, 5.0 §3.3.2.3.4: the same alias means another topic on another connection, and nothing on the
    next."""
    house = House()
    listener = house.join("l")
    listener.subscribe("#")
    one, two = house.keeper("one"), house.keeper("two")
    for client, topic in ((one, "t/1"), (two, "t/2")):
        client.send(publish(topic, props=properties(topic_alias=1)))
    for client in (one, two):
        client.send(publish("", qos=1, props=properties(topic_alias=1)))
    assert [topic for topic, _, _ in listener.messages()] == ["t/1", "t/2", "t/1", "t/2"]
    one.lose()
    one = house.keeper("one")
    one.send(publish("", props=properties(topic_alias=1)))
    assert one.closed in (0x82, 0x94)
    assert listener.read() == []


def test_an_alias_with_qos_2_means_its_topic_once() -> None:
    """5.0 §3.3.2.3.4 with MQTT-4.3.3-10: a repetition is the same message, whatever the alias means meanwhile."""
    house = House()
    listener = house.join("l")
    listener.subscribe("#", qos=2)
    client = house.join("p")
    client.send(publish("one", b"1", 2, 1, props=properties(topic_alias=1)))
    client.send(publish("two", b"2", 2, 2, props=properties(topic_alias=1)))
    client.send(publish("", b"1", 2, 1, dup=True, props=properties(topic_alias=1)))
    client.send(publish("", b"3", 2, 3, props=properties(topic_alias=1)))
    assert [(topic, payload) for topic, payload, _ in listener.messages()] == [
        ("one", b"1"),
        ("two", b"2"),
        ("two", b"3"),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_one_more_than_receive_maximum_ends_the_connection(version: int) -> None:
    """MQTT-3.3.4-7, 5.0 §3.3.4: 0x93. A PUBREC of 0x80 or more and a PUBCOMP give a place back."""
    house = House(receive_maximum=2)
    house.broker.set_rules(0, [(False, 1, 0, "no"), (True, 3, 0, "#")])
    client = house.join("c", version)
    client.send(*(publish("no", qos=2, number=n) for n in range(1, 20)) if version == 5 else ())
    client.send(publish("a", qos=2, number=1), publish("a", qos=2, number=2))
    client.send(ack("PUBREL", 1), publish("a", qos=2, number=3))
    assert client.closed is None
    client.send(publish("a", qos=2, number=4))
    assert client.closed == 0x93


def test_other_packets_are_not_held_up_by_a_full_window() -> None:
    """MQTT-3.3.4-10, MQTT-4.9.0-3: with no place left the broker answers everything else, and QoS 0 passes."""
    house = House()
    client = house.join("c", props=properties(receive_maximum=1))
    client.subscribe("#", qos=2)
    house.publish("x", qos=1)
    house.publish("x", qos=1)
    assert len(client.read()) == 1
    client.send(
        {"type": "PINGREQ"},
        subscribe(topic_filter("no/matter"), number=2),
        publish("p", qos=2, number=3),
        ack("PUBREL", 3),
        ack("PUBREC", 99),
        {"type": "UNSUBSCRIBE", "id": 4, "properties": [], "filters": ["no/matter"]},
    )
    house.publish("zero")
    kinds = [packet["type"] for packet in client.read()]
    assert kinds == ["PINGRESP", "SUBACK", "PUBREC", "PUBCOMP", "PUBREL", "UNSUBACK", "PUBLISH"]


def test_the_send_quota_begins_at_receive_maximum_and_comes_back() -> None:
    """MQTT-4.9.0-1, MQTT-4.9.0-2: not 0, not more than asked for; each final acknowledgement adds one, none adds
    more."""
    for most in (1, 2, 5):
        house = House()
        client = house.join("c", props=properties(receive_maximum=most))
        client.subscribe("#", qos=2)
        for n in range(20):
            house.publish("a", b"%d" % n, qos=1 + n % 2)
        under_way = client.read()
        assert len(under_way) == most
        client.send(ack("PUBACK", 999), ack("PUBCOMP", 998))
        assert client.read() == []
        received: int = most
        while under_way:
            packet = under_way.pop(0)
            if packet["qos"] == 1:
                client.send(ack("PUBACK", packet["id"]), ack("PUBACK", packet["id"]))
            else:
                client.send(ack("PUBREC", packet["id"]))
                assert client.only()["type"] == "PUBREL"
                client.send(ack("PUBCOMP", packet["id"]), ack("PUBCOMP", packet["id"]))
            more = client.read()
            assert len(more) == (1 if received < 20 else 0)
            received += len(more)
            under_way += more
        assert received == 20


@pytest.mark.parametrize("version", [4, 5])
def test_a_denied_publication_is_acknowledged_or_the_connection_closed(version: int) -> None:
    """3.1.1 MQTT-3.3.5-2; 5.0 §3.4.2.1: positively before 5.0, with 0x87 since; it goes nowhere either way."""
    house = House()
    house.broker.set_rules(1, [(False, 3, 0, "#")])
    listener = house.join("l")
    listener.subscribe("#", qos=2)
    client = house.join("c", version, verdict=Verdict(slot=1))
    client.send(publish("a", qos=1, number=1), publish("a", qos=2, number=2), ack("PUBREL", 2))
    answers = [(packet["type"], packet["reason"]) for packet in client.read()]
    code = 0x87 if version == 5 else 0
    assert answers == [("PUBACK", code), ("PUBREC", code), ("PUBCOMP", 0x92 if version == 5 else 0)]
    assert listener.read() == []


@pytest.mark.parametrize("version", VERSIONS)
def test_qos_1_is_kept_until_its_puback(version: int) -> None:
    """MQTT-4.3.2-1, MQTT-4.3.2-3; 3.1.1 MQTT-4.3.2-1: an identifier that is free, unacknowledged through any number of
    connections, and then done with."""
    house = House()
    keeper = house.keeper("k", version)
    keeper.subscribe("a", qos=1)
    house.publish("a", b"1", qos=1)
    number = keeper.only()["id"]
    for _ in range(3):
        keeper.lose()
        keeper = house.keeper("k", version)
        packet = keeper.only()
        assert (packet["id"], packet["dup"], packet["payload"]) == (number, True, b"1")
    house.publish("a", b"2", qos=1)
    assert keeper.only()["id"] != number
    keeper.send(ack("PUBACK", number))
    keeper.lose()
    assert [p["payload"] for p in house.keeper("k", version).read()] == [b"2"]


@pytest.mark.parametrize("version", VERSIONS)
def test_qos_2_is_kept_step_by_step(version: int) -> None:
    """MQTT-4.3.3-1 to MQTT-4.3.3-6; 3.1.1 MQTT-4.3.3-1: PUBLISH until its PUBREC, PUBREL until its PUBCOMP, and after
    PUBREL never PUBLISH again, through any number of connections."""
    house = House()
    keeper = house.keeper("k", version)
    keeper.subscribe("a", qos=2)
    house.publish("a", b"1", qos=2)
    number = keeper.only()["id"]
    for _ in range(2):
        keeper.lose()
        keeper = house.keeper("k", version)
        packet = keeper.only()
        assert (packet["type"], packet["id"], packet["dup"]) == ("PUBLISH", number, True)
    keeper.send(ack("PUBREC", number))
    assert keeper.only() == ack("PUBREL", number)
    for _ in range(2):
        keeper.lose()
        keeper = house.keeper("k", version)
        assert keeper.only() == ack("PUBREL", number)
    keeper.send(ack("PUBREC", number))
    assert keeper.only() == ack("PUBREL", number), "a PUBREC again is answered again, and with nothing else"
    keeper.send(ack("PUBCOMP", number))
    keeper.lose()
    assert house.keeper("k", version).read() == []


def test_expiry_does_not_touch_what_was_sent() -> None:
    """MQTT-4.3.3-7, MQTT-4.3.3-13: an exchange at QoS 2 goes on in both directions after the interval."""
    house = House()
    keeper = house.keeper("k")
    keeper.subscribe("a", qos=2)
    publisher = house.keeper("p")
    publisher.send(publish("a", b"1", 2, 5, props=properties(message_expiry_interval=1)))
    number = keeper.only()["id"]
    house.wait(10)
    assert publisher.only() == ack("PUBREC", 5)
    publisher.send(publish("a", b"1", 2, 5, dup=True, props=properties(message_expiry_interval=1)), ack("PUBREL", 5))
    assert publisher.read() == [ack("PUBREC", 5), ack("PUBCOMP", 5)]
    keeper.send(ack("PUBREC", number))
    assert keeper.only() == ack("PUBREL", number)
    keeper.send(ack("PUBCOMP", number))
    assert keeper.read() == []


def test_an_exchange_that_was_for_nobody_goes_on() -> None:
    """MQTT-4.3.3-13: also when there was nobody to keep the message for, or it was expired on arrival."""
    client = House().join("c")
    client.send(publish("nobody", qos=2, number=4, props=properties(message_expiry_interval=0)), ack("PUBREL", 4))
    assert client.read() == [ack("PUBREC", 4, 0x10), ack("PUBCOMP", 4)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_new_message_under_an_identifier_that_is_free_again(version: int) -> None:
    """MQTT-4.3.2-5, MQTT-4.3.3-9, MQTT-4.3.3-12; 3.1.1 MQTT-4.3.2-2, MQTT-4.3.3-2: PUBACK and PUBCOMP end it."""
    house = House()
    listener = house.join("l")
    listener.subscribe("#", qos=2)
    client = house.join("p", version)
    for payload in (b"1", b"2"):
        client.send(publish("a", payload, 1, 7))
    for payload in (b"3", b"4"):
        client.send(publish("a", payload, 2, 7), publish("a", payload, 2, 7, dup=True), ack("PUBREL", 7))
    assert listener.payloads() == [b"1", b"2", b"3", b"4"]
    assert [packet["type"] for packet in client.read()] == ["PUBACK"] * 2 + ["PUBREC", "PUBREC", "PUBCOMP"] * 2


@pytest.mark.parametrize("first", [0x36, 0x37, 0x3E, 0x3F])
@pytest.mark.parametrize("version", [4, 5])
def test_qos_3_ends_the_connection(version: int, first: int) -> None:
    """MQTT-3.3.1-4; 3.1.1 MQTT-3.3.1-4: told from the first byte."""
    house = House()
    client = house.join("c", version)
    client.feed(bytes([first]))
    assert client.closed == 0x81


def test_wildcards_in_a_topic_name_end_the_connection() -> None:
    """MQTT-3.3.2-2, MQTT-4.7.0-1; 3.1.1 MQTT-3.3.2-2, MQTT-4.7.1-1: and nobody hears of it."""
    for version in (4, 5):
        for topic in ("+", "#", "a/+/b", "a/#", "a+"):
            house = House()
            listener = house.join("l")
            listener.subscribe("#", qos=2)
            client = house.join("c", version)
            client.feed(codec.encode(publish(topic, qos=1), version))
            assert client.closed in (0x81, 0x82, 0x90)
            assert listener.read() == []
