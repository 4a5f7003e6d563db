"""The commands of late: the memory that answers a repetition without acting twice.

Rule: pure, bounded; over a reset it goes as bytes, in RTC memory.
"""

import binascii
import struct

RECENT = 16  # ids remembered


class Recent:
    """The last RECENT commands with an id, and how each was answered. Bounded; the oldest is forgotten first.

    kept: what `export` gave before a restart. Of an id and of a command a checksum is remembered, not the text.
    """

    def __init__(self, kept=b""):
        self._known = []
        for at in range(0, min(len(kept), 8 * RECENT) - 7, 8):
            key, crc = struct.unpack_from("<II", kept, at)
            if key or crc:
                self._known.append([key, crc, "done", None])

    def find(self, cmd):
        """None for a new command; else the entry [id's checksum, crc, stage, why] of the one with this id."""
        if cmd.id is not None:
            key = binascii.crc32(cmd.id.encode())
            for entry in self._known:
                if entry[0] == key:
                    return entry
        return None

    def note(self, cmd, stage, why=None):
        """Remember the latest stage of a command that has an id."""
        if cmd.id is None:
            return
        entry = self.find(cmd)
        if entry is None:
            if len(self._known) >= RECENT:
                self._known.pop(0)
            self._known.append([binascii.crc32(cmd.id.encode()), cmd.crc, stage, why])
        elif entry[1] == cmd.crc:
            entry[2] = stage
            entry[3] = why

    def export(self):
        """The commands that were obeyed, as bytes: after a restart they are answered `done`, not done again."""
        return b"".join([struct.pack("<II", e[0], e[1]) for e in self._known if e[2] != "rejected"])
