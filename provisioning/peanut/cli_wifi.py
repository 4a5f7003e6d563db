"""`peanut wifi add|list|remove`."""

from pathlib import Path

import click

from peanut import init, wifi
from peanut.cli import json_option, pass_home, say, say_json, table, warn
from peanut.cli_flash import add_network
from peanut.home import Home


@click.group("wifi")
def wifi_group() -> None:
    """The Wi-Fi networks that the fleet's nodes join."""


@wifi_group.command("add")
@click.argument("ssid")
@click.option(
    "--password-file", type=click.Path(path_type=Path), metavar="FILE", help="Its first line is the password."
)
@click.option("--open", "is_open", is_flag=True, help="The network has no password.")
@click.option("--country", metavar="CC", help="Two letters; tells the nodes which channels are allowed.")
@pass_home
def add(home: Home, ssid: str, password_file: Path | None, is_open: bool, country: str | None) -> None:
    """Add a network, or give one another password. Asks for the password.

    It is kept in wifi.toml in the fleet home (mode 0600), and is never shown. Boards get it when they are flashed.

    \b
    Examples:
      peanut wifi add Greenhouse --country DE
      peanut wifi add Greenhouse --password-file /run/secrets/wifi
      peanut wifi add Guests --open
    """
    home.require()
    password = "" if is_open else init.passphrase_file(password_file).decode() if password_file else None
    known = add_network(home, ssid, password, country)
    say(f"The fleet's nodes know {len(known.networks)} networks now; a board learns them when it is flashed.")
    if not next(n for n in known.networks if n.ssid == ssid).password:
        warn(f"Warning: {ssid} is open: everybody near it can be in the same network as the nodes.")


@wifi_group.command("list")
@json_option
@pass_home
def list_(home: Home, as_json: bool) -> None:
    """List the networks, without their passwords.

    \b
    Examples:
      peanut wifi list
    """
    home.require()
    known = wifi.read(home)
    if as_json:
        say_json({"country": known.country, "networks": [{"ssid": n.ssid, "open": n.open} for n in known.networks]})
        return
    if not known.networks:
        warn("No networks yet. Add one: peanut wifi add SSID")
        return
    table(("SSID", "SECURITY"), [(n.ssid, "open" if n.open else "password") for n in known.networks])


@wifi_group.command("remove")
@click.argument("ssid")
@pass_home
def remove(home: Home, ssid: str) -> None:
    """Forget a network. Boards that have it keep it until they are flashed again.

    \b
    Examples:
      peanut wifi remove Guests
    """
    home.require()
    with home.lock(warn):
        wifi.write(home, wifi.without_network(wifi.read(home), ssid))
    say(f"{ssid} is forgotten.")
