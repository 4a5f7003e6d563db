"""The database that survives the gateway: the records of the core's journal (core/journal.h) in SQLite.

The rule it keeps: keys and values, in one table, and nothing else is known of them. A batch is in it whole or not at
all. A database that is damaged is set aside, never deleted and never a reason not to start; what can be read of it is
taken over.

A batch is applied by two SQL statements that take it apart themselves. For each statement the sqlite3 module gives up
the interpreter's lock and has to win it back from the loop; a statement for each record would wait for it each time.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

Row = tuple[bytes, bytes]

FORMAT: Final = 1
"""What is written as user_version. The core numbers the format of values itself."""
ROWS: Final = 5_000
"""Records read at once."""
CACHE: Final = 8192
"""KiB of pages that SQLite keeps in memory."""
OTHERS: Final = ("-wal", "-shm")
"""Files beside the database that belong to it."""
KEY_HEAD: Final = 17
"""Bytes of a key that are looked at to find a way around what cannot be read."""
TRIES: Final = 2_000
"""Ways around it that are tried."""

# Records as journal.h writes them: a kind, five digits, nine digits, key, value.
_RECORDS: Final = """
    WITH RECURSIVE record_at(at, kind, key_n, value_n) AS (
        SELECT 1, substr(?1, 1, 1), CAST(substr(?1, 2, 5) AS INTEGER), CAST(substr(?1, 7, 9) AS INTEGER)
        UNION ALL
        SELECT at + 15 + key_n + value_n,
               substr(?1, at + 15 + key_n + value_n, 1),
               CAST(substr(?1, at + 16 + key_n + value_n, 5) AS INTEGER),
               CAST(substr(?1, at + 21 + key_n + value_n, 9) AS INTEGER)
        FROM record_at WHERE at + 15 + key_n + value_n < length(?1)
    )
"""
_PUT: Final = (
    _RECORDS
    + """
    INSERT OR REPLACE INTO record
    SELECT substr(?1, at + 15, key_n), substr(?1, at + 15 + key_n, value_n)
    FROM record_at WHERE kind = CAST('P' AS BLOB)
"""
)
# A run of keys is one record; the trigger is what lets one statement delete many runs.
_DELETE: Final = (
    "INSERT INTO deletion"
    + _RECORDS
    + """
    SELECT substr(?1, at + 15, key_n), substr(?1, at + 15 + CASE value_n WHEN 0 THEN 0 ELSE key_n END, key_n)
    FROM record_at WHERE kind = CAST('D' AS BLOB)
"""
)
_DELETION: Final = (
    "CREATE TEMP VIEW deletion AS SELECT NULL AS first, NULL AS last",
    """
    CREATE TEMP TRIGGER delete_run INSTEAD OF INSERT ON deletion BEGIN
        DELETE FROM record WHERE key BETWEEN NEW.first AND NEW.last;
    END
    """,
)


_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises; the second where a damaged database has its say in an error."""


class StoreError(Exception):
    """The database cannot be used, and that is not because it is damaged. The text says what to do."""


class Database:
    """One database file; made when it is not there. Not thread-safe, but not bound to a thread either."""

    def __init__(self, path: Path, log: Callable[[str], None], max_pages: int = 0) -> None:
        """Opens it. `log` hears of damage. max_pages: SQLite's own limit of its size, 0 for none. StoreError when
        it is there and cannot be used; where it cannot be made (a full disk), `apply` tries again.
        """
        self.path = path
        self._log = log
        self._max_pages = max_pages
        self._db: sqlite3.Connection | None = None
        existed = path.exists() and path.stat().st_size > 0
        try:
            self._db = self._open()
        except _ERRORS as error:
            if existed and _is_damage(error, path):
                self._set_aside(str(error))
            elif existed or not path.parent.is_dir() or _is_taken(error):
                raise StoreError(_advice(path, error)) from None
            else:
                self._log(f"{path}: cannot be made yet: {error}")
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None

    def rows(self) -> Iterator[list[Row]]:
        """Every record, in the order of the keys. Where the database turns out to be damaged, goes on with what of
        it can be read.
        """
        last: bytes | None = None
        while self._db is not None:
            try:
                cursor = self._db.execute("SELECT key, value FROM record WHERE key > ?1 ORDER BY key", (last or b"",))
                while rows := cursor.fetchmany(ROWS):
                    last = rows[-1][0]
                    yield rows
                return
            except _ERRORS as error:
                if _is_taken(error):
                    raise StoreError(_advice(self.path, error)) from None
                self._set_aside(str(error))

    def apply(self, batch: bytes) -> None:
        """Puts and deletes what a batch says, all or nothing, and waits until it is on the disk. sqlite3.Error when
        it could not be done; it may be tried again.
        """
        if self._db is None:
            self._db = self._open()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(_PUT, (batch,))
            self._db.execute(_DELETE, (batch,))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):  # a full disk: the log of changes stays, and is read next time
                self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # what SQLite puts beside it gets the same mode
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute(f"PRAGMA cache_size = -{CACHE}")
            if self._max_pages:
                db.execute(f"PRAGMA max_page_count = {self._max_pages}")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                raise sqlite3.DatabaseError(f"written by another version of the gateway (format {version})")
            db.execute("CREATE TABLE IF NOT EXISTS record (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            if version == 0:
                db.execute(f"PRAGMA user_version = {FORMAT}")
            for statement in _DELETION:
                db.execute(statement)
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, why: str) -> None:
        """Renames the database, begins a new one, and fills it with what can be read of the old one."""
        self.close()
        aside = _unused(self.path, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        for end in ("", *OTHERS):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self.path}{end}", f"{aside}{end}")
        count = 0
        try:
            self._db = self._open()
            self._db.execute("BEGIN")
            for rows in _readable(aside):
                self._db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?)", rows)
                count += len(rows)
            self._db.execute("COMMIT")
        except _ERRORS as error:
            self.close()
            self._log(f"{aside}: what can be read of it could not be taken over: {error}")
            return
        self._log(f"{self.path} is damaged ({why}): set aside as {aside.name}; {count} records of it could be read")


def _unused(path: Path, stamp: str) -> Path:
    """A name for a database that is set aside."""
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    return aside


def _is_taken(error: Exception) -> bool:
    """Whether somebody else has the database."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _is_damage(error: Exception, path: Path) -> bool:
    """Whether it is the content of the file that is wrong, and not what is around it."""
    around = ("BUSY", "LOCKED", "CANTOPEN", "IOERR", "FULL", "PERM", "AUTH", "NOMEM")
    name = getattr(error, "sqlite_errorname", "")
    return not name.startswith(tuple(f"SQLITE_{word}" for word in around)) and os.access(path, os.R_OK | os.W_OK)


def _advice(path: Path, error: Exception) -> str:
    if _is_taken(error):
        return f"{path}: another peanutd uses it; end that one, or name another path in [store]"
    return f"{path}: {error}; see to the file, or name another path in [store]"


def _readable(path: Path) -> Iterator[list[Row]]:
    """What can be read of a damaged database, which stays as it is, in no order."""
    for mode in ("mode=ro", "immutable=1"):  # the second without its -wal, when that is what is damaged
        with contextlib.suppress(*_ERRORS), contextlib.closing(_reader(path, mode)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            yield from _around_damage(db)
            return


def _reader(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
    db.execute("PRAGMA writable_schema = ON")  # also a file that is shorter than it says is read
    return db


def _around_damage(db: sqlite3.Connection) -> Iterator[list[Row]]:
    """Reads from both ends of the keys towards the middle, until either meets something that cannot be read; then from
    the middle of what is left, TRIES times.
    """
    gaps = deque([(b"", b"\xff" * (KEY_HEAD + 1))])
    for _ in range(TRIES):
        if not gaps:
            break
        low, high = gaps.popleft()
        forth = _read(db, "key > ?1 AND key < ?2 ORDER BY key", low, high)
        if forth.rows:
            yield forth.rows
        if forth.whole:
            continue
        low = forth.last or low
        back = _read(db, "key > ?1 AND key < ?2 ORDER BY key DESC", low, high)
        if back.rows:
            yield back.rows
        high = back.last or high
        middle = (_number(low) + _number(high)) // 2
        if not back.whole and middle > _number(low):
            between = middle.to_bytes(KEY_HEAD, "big")
            gaps += [(low, between + b"\0"), (between, high)]


class _Part(NamedTuple):
    rows: list[Row]
    last: bytes | None
    whole: bool
    """Nothing stood in the way."""


def _read(db: sqlite3.Connection, where: str, low: bytes, high: bytes) -> _Part:
    rows: list[Row] = []
    last: bytes | None = None
    try:
        for key, value in db.execute(f"SELECT key, value FROM record WHERE {where}", (low, high)):
            if isinstance(key, bytes) and isinstance(value, bytes) and low < key < high:
                rows.append((key, value))
                last = key
    except _ERRORS:
        return _Part(rows, last, False)
    return _Part(rows, last, True)


def _number(key: bytes) -> int:
    return int.from_bytes(key[:KEY_HEAD].ljust(KEY_HEAD, b"\0"), "big")
