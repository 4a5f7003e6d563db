"""The gateway under attack: peers that hold on to what they get, flood, and lie about what they are going to send.

The rule it keeps: an attacker may spoil its own connections, and nobody else notices. Each attack is made with real
sockets, on both loops, and beside it a client that does nothing wrong is served.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

from tests.broker.conftest import wait_for

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


@pytest.mark.parametrize("scheme", ["mqtts", "mqtt"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("limit", [f"max_handshakes = {HANDSHAKES}\n", f"max_connections = {HANDSHAKES}\n"])
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
            wait_for(lambda held=silent: sum(map(is_open, held)) <= HANDSHAKES, "a cut")
            node = dial(secure, context)
            assert node.connect("peanut")[1] == 0
            node.ping()
    daemon.line(r'connection cut .*why="too many that have not come in \(max_handshakes in \[listen\]\)"')


@pytest.mark.parametrize("loop", LOOPS)
def test_the_oldest_newcomer_goes_and_who_is_in_stays(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """max_handshakes at the limit and one beyond it."""
    fleet.settings(LISTEN + "max_handshakes = 2\n" + ANYBODY)
    port = start(fleet.home, loop=loop).port("mqtt")
    guests = [dial(port, version=4) for _ in range(3)]
    for number, guest in enumerate(guests[1:]):
        assert guest.connect(f"guest-{number}") == b"\x00\x00"
    assert guests[0].closed()
    first, second = dial(port, version=4), dial(port, version=4)
    for guest in guests[1:]:
        guest.ping()
    assert is_open(first.sock)
    third = dial(port, version=4)
    assert first.closed()
    first.sock.setblocking(True)
    for number, wire in enumerate((second, third)):
        assert wire.connect(f"late-{number}") == b"\x00\x00"
