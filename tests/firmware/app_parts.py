"""What stands around an app that runs on the unix port: a clock, RTC memory, a watchdog's pulse, and a place for lines.

Rule: MicroPython; imported by the files beside it that run there (app_run.py, vehicle_run.py).
"""

from node import clock, log

REAL = clock.now


class Moved:
    """A clock moved by hand, for a `with`."""

    def __enter__(self):
        self.now = 0
        clock.now = lambda: self.now
        return self

    def __exit__(self, *_):
        clock.now = REAL


class Memory:
    """RTC memory: what a reset leaves."""

    def __init__(self):
        self.kept = b""

    def __call__(self, data=None):
        if data is not None:
            self.kept = bytes(data)
        return self.kept


class Pulse:
    """Nobody's."""

    def beat(self, *_):
        pass


def lines():
    """What is logged from now on, as a list that fills."""
    seen = []
    log.print = seen.append
    return seen
