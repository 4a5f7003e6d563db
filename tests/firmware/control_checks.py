"""Checks of the greenhouse's control, its outputs, schedule and model; on CPython and on MicroPython alike.

Rule: as in pure_checks.py. Each row of the list of requirements (control loop and actuators) has a check here that
fails without its mechanism.
"""

import gc
import json

from drivers.greenhouse_model import Greenhouse
from node import command, greenhouse_config, report, schedule, strictjson, ticks
from node.actuator import MODES, NAMES, TIMES, Output
from node.control import (
    BAD_IN_A_ROW,
    FROST,
    FROST_OVER,
    INTERLOCKS,
    NOTHING,
    RISE,
    STALE_MS,
    TOO_HOT,
    TOO_HOT_OVER,
    UNTIL_NEXT,
    _entry,
)
from profiles import greenhouse as profile

HOUSE = {
    "start": 18.0,
    "outside": 6.0,
    "swing": 0.0,
    "hour": 8.0,
    "sun_w": 1500.0,
    "heater_w": 9000.0,
    "ua": 300.0,
    "vent_ua": 400.0,
    "capacity": 1.08e6,
}
SETTINGS = {key: rule[3] for key, rule in greenhouse_config.TABLES["control"].items()}
SETTINGS.update({"setpoint": 18.0, "min": 2.0, "max": 40.0})
BARE = {"heater": {}, "vent": {}}
OVERHEAT = "overheat: above 45, so heater off and vent open"
STEP_BYTES = 200  # where a word has 8 bytes; a chip takes half of it
AT_ONCE = {"min_on_s": 0, "min_off_s": 0}


def house(**changes):
    """The model with some of its numbers changed."""
    table = dict(HOUSE)
    table.update(changes)
    return Greenhouse(0, **table)


def climate(setpoint=20.0, outputs=BARE, held=NOTHING, now=0, **settings):
    """A Climate as node.json makes it, with some settings changed."""
    table = dict(SETTINGS)
    table.update(settings)
    return profile.climate({"control": table, "board": {"outputs": outputs}}, now, setpoint, held)


class Run:
    """A Climate moved on by hand: `run(value, s)` steps to second `s` with that temperature."""

    def __init__(self, *args, **settings):
        self.c = climate(*args, **settings)
        self.s = 0
        self.events = []
        self.more = {}  # readings beside the temperature
        self.minute = None

    def __call__(self, value, s, quality="ok", step=None):
        """On to second `s`; in steps of `step` seconds if given. Returns the Climate."""
        while self.s < s:
            self.s = s if step is None else min(s, self.s + step)
            readings = dict(self.more)
            readings["temperature"] = (value, quality)
            self.c.step(self.s * 1000 % ticks.PERIOD, readings, self.minute)
            self.events.extend(self.c.events)
        return self.c


def on(c):
    """The names of the outputs that are on."""
    return [o.name for o in c.outputs if o.on]


# -- one output ------------------------------------------------------------------------------------------------------


def check_output_keeps_its_minimum_times():
    o = Output(0, {}, 60)
    for ms, want, state, wait in (
        (179999, True, False, 1),
        (1, True, True, 0),
        (59000, False, True, 1000),
        (1000, False, False, 0),
        (0, True, False, 180000),
    ):
        o.tick(ms)
        o.ask(want)
        assert (o.on, o.wait) == (state, wait), (ms, o.on, o.wait)


def check_an_output_at_rest_for_weeks_has_rested():
    """The counter stops at its ceiling; it does not begin anew after 12.4 days."""
    for ms in (ticks.PERIOD - 1, 1, 5, ticks.PERIOD):
        o = Output(0, {}, 60)
        o.tick(ticks.PERIOD - 1)
        o.tick(ms)
        o.ask(True)
        assert o.on, ms


def check_output_starts_so_often_an_hour_and_no_more():
    """12 starts, whatever is asked; the 13th when the first is an hour old; over a long time too."""
    o = Output(1, AT_ONCE, 12)
    begun = []
    for s in range(3 * 3600):
        o.tick(1000)
        was = o.on
        o.ask(s % 2 == 0)
        if o.on and not was:
            begun.append(s)
    assert begun[:13] == [2 * i for i in range(12)] + [3600]
    assert all(begun[i + 12] - begun[i] >= 3600 for i in range(len(begun) - 12))
    assert len(begun) == 36 == o.starts
    assert o.starts_h() <= 12
    for _ in range(3601):
        o.ask(False)
        o.tick(1000)
    assert o.starts_h() == 0


def check_counters():
    """Seconds on and times switched on, to the second, however the loop's turns fall."""
    o = Output(2, AT_ONCE, 60)
    o.tick(500)
    o.force(True)
    for _ in range(2500):
        o.tick(700)
    o.force(False)
    o.tick(99000)
    o.force(True)
    o.tick(250)
    assert 1750 <= o.run_s <= 1751, o.run_s
    assert o.starts == 2 == o.starts_h()


def check_what_the_board_does_not_have_never_comes_on():
    c = climate(outputs={"heater": {}})
    for i in range(1, 40):
        c.step(i * 10000, {"temperature": (TOO_HOT + 1, "ok")})
        assert on(c) == []
    assert c.order("vent", "open") == "unknown: this board has no vent"
    assert c.order("heater", "off") is None
    assert list(c.duty()) == ["heater"]
    c = climate(outputs={"vent": {}})
    c.step(200000, {"temperature": (5.0, "ok")})
    assert c.reason == "too cold: 5.0, set point 20.0"


def check_an_output_survives_a_reset():
    """What was on has rested 0 s after the reset; what was off goes on resting; counters and orders are kept."""
    run = Run(outputs={name: {} for name in NAMES})
    run(10.0, 200)
    assert on(run.c) == ["heater", "fan"]
    run.c.order("vent", "closed")
    run.c.order("light", "on")
    run.c.order("irrigation", "on")
    run(10.0, 700, step=100)
    run.c.order("fan", "on", 600)
    saved = run.c.export()
    assert len(saved) < 100
    again = Run(outputs={name: {} for name in NAMES})
    assert again.c.restore(saved)
    assert on(again.c) == []
    assert again.c.heater.run_s == 500
    assert again.c.heater.starts == 1
    again(10.0, 179)
    assert not again.c.heater.on
    assert again.c.light.on
    assert again.c.mode() == "vent closed, fan on, light on"  # a pump does not come on by itself after a reset
    assert not again.c.irrigation.on
    again(10.0, 181)
    assert again.c.heater.on
    again(10.0, 179 + 600)
    assert again.c.mode() == "vent closed, light on"
    # It was off for long before the reset: no waiting.
    first = Run()
    first(25.0, 500)
    again = Run()
    assert again.c.restore(first.c.export())
    again(10.0, 1)
    assert again.c.heater.on
    for damage in (b"", b"\x00" * len(saved), saved[:-1], saved + b"\x00"):
        assert not again.c.restore(damage)


# -- the order of authority ------------------------------------------------------------------------------------------


def check_heats_below_and_rests_above():
    run = Run()
    for value, heater in ((19.0, False), (19.0, True), (20.3, True), (20.6, False), (19.8, False), (19.4, True)):
        assert run(value, run.s + 100).heater.on == heater, (value, run.c.reason)


def check_dead_band_between_heating_and_venting():
    """The vent opens a dead band above where the heater goes off, and closes where that is; never less than 1 K."""
    for dead_band in (1.0, 3.0):
        run = Run(dead_band=dead_band)
        for value, vent in ((20.5, 0), (20.4 + dead_band, 0), (20.6 + dead_band, 1), (20.6, 1), (20.4, 0), (21.4, 0)):
            assert run(value, run.s + 100).vent.on == bool(vent), (value, run.c.reason)


def check_minimum_times():
    """The heater rests 180 s after the start, then is on for 60 s at least."""
    run = Run()
    assert not run(10.0, 179).heater.on
    assert "heater stays off for 1 s" in run.c.reason
    assert run(10.0, 180).heater.on
    # Far too warm, but on for 1 s only. The interlock stands above minimum times: the vent opens, so the heater is off.
    assert on(run(25.0, 181)) == ["vent"]
    run = Run()
    run(10.0, 180)
    assert run(21.0, 239).heater.on
    assert "heater stays on for 1 s" in run.c.reason
    assert not run(21.0, 240).heater.on
    run = Run(outputs={"heater": {"min_on_s": 5, "min_off_s": 7}})
    assert not run(10.0, 6).heater.on
    assert run(10.0, 7).heater.on
    assert run(25.0, 11).heater.on
    assert not run(25.0, 12).heater.on


def check_stale_reading_stops_the_heater_at_once():
    """60 s without a reading: off, whatever the minimum on time; the seconds of silence are told."""
    run = Run(outputs={"heater": {"min_on_s": 3600, "min_off_s": 0}})
    assert run(10.0, 1).heater.on
    for s in range(2, 70):
        run(None, s, "missing")
        assert run.c.heater.on == ((s - 1) * 1000 <= STALE_MS), s
    run(None, 71, "missing")
    assert run.c.reason == "heater off: sensor silent for 70 s", run.c.reason
    assert run.c.faults == ["sensor: silent"]
    run(10.0, 72)
    assert run.c.heater.on
    assert run.c.faults == []
    assert run.events == [("sensor", "sensor: silent", True), ("sensor", "sensor: silent", False)]


def check_an_old_reading_is_no_reading():
    """A sensor that goes on giving its last value, with its age: the age counts."""
    run = Run(outputs={"heater": AT_ONCE})
    run(10.0, 1)
    for s in range(2, 80):
        run.c.step(s * 1000, {"temperature": (10.0, "ok", (s - 1) * 1000)})
        assert run.c.heater.on == ((s - 1) * 1000 <= STALE_MS), s
    run.c.step(80000, {"temperature": (None, "missing")})
    assert not run.c.heater.on


def check_a_few_bad_readings_begin_no_heating():
    """FRESH, COASTING, FRESH: after five bad ones no heating begins and nothing else moves; one good one ends that."""
    run = Run(outputs={"heater": AT_ONCE, "vent": AT_ONCE, "fan": AT_ONCE})
    run(25.0, 1)
    assert on(run.c) == ["vent", "fan"]
    for i in range(20):
        run(None, 2 + i, "crc")
        assert on(run.c) == ["vent", "fan"]  # as they were
    run(19.9, 40)
    assert on(run.c) == []
    for i in range(BAD_IN_A_ROW - 1):
        assert not run(None, 41 + i, "crc").heater.wanted
    run(10.0, 50)
    assert on(run.c) == ["heater", "fan"]
    for i in range(BAD_IN_A_ROW - 1):
        run(None, 51 + i, "crc")
    run(None, 55, "crc")
    assert on(run.c) == ["fan"]  # the demand is off, and here the heater has no minimum time
    assert run.c.reason == "no heating begins: sensor silent for 5 s"
    run(10.0, 56)
    assert on(run.c) == ["heater", "fan"]
    run = Run()  # with one, that is kept
    run(10.0, 180)
    for i in range(1, 59):
        assert run(None, 180 + i, "crc").heater.on
    assert not run(None, 240, "crc").heater.on
    assert run.c.faults == []


def check_before_the_first_reading_nothing_is_a_fault():
    run = Run(vent_fail="open")
    for s in range(1, STALE_MS // 1000):
        assert on(run(None, s, "missing")) == []
        assert run.c.faults == []
    assert on(run(None, STALE_MS // 1000 + 1, "missing")) == ["vent"]
    assert run.c.faults == ["sensor: silent"]


def check_nonsense_readings_are_no_readings():
    """-77 deg C once made a boiler go to full power."""
    for nonsense in (float("nan"), float("inf"), -float("inf"), -127.0, -77.0, 850.0, None):
        run = Run(outputs={"heater": AT_ONCE, "vent": AT_ONCE})
        for s in range(1, 100):
            assert not run(nonsense, s).heater.on
        assert run.c.temperature is None
    for quality in ("stale", "range", "crc", "stuck", "missing"):  # a value may come with each of them
        run = Run(outputs={"heater": AT_ONCE})
        for s in range(1, 100):
            assert not run(10.0, s, quality).heater.on
        assert run.c.temperature is None


def check_vent_fails_to_its_configured_position():
    for position in ("closed", "open"):
        run = Run(vent_fail=position)
        run(None, 70, "missing")
        assert on(run.c) == ([] if position == "closed" else ["vent"])


def check_hard_limit_stands_above_everybody():
    """Above 45 deg C: heater off, vent open, against orders, minimum times and a sensor that then falls silent."""
    run = Run(40.0, {"heater": {}, "vent": {}, "fan": {}})
    run.c.order("vent", "closed")
    run(30.0, 200)
    assert on(run.c) == ["heater", "fan"]
    run.c.order("fan", "off")
    for value in (TOO_HOT + 0.1, TOO_HOT_OVER + 0.5):
        assert on(run(value, run.s + 1)) == ["vent", "fan"]
        assert run.c.faults == [OVERHEAT]
    for _ in range(200):
        assert on(run(None, run.s + 1, "missing")) == ["vent", "fan"]
    assert on(run(TOO_HOT_OVER - 1, 500)) == []  # the orders hold again
    assert run.events[0] == ("overheat", OVERHEAT, True)
    assert ("overheat", OVERHEAT, False) in run.events
    run = Run(outputs={"heater": {}, "vent": {}, "fan": {}})
    assert on(run(TOO_HOT + 0.1, 1)) == ["vent", "fan"]  # from rest, and without waiting for their times


def check_frost_alarm():
    """Below 2 deg C once, until above 3; it says so even where heating was ordered off."""
    run = Run()
    run.c.order("heater", "off")
    for value in (FROST + 0.1, FROST - 0.1, FROST + 0.9, FROST - 0.1, FROST_OVER + 0.1, FROST + 0.5):
        run(value, run.s + 10)
    assert run.events == [("frost", "frost: below 2", True), ("frost", "frost: below 2", False)]


def check_interlock_table():
    """Each row of INTERLOCKS stops its output at once, whatever its minimum times and who ordered it; and none is
    missing in it."""
    assert INTERLOCKS == (("heater", "vent", False), ("heater", "fan", True), ("irrigation", "tank", True))
    slow = {"min_on_s": 3600, "min_off_s": 0}
    outputs = dict.fromkeys(NAMES, slow)
    for who, other, state in INTERLOCKS:
        run = Run(outputs=outputs)
        run.more = {"tank": (1.0, "ok")}
        if who == "irrigation":
            run.c.order(who, "on")
        run(10.0, 1)
        assert who in on(run.c), who
        if other == "tank":
            run.more = {"tank": (0.0, "ok")}
        else:
            run.c.order(other, run.c.outputs[NAMES.index(other)].modes[2 if state else 1])
        run(10.0, 2)
        assert who not in on(run.c), (who, other)
        assert f"{who} waits for {other}" in run.c.reason or who == "irrigation", run.c.reason
    run = Run(outputs=outputs)  # a tank that cannot be read is empty; a board without one has water from the mains
    run.c.order("irrigation", "on")
    assert run(20.0, 1).irrigation.on
    run.more = {"tank": (None, "missing")}
    assert not run(20.0, 2).irrigation.on
    assert run.c.faults == ["tank: empty"]


def check_fan_runs_with_heater_and_vent():
    run = Run(outputs=dict.fromkeys(("heater", "vent", "fan"), AT_ONCE))
    assert on(run(10.0, 1)) == ["heater", "fan"]
    assert on(run(20.0, 2)) == ["heater", "fan"]
    assert on(run(20.6, 3)) == ["fan"]
    assert on(run(20.6, 4)) == []
    assert on(run(22.0, 5)) == ["vent", "fan"]
    late = Run(outputs={"heater": AT_ONCE, "fan": {"min_off_s": 50}})
    assert on(late(10.0, 49)) == []
    assert "heater waits for fan" in late.c.reason
    assert on(late(10.0, 50)) == ["heater", "fan"]


def check_nothing_moves_in_the_wrong_order():
    """On the way to the pins: off before on, the fan on before the heater and off after it; absent ones never."""
    seen = []
    run = Run(outputs=dict.fromkeys(("heater", "vent", "fan"), AT_ONCE))

    def write(name, state, now):
        seen.append(name + (" on" if state else " off"))

    run(10.0, 1).move(write, 0)
    assert seen == ["vent off", "fan on", "heater on"]
    seen.clear()
    run(30.0, 2).move(write, 0)
    assert seen == ["heater off", "fan on", "vent on"]
    seen.clear()
    run(19.6, 3).move(write, 0)
    run(19.6, 4).move(write, 0)
    assert seen[3:] == ["heater off", "vent off", "fan off"]


def check_orders_of_a_person():
    run = Run()
    run(10.0, 180)
    assert run.c.heater.on
    run.c.order("heater", "off")
    assert not run(10.0, 181).heater.on  # at once, minimum on time or not
    assert run.c.reason == "too cold: 10.0, set point 20.0; heater off by order"
    run.c.order("vent", "open")
    assert run(10.0, 182).vent.on
    assert run.c.mode() == "heater off, vent open"
    run.c.order("heater", "auto")
    assert not run(10.0, 999).heater.on  # interlock
    assert "heater waits for vent" in run.c.reason
    run.c.order("vent", "auto")
    assert on(run(10.0, 1999)) == ["heater"]
    assert run.c.mode() == "auto"


def check_an_order_for_a_time_ends():
    run = Run()
    run.c.order("heater", "off", 600)
    assert not run(10.0, 599).heater.on
    assert run(10.0, 600).heater.on
    assert run.c.mode() == "auto"
    run.c.order("heater", "off", 600)
    run.c.order("heater", "off")  # for good
    assert not run(10.0, 9999).heater.on


def check_water_for_a_minute_is_a_minute_of_water():
    """An order that has to wait for the minimum off time first is not over before it began."""
    run = Run(outputs={"irrigation": {}})
    run.c.order("irrigation", "on", 60)
    for s in range(1, 1000):
        assert run(20.0, s).irrigation.on == (300 <= s < 360), s


def check_the_switch_at_the_node_wins():
    """Everything off, orders refused, reported; but the hard limit still opens the vent."""
    run = Run(outputs=dict.fromkeys(NAMES, AT_ONCE))
    run.c.order("light", "on")
    run(10.0, 1)
    assert on(run.c) == ["heater", "fan", "light"]
    run.more = {"override": (1.0, "ok")}
    assert on(run(10.0, 2)) == []
    assert run.c.order("light", "off") == "busy: switch: off at the node"
    assert run.c.reason == "switch: off at the node"
    assert run.c.faults == ["switch: off at the node"]
    assert on(run(TOO_HOT + 1, 3)) == ["vent"]
    run.more = {"override": (0.0, "ok")}
    assert on(run(10.0, 4)) == ["heater", "fan", "light"]
    run.more = {"override": (None, "missing")}
    assert on(run(10.0, 5)) == ["heater", "fan", "light"]
    run = Run(outputs={"vent": AT_ONCE}, vent_fail="open")
    run.more = {"override": (1.0, "ok")}
    assert on(run(None, 100, "missing")) == []  # nor does a dead sensor move the vent


# -- an effect, or none ----------------------------------------------------------------------------------------------


def check_heating_without_effect_ends_at_the_maximum_time():
    """90 min without 0.5 K more: off, alarm, and no heating before the reading has moved: it may be a dead sensor."""
    most = TIMES[0][2]
    run = Run()
    run(10.0, 180)
    run(10.0, 180 + most - 1, step=10)
    assert run.c.heater.on
    run(10.0, 180 + most)
    assert not run.c.heater.on
    assert run.c.faults == ["heater: no effect"]
    assert run.c.reason == "too cold: 10.0, set point 20.0; heater has no effect"
    run(10.0, run.s + 86400, step=600)
    assert not run.c.heater.on
    run(10.0 + RISE - 0.1, run.s + 600)
    assert not run.c.heater.on
    run(10.0 - RISE, run.s + 1)  # it lives: the house cools, so try again
    assert run.c.heater.on
    assert run.c.faults == ["heater: no effect"]
    run(10.0, run.s + 600)  # and now it warms
    assert run.c.faults == []
    assert [e[2] for e in run.events] == [True, False]


def check_heating_with_effect_goes_on():
    """A weak heater on a cold night: 0.5 K in an hour is an effect, and it is not stopped."""
    run = Run(30.0)
    t = 10.0
    run(t, 180)
    for _ in range(30):
        t += RISE
        run(t, run.s + 3600, step=60)
        assert run.c.heater.on
        assert run.c.faults == []


def check_a_door_left_open_is_no_lack_of_effect():
    """It gets colder in spite of heating, then warmer from there: the rise counts from the lowest."""
    run = Run()
    run(15.0, 180)
    run(8.0, 180 + 3600, step=60)
    run(8.0 + RISE, 180 + 4800, step=60)
    run(8.0 + RISE, 180 + 9000, step=60)
    assert run.c.heater.on
    assert run.c.faults == []


def check_an_order_tries_again_what_had_no_effect():
    run = Run()
    run(10.0, 180 + TIMES[0][2], step=10)
    run(10.0, run.s + 600, step=60)
    assert not run.c.heater.on
    run.c.order("heater", "auto")
    assert run(10.0, run.s + 1).heater.on


def check_resets_do_not_prolong_the_maximum_time():
    """A node that is reset each quarter of an hour, and a sensor that is stuck: 90 min of heating, and the end."""
    saved = None
    heated = 0
    for _ in range(20):
        run = Run()
        if saved:
            assert run.c.restore(saved)
        for s in range(10, 900, 10):
            run(10.0, s)
            heated += 10 * run.c.heater.on
        saved = run.c.export()
    assert TIMES[0][2] - 200 <= heated <= TIMES[0][2] + 200, heated


def check_maximum_on_time():
    """A pump that was ordered on for good stops after ten minutes, rests, and does not begin again by itself."""
    run = Run(outputs={"irrigation": {}})
    run.c.order("irrigation", "on")
    for s in range(1, 3000):
        run(20.0, s)
        assert run.c.irrigation.on == (300 <= s < 900), s
    assert run.c.mode() == "auto"
    run = Run(outputs={"light": {"max_on_s": 100}})
    run.c.order("light", "on")
    run(20.0, 60)
    assert run.c.light.on
    assert not run(20.0, 160).light.on


def check_irrigation_by_soil():
    """Below the bound: water until SOAK above it, or until the maximum; then soak. A silent probe gets no water."""
    run = Run(outputs={"irrigation": {}}, water_below=30)
    for soil, quality, s, wet in (
        (29.0, "ok", 300, True),
        (34.0, "ok", 400, True),
        (35.0, "ok", 500, False),
        (29.0, "ok", 700, False),
        (29.0, "ok", 800, True),
        (29.0, "missing", 850, False),
        (29.0, "ok", 1150, True),
        (29.0, "ok", 1749, True),
        (29.0, "ok", 1750, False),
        (29.0, "ok", 2050, True),
    ):
        run.more = {"soil": (soil, quality)}
        assert run(20.0, s).irrigation.on == wet, s
    run = Run(outputs={"irrigation": {}})
    run.more = {"soil": (0.0, "ok")}
    assert not run(20.0, 9000, step=100).irrigation.on  # by order only, where no bound is set


# -- set point, schedule, fallback -----------------------------------------------------------------------------------


def check_schedule_text():
    assert schedule.parse("20:00 14.5,06:00 18") == [(360, 18.0), (1200, 14.5)]
    assert schedule.parse("05:00 on, 08:30 off") == [(300, 1.0), (510, 0.0)]
    assert schedule.parse(" 00:00 -2 ") == [(0, -2.0)]
    entries = schedule.parse("06:00 18, 20:00 14.5")
    for minute, value in ((0, 14.5), (359, 14.5), (360, 18), (1199, 18), (1200, 14.5), (1439, 14.5)):
        assert _entry(entries, minute)[1] == value, minute
    many = ", ".join([f"{i:02}:00 18" for i in range(schedule.MAX_ENTRIES + 1)])
    for bad in ("", ",", "6", "06:00", "24:00 1", "06:60 1", "06:00 x", "06:00 1 2", "06:00 1, 06:00 2", "a:b 1", many):
        said = "accepted"
        try:
            schedule.parse(bad)
        except ValueError as e:
            said = str(e)
        assert said.startswith('not like "06:00 18'), (bad, said)


def check_day_and_night_without_gateway():
    """The schedule is the node's own; a person's set point holds until the next entry, also over a restart."""
    run = Run(19.0, schedule="06:00 18, 20:00 14", fallback=8.0)
    run.c.online = False
    run.minute = 21 * 60
    assert run(15.0, 10000, step=100).setpoint == 14
    assert run.c.by == "schedule"
    run.minute = 6 * 60
    assert run(15.0, 10001).setpoint == 18
    run.c.order("setpoint", 16.0)
    assert run(15.0, 10002).setpoint == 16
    assert run.c.by == "order"
    assert run.c.held == 360
    again = Run(16.0, held=run.c.held, schedule="06:00 18, 20:00 14")
    again.minute = 7 * 60
    assert again(15.0, 1).setpoint == 16
    again.minute = 20 * 60
    assert again(15.0, 2).setpoint == 14
    assert again.c.held == NOTHING
    again = Run(16.0, held=run.c.held, schedule="06:00 18, 20:00 14")
    again.minute = 22 * 60  # it was off over the border
    assert again(15.0, 1).setpoint == 14
    again = Run(16.0, held=again.c.held, schedule="06:00 18, 20:00 14")
    again.minute = 7 * 60
    assert again(15.0, 1).setpoint == 18


def check_without_a_clock_the_fallback_holds():
    for settings, first in (({"fallback": 8.0}, 8), ({}, 18)):
        run = Run(19.0, schedule="06:00 21, 20:00 14", **settings)
        assert run(15.0, 10).setpoint == first
        assert run.c.by == "fallback"
        assert f"fallback {first}.0" in run.c.reason
        run.c.order("setpoint", 16.0)  # somebody is there, and knows better
        assert run(15.0, 11).setpoint == 16
        assert run.c.held == UNTIL_NEXT
        run.minute = 7 * 60
        assert run(15.0, 12).setpoint == 16
        run.minute = 20 * 60
        assert run(15.0, 13).setpoint == 14


def check_fallback_when_the_gateway_is_silent():
    """After 30 min, if configured; the order holds again when it is back; then it is told what was done alone."""
    run = Run(5.0, outputs={"heater": {}}, fallback=12.0)
    run.c.online = False
    assert run(10.0, 1799, step=60).setpoint == 5
    assert run(10.0, 1800).setpoint == 12
    run(9.0, 1860)
    run(13.0, 2400)
    run.c.online = True
    assert run(13.0, 2460).setpoint == 5
    told = [e for e in run.events if e[0] == "alone"]
    text = "without gateway for 40 min: set point 12.0, lowest 9.0, heater on for 10 min"
    assert told == [("alone", text, False)], told
    run = Run(5.0)
    run.c.online = False
    assert run(10.0, 9000, step=60).setpoint == 5  # not configured
    run = Run(5.0, fallback=12.0)
    for _ in range(10):  # a link that comes and goes is a gateway
        run.c.online = False
        run(10.0, run.s + 1700)
        run.c.online = True
        assert run(10.0, run.s + 1).setpoint == 5
    assert not [e for e in run.events if e[0] == "alone"]


def check_light_by_the_clock():
    run = Run(outputs={"light": {}}, light="05:00 on, 08:30 off")
    for minute, lit in ((None, False), (299, False), (300, True), (509, True), (510, False), (None, False)):
        run.minute = minute
        assert run(20.0, run.s + 100).light.on == lit, minute


# -- time ------------------------------------------------------------------------------------------------------------


def check_weeks_of_silence_do_not_wrap_into_health():
    """After 30 days without a reading, or in one state, nothing looks young again."""
    run = Run()
    run(10.0, 1)
    for _ in range(3000):  # 15 minutes a step, 31 days
        run(None, run.s + 900, "missing")
        assert not run.c.heater.on
        assert run.c.temperature is None
    run(10.0, run.s + 1)
    assert run.c.heater.on  # the minimum off time has long passed


def check_times_across_the_wrap_of_the_clock():
    for before in (1000, 90000, 179000):
        start = ticks.PERIOD - before
        c = climate(outputs={"heater": {}}, now=start)
        for ms in (1000, 90000, 179999):
            c.step(ticks.add(start, ms), {"temperature": (10.0, "ok")})
            assert not c.heater.on
        c.step(ticks.add(start, 180000), {"temperature": (10.0, "ok")})
        assert c.heater.on


def check_a_clock_that_steps_back_is_no_time():
    c = climate(outputs={"heater": AT_ONCE})
    good = {"temperature": (10.0, "ok")}
    c.step(5000, good)
    assert c.heater.on
    for now in (4000, 3000, 2000):
        c.step(now, {"temperature": (None, "missing")})
    assert c.heater.on
    c.step(63000, {"temperature": (None, "missing")})
    assert not c.heater.on


# -- the house -------------------------------------------------------------------------------------------------------


def live(model, c, now, steps, step_ms, turn=None):
    """Let a house and its control live together; `turn(step, value)` after each step. Returns the last `now`."""
    for i in range(steps):
        now = ticks.add(now, step_ms)
        value = model.read("temperature", now)
        c.step(now, {"temperature": value, "soil": model.read("soil", now)}, model.minute(now))
        for o in c.outputs:
            if o.here:
                model.write(o.name, o.on, now)
        assert not (c.heater.on and c.vent.on)
        if turn:
            turn(i, value[0])
    return now


def check_a_winter_night_and_a_summer_noon_hold_the_band():
    """Twelve hours each, ten seconds a step."""
    for outside, swing, hour, sun, setpoint in (
        (-5.0, 3.0, 18.0, 1500.0, 15.0),
        (6.0, 5.0, 20.0, 1500.0, 18.0),
        (14.0, 6.0, 8.0, 3000.0, 24.0),
    ):
        model = house(outside=outside, swing=swing, hour=hour, sun_w=sun, start=setpoint)
        c = climate(setpoint)

        def turn(step, value, c=c, setpoint=setpoint):
            if step > 360:
                assert setpoint - 1.9 < value < setpoint + 2.6, (setpoint, step, value, c.reason)

        live(model, c, 0, 12 * 360, 10000, turn)
        assert c.heater.starts <= 12 * 12 + 12
        assert c.faults == []


def check_a_new_set_point_is_reached_soon():
    """18 to 15 deg C with the defaults: in the band within 20 minutes (20 s of a demo at speed 60), and it stays."""

    def turn(step, value):
        if step > 100:
            assert 14.0 < value < 16.0, (step, value)

    live(house(), climate(15.0), 0, 600, 12000, turn)


def check_model_obeys_physics():
    """Steady states and the time constant, from the equation and not from the program."""
    m = house(sun_w=0.0)
    m.read("temperature", 0)
    value, _ = m.read("temperature", 3600000)  # one time constant: capacity / ua = 3600 s
    assert abs(value - (6 + 12 / 2.718281828)) < 0.05, value
    m = house(sun_w=0.0)
    m.write("heater", True, 0)
    for hour in range(1, 20):
        value, _ = m.read("temperature", hour * 3600000)
    assert abs(value - (6 + 9000 / 300)) < 0.01, value
    assert abs(m.energy - 9000.0 * 19 * 3600) < 1e6
    m.write("vent", True, 19 * 3600000)
    m.write("fan", True, 19 * 3600000)
    m.write("light", True, 19 * 3600000)
    for hour in range(20, 40):
        value, _ = m.read("temperature", hour * 3600000)
    assert abs(value - (6 + 9400 / 900)) < 0.01, value
    m = house(sun_w=2000.0, hour=12.0)
    assert abs(m.sun() - 2000.0) < 1
    assert m.minute(90000) == 721
    assert house(sun_w=2000.0, hour=0.0).sun() == 0
    dry = m.read("soil", 3600000)[0]
    m.write("irrigation", True, 3600000)
    assert dry < 50 < m.read("soil", 3600000 + 600000)[0] < 65
    assert m.read("humidity", 0) == (None, "missing")
    assert house(capacity=1e4, ua=5000.0, vent_ua=5000.0).read("temperature", 3600000)[0] < 20  # stays stable


# -- what is said ----------------------------------------------------------------------------------------------------


def check_reports_name_what_the_board_has():
    run = Run(outputs={"heater": {}, "fan": {}})
    state = json.loads(report.state(run(10.0, 200), 5))
    assert sorted(state) == sorted(
        ["setpoint", "temperature", "heater", "fan", "mode", "by", "reason", "faults", "ts"]
    ), state
    assert (state["heater"], state["fan"], state["by"]) == (True, True, "order")
    assert run.c.duty() == {"heater": [1, 0], "fan": [1, 0]}


def check_reports_are_strict_json():
    t = climate()
    t.step(200000, {"temperature": (float("nan"), "ok")})
    cmd = command.parse(command.SETPOINT, b'\x00"\\\xff')
    for text in (
        report.state(t, 5),
        report.status("offline", "greenhouse", "0", 1, True, None, "will"),
        report.telemetry({"temperature": (float("nan"), "ok"), "outside": (1.239, "ok")}, None, "none"),
        report.ack(cmd, "rejected", cmd.why, t, 5),
    ):
        strictjson.loads(text.encode())
    assert strictjson.loads(text)["echo"] == '?"\\?'
    assert "sim" not in report.telemetry({}, 5, "ntp") + report.late([])


def check_a_step_allocates_little():
    """STEP_BYTES at the most: floats, and what the interpreter takes for a call. (CPython cannot tell.)"""
    if not hasattr(gc, "mem_alloc"):
        return
    c = climate(outputs={name: {} for name in NAMES}, schedule="06:00 18, 20:00 14", light="05:00 on, 08:00 off")
    readings = {"temperature": (15.5, "ok"), "soil": (40.0, "ok"), "tank": (1.0, "ok")}
    c.step(1000, readings, 700)
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for now in range(2000, 302000, 1000):
        c.step(now, readings, 700)
    took = (gc.mem_alloc() - before) // 300
    gc.enable()
    assert took <= STEP_BYTES, took


def check_pattern_changes_with_outputs_and_orders():
    run = Run(outputs=dict.fromkeys(NAMES, AT_ONCE))
    for i, name in enumerate(NAMES):
        modes = MODES[i]
        for mode in modes[1:] + modes[:1]:
            before = run.c.pattern()
            run.c.order(name, mode)
            ordered = run.c.pattern()
            assert ordered != before
            lit = on(run.c)
            run(20.0, run.s + 1)
            assert (run.c.pattern() != ordered) == (on(run.c) != lit)


def checks():
    """(name, function) of every check in this file."""
    everything = globals()
    return [(name, everything[name]) for name in sorted(everything) if name.startswith("check_")]


if __name__ == "__main__":
    for _name, _check in checks():
        _check()
        print("ok", _name)
