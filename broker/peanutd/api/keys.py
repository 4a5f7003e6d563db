"""The API's secret, api.key in the fleet home, and what is made of it: access tokens, refresh tokens, proofs.

The rule it keeps: 32 random bytes, mode 0600, made at the first start; each purpose has a key of its own, so that a
token of one is worth nothing as another. Whoever removes the file signs everybody out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt

FILE_NAME: Final = "api.key"
SIZE: Final = 32
ISSUER: Final = "peanutd"
AUDIENCE: Final = "peanut-api"
ACCESS_TYPE: Final = "at+jwt"
"""RFC 9068 §2.1: no other token is taken for an access token."""
_ALGORITHM: Final = "HS256"
AHEAD: Final = 60
"""Seconds that a token may be of the future; with more the clock was ahead when it was made, and it would last."""


class NoKeyError(Exception):
    """Why there is no key to serve with."""


@dataclass(frozen=True, slots=True)
class Access:
    """What an access token says: who (`user/maria`, `share/7`), of which sign-in, until when (Unix seconds)."""

    who: str
    session: str
    ends: float


class Keys:
    """Makes and judges tokens. Time is an argument: Unix seconds."""

    def __init__(self, secret: bytes) -> None:
        self._access, self._refresh, self._mac = (
            hmac.digest(secret, purpose, "sha256") for purpose in (b"access", b"refresh", b"mac")
        )

    def access(self, who: str, session: str, now: float, lifetime: float) -> str:
        """An access token (a JWT)."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": who,
            "sid": session,
            "jti": secrets.token_hex(8),
            "iat": int(now),
            "exp": int(now + lifetime),
        }
        return jwt.encode(claims, self._access, _ALGORITHM, {"typ": ACCESS_TYPE})

    def judge(self, token: str, now: float) -> Access | None:
        """What an access token says, if it is one of ours and not over."""
        try:
            if jwt.get_unverified_header(token).get("typ") != ACCESS_TYPE:
                return None
            # The clock is ours to look at: it is injected.
            options: Any = {"require": ["exp", "iat", "sub", "iss", "aud"], "verify_exp": False, "verify_iat": False}
            claims = jwt.decode(token, self._access, [_ALGORITHM], options=options, audience=AUDIENCE, issuer=ISSUER)
            who, session, ends = claims["sub"], claims.get("sid"), float(claims["exp"])
            made = float(claims["iat"])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None
        if not isinstance(who, str) or not isinstance(session, str) or not made - AHEAD <= now < ends:
            return None
        return Access(who, session, ends)

    def refresh(self, family: str, counter: int) -> str:
        """The refresh token of a sign-in that has been refreshed `counter` times. Nothing of it has to be stored."""
        return f"{family}.{counter}.{self._sign(self._refresh, f'{family}.{counter}')}"

    def judge_refresh(self, token: str) -> tuple[str, int] | None:
        """Sign-in and counter, if it is one of ours."""
        body, _, signature = token.rpartition(".")
        family, _, counter = body.partition(".")
        if not counter.isascii() or not counter.isdigit() or len(counter) > 9 or not signature.isascii():
            return None
        if not hmac.compare_digest(signature, self._sign(self._refresh, body)):
            return None
        return family, int(counter)

    def mac(self, purpose: str, text: str) -> str:
        """A fingerprint that only this gateway can make: of a share's secret, of who somebody was."""
        return self._sign(self._mac, f"{purpose}\0{text}")

    @staticmethod
    def _sign(key: bytes, text: str) -> str:
        return base64.urlsafe_b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode().rstrip("=")


def load(home: Path) -> Keys:
    """The fleet home's key; made if there is none. NoKeyError when it cannot be had, or is not a key."""
    path = home / FILE_NAME
    try:
        try:
            with path.open("rb") as file:
                secret = file.read(SIZE + 1)
        except FileNotFoundError:
            secret = secrets.token_bytes(SIZE)
            new = path.with_name(f"{FILE_NAME}.{os.getpid()}.new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
    except OSError as error:
        raise NoKeyError(f"{path}: {error.strerror}") from None
    if len(secret) != SIZE:
        raise NoKeyError(f"{path}: not a key of the API; remove it, and everybody signs in anew")
    return Keys(secret)
