"""Checks of the pure modules that run on CPython and on MicroPython alike: the same file, both interpreters.

Rule: nothing here that one of the two lacks; a check is a function `check_…` without arguments that asserts. pytest
runs each through test_pure.py; `micropython pure_checks.py` runs them all and prints one line each.
"""

import random

from node import air, command, config, lines, strictjson, ticks
from node.backoff import Backoff
from node.limit import Bucket
from node.recent import RECENT, Recent


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


def check_vpd_and_dew_point_are_those_of_the_tables():
    """Psychrometric tables: deg C, %, kPa, deg C."""
    for t, h, vpd, dew in ((25, 60, 1.27, 16.7), (20, 50, 1.17, 9.3), (30, 80, 0.85, 26.2), (5, 90, 0.087, 3.5)):
        assert abs(air.vpd(t, h) - vpd) < 0.01, (t, h, air.vpd(t, h))
        assert abs(air.dew_point(t, h) - dew) < 0.06, (t, h, air.dew_point(t, h))
    for t in range(-50, 101, 10):
        assert abs(air.dew_point(t, 100) - t) < 1e-3
        assert air.vpd(t, 100) == 0
        assert air.dew_point(t, 1) < air.dew_point(t, 99) < t


def check_what_is_derived_is_as_good_and_as_old_as_the_worse():
    def told(t, h):
        readings = {"temperature": t, "humidity": h}
        air.extend(readings)
        return readings["vpd"], readings["dew_point"]

    vpd, dew = told([20, "ok", 3], [50, "ok", 9])
    assert vpd[1:] == dew[1:] == ["ok", 9]
    assert abs(vpd[0] - 1.17) < 0.01
    assert told([20, "ok", 3], [None, "missing", None]) == ([None, "missing", 3], [None, "missing", 3])
    assert told([20, "stale", 40], [50, "ok", 1])[0] == [None, "stale", 40]
    assert told([20, "ok", 0], [0, "ok", 0])[1] == [None, "range", 0], "no dew point without any water"
    dry = {"temperature": [20, "ok", 0]}
    air.extend(dry)
    assert list(dry) == ["temperature"]
    assert told([20, "ok", 0], [101, "ok", 0])[0][0] == 0, "wet to the sensor's last per cent"


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
        b"temperature:15.1234",
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
    most = '{"temperature":15%s}'
    assert why(s, most % (" " * (command.MAX_JSON - len(most) + 2))) == ""
    assert why(s, most % (" " * (command.MAX_JSON - len(most) + 3))) == "malformed: more than 512 bytes"
    assert why(s, '{"temperature":15.5,"id":"a","exp":1001}') == ""
    assert why("heater", '{"id":"a","args":{"mode":"off"}}') == ""
    assert why("identify", '{"id":"a"}') == ""
    for name in ("heater", "fan", "irrigation", "light"):
        assert why(name, '{"id":"a","args":{"mode":"off","for_s":43200}}') == "", name
    assert why("vent", '{"id":"a","args":{"mode":"open","for_s":1}}') == ""
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
        ("heater", '{"id":"a","args":{"mode":"off","for_s":0}}'),
        ("heater", '{"id":"a","args":{"mode":"off","for_s":43201}}'),
        ("heater", '{"id":"a","args":{"mode":"off","for_s":1.5}}'),
        ("heater", '{"id":"a","args":{"mode":"off","for_s":true}}'),
        ("heater", '{"id":"a","args":{"for_s":1}}'),
        ("fan", '{"id":"a","args":{"mode":"open"}}'),
        ("identify", '{"id":"a","args":{"x":1}}'),
        ("identify", '{"id":"a","args":[]}'),
        ("vent", "[[[[[[[[[[[[[[[["),
    ):
        assert why(name, text).startswith("malformed"), (name, text, why(name, text))


def check_recent_is_bounded_and_answers():
    recent = Recent()
    first = command.parse("identify", b'{"id":"first"}')
    recent.note(first, "accepted")
    recent.note(first, "done")
    assert recent.find(first)[2] == "done"
    for i in range(RECENT):
        recent.note(command.parse("identify", b'{"id":"%d"}' % i), "done")
    assert recent.find(first) is None
    assert len(recent._known) == RECENT
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
        assert backoff.next(60) == 10 * chance  # a fleet that lost its gateway does not come back all at once
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


def check_lines_give_way_whole():
    """Whatever their lengths: what is kept is the end of what was written, and the count of the lost is right."""

    def line(i):
        return str(i) + "x" * (i * 7 % 60)

    b = bytearray(b"#####" + bytes(95))
    end, lost = 5, 0
    for i in range(200):
        end, more = lines.push(b, 5, end, line(i).encode())
        lost += more
        at = 5
        for n in range(lost, i + 1):
            text, at = lines.pull(b, at)
            assert text == line(n)
        assert at == end <= len(b) == 100
        assert not more or end + len(line(lost - 1)) + 1 > 100  # none goes while there is room
    assert bytes(b[:5]) == b"#####"


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
    control = body["control"]
    good = config.check(body)
    assert good["control"]["fallback"] is None
    day = {"schedule": "06:00 18, 20:00 14.5", "light": "05:00 on, 08:00 off", "fallback": 8}
    assert config.check(dict(body, control=dict(control, **day)))["control"]["fallback"] == 8
    assert good["link"]["cap_s"] == 60
    assert good["link"]["settle_s"] == 60
    assert good["link"]["refused_cap_s"] == 300
    assert "simulate" not in good
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
        ("report", {"log": "loud"}, 'report.log: "loud" is not one of'),
        ("board", {"name": "b", "chip": "c", "outputs": {}, "sensors": {"outside": {}}}, "board.sensors.temperature"),
        ("board", dict(body["board"], outputs={"heater": {"max_on_s": 0}}), "board.outputs.heater.max_on_s: 0"),
        ("control", dict(control, dead_band=0.9), "control.dead_band: 0.9 is not within 1 to 10"),
        ("control", dict(control, fallback=1), "control.fallback: must lie between"),
        ("control", dict(control, schedule="06:00 18, 20:00 41"), "control.schedule: must lie between"),
        ("control", dict(control, schedule="06:00 nan"), "control.schedule: must lie between"),
        ("control", dict(control, schedule="six 18"), "control.schedule: not like"),
        ("control", dict(control, light="06:00"), "control.light: not like"),
        ("control", dict(control, starts_h=0), "control.starts_h: 0 is not"),
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
