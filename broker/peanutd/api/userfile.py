"""users.json, written: what an admin does from the app that `peanut user` does at the gateway.

The rule it keeps: agreement 1 of the README. Whoever writes holds the home's lock (.lock, flock), reads the file as it
is then, and replaces it whole, mode 0600; a password is kept as argon2id and as SCRAM keys, and not otherwise. Slow:
never in a loop.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from argon2 import PasswordHasher, Type

from peanutd import argon, scram, users
from peanutd.access import Role

LOCK: Final = ".lock"
LOCK_WAIT: Final = 5.0
"""Seconds that `peanut` may hold the lock before nobody waits any more."""
SHORTEST: Final = 10
"""Characters of a new password."""
_SALT: Final = 16


class UserFileError(Exception):
    """Why it was not written, in words for whoever asked."""


class BadPasswordError(UserFileError):
    """The password will not do."""


class LastAdminError(UserFileError):
    """There would be no admin any more, and nobody who could make one from the app."""


def entries(home: Path) -> dict[str, dict[str, Any]]:
    """Name, role and time of creation of all users, by name. UserFileError when the file is not to be read."""
    return {
        name: {"name": name, "role": entry["role"], "created": entry.get("created", 0)}
        for name, entry in sorted(_read(home)["users"].items())
    }


def put(home: Path, name: str, role: Role | None, password: str | None, now: float) -> bool:
    """Makes a user, or gives one another role or password; whether it is a new one. UserFileError."""
    prepared = None if password is None else prepare(name, password)
    made = {} if prepared is None else credentials(prepared)  # a second of work: before the lock is taken
    with _locked(home):
        document = _read(home)
        entry, new = document["users"].get(name), name not in document["users"]
        if new and prepared is None:
            raise BadPasswordError("a new user needs a password")
        wanted = (role or Role.VIEWER).value if entry is None else role.value if role is not None else entry["role"]
        document["users"][name] = {**(entry or {"created": int(now)}), "role": wanted, **made}
        if entry is not None and entry["role"] == Role.ADMIN.value:
            _keeps_an_admin(document)
        _write(home, document)
    return new


def remove(home: Path, name: str) -> bool:
    """Takes a user away; whether there was one. UserFileError."""
    with _locked(home):
        document = _read(home)
        entry = document["users"].pop(name, None)
        if entry is not None:
            if entry["role"] == Role.ADMIN.value:
                _keeps_an_admin(document)
            _write(home, document)
    return entry is not None


def prepare(name: str, password: str) -> str:
    """The password as it is kept, after SASLprep. BadPasswordError says why it will not do."""
    try:
        prepared = scram.prepare(password, stored=True)
    except ValueError as error:
        raise BadPasswordError(f"the password: {error}") from None
    if len(prepared) < SHORTEST:
        raise BadPasswordError(f"the password is too short: at least {SHORTEST} characters")
    if len(prepared.encode()) > scram.MAX_PASSWORD:
        raise BadPasswordError("the password is too long")
    if prepared == name * (len(prepared) // len(name)):
        raise BadPasswordError("the password is the name of the user")
    return prepared


def credentials(prepared: str) -> dict[str, Any]:
    """What is kept of a password."""
    found: dict[str, Any] = {}
    for name, mechanism in scram.MECHANISMS.items():
        salt, iterations = secrets.token_bytes(_SALT), users.USUAL_ITERATIONS[name]
        keys = scram.derive(mechanism, prepared.encode(), salt, iterations)
        binary = {"salt": salt, "stored_key": keys.stored_key, "server_key": keys.server_key}
        found[name] = {"iterations": iterations, **{key: _b64(value) for key, value in binary.items()}}
    memory, rounds, lanes = argon.USUAL_COST
    hasher = PasswordHasher(rounds, memory, lanes, hash_len=32, salt_len=_SALT, type=Type.ID)
    return {**found, "argon2id": hasher.hash(prepared)}


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _keeps_an_admin(document: dict[str, Any]) -> None:
    if all(entry["role"] != Role.ADMIN.value for entry in document["users"].values()):
        raise LastAdminError("this is the last admin; make another one first")


def _read(home: Path) -> dict[str, Any]:
    path = home / users.FILE_NAME
    try:
        raw = path.read_bytes()
        users.parse(raw)
    except FileNotFoundError:
        return {"format": users.FORMAT, "secret": _b64(secrets.token_bytes(32)), "users": {}}
    except (OSError, users.UsersError) as error:
        raise UserFileError(f"users.json cannot be used: {error}") from None
    found: dict[str, Any] = json.loads(raw)
    return found


def _write(home: Path, document: dict[str, Any]) -> None:
    document["users"] = dict(sorted(document["users"].items()))
    data = json.dumps(document, indent=1).encode() + b"\n"
    if len(data) > users.MAX_FILE_SIZE:
        raise UserFileError("there are too many users")
    fresh = home / f".{users.FILE_NAME}.{secrets.token_hex(4)}.tmp"
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, home / users.FILE_NAME)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise UserFileError(f"users.json cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    try:
        lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UserFileError(f"the fleet home cannot be locked: {error.strerror}") from None
    try:
        end = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UserFileError("`peanut` is at work in the fleet home; try again") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(lock)
