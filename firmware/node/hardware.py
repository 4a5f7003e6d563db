"""What a chip has beside its pins: RTC memory, a watchdog, a heap for TLS.

Rule: each may be missing, as all of them are on the unix port, and then the answer says so; no module but this and
powerup.py asks `machine`, `network` or `esp32` for them.
"""

import gc
import sys

try:
    import machine
except ImportError:
    machine = None
try:
    import esp32
except ImportError:
    esp32 = None

RESTART = 3  # exit status on the unix port: whoever started the node starts it again


def memory(data=None):
    """RTC memory: what it holds (b"" where there is none), or, with `data`, set it. It survives all but a power cut."""
    if not hasattr(machine, "RTC"):
        return b""
    return machine.RTC().memory() if data is None else machine.RTC().memory(data)


def reset():
    """Start again from boot.py. Does not return."""
    if hasattr(machine, "reset"):
        machine.reset()
    sys.exit(RESTART)


def watchdog(ms):
    """A watchdog that bites after `ms` without `feed()`, or None where there is none. It cannot be stopped again."""
    return machine.WDT(timeout=ms) if hasattr(machine, "WDT") else None


def image():
    """The MicroPython image, as it names itself."""
    return sys.version.split("; ")[-1][:60]


def chip():
    """What tells this chip from every other, in hexadecimal digits; None where there is no such thing."""
    return "".join(["%02x" % b for b in machine.unique_id()]) if hasattr(machine, "unique_id") else None


def tls_room():
    """(free, largest block) in bytes of the heap that TLS takes its buffers from; None where it is not a heap apart."""
    if not hasattr(esp32, "idf_heap_info"):
        return None
    gc.collect()
    regions = esp32.idf_heap_info(esp32.HEAP_DATA)
    return sum([r[1] for r in regions]), max([r[2] for r in regions])
