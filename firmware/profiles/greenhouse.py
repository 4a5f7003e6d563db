"""A greenhouse put together: its thermostat and the drivers of its board. Rule: composition, no logic."""

from drivers.greenhouse_model import Greenhouse
from node import config
from node.control import Thermostat


def thermostat(cfg, now, setpoint):
    """The control of this node. setpoint: deg C, the one in force before the restart."""
    control = cfg["control"]
    times = config.min_times(cfg["board"]["outputs"])
    return Thermostat(now, setpoint, control["hysteresis"], times, control["vent_fail"] == "open")


def house(cfg, now):
    """What `read` and `write` go to. Raises ConfigError for a board that this firmware has no drivers for."""
    if "simulate" not in cfg:
        raise config.ConfigError("node.json: simulate: missing; this firmware drives the model greenhouse only")
    s = cfg["simulate"]
    return Greenhouse(
        now,
        start=s["start"],
        outside=s["outside"],
        swing=s["swing"],
        hour=s["hour"],
        sun_w=s["sun_w"],
        heater_w=s["heater_w"],
        ua=s["ua"],
        vent_ua=s["vent_ua"],
        capacity=s["capacity"],
    )
