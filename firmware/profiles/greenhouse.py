"""A greenhouse put together: its climate control and the drivers of its board. Rule: composition, no logic."""

from node.control import Climate


def climate(cfg, now, setpoint, held):
    """The control of this node. setpoint: deg C, the one in force before the restart; held: see Climate."""
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
