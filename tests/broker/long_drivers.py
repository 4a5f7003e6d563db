"""Everything that a gateway does, by the asyncio driver and by several native loops: in the fast suite most of it runs
on one of them.

Run by `make test-long`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    *("test_server.py", "test_hardening.py", "test_operate.py", "test_tls.py", "conformance", "durability", "attack"),
    "attack/long_attacks.py",
    *("test_revoked.py", "test_quarantine.py", "test_reload.py"),
)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("driver", ["asyncio", "native", "native 3"])
@pytest.mark.parametrize("part", PARTS)
def test_on_either_driver(driver: str, part: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", f"tests/broker/{part}"]
    name, _, loops = driver.partition(" ")
    environment = {**os.environ, "PEANUTD_DRIVER": name, "PEANUTD_LOOPS": loops}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
