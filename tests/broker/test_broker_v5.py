"""What MQTT 5.0 adds: identifiers of subscriptions, shared ones, topic aliases, switches, reasons, references, AUTH.

Each test names the statement that it proves; the clients are the reference codec.
"""

from __future__ import annotations

from collections import Counter

import pytest

from peanutd import _core
from tests.broker.house import (
    Client,
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

REAUTHENTICATE = 0x19
CONTINUE = 0x18


def identifiers(packet: Packet) -> list[int]:
    return [value for name, value in packet["properties"] if name == "subscription_identifier"]


def subscribe_as(client: Client, number: int, *filters: str, qos: int = 0, **options: object) -> None:
    """SUBSCRIBE with a Subscription Identifier; all filters are granted."""
    packet = subscribe(
        *(topic_filter(text, qos, **options) for text in filters), props=properties(subscription_identifier=number)
    )
    assert client.ask(packet, "SUBACK")["reasons"] == [qos] * len(filters)


# --- subscription identifiers -----------------------------------------------------------------------------------------


def test_a_message_carries_the_identifier_of_its_subscription() -> None:
    """MQTT-3.3.4-3."""
    house = House()
    client, publisher = house.join("c"), house.join("p")
    subscribe_as(client, 7, "a")
    subscribe_as(client, 268_435_455, "b")
    client.subscribe("c")
    for topic in "abc":
        publisher.send(publish(topic))
    assert [identifiers(packet) for packet in client.read()] == [[7], [268_435_455], []]


def test_overlapping_subscriptions_give_one_message_with_all_identifiers() -> None:
    """MQTT-3.3.4-4; the highest QoS of them (MQTT-3.3.4-2)."""
    house = House()
    client, publisher = house.join("c"), house.join("p")
    subscribe_as(client, 1, "a/+", qos=0)
    subscribe_as(client, 2, "a/b", qos=2)
    subscribe_as(client, 3, "#", qos=1)
    publisher.send(publish("a/b", qos=2))
    (packet,) = client.read()
    assert sorted(identifiers(packet)) == [1, 2, 3]
    assert packet["qos"] == 2


def test_an_identifier_is_replaced_with_its_subscription() -> None:
    """MQTT-3.8.4-3."""
    house = House()
    client, publisher = house.join("c"), house.join("p")
    subscribe_as(client, 1, "a")
    subscribe_as(client, 2, "a")
    publisher.send(publish("a"))
    client.subscribe("a")
    publisher.send(publish("a"))
    assert [identifiers(packet) for packet in client.read()] == [[2], []]


def test_identifiers_stay_with_messages_that_wait_and_with_retained_ones() -> None:
    """5.0 §3.8.2.1.2: part of the session's subscription; redelivered the same."""
    house = House()
    client, publisher = house.keeper("k"), house.join("p")
    subscribe_as(client, 5, "a", qos=1)
    client.lose()
    publisher.send(publish("a", qos=1))
    client = house.keeper("k")
    (first,) = client.read()
    client.lose()
    client = house.keeper("k")
    (again,) = client.read()
    assert identifiers(first) == identifiers(again) == [5]
    assert again["dup"]
    publisher.send(publish("r", retain=True))
    subscribe_as(client, 6, "r")
    assert [identifiers(packet) for packet in client.read()] == [[6]]


def test_an_identifier_of_a_publisher_is_a_protocol_error() -> None:
    """MQTT-3.3.4-6."""
    client = House().join()
    client.send(publish("a", props=properties(subscription_identifier=1)))
    assert client.read() == [disconnect(0x82)]


# --- shared subscriptions ---------------------------------------------------------------------------------------------


def group(house: House, count: int, text: str = "$share/g/t", qos: int = 1, **more: object) -> list[Client]:
    """Members of a shared subscription."""
    members = [house.keeper(f"m{i}", **more) for i in range(count)]
    for member in members:
        assert member.subscribe(text, qos=qos) == [qos]
    return members


def test_each_message_goes_to_one_member_and_all_get_their_share() -> None:
    """5.0 §4.8.2."""
    house = House()
    members, publisher = group(house, 3), house.join("p")
    for i in range(30):
        publisher.send(publish("t", b"%d" % i))
    shares = [member.payloads() for member in members]
    assert sorted(int(payload) for share in shares for payload in share) == list(range(30))
    assert [len(share) for share in shares] == [10, 10, 10]


def test_groups_and_ordinary_subscribers_do_not_take_from_each_other() -> None:
    """5.0 §4.8.2: every group gets every message, and so does who is not in one."""
    house = House()
    first, second, publisher = group(house, 2), house.join("other"), house.join("p")
    plain = house.join("plain")
    second.subscribe("$share/h/#")
    plain.subscribe("t", "$share/solo/t")
    publisher.send(publish("t", b"1"))
    assert Counter(payload for member in first for payload in member.payloads()) == {b"1": 1}
    assert second.payloads() == [b"1"]
    assert plain.payloads() == [b"1", b"1"]


def test_a_member_that_is_away_is_passed_over_while_another_is_there() -> None:
    """5.0 §4.8.2: the choice is the server's."""
    house = House()
    away, here = group(house, 2)
    publisher = house.join("p")
    away.lose()
    for i in range(4):
        publisher.send(publish("t", b"%d" % i, qos=1))
    assert here.payloads() == [b"0", b"1", b"2", b"3"]
    here.lose()
    publisher.send(publish("t", b"later", qos=1))
    back = [house.keeper("m0").payloads(), house.keeper("m1").payloads()]
    assert sum(share.count(b"later") for share in back) == 1


def test_what_a_member_leaves_behind_goes_to_another() -> None:
    """5.0 §4.8.2: QoS 1 that was not acknowledged, when the session ends; the oldest first."""
    house = House(max_inflight=2)
    first, second = group(house, 2)
    publisher = house.join("p")
    second.lose()
    for i in range(5):
        publisher.send(publish("t", b"%d" % i, qos=1))
    assert first.payloads() == [b"0", b"1"]
    second = house.keeper("m1")
    first.send(disconnect(0, session_expiry_interval=0))
    assert second.payloads() == [b"0", b"1"]
    second.send(ack("PUBACK", 1), ack("PUBACK", 2))
    assert second.payloads() == [b"2", b"3"]


def test_qos_2_that_was_sent_is_not_given_to_another() -> None:
    """MQTT-4.8.2-5; what was not yet sent is."""
    house = House(max_inflight=1)
    first, second = group(house, 2, qos=2)
    publisher = house.join("p")
    second.lose()
    for number in (1, 2):
        publisher.send(publish("t", b"%d" % number, qos=2, number=number))
    assert first.payloads() == [b"1"]
    second = house.keeper("m1")
    first.send(disconnect(0, session_expiry_interval=0))
    assert second.payloads() == [b"2"]


@pytest.mark.parametrize("heir_wants", [False, True])
def test_retain_follows_the_subscription_of_the_one_it_goes_to(heir_wants: bool) -> None:
    """MQTT-3.3.1-12, -13: of the member that gets the message, not of the one that left it behind."""
    house = House(max_inflight=1)
    first, second = house.keeper("m0"), house.keeper("m1")
    first.ask(subscribe(topic_filter("$share/g/t", 1, retain_as_published=not heir_wants)), "SUBACK")
    house.join("p").send(publish("t", b"1", qos=1, retain=True))
    assert [packet["retain"] for packet in first.read()] == [not heir_wants]
    second.ask(subscribe(topic_filter("$share/g/t", 1, retain_as_published=heir_wants)), "SUBACK")
    first.send(disconnect(0, session_expiry_interval=0))
    assert second.only()["retain"] is heir_wants


def test_a_session_that_left_a_group_takes_nothing_from_it_and_gives_nothing_to_it() -> None:
    """What it had been chosen for stays its own: it may have been sent."""
    house = House(max_inflight=1)
    first, second = group(house, 2)
    publisher = house.join("p")
    second.lose()
    publisher.send(publish("t", b"1", qos=1), publish("t", b"2", qos=1, number=2))
    second = house.keeper("m1")
    first.send(unsubscribe("$share/g/t"))
    first.send(disconnect(0, session_expiry_interval=0))
    assert second.payloads() == []
    publisher.send(publish("t", b"3", qos=1, number=3))
    assert second.payloads() == [b"3"]


def test_a_shared_subscription_gets_no_retained_messages() -> None:
    """5.0 §4.8.2."""
    house = House()
    house.publish("t", b"kept", retain=True)
    client = house.join()
    assert client.subscribe("$share/g/t", qos=1) == [1]
    assert client.payloads() == []


@pytest.mark.parametrize("text", ["$share/", "$share/g", "$share/g/", "$share//t", "$share/g+/t", "$share/#/t"])
def test_a_shared_filter_that_is_not_well_formed(text: str) -> None:
    """MQTT-4.8.2-1, MQTT-4.8.2-2."""
    assert House().join().subscribe(text) == [0x8F]


def test_no_local_on_a_shared_subscription_is_a_protocol_error() -> None:
    """MQTT-3.8.3-4."""
    client = House().join()
    client.send(subscribe(topic_filter("$share/g/t", no_local=True)))
    assert client.read() == [disconnect(0x82)]


def test_unsubscribing_names_the_group() -> None:
    """MQTT-3.10.4-1: character by character."""
    house = House()
    client = house.join()
    client.subscribe("$share/g/t", "t")
    answer = client.ask(unsubscribe("$share/h/t", "$share/g/t", "$share/g/t"), "UNSUBACK")
    assert answer["reasons"] == [0x11, 0, 0x11]
    house.publish("t", b"1")
    assert client.payloads() == [b"1"]


def test_rules_look_at_the_filter_behind_the_group() -> None:
    """A group's name opens no door."""
    house = House()
    house.broker.set_rules(1, [(True, _core.MAY_SHARE, _core.RETAIN_ANY, "mine/{id}")])
    client = house.join(verdict=Verdict(slot=1))
    assert client.subscribe("$share/g/mine/me", "$share/g/mine/other", "$share/mine/me") == [0, 0x87, 0x87]


# --- topic aliases ----------------------------------------------------------------------------------------------------


def test_a_publisher_may_name_its_topics_by_number() -> None:
    """MQTT-3.3.2-12: as long as the connection; MQTT-3.3.2-8 to -10: up to our maximum."""
    house = House(topic_alias_maximum=2)
    client, publisher = house.join("c"), house.join("p")
    assert publisher.connack is not None
    assert ["topic_alias_maximum", 2] in publisher.connack["properties"]
    client.subscribe("#")
    publisher.send(
        publish("a", b"1", props=properties(topic_alias=1)),
        publish("b", b"2", props=properties(topic_alias=2)),
        publish("", b"3", props=properties(topic_alias=1)),
        publish("c", b"4", props=properties(topic_alias=1)),
        publish("", b"5", props=properties(topic_alias=1)),
        publish("", b"6", props=properties(topic_alias=2)),
    )
    heard = client.read()
    assert [(packet["topic"], packet["payload"]) for packet in heard] == [
        ("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"4"), ("c", b"5"), ("b", b"6"),
    ]  # fmt: skip
    assert all(packet["properties"] == [] for packet in heard)


def test_an_alias_does_not_outlive_its_connection() -> None:
    """MQTT-3.3.2-7."""
    house = House()
    publisher = house.keeper("p")
    publisher.send(publish("a", props=properties(topic_alias=1)))
    publisher.lose()
    publisher = house.keeper("p")
    publisher.send(publish("", props=properties(topic_alias=1)))
    assert publisher.read() == [disconnect(0x82)]


@pytest.mark.parametrize(("maximum", "alias"), [(0, 1), (2, 3), (2, 65535)])
def test_an_alias_over_our_maximum(maximum: int, alias: int) -> None:
    """MQTT-3.3.2-9."""
    client = House(topic_alias_maximum=maximum).join()
    client.send(publish("a", props=properties(topic_alias=alias)))
    assert client.read() == [disconnect(0x94)]


def test_we_name_topics_by_number_to_who_takes_it() -> None:
    """MQTT-3.3.2-11: up to its maximum; each alias is told with its topic first."""
    house = House()
    client = house.join("c", props=properties(topic_alias_maximum=1))
    client.subscribe("#", qos=1)
    for topic in ("first", "second", "first"):
        house.publish(topic, qos=1)
    heard = [(packet["topic"], dict(packet["properties"]).get("topic_alias")) for packet in client.read()]
    assert heard == [("first", 1), ("second", None), ("", 1)]


def test_who_asks_for_no_aliases_gets_none() -> None:
    """MQTT-3.3.2-11: the default is 0."""
    house = House()
    client = house.join()
    client.subscribe("#")
    house.publish("t")
    house.publish("t")
    assert [packet["properties"] for packet in client.read()] == [[], []]


def test_a_redelivery_on_a_new_connection_names_its_topic() -> None:
    """MQTT-3.3.2-7."""
    house = House()
    wish = properties(topic_alias_maximum=5)
    client = house.keeper("k", props=wish)
    client.subscribe("t", qos=1)
    house.publish("t", b"1", qos=1)
    house.publish("t", b"2", qos=1)
    assert [packet["topic"] for packet in client.read()] == ["t", ""]
    client.lose()
    client = house.keeper("k", props=wish)
    assert [packet["topic"] for packet in client.read()] == ["t", ""]


def test_a_message_too_large_to_be_sent_teaches_no_alias() -> None:
    """MQTT-3.1.2-25."""
    house = House()
    client = house.join(props=properties(topic_alias_maximum=5, maximum_packet_size=30))
    client.subscribe("t")
    house.publish("t", b"x" * 100)
    house.publish("t", b"x")
    assert [packet["topic"] for packet in client.read()] == ["t"]


# --- switches ---------------------------------------------------------------------------------------------------------


def capabilities(**limits: int) -> dict[str, object]:
    connack = House(**limits).join().connack
    assert connack is not None
    return dict(connack["properties"])


def test_a_maximum_qos_is_told_granted_and_enforced() -> None:
    """MQTT-3.2.2-9 to -12."""
    assert capabilities(max_qos=1)["maximum_qos"] == 1
    house = House(max_qos=1)
    assert house.join("s").subscribe("t", qos=2) == [1]
    client = house.join("p")
    client.send(publish("t", qos=2))
    assert client.read() == [disconnect(0x9B)]
    refused = house.join("w", will=will(qos=2)).connack
    assert refused is not None
    assert refused["reason"] == 0x9B


def test_retain_switched_off_is_told_and_enforced() -> None:
    """MQTT-3.2.2-13, MQTT-3.2.2-14."""
    assert capabilities(retain_available=0)["retain_available"] == 0
    house = House(retain_available=0)
    client = house.join("p")
    client.send(publish("t", retain=True))
    assert client.read() == [disconnect(0x9A)]
    refused = house.join("w", will=will(retain=True)).connack
    assert refused is not None
    assert refused["reason"] == 0x9A


def test_wildcards_switched_off_are_told_and_refused() -> None:
    """5.0 §3.2.2.3.11."""
    assert capabilities(wildcard_subscriptions=0)["wildcard_subscription_available"] == 0
    assert House(wildcard_subscriptions=0).join().subscribe("a", "a/+", "#", "$share/g/+") == [0, 0xA2, 0xA2, 0xA2]


def test_shared_subscriptions_switched_off_are_told_and_refused() -> None:
    """5.0 §3.2.2.3.13."""
    assert capabilities(shared_subscriptions=0)["shared_subscription_available"] == 0
    assert House(shared_subscriptions=0).join().subscribe("a", "$share/g/a") == [0, 0x9E]


def test_what_is_available_is_not_mentioned() -> None:
    """5.0 §3.2.2.3: absent means available."""
    assert capabilities(topic_alias_maximum=0).keys() == {"receive_maximum", "maximum_packet_size"}


def test_a_payload_that_calls_itself_text_is_checked_when_told_so() -> None:
    """5.0 §3.3.2.3.2."""
    text = properties(payload_format_indicator=1)
    for check, puback in ((0, 0x10), (1, 0x99)):
        client = House(payload_format_check=check).join()
        client.send(publish("t", "grün".encode(), qos=1, props=text))
        client.send(publish("t", b"\xff", qos=1, number=2, props=text))
        assert [packet["reason"] for packet in client.read()] == [0x10, puback]
    house = House(payload_format_check=1)
    client = house.join()
    client.send(publish("t", b"\xff", props=text))
    assert client.read() == [disconnect(0x99)]
    refused = house.join("w", will=will(payload=b"\xff", payload_format_indicator=1)).connack
    assert refused is not None
    assert refused["reason"] == 0x99


# --- words for people -------------------------------------------------------------------------------------------------


def test_reasons_are_explained_to_who_asks() -> None:
    """5.0 §3.1.2.11.7: not to others."""
    for asked in (0, 1):
        house = House()
        house.broker.set_rules(1, [])
        client = house.join(verdict=Verdict(slot=1), props=properties(request_problem_information=asked))
        puback = client.ask(publish("t", qos=1), "PUBACK")
        assert puback["reason"] == 0x87
        assert dict(puback["properties"]) == ({"reason_string": "not authorized"} if asked else {})
        client.send(connect())
        (packet,) = client.read()
        assert dict(packet["properties"]) == ({"reason_string": "protocol error"} if asked else {})


def test_an_explanation_that_does_not_fit_is_left_out() -> None:
    """MQTT-3.4.2-2, MQTT-3.14.2-3."""
    house = House()
    house.broker.set_rules(1, [])
    wish = properties(request_problem_information=1, maximum_packet_size=20)
    client = house.join(verdict=Verdict(slot=1), props=wish)
    assert client.ask(publish("t", qos=1), "PUBACK")["properties"] == []


def test_a_client_sent_elsewhere_is_told_where() -> None:
    """5.0 §3.14.2.2.5, §4.11."""
    house = House()
    client = house.join()
    house.handle(client.link.close(0x9C, house.now, "other.example:8883"))
    assert client.read() == [disconnect(0x9C, server_reference="other.example:8883")]
    waiting = house.join("w", verdict=Verdict(wait=True))
    house.handle(waiting.link.refuse(0x9D, "other.example:8883", now=house.now))
    (connack,) = waiting.read()
    assert (connack["reason"], connack["properties"]) == (0x9D, properties(server_reference="other.example:8883"))


@pytest.mark.parametrize("asked", [0, 1])
def test_response_information_is_for_who_asks(asked: int) -> None:
    """MQTT-3.1.2-28."""
    house = House()
    client = house.join(props=properties(request_response_information=asked), verdict=Verdict(wait=True))
    events = client.link.accept(session="s", identity="me", rules=0, now=house.now, response_information="answers/me")
    house.handle(events)
    client.read_connack()
    assert client.connack is not None
    assert dict(client.connack["properties"]).get("response_information") == ("answers/me" if asked else None)


# --- enhanced authentication ------------------------------------------------------------------------------------------


def auth(reason: int, method: str = "M", data: bytes | None = None) -> Packet:
    return {
        "type": "AUTH",
        "reason": reason,
        "properties": properties(authentication_method=method)
        + (properties(authentication_data=data) if data is not None else []),
    }


def prover(house: House, method: str = "M", data: bytes = b"first") -> Client:
    """A client whose CONNECT with a method waits."""
    wish = properties(authentication_method=method, authentication_data=data)
    return house.join("c", props=wish, verdict=Verdict(wait=True))


def accept(house: House, client: Client, data: bytes = b"") -> None:
    house.handle(client.link.accept(session="s", identity="me", rules=0, now=house.now, authentication_data=data))


def asked(client: Client) -> list[int]:
    """The reasons of its AUTHs that reached the driver."""
    return [reason for kind, reason, _ in client.events if kind == _core.EVENT_AUTH]


def proven(house: House) -> Client:
    """A client that came in by way of its method."""
    client = prover(house)
    accept(house, client)
    client.read_connack()
    return client


def test_an_exchange_goes_to_and_fro_and_ends_with_connack() -> None:
    """MQTT-4.12.0-2, MQTT-4.12.0-3, MQTT-4.12.0-5."""
    house = House()
    client = prover(house)
    wish = client.link.connect
    assert wish is not None
    assert (wish.authentication_method, wish.authentication_data) == ("M", b"first")
    for challenge, answer in ((b"one", b"1"), (b"two", b"2")):
        house.handle(client.link.challenge(challenge, now=house.now))
        assert client.read() == [auth(CONTINUE, data=challenge)]
        client.send(auth(CONTINUE, data=answer))
        assert client.link.authentication == ("M", answer)
    assert asked(client) == [CONTINUE, CONTINUE]
    accept(house, client, b"done")
    client.read_connack()
    assert client.connack is not None
    assert client.connack["reason"] == 0
    assert properties(authentication_method="M", authentication_data=b"done") == client.connack["properties"][-2:]
    client.send(publish("t", qos=1))
    assert client.only()["type"] == "PUBACK"


def test_the_exchange_in_any_cut_of_the_stream() -> None:
    """The CONNECT stays whole while AUTHs come behind it byte by byte."""
    house = House()
    client = prover(house)
    house.handle(client.link.challenge(b"one", now=house.now))
    client.read()
    for byte in codec.encode(auth(CONTINUE, data=b"1"), 5):
        assert asked(client) == []
        client.feed(bytes([byte]))
    assert asked(client) == [CONTINUE]
    accept(house, client)
    client.read_connack()
    assert client.connack is not None


@pytest.mark.parametrize(
    "wrong",
    [
        auth(CONTINUE, "other"),
        auth(REAUTHENTICATE),
        auth(0),
        publish("t"),
        subscribe(topic_filter("t")),
        connect(),
        {"type": "PINGREQ"},
    ],
    ids=["method", "reauthenticate", "success", "publish", "subscribe", "connect", "ping"],
)
def test_anything_else_in_an_exchange_ends_it(wrong: Packet) -> None:
    """MQTT-3.1.2-30, MQTT-4.12.0-5."""
    house = House()
    client = prover(house)
    house.handle(client.link.challenge(b"one", now=house.now))
    client.read()
    client.send(wrong)
    assert client.closed == 0x82
    assert asked(client) == []
    assert client.offline is None


def test_a_client_may_give_up_in_an_exchange() -> None:
    """MQTT-3.1.2-30: DISCONNECT is the other thing that it may send."""
    house = House()
    client = prover(house)
    house.handle(client.link.challenge(b"one", now=house.now))
    client.send(disconnect())
    assert client.closed == 0


def test_an_exchange_has_the_time_that_a_connect_has() -> None:
    """A half-finished one is not kept for ever."""
    house = House(connect_timeout=10_000)
    client = prover(house)
    house.handle(client.link.challenge(b"one", now=house.now))
    house.wait(10)
    assert client.closed is None
    house.wait(0.5)
    assert client.closed is not None


def test_refused_in_the_middle_of_an_exchange() -> None:
    """MQTT-4.12.0-1: CONNACK with a reason, and the end."""
    house = House()
    client = prover(house)
    house.handle(client.link.challenge(b"one", now=house.now))
    client.read()
    client.send(auth(CONTINUE, data=b"wrong"))
    house.handle(client.link.refuse(0x87, now=house.now))
    (connack,) = client.read()
    assert (connack["type"], connack["reason"]) == ("CONNACK", 0x87)


def test_a_client_may_authenticate_anew_while_its_messages_flow() -> None:
    """5.0 §4.12.1: the same method, AUTH 0x00 at the end."""
    house = House()
    client = proven(house)
    client.subscribe("t")
    client.send(auth(REAUTHENTICATE, data=b"again"))
    assert client.link.authentication == ("M", b"again")
    house.publish("t", b"1")
    house.handle(client.link.challenge(b"prove", now=house.now))
    client.send(publish("u", qos=1))
    packets = client.read()
    assert [packet["type"] for packet in packets] == ["PUBLISH", "AUTH", "PUBACK"]
    client.send(auth(CONTINUE, data=b"proof"))
    house.handle(client.link.authenticated(b"bye", now=house.now))
    assert client.only() == auth(0, data=b"bye")
    assert client.closed is None
    assert asked(client) == [REAUTHENTICATE, CONTINUE]


@pytest.mark.parametrize("packets", [
    [auth(CONTINUE)],
    [auth(REAUTHENTICATE, "other")],
    [auth(REAUTHENTICATE), auth(REAUTHENTICATE)],
    [auth(REAUTHENTICATE), auth(CONTINUE)],
], ids=["unasked", "other method", "twice", "before the challenge"])  # fmt: skip
def test_an_auth_out_of_turn_ends_the_connection(packets: list[Packet]) -> None:
    """MQTT-4.12.1-1, 5.0 §4.13."""
    client = proven(House())
    client.send(*packets)
    assert client.read()[-1] == disconnect(0x82)


def test_a_client_that_gave_no_method_may_not_begin() -> None:
    """MQTT-4.12.0-7, MQTT-4.12.1-1."""
    client = House().join()
    client.send(auth(REAUTHENTICATE))
    assert client.read() == [disconnect(0x82)]


def test_a_failed_re_authentication_ends_the_connection() -> None:
    """MQTT-4.12.1-2."""
    house = House()
    client = proven(house)
    client.send(auth(REAUTHENTICATE))
    house.handle(client.link.close(0x87, house.now))
    assert client.read() == [disconnect(0x87)]


def test_answers_to_nothing_are_errors_of_the_driver() -> None:
    house = House()
    client = house.join()
    with pytest.raises(ValueError, match="nothing to authenticate"):
        client.link.challenge(b"", now=house.now)
    with pytest.raises(ValueError, match="nothing to authenticate"):
        client.link.authenticated(now=house.now)
    assert client.link.authentication is None


def test_members_that_come_and_go_lose_nothing() -> None:
    """5.0 §4.8.2: every message of QoS 1 is acknowledged by one of them, whoever leaves with it unacknowledged."""
    house = House(max_inflight=4)
    members, publisher = group(house, 4), house.join("p")
    heard: list[bytes] = []
    for i in range(200):
        publisher.send(publish("t", b"%d" % i, qos=1, number=i % 100 + 1))
        publisher.read()
        member = members[i % 4]
        for packet in member.read():
            heard.append(packet["payload"])
            member.send(ack("PUBACK", packet["id"]))
        if i % 7 == 0:  # this one ends for good, with what it has not acknowledged, and another comes
            member.send(disconnect(0, session_expiry_interval=0))
            members[i % 4] = house.keeper(f"n{i}")
            assert members[i % 4].subscribe("$share/g/t", qos=1) == [1]
    for _ in range(60):
        for member in members:
            for packet in member.read():
                heard.append(packet["payload"])
                member.send(ack("PUBACK", packet["id"]))
    assert sorted(int(payload) for payload in heard) == list(range(200))


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_what_is_counted() -> None:
    """Packets both ways, shared subscriptions, and what sessions hold until it is acknowledged."""
    house = House()
    client, publisher = house.keeper("k"), house.join("p")
    assert client.subscribe("t", "$share/g/u", qos=1) == [1, 1]
    assert (house.stat("subscriptions"), house.stat("shared_subscriptions")) == (2, 1)
    publisher.send(publish("t", b"12345", qos=1))
    assert (house.stat("stored"), house.stat("stored_bytes")) == (1, len("t") + 5)
    assert house.stat("packets_in") == 4  # two CONNECTs, SUBSCRIBE, PUBLISH
    assert house.stat("packets_out") == 5  # two CONNACKs, SUBACK, PUBLISH, PUBACK
    client.send(ack("PUBACK", 1), unsubscribe("$share/g/u"))
    assert (house.stat("stored"), house.stat("shared_subscriptions")) == (0, 0)
