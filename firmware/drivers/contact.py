"""A contact on a pin, 1.0 while it is closed: a tank's float switch, a switch for people. Rule: as in sensing.py."""


class Chip:
    QUANTITIES = ("contact",)
    EVERY_MS = 500  # longer than any contact bounces

    def __init__(self, pin, active):
        self._pin = pin
        self._active = active

    def start(self, fresh, now):
        return 0

    def read(self, now):
        return (1.0 if self._pin.value() == self._active else 0.0,)


def open(spec, hw):
    """active: the level while it is closed (default 0: to ground); the chip's own resistor pulls the other way."""
    pin = hw.machine.Pin
    active = spec.get("active", 0)
    return Chip(pin(spec["pin"], pin.IN, pin.PULL_DOWN if active else pin.PULL_UP), active)
