"""python -m tools.virtual_board: a board that a PC's tools take for one; `--tell` presses its buttons.

Rule: the first line of the output is the port and nothing else, the second a command for people. The board ends with
whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import tomllib
from pathlib import Path

from . import control
from .board import Board, Settings
from .chips import CHIPS, Chip
from .flash import MIB, Flash
from .image import make_image
from .line import Line, PtyLine, Rfc2217Line, TcpLine

ROOT = Path(__file__).resolve().parents[2]
BOARD = "esp32-devkitc"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PARENT_S = 0.5  # how often it is looked whether the parent is still there


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.virtual_board",
        description="A board without hardware: flash it with esptool, talk to it with mpremote.",
        epilog="commands of --tell:\n" + control.COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--board", default=BOARD, help=f"chip and flash of boards/BOARD (default {BOARD})")
    parser.add_argument("--chip", choices=CHIPS, help="another chip than the board's")
    parser.add_argument("--flash", type=Path, metavar="FILE", help="keep the flash in FILE (default: a temporary file)")
    parser.add_argument("--flash-mb", type=int, choices=(2, 4, 8, 16), help="another size of flash")
    parser.add_argument("--mac", type=lambda text: bytes.fromhex(text.replace(":", "")), default=Settings.mac)
    line = parser.add_mutually_exclusive_group()
    line.add_argument("--link", type=Path, help="a terminal whose name is LINK (default: any free terminal)")
    line.add_argument("--tcp", type=int, metavar="PORT", help="socket://127.0.0.1:PORT instead (0: any free one)")
    line.add_argument("--rfc2217", type=int, metavar="PORT", help="rfc2217://127.0.0.1:PORT instead, with DTR and RTS")
    parser.add_argument("--control", type=Path, metavar="SOCKET", help="where --tell finds it (default: LINK.ctl)")
    parser.add_argument("--tell", nargs="+", metavar="WORD", help="tell the board at --control or --link, and end")
    parser.add_argument(
        "--hand", type=float, metavar="SECONDS", default=Settings.hand,
        help="EN is pressed so long after a tool has left the loader, BOOT and EN when one calls (default 1)",
    )  # fmt: skip
    parser.add_argument("--no-hand", action="store_true", help="nobody presses buttons but --tell")
    parser.add_argument(
        "--slow", type=float, metavar="SECONDS", default=0.0, help="what the interpreter takes to start"
    )
    parser.add_argument("--wifi", action="append", metavar="SSID[:PASSWORD]", help="a network there is (default: any)")
    parser.add_argument("--line-kb", type=float, metavar="KB", help="what the line carries in a second (default: all)")
    parser.add_argument("--frozen", type=Path, metavar="DIR", help="Python modules that its image carries")
    parser.add_argument("--off", action="store_true", help="begin without power (--tell on)")
    parser.add_argument(
        "--throttle", type=float, metavar="TIMES", default=1.0, help="how much slower than this PC it is"
    )
    parser.add_argument("--bad-sector", action="append", type=lambda t: int(t, 0), metavar="OFFSET", default=[])
    parser.add_argument("--write-protected", action="store_true", help="the flash takes nothing")
    return parser


def facts(options: argparse.Namespace) -> tuple[Chip, int]:
    """The chip and the bytes of its flash: what was said, else the board's. ValueError if there is no such board."""
    try:
        board = tomllib.loads((ROOT / "boards" / options.board / "board.toml").read_text())
        return CHIPS[options.chip or board["chip"]], (options.flash_mb or board["flash_mb"]) * MIB
    except (OSError, KeyError):
        raise ValueError(f"{options.board} is no board with a chip; boards: peanut board list") from None


def advice(options: argparse.Namespace, chip: Chip, port: str) -> str:
    """Writes an image beside the link; the command that flashes the board with it."""
    file = options.link.with_name(options.link.name + ".bin")
    file.write_bytes(make_image(chip))
    return (
        f"to flash it: make flash NAME=bean PORT={port} BOARD={options.board} SIMULATE=1 FLASH=--no-wifi "
        f"IMAGE={file} SHA256=$(sha256sum {file} | cut -c1-64)"
    )


def control_path(options: argparse.Namespace) -> Path | None:
    """Where the board listens for --tell."""
    if options.control or not options.link:
        path: Path | None = options.control
        return path
    link: Path = options.link
    return link.with_name(link.name + ".ctl")


def check_link(options: argparse.Namespace) -> None:
    """ValueError for a link that cannot be made, or that somebody has; what a board that is gone left is replaced."""
    link: Path | None = options.link
    if link is None:
        return
    other = "take another name (PORT=, or --link)"
    if not link.parent.is_dir():
        raise ValueError(f"there is no folder {link.parent} for {link}: make it, or {other}")
    if os.path.lexists(link) and not (link.is_symlink() and os.readlink(link).startswith("/dev/pts/")):
        raise ValueError(f"{link} is there already, and no virtual board has made it: {other}")
    path = control_path(options)
    if path is not None and control.answers(path):
        raise ValueError(f"another virtual board has {link}: end it (Ctrl-C where it runs), or {other}")


async def serve(options: argparse.Namespace, chip: Chip, flash: Flash) -> None:
    """Runs the board until it is told to end or its parent has."""
    line: Line
    if options.tcp is not None:
        line = TcpLine("127.0.0.1", options.tcp)
    elif options.rfc2217 is not None:
        line = Rfc2217Line("127.0.0.1", options.rfc2217)
    else:
        line = PtyLine(options.link)
    air = dict(network.partition(":")[::2] for network in options.wifi) if options.wifi else None
    settings = Settings(
        mac=options.mac,
        hand=None if options.no_hand else options.hand,
        slow=options.slow,
        rate=options.line_kb * 1024 if options.line_kb else None,
        throttle=options.throttle,
        frozen=options.frozen,
        air=air,
    )
    board = Board(chip, flash, line, settings)

    path = control_path(options)
    server = await control.listen(board, path) if path else None
    ended = asyncio.Event()
    for number in ENDINGS:
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    parent = os.getppid()
    try:
        await board.plug(power=not options.off)
        print(line.port, flush=True)
        if options.link:
            print(advice(options, chip, line.port), flush=True)
        while not ended.is_set() and os.getppid() == parent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PARENT_S)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)  # it ends: to be told so again shall not break that off
        board.unplug()
        if server is not None:
            server.close()
        if path is not None:
            path.unlink(missing_ok=True)


def main() -> int:
    """Runs a board, or tells one something."""
    parser = arguments()
    options = parser.parse_args()
    if options.tell:
        path = control_path(options)
        if path is None:
            parser.error("--tell needs --link or --control, the same as the board's")
        try:
            report = control.tell(path, *options.tell)
        except OSError as error:
            print(f"virtual board: nobody listens at {path}: {error}", file=sys.stderr)
            return 1
        print(json.dumps(report))
        return 1 if "error" in report else 0
    with tempfile.TemporaryDirectory(prefix="virtual-board-") as temporary:
        file = options.flash or Path(temporary) / "flash.bin"
        try:
            chip, size = facts(options)
            check_link(options)
            flash = Flash(file, size, options.bad_sector, options.write_protected)
        except (OSError, ValueError) as error:
            print(f"virtual board: {error}", file=sys.stderr)
            return 1
        try:
            asyncio.run(serve(options, chip, flash))
        except OSError as error:  # the port: it may not be made there, or somebody has its number
            print(f"virtual board: it cannot start: {error}", file=sys.stderr)
            return 1
        finally:
            flash.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
