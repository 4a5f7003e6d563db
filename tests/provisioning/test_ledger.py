"""The ledger: columns of agreement 1, migrations, damage."""

import contextlib
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


def test_only_damage_is_to_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"garbage" * 1000)  # SQLITE_NOTADB
    for use in (ledger.devices, opening):
        with pytest.raises(PeanutError, match="is damaged") as caught:
            use(path)
        assert "Move it away" in caught.value.fix
    path.unlink()
    with ledger.opened(path) as connection:
        for n in range(200):
            ledger.put(connection, replace(ROW, name=f"n-{n}", serial=str(n)))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)  # SQLITE_CORRUPT
    path.write_bytes(data)
    with pytest.raises(PeanutError, match="is damaged") as caught:
        ledger.devices(path)
    assert "Move it away" in caught.value.fix


def opening(path: Path) -> None:
    with ledger.opened(path):
        pass


def test_a_ledger_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.db"
    opening(path)
    monkeypatch.setattr(ledger, "BUSY_S", 0.01)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # SQLITE_BUSY
        with pytest.raises(PeanutError, match="in use") as caught:
            opening(path)
        assert "Move" not in caught.value.fix
        assert ledger.devices(path) == []  # a reader does not wait for a writer


def test_a_ledger_without_room(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"

    def fill() -> None:
        with ledger.opened(path) as connection:
            connection.execute("PRAGMA max_page_count = 1")  # SQLITE_FULL
            for n in range(200):
                ledger.put(connection, replace(ROW, name=f"n-{n}", serial=str(n)))

    with pytest.raises(PeanutError, match="no room") as caught:
        fill()
    assert "Make room" in caught.value.fix
    assert ledger.devices(path) == []


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    for use in (ledger.devices, opening):
        with pytest.raises(PeanutError, match="cannot be opened") as caught:  # SQLITE_CANTOPEN
            use(tmp_path / "ledger.db")
        assert "Leave it where it is" in caught.value.fix


def test_reading_leaves_no_side_files(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with ledger.opened(path) as connection:
        ledger.put(connection, ROW)
    assert ledger.devices(path) == [ROW]
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.db"]


def test_a_kind_that_is_none_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(PeanutError, match="CHECK"), ledger.opened(tmp_path / "ledger.db") as connection:
        ledger.put(connection, replace(ROW, kind="boat"))
