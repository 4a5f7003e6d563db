"""Scopes: the groups that a user is held to, where somebody has narrowed him.

The rule it keeps: without a line here a user has no scope, and only the rules count; with one, what is in none of its
groups is not there for him, and an empty list is nothing at all.
"""

from __future__ import annotations

import json
from typing import Final

from peanutd.api.database import Database

GROUPS_MAX: Final = 100
"""Groups of one user's scope."""


class Scopes:
    """All of them, in memory and in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.now(lambda at: at.execute("SELECT user, groups FROM scope").fetchall())
        self._by_user = {user: frozenset(json.loads(groups)) for user, groups in rows}

    def of(self, user: str) -> frozenset[str] | None:
        """The groups, None without a scope."""
        return self._by_user.get(user)

    async def set(self, user: str, groups: frozenset[str] | None) -> None:
        """Gives a user another scope, or none."""
        if groups is None:
            self._by_user.pop(user, None)
            await self._database.run(lambda at: at.execute("DELETE FROM scope WHERE user = ?", (user,)))
        else:
            self._by_user[user] = groups
            row = (user, json.dumps(sorted(groups)))
            await self._database.run(lambda at: at.execute("INSERT OR REPLACE INTO scope VALUES (?, ?)", row))
