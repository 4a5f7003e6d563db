"""A thousand devices: a month of one of them is read in under 100 ms, and commands arrive while fifty apps are open."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(900)
CHECKOUT = Path(__file__).resolve().parents[2]


def run(tool: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"tools.{tool}", *arguments, "--json"],
        cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_month_of_a_greenhouse_among_a_thousand() -> None:
    found = run("history")
    assert (found["devices"], found["days"]) == (1000, 31)
    assert found["month_ms_median"] < 100


def test_commands_arrive_while_fifty_apps_are_open() -> None:
    found = run("load", "--seconds", "30")
    assert found["without_apps"]["commands"] > 0
    assert found["with_apps"]["commands"] > 0
    assert found["news"] > 1000 * 50, "every app hears of every device"
    assert found["readings_kept"] > 10_000
