"""Checks of the ring of readings, in the current directory: the same file on CPython and on MicroPython.

Rule: as in pure_checks.py; each check makes a folder of its own, which is removed behind it.
"""

import os

from node import backlog, ring, ticks
from node.ring import Ring

OK = "ok"
NAMES = ("temperature", "outside")
BEGIN = 1795000000


def reading(i, names=NAMES):
    return {name: [round(i / 10 + k, 1), OK, 0] for k, name in enumerate(sorted(names))}


def filled(count, names=NAMES, folder="buf", boot=1, begin=BEGIN):
    r = Ring(names, boot, 0, folder)
    for i in range(count):
        r.add(begin + i, reading(i, names))
    return r


def drained(r, limit=20000):
    """Everything that comes out, each batch acknowledged."""
    out = []
    while limit:
        batch = r.batch()
        if batch is None:
            return out
        assert 0 < len(batch) <= backlog.BATCH
        out += batch
        r.done()
        limit -= 1
    raise AssertionError("no end")


def files(folder="buf"):
    return sorted(os.listdir(folder))


def remove(folder="buf"):
    for name in os.listdir(folder):
        os.remove(folder + "/" + name)
    os.rmdir(folder)


def check_what_goes_in_comes_out():
    """Any number of sensors, oldest first, five at a time, with the values to what i16 can hold."""
    for names in (("t",), NAMES, ("a", "b", "c", "d", "e", "f", "g", "h", "i")):
        r = filled(40, names)
        out = drained(r)
        groups = (len(names) + 3) // 4
        assert len(out) == 40 * groups
        for i in range(40):
            merged = {}
            for entry in out[i * groups : (i + 1) * groups]:
                assert (entry["ts"], entry["tq"]) == (BEGIN + i, "rtc")
                merged.update(entry["readings"])
            want = reading(i, names)
            assert sorted(merged) == sorted(want)
            for name in want:
                assert merged[name][1] == OK
                assert abs(merged[name][0] - want[name][0]) < 0.006
        assert files() == []
        assert len(r) == 0
        remove()


def check_values_of_every_size():
    """From 0.01 deg C to 100,000 lx; what is none keeps its quality."""
    r = Ring(("v",), 1, 0)
    for value, off in ((-40.01, 0.001), (319.99, 0.001), (1013.2, 0.051), (28067, 0.51), (100000, 5), (-5.5, 0.001)):
        r.add(BEGIN, {"v": (value, OK)})
        entry = r.batch()[0]
        assert abs(entry["readings"]["v"][0] - value) <= off, (value, entry)
        r.done()
    for quality in ring.QUALITIES[1:]:
        r.add(BEGIN, {"v": (None if quality != "stale" else 20.0, quality)})
        assert r.batch()[0]["readings"]["v"] == (None, quality)
        r.done()
    r.add(BEGIN, {"v": (1e8, OK)})
    assert r.batch()[0]["readings"]["v"] == (None, "range")
    r.done()
    assert r.batch() is None
    remove()


def check_nothing_is_gone_before_its_acknowledgement():
    """The same batch until `done`; a restart begins the segment again; the file goes after its last record only."""
    r = filled(16)
    assert len(files()) == 1
    first = r.batch()
    assert r.batch() == first
    assert Ring(NAMES, 2, 0).batch() == first
    for _ in range(3):
        r.batch()
        r.done()
    last = r.batch()
    assert [entry["ts"] for entry in last] == [BEGIN + 15]
    assert len(files()) == 1
    assert len(drained(Ring(NAMES, 2, 0))) == 16  # a power cut before the last PUBACK: all again, none lost
    r = filled(16)
    assert len(drained(r)) == 16
    assert files() == []
    remove()


def check_a_page_is_written_after_five_minutes():
    """Before, at most sixteen records and five minutes are in RAM; over the wrap of the ticks too."""
    for begin in (0, ticks.PERIOD - 100000):
        r = Ring(NAMES, 1, begin)
        r.tick(ticks.add(begin, 60000), BEGIN)
        r.add(BEGIN, reading(1))
        r.tick(ticks.add(begin, 60000 + ring.FLUSH_MS - 1), BEGIN)
        assert files() == []
        r.tick(ticks.add(begin, 60000 + ring.FLUSH_MS), BEGIN)
        assert len(files()) == 1
        assert len(drained(Ring(NAMES, 2, 0))) == 1
        assert len(r) == 1
    remove()
    r = filled(15)
    assert files() == []
    r.add(BEGIN, reading(1))
    assert len(files()) == 1
    remove()


def check_bounded_and_the_oldest_goes():
    """64 segments of 4 KiB; what is given up is counted; the rest is in order and has no gap."""
    full = ring.SEGMENTS * 256
    r = filled(full + 3 * 256 + 16)
    assert len(files()) == ring.SEGMENTS
    for name in files():
        assert os.stat("buf/" + name)[6] <= ring.SEGMENT
    assert r.lost == 4 * 256
    assert len(r) == full - 256 + 16
    want = BEGIN + 4 * 256
    while True:
        batch = r.batch()
        if batch is None:
            break
        for entry in batch:
            assert entry["ts"] == want
            want += 1
        r.done()
    assert want == BEGIN + full + 3 * 256 + 16
    remove()


def check_a_segment_given_up_while_it_is_sent():
    """The gateway acknowledges the records of a segment that is no more: the next one is begun from its beginning."""
    old = ring.SEGMENTS
    ring.SEGMENTS = 2
    r = filled(512)
    assert r.batch()[0]["ts"] == BEGIN
    for i in range(512, 528):
        r.add(BEGIN + i, reading(i))
    r.done()
    assert r.batch()[0]["ts"] == BEGIN + 256
    ring.SEGMENTS = old
    remove()


def check_other_sensors():
    """After a change of sensors, the values could not be told apart: given up, the files removed."""
    filled(20).flush()
    r = Ring(("temperature", "soil"), 2, 0)
    assert r.batch() is None
    assert files() == []
    remove()


def check_damaged_records_are_left_out():
    """A flipped bit costs one record, a torn end another."""
    filled(16).flush()
    path = "buf/" + files()[0]
    with open(path, "rb") as f:
        data = bytearray(f.read())
    data[16 * 3 + 9] ^= 4
    with open(path, "wb") as f:
        f.write(data[:-5])
    out = drained(Ring(NAMES, 2, 0))
    assert [entry["ts"] - BEGIN for entry in out] == [i for i in range(15) if i != 3]
    with open("buf/" + "x", "wb") as f:
        f.write(b"")
    remove()


def check_a_full_disk():
    """A page that cannot be written is lost and counted, the oldest segment makes room, and nothing is raised."""
    r = filled(256 + 16)
    assert len(files()) == 2

    def full(path, mode):
        raise OSError(28)

    backlog.open = full
    for i in range(16):
        r.add(BEGIN + i, reading(i))
    del backlog.open
    assert (len(files()), r.lost) == (1, 16)
    for i in range(16):
        r.add(BEGIN + 300 + i, reading(i))
    assert [entry["ts"] - BEGIN for entry in drained(r)] == list(range(256, 272)) + list(range(300, 316))
    remove()


def check_without_a_clock():
    """Uptime until the clock is set, then the right time for what was kept before; another start's has none."""
    r = Ring(NAMES, 7, 1000)
    for i in range(20):
        r.tick(1000 + i * 60000, None)
        r.add(None, reading(i))
    early = r.batch()[0]
    assert (early["ts"], early["tq"], early["boot"], early["up"]) == (None, "none", 7, 0)
    r.tick(1000 + 20 * 60000, BEGIN)
    out = drained(r)
    assert [entry["ts"] for entry in out] == [BEGIN - (20 - i) * 60 for i in range(20)]
    assert "up" not in out[0]
    r.add(None, reading(1))
    r.flush()
    other = Ring(NAMES, 8, 0)
    other.tick(1000, BEGIN)
    entry = other.batch()[0]
    assert (entry["ts"], entry["boot"], entry["up"]) == (None, 7, 1200)
    remove()


def checks():
    """(name, function) of every check in this file."""
    everything = globals()
    return [(name, everything[name]) for name in sorted(everything) if name.startswith("check_")]


if __name__ == "__main__":
    for _name, _check in checks():
        _check()
        print("ok", _name)
