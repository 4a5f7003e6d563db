"""The core against a model: short random programs of several clients, and after every step each has heard what it must.

The model is naive on purpose: sessions are lists, matching walks level by level, nothing is indexed or shared. It says
what the standard says about who gets what, in which order, with which DUP and RETAIN, across connections, takeovers,
expiry and wills (MQTT-3.1.2-4 to -6, -8, -23; 3.1.4-3; 3.3.1-5, -6; 3.3.2-5; 3.3.4-2, -9; 3.8.4-3, -8; 4.3.2; 4.3.3;
4.4.0-1; 4.5.0-1; 4.6.0-5).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.broker.house import (
    SECOND,
    Client,
    House,
    Packet,
    ack,
    disconnect,
    properties,
    publish,
    subscribe,
    topic_filter,
    unsubscribe,
    will,
)

NAMES = ["a", "b", "c"]
TOPICS = ["x", "x/1", "x/2", "y/1", "r"]
FILTERS = ["x", "x/1", "x/+", "x/#", "+/1", "#", "r", "w/+"]
STEPS = 60


# --- the model ------------------------------------------------------------------------------------------------------


def matches(pattern: list[str], topic: list[str]) -> bool:
    if pattern[:1] == ["#"]:
        return True
    if not pattern or not topic:
        return pattern == topic
    return pattern[0] in ("+", topic[0]) and matches(pattern[1:], topic[1:])


@dataclass
class Message:
    topic: str
    payload: bytes
    qos: int
    expires: float = float("inf")


@dataclass
class Entry:
    """A QoS 1 or 2 message of a session: waiting, published, or released (QoS 2, PUBREC has come)."""

    message: Message
    qos: int
    retain: bool
    state: str = "waiting"
    sent: bool = False  # on this connection
    number: int | None = None  # as the core chose it


@dataclass
class Session:
    name: str
    expiry: int
    subscriptions: dict[str, tuple[int, bool]] = field(default_factory=dict)  # filter: QoS, No Local
    entries: list[Entry] = field(default_factory=list)
    online: bool = False
    window: int = 0
    will: Message | None = None
    will_delay: int = 0
    will_at: float = float("inf")
    ends_at: float = float("inf")


class Model:
    """What must happen. `expected[name]` are the packets that the client of that name hears in this step."""

    def __init__(self) -> None:
        self.now = 0
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, Message] = {}
        self.expected: dict[str, list[Any]] = {name: [] for name in NAMES}

    def connect(self, name: str, clean: bool, expiry: int, window: int, left: Message | None, delay: int) -> bool:
        """Whether the session is present."""
        session = self.sessions.get(name)
        if session and session.online:
            if clean:
                session.expiry = 0
            self.gone(name, with_will=True)
            session = self.sessions.get(name)
        if session and clean:
            self.publish_will(session)
            del self.sessions[name]
            session = None
        present = session is not None
        if session is None:
            session = self.sessions[name] = Session(name, expiry)
        session.expiry, session.window, session.online = expiry, window, True
        session.will, session.will_delay = left, delay
        session.will_at = session.ends_at = float("inf")
        for entry in session.entries:
            entry.sent = False
        self.pump(session)
        return present

    def gone(self, name: str, *, with_will: bool) -> None:
        session = self.sessions[name]
        session.online = False
        self.expected[name] = []
        if not with_will:
            session.will = None
        session.ends_at = self.now + session.expiry
        session.will_at = min(self.now + session.will_delay, session.ends_at)
        self.pass_time()

    def pass_time(self) -> None:
        for session in list(self.sessions.values()):
            if not session.online and session.will_at <= self.now:
                self.publish_will(session)
            if not session.online and session.ends_at <= self.now:
                del self.sessions[session.name]

    def publish_will(self, session: Session) -> None:
        message, session.will = session.will, None
        if message:
            self.publish(message, session.name)

    def publish(self, message: Message, publisher: str | None = None, *, retain: bool = False) -> bool:
        """Whether anybody was there for it."""
        if retain and message.payload:
            self.retained[message.topic] = message
        elif retain:
            self.retained.pop(message.topic, None)
        reached = False
        for session in self.sessions.values():
            granted = [
                qos
                for pattern, (qos, no_local) in session.subscriptions.items()
                if matches(pattern.split("/"), message.topic.split("/"))
                and not (no_local and session.name == publisher)
            ]
            if granted:
                reached = True
                self.deliver(session, message, min(max(granted), message.qos), retain=False)
        return reached

    def deliver(self, session: Session, message: Message, qos: int, *, retain: bool) -> None:
        if message.expires <= self.now:
            return
        if qos:
            session.entries.append(Entry(message, qos, retain))
            self.pump(session)
        elif session.online:
            self.expected[session.name].append(("PUBLISH", message.topic, message.payload, 0, False, retain, None))

    def pump(self, session: Session) -> None:
        if not session.online:
            return
        for entry in list(session.entries):
            if entry.sent:
                continue
            if sum(other.sent for other in session.entries) >= session.window:
                return
            if entry.state == "waiting" and entry.message.expires <= self.now:
                session.entries.remove(entry)
                continue
            entry.sent = True
            if entry.state == "released":
                self.expected[session.name].append(("PUBREL", entry))
                continue
            again, entry.state = entry.state == "published", "published"
            message = entry.message
            said = ("PUBLISH", message.topic, message.payload, entry.qos, again, entry.retain, entry)
            self.expected[session.name].append(said)

    def acknowledge(self, session: Session, entry: Entry) -> None:
        if entry.qos == 2 and entry.state == "published":
            entry.state = "released"
            self.expected[session.name].append(("PUBREL", entry))
        else:
            session.entries.remove(entry)
            self.pump(session)


# --- programs -------------------------------------------------------------------------------------------------------


class Program:
    """One random program, told to the core and to the model step by step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.house = House()
        self.model = Model()
        self.clients: dict[str, Client] = {}
        self.log = [f"seed {seed}"]
        self.count = 0

    def run(self) -> None:
        steps = [
            self.connect,
            self.connect,
            self.end,
            self.subscribe,
            self.subscribe,
            self.unsubscribe,
            self.publish,
            self.publish,
            self.publish,
            self.gateway,
            self.acknowledge,
            self.acknowledge,
            self.acknowledge,
            self.wait,
            self.wait,
        ]
        for _ in range(STEPS):
            self.random.choice(steps)()
            self.compare()

    def message(self, topic: str, lifetime: int | None = None) -> Message:
        self.count += 1
        expires = float("inf") if lifetime is None else self.model.now + lifetime
        return Message(topic, b"%d" % self.count, self.random.randrange(3), expires)

    def online(self) -> str | None:
        names = [name for name, session in self.model.sessions.items() if session.online]
        return self.random.choice(names) if names else None

    def connect(self) -> None:
        r, name = self.random, self.random.choice(NAMES)
        version = r.choice([4, 5, 5])
        clean = r.random() < 0.25
        expiry = r.choice([0, 5, 100]) if version == 5 else (0 if clean else 604_800)
        window = r.choice([1, 2, 5]) if version == 5 else 64
        delay = 3 if version == 5 and name == "a" and r.random() < 0.5 else 0
        left = self.message(f"w/{name}") if r.random() < 0.4 else None
        props = properties(session_expiry_interval=expiry, receive_maximum=window) if version == 5 else []
        said = None
        if left:
            said = will(left.topic, left.payload, qos=left.qos, **({"will_delay_interval": delay} if delay else {}))
        self.log.append(f"connect {name} v{version} clean={clean} expiry={expiry} window={window} will={left} {delay}")
        client = self.clients[name] = self.house.join(name, version, clean=clean, props=props, will=said)
        present = self.model.connect(name, clean, expiry, window, left, delay)
        assert client.connack is not None
        assert client.connack["session_present"] is present, self.story()

    def end(self) -> None:
        if (name := self.online()) is None:
            return
        polite = self.random.random() < 0.5
        self.log.append(f"{'disconnect' if polite else 'lose'} {name}")
        client = self.clients.pop(name)
        if polite:
            client.send(disconnect())
        client.lose()
        self.model.gone(name, with_will=not polite)

    def subscribe(self) -> None:
        if (name := self.online()) is None:
            return
        pattern, qos = self.random.choice(FILTERS), self.random.randrange(3)
        no_local = self.clients[name].version == 5 and self.random.random() < 0.2
        self.log.append(f"subscribe {name} {pattern} {qos} no_local={no_local}")
        self.clients[name].send(subscribe(topic_filter(pattern, qos, no_local=no_local)))
        session = self.model.sessions[name]
        session.subscriptions[pattern] = (qos, no_local)
        self.model.expected[name].append(("SUBACK",))
        for topic, message in self.model.retained.items():
            if matches(pattern.split("/"), topic.split("/")):
                self.model.deliver(session, message, min(qos, message.qos), retain=True)

    def unsubscribe(self) -> None:
        if (name := self.online()) is None:
            return
        pattern = self.random.choice(FILTERS)
        self.log.append(f"unsubscribe {name} {pattern}")
        self.clients[name].send(unsubscribe(pattern))
        self.model.sessions[name].subscriptions.pop(pattern, None)
        self.model.expected[name].append(("UNSUBACK",))

    def publish(self) -> None:
        if (name := self.online()) is None:
            return
        client, r = self.clients[name], self.random
        lifetime = r.choice([1, 4]) if client.version == 5 and r.random() < 0.5 else None
        message = self.message(r.choice(TOPICS), lifetime)
        retain = message.topic == "r" and r.random() < 0.7  # one topic only: a walk has no order that means anything
        if retain and r.random() < 0.2:
            message.payload = b""
        self.log.append(f"publish {name} {message} retain={retain}")
        props = properties(message_expiry_interval=lifetime) if lifetime else []
        said = publish(message.topic, message.payload, message.qos, 9, retain=retain, props=props)
        client.send(said, *([ack("PUBREL", 9)] if message.qos == 2 else []))
        reached = self.model.publish(message, name, retain=retain)
        reason = 0 if reached or client.version < 5 else 0x10
        self.model.expected[name] += [[], [("PUBACK", reason)], [("PUBREC", reason), ("PUBCOMP",)]][message.qos]

    def gateway(self) -> None:
        message = self.message(self.random.choice(TOPICS[:-1]))
        self.log.append(f"gateway {message}")
        self.house.publish(message.topic, message.payload, qos=message.qos)
        self.model.publish(message)

    def acknowledge(self) -> None:
        """One of the messages that a client has heard of, mostly the first."""
        if (name := self.online()) is None:
            return
        session = self.model.sessions[name]
        entries = [entry for entry in session.entries if entry.sent]
        if not entries:
            return
        entry = entries[0] if self.random.random() < 0.6 else self.random.choice(entries)
        kind = "PUBACK" if entry.qos == 1 else "PUBREC" if entry.state == "published" else "PUBCOMP"
        self.log.append(f"{kind} {name} {entry}")
        assert entry.number is not None
        self.clients[name].send(ack(kind, entry.number))
        self.model.acknowledge(session, entry)

    def wait(self) -> None:
        seconds = self.random.choice([1, 2, 6])
        self.log.append(f"wait {seconds}")
        for _ in range(seconds):
            self.house.now += SECOND
            self.house.handle(self.house.broker.tick(self.house.now))
            self.model.now += 1
            self.model.pass_time()

    def compare(self) -> None:
        for name, client in self.clients.items():
            got = [self.plain(packet) for packet in client.read()]
            expected, self.model.expected[name] = self.model.expected[name], []
            assert len(got) == len(expected), self.story(name, got, expected)
            for (said, number), wanted in zip(got, expected, strict=True):
                entry = wanted[-1]
                if isinstance(entry, Entry):
                    wanted = wanted[:-1]
                    if entry.number is None:
                        assert wanted[0] == "PUBLISH", self.story(name, got, expected)
                        taken = {other.number for other in self.model.sessions[name].entries}
                        assert number not in taken, self.story(name, "an identifier twice", number)
                        entry.number = number
                    assert number == entry.number, self.story(name, got, expected)
                elif wanted[0] == "PUBLISH":
                    wanted = wanted[:-1]
                assert said == wanted, self.story(name, got, expected)
            assert client.closed is None, self.story(name, client.closed)
        assert self.house.stat("sessions") == len(self.model.sessions), self.story()

    @staticmethod
    def plain(packet: Packet) -> tuple[tuple[Any, ...], int | None]:
        kind = packet["type"]
        if kind == "PUBLISH":
            return (kind, *(packet[key] for key in ("topic", "payload", "qos", "dup", "retain"))), packet["id"]
        if kind in ("PUBACK", "PUBREC"):
            return (kind, packet["reason"]), None
        return (kind,), packet.get("id")

    def story(self, *more: object) -> str:
        return "\n".join([*self.log, *map(str, more)])


@pytest.mark.parametrize("batch", range(10))
def test_the_core_does_what_the_model_says(batch: int) -> None:
    """Each batch runs 200 programs of 60 steps; a failure prints the program, and its seed runs it again."""
    for seed in range(batch * 200, (batch + 1) * 200):
        Program(seed).run()


def test_the_programs_reach_what_they_are_meant_to() -> None:
    """The generator is not so tame that nothing happens: windows fill, messages expire, wait, are released."""
    seen: set[str] = set()
    for seed in range(100):
        program = Program(seed)
        program.run()
        for line in program.log:
            seen.add(line.split()[0])
        stats = program.house.broker.stats()
        seen |= {name for name in ("dropped_expired", "retained") if stats[name]}
        for session in program.model.sessions.values():
            seen |= {f"entry {entry.state}" for entry in session.entries}
            seen |= {"window full"} if sum(entry.sent for entry in session.entries) == session.window else set()
    assert {"connect", "disconnect", "lose", "subscribe", "unsubscribe", "publish", "gateway", "wait"} <= seen
    assert {"PUBACK", "PUBREC", "PUBCOMP", "dropped_expired", "retained"} <= seen
    assert {"entry waiting", "entry published", "entry released", "window full"} <= seen
