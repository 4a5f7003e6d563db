"""How often a thing may happen: a token bucket.

Rule: pure; time is an argument. A person is never made to wait, a flood always is.
"""

from node import ticks


class Bucket:
    """Lets `size` things happen at once, and one more every `refill_ms`. It starts full, at `now` (ticks)."""

    def __init__(self, size, refill_ms, now):
        self._size = size
        self._refill = refill_ms
        self._left = size
        self._last = now

    def take(self, now):
        """0: it may happen. Else it may not, and this is how many ms it has to wait."""
        passed = ticks.diff(now, self._last)
        # What looks like the past is more than 6.2 days ago (node/ticks.py): time enough for all of them.
        fresh = passed // self._refill if passed >= 0 else self._size
        self._left += fresh
        if self._left >= self._size:
            self._left = self._size
            self._last = now
        else:
            self._last = ticks.add(self._last, fresh * self._refill)
        if self._left:
            self._left -= 1
            return 0
        return self._refill - ticks.diff(now, self._last)
