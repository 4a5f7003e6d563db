"""The log: plain lines on stderr, one an event.

    2026-11-21T12:00:00 info  server: connected who=plant/peanut address=192.168.1.20:51234

The rule it keeps: whatever a peer sent can neither forge a line nor fill the disk. Every text is escaped and cut here,
not where it is logged, and repeated lines are counted instead of written (`Flood`). Times are local; no escape codes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

LEVELS: Final = ("debug", "info", "warning", "error")
DEFAULT_LEVEL: Final = "info"

MAX_TEXT: Final = 300
"""Characters of one text or value in a line; the rest is cut and replaced by an ellipsis."""

_SHOWN: Final = {"debug": "debug", "info": "info ", "warning": "warn ", "error": "error"}


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """`text` on one line: everything that is not printable is escaped, and at most `limit` characters are kept."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def field(value: object) -> str:
    """A value as it stands behind `key=`: in quotes when it is empty or has a space, a quote or an equals sign."""
    text = clean(str(value))
    if text and not any(c in text for c in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Log:
    """Writes lines of `level` and above to `stream`. A stream that fails is not a reason to stop serving."""

    def __init__(
        self, level: str = DEFAULT_LEVEL, stream: TextIO | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """`level` is one of LEVELS; ValueError otherwise."""
        if level not in LEVELS:
            raise ValueError(f"no such level: {level}")
        self._least = LEVELS.index(level)

    def write(self, level: str, area: str, text: str, /, **fields: object) -> None:
        """One line. Fields that are None are left out."""
        if LEVELS.index(level) < self._least:
            return
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self._clock()))
        parts = [f"{when} {_SHOWN[level]} {area}: {clean(text)}"]
        parts += [f"{key}={field(value)}" for key, value in fields.items() if value is not None]
        try:
            self._stream.write(" ".join(parts) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # the reader of the log is gone or its disk is full: greenhouses come first

    def debug(self, area: str, text: str, /, **fields: object) -> None:
        self.write("debug", area, text, **fields)

    def info(self, area: str, text: str, /, **fields: object) -> None:
        self.write("info", area, text, **fields)

    def warning(self, area: str, text: str, /, **fields: object) -> None:
        self.write("warning", area, text, **fields)

    def error(self, area: str, text: str, /, **fields: object) -> None:
        self.write("error", area, text, **fields)


class Flood:
    """Lines that a peer can cause at will: the first `BURST` of a kind in `WINDOW` seconds are written, others counted.

    A kind is what the caller says it is, for example ("handshake", address). The count is written when the window ends.
    The table holds `KINDS` kinds; whatever finds it full shares the one kind "others" until a window ends.
    """

    BURST: Final = 5
    WINDOW: Final = 10.0
    KINDS: Final = 1024

    def __init__(self, log: Log) -> None:
        self._log = log
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def write(self, kind: tuple[str, str], now: float, level: str, area: str, text: str, /, **fields: object) -> None:
        """Writes or counts one line of `kind`. `now` is in seconds of any monotonic clock."""
        if kind not in self._seen and len(self._seen) >= self.KINDS:
            kind = ("others", "")
        since, count = self._seen.get(kind, (now, 0))
        self._seen[kind] = (since, count + 1)
        if count < self.BURST:
            self._log.write(level, area, text, **fields)

    def sweep(self, now: float) -> None:
        """Ends the windows that are over; to be called about once a second."""
        for kind, (since, count) in list(self._seen.items()):
            if now - since >= self.WINDOW:
                del self._seen[kind]
                if count > self.BURST:
                    what, who = kind
                    more = count - self.BURST
                    self._log.warning("log", "more of the same left out", what=what, who=who or None, lines=more)
