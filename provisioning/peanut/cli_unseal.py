"""`peanut unseal`."""

import sys

import click

from peanut import sealing, signing
from peanut.cli import pass_home, say
from peanut.device import row
from peanut.errors import PeanutError
from peanut.home import Home
from peanut.names import Kind, printable

LINE_MAX = 4096  # characters of a payload (agreement 2)


@click.command("unseal")
@click.argument("vin")
@click.option("--topic", default="telemetry", show_default=True, help="The last level of the topic that it came on.")
@pass_home
def unseal_command(home: Home, vin: str, topic: str) -> None:
    """Open what a vehicle with `vehicle.seal` has published: one payload a line, from standard input.

    \b
    Example, with the operator's certificate in keys/:
      mosquitto_sub … -t vin/1M8GDM9AXKP042788/telemetry | peanut unseal 1M8GDM9AXKP042788
    """
    home.require()
    if row(home, vin).kind != Kind.VEHICLE:
        raise PeanutError(f"{vin} is not a vehicle", "Only vehicles seal what they publish.")
    key = signing.read_key(home.device(vin) / signing.KEY_FILE)
    for line in sys.stdin:
        say(printable(sealing.opened(key, topic, line.encode()), LINE_MAX))
