"""Who of the node's tasks still lives: the watchdog is fed only while every one of them shows progress.

Rule: pure; time is an argument. A wait that was declared is no silence; one that was not, is.
"""

from node import ticks


class Pulse:
    """The signs of life of one task: late when none came for `limit_ms` beyond the wait it declared."""

    def __init__(self, name, limit_ms, now):
        self.name = name
        self._limit = limit_ms
        self._until = now

    def beat(self, now, wait_ms=0):
        """Progress at `now` (ticks); the next may take `wait_ms` (less than 6 days) longer than usual."""
        self._until = ticks.add(now, wait_ms)

    def silent(self, now):
        """ms of silence that were not declared; negative within a declared wait."""
        return ticks.diff(now, self._until)

    def late(self, now):
        """Whether it has been silent for too long."""
        return self.silent(now) > self._limit


class Supervisor:
    """All pulses of a node."""

    def __init__(self):
        self._pulses = []

    def watch(self, name, limit_ms, now):
        """Begin to watch a task; returns its Pulse."""
        pulse = Pulse(name, limit_ms, now)
        self._pulses.append(pulse)
        return pulse

    def late(self, now):
        """The first pulse that is late, or None: then, and only then, the watchdog may be fed."""
        for pulse in self._pulses:
            if pulse.late(now):
                return pulse
        return None
