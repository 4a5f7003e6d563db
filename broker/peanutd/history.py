"""What was measured: a database of readings, rolled up as they age, in SQLite.

The rule it keeps: what arrives is written behind everything else, in the order of its coming, and sorted into its place
every few minutes; so a batch costs the disk little, whether it is of now or of last week. Rolled-up values are made
anew from what they stand for whenever something is placed among it: being told twice changes nothing. Time is an
argument.

    arrived   since the last time that it was sorted in      series, second, value
    raw       every reading                                  [history] raw_days
    five      of five minutes: count, mean, least, greatest  [history] five_minutes_days
    hour      of an hour, the same                           [history] hours_days
    event     what nodes have said has happened              [history] five_minutes_days
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from peanutd.config import History as Settings
from peanutd.readings import Event, Reading
from peanutd.sqlfile import PATIENCE, opened, transaction

DAY: Final = 86_400
FIVE: Final = 300
HOUR: Final = 3_600
MAX_POINTS: Final = 10_000
"""Points of one curve that a query gives at the most."""
MAX_SERIES: Final = 200_000
"""Pairs of node and name; readings of one more are left out."""
SLICE: Final = 200
"""Series that are swept in one transaction, so that nobody waits long for the database."""
CACHE: Final = 16_384
"""KiB of pages that the writer keeps in memory."""
ROWS: Final = 5_000
"""Points of a CSV that are read at once, at the most."""

NICE: Final = (1, 10, 30, 60, FIVE, 900, 1800, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 7 * DAY)
"""Seconds of a step that may be chosen for somebody who has not."""
POINTS: Final = 1_000
"""Points that a chosen step makes at the most, while NICE goes so far."""
CSV_HEAD: Final = "time,node,reading,value,least,greatest,count\r\n"

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS series (
        id INTEGER PRIMARY KEY, root TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (root, name));
    CREATE TABLE IF NOT EXISTS arrived (series INTEGER NOT NULL, ts INTEGER NOT NULL, value REAL NOT NULL);
    CREATE TABLE IF NOT EXISTS raw (
        series INTEGER NOT NULL, ts INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (series, ts)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS five (
        series INTEGER NOT NULL, ts INTEGER NOT NULL, n INTEGER NOT NULL, mean REAL NOT NULL, low REAL NOT NULL,
        high REAL NOT NULL, PRIMARY KEY (series, ts)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS hour (
        series INTEGER NOT NULL, ts INTEGER NOT NULL, n INTEGER NOT NULL, mean REAL NOT NULL, low REAL NOT NULL,
        high REAL NOT NULL, PRIMARY KEY (series, ts)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS event (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, root TEXT NOT NULL, ts INTEGER NOT NULL, id TEXT NOT NULL,
        text TEXT NOT NULL, clear INTEGER NOT NULL, UNIQUE (root, ts, id, clear));
    CREATE INDEX IF NOT EXISTS event_of_root ON event (root, seq);
"""
_EACH: Final = f"""
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -{CACHE};
    CREATE TEMP TABLE touched (series INTEGER, ts INTEGER, PRIMARY KEY (series, ts)) WITHOUT ROWID;
"""
# One statement takes a batch apart: for each statement the interpreter's lock is given up and has to be won back.
_ARRIVE: Final = """
    INSERT INTO arrived
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)
"""
_TOUCH: Final = "INSERT OR IGNORE INTO touched SELECT series, ts - ts % 300 FROM arrived"
_PLACE: Final = (
    "INSERT OR REPLACE INTO raw SELECT series, ts, value FROM arrived WHERE ts >= ? ORDER BY series, ts, rowid"
)
_ROLL: Final = """
    INSERT OR REPLACE INTO five
    SELECT raw.series, touched.ts, count(*), avg(raw.value), min(raw.value), max(raw.value)
    FROM touched JOIN raw ON raw.series = touched.series AND raw.ts >= touched.ts AND raw.ts < touched.ts + 300
    WHERE touched.ts >= ? GROUP BY raw.series, touched.ts
"""
# Where the raw ones are gone, what comes is added to what they have left.
_MERGE: Final = """
    INSERT INTO five
    SELECT series, ts - ts % 300, count(*), avg(value), min(value), max(value)
    FROM arrived WHERE ts < ? AND ts >= ? GROUP BY 1, 2
    ON CONFLICT DO UPDATE SET mean = (n * mean + excluded.n * excluded.mean) / (n + excluded.n), n = n + excluded.n,
        low = min(low, excluded.low), high = max(high, excluded.high)
"""
_ROLL_HOURS: Final = """
    INSERT OR REPLACE INTO hour
    SELECT five.series, spot.ts, sum(n), sum(n * mean) / sum(n), min(low), max(high)
    FROM (SELECT DISTINCT series, ts - ts % 3600 AS ts FROM touched WHERE ts >= ?) AS spot
    JOIN five ON five.series = spot.series AND five.ts >= spot.ts AND five.ts < spot.ts + 3600
    GROUP BY five.series, spot.ts
"""
# Rolled up, and not sorted in yet, together; neither has what the other has, but for what was told twice.
_RAW: Final = """
    SELECT ts, value, value, value, 1 FROM (
        SELECT ts, value FROM raw WHERE series = :series AND ts >= :start AND ts < :end
        UNION ALL SELECT ts, value FROM arrived WHERE series = :series AND ts >= :start AND ts < :end)
    GROUP BY ts ORDER BY ts LIMIT :most
"""
_STEPS: Final = """
    SELECT ts - ts % :step, sum(n * mean) / sum(n), min(low), max(high), sum(n) FROM (
        SELECT ts, n, mean, low, high FROM {table} WHERE series = :series AND ts >= :start AND ts < :end
        UNION ALL
        SELECT ts, 1, value, value, value FROM arrived WHERE series = :series AND ts >= :start AND ts < :end)
    GROUP BY 1 ORDER BY 1 LIMIT :most
"""
_OF_RAW: Final = "(SELECT series, ts, 1 AS n, value AS mean, value AS low, value AS high FROM raw)"


class HistoryError(Exception):
    """The database cannot be used; the text says why."""


class Point(NamedTuple):
    """A second, or a step that begins then."""

    ts: int
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Some time of one reading."""

    name: str
    step: int
    """Seconds from point to point at the least; 1: every reading."""
    points: tuple[Point, ...]
    """By time. Where there was nothing there is no point."""
    cut: bool
    """There are more than MAX_POINTS; what comes behind them is not here."""


@dataclass(frozen=True, slots=True)
class Span:
    """A reading of a node, and from when (to the hour) to when there is something of it."""

    name: str
    first: int
    last: int


class Happening(NamedTuple):
    """What a node has said has happened, or is over."""

    seq: int
    """Grows with each that comes in."""
    ts: int
    id: str
    text: str
    clear: bool


@dataclass(frozen=True, slots=True)
class Sorted:
    """What `sort_in` has done."""

    readings: int
    too_old: int
    """Readings that are older than anything that is kept in five minutes."""


class History:
    """The writing side: one object, one thread at a time."""

    def __init__(self, path: Path, settings: Settings, log: Callable[[str], None]) -> None:
        """Opens the database, makes it when it is not there, and sets it aside when it is damaged, which `log` hears.
        HistoryError when it cannot be used.
        """
        self.path = path
        self.settings = settings
        try:
            self._db = opened(path, (_SCHEMA,), "NORMAL", _EACH)
        except sqlite3.OperationalError as error:
            raise HistoryError(f"{path}: {error}; see to the file, or name another path in [history]") from None
        except sqlite3.DatabaseError as error:
            aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{path}{end}", f"{aside}{end}")
            log(f"{path} is damaged ({error}): set aside as {aside.name}, and begun anew")
            self._db = opened(path, (_SCHEMA,), "NORMAL", _EACH)
        except OSError as error:
            raise HistoryError(f"{path}: {error.strerror}") from None
        self._series: dict[tuple[str, str], int] = {
            (root, name): number for number, root, name in self._db.execute("SELECT id, root, name FROM series")
        }

    def add(self, readings: Iterable[Reading]) -> int:
        """Writes a batch, all or nothing; how many of it there was room for. sqlite3.Error when it cannot be done."""
        fresh: dict[tuple[str, str], int] = {}
        rows: list[tuple[int, int, float]] = []
        for reading in readings:
            key = (reading.root, reading.name)
            number = self._series.get(key) or fresh.get(key)
            if number is None and len(self._series) + len(fresh) < MAX_SERIES:
                number = fresh[key] = len(self._series) + len(fresh) + 1
            if number is not None:
                rows.append((number, reading.ts, reading.value))
        with transaction(self._db):
            for (root, name), number in fresh.items():
                self._db.execute("INSERT INTO series VALUES (?, ?, ?)", (number, root, name))
            self._db.execute(_ARRIVE, (json.dumps(rows),))
        self._series |= fresh
        return len(rows)

    def add_events(self, events: Iterable[Event]) -> None:
        """Writes what has happened; what was told twice is there once."""
        with transaction(self._db):
            self._db.executemany(
                "INSERT OR IGNORE INTO event (root, ts, id, text, clear) VALUES (?, ?, ?, ?, ?)", events
            )

    def sort_in(self, now: float) -> Sorted:
        """Puts what has arrived into its place, and rolls up what it touches."""
        settings = self.settings
        raw_from, five_from = _horizon(now, settings.raw_days), _horizon(now, settings.five_minutes_days)
        with transaction(self._db):
            ((readings,),) = self._db.execute("SELECT count(*) FROM arrived").fetchall()
            ((too_old,),) = self._db.execute("SELECT count(*) FROM arrived WHERE ts < ?", (five_from,)).fetchall()
            self._db.execute("DELETE FROM touched")
            self._db.execute(_TOUCH)
            self._db.execute(_PLACE, (raw_from,))
            self._db.execute(_ROLL, (raw_from,))
            self._db.execute(_MERGE, (raw_from, five_from))
            self._db.execute(_ROLL_HOURS, (five_from,))
            self._db.execute("DELETE FROM arrived")
        return Sorted(readings, too_old)

    def sweep(self, now: float) -> int:
        """Removes what is older than it is to be kept; how many rows that was."""
        gone = 0
        numbers = sorted(self._series.values())
        settings = self.settings
        for table, days in (
            ("raw", settings.raw_days),
            ("five", settings.five_minutes_days),
            ("hour", settings.hours_days),
        ):
            horizon = _horizon(now, days)
            for first in range(0, len(numbers) if days else 0, SLICE):
                some = json.dumps(numbers[first : first + SLICE])
                with transaction(self._db):
                    # Each series by itself: the beginning of its rows, which is where the old ones are.
                    gone += self._db.execute(
                        f"DELETE FROM {table} WHERE (series, ts) IN (SELECT {table}.series, {table}.ts "
                        f"FROM json_each(?) JOIN {table} ON {table}.series = json_each.value AND {table}.ts < ?)",
                        (some, horizon),
                    ).rowcount
        if settings.five_minutes_days:
            with transaction(self._db):
                horizon = _horizon(now, settings.five_minutes_days)
                gone += self._db.execute("DELETE FROM event WHERE ts < ?", (horizon,)).rowcount
        return gone

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


class Reader:
    """The reading side, for any thread: each call opens the database for itself, and sees one moment of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def spans(self, root: str) -> tuple[Span, ...]:
        """The readings of a node, by name. HistoryError when the database cannot be read."""
        found: list[Span] = []
        with self._db() as db:
            for name, number in _numbers(db, root, ()):
                if (ends := _ends(db, number)) is not None:
                    found.append(Span(name, *ends))
        return tuple(found)

    def curves(self, root: str, names: Sequence[str], start: int, end: int, step: int = 0) -> tuple[Curve, ...]:
        """Readings of a node from `start` to before `end` (Unix seconds), a curve for each of `names` that there is;
        of all when there are none. `step`: seconds from point to point, 1 is every reading; 0: chosen so that there
        are POINTS at the most. It is made a multiple of what is kept. HistoryError when the database cannot be read.
        """
        step, query = _query(step or chosen(end - start))
        found: list[Curve] = []
        with self._db() as db:
            for name, number in _numbers(db, root, names):
                wish = {"series": number, "start": start - start % step, "end": end, "step": step}
                rows = [Point(*row) for row in db.execute(query, {**wish, "most": MAX_POINTS + 1})]
                found.append(Curve(name, step, tuple(rows[:MAX_POINTS]), len(rows) > MAX_POINTS))
        return tuple(found)

    def csv(self, root: str, names: Sequence[str], start: int, end: int, step: int = 0) -> Iterator[str]:
        """The same as CSV (RFC 4180), in pieces: a line for each point, one name after the other, however many.

        Each piece is of a moment of its own: whoever takes them slowly would else keep the database from tidying up.
        """
        step, query = _query(step or chosen(end - start))
        yield CSV_HEAD
        node = root.rpartition("/")[2]
        with self._db() as db:
            found = [(name, number, _ends(db, number)) for name, number in _numbers(db, root, names)]
        for name, number, ends in found:
            first, last = ends or (end, end)
            since = max(start, first)
            until = min(end, last + HOUR)  # the last hour is known by its beginning
            for at in range(since - since % step, until, ROWS * step):
                wish = {"series": number, "start": at, "end": min(until, at + ROWS * step), "step": step, "most": -1}
                with self._db() as db:
                    rows = db.execute(query, wish).fetchall()
                if rows:
                    yield "".join(
                        f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(ts))},{node},{name},"
                        f"{mean:.10g},{low:.10g},{high:.10g},{count}\r\n"
                        for ts, mean, low, high, count in rows
                    )

    def events(self, root: str, before: int | None = None, limit: int = 100) -> tuple[Happening, ...]:
        """What has happened at a node, the newest first; `before`: only what has a smaller `seq`."""
        with self._db() as db:
            rows = db.execute(
                "SELECT seq, ts, id, text, clear FROM event WHERE root = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
                (root, before if before is not None else 2**62, limit),
            )
            return tuple(Happening(seq, ts, id_, text, bool(clear)) for seq, ts, id_, text, clear in rows)

    @contextlib.contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        try:
            where = f"file:{quote(str(self.path))}?mode=ro"
            db = sqlite3.connect(where, uri=True, timeout=PATIENCE, check_same_thread=False)
            with contextlib.closing(db):
                yield db
        except sqlite3.Error as error:
            raise HistoryError(f"{self.path}: cannot be read: {error}") from None


def chosen(span: int) -> int:
    """Seconds of a step of which POINTS at the most cover `span` seconds, as far as NICE goes."""
    return next((step for step in NICE if span <= step * POINTS), NICE[-1])


def _query(step: int) -> tuple[int, str]:
    """A step that can be had, and how."""
    if step <= 1:
        return 1, _RAW
    if step < FIVE:
        return step, _STEPS.format(table=_OF_RAW)
    unit, table = (FIVE, "five") if step < HOUR else (HOUR, "hour")
    return step // unit * unit, _STEPS.format(table=table)


def _numbers(db: sqlite3.Connection, root: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """The series of a node, in the order of `names`; all of them when there are none."""
    known: dict[str, int] = dict(db.execute("SELECT name, id FROM series WHERE root = ? ORDER BY name", (root,)))
    return [(name, known[name]) for name in (names or known) if name in known]


def _ends(db: sqlite3.Connection, number: int) -> tuple[int, int] | None:
    """When a series begins, and when it ends or its last hour begins. None: there is nothing of it."""
    ((first, last),) = db.execute(
        "SELECT min(first), max(last) FROM (SELECT min(ts) AS first, max(ts) AS last FROM arrived "
        "WHERE series = :s UNION ALL SELECT min(ts), max(ts) FROM hour WHERE series = :s "
        "UNION ALL SELECT min(ts), max(ts) FROM raw WHERE series = :s)",
        {"s": number},
    ).fetchall()
    return None if first is None else (first, last)


def _horizon(now: float, days: int) -> int:
    """Before this nothing is kept, 0 is for ever. The beginning of an hour: what is rolled up is whole or gone."""
    return (int(now) - days * DAY) // HOUR * HOUR if days else 0
