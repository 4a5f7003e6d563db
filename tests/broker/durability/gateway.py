"""A gateway that is killed, and peers that talk to it over TCP: what the tests of crashes share.

The rule it keeps: the gateway is the real program, killed with SIGKILL, and started again on the same home and port.
The peers are those of peers.py on sockets, each in a thread of its own; they reconnect by themselves until the end.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.broker.durability.peers import Publisher, Subscriber
from tests.reference import codec
from tools.ports import free_port

DEADLINE = 60.0
"""Seconds after which what ought to happen has failed to, on a machine that has much else to do."""

SETTINGS = """
[listen]
mqtts = ""
mqtt = "127.0.0.1:{port}"
[access]
anonymous = true
[mqtt]
sys_interval = 0
max_queued_messages = 10000000
max_queued_bytes = 4000000000
"""


def wait_for(what: Callable[[], Any], why: str, deadline: float = DEADLINE) -> Any:
    """Polls until `what()` is true; returns it."""
    end = time.monotonic() + deadline
    while not (found := what()):
        assert time.monotonic() < end, f"{why}: not within {deadline:.0f} s"
        time.sleep(0.01)
    return found


class Gateway:
    """A peanutd on a home of its own. Everything it says is in `log`."""

    def __init__(self, home: Path, settings: str = "") -> None:
        self.home = home
        self.port = free_port()
        home.mkdir(exist_ok=True)
        (home / "gateway.toml").write_text(SETTINGS.format(port=self.port) + settings)
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.kill)  # a test that fails leaves it running

    @property
    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "peanutd", "--home", str(self.home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PEANUTD_LOOP": "asyncio"},
            )

    def ready(self) -> None:
        """Waits until it takes connections."""

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_for(answers, "a gateway that listens")

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        self.process = None
        return status


class OnTcp(threading.Thread):
    """A peer on a socket. It comes back whenever the connection is gone."""

    def __init__(self, peer: Publisher | Subscriber, port: int) -> None:
        super().__init__(name=peer.name, daemon=True)
        self.peer = peer
        self.port = port
        self.wrong: BaseException | None = None
        self.speaks = threading.Event()
        """Whether it may begin what is new."""
        self.away = threading.Event()
        """Set: it stays away."""
        self._ends = threading.Event()
        self.start()

    def end(self) -> None:
        self._ends.set()
        self.join(DEADLINE)
        assert not self.is_alive()
        if self.wrong is not None:
            raise self.wrong

    def run(self) -> None:
        try:
            while not self._ends.is_set():
                if self.away.is_set():
                    time.sleep(0.01)
                    continue
                with (
                    contextlib.suppress(OSError, EOFError),
                    socket.create_connection(("127.0.0.1", self.port), 1) as sock,
                ):
                    self._talk(sock)
                self.peer.online = False
                self._ends.wait(0.02)
        except BaseException as error:
            self.wrong = error

    def _talk(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(0.05)
        peer, decoder = self.peer, codec.Decoder(self.peer.version)
        said = peer.connected()
        while not self._ends.is_set() and not self.away.is_set():
            if said:
                sock.sendall(b"".join(codec.encode(packet, peer.version) for packet in said))
            try:
                data = sock.recv(65536)
            except TimeoutError:
                data = None
            if data == b"":
                raise EOFError
            said = [answer for packet in decoder.feed(data or b"") for answer in peer.heard(packet)]
            if self.speaks.is_set():
                said += peer.say()


@contextlib.contextmanager
def on_tcp(port: int, *peers: Publisher | Subscriber) -> Iterator[list[OnTcp]]:
    """The peers, talking until the block ends."""
    threads = [OnTcp(peer, port) for peer in peers]
    try:
        yield threads
    finally:
        for thread in threads:
            thread._ends.set()
        for thread in threads:
            thread.end()
