"""The stories of a greenhouse, told with every client and in each version of the protocol that it speaks.

TLS with a client certificate and the gateway's name checked, each QoS both ways, retained messages, the will, a session
that outlives its connection. The client is the node; an operator looks on and commands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.interop.conftest import Cast, Foreign, Operator, variants

every_client = pytest.mark.parametrize("foreign", variants(4, 5), indirect=True)
every_larger_client = pytest.mark.parametrize("foreign", variants(4, 5, where=lambda one: not one.der), indirect=True)
every_web_client = pytest.mark.parametrize("foreign", variants(4, 5, where=lambda one: one.web), indirect=True)

NOT_AUTHORIZED = 0x87
LARGE = bytes(range(256)) * 160  # 40 KiB: more than two TLS records


def by_qos(messages: Iterable[tuple[Any, int]]) -> list[list[Any]]:
    """Order is promised among messages of one QoS (MQTT-4.6.0-6 of 5.0); those of QoS 2 are passed on when released."""
    lists: list[list[Any]] = [[], [], []]
    for message, qos in messages:
        lists[qos].append(message)
    return lists


@every_client
def test_a_gateway_by_another_name_is_not_trusted(foreign: Foreign, cast: Cast) -> None:
    """It is the real gateway, so that the name is all that is wrong: the client has to look at it."""
    foreign.connect(answer="refused", host=cast.gateway.WRONG_NAME, port=cast.gateway.other_port)
    foreign.connect()


@every_client
def test_without_a_certificate_nobody_comes_in(foreign: Foreign) -> None:
    """To such a client the gateway can only close; aiomqtt waits for its own deadline all the same."""
    foreign.connect(answer="refused", cert=None, key=None, patience=1)
    foreign.connect()


@every_client
def test_another_node_name_is_refused(foreign: Foreign) -> None:
    """Client id not valid: 0x85 in 5.0, 2 in 3.1.1 (MQTT-3.1.3-9 of 3.1.1)."""
    line = foreign.connect(answer="refused", id="somebody-else")
    if line.number("reason") is not None:
        assert line.number("reason") in ((0x85,) if foreign.version == 5 else (2, 0x85))


@every_client
def test_what_it_publishes_arrives_once_in_order_at_each_qos(foreign: Foreign, operator: Operator) -> None:
    """MQTT-4.3.1-1, 4.3.2-1, 4.3.3-1, 4.6.0-1: the operator hears it at the QoS it was published with."""
    operator.listen(f"{foreign.root}/event")
    foreign.connect()
    expected = []
    for qos in foreign.client.publishes:
        for payload in (b"", f"größe {qos}".encode(), LARGE):
            foreign.publish(f"{foreign.root}/event", payload, qos)
            expected.append((payload, qos))
    foreign.publish(f"{foreign.root}/event", b"last")
    heard = operator.hears(f"{foreign.root}/event", len(expected) + 1)
    assert by_qos((message.payload, message.qos) for message in heard) == by_qos([*expected, (b"last", 1)])


@every_client
def test_what_is_published_for_it_arrives_once_in_order_at_each_qos(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.8.4-8 of 5.0, 3.8.4-6 of 3.1.1: at the lesser QoS of message and subscription."""
    foreign.connect()
    most = max(foreign.client.receives)
    line = foreign.subscribe(f"{foreign.root}/cmd/+", most)
    assert line.numbers("reason") in ([], [most])
    expected = []
    for qos in (0, 1, 2):
        for payload in (b"", b"\x00\xff\x80", LARGE):
            operator.say(f"{foreign.root}/cmd/test", payload, qos)
            expected.append((payload, min(qos, most)))
    operator.say(f"{foreign.root}/cmd/last", b"last")
    heard = foreign.hears(len(expected) + 1)
    last = heard.index(next(line for line in heard if line.text("topic") == f"{foreign.root}/cmd/last"))
    assert heard.pop(last).binary("payload") == b"last"
    assert {line.text("topic") for line in heard} == {f"{foreign.root}/cmd/test"}
    if heard[0].number("qos") is None:
        assert [line.binary("payload") for line in heard] == [payload for payload, _ in expected]
    else:
        assert by_qos((line.binary("payload"), line.number("qos") or 0) for line in heard) == by_qos(expected)


@every_larger_client
def test_unsubscribing_ends_it(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.10.4-2 of 3.1.1: no more of these messages. umqtt.simple cannot unsubscribe."""
    foreign.connect()
    foreign.subscribe(f"{foreign.root}/cmd/+")
    foreign.subscribe(f"{foreign.root}/UpdateTemperature")
    operator.say(f"{foreign.root}/cmd/test", b"before")
    foreign.hears(1)
    foreign.ask("unsubscribe", filter=f"{foreign.root}/cmd/+")
    operator.say(f"{foreign.root}/cmd/test", b"after")
    operator.say(f"{foreign.root}/UpdateTemperature", b"marker")
    assert foreign.payloads(2) == [b"before", b"marker"]


@every_client
def test_a_retained_report_is_kept_replaced_and_cleared(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.3.1-5, 3.3.1-6, 3.3.1-8 of 5.0: one retained message a topic, and an empty one removes it."""
    topic = f"{foreign.root}/state"
    foreign.connect()
    for payload in (b"first", b"second"):
        foreign.publish(topic, payload, retain=True)
    operator.listen(topic)
    assert [(message.payload, message.retain) for message in operator.hears(topic)] == [(b"second", True)]
    foreign.publish(topic, b"", retain=True)
    assert [(message.payload, message.retain) for message in operator.hears(topic, 2)][1:] == [(b"", False)]
    operator.unlisten(topic)
    operator.forget()
    operator.listen(topic)
    foreign.publish(topic, b"marker")
    assert [message.payload for message in operator.hears(topic)] == [b"marker"]


@every_client
def test_it_receives_what_was_retained_for_it(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.3.1-6 of 3.1.1, 3.3.1-9 of 5.0: on a new subscription, with RETAIN set, and until it is cleared."""
    topic = f"{foreign.root}/config/desired"
    operator.say(topic, b"kept", retain=True)
    foreign.connect()
    foreign.subscribe(topic)
    first = foreign.hears(1)[0]
    assert (first.binary("payload"), first.number("retain")) in ((b"kept", 1), (b"kept", None))
    operator.say(topic, b"", retain=True)
    foreign.hears(2)
    foreign.ask("disconnect")
    foreign.connect()
    foreign.subscribe(topic)
    operator.say(topic, b"marker")
    assert foreign.payloads(3) == [b"kept", b"", b"marker"]


@every_client
def test_its_will_is_published_when_it_is_cut_off_and_not_when_it_leaves(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.1.2-8 and 3.1.2-10 of 3.1.1 and 5.0; retained as it asked (MQTT-3.1.2-17 of 3.1.1)."""
    topic = f"{foreign.root}/status"
    will: dict[str, Any] = {"will_topic": topic, "will_payload": b"gone", "will_qos": 1, "will_retain": True}
    operator.listen(topic, retainAsPublished=True)
    foreign.connect(**will)
    foreign.publish(topic, b"online", retain=True)
    foreign.ask("disconnect")
    foreign.connect(**will)
    foreign.publish(topic, b"again", retain=True)
    foreign.kill()
    heard = [(message.payload, message.qos, message.retain) for message in operator.hears(topic, 3)]
    assert heard == [(b"online", 1, True), (b"again", 1, True), (b"gone", 1, True)]
    operator.forget()
    operator.listen(topic)
    assert operator.hears(topic)[0].payload == b"gone"
    foreign.connect()
    foreign.publish(topic, b"", retain=True)


@every_client
def test_a_session_keeps_what_came_while_it_was_away(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.1.2-4 to 3.1.2-6: subscriptions and messages of QoS 1 and 2 are kept, in order, until a clean start."""
    lasting: dict[str, Any] = {"clean": 0, **({"session_expiry": 600} if foreign.version == 5 else {})}
    first = foreign.connect(**lasting)
    assert first.number("present") in (0, None)
    foreign.subscribe(f"{foreign.root}/cmd/+", max(foreign.client.receives))
    operator.say(f"{foreign.root}/cmd/test", b"here", 0)  # QoS 0: the cut cannot come between it and its PUBACK
    foreign.hears(1)
    foreign.kill()
    expected: dict[int, list[bytes]] = {1: [], 2: []}
    for number in range(10):
        qos = 1 + number % 2
        expected[qos].append(f"{qos} {number}".encode())
        operator.say(f"{foreign.root}/cmd/test", expected[qos][-1], qos)
    second = foreign.connect(**lasting)
    assert second.number("present") in (1, None)
    heard = foreign.payloads(10)
    assert len(heard) == 10
    for qos, payloads in expected.items():
        assert [payload for payload in heard if payload and payload.startswith(b"%d" % qos)] == payloads
    foreign.ask("disconnect")
    operator.say(f"{foreign.root}/cmd/test", b"too late")
    third = foreign.connect()
    assert third.number("present") in (0, None)
    foreign.subscribe(f"{foreign.root}/UpdateTemperature")
    operator.say(f"{foreign.root}/UpdateTemperature", b"marker")
    assert foreign.payloads(11) == [*heard, b"marker"]


@every_client
def test_what_it_may_not_do_is_refused_and_the_connection_goes_on(foreign: Foreign, operator: Operator) -> None:
    """A node may not write its own commands, nor read another's: the answer says so where the protocol can."""
    operator.listen(f"{foreign.root}/#")
    foreign.connect()
    denied = foreign.publish(f"{foreign.root}/cmd/test", b"forged")
    assert denied.number("reason") in ((NOT_AUTHORIZED, None) if foreign.version == 5 else (None,))
    line = foreign.ask("subscribe", filter="/plant/other/cmd/+", qos=1)
    if line.word == "subscribed":
        assert line.numbers("reason") == [NOT_AUTHORIZED if foreign.version == 5 else 0x80]
    else:
        assert line.word == "failed"
    foreign.publish(f"{foreign.root}/event", b"still here")
    operator.hears(f"{foreign.root}/event")
    assert [message.payload for message in operator.heard] == [b"still here"]


@every_larger_client
def test_an_operator_reads_with_wildcards_and_commands(foreign: Foreign, operator: Operator) -> None:
    """MQTT-4.7.1-2, 4.7.1-3: `+` and `#`; the literal leading slash of the topics is a level of its own."""
    foreign.connect(identity="operator", id=f"desk-{foreign.node}")
    most = max(foreign.client.receives)
    for topic_filter in (f"{foreign.root}/cmd/#", "/plant/+/UpdateTemperature"):
        foreign.subscribe(topic_filter, most)
    foreign.subscribe("plant/#")
    operator.listen(f"{foreign.root}/#")
    foreign.publish(f"{foreign.root}/cmd/one", b"1")
    operator.hears(f"{foreign.root}/cmd/one")
    operator.say(f"{foreign.root}/UpdateTemperature", b"temperature:15")
    assert sorted((line.text("topic"), line.binary("payload")) for line in foreign.hears(2)) == [
        (f"{foreign.root}/UpdateTemperature", b"temperature:15"),
        (f"{foreign.root}/cmd/one", b"1"),
    ]


@every_larger_client
def test_two_of_one_name_the_second_takes_over(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.1.4-2 of 3.1.1, 3.1.4-3 of 5.0: the first is closed, in 5.0 with reason 0x8E."""
    foreign.connect()
    foreign.connect(1)
    first = foreign.program()
    line = first.wait(lambda: first.closed, "takeover")[0]
    assert line.number("reason") in ((0x8E, None) if foreign.version == 5 else (None, 0x80, 7, 16))
    foreign.subscribe(f"{foreign.root}/cmd/+", number=1)
    operator.say(f"{foreign.root}/cmd/test", b"for the second")
    assert foreign.payloads(1, 1) == [b"for the second"]


@every_web_client
def test_over_secure_websocket_it_is_the_same(foreign: Foreign, operator: Operator) -> None:
    """MQTT-6.0.0-1 to -4: each QoS both ways, large packets, the will when it is cut off.

    One thing after the other: Paho in C 1.3.12 reads the first packet of a frame, and what follows it in the same frame
    only when the next frame comes (against MQTT-6.0.0-2), so a PUBACK behind a PUBLISH would keep it waiting.
    """
    operator.listen(f"{foreign.root}/#")
    foreign.connect(**foreign.over_web, will_topic=f"{foreign.root}/status", will_payload=b"gone", will_qos=1)
    foreign.subscribe(f"{foreign.root}/cmd/+", 2)
    for qos in (0, 1, 2):
        foreign.publish(f"{foreign.root}/event", LARGE, qos)
        operator.say(f"{foreign.root}/cmd/test", LARGE, qos)
        foreign.hears(qos + 1)
    assert by_qos((m.payload, m.qos) for m in operator.hears(f"{foreign.root}/event", 3)) == [[LARGE]] * 3
    assert by_qos((m.binary("payload"), m.number("qos") or 0) for m in foreign.hears(3)) == [[LARGE]] * 3
    foreign.kill()
    assert operator.hears(f"{foreign.root}/status")[0].payload == b"gone"


@every_web_client
def test_over_secure_websocket_the_name_and_the_certificate_count_too(foreign: Foreign) -> None:
    """A node's certificate names it there as well."""
    foreign.connect(**foreign.over_web, answer="refused", id="somebody-else", patience=2)
    foreign.connect(**foreign.over_web, answer="refused", cert=None, key=None, patience=1)
