"""Logging in: how somebody without a certificate proves to be a user, by SCRAM or with a password in CONNECT.

The rule it keeps: it judges and does not serve. SCRAM exchanges are stepped with what the client sends; passwords are
checked by whoever `run` gives the work to (a thread, never the loop), WORKERS at a time, with at most WAITING behind
them. Who fails too often is not listened to for a while (see throttle.py). An unknown user fares as a wrong password.
"""

from __future__ import annotations

import base64
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from peanutd import scram
from peanutd.access import BAD_AUTH_METHOD, BAD_USER_OR_PASSWORD, NOT_AUTHORIZED, Refuse
from peanutd.throttle import Throttle
from peanutd.tokens import Token
from peanutd.users import Store, User, Users

WORKERS: Final = 2
"""Passwords that are checked at the same time; each keeps a core busy for about a fifth of a second, and takes 64 MiB
(at the most argon.MEMORY_MAX)."""
WAITING: Final = 64
"""Passwords that wait to be checked; one more is turned away as "server busy"."""
NONCE_SIZE: Final = 18
"""Random bytes of the gateway's part of a nonce."""

SERVER_BUSY: Final = 0x89
CONNECTION_RATE_EXCEEDED: Final = 0x9F

_WRONG: Final = "wrong user name or password"


@dataclass(frozen=True, slots=True)
class Challenge:
    """The exchange goes on: `data` is for the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Proved:
    """The client is `user`, or has that token; `data` is for the client (SCRAM: we know the password, too)."""

    user: User | Token
    data: bytes = b""


Verdict = Proved | Refuse
Work = Callable[[], bool]
Run = Callable[[Work, Callable[[bool], None]], None]
"""Does the work somewhere else; calls the second, later and in the loop, with what came of it (False if nothing)."""


@dataclass(slots=True)
class _Check:
    """A password that waits to be checked."""

    name: str
    password: bytes = field(repr=False)
    address: str
    wanted: Callable[[], bool]
    answer: Callable[[Verdict], None]


class Desk:
    """Where users log in. `clock` tells seconds of a monotonic clock, `warn` takes lines about users.json."""

    def __init__(self, store: Store, run: Run, clock: Callable[[], float], warn: Callable[[str], None]) -> None:
        self.store = store
        self.throttle = Throttle()
        self._run = run
        self._clock = clock
        self._warn = warn
        self._waiting: deque[_Check] = deque()
        self._working = 0

    def users(self) -> Users:
        """The users as the file has them now."""
        for line in self.store.refresh():
            self._warn(line)
        return self.store.users

    def unchanged(self, user: User) -> bool:
        """Whether the user is still there, with the same role and password, as of the last call of `users`."""
        return self.store.users.get(user.name) == user

    def sweep(self) -> None:
        """Forgets old failures; to be called now and then."""
        self.throttle.sweep(self._clock())

    # --- SCRAM ---

    def exchange(self, method: str, address: str) -> Exchange | Refuse:
        """Begins an exchange with a client at `address`, or says that there is no such method."""
        mechanism = scram.MECHANISMS.get(method)
        if mechanism is None:
            known = " and ".join(scram.MECHANISMS)
            return Refuse(BAD_AUTH_METHOD, f'authentication method "{method}" is not supported; {known} are')
        return Exchange(self, mechanism, address)

    # --- passwords in CONNECT ---

    def check(
        self,
        name: str,
        password: bytes,
        address: str,
        wanted: Callable[[], bool],
        answer: Callable[[Verdict], None],
    ) -> None:
        """Has a password checked and `answer`s, at once or later; unless it is no longer `wanted` when its turn comes.

        A peer that is gone, or that has had too many failures meanwhile, costs no work.
        """
        refusal = self.too_often(address, name)
        if len(self._waiting) >= WAITING:
            self._waiting = deque(check for check in self._waiting if check.wanted())
        if refusal is None and len(self._waiting) >= WAITING:
            refusal = Refuse(SERVER_BUSY, f"{WAITING} others wait to have their passwords checked; try again")
        if refusal is not None:
            answer(refusal)
            return
        self._waiting.append(_Check(name, password, address, wanted, answer))
        self._next()

    def _next(self) -> None:
        while self._waiting and self._working < WORKERS:
            check = self._waiting.popleft()
            if not check.wanted():
                continue
            refusal = self.too_often(check.address, check.name)
            if refusal is not None:
                check.answer(refusal)
                continue
            users = self.users()
            # The user as of now: whoever is removed or given a new password meanwhile has to come again.
            user = users.get(check.name)
            self._working += 1
            self._run(
                partial(users.password_check(check.name), check.password),
                partial(self._checked, check, user),
            )

    def _checked(self, check: _Check, user: User | None, right: bool) -> None:
        self._working -= 1
        self.users()
        try:
            if right and user is not None and self.unchanged(user):
                self.throttle.succeeded(check.address, check.name)
                check.answer(Proved(user))
            else:
                check.answer(self.failure(check.address, check.name, BAD_USER_OR_PASSWORD, _WRONG))
        finally:
            self._next()

    # --- who fails too often ---

    def too_often(self, address: str, name: str) -> Refuse | None:
        """The refusal of somebody who has had too many failures."""
        left = self.throttle.wait(address, name, self._clock())
        if left <= 0:
            return None
        return Refuse(CONNECTION_RATE_EXCEEDED, f"too many failed logins; try again in {left:.0f} s")

    def failure(self, address: str, name: str, reason: int, text: str) -> Refuse:
        """Counts a failure and gives the refusal; its text says whose failure, and whether it was one too many."""
        last = self.throttle.failed(address, name, self._clock())
        return Refuse(reason, f"{text}; nothing more from there for a while" if last else text)


class Exchange:
    """SCRAM on one connection: `step` with what each AUTH (or the CONNECT) brings, until it is no Challenge."""

    def __init__(self, desk: Desk, mechanism: scram.Mechanism, address: str) -> None:
        self._desk = desk
        self._address = address
        self._users = desk.users()
        self._scram = scram.Server(
            mechanism, self._credential, base64.b64encode(secrets.token_bytes(NONCE_SIZE)).decode()
        )
        self._mechanism = mechanism
        self._asked = False  # for the client's first message, which did not come with the method
        self._begun = False

    @property
    def method(self) -> str:
        return self._mechanism.name

    @property
    def user(self) -> str:
        """Who the client says it is; empty until it has said so."""
        return self._scram.user

    def step(self, data: bytes) -> Challenge | Verdict:
        """Takes what the client sends, and always has an answer. Not to be called after one that is no Challenge."""
        try:
            if not self._begun:
                if not data and not self._asked:  # RFC 4422 §5.1: then the server asks, with nothing
                    self._asked = True
                    return Challenge(b"")
                self._begun = True
                challenge = self._scram.first(data)
                return self._desk.too_often(self._address, self._scram.user) or Challenge(challenge)
            return self._prove(data)
        except scram.ScramError as error:
            reason = BAD_USER_OR_PASSWORD if error.error == "invalid-proof" else NOT_AUTHORIZED
            return self._desk.failure(self._address, self._scram.user, reason, f"{self.method}: {error}")

    def _prove(self, data: bytes) -> Verdict:
        # Looked at again here: exchanges that run side by side must not add up to more guesses.
        name = self._scram.user
        refusal = self._desk.too_often(self._address, name)
        if refusal is not None:
            return refusal
        answer = self._scram.final(data)
        user = self._users.get(name)
        self._desk.users()
        if user is None or not self._desk.unchanged(user):
            raise scram.ScramError("other-error", "the user has changed meanwhile")
        self._desk.throttle.succeeded(self._address, name)
        return Proved(user, answer)

    def _credential(self, name: str) -> scram.Credential:
        return self._users.credential(name, self._mechanism)
