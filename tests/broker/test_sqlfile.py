"""A SQLite file of the gateway's own: made, brought to the format of today step by step, and changed whole or not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from peanutd.sqlfile import Sync, opened, transaction

FIRST = "CREATE TABLE IF NOT EXISTS fruit (name TEXT PRIMARY KEY);"
SECOND = "ALTER TABLE fruit ADD COLUMN ripe INTEGER NOT NULL DEFAULT 1;"


def test_a_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    opened(tmp_path / "a.db", (FIRST,), "FULL").close()
    assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_file_of_any_format_becomes_one_of_today(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.db"
    if version:
        with closing(opened(path, (FIRST, SECOND)[:version], "NORMAL")) as db:
            db.execute("INSERT INTO fruit (name) VALUES ('fig')")
    for _ in range(2):  # and stays one
        with closing(opened(path, (FIRST, SECOND), "NORMAL")) as db:
            assert db.execute("SELECT * FROM fruit").fetchall() == [("fig", 1)] * (version > 0)
            assert db.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    opened(path, (FIRST,), "FULL").close()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        opened(path, (FIRST, f"{SECOND} INSERT INTO nowhere VALUES (1);"), "FULL")
    with closing(opened(path, (FIRST,), "FULL")) as db:
        assert [row[1] for row in db.execute("PRAGMA table_info (fruit)")] == ["name"]


def test_a_file_of_tomorrow_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    opened(path, (FIRST, SECOND), "FULL").close()
    with pytest.raises(sqlite3.OperationalError, match=r"another version of the gateway \(format 2\)"):
        opened(path, (FIRST,), "FULL")


@pytest.mark.parametrize(("sync", "number"), [("FULL", 2), ("NORMAL", 1)])
def test_each_connection_is_as_its_owner_wants_it(tmp_path: Path, sync: Sync, number: int) -> None:
    for _ in range(2):
        with closing(opened(tmp_path / "a.db", (FIRST,), sync, "PRAGMA foreign_keys = ON")) as db:
            told = [db.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "synchronous", "foreign_keys")]
            assert told == [("wal",), (number,), (1,)]


def test_a_second_opening_takes_no_lock_away(tmp_path: Path) -> None:
    """Locks of POSIX are the process's: any descriptor of the file that it closes gives up all of them."""
    path = tmp_path / "a.db"
    with closing(opened(path, (FIRST,), "FULL")) as db, transaction(db):
        db.execute("INSERT INTO fruit VALUES ('fig')")
        locks = Path("/proc/locks").read_text().count(f":{path.stat().st_ino} ")
        opened(path, (FIRST,), "FULL").close()
        assert Path("/proc/locks").read_text().count(f":{path.stat().st_ino} ") == locks


def test_a_change_is_whole_or_not_there(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "a.db", (FIRST,), "FULL")) as db:
        with pytest.raises(sqlite3.IntegrityError), transaction(db):
            db.executemany("INSERT INTO fruit VALUES (?)", [("plum",), ("plum",)])
        with transaction(db):
            db.execute("INSERT INTO fruit VALUES ('pear')")
        assert db.execute("SELECT name FROM fruit").fetchall() == [("pear",)]
