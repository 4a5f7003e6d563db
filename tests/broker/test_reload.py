"""Hot reload: certificates, rules and settings are taken up by themselves or on demand, and nobody is disconnected."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path
from typing import Any

import pytest

from peanutd.__main__ import main
from peanutd.stamps import Stamps
from tests.broker.conftest import wait_for_control

LISTEN = '[listen]\nmqtts = "127.0.0.1:0"\n'


def serial(wire: Any) -> int:
    """Of the certificate that the gateway has shown."""
    from cryptography import x509

    return x509.load_der_x509_certificate(wire.sock.getpeercert(binary_form=True)).serial_number


def test_a_change_counts_when_it_has_held_still(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    stamps = Stamps([one, two])
    assert not stamps.changed()
    two.write_text("2")
    assert not stamps.changed(), "it may be being written"
    one.write_text("other")
    assert not stamps.changed(), "so may the other"
    assert stamps.changed()
    assert stamps.changed(), "until it is taken"
    stamps.take()
    assert not stamps.changed()
    two.unlink()
    stamps.changed()
    assert stamps.changed()


def test_a_new_certificate_is_noticed_and_nobody_is_disconnected(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    context = fleet.context(fleet.issue("peanut:plant/peanut"))
    node = dial(daemon.port(), context)
    assert node.connect("peanut")[1] == 0
    before = serial(node)
    fleet.gateway = fleet.issue_gateway()
    fleet.write()
    daemon.line("info  peanutd: reloaded")
    other = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/tomato")))
    assert serial(other) == fleet.gateway.certificate.serial_number != before
    node.ping()


def test_a_second_issuing_ca_is_trusted_beside_the_first(fleet: Any, start: Any, dial: Any, signer: Any) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    new = signer("issuing 2", fleet.root)
    theirs = fleet.context(fleet.issue("peanut:plant/tomato", issuer=new))
    with pytest.raises((EOFError, OSError, ssl.SSLError)):
        dial(daemon.port(), theirs).connect("tomato")
    (fleet.home / "ca" / "issuing.crt").write_bytes(new.pem + fleet.issuing.pem)
    daemon.line("info  peanutd: reloaded")
    assert dial(daemon.port(), theirs).connect("tomato")[1] == 0
    assert dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/peanut"))).connect("peanut")[1] == 0


def test_on_demand_and_what_is_bad_is_refused_with_its_reason(
    fleet: Any, start: Any, dial: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(fleet.home)
    fleet.settings(LISTEN)
    assert main(("reload", "--home", home)) == 1
    assert "no gateway runs" in capsys.readouterr().err
    daemon = start(fleet.home)
    node = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/peanut")))
    assert node.connect("peanut")[1] == 0
    assert node.subscribe("fleet/x") == b"\x01"
    wait_for_control(fleet.home)
    rules = fleet.home / "rules.toml"
    rules.write_text('[[rule]]\nallw = "both"\ntopic = "#"\n')
    assert main(("reload", "--home", home)) == 1
    assert "rules.toml:2: [[rule]] 1 allw: unknown" in capsys.readouterr().err
    assert node.subscribe("fleet/y") == b"\x01"
    rules.write_text('[[rule]]\nallow = "both"\ntopic = "only/#"\n')
    assert main(("reload", "--home", home)) == 0
    assert "rules.toml" in capsys.readouterr().out
    assert node.subscribe("fleet/z") == b"\x87"
    assert node.subscribe("only/this") == b"\x01"


def test_a_bad_file_is_refused_once_and_what_was_in_force_stays(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    daemon.port()
    key = fleet.home / "gateway" / "gateway.key"
    good = key.read_bytes()
    key.write_bytes(fleet.issue_gateway().key_pem())
    daemon.line(r"error peanutd: not reloaded, .*gateway\.key: not the key of")
    context = fleet.context(fleet.issue("peanut:plant/peanut"))
    assert dial(daemon.port(), context).connect("peanut")[1] == 0
    key.write_bytes(good)
    daemon.line("info  peanutd: reloaded")
    daemon.signal(signal.SIGHUP)
    daemon.line("info  peanutd: reloaded", 2)
    assert sum("not reloaded" in line for line in daemon.lines) == 1
