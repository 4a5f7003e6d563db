"""What only a vehicle's node.json has: what it may do, its model. Rule: as node/config.py, which uses it.

`vehicle` can be set in the bundle only, never by the gateway (node/desired.py): whoever has the gateway must not be
able to open a door by switching signatures off.
"""

from node.signed import VERBS

HARMLESS = ("lock", "horn")  # may be obeyed unsigned; for the others compat_unsafe is asked for as well

# As SCHEMA of node/config.py.
TABLES = {
    "vehicle": {
        "compat_plain": (str, None, None, None),  # "lock, horn": obeyed without a signature too
        "compat_unsafe": (bool, None, None, False),  # `unlock`, `start` and `stop` may be among them
        "run_s": (float, 60, 900, 600),  # a remote start ends after it
        "seal": (bool, None, None, False),  # telemetry leaves encrypted
    },
    "simulate": {
        "speed": (float, 0.1, 3600, 1),
        "latitude": (float, -80, 80, 50.1109),  # where it is parked; it drives a circle from there
        "longitude": (float, -179, 179, 8.6821),
        "kmh": (float, 0, 130, 50),
        "parked_s": (float, 0, 86400, 120),
        "drive_s": (float, 30, 86400, 600),
    },
}


def plain(text):
    """The verbs of compat_plain."""
    return [word.strip() for word in text.split(",")] if text else []


def sense(out, faults):
    """What no single key can tell."""
    name = out["name"]
    for c in name:
        if c not in "ABCDEFGHJKLMNPRSTUVWXYZ0123456789" or len(name) != 17:
            faults.append("name: a VIN has 17 capital letters and digits, without I, O and Q")
            break
    if out["root"] != "vin/" + name:
        faults.append("root: must be vin/%s for this name" % name)
    vehicle = out["vehicle"]
    for verb in plain(vehicle["compat_plain"]):
        if verb not in VERBS:
            faults.append("vehicle.compat_plain: %s is not one of: %s" % (verb, ", ".join(VERBS)))
        elif verb not in HARMLESS and not vehicle["compat_unsafe"]:
            faults.append("vehicle.compat_plain: %s without a signature needs vehicle.compat_unsafe" % verb)
    for verb in out["board"]["outputs"]:
        spec = out["board"]["outputs"][verb]
        if verb not in VERBS:
            faults.append("board.outputs.%s: not one of: %s" % (verb, ", ".join(VERBS)))
        elif spec.get("safe", "off") != "off":
            faults.append("board.outputs.%s: a relay of a vehicle rests open" % verb)
    for verb, end in (("unlock", "lock"), ("start", "stop")):
        if verb in out["board"]["outputs"] and end not in out["board"]["outputs"]:
            faults.append("board.outputs.%s: missing; a car that can %s must %s again by itself" % (end, verb, end))
