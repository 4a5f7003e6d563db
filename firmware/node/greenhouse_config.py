"""What only a greenhouse's node.json has: its control, its model. Rule: as node/config.py, which uses it."""

from node import schedule

MUST = ...

# As SCHEMA of node/config.py.
TABLES = {
    "control": {
        "setpoint": (float, -20, 44, MUST),
        "min": (float, -20, 44, MUST),
        "max": (float, -20, 44, MUST),
        "hysteresis": (float, 0.1, 10, 0.5),
        "dead_band": (
            float,
            1,
            10,
            1.0,
        ),  # K between "heater off" and "vent open": below 1 the two would chase each other
        "vent_fail": (str, ("open", "closed"), None, "closed"),
        "schedule": (str, None, None, None),  # see node/schedule.py
        "light": (str, None, None, None),
        "utc_offset_h": (float, -12, 14, 0),  # of the schedules
        "fallback": (float, -20, 44, None),
        "fallback_after_s": (float, 60, 86400, 1800),  # without the gateway
        "water_below": (float, 0, 100, 0),  # % of soil moisture; 0: water by order only
        "starts_h": (int, 1, 60, 12),  # times that an output may be switched on in any hour
    },
    "simulate": {
        "speed": (float, 0.1, 3600, 1),
        "start": (float, -60, 60, 18.0),
        "outside": (float, -60, 60, 6.0),
        "swing": (float, 0, 30, 0.0),
        "hour": (float, 0, 24, 8.0),
        "sun_w": (float, 0, 20000, 1500.0),
        "heater_w": (float, 0, 50000, 9000.0),
        "ua": (float, 1, 5000, 300.0),
        "vent_ua": (float, 0, 5000, 400.0),
        "capacity": (float, 1e4, 1e8, 1.08e6),
    },
}


def sense(out, faults):
    """What no single key can tell."""
    name = out["name"]
    for c in name:
        if c not in "abcdefghijklmnopqrstuvwxyz0123456789-":
            faults.append("name: only a to z, 0 to 9 and - are allowed")
            break
    if len(name) > 32 or name[0] == "-" or name[-1] == "-":
        faults.append("name: 1 to 32 characters, no - at either end")
    if out["root"] != "/plant/" + name:
        faults.append("root: must be /plant/%s for this name" % name)
    control = out["control"]
    for key in ("setpoint", "fallback", "schedule", "light"):
        value = control[key]
        try:
            values = [entry[1] for entry in schedule.parse(value)] if isinstance(value, str) else [value]
        except ValueError as e:
            faults.append("control.%s: %s" % (key, e))
            continue
        for value in values:
            if key != "light" and value is not None and not control["min"] <= value <= control["max"]:
                faults.append("control.%s: must lie between control.min and control.max" % key)
    if "temperature" not in out["board"]["sensors"]:
        faults.append("board.sensors.temperature: missing; a greenhouse needs it")
