"""The log: lines on stderr, one an event, plain or as JSON.

    2026-11-21T12:00:00 info  server: connected who=plant/peanut address=192.168.1.20:51234
    {"ts":1795262400.123,"level":"info","area":"server","text":"connected","who":"plant/peanut",…}

The rule it keeps: whatever a peer sent can neither forge a line nor fill the disk. Every text is escaped and cut here,
not where it is logged, and repeated lines are counted instead of written (`Flood`). Nor can whoever reads the log, or
does not, hold up the gateway: a thread writes (`Background`). Times are local; no escape codes.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

LEVELS: Final = ("debug", "info", "warning", "error")
DEFAULT_LEVEL: Final = "info"
FORMATS: Final = ("plain", "json")
DEFAULT_FORMAT: Final = "plain"

MAX_TEXT: Final = 300
"""Characters of one text or value in a line; the rest is cut and replaced by an ellipsis."""

MAX_WAITING: Final = 4096
"""Lines that wait to be written; what comes then is counted and left out."""
END_TIMEOUT: Final = 1.0
"""Seconds that the gateway waits at its end until its last lines are written."""

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


def line(when: float, level: str, area: str, text: str, fields: Mapping[str, object]) -> str:
    """One line of the log, whole. `when` is in Unix seconds; fields that are None are left out."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when))
    parts = [f"{moment} {_SHOWN[level]} {area}: {clean(text)}"]
    parts += [f"{key}={field(value)}" for key, value in fields.items() if value is not None]
    return " ".join(parts) + "\n"


def json_line(when: float, level: str, area: str, text: str, fields: Mapping[str, object]) -> str:
    """The same as one JSON object: the fields stand beside `ts`, `level`, `area` and `text`. Texts are cut as there."""
    found: dict[str, object] = {"ts": round(when, 3), "level": level, "area": area, "text": text[:MAX_TEXT]}
    for key, value in fields.items():
        if value is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            found.setdefault(key, value if number else str(value)[:MAX_TEXT])
    return json.dumps(found, separators=(",", ":")) + "\n"  # ASCII: nothing can break a line


_SHAPES: Final = {"plain": line, "json": json_line}


class Stream(Protocol):
    """What a log is written to."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class Background:
    """A stream whose lines are written by a thread, so that a pipe which nobody reads stops nothing but the log.

    It writes to a file descriptor and not to `sys.stderr`: a thread stuck in there would be in the way of Python's end.
    """

    def __init__(self, descriptor: int = 2, limit: int = MAX_WAITING, form: str = DEFAULT_FORMAT) -> None:
        self.form = form
        """One of FORMATS: of the lines that it writes itself."""
        self._descriptor = descriptor
        self._limit = limit
        self._lines: list[str] = []
        self._left_out = 0
        self._ending = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Takes one line, or counts it where `limit` lines wait already. Never blocks."""
        with self._changed:
            if len(self._lines) < self._limit:
                self._lines.append(text)
            else:
                self._left_out += 1
            self._changed.notify()

    def flush(self) -> None:
        """Nothing to be done: lines are written as they come."""

    def end(self, timeout: float = END_TIMEOUT) -> None:
        """Waits until all is written, `timeout` seconds at the most; what comes later is lost."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._ending)
                lines, self._lines = self._lines, []
                left_out, self._left_out = self._left_out, 0
                over = self._ending
            if left_out:
                fields = {"lines": left_out}
                shape = _SHAPES[self.form]
                lines.append(shape(time.time(), "warning", "log", "not written fast enough, lines left out", fields))
            for text in lines:
                self._put(text.encode("utf-8", "backslashreplace"))
            if over and not lines:
                return

    def _put(self, data: bytes) -> None:
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # whoever shares the pipe has made it so
                    select.select([], [self._descriptor], [])
        except (OSError, ValueError):
            pass  # the reader of the log is gone or its disk is full: greenhouses come first


class Log:
    """Writes lines of `level` and above to `stream`, in one of FORMATS. That it fails is no reason to stop serving."""

    def __init__(
        self,
        level: str = DEFAULT_LEVEL,
        stream: Stream | None = None,
        clock: Callable[[], float] = time.time,
        form: str = DEFAULT_FORMAT,
    ) -> None:
        self._stream: Stream = sys.stderr if stream is None else stream
        self._clock = clock
        self.set_level(level)
        self.set_format(form)

    def set_format(self, form: str) -> None:
        """`form` is one of FORMATS; KeyError otherwise."""
        self._line = _SHAPES[form]
        if isinstance(self._stream, Background):
            self._stream.form = form

    def set_level(self, level: str) -> None:
        """`level` is one of LEVELS; ValueError otherwise."""
        if level not in LEVELS:
            raise ValueError(f"no such level: {level}")
        self._least = LEVELS.index(level)

    def write(self, level: str, area: str, text: str, /, **fields: object) -> None:
        """One line. Fields that are None are left out."""
        if LEVELS.index(level) < self._least:
            return
        try:
            self._stream.write(self._line(self._clock(), level, area, text, fields))
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
    Kinds that a peer can make up at will (by its client ids) belong to a group, which has a bound of its own.
    The table holds `KINDS` kinds; whatever finds it full shares the one kind "others" until a window ends.
    """

    BURST: Final = 5
    GROUP_BURST: Final = 64
    """Lines of a group; so many clients may one operator have."""
    WINDOW: Final = 10.0
    KINDS: Final = 1024

    def __init__(self, log: Log) -> None:
        self._log = log
        self._seen: dict[tuple[str, str], tuple[float, int, int]] = {}  # since when, how many, of how many

    def write(self, kind: tuple[str, str], now: float, level: str, area: str, text: str, /, **fields: object) -> None:
        """Writes or counts one line of `kind`. `now` is in seconds of any monotonic clock."""
        if self._admits(kind, now, self.BURST):
            self._log.write(level, area, text, **fields)

    def admits(self, group: tuple[str, str], now: float) -> bool:
        """Whether one more line of a group may be written; if not, it is counted."""
        return self._admits(group, now, self.GROUP_BURST)

    def _admits(self, kind: tuple[str, str], now: float, burst: int) -> bool:
        if kind not in self._seen and len(self._seen) >= self.KINDS:
            kind, burst = ("others", ""), self.BURST
        since, count, _ = self._seen.get(kind, (now, 0, burst))
        self._seen[kind] = (since, count + 1, burst)
        return count < burst

    def sweep(self, now: float) -> None:
        """Ends the windows that are over; to be called about once a second."""
        for kind, (since, count, burst) in list(self._seen.items()):
            if now - since >= self.WINDOW:
                del self._seen[kind]
                if count > burst:
                    what, who = kind
                    more = count - burst
                    self._log.warning("log", "more of the same left out", what=what, who=who or None, lines=more)
