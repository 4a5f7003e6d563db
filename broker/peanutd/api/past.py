"""History: curves, CSV, and what has happened.

The rule it keeps: who may see a device may see its past. A query is read in a thread and in bounded pieces; the time
and the step say how much it is, and there is an end to both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from peanutd.api import asking
from peanutd.api.devices import LIMIT
from peanutd.api.problem import Problem
from peanutd.api.quota import Places
from peanutd.api.shape import COUNT, NUMBER, TEXT, TIME, YES_NO, listed, or_null, table, text
from peanutd.api.table import Call, Operation
from peanutd.history import DAY, Curve, HistoryError

QUANTITIES: Final = 16
"""Curves of one query."""
MOST: Final = 4_000_000_000
"""Unix seconds that a time may be."""
PLACES: Final = Places("queries of the history", 6, 24)
"""Queries under way: of one user, and in all."""
UNITS: Final = {
    **dict.fromkeys(("temperature", "outside", "setpoint", "coolant", "dew_point"), "°C"),
    **dict.fromkeys(("humidity", "soil", "fuel"), "%"),
    "pressure": "hPa",
    "vpd": "kPa",
    "co2": "ppm",
    "light": "lx",
    "rssi": "dBm",
    "cert_days": "d",
    "up": "s",
    "speed": "km/h",
    "battery": "V",
}
"""Of the readings that the firmware has; others have none."""

_TIMES: Final = {"type": "number", "minimum": 0, "maximum": MOST}
_SERIES: Final = table(
    {
        "device": TEXT,
        "quantity": TEXT,
        "unit": TEXT,
        "step_s": COUNT,
        "from": TIME,
        "to": TIME,
        "points": listed(listed(NUMBER)),
        "cut": YES_NO,
    }
)
_QUERY: Final = {
    "quantity": listed(text(32, 1), QUANTITIES),
    "from": _TIMES,
    "to": _TIMES,
    "step_s": {"type": "integer", "minimum": 0, "maximum": 31 * DAY, "default": 0},
}
_EVENT: Final = table({"seq": COUNT, "ts": TIME, "id": TEXT, "text": TEXT, "clear": YES_NO})


def _times(call: Call) -> tuple[int, int]:
    """From and to; a day until now, where nothing is said. Problem `invalid`."""
    end = int(call.query.get("to", call.services.clock() + 1))
    start = int(call.query.get("from", max(0, end - DAY)))
    if start >= end:
        raise Problem("invalid", "from must be before to")
    return start, end


async def history(call: Call) -> Any:
    """GET /devices/{name}/history."""
    node = await call.services.rights.node(call.person, call.path["name"])
    start, end = _times(call)
    names, step = call.query.get("quantity", []), call.query["step_s"]
    with PLACES.taken(call.person.who):
        curves = await asking.read(call.services, lambda reader: reader.curves(node.root, names, start, end, step))
    by_name = {curve.name: curve for curve in curves}
    shown = [_shown(node.name, name, by_name.get(name), step, start, end) for name in (names or by_name)]
    return shown[0] if len(names) == 1 else {"series": shown}


def _shown(device: str, name: str, curve: Curve | None, step: int, start: int, end: int) -> dict[str, Any]:
    return {
        "device": device,
        "quantity": name,
        "unit": UNITS.get(name, ""),
        "step_s": step if curve is None else curve.step,
        "from": start,
        "to": end,
        "points": [] if curve is None else [list(point) for point in curve.points],
        "cut": curve is not None and curve.cut,
    }


async def as_csv(call: Call) -> Any:
    """GET /devices/{name}/history.csv."""
    node = await call.services.rights.node(call.person, call.path["name"])
    start, end = _times(call)
    reader = asking.reader(call.services)
    pieces = reader.csv(node.root, call.query.get("quantity", []), start, end, call.query["step_s"])
    headers = {"Content-Disposition": f'attachment; filename="{node.name}.csv"'}
    with contextlib.ExitStack() as stack:
        stack.enter_context(PLACES.taken(call.person.who))
        return _Csv(_until_broken(pieces), headers, stack.pop_all())


def _until_broken(pieces: Iterator[str]) -> Generator[str]:
    with contextlib.suppress(HistoryError):  # it ends early, which a reader sees
        yield from pieces


class _Csv(StreamingResponse):
    """Gives back its place at its end, also when nobody reads on."""

    def __init__(self, pieces: Generator[str], headers: dict[str, str], held: contextlib.ExitStack) -> None:
        super().__init__(pieces, 200, headers, "text/csv; charset=utf-8")
        self._pieces = pieces
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held, contextlib.closing(self._pieces):
            await super().__call__(scope, receive, send)


async def quantities(call: Call) -> Any:
    """GET /devices/{name}/quantities."""
    node = await call.services.rights.node(call.person, call.path["name"])
    with PLACES.taken(call.person.who):
        spans = await asking.read(call.services, lambda reader: reader.spans(node.root))
    return {
        "quantities": [
            {"name": span.name, "unit": UNITS.get(span.name, ""), "first": span.first, "last": span.last}
            for span in spans
        ]
    }


async def events(call: Call) -> Any:
    """GET /devices/{name}/events."""
    node = await call.services.rights.node(call.person, call.path["name"])
    limit, before = call.query["limit"], call.query.get("after")
    with PLACES.taken(call.person.who):
        found = await asking.read(
            call.services, lambda reader: reader.events(node.root, before=before, limit=limit + 1)
        )
    page = found[:limit]
    return {
        "events": [event._asdict() for event in page],
        "next": page[-1].seq if len(found) > limit else None,
    }


_GET: Final = partial(Operation, "GET")

OPERATIONS: Final = (
    _GET(
        *("/devices/{name}/history", history, "What was measured"),
        answers={200: {"anyOf": [_SERIES, table({"series": listed(_SERIES)})]}},
        query=_QUERY,
        problems=("invalid", "busy", "unavailable"),
    ),
    _GET(
        *("/devices/{name}/history.csv", as_csv, "What was measured, as CSV"),
        answers={200: "text/csv"},
        query=_QUERY,
        problems=("invalid", "busy", "unavailable"),
    ),
    _GET(
        *("/devices/{name}/quantities", quantities, "What is measured"),
        answers={200: table({"quantities": listed(table({"name": TEXT, "unit": TEXT, "first": TIME, "last": TIME}))})},
        problems=("busy", "unavailable"),
    ),
    _GET(
        *("/devices/{name}/events", events, "What has happened, the newest first"),
        answers={200: table({"events": listed(_EVENT), "next": or_null(COUNT)})},
        query={"after": COUNT, "limit": LIMIT},
        problems=("busy", "unavailable"),
    ),
)
