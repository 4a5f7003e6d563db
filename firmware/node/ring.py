"""Readings kept while the gateway is away: packed records in segment files, the oldest given up first.

Rule: bounded, and no segment is removed before `done` was told of its last record. A record has 16 bytes:

    ts u32    Unix seconds; where the clock is not set, seconds since the start
    boot u8   the start it belongs to
    kind u8   which four sensors (0, 1, …); with UNTIMED, ts is none
    step u8   two bits a value: it counts in 0.01, 0.1, 1 or 10
    crc u8
    v i16 x 4 the values; NONE + n: no value, because of quality n

The name of a segment begins with a checksum of the sensors' names: after a change of sensors the old records cannot be
told apart, and are given up.
"""

import binascii

from node import borrow, ticks

RECORD = 16
PAGE = 16 * RECORD  # bytes in RAM ...
FLUSH_MS = 300000  # ... for so long at the most
SEGMENT = 4096  # bytes
SEGMENTS = 64  # 16,384 records: 11 days at one a minute
UNTIMED = 0x80
NONE = -32768
QUALITIES = ("ok", "stale", "range", "crc", "stuck", "missing")

FORMAT = "<IBBBBhhhh"


class Ring:
    """len() of it is the number of records, about."""

    def __init__(self, names, boot, now, folder="buf"):
        """names: of the sensors; boot: the number of this start; now: ticks."""
        self._names = sorted(names)
        self._boot = boot & 255
        self._head = "%s/%08x-" % (folder, binascii.crc32(",".join(self._names).encode()))
        self._last = self._since = now
        self._up_ms = 0
        self._page = bytearray(PAGE)
        self._used = 0  # bytes of the page
        self._anchor = None  # the Unix second of this start
        self._at = self._next = 0  # where `batch` reads in the oldest segment, and where it will
        self.lost = 0  # records
        self._segments = []
        self._size = 0  # of the youngest
        borrow("node.backlog").find(self, folder)

    def __len__(self):
        return (max(0, len(self._segments) - 1) * SEGMENT + self._size - self._at + self._used) // RECORD

    # -- in ----------------------------------------------------------------------------------------------------------

    def tick(self, now, unix):
        """Once a second or so. unix: seconds, or None while nobody knows; writes a page that is old."""
        self._up_ms += max(0, ticks.diff(now, self._last))
        self._last = now
        if unix is not None:
            self._anchor = unix - self._up_ms // 1000
        if self._used and ticks.diff(now, self._since) >= FLUSH_MS:
            self.flush()

    def add(self, unix, readings):
        """Keep readings {name: (value, quality, …)}."""
        borrow("node.backlog").add(self, unix, readings)

    def flush(self):
        """Write the page. A page that cannot be written is lost, and makes room for the next."""
        borrow("node.backlog").flush(self)

    # -- out ---------------------------------------------------------------------------------------------------------

    def batch(self):
        """The oldest records, at most backlog.BATCH, as the reports write them; None when there are none.

        The same again, until `done`.
        """
        if self._used and len(self._segments) < 2:
            self.flush()
        return borrow("node.backlog").batch(self) if self._segments else None

    def done(self):
        """The gateway has what `batch` gave."""
        self._at = self._next
