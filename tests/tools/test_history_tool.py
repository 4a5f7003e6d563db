"""tools/history.py: that it measures what it says (a small fleet; tests/system/long_load.py has the large one)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_small_fleet_is_written_and_read() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.history", "--devices", "4", "--days", "32", "--json"],
        cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["devices"], found["readings"]) == (4, 4 * 4 * 360)
    assert all(found[f"{span}_ms_median"] > 0 for span in ("day", "week", "month"))
