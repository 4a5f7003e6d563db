"""SCD40, SCD41: CO2, temperature and humidity on I2C (Sensirion data sheet SCD4x). Rule: as in sensing.py.

It measures by itself every 5 s (section 3.6.1). It may do so since before this node's reset, and takes no other order
then; so it is stopped first, and started 500 ms later. It answers an order after 1 ms, so each turn does one half.
"""

from drivers.sensirion import words


class Chip:
    QUANTITIES = ("co2", "temperature", "humidity")
    EVERY_MS = 10000

    def __init__(self, bus, address):
        self._bus = bus
        self._address = address
        self._next = None  # what `read` does: None starts the measuring; else the bytes of the answer that waits
        self._buf = bytearray(9)

    def start(self, fresh, now):
        if fresh:
            self._next = None
            self._bus.write(self._address, b"\x3f\x86")  # stop_periodic_measurement
            return 500
        return self._ask(3)

    def read(self, now):
        size = self._next
        if size is None:
            self._bus.write(self._address, b"\x21\xb1")  # start_periodic_measurement: the first result takes 5 s
            self._next = 0
            return None
        if not size:
            self._ask(3)
            return None
        buf = memoryview(self._buf)[:size]
        self._bus.read_into(self._address, buf)
        found = words(buf)
        if not found:
            return "crc"
        if size == 3:
            self._ask(9 if found[0] & 0x7FF else 3)
            return None
        return found[0], -45 + 175 * found[1] / 65535, 100 * found[2] / 65535

    def _ask(self, size):
        """Orders an answer of `size` bytes, to be fetched 1 ms later: get_data_ready_status or read_measurement."""
        self._bus.write(self._address, b"\xe4\xb8" if size == 3 else b"\xec\x05")
        self._next = size
        return 1


def open(spec, hw):
    return Chip(hw.bus(spec["bus"]), spec.get("address", 0x62))
