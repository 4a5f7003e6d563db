"""Sessions: what outlives a connection, for how long, and who gets it back."""

import pytest

from tests.broker.house import House, Verdict, ack, connect, disconnect, properties, publish, unsubscribe, will

TAKEN_OVER = 0x8E


def present(client: object) -> bool:
    connack = getattr(client, "connack")  # noqa: B009
    assert connack is not None
    assert connack["reason"] == 0
    return bool(connack["session_present"])


@pytest.mark.parametrize("version", [4, 5])
def test_a_kept_session_is_present_and_has_its_subscriptions(version: int) -> None:
    """MQTT-3.1.2-5, MQTT-3.1.2-6, MQTT-3.2.2-3, MQTT-3.1.2-23; 3.1.1 MQTT-3.1.2-4, MQTT-3.2.2-2, MQTT-3.2.2-3."""
    house = House()
    first = house.keeper("k", version)
    assert not present(first)
    first.subscribe("a", qos=1)
    first.lose()
    second = house.keeper("k", version)
    assert present(second)
    house.publish("a", b"still here")
    assert second.payloads() == [b"still here"]


def test_version_3_has_no_session_present() -> None:
    """3.1 §3.2: the byte is reserved."""
    house = House()
    house.keeper("k", 3).lose()
    client = house.keeper("k", 3)
    assert not present(client)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_clean_start_discards_the_session(version: int) -> None:
    """MQTT-3.1.2-4, MQTT-3.2.2-2; 3.1.1 MQTT-3.1.2-6, MQTT-3.2.2-1."""
    house = House()
    first = house.keeper("k", version)
    first.subscribe("a", qos=1)
    first.lose()
    house.publish("a", qos=1)
    second = house.keeper("k", version, clean=True)
    assert not present(second)
    house.publish("a", qos=1)
    assert second.read() == []
    assert house.stat("subscriptions") == 0


@pytest.mark.parametrize("version", [3, 4])
def test_a_clean_session_ends_with_its_connection(version: int) -> None:
    """3.1.1 MQTT-3.1.2-6: its state must not be reused in a later session."""
    house = House()
    client = house.join("c", version)
    client.subscribe("a", qos=1)
    client.lose()
    assert house.stat("sessions") == house.stat("subscriptions") == 0
    assert not present(house.join("c", version, clean=False))


def test_without_an_expiry_interval_the_session_ends_with_its_connection() -> None:
    """5.0 §3.1.2.11.2: absent means 0."""
    house = House()
    client = house.join("c", clean=False)
    client.subscribe("a")
    client.lose()
    assert house.stat("sessions") == 0


@pytest.mark.parametrize("tick", [True, False])
def test_a_session_expires_after_its_interval(tick: bool) -> None:
    """MQTT-4.1.0-2, MQTT-3.1.2-23: kept for the interval, discarded after it, whether or not a tick came in between."""
    for seconds, kept in ((9.999, True), (10, False)):
        house = House()
        house.join("c", props=properties(session_expiry_interval=10)).lose()
        if tick:
            house.wait(seconds)
            assert house.stat("sessions") == kept
        else:
            house.now += round(seconds * 1000)
        assert present(house.join("c", clean=False)) is kept


@pytest.mark.parametrize(("first", "last", "kept"), [(10, 100, True), (100, 10, False)])
def test_the_interval_of_the_last_connect_counts(first: int, last: int, kept: bool) -> None:
    """MQTT-3.1.2-23: of the connection that the session has outlived, longer or shorter than the one before."""
    house = House()
    house.join("c", props=properties(session_expiry_interval=first)).lose()
    again = house.join("c", clean=False, props=properties(session_expiry_interval=last))
    assert present(again)
    again.lose()
    house.wait(50)
    assert present(house.join("c", clean=False)) is kept


def test_a_session_does_not_expire_while_it_is_connected() -> None:
    """MQTT-4.1.0-1."""
    house = House()
    client = house.join("c", props=properties(session_expiry_interval=10))
    client.subscribe("a")
    house.wait(1000)
    house.publish("a")
    assert len(client.messages()) == 1
    client.lose()
    house.wait(9)
    back = house.join("c", clean=False, props=properties(session_expiry_interval=10))
    assert present(back)
    house.wait(20)
    assert back.closed is None
    assert house.stat("sessions") == 1


def test_a_disconnect_may_change_the_expiry_interval() -> None:
    """5.0 §3.14.2.2.2."""
    house = House()
    client = house.join("c", props=properties(session_expiry_interval=10))
    client.send(disconnect(session_expiry_interval=100))
    assert client.closed == 0
    house.wait(99)
    assert house.stat("sessions") == 1
    house.wait(1)
    assert house.stat("sessions") == 0


def test_a_session_that_was_to_end_cannot_be_kept_by_disconnect() -> None:
    """5.0 §3.14.2.2.2: non-zero after zero in CONNECT is a Protocol Error, and the session ends."""
    house = House()
    client = house.join("c")
    client.send(disconnect(session_expiry_interval=100))
    assert client.closed == 0x82
    assert client.only() == {"type": "DISCONNECT", "reason": 0x82, "properties": []}
    assert house.stat("sessions") == 0


def test_a_client_whose_wish_was_cut_to_nothing_may_still_name_it() -> None:
    """5.0 §3.14.2.2.2 forbids it to those who asked for 0, not to those who were given 0."""
    house = House(session_expiry_max=0)
    client = house.join("c", props=properties(session_expiry_interval=10))
    client.send(disconnect(session_expiry_interval=100))
    assert client.closed == 0
    assert house.stat("sessions") == 0


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_client_identifier_is_taken_over(version: int) -> None:
    """MQTT-3.1.4-3; 3.1.1 MQTT-3.1.4-2: the older connection is told (5.0) and closed, the session goes on."""
    house = House()
    old = house.keeper("k", version)
    old.subscribe("a", qos=1)
    new = house.keeper("k", version)
    assert old.closed == old.offline == TAKEN_OVER
    assert [(p["type"], p["reason"]) for p in old.read()] == ([("DISCONNECT", TAKEN_OVER)] if version == 5 else [])
    assert present(new) is (version > 3)
    house.publish("a", b"1")
    assert new.payloads() == [b"1"]
    old.lose()
    house.publish("a", b"2")
    assert new.payloads() == [b"2"], "the end of the old connection does the new one no harm"
    assert new.offline is None


def test_a_takeover_by_a_clean_start_leaves_nothing_of_the_session() -> None:
    """MQTT-3.1.4-3, MQTT-3.1.4-4, MQTT-3.1.2-4."""
    house = House()
    old = house.keeper("k")
    old.subscribe("a", qos=1)
    new = house.join("k")
    assert old.closed == TAKEN_OVER
    assert not present(new)
    assert house.stat("sessions") == 1
    assert house.stat("subscriptions") == 0


def test_a_takeover_of_a_session_without_expiry_starts_a_new_one() -> None:
    """5.0 §3.1.2.11.2: it ended when the older connection was closed."""
    house = House()
    old = house.join("k", clean=False)
    old.subscribe("a")
    assert not present(house.join("k", clean=False))
    assert house.stat("subscriptions") == 0


def test_what_the_old_connection_had_not_acknowledged_goes_to_the_new_one() -> None:
    """MQTT-4.4.0-1 across a takeover."""
    house = House()
    old = house.keeper("k")
    old.subscribe("a", qos=1)
    house.publish("a", b"1", qos=1)
    number = old.only()["id"]
    new = house.keeper("k")
    again = new.only()
    assert (again["id"], again["dup"], again["payload"]) == (number, True, b"1")
    old.send(ack("PUBACK", number))
    assert new.read() == []
    new.send(ack("PUBACK", number))
    new.lose()
    assert house.keeper("k").read() == []


def test_sessions_are_told_apart_by_their_key_not_by_their_client_identifier() -> None:
    """README, identity: nobody can take over the session of another identity."""
    house = House()
    mine = house.join("same", verdict=Verdict(identity="me"))
    theirs = house.join("same", verdict=Verdict(identity="you"))
    assert mine.closed is None
    assert theirs.closed is None
    assert house.stat("sessions") == 2


def test_many_takeovers_in_a_row() -> None:
    """MQTT-3.1.4-3: each client is told once, the last one stays."""
    house = House()
    clients = [house.keeper("k") for _ in range(50)]
    assert [client.closed for client in clients] == [TAKEN_OVER] * 49 + [None]
    assert house.stat("sessions") == 1
    for client in reversed(clients):
        client.lose()
    assert house.stat("links") == 0
    assert house.stat("sessions") == 1


def test_a_new_connection_may_ask_for_another_protocol_version() -> None:
    """Nothing in the standards ties a session to a version; what waits is sent in the new one's form."""
    house = House()
    old = house.keeper("k", 5)
    old.subscribe("a", qos=1)
    old.lose()
    house.publish("a", b"1", qos=1)
    new = house.keeper("k", 4)
    assert new.payloads() == [b"1"]


def test_the_end_is_reported_once_for_each_client_that_was_let_in() -> None:
    """broker.h: PN_EVENT_DISCONNECT once for each accept, PN_EVENT_CLOSED when the core ends it."""
    house = House()
    lost, polite, refused = house.join("a"), house.join("b"), house.join("c", verdict=Verdict(refuse=0x87))
    lost.lose()
    polite.send(disconnect())
    polite.lose()
    refused.lose()
    assert (lost.offline, lost.closed) == (0x80, None)
    assert (polite.offline, polite.closed) == (0, 0)
    assert (refused.offline, refused.closed) == (None, 0x87)


def test_nothing_is_read_behind_a_disconnect() -> None:
    """MQTT-3.14.4-1, MQTT-3.14.4-2: the client must not send more; the server does not listen."""
    house = House()
    listener = house.join("listener")
    listener.subscribe("#")
    client = house.join("c")
    client.send(publish("a", b"1"), disconnect(), publish("a", b"2"))
    client.send(publish("a", b"3"))
    client.send(unsubscribe("a"), connect("c", will=will()))
    assert listener.payloads() == [b"1"]
    assert client.read() == []


def test_the_driver_may_close_a_connection() -> None:
    """5.0 §3.14.2.1: 0x8B, the server stops. The session is kept."""
    house = House()
    new, old = house.keeper("new"), house.keeper("old", 4)
    for client in (new, old):
        house.handle(client.link.close(0x8B, house.now))
        assert client.closed == client.offline == 0x8B
    assert new.only() == {"type": "DISCONNECT", "reason": 0x8B, "properties": []}
    assert old.read() == []
    assert house.stat("sessions") == 2


def test_what_the_gateway_says_waits_no_longer_than_it_is_to() -> None:
    """A command is not obeyed by a node that comes back too late (5.0 §3.3.2.3.3)."""
    house = House()
    client = house.keeper()
    client.subscribe("a", qos=1)
    client.lose()
    for lifetime in (10_000, 60_000, -1):
        house.handle(house.broker.publish("a", b"%d" % lifetime, qos=1, lifetime=lifetime, now=house.now))
    house.wait(11)
    again = house.keeper()
    assert again.payloads() == [b"60000", b"-1"]
