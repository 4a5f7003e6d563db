"""Between the nodes and everything that is made of what they say: one thread, so that the loop only takes notes.

The rule it keeps: the queue is bounded; what does not fit is dropped and counted, and the broker waits for nobody here.
Whatever fails in this thread is said once, until it works again, and ends nothing. A clock that is put, or a machine
that slept, changes what time it is and nothing else: who waits goes on waiting, and nothing is thrown away.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from peanutd import readings
from peanutd.config import History as Settings
from peanutd.ear import Report
from peanutd.history import DAY, FIVE, HOUR, History
from peanutd.log import Log
from peanutd.readings import Event, Reading

SETTLE: Final = 20
"""Seconds after the end of five minutes until they are sorted in: what is on its way comes first."""
MAX_ARRIVED: Final = 500_000
"""Readings after which they are sorted in before that."""
MAX_KEPT: Final = 100_000
"""Readings that wait for a disk that fails; what comes then is dropped."""
TURN: Final = 0.25
"""Seconds between two turns of the thread."""
JUMP: Final = 30.0
"""Seconds that the clock and the time that passes may drift apart between two turns; with more it was put."""
FIRST_SWEEP: Final = HOUR
"""Seconds from the start to the first sweep: until then somebody has told a machine without a clock what time it is."""
DOUBT: Final = DAY
"""Seconds without a sweep after the clock was put forward: it may have been a mistake, and what is swept is gone."""
END_TIMEOUT: Final = 5.0
"""Seconds that the gateway waits for the thread at its end."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Said:
    """A report, taken apart."""

    report: Report
    body: Mapping[str, Any]
    readings: tuple[Reading, ...] = ()
    event: Event | None = None


class Part(Protocol):
    """What lives on reports: it is told of each, and of the time; both in the recorder's thread."""

    def hear(self, said: Said, now: float) -> None: ...

    def tick(self, now: float) -> None:
        """Once a TURN or so."""

    def shift(self, by: float) -> None:
        """The clock was put, by so many seconds: what was to come then comes as soon as it would have come."""


@dataclass(slots=True)
class Counts:
    """What has become of what was heard."""

    reports: int = 0
    readings: int = 0
    written: int = 0
    dropped: int = 0
    """Reports for which there was no room, and readings that a failing disk did not take."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Readings that could not be placed, by reason."""


class Recorder:
    """The thread and its queue. `hear` and `ask` are for any thread, `step` for the recorder's, or for a test."""

    def __init__(
        self,
        log: Log,
        settings: Settings,
        history: History | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """history: where readings go; None: nowhere. clock: Unix seconds; monotonic: seconds that pass."""
        self.counts = Counts()
        self.parts: list[Part] = []
        """Told of every report, in this order; to be filled before the thread starts."""
        self._log = log
        self._settings = settings
        self._history = history
        self._clock = clock
        self._monotonic = monotonic
        self._waiting: deque[Report] = deque()
        self._asked: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._readings: list[Reading] = []
        self._events: list[Event] = []
        self._arrived = 0
        now = clock()
        self._write_at = now + settings.batch_seconds
        self._sort_at = _next(now, FIVE) + SETTLE
        self._sweep_at = now + FIRST_SWEEP
        self._ahead = now - monotonic()
        self._failing: dict[str, str] = {}
        self._dropped_said = 0

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def hear(self, report: Report) -> None:
        """Takes a note."""
        if len(self._waiting) >= self._settings.max_waiting:
            self.counts.dropped += 1
        else:
            self._waiting.append(report)

    def ask(self, what: Callable[[], _T]) -> Future[_T]:
        """Has something done in the thread, where the parts live; not at all if nobody waits for it any more."""
        found: Future[_T] = Future()

        def answer() -> None:
            if not found.set_running_or_notify_cancel():
                return
            try:
                found.set_result(what())
            except BaseException as error:
                found.set_exception(error)

        self._asked.append(answer)
        self._wake.set()
        return found

    def end(self) -> None:
        """Writes what there is, and ends."""
        self._ending = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT)

    def step(self, *, last: bool = False) -> None:
        """One turn: what was heard, what was asked, what is due. last: the history is, and nobody else is told."""
        now = self._clock()
        ahead = now - self._monotonic()
        if abs(by := ahead - self._ahead) >= JUMP:
            self._shift(by, now)
        self._ahead = ahead
        for _ in range(len(self._waiting)):
            self._take(self._waiting.popleft(), now)
        while self._asked:
            self._asked.popleft()()
        for part in () if last else self.parts:
            self._try(type(part).__name__.lower(), part.tick, now)
        if self._history is None:
            return
        if last or now >= self._write_at:
            self._write_at = now + self._settings.batch_seconds
            self._try("history", self._write, self._history)
        if last or now >= self._sort_at or self._arrived >= MAX_ARRIVED:
            self._sort_at = _next(now, FIVE) + SETTLE
            self._try("history", self._sort, self._history, now)
        if now >= self._sweep_at and not last:
            self._sweep_at = _next(now, HOUR) + SETTLE
            self._try("history", self._history.sweep, now)

    def _shift(self, by: float, now: float) -> None:
        """The clock was put."""
        self._log.warning("recorder", "the clock was put, or the machine slept", seconds=round(by))
        self._write_at = now
        self._sort_at = _next(now, FIVE) + SETTLE
        self._sweep_at = now + (DOUBT if by > 0 else HOUR)
        for part in self.parts:
            self._try(type(part).__name__.lower(), part.shift, by)

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(TURN)
            self._wake.clear()
            self.step()
        self.step(last=True)
        if self._history is not None:
            self._history.close()

    def _take(self, report: Report, now: float) -> None:
        self.counts.reports += 1
        body = readings.body(report)
        found = tuple(readings.of(report, body, now, self.counts.left_out))
        said = Said(report, body, found, readings.event(report, body, now))
        self.counts.readings += len(found)
        if self._history is not None:
            room = max(0, MAX_KEPT - len(self._readings))
            self._readings += found[:room]
            self.counts.dropped += len(found[room:])
            if said.event is not None and len(self._events) < MAX_KEPT:
                self._events.append(said.event)
        for part in self.parts:
            self._try(type(part).__name__.lower(), part.hear, said, now)

    def _write(self, history: History) -> None:
        if self._readings:
            written = history.add(self._readings)
            self.counts.written += written
            self.counts.left_out["no room"] += len(self._readings) - written
            self._arrived += written
            self._readings.clear()
        if self._events:
            history.add_events(self._events)
            self._events.clear()

    def _sort(self, history: History, now: float) -> None:
        done = history.sort_in(now)
        self.counts.left_out["too old"] += done.too_old
        self._arrived = 0
        if (dropped := self.counts.dropped) > self._dropped_said:
            self._log.warning(
                "history", "not written fast enough, reports left out", count=dropped - self._dropped_said
            )
            self._dropped_said = dropped

    def _try(self, area: str, what: Callable[..., object], *arguments: Any) -> None:
        """Does it; a failure is logged once until it is another, or over."""
        key = f"{area}.{getattr(what, '__name__', what)}"
        try:
            what(*arguments)
        except Exception as error:  # a mistake in one part must not end the others
            words = str(error) if isinstance(error, sqlite3.Error) else repr(error)
            if self._failing.get(key) != words:
                self._failing[key] = words
                self._log.error(area, "has failed, and is tried again", why=words)
        else:
            if self._failing and self._failing.pop(key, None) is not None:
                self._log.warning(area, "works again")


def _next(now: float, step: int) -> float:
    """The next multiple of `step`."""
    return (int(now) // step + 1) * float(step)
