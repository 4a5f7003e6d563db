"""Images as the ROM and the second-stage loader read them: what boots, and a small one that does.

Rule: an image boots here if it would pass the checks of the chip: magic, chip id, checksum, SHA-256, partition table.
The image that `make_image` builds passes them and holds no machine code: MicroPython's unix port runs in its place.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from .chips import CHIPS, Chip

MAGIC = 0xE9
TABLE = 0x8000  # of the partitions
TABLE_SIZE = 0xC00
NVS = (0x9000, 0x6000)
APP = 0x10000
APP_SIZE = 0x1F0000
DESCRIPTION = 0xABCD5432  # esp_app_desc_t.magic_word
MAX_SEGMENTS = 16
MAX_SEGMENT = 16 * 1024 * 1024
_LOAD = {"esp32": 0x3F400020, "esp32s3": 0x3C000020, "esp32c3": 0x3C000020}  # where constants are mapped
_CODE = {"esp32": 0x40080000, "esp32s3": 0x403CC700, "esp32c3": 0x403CC710}


class BadImage(Exception):
    """It does not boot; the text is what the boot log says."""


@dataclass(frozen=True)
class App:
    """What boots: the name and version that the program gives itself, and where its file system begins."""

    project: str
    version: str
    fs: int


def checksum(data: bytes, state: int = 0xEF) -> int:
    """The chips' checksum: XOR of all bytes and 0xEF."""
    whole = len(data) // 8 * 8
    folded = 0
    for (word,) in struct.iter_unpack("<Q", data[:whole]):  # XOR does not mind being done eight bytes at a time
        folded ^= word
    for byte in folded.to_bytes(8) + data[whole:]:
        state ^= byte
    return state


def check(image: bytes, chip: Chip) -> bytes:
    """The data of the first segment of the image that `image` begins with. BadImage if the chip would not start it."""
    if len(image) < 24 or image[0] != MAGIC:
        raise BadImage(f"invalid header: 0x{int.from_bytes(image[:4], 'little'):08x}")
    segments, chip_id, hashed = image[1], int.from_bytes(image[12:14], "little"), image[23]
    if segments == 0 or segments > MAX_SEGMENTS:
        raise BadImage(f"E (31) esp_image: image has invalid segment count {segments}")
    if chip_id != chip.image_id:
        raise BadImage(f"E (31) boot_comm: mismatch chip ID, expected {chip.image_id}, found {chip_id}")
    position, total, first = 24, 0xEF, b""
    for index in range(segments):
        length = int.from_bytes(image[position + 4 : position + 8], "little")
        data = image[position + 8 : position + 8 + length]
        if length > MAX_SEGMENT or len(data) != length:
            raise BadImage(f"E (31) esp_image: invalid segment length 0x{length:x}")
        total = checksum(data, total)
        first = data if index == 0 else first
        position += 8 + length
    end = position // 16 * 16 + 16
    if image[end - 1 : end] != bytes((total,)):
        raise BadImage(f"E (31) esp_image: Checksum failed. Calculated 0x{total:x} read 0x{image[end - 1 : end].hex()}")
    if hashed and image[end : end + 32] != hashlib.sha256(image[:end]).digest():
        raise BadImage("E (31) esp_image: Image hash failed - image is corrupt")
    return first


def partitions(table: bytes) -> list[tuple[int, int, int, int, str]]:
    """Entries (type, subtype, offset, size, label) of a partition table. BadImage if there is none or it is damaged."""
    found = []
    for position in range(0, TABLE_SIZE, 32):
        entry = table[position : position + 32]
        if entry[:2] == b"\xeb\xeb":
            if hashlib.md5(table[:position], usedforsecurity=False).digest() != entry[16:32]:
                raise BadImage("E (45) flash_parts: partition table MD5 mismatch")
            break
        if entry[:2] != b"\xaa\x50":
            break
        kind, subtype, offset, size = struct.unpack_from("<BBII", entry, 2)
        found.append((kind, subtype, offset, size, entry[12:28].rstrip(b"\x00").decode("ascii", "replace")))
    if not found:
        raise BadImage("E (45) flash_parts: partition 0 invalid magic number 0xffff")
    return found


def boot(flash: bytes, chip: Chip) -> App:
    """What the flash boots. BadImage if nothing."""
    check(flash[chip.bootloader : TABLE], chip)
    table = partitions(flash[TABLE : TABLE + TABLE_SIZE])
    apps = [offset for kind, _, offset, _, _ in table if kind == 0]
    if not apps:
        raise BadImage("E (57) boot: No bootable app partitions in the partition table")
    description = check(flash[apps[0] : apps[0] + APP_SIZE], chip)[:256]
    if int.from_bytes(description[:4], "little") != DESCRIPTION:
        raise BadImage("E (60) boot: image has no application description")
    version, project = (description[at : at + 32].split(b"\x00")[0].decode("ascii", "replace") for at in (16, 48))
    # MicroPython makes the "vfs" partition when it starts, from the end of the last one to the end of the flash.
    fs = next((o for _, _, o, _, label in table if label == "vfs"), max(o + s for _, _, o, s, _ in table))
    return App(project, version, fs)


def make(chip: Chip, segments: list[tuple[int, bytes]]) -> bytes:
    """An image of these segments (address, data) with checksum and SHA-256."""
    image = struct.pack("<BBBBI", MAGIC, len(segments), 2, 0x20, _CODE[chip.name])  # DIO, 4 MB at 40 MHz
    image += struct.pack("<B3xHB", 0xEE, chip.image_id, 0) + struct.pack("<HH4xB", 0, 0xFFFF, 1)
    total = 0xEF
    for address, data in segments:
        data = data.ljust(-(-len(data) // 4) * 4, b"\x00")
        total = checksum(data, total)
        image += struct.pack("<II", address, len(data)) + data
    image = image.ljust(len(image) // 16 * 16 + 15, b"\x00") + bytes((total,))
    return image + hashlib.sha256(image).digest()


def make_image(chip: Chip, project: str = "micropython", version: str = "v1.28.0") -> bytes:
    """What stands in for MicroPython's download: loader, partition table and app, one file for `chip.bootloader`."""
    loader = make(chip, [(_CODE[chip.name], b"the second-stage loader of a virtual board  ")])
    description = struct.pack("<II8x32s32s", DESCRIPTION, 0, version.encode(), project.encode()).ljust(256, b"\x00")
    # Filled up to a size that has a middle: somebody may pull the plug there. Hashes do not compress.
    filler = b"".join(hashlib.sha256(index.to_bytes(4)).digest() for index in range(2048))
    app = make(chip, [(_LOAD[chip.name], description), (_CODE[chip.name], filler)])
    table = b"".join(
        struct.pack("<2sBBII16sI", b"\xaa\x50", kind, subtype, offset, size, label, 0)
        for kind, subtype, offset, size, label in (
            (1, 2, *NVS, b"nvs"),
            (1, 1, 0xF000, 0x1000, b"phy_init"),
            (0, 0, APP, APP_SIZE, b"factory"),
        )
    )
    table += b"\xeb\xeb".ljust(16, b"\xff") + hashlib.md5(table, usedforsecurity=False).digest()
    image = bytearray(b"\xff" * (APP - chip.bootloader)) + app
    image[: len(loader)] = loader
    image[TABLE - chip.bootloader : TABLE - chip.bootloader + len(table)] = table
    return bytes(image)


def main() -> int:
    """python -m tools.virtual_board.image CHIP FILE: writes that image."""
    if len(sys.argv) != 3 or sys.argv[1] not in CHIPS:
        print(f"usage: python -m tools.virtual_board.image {'|'.join(CHIPS)} FILE", file=sys.stderr)
        return 2
    Path(sys.argv[2]).write_bytes(make_image(CHIPS[sys.argv[1]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
