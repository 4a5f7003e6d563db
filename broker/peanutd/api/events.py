"""GET /events: the stream of what happens, and the ticket for those who cannot send a header.

The rule it keeps: a stream counts against its user, and ends with the access token that opened it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.responses import StreamingResponse

from peanutd.api import audience
from peanutd.api.live import TICKET_LIFETIME, Check, Stream
from peanutd.api.people import Person
from peanutd.api.problem import Problem
from peanutd.api.quota import Places
from peanutd.api.services import Services
from peanutd.api.shape import COUNT, TEXT, listed, table, text
from peanutd.api.table import Call, Operation

PLACES: Final = Places("streams", 20, 500)
"""Streams of one user (a browser opens one for each of its windows), and in all."""
MEDIA_TYPE: Final = "text/event-stream"


async def ticket(call: Call) -> Any:
    """POST /events/ticket."""
    token = call.request.headers.get("authorization", "").partition(" ")[2].strip()
    return {"ticket": call.services.live.ticket(token, call.services.clock()), "expires_in": int(TICKET_LIFETIME)}


async def events(call: Call) -> StreamingResponse:
    """GET /events."""
    services, person = call.services, call.person
    names = await audience.devices(services, person)
    wanted = frozenset(call.query.get("device", ())) or None
    stream = Stream(names, wanted)
    with PLACES.taken(person.who):  # a stream that has begun cannot be refused any more
        pass

    async def reading() -> AsyncIterator[bytes]:
        with PLACES.taken(person.who):
            async for data in services.live.read(stream, checker(services), person):
                yield data

    return StreamingResponse(reading(), headers={"X-Accel-Buffering": "no"}, media_type=MEDIA_TYPE)


def checker(services: Services) -> Check:
    """Says whether the reader may go on, and sees to what he may see."""

    async def check(stream: Stream, person: Person) -> bool:
        if services.clock() >= person.ends or not services.counts(person):
            return False
        with contextlib.suppress(Problem):  # too much to do: what he might see a moment ago will do
            stream.names = await audience.devices(services, person)
        return True

    return check


OPERATIONS: Final = (
    Operation(
        *("POST", "/events/ticket", ticket, "A ticket for a stream"),
        answers={200: table({"ticket": TEXT, "expires_in": COUNT})},
        shares=True,
    ),
    Operation(
        *("GET", "/events", events, "What happens, as it happens"),
        answers={200: MEDIA_TYPE},
        query={"device": listed(text(32, 1), 100), "ticket": text(100)},
        ticket=True,
        shares=True,
    ),
)
