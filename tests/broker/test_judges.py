"""The judges: what is bad, for how long it must be so, and when it is over. All by the readings' own times."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peanutd import judges, readings
from peanutd.alert_rules import Rule
from peanutd.ear import Report
from peanutd.judges import Judge, Node, Verdict, judge
from peanutd.readings import Reading
from peanutd.recorder import Said

NOW = 1_763_740_800.0
ROOT = "/plant/peanut"
NODES = {"peanut": Node("peanut", ROOT)}


def said(*values: tuple[str, float, float], leaf: str = "telemetry", **body: Any) -> Said:
    """Readings as (name, seconds after NOW, value)."""
    found = tuple(Reading(ROOT, name, int(NOW + at), value) for name, at, value in values)
    report = Report(ROOT, leaf, json.dumps(body).encode(), False)
    return Said(report, body, found, readings.event(report, body, NOW))


def verdicts(judge: Judge, *values: tuple[str, float, float]) -> list[bool]:
    """What it says of each reading in turn, told when it is measured."""
    found: list[bool] = []
    for value in values:
        found += [verdict.bad for verdict in judge.hear("peanut", said(value), NOW + value[1])]
    return found


def test_below_for_a_while_and_better_by_the_hysteresis() -> None:
    rule = Rule("a", "threshold", below=5.0, hysteresis=1.0, for_s=60)
    cold = judge(rule, NOW)
    assert verdicts(cold, ("temperature", 0, 4.9), ("temperature", 59, 4.0)) == []
    assert verdicts(cold, ("temperature", 60, 4.0)) == [True]
    assert verdicts(cold, ("temperature", 70, 5.0), ("temperature", 80, 5.9)) == []
    assert verdicts(cold, ("temperature", 90, 6.0)) == [False]
    assert verdicts(cold, ("temperature", 100, 4.9), ("temperature", 150, 5.1), ("temperature", 170, 4.9)) == []


def test_above() -> None:
    hot = judge(Rule("a", "threshold", above=30.0, hysteresis=1.0), NOW)
    values = [30.0, 30.1, 29.5, 29.0]
    found = [verdicts(hot, ("temperature", at, value)) for at, value in enumerate(values)]
    assert found == [[], [True], [], [False]]


def test_what_it_says_can_be_read() -> None:
    (found,) = judge(Rule("a", "threshold", below=5.0, for_s=0), NOW).hear("peanut", said(("temperature", 0, 3.1)), NOW)
    assert found == Verdict("peanut", True, "temperature is 3.1, below 5", 3.1)
    cold = judge(Rule("a", "threshold", below=5.0, for_s=300), NOW)
    verdicts(cold, ("temperature", 0, 3.1))
    (found,) = cold.hear("peanut", said(("temperature", 300, 3.2)), NOW + 300)
    assert found.text == "temperature is 3.2, below 5 for 5 min"


def test_back_filled_and_other_readings_are_not_judged() -> None:
    cold = judge(Rule("a", "threshold", below=5.0), NOW)
    assert list(cold.hear("peanut", said(("temperature", -judges.LATE - 1, 1.0)), NOW)) == []
    assert verdicts(cold, ("outside", 0, 1.0)) == []
    assert verdicts(cold, ("temperature", 10, 8.0)) == [False]
    assert list(cold.hear("peanut", said(("temperature", 5, 1.0)), NOW + 11)) == []


@pytest.mark.parametrize("sign", [1, -1])
def test_falls_or_rises_too_fast(sign: int) -> None:
    limit = {"fall": 3.0} if sign > 0 else {"rise": 3.0}
    rate = judge(Rule("a", "rate", within_s=600, **limit), NOW)
    values = [(at * 60, 20 - sign * 0.2 * at) for at in range(10)]  # 1.8 in ten minutes
    assert not any(verdicts(rate, *(("temperature", at, value) for at, value in values)))
    assert verdicts(rate, ("temperature", 600, 20 - sign * 3.0)) == [True]
    assert verdicts(rate, ("temperature", 660, 20 - sign * 2.5)) == []
    assert verdicts(rate, ("temperature", 1300, 20 - sign * 3.0)) == [False]


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(-40, 40)), min_size=1, max_size=80))
def test_the_rate_is_what_all_readings_of_the_window_say(steps: list[tuple[int, int]]) -> None:
    """As good as all: those that are closer together than a sixtieth of the window stand for each other."""
    rate = judge(Rule("a", "rate", fall=10.0, within_s=60), NOW)
    at, past = 0, list[tuple[int, int]]()
    for step, value in steps:
        at += step
        found = verdicts(rate, ("temperature", at, value))
        drop = max([past_value - value for when, past_value in past if when >= at - 60], default=0)
        assert found == ([True] if drop >= 10 else [False] if drop < 5 else [])
        past.append((at, value))


def test_a_heater_that_warms_nothing() -> None:
    rule = Rule("a", "heater", rise=0.5, within_s=600)
    heater = judge(rule, NOW)
    verdicts(heater, ("temperature", 0, 10.0), ("heater", 1, 1.0))
    assert verdicts(heater, ("temperature", 300, 10.1), ("temperature", 590, 10.2)) == []
    assert verdicts(heater, ("temperature", 610, 10.3)) == [True]
    assert verdicts(heater, ("heater", 620, 0.0)) == [False]
    assert verdicts(heater, ("temperature", 5000, 5.0)) == []


def test_a_heater_that_warms() -> None:
    heater = judge(Rule("a", "heater", rise=0.5, within_s=600), NOW)
    verdicts(heater, ("heater", 1, 1.0), ("temperature", 2, 10.0))
    found = verdicts(heater, *(("temperature", 60 * at, 10 + 0.1 * at) for at in range(1, 100)))
    assert found
    assert not any(found)


def test_silence() -> None:
    silence = judge(Rule("a", "silence", for_s=600), NOW)
    assert [v.bad for v in silence.tick(NODES, NOW + 600)] == []
    (found,) = silence.tick(NODES, NOW + 601)
    assert (found.device, found.bad, found.text) == ("peanut", True, "nothing heard since the gateway has begun")
    assert [v.bad for v in silence.hear("peanut", said(leaf="state"), NOW + 700)] == [False]
    assert list(silence.tick(NODES, NOW + 1300)) == []
    (found,) = silence.tick(NODES, NOW + 1301)
    assert found.text == "nothing heard for 10 min"
    assert list(silence.tick({"gateway": Node("gateway", "")}, NOW + 9999)) == []


def test_a_will_is_no_sign_of_life_and_a_sleeper_may_be_silent() -> None:
    silence = judge(Rule("a", "silence", for_s=600), NOW)
    assert list(silence.hear("peanut", said(leaf="status", state="offline"), NOW + 500)) == []
    assert len(list(silence.tick(NODES, NOW + 601))) == 1
    assert len(list(silence.hear("peanut", said(leaf="status", state="sleeping"), NOW + 602))) == 1
    assert list(silence.tick(NODES, NOW + 9999)) == []
    assert len(list(silence.hear("peanut", said(leaf="status", state="online"), NOW + 10_000))) == 1
    assert len(list(silence.tick(NODES, NOW + 20_000))) == 1


def test_a_certificate_that_ends() -> None:
    certificate = judge(Rule("a", "certificate", days=21), NOW)
    day = 86_400
    nodes = {
        name: Node(name, ROOT, None if left is None else NOW + left * day)
        for name, left in (("soon", 20), ("later", 22), ("over", -1), ("unknown", None))
    }
    found = {verdict.device: (verdict.bad, verdict.text) for verdict in certificate.tick(nodes, NOW)}
    assert found == {
        "soon": (True, "the certificate ends in 20 days"),
        "later": (False, "the certificate ends in 22 days"),
        "over": (True, "the certificate has ended"),
    }
    assert list(certificate.tick(nodes, NOW + 3599)) == []
    assert len(list(certificate.tick(nodes, NOW + 3600))) == 3


def test_what_a_node_says_itself() -> None:
    node = judge(Rule("a", "event", event="fr*"), NOW)
    (found,) = node.hear("peanut", said(leaf="event", id="frost", text="frost: below 2", clear=False), NOW)
    assert found == Verdict("peanut", True, "frost: below 2", None, "frost")
    (found,) = node.hear("peanut", said(leaf="event", id="frost", clear=True), NOW)
    assert (found.bad, found.about) == (False, "frost")
    assert list(node.hear("peanut", said(leaf="event", id="tank", text="tank"), NOW)) == []
    every = judge(Rule("a", "event"), NOW)
    assert list(every.hear("peanut", said(leaf="event", id="alone", text="alone for 40 min"), NOW)) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (90, "90 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (5400, "90 min"), (172800, "2 days")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert judges.duration(seconds) == words


@pytest.mark.parametrize("jump", [-40 * 86_400.0, 40 * 86_400.0])
def test_a_clock_that_is_put_makes_nobody_silent_and_nobody_deaf(jump: float) -> None:
    silent = judge(Rule("s", "silence", for_s=600), NOW)
    list(silent.hear("peanut", said(), NOW + 100))
    silent.shift(jump)
    assert [verdict.bad for verdict in silent.tick(NODES, NOW + jump + 650)] == []
    assert [verdict.bad for verdict in silent.tick(NODES, NOW + jump + 701)] == [True]

    for rule in (
        Rule("t", "threshold", below=5.0, for_s=60),
        Rule("r", "rate", fall=5.0, within_s=600),
        Rule("h", "heater", rise=1.0, within_s=60),
    ):
        one = judge(rule, NOW)
        verdicts(one, ("temperature", 0, 9.0), ("heater", 1, 1.0))
        one.shift(jump)
        found = verdicts(one, *((name, jump + at, value) for name, at, value in (
            ("temperature", 10, 9.0), ("heater", 11, 1.0), ("temperature", 20, 3.0), ("temperature", 90, 3.0),
        )))  # fmt: skip
        assert found[-1], rule.what

    ends = judge(Rule("c", "certificate", days=21), NOW)
    node = {"peanut": Node("peanut", ROOT, NOW + 30 * 86_400)}
    assert [verdict.bad for verdict in ends.tick(node, NOW)] == [False]
    ends.shift(jump)
    assert [verdict.bad for verdict in ends.tick(node, NOW + jump)] == [jump > 0]
