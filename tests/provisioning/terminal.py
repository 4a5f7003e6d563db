"""A program at a terminal, and somebody who answers its questions. What it shows is heard (tests/heard.py)."""

from __future__ import annotations

import contextlib
import os
import pty
import time
from pathlib import Path

from tests.heard import transcript

DEADLINE_S = 200.0


def in_a_terminal(command: list[str], answers: list[tuple[str, str]], home: Path) -> tuple[int, str]:
    """Run a program with a terminal; each answer is typed when its question is there. Status, and what was shown."""
    pid, line = pty.fork()
    if pid == 0:
        os.execve(command[0], command, {**os.environ, "PEANUT_HOME": str(home), "COLUMNS": "200"})
    shown, left = "", list(answers)
    deadline = time.monotonic() + DEADLINE_S
    with contextlib.suppress(OSError):  # how a terminal ends
        while data := os.read(line, 4096):
            shown += data.decode(errors="replace")
            if left and left[0][0] in shown:
                os.write(line, left.pop(0)[1].encode() + b"\n")
            assert time.monotonic() < deadline, shown
    os.close(line)
    transcript.hear(shown)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
