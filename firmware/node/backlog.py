"""The records that node/ring.py keeps, on their way out.

Rule: as there. In memory only while there are some to send (see node.borrow).
"""

import binascii
import struct

from node.ring import FORMAT, NONE, QUALITIES, RECORD, UNTIMED

BATCH = 5  # records in one message


def batch(ring):
    """What Ring.batch gives of the segments that there are."""
    while ring._segments:
        try:
            with open(ring._path(0), "rb") as f:
                f.seek(ring._at)
                data = f.read(BATCH * RECORD)
        except OSError:
            data = None
        if not data:
            ring._drop(0)
            if ring._used and len(ring._segments) < 2:
                ring.flush()
            continue
        ring._next = ring._at + len(data)
        out = [_entry(ring, data[at : at + RECORD]) for at in range(0, len(data), RECORD)]
        out = [entry for entry in out if entry]
        if out:
            return out
        ring.done()
    return None


def _entry(ring, record):
    """One record as the reports write it; None for a damaged one."""
    if len(record) < RECORD or binascii.crc32(record[:7] + b"\0" + record[8:]) & 255 != record[7]:
        return None
    fields = struct.unpack(FORMAT, record)
    ts, boot, kind, step = fields[:4]
    readings = {}
    for i, name in enumerate(ring._names[(kind & 7) * 4 :][:4]):
        n = fields[5 + i]
        readings[name] = (n * 10 ** (step >> 2 * i & 3) / 100, "ok") if n >= -32000 else (None, QUALITIES[n - NONE])
    out = {"ts": ts, "tq": "rtc", "readings": readings}
    if kind & UNTIMED:
        if boot == ring._boot and ring._anchor:
            out["ts"] += ring._anchor
        else:
            out.update({"ts": None, "tq": "none", "boot": boot, "up": ts})
    return out
