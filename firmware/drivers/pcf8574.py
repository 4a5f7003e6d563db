"""Outputs on a PCF8574 I2C port expander (TI data sheet SCPS068). Rule: one byte for all eight, kept here.

At power-up its pins are high. A write that failed is made good with the next one: the byte always holds all bits.
"""

from drivers.expander import Output


class Port:
    def __init__(self, bus, address):
        self._bus = bus
        self._address = address
        self._bits = 0xFF
        self._buf = bytearray(1)

    def put(self, bit, high):
        """Sets one bit and writes all. Raises OSError."""
        self._bits = self._bits | 1 << bit if high else self._bits & ~(1 << bit)
        self._buf[0] = self._bits
        self._bus.write(self._address, self._buf)


def open(spec, hw, level):
    address = spec["address"]
    port = hw.shared((spec["bus"], address), lambda: Port(hw.bus(spec["bus"]), address))
    return Output(port, spec["bit"], spec.get("on", 0), level)
