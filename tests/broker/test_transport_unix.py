"""Unix sockets: who may use them, what becomes of the file, and clients that are not ours on them."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peanutd.config import Listener, Policy, UnixPath
from peanutd.sockets import ListenError, bind
from tests.broker.conftest import Wire
from tests.broker.websocket import Socket
from tests.programs import program

LOOPS = ("asyncio", "uvloop")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's: pytest's own are too long for some systems."""
    with tempfile.TemporaryDirectory(prefix="peanut-") as directory:
        yield Path(directory)


def settings(path: Path, more: str = "") -> str:
    return f"""
[listen]
mqtts = ""
[[listener]]
address = "unix:{path}"
anonymous = true
{more}
"""


@pytest.fixture
def dial_unix() -> Iterator[Any]:
    opened: list[socket.socket] = []

    def connect(path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        opened.append(sock)
        sock.settimeout(60)
        sock.connect(str(path))
        return sock

    yield connect
    for sock in opened:
        sock.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_mqtt_on_a_unix_socket(fleet: Any, start: Any, dial_unix: Any, place: Path, loop: str) -> None:
    """Anonymous is allowed there; the peer is named by user and process; the file goes with the gateway."""
    path = place / "peanut.sock"
    fleet.settings(settings(path))
    daemon = start(fleet.home, loop=loop)
    daemon.line(f"listening mqtt unix:{path}$")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    wire = Wire(dial_unix(path), 5)
    assert wire.connect("local")[1] == 0
    daemon.line(f'connected who=anonymous/local address="?unix:uid={os.getuid()},pid={os.getpid()}"? mqtt=5.0$')
    assert wire.subscribe("a") == b"\x01"
    assert wire.publish("a", b"b") in (0, 0x10)
    assert wire.message() == ("a", b"b", False)
    daemon.stop()
    assert daemon.process.returncode == 0
    assert not path.exists()
    assert not [line for line in daemon.lines if " error " in line or "Traceback" in line]


@pytest.mark.parametrize("loop", LOOPS)
def test_clients_of_mosquitto_on_a_unix_socket(fleet: Any, start: Any, place: Path, loop: str) -> None:
    for tool in ("mosquitto_pub", "mosquitto_sub"):
        program(tool, "mosquitto-clients")
    path = place / "peanut.sock"
    fleet.settings(settings(path))
    daemon = start(fleet.home, loop=loop)
    daemon.line("listening")
    common = ["--unix", str(path), "-t", "a/b", "-q", "2"]
    done = subprocess.run(["mosquitto_pub", *common, "-m", "kept", "-r"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["mosquitto_sub", *common, "-C", "1"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "kept\n")


def test_permissions_are_what_was_asked_for(fleet: Any, start: Any, place: Path) -> None:
    """Whatever the umask says."""
    path = place / "peanut.sock"
    fleet.settings(settings(path, 'mode = "0600"'))
    start(fleet.home).line("listening")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_mode_does_not_depend_on_the_umask(place: Path, mode: int, umask: int) -> None:
    path = place / "s"
    before = os.umask(umask)
    try:
        bound = bind(Listener(UnixPath(str(path)), "tcp", Policy("none", anonymous=True), mode=mode))
    finally:
        found = os.umask(before)
    bound.socket.close()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert found == umask, "it is as it was"


def test_what_was_left_behind_is_replaced_and_what_lives_is_not(fleet: Any, start: Any, place: Path) -> None:
    path = place / "peanut.sock"
    fleet.settings(settings(path))
    first = start(fleet.home)
    first.line("listening")
    fleet.settings(settings(path, '[store]\npath = "second.db"\n'))
    second = start(fleet.home)
    assert second.wait() == 1
    second.line(f"cannot listen on unix:{path}: in use: another program .* change .*listener.* 1 of gateway.toml")
    first.signal(signal.SIGKILL)
    first.wait()
    assert path.exists()
    third = start(fleet.home)
    third.line("listening")
    assert path.exists()


def test_nothing_but_a_dead_socket_is_removed(place: Path) -> None:
    listener = Listener(UnixPath(str(place / "s")), "tcp", Policy("none", anonymous=True), where="HERE")
    (place / "s").write_text("precious")
    with pytest.raises(ListenError, match=r"something that is not a socket.*change HERE"):
        bind(listener)
    assert (place / "s").read_text() == "precious"
    (place / "s").unlink()
    (place / "s").symlink_to(place / "elsewhere")
    with pytest.raises(ListenError, match="not a socket"):
        bind(listener)
    with pytest.raises(ListenError, match="the directory is not there"):
        bind(Listener(UnixPath(str(place / "no" / "s")), "tcp"))


def test_a_file_that_is_anothers_by_now_stays(place: Path) -> None:
    """Somebody has removed ours and listens there: their socket is not ours to remove."""
    path = place / "s"
    bound = bind(Listener(UnixPath(str(path)), "tcp"))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        bound.remove()
        assert path.exists()
    bound.socket.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_the_other_transports_work_there_too(fleet: Any, start: Any, dial_unix: Any, place: Path, loop: str) -> None:
    """A reverse proxy on the same machine: WebSocket, with the PROXY protocol in front; and TLS."""
    fleet.settings(f"""
[listen]
mqtts = ""
[[listener]]
address = "unix:{place}/ws"
transport = "ws"
proxy_protocol = true
password = true
[[listener]]
address = "unix:{place}/tls"
transport = "tls"
""")
    daemon = start(fleet.home, loop=loop)
    daemon.line("listening", count=2)
    sock = dial_unix(place / "ws")
    sock.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n")
    page = Socket(sock)
    assert page.handshake()[0] == 101
    assert Wire(page, 5).connect("x")[1] == 0x87  # type: ignore[arg-type]
    daemon.line("refused address=203.0.113.9:56324 ")
    context = fleet.context(fleet.issue("peanut:plant/peanut"))
    secure = Wire(context.wrap_socket(dial_unix(place / "tls"), server_hostname="localhost"), 5)
    assert secure.connect("peanut")[1] == 0
    secure.ping()
