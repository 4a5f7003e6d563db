"""Checks of the pure modules that run on CPython and on MicroPython alike: the same file, both interpreters.

Rule: nothing here that one of the two lacks; a check is a function `check_…` without arguments that asserts. pytest
runs each through test_pure.py; `micropython pure_checks.py` runs them all and prints one line each.
"""

import random

from drivers.greenhouse_model import Greenhouse
from node import command, config, report, strictjson, ticks
from node.backoff import Backoff
from node.control import STALE_S, TOO_HOT, TOO_HOT_OVER, Thermostat
from node.limit import Bucket

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


def house(**changes):
    table = dict(HOUSE)
    table.update(changes)
    return Greenhouse(0, **table)


def check_ticks_wrap():
    """diff and add are right across the wrap at 2**30 ms."""
    assert ticks.diff(5, ticks.PERIOD - 5) == 10
    assert ticks.diff(ticks.PERIOD - 5, 5) == -10
    assert ticks.add(ticks.PERIOD - 1, 2) == 1
    assert ticks.add(1, -2) == ticks.PERIOD - 1
    rand = random.Random(1).randint if hasattr(random, "Random") else random.randint
    for _ in range(500):
        start = rand(0, ticks.PERIOD - 1)
        ms = rand(-(1 << 29), (1 << 29) - 1)
        assert ticks.diff(ticks.add(start, ms), start) == ms


def check_heats_below_and_rests_above():
    t = Thermostat(0, 20.0)
    now = 0
    for value, heater in ((19.0, False), (19.0, True), (20.3, True), (20.6, False), (19.8, False)):
        now += 100000
        t.step(now, value)
        assert t.heater.on == heater, (value, t.reason)


def check_minimum_times():
    """The heater rests 180 s after the start, then is on for 60 s at least."""
    t = Thermostat(0, 20.0)
    t.step(179000, 10.0)
    assert not t.heater.on
    assert "rests 1 s more" in t.reason
    t.step(180000, 10.0)
    assert t.heater.on
    t.step(181000, 25.0)  # far too warm, but on for 1 s only ...
    assert t.vent.on  # ... and the interlock stands above minimum times: the vent opens, so the heater is off
    assert not t.heater.on
    t = Thermostat(0, 20.0)
    t.step(180000, 10.0)
    t.step(239000, 21.0)
    assert t.heater.on
    assert "heater off in 1 s" in t.reason
    t.step(240000, 21.0)
    assert not t.heater.on


def check_stale_reading_stops_the_heater_at_once():
    """60 s without a reading: off, whatever the minimum on time; the seconds of silence are told."""
    t = Thermostat(0, 20.0, min_times={"heater": (3600, 0), "vent": (0, 0)})
    t.step(1000, 10.0)
    assert t.heater.on
    for s in range(2, 70):
        t.step(s * 1000, None, "missing")
        assert t.heater.on == (s - 1 <= STALE_S), s
    t.step(71000, None, "missing")
    assert t.reason == "heater off: sensor silent for 70 s", t.reason
    assert t.faults == ["temperature: silent"]
    t.step(72000, 10.0)
    assert t.heater.on
    assert t.faults == []


def check_nonsense_readings_are_no_readings():
    for nonsense in (float("nan"), float("inf"), -float("inf"), -127.0, 850.0, None):
        t = Thermostat(0, 20.0, min_times={"heater": (0, 0), "vent": (0, 0)})
        for s in range(1, 100):
            t.step(s * 1000, nonsense)
            assert not t.heater.on
        assert t.temperature is None


def check_vent_fails_to_its_configured_position():
    for position in (False, True):
        t = Thermostat(0, 20.0, vent_fail=position)
        t.step(70000, None, "missing")
        assert t.vent.on == position
        assert not t.heater.on


def check_hard_limit_stands_above_everybody():
    """Above 45 deg C: heater off, vent open, against orders, minimum times and a sensor that then falls silent."""
    t = Thermostat(0, 40.0)
    t.vent_mode = "closed"
    t.step(200000, 30.0)
    assert t.heater.on
    t.step(200100, TOO_HOT + 0.1)
    assert (t.heater.on, t.vent.on) == (False, True)
    t.step(201000, TOO_HOT_OVER + 0.5)
    assert t.vent.on
    for s in range(202, 400):
        t.step(s * 1000, None, "missing")
        assert (t.heater.on, t.vent.on) == (False, True)
    t.step(401000, TOO_HOT_OVER - 1)
    assert not t.vent.on  # the order holds again


def check_orders_of_a_person():
    t = Thermostat(0, 20.0)
    t.step(180000, 10.0)
    assert t.heater.on
    t.heater_mode = "off"
    t.step(181000, 10.0)
    assert not t.heater.on  # at once, minimum on time or not
    t.vent_mode = "open"
    t.step(182000, 10.0)
    assert t.vent.on
    assert t.mode() == "heater off, vent open"
    t.heater_mode = "auto"
    t.step(999000, 10.0)
    assert not t.heater.on  # interlock
    assert "vent" in t.reason
    t.vent_mode = "auto"
    t.step(1999000, 10.0)
    assert (t.heater.on, t.vent.on) == (True, False)
    assert t.mode() == "auto"


def check_weeks_of_silence_do_not_wrap_into_health():
    """After 30 days without a reading, or in one state, nothing looks young again."""
    t = Thermostat(0, 20.0)
    t.step(1000, 10.0)
    now = 1000
    for _ in range(3000):
        now = ticks.add(now, 900000)  # 15 minutes a step, 31 days
        t.step(now, None, "missing")
        assert not t.heater.on
        assert t.temperature is None
    t.step(ticks.add(now, 1000), 10.0)
    assert t.heater.on  # the minimum off time has long passed


def check_a_clock_that_steps_back_is_no_time():
    t = Thermostat(500000, 20.0)
    t.step(100, 10.0)
    assert not t.heater.on
    t.step(180100, 10.0)
    assert t.heater.on


def check_night_and_noon_hold_the_band():
    """A winter night and a summer noon of the model: the band is held wherever heater and vent have the power."""
    for outside, swing, hour, sun, setpoint in (
        (-8.0, 4.0, 20.0, 800.0, 15.0),
        (6.0, 4.0, 20.0, 1500.0, 8.0),
        (6.0, 0.0, 8.0, 1500.0, 30.0),
        (14.0, 6.0, 8.0, 3000.0, 24.0),
    ):
        model = house(outside=outside, swing=swing, hour=hour, sun_w=sun, start=setpoint)
        t = Thermostat(0, setpoint)
        now = 0
        switched = 0
        before = False
        for step in range(12 * 360):  # twelve hours, ten seconds a step
            now = ticks.add(now, 10000)
            value, quality = model.read("temperature", now)
            t.step(now, value, quality)
            assert not (t.heater.on and t.vent.on)
            model.write("heater", t.heater.on, now)
            model.write("vent", t.vent.on, now)
            switched += t.heater.on and not before
            before = t.heater.on
            if step > 360:
                assert setpoint - 1.9 < value < setpoint + 2.6, (setpoint, step, value, t.reason)
        assert switched <= 12 * 16  # the heater's minimum times bound its wear: one cycle in 240 s at the most


def check_a_new_set_point_is_reached_soon():
    """18 to 15 deg C with the defaults: in the band within 20 minutes (20 s of a demo at speed 60), and it stays."""
    model = house()
    t = Thermostat(0, 15.0)
    for step in range(1, 600):
        now = step * 12000
        value, quality = model.read("temperature", now)
        t.step(now, value, quality)
        model.write("heater", t.heater.on, now)
        model.write("vent", t.vent.on, now)
        if step > 100:
            assert 14.0 < value < 16.0, (step, value, t.reason)


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
    m = house(sun_w=2000.0, hour=12.0)
    assert abs(m.sun() - 2000.0) < 1
    assert house(sun_w=2000.0, hour=0.0).sun() == 0
    assert m.read("humidity", 0) == (None, "missing")
    assert house(capacity=1e4, ua=5000.0, vent_ua=5000.0).read("temperature", 3600000)[0] < 20  # stays stable


def check_bare_commands():
    for payload, value in (
        (b"temperature:15", 15),
        (b"temperature:15.5", 15.5),
        (b"  temperature:15 \r\n", 15),
        (b"temperature:-3", -3),
        (b"temperature:0.25", 0.25),
    ):
        cmd = command.parse(command.SETPOINT, payload)
        assert cmd.why is None, cmd.why
        assert cmd.value == value
    for payload in (
        b"",
        b"temperature",
        b"temperature:",
        b"temperature: 15",
        b"temperature:nan",
        b"temperature:inf",
        b"temperature:1e9",
        b"temperature:+15",
        b"temperature:015",
        b"temperature:15.",
        b"temperature:.5",
        b"temperature:--5",
        b"temperature:1_5",
        b"temperature:15,5",
        b"temperature:0x10",
        b"temperature:1234",
        b"Temperature:15",
        b"temperature:15C",
        b"temperature:15\x00",
        b"temperature:\xd9\xa1\xd9\xa5",
        b"\xff\xfe",
        b"temperature:15" + b" " * 19,
    ):
        cmd = command.parse(command.SETPOINT, payload)
        assert cmd.why is not None, payload
        assert cmd.why.startswith("malformed"), payload
        assert cmd.id is None


def check_json_commands():
    def why(name, text, now=1000, retained=False):
        cmd = command.parse(name, text.encode(), retained)
        return cmd.why or command.check(cmd, now, 2.0, 40.0) or ""

    s = command.SETPOINT
    assert why(s, '{"temperature":15}') == ""
    assert why(s, '{"temperature":15.5,"id":"a","exp":1001}') == ""
    assert why("heater", '{"id":"a","args":{"mode":"off"}}') == ""
    assert why("identify", '{"id":"a"}') == ""
    assert why(s, '{"temperature":15,"exp":988}') == "expired 12 s ago"
    assert why(s, '{"temperature":15,"exp":1001}', None).startswith("busy")
    assert why(s, '{"temperature":15}', retained=True).startswith("retained")
    for text in ('{"temperature":1e9}', '{"temperature":1.9}', '{"temperature":40.1}', '{"temperature":-300}'):
        assert why(s, text).startswith("range"), text
    assert why("explode", '{"id":"a"}').startswith("unknown")
    for name, text in (
        (s, '{"temperature":"15"}'),
        (s, '{"temperature":true}'),
        (s, '{"temperature":null}'),
        (s, '{"temperature":1e999}'),
        (s, '{"temperature":NaN}'),
        (s, '{"temperature":15,"temperature":35}'),
        (s, '{"temperature":15,}'),
        (s, '{"temperature" 15}'),
        (s, '{"temperature":15} x'),
        (s, '{"temperature":15,"color":1}'),
        (s, '{"temperature":15,"exp":"soon"}'),
        (s, '{"temperature":15,"exp":1.5}'),
        (s, '{"temperature":15,"exp":true}'),
        (s, '{"temperature":15,"exp":-1}'),
        (s, '{"temperature":15,"id":7}'),
        (s, '{"temperature":15,"id":""}'),
        (s, '{"temperature":15,"id":"\\n"}'),
        (s, '{"temperature":15,"id":"%s"}' % ("x" * 65)),
        (s, '{"temperature":15,"id":"%s"}' % ("x" * 600)),
        (s, "{}"),
        ("heater", "[]"),
        ("heater", '{"args":{"mode":"off"}}'),
        ("heater", '{"id":"a"}'),
        ("heater", '{"id":"a","args":{"mode":"on"}}'),
        ("heater", '{"id":"a","args":{"mode":["off"]}}'),
        ("heater", '{"id":"a","args":{"mode":"off","x":1}}'),
        ("identify", '{"id":"a","args":{"x":1}}'),
        ("identify", '{"id":"a","args":[]}'),
        ("vent", "[[[[[[[[[[[[[[[["),
    ):
        assert why(name, text).startswith("malformed"), (name, text, why(name, text))


def check_recent_is_bounded_and_answers():
    recent = command.Recent()
    first = command.parse("identify", b'{"id":"first"}')
    recent.note(first, "accepted")
    recent.note(first, "done")
    assert recent.find(first)[2] == "done"
    for i in range(command.RECENT):
        recent.note(command.parse("identify", b'{"id":"%d"}' % i), "done")
    assert recent.find(first) is None
    assert len(recent._known) == command.RECENT
    bare = command.parse(command.SETPOINT, b"temperature:15")
    recent.note(bare, "done")
    assert recent.find(bare) is None


def check_strict_json():
    loads = strictjson.loads
    assert loads(b' {"a":[1,-2.5e1,true,false,null,"\\u00e9\\n"],"b":{}} ') == {
        "a": [1, -25.0, True, False, None, "\xe9\n"],
        "b": {},
    }
    bad = ["", "[1 2]", "[1,]", "{,}", "{1:2}", '{"a":1,"a":2}', "01", "1.", ".5", "+1", "1e", "-", "tru", "'a'", '"a']
    bad += ['"\\x"', '"\\ud800"', '"\\u12"', '"a\nb"', "[" * 7 + "]" * 7, "1" * 25, "nul", "NaN", "1 2", "\ufeff1"]
    for text in bad:
        try:
            loads(text.encode())
            raise SystemError("accepted: " + text)
        except strictjson.JSONError:
            pass
    try:
        loads(b'"\xff"')
        raise SystemError("not UTF-8, and accepted")
    except strictjson.JSONError:
        pass


def check_backoff_bounds():
    for chance in (0.0, 0.5, 1.0):
        backoff = Backoff(1, 60, 10, 60, 300, lambda a, b, c=chance: a + (b - a) * c)
        for _ in range(30):
            assert 1 <= backoff.next(0) <= 60
        for _ in range(30):
            assert 1 <= backoff.next(59) <= 60  # a short session is no success
        for _ in range(30):
            delay = backoff.next(0, True)
            assert 1 <= delay <= 300
        assert delay == (1, 1, 300)[int(chance * 2)] or chance == 0.5
        assert 0 <= backoff.next(60) <= 10
        assert 1 <= backoff.next(0) <= 3


def check_bucket():
    """Ten at once, then one every six seconds, over the wrap of the clock too; after a rest ten again."""
    for start in (0, ticks.PERIOD - 3000):
        bucket = Bucket(10, 6000, start)
        assert [bucket.take(start) for _ in range(12)] == [0] * 10 + [6000, 6000]
        assert bucket.take(ticks.add(start, 5999)) == 1
        assert bucket.take(ticks.add(start, 6000)) == 0
        assert bucket.take(ticks.add(start, 6000)) == 6000
        now = ticks.add(start, 70000)  # ten intervals and 4 s later
        assert [bucket.take(now) for _ in range(11)] == [0] * 10 + [6000]
        week = ticks.add(now, 7 * 86400 * 1000)  # more than the clock can tell apart
        assert [bucket.take(week) for _ in range(11)] == [0] * 10 + [6000]


def check_reports_are_strict_json():
    t = Thermostat(0, 20.0)
    t.step(200000, float("nan"))
    cmd = command.parse(command.SETPOINT, b'\x00"\\\xff')
    for text in (
        report.state(t, 5),
        report.status("offline", "greenhouse", "0", 1, True, None, "will"),
        report.telemetry({"temperature": (float("nan"), "ok"), "outside": (1.239, "ok")}, None, "none"),
        report.ack(cmd, "rejected", cmd.why, t, 5),
    ):
        strictjson.loads(text.encode())
    assert strictjson.loads(text)["echo"] == '?"\\?'


def check_config_defaults_and_faults():
    body = {
        "format": 1,
        "name": "peanut",
        "kind": "greenhouse",
        "root": "/plant/peanut",
        "gateway": {"host": "g", "port": 8883},
        "board": {"name": "sim", "chip": "unix", "outputs": {"heater": {}, "vent": {}}, "sensors": {"temperature": {}}},
        "control": {"setpoint": 18, "min": 2, "max": 40},
    }
    good = config.check(body)
    assert good["link"]["cap_s"] == 60
    assert good["link"]["settle_s"] == 60
    assert good["link"]["refused_cap_s"] == 300
    assert "simulate" not in good
    assert config.min_times(good["board"]["outputs"])["heater"] == (60, 180)
    for key, value, fault in (
        ("format", 2, "format: 2 is not within 1 to 1"),
        ("kind", "submarine", "kind:"),
        ("name", "Peanut", "name:"),
        ("root", "/plant/tomato", "root:"),
        ("gateway", {"host": "g", "port": 0}, "gateway.port: 0"),
        ("gateway", {"host": "", "port": 1}, "gateway.host: must be a text"),
        ("gateway", {"port": 1}, "gateway.host: missing"),
        ("control", {"setpoint": 50, "min": 2, "max": 40}, "control.setpoint:"),
        ("control", {"setpoint": 1, "min": 2, "max": 40}, "control.setpoint:"),
        ("control", 5, "control: must be a table"),
        ("link", {"base_s": 70}, "link.base_s"),
        ("board", {"name": "b", "chip": "c", "outputs": {"heater": {}}, "sensors": {"temperature": {}}}, "vent"),
        ("surprise", 1, "surprise: unknown key"),
    ):
        bad = dict(body)
        bad[key] = value
        said = "accepted"
        try:
            config.check(bad)
        except config.ConfigError as e:
            said = str(e)
        assert fault in said, (fault, said)


def checks():
    """(name, function) of every check in this file."""
    everything = globals()
    return [(name, everything[name]) for name in sorted(everything) if name.startswith("check_")]


if __name__ == "__main__":
    for _name, _check in checks():
        _check()
        print("ok", _name)
