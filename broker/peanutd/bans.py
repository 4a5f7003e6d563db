"""Bans: who has done too much of what it should not, and is not listened to for a while.

The rule it keeps: an offence is counted against whoever is known to have committed it, and nobody else. Who has shown
a valid certificate, or a key, answers with that and with its client id, and its address answers for nothing; an
address answers for those who have shown none. A count runs for a window; what is remembered has a limit, and a ban has
an end, a reason, and a place in a small file. Time is an argument: Unix seconds, because bans outlive the process.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from peanutd.config import BanRules

FILE_NAME: Final = "bans.json"
KINDS: Final = ("address", "client", "user", "certificate", "psk")
"""What can be banned: an address prefix, a client (its session, as in the log), a user's logins with a password, a
certificate by its serial number, a key of a device by its identity in TLS."""
BANS_MAX: Final = 4096
"""Bans at the same time; the one that would end first gives way to a new one."""
COUNTS_MAX: Final = 16384
"""Whose offences are counted at the same time; the oldest count gives way to a new one."""
KEY_MAX: Final = 256
"""Characters of a key that count; a peer is not to fill the memory with names."""
FILE_MAX: Final = 4 * 1024 * 1024
"""Bytes of a ban file; a larger one is not ours."""


@dataclass(frozen=True, slots=True)
class Ban:
    """Who is banned, why, and until when (Unix seconds)."""

    kind: str
    key: str
    reason: str
    since: int
    until: int

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Bans:
    """The list, and the counts that lead there. `changed` says that the file is out of date."""

    def __init__(self, rules: BanRules, bans: Iterable[Ban] = ()) -> None:
        self.rules = rules
        """May be set anew; counts for offences to come, and bans end as they were told."""
        self.changed = False
        self._bans: dict[tuple[str, str], Ban] = {(ban.kind, ban.key): ban for ban in bans}
        self._counts: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()  # since when, how many

    def __len__(self) -> int:
        return len(self._bans)

    def __iter__(self) -> Iterator[Ban]:
        """Those in force, or over since the last sweep; the first to end comes first."""
        return iter(sorted(self._bans.values(), key=lambda ban: ban.until))

    def prefix(self, host: str) -> str | None:
        """The address prefix of a peer; None for who is never banned: Unix sockets, and the networks of `never`."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self.rules.never):
            return None
        bits = self.rules.v4_prefix if address.version == 4 else self.rules.v6_prefix
        return str(ipaddress.ip_network((address, bits), strict=False))

    def find(self, kind: str, key: str | None, now: float) -> Ban | None:
        """The ban that is in force."""
        if key is None or not self._bans:
            return None
        ban = self._bans.get((kind, key[:KEY_MAX]))
        return ban if ban is not None and now < ban.until else None

    def offence(self, kind: str, key: str | None, limit: int, what: str, now: float) -> Ban | None:
        """Counts one; the new ban when it is one more than `limit` in the window (0: there is no such limit)."""
        if key is None or limit == 0 or self.find(kind, key, now) is not None:
            return None
        at = (kind, key[:KEY_MAX])
        since, count = self._counts.pop(at, (now, 0))
        if not 0 <= now - since < self.rules.window:
            since, count = now, 0
        if count < limit:
            self._counts[at] = (since, count + 1)
            if len(self._counts) > COUNTS_MAX:
                self._counts.popitem(last=False)
            return None
        return self.add(kind, key, f"{count + 1} {what} in {now - since:.0f} s", self.rules.duration, now)

    def add(self, kind: str, key: str, reason: str, seconds: int, now: float) -> Ban:
        """Bans, or bans anew."""
        ban = Ban(kind, key[:KEY_MAX], reason, int(now), int(now) + seconds)
        self._bans.pop((ban.kind, ban.key), None)
        if len(self._bans) >= BANS_MAX:
            first = next(iter(self))
            del self._bans[(first.kind, first.key)]
        self._bans[(ban.kind, ban.key)] = ban
        self.changed = True
        return ban

    def remove(self, kind: str, key: str) -> bool:
        """Ends a ban; False when there was none."""
        self._counts.pop((kind, key), None)
        found = self._bans.pop((kind, key[:KEY_MAX]), None) is not None
        self.changed |= found
        return found

    def sweep(self, now: float) -> list[Ban]:
        """Forgets the bans that are over, and returns them; to be called now and then."""
        over = [ban for ban in self._bans.values() if ban.until <= now]
        for ban in over:
            del self._bans[(ban.kind, ban.key)]
        self.changed |= bool(over)
        return over


def load(home: Path, now: float) -> tuple[list[Ban], str | None]:
    """The bans that are in force still, and what is wrong with the file: then it counts as empty."""
    path = home / FILE_NAME
    try:
        if path.stat().st_size > FILE_MAX:
            return [], f"{path}: larger than {FILE_MAX} bytes; nobody is banned by it"
        found = [_ban(entry) for entry in json.loads(path.read_text())["bans"]]
    except FileNotFoundError:
        return [], None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return [], f"{path}: cannot be read, nobody is banned by it: {type(error).__name__}: {error}"
    return [ban for ban in found if ban.until > now][:BANS_MAX], None


def save(home: Path, bans: list[Ban]) -> None:
    """Writes the file whole or not at all, readable to its owner only. OSError when it cannot be written."""
    text = json.dumps({"format": 1, "bans": [asdict(ban) for ban in bans]}, indent=1)
    descriptor, name = tempfile.mkstemp(prefix=f".{FILE_NAME}-", dir=home)  # 0600
    try:
        with open(descriptor, "w") as file:
            file.write(text + "\n")
        os.replace(name, home / FILE_NAME)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _ban(entry: Any) -> Ban:
    ban = Ban(entry["kind"], entry["key"], entry["reason"], entry["since"], entry["until"])
    numbers = isinstance(ban.since, int) and isinstance(ban.until, int)
    if ban.kind not in KINDS or not numbers or not isinstance(ban.key, str) or not isinstance(ban.reason, str):
        raise ValueError(f"no ban: {entry}")
    return ban
