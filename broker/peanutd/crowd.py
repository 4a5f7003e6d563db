"""The crowd: all connections, those that Python has an object of, and those that rest with the native driver.

The rule it keeps: who asks for connections gets all that he asks for, with objects, which are made for it where there
are none (native/guest.h). Counting makes none; nor does asking about the credentials of those who rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from peanutd.access import Credential

Picks = Callable[[Credential | None], bool]


class Member(Protocol):
    """A connection, as far as it matters here."""

    credential: Credential | None


class Sleepers(Protocol):
    """Those that rest; `peanutd._core.Loop` has them."""

    @property
    def resting(self) -> int:
        """How many."""

    def wake(self, picks: Picks | None = None) -> object:
        """Has objects made of those whose credential `picks` picks, or of all; each adds itself to the crowd."""

    def kept(self) -> list[Credential]:
        """The credentials of those that have one."""


T = TypeVar("T", bound=Member)


class Crowd(Generic[T]):
    """One for the whole gateway."""

    def __init__(self) -> None:
        self.sleepers: Sleepers | None = None
        """Set by a driver whose connections rest."""
        self._awake: set[T] = set()

    def __len__(self) -> int:
        return len(self._awake) + (self.sleepers.resting if self.sleepers is not None else 0)

    def __iter__(self) -> Iterator[T]:
        """All of them, as they are now. Not for what happens often: it wakes everybody."""
        if self.sleepers is not None:
            self.sleepers.wake()
        return iter(self.awake())

    def add(self, connection: T) -> None:
        """It is new, or has been woken."""
        self._awake.add(connection)

    def discard(self, connection: T) -> None:
        """It is gone, or rests."""
        self._awake.discard(connection)

    def shown(self, picks: Picks) -> list[T]:
        """Those whose credential (None: there is none) `picks` picks."""
        if self.sleepers is not None:
            self.sleepers.wake(picks)
        return [connection for connection in self._awake if picks(connection.credential)]

    def awake(self) -> list[T]:
        """Those that do not rest."""
        return list(self._awake)

    def asleep(self) -> list[Credential]:
        """The credentials of those that rest and have one."""
        return self.sleepers.kept() if self.sleepers is not None else []
