"""Live updates: what happens, to whoever looks, as it happens.

The rule it keeps: a stream holds so many news and no more; who is too slow for them is told that some are lost, and
nobody waits for anybody. It shows what its reader may see, and ends when the sign-in does.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

from peanutd.api.nodes import News, Nodes, encoded
from peanutd.api.people import Person

HELD: Final = 1000
"""News that wait for one reader; with one more, all of them are lost."""
TOGETHER: Final = 0.25
"""Seconds from one sending to the next: with a thousand devices a hundred news come in a second, for each reader."""
QUIET: Final = 15.0
"""Seconds without news after which a comment is sent, so that whatever lies between keeps the connection."""
RECHECK: Final = 5.0
"""Seconds between two looks at what the reader may see, and whether the sign-in still counts."""
TICKET_LIFETIME: Final = 30.0
"""Seconds for which a ticket opens a stream, once."""
TICKETS: Final = 1000
"""Tickets that were not used yet; the oldest gives way."""


class Check(Protocol):
    """Whether a reader may go on; sees to what he may see."""

    async def __call__(self, stream: Stream, person: Person) -> bool: ...


class Stream:
    """One reader."""

    def __init__(self, names: frozenset[str], wanted: frozenset[str] | None) -> None:
        """names: the devices that it may see; wanted: those that it asks for, None for all."""
        self.names = names
        self._wanted = wanted
        self._held: deque[News] = deque()
        self._lost = 0
        self._changed = asyncio.Event()
        self._sent = float("-inf")
        self.over = False

    def follow(self, news: News | int) -> None:
        """Takes news, or that some were lost on the way."""
        if isinstance(news, int):
            self._lost += news
        else:
            device = news.device
            if device is not None and (device not in self.names or (self._wanted and device not in self._wanted)):
                return
            if len(self._held) >= HELD:
                self._lost += len(self._held)
                self._held.clear()
            self._held.append(news)
        self._changed.set()

    def end(self) -> None:
        """No more comes."""
        self.over = True
        self._changed.set()

    async def next(self, seconds: float) -> bytes:
        """What there is to send, after at most so many seconds; maybe nothing."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return b""
        loop = asyncio.get_running_loop()
        if not self.over and (pause := self._sent + TOGETHER - loop.time()) > 0:
            await asyncio.sleep(pause)
        self._sent = loop.time()
        self._changed.clear()
        parts: list[bytes] = []
        if self._lost:
            parts.append(encoded("resync", {"lost": self._lost}))
            self._lost = 0
        while self._held:
            parts.append(self._held.popleft().wire)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class _Ticket:
    token: str
    ends: float


class Live:
    """All streams, and the tickets to come."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._streams: set[Stream] = set()
        self._tickets: dict[bytes, _Ticket] = {}

    def ticket(self, token: str, now: float) -> str:
        """A ticket for whoever has this access token."""
        for key in [key for key, ticket in self._tickets.items() if ticket.ends <= now]:
            del self._tickets[key]
        if len(self._tickets) >= TICKETS:
            del self._tickets[next(iter(self._tickets))]
        made = secrets.token_urlsafe(24)
        self._tickets[_key(made)] = _Ticket(token, now + TICKET_LIFETIME)
        return made

    def token(self, ticket: str, now: float) -> str | None:
        """The access token behind a ticket, which is worth nothing afterwards."""
        found = self._tickets.pop(_key(ticket), None)
        return found.token if found is not None and 0 < found.ends - now <= TICKET_LIFETIME + 1 else None

    async def read(self, stream: Stream, check: Check, person: Person) -> AsyncIterator[bytes]:
        """What the reader of a stream is sent. `check` is asked now and then."""
        self._streams.add(stream)
        quiet = 0.0
        try:
            with self._nodes.following(stream.follow):
                yield b": here\n\n"
                while not stream.over:
                    data = await stream.next(RECHECK)
                    quiet = 0.0 if data else quiet + RECHECK
                    if data:
                        yield data
                    elif quiet >= QUIET:
                        quiet = 0.0
                        yield b": quiet\n\n"
                    if not await check(stream, person):
                        yield encoded("expired", {})
                        return
        finally:
            self._streams.discard(stream)

    def end(self) -> None:
        """All streams end."""
        for stream in tuple(self._streams):
            stream.end()

    def __len__(self) -> int:
        return len(self._streams)


def _key(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
