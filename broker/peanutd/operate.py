"""`peanutd status`, `bans` and `reload`: the gateway that runs, asked and told by its operator.

The rule it keeps: plain lines for people, `--json` for programs, and an exit status for both: 0 done, 1 the gateway
does not run or does not want to, 2 the question makes no sense.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from peanutd import bans, control
from peanutd.control import ControlError

COMMANDS: Final = ("status", "bans", "reload")
BAN_SECONDS: Final = 3600
"""How long a ban lasts that an operator makes without saying how long."""


def add_commands(commands: Any) -> tuple[argparse.ArgumentParser, ...]:
    """Adds them to a parser's commands, and returns them."""
    status = commands.add_parser("status", help="ask the gateway that runs how it is doing")
    status.add_argument("--json", action="store_true", help="everything, as JSON")
    parser = commands.add_parser("bans", help="ask the gateway that runs who is banned; ban somebody, or end a ban")
    what = parser.add_subparsers(dest="what", metavar="list|add|remove")
    listing = what.add_parser("list", help="who is banned, until when and why (the default)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    reload = commands.add_parser("reload", help="have it take new settings, rules and certificates; 1: it refuses them")
    made = [status, parser, listing, reload]
    for name, help_ in (("add", "bans somebody, and ends their connections"), ("remove", "ends a ban")):
        command = what.add_parser(name, help=help_)
        command.add_argument("kind", choices=bans.KINDS, metavar="|".join(bans.KINDS))
        command.add_argument("key", help="as in the log: 192.168.1.9, operator/anna/phone, maria, a serial number")
        if name == "add":
            command.add_argument("--seconds", type=int, default=BAN_SECONDS, help=f"how long ({BAN_SECONDS})")
            command.add_argument("--reason", default="by the operator", help="why, for the list and the log")
        made.append(command)
    return tuple(made)


def run(home: Path, arguments: argparse.Namespace) -> int:
    """Does what the arguments of `add_commands` say."""
    try:
        if arguments.command == "status":
            found = control.ask(home, {"command": "status"})
            print(json.dumps(found, indent=1) if arguments.json else _status(found))
        elif arguments.command == "reload":
            print(control.ask(home, {"command": "reload"})["done"])
        elif arguments.what in (None, "list"):
            found = control.ask(home, {"command": "bans"})
            print(json.dumps(found["bans"], indent=1) if getattr(arguments, "json", False) else _bans(found["bans"]))
        else:
            asked = {key: getattr(arguments, key) for key in ("kind", "key", "seconds", "reason") if key in arguments}
            print(control.ask(home, {"command": f"bans {arguments.what}", **asked})["done"])
    except ControlError as error:
        print(f"peanutd: {error}", file=sys.stderr)
        return 1
    return 0


def _bans(found: list[dict[str, Any]]) -> str:
    if not found:
        return "nobody is banned"
    lines: list[tuple[str, ...]] = [("WHO", "FOR", "WHY")]
    now = time.time()
    lines += [(f"{ban['kind']} {ban['key']}", f"{max(0, ban['until'] - now):.0f} s", ban["reason"]) for ban in found]
    return _table(lines)


def _status(found: dict[str, Any]) -> str:
    core, here = found["core"], found["connections"]
    memory = f"{core['memory'] / 1048576:.1f} MiB of {found['max_memory'] or 'any number of'} in the core"
    trouble = found["handshakes_failed"] | found["turned_away"] | found["refused"]
    drops = {key.removeprefix("dropped_"): count for key, count in core.items() if key.startswith("dropped_") and count}
    rows: list[tuple[str, ...]] = [
        ("version", f"{found['version']}, up {found['uptime']:.0f} s, pid {found['pid']}"),
        ("TLS", found["openssl"]),
        ("connections", ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in here.items())),
        ("sessions", f"{core['sessions']}, subscriptions {core['subscriptions']}"),
        ("retained", f"{core['retained']} messages, {core['retained_bytes']} bytes"),
        ("waiting", f"{core['stored']} messages, {core['stored_bytes']} bytes"),
        ("published", f"{core['publishes_in']} in, {core['publishes_out']} out"),
        ("memory", f"{memory}, {found['rss'] / 1048576:.1f} MiB of the process"),
        ("loop", f"late by {found['lag'] * 1000:.1f} ms at the most in the last minute"),
        ("dropped", ", ".join(f"{count} {why}" for why, count in drops.items()) or "nothing"),
        ("kept out", ", ".join(f"{count} {why}" for why, count in trouble.items()) or "nobody"),
        ("bans", str(found["bans"])),
        ("store", _store(found)),
    ]
    return _table(rows)


def _store(found: dict[str, Any]) -> str:
    if found["store"] is None:
        return "off: nothing survives a restart"
    if found["store"]["failure"] is not None:
        return f"cannot be written, what would have to be kept is refused: {found['store']['failure']}"
    return f"commits took {found['journal'] * 1000:.1f} ms at the most in the last minute"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[-1]] for row in rows)
    return "\n".join("  ".join(row) for row in padded)
