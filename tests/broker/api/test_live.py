"""Live updates: what happens reaches who may see it, and whoever is too slow, or out, is told so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from peanutd.api import events, live, sessions
from peanutd.api.nodes import News
from tests.broker.api.conftest import Refused, World, asgi_scope

DEADLINE = 60.0


class Reader:
    """Reads a stream as ASGI gives it, for httpx waits for the whole of an answer."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.more = True
        self.changed = asyncio.Condition()

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for part in self.body.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in part.splitlines() if line and not line.startswith(":"))
            if lines:
                found.append((lines["event"], json.loads(lines["data"])))
        return found

    async def until(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        async with asyncio.timeout(DEADLINE), self.changed:
            await self.changed.wait_for(lambda: len(self.events()) >= count or not self.more)
        return self.events()


@asynccontextmanager
async def reading(world: World, path: str, token: str | None = None) -> AsyncIterator[Reader]:
    """A stream, while it is read."""
    reader, gone = Reader(), asyncio.Event()
    name, _, query = path.partition("?")

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        async with reader.changed:
            reader.status = message.get("status", reader.status)
            reader.body += message.get("body", b"")
            reader.more = message["type"] == "http.response.start" or message.get("more_body", False)
            reader.changed.notify_all()

    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    scope = asgi_scope(name, headers=headers, query_string=query.encode())
    task = asyncio.get_running_loop().create_task(world.app(scope, receive, send))
    try:
        async with asyncio.timeout(DEADLINE), reader.changed:
            await reader.changed.wait_for(lambda: reader.body)
        yield reader
    finally:
        gone.set()
        async with asyncio.timeout(DEADLINE):
            await task


def test_what_happens_is_told_as_it_happens(world: World) -> None:
    node, token = world.node("peanut"), world.token("vera")

    async def story() -> list[tuple[str, dict[str, Any]]]:
        async with reading(world, "/events", token) as reader:
            assert reader.status == 200
            node.say("state", {"setpoint": 15, "ts": 1})
            node.say("telemetry", {"ts": 2, "readings": {"temperature": [1, "ok", 0]}})
            node.say("event", {"id": "frost", "text": "a\n\nb", "clear": False, "ts": 3})
            node.say("status", {"state": "offline", "why": "gone"}, retain=True)
            node.say("ack", {"id": "x", "stage": "done", "device": "another"})  # it speaks for itself
            node.say("session", {"epoch": "secret"})
            node.say("state", b"nonsense")
            node.say("health", {"up": 1})
            return await reader.until(6)

    assert world.run(story()) == [
        ("state", {"device": "peanut", "state": {"setpoint": 15, "ts": 1}, "ts": 1}),
        ("readings", {"device": "peanut", "readings": {"temperature": [1, "ok", 0]}, "ts": 2, "codes": []}),
        ("event", {"device": "peanut", "id": "frost", "text": "a\n\nb", "clear": False, "ts": 3}),
        ("presence", {"device": "peanut", "presence": "offline", "why": "gone", "ts": world.now}),
        ("ack", {"device": "peanut", "id": "x", "stage": "done"}),
        ("health", {"device": "peanut", "up": 1}),
    ]


def test_a_stream_shows_what_its_reader_may_see_and_asks_for(world: World) -> None:
    one, other = world.node("peanut"), world.node("other")
    token = world.token("vera")

    class Only:
        def members(self, group: str) -> frozenset[str]:
            return frozenset({"peanut"})

        def of(self, device: str) -> frozenset[str]:
            return frozenset()

    async def story(path: str) -> list[str]:
        async with reading(world, path, token) as reader:
            other.say("event", {"id": "b"})
            one.say("event", {"id": "a"})
            return [data["id"] for _, data in await reader.until(1)]

    assert world.run(story("/events?device=peanut")) == ["a"]
    world.services.rights.groups = Only()
    world.run(world.services.scopes.set("vera", frozenset({"north"})))
    assert world.run(story("/events")) == ["a"]


@pytest.mark.parametrize("ends", ["token", "sign-in", "user"])
def test_a_stream_ends_with_the_sign_in(world: World, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.setattr(live, "RECHECK", 0.01)
    node, token = world.node("peanut"), world.token("vera")

    async def story() -> list[tuple[str, dict[str, Any]]]:
        async with reading(world, "/events", token) as reader:
            node.say("event", {"id": "a"})
            await reader.until(1)
            if ends == "token":
                world.now += sessions.ACCESS_LIFETIME
            elif ends == "sign-in":
                await world.asking("DELETE", "/session", token=token)
            else:
                (world.home / "users.json").unlink()
            async with asyncio.timeout(DEADLINE), reader.changed:
                await reader.changed.wait_for(lambda: not reader.more)
            return reader.events()

    assert world.run(story())[-1] == ("expired", {})


def test_a_ticket_opens_a_stream_once_and_soon(world: World, refused: Refused) -> None:
    world.node("peanut")
    token = world.token("vera")

    def ticket() -> str:
        return str(world.ask("POST", "/events/ticket", token=token).json()["ticket"])

    async def status(path: str) -> int:
        async with reading(world, path) as reader:
            return reader.status

    given = ticket()
    assert world.run(status(f"/events?ticket={given}")) == 200
    assert world.run(status(f"/events?ticket={given}")) == 401
    assert world.run(status("/events?ticket=guessed")) == 401
    late = ticket()
    world.now += live.TICKET_LIFETIME
    assert world.run(status(f"/events?ticket={late}")) == 401
    ahead = ticket()
    world.now -= 2
    assert world.run(status(f"/events?ticket={ahead}")) == 401
    refused(world.ask("GET", f"/me?ticket={ticket()}"), "unauthorized")  # for nothing else


def test_a_user_has_so_many_streams_and_gets_them_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events.PLACES, "_most", 2)
    token = world.token("vera")

    async def story() -> list[int]:
        path = "/events"
        async with (
            reading(world, path, token) as one,
            reading(world, path, token) as two,
            reading(world, path, token) as three,
        ):
            found = [one.status, two.status, three.status]
        async with reading(world, "/events", token) as again:
            return [*found, again.status]

    assert world.run(story()) == [200, 200, 429, 200]
    assert len(world.services.live) == 0


def test_who_is_too_slow_is_told_that_news_are_lost(world: World) -> None:
    async def story() -> list[bytes]:
        stream = live.Stream(frozenset({"peanut"}), None)
        for number in range(live.HELD + 1):
            stream.follow(News("peanut", "event", {"id": number}))
        first = await stream.next(1)
        stream.follow(7)  # lost on the bridge
        return [first, await stream.next(1), await stream.next(0)]

    first, second, third = world.run(story())
    assert first.startswith(b'event: resync\ndata: {"lost":%d}' % live.HELD)
    assert first.count(b"event: event") == 1
    assert second == b'event: resync\ndata: {"lost":7}\n\n'
    assert third == b""
