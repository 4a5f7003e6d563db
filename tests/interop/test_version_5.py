"""What MQTT 5.0 adds, with every client that speaks it: properties, reason codes, expiry, shares, aliases.

What a library keeps to itself is not asked of it, and the test says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop import programs
from tests.interop.conftest import Cast, Foreign, Line, Operator, pass_time, variants
from tests.system.conftest import wait_for

every_client = pytest.mark.parametrize("foreign", variants(5), indirect=True)

USERS = [("crop", "tomato"), ("bed", "3"), ("crop", "größe & 50 %")]
"""User properties with a name that comes twice and a space, `&`, `%` and a letter of two bytes."""
CORRELATION = b"\x00\x01\xffid"


def in_order(name: str, users: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """mqtt.js keeps user properties as an object, so it gathers the values of a name, in their order."""
    return sorted(users, key=lambda pair: pair[0] != "crop") if name == "mqtt.js" else users


@every_client
def test_properties_of_what_it_publishes_arrive_unchanged(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.3.2-4, -15, -16, -17, -18, -20: passed on unaltered, user properties in order."""
    topic = f"{foreign.root}/event"
    operator.listen(topic)
    foreign.connect()
    foreign.publish(
        topic, "größe".encode(), 2, format=1, content_type="text/plain; charset=utf-8", response="replies/here",
        correlation=CORRELATION, user=USERS, expiry=600,
    )  # fmt: skip
    (heard,) = operator.hears(topic)
    assert heard.ContentType == "text/plain; charset=utf-8"
    assert heard.ResponseTopic == "replies/here"
    assert heard.CorrelationData == CORRELATION
    assert heard.PayloadFormatIndicator == 1
    assert heard.UserProperty == in_order(foreign.client.name, USERS)
    assert 590 <= heard.MessageExpiryInterval <= 600


@every_client
def test_properties_of_what_it_receives_arrive_unchanged(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.3.2-4, -15, -16, -17, -18, -20, seen by the client."""
    foreign.connect()
    foreign.subscribe(f"{foreign.root}/cmd/+", 2)
    operator.say(
        f"{foreign.root}/cmd/test", b"{}", 2, PayloadFormatIndicator=1, ContentType="application/json",
        ResponseTopic=f"{foreign.root}/event", CorrelationData=CORRELATION, UserProperty=USERS,
        MessageExpiryInterval=600,
    )  # fmt: skip
    (line,) = foreign.hears(1)
    assert line.text("content_type") == "application/json"
    assert line.text("response") == f"{foreign.root}/event"
    assert line.binary("correlation") == CORRELATION
    assert line.text("format") in ("1", "true")
    assert line.users == in_order(foreign.client.name, USERS)
    assert 590 <= (line.number("expiry") or 0) <= 600


@every_client
def test_a_request_is_answered_at_its_response_topic(foreign: Foreign, operator: Operator) -> None:
    """5.0 §4.10: the client answers where it is told to, with the correlation data that it was given."""
    operator.listen(f"{foreign.root}/event")
    foreign.connect()
    foreign.subscribe(f"{foreign.root}/cmd/+")
    for number in (1, 2):
        operator.say(
            f"{foreign.root}/cmd/test", b"%d" % number, ResponseTopic=f"{foreign.root}/event",
            CorrelationData=b"request %d" % number,
        )  # fmt: skip
    for line in foreign.hears(2):
        foreign.publish(line.text("response") or "", b"done", correlation=line.binary("correlation"))
    answers = operator.hears(f"{foreign.root}/event", 2)
    assert [answer.CorrelationData for answer in answers] == [b"request 1", b"request 2"]


@pytest.fixture
def everyone(cast: Cast) -> Iterator[list[Foreign]]:
    """Every client of 5.0 at once: time passes for all of them together."""
    found = [Foreign(cast, client, 5) for client in programs.ALL if 5 in client.versions]
    try:
        yield found
    finally:
        for foreign in found:
            foreign.leave()


def test_time_counts_message_expiry_down_and_ends_short_sessions(everyone: list[Foreign], operator: Operator) -> None:
    """MQTT-3.3.2-5, 3.3.2-6: what has waited a second expires a second sooner, or is not delivered at all;
    MQTT-4.1.0-2: a session ends when its expiry interval has passed."""
    for foreign in everyone:
        foreign.connect(clean=0, session_expiry=600)
        foreign.subscribe(f"{foreign.root}/cmd/+")
        foreign.ask("disconnect")
        operator.say(f"{foreign.root}/cmd/test", b"short", MessageExpiryInterval=1)
        operator.say(f"{foreign.root}/cmd/test", b"long", MessageExpiryInterval=600)
        foreign.connect(1, identity="operator", id=f"short-{foreign.node}", clean=0, session_expiry=1)
        foreign.subscribe(f"{foreign.root}/event", number=1)
        foreign.ask("disconnect", 1)
    pass_time(2.1)
    for foreign in everyone:
        foreign.connect(clean=0, session_expiry=600)
        (line,) = foreign.hears(1)
        assert line.binary("payload") == b"long", foreign.node
        assert 500 <= (line.number("expiry") or 0) <= 598, foreign.node
        again = foreign.connect(1, identity="operator", id=f"short-{foreign.node}", clean=0)
        assert again.number("present") in (0, None), foreign.node
        foreign.publish(f"{foreign.root}/event", b"nobody hears")
        foreign.subscribe(f"{foreign.root}/state", number=1)
        foreign.publish(f"{foreign.root}/state", b"marker")
        assert foreign.payloads(1, 1) == [b"marker"], foreign.node


@every_client
def test_a_session_without_expiry_interval_ends_with_its_connection(foreign: Foreign, operator: Operator) -> None:
    """5.0 §3.1.2.11.2: absent is 0. What comes meanwhile is nobody's."""
    foreign.connect(clean=0)
    foreign.subscribe(f"{foreign.root}/cmd/+")
    foreign.ask("disconnect")
    operator.say(f"{foreign.root}/cmd/test", b"missed")
    line = foreign.connect(clean=0)
    assert line.number("present") in (0, None)
    foreign.subscribe(f"{foreign.root}/UpdateTemperature")
    operator.say(f"{foreign.root}/UpdateTemperature", b"marker")
    assert foreign.payloads(1) == [b"marker"]


@every_client
def test_reason_codes_reach_it(foreign: Foreign) -> None:
    """5.0 §2.4: no matching subscribers 0x10, not authorised 0x87, granted QoS."""
    foreign.connect()
    told: list[Line] = [
        foreign.publish(f"{foreign.root}/log", b"nobody listens", 1),  # /event is heard by the gateway itself
        foreign.publish(f"{foreign.root}/log", b"nobody listens", 2),
        foreign.publish(f"{foreign.root}/UpdateTemperature", b"forged", 1),
        foreign.subscribe(f"{foreign.root}/cmd/+", 1),
    ]
    reasons = [line.number("reason") for line in told]
    hidden = {
        "aiomqtt": [None, None, None, 1],
        "gmqtt": [None, None, None, 1],
        # These tell how the QoS 2 flow ended (PUBCOMP), not what PUBREC said.
        "paho-mqtt": [0x10, 0, 0x87, 1],
        "mqtt.js": [None, None, 0x87, 1],  # it tells of failures
        "paho-c": [0x10, 0, 0x87, 1],
    }
    assert reasons == hidden[foreign.client.name]


@every_client
def test_an_empty_client_id_is_replaced_and_told(foreign: Foreign) -> None:
    """MQTT-3.2.2-16: Assigned Client Identifier. gmqtt makes a name up by itself, aiomqtt hides CONNACK."""
    line = foreign.connect(identity="operator", id="")
    if foreign.client.name not in ("gmqtt", "aiomqtt"):
        assert line.text("assigned")


@every_client
def test_receive_maximum_holds_back_and_loses_nothing(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.3.4-7, -9: no more than 2 in flight to it, so 40 messages of QoS 1 and 2 need its acknowledgements."""
    line = foreign.connect(receive_maximum=2)
    assert (line.number("receive_maximum") or 1) >= 1
    foreign.subscribe(f"{foreign.root}/cmd/+", 2)
    for number in range(40):
        operator.client.publish(f"{foreign.root}/cmd/test", b"%d" % number, 1 + number // 20)
    assert foreign.payloads(40) == [b"%d" % number for number in range(40)]


@every_client
def test_the_will_has_its_properties_and_waits_for_its_delay(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.1.3-9: a connection that comes back within the delay keeps the will unsaid."""
    topic = f"{foreign.root}/status"
    will: dict[str, Any] = {"will_topic": topic, "will_payload": b"gone", "will_qos": 1, "session_expiry": 600}
    operator.listen(topic)
    foreign.connect(**will, will_delay=600, user=USERS)
    foreign.kill()
    foreign.connect(**{**will, "clean": 0}, user=USERS)
    foreign.publish(topic, b"back")
    foreign.kill()
    heard = operator.hears(topic, 2)
    assert [message.payload for message in heard] == [b"back", b"gone"]
    if foreign.client.name != "mqtt.js":  # main.js hands it no user properties for the will
        assert heard[1].UserProperty == USERS


@every_client
def test_a_subscription_identifier_comes_back_with_its_messages(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.3.4-3: the identifier of the subscription that matched, up to the largest of all."""
    foreign.connect()
    foreign.subscribe(f"{foreign.root}/cmd/+", subid=7)
    foreign.subscribe(f"{foreign.root}/UpdateTemperature", subid=268_435_455)
    operator.say(f"{foreign.root}/cmd/test", b"1")
    operator.say(f"{foreign.root}/UpdateTemperature", b"2")
    assert [line.numbers("subid") for line in foreign.hears(2)] == [[7], [268_435_455]]


@every_client
def test_a_shared_subscription_shares(foreign: Foreign, operator: Operator) -> None:
    """5.0 §4.8.2: each message goes to one of the two; both get some; when one leaves the other gets all."""
    for number in (0, 1):
        foreign.connect(number, identity="operator", id=f"worker-{number}-{foreign.node}")
        foreign.subscribe(f"$share/workers/{foreign.root}/cmd/+", number=number)
    first, second = foreign.program(0), foreign.program(1)
    for number in range(20):
        operator.say(f"{foreign.root}/cmd/test", b"%d" % number)

    def shares() -> list[list[int]]:
        return [[int(line.binary("payload") or b"-1") for line in program.messages] for program in (first, second)]

    wait_for(lambda: sum(map(len, shares())) >= 20, "all of them")
    assert sorted(number for share in shares() for number in share) == list(range(20))
    assert all(shares())
    foreign.ask("disconnect", 1)
    for number in range(20, 30):
        operator.say(f"{foreign.root}/cmd/test", b"%d" % number)
    wait_for(lambda: 29 in shares()[0], "the last of the rest")
    # What the other one had not acknowledged when it left may come again here, before the rest.
    assert [[number for number in share if number >= 20] for share in shares()] == [list(range(20, 30)), []]


@every_client
def test_retain_handling_no_local_and_retain_as_published(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.3.1-11, -12, 3.8.3-3 and 3.3.1-13: what a subscription's options ask for."""
    desired = f"{foreign.root}/config/desired"
    operator.say(desired, b"kept", retain=True)
    foreign.connect(identity="operator", id=f"desk-{foreign.node}")
    foreign.subscribe(desired, handling=2, as_published=True)
    operator.say(desired, b"live", retain=True)
    (line,) = foreign.hears(1)
    assert (line.binary("payload"), line.number("retain")) == (b"live", 1)
    foreign.subscribe(f"{foreign.root}/cmd/+", no_local=True)
    foreign.publish(f"{foreign.root}/cmd/test", b"own")
    operator.say(f"{foreign.root}/cmd/test", b"other")
    operator.say(desired, b"", retain=True)
    assert foreign.payloads(3)[1:] == [b"other", b""]


@every_client
def test_topic_aliases_both_ways(foreign: Foreign, operator: Operator) -> None:
    """MQTT-3.3.2-8 to -12: a topic sent once, then its number; the library puts the topic back, or the test does."""
    topic = f"{foreign.root}/event"
    operator.listen(topic)
    line = foreign.connect(
        alias=1 if foreign.client.name == "mqtt.js" else None,
        alias_maximum=5 if foreign.client.name != "aiomqtt" else None,  # aiomqtt does not put the topic back
    )
    if foreign.client.name not in ("aiomqtt", "gmqtt"):  # gmqtt says the client's own maximum instead
        assert (line.number("alias_maximum") or 0) >= 1
    # mqtt.js assigns the aliases by itself when it is told to.
    aliased: dict[str, Any] = {} if foreign.client.name == "mqtt.js" else {"alias": 1}
    foreign.publish(topic, b"named", **aliased)
    foreign.publish(topic if foreign.client.name == "mqtt.js" else "", b"numbered", **aliased)
    assert [message.payload for message in operator.hears(topic, 2)] == [b"named", b"numbered"]
    foreign.subscribe(f"{foreign.root}/cmd/+")
    for number in range(3):
        operator.say(f"{foreign.root}/cmd/test", b"%d" % number)
    told = [(line.text("topic"), line.number("alias")) for line in foreign.hears(3)]
    known: dict[int | None, str | None] = {}
    for name, alias in told:
        if name:
            known[alias] = name
        assert known[alias] == f"{foreign.root}/cmd/test"
    if foreign.client.name in ("paho-mqtt", "paho-c"):  # the others hide the alias that they have resolved
        assert all(alias for _, alias in told), told
        assert [name for name, _ in told][1:] == ["", ""]
