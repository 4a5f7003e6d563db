"""What stands between the node and its network: the shared checks on both interpreters, the time, the boot file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.fleet import find_micropython

from . import net_checks
from .conftest import ROOT


@pytest.mark.parametrize(("name", "check"), net_checks.checks())
def test_on_cpython(name: str, check: Callable[[], None]) -> None:
    """Each shared check."""
    check()


def test_the_same_checks_on_the_unix_port() -> None:
    """Every shared check passes on MicroPython, in a heap like the chip's."""
    here = Path(net_checks.__file__)
    done = subprocess.run(
        [find_micropython(), "-X", "heapsize=128wK", str(here)],
        env={"MICROPYPATH": f"{ROOT / 'firmware'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    ran = [line.removeprefix("ok ") for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert ran == [name for name, _ in net_checks.checks()]
