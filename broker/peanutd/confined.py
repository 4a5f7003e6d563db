"""Who is confined to some groups: the users to whom an admin has given a scope in the app.

The rule it keeps: the rules of MQTT know no scopes, so who has one does not come in over MQTT. It is read where the API
keeps it, whether or not the API is served; as long as that cannot be read, anybody may have one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

FILE_NAME: Final = "api.db"
"""The API's database."""
BUSY: Final = 1.0
"""Seconds that somebody else may hold it."""


def confined(home: Path, users: Iterable[str]) -> frozenset[str]:
    """Those of the users who have a scope; all of them if that cannot be known."""
    path = home / FILE_NAME
    asked = frozenset(users)
    if not asked or not path.exists():
        return frozenset()
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY)) as database:
            return asked.intersection(name for (name,) in database.execute("SELECT user FROM scope"))
    except sqlite3.Error:
        return asked
