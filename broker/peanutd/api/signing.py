"""Signed commands of a vehicle (README, agreement 2): the device key, and what is made of it.

The rule it keeps: every field of a command is under the signature, and the time in it is the vehicle's own. The device
key is read from the fleet home for each command and never leaves this file.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

VERBS: Final = ("unlock", "lock", "start", "stop", "horn")
STEP_UP: Final = frozenset({"unlock", "start"})
"""Verbs that need a second proof of who asks."""
LIFETIME: Final = 10
"""Seconds of the vehicle's clock that a command is good for; the vehicle allows 30."""
ARGUMENT_MAX: Final = 64
"""Characters."""
KEY_FILE: Final = "sign.key"
KEY_SIZE: Final = 32
_FIELDS: Final = ("id", "cmd", "epoch", "ctr", "exp", "args")
_NUMBER_MAX: Final = 1 << 53


class NoDeviceKeyError(Exception):
    """The vehicle's key is not here."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a vehicle says on <root>/session: epoch of this boot, the last counter used, seconds since boot."""

    epoch: str
    counter: int
    up: int


def key_of(home: Path, vin: str) -> bytes:
    """The device key. NoDeviceKeyError when there is none."""
    try:
        with (home / "devices" / vin / KEY_FILE).open("rb") as file:
            key = file.read(KEY_SIZE + 1)
    except OSError:
        key = b""
    if len(key) != KEY_SIZE:
        raise NoDeviceKeyError(vin)
    return key


def session(key: bytes, vin: str, content: Mapping[str, Any]) -> Session | None:
    """The session in a vehicle's message, None if there is none in it, or none that the vehicle itself has said.

    Anybody else's would have us sign for a time that comes, or for a counter after which there is no other.
    """
    epoch = content.get("epoch")
    if not isinstance(epoch, str) or not epoch.isascii() or not epoch.isalnum() or len(epoch) > ARGUMENT_MAX:
        return None
    numbers = [content.get(name) for name in ("ctr", "up")]
    whole = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _NUMBER_MAX - 1]
    said = content.get("sig")
    if len(whole) != len(numbers) or not isinstance(said, str):
        return None
    wanted = _mac(key, b"vin-session-v1", "v1", vin, epoch, *map(str, whole))
    return Session(epoch, *whole) if hmac.compare_digest(wanted.encode(), said.encode("utf-8", "replace")) else None


def signed(key: bytes, vin: str, verb: str, ident: str, argument: str, now: Session) -> dict[str, Any]:
    """The command, good for LIFETIME seconds from that session on. `argument` has no `|` in it."""
    body = {
        "id": ident,
        "cmd": verb,
        "epoch": now.epoch,
        "ctr": now.counter + 1,
        "exp": now.up + LIFETIME,
        "args": argument,
    }
    return {**body, "sig": _mac(key, b"vin-cmd-v1", "v1", vin, *(str(body[name]) for name in _FIELDS))}


def genuine(key: bytes, vin: str, payload: bytes, answer: Mapping[str, Any]) -> bool:
    """Whether an answer is the vehicle's own, to exactly this payload, and unaltered in stage and reason."""
    why = answer.get("why")
    parts = (vin, answer.get("id"), answer.get("stage"), "" if why is None else why)
    said = answer.get("sig")
    if not isinstance(said, str) or not all(isinstance(part, str) for part in parts):
        return False
    wanted = _mac(key, b"vin-ack-v1", "v1", *map(str, parts), hashlib.sha256(payload).hexdigest())
    return hmac.compare_digest(wanted.encode(), said.encode("utf-8", "replace"))


def _mac(key: bytes, purpose: bytes, *parts: str) -> str:
    derived = hmac.digest(key, purpose, "sha256")
    return hmac.new(derived, "|".join(parts).encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
