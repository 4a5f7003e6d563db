"""From the bare board to the acknowledged command, through the very bytes that esptool wrote."""

from __future__ import annotations

from pathlib import Path

from .conftest import House, wait_for
from .flashing import board_of, command, run


def test_bare_board_to_acknowledged_command(house: House, tmp_path: Path) -> None:
    """long_flash.py does it with the other chips."""
    obeys("esp32", house, tmp_path)


def obeys(chip: str, house: House, tmp_path: Path) -> None:
    """One command writes the board and sees the node online; the node obeys, and still does after the power was off."""
    with board_of(chip, tmp_path / chip) as board, house.watch("/plant/peanut/#") as watcher:
        done = run(command(house, board))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "peanut is online" in done.stdout
        assert watcher.latest("/plant/peanut/status")["state"] == "online"
        sent = house.peanut("send", "peanut", "UpdateTemperature", "15")
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert "done" in sent.stdout
        board.tell("off")
        wait_for(lambda: watcher.latest("/plant/peanut/status")["state"] == "offline", "the will")
        board.tell("on")
        wait_for(lambda: watcher.latest("/plant/peanut/status")["state"] == "online", "back again")
        wait_for(lambda: watcher.latest("/plant/peanut/state").get("setpoint") == 15, "the set point kept")
