"""What a chip has beside its pins: RTC memory, a watchdog, a cause of its last reset, Wi-Fi, a heap for TLS.

Rule: each may be missing, as all of them are on the unix port, and then the answer says so; no other module asks
`machine`, `network` or `esp32` for them.
"""

import gc
import sys
import time

try:
    import machine
except ImportError:
    machine = None
try:
    import esp32
except ImportError:
    esp32 = None
try:
    import network
except ImportError:
    network = None

HALT_S = 30  # before a chip tries again what cannot work
RESTART = 3  # exit status on the unix port: whoever started the node starts it again

# machine.reset_cause() as words. HARD is machine.reset() and a panic alike: the black box knows which.
CAUSES = (("PWRON_RESET", "power"), ("WDT_RESET", "watchdog"), ("SOFT_RESET", "soft"), ("DEEPSLEEP_RESET", "sleep"))


def memory(data=None):
    """RTC memory: what it holds (b"" where there is none), or, with `data`, set it. It survives all but a power cut."""
    if not hasattr(machine, "RTC"):
        return b""
    return machine.RTC().memory() if data is None else machine.RTC().memory(data)


def nvs():
    """Key-value storage beside the file system, or None."""
    return esp32.NVS("peanut") if hasattr(esp32, "NVS") else None


def cause():
    """Why the chip started: "power", "watchdog", "soft", "sleep" or "reset"; "power" where nothing can tell."""
    if not hasattr(machine, "reset_cause"):
        return "power"
    code = machine.reset_cause()
    for name, word in CAUSES:
        if code == getattr(machine, name, None):
            return word
    return "reset"


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


def wlan(name, country):
    """The Wi-Fi station, not yet switched on, under this name; None where there is none."""
    if network is None:
        return None
    network.hostname(name)
    network.country(country)
    station = network.WLAN(network.STA_IF)
    station.active(True)
    station.config(pm=station.PM_NONE, reconnects=-1)  # a node on mains power answers at once
    return station


def tls_room():
    """(free, largest block) in bytes of the heap that TLS takes its buffers from; None where it is not a heap apart."""
    if not hasattr(esp32, "idf_heap_info"):
        return None
    gc.collect()
    regions = esp32.idf_heap_info(esp32.HEAP_DATA)
    return sum([r[1] for r in regions]), max([r[2] for r in regions])


def halt(status):
    """The end of a node that cannot run: on the unix port the program's, on a chip a reset after a while."""
    if sys.platform == "linux":
        sys.exit(status)
    time.sleep(HALT_S)
    reset()
