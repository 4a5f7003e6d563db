"""`peanut backup` and `peanut restore`: the whole fleet home in one encrypted file, and back."""

import shlex
from pathlib import Path

import click

from peanut import backup, cli_init, init
from peanut.cli import pass_home, say, warn
from peanut.errors import PeanutError
from peanut.home import Home

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its first line is the passphrase of the backup. Without it you are asked.",
)


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@passphrase_option
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@pass_home
def backup_command(home: Home, file: Path, passphrase_file: Path | None, force: bool) -> None:
    """Put everything of the fleet that cannot be made again into FILE, encrypted: keys, certificates, the ledger,
    settings, users, groups and alerts.

    The gateway may run meanwhile. What was measured (history.db) and messages that wait for somebody are not in it.
    Keep FILE and its passphrase apart, and off this machine.

    \b
    Examples:
      peanut backup /media/stick/fleet-2026-11-21.peanut
    """
    home.require()
    if file.exists() and not force:
        raise PeanutError(f"{file} is there already", "Name another file, or say --force.")
    if passphrase_file:
        secret = init.passphrase_file(passphrase_file)
    else:
        secret = cli_init.ask_passphrase("the backup", twice=True)
    init.check_passphrase(secret)
    with home.lock(warn):
        data = backup.create(home, secret)
        count = len(backup.files(home))
    backup.write(file, data)
    say(f"{count} files, {len(data)} bytes: {file}")


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@passphrase_option
@pass_home
def restore_command(home: Home, file: Path, passphrase_file: Path | None) -> None:
    """Bring a fleet back from FILE, into a home that is empty or not there.

    \b
    Examples:
      peanut --home /srv/fleet restore /media/stick/fleet-2026-11-21.peanut
    """
    backup.check_empty(home)
    secret = init.passphrase_file(passphrase_file) if passphrase_file else cli_init.ask_passphrase("the backup")
    count = backup.restore(home, backup.read(file), secret)
    say(f"{count} files: {home.path}")
    warn(
        f"Start the gateway: peanutd --home {shlex.quote(str(home.path))}\n"
        "The nodes come back by themselves if it has the name or address that they know."
    )
