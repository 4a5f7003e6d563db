"""What can go wrong between PC and board: each is said with its fix, and what is not to be written is not."""

from __future__ import annotations

import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.programs import program

from .conftest import BIN, House
from .flashing import board_of, command, is_bare, run

DEADLINE = 60.0


def test_another_chip_is_refused(house: House, tmp_path: Path) -> None:
    """The board file says ESP32, and an S3 is there."""
    with board_of("esp32s3", tmp_path / "board") as board:
        done = run(command(house, board, "--board", "esp32-devkitc"))
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


def test_unplugged_while_writing_and_done_again(house: House, tmp_path: Path) -> None:
    """The command fails with the reason; the same command again takes the board online."""
    (tmp_path / "esptool.cfg").write_text("[esptool]\nconnect_attempts = 1\n")  # waits for the cable a second each
    with board_of("esp32", tmp_path / "board", "--line-kb", "200") as board:
        words = command(house, board)
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "ESPTOOL_CFGFILE": str(tmp_path / "esptool.cfg")},
        ) as writing:  # fmt: skip
            end = time.monotonic() + DEADLINE
            with board.flash.open("rb", buffering=0) as flash:
                while flash.seek(0x1000) and flash.read(1) == b"\xff":
                    assert time.monotonic() < end
                    assert writing.poll() is None
                    time.sleep(0.002)
            board.tell("unplug")
            assert writing.stdout is not None
            said = writing.stdout.read()
        assert writing.returncode == 2, said
        assert f"{board.port} has gone" in said
        board.tell("plug")
        done = run(words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "peanut is online" in done.stdout


def test_where_it_hangs_is_said(house: House, tmp_path: Path) -> None:
    """At the Wi-Fi, without its password being said; at a gateway that is not there. Status 6: written, not online.

    Both at once, for most of it is waiting.
    """
    absent = House(tmp_path / "absent")
    (tmp_path / "password").write_text("wrong horse battery\n")
    house.peanut("wifi", "add", "house", "--password-file", str(tmp_path / "password"), check=True)
    with (
        board_of("esp32", tmp_path / "far", "--wifi", "house:right horse battery") as far,
        board_of("esp32c3", tmp_path / "alone") as alone,
        ThreadPoolExecutor() as pool,
    ):
        orders = (command(house, far, "--patience", "0.15"), command(absent, alone, "--patience", "0.15", "--no-wifi"))
        outside, lonely = pool.map(run, orders)
        assert outside.returncode == 6, outside.stdout + outside.stderr
        assert "Wi-Fi" in outside.stderr
        assert "wrong password" in outside.stderr
        assert "wrong horse" not in outside.stdout + outside.stderr
        assert lonely.returncode == 6, lonely.stdout + lonely.stderr
        assert "written and verified" in lonely.stdout
        assert "gateway unreachable" in lonely.stderr
        assert (
            f"hangs at the connection to the gateway: refused: nothing listens on localhost:{absent.port}"
            in lonely.stderr
        )
        alone.wait_for(state="program")


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
