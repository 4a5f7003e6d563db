"""Users: people who log in to the gateway with a name and a password, and users.json, which keeps them.

Rule: the file is written whole, mode 0600, with the home's lock held, and holds no password; the gateway reads it anew
by itself. The format is that of agreement 1 of the house's README.
"""

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from peanut import names, password, store
from peanut.errors import PeanutError
from peanut.home import SECRET, Home, mode_of, write_file
from peanut.plan import State, Step, there

FILE = "users.json"
FILE_MAX = 16 << 20  # bytes, as the gateway reads; room for about 20,000 users
FORMAT = 1
SECRET_SIZE = 32  # bytes of the key to the salts of users who do not exist

AskPassword = Callable[[], str]
"""Gives the password that the user is to have; called only where one is needed."""


class Role(StrEnum):
    """What a user may do: see everything; command the nodes; the same, and later run the gateway from the app."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True)
class User:
    """One user as `peanut user list` shows it. created: Unix seconds."""

    name: str
    role: str
    created: int


def users(home: Home) -> list[User]:
    """All of them by name; none if there is no file. Makes no file."""
    entries = _load(home)["users"]
    return [User(name, entry["role"], entry["created"]) for name, entry in sorted(entries.items())]


def plan_add(home: Home, name: str, role: Role | None, now: datetime, ask: AskPassword) -> list[Step]:
    """The steps that make this user (a viewer, if no role is said), or give a user who is there another role."""
    names.check_name(name, "user's name")
    entries = _load(home)["users"]
    if name not in entries:
        wanted = role or Role.VIEWER

        def add() -> None:
            _write(home, name, {"role": wanted.value, "created": int(now.timestamp()), **_credentials(name, ask())})

        return [*_mended(home), Step(State.MAKE, _what(name), f"{wanted}, with a password", add)]
    present = entries[name]["role"]
    if role is None or role == present:
        return [*_mended(home), there(_what(name), f"{present}; `peanut user passwd {name}` changes the password")]
    change = Step(
        State.CHANGE,
        _what(name),
        f"{present} becomes {role}",
        lambda: _write(home, name, {**_load(home)["users"][name], "role": role.value}),
    )
    return [*_mended(home), change]


def plan_password(home: Home, name: str, ask: AskPassword) -> list[Step]:
    """The step that gives a user another password."""
    _present(home, name)

    def change() -> None:
        _write(home, name, {**_load(home)["users"][name], **_credentials(name, ask())})

    return [*_mended(home), Step(State.CHANGE, _what(name), "another password", change)]


def plan_remove(home: Home, name: str) -> list[Step]:
    """The step that takes a user away. A user who is not there is an error: it is likelier a typing mistake."""
    _present(home, name)
    return [Step(State.CHANGE, _what(name), "removed; its connections end", lambda: _write(home, name, None))]


def _present(home: Home, name: str) -> None:
    known = _load(home)["users"]
    if name not in known:
        raise PeanutError(
            f"there is no user {names.printable(name)!r}",
            f"There are: {', '.join(sorted(known))}." if known else "`peanut user add NAME` makes one.",
        )


def _what(name: str) -> str:
    return f"{FILE}: {name}"


def _mended(home: Home) -> list[Step]:
    path = home.users
    if not path.exists() or not mode_of(path) & ~SECRET:
        return []
    note = f"mode {mode_of(path):04o} becomes {SECRET:04o}: others could read a secret"
    return [Step(State.CHANGE, FILE, note, lambda: path.chmod(SECRET))]


def _credentials(name: str, given: str) -> dict[str, Any]:
    prepared = password.prepare(given)
    if prepared == name * (len(prepared) // len(name)):
        raise PeanutError("the password is the name of the user", "Use one that nobody guesses.")
    keys = {mechanism.name: password.credential(mechanism, prepared) for mechanism in password.MECHANISMS}
    return {**keys, "argon2id": password.argon2id(prepared)}


def _load(home: Home) -> dict[str, Any]:
    """The document, checked as far as this file leans on it; an empty one if there is none."""
    if not home.users.exists():
        key = base64.b64encode(secrets.token_bytes(SECRET_SIZE)).decode()
        return {"format": FORMAT, "secret": key, "users": {}}
    try:
        document = json.loads(store.read(home.users, FILE_MAX))
    except ValueError:
        document = None
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise PeanutError(f"{home.users} was written by a newer `peanut`", "Install that version here as well.")
    if not _sound(document):
        raise PeanutError(
            f"{home.users} is damaged", "Put it back from a backup, or move it away and add the users anew."
        )
    assert isinstance(document, dict)
    return document


def _sound(document: object) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("secret"), str):
        return False
    entries = document.get("users")
    return isinstance(entries, dict) and all(
        names.is_name(name)
        and isinstance(entry, dict)
        and entry.get("role") in tuple(Role)
        and isinstance(entry.get("created"), int)
        for name, entry in entries.items()
    )


def _write(home: Home, name: str, entry: dict[str, Any] | None) -> None:
    """Puts one entry into the file as it is now, or takes it out."""
    document = _load(home)
    document["users"].pop(name, None)
    if entry is not None:
        document["users"][name] = entry
    document["users"] = dict(sorted(document["users"].items()))
    data = json.dumps(document, indent=1).encode() + b"\n"
    if len(data) > FILE_MAX:
        raise PeanutError(f"{home.users} would be larger than {FILE_MAX} bytes", "Remove users who are gone.")
    write_file(home.users, data, SECRET)
