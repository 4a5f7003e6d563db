"""The fleet as the ledger knows it: which nodes there are.

The rule it keeps: the ledger is the operator's; the gateway opens it read-only, and lives without it. A row that could
not be a node (a name with a wildcard in it, say) is left out.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from peanutd.access import NAME, VIN, Kind, root_of

FILE_NAME: Final = "ledger.db"
MAX_DEVICES: Final = 100_000
"""Rows that are read; a fleet of this size needs another design."""

_KINDS: Final = {"greenhouse": (Kind.PLANT, NAME), "vehicle": (Kind.VIN, VIN)}


class LedgerError(Exception):
    """Why the ledger cannot be read."""


@dataclass(frozen=True, slots=True)
class Device:
    """A node by kind and name."""

    kind: Kind
    name: str

    @property
    def root(self) -> str:
        """The topic that all its topics begin with."""
        return root_of(self.kind, self.name)


def devices(home: Path) -> tuple[Device, ...]:
    """The nodes in the ledger of `home`, by name. LedgerError when it is absent or unreadable."""
    found: list[Device] = []
    for name, word in _rows(home, "name, kind"):
        kind, shape = _KINDS.get(word, (None, NAME))
        if kind is not None and isinstance(name, str) and shape.fullmatch(name):
            found.append(Device(kind, name))
    return tuple(found)


def expiries(home: Path) -> dict[str, float]:
    """When the certificates of the nodes end (Unix seconds), by name. LedgerError as `devices`."""
    return {name: float(ends) for name, ends in _rows(home, "name, not_after") if isinstance(ends, int | float)}


def _rows(home: Path, columns: str) -> list[tuple[Any, ...]]:
    path = home / FILE_NAME
    if not path.is_file():
        raise LedgerError(f"{path}: not there; `peanut init` makes it")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1.0)) as ledger:
            return ledger.execute(f"SELECT {columns} FROM device ORDER BY name LIMIT ?", (MAX_DEVICES,)).fetchall()
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: cannot be read: {error}") from None
