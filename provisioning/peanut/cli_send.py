"""`peanut send`."""

import json
from datetime import UTC, datetime

import click

from peanut import ca, names, revocation, send, session, settings, signing
from peanut.cli import json_option, pass_home, say
from peanut.device import row
from peanut.errors import Exit, PeanutError
from peanut.home import Home
from peanut.names import Kind
from peanut.send import Progress, Stage


@click.command("send", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command")
@click.argument("values", nargs=-1, metavar="[VALUE]...")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=send.TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the node.",
)
@click.option("--gateway", metavar="HOST[:PORT]", help="Default: this machine, at the port in gateway.toml.")
@click.option("--operator", metavar="NAME", help="Whose certificate to use. Default: operator, or the only one.")
@json_option
@pass_home
def send_command(
    home: Home,
    name: str,
    command: str,
    values: tuple[str, ...],
    timeout: float,
    gateway: str | None,
    operator: str | None,
    as_json: bool,
) -> None:
    """Send a command to a node and wait until it is done.

    UpdateTemperature takes degrees Celsius; other commands take KEY=VALUE or one JSON object. Commands to a vehicle
    (unlock, lock, start, stop, horn) are signed with its key, which is in the fleet home.

    \b
    Examples:
      peanut send peanut UpdateTemperature 15
      peanut send peanut heater mode=off
      peanut send peanut vent '{"mode": "open"}' --timeout 60
      peanut send peanut identify --gateway gateway.local --json
      peanut send 1M8GDM9AXKP042788 unlock

    \b
    Exit status:
      0  done                          4  a certificate is not good
      1  the node rejected it          5  the gateway does not permit it
      2  wrong arguments               6  the node is offline and did not answer
      3  the gateway is unreachable    7  no answer, or not done, in time
    """
    for value in values:
        if value.startswith("--"):
            raise click.NoSuchOption(value.partition("=")[0])
    home.require()
    kind = Kind(row(home, name).kind) if home.ledger.exists() else _guess(name)
    _check_not_revoked(home, name, kind)
    path = home.device(name) / signing.KEY_FILE
    key = signing.read_key(path) if kind is Kind.VEHICLE and path.exists() else None
    request = send.compose(name, kind, command, values, key)
    files = session.credentials(home, operator, ca.utc_now())
    address = names.split_host_port(gateway, settings.MQTTS_PORT) if gateway else settings.connect_address(home)
    tell = _tell_json if as_json else _tell
    end = send.Exchange(request, address, session.tls(files), tell).run(timeout)
    if end is Stage.REJECTED:
        click.get_current_context().exit(Exit.REJECTED)


def _check_not_revoked(home: Home, name: str, kind: Kind) -> None:
    """It could not hear anything, and whoever waits for it would look at its cables."""
    entry = revocation.read(home).get(names.device_uri(name, kind))
    if entry is not None and not entry.good:
        since = datetime.fromtimestamp(entry.since, UTC)
        raise PeanutError(
            f"{name} was revoked at {since:%Y-%m-%d %H:%M} UTC ({names.printable(entry.why)}): it cannot hear you",
            f"If it is yours again: peanut device restore {name}",
            Exit.OFFLINE,
        )


def _guess(name: str) -> Kind:
    # An operator's own machine may have the certificate and no ledger: then the name tells the kind.
    kind = names.kind_of(name)
    names.check_device(name, kind)
    return kind


def _tell(progress: Progress) -> None:
    after = "" if progress.stage in (Stage.SENT, Stage.OFFLINE) else f"after {progress.elapsed:.2f} s  "
    say(f"{progress.stage:<9} {after}{progress.detail}".rstrip())


def _tell_json(progress: Progress) -> None:
    line = {"stage": progress.stage, "elapsed": round(progress.elapsed, 3), "detail": progress.detail}
    if progress.state:
        line["state"] = progress.state
    say(json.dumps(line))
