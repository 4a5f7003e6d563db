"""The chip before boot.py: the wire to the board, the file system in the flash, the modules of the ESP32 port.

Rule: only what an ESP32 has. It runs in the unix port's interpreter, in the process that is the chip.
"""

import json
import os
import sys

import vfs

_wire = None
_asked = 0
state = {}


def tell(*words):
    """A line to the board, without an answer."""
    _wire.write(" ".join(map(str, words)) + "\n")


def ask(*words):
    """A line to the board; its answer. Ctrl-C may strike in between, so answers have numbers."""
    global _asked
    _asked += 1
    tell("?", _asked, *words)
    while True:
        line = _wire.readline()
        if not line:
            raise OSError(5)
        try:
            number, answer = json.loads(line)
        except ValueError:
            continue
        if number == _asked:
            return answer


class _Sys:
    """`sys`, but for the name of the port."""

    platform = "esp32"

    def __getattr__(self, name):
        return getattr(sys, name)


class _Partition:
    """The part of the flash that holds the file system, as a block device: NOR, 4096 bytes a block."""

    def __init__(self, path, offset, size):
        self._file = open(path, "r+b")
        self._offset = offset
        self._blocks = size // 4096

    def readblocks(self, block, buf, offset=0):
        self._file.seek(self._offset + block * 4096 + offset)
        self._file.readinto(buf)

    def writeblocks(self, block, buf, offset=None):
        if offset is None:
            self.ioctl(6, block)
            offset = 0
        at = self._offset + block * 4096 + offset
        self._file.seek(at)
        old = self._file.read(len(buf))
        new = int.from_bytes(old, "little") & int.from_bytes(buf, "little")
        self._file.seek(at)
        self._file.write(new.to_bytes(len(buf), "little"))

    def ioctl(self, op, arg):
        if op == 4:
            return self._blocks
        if op == 5:
            return 4096
        if op == 6:
            self._file.seek(self._offset + arg * 4096)
            self._file.write(b"\xff" * 4096)
        return 0


def _mount(flash):
    """Mounts the file system, and makes one where the flash is erased, as the port's own start does."""
    try:
        vfs.mount(flash, "/")
        return
    except OSError:
        pass
    first = bytearray(4096)
    flash.readblocks(0, first)
    while first != b"\xff" * 4096:
        print(
            "The filesystem appears to be corrupted. If you had important data there, you\n"
            "may want to make a flash snapshot to try to recover it. Otherwise, perform\n"
            "factory reprogramming of MicroPython firmware (completely erase flash, followed\n"
            "by firmware programming)."
        )
        import time

        time.sleep(3)
    print("Performing initial setup")
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(flash, "/")
    with open("/boot.py", "w") as f:
        f.write("# This file is executed on every boot (including wake-boot from deepsleep)\n")


def _modules(folder, package=""):
    """The names of all modules in a folder of Python files."""
    found = []
    for name, kind, *_ in os.ilistdir(folder) if folder else ():
        if kind == 0x4000:
            found += _modules(folder + "/" + name, package + name + ".")
        elif name.endswith(".py"):
            found.append(package + name[:-3])
    return found


def start(arguments, into):
    """Becomes the chip: from here on nothing of this PC is to be seen but the network. Then boot.py and main.py run.

    arguments: the wire's number, the file of the flash, where in it the file system is and how long, what is to run,
    and a folder whose modules the image carries frozen ("" for none).
    into: the name space of the REPL.
    """
    global _wire
    wire, flash, offset, size, scripts, frozen = arguments
    _wire = open(int(wire), "r+b")
    state.update(ask("hello"))
    sys.path.append(frozen)
    for name in ("time", "machine", "network", "esp", "esp32", "neopixel"):
        __import__(name)
    for name in _modules(frozen):
        __import__(name)
    partition = _Partition(flash, int(offset), int(size))
    vfs.umount("/")
    _mount(partition)
    os.chdir("/")
    sys.path[:] = ["", ".frozen", "/lib"]
    sys.argv[:] = []
    sys.modules["sys"] = into["sys"] = _Sys()
    del sys.modules["_chip"], into["_chip"]
    try:
        if ask("interruptible"):
            raise KeyboardInterrupt
        for name in scripts.split():
            _run(name, into)
    except KeyboardInterrupt as e:  # before the two, between them, or while one of them was read
        sys.print_exception(e)
    sys.stdout.write("\0ready\0")  # to the board: now comes the REPL


def _run(name, into):
    """Runs boot.py or main.py if it is there."""
    try:
        with open(name) as f:
            source = f.read()
    except OSError:
        return
    try:
        exec(compile(source, name, "exec"), into)
    except SystemExit:
        ask("soft")  # the chip starts the interpreter again
    except BaseException as e:
        sys.print_exception(e)
