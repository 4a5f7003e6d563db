"""Users: made, changed and removed by an admin; one's own password.

The rule it keeps: who is changed is out where it matters: another password or no user ends the sign-ins at once, and a
role counts from the next request on. Nobody but an admin learns who else there is; and who is held to some groups
cannot free himself: neither he nor anybody in his place changes users.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from starlette.responses import JSONResponse

from peanutd.access import NAME, Role
from peanutd.api import shape, userfile
from peanutd.api.passwords import LONGEST
from peanutd.api.problem import Problem, not_found
from peanutd.api.quota import Places
from peanutd.api.scopes import GROUPS_MAX
from peanutd.api.services import Services
from peanutd.api.shape import TEXT, TIME, listed, or_null, table, text
from peanutd.api.signin import ROLE
from peanutd.api.table import PATHS, Call, Operation

GROUP: Final = text(32, 1, "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
SCOPE: Final = or_null(listed(GROUP, GROUPS_MAX))
USER: Final = shape.name("User", table({"name": TEXT, "role": ROLE, "created": TIME, "scope": SCOPE}))
PATHS["user"] = text(32, 1, f"^{NAME.pattern}$")
PLACES: Final = Places("changes of users", 2, 2)
"""Each takes a second of a processor."""


def _shown(services: Services, entry: dict[str, Any]) -> dict[str, Any]:
    scope = services.scopes.of(entry["name"])
    return {**entry, "scope": None if scope is None else sorted(scope)}


async def _entries(services: Services) -> dict[str, dict[str, Any]]:
    try:
        return await asyncio.to_thread(userfile.entries, services.home)
    except userfile.UserFileError as error:
        raise Problem("unavailable", str(error)) from None


async def users(call: Call) -> Any:
    """GET /users."""
    found = await _entries(call.services)
    return {"users": [_shown(call.services, entry) for entry in found.values()]}


def _free(call: Call) -> None:
    """Problem `forbidden` for who is held to groups."""
    if call.person.scope is not None:
        raise Problem("forbidden", "who is held to some groups can change no users")


async def put(call: Call) -> JSONResponse:
    """PUT /users/{user}."""
    _free(call)
    services, name, body = call.services, call.path["user"], call.body
    if name == call.person.name and body.get("scope") is not None:
        raise Problem(
            "conflict", "who holds himself to some groups could not free himself again; let another admin do it"
        )
    role = Role(body["role"]) if "role" in body else None
    new = await _write(call, name, role, body.get("password"))
    if new:
        await _forget(services, name)  # there may have been another user of that name
    if "scope" in body:
        scope = body["scope"]
        await services.scopes.set(name, None if scope is None else frozenset(scope))
    if "password" in body and not new:
        await _end_sessions(services, name)
    await _put_out(services)
    changed: dict[str, Any] = {key: body[key] for key in ("role", "scope") if key in body}
    changed["password"] = "password" in body
    await services.audit.add(call.origin, "user", name, "made" if new else "changed", **changed)
    entry = (await _entries(services)).get(name)
    if entry is None:
        raise Problem("conflict", f"{name} was removed meanwhile")
    return JSONResponse(_shown(services, entry), 201 if new else 200)


async def _write(call: Call, name: str, role: Role | None, password: str | None) -> bool:
    services = call.services
    with PLACES.taken(call.person.who):
        try:
            return await asyncio.to_thread(userfile.put, services.home, name, role, password, services.clock())
        except userfile.BadPasswordError as error:
            raise Problem("invalid", str(error)) from None
        except userfile.LastAdminError as error:
            raise Problem("conflict", str(error)) from None
        except userfile.UserFileError as error:
            raise Problem("unavailable", str(error)) from None


async def remove(call: Call) -> None:
    """DELETE /users/{user}."""
    _free(call)
    services, name = call.services, call.path["user"]
    try:
        found = await asyncio.to_thread(userfile.remove, services.home, name)
    except userfile.LastAdminError as error:
        raise Problem("conflict", str(error)) from None
    except userfile.UserFileError as error:
        raise Problem("unavailable", str(error)) from None
    if not found:
        raise not_found("user")
    await _end_sessions(services, name)
    await _forget(services, name)
    await _put_out(services)
    await services.audit.add(call.origin, "user", name, "removed")


async def _forget(services: Services, name: str) -> None:
    """Whoever gets that name next has nothing of the one before; what that one has shared opens nothing any more."""
    now = services.clock()
    for share in services.shares.of(name, now):
        if share.revoked is None:
            await services.shares.revoke(share, now)
    await services.scopes.set(name, None)
    await services.passkeys.remove([key.id for key in services.passkeys.of(name)])


async def _put_out(services: Services) -> None:
    """Whoever has changed does not stay in over MQTT. Where the broker has no time now, it looks within a minute."""
    with contextlib.suppress(Problem):
        await services.bridge.ask(services.recheck)


async def _end_sessions(services: Services, name: str) -> None:
    await services.sessions.end([family.id for family in services.sessions.of(name, services.clock())])


async def password(call: Call) -> None:
    """POST /me/password."""
    services, body, name = call.services, call.body, call.person.name
    await services.passwords.check(name, body["password"], call.origin.address, wrong="step_up")
    await _write(call, name, None, body["new_password"])
    user = services.passwords.user(name)
    here = services.sessions.get(call.person.session, services.clock())
    await services.sessions.end(
        [family.id for family in services.sessions.of(name, services.clock()) if here is None or family.id != here.id]
    )
    if user is not None and here is not None:
        await services.sessions.prove(here.id, user)
    await _put_out(services)
    await services.audit.add(call.origin, "password", name)


OPERATIONS: Final = (
    Operation(*("GET", "/users", users, "Users"), answers={200: table({"users": listed(USER)})}, role=Role.ADMIN),
    Operation(
        *("PUT", "/users/{user}", put, "Make a user, or change one"),
        answers={200: USER, 201: USER},
        role=Role.ADMIN,
        body=table({}, {"role": ROLE, "password": text(LONGEST, userfile.SHORTEST), "scope": SCOPE}),
        problems=("conflict",),
    ),
    Operation(
        *("DELETE", "/users/{user}", remove, "Remove a user"),
        role=Role.ADMIN,
        problems=("conflict",),
    ),
    Operation(
        *("POST", "/me/password", password, "Give oneself another password"),
        body=table({"password": text(LONGEST), "new_password": text(LONGEST, userfile.SHORTEST)}),
        problems=("step_up",),
    ),
)
