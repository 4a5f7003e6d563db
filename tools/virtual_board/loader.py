"""The chip's serial loader: the one in ROM, and the stub that esptool uploads and starts.

Rule: bytes in, bytes out, no line and no clock. What it does to the flash is the flash's business; what it wants of the
board (a reset, another speed) it says in `wants` and `registers.baud`. The protocol is Espressif's "Serial Protocol".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from . import slip
from .chips import Chip
from .flash import SECTOR, Flash
from .image import checksum
from .registers import Registers

SYNC = b"\x07\x07\x12\x20" + b"\x55" * 32
SYNC_ANSWERS = 8
SYNC_START = b"\x00\x08\x24\x00"  # how a SYNC request begins, by which somebody at the button knows what the PC wants

OK = b"\x00\x00"
# Second status byte of a failure: the ROM's, and the stub's for the same thing.
UNKNOWN, FAILED, BAD_DATA, BAD_LENGTH, TOO_MUCH, INFLATE = range(6)
_ROM_ERRORS = {UNKNOWN: 0x05, FAILED: 0x06, BAD_DATA: 0x07, BAD_LENGTH: 0x05, TOO_MUCH: 0x06, INFLATE: 0x0B}
_STUB_ERRORS = {UNKNOWN: 0xFF, FAILED: 0xC4, BAD_DATA: 0xC1, BAD_LENGTH: 0xC0, TOO_MUCH: 0xC9, INFLATE: 0xCB}

_ROM_READ = 64  # bytes that the ROM's slow read gives at a time


class Failure(Exception):
    """A request that is answered with a failure; the argument is one of the kinds above."""


@dataclass
class _Write:
    """A download to the flash in progress: to where, how much is left, up to where the flash is erased."""

    position: int
    left: int
    erased: int
    inflate: zlib._Decompress | None


@dataclass
class _Read:
    """A read-out in progress: what is still to be sent, how much of what was sent is acknowledged."""

    offset: int
    length: int
    block: int
    window: int
    sent: int = 0
    acknowledged: int = 0


class Loader:
    """A chip in download mode. `wants` is None, "run" (boot from the flash) or "download" (start the ROM again)."""

    def __init__(self, chip: Chip, flash: Flash, registers: Registers) -> None:
        self.wants: str | None = None
        self.stub = False
        self._chip = chip
        self._flash = flash
        self._registers = registers
        self._slip = slip.Unpacker()
        self._attached = False
        self._ram: dict[int, bytes] = {}
        self._ram_at = 0
        self._write: _Write | None = None
        self._read: _Read | None = None
        self._requests: dict[int, Callable[[bytes], bytes]] = {
            0x02: self._flash_begin,
            0x03: self._flash_data,
            0x04: self._flash_end,
            0x05: self._mem_begin,
            0x07: self._mem_data,
            0x09: self._write_reg,
            0x0B: lambda body: b"",  # SPI_SET_PARAMS: this flash knows its size
            0x0D: self._attach,
            0x10: self._deflated_begin,
            0x11: self._deflated_data,
            0x12: self._flash_end,
            0x13: self._md5,
        }
        self._rom_requests = {0x0E: self._read_slow}
        if chip.image_id:
            self._requests[0x14] = self._security_info
        self._stub_requests = {0xD0: self._erase_all, 0xD1: self._erase_region}

    def feed(self, data: bytes) -> bytes:
        """What the chip answers to what came from the PC."""
        return b"".join(self._packet(packet) for packet in self._slip.feed(data))

    def _packet(self, packet: bytes) -> bytes:
        if self._read is not None and len(packet) == 4:
            self._read.acknowledged = int.from_bytes(packet, "little")
            return self._read_on()
        if len(packet) < 8 or packet[0] != 0:
            return b""
        _, op, length, check = struct.unpack_from("<BBHI", packet)
        body = packet[8:]
        if length != len(body):
            return self._answer(op, status=self._failed(BAD_LENGTH))
        if op == 0x08:
            # The ROM answers with something, the stub with 0: so the PC knows which of them it talks to.
            return self._answer(op, 0 if self.stub else 0x20120707) * SYNC_ANSWERS if body == SYNC else b""
        if op == 0x0A and length == 4:
            return self._answer(op, self._registers.read(int.from_bytes(body, "little")))
        if op in (0x03, 0x07, 0x11) and check != checksum(body[16:]):
            return self._answer(op, status=self._failed(BAD_DATA))
        if op == 0x06 and length >= 8:
            return self._mem_end(op, body)
        if op == 0x0F and length >= 4:
            answer = self._answer(op)
            self._registers.baud = int.from_bytes(body[:4], "little")  # after the answer, which goes at the old speed
            return answer
        if op == 0xD2 and self.stub and length == 16:
            self._read = _Read(*struct.unpack("<IIII", body))
            return self._answer(op) + self._read_on()
        own = self._stub_requests if self.stub else self._rom_requests
        request = self._requests.get(op) or own.get(op)
        try:
            if request is None:
                raise Failure(UNKNOWN)
            return self._answer(op, data=request(body))
        except Failure as failure:
            return self._answer(op, status=self._failed(failure.args[0]))
        except struct.error:
            return self._answer(op, status=self._failed(BAD_LENGTH))

    def _failed(self, kind: int) -> bytes:
        return bytes((1, (_STUB_ERRORS if self.stub else _ROM_ERRORS)[kind]))

    def _answer(self, op: int, value: int = 0, data: bytes = b"", status: bytes = OK) -> bytes:
        body = data + status if self.stub else data + status + b"\x00\x00"
        return slip.pack(struct.pack("<BBHI", 1, op, len(body), value) + body)

    # Registers, RAM

    def _write_reg(self, body: bytes) -> bytes:
        for address, value, mask, _delay in struct.iter_unpack("<IIII", body):
            self._registers.write(address, value, mask)
        return b""

    def _mem_begin(self, body: bytes) -> bytes:
        self._ram_at = struct.unpack("<IIII", body)[3]
        self._ram[self._ram_at] = b""
        return b""

    def _mem_data(self, body: bytes) -> bytes:
        length = struct.unpack_from("<IIII", body)[0]
        if self._ram_at not in self._ram or length != len(body) - 16:
            raise Failure(BAD_LENGTH)
        self._ram[self._ram_at] += body[16:]
        return b""

    def _mem_end(self, op: int, body: bytes) -> bytes:
        """Starts what was uploaded. Whatever has an entry inside an uploaded range is taken for the stub."""
        stay, entry = struct.unpack_from("<II", body)
        if stay:
            return self._answer(op)
        if not any(start <= entry < start + len(code) for start, code in self._ram.items()):
            return self._answer(op, status=self._failed(FAILED))
        answer = self._answer(op)
        self.stub = self._attached = True
        self._ram.clear()
        return answer + slip.pack(b"OHAI")

    def _security_info(self, body: bytes) -> bytes:
        return struct.pack("<IB7BII", 0, 0, *bytes(7), self._chip.image_id, 0)

    # Flash

    def _attach(self, body: bytes) -> bytes:
        self._attached = True
        return b""

    def _flash_begin(self, body: bytes) -> bytes:
        return self._begin(body, None)

    def _deflated_begin(self, body: bytes) -> bytes:
        return self._begin(body, zlib.decompressobj())

    def _begin(self, body: bytes, inflate: zlib._Decompress | None) -> bytes:
        size, _blocks, _block, offset = struct.unpack_from("<IIII", body)
        if size and not self._attached:
            raise Failure(FAILED)
        if offset + size > self._flash.size:
            raise Failure(FAILED)
        start = offset // SECTOR * SECTOR
        self._write = _Write(offset, size, start, inflate)
        if not self.stub:  # the ROM erases beforehand
            self._erase_up_to(offset + size)
        return b""

    def _erase_up_to(self, end: int) -> None:
        assert self._write is not None
        end = -(-end // SECTOR) * SECTOR
        if end > self._write.erased:
            self._flash.erase(self._write.erased, end - self._write.erased)
            self._write.erased = end

    def _flash_data(self, body: bytes) -> bytes:
        self._check_block(body)
        assert self._write is not None
        # The last block is padded. The ROM programs that too, as it programs whatever comes, erased or not.
        self._put(body[16 : 16 + self._write.left] if self.stub else body[16:])
        return b""

    def _deflated_data(self, body: bytes) -> bytes:
        self._check_block(body)
        if self._write is None or self._write.inflate is None:
            raise Failure(FAILED)
        try:
            data = self._write.inflate.decompress(body[16:])
        except zlib.error:
            raise Failure(INFLATE) from None
        if len(data) > -(-self._write.left // SECTOR) * SECTOR:
            raise Failure(TOO_MUCH)
        self._put(data)
        return b""

    def _check_block(self, body: bytes) -> None:
        length = struct.unpack_from("<IIII", body)[0]
        if length != len(body) - 16:
            raise Failure(BAD_LENGTH)
        if self._write is None:
            raise Failure(FAILED)

    def _put(self, data: bytes) -> None:
        assert self._write is not None
        if self.stub:  # erases as it goes
            self._erase_up_to(self._write.position + len(data))
        self._flash.program(self._write.position, data)
        self._write.position += len(data)
        self._write.left = max(0, self._write.left - len(data))

    def _flash_end(self, body: bytes) -> bytes:
        stay = int.from_bytes(body[:4], "little")
        self._write = None
        if not stay:
            self.wants = "download"  # a reset by software keeps the straps: the ROM loader comes again
        elif not self.stub:
            self.wants = "run"
        return b""

    def _md5(self, body: bytes) -> bytes:
        offset, length, _, _ = struct.unpack("<IIII", body)
        digest = self._flash.md5(offset, length)
        return digest if self.stub else digest.hex().encode()

    def _read_slow(self, body: bytes) -> bytes:
        offset, length = struct.unpack("<II", body)
        if length > _ROM_READ or not self._attached:
            raise Failure(FAILED)
        return self._flash.read(offset, length).ljust(_ROM_READ, b"\x00")

    def _erase_all(self, body: bytes) -> bytes:
        self._flash.erase(0, self._flash.size)
        return b""

    def _erase_region(self, body: bytes) -> bytes:
        offset, length = struct.unpack("<II", body)
        if offset % SECTOR or length % SECTOR:
            raise Failure(FAILED)
        self._flash.erase(offset, length)
        return b""

    def _read_on(self) -> bytes:
        """As much of the flash as the PC's window allows; at the end the digest of it all."""
        read = self._read
        assert read is not None
        out = b""
        while read.sent < read.length and read.sent - read.acknowledged < read.window * read.block:
            length = min(read.block, read.length - read.sent)
            out += slip.pack(self._flash.read(read.offset + read.sent, length))
            read.sent += length
        if read.acknowledged >= read.length:
            out += slip.pack(self._flash.md5(read.offset, read.length))
            self._read = None
        return out
