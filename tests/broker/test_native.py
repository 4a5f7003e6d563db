"""The native driver: the C tests of its loop under sanitizers, and what there is to choose.

That it serves like the asyncio driver is proved by the suite as a whole: daemons of the tests run on it, and those that
are started once for each event loop run once on each driver (conftest.py). `make test-long` runs everything on asyncio.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from peanutd import _core, access, native
from peanutd._core import Broker
from peanutd.config import LOOPS_MAX, Address, Listener, Policy, UnixPath
from peanutd.log import Log
from peanutd.server import Server
from tests.broker.native_loop import needs_loop

ROOT = Path(__file__).resolve().parents[2]


@needs_loop
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_c(sanitizer: str) -> None:
    """tests/broker/native; see there for what each of its cases proves."""
    command = ["make", "-s", "-C", str(ROOT / "tests" / "broker" / "native"), "check", f"SANITIZE={sanitizer}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


@needs_loop
def test_there_is_one_loop_at_least_and_no_more_than_the_core_has_lanes_for() -> None:
    broker = Broker(seed=b"not a secret")
    assert _core.LOOPS_MAX == LOOPS_MAX
    for wrong in (0, LOOPS_MAX + 1):
        with pytest.raises(ValueError, match="1 to 16 loops"):
            _core.Loop(broker, loops=wrong)
    loop = _core.Loop(broker, loops=LOOPS_MAX)
    assert len(loop.each()) == LOOPS_MAX
    loop.end()


@needs_loop
def test_it_serves_tcp_and_tls_and_leaves_the_rest() -> None:
    here = Address("127.0.0.1", 0)
    assert native.serves(Listener(here, "tcp"))
    assert native.serves(Listener(here, "tls"))
    assert not native.serves(Listener(here, "ws"))
    assert not native.serves(Listener(here, "wss"))
    assert not native.serves(Listener(here, "tcp", proxy_from=()))
    assert not native.serves(Listener(UnixPath("/somewhere"), "tcp"))


@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_one_who_is_known_opens_the_door_for_nobody_else(
    fleet: Any, signer: Any, start: Any, dial: Any, monkeypatch: Any, driver: str
) -> None:
    """A certificate is judged once; the same name by another CA is another certificate, and so is another key's."""
    monkeypatch.setenv("PEANUTD_DRIVER", driver)
    fleet.settings('[listen]\nmqtts = "127.0.0.1:0"\nmqtt = ""\ntime = ""\n')
    daemon = start(fleet.home)
    other = signer("issuing", signer("root"))  # the same names, other keys
    good = fleet.context(fleet.issue("peanut:plant/bean"))
    foreign = fleet.context(fleet.issue("peanut:plant/bean", issuer=other))
    forged = fleet.context(fleet.issue("peanut:plant/bean", self_signed=True))
    for time_ in range(2):
        assert dial(daemon.port(), good).connect("bean")[1] == 0
        assert dial(daemon.port(), good).connect("bean")[1] == 0
        for number, stranger in enumerate((foreign, forged)):
            with pytest.raises((OSError, EOFError)):
                dial(daemon.port(), stranger).connect("bean")
            daemon.line("handshake failed .*not issued by this fleet's CA", 2 * time_ + number + 1)
        assert dial(daemon.port(), good).connect("other")[1] == access.CLIENT_ID_NOT_VALID


@needs_loop
@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_the_driver_is_a_setting(fleet: Any, start: Any, dial: Any, monkeypatch: Any, driver: str) -> None:
    """Whoever is asked: the native one has a thread more."""
    monkeypatch.delenv("PEANUTD_DRIVER", raising=False)
    fleet.settings(f'[listen]\nmqtts = "127.0.0.1:0"\nmqtt = ""\ntime = ""\ndriver = "{driver}"\n')
    daemon = start(fleet.home)
    wire = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/bean")))
    assert wire.connect("bean")[1] == 0
    daemon.line("connected who=plant/bean .*tls=TLSv1.3")
    names = [path.read_text() for path in Path(f"/proc/{daemon.process.pid}/task").glob("*/comm")]
    assert ("peanut-loop\n" in names) == (driver == "native")


@needs_loop
@pytest.mark.parametrize(("threads", "loops"), [(0, 1), (3, 3)])
def test_handshakes_and_loops_have_threads_of_their_own(
    fleet: Any, start: Any, dial: Any, monkeypatch: Any, threads: int, loops: int
) -> None:
    """And everybody hears everybody, whichever loop they are in."""
    monkeypatch.setenv("PEANUTD_DRIVER", "native")
    listen = '[listen]\nmqtts = "127.0.0.1:0"\nmqtt = ""\ntime = ""\n'
    fleet.settings(f"{listen}handshake_threads = {threads}\nloops = {loops}\n")
    daemon = start(fleet.home)
    context = fleet.context(fleet.issue("peanut:operator/anna"))
    wires = [dial(daemon.port(), context) for _ in range(6)]
    assert [wire.connect(str(number))[1] for number, wire in enumerate(wires)] == [0] * 6
    names = [path.read_text() for path in Path(f"/proc/{daemon.process.pid}/task").glob("*/comm")]
    assert (names.count("peanut-hands\n"), names.count("peanut-loop\n")) == (threads, loops)
    for wire in wires:
        wire.subscribe("/plant/+/cmd/loops")
    for wire in wires:
        assert wire.publish("/plant/bean/cmd/loops", b"{}") == 0
    for wire in wires:
        assert [wire.message()[0] for _ in wires] == ["/plant/bean/cmd/loops"] * len(wires)
    fleet.settings(f"{listen}handshake_threads = {threads + 1}\nloops = {loops + 1}\n")
    daemon.signal(signal.SIGHUP)
    daemon.line("handshake_threads .*has changed: this needs a restart")
    daemon.line("loops .*has changed: this needs a restart")


@needs_loop
def test_a_context_says_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match="the gateway's certificate: "):
        _core.Tls(
            chain=b"",
            key=b"",
            authorities=b"",
            certificate=_core.TLS_REQUIRED,
            ciphers="ECDHE",
            groups="P-256",
            tickets=0,
            psk=None,
        )


@needs_loop
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_somebody_is_accepted_as_a_socket_accepts_him(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        try:
            listening.bind((host, 0))
        except OSError:
            if family == socket.AF_INET:
                raise
            pytest.skip("IPv6 is switched off in this kernel, as in many containers: there is nothing to be accepted")
        listening.listen()
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            _core.accept(listening)
        with socket.create_connection(listening.getsockname()[:2], 60) as client:
            fd, *where = _core.accept(listening)
            with socket.socket(fileno=fd) as ours:
                assert where == [*client.getsockname()[:2]] == [*ours.getpeername()[:2]]
                assert not os.get_blocking(fd)
                assert not ours.get_inheritable()
    with pytest.raises(ValueError, match="negative"):
        _core.accept(listening)


def test_without_the_loop_asyncio_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "AVAILABLE", False)
    assert not native.serves(Listener(Address("127.0.0.1", 0), "tls"))


@needs_loop
def test_a_mistake_about_one_is_no_mistake_about_others() -> None:
    """Two have gone at the same time, and the first cannot even be written down: both are forgotten all the same, and
    the mistake is said.
    """

    class Torn(StringIO):
        tears = 1

        def write(self, text: str) -> int:
            if "disconnected" in text and self.tears:
                self.tears -= 1
                raise LookupError("the paper is torn")
            return super().write(text)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        said: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: said.append(context))
        log = Torn()
        server = Server(Broker(seed=b"not a secret"), Log(stream=log), loop)
        policy = Policy("none", anonymous=True)
        (address,) = await server.start([Listener(Address("127.0.0.1", 0), "tcp", policy, driver="native")])
        assert isinstance(address, Address)
        clients = []
        for name in (b"a", b"b"):
            client = socket.create_connection((address.host, address.port))
            client.setblocking(False)
            await loop.sock_sendall(client, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01" + name)
            assert await loop.sock_recv(client, 4) == b"\x20\x02\x00\x00"
            clients.append(client)
        driver = server._native
        assert driver is not None
        for client in clients:
            client.close()
        end = time.monotonic() + 60
        while driver.loop.counts()["connections"]:  # and the thread of asyncio hears of nothing meanwhile
            assert time.monotonic() < end
            time.sleep(0.001)
        while server.connections:
            await asyncio.sleep(0.01)
        assert [str(context["exception"]) for context in said] == ["the paper is torn"]
        assert "who=anonymous/b" in log.getvalue().rpartition("disconnected")[2]
        await server.stop()

    asyncio.run(asyncio.wait_for(scenario(), 60))


@needs_loop
@pytest.mark.parametrize("qos", [0, 1])
def test_who_is_in_is_served_while_python_does_something_else(qos: int) -> None:
    """All of this but the coming in happens while the event loop stands still: it is this very thread that waits."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server = Server(Broker(seed=b"not a secret"), Log(stream=StringIO()), loop)
        policy = Policy("none", anonymous=True)
        (address,) = await server.start([Listener(Address("127.0.0.1", 0), "tcp", policy, driver="native")])
        assert isinstance(address, Address)
        with socket.create_connection((address.host, address.port)) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a")
            assert await loop.sock_recv(client, 4) == b"\x20\x02\x00\x00"
            client.settimeout(60)
            client.sendall(b"\x82\x06\x00\x01\x00\x01t\x00")
            assert client.recv(5, socket.MSG_WAITALL) == b"\x90\x03\x00\x01\x00"
            for number in range(1, 100):
                name = number.to_bytes(2) if qos else b""
                client.sendall(bytes([0x30 | qos << 1, 4 + len(name)]) + b"\x00\x01t" + name + b"x")
                acknowledgement = b"\x40\x02" + name if qos else b""
                found = client.recv(6 + len(acknowledgement), socket.MSG_WAITALL)
                assert sorted(found) == sorted(b"\x30\x04\x00\x01tx" + acknowledgement)
        await server.stop()

    asyncio.run(asyncio.wait_for(scenario(), 100))
