"""One output of many behind an expander chip.

Rule: a chip that is away is no reason to stop; the next write mends it.
"""


class Output:
    def __init__(self, port, bit, on, level):
        """port: put(bit, high); on: the level that switches it on; level: whether it is on from the start."""
        self._port = port
        self._bit = bit
        self._on = on
        try:
            self.write(level)
        except OSError:
            pass  # absent at boot: the bit is in the byte, and the next write brings it

    def write(self, on):
        self._port.put(self._bit, self._on if on else 1 - self._on)
