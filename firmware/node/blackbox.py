"""What the node knows of its last life: RTC memory with a checksum, so that no reset and no crash stays unexplained.

Rule: RTC memory outlives every reset and no power cut; what does not check is as good as none. Only a reset that was
somebody's fault is a crash: a power cut, however often, never is. Writing is a copy within RAM: it may be done often.
"""

import binascii
import struct

from node import forget
from node.lines import push

SIZE = 1536  # bytes, of the 2048 that there are
IDS = 128  # bytes of commands remembered (node/recent.py)
ACTUATORS = 104  # bytes that control may keep: how long what has been on or off, and what was ordered
ERROR = 160  # bytes of the reason of the last end
CRASHES_TO_OTHER = 3  # crashes in a row: the application before this one is tried, where there is one
CRASHES_TO_RESCUE = 6  # crashes in a row: the rescue app
HEALTHY_S = 300  # so long a life ends the row

HEAD = "<IBBBxHHIII"  # checksum, version, crashes, planned, starts, lines' end, s lived, bytes free, largest block
LAYOUT = 2
IDS_AT = 24
ACTUATORS_AT = IDS_AT + IDS
ERROR_AT = ACTUATORS_AT + 1 + ACTUATORS
LINES_AT = ERROR_AT + ERROR


class BlackBox:
    """memory: function () -> bytes, (bytes) -> None. cause: a word of powerup.cause().

    was         why the last life ended: "power", "planned: …", "watchdog: …" or "crash: …"
    before      (seconds lived, bytes of heap free, largest block for TLS) as last noted in it; None after a power cut
    lines       its last log lines, as one text
    crashes     how many in a row
    starts      since power-up, this one included
    actuators   what control kept (bytes)
    ids         commands it had obeyed (bytes)
    """

    def __init__(self, memory, cause):
        from node import lastlife  # needed once

        self._memory = memory
        self._b = bytearray(SIZE)
        self.was = "power"
        self.before = None
        self.lines = ""
        self.crashes = self.starts = 0
        self._planned = False
        self._figures = (0, 0, 0)
        lastlife.recall(self, self._b, memory(), cause)
        forget("node.lastlife")
        self.starts += 1
        self._end = LINES_AT
        self._b[ERROR_AT:] = bytes(SIZE - ERROR_AT)
        self.save()

    def save(self):
        """Write it all."""
        b = self._b
        struct.pack_into(
            HEAD, b, 0, 0, LAYOUT, self.crashes, self._planned, self.starts & 65535, self._end, *self._figures
        )
        struct.pack_into("<I", b, 0, binascii.crc32(memoryview(b)[4:]))
        self._memory(b)

    def line(self, text):
        """Keep a log line; the oldest give way."""
        self._end, _ = push(self._b, LINES_AT, self._end, text.encode()[:200])
        self.save()

    def keep(self, actuators=None, ids=None):
        """Keep what control exported, or the commands obeyed; what is longer than its place is not kept."""
        if actuators is not None and len(actuators) <= ACTUATORS:
            self._b[ACTUATORS_AT] = len(actuators)
            self._b[ACTUATORS_AT + 1 : ACTUATORS_AT + 1 + len(actuators)] = actuators
        if ids is not None:
            self._b[IDS_AT:ACTUATORS_AT] = (ids + bytes(IDS))[:IDS]
        self.save()

    def note(self, lived, free, largest):
        """How it stands: seconds lived, bytes free, largest block for TLS. A long life ends a row of crashes."""
        self._figures = (lived, free, largest)
        if lived >= HEALTHY_S:
            self.crashes = 0
        self.save()

    def ending(self, why, planned=False):
        """The reason of an end that is near; with `planned`, the reset after it is no crash."""
        raw = why.encode()[:ERROR]
        self._b[ERROR_AT:LINES_AT] = raw + bytes(ERROR - len(raw))
        self._planned = planned
        self.save()
