"""Chapter 4.8: shared subscriptions."""

from __future__ import annotations

from itertools import chain

import pytest

from tests.broker.house import Client, House, ack, disconnect, properties, publish, subscribe, topic_filter, unsubscribe

GOOD = ["$share/g/a", "$share/g//", "$share/g/#", "$share/g/+/b", "$share/a b/a", "$share/$/a", "$share/\u00e9/a/b/#"]
BAD = ["$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/#/a", "$share/g+/a", "$share/g#/a", "$share/"]
BAD += ["$share/g/a#", "$share/g/a/#/b", "$share/g/+a"]


def crew(house: House, *names: str, qos: int = 1, pattern: str = "$share/crew/work/#") -> list[Client]:
    """Clients with kept sessions that share one subscription."""
    clients = [house.keeper(name) for name in names]
    for client in clients:
        assert client.subscribe(pattern, qos=qos) == [qos]
    return clients


def shares(clients: list[Client]) -> list[list[bytes]]:
    return [client.payloads() for client in clients]


def test_they_are_announced_as_available() -> None:
    """5.0 §3.2.2.3.13."""
    client = House().join()
    assert client.connack is not None
    assert dict(client.connack["properties"]).get("shared_subscription_available", 1) == 1


@pytest.mark.parametrize("pattern", GOOD)
def test_a_share_name_and_a_filter(pattern: str) -> None:
    """MQTT-4.8.2-1, MQTT-4.8.2-2."""
    house = House()
    client = house.join()
    assert client.subscribe(pattern) == [0]
    assert house.stat("subscriptions") == 1
    assert client.ask(unsubscribe(pattern), "UNSUBACK")["reasons"] == [0]
    assert house.stat("subscriptions") == 0


@pytest.mark.parametrize("pattern", BAD)
def test_what_is_no_share(pattern: str) -> None:
    """MQTT-4.8.2-1, MQTT-4.8.2-2, MQTT-4.7.1-1, MQTT-4.7.1-2: no name, a name with a wildcard, no filter, a bad
    filter."""
    house = House()
    client = house.join()
    client.send(subscribe(topic_filter(pattern), topic_filter("good"), number=3))
    if client.closed is None:
        assert client.only() == {"type": "SUBACK", "id": 3, "properties": [], "reasons": [0x8F, 0]}
    else:
        assert client.closed in (0x81, 0x82, 0x8F)


def test_each_message_goes_to_one_of_them() -> None:
    """5.0 §4.8.2: to exactly one of each share, to every share, and to whoever is subscribed besides."""
    house = House()
    one = crew(house, "a", "b", "c")
    two = crew(house, "d", "e", pattern="$share/other/work/#")
    three = crew(house, "f", pattern="$share/crew/+/x")
    plain = house.join("plain")
    plain.subscribe("work/x")
    for n in range(30):
        house.publish("work/x", b"%d" % n, qos=1)
    everything = sorted(b"%d" % n for n in range(30))
    for group in (one, two, three, [plain]):
        got = shares(group)
        assert sorted(chain(*got)) == everything
        assert all(got), "nobody goes without a share"


def test_messages_come_at_the_qos_of_the_one_who_gets_them() -> None:
    """MQTT-4.8.2-3: never above what was granted to it."""
    house = House()
    clients = [house.keeper(f"k{qos}") for qos in (0, 1, 2)]
    for qos, client in enumerate(clients):
        client.subscribe("$share/crew/work", qos=qos)
    for n in range(30):
        house.publish("work", b"%d" % n, qos=2)
    got = [client.messages() for client in clients]
    assert sum(map(len, got)) == 30
    for granted, messages in enumerate(got):
        assert {qos for _, _, qos in messages} == {granted}


def test_a_message_published_at_qos_0_stays_one() -> None:
    """MQTT-4.8.2-3 with MQTT-3.8.4-8."""
    house = House()
    (client,) = crew(house, "a", qos=2)
    house.publish("work/x", qos=0)
    assert [qos for _, _, qos in client.messages()] == [0]


def test_a_message_at_qos_2_that_was_begun_is_completed_with_the_same_client() -> None:
    """MQTT-4.8.2-4: when it comes back; nobody else gets it meanwhile."""
    for received in (False, True):
        house = House()
        clients = crew(house, "a", "b", qos=2)
        house.publish("work/x", b"1", qos=2)
        got = [client.read() for client in clients]
        assert sorted(map(len, got)) == [0, 1]
        first = 0 if got[0] else 1
        number = got[first][0]["id"]
        if received:
            clients[first].send(ack("PUBREC", number))
            assert clients[first].only() == ack("PUBREL", number)
        clients[first].lose()
        house.wait(60)
        assert clients[1 - first].read() == []
        packet = house.keeper("ab"[first]).only()
        if received:
            assert packet == ack("PUBREL", number)
        else:
            assert (packet["type"], packet["id"], packet["dup"]) == ("PUBLISH", number, True)
        assert clients[1 - first].read() == []


def test_a_message_at_qos_2_ends_with_the_session_that_it_was_begun_with() -> None:
    """MQTT-4.8.2-5: no other client of the share gets it, however the session ends."""
    for end in ("expired", "clean start", "disconnect"):
        house = House()
        clients = crew(house, "a", "b", qos=2)
        house.publish("work/x", b"1", qos=2)
        got = [client.read() for client in clients]
        first = 0 if got[0] else 1
        if end == "expired":
            clients[first].lose()
            house.wait(3601)
        elif end == "clean start":
            house.join("ab"[first])
        else:
            clients[first].send(disconnect(session_expiry_interval=0))
        house.wait(10)
        assert clients[1 - first].read() == []
        house.publish("work/x", b"2", qos=2)
        assert clients[1 - first].payloads() == [b"2"], "who is left gets what comes now"


@pytest.mark.parametrize(("qos", "kind"), [(1, "PUBACK"), (2, "PUBREC")])
def test_a_message_that_was_refused_goes_to_nobody_else(qos: int, kind: str) -> None:
    """MQTT-4.8.2-6: a PUBACK or PUBREC of 0x80 or more."""
    house = House()
    clients = crew(house, "a", "b", qos=qos)
    house.publish("work/x", b"1", qos=qos)
    got = [client.read() for client in clients]
    first = 0 if got[0] else 1
    clients[first].send(ack(kind, got[first][0]["id"], 0x97))
    house.wait(10)
    assert [client.read() for client in clients] == [[], []]
    clients[first].lose()
    house.wait(10)
    assert clients[1 - first].read() == []
    assert house.keeper("ab"[first]).read() == []


def test_nobody_gets_retained_messages_for_joining_a_share() -> None:
    """5.0 §4.8.2: a shared subscription fetches none, whatever its Retain Handling; what is published retained
    passes."""
    house = House()
    house.publish("work/x", b"kept", qos=1, retain=True)
    for handling in (0, 1):
        client = house.join(f"c{handling}")
        client.subscribe("$share/crew/work/#", retain_handling=handling)
        assert client.read() == []
        house.publish("work/x", b"new", qos=1, retain=True)
        client.lose()


def test_a_share_is_left_one_by_one() -> None:
    """5.0 §4.8.2: by UNSUBSCRIBE, by the end of a session; the rest take over, and with the last it is over."""
    house = House()
    clients = crew(house, "a", "b", "c")
    assert clients[0].ask(unsubscribe("$share/crew/work/#"), "UNSUBACK")["reasons"] == [0]
    assert clients[0].ask(unsubscribe("$share/crew/work/#"), "UNSUBACK")["reasons"] == [0x11]
    clients[1].send(disconnect(session_expiry_interval=0))
    for n in range(5):
        house.publish("work/x", b"%d" % n, qos=1)
    assert clients[0].read() == []
    assert clients[2].payloads() == [b"%d" % n for n in range(5)]
    house.join("c")
    assert house.stat("subscriptions") == 0


def test_a_share_is_no_plain_subscription() -> None:
    """MQTT-3.8.4-3, MQTT-3.10.4-1: the same filter, shared under two names and plain, are three subscriptions."""
    house = House()
    client = house.join()
    assert client.subscribe("work", "$share/a/work", "$share/b/work") == [0, 0, 0]
    assert house.stat("subscriptions") == 3
    assert client.subscribe("$share/a/work", qos=1) == [1]
    assert house.stat("subscriptions") == 3
    assert client.ask(unsubscribe("$share/a/work"), "UNSUBACK")["reasons"] == [0]
    house.publish("work", b"1")
    assert set(client.payloads()) == {b"1"}


def test_no_message_is_lost_when_a_member_is_away() -> None:
    """5.0 §4.8.2: those that are connected get them; without any, they wait for whoever comes."""
    house = House()
    clients = crew(house, "a", "b")
    clients[0].lose()
    for n in range(6):
        house.publish("work/x", b"%d" % n, qos=1)
    back = house.keeper("a")
    got = sorted(back.payloads() + clients[1].payloads())
    assert got == [b"%d" % n for n in range(6)]
    assert len(got) == 6


def test_subscription_identifiers_of_a_share() -> None:
    """MQTT-3.3.4-3: of the member that gets the message."""
    house = House()
    clients = [house.join(f"c{n}") for n in (1, 2)]
    for n, client in enumerate(clients, 1):
        client.ask(
            subscribe(topic_filter("$share/g/a"), props=properties(subscription_identifier=n)),
            "SUBACK",
        )
    for _ in range(10):
        house.publish("a")
    for n, client in enumerate(clients, 1):
        packets = client.read()
        assert packets
        assert all(packet["properties"] == properties(subscription_identifier=n) for packet in packets)


def test_before_v5_a_share_is_none_or_the_same() -> None:
    """3.1.1 knows no shared subscriptions: `$share/g/a` is refused, or, as many brokers do it, shared as in 5.0; it is
    never an ordinary filter that matches nothing in silence."""
    house = House()
    old = house.join("old", 4)
    (granted,) = old.subscribe("$share/g/a")
    house.publish("a", b"1")
    assert old.payloads() == ([b"1"] if granted == 0 else [])
    assert granted in (0, 0x80)
    publisher = house.join("p")
    publisher.send(publish("a"))
    assert publisher.closed is None


def test_what_waits_for_a_member_that_never_comes_back_goes_to_another_that_is_away() -> None:
    """5.0 §4.8.2: QoS 1, when a session ends while nobody is connected: it waits on with who is left."""
    house = House()
    clients = crew(house, "a", "b")
    for client in clients:
        client.lose()
    house.wait(60)
    for n in range(4):
        house.publish("work/x", b"%d" % n, qos=1)
    house.join("a").lose()
    assert sorted(house.keeper("b").payloads()) == [b"0", b"1", b"2", b"3"]


def test_what_waits_for_the_last_member_goes_with_it() -> None:
    """5.0 §4.8.2: there is nobody else; the session ends, and its messages with it."""
    for qos in (1, 2):
        house = House(max_inflight=2)
        (client,) = crew(house, "a", qos=qos)
        for n in range(5):
            house.publish("work/x", b"%d" % n, qos=qos)
        client.lose()
        house.wait(3601)
        assert house.stat("sessions") == 0
        (client,) = crew(house, "a", qos=qos)
        assert client.read() == []
