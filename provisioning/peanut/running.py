"""What each node runs, and how its last update went, in its own words: those that the gateway keeps of it.

Rule: it listens and sends nothing. Who has never said a word is not known, and that is said too.
"""

import json
import math
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass

import paho.mqtt.client as mqtt

from peanut import names, session
from peanut.errors import PeanutError
from peanut.names import Kind, printable

GATHER_S = 3.0  # for what is retained, since the last word; who has never been there has none
LEAVES = ("ota/status", "status")  # in this order: the one ends like the other
FILTERS = [root + leaf for root in ("/plant/+/", "vin/+/") for leaf in LEAVES]


@dataclass
class Running:
    """Of one node. presence: online, offline, sleeping, rescue or unknown; version, seq, slot: of what it runs, None
    where it has not said so; update: how its last update stands, empty where there is none."""

    presence: str = "unknown"
    version: str | None = None
    seq: int | None = None
    slot: str | None = None
    update: str = ""


def ask(gateway: tuple[str, int], context: ssl.SSLContext, nodes: Iterable[tuple[str, Kind]]) -> dict[str, Running]:
    """Of these nodes, by name. PeanutError where the gateway cannot be reached or does not let us in."""
    roots = {names.topic_root(name, kind): name for name, kind in nodes}
    found = {name: Running() for name in roots.values()}
    missing = {f"{root}/{leaf}" for root in roots for leaf in LEAVES}
    last = 0.0  # when something kept came last, monotonic

    def hear(message: mqtt.MQTTMessage) -> None:
        nonlocal last
        if message.topic not in missing or not message.retain:
            return
        last = time.monotonic()
        missing.remove(message.topic)
        try:
            body = json.loads(message.payload)
        except (ValueError, RecursionError):
            return
        root = next(message.topic.removesuffix("/" + leaf) for leaf in LEAVES if message.topic.endswith("/" + leaf))
        if isinstance(body, dict):
            (_update if message.topic.endswith(LEAVES[0]) else _presence)(found[roots[root]], body)

    made = session.Session(gateway, context, FILTERS, "the nodes", hear)
    made.connect()
    last = time.monotonic()
    try:
        made.until(lambda: not missing or time.monotonic() - last > GATHER_S, math.inf, lambda: PeanutError(""))
    finally:
        made.close()
    return found


def _presence(one: Running, body: dict[str, object]) -> None:
    one.presence = printable(body.get("state"), 20)
    if one.presence == "online" and "rescue" in body:
        one.presence = "rescue"
    if isinstance(body.get("fw"), str):
        one.version = one.version or printable(body["fw"], 40)


def _update(one: Running, body: dict[str, object]) -> None:
    seq, version, slot, stage = (body.get(key) for key in ("seq", "version", "slot", "stage"))
    if isinstance(seq, int) and isinstance(version, str) and isinstance(slot, str):
        one.seq, one.slot, one.version = seq, printable(slot, 20), printable(version, 40) or one.version
    if stage != "running":
        why = f": {printable(body['why'])}" if body.get("why") else ""
        one.update = f"{printable(body.get('offer'), 20)} {printable(stage, 20)}{why}"
