"""Proofs: the second proof of who asks, which a vehicle's unlock and start need.

The rule it keeps: a proof is for one user, one device and one command, for a minute, and once. It is kept in memory
only: a restart of the gateway asks again.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from peanutd.api.problem import Problem

LIFETIME: Final = 60.0
"""Seconds."""
WAITING: Final = 1000
"""Proofs that wait to be used; the oldest gives way."""


@dataclass(frozen=True, slots=True)
class _Proof:
    who: str
    device: str
    command: str
    ends: float


class Proofs:
    """Those that were given and not used yet. Time is an argument: Unix seconds."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, _Proof] = {}

    def give(self, who: str, device: str, command: str, now: float) -> str:
        """A proof."""
        for key in [key for key, proof in self._waiting.items() if proof.ends <= now]:
            del self._waiting[key]
        if len(self._waiting) >= WAITING:
            del self._waiting[next(iter(self._waiting))]
        token = secrets.token_urlsafe(24)
        self._waiting[_key(token)] = _Proof(who, device, command, now + LIFETIME)
        return token

    def use(self, token: str, who: str, device: str, command: str, now: float) -> None:
        """Takes a proof; it is worth nothing afterwards. Problem `step_up` if it is none for this."""
        proof = self._waiting.pop(_key(token), None)
        if (
            proof is None
            or (proof.who, proof.device, proof.command) != (who, device, command)
            or not 0 < proof.ends - now <= LIFETIME + 1
        ):
            raise Problem("step_up", f"{command} needs your password again (POST /step-up), once for each command")


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
