"""A carton of boards: several at once, the ones that are left with the next command, and labels for all of them."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest

from .conftest import BIN, House
from .flashing import board_of, is_bare, run


@pytest.mark.timeout(900)
def test_a_carton_of_three_on_two_ports(house: House, tmp_path: Path) -> None:
    """Each board becomes a node of its own that is online; nobody's board is taken for another name."""
    names = tmp_path / "carton.csv"
    names.write_text("name,board\nbean,esp32-devkitc\nleek,esp32-devkitc\nonion,esp32-devkitc\n")
    with contextlib.ExitStack() as boards:
        first, second, third = (
            boards.enter_context(board_of("esp32", tmp_path / f"{n}", "--tcp", "0", "--mac", f"24:0a:c4:00:00:0{n}"))
            for n in range(3)
        )
        image = first.image()
        pinned = hashlib.sha256(image.read_bytes()).hexdigest()

        def flash_all(*words: str) -> tuple[int, str]:
            command = [str(BIN / "peanut"), "--home", str(house.home), "flash", "--all", *words]
            command += ["--names", str(names), "--image", str(image), "--sha256", pinned, "--simulate", "--no-wifi"]
            done = run(command)
            return done.returncode, done.stdout + done.stderr

        status, said = flash_all(first.port, second.port, "--dry-run")
        assert status == 0, said
        assert [said.count(f"\n{name} ") > 3 for name in ("bean", "leek", "onion")] == [True] * 3, said
        assert is_bare(first)
        assert not list((house.home / "devices").glob("*"))

        status, said = flash_all(first.port, second.port)
        assert "bean is online" in said, said
        assert "leek is online" in said
        assert "2 of 3 done" in said
        assert status == 2  # one is left, and it says so
        status, said = flash_all(first.port)  # who forgets to change the boards
        assert status == 2
        assert "is bean already" in said
        status, said = flash_all(third.port)
        assert status == 0, said
        assert "onion is online" in said
        for name in ("bean", "leek", "onion"):
            assert house.peanut("send", name, "UpdateTemperature", "15").returncode == 0
    sheet = (house.home / "labels.html").read_text()
    assert (sheet.count("<svg"), "#/device/onion" in sheet) == (3, True)
