"""SLIP, the framing between esptool and a chip (RFC 1055).

Rule: bytes in, packets out; what comes between two packets is noise and dropped; a packet has a bound.
"""

from __future__ import annotations

from collections.abc import Iterator

END, ESC, ESC_END, ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD
MAX_PACKET = 0x8000 + 64  # the largest block that esptool sends is 0x4000


def pack(packet: bytes) -> bytes:
    """A packet as it goes over the wire."""
    body = packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return b"\xc0" + body + b"\xc0"


class Unpacker:
    """Takes bytes as they come and gives whole packets."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._inside = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The packets that `data` completes."""
        position = 0
        while position < len(data):
            end = data.find(END, position)
            if self._inside:
                self._pending += data[position : end if end >= 0 else len(data)]
                if len(self._pending) > MAX_PACKET:
                    self._pending.clear()
                    self._inside = False
            if end < 0:
                return
            position = end + 1
            if self._inside and self._pending:
                packet = bytes(self._pending)
                self._pending.clear()
                self._inside = False
                yield packet.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
            else:
                self._inside = True
