"""The time for nodes that have none: SNTP (RFC 4330) over UDP, beside the TLS that needs a clock before it can begin.

The rule it keeps: who asks gets as many bytes as he sent and never more, so there is nothing to amplify; an address
that asks too often gets silence, and all together get no more than COUNT_ALL in a WINDOW. Nothing here awaits.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Final, cast

SIZE: Final = 48
"""Bytes of a question and of its answer: no authentication, no extension."""
WINDOW: Final = 10.0
"""Seconds in which questions are counted."""
COUNT_ONE: Final = 30
"""Questions of one address in a WINDOW: a node asks three at a time, and a greenhouse may sit behind one router."""
COUNT_ALL: Final = 10_000
"""Questions of all addresses in a WINDOW."""
ADDRESSES: Final = 4096
"""Addresses that are counted apart; those beyond them share one count."""

_PACKET: Final = struct.Struct("!BBbbIII8s8s8s8s")
_CLIENT: Final = 3
_SERVER: Final = 4
_STRATUM: Final = 8  # the PC's own clock, wherever that has its time from: never preferred to a real time server
_PRECISION: Final = -20
_DISPERSION: Final = 1 << 14  # a quarter of a second, as 16.16 fixed point: what a PC's clock is trusted with
_REFERENCE: Final = 0x7F7F0101  # 127.127.1.1: the local clock
_1970: Final = 2_208_988_800
"""Seconds from 1900, where NTP begins, to 1970."""


def timestamp(unix_ns: int) -> bytes:
    """Nanoseconds since 1970 as NTP has them: 32 bits of seconds since 1900, which wrap in 2036, and 32 of fraction."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return struct.pack("!II", (seconds + _1970) & 0xFFFFFFFF, (rest << 32) // 1_000_000_000)


def answer(question: bytes, unix_ns: int) -> bytes | None:
    """The answer to a client's question that came at `unix_ns`; None to anything else."""
    if len(question) != SIZE:
        return None
    version, mode = question[0] >> 3 & 7, question[0] & 7
    if mode != _CLIENT or not 1 <= version <= 4:
        return None
    now = timestamp(unix_ns)
    return _PACKET.pack(
        version << 3 | _SERVER,
        _STRATUM,
        struct.unpack_from("!b", question, 2)[0],  # poll, as the client said
        _PRECISION,
        0,
        _DISPERSION,
        _REFERENCE,
        now,
        question[40:48],
        now,
        now,
    )


class Meter:
    """Counts questions; `now` is seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._since = 0.0
        self._all = 0
        self._counts: dict[str, int] = {}

    def allows(self, address: str, now: float) -> bool:
        """Whether one more from `address` is answered."""
        if now - self._since >= WINDOW:
            self._since = now
            self._all = 0
            self._counts.clear()
        key = address if address in self._counts or len(self._counts) < ADDRESSES else ""
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        self._all += 1
        return count <= COUNT_ONE and self._all <= COUNT_ALL


class TimeServer(asyncio.DatagramProtocol):
    """Answers on a UDP socket. wall: nanoseconds since 1970; steady: seconds of a monotonic clock."""

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._meter = Meter()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """One question, or what pretends to be one."""
        if self._transport is not None and self._meter.allows(addr[0], self._steady()):
            said = answer(data, self._wall())
            if said is not None:
                self._transport.sendto(said, addr)

    def error_received(self, exc: Exception) -> None:
        """A port that nobody holds any more: the client's trouble."""

    def close(self) -> None:
        """No more answers."""
        if self._transport is not None:
            self._transport.close()
