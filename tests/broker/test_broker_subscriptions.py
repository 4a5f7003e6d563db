"""Subscriptions: granted, replaced, ended, overlapping, and what their filters match."""

import pytest

from tests.broker.house import House, Verdict, ack, publish, subscribe, topic_filter, unsubscribe

VERSIONS = [3, 4, 5]


@pytest.mark.parametrize("version", VERSIONS)
def test_suback_has_a_code_for_each_filter_in_order(version: int) -> None:
    """MQTT-3.8.4-1, MQTT-3.8.4-2, MQTT-3.8.4-6, MQTT-3.9.3-1, MQTT-3.9.3-2; 3.1.1 MQTT-3.8.4-5."""
    client = House().join("c", version)
    client.send(
        subscribe(topic_filter("a", 2), topic_filter("b/#/c"), topic_filter("b", 0), topic_filter("c", 1), number=9)
    )
    answer = client.only()
    assert answer["id"] == 9
    assert answer["reasons"] == [2, 0x8F if version == 5 else 0x80, 0, 1]


@pytest.mark.parametrize("bad", ["a+", "+a", "a/b+", "#/a", "a#", "a/#/b", "a/b#", "++"])
def test_a_filter_that_is_none_is_refused_alone(bad: str) -> None:
    """MQTT-4.7.1-1, MQTT-4.7.1-2; 5.0 §3.9.3: 0x8F for the filter, and the connection goes on."""
    house = House()
    client = house.join()
    assert client.subscribe(bad, "good") == [0x8F, 0]
    assert house.stat("subscriptions") == 1


def test_subscribing_again_replaces() -> None:
    """MQTT-3.8.4-3: one subscription, with the options of the later one; nothing is lost or doubled in between."""
    house = House()
    client = house.join()
    client.subscribe("a", qos=0, retain_as_published=True)
    house.publish("a", b"1", qos=1)
    client.send(subscribe(topic_filter("a", 1)))
    house.publish("a", b"2", qos=1, retain=True)
    packets = client.read()
    assert [(p["type"], p.get("qos"), p.get("retain")) for p in packets] == [
        ("PUBLISH", 0, False),
        ("SUBACK", None, None),
        ("PUBLISH", 1, False),
    ]
    assert house.stat("subscriptions") == 1


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("option", ["no_local", "retain_as_published"])
def test_every_option_is_replaced(option: str, later: bool) -> None:
    """MQTT-3.8.4-3: switched on and off by the later SUBSCRIBE."""
    client = House().join()
    for value in (not later, later):
        assert client.subscribe("a", **{option: value}) == [0]
    client.send(publish("a", b"1", retain=True))
    heard = [packet["retain"] for packet in client.read()]
    assert heard == ([] if option == "no_local" and later else [option == "retain_as_published" and later])


def test_the_same_filter_twice_in_one_packet() -> None:
    """MQTT-3.8.4-5: as in two packets; the last one counts."""
    house = House()
    client = house.join()
    assert client.ask(subscribe(topic_filter("a", 2), topic_filter("a", 1)), "SUBACK")["reasons"] == [2, 1]
    house.publish("a", qos=2)
    assert [qos for _, _, qos in client.messages()] == [1]


@pytest.mark.parametrize("version", VERSIONS)
def test_unsubscribe_ends_a_subscription_and_is_answered(version: int) -> None:
    """MQTT-3.10.4-1, MQTT-3.10.4-2, MQTT-3.10.4-4 to MQTT-3.10.4-6, MQTT-3.11.3-1; 3.1.1 MQTT-3.10.4-5."""
    house = House()
    client = house.join("c", version)
    client.subscribe("a", "a/+", "A")
    answer = client.ask(unsubscribe("a/+", "never", "a", "a", number=5), "UNSUBACK")
    assert answer["id"] == 5
    assert answer["reasons"] == ([0, 0x11, 0, 0x11] if version == 5 else [])
    for topic in ("a", "a/b", "A"):
        house.publish(topic)
    assert [topic for topic, _, _ in client.messages()] == ["A"]
    assert house.stat("subscriptions") == 1


def test_what_was_being_sent_is_completed_after_unsubscribe() -> None:
    """MQTT-3.10.4-3."""
    house = House(max_inflight=1)
    client = house.keeper("k")
    client.subscribe("a", qos=2)
    house.publish("a", b"1", qos=2)
    number = client.only()["id"]
    client.ask(unsubscribe("a"), "UNSUBACK")
    client.lose()
    client = house.keeper("k")
    assert client.only()["id"] == number
    client.send(ack("PUBREC", number))
    assert client.only() == ack("PUBREL", number)


@pytest.mark.parametrize("version", VERSIONS)
def test_overlapping_subscriptions_get_one_message_at_the_highest_qos(version: int) -> None:
    """MQTT-3.3.4-2; 3.1.1 MQTT-3.3.5-1: whatever the order in which they were made."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        house = House()
        client = house.join("c", version)
        for qos in order:
            client.subscribe(("a/b", "a/+", "#")[qos], qos=qos)
        for qos in (0, 1, 2):
            house.publish("a/b", b"%d" % qos, qos=qos)
        assert client.messages() == [("a/b", b"%d" % qos, qos) for qos in (0, 1, 2)]


def test_no_local() -> None:
    """MQTT-3.8.3-3: not to the connection that published, also across its sessions; to others, yes."""
    house = House()
    client, other = house.join("c"), house.join("o")
    client.subscribe("a/#", no_local=True)
    other.subscribe("a/#", no_local=True)
    client.send(publish("a/b", b"1", 1))
    assert client.read() == [ack("PUBACK", 1)]
    assert other.payloads() == [b"1"]
    client.subscribe("a/b")
    client.send(publish("a/b", b"2"))
    assert client.payloads() == [b"2"], "another of its subscriptions wants it"
    client.send(publish("a", b"3", 1))
    assert client.only() == ack("PUBACK", 1), "somebody else was there to get it"


def test_no_local_alone_matches_nobody() -> None:
    """5.0 §3.4.2.1: 0x10 when the publisher was the only one."""
    client = House().join()
    client.subscribe("a", no_local=True)
    client.send(publish("a", qos=1))
    assert client.only() == ack("PUBACK", 1, 0x10)


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("plant/#", "/plant/peanut/state", False),
        ("/plant/#", "/plant/peanut/state", True),
        ("/plant/#", "plant/peanut/state", False),
        ("/plant/+/UpdateTemperature", "/plant/peanut/UpdateTemperature", True),
        ("+/plant/#", "/plant/peanut/state", True),
        ("#", "/plant/peanut/state", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("$SYS/+", "$SYS/x", True),
        ("a/#", "a", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("+", "", None),
        ("+", "/", False),
        ("+/+", "/", True),
        ("/+", "/", True),
        ("a", "A", False),
        ("a/b", "a/b/", False),
        ("\u212b", "\u00c5", False),
        ("a/$x", "a/$x", True),
        ("+/$x", "a/$x", True),
        ("vin/+/unlock", "vin/WVWZZZ1JZXW000001/unlock", True),
    ],
)
def test_what_a_filter_matches(pattern: str, topic: str, matches: bool | None) -> None:
    """MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.2-1, MQTT-4.7.3-1, MQTT-4.7.3-4, and the README's literal topics."""
    house = House()
    client = house.join()
    assert client.subscribe(pattern) == [0]
    if matches is None:
        publisher = house.join("p")
        publisher.send(publish(topic))
        assert publisher.closed is not None, "a topic has at least one character"
        return
    house.publish(topic)
    assert bool(client.messages()) is matches


def test_a_session_is_reached_once_however_many_sessions_share_its_filters() -> None:
    """MQTT-3.3.4-2 among many: every client once, with the highest of its own QoS."""
    house = House()
    clients = [house.join(f"c{n}", verdict=Verdict(identity=str(n))) for n in range(20)]
    for n, client in enumerate(clients):
        client.subscribe(*("a/b", "a/+", "+/b", "#", "a/#")[: n % 5 + 1], qos=n % 3)
    house.publish("a/b", qos=2)
    assert [[qos for _, _, qos in client.messages()] for client in clients] == [[n % 3] for n in range(20)]


def test_subscriptions_come_and_go_in_any_order() -> None:
    """The index stays right while entries move into the places of those that leave."""
    house = House()
    clients = [house.join(f"c{n}") for n in range(8)]
    filters = [f"f/{n}" for n in range(8)]
    wanted: dict[int, set[str]] = {n: set() for n in range(8)}
    for turn in range(400):
        n, name = turn * 5 % 8, filters[turn * turn % 7]
        if name in wanted[n]:
            clients[n].ask(unsubscribe(name), "UNSUBACK")
            wanted[n].discard(name)
        else:
            clients[n].subscribe(name)
            wanted[n].add(name)
        for topic in filters:
            house.publish(topic)
        for k, client in enumerate(clients):
            assert {topic for topic, _, _ in client.messages()} == wanted[k]
    assert house.stat("subscriptions") == sum(map(len, wanted.values()))
    for client in clients:
        client.lose()
    assert house.stat("subscriptions") == 0
