"""The parts around the protocol: deadlines of the client on the unix port, the store, the log, the boot file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tools.fleet import find_micropython

from .conftest import ROOT

from node import log  # isort: skip
from node.store import Store  # isort: skip


def test_deadlines_and_faults_of_the_client() -> None:
    """Every check of client_run.py, each of which runs a Client on the unix port."""
    script = Path(__file__).parent / "client_run.py"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = subprocess.run(
            [find_micropython(), "-X", "heapsize=128wK", str(script), str(listener.getsockname()[1])],
            env={"MICROPYPATH": f"{ROOT / 'firmware'}:.frozen"},
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [line.removeprefix("ok ") for line in done.stdout.splitlines() if line.startswith("ok ")]
    defined = [
        line[10:].split("(")[0] for line in script.read_text().splitlines() if line.startswith("async def check_")
    ]
    assert ran == sorted(defined)


def test_store_survives_what_power_cuts_leave(tmp_path: Path) -> None:
    """Damaged, foreign or half-written: the default; a good one: the value; the temporary file is never read."""
    path = tmp_path / "state.json"
    for damage in (b"", b"{", b"[]", b"null", b'{"setpoint":"x"}', b'{"setpoint":true}', b'{"setpoint":99}', b"\xff"):
        path.write_bytes(damage)
        assert Store(str(path)).number("setpoint", 2, 40, 18.0) == 18.0, damage
    Store(str(path)).put("setpoint", 21.5)
    (tmp_path / "state.json.tmp").write_text('{"setpoint":3')
    assert Store(str(path)).number("setpoint", 2, 40, 18.0) == 21.5


def test_store_writes_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flash wears: the same value again is not written; a full disk leaves the old file and the old value."""
    store = Store(str(tmp_path / "state.json"))
    store.put("setpoint", 20)
    before = os.stat(tmp_path / "state.json").st_ino
    store.put("setpoint", 20)
    assert os.stat(tmp_path / "state.json").st_ino == before

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr("node.store.os.rename", full)
    with pytest.raises(OSError, match="no space"):
        store.put("setpoint", 25)
    assert store.number("setpoint", 2, 40, 18.0) == 20
    assert json.loads((tmp_path / "state.json").read_text()) == {"setpoint": 20}


def test_log_is_bounded_and_clean(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last lines for the gateway, oldest first; what a stranger sent cannot colour or forge a line."""
    monkeypatch.setattr(log, "level", "info")
    begun = log.count()
    for i in range(120):
        log.info("test", f"line {i}")
    assert log.count() == begun + 120
    found = []
    n, line = log.after(begun)
    while line is not None:
        found.append(line.rsplit(" ", 1)[1])
        n, line = log.after(n)
    assert (n, 20 < len(found) < 120) == (begun + 120, True)
    assert found == [str(i) for i in range(120 - len(found), 120)]
    monkeypatch.setattr(log, "level", "warn")
    assert log.after(begun) == (begun + 120, None)  # nothing of this is for the gateway any more
    log.info("test", "nor is this")
    assert log.count() == begun + 120
    log.warn("test", "\x1b[31mred\n12:00:00 info fake " + "x" * 5000)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 122
    assert "\x1b" not in shown[-1]
    assert len(shown[-1]) < log.WIDTH + 40
    assert shown[-1].split(" ")[1:3] == ["warn", "test"]
    assert log.after(begun) == (begun + 121, shown[-1])
    monkeypatch.setattr(log, "level", "off")
    assert log.after(begun) == (begun + 121, None)


@pytest.mark.parametrize(
    ("output", "level"),
    [({"pin": 4, "on": 1}, 0), ({"pin": 5, "on": 0}, 1), ({"pin": 6}, 0), ({"pin": 7, "on": 1, "safe": "on"}, 1)],
)
def test_boot_sets_pins_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: dict[str, Any], level: int
) -> None:
    """The level goes in with the direction, so that the relay does not click. (`machine` is stood in for.)"""
    made: list[tuple[Any, ...]] = []

    class Pin:
        OUT = "out"

        def __init__(self, number: int, mode: str, *, value: int) -> None:
            made.append((number, mode, value))

        def init(self, *, hold: bool) -> None:
            made.append((hold,))

    machine = types.ModuleType("machine")
    machine.Pin = Pin  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "machine", machine)
    monkeypatch.chdir(tmp_path)
    Path("node.json").write_text(json.dumps({"board": {"outputs": {"heater": output, "model": {"driver": "x"}}}}))
    exec((ROOT / "firmware" / "boot.py").read_text(), {})
    assert made == [(output["pin"], "out", level), (False,)]


@pytest.mark.parametrize("content", [None, "", "{}", '{"board":{"outputs":[]}}'])
def test_boot_survives_any_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    """boot.py never raises: main.py must get its chance to say what is wrong."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("node.json").write_text(content)
    exec((ROOT / "firmware" / "boot.py").read_text(), {})
    assert capsys.readouterr().out.startswith("boot:")
