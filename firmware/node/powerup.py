"""What a chip is asked at its start and never again: why it started, its storage beside the files, its Wi-Fi.

Rule: each may be missing, and then the answer says so. In memory at the start only (see node.forget).
"""

import sys
import time

from node import hardware

try:
    import network
except ImportError:
    network = None

HALT_S = 30  # before a chip tries again what cannot work

# machine.reset_cause() as words. HARD is machine.reset() and a panic alike: the black box knows which.
CAUSES = (("PWRON_RESET", "power"), ("WDT_RESET", "watchdog"), ("SOFT_RESET", "soft"), ("DEEPSLEEP_RESET", "sleep"))


def cause():
    """Why the chip started: "power", "watchdog", "soft", "sleep" or "reset"; "power" where nothing can tell."""
    if not hasattr(hardware.machine, "reset_cause"):
        return "power"
    code = hardware.machine.reset_cause()
    for name, word in CAUSES:
        if code == getattr(hardware.machine, name, None):
            return word
    return "reset"


def nvs():
    """Key-value storage beside the file system, or None."""
    return hardware.esp32.NVS("peanut") if hasattr(hardware.esp32, "NVS") else None


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


def halt(status):
    """The end of a node that cannot run: on the unix port the program's, on a chip a reset after a while."""
    if sys.platform != "esp32":
        sys.exit(status)
    time.sleep(HALT_S)
    hardware.reset()
