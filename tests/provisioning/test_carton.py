"""Many boards: the list of names, several at once, going on where it stopped, and the labels; the bench beside it."""

import hashlib
import re
import sys
from pathlib import Path

import pytest

from peanut import bench, carton, flash, labels, programs
from peanut.bench import There
from peanut.errors import PeanutError
from peanut.home import Home
from peanut.ledger import devices

from .conftest import Run, invoke


def listed(tmp_path: Path, text: str) -> Path:
    (tmp_path / "list.csv").write_text(text)
    return tmp_path / "list.csv"


def test_lists(tmp_path: Path) -> None:
    assert carton.read(listed(tmp_path, "a\nb\n")) == [carton.Item("a"), carton.Item("b")]
    assert carton.read(listed(tmp_path, "\ufeffname,board\n# a comment\na, esp32-devkitc\n\nb,\n")) == [
        carton.Item("a", "esp32-devkitc"), carton.Item("b"),
    ]  # fmt: skip
    assert carton.read(listed(tmp_path, "kind,name\nvehicle,1M8GDM9AXKP042788\n"))[0].kind == "vehicle"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has 0 names"),
        ("name\n", "has 0 names"),
        ("\n".join(f"n{i}" for i in range(carton.NAMES_MAX + 1)), "has 1001 names"),
        ("name,colour\na,red\n", "unknown column 'colour'"),
        ("a\na\n", "a is there twice"),
        ("Not A Name\n", "is not a greenhouse's name"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PeanutError) as caught:
        carton.read(listed(tmp_path, text))
    assert complaint in caught.value.message


def test_every_name_is_tried_at_its_port_and_told_apart(home: Home, tmp_path: Path) -> None:
    # Two ports that nothing listens at: both runs fail, each with its own words, and neither stops the other.
    names = listed(tmp_path, "name,board\nleek,esp32-devkitc\nbean,esp32-devkitc\nlast,esp32-devkitc\n")
    ports = ["socket://127.0.0.1:1", "socket://127.0.0.1:2"]
    result = invoke(home.path, "flash", "--all", *ports, "--names", str(names), "--no-wifi", "--patience", "2")
    assert result.exit_code == 2
    assert re.search(r"^leek +peanut: nothing listens at socket://127\.0\.0\.1:1$", result.stdout, re.M)
    assert re.search(r"^bean +peanut: nothing listens at socket://127\.0\.0\.1:2$", result.stdout, re.M)
    assert "0 of 3 done" in result.stdout
    assert "not done: " in result.stderr
    assert "it goes on" in result.stderr
    assert (home.path / "labels.html").exists()


def test_what_is_done_is_not_done_again(home: Home, tmp_path: Path) -> None:
    for name in ("peanut", "tomato"):
        (home.device(name) / flash.FLASHED).write_text('port = "/dev/ttyUSB0"\nmac = "m"\ndone = true\n')
    items = carton.read(listed(tmp_path, "peanut\nleek\ntomato\n"))
    assert [item.name for item in carton.left(home, items)] == ["leek"]
    names = listed(tmp_path, "peanut\ntomato\n")
    result = invoke(home.path, "flash", "--all", "socket://127.0.0.1:1", "--names", str(names))
    assert result.exit_code == 0, result.output
    assert "2 of 2 done" in result.stdout
    sheet = (home.path / "labels.html").read_text()
    assert sheet.count("<svg") == 2


def test_labels(run: Run, home: Home, tmp_path: Path) -> None:
    out = tmp_path / "labels.html"
    assert run("device", "labels", "--out", str(out)).exit_code == 0
    sheet = out.read_text()
    for row in devices(home.ledger):
        assert f"<b>{row.name}</b>" in sheet
        assert labels.page(home, row.name) in sheet
    assert labels.page(home, "peanut") == "https://gateway.local:8443/#/device/peanut"
    assert not re.search(r'(src|href)="|@import|url\(', sheet)  # fetches nothing
    home.gateway_toml.write_text('[listen]\nhttps = "0.0.0.0:9443"\n')
    assert labels.page(home, "peanut") == "https://gateway.local:9443/#/device/peanut"
    assert run("device", "labels", "nobody", "--out", str(out)).exit_code == 2
    strange = labels.sheet([labels.Label("<b>", "greenhouse", "&", "https://x/")])
    assert b"&lt;b&gt;" in strange


def test_push_copies_what_differs_main_last() -> None:
    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    wanted = {"main.py": b"m2", "boot.py": b"b", "node/a.mpy": b"a2", "node.json": b"{}", "drivers/n.mpy": b"n"}
    there = There("leek", {"main.py": digest(b"m1"), "boot.py": digest(b"b"), "node/a.mpy": digest(b"a1"),
                           "node/gone.py": "x", "state.json": "y", "node.json": digest(b"{}")})  # fmt: skip
    todo = bench.changes(wanted, there)
    assert todo.copy == ("drivers/n.mpy", "node/a.mpy", "main.py")
    assert todo.remove == ("node/gone.py",)
    assert bench.changes(dict.fromkeys((), b""), There("", {})) == bench.Changes((), ())


def test_a_console_needs_a_terminal_and_a_port_a_device(run: Run) -> None:
    assert "a console needs a terminal" in run("console", "peanut").stderr
    result = run("logs", "peanut")
    assert (result.exit_code, "has not been written to a board from here" in result.stderr) == (2, True)


def test_a_program_that_says_nothing_is_ended() -> None:
    with pytest.raises(PeanutError, match="nothing for 0 s") as caught:
        programs.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    assert "--patience" in caught.value.fix
    heard: list[str] = []
    ended = programs.run([sys.executable, "-c", "print('a'); import sys; print('b', file=sys.stderr); sys.exit(3)"], 30,
                         heard.append)  # fmt: skip
    assert (ended.status, sorted(heard)) == (3, ["a", "b"])
    with pytest.raises(PeanutError, match="the program no-such-tool is missing") as caught:
        programs.find("no-such-tool")
    assert "pip install" in caught.value.fix
