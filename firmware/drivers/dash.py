"""The real car: its relays, contacts and lines. Opened by drivers/opening.py.

Rule: a relay is closed for a moment and for no longer, one relay at a time. The chip's timer opens it again, armed
before it closes; whatever becomes of this program, a reset leaves it open (boot.py).
"""

from drivers.house import House
from node import clock, log

GRACE_MS = 1000  # a pulse that a timer has not ended by then is ended by the control loop


class Dash(House):
    """timer: a machine.Timer."""

    def __init__(self, outputs, probes, units):
        House.__init__(self, outputs, probes, units)
        self._lines = [unit.chip for unit in units if hasattr(unit.chip, "codes")]
        self.timer = None
        self._closed = None  # the output that is closed
        self._since = self._ms = 0

    def pulse(self, name, ms):
        """Close `name` for `ms`; only while `idle()`."""
        self._closed = name
        self._ms = ms
        self._since = clock.now()
        self.timer.init(mode=self.timer.ONE_SHOT, period=ms, callback=self._open)
        self._outputs[name].write(True)

    def tend(self, now):
        """Each turn of the control loop: ends a pulse that the timer did not."""
        if self._closed is not None and clock.since(self._since) > self._ms + GRACE_MS:
            log.error("outputs", "%s: the timer did not open it" % self._closed)
            self._open(None)

    def idle(self):
        """Whether no relay is closed."""
        return self._closed is None

    def write(self, name, on, now):
        """Opens a relay, whatever `on` is."""
        if name == self._closed:
            self._open(None)
        else:
            self._outputs[name].write(False)

    def codes(self):
        """The car's fault codes, None where nobody has told them."""
        return self._lines[0].codes if self._lines else None

    def _open(self, _):
        name, self._closed = self._closed, None
        if name is not None:
            self._outputs[name].write(False)
