"""Home Assistant: what each node is to it, said by its MQTT device discovery (one retained document a node).

The rule it keeps: commands go to the literal topics of agreement 2, where the rules of this gateway judge them like
anybody's; what must be signed goes to `vin/<VIN>/ha/…` instead, for the gateway to sign (api/homes.py). An entity is
shown when the node has told of it. Templates take what the topic really carries: late batches are no readings of now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from peanutd.config import HomeAssistant as Settings
from peanutd.judges import Node
from peanutd.readings import NAME
from peanutd.recorder import Said

LOOK: Final = 60.0
"""Seconds between two looks at the ledger: a node that is no more is taken back."""
MAX_READINGS: Final = 32
"""Readings of one node that become sensors."""
SILENT: Final = 900
"""Seconds after which Home Assistant shows a reading as unknown."""
OUTPUTS: Final = ("vent", "fan", "irrigation", "light")
"""Of a greenhouse, beside its heater, which belongs to the climate entity."""
MODES: Final = {"vent": ("auto", "open", "closed")}
"""Words of an output's mode; of the others: auto, on, off."""
READINGS: Final[Mapping[str, tuple[str, str]]] = {
    "temperature": ("temperature", "°C"),
    "outside": ("temperature", "°C"),
    "ambient": ("temperature", "°C"),
    "humidity": ("humidity", "%"),
    "soil": ("moisture", "%"),
    "pressure": ("atmospheric_pressure", "hPa"),
    "co2": ("carbon_dioxide", "ppm"),
    "light": ("illuminance", "lx"),
    "speed": ("speed", "km/h"),
    "battery": ("voltage", "V"),
    "fuel": ("", "%"),
    "rpm": ("", "1/min"),
    "course": ("", "°"),
}
"""Device class and unit, in Home Assistant's words."""
PLACE: Final = ("latitude", "longitude")


class Mouth(Protocol):
    """How nodes and others are spoken to (mouth.py)."""

    def keep(self, topic: str, payload: bytes) -> None: ...

    def amend(self, topic: str, change: Callable[[bytes | None], bytes | None]) -> None: ...


class Discovery:
    """A part of the recorder: everything is in its thread."""

    def __init__(
        self, settings: Settings, nodes: Callable[[], Sequence[Node]], mouth: Mouth, version: str, now: float
    ) -> None:
        """nodes: the fleet, from the ledger."""
        self._settings = settings
        self._nodes_of = nodes
        self._mouth = mouth
        self._version = version
        self._nodes: dict[str, Node] = {}
        self._readings: dict[str, set[str]] = {}
        self._states: dict[str, set[str]] = {}
        self._firmware: dict[str, str] = {}
        self._said: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._look_at = now

    def hear(self, said: Said, now: float) -> None:
        if not self._settings.enabled:
            return
        root, body = said.report.root, said.body
        match said.report.leaf:
            case "telemetry" if isinstance(body.get("readings"), dict):
                found = {name for name in body["readings"] if NAME.fullmatch(name)}
                self._learn(self._readings, root, found, MAX_READINGS)
            case "state":
                self._learn(self._states, root, {name for name in body if NAME.fullmatch(name)}, 64)
            case "status" if isinstance(body.get("fw"), str) and self._firmware.get(root) != body["fw"]:
                self._firmware[root] = body["fw"][:64]
                self._changed.add(root)

    def _learn(self, known: dict[str, set[str]], root: str, found: set[str], most: int) -> None:
        names = known.setdefault(root, set())
        if not found <= names and len(names) < most:
            names |= set(sorted(found - names)[: most - len(names)])
            self._changed.add(root)

    def tick(self, now: float) -> None:
        if now >= self._look_at:
            self._look_at = now + LOOK
            before, self._nodes = self._nodes, {node.root: node for node in self._nodes_of() if node.root}
            self._changed |= self._nodes.keys() - before.keys()
            for root in (before.keys() | self._said.keys()) - self._nodes.keys():
                self._withdraw(root.rpartition("/")[2])
                self._said.pop(root, None)
            if not self._settings.enabled:
                for root in self._nodes.keys() - before.keys():
                    self._withdraw(self._nodes[root].name)
        changed, self._changed = self._changed, set()
        for root in changed if self._settings.enabled else ():
            node = self._nodes.get(root)
            if node is None:
                continue
            payload = json.dumps(self.document(node), separators=(",", ":"), ensure_ascii=False).encode()
            if self._said.get(root) != payload:
                self._said[root] = payload
                self._mouth.keep(self.topic(node.name), payload)

    def shift(self, by: float) -> None:
        self._look_at += by

    def topic(self, name: str) -> str:
        """Where a node's document is."""
        return f"{self._settings.prefix}/device/peanut_{name}/config"

    def _withdraw(self, name: str) -> None:
        """Takes a document back, if there is one."""
        self._mouth.amend(self.topic(name), lambda old: b"" if old else None)

    def document(self, node: Node) -> dict[str, Any]:
        """What a node is."""
        vehicle = node.root.startswith("vin/")
        parts = self._vehicle(node) if vehicle else self._greenhouse(node)
        device = {
            "identifiers": [f"peanut_{node.name}"],
            "name": node.name,
            "manufacturer": "Peanut",
            "model": "vehicle" if vehicle else "greenhouse",
            "serial_number": node.name,
        }
        if node.root in self._firmware:
            device["sw_version"] = self._firmware[node.root]
        return {
            "device": device,
            "origin": {"name": "Peanut", "sw_version": self._version or "0"},
            "availability": [
                {
                    "topic": f"{node.root}/status",
                    "value_template": "{{ 'online' if value_json.state == 'online' else 'offline' }}",
                }
            ],
            "qos": 1,
            "components": {
                name: {"unique_id": f"peanut_{node.name}_{name}", **part} for name, part in sorted(parts.items())
            },
        }

    def _greenhouse(self, node: Node) -> dict[str, dict[str, Any]]:
        root, states = node.root, self._states.get(node.root, set())
        parts = self._sensors(node)
        if "setpoint" in states:
            parts["climate"] = _climate(root, "heater" in states)
        for output in OUTPUTS:
            if output in states:
                parts[output] = _flag(root, output.capitalize(), output)
                words = MODES.get(output, ("auto", "on", "off"))
                parts[f"{output}_mode"] = {
                    "platform": "select",
                    "name": f"{output.capitalize()} mode",
                    "state_topic": f"{root}/state",
                    "value_template": _mode_of(output, words),
                    "command_topic": f"{root}/cmd/{output}",
                    "command_template": _command('{"mode":"{{ value }}"}'),
                    "options": list(words),
                }
        parts["identify"] = {
            "platform": "button",
            "name": "Identify",
            "device_class": "identify",
            "entity_category": "diagnostic",
            "command_topic": f"{root}/cmd/identify",
            "command_template": _command("{}"),
        }
        return parts

    def _vehicle(self, node: Node) -> dict[str, dict[str, Any]]:
        root, states = node.root, self._states.get(node.root, set())
        parts = self._sensors(node)
        if "locked" in states:
            parts["lock"] = {
                "platform": "lock",
                "name": None,
                "state_topic": f"{root}/state",
                "value_template": "{{ 'None' if value_json.locked is none else "
                "('LOCKED' if value_json.locked else 'UNLOCKED') }}",
                "command_topic": f"{root}/ha/lock",
                "command_template": '{"do":"{{ value }}","code":"{{ code if code else \'\' }}"}',
                "payload_lock": "lock",
                "payload_unlock": "unlock",
                "optimistic": False,
            }
            if self._settings.code_file:
                parts["lock"]["code_format"] = r"^\d{4,12}$"
        for name, title in (("running", "Engine"), ("door", "Door")):
            if name in states:
                kind = "running" if name == "running" else "door"
                parts[name] = {**_flag(root, title, name), "device_class": kind}
        for verb, title in (("horn", "Horn"), ("stop", "Stop engine")):
            parts[verb] = {"platform": "button", "name": title, "command_topic": f"{root}/ha/{verb}"}
        if set(PLACE) <= self._readings.get(root, set()):
            place = "{{ {'latitude': value_json.readings.latitude[0], 'longitude': value_json.readings.longitude[0]}"
            parts["place"] = {
                "platform": "device_tracker",
                "name": "Place",
                "source_type": "gps",
                "json_attributes_topic": f"{root}/telemetry",
                "json_attributes_template": "{% if value_json.readings is defined and value_json.readings.latitude is "
                "defined and value_json.readings.latitude[1] == 'ok' %}"
                + place
                + " | tojson }}{% else %}{}{% endif %}",
            }
        return parts

    def _sensors(self, node: Node) -> dict[str, dict[str, Any]]:
        root = node.root
        parts: dict[str, dict[str, Any]] = {}
        for name in self._readings.get(root, set()) - set(PLACE):
            kind, unit = READINGS.get(name, ("", ""))
            of = f"value_json.readings['{name}']"
            parts[f"reading_{name}"] = {
                "platform": "sensor",
                "name": name.replace("_", " ").capitalize(),
                "state_topic": f"{root}/telemetry",
                "value_template": f"{{{{ {of}[0] if value_json.readings is defined and {of} is defined "
                f"and {of}[1] == 'ok' else '' }}}}",
                "state_class": "measurement",
                "expire_after": SILENT,
                **({"device_class": kind} if kind else {}),
                **({"unit_of_measurement": unit} if unit else {}),
            }
        if "faults" in self._states.get(root, set()):
            parts["faults"] = {
                **_flag(root, "Fault", "faults"),
                "device_class": "problem",
                "json_attributes_topic": f"{root}/state",
                "json_attributes_template": "{{ {'faults': value_json.faults, 'reason': value_json.reason} | tojson }}",
            }
        return parts


def _climate(root: str, heats: bool) -> dict[str, Any]:
    """A greenhouse's set point and heater."""
    made: dict[str, Any] = {
        "platform": "climate",
        "name": None,
        "temperature_command_topic": f"{root}/UpdateTemperature",
        "temperature_command_template": "temperature:{{ value }}",
        "temperature_state_topic": f"{root}/state",
        "temperature_state_template": "{{ value_json.setpoint }}",
        "current_temperature_topic": f"{root}/state",
        "current_temperature_template": "{{ value_json.temperature }}",
        "temperature_unit": "C",
        "temp_step": 0.5,
        "precision": 0.1,
        "min_temp": 2,
        "max_temp": 40,
        "optimistic": False,
        "modes": ["heat"],
        "mode_state_topic": f"{root}/state",
        "mode_state_template": "heat",
    }
    if heats:
        made |= {
            "modes": ["off", "heat"],
            "mode_state_template": "{{ 'off' if 'heater off' in value_json.mode else 'heat' }}",
            "mode_command_topic": f"{root}/cmd/heater",
            "mode_command_template": _command("{\"mode\":\"{{ 'off' if value == 'off' else 'auto' }}\"}"),
            "action_topic": f"{root}/state",
            "action_template": "{{ 'heating' if value_json.heater else 'idle' }}",
        }
    return made


def _flag(root: str, title: str, name: str) -> dict[str, Any]:
    """Something of the state that is so or is not."""
    return {
        "platform": "binary_sensor",
        "name": title,
        "state_topic": f"{root}/state",
        "value_template": f"{{{{ 'ON' if value_json.{name} else 'OFF' }}}}",
    }


def _command(args: str) -> str:
    """A command with an id of its own, good for a minute."""
    return (
        '{"id":"ha-{{ (now().timestamp() * 1000) | int }}","exp":{{ now().timestamp() | int + 60 }},"args":'
        f"{args}}}"
    )


def _mode_of(output: str, words: Sequence[str]) -> str:
    """Which mode an output is in, by the node's `mode` (`heater off, vent open`; `auto`)."""
    cases = " else ".join(f"'{word}' if '{output} {word}' in value_json.mode" for word in words[1:])
    return f"{{{{ {cases} else 'auto' }}}}"
