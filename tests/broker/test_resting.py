"""Who is in and says nothing has no object of Python (native/guest.h), and nobody can tell by anything.

Each test sends its clients to rest, asserts that they do, and then has something happen to them. The suite as a whole
proves more: the daemons of its tests send theirs to rest with every tick.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest

from peanutd import access, native, tls
from peanutd._core import Broker
from peanutd.census import Limits
from peanutd.config import Address, Listener, Policy
from peanutd.log import Log
from peanutd.server import Server
from tests.broker.native_loop import needs_loop

pytestmark = needs_loop

DEADLINE = 120.0
ANYBODY = Listener(Address("127.0.0.1", 0), "tcp", Policy("none", anonymous=True), driver="native")
NODES = Listener(Address("127.0.0.1", 0), "tls", driver="native")


class Gateway:
    """A server in this loop, and its clients."""

    def __init__(self, server: Server, log: StringIO) -> None:
        self.server, self.log = server, log
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def client(
        self, name: str, context: ssl.SSLContext | None = None, level: int = 4, answer: int = 0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that has been answered."""
        host = "localhost" if context is not None else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=host)
        self.writers.append(writer)
        properties = b"\x00" if level == 5 else b""
        connect = b"\x00\x04MQTT" + bytes([level, 2, 0, 0]) + properties + len(name).to_bytes(2) + name.encode()
        writer.write(b"\x10" + bytes([len(connect)]) + connect)
        head = await reader.readexactly(2)
        assert (await reader.readexactly(head[1]))[1] == answer
        return reader, writer

    @property
    def driver(self) -> native.Driver:
        assert self.server._native is not None
        return self.server._native

    def send_to_rest(self) -> None:
        """All that are in."""
        self.driver.tick()
        assert not [one for one in self.server.connections.awake() if one.accepted is not None and not one._done]

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.01)

    def lines(self, text: str) -> list[str]:
        return [line for line in self.log.getvalue().splitlines() if text in line]


@contextlib.asynccontextmanager
async def gateway(listener: Listener, credentials: tls.Credentials | None = None) -> AsyncIterator[Gateway]:
    log = StringIO()
    server = Server(Broker(seed=b"not a secret"), Log(stream=log), asyncio.get_running_loop(), credentials=credentials)
    made = Gateway(server, log)
    (address,) = await server.start([listener])
    assert isinstance(address, Address)
    made.port = address.port
    try:
        yield made
    finally:
        for writer in made.writers:
            writer.close()
        if not server._stopping:
            await server.stop()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_who_rests_has_no_object_and_is_counted_and_served() -> None:
    async def scenario() -> None:
        async with gateway(ANYBODY) as home:
            reader, writer = await home.client("hears")
            writer.write(b"\x82\x06\x00\x01\x00\x01t\x00")
            assert await reader.readexactly(5) == b"\x90\x03\x00\x01\x00"
            _, other = await home.client("says")
            home.send_to_rest()
            made = (one for one in gc.get_objects() if isinstance(one, native.Native))
            assert not [one for one in made if one.server is home.server]
            assert len(home.server.connections) == home.server.census.online == home.driver.loop.resting == 2
            assert home.server.snapshot()["connections"]["online"] == 2
            assert home.server.snapshot()["connections"]["closing"] == 0
            assert home.server.broker.online("anonymous/says")
            assert not home.server.broker.online("anonymous/sits")
            other.write(b"\x30\x05\x00\x01thi")
            assert await reader.readexactly(7) == b"\x30\x05\x00\x01thi"
            assert home.driver.loop.resting == 2, "a message is nothing to be decided"

    run(scenario)


def test_who_has_too_long_a_name_for_a_note_stays_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with gateway(ANYBODY) as home:
            _, writer = await home.client("a" * 100)
            await home.client("a" * (100 - 9))
            monkeypatch.setattr(native, "NOTE_MAX", 100)  # nine bytes of it are what else is noted
            home.driver.tick()
            assert home.driver.loop.resting == 1
            assert len(home.server.connections) == home.server.census.online == 2
            writer.close()
            await home.until(lambda: home.server.census.online == 1)
            assert len(home.lines(" disconnected ")) == 1

    run(scenario)


def test_who_goes_is_told_of_as_he_came() -> None:
    async def scenario() -> None:
        async with gateway(ANYBODY) as home:
            _, writer = await home.client("bean")
            home.send_to_rest()
            writer.close()
            await home.until(lambda: not home.server.connections)
            (came,), (went,) = home.lines(" connected "), home.lines(" disconnected ")
            address = came.partition("address=")[2].split()[0]
            assert "who=anonymous/bean" in went
            assert f"address={address} " in went
            assert home.server.census.online == home.driver.loop.resting == 0
            assert not home.server.census._addresses, "the place of its address is given back"
            assert home.server.watch.tally.disconnected == {0x80: 1}

    run(scenario)


def test_a_session_is_taken_over_from_one_that_rests() -> None:
    async def scenario() -> None:
        async with gateway(ANYBODY) as home:
            reader, writer = await home.client("bean")
            home.send_to_rest()
            await home.client("bean")
            assert await reader.read() == b""
            writer.close()
            (line,) = home.lines(" disconnected ")
            assert "taken over by a new connection" in line
            assert home.server.census.online == 1
            home.send_to_rest()
            assert home.server.census.online == 1
            await home.until(lambda: len(home.server.connections) == 1)

    run(scenario)


def test_whoever_is_asked_for_is_woken_and_rests_again() -> None:
    async def scenario() -> None:
        async with gateway(ANYBODY) as home:
            for name in ("one", "two"):
                await home.client(name)
            home.send_to_rest()
            found = {one.accepted.session: one for one in home.server.connections if one.accepted is not None}
            assert set(found) == {"anonymous/one", "anonymous/two"}
            assert home.driver.loop.resting == 0
            one = found["anonymous/one"]
            assert (one.peer_host, one.counted, one.suspect, one.blamed) == ("127.0.0.1", "127.0.0.1", False, False)
            assert home.server.census.holder("anonymous/one") is one
            assert home.server.census.online == len(home.server.connections) == 2
            home.send_to_rest()
            assert home.driver.loop.resting == 2

    run(scenario)


def test_the_end_is_told_to_those_who_rest() -> None:
    async def scenario() -> None:
        async with gateway(ANYBODY) as home:
            reader, writer = await home.client("bean", level=5)
            home.send_to_rest()
            stop = asyncio.ensure_future(home.server.stop())
            assert await reader.read() == b"\xe0\x01\x8b"
            writer.close()
            await stop
            assert len(home.lines(" disconnected ")) == 1

    run(scenario)


def test_whoever_cannot_be_woken_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: said.append(str(about.exc_value)))

    def fails(*_: object) -> native.Native:
        raise LookupError("the note is torn")

    async def scenario() -> None:
        async with gateway(ANYBODY) as home:
            reader, writer = await home.client("bean")
            other, _ = await home.client("pea")
            home.send_to_rest()
            with monkeypatch.context() as torn:
                torn.setattr(native.Native, "woken", fails)
                assert not list(home.server.connections)
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b"", "whom nobody can answer for is not served on"
                    assert await other.read() == b""
                await home.until(lambda: not len(home.server.connections))
            writer.close()
            assert said == ["the note is torn"] * len(said)
            assert home.driver.loop.counts()["connections"] == 0

    run(scenario)


# --- with certificates ------------------------------------------------------------------------------------------------


def test_those_who_rest_are_revoked_banned_and_expire(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody else is woken for it."""
    now = datetime.now(UTC)

    async def scenario() -> None:
        async with gateway(NODES, tls.load(fleet.home, now)) as home:
            readers, writers = {}, []
            for name in ("bean", "pea", "leek", "kale"):
                context = fleet.context(fleet.issue(f"peanut:plant/{name}"))
                readers[name], writer = await home.client(name, context)
                writers.append(writer)
            home.send_to_rest()
            serials = home.server.answer({"command": "seen"})["online"]
            assert sorted(serials) == ["plant/bean", "plant/kale", "plant/leek", "plant/pea"]
            assert home.driver.loop.resting == 4

            named = {str(one.identity): one for one in home.server.connections.asleep()}
            stolen = named["plant/bean"]
            with monkeypatch.context() as patch:
                patch.setattr(Server, "revoked", lambda _, shown: "it is stolen" if shown is stolen else None)
                assert home.server.cut_revoked() == 1
            assert home.driver.loop.resting == 3
            with contextlib.suppress(ConnectionResetError):
                assert await readers["bean"].read() == b""
            (line,) = home.lines(" cut ")
            assert "who=plant/bean" in line
            assert 'why="it is stolen"' in line

            done = home.server.answer(
                {
                    "command": "bans add",
                    "kind": "certificate",
                    "key": serials["plant/pea"],
                    "seconds": 60,
                    "reason": "by hand",
                }
            )["done"]
            assert done.endswith("connections ended: 1")
            with contextlib.suppress(ConnectionResetError):
                assert await readers["pea"].read() == b""

            home.send_to_rest()
            assert home.driver.loop.resting == 2
            object.__setattr__(named["plant/leek"], "not_after", now)
            home.server.recheck()
            assert [str(one.identity) for one in home.server.connections.asleep()] == ["plant/kale"]
            with contextlib.suppress(ConnectionResetError):
                assert await readers["leek"].read() == b""
            assert len(home.lines("certificate expired who=plant/leek")) == 1
            await home.until(lambda: home.server.census.online == 1)

    run(scenario)


def test_what_a_node_may_not_do_is_denied_while_it_rests(fleet: Any) -> None:
    async def scenario() -> None:
        async with gateway(NODES, tls.load(fleet.home, datetime.now(UTC))) as home:
            _, writer = await home.client("bean", fleet.context(fleet.issue("peanut:plant/bean")))
            for count in (1, 2):
                home.send_to_rest()
                topic = b"/plant/bean/cmd/water" + str(count).encode()
                writer.write(b"\x30" + bytes([2 + len(topic)]) + len(topic).to_bytes(2) + topic)
                await home.until(lambda expected=count: len(home.lines(" denied who=plant/bean")) == expected)
            assert len(home.lines("cmd/water2")) == 1
            assert home.server.census.online == 1

    run(scenario)


def test_an_identity_has_no_more_clients_when_some_of_them_rest(fleet: Any) -> None:
    async def scenario() -> None:
        async with gateway(NODES, tls.load(fleet.home, datetime.now(UTC))) as home:
            home.server.census.limits = Limits(per_identity=1)
            context = fleet.context(fleet.issue("peanut:operator/anna"))
            await home.client("phone", context)
            home.send_to_rest()
            await home.client("pc", context, answer=3)
            assert len(home.lines("has 1 clients connected already")) == 1
            await home.client("phone", context)
            home.send_to_rest()
            for one in home.server.connections:
                if one.accepted is not None:
                    one.end(access.NOT_AUTHORIZED)
            await home.until(lambda: home.server.census.online == 0)
            await home.client("pc", context)

    run(scenario)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "fe80::1%eth0", "unknown"])
def test_a_host_is_noted_as_it_is(host: str) -> None:
    bits, noted = native._host_noted(host)
    assert native._host_of(bits, noted + b"id") == (host, "id")
    assert len(noted) <= max(4, len(host) + 1)
