"""Each limit of the API, at it and one beyond; and the shapes that bodies are held to."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from peanutd.api import (
    app,
    bridge,
    door,
    live,
    nodes,
    passkeys,
    passwords,
    proofs,
    quota,
    scopes,
    serve,
    sessions,
    shape,
    shares,
    table,
)
from peanutd.api.app import OPERATIONS
from peanutd.api.bridge import Bridge, Relay
from peanutd.api.door import Door, Http
from peanutd.api.problem import Problem
from peanutd.api.proofs import Proofs
from peanutd.api.quota import Places, Rate
from peanutd.ear import Report
from peanutd.log import Log
from tests.broker.api.conftest import START, Lines, Refused, World, asgi_scope
from tests.broker.api.test_devices import Car
from tests.broker.api.test_people import share

# --- the bridge -------------------------------------------------------------------------------------------------------


def test_so_many_questions_are_under_way_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "QUESTIONS", 3)

    async def story() -> list[Any]:
        asking = Bridge(asyncio.get_running_loop())
        return await asyncio.gather(*(asking.ask(lambda: 1) for _ in range(4)), return_exceptions=True)

    *answered, refused = asyncio.run(story())
    assert answered == [1, 1, 1]
    assert isinstance(refused, Problem)
    assert refused.code == "busy"


def test_a_loop_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "TIMEOUT", 0.01)
    busy, ended = asyncio.new_event_loop(), asyncio.new_event_loop()
    ended.close()

    async def story() -> list[str]:
        codes = []
        for loop in (busy, ended):
            with pytest.raises(Problem) as problem:
                await Bridge(loop).ask(lambda: 1)
            codes.append(problem.value.code)
        return codes

    assert asyncio.run(story()) == ["unavailable"] * 2
    busy.close()


def test_a_question_that_fails_fails_where_it_was_asked() -> None:
    async def story() -> None:
        await Bridge(asyncio.get_running_loop()).ask(lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(story())


def test_what_is_told_too_fast_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "TOLD", 3)
    taken: list[tuple[list[int], int]] = []
    relay: Relay[int] = Relay(lambda items, lost: taken.append((items, lost)))
    for number in range(5):
        relay.put(number)

    async def story() -> None:
        relay.open(asyncio.get_running_loop())
        await asyncio.sleep(0)
        relay.put(5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(story())
    assert taken == [([0, 1, 2], 2), ([5], 0)]


# --- callers ----------------------------------------------------------------------------------------------------------


def test_the_caller_that_was_quiet_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "CALLERS", 2)
    rate = Rate(1, 1)
    for caller in ("a", "b"):
        rate.spend(caller, 0)
    rate.spend("c", 0)
    rate.spend("a", 0)  # forgotten, and so begun anew
    with pytest.raises(Problem):
        rate.spend("c", 0)


def test_places_are_given_back_and_have_an_end_in_all() -> None:
    places = Places("things", 2, 3)
    with places.taken("a"), places.taken("a"), places.taken("b"):
        for caller in ("a", "c"):
            with pytest.raises(Problem), places.taken(caller):
                pass
    with places.taken("a"), places.taken("c"):
        pass
    assert not places._taken


def test_names_that_somebody_makes_up_do_not_fill_the_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "LOCKS", 2)
    for name in ("one", "two", "three"):
        world.services.passwords.failed(name, "10.0.0.1")
    assert list(world.services.passwords._failures) == ["two", "three"]
    world.now += passwords.LOCKED_FOR
    world.services.passwords.sweep()
    assert not world.services.passwords._failures


def test_proofs_tickets_and_challenges_that_wait_have_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((proofs, "WAITING"), (live, "TICKETS"), (passkeys, "WAITING")):
        monkeypatch.setattr(module, name, 2)
    waiting = Proofs()
    given = [waiting.give("user/maria", "car", "unlock", START) for _ in range(3)]
    with pytest.raises(Problem):
        waiting.use(given[0], "user/maria", "car", "unlock", START)
    waiting.use(given[1], "user/maria", "car", "unlock", START)
    tickets = [world.services.live.ticket(f"token{number}", START) for number in range(3)]
    assert [world.services.live.token(one, START) for one in tickets] == [None, "token1", "token2"]
    for number in range(3):
        world.services.passkeys._challenge("maria", f"what{number}", START)
    assert len(world.services.passkeys._waiting) == 2


def test_a_node_that_answers_without_end_fills_no_memory(world: World) -> None:
    world.enrol("peanut")
    node = world.services.nodes.all["peanut"]
    with world.services.nodes.answers(node) as queue:
        reports = [Report(node.root, "ack", b"{}", False)] * (nodes.ACKS_MAX + 5)
        world.services.nodes.take(reports, 0)
        assert queue.qsize() == nodes.ACKS_MAX


def test_so_many_shares_passkeys_and_groups_and_no_more(
    world: World, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    Car(world)
    maria = world.token("maria")
    monkeypatch.setattr(shares, "PER_USER", 1)
    monkeypatch.setattr(passkeys, "PER_USER", 0)
    first = share(world, maria)
    assert first.status_code == 201
    refused(share(world, maria), "conflict")
    world.ask("DELETE", f"/shares/{first.json()['id']}", token=maria)
    assert share(world, maria).status_code == 201
    body = {"password": world.passwords["maria"]}
    refused(world.ask("POST", "/passkeys/options", body, token=maria), "conflict")
    groups = [f"g{number}" for number in range(scopes.GROUPS_MAX + 1)]
    ada = world.token("ada")
    assert world.ask("PUT", "/users/maria", {"scope": groups[1:]}, token=ada).status_code == 200
    refused(world.ask("PUT", "/users/maria", {"scope": groups}, token=ada), "invalid")


# --- the door ---------------------------------------------------------------------------------------------------------


def test_a_request_that_is_never_finished_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(table, "BODY_TIMEOUT", 0.01)

    async def story() -> Any:
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = asgi_scope("/session", method="POST", headers=[(b"content-type", b"application/json")])
        await world.app(scope, receive, send)
        return sent

    start, body = world.run(story())
    assert start["status"] == 400
    assert b"was not there" in body["body"]


class Transport(asyncio.Transport):
    """What a connection is to uvicorn, as far as it looks."""

    aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("10.0.0.9", 1), "sockname": ("10.0.0.1", 443)}.get(name, default)

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def close(self) -> None:
        self.aborted = True

    def write(self, data: Any) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
def test_headers_have_an_end_in_time(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    import uvicorn

    monkeypatch.setattr(door, "HEAD_TIMEOUT", 0.02)

    async def story() -> bool:
        config = uvicorn.Config(lambda *_: None, ws="none", lifespan="off", log_config=None)
        config.load()
        state = uvicorn.Server(config).server_state
        http, transport = Http(None, config=config, server_state=state, app_state={}), Transport()  # type: ignore[arg-type]
        http.connection_made(transport)
        if said:
            http.data_received(said)
        end = time.monotonic() + 60
        while not transport.aborted and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return transport.aborted

    assert asyncio.run(story())


@asynccontextmanager
async def a_silent_client() -> AsyncIterator[tuple[Door, asyncio.StreamReader]]:
    """A door, and what somebody hears who has connected to it and says nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        entry = Door(listening, lambda: context, asyncio.Protocol, Log())  # type: ignore[arg-type]
        task = asyncio.create_task(entry.serve())
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        async with asyncio.timeout(60):
            yield entry, reader
        writer.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_there_are_so_many_connections_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "CONNECTIONS", 0)

    async def story() -> bytes:
        async with a_silent_client() as (_, heard):
            return await heard.read(1)

    assert asyncio.run(story()) == b""


def test_a_handshake_has_an_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing has no place among the connections for long."""
    monkeypatch.setattr(door, "HANDSHAKE_TIMEOUT", 0.02)

    async def story() -> bytes:
        async with a_silent_client() as (entry, heard):
            data = await heard.read(1)
            while entry._here:
                await asyncio.sleep(0.01)
            return data

    assert asyncio.run(story()) == b""


def test_who_does_not_read_is_given_up_and_no_error_of_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SEND_TIMEOUT", 0.02)

    async def story() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            await asyncio.sleep(3600)

        async with asyncio.timeout(60):
            await world.app(asgi_scope("/health"), receive, send)

    with pytest.raises(app.SlowReaderError) as found:
        world.run(story())
    lines = Lines()
    forward = serve._Forward(Log("debug", lines))
    error = (found.type, found.value, found.tb)
    forward.emit(logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "an exception", (), error))
    assert " error " not in lines.text
    forward.emit(logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "an exception", (), None))
    assert " error " in lines.text


# --- shapes -----------------------------------------------------------------------------------------------------------

SCHEMAS = [one.body for one in OPERATIONS if one.body is not None]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["peanut", "unlock", "06:00", "maria", "heater", "x" * 70, "0" * 10]),
)
VALUES = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def resolved(schema: Any) -> Any:
    """With what it refers to put in its place."""
    if isinstance(schema, dict) and "$ref" in schema:
        return resolved(shape.NAMED[schema["$ref"].rpartition("/")[2]])
    if isinstance(schema, dict):
        return {key: resolved(value) for key, value in schema.items()}
    return [resolved(item) for item in schema] if isinstance(schema, list) else schema


def keys(schema: Any) -> set[str]:
    """Names of all properties."""
    if isinstance(schema, dict):
        own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
        return own.union(*(keys(value) for value in schema.values()))
    return set().union(*(keys(item) for item in schema)) if isinstance(schema, list) else set()


@given(st.data())
def test_a_shape_means_what_json_schema_says(data: st.DataObject) -> None:
    """Another implementation, on every body of the API: both take it, or neither does."""
    schema = resolved(data.draw(st.sampled_from(SCHEMAS)))
    names = sorted(keys(schema)) or ["x"]
    tables = st.dictionaries(st.sampled_from([*names, "other"]), VALUES, max_size=5)
    value = data.draw(st.one_of(tables, VALUES))
    assert (shape.check(schema, value) is None) == Draft202012Validator(schema).is_valid(value)


def test_a_keyword_that_is_not_checked_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="multipleOf"):
        shape.judge({"type": "array", "items": {"type": "number", "multipleOf": 2}})
    for operation in OPERATIONS:
        for schema in (operation.body, *operation.query.values()):
            if schema is not None:
                shape.judge(schema)


def test_nesting_has_an_end() -> None:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    value: Any = []
    for _ in range(100):
        value = [value]
    assert "too deeply" in str(shape.check(schema, value))


def test_the_limits_of_the_readme_are_those_of_the_code() -> None:
    """broker/README.md has the table; what it says is what the constants say."""
    text = (Path(__file__).parents[3] / "broker" / "README.md").read_text()
    section = re.sub(r"[,\s]+", " ", text[text.index("## HTTPS") : text.index("## History")])
    for words in (
        f"{passwords.LOCKED_AFTER} of a user in a quarter",
        f"{shares.PIN_GUESSES} wrong PINs",
        f"{quota.PER_SECOND:.0f} a second of a caller {quota.BURST:.0f} at once",
        f"{live.HELD // 1000} {live.HELD % 1000:03} news",
        f"{table.BODY_MAX // 1024} KiB",
        f"{door.CONNECTIONS // 1000} {door.CONNECTIONS % 1000:03} {door.PER_ADDRESS} of an address",
        f"{door.HANDSHAKE_TIMEOUT:.0f} s for TLS",
        f"the same answer for {sessions.GRACE:.0f} s more",
    ):
        assert words in section
