"""Revocation at the gateway: who is listed is cut and comes in no more, by no way; a bad list opens no door.

Connections are raw sockets with certificates of this fleet; the list is written here, as agreement 1 says.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from peanutd import control
from peanutd.access import Credential, Identity, Kind
from peanutd.revoked import FILE_NAME, MAX_SIZE, Revoked, RevokedError, parse
from tests.broker.conftest import Wire, wait_for, wait_for_control
from tests.broker.websocket import Socket

LISTEN = '[listen]\nmqtts = "127.0.0.1:0"\n'
OTHERS = (
    '[[listener]]\naddress = "127.0.0.1:0"\ntransport = "wss"\n'
    '[[listener]]\naddress = "127.0.0.1:0"\ntransport = "tls"\ncertificate = "optional"\npassword = true\n'
)
URI = "peanut:plant/peanut"


def write(home: Path, **entries: Any) -> None:
    """As `peanut` does: whole, by renaming."""
    document = {"format": 1, "revoked": {f"peanut:plant/{name}": entry for name, entry in entries.items()}}
    temporary = home / ".revoked.tmp"
    temporary.write_text(json.dumps(document))
    os.replace(temporary, home / FILE_NAME)


def entry(*good: str, why: str = "stolen") -> dict[str, Any]:
    return {"since": 1795000000, "why": why, "good": list(good)}


def ports(daemon: Any) -> list[int]:
    return [int(daemon.line(rf"listening {kind} ").rpartition(":")[2].partition("/")[0]) for kind in ("mqtts", "wss")]


def refused(dial: Any, port: int, context: ssl.SSLContext) -> bool:
    """Whether a client comes to nothing: no CONNACK, not even one that refuses it."""
    try:
        dial(port, context).connect("peanut")
    except (EOFError, OSError):
        return True
    return False


# --- the list ---


def credential(serial: str = "ab12", name: str = "peanut") -> Credential:
    return Credential(Identity(Kind.PLANT, name), datetime.now(UTC), serial)


def test_what_was_issued_since_comes_in_and_others_are_not_concerned(tmp_path: Path) -> None:
    write(tmp_path, peanut=entry("cd34"))
    revoked = Revoked(tmp_path)
    assert revoked.why(credential()) == ("certificate of greenhouse peanut revoked since 2026-11-18 11:06 UTC: stolen")
    assert revoked.why(credential("cd34")) is None
    assert revoked.why(credential(name="tomato")) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"format":2,"revoked":{}}',
        b'{"format":1}',
        b'{"format":1,"revoked":{"peanut:plant/../x":{"since":1,"why":"","good":[]}}}',
        b'{"format":1,"revoked":{"peanut:plant/x":{"since":"1","why":"","good":[]}}}',
        b'{"format":1,"revoked":{"peanut:plant/x":{"since":true,"why":"","good":[]}}}',
        b'{"format":1,"revoked":{"peanut:plant/x":{"since":-1,"why":"","good":[]}}}',
        b'{"format":1,"revoked":{"peanut:plant/x":{"since":253402300800,"why":"","good":[]}}}',
        b'{"format":1,"revoked":{"peanut:plant/x":[]}}',
        b"[" * 100_000,
    ],
)
def test_a_list_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(RevokedError, match="list of revocations"):
        parse(raw, "revoked.json")


def test_the_size_of_the_list_is_bounded(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b" " * (MAX_SIZE + 1))
    with pytest.raises(RevokedError, match=f"larger than {MAX_SIZE} bytes"):
        Revoked(tmp_path)


def test_a_list_that_has_become_bad_or_is_gone_restores_nobody(tmp_path: Path) -> None:
    write(tmp_path, peanut=entry())
    revoked = Revoked(tmp_path)
    said: list[tuple[str, str]] = []
    revoked.tell = lambda level, text: said.append((level, text))
    assert not revoked.refresh()
    (tmp_path / FILE_NAME).write_text("{")
    assert not revoked.refresh()
    (tmp_path / FILE_NAME).unlink()
    assert not revoked.refresh()
    assert not revoked.refresh()
    assert [level for level, _ in said] == ["error", "error"], "each problem is said once"
    assert revoked.why(credential()) is not None
    write(tmp_path)
    assert revoked.refresh()
    assert revoked.why(credential()) is None


# --- the gateway ---


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_is_revoked_is_cut_and_comes_in_no_more(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """On every listener, without being told, and after a restart too. Others stay."""
    fleet.settings(LISTEN + OTHERS)
    daemon = start(fleet.home, loop=loop)
    mqtts, wss = ports(daemon)
    optional = int(daemon.line("listening mqtts ", 2).rpartition(":")[2])
    stolen, tomato = fleet.issue(URI), fleet.context(fleet.issue("peanut:plant/tomato"))
    context = fleet.context(stolen)
    cut = dial(mqtts, context)
    assert cut.connect("peanut")[1] == 0
    other = dial(mqtts, tomato)
    assert other.connect("tomato")[1] == 0
    write(fleet.home, peanut=entry())
    assert cut.closed()
    daemon.line(r"warn  server: cut who=plant/peanut .*revoked since 2026-11-18 11:06 UTC: stolen")
    for port in (mqtts, optional):
        assert refused(dial, port, context)
    with pytest.raises((EOFError, OSError, IndexError, ValueError)):  # reset, or an end without a word
        Socket(dial(wss, context).sock).handshake()
    daemon.line(r"handshake failed .*certificate of greenhouse peanut revoked")
    other.ping()
    daemon.stop()
    daemon = start(fleet.home, loop=loop)
    assert refused(dial, daemon.port(), context)
    again = dial(daemon.port(), fleet.context(fleet.issue(URI)))
    with pytest.raises((EOFError, OSError)):
        again.connect("peanut")  # whatever certificate it has
    assert not [line for line in daemon.lines if "connected who=plant/peanut" in line]
    write(fleet.home)  # restored
    daemon.line("0 identities are revoked")
    assert dial(daemon.port(), context).connect("peanut")[1] == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_unix_socket_and_no_proxy_lets_in_who_is_revoked(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """TLS ends here on these listeners too: sessions on each are cut, and nobody comes back by another; a proxy's word
    on where somebody comes from changes nothing."""
    header = b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n"
    with tempfile.TemporaryDirectory(prefix="peanut-") as place:
        ways = {"local": f"unix:{place}/local", "relayed": f"unix:{place}/relayed", "behind": "127.0.0.1:0"}
        fleet.settings(
            LISTEN
            + "".join(
                f'[[listener]]\naddress = "{address}"\ntransport = "tls"\n'
                + ("" if name == "local" else "proxy_protocol = true\n")
                for name, address in ways.items()
            )
        )
        daemon = start(fleet.home, loop=loop)
        daemon.line("listening mqtts ", len(ways) + 1)
        port = int(daemon.line(r"listening mqtts 127\.", 2).rpartition(":")[2])

        def come(name: str, way: str, context: ssl.SSLContext) -> Wire:
            """A client by this way, with a name of its own; its CONNACK is still to come."""
            if way == "behind":
                sock = dial(port).sock
            else:
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(ways[way].removeprefix("unix:"))
            sock.settimeout(60)
            if way != "local":
                sock.sendall(header)
            return Wire(context.wrap_socket(sock, server_hostname="localhost"), 5)

        stolen = {way: fleet.context(fleet.issue(f"peanut:plant/{way}")) for way in ways}
        tomato = fleet.context(fleet.issue("peanut:plant/tomato"))
        for other in ways:
            sessions = {way: come(way, way, stolen[way]) for way in ways}
            assert [wire.connect(way)[1] for way, wire in sessions.items()] == [0] * len(ways)
            stays = come("tomato", other, tomato)
            assert stays.connect("tomato")[1] == 0
            write(fleet.home, **{way: entry() for way in ways})
            assert all(wire.closed() for wire in sessions.values())
            for way in ways:
                with pytest.raises((EOFError, OSError)):
                    come(way, other, stolen[way]).connect(way)
            stays.ping()
            write(fleet.home)
            daemon.line("0 identities are revoked", [*ways].index(other) + 1)


def test_a_certificate_that_was_issued_since_comes_in(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN)
    old, new = fleet.issue(URI), fleet.issue(URI)
    write(fleet.home, peanut=entry(f"{new.certificate.serial_number:x}"))
    daemon = start(fleet.home)
    assert refused(dial, daemon.port(), fleet.context(old))
    assert dial(daemon.port(), fleet.context(new)).connect("peanut")[1] == 0


def test_a_resumed_session_of_tls_1_2_is_refused_too(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    context = fleet.context(fleet.issue(URI))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    first = dial(daemon.port(), context)
    assert first.connect("peanut")[1] == 0
    session = first.sock.session

    def resume() -> bytes:
        wire = dial(daemon.port())
        wire.sock = context.wrap_socket(wire.sock, server_hostname="localhost", session=session)
        wire.sock.settimeout(60)
        return bytes(wire.connect("peanut"))

    assert resume()[1] == 0
    write(fleet.home, peanut=entry())
    wait_for_control(fleet.home)
    assert control.ask(fleet.home, {"command": "revoked"})["revoked"] == 1
    with pytest.raises((EOFError, OSError)):
        resume()


def test_whoever_is_told_is_told_when_it_is_done(fleet: Any, start: Any, dial: Any) -> None:
    """The control socket answers when the session is cut: nothing of it is in the core any more."""
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    wires = []
    for name in ("one", "two", "three"):
        wires.append(dial(daemon.port(), fleet.context(fleet.issue(f"peanut:plant/{name}"))))
        assert wires[-1].connect(name, will=(f"/plant/{name}/status", b"gone"))[1] == 0
    write(fleet.home, one=entry(), two=entry())
    wait_for_control(fleet.home)
    assert control.ask(fleet.home, {"command": "revoked"})["cut"] in (0, 2)  # or it has noticed by itself
    assert control.ask(fleet.home, {"command": "status"})["connections"]["online"] == 1
    begun = time.monotonic()
    assert all(wire.closed() for wire in wires[:2])
    assert time.monotonic() - begun < 60
    wires[2].ping()


@pytest.mark.parametrize("raw", [b'{"format":1,"revoked":{"peanut:plant/x":1}}'])
def test_there_is_no_start_with_a_bad_list(fleet: Any, start: Any, raw: bytes) -> None:
    fleet.settings(LISTEN)
    (fleet.home / FILE_NAME).write_bytes(raw)
    daemon = start(fleet.home)
    assert daemon.wait() == 2
    assert "revoked.json: not a list of revocations" in daemon.lines[-1]


def test_the_will_of_one_who_is_cut_is_published(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    watching = dial(daemon.port(), fleet.context(fleet.issue("peanut:operator/anna")))
    assert watching.connect("watch")[1] == 0
    assert watching.subscribe("/plant/peanut/status") == b"\x01"
    node = dial(daemon.port(), fleet.context(fleet.issue(URI)))
    assert node.connect("peanut", will=("/plant/peanut/status", b"offline"))[1] == 0
    write(fleet.home, peanut=entry())
    assert watching.message()[1] == b"offline"
    wait_for(lambda: any("cut who=plant/peanut" in line for line in daemon.lines), "the line")


@pytest.mark.parametrize("raw", [b"nothing", None])
def test_a_list_for_others_that_is_bad_locks_nobody_out(fleet: Any, start: Any, dial: Any, raw: bytes | None) -> None:
    """It is said, and revoked.json decides."""
    fleet.settings(LISTEN)
    then = datetime.now(UTC) - timedelta(days=30)
    if raw is None:  # out of date
        builder = x509.CertificateRevocationListBuilder(fleet.issuing.certificate.subject, then, then + timedelta(7))
        raw = builder.sign(fleet.issuing.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    (fleet.home / "ca" / "issuing.crl").write_bytes(raw)
    write(fleet.home, tomato=entry())
    daemon = start(fleet.home)
    daemon.line(r"warn  peanutd: .*issuing\.crl: the revocation list for others .*revoked\.json decides")
    assert dial(daemon.port(), fleet.context(fleet.issue(URI))).connect("peanut")[1] == 0
    assert refused(dial, daemon.port(), fleet.context(fleet.issue("peanut:plant/tomato")))


def test_the_list_for_others_is_served(fleet: Any, start: Any) -> None:
    fleet.settings(LISTEN + 'metrics = "127.0.0.1:0"\n')
    daemon = start(fleet.home)
    url = daemon.line("listening metrics").rpartition(" ")[2].replace("/metrics", "/issuing.crl")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{url}", timeout=60)
    (fleet.home / "ca" / "issuing.crl").write_bytes(b"the list")
    with urllib.request.urlopen(f"http://{url}", timeout=60) as answer:
        assert (answer.headers["Content-Type"], answer.read()) == ("application/pkix-crl", b"the list")
    (fleet.home / "ca" / "issuing-0123abcd.crl").write_bytes(b"the other list")
    with urllib.request.urlopen(f"http://{url}".replace("issuing", "issuing-0123abcd"), timeout=60) as answer:
        assert answer.read() == b"the other list"
    with urllib.request.urlopen(f"http://{url}".replace("issuing.crl", "issuing.key"), timeout=60) as answer:
        assert b"peanut_" in answer.read(), "nothing else of the directory"
