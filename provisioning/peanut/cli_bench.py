"""`peanut console|push|logs`: a board at the bench."""

import contextlib
import subprocess
import sys
import time

import click

from peanut import application, bench, ca, device, flash, install, programs, serialport, watch, wifi
from peanut.cli import pass_home, say, warn
from peanut.errors import PeanutError
from peanut.home import Home

patience_option = click.option(
    "--patience", type=click.FloatRange(0.1, 100), default=1.0, show_default=True, help="Multiplies every limit."
)


@click.command("console")
@click.argument("where", metavar="NAME|PORT")
@pass_home
def console_command(home: Home, where: str) -> None:
    """Talk to a board: its REPL. Ctrl-C stops the node's program, Ctrl-D starts it again, Ctrl-] ends the console.

    \b
    Examples:
      peanut console peanut
      peanut console /dev/ttyUSB0
    """
    if not sys.stdin.isatty():
        raise PeanutError("a console needs a terminal", "To read only: peanut logs")
    port = install.port_of(home, where)
    click.get_current_context().exit(subprocess.call([programs.find("mpremote"), "connect", port, "repl"]))


@click.command("logs")
@click.argument("where", metavar="NAME|PORT")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Default: until Ctrl-C.")
@click.option("--reset", is_flag=True, help="Start the board anew first, where the port can.")
@pass_home
def logs_command(home: Home, where: str, seconds: float | None, reset: bool) -> None:
    """Show what a board says on its serial port, without disturbing it.

    \b
    Examples:
      peanut logs peanut
      peanut logs /dev/ttyUSB0 --reset --seconds 30
    """
    port = install.port_of(home, where)
    end = None if seconds is None else time.monotonic() + seconds
    if reset and not serialport.has_reset_lines(port):
        warn(f"{port} has no reset lines: press RESET (EN) on the board.")
    with contextlib.suppress(KeyboardInterrupt), watch.listening(port, say, reset=reset):
        while end is None or time.monotonic() < end:
            time.sleep(0.05)


@click.command("push")
@click.argument("where", metavar="NAME|PORT")
@click.option("--app-only", is_flag=True, help="Not the bundle: certificates, node.json and Wi-Fi networks stay.")
@click.option(
    "--dry-run", is_flag=True, help="Say what differs; the node's program is stopped and started all the same."
)
@patience_option
@pass_home
def push_command(home: Home, where: str, app_only: bool, dry_run: bool, patience: float) -> None:
    """Bring a board what has changed: compiled firmware, node.json, certificates, Wi-Fi networks.

    Only files that differ are copied, over the REPL; then the node starts again.

    \b
    Examples:
      peanut push peanut
      peanut push /dev/ttyUSB0 --app-only
    """
    home.require()
    port = install.port_of(home, where)
    there = bench.scan(port, patience)
    if "/" not in where and there.name != where:
        bench.restart(port, patience)
        raise PeanutError(
            f"the board on {port} is {there.name or 'no node'}, and not {where}", f"Name the port: peanut push {port}"
        )
    if not there.name:
        raise PeanutError(f"the board on {port} is no node yet", "First: peanut flash")
    row = device.row(home, there.name)
    node = flash.check_bundle(home, row, ca.utc_now())
    wanted = flash.fresh(home, node, wifi.read(home), application.folder())
    if app_only:
        wanted = {path: data for path, data in wanted.items() if application.owns(path)}
    todo = bench.changes(wanted, there)
    if dry_run:
        for path in todo.copy:
            say(f"  copy    {path}")
        for path in todo.remove:
            say(f"  remove  {path}")
    elif todo.copy or todo.remove:
        with flash.workplace(home.path) as work:
            bench.apply(port, wanted, todo, work, patience, say)
    bench.restart(port, patience)
    say(f"{len(todo.copy)} of {len(wanted)} files {'differ' if dry_run else 'copied'}; {there.name} starts again.")
