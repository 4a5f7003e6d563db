"""The history: what arrives is found again, at its own time, in every resolution, and nothing is counted twice."""

from __future__ import annotations

import contextlib
import csv
import io
import sqlite3
import stat
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peanutd import history as module
from peanutd.config import History as Settings
from peanutd.history import DAY, FIVE, HOUR, MAX_POINTS, NICE, POINTS, History, HistoryError, Point, Reader, chosen
from peanutd.readings import Event, Reading

PEANUT = "/plant/peanut"
NOW = 1_763_740_800  # the beginning of an hour


def opened(path: Path, **changes: int) -> tuple[History, Reader]:
    return History(path / "history.db", Settings(**changes), pytest.fail), Reader(path / "history.db")


def series(*pairs: tuple[int, float], name: str = "temperature") -> list[Reading]:
    return [Reading(PEANUT, name, ts, value) for ts, value in pairs]


def points(reader: Reader, step: int, start: int = NOW - 40 * DAY, end: int = NOW + DAY) -> list[Point]:
    (curve,) = reader.curves(PEANUT, ["temperature"], start, end, step)
    return list(curve.points)


@pytest.mark.parametrize("sorted_in", [False, True])
def test_what_arrives_is_found_at_its_own_time(tmp_path: Path, sorted_in: bool) -> None:
    history, reader = opened(tmp_path)
    assert history.add(series((NOW - 10, 15.5), (NOW - 20, 15.0))) == 2
    if sorted_in:
        history.sort_in(NOW)
    assert points(reader, 1) == [(NOW - 20, 15, 15, 15, 1), (NOW - 10, 15.5, 15.5, 15.5, 1)]
    assert points(reader, FIVE) == [(NOW - FIVE, 15.25, 15, 15.5, 2)]
    assert points(reader, HOUR) == [(NOW - HOUR, 15.25, 15, 15.5, 2)]
    assert points(reader, 60) == [(NOW - 60, 15.25, 15, 15.5, 2)]
    assert reader.curves(PEANUT, ["soil"], 0, NOW) == ()
    assert reader.curves("/plant/walnut", [], 0, NOW) == ()
    (span,) = reader.spans(PEANUT)
    assert (span.name, span.first, span.last) == ("temperature", NOW - HOUR if sorted_in else NOW - 20, NOW - 10)


def test_back_filled_readings_are_rolled_up_where_they_belong(tmp_path: Path) -> None:
    history, reader = opened(tmp_path)
    history.add(series((NOW - 10, 10.0)))
    history.sort_in(NOW)
    history.add(series((NOW - 2 * DAY, 2.0), (NOW - 2 * DAY + 10, 4.0), (NOW - 20, 20.0)))
    history.sort_in(NOW + FIVE)
    assert points(reader, HOUR) == [(NOW - 2 * DAY, 3, 2, 4, 2), (NOW - HOUR, 15, 10, 20, 2)]


def test_told_twice_is_told_once(tmp_path: Path) -> None:
    history, reader = opened(tmp_path)
    for _ in range(3):
        history.add(series((NOW - 10, 1.0), (NOW - 9, 3.0)))
        history.sort_in(NOW)
    assert points(reader, HOUR) == [(NOW - HOUR, 2, 1, 3, 2)]


def test_a_second_that_is_told_anew_has_its_last_value(tmp_path: Path) -> None:
    history, reader = opened(tmp_path)
    history.add(series((NOW - 10, 1.0), (NOW - 10, 2.0)))
    history.sort_in(NOW)
    history.add(series((NOW - 10, 5.0)))
    history.sort_in(NOW)
    assert points(reader, 1) == [(NOW - 10, 5, 5, 5, 1)]
    assert points(reader, FIVE) == [(NOW - FIVE, 5, 5, 5, 1)]


def test_what_is_older_than_the_raw_ones_is_added_to_what_they_have_left(tmp_path: Path) -> None:
    history, reader = opened(tmp_path, raw_days=1)
    history.add(series((NOW - DAY, 1.0), (NOW - DAY + 1, 3.0)))
    history.sort_in(NOW)
    assert history.sweep(NOW + 2 * HOUR) == 2
    assert points(reader, 1) == []
    history.add(series((NOW - DAY + 2, 8.0)))
    history.sort_in(NOW + 2 * HOUR)
    assert points(reader, 1) == []
    assert points(reader, FIVE) == points(reader, HOUR) == [(NOW - DAY, 4, 1, 8, 3)]


def test_each_resolution_has_its_time(tmp_path: Path) -> None:
    history, reader = opened(tmp_path, raw_days=1, five_minutes_days=2, hours_days=3)
    times = [NOW - days * DAY - 60 for days in range(5)]
    for ts in times:  # each when it was now
        history.add(series((ts, 1.0)))
        history.sort_in(ts)
    history.sweep(NOW)
    assert [len(points(reader, step)) for step in (1, FIVE, HOUR)] == [1, 2, 3]
    history.add(series((NOW - 4 * DAY, 1.0)))
    assert history.sort_in(NOW).too_old == 1
    assert len(points(reader, HOUR)) == 3


def test_for_ever_is_for_ever(tmp_path: Path) -> None:
    history, reader = opened(tmp_path, raw_days=0, five_minutes_days=0, hours_days=0)
    history.add(series((1_000_000_000, 1.0)))
    history.sort_in(NOW)
    assert history.sweep(NOW) == 0
    assert len(points(reader, 1, 0)) == len(points(reader, HOUR, 0)) == 1


steps_ = st.sampled_from([1, 7, 60, FIVE, 3 * FIVE, HOUR, 6 * HOUR])


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 4 * HOUR), st.integers(-50, 50)), max_size=20), min_size=1, max_size=6
    ),
    sorts=st.sets(st.integers(0, 5)),
    step=steps_,
)
def test_every_resolution_is_what_a_list_says(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]], sorts: set[int], step: int
) -> None:
    """However it comes and whenever it is sorted in. No second is told twice here: that is what the tests above are
    about."""
    history, reader = opened(tmp_path_factory.mktemp("history"))
    begin = NOW - 5 * HOUR
    model: dict[int, float] = {}
    for number, batch in enumerate(batches):
        fresh = {begin + offset: float(value) for offset, value in batch if begin + offset not in model}
        model |= fresh
        history.add(series(*fresh.items()))
        if number in sorts:
            history.sort_in(NOW)
    expected: dict[int, list[float]] = defaultdict(list)
    for ts, value in model.items():
        expected[ts - ts % step].append(value)
    found = points(reader, step) if model else []
    assert [(ts, n, low, high) for ts, _, low, high, n in found] == [
        (ts, len(values), min(values), max(values)) for ts, values in sorted(expected.items())
    ]
    assert [mean for _, mean, *_ in found] == pytest.approx(
        [sum(values) / len(values) for _, values in sorted(expected.items())]
    )


def test_steps_are_chosen_so_that_a_curve_can_be_drawn() -> None:
    assert [chosen(span) for span in (600, HOUR, DAY, 7 * DAY, 31 * DAY, 366 * DAY)] == [
        *(1, 10, FIVE, 900, HOUR, 12 * HOUR),
    ]
    assert all(span / chosen(span) <= POINTS for span in range(1, 20 * 366 * DAY, 123_457) if chosen(span) < NICE[-1])


def test_steps_that_are_asked_for_are_multiples_of_what_is_kept(tmp_path: Path) -> None:
    history, reader = opened(tmp_path)
    history.add(series((NOW, 1.0)))
    for asked, given_ in ((1, 1), (7, 7), (299, 299), (301, FIVE), (3599, 3300), (3601, HOUR), (90_000, 25 * HOUR)):
        (curve,) = reader.curves(PEANUT, ["temperature"], NOW - DAY, NOW + DAY, asked)
        assert curve.step == given_


def test_a_curve_of_too_many_points_is_cut_and_says_so(tmp_path: Path) -> None:
    history, reader = opened(tmp_path)
    history.add(series(*((NOW - second, 1.0) for second in range(MAX_POINTS + 5))))
    (curve,) = reader.curves(PEANUT, ["temperature"], NOW - DAY, NOW + 1, 1)
    assert curve.cut
    assert len(curve.points) == MAX_POINTS
    assert len(list(csv.reader(io.StringIO("".join(reader.csv(PEANUT, [], NOW - DAY, NOW + 1, 1)))))) == MAX_POINTS + 6


def test_csv(tmp_path: Path) -> None:
    history, reader = opened(tmp_path)
    history.add([*series((NOW, 15.25)), *series((NOW + 10, 0.0), (NOW, 1.0), name="heater")])
    assert "".join(reader.csv(PEANUT, [], NOW, NOW + 60, 1)).splitlines() == [
        "time,node,reading,value,least,greatest,count",
        "2025-11-21T16:00:00Z,peanut,heater,1,1,1,1",
        "2025-11-21T16:00:10Z,peanut,heater,0,0,0,1",
        "2025-11-21T16:00:00Z,peanut,temperature,15.25,15.25,15.25,1",
    ]


@pytest.mark.parametrize("step", [1, 7, FIVE, HOUR])
@pytest.mark.parametrize("sorted_in", [False, True])
def test_csv_in_many_pieces_has_what_it_has_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sorted_in: bool, step: int
) -> None:
    history, reader = opened(tmp_path)
    history.add(series(*((NOW - DAY + 97 * number, number) for number in range(900))))
    if sorted_in:
        history.sort_in(NOW)
        history.sweep(NOW + 20 * DAY)  # the raw ones are gone
    found = []
    for rows in (10**6, 13):
        monkeypatch.setattr(module, "ROWS", rows)
        found.append("".join(reader.csv(PEANUT, [], NOW - 2 * DAY + 1, NOW - HOUR - 1, step)))
    whole, pieces = found
    assert pieces == whole
    assert len(whole.splitlines()) > 13 or (sorted_in and step < FIVE)


def test_who_takes_a_csv_slowly_does_not_hold_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written meanwhile can be put in its place, so the file of what came last does not grow for ever."""
    monkeypatch.setattr(module, "ROWS", 5)
    history, reader = opened(tmp_path)
    history.add(series(*((NOW + number, 1.0) for number in range(20))))
    pieces = reader.csv(PEANUT, [], NOW, NOW + 60, 1)
    assert [next(pieces).count("\r\n") for _ in range(2)] == [1, 5]
    history.add(series((NOW + 20, 1.0)))
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as other:
        busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy
    assert sum(piece.count("\r\n") for piece in pieces) == 15 + 1, "what has come meanwhile is in it"


def test_what_has_happened(tmp_path: Path) -> None:
    history, reader = opened(tmp_path)
    frost = Event(PEANUT, NOW, "frost", "frost: below 2", False)
    for _ in range(2):
        history.add_events([frost, Event("/plant/walnut", NOW, "frost", "", False)])
    history.add_events([frost._replace(ts=NOW + 60, clear=True)])
    found = reader.events(PEANUT)
    assert [(event.ts, event.clear) for event in found] == [(NOW + 60, True), (NOW, False)]
    assert [event.ts for event in reader.events(PEANUT, before=found[0].seq)] == [NOW]
    assert len(reader.events(PEANUT, limit=1)) == 1
    history.sweep(NOW + 400 * DAY)
    assert reader.events(PEANUT) == ()


def test_no_query_reads_more_than_it_shows(tmp_path: Path) -> None:
    """Each table is gone into by its key. What has just arrived has none: it is five minutes' worth at the most."""
    history, _ = opened(tmp_path)
    history.add(series((NOW, 1.0)))
    wish = {"series": 1, "start": 0, "end": NOW, "step": 60, "most": 1}
    for step in (1, 60, FIVE, HOUR):
        _, query = module._query(step)
        plan = [row[3] for row in history._db.execute(f"EXPLAIN QUERY PLAN {query}", wish)]
        assert any("SEARCH" in line and "series=? AND ts>? AND ts<?" in line for line in plan), plan
        scanned = [line for line in plan if line.startswith("SCAN")]
        assert {line.split()[1] for line in scanned} <= {"arrived", "(subquery", "(subquery-2)", "(subquery-3)"}, plan
        assert not any("raw" in line or "five" in line or "hour" in line for line in scanned), plan


def test_one_series_too_many_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 2)
    history, reader = opened(tmp_path)
    assert history.add([reading for name in "abc" for reading in series((NOW, 1.0), name=name)]) == 2
    assert history.add(series((NOW, 1.0), name="d")) == 0
    assert [span.name for span in reader.spans(PEANUT)] == ["a", "b"]


def test_a_batch_that_fails_is_not_there_at_all(tmp_path: Path) -> None:
    history, reader = opened(tmp_path)
    with pytest.raises(sqlite3.Error):
        history.add([Reading(PEANUT, "a", NOW, 1.0), Reading(PEANUT, "b", NOW, float("nan"))])  # NaN is NULL to SQLite
    assert reader.spans(PEANUT) == ()
    assert history.add(series((NOW, 1.0))) == 1
    assert [span.name for span in reader.spans(PEANUT)] == ["temperature"]


def test_it_is_there_after_a_restart_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    history, _ = opened(tmp_path)
    history.add(series((NOW, 1.0)))
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    history.close()
    history, reader = opened(tmp_path)
    history.add(series((NOW + 1, 2.0)))
    assert len(points(reader, 1)) == 2


def test_damaged_it_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"this is no database" * 1000)
    said: list[str] = []
    history = History(path, Settings(), said.append)
    assert history.add(series((NOW, 1.0))) == 1
    (text,) = said
    (aside,) = tmp_path.glob("history.db.damaged-*")
    assert aside.name in text
    assert aside.read_bytes().startswith(b"this is no")


def test_of_another_version_it_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryError, match="another version"):
        History(path, Settings(), pytest.fail)


def test_a_reader_without_a_database_says_so(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="cannot be read"):
        Reader(tmp_path / "history.db").spans(PEANUT)
