"""Passkeys: made, listed and removed by their user.

The rule it keeps: who makes one has just typed his password; a share's holder has none.
"""

from __future__ import annotations

from typing import Any, Final

from peanutd.api import passkeys
from peanutd.api.devices import VERB, allow
from peanutd.api.passkeys import BadPasskeyError, Place
from peanutd.api.passwords import LONGEST
from peanutd.api.problem import Problem, not_found
from peanutd.api.shape import TEXT, TIME, listed, table, text
from peanutd.api.table import PATHS, Call, Operation

PATHS["passkey"] = text(1400, 1, "^[A-Za-z0-9_-]+$")
OPTIONS: Final = table({"publicKey": {"type": "object"}})
CREDENTIAL: Final = {"type": "object", "maxProperties": 10}
PASSKEY: Final = table({"id": TEXT, "name": TEXT, "created": TIME})


def where(call: Call) -> Place:
    """Where the request came to."""
    return passkeys.place(call.request.headers.get("host", ""))


def purpose(device: str, verb: str) -> str:
    """What a challenge for a command is for."""
    return f"command {device} {verb}"


async def listing(call: Call) -> Any:
    """GET /passkeys."""
    return {"passkeys": [key.public() for key in call.services.passkeys.of(call.person.name)]}


async def options(call: Call) -> Any:
    """POST /passkeys/options."""
    services, name = call.services, call.person.name
    await services.passwords.check(name, call.body["password"], call.origin.address, wrong="step_up")
    if len(services.passkeys.of(name)) >= passkeys.PER_USER:
        raise Problem("conflict", f"you have {passkeys.PER_USER} passkeys; remove one first")
    return {"publicKey": await services.passkeys.creation(name, where(call), services.clock())}


async def add(call: Call) -> Any:
    """POST /passkeys."""
    services, body, name = call.services, call.body, call.person.name
    try:
        made = await services.passkeys.add(name, body["name"], body["credential"], where(call), services.clock())
    except BadPasskeyError as error:
        await services.audit.add(call.origin, "passkey", name, "refused", str(error))
        raise Problem("step_up", "this is no new passkey for this gateway; begin again") from None
    await services.audit.add(call.origin, "passkey", name, "made", passkey=made.name)
    return made.public()


async def remove(call: Call) -> None:
    """DELETE /passkeys/{passkey}."""
    services, name = call.services, call.person.name
    found = [key for key in services.passkeys.of(name) if key.id == call.path["passkey"]]
    if not found:
        raise not_found("passkey")
    await services.passkeys.remove([found[0].id])
    await services.audit.add(call.origin, "passkey", name, "removed", passkey=found[0].name)


async def challenge(call: Call) -> Any:
    """POST /step-up/passkey."""
    services, body = call.services, call.body
    node = await services.rights.node(call.person, body["device"])
    await allow(services, call, node, body["command"])
    what = purpose(node.name, body["command"])
    return {"publicKey": await services.passkeys.request(call.person.name, what, where(call), services.clock())}


OPERATIONS: Final = (
    Operation("GET", "/passkeys", listing, "My passkeys", answers={200: table({"passkeys": listed(PASSKEY)})}),
    Operation(
        *("POST", "/passkeys/options", options, "Begin to make a passkey"),
        answers={200: OPTIONS},
        body=table({"password": text(LONGEST)}),
        problems=("step_up", "conflict"),
    ),
    Operation(
        *("POST", "/passkeys", add, "Keep a passkey that was made"),
        answers={201: PASSKEY},
        body=table({"name": text(passkeys.NAME_MAX, 1), "credential": CREDENTIAL}),
        problems=("step_up",),
    ),
    Operation("DELETE", "/passkeys/{passkey}", remove, "Remove a passkey"),
    Operation(
        *("POST", "/step-up/passkey", challenge, "A challenge for a passkey"),
        answers={200: OPTIONS},
        body=table({"device": text(32, 1), "command": VERB}),
        problems=("forbidden", "not_found"),
    ),
)
