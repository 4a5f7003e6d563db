"""The parts of the virtual board that know no line and no clock, below what esptool can be made to do."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.virtual_board import image, slip
from tools.virtual_board.chips import CHIPS, ESP32, Chip
from tools.virtual_board.flash import MIB, SECTOR, Flash
from tools.virtual_board.loader import SYNC, Loader
from tools.virtual_board.registers import Registers

MAC = bytes(6)
FLASH_BEGIN, FLASH_DATA, DEFLATED_BEGIN, DEFLATED_DATA = 0x02, 0x03, 0x10, 0x11
ATTACH, READ_REG, SYNC_OP = 0x0D, 0x0A, 0x08


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Flash]:
    """Erased."""
    flash = Flash(tmp_path / "flash.bin", 2 * MIB)
    yield flash
    flash.close()


@pytest.fixture
def loader(flash: Flash) -> Loader:
    """The loader in the ROM of an ESP32, attached to its flash."""
    loader = Loader(ESP32, flash, Registers(ESP32, MAC, flash))
    assert ask(loader, ATTACH, bytes(8)) == (0, b"\x00\x00\x00\x00")
    return loader


def ask(loader: Loader, op: int, body: bytes, check: int | None = None) -> tuple[int, bytes]:
    """One request: value and body of its answer."""
    total = image.checksum(body[16:]) if check is None else check
    answers = list(slip.Unpacker().feed(loader.feed(slip.pack(struct.pack("<BBHI", 0, op, len(body), total) + body))))
    direction, answered, length, value = struct.unpack_from("<BBHI", answers[0])
    assert (direction, answered, length) == (1, op, len(answers[0]) - 8)
    return value, answers[0][8:]


def block(data: bytes, number: int = 0) -> bytes:
    """The body of a block of data."""
    return struct.pack("<IIII", len(data), number, 0, 0) + data


def test_programming_clears_bits_and_erasing_sets_them(flash: Flash, tmp_path: Path) -> None:
    """What is written twice without an erase is the AND of both; the end of the chip is followed by its beginning."""
    flash.program(100, b"\xf0\xff")
    flash.program(100, b"\x3c\x0f")
    assert flash.read(99, 4) == b"\xff\x30\x0f\xff"
    flash.program(2 * MIB - 1, b"\x01\x02")
    assert flash.read(2 * MIB - 1, 2) == b"\x01\x02"
    flash.erase(50, 100)
    assert flash.read(0, SECTOR) == b"\xff" * SECTOR
    assert stat.S_IMODE((tmp_path / "flash.bin").stat().st_mode) == 0o600


def test_the_rom_writes_over_what_is_not_erased(loader: Loader, flash: Flash) -> None:
    """A download that erases nothing leaves the AND in the flash, which its MD5 shows."""
    flash.program(0, b"\x0f" * 4)
    ask(loader, FLASH_BEGIN, struct.pack("<IIII", 0, 1, 0x400, 0))
    ask(loader, FLASH_DATA, block(b"\x55\xaa\xff\x00"))
    assert flash.read(0, 4) == b"\x05\x0a\x0f\x00"


@pytest.mark.parametrize(
    ("op", "body", "check", "reason"),
    [
        (0x55, b"", None, 0x05),  # no such request
        (0x14, b"", None, 0x05),  # no security info on the first chip
        (FLASH_DATA, block(b"1234"), None, 0x06),  # none begun
        (FLASH_DATA, block(b"1234"), 0, 0x07),  # wrong checksum
        (FLASH_DATA, struct.pack("<IIII", 9, 0, 0, 0) + b"1234", None, 0x05),  # says another length than it has
        (DEFLATED_BEGIN, struct.pack("<IIII", 4096, 1, 0x400, 2 * MIB), None, 0x06),  # beyond the end
        (FLASH_BEGIN, b"short", None, 0x05),
    ],
)
def test_failures_are_answered_with_their_reason(
    loader: Loader, flash: Flash, op: int, body: bytes, check: int | None, reason: int
) -> None:
    """Status 1 and a reason, and nothing happens to the flash."""
    assert ask(loader, op, body, check)[1][:2] == bytes((1, reason))
    assert set(flash.read(0, flash.size)) == {0xFF}


def test_a_damaged_stream_is_noticed(loader: Loader, flash: Flash) -> None:
    """Compressed data that does not unpack, and more of it than was announced."""
    ask(loader, DEFLATED_BEGIN, struct.pack("<IIII", 4096, 1, 0x400, 0))
    assert ask(loader, DEFLATED_DATA, block(b"not compressed"))[1][:2] == b"\x01\x0b"
    ask(loader, DEFLATED_BEGIN, struct.pack("<IIII", 4096, 1, 0x400, 0))
    assert ask(loader, DEFLATED_DATA, block(zlib.compress(bytes(8192))))[1][:2] == b"\x01\x06"


def test_sync_is_answered_eight_times_and_garbage_never(loader: Loader) -> None:
    """What is no request at all gets no answer."""
    answers = loader.feed(b"noise" + slip.pack(struct.pack("<BBHI", 0, SYNC_OP, len(SYNC), 0) + SYNC))
    assert len(list(slip.Unpacker().feed(answers))) == 8
    assert loader.feed(b"\xc0\xc0garbage\xc0" + b"x" * 100_000 + b"\xc0") == b""
    assert ask(loader, READ_REG, (0x40001000).to_bytes(4, "little"))[0] == ESP32.magic


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 7))
def test_packets_survive_any_chunking(packets: list[bytes], size: int) -> None:
    """What is packed comes out again, however it is cut."""
    wire = b"".join(map(slip.pack, packets))
    unpacker = slip.Unpacker()
    assert [p for at in range(0, len(wire), size) for p in unpacker.feed(wire[at : at + size])] == packets


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
@pytest.mark.parametrize(
    ("at", "said"),
    [
        (0x0, "invalid header"),
        (0xC, "mismatch chip ID"),
        (0x20, "Checksum failed"),
        (0x1, "invalid segment"),
        (0x2, "hash failed"),
        (0x7010, "MD5 mismatch"),
        (0xF000, "invalid header"),
        (0xF100, "Checksum failed"),
    ],
)
def test_each_kind_of_damage_keeps_it_from_booting(chip: Chip, at: int, said: str) -> None:
    """One bit, wherever it is, and the boot log says why."""
    whole = bytearray(b"\xff" * chip.bootloader + image.make_image(chip))
    assert image.boot(bytes(whole), chip) == image.App("micropython", "v1.28.0", 0x200000)
    # Offsets count from an ESP32's loader; those behind it lie where they lie on every chip.
    where = chip.bootloader + at if at < 0x1000 else at + 0x1000
    whole[where] ^= 0x80
    with pytest.raises(image.BadImage, match=said):
        image.boot(bytes(whole), chip)
