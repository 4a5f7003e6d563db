"""A vehicle put together: its gate, its car and the drivers of its board.

Rule: composition, no logic. Nothing of ours is imported before it is asked for; in memory at the start only (see
node.forget).
"""

import sys

KEY = "sign.key"  # of the device bundle: what its commands are signed with
KEY_SIZE = 32  # bytes


def app(box):
    """The application of this node. box: node.blackbox.BlackBox."""
    from node.vehicle import Vehicle

    return Vehicle(sys.modules[__name__], box)


def compose(app, cfg, now):
    """What a vehicle has beside what every node has, see node/vehicle.py. Returns words for the log.

    Raises ConfigError where the key of the bundle is missing.
    """
    import asyncio
    import binascii
    import os

    from node import forget, hardware, log, signed, vehicle
    from node.car import Car
    from node.limit import Bucket
    from node.vehicle_config import plain

    key = _key()
    app._time.period_ms = vehicle.PERIOD_MS
    app._sensors = sorted(cfg["board"]["sensors"])
    app._car = Car(app._sensors, app._time.now, cfg["vehicle"]["run_s"])
    app._car.restore(app._box.actuators, app._time.now)
    epoch = binascii.hexlify(os.urandom(8)).decode()
    counter = int(app._store.number("counter", 0, 1 << 53, 0))
    app._gate = signed.Gate(key, cfg["name"], epoch, counter, lambda n: app._store.put("counter", n))
    app._plain = plain(cfg["vehicle"]["compat_plain"])
    app._bare = Bucket(vehicle.BARE[0], vehicle.BARE[1], now)
    app._asked_for = Bucket(vehicle.ASKED[0], vehicle.ASKED[1], now)
    app._due = asyncio.Event()
    app._alarm = app._acting = False
    app._up_s = app._up_ms = 0
    app._up_at = now
    app._can = hasattr(hardware.machine, "CAN")
    app._seal = None
    if cfg["vehicle"]["seal"]:
        from node.seal import Seal

        app._seal = Seal(key)
    for verb in signed.VERBS:
        app._topics[app._root + "/" + verb] = lambda p, r, verb=verb: app._command(verb, p, r)
    app._tasks.append(("session", app._session))
    log.info("can", "this image has CAN" if app._can else "this image has no CAN: an ELM327 has to do")
    if app._plain:
        app.event("compat", "obeyed without a signature: " + ", ".join(app._plain))
    forget("node.vehicle_config")
    return "session %s, counter %d" % (epoch, counter)


def _key():
    from node import ConfigError

    try:
        with open(KEY, "rb") as f:
            key = f.read(KEY_SIZE + 1)
    except OSError as e:
        raise ConfigError("%s: cannot be read (%s): put the device bundle on this node" % (KEY, e))
    if len(key) != KEY_SIZE:
        raise ConfigError("%s: %d bytes expected" % (KEY, KEY_SIZE))
    return key


def house(cfg, now):
    """What `read`, `pulse` and the rest go to: the board's pins and lines, or the model. Raises ConfigError."""
    if "simulate" not in cfg:
        from drivers.dash import Dash
        from drivers.opening import Opening

        opening = Opening(cfg["board"], now, house=Dash)
        opening.house.timer = opening.machine.Timer(0)
        return opening.house
    from drivers.vehicle_model import Vehicle

    s = dict(cfg["simulate"])
    del s["speed"]
    return Vehicle(now, **s)
