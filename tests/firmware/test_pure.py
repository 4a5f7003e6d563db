"""The pure modules: the shared checks on both interpreters, and properties that hypothesis searches to break."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.fleet import find_micropython

from . import pure_checks
from .conftest import ROOT

from node import command, config, strictjson, ticks  # isort: skip
from node.backoff import Backoff  # isort: skip
from node.control import STALE_S, TOO_HOT, Thermostat  # isort: skip
from node.limit import Bucket  # isort: skip
from drivers.greenhouse_model import Greenhouse  # isort: skip


@pytest.mark.parametrize(("name", "check"), pure_checks.checks())
def test_on_cpython(name: str, check: Callable[[], None]) -> None:
    """Each shared check."""
    check()


def test_the_same_checks_on_the_unix_port() -> None:
    """Every shared check passes on MicroPython, in a heap like the chip's."""
    here = Path(pure_checks.__file__)
    done = subprocess.run(
        [find_micropython(), "-X", "heapsize=128wK", str(here)],
        env={"MICROPYPATH": f"{ROOT / 'firmware'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [word for name, _ in pure_checks.checks() for word in ("ok", name)]


READING = st.one_of(st.none(), st.floats(), st.floats(-20, 60), st.sampled_from([float("nan"), -127.0, 85.0]))
STEP = st.tuples(
    st.one_of(st.integers(0, 30_000), st.integers(-5000, 200_000), st.just(0)),
    READING,
    st.sampled_from(["ok", "ok", "ok", "missing", "crc"]),
    st.one_of(
        st.none(),
        st.tuples(st.just("setpoint"), st.floats(2, 40)),
        st.tuples(st.just("heater_mode"), st.sampled_from(["auto", "off"])),
        st.tuples(st.just("vent_mode"), st.sampled_from(["auto", "open", "closed"])),
    ),
)


@settings(max_examples=300, deadline=None)
@given(start=st.integers(0, ticks.PERIOD - 1), steps=st.lists(STEP, max_size=80), vent_fail=st.booleans())
def test_control_invariants_at_every_step(start: int, steps: list[Any], vent_fail: bool) -> None:
    """Whatever is read, ordered and ticked, anywhere near the wrap: the five rules of authority."""
    t = Thermostat(start, 18.0, vent_fail=vent_fail)
    now = start
    silent = STALE_S * 1000 + 1  # as good as for ever, before the first reading
    last: float | None = None
    on_for = off_for = 0
    was_on = False
    for ms, value, quality, order in steps:
        if order:
            setattr(t, *order)
        now = ticks.add(now, ms)
        t.step(now, value, quality)
        passed = max(0, ms)
        good = quality == "ok" and value is not None and -100 < value < 150
        silent = 0 if good else silent + passed
        last = value if good else last
        on_for, off_for = (on_for + passed, 0) if was_on else (0, off_for + passed)
        assert not (t.heater.on and t.vent.on)
        if silent > STALE_S * 1000:
            assert not t.heater.on
        if last is not None and last > TOO_HOT:
            assert (t.heater.on, t.vent.on) == (False, True)
        if t.heater_mode == "off":
            assert not t.heater.on
        if t.heater.on and not was_on:
            assert off_for >= 180_000
        if was_on and not t.heater.on and on_for < 60_000:  # minimum on time: only what stands above it may break it
            assert silent > STALE_S * 1000 or t.vent.on or t.heater_mode == "off"
        if t.heater.on:
            assert last is not None
            assert last <= t.setpoint + t.hysteresis or on_for < 60_000
        assert t.reason
        was_on = t.heater.on


@settings(max_examples=40, deadline=None)
@given(
    setpoint=st.floats(8, 30),
    outside=st.floats(-10, 14),
    hour=st.floats(0, 23.9),
    sun=st.floats(0, 1500),
    start=st.floats(0, 40),
    first=st.integers(0, ticks.PERIOD - 1),
)
def test_band_is_held_whenever_physics_allow(
    setpoint: float, outside: float, hour: float, sun: float, start: float, first: int
) -> None:
    """From any start the house comes into the band and stays, if heater and vent have the power for it."""
    strong = outside + 9000 / 300 > setpoint + 2  # the heater alone could warm beyond the band
    cool = outside + sun / (300 + 400) < setpoint + 1  # the open vent alone could cool into it
    model = Greenhouse(first, start, outside, 0.0, hour, sun, 9000.0, 300.0, 400.0, 1.08e6)
    t = Thermostat(first, setpoint)
    now = first
    for step in range(6 * 240):
        now = ticks.add(now, 15_000)
        value, quality = model.read("temperature", now)
        t.step(now, value, quality)
        model.write("heater", t.heater.on, now)
        model.write("vent", t.vent.on, now)
        if step > 3 * 240:  # three hours to get there; 1.4 K: what is lost in the minimum off time at 40 K difference
            assert value > setpoint - 0.5 - 1.9 or not strong, t.reason
            assert value < setpoint + 0.5 + 1.0 + 0.5 or not cool, t.reason


@settings(max_examples=500)
@given(st.binary(max_size=700), st.sampled_from([command.SETPOINT, "heater", "vent", "identify", "other", ""]))
def test_no_payload_breaks_the_parser(payload: bytes, name: str) -> None:
    """Any bytes: a Command, with a reason that begins with an agreed word or a value that is in order."""
    cmd = command.parse(name, payload)
    why = cmd.why or command.check(cmd, 1000, 2.0, 40.0)
    if why is None:
        assert name != command.SETPOINT or 2 <= cmd.value <= 40
    else:
        assert why.split(":")[0].split()[0] in ("malformed", "range", "expired", "unknown", "busy")
    assert len(cmd.echo) <= command.MAX_ECHO + 3
    assert cmd.echo.isascii()
    assert cmd.echo.isprintable()


NUMBER_TEXT = st.text(alphabet="0123456789.-+eE_ naifx", max_size=12)


@settings(max_examples=1000)
@given(NUMBER_TEXT)
def test_bare_form_takes_plain_decimals_only(text: str) -> None:
    """Accepted if and only if it is -?(0|[1-9][0-9]{0,2})(.[0-9]{1,3})? , and then with its value."""
    import re

    stripped = text.strip(" \t\r\n")
    plain = re.fullmatch(r"-?(0|[1-9][0-9]{0,2})(\.[0-9]{1,3})?", text.rstrip(" \t\r\n")) is not None
    cmd = command.parse(command.SETPOINT, b"temperature:" + text.encode())
    assert (cmd.why is None) == plain
    if plain:
        assert cmd.value == pytest.approx(float(stripped), abs=0.005001)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\/é', max_size=3), inner, max_size=3),
    max_leaves=8,
)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((_depth(v) for v in inner), default=0)


@settings(max_examples=300)
@given(JSON, st.booleans())
def test_strict_json_reads_what_json_writes(value: Any, ascii_only: bool) -> None:
    """The same value as the standard library, within the stated limits of depth."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    escaped_pair = ascii_only and any(c > "\uffff" for c in json.dumps(value, ensure_ascii=False))
    if _depth(value) <= strictjson.DEPTH and not escaped_pair:
        assert strictjson.loads(text.encode()) == value


@settings(max_examples=500)
@given(JSON, st.integers(0, 200), st.sampled_from('{}[]",:0x \\e-.'))
def test_strict_json_accepts_nothing_that_json_refuses(value: Any, at: int, put: str) -> None:
    """A mutated document: whoever accepts it here, the standard library agrees with."""
    text = json.dumps(value)
    at %= len(text) + 1
    text = text[:at] + put + text[at + 1 :]
    try:
        mine = strictjson.loads(text.encode())
    except strictjson.JSONError:
        return
    assert mine == json.loads(text)


@settings(max_examples=200)
@given(st.data(), st.lists(st.tuples(st.floats(0, 200), st.booleans()), max_size=50))
def test_backoff_stays_within_its_bounds(data: Any, sessions: list[tuple[float, bool]]) -> None:
    """base <= d <= cap, growth at most threefold, the first retry after a settled session within first_s."""
    backoff = Backoff(1, 60, 10, 60, 300, lambda a, b: data.draw(st.floats(a, b)))
    previous = 1.0
    for lived, hopeless in sessions:
        delay = backoff.next(lived, hopeless)
        if lived >= 60:
            assert 0 <= delay <= 10
            previous = 1.0
        else:
            assert 1 <= delay <= min(300 if hopeless else 60, 3 * previous)
            previous = delay


@settings(max_examples=200)
@given(
    start=st.integers(0, ticks.PERIOD - 1),
    size=st.integers(1, 12),
    refill=st.integers(1, 10_000),
    gaps=st.lists(st.one_of(st.integers(0, 3000), st.integers(0, 200_000)), max_size=100),
)
def test_bucket_never_lets_more_through(start: int, size: int, refill: int, gaps: list[int]) -> None:
    """In any span at most `size` and one for each `refill_ms`; the wait it tells is enough, and needed."""
    bucket = Bucket(size, refill, start)
    taken: list[int] = []
    now = 0
    for gap in gaps:
        now += gap
        wait = bucket.take(ticks.add(start, now))
        if wait == 0:
            taken.append(now)
            continue
        assert 0 < wait <= refill
        assert bucket.take(ticks.add(start, now + wait - 1)) == 1
        now += wait
        assert bucket.take(ticks.add(start, now)) == 0
        taken.append(now)
    for i, first in enumerate(taken):
        for count, last in enumerate(taken[i:], 1):
            assert count <= size + (last - first) // refill + 1


@settings(max_examples=200)
@given(JSON)
def test_config_is_accepted_or_refused_with_words(value: Any) -> None:
    """Nothing but ConfigError comes out of a document that is not a configuration."""
    with pytest.raises(config.ConfigError):
        config.check(value)
