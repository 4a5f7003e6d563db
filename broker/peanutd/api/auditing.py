"""The audit log, for admins.

The rule it keeps: it is read here, and written nowhere but where things happen.
"""

from __future__ import annotations

from typing import Any, Final

from peanutd.access import Role
from peanutd.api import shape
from peanutd.api.devices import LIMIT
from peanutd.api.shape import COUNT, TEXT, TIME, YES_NO, listed, or_null, table, text
from peanutd.api.table import Call, Operation

ENTRY: Final = shape.name(
    "Entry",
    table(
        {
            "seq": COUNT,
            "ts": TIME,
            "who": TEXT,
            "address": TEXT,
            "agent": TEXT,
            "action": TEXT,
            "target": TEXT,
            "detail": {"type": "object"},
            "outcome": TEXT,
            "why": or_null(TEXT),
            "hash": TEXT,
        }
    ),
)


async def audit(call: Call) -> Any:
    """GET /audit."""
    query = call.query
    limit = query["limit"]
    user = query.get("user")
    found = await call.services.audit.read(
        who=None if user is None else user if "/" in user else f"user/{user}",
        target=query.get("device"),
        before=query.get("before"),
        limit=limit + 1,
    )
    page = found[:limit]
    return {"entries": [entry.public() for entry in page], "next": page[-1].seq if len(found) > limit else None}


async def check(call: Call) -> Any:
    """GET /audit/check."""
    entries, head, broken = await call.services.audit.broken()
    made = {"whole": broken is None, "entries": entries, "head": head}
    return made if broken is None else {**made, "broken_at": broken}


OPERATIONS: Final = (
    Operation(
        *("GET", "/audit", audit, "Who did what, and what came of it"),
        answers={200: table({"entries": listed(ENTRY), "next": or_null(COUNT)})},
        role=Role.ADMIN,
        query={
            "user": text(64, 1),
            "device": text(64, 1),
            "before": {"type": "integer", "minimum": 1, "maximum": 1 << 53},
            "limit": LIMIT,
        },
    ),
    Operation(
        *("GET", "/audit/check", check, "Whether it is as it was written"),
        answers={200: table({"whole": YES_NO, "entries": COUNT, "head": TEXT}, {"broken_at": COUNT})},
        role=Role.ADMIN,
    ),
)
