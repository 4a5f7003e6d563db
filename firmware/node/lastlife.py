"""Reading RTC memory after a start: what the last life left, and whether its end was a crash.

Rule: what does not check is as good as none. In memory at the start only (see node.forget).
"""

import binascii
import struct

from node.blackbox import ACTUATORS, ACTUATORS_AT, ERROR_AT, HEAD, IDS_AT, LAYOUT, LINES_AT, SIZE


def recall(box, mine, raw, cause):
    """Fill `box` (node.blackbox.BlackBox) and its memory `mine` from `raw`; cause: a word of powerup.cause()."""
    good = cause != "power" and len(raw) >= SIZE and raw[4] == LAYOUT
    if good and binascii.crc32(raw[4:SIZE]) == struct.unpack_from("<I", raw, 0)[0]:
        mine[:] = raw[:SIZE]
        _, _, box.crashes, planned, box.starts, end, *figures = struct.unpack_from(HEAD, mine, 0)
        box.before = tuple(figures)
        box.lines = _clean(mine[LINES_AT : max(LINES_AT, min(end, SIZE))])
        why = _clean(mine[ERROR_AT:LINES_AT])
        if cause == "sleep" or (planned and cause != "watchdog"):
            box.was = "planned: " + why
        else:
            box.was = "%s: %s" % ("watchdog" if cause == "watchdog" else "crash", why or "no word of it")
            box.crashes = min(255, box.crashes + 1)
    box.ids = bytes(mine[IDS_AT:ACTUATORS_AT])
    size = min(mine[ACTUATORS_AT], ACTUATORS)
    box.actuators = bytes(mine[ACTUATORS_AT + 1 : ACTUATORS_AT + 1 + size])


def _clean(raw):
    return "".join([chr(c) if 32 <= c < 127 or c == 10 else "?" for c in raw if c])
