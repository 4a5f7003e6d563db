"""Chapters 3.15 and 4.12: AUTH, where test_broker_v5.py leaves something. What a method is worth is the gateway's
affair (test_scram.py, test_users.py); here, that the exchange keeps to its form.
"""

from __future__ import annotations

import pytest

from tests.broker.conformance.tour import Said, heard, tour
from tests.broker.house import Client, House, Packet, Verdict, properties, publish
from tests.reference import codec

CONTINUE, AGAIN = 0x18, 0x19
METHODS = ["M", "SCRAM-SHA-256", "\u00e9 \U0001f512", "x" * 1000]


def auth(reason: int, method: str, data: bytes = b"proof") -> Packet:
    return {
        "type": "AUTH",
        "reason": reason,
        "properties": properties(authentication_method=method, authentication_data=data),
    }


def begin(house: House, method: str, **more: int) -> Client:
    """A client whose CONNECT names a method, and waits for a word."""
    client = house.open(Verdict(wait=True))
    client.connect("c", props=properties(authentication_method=method, authentication_data=b"first", **more))
    assert client.link.pending == 0
    return client


def accept(house: House, client: Client) -> None:
    house.handle(client.link.accept(session="s", identity="me", rules=0, now=house.now, authentication_data=b"last"))


def exchange(method: str, **more: int) -> list[Said]:
    """Two steps until it is in, one to stay: all that the broker says."""
    house = House()
    client = begin(house, method, **more)
    said = []
    for step in (b"1", b"2"):
        house.handle(client.link.challenge(step, now=house.now))
        said += heard(client, "challenge")
        client.send(auth(CONTINUE, method))
    accept(house, client)
    said += heard(client, "accept")
    client.send(auth(AGAIN, method))
    house.handle(client.link.challenge(b"3", now=house.now))
    client.send(auth(CONTINUE, method))
    house.handle(client.link.authenticated(b"4", now=house.now))
    said += heard(client, "again")
    client.send(publish("a", qos=1))
    assert [one.packet["type"] for one in heard(client)] == ["PUBACK"]
    return said


def test_the_codes_of_an_exchange() -> None:
    """MQTT-3.15.1-1, MQTT-3.15.2-1, MQTT-4.12.0-2: 0x18 in every challenge, 0x00 when it is done, flags 0."""
    said = exchange("M")
    assert [(one.packet["type"], one.packet["reason"]) for one in said] == [
        ("AUTH", 0x18),
        ("AUTH", 0x18),
        ("CONNACK", 0x00),
        ("AUTH", 0x18),
        ("AUTH", 0x00),
    ]
    assert {one.raw[0] for one in said if one.packet["type"] == "AUTH"} == {0xF0}


@pytest.mark.parametrize("method", METHODS)
def test_every_packet_of_an_exchange_names_its_method(method: str) -> None:
    """MQTT-4.12.0-5, MQTT-4.12.1-1: as the CONNECT did, whatever it is called."""
    for one in exchange(method):
        assert dict(one.packet["properties"])["authentication_method"] == method, one


def test_an_auth_has_no_more_than_it_needs() -> None:
    """MQTT-3.15.2-2, MQTT-3.15.2-3: neither Reason String nor User Property, so neither makes it too large."""
    for wish in (0, 1):
        for one in exchange("M", request_problem_information=wish):
            if one.packet["type"] == "AUTH":
                assert {name for name, _ in one.packet["properties"]} == {
                    "authentication_method",
                    "authentication_data",
                }


def test_an_auth_that_does_not_fit_is_not_sent() -> None:
    """MQTT-3.1.2-24: the client's Maximum Packet Size is that of AUTH too; without its challenge the exchange is over,
    and the client is not left waiting."""
    house = House()
    client = begin(house, "M", maximum_packet_size=100)
    house.handle(client.link.challenge(b"x" * 100, now=house.now))
    assert all(len(one.raw) <= 100 for one in heard(client))
    house.wait(11)
    assert client.closed is not None


@pytest.mark.parametrize("reason", [0x00, AGAIN])
def test_an_answer_of_another_kind_is_refused(reason: int) -> None:
    """MQTT-4.12.0-3: 0x18 answers a challenge, and nothing else; told with a CONNACK at the most (MQTT-3.14.0-1)."""
    house = House()
    client = begin(house, "M")
    house.handle(client.link.challenge(b"1", now=house.now))
    heard(client)
    client.feed(codec.encode(auth(reason, "M"), 5))
    assert client.closed == 0x82
    assert [(one.packet["type"], one.packet["reason"]) for one in heard(client)] in ([], [("CONNACK", 0x82)])


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_exchange_may_be_refused_at_any_point(steps: int) -> None:
    """MQTT-4.12.0-4: a CONNACK of 0x80 or more, and the end; it does not name the method as a successful one must."""
    house = House()
    client = begin(house, "M")
    for _ in range(steps):
        house.handle(client.link.challenge(b"?", now=house.now))
        client.send(auth(CONTINUE, "M"))
    heard(client)
    house.handle(client.link.refuse(0x87, now=house.now))
    assert [(one.packet["type"], one.packet["reason"]) for one in heard(client)] == [("CONNACK", 0x87)]
    assert client.closed == 0x87
    assert client.offline is None
    assert house.stat("sessions") == 0


def test_an_exchange_that_the_gateway_breaks_off_has_no_disconnect() -> None:
    """MQTT-3.14.0-1: nor when the gateway stops while it waits for the client's answer."""
    house = House()
    client = begin(house, "M")
    house.handle(client.link.challenge(b"?", now=house.now))
    heard(client)
    house.handle(client.link.close(0x8B, house.now))
    assert "DISCONNECT" not in [one.packet["type"] for one in heard(client)]
    assert client.closed is not None


def test_without_a_method_there_is_no_word_of_it() -> None:
    """MQTT-4.12.0-6: no AUTH, and neither method nor data in a CONNACK."""
    for version in (4, 5):
        for one in tour(version):
            assert one.packet["type"] != "AUTH"
            assert not {"authentication_method", "authentication_data"} & dict(one.packet.get("properties", [])).keys()


def test_data_without_a_method_is_an_error() -> None:
    """5.0 §3.1.2.11.10: Protocol Error; nobody is asked to judge it."""
    client = House().open(Verdict(wait=True))
    client.connect("c", props=properties(authentication_data=b"x"))
    assert client.closed == 0x82
    assert client.events[:-1] == []


def test_messages_flow_while_a_client_authenticates_anew() -> None:
    """5.0 §4.12.1: both ways, until the exchange fails, and then no more."""
    house = House()
    client = begin(house, "M")
    accept(house, client)
    client.send({"type": "SUBSCRIBE", "id": 1, "properties": [], "filters": [
        {"filter": "a", "qos": 0, "no_local": False, "retain_as_published": False, "retain_handling": 0}]})  # fmt: skip
    client.send(auth(AGAIN, "M"), publish("b", qos=1))
    house.publish("a")
    house.handle(client.link.challenge(b"?", now=house.now))
    assert [one.packet["type"] for one in heard(client)] == ["CONNACK", "SUBACK", "PUBACK", "PUBLISH", "AUTH"]
    client.send(auth(CONTINUE, "M", b"wrong"))
    house.handle(client.link.close(0x87, house.now))
    house.publish("a")
    assert [(one.packet["type"], one.packet["reason"]) for one in heard(client)] == [("DISCONNECT", 0x87)]
    assert client.closed == client.offline == 0x87
