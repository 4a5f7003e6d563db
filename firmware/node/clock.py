"""The node's clocks: ticks for intervals, Unix seconds for the world, and loop time for the control loop.

Rule: the only module that asks the hardware what time it is, or tells it. A time that nobody vouches for is never given
out as the time: it serves TLS as a floor, no more.
"""

import time

from node import BUILT, log, ticks

try:
    from machine import RTC
except ImportError:  # the unix port: the PC's clock is not ours to set
    RTC = None

FLOOR = BUILT  # nothing before this firmware was built can be now
CEILING = BUILT + 15 * 31557600  # nor anything that no certificate of ours will live to see

# MicroPython counts from 2000 on the ESP32 and from 1970 on the unix port.
_EPOCH = 946684800 if time.gmtime(0)[0] == 2000 else 0

_offset = 0  # seconds to add where the clock cannot be set
_quality = "none"


def now():
    """Milliseconds as ticks (see node/ticks.py)."""
    return time.ticks_ms() & (ticks.PERIOD - 1)


def since(then):
    """Milliseconds since `then`."""
    return ticks.diff(now(), then)


def _raw():
    return int(time.time()) + _EPOCH + _offset


def unix():
    """Unix seconds (int), or None while the clock is not set."""
    return _raw() if _quality in ("rtc", "ntp") else None


def quality():
    """How far `unix` can be trusted, for the reports: "none", "floor" (only TLS may use it), "rtc" or "ntp"."""
    return _quality


def begin(seen):
    """At the start: what survived a reset is good; else the clock is put to the floor, so that TLS can judge
    certificates before anybody has told the time. seen: the last time known to be past (Unix seconds), from flash."""
    global _quality
    if FLOOR <= _raw() <= CEILING:
        _quality = "rtc"
    else:
        _put(max(FLOOR, min(seen, CEILING)))
        _quality = "floor"


def put(seconds, said):
    """The time (Unix seconds), as the gateway `said` says. False, and nothing changes, if that cannot be."""
    global _quality
    if not FLOOR <= seconds <= CEILING:
        log.warn("time", "%s says %d: that cannot be now" % (said, seconds))
        return False
    step = seconds - _raw()
    _put(seconds)
    if _quality != "ntp" or abs(step) > 2:
        log.info("time", "set from %s, by %+d s" % (said, step))
    _quality = "ntp"
    return True


def _put(seconds):
    global _offset
    if hasattr(RTC, "datetime"):
        t = time.gmtime(seconds - _EPOCH)
        RTC().datetime((t[0], t[1], t[2], t[6], t[3], t[4], t[5], 0))
    _offset = 0
    _offset = seconds - _raw()


def hhmmss():
    """The time of day for log lines."""
    return "%02d:%02d:%02d" % tuple(time.localtime()[3:6])


class LoopTime:
    """Time as the control loop sees it: real, or `speed` times faster beside a model.

    A model's time waits for a machine that is late (at most MAX_STEP_MS a turn), so that a loaded PC does not spoil
    the regulation; real time never does.
    """

    STEP_MS = 12000  # loop time between two turns of a fast loop
    MAX_STEP_MS = 60000
    PERIOD_MS = 1000  # real time between two turns at the most

    def __init__(self, speed=1):
        self.speed = speed
        self.period_ms = max(20, min(self.PERIOD_MS, int(self.STEP_MS / speed)))
        self._real = now()
        self.now = 0

    def turn(self):
        """Advance to now; returns the loop's ticks."""
        real = now()
        ms = int(ticks.diff(real, self._real) * self.speed)
        self._real = real
        if self.speed != 1:
            ms = min(ms, self.MAX_STEP_MS)
        self.now = ticks.add(self.now, ms)
        return self.now
