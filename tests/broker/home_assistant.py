"""A stand-in for Home Assistant's MQTT integration: what its documentation lets a discovery document say, and what it
does with one.

The rule it keeps: the tables are from Home Assistant's documentation (MQTT integration, device discovery and each
platform) and not from what the gateway sends; templates are rendered by jinja2, as Home Assistant does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import jinja2

DEVICE = {
    *("identifiers", "connections", "name", "manufacturer", "model", "model_id", "hw_version", "sw_version"),
    *("serial_number", "suggested_area", "configuration_url", "via_device"),
}
DOCUMENT = {
    *("device", "origin", "components", "availability", "availability_mode", "availability_topic"),
    *("availability_template", "payload_available", "payload_not_available", "command_topic", "state_topic"),
    *("qos", "encoding"),
}
COMMON = {
    *("platform", "unique_id", "name", "icon", "entity_category", "entity_picture", "enabled_by_default", "qos"),
    *("availability", "availability_mode", "availability_topic", "availability_template", "payload_available"),
    *("payload_not_available", "json_attributes_topic", "json_attributes_template", "encoding", "default_entity_id"),
}
PLATFORMS: Mapping[str, tuple[set[str], set[str]]] = {
    # platform: what it needs, what it may have besides
    "climate": (
        set(),
        {
            *(f"{what}_{kind}" for what in ("mode", "temperature", "preset_mode", "fan_mode", "swing_mode")
              for kind in ("command_topic", "command_template", "state_topic", "state_template")),
            *("action_topic", "action_template", "current_temperature_topic", "current_temperature_template"),
            *("modes", "min_temp", "max_temp", "temp_step", "precision", "temperature_unit", "optimistic", "retain"),
            "initial",
        },
    ),
    "sensor": (
        {"state_topic"},
        {"value_template", "device_class", "state_class", "unit_of_measurement", "expire_after", "force_update",
         "last_reset_value_template", "options", "suggested_display_precision"},
    ),
    "binary_sensor": (
        {"state_topic"},
        {"value_template", "device_class", "payload_on", "payload_off", "expire_after", "force_update", "off_delay"},
    ),
    "select": (
        {"command_topic", "options"},
        {"command_template", "state_topic", "value_template", "optimistic", "retain"},
    ),
    "button": ({"command_topic"}, {"command_template", "payload_press", "device_class", "retain"}),
    "lock": (
        {"command_topic"},
        {"command_template", "code_format", "payload_lock", "payload_unlock", "payload_open", "payload_reset",
         "state_topic", "value_template", "state_locked", "state_unlocked", "state_locking", "state_unlocking",
         "state_jammed", "optimistic", "retain"},
    ),
    "device_tracker": (
        set(),
        {"state_topic", "value_template", "payload_home", "payload_not_home", "payload_reset", "source_type"},
    ),
}  # fmt: skip
CLASSES = {
    "sensor": {
        *("temperature", "humidity", "moisture", "atmospheric_pressure", "carbon_dioxide", "illuminance", "speed"),
        *("voltage", "signal_strength", "duration"),
    },
    "binary_sensor": {"problem", "running", "door", "heat", "power", "connectivity"},
    "button": {"identify", "restart", "update"},
}
UNITS = {
    "temperature": {"°C", "°F", "K"},
    "humidity": {"%"},
    "moisture": {"%"},
    "atmospheric_pressure": {"hPa", "mbar", "kPa", "Pa", "bar"},
    "carbon_dioxide": {"ppm"},
    "illuminance": {"lx"},
    "speed": {"km/h", "m/s", "mph", "kn"},
    "voltage": {"V", "mV"},
}
HVAC_MODES = {"auto", "off", "cool", "heat", "dry", "fan_only", "heat_cool"}


def check(document: Mapping[str, Any]) -> None:
    """That a device discovery document says what it may, and all that it must."""
    assert set(document) <= DOCUMENT
    assert {"device", "origin", "components"} <= set(document)
    assert set(document["device"]) <= DEVICE
    assert document["device"].get("identifiers") or document["device"].get("connections")
    assert document["origin"]["name"]
    assert set(document["origin"]) <= {"name", "sw_version", "support_url"}
    for item in document.get("availability", []):
        assert {"topic"} <= set(item) <= {"topic", "value_template", "payload_available", "payload_not_available"}
    ids = [part["unique_id"] for part in document["components"].values()]
    assert len(ids) == len(set(ids))
    for name, part in document["components"].items():
        _check_part(name, part)


def _check_part(name: str, part: Mapping[str, Any]) -> None:
    needed, allowed = PLATFORMS[part["platform"]]
    assert needed <= set(part), name
    assert set(part) <= needed | allowed | COMMON, (name, set(part) - needed - allowed - COMMON)
    for key, value in part.items():
        if key.endswith("_topic"):
            assert isinstance(value, str), (name, key)
            assert not key.endswith("command_topic") or not set("+#") & set(value), (name, key)
        if key.endswith("template"):
            jinja2.Environment().parse(value)
    kind = part.get("device_class")
    assert kind is None or kind in CLASSES[part["platform"]], name
    if part["platform"] == "sensor" and kind is not None:
        assert part["unit_of_measurement"] in UNITS[kind], name
    if part["platform"] == "climate":
        assert set(part["modes"]) <= HVAC_MODES
    if part["platform"] == "device_tracker":
        assert "state_topic" in part or "json_attributes_topic" in part
    assert part.get("entity_category") in (None, "config", "diagnostic")
    assert part.get("state_class") in (None, "measurement", "total", "total_increasing")


class _Now:
    @staticmethod
    def timestamp() -> float:
        return time.time()


def shown(template: str, payload: bytes | str) -> str:
    """What a template makes of a message."""
    text = payload.decode() if isinstance(payload, bytes) else payload
    return render(template, value=text, value_json=json.loads(text))


def render(template: str, **values: Any) -> str:
    """What a template makes of a value that is to be sent."""
    return jinja2.Environment().from_string(template).render(now=_Now, **values).strip()
