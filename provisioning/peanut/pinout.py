"""Which pin does what on a board, and what no pin may be used for.

Rule: a fault here is a heater that switches on while the board starts, a sensor that Wi-Fi takes away, or a board that
does not start at all; so a board file with one is refused, and the fix names the pins that would do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from peanut.chips import CHIPS, Chip
from peanut.fields import Value

Tables = Mapping[str, Mapping[str, Value]]


class Wired(Protocol):
    """What is asked of a board here."""

    @property
    def chip(self) -> str: ...
    @property
    def psram_mb(self) -> int: ...
    @property
    def usb(self) -> str: ...
    @property
    def reserved(self) -> tuple[int, ...]: ...
    @property
    def outputs(self) -> Tables: ...
    @property
    def sensors(self) -> Tables: ...
    @property
    def buses(self) -> Tables: ...
    @property
    def led(self) -> Mapping[str, Value] | None: ...
    @property
    def button(self) -> Mapping[str, Value] | None: ...


class Way(StrEnum):
    """What a pin is for, electrically."""

    ACTUATOR = "output"  # moves something in the world
    OUT = "out"
    IN = "in"
    BOTH = "in and out"
    ANALOG = "analog in"


@dataclass(frozen=True)
class Use:
    """One use of one pin. what: the key of the board file; why: what hangs on it, for people."""

    pin: int
    way: Way
    what: str
    why: str
    glitch_ok: bool = False


@dataclass(frozen=True)
class Fault:
    """What is wrong with a board's wiring, and what to do about it."""

    what: str
    fix: str


_BUS_PINS = {
    "i2c": {"sda": Way.BOTH, "scl": Way.BOTH},
    "onewire": {"pin": Way.BOTH},
    "shift595": {"data": Way.OUT, "clock": Way.OUT, "latch": Way.OUT},
    "uart": {"tx": Way.OUT, "rx": Way.IN},
}
_SENSOR_WAYS = {"dht22": Way.BOTH, "soil": Way.ANALOG, "contact": Way.IN}
_BUS_OF = {  # driver: the kind of bus it hangs on
    "pcf8574": "i2c", "sht3x": "i2c", "sht4x": "i2c", "bme280": "i2c", "scd4x": "i2c", "bh1750": "i2c",
    "ds18b20": "onewire", "shift595": "shift595", "elm327": "uart", "nmea": "uart",
}  # fmt: skip


def uses(board: Wired) -> list[Use]:
    """Every use of a pin that the board file names, in its order."""
    return [*_bus_uses(board), *_output_uses(board), *_sensor_uses(board), *_panel_uses(board)]


def _bus_uses(board: Wired) -> Iterator[Use]:
    for name, bus in board.buses.items():
        kind = str(bus["kind"])
        moves = [o for o, t in board.outputs.items() if kind == "shift595" and t.get("bus") == name]
        glitch_ok = bool(moves) and all(board.outputs[o].get("glitch_ok") is True for o in moves)
        for key, way in _BUS_PINS[kind].items():
            if moves:
                way = Way.ACTUATOR  # a shift register moves what hangs on it with these three
            yield Use(int(bus[key]), way, f"buses.{name}.{key}", f"{kind} {key}", glitch_ok)


def _output_uses(board: Wired) -> Iterator[Use]:
    for name, output in board.outputs.items():
        if "pin" in output:
            on = "high" if output.get("on", 1) else "low"
            why = f"{name}, on when {on}, {output['safe']} at start"
            yield Use(int(output["pin"]), Way.ACTUATOR, f"outputs.{name}", why, output.get("glitch_ok") is True)


def _sensor_uses(board: Wired) -> Iterator[Use]:
    shared: dict[tuple[object, object], str] = {}
    for name, sensor in board.sensors.items():
        if "pin" in sensor:
            key = (sensor["driver"], sensor["pin"])
            if sensor["driver"] == "dht22" and key in shared:
                continue  # one chip, asked for two quantities
            shared[key] = name
            yield Use(int(sensor["pin"]), _SENSOR_WAYS[str(sensor["driver"])], f"sensors.{name}", str(sensor["driver"]))


def _panel_uses(board: Wired) -> Iterator[Use]:
    if board.led is not None:
        yield Use(int(board.led["pin"]), Way.OUT, "led", f"status light ({board.led['kind']})")
    if board.button is not None:
        active = "high" if board.button["active"] else "low"
        yield Use(int(board.button["pin"]), Way.IN, "button", f"button, pressed when {active}")


def taken(board: Wired) -> dict[int, str]:
    """The pins that nothing may be put on, and who has them."""
    chip = CHIPS[board.chip]
    found = dict.fromkeys(sorted(chip.flash), "flash")
    found |= dict.fromkeys(sorted(chip.psram) if board.psram_mb else [], "PSRAM")
    found |= dict.fromkeys(sorted(chip.usb) if board.usb == "native" else [], "USB")
    found |= dict.fromkeys(chip.console if board.usb == "bridge" else [], "serial console")
    return found | dict.fromkeys(board.reserved, "reserved by the board")


def free(board: Wired, way: Way) -> list[int]:
    """The pins of the chip that could be used this way and have no use yet; not every board leads them out."""
    chip, used = CHIPS[board.chip], {use.pin for use in uses(board)}
    return [p for p in sorted(chip.pins - used) if _refusal(board, chip, Use(p, way, "", "")) is None]


def faults(board: Wired) -> list[Fault]:
    """Everything that is wrong with the wiring of a board. A board without a chip has none."""
    if board.chip not in CHIPS:
        return []
    return [*_pin_faults(board), *_bus_faults(board)]


def _pin_faults(board: Wired) -> Iterator[Fault]:
    chip = CHIPS[board.chip]
    first: dict[int, Use] = {}
    for use in uses(board):
        refused = _refusal(board, chip, use)
        if refused is not None:
            candidates = ", ".join(map(str, free(board, use.way))) or "none"
            yield Fault(
                f"[{use.what}] is on pin {use.pin}, {refused[0]}", f"{refused[1]}Pins that would do: {candidates}."
            )
        if use.pin in first:
            fix = f"Move one of them. Pins that would do: {', '.join(map(str, free(board, use.way))) or 'none'}."
            yield Fault(f"pin {use.pin} is used twice: [{first[use.pin].what}] and [{use.what}]", fix)
        first.setdefault(use.pin, use)


def _refusal(board: Wired, chip: Chip, use: Use) -> tuple[str, str] | None:
    """Why a pin cannot be used so, and the first words of the fix; None if it can."""
    owners = taken(board)
    if use.pin not in chip.pins:
        return f"which an {chip.name} does not have", ""
    if use.pin in owners:
        return f"which is not free ({owners[use.pin]})", ""
    if use.way in (Way.ACTUATOR, Way.OUT, Way.BOTH) and use.pin in chip.input_only:
        return "which is input only", ""
    if use.way is Way.ACTUATOR and not use.glitch_ok and use.pin in chip.strapping:
        return (
            "a strapping pin: the chip reads it while it starts, and it may switch on meanwhile",
            "Take another pin, or say glitch_ok = true if a moment of either level harms nothing. ",
        )
    if use.way is Way.ACTUATOR and not use.glitch_ok and use.pin == chip.console[0]:
        return (
            "on which the chip prints while it starts",
            "Take another pin, or say glitch_ok = true if switching for a moment harms nothing. ",
        )
    if use.way is Way.ANALOG and use.pin in chip.adc2:
        return "an input of ADC2, which does not work while Wi-Fi is on", ""
    if use.way is Way.ANALOG and use.pin not in chip.adc1:
        return "which is not an analog input", ""
    return None


def _bus_faults(board: Wired) -> Iterator[Fault]:
    kinds = {name: str(bus["kind"]) for name, bus in board.buses.items()}
    places: dict[tuple[object, ...], str] = {}
    chips: dict[tuple[object, ...], tuple[str, str]] = {}
    things = {f"outputs.{n}": t for n, t in board.outputs.items()} | {
        f"sensors.{n}": t for n, t in board.sensors.items()
    }
    for what, table in things.items():
        driver, bus = str(table["driver"]), table.get("bus")
        if bus is None:
            continue
        if kinds.get(str(bus)) != _BUS_OF[driver]:
            there_are = ", ".join(n for n, kind in kinds.items() if kind == _BUS_OF[driver]) or "none"
            yield Fault(
                f"[{what}]: bus = {bus!r} is not a bus of the kind {_BUS_OF[driver]!r}", f"There are: {there_are}."
            )
        if "bit" in table:
            place = (bus, table.get("address"), table["bit"])
            if place in places:
                yield Fault(f"[{what}] and [{places[place]}] are one bit of one chip", "Move one of them.")
            places.setdefault(place, what)
        if "address" in table:
            known = chips.setdefault((bus, table["address"]), (driver, what))
            if known[0] != driver:
                yield Fault(
                    f"[{what}] and [{known[1]}] are two chips at address {int(table['address']):#x} of {bus!r}",
                    "Change the address of one of them.",
                )


def drawing(board: Wired) -> list[tuple[str, str, str, str]]:
    """The pins as rows for a table: number, use, what for, remarks. Every pin of the chip has one."""
    if board.chip not in CHIPS:
        return []
    chip, owners = CHIPS[board.chip], taken(board)
    named: dict[int, Use] = {use.pin: use for use in uses(board)}
    rows = []
    for pin in sorted(chip.pins):
        use = named.get(pin)
        remarks = [
            word
            for word, pins in (("strapping", chip.strapping), ("input only", chip.input_only), ("ADC1", chip.adc1))
            if pin in pins
        ]
        if use is not None and use.glitch_ok:
            remarks.append("may switch at start")
        what = (
            (use.way.value, f"{use.what}: {use.why}") if use else ("taken", owners[pin]) if pin in owners else ("", "")
        )
        rows.append((str(pin), *what, ", ".join(remarks)))
    return rows
