"""The gateway under attack: peers that hold on to what they get, flood, and lie about what they are going to send.

The rule it keeps: an attacker may spoil its own connections, and nobody else notices. Each attack is made with real
sockets, on both loops, and beside it a client that does nothing wrong is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
from functools import partial
from typing import Any

import pytest

from peanutd import tls
from peanutd.connection import RECEIVE_BUFFER, Secure
from peanutd.door import STEPS_PER_TURN, Handshakes
from peanutd.log import Flood
from tests.broker.conftest import packet, text, wait_for

LOOPS = ("asyncio", "uvloop")
LISTEN = '[listen]\nmqtts = "127.0.0.1:0"\nmqtt = "127.0.0.1:0"\n'
ANYBODY = "[access]\nanonymous = true\n"
HANDSHAKES = 20
"""max_handshakes of the gateways here."""


def is_open(sock: socket.socket) -> bool:
    """Whether the gateway has not closed the connection; it has said nothing."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def at_most(limit: int, sockets: list[socket.socket]) -> bool:
    return sum(map(is_open, sockets)) <= limit


@pytest.mark.parametrize("scheme", ["mqtts", "mqtt"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("limit", [f"max_handshakes = {HANDSHAKES}\n", f"[mqtt]\nmax_connections = {HANDSHAKES}\n"])
def test_silent_sockets_keep_nobody_out(fleet: Any, start: Any, dial: Any, loop: str, scheme: str, limit: str) -> None:
    """Twice as many as there may be, each opened anew as soon as it is cut; a node comes in every time."""
    fleet.settings(LISTEN + limit + ANYBODY)
    daemon = start(fleet.home, loop=loop)
    port, secure = daemon.port(scheme), daemon.port()
    context = fleet.context(fleet.issue("peanut:plant/peanut"))
    with contextlib.ExitStack() as stack:
        silent: list[socket.socket] = []
        for _ in range(8):
            silent = [sock for sock in silent if is_open(sock)]
            while len(silent) < 2 * HANDSHAKES:
                silent.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)))
            # Whoever needs less time than it takes to open max_handshakes others comes in: the flood has arrived first.
            wait_for(partial(at_most, HANDSHAKES, silent), "the cut of those beyond")
            node = dial(secure, context)
            assert node.connect("peanut")[1] == 0
            node.ping()
    words = (
        "too many that have not come in" if "handshakes" in limit else "there are as many connections as there may be"
    )
    daemon.line(rf'connection cut .*why="[^"]*{words} \({limit.split()[-3]} in \[\w+\]\)"')


@pytest.mark.parametrize("loop", LOOPS)
def test_the_oldest_newcomer_goes_and_who_is_in_stays(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """max_handshakes at the limit and one beyond it."""
    fleet.settings(LISTEN + "max_handshakes = 2\n" + ANYBODY)
    port = start(fleet.home, loop=loop).port("mqtt")
    guests = [dial(port, version=4) for _ in range(3)]
    assert guests[0].closed()
    for number, guest in enumerate(guests[1:]):
        assert guest.connect(f"guest-{number}") == b"\x00\x00"
    first, second = dial(port, version=4), dial(port, version=4)
    for guest in guests[1:]:
        guest.ping()
    assert is_open(first.sock)
    third = dial(port, version=4)
    assert first.closed()
    first.sock.setblocking(True)
    for number, wire in enumerate((second, third)):
        assert wire.connect(f"late-{number}") == b"\x00\x00"


# --- TLS ---


def header(size: int, hello: int, kind: int = 0x16, message: int = 1) -> bytes:
    """What a TLS connection begins with: the header of a record of `size` bytes, and of a message of `hello` bytes."""
    return bytes([kind, 3, 1]) + size.to_bytes(2) + bytes([message]) + hello.to_bytes(3)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (header(tls.HELLO_MAX + 1, 512), "a first record of 16385 bytes"),
        (header(3, 512), "a first record of 3 bytes"),
        (header(512, tls.HELLO_MAX + 1), "it announces a ClientHello of 16385 bytes"),
        (header(512, 0xFFFFFF), "it announces a ClientHello of 16777215 bytes"),
        (header(512, 512, message=2), "it does not begin with a ClientHello"),
        (header(512, 512, kind=0x15), "not TLS"),
        (b"\x16\x02\x00", "not TLS"),
    ],
)
def test_what_cannot_be_a_client_hello_is_known_by_its_first_bytes(first: bytes, why: str) -> None:
    """RFC 8446 §5.1 and §4, at the limit and beyond it; and however few bytes come at once."""
    found = [tls.no_hello(first[:size]) for size in range(1, len(first) + 1)]
    assert why in str(found[-1])
    assert all(words is None or words.startswith("not TLS") for words in found)
    for size in (4, 512, tls.HELLO_MAX):
        assert tls.no_hello(header(size, tls.HELLO_MAX)) is None


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hello_that_announces_too_much_is_not_waited_for(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home, loop=loop)
    for pieces in ([header(16384, 0x01FFFF)], [bytes([byte]) for byte in header(16384, 0x01FFFF)]):
        wire = dial(daemon.port())
        for piece in pieces:
            wire.sock.sendall(piece)
        assert wire.closed()
        daemon.line(rf'handshake failed address={wire.source}:\d+ why="not TLS: it announces a ClientHello of 131071 ')


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hello_in_pieces_and_what_comes_right_behind_the_handshake(
    fleet: Any, start: Any, dial: Any, loop: str
) -> None:
    """The ClientHello byte by byte; CONNECT and many PUBLISHes in one write with the end of the handshake."""
    fleet.settings(LISTEN)
    daemon = start(fleet.home, loop=loop)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = fleet.context(fleet.issue("peanut:operator/anna")).wrap_bio(
        incoming, outgoing, server_hostname="localhost"
    )
    wire = dial(daemon.port())
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    for byte in outgoing.read():
        wire.sock.sendall(bytes([byte]))
    while True:
        chunk = wire.sock.recv(65536)
        assert chunk, daemon.lines
        incoming.write(chunk)
        try:
            session.do_handshake()
            break
        except ssl.SSLWantReadError:
            wire.sock.sendall(outgoing.read())  # with asyncio another hello: that wants a key on P-256
    count = 3000
    publish = packet(0x32, text("/plant/a/UpdateTemperature") + b"\x00\x01temperature:15")
    session.write(packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text("late")))
    for _ in range(count // 100):
        session.write(publish * 100)
    wire.sock.sendall(outgoing.read())
    answer = b""
    while len(answer) < 4 + 4 * count:
        chunk = wire.sock.recv(65536)
        assert chunk, daemon.lines
        incoming.write(chunk)
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                answer += session.read(65536)
    assert answer == b"\x20\x02\x00\x00" + b"\x40\x02\x00\x01" * count


def test_handshakes_take_turns_with_the_rest() -> None:
    """STEPS_PER_TURN and one more: the one more comes after whatever else the loop has to do."""
    happened: list[str] = []

    class Stub(Secure):
        def __init__(self, name: str) -> None:
            self.name = name

        def step(self) -> None:
            happened.append(self.name)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        handshakes = Handshakes(loop)
        for number in range(STEPS_PER_TURN + 1):
            handshakes.add(Stub(str(number)))
        loop.call_soon(happened.append, "the rest")
        while len(happened) < STEPS_PER_TURN + 2:
            await asyncio.sleep(0)
        handshakes.add(Stub("again"))
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert happened == [*map(str, range(STEPS_PER_TURN)), "the rest", str(STEPS_PER_TURN), "again"]


def test_one_peer_gets_a_record_at_a_time() -> None:
    """libuv reads up to 32 buffers of one socket before it turns to the next: half a MiB is enough."""
    assert RECEIVE_BUFFER <= 16 * 1024


# --- what the core refuses ---


@pytest.mark.parametrize("loop", LOOPS)
def test_who_is_refused_by_the_core_was_never_connected(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """Its will is more than its rules allow: refused, in the log as for the client, and on $SYS nothing at all."""
    fleet.settings(LISTEN)
    daemon = start(fleet.home, loop=loop)
    watcher = dial(daemon.port(), fleet.context(fleet.issue("peanut:operator/anna")))
    assert watcher.connect("watch")[1] == 0
    assert watcher.subscribe("$SYS/broker/clients/plant/#") == b"\x01"
    context = fleet.context(fleet.issue("peanut:plant/heir"))
    greedy = dial(daemon.port(), context)
    assert greedy.connect("heir", will=("/plant/peanut/UpdateTemperature", b"temperature:40"))[1] == 0x87
    assert greedy.closed()
    daemon.line(rf'refused who=plant/heir address={greedy.source}:\d+ why="not authorised" code=0x87')
    modest = dial(daemon.port(), context)
    assert modest.connect("heir", will=("/plant/heir/status", b"gone"))[1] == 0
    daemon.line(rf"connected who=plant/heir address={modest.source}:")
    assert watcher.message()[0] == "$SYS/broker/clients/plant/heir/connected"
    assert f'"address":"{modest.source}:'.encode() in watcher_payload(watcher, modest)
    assert not [line for line in daemon.lines if " connected " in line and greedy.source in line]


def watcher_payload(watcher: Any, wire: Any) -> bytes:
    """The payload of the news that the client is gone, which it leaves for now."""
    wire.disconnect()
    topic, payload, _ = watcher.message()
    assert topic == "$SYS/broker/clients/plant/heir/disconnected"
    return bytes(payload)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_message_for_which_the_retained_store_has_no_room(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(LISTEN + ANYBODY + "[mqtt]\nmax_retained = 1\nsys_interval = 0\n")
    daemon = start(fleet.home, loop=loop)
    wire = dial(daemon.port("mqtt"), version=4)
    assert wire.connect("writer") == b"\x00\x00"
    for topic in ("first", "second"):
        assert wire.publish(topic, b"x", retain=True) == 0
    line = daemon.line(r'not retained who=anonymous/writer .* what="?retain second"?')
    assert 'why="the retained store is full (max_retained, max_retained_bytes)"' in line
    assert not [line for line in daemon.lines if "retain first" in line]


# --- the log ---


@pytest.mark.parametrize("loop", LOOPS)
def test_a_log_that_nobody_reads_stops_neither_the_gateway_nor_its_end(fleet: Any, dial: Any, loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fleet.settings(f'[listen]\nmqtts = ""\nmqtt = "127.0.0.1:{port}"\n{ANYBODY}')
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
        command = [sys.executable, "-m", "peanutd", "--home", str(fleet.home)]
        with subprocess.Popen(command, env={**os.environ, "PEANUTD_LOOP": loop}, stderr=writing) as process:

            def comes_in() -> bool:
                try:
                    wire = dial(port, version=4)
                except ConnectionRefusedError:
                    return False
                assert wire.connect("guest") == b"\x00\x00"
                wire.ping()
                return True

            try:
                wait_for(comes_in, "the gateway")
                process.terminate()
                assert process.wait(60) == 0
            finally:
                process.kill()
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("loop", LOOPS)
def test_two_devices_in_one_name_are_pointed_out(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """From two addresses in turn; the same from one address is a node that lost its connection."""
    fleet.settings(LISTEN)
    daemon = start(fleet.home, loop=loop)
    context = fleet.context(fleet.issue("peanut:plant/twin"))
    for number in range(6):
        assert dial(daemon.port(), context, source="127.4.0.1").connect("twin")[1] == 0, number
    assert not [line for line in daemon.lines if "again and again" in line]
    for number in range(4):
        assert dial(daemon.port(), context, source=f"127.4.0.{number % 2 + 2}").connect("twin")[1] == 0
    line = daemon.line(
        r"warn  server: taken over again and again who=plant/twin address=127\.4\.0\.\d:\d+ by=127\.4\.0\."
    )
    assert 'why="two devices have the same certificate and client id, or the certificate is stolen"' in line


@pytest.mark.parametrize("loop", LOOPS)
def test_client_ids_made_up_at_will_do_not_fill_the_log(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(LISTEN + ANYBODY)
    daemon = start(fleet.home, loop=loop)
    port = daemon.port("mqtt")
    count = Flood.GROUP_BURST + 20
    for number in range(count):
        wire = dial(port, version=4, source="127.4.1.1")
        assert wire.connect(f"made-up-{number}") == b"\x00\x00"
    other = dial(port, version=4, source="127.4.1.2")
    assert other.connect("honest") == b"\x00\x00"
    daemon.line("connected who=anonymous/honest")
    daemon.stop()
    lines = [line for line in daemon.lines if " connected who=anonymous/made-up" in line]
    assert len(lines) == Flood.GROUP_BURST
    daemon.line('left out what="connected, all clients" who=127.4.1.1 lines=20')


@pytest.mark.parametrize("loop", LOOPS)
def test_who_is_too_fast_is_slowed_down_and_loses_nothing(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """Others are as fast as ever meanwhile, and the log says what happened."""
    fleet.settings(LISTEN + ANYBODY + "[mqtt]\npublish_rate = 100\n")
    daemon = start(fleet.home, loop=loop)
    port = daemon.port("mqtt")
    watcher, talker = dial(port), dial(port)
    for wire in (watcher, talker):
        wire.connect("w" if wire is watcher else "t")
    watcher.subscribe("t")
    began = time.monotonic()
    for number in range(300):
        talker.send(0x30, b"\x00\x01t\x00" + str(number).encode())
    talker.send(0xC0, b"")
    watcher.ping()
    assert len(watcher._kept) < 300, "the answer came before the last message"
    assert [int(watcher.message()[1]) for _ in range(300)] == list(range(300))
    assert time.monotonic() - began > 1.5
    talker.await_type(13)
    daemon.line(r"throttled who=\S+ address=\S+ why=\"it sends more than publish_rate")
