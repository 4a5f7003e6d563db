"""What is known of the chips: facts as data, from the data sheets, the technical reference manuals and boot logs.

Rule: no behaviour but the arithmetic that puts a fact into a register.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpiLayout:
    """Where the controller of the flash has its registers: base address, offsets."""

    base: int
    user2: int
    mosi_bits: int
    data: int


@dataclass(frozen=True)
class Watchdog:
    """The watchdog of the RTC domain, which esptool uses to reset a chip that has no reset line."""

    config: int
    protect: int
    key: int = 0x50D83AA1


@dataclass(frozen=True)
class Chip:
    """One chip.

    image_id    what an image must say in its header (0 on the first one, which also has no "security info")
    magic       the word at 0x40001000, by which esptool knows the chips without a chip id
    bootloader  where in the flash the ROM looks for it
    mac         where the MAC is in eFuse: two words, low one first
    efuses      other words of the eFuse that say what the chip is
    rom         first lines of the boot log
    boot, download, resets    words of the boot log: mode (run, download), reset causes
    heap_kib    what MicroPython has for Python objects at the start
    """

    name: str
    title: str
    image_id: int
    magic: int
    bootloader: int
    spi: SpiLayout
    mac: int
    efuses: dict[int, int]
    uart_divider: int
    watchdog: Watchdog | None
    rom: str
    boot: str
    download: str
    resets: dict[str, str]
    heap_kib: int


# The causes of a reset, as the board calls them: power (also EN), restart (machine.reset), watchdog, sleep, and rtc
# (a ROM that found nothing to boot, or esptool's way to reset a chip without a wire).
_ESP32_RESETS = {
    "power": "0x1 (POWERON_RESET)",
    "restart": "0xc (SW_CPU_RESET)",
    "watchdog": "0xc (SW_CPU_RESET)",
    "sleep": "0x5 (DEEPSLEEP_RESET)",
    "rtc": "0x10 (RTCWDT_RTC_RESET)",
}
_NEWER_RESETS = {
    "power": "0x1 (POWERON)",
    "restart": "0xc (RTC_SW_CPU_RST)",
    "watchdog": "0xc (RTC_SW_CPU_RST)",
    "sleep": "0x5 (DSLEEP)",
    "rtc": "0x10 (RTCWDT_RTC_RST)",
}

ESP32 = Chip(
    name="esp32",
    title="ESP32-D0WD-V3",
    image_id=0,
    magic=0x00F01D83,
    bootloader=0x1000,
    spi=SpiLayout(0x3FF42000, 0x24, 0x28, 0x80),
    mac=0x3FF5A004,
    efuses={
        0x3FF5A00C: 1 << 15 | 1 << 13 | 1 << 9,  # revision bit 0, 240 MHz, package D0WD
        0x3FF5A010: 128,  # the 8 MHz oscillator as calibrated: with the next word a 40 MHz crystal
        0x3FF5F06C: 800 << 7,
        0x3FF5A014: 1 << 20 | 1 << 24,  # revision bit 1; minor 1
        0x3FF6607C: 1 << 31,  # revision bit 2
    },
    uart_divider=0x3FF40014,
    watchdog=None,
    rom="ets Jul 29 2019 12:21:46\r\n\r\n",
    boot="0x13 (SPI_FAST_FLASH_BOOT)",
    download="0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))",
    resets=_ESP32_RESETS,
    heap_kib=160,
)

ESP32S3 = Chip(
    name="esp32s3",
    title="ESP32-S3 (QFN56)",
    image_id=9,
    magic=0x9,
    bootloader=0x0,
    spi=SpiLayout(0x60002000, 0x20, 0x24, 0x58),
    mac=0x60007044,
    efuses={0x60007050: 2 << 18, 0x60004038: 1 << 3},  # revision v0.2; strapping: not the download mode
    uart_divider=0x60000014,
    watchdog=Watchdog(0x60008098, 0x600080B0),
    rom="ESP-ROM:esp32s3-20210327\r\nBuild:Mar 27 2021\r\n",
    boot="0x8 (SPI_FAST_FLASH_BOOT)",
    download="0x0 (DOWNLOAD(USB/UART0))",
    resets=_NEWER_RESETS,
    heap_kib=160,
)

ESP32C3 = Chip(
    name="esp32c3",
    title="ESP32-C3 (QFN32)",
    image_id=5,
    magic=0x6921506F,
    bootloader=0x0,
    spi=SpiLayout(0x60002000, 0x20, 0x24, 0x58),
    mac=0x60008844,
    efuses={0x60008850: 4 << 18},  # revision v0.4
    uart_divider=0x60000014,
    watchdog=Watchdog(0x60008090, 0x600080A8),
    rom="ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\n",
    boot="0xc (SPI_FAST_FLASH_BOOT)",
    download="0x4 (DOWNLOAD(USB/UART0/1))",
    resets=_NEWER_RESETS,
    heap_kib=128,
)

CHIPS = {chip.name: chip for chip in (ESP32, ESP32S3, ESP32C3)}

MAGIC_ADDRESS = 0x40001000
CRYSTAL_HZ = 40_000_000


def registers(chip: Chip, mac: bytes) -> dict[int, int]:
    """What a chip with this MAC has in the registers that are not 0 at reset."""
    return {
        MAGIC_ADDRESS: chip.magic,
        chip.mac: int.from_bytes(mac[2:]),
        chip.mac + 4: int.from_bytes(mac[:2]),
        **chip.efuses,
    }
