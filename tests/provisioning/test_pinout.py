"""What no pin may be used for: each rule of the checker with a board that breaks it, and the drawing of a board."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from peanut import board, pinout
from peanut.chips import CHIPS
from peanut.errors import PeanutError
from peanut.pinout import Way

from .conftest import Run

BOARDS = Path(__file__).parents[2] / "boards"


def data(**changes: Any) -> dict[str, Any]:
    """The DevKitC as a greenhouse, with `outputs__heater__pin=12` for outputs.heater.pin = 12."""
    found: dict[str, Any] = tomllib.loads((BOARDS / "esp32-devkitc/board.toml").read_text())
    del found["vehicle"]  # whose pins other chips do not have
    found["profiles"] = ["greenhouse"]
    for path, value in changes.items():
        *tables, key = path.split("__")
        table = found
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    return found


S3 = {"chip": "esp32s3", "image__offset": 0, "buses__i2c__sda": 8, "buses__i2c__scl": 9, "outputs__heater__pin": 4}
S3 |= {"outputs__vent__pin": 5, "outputs__fan__pin": 6, "outputs__irrigation__pin": 7}
C3 = {**S3, "chip": "esp32c3", "buses__i2c__sda": 0, "buses__i2c__scl": 1, "button__pin": 9}
SOIL = {"driver": "soil", "quantity": "moisture", "unit": "%"}
RELAYS = {"driver": "pcf8574", "bus": "i2c", "address": 0x20, "bit": 3, "safe": "off"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"outputs__heater__pin": 12}, "[outputs.heater] is on pin 12, a strapping pin"),
        ({"outputs__heater__pin": 34}, "is input only"),
        ({"outputs__heater__pin": 6}, "is not free (flash)"),
        ({"outputs__heater__pin": 1}, "is not free (serial console)"),
        ({"outputs__heater__pin": 1, "serial__usb": "native"}, "on which the chip prints while it starts"),
        ({"outputs__heater__pin": 24}, "which an ESP32 does not have"),
        ({"outputs__heater__pin": 16, "psram_mb": 8}, "is not free (PSRAM)"),
        ({"outputs__heater__pin": 16, "pins": {"reserved": [16]}}, "is not free (reserved by the board)"),
        ({"outputs__heater__pin": 26}, "pin 26 is used twice: [outputs.heater] and [outputs.vent]"),
        ({"outputs__heater__pin": 21}, "pin 21 is used twice: [buses.i2c.sda] and [outputs.heater]"),
        ({"led": {"pin": 35, "kind": "gpio"}}, "[led] is on pin 35, which is input only"),
        ({"buses__i2c__sda": 36}, "[buses.i2c.sda] is on pin 36, which is input only"),
        ({"sensors__soil": {**SOIL, "pin": 4}}, "[sensors.soil] is on pin 4, an input of ADC2"),
        ({"sensors__soil": {**SOIL, "pin": 18}}, "which is not an analog input"),
        ({"sensors__outside": {"driver": "dht22", "pin": 39, "quantity": "temperature", "unit": "Cel"}}, "input only"),
        ({**S3, "outputs__heater__pin": 46}, "a strapping pin"),
        ({**S3, "outputs__heater__pin": 19, "serial__usb": "native"}, "is not free (USB)"),
        ({**S3, "sensors__soil": {**SOIL, "pin": 11}}, "an input of ADC2"),
        ({**C3, "outputs__heater__pin": 8}, "a strapping pin"),
        ({**C3, "outputs__heater__pin": 12}, "is not free (flash)"),
        ({**C3, "sensors__soil": {**SOIL, "pin": 5}, "outputs__vent__pin": 10}, "an input of ADC2"),
        ({"sensors__temperature__bus": "spi"}, "bus = 'spi' is not a bus of the kind 'i2c'"),
        ({"outputs__fan": {**RELAYS, "bus": "w"}, "buses__w": {"kind": "onewire", "pin": 4}}, "of the kind 'i2c'"),
        ({"outputs__fan": RELAYS, "outputs__light": {**RELAYS, "on": 0}}, "are one bit of one chip"),
        ({"outputs__fan": {**RELAYS, "address": 0x44}}, "are two chips at address 0x44 of 'i2c'"),
        (
            {
                "buses__register": {"kind": "shift595", "data": 13, "clock": 14, "latch": 15},
                "outputs__fan": {"driver": "shift595", "bus": "register", "bit": 0, "safe": "off"},
            },
            "[buses.register.latch] is on pin 15, a strapping pin",
        ),
    ],
)  # fmt: skip
def test_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PeanutError) as caught:
        board.parse("mine", data(**changes), "board.toml")
    assert complaint in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    "changes",
    [
        {},
        S3,
        C3,
        {"outputs__light": {"driver": "gpio", "pin": 5, "safe": "off", "glitch_ok": True}},
        {"outputs__heater__pin": 16},
        {"sensors__soil": {**SOIL, "pin": 34}},
        {"outputs__fan": RELAYS, "outputs__light": {**RELAYS, "bit": 4}},
        # one DHT22 that is asked for two things
        {
            "sensors__temperature": {"driver": "dht22", "pin": 4, "quantity": "temperature", "unit": "Cel"},
            "sensors__humidity": {"driver": "dht22", "pin": 4, "quantity": "humidity", "unit": "%RH"},
        },
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    assert board.parse("mine", data(**changes), "board.toml").chip in CHIPS


def test_the_fix_names_pins_that_would_do() -> None:
    with pytest.raises(PeanutError) as caught:
        board.parse("mine", data(outputs__heater__pin=12), "board.toml")
    offered = caught.value.fix.partition("Pins that would do: ")[2].rstrip(".").split(", ")
    assert "25" in offered
    for pin in offered:
        assert board.parse("mine", data(outputs__heater__pin=int(pin)), "board.toml").outputs["heater"]["pin"] == int(
            pin
        )


def test_free_pins_are_free() -> None:
    found = board.read("esp32-devkitc", BOARDS)
    assert {34, 35, 36, 39} & set(pinout.free(found, Way.ANALOG)) == {34, 35, 36, 39}
    assert not set(pinout.free(found, Way.ACTUATOR)) & {use.pin for use in pinout.uses(found)}


def test_show_draws_every_pin_once(run: Run) -> None:
    result = run("board", "show", "esp32-devkitc", "--json")
    assert result.exit_code == 0
    pins = {row["pin"]: row for row in json.loads(result.stdout)["pins"]}
    assert sorted(map(int, pins)) == sorted(CHIPS["esp32"].pins)
    assert pins["25"]["what"] == "outputs.heater: heater, on when high, off at start"
    assert pins["12"] == {"pin": "12", "use": "", "what": "", "remarks": "strapping"}
    assert pins["6"]["what"] == "flash"
    shown = run("board", "show", "esp32-devkitc").stdout
    assert "outputs.heater" in shown
    assert "sht3x" in shown
    assert "\x1b" not in shown


def test_list_and_check(run: Run, tmp_path: Path) -> None:
    names = board.available(BOARDS)
    listed = run("board", "list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == names
    assert run("board", "check").exit_code == 0
    (tmp_path / "mine").mkdir()
    text = (BOARDS / "esp32-devkitc/board.toml").read_text()
    (tmp_path / "mine/board.toml").write_text(text.replace("pin = 25", "pin = 12"))
    result = run("board", "check", "--boards", str(tmp_path))
    assert (result.exit_code, result.stdout) == (2, "mine: NOT GOOD\n")
    assert "[outputs.heater] is on pin 12, a strapping pin" in result.stderr
