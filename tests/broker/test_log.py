"""The log: one line an event, whatever a peer has put into it, and no more lines than a disk can bear."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peanutd.log import LEVELS, MAX_TEXT, MAX_WAITING, Background, Flood, Log


def written(log_level: str = "info", *calls: tuple[str, dict[str, object]]) -> str:
    stream = StringIO()
    log = Log(log_level, stream, lambda: 0.0)
    for text, fields in calls:
        log.info("test", text, **fields)
    return stream.getvalue()


def test_a_line() -> None:
    line = written("info", ("connected", {"who": "plant/peanut", "tls": None, "why": "a b", "empty": "", "count": 3}))
    assert re.fullmatch(
        r'19\d\d-\d\d-\d\dT\d\d:\d\d:\d\d info  test: connected who=plant/peanut why="a b" empty="" count=3\n', line
    )


@pytest.mark.parametrize("least", LEVELS)
def test_levels(least: str) -> None:
    stream = StringIO()
    log = Log("debug", stream)
    log.set_level(least)
    for level in LEVELS:
        log.write(level, "test", level)
    assert len(stream.getvalue().splitlines()) == len(LEVELS) - LEVELS.index(least)
    with pytest.raises(ValueError, match="loud"):
        log.set_level("loud")


@given(st.text(max_size=2 * MAX_TEXT), st.text(max_size=2 * MAX_TEXT))
def test_no_text_breaks_a_line_or_speaks_to_the_terminal(text: str, value: str) -> None:
    out = written("info", (text, {"value": value}))
    assert out.endswith("\n")
    assert out[:-1].isprintable()
    assert len(out) < 100 + 2 * 12 * MAX_TEXT  # the longest escape of one character has ten


@given(st.text(alphabet='ab "=\\\n', max_size=20), st.text(alphabet='ab "=\\\n', max_size=20))
def test_no_value_can_pose_as_another_field(one: str, two: str) -> None:
    out = written("info", ("x", {"one": one, "two": two})).rstrip("\n")
    value = r'(?:[^ "=]+|"(?:[^"\\]|\\.)*")'
    assert re.fullmatch(rf".* test: x one={value} two={value}", out)


def test_a_broken_stream_does_not_stop_the_gateway() -> None:
    stream = StringIO()
    stream.close()
    Log(stream=stream).info("test", "nobody reads this")


def test_a_flood_is_counted() -> None:
    stream = StringIO()
    flood = Flood(Log("info", stream))
    for _ in range(100):
        flood.write(("denied", "plant/a"), 1.0, "info", "test", "denied")
    flood.write(("denied", "plant/b"), 1.0, "info", "test", "another")
    assert stream.getvalue().count("denied") == Flood.BURST
    assert stream.getvalue().count("another") == 1
    flood.sweep(1.0 + Flood.WINDOW - 0.1)
    assert "left out" not in stream.getvalue()
    flood.sweep(1.0 + Flood.WINDOW)
    assert stream.getvalue().count("more of the same left out what=denied who=plant/a lines=95") == 1
    flood.write(("denied", "plant/a"), 20.0, "info", "test", "denied")
    assert stream.getvalue().count("test: denied") == Flood.BURST + 1, "a new window"


def test_a_flood_of_kinds_is_counted_together() -> None:
    stream = StringIO()
    flood = Flood(Log("info", stream))
    for number in range(Flood.KINDS + 1000):
        flood.write(("denied", str(number)), 1.0, "info", "test", "denied")
    assert stream.getvalue().count("denied") == Flood.KINDS + Flood.BURST
    flood.sweep(100.0)
    assert "what=others lines=995" in stream.getvalue()


def test_a_group_has_a_bound_of_its_own() -> None:
    stream = StringIO()
    flood = Flood(Log("info", stream))
    for _ in range(Flood.GROUP_BURST):
        assert flood.admits(("connected", "operator/anna"), 1.0)
    assert not flood.admits(("connected", "operator/anna"), 1.0)
    assert flood.admits(("connected", "operator/bob"), 1.0)
    flood.sweep(1.0 + Flood.WINDOW)
    assert stream.getvalue().count("left out what=connected who=operator/anna lines=1") == 1
    assert "bob" not in stream.getvalue()


# --- the thread that writes ---


def everything(descriptor: int) -> list[str]:
    """What is read from a pipe until it is closed."""
    with os.fdopen(descriptor, encoding="utf-8") as file:
        return file.read().splitlines()


def test_lines_come_in_order_and_all_of_them() -> None:
    reading, writing = os.pipe()
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(everything(reading)))
    reader.start()
    stream = Background(writing)
    log = Log(stream=stream)
    for number in range(MAX_WAITING // 2):
        log.info("test", "ä", number=number)
    stream.end(10.0)
    os.close(writing)
    reader.join(60.0)
    assert [line.partition("number=")[2] for line in found] == [str(number) for number in range(MAX_WAITING // 2)]
    assert "test: ä" in found[0]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_that_nobody_reads_stops_nothing(blocking: bool) -> None:
    """What there is no room for is counted, and the count is written once somebody reads again."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    stream = Background(writing, limit=10)
    log = Log(stream=stream)
    text, count = "x" * 250, 2000
    begin = time.monotonic()
    for number in range(count):
        log.info("test", text, number=number)
    stream.end(0.05)
    assert time.monotonic() - begin < 30.0, "half a MiB, and a pipe takes 64 KiB"
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(everything(reading)))
    reader.start()
    stream.end(10.0)
    os.close(writing)
    reader.join(60.0)
    left_out = [int(line.rpartition("lines=")[2]) for line in found if "log: not written fast enough" in line]
    assert sum(left_out) > 1000
    assert len(found) - len(left_out) + sum(left_out) == count
    numbers = [int(line.rpartition("number=")[2]) for line in found if "number=" in line]
    assert numbers == sorted(set(numbers))


def test_at_the_limit_nothing_is_left_out_and_beyond_it_one_line() -> None:
    reading, writing = os.pipe()
    stream = Background(writing, limit=3)
    with stream._changed:  # the thread does nothing meanwhile (the lock is reentrant)
        for number in range(4):
            stream.write(f"{number}\n")
    stream.end(10.0)
    os.close(writing)
    found = everything(reading)
    assert found[:3] == ["0", "1", "2"]
    (last,) = found[3:]
    assert last.endswith("warn  log: not written fast enough, lines left out lines=1")


def test_a_pipe_whose_reader_is_gone_does_not_stop_the_gateway() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = Background(writing)
    Log(stream=stream).info("test", "nobody reads this")
    stream.end(10.0)
    assert not stream._thread.is_alive()
    os.close(writing)


@given(st.text(), st.text(), st.integers())
def test_a_line_as_json_is_one_line_and_one_object(text: str, value: str, number: int) -> None:
    """Whatever a peer sent; and no field takes the place of ours."""
    stream = StringIO()
    log = Log("info", stream, clock=lambda: 12.5, form="json")
    log.warning("server", text, who=value, count=number, nothing=None, ts="forged", level="forged")
    written = stream.getvalue()
    assert written.isascii()
    assert len(written.splitlines()) == 1
    found = json.loads(written)
    assert (found["ts"], found["level"], found["area"], found["count"]) == (12.5, "warning", "server", number)
    assert found["text"] == text[:MAX_TEXT]
    assert found["who"] == value[:MAX_TEXT]
    assert "nothing" not in found


def test_the_format_may_change() -> None:
    stream = StringIO()
    log = Log("info", stream)
    for form in ("json", "plain"):
        log.set_format(form)
        log.info("a", "b")
    first, second = stream.getvalue().splitlines()
    assert first.startswith("{")
    assert second.endswith(" info  a: b")
