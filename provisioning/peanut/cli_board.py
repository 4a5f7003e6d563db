"""`peanut board list|check|show`."""

from collections.abc import Mapping
from pathlib import Path

import click

from peanut import board, pinout
from peanut.board import Board
from peanut.chips import CHIPS
from peanut.cli import boards_option, json_option, say, say_json, table, warn
from peanut.errors import Exit, PeanutError
from peanut.fields import Value

MB = 1024 * 1024


@click.group("board")
def board_group() -> None:
    """Boards: what a node can run on, and which pin does what there."""


@board_group.command("list")
@boards_option
@json_option
def list_(folder: Path | None, as_json: bool) -> None:
    """List the boards.

    \b
    Examples:
      peanut board list
      peanut board list --json | jq -r '.[].name'
    """
    where = board.folder(folder)
    boards = [board.read(name, where) for name in board.available(where)]
    if as_json:
        say_json([{"name": b.name, "title": b.title, "chip": b.chip, "profiles": list(b.profiles)} for b in boards])
        return
    table(
        ("BOARD", "CHIP", "FLASH", "CAN BE", "WHAT IT IS"),
        [(b.name, b.chip, f"{b.flash_mb} MB" if b.flash_mb else "-", ", ".join(b.profiles), b.title) for b in boards],
    )


@board_group.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@boards_option
def check(names: tuple[str, ...], folder: Path | None) -> None:
    """Check board files: keys, values, and what no pin may be used for. Default: all of them.

    \b
    Examples:
      peanut board check
      peanut board check my-board --boards ./boards
    """
    where = board.folder(folder)
    bad = 0
    for name in names or board.available(where):
        try:
            found = board.read(name, where)
        except PeanutError as error:
            bad += 1
            say(f"{name}: NOT GOOD")
            warn(f"  {error.message}")
            warn(f"  {error.fix}")
        else:
            unpinned = found.image is not None and not found.image.sha256
            say(f"{name}: good" + (", its image has no SHA-256" if unpinned else ""))
    if bad:
        click.get_current_context().exit(Exit.USAGE)


@board_group.command("show")
@click.argument("name")
@boards_option
@json_option
def show(name: str, folder: Path | None, as_json: bool) -> None:
    """Show a board: what it is, and what each pin does.

    \b
    Examples:
      peanut board show esp32-devkitc
      peanut board show xiao-esp32c3 --json
    """
    found = board.read(name, board.folder(folder))
    rows = pinout.drawing(found)
    if as_json:
        keys = ("pin", "use", "what", "remarks")
        say_json({"name": found.name, "title": found.title, "pins": [dict(zip(keys, r, strict=True)) for r in rows]})
        return
    for key, value in _lines(found).items():
        if value:
            say(f"{key:<12} {value}")
    if rows:
        say("")
        table(("PIN", "USE", "WHAT FOR", "REMARKS"), rows)
    others = [(f"outputs.{n}", t) for n, t in found.outputs.items() if "bus" in t]
    others += [(f"sensors.{n}", t) for n, t in found.sensors.items() if "bus" in t]
    if others:
        say("")
        table(
            ("ON A BUS", "CHIP", "BUS", "WHERE", ""),
            [(n, str(t["driver"]), str(t["bus"]), *_place(t)) for n, t in others],
        )
    for warning in found.warnings:
        warn(f"Warning: {warning}")


def _place(thing: Mapping[str, Value]) -> tuple[str, str]:
    where = f"{int(thing['address']):#04x}" if "address" in thing else ""
    if "bit" in thing:
        where = f"{where} bit {thing['bit']}".strip()
    what = str(thing.get("quantity", ""))
    if "safe" in thing:
        what = f"on when {'high' if thing.get('on', 1) else 'low'}, {thing['safe']} at start"
    return where, what


def _lines(found: Board) -> dict[str, str]:
    chip = CHIPS.get(found.chip)
    memory = f"{found.flash_mb} MB of flash" + (f", {found.psram_mb} MB of PSRAM" if found.psram_mb else "")
    image = found.image
    return {
        "board": found.name,
        "title": found.title,
        "chip": f"{chip.name}, {found.cpu_mhz} MHz, {memory}" if chip else "a process on a PC",
        "can be": ", ".join(found.profiles),
        "has": ", ".join(found.capabilities),
        "image": f"{image.file} at {image.offset:#x}" if image else "",
        "sha256": image.sha256 or "none: see `checked`" if image else "",
        "file system": f"{found.fs_bytes() / MB:g} MB from {found.fs_offset:#x} on" if chip else "",
        "serial": f"{found.baud} baud, USB {found.usb}" if chip else "",
        "checked": found.checked,
    }
