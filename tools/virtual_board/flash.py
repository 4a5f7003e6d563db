"""The board's flash chip: NOR memory kept in a file.

Rule: what NOR flash does. Programming only clears bits, erasing sets a whole sector to 0xFF, addresses wrap at the end
of the chip. Whoever writes without erasing finds the AND of both, as on the bench.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

SECTOR = 4096  # the least that can be erased
PAGE = 256
MIB = 1024 * 1024
MAKER = 0xEF  # Winbond, as the JEDEC id says; 0x40: SPI NOR of 3 V
PROTECT_ALL = 0x1C  # block protection bits BP0 to BP2 of the status register


class Flash:
    """A flash chip of `size` bytes in the file `path`, which is made (erased) where there is none.

    bad        offsets in sectors that no longer take a program or an erase
    protected  the status register says so: programming and erasing do nothing
    """

    def __init__(self, path: Path, size: int, bad: Iterable[int] = (), protected: bool = False) -> None:
        self.path = path
        self.size = size
        self.status = PROTECT_ALL if protected else 0
        self._bad = {offset // SECTOR for offset in bad}
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # keys are written into it
        try:
            if os.fstat(handle).st_size == 0:
                os.truncate(handle, size)
                fresh = True
            elif os.fstat(handle).st_size != size:
                raise ValueError(f"{path} holds {os.fstat(handle).st_size} bytes; this board's flash has {size}")
            else:
                fresh = False
            self._bytes = mmap.mmap(handle, size)
        finally:
            os.close(handle)
        if fresh:
            self._bytes[:] = b"\xff" * size

    @property
    def jedec(self) -> int:
        """Answer to 0x9F: maker, type, capacity (a power of two), lowest byte first."""
        return MAKER | 0x40 << 8 | (self.size.bit_length() - 1) << 16

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
        offset %= self.size
        first = self._bytes[offset : offset + length]
        return first if len(first) == length else first + self.read(0, length - len(first))

    def program(self, offset: int, data: bytes) -> None:
        """Clears the bits that are 0 in `data`."""
        while data:
            offset %= self.size
            length = min(SECTOR - offset % SECTOR, len(data))
            if self._takes(offset):
                old = int.from_bytes(self._bytes[offset : offset + length])
                new = (old & int.from_bytes(data[:length])).to_bytes(length)
                self._bytes[offset : offset + length] = new
            data = data[length:]
            offset += length

    def erase(self, offset: int, length: int) -> None:
        """Sets every sector that the range touches to 0xFF."""
        for sector in range(offset // SECTOR, -(-(offset + length) // SECTOR)):
            start = sector * SECTOR % self.size
            if self._takes(start):
                self._bytes[start : start + SECTOR] = b"\xff" * SECTOR

    def md5(self, offset: int, length: int) -> bytes:
        """The digest of a range."""
        return hashlib.md5(self.read(offset, length), usedforsecurity=False).digest()

    def _takes(self, offset: int) -> bool:
        return not self.status & PROTECT_ALL and offset // SECTOR not in self._bad

    def close(self) -> None:
        """Gives the file back; its contents stay."""
        self._bytes.close()
