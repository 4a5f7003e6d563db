"""A publisher and a subscriber that keep their side of MQTT across any number of connections, and count.

The rule they keep: the standard's, whatever the broker does. A publisher sends numbered messages, holds each until it
is acknowledged, and after every reconnect sends again what was not, with its old identifier (MQTT-4.4.0-1). A
subscriber hands a QoS 2 message on once (method A of MQTT-4.3.3: when it comes first), and keeps the identifier until
PUBREL. Both are without a socket: `connected`, `heard` and `say` move packets, so they run by hand and on TCP alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.broker.house import Packet, ack, connect, properties, publish, subscribe, topic_filter

EXPIRY = 3600
"""Seconds that sessions outlive their connections."""


def _connect(name: str, version: int) -> Packet:
    props = properties(session_expiry_interval=EXPIRY) if version == 5 else []
    return connect(name, version, clean=False, props=props)


@dataclass
class Publisher:
    """Sends `limit` messages of one QoS to `topic`, at most `window` at a time. The payload is the number."""

    name: str
    topic: str
    qos: int
    version: int = 5
    window: int = 20
    limit: int = 1 << 30
    count: int = 0
    under_way: dict[int, tuple[int, bool]] = field(default_factory=dict)  # by identifier: number, released
    acknowledged: set[int] = field(default_factory=set)
    online: bool = False
    refused: int = 0
    _identifier: int = 0

    def connected(self) -> list[Packet]:
        """What to say on a new connection."""
        self.online = False
        return [_connect(self.name, self.version)]

    def heard(self, packet: Packet) -> list[Packet]:
        """The answer to a packet."""
        kind = packet["type"]
        if kind == "CONNACK":
            assert packet["reason"] == 0, packet
            self.online = True
            assert packet["session_present"] or not self.acknowledged, f"{self.name}: the session was forgotten"
            return [
                ack("PUBREL", identifier) if released else self._publish(identifier, number, again=True)
                for identifier, (number, released) in self.under_way.items()
            ]
        if kind == "PUBREC" and packet["reason"] < 0x80:
            if packet["id"] in self.under_way:
                self.under_way[packet["id"]] = (self.under_way[packet["id"]][0], True)
            return [ack("PUBREL", packet["id"])]
        if kind in ("PUBACK", "PUBREC", "PUBCOMP"):
            number, _ = self.under_way.pop(packet["id"], (None, False))
            if packet.get("reason", 0) >= 0x80 and kind != "PUBCOMP":
                self.refused += 1
            elif number is not None:
                self.acknowledged.add(number)
        return []

    def say(self) -> list[Packet]:
        """More messages, as many as the window allows."""
        said = []
        while self.online and len(self.under_way) < self.window and self.count < self.limit:
            self._identifier = self._identifier % 65535 + 1
            while self._identifier in self.under_way:
                self._identifier = self._identifier % 65535 + 1
            self.under_way[self._identifier] = (self.count, False)
            said.append(self._publish(self._identifier, self.count, again=False))
            self.count += 1
        return said

    def _publish(self, identifier: int, number: int, *, again: bool) -> Packet:
        return publish(self.topic, b"%s %d" % (self.name.encode(), number), self.qos, identifier, dup=again)

    @property
    def done(self) -> bool:
        return self.count >= self.limit and not self.under_way


@dataclass
class Subscriber:
    """Subscribes once to `pattern` with QoS 2, and counts what it hears by payload."""

    name: str
    pattern: str
    version: int = 5
    subscribed: bool = False
    online: bool = False
    messages: Counter[bytes] = field(default_factory=Counter)
    order: list[bytes] = field(default_factory=list)
    held: set[int] = field(default_factory=set)  # identifiers of QoS 2 that are not released yet

    def connected(self) -> list[Packet]:
        self.online = False
        return [_connect(self.name, self.version)]

    def heard(self, packet: Packet) -> list[Packet]:
        kind = packet["type"]
        if kind == "CONNACK":
            assert packet["reason"] == 0, packet
            self.online = True
            assert packet["session_present"] or not self.subscribed, f"{self.name}: the session was forgotten"
            return [] if self.subscribed else [subscribe(topic_filter(self.pattern, 2))]
        if kind == "SUBACK":
            assert packet["reasons"] == [2], packet
            self.subscribed = True
        if kind == "PUBREL":
            self.held.discard(packet["id"])
            return [ack("PUBCOMP", packet["id"])]
        if kind == "PUBLISH":
            if packet["qos"] != 2 or packet["id"] not in self.held:
                self.messages[packet["payload"]] += 1
                self.order.append(packet["payload"])
            if packet["qos"] == 2:
                self.held.add(packet["id"])
                return [ack("PUBREC", packet["id"])]
            return [ack("PUBACK", packet["id"])] if packet["qos"] else []
        return []

    def say(self) -> list[Packet]:
        return []


def verdict(publisher: Publisher, subscriber: Subscriber) -> list[str]:
    """What is wrong between the two, in words: acknowledged and never heard, QoS 2 heard twice, out of order."""
    prefix = publisher.name.encode() + b" "
    messages, order = subscriber.messages.copy(), [*subscriber.order]  # its thread may be hearing more
    heard = {int(text.removeprefix(prefix)): n for text, n in messages.items() if text.startswith(prefix)}
    wrong = []
    if lost := sorted(publisher.acknowledged - set(heard)):
        wrong.append(f"{subscriber.name} never heard {len(lost)} acknowledged messages of {publisher.name}: {lost[:9]}")
    if publisher.qos == 2 and (twice := sorted(number for number, n in heard.items() if n > 1)):
        wrong.append(f"{subscriber.name} heard {len(twice)} QoS 2 messages of {publisher.name} twice: {twice[:9]}")
    numbers = [int(text.removeprefix(prefix)) for text in order if text.startswith(prefix)]
    firsts = list(dict.fromkeys(numbers))
    if firsts != sorted(firsts):  # MQTT-4.6.0-5
        wrong.append(f"{subscriber.name} heard messages of {publisher.name} out of order")
    return wrong
