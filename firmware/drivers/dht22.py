"""DHT22 (AM2302): temperature and humidity on one pin (Aosong data sheet). Rule: as in sensing.py.

Its pulses are timed here and not by the `dht` module, whose C code sleeps for 270 ms. It is known to stick at 99.9 %
in humid houses: six hours of it are `stuck`, with the temperature still good.
"""

from node import ticks

PULSE_US = 48  # a bit is high for 26 us (0) or 70 us (1)
FULL = 99.5  # %
FULL_MS = 6 * 3600 * 1000


class Chip:
    QUANTITIES = ("temperature", "humidity")
    EVERY_MS = 10000  # it may be asked every 2 s at the most, and warms itself

    def __init__(self, pin, machine):
        self._pin = pin
        self._machine = machine
        self._us = bytearray(44)
        self._full = None  # ticks since when it says 99.5 % and more

    def start(self, fresh, now):
        return 0

    def read(self, now):
        n = self._pulses()
        if n < 40:
            if n < 2:
                raise OSError(110)  # ETIMEDOUT: nobody there
            return "crc"
        d = [0] * 5
        for i in range(40):
            d[i >> 3] = d[i >> 3] << 1 | (self._us[n - 40 + i] > PULSE_US)
        if sum(d[:4]) & 255 != d[4]:
            return "crc"
        humidity = (d[0] << 8 | d[1]) / 10
        t = ((d[2] & 127) << 8 | d[3]) / 10
        if humidity > 100 or t > 80:
            return "range"
        if humidity < FULL:
            self._full = None
        elif self._full is None:
            self._full = now
        stuck = self._full is not None and ticks.diff(now, self._full) >= FULL_MS
        return -t if d[2] & 128 else t, "stuck" if stuck else humidity

    def _pulses(self):
        """Times what comes after a start signal, up to 44 high pulses; returns how many. Takes 6 ms, as the chip does.

        The first two are the released line and the chip's answer; a node that is late misses the first. So the last 40
        count.
        """
        m, pin, us = self._machine, self._pin, self._us
        pulse = m.time_pulse_us
        pin.value(1)
        pin.value(0)
        pulse(pin, 1, 1200)  # nothing rises: 1.2 ms low, as the start signal has to be (0.8 to 20 ms)
        n = 0
        irq = m.disable_irq()
        try:
            pin.value(1)
            while n < 44:
                took = pulse(pin, 1, 200)
                if took < 0:
                    break
                us[n] = took
                n += 1
        finally:
            m.enable_irq(irq)
        return n


def open(spec, hw):
    m = hw.machine
    return Chip(m.Pin(spec["pin"], m.Pin.OPEN_DRAIN, m.Pin.PULL_UP, value=1), m)
