"""What the gateway has seen of each identity: asked of it, or read from seen.json where none runs.

Rule: seen.json is the gateway's; nothing here writes. That it is missing or cannot be read is no error: then nothing
was seen. What a node says of itself (chip, firmware) is its word; serial number, key and address are what the gateway
saw.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peanut import control, store
from peanut.errors import PeanutError
from peanut.home import Home

SIZE_MAX = 32 * 1024 * 1024  # bytes of seen.json


@dataclass(frozen=True)
class Sighting:
    """One identity. Times are Unix seconds, 0 if never; chips, keys and networks: what it was, the present one last."""

    first: int = 0
    last: int = 0
    address: str = ""
    serial: str = ""
    firmware: str = ""
    chips: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    expired: bool = False
    errors: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()  # that the node trusts, by their prints

    @property
    def chip(self) -> str:
        return self.chips[-1] if self.chips else ""


def read(home: Home) -> dict[str, Sighting]:
    """By identity: `plant/peanut`."""
    try:
        answer = control.ask(home, {"command": "seen"})
    except PeanutError:
        answer = None
    if answer is None and (home.path / "seen.json").exists():
        try:
            answer = json.loads(store.read(home.path / "seen.json", SIZE_MAX))
        except (ValueError, PeanutError):
            answer = None
    records = answer.get("seen") if isinstance(answer, dict) else None
    if not isinstance(records, dict):
        return {}
    return {str(who): _sighting(record) for who, record in records.items() if isinstance(record, dict)}


def _sighting(record: Mapping[str, Any]) -> Sighting:
    def number(key: str) -> int:
        value = record.get(key)
        return value if isinstance(value, int) else 0

    def texts(value: object) -> tuple[str, ...]:
        return tuple(map(str, value)) if isinstance(value, list) else ()

    reported = record.get("reported")
    return Sighting(
        first=number("first"),
        last=number("last"),
        address=str(record.get("address", "")),
        serial=str(record.get("serial", "")),
        firmware=str(record.get("fw", "")),
        chips=texts(record.get("chips")),
        keys=texts(record.get("keys")),
        networks=texts(record.get("networks")),
        expired=record.get("expired") is True,
        errors=texts(reported.get("errors")) if isinstance(reported, dict) else (),
        roots=texts(reported.get("ca")) if isinstance(reported, dict) else (),
    )
