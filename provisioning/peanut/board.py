"""Boards as data: reads boards/<name>/board.toml and checks it against a schema that is data too.

Rule: agreement 3. boards/README.md tells people what the tables below tell this program; what a pin may be used for is
`pinout`'s business.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peanut import pinout, store
from peanut.chips import CHIPS, LITTLEFS_BLOCK
from peanut.errors import PeanutError
from peanut.fields import Field, Table, Value, check, check_variant
from peanut.names import Kind

FORMAT = 1
UNIX = "unix"  # the chip of a board that is a process on a PC
FLASH_MB_MAX = 64
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")
_BOARD_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,46}[a-z0-9])?")
SHA256 = re.compile(r"[0-9a-f]{64}")

CELSIUS_MAX = 44  # highest set point: below the 45 degrees at which a node switches its heater off and opens the vent
MAX_ENTRIES = 12  # of a schedule
_ENTRY = re.compile(r"((?:[01][0-9]|2[0-3]):[0-5][0-9]) +(on|off|-?[0-9]{1,2}(?:\.[0-9]{1,2})?)")
PIN_MAX = 63

TOP: Table = {
    "format": Field(int, FORMAT, FORMAT),
    "title": Field(str),
    "chip": Field(str, choices=(UNIX, *CHIPS)),
    "checked": Field(str, required=False),
    "flash_mb": Field(int, 1, FLASH_MB_MAX, required=False),
    "psram_mb": Field(int, 0, FLASH_MB_MAX, required=False),
    "cpu_mhz": Field(int, 80, 400, required=False),
}
LISTS = ("profiles", "warnings", "capabilities")
CHIP_KEYS = ("checked", "flash_mb", "psram_mb", "cpu_mhz")  # what a board with a chip must say
CHIP_TABLES = ("image", "fs", "serial")

CAPABILITIES = ("psram", "ble", "ethernet", "can", "rs485", "sd")
_PIN = Field(int, 0, PIN_MAX)
_BIT = Field(int, 0, 7)
_ADDRESS = Field(int, 0x08, 0x77)  # I2C, 7 bits; the others are reserved

IMAGE: Table = {
    "file": Field(str),
    "version": Field(str),
    "sha256": Field(str, required=False),
    "offset": Field(int, 0, 0x10000),
}
SERIAL: Table = {"baud": Field(int, 9600, 3_000_000), "usb": Field(str, choices=("bridge", "native"))}
LED: Table = {"pin": _PIN, "kind": Field(str, choices=("gpio", "ws2812"))}
BUTTON: Table = {"pin": _PIN, "active": Field(int, 0, 1)}
BUSES: Mapping[str, Table] = {
    "i2c": {"sda": _PIN, "scl": _PIN, "khz": Field(int, 10, 1000)},
    "onewire": {"pin": _PIN},
    "shift595": {"data": _PIN, "clock": _PIN, "latch": _PIN},
    "uart": {"tx": _PIN, "rx": _PIN, "baud": Field(int, 300, 1_000_000)},
}
BUS: Table = {"kind": Field(str)}

_SECONDS = Field(float, 0, 3600, required=False)
_LEVEL = Field(int, 0, 1, required=False)
OUTPUT: Table = {
    "driver": Field(str),
    "safe": Field(str, choices=("off", "on")),
    "min_on_s": _SECONDS,
    "min_off_s": _SECONDS,
    "max_on_s": Field(float, 1, 86400, required=False),
    "glitch_ok": Field(bool, required=False),
}
OUTPUT_DRIVERS: Mapping[str, Table] = {
    "gpio": {"pin": _PIN, "on": _LEVEL, "hold": Field(bool, required=False)},
    "pcf8574": {"bus": Field(str), "address": _ADDRESS, "bit": _BIT, "on": _LEVEL},
    "shift595": {"bus": Field(str), "bit": _BIT, "on": _LEVEL},
    "greenhouse_model": {},
}
QUANTITIES = ("temperature", "humidity", "pressure", "co2", "light", "moisture", "contact")
OBD_QUANTITIES = ("rpm", "speed", "fuel", "ambient", "battery", "codes")
GPS_QUANTITIES = ("latitude", "longitude", "speed", "course", "satellites")
_QUANTITY = Field(str, choices=QUANTITIES)
SENSOR: Table = {"driver": Field(str), "unit": Field(str)}
_I2C: Table = {"bus": Field(str), "address": _ADDRESS, "quantity": _QUANTITY}
_MICROVOLTS = Field(int, 0, 5_000_000, required=False)
SENSOR_DRIVERS: Mapping[str, Table] = {
    "sht3x": _I2C,
    "sht4x": _I2C,
    "bme280": _I2C,
    "scd4x": _I2C,
    "bh1750": _I2C,
    "ds18b20": {"bus": Field(str), "quantity": _QUANTITY},
    "dht22": {"pin": _PIN, "quantity": _QUANTITY},
    "soil": {"pin": _PIN, "quantity": _QUANTITY, "dry_uv": _MICROVOLTS, "wet_uv": _MICROVOLTS},
    "contact": {"pin": _PIN, "active": _LEVEL, "quantity": _QUANTITY},
    "greenhouse_model": {"quantity": Field(str, choices=QUANTITIES, required=False)},
}
# What each driver can be asked for, and the names that a greenhouse has for its things.
MEASURES = {
    "sht3x": ("temperature", "humidity"),
    "sht4x": ("temperature", "humidity"),
    "bme280": ("temperature", "humidity", "pressure"),
    "scd4x": ("co2", "temperature", "humidity"),
    "bh1750": ("light",),
    "ds18b20": ("temperature",),
    "dht22": ("temperature", "humidity"),
    "soil": ("moisture",),
    "contact": ("contact",),
    "greenhouse_model": QUANTITIES,
    "elm327": OBD_QUANTITIES,
    "nmea": GPS_QUANTITIES,
}
# What a vehicle has on this board: the tables in [vehicle], with names and drivers of their own.
VEHICLE_OUTPUT: Table = {"driver": Field(str), "safe": Field(str, choices=("off",)), "glitch_ok": OUTPUT["glitch_ok"]}
VEHICLE_OUTPUT_DRIVERS: Mapping[str, Table] = {"gpio": OUTPUT_DRIVERS["gpio"], "vehicle_model": {}}
VEHICLE_SENSOR: Table = {"driver": Field(str)}
VEHICLE_SENSOR_DRIVERS: Mapping[str, Table] = {
    "elm327": {"bus": Field(str), "quantity": Field(str, choices=OBD_QUANTITIES)},
    "nmea": {"bus": Field(str), "quantity": Field(str, choices=GPS_QUANTITIES)},
    "contact": SENSOR_DRIVERS["contact"],
    "vehicle_model": {},
}
VEHICLE_OUTPUTS = ("unlock", "lock", "start", "stop", "horn")
VEHICLE_SENSORS = (
    "speed", "rpm", "fuel", "battery", "ambient", "codes", "latitude", "longitude", "course", "satellites", "gps_speed",
    "door", "brake", "parked", "locked",
)  # fmt: skip
ENDS = {"unlock": "lock", "start": "stop"}  # who can do the one must be able to end it by itself
GREENHOUSE_OUTPUTS = ("heater", "vent", "fan", "irrigation", "light")
GREENHOUSE_SENSORS = ("temperature", "humidity", "outside", "co2", "light", "soil", "pressure", "tank", "override")
MUST_REST = ("heater", "irrigation")  # left on without a program they cook the crop or drown it
NEEDED = {"outputs": (), "sensors": ("temperature",)}  # without these a node does not start as one
CONTROL: Table = {
    "setpoint": Field(float, -20, CELSIUS_MAX),
    "min": Field(float, -20, CELSIUS_MAX),
    "max": Field(float, -20, CELSIUS_MAX),
    "hysteresis": Field(float, 0.1, 10),
    "dead_band": Field(float, 1, 10, required=False),
    "vent_fail": Field(str, choices=("open", "closed"), required=False),
    "schedule": Field(str, required=False),
    "light": Field(str, required=False),
    "utc_offset_h": Field(float, -12, 14, required=False),
    "fallback": Field(float, -20, CELSIUS_MAX, required=False),
    "fallback_after_s": Field(float, 60, 86400, required=False),
    "water_below": Field(float, 0, 100, required=False),
    "starts_h": Field(int, 1, 60, required=False),
}
REPORT: Table = {
    "telemetry_s": Field(float, 0.1, 86400),
    "state_s": Field(float, 1, 86400),
    "keep_s": Field(float, 0.1, 86400, required=False),
    "air": Field(bool, required=False),
    "log": Field(str, choices=("info", "warn", "error", "off"), required=False),
}
LINK: Table = {
    "base_s": Field(float, 0.05, 300),
    "cap_s": Field(float, 0.05, 3600),
    "first_s": Field(float, 0, 300),
    "settle_s": Field(float, 0, 3600, required=False),
    "trial_s": Field(float, 1, 86400, required=False),
    "health_s": Field(float, 1, 86400, required=False),
    "refused_cap_s": Field(float, 0.05, 3600, required=False),
    "connect_s": Field(float, 0.5, 300, required=False),
    "keepalive_s": Field(int, 2, 3600, required=False),
}
SIMULATE: Table = {
    "speed": Field(float, 0.1, 3600),
    "outside": Field(float, -60, 60),
    "start": Field(float, -60, 60),
    "swing": Field(float, 0, 30, required=False),
    "hour": Field(float, 0, 24, required=False),
    "sun_w": Field(float, 0, 20000, required=False),
    "heater_w": Field(float, 0, 50000, required=False),
    "ua": Field(float, 1, 5000, required=False),
    "vent_ua": Field(float, 0, 5000, required=False),
    "capacity": Field(float, 1e4, 1e8, required=False),
}
VEHICLE: Table = {
    "compat_plain": Field(str, required=False),
    "compat_unsafe": Field(bool, required=False),
    "run_s": Field(float, 60, 900, required=False),
    "seal": Field(bool, required=False),
}
VEHICLE_SIMULATE: Table = {
    "speed": Field(float, 0.1, 3600),
    "latitude": Field(float, -80, 80, required=False),
    "longitude": Field(float, -179, 179, required=False),
    "kmh": Field(float, 0, 130, required=False),
    "parked_s": Field(float, 0, 86400, required=False),
    "drive_s": Field(float, 30, 86400, required=False),
}
HARMLESS = ("lock", "horn")  # may be obeyed unsigned without another word
GATEWAY: Table = {
    "host": Field(str),
    "port": Field(int, 1, 65535),
    "second": Field(str, required=False),
    "time_port": Field(int, 1, 65535, required=False),
}

# What `--set section.key=value` may set, and what node.json consists of beside the board itself. The node checks the
# same (agreement 3).
SECTIONS: Mapping[Kind, Mapping[str, Table]] = {
    Kind.GREENHOUSE: {
        "gateway": GATEWAY, "control": CONTROL, "report": REPORT, "link": LINK, "simulate": SIMULATE,
    },
    Kind.VEHICLE: {
        "gateway": GATEWAY, "vehicle": VEHICLE, "report": REPORT, "link": LINK, "simulate": VEHICLE_SIMULATE,
    },
}  # fmt: skip
ALL_SECTIONS = tuple(dict.fromkeys(section for sections in SECTIONS.values() for section in sections))


@dataclass(frozen=True)
class Image:
    """The MicroPython image that is pinned. sha256: hexadecimal, empty where `checked` says why there is none."""

    file: str
    version: str
    sha256: str
    offset: int


@dataclass(frozen=True)
class Fitting:
    """What a vehicle has on a board: the table [vehicle] of its file."""

    outputs: Mapping[str, Mapping[str, Value]]
    sensors: Mapping[str, Mapping[str, Value]]
    buses: Mapping[str, Mapping[str, Value]]
    simulate: Mapping[str, Value] | None


@dataclass(frozen=True)
class Board:
    """A board file, checked. Tables are as they go into node.json; image, fs_* and baud are there if there is a chip.

    fs_size: bytes; 0 for everything from fs_offset to the end of the flash.
    """

    name: str
    title: str
    chip: str
    profiles: tuple[Kind, ...]
    outputs: Mapping[str, Mapping[str, Value]]
    sensors: Mapping[str, Mapping[str, Value]]
    buses: Mapping[str, Mapping[str, Value]]
    led: Mapping[str, Value] | None
    button: Mapping[str, Value] | None
    control: Mapping[str, Value] | None
    report: Mapping[str, Value]
    link: Mapping[str, Value] | None
    simulate: Mapping[str, Value] | None
    vehicle: Fitting | None
    warnings: tuple[str, ...]
    capabilities: tuple[str, ...] = ()
    reserved: tuple[int, ...] = ()
    checked: str = ""
    flash_mb: int = 0
    psram_mb: int = 0
    cpu_mhz: int = 0
    image: Image | None = None
    fs_offset: int = 0
    fs_size: int = 0
    baud: int = 0
    usb: str = ""

    @property
    def simulated(self) -> bool:
        """Whether the board has no pins at all, so that a node on it always runs the model."""
        return self.chip == UNIX

    def model(self, kind: Kind) -> Mapping[str, Value] | None:
        """The settings of the model that stands in for the pins of such a node; None where there is none."""
        if kind is Kind.GREENHOUSE:
            return self.simulate
        return self.vehicle.simulate if self.vehicle is not None else None

    def fs_bytes(self, flash_mb: int = 0) -> int:
        """The size of the file system on a flash of this size; the board file's if 0."""
        return self.fs_size or (flash_mb or self.flash_mb) * 1024 * 1024 - self.fs_offset


def folder(override: Path | None) -> Path:
    """Where the boards are: --boards or $PEANUT_BOARDS, else those of this package (in a checkout, a link)."""
    path = override or Path(__file__).parent / "boards"
    if not path.is_dir():
        raise PeanutError(f"there is no folder of boards at {path}", "Name one with --boards DIR or PEANUT_BOARDS.")
    return path


def available(boards: Path) -> list[str]:
    """The names of the boards in a folder."""
    return sorted(p.parent.name for p in boards.glob("*/board.toml"))


def read(name: str, boards: Path) -> Board:
    """The board of this name; PeanutError that lists the boards if there is none, or that names file and key."""
    path = boards / name / "board.toml"
    if not _BOARD_NAME.fullmatch(name) or not path.is_file():
        raise PeanutError(f"there is no board {name!r}", f"Boards: {', '.join(available(boards)) or 'none'}.")
    try:
        data = tomllib.loads(store.read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeanutError(f"{path} is not valid TOML: {error}", "Mend that line and try again.") from None
    return parse(name, data, str(path))


def parse(name: str, data: Mapping[str, Any], where: str) -> Board:
    """A board out of the parsed file. where: named in errors."""
    tables = (
        *CHIP_TABLES, "pins", "buses", "outputs", "sensors", "led", "button", "control", "report", "link", "simulate",
        "vehicle",
    )  # fmt: skip
    unknown = sorted(set(data) - set(TOP) - set(LISTS) - set(tables))
    if unknown:
        raise PeanutError(f"{where}: unknown key {unknown[0]!r}", f"Keys: {', '.join([*TOP, *LISTS, *tables])}.")
    head = check(TOP, {k: v for k, v in data.items() if k in TOP}, where)
    words = {key: _words(data.get(key, []), key, where) for key in LISTS}
    _known(words["profiles"], tuple(Kind), f"{where}: profiles")
    _known(words["capabilities"], CAPABILITIES, f"{where}: capabilities")
    bare = head["chip"] == UNIX
    for key in (*CHIP_KEYS, *CHIP_TABLES):
        if bare and key in data and key != "checked":
            raise PeanutError(f"{where}: {key} is there, and the chip is {UNIX!r}", "Take it out.")
        if not bare and key not in data:
            raise PeanutError(f"{where}: {key} is missing", "A board with a chip needs it: see boards/README.md.")

    def section(key: str, table: Table) -> dict[str, Value]:
        return check(table, data.get(key, {}), f"{where}: [{key}]")

    def maybe(key: str, table: Table) -> dict[str, Value] | None:
        return section(key, table) if key in data else None

    def group(key: str, common: Table, variants: Mapping[str, Table], by: str) -> dict[str, dict[str, Value]]:
        return _group(data, key, key, common, variants, by, where)

    greenhouse = Kind.GREENHOUSE in words["profiles"]
    fs_offset, fs_size = (0, 0) if bare else _fs(data["fs"], int(head["flash_mb"]), f"{where}: [fs]")
    board = Board(
        name=name,
        title=str(head["title"]),
        chip=str(head["chip"]),
        profiles=tuple(Kind(word) for word in words["profiles"]),
        outputs=group("outputs", OUTPUT, OUTPUT_DRIVERS, "driver"),
        sensors=group("sensors", SENSOR, SENSOR_DRIVERS, "driver"),
        buses=group("buses", BUS, BUSES, "kind"),
        led=maybe("led", LED),
        button=maybe("button", BUTTON),
        control=section("control", CONTROL) if greenhouse or "control" in data else None,
        report=section("report", REPORT),
        link=maybe("link", LINK),
        simulate=maybe("simulate", SIMULATE),
        vehicle=_fitting(data["vehicle"], where) if "vehicle" in data else None,
        warnings=words["warnings"],
        capabilities=words["capabilities"],
        reserved=_reserved(data.get("pins", {}), f"{where}: [pins]"),
        checked=str(head.get("checked", "")),
        flash_mb=int(head.get("flash_mb", 0)),
        psram_mb=int(head.get("psram_mb", 0)),
        cpu_mhz=int(head.get("cpu_mhz", 0)),
        image=None if bare else _image(data["image"], str(head["chip"]), f"{where}: [image]"),
        fs_offset=fs_offset,
        fs_size=fs_size,
        **({} if bare else section("serial", SERIAL)),  # type: ignore[arg-type]
    )
    check_sense({"control": board.control or {}, "link": board.link or {}}, where)
    if board.simulated and board.simulate is None:
        raise PeanutError(f"{where}: a board without pins needs [simulate]", "Add the table.")
    if greenhouse:
        _greenhouse(board, where)
    for sensor, table in board.sensors.items():
        if "quantity" in table and table["quantity"] not in MEASURES[str(table["driver"])]:
            raise PeanutError(
                f"{where}: [sensors.{sensor}]: a {table['driver']} does not measure {table['quantity']}",
                f"It measures: {', '.join(MEASURES[str(table['driver'])])}.",
            )
    if Kind.VEHICLE in board.profiles:
        if board.vehicle is None or not (board.vehicle.outputs or board.vehicle.sensors):
            raise PeanutError(
                f"{where}: [vehicle] is missing: a vehicle on it would move and measure nothing",
                'Add its outputs and sensors (boards/README.md), or take "vehicle" out of profiles.',
            )
        if board.simulated:
            _need_model(board.vehicle, where)
    faults = pinout.faults(board)
    if not faults and board.vehicle is not None:
        faults = pinout.faults(fitted(board))
    if faults:
        raise PeanutError(f"{where}: {faults[0].what}", faults[0].fix)
    return board


def fitted(board: Board) -> Board:
    """The board as a vehicle has it: its own wiring in place of the greenhouse's."""
    own = board.vehicle or Fitting({}, {}, {}, None)
    return replace(board, outputs=own.outputs, sensors=own.sensors, buses=own.buses)


def _group(
    data: Mapping[str, Any], key: str, shown: str, common: Table, variants: Mapping[str, Table], by: str, where: str
) -> dict[str, dict[str, Value]]:
    things = data.get(key, {})
    if not isinstance(things, dict) or not all(map(_WORD.fullmatch, things)):
        raise PeanutError(f"{where}: [{shown}] is not a table of named tables", f"Write [{shown}.NAME].")
    return {n: check_variant(common, variants, by, t, f"{where}: [{shown}.{n}]") for n, t in things.items()}


def _fitting(data: object, where: str) -> Fitting:
    """[vehicle]: its outputs, sensors, buses, and its model."""
    tables = ("outputs", "sensors", "buses", "simulate")
    if not isinstance(data, dict) or set(data) - set(tables):
        raise PeanutError(f"{where}: [vehicle] has the tables {', '.join(tables)}", "Mend it.")
    found = Fitting(
        _group(data, "outputs", "vehicle.outputs", VEHICLE_OUTPUT, VEHICLE_OUTPUT_DRIVERS, "driver", where),
        _group(data, "sensors", "vehicle.sensors", VEHICLE_SENSOR, VEHICLE_SENSOR_DRIVERS, "driver", where),
        _group(data, "buses", "vehicle.buses", BUS, BUSES, "kind", where),
        check(VEHICLE_SIMULATE, data["simulate"], f"{where}: [vehicle.simulate]") if "simulate" in data else None,
    )
    _known(tuple(found.outputs), VEHICLE_OUTPUTS, f"{where}: [vehicle.outputs]")
    _known(tuple(found.sensors), VEHICLE_SENSORS, f"{where}: [vehicle.sensors]")
    for verb, end in ENDS.items():
        if verb in found.outputs and end not in found.outputs:
            raise PeanutError(
                f"{where}: [vehicle.outputs.{end}] is missing", f"A car that can {verb} must {end} again by itself."
            )
    return found


def _need_model(vehicle: Fitting, where: str) -> None:
    if vehicle.simulate is None:
        raise PeanutError(f"{where}: a board without pins needs [vehicle.simulate]", "Add the table.")


def _known(words: tuple[str, ...], known: tuple[str, ...], where: str) -> None:
    for word in words:
        if word not in known:
            raise PeanutError(f"{where}: unknown {word!r}", f"Choose from: {', '.join(known)}.")


def _greenhouse(board: Board, where: str) -> None:
    things: Mapping[str, tuple[Mapping[str, object], tuple[str, ...]]] = {
        "outputs": (board.outputs, GREENHOUSE_OUTPUTS),
        "sensors": (board.sensors, GREENHOUSE_SENSORS),
    }
    for group, (found, known) in things.items():
        _known(tuple(found), known, f"{where}: [{group}]")
        for name in NEEDED[group]:
            if name not in found:
                raise PeanutError(f"{where}: [{group}.{name}] is missing", "A greenhouse needs it.")
    for name in MUST_REST:
        if board.outputs.get(name, {}).get("safe", "off") != "off":
            raise PeanutError(f"{where}: [outputs.{name}]: on is not safe for it", 'Write safe = "off".')


def _image(data: object, chip: str, where: str) -> Image:
    table = check(IMAGE, data, where)
    sha256 = str(table.get("sha256", ""))
    if sha256 and not SHA256.fullmatch(sha256):
        raise PeanutError(f"{where}: sha256 = {sha256!r} is not a SHA-256", "Write its 64 digits of 0-9 and a-f.")
    if "/" in str(table["file"]) or not str(table["file"]).endswith(".bin"):
        raise PeanutError(f"{where}: file = {table['file']!r} is not the name of an image", "Write NAME.bin.")
    if table["offset"] != CHIPS[chip].bootloader:
        expected = CHIPS[chip].bootloader
        raise PeanutError(f"{where}: offset = {table['offset']:#x} is not where an {CHIPS[chip].name} starts from",
                          f"Write {expected:#x}.")  # fmt: skip
    return Image(str(table["file"]), str(table["version"]), sha256, int(table["offset"]))


def _fs(data: object, flash_mb: int, where: str) -> tuple[int, int]:
    """Offset and size in bytes; a size of 0 stands for "auto", to the end of the flash."""
    end = flash_mb * 1024 * 1024
    auto = isinstance(data, Mapping) and data.get("size") == "auto"
    table = check({"offset": Field(int, 0, end), "size": Field(str) if auto else Field(int, 1, end)}, data, where)
    offset, size = int(table["offset"]), 0 if auto else int(table["size"])
    if offset % LITTLEFS_BLOCK or size % LITTLEFS_BLOCK:
        raise PeanutError(f"{where}: offset and size are whole blocks of {LITTLEFS_BLOCK} bytes", "Mend them.")
    if offset + size > end or offset == end:
        raise PeanutError(f"{where}: it ends behind the {flash_mb} MB of flash", "Mend offset and size.")
    return offset, size


def _reserved(data: object, where: str) -> tuple[int, ...]:
    if not isinstance(data, Mapping) or set(data) - {"reserved"}:
        raise PeanutError(f"{where} has one key, reserved", "Write reserved = [16, 17].")
    pins = data.get("reserved", [])
    if not isinstance(pins, list) or not all(type(p) is int and 0 <= p <= PIN_MAX for p in pins):
        raise PeanutError(f"{where}: reserved = {pins!r} is not a list of pins", "Write reserved = [16, 17].")
    return tuple(pins)


def _words(value: object, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(w, str) for w in value):
        raise PeanutError(f"{where}: {key} is not a list of strings", f'Write {key} = ["…"].')
    return tuple(value)


def check_sense(sections: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """What no single key can tell: min <= set points <= max, schedules, base <= cap, what goes unsigned."""
    control, link = sections.get("control", {}), sections.get("link", {})
    vehicle = sections.get("vehicle", {})
    for verb in (word.strip() for word in str(vehicle.get("compat_plain", "")).split(",") if word.strip()):
        _known((verb,), VEHICLE_OUTPUTS, f"{where}: vehicle: compat_plain")
        if verb not in HARMLESS and not vehicle.get("compat_unsafe", False):
            raise PeanutError(
                f"{where}: vehicle: compat_plain: whoever may publish could {verb} the car",
                "If that is what you want: --set vehicle.compat_unsafe=true, before it.",
            )
    if control:
        asked = [("setpoint", control["setpoint"]), ("fallback", control.get("fallback"))]
        asked += [("schedule", value) for value in _day(control, "schedule", where)]
        for key, value in asked:
            if value is not None and not control["min"] <= value <= control["max"]:
                raise PeanutError(
                    f"{where}: control: {key}: {value} is not within min {control['min']} and max {control['max']}",
                    "Change one of them.",
                )
        _day(control, "light", where)
    if link and link["base_s"] > link["cap_s"]:
        raise PeanutError(
            f"{where}: link: base_s {link['base_s']} is above cap_s {link['cap_s']}", "Change one of them."
        )


def _day(control: Mapping[str, Any], key: str, where: str) -> list[float]:
    """The values of a schedule, "06:00 18, 20:00 14.5" or "05:00 on, 08:30 off"; none where there is none."""
    if key not in control:
        return []
    entries = [_ENTRY.fullmatch(part.strip()) for part in control[key].split(",")]
    found = [entry for entry in entries if entry is not None]
    if len(found) < len(entries) or len({entry[1] for entry in found}) < len(entries) or len(entries) > MAX_ENTRIES:
        raise PeanutError(
            f"{where}: control: {key} = {control[key]!r} is no schedule",
            f'Write for example "06:00 18, 20:00 14.5": at most {MAX_ENTRIES} entries, each of another time.',
        )
    return [{"on": 1.0, "off": 0.0}[entry[2]] if entry[2] in ("on", "off") else float(entry[2]) for entry in found]
