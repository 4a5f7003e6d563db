"""Wills: when they are published, when they wait, and when they are forgotten."""

import pytest

from tests.broker.disk import DiskHouse
from tests.broker.house import MAY, Client, House, Verdict, disconnect, properties, will

VERSIONS = [3, 4, 5]


def watched(**limits: int) -> tuple[House, Client]:
    """A house, and a client that hears every will."""
    house = House(**limits)
    watcher = house.join("watcher")
    watcher.subscribe("#", qos=2, retain_as_published=True)
    return house, watcher


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("end", ["lost", "error", "silence", "closed"])
def test_a_will_is_published_when_its_client_goes_without_a_word(version: int, end: str) -> None:
    """MQTT-3.1.2-7, MQTT-3.1.2-8; 3.1.1 MQTT-3.1.2-8: network failure, protocol error, keep alive, our own decision."""
    house, watcher = watched()
    client = house.join("w", version, keep_alive=10, will=will(payload=b"gone", qos=1))
    if end == "lost":
        client.lose()
    elif end == "error":
        client.feed(b"\0")
    elif end == "silence":
        house.wait(16)
    else:
        house.handle(client.link.close(0x8B, house.now))
    assert watcher.messages() == [("will", b"gone", 1)]
    client.lose()
    house.wait(1000)
    assert watcher.messages() == [], "MQTT-3.1.2-10: once"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_goodbye_deletes_the_will(version: int) -> None:
    """MQTT-3.14.4-3, MQTT-3.1.2-10; 3.1.1 MQTT-3.14.4-3."""
    house, watcher = watched()
    client = house.join("w", version, will=will())
    client.send(disconnect())
    client.lose()
    house.wait(1000)
    assert watcher.messages() == []


@pytest.mark.parametrize("reason", [0x04, 0x80, 0x81, 0x83])
def test_a_goodbye_with_any_other_reason_publishes_it(reason: int) -> None:
    """5.0 §3.14.4, §3.14.2.1: 0x04 asks for it; only 0x00 deletes it."""
    house, watcher = watched()
    client = house.join("w", will=will())
    client.send(disconnect(reason))
    assert client.closed == reason
    assert len(watcher.messages()) == 1


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_a_will_is_published_as_it_was_left(qos: int, retain: bool) -> None:
    """MQTT-3.1.2-14, MQTT-3.1.2-15, 5.0 §3.1.3.2: QoS, RETAIN, and the properties that are the message's."""
    house, watcher = watched()
    said = properties(content_type="text/plain", user_property=["k", "v"], correlation_data=b"\0")
    left = will(payload=b"bye", qos=qos, retain=retain)
    left["properties"] = [*said[:1], ["will_delay_interval", 0], *said[1:]]
    house.join("w", will=left).lose()
    packet = watcher.only()
    assert (packet["payload"], packet["qos"], packet["retain"]) == (b"bye", qos, retain)
    assert packet["properties"] == said
    assert house.broker.retained("will") == (b"bye" if retain else None)


def test_an_empty_will_clears_what_was_retained() -> None:
    """MQTT-3.1.2-15 with MQTT-3.3.1-6."""
    house, _ = watched()
    house.publish("will", b"x", retain=True)
    house.join("w", will=will(payload=b"", retain=True)).lose()
    assert house.broker.retained("will") is None


def test_a_will_waits_for_its_delay() -> None:
    """MQTT-3.1.2-8, 5.0 §3.1.3.2.2: not before, not after, once."""
    house, watcher = watched()
    house.keeper("w", will=will(will_delay_interval=10)).lose()
    house.wait(9.999)
    assert watcher.messages() == []
    house.wait(0.001)
    assert len(watcher.messages()) == 1
    house.wait(10_000)
    assert watcher.messages() == []


def test_a_will_does_not_wait_beyond_the_end_of_its_session() -> None:
    """MQTT-3.1.2-8, 5.0 §3.1.3.2.2: the delay or the session's end, whichever is first."""
    house, watcher = watched()
    house.join("w", props=properties(session_expiry_interval=5), will=will(will_delay_interval=10)).lose()
    house.wait(4.999)
    assert watcher.messages() == []
    house.wait(0.001)
    assert len(watcher.messages()) == 1
    house.join("v", will=will(will_delay_interval=10)).lose()
    assert len(watcher.messages()) == 1, "a session without expiry ends at once"


def test_a_client_that_is_back_in_time_has_no_will_published() -> None:
    """MQTT-3.1.3-9."""
    house, watcher = watched()
    for seconds, published in ((9.999, 0), (10, 1)):
        house.keeper("w", will=will(will_delay_interval=10)).lose()
        house.now += round(seconds * 1000)  # no tick: the time decides, not who is called first
        house.keeper("w").send(disconnect())
        house.wait(100)
        assert len(watcher.messages()) == published


def test_a_clean_start_within_the_delay_publishes_the_will() -> None:
    """MQTT-3.1.2-8, MQTT-3.1.2-4: the session ends, and its will is due then."""
    house, watcher = watched()
    house.keeper("w", will=will(will_delay_interval=10)).lose()
    house.join("w")
    assert len(watcher.messages()) == 1


@pytest.mark.parametrize(
    ("version", "delay", "clean", "published"),
    [
        (3, 0, False, 1),
        (4, 0, False, 1),
        (4, 0, True, 1),
        (5, 0, False, 1),
        (5, 0, True, 1),
        (5, 10, False, 0),
        (5, 10, True, 1),
    ],
)
def test_a_takeover_publishes_the_will_of_the_old_connection(
    version: int, delay: int, clean: bool, published: int
) -> None:
    """MQTT-3.1.4-3 with MQTT-3.1.2-8 and MQTT-3.1.3-9: unless its delay lets the session live on into the new one."""
    house, watcher = watched()
    left = will(**({"will_delay_interval": delay} if delay else {}))
    house.keeper("w", version, will=left)
    new = house.keeper("w", version, clean=clean, will=will(payload=b"the new one's"))
    assert [payload for _, payload, _ in watcher.messages()] == [b"gone"] * published
    house.wait(100)
    assert watcher.messages() == []
    new.lose()
    assert [payload for _, payload, _ in watcher.messages()] == [b"the new one's"]


def test_a_will_belongs_to_the_connection_that_left_it() -> None:
    """MQTT-3.1.2-7: a later connection without one has none."""
    house, watcher = watched()
    house.keeper("w", will=will(will_delay_interval=10)).lose()
    house.keeper("w").lose()
    house.wait(100)
    assert watcher.messages() == []


def test_a_will_expires_from_its_publication_on() -> None:
    """5.0 §3.1.3.2.4: the interval counts from the publication; waiting for the delay is not in it."""
    house, watcher = watched()
    sleeper = house.keeper("sleeper")
    sleeper.subscribe("#", qos=1)
    sleeper.lose()
    house.keeper("w", will=will(qos=1, retain=True, will_delay_interval=60, message_expiry_interval=20)).lose()
    house.wait(60)
    assert watcher.only()["properties"] == properties(message_expiry_interval=20)
    house.wait(15)
    sleeper = house.keeper("sleeper")
    packet = sleeper.only()
    assert packet["properties"] == properties(message_expiry_interval=5)
    assert house.broker.retained("will") == b"gone"
    house.wait(5)
    assert house.broker.retained("will") is None


def test_no_local_holds_for_wills() -> None:
    """MQTT-3.8.3-3: the will is its client's own publication."""
    house = House()
    for no_local in (True, False):
        client = house.keeper("w", clean=True, will=will(qos=1))
        client.subscribe("will", qos=1, no_local=no_local)
        client.lose()
        assert len(house.keeper("w").messages()) == (not no_local)


def test_a_will_goes_to_sessions_that_are_away() -> None:
    """MQTT-4.5.0-1."""
    house = House()
    house.keeper("away").subscribe("will", qos=1)
    house.keeper("away").send(disconnect())
    house.join("w", will=will(qos=1)).lose()
    packet = house.keeper("away").only()
    assert packet["payload"] == b"gone"


def test_a_will_that_rules_no_longer_allow_is_dropped() -> None:
    """README: what no rule allows is refused, also when the rules change between CONNECT and the end."""
    house, watcher = watched()
    rules = [(True, MAY, 0, "/plant/{id}/#")]
    house.broker.set_rules(1, rules)
    client = house.join("w", verdict=Verdict(slot=1), will=will("/plant/me/status"))
    kept = house.join("v", verdict=Verdict(slot=1, identity="you"), will=will("/plant/you/status"))
    house.broker.set_rules(1, [(False, MAY, 0, "/plant/me/#"), *rules])
    client.lose()
    assert watcher.messages() == []
    kept.lose()
    assert len(watcher.messages()) == 1


def test_wills_come_in_the_order_in_which_their_clients_went() -> None:
    """MQTT-4.6.0-5: also when several are due at one tick, and to a client that is about to go itself."""
    house, watcher = watched()
    first = house.join("first", keep_alive=10, will=will("first", qos=1))
    second = house.join("second", keep_alive=10, will=will("second", qos=1))
    second.subscribe("first", qos=1)
    house.wait(15.001)
    assert (first.closed, second.closed) == (0x8D, 0x8D)
    assert [topic for topic, _, _ in watcher.messages()] == ["first", "second"]
    assert [packet["type"] for packet in second.read()] == ["PUBLISH", "DISCONNECT"]


# --- wills of those who are known no longer ---------------------------------------------------------------------------


def delayed(house: House, delay: int = 100, **more: object) -> Client:
    """A client that is proved for 50 s more; it has gone without a word."""
    client = house.keeper("w", will=will(will_delay_interval=delay), **more)
    client.link.proved_until(house.now + 50_000, house.now)
    return client


@pytest.mark.parametrize(("delay", "heard"), [(0, 1), (49, 1), (50, 1), (51, 0), (3600, 0)])
def test_a_will_is_not_delayed_beyond_the_proof_of_who_left_it(delay: int, heard: int) -> None:
    """A certificate or token that is over leaves nothing to be done later."""
    house, watcher = watched()
    delayed(house, delay).lose()
    house.wait(5000)
    assert len(watcher.messages()) == heard
    assert house.stat("dropped_denied") == 1 - heard


def test_the_will_of_a_connection_that_ends_with_the_proof_is_published() -> None:
    """MQTT-3.1.2-8: it was allowed when it was left, and those who wait for it are to hear."""
    house, watcher = watched()
    client = delayed(house, 0)
    house.wait(60)
    house.handle(client.link.close(0xA0, house.now))
    assert len(watcher.messages()) == 1


def test_whoever_proves_it_anew_has_a_will_again() -> None:
    house, watcher = watched()
    delayed(house).lose()
    house.wait(10)
    client = house.keeper("w", will=will(will_delay_interval=100))
    client.lose()
    house.wait(101)
    assert len(watcher.messages()) == 1, "no end was said of the new proof"
    client = delayed(house)
    client.link.proved_until(house.now + 200_000, house.now)  # AUTH
    client.lose()
    house.wait(101)
    assert len(watcher.messages()) == 1


def test_the_wills_of_somebody_who_is_removed() -> None:
    """Of that identity under those rules, and nobody else's."""
    house, watcher = watched()
    verdicts = {"w": Verdict(0, "me"), "x": Verdict(0, "you"), "y": Verdict(2, "me")}
    house.broker.set_rules(2, [(True, MAY, 0, "#")])
    for name, verdict in verdicts.items():
        house.keeper(name, verdict=verdict, will=will(name, will_delay_interval=100)).lose()
    house.wait(10)
    house.broker.revoke(0, "me", house.now)
    house.wait(100)
    assert sorted(topic for topic, _, _ in watcher.messages()) == ["x", "y"]


@pytest.mark.parametrize(("ends", "heard"), [(200, 1), (50, 0), (0, 0)])
def test_the_end_of_a_proof_survives_a_crash(ends: int, heard: int) -> None:
    """As the will does that it is about; 0: the user was removed while the client was away."""
    house = DiskHouse(prompt=True)
    client = house.keeper("w", will=will(will_delay_interval=100))
    client.link.proved_until(house.now + (ends or 200) * 1000, house.now)
    client.lose()
    if not ends:
        house.broker.revoke(0, "me", house.now)
    house.commit()
    house.crash(10)
    watcher = house.join("watcher")
    watcher.subscribe("#")
    house.wait(85)
    assert watcher.messages() == []
    house.wait(10)
    assert len(watcher.messages()) == heard
