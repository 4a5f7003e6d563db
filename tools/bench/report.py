"""What was measured, for machines (a JSON line a run) and for people (aligned tables), and on what it was measured.

The rule it keeps: medians of the rounds; the share of mosquitto is taken inside each round, where both met the same
mood of the machine, and then its median; what spoils a figure stands beside it as a remark.
"""

import datetime
import json
import os
import platform
import ssl
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import plot
from .generator import SILENT, Case, faults
from .rows import CONNECT, CPU, DECODER_LEAST, MEMORY, ROWS, Row

BASELINE = "mosquitto"
OURS = "peanutd"
BUSY = 0.90  # of its core: the broker is what limits
WAITS = 0.05  # of the time: a generator that waits less is what limits
SHORT_S = 0.2  # a run that measured for less says little, above all about messages a second
REASON_MAX = 100  # characters of a failure's reason in the table
NOISE = 0.05  # of a core: other programs that took more spoil the run


@dataclass(frozen=True)
class Run:
    """One run of one broker. `figures` is the generator's output; `error` says why there is none."""

    case: Case
    broker: str
    round: int
    figures: dict[str, Any] | None
    error: str | None = None


def machine(versions: Iterable[str]) -> dict[str, Any]:
    """What the figures depend on: CPU, cores, kernel, Python, OpenSSL, brokers, load before, date (UTC)."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": ssl.OPENSSL_VERSION,
        "versions": list(versions),
        "load_before": round(os.getloadavg()[0], 2),
    }


def json_line(context: dict[str, Any], settings: dict[str, Any], run: Run) -> str:
    """A run as one line of results.jsonl; `context` and `settings` are repeated so that a line stands alone."""
    return json.dumps(
        {"machine": context, "settings": settings, "transport": run.case.transport} | asdict(run), separators=(",", ":")
    )


def align(header: list[str], rows: list[list[str]], left: int) -> list[str]:
    """Lines of a table, columns two blanks apart; the first `left` columns and the last one flush left."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if i < left or i == len(row) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class _Rounds:
    """The good rounds of one case and broker."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.figures = [run.figures for run in runs if run.figures is not None]

    def median(self, pick: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(pick(figures) for figures in self.figures)

    @property
    def measured(self) -> bool:
        """Whether anything was: where messages are sent, one at least must have been delivered."""
        return any(run.case.scenario in SILENT or run.figures["delivered"] for run in self.runs if run.figures)

    @property
    def wrong(self) -> bool:
        """Whether a message was lost or damaged, or a run failed."""
        return any(run.figures is None or faults(run.figures) for run in self.runs)

    def share(self, baseline: "_Rounds | None", pick: Callable[[dict[str, Any]], float]) -> str:
        """Median over the rounds of this broker's figure as a share of the baseline's in the same round."""
        runs = [] if baseline is None else baseline.runs
        theirs = {run.round: pick(run.figures) for run in runs if run.figures is not None}
        shares = [
            pick(run.figures) / theirs[run.round]
            for run in self.runs
            if run.figures is not None and theirs.get(run.round, 0) > 0
        ]
        return f"{statistics.median(shares):.3f}" if shares else "-"

    def remarks(self) -> str:
        errors = [run.error.strip() for run in self.runs if run.error]
        said = []
        if errors:  # the last line of a log or of a traceback says most; all of it is in the JSON line
            said.append(f"{len(errors)} of {len(self.runs)} failed: {errors[0].splitlines()[-1].strip()[:REASON_MAX]}")
        for figures in self.figures:
            said += [fault for fault in faults(figures) if fault not in said]
        if self.figures and self.figures[0]["delivered"]:
            waits, busy = self.median(lambda f: f["generator"]["waiting"]), self.median(lambda f: f["broker"]["busy"])
            seconds = self.median(lambda f: f["seconds"])
            if seconds < SHORT_S:
                said.append(f"short: {seconds * 1000:.0f} ms, give more --messages")
            noise = self.median(lambda f: f["machine"]["others"] + f["machine"]["steal"])
            if noise > NOISE:
                said.append(f"noise: others took {noise:.0%} of a core")
            elif waits < WAITS:
                said.append("limited by the generator")
            elif busy < BUSY and self.runs[0].case.scenario != "sparse":  # there everybody waits for the clock
                said.append("limited by neither: both wait")
        return ", ".join(said)


def _kept(case: Case) -> str:
    """What a row says of how the broker keeps: nothing where it is as usual."""
    return "" if case.sync == "always" else f", {case.sync}"


def _spread(rounds: _Rounds) -> str:
    values = [CPU.pick(figures) for figures in rounds.figures]
    return f"{(max(values) - min(values)) / statistics.median(values):.0%}" if len(values) > 1 else "-"


MEBI = 1024 * 1024
APART = ("drain", "wildcard", "retained", *SILENT)  # scenarios with a table of their own


def _group(runs: Iterable[Run]) -> dict[Case, dict[str, _Rounds]]:
    grouped: dict[Case, dict[str, list[Run]]] = {}
    for run in runs:
        grouped.setdefault(run.case, {}).setdefault(run.broker, []).append(run)
    return {case: {broker: _Rounds(each) for broker, each in brokers.items()} for case, brokers in grouped.items()}


Figures = dict[str, Any]  # of one run, from the generator
Column = tuple[str, Callable[[_Rounds, _Rounds | None], str]]
"""Its header, and what a broker's rounds have there; the other rounds are the baseline's, if it was there."""


def _median(header: str, pick: Callable[[Figures], float], form: Callable[[float], str] = _number) -> Column:
    return header, lambda rounds, _: form(rounds.median(pick))


def _compared(header: str, pick: Callable[[Figures], float], form: Callable[[float], str] = _number) -> list[Column]:
    """The same, and its share of the baseline's."""
    return [_median(header, pick, form), ("of " + BASELINE, lambda rounds, baseline: rounds.share(baseline, pick))]


WHOLE, THOUSANDS, TENTHS, PERCENT = "{:.0f}".format, "{:,.0f}".format, "{:.1f}".format, "{:.0%}".format
CPU_COLUMNS = _compared("CPU us/msg", CPU.pick)
SPREAD_COLUMN: Column = ("spread", lambda rounds, _: _spread(rounds))
BUSY_COLUMN = _median("busy", lambda f: f["broker"]["busy"], PERCENT)
GEN_CPU_COLUMN = _median("gen us/msg", lambda f: f["generator"]["cpu_us"])
GEN_WAITS_COLUMN = _median("gen waits", lambda f: f["generator"]["waiting"], PERCENT)
LATENCY_COLUMNS = [
    _median("p50 ms", lambda f: f["latency_us"]["p50"] / 1000),
    _median("p99 ms", lambda f: f["latency_us"]["p99"] / 1000),
]


def _table(runs: Iterable[Run], place: dict[str, Callable[[Case], str]], columns: list[Column]) -> list[str]:
    """A line per case and broker: `place` says which case by its headers, then come the columns, then remarks."""
    rows = []
    for case, brokers in _group(runs).items():
        for broker, rounds in brokers.items():
            start = [*(tell(case) for tell in place.values()), broker]
            if rounds.measured:
                baseline = brokers.get(BASELINE)
                rows.append([*start, *(cell(rounds, baseline) for _, cell in columns), rounds.remarks()])
            else:
                rows.append([*start, *["-"] * len(columns), rounds.remarks() or "nothing delivered"])
    header = [*place, "broker", *(name for name, _ in columns), "remarks"]
    return align(header, rows, len(place) + 1) if rows else []


def _of(scenario: str, runs: list[Run]) -> list[Run]:
    return [run for run in runs if run.case.scenario == scenario]


def traffic_table(runs: list[Run]) -> list[str]:
    """Messages per second and CPU per delivered message; a line per case and broker."""
    return _table(
        [run for run in runs if run.case.scenario not in APART],
        {
            "transport": lambda case: case.transport,
            "scenario": lambda case: case.scenario,
            "QoS": lambda case: str(case.qos),
            "in flight": lambda case: str(case.window),
            "bytes": lambda case: str(case.payload),
        },
        [
            _median("msg/s", lambda f: f["per_second"], THOUSANDS),
            *CPU_COLUMNS,
            SPREAD_COLUMN,
            _median("kernel", lambda f: f["broker"]["kernel_share"], PERCENT),
            BUSY_COLUMN,
            GEN_CPU_COLUMN,
            GEN_WAITS_COLUMN,
            *LATENCY_COLUMNS,
            _median("RSS MiB", lambda f: f["broker"]["rss_end"] / MEBI, TENTHS),
        ],
    )


def _crowd_table(runs: list[Run], columns: list[Column]) -> list[str]:
    """A line per QoS, how the broker keeps, and broker."""
    return _table(
        runs,
        {
            "transport": lambda case: case.transport,
            "scenario": lambda case: f"{case.scenario}{_kept(case)}",
            "QoS": lambda case: str(case.qos),
        },
        [*columns, SPREAD_COLUMN, BUSY_COLUMN, GEN_WAITS_COLUMN],
    )


def drain_table(runs: list[Run]) -> list[str]:
    """What a queued message costs when its client comes back, and how long it waits for all of them."""
    return _crowd_table(
        _of("drain", runs),
        [
            _median("queued", lambda f: f["queue"]["count"]),
            *CPU_COLUMNS,
            *_compared("all after ms", lambda f: f["queue"]["all_ms"]),
            GEN_CPU_COLUMN,
        ],
    )


def wildcard_table(runs: list[Run]) -> list[str]:
    """What a filter with wildcards costs to subscribe and to keep, and a message that matches one of them all."""
    return _crowd_table(
        _of("wildcard", runs),
        [
            _median("filters", lambda f: f["filters"]["count"]),
            *_compared("subscribe us/filter", lambda f: f["filters"]["subscribe_us"]),
            *_compared("B/filter", lambda f: f["filters"]["bytes"]),
            *CPU_COLUMNS,
            *LATENCY_COLUMNS,
        ],
    )


def retained_table(runs: list[Run]) -> list[str]:
    """What a retained message costs that goes to a new subscriber, and how long it waits for all of them."""
    return _crowd_table(
        _of("retained", runs),
        [
            _median("retained", lambda f: f["retained"]["count"]),
            *CPU_COLUMNS,
            *_compared("all after ms", lambda f: f["retained"]["all_ms"]),
            GEN_CPU_COLUMN,
        ],
    )


def idle_table(runs: list[Run]) -> list[str]:
    """Memory and CPU that a connection costs; a line per transport and broker."""
    return _table(
        _of("idle", runs),
        {"transport": lambda case: case.transport},
        [
            _median("connections", lambda f: f["connections"], WHOLE),
            *_compared("KiB/connection", lambda f: f["broker"]["connect_bytes"] / 1024, "{:.2f}".format),
            *_compared("connect CPU us", lambda f: f["broker"]["connect_us"]),
            _median("RSS MiB", lambda f: f["broker"]["rss_connected"] / MEBI, TENTHS),
        ],
    )


def storm_table(runs: list[Run]) -> list[str]:
    """What a connect costs, from TCP to CONNACK, when many come at once; a line per transport and broker."""
    return _table(
        _of("storm", runs),
        {"transport": lambda case: case.transport},
        [
            _median("connects", lambda f: f["counted"], WHOLE),
            _median("connects/s", lambda f: f["counted"] / f["generator"]["connect_seconds"], THOUSANDS),
            *_compared("CPU us", CONNECT.pick),
            _median("gen waits", lambda f: f["generator"]["connect_waiting"], PERCENT),
        ],
    )


def _where(row: Row) -> list[str]:
    """The cells that say which row it is, under PLACE."""
    case, moving = row.case, row.case.scenario not in SILENT
    traffic = [str(case.qos), str(case.window), str(case.payload)] if moving else ["-", "-", "-"]
    return [case.transport, f"{row.name}{_kept(case)}", *traffic]


def brokers_table(runs: list[Run]) -> list[str]:
    """The figure of each row, a column a broker; nothing where no more than two were there.

    "-": it has none, for it could not do that, or a message was lost or damaged; the other tables say why.
    """
    grouped = _group(runs)
    names = list(dict.fromkeys(run.broker for run in runs))
    if len(names) < 3:
        return []
    rows = []
    for row in (row for row in ROWS if row.case in grouped and row.most is not None):
        each = [grouped[row.case].get(name) for name in names]
        figures = [
            _number(rounds.median(row.figure.pick)) if rounds and rounds.measured and not rounds.wrong else "-"
            for rounds in each
        ]
        rows.append([*_where(row), *figures, row.figure.unit])
    return align([*PLACE, *names, "unit"], rows, 2) if rows else []


def _goal(row: Row, brokers: dict[str, _Rounds]) -> list[str] | None:
    ours, theirs = brokers.get(OURS), brokers.get(BASELINE)
    if row.most is None or ours is None or not ours.figures:
        return None
    measured = ours.median(row.figure.pick)
    reached = "-"
    if row.absolute:
        reached = _number(measured)
    elif theirs is not None and theirs.figures:
        reached = ours.share(theirs, row.figure.pick)
    return [
        *_where(row),
        _number(theirs.median(row.figure.pick)) if theirs is not None and theirs.figures else "-",
        _number(measured),
        row.figure.unit,
        reached,
        f"{row.most:g}",
        "" if reached == "-" else "reached" if float(reached) <= row.most else "missed",
    ]


def goals(runs: list[Run], decoded: list[dict[str, Any]]) -> list[list[str]]:
    """Every row with a goal, as cells of GOALS: figures, share of the baseline (or itself), goal, verdict."""
    grouped = _group(runs)
    rows = [line for row in ROWS if row.case in grouped and (line := _goal(row, grouped[row.case])) is not None]
    mix = {line["codec"]: line["stream_ns"] for line in decoded if line["sample"] == "mix"}
    for other, least in DECODER_LEAST.items():
        if other in mix and "core" in mix:
            share = mix["core"] / mix[other]
            rows.append([
                "-", f"decoder, of {other}", "-", "-", "-", _number(mix[other]), _number(mix["core"]), "ns/packet",
                f"{share:.4f}", f"{1 / least:.3g}", "reached" if share <= 1 / least else "missed",
            ])  # fmt: skip
    return rows


PLACE = ["transport", "row", "QoS", "in flight", "bytes"]
GOALS = [*PLACE, BASELINE, OURS, "unit", "share", "goal", ""]


def goals_table(rows: list[list[str]]) -> list[str]:
    """What `goals` has found."""
    return align(GOALS, rows, 2) if rows else []


def bars(rows: list[list[str]]) -> list[plot.Bar]:
    """The same as a picture."""
    found = []
    for transport, name, qos, window, size, _, _, unit, share, goal, verdict in rows:
        if not verdict:
            continue
        traffic = f" QoS {qos}, {window} in flight" + (f", {size} B" if size != "64" else "") if qos != "-" else ""
        absolute = f" {unit}" if unit == MEMORY.unit else ""
        where = f"{transport} " if transport != "-" else ""
        found.append(
            plot.Bar(f"{where}{name}{traffic}", float(share) / float(goal), f"{share} (goal {goal}){absolute}")
        )
    return found


TABLES = (traffic_table, drain_table, wildcard_table, retained_table, storm_table, idle_table, brokers_table)


def codec_table(lines: list[dict[str, Any]]) -> list[str]:
    """Nanoseconds per packet; a line per sample and codec."""
    header = ["sample", "codec", "bytes/packet", "stream ns", "one by one ns", "reference / it", "version"]
    reference = {line["sample"]: line["stream_ns"] for line in lines if line["codec"] == "reference"}
    rows = [
        [
            line["sample"],
            line["codec"],
            f"{line['bytes']:.0f}",
            _number(line["stream_ns"]),
            _number(line["single_ns"]) if line["single_ns"] is not None else "-",
            f"{reference[line['sample']] / line['stream_ns']:.1f}",
            line["version"],
        ]
        for line in lines
    ]
    return align(header, rows, 2) if rows else []


def preamble(context: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """On what and how it was measured."""
    return [
        f"{context['date']}  {context['cpu']}, {context['cores']} cores, {context['kernel']}",
        f"{context['python']}, {context['openssl']}, {', '.join(context['versions'])}",
        f"{settings['rounds']} rounds of {settings['messages']:,} deliveries or {settings['seconds']} s, "
        f"{settings['clients']} clients; {settings['pinning']}; load before: {context['load_before']}",
    ]
