"""The audit log: who did what, when, from where, and what came of it.

The rule it keeps: it only grows. Each entry has the SHA-256 of itself and of the hash before it, so that one that is
changed, taken out or put in shows (`broken`); the database refuses both to change and to delete. The hash of the last
entry is written to the gateway's log now and then, where whoever rewrites the whole chain does not reach.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from peanutd.api.database import Database
from peanutd.api.problem import Problem
from peanutd.api.quota import Rate

FIRST: Final = "0" * 64
"""What stands for the hash before the first entry."""
TOLD_EVERY: Final = 1000
"""Entries after which the last hash is written to the log."""
PAGE: Final = 5000
"""Entries that are looked through at once."""
TEXT_MAX: Final = 300
"""Characters of what others say (user agents, reasons) that are kept."""
REFUSALS: Final = 1000
"""Refused sign-ins that are written one by one, as many as may come at once."""
REFUSALS_PER_SECOND: Final = 0.1
"""What more of them are written in the long run: some 3 MB a day."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who acts, and from where: `user/maria`, `share/7`, `-` for nobody known."""

    who: str
    address: str
    agent: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log."""

    seq: int
    ts: float
    who: str
    address: str
    agent: str
    action: str
    target: str
    detail: Mapping[str, Any]
    outcome: str
    why: str | None
    hash: str

    def public(self) -> dict[str, Any]:
        return asdict(self)


class Audit:
    """Writes and reads it. `clock` is the wall clock; `tell` takes lines for the gateway's log."""

    def __init__(self, database: Database, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        self._database = database
        self._clock = clock
        self._tell = tell
        seq, head = database.now(_head)
        if seq:
            tell(f"audit log: {seq} entries, the last one has the hash {head}")

    async def add(
        self,
        origin: Origin,
        action: str,
        target: str = "",
        outcome: str = "ok",
        why: str | None = None,
        **detail: Any,
    ) -> int:
        """Writes an entry; when this returns it is on the disk. Returns its number."""
        text = json.dumps(detail, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        why = why if why is None else why[:TEXT_MAX]
        values = (round(self._clock(), 3), origin.who, origin.address, origin.agent[:TEXT_MAX], action, target, text)

        def work(at: sqlite3.Connection) -> tuple[int, str]:
            seq, before = _head(at)
            row = (seq + 1, *values, outcome, why)
            digest = _hash(before, row)
            at.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, digest))
            return seq + 1, digest

        seq, digest = await self._database.run(work)
        if seq % TOLD_EVERY == 0:
            self._tell(f"audit log: {seq} entries, the last one has the hash {digest}")
        return seq

    async def read(
        self, *, who: str | None = None, target: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[Entry]:
        """The newest first, those before number `before`."""
        wanted = {"who": who, "target": target}
        terms = [f"{key} = :{key}" for key, value in wanted.items() if value is not None]
        terms += ["seq < :before"] if before is not None else []
        where = f"WHERE {' AND '.join(terms)}" if terms else ""
        values = {**wanted, "before": before, "limit": limit}
        query = f"SELECT * FROM audit {where} ORDER BY seq DESC LIMIT :limit"
        rows = await self._database.run(lambda at: at.execute(query, values).fetchall())
        return [Entry(*(*row[:7], json.loads(row[7]), *row[8:])) for row in rows]

    async def broken(self) -> tuple[int, str, int | None]:
        """Entries, the last hash, and the number of the first entry that is not as it was written (None: all are)."""
        seq, before = 0, FIRST
        while True:
            start = seq
            rows = await self._database.run(
                lambda at, start=start: at.execute(  # type: ignore[misc]
                    "SELECT * FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (start, PAGE)
                ).fetchall()
            )
            for row in rows:
                if row[0] != seq + 1 or _hash(before, row[:-1]) != row[-1]:
                    return seq, before, seq + 1
                seq, before = row[0], row[-1]
            if len(rows) < PAGE:
                return seq, before, None


class Refusals:
    """Refused sign-ins, which are strangers': written as long as nobody fills the disk by guessing.

    The rest is counted, and the next entry says how many there were (`unwritten`). Whether there is such a user makes
    no difference, or the time of an answer would tell. `clock` is monotonic, in seconds.
    """

    def __init__(self, audit: Audit, clock: Callable[[], float], most: int = REFUSALS) -> None:
        self._audit = audit
        self._clock = clock
        self._rate = Rate(REFUSALS_PER_SECOND, most)
        self._unwritten = 0

    async def add(self, origin: Origin, name: str, why: str) -> None:
        """One more."""
        try:
            self._rate.spend("all", self._clock())
        except Problem:
            self._unwritten += 1
            return
        unwritten, self._unwritten = self._unwritten, 0
        detail = {"unwritten": unwritten} if unwritten else {}
        await self._audit.add(origin, "sign-in", name, "refused", why, **detail)


def _head(at: sqlite3.Connection) -> tuple[int, str]:
    found = at.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return (found[0], found[1]) if found else (0, FIRST)


def _hash(before: str, row: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps([before, *row], ensure_ascii=True).encode()).hexdigest()
