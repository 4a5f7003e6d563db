"""A serial line of the chip. Rule: never waits; what does not fit into its buffer between two reads is lost."""

ROOM = 1024  # bytes: a second of 9600 baud


class Line:
    def __init__(self, machine, number, spec):
        pin = machine.Pin
        self._uart = machine.UART(number, spec["baud"], tx=pin(spec["tx"]), rx=pin(spec["rx"]), rxbuf=ROOM)

    def read(self):
        """What has come, b"" if nothing has."""
        return self._uart.read() or b""

    def write(self, data):
        self._uart.write(data)

    def recover(self):
        """Nothing holds a line as a chip holds a bus; what it had to say is stale."""
        self._uart.read()


def open(spec, hw):
    """UART 0 is the console: the lines of a board are 1 and 2, in the order of their names."""
    lines = [name for name in sorted(hw.buses) if hw.buses[name]["kind"] == "uart"]
    for i in range(len(lines)):
        if hw.buses[lines[i]] is spec:
            return Line(hw.machine, i + 1, spec)
    raise ValueError("no line of this board")
