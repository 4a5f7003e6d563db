"""Who is let in no more although the certificate is good: revoked.json in the fleet home, which `peanut` writes.

The rule it keeps: an identity that is revoked is kept out with every certificate but those that were issued to it
since, by their serial numbers. A file that is wrong never opens a door: what was read before stays, and without
anything read before there is no start. Whoever holds connections asks `why` for each that comes, and for all of them
when `refresh` says that something has changed; that is all there is to it, whatever the sockets are driven by.

    {"format":1,"revoked":{"peanut:plant/peanut":{"since":1795000000,"why":"stolen","good":["3fa9…"]}}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from peanutd.access import Credential, IdentityError, parse_uri

FILE_NAME: Final = "revoked.json"
LATEST: Final = 253402300799
"""Unix seconds of the last time that X.509 can write: the end of the year 9999 (RFC 5280 §4.1.2.5)."""
MAX_SIZE: Final = 8 * 1024 * 1024
"""Bytes of the file: room for tens of thousands of entries."""

_Stamp = tuple[int, int, int, int]


class RevokedError(Exception):
    """Why the file cannot be used, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One identity that is revoked. since: Unix seconds."""

    since: int
    why: str
    good: frozenset[str]
    """Serial numbers (hexadecimal, lower case) of certificates that were issued afterwards: these come in."""


Entries = Mapping[str, Entry]
"""By identity as it is written everywhere: `plant/peanut`."""


def parse(raw: bytes, path: str) -> Entries:
    """What the file says. RevokedError when it is anything else than what `peanut` writes."""
    try:
        document = json.loads(raw)
        if document["format"] != 1:
            raise ValueError(f"format {document['format']}: written by a newer `peanut`")
        return {str(parse_uri(uri)): _entry(value) for uri, value in document["revoked"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IdentityError) as error:
        what = f"{type(error).__name__}: {error}"
        raise RevokedError(f"{path}: not a list of revocations ({what}); put it back from a backup") from None


def _entry(value: Mapping[str, object]) -> Entry:
    since, why, good = value["since"], value["why"], value["good"]
    if type(since) is not int or not isinstance(why, str) or not isinstance(good, list):
        raise ValueError("since, why and good must be a number, a text and a list")
    if not 0 <= since <= LATEST:
        raise ValueError(f"since is a time in Unix seconds, not {since}")
    return Entry(since, why, frozenset(map(str, good)))


class Revoked:
    """The list in force. `tell` may be set: it takes level and text for the log."""

    def __init__(self, home: Path | None = None) -> None:
        """Reads it; without a home, and without a file, nobody is revoked. RevokedError when it cannot be used."""
        self._path = home / FILE_NAME if home is not None else None
        self.tell: Callable[[str, str], None] = lambda *_: None
        self._stamp: _Stamp | None = None
        self.entries: Entries = {}
        if self._path is not None and (stamp := _stamp(self._path)) is not None:
            self.entries, self._stamp = _read(self._path), stamp

    def refresh(self) -> bool:
        """Reads the file if it is another one than before. Whether the list has changed. Cheap: one stat(2)."""
        if self._path is None:
            return False
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            if stamp is None:
                raise RevokedError(f"{self._path}: gone")
            found = _read(self._path)
        except RevokedError as error:
            self.tell("error", f"{error}; what was revoked stays revoked while this gateway runs")
            return False
        changed, self.entries = found != self.entries, found
        if changed:
            self.tell("info", f"{FILE_NAME}: {len(found)} identities are revoked")
        return changed

    def why(self, credential: Credential) -> str | None:
        """Why the bearer of a certificate is kept out, in words, or None."""
        entry = self.entries.get(str(credential.identity)) if self.entries else None
        if entry is None or (credential.psk is None and credential.serial in entry.good):
            return None
        since = f"{datetime.fromtimestamp(entry.since, UTC):%Y-%m-%d %H:%M} UTC"
        return (
            f"{credential.proof} of {credential.identity.kind.word} {credential.identity.name} revoked since {since}"
            + (f": {entry.why}" if entry.why else "")
        )


def _stamp(path: Path) -> _Stamp | None:
    """What tells one state of the file from another; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RevokedError(f"{path}: cannot be looked at: {error.strerror}") from None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def _read(path: Path) -> Entries:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            raw = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise RevokedError(f"{path}: cannot be read: {error.strerror}; run as the owner of the fleet home") from None
    if len(raw) > MAX_SIZE:
        raise RevokedError(f"{path}: larger than {MAX_SIZE} bytes; put it back from a backup")
    return parse(raw, str(path))
