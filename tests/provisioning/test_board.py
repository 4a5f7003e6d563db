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

from peanut import board, bundle, fields, pinout
from peanut.chips import CHIPS
from peanut.errors import PeanutError
from peanut.fields import Field
from peanut.names import Kind

from .conftest import Run

NAMES = {Kind.GREENHOUSE: "bean", Kind.VEHICLE: "1M8GDM9AXKP042788"}
BOARDS = Path(__file__).parents[2] / "boards"


def data(name: str = "sim") -> dict[str, Any]:
    return tomllib.loads((BOARDS / name / "board.toml").read_text())


def test_every_board_of_the_house_is_good_and_documented() -> None:
    names = board.available(BOARDS)
    assert {
        "esp32-devkitc", "esp32-devkitc-ve", "esp32-s3-devkitc-1", "kincony-kc868-a8", "lilygo-t-can485",
        "lilygo-t-relay", "m5stack-atom-lite", "olimex-esp32-evb", "sim", "xiao-esp32c3",
    } <= set(names)  # fmt: skip
    for name in names:
        found = board.read(name, BOARDS)
        assert found.name == name
        text = (BOARDS / name / "README.md").read_text()
        if not found.simulated:
            # a bare board on the bench can run the model, and nobody is told that a board was tried when it was not
            assert found.simulate is not None or Kind.GREENHOUSE not in found.profiles
            assert "ot on hardware" in found.checked
            assert "ot checked on hardware" in text
            assert any(line.startswith("    ") for line in text.splitlines()), f"{name}: no drawing"
            assert found.image is not None
            assert found.image.sha256 or "SHA-256" in found.checked
            # the wiring tells every pin that the board file uses, and no other for the same thing
            for use in [*pinout.uses(found), *(pinout.uses(board.fitted(found)) if found.vehicle else [])]:
                assert re.search(rf"(?<![\d.]){use.pin}(?!\d)", text), f"{name}: pin {use.pin} ({use.what})"


@pytest.mark.parametrize("name", [name for name in board.available(BOARDS) if name != "sim"])
def test_a_node_accepts_every_board_file(name: str, tmp_path: Path) -> None:
    # from the board file to the firmware's own check of node.json
    found = board.read(name, BOARDS)
    for kind in found.profiles:
        accepted(
            bundle.new_node(NAMES[kind], kind, found, {"host": "gw.local", "port": 8883}, simulate=False), tmp_path
        )


def accepted(node: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "node.json").write_bytes(bundle.render(node))
    code = "import sys\nfrom node import config\nprint(sorted(config.load(sys.argv[1])['board']['outputs']))"
    environment = {**os.environ, "PYTHONPATH": str(BOARDS.parent / "firmware"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "node.json")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted(node["board"]["outputs"]))
    assert len(bundle.render(node)) <= 4096


def test_the_readme_names_every_key() -> None:
    text = (BOARDS / "README.md").read_text()
    tables = [
        board.TOP, board.IMAGE, board.SERIAL, board.LED, board.BUTTON, board.BUS, board.OUTPUT, board.SENSOR,
        board.CONTROL, board.REPORT, board.LINK, board.SIMULATE, board.VEHICLE, board.VEHICLE_OUTPUT,
        board.VEHICLE_SENSOR, board.VEHICLE_SIMULATE,
    ]  # fmt: skip
    variants = (
        board.BUSES, board.OUTPUT_DRIVERS, board.SENSOR_DRIVERS, board.VEHICLE_OUTPUT_DRIVERS,
        board.VEHICLE_SENSOR_DRIVERS,
    )  # fmt: skip
    tables += [table for group in variants for table in group.values()]
    keys = {key for table in tables for key in table} | set(data()) | set(data("esp32-devkitc"))
    words = {word for group in variants for word in group} | set(board.CAPABILITIES) | set(board.QUANTITIES)
    words |= {*board.VEHICLE_OUTPUTS, *board.VEHICLE_SENSORS, *board.OBD_QUANTITIES, *board.GPS_QUANTITIES}
    words |= {*board.GREENHOUSE_OUTPUTS, *board.GREENHOUSE_SENSORS, *CHIPS}
    assert not [key for key in keys if not re.search(rf"[`\[]{key}\b", text)]
    assert not [word for word in words if not re.search(rf'`"?{word}"?`', text)]


def test_the_readme_tells_the_chips_as_they_are() -> None:
    text = (BOARDS / "README.md").read_text()
    for name, chip in CHIPS.items():
        pins = " ".join(map(str, sorted(chip.strapping)))
        assert re.search(rf"{chip.name.removeprefix('ESP32-')}: {pins}\b", text), name
        assert not chip.strapping & chip.flash


def test_sim() -> None:
    sim = board.read("sim", BOARDS)
    assert sim.simulated
    assert sim.simulate == {"speed": 60, "outside": 6.0, "start": 18.0}
    assert {name: output["safe"] for name, output in sim.outputs.items()} == {"heater": "off", "vent": "off"}


@pytest.mark.parametrize(("name", "kind"), [("peanut", Kind.GREENHOUSE), ("1M8GDM9AXKP042788", Kind.VEHICLE)])
def test_the_node_accepts_what_we_accept(made: Path, name: str, kind: Kind) -> None:
    # Agreement 3 from both ends: the firmware's own schema, read by a process of its own.
    code = (
        "import json, sys\nfrom node import config\nkind = config.load(sys.argv[1])['kind']\n"
        "schema = {**config.SCHEMA, **__import__('node.' + kind + '_config', fromlist=['TABLES']).TABLES}\n"
        "json.dump({s: {k: list(r) for k, r in t.items()} for s, t in schema.items() if s in sys.argv[2:]},"
        " sys.stdout, default=lambda o: getattr(o, '__name__', None))"
    )
    sections = board.SECTIONS[kind]
    command = [sys.executable, "-c", code, str(made / f"devices/{name}/node.json"), *sections]
    environment = {**os.environ, "PYTHONPATH": str(BOARDS.parent / "firmware"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    for section, table in sections.items():
        assert set(table) == set(theirs[section]), section
        for key, field in table.items():
            kind, low, high, _ = theirs[section][key]
            assert kind == field.type.__name__, key
            if field.type is str:
                assert tuple(low or ()) == field.choices, key
            elif field.type is not bool:
                assert (low, high) == (field.low, field.high), key


def change(path: str, value: object, name: str = "sim") -> dict[str, Any]:
    changed: dict[str, Any] = data(name)
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
        ("outputs.heater.driver", "steam", "driver = 'steam' is not known"),
        ("outputs.heater.driver", None, "driver is missing"),
        ("outputs.heater.pin", 4, "unknown key 'pin'"),
        ("outputs.horn", {"driver": "greenhouse_model", "safe": "off"}, "[outputs]: unknown 'horn'"),
        ("sensors.temperature", None, "[sensors.temperature] is missing"),
        ("capabilities", ["wings"], "unknown 'wings'"),
        ("flash_mb", 4, "flash_mb is there, and the chip is 'unix'"),
        ("image", {}, "image is there, and the chip is 'unix'"),
        ("sensors.temperature.unit", None, "unit is missing"),
        ("control.setpoint", None, "setpoint is missing"),
        ("control.setpoint", 41, "not within"),
        ("control.fallback", 1, "fallback: 1 is not within"),
        ("control.dead_band", 0.9, "out of range"),
        ("control.schedule", "06:00 18, 20:00 1", "schedule: 1.0 is not within"),
        ("control.schedule", "06:00 18, 06:00 19", "is no schedule"),
        ("control.schedule", "24:00 18", "is no schedule"),
        ("control.light", "6 on", "is no schedule"),
        ("control.min", float("nan"), "not a number"),
        ("control.max", float("inf"), "not a number"),
        ("link.base_s", 11, "above cap_s"),
        ("simulate", None, "needs [simulate]"),
        ("vehicle", None, "[vehicle] is missing"),
        ("vehicle", {}, "[vehicle] is missing"),
        ("vehicle.simulate", None, "needs [vehicle.simulate]"),
    ],
)
def test_a_bad_board_file_names_the_key(path: str, value: object, complaint: str) -> None:
    with pytest.raises(PeanutError) as caught:
        board.parse("sim", change(path, value), "board.toml")
    assert caught.value.message.startswith("board.toml: ")
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("chip", "esp8266", "chip = 'esp8266' is not known"),
        ("checked", None, "checked is missing"),
        ("flash_mb", None, "flash_mb is missing"),
        ("image", None, "image is missing"),
        ("image.sha256", "cd78", "is not a SHA-256"),
        ("image.sha256", "CD" * 32, "is not a SHA-256"),
        ("image.file", "../x.bin", "is not the name of an image"),
        ("image.offset", 0, "offset = 0x0 is not where an ESP32 starts from"),
        ("fs.offset", 0x200001, "whole blocks"),
        ("fs.offset", 0x400000, "behind the 4 MB"),
        ("fs.size", "big", "not a whole number"),
        ("fs.size", 0x200800, "whole blocks"),
        ("fs.size", 0x201000, "behind the 4 MB"),
        ("serial.usb", "wireless", "usb = 'wireless' is not known"),
        ("pins", {"reserve": []}, "[pins] has one key"),
        ("pins", {"reserved": [True]}, "not a list of pins"),
        ("buses.i2c.sda", None, "sda is missing"),
        ("buses.i2c.kind", "spi", "kind = 'spi' is not known"),
        ("outputs.heater.pin", None, "pin is missing"),
        ("outputs.heater.on", 2, "on = 2 is out of range"),
        ("outputs.heater.glitch_ok", 1, "neither true nor false"),
        ("outputs.irrigation.max_on_s", 0, "max_on_s = 0 is out of range"),
        ("sensors.temperature.address", 0x80, "out of range"),
        ("sensors.temperature.quantity", "pressure", "a sht3x does not measure pressure"),
        ("sensors.temperature.quantity", None, "quantity is missing"),
        ("led", {"pin": 2, "kind": "neon"}, "kind = 'neon' is not known"),
        ("button.active", 2, "out of range"),
        ("control", None, "[control]: setpoint is missing"),
    ],
)
def test_a_bad_board_with_a_chip_names_the_key(path: str, value: object, complaint: str) -> None:
    with pytest.raises(PeanutError) as caught:
        board.parse("mine", change(path, value, "esp32-devkitc"), "board.toml")
    assert caught.value.message.startswith("board.toml: ")
    assert complaint in caught.value.message


@pytest.mark.parametrize("name", ["heater", "irrigation"])
def test_what_must_not_run_by_itself_is_off_without_a_program(name: str) -> None:
    found = data()
    found["outputs"][name] = {**found["outputs"]["vent"], "safe": "on"}
    with pytest.raises(PeanutError, match=rf"outputs.{name}\]: on is not safe for it"):
        board.parse("sim", found, "board.toml")


def test_the_file_system_takes_the_rest_of_the_flash() -> None:
    found = board.parse("mine", data("esp32-devkitc"), "board.toml")
    assert (found.fs_offset, found.fs_bytes(), found.fs_bytes(16)) == (0x200000, 0x200000, 0xE00000)
    found = board.parse("mine", change("fs.size", 0x100000, "esp32-devkitc"), "board.toml")
    assert (found.fs_bytes(), found.fs_bytes(16)) == (0x100000, 0x100000)


def test_ranges_include_their_ends() -> None:
    field = Field(float, 1, 2)
    assert [fields.check_value(field, v, "x") for v in (1, 2, 1.5)] == [1, 2, 1.5]
    for value in (0.999, 2.001):
        with pytest.raises(PeanutError, match="out of range"):
            fields.check_value(field, value, "x")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "boards"
    (folder / "shed").mkdir(parents=True)
    text = (BOARDS / "esp32-devkitc/board.toml").read_text()
    (folder / "shed/board.toml").write_text(re.sub("warnings = .*", 'warnings = ["mind the step"]', text))
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
