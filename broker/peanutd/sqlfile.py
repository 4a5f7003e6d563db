"""A SQLite file of the gateway's own: how it is opened, and a change that is whole or not there.

The rule it keeps: mode 0600 from its first byte; a write-ahead log, so that who reads and who writes do not wait for
each other; a file of another version is refused and left as it is. Each owner says what a power failure may take.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

PATIENCE: Final = 5.0
"""Seconds that one thread waits for another, or for somebody else, to have written."""

Sync = Literal["FULL", "NORMAL"]
"""FULL: what is committed is on the disk. NORMAL: a power failure may take the last seconds, never the database."""


def opened(path: Path, steps: Sequence[str], sync: Sync, each: str = "") -> sqlite3.Connection:
    """The database; made when it is not there. `steps`: SQL that brings a file of version n to version n + 1, the first
    one an empty file; `each`: SQL for this connection. For any thread, one at a time, which begins transactions itself.
    OSError or sqlite3.Error when it cannot be used.
    """
    # Made, but never opened where it is: to close any descriptor of a file gives up all of this process's locks on it
    # (POSIX), also those of a connection that another thread has. Whoever looks at it next then takes its log away.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=PATIENCE)
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if not 0 <= version <= len(steps):
            raise sqlite3.OperationalError(f"written by another version of the gateway (format {version})")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {sync}")
        for number, step in enumerate(steps[version:], version + 1):
            db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
        db.executescript(each)
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """What is done within is done whole, or not at all when an exception leaves it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
