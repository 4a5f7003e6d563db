"""What takes minutes: every chip, boards as slow as an emulated ESP32, lines as slow as pyserial's RFC 2217.

Not part of `make test`; its name keeps it from being collected there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import House
from .flashing import BOARDS, board_of, command, run
from .test_flash_boards import obeys


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("chip", "options"),
    [
        ("esp32c3", ("--slow", "10", "--throttle", "60")),  # REPL after 10 s, a TLS handshake takes seconds
        ("esp32", ("--rfc2217", "0", "--no-hand")),  # reset by the wires alone
        ("esp32s3", ("--tcp", "0", "--line-kb", "11")),  # 115200 bit/s
    ],
    ids=["slow", "rfc2217", "tcp"],
)
def test_slow_board_or_line_to_acknowledged_command(
    chip: str, options: tuple[str, ...], house: House, tmp_path: Path
) -> None:
    """No limit is too short for them."""
    with board_of(chip, tmp_path / "board", *options) as board:
        done = run(command(house, board), timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "peanut is online" in done.stdout
        sent = house.peanut("send", "peanut", "UpdateTemperature", "15")
        assert sent.returncode == 0, sent.stdout + sent.stderr
        pushed = house.peanut("push", "peanut", "--patience", "5", timeout=300)  # its REPL is stopped and started
        assert pushed.returncode == 0, pushed.stdout + pushed.stderr


@pytest.mark.timeout(400)
@pytest.mark.parametrize("chip", sorted(set(BOARDS) - {"esp32"}))
def test_bare_board_to_acknowledged_command(chip: str, house: House, tmp_path: Path) -> None:
    obeys(chip, house, tmp_path)
