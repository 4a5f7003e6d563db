"""Who has a scope is known from the API's own database; what cannot be read confines everybody."""

from __future__ import annotations

import asyncio
from pathlib import Path

from peanutd import confined
from peanutd.api import database
from peanutd.api.scopes import Scopes


def test_who_has_a_scope_is_confined(tmp_path: Path) -> None:
    assert confined.FILE_NAME == database.FILE_NAME
    assert confined.confined(tmp_path, {"tom"}) == frozenset()
    kept = database.Database(tmp_path)
    scopes = Scopes(kept)
    asyncio.run(scopes.set("tom", frozenset({"north"})))
    assert confined.confined(tmp_path, ["tom", "maria"]) == {"tom"}
    asyncio.run(scopes.set("tom", None))
    assert confined.confined(tmp_path, ["tom", "maria"]) == frozenset()
    asyncio.run(scopes.set("tom", frozenset()))
    kept.close()
    assert confined.confined(tmp_path, ["tom", "maria"]) == {"tom"}, "whether or not the API is served"


def test_what_cannot_be_read_confines_everybody(tmp_path: Path) -> None:
    (tmp_path / confined.FILE_NAME).write_bytes(b"no database" * 100)
    assert confined.confined(tmp_path, {"tom"}) == {"tom"}
    assert confined.confined(tmp_path, ()) == frozenset()
