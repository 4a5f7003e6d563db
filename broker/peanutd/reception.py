"""Clients who log in as users: what they send goes to the login desk, and what that says comes back to their link.

The rule it keeps: a CONNECT waits, and the loop does not; passwords are checked in threads, and a verdict that comes
too late finds nobody and does nothing. Whoever is in as a user that is no longer the same (removed, another role or
password) is put out. MQTT 5.0 §4.12: CONNECT with a method, AUTH 0x18 there and back, CONNACK; AUTH 0x19 begins again
on a connection that is in, ends with AUTH 0x00, and goes wrong with DISCONNECT 0x87.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from peanutd import access
from peanutd._core import Link
from peanutd.connection import Connection, now_ms
from peanutd.log import Log
from peanutd.login import WORKERS, Challenge, Desk, Exchange, Proved, Verdict, Work
from peanutd.users import Store, User

if TYPE_CHECKING:
    from peanutd._core import Connect, Event

REAUTHENTICATE: Final = 0x19
"""Reason of an AUTH with which a client begins again (MQTT 5.0 §3.15.2.1)."""


class House(Protocol):
    """What the reception needs of the server."""

    def run(self, events: Iterable[Event]) -> None:
        """Handles what the core has to say."""

    def settle(
        self,
        connection: Connection,
        link: Link,
        verdict: access.Accept | access.Refuse,
        *,
        user: str | None = None,
        data: bytes = b"",
    ) -> None:
        """Carries out the verdict on the CONNECT that waits. user: who the client says it is; data: the last word of
        an authentication.
        """

    def note(self, connection: Connection, happened: str, level: str, /, **fields: object) -> None:
        """A log line about a client."""


class Reception:
    """One for all listeners. To be told of every CONNECT, AUTH and connection that is gone."""

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop, log: Log, store: Store) -> None:
        self._house = house
        self._loop = loop
        self._log = log
        self._desk = Desk(store, self._elsewhere, time.monotonic, partial(log.warning, "users"))
        self._threads = ThreadPoolExecutor(WORKERS, "password")
        self._jobs: set[asyncio.Future[bool]] = set()
        self._exchanges: dict[Connection, Exchange] = {}
        self._users: dict[Connection, User] = {}  # those who are in, as they were when they proved it

    # --- told by the server ---

    def takes(self, connection: Connection, link: Link, wish: Connect) -> bool:
        """Whether this client is to prove that it is a user; `settle` follows then, at once or later."""
        if connection.credential is not None or not connection.listener.policy.password:
            return False
        if wish.authentication_method is not None:
            exchange = self._desk.exchange(wish.authentication_method, connection.peer_host)
            if isinstance(exchange, Exchange):
                self._step(connection, link, exchange, wish.authentication_data or b"")
            else:
                self._house.settle(connection, link, exchange)
            return True
        if wish.username is None or wish.password is None:
            return False
        self._desk.check(
            wish.username,
            wish.password,
            connection.peer_host,
            wanted=lambda: link.connect is not None,
            answer=partial(self._answered, connection, link, wish.username),
        )
        return True

    def proves(self, connection: Connection, link: Link, reason: int) -> None:
        """The client's AUTH has arrived."""
        waiting = link.authentication
        if waiting is None:
            return  # an event before this one has ended the link
        method, data = waiting
        exchange: Exchange | access.Refuse | None = self._exchanges.get(connection)
        if reason == REAUTHENTICATE:
            exchange = self._desk.exchange(method, connection.peer_host)
        if isinstance(exchange, Exchange):
            self._step(connection, link, exchange, data)
        else:
            self._house.run(link.close(access.NOT_AUTHORIZED, now_ms()))

    def forget(self, connection: Connection) -> None:
        """The connection is gone for good."""
        self._exchanges.pop(connection, None)
        self._users.pop(connection, None)

    def recheck(self) -> None:
        """Puts out whoever is in as a user that is no longer the same. To be called now and then."""
        self._desk.sweep()
        self._desk.users()
        for connection, user in list(self._users.items()):
            if not self._desk.unchanged(user):
                del self._users[connection]
                self._house.note(connection, "logged out", "warning", why="the user is removed or has changed")
                connection.end(access.NOT_AUTHORIZED)

    def stop(self) -> None:
        """Nobody waits for a verdict any more."""
        for job in list(self._jobs):
            job.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- inside ---

    def _step(self, connection: Connection, link: Link, exchange: Exchange, data: bytes) -> None:
        """Brings an exchange on by one message."""
        answer = exchange.step(data)
        if isinstance(answer, Challenge):
            self._exchanges[connection] = exchange
            self._house.run(link.challenge(answer.data, now=now_ms()))
            return
        self._exchanges.pop(connection, None)
        if link.connect is not None:
            self._answered(connection, link, exchange.user, answer)
        else:
            self._answered_again(connection, link, answer)

    def _answered(self, connection: Connection, link: Link, name: str, answer: Verdict) -> None:
        """It is known whether the client of the CONNECT that waits is the user `name`."""
        wish = link.connect
        if wish is None:
            return  # it did not wait that long
        if isinstance(answer, Proved):
            user = answer.user
            verdict = access.welcome(wish, user.name, access.slot_of("user", user.role))
            self._house.settle(connection, link, verdict, user=name, data=answer.data)
            if connection.accepted is not None:
                self._users[connection] = user
        else:
            self._house.settle(connection, link, answer, user=name or None)

    def _answered_again(self, connection: Connection, link: Link, answer: Verdict) -> None:
        """The same of a client that is in (MQTT-4.12.1-2). Another password will do, another user or role will not."""
        before = self._users.get(connection)
        if isinstance(answer, Proved):
            if before is not None and (before.name, before.role) == (answer.user.name, answer.user.role):
                self._users[connection] = answer.user
                self._house.note(connection, "authenticated again", "info")
                self._house.run(link.authenticated(answer.data, now=now_ms()))
                return
            answer = access.Refuse(access.NOT_AUTHORIZED, "it is not the user, or not the role, that came in")
        self._house.note(connection, "login failed", "warning", why=answer.text)
        self._house.run(link.close(access.NOT_AUTHORIZED, now_ms(), answer.text))

    def _elsewhere(self, work: Work, done: Callable[[bool], None]) -> None:
        job = self._loop.run_in_executor(self._threads, work)
        self._jobs.add(job)
        job.add_done_callback(partial(self._worked, done))

    def _worked(self, done: Callable[[bool], None], job: asyncio.Future[bool]) -> None:
        self._jobs.discard(job)
        if job.cancelled():
            return  # the gateway stops
        error = job.exception()
        if error is not None:
            self._log.error("users", "a password could not be checked", error=repr(error))
        done(error is None and job.result())
