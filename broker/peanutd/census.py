"""Who is here: connections in all and of each address, clients that are online and those of each identity.

The rule it keeps: numbers are held to `Limits`, and whoever leaves gives a place back exactly once. A session has one
connection: its latest. Whoever comes back to a session takes the place that it had. Newcomers (connections that have
not come in yet) make room for each other, the oldest first: whoever holds on to sockets in silence keeps nobody out.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from peanutd import access
from peanutd.config import Listen, Mqtt
from peanutd.throttle import network

QUOTA_EXCEEDED: Final = 0x97
"""Reason code of MQTT 5.0 §2.4."""

CONTEST_WINDOW: Final = 60.0
"""Seconds in which takeovers of one session from other addresses are counted."""
CONTEST: Final = 3
"""Takeovers within CONTEST_WINDOW that are more than a node which has changed its address."""
CONTESTS_MAX: Final = 1024
"""Sessions that are contested at the same time; the oldest gives way to a new one."""

_USUAL: Final = Mqtt()


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be; 0 is no limit for the last two."""

    connections: int = _USUAL.max_connections
    handshakes: int = Listen().max_handshakes
    per_address: int = _USUAL.max_connections_per_address
    per_identity: int = _USUAL.max_connections_per_identity


class Census:
    """Counts connections, which are told apart by identity (`is`) and may be of any class."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        """May be set anew; counts for those to come."""
        self._newcomers: OrderedDict[object, None] = OrderedDict()
        self._addresses: Counter[str] = Counter()
        self._online: dict[str, object] = {}  # connections by session, but for those that rest
        self._resting = 0
        self._asleep: set[str] = set()  # sessions of one that rests, where somebody owns them
        self._owners: Counter[str] = Counter()  # online sessions of each
        self._contests: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, how many takeovers

    @property
    def online(self) -> int:
        """Clients that are online."""
        return len(self._online) + self._resting

    def room(self, connections: int) -> str | None:
        """Why there is no room beside that many `connections`, or None when there is."""
        return f"there are {connections} already" if connections >= self.limits.connections else None

    # --- newcomers ---

    @property
    def newcomers(self) -> int:
        """Connections that have not come in yet."""
        return len(self._newcomers)

    @property
    def crowded(self) -> bool:
        """Whether there are as many newcomers as there may be."""
        return len(self._newcomers) >= self.limits.handshakes

    def expect(self, connection: object) -> None:
        """A connection is new: it has not come in yet."""
        self._newcomers[connection] = None

    def give_up(self) -> object | None:
        """Removes and returns the newcomer that has been one for longest, None if there is none."""
        return self._newcomers.popitem(last=False)[0] if self._newcomers else None

    def part(self, connection: object) -> None:
        """A connection is a newcomer no longer, if it was one."""
        self._newcomers.pop(connection, None)

    # --- addresses ---

    def arrive(self, host: str) -> str | None:
        """Counts a connection from `host` (and `depart` takes it back); or says why there is no room for it."""
        address = network(host)
        count = self._addresses[address]
        if 0 < self.limits.per_address <= count:
            return f"there are {count} from {address} already"
        self._addresses[address] = count + 1
        return None

    def depart(self, host: str) -> None:
        """The connection is gone."""
        _take(self._addresses, network(host))

    # --- clients ---

    def judge(
        self, verdict: access.Accept, online: Callable[[str], bool] = lambda session: False
    ) -> access.Accept | access.Refuse:
        """The verdict, or a refusal because the identity has as many clients as it may have. `online` says of a session
        whether any connection has it: one that rests, say.
        """
        owner = verdict.owner
        if owner is not None and not self._has_place(verdict.session):
            count = self._owners[owner]
            if 0 < self.limits.per_identity <= count and not online(verdict.session):
                return access.Refuse(QUOTA_EXCEEDED, f"{owner} has {count} clients connected already")
        return verdict

    def enter(self, connection: object, verdict: access.Accept) -> None:
        """A client is let in; it may take over the session of another connection."""
        self.part(connection)
        if verdict.owner is not None and not self._has_place(verdict.session):
            self._owners[verdict.owner] += 1
        self._asleep.discard(verdict.session)
        self._online[verdict.session] = connection

    def holder(self, session: str) -> object | None:
        """The connection that a session is online with, None also when that rests."""
        return self._online.get(session)

    def rest(self, connection: object, verdict: access.Accept) -> bool:
        """The connection goes on without an object, and is counted all the same. False: it has its session no more."""
        if self._online.get(verdict.session) is not connection:
            return False
        del self._online[verdict.session]
        self._resting += 1
        if verdict.owner is not None:
            self._asleep.add(verdict.session)
        return True

    def wake(self, connection: object, verdict: access.Accept) -> None:
        """It has an object again. Another one may have taken over its session meanwhile, and with that its place among
        those of its owner: the news that it is gone may come after the other one is in.
        """
        self._resting -= 1
        if verdict.owner is not None and verdict.session not in self._asleep:
            return
        self._asleep.discard(verdict.session)
        self._online.setdefault(verdict.session, connection)

    def _has_place(self, session: str) -> bool:
        """Whether the session is counted among those of its owner."""
        return session in self._online or session in self._asleep

    def contested(self, session: str, now: float) -> bool:
        """Counts a takeover from another address; True when it is the CONTEST-th in a row of them."""
        since, count = self._contests.pop(session, (now, 0))
        if now - since >= CONTEST_WINDOW:
            since, count = now, 0
        self._contests[session] = (since, count + 1)
        if len(self._contests) > CONTESTS_MAX:
            self._contests.popitem(last=False)
        return count + 1 == CONTEST

    def leave(self, connection: object, verdict: access.Accept) -> bool:
        """A client that was let in is gone. False: another connection has its session by now, so it is not offline."""
        if self._online.get(verdict.session) is not connection:
            return False
        del self._online[verdict.session]
        if verdict.owner is not None:
            _take(self._owners, verdict.owner)
        return True


def _take(counts: Counter[str], key: str) -> None:
    """One less, and none is no entry."""
    if counts[key] > 1:
        counts[key] -= 1
    else:
        del counts[key]
