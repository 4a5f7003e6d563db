"""`peanut flash` with the real esptool on a virtual board, twice at a terminal, and Ctrl-C. `make test-long`."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

import pytest

from tools.virtual_board import VirtualBoard

from .terminal import in_a_terminal
from .test_flash import break_off


@pytest.mark.timeout(600)
def test_the_command_for_next_time_is_whole(fleet: Path, board: VirtualBoard, boards: Path) -> None:
    peanut = str(Path(sys.executable).parent / "peanut")
    image = ["--image", str(board.folder / "micropython.bin")]
    more = ["--no-wait", "--patience", "2", "--flash-mb", "4", "--no-simulate", "--boards", str(boards)]
    questions = [("Name of the device", "radish"), ("Which board [", "")]
    status, shown = in_a_terminal([peanut, "--home", str(fleet), "flash", "--port", board.port, *image, *more],
                                  questions, fleet)  # fmt: skip
    assert status == 0, shown
    command, made = (line.strip() for line in shown.split("next time:")[1].splitlines()[1:3])
    assert made.startswith(f"PEANUT_HOME={fleet} make flash NAME=radish PORT={board.port} BOARD=esp32-devkitc IMAGE=")
    again = shlex.split(command)
    assert again[:4] == ["peanut", "--home", str(fleet), "flash"]
    assert {*image, *more} <= set(again)
    status, shown = in_a_terminal([peanut, *again[1:]], [], fleet)
    assert status == 0, shown
    assert "written and verified: radish" in shown
    assert "next time" not in shown


@pytest.mark.timeout(600)
def test_ctrl_c_while_it_writes(fleet: Path, boards: Path) -> None:
    break_off(fleet, boards, signal.SIGINT)
