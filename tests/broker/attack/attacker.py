"""The attackers, in a process of their own: `python -m tests.broker.attack.attacker KIND PORT SECONDS [MANY]`.

The rule it keeps: sockets and bytes written by hand, nothing of ours but the framing here; it prints what it has done
as one line of JSON, and never waits for the gateway longer than it has to.
"""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

HOST: Final = "127.0.0.1"
CLIENT_HELLO: Final = bytes.fromhex("16030100c8010000c40303") + bytes(32)
"""The beginning of one, so far as TLS cares."""


def length(size: int) -> bytes:
    """A remaining length (MQTT 5.0 §1.5.5)."""
    digits = bytearray()
    while True:
        size, digit = divmod(size, 128)
        digits.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(digits)


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + length(len(body)) + body


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def connect(client_id: str, version: int = 5, expiry: int = 0) -> bytes:
    properties = b"\x05\x11" + struct.pack(">I", expiry) if expiry else b"\x00"
    return packet(0x10, text("MQTT") + bytes([version, 0 if expiry else 2, 0, 0]) + properties + text(client_id))


def publish(topic: str, payload: bytes = b"x", *, retain: bool = False) -> bytes:
    return packet(0x30 | retain, text(topic) + b"\x00" + payload)


def publish_1(topic: str, payload: bytes, number: int) -> bytes:
    return packet(0x32, text(topic) + struct.pack(">H", number) + b"\x00" + payload)


def subscribe(number: int, filters: list[str], qos: int = 0) -> bytes:
    return packet(0x82, struct.pack(">H", number) + b"\x00" + b"".join(text(item) + bytes([qos]) for item in filters))


def dial(port: int, source: str = HOST) -> socket.socket:
    return socket.create_connection((HOST, port), 10, (source, 0))


def client(port: int, name: str, **options: Any) -> socket.socket:
    """Somebody who is in, and does not block."""
    sock = dial(port)
    sock.sendall(connect(name, **options))
    sock.recv(4096)
    sock.setblocking(False)
    return sock


def pour(sock: socket.socket, chunks: Iterator[bytes], end: float, read: bool = True) -> dict[str, int]:
    """Sends as fast as it is taken, and reads what comes."""
    selector = selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_WRITE | (selectors.EVENT_READ if read else 0))
    sent = got = 0
    data = b""
    with contextlib.suppress(OSError, StopIteration):
        while time.monotonic() < end:
            for _, events in selector.select(0.1):
                if events & selectors.EVENT_READ:
                    chunk = sock.recv(1 << 16)
                    if not chunk:
                        return {"sent": sent, "got": got, "closed": 1}
                    got += len(chunk)
                if events & selectors.EVENT_WRITE:
                    data = data or next(chunks)
                    done = sock.send(data)
                    data = data[done:]
                    sent += done
    return {"sent": sent, "got": got}


# --- before MQTT ---


def slow_loris(port: int, end: float, many: int) -> dict[str, int]:
    """Connections that say what they have to say one byte at a time; cut ones come again."""
    open_: list[tuple[socket.socket, bytes]] = []
    opened = sent = 0
    while time.monotonic() < end:
        while len(open_) < many and time.monotonic() < end:
            with contextlib.suppress(OSError):
                sock = dial(port, f"127.7.{opened // 250 % 250}.{opened % 250 + 1}")
                sock.setblocking(False)
                open_.append((sock, CLIENT_HELLO))
                opened += 1
        kept = []
        for sock, rest in open_:
            try:
                sent += sock.send(rest[:1])
                kept.append((sock, rest[1:] or b"\x00" * 50))
            except OSError:
                sock.close()
        open_ = kept
        time.sleep(0.02)
    return {"opened": opened, "sent": sent}


def half_open(port: int, end: float, many: int) -> dict[str, int]:
    """Connections that send the half of a ClientHello, and then nothing, for ever."""
    open_: list[socket.socket] = []
    opened = 0
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            sock = dial(port, f"127.6.{opened // 250 % 250}.{opened % 250 + 1}")
            sock.sendall(CLIENT_HELLO)
            open_.append(sock)
            opened += 1
        while len(open_) > many:
            open_.pop(0).close()
    return {"opened": opened}


def knock(port: int, end: float, many: int) -> dict[str, int]:
    """`many` connections a second, each closed at once without a word; nobody waits for any."""
    begin, knocked = time.monotonic(), 0
    waiting: list[socket.socket] = []
    while (now := time.monotonic()) < end:
        while knocked < (now - begin) * many:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                sock.bind((f"127.5.{random.randrange(256)}.{random.randrange(1, 255)}", 0))
                sock.connect_ex((HOST, port))
            knocked += 1
            waiting.append(sock)
            if len(waiting) > 64:
                waiting.pop(0).close()
            if knocked % 50 == 0 and time.monotonic() > end:
                break
        time.sleep(0.001)
    return {"knocked": knocked}


# --- in MQTT ---


def subscriptions(port: int, end: float, many: int) -> dict[str, int]:
    """A client with `many` subscriptions, or as many as it gets."""

    def chunks() -> Iterator[bytes]:
        for first in range(0, many, 100):
            yield subscribe(1, [f"s/{number % 97}/{number}" for number in range(first, first + 100)])

    return pour(client(port, "subscriber"), chunks(), end)


def deep_topics(port: int, end: float, many: int) -> dict[str, int]:
    """Filters and topics as deep as they may be, with wildcards that make each publication visit as much as it can."""

    def chunks() -> Iterator[bytes]:
        for first in range(0, many, 64):
            filters = ["/".join("a+"[number >> bit & 1] for bit in range(13)) for number in range(first, first + 64)]
            yield subscribe(1, [item + "/" + "/".join("+" * 40) + "/x" for item in filters])
        while True:
            yield publish("/".join("a" * 54)) * 100

    return pour(client(port, "deep"), chunks(), end)


def wildcards(port: int, end: float, many: int) -> dict[str, int]:
    """Subscribes to everything, over and over, with everything retained."""

    def chunks() -> Iterator[bytes]:
        while True:
            yield subscribe(1, ["#", "+/#", "+/+/#", "+/+/+/+/none"])

    return pour(client(port, "wild"), chunks(), end)


def retained(port: int, end: float, many: int) -> dict[str, int]:
    """Retains a message on one topic after the other, and then all anew."""

    def chunks() -> Iterator[bytes]:
        while True:
            for first in range(0, many, 200):
                yield b"".join(publish(f"r/{n % 89}/{n}", b"x" * 50, retain=True) for n in range(first, first + 200))

    return pour(client(port, "retainer"), chunks(), end)


def never_reads(port: int, end: float, many: int) -> dict[str, int]:
    """Asks for everything, makes much of it, and reads nothing."""
    stuck = []
    for number in range(10):
        sock = client(port, f"stuck{number}")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(subscribe(1, ["flood"], 1))
        stuck.append(sock)

    def chunks() -> Iterator[bytes]:
        while True:
            yield publish("flood", bytes(10_000)) * 10

    return pour(client(port, "flooder"), chunks(), end)


def memory(port: int, end: float, many: int) -> dict[str, int]:
    """Sessions that are away and have everything queued, and ever more of them."""
    for number in range(many):
        sock = dial(port)
        sock.sendall(connect(f"away{number}", expiry=3600))
        sock.recv(4096)
        sock.sendall(subscribe(1, [f"away/{number}"], 1))
        sock.recv(4096)
        sock.close()

    def chunks() -> Iterator[bytes]:
        number = 0
        while True:
            number += 1
            yield publish_1(f"away/{number % many}", bytes(20_000), number % 60_000 + 1)

    return pour(client(port, "filler"), chunks(), end)


ATTACKS: Final[dict[str, Callable[[int, float, int], dict[str, int]]]] = {
    attack.__name__: attack
    for attack in (
        *(slow_loris, half_open, knock),
        *(subscriptions, deep_topics, wildcards, retained, never_reads, memory),
    )
}


def main(kind: str, port: str, seconds: str, many: str) -> None:
    print("begun", flush=True)
    print(json.dumps(ATTACKS[kind](int(port), time.monotonic() + float(seconds), int(many))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
