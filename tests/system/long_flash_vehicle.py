"""A vehicle on a board: `peanut flash` brings application and keys there, and it obeys. `make test-long`."""

from __future__ import annotations

from pathlib import Path

from .car import VIN
from .conftest import House, wait_for
from .flashing import board_of, command, run

BOARD = "m5stack-atom-lite"
PINS = {"unlock": "19", "lock": "23", "horn": "22"}


def test_bare_board_to_an_unlocked_car(house: House, tmp_path: Path) -> None:
    """No model: the real drivers on the chip's pins and timer, and lines with nothing at their ends."""
    with board_of("esp32", tmp_path / "board") as board:
        words = [word for word in command(house, board, "--board", BOARD, name=VIN) if word != "--simulate"]
        done = run(words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{VIN} is online" in done.stdout
        assert {board.wait_for()["pins"][pin] for pin in PINS.values()} == {0}
        key = (house.home / "devices" / VIN / "sign.key").read_bytes()
        assert key in board.flash.read_bytes()
        sent = house.peanut("send", VIN, "unlock")
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert "done" in sent.stdout
        wait_for(lambda: {board.wait_for()["pins"][pin] for pin in PINS.values()} == {0}, "all relays open")
        refused = house.peanut("send", VIN, "start")
        assert (refused.returncode, "this board has no start" in refused.stdout) == (1, True), refused.stdout
