"""Writes seeds for the fuzz target fuzz_broker into a folder, one file each.

    python -m tests.fuzz.broker_seeds FOLDER

The rule it keeps: a seed is what the target reads, the records that fuzz_broker.c describes. There is one for each
vector (a client is let in and says what the vector is; the answers are read, time passes) and one for each scenario in
which several clients meet. The same files every time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tests.fuzz.seeds import write_seeds
from tests.reference import vectors
from tests.reference.codec import encode

MAX_PACKET_SIZE = 4096  # bytes; the target's limit


class Program:
    """Records in order; links are numbered from 0. Its clients speak one version of the protocol."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.data = b""

    # --- records ---

    def feed(self, link: int, data: bytes) -> None:
        self.data += bytes([link << 3]) + len(data).to_bytes(2, "big") + data

    def say(self, link: int, packet: dict[str, Any]) -> None:
        self.feed(link, encode(packet, self.version))

    def tick(self, seconds: int) -> None:
        self.data += bytes([1, 2 * seconds])

    def read(self, *links: int, share: int = 255) -> None:
        for link in links:
            self.data += bytes([link << 3 | 2, share])

    def lose(self, link: int) -> None:
        self.data += bytes([link << 3 | 3, 0])

    def verdict(self, slot: int = 0, *, refuse: bool = False, later: bool = False) -> None:
        self.data += bytes([4, refuse | slot << 1 | later << 2])

    def close(self, link: int, reason: int) -> None:
        self.data += bytes([link << 3 | 5, reason])

    def gateway_publishes(self, *, qos: int = 1, retain: bool = False, empty: bool = False) -> None:
        self.data += bytes([6, qos | retain << 1 | (not empty) << 2])

    def load_rules(self, slots: int, *, rates: int = 0, fails: bool = False, keep: bool = False) -> None:
        """`rates`: 1 publications, 2 bytes, 4 disconnects who is faster. `keep` counts in the first record."""
        self.data += bytes([7 | rates << 3 | fails << 6, slots | keep << 6])

    # --- packets ---

    def connect(self, link: int, name: str, *, keep: bool = False, **more: Any) -> None:
        self.say(link, self.hello(name, keep=keep, **more))

    def hello(self, name: str, *, keep: bool = False, **more: Any) -> dict[str, Any]:
        return {
            "type": "CONNECT",
            "version": self.version,
            "clean_start": not keep,
            "keep_alive": 60,
            "client_id": name,
            "properties": [["session_expiry_interval", 50]] if keep and self.version == 5 else [],
            "will": None,
            "username": None,
            "password": None,
            **more,
        }

    def will(self) -> dict[str, Any]:
        late = [["will_delay_interval", 5], ["message_expiry_interval", 3]] if self.version == 5 else []
        return {"qos": 1, "retain": True, "topic": "a/x/b", "payload": b"gone", "properties": late}

    def subscribe(self, link: int, topic_filter: str, qos: int = 0) -> None:
        self.say(link, subscription(topic_filter, qos))

    def publish(self, link: int, topic: str, qos: int = 0, number: int = 1, **more: Any) -> None:
        self.say(link, publication(topic, qos, number, **more))

    def ack(self, link: int, kind: str, *numbers: int) -> None:
        for number in numbers:
            self.say(link, {"type": kind, "id": number, "reason": 0, "properties": []})


def subscription(topic_filter: str, qos: int) -> dict[str, Any]:
    options = {"no_local": False, "retain_as_published": False, "retain_handling": 0}
    return {
        "type": "SUBSCRIBE",
        "id": 1,
        "properties": [],
        "filters": [{"filter": topic_filter, "qos": qos, **options}],
    }


def publication(topic: str, qos: int, number: int, **more: Any) -> dict[str, Any]:
    usual = {"dup": False, "retain": False, "properties": [], "payload": b"15"}
    return {"type": "PUBLISH", "topic": topic, "qos": qos, "id": number if qos else None, **usual, **more}


def queue(p: Program) -> None:
    """Messages of every QoS wait for a client that is away, and it takes them in several goes."""
    expiring = {"properties": [["message_expiry_interval", 5]]} if p.version == 5 else {}
    p.connect(0, "a", keep=True)
    p.subscribe(0, "a/+/b", 2)
    p.read(0)
    p.lose(0)
    p.connect(1, "b")
    for number in range(1, 12):
        p.publish(1, "a/x/b", number % 3, number, **expiring)
    p.ack(1, "PUBREL", 2, 5, 8, 11)
    p.read(1)
    p.connect(0, "a", keep=True)
    p.read(0)
    p.ack(0, "PUBACK", 1)
    p.ack(0, "PUBREC", 2)
    p.read(0, share=20)
    p.lose(0)
    p.tick(6)
    p.connect(0, "a", keep=True)
    p.read(0)
    p.ack(0, "PUBCOMP", 2)
    p.read(0)


def takeover(p: Program) -> None:
    """Connections with one client identifier chase each other."""
    for number in range(12):
        p.connect(number % 5, "same", keep=number % 3 > 0, will=p.will())
        p.subscribe(number % 5, "a/#", 1)
        if number % 4 == 3:
            p.lose(number % 5)
        p.read(number % 5)
        p.tick(number)


def retained(p: Program) -> None:
    """More retained messages than there is room for; some expire."""
    expiring = {"properties": [["message_expiry_interval", 5]]} if p.version == 5 else {}
    p.connect(0, "a")
    for number in range(20):
        p.publish(0, f"r/{number}", number % 3, number + 1, retain=True, **expiring)
    p.connect(1, "b")
    p.subscribe(1, "r/+", 2)
    p.read(1, share=10)
    p.tick(3)
    p.read(1)
    p.publish(0, "r/3", retain=True, payload=b"")
    p.gateway_publishes(retain=True)
    p.tick(100)
    p.gateway_publishes(retain=True, empty=True)
    p.publish(0, "r/30", retain=True)
    p.read(1)


def wills(p: Program) -> None:
    """A client is lost, says goodbye, falls silent."""
    p.connect(0, "w", keep=True, will=p.will())
    p.connect(1, "b")
    p.subscribe(1, "#", 1)
    p.lose(0)
    p.tick(4)
    p.read(1)
    p.tick(2)
    p.read(1)
    p.tick(60)
    p.connect(2, "w", will=p.will())
    p.say(2, {"type": "DISCONNECT", "reason": 0, "properties": []})
    p.read(2)
    p.lose(2)
    p.connect(3, "w", will=p.will(), keep_alive=2)
    p.tick(4)
    p.read(3, 1)


def window(p: Program) -> None:
    """Acknowledgements in any order, unknown ones among them, and a new connection in the middle."""
    p.connect(0, "a", keep=True)
    p.subscribe(0, "/plant/me/#", 2)
    for _ in range(12):
        p.gateway_publishes()
    p.ack(0, "PUBACK", 3, 1, 2, 9, 4, 5)
    p.read(0)
    p.close(0, 0x8B)
    p.lose(0)
    p.connect(0, "a", keep=True)
    p.read(0)


def rules(p: Program) -> None:
    """What is allowed, what is not, and what is not any more."""
    p.verdict(1)
    p.connect(0, "me")
    p.subscribe(0, "/plant/me/#", 1)
    p.subscribe(0, "#")
    p.publish(0, "/plant/other/state", 1, 3)
    p.gateway_publishes(retain=True)
    p.publish(0, "/plant/me/UpdateTemperature", 1, 4, retain=True)
    p.load_rules(0b01)
    p.gateway_publishes()
    p.read(0)
    p.load_rules(0b11)
    p.verdict(1, refuse=True)
    p.connect(1, "x")
    p.read(1)


def parked(p: Program) -> None:
    """Packets that came behind a CONNECT wait for the verdict on it."""
    p.verdict(later=True)
    p.connect(0, "a")
    p.subscribe(0, "a/b", 1)
    p.say(0, {"type": "PINGREQ"})
    half = encode(publication("a/b", 1, 7), p.version)
    p.feed(0, half[:5])
    p.verdict()
    p.feed(0, half[5:])
    p.read(0)
    p.verdict(later=True)
    p.connect(1, "a")
    p.lose(0)
    p.verdict(refuse=True)
    p.read(1)


def byte_by_byte(p: Program) -> None:
    """A stream in the smallest pieces."""
    packets = (p.hello("a"), subscription("a/b", 2), publication("a/b", 2, 9))
    for byte in b"".join(encode(packet, p.version) for packet in packets):
        p.feed(0, bytes([byte]))
    p.read(0)


def throttled(p: Program) -> None:
    """More than one call may do for a client, and then more than its rate."""
    p.connect(0, "a")
    for link, pattern in enumerate(("#", "a/+", "+/b", "a/b"), 1):
        p.connect(link, f"b{link}")
        p.subscribe(link, pattern, link % 3)
    p.feed(0, encode(publication("a/b", 0, 1, payload=b""), p.version) * 450)
    p.tick(1)
    p.read(0, 1, 2, 3, 4)
    for rates in (1, 2, 5, 6):
        p.load_rules(3, rates=rates)
        p.feed(0, encode(publication("a/b", 0, 1), p.version) * 60)
        p.tick(1)
        p.publish(0, "a/b", 1, 2)
        p.tick(2)
        p.read(0, 1)
        p.connect(0, "a")


def slices(p: Program) -> None:
    """Retained messages come as fast as they are read."""
    p.connect(0, "a")
    for number in range(12):
        p.publish(0, f"a/{number}/b", 1, 1, retain=True, payload=b"x" * 600)
    p.connect(1, "b", keep=True)
    p.subscribe(1, "a/#", 1)
    for _ in range(4):
        p.subscribe(1, "a/+/b", 1)
        p.read(1, share=60)
        p.ack(1, "PUBACK", 1, 2, 3, 4)
        p.tick(1)
    p.lose(1)
    p.connect(1, "b", keep=True)
    p.read(1)
    p.tick(1)
    p.read(1)


def kept(p: Program) -> None:
    """Acknowledgements wait for the disk, which fails for a while."""
    p.load_rules(3, keep=True)
    p.connect(0, "a", keep=True, will=p.will())
    p.subscribe(0, "#", 2)
    p.tick(1)
    p.read(0)
    for qos in (1, 2):
        p.publish(0, "a/x/b", qos, qos, retain=True)
        p.read(0)
        p.tick(1)
        p.read(0)
    p.ack(0, "PUBACK", 1)
    p.ack(0, "PUBREC", 2)
    p.ack(0, "PUBREL", 2)
    p.publish(0, "a/y/b", 1, 3)
    p.load_rules(3, fails=True)
    p.connect(1, "b", keep=True)
    p.connect(2, "c")
    p.subscribe(2, "#", 1)
    p.publish(2, "a/z/b", 1, 3)
    p.publish(2, "a/z/b", 2, 4, retain=True)
    p.read(0, 1, 2)
    p.load_rules(3)
    p.connect(0, "a", keep=True)
    p.tick(1)
    p.read(0)
    p.lose(0)
    p.tick(60)


SCENARIOS: tuple[Callable[[Program], None], ...] = (
    queue,
    takeover,
    retained,
    wills,
    window,
    rules,
    parked,
    byte_by_byte,
    throttled,
    slices,
    kept,
)


def of_vector(vector: vectors.Vector) -> bytes:
    p = Program(vector.version)
    if vector.data[0] >> 4 != 1:  # not a CONNECT itself
        p.connect(0, "me", keep=True)
        p.subscribe(0, "#", 2)
    p.feed(0, vector.data)
    p.read(0)
    p.tick(1)
    p.read(0, share=100)
    p.lose(0)
    p.tick(100)
    return p.data


def seeds() -> dict[str, bytes]:
    found = {vector.name: of_vector(vector) for vector in vectors.load() if len(vector.data) <= MAX_PACKET_SIZE}
    for scenario in SCENARIOS:
        for version in (3, 4, 5):
            program = Program(version)
            scenario(program)
            found[f"{scenario.__name__}-{version}"] = program.data
    return found


if __name__ == "__main__":
    sys.exit(write_seeds("fuzz_broker", seeds()))
