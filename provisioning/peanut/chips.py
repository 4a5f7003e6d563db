"""What a chip is, as far as its pins and its flash go: facts from Espressif's data sheets, the same on every board.

Rule: data only. What a board adds (pins that its PHY, its USB bridge or its PSRAM module take) stands in its file.
"""

from dataclasses import dataclass

LITTLEFS_BLOCK = 4096  # bytes; the erase sector of the flash, and MicroPython's block size


def _pins(text: str) -> frozenset[int]:
    """`0-3 5` as a set."""
    found: set[int] = set()
    for part in text.split():
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return frozenset(found)


@dataclass(frozen=True)
class Chip:
    """One chip. name: as esptool prints it; the sets hold GPIO numbers.

    strapping: read at reset, so what hangs on them decides how the chip starts, and they may move while it does.
    adc2: analog inputs that the Wi-Fi driver takes away. psram: pins that external RAM takes where there is one.
    """

    name: str
    pins: frozenset[int]
    flash: frozenset[int]
    psram: frozenset[int]
    strapping: frozenset[int]
    input_only: frozenset[int]
    adc1: frozenset[int]
    adc2: frozenset[int]
    usb: frozenset[int]
    console: tuple[int, int]  # UART 0: TX, RX
    bootloader: int  # offset of the image in flash


CHIPS = {
    "esp32": Chip(
        name="ESP32",
        pins=_pins("0-19 21-23 25-27 32-39"),
        flash=_pins("6-11"),
        psram=_pins("16-17"),
        strapping=_pins("0 2 5 12 15"),
        input_only=_pins("34-39"),
        adc1=_pins("32-39"),
        adc2=_pins("0 2 4 12-15 25-27"),
        usb=_pins(""),
        console=(1, 3),
        bootloader=0x1000,
    ),
    "esp32s3": Chip(
        name="ESP32-S3",
        pins=_pins("0-21 26-48"),
        flash=_pins("27-32"),
        psram=_pins("26"),  # an octal one takes 33 to 37 too: the board's `reserved`
        strapping=_pins("0 3 45 46"),
        input_only=_pins(""),
        adc1=_pins("1-10"),
        adc2=_pins("11-20"),
        usb=_pins("19-20"),
        console=(43, 44),
        bootloader=0x0,
    ),
    "esp32c3": Chip(
        name="ESP32-C3",
        pins=_pins("0-21"),
        flash=_pins("11-17"),
        psram=_pins(""),
        strapping=_pins("2 8 9"),
        input_only=_pins(""),
        adc1=_pins("0-4"),
        adc2=_pins("5"),
        usb=_pins("18-19"),
        console=(21, 20),
        bootloader=0x0,
    ),
}
