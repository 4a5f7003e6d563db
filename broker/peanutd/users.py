"""users.json in the fleet home: the people who log in with a name and a password, and what is stored of the latter.

The rule it keeps: the file is the operator's (`peanut user …` writes it, whole, by rename); the gateway only reads it,
anew when it has changed. A file that cannot be read changes nothing: the users of before stay, and the log says why.

    {"format": 1, "secret": BASE64,
     "users": {"maria": {"role": "viewer" | "operator" | "admin", "created": UNIX_SECONDS,
                         "SCRAM-SHA-256": {"iterations": 600000, "salt": …, "stored_key": …, "server_key": …},
                         "SCRAM-SHA-512": {…},
                         "argon2id": "$argon2id$v=19$m=65536,t=3,p=1$…$…"}}}

A password that a client sends is held against argon2id; users of before that, who have none, fare with their SCRAM keys
until `peanut user passwd`. `secret` makes the salts of users who do not exist, so that nobody finds out by asking who
does.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from peanutd import argon, scram
from peanutd.access import NAME, Role
from peanutd.scram import MAX_ITERATIONS, MECHANISMS, Credential, Mechanism, decoy

FILE_NAME: Final = "users.json"
FORMAT: Final = 1
MAX_FILE_SIZE: Final = 16 << 20
"""Bytes: room for about 20,000 users."""
USUAL_ITERATIONS: Final[Mapping[str, int]] = MappingProxyType({"SCRAM-SHA-256": 600_000, "SCRAM-SHA-512": 210_000})
"""What `peanut user` takes; counts for decoys while there are no users."""
PASSWORD_MECHANISM: Final = scram.SHA_512
"""Whose stored key a password is held against where there is no argon2id: it costs a 64-bit processor the least."""
_SECRET_SIZE: Final = 32
_SALT_SIZES: Final = range(8, 65)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in; credentials by the name of the mechanism, one of each."""

    name: str
    role: Role
    credentials: Mapping[str, Credential]
    argon: argon.Hash | None = None


class UsersError(Exception):
    """Why users.json is not to be used."""


@dataclass(frozen=True, slots=True)
class Users:
    """The users at one moment."""

    by_name: Mapping[str, User]
    secret: bytes = field(repr=False)
    iterations: Mapping[str, int] = field(default_factory=lambda: USUAL_ITERATIONS)
    """Of decoys: by mechanism what most users have, so that a decoy does not stand out."""
    argon_cost: tuple[int, int, int] | None = argon.USUAL_COST
    """The same of argon2id; None where most have none."""

    def get(self, name: str) -> User | None:
        return self.by_name.get(name)

    def credential(self, name: str, mechanism: Mechanism) -> Credential:
        """That of the user, or a decoy which looks like one. No password and no proof fits a decoy."""
        user = self.by_name.get(name)
        if user is not None:
            return user.credentials[mechanism.name]
        return decoy(mechanism, name, self.secret, self.iterations[mechanism.name])

    def password_check(self, name: str) -> Callable[[bytes], bool]:
        """What says whether a password is the user's. It takes its time, no less for a user who does not exist."""
        user = self.by_name.get(name)
        stored = user.argon if user is not None else None
        if user is None and self.argon_cost is not None:
            stored = argon.decoy(name, self.secret, self.argon_cost)
        if stored is not None:
            return partial(argon.verify, stored)
        return partial(scram.verify, PASSWORD_MECHANISM, self.credential(name, PASSWORD_MECHANISM))


def parse(raw: bytes) -> Users:
    """The users in a file. UsersError says what is wrong with it."""
    try:
        document = json.loads(raw)
    except ValueError as error:  # UnicodeDecodeError and RecursionError's cousins as well
        raise UsersError(f"not JSON: {error}") from None
    except RecursionError:
        raise UsersError("not JSON that a person wrote: nested too deeply") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UsersError(f'"format" is not {FORMAT}; it was written by another version')
    secret = _binary(document, "secret", "the file")
    if len(secret) < _SECRET_SIZE:
        raise UsersError(f"secret: {len(secret)} bytes; {_SECRET_SIZE} are needed")
    entries = document.get("users")
    if not isinstance(entries, dict):
        raise UsersError('"users" is missing')
    users = {name: _user(name, entry) for name, entry in entries.items()}
    usual = dict(USUAL_ITERATIONS)
    for mechanism in MECHANISMS if users else ():
        counts = Counter(user.credentials[mechanism].iterations for user in users.values())
        usual[mechanism] = counts.most_common(1)[0][0]
    costs = Counter(user.argon.cost if user.argon is not None else None for user in users.values())
    cost = costs.most_common(1)[0][0] if costs else argon.USUAL_COST
    return Users(MappingProxyType(users), secret, MappingProxyType(usual), cost)


def _user(name: str, entry: object) -> User:
    if not NAME.fullmatch(name):
        raise UsersError(f'"{name}" is not a user name')
    if not isinstance(entry, dict):
        raise UsersError(f"{name}: not a table")
    try:
        role = Role(entry.get("role"))
    except ValueError:
        raise UsersError(f"{name}: role is none of {', '.join(role.value for role in Role)}") from None
    credentials = {word: _credential(entry.get(word), mechanism, name) for word, mechanism in MECHANISMS.items()}
    try:
        stored = argon.parse(entry["argon2id"]) if "argon2id" in entry else None
    except ValueError as error:
        raise UsersError(f"{name}: argon2id: {error}") from None
    return User(name, role, MappingProxyType(credentials), stored)


def _credential(entry: object, mechanism: Mechanism, name: str) -> Credential:
    where = f"{name}: {mechanism.name}"
    if not isinstance(entry, dict):
        raise UsersError(f"{where} is missing")
    iterations = entry.get("iterations")
    if type(iterations) is not int or not mechanism.min_iterations <= iterations <= MAX_ITERATIONS:
        raise UsersError(f"{where}: iterations must be {mechanism.min_iterations} to {MAX_ITERATIONS}")
    salt, stored, server = (_binary(entry, key, where) for key in ("salt", "stored_key", "server_key"))
    if len(salt) not in _SALT_SIZES or len(stored) != mechanism.size or len(server) != mechanism.size:
        raise UsersError(f"{where}: salt or keys have the wrong length")
    return Credential(salt, iterations, stored, server)


def _binary(table: Mapping[str, Any], key: str, where: str) -> bytes:
    try:
        return base64.b64decode(table[key], validate=True)
    except (KeyError, TypeError, ValueError):
        raise UsersError(f"{where}: {key} is missing, or not base64") from None


_Stamp = tuple[int, int, int, int]


class Store:
    """The users of a fleet home, as its file has them now. Without a file, or without a home, there are none."""

    def __init__(self, home: Path | None = None) -> None:
        """Reads nothing yet: `refresh` does."""
        self.path = (home or Path(os.devnull)) / FILE_NAME  # in os.devnull there is never one
        self._nobody = Users(MappingProxyType({}), secrets.token_bytes(_SECRET_SIZE))
        self._users = self._nobody
        self._stamp: _Stamp | None = None

    @property
    def users(self) -> Users:
        """Those that were read last."""
        return self._users

    def refresh(self) -> tuple[str, ...]:
        """Reads the file if it has changed since the last time; returns what is wrong with it, in words.

        Costs one system call when it has not. A change of a broken file is reported once.
        """
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._users, self._stamp = self._nobody, None
            return ()
        except OSError as error:
            return self._kept((0, 0, 0, 0), f"cannot be read: {error.strerror}")
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode)
        if stamp == self._stamp:
            return ()
        try:
            with self.path.open("rb") as file:
                raw = file.read(MAX_FILE_SIZE + 1)
            if len(raw) > MAX_FILE_SIZE:
                raise UsersError(f"larger than {MAX_FILE_SIZE} bytes")
            users = parse(raw)
        except OSError as error:
            return self._kept(stamp, f"cannot be read: {error.strerror}")
        except UsersError as error:
            return self._kept(stamp, str(error))
        self._users, self._stamp = users, stamp
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return (f"{self.path}: readable by others; run `chmod 600 {self.path}`",)
        return ()

    def _kept(self, stamp: _Stamp, text: str) -> tuple[str, ...]:
        if stamp == self._stamp:
            return ()
        self._stamp = stamp
        kept = "nobody can log in" if self._users is self._nobody else "the users of before stay in force"
        return (f"{self.path}: {text}; {kept}",)
