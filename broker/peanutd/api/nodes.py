"""What the nodes have said, as the API knows it: presence, state, readings, and whoever waits for the next word.

The rule it keeps: a node is what the ledger lists and what it said itself, last and unaltered; what is no JSON object
of a sensible size was not said. Nothing here asks a node. It lives in the API's loop; reports come over by the bridge.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from peanutd import fleet
from peanutd.access import Kind
from peanutd.ear import Report

PAYLOAD_MAX: Final = 16 * 1024
"""Bytes of a report that is kept; agreement 2 says 4 KiB."""
LOOK: Final = 2.0
"""Seconds between two looks at the ledger."""
ACKS_MAX: Final = 64
"""Answers of a node that wait for one who waits for an answer."""
PRESENCES: Final = ("online", "offline", "sleeping", "unknown")

_KEPT: Final = {
    "state": "state",
    "health": "health",
    "session": "session",
    "config/reported": "config",
    "ota/status": "ota",
}
"""Leaf of the topic, and the field that keeps what is said there."""


@dataclass(slots=True)
class Said:
    """What one node has said. `heard` are Unix seconds of when, where the node does not say."""

    presence: str = "unknown"
    status: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    readings: dict[str, Any] | None = None
    readings_ts: float | None = None
    codes: list[str] = field(default_factory=list)
    """A vehicle's fault codes, as its telemetry had them last."""

    @property
    def presence_ts(self) -> float | None:
        return _time(self.status)

    def get(self, name: str) -> dict[str, Any] | None:
        """state, health, session, config or ota."""
        return self.kept.get(name)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the ledger."""

    kind: Kind
    name: str
    root: str

    @property
    def vehicle(self) -> bool:
        return self.kind is Kind.VIN

    @property
    def word(self) -> str:
        return self.kind.word


def encoded(event: str, data: Mapping[str, Any]) -> bytes:
    """A server-sent event. JSON has no line breaks of its own."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


@dataclass(frozen=True)
class News:
    """Something that has just happened; `event` and `data` as the contract has them."""

    device: str | None
    """Whom it is about: only who may see it is told. None: everybody."""
    event: str
    data: Mapping[str, Any]

    @cached_property
    def wire(self) -> bytes:
        """As all readers get it."""
        return encoded(self.event, self.data)


Follower = Callable[[News | int], None]
"""Gets news, or how many were lost."""
_Stamp = tuple[int, int, int]


class Nodes:
    """All of them. `clock` are Unix seconds."""

    def __init__(self, home: Path, clock: Callable[[], float]) -> None:
        self._home = home
        self._clock = clock
        self._by_name: Mapping[str, Node] = MappingProxyType({})
        self._by_root: dict[str, Node] = {}
        self._said: defaultdict[str, Said] = defaultdict(Said)
        self._followers: list[Follower] = []
        self._waiting: defaultdict[str, list[asyncio.Queue[Report]]] = defaultdict(list)
        self._stamp: tuple[_Stamp | None, ...] | None = None
        self._looked = float("-inf")
        self._looking = asyncio.Lock()
        self.version = 0
        """Grows when the ledger has changed."""

    async def look(self, now: float) -> None:
        """Reads the ledger if it has changed, at most every LOOK seconds of the monotonic clock."""
        if now - self._looked < LOOK:
            return
        async with self._looking:
            if now - self._looked >= LOOK:
                await asyncio.to_thread(self.refresh)
                self._looked = now

    def refresh(self) -> None:
        """Reads the ledger if it has changed. Without one there are no nodes."""
        stamp = tuple(_stamp(self._home / f"{fleet.FILE_NAME}{end}") for end in ("", "-wal"))
        if stamp == self._stamp:
            return
        try:
            found = fleet.devices(self._home)
        except fleet.LedgerError:
            found = ()
        nodes = {one.name: Node(one.kind, one.name, one.root) for one in found}
        self._by_root = {node.root: node for node in nodes.values()}
        self._by_name = MappingProxyType(nodes)
        self._stamp = stamp
        self.version += 1

    @property
    def all(self) -> Mapping[str, Node]:
        """By name, in the order of names."""
        return self._by_name

    def said(self, node: Node) -> Said:
        """What it has said."""
        return self._said.get(node.root) or Said()

    # --- what comes over the bridge ---

    def take(self, reports: list[Report], lost: int) -> None:
        """What the ear has heard, and how much of it was lost."""
        for report in reports:
            if (content := _content(report.payload)) is not None:
                self._hear(report, content)
        if lost:
            for follower in tuple(self._followers):
                follower(lost)

    def _hear(self, report: Report, content: dict[str, Any]) -> None:
        if report.root not in self._by_root and len(self._said) >= fleet.MAX_DEVICES:
            return
        said = self._said[report.root]
        if not report.retained and report.leaf in ("ack", "session"):
            for queue in self._waiting.get(report.root, ()):
                if queue.qsize() < ACKS_MAX:
                    queue.put_nowait(report)
        event, data = self._keep(said, report, content)
        node = self._by_root.get(report.root)
        if node is None or event is None:
            return
        self.tell(News(node.name, event, {**data, "device": node.name}))  # who says it is not the node's to say

    def tell(self, news: News) -> None:
        """Tells all followers."""
        for follower in tuple(self._followers):
            follower(news)

    def _keep(self, said: Said, report: Report, content: dict[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
        """Keeps it; returns the event that it is."""
        leaf, now = report.leaf, self._clock()
        if leaf == "status":
            state = content.get("state")
            said.presence = state if state in PRESENCES else "unknown"
            said.status = content if report.retained or _time(content) is not None else {**content, "ts": now}
            return "presence", {"presence": said.presence, "why": words(content.get("why")), "ts": said.presence_ts}
        if leaf == "telemetry":
            readings = content.get("readings")
            if content.get("late") or not isinstance(readings, dict):
                return None, {}
            said.readings, said.readings_ts = readings, _time(content) or now
            said.codes = texts(content.get("codes"))
            return "readings", {"readings": readings, "ts": said.readings_ts, "codes": said.codes}
        if leaf in ("ack", "event"):
            return leaf, content
        name = _KEPT.get(leaf)
        if name is None:
            return None, {}
        said.kept[name] = content
        if name == "session":
            return None, {}
        return name, {"state": content, "ts": _time(content)} if name == "state" else content

    # --- whoever waits ---

    @contextmanager
    def following(self, follower: Follower) -> Iterator[None]:
        """Has `follower` called with all news meanwhile; it must be quick."""
        self._followers.append(follower)
        try:
            yield
        finally:
            self._followers.remove(follower)

    @contextmanager
    def answers(self, node: Node) -> Iterator[asyncio.Queue[Report]]:
        """The node's acknowledgements and sessions meanwhile."""
        queue: asyncio.Queue[Report] = asyncio.Queue()
        waiting = self._waiting[node.root]
        waiting.append(queue)
        try:
            yield queue
        finally:
            waiting.remove(queue)
            if not waiting:
                del self._waiting[node.root]


def words(value: object) -> str | None:
    """A text of a node, None if it is none."""
    return value if isinstance(value, str) else None


def texts(value: object) -> list[str]:
    """The texts in a list of a node, none if it is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def content_of(payload: bytes) -> dict[str, Any]:
    """The JSON object in a payload, or an empty one."""
    return _content(payload) or {}


def _content(payload: bytes) -> dict[str, Any] | None:
    if len(payload) > PAYLOAD_MAX:
        return None
    try:
        found = json.loads(payload, parse_constant=_no_number)
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()  # it is to be sent on as JSON
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _time(content: Mapping[str, Any]) -> float | None:
    ts = content.get("ts")
    return ts if isinstance(ts, int | float) and not isinstance(ts, bool) else None


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
