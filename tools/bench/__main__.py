"""`python -m tools.bench`: runs what is asked for, writes a JSON line a run, prints the tables.

The rule it keeps: rounds are interleaved (every broker in turn in every round), so that the machine's mood meets all of
them; everything it starts it stops; it ends with status 1 when a message was lost, doubled, reordered or damaged.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from . import codec, plot, report, rows
from .brokers import BROKERS, USUAL, Broker, BrokerError, workplace
from .generator import BUILD, NO_TLS, SILENT, Case, Generator, GeneratorError, Load, build, faults, run

TRAFFIC = ("fan-in", "fan-out", "broadcast", "pairs", "sparse")
KEPT = ("kept", "drain")  # plain only: over TLS the disk costs the same
CROWDS = ("wildcard", "retained")  # plain only: their topics are for those who may publish everywhere
SCENARIOS = ("codec", *TRAFFIC, *KEPT, *CROWDS, *SILENT)
TRANSPORTS = ("plain", "tls", "server-tls")
QOS = ("0", "1", "2")
RESULTS = BUILD / "results.jsonl"
TABLE = BUILD / "table.txt"
PLOT = BUILD / "table.png"

EPILOG = """examples:
  python -m tools.bench                                    the table of the goals, about thirteen minutes
  python -m tools.bench --quick                            one short round of it, two minutes
  python -m tools.bench --scenario fan-out,storm           all rows of these
  python -m tools.bench --scenario fan-in --qos 0 --window 1,4,20 --payload 64,1024 --rounds 5
  python -m tools.bench --scenario idle --transport tls --brokers peanutd
  python -m tools.bench --scenario codec
"""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _choice(allowed: tuple[str, ...]) -> Any:
    def parse(text: str) -> list[str]:
        chosen = [part.strip() for part in text.split(",")]
        for part in chosen:
            if part not in allowed:
                raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(allowed)}")
        return list(dict.fromkeys(chosen))

    return parse


def _positive(most: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return parse


def _numbers(least: int, most: int) -> Any:
    def parse(text: str) -> list[int]:
        parts = text.split(",")
        if not all(part.isdecimal() and least <= int(part) <= most for part in parts):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from {least} to {most}")
        return [int(part) for part in parts]

    return parse


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description="Nanoseconds a packet for decoders; messages a second, CPU a message and memory for MQTT brokers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--scenario", type=_choice(SCENARIOS), default=None, help=f"of {','.join(SCENARIOS)} (those with a goal)")
    add("--brokers", type=_choice(tuple(BROKERS)), default=None, help=f"of {','.join(BROKERS)} (those that are here)")
    add("--transport", type=_choice(TRANSPORTS), default=list(TRANSPORTS), help=f"of {','.join(TRANSPORTS)} (all)")
    add(
        "--qos",
        type=_choice(QOS),
        default=None,
        help="of 0,1,2; with it, --window or --payload: all that is asked for",
    )
    add("--window", type=_numbers(1, 1024), default=None, help="messages in flight a publisher (4)")
    add("--payload", type=_numbers(24, 65536), default=None, help="bytes of payload, 24 or more (64)")
    add("--rounds", type=_positive(100), default=None, help="rounds, of which the median counts (5; quick: 1; idle: 1)")
    add("--messages", type=_positive(10**8), default=None, help="deliveries measured in a run (150000; quick: 20000)")
    add(
        "--seconds",
        type=_positive(40),
        default=None,
        help="measure no longer than that in a run (1; with --messages: 30)",
    )
    add("--clients", type=_positive(5000), default=100, help="publishers, subscribers, or both (100)")
    add("--idle-clients", type=_positive(40000), default=None, help="connections of the idle run (10000; quick: 300)")
    add("--storm", type=_positive(40000), default=None, help="connects of a storm (1000; quick: 100)")
    add(
        "--sparse",
        type=_positive(20000),
        default=None,
        help="clients of a sparse run (2000, over TLS 1000; quick: 200)",
    )
    add("--filters", type=_positive(900_000), default=None, help="of the wildcard run (100000; quick: 20000)")
    add("--retained", type=_positive(900_000), default=None, help="messages of the retained run (10000; quick: 2000)")
    add("--queue", type=_positive(1_000_000), default=None, help="messages of the drain run (100000; quick: 10000)")
    add("--quick", action="store_true", help="one short round")
    arguments = parser.parse_args(argv)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.seconds = arguments.seconds or (30 if arguments.messages else 1)
    arguments.messages = arguments.messages or (20_000 if arguments.quick else 150_000)
    arguments.filters = arguments.filters or (20_000 if arguments.quick else 100_000)
    arguments.retained = arguments.retained or (2_000 if arguments.quick else 10_000)
    arguments.queue = arguments.queue or (10_000 if arguments.quick else 100_000)
    arguments.sparse_tls = arguments.sparse or (200 if arguments.quick else 1_000)
    arguments.sparse = arguments.sparse or (200 if arguments.quick else 2_000)
    arguments.storm = arguments.storm or (100 if arguments.quick else 1_000)
    arguments.idle_clients = arguments.idle_clients or (300 if arguments.quick else 10_000)
    return arguments


def _cores() -> tuple[int | None, int | None]:
    """(broker's core, generator's core). The broker gets the last one: the first one tends to have the interrupts."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[-1], cores[0]) if len(cores) > 1 else (None, None)


def _cases(arguments: argparse.Namespace, generator: Generator) -> list[Case]:
    transports = [each for each in arguments.transport if each == "plain" or generator.tls]
    if len(transports) < len(arguments.transport):
        _say(NO_TLS)
    if arguments.qos is None and arguments.window is None and arguments.payload is None:
        return rows.cases(arguments.scenario, transports)
    return [
        Case(scenario, int(qos), transport, window, payload)
        for transport in transports
        for scenario in arguments.scenario or TRAFFIC
        if scenario not in ("codec", *SILENT)
        if transport == "plain" or (transport == "tls" and scenario not in (*KEPT, *CROWDS))
        for qos in arguments.qos or QOS
        if scenario not in KEPT or qos != "0"
        for window in arguments.window or [4]
        for payload in arguments.payload or [64]
    ]


def _brokers(arguments: argparse.Namespace) -> list[str]:
    """Names of the brokers to run: those asked for, which must be here, or those that are here."""
    names: list[str] = arguments.brokers or list(USUAL)
    missing = {name: why for name in names if (why := BROKERS[name].missing()) is not None}
    for name, why in missing.items():
        _say(f"{name} is left out: {why}" if arguments.brokers is None else f"{name}: {why}")
    if missing and arguments.brokers is not None:
        raise SystemExit(2)
    return [name for name in names if name not in missing]


def _run_case(broker: Broker, generator: Generator, case: Case, load: Load, number: int) -> report.Run:
    broker_core, generator_core = _cores()
    try:
        with broker.running(case.transport, broker_core, case.sync) as endpoint:
            figures = run(generator, endpoint, case, load, generator_core)
        return report.Run(case, broker.name, number, figures)
    except (BrokerError, GeneratorError) as error:
        return report.Run(case, broker.name, number, None, str(error))


def _progress(result: report.Run, step: int, steps: int) -> str:
    case = result.case
    head = f"[{step:>{len(str(steps))}}/{steps}] {case!s:34} {result.broker:9} "
    if result.figures is None:
        return f"{head} failed: {result.error}"
    broker = result.figures["broker"]
    if case.scenario in SILENT:
        return f"{head} {broker['connect_bytes'] / 1024:9.2f} KiB and {broker['connect_us']:.0f} us a connection"
    wrong = faults(result.figures)
    tail = f"  WRONG: {', '.join(wrong)}" if wrong else ""
    return f"{head} {broker['cpu_us']:9.3f} us a message, {result.figures['per_second']:11,.0f} a second{tail}"


def _write(lines: list[str]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)  # through the `with` blocks, which stop what runs


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark. Returns the exit status: 0, 1 after a failed run or a wrong message, 2 for wrong usage."""
    arguments = _arguments(argv)
    signal.signal(signal.SIGTERM, _terminated)
    broker_core, generator_core = _cores()
    load = Load(
        messages=arguments.messages,
        seconds=arguments.seconds,
        clients=arguments.clients,
        idle_clients=arguments.idle_clients,
        filters=arguments.filters,
        retained=arguments.retained,
        queue=arguments.queue,
        sparse=arguments.sparse,
        sparse_tls=arguments.sparse_tls,
        sparse_s=3 if arguments.quick else 10,
        storm=arguments.storm,
    )
    traffic = arguments.scenario != ["codec"]
    names = _brokers(arguments) if traffic else []
    settings: dict[str, Any] = asdict(load) | {
        "rounds": arguments.rounds,
        "pinning": "one core only, nothing pinned: not comparable"
        if broker_core is None
        else f"broker on core {broker_core}, generator on core {generator_core}",
    }
    context = report.machine(BROKERS[name].version() for name in names)
    if traffic and context["load_before"] > 0.5:
        _say("the machine is not quiet: expect figures that are too high; shares suffer less")

    sections: list[list[str]] = []
    failed = False
    decoded: list[dict[str, Any]] = []
    if "codec" in (arguments.scenario or ["codec"]):
        try:
            rounds, seconds = (3, 0.1) if arguments.quick else (5, 0.2)
            decoded = codec.measure(rounds, seconds, _say)
            _write([json.dumps({"machine": context, "scenario": "codec"} | line) for line in decoded])
            sections.append(report.codec_table(decoded))
        except codec.CodecError as error:
            _say(f"codec: {error}")
            failed = True

    runs: list[report.Run] = []
    try:
        if traffic and names:
            generator = build()
            cases = _cases(arguments, generator)
            rounds_of = {case: 1 if case.scenario == "idle" else arguments.rounds for case in cases}
            steps = sum(rounds_of.values()) * len(names)
            with contextlib.ExitStack() as stack:
                places = [stack.enter_context(workplace(name)) for name in names]
                for number in range(arguments.rounds):
                    for case in (each for each in cases if number < rounds_of[each]):
                        for broker in places:
                            result = _run_case(broker, generator, case, load, number)
                            runs.append(result)
                            _write([report.json_line(context, settings, result)])
                            _say(_progress(result, len(runs), steps))
    except GeneratorError as error:
        _say(str(error))
        failed = True
    except KeyboardInterrupt:
        _say("interrupted; the table has what was measured so far")
        failed = True

    sections += [table(runs) for table in report.TABLES]
    goals = report.goals(runs, decoded)
    sections.append(report.goals_table(goals))
    text = "\n\n".join("\n".join(section) for section in [report.preamble(context, settings), *sections] if section)
    print(f"\n{text}", flush=True)
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(f"{text}\n")
    shown = Path(os.path.relpath(RESULTS))
    _say(f"\nevery run: {shown}; this table: {Path(os.path.relpath(TABLE))}")
    if bars := report.bars(goals):
        title = f"share of {report.BASELINE} by its goal, {context['date'][:10]}, {context['cpu'].lower()}"
        plot.write(PLOT, title, bars)
        _say(f"the goals as a picture: {Path(os.path.relpath(PLOT))}")
    wrong = any(each.figures is None or faults(each.figures) for each in runs)
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
