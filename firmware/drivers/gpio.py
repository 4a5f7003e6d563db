"""An output on a pin of the chip. Rule: the level is set before the direction, so that a relay does not click.

With `hold` the pad is latched while it is at its safe level, and only then: whatever resets the chip, it neither floats
nor pulses until boot.py lets go of it. What is not safe ends with a reset, as ever.
"""


class Output:
    def __init__(self, machine, pin, on, level, hold):
        """on: the level (0 or 1) that switches it on; level: whether it is on from the start, the safe state of it."""
        self._on = on
        self._latch = level if hold else None
        self._pin = machine.Pin(pin, machine.Pin.OUT, value=on if level else 1 - on)
        self.write(level)

    def write(self, on):
        level = self._on if on else 1 - self._on
        if self._latch is None:
            self._pin.value(level)
        else:  # `init` lets go of the pad, and latches it again at the new level
            self._pin.init(value=level, hold=on == self._latch)


def open(spec, hw, level):
    return Output(hw.machine, spec["pin"], spec.get("on", 1), level, spec.get("hold"))
