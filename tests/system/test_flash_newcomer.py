"""The way of a newcomer without a board: the README's own commands, but for the places on this machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.programs import program

from .conftest import House
from .flashing import TIMEOUT

ROOT = Path(__file__).resolve().parents[2]
LINK = "/tmp/peanut-board"


def test_the_readme_takes_a_newcomer_to_an_acknowledged_command(house: House, tmp_path: Path) -> None:
    """Board, flash, command: three lines of the README, under a gateway that runs."""
    text = (ROOT / "README.md").read_text()
    lines = re.findall(
        r"^    (make virtual-board|make flash NAME=.*IMAGE=.*|\.venv/bin/peanut send bean .*)$", text, re.M
    )
    board, flash, send = (line.replace(LINK, str(tmp_path / "board")) for line in lines)
    environment = {**os.environ, "PEANUT_HOME": str(house.home), "PYTHONUNBUFFERED": "1"}
    environment.pop("MAKEFLAGS", None)

    def run(line: str) -> str:
        done = subprocess.run(
            ["sh", "-c", line], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    words = [program("make"), *board.split()[1:], f"PORT={tmp_path / 'board'}"]  # the README's is the default
    assert f"$(or $(PORT),{LINK})" in (ROOT / "Makefile").read_text()
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            for said in running.stdout:  # what `make setup` says comes first
                if said.startswith("to flash it: "):
                    break
            assert said.removeprefix("to flash it: ").strip() == flash
            assert "bean is online" in run(flash)
            assert "done" in run(send)
        finally:
            running.terminate()
