"""Runs on the unix port: power cuts at every write of the flash, on littlefs on a block device that dies.

For each thing that the node writes, the device is cut at the first program or erase, then at the second, and so on to
the end; the last one is half done, and everything after it fails. Each time the file system is mounted anew and read as
at a start: what is found must be what was before, or what was to be, whole. Prints one line of JSON for each.
"""

import binascii
import gc
import hashlib
import json
import os

import choice
import keys_checks
import vfs
from desired_checks import BODY, doc
from node import keys, log, ring
from node.desired import Desired
from node.receive import Files, Receiver
from node.ring import Ring
from node.store import Store

BLOCK, BLOCKS = 4096, 40
ERASED = b"\xff" * BLOCK
EIO = 5
BEGIN = 1795000000
log.print = lambda line: None


class Flash:
    """A block device as VfsLfs2 wants it. `left`: programs and erases until the cut, None for never.

    A new one for each start: files of the time before the cut, which the collector closes later, reach it no more.
    Errors are returned, not raised, because it may be the collector who asks.
    """

    def __init__(self, data, left=None):
        self.data = bytearray(data)
        self.left = left
        self.dead = False

    def _part(self, n):
        """How many of n bytes are still done."""
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                self.dead = True
                return n // 2 if self.left == 0 else 0
        return n

    def readblocks(self, block, buf, off=0):
        if self.dead:
            return -EIO
        at = block * BLOCK + off
        buf[:] = memoryview(self.data)[at : at + len(buf)]
        return 0

    def writeblocks(self, block, buf, off=0):
        n = self._part(len(buf))
        at = block * BLOCK + off
        memoryview(self.data)[at : at + n] = memoryview(buf)[:n]
        return -EIO if self.dead else 0

    def ioctl(self, op, arg):
        if op == 4:
            return BLOCKS
        if op == 5:
            return BLOCK
        if op == 6:
            n = self._part(BLOCK)
            at = arg * BLOCK
            memoryview(self.data)[at : at + n] = memoryview(ERASED)[:n]
            return -EIO if self.dead else 0
        return 0


def mount(flash):
    vfs.mount(vfs.VfsLfs2(flash, readsize=32, progsize=32, lookahead=32), "/flash")
    os.chdir("/flash")
    return flash


def umount():
    os.chdir("/")
    vfs.umount("/flash")


def readings(first, count):
    for i in range(first, first + count):
        yield BEGIN + i, {"t": (i % 100, "ok")}


def kept():
    """The times of all records, through a fresh Ring."""
    r = Ring(("t",), 9, 0)
    out = []
    while True:
        batch = r.batch()
        if batch is None:
            return out
        out += [entry["ts"] - BEGIN for entry in batch]
        r.done()


# -- what is written: prepare(), act(), and look(), whose answers are compared -----------------------------------------


def set_point_before():
    Store().put("setpoint", 18.5)


def set_point():
    Store().put("setpoint", 21.0)


def set_point_found():
    return Store().number("setpoint", 2, 40, None)


def config_before():
    with open("node.json", "w") as f:
        f.write(json.dumps(BODY))
    d = Desired()
    d.load()
    d.take(doc(1, control={"setpoint": 20, "max": 30}))
    d.take(doc(2, control={"setpoint": 21, "max": 31}))


def config_change():
    d = Desired()
    d.load()
    d.take(doc(3, control={"setpoint": 22, "max": 32}, gateway={"host": "new.local"}))


def config_found():
    d = Desired()
    cfg = d.load()
    return [d.told()["gen"], cfg["control"]["setpoint"], cfg["control"]["max"], cfg["gateway"]["host"]]


def trial_before():
    config_before()
    config_change()


def trial_lost():
    d = Desired()
    d.load()
    d.mark("no session in 600 s")


def trial_won():
    d = Desired()
    d.load()
    d.mark(0)


def trial_found():
    d = Desired()
    cfg = d.load()
    return [d.told()["gen"], d.trial, cfg["gateway"]["host"]]


def ring_before():
    r = Ring(("t",), 1, 0)
    for unix, reading in readings(0, 48):
        r.add(unix, reading)


def ring_append():
    r = Ring(("t",), 2, 0)
    for unix, reading in readings(48, 16):
        r.add(unix, reading)


def ring_full_before():
    ring.SEGMENTS = 3
    r = Ring(("t",), 1, 0)
    for unix, reading in readings(0, 3 * 256):
        r.add(unix, reading)


def ring_turn():
    r = Ring(("t",), 2, 0)
    for unix, reading in readings(3 * 256, 16):
        r.add(unix, reading)


def ring_sent():
    r = Ring(("t",), 2, 0)
    for _ in range(10):
        r.batch()
        r.done()
    assert r.batch() is None


def keys_before():
    keys_checks.fresh()
    keys.judge(keys_checks.bundle(), keys_checks.sent("cd02"), keys_checks.URI)
    keys.settle(keys_checks.bundle(), 0)


def keys_renewed():
    if not keys.judge(keys_checks.bundle(), keys_checks.sent("ef03", 3), keys_checks.URI)[1]:
        raise OSError(EIO)  # it was told, and nothing has changed


def keys_on_trial():
    keys_before()
    keys_renewed()


def keys_lost():
    keys.settle(keys_checks.bundle(), "no session in 600 s")


def keys_won():
    keys.settle(keys_checks.bundle(), 0)


def keys_found():
    told = keys.Keys(keys_checks.bundle()).told()
    return [told["serial"], told["trial"], keys_checks.in_force(keys_checks.bundle())]


# Two applications of three files each, and what runs after a cut: the whole of one of them, or nothing is right.
PARTS = ("choice.mpy", "node/start.mpy", "node/app.mpy")
SIZES = (700, 300, 2100)


def application(letter):
    """(offer, manifest, stream)."""
    files = [letter * size for size in SIZES]
    index = ""
    for i in range(len(PARTS)):
        sha = binascii.hexlify(hashlib.sha256(files[i]).digest()).decode()
        index += sha + " " + str(len(files[i])) + " " + PARTS[i] + "\n"
    index = index.encode()
    stream = index + b"".join(files)
    sha = binascii.hexlify(hashlib.sha256(index).digest()).decode()
    offer = b"offer of " + letter
    return offer, {"seq": letter[0], "version": "v", "size": len(stream), "index": len(index), "sha256": sha}, stream


def update(slot, letter):
    """What the node does with an update that comes: received, whole, and to be tried."""
    offer, manifest, stream = application(letter)
    r = Receiver(offer, manifest, Files(slot), 0)
    now = 0
    while r.stage == "receiving":
        now += 20
        r.step(now)
        if r.news and r.stage == "receiving":
            r.news = False
            at = r.told()["at"]
            for place in range(at, min(at + 4096, len(stream)), 1024):
                r.chunk(r.id + place.to_bytes(4, "big") + stream[place : place + 1024], now)
    if r.stage == "ready":
        choice.begin(slot, manifest["seq"], "v", [])


def runs():
    """What this start runs, and that it is whole; and that what is on flash takes the update again."""
    where = choice.pick()
    if where:
        for i in range(len(PARTS)):
            with open(where[1:] + "/" + PARTS[i], "rb") as f:
                assert f.read() == {"/a": b"A", "/b": b"B"}[where] * SIZES[i], (where, PARTS[i])
    return where


def update_first():
    update("a", b"A")


def update_first_found():
    found = runs()
    if not found:  # offered again it comes whole, whatever the cut has left of it
        update("a", b"A")
        assert runs() == "/a"
    return found


def update_second_before():
    update("a", b"A")
    choice.commit()


def update_second():
    update(choice.spare(), b"B")


def trial_before_update():
    update_second_before()
    update("b", b"B")


def starts_without_proof():
    for _ in range(4):
        choice.pick()


def proof():
    choice.pick()
    choice.commit()


def proof_found():
    return [runs(), "trial" in choice.read()]


def disproof():
    choice.pick()
    choice.back("control: sensor", True)


CASES = (
    ("update", lambda: None, update_first, update_first_found, ("", "/a")),
    ("update over another", update_second_before, update_second, runs, ("/a", "/b")),
    ("starts on trial", trial_before_update, starts_without_proof, runs, ("/b", "/a")),
    ("update kept", trial_before_update, proof, proof_found, (["/b", True], ["/b", False])),
    ("update returned", trial_before_update, disproof, runs, ("/b", "/a")),
    ("certificate", keys_before, keys_renewed, keys_found, (["cd02", False, "cd02"], ["ef03", True, "ef03"])),
    ("certificate lost", keys_on_trial, keys_lost, keys_found, (["ef03", True, "ef03"], ["cd02", False, "cd02"])),
    ("certificate won", keys_on_trial, keys_won, keys_found, (["ef03", True, "ef03"], ["ef03", False, "ef03"])),
    ("set point", set_point_before, set_point, set_point_found, (18.5, 21.0)),
    (
        "configuration",
        config_before,
        config_change,
        config_found,
        ([2, 21, 31, "old.local"], [3, 22, 32, "new.local"]),
    ),
    ("trial lost", trial_before, trial_lost, trial_found, ([3, True, "new.local"], [2, False, "old.local"])),
    ("trial won", trial_before, trial_won, trial_found, ([3, True, "new.local"], [3, False, "new.local"])),
    ("buffer append", ring_before, ring_append, kept, (list(range(48)), list(range(64)))),
    (
        "buffer turn",  # the oldest segment goes, a new one comes: between the two writes neither is there
        ring_full_before,
        ring_turn,
        kept,
        (list(range(768)), list(range(256, 768)), list(range(256, 784))),
    ),
    ("buffer sent", ring_before, ring_sent, kept, (list(range(48)), [])),
)


def image(prepare):
    flash = Flash(ERASED * BLOCKS)
    vfs.VfsLfs2.mkfs(flash, readsize=32, progsize=32, lookahead=32)
    mount(flash)
    prepare()
    umount()
    return bytes(flash.data)


for name, prepare, act, look, allowed in CASES:
    before = image(prepare)
    counts = [0] * len(allowed)
    cut = 0
    done = False
    while not done:
        cut += 1
        flash = mount(Flash(before, cut))
        try:
            act()
        except OSError:
            gc.collect()
        umount()
        done = not flash.dead
        mount(Flash(flash.data))
        found = look()
        umount()
        assert found in allowed, (name, cut, found)
        counts[allowed.index(found)] += 1
        gc.collect()
    assert found == allowed[-1], (name, found)
    print(json.dumps({"what": name, "cuts": cut - 1, "found": counts}))
