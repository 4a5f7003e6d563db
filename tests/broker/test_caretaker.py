"""The caretaker, the metrics of certificates, and the alert rules that go with them."""

from __future__ import annotations

import io
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from peanutd import caretaker
from peanutd.caretaker import LINES_MAX, Caretaker
from peanutd.config import ConfigError, parse
from peanutd.log import Log
from tests.broker.test_operate import LISTEN, METRICS, scrape

RULES = Path(__file__).parents[2] / "broker" / "monitoring" / "certificates.rules.yml"


class Loop:
    """An asyncio loop's two calls; time passes when the test says so."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Any]] = []
        self.ran = 0

    def call_later(self, delay: float, callback: Any) -> None:
        self.later.append((delay, callback))

    def run_in_executor(self, executor: None, func: Any) -> None:
        self.ran += 1

    def turn(self) -> float:
        delay, callback = self.later.pop(0)
        callback()
        return delay


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "peanut"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def made(tmp_path: Path, command: str | None, hours: int = 6, key: bool = True) -> tuple[Caretaker, Loop, io.StringIO]:
    home, loop, out = tmp_path / "home", Loop(), io.StringIO()
    (home / "ca").mkdir(parents=True, exist_ok=True)
    if key:
        (home / caretaker.ISSUING_KEY).touch()
    return Caretaker(home, Log("info", out), loop, hours, command), loop, out


def test_it_runs_now_and_then(tmp_path: Path) -> None:
    care, loop, _ = made(tmp_path, "peanut")
    care.start()
    assert caretaker.FIRST <= loop.turn() <= caretaker.FIRST * 1.1
    assert loop.ran == 1
    assert 0.9 * 6 * 3600 <= loop.turn() <= 1.1 * 6 * 3600
    assert loop.ran == 2
    care.hours = 0
    loop.turn()
    assert loop.ran == 2
    care.hours = 1
    loop.turn()
    assert 0.9 * 3600 <= loop.later[0][0] <= 1.1 * 3600
    assert loop.ran == 3


def test_where_nothing_can_be_renewed_it_says_so(tmp_path: Path) -> None:
    for hours, key, command, said in (
        (0, True, "peanut", "renew_hours is 0"),
        (6, False, "peanut", "is elsewhere"),
        (6, True, None, "not installed"),
    ):
        care, loop, _ = made(tmp_path / str(hash(said)), command, hours, key)
        assert care.problem is not None
        assert said in care.problem
        care.start()
        loop.turn()
        assert not loop.ran
    assert made(tmp_path / "good", "peanut")[0].problem is None


def test_what_a_run_says_is_in_the_log(tmp_path: Path) -> None:
    care, _, out = made(tmp_path, script(tmp_path, 'echo "$@"; seq 100; exit 1'))
    assert care.run() == 1
    lines = out.getvalue().splitlines()
    assert f"warn  renew: --home {(tmp_path / 'home').resolve()} renew" in lines[0]
    assert len(lines) == LINES_MAX
    care, _, out = made(tmp_path, str(tmp_path / "nothing"))
    assert care.run() is None
    assert "error renew: `peanut renew` did not work" in out.getvalue()


@pytest.mark.parametrize("hours", ["-1", "169", "1.5"])
def test_the_hours_have_bounds(hours: str) -> None:
    with pytest.raises(ConfigError, match="renew_hours"):
        parse(f"[access]\nrenew_hours = {hours}\n", "gateway.toml", {})


# --- seen from outside ---


def test_days_to_the_end_of_each_certificate(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN + METRICS)
    with sqlite3.connect(fleet.home / "ledger.db") as ledger:
        ledger.execute("CREATE TABLE device(name, kind, board, serial, not_before, not_after, created)")
        ledger.execute("INSERT INTO device VALUES ('absent', 'greenhouse', 'sim', 'ab', 0, 0, 0)")
        ledger.execute("INSERT INTO device VALUES ('peanut', 'greenhouse', 'sim', 'cd', 0, 0, 0)")
    ledger.close()
    daemon = start(fleet.home)
    node = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/peanut")))
    assert node.connect("peanut")[1] == 0
    found = scrape(daemon)
    days = {re.findall('"([^"]*)"', name)[0]: value for name, value in found.items() if "certificate_days" in name}
    assert set(days) == {"plant/peanut", "plant/absent", "gateway", "CN=issuing", "CN=root"}
    assert 364 < days["plant/peanut"] < 365.1, "as it was seen, not as it was written"
    assert 89 < days["gateway"] < 90.1
    assert days["plant/absent"] < -20000
    known = {name.partition("{")[0] for name in found}
    for rule in rules():
        asked = set(re.findall(r"peanut_\w+", rule["expr"]))
        assert asked
        # a counter without any count has no sample yet
        assert asked <= known | {"peanut_handshakes_failed_total"}, rule["alert"]


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    assert set(document) == {"groups"}
    (group,) = document["groups"]
    assert set(group) == {"name", "rules"}
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_the_alert_rules_are_rules() -> None:
    """By Prometheus's documentation of rule files; a wrong one keeps it from starting."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) == 5
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Peanut[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"[0-9]+[smhdw]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r'(increase\()?peanut_[a-z_]+\{[a-z]+="[a-z]+"\}(\[1h\]\))? [<>] -?[0-9]+', rule["expr"])
