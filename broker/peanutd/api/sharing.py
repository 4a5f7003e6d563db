"""Shares: made, shown and revoked by those who share.

The rule it keeps: one shares what one may do oneself, and for what takes a second proof one proves it here as well: who
has only found an access token must not make himself a PIN. Link and PIN are shown once.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse

from peanutd.access import Role
from peanutd.api import shares
from peanutd.api.devices import VERB, allow
from peanutd.api.passwords import LONGEST
from peanutd.api.problem import Problem, not_found
from peanutd.api.rights import verbs
from peanutd.api.shape import TIME, listed, table, text
from peanutd.api.signin import SHARE
from peanutd.api.signing import STEP_UP
from peanutd.api.table import PATHS, Call, Operation

PATHS["share"] = text(9, 1, "^[0-9]+$")
_WHEN: Final = {**TIME, "minimum": 0, "maximum": 1e11}


async def listing(call: Call) -> Any:
    """GET /shares."""
    person = call.person
    user = None if person.at_least(Role.ADMIN) else person.name
    return {"shares": [share.public() for share in call.services.shares.of(user, call.services.clock())]}


async def add(call: Call) -> JSONResponse:
    """POST /shares."""
    services, body, person, now = call.services, call.body, call.person, call.services.clock()
    node = await services.rights.node(person, body["device"])
    starts, ends = body["from"], body["until"]
    if not max(starts, now) < ends:
        raise Problem("invalid", "a share must end after it begins, and later than now")
    if ends - now > shares.LONGEST:
        raise Problem("invalid", f"a share ends within {shares.LONGEST / 86400:.0f} days")
    wanted = tuple(dict.fromkeys(body["commands"]))
    for verb in wanted:
        if verb not in verbs(node):
            raise Problem("invalid", f"{node.name} knows {', '.join(verbs(node))}")
        await allow(services, call, node, verb)
    if node.vehicle and STEP_UP.intersection(wanted):
        await _prove(call, node.name)
    lasting = [share for share in services.shares.of(person.name, now) if share.revoked is None and now < share.ends]
    if len(lasting) >= shares.PER_USER:
        raise Problem("conflict", f"you share {shares.PER_USER} things already; revoke some")
    note = body.get("note", "")
    share, secret, pin = await services.shares.add(node.name, wanted, starts, ends, note, person.name, now)
    shown = {"share": share.id, "commands": list(wanted), "from": starts, "until": ends, "note": note}
    await services.audit.add(call.origin, "share", node.name, **shown)
    return JSONResponse({**share.public(), "secret": secret, "pin": pin}, 201)


async def _prove(call: Call, device: str) -> None:
    """Problem `step_up`, `too_often` or `busy` unless the password is there, and right."""
    services, body = call.services, call.body
    try:
        if "password" not in body:
            raise Problem("step_up", "to share this needs your password")
        await services.passwords.check(call.person.name, body["password"], call.origin.address, wrong="step_up")
    except Problem as problem:
        await services.audit.add(call.origin, "share", device, "refused", problem.detail)
        raise


async def revoke(call: Call) -> None:
    """DELETE /shares/{share}."""
    services, person = call.services, call.person
    share = services.shares.find(int(call.path["share"]))
    if share is None or (share.by != person.name and not person.at_least(Role.ADMIN)):
        raise not_found("share")
    if share.revoked is None:
        await services.shares.revoke(share, services.clock())
        await services.audit.add(call.origin, "unshare", share.device, share=share.id)


OPERATIONS: Final = (
    Operation("GET", "/shares", listing, "What is shared", answers={200: table({"shares": listed(SHARE)})}),
    Operation(
        *("POST", "/shares", add, "Share some commands of a device for a while"),
        answers={201: SHARE},
        body=table(
            {
                "device": text(32, 1),
                "commands": listed(VERB, 8, minItems=1),
                "from": _WHEN,
                "until": _WHEN,
            },
            {"note": text(200), "password": text(LONGEST)},
        ),
        problems=("forbidden", "step_up", "not_found", "conflict", "too_often", "busy"),
    ),
    Operation(*("DELETE", "/shares/{share}", revoke, "End a share")),
)
