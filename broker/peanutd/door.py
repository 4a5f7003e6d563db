"""The door: how fast newcomers are let in, so that those who are in never wait for them.

The rule it keeps: what a newcomer costs comes out of a budget a second, and what is over it waits outside, in the
kernel's queue. Accepting is cheap and handshakes are dear, so each has a budget of its own (`Budget`); neither does
more than a few in one turn of the loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from peanutd.config import LOOPS

ACCEPTS_PER_TURN: Final = 16
"""Connections accepted in one turn of the loop."""
STEPS_PER_TURN: Final = 8
"""Steps of TLS handshakes in one turn of the loop, before it looks after those who are in. Each takes up to a
millisecond: a thousand ClientHellos at once would make everybody wait for most of a second."""
BURST: Final = 0.25
"""Seconds of a budget that may be saved up and spent at once."""


class Budget:
    """So much a second, and no more than BURST of a second at once. 0 a second is no limit."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        """May be set anew."""
        self._left = self._most
        self._at = now

    @property
    def _most(self) -> float:
        return max(1.0, self.rate * BURST)

    def has(self, now: float) -> bool:
        """Whether anything is left."""
        if self.rate == 0:
            self._at = now
            return True
        self._left = min(self._most, self._left + (now - self._at) * self.rate)
        self._at = now
        return self._left >= 1.0

    def spend(self, cost: float = 1.0) -> None:
        if self.rate:  # what was free is not owed when there is a limit again
            self._left -= cost

    def wait(self) -> float:
        """Seconds until there is something again, counted from the last `has`."""
        return max(0.0, (1.0 - self._left) / self.rate) if self.rate else 0.0


class Steps(Protocol):
    """A connection in its TLS handshake."""

    @property
    def gone(self) -> bool:
        """There is no peer any more."""

    def step(self) -> None:
        """Goes on with it."""


class Handshakes:
    """TLS handshakes that can go on: first come, first served, STEPS_PER_TURN in each turn of the loop. Those that have
    begun come first; others begin as the budget allows, an origin after the other: who sends many waits for itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: float = 0) -> None:
        self.budget = Budget(rate, loop.time())
        self.accepts = Budget(0, loop.time())
        """What comes before: the TCP connections that all doors accept."""
        self.threads = 0
        """Those that the native driver takes them in; looked at when it begins. 0: in its loops."""
        self.loops = LOOPS
        """Of the native driver: who is in is theirs. Looked at when it begins."""
        self._loop = loop
        self._begun: deque[Steps] = deque()
        self._new: OrderedDict[str, deque[Steps]] = OrderedDict()  # by origin
        self._due = False
        self._promised = 0  # those that may begin at once, and have not yet

    @property
    def waiting(self) -> int:
        """Handshakes that have not begun."""
        return sum(map(len, self._new.values()))

    def at_once(self) -> bool:
        """Whether a handshake may begin as soon as its hello is there, without `begin`; then it counts as begun. Only
        while nobody waits: who never says hello takes a place from nobody but those who would not have to wait either.
        `kept` is to be called when it has begun, or is gone. No more than those of a second may be about to: what is
        saved up in silence would come all at once, and whoever sends many would not wait for itself.
        """
        rate = self.budget.rate
        if self._new or (rate and self._promised >= max(1.0, rate)) or not self.budget.has(self._loop.time()):
            return False
        self.budget.spend()
        self._promised += 1
        return True

    def kept(self) -> None:
        """One that might begin at once has, or never will."""
        self._promised -= 1

    def begin(self, connection: Steps, origin: str) -> None:
        """The connection's `step` is to be called for the first time, when the budget allows."""
        self._new.setdefault(origin, deque()).append(connection)
        self._schedule()

    def add(self, connection: Steps) -> None:
        """The connection's `step` is to be called again, soon and once."""
        self._begun.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if self._due or not (self._begun or self._new):
            return
        self._due = True
        if self._begun or self.budget.has(self._loop.time()):
            self._loop.call_soon(self._turn)
        else:
            self._loop.call_later(max(self.budget.wait(), 0.001), self._turn)

    def _turn(self) -> None:
        self._due = False
        try:
            for connection in [*islice(self._begun, STEPS_PER_TURN)]:
                self._begun.popleft()
                connection.step()
            for _ in range(STEPS_PER_TURN):
                if not self._new or not self.budget.has(self._loop.time()):
                    break
                self._next().step()
        finally:
            self._schedule()

    def _next(self) -> Steps:
        """The first of the origin whose turn it is. Those that have gone while they waited cost nothing."""
        origin, queue = self._new.popitem(last=False)
        connection = queue.popleft()
        if queue:
            self._new[origin] = queue
        if not connection.gone:
            self.budget.spend()
        return connection


Accepted = TypeVar("Accepted")


def accept(listening: socket.socket) -> tuple[socket.socket, str, int]:
    """One that has come, which does not block, its host and its port. OSError as `socket.accept`."""
    sock, name = listening.accept()
    sock.setblocking(False)
    return sock, name[0], name[1]


class Door(Generic[Accepted]):
    """Accepts what comes to one listening socket, as fast as the budget allows; `enter` makes something of it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        budget: Budget,
        accept: Callable[[socket.socket], tuple[Accepted, str, int]],
        enter: Callable[[Accepted, str, int], float],
    ) -> None:
        """`enter` gets each connection that `accept` accepts, its host and port, and returns what it cost (1: a
        connection like others). `budget` may be one of several doors.
        """
        self._accept = accept
        self._loop = loop
        self._socket = sock
        self._budget = budget
        self._enter = enter
        self._later: asyncio.TimerHandle | None = None
        self._open()

    def close(self) -> None:
        """Accepts no more, and closes the socket."""
        if self._later is not None:
            self._later.cancel()
        else:
            self._loop.remove_reader(self._socket)
        self._socket.close()

    def _open(self) -> None:
        self._later = None
        self._loop.add_reader(self._socket, self._knock)

    def _knock(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if not self._budget.has(self._loop.time()):
                self._rest(self._budget.wait())
                return
            try:
                accepted, host, port = self._accept(self._socket)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no file descriptor is left, for example: not one of ours, and trying on is no use
                self._rest(1.0)
                return
            self._budget.spend(self._enter(accepted, host, port))

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket)
        self._later = self._loop.call_later(max(seconds, 0.001), self._open)
