"""What can go wrong between PC and board, and takes its time: a cable that is pulled, a node that stays offline."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import House
from .flashing import board_of, command, run

DEADLINE = 60.0
pytestmark = pytest.mark.timeout(900)


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
