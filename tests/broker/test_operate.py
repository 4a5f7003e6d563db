"""The gateway seen from outside, and told what to do: peanutd status, peanutd bans, /metrics, bans at work."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peanutd import control
from peanutd.__main__ import main
from peanutd.control import ControlError
from tests.broker import test_main
from tests.broker.conftest import wait_for, wait_for_control

LOOPS = ("asyncio", "uvloop")
LISTEN = '[listen]\nmqtts = "127.0.0.1:0"\nmqtt = "127.0.0.1:0"\n'
ANYBODY = "[access]\nanonymous = true\n"
METRICS = 'metrics = "127.0.0.1:0"\n'
STRICT = "[bans]\nwindow = 60\nduration = 300\nconnects = 5\nfailures = 5\nnever = []\n"


def scrape(daemon: Any) -> dict[str, float]:
    """Every sample by its name and labels; nothing of ours reads them."""
    url = re.search(r"listening metrics (\S+)", daemon.line("listening metrics"))
    assert url is not None
    with urllib.request.urlopen(f"http://{url[1]}", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        lines = answer.read().decode().splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    }


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """peanutd's command line, in this process."""

    def command(*arguments: str, **environment: str) -> Done:
        with monkeypatch.context() as patch:
            patch.delenv("PEANUT_HOME", raising=False)
            for key, value in environment.items():
                patch.setenv(key, value)
            capsys.readouterr()
            status = main(arguments)
        return Done(status, *capsys.readouterr())

    return command


# --- the control socket ---


@pytest.mark.parametrize("loop", LOOPS)
def test_status(fleet: Any, start: Any, dial: Any, run: Any, loop: str) -> None:
    fleet.settings(LISTEN + ANYBODY + "[mqtt]\nmax_memory = 77\n")
    home = str(fleet.home)
    done = run("status", "--home", home)
    assert done.returncode == 1
    assert f"no gateway runs in {home}; start it with" in done.stderr
    daemon = start(fleet.home, loop=loop)
    node = dial(daemon.port("mqtt"))
    node.connect("a")
    node.subscribe("t")
    wait_for_control(fleet.home)
    assert stat.S_IMODE((fleet.home / control.NAME).stat().st_mode) == 0o600
    found = json.loads(run("--home", home, "status", "--json").stdout)
    assert found["connections"]["online"] == 1
    assert found["core"]["subscriptions"] == 1
    assert found["pid"] == daemon.process.pid
    assert found["max_memory"] == 77
    assert 1_000_000 < found["rss"] < 1_000_000_000
    done = run("status", PEANUT_HOME=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^connections +1 online, 0 coming in", done.stdout, re.MULTILINE)
    assert re.search(r"^memory +\d+\.\d MiB of 77 in the core", done.stdout, re.MULTILINE)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not (fleet.home / control.NAME).exists()
    assert run("status", "--home", home).returncode == 1


def test_a_second_gateway_and_a_socket_left_behind(fleet: Any, start: Any, run: Any) -> None:
    """The second one says that it cannot be reached, and serves; after a kill -9 the next one can."""
    fleet.settings(LISTEN + '[store]\nsync = "off"\n')
    first = start(fleet.home)
    first.line("listening mqtt ")
    wait_for_control(fleet.home)
    second = start(fleet.home)
    second.line("cannot reach this gateway: .*in use")
    first.process.kill()
    first.wait()
    second.stop()
    third = start(fleet.home)
    third.port()
    wait_for(lambda: run("status", "--home", str(fleet.home)).returncode == 0, "an answer")


def test_questions_that_make_no_sense(fleet: Any, start: Any) -> None:
    fleet.settings(LISTEN)
    start(fleet.home).port()
    wait_for_control(fleet.home)
    for question in (
        {},
        {"command": "stop"},
        {"command": "bans add"},
        {"command": "bans add", "kind": "nobody", "key": "x", "seconds": 1, "reason": ""},
        {"command": "bans add", "kind": "user", "key": "x", "seconds": 0, "reason": ""},
        {"command": "bans add", "kind": "address", "key": "x", "seconds": 1, "reason": ""},
        {"command": "bans add", "kind": "address", "key": "127.0.0.1", "seconds": 1, "reason": ""},
        {"command": "bans remove", "kind": "user", "key": "x"},
    ):
        with pytest.raises(ControlError):
            control.ask(fleet.home, question)
    for raw in (b"\n", b"[]\n", b"{" * 3000 + b"\n", b"x" * (control.QUESTION_MAX + 1), b"\xff\xfe\n"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(control.path(fleet.home))
            sock.sendall(raw)
            assert "error" in json.loads(sock.makefile().read())
    assert control.ask(fleet.home, {"command": "bans"}) == {"bans": []}


def test_a_home_with_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 100)
    home.mkdir()
    name = control.path(home)
    assert len(name) < 100
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
    assert os.listdir(home) == [control.NAME]


# --- bans ---


@pytest.mark.parametrize("loop", LOOPS)
def test_an_operator_bans_and_ends_it(fleet: Any, start: Any, dial: Any, run: Any, loop: str) -> None:
    """Connections end, and nobody gets in again, also after a restart; until the ban ends."""
    fleet.settings(LISTEN)
    home = str(fleet.home)
    daemon = start(fleet.home, loop=loop)
    leaf = fleet.issue("peanut:operator/anna")
    anna, serial = fleet.context(leaf), f"{leaf.certificate.serial_number:x}"
    first, other = dial(daemon.port(), anna), dial(daemon.port(), anna)
    assert [first.connect("phone")[1], other.connect("tablet")[1]] == [0, 0]
    done = run("--home", home, "bans", "add", "client", "operator/anna/phone", "--seconds", "900", "--reason", "lost")
    assert done.stdout == "client operator/anna/phone is banned for 900 s; connections ended: 1\n"
    assert first.receive() == (0xE0, b"\x98")  # DISCONNECT, administrative action
    other.ping()
    answer = dial(daemon.port(), anna).connect("phone")
    assert answer[1] == 0x8A
    assert b"banned for 900 s more: lost" in answer or b"s more: lost" in answer
    daemon.line('refused who=operator/anna .*why="client operator/anna/phone is banned for .*: lost" code=0x8a')
    daemon.stop()
    assert stat.S_IMODE((fleet.home / "bans.json").stat().st_mode) == 0o600
    daemon = start(fleet.home, loop=loop)
    assert dial(daemon.port(), anna).connect("phone")[1] == 0x8A
    assert run("--home", home, "bans", "add", "certificate", serial).returncode == 0
    assert dial(daemon.port(), anna).connect("tablet")[1] == 0x8A
    listing = run("--home", home, "bans").stdout.splitlines()
    assert len(listing) == 3
    assert [ban["kind"] for ban in json.loads(run("bans", "list", "--json", "--home", home).stdout)] == [
        "client",
        "certificate",
    ]
    for kind, key in (("client", "operator/anna/phone"), ("certificate", serial)):
        assert run("--home", home, "bans", "remove", kind, key).returncode == 0
    done = run("--home", home, "bans", "remove", "client", "operator/anna/phone")
    assert (done.returncode, done.stderr) == (1, "peanutd: client operator/anna/phone is not banned\n")
    assert dial(daemon.port(), anna).connect("phone")[1] == 0
    assert run("--home", home, "bans").stdout == "nobody is banned\n"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_flapping_client_is_banned_and_nobody_else(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """Not its address either: one bad device does not lock out the others behind the same NAT."""
    fleet.settings(LISTEN + STRICT)
    daemon = start(fleet.home, loop=loop)
    bad, good = (fleet.context(fleet.issue(f"peanut:plant/{name}")) for name in ("bad", "good"))
    source = "127.9.0.1"
    for _ in range(6):
        wire = dial(daemon.port(), bad, source=source)
        assert wire.connect("bad")[1] == 0
        wire.disconnect()
        wire.close()
    for version, code in ((5, 0x8A), (4, 5)):
        assert dial(daemon.port(), bad, version, source=source).connect("bad")[1] == code
    daemon.line('bans: banned ban="client plant/bad" why="6 connects in')
    assert dial(daemon.port(), good, source=source).connect("good")[1] == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_who_has_shown_a_certificate_answers_with_it_and_not_with_the_address(
    fleet: Any, start: Any, dial: Any, run: Any, loop: str
) -> None:
    """Refused CONNECTs and protocol errors of one bad device: others behind the same NAT notice nothing."""
    fleet.settings(LISTEN + STRICT)
    daemon = start(fleet.home, loop=loop)
    leaves = [fleet.issue(f"peanut:plant/{name}") for name in ("bad", "worse")]
    bad, worse = map(fleet.context, leaves)
    source = "127.9.0.3"
    for _ in range(6):
        assert dial(daemon.port(), bad, source=source).connect("another")[1] == 0x85  # client id not valid
        wire = dial(daemon.port(), worse, source=source)
        wire.send(0x13, b"")  # reserved bits
        assert wire.closed()
    for leaf in leaves:
        daemon.line(f'bans: banned ban="certificate {leaf.certificate.serial_number:x}" why="6 ')
    found = json.loads(run("bans", "list", "--json", "--home", str(fleet.home)).stdout)
    assert [ban["kind"] for ban in found] == ["certificate", "certificate"]
    assert dial(daemon.port(), bad, source=source).connect("bad")[1] == 0x8A


@pytest.mark.parametrize("loop", LOOPS)
def test_a_banned_address_lets_certificates_through(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """Knocking, garbage and failed handshakes ban the address: no plaintext, no handshake for its own sake; but who has
    a certificate comes in from there, and who comes from elsewhere notices nothing.
    """
    fleet.settings(LISTEN + METRICS + STRICT)
    daemon = start(fleet.home, loop=loop)
    source = "127.9.0.2"
    for number in range(6):
        with socket.create_connection(("127.0.0.1", daemon.port()), 10, (source, 0)) as sock:
            if number % 2:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                while sock.recv(100):
                    pass
    daemon.line('bans: banned ban="address 127.9.0.2/32" why="6 ')
    assert dial(daemon.port("mqtt"), source=source).closed()
    node = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/good")), source=source)
    assert node.connect("good")[1] == 0
    storm = [dial(daemon.port(), source=source) for _ in range(30)]
    for wire in storm:
        wire.sock.settimeout(0.05)
    wait_for(lambda: sum(wire.closed() for wire in storm) > 15, "few of them may show a certificate")
    elsewhere = dial(daemon.port("mqtt"))
    elsewhere.send(0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00")
    assert elsewhere.receive()[1][1] == 0x87
    found = scrape(daemon)
    assert found['peanut_banned_total{kind="address"}'] == 1
    assert found['peanut_turned_away_total{reason="banned"}'] >= 1
    assert found["peanut_bans"] == 1


def test_guessing_a_password_from_everywhere_bans_the_user(fleet: Any, start: Any, dial: Any) -> None:
    """But not a certificate of that name."""
    fleet.settings(
        '[listen]\nmqtts = ""\n[[listener]]\naddress = "127.0.0.1:0"\ncertificate = "optional"\npassword = true\n'
        "[bans]\nuser_failures = 3\n"
    )
    daemon = start(fleet.home)
    nobody = fleet.context(None)
    codes = []
    for number in range(5):
        wire = dial(daemon.port(), nobody, source=f"127.9.1.{number + 1}")
        body = b"\x00\x04MQTT\x05\xc2\x00\x00\x00\x00\x01c\x00\x05maria\x00\x05wrong"
        wire.send(0x10, body)
        codes.append(wire.receive()[1][1])
    assert codes == [0x86] * 4 + [0x8A]
    daemon.line('bans: banned ban="user maria" why="4 failed logins in')
    assert dial(daemon.port(), fleet.context(fleet.issue("peanut:operator/maria"))).connect("m")[1] == 0


def test_a_broken_ban_file_bans_nobody(fleet: Any, start: Any, dial: Any) -> None:
    (fleet.home / "bans.json").write_text("{")
    fleet.settings(LISTEN + ANYBODY)
    daemon = start(fleet.home)
    daemon.line("bans: .*bans.json: cannot be read, nobody is banned by it")
    assert dial(daemon.port("mqtt")).connect("a")[1] == 0


def test_the_rules_of_bans_may_change_while_it_runs(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    daemon.port()
    context = fleet.context(fleet.issue("peanut:plant/a"))
    fleet.settings(LISTEN + "handshake_rate = 5\n[bans]\nconnects = 1\n")
    daemon.signal(signal.SIGHUP)
    daemon.line("reloaded")
    assert [dial(daemon.port(), context).connect("a")[1] for _ in range(3)] == [0, 0, 0x8A]


# --- metrics ---


@pytest.mark.parametrize("loop", LOOPS)
def test_metrics_say_what_happened(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(LISTEN + METRICS + ANYBODY)
    daemon = start(fleet.home, loop=loop)
    port = daemon.port("mqtt")
    talker, listener = dial(port), dial(port)
    for wire in (talker, listener):
        wire.connect("t" if wire is talker else "l")
    listener.subscribe("t")
    for _ in range(3):
        talker.publish("t", b"12345")
        listener.message()
    with socket.create_connection(("127.0.0.1", daemon.port())) as sock:
        sock.sendall(b"no TLS")
        assert sock.recv(10) == b""
    wait_for(
        lambda: scrape(daemon).get('peanut_handshakes_failed_total{reason="not TLS"}') == 1, "the failed handshake"
    )
    listener.send(0x00, b"")
    assert listener.closed()
    found = wait_for(
        lambda: (now := scrape(daemon)).get('peanut_disconnected_total{reason="malformed packet"}') and now, "its end"
    )
    assert found['peanut_connections{state="online"}'] == 1
    assert found['peanut_messages_total{direction="in",qos="1"}'] == 3
    assert found['peanut_messages_total{direction="out",qos="1"}'] == 3
    assert found['peanut_payload_bytes_total{direction="in"}'] == 15
    assert found['peanut_dropped_total{reason="queue_full"}'] == 0
    assert found["peanut_memory_bytes"] > 1000
    assert found["peanut_resident_memory_bytes"] > 1_000_000
    wait_for(lambda: scrape(daemon)['peanut_loop_lag_seconds_bucket{le="+Inf"}'] >= 1, "a look at the loop")
    assert found["peanut_connections_accepted_total"] >= 3
    assert len([name for name in found if not name.startswith("peanut_")]) == 0


def test_a_port_for_metrics_that_is_taken(fleet: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fleet.settings(f'[listen]\nmqtts = "127.0.0.1:0"\nmetrics = "127.0.0.1:{port}"\n')
        done = test_main.run("--home", str(fleet.home))
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
        assert "change metrics in [listen]" in done.stderr


# --- who reads nothing ---


def length(size: int) -> bytes:
    """A remaining length (MQTT 5.0 §1.5.5)."""
    digits = bytearray()
    while True:
        size, digit = divmod(size, 128)
        digits.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(digits)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_reads_nothing_is_cut_after_stall_timeout(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """However alive it is otherwise; and who has nothing to read may be silent for as long as it likes."""
    fleet.settings(LISTEN + "stall_timeout = 1\n" + ANYBODY)
    port = start(fleet.home, loop=loop).port("mqtt")
    idle, talker = dial(port), dial(port)
    idle.connect("idle")
    talker.connect("talker")
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with stuck:
        stuck.connect(("127.0.0.1", port))
        stuck.sendall(b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x05stuck\x82\x09\x00\x01\x00\x00\x03big\x00")
        wait_for(lambda: stuck.recv(1) == b"\x90", "the SUBACK")
        began = time.monotonic()
        for _ in range(40):
            talker.sock.sendall(b"\x30" + length(5 + 1 + 100_000) + b"\x00\x03big\x00" + bytes(100_000))
        stuck.settimeout(0.1)

        def cut() -> bool:
            try:
                stuck.sendall(b"\xc0\x00")  # it is alive, and says so
            except OSError:
                return True
            return False

        wait_for(cut, "the end of the connection")
        assert 0.9 < time.monotonic() - began < 60
    idle.ping()
    talker.ping()
