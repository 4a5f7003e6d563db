"""Passkeys (WebAuthn, W3C Level 2): a finger or a look in place of the password, as a second proof.

The rule it keeps: the key never leaves the phone; kept are its public half, for which host it was made, and its
counter. A challenge is for one user and one thing, for two minutes, and once; whoever holds the phone must have shown
the phone that it is he (user verification). What the browser says of where it was is held against where the request
came to.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from peanutd.api.database import Database

CHALLENGE: Final = 120.0
"""Seconds."""
WAITING: Final = 1000
"""Challenges that wait for an answer; the oldest gives way."""
PER_USER: Final = 10
NAME_MAX: Final = 60
"""Characters of the name of a passkey."""


class BadPasskeyError(Exception):
    """The answer to a challenge does not prove anything, in words for the log."""


@dataclass(frozen=True, slots=True)
class Passkey:
    """One of a user's. `host` is where it was made for, `key` its public key (COSE), `counter` of its last use."""

    id: str
    user: str
    name: str
    key: bytes
    counter: int
    created: float
    host: str

    def public(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "created": self.created}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request came to: `https://HOST:PORT`, as the browser sees it."""

    host: str
    origin: str


def place(header: str) -> Place:
    """Out of the Host header."""
    name = header.lower()
    host = name.rpartition(":")[0] if ":" in name.rpartition("]")[2] else name
    return Place(host, f"https://{name.removesuffix(':443')}")


class Passkeys:
    """All of them, in memory and in the database; and the challenges that wait. Time is an argument: Unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.now(lambda at: at.execute(f"SELECT {_COLUMNS} FROM passkey").fetchall())
        self._by_id = {row[0]: Passkey(*row) for row in rows}
        self._waiting: dict[tuple[str, str], tuple[bytes, float]] = {}

    def of(self, user: str) -> list[Passkey]:
        """Those of a user."""
        return [key for key in self._by_id.values() if key.user == user]

    def _challenge(self, user: str, what: str, now: float) -> bytes:
        for key in [key for key, (_, ends) in self._waiting.items() if ends <= now]:
            del self._waiting[key]
        if len(self._waiting) >= WAITING:
            del self._waiting[next(iter(self._waiting))]
        challenge = secrets.token_bytes(32)
        self._waiting[user, what] = (challenge, now + CHALLENGE)
        return challenge

    def _answered(self, user: str, what: str, now: float) -> bytes:
        challenge, ends = self._waiting.pop((user, what), (b"", 0.0))
        if not 0 < ends - now <= CHALLENGE + 1:
            raise BadPasskeyError("no challenge waits for this")
        return challenge

    async def creation(self, user: str, where: Place, now: float) -> dict[str, Any]:
        """What `navigator.credentials.create` wants."""
        challenge = self._challenge(user, "create", now)
        known = [key.id for key in self.of(user)]

        def work() -> str:
            from webauthn import base64url_to_bytes, generate_registration_options, options_to_json
            from webauthn.helpers.structs import (
                AuthenticatorSelectionCriteria,
                PublicKeyCredentialDescriptor,
                UserVerificationRequirement,
            )

            made = generate_registration_options(
                rp_id=where.host,
                rp_name="Peanut",
                user_name=user,
                user_id=user.encode(),
                challenge=challenge,
                authenticator_selection=AuthenticatorSelectionCriteria(
                    user_verification=UserVerificationRequirement.REQUIRED
                ),
                exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(one)) for one in known],
            )
            return options_to_json(made)

        found: dict[str, Any] = json.loads(await asyncio.to_thread(work))
        return found

    async def add(self, user: str, name: str, credential: Mapping[str, Any], where: Place, now: float) -> Passkey:
        """Keeps a new one. BadPasskeyError."""
        challenge = self._answered(user, "create", now)

        def work() -> tuple[str, bytes, int]:
            from webauthn import verify_registration_response
            from webauthn.helpers import bytes_to_base64url

            found = verify_registration_response(
                credential=dict(credential),
                expected_challenge=challenge,
                expected_rp_id=where.host,
                expected_origin=where.origin,
                require_user_verification=True,
            )
            return bytes_to_base64url(found.credential_id), found.credential_public_key, found.sign_count

        id, key, counter = await _verified(work)
        if id in self._by_id:
            raise BadPasskeyError("this passkey is known already")
        passkey = Passkey(id, user, name, key, counter, now, where.host)
        await self._write(passkey)
        return passkey

    async def request(self, user: str, what: str, where: Place, now: float) -> dict[str, Any]:
        """What `navigator.credentials.get` wants, for the user's proof that he wants `what`."""
        challenge = self._challenge(user, what, now)
        known = [key.id for key in self.of(user) if key.host == where.host]

        def work() -> str:
            from webauthn import base64url_to_bytes, generate_authentication_options, options_to_json
            from webauthn.helpers.structs import PublicKeyCredentialDescriptor, UserVerificationRequirement

            made = generate_authentication_options(
                rp_id=where.host,
                challenge=challenge,
                allow_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(one)) for one in known],
                user_verification=UserVerificationRequirement.REQUIRED,
            )
            return options_to_json(made)

        found: dict[str, Any] = json.loads(await asyncio.to_thread(work))
        return found

    async def prove(self, user: str, what: str, credential: Mapping[str, Any], where: Place, now: float) -> Passkey:
        """The passkey with which the user has answered. BadPasskeyError."""
        challenge = self._answered(user, what, now)
        found = self._by_id.get(str(credential.get("id")))
        if found is None or found.user != user or found.host != where.host:
            raise BadPasskeyError("this passkey is not known here")
        passkey = found

        def work() -> int:
            from webauthn import verify_authentication_response

            return verify_authentication_response(
                credential=dict(credential),
                expected_challenge=challenge,
                expected_rp_id=passkey.host,
                expected_origin=where.origin,
                credential_public_key=passkey.key,
                credential_current_sign_count=passkey.counter,
                require_user_verification=True,
            ).new_sign_count

        passkey = replace(passkey, counter=await _verified(work))
        await self._write(passkey)
        return passkey

    async def remove(self, ids: list[str]) -> None:
        """They prove nothing any more."""
        for id in ids:
            self._by_id.pop(id, None)
        rows = [(id,) for id in ids]
        if rows:
            await self._database.run(lambda at: at.executemany("DELETE FROM passkey WHERE id = ?", rows))

    async def _write(self, passkey: Passkey) -> None:
        row = tuple(getattr(passkey, column) for column in Passkey.__slots__)
        self._by_id[passkey.id] = passkey
        await self._database.run(
            lambda at: at.execute(f"INSERT OR REPLACE INTO passkey ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        )


_COLUMNS: Final = "id, user, name, key, counter, created, host"


async def _verified(work: Any) -> Any:
    """Does it in a thread: the package takes half a second to load. What it has against an answer is of many kinds."""
    try:
        return await asyncio.to_thread(work)
    except Exception as error:
        raise BadPasskeyError(f"{type(error).__name__}: {error}") from None
