"""The chip's address space as far as a loader sees it: words, and behind some of them the controller of the flash.

Rule: a word reads as it was written, except where hardware answers.
"""

from __future__ import annotations

from .chips import CRYSTAL_HZ, Chip, registers
from .flash import SECTOR, Flash

_RUN_COMMAND = 1 << 18  # SPI_USR: execute the user command; reads as 0 when it is done
_WRITE_ENABLE, _VOLATILE_ENABLE, _WRITE_DISABLE = 0x06, 0x50, 0x04


class Registers:
    """Words by address. `baud`: speed of the UART. `watchdog_fired`: esptool wants its reset without a wire."""

    def __init__(self, chip: Chip, mac: bytes, flash: Flash) -> None:
        self._chip = chip
        self._flash = flash
        self._words = registers(chip, mac)
        self._may_write = False
        self.baud = 115200
        self.watchdog_fired = False

    def read(self, address: int) -> int:
        """The word at an address, 0 where nothing is known."""
        if address == self._chip.uart_divider:
            return CRYSTAL_HZ // self.baud
        return self._words.get(address, 0)

    def write(self, address: int, value: int, mask: int = 0xFFFFFFFF) -> None:
        """Sets the bits of `mask`."""
        value = self.read(address) & ~mask | value & mask
        if address == self._chip.spi.base and value & _RUN_COMMAND:
            self._run_spi_command()
            value &= ~_RUN_COMMAND
        self._words[address] = value
        dog = self._chip.watchdog
        if dog and address == dog.config and value >> 31 and self._words.get(dog.protect) == dog.key:
            self.watchdog_fired = True

    def _run_spi_command(self) -> None:
        """One command on the wires to the flash, as far as tools use them."""
        spi = self._chip.spi
        command = self._words.get(spi.base + spi.user2, 0) & 0xFF
        data = self._words.get(spi.base + spi.data, 0)
        answer = 0
        if command == 0x9F:
            answer = self._flash.jedec
        elif command == 0x05:
            answer = self._flash.status
        elif command == 0x5A:  # serial flash discoverable parameters: this chip has none
            answer = 0xFFFFFFFF
        elif command in (_WRITE_ENABLE, _VOLATILE_ENABLE, _WRITE_DISABLE):
            self._may_write = command != _WRITE_DISABLE
        elif command == 0x01 and self._may_write:
            self._flash.status = data & 0xFC
        elif command == 0xC7 and self._may_write:
            self._flash.erase(0, self._flash.size // SECTOR * SECTOR)
        self._words[spi.base + spi.data] = answer
