"""The API's database, api.db in the fleet home: sign-ins, shares, passkeys, scopes, and the audit log.

The rule it keeps: one thread has the connection, so that no page waits for the disk but the one that asked; what is
said to be kept is on the disk (synchronous FULL); mode 0600.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from peanutd.sqlfile import opened, transaction

FILE_NAME: Final = "api.db"

_FIRST: Final = """
    CREATE TABLE family (
        id TEXT PRIMARY KEY, user TEXT NOT NULL, proof TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL,
        ends REAL NOT NULL, counter INTEGER NOT NULL, address TEXT NOT NULL, agent TEXT NOT NULL);
    CREATE TABLE scope (user TEXT PRIMARY KEY, groups TEXT NOT NULL);
    CREATE TABLE share (
        id INTEGER PRIMARY KEY AUTOINCREMENT, secret TEXT NOT NULL UNIQUE, pin TEXT NOT NULL, device TEXT NOT NULL,
        commands TEXT NOT NULL, starts REAL NOT NULL, ends REAL NOT NULL, note TEXT NOT NULL, by TEXT NOT NULL,
        created REAL NOT NULL, revoked REAL);
    CREATE TABLE passkey (
        id TEXT PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL, key BLOB NOT NULL, counter INTEGER NOT NULL,
        created REAL NOT NULL);
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY, ts REAL NOT NULL, who TEXT NOT NULL, address TEXT NOT NULL, agent TEXT NOT NULL,
        action TEXT NOT NULL, target TEXT NOT NULL, detail TEXT NOT NULL, outcome TEXT NOT NULL, why TEXT,
        hash TEXT NOT NULL);
    CREATE INDEX audit_who ON audit (who, seq);
    CREATE INDEX audit_target ON audit (target, seq);
    CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
    CREATE TRIGGER audit_keeps BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""

# The first had no `host` of passkeys, and no passkeys.
_SECOND: Final = "ALTER TABLE passkey ADD COLUMN host TEXT NOT NULL DEFAULT '';"

T = TypeVar("T")


class DatabaseError(Exception):
    """Why the API has no database."""


class Database:
    """Opened at once; `run` does something with it."""

    def __init__(self, home: Path) -> None:
        """DatabaseError when it cannot be used."""
        self.path = home / FILE_NAME
        self._thread = ThreadPoolExecutor(1, "api-db")
        self._connection: sqlite3.Connection = self._thread.submit(self._open).result()

    def _open(self) -> sqlite3.Connection:
        try:
            return opened(self.path, (_FIRST, _SECOND), "FULL")
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(f"{self.path}: {error}; move it away, or put it back from a backup") from None

    def now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Does something with it and waits; for the start and for tests."""
        return self._thread.submit(self._do, work).result()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Does something with it, whole or not at all."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with transaction(self._connection):
            return work(self._connection)

    def close(self) -> None:
        """After the last `run`."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()
