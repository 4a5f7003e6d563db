"""Commands: sent to a node, and what the node says to them.

The rule it keeps: "done" is the node's own word, and nothing less counts as success. A command has an id, is good for a
while and waits for nobody beyond that; a vehicle's is signed for the session that the vehicle has just told, and only
an answer with its receipt is believed. What is sent is in the audit log before it is sent, and the answer after.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from peanutd.api import rights, signing
from peanutd.api.audit import Audit, Origin
from peanutd.api.bridge import Bridge
from peanutd.api.nodes import Node, Nodes, content_of, words
from peanutd.api.problem import Problem
from peanutd.ear import Report

LIFETIME: Final = 60
"""Seconds that a greenhouse's command is good for."""
WAIT: Final = 30.0
"""Seconds that the answer is waited for, if nobody says otherwise; vehicles: signing.LIFETIME."""
PAYLOAD_MAX: Final = 512
"""Bytes of a command (agreement 2)."""
SESSION: Final = "cmd/session"
"""Below a vehicle's root: it answers with its session, at once."""


class Publish(Protocol):
    """Publishes in the gateway's name; in the broker's loop. lifetime: milliseconds."""

    def __call__(self, topic: str, payload: bytes, *, lifetime: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a command. Times are Unix seconds."""

    id: str
    device: str
    command: str
    lifetime_s: int
    sent: float
    outcome: str = "not_answered"
    accepted: bool = False
    why: str | None = None
    state: Mapping[str, Any] | None = None
    answered: float | None = None
    presence: str = "unknown"

    def public(self) -> dict[str, Any]:
        """As the contract shows it."""
        names = ("id", "device", "command", "outcome", "accepted", "why", "state", "sent", "answered", "lifetime_s")
        return {name: getattr(self, name) for name in names}

    def problem(self) -> Problem | None:
        """Why it is no success."""
        if self.outcome == "done":
            return None
        if self.outcome == "rejected":
            return Problem("rejected", f"{self.device} says: {self.why}", more=self.public())
        return Problem("not_answered", f"{self.device} {self._silence()}", more=self.public())

    def _silence(self) -> str:
        if self.accepted:
            return "has accepted, and has not said yet that it is done"
        if self.presence == "online":
            return "is online, and did not answer"
        if self.presence == "unknown":
            return "has never been seen by this gateway, and did not answer"
        return f"is {self.presence}, and did not answer"


class Commands:
    """Sends commands; those to one vehicle one after the other, for each needs a session of its own."""

    def __init__(
        self,
        home: Path,
        bridge: Bridge,
        nodes: Nodes,
        audit: Audit,
        publish: Publish,
        clock: Callable[[], float],
    ) -> None:
        self._home = home
        self._bridge = bridge
        self._nodes = nodes
        self._audit = audit
        self._publish = publish
        self._clock = clock
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def send(
        self, origin: Origin, node: Node, verb: str, args: Mapping[str, Any], wait: float | None = None
    ) -> Outcome:
        """Sends it and waits for the answer, `wait` seconds at the most. Problem `invalid` or `unavailable`."""
        lifetime = signing.LIFETIME if node.vehicle else LIFETIME
        seconds = min(wait or (lifetime if node.vehicle else WAIT), lifetime)
        way = _Way(Outcome(secrets.token_hex(8), node.name, verb, lifetime, round(self._clock(), 3)), node, self._clock)
        if node.vehicle:
            argument = _argument(args)
            key = await asyncio.to_thread(self._key, node)
            work = partial(self._signed, way, key, argument)
        else:
            work = partial(self._plain, way, _greenhouse(way.outcome.id, verb, args, way.outcome.sent + LIFETIME))
        await self._audit.add(origin, "command", node.name, "sent", id=way.outcome.id, command=verb, args=dict(args))
        try:
            async with asyncio.timeout(seconds):
                await work()
        except TimeoutError:
            pass
        finally:  # also when nobody waits any more: what the node has said belongs in the log
            way.outcome = replace(way.outcome, presence=self._nodes.said(node).presence)
            done = way.outcome
            answered = {"id": done.id, "command": verb, "accepted": done.accepted}
            await asyncio.shield(self._audit.add(origin, "answer", node.name, done.outcome, done.why, **answered))
        return way.outcome

    def _key(self, node: Node) -> bytes:
        try:
            return signing.key_of(self._home, node.name)
        except signing.NoDeviceKeyError:
            raise Problem("unavailable", f"the device key of {node.name} is not in this gateway's fleet home") from None

    async def _plain(self, way: _Way, payload: bytes) -> None:
        node, outcome = way.node, way.outcome
        with self._nodes.answers(node) as queue:
            await self._put(rights.topic(node, outcome.command), payload)
            await way.follow(queue, lambda answer: True)

    async def _signed(self, way: _Way, key: bytes, argument: str) -> None:
        node, outcome = way.node, way.outcome
        async with self._turns[node.root]:
            with self._nodes.answers(node) as queue:
                # What is retained may be a minute old, and the vehicle's clock in it with it.
                await self._put(f"{node.root}/{SESSION}", b"")
                now: signing.Session | None = None
                while now is None:
                    report = await queue.get()
                    if report.leaf == "session":
                        now = signing.session(key, node.name, content_of(report.payload))
                body = signing.signed(key, node.name, outcome.command, outcome.id, argument, now)
                payload = json.dumps(body).encode()
                await self._put(rights.topic(node, outcome.command), payload)
                await way.follow(queue, lambda answer: signing.genuine(key, node.name, payload, answer))

    async def _put(self, topic: str, payload: bytes) -> None:
        lifetime = signing.LIFETIME if topic.startswith("vin/") else LIFETIME
        await self._bridge.ask(lambda: self._publish(topic, payload, lifetime=1000 * lifetime))


@dataclass(slots=True)
class _Way:
    """A command on its way."""

    outcome: Outcome
    node: Node
    clock: Callable[[], float]

    async def follow(self, queue: asyncio.Queue[Report], genuine: Callable[[Mapping[str, Any]], bool]) -> None:
        """Takes the node's answers until there is a last one."""
        while self.outcome.answered is None:
            report = await queue.get()
            answer = content_of(report.payload) if report.leaf == "ack" else {}
            if answer.get("id") != self.outcome.id or not genuine(answer):
                continue
            self.outcome = _after(self.outcome, answer, self.clock())


def _after(outcome: Outcome, answer: Mapping[str, Any], now: float) -> Outcome:
    """The outcome after one more answer; a stage that means nothing changes nothing."""
    stage, state = answer.get("stage"), answer.get("state")
    if stage not in ("accepted", "done", "rejected"):
        return outcome
    if isinstance(state, dict):
        outcome = replace(outcome, state=state)
    if stage == "rejected":
        why = words(answer.get("why")) or "no reason given"
        return replace(outcome, outcome=stage, why=why, answered=round(now, 3))
    outcome = replace(outcome, accepted=True)
    return outcome if stage == "accepted" else replace(outcome, outcome=stage, answered=round(now, 3))


def _greenhouse(ident: str, verb: str, args: Mapping[str, Any], until: float) -> bytes:
    """The payload of a greenhouse's command. Problem `invalid`."""
    body: dict[str, Any] = {"args": dict(args)}
    if verb == rights.UPDATE:
        temperature = args.get("temperature")
        if set(args) != {"temperature"} or isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise Problem("invalid", f'{verb} takes args {{"temperature": NUMBER}}')
        body = {"temperature": temperature}
    payload = json.dumps({**body, "id": ident, "exp": int(until)}, ensure_ascii=False).encode()
    if len(payload) > PAYLOAD_MAX:
        raise Problem("invalid", f"the command is {len(payload)} bytes long, and a node takes {PAYLOAD_MAX}")
    return payload


def _argument(args: Mapping[str, Any]) -> str:
    """The one argument of a vehicle's command. Problem `invalid`."""
    text = args.get("argument", "")
    fits = isinstance(text, str) and text.isascii() and (text.isprintable() or not text) and "|" not in text
    if set(args) - {"argument"} or not fits or len(text) > signing.ARGUMENT_MAX:
        raise Problem(
            "invalid", f"a vehicle's command takes one argument, of at most {signing.ARGUMENT_MAX} ASCII characters"
        )
    return str(text)
