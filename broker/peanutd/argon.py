"""argon2id (RFC 9106): what is stored of a password for those who send it, and whether one fits.

The rule it keeps: what a check costs is bounded before it begins (MEMORY_MAX, TIME_MAX, LANES_MAX; how many run at once
is login.WORKERS), and it runs without the interpreter's lock. The text is the usual one:

    $argon2id$v=19$m=65536,t=3,p=1$SALT$HASH        m is KiB of memory, t rounds, p lanes; base64 without padding
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from argon2.exceptions import VerifyMismatchError
from argon2.low_level import Type, verify_secret

from peanutd.scram import prepared_password

MEMORY_MIN: Final = 7 * 1024
"""KiB; less is no argon2id to rely on."""
MEMORY_MAX: Final = 128 * 1024
"""KiB that one check may take."""
TIME_MAX: Final = 16
LANES_MAX: Final = 8

_TEXT: Final = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,7}),t=([1-9][0-9]{0,2}),p=([1-9][0-9]{0,2})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)


@dataclass(frozen=True, slots=True)
class Hash:
    """A stored password. `cost` is memory in KiB, rounds and lanes."""

    text: str = field(repr=False)  # a log or a traceback is no place for it
    cost: tuple[int, int, int]


USUAL_COST: Final = (64 * 1024, 3, 1)
"""What `peanut user` takes: RFC 9106's choice for little memory, but for one lane: a check takes one processor."""


def parse(text: object) -> Hash:
    """A stored password out of its text. ValueError says what is wrong with it."""
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("is not an argon2id hash")
    memory, time, lanes = (int(part) for part in match.groups()[:3])
    if not MEMORY_MIN <= memory <= MEMORY_MAX or time > TIME_MAX or lanes > LANES_MAX:
        raise ValueError(f"m must be {MEMORY_MIN} to {MEMORY_MAX}, t at most {TIME_MAX}, p at most {LANES_MAX}")
    return Hash(match[0], (memory, time, lanes))


def verify(stored: Hash, password: bytes) -> bool:
    """Whether it is the password. Slow, and for whatever `password` holds."""
    prepared = prepared_password(password)
    try:
        return verify_secret(stored.text.encode(), prepared, Type.ID) and bool(prepared)
    except VerifyMismatchError:
        return False


def decoy(name: str, secret: bytes, cost: tuple[int, int, int]) -> Hash:
    """The hash of a user who does not exist: it costs the same, and no password fits it."""
    memory, time, lanes = cost
    salt, rest = (hmac.digest(secret, f"argon2id\0{what}\0{name}".encode(), "sha256") for what in ("salt", "hash"))
    return Hash(f"$argon2id$v=19$m={memory},t={time},p={lanes}${_b64(salt[:16])}${_b64(rest)}", cost)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
