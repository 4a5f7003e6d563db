"""Tokens as a way to come in: in CONNECT's password, or as Authentication Data of the method JWT (MQTT 5.0 §4.12).

The rule it keeps: it judges and does not serve. A token is checked at once (a signature costs less than a millisecond),
and who shows forged ones is not listened to for a while, as with passwords. Without keys there is no verdict but no.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from peanutd import tokens
from peanutd.access import NOT_AUTHORIZED, Refuse
from peanutd.keyring import Keyring
from peanutd.login import Challenge, Desk, Proved, Verdict
from peanutd.tokens import ForgedError, Token, TokenError, UnknownKeyError

METHOD: Final = "JWT"
"""Authentication Method: the client's first message is the token in its compact form, and there is no second one."""
SERVER_UNAVAILABLE: Final = 0x88


class Checker:
    """Judges tokens by the keys of `keyring` (None: no token counts). `now` tells Unix seconds."""

    def __init__(self, desk: Desk, keyring: Keyring | None, now: Callable[[], float]) -> None:
        self.keyring = keyring
        self._desk = desk
        self._now = now

    def check(self, token: bytes, address: str, name: str, reason: int) -> Verdict:
        """Who has the token. `name` is what the client calls itself; `reason` is for a token that is refused."""
        keyring = self.keyring
        if keyring is None:
            return Refuse(reason, "no tokens are taken here")
        refusal = self._desk.too_often(address, name)
        if refusal is not None:
            return refusal
        keyring.refresh()
        if not keyring.keys:
            return Refuse(SERVER_UNAVAILABLE, "the keys for tokens are not there (yet); try again")
        try:
            return Proved(tokens.read(token, keyring.keys, keyring.settings, self._now()))
        except ForgedError as error:
            return self._desk.failure(address, name, reason, str(error))
        except UnknownKeyError as error:
            keyring.missed()
            return Refuse(reason, str(error))
        except TokenError as error:
            return Refuse(reason, str(error))

    def holds(self, token: Token) -> bool:
        """Whether the token would still count, but for its end: its key has not been taken back."""
        return self.keyring is not None and self.keyring.has(token.key)

    def exchange(self, address: str, name: str) -> Exchange:
        """Begins an exchange with a client at `address` that calls itself `name`."""
        return Exchange(self, address, name)


class Exchange:
    """One message: the token."""

    method: Final = METHOD

    def __init__(self, checker: Checker, address: str, name: str) -> None:
        self.user = f"token/{name}"
        """What the client calls itself, and no user of that name is blamed for it."""
        self._checker = checker
        self._address = address
        self._asked = False

    def step(self, data: bytes) -> Challenge | Verdict:
        """Takes what the client sends; asks once for a token that has not come with the method."""
        if not data and not self._asked:
            self._asked = True
            return Challenge(b"")
        return self.judge(data, NOT_AUTHORIZED)

    def judge(self, token: bytes, reason: int) -> Verdict:
        """Who has the token; `reason` is for one that is refused."""
        return self._checker.check(token, self._address, self.user, reason)
