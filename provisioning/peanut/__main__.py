"""The command `peanut`, also `python -m peanut`: wires the groups of commands, and nothing else."""

import os
from pathlib import Path

import click

from peanut import __version__
from peanut.cli import Group
from peanut.cli_audit import audit_command
from peanut.cli_backup import backup_command, restore_command
from peanut.cli_bench import console_command, logs_command, push_command
from peanut.cli_board import board_group
from peanut.cli_ca import ca_group
from peanut.cli_device import device_group
from peanut.cli_flash import flash_command
from peanut.cli_init import init_command, operator_group
from peanut.cli_renew import renew_command
from peanut.cli_send import send_command
from peanut.cli_unseal import unseal_command
from peanut.cli_update import update_group
from peanut.cli_user import user_group
from peanut.cli_wifi import wifi_group
from peanut.home import resolve


@click.group(cls=Group)
@click.version_option(__version__, message="peanut %(version)s")
@click.option(
    "--home", type=click.Path(path_type=Path), metavar="DIR", help="Fleet home. Default: $PEANUT_HOME, else ./fleet."
)
@click.pass_context
def main(ctx: click.Context, home: Path | None) -> None:
    """Run a fleet of nodes in greenhouses and vehicles.

    \b
    From nothing to a greenhouse at 15 degrees:
      peanut init
      peanut device add peanut --kind greenhouse
      peanut send peanut UpdateTemperature 15
    """
    ctx.obj = resolve(home, os.environ.get("PEANUT_HOME"), os.environ.get("PEANUT_CONTROL"))


for command in (
    init_command,
    audit_command,
    backup_command,
    restore_command,
    board_group,
    ca_group,
    console_command,
    device_group,
    flash_command,
    logs_command,
    operator_group,
    push_command,
    renew_command,
    send_command,
    unseal_command,
    update_group,
    user_group,
    wifi_group,
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="peanut")
