"""Boards as data: reads boards/<name>/board.toml and checks it against a schema that is data too.

Rule: agreement 3. boards/README.md tells people what the tables below tell this program; a key that neither knows is an
error, so that a slip of the pen is not an output without a safe level.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peanut import store
from peanut.errors import PeanutError
from peanut.names import Kind

FORMAT = 1
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")
_BOARD_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,46}[a-z0-9])?")

CELSIUS_MAX = 44  # highest set point: below the 45 degrees at which a node switches its heater off and opens the vent

Value = bool | int | float | str


@dataclass(frozen=True)
class Field:
    """One key of a table: its type, and for numbers its range (both ends allowed), for words the choice."""

    type: type
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    required: bool = True


Table = Mapping[str, Field]

OUTPUT: Table = {
    "driver": Field(str),
    "safe": Field(str, choices=("off", "on")),
    "min_on_s": Field(float, 0, 3600, required=False),
    "min_off_s": Field(float, 0, 3600, required=False),
}
SENSOR: Table = {"driver": Field(str), "unit": Field(str)}
CONTROL: Table = {
    "setpoint": Field(float, -20, CELSIUS_MAX),
    "min": Field(float, -20, CELSIUS_MAX),
    "max": Field(float, -20, CELSIUS_MAX),
    "hysteresis": Field(float, 0.1, 10),
    "vent_fail": Field(str, choices=("open", "closed"), required=False),
}
REPORT: Table = {"telemetry_s": Field(float, 0.1, 86400), "state_s": Field(float, 1, 86400)}
LINK: Table = {
    "base_s": Field(float, 0.05, 300),
    "cap_s": Field(float, 0.05, 3600),
    "first_s": Field(float, 0, 300),
    "settle_s": Field(float, 0, 3600, required=False),
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
GATEWAY: Table = {"host": Field(str), "port": Field(int, 1, 65535)}

# What `--set section.key=value` may set, and what node.json consists of beside the board itself. The node checks the
# same (agreement 3).
SECTIONS: Mapping[str, Table] = {
    "gateway": GATEWAY,
    "control": CONTROL,
    "report": REPORT,
    "link": LINK,
    "simulate": SIMULATE,
}


@dataclass(frozen=True)
class Board:
    """A board file, checked. Tables are as they go into node.json."""

    name: str
    title: str
    chip: str
    profiles: tuple[Kind, ...]
    outputs: Mapping[str, Mapping[str, Value]]
    sensors: Mapping[str, Mapping[str, Value]]
    control: Mapping[str, Value]
    report: Mapping[str, Value]
    link: Mapping[str, Value] | None
    simulate: Mapping[str, Value] | None
    warnings: tuple[str, ...]

    @property
    def simulated(self) -> bool:
        """Whether the board has no pins at all, so that a node on it always runs the model."""
        return self.chip == "unix"


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
    top: Table = {"format": Field(int, FORMAT, FORMAT), "title": Field(str), "chip": Field(str)}
    lists = ("profiles", "warnings")
    tables = ("outputs", "sensors", "control", "report", "link", "simulate")
    unknown = sorted(set(data) - set(top) - set(lists) - set(tables))
    if unknown:
        raise PeanutError(f"{where}: unknown key {unknown[0]!r}", f"Keys: {', '.join([*top, *lists, *tables])}.")
    head = check(top, {k: v for k, v in data.items() if k in top}, where)
    words = {key: _words(data.get(key, []), key, where) for key in lists}
    for word in words["profiles"]:
        if word not in list(Kind):
            raise PeanutError(f"{where}: profiles: unknown {word!r}", f"Profiles: {', '.join(Kind)}.")

    def section(key: str, table: Table) -> dict[str, Value]:
        return check(table, data.get(key, {}), f"{where}: [{key}]")

    def group(key: str, table: Table) -> dict[str, dict[str, Value]]:
        things = data.get(key, {})
        if not isinstance(things, dict) or not all(map(_WORD.fullmatch, things)):
            raise PeanutError(f"{where}: [{key}] is not a table of named tables", f"Write [{key}.NAME].")
        return {n: check(table, thing, f"{where}: [{key}.{n}]") for n, thing in things.items()}

    board = Board(
        name=name,
        title=str(head["title"]),
        chip=str(head["chip"]),
        profiles=tuple(Kind(word) for word in words["profiles"]),
        outputs=group("outputs", OUTPUT),
        sensors=group("sensors", SENSOR),
        control=section("control", CONTROL),
        report=section("report", REPORT),
        link=section("link", LINK) if "link" in data else None,
        simulate=section("simulate", SIMULATE) if "simulate" in data else None,
        warnings=words["warnings"],
    )
    check_sense({"control": board.control, "link": board.link or {}}, where)
    if board.simulated and board.simulate is None:
        raise PeanutError(f"{where}: a board without pins needs [simulate]", "Add the table.")
    return board


def _words(value: object, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(w, str) for w in value):
        raise PeanutError(f"{where}: {key} is not a list of strings", f'Write {key} = ["…"].')
    return tuple(value)


def check(table: Table, data: object, where: str) -> dict[str, Value]:
    """`data` as the table wants it; PeanutError names the key. Integers pass where a number is asked for."""
    if not isinstance(data, Mapping):
        raise PeanutError(f"{where} is not a table")
    unknown = sorted(set(data) - set(table))
    if unknown:
        raise PeanutError(f"{where}: unknown key {unknown[0]!r}", f"Keys: {', '.join(table)}.")
    missing = [k for k, field in table.items() if field.required and k not in data]
    if missing:
        raise PeanutError(f"{where}: {missing[0]} is missing", "Add it.")
    return {key: check_value(table[key], value, f"{where}: {key}") for key, value in data.items()}


def check_value(field: Field, value: object, where: str) -> Value:
    """One value of a table; PeanutError says what it must be."""
    if field.type is str:
        if not isinstance(value, str) or not value:
            raise PeanutError(f"{where} = {value!r} is not a string")
        if field.choices and value not in field.choices:
            raise PeanutError(f"{where} = {value!r} is not known", f"Choose from: {', '.join(field.choices)}.")
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    fraction = field.type is float and isinstance(value, float) and math.isfinite(value)
    if not whole and not fraction:
        raise PeanutError(f"{where} = {value!r} is not {'a whole number' if field.type is int else 'a number'}")
    assert isinstance(value, int | float)
    if not field.low <= value <= field.high:
        raise PeanutError(f"{where} = {value} is out of range", f"Give {field.low:g} to {field.high:g}.")
    return value


def check_sense(sections: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """What no single key can tell: min <= setpoint <= max, base <= cap."""
    control, link = sections.get("control", {}), sections.get("link", {})
    if control and not control["min"] <= control["setpoint"] <= control["max"]:
        raise PeanutError(
            f"{where}: control: the set point {control['setpoint']} is not within min {control['min']} "
            f"and max {control['max']}",
            "Change one of them.",
        )
    if link and link["base_s"] > link["cap_s"]:
        raise PeanutError(
            f"{where}: link: base_s {link['base_s']} is above cap_s {link['cap_s']}", "Change one of them."
        )
