"""The side channel to a running board: what a hand, a cable and a meter are to a real one.

Rule: a Unix socket of mode 0600; a line is a command in words, the answer a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

from .board import Board

TELL_S = 10.0

COMMANDS = """\
reset         press EN
bootloader    hold BOOT, press EN
unplug, plug  pull the cable (port and power), put it in
off, on       power alone
status        what the board does, as JSON
uv PIN N      from now on an ADC reads N microvolts at PIN
level PIN L   from outside, PIN is at level 0 or 1
"""


async def obey(board: Board, words: list[str]) -> dict[str, Any]:
    """Does what the words say; the report after it."""
    match words:
        case ["reset"]:
            board.press_en()
        case ["bootloader"]:
            board.press_en(boot=True)
        case ["unplug"]:
            board.unplug()
        case ["plug"]:
            await board.plug()
        case ["off"]:
            board.power_off()
        case ["on"]:
            board.power_on()
        case ["uv", pin, value] if pin.isdigit() and value.isdigit():
            board.microvolts[int(pin)] = int(value)
        case ["level", pin, "0" | "1" as level] if pin.isdigit():
            board.levels[int(pin)] = int(level)
        case ["status"]:
            pass
        case _:
            return {"error": f"no such command: {' '.join(words)}"}
    return board.report()


async def listen(board: Board, path: Path) -> asyncio.Server:
    """Makes the socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            while words := (await reader.readline()).decode().split():
                writer.write(json.dumps(await obey(board, words)).encode() + b"\n")
        writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    path.chmod(0o600)
    return server


def answers(path: Path) -> bool:
    """Whether a board listens at `path`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TELL_S)
        try:
            connection.connect(str(path))
        except PermissionError:  # another user's, so it is not for us to say that it is gone
            return True
        except OSError:
            return False
    return True


def tell(path: Path, *words: str) -> dict[str, Any]:
    """Tells the board whose socket is `path`; its report. OSError if no board is there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TELL_S)
        connection.connect(str(path))
        connection.sendall(" ".join(words).encode() + b"\n")
        with connection.makefile() as answers:
            report: dict[str, Any] = json.loads(answers.readline())
    return report
