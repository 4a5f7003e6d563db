"""What the gateway changes of a node: its configuration, its certificate; and how a trial of either ends.

Rule: in memory only while something is judged (see node.forget), as are node/desired.py and node/keys.py, which judge.
"""

from node import borrow, clock, store


def configure(app, payload):
    """A configuration: in force at once if it can be, else after a restart in order."""
    if app._changes["config"].take(clock.now()):
        app._asked["errors"] = ["busy: too many changes"]
    elif _ask(app, "judge", bytes(payload), app._cfg):
        app.restart("config")


def renew(app, payload):
    """A certificate: stored, and tried by a restart as soon as that does no harm."""
    busy = app._changes["config"].take(clock.now())
    if not busy and _with_keys(app, "judge", bytes(payload), "peanut:" + app._about[1:]):
        app._renewed = True


def settle(app):
    """A session proves network settings and certificate; without one in time, those before them return."""
    config, cert = app._trials
    app._trials = None
    why = 0 if app._client.ready else "no session in %d s" % app._cfg["link"]["trial_s"]
    again = config and _ask(app, "settle", why)
    if (cert and _with_keys(app, "settle", why)) or again:
        app.restart("config" if again else "certificate")


def _ask(app, what, *args):
    """A function of node/desired.py. Returns whether it wants a restart."""
    app._configured = True
    desired = borrow("node.desired", "node.config", "node.slots", "node.strictjson")
    try:
        app._asked, restart = getattr(desired, what)(*args)
    finally:
        del desired
        borrow()
    return restart


def _with_keys(app, what, *args):
    """A function of node/keys.py. Returns whether it wants a restart."""
    app._certified = True
    keys = borrow("node.keys", "node.slots", "node.strictjson")
    try:
        app._cert, restart = getattr(keys, what)(store.read, *args)
    finally:
        del keys
        borrow()
    return restart
