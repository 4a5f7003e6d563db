"""Carries a roll-out to the nodes, over the gateway, with an operator's certificate.

Rule: rollout.py decides, this file carries; a node gets what it asks for and nothing else, so that nothing piles up at
the gateway for one that is away. A connection that is lost is made again. What happened is in the fleet home within a
second.
"""

import json
import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import paho.mqtt.client as mqtt

from peanut import names, session
from peanut.errors import Exit, PeanutError
from peanut.names import Kind
from peanut.release import CHUNK, Release
from peanut.rollout import UNDER_WAY, Rollout, State, Step

WINDOW = 4  # chunks in answer to one question of a node
CHUNK_S = 30  # after which a chunk that waits at the gateway is void
OFFER_S = 60  # the same of an offer
AGAIN_S = 2.0  # before a lost connection is made again
NOT_AUTHORIZED = 0x87  # reason code of PUBACK (MQTT 5, 3.4.2.1); of others a node that asks again takes care
KEEP_S = 1.0  # between two writes of the state
GATHER_S = 1.0  # for what is retained, before anything follows from it
RETREAT_S = 30.0  # for nodes to let go of an update that is taken back


@dataclass
class Wishes:
    """What is asked for from elsewhere meanwhile. read: the state that is wanted, or None; keep: write the roll-out."""

    read: Callable[[], State | None]
    keep: Callable[[Rollout], None]


class Courier:
    """One roll-out, until it ends or `run` is interrupted. tell: is called when something has changed."""

    def __init__(
        self,
        plan: Rollout,
        release: Release,
        gateway: tuple[str, int],
        context: ssl.SSLContext,
        wishes: Wishes,
        tell: Callable[[Rollout], None],
    ) -> None:
        self.plan = plan
        self._release = release
        self._kind = Kind(plan.kind)
        self._where = (gateway, context)
        self._wishes = wishes
        self._tell = tell
        self._roots = {names.topic_root(name, self._kind): name for name in plan.nodes}
        self._session: session.Session | None = None
        self._from = 0.0  # when what is retained has come, monotonic
        self._refused: PeanutError | None = None
        self._met = False  # the gateway was reached once: it will come back
        self._changed = True
        self._kept = -math.inf

    def run(self, wait: bool = True) -> None:
        """Carry it, until it is done, stopped, paused or withdrawn; without `wait`, until only nodes that are away are
        left. PeanutError where the gateway does not let us."""
        try:
            while self.plan.state == State.RUNNING:
                try:
                    self._serve(lambda: self.plan.state != State.RUNNING or (not wait and self._settled()))
                    break
                except PeanutError as error:
                    if self._session is None and (error.status != Exit.UNREACHABLE or not self._met):
                        raise  # it does not let us in, or was never there
                    if error is self._refused:
                        raise
                    time.sleep(AGAIN_S)
            if self.plan.state in (State.STOPPED, State.WITHDRAWN):
                self._retreat()
        finally:
            self._wishes.keep(self.plan)

    def _settled(self) -> bool:
        return time.monotonic() > self._from and self.plan.idle()

    def _retreat(self) -> None:
        """Nodes that are under way let go of it."""
        end = time.monotonic() + RETREAT_S
        told: set[str] = set()

        def over() -> bool:
            there = [n for n in self.plan.taken if self.plan.nodes[n].step in UNDER_WAY and self.plan.nodes[n].online]
            for name in set(there) - told:
                self._send(name, "ota/desired", b"", OFFER_S)
                told.add(name)
            return time.monotonic() > self._from and (not there or time.monotonic() > end)

        self._serve(over)

    def _serve(self, over: Callable[[], bool]) -> None:
        """One connection, until it is over."""
        head = "/plant/+/" if self._kind is Kind.GREENHOUSE else "vin/+/"
        topics = [head + "status", head + "ota/status"]
        gateway, context = self._where
        self._session = None
        made = session.Session(gateway, context, topics, f"the {self._kind}s", self._hear, self._published)
        made.connect()
        self._session = made
        self._met = True
        self._from = time.monotonic() + GATHER_S
        try:
            made.until(over, math.inf, lambda: PeanutError(""), self._turn)
        finally:
            made.close()

    def _turn(self) -> None:
        now = time.monotonic()
        if self._refused is not None:
            raise self._refused
        if now < self._from:
            return
        wanted = self._wishes.read()
        if wanted is not None and self.plan.state == State.RUNNING:
            self.plan.state = wanted
        self.plan.judge(now)
        for name in self.plan.due(now):
            self._send(name, "ota/desired", self._release.offer, OFFER_S)
            self._changed = True
        if self._changed and now - self._kept > KEEP_S:
            self._kept = now
            self._changed = False
            self._wishes.keep(self.plan)
            self._tell(self.plan)

    def _send(self, name: str, topic: str, payload: bytes, lifetime_s: int) -> None:
        assert self._session is not None
        self._session.publish(f"{names.topic_root(name, self._kind)}/{topic}", payload, lifetime_s=lifetime_s)

    def _published(self, _mid: int, code: int, reason: str) -> None:
        if code == NOT_AUTHORIZED:
            self._refused = PeanutError(
                f"the gateway does not let this operator update the {self._kind}s: {reason}",
                "Use an operator who may: --operator NAME.",
                Exit.REFUSED,
            )

    def _hear(self, message: mqtt.MQTTMessage) -> None:
        root, _, what = message.topic.removesuffix("/status").rpartition("/")
        name = self._roots.get(root if what == "ota" else f"{root}/{what}")
        try:
            body = json.loads(message.payload)
        except (ValueError, RecursionError):
            return
        if name is None or not isinstance(body, dict):
            return
        now = time.monotonic()
        if what != "ota":
            self.plan.presence(name, body.get("state") == "online", now)
        else:
            self.plan.report(name, body, now)
            if not message.retain and body.get("stage") == "receiving":
                self._answer(name, body)
        self._changed = True

    def _answer(self, name: str, body: dict[str, object]) -> None:
        """The chunks that a node asks for, while it is to have them."""
        at, size = body.get("at"), len(self._release.stream)
        node = self.plan.nodes[name]
        if body.get("offer") != self.plan.seq or node.step != Step.RECEIVING or self.plan.state != State.RUNNING:
            return
        if isinstance(at, int) and 0 <= at < size:
            for place in range(at, min(at + WINDOW * CHUNK, size), CHUNK):
                self._send(name, "ota/chunk", self._release.chunk(place), CHUNK_S)
