"""What the gateway says about itself on $SYS: counters, averages, and who comes and goes.

The rule it keeps: numbers in, topics and payloads out; the names are those that mosquitto's users know (mosquitto(8),
"Broker Status"), and a number that is not known has no topic. Counters are retained; comings and goings are not.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote

ROOT: Final = "$SYS/broker"

_COUNTERS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("messages/received", ("packets_in",)),
    ("messages/sent", ("packets_out",)),
    ("bytes/received", ("bytes_in",)),
    ("bytes/sent", ("bytes_out",)),
    ("publish/messages/received", ("publishes_in",)),
    ("publish/messages/sent", ("publishes_out",)),
    ("publish/messages/dropped", ("dropped_*",)),
    ("publish/bytes/received", ("publish_bytes_in",)),
    ("publish/bytes/sent", ("publish_bytes_out",)),
)
"""Topic, and the counters that are added up for it. All but the last two have averages under `load` too."""

_LOADS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    *_COUNTERS[:-2],
    ("connections", ("connects",)),
    ("sockets", ("sockets",)),
)

_GAUGES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("subscriptions/count", ("subscriptions",)),
    ("shared_subscriptions/count", ("shared_subscriptions",)),
    ("retained messages/count", ("retained",)),
    ("messages/stored", ("stored",)),
    ("store/messages/count", ("stored",)),
    ("store/messages/bytes", ("stored_bytes",)),
    ("clients/expired", ("expired_sessions",)),
    ("heap/current", ("memory",)),
)

_MINUTES: Final = (1, 5, 15)


class Status:
    """The numbers between two reports: `report` once an interval, `connected` and `disconnected` as they happen."""

    def __init__(self, version: str, now: float) -> None:
        """`now` is in seconds of a monotonic clock, here and below."""
        self.version = version
        self._since = self._last = now
        self._most = self._heap = 0
        self._before: dict[str, int] = {}
        self.due = 0.0
        """When the next report is; the reporter sets it."""
        self._load: dict[str, list[float]] = {}

    def report(self, stats: Mapping[str, int], connected: int, now: float) -> Iterator[tuple[str, str]]:
        """Topics and payloads. `stats` are the core's, and where they are known `connects` (CONNECTs that came) and
        `sockets` (connections); `connected` is the number of clients that are online.
        """
        yield f"{ROOT}/version", f"peanutd version {self.version}"
        yield f"{ROOT}/uptime", f"{now - self._since:.0f} seconds"
        self._most = max(self._most, connected)
        sessions = max(stats["sessions"], connected)
        for name, count in (
            ("total", sessions),
            ("connected", connected),
            ("active", connected),  # mosquitto's older name for it
            ("disconnected", sessions - connected),
            ("inactive", sessions - connected),
            ("maximum", self._most),
        ):
            yield f"{ROOT}/clients/{name}", str(count)
        for name, count in (*_sums(_COUNTERS, stats), *_sums(_GAUGES, stats)):
            yield f"{ROOT}/{name}", str(count)
        if "memory" in stats:
            self._heap = max(self._heap, stats["memory"])
            yield f"{ROOT}/heap/maximum", str(self._heap)
        for name, averages in self._averages(dict(_sums(_LOADS, stats)), now):
            for minutes, average in zip(_MINUTES, averages, strict=True):
                # mosquitto(8) has load/publish/received where the counter is publish/messages/received
                yield f"{ROOT}/load/{name.replace('publish/messages', 'publish')}/{minutes}min", f"{average:.2f}"

    def uptime(self, now: float) -> float:
        """Seconds since the start."""
        return now - self._since

    def joined(self, connected: int) -> None:
        """Clients that are online, after each that has come: the most of them is a number of its own."""
        self._most = max(self._most, connected)

    def _averages(self, counters: Mapping[str, int], now: float) -> Iterator[tuple[str, list[float]]]:
        """Counts a minute, averaged over the last 1, 5 and 15 minutes with exponentially fading weight."""
        elapsed, self._last = now - self._last, now
        for name, count in counters.items():
            averages = self._load.setdefault(name, [0.0] * len(_MINUTES))
            if elapsed > 0:
                rate = (count - self._before.get(name, 0)) * 60 / elapsed
                for number, minutes in enumerate(_MINUTES):
                    averages[number] += (1 - math.exp(-elapsed / (60 * minutes))) * (rate - averages[number])
            self._before[name] = count
            yield name, averages


def resident_bytes() -> int:
    """Memory of the whole process (Linux; 0 elsewhere)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


_JSON: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def event(session: str, happened: str, **fields: object) -> tuple[str, bytes]:
    """Topic and payload of a client's coming (`connected`) or going (`disconnected`).

    `$SYS/broker/clients/plant/peanut/connected`; the client id of all but nodes is one level, its `/ + # %` and what is
    not ASCII percent-encoded: `$SYS/broker/clients/operator/anna/phone%2F1/connected`. The payload is JSON.
    """
    kind, _, rest = session.partition("/")
    name, slash, client_id = rest.partition("/") if kind != "anonymous" else ("", "", rest)
    who = f"{kind}/{name}{slash}{quote(client_id, safe='')}"
    shown = {key: value for key, value in fields.items() if value is not None}
    return f"{ROOT}/clients/{who}/{happened}", _JSON.encode(shown).encode()


def _sums(rows: tuple[tuple[str, tuple[str, ...]], ...], stats: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for topic, names in rows:
        found = [
            value
            for key, value in stats.items()
            if any(key == name or (name.endswith("*") and key.startswith(name[:-1])) for name in names)
        ]
        if found:
            yield topic, sum(found)
