"""Sign-ins: each is a family of refresh tokens, of which only the latest counts.

The rule it keeps: a refresh token works once. One that comes again has been copied, by whom nobody knows, so the whole
family ends, and with it every access token of that sign-in, at once. Only the one before the latest is taken again for
a moment, and gets the latest one, as before: a phone may have lost the answer. Nothing that logs anybody in is stored.
A sign-in ends as well when its user is gone or has another password.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from peanutd.api.database import Database
from peanutd.api.keys import Keys
from peanutd.users import User

ACCESS_LIFETIME: Final = 900.0
"""Seconds that an access token is good for."""
IDLE: Final = 30 * 86400.0
"""Seconds after which a sign-in that was not used is over."""
LONGEST: Final = 90 * 86400.0
"""Seconds after which every sign-in is over."""
GRACE: Final = 30.0
"""Seconds for which a refresh token that was just used gets the same answer again."""
PER_USER: Final = 20
"""Sign-ins of one user at a time; one more ends the one that was not used for longest."""
AGENT_MAX: Final = 200
"""Characters of a User-Agent that are kept."""


@dataclass(frozen=True, slots=True)
class Family:
    """One sign-in. Times are Unix seconds; `proof` says which password it was."""

    id: str
    user: str
    proof: str
    created: float
    used: float
    ends: float
    counter: int
    address: str
    agent: str


class StolenError(Exception):
    """A refresh token has come a second time; its family is over. `family` says whose."""

    def __init__(self, family: Family) -> None:
        super().__init__("used before")
        self.family = family


class Sessions:
    """All of them, in memory and in the database. Not thread-safe."""

    def __init__(
        self, database: Database, keys: Keys, ended: Callable[[Sequence[str]], None] = lambda ids: None
    ) -> None:
        """ended: hears which sign-ins somebody has ended; not of those that were merely not used for too long."""
        self._database = database
        self._keys = keys
        self._ended = ended
        rows = database.now(lambda at: at.execute(f"SELECT {_COLUMNS} FROM family").fetchall())
        self._families = {row[0]: Family(*row) for row in rows}

    def proof(self, user: User) -> str:
        """What changes with the user's password."""
        stored = user.argon.text if user.argon is not None else ""
        keys = "".join(f"{name}{key.stored_key.hex()}" for name, key in sorted(user.credentials.items()))
        return self._keys.mac("proof", f"{user.name}\0{stored}\0{keys}")

    async def open(self, user: User, address: str, agent: str, now: float) -> Family:
        """A new sign-in."""
        family = Family(
            secrets.token_urlsafe(16),
            user.name,
            self.proof(user),
            now,
            now,
            now + LONGEST,
            0,
            address,
            agent[:AGENT_MAX],
        )
        own = sorted(self.of(user.name, now), key=lambda one: one.used)
        ended = [one.id for one in own[: max(0, len(own) - PER_USER + 1)]]
        await self._write(family, ended)
        return family

    async def refresh(self, token: str, address: str, now: float) -> Family | None:
        """The sign-in whose refresh token this is, one step on; None if it is none.

        A token that was used less than GRACE ago, the last one, changes nothing. StolenError: it was used before.
        """
        judged = self._keys.judge_refresh(token)
        family = self._families.get(judged[0]) if judged is not None else None
        if judged is None or family is None:
            return None
        if judged[1] == family.counter - 1 and 0 <= now - family.used < GRACE and not _over(family, now):
            return family
        if judged[1] != family.counter:
            await self.end([family.id])
            raise StolenError(family)
        if _over(family, now):
            await self._forget([family.id])
            return None
        family = replace(family, counter=family.counter + 1, used=now, address=address)
        # In memory at once: of two that come with the same token at the same time, the second changes nothing.
        self._families[family.id] = family
        await self._write(family, [])
        return family

    def token(self, family: Family) -> str:
        """The refresh token that counts now."""
        return self._keys.refresh(family.id, family.counter)

    def get(self, id: str, now: float) -> Family | None:
        """A sign-in that is not over."""
        family = self._families.get(id)
        return None if family is None or _over(family, now) else family

    def of(self, user: str, now: float) -> list[Family]:
        """Those of a user."""
        return [family for family in self._families.values() if family.user == user and not _over(family, now)]

    async def prove(self, id: str, user: User) -> None:
        """The sign-in goes on although the user has another password: it was he who has changed it."""
        family = self._families.get(id)
        if family is not None:
            await self._write(replace(family, proof=self.proof(user)), [])

    async def end(self, ids: list[str]) -> None:
        """They are over, at once, because somebody wants it."""
        self._ended(ids)
        await self._forget(ids)

    async def _forget(self, ids: list[str]) -> None:
        found = [(id,) for id in ids if self._families.pop(id, None) is not None]
        if found:
            await self._database.run(lambda at: at.executemany("DELETE FROM family WHERE id = ?", found))

    async def sweep(self, now: float) -> None:
        """Forgets those that are over; to be called now and then."""
        await self._forget([family.id for family in self._families.values() if _over(family, now)])

    async def _write(self, family: Family, ended: list[str]) -> None:
        for id in ended:
            self._families.pop(id, None)
        self._families[family.id] = family
        row = tuple(getattr(family, column) for column in Family.__slots__)

        def work(at: sqlite3.Connection) -> None:
            at.execute(f"INSERT OR REPLACE INTO family ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            at.executemany("DELETE FROM family WHERE id = ?", [(id,) for id in ended])

        await self._database.run(work)


_COLUMNS: Final = "id, user, proof, created, used, ends, counter, address, agent"


def _over(family: Family, now: float) -> bool:
    return now >= min(family.ends, family.used + IDLE)
