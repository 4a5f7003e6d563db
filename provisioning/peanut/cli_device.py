"""`peanut device add|list|show|bundle|labels|renew|revoke|restore`."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from peanut import (
    audit,
    board,
    bundle,
    ca,
    cli,
    device,
    labels,
    ledger,
    names,
    plan,
    renewal,
    revocation,
    sightings,
    store,
)
from peanut.cli import boards_option, dry_run_option, json_option, pass_home, say, say_json, table, warn, why_option
from peanut.errors import PeanutError
from peanut.home import Home
from peanut.names import Kind


@click.group("device")
def device_group() -> None:
    """Greenhouses and vehicles: enrol them, look at them, hand out their files."""


@device_group.command("add")
@click.argument("name")
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), required=True, help="What it is.")
@click.option("--board", "board_name", metavar="BOARD", help=f"What it runs on. Default: {device.DEFAULT_BOARD}.")
@click.option("--simulate", is_flag=True, help="Run the physical model in place of the board's pins.")
@click.option(
    "--set",
    "texts",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help=f"Change a default of node.json; sections: {', '.join(board.ALL_SECTIONS)}. May be given several times.",
)
@boards_option
@dry_run_option
@pass_home
def add(
    home: Home,
    name: str,
    kind: str,
    board_name: str | None,
    simulate: bool,
    texts: tuple[str, ...],
    folder: Path | None,
    dry_run: bool,
) -> None:
    """Enrol a device: key, certificate, node.json, a row in the ledger.

    A greenhouse's NAME has a-z, 0-9 and '-'; a vehicle's is its VIN. Safe to run again: it keeps what is there,
    completes what is missing, applies each --set, renews a certificate that is about to expire, and brings node.json
    up to date with the fleet's gateway (but for what --set gateway.host or gateway.port gave).

    \b
    Examples:
      peanut device add peanut --kind greenhouse
      peanut device add tomato --kind greenhouse --set control.setpoint=16 --set simulate.speed=120
      peanut device add 1M8GDM9AXKP042788 --kind vehicle
    """
    request = device.Request(name, Kind(kind), board_name, simulate or None, bundle.parse_settings(texts))
    boards = board.folder(folder)
    now = ca.utc_now()
    home.require()
    if dry_run:
        plan.carry_out(device.plan(home, request, boards, now), say, dry_run=True)
    else:
        with home.lock(warn):
            plan.carry_out(device.plan(home, request, boards, now), say, dry_run=False)
    for warning in device.warnings(request, boards):
        warn(f"Warning: {warning}")


@device_group.command("list")
@json_option
@click.option(
    "--long", is_flag=True, help="Also what was seen of each: when, from where, which chip and firmware; its key."
)
@pass_home
def list_(home: Home, as_json: bool, long: bool) -> None:
    """List the devices of the fleet.

    \b
    Examples:
      peanut device list
      peanut device list --long
      peanut device list --json | jq -r '.[].name'
    """
    home.require()
    now = ca.utc_now()
    rows = ledger.devices(home.ledger)
    seen, entries = sightings.read(home), revocation.read(home)
    revoked = {row.name for row in rows if _is_revoked(entries, row)}
    there = {row.name: seen.get(renewal.identity(row), sightings.Sighting()) for row in rows}
    if as_json:
        say_json(
            [
                {
                    **asdict(row),
                    "days_left": _days(row, now),
                    "key": _key(home, row),
                    "revoked": row.name in revoked,
                    "seen": {**asdict(there[row.name]), "chip": there[row.name].chip},
                }
                for row in rows
            ]
        )
        _warn_of_outdated(home, rows)
        return
    if not rows:
        warn("No devices yet. Enrol one: peanut device add NAME --kind greenhouse")
        return
    head = ["NAME", "KIND", "BOARD", "VALID UNTIL", "DAYS LEFT", "SERIAL"]
    lines = [
        [
            *(r.name, r.kind, r.board, "revoked" if r.name in revoked else _date(r.not_after)),
            *(str(_days(r, now)), r.serial[:12]),
        ]
        for r in rows
    ]
    if long:
        head += ["FIRST SEEN", "LAST SEEN", "ADDRESS", "CHIP", "FIRMWARE", "KEY"]
        for line, r in zip(lines, rows, strict=True):
            s = there[r.name]
            line += [audit.when(s.first), audit.when(s.last), s.address, s.chip, s.firmware, _key(home, r)[:12]]
    table(head, lines)
    _warn_of_outdated(home, rows)


def _is_revoked(entries: revocation.Entries, row: ledger.Device) -> bool:
    return revocation.is_revoked(entries, names.device_uri(row.name, Kind(row.kind)), row.serial)


def _key(home: Home, row: ledger.Device) -> str:
    """Which key it is: SHA-256 of its SubjectPublicKeyInfo; empty if its certificate cannot be read."""
    try:
        return audit.spki(store.certificate(home.device(row.name) / "cert.der"))
    except PeanutError:
        return ""


def _warn_of_outdated(home: Home, rows: Sequence[ledger.Device]) -> None:
    try:
        fleet = device.fleet_gateway(home)
    except PeanutError as error:
        warn(f"Warning: whether nodes know their gateway cannot be told: {error.message}")
        return
    reasons: dict[str, list[str]] = {}
    for row in rows:
        try:
            why = device.outdated(home, row.name, fleet)
        except PeanutError as error:
            why = error.message
        if why:
            reasons.setdefault(why, []).append(row.name)
    for why, found in reasons.items():
        more = f" and {len(found) - device.LISTED_MAX} more" if len(found) > device.LISTED_MAX else ""
        warn(f"Warning: {', '.join(found[: device.LISTED_MAX])}{more}: {why}.")
    if reasons:
        warn("  Run `peanut device add NAME --kind KIND` for each, and give the node its new bundle.")


@device_group.command("show")
@click.argument("name")
@json_option
@pass_home
def show(home: Home, name: str, as_json: bool) -> None:
    """Show everything about one device that is no secret.

    \b
    Examples:
      peanut device show peanut
      peanut device show peanut --json
    """
    info = device.info(home, device.row(home, name), ca.utc_now())
    row = info.row
    if as_json:
        extra = {k: v for k, v in asdict(info).items() if k != "row"}
        say_json({**asdict(row), **extra, "bundle": str(home.device(name))})
        return
    lines: dict[str, Any] = {
        "name": row.name,
        "kind": row.kind,
        "board": row.board + (" (simulated)" if info.simulated else ""),
        "root topic": info.root,
        "gateway": info.gateway + (f" ({' and '.join(info.gateway_set)} by --set)" if info.gateway_set else ""),
        "serial": row.serial,
        "fingerprint": info.fingerprint,
        "valid from": _date(row.not_before),
        "valid until": f"{_date(row.not_after)} ({info.days_left} days left)",
        "enrolled": _date(row.created),
        "bundle": home.device(name),
        "problem": info.problem,
        "outdated": info.outdated and f"{info.outdated}. Run: peanut device add {row.name} --kind {row.kind}",
    }
    for key, value in lines.items():
        if str(value):
            say(f"{key:<12} {value}")


@device_group.command("bundle")
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where to; made if it is not there."
)
@click.option("--force", is_flag=True, help="Write into a directory that holds something else, too.")
@dry_run_option
@pass_home
def bundle_command(home: Home, name: str, out: Path, force: bool, dry_run: bool) -> None:
    """Copy a device's files (key.der cert.der ca.der node.json; a vehicle's sign.key) to a directory.

    A directory that holds a bundle of the same device, and nothing else, gets the present one.

    \b
    Examples:
      peanut device bundle peanut --out /media/stick/peanut
    """
    device.copy_bundle(home, name, out, say, force=force, dry_run=dry_run)
    _warn_of_outdated(home, [device.row(home, name)])


@device_group.command("labels")
@click.argument("device_names", nargs=-1, metavar="[NAME]...")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="HTML, to be printed.")
@pass_home
def labels_command(home: Home, device_names: tuple[str, ...], out: Path) -> None:
    """Write a sheet of labels with QR codes: name, and the link to the device's page. Default: all devices.

    \b
    Examples:
      peanut device labels --out labels.html
      peanut device labels peanut tomato --out labels.html
    """
    home.require()
    rows = [device.row(home, name) for name in device_names] if device_names else ledger.devices(home.ledger)
    out.write_bytes(labels.sheet([labels.label(home, row) for row in rows]))
    say(f"{len(rows)} labels: {out}")


@device_group.command("revoke")
@click.argument("device_names", nargs=-1, required=True, metavar="NAME...")
@why_option
@dry_run_option
@pass_home
def revoke_command(home: Home, device_names: tuple[str, ...], why: str, dry_run: bool) -> None:
    """Let a device in no more: its session is cut within a second, and no certificate that it has opens a new one.

    It needs no key of a CA: run it on the gateway's machine. It counts until `peanut device restore`, whatever is
    restarted. For a new board in place of a stolen one: `peanut device renew NAME`, then flash that one.

    \b
    Examples:
      peanut device revoke peanut --why "stolen on Sunday"
      peanut device revoke peanut tomato
    """
    cli.revoke(home, _uris(home, device_names), why, dry_run=dry_run)


@device_group.command("restore")
@click.argument("device_names", nargs=-1, required=True, metavar="NAME...")
@dry_run_option
@pass_home
def restore_command(home: Home, device_names: tuple[str, ...], dry_run: bool) -> None:
    """Let a device that was revoked in again.

    \b
    Examples:
      peanut device restore peanut
    """
    cli.restore(home, _uris(home, device_names), dry_run=dry_run)


@device_group.command("renew")
@click.argument("device_names", nargs=-1, required=True, metavar="NAME...")
@click.option("--here", is_flag=True, help="Put it into the bundle at once, for a board that is about to be flashed.")
@cli.wait_option
@pass_home
def renew_command(home: Home, device_names: tuple[str, ...], here: bool, wait_s: float) -> None:
    """Give a device a new key and a new certificate, whether they are due or not.

    They go to the node over its own session; it tries them, keeps them or returns to what it had, and only what it
    was seen with takes the place in its bundle. For a device that is revoked, or with --here, they are put into the
    bundle at once: flash a board with them. What is due is renewed by itself: see `peanut renew`.

    \b
    Examples:
      peanut device renew peanut
      peanut device renew peanut --here && peanut flash peanut     # the new board in place of a stolen one
    """
    uris = _uris(home, device_names)
    now, entries = ca.utc_now(), revocation.read(home)
    rows = [device.row(home, name) for name in dict.fromkeys(device_names)]
    revoked = {row for row, uri in zip(rows, uris, strict=True) if revocation.is_revoked(entries, uri, row.serial)}
    at_once = rows if here else [row for row in rows if row in revoked]
    with home.lock(warn):
        for row in at_once:
            made = renewal.renew_here(home, row, now)
            say(
                f"{row.name}: new key and certificate in its bundle, {ca.until(made.not_valid_after_utc)}; now flash it"
            )
    rest = [row for row in rows if row not in at_once]
    if rest:
        cli.renew_nodes(home, rest, now, force=True, wait_s=wait_s)


def _uris(home: Home, device_names: Sequence[str]) -> list[str]:
    home.require()
    rows = {row.name: row for row in ledger.devices(home.ledger)}
    for name in device_names:
        if name not in rows:
            device.row(home, name)  # says what is wrong
    return [names.device_uri(name, Kind(rows[name].kind)) for name in dict.fromkeys(device_names)]


def _days(row: ledger.Device, now: datetime) -> int:
    return (datetime.fromtimestamp(row.not_after, UTC) - now).days


def _date(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
