"""From a password to what may be stored of it: SASLprep (RFC 4013), SCRAM keys (RFC 5802 §3), argon2id (RFC 9106).

Rule: a password lives in memory only; what leaves this file are salts, costs, and keys and a hash that log nobody in.
"""

import base64
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher, Type

from peanut.errors import PeanutError

SHORTEST, LONGEST = 10, 1024  # characters; bytes
SALT_SIZE = 16  # bytes


@dataclass(frozen=True)
class Mechanism:
    """A SCRAM mechanism. digest: hashlib's name; iterations: of PBKDF2, for a new password."""

    name: str
    digest: str
    iterations: int


# OWASP's counts of 2023 for PBKDF2, about equal in cost to whoever has stolen the file and guesses. A client pays them
# once a login (a quarter of a second of a PC), the gateway only where a password is sent instead of SCRAM.
MECHANISMS = (Mechanism("SCRAM-SHA-256", "sha256", 600_000), Mechanism("SCRAM-SHA-512", "sha512", 210_000))


ARGON: dict[str, Any] = {"memory_cost": 64 * 1024, "time_cost": 3, "parallelism": 1}
"""RFC 9106's choice for little memory (64 MiB), but for one lane: the gateway has other things to do meanwhile."""


def prepare(text: str) -> str:
    """The password as SASLprep has it, the same from every keyboard; PeanutError if it is not to be taken.

    It is a stored string (RFC 3454 §7): code points younger than Unicode 3.2 are refused.
    """
    mapped = (" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", "".join(mapped))
    for c in prepared:
        if _prohibited(c):
            raise PeanutError(f"the password has a character that is not allowed (U+{ord(c):04X})", _PLAIN)
        if stringprep.in_table_a1(c):
            raise PeanutError(f"the password has a character that not every client knows (U+{ord(c):04X})", _PLAIN)
    right = [stringprep.in_table_d1(c) for c in prepared]
    if any(right) and (any(map(stringprep.in_table_d2, prepared)) or not right[0] or not right[-1]):
        raise PeanutError("the password mixes writing from the left and from the right", "Use one of them.")
    if len(prepared) < SHORTEST:
        raise PeanutError(f"the password is too short: {len(prepared)} characters", f"Use {SHORTEST} or more.")
    if len(prepared.encode()) > LONGEST:
        raise PeanutError("the password is too long", f"Use at most {LONGEST} bytes.")
    return prepared


_PLAIN = "Use letters, digits, spaces and punctuation."


def _prohibited(c: str) -> bool:
    # RFC 4013, 2.3
    return (
        stringprep.in_table_c12(c)
        or stringprep.in_table_c21_c22(c)
        or stringprep.in_table_c3(c)
        or stringprep.in_table_c4(c)
        or stringprep.in_table_c5(c)
        or stringprep.in_table_c6(c)
        or stringprep.in_table_c7(c)
        or stringprep.in_table_c8(c)
        or stringprep.in_table_c9(c)
    )


def credential(mechanism: Mechanism, prepared: str) -> dict[str, Any]:
    """What users.json keeps of a prepared password for one mechanism; a new salt each time. Slow by design."""
    salt = secrets.token_bytes(SALT_SIZE)
    salted = hashlib.pbkdf2_hmac(mechanism.digest, prepared.encode(), salt, mechanism.iterations)
    client_key = hmac.digest(salted, b"Client Key", mechanism.digest)
    return {
        "iterations": mechanism.iterations,
        "salt": base64.b64encode(salt).decode(),
        "stored_key": base64.b64encode(hashlib.new(mechanism.digest, client_key).digest()).decode(),
        "server_key": base64.b64encode(hmac.digest(salted, b"Server Key", mechanism.digest)).decode(),
    }


def argon2id(prepared: str) -> str:
    """What users.json keeps for clients that send the password itself; a new salt each time. Slow by design."""
    return PasswordHasher(hash_len=32, salt_len=SALT_SIZE, type=Type.ID, **ARGON).hash(prepared)
