"""What keeps promises: takes the journal from the core, has a thread write it, tells the core what is on the disk.

The rule it keeps: one batch is on its way at a time, so that what gathers meanwhile goes together (group commit). That
a disk fails is said once and tried again every RETRY seconds; the core refuses meanwhile what it cannot keep.

    sync = "always"   what says that something is kept is sent when it is on the disk
    sync = "batch"    it is sent at once, and written every PAUSE seconds
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from peanutd._core import Broker
from peanutd.log import Log
from peanutd.store import Database

if TYPE_CHECKING:
    from peanutd._core import Event

RETRY: Final = 1.0
"""Seconds between two attempts to write to a disk that fails."""
PAUSE: Final = 0.5
"""Seconds between two batches with sync = "batch": the most that a crash takes away."""
END_TIMEOUT: Final = 2.5
"""Seconds that the gateway waits at its end for the disk."""
DRIFT: Final = 1000
"""Milliseconds by which the wall clock may differ from what the core thinks before it is told anew."""


class Loop(Protocol):
    """What is needed of an asyncio loop."""

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object]) -> object: ...


class Writer(threading.Thread):
    """The one thread that writes. It says in the loop what has become of each batch."""

    def __init__(self, database: Database, tell: Callable[[str | None, int | None, float], None]) -> None:
        """tell(error, number, seconds): a batch is written (its number), or could not be and is tried again (error)."""
        super().__init__(name="store", daemon=True)
        self._database = database
        self._tell = tell
        self._batches: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._hurry = threading.Event()

    def write(self, number: int, batch: bytes) -> None:
        self._batches.put((number, batch))

    def end(self, timeout: float) -> bool:
        """Writes what there is and ends; False when that was not done in time. A disk that fails is tried once more."""
        self._batches.put(None)
        self._hurry.set()
        self.join(timeout)
        return not self.is_alive()

    def run(self) -> None:
        while (item := self._batches.get()) is not None:
            if not self._write(*item):
                break
        self._database.close()

    def _write(self, number: int, batch: bytes) -> bool:
        while True:
            last = self._hurry.is_set()
            begun = time.monotonic()
            try:
                self._database.apply(batch)
            except Exception as error:  # whatever it is, what was not written must not pass for written
                self._tell(str(error) or repr(error), None, time.monotonic() - begun)
                if last:
                    return False
                self._hurry.wait(RETRY)
            else:
                self._tell(None, number, time.monotonic() - begun)
                return True


class Keeper:
    """Between the core and the database. Everything runs in the loop but the writing."""

    def __init__(
        self,
        broker: Broker,
        database: Database,
        log: Log,
        loop: Loop,
        run: Callable[[Iterable[Event]], None],
        *,
        waits: bool,
        now: Callable[[], int],
        took: Callable[[float], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`run` handles the core's events. waits: sync = "always". now: the core's milliseconds; wall: Unix seconds.
        took: is told the seconds that each commit has taken.
        """
        self._broker = broker
        self._database = database
        self._log = log
        self._loop = loop
        self._run = run
        self._waits = waits
        self._now = now
        self._wall = wall
        self._offset = 0
        self._writing = False
        self._pausing = False
        self._ended = False
        self.failure: str | None = None
        """Why the disk keeps nothing at present."""
        self._took = took
        self._writer = Writer(database, self._hear)

    def restore(self) -> None:
        """Gives the core what the database has. StoreError when it cannot be read."""
        self._set_clock()
        begun = time.monotonic()
        count = bad = 0
        for rows in self._database.rows():
            bad += self._broker.restore(rows, self._now())
            count += len(rows)
        self._run(self._broker.restored(self._now()))
        self._writer.start()
        if count:
            stats = self._broker.stats()
            self._log.info(
                "store",
                "restored",
                sessions=stats["sessions"],
                messages=stats["stored"],
                retained=stats["retained"],
                seconds=f"{time.monotonic() - begun:.1f}",
            )
        if bad:
            self._log.error("store", "records that mean nothing were left out", count=bad, file=self._database.path)

    def pump(self) -> None:
        """Has written what is to be written, unless something is being written. Once a turn of the loop."""
        if self._writing or self._pausing or self._ended:
            return
        batch = self._broker.journal()
        if batch is None:
            return
        self._writing = True
        self._writer.write(*batch)

    def tick(self) -> None:
        """Tells the core when the wall clock has been set."""
        if abs(self._clock() - self._offset) > DRIFT:
            self._set_clock()

    def end(self) -> None:
        """Writes the rest, and ends."""
        if not self._ended:
            self._ended = True
            rest = self._broker.journal()
            if rest is not None:
                self._writer.write(*rest)
            if not self._writer.end(END_TIMEOUT) or self.failure is not None:
                self._log.error("store", "not everything could be written before the end", file=self._database.path)

    def _clock(self) -> int:
        return round(self._wall() * 1000) - self._now()

    def _set_clock(self) -> None:
        self._offset = self._clock()
        self._broker.keep(waits=self._waits, wall=self._offset)

    def _hear(self, error: str | None, number: int | None, seconds: float) -> None:
        """In the writer's thread."""
        if self._ended:
            self.failure = error
        else:
            self._loop.call_soon_threadsafe(self._told, error, number, seconds)

    def _told(self, error: str | None, number: int | None, seconds: float) -> None:
        if number is None:
            if self.failure is None and not self._ended:
                what = "cannot be written: what would have to be kept is refused until it can, the rest is served"
                self._log.error("store", what, file=self._database.path, why=error)
                self._run(self._broker.failing(True, self._now()))
            self.failure = error
            return
        self._writing = False
        self._took(seconds)
        if self.failure is not None:
            self.failure = None
            self._log.warning("store", "can be written again", file=self._database.path)
            self._run(self._broker.failing(False, self._now()))
        self._run(self._broker.committed(number, self._now()))
        if not self._waits and not self._ended:
            self._pausing = True
            self._loop.call_later(PAUSE, self._resume)
        self.pump()

    def _resume(self) -> None:
        self._pausing = False
        self.pump()
