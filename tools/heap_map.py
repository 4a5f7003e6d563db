"""What each module of a node takes of its heap, as a board gets it: `python -m tools.heap_map fleet/devices/peanut`.

Rule: measured, on MicroPython's unix port, whose words are twice as wide as a chip's: code is as large there, tables
and objects are half of it. Each module is charged what it takes beside those that it imports. Seldom needed ones are
shown like the others; README.md of firmware/ says when they leave.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from peanut import application
from tools.fleet.node import FIRMWARE, find_micropython

# Runs on MicroPython, in a folder with the compiled application: imports what argv names, one by one.
_RUN = """
import builtins, gc, micropython, sys
import asyncio, binascii, errno, hashlib, json, os, random, socket, ssl, struct, time
asyncio.create_task, asyncio.Event, asyncio.Lock
real = builtins.__import__
inner = [0]
def used():
    gc.collect()
    return gc.mem_alloc()
def charged(name, *more):
    before = used()
    inner.append(0)
    try:
        return real(name, *more)
    finally:
        took = used() - before
        alone = took - inner.pop()
        inner[-1] += took
        if alone > 200:
            print(alone, name)
begun = used()
builtins.__import__ = charged
for name in sys.argv[1:]:
    try:
        __import__(name)
    except ImportError as e:
        print(0, name, "not on this port:", e)
print(used() - begun, "in all, after", begun, "of asyncio and what the image has")
micropython.qstr_info()
"""


def main() -> None:
    """Print the table. The argument is a device bundle, whose node.json says what the node gets."""
    body = json.loads((Path(sys.argv[1]) / "node.json").read_text())
    with tempfile.TemporaryDirectory(prefix="peanut-heap-") as scratch:
        files = application.compiled(body, FIRMWARE)
        for name, data in files.items():
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (Path(scratch) / "run.py").write_text(_RUN)
        modules = [
            name.removesuffix(".mpy").replace("/", ".") for name in files if name.startswith(("node/", "drivers/"))
        ]
        modules = [name.removesuffix(".__init__") for name in modules if name != "node.start"]
        command = [find_micropython(), "-X", "heapsize=300wK", "run.py", *modules]
        subprocess.run(command, cwd=scratch, env={"MICROPYPATH": f"{scratch}:.frozen"}, check=True)


if __name__ == "__main__":
    main()
