"""Home Assistant discovery: documents that it understands, templates that hold for what nodes really say, and that a
node which is no more is taken back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from peanutd.config import HomeAssistant as Settings
from peanutd.discovery import LOOK, MAX_READINGS, Discovery
from peanutd.ear import Report
from peanutd.judges import Node
from peanutd.recorder import Said
from tests.broker.home_assistant import check, render, shown

NOW = 1_763_740_800.0
VIN = "WVWZZZ1JZXW000001"
PEANUT, CAR = Node("peanut", "/plant/peanut"), Node(VIN, f"vin/{VIN}")
STATE = {
    "setpoint": 15.0,
    "by": "order",
    "temperature": 15.2,
    "heater": True,
    "vent": False,
    "fan": False,
    "mode": "vent open",
    "reason": "too cold",
    "faults": ["frost"],
    "ts": 5,
}
TELEMETRY = {"ts": 5, "tq": "ntp", "readings": {"temperature": [15.2, "ok", 3], "humidity": [None, "crc", 40]}}
LATE = {"late": True, "batch": [TELEMETRY]}
CAR_STATE = {"locked": True, "running": False, "door": False, "speed": 0.0, "reason": "", "faults": []}
PLACE = {
    "latitude": [48.1, "ok", 1],
    "longitude": [11.5, "ok", 1],
    "speed": [50.0, "ok", 1],
    "battery": [12.4, "ok", 1],
}


class Bench:
    def __init__(self, *nodes: Node, **settings: Any) -> None:
        self.now = NOW
        self.nodes: Sequence[Node] = nodes
        self.retained: dict[str, bytes] = {}
        self.kept = 0
        self.discovery = Discovery(Settings(**{"enabled": True, **settings}), lambda: self.nodes, self, "1", NOW)

    def keep(self, topic: str, payload: bytes) -> None:
        self.kept += 1
        self.retained[topic] = payload

    def amend(self, topic: str, change: Callable[[bytes | None], bytes | None]) -> None:
        if (made := change(self.retained.get(topic))) is not None:
            self.retained[topic] = made

    def say(self, node: Node, leaf: str, body: dict[str, Any]) -> None:
        self.discovery.hear(Said(Report(node.root, leaf, b"", False), body), self.now)

    def turn(self, seconds: float = 0) -> None:
        self.now += seconds
        self.discovery.tick(self.now)

    def document(self, node: Node = PEANUT) -> dict[str, Any]:
        self.turn()
        found: dict[str, Any] = json.loads(self.retained[f"homeassistant/device/peanut_{node.name}/config"])
        check(found)
        return found

    def parts(self, node: Node = PEANUT) -> dict[str, Any]:
        found: dict[str, Any] = self.document(node)["components"]
        return found


def greenhouse() -> Bench:
    bench = Bench(PEANUT)
    bench.turn()
    bench.say(PEANUT, "state", STATE)
    bench.say(PEANUT, "telemetry", TELEMETRY)
    bench.say(PEANUT, "status", {"state": "online", "fw": "1.2"})
    return bench


def test_a_greenhouse_is_what_it_has_told_of() -> None:
    bench = Bench(PEANUT)
    assert set(bench.parts()) == {"identify"}
    bench.say(PEANUT, "telemetry", TELEMETRY)
    assert set(bench.parts()) == {"identify", "reading_temperature", "reading_humidity"}
    bench.say(PEANUT, "state", STATE)
    assert {"climate", "vent", "vent_mode", "fan", "fan_mode", "faults"} <= set(bench.parts())
    assert not {"irrigation", "light"} & set(bench.parts())
    bench.say(PEANUT, "status", {"state": "online", "fw": "1.2"})
    device = bench.document()["device"]
    assert (device["identifiers"], device["sw_version"]) == (["peanut_peanut"], "1.2")


def test_it_is_said_once() -> None:
    bench = greenhouse()
    bench.turn()
    kept = bench.kept
    for _ in range(5):
        bench.say(PEANUT, "state", STATE)
        bench.say(PEANUT, "telemetry", TELEMETRY)
        bench.turn(LOOK)
    assert bench.kept == kept


def test_the_climate_is_commanded_on_the_literal_topic() -> None:
    climate = greenhouse().parts()["climate"]
    assert climate["temperature_command_topic"] == "/plant/peanut/UpdateTemperature"
    assert render(climate["temperature_command_template"], value=15.5) == "temperature:15.5"
    state = json.dumps(STATE)
    assert shown(climate["temperature_state_template"], state) == "15.0"
    assert shown(climate["current_temperature_template"], state) == "15.2"
    assert shown(climate["action_template"], state) == "heating"
    assert shown(climate["mode_state_template"], state) == "heat"
    assert shown(climate["mode_state_template"], json.dumps({**STATE, "mode": "heater off, vent open"})) == "off"
    for value, mode in (("off", "off"), ("heat", "auto")):
        said = json.loads(render(climate["mode_command_template"], value=value))
        assert said["args"] == {"mode": mode}
        assert said["id"].startswith("ha-")
        assert said["exp"] > 1_700_000_000


def test_a_greenhouse_without_a_heater_can_only_be_watched_and_set() -> None:
    bench = Bench(PEANUT)
    bench.say(PEANUT, "state", {name: value for name, value in STATE.items() if name != "heater"})
    climate = bench.parts()["climate"]
    assert climate["modes"] == ["heat"]
    assert "mode_command_topic" not in climate


def test_sensors_take_live_readings_and_nothing_else() -> None:
    parts = greenhouse().parts()
    temperature, humidity = parts["reading_temperature"]["value_template"], parts["reading_humidity"]["value_template"]
    assert shown(temperature, json.dumps(TELEMETRY)) == "15.2"
    assert shown(humidity, json.dumps(TELEMETRY)) == "", "ignored: it is not ok"
    assert shown(temperature, json.dumps(LATE)) == "", "ignored: it is not of now"


def test_outputs_modes_and_faults() -> None:
    parts, state = greenhouse().parts(), json.dumps(STATE)
    assert shown(parts["vent"]["value_template"], state) == "OFF"
    assert shown(parts["vent_mode"]["value_template"], state) == "open"
    assert shown(parts["fan_mode"]["value_template"], state) == "auto"
    assert parts["vent_mode"]["options"] == ["auto", "open", "closed"]
    said = json.loads(render(parts["vent_mode"]["command_template"], value="closed"))
    assert (parts["vent_mode"]["command_topic"], said["args"]) == ("/plant/peanut/cmd/vent", {"mode": "closed"})
    assert shown(parts["faults"]["value_template"], state) == "ON"
    assert json.loads(shown(parts["faults"]["json_attributes_template"], state))["faults"] == ["frost"]
    assert json.loads(render(parts["identify"]["command_template"], value="PRESS"))["args"] == {}


def test_who_is_there() -> None:
    (online,) = greenhouse().document()["availability"]
    assert online["topic"] == "/plant/peanut/status"
    found = [
        shown(online["value_template"], json.dumps({"state": state})) for state in ("online", "offline", "sleeping")
    ]
    assert found == ["online", "offline", "offline"]


def car(**settings: Any) -> dict[str, Any]:
    bench = Bench(CAR, **settings)
    bench.say(CAR, "state", CAR_STATE)
    bench.say(CAR, "telemetry", {"readings": PLACE})
    return bench.parts(CAR)


def test_a_vehicle_is_commanded_through_the_gateway_which_signs() -> None:
    parts = car()
    lock = parts["lock"]
    assert lock["command_topic"] == f"vin/{VIN}/ha/lock"
    assert json.loads(render(lock["command_template"], value="lock", code=None)) == {"do": "lock", "code": ""}
    assert json.loads(render(lock["command_template"], value="unlock", code="1234")) == {"do": "unlock", "code": "1234"}
    shows = [shown(lock["value_template"], json.dumps({"locked": locked})) for locked in (True, False, None)]
    assert shows == ["LOCKED", "UNLOCKED", "None"]
    assert [parts[verb]["command_topic"] for verb in ("horn", "stop")] == [f"vin/{VIN}/ha/horn", f"vin/{VIN}/ha/stop"]
    assert "start" not in parts
    assert "code_format" not in lock
    assert "code_format" in car(code_file="ha.code")["lock"]


def test_where_a_vehicle_is() -> None:
    place = car()["place"]
    said = shown(place["json_attributes_template"], json.dumps({"readings": PLACE}))
    assert json.loads(said) == {"latitude": 48.1, "longitude": 11.5}
    lost = {**PLACE, "latitude": [None, "missing", None]}
    for other in (LATE, TELEMETRY, {"sealed": "…"}, {"readings": lost}):
        assert json.loads(shown(place["json_attributes_template"], json.dumps(other))) == {}
    assert not {"reading_latitude", "reading_longitude"} & set(car())


def test_off_by_default_and_taken_back_when_it_is_off_again() -> None:
    assert not Settings().enabled
    bench = greenhouse()
    bench.turn()
    off = Bench(PEANUT, enabled=False)
    off.retained = bench.retained
    off.say(PEANUT, "state", STATE)
    off.turn()
    assert set(off.retained.values()) == {b""}
    assert off.kept == 0
    off.retained.clear()
    off.turn(LOOK)
    assert off.retained == {}, "what is not there is not taken back"


def test_a_node_that_is_no_more_is_taken_back() -> None:
    bench = greenhouse()
    bench.turn()
    bench.nodes = []
    bench.turn(LOOK)
    assert set(bench.retained.values()) == {b""}


def test_a_node_cannot_become_a_thousand_sensors() -> None:
    bench = Bench(PEANUT)
    for number in range(200):
        bench.say(PEANUT, "telemetry", {"readings": {f"r{number}": [1, "ok", 0], "Not a name": [1, "ok", 0]}})
    parts = bench.parts()
    assert sum(name.startswith("reading_") for name in parts) == MAX_READINGS
    assert "reading_Not a name" not in parts


def test_its_own_prefix() -> None:
    bench = Bench(PEANUT, prefix="ha/discovery")
    bench.turn()
    assert list(bench.retained) == ["ha/discovery/device/peanut_peanut/config"]
