"""`peanut user add|list|passwd|remove`.

Rule: a password comes from the terminal (twice) or from a file; never from the command line, which others can see.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from peanut import ca, plan, store, user
from peanut.cli import dry_run_option, json_option, pass_home, say, say_json, table, warn
from peanut.errors import PeanutError
from peanut.home import Home
from peanut.plan import Step
from peanut.user import Role

password_option = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its first line is the password. Without it, you are asked at the terminal.",
)


@click.group("user")
def user_group() -> None:
    """People who log in to the gateway with a name and a password."""


@user_group.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    help="viewer (the default) sees everything, operator and admin command the nodes as well.",
)
@password_option
@dry_run_option
@pass_home
def add(home: Home, name: str, role: str | None, password_file: Path | None, dry_run: bool) -> None:
    """Make a user, or give one another role.

    Users come into the app and its API, and by MQTT where a [[listener]] in gateway.toml has `password = true`; the
    gateway needs no restart. Safe to run again: a user who is there keeps the password.

    \b
    Examples:
      peanut user add maria
      peanut user add maria --role operator            # from now on
      peanut user add joe --password-file /run/secrets/joe
    """
    wanted = Role(role) if role else None
    _carry_out(home, lambda: user.plan_add(home, name, wanted, ca.utc_now(), _password(name, password_file)), dry_run)


@user_group.command("list")
@json_option
@pass_home
def list_(home: Home, as_json: bool) -> None:
    """Show who there is.

    \b
    Examples:
      peanut user list
      peanut user list --json
    """
    home.require()
    found = user.users(home)
    if as_json:
        say_json([asdict(u) for u in found])
        return
    if not found:
        warn("There are no users yet; `peanut user add NAME` makes one.")
        return
    made = [datetime.fromtimestamp(u.created, UTC).strftime("%Y-%m-%d") for u in found]
    table(("NAME", "ROLE", "SINCE"), [(u.name, u.role, since) for u, since in zip(found, made, strict=True)])


@user_group.command("passwd")
@click.argument("name")
@password_option
@dry_run_option
@pass_home
def passwd(home: Home, name: str, password_file: Path | None, dry_run: bool) -> None:
    """Give a user another password; whoever is connected with the old one has to log in again.

    \b
    Examples:
      peanut user passwd maria
      peanut user passwd joe --password-file /run/secrets/joe
    """
    _carry_out(home, lambda: user.plan_password(home, name, _password(name, password_file)), dry_run)


@user_group.command("remove")
@click.argument("name")
@dry_run_option
@pass_home
def remove(home: Home, name: str, dry_run: bool) -> None:
    """Take a user away; its connections end within a minute.

    \b
    Example:
      peanut user remove joe
    """
    _carry_out(home, lambda: user.plan_remove(home, name), dry_run)


def _carry_out(home: Home, steps: Callable[[], Sequence[Step]], dry_run: bool) -> None:
    home.require()
    if dry_run:
        plan.carry_out(steps(), say, dry_run=True)
        return
    with home.lock(warn):
        plan.carry_out(steps(), say, dry_run=False)


def _password(name: str, file: Path | None) -> user.AskPassword:
    """Asks when it is called, and not before: a dry run and a user who is there need no password."""

    def ask() -> str:
        if file is not None:
            return _first_line(file)
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise PeanutError(
                f"a password for {name} is needed, and there is no terminal", "Give --password-file FILE."
            )
        return str(click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt="Once more", err=True))

    return ask


def _first_line(file: Path) -> str:
    lines = store.read(file).splitlines()
    if not lines or not lines[0]:
        raise PeanutError(f"{file} is empty", "Write the password into its first line.")
    try:
        return lines[0].decode()
    except UnicodeDecodeError:
        raise PeanutError(f"{file} is not UTF-8", "Save it as UTF-8.") from None
