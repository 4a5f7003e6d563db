"""The node's clocks: ticks for intervals, Unix seconds for the world, and loop time for the control loop.

Rule: the only module that asks the hardware what time it is.
"""

import time

from node import ticks

# A chip without a set clock says 2000 or 1970. Nothing before this firmware was written can be now.
FLOOR = 1767225600  # 2026-01-01

# MicroPython counts from 2000 on the ESP32 and from 1970 on the unix port.
_EPOCH = 946684800 if time.gmtime(0)[0] == 2000 else 0


def now():
    """Milliseconds as ticks (see node/ticks.py)."""
    return time.ticks_ms() & (ticks.PERIOD - 1)


def since(then):
    """Milliseconds since `then`."""
    return ticks.diff(now(), then)


def unix():
    """Unix seconds (int), or None while the clock is not set."""
    seconds = int(time.time()) + _EPOCH
    return seconds if seconds >= FLOOR else None


def quality():
    """How far `unix` can be trusted, for the reports: "rtc" or "none"."""
    return "none" if unix() is None else "rtc"


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
