"""The monitoring side in the gateway that runs: from what a node says to a person who is told."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from tests.broker.receivers import Web

PLAIN = '[listen]\nmqtts = ""\nmqtt = "127.0.0.1:0"\n[access]\nanonymous = true\n'
PATIENCE = 40.0


def wait_until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_somebody_is_told_when_a_greenhouse_is_too_cold_and_when_it_is_over(fleet: Any, start: Any, dial: Any) -> None:
    web = Web()
    fleet.settings(PLAIN)
    (fleet.home / "alerts.toml").write_text(
        f'[[tell]]\nname = "hook"\nwebhook = "{web.url}/"\n'
        '[[rule]]\nid = "cold"\nwhat = "threshold"\nbelow = 5\n[[rule]]\nid = "node"\nwhat = "event"\n'
    )
    daemon = start(fleet.home)
    node = dial(daemon.port("mqtt"))
    assert node.connect("node")[1] == 0

    def say(leaf: str, **said: Any) -> None:
        node.publish(f"/plant/peanut/{leaf}", json.dumps(said).encode())

    def told() -> list[tuple[str, str]]:
        notices = [notice for _, _, body in web.got for notice in json.loads(body)["notices"]]
        return [(notice["happened"], notice["alert"]["text"]) for notice in notices]

    now = int(time.time())
    say("telemetry", ts=now - 1, readings={"temperature": [3.5, "ok", 0]})
    wait_until(lambda: ("raised", "temperature is 3.5, below 5") in told())
    daemon.line("warn  alerts: raised id=1 rule=cold device=peanut")
    say("telemetry", ts=now, readings={"temperature": [9, "ok", 0]})
    say("event", id="frost", text="frost: below 2", clear=False, ts=now)
    wait_until(lambda: len(told()) == 3)
    assert set(told()[1:]) == {("cleared", "temperature is 3.5, below 5"), ("raised", "frost: below 2")}
    daemon.stop()
    web.end()


def test_bad_alert_rules_are_said_before_anything_is_served(fleet: Any, start: Any) -> None:
    fleet.settings(PLAIN)
    (fleet.home / "alerts.toml").write_text("[[rule]]\nwhat = 'nothing'\n")
    from tests.broker.test_main import run

    done = run("--home", str(fleet.home), "--check")
    assert done.returncode == 2
    assert "alerts.toml:2: [[rule]] 1 what: must be one of" in done.stderr


def test_a_database_that_cannot_be_used_does_not_keep_the_gateway_from_serving(
    fleet: Any, start: Any, dial: Any
) -> None:
    fleet.settings(PLAIN)
    for name in ("history.db", "alerts.db"):
        with sqlite3.connect(fleet.home / name) as db:
            db.execute("PRAGMA user_version = 99")
    daemon = start(fleet.home)
    daemon.line("error history: nothing is kept: .*another version")
    daemon.line("error alerts: there are none: .*another version")
    assert dial(daemon.port("mqtt")).connect("node")[1] == 0
