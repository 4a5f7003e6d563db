"""From reports to readings, and the thread that writes them: what is placed where, and that nobody waits for a disk."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from peanutd import readings, recorder
from peanutd.config import History as Settings
from peanutd.ear import Report
from peanutd.history import DAY, FIVE, HOUR, History, Reader
from peanutd.log import Log
from peanutd.readings import Event, Reading
from peanutd.recorder import Recorder, Said

ROOT = "/plant/peanut"
NOW = 1_763_740_800


def report(leaf: str, said: Any, *, retained: bool = False) -> Report:
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    return Report(ROOT, leaf, payload, retained)


def telemetry(ts: int | None, tq: str = "ntp", **values: Any) -> dict[str, Any]:
    return {"ts": ts, "tq": tq, "readings": values}


def placed(heard: Report, left_out: Counter[str] | None = None) -> list[tuple[str, int, float]]:
    counts = Counter[str]() if left_out is None else left_out
    found = list(readings.of(heard, readings.body(heard), NOW, counts))
    assert {reading.root for reading in found} <= {ROOT}
    return [(reading.name, reading.ts, reading.value) for reading in found]


def test_a_reading_has_the_time_at_which_it_was_measured() -> None:
    heard = report("telemetry", telemetry(NOW - 60, temperature=[15.2, "ok", 3], soil=[40, "ok"]))
    assert placed(heard) == [("temperature", NOW - 63, 15.2), ("soil", NOW - 60, 40.0)]


def test_back_filled_readings_have_theirs() -> None:
    batch = [telemetry(NOW - 7200, "rtc", temperature=[1, "ok"]), telemetry(NOW - 3600, "rtc", temperature=[2, "ok"])]
    heard = report("telemetry", {"late": True, "batch": batch})
    assert placed(heard) == [("temperature", NOW - 7200, 1.0), ("temperature", NOW - 3600, 2.0)]


@pytest.mark.parametrize(("ts", "tq"), [(None, "none"), (NOW - 99999, "floor"), (NOW - 99999, "none")])
def test_a_live_one_of_a_node_without_a_clock_is_of_now_and_a_late_one_of_nowhere(ts: int | None, tq: str) -> None:
    record = telemetry(ts, tq, temperature=[1, "ok", 0])
    assert placed(report("telemetry", record)) == [("temperature", NOW, 1.0)]
    left_out = Counter[str]()
    assert placed(report("telemetry", {"late": True, "batch": [record]}), left_out) == []
    assert left_out == {"no time": 1}


@pytest.mark.parametrize(
    ("leaf", "said", "why"),
    [
        ("telemetry", telemetry(NOW, temperature=[1, "stale", 90]), {"quality": 1}),
        ("telemetry", telemetry(NOW, temperature=[None, "crc", 3]), {"quality": 1}),
        ("telemetry", telemetry(NOW, temperature=["1", "ok", 3]), {"malformed": 1}),
        ("telemetry", telemetry(NOW, temperature=[1e300, "ok", 3]), {"malformed": 1}),
        ("telemetry", telemetry(NOW, temperature=15), {"malformed": 1}),
        ("telemetry", telemetry(NOW, **{"Temp;erature": [1, "ok", 3]}), {"malformed": 1}),
        ("telemetry", telemetry(NOW + readings.AHEAD + 1, temperature=[1, "ok", 3]), {"ahead": 1}),
        ("telemetry", {"ts": NOW}, {"malformed": 1}),
        ("telemetry", {"late": True, "batch": [{"ts": 1}, 7, None]}, {"malformed": 1}),
        ("telemetry", {"late": True, "batch": 7}, {}),
        ("telemetry", b"\xff", {"malformed": 1}),
        ("telemetry", b"[" * 100_000, {"malformed": 1}),
        ("telemetry", b'{"ts": 1763740800, "readings": {"t": [NaN, "ok", 1]}}', {"malformed": 1}),
        ("telemetry", [], {"malformed": 1}),
        ("ack", {"ts": NOW, "state": {"setpoint": 1}}, {}),
    ],
)
def test_what_cannot_be_placed_is_left_out(leaf: str, said: Any, why: dict[str, int]) -> None:
    left_out = Counter[str]()
    assert placed(report(leaf, said), left_out) == []
    assert left_out == why


def test_a_report_of_too_many_readings_is_cut() -> None:
    values = {f"r{number}": [1, "ok", 0] for number in range(readings.MAX_NAMES + 5)}
    left_out = Counter[str]()
    assert len(placed(report("telemetry", telemetry(NOW, **values)), left_out)) == readings.MAX_NAMES
    assert left_out == {"too many": 5}


def test_set_point_and_outputs_are_readings_too() -> None:
    state = {"setpoint": 15.0, "heater": True, "vent": False, "temperature": 14.9, "mode": "auto", "faults": []}
    expected = [("setpoint", NOW - 5, 15.0), ("heater", NOW - 5, 1.0), ("vent", NOW - 5, 0.0)]
    assert placed(report("state", {**state, "ts": NOW - 5}, retained=True)) == expected
    assert placed(report("state", state, retained=True)) == []  # whenever that was


def test_health_and_presence() -> None:
    assert placed(report("health", {"rssi": -60, "cert_days": 90, "heap": [1, 2], "ts": NOW})) == [
        ("rssi", NOW, -60.0),
        ("cert_days", NOW, 90.0),
    ]
    assert placed(report("status", {"state": "online", "ts": NOW - 1})) == [("online", NOW - 1, 1.0)]
    assert placed(report("status", {"state": "offline"})) == [("online", NOW, 0.0)]  # a will knows no time
    assert placed(report("status", {"state": "offline"}, retained=True)) == []


def test_events() -> None:
    heard = report("event", {"id": "frost", "text": "frost: below 2", "clear": False, "ts": NOW - 3})
    assert readings.event(heard, readings.body(heard), NOW) == Event(ROOT, NOW - 3, "frost", "frost: below 2", False)
    for wrong in ({"id": 7}, {"id": ""}, {"id": "a", "text": 7}, []):
        heard = report("event", wrong)
        assert readings.event(heard, readings.body(heard), NOW) is None
    odd = report("event", b'{"id": "a\\ud800", "text": "two\\nlines"}')
    found = readings.event(odd, readings.body(odd), NOW)
    assert found is not None
    assert (found.id, found.text) == ("a\\ud800", "two\\nlines")
    long = report("event", {"id": "a", "text": "x" * 1000})
    found = readings.event(long, readings.body(long), NOW)
    assert found is not None
    assert (len(found.text), found.ts) == (readings.MAX_TEXT, NOW)


# --- the thread, turn by turn -----------------------------------------------------------------------------------------


class Bench:
    """A recorder whose time and turns are the test's."""

    def __init__(self, path: Path, **changes: int) -> None:
        self.now = float(NOW)
        self.log = io.StringIO()
        self.settings = Settings(**changes)
        self.history = History(path / "history.db", self.settings, pytest.fail)
        self.reader = Reader(path / "history.db")
        self.put = 0.0
        self.recorder = self.open()

    def open(self) -> Recorder:
        log = Log("debug", self.log)
        clocks = {"clock": lambda: self.now, "monotonic": lambda: self.now - self.put}
        return Recorder(log, self.settings, self.history, **clocks)

    def put_clock(self, seconds: float) -> None:
        """No time passes, and it is another one."""
        self.now += seconds
        self.put += seconds

    def say(self, *values: float) -> None:
        for value in values:
            self.now += 1
            self.recorder.hear(report("telemetry", telemetry(int(self.now), temperature=[value, "ok", 0])))

    def turn(self, seconds: float = 0) -> None:
        self.now += seconds
        self.recorder.step()

    @property
    def found(self) -> list[float]:
        curves = self.reader.curves(ROOT, [], NOW - FIVE, NOW + 100 * FIVE, 1)
        return [point.mean for curve in curves for point in curve.points]


def test_readings_are_written_by_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, batch_seconds=5)
    bench.say(1, 2, 3)
    bench.turn()
    assert bench.found == []
    bench.turn(5)
    assert bench.found == [1, 2, 3]
    assert (bench.recorder.counts.reports, bench.recorder.counts.written) == (3, 3)


def test_the_end_writes_what_there_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with bench.recorder:
        bench.say(1, 2)
    assert bench.found == [1, 2]


def test_they_are_sorted_in_when_five_minutes_are_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.say(1)
    bench.turn(10)

    def arrived() -> int:
        return int(bench.history._db.execute("SELECT count(*) FROM arrived").fetchone()[0])

    assert arrived() == 1
    bench.turn(FIVE + recorder.SETTLE)
    assert arrived() == 0
    assert bench.found == [1]


@pytest.mark.parametrize("jump", [-365 * DAY, -HOUR, HOUR, 365 * DAY])
def test_a_clock_that_is_put_stops_no_writing(tmp_path: Path, jump: int) -> None:
    bench = Bench(tmp_path)
    bench.say(1)
    bench.turn(10)
    bench.put_clock(jump)
    for value in (2, 3):
        bench.say(value)
        bench.turn(10)
    assert bench.recorder.counts.written == 3
    bench.turn(FIVE + recorder.SETTLE)
    assert bench.history._db.execute("SELECT count(*) FROM arrived").fetchone() == (0,)
    assert "the clock was put" in bench.log.getvalue()


def test_a_clock_that_is_a_year_ahead_for_a_while_costs_no_readings(tmp_path: Path) -> None:
    """Neither while the gateway runs, nor when it starts so; and after a day with that clock it is believed."""
    bench = Bench(tmp_path)
    bench.say(1)
    bench.turn(FIVE + recorder.SETTLE)
    for _ in range(2):
        bench.put_clock(365 * DAY)
        bench.turn(12 * HOUR)
        bench.put_clock(-365 * DAY)
        bench.turn(2 * HOUR)
        assert bench.found == [1]
    bench.put_clock(365 * DAY)
    bench.turn()
    bench.recorder = bench.open()
    bench.turn(HOUR - 1)
    bench.put_clock(-365 * DAY)
    bench.turn(HOUR + 1)
    assert bench.found == [1], "told the right time within an hour of the start"
    bench.put_clock(365 * DAY)
    bench.turn()
    bench.turn(recorder.DOUBT + 1)
    assert bench.found == []


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_waiting=2)
    bench.say(1, 2, 3)
    bench.turn(10)
    assert bench.found == [1, 2]
    assert bench.recorder.counts.dropped == 1


def test_a_disk_that_fails_is_tried_again_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_KEPT", 2)
    bench = Bench(tmp_path)
    add = bench.history.add

    def fails(readings: Iterable[Reading]) -> int:
        raise sqlite3.OperationalError("disk is full")

    monkeypatch.setattr(bench.history, "add", fails)
    for value in (1, 2, 3):
        bench.say(value)
        bench.turn(10)
    assert bench.log.getvalue().count("disk is full") == 1
    monkeypatch.setattr(bench.history, "add", add)
    bench.turn(10)
    assert bench.found == [1, 2]
    assert bench.recorder.counts.dropped == 1
    bench.turn(10)
    assert bench.recorder.counts.written == 2


def test_parts_are_told_of_everything_and_one_that_fails_is_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    class Part:
        def __init__(self, fails: bool) -> None:
            self.fails = fails
            self.heard: list[Said] = []
            self.ticks = 0
            self.shifted: list[float] = []

        def hear(self, said: Said, now: float) -> None:
            if self.fails:
                raise ValueError("no")
            self.heard.append(said)

        def tick(self, now: float) -> None:
            self.ticks += 1

        def shift(self, by: float) -> None:
            self.shifted.append(by)

    bad, good = Part(True), Part(False)
    bench.recorder.parts += [bad, good]
    bench.say(7)
    bench.turn()
    (said,) = good.heard
    assert said.readings == (Reading(ROOT, "temperature", NOW + 1, 7.0),)
    assert (bad.ticks, good.ticks) == (1, 1)
    bench.put_clock(-3600)
    bench.turn()
    bench.put_clock(recorder.JUMP - 1)
    bench.turn()
    assert good.shifted == [-3600], "and not of a second that somebody has corrected"
    assert "ValueError('no')" in bench.log.getvalue()


def test_what_is_asked_is_answered_from_the_thread(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    good, bad = bench.recorder.ask(lambda: 7), bench.recorder.ask(lambda: 1 // 0)
    bench.turn()
    assert good.result(0) == 7
    with pytest.raises(ZeroDivisionError):
        bad.result(0)


def test_what_nobody_waits_for_any_more_is_not_done_and_ends_nothing() -> None:
    recorder = Recorder(Log("debug", io.StringIO()), Settings())
    given_up, kept = recorder.ask(lambda: 1 / 0), recorder.ask(lambda: 7)
    assert given_up.cancel()
    recorder.step()
    assert kept.result(0) == 7


def test_the_gateway_keeps_what_its_nodes_report(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings('[listen]\nmqtts = ""\nmqtt = "127.0.0.1:0"\n[access]\nanonymous = true\n')
    daemon = start(fleet.home)
    node = dial(daemon.port("mqtt"))
    assert node.connect("node")[1] == 0
    now = int(time.time())
    for heard in (
        report("telemetry", telemetry(now, temperature=[15.2, "ok", 0])),
        report("telemetry", {"late": True, "batch": [telemetry(now - 3600, temperature=[9.5, "ok"])]}),
        report("event", {"id": "frost", "text": "frost: below 2", "clear": False, "ts": now}),
    ):
        node.publish(f"{ROOT}/{heard.leaf}", heard.payload)
    daemon.stop()
    reader = Reader(fleet.home / "history.db")
    (curve,) = reader.curves(ROOT, [], now - 7200, now + 60, 1)
    assert [(point.ts, point.mean) for point in curve.points] == [(now - 3600, 9.5), (now, 15.2)]
    assert [event.id for event in reader.events(ROOT)] == ["frost"]
