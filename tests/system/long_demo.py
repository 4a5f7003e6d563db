"""`make demo` once more in the fleet home that is there. `make test-long`; test_demo.py has the first time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_demo_takes_the_home_that_is_there(tmp_path: Path) -> None:
    """A second run adds nothing and changes no file of the CA; each ends by itself."""
    home = tmp_path / "fleet"
    home.mkdir(mode=0o700)
    (home / "gateway.toml").write_text(f'[listen]\nmqtts = "127.0.0.1:{free_port()}"\n')
    environment = {**os.environ, "PEANUT_HOME": str(home), "DEMO_SECONDS": "1"}

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-m", "tools.demo"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=200, env=environment, check=True,
        ).stdout  # fmt: skip

    first = run()
    before = {path: path.read_bytes() for path in sorted((home / "ca").iterdir())}
    second = run()
    assert "making a fleet" in first
    assert "making a fleet" not in second
    assert "The app is off" in second
    assert before == {path: path.read_bytes() for path in sorted((home / "ca").iterdir())}
