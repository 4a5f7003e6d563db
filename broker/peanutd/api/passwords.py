"""Passwords that people type into the app: checked in threads, slowly, and not too often.

The rule it keeps: a guess is judged before it costs anything. Five failures of a user from an address, or thirty from
an address, and nobody is listened to from there for a minute (throttle.py); fifty failures of a user from wherever, and
for a quarter of an hour only addresses count from which that user has signed in before, so that nobody can lock
somebody out of his own house. A user who does not exist fares as a wrong password, and takes as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from peanutd.access import Role
from peanutd.api.problem import Problem
from peanutd.throttle import MAX_USER, Throttle, network
from peanutd.users import Store, User

WORKERS: Final = 2
"""Checks at the same time; each takes a fifth of a second of a processor and 64 MiB."""
WAITING: Final = 16
"""Checks that wait for their turn; one more is turned away as busy."""
LOCKED_AFTER: Final = 50
"""Failures of one user, from wherever they come, within LOCKED_FOR."""
LOCKED_FOR: Final = 900.0
"""Seconds, from the first failure on."""
LOCKS: Final = 4096
"""Users whose failures are remembered, existing or not; the oldest gives way."""
LONGEST: Final = 1024
"""Bytes of a password."""

WRONG: Final = "user name or password are wrong"


class Passwords:
    """Where passwords are checked. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        warn: Callable[[str], None],
        known: Callable[[str], set[str]],
    ) -> None:
        """`known`: the addresses from which a user has signed in before. `warn` takes lines for the log."""
        self._store = store
        self._clock = clock
        self._warn = warn
        self._known = known
        self._throttle = Throttle()
        self._failures: dict[str, tuple[float, int]] = {}
        self._threads = ThreadPoolExecutor(WORKERS, "api-password")
        self._waiting = 0

    def user(self, name: str) -> User | None:
        """The user as the file has it now."""
        for line in self._store.refresh():
            self._warn(line)
        return self._store.users.get(name)

    def role(self, name: str) -> Role | None:
        """The role that a user has now, None if there is no such user."""
        user = self.user(name)
        return None if user is None else user.role

    async def check(self, name: str, password: str, address: str, *, wrong: str = "unauthorized") -> User:
        """The user whose password it is. Problem `wrong`, `too_often` or `busy`."""
        self.allow(name, address)
        if self._waiting >= WAITING + WORKERS:
            raise Problem("busy", "too many sign in at the moment", retry_after=2)
        user = self.user(name)
        work = partial(self._store.users.password_check(name), password.encode("utf-8", "surrogatepass"))
        self._waiting += 1
        try:
            right = len(password) <= LONGEST and await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
        self.allow(name, address)  # guesses that run side by side must not add up to more
        if not right or user is None or self.user(name) != user:
            self.failed(name, address)
            raise Problem(wrong, WRONG)
        self._throttle.succeeded(address, name)
        self._failures.pop(name, None)
        return user

    def allow(self, name: str, address: str) -> None:
        """Problem `too_often` if nobody is listened to. Also for PINs: `name` is then that of the share."""
        now = self._clock()
        wait = self._throttle.wait(address, name, now)
        since, count = self._failures.get(name[:MAX_USER], (now, 0))
        if count >= LOCKED_AFTER and network(address) not in {network(one) for one in self._known(name)}:
            wait = max(wait, since + LOCKED_FOR - now)
        if wait > 0:
            raise Problem("too_often", f"too many failures; try again in {wait:.0f} s", retry_after=wait)

    def failed(self, name: str, address: str) -> None:
        """Counts a failure."""
        now = self._clock()
        if self._throttle.failed(address, name, now):
            self._warn(f"too many failed sign-ins from {network(address)}: nothing more from there for a minute")
        key = name[:MAX_USER]
        since, count = self._failures.pop(key, (now, 0))
        if now - since >= LOCKED_FOR:
            since, count = now, 0
        if len(self._failures) >= LOCKS:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = (since, count + 1)
        if count + 1 == LOCKED_AFTER:
            self._warn(f"user {name!r}: {LOCKED_AFTER} failed sign-ins; only known addresses count for a while")

    def sweep(self) -> None:
        """Forgets what is over; to be called now and then."""
        now = self._clock()
        self._throttle.sweep(now)
        for key in [key for key, (since, _) in self._failures.items() if now - since >= LOCKED_FOR]:
            del self._failures[key]

    def close(self) -> None:
        """Nobody waits any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
