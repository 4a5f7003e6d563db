"""`peanut init` and `peanut operator add|revoke|restore`: what founds a fleet and who may command it."""

import sys
from pathlib import Path

import click

from peanut import ca, cli, init, names, operators, plan
from peanut.cli import dry_run_option, pass_home, say, warn, why_option
from peanut.errors import PeanutError
from peanut.home import Home


@click.command("init")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME_OR_IP",
    help="How nodes reach the gateway; the first is what they use. May be given several times, and later again to add "
    "one. Default: this machine's host name, the same under .local, and its address on the LAN.",
)
@click.option("--operator", metavar="NAME", help="Name of the first operator account. Default: operator.")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its first line is the passphrase of the root's key.",
)
@click.option("--generate-passphrase", is_flag=True, help="Generate one and write it to ca/root.pass; ask nothing.")
@dry_run_option
@pass_home
def init_command(
    home: Home,
    hosts: tuple[str, ...],
    operator: str | None,
    passphrase_file: Path | None,
    generate_passphrase: bool,
    dry_run: bool,
) -> None:
    """Found a fleet: root CA, issuing CA, gateway certificate, first operator account.

    Safe to run again: it keeps what is there, completes what is missing, and renews what is about to expire.

    \b
    Examples:
      peanut init
      peanut init --host gateway.local --host 192.168.1.20
      peanut init --host greenhouse.example.org      # later: one name more
      peanut init --passphrase-file /run/secrets/root --dry-run
    """
    if passphrase_file and generate_passphrase:
        raise click.UsageError("--passphrase-file and --generate-passphrase exclude each other.")
    wanted = [names.check_host(host) for host in hosts]
    if operator is not None:
        names.check_name(operator, "operator's name")
    say(f"Fleet home {home.path}")
    now = ca.utc_now()
    if dry_run:
        passphrase = _passphrase(home, passphrase_file, generate_passphrase, ask=False)
        plan.carry_out(init.plan(home, wanted, operator, passphrase, now), say, dry_run=True)
        return
    with home.lock(warn):
        passphrase = _passphrase(home, passphrase_file, generate_passphrase, ask=True)
        plan.carry_out(init.plan(home, wanted, operator, passphrase, now), say, dry_run=False)
    if (home.ca / "root.pass").exists():
        warn(
            f"Move {home.ca / 'root.pass'} and {home.ca / 'root.key'} to a place off this machine:\n"
            "  whoever has both can impersonate the whole fleet, and the daily work needs neither."
        )
    elif (home.ca / "root.key").exists():
        warn(
            f"Move {home.ca / 'root.key'} to a place off this machine, and keep its passphrase elsewhere:\n"
            "  whoever has both can impersonate the whole fleet, and the daily work needs neither."
        )


def _passphrase(home: Home, file: Path | None, generate: bool, *, ask: bool) -> init.Passphrase | None:
    """The passphrase of the root's key; None if it is not needed, or is to be asked for and `ask` is not set."""
    if not init.needs_passphrase(home):
        return None
    left, exists = init.left_passphrase(home), (home.ca / "root.key").exists()
    if file is not None:
        given = init.passphrase_file(file)
        if left is not None and left.value != given:
            raise PeanutError(
                f"{home.ca / 'root.pass'} holds another passphrase than {file}",
                "Leave out --passphrase-file to go on with the one in root.pass.",
            )
        return init.Passphrase(given, generated=False) if exists else init.check_passphrase(given)
    if left is not None:
        return left
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if exists and not terminal:
        raise PeanutError(
            "the passphrase of ca/root.key is needed, and there is no terminal to ask at",
            "Give --passphrase-file FILE.",
        )
    if not exists and (generate or not terminal):
        return init.generate_passphrase()
    if not ask:
        return None
    return init.Passphrase(_hidden("Passphrase of the root's key"), generated=False) if exists else _new_passphrase()


def ask_passphrase(what: str = "the root's key", *, twice: bool = False) -> bytes:
    """A passphrase, asked for. PeanutError where nobody can be asked, or the second is another than the first."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise PeanutError(
            f"the passphrase of {what} is needed, and there is no terminal to ask at", "Give --passphrase-file FILE."
        )
    value = _hidden(f"Passphrase of {what}")
    if twice and _hidden("Once more") != value:
        raise PeanutError("the two passphrases are not the same", "Type the same one twice.")
    return value


def _new_passphrase() -> init.Passphrase:
    """Asked for twice; an empty first answer generates one. PeanutError after PASSPHRASE_TRIES that are not good."""
    for left in reversed(range(init.PASSPHRASE_TRIES)):
        value = _hidden("Passphrase for the root's key (empty: generate one)")
        if not value:
            return init.generate_passphrase()
        try:
            good = init.check_passphrase(value)
            if _hidden("Once more") == value:
                return good
            raise PeanutError("the two passphrases are not the same", "Type the same one twice.")
        except PeanutError as error:
            if not left:
                raise
            warn(f"{error.message[0].upper()}{error.message[1:]}. {error.fix}")
    raise AssertionError("unreachable")


def _hidden(text: str) -> bytes:
    answer = click.prompt(text, default="", show_default=False, hide_input=True, err=True)
    return str(answer).encode(errors="surrogateescape")


@click.group("operator")
def operator_group() -> None:
    """Who may command the nodes: operator accounts."""


@operator_group.command("add")
@click.argument("name")
@dry_run_option
@pass_home
def operator_add(home: Home, name: str, dry_run: bool) -> None:
    """Make an operator account: a certificate that may command every node.

    \b
    Examples:
      peanut operator add maria
      mosquitto_pub --cafile fleet/operators/maria/ca.crt \\
        --cert fleet/operators/maria/operator.crt --key fleet/operators/maria/operator.key \\
        -h gateway.local -p 8883 -q 1 -t /plant/peanut/UpdateTemperature -m temperature:15
    """
    names.check_name(name, "operator's name")
    home.require()
    now = ca.utc_now()
    if dry_run:
        plan.carry_out(operators.plan(home, name, now), say, dry_run=True)
        return
    with home.lock(warn):
        plan.carry_out(operators.plan(home, name, now), say, dry_run=False)


@operator_group.command("revoke")
@click.argument("operator_names", nargs=-1, required=True, metavar="NAME...")
@why_option
@dry_run_option
@pass_home
def operator_revoke(home: Home, operator_names: tuple[str, ...], why: str, dry_run: bool) -> None:
    """Let an operator's certificate in no more; what is connected with it is cut within a second.

    \b
    Examples:
      peanut operator revoke maria --why "phone lost"
    """
    cli.revoke(home, _operator_uris(home, operator_names), why, dry_run=dry_run)


@operator_group.command("restore")
@click.argument("operator_names", nargs=-1, required=True, metavar="NAME...")
@dry_run_option
@pass_home
def operator_restore(home: Home, operator_names: tuple[str, ...], dry_run: bool) -> None:
    """Let an operator's certificate that was revoked in again.

    \b
    Examples:
      peanut operator restore maria
    """
    cli.restore(home, _operator_uris(home, operator_names), dry_run=dry_run)


def _operator_uris(home: Home, operator_names: tuple[str, ...]) -> list[str]:
    home.require()
    known = operators.existing(home)
    for name in operator_names:
        if name not in known:
            shown, listed = names.printable(name), ", ".join(known)
            raise PeanutError(f"there is no operator {shown!r}", f"Operators: {listed or 'none'}.")
    return [names.operator_uri(name) for name in dict.fromkeys(operator_names)]
