"""The database on its own: batches whole or not at all, a full disk, damage of every kind, and who may read it."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peanutd._core import Broker
from peanutd.keeper import RETRY, Keeper
from peanutd.log import Log
from peanutd.store import Database, StoreError
from tests.broker.house import EVERYTHING

Row = tuple[bytes, bytes]


def put(key: bytes, value: bytes) -> bytes:
    return b"P%05d%09d" % (len(key), len(value)) + key + value


def delete(key: bytes) -> bytes:
    return b"D%05d%09d" % (len(key), 0) + key


def delete_run(first: bytes, last: bytes) -> bytes:
    return b"D" + put(first, last)[1:]


def nothing(key: bytes, value: bytes) -> bytes:
    return b"-" + put(key, value)[1:]


def rows(database: Database) -> list[Row]:
    return [row for part in database.rows() for row in part]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_store(tmp_path: Path, said: list[str]) -> Iterator[Any]:
    """Opens the database of this test; closes it in the end."""
    found: list[Database] = []

    def run(name: str = "store.db", **more: int) -> Database:
        found.append(Database(tmp_path / name, said.append, **more))
        return found[-1]

    yield run
    for database in found:
        database.close()


def filled(open_store: Any, count: int = 2000) -> tuple[Path, list[Row]]:
    """A database with `count` records, closed."""
    wanted = [(b"\6" + n.to_bytes(16, "big"), b"value %d " % n * 20) for n in range(count)]
    database = open_store()
    database.apply(b"".join(put(*row) for row in wanted))
    database.close()
    return database.path, wanted


def test_what_was_put_is_there_and_what_was_deleted_is_not(open_store: Any, said: list[str]) -> None:
    database = open_store()
    database.apply(put(b"\2b", b"1") + put(b"\1a", b"") + nothing(b"\1x", b"3") + put(b"\xff\0'", b"\0\xff"))
    database.apply(delete(b"\1a") + put(b"\2b", b"2") + delete(b"\1never"))
    database.close()
    assert rows(open_store()) == [(b"\2b", b"2"), (b"\xff\0'", b"\0\xff")]
    assert said == []


def test_a_run_is_deleted_with_both_its_ends_and_nothing_beside_it(open_store: Any) -> None:
    database = open_store()
    keys = [b"\6" + number.to_bytes(16) for number in range(600)]
    database.apply(b"".join(put(key, b"x") for key in keys) + put(b"\1", b"") + put(b"\7", b""))
    database.apply(
        delete_run(keys[5], keys[5]) + put(keys[0], b"y") + delete_run(keys[250], keys[520]) + delete(keys[590])
    )
    wanted = [key for number, key in enumerate(keys) if number != 5 and not 250 <= number <= 520 and number != 590]
    assert [key for key, _ in rows(database)] == [b"\1", *wanted, b"\7"]
    assert dict(rows(database))[keys[0]] == b"y"


def test_records_of_any_size_and_content(open_store: Any) -> None:
    """Against a dictionary: random keys and values, lengths around those of pages and digits."""
    chosen = random.Random(1)
    wanted: dict[bytes, bytes] = {}
    database = open_store()
    for _ in range(30):
        keys = {chosen.randbytes(chosen.choice([1, 9, 17, 300, 65_544])) for _ in range(chosen.randrange(20))}
        gone = set(chosen.sample(sorted(wanted), min(len(wanted), 3))) - keys
        batch = []
        for key in keys:
            wanted[key] = chosen.randbytes(chosen.choice([0, 1, 9, 10, 99, 100, 4096, 100_000]))
            batch.append(put(key, wanted[key]))
        for key in gone:
            del wanted[key]
            batch.append(delete(key))
        chosen.shuffle(batch)
        if batch:
            database.apply(b"".join(batch))
    assert rows(database) == sorted(wanted.items())


def test_only_its_owner_may_read_it(open_store: Any, tmp_path: Path) -> None:
    database = open_store()
    database.apply(put(b"a", b"1"))
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_one_gateway_at_a_time(open_store: Any) -> None:
    open_store().apply(put(b"a", b"1"))
    with pytest.raises(StoreError, match="another peanutd uses it"):
        open_store()


def test_a_directory_that_is_not_there(open_store: Any) -> None:
    with pytest.raises(StoreError, match=r"no/store\.db"):
        open_store("no/store.db")


def test_a_full_disk_keeps_a_batch_whole_or_not_at_all(open_store: Any) -> None:
    database = open_store(max_pages=20)
    database.apply(put(b"a", b"1"))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.apply(put(b"a", b"2") + put(b"b", bytes(200_000)))
    assert rows(database) == [(b"a", b"1")]
    database.apply(put(b"c", b"3") + delete(b"a"))
    assert rows(database) == [(b"c", b"3")]


# --- damage ---------------------------------------------------------------------------------------------------------


def aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("store.db.damaged-*[0-9Z]"))


@pytest.mark.parametrize("text", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000], ids=len)
def test_what_is_no_database_is_set_aside_as_it_is(open_store: Any, said: list[str], text: bytes) -> None:
    path, _ = filled(open_store)
    path.write_bytes(text)
    database = open_store()
    assert rows(database) == []
    database.apply(put(b"a", b"1"))
    (old,) = aside(path)
    assert old.read_bytes() == text
    assert len(said) == 1
    assert "damaged" in said[0]
    assert old.name in said[0]


def test_a_page_that_is_damaged_costs_what_was_on_it(open_store: Any, said: list[str]) -> None:
    """Or, of the few that lead to others, what it led to."""
    path, wanted = filled(open_store)
    healthy = path.read_bytes()
    page = 4096
    for number in range(2, len(healthy) // page, 5):
        path.write_bytes(healthy[: number * page] + b"\xa5" * page + healthy[(number + 1) * page :])
        database = open_store()
        found = rows(database)
        database.close()
        assert set(found) <= set(wanted), f"page {number}"
        assert len(found) > len(wanted) * 0.8 or number < 4, f"page {number}: {len(found)} of {len(wanted)}"
        assert [key for key, _ in found] == sorted({key for key, _ in found})
        again = open_store()
        assert rows(again) == found  # and that is what the new one has
        again.close()
        (old,) = aside(path)
        old.unlink()
    assert len(said) >= 20


def test_a_file_that_ends_too_early(open_store: Any, said: list[str]) -> None:
    path, wanted = filled(open_store)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // 4096 * 4096)
    found = rows(open_store())
    assert set(found) <= set(wanted)
    assert len(found) > 100
    assert len(aside(path)) == 1
    assert "could be read" in said[0]


def test_random_damage_never_keeps_it_from_opening(open_store: Any) -> None:
    path, wanted = filled(open_store, 300)
    healthy = path.read_bytes()
    for seed in range(30):
        chosen = random.Random(seed)
        damaged = bytearray(healthy)
        for _ in range(chosen.choice([1, 10, 500])):
            damaged[chosen.randrange(len(damaged))] ^= chosen.randrange(1, 256)
        path.write_bytes(damaged)
        database = open_store()
        rows(database)
        database.apply(put(b"a", b"1"))
        assert (b"a", b"1") in rows(database), f"seed {seed}"
        database.close()
    assert len(wanted) == 300


def test_what_a_newer_gateway_wrote_is_set_aside(open_store: Any, said: list[str]) -> None:
    path, _ = filled(open_store)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    database = open_store()
    assert "another version" in said[0]
    database.apply(put(b"a", b"1"))
    assert len(aside(path)) == 1


def test_two_in_one_second_are_set_aside_under_two_names(open_store: Any) -> None:
    path, _ = filled(open_store)
    for _ in range(3):
        path.write_bytes(b"no database" * 1000)
        open_store().close()
    assert len(aside(path)) == 3


# --- the keeper -----------------------------------------------------------------------------------------------------


class Loop:
    """A loop that runs what it was given when it is told to, and waits for the writer's thread."""

    def __init__(self) -> None:
        import queue

        self.calls: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.later: list[tuple[float, Any]] = []

    def call_soon_threadsafe(self, callback: Any, *args: object) -> None:
        self.calls.put((callback, *args))

    def call_later(self, delay: float, callback: Any) -> None:
        self.later.append((delay, callback))

    def step(self) -> None:
        """Waits for the thread to say something."""
        callback, *args = self.calls.get(timeout=60)
        callback(*args)


class Lines:
    """What a log writes to."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str, /) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


class Desk:
    """A keeper with all that it needs, and the time in its own hands."""

    def __init__(self, database: Database, *, waits: bool = True) -> None:
        self.broker = Broker(seed=b"a fixed seed")
        self.broker.set_rules(0, EVERYTHING)
        self.loop, self.lines, self.now, self.wall = Loop(), Lines(), 1000, 1_800_000_000.0
        self.commits: list[float] = []
        self.keeper = Keeper(
            self.broker,
            database,
            Log("info", self.lines),
            self.loop,
            self._run,
            waits=waits,
            now=lambda: self.now,
            took=self.commits.append,
            wall=lambda: self.wall,
        )
        self.keeper.restore()

    def _run(self, events: Iterable[Any]) -> None:
        assert list(events) == []

    def retain(self, topic: str, payload: bytes = b"x") -> None:
        self.broker.publish(topic, payload, retain=True, now=self.now)


def test_what_gathers_while_a_batch_is_written_goes_together(open_store: Any) -> None:
    desk = Desk(open_store())
    for n in range(100):
        desk.retain(f"t/{n}")
        desk.keeper.pump()
    desk.loop.step()
    desk.loop.step()
    assert desk.loop.calls.empty()
    assert len(desk.commits) == 2
    desk.keeper.end()
    assert len(rows(open_store())) == 100


def test_a_disk_that_fails_is_said_once_and_recovers(open_store: Any, tmp_path: Path) -> None:
    database = open_store(max_pages=20)
    desk = Desk(database)
    desk.retain("large", bytes(200_000))
    desk.keeper.pump()
    desk.loop.step()
    assert desk.keeper.failure is not None
    assert desk.broker.stats()["dropped_unkept"] == 0
    desk.retain("another")
    assert desk.broker.stats()["dropped_unkept"] == 1
    desk.loop.step()  # tried again, RETRY seconds later
    assert RETRY <= 1
    assert desk.lines.text.count("cannot be written") == 1
    assert database._db is not None
    database._db.execute("PRAGMA max_page_count = 1000000")
    while desk.keeper.failure is not None:
        desk.loop.step()
    assert "can be written again" in desk.lines.text
    desk.retain("another")
    desk.keeper.pump()
    desk.loop.step()
    desk.keeper.end()
    assert [key for key, _ in rows(open_store())] == [b"\7another", b"\7large"]


def test_a_batch_waits_a_while_where_nobody_waits_for_it(open_store: Any) -> None:
    desk = Desk(open_store(), waits=False)
    desk.retain("a")
    desk.keeper.pump()
    desk.loop.step()
    desk.retain("b")
    desk.keeper.pump()
    assert desk.loop.calls.empty()
    ((delay, resume),) = desk.loop.later
    assert delay == 0.5
    resume()
    desk.loop.step()
    assert len(desk.commits) == 2
    desk.keeper.end()


def test_the_end_writes_the_rest_and_says_when_it_cannot(open_store: Any) -> None:
    desk = Desk(open_store())
    desk.retain("a")
    desk.keeper.end()
    assert len(rows(open_store())) == 1
    desk = Desk(open_store("other.db", max_pages=20))
    desk.retain("a", bytes(200_000))
    desk.keeper.end()
    assert "not everything could be written" in desk.lines.text


def test_a_clock_that_is_set_counts_from_then_on(open_store: Any) -> None:
    desk = Desk(open_store())
    desk.wall += 1_000_000
    desk.keeper.tick()
    assert desk.keeper._offset == round(desk.wall * 1000) - desk.now
    desk.keeper.end()
