"""The ledger: one SQLite row a device; whoever runs the fleet asks it who is enrolled.

Rule: agreement 1 of the house's README names the columns; `PRAGMA user_version` counts MIGRATIONS, which only grow.
The truth about a certificate is the certificate: the ledger can be rebuilt from the device bundles. Yet to move it away
is the advice for a damaged one only, and reading writes nothing.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from peanut.errors import PeanutError
from peanut.home import SECRET

OPERATOR = "operator"  # as the kind of who has a certificate and is no device
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
    # Everything that was ever issued to a device: what is revoked with it.
    """
    CREATE TABLE issued(
        serial    TEXT    NOT NULL PRIMARY KEY,
        name      TEXT    NOT NULL,
        kind      TEXT    NOT NULL,
        not_after INTEGER NOT NULL
    )
    """,
    "INSERT INTO issued SELECT serial, name, kind, not_after FROM device",
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

_DAMAGED = (
    "is damaged",
    "Move it away (with its -wal and -shm files) and run `peanut init`: it is made anew from devices/.",
)
_NO_ACCESS = (
    "cannot be opened or written",
    "Leave it where it is. Run as the owner of the fleet home, with the file system mounted writable.",
)
_BUSY = (f"is in use by another program for more than {BUSY_S:.0f} s", "Let that one finish, then try again.")

# By primary result code (sqlite.org/rescode.html): what the ledger is, and what to do.
_ADVICE = {
    sqlite3.SQLITE_FULL: ("has no room to grow", "Make room on the device that holds it, then try again."),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written",
        "Leave it where it is. Is the device that holds it full (`df`) or failing (`dmesg`)? Mend that and try again.",
    ),
    sqlite3.SQLITE_READONLY: _NO_ACCESS,
    sqlite3.SQLITE_CANTOPEN: _NO_ACCESS,
    sqlite3.SQLITE_PERM: _NO_ACCESS,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
_OTHER = ("does not work", "Leave it where it is; is this the right fleet home (--home)?")

# What reading meets where SQLite may not, or has no room to, make the side files of a database in WAL mode.
_NO_SIDE_FILES = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)


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
        raise _in_words(path, error) from None


def _primary(error: sqlite3.Error) -> int:
    # An extended result code has the primary one in its low byte; errors of the module itself have none.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _in_words(path: Path, error: sqlite3.Error) -> PeanutError:
    what, fix = _ADVICE.get(_primary(error), _OTHER)
    return PeanutError(f"the ledger {path} {what}: {error}", fix)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise PeanutError(f"the ledger {path} was written by a newer `peanut`", "Install that version here as well.")
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection, path)
    if version == len(MIGRATIONS):
        return
    for statement in MIGRATIONS[version:]:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@dataclass(frozen=True)
class Issued:
    """A certificate that somebody has or had. kind: of a device, or OPERATOR."""

    serial: str
    name: str
    kind: str
    not_after: int


def put(connection: sqlite3.Connection, device: Device) -> None:
    """Insert or replace the row of this name."""
    marks = ", ".join("?" for _ in fields(Device))
    connection.execute(f"INSERT OR REPLACE INTO device({_COLUMNS}) VALUES ({marks})", astuple(device))
    put_issued(connection, Issued(device.serial, device.name, device.kind, device.not_after))


def put_issued(connection: sqlite3.Connection, made: Issued) -> None:
    """Note a certificate, whether its owner ever has it or not."""
    connection.execute("INSERT OR IGNORE INTO issued VALUES (?, ?, ?, ?)", astuple(made))


def issued(path: Path) -> list[Issued]:
    """Everything that was ever issued to devices and operators, as far as this ledger goes back."""
    if not path.exists():
        return []
    with opened(path) as connection:
        query = "SELECT serial, name, kind, not_after FROM issued ORDER BY serial"
        return [Issued(*row) for row in connection.execute(query)]


def devices(path: Path) -> list[Device]:
    """All rows by name; none if there is no ledger yet. Works where nothing can be written; makes no ledger."""
    if not path.exists():
        return []
    try:
        rows = _select(path, "mode=rw")
    except sqlite3.Error as error:
        if _primary(error) not in _NO_SIDE_FILES or _has_log(path):
            raise _in_words(path, error) from None
        # Nothing waits in the log, so the file by itself is the ledger, and can be read as it is.
        try:
            rows = _select(path, "immutable=1")
        except sqlite3.Error as again:
            raise _in_words(path, again) from None
    if rows is not None:
        return rows
    with opened(path) as connection:  # migrates it
        return _rows(connection)


def _select(path: Path, how: str) -> list[Device] | None:
    """All rows, or None if the ledger is to be migrated first. how: query of an SQLite URI."""
    uri = f"{path.absolute().as_uri()}?{how}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)) as connection:
        return _rows(connection) if _version(connection, path) == len(MIGRATIONS) else None


def _rows(connection: sqlite3.Connection) -> list[Device]:
    return [Device(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM device ORDER BY name")]


def _has_log(path: Path) -> bool:
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except OSError:
        return False


def device(path: Path, name: str) -> Device | None:
    """The row of one name. Makes no file."""
    return next((d for d in devices(path) if d.name == name), None)
