"""What is done with the records that node/ring.py keeps: they are found, written, given out, given up.

Rule: as there. In memory only while there is something to do (see node.borrow): at the start, and while the gateway is
away or has just come back.
"""

import binascii
import os
import struct

from node import log, ring
from node.ring import FORMAT, NONE, PAGE, QUALITIES, RECORD, SEGMENT, UNTIMED

BATCH = 5  # records in one message


def find(kept, folder):
    """The segments of before; those of other sensors go."""
    try:
        os.mkdir(folder)
    except OSError:
        pass
    for name in sorted(os.listdir(folder)):
        name = folder + "/" + name
        if name.startswith(kept._head):
            kept._segments.append(int(name[-9:-4]))
        else:
            log.warn("ring", "readings of other sensors are given up: " + name)
            os.remove(name)
    if kept._segments:
        kept._size = os.stat(_path(kept, -1))[6]


def add(kept, unix, readings):
    """Keep readings {name: (value, quality, …)}."""
    for group in range(0, len(kept._names), 4):
        step = 0
        values = [NONE] * 4
        for i, name in enumerate(kept._names[group : group + 4]):
            value, quality = readings[name][:2]
            by = 0
            if quality == "ok":
                value *= 100
                while abs(value) > 32000 and by < 3:
                    value /= 10
                    by += 1
                if abs(value) > 32000:
                    quality = "range"
            step |= by << 2 * i
            values[i] = round(value) if quality == "ok" else NONE + QUALITIES.index(quality)
        at = kept._used
        if not at:
            kept._since = kept._last
        ts, kind = (kept._up_ms // 1000, group >> 2 | UNTIMED) if unix is None else (unix, group >> 2)
        struct.pack_into(FORMAT, kept._page, at, ts, kept._boot, kind, step, 0, *values)
        kept._page[at + 7] = binascii.crc32(kept._page[at : at + RECORD]) & 255
        kept._used = at + RECORD
        if kept._used == PAGE:
            flush(kept)


def flush(kept):
    """Write the page. A page that cannot be written is lost, and makes room for the next."""
    try:
        if not kept._segments or kept._size + kept._used > SEGMENT:
            if len(kept._segments) == ring.SEGMENTS:
                _drop(kept, SEGMENT - kept._at)
            kept._segments.append(kept._segments[-1] + 1 if kept._segments else 0)
            kept._size = 0
        with open(_path(kept, -1), "ab") as f:
            f.write(memoryview(kept._page)[: kept._used])
        kept._size += kept._used
    except OSError:  # the disk is full
        _drop(kept, kept._used)
    kept._used = 0


def _drop(kept, unsent):
    """The oldest segment goes, and so many bytes were not sent."""
    kept.lost += unsent // RECORD
    try:
        os.remove(_path(kept, 0))
    except OSError:
        pass
    kept._segments.pop(0)
    kept._at = kept._next = 0
    if not kept._segments:
        kept._size = 0


def _path(kept, i):
    return "%s%05d.seg" % (kept._head, kept._segments[i])


def batch(kept):
    """What Ring.batch gives of the segments that there are."""
    while kept._segments:
        try:
            with open(_path(kept, 0), "rb") as f:
                f.seek(kept._at)
                data = f.read(BATCH * RECORD)
        except OSError:
            data = None
        if not data:
            _drop(kept, 0)
            if kept._used and len(kept._segments) < 2:
                flush(kept)
            continue
        kept._next = kept._at + len(data)
        out = [_entry(kept, data[at : at + RECORD]) for at in range(0, len(data), RECORD)]
        out = [entry for entry in out if entry]
        if out:
            return out
        kept.done()
    return None


def _entry(kept, record):
    """One record as the reports write it; None for a damaged one."""
    if len(record) < RECORD or binascii.crc32(record[:7] + b"\0" + record[8:]) & 255 != record[7]:
        return None
    fields = struct.unpack(FORMAT, record)
    ts, boot, kind, step = fields[:4]
    readings = {}
    for i, name in enumerate(kept._names[(kind & 7) * 4 :][:4]):
        n = fields[5 + i]
        readings[name] = (n * 10 ** (step >> 2 * i & 3) / 100, "ok") if n >= -32000 else (None, QUALITIES[n - NONE])
    out = {"ts": ts, "tq": "rtc", "readings": readings}
    if kind & UNTIMED:
        if boot == kept._boot and kept._anchor:
            out["ts"] += kept._anchor
        else:
            out.update({"ts": None, "tq": "none", "boot": boot, "up": ts})
    return out
