"""Rules in the broker: what they forbid is answered as each version can, and reported; a reload judges anew.

How rules are matched is proved in core/test_topic.c; here, that the broker asks them, and about everything.
"""

from typing import Any

import pytest

from peanutd import _core
from tests.broker.house import MAY, Client, House, Verdict, ack, publish, unsubscribe

NODE = [
    (True, 2, 0, "/plant/{id}/UpdateTemperature"),
    (True, 2, 0, "/plant/{id}/cmd/#"),
    (False, 1, 1, "/plant/{id}/telemetry"),
    (False, 1, 0, "/plant/{id}/cmd/#"),
    (False, 1, 0, "/plant/{id}/UpdateTemperature"),
    (True, 1, 0, "/plant/{id}/#"),
]
"""What a greenhouse may do, in the words of the core: 1 publish, 2 subscribe; the second 1: only retained ones."""


def node(house: House, version: int = 5, name: str = "peanut", **more: object) -> Client:
    return house.join(name, version, verdict=Verdict(slot=1, identity=name), **more)


def fleet() -> tuple[House, Client]:
    house = House()
    house.broker.set_rules(1, NODE)
    watcher = house.join("watcher")
    watcher.subscribe("#", qos=2)
    return house, watcher


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_denied_publication_goes_nowhere(version: int) -> None:
    """5.0 §3.4.2.1, §3.5.2.1: 0x87; 3.1.1 MQTT-3.3.5-2: acknowledged, as there is no word for it. Each is reported."""
    house, watcher = fleet()
    client = node(house, version)
    code = 0x87 if version == 5 else 0
    topic = "/plant/tomato/state"
    client.send(publish(topic, qos=0), publish(topic, qos=1), publish(topic, qos=2, number=2))
    assert client.read() == [ack("PUBACK", 1, code), ack("PUBREC", 2, code)]
    assert client.denied == [f"publish {topic}"] * 3
    assert watcher.read() == []
    assert client.closed is None
    assert house.stat("dropped_denied") == 3


def test_a_denied_qos_2_publication_leaves_its_identifier_free() -> None:
    """MQTT-4.3.3-9: after a PUBREC of 0x80 or more the same identifier is a new message."""
    house, watcher = fleet()
    client = node(house)
    client.send(publish("/plant/tomato/state", qos=2), publish("/plant/peanut/state", b"mine", qos=2))
    assert client.read() == [ack("PUBREC", 1, 0x87), ack("PUBREC", 1)]
    assert watcher.payloads() == [b"mine"]


def test_a_node_may_not_command_itself() -> None:
    """README, topics: it reads its commands and writes its reports."""
    house, watcher = fleet()
    client = node(house)
    client.send(publish("/plant/peanut/UpdateTemperature", qos=1), publish("/plant/peanut/cmd/x", qos=1))
    assert [packet["reason"] for packet in client.read()] == [0x87, 0x87]
    client.send(publish("/plant/peanut/state", qos=1))
    assert client.only() == ack("PUBACK", 1)
    assert [topic for topic, _, _ in watcher.messages()] == ["/plant/peanut/state"]


def test_a_rule_may_be_about_retained_messages_only() -> None:
    house, watcher = fleet()
    client = node(house)
    client.send(publish("/plant/peanut/telemetry", qos=1, retain=True), publish("/plant/peanut/telemetry", qos=1))
    assert [packet["reason"] for packet in client.read()] == [0x87, 0]
    assert client.denied == ["publish retained /plant/peanut/telemetry"]
    assert len(watcher.messages()) == 1
    assert house.stat("retained") == 0


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_denied_subscription_is_refused_alone(version: int) -> None:
    """5.0 §3.9.3: 0x87; 3.1.1 §3.9.3: 0x80. A filter that is wider than what is allowed is not allowed."""
    house, _ = fleet()
    house.publish("/plant/tomato/state", retain=True)
    client = node(house, version)
    wanted = ["#", "/plant/peanut/cmd/+", "/plant/+/cmd/x", "/plant/peanut/UpdateTemperature", "/plant/tomato/state"]
    code = 0x87 if version == 5 else 0x80
    assert client.subscribe(*wanted) == [code, 0, code, 0, code]
    assert client.denied == [f"subscribe {wanted[n]}" for n in (0, 2, 4)]
    for topic in ("/plant/peanut/cmd/x", "/plant/tomato/cmd/x", "/plant/tomato/state"):
        house.publish(topic)
    assert [topic for topic, _, _ in client.messages()] == ["/plant/peanut/cmd/x"]


def test_a_slot_without_rules_denies_everything() -> None:
    """Fail closed: the core has no default rules."""
    house = House()
    client = house.join("c", verdict=Verdict(slot=7))
    assert client.subscribe("a") == [0x87]
    client.send(publish("a", qos=1))
    assert client.only() == ack("PUBACK", 1, 0x87)


def test_new_rules_end_the_subscriptions_that_they_do_not_allow() -> None:
    """peanutd._core: sessions of the slot are judged again, connected or not; other slots are left alone."""
    house, watcher = fleet()
    online, offline = node(house), house.keeper("tomato", verdict=Verdict(slot=1, identity="tomato"))
    for client, name in ((online, "peanut"), (offline, "tomato")):
        assert client.subscribe(f"/plant/{name}/cmd/#", f"/plant/{name}/UpdateTemperature", qos=1) == [1, 1]
    offline.lose()
    house.broker.set_rules(1, NODE[:1])
    assert house.stat("subscriptions") == 3
    for topic in ("/plant/peanut/cmd/x", "/plant/peanut/UpdateTemperature", "/plant/tomato/cmd/x"):
        house.publish(topic, qos=1)
    house.publish("/plant/tomato/UpdateTemperature", qos=1)
    assert [topic for topic, _, _ in online.messages()] == ["/plant/peanut/UpdateTemperature"]
    offline = house.keeper("tomato", verdict=Verdict(slot=1, identity="tomato"))
    assert [topic for topic, _, _ in offline.messages()] == ["/plant/tomato/UpdateTemperature"]
    assert len(watcher.messages()) == 4
    assert online.closed is None


def test_new_rules_count_for_the_next_publication() -> None:
    house, _ = fleet()
    client = node(house)
    client.send(publish("/plant/peanut/state", qos=1))
    house.broker.set_rules(1, [(False, MAY, 0, "#")])
    client.send(publish("/plant/peanut/state", qos=1))
    assert [packet["reason"] for packet in client.read()] == [0, 0x87]


def test_what_was_allowed_once_is_allowed_for_that_alone() -> None:
    """The core remembers the last PUBLISH that was allowed; another topic, QoS or RETAIN is another question."""
    house, _ = fleet()
    house.broker.set_rules(1, [(False, MAY, _core.RETAIN_ONLY, "#"), (True, MAY, 0, "a/+", 1), (False, MAY, 0, "#")])
    client = node(house)
    asked = [("a/b", 1, False), ("a/c", 1, False), ("a/bb", 1, False), ("a", 1, False), ("a/b", 2, False)]
    asked += [("a/b", 1, True), ("a/b", 1, False), ("a/" + "x" * 60, 1, False), ("a/b/c", 1, False)]
    for number, (topic, qos, retain) in enumerate(asked, 1):
        for _ in range(2):
            client.send(publish(topic, qos=qos, retain=retain, number=number))
    reasons = [packet["reason"] for packet in client.read()]
    assert reasons[::2] == reasons[1::2]
    assert reasons[::2] == [0, 0, 0, 0x87, 0x87, 0x87, 0, 0, 0x87]


def test_a_session_that_comes_back_under_other_rules_is_judged_by_them() -> None:
    """An operator who has become a viewer does not keep the subscriptions of an operator."""
    house, _ = fleet()
    house.keeper("k").subscribe("#", "/plant/me/cmd/x", qos=1)
    house.now += 1
    client = house.keeper("k", verdict=Verdict(slot=1))
    assert house.stat("subscriptions") == 2, "the watcher's, and the one that is allowed"
    house.publish("/plant/me/cmd/x", qos=1)
    house.publish("/plant/you/cmd/x", qos=1)
    assert [topic for topic, _, _ in client.messages()] == ["/plant/me/cmd/x"]


@pytest.mark.parametrize(("qos", "code"), [(0, None), (1, 0), (2, 0x87)])
def test_a_rule_may_have_a_highest_qos_for_publications(qos: int, code: int | None) -> None:
    """The reload counts for the next publication, and for the will in CONNECT."""
    house, watcher = fleet()
    house.broker.set_rules(1, [(True, MAY, 0, "#", 1)])
    client = node(house)
    client.send(publish("a", qos=qos))
    assert [packet["reason"] for packet in client.read()] == ([] if code is None else [code])
    assert len(watcher.messages()) == (qos < 2)
    refused = node(
        house, name="tomato", will={"topic": "a", "payload": b"", "qos": 2, "retain": False, "properties": []}
    )
    assert refused.connack is not None
    assert refused.connack["reason"] == 0x87


def test_a_rule_lowers_the_qos_of_subscriptions_even_of_those_that_there_are() -> None:
    house, _ = fleet()
    house.broker.set_rules(1, [(True, MAY, 0, "a", 1), (True, MAY, 0, "#", 2)])
    client = node(house)
    assert client.subscribe("a", "b", qos=2) == [1, 2]
    house.broker.set_rules(1, [(True, MAY, 0, "#", 0)])
    house.publish("a", qos=2)
    house.publish("b", qos=2)
    assert [qos for _, _, qos in client.messages()] == [0, 0]
    assert client.closed is None


def test_shared_subscriptions_need_a_rule_of_their_own() -> None:
    """Whoever joins a group takes messages away from its members, which plain reading does not."""
    house, _ = fleet()
    house.broker.set_rules(1, [(True, _core.MAY_SUBSCRIBE, 0, "#")])
    client = node(house)
    assert client.subscribe("a", "$share/g/a") == [0, 0x87]
    house.broker.set_rules(1, [(True, _core.MAY_SHARE, 0, "#")])
    assert client.subscribe("b", "$share/g/b") == [0x87, 0]
    house.broker.set_rules(1, [(True, _core.MAY_SUBSCRIBE, 0, "#")])
    house.publish("a")
    house.publish("b")
    assert client.messages() == [], "the plain one went with the second set of rules, the shared one with the third"


def test_a_rule_may_be_for_some_names() -> None:
    house, _ = fleet()
    house.broker.set_rules(
        1, [(True, MAY, 0, "a", 2, ("peanut", "tomato")), (True, MAY, 0, "b", 2, ()), (True, MAY, 0, "c")]
    )
    wanted = {"peanut": [0, 0x87, 0], "tomato": [0, 0x87, 0], "peanut2": [0x87, 0x87, 0], "pean": [0x87, 0x87, 0]}
    for name, codes in wanted.items():
        assert node(house, name=name).subscribe("a", "b", "c") == codes


@pytest.mark.parametrize(
    "rule", [(True, MAY, 0, "a", 2, ["x"]), (True, MAY, 0, "a", 2, (1,)), (True, MAY, 0, "a", 2, "x")]
)
def test_names_are_a_tuple_of_text(rule: Any) -> None:
    with pytest.raises(TypeError):
        House().broker.set_rules(0, [rule])


def test_explain_agrees_with_what_happens() -> None:
    house, _ = fleet()
    explain = house.broker.explain
    assert explain(1, "peanut", 1, "/plant/peanut/state")[:2] == (True, 5)
    assert explain(1, "peanut", 1, "/plant/peanut/cmd/x")[:2] == (False, 3)
    assert explain(1, "peanut", 1, "/plant/peanut/telemetry", True)[:2] == (False, 2)
    assert explain(1, "peanut", 1, "/plant/tomato/state")[:2] == (False, -1)
    assert explain(1, "peanut", 2, "/plant/peanut/cmd/#")[:2] == (True, 1)
    assert explain(9, "peanut", 2, "a")[:2] == (False, -1)


def test_an_identity_cannot_smuggle_levels_into_a_rule() -> None:
    """topic.h: `{id}` is one literal level."""
    house, _ = fleet()
    house.broker.set_rules(2, [(True, MAY, 0, "{id}/#")])
    for name in ("$SYS", "$share"):
        client = house.join("c", verdict=Verdict(slot=2, identity=name))
        assert client.subscribe("$SYS/#", "$SYS/broker/uptime", f"{name}/x") == [
            0x87,
            0x87,
            0x87 if name == "$SYS" else 0x8F,
        ]
        client.send(publish("$SYS/broker/version", qos=1))
        assert client.only() == ack("PUBACK", 1, 0x87)
    for name in ("+", "#", "a/b", ""):
        client = house.join("c", verdict=Verdict(slot=1, identity=name))
        assert client.subscribe("/plant/x/cmd/y", "/plant/+/cmd/x", "/plant/a/b/cmd/x") == [0x87] * 3


def test_the_report_of_denials_is_bounded_and_their_count_is_not() -> None:
    """PN_DENIED_EVENTS_MAX: a flood of refused packets in one chunk does not become a flood of events."""
    house, _ = fleet()
    client = node(house)
    client.send(*[publish("/plant/tomato/state")] * 1000)
    assert len(client.denied) == 32
    assert house.stat("dropped_denied") == 1000
    client.send(publish("/plant/tomato/state"))
    assert len(client.denied) == 33


@pytest.mark.parametrize("version", [4, 5])
def test_a_flood_of_filters_is_not_held_against_every_rule(version: int) -> None:
    """PN_RULE_CHECKS_MAX (500,000) in one call: what comes then is refused unseen, and the next call begins anew."""
    house = House()
    house.broker.set_rules(1, [(False, MAY, 0, f"+/+/+/{n}") for n in range(999)] + [(True, MAY, 0, "#")])
    client = node(house, version)
    codes = client.subscribe(*[f"a/b/{n}" for n in range(600)])
    refused = 0x97 if version == 5 else 0x80
    assert codes == [0] * 500 + [refused] * 100
    assert client.subscribe("a/b/599") == [0]
    assert client.closed is None


def test_a_rule_that_is_no_filter_is_named() -> None:
    house = House()
    with pytest.raises(ValueError, match=r"rule 1: 'a/#/b'"):
        house.broker.set_rules(0, [(True, MAY, 0, "a"), (True, MAY, 0, "a/#/b")])
    assert house.join().subscribe("x") == [0], "the old rules are in force"


@pytest.mark.parametrize("version", [4, 5])
def test_what_is_known_of_a_topic_is_forgotten_with_the_rules_and_limits(version: int) -> None:
    """A topic said again and again is judged once, until rules or limits change; it reaches whoever listens then."""
    house, watcher = fleet()
    client = node(house, version)

    def say(topic: str, times: int) -> tuple[int, list[int]]:
        for number in range(1, times + 1):
            client.send(publish(topic, qos=1, number=number))
        return len(watcher.messages()), [packet.get("reason") or 0 for packet in client.read()]

    for topic in ("/plant/peanut/a", "/plant/peanut/b", "/plant/peanut/c", "/plant/peanut/d", "/plant/peanut/e"):
        assert say(topic, 4) == (4, [0] * 4)
    assert say("/plant/peanut/cmd/on", 4)[0] == 0
    watcher.ask(unsubscribe("#"), "UNSUBACK")
    assert say("/plant/peanut/a", 4)[0] == 0
    watcher.subscribe("/plant/peanut/+")
    assert say("/plant/peanut/a", 4) == (4, [0] * 4)
    house.broker.set_rules(1, [(False, MAY, 0, "/plant/peanut/a"), (True, MAY, 0, "#")])
    assert say("/plant/peanut/a", 3) == (0, [0x87 if version == 5 else 0] * 3)
    assert say("/plant/peanut/e", 3)[0] == 3
    house.broker.set_rules(1, NODE)
    assert say("/plant/peanut/a", 3)[0] == 3
    house.broker.set_limits(max_topic_levels=3)
    client.send(publish("/plant/peanut/a", qos=1))
    assert client.closed == 0x90
