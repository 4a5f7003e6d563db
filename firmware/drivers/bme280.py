"""BME280: temperature, humidity and pressure on I2C (Bosch data sheet BST-BME280-DS002). Rule: as in sensing.py.

It sends no checksum; what it answers is held to its identity (0x60) and to what it can measure.
"""

import struct


class Chip:
    QUANTITIES = ("temperature", "humidity", "pressure")
    EVERY_MS = 5000

    def __init__(self, bus, address):
        self._bus = bus
        self._address = address
        self._cal = None

    def start(self, fresh, now):
        if fresh or self._cal is None:
            self._cal = None
            if self._registers(0xD0, 1)[0] != 0x60:
                raise OSError(19)  # ENODEV: something else lives at this address
            self._cal = self._calibration(self._registers(0x88, 26), self._registers(0xE1, 7))
        # Each quantity once, forced mode: one measurement, then sleep (section 5.4.3, 5.4.5).
        self._bus.write(self._address, b"\xf2\x01")
        self._bus.write(self._address, b"\xf4\x25")
        return 10  # section 9.1: 1.25 + 2.3 + 2.3 + 0.575 + 2.3 + 0.575 = 9.3 ms at the most

    def read(self, now):
        if self._registers(0xF3, 1)[0] & 8:
            return None  # still measuring
        d = self._registers(0xF7, 8)
        t = d[3] << 12 | d[4] << 4 | d[5] >> 4
        if t == 0x80000:
            return "range"  # the value of a measurement that was left out
        found = compensate(self._cal, t, d[0] << 12 | d[1] << 4 | d[2] >> 4, d[6] << 8 | d[7])
        if not -40 <= found[0] <= 85 or not 300 <= found[2] <= 1100:
            return "range"
        return found

    def _registers(self, first, count):
        buf = bytearray(count)
        self._bus.write(self._address, bytes((first,)))
        self._bus.read_into(self._address, buf)
        return buf

    @staticmethod
    def _calibration(low, high):
        """(T1..T3, P1..P9, H1..H6) of table 16."""
        h2, h3, e4, e5, e6, h6 = struct.unpack("<hBbBbb", high)
        return struct.unpack_from("<HhhHhhhhhhhh", low) + (low[25], h2, h3, e4 << 4 | e5 & 15, e6 << 4 | e5 >> 4, h6)


def compensate(cal, t, p, h):
    """(deg C, %, hPa) of the raw figures, by the formulas of section 8.1 (in floating point)."""
    t1, t2, t3, p1, p2, p3, p4, p5, p6, p7, p8, p9, h1, h2, h3, h4, h5, h6 = cal
    a = t / 131072 - t1 / 8192
    fine = (t / 16384 - t1 / 1024) * t2 + a * a * t3
    a = fine / 2 - 64000
    b = (a * a * p6 / 32768 + a * p5 * 2) / 4 + p4 * 65536
    a = (1 + (p3 * a * a / 524288 + p2 * a) / 524288 / 32768) * p1
    press = 0.0
    if a:
        press = (1048576 - p - b / 4096) * 6250 / a
        press += (p9 * press * press / 2147483648 + press * p8 / 32768 + p7) / 16
    a = fine - 76800
    a = (h - (h4 * 64 + h5 / 16384 * a)) * (h2 / 65536 * (1 + h6 / 67108864 * a * (1 + h3 / 67108864 * a)))
    a *= 1 - h1 * a / 524288
    return fine / 5120, min(100.0, max(0.0, a)), press / 100


def open(spec, hw):
    return Chip(hw.bus(spec["bus"]), spec.get("address", 0x76))
