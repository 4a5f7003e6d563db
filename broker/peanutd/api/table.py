"""Operations: what a route takes, gives and asks of whoever calls, as data; and the way of a request through it.

The rule it keeps: the order is rate, who, role, path, query, body, work; what does not fit the table never reaches the
work, and the OpenAPI document is made from the same table. A body has an end, in bytes and in seconds.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from peanutd.access import Role
from peanutd.api import shape
from peanutd.api.audit import Origin
from peanutd.api.people import Person
from peanutd.api.problem import Problem, not_found
from peanutd.api.shape import Schema

if TYPE_CHECKING:
    from peanutd.api.services import Services

BODY_MAX: Final = 64 * 1024
"""Bytes of a request's body, unless the operation says more."""
BODY_TIMEOUT: Final = 15.0
"""Seconds in which it must be there."""
QUERY_MAX: Final = 8 * 1024
"""Characters of a query."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that fits its operation."""

    services: Services
    request: Request
    origin: Origin
    caller: Person | None
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any

    @property
    def person(self) -> Person:
        """Who calls; for operations that are not open."""
        assert self.caller is not None
        return self.caller

    @property
    def cookies(self) -> Mapping[str, str]:
        """Of the request. Starlette's own parser takes more than it should."""
        try:
            found = SimpleCookie(self.request.headers.get("cookie", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in found.items()}


Work = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path. `work` returns a body for the first of `answers`, or a whole response."""

    method: str
    path: str
    work: Work
    summary: str
    answers: Mapping[int, Schema | str | None] = field(default_factory=lambda: {204: None})
    """By status: the body's schema, None for no body, a media type for what is not JSON."""
    role: Role = Role.VIEWER
    open: bool = False
    """Whether anybody may call it, signed in or not."""
    body: Schema | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    problems: Sequence[str] = ()
    """Codes beside those that every operation of its sort has."""
    shares: bool = False
    """Whether holders of a share may call it."""
    body_max: int = BODY_MAX
    """Bytes of its body."""
    ticket: bool = False
    """Whether a ticket in the query does in place of the header."""

    @property
    def status(self) -> int:
        return next(iter(self.answers))


PATHS: Final[dict[str, Schema]] = {}
"""Schemas of the parts of paths that are in braces."""


async def serve(services: Services, operations: Mapping[str, Operation], request: Request) -> Response:
    """One request to a path with these operations, by method."""
    try:
        return await _serve(services, operations, request)
    except Problem as problem:
        return problem.response()
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    except Exception as error:
        services.log.error("api", "a request has failed", path=request.url.path, error=repr(error))
        return Problem("failed", "the gateway has made a mistake; its log says more").response()


async def _serve(services: Services, operations: Mapping[str, Operation], request: Request) -> Response:
    operation = operations.get(request.method)
    if operation is None:
        problem = Problem("method", f"{request.method} means nothing here")
        problem.headers["Allow"] = ", ".join(sorted(operations))
        raise problem
    client = request.client
    address = client.host if client is not None else "unknown"
    origin = Origin("-", address, _printable(request.headers.get("user-agent", "")))
    person: Person | None = None
    if not operation.open:
        person = services.person(_authorization(services, operation, request), origin)
        origin = person.origin
    services.rate.spend(person.who if person is not None else address, services.monotonic())
    if person is not None:
        if not person.at_least(operation.role):
            raise Problem("forbidden", f"this needs the role {operation.role.value}; yours is {person.role.value}")
        if person.share is not None and not operation.shares:
            raise Problem("forbidden", "a share is for its device only")
    for key, value in request.path_params.items():
        if key in PATHS and shape.check(PATHS[key], value) is not None:
            raise not_found(key)
    query = _query(operation, request.url.query)
    body = await _body(operation, request)
    call = Call(services, request, origin, person, request.path_params, query, body)
    result = await operation.work(call)
    if isinstance(result, Response):
        return result
    if operation.answers[operation.status] is None:
        return Response(status_code=operation.status)
    return JSONResponse(result, operation.status)


def _authorization(services: Services, operation: Operation, request: Request) -> str | None:
    """The header, or what a ticket stands for."""
    header = request.headers.get("authorization")
    ticket = request.query_params.get("ticket") if operation.ticket and header is None else None
    return header if ticket is None else f"Bearer {services.live.token(ticket, services.clock())}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _query(operation: Operation, text: str) -> dict[str, Any]:
    """What the query says, in the types of the table. What is unknown is left out."""
    if len(text) > QUERY_MAX:
        raise Problem("too_large", f"a query has at most {QUERY_MAX} characters")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
    except (ValueError, UnicodeDecodeError):
        raise Problem("malformed", "the query is not percent-encoded UTF-8") from None
    found: dict[str, Any] = {}
    for key, schema in operation.query.items():
        values = [value for name, value in pairs if name == key]
        if not values:
            if "default" in schema:
                found[key] = schema["default"]
            continue
        value: Any
        if schema.get("type") == "array":
            value = values
        elif len(values) > 1:
            raise Problem("invalid", f"{key} is given twice")
        else:
            value = _typed(schema, key, values[0])
        if (problem := shape.check(schema, value, key)) is not None:
            raise Problem("invalid", problem)
        found[key] = value
    return found


def _typed(schema: Schema, key: str, text: str) -> Any:
    if schema.get("type") not in ("integer", "number"):
        return text
    try:
        if not text.isascii() or not text.lstrip("-").replace(".", "", 1).replace("e", "", 1).isalnum():
            raise ValueError
        number = int(text) if schema["type"] == "integer" and len(text) < 20 else float(text)
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise Problem("invalid", f"{key} must be a number") from None
    return number


async def _body(operation: Operation, request: Request) -> Any:
    """The body, whole, parsed and as the table has it; None where there is none to be."""
    if operation.body is None:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem("media_type", "a body is application/json")
    data = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                data += chunk
                if len(data) > operation.body_max:
                    raise Problem("too_large", f"this body has at most {operation.body_max} bytes")
    except TimeoutError:
        raise Problem("malformed", f"the body was not there within {BODY_TIMEOUT:g} s") from None
    try:
        body = json.loads(data, parse_constant=_no_number)
        json.dumps(body, ensure_ascii=False).encode()  # half a surrogate pair is no text, and nobody could store it
    except (ValueError, RecursionError):
        raise Problem("malformed", "the body is not JSON in UTF-8") from None
    if (problem := shape.check(operation.body, body)) is not None:
        raise Problem("invalid", problem)
    return body


def _no_number(text: str) -> Any:
    raise ValueError(text)
