"""Writes seeds for the fuzz target fuzz_broker into a directory: `python tests/fuzz/broker_seeds.py DIRECTORY`.

A seed is a list of the records that fuzz_broker.c describes. One for each vector: a client is let in, says what the
vector is, time passes, the answers are read. And scenarios in which several clients meet: retained messages, queues,
takeovers, wills, windows. The same every time.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reference.codec import encode
from reference.vectors import load

Packet = dict[str, Any]
HALF_SECONDS = 2  # a tick's byte counts half seconds


def feed(link: int, data: bytes) -> bytes:
    return bytes([link << 3]) + len(data).to_bytes(2, "big") + data


def tick(seconds: int) -> bytes:
    return bytes([1, min(255, seconds * HALF_SECONDS)])


def read(link: int, share: int = 255) -> bytes:
    return bytes([link << 3 | 2, share])


def lost(link: int) -> bytes:
    return bytes([link << 3 | 3, 0])


def verdict(slot: int = 0, *, refuse: bool = False, later: bool = False) -> bytes:
    return bytes([4, refuse | slot << 1 | later << 2])


def close(link: int, reason: int) -> bytes:
    return bytes([link << 3 | 5, reason])


def gateway_publishes(argument: int) -> bytes:
    return bytes([6, argument])


def reload_rules(argument: int) -> bytes:
    return bytes([7, argument])


def connect(version: int, name: str, **more: Any) -> bytes:
    packet = {"type": "CONNECT", "version": version, "clean_start": True, "keep_alive": 60, "client_id": name}
    usual: Packet = {"properties": [], "will": None, "username": None, "password": None}
    return encode({**packet, **usual, **more}, version)


def subscribe(version: int, topic_filter: str, qos: int = 0, packet_id: int = 1) -> bytes:
    options = {"no_local": False, "retain_as_published": False, "retain_handling": 0}
    filters = [{"filter": topic_filter, "qos": qos, **options}]
    return encode({"type": "SUBSCRIBE", "id": packet_id, "properties": [], "filters": filters}, version)


def publish(version: int, topic: str, qos: int = 0, packet_id: int | None = None, **more: Any) -> bytes:
    packet = {"type": "PUBLISH", "dup": False, "qos": qos, "retain": False, "topic": topic, "id": packet_id}
    return encode({**packet, "properties": [], "payload": b"15", **more}, version)


def ack(version: int, kind: str, packet_id: int) -> bytes:
    return encode({"type": kind, "id": packet_id, "reason": 0, "properties": []}, version)


def say(version: int, kind: str) -> bytes:
    return encode({"type": kind, "reason": 0, "properties": []} if kind == "DISCONNECT" else {"type": kind}, version)


def of_vectors() -> Iterator[tuple[str, bytes]]:
    for vector in load():
        if len(vector.data) > 4000:
            continue
        if vector.packet and vector.packet["type"] == "CONNECT" or vector.data[0] >> 4 == 1:
            hello = b""
        else:
            expiry = [["session_expiry_interval", 30]] if vector.version == 5 else []
            hello = feed(0, connect(vector.version, "me", clean_start=False, properties=expiry))
            hello += feed(0, subscribe(vector.version, "#", 2))
        yield vector.name, hello + feed(0, vector.data) + read(0) + tick(1) + read(0, 100) + lost(0) + tick(100)


def scenarios() -> Iterator[tuple[str, bytes]]:
    for version in (3, 4, 5):
        kept = {"clean_start": False, "properties": [["session_expiry_interval", 50]] if version == 5 else []}
        expiring = {"properties": [["message_expiry_interval", 5]]} if version == 5 else {}
        delay = [["will_delay_interval", 5], ["message_expiry_interval", 3]] if version == 5 else []
        will = {"qos": 1, "retain": True, "topic": "a/x/b", "payload": b"gone", "properties": delay}

        yield f"queue-{version}", b"".join(
            [feed(0, connect(version, "a", **kept)), feed(0, subscribe(version, "a/+/b", 2)), read(0), lost(0)]
            + [feed(1, connect(version, "b"))]
            + [feed(1, publish(version, "a/x/b", n % 3, n if n % 3 else None, **expiring)) for n in range(1, 12)]
            + [feed(1, ack(version, "PUBREL", n)) for n in (2, 5, 8, 11)]
            + [read(1), feed(0, connect(version, "a", **kept)), read(0)]
            + [feed(0, ack(version, "PUBACK", 1)), feed(0, ack(version, "PUBREC", 2)), read(0, 20), lost(0), tick(6)]
            + [feed(0, connect(version, "a", **kept)), read(0), feed(0, ack(version, "PUBCOMP", 2)), read(0), tick(1)]
        )
        yield f"takeover-{version}", b"".join(
            feed(n % 5, connect(version, "same", will=will, clean_start=n % 3 == 0, **{"properties": kept["properties"]}))
            + feed(n % 5, subscribe(version, "a/#", 1))
            + (lost(n % 5) if n % 4 == 3 else read(n % 5))
            + tick(n)
            for n in range(12)
        )
        yield f"retained-{version}", b"".join(
            [feed(0, connect(version, "a"))]
            + [feed(0, publish(version, f"r/{n}", n % 3, n or None if n % 3 else None, retain=True, **expiring)) for n in range(20)]
            + [feed(1, connect(version, "b")), feed(1, subscribe(version, "r/+", 2)), read(1, 10), tick(3), read(1)]
            + [feed(0, publish(version, "r/3", retain=True, payload=b"")), gateway_publishes(3), gateway_publishes(2), read(1)]
        )
        yield f"will-{version}", b"".join(
            [feed(0, connect(version, "w", will=will, **kept)), feed(1, connect(version, "b")), read(0), read(1)]
            + [feed(1, subscribe(version, "#", 1)), lost(0), tick(4), read(1), tick(2), read(1), tick(60)]
            + [feed(2, connect(version, "w", will=will)), feed(2, say(version, "DISCONNECT")), read(2), lost(2), read(1)]
            + [feed(3, connect(version, "w", will=will, keep_alive=2)), tick(4), read(3), read(1)]
        )
        yield f"window-{version}", b"".join(
            [feed(0, connect(version, "a", **kept)), feed(0, subscribe(version, "/plant/me/#", 2)), read(0)]
            + [gateway_publishes(1)] * 12
            + [feed(0, ack(version, "PUBACK", n)) for n in (3, 1, 2, 9, 4, 5)]
            + [read(0), close(0, 0x8B), lost(0), feed(0, connect(version, "a", **kept)), read(0)]
        )
        yield f"rules-{version}", b"".join(
            [verdict(1), feed(0, connect(version, "me")), feed(0, subscribe(version, "/plant/me/#", 1)), read(0)]
            + [feed(0, subscribe(version, "#")), feed(0, publish(version, "/plant/other/state", 1, 3)), gateway_publishes(1)]
            + [feed(0, publish(version, "/plant/me/UpdateTemperature", 1, 4, retain=True)), reload_rules(2), read(0)]
            + [gateway_publishes(1), read(0), reload_rules(1), verdict(1, refuse=True), feed(1, connect(version, "x")), read(1)]
        )
        yield f"parked-{version}", b"".join(
            [verdict(later=True), feed(0, connect(version, "a") + subscribe(version, "a/b", 1) + say(version, "PINGREQ"))]
            + [feed(0, publish(version, "a/b", 1, 7)[:5]), verdict(), feed(0, publish(version, "a/b", 1, 7)[5:]), read(0)]
            + [verdict(later=True), feed(1, connect(version, "a")), lost(0), verdict(refuse=True), read(1)]
        )
        stream = connect(version, "a") + subscribe(version, "a/b", 2) + publish(version, "a/b", 2, 9)
        yield f"byte-by-byte-{version}", b"".join([feed(0, stream[n : n + 1]) for n in range(len(stream))] + [read(0)])


def main() -> None:
    """Writes the seeds into the directory that the first argument names."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for source in (of_vectors, scenarios):
        for name, data in source():
            (folder / name).write_bytes(data)
            count += 1
    print(f"{count} seeds in {folder}")


if __name__ == "__main__":
    main()
