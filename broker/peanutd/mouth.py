"""The gateway's own mouth: what other threads have to say to nodes, said in the loop.

The rule it keeps: it may be used from any thread, never waits, and says nothing any more once the loop has ended. What
is retained is changed in the loop, where nobody comes between reading and writing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from peanutd._core import Broker

if TYPE_CHECKING:
    from peanutd._core import Event


class Loop(Protocol):
    """What is needed of an asyncio loop."""

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object: ...


class Mouth:
    """Publishes in the gateway's name; no rule is asked, so whoever uses it has asked before."""

    def __init__(
        self, broker: Broker, run: Callable[[Iterable[Event]], None], loop: Loop, now: Callable[[], int]
    ) -> None:
        """`run` handles the core's events (Server.run); now: the core's milliseconds."""
        self._broker = broker
        self._run = run
        self._loop = loop
        self._now = now

    def say(self, topic: str, payload: bytes, lifetime: float) -> None:
        """Publishes with QoS 1; after `lifetime` seconds it waits for nobody."""
        self._soon(self._publish, topic, payload, False, round(1000 * lifetime))

    def keep(self, topic: str, payload: bytes) -> None:
        """Publishes with QoS 1, retained."""
        self._soon(self._publish, topic, payload, True)

    def amend(self, topic: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Has `change` make another retained message of what is retained; None leaves it."""
        self._soon(self._amend, topic, change)

    def _soon(self, what: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the gateway has ended
            self._loop.call_soon_threadsafe(what, *arguments)

    def _publish(self, topic: str, payload: bytes, retain: bool, lifetime: int = -1) -> None:
        self._run(self._broker.publish(topic, payload, qos=1, retain=retain, lifetime=lifetime, now=self._now()))

    def _amend(self, topic: str, change: Callable[[bytes | None], bytes | None]) -> None:
        payload = change(self._broker.retained(topic))
        if payload is not None:
            self._publish(topic, payload, True)
