"""From what a node reports to readings: a number, its name, its node, and the second at which it was true.

The rule it keeps: a reading is placed by its own time. What is no number, what the node itself does not trust, and what
no time is known of is left out, and counted by the reason. Nothing here touches a clock or a disk.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeGuard

from peanutd.ear import Report
from peanutd.log import clean

AHEAD: Final = 300
"""Seconds that a node's clock may be ahead of the gateway's; what lies further ahead is left out."""
MAX_NAMES: Final = 64
"""Readings of one report; what is more is left out."""
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""Names of readings."""
MAX_TEXT: Final = 200
"""Characters of an event's text that are kept."""
OF_HEALTH: Final = ("rssi", "cert_days", "up")
"""What of a node's health is kept."""
NOT_OF_STATE: Final = ("ts", "temperature")
"""What of a node's state is not: the temperature is in its telemetry."""
CLOCKS: Final = ("ntp", "rtc")
"""Qualities of a node's time that are its own time; with any other, what is live counts as said just now."""


class Reading(NamedTuple):
    """One value of one node."""

    root: str
    name: str
    ts: int
    """Unix seconds."""
    value: float


class Event(NamedTuple):
    """What a node says has happened (`clear`: is over)."""

    root: str
    ts: int
    id: str
    text: str
    clear: bool


def event(report: Report, said: Mapping[str, Any], now: float) -> Event | None:
    """The event in a report; None when it has none."""
    name, text = said.get("id"), said.get("text", "")
    if report.leaf != "event" or not isinstance(name, str) or not name or not isinstance(text, str):
        return None
    ts = _time(said, now, Counter()) or int(now)
    return Event(report.root, ts, clean(name, MAX_TEXT), clean(text, MAX_TEXT), said.get("clear") is True)


def body(report: Report) -> dict[str, Any]:
    """What a report says; empty when that is not an object in JSON."""
    try:
        found = json.loads(report.payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def of(report: Report, said: Mapping[str, Any], now: float, left_out: Counter[str]) -> Iterator[Reading]:
    """The readings in a report, which says `said`. `now` is the gateway's clock, for live ones of a node without one.
    left_out: counts why something is left out.
    """
    match report.leaf:
        case "telemetry" if said.get("late") is True:
            batch = said.get("batch")
            for record in batch if isinstance(batch, list) else ():
                if isinstance(record, dict):
                    yield from _measured(report.root, record, None, now, left_out)
        case "telemetry":
            yield from _measured(report.root, said, now, now, left_out)
        case "state":
            values = {name: value for name, value in said.items() if name not in NOT_OF_STATE and _is_number(value)}
            yield from _placed(report, values, said, now, left_out)
        case "health":
            values = {name: said[name] for name in OF_HEALTH if _is_number(said.get(name))}
            yield from _placed(report, values, said, now, left_out)
        case "status" if not report.retained and said.get("state") in ("online", "offline", "sleeping"):
            yield Reading(
                report.root, "online", _time(said, now, left_out) or int(now), float(said["state"] == "online")
            )


def _placed(
    report: Report, values: Mapping[str, Any], said: Mapping[str, Any], now: float, left_out: Counter[str]
) -> Iterator[Reading]:
    """Values that all have the report's time."""
    # What was retained and says no time may be of any time.
    ts = _time(said, None if report.retained else now, left_out)
    if ts is not None:
        for name, value in _named(values, left_out):
            yield Reading(report.root, name, ts, float(value))


def _measured(
    root: str, record: Mapping[str, Any], live: float | None, now: float, left_out: Counter[str]
) -> Iterator[Reading]:
    """The readings of one record of telemetry: `{"ts", "tq", "readings": {name: [value, quality, age]}}`."""
    readings = record.get("readings")
    if not isinstance(readings, dict):
        left_out["malformed"] += 1
        return
    ts = _time(record, live, left_out, now)
    if ts is None:
        return
    for name, entry in _named(readings, left_out):
        if not isinstance(entry, list) or len(entry) < 2:
            left_out["malformed"] += 1
        elif entry[1] != "ok":
            left_out["quality"] += 1
        elif not _is_number(entry[0]):
            left_out["malformed"] += 1
        else:
            age = entry[2] if len(entry) > 2 and _is_number(entry[2]) and entry[2] > 0 else 0
            yield Reading(root, name, ts - int(min(age, ts)), float(entry[0]))


def _time(said: Mapping[str, Any], live: float | None, left_out: Counter[str], now: float | None = None) -> int | None:
    """When it was true; `live` where the node does not know, None where nobody does."""
    ts, now = said.get("ts"), live if now is None else now
    if _is_number(ts) and ts > 0 and said.get("tq", "ntp") in CLOCKS:
        if now is not None and ts > now + AHEAD:
            left_out["ahead"] += 1
            return None
        return int(ts)
    if live is None:
        left_out["no time"] += 1
        return None
    return int(live)


def _named(values: Mapping[str, Any], left_out: Counter[str]) -> Iterator[tuple[str, Any]]:
    """Those with a name that may be one, MAX_NAMES at the most."""
    for count, (name, value) in enumerate(values.items()):
        if count == MAX_NAMES:
            left_out["too many"] += len(values) - MAX_NAMES
            return
        if NAME.fullmatch(name):
            yield name, value
        else:
            left_out["malformed"] += 1


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that a reading can have; true and false are 1 and 0."""
    return isinstance(value, int | float) and abs(value) < 1e15 and not math.isnan(value)
