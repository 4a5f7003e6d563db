"""What can go wrong between PC and board: each is said with its fix, and what is not to be written is not.

long_flash_refused.py has what takes its time.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from tests.programs import program
from tools.virtual_board.chips import CHIPS
from tools.virtual_board.image import make_image

from .conftest import BIN, House
from .flashing import board_of, command, is_bare, run


def test_another_chip_is_refused(house: House, tmp_path: Path) -> None:
    """The board file says ESP32, and an S3 is there."""
    other = tmp_path / "esp32.bin"  # it fits the board that is named, so that the chip is what is wrong
    other.write_bytes(make_image(CHIPS["esp32"]))
    image = ("--image", str(other), "--sha256", hashlib.sha256(other.read_bytes()).hexdigest())
    with board_of("esp32s3", tmp_path / "board") as board:
        done = run(command(house, board, "--board", "esp32-devkitc", *image))
        assert done.returncode == 2
        assert "has an ESP32-S3, and esp32-devkitc has an ESP32" in done.stderr
        assert is_bare(board)


def test_another_size_of_flash_is_refused(house: House, tmp_path: Path) -> None:
    """The board file says 4 MB, and 8 are there."""
    with board_of("esp32", tmp_path / "board", "--flash-mb", "8") as board:
        done = run(command(house, board))
        assert done.returncode == 2
        assert "8 MB of flash, and esp32-devkitc has 4 MB" in done.stderr
        assert is_bare(board)


def test_another_image_is_refused(house: House, tmp_path: Path) -> None:
    """A file that does not have the hash that is wanted."""
    with board_of("esp32", tmp_path / "board") as board:
        done = run(command(house, board, "--sha256", "00" * 32))
        assert done.returncode == 2
        assert "its SHA-256 is" in done.stderr
        assert is_bare(board)


def test_a_port_without_permission_names_the_group(house: House, tmp_path: Path) -> None:
    """Whoever may not use the port is told which group may."""
    with board_of("esp32", tmp_path / "board") as board:
        os.chmod(os.path.realpath(board.port), 0)
        powerless = [program("setpriv", "util-linux"), "--bounding-set=-all", "--inh-caps=-all"]
        done = run([*(powerless if os.geteuid() == 0 else []), *command(house, board)])
        assert done.returncode == 2
        assert f"no permission to use {board.port}" in done.stderr
        assert "sudo usermod -aG " in done.stderr


def test_a_full_disk_writes_nothing_to_the_board(house: House, tmp_path: Path) -> None:
    """The PC has no room for what it keeps: said in words, and the board stays as it was."""
    with board_of("esp32", tmp_path / "board") as board:
        words = command(house, board)
        disk = tmp_path / "disk"
        disk.mkdir()
        words[words.index(str(house.home))] = str(disk / "fleet")
        script = (
            f'mount -t tmpfs -o size=2m tmpfs "{disk}" || exit 99; cp -a "{house.home}" "{disk}/fleet" || exit 98\n'
            f'dd if=/dev/zero of="{disk}/fill" bs=4k 2>/dev/null; exec "$@"'
        )
        as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        done = run([program("unshare", "util-linux"), "--mount", *as_root, "sh", "-c", script, "sh", *words])
        assert done.returncode == 2, done.stdout + done.stderr
        assert re.search("no space left on the device that holds|Is the device that holds it full", done.stderr)
        assert is_bare(board)
        assert (BIN / "peanut").exists()
