"""How often somebody may guess a password: failed logins, counted by address and user, and by address.

The rule it keeps: an attempt is judged before it costs anything, a right password is forgotten at once, and what is
remembered has a limit. Time is an argument (seconds of any monotonic clock).
"""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

PER_USER: Final = 5
"""Failures for one user from one address within WINDOW; after that every attempt of the two waits for its end."""
PER_ADDRESS: Final = 30
"""Failures from one address within WINDOW, whoever the users are."""
WINDOW: Final = 60.0
"""Seconds, from the first failure on. Somebody else's typing mistakes cost no more than this."""
KEYS: Final = 4096
"""Pairs and addresses that are remembered; the oldest gives way to a new one."""
MAX_USER: Final = 64
"""Characters of a user name that count, real ones have 32: a peer is not to fill the memory with names."""

_Key = tuple[str, str | None]


class Throttle:
    """Counts failures. An IPv6 address counts as its /64, which is what one customer has."""

    def __init__(self) -> None:
        self._failures: dict[_Key, tuple[float, int]] = {}  # since when, how many; the oldest first

    def wait(self, address: str, user: str, now: float) -> float:
        """Seconds until an attempt will be listened to; 0.0 if that is now."""
        left = 0.0
        for key, limit in _keys(address, user):
            since, count = self._failures.get(key, (now, 0))
            if count >= limit:
                left = max(left, since + WINDOW - now)
        return left

    def failed(self, address: str, user: str, now: float) -> bool:
        """Counts a failure; True if it was the last one that is allowed for now."""
        last = False
        for key, limit in _keys(address, user):
            since, count = self._failures.get(key, (now, 0))
            if now - since >= WINDOW:
                del self._failures[key]
                since, count = now, 0
            if key not in self._failures and len(self._failures) >= KEYS:
                del self._failures[next(iter(self._failures))]
            self._failures[key] = (since, count + 1)
            last = last or count + 1 == limit
        return last

    def succeeded(self, address: str, user: str) -> None:
        """Forgets the failures of the pair; not those of the address, which may go on guessing other users."""
        self._failures.pop((network(address), user[:MAX_USER]), None)

    def sweep(self, now: float) -> None:
        """Forgets what is over; to be called now and then."""
        for key, (since, _) in list(self._failures.items()):
            if now - since < WINDOW:
                break
            del self._failures[key]

    def __len__(self) -> int:
        return len(self._failures)


@functools.lru_cache(maxsize=4096)
def network(address: str) -> str:
    """What counts as one address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # a Unix socket's peer, for example
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


def _keys(address: str, user: str) -> tuple[tuple[_Key, int], tuple[_Key, int]]:
    where = network(address)
    return ((where, user[:MAX_USER]), PER_USER), ((where, None), PER_ADDRESS)
