"""The drivers and sensing on byte-level fakes, on both interpreters (driver_checks.py), and hypothesis on sensing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.fleet import find_micropython
from tools.fleet.node import HEAP

from .conftest import ROOT, MakeNode, on_the_unix_port

sys.path.insert(0, str(Path(__file__).parent))  # driver_checks imports fakes as MicroPython finds it: beside itself

import driver_checks
import fakes

from drivers import opening  # isort: skip
from node import sensing, ticks  # isort: skip


@pytest.mark.parametrize(("name", "check"), driver_checks.checks())
def test_on_cpython(name: str, check: Callable[[], None]) -> None:
    """Each check."""
    check()


def test_the_same_checks_on_the_unix_port() -> None:
    """Every check passes on MicroPython, in a heap like the chip's."""
    assert on_the_unix_port(driver_checks.__file__, heap="160wK") == [name for name, _ in driver_checks.checks()]


READING = st.one_of(
    st.floats(-60, 60), st.floats(), st.sampled_from(["missing", "crc", "range", "stuck", float("nan"), 85.0])
)


@settings(max_examples=300, deadline=None)
@given(
    start=st.integers(0, ticks.PERIOD - 1),
    steps=st.lists(st.tuples(st.integers(1000, 20_000) | st.integers(1000, 400_000), READING), max_size=60),
)
def test_sensing_never_makes_a_reading_up(start: int, steps: list[Any]) -> None:
    """Whatever a sensor says: `ok` is within what it said lately, fresh, and moves by 3 K a minute or after a minute's
    insistence."""
    probe = sensing.Probe(True)
    now = start
    good: list[float] = []
    for ms, value in steps:
        now = ticks.add(now, ms)
        probe.feed(now, value)
        if not isinstance(value, str) and -1e9 < value < 1e9:
            good.append(value)
        shown, quality = probe.read(now)
        assert (quality == "ok") == (bool(good) and value is good[-1])
        if quality == "ok":
            assert min(good) - 1e-6 <= shown <= max(good) + 1e-6
        else:
            assert shown is None
        assert probe.read(ticks.add(now, sensing.STALE_MS + 1))[1] != "ok"
        probe.quality = quality


BOARDS = sorted(path.parent.name for path in (ROOT / "boards").glob("*/board.toml") if path.parent.name != "sim")


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_can_be_opened(name: str) -> None:
    """The tables of each board file are what the drivers want, and its outputs come up at their safe level."""
    board = tomllib.loads((ROOT / "boards" / name / "board.toml").read_text())
    machine = fakes.Machine()
    for bus in board.get("buses", {}).values():
        if bus["kind"] == "i2c":
            for table in board.get("outputs", {}).values():
                if table["driver"] == "pcf8574":
                    machine.wire(bus["sda"], bus["scl"], table["address"], fakes.Latch())
    outputs, sensors = board.get("outputs", {}), board.get("sensors", {})
    house = opening.Opening(board, 0, machine, fakes.Wire(b"", b"")).house
    for output, table in outputs.items():
        if table["driver"] == "gpio":
            on = table.get("on", 1)
            assert machine.levels[table["pin"]] == (on if table["safe"] == "on" else 1 - on), output
        house.write(output, True, 1)
    for sensor in sensors:
        assert house.read(sensor, 1) == (None, "missing")


def test_the_whole_app_on_pins(make_node: MakeNode) -> None:
    """A node.json without `simulate`: the board's drivers are installed, opened and moved, and no model is there."""
    node = make_node(
        1,
        board={
            "name": "devkit",
            "chip": "esp32",
            "buses": {"i2c": {"kind": "i2c", "sda": 21, "scl": 22, "khz": 100}},
            "led": {"pin": 2, "kind": "gpio"},
            "outputs": {
                "heater": {"driver": "gpio", "pin": 25, "safe": "off", "min_on_s": 0, "min_off_s": 0},
                "vent": {"driver": "gpio", "pin": 26, "on": 0, "safe": "off"},
            },
            "sensors": {"temperature": {"driver": "sht4x", "bus": "i2c", "address": 68, "quantity": "temperature"}},
        },
        simulate=None,
    )
    node.install()
    assert not (node.workdir / "drivers/greenhouse_model.py").exists()
    here = Path(__file__).parent
    done = subprocess.run(
        [find_micropython(), "-X", f"heapsize={HEAP}", str(here / "pins_run.py")],
        cwd=node.workdir,
        env={"MICROPYPATH": f"{node.workdir}:{here}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, 1], [1, 1], [0, 1]]


def test_a_board_that_cannot_be_opened_is_said(make_node: MakeNode) -> None:
    """This PC has no ADC: the node names the sensor and ends as one whose configuration is wrong."""
    outputs = {"heater": {"driver": "gpio", "pin": 25, "safe": "off"}, "vent": {"driver": "gpio", "pin": 26}}
    node = make_node(
        1,
        board={
            "name": "x",
            "chip": "esp32",
            "outputs": outputs,
            "sensors": {"temperature": {"driver": "soil", "pin": 34}},
        },
        simulate=None,
    )
    node.start()
    deadline = time.monotonic() + 60
    while node.running:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert node.returncode == 2
    assert "error config board.sensors.temperature: cannot be opened" in node.log
