"""What <root>/health says.

Rule: facts, no judgement. In memory only while it is said (see node.borrow).
"""

import gc
import json

from node import VERSION, clock, hardware


def body(vitals):
    """The payload. vitals: node.vitals.Vitals; its longest stall is counted anew."""
    gc.collect()
    used = gc.mem_alloc()
    body = {
        "ts": clock.unix(),
        "tq": clock.quality(),
        "up": vitals._alive_s,
        "starts": vitals._box.starts,
        "was": vitals._box.was,
        "heap": [gc.mem_free(), used, max(vitals._most, used)],
        "lag_ms": vitals._lag_ms,
    }
    room = hardware.tls_room()
    if room:
        body["tls_heap"] = list(room)
    body.update(vitals._facts())
    vitals._lag_ms = 0
    return json.dumps(body)


def facts(app):
    """What the app adds, and its kind of node."""
    now = clock.unix()
    body = {
        "fw": VERSION,
        "image": hardware.image(),
        "ends": app._link.ends,
        "shake_ms": app._link.shake_ms,
        "cert_days": (app._expires - now) // 86400 if now and app._expires else None,
    }
    if app._wifi:
        body.update(app._wifi.facts())
    app._own_facts(body)
    return body
