"""Who has been seen: for each identity that came with a certificate, when, from where, with which key and chip.

The rule it keeps: the gateway writes seen.json, and nobody else; `peanut` reads it beside its own ledger. What a node
says about itself (chip, firmware) is kept as it says it, cut to a length; what the handshake has proved (serial
number, key) is kept as proved. What an identity was before is kept as well, a few of it, so that somebody can ask why
a device is another one today.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from peanutd.access import Credential, IdentityError, parse_uri

FILE_NAME: Final = "seen.json"
MAX_SIZE: Final = 32 * 1024 * 1024
"""Bytes of the file."""
SAVE_EVERY: Final = 300.0
"""Seconds between two writings of it: `last` moves all the time, and flash wears."""
KEPT: Final = 4
"""Chips, keys and networks of an identity that are kept, the present one last."""
TEXT_MAX: Final = 64
"""Characters of what a node says about itself."""
REPORT_MAX: Final = 4096
"""Bytes of a report that is read."""
ERRORS_MAX: Final = 4
"""Errors of a report that are kept."""

Record = dict[str, Any]


class Seen:
    """The records by identity (`plant/peanut`), as they are in the file. Times are Unix seconds; `wall` tells them."""

    def __init__(self, home: Path | None, wall: Callable[[], float]) -> None:
        """Reads the file; `problem` says why it could not be used, if so: then it begins anew."""
        self._path = home / FILE_NAME if home is not None else None
        self._wall = wall
        self._due = wall() + SAVE_EVERY
        self._changed = False
        self.records: dict[str, Record] = {}
        self.problem: str | None = None
        if self._path is not None and self._path.exists():
            try:
                self.records = _read(self._path)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, IdentityError) as error:
                self.problem = f"{self._path}: not read, begins anew: {type(error).__name__}: {error}"

    def came(self, credential: Credential, host: str) -> None:
        """Somebody has been let in with a certificate, from an address."""
        now = int(self._wall())
        record = self.records.setdefault(str(credential.identity), {"first": now})
        record |= {"last": now, "address": host, "serial": credential.serial}
        record["not_after"] = int(credential.ends.timestamp())
        record["expired"] = credential.expired
        _add(record, "keys", credential.key)
        _add(record, "networks", _network(host))
        self._changed = True

    def left(self, credential: Credential) -> None:
        """They have gone."""
        if (record := self.records.get(str(credential.identity))) is not None:
            record["last"] = int(self._wall())
            self._changed = True

    def heard(self, identity: str, leaf: str, payload: bytes) -> None:
        """A node's report: its `status`, or `cert/reported`."""
        record = self.records.get(identity)
        if record is None or leaf not in ("status", "cert/reported") or len(payload) > REPORT_MAX:
            return
        try:
            said = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        if leaf == "status":
            if fw := _text(said.get("fw")):
                record["fw"] = fw
        else:
            if chip := _text(said.get("chip")):
                _add(record, "chips", chip)
            errors, roots = said.get("errors"), said.get("ca")
            record["reported"] = {
                "serial": _text(said.get("serial")),
                "trial": said.get("trial") is True,
                "errors": [_text(error) for error in errors[:ERRORS_MAX]] if isinstance(errors, list) else [],
                "ca": [_text(root) for root in roots[:KEPT]] if isinstance(roots, list) else [],
            }
        self._changed = True

    def sweep(self) -> bytes | None:
        """To be called now and then: the file's new contents, when it is to be written."""
        return self.contents() if self._wall() >= self._due else None

    def contents(self) -> bytes | None:
        """What the file is to hold; it counts as written. None when nothing has changed."""
        if not self._changed or self._path is None:
            return None
        self._due = self._wall() + SAVE_EVERY
        self._changed = False
        return json.dumps({"format": 1, "seen": self.records}, separators=(",", ":")).encode()

    def save(self, contents: bytes) -> str | None:
        """Writes it, whole, mode 0600; may be called from a thread. Why it could not, in words."""
        if self._path is None:
            return None
        try:
            number, name = tempfile.mkstemp(prefix=".seen.", suffix=".tmp", dir=self._path.parent)
            try:
                with open(number, "wb") as file:
                    file.write(contents)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            return f"{self._path}: cannot be written: {error.strerror}"
        return None


def _read(path: Path) -> dict[str, Record]:
    if path.stat().st_size > MAX_SIZE:
        raise ValueError(f"larger than {MAX_SIZE} bytes")
    document = json.loads(path.read_bytes())
    if document["format"] != 1:
        raise ValueError("another format")
    return {
        str(parse_uri(f"peanut:{identity}")): dict(record, first=int(record["first"]))
        for identity, record in document["seen"].items()
    }


def _add(record: Record, name: str, value: str) -> None:
    """`value` is what counts now: last in its list."""
    if (known := record.get(name)) and known[-1] == value:
        return
    found = [old for old in record.get(name, []) if old != value]
    record[name] = [*found, value][-KEPT:]


def _text(value: object) -> str:
    return "".join(c for c in value if c.isprintable())[:TEXT_MAX] if isinstance(value, str) else ""


@functools.lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """Where an address belongs: its /24, or its /48 of IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))
