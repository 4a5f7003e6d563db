"""Writes seeds for the fuzz target fuzz_tls into a folder, one file each.

    python -m tests.fuzz.tls_seeds FOLDER

The rule it keeps: a seed is what the target reads, the records that fuzz_tls.c describes. There is one for each first
message of a client that was recorded (hellos.txt), and one for each thing that can happen to a session. The same files
every time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz.seeds import write_seeds

HELLOS = Path(__file__).with_name("hellos.txt")
V13, V12, BARE, STRANGER, NOBODY = range(5)
REQUIRED, OPTIONAL, NONE = range(3)
KEYED = 3


def hellos() -> Mapping[str, bytes]:
    """The recorded first messages, by name."""
    lines = [line for line in HELLOS.read_text().splitlines() if not line.startswith("#")]
    parts = (block.split("\n", 1) for block in "\n".join(lines).strip().split("\n\n"))
    return {name: bytes.fromhex(text) for name, text in parts}


class Program:
    """Records in order; sessions are numbered from 0."""

    def __init__(self) -> None:
        self.data = b""

    def record(self, op: int, session: int, argument: int, more: int = 0) -> None:
        self.data += bytes([op | session << 3 | more << 5, argument])

    def start(self, session: int, client: int, asks: int = REQUIRED, *, resumes: bool = False) -> None:
        argument = next(b for b in range(256) if (b % 5, b // 8 % 3) == (client, asks % 3))
        self.record(0, session, argument, resumes | (2 if asks == KEYED else 0))

    def raw(self, session: int, data: bytes) -> None:
        self.record(1, session, len(data) >> 8)
        self.data += bytes([len(data) & 255]) + data

    def up(self, session: int, size: int = 0) -> None:
        self.record(2, session, size)

    def down(self, session: int, size: int = 0, *, turned: bool = False) -> None:
        self.record(7, session, size, turned)

    def shake(self, session: int, rounds: int = 3) -> None:
        for _ in range(rounds):
            self.up(session)
            self.down(session)

    def talk(self, session: int, size: int = 100, shift: int = 0) -> None:
        self.record(5, session, size, shift)
        self.up(session)
        self.record(6, session, size, shift)
        self.down(session)


def every_client(p: Program) -> None:
    for asks in (REQUIRED, OPTIONAL, NONE):
        for client in (V13, V12, BARE, STRANGER):
            p.start(0, client, asks)
            p.shake(0)
            p.talk(0)


def by_key(p: Program) -> None:
    """Keys in place of certificates, whole and meddled with."""
    for client in (V13, V12, BARE, STRANGER):
        p.start(0, client, KEYED)
        p.shake(0)
        p.talk(0)
        for at in (20, 60, 100, 120, 140):
            p.start(1, client, KEYED)
            p.record(3, 1, at, 1)
            p.shake(1)
        p.start(2, client, KEYED)
        p.up(2, 40)
        p.up(2)
        p.record(4, 2, 30, 1)
        p.shake(2)


def resumed(p: Program) -> None:
    """By a ticket, at the door that gave it and at others, whole and meddled with."""
    for client in (V13, V12, BARE):
        p.start(0, client, REQUIRED if client != BARE else NONE)
        p.shake(0)
        p.talk(0)
        for asks in (REQUIRED, OPTIONAL, NONE):
            p.start(1, client, asks, resumes=True)
            p.shake(1)
            p.talk(1)
        for at in (50, 90, 120):
            p.start(2, client, NONE, resumes=True)
            p.record(3, 2, at, 1)
            p.shake(2)


def three_at_once(p: Program) -> None:
    for session, client in enumerate((V13, V12, BARE)):
        p.start(session, client, REQUIRED if client != BARE else NONE)
    for _ in range(4):
        for session in range(3):
            p.up(session, 200)
            p.down(session, 150)
    for session in range(3):
        p.shake(session)
        p.talk(session)


def byte_by_byte(p: Program) -> None:
    for client in (V13, V12):
        p.start(0, client)
        for _ in range(40):
            p.up(0, 13)
        p.down(0)
        for _ in range(60):
            p.up(0, 11)
        p.shake(0)
        p.talk(0)


def large(p: Program) -> None:
    for client in (V13, V12):
        p.start(0, client)
        p.shake(0)
        p.talk(0, 255, 6)
        p.record(5, 0, 255, 6)
        for _ in range(90):
            p.up(0, 255)


def meddled(p: Program) -> None:
    for client in (V13, V12):
        for at, bit in ((0, 0), (1, 1), (5, 0), (20, 3), (60, 7), (120, 2)):
            p.start(0, client)
            p.record(3, 0, at, bit)
            p.shake(0)
            p.start(1, client)
            p.up(1)
            p.down(1)
            p.record(3, 1, at, bit)
            p.shake(1)
            p.start(2, client)
            p.shake(2)
            p.record(5, 2, 200)
            p.record(3, 2, at, bit)
            p.up(2)


def lost_and_twice(p: Program) -> None:
    for client in (V13, V12):
        for more in (0, 1):
            p.start(0, client)
            p.record(4, 0, 30, more)
            p.shake(0)
            p.start(0, client)
            p.shake(0)
            p.record(5, 0, 20)
            p.record(4, 0, 42, more)
            p.up(0)


def keys_renegotiation_goodbye(p: Program) -> None:
    for client in (V13, V12):
        for what in (0, 4, 2, 3):
            p.start(0, client)
            p.shake(0)
            for _ in range(4):
                p.record(5, 0, what, 7)
                p.shake(0, 1)
            p.talk(0)
        p.start(0, client)
        p.shake(0)
        p.record(6, 0, 0, 7)
        p.down(0)
        p.talk(0)
    p.start(0, V13)
    p.up(0)
    p.down(0, 40)
    p.down(0, 1, turned=True)
    p.shake(0)


ALERTS = [
    bytes([0x15, 3, version, 0, 2, level, what]) for version in (1, 3) for level in (1, 2) for what in (0, 40, 90, 100)
]


def alerts(p: Program) -> None:
    for alert in ALERTS:
        p.start(0, V12)
        p.up(0)
        p.raw(0, alert)
        p.start(1, V13)
        p.raw(1, alert * 6)


def garbage(p: Program) -> None:
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes.fromhex("100c00044d5154540402003c0000"),
        bytes.fromhex("802e010002001500000010010080"),  # a hello of SSL 2
        bytes.fromhex("1603010005010000010003"),
        bytes.fromhex("16030140000100ffff") + bytes(300),
        bytes.fromhex("1403030001011703030010") + bytes(16),
        bytes.fromhex("1803030003014000"),  # a heartbeat
    ):
        p.start(0, NOBODY)
        p.raw(0, data)
        p.start(1, V13)
        p.shake(1)
        p.raw(1, data)


SCENARIOS: tuple[Callable[[Program], None], ...] = (
    every_client,
    by_key,
    resumed,
    three_at_once,
    byte_by_byte,
    large,
    meddled,
    lost_and_twice,
    keys_renegotiation_goodbye,
    alerts,
    garbage,
)


def of_hello(data: bytes) -> bytes:
    p = Program()
    p.start(0, NOBODY, OPTIONAL)
    p.raw(0, data)
    for cut in range(1, len(data), 40):
        p.start(1, NOBODY)
        p.raw(1, data[:cut])
        p.raw(1, data[cut:])
    p.raw(1, data)
    return p.data


def seeds() -> dict[str, bytes]:
    found = {name: of_hello(data) for name, data in hellos().items()}
    for scenario in SCENARIOS:
        program = Program()
        scenario(program)
        found[scenario.__name__] = program.data
    return found


if __name__ == "__main__":
    sys.exit(write_seeds("fuzz_tls", seeds()))
