"""How fast the history is: writes what a fleet would have measured, then asks for a month of a greenhouse.

    .venv/bin/python -m tools.history                           1,000 devices that report every 10 s, for 31 days
    .venv/bin/python -m tools.history --devices 50 --days 8

The rule it keeps: what is measured is the gateway's own code. Readings of the last hours go in through it
(`--raw-hours`); those of the days before are written as it would have rolled them up, for they would take an hour.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from peanutd.config import History as Settings
from peanutd.history import DAY, FIVE, HOUR, History, Reader
from peanutd.readings import Reading

NAMES = ("temperature", "outside", "heater", "setpoint")
PERIOD = 10
"""Seconds from report to report."""
ROUNDS = 35
"""Queries that are measured, each for another greenhouse."""


def value(device: int, name: int, ts: int) -> float:
    """Something like a day in a greenhouse, in 0.1 °C."""
    return round(10 + device % 7 + name + abs(ts % DAY - DAY / 2) / 4320, 1)


def fill(history: History, devices: int, begin: int, end: int, raw_from: int) -> int:
    """Readings from raw_from to end as nodes send them; before that, what is left of them. Returns the raw ones."""
    roots = [f"/plant/g{number:04d}" for number in range(devices)]
    history.add(
        Reading(root, name, begin, value(d, n, begin)) for d, root in enumerate(roots) for n, name in enumerate(NAMES)
    )
    database = history._db
    for step, table in ((FIVE, "five"), (HOUR, "hour")):
        database.execute(
            f"WITH RECURSIVE t(ts) AS (SELECT ?1 UNION ALL SELECT ts + ?3 FROM t WHERE ts + ?3 < ?2) "
            f"INSERT OR REPLACE INTO {table} SELECT id, ts, {step // PERIOD}, "
            f"round(10 + id % 7 + abs(ts % 86400 - 43200) / 4320.0, 1), 10, 20 FROM series, t ORDER BY id, ts",
            (begin, raw_from, step),
        )
    count = 0
    for ts in range(raw_from, end, FIVE):
        for moment in range(ts, min(ts + FIVE, end), PERIOD):
            count += history.add(
                Reading(root, name, moment, value(d, n, moment))
                for d, root in enumerate(roots)
                for n, name in enumerate(NAMES)
            )
        history.sort_in(ts + FIVE)
    return count


def measure(reader: Reader, devices: int, start: int, end: int, rounds: int) -> list[float]:
    """Seconds of each of `rounds` queries for all curves of a greenhouse."""
    taken: list[float] = []
    for number in range(rounds):
        begun = time.perf_counter()
        curves = reader.curves(f"/plant/g{number * 37 % devices:04d}", (), start, end)
        taken.append(time.perf_counter() - begun)
        assert len(curves) == len(NAMES)
        assert all(curve.points for curve in curves)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--days", type=int, default=31)
    parser.add_argument("--raw-hours", type=int, default=1, help="of which every reading is written (default 1)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    end = int(time.time()) // HOUR * HOUR
    begin, raw_from = end - arguments.days * DAY, end - arguments.raw_hours * HOUR
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "history.db"
        history = History(path, Settings(), print)
        begun = time.process_time()
        count = fill(history, arguments.devices, begin, end, raw_from)
        spent = time.process_time() - begun
        reader = Reader(path)
        found = {
            "devices": arguments.devices,
            "days": arguments.days,
            "readings": count,
            "cpu_us_per_reading": round(1e6 * spent / max(1, count), 2),
            "megabytes": round(path.stat().st_size / 1e6),
        }
        for name, span in (("day", DAY), ("week", 7 * DAY), ("month", 31 * DAY)):
            taken = sorted(measure(reader, arguments.devices, end - span, end, ROUNDS))
            found[f"{name}_ms_median"] = round(1000 * statistics.median(taken), 1)
            found[f"{name}_ms_worst"] = round(1000 * taken[-1], 1)
        history.close()
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, text in found.items():
            print(f"{name:20} {text}")


if __name__ == "__main__":
    main()
