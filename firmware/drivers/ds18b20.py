"""DS18B20: temperature on a 1-Wire bus of its own (Maxim data sheet 19-7487). Rule: as in sensing.py.

One to a pin: it is addressed by SKIP ROM, and its ROM code is read only to see that it is one, and the only one.
"""


class Chip:
    QUANTITIES = ("temperature",)
    EVERY_MS = 5000

    def __init__(self, pin, wire):
        """wire: the module _onewire, which keeps the time slots."""
        self._pin = pin
        self._wire = wire
        self._buf = bytearray(9)

    def start(self, fresh, now):
        if fresh:
            rom = self._ask(b"\x33", 8)  # READ ROM; two that answer at once spoil each other's CRC
            if rom is None or rom[0] != 0x28:
                raise OSError(19)  # ENODEV
        self._order(b"\xcc\x44")  # SKIP ROM, CONVERT T
        return 750  # 12 bits

    def read(self, now):
        d = self._ask(b"\xcc\xbe", 9)  # SKIP ROM, READ SCRATCHPAD
        if d is None:
            return "crc"
        raw = d[1] << 8 | d[0]
        # 85.0 is what the register holds at power-up: the sensor has lost its supply and not measured.
        if raw == 0x0550:
            return "range"
        return ((raw - 65536 if raw & 0x8000 else raw) / 16,)

    def _order(self, data):
        if not self._wire.reset(self._pin):
            raise OSError(19)
        for byte in data:
            self._wire.writebyte(self._pin, byte)

    def _ask(self, order, count):
        """The answer; None if its CRC is wrong."""
        self._order(order)
        buf = memoryview(self._buf)[:count]
        for i in range(count):
            buf[i] = self._wire.readbyte(self._pin)
        # All zeros have a good CRC: a bus that is held down.
        return None if crc8(buf) or not any(buf) else buf


def crc8(data):
    """CRC-8 of 1-Wire, polynomial 0x31 reflected (application note 27); 0 over data with its CRC behind."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8C if crc & 1 else crc >> 1
    return crc


def open(spec, hw):
    m = hw.machine
    pin = hw.spec(spec["bus"])["pin"] if "bus" in spec else spec["pin"]
    return Chip(m.Pin(pin, m.Pin.OPEN_DRAIN, m.Pin.PULL_UP, value=1), hw.onewire())
