"""The real car: its relays, contacts and lines. Opened by drivers/opening.py.

Rule: a relay is closed for a moment and for no longer, one relay at a time. The chip's timer opens it again, armed
before it closes; whatever becomes of this program, a reset leaves it open (boot.py).
"""

from drivers.house import House
from node import clock, log

GRACE_MS = 1000  # a pulse that a timer has not ended by then is ended by the control loop


class Dash(House):
    """timer: a machine.Timer. ended: how many pulses are over, in the order in which `pulse` was called."""

    def __init__(self, outputs, probes, units):
        House.__init__(self, outputs, probes, units)
        self._lines = [unit.chip for unit in units if hasattr(unit.chip, "codes")]
        self.timer = None
        self.ended = self._asked = 0
        self._queue = []  # (output, ms)
        self._closed = None  # the output that is closed
        self._since = self._ms = 0

    def pulse(self, name, ms):
        """Close `name` for `ms`, after those that were asked for before. Returns the number of this pulse."""
        self._queue.append((name, ms))
        self._asked += 1
        self._next()
        return self._asked

    def tend(self, now):
        """Each turn of the control loop: the next pulse, and one that never ended."""
        if self._closed is not None and clock.since(self._since) > self._ms + GRACE_MS:
            log.error("outputs", "%s: the timer did not open it" % self._closed)
            self._open(None)
        self._next()

    def idle(self):
        """Whether no relay is closed, nor about to be."""
        return self._closed is None and not self._queue

    def write(self, name, on, now):
        """Opens a relay, whatever `on` is; what waits is given up."""
        self.ended += len(self._queue)
        self._queue = []
        if name == self._closed:
            self._open(None)
        else:
            self._outputs[name].write(False)

    def codes(self):
        """The car's fault codes, None where nobody has told them."""
        return self._lines[0].codes if self._lines else None

    def _next(self):
        if self._closed is None and self._queue:
            self._closed, self._ms = self._queue.pop(0)
            self._since = clock.now()
            self.timer.init(mode=self.timer.ONE_SHOT, period=self._ms, callback=self._open)
            self._outputs[self._closed].write(True)

    def _open(self, _):
        name, self._closed = self._closed, None
        if name is not None:
            self._outputs[name].write(False)
            self.ended += 1
