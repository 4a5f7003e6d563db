"""A board whose application is broken: what the stock image carries keeps it in touch with the gateway."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.interop.programs import umqtt_path

from .conftest import BIN, House, wait_for
from .flashing import board_of, command, run

SIX_STARTS = 90.0  # seconds, on a machine that does other things as well


@pytest.mark.timeout(900)
def test_a_node_without_its_application_is_rescued(house: House, tmp_path: Path) -> None:
    """A module is missing after a bad update: the node says so, refuses commands, and can be mended."""
    frozen = umqtt_path()["MICROPYPATH"].split(":")[0]
    with board_of("esp32", tmp_path / "board", "--frozen", frozen) as board, house.watch("/plant/peanut/#") as watcher:
        done = run(command(house, board))
        assert done.returncode == 0, done.stdout + done.stderr
        subprocess.run([BIN / "mpremote", "connect", board.port, "rm", ":node/app.mpy"], check=True, timeout=200)
        board.tell("reset")
        wait_for(
            lambda: "rescue" in watcher.latest("/plant/peanut/status"), "the rescue, after six crashes", SIX_STARTS
        )
        status = watcher.latest("/plant/peanut/status")
        assert status["state"] == "online"
        assert "app" in status["rescue"]
        assert house.peanut("send", "peanut", "UpdateTemperature", "15").returncode != 0
        mended = run(command(house, board))
        assert mended.returncode == 0, mended.stdout + mended.stderr
        assert "rescue" not in watcher.latest("/plant/peanut/status")
