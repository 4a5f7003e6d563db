"""esptool and mpremote as their users run them, against a virtual board.

Rule: the real programs, as processes; what they say comes back whole.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import serial

from tools.virtual_board import VirtualBoard

BIN = Path(sys.executable).parent
TIMEOUT = 60.0
DEADLINE = 60.0  # seconds for the console to say something
BY_HAND = ("--before", "no-reset", "--after", "no-reset")  # a terminal has no wires for resets


def run(*command: str | Path | int) -> subprocess.CompletedProcess[str]:
    """A program of the virtual environment."""
    name, *rest = map(str, command)
    return subprocess.run(
        [BIN / name, *rest], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
    )


def console(board: VirtualBoard) -> serial.Serial:
    """The port, open at the console's speed."""
    return serial.Serial(board.port, 115200, timeout=DEADLINE)


def esptool(board: VirtualBoard, *arguments: str | Path | int, status: int = 0) -> str:
    """esptool's output; it must end with `status`."""
    done = run("esptool", "--port", board.port, *BY_HAND, *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def mpremote(board: VirtualBoard, *arguments: str | Path, status: int = 0) -> str:
    """mpremote's output; it must end with `status`."""
    done = run("mpremote", "connect", board.port, *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr
