"""Alerts: raised once, acknowledged by a person, cleared when it is over; and all of it after a restart too."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from peanutd import alert_rules, alerts, readings
from peanutd.alerts import LOOK, NODES, Alert, Alerts
from peanutd.ear import Report
from peanutd.judges import Node
from peanutd.log import Log
from peanutd.recorder import Said

NOW = 1_763_740_800.0
RULES = """
[[rule]]
id = "cold"
what = "threshold"
below = 5
severity = "critical"
[[rule]]
id = "silent"
what = "silence"
for_s = 600
[[rule]]
id = "node"
what = "event"
[[tell]]
name = "hook"
webhook = "http://127.0.0.1:9/"
[[tell]]
name = "push"
push = true
"""


class Bench:
    def __init__(self, home: Path, rules: str = RULES) -> None:
        self.home = home
        (home / "alerts.toml").write_text(rules)
        self.now = NOW
        self.log = io.StringIO()
        self.told: list[Alert] = []
        self.nodes: Sequence[Node] = [Node("peanut", "/plant/peanut"), Node("walnut", "/plant/walnut")]
        self.alerts = self.open()

    def open(self) -> Alerts:
        self.alerts = Alerts(
            self.home,
            Log("debug", self.log),
            lambda: self.nodes,
            alert_rules.load(self.home),
            self.now,
            told=self.told.append,
        )
        return self.alerts

    def report(self, leaf: str, said: dict[str, Any], name: str = "peanut") -> None:
        self.now += 1
        report = Report(f"/plant/{name}", leaf, json.dumps(said).encode(), False)
        found = tuple(readings.of(report, said, self.now, Counter()))
        self.alerts.hear(Said(report, said, found, readings.event(report, said, self.now)), self.now)

    def warm(self, value: float, name: str = "peanut") -> None:
        self.report("telemetry", {"ts": int(self.now) + 1, "readings": {"temperature": [value, "ok", 0]}}, name)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.alerts.tick(self.now)

    def all(self, **more: Any) -> list[tuple[str, str, str]]:
        return [(a.rule, a.device, a.state) for a in self.alerts.alerts(limit=100, **more)]

    def notices(self) -> list[tuple[int, str, str, str]]:
        return list(self.alerts._db.execute("SELECT alert, happened, way, target FROM notice ORDER BY id"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_raised_once_and_cleared_when_it_is_over(bench: Bench) -> None:
    bench.warm(4.0)
    bench.warm(3.0)
    assert bench.all() == [("cold", "peanut", "raised")]
    bench.warm(8.0)
    bench.warm(9.0)
    assert bench.all() == [("cold", "peanut", "cleared")]
    bench.warm(4.0)
    assert bench.all() == [("cold", "peanut", "raised"), ("cold", "peanut", "cleared")]
    assert [alert.state for alert in bench.told] == ["raised", "cleared", "raised"]
    first = bench.told[0]
    assert (first.severity, first.text, first.value, first.raised) == (
        *("critical", "temperature is 4, below 5", 4.0, NOW + 1),
    )


def test_a_person_acknowledges_it_and_the_first_one_counts(bench: Bench) -> None:
    bench.warm(4.0)
    number = bench.told[0].id
    found = bench.alerts.acknowledge(number, "user/maria", "I am on my way", bench.now)
    assert found is not None
    assert found.as_json()["acknowledged"] == {"by": "user/maria", "ts": bench.now, "note": "I am on my way"}
    again = bench.alerts.acknowledge(number, "user/tom", "", bench.now + 1)
    assert again == found
    assert bench.all(state="acknowledged") == [("cold", "peanut", "acknowledged")]
    assert bench.all(state="raised") == []
    bench.warm(9.0)
    assert bench.all(state="cleared") == [("cold", "peanut", "cleared")]
    assert bench.alerts.acknowledge(99, "user/tom", "", bench.now) is None


def test_what_was_open_is_open_after_a_restart_and_nobody_is_told_twice(bench: Bench) -> None:
    bench.warm(4.0)
    bench.alerts.close()
    bench.open()
    bench.warm(4.0)
    assert bench.all() == [("cold", "peanut", "raised")]
    assert len(bench.notices()) == 1
    bench.warm(9.0)
    assert bench.all() == [("cold", "peanut", "cleared")]


def test_several_things_that_a_node_says_are_several_alerts(bench: Bench) -> None:
    for name in ("frost", "tank", "frost"):
        bench.report("event", {"id": name, "text": name, "clear": False})
    assert len(bench.all(state="raised")) == 2
    bench.report("event", {"id": "tank", "text": "", "clear": True})
    assert [alert.text for alert in bench.alerts.alerts(state="raised", limit=9)] == ["frost"]


def test_silence_of_each_node_and_when_it_is_over(bench: Bench) -> None:
    bench.wait(LOOK)
    bench.warm(20.0, "walnut")
    bench.wait(601)
    assert sorted(bench.all()) == [("silent", "peanut", "raised"), ("silent", "walnut", "raised")]
    bench.warm(20.0, "walnut")
    assert bench.all(devices=["walnut"]) == [("silent", "walnut", "cleared")]


def test_a_node_that_is_no_more_has_no_alerts(bench: Bench) -> None:
    bench.warm(4.0)
    bench.nodes = []  # a ledger that cannot be read says nothing of anybody
    bench.wait(NODES + LOOK)
    assert bench.all() == [("cold", "peanut", "raised")]
    bench.nodes = [Node("walnut", "/plant/walnut")]
    bench.wait(NODES + LOOK)
    assert bench.all() == [("cold", "peanut", "cleared")]


def test_new_rules_are_taken_and_bad_ones_are_not(bench: Bench) -> None:
    def write(text: str) -> None:
        path = bench.home / "alerts.toml"
        path.write_text(text)
        bench.now += 1
        os.utime(path, (bench.now, bench.now))
        bench.wait(LOOK)

    bench.warm(7.0)
    assert bench.all() == []
    write(RULES.replace("below = 5", "below = 8"))
    bench.warm(7.0)
    assert bench.all() == [("cold", "peanut", "raised")]
    write("[[rule]]\nwhat = 'nothing'")
    assert "alerts.toml:2: [[rule]] 1 what: must be one of" in bench.log.getvalue()
    bench.warm(7.0)
    assert bench.all() == [("cold", "peanut", "raised")]
    write("")  # no rules at all
    bench.wait(NODES + LOOK)
    assert bench.all() == [("cold", "peanut", "cleared")]


def test_who_is_to_be_told_is_put_down_with_it(bench: Bench) -> None:
    number = bench.alerts.subscribe("maria", "sign-in", "https://fcm.googleapis.com/1", "p", "a", NOW)
    bench.warm(4.0)
    bench.warm(9.0)
    assert bench.notices() == [
        (1, happened, way, target)
        for happened in ("raised", "cleared")
        for way, target in (("hook", ""), ("push", number))
    ]


def test_a_browser_is_subscribed_once_and_only_its_user_ends_that(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MAX_SUBSCRIPTIONS", 2)

    def count() -> int:
        return int(bench.alerts._db.execute("SELECT count(*) FROM subscription").fetchone()[0])

    first = bench.alerts.subscribe("maria", "sign-in", "https://a/1", "p", "a", NOW)
    second = bench.alerts.subscribe("maria", "sign-in", "https://a/1", "p", "a", NOW + 1)
    assert count() == 1
    assert not bench.alerts.unsubscribe("maria", first)
    assert not bench.alerts.unsubscribe("tom", second)
    for number in (2, 3):
        bench.alerts.subscribe("maria", "sign-in", f"https://a/{number}", "p", "a", NOW + number)
    assert count() == 2, "the oldest has gone"
    assert not bench.alerts.unsubscribe("maria", second)


def test_browsers_of_a_gateway_from_before_they_had_a_sign_in_are_told_on(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "alerts.db")) as old:
        old.execute(
            "CREATE TABLE subscription (id TEXT PRIMARY KEY, user TEXT NOT NULL, endpoint TEXT NOT NULL UNIQUE, "
            "p256dh TEXT NOT NULL, auth TEXT NOT NULL, made REAL NOT NULL)"
        )
        old.execute("INSERT INTO subscription VALUES ('1', 'maria', 'https://a/1', 'p', 'a', 7)")
        old.execute("PRAGMA user_version = 1")
        old.commit()
    for _ in range(2):
        with contextlib.closing(alerts.connect(tmp_path / "alerts.db")) as db:
            assert db.execute("SELECT user, sign_in FROM subscription").fetchall() == [("maria", "")]


def test_pages_and_what_is_old(bench: Bench) -> None:
    for _ in range(3):
        bench.warm(4.0)
        bench.warm(9.0)
    newest = bench.alerts.alerts(limit=2)
    assert [alert.id for alert in newest] == [3, 2]
    assert [alert.id for alert in bench.alerts.alerts(limit=2, before=2)] == [1]
    bench.wait(alerts.KEEP + 60)
    bench.wait(NODES + LOOK)
    assert [alert.rule for alert in bench.alerts.alerts(limit=9)] == ["silent", "silent"]


def test_nobody_else_can_read_it_and_nothing_odd_gets_into_it(bench: Bench) -> None:
    bench.report("event", {"id": "x", "text": "two\nlines", "clear": False})
    assert bench.told[0].text == "two\\nlines"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in bench.home.glob("alerts.db*")}
    assert modes == {0o600}
