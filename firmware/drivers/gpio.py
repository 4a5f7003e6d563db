"""An output on a pin of the chip. Rule: the level is set before the direction, so that a relay does not click."""


class Output:
    def __init__(self, machine, pin, on, level):
        """on: the level (0 or 1) that switches it on; level: whether it is on from the start."""
        self._on = on
        self._pin = machine.Pin(pin, machine.Pin.OUT, value=on if level else 1 - on)

    def write(self, on):
        self._pin.value(self._on if on else 1 - self._on)


def open(spec, hw, level):
    return Output(hw.machine, spec["pin"], spec.get("on", 1), level)
