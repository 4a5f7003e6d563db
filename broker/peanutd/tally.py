"""What has happened, counted: what the core does not see, because it happens before or beside MQTT.

The rule it keeps: every label is a word of ours, never a peer's, so the table cannot grow. Counting costs a dictionary
look-up; whoever wants the numbers (metrics.py, control.py) takes a copy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Final

LAG_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds: the buckets of the loop's lag."""
JOURNAL_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: the buckets of a commit."""


class Spread:
    """How often a duration was how long, for a histogram."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self._most = self._most_before = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds
        self._most = max(self._most, seconds)

    @property
    def recent(self) -> float:
        """The longest since the last `turn` but one."""
        return max(self._most, self._most_before)

    def turn(self) -> None:
        """To be called once a minute or so."""
        self._most_before, self._most = self._most, 0.0

    def buckets(self) -> list[tuple[str, int]]:
        """Upper bound and how many were no longer, as Prometheus has it."""
        found, sum_ = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            sum_ += count
            found.append((bound, sum_))
        return found


class Tally:
    """The counters; `lag` and `journal` take seconds."""

    def __init__(self) -> None:
        self.accepted = 0
        """Connections that the kernel has handed over."""
        self.connects = 0
        """CONNECTs that have come."""
        self.own: Mapping[str, int] = {}
        """What of the core's gauges is the gateway's own (ear.py), by name."""
        self.handshakes_failed: Counter[str] = Counter()
        """By reason: one of HANDSHAKE."""
        self.turned_away: Counter[str] = Counter()
        """Connections that were closed before they could say anything, by reason: one of TURNED_AWAY."""
        self.refused: Counter[int] = Counter()
        """CONNECTs that were refused, by reason code."""
        self.disconnected: Counter[int] = Counter()
        """Clients that were in and are no longer, by reason code."""
        self.max_memory = 0
        """MiB: the core's ceiling, for those who look at what it holds."""
        self.bans: Counter[str] = Counter()
        """By kind."""
        self.lag = Spread(LAG_BOUNDS)
        """How late the loop's own timer was, twice a second."""
        self.journal = Spread(JOURNAL_BOUNDS)
        """How long the commits of the store took."""


HANDSHAKE: Final = ("timeout", "not TLS", "certificate", "TLS", "closed", "WebSocket", "no CONNECT", "revoked")
TURNED_AWAY: Final = ("banned", "full", "address", "proxy", "newcomers", "stopping")
