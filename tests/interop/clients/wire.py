"""The lines between a test and a foreign client's program, for the programs in Python; README.md here is the law.

The rule it keeps: a program does what the client library's manual says and tells what the library told it; it decides
nothing, repeats nothing and hides nothing. What a library does not tell is left out of the line.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from urllib.parse import quote, unquote

_lock = threading.Lock()

BINARY = ("payload", "will_payload", "correlation")
"""Fields whose value is hexadecimal."""


class Request:
    """One line from the test: a word and its fields."""

    def __init__(self, line: str) -> None:
        self.word, *pairs = line.split()
        self.fields: dict[str, list[str]] = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            self.fields.setdefault(key, []).append(value)

    def __contains__(self, key: str) -> bool:
        return key in self.fields

    def text(self, key: str, default: str = "") -> str:
        return unquote(self.fields[key][0]) if key in self else default

    def number(self, key: str, default: int = 0) -> int:
        return int(self.fields[key][0]) if key in self else default

    def binary(self, key: str) -> bytes:
        return bytes.fromhex(self.fields[key][0]) if key in self else b""

    @property
    def users(self) -> list[tuple[str, str]]:
        """User properties, in order."""
        pairs = (value.partition(":") for value in self.fields.get("user", []))
        return [(unquote(name), unquote(value)) for name, _, value in pairs]


def tell(word: str, **fields: object) -> None:
    """Writes one line to the test; None leaves a field out, lists repeat it, pairs are `name:value`."""
    parts = [word]
    for key, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                parts.append(f"{key}={_text(one)}")
    with _lock:
        print(" ".join(parts), flush=True)


def _text(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, tuple):
        return ":".join(quote(str(part), safe="/") for part in value)
    if isinstance(value, bool):
        return str(int(value))
    return quote(str(value), safe="/")


def requests() -> Iterable[Request]:
    """The test's lines, until it closes."""
    for line in sys.stdin:
        yield Request(line)
