"""`peanut flash` on virtual boards, as the tests of the whole run it.

Rule: the operator's program, esptool and MicroPython are the real ones; only the board is none.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tools.virtual_board import VirtualBoard

from .conftest import BIN, House

BOARDS = {"esp32": "esp32-devkitc", "esp32s3": "esp32-s3-devkitc-1", "esp32c3": "xiao-esp32c3"}
FLASH_MB = {"esp32": 4, "esp32s3": 8, "esp32c3": 4}
TIMEOUT = 250.0


def board_of(chip: str, folder: Path, *options: str) -> VirtualBoard:
    """A bare board with this chip, as large as its board file says."""
    folder.mkdir(exist_ok=True)
    return VirtualBoard(chip, "--flash-mb", str(FLASH_MB[chip]), *options, folder=folder)


def command(house: House, board: VirtualBoard, *options: str, name: str = "peanut") -> list[str]:
    """The command that takes a board to a node that is online."""
    image = board.image()
    words = [str(BIN / "peanut"), "--home", str(house.home), "flash", name, "--port", board.port, "--simulate"]
    if "--board" not in options:
        words += ["--board", BOARDS[board.chip.name]]
    if "--sha256" not in options:
        words += ["--sha256", hashlib.sha256(image.read_bytes()).hexdigest()]
    return [*words, "--image", str(image), *options]


def run(words: list[str], timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """A command without a terminal; fails with what it said if it does not end in time."""
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"not within {timeout:.0f} s:\n{out}{err}") from None
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def is_bare(board: VirtualBoard) -> bool:
    """Whether nothing has been written to the board."""
    return set(board.flash.read_bytes()) == {0xFF}
