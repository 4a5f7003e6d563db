"""The API in a test's own loop: the real application over the real broker core, without sockets, and time as a number.

The rule it keeps: nothing of ours is faked; requests go through the whole application (httpx speaks ASGI to it), the
core is the one of production, and nodes are links of that core. Only clocks are the test's.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from peanutd.api import app, keys
from peanutd.api.audit import Audit
from peanutd.api.bridge import Bridge
from peanutd.api.database import Database
from peanutd.api.passwords import Passwords
from peanutd.api.scopes import Scopes
from peanutd.api.services import Services
from peanutd.api.sessions import Sessions
from peanutd.api.shares import Shares
from peanutd.api.static import Static
from peanutd.log import Log
from peanutd.users import Store
from tests.broker.scram_client import user, write_users

PASSWORD = "correct horse"
START = 1_800_000_000.0
"""Unix seconds at which every test begins."""

T = TypeVar("T")


entry = functools.cache(functools.partial(user, argon=True))
"""Of users.json, for a password and a role. Making one takes its time, so tests share them."""


class Lines:
    """A log that is kept."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


class World:
    """A gateway's API, and its users maria (operator), vera (viewer) and ada (admin), all with one password."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = START
        self.lines = Lines()
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()
        self.users = {"maria": "operator", "vera": "viewer", "ada": "admin"}
        self.passwords = dict.fromkeys(self.users, PASSWORD)
        self.write_users()
        self.static: Path = home / "static"
        self.open()

    def write_users(self) -> None:
        made = {name: entry(self.passwords[name], role) for name, role in self.users.items()}
        write_users(self.home, **made)

    def open(self) -> None:
        """Starts it, as after a restart."""
        log = Log("debug", self.lines)
        database, secret = Database(self.home), keys.load(self.home)
        self.sessions = Sessions(database, secret)
        self.services = Services(
            log=log,
            keys=secret,
            database=database,
            sessions=self.sessions,
            passwords=Passwords(
                Store(self.home),
                lambda: self.now,
                lambda text: log.warning("api", text),
                lambda name: {family.address for family in self.sessions.of(name, self.now)},
            ),
            scopes=Scopes(database),
            shares=Shares(database, secret),
            audit=Audit(database, lambda: self.now, lambda text: log.info("api", text)),
            bridge=Bridge(self.loop),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            version="1",
        )
        self.app = app.make(self.services, self.home, Static(self.static))

    def close(self) -> None:
        self.services.passwords.close()
        self.services.database.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def run(self, work: Awaitable[T]) -> T:
        """Runs it in the API's loop."""

        async def doing() -> T:
            return await work

        return self.runner.run(doing())

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None, **more: Any) -> httpx.Response:
        """One request; `path` is below /api/v1 unless it begins with two slashes."""
        return self.run(self.asking(method, path, body, token=token, **more))

    async def asking(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        address: str = "192.168.1.9",
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """The same, for several at once."""
        transport = httpx.ASGITransport(app=self.app, client=(address, 4711))
        url = path[1:] if path.startswith("//") else f"/api/v1{path}"
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None:
            content = json.dumps(body).encode()
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        async with httpx.AsyncClient(transport=transport, base_url="https://gateway.local") as client:
            return await client.request(method, url, content=content, headers=sent)

    def sign_in(self, name: str, **more: Any) -> dict[str, Any]:
        """The Session."""
        answer = self.ask("POST", "/session", {"user": name, "password": self.passwords[name]}, **more)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def token(self, name: str) -> str:
        """An access token."""
        return str(self.sign_in(name)["access_token"])

    def entries(self, **wanted: Any) -> list[dict[str, Any]]:
        """Of the audit log, the newest first, those that have these values."""
        found = [entry.public() for entry in self.run(self.services.audit.read(limit=1000))]
        return [entry for entry in found if all(entry[key] == value for key, value in wanted.items())]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()
    made.runner.close()


Refused = Callable[[httpx.Response, str], dict[str, Any]]


@pytest.fixture
def refused() -> Refused:
    """That an answer is the problem with this code; its body."""

    def check(answer: httpx.Response, code: str) -> dict[str, Any]:
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        found: dict[str, Any] = answer.json()
        assert (found["code"], found["status"]) == (code, answer.status_code)
        assert found["detail"]
        return found

    return check
