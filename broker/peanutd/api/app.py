"""What is served over HTTPS: the API's operations, the app's files, the root certificate; and the headers on all.

The rule it keeps: every answer, whatever has gone wrong, has the headers that tell a browser to trust nothing but this
gateway's own files. Scripts and styles come from files only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peanutd.api import (
    accounts,
    alerting,
    auditing,
    devices,
    events,
    grouping,
    keying,
    openapi,
    past,
    revoking,
    sharing,
    signin,
    stepup,
)
from peanutd.api.openapi import PREFIX
from peanutd.api.problem import Problem
from peanutd.api.services import Services
from peanutd.api.shape import table, words
from peanutd.api.static import Static
from peanutd.api.table import Call, Operation, serve

CSP: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "font", "connect", "manifest", "worker", "media")),
        "img-src 'self' data: blob:",
        *(f"{what} 'none'" for what in ("base-uri", "form-action", "frame-ancestors", "object-src", "frame-src")),
    )
)
HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
}


async def health(call: Call) -> Any:
    """GET /health."""
    return {"status": "ok"}


async def described(call: Call) -> Any:
    """GET /openapi.json."""
    return openapi.document(OPERATIONS, call.services.version)


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation("GET", "/health", health, "Whether it runs", answers={200: table({"status": words("ok")})}, open=True),
    Operation("GET", "/openapi.json", described, "This document", answers={200: {"type": "object"}}, open=True),
    *signin.OPERATIONS,
    *keying.OPERATIONS,
    *stepup.OPERATIONS,
    *devices.OPERATIONS,
    *events.OPERATIONS,
    *accounts.OPERATIONS,
    *sharing.OPERATIONS,
    *auditing.OPERATIONS,
    *revoking.OPERATIONS,
    *past.OPERATIONS,
    *alerting.OPERATIONS,
    *grouping.OPERATIONS,
)
"""Every operation of the API. A part of the gateway that has some adds them here."""


SEND_TIMEOUT: Final = 60.0
"""Seconds that a reader may leave unread what is sent to it, before its request is given up."""


class SlowReaderError(Exception):
    """Somebody does not read; nothing that the gateway could mend."""


def _local(scope: Scope) -> bool:
    """Whether a request without TLS is for this machine by its own name, and no page's that has a name point here."""
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    return host.rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]")


class _Headers:
    """Sets HEADERS on every answer, and turns away what has come without TLS by another name than this machine's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["scheme"] == "http" and not _local(scope):
            await Response("this address is for http://localhost only", 421, media_type="text/plain")(
                scope, receive, send
            )
            return
        api = scope["path"].startswith("/api")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
                if api and not any(key.lower() == b"cache-control" for key, _ in message["headers"]):
                    message["headers"].append((b"cache-control", b"no-store"))
            try:
                async with asyncio.timeout(SEND_TIMEOUT):
                    await send(message)
            except TimeoutError:
                raise SlowReaderError from None

        await self._app(scope, receive, sending)


def make(services: Services, home: Path, static: Static, operations: Sequence[Operation] = OPERATIONS) -> ASGIApp:
    """The application."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    routes: list[BaseRoute] = [
        _Path(f"{PREFIX}{path}", partial(serve, services, methods)) for path, methods in by_path.items()
    ]
    routes += [
        _Path("/api/{rest:path}", _nothing),
        _Path("/ca.crt", partial(_authority, home / "ca" / "root.crt")),
        _Path("/{path:path}", partial(_file, static)),
    ]
    return _Headers(Starlette(routes=routes))


class _Path(Route):
    """A path, whatever the method."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        async def call(request: Request) -> Response:
            return await endpoint(request)

        super().__init__(path, call)
        self.methods = set()


async def _nothing(request: Request) -> Response:
    return Problem("not_found", f"there is nothing at {request.url.path}").response()


async def _authority(path: Path, request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        return Response(status_code=405, headers={"Allow": "GET, HEAD"})
    try:
        return Response(path.read_bytes(), media_type="application/x-x509-ca-cert")
    except OSError:
        return JSONResponse({"detail": "there is no root certificate"}, 404)


async def _file(static: Static, request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        return Response(status_code=405, headers={"Allow": "GET, HEAD"})
    return static.serve(request)
