"""The pure modules: the shared checks on both interpreters, and properties that hypothesis searches to break."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import tries

from . import control_checks, pure_checks
from .conftest import on_the_unix_port

from node import command, config, strictjson, ticks  # isort: skip
from node.backoff import Backoff  # isort: skip
from node.limit import Bucket  # isort: skip


CHECKS = {module.__file__: module.checks() for module in (pure_checks, control_checks)}


@pytest.mark.parametrize(("name", "check"), [check for checks in CHECKS.values() for check in checks])
def test_on_cpython(name: str, check: Callable[[], None]) -> None:
    """Each shared check."""
    check()


@pytest.mark.parametrize("file", CHECKS)
def test_the_same_checks_on_the_unix_port(file: str) -> None:
    """Every shared check passes on MicroPython, in a heap like the chip's."""
    assert on_the_unix_port(file) == [name for name, _ in CHECKS[file]]


@settings(max_examples=tries(200))
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


@settings(max_examples=tries(300))
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


@settings(max_examples=tries(150))
@given(JSON, st.booleans())
def test_strict_json_reads_what_json_writes(value: Any, ascii_only: bool) -> None:
    """The same value as the standard library, within the stated limits of depth."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    escaped_pair = ascii_only and any(c > "\uffff" for c in json.dumps(value, ensure_ascii=False))
    if _depth(value) <= strictjson.DEPTH and not escaped_pair:
        assert strictjson.loads(text.encode()) == value


@settings(max_examples=tries(200))
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


@settings(max_examples=tries(100))
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


@settings(max_examples=tries(100))
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


@settings(max_examples=tries(100))
@given(JSON)
def test_config_is_accepted_or_refused_with_words(value: Any) -> None:
    """Nothing but ConfigError comes out of a document that is not a configuration."""
    with pytest.raises(config.ConfigError):
        config.check(value)
