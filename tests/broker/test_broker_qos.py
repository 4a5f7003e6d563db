"""Delivery at QoS 0, 1 and 2 in both directions: identifiers, windows, acknowledgements, redelivery."""

import pytest

from tests.broker.house import Client, House, ack, properties, publish, subscribe, topic_filter

VERSIONS = [3, 4, 5]


def pair(version: int = 5, qos: int = 2, **limits: int) -> tuple[House, Client, Client]:
    """A house, a client that publishes, and one with a kept session that is subscribed to everything."""
    house = House(**limits)
    keeper = house.keeper("k", version)
    keeper.subscribe("#", qos=qos)
    return house, house.join("p", version), keeper


def back(house: House, client: Client, **more: object) -> Client:
    """The client, connected anew."""
    return house.keeper("k", client.version, **more)


# --- from the client to the broker ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_qos_is_answered_as_it_should(version: int) -> None:
    """MQTT-3.3.4-1, MQTT-4.3.2-4, MQTT-4.3.3-8, MQTT-4.3.3-11: nothing, PUBACK, PUBREC and PUBCOMP."""
    _, publisher, keeper = pair(version)
    publisher.send(publish("a", b"0"))
    assert publisher.read() == []
    publisher.send(publish("a", b"1", 1, 11))
    assert publisher.only() == ack("PUBACK", 11)
    publisher.send(publish("a", b"2", 2, 12))
    assert publisher.only() == ack("PUBREC", 12)
    publisher.send(ack("PUBREL", 12))
    assert publisher.only() == ack("PUBCOMP", 12)
    assert keeper.messages() == [("a", b"0", 0), ("a", b"1", 1), ("a", b"2", 2)]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_for_nobody_is_acknowledged_with_that_remark(qos: int) -> None:
    """5.0 §3.4.2.1, §3.5.2.1: 0x10, no matching subscribers; 3.1.1 has no such word."""
    house = House()
    for version, reason in ((5, 0x10), (4, 0)):
        client = house.join("c", version)
        client.send(publish("nobody", qos=qos))
        assert client.only() == ack("PUBACK" if qos == 1 else "PUBREC", 1, reason)


def test_qos_1_again_is_a_new_message() -> None:
    """MQTT-4.3.2-5: after the PUBACK the same identifier means a new publication, whatever DUP says."""
    _, publisher, keeper = pair()
    publisher.send(publish("a", b"1", 1), publish("a", b"1", 1, dup=True))
    assert keeper.payloads() == [b"1", b"1"]


@pytest.mark.parametrize("version", VERSIONS)
def test_qos_2_again_is_acknowledged_but_not_routed(version: int) -> None:
    """MQTT-4.3.3-10, MQTT-4.3.3-12: once until PUBREL, then the identifier is free."""
    _, publisher, keeper = pair(version)
    publisher.send(publish("a", b"1", 2), publish("a", b"1", 2, dup=True))
    assert publisher.read() == [ack("PUBREC", 1)] * 2
    publisher.send(ack("PUBREL", 1), publish("a", b"2", 2))
    assert publisher.read() == [ack("PUBCOMP", 1), ack("PUBREC", 1)]
    assert keeper.payloads() == [b"1", b"2"]


def test_a_qos_2_message_is_routed_once_across_connections() -> None:
    """MQTT-4.3.3-10, MQTT-4.4.0-1: the identifiers received belong to the session."""
    house = House()
    listener = house.join("l")
    listener.subscribe("#")
    publisher = house.keeper("k")
    publisher.send(publish("a", b"1", 2))
    publisher.lose()
    publisher = house.keeper("k")
    publisher.send(publish("a", b"1", 2, dup=True), ack("PUBREL", 1))
    assert publisher.read() == [ack("PUBREC", 1), ack("PUBCOMP", 1)]
    assert listener.payloads() == [b"1"]


def test_pubrel_of_an_unknown_identifier_is_answered() -> None:
    """MQTT-4.3.3-11; 5.0 §3.7.2.1: 0x92; 3.1.1 says only that it is answered."""
    house = House()
    for version, reason in ((5, 0x92), (4, 0)):
        client = house.join("c", version)
        client.send(ack("PUBREL", 9))
        assert client.only() == ack("PUBCOMP", 9, reason)


def test_dup_is_not_passed_on() -> None:
    """MQTT-3.3.1-3."""
    _, publisher, keeper = pair()
    publisher.send(publish("a", qos=1, dup=True), publish("a", qos=2, number=2, dup=True))
    assert [packet["dup"] for packet in keeper.read()] == [False, False]


# --- from the broker to the client ------------------------------------------------------------------------------------


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("sent", [0, 1, 2])
def test_a_message_arrives_at_the_lower_of_both_qos(granted: int, sent: int) -> None:
    """MQTT-3.8.4-8, MQTT-3.9.3-2; 3.1.1 MQTT-3.8.4-6."""
    _, publisher, keeper = pair(5, granted)
    publisher.send(publish("a", qos=sent))
    packet = keeper.only()
    assert packet["qos"] == min(granted, sent)
    assert (packet["id"] is not None) == (packet["qos"] > 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_qos_2_to_a_client_goes_through_its_four_steps(version: int) -> None:
    """MQTT-4.3.3-1 to MQTT-4.3.3-7."""
    house, _, keeper = pair(version)
    house.publish("a", b"2", qos=2)
    number = keeper.only()["id"]
    keeper.send(ack("PUBREC", number))
    assert keeper.only() == ack("PUBREL", number)
    keeper.send(ack("PUBCOMP", number))
    assert keeper.read() == []
    keeper.lose()
    assert back(house, keeper).read() == []


def test_a_refused_message_is_done_with() -> None:
    """MQTT-4.4.0-2: a PUBACK or PUBREC of 0x80 or more ends the exchange: no PUBREL, no redelivery, a free place."""
    house, _, keeper = pair(max_inflight=1)
    for qos, kind in ((1, "PUBACK"), (2, "PUBREC"), (1, "PUBACK")):
        house.publish("a", qos=qos)
        keeper.send(ack(kind, keeper.only()["id"], 0x83))
        assert keeper.read() == []
    keeper.lose()
    assert back(house, keeper).read() == []


def test_identifiers_are_unique_among_those_under_way() -> None:
    """MQTT-2.2.1-4 (5.0), 3.1.1 MQTT-2.3.1-4."""
    house, _, keeper = pair(max_inflight=100)
    for _ in range(100):
        house.publish("a", qos=1)
    numbers = [packet["id"] for packet in keeper.read()]
    assert len(set(numbers)) == 100
    assert 0 not in numbers


def test_identifiers_wrap_from_65535_to_1_and_skip_none_that_is_under_way() -> None:
    """MQTT-2.2.1-3, MQTT-2.2.1-4: 0 is never used, nor one whose message waits for its acknowledgement."""
    house, _, keeper = pair(qos=1, max_inflight=3)
    house.publish("a", b"first", qos=1)
    stuck = keeper.only()["id"]
    seen = {stuck}
    last = stuck
    turns = 0
    # Until the identifiers under way span half their space, others come and go; then delivery waits for the first.
    while True:
        house.publish("a", b"x", qos=1)
        packets = keeper.read()
        if not packets:
            break
        (packet,) = packets
        assert packet["id"] not in {0, stuck}
        assert packet["id"] == last % 65535 + 1
        last = packet["id"]
        seen.add(last)
        keeper.send(ack("PUBACK", last))
        turns += 1
    assert turns == 32767
    keeper.send(ack("PUBACK", stuck))
    for packet in keeper.read():
        keeper.send(ack("PUBACK", packet["id"]))
    # Now once round: every identifier has had its turn, and none twice before all others.
    ids = []
    for _ in range(65535):
        house.publish("a", b"x", qos=1)
        ids.append(keeper.only()["id"])
        keeper.send(ack("PUBACK", ids[-1]))
    assert sorted(ids) == list(range(1, 65536))
    assert 65535 in ids[:-1]
    assert ids[ids.index(65535) + 1] == 1


@pytest.mark.parametrize("order", [1, -1])
def test_identifiers_on_both_sides_of_the_wrap_are_acknowledged(order: int) -> None:
    """MQTT-4.3.2-3, MQTT-4.3.3-4: those behind 65535 belong to messages behind its message, in either order of acks."""
    house, _, keeper = pair(qos=2, max_inflight=6)
    for _ in range(65532):
        house.publish("a", qos=1)
        keeper.send(ack("PUBACK", keeper.only()["id"]))
    for number in range(6):
        house.publish("a", b"%d" % number, qos=1 + number % 2)
    packets = keeper.read()
    assert [packet["id"] for packet in packets] == [65533, 65534, 65535, 1, 2, 3]
    for packet in packets[::order]:
        if packet["qos"] == 2:
            keeper.send(ack("PUBREC", packet["id"]))
            assert keeper.only() == ack("PUBREL", packet["id"])
        keeper.send(ack("PUBACK" if packet["qos"] == 1 else "PUBCOMP", packet["id"]))
    keeper.lose()
    assert back(house, keeper).read() == []


@pytest.mark.parametrize("qos", [1, 2])
def test_no_more_are_under_way_than_the_client_takes(qos: int) -> None:
    """MQTT-3.3.4-9, MQTT-4.9.0-2: Receive Maximum; each final acknowledgement lets one more out, PUBREC does not."""
    house = House()
    keeper = house.keeper("k", props=properties(receive_maximum=3))
    keeper.subscribe("#", qos=2)
    for number in range(10):
        house.publish("a", b"%d" % number, qos=qos)
    first = keeper.read()
    assert [packet["payload"] for packet in first] == [b"0", b"1", b"2"]
    house.publish("b", b"qos 0 is not held up")
    assert keeper.payloads() == [b"qos 0 is not held up"]
    if qos == 2:
        keeper.send(*(ack("PUBREC", packet["id"]) for packet in first))
        assert {packet["type"] for packet in keeper.read()} == {"PUBREL"}
    keeper.send(ack("PUBACK" if qos == 1 else "PUBCOMP", first[0]["id"]))
    assert keeper.payloads() == [b"3"]
    keeper.send(*(ack("PUBACK" if qos == 1 else "PUBCOMP", packet["id"]) for packet in first[1:]))
    assert keeper.payloads() == [b"4", b"5"]


def test_acknowledgements_may_come_in_any_order() -> None:
    """5.0 §4.6: a receiver acknowledges in order, but one that does not loses nothing and gets nothing twice."""
    house, _, keeper = pair(qos=1, max_inflight=5)
    for number in range(9):
        house.publish("a", b"%d" % number, qos=1)
    ids = {packet["payload"]: packet["id"] for packet in keeper.read()}
    for payload in (b"3", b"1", b"4"):
        keeper.send(ack("PUBACK", ids[payload]))
    got = keeper.read()
    assert [packet["payload"] for packet in got] == [b"5", b"6", b"7"]
    keeper.lose()
    again = back(house, keeper).read()
    assert [(p["payload"], p["dup"]) for p in again] == [
        (b"0", True),
        (b"2", True),
        (b"5", True),
        (b"6", True),
        (b"7", True),
    ]


def test_acknowledgements_of_nothing_change_nothing() -> None:
    """5.0 §4.13.1, §3.4: an unknown identifier is no reason to close, and frees no place in the window."""
    house, _, keeper = pair(max_inflight=1)
    house.publish("a", b"1", qos=1)
    house.publish("a", b"2", qos=2)
    number = keeper.only()["id"]
    keeper.send(
        ack("PUBACK", number + 1), ack("PUBCOMP", number), ack("PUBREC", number + 1, 0x80), ack("PUBACK", 65535)
    )
    assert keeper.read() == []
    keeper.send(ack("PUBACK", number), ack("PUBACK", number))
    second = keeper.only()
    assert second["payload"] == b"2"
    keeper.send(ack("PUBACK", second["id"]), ack("PUBCOMP", second["id"]))
    assert keeper.read() == [], "a PUBACK or a PUBCOMP too early is none for a QoS 2 message"
    keeper.send(ack("PUBREC", second["id"]), ack("PUBREC", second["id"]))
    assert keeper.read() == [ack("PUBREL", second["id"])] * 2
    assert keeper.closed is None


def test_pubrec_of_an_unknown_identifier_is_answered() -> None:
    """5.0 §3.6.2.1: PUBREL with 0x92, so that the client can let go; one that refuses needs no answer."""
    house = House()
    for version, reason in ((5, 0x92), (4, 0)):
        client = house.join("c", version)
        client.send(ack("PUBREC", 9))
        assert client.only() == ack("PUBREL", 9, reason)
    client = house.join("d")
    client.send(ack("PUBREC", 9, 0x87))
    assert client.read() == []


@pytest.mark.parametrize("version", VERSIONS)
def test_redelivery_is_in_order_with_dup_and_before_anything_new(version: int) -> None:
    """MQTT-4.4.0-1, MQTT-4.6.0-1, MQTT-3.3.1-1; 3.1.1 MQTT-4.4.0-1: the same identifiers; PUBREL after PUBREC."""
    house, _, keeper = pair(version, max_inflight=4)
    for number in range(4):
        house.publish("a", b"%d" % number, qos=2 if number % 2 else 1)
    first = keeper.read()
    keeper.send(ack("PUBREC", first[1]["id"]))
    assert keeper.only() == ack("PUBREL", first[1]["id"])
    keeper.lose()
    house.publish("a", b"4", qos=1)
    keeper = back(house, keeper)
    again = keeper.read()
    assert [packet["id"] for packet in again] == [packet["id"] for packet in first]
    assert [packet["type"] for packet in again] == ["PUBLISH", "PUBREL", "PUBLISH", "PUBLISH"]
    assert [(p["payload"], p["dup"]) for p in again if p["type"] == "PUBLISH"] == [
        (b"0", True),
        (b"2", True),
        (b"3", True),
    ]
    keeper.send(ack("PUBCOMP", first[1]["id"]))
    new = keeper.only()
    assert (new["payload"], new["dup"]) == (b"4", False)


def test_redelivery_keeps_to_the_window_of_the_new_connection() -> None:
    """MQTT-3.3.4-9 on a second connection whose Receive Maximum is smaller; nothing is sent twice on one connection."""
    house, _, keeper = pair(qos=1, max_inflight=5)
    for number in range(6):
        house.publish("a", b"%d" % number, qos=1)
    ids = [packet["id"] for packet in keeper.read()]
    keeper.lose()
    keeper = back(house, keeper, props=properties(receive_maximum=2))
    got = []
    while packets := keeper.read():
        assert len(packets) <= 2
        got += [(packet["id"], packet["payload"], packet["dup"]) for packet in packets]
        keeper.send(*(ack("PUBACK", packet["id"]) for packet in packets))
    assert [payload for _, payload, _ in got] == [b"%d" % number for number in range(6)]
    assert [number for number, _, _ in got[:5]] == ids
    assert [dup for _, _, dup in got] == [True] * 5 + [False]


def test_an_acknowledgement_of_what_was_not_sent_on_this_connection_counts() -> None:
    """MQTT-4.4.0-1: the client knows the identifier from before; it is done with, and the window is not upset."""
    house, _, keeper = pair(qos=1, max_inflight=3)
    for number in range(5):
        house.publish("a", b"%d" % number, qos=1)
    ids = [packet["id"] for packet in keeper.read()]
    keeper.lose()
    keeper = back(house, keeper, props=properties(receive_maximum=1))
    keeper.send(ack("PUBACK", ids[2]))
    assert [packet["payload"] for packet in keeper.read()] == [b"0"]
    keeper.send(ack("PUBACK", ids[0]))
    assert [packet["payload"] for packet in keeper.read()] == [b"1"]
    keeper.send(ack("PUBACK", ids[1]))
    assert [packet["payload"] for packet in keeper.read()] == [b"3"]


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_wait_for_a_client_that_is_away(version: int) -> None:
    """MQTT-4.5.0-1, MQTT-3.1.2-23: QoS 1 and 2 are kept, in order; QoS 0 is not."""
    house, publisher, keeper = pair(version)
    keeper.lose()
    for number in range(6):
        publisher.send(publish("a", b"%d" % number, number % 3, number))
    assert back(house, keeper).messages() == [("a", b"1", 1), ("a", b"2", 2), ("a", b"4", 1), ("a", b"5", 2)]


def test_a_message_expires_while_it_waits() -> None:
    """MQTT-3.3.2-5, MQTT-3.3.2-6: gone after the interval; before it, the interval that remains is told."""
    house, publisher, keeper = pair()
    keeper.lose()
    for seconds in (10, 20, 30):
        publisher.send(publish("a", b"%d" % seconds, 1, props=properties(message_expiry_interval=seconds)))
    house.wait(10)
    packets = back(house, keeper).read()
    assert [(p["payload"], dict(p["properties"])["message_expiry_interval"]) for p in packets] == [
        (b"20", 10),
        (b"30", 20),
    ]
    assert house.stat("dropped_expired") == 1


def test_a_message_that_is_under_way_does_not_expire() -> None:
    """MQTT-4.3.3-13, MQTT-4.4.0-1: an exchange that has begun goes on."""
    house, publisher, keeper = pair()
    publisher.send(publish("a", b"1", 2, props=properties(message_expiry_interval=10)))
    number = keeper.only()["id"]
    keeper.lose()
    house.wait(100)
    keeper = back(house, keeper)
    packet = keeper.only()
    assert (packet["id"], packet["dup"]) == (number, True)
    assert packet["properties"] == properties(message_expiry_interval=0)


def test_many_that_expired_do_not_hold_up_the_one_behind_them() -> None:
    """MQTT-3.3.2-5: 40,000 expired messages are more than there are identifiers to give at once."""
    house, publisher, keeper = pair(max_queued_messages=50_000)
    keeper.lose()
    old = publish("a", b"old", 1, props=properties(message_expiry_interval=1))
    for _ in range(400):
        publisher.send(*[old] * 100)
        publisher.take()
    publisher.send(publish("a", b"new", 1))
    house.wait(1)
    keeper = back(house, keeper)
    assert keeper.payloads() == [b"new"]


def test_a_message_too_large_for_its_client_is_skipped() -> None:
    """MQTT-3.1.2-24, MQTT-3.1.2-25: as if it had been delivered; those behind it come."""
    house = House()
    keeper = house.keeper("k", props=properties(maximum_packet_size=100))
    keeper.subscribe("#", qos=2)
    header = 2 + 2 + 1 + 2 + 1  # fixed header, topic "a", identifier, no properties
    for qos in (0, 1, 2):
        room = 100 - header + (0 if qos else 2)
        house.publish("a", b"x" * room, qos=qos)
        house.publish("a", b"x" * (room + 1), qos=qos)
        house.publish("a", b"after", qos=qos)
        packets = keeper.read()
        assert [len(packet["payload"]) for packet in packets] == [room, 5]
        keeper.send(*(ack("PUBACK" if qos == 1 else "PUBREC", p["id"]) for p in packets if qos))
        keeper.send(*(ack("PUBCOMP", p["id"]) for p in packets if qos == 2))
        keeper.read()
    assert house.stat("dropped_too_large") == 3
    keeper.lose()
    assert house.keeper("k").read() == []


@pytest.mark.parametrize("fits", [True, False])
def test_an_answer_too_large_for_its_client_ends_the_connection(fits: bool) -> None:
    """MQTT-3.1.2-24: it must not be sent; without it the client would wait for ever."""
    house = House()
    client = house.join(props=properties(maximum_packet_size=40))
    size = 40 - 2 - 2 - 1  # fixed header, identifier, no properties
    client.send(subscribe(*[topic_filter("a")] * (size if fits else size + 1)))
    if fits:
        assert len(client.only()["reasons"]) == size
    assert client.closed == (None if fits else 0x97)
    assert client.read() == []
    house.publish("a", b"x" * 50)
    assert house.join("other").closed is None


def test_what_a_message_says_is_passed_on_unaltered() -> None:
    """MQTT-3.3.2-4, MQTT-3.3.2-15, MQTT-3.3.2-16, MQTT-3.3.2-17, MQTT-3.3.2-18, MQTT-3.3.2-20: and in its order."""
    said = [
        ["user_property", ["b", "2"]],
        ["payload_format_indicator", 1],
        ["user_property", ["a", "1"]],
        ["correlation_data", b"\0\xff"],
        ["response_topic", "answers/here"],
        ["content_type", "text/plain"],
        ["user_property", ["b", "2"]],
    ]
    for qos in (0, 1):
        for expiring in ([], [["message_expiry_interval", 60]]):
            _, publisher, keeper = pair()
            publisher.send(publish("a", qos=qos, props=said[:3] + expiring + said[3:]))
            assert keeper.only()["properties"] == expiring + said


def test_subscriptions_granted_at_each_qos_share_one_message() -> None:
    """MQTT-3.8.4-8: three sessions, three QoS, the same bytes."""
    house = House()
    clients = [house.join(f"c{qos}") for qos in (0, 1, 2)]
    for qos, client in enumerate(clients):
        client.subscribe("a", qos=qos)
    publisher = house.join("p")
    publisher.send(publish("a", b"same", 2))
    assert [client.messages() for client in clients] == [[("a", b"same", qos)] for qos in (0, 1, 2)]


def test_the_gateways_own_messages_are_like_any_other() -> None:
    house = House()
    client = house.join()
    client.send({"type": "SUBSCRIBE", "id": 1, "properties": [], "filters": [topic_filter("a", 2)]})
    client.read()
    for qos in (0, 1, 2):
        house.publish("a", b"x", qos=qos)
    assert [qos for _, _, qos in client.messages()] == [0, 1, 2]
    with pytest.raises(ValueError, match="cannot publish"):
        house.publish("a/+", b"x")
