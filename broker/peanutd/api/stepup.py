"""Step-up: the password once more, or the PIN of a share, before a door opens.

The rule it keeps: guesses count where those at sign-in count, and every failure is in the audit log. What was proved is
good for one command (proofs.py).
"""

from __future__ import annotations

from typing import Any, Final

from peanutd.api import proofs
from peanutd.api.devices import VERB, allow
from peanutd.api.keying import CREDENTIAL, purpose, where
from peanutd.api.passkeys import BadPasskeyError
from peanutd.api.passwords import LONGEST
from peanutd.api.problem import Problem
from peanutd.api.rights import verbs
from peanutd.api.shape import COUNT, TEXT, table, text
from peanutd.api.table import Call, Operation


async def step_up(call: Call) -> Any:
    """POST /step-up."""
    services, body, person = call.services, call.body, call.person
    node = await services.rights.node(person, body["device"])
    verb = body["command"]
    if verb not in verbs(node):
        raise Problem("invalid", f"{node.name} knows {', '.join(verbs(node))}")
    await allow(services, call, node, verb)
    try:
        await _prove(call, purpose(node.name, verb))
    except Problem as problem:
        if problem.code == "step_up":
            await services.audit.add(call.origin, "step-up", node.name, "refused", problem.detail, command=verb)
        raise
    await services.audit.add(call.origin, "step-up", node.name, command=verb)
    return {
        "step_up": services.proofs.give(person.who, node.name, verb, services.clock()),
        "expires_in": int(proofs.LIFETIME),
    }


async def _prove(call: Call, what: str) -> None:
    """Problem `step_up`, `too_often` or `busy` unless whoever calls is who he is, and wants `what`."""
    services, body, person = call.services, call.body, call.person
    if person.share is None:
        if "passkey" in body:
            try:
                await services.passkeys.prove(person.name, what, body["passkey"], where(call), services.clock())
            except BadPasskeyError as error:
                raise Problem("step_up", f"the passkey does not prove it: {error}") from None
            return
        if "password" not in body:
            raise Problem("invalid", "the body lacks password or passkey")
        await services.passwords.check(person.name, body["password"], call.origin.address, wrong="step_up")
        return
    if "pin" not in body:
        raise Problem("invalid", "the body lacks pin")
    services.passwords.allow(person.who, call.origin.address)
    if not await services.shares.fits(person.share, body["pin"], services.clock()):
        services.passwords.failed(person.who, call.origin.address)
        raise Problem("step_up", "the PIN is wrong")


OPERATIONS: Final = (
    Operation(
        *("POST", "/step-up", step_up, "A second proof, for one command"),
        answers={200: table({"step_up": TEXT, "expires_in": COUNT})},
        body=table(
            {"device": text(32, 1), "command": VERB},
            {"password": text(LONGEST), "pin": text(20), "passkey": CREDENTIAL},
        ),
        problems=("forbidden", "step_up", "not_found"),
        shares=True,
    ),
)
