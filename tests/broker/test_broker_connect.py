"""CONNECT and CONNACK: who comes in, what the answer says, and what happens before and beside it.

Statement numbers are those of MQTT 5.0; "3.1.1" before one says that it is that standard's.
"""

import pytest

from peanutd import _core
from tests.broker.house import (
    MAY,
    PINGREQ,
    PINGRESP,
    House,
    Verdict,
    connect,
    properties,
    publish,
    subscribe,
    topic_filter,
    will,
)
from tests.reference import codec

VERSIONS = [3, 4, 5]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_accepted_client_gets_connack_first_and_once(version: int) -> None:
    """MQTT-3.2.0-1, MQTT-3.2.0-2, MQTT-3.1.4-5."""
    client = House().open()
    client.version = version
    client.feed(codec.encode(connect("c", version), version) + codec.encode(PINGREQ, version) * 2)
    kinds = [packet["type"] for packet in codec.Decoder(version).feed(client.take())]
    assert kinds == ["CONNACK", "PINGRESP", "PINGRESP"]


def test_connack_says_how_much_the_broker_takes() -> None:
    """5.0 §3.2.2.3: what is not mentioned is available without bounds of its own."""
    house = House(receive_maximum=20, max_packet_size=5000)
    connack = house.join().connack
    assert connack is not None
    assert connack["reason"] == 0
    assert not connack["session_present"]
    assert dict(connack["properties"]) == {
        "receive_maximum": 20,
        "maximum_packet_size": 5000,
        "topic_alias_maximum": _core.LIMITS["topic_alias_maximum"],
    }


def test_connack_before_v5_is_two_bytes_of_success() -> None:
    """3.1.1 MQTT-3.2.2-1 and §3.2: no properties."""
    client = House().open()
    client.version = 4
    client.feed(codec.encode(connect("c", 4), 4))
    assert client.take() == bytes.fromhex("20 02 00 00")


def test_an_assigned_client_identifier_is_told() -> None:
    """MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16."""
    client = House().join("", verdict=Verdict(assigned="auto-1"))
    assert client.connack is not None
    assert ["assigned_client_identifier", "auto-1"] in client.connack["properties"]


@pytest.mark.parametrize("first", [PINGREQ, publish("a"), subscribe(topic_filter("a"))])
def test_the_first_packet_is_a_connect(first: codec.Packet) -> None:
    """MQTT-3.1.0-1: anything else closes the connection, without an answer."""
    client = House().open()
    client.send(first)
    assert client.closed is not None
    assert client.read() == []
    assert client.offline is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("again", VERSIONS)
def test_a_second_connect_is_a_protocol_error(version: int, again: int) -> None:
    """MQTT-3.1.0-2: even one of another version, whose reason code a DISCONNECT could not carry."""
    house = House()
    other = house.join("other", version)
    client = house.join("c", version)
    client.feed(codec.encode(connect("c", again), again))
    assert client.closed == 0x82
    assert [(p["type"], p["reason"]) for p in client.read()] == ([("DISCONNECT", 0x82)] if version == 5 else [])
    assert other.ask(PINGREQ, "PINGRESP") == PINGRESP


def test_a_second_connect_of_an_unknown_version_is_a_protocol_error() -> None:
    """MQTT-3.1.0-2, MQTT-3.1.2-2: 0x84 is a reason of CONNACK only (5.0 §3.14.2.1)."""
    client = House().join()
    client.feed(bytes.fromhex("10 0D 0004 4D515454 09 02 003C 0001 63"))
    assert client.only() == {"type": "DISCONNECT", "reason": 0x82, "properties": []}
    assert client.closed == 0x82


def test_an_unknown_version_is_answered_with_return_code_1() -> None:
    """3.1.1 MQTT-3.1.2-2: "unacceptable protocol level", in the form that every older client reads; then the end."""
    client = House().open()
    client.feed(bytes.fromhex("10 0D 0004 4D515454 09 02 003C 0001 63"))
    assert client.take() == bytes.fromhex("20 02 00 01")
    assert client.closed == 0x84


def test_a_malformed_connect_closes_without_an_answer() -> None:
    """MQTT-3.1.4-1, 5.0 §4.13: the server may leave the CONNACK out."""
    client = House().open()
    client.feed(bytes.fromhex("10 0D 0004 4D515454 04 03 003C 0001 63"))
    assert client.closed == 0x81
    assert client.take() == b""


@pytest.mark.parametrize(
    ("reason", "code"),
    [(0x84, 1), (0x85, 2), (0x88, 3), (0x89, 3), (0x97, 3), (0x80, 3), (0x9F, 3), (0x86, 4), (0x87, 5), (0x8A, 5)],
)
def test_a_refusal_says_why_in_the_words_of_each_version(reason: int, code: int) -> None:
    """MQTT-3.2.2-6, MQTT-3.2.2-7; 3.1.1 MQTT-3.2.2-4, MQTT-3.2.2-5 and table 3.1."""
    house = House()
    for version, said in ((5, reason), (4, code)):
        client = house.join("c", version, verdict=Verdict(refuse=reason))
        assert client.connack == {"type": "CONNACK", "session_present": False, "reason": said, "properties": []}
        assert client.closed == reason
        assert client.offline is None
    assert house.stat("sessions") == 0


def test_a_refusal_explains_itself_unless_that_is_more_than_the_client_takes() -> None:
    """MQTT-3.2.2-19: no Reason String that would exceed the client's Maximum Packet Size."""
    for limit, told in ((200, True), (20, False)):
        house = House()
        client = house.open(Verdict(wait=True))
        client.send(connect(props=properties(maximum_packet_size=limit)))
        house.handle(client.link.refuse(0x87, "the certificate has expired", now=house.now))
        client.read_connack()
        assert client.connack is not None
        wanted = [["reason_string", "the certificate has expired"]] if told else []
        assert client.connack["properties"] == wanted


def test_what_follows_a_refused_connect_is_not_processed() -> None:
    """MQTT-3.1.4-6."""
    house = House()
    listener = house.join("listener")
    listener.subscribe("#")
    client = house.open(Verdict(refuse=0x87))
    client.send(connect("c"), publish("a", retain=True))
    client.send(publish("b"))
    assert listener.messages() == []
    assert house.broker.retained("a") is None


def test_packets_behind_a_connect_wait_for_the_verdict() -> None:
    """5.0 §3.1.4: a client may go on before the CONNACK; nothing is done before the verdict, everything after it."""
    house = House()
    client = house.open(Verdict(wait=True))
    client.send(connect("c"), subscribe(topic_filter("a")), publish("a", b"1"))
    half = codec.encode(publish("a", b"2"), 5)
    client.feed(half[:4])
    assert client.link.pending == 0
    client.verdict = Verdict()
    house.judge(client)
    client.feed(half[4:])
    assert [p.get("payload", p["type"]) for p in client.read()] == ["CONNACK", "SUBACK", b"1", b"2"]


def test_a_client_that_gives_up_while_it_waits_leaves_nothing() -> None:
    house = House()
    client = house.open(Verdict(wait=True))
    client.send(connect("c"))
    client.lose()
    assert client.events[1:] == []
    assert house.stat("links") == house.stat("sessions") == 0


def test_a_verdict_without_a_connect_is_an_error_of_the_driver() -> None:
    house = House()
    client = house.join()
    with pytest.raises(ValueError, match="no CONNECT waits"):
        client.link.accept(session="me/c", identity="me", rules=0, now=house.now)
    with pytest.raises(ValueError, match="no CONNECT waits"):
        client.link.refuse(0x87, now=house.now)


def test_server_keep_alive_is_told_only_when_it_differs() -> None:
    """MQTT-3.1.2-21, MQTT-3.2.2-21: a wish beyond the limit, or none at all, is replaced."""
    house = House(keepalive_max=100)
    for wish, told in ((100, None), (101, 100), (0, 100)):
        connack = house.join(keep_alive=wish).connack
        assert connack is not None
        assert dict(connack["properties"]).get("server_keep_alive") == told


def test_session_expiry_is_told_only_when_it_differs() -> None:
    """5.0 §3.2.2.3.2: when absent, the interval is the one that the client asked for."""
    house = House(session_expiry_max=100)
    for wish, told in ((100, None), (101, 100), (0xFFFFFFFF, 100), (0, None)):
        connack = house.join(props=properties(session_expiry_interval=wish)).connack
        assert connack is not None
        assert dict(connack["properties"]).get("session_expiry_interval") == told


@pytest.mark.parametrize(("version", "code"), [(3, 5), (4, 5), (5, 0x87)])
def test_a_will_that_no_rule_allows_keeps_its_client_out(version: int, code: int) -> None:
    """5.0 §3.1.2.5 with MQTT-3.1.4-2: what may not be published may not be left behind either; nothing is kept."""
    house = House()
    house.broker.set_rules(1, [(True, MAY, 0, "/plant/{id}/#")])
    client = house.join("c", version, verdict=Verdict(slot=1), will=will("/plant/other/status"))
    assert client.connack is not None
    assert client.connack["reason"] == code
    assert client.denied == ["will /plant/other/status"]
    assert client.closed == 0x87
    assert client.offline is None, "it was never online"
    assert house.stat("sessions") == 0
    assert house.join("c", version, verdict=Verdict(slot=1), will=will("/plant/me/status")).closed is None
