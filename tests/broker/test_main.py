"""peanutd as a process: its command line, its start, its signals, its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

DAY = timedelta(days=1)
VIN = "WVWZZZ1JZXW000001"
LOOPS = ("asyncio", "uvloop")
SETTINGS = '[listen]\nmqtts = "127.0.0.1:0"\n'
PLAIN = SETTINGS + 'mqtt = "127.0.0.1:0"\n[access]\nanonymous = true\n'


def run(*arguments: str, directory: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """peanutd to its end, without a terminal."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PEANUT_HOME", "PEANUTD_LOOP")}
    return subprocess.run(
        [sys.executable, "-m", "peanutd", *arguments],
        env={**clean, **environment},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def ledger(home: Path, *devices: tuple[str, str]) -> None:
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS device (name TEXT PRIMARY KEY, kind TEXT, board TEXT)")
        database.executemany("INSERT INTO device (name, kind) VALUES (?, ?)", devices)


# --- the command line ---


def test_version_and_help() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "peanutd")
    done = run("--help")
    assert done.returncode == 0
    assert "SIGHUP" in done.stdout


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    for done in (
        run("--home", str(tmp_path / "no")),
        run(PEANUT_HOME=str(tmp_path / "no")),
        run("--check", directory=tmp_path),
    ):
        assert done.returncode == 2
        assert "no fleet home there; make one with `peanut --home " in done.stderr
        assert "Traceback" not in done.stderr
    assert "fleet: no fleet home there" in run(directory=tmp_path).stderr


def test_home_is_the_option_then_the_environment_then_fleet_here(fleet: Any) -> None:
    fleet.settings(SETTINGS)
    other = str(fleet.directory / "other")
    assert run("--check", "--home", str(fleet.home), PEANUT_HOME=other).returncode == 0
    assert run("--check", PEANUT_HOME=str(fleet.home)).returncode == 0
    fleet.home.rename(fleet.directory / "fleet")
    assert run("--check", directory=fleet.directory).returncode == 0


def test_check_says_what_is_served(fleet: Any) -> None:
    fleet.settings(PLAIN)
    ledger(fleet.home, ("peanut", "greenhouse"), (VIN, "vehicle"), ("#", "greenhouse"))
    done = run("--check", "--home", str(fleet.home))
    assert (done.returncode, done.stderr) == (0, "")
    assert "listen    mqtts 127.0.0.1:0, lets in certificates of this fleet" in done.stdout
    assert "listen    mqtt 127.0.0.1:0, lets in anybody" in done.stdout
    assert "nodes     2" in done.stdout
    assert "warning" not in done.stdout
    assert "\x1b" not in done.stdout


def test_check_looks_at_the_keys_for_tokens(fleet: Any) -> None:
    jwt = '[jwt]\nkeys = "jwks.json"\nissuer = "https://id.example.org/"\naudience = "peanut"\n'
    listener = '[[listener]]\naddress = "127.0.0.1:0"\ncertificate = "optional"\njwt = true\n'
    fleet.settings(SETTINGS + jwt + listener)
    done = run("--check", "--home", str(fleet.home))
    assert done.returncode == 0
    assert "lets in certificates of this fleet and tokens" in done.stdout
    assert "tokens    of https://id.example.org/, keys from jwks.json" in done.stdout
    assert "warning   jwks.json: cannot be read: No such file or directory; every token is refused" in done.stdout


def test_check_finds_what_is_wrong(fleet: Any) -> None:
    home = str(fleet.home)
    assert "warning   " + str(fleet.home / "ledger.db") in run("--check", "--home", home).stdout
    fleet.settings("[listen]\nmqts = 1\n")
    done = run("--check", "--home", home)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'peanutd: {fleet.home}/gateway.toml:2: [listen] mqts: unknown key; did you mean "mqtts"?\n'
    fleet.settings("[mqtt]\nmax_inflight = 0\nmax_retained = 0\nmax_packet_size = 1\n")
    done = run("--check", "--home", home)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(f"peanutd: {fleet.home}/gateway.toml:2: [mqtt] max_inflight: ")
    assert second.startswith(f"{fleet.home}/gateway.toml:4: [mqtt] max_packet_size: ")
    fleet.settings("")
    fleet.gateway = fleet.issue_gateway(end=datetime.now(UTC) + DAY)
    fleet.write()
    done = run("--check", "--home", home)
    assert done.returncode == 0
    assert "the gateway's certificate ends on" in done.stdout
    fleet.gateway = fleet.issue_gateway(start=datetime.now(UTC) - 2 * DAY, end=datetime.now(UTC) - DAY)
    fleet.write()
    done = run("--check", "--home", home)
    assert done.returncode == 2
    assert "the gateway's certificate expired since" in done.stdout
    (fleet.home / "gateway" / "gateway.key").unlink()
    done = run("--check", "--home", home)
    assert done.returncode == 2
    assert f"gateway.key: not there; make the fleet home with `peanut --home {home} init`" in done.stderr


def test_a_public_plaintext_listener_does_not_start(fleet: Any) -> None:
    fleet.settings('[listen]\nmqtts = "127.0.0.1:0"\nmqtt = "0.0.0.0:0"\n')
    done = run("--home", str(fleet.home))
    assert done.returncode == 2
    assert "gateway.toml:3: [listen] mqtt: " in done.stderr
    assert "insecure = true" in done.stderr
    fleet.settings('[listen]\nmqtts = "127.0.0.1:0"\n[access]\nanonymous = true\n')
    assert run("--home", str(fleet.home)).returncode == 2


def test_an_address_in_use(fleet: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fleet.settings(f'[listen]\nmqtts = "127.0.0.1:{port}"\n')
        done = run("--home", str(fleet.home))
    assert done.returncode == 1
    assert f"peanutd: cannot listen on 127.0.0.1:{port}: in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_loop_can_be_forced(fleet: Any, start: Any) -> None:
    fleet.settings(SETTINGS)
    for loop in LOOPS:
        start(fleet.home, loop=loop).line(f"info  peanutd: version .* loop={loop} ")
    done = run("--home", str(fleet.home), PEANUTD_LOOP="twisted")
    assert done.returncode == 2
    assert "it must be asyncio or uvloop" in done.stderr


def test_defaults_are_nothing_to_warn_of(fleet: Any, start: Any) -> None:
    ledger(fleet.home)
    fleet.settings(SETTINGS)
    quiet = start(fleet.home)
    quiet.port()
    assert not [line for line in quiet.lines if " warn " in line]


# --- the state of nodes that are not there ---


def statuses(daemon: Any, dial: Any, count: int) -> dict[str, tuple[dict[str, Any], bool]]:
    wire = dial(daemon.port("mqtt"), version=4)
    assert wire.connect(f"reader-{count}") == b"\x00\x00"
    assert wire.subscribe("/plant/+/status", "vin/+/status") == b"\x01\x01"
    messages = [wire.message() for _ in range(count)]
    wire.ping()
    return {topic: (json.loads(payload), retained) for topic, payload, retained in messages}


@pytest.mark.parametrize("loop", LOOPS)
def test_after_a_start_every_node_is_known_to_be_offline(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(PLAIN)
    ledger(fleet.home, ("peanut", "greenhouse"), (VIN, "vehicle"), ("bad/#", "greenhouse"), ("x", "boat"))
    begin = int(time.time())
    daemon = start(fleet.home, loop=loop)
    found = statuses(daemon, dial, 2)
    assert set(found) == {"/plant/peanut/status", f"vin/{VIN}/status"}
    for status, retained in found.values():
        assert retained
        assert (status["state"], status["why"]) == ("offline", "gateway restarted")
        assert begin <= status["ts"] <= time.time()
    node = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/peanut")), 4)
    assert node.connect("peanut") == b"\x00\x00"
    assert node.publish("/plant/peanut/status", b'{"state":"online"}', retain=True) == 0
    daemon.process.kill()
    daemon.wait()
    daemon = start(fleet.home, loop=loop)
    assert statuses(daemon, dial, 2)["/plant/peanut/status"][0]["state"] == "offline", "honest after SIGKILL too"


def test_a_reload_knows_new_nodes_and_leaves_the_others_alone(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(PLAIN)
    ledger(fleet.home, ("peanut", "greenhouse"))
    daemon = start(fleet.home)
    node = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/peanut")), 4)
    assert node.connect("peanut") == b"\x00\x00"
    assert node.publish("/plant/peanut/status", b'{"state":"online"}', retain=True) == 0
    ledger(fleet.home, ("tomato", "greenhouse"))
    daemon.signal(signal.SIGHUP)
    daemon.line("info  peanutd: reloaded")
    found = statuses(daemon, dial, 2)
    assert found["/plant/peanut/status"][0]["state"] == "online"
    assert found["/plant/tomato/status"][0]["state"] == "offline"


@pytest.mark.parametrize("spoilt", [b"", b"no database at all" * 100, None])
def test_a_ledger_that_cannot_be_read_is_a_warning(fleet: Any, start: Any, spoilt: bytes | None) -> None:
    fleet.settings(SETTINGS)
    if spoilt is not None:
        (fleet.home / "ledger.db").write_bytes(spoilt)
    daemon = start(fleet.home)
    daemon.line(r"warn  peanutd: nodes that are away will not be shown as offline: .*ledger\.db: ")
    daemon.port()
    assert (fleet.home / "ledger.db").exists() == (spoilt is not None), "it is not the gateway's to make"


# --- signals ---


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ordered_end(fleet: Any, start: Any, dial: Any, loop: str, number: signal.Signals) -> None:
    """Everybody is told (5.0: DISCONNECT 0x8B), the half-finished are dropped, and it does not take five seconds."""
    fleet.settings(PLAIN)
    daemon = start(fleet.home, loop=loop)
    context = fleet.context(fleet.issue("peanut:operator/anna"))
    new, old = dial(daemon.port(), context), dial(daemon.port("mqtt"), version=4)
    assert new.connect("new")[1] == old.connect("old")[1] == 0
    knocking, mute = dial(daemon.port()), dial(daemon.port("mqtt"))
    port = daemon.port()
    begin = time.monotonic()
    daemon.signal(number)
    kind, body = new.receive()
    assert (kind, body[:1]) == (0xE0, b"\x8b")
    for wire in (new, old, knocking, mute):
        assert wire.closed()
        wire.close()
    assert daemon.wait() == 0
    assert time.monotonic() - begin < 60.0
    with pytest.raises(ConnectionRefusedError):
        dial(port)
    assert count([line for line in daemon.lines if "disconnected" in line], "the gateway stops") == 2
    assert daemon.lines[-1].endswith("info  server: stopped")
    assert not count(daemon.lines, " error ")


def count(lines: list[str], text: str) -> int:
    return len([line for line in lines if text in line])


@pytest.mark.parametrize("loop", LOOPS)
def test_an_end_does_not_wait_for_those_who_do_not_leave(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(PLAIN)
    daemon = start(fleet.home, loop=loop)
    wires = [dial(daemon.port("mqtt"), version=4) for _ in range(3)]
    for number, wire in enumerate(wires):
        assert wire.connect(str(number)) == b"\x00\x00"
    begin = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert time.monotonic() - begin < 60.0
    daemon.line("connections that did not end in time are cut count=3")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reload_takes_new_certificates_for_new_connections(
    fleet: Any, start: Any, dial: Any, signer: Any, loop: str
) -> None:
    fleet.settings(SETTINGS)
    daemon = start(fleet.home, loop=loop)
    before = fleet.issue("peanut:plant/before")
    node = dial(daemon.port(), fleet.context(before))
    assert node.connect("before")[1] == 0
    first = node.sock.getpeercert()["serialNumber"]
    trusts_old = fleet.context(before)
    fleet.root = signer("root")
    fleet.issuing = signer("issuing", fleet.root)
    fleet.gateway = fleet.issue_gateway()
    fleet.write()
    daemon.signal(signal.SIGHUP)
    daemon.line("info  peanutd: reloaded")
    node.ping()  # is still there
    new = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/after")))
    assert new.connect("after")[1] == 0
    assert new.sock.getpeercert()["serialNumber"] != first
    with pytest.raises(OSError, match="certificate verify failed"):
        dial(daemon.port(), trusts_old, source="127.5.0.1")
    with pytest.raises((EOFError, OSError)):
        dial(daemon.port(), fleet.context(before), source="127.5.0.2").connect("before")
    assert "not issued by this fleet's CA" in daemon.line("handshake failed address=127.5.0.2:")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reload_of_bad_files_changes_nothing(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(SETTINGS)
    daemon = start(fleet.home, loop=loop)
    leaf = fleet.issue("peanut:plant/peanut")
    context = fleet.context(leaf)
    daemon.port()
    fleet.settings("[listen]\nmqts = 1\n[log]\nlevel = 'error'\n")
    daemon.signal(signal.SIGHUP)
    daemon.line(
        r"error peanutd: not reloaded, the old settings, rules and certificates stay: .*y\.toml:2: \[listen\] mqts"
    )
    fleet.settings(SETTINGS + "[log]\nlevel = 'error'\n")
    key = fleet.home / "gateway" / "gateway.key"
    saved = key.read_bytes()
    key.write_bytes(b"")
    daemon.signal(signal.SIGHUP)
    daemon.line(r"error peanutd: not reloaded, .*gateway\.key")
    assert dial(daemon.port(), context).connect("peanut")[1] == 0
    daemon.line("info  server: connected who=plant/peanut")  # the level is the old one too
    key.write_bytes(saved)
    fleet.settings(PLAIN)
    daemon.signal(signal.SIGHUP)
    daemon.line(
        r"warn  peanutd: addresses, listeners, anonymous, \[store\], \[history\] or \S+ have changed: these need"
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reload_changes_the_limits_and_the_level(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(PLAIN)
    daemon = start(fleet.home, loop=loop)
    wire = dial(daemon.port("mqtt"), version=4)
    assert wire.connect("first") == b"\x00\x00"
    fleet.settings(PLAIN.replace("[access]", "handshake_timeout = 1\n[access]") + "[mqtt]\nmax_connections = 1\n")
    daemon.signal(signal.SIGHUP)
    daemon.line("info  peanutd: reloaded")
    late = dial(daemon.port("mqtt"), version=4)
    assert late.closed()
    wire.ping()
    fleet.settings(PLAIN + "[log]\nlevel = 'error'\n")
    daemon.signal(signal.SIGHUP)

    def comes_in() -> bool:
        try:
            return bool(dial(daemon.port("mqtt"), version=4).connect("quiet") == b"\x00\x00")
        except (EOFError, ConnectionError):
            return False

    wait_until(comes_in)
    daemon.stop()
    assert not count(daemon.lines, "who=anonymous/quiet")


def wait_until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reload_changes_mqtt(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """Limits count for what comes; filters that are refused to everybody end the subscriptions that there are."""
    fleet.settings(PLAIN)
    daemon = start(fleet.home, loop=loop)
    watcher = dial(daemon.port("mqtt"), version=4)
    assert watcher.connect("watcher") == b"\x00\x00"
    assert watcher.subscribe("secret/a", "open/a") == b"\x01\x01"
    denied = '[mqtt]\nmax_topic_levels = 2\ndeny_subscribe = ["secret/#"]\ndeny_publish = ["command/+"]\n'
    fleet.settings(PLAIN + denied)
    daemon.signal(signal.SIGHUP)
    daemon.line("info  peanutd: reloaded")
    sender = dial(daemon.port("mqtt"))
    assert sender.connect("sender")[1] == 0
    assert sender.publish("secret/a", b"unheard") == 0x10, "no matching subscribers"
    assert sender.publish("command/a", b"") == 0x87
    daemon.line(r'denied who=\S+ .* what="publish command/a" why="refused by deny_publish in \[mqtt\]"')
    assert sender.subscribe("secret/b", "#", "$share/g/secret/c", "open/#") == b"\x87\x87\x87\x01"
    daemon.line(r'what="subscribe secret/b" why="refused by deny_subscribe in \[mqtt\]"')
    assert sender.publish("open/a", b"heard") == 0
    assert watcher.message()[:2] == ("open/a", b"heard")
    assert sender.subscribe("a/b/c") == b"\x8f", "max_topic_levels"
    assert not count(daemon.lines, "need a restart")
    fleet.settings(PLAIN)
    daemon.signal(signal.SIGHUP)
    daemon.line("info  peanutd: reloaded", 2)
    again = dial(daemon.port("mqtt"))
    assert again.connect("again")[1] == 0
    assert again.subscribe("secret/b", "#", "a/b/c") == b"\x01\x01\x01"


def test_a_filter_that_is_none_is_named_with_its_line(fleet: Any) -> None:
    fleet.settings('[mqtt]\ndeny_publish = ["a/#", "a/#/b"]\ndeny_subscribe = ["", "+a"]\n')
    done = run("--check", "--home", str(fleet.home))
    assert done.returncode == 2
    assert [line.partition("gateway.toml:")[2].partition(";")[0] for line in done.stderr.splitlines()] == [
        '3: [mqtt] deny_subscribe: "" is not a topic filter',
        '3: [mqtt] deny_subscribe: "+a" is not a topic filter',
        '2: [mqtt] deny_publish: "a/#/b" is not a topic filter',
    ]


@pytest.mark.parametrize("loop", LOOPS)
def test_an_ordered_end_names_the_other_server(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """MQTT 5.0 §4.11: DISCONNECT 0x9C with a Server Reference (property 0x1C); 3.1.1 has no word for it."""
    fleet.settings(PLAIN + '[mqtt]\nserver_reference = "other.local:8883"\n')
    daemon = start(fleet.home, loop=loop)
    new, old = dial(daemon.port("mqtt")), dial(daemon.port("mqtt"), version=4)
    assert new.connect("new")[1] == old.connect("old")[1] == 0
    daemon.signal(signal.SIGTERM)
    kind, body = new.receive()
    assert (kind, body) == (0xE0, b"\x9c\x13\x1c\x00\x10other.local:8883")
    for wire in (new, old):
        assert wire.closed()
        wire.close()
    assert daemon.wait() == 0


def test_response_information_names_the_client(fleet: Any, start: Any, dial: Any) -> None:
    """MQTT 5.0 §3.2.2.3.14 and MQTT-3.1.2-28: property 0x1A, for who asks for it (0x19)."""
    fleet.settings(SETTINGS + '[mqtt]\nresponse_information = "answers/{id}/"\n')
    daemon = start(fleet.home)
    context = fleet.context(fleet.issue("peanut:operator/anna"))
    for asked in (1, 0):
        wire = dial(daemon.port(), context)
        wire.send(0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x02\x19" + bytes([asked]) + b"\x00\x03one")
        kind, body = wire.receive()
        assert (kind, body[:2]) == (0x20, b"\x00\x00")
        assert (b"\x1a\x00\x0danswers/anna/" in body) == bool(asked)
        wire.close()


@pytest.mark.parametrize("allowed", [False, True])
def test_mqtt_31_is_an_option(fleet: Any, start: Any, dial: Any, allowed: bool) -> None:
    """Return code 1 of 3.1.1 §3.2.2.3: unacceptable protocol version."""
    fleet.settings(PLAIN + ("[mqtt]\nmqtt31 = true\n" if allowed else ""))
    daemon = start(fleet.home)
    wire = dial(daemon.port("mqtt"), version=4)
    wire.send(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x00\x00\x03old")
    assert wire.receive() == (0x20, b"\x00\x00" if allowed else b"\x00\x01")
    if allowed:
        daemon.line("connected who=anonymous/old .* mqtt=3.1$")
        wire.ping()
    else:
        assert wire.closed()
        daemon.line(r'refused .*why="MQTT 3.1 is not spoken here \(mqtt31 in \[mqtt\]\).* code=0x84')
