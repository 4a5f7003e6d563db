"""An I2C bus of the board: two pins, spoken by SoftI2C, and the way back when a chip holds the data line down.

Rule: a bus that hangs is a fault of its chips and never of the node. SoftI2C, because any two pins will do, on every
chip of the family; its timeout bounds a clock that is stretched.
"""

TIMEOUT_US = 20000


class Bus:
    """read_into and write raise OSError: nobody answers, or the bus hangs."""

    def __init__(self, spec, machine):
        """spec: the bus's table of the board file (sda, scl, khz)."""
        self._scl = spec["scl"]
        self._sda = spec["sda"]
        self._hz = spec.get("khz", 100) * 1000
        self._machine = machine
        self.recover()

    def recover(self):
        """Frees a data line that a chip holds since a reset in the middle of a byte: up to nine clocks, then STOP.

        (I2C-bus specification UM10204, section 3.1.16.) Python takes longer than half a clock at 100 kHz anyway.
        """
        m = self._machine
        scl = m.Pin(self._scl, m.Pin.OPEN_DRAIN, value=1)
        sda = m.Pin(self._sda, m.Pin.OPEN_DRAIN, value=1)
        for _ in range(9):
            if sda.value():
                break
            scl.value(0)
            scl.value(1)
        scl.value(0)
        sda.value(0)
        scl.value(1)
        sda.value(1)
        self._i2c = m.SoftI2C(scl=scl, sda=sda, freq=self._hz, timeout=TIMEOUT_US)

    def write(self, address, data):
        self._i2c.writeto(address, data)

    def read_into(self, address, buf):
        self._i2c.readfrom_into(address, buf)


def open(spec, hw):
    return Bus(spec, hw.machine)
