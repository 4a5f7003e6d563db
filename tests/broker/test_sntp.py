"""The time over UDP: the packet of RFC 4330, no amplification, limits; asked by a plain client of our own writing."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable

import pytest

from peanutd import sntp, sockets
from peanutd.config import Address, Listener
from peanutd.sockets import ListenError, bind_both, bind_udp
from tools.ports import free_port

NOW = 1_800_000_000_250_000_000
COOKIE = bytes(range(8))
QUESTION = b"\x23" + bytes(39) + COOKIE


def test_the_answer_says_the_time_and_echoes_the_question() -> None:
    """RFC 4330, section 4 and the table of section 6: mode 4, version and poll copied, originate = what was asked."""
    said = sntp.answer(b"\x1b\0\x06" + bytes(37) + COOKIE, NOW)
    assert said is not None
    first, stratum, poll = struct.unpack_from("!BBb", said)
    assert (first >> 6, first >> 3 & 7, first & 7) == (0, 3, 4)
    assert 1 < stratum < 16
    assert poll == 6
    assert said[24:32] == COOKIE
    seconds, fraction = struct.unpack_from("!II", said, 40)
    assert seconds - 2_208_988_800 == 1_800_000_000
    assert fraction == 1 << 30
    assert said[32:40] == said[40:48]


def test_the_era_after_2036() -> None:
    """2036-02-07 06:28:16 is second 0 of era 1 (RFC 4330, section 3)."""
    assert sntp.timestamp(2_085_978_496 * 10**9) == bytes(8)


@pytest.mark.parametrize(
    "question",
    [
        b"",
        QUESTION[:47],
        QUESTION + b"\0",  # what is longer than its answer could carry somebody else's protocol
        b"\x24" + QUESTION[1:],  # an answer: two servers must not talk to each other for ever
        b"\x26" + QUESTION[1:],  # control: the classic of amplification
        b"\x27" + QUESTION[1:],  # private: the other one
        b"\x03" + QUESTION[1:],  # version 0
        b"\x2b" + QUESTION[1:],  # version 5
        os.urandom(512),
    ],
)
def test_anything_else_gets_silence(question: bytes) -> None:
    assert sntp.answer(question, NOW) is None


def test_nothing_is_amplified() -> None:
    said = sntp.answer(QUESTION, NOW)
    assert said is not None
    assert len(said) == len(QUESTION)


def test_one_address_is_limited_and_leaves_the_others_alone() -> None:
    meter = sntp.Meter()
    assert sum(meter.allows("192.0.2.1", 100.0) for _ in range(1000)) == sntp.COUNT_ONE
    assert meter.allows("192.0.2.2", 100.0)
    assert not meter.allows("192.0.2.1", 100.0 + sntp.WINDOW - 0.01)
    assert meter.allows("192.0.2.1", 100.0 + sntp.WINDOW)


def test_all_addresses_together_are_limited_and_remembered_within_a_bound() -> None:
    """Spoofed senders cost neither memory nor answers without end."""
    meter = sntp.Meter()
    taken = sum(meter.allows(f"2001:db8::{i:x}", 5.0) for i in range(50_000))
    assert taken <= sntp.ADDRESSES + sntp.COUNT_ONE <= sntp.COUNT_ALL
    assert len(meter._counts) <= sntp.ADDRESSES + 1


def ask(port: int, host: str = "127.0.0.1") -> float:
    """Unix seconds, by a client as small as they come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        cookie = os.urandom(8)
        sock.sendto(b"\x23" + bytes(39) + cookie, (host, port))
        said, _ = sock.recvfrom(512)
    assert said[24:32] == cookie
    seconds, fraction = struct.unpack_from("!II", said, 40)
    return float(seconds - 2_208_988_800 + fraction / 2**32)


def serving(body: Callable[[int], None]) -> None:
    """A TimeServer on a free port while `body` runs in a thread of its own."""

    async def run() -> None:
        sock = bind_udp(Address("127.0.0.1", 0), "time")
        port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        _, server = await loop.create_datagram_endpoint(sntp.TimeServer, sock=sock)
        try:
            await loop.run_in_executor(None, body, port)
        finally:
            server.close()

    asyncio.run(run())


def test_a_client_gets_this_machine_s_time() -> None:
    def body(port: int) -> None:
        before = time.time()
        assert before - 0.01 <= ask(port) <= time.time() + 0.01

    serving(body)


def test_a_flood_of_questions_from_one_address_is_answered_within_its_limit() -> None:
    """Every answer counted: the flood gets COUNT_ONE (two windows at the most), whatever it sends."""

    def body(port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(60)
            answers = 0
            for _ in range(500):
                sock.sendto(QUESTION, ("127.0.0.1", port))
            try:
                while True:
                    sock.recv(512)
                    answers += 1
                    sock.settimeout(0.5)
            except TimeoutError:
                pass
        assert 0 < answers <= 2 * sntp.COUNT_ONE

    serving(body)


def test_a_taken_port_is_named_with_the_key_to_change() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ListenError, match=f"UDP 127.0.0.1:{port}: .*; change time in"):
            bind_udp(Address("127.0.0.1", port), "time in [listen] of gateway.toml")


def test_a_port_that_the_system_chooses_is_free_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for one of TCP, and may choose one that UDP has given to somebody. One that was asked for stays it."""
    real = sockets._bind_tcp
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", free_port()))
        taken = sock.getsockname()[1]
        chosen = iter([taken, taken, 0])
        monkeypatch.setattr(sockets, "_bind_tcp", lambda address: real(Address(address.host, next(chosen))))
        bound, told = bind_both(Listener(Address("127.0.0.1", 0)), "127.0.0.1", "time")
        with bound.socket, told:
            assert isinstance(bound.address, Address)
            assert told.getsockname()[1] == bound.socket.getsockname()[1] == bound.address.port != taken
        monkeypatch.undo()
        with pytest.raises(ListenError, match=f"UDP 127.0.0.1:{taken}: .*; change time"):
            bind_both(Listener(Address("127.0.0.1", taken)), "127.0.0.1", "time")
