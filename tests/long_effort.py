"""What tries at random, with ten times the effort: other programs, packets and losses than the fast suite's.

Rule: a failure is shown with what found it, as the fast suite would show it. Run by `make test-long`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    *("broker/test_codec_properties.py", "broker/test_broker_model.py", "broker/test_durability_model.py"),
    *("broker/test_broker_streams.py", "broker/test_core_c.py", "provisioning/test_init.py", "firmware/test_pure.py"),
    "firmware/test_control.py",
)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("file", FILES)
def test_with_more_effort(file: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--timeout", "1800", f"tests/{file}"]
    environment = {**os.environ, "EFFORT": "10"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:]
