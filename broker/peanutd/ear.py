"""The gateway's own ear: a client of the core without a socket, which hears what the nodes report.

The rule it keeps: it hears with QoS 0 and holds nothing up. What comes is handed on in the loop, at once, to everybody
who listens; a listener takes a note and goes. One that fails is logged and does not keep the others from hearing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from peanutd import _core
from peanutd._core import EVENT_CLOSED, EVENT_CONNECT, MAY_SUBSCRIBE, RETAIN_ANY, Broker, Decoder, Link
from peanutd.log import Log

if TYPE_CHECKING:
    from peanutd._core import Event

LEAVES: Final = (
    *("ack", "status", "state", "session", "telemetry", "event", "health"),
    *("config/reported", "ota/status", "cert/reported"),
)
"""What is heard of each node, below its root topic."""
WISHES: Final = "ha/+"
"""Below a vehicle's root: what Home Assistant would have it do, for the gateway to sign (api/homes.py)."""
SLOT: Final = 15
"""The ear's own rule set in the core: what the operator denies to clients does not make the gateway deaf."""
SESSION: Final = "gateway"
"""Its session. Those of clients have a `/` in their names."""
REOPEN: Final = 1.0
"""Seconds until it tries again when the core has closed it (no memory, say)."""
_VERSION: Final = 4
"""MQTT 3.1.1: nothing of 5.0 is needed."""


class Report(NamedTuple):
    """What a node has said."""

    root: str
    """`/plant/peanut` or `vin/VIN`."""
    leaf: str
    """One of LEAVES, or of WISHES."""
    payload: bytes
    retained: bool
    """It was said earlier, and kept by the gateway: what is true until something else is said."""


Listener = Callable[[Report], None]


class Loop(Protocol):
    """What is needed of an asyncio loop."""

    def call_later(self, delay: float, callback: Callable[..., object]) -> object: ...


class Ear:
    """Hears every node. Not thread-safe: everything is in the server's loop."""

    def __init__(
        self,
        broker: Broker,
        run: Callable[[Iterable[Event]], None],
        loop: Loop,
        log: Log,
        now: Callable[[], int],
    ) -> None:
        """`run` handles the core's events (Server.run); now: the core's milliseconds."""
        self._broker = broker
        self._run = run
        self._loop = loop
        self._log = log
        self._now = now
        self._listeners: list[Listener] = []
        self._decoder = Decoder(_VERSION)
        self._link: Link | None = None
        self.own: dict[str, int] = {}
        """What of the core's gauges is its own."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Has `listener` called with each report from now on, in the loop. Returns what ends it. What was retained
        before is not told again.
        """
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def open(self) -> None:
        """Begins to hear; after the rules are set and what was kept is restored. The retained reports come first."""
        self._broker.set_rules(SLOT, [(True, MAY_SUBSCRIBE, RETAIN_ANY, "#")])
        self._decoder = Decoder(_VERSION)
        self._link = self._broker.open(self, self._now())
        hello = {"type": "CONNECT", "version": _VERSION, "client_id": SESSION, "clean_start": True, "keep_alive": 0}
        nothing: dict[str, object] = {"properties": [], "will": None, "username": None, "password": None}
        self._feed({**hello, **nothing})

    def told(self, kind: int, reason: int) -> None:
        """An event of the core about its link."""
        if kind == EVENT_CONNECT and self._link is not None:
            self._run(self._link.accept(session=SESSION, identity="gateway", rules=SLOT, now=self._now()))
            options = {"qos": 0, "no_local": False, "retain_as_published": False, "retain_handling": 0}
            topics = [f"{root}/{leaf}" for root in ("/plant/+", "vin/+") for leaf in LEAVES]
            filters = [{"filter": topic, **options} for topic in (*topics, f"vin/+/{WISHES}")]
            self.own.update(sessions=1, subscriptions=len(filters))
            self._feed({"type": "SUBSCRIBE", "id": 1, "properties": [], "filters": filters})
        elif kind == EVENT_CLOSED and self._link is not None:
            link, self._link = self._link, None
            self.own.clear()
            self._run(link.lost(self._now()))
            self._log.warning("ear", "the core has closed the gateway's own session", code=f"0x{reason:02x}")
            self._loop.call_later(REOPEN, self.open)

    def pump(self) -> None:
        """Takes what there is to hear."""
        if self._link is None:
            return
        while data := self._link.take():
            for packet in self._decoder.feed(data):
                if packet["type"] == "PUBLISH":
                    self._tell(packet["topic"], packet["payload"], packet["retain"])
                elif packet["type"] == "SUBACK" and any(reason >= 0x80 for reason in packet["reasons"]):
                    self.own["subscriptions"] = sum(reason < 0x80 for reason in packet["reasons"])
                    self._log.error("ear", "deaf: the core grants no subscription (wildcard_subscriptions in [mqtt]?)")

    def _tell(self, topic: str, payload: bytes, retained: bool) -> None:
        root, leaf = split(topic)
        report = Report(root, leaf, payload, retained)
        for listener in tuple(self._listeners):
            try:
                listener(report)
            except Exception as error:
                self._log.error("ear", "a listener has failed", topic=topic, why=repr(error))

    def _feed(self, packet: dict[str, object]) -> None:
        if self._link is not None:
            self._run(self._link.feed(_core.encode(packet, _VERSION), self._now()))


def split(topic: str) -> tuple[str, str]:
    """A node's topic as (root, leaf). Both kinds of root have one `/` that is not at their beginning."""
    end = topic.find("/", topic.find("/", 1) + 1)
    return topic[:end], topic[end + 1 :]
