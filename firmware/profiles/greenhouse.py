"""A greenhouse put together: its climate control and the drivers of its board.

Rule: composition, no logic. Nothing of ours is imported before it is asked for, so that an import of this that fails
means another kind of node; in memory at the start only (see node.forget).
"""

import sys


def app(box):
    """The application of this node. box: node.blackbox.BlackBox."""
    from node.greenhouse import Greenhouse

    return Greenhouse(sys.modules[__name__], box)


def compose(app, cfg, now):
    """What a greenhouse has beside what every node has, see node/greenhouse.py. Returns words for the log."""
    from node.actuator import NAMES
    from node.assembly import CHANGES
    from node.control import NOTHING, SETPOINT
    from node.limit import Bucket
    from node.recent import Recent
    from node.ring import Ring

    limits = cfg["control"]
    setpoint = app._store.number("setpoint", limits["min"], limits["max"], limits["setpoint"])
    app._aim = limits["setpoint"]
    app._sensors = sorted(cfg["board"]["sensors"])
    app._climate = climate(cfg, app._time.now, setpoint, app._store.number("held", -2, 1440, NOTHING))
    app._climate.restore(app._box.actuators)
    app._readings = {}
    app._air = None
    if cfg["report"]["air"]:
        from node import air

        app._air = air.extend
    app._recent = Recent(app._box.ids)
    for name in (SETPOINT,) + NAMES:
        app._changes[name] = Bucket(CHANGES[0], CHANGES[1], now)
    app._ring = Ring(app._sensors, app._boot, now)
    app._kept = None
    app._topics[app._root + "/" + SETPOINT] = app._set
    app._tasks.append(("backfill", app._backfill))
    return "set point %.1f" % setpoint


def climate(cfg, now, setpoint, held):
    """The control of this node. setpoint: deg C, the one in force before the restart; held: see Climate."""
    from node.control import Climate
    from node.schedule import parse

    control = cfg["control"]
    day, lamp = [control[key] and parse(control[key]) for key in ("schedule", "light")]
    return Climate(now, setpoint, control, cfg["board"]["outputs"], held, day, lamp)


def house(cfg, now):
    """What `read` and `write` go to: the board's pins, or the model, of which a node has one kind of files only.

    Raises ConfigError naming what of the board cannot be opened.
    """
    if "simulate" not in cfg:
        from drivers.opening import Opening

        return Opening(cfg["board"], now).house
    from drivers.greenhouse_model import Greenhouse

    s = dict(cfg["simulate"])
    del s["speed"]
    return Greenhouse(now, **s)
