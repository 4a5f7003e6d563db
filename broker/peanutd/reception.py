"""Clients who log in as users: what they send goes to the login desk, and what that says comes back to their link.

The rule it keeps: a CONNECT waits, and the loop does not; passwords are checked in threads, and a verdict that comes
too late finds nobody and does nothing. Whoever is in as a user that is no longer the same (removed, another role or
password, a scope) is put out, and so is a token's bearer when it ends (0xA0, maximum connect time: what it was
authorised for is over) or its key is taken back. MQTT 5.0 §4.12: CONNECT with a method, AUTH 0x18 there and back,
CONNACK; AUTH 0x19 begins again on a connection that is in, ends with AUTH 0x00, and goes wrong with DISCONNECT 0x87.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Final, Protocol

from peanutd import access, bearer, tokens
from peanutd._core import Link
from peanutd.config import Jwt
from peanutd.connection import Connection, now_ms
from peanutd.keyring import Fetched, Keyring
from peanutd.log import Log
from peanutd.login import WORKERS, Challenge, Desk, Exchange, Proved, Verdict, Work
from peanutd.tokens import Token
from peanutd.users import Store, User

if TYPE_CHECKING:
    from peanutd._core import Connect, Event

MAXIMUM_CONNECT_TIME: Final = 0xA0
LONGEST_TIMER: Final = 60.0
"""Seconds after which it is looked again whether a token has ended: a clock may be set, a machine may sleep."""
REAUTHENTICATE: Final = 0x19
"""Reason of an AUTH with which a client begins again (MQTT 5.0 §3.15.2.1)."""

_CONFINED: Final = "the user has a scope, which counts over HTTPS only"


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

    def proved_until(self, link: Link, ends: float) -> None:
        """The proof of who the client is ends then (Unix seconds)."""

    def revoke(self, slot: access.Slot, name: str) -> None:
        """Somebody is known no longer, or not as before."""


class Reception:
    """One for all listeners. To be told of every CONNECT, AUTH and connection that is gone."""

    def __init__(
        self, house: House, loop: asyncio.AbstractEventLoop, log: Log, store: Store, now: Callable[[], float]
    ) -> None:
        """`now` tells Unix seconds, to which tokens are held."""
        self._house = house
        self._loop = loop
        self._log = log
        self._desk = Desk(store, self._elsewhere, time.monotonic, partial(log.warning, "users"))
        self._threads = ThreadPoolExecutor(WORKERS, "password")
        self._jobs: set[asyncio.Future[bool]] = set()
        self._known = store.users
        self._now = now
        self.confined: Callable[[Iterable[str]], frozenset[str]] = lambda names: frozenset()
        """Those of these users who have no business with MQTT."""
        self._bearers = bearer.Checker(self._desk, None, now)
        self._exchanges: dict[Connection, Exchange | bearer.Exchange] = {}
        self._users: dict[Connection, User | Token] = {}  # those who are in, as they were when they proved it
        self._ends: dict[Connection, asyncio.TimerHandle] = {}  # of those with a token

    # --- told by the server ---

    def takes(self, connection: Connection, link: Link, wish: Connect) -> bool:
        """Whether this client is to prove that it is a user; `settle` follows then, at once or later."""
        policy = connection.listener.policy
        if connection.credential is not None or not (policy.password or policy.jwt):
            return False
        if wish.authentication_method is not None:
            exchange = self._begin(connection, wish.authentication_method, wish.username or wish.client_id)
            if isinstance(exchange, access.Refuse):
                self._house.settle(connection, link, exchange)
            else:
                self._step(connection, link, exchange, wish.authentication_data or b"")
            return True
        if wish.password is None:
            return False
        if policy.jwt and (tokens.looks_like_one(wish.password) or not policy.password):
            exchange = self._bearers.exchange(connection.peer_host, wish.username or wish.client_id)
            self._answered(connection, link, exchange.user, exchange.judge(wish.password, access.BAD_USER_OR_PASSWORD))
            return True
        if wish.username is None:
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
        exchange: Exchange | bearer.Exchange | access.Refuse | None = self._exchanges.get(connection)
        if reason == REAUTHENTICATE:
            before = self._users.get(connection)
            exchange = self._begin(connection, method, before.name if before is not None else "")
        if exchange is None or isinstance(exchange, access.Refuse):
            self._house.run(link.close(access.NOT_AUTHORIZED, now_ms()))
        else:
            self._step(connection, link, exchange, data)

    def forget(self, connection: Connection) -> None:
        """The connection is gone for good."""
        self._exchanges.pop(connection, None)
        self._users.pop(connection, None)
        if (timer := self._ends.pop(connection, None)) is not None:
            timer.cancel()

    def take_tokens(self, settings: Jwt | None, home: Path) -> None:
        """The tokens that count from now on; None: none. Files of the settings are in `home`."""
        keyring = None
        if settings is not None:
            keyring = Keyring(
                settings,
                home,
                self._fetch,
                time.monotonic,
                lambda level, text: self._log.write(level, "tokens", text),
            )
            keyring.refresh()
        self._bearers.keyring = keyring

    def recheck(self) -> None:
        """Puts out whoever is in as a user that is no longer the same, or by a key that is taken back. To be called now
        and then.
        """
        self._desk.sweep()
        users = self._desk.users()
        for name, known in self._known.by_name.items():
            if users.get(name) != known:  # whoever is away has wills, too
                self._house.revoke(access.slot_of("user", known.role), name)
        self._known = users
        self.refresh()
        confined = self.confined({user.name for user in self._users.values() if isinstance(user, User)})
        for connection, user in list(self._users.items()):
            if isinstance(user, Token):
                why = "" if self._bearers.holds(user) else "the key of its token counts no more"
            elif user.name in confined:
                why = _CONFINED
            else:
                why = "" if self._desk.unchanged(user) else "the user is removed or has changed"
            if why:
                self._put_out(connection, access.NOT_AUTHORIZED, why)

    def refresh(self) -> None:
        """Looks whether there are other keys for tokens. To be called now and then; it does not take long."""
        if self._bearers.keyring is not None:
            self._bearers.keyring.refresh()

    def stop(self) -> None:
        """Nobody waits for a verdict any more."""
        for job in list(self._jobs):
            job.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- inside ---

    def _begin(self, connection: Connection, method: str, name: str) -> Exchange | bearer.Exchange | access.Refuse:
        """An exchange by a method that the listener allows."""
        policy = connection.listener.policy
        if policy.jwt and method == bearer.METHOD:
            return self._bearers.exchange(connection.peer_host, name)
        if policy.password:
            return self._desk.exchange(method, connection.peer_host)
        problem = f'authentication method "{method}" is not supported here; {bearer.METHOD} is'
        return access.Refuse(access.BAD_AUTH_METHOD, problem)

    def _put_out(self, connection: Connection, reason: int, why: str) -> None:
        """Ends a connection that is in."""
        self._users.pop(connection, None)
        self._house.note(connection, "logged out", "warning", why=why)
        connection.end(reason)

    def _remember(self, connection: Connection, user: User | Token) -> None:
        """The client is in, and as whom."""
        self._users[connection] = user
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Puts out a token's bearer when it ends."""
        if (timer := self._ends.pop(connection, None)) is not None:
            timer.cancel()
        user = self._users.get(connection)
        if not isinstance(user, Token):
            return
        left = user.ends - self._now()
        if left <= 0:
            self._put_out(connection, MAXIMUM_CONNECT_TIME, "its token has expired")
        else:
            wait = min(left, LONGEST_TIMER)
            self._ends[connection] = self._loop.call_later(wait, self._watch, connection)

    def _step(self, connection: Connection, link: Link, exchange: Exchange | bearer.Exchange, data: bytes) -> None:
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

    def _judged(self, answer: Verdict) -> Verdict:
        """A user who has proved to be one, and is confined, is refused all the same."""
        if isinstance(answer, Proved) and isinstance(answer.user, User) and self.confined({answer.user.name}):
            return access.Refuse(access.NOT_AUTHORIZED, _CONFINED)
        return answer

    def _answered(self, connection: Connection, link: Link, name: str, answer: Verdict) -> None:
        """It is known whether the client of the CONNECT that waits is the user `name`."""
        wish = link.connect
        if wish is None:
            return  # it did not wait that long
        answer = self._judged(answer)
        if isinstance(answer, Proved):
            user = answer.user
            kind = "token" if isinstance(user, Token) else "user"
            verdict = access.welcome(wish, user.name, access.slot_of(kind, user.role))
            known = f"token/{user.name}" if isinstance(user, Token) else name
            self._house.settle(connection, link, verdict, user=known, data=answer.data)
            if connection.accepted is not None:
                self._remember(connection, user)
                if isinstance(user, Token):
                    self._house.proved_until(link, user.ends)
        else:
            self._house.settle(connection, link, answer, user=name or None)

    def _answered_again(self, connection: Connection, link: Link, answer: Verdict) -> None:
        """The same of a client that is in (MQTT-4.12.1-2). Another password or token will do, another user will not."""
        before = self._users.get(connection)
        answer = self._judged(answer)
        if isinstance(answer, Proved):
            after = answer.user
            same = before is not None and (before.name, before.role) == (after.name, after.role)
            if same and isinstance(before, Token) == isinstance(after, Token):
                self._remember(connection, after)
                if isinstance(after, Token):
                    self._house.proved_until(link, after.ends)
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

    def _fetch(self, work: Callable[[], Fetched], done: Callable[[Fetched], None]) -> None:
        """Has something fetched by a thread of its own, which does not keep the gateway from ending."""

        def run() -> None:
            result = work()
            with contextlib.suppress(RuntimeError):  # the loop is closed: the gateway has ended
                self._loop.call_soon_threadsafe(done, result)

        Thread(target=run, name="keys", daemon=True).start()
