"""The greenhouse's control under sensors that lie, stick, vanish and return, and a week of weather in seconds."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import tries

from .conftest import ROOT
from .control_checks import SETTINGS, live

from node import app, blackbox, clock, command, connect, link, log  # isort: skip
from node import backlog, mqtt, recent, report, ring, sntp, ticks, vitals, wifi  # isort: skip
from node.actuator import MODES, NAMES, TIMES  # isort: skip
from node.control import (  # isort: skip
    ALARMS,
    COLDEST,
    FROST,
    FROST_OVER,
    HOTTEST,
    RISE,
    STALE_MS,
    TOO_HOT,
    TOO_HOT_OVER,
    Climate,
)
from drivers.greenhouse_model import Greenhouse  # isort: skip
from node import greenhouse as node_greenhouse, greenhouse_config  # isort: skip
from profiles import greenhouse  # isort: skip

STARTS_H = 4


class Auditor:
    """Watches a Climate from outside, with a book of its own, and asserts the rules of authority after each step."""

    def __init__(self, climate: Climate) -> None:
        self.c = climate
        self.ms = 0
        self.silent = STALE_MS  # as good as for ever, before the first reading
        self.last: float | None = None
        self.hot = False
        self.switch = False
        self.on = dict.fromkeys(NAMES, False)
        self.since = dict.fromkeys(NAMES, 0)
        self.starts: dict[str, list[int]] = {name: [] for name in NAMES}
        self.heated = 0
        self.low = math.inf

    def step(self, now: int, passed: int, readings: dict[str, Any], minute: int | None) -> None:
        modes = {o.name: o.modes[o.mode] for o in self.c.outputs}
        self.c.step(now, readings, minute)
        self.ms += passed
        value, quality = readings["temperature"][:2]
        good = quality == "ok" and value is not None and COLDEST < value < HOTTEST
        self.silent = 0 if good else self.silent + passed
        if good:
            self.last = value
            self.hot = value > TOO_HOT or (self.hot and value >= TOO_HOT_OVER)
        self.switch = readings.get("override") == (1.0, "ok")
        on = {o.name: o.on for o in self.c.outputs}
        self._authority(on, readings, {o.name: o.modes[o.mode] for o in self.c.outputs})
        for o in self.c.outputs:
            self._times(o, on, modes)
        self._effect(on["heater"], passed if self.on["heater"] else 0)
        for name in NAMES:
            if on[name] != self.on[name]:
                self.since[name] = self.ms
        self.on = on
        json.loads(report.state(self.c, None))
        assert self.c.reason

    def _authority(self, on: dict[str, bool], readings: dict[str, Any], modes: dict[str, str]) -> None:
        here = {o.name for o in self.c.outputs if o.here}
        assert not [name for name in on if on[name] and name not in here]
        if self.hot:
            assert not on["heater"]
            assert on["vent"] or "vent" not in here
        elif self.switch:
            assert not any(on.values())
        if self.silent > STALE_MS:
            assert not on["heater"]
        assert not (on["heater"] and on["vent"])
        assert not on["heater"] or on["fan"] or "fan" not in here
        assert not on["irrigation"] or "tank" not in readings or readings["tank"] == (1.0, "ok")
        forced = ("vent", "fan") if self.hot or self.c.temperature is None else ()
        for name in NAMES:
            if modes[name] in ("off", "closed") and name not in forced:
                assert not on[name]

    def _times(self, o: Any, on: dict[str, bool], modes: dict[str, str]) -> None:
        lasted = self.ms - self.since[o.name]
        least_on, least_off, most = (1000 * s for s in TIMES[NAMES.index(o.name)])
        forced = o.name in ("vent", "fan") and (self.hot or self.c.temperature is None)
        if on[o.name] and not self.on[o.name]:
            starts = self.starts[o.name]
            starts.append(self.ms)
            if not forced:
                assert lasted >= least_off
                assert len(starts) <= STARTS_H or starts[-1] - starts[-1 - STARTS_H] > 3600 * 1000 - 1000
            assert o.starts_h() <= STARTS_H or forced
        elif self.on[o.name] and not on[o.name] and lasted < least_on:  # only what stands above it may break it
            assert self.hot or self.silent > STALE_MS or self.switch or o.blocked or modes[o.name] != "auto"
        elif on[o.name] and self.on[o.name] and o.name == "irrigation":
            assert lasted < most

    def _effect(self, on: bool, passed: int) -> None:
        """Heating goes on beyond its maximum time only if it warms."""
        assert (
            self.last is None or not on or self.last <= self.c.setpoint + 0.5 or self.ms - self.since["heater"] < 60000
        )
        if self.last is None:
            return
        self.heated += passed
        self.low = min(self.low, self.last) if self.on["heater"] else self.last
        if self.last >= self.low + RISE or not on:
            self.heated = 0
            self.low = self.last
        assert self.heated < TIMES[0][2] * 1000


READING = st.one_of(
    st.none(), st.floats(), st.floats(-20, 60), st.floats(15, 21), st.sampled_from([float("nan"), -127.0, -77.0, 85.0])
)
CONTACT = st.sampled_from([(1.0, "ok"), (1.0, "ok"), (0.0, "ok"), (None, "missing")])
STEP = st.tuples(
    st.one_of(st.integers(0, 30_000), st.integers(-5000, 200_000), st.just(0)),
    READING,
    st.sampled_from(["ok", "ok", "ok", "ok", "missing", "crc", "stuck"]),
    st.one_of(
        st.none(),
        st.tuples(st.just("setpoint"), st.floats(2, 40)),
        st.sampled_from([(name, mode) for name, modes in zip(NAMES, MODES, strict=True) for mode in modes]),
        st.tuples(st.just("online"), st.booleans()),
        st.tuples(st.just("override"), CONTACT),
        st.tuples(st.just("tank"), CONTACT),
        st.tuples(st.just("minute"), st.one_of(st.none(), st.integers(0, 1439))),
    ),
    st.integers(0, 100),
)
BOARDS = st.sampled_from([NAMES, NAMES, ("heater", "vent"), ("heater",), ("vent", "fan"), ("heater", "fan"), ()])


def made(start: int, names: tuple[str, ...], **changes: Any) -> Climate:
    table = {**SETTINGS, "starts_h": STARTS_H, **changes}
    cfg = {"control": table, "board": {"outputs": {name: {} for name in names}}}
    climate: Climate = greenhouse.climate(cfg, start, 18.0, -1)
    return climate


@settings(max_examples=tries(80))
@given(
    start=st.integers(0, ticks.PERIOD - 1),
    steps=st.lists(STEP, max_size=80),
    names=BOARDS,
    vent_fail=st.sampled_from(["open", "closed"]),
    water=st.sampled_from([0, 50]),
)
def test_invariants_at_every_step(
    start: int, steps: list[Any], names: tuple[str, ...], vent_fail: str, water: int
) -> None:
    """Whatever is read, ordered and ticked, anywhere near the wrap: the rules of authority."""
    c = made(
        start,
        names,
        vent_fail=vent_fail,
        water_below=water,
        schedule="06:00 21, 20:00 16",
        light="05:00 on, 09:00 off",
        fallback=8.0,
    )
    auditor = Auditor(c)
    readings: dict[str, Any] = {}
    minute = None
    now = start
    for ms, value, quality, order, soil in steps:
        if order and order[0] == "online":
            c.online = order[1]
        elif order and order[0] == "minute":
            minute = order[1]
        elif order and order[0] in ("override", "tank"):
            readings[order[0]] = order[1]
        elif order:
            c.order(*order)
        now = ticks.add(now, ms)
        readings.update(temperature=(value, quality), soil=(float(soil), "ok"))
        auditor.step(now, max(0, ms), readings, minute)


LIES = st.sampled_from(["true", "true", "missing", "stuck", "spikes", "high", "low", "nan", "old"])


@settings(max_examples=tries(6))
@given(
    lies=st.lists(st.tuples(LIES, st.integers(1, 400)), min_size=1, max_size=20),
    outside=st.floats(-15, 20),
    start=st.integers(0, ticks.PERIOD - 1),
)
def test_a_day_with_a_sensor_that_lies(lies: list[tuple[str, int]], outside: float, start: int) -> None:
    """The same rules in a real house; and a reading that does not move never heats it for longer than the maximum."""
    model = Greenhouse(start, 15.0, outside, 5.0, 0.0, 1500.0, 9000.0, 300.0, 400.0, 1.08e6)
    c = made(start, ("heater", "vent", "fan"))
    auditor = Auditor(c)
    now = start
    stuck = 15.0
    heating = 0  # ms of heating behind one and the same reading
    for i in range(24 * 120):
        now = ticks.add(now, 30_000)
        true, _ = model.read("temperature", now)
        lie = lies[i // 144 % len(lies)][0]
        value = {"stuck": stuck, "high": true + 15, "low": true - 15, "nan": math.nan, "missing": None}.get(lie, true)
        if lie == "spikes" and i % 7 == 0:
            value = 85.0
        if lie != "stuck":
            stuck = true
            heating = 0
        reading = (value, "missing" if value is None else "ok", 90_000 if lie == "old" else 0)
        if lie == "old":
            auditor.step(now, 30_000, {"temperature": (None, "old")}, None)
        else:
            auditor.step(now, 30_000, {"temperature": reading}, None)
        heating += 30_000 * c.heater.on
        assert heating <= TIMES[0][2] * 1000 + 30_000
        for name in ("heater", "vent", "fan"):
            model.write(name, auditor.on[name], now)


@settings(max_examples=tries(10))
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
    c = Climate(first, setpoint, SETTINGS, {"heater": {}, "vent": {}})

    def turn(step: int, value: float) -> None:
        if step > 3 * 240:  # three hours to get there; 1.4 K: what is lost in the minimum off time at 40 K difference
            assert value > setpoint - 0.5 - 1.9 or not strong, c.reason
            assert value < setpoint + 0.5 + 1.0 + 0.5 or not cool, c.reason

    live(model, c, first, 6 * 240, 15_000, turn)


@pytest.mark.parametrize(
    ("outside", "swing", "sun", "names"),
    [(-8.0, 6.0, 2500.0, ("heater", "vent")), (16.0, 8.0, 3000.0, NAMES)],
    ids=["winter", "summer"],
)
def test_a_week_of_weather(outside: float, swing: float, sun: float, names: tuple[str, ...]) -> None:
    """Seven days with day and night set points, across the wrap of the clock: the band, the wear and the energy."""
    start = ticks.PERIOD - 3 * 86_400_000
    model = Greenhouse(start, 15.0, outside, swing, 0.0, sun, 9000.0, 300.0, 900.0, 1.08e6)
    table = {**SETTINGS, "schedule": "06:00 18, 20:00 14", "light": "05:00 on, 08:00 off", "water_below": 45}
    c = greenhouse.climate({"control": table, "board": {"outputs": {name: {} for name in names}}}, start, 15.0, -1)
    c.online = False  # all of it without a gateway
    off_band = []

    def turn(step: int, value: float) -> None:
        minute = step * 20 // 60 % 1440
        settled = minute not in range(358, 420) and minute not in range(1198, 1300)  # after a change of the set point
        warm = c.setpoint + 2.5 < model.outside() + (model.sun() + 400) / 1600  # more than the open vent can carry away
        if (
            step > 180
            and settled
            and not (c.setpoint - 1.6 < value < c.setpoint + 2.6 or (warm and value > c.setpoint))
        ):
            off_band.append((step, value, c.reason))

    live(model, c, start, 7 * 86_400 // 20, 20_000, turn)
    assert off_band == []
    assert c.faults == []
    assert c.heater.starts <= 7 * 24 * SETTINGS["starts_h"]
    duty = c.duty()
    assert abs(duty["heater"][1] * 9000 - model.energy) <= c.heater.starts * 20 * 9000  # its hours are its energy
    if outside < 0:  # what the house loses through its film the heater must have brought, less the sun
        loss = 300 * (16.0 - outside) * 7 * 86_400
        assert 0.6 * loss < model.energy < loss
    else:
        assert duty["light"][1] == pytest.approx(7 * 3 * 3600, rel=0.02)
        assert 40 < model.read("soil", ticks.add(start, 7 * 86_400_000))[0] < 55


README = (ROOT / "README.md").read_text()


def test_the_agreement_names_what_a_node_says() -> None:
    """Agreement 2 in README.md: each key of state and event, alarm, verb, mode and word of `by`; and no other."""
    c = made(0, NAMES)
    row = next(line for line in README.splitlines() if line.startswith("| `<root>/state`"))
    keys = {*json.loads(report.state(c, 5))} - {*NAMES}
    assert {*re.findall(r'"(\w+)":', row)} - {*NAMES} == keys
    live = next(line for line in README.splitlines() if line.startswith("| `<root>/telemetry`"))
    assert set(re.findall(r'"(\w+)":', live)) == {
        *json.loads(report.telemetry({}, 5, "ntp", True)),
        "temperature",
        "outside",
    }
    row = next(line for line in README.splitlines() if line.startswith("| `<root>/event`"))
    assert {*re.findall(r'"(\w+)":', row)} == {*json.loads(report.event("frost", "frost: below 2", True, 5))}
    told = re.search(r"`faults` and the events of a greenhouse are (.*?) \(somebody", README, re.DOTALL)
    assert told is not None
    assert re.findall(r"`(\w+)`", told[1]) == [text.split(":")[0] for text in ALARMS]
    assert "the event `alone`" in README
    verbs = re.search(r"A greenhouse knows (.*?); empty", README, re.DOTALL)
    assert verbs is not None
    assert set(command.VERBS) == {*re.findall(r"`(\w+)`", verbs[1])}
    for verb, modes in zip(NAMES, MODES, strict=True):
        listed = re.search(rf"`{verb}`[^{{]*(\{{.*?\}})", verbs[1])
        assert listed is not None
        assert tuple(re.findall(r'"(\w+)"', listed[1])[1:]) == modes
    assert f"(1 to {command.MAX_FOR_S} s," in verbs[1]
    assert all(f'"{word}"' in README for word in ("order", "schedule", "fallback"))


def test_the_readme_of_the_firmware_tells_the_limits_as_they_are() -> None:
    """The table of authority against the constants."""
    text = (ROOT / "firmware" / "README.md").read_text()
    assert f"above {TOO_HOT} °C, until below {TOO_HOT_OVER}" in text
    assert f"no good reading for {STALE_MS // 1000} s" in text
    assert f"outside {COLDEST} to {HOTTEST} °C" in text
    assert f"Below {FROST} °C there is an alarm, until above {FROST_OVER}" in text
    heater, vent, fan, irrigation, light = TIMES
    assert vent == fan
    assert "heater {} s, {} s, {} min".format(*heater[:2], heater[2] // 60) in text
    assert "vent and fan {} s, {} s".format(*vent[:2]) in text
    assert "irrigation {} s, {} s, {} min".format(*irrigation[:2], irrigation[2] // 60) in text
    assert "light {} s, {} s".format(*light[:2]) in text
    assert f"{SETTINGS['starts_h']} starts in any hour" in text


def test_the_readme_of_the_firmware_tells_the_limits_of_the_node_as_they_are() -> None:
    """Watchdog, pulses, crashes, Wi-Fi, time, twins, memory for TLS, reports against the constants."""
    text = " ".join((ROOT / "firmware" / "README.md").read_text().split())
    assert f"packets ({mqtt.MAX_PACKET} bytes), commands (32 and 512), messages in flight ({mqtt.WINDOW})" in text
    assert f"waiting ({app.OUTBOX}) and sent at a turn ({app.ACKS_A_TURN}), ids remembered ({recent.RECENT})" in text
    assert f"log lines ({log.RING} bytes)" in text
    control_s = app.CONTROL_PERIODS * clock.LoopTime.PERIOD_MS // 1000
    assert f"no progress for {app.SILENT_MS // 1000} s (the control loop: {control_s} s)" in text
    assert f"bites after {vitals.WATCHDOG_MS // 1000} s" in text
    assert f"{blackbox.HEALTHY_S // 60} minutes of life | the count is 0 again" in text
    assert ("the sixth crash in a row" in text, blackbox.CRASHES_TO_RESCUE) == (True, 6)
    assert f"no Wi-Fi for {wifi.HOPELESS_MS // 60000} minutes" in text
    assert f"{wifi.JOIN_MS // 1000} s for each, a pause of a second" in text
    assert ("after three rounds" in text, wifi.PAUSE_MS, wifi.ROUNDS) == (True, 1000, 3)
    assert f"gets {wifi.OWN_MS // 1000} s to come back by itself" in text
    assert f"three answers that agree to {sntp.SPREAD_MS // 1000} s" in text
    assert (sntp.SAMPLES, (clock.CEILING - clock.FLOOR) // 31557600) == (3, 15)
    assert f"unless the IDF's heap has {connect.TLS_BLOCK:,} bytes" in text
    assert ("in five tries" in text, connect.STARVED) == (True, 5)
    assert f"within {link.TWIN_S} s of its welcome, five times in a row" in text
    assert link.TWIN_CUTS == 5
    assert ("`health`, every five minutes" in text, vitals.HEALTH_S) == (True, 300)
    assert ("ten at once and then one a second" in text, vitals.LINES) == (True, (10, 1000))
    assert ("one message a second" in text, node_greenhouse.BACKFILL_MS, backlog.BATCH) == (True, 1000, 5)
    assert f"up to {ring.FLUSH_MS // 60000} minutes or {ring.PAGE // ring.RECORD} of them in RAM" in text
    assert f"{ring.SEGMENTS * ring.SEGMENT // ring.RECORD:,} records" in text


def test_a_board_with_pins_that_simulates_needs_none() -> None:
    """`simulate` on a bare ESP32: the model stands in for pins and sensors; what it does not have is missing."""
    cfg = {
        "board": {
            "chip": "esp32",
            "outputs": {"heater": {"driver": "gpio", "pin": 26, "safe": "off"}},
            "sensors": {"temperature": {"driver": "sht4x", "bus": "i2c"}, "co2": {"driver": "scd4x", "bus": "i2c"}},
        },
        "control": SETTINGS,
        "simulate": {key: rule[3] for key, rule in greenhouse_config.TABLES["simulate"].items()},
    }
    house = greenhouse.house(cfg, 0)
    c = greenhouse.climate(cfg, 0, 25.0, -1)
    for now in range(0, 3_600_000, 10_000):
        c.step(now, {name: house.read(name, now) for name in ("temperature", "co2")}, house.minute(now))
        c.move(house.write, now)
    assert house.read("co2", 3_600_000) == (None, "missing")
    assert 24 < house.read("temperature", 3_600_000)[0] < 26.5
