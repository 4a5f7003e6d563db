"""Signing in and out: passwords, refresh tokens, sign-ins, and the link of a share.

The rule it keeps: what is wrong is always wrong in the same words. A browser keeps its refresh token in a cookie that
no script can read and no other site can send; a request that uses it also needs a header that no form can set.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response

from peanutd.access import Role
from peanutd.api import shape
from peanutd.api.audit import Origin
from peanutd.api.openapi import PREFIX
from peanutd.api.passwords import LONGEST
from peanutd.api.problem import Problem, not_found
from peanutd.api.sessions import ACCESS_LIFETIME, IDLE, Family, StolenError
from peanutd.api.shape import COUNT, TEXT, TIME, YES_NO, listed, or_null, table, text, words
from peanutd.api.table import PATHS, Call, Operation
from peanutd.users import User

COOKIE: Final = "__Secure-peanut"
HEADER: Final = "x-peanut"
NAME_MAX: Final = 64
"""Characters of a user name that somebody says; real ones have 32."""

ROLE: Final = words(*(role.value for role in Role))
SESSION: Final = shape.name(
    "Session",
    table(
        {
            "access_token": TEXT,
            "token_type": words("Bearer"),
            "expires_in": COUNT,
            "user": table({"name": TEXT, "role": ROLE}),
        },
        {"refresh_token": TEXT},
    ),
)
SHARE: Final = shape.name(
    "Share",
    table(
        {
            "id": COUNT,
            "device": TEXT,
            "commands": listed(TEXT),
            "from": TIME,
            "until": TIME,
            "note": TEXT,
            "by": TEXT,
            "created": TIME,
            "revoked": or_null(TIME),
        },
        {"secret": TEXT, "pin": TEXT},
    ),
)
ME: Final = shape.name(
    "Me",
    table(
        {
            "name": TEXT,
            "role": ROLE,
            "scope": or_null(listed(TEXT)),
            "share": or_null(SHARE),
            "passkeys": COUNT,
        }
    ),
)
SESSIONS: Final = table(
    {
        "sessions": listed(
            table(
                {
                    "id": TEXT,
                    "user": TEXT,
                    "created": TIME,
                    "used": TIME,
                    "address": TEXT,
                    "agent": TEXT,
                    "current": YES_NO,
                }
            )
        )
    }
)
PATHS["session"] = text(40, 1)


def reply(call: Call, user: User, family: Family, *, cookie: bool) -> Response:
    """A Session, and its refresh token in the body or in a cookie."""
    services = call.services
    body: dict[str, Any] = {
        "access_token": services.keys.access(f"user/{user.name}", family.id, services.clock(), ACCESS_LIFETIME),
        "token_type": "Bearer",
        "expires_in": int(ACCESS_LIFETIME),
        "user": {"name": user.name, "role": user.role.value},
    }
    token = services.sessions.token(family)
    if not cookie:
        return JSONResponse({**body, "refresh_token": token})
    answer = JSONResponse(body)
    _cookie(answer, token, int(IDLE))
    return answer


def _cookie(answer: Response, value: str, age: int) -> None:
    answer.set_cookie(
        COOKIE, value, max_age=age, path=f"{PREFIX}/session", secure=True, httponly=True, samesite="strict"
    )


async def sign_in(call: Call) -> Response:
    """POST /session."""
    services, name = call.services, call.body["user"]
    origin = Origin(f"user/{name}", call.origin.address, call.origin.agent)
    try:
        user = await services.passwords.check(name, call.body["password"], origin.address)
    except Problem as problem:
        if problem.code == "unauthorized":
            await services.refusals.add(origin, name, problem.detail)
        raise
    family = await services.sessions.open(user, origin.address, origin.agent, services.clock())
    await services.audit.add(origin, "sign-in", name, session=family.id)
    return reply(call, user, family, cookie=call.body.get("cookie", False))


async def refresh(call: Call) -> Response:
    """POST /session/refresh."""
    services, now = call.services, call.services.clock()
    token = call.body.get("refresh_token")
    by_cookie = token is None
    if token is None:
        token = call.cookies.get(COOKIE)
        if token is not None:
            _no_other_site(call)
    try:
        family = await services.sessions.refresh(token or "", call.origin.address, now)
    except StolenError as error:
        origin = Origin(f"user/{error.family.user}", call.origin.address, call.origin.agent)
        await services.audit.add(origin, "refresh", error.family.user, "refused", "used before: the sign-in has ended")
        services.log.warning("api", "a refresh token came twice, its sign-in has ended", user=error.family.user)
        family = None
    user = services.passwords.user(family.user) if family is not None else None
    if family is None or user is None or services.sessions.proof(user) != family.proof:
        if family is not None:
            await services.sessions.end([family.id])
        raise Problem("unauthorized", "this sign-in is over; sign in again")
    return reply(call, user, family, cookie=by_cookie)


def _no_other_site(call: Call) -> None:
    """Problem `csrf` unless the app itself has sent the request."""
    headers = call.request.headers
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    own = origin is None or origin.lower() == f"{call.request.url.scheme}://{headers.get('host', '').lower()}"
    if HEADER not in headers or site != "same-origin" or not own:
        raise Problem("csrf", f"with the cookie the header {HEADER} is needed, from the app's own pages")


async def sign_out(call: Call) -> Response:
    """DELETE /session."""
    await call.services.sessions.end([call.person.session])
    await call.services.audit.add(call.origin, "sign-out", call.person.name)
    answer = Response(status_code=204)
    _cookie(answer, "", 0)
    return answer


async def share_session(call: Call) -> Any:
    """POST /share-session."""
    services, now = call.services, call.services.clock()
    guess = "share"
    services.passwords.allow(guess, call.origin.address)
    share = services.shares.by_secret(call.body["secret"])
    by = services.passwords.user(share.by) if share is not None else None
    if share is None or by is None or not share.open(now):
        if share is None:
            services.passwords.failed(guess, call.origin.address)
        elif share.revoked is None and now < share.starts:
            raise Problem("forbidden", "the share has not begun yet", more={"from": share.starts})
        raise Problem("unauthorized", "there is no such share, or it is over")
    lifetime = min(ACCESS_LIFETIME, share.ends - now)
    await services.audit.add(
        Origin(f"share/{share.id}", call.origin.address, call.origin.agent), "sign-in", share.device
    )
    return {
        "access_token": services.keys.access(f"share/{share.id}", "share", now, lifetime),
        "token_type": "Bearer",
        "expires_in": int(lifetime),
        "user": {"name": str(share.id), "role": Role.VIEWER.value},
    }


async def me(call: Call) -> Any:
    """GET /me."""
    person = call.person
    return {
        "name": person.name,
        "role": person.role.value,
        "scope": None if person.scope is None else sorted(person.scope),
        "share": None if person.share is None else person.share.public(),
        "passkeys": 0 if person.share is not None else len(call.services.passkeys.of(person.name)),
    }


async def sessions(call: Call) -> Any:
    """GET /sessions."""
    services, person = call.services, call.person
    user = call.query.get("user", person.name)
    if user != person.name and not person.at_least(Role.ADMIN):
        raise Problem("forbidden", "the sign-ins of others are for admins")
    found = sorted(services.sessions.of(user, services.clock()), key=lambda family: -family.used)
    shown = ("id", "user", "created", "used", "address", "agent")
    return {
        "sessions": [
            {**{key: getattr(family, key) for key in shown}, "current": family.id == person.session} for family in found
        ]
    }


async def end_session(call: Call) -> None:
    """DELETE /sessions/{session}."""
    services, person = call.services, call.person
    family = services.sessions.get(call.path["session"], services.clock())
    if family is None or (family.user != person.name and not person.at_least(Role.ADMIN)):
        raise not_found("sign-in")
    await services.sessions.end([family.id])
    await services.audit.add(call.origin, "sign-out", family.user, session=family.id)


_USER: Final = text(NAME_MAX, 1)
_PASSWORD: Final = text(LONGEST)

OPERATIONS: Final = (
    Operation(
        *("POST", "/session", sign_in, "Sign in"),
        answers={200: SESSION},
        open=True,
        body=table({"user": _USER, "password": _PASSWORD}, {"cookie": YES_NO}),
        problems=("unauthorized",),
    ),
    Operation(
        *("POST", "/session/refresh", refresh, "Go on with a sign-in"),
        answers={200: SESSION},
        open=True,
        body=table({}, {"refresh_token": text(200)}),
        problems=("unauthorized", "csrf"),
    ),
    Operation("DELETE", "/session", sign_out, "Sign out", shares=True),
    Operation(
        *("POST", "/share-session", share_session, "Use the link of a share"),
        answers={200: SESSION},
        open=True,
        body=table({"secret": text(100, 1)}),
        problems=("unauthorized", "forbidden"),
    ),
    Operation("GET", "/me", me, "Who I am", answers={200: ME}, shares=True),
    Operation("GET", "/sessions", sessions, "Sign-ins", answers={200: SESSIONS}, query={"user": _USER}),
    Operation("DELETE", "/sessions/{session}", end_session, "End a sign-in"),
)
