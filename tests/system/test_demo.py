"""`make demo` without a terminal: no prompt, no escape codes, an end by itself, and nothing left running."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import segno

from tests.system.conftest import wait_for
from tools.demo import VEHICLE, app_url, own_address, qr_code
from tools.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 90
"""Seconds in which a demo has all its nodes online, on a machine that does eight things at once."""


def test_demo_runs_without_a_terminal_and_ends_when_told(tmp_path: Path) -> None:
    home = tmp_path / "fleet"
    home.mkdir(mode=0o700)
    port = free_port()
    (home / "gateway.toml").write_text(f'[listen]\nmqtts = "127.0.0.1:{free_port()}"\nhttps = "127.0.0.1:{port}"\n')
    environment = {**os.environ, "PEANUT_HOME": str(home), "DEMO_SECONDS": str(PATIENCE_S)}
    seen: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "tools.demo"], cwd=ROOT, stdin=subprocess.DEVNULL, text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as demo:  # fmt: skip
        assert demo.stdout is not None
        missing = {"peanut", "tomato", VEHICLE}
        for line in demo.stdout:
            seen.append(line)
            missing -= {name for name in missing if re.match(f"node: {name} .*status: online", line)}
            if not missing:
                demo.terminate()
    said = "".join(seen)
    assert (demo.returncode, missing) == (0, set()), said
    assert "\x1b" not in said
    assert "mosquitto_pub" in said
    password = (home / "demo.pass").read_text().strip()
    assert f"The app: https://localhost:{port}/  Sign in as operator, first password {password}." in said
    assert (home / "demo.pass").stat().st_mode & 0o777 == 0o600
    assert json.loads((home / "users.json").read_text())["users"]["operator"]["role"] == "admin"
    assert (home / "ca" / "root.pass").stat().st_mode & 0o777 == 0o600

    def left_over() -> list[str]:
        """Processes that still name this home."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(home) in command:
                    found.append(command)
        return found

    wait_for(lambda: not left_over(), f"everything ended: {left_over()}")


def test_the_apps_address_is_one_that_phones_reach_where_there_is_one() -> None:
    here = own_address()
    if here is not None:
        assert app_url("0.0.0.0:8443", ["localhost", here]) == f"https://{here}:8443/"
    assert app_url("0.0.0.0:8443", ["localhost"]) == "https://localhost:8443/", "no name of the certificate"
    assert app_url("127.0.0.1:8443", ["localhost", str(here)]) == "https://localhost:8443/"


def test_a_qr_code_for_a_terminal_is_the_code() -> None:
    """Read back, dot by dot, from its half blocks."""
    text = "https://192.168.178.20:8443/"
    upper = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}
    rows: list[list[int]] = []
    for line in qr_code(text):
        pairs = [upper[char] for char in line[2:]]
        rows += [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
    wanted = [[int(bool(dot)) for dot in row] for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    assert rows[: len(wanted)] == wanted
