"""The ledger: columns of agreement 1, migrations, damage."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from peanut import ledger
from peanut.errors import PeanutError

ROW = ledger.Device("peanut", "greenhouse", "sim", "ab12", 1, 2, 3)


def test_columns_and_journal_as_agreed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with ledger.opened(path) as connection:
        ledger.put(connection, ROW)
    with sqlite3.connect(path) as other:
        rows = other.execute("SELECT name, kind, board, serial, not_before, not_after, created FROM device").fetchall()
        assert rows == [("peanut", "greenhouse", "sim", "ab12", 1, 2, 3)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("PRAGMA user_version").fetchone() == (len(ledger.MIGRATIONS),)
    other.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_put_replaces_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with ledger.opened(path) as connection:
        ledger.put(connection, ROW)
        ledger.put(connection, replace(ROW, serial="cd34"))
    assert ledger.devices(path) == [replace(ROW, serial="cd34")]
    assert ledger.device(path, "peanut") == replace(ROW, serial="cd34")
    assert ledger.device(path, "tomato") is None


def test_an_error_rolls_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with ledger.opened(path):
        pass

    def fail() -> None:
        with ledger.opened(path) as connection:
            ledger.put(connection, ROW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert ledger.devices(path) == []


def test_reading_makes_no_file(tmp_path: Path) -> None:
    assert ledger.devices(tmp_path / "ledger.db") == []
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(PeanutError, match="newer"):
        ledger.devices(path)


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(PeanutError, match="does not work"):
        ledger.devices(tmp_path / "ledger.db")


def test_a_kind_that_is_none_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(PeanutError, match="CHECK"), ledger.opened(tmp_path / "ledger.db") as connection:
        ledger.put(connection, replace(ROW, kind="boat"))
