"""Devices: who is there, what they say, and what they are told to do.

The rule it keeps: what a node has said is shown as it said it; what somebody may not see is not there for him.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from peanutd.api import shape, signing
from peanutd.api.nodes import PRESENCES, Node, texts, words
from peanutd.api.problem import Problem
from peanutd.api.quota import Places
from peanutd.api.rights import verbs
from peanutd.api.services import Services
from peanutd.api.shape import ANYTHING, TEXT, TIME, YES_NO, listed, or_null, table, text
from peanutd.api.shape import words as choice
from peanutd.api.table import PATHS, Call, Operation

VERB: Final = text(32, 1, "^[A-Za-z][A-Za-z0-9_-]*$")
LIMIT: Final = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
AFTER: Final = text(64, 1)
PATHS["name"] = text(32, 1, "^[A-Za-z0-9-]+$")

_SHOWN: Final = {
    "name": TEXT,
    "kind": choice("greenhouse", "vehicle"),
    "root": TEXT,
    "presence": choice(*PRESENCES),
    "presence_why": or_null(TEXT),
    "presence_ts": or_null(TIME),
    "fw": or_null(TEXT),
    "sim": YES_NO,
    "groups": listed(TEXT),
    "state": or_null(ANYTHING),
    "state_ts": or_null(TIME),
    "readings": or_null(ANYTHING),
    "readings_ts": or_null(TIME),
    "faults": listed(TEXT),
    "codes": listed(TEXT),
    "commands": listed(TEXT),
    "step_up": listed(TEXT),
}
DEVICE: Final = shape.name(
    "Device", table(_SHOWN, dict.fromkeys(("health", "config", "ota", "session"), or_null(ANYTHING)))
)
STATE: Final = table(
    {
        "presence": choice(*PRESENCES),
        "presence_ts": or_null(TIME),
        "state": or_null(ANYTHING),
        "state_ts": or_null(TIME),
    }
)
OUTCOME: Final = shape.name(
    "Outcome",
    table(
        {
            "id": TEXT,
            "device": TEXT,
            "command": TEXT,
            "outcome": choice("done", "rejected", "not_answered"),
            "accepted": YES_NO,
            "why": or_null(TEXT),
            "state": or_null(ANYTHING),
            "sent": TIME,
            "answered": or_null(TIME),
            "lifetime_s": shape.COUNT,
        }
    ),
)
COMMAND: Final = shape.name(
    "Command",
    table(
        {"command": VERB},
        {
            "args": {"type": "object", "maxProperties": 16},
            "wait_s": {"type": "number", "minimum": 1, "maximum": 60},
            "step_up": text(400),
        },
    ),
)

PLACES: Final = Places("commands", 16, 200)
"""Commands that wait for their answers: of one user, and in all."""


async def shown(call: Call, nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """Devices, as the contract has them."""
    services, groups = call.services, call.services.rights.groups
    commands = await services.rights.commands(call.person, nodes)
    found: list[dict[str, Any]] = []
    for node, may in zip(nodes, commands, strict=True):
        said = services.nodes.said(node)
        state, status = said.get("state"), said.status
        found.append(
            {
                "name": node.name,
                "kind": node.word,
                "root": node.root,
                "presence": said.presence,
                "presence_why": words(status.get("why")),
                "presence_ts": said.presence_ts,
                "fw": words(status.get("fw")),
                "sim": status.get("sim") is True,
                "groups": sorted(groups.of(node.name)),
                "state": state,
                "state_ts": _ts(state),
                "readings": said.readings,
                "readings_ts": said.readings_ts,
                "faults": texts((state or {}).get("faults")),
                "codes": said.codes,
                "commands": may,
                "step_up": [verb for verb in may if node.vehicle and verb in signing.STEP_UP],
            }
        )
    return found


def _ts(said: dict[str, Any] | None) -> float | None:
    ts = (said or {}).get("ts")
    return ts if isinstance(ts, int | float) and not isinstance(ts, bool) else None


async def devices(call: Call) -> Any:
    """GET /devices."""
    query, services = call.query, call.services
    wanted = {**await services.rights.visible(call.person)}
    members = services.rights.groups.members(query["group"]) if "group" in query else None
    found = [
        node
        for name, node in wanted.items()
        if name > query.get("after", "")
        and query.get("kind", node.word) == node.word
        and (members is None or name in members)
        and ("presence" not in query or services.nodes.said(node).presence == query["presence"])
    ]
    limit = query["limit"]
    page = found[:limit]
    return {"devices": await shown(call, page), "next": page[-1].name if len(found) > limit else None}


async def device(call: Call) -> Any:
    """GET /devices/{name}."""
    node = await call.services.rights.node(call.person, call.path["name"])
    (found,) = await shown(call, [node])
    said = call.services.nodes.said(node)
    return {**found, **{name: said.get(name) for name in ("health", "config", "ota", "session")}}


async def state(call: Call) -> Any:
    """GET /devices/{name}/state."""
    node = await call.services.rights.node(call.person, call.path["name"])
    said = call.services.nodes.said(node)
    reported = said.get("state")
    return {
        "presence": said.presence,
        "presence_ts": said.presence_ts,
        "state": reported,
        "state_ts": _ts(reported),
    }


async def command(call: Call) -> Any:
    """POST /devices/{name}/commands."""
    services, body, person = call.services, call.body, call.person
    node = await services.rights.node(person, call.path["name"])
    verb = body["command"]
    if node.vehicle and verb not in verbs(node):
        raise Problem("invalid", f"a vehicle knows {', '.join(verbs(node))}")
    await allow(services, call, node, verb)
    if node.vehicle and verb in signing.STEP_UP:
        services.proofs.use(body.get("step_up", ""), person.who, node.name, verb, services.clock())
    with PLACES.taken(person.who):
        outcome = await services.commands.send(call.origin, node, verb, body.get("args", {}), body.get("wait_s"))
    if (problem := outcome.problem()) is not None:
        raise problem
    return outcome.public()


async def allow(services: Services, call: Call, node: Node, verb: str) -> None:
    """Problem `forbidden` unless whoever calls may give that command."""
    if not await services.rights.may_command(call.person, node, verb):
        await services.audit.add(call.origin, "command", node.name, "refused", "not allowed", command=verb)
        raise Problem("forbidden", f"you may not tell {node.name} to {verb}")


OPERATIONS: Final = (
    Operation(
        *("GET", "/devices", devices, "Devices that I may see"),
        answers={200: table({"devices": listed(DEVICE), "next": or_null(TEXT)})},
        query={
            "kind": choice("greenhouse", "vehicle"),
            "group": text(32, 1),
            "presence": choice(*PRESENCES),
            "after": AFTER,
            "limit": LIMIT,
        },
        shares=True,
    ),
    Operation("GET", "/devices/{name}", device, "One device, with all it says", answers={200: DEVICE}, shares=True),
    Operation(
        *("GET", "/devices/{name}/state", state, "What it is doing"),
        answers={200: STATE},
        shares=True,
    ),
    Operation(
        *("POST", "/devices/{name}/commands", command, "Tell it to do something, and wait for its answer"),
        answers={200: OUTCOME},
        body=COMMAND,
        problems=("forbidden", "step_up", "rejected", "not_answered"),
        shares=True,
    ),
)
