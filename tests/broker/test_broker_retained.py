"""Retained messages: kept, replaced, cleared, expired, and given to whoever subscribes."""

import pytest

from tests.broker.house import Client, House, ack, disconnect, properties, publish, subscribe, topic_filter, unsubscribe

VERSIONS = [3, 4, 5]


def store(house: House, **topics: bytes) -> None:
    """Retains messages at QoS 1; `__` in a name is a `/`."""
    for name, payload in topics.items():
        house.publish(name.replace("__", "/"), payload, qos=1, retain=True)


def flags(client: Client) -> list[tuple[str, bytes, bool]]:
    return [(packet["topic"], packet["payload"], packet["retain"]) for packet in client.read()]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_last_retained_message_of_a_topic_goes_to_a_new_subscription(version: int) -> None:
    """MQTT-3.3.1-5, MQTT-3.3.1-9; 3.1.1 MQTT-3.3.1-6, MQTT-3.3.1-8: with RETAIN set, after the SUBACK."""
    house = House()
    client = house.join("p", version)
    client.send(publish("a", b"1", retain=True), publish("a", b"2", retain=True), publish("a", b"3"))
    client.send(subscribe(topic_filter("a"), number=5))
    packets = client.read()
    assert [packet["type"] for packet in packets] == ["SUBACK", "PUBLISH"]
    assert (packets[1]["payload"], packets[1]["retain"]) == (b"2", True)


def test_retain_is_not_set_where_the_subscription_was_there_before() -> None:
    """3.1.1 MQTT-3.3.1-9; MQTT-3.3.1-12."""
    house = House()
    for version in VERSIONS:
        client = house.join(f"c{version}", version)
        client.subscribe("a")
        house.publish("a", b"now", retain=True)
        assert flags(client) == [("a", b"now", False)]
        house.publish("a", b"", retain=True)
        assert flags(client) == [("a", b"", False)]


def test_retain_as_published() -> None:
    """MQTT-3.3.1-12, MQTT-3.3.1-13: the flag as received, for those who ask for it, beside those who do not."""
    house = House()
    keen, plain, both = house.join("keen"), house.join("plain"), house.join("both")
    keen.subscribe("a", retain_as_published=True)
    plain.subscribe("a")
    both.send(subscribe(topic_filter("a"), topic_filter("+", retain_as_published=True)))
    both.read()
    house.publish("a", b"r", retain=True)
    house.publish("a", b"n")
    assert flags(keen) == [("a", b"r", True), ("a", b"n", False)]
    assert flags(plain) == [("a", b"r", False), ("a", b"n", False)]
    assert flags(both) == [("a", b"r", True), ("a", b"n", False)]


def test_retain_handling() -> None:
    """MQTT-3.3.1-9, MQTT-3.3.1-10, MQTT-3.3.1-11, MQTT-3.8.4-4: always, only when new, never."""
    house = House()
    store(house, a=b"kept")
    client = house.join()
    got = []
    for handling in (2, 1, 0, 1):
        client.subscribe("a", retain_handling=handling)
        got.append(client.payloads())
    assert got == [[], [], [b"kept"], []]
    fresh = house.join("fresh")
    fresh.subscribe("a", retain_handling=1)
    assert fresh.payloads() == [b"kept"]


def test_a_message_that_is_not_retained_changes_nothing_in_the_store() -> None:
    """MQTT-3.3.1-8."""
    house = House()
    store(house, a=b"kept")
    house.publish("a", b"passing")
    house.publish("a", b"")
    assert house.broker.retained("a") == b"kept"


def test_an_empty_payload_clears() -> None:
    """MQTT-3.3.1-6, MQTT-3.3.1-7: those connected hear it, the store keeps nothing."""
    house = House()
    store(house, a=b"kept", b=b"too")
    client = house.join()
    client.send(publish("a", b"", 1, retain=True), publish("never", b"", 1, retain=True))
    assert client.read() == [ack("PUBACK", 1, 0x10)] * 2
    client.subscribe("#")
    assert client.messages() == [("b", b"too", 0)]
    assert house.stat("retained") == 1


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("#", {"a", "a/b", "a/b/c", "a/c", "/a", "x"}),
        ("a/#", {"a", "a/b", "a/b/c", "a/c"}),
        ("a/+", {"a/b", "a/c"}),
        ("+/b", {"a/b"}),
        ("+", {"a", "x"}),
        ("+/+", {"a/b", "a/c", "/a"}),
        ("/+", {"/a"}),
        ("+/#", {"a", "a/b", "a/b/c", "a/c", "/a", "x"}),
        ("a/+/#", {"a/b", "a/b/c", "a/c"}),
        ("$SYS/#", {"$SYS/x"}),
        ("a/b/c", {"a/b/c"}),
        ("a/b/c/d", set()),
    ],
)
def test_wildcards_find_what_they_match(wanted: str, found: set[str]) -> None:
    """MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.2-1: among retained topics as among passing ones."""
    house = House()
    for topic in ("a", "a/b", "a/b/c", "a/c", "/a", "x", "$SYS/x"):
        house.publish(topic, topic.encode(), retain=True)
    client = house.join()
    client.subscribe(wanted)
    messages = client.messages()
    assert {topic for topic, _, _ in messages} == found
    assert len(messages) == len(found)
    assert all(payload == topic.encode() for topic, payload, _ in messages)


def test_a_retained_message_comes_at_the_lower_qos() -> None:
    """MQTT-3.8.4-8."""
    house = House()
    for qos in (0, 1, 2):
        house.publish(f"q{qos}", b"x", qos=qos, retain=True)
    for granted in (0, 1, 2):
        client = house.join()
        client.subscribe("#", qos=granted)
        assert {topic: qos for topic, _, qos in client.messages()} == {
            f"q{qos}": min(qos, granted) for qos in (0, 1, 2)
        }


def test_each_filter_of_a_subscribe_gets_its_own() -> None:
    """MQTT-3.8.4-5: as if they had come one by one; a refused one gets nothing."""
    house = House()
    store(house, a=b"1", b=b"2")
    client = house.join()
    assert client.subscribe("a", "#", "a/#/b", "$share/g") == [0, 0, 0x8F, 0x8F]
    assert sorted(client.payloads()) == [b"1", b"1", b"2"]


def test_a_retained_message_expires() -> None:
    """MQTT-3.3.2-5, MQTT-3.3.2-6, 5.0 §3.3.2.3.3: until then with the interval that remains; then it is not there, and
    with time the store is rid of it."""
    house = House()
    publisher = house.join("p")
    for seconds in (10, 100):
        publisher.send(publish(f"t/{seconds}", retain=True, props=properties(message_expiry_interval=seconds)))
    store(house, t__for_ever=b"x")
    house.wait(9.5)
    client = house.join("early")
    client.subscribe("t/#")
    left = {packet["topic"]: dict(packet["properties"]).get("message_expiry_interval") for packet in client.read()}
    assert left == {"t/10": 1, "t/100": 91, "t/for_ever": None}
    house.now += 500
    late = house.join("late")
    late.subscribe("t/#")
    assert {topic for topic, _, _ in late.messages()} == {"t/100", "t/for_ever"}
    assert house.broker.retained("t/10") is None
    house.wait(0)
    assert house.stat("retained") == 2
    house.wait(90)
    assert house.stat("retained") == 1
    assert house.stat("retained_bytes") == len("t/for_ever") + 1


def test_expired_messages_make_room_when_the_store_is_full() -> None:
    """5.0 §3.3.2.3.3 and the limit max_retained."""
    house = House(max_retained=2)
    client = house.join()
    client.send(publish("a", retain=True, props=properties(message_expiry_interval=5)), publish("b", retain=True))
    client.send(publish("c", qos=1, retain=True))
    assert client.only() == ack("PUBACK", 1, 0x10)
    assert house.broker.retained("c") is None
    house.now += 5000
    client.send(publish("c", qos=1, retain=True))
    assert client.only() == ack("PUBACK", 1, 0x10)
    assert house.stat("retained") == 2
    assert house.broker.retained("b") is not None
    assert house.broker.retained("c") is not None


def test_a_message_replaced_by_one_that_stays_does_not_expire() -> None:
    """MQTT-3.3.1-5: the interval is the message's, not the topic's."""
    house = House()
    client = house.join()
    client.send(
        publish("a", b"1", retain=True, props=properties(message_expiry_interval=5)), publish("a", b"2", retain=True)
    )
    house.wait(100)
    assert house.broker.retained("a") == b"2"


def test_retained_messages_outlive_their_publisher() -> None:
    """5.0 §4.1: they are no part of a session."""
    house = House()
    client = house.join()
    client.send(publish("a", b"kept", retain=True), disconnect())
    house.wait(10_000)
    other = house.join("other")
    other.subscribe("a")
    assert other.payloads() == [b"kept"]


def test_the_bytes_of_the_store_are_counted() -> None:
    house = House()
    store(house, a=b"123", b=b"1")
    assert house.stat("retained_bytes") == 2 + 4
    store(house, a=b"12345")
    assert house.stat("retained_bytes") == 2 + 6
    store(house, a=b"")
    assert house.stat("retained_bytes") == 2
    store(house, b=b"")
    assert house.stat("retained_bytes") == house.stat("retained") == 0


# --- many of them -----------------------------------------------------------------------------------------------------


def works_off(house: House, client: Client) -> list[tuple[str, bytes, int]]:
    """What a client gets that reads and acknowledges everything, until nothing more comes."""
    got: list[tuple[str, bytes, int]] = []
    while True:
        packets = client.read()
        if not packets and not house.broker.busy:
            return got
        for packet in packets:
            if packet["type"] == "PUBLISH":
                got.append((packet["topic"], packet["payload"], packet["qos"]))
                if packet["qos"]:
                    client.send(ack("PUBACK", packet["id"]))
        house.handle(house.broker.work(house.now))


@pytest.mark.parametrize("qos", [0, 1])
def test_more_than_a_queue_holds_comes_whole_to_who_reads(qos: int) -> None:
    """The limits of what waits for a client bound what waits, not what it gets; and who does not read gets no more."""
    count = 20_000
    house = House(max_queued_messages=1000, max_output_bytes=100_000, max_inflight=20)
    for number in range(count):
        house.publish(f"/plant/n{number}/state", b"x" * 20, qos=1, retain=True)
    client, idle = house.join(), house.join("idle")
    for one in (idle, client):
        one.send(subscribe(topic_filter("/plant/#", qos)))
    got = works_off(house, client)
    assert {topic for topic, _, _ in got} == {f"/plant/n{number}/state" for number in range(count)}
    assert len(got) == count
    assert {at for _, _, at in got} == {qos}
    assert house.stat(f"publishes_out_qos{qos}") < count + 3000
    assert house.stat("walks") == 1
    assert house.stat("dropped_queue_full") + house.stat("dropped_slow_reader") == 0
    idle.lose()
    assert house.stat("walks") == 0


def test_what_changes_meanwhile_comes_once() -> None:
    """A message that is published while the retained ones are under way comes as it is published, and not again."""
    count = 10_000
    house = House()
    for number in range(count):
        house.publish(f"t/{number}", b"old", retain=True)
    client = house.join()
    client.send(subscribe(topic_filter("t/#")))
    before = {packet["topic"] for packet in client.read() if packet["type"] == "PUBLISH"}
    assert 0 < len(before) < count
    for number in range(0, count, 2):
        house.publish(f"t/{number}", b"new" if number % 4 else b"", retain=True)
    after = works_off(house, client)
    assert sum(payload == b"new" for _, payload, _ in after) == count // 4
    old = [*before, *(topic for topic, payload, _ in after if payload == b"old")]
    assert len(old) == len(set(old))
    assert {topic for topic in old if int(topic[2:]) % 2} == {f"t/{number}" for number in range(1, count, 2)}


def test_a_subscription_that_ends_gets_no_more() -> None:
    house = House()
    for number in range(10_000):
        house.publish(f"t/{number}", retain=True)
    client = house.join()
    client.send(subscribe(topic_filter("t/#")))
    client.send(unsubscribe("t/#"))
    client.read()
    assert works_off(house, client) == []
    assert house.stat("walks") == 0


def test_a_session_that_is_away_goes_on_where_it_was() -> None:
    count = 10_000
    house = House()
    for number in range(count):
        house.publish(f"t/{number}", qos=1, retain=True)
    client = house.keeper()
    client.send(subscribe(topic_filter("t/#", 1)))
    client.lose()
    assert not house.broker.busy
    assert {topic for topic, _, _ in works_off(house, house.keeper())} == {f"t/{number}" for number in range(count)}


def test_who_subscribes_faster_than_it_reads_is_gone() -> None:
    house = House(max_subscriptions=100)
    for number in range(20_000):
        house.publish(f"t/{number}", retain=True)
    client = house.join()
    for _ in range(100):
        client.send(subscribe(topic_filter("#")))
    assert client.closed is None
    client.send(subscribe(topic_filter("#")))
    assert client.closed == 0x97
    assert house.stat("walks") == 0
