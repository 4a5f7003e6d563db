"""A broker core without sockets, and clients that are nothing but a codec: what the tests of the core live in.

The rule it keeps: bytes go in, bytes come out, and the time is a number that tests set. The clients' side is the
reference codec, so the core is never held against itself. Every event is kept with the client that it is about.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from peanutd import _core
from tests.reference import codec

Packet = dict[str, Any]

MAY = _core.MAY_PUBLISH | _core.MAY_SUBSCRIBE | _core.MAY_SHARE
EVERYTHING = [(True, MAY, _core.RETAIN_ANY, "#"), (True, MAY, _core.RETAIN_ANY, "$SYS/#")]
"""Rules that forbid nothing."""

SECOND = 1000  # the core counts milliseconds


# --- packets --------------------------------------------------------------------------------------------------------


def properties(**named: Any) -> list[list[Any]]:
    return [[name, value] for name, value in named.items()]


def connect(client_id: str = "c", version: int = 5, *, clean: bool = True, keep_alive: int = 0, **more: Any) -> Packet:
    """`props` is a list of pairs; `will` comes from `will`."""
    return {
        "type": "CONNECT",
        "version": version,
        "clean_start": clean,
        "keep_alive": keep_alive,
        "client_id": client_id,
        "properties": more.pop("props", []),
        "will": None,
        "username": None,
        "password": None,
        **more,
    }


def will(topic: str = "will", payload: bytes = b"gone", *, qos: int = 0, retain: bool = False, **props: Any) -> Packet:
    return {"topic": topic, "payload": payload, "qos": qos, "retain": retain, "properties": properties(**props)}


def publish(topic: str, payload: bytes = b"x", qos: int = 0, number: int = 1, **more: Any) -> Packet:
    return {
        "type": "PUBLISH",
        "dup": False,
        "qos": qos,
        "retain": False,
        "topic": topic,
        "id": number if qos else None,
        "payload": payload,
        "properties": more.pop("props", []),
        **more,
    }


def topic_filter(text: str, qos: int = 0, **options: Any) -> Packet:
    return {
        "filter": text,
        "qos": qos,
        "no_local": False,
        "retain_as_published": False,
        "retain_handling": 0,
        **options,
    }


def subscribe(*filters: Packet, number: int = 1, props: Sequence[list[Any]] = ()) -> Packet:
    return {"type": "SUBSCRIBE", "id": number, "properties": list(props), "filters": list(filters)}


def unsubscribe(*filters: str, number: int = 1) -> Packet:
    return {"type": "UNSUBSCRIBE", "id": number, "properties": [], "filters": list(filters)}


def ack(kind: str, number: int, reason: int = 0) -> Packet:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return {"type": kind, "id": number, "reason": reason, "properties": []}


def disconnect(reason: int = 0, **props: Any) -> Packet:
    return {"type": "DISCONNECT", "reason": reason, "properties": properties(**props)}


PINGREQ: Packet = {"type": "PINGREQ"}
PINGRESP: Packet = {"type": "PINGRESP"}


# --- the broker and its clients -------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What becomes of a CONNECT: let in under the rules of a slot, refused with a reason, or left waiting."""

    slot: int = 0
    identity: str = "me"
    refuse: int = 0
    wait: bool = False
    assigned: str | None = None


class Client:
    """One connection. What it was sent is decoded by `read`; what the core says about it is in `events`."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.version = 5
        self.verdict = Verdict()
        self.events: list[tuple[int, int, str]] = []
        self.inbox: list[Packet] = []
        self.connack: Packet | None = None
        self.link = house.broker.open(self, house.now)
        self._decoder = codec.Decoder(5)

    # what happened to it

    @property
    def closed(self) -> int | None:
        """The reason with which the core closed the connection, None while it is open."""
        reasons = [reason for kind, reason, _ in self.events if kind == _core.EVENT_CLOSED]
        assert len(reasons) < 2, "closed twice"
        return reasons[0] if reasons else None

    @property
    def offline(self) -> int | None:
        """The reason with which its session went offline, None while it is online."""
        reasons = [reason for kind, reason, _ in self.events if kind == _core.EVENT_DISCONNECT]
        assert len(reasons) < 2, "disconnected twice"
        return reasons[0] if reasons else None

    @property
    def denied(self) -> list[str]:
        return [text for kind, _, text in self.events if kind == _core.EVENT_DENIED]

    @property
    def paused(self) -> bool:
        """Whether the core wants nothing more to be read from it, because it is too fast."""
        told = [kind for kind, _, _ in self.events if kind in (_core.EVENT_PAUSE, _core.EVENT_RESUME)]
        return bool(told) and told[-1] == _core.EVENT_PAUSE

    # what it says

    def feed(self, data: bytes) -> None:
        self.house.handle(self.link.feed(data, self.house.now))

    def send(self, *packets: Packet) -> None:
        self.feed(b"".join(codec.encode(packet, self.version) for packet in packets))

    def connect(self, client_id: str = "c", version: int = 5, **more: Any) -> Client:
        """Sends a CONNECT and reads what comes back: CONNACK into `connack`, the rest into `inbox`."""
        self.version = version
        self._decoder = codec.Decoder(version)
        self.send(connect(client_id, version, **more))
        self.read_connack()
        return self

    def read_connack(self) -> None:
        self.fetch()
        if self.inbox and self.inbox[0]["type"] == "CONNACK":
            self.connack = self.inbox.pop(0)

    def lose(self) -> None:
        self.house.here.discard(self)
        self.house.handle(self.link.lost(self.house.now))

    # what it hears

    def take(self) -> bytes:
        """The output as bytes, undecoded."""
        data = b""
        while chunk := self.link.take(1 << 16):
            data += chunk
        return data

    def fetch(self) -> None:
        while chunk := self.link.take(4096):
            self.inbox += self._decoder.feed(chunk)

    def read(self) -> list[Packet]:
        """Every packet since the last call."""
        self.fetch()
        packets, self.inbox = self.inbox, []
        return packets

    def only(self) -> Packet:
        """The one packet since the last call."""
        (packet,) = self.read()
        return packet

    def ask(self, packet: Packet, kind: str) -> Packet:
        """Sends a packet; takes the answer of type `kind` out of what comes back, the rest stays for `read`."""
        self.send(packet)
        self.fetch()
        answers = [found for found in self.inbox if found["type"] == kind]
        assert len(answers) == 1, f"{len(answers)} answers of type {kind} in {self.inbox}"
        self.inbox.remove(answers[0])
        return answers[0]

    def subscribe(self, *filters: str, qos: int = 0, **options: Any) -> list[int]:
        """The reason codes (before 5.0: return codes) of the SUBACK."""
        packet = subscribe(*(topic_filter(text, qos, **options) for text in filters), number=77)
        answer = self.ask(packet, "SUBACK")
        assert answer["id"] == 77
        return cast(list[int], answer["reasons"])

    def messages(self) -> list[tuple[str, bytes, int]]:
        """Topic, payload and QoS of what was published to it; nothing else may have come."""
        packets = self.read()
        assert all(packet["type"] == "PUBLISH" for packet in packets), packets
        return [(packet["topic"], packet["payload"], packet["qos"]) for packet in packets]

    def payloads(self) -> list[bytes]:
        return [payload for _, payload, _ in self.messages()]


class House:
    """A broker, the time in milliseconds, and its clients. Rule set 0 allows everything."""

    def __init__(self, **limits: int) -> None:
        self.now = 1_000_000
        self.broker = _core.Broker(seed=b"a fixed seed", **limits)
        self.broker.set_rules(0, EVERYTHING)
        self._events: deque[_core.Event] = deque()
        self.here: set[Client] = (
            set()
        )  # a test may forget a client; its connection does not end whenever that is collected

    def open(self, verdict: Verdict | None = None) -> Client:
        """A connection that has said nothing yet."""
        client = Client(self)
        client.verdict = verdict or Verdict()
        self.here.add(client)
        return client

    def join(self, client_id: str = "c", version: int = 5, *, verdict: Verdict | None = None, **more: Any) -> Client:
        """A client that has sent its CONNECT."""
        return self.open(verdict).connect(client_id, version, **more)

    def keeper(self, client_id: str = "k", version: int = 5, *, clean: bool = False, **more: Any) -> Client:
        """A client whose session outlives its connection."""
        props = [["session_expiry_interval", 3600], *more.pop("props", [])] if version == 5 else []
        return self.join(client_id, version, clean=clean, props=props, **more)

    def wait(self, seconds: float) -> None:
        """Lets time pass, and the broker notice."""
        self.now += round(seconds * SECOND)
        self.handle(self.broker.tick(self.now))

    def publish(self, topic: str, payload: bytes = b"x", *, qos: int = 0, retain: bool = False) -> None:
        """The gateway publishes in its own name."""
        self.handle(self.broker.publish(topic, payload, qos=qos, retain=retain, now=self.now))

    def stat(self, name: str) -> int:
        return self.broker.stats()[name]

    def handle(self, events: Sequence[_core.Event]) -> None:
        """Deals with events as a driver does, one after the other; a verdict raises further ones."""
        nested = bool(self._events)
        self._events.extend(events)
        while self._events and not nested:
            kind, link, reason, text = self._events[0]
            client = cast(Client, link.owner)
            client.events.append((kind, reason, text))
            if kind == _core.EVENT_CONNECT:
                self.judge(client)
            self._events.popleft()

    def judge(self, client: Client) -> None:
        """Gives the verdict on the CONNECT of a client that waits."""
        verdict, wish = client.verdict, client.link.connect
        assert wish is not None
        if verdict.wait:
            return
        if verdict.refuse:
            self.handle(client.link.refuse(verdict.refuse, now=self.now))
            return
        client_id = verdict.assigned or wish.client_id
        self.handle(
            client.link.accept(
                session=f"{verdict.identity}/{client_id}",
                identity=verdict.identity,
                rules=verdict.slot,
                assigned_client_id=verdict.assigned,
                now=self.now,
            )
        )
