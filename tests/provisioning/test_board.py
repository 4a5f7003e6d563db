"""Board files: the schema, and where they are found."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from peanut import board
from peanut.board import Field
from peanut.errors import PeanutError

from .conftest import Run

BOARDS = Path(__file__).parents[2] / "boards"


def data() -> dict[str, Any]:
    return tomllib.loads((BOARDS / "sim/board.toml").read_text())


def test_every_board_of_the_house_is_good_and_documented() -> None:
    names = board.available(BOARDS)
    assert "sim" in names
    for name in names:
        assert board.read(name, BOARDS).name == name
        assert (BOARDS / name / "README.md").is_file()


def test_the_readme_names_every_key() -> None:
    text = (BOARDS / "README.md").read_text()
    tables = (board.OUTPUT, board.SENSOR, board.CONTROL, board.REPORT, board.LINK, board.SIMULATE)
    keys = {key for table in tables for key in table} | set(data())
    assert not [key for key in keys if not re.search(rf"[`\[]{key}\b", text)]


def test_sim() -> None:
    sim = board.read("sim", BOARDS)
    assert sim.simulated
    assert sim.simulate == {"speed": 60, "outside": 6.0, "start": 18.0}
    assert {name: output["safe"] for name, output in sim.outputs.items()} == {"heater": "off", "vent": "off"}


def test_the_node_accepts_what_we_accept(made: Path) -> None:
    # Agreement 3 from both ends: the firmware's own schema, read by a process of its own.
    code = (
        "import json, sys\nfrom node import config\nconfig.load(sys.argv[1])\n"
        "json.dump({s: {k: list(r) for k, r in t.items()} for s, t in config.SCHEMA.items() if s in sys.argv[2:]},"
        " sys.stdout, default=lambda o: getattr(o, '__name__', None))"
    )
    command = [sys.executable, "-c", code, str(made / "devices/peanut/node.json"), *board.SECTIONS]
    environment = {**os.environ, "PYTHONPATH": str(BOARDS.parent / "firmware"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    for section, table in board.SECTIONS.items():
        assert set(table) == set(theirs[section]), section
        for key, field in table.items():
            kind, low, high, _ = theirs[section][key]
            assert kind == field.type.__name__, key
            if field.type is str:
                assert tuple(low or ()) == field.choices, key
            else:
                assert (low, high) == (field.low, field.high), key


def change(path: str, value: object) -> dict[str, Any]:
    changed: dict[str, Any] = data()
    *tables, key = path.split(".")
    table = changed
    for name in tables:
        table = table.setdefault(name, {})
    if value is None:
        del table[key]
    else:
        table[key] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("format", 2, "format = 2 is out of range"),
        ("format", None, "format is missing"),
        ("format", True, "not a whole number"),
        ("chip", 3, "chip = 3 is not a string"),
        ("title", "", "is not a string"),
        ("profiles", "greenhouse", "not a list"),
        ("profiles", ["boat"], "unknown 'boat'"),
        ("warnings", [3], "not a list"),
        ("colour", "red", "unknown key 'colour'"),
        ("outputs", 3, "[outputs] is not a table"),
        ("outputs.heater", 3, "[outputs.heater] is not a table"),
        ("outputs.heater.safe", None, "[outputs.heater]: safe is missing"),
        ("outputs.heater.safe", "maybe", "safe = 'maybe' is not known"),
        ("outputs.heater.saef", "off", "unknown key 'saef'"),
        ("outputs.heater.min_on_s", -1, "out of range"),
        ("outputs.Heater", {"driver": "x", "safe": "off"}, "not a table of named tables"),
        ("sensors.temperature.unit", None, "unit is missing"),
        ("control.setpoint", None, "setpoint is missing"),
        ("control.setpoint", 41, "not within"),
        ("control.min", float("nan"), "not a number"),
        ("control.max", float("inf"), "not a number"),
        ("link.base_s", 11, "above cap_s"),
        ("simulate", None, "needs [simulate]"),
    ],
)
def test_a_bad_board_file_names_the_key(path: str, value: object, complaint: str) -> None:
    with pytest.raises(PeanutError) as caught:
        board.parse("sim", change(path, value), "board.toml")
    assert caught.value.message.startswith("board.toml: ")
    assert complaint in caught.value.message


def test_ranges_include_their_ends() -> None:
    field = Field(float, 1, 2)
    assert [board.check_value(field, v, "x") for v in (1, 2, 1.5)] == [1, 2, 1.5]
    for value in (0.999, 2.001):
        with pytest.raises(PeanutError, match="out of range"):
            board.check_value(field, value, "x")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "boards"
    (folder / "shed").mkdir(parents=True)
    text = (BOARDS / "sim/board.toml").read_text().replace('chip = "unix"', 'chip = "esp32"')
    (folder / "shed/board.toml").write_text(text.replace("warnings = []", 'warnings = ["mind the step"]'))
    return folder


@pytest.mark.parametrize("way", ["option", "environment"])
def test_another_folder_of_boards(run: Run, own: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    words = ["device", "add", "bean", "--kind", "greenhouse", "--board", "shed"]
    if way == "environment":
        monkeypatch.setenv("PEANUT_BOARDS", str(own))
    else:
        words += ["--boards", str(own)]
    result = run(*words)
    assert result.exit_code == 0
    assert "mind the step" in result.stderr
    node = json.loads((own.parent / "fleet/devices/bean/node.json").read_text())
    assert node["board"]["chip"] == "esp32"
    # pins are real here, so the model runs only if asked for
    assert "simulate" not in node
    assert run(*words, "--set", "simulate.speed=9").exit_code == 2
    assert run(*words, "--simulate", "--set", "simulate.speed=9").exit_code == 0
    node = json.loads((own.parent / "fleet/devices/bean/node.json").read_text())
    assert node["simulate"]["speed"] == 9
    assert "is on the board 'shed'" in run("device", "add", "bean", "--kind", "greenhouse", "--board", "sim").stderr


def test_a_folder_that_is_none(run: Run, tmp_path: Path) -> None:
    result = run("device", "add", "bean", "--kind", "greenhouse", "--boards", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert "--boards" in result.stderr
    assert run("device", "add", "bean", "--kind", "greenhouse", "--boards", str(tmp_path)).exit_code == 2
