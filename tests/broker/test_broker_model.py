"""The core against a model: short random programs of several clients, and after every step each has heard what it must.

The model is naive on purpose: sessions are lists, matching walks level by level, nothing is indexed or shared. It says
what the standard says about who gets what, in which order, with which DUP and RETAIN, across connections, takeovers,
expiry and wills, with which Subscription Identifiers and lifetime (MQTT-3.1.2-4 to -6, -8, -23; 3.1.4-3; 3.3.1-5, -6,
-8 to -12; 3.3.2-5, -6, -8 to -10; 3.3.4-2, -3, -5, -9; 3.8.4-3, -8; 4.3.2; 4.3.3; 4.4.0-1; 4.5.0-1; 4.6.0-5;
4.8.2-4, -5).

Whom a message goes to by a shared subscription is the broker's to choose, among those it may choose. So the model keeps
every world that may be, and what the clients hear says which are not: when none is left, the core is wrong.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

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
from tests.effort import tries

NAMES = ["a", "b", "c"]
TOPICS = ["x", "x/1", "x/2", "y/1", "r"]
FILTERS = ["x", "x/1", "x/+", "x/#", "+/1", "#", "r", "w/+", "$share/g/x/+", "$share/g/+/1", "$share/h/#"]
STEPS = 60
ALIASES = 2  # the Topic Alias Maximum of the 5.0 clients: fewer than topics
WORLDS_TO_BRANCH = 4  # with more than so many, nothing is published that a group would get
WORLDS_MAX = 300  # a program that comes to more is ended early: what one session leaves can go many ways at once

T = TypeVar("T")


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
    retain: bool = False  # as it was published


@dataclass
class Subscription:
    qos: int
    no_local: bool = False
    as_published: bool = False
    identifier: int = 0
    group: int = 0  # of a shared one: the number of its group, which dies with its last member


@dataclass
class Entry:
    """A QoS 1 or 2 message of a session: waiting, published, or released (QoS 2, PUBREC has come)."""

    message: Message
    qos: int
    retain: bool
    identifiers: list[int]
    group: int
    state: str = "waiting"
    sent: bool = False  # on this connection
    number: int | None = None  # as the core chose it


@dataclass
class Session:
    name: str
    expiry: int
    subscriptions: dict[str, Subscription] = field(default_factory=dict)  # by filter, `$share/…` included
    version: int = 5
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
        self.groups = 0
        self.tape: list[int] = []  # what is to be chosen where there is a choice; the first after its end
        self.chosen: list[tuple[int, int]] = []  # what was chosen, of how many

    def connect(
        self, name: str, version: int, clean: bool, expiry: int, window: int, left: Message | None, delay: int
    ) -> bool:
        """Whether the session is present."""
        session = self.sessions.get(name)
        if session and session.online:
            if clean:
                session.expiry = 0
            self.gone(name, with_will=True)
            session = self.sessions.get(name)
        if session and clean:
            self.publish_will(session)
            self.end(session)
            session = None
        present = session is not None
        if session is None:
            session = self.sessions[name] = Session(name, expiry)
        session.version, session.expiry, session.window, session.online = version, expiry, window, True
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
                self.end(session)

    def end(self, session: Session) -> None:
        """The session is over; others of its groups get what it was chosen for, but for QoS 2 that it has seen."""
        del self.sessions[session.name]
        for entry in session.entries:
            if not entry.group or not (entry.state == "waiting" or (entry.state == "published" and entry.qos == 1)):
                continue
            if any(mine.group == entry.group for mine in session.subscriptions.values()):
                self.deliver_to_group(entry.group, entry.message)

    def publish_will(self, session: Session) -> None:
        message, session.will = session.will, None
        if message:
            self.publish(message, session.name)

    def subscribe(self, name: str, pattern: str, subscription: Subscription, handling: int) -> None:
        session = self.sessions[name]
        existed = pattern in session.subscriptions
        if pattern.startswith("$share/"):
            members = [
                other.subscriptions[pattern] for other in self.sessions.values() if pattern in other.subscriptions
            ]
            if not members:
                self.groups += 1
            subscription.group = members[0].group if members else self.groups
        session.subscriptions[pattern] = subscription
        self.expected[name].append(("SUBACK",))
        if subscription.group or handling == 2 or (handling == 1 and existed):
            return
        for topic, message in self.retained.items():
            if matches(pattern.split("/"), topic.split("/")):
                qos = min(subscription.qos, message.qos)
                self.deliver(session, message, qos, retain=True, identifiers=[subscription.identifier])

    def publish(self, message: Message, publisher: str | None = None) -> bool:
        """Whether anybody was there for it."""
        if message.retain and message.payload:
            self.retained[message.topic] = message
        elif message.retain:
            self.retained.pop(message.topic, None)
        reached = False
        for session in list(self.sessions.values()):
            matching = [
                mine
                for pattern, mine in session.subscriptions.items()
                if not mine.group
                and matches(pattern.split("/"), message.topic.split("/"))
                and not (mine.no_local and session.name == publisher)
            ]
            if matching:
                reached = True
                qos = min(max(mine.qos for mine in matching), message.qos)
                as_published = message.retain and any(mine.as_published for mine in matching)
                self.deliver(session, message, qos, retain=as_published, identifiers=[m.identifier for m in matching])
        groups = self.groups_of(message.topic)
        while groups:  # in whatever order
            reached = True
            self.deliver_to_group(groups.pop(self.choose(len(groups))), message)
        return reached

    def groups_of(self, topic: str) -> list[int]:
        """Those with a filter that matches."""
        found = {
            mine.group
            for session in self.sessions.values()
            for pattern, mine in session.subscriptions.items()
            if mine.group and matches(pattern.split("/")[2:], topic.split("/"))
        }
        return sorted(found)

    def deliver_to_group(self, group: int, message: Message) -> None:
        """To one of its members: of those that are connected, if there are any."""
        members = [
            (session, mine)
            for session in self.sessions.values()
            for mine in session.subscriptions.values()
            if mine.group == group
        ]
        members = [member for member in members if member[0].online] or members
        if not members:
            return
        session, mine = members[self.choose(len(members))]
        retain = message.retain and mine.as_published
        qos = min(mine.qos, message.qos)
        self.deliver(session, message, qos, retain=retain, identifiers=[mine.identifier], group=group)

    def choose(self, count: int) -> int:
        """One of so many, as the tape says."""
        at = self.tape[len(self.chosen)] if len(self.chosen) < len(self.tape) else 0
        self.chosen.append((at, count))
        return at

    def deliver(
        self, session: Session, message: Message, qos: int, *, retain: bool, identifiers: list[int], group: int = 0
    ) -> None:
        if message.expires <= self.now:
            return
        identifiers = sorted(number for number in identifiers if number)
        entry = Entry(message, qos, retain, identifiers, group)
        if qos:
            session.entries.append(entry)
            self.pump(session)
        elif session.online:
            self.expected[session.name].append((*self.said(session, entry, again=False), None))

    def said(self, session: Session, entry: Entry, *, again: bool) -> tuple[Any, ...]:
        """A PUBLISH as the client of the session is to hear it."""
        message = entry.message
        lifetime = None if message.expires == float("inf") else max(0, message.expires - self.now)
        extra = (lifetime, entry.identifiers) if session.version == 5 else (None, [])
        return ("PUBLISH", message.topic, message.payload, entry.qos, again, entry.retain, *extra)

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
            self.expected[session.name].append((*self.said(session, entry, again=again), entry))

    def acknowledge(self, name: str, number: int) -> None:
        session = self.sessions[name]
        (entry,) = (entry for entry in session.entries if entry.sent and entry.number == number)
        if entry.qos == 2 and entry.state == "published":
            entry.state = "released"
            self.expected[name].append(("PUBREL", entry))
        else:
            session.entries.remove(entry)
            self.pump(session)

    def tick(self) -> None:
        self.now += 1
        self.pass_time()

    def differs(self, name: str, got: list[tuple[tuple[Any, ...], int | None]]) -> str | None:
        """What of the packets that a client got is not as expected, None if all is. Learns the identifiers."""
        expected, self.expected[name] = self.expected[name], []
        story = f"{name} got {got}, expected {expected}"
        if len(got) != len(expected):
            return story
        for (said, number), wanted in zip(got, expected, strict=True):
            entry = wanted[-1]
            if isinstance(entry, Entry):
                wanted = wanted[:-1]
                if entry.number is None:
                    taken = {other.number for other in self.sessions[name].entries}
                    if wanted[0] != "PUBLISH" or number in taken:
                        return story + f"; an identifier twice: {number}"
                    entry.number = number
                if number != entry.number:
                    return story
            elif wanted[0] == "PUBLISH":
                wanted = wanted[:-1]
            if said != wanted:
                return story
        return None


# --- programs -------------------------------------------------------------------------------------------------------


class Program:
    """One random program, told step by step to the core and to the model: to every world that may be."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.house = House()
        self.worlds = [Model()]
        self.clients: dict[str, Client] = {}
        self.aliases: dict[str, dict[int, str]] = {}  # what the broker's aliases stand for, by client
        self.own_aliases: dict[str, dict[str, int]] = {}  # what a client's own stand for
        self.log = [f"seed {seed}"]
        self.count = 0
        self.most_worlds = 1

    def run(self) -> None:
        steps = [
            self.connect,
            self.connect,
            self.end,
            self.subscribe,
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
            if len(self.worlds) > WORLDS_MAX:
                return
            self.compare()

    @property
    def model(self) -> Model:
        """One of the worlds, for what is the same in all of them."""
        return self.worlds[0]

    def tell(self, step: Callable[[Model], T]) -> T:
        """Does something in every world; a world where a choice is made becomes one for each choice."""
        worlds: list[Model] = []
        results: list[T] = []
        for world in self.worlds:
            if not world.groups:  # nothing to choose from, so nothing to copy
                results.append(step(world))
                worlds.append(world)
                continue
            tapes: list[list[int]] = [[]]
            while tapes and len(worlds) <= WORLDS_MAX:
                tape = tapes.pop()
                model = copy.deepcopy(world)
                model.tape, model.chosen = tape, []
                results.append(step(model))
                worlds.append(model)
                for at in range(len(tape), len(model.chosen)):
                    before = [chosen for chosen, _ in model.chosen[:at]]
                    tapes += [[*before, other] for other in range(1, model.chosen[at][1])]
        self.worlds = worlds
        self.most_worlds = max(self.most_worlds, len(worlds))
        assert all(result == results[0] for result in results), self.story("the worlds differ where they must not")
        return results[0]

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
        props = []
        if version == 5:
            aliases = {"topic_alias_maximum": ALIASES} if r.random() < 0.5 else {}
            props = properties(session_expiry_interval=expiry, receive_maximum=window, **aliases)
        said = None
        if left:
            said = will(left.topic, left.payload, qos=left.qos, **({"will_delay_interval": delay} if delay else {}))
        self.log.append(f"connect {name} v{version} clean={clean} expiry={expiry} window={window} will={left} {delay}")
        client = self.clients[name] = self.house.join(name, version, clean=clean, props=props, will=said)
        self.aliases[name], self.own_aliases[name] = {}, {}
        present = self.tell(lambda m: m.connect(name, version, clean, expiry, window, left, delay))
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
        self.tell(lambda m: m.gone(name, with_will=not polite))

    def subscribe(self) -> None:
        if (name := self.online()) is None:
            return
        r, pattern = self.random, self.random.choice(FILTERS)
        wish, handling, props = Subscription(r.randrange(3)), 0, []
        if self.clients[name].version == 5:
            wish.no_local = r.random() < 0.2 and not pattern.startswith("$share/")
            wish.as_published = r.random() < 0.4
            wish.identifier = r.choice([0, 1, 2, 268_435_455])
            handling = r.choice([0, 0, 1, 2])
            props = properties(subscription_identifier=wish.identifier) if wish.identifier else []
        self.log.append(f"subscribe {name} {pattern} {wish} retain_handling={handling}")
        options = {"no_local": wish.no_local, "retain_as_published": wish.as_published, "retain_handling": handling}
        self.clients[name].send(subscribe(topic_filter(pattern, wish.qos, **options), props=props))
        self.tell(lambda m: m.subscribe(name, pattern, copy.copy(wish), handling))

    def unsubscribe(self) -> None:
        if (name := self.online()) is None:
            return
        pattern = self.random.choice(FILTERS)
        self.log.append(f"unsubscribe {name} {pattern}")
        self.clients[name].send(unsubscribe(pattern))

        def step(model: Model) -> None:
            model.sessions[name].subscriptions.pop(pattern, None)
            model.expected[name].append(("UNSUBACK",))

        self.tell(step)

    def publish(self) -> None:
        if (name := self.online()) is None:
            return
        client, r = self.clients[name], self.random
        lifetime = r.choice([1, 4]) if client.version == 5 and r.random() < 0.5 else None
        message = self.message(r.choice(TOPICS), lifetime)
        message.retain = message.topic == "r" and r.random() < 0.7  # one topic only: a walk has no order to speak of
        if message.retain and r.random() < 0.2:
            message.payload = b""
        if self.too_many(message.topic):
            return
        props = properties(message_expiry_interval=lifetime) if lifetime else []
        topic = message.topic
        if client.version == 5 and r.random() < 0.5:  # by one of two aliases, the second time without the name
            own = self.own_aliases[name]
            if topic in own:
                topic = ""
            else:
                number = r.randrange(1, 3)
                self.own_aliases[name] = own = {key: value for key, value in own.items() if value != number}
                own[topic] = number
            props += properties(topic_alias=own[message.topic])
        self.log.append(f"publish {name} {message} {props}")
        said = publish(topic, message.payload, message.qos, 9, retain=message.retain, props=props)
        client.send(said, *([ack("PUBREL", 9)] if message.qos == 2 else []))

        def step(model: Model) -> None:
            reached = model.publish(message, name)
            reason = 0 if reached or client.version < 5 else 0x10
            model.expected[name] += [[], [("PUBACK", reason)], [("PUBREC", reason), ("PUBCOMP",)]][message.qos]

        self.tell(step)

    def too_many(self, topic: str) -> bool:
        return len(self.worlds) > WORLDS_TO_BRANCH and bool(self.model.groups_of(topic))

    def gateway(self) -> None:
        message = self.message(self.random.choice(TOPICS[:-1]))
        if self.too_many(message.topic):
            return
        self.log.append(f"gateway {message}")
        self.house.publish(message.topic, message.payload, qos=message.qos)
        self.tell(lambda m: m.publish(message))

    def acknowledge(self) -> None:
        """One of the messages that a client has heard of, mostly the first."""
        if (name := self.online()) is None:
            return
        entries = [entry for entry in self.model.sessions[name].entries if entry.sent]
        if not entries:
            return
        entry = entries[0] if self.random.random() < 0.6 else self.random.choice(entries)
        kind = "PUBACK" if entry.qos == 1 else "PUBREC" if entry.state == "published" else "PUBCOMP"
        self.log.append(f"{kind} {name} {entry}")
        number = entry.number
        assert number is not None
        self.clients[name].send(ack(kind, number))
        self.tell(lambda m: m.acknowledge(name, number))

    def wait(self) -> None:
        seconds = self.random.choice([1, 2, 6])
        self.log.append(f"wait {seconds}")
        for _ in range(seconds):
            self.house.now += SECOND
            self.house.handle(self.house.broker.tick(self.house.now))
            self.tell(Model.tick)

    def compare(self) -> None:
        """What the clients got: the worlds where that is impossible are none."""
        for name, client in self.clients.items():
            got = [self.plain(name, packet) for packet in client.read()]
            differences = [world.differs(name, got) for world in self.worlds]
            self.worlds = [world for world, difference in zip(self.worlds, differences, strict=True) if not difference]
            assert self.worlds, self.story(*differences)
            assert client.closed is None, self.story(name, client.closed)
        assert self.house.stat("sessions") == len(self.model.sessions), self.story()

    def plain(self, name: str, packet: Packet) -> tuple[tuple[Any, ...], int | None]:
        kind = packet["type"]
        if kind == "PUBLISH":
            fields = ("payload", "qos", "dup", "retain")
            props: list[list[Any]] = packet["properties"]
            lifetime = next((value for key, value in props if key == "message_expiry_interval"), None)
            identifiers = sorted(value for key, value in props if key == "subscription_identifier")
            topic = self.topic(name, packet["topic"], [value for key, value in props if key == "topic_alias"])
            return (kind, topic, *(packet[key] for key in fields), lifetime, identifiers), packet["id"]
        if kind in ("PUBACK", "PUBREC"):
            return (kind, packet["reason"]), None
        return (kind,), packet.get("id")

    def topic(self, name: str, said: str, alias: list[int]) -> str:
        """The topic name, as the client knows it that is told `said` and perhaps an alias (5.0 §3.3.2.3.4)."""
        known = self.aliases[name]
        for number in alias:
            assert 0 < number <= ALIASES, self.story(f"alias {number} to {name}")
            if said:
                known[number] = said
            assert number in known, self.story(f"alias {number} to {name} was never told")
            return known[number]
        return said

    def story(self, *more: object) -> str:
        return "\n".join([*self.log, *map(str, more)])


@pytest.mark.parametrize("batch", range(10))
def test_the_core_does_what_the_model_says(batch: int) -> None:
    """Each batch runs 25 programs of 60 steps; a failure prints the program, and its seed runs it again."""
    for seed in range(batch * tries(25), (batch + 1) * tries(25)):
        Program(seed).run()


def test_the_programs_reach_what_they_are_meant_to() -> None:
    """The generator is not so tame that nothing happens: windows fill, messages expire, wait, are released."""
    seen: set[str] = set()
    for seed in range(100):
        program = Program(seed)
        program.run()
        for line in program.log:
            seen.add(line.split()[0])
        seen |= {"worlds"} if program.most_worlds > 1 else set()
        seen |= {"known alias" for known in program.aliases.values() if known}
        seen |= {"own alias" for own in program.own_aliases.values() if own}
        stats = program.house.broker.stats()
        seen |= {name for name in ("dropped_expired", "retained") if stats[name]}
        for session in program.model.sessions.values():
            seen |= {f"entry {entry.state}" for entry in session.entries}
            seen |= {"entry of a group" for entry in session.entries if entry.group}
            seen |= {"entry with identifiers" for entry in session.entries if len(entry.identifiers) > 1}
            seen |= {"entry with retain" for entry in session.entries if entry.retain}
            seen |= {"window full"} if sum(entry.sent for entry in session.entries) == session.window else set()
    assert {"connect", "disconnect", "lose", "subscribe", "unsubscribe", "publish", "gateway", "wait"} <= seen
    assert {"PUBACK", "PUBREC", "PUBCOMP", "dropped_expired", "retained"} <= seen
    assert {"entry waiting", "entry published", "entry released", "window full"} <= seen
    assert {"entry of a group", "entry with identifiers", "entry with retain", "worlds"} <= seen
    assert {"known alias", "own alias"} <= seen
