"""Shares: "unlock for the mechanic, today 14 to 16 h".

The rule it keeps: a share is a link with a secret, and a PIN that goes another way; neither is stored, only a
fingerprint of each that nobody without api.key can check. It can do nothing that the one who shares may not do himself
at that moment, and ends at its time, or at once when it is revoked.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sqlite3
from collections import Counter
from dataclasses import replace
from typing import Final

from peanutd.api.database import Database
from peanutd.api.keys import Keys
from peanutd.api.people import Share

LONGEST: Final = 31 * 86400.0
"""Seconds that a share may last."""
KEPT: Final = 90 * 86400.0
"""Seconds that a share is shown after its end."""
PER_USER: Final = 100
"""Shares of one user that are not over."""
PIN_DIGITS: Final = 6
PIN_GUESSES: Final = 10
"""Wrong PINs after which a share is over: a million PINs must not be tried in a month."""


class Shares:
    """All of them, in memory and in the database."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys
        query = f"SELECT {_COLUMNS}, secret, pin FROM share ORDER BY id"
        rows = database.now(lambda at: at.execute(query).fetchall())
        self._by_id = {row[0]: Share(row[0], row[1], tuple(json.loads(row[2])), *row[3:9]) for row in rows}
        self._secrets = {row[9]: row[0] for row in rows}
        self._pins = {row[0]: row[10] for row in rows}
        self._wrong: Counter[int] = Counter()

    def get(self, id: str, now: float) -> Share | None:
        """A share that counts now, by its number in words."""
        share = self._by_id.get(int(id)) if id.isascii() and id.isdigit() and len(id) < 10 else None
        return share if share is not None and share.open(now) else None

    def find(self, id: int) -> Share | None:
        """A share, whether it counts or not."""
        return self._by_id.get(id)

    def by_secret(self, secret: str) -> Share | None:
        """The share whose link has this secret, whether it counts or not."""
        id = self._secrets.get(self._keys.mac("share", secret))
        return None if id is None else self._by_id[id]

    async def fits(self, share: Share, pin: str, now: float) -> bool:
        """Whether it is the share's PIN. Too many wrong ones, and the share is over."""
        right = hmac.compare_digest(self._pins[share.id], self._keys.mac("pin", f"{share.id}.{pin}"))
        self._wrong[share.id] = 0 if right else self._wrong[share.id] + 1
        if self._wrong[share.id] >= PIN_GUESSES:
            await self.revoke(share, now)
        return right

    def of(self, user: str | None, now: float) -> list[Share]:
        """Those of a user, or everybody's, the newest first; without those that ended long ago."""
        return [
            share for share in reversed(self._by_id.values()) if user in (None, share.by) and now < share.ends + KEPT
        ]

    async def add(
        self, device: str, commands: tuple[str, ...], starts: float, ends: float, note: str, by: str, now: float
    ) -> tuple[Share, str, str]:
        """A new share, its secret and its PIN, which are never to be had again."""
        secret, pin = secrets.token_urlsafe(24), f"{secrets.randbelow(10**PIN_DIGITS):0{PIN_DIGITS}}"
        share = Share(0, device, commands, starts, ends, note, by, now, None)
        row = (device, json.dumps(commands), starts, ends, note, by, now, None)

        def work(at: sqlite3.Connection) -> int:
            names = _COLUMNS.removeprefix("id, ")
            print_ = self._keys.mac("share", secret)
            done = at.execute(
                f"INSERT INTO share ({names}, secret, pin) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '')", (*row, print_)
            )
            id = done.lastrowid or 0
            at.execute("UPDATE share SET pin = ? WHERE id = ?", (self._keys.mac("pin", f"{id}.{pin}"), id))
            return id

        share = replace(share, id=await self._database.run(work))
        self._by_id[share.id] = share
        self._secrets[self._keys.mac("share", secret)] = share.id
        self._pins[share.id] = self._keys.mac("pin", f"{share.id}.{pin}")
        return share, secret, pin

    async def revoke(self, share: Share, now: float) -> None:
        """It is over, at once."""
        self._by_id[share.id] = replace(share, revoked=now)
        await self._database.run(lambda at: at.execute("UPDATE share SET revoked = ? WHERE id = ?", (now, share.id)))


_COLUMNS: Final = "id, device, commands, starts, ends, note, by, created, revoked"
