"""Files in TOML that people write: read with bounds, taken apart, and what is wrong with them said with file and line.

The rule it keeps: a file is a regular one of a bounded size in UTF-8, or it is not read. That there is none is no
error, that a link leads nowhere is one.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from peanutd.toml_lines import lines_of_keys

MAX_DEPTH: Final = 16
"""Parts of a key with dots in it. What tomllib does grows with the square of them; three are needed."""

_DEEP: Final = re.compile(
    r"(?<![A-Za-z0-9_-])(?:(?:\"[^\"\n]*+\"|'[^'\n]*+'|[A-Za-z0-9_-]++)[ \t]*+\.[ \t]*+){" + str(MAX_DEPTH) + "}"
)
"""A key of too many parts, or a text that looks like one, which no setting has. Linear in time."""


class ConfigError(Exception):
    """What is wrong with a file, a line for each mistake, ready to be shown."""


def read(path: Path, most: int, *, private: bool = False) -> str | None:
    """The text of the file, of at most `most` bytes; None when there is none. ConfigError when it cannot be used.

    private: nor when others than its owner may read or write it.
    """
    try:
        # Not blocking: a pipe is opened at once, and refused.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{path}: cannot be read: it is not a regular file")
            if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"{path}: not private: others may read or write it; run `chmod 600 {path}`")
            raw = file.read(most + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path}: cannot be read: the link leads nowhere") from None
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > most:
        raise ConfigError(f"{path}: larger than {most} bytes; this is not a settings file")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None


def parse(text: str, path: str) -> tuple[dict[str, Any], Mapping[tuple[str, ...], int]]:
    """The document in `text`, and the lines of its keys (see toml_lines). `path` is for the messages of ConfigError."""
    if deep := _DEEP.search(text):
        line = text.count("\n", 0, deep.start()) + 1
        raise ConfigError(
            f"{path}:{line}: a key of more than {MAX_DEPTH} parts; no key of this file has more than three"
        )
    try:
        return tomllib.loads(text), lines_of_keys(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_error(str(error), path, text)) from None
    except RecursionError:
        raise ConfigError(f"{path}: lists or tables are nested too deeply; no key of this file needs that") from None


def kind_of(value: object) -> str:
    """What a TOML value is, in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f'the string "{value}"'
    return "a list" if isinstance(value, list) else "a table" if isinstance(value, dict) else "a date or time"


def _syntax_error(message: str, path: str, text: str) -> str:
    match = re.fullmatch(r"(?P<what>.*) \(at (line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", message)
    if match is None:
        return f"{path}: {message}"
    if match["line"] is None:
        return f"{path}:{len(text.splitlines()) or 1}: {match['what']}, and there the file ends"
    return f"{path}:{match['line']}:{match['column']}: {match['what']}"
