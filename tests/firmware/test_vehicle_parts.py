"""The parts of a vehicle around gate and car: relays, lines on their devices' bytes, the model, the configuration.

Time is a number; `machine` and its timer are stood in for.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import lines
from .conftest import ROOT

from drivers import elm327, nmea, uart  # isort: skip
from drivers import vehicle_model  # isort: skip
from drivers.dash import GRACE_MS, Dash  # isort: skip
from node import ConfigError, clock, config, ticks  # isort: skip
from node.car import PULSES, RELOCK_MS, RUN_S, UNKNOWN_MS, Car  # isort: skip
from node.sensing import Probe, Unit  # isort: skip

VIN = "1M8GDM9AXKP042788"


# --- relays -----------------------------------------------------------------------------------------------------------


class Relay:
    """An output that remembers; what is done to all of them is in `order`."""

    def __init__(self, name: str, order: list[tuple[Any, ...]]) -> None:
        self.name, self.order = name, order
        self.closed = False

    def write(self, on: bool) -> None:
        self.closed = bool(on)
        self.order.append((self.name, self.closed))


class Timer:
    ONE_SHOT = 0

    def __init__(self, order: list[tuple[Any, ...]]) -> None:
        self.order = order
        self.callback: Any = None

    def init(self, *, mode: int, period: int, callback: Any) -> None:
        assert mode == self.ONE_SHOT
        self.order.append(("timer", period))
        self.callback = callback

    def fire(self) -> None:
        self.callback(self)


class Board:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[tuple[Any, ...]] = []
        self.now = 0
        monkeypatch.setattr(clock, "now", lambda: self.now)
        self.relays = {name: Relay(name, self.order) for name in ("unlock", "lock", "horn")}
        self.dash: Any = Dash(self.relays, {}, [])
        self.dash.timer = self.timer = Timer(self.order)

    def closed(self) -> list[str]:
        return [name for name, relay in self.relays.items() if relay.closed]


def test_the_timer_is_armed_before_the_relay_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails in between leaves it open."""
    board = Board(monkeypatch)
    board.dash.pulse("unlock", 300)
    assert board.order == [("timer", 300), ("unlock", True)]
    assert not board.dash.idle()
    board.timer.fire()
    assert board.order[2:] == [("unlock", False)]
    assert board.dash.idle()


def test_a_timer_that_never_fires_closes_nothing_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch)
    board.dash.pulse("horn", 500)
    board.now = 500 + GRACE_MS
    board.dash.tend(0)
    assert board.closed() == ["horn"]
    board.now += 1
    board.dash.tend(0)
    assert board.closed() == []
    done = list(board.order)
    board.timer.fire()  # late after all: nothing is opened twice
    assert board.order == done


def test_safe_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch)
    board.dash.pulse("unlock", 300)
    for name in board.relays:
        board.dash.write(name, True, 0)  # whatever is asked for
    assert board.closed() == []
    assert board.dash.idle()


# --- the car over a reset ---------------------------------------------------------------------------------------------


def test_what_a_command_has_set_going_is_ended_by_the_life_after_a_reset() -> None:
    """A remote start and an unlock know their age; a power cut leaves neither, and nothing moves because of it."""
    first: Any = Car(("speed", "rpm"), 0)
    assert first.idle()
    first.act("unlock", 0)
    first.act("start", 0)
    assert not first.idle()
    kept = first.export(20_000)
    assert len(kept) <= 104
    now = ticks.PERIOD - 5_000  # another tick counter
    second: Any = Car(("speed", "rpm"), now)
    second.restore(kept, now)
    assert second.locked is False

    def step(ms: int) -> list[tuple[str, int]]:
        for name in ("speed", "rpm"):
            second.sense(name, 0, "ok", ticks.add(now, ms))
        end = second.step(ticks.add(now, ms))
        return [(end[0], second.act(end[0], ticks.add(now, ms), end[1]))] if end else []

    assert step(RELOCK_MS - 20_000 - 1) == []
    assert step(RELOCK_MS - 20_000) == [("lock", PULSES["lock"])]
    assert step(RUN_S * 1000 - 20_000 - 1) == []
    assert step(RUN_S * 1000 - 20_000) == [("stop", PULSES["stop"])]
    third: Any = Car(("speed",), 0)
    for junk in (b"", b"1", bytes(104), b"\xff" * 6):
        third.restore(junk, 0)
    assert third.idle()
    assert third.locked is None


@given(st.integers(0, 100_000), st.sampled_from(["unlock", "start"]))
def test_an_export_of_any_age_can_be_read(seconds: int, verb: str) -> None:
    car: Any = Car((), 0)
    car.act(verb, 0)
    other: Any = Car((), 0)
    other.restore(car.export(min(seconds * 1000, (1 << 29) - 1)), 0)
    assert not other.idle()


# --- lines ------------------------------------------------------------------------------------------------------------


class Wire:
    """A serial line with a device at its end, which answers at once unless `cut`."""

    def __init__(self, device: lines.Elm | None = None) -> None:
        self.device = device
        self.inward = b""
        self.cut = False

    def read(self) -> bytes:
        data, self.inward = self.inward, b""
        return b"" if self.cut else data

    def write(self, data: bytes) -> None:
        if self.device is not None and not self.cut:
            self.inward += self.device.feed(data)

    def recover(self) -> None:
        self.inward = b""


class Desk:
    """A chip of ours on a line, asked as a board asks it."""

    def __init__(self, chip: Any, wire: Wire) -> None:
        self.wire = wire
        self.chip = chip
        self.probes = {name: Probe(False) for name in chip.QUANTITIES}
        self.unit: Any = Unit(chip, list(self.probes.values()), wire, 0)
        self.now = 0

    def run(self, ms: int) -> None:
        for _ in range(ms // 100):
            self.now += 100
            self.unit.turn(self.now)

    def told(self, name: str) -> Any:
        return self.probes[name].told(self.now)[:2]

    def age(self, name: str) -> int:
        age: int = self.probes[name].age(self.now)
        return age


def test_an_elm327_from_its_first_word() -> None:
    elm = lines.Elm()
    elm.speed, elm.rpm, elm.fuel, elm.ambient, elm.volts, elm.codes = 37, 1726.25, 80, -7, 14.1, ["0133", "C300"]
    desk = Desk(elm327.Chip(Wire(elm)), Wire(elm))
    desk.chip._line = desk.wire
    desk.run(4000)
    assert elm.asked[: len(elm327.SETUP)] == list(elm327.SETUP)
    assert {name: desk.told(name) for name in ("rpm", "speed", "ambient", "codes")} == {
        "rpm": [1726.25, "ok"], "speed": [37, "ok"], "ambient": [-7, "ok"], "codes": [2, "ok"],
    }  # fmt: skip
    assert desk.told("fuel")[0] == pytest.approx(80, abs=0.2)
    assert desk.told("battery")[0] == pytest.approx(14.1)
    assert desk.chip.codes == ["P0133", "U0300"]
    elm.speed = 0
    desk.run(2000)
    assert desk.told("speed") == [0, "ok"]
    assert desk.age("speed") <= 2000


def test_a_value_that_is_not_told_again_grows_old() -> None:
    """Of a car that fell asleep the adapter knows nothing: no speed is young because the adapter still talks."""
    elm = lines.Elm()
    desk = Desk(elm327.Chip(Wire(elm)), Wire(elm))
    desk.chip._line = desk.wire
    desk.run(4000)
    elm.asleep = True
    desk.run(10_000)
    assert desk.age("speed") > UNKNOWN_MS
    assert desk.age("battery") < 3000
    elm.asleep = False
    desk.run(4000)
    assert desk.age("speed") < 2000


def test_an_adapter_that_is_pulled_out_is_missing_and_set_up_again() -> None:
    elm = lines.Elm()
    desk = Desk(elm327.Chip(Wire(elm)), Wire(elm))
    desk.chip._line = desk.wire
    desk.run(3000)
    desk.wire.cut = True
    desk.run(elm327.SILENT_MS + 1000)
    assert desk.told("speed") == [None, "missing"]
    desk.wire.cut = False
    elm._echo = True  # it lost its power
    before = len(elm.asked)
    desk.run(6000)
    assert "ATE0" in elm.asked[before:]
    assert desk.told("speed") == [0, "ok"]


def test_the_drive_of_a_receiver() -> None:
    """Every second of the track: place and speed as they stand in it; nothing in the tunnel, nothing from damage."""
    desk = Desk(nmea.Chip(Wire()), Wire())
    desk.chip._line = desk.wire
    tunnel = 0
    for second in lines.seconds():
        desk.wire.inward += second
        desk.run(1000)
        wanted = lines.fix(second)
        if wanted is None:
            tunnel += 1
            assert desk.told("latitude")[1] == "missing"
            continue
        told = [desk.told(name) for name in ("latitude", "longitude", "speed")]
        assert [quality for _, quality in told] == ["ok"] * 3
        assert [value for value, _ in told] == pytest.approx(list(wanted), abs=1e-6)
        assert desk.age("latitude") <= 1000
        assert 8 <= desk.told("satellites")[0] <= 10
    assert tunnel == 8
    desk.run(nmea.OLD_MS + 200)
    assert desk.told("latitude") == [None, "missing"]


def test_the_lines_of_a_board_are_its_uarts_one_and_two() -> None:
    made = []

    class Machine:
        Pin = int

        class UART:
            def __init__(self, number: int, baud: int, **more: Any) -> None:
                made.append((number, baud, more))

            def read(self) -> None:
                return None

            def write(self, data: bytes) -> None:
                made.append(data)

    class Opening:
        machine = Machine

        def __init__(self) -> None:
            obd = {"kind": "uart", "baud": 38400, "tx": 18, "rx": 35}
            self.buses = {"obd": obd, "gps": {"kind": "uart", "baud": 9600, "tx": 5, "rx": 34}, "a": {"kind": "i2c"}}

    opening = Opening()
    uart.open(opening.buses["obd"], opening)
    first = uart.open(opening.buses["gps"], opening)
    assert made == [
        (2, 38400, {"tx": 18, "rx": 35, "rxbuf": uart.ROOM}),
        (1, 9600, {"tx": 5, "rx": 34, "rxbuf": uart.ROOM}),
    ]
    assert first.read() == b""


# --- the model --------------------------------------------------------------------------------------------------------


def model(**settings: float) -> Any:
    defaults = {key: rule[3] for key, rule in vehicle_config().TABLES["simulate"].items() if key != "speed"}
    return vehicle_model.Vehicle(0, **{**defaults, **settings})


def vehicle_config() -> Any:
    return __import__("node.vehicle_config", fromlist=["TABLES"])


@pytest.mark.parametrize("step", [100, 1000, 7300])
def test_the_model_parks_drives_and_parks_again(step: int) -> None:
    """Never faster than it cruises, never off with a door open, and where it moved to it stays."""
    car = model(parked_s=60, drive_s=120, kmh=50)
    now, fastest, places = 0, 0.0, set()
    for _ in range(200_000 // step):
        now += step
        read = {name: car.read(name, now)[0] for name in ("speed", "door", "rpm", "latitude", "parked", "locked")}
        fastest = max(fastest, read["speed"])
        if read["speed"] > 0:
            assert (read["door"], read["parked"], read["locked"]) == (0, 0, 0)
            assert read["rpm"] > 800
        if read["parked"]:
            places.add(read["latitude"])
    assert 45 < fastest <= 50.001
    assert len(places) == 2
    assert car.fuel < 60


def test_the_models_pulses_do_what_relays_would() -> None:
    car = model()
    now = 0
    for verb in ("unlock", "start", "horn"):
        car.pulse(verb, 300)
        car.tend(now + 299)
        assert not car.idle()
        now += 300
        car.tend(now)
        assert car.idle()
    assert (car.locked, car.running, car.horns) == (False, True, 1)
    car.pulse("stop", 300)
    car.write("stop", True, now + 1)
    assert (car.running, car.idle()) == (False, True)


# --- its configuration ------------------------------------------------------------------------------------------------


def node_json(**tables: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "format": 1, "name": VIN, "kind": "vehicle", "root": f"vin/{VIN}",
        "gateway": {"host": "localhost", "port": 8883},
        "board": {"name": "b", "chip": "esp32", "outputs": {}, "sensors": {}},
        "report": {"telemetry_s": 1, "state_s": 1},
    }  # fmt: skip
    return {**body, **tables}


def test_a_vehicles_configuration() -> None:
    body: Any = config.check(node_json())
    assert body["vehicle"] == {"compat_plain": None, "compat_unsafe": False, "run_s": 600, "seal": False}
    body = config.check(node_json(vehicle={"compat_plain": "horn, lock"}))
    assert vehicle_config().plain(body["vehicle"]["compat_plain"]) == ["horn", "lock"]
    config.check(node_json(vehicle={"compat_plain": "unlock", "compat_unsafe": True}))


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"name": "1M8GDM9AXKPO42788"}, "a VIN has 17"),
        ({"name": "1M8"}, "a VIN has 17"),
        ({"root": "vin/1M8GDM9AXKP042780"}, "root: must be"),
        ({"control": {"setpoint": 1}}, "control: unknown key"),
        ({"vehicle": {"compat_plain": "lock, unlock"}}, "needs vehicle.compat_unsafe"),
        ({"vehicle": {"compat_plain": "open"}}, "open is not one of"),
        ({"vehicle": {"seal": 1}}, "vehicle.seal: must be true or false"),
        ({"vehicle": {"run_s": 3600}}, "vehicle.run_s"),
        ({"kind": "submarine"}, "kind:"),
    ],
)
def test_what_a_vehicle_does_not_start_with(tables: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config.check(node_json(**tables))


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        ({"unlock": {"driver": "gpio"}}, "board.outputs.lock: missing"),
        ({"start": {"driver": "gpio"}}, "board.outputs.stop: missing"),
        ({"heater": {"driver": "gpio"}}, "not one of"),
        ({"horn": {"driver": "gpio", "safe": "on"}}, "rests open"),
    ],
)
def test_relays_that_a_vehicle_must_not_have(outputs: dict[str, Any], complaint: str) -> None:
    body = node_json()
    body["board"]["outputs"] = outputs
    with pytest.raises(ConfigError, match=complaint):
        config.check(body)


def test_the_gateway_cannot_switch_signatures_off() -> None:
    """Of config/desired a vehicle takes report, link, gateway and wifi, and nothing of what it may do."""
    from node import desired

    body = node_json(vehicle={"compat_plain": "horn"})
    assert desired.lay(body, {"report": {"telemetry_s": 30}})["vehicle"]["compat_plain"] == "horn"
    for table in ({"vehicle": {"compat_plain": "unlock", "compat_unsafe": True}}, {"control": {"max": 3}}):
        with pytest.raises(ConfigError, match="unknown key"):
            desired.lay(body, table)


def test_the_readme_tells_a_vehicles_bounds_as_they_are() -> None:
    from node import car, signed, vehicle

    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"at most {signed.AHEAD_S} ahead" in text
    assert f"At most {signed.MAX_SIZE} bytes" in text
    assert ("ten times at once, then once a second" in text, vehicle.ASKED) == (True, (10, 1000))
    assert f"any payload up to {vehicle.MAX_BARE} bytes that is no JSON, five at once and one in six seconds" in text
    assert vehicle.BARE == (5, 6000)
    assert (vehicle.SESSION_S, signed.FORGED, signed.FORGED_MS, signed.LOCKED_MS) == (60, 5, 60000, 60000)
    ours = " ".join((ROOT / "firmware" / "README.md").read_text().split())
    assert f"no door answers within {RELOCK_MS // 1000} s locks again" in ours
    assert ("three at once, one more in 20 s" in ours, car.HORNS) == (True, (3, 20000))
    assert ("three at once, one more in 200 s" in ours, car.STARTS) == (True, (3, 200000))
    assert f"not older than {UNKNOWN_MS // 1000} s" in ours
    assert f"{car.AMBIENT[0]} to {car.AMBIENT[1]} °C as far as" in ours
    assert f"after `vehicle.run_s` ({RUN_S // 60} minutes)" in ours
    assert f"closed for {PULSES['unlock']} ms (start {PULSES['start']}, stop and horn {PULSES['horn']})" in ours
    assert ("a second after a timer that failed" in ours, GRACE_MS) == (True, 1000)
    assert f"below {vehicle.STILL} km/h it stands" in ours
    assert f"a fix is nowhere after {nmea.OLD_MS // 1000} s" in ours
    assert json.dumps(list(PULSES)) == '["unlock", "lock", "start", "stop", "horn"]'
