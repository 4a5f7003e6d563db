"""What goes wrong, as HTTP says it: `application/problem+json` (RFC 9457).

The rule it keeps: every refusal is one of the codes below, with a sentence that a person can act on, and nothing of the
inside of the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import JSONResponse

MEDIA_TYPE: Final = "application/problem+json"

CODES: Final[Mapping[str, tuple[int, str]]] = {
    "malformed": (400, "Malformed request"),
    "unauthorized": (401, "Not signed in"),
    "forbidden": (403, "Not allowed"),
    "step_up": (403, "A second proof is needed"),
    "csrf": (403, "Not from the app"),
    "not_found": (404, "Not found"),
    "method": (405, "Method not allowed"),
    "conflict": (409, "Conflict"),
    "rejected": (409, "Rejected by the node"),
    "too_large": (413, "Too large"),
    "media_type": (415, "Unsupported media type"),
    "invalid": (422, "Not valid"),
    "busy": (429, "Busy"),
    "too_often": (429, "Too often"),
    "failed": (500, "The gateway has failed"),
    "unavailable": (503, "Unavailable"),
    "not_answered": (504, "The node did not answer"),
}
"""Code, and the status and title that go with it."""


class Problem(Exception):
    """Ends a request. `more` are fields beside the usual ones."""

    def __init__(
        self, code: str, detail: str, *, retry_after: float | None = None, more: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status, self.title = CODES[code]
        self.detail = detail
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, round(retry_after)))
        if code == "unauthorized":
            self.headers["WWW-Authenticate"] = 'Bearer realm="peanut"'
        self.more = dict(more or {})

    def response(self) -> JSONResponse:
        """As it goes out."""
        body = {**self.more, "status": self.status, "code": self.code, "title": self.title, "detail": self.detail}
        return JSONResponse(body, self.status, self.headers, MEDIA_TYPE)


def not_found(what: str) -> Problem:
    """There is no such thing, or it is not for this user to know."""
    return Problem("not_found", f"there is no {what}, or it is not yours to see")
