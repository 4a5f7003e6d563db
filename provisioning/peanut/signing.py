"""Signed commands of a vehicle: the device key, and what is made of it (agreement 2).

Rule: every field of a command is under the signature, and the time in it is the vehicle's own: no wall clock decides
whether a door opens. The key stays in the fleet home (0600) and on the vehicle; nothing here shows it.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peanut import store
from peanut.errors import PeanutError

KEY_FILE = "sign.key"
KEY_SIZE = 32  # bytes
VERBS = ("unlock", "lock", "start", "stop", "horn")
LIFETIME_S = 10  # seconds of the vehicle's clock that a command is valid for; the vehicle allows 30
ARGUMENT_MAX = 64  # characters
_FIELDS = ("id", "cmd", "epoch", "ctr", "exp", "args")  # in the order in which they are signed
_COUNTER_MAX = 1 << 53


@dataclass(frozen=True)
class Session:
    """What a vehicle says on <root>/session. epoch: of this boot; counter: the last used; up: seconds since boot."""

    epoch: str
    counter: int
    up: int


def new_key() -> bytes:
    """A device key for one vehicle."""
    return secrets.token_bytes(KEY_SIZE)


def read_key(path: Path) -> bytes:
    """The device key in a file; PeanutError if it is none."""
    key = store.read(path)
    if len(key) != KEY_SIZE:
        raise PeanutError(f"{path} is not a device key: {len(key)} bytes instead of {KEY_SIZE}", "Restore it.")
    return key


def session(key: bytes, vin: str, content: Mapping[str, Any]) -> Session | None:
    """The session in a vehicle's message, None if there is none in it, or none that the vehicle itself has said.

    Anybody else's would have us sign for a time that comes, or for a counter after which there is no other.
    """
    epoch, counter, up = (content.get(name) for name in ("epoch", "ctr", "up"))
    if not isinstance(epoch, str) or not epoch.isalnum() or not epoch.isascii() or len(epoch) > ARGUMENT_MAX:
        return None
    whole = [n for n in (counter, up) if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _COUNTER_MAX - 1]
    said = content.get("sig")
    if len(whole) != 2 or not isinstance(said, str):
        return None
    text = f"v1|{vin}|{epoch}|{counter}|{up}"
    wanted = hmac.new(_derived(key, b"vin-session-v1"), text.encode(), "sha256").hexdigest()
    same = hmac.compare_digest(wanted.encode(), said.encode("utf-8", "replace"))
    return Session(epoch, *whole) if same else None


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose, "sha256")


def signed(key: bytes, vin: str, verb: str, ident: str, argument: str, now: Session) -> dict[str, Any]:
    """The document of a command, good for LIFETIME_S from `now` on; the next one needs a newer session."""
    body: dict[str, Any] = {
        "id": ident,
        "cmd": verb,
        "epoch": now.epoch,
        "ctr": now.counter + 1,
        "exp": now.up + LIFETIME_S,
        "args": argument,
    }
    text = "|".join(["v1", vin, *(str(body[name]) for name in _FIELDS)])
    return {**body, "sig": hmac.new(_derived(key, b"vin-cmd-v1"), text.encode(), "sha256").hexdigest()}


def genuine(key: bytes, vin: str, payload: bytes, answer: Mapping[str, Any]) -> bool:
    """Whether an answer is the vehicle's own, to exactly this payload, and unaltered in stage and reason."""
    said = answer.get("sig")
    why = answer.get("why")
    parts = ("v1", vin, answer.get("id"), answer.get("stage"), "" if why is None else why)
    if not isinstance(said, str) or not all(isinstance(part, str) for part in parts):
        return False
    text = "|".join([*(str(part) for part in parts), hashlib.sha256(payload).hexdigest()])
    wanted = hmac.new(_derived(key, b"vin-ack-v1"), text.encode("utf-8", "replace"), "sha256").hexdigest()
    return hmac.compare_digest(wanted.encode(), said.encode("utf-8", "replace"))


def argument(values: list[str]) -> str:
    """The words behind a vehicle's command as its one argument; PeanutError if they make none."""
    text = " ".join(values)
    if len(text) > ARGUMENT_MAX or "|" in text or not text.isascii() or not (text.isprintable() or not text):
        raise PeanutError(
            "a vehicle's command takes one short argument",
            f"At most {ARGUMENT_MAX} printable ASCII characters, without |.",
        )
    return text
