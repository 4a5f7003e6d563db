"""Certificates listed, nodes revoked and let in again: the operations.

The rule it keeps: whoever takes a node out of the fleet is an admin, proves it once more, and is in the audit log.
"""

from __future__ import annotations

from typing import Any, Final

from peanutd.access import Role
from peanutd.api.passwords import LONGEST
from peanutd.api.problem import Problem
from peanutd.api.shape import TEXT, TIME, listed, or_null, table, text
from peanutd.api.table import Call, Operation


async def certificates(call: Call) -> Any:
    """GET /certificates."""
    nodes = await call.services.rights.visible(call.person)
    return {"certificates": await call.services.certificates.of(list(nodes.values()))}


async def _changed(call: Call, what: str, *options: str) -> None:
    services, person, body = call.services, call.person, call.body
    node = await services.rights.node(person, call.path["name"])
    why = body.get("why", "")
    try:
        await services.passwords.check(person.name, body["password"], call.origin.address, wrong="step_up")
        await services.certificates.change(what, node.name, *options)
    except Problem as problem:
        await services.audit.add(call.origin, what, node.name, "refused", problem.detail)
        raise
    await services.audit.add(call.origin, what, node.name, reason=why)


async def revoke(call: Call) -> None:
    """POST /devices/{name}/revoke."""
    await _changed(call, "revoke", f"--why={call.body.get('why', '')}")


async def restore(call: Call) -> None:
    """POST /devices/{name}/restore."""
    await _changed(call, "restore")


_ROW: Final = table(
    {
        "device": TEXT,
        "serial": or_null(TEXT),
        "not_after": or_null(TIME),
        "first": or_null(TIME),
        "last": or_null(TIME),
        "address": or_null(TEXT),
        "chip": or_null(TEXT),
        "revoked": or_null(table({"since": TIME, "why": TEXT})),
    }
)
_PROBLEMS: Final = ("step_up", "not_found", "unavailable", "too_often", "busy")

OPERATIONS: Final = (
    Operation(
        *("GET", "/certificates", certificates, "What each node came with, and what is revoked"),
        answers={200: table({"certificates": listed(_ROW)})},
        role=Role.ADMIN,
    ),
    Operation(
        *("POST", "/devices/{name}/revoke", revoke, "Let a node in no more"),
        body=table({"password": text(LONGEST)}, {"why": text(200, 0, r"^[^\x00-\x1f\x7f]*$")}),
        problems=_PROBLEMS,
        role=Role.ADMIN,
    ),
    Operation(
        *("POST", "/devices/{name}/restore", restore, "Let a node in again that was revoked"),
        body=table({"password": text(LONGEST)}),
        problems=_PROBLEMS,
        role=Role.ADMIN,
    ),
)
