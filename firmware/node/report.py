"""The payloads a node publishes, as the agreement in README.md writes them.

Rule: pure; facts in, JSON text out. A number that is none (NaN, infinity) leaves as null.
"""

import json


def number(value):
    """`value` to two decimals, None for what is no number."""
    if value is None or value != value or not -1e9 < value < 1e9:
        return None
    return round(value, 2)


def brief(climate):
    """The part of the state that an ack carries: the set point and the outputs after the act."""
    body = {o.name: o.on for o in climate.outputs if o.here}
    body["setpoint"] = number(climate.setpoint)
    body["temperature"] = number(climate.temperature)
    body["mode"] = climate.mode()
    return body


def state(climate, ts):
    """<root>/state. ts: Unix seconds or None."""
    body = brief(climate)
    body["by"] = climate.by
    body["reason"] = climate.reason
    body["faults"] = climate.faults
    body["ts"] = ts
    return json.dumps(body)


def status(word, kind, version, boot, sim, ts=None, why=None, dropped=None):
    """<root>/status. word: "online" or "offline"; dropped: readings not sent while the gateway was away."""
    body = {"state": word, "kind": kind, "fw": version, "boot": boot}
    if why:
        body["why"] = why
    if sim:
        body["sim"] = True
    if ts is not None:  # a will has none: nobody can know when it will be published
        body["ts"] = ts
    if dropped is not None:
        body["dropped"] = dropped
    return json.dumps(body)


def telemetry(readings, ts, quality, sim=False):
    """<root>/telemetry. readings: {name: [value, quality, age in s]}; sim: they are a model's."""
    return _marked({"ts": ts, "tq": quality, "readings": _rounded(readings)}, sim)


def late(batch, sim=False):
    """<root>/telemetry of readings kept while there was no session. batch: as node.ring gives it."""
    for entry in batch:
        entry["readings"] = _rounded(entry["readings"])
    return _marked({"late": True, "batch": batch}, sim)


def _marked(body, sim):
    if sim:
        body["sim"] = True
    return json.dumps(body)


def _rounded(readings):
    return {k: [number(readings[k][0])] + list(readings[k][1:]) for k in readings}


def configured(told, ts):
    """<root>/config/reported. told: as node.desired gives it."""
    told["ts"] = ts
    return json.dumps(told)


def event(ident, text, begins, ts):
    """<root>/event: an alarm `ident` begins, or is over."""
    return json.dumps({"id": ident, "text": text, "clear": not begins, "ts": ts})


def ack(cmd, stage, why, climate, ts):
    """<root>/ack. cmd: node.command.Command; stage: "accepted", "done" or "rejected"."""
    body = {"cmd": cmd.name, "stage": stage, "state": brief(climate), "ts": ts}
    if stage == "done":
        body["state"]["reason"] = climate.reason  # what was ordered on may have to wait for its times
    if cmd.id is not None:
        body["id"] = cmd.id
    else:
        body["echo"] = cmd.echo
    if why:
        body["why"] = why
    return json.dumps(body)
