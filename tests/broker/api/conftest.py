"""The API in a test's own loop: the real application over the real broker core, without sockets, and time as a number.

The rule it keeps: nothing of ours is faked; requests go through the whole application (httpx speaks ASGI to it), the
core is the one of production, and nodes are links of that core. Only clocks are the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from peanutd import _core, argon, users
from peanutd.api import app, keys, serve
from peanutd.api.bridge import Relay
from peanutd.api.database import Database
from peanutd.api.static import Static
from peanutd.connection import now_ms
from peanutd.ear import Ear
from peanutd.log import Log
from peanutd.monitor import Monitor
from peanutd.server import Server
from tests.broker.scram_client import LEAST, user, write_users

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


def asgi_scope(path: str, **more: Any) -> dict[str, Any]:
    """What an HTTP server tells of a request to the API, for tests that read or send like nobody else does."""
    return {
        "type": "http",
        "method": "GET",
        "path": f"/api/v1{path}",
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("10.0.0.9", 1),
        "root_path": "",
        "server": ("gateway.local", 443),
        "scheme": "https",
        "http_version": "1.1",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        **more,
    }


class Node(Ear):
    """A node: a link of the core that hears its commands. `act` says what it answers, one after another."""

    def __init__(self, world: World, root: str) -> None:
        super().__init__(world.server.broker, world.server.run, world.loop, world.log, now_ms)
        self.world = world
        self.root = root
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.act: Callable[[str, dict[str, Any]], list[dict[str, Any]]] = self.obey
        self._broker.set_rules(14, [(True, _core.MAY_SUBSCRIBE, _core.RETAIN_ANY, "#")])
        world.nodes.append(self)  # else nobody holds its link
        self._link = self._broker.open(self, now_ms())
        hello = {"type": "CONNECT", "version": 4, "client_id": root, "clean_start": True, "keep_alive": 0}
        self._feed({**hello, "properties": [], "will": None, "username": None, "password": None})
        self.say("status", {"state": "online", "fw": "1", "sim": True, "ts": 5}, retain=True)

    def told(self, kind: int, reason: int) -> None:
        if kind == _core.EVENT_CONNECT and self._link is not None:
            self._run(self._link.accept(session=self.root, identity="node", rules=14, now=now_ms()))
            options = {"qos": 1, "no_local": False, "retain_as_published": False, "retain_handling": 0}
            verbs = ("UpdateTemperature", "cmd/+", "unlock", "lock", "start", "stop", "horn")
            filters = [{"filter": f"{self.root}/{verb}", **options} for verb in verbs]
            self._feed({"type": "SUBSCRIBE", "id": 1, "properties": [], "filters": filters})

    def _tell(self, topic: str, payload: bytes, retained: bool) -> None:
        verb = topic.removeprefix(f"{self.root}/")
        body = json.loads(payload) if payload else {}
        self.heard.append((verb, body))
        for answer in self.act(verb, body):
            leaf = answer.pop("leaf", "ack")
            self.world.loop.call_soon(lambda leaf=leaf, answer=answer: self.say(leaf, answer))

    def obey(self, verb: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Accepts and does everything."""
        said = {"id": body.get("id"), "cmd": verb, "ts": 6}
        return [
            {**said, "stage": "accepted"},
            {**said, "stage": "done", "state": {"setpoint": body.get("temperature")}},
        ]

    def say(self, leaf: str, content: dict[str, Any] | bytes, *, retain: bool = False) -> None:
        """A report of its own."""
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._run(self._broker.publish(f"{self.root}/{leaf}", payload, qos=1, retain=retain, now=now_ms()))


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
        self.log = Log("debug", self.lines)
        self.server = Server(_core.Broker(seed=b"a fixed seed"), self.log, self.loop)
        self.gateway: serve.Gateway = self.server
        self.ear = Ear(self.server.broker, self.server.run, self.loop, self.log, now_ms)
        self.ear.open()
        self.nodes: list[Node] = []
        self.ledger: list[tuple[str, str]] = []
        self.monitor: Monitor | None = None
        self.open()

    def write_users(self) -> None:
        made = {name: entry(self.passwords[name], role) for name, role in self.users.items()}
        write_users(self.home, **made)

    def open(self) -> None:
        """Starts it, as after a restart."""
        database = Database(self.home)
        self.services = serve.services(
            self.home,
            database,
            keys.load(self.home),
            self.gateway,
            self.loop,
            self.log,
            "1",
            lambda: self.now,
            lambda: self.now,
            self.monitor,
        )
        self.relay = Relay(self.services.nodes.take)
        self.relay.open(self.loop)
        self.deaf = self.ear.listen(self.relay.put)
        self.app = app.make(self.services, self.home, Static(self.static))

    def close(self) -> None:
        self.deaf()
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

    def enrol(self, *names: str) -> None:
        """Writes the ledger: greenhouses, and vehicles by their VINs."""
        self.ledger += [(name, "greenhouse" if name.islower() else "vehicle") for name in names]
        with contextlib.closing(sqlite3.connect(self.home / "ledger.db")) as ledger, ledger:
            ledger.execute("CREATE TABLE IF NOT EXISTS device (name TEXT, kind TEXT)")
            ledger.executemany("INSERT INTO device VALUES (?, ?)", self.ledger[-len(names) :])
        self.services.nodes.refresh()

    def node(self, name: str) -> Node:
        """A node that is online and in the ledger."""
        self.enrol(name)
        node = Node(self, f"/plant/{name}" if name.islower() else f"vin/{name}")
        self.settle()
        return node

    def settle(self) -> None:
        """Lets everybody hear everything."""

        async def turns() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.run(turns())

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
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(users, "USUAL_ITERATIONS", LEAST)  # new passwords are made quickly
    monkeypatch.setattr(argon, "USUAL_COST", (argon.MEMORY_MIN, 1, 1))
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
