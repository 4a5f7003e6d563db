"""Outputs on a chain of 74HC595 shift registers.

Rule: one word for all of them, kept here. At power-up the outputs are undefined, until the first write sets them all.
"""

from drivers.expander import Output

BITS = 32  # a chain of four; what is shifted beyond the last register is lost without harm


class Port:
    def __init__(self, spec, machine):
        pin = machine.Pin
        self._latch = pin(spec["latch"], pin.OUT, value=0)
        self._clock = pin(spec["clock"], pin.OUT, value=0)
        self._data = pin(spec["data"], pin.OUT, value=0)
        self._bits = 0

    def put(self, bit, high):
        self._bits = self._bits | 1 << bit if high else self._bits & ~(1 << bit)
        for i in range(BITS - 1, -1, -1):  # the highest first: bit 0 ends in the first output of the first register
            self._data.value(self._bits >> i & 1)
            self._clock.value(1)
            self._clock.value(0)
        self._latch.value(1)
        self._latch.value(0)


def open(spec, hw, level):
    bus = spec["bus"]
    return Output(hw.shared(bus, lambda: Port(hw.spec(bus), hw.machine)), spec["bit"], spec.get("on", 1), level)
