"""How much of the gateway one caller may have: requests a second, and things under way at once.

The rule it keeps: one budget a caller, whoever it is, so that a page that has gone wild waits for itself; what is
remembered has a limit. Time is an argument (seconds of a monotonic clock).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from peanutd.api.problem import Problem

PER_SECOND: Final = 50.0
"""Requests of a user, a share, or an address that is not signed in."""
BURST: Final = 200.0
"""Requests that may be saved up: opening the app asks for many things at once."""
CALLERS: Final = 4096
"""Callers that are remembered; the one that was quiet for longest gives way."""


class Rate:
    """Requests a second."""

    def __init__(self, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._rate = per_second
        self._burst = burst
        self._left: dict[str, tuple[float, float]] = {}  # what is left, and as of when; the quietest first

    def spend(self, caller: str, now: float) -> None:
        """Counts a request. Problem `too_often`."""
        left, at = self._left.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        if len(self._left) >= CALLERS:
            del self._left[next(iter(self._left))]
        self._left[caller] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if left < 1:
            raise Problem("too_often", "too many requests", retry_after=(1 - left) / self._rate)


class Places:
    """Things under way at once: of a caller, and in all."""

    def __init__(self, what: str, per_caller: int, in_all: int) -> None:
        self._what = what
        self._most = per_caller
        self._room = in_all
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, caller: str) -> Iterator[None]:
        """Takes a place meanwhile. Problem `busy` when there is none."""
        if self._taken[caller] >= self._most or self._taken.total() >= self._room:
            if not self._taken[caller]:
                del self._taken[caller]
            raise Problem("busy", f"too many {self._what} at once", retry_after=2)
        self._taken[caller] += 1
        try:
            yield
        finally:
            self._taken[caller] -= 1
            if not self._taken[caller]:
                del self._taken[caller]
