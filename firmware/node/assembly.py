"""How a node is put together: its configuration, its store, its house, what its kind adds, its way to the gateway.

Rule: composition. In memory at the start only (see node.forget), so nothing here is ever called again; and what is read
at the start (keys, configuration) has left memory before the code that stays comes in; only mqtt.py comes before, for
its receive buffer is the largest block of all, and wants the heap while it is whole.
"""

import asyncio

from node import VERSION, ConfigError, borrow, clock, forget, log, mqtt, store
from node.limit import Bucket
from node.ota import Ota

CHANGES = (10, 6000)  # changes of one thing at once, and ms to one more: flash and relays wear
LINES = (20, 3000)  # the same for log lines about commands


def assemble(app, profile, box):
    """Fill in `app` (node.app.App). profile: a module of profiles/, whose `compose` fills in the rest; box:
    node.blackbox.BlackBox. Raises ConfigError with what to mend."""
    from node import keys

    ctx, valid, app._cert, proving = keys.context(store.read)  # first, while the heap is whole
    forget("node.keys", "node.slots", "node.strictjson")
    country, networks = _configure(app, proving)
    cfg = app._cfg
    from node import powerup

    app._store = store.Store(nvs=powerup.nvs())
    app._boot = int(app._store.number("boot", 0, 1 << 29, 0)) + 1
    app._store.put("boot", app._boot)
    app._seen = int(app._store.number("time", 0, 1 << 40, 0))
    app._expires = valid[1]
    clock.begin(max(app._seen, valid[0]))
    app._time = clock.LoopTime(cfg["simulate"]["speed"] if app._sim else 1)
    app._house = profile.house(cfg, app._time.now)
    forget("drivers.opening")
    app._box = box
    _queues(app)
    words = profile.compose(app, cfg, clock.now())
    forget("node.schedule")
    borrow()  # what found the readings of before
    if cfg["board"]["led"]:
        from node import led

        led.open(app, cfg["board"]["led"])
    _lighten(cfg)
    _connect(app, ctx)
    _wireless(app, country, networks)
    forget("node.powerup")
    if not box.was.startswith(("power", "planned")):
        app.event("reset", box.was)
    log.info("app", "%s, firmware %s, boot %d, %s" % (cfg["name"], VERSION, app._boot, words))


def _configure(app, proving):
    """The configuration in force. Returns (country, networks) of the Wi-Fi; networks None: there are none to join."""
    from node import config, desired

    asked = desired.Desired()
    app._cfg = asked.load()
    app._asked = asked.told()
    app._root = app._cfg["root"]
    app._sim = "simulate" in app._cfg
    app._about = app._root if app._root[0] == "/" else "/" + app._root
    app._trials = (asked.trial, proving) if asked.trial or proving else None  # of configuration and certificate
    log.level = app._cfg["report"]["log"]
    try:
        return config.networks(asked.wifi() or store.read("wifi.json"))
    except OSError:  # wired, or a PC
        return None, None
    except ValueError as e:
        raise ConfigError("wifi.json: %s" % e)
    finally:
        forget("node.desired", "node.config", "node.slots", "node.strictjson")


def _lighten(cfg):
    """Of the configuration, what was needed to open the house goes; of each output, its safe level stays."""
    board = cfg["board"]
    outputs = {name: spec.get("safe") == "on" for name, spec in board["outputs"].items()}
    cfg["board"] = {"name": board["name"], "outputs": outputs}
    for table in ("simulate", "vehicle", "format"):
        cfg.pop(table, None)


def _queues(app):
    """What waits to be sent, and what is to be done; nothing yet."""
    begun = clock.now()
    app._pending = []  # commands accepted, to be in force after the next turn of the control loop
    app._in_force = 0  # how many of them are
    app._outbox = []  # payloads for <root>/ack
    app._lost_acks = 0
    app._changes = {name: Bucket(CHANGES[0], CHANGES[1], begun) for name in ("config", "ota")}
    app._lines = Bucket(LINES[0], LINES[1], begun)
    app._untold = 0  # log lines left out
    app._changed = True  # the state differs from the one published
    app._configured = app._asked["gen"] or app._asked["errors"]  # config/reported is to be published
    app._certified = True  # cert/reported is
    app._renewed = False  # a new certificate waits to be tried
    app._events = []  # payloads for <root>/event
    app._why = None  # of a planned end
    app._wake = asyncio.Event()
    app._verbs = app._root + "/cmd/"
    update = Ota(app)
    app._topics = {
        app._root + "/config/desired": app._configure,
        app._root + "/ota/desired": update.desired,
        app._root + "/ota/chunk": update.chunk,
        "$cert" + app._about: app._renew,
    }
    app._tasks = [("answers", app._answers), ("telemetry", app._telemetry), ("update", update.run)]


def _connect(app, ctx):
    """The client, the link, and the vitals that report through them."""
    from node.link import Link
    from node.vitals import Vitals

    cfg = app._cfg
    app._client = mqtt.Client(
        cfg["name"],
        (app._root + "/status", app._status("offline", why="connection lost", will=True)),
        sorted(app._topics) + [app._verbs + "+"],
        cfg["link"]["keepalive_s"],
        app.CLEAN,
        app._on_message,
        app._birth,
    )
    app._client.before = app._before
    app._link = Link(cfg["gateway"], cfg["link"], ctx, app._client)
    app._link.network = app._reachable
    app._vitals = Vitals(app._box, app._facts)
    app._tasks += [("link", app._link.run), ("report", app._report)]


def _wireless(app, country, networks):
    """The Wi-Fi of this node, where there is one to join."""
    from node import powerup

    station = networks and powerup.wlan(app._cfg["name"], country)
    app._wifi = None
    if station:
        from node.wifi import Wifi

        app._wifi = Wifi(station, networks, clock.now())
        app._link.wlan = station
        app._tasks.append(("wifi", app._radio))
