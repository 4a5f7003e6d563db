"""On which line each key of a TOML document stands, which tomllib does not tell.

The rule it keeps: it is asked about documents that tomllib has accepted; on anything else its answers are meaningless,
but it always ends.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence


def lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """The line (from 1) of every table and key of a TOML document that tomllib has accepted (which does not tell).

    The tables of an array are numbered from 1: the keys of the second [[listener]] begin with ("listener", "2").
    """
    lines: dict[tuple[str, ...], int] = {}
    for key, line in _Scanner(text).walk():
        for depth in range(1, len(key) + 1):  # `a.b = 1` makes a table a as well
            lines.setdefault(key[:depth], line)
    return lines


def _unescaped(text: str) -> str:
    """What stands between the quotes of a basic string."""
    if "\\" not in text:
        return text
    try:
        return str(tomllib.loads(f'k = "{text}"')["k"])
    except tomllib.TOMLDecodeError:
        return text


class _Scanner:
    """Walks over valid TOML and stops at keys. On anything else its answers are meaningless, but it always ends."""

    _SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
    _BLANK = re.compile(r"[ \t]*")
    _KEY_PART = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'([^'\n]*)'|([A-Za-z0-9_-]+)")
    _STRING = re.compile(
        r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}' r"|'''(?:[^']|'(?!''))*'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
        re.DOTALL,
    )
    _BARE = re.compile(r"[^,\]}#\n]*")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = 0  # how far the lines are counted: from the beginning each time would take the square of it
        self._lines = 1

    def walk(self) -> Iterator[tuple[tuple[str, ...], int]]:
        table: tuple[str, ...] = ()
        counts: dict[tuple[str, ...], int] = {}
        self._skip(self._SPACE)
        while self._at < len(self._text):
            before = self._at
            if self._peek() == "[":
                line = self._line()
                array = self._text.startswith("[[", self._at)
                self._at += 2 if array else 1
                name = self._key()
                table = (*self._numbered(name[:-1], counts), *name[-1:])
                if array:
                    counts[table] = counts.get(table, 0) + 1
                    table = (*table, str(counts[table]))
                yield table, line
                self._skip(re.compile(r"[ \t]*\]{0,2}"))
            else:
                yield from self._pair(table)
            self._skip(self._SPACE)
            if self._at == before:
                return

    @staticmethod
    def _numbered(name: Sequence[str], counts: Mapping[tuple[str, ...], int]) -> tuple[str, ...]:
        """`name` with the number of the last table behind every array in it."""
        full: tuple[str, ...] = ()
        for part in name:
            full = (*full, part)
            if full in counts:
                full = (*full, str(counts[full]))
        return full

    def _pair(self, table: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
        line = self._line()
        key = (*table, *self._key())
        yield key, line
        self._skip(re.compile(r"[ \t]*=[ \t]*"))
        yield from self._value(key)

    def _value(self, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
        opening = self._peek()
        if opening in ("[", "{"):
            self._at += 1
            closing = "]" if opening == "[" else "}"
            self._skip(self._SPACE)
            while self._peek() not in (closing, ""):
                before = self._at
                yield from self._pair(key) if opening == "{" else self._value(key)
                self._skip(self._SPACE)
                if self._peek() == ",":
                    self._at += 1
                    self._skip(self._SPACE)
                if self._at == before:
                    return
            self._at += 1
        elif opening in ("'", '"'):
            self._skip(self._STRING)
        else:
            self._skip(self._BARE)

    def _key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            self._skip(self._BLANK)
            match = self._KEY_PART.match(self._text, self._at)
            if match is None:
                return tuple(parts)
            self._at = match.end()
            if match[1] is not None:
                parts.append(_unescaped(match[1]))
            else:
                parts.append(match[2] if match[2] is not None else match[3])
            self._skip(self._BLANK)
            if self._peek() != ".":
                return tuple(parts)
            self._at += 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _line(self) -> int:
        self._lines += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
