"""`peanut device revoke|restore` and the same for operators: what is written, and that the gateway is told."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from peanut import revocation
from peanut.errors import PeanutError
from peanut.home import Home

from .conftest import Run


@contextlib.contextmanager
def gateway(home: Home, answer: bytes) -> Iterator[list[bytes]]:
    """A control socket that gives this answer; what it was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.path / "control.sock"))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as peer:
                asked.append(peer.recv(4096))
                peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(10)


def test_revoke_and_restore(home: Home, run: Run) -> None:
    done = run("device", "revoke", "peanut", "1M8GDM9AXKP042788", "--why", "stolen")
    assert done.exit_code == 0, done.output
    assert "revokes peanut:plant/peanut, peanut:vin/1M8GDM9AXKP042788" in done.output
    assert "no gateway runs here" in done.output
    assert home.revoked.stat().st_mode & 0o777 == 0o600
    entries = json.loads(home.revoked.read_text())
    assert entries["format"] == 1
    assert set(entries["revoked"]) == {"peanut:plant/peanut", "peanut:vin/1M8GDM9AXKP042788"}
    assert entries["revoked"]["peanut:plant/peanut"]["why"] == "stolen"
    before = home.revoked.read_bytes()
    assert "revoked already" in run("device", "revoke", "peanut").output
    assert home.revoked.read_bytes() == before
    assert run("device", "restore", "peanut").exit_code == 0
    assert set(revocation.read(home)) == {"peanut:vin/1M8GDM9AXKP042788"}
    assert "is not revoked" in run("device", "restore", "peanut").output


def test_operators_too(home: Home, run: Run) -> None:
    assert run("operator", "revoke", "operator").exit_code == 0
    assert set(revocation.read(home)) == {"peanut:operator/operator"}
    assert run("operator", "restore", "operator").exit_code == 0
    assert revocation.read(home) == {}


def test_what_does_not_exist_is_not_revoked(home: Home, run: Run) -> None:
    for command in (("device", "revoke"), ("device", "restore"), ("operator", "revoke")):
        done = run(*command, "nobody")
        assert done.exit_code == 2
        assert "there is no" in done.output
    assert not home.revoked.exists()


def test_a_dry_run_writes_nothing(home: Home, run: Run) -> None:
    assert run("device", "revoke", "peanut", "--dry-run").exit_code == 0
    assert not home.revoked.exists()


def test_the_gateway_is_told(home: Home, run: Run) -> None:
    with gateway(home, b'{"revoked":1,"cut":1}\n') as asked:
        done = run("device", "revoke", "peanut")
    assert "the gateway knows; connections cut: 1" in done.output
    assert json.loads(asked[0]) == {"command": "revoked"}


def test_a_gateway_that_does_not_want_to_is_heard(home: Home, run: Run) -> None:
    """It is on disk all the same, and the gateway looks for itself."""
    with gateway(home, b'{"error":"no such command"}\n'):
        done = run("device", "revoke", "peanut")
    assert done.exit_code != 0
    assert "the gateway: no such command" in done.output
    assert "peanut:plant/peanut" in revocation.read(home)


@pytest.mark.parametrize("text", ["", "[]", '{"format":2,"revoked":{}}', '{"format":1,"revoked":{"x":{}}}'])
def test_a_list_that_is_none_is_never_overwritten(home: Home, run: Run, text: str) -> None:
    home.revoked.write_text(text)
    with pytest.raises(PeanutError):
        revocation.read(home)
    assert run("device", "revoke", "peanut").exit_code == 2
    assert home.revoked.read_text() == text


def test_what_is_issued_afterwards_is_good(home: Home, run: Run) -> None:
    run("device", "revoke", "peanut")
    revocation.issued(home, "peanut:plant/peanut", "ab12")
    revocation.issued(home, "peanut:plant/tomato", "cd34")
    entries = revocation.read(home)
    assert entries["peanut:plant/peanut"].good == ("ab12",)
    assert not revocation.is_revoked(entries, "peanut:plant/peanut", "ab12")
    assert revocation.is_revoked(entries, "peanut:plant/peanut", "ff")
    assert run("device", "revoke", "peanut").exit_code == 0
    assert revocation.is_revoked(revocation.read(home), "peanut:plant/peanut", "ab12"), "revoked anew"
