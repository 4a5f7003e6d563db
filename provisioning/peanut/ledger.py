"""The ledger: one SQLite row a device; whoever runs the fleet asks it who is enrolled.

Rule: agreement 1 of the house's README names the columns; `PRAGMA user_version` counts MIGRATIONS, which only grow.
The truth about a certificate is the certificate: the ledger can be rebuilt from the device bundles.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from peanut.errors import PeanutError
from peanut.home import SECRET

BUSY_S = 5.0  # how long to wait for another writer

MIGRATIONS = (
    """
    CREATE TABLE device(
        name       TEXT    NOT NULL PRIMARY KEY,
        kind       TEXT    NOT NULL CHECK (kind IN ('greenhouse', 'vehicle')),
        board      TEXT    NOT NULL,
        serial     TEXT    NOT NULL UNIQUE,   -- the certificate's serial number, hexadecimal, lower case
        not_before INTEGER NOT NULL,          -- Unix seconds, as are the next two
        not_after  INTEGER NOT NULL,
        created    INTEGER NOT NULL
    )
    """,
)


@dataclass(frozen=True)
class Device:
    """One row. serial: hexadecimal, lower case; the times are Unix seconds; created: when it was first enrolled."""

    name: str
    kind: str
    board: str
    serial: str
    not_before: int
    not_after: int
    created: int


_COLUMNS = ", ".join(f.name for f in fields(Device))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The ledger, made or migrated if need be; one transaction, committed at the end unless an error passes through."""
    try:
        if not path.exists():
            # SQLite gives its side files (-wal, -shm) the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, SECRET))
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            _migrate(connection, path)
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()  # rolls back what is not committed
    except sqlite3.Error as error:
        raise PeanutError(
            f"the ledger {path} does not work: {error}",
            "Move it away (with its -wal and -shm files) and run `peanut init`: it is made anew from devices/.",
        ) from None


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise PeanutError(f"the ledger {path} was written by a newer `peanut`", "Install that version here as well.")
    if version == len(MIGRATIONS):
        return
    for statement in MIGRATIONS[version:]:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def put(connection: sqlite3.Connection, device: Device) -> None:
    """Insert or replace the row of this name."""
    marks = ", ".join("?" for _ in fields(Device))
    connection.execute(f"INSERT OR REPLACE INTO device({_COLUMNS}) VALUES ({marks})", astuple(device))


def devices(path: Path) -> list[Device]:
    """All rows by name; none if there is no ledger yet. Makes no file."""
    if not path.exists():
        return []
    with opened(path) as connection:
        return [Device(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM device ORDER BY name")]


def device(path: Path, name: str) -> Device | None:
    """The row of one name. Makes no file."""
    return next((d for d in devices(path) if d.name == name), None)
