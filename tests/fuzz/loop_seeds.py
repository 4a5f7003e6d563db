"""Writes seeds for the fuzz target fuzz_loop into a folder, one file each.

    python -m tests.fuzz.loop_seeds FOLDER

The rule it keeps: a seed is what the target reads, the records that fuzz_loop.c describes. There is one for each
recorded hello, and one for each thing that can happen between sockets, loop and Python. What MQTT may say is for
fuzz_broker: the loop does not read it. The same files every time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tests.fuzz.seeds import write_seeds
from tests.fuzz.tls_seeds import hellos
from tests.reference.codec import encode

PLAIN, V13, V12, RAW = range(4)
LITTLE = 4  # the socket holds little
EXPECTED, BEGUN = 8, 16  # gets its link without Python; its handshake begins without Python
AGAIN, INTERRUPTED, RESET, LESS = range(4)
REFUSE, LATER, SILENT, REVOKE, MORE = 1, 2, 4, 8, 16


class Program:
    """Records in order; clients are numbered from 0."""

    def __init__(self, kind: int = PLAIN, expected: int = 0) -> None:
        self.kind = kind
        self.expected = expected
        self.data = b""

    def record(self, op: int, client: int, argument: int = 0) -> None:
        self.data += bytes([op | client << 4, argument])

    def dial(self, client: int, *, kind: int | None = None, little: bool = False) -> None:
        self.record(0, client, (self.kind if kind is None else kind) | little * LITTLE | self.expected)

    def say(self, client: int, data: bytes, *, meddles: bool = False, cut: int = 0) -> None:
        for at in range(0, len(data), 255):
            part = data[at : at + 255]
            self.record(2 if meddles else 1, client, len(part))
            self.data += part
        if cut:
            for _ in range(len(data) // cut + 1):
                self.record(3, client, cut)
                self.turn(1)
        self.record(3, client)

    def read(self, client: int, size: int = 0) -> None:
        self.record(4, client, size)

    def turn(self, times: int) -> None:
        self.record(6, 0, times - 1)

    def wait(self, tenths: int) -> None:
        """Tenths of a second."""
        self.record(7, 0, tenths)

    def publish(self, size: int, *, qos: int = 0) -> None:
        """Python does, so many times 64 bytes."""
        self.record(10, qos, size)

    def go_on(self, rounds: int = 2, *, mood: int = 0) -> None:
        """The loop turns, Python reads its posts, clients read and answer."""
        for _ in range(rounds):
            self.turn(2)
            self.record(8, 0, mood)
            for client in range(4):
                self.read(client)
                self.record(3, client)

    def come_in(self, client: int, **more: Any) -> None:
        """Dials, TLS or not, and connects."""
        self.dial(client, **more)
        self.record(3, client)
        self.go_on(4)
        self.say(client, connect(client))
        self.go_on()

    def fall_behind(self, messages: int) -> None:
        """A client that holds little is sent more than it takes."""
        self.come_in(0, little=True)
        self.say(0, SUBSCRIBE)
        self.go_on()
        for _ in range(messages):
            self.publish(255)


def connect(client: int) -> bytes:
    return encode(
        {
            "type": "CONNECT",
            "version": 4,
            "clean_start": True,
            "keep_alive": 60,
            "client_id": f"c{client}",
            "properties": [],
            "will": None,
            "username": None,
            "password": None,
        },
        4,
    )


SUBSCRIBE = bytes.fromhex("8206000100017401")
PUBLISH = bytes.fromhex("30050001746869")
PING = bytes.fromhex("c000")


def talk(p: Program) -> None:
    """Two talk, in pieces, and the gateway does."""
    p.come_in(0)
    p.come_in(1)
    p.say(0, SUBSCRIBE, cut=3)
    p.go_on()
    p.say(1, PUBLISH * 40, cut=50)
    p.go_on()
    p.publish(20, qos=1)
    p.record(12, 0, 5 << 2 | LESS)
    p.go_on()
    p.say(0, bytes.fromhex("40020001"))
    p.say(1, bytes.fromhex("e000"))
    p.go_on()


def slow_reader(p: Program) -> None:
    """It is sent more than it takes, reads a little, stalls, and is cut."""
    p.fall_behind(12)
    p.turn(4)
    p.read(0, 9)
    p.turn(4)
    p.wait(10)
    p.turn(4)
    p.read(0, 200)
    p.turn(4)
    p.wait(30)
    p.turn(2)
    p.record(8, 0)


def bad_mood(p: Program) -> None:
    """Calls fail in every way at every place."""
    for op in (11, 12):
        for how in (AGAIN, INTERRUPTED, RESET, LESS):
            for times in (1, 3):
                p.record(op, 0, times << 2 | how)
                p.come_in(0)
                p.say(0, SUBSCRIBE + PING)
                p.record(op, 0, times << 2 | how)
                p.go_on()
                p.publish(90, qos=1)
                p.record(op, 0, times << 2 | how)
                p.go_on()


def ends(p: Program) -> None:
    """Half closed, closed, deaf: before the handshake, in it, behind it, with output that waits."""
    for how in range(3):
        for rounds in range(4):
            p.dial(0)
            p.record(3, 0, 50)
            p.go_on(rounds)
            p.record(5, 0, how)
            p.go_on()
        p.fall_behind(5)
        p.turn(2)
        p.record(5, 0, how)
        p.go_on()
        p.wait(255)


def python_decides(p: Program) -> None:
    """It refuses, waits, says nothing, revokes, and orders what makes no sense."""
    for mood in (REFUSE, LATER, SILENT, REVOKE, MORE):
        p.dial(0)
        p.record(3, 0)
        p.go_on(4, mood=mood)
        p.say(0, connect(0) + SUBSCRIBE + PING)
        p.go_on(mood=mood)
        p.say(0, PING)
        p.record(15, 0)
        p.go_on()
    for order in range(8):
        for stage in range(3):
            if stage == 2:
                p.come_in(0)
            else:
                p.dial(0)
                p.record(3, 0, 100 * stage)
                p.go_on(stage)
            p.record(9, 0, order)
            p.record(9, 0, order | 8)
            p.go_on()


def at_once(p: Program) -> None:
    """Records of TLS that came together, behind the handshake and behind CONNECT; and one is cut meanwhile."""
    for mood in (0, LATER):
        p.dial(0)
        p.go_on(3)
        for data in (connect(0), SUBSCRIBE, PING, PING):
            p.record(1, 0, len(data))
            p.data += data
        p.record(3, 0)
        p.go_on(3, mood=mood)
        p.record(15, 0)
        p.go_on()
        p.come_in(1, kind=PLAIN)
        p.say(0, PING)
        p.say(0, bytes.fromhex("1703030020") + bytes(32), meddles=True)
        p.go_on()
        p.say(1, PING)
        p.go_on()


def half_closed(p: Program) -> None:
    """It sends no more while more is on its way to it than it takes, and the core is done with it."""
    p.fall_behind(3)
    p.turn(2)
    p.record(13, 0, 0x8B)
    p.turn(2)
    p.record(5, 0, 0)
    p.turn(4)


def closed_by_us(p: Program) -> None:
    p.come_in(0)
    p.say(0, SUBSCRIBE)
    p.publish(255)
    p.record(13, 0, 0x8B)
    p.go_on()
    p.wait(20)
    p.go_on()


def throttled(p: Program) -> None:
    """It publishes faster than it may, and is not heard for a while."""
    p.record(14, 3, 20)
    p.come_in(0)
    for _ in range(3):
        p.say(0, PUBLISH * 30)
        p.go_on()
        p.wait(10)
        p.go_on()


def meddled(p: Program) -> None:
    """Somebody else's bytes in the stream, before the handshake, behind it, and behind CONNECT."""
    for data in (
        bytes(40),
        bytes.fromhex("15030300020100"),
        bytes.fromhex("1703030020") + bytes(32),
        b"GET / HTTP/1.1",
    ):
        p.dial(0)
        p.say(0, data, meddles=True)
        p.go_on()
        p.come_in(1)
        p.say(1, PING)
        p.say(1, data, meddles=True)
        p.go_on()


def pesters(p: Program) -> None:
    """It reads nothing, and makes TLS answer."""
    for what in (3, 4):
        p.fall_behind(5)
        p.turn(2)
        p.record(5, 0, what)
        p.record(3, 0)
        p.turn(4)
        p.record(8, 0)


SCENARIOS: tuple[Callable[[Program], None], ...] = (
    talk,
    slow_reader,
    bad_mood,
    ends,
    python_decides,
    at_once,
    half_closed,
    closed_by_us,
    throttled,
    meddled,
    pesters,
)


def of_hello(data: bytes) -> bytes:
    p = Program(RAW)
    p.dial(0)
    p.say(0, data, meddles=True, cut=100)
    p.go_on()
    return p.data


def seeds() -> dict[str, bytes]:
    found = {f"hello-{name}": of_hello(data) for name, data in hellos().items()}
    for scenario in SCENARIOS:
        for kind in (PLAIN, V13, V12):
            program = Program(kind)
            scenario(program)
            found[f"{scenario.__name__}-{kind}"] = program.data
        expected = Program(V13, EXPECTED | BEGUN)
        scenario(expected)
        found[f"{scenario.__name__}-expected"] = expected.data
    for kind, how in ((V13, EXPECTED), (V12, EXPECTED | BEGUN), (RAW, EXPECTED | BEGUN)):
        program = Program(kind, how)
        talk(program)
        found[f"expected-{kind}-{how}"] = program.data
    return found


if __name__ == "__main__":
    sys.exit(write_seeds("fuzz_loop", seeds()))
