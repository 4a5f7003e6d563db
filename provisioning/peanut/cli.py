"""What all commands share: the fleet home as context, errors in words, output for terminals and for pipes.

Rule: results go to standard output, problems and advice to standard error; no escape code and no prompt where there is
no terminal.
"""

import errno
import json
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from peanut import ca, crl, ledger, plan, renewal, revocation
from peanut.errors import Exit, PeanutError
from peanut.home import Home

pass_home = click.make_pass_decorator(Home)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 86400),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="For nodes to try what they got; they do when nothing heats. What takes longer is finished by the next run.",
)
why_option = click.option("--why", default="", metavar="TEXT", help="For the log, and for those who wonder later.")
boards_option = click.option(
    "--boards",
    "folder",
    type=click.Path(path_type=Path),
    envvar="PEANUT_BOARDS",
    metavar="DIR",
    help="Folder of board files, in place of the built-in ones. [env: PEANUT_BOARDS]",
)

INTERRUPTED = 128 + 2  # as a shell reports SIGINT

_NO_ROOM = ("no space left on the device that holds {}", "Make room there, then run the same command again.")
_NO_PERMISSION = ("no permission for {}", "Run as its owner (`ls -l` tells who that is), or choose another --home.")

# What the operating system refuses, in words, with the fix; {} is the file.
_REFUSALS = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EROFS: ("{} is on a file system that is mounted read-only", "Mount it writable, or choose another --home."),
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EIO: ("the device that holds {} fails", "Look at `dmesg`; copy the fleet home off it while that works."),
}


class Group(click.Group):
    """The top of the commands: turns what went wrong into words and an exit status."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """Run as a program (no `args`): it tidies up, keys first, when it is told to end or its terminal is closed."""
        for number in (signal.SIGTERM, signal.SIGHUP) if args is None else ():
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup stays nohup
                signal.signal(number, _end)
        return super().main(args, *more, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PeanutError as error:
            warn(f"peanut: {error.message}")
            if error.fix:
                warn(f"  {error.fix}")
            ctx.exit(error.status)
        except KeyboardInterrupt:
            warn("peanut: interrupted")
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read our output has gone; click ends quietly
            message, fix = _REFUSALS.get(error.errno or 0, (f"{{}}: {error.strerror or error}", ""))
            # An error without a file comes from what is always open: the output.
            warn(f"peanut: {message.format(error.filename or 'the output')}")
            if fix:
                warn(f"  {fix}")
            ctx.exit(Exit.USAGE)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def say(text: str) -> None:
    """One line of the result."""
    click.echo(text)


def warn(text: str) -> None:
    """One line beside the result."""
    click.echo(text, err=True)


def say_json(value: object) -> None:
    """The result for a program."""
    click.echo(json.dumps(value, indent=2))


def revoke(home: Home, uris: Sequence[str], why: str, *, dry_run: bool) -> None:
    """Revoke these identities, and have the gateway know."""
    with home.lock(warn):
        done = plan.carry_out(revocation.revoke(home, uris, why, ca.utc_now()), say, dry_run=dry_run)
        if done and not dry_run:
            _told(home)


def restore(home: Home, uris: Sequence[str], *, dry_run: bool) -> None:
    """Let these identities in again, and have the gateway know."""
    with home.lock(warn):
        done = plan.carry_out(revocation.restore(home, uris), say, dry_run=dry_run)
        if done and not dry_run:
            _told(home)


def _told(home: Home) -> None:
    """The gateway knows, and then everybody else may: in this order."""
    said = revocation.tell_gateway(home)
    try:
        if crl.publish(home, ca.utc_now()):
            said += f"; published: {home.relative(crl.path(home))}"
    except (PeanutError, OSError) as error:  # it decides nothing
        warn(f"Warning: the list for others, {crl.path(home)}, was not made: {error}")
    say(said)


def renew_nodes(home: Home, rows: Sequence[ledger.Device] | None, now: datetime, *, force: bool, wait_s: float) -> None:
    """Renew these nodes, or all that are due, by way of the gateway, and say what came of it. PeanutError if one of
    them does not have what it was to get.
    """
    found = renewal.conduct(home, rows, lambda: home.lock(warn), now, force=force, wait_s=wait_s)
    if found is None:
        raise PeanutError("no gateway runs here, and nodes are reached through it", "Start it: peanutd")
    for task in found:
        say(f"{task.row.name}: {task.done or task.failed or ('has not answered yet' if task.sent else 'is away')}")
    failed = [task.row.name for task in found if task.failed]
    late = [task.row.name for task in found if not task.done and not task.failed]
    if late and (force or not failed):
        warn(f"{len(late)} to be finished by the next `peanut renew`, when they are there: {', '.join(late[:20])}")
    if failed:
        raise PeanutError(f"not renewed: {', '.join(failed)}", "Each has what it had; it is tried again next time.")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn with rich on a terminal, aligned plain text else."""
    if sys.stdout.isatty():
        from rich.console import Console  # slow to import, and of use on a terminal only
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*head)
        for row in rows:
            drawn.add_row(*map(Text, row))
        Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
