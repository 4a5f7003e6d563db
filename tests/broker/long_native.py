"""The C tests of the native loops under the thread sanitizer, again and again, with several numbers of loops.

Rule: a race shows itself when it likes, so each number gets several tries. Run by `make test-long`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.broker.native_loop import needs_loop

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "native-tests" / "thread" / "test_loop"
TRIES = 10


@needs_loop
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("loops", [1, 2, 3, 16])
def test_threads_never_touch_the_same_thing(loops: int) -> None:
    command = ["make", "-s", "-C", str(ROOT / "tests" / "broker" / "native"), "SANITIZE=thread"]
    assert subprocess.run(command, check=False).returncode == 0
    for _ in range(TRIES):
        environment = {**os.environ, "PEANUT_LOOPS": str(loops)}
        done = subprocess.run(
            [PROGRAM], env=environment, capture_output=True, text=True, errors="replace", timeout=300, check=False
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
