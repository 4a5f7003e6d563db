"""The caretaker: has `peanut renew` run now and then, so that nobody has to think of certificates.

The rule it keeps: the gateway issues nothing itself. Where the key of the issuing CA is in its home and `peanut` is
installed, it runs that program, one at a time, every few hours and some minutes more or less, and says what came of it;
elsewhere it says once, at the start, that somebody else has to. Nothing waits for it, and it may fail.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from peanutd.log import Log

FIRST: Final = 600.0
"""Seconds after the start of the gateway: by then the nodes are back."""
JITTER: Final = 0.1
"""Of the time between two runs."""
TIMEOUT: Final = 3600.0
"""Seconds for a run."""
LINES_MAX: Final = 50
"""Lines of a run that go into the log."""
ISSUING_KEY: Final = "ca/issuing.key"


class Loop(Protocol):
    """What is needed of an asyncio loop."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> object: ...
    def run_in_executor(self, executor: None, func: Callable[[], object]) -> object: ...


def program() -> str | None:
    """`peanut`: beside the Python that runs, or in PATH."""
    return shutil.which("peanut", path=str(Path(sys.executable).parent)) or shutil.which("peanut")


class Caretaker:
    """Runs it for the home. hours: between two runs, 0: never; may be set anew."""

    def __init__(self, home: Path, log: Log, loop: Loop, hours: int, command: str | None) -> None:
        """command: of `peanut`; None: it is not installed."""
        self.hours = hours
        self._home = home
        self._log = log
        self._loop = loop
        self._command = command

    def start(self, first: float = FIRST) -> None:
        """Begins; whether there is anything to begin with is looked at each time."""
        self._loop.call_later(first * random.uniform(1, 1 + JITTER), self._turn)

    def _turn(self) -> None:
        self._loop.call_later(max(1, self.hours) * 3600 * random.uniform(1 - JITTER, 1 + JITTER), self._turn)
        if self.hours and self._command is not None and (self._home / ISSUING_KEY).is_file():
            self._loop.run_in_executor(None, self.run)

    def run(self) -> int | None:
        """One run, in a thread; its exit status, None when it did not come to that."""
        assert self._command is not None
        try:
            done = subprocess.run(
                [self._command, "--home", str(self._home.resolve()), "renew"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                text=True,
                errors="replace",
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self._log.error("renew", f"`peanut renew` did not work: {error}")
            return None
        level = "warning" if done.returncode else "info"
        for line in done.stdout.splitlines()[:LINES_MAX]:
            self._log.write(level, "renew", line.strip())
        return done.returncode

    @property
    def problem(self) -> str | None:
        """Why certificates are not renewed from here, for the log at the start."""
        if not self.hours:
            return "certificates are not renewed by themselves: renew_hours is 0 in [access]"
        if not (self._home / ISSUING_KEY).is_file():
            return f"certificates are not renewed from here: {ISSUING_KEY} is elsewhere; run `peanut renew` there"
        return None if self._command else "certificates are not renewed by themselves: `peanut` is not installed here"
