"""`neopixel` of an ESP32: lamps that nobody sees."""


class NeoPixel:
    def __init__(self, pin, n, bpp=3, timing=1):
        self.n = n
        self._lamps = [(0,) * bpp] * n

    def __len__(self):
        return self.n

    def __setitem__(self, i, v):
        self._lamps[i] = tuple(v)

    def __getitem__(self, i):
        return self._lamps[i]

    def fill(self, v):
        self._lamps = [tuple(v)] * self.n

    def write(self):
        pass
