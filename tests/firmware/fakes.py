"""Hardware in bytes and levels: what `machine` and `_onewire` would be on a board, with chips wired to it.

Rule: a fake of the bus and the chip, never of a driver: it answers to the commands of the data sheet with the bytes
of its examples, and to everything else as an absent chip does. Runs on CPython and on MicroPython.
"""

NACK = 19  # ENODEV, as SoftI2C raises it
TIMEOUT = 110


class Pin:
    """Levels of the lines of a Machine."""

    OUT, IN, OPEN_DRAIN, PULL_UP, PULL_DOWN = 1, 0, 2, 9, 10

    def __init__(self, number, mode=None, pull=None, value=None):
        machine = Pin.machine
        if number not in range(49):
            raise ValueError("invalid pin")
        self.number = number
        machine.log.append(("init", number, mode, value))
        if value is not None:
            machine.drive(number, value)

    def init(self, value=None, hold=None):
        """As ports/esp32 has it: the level, then the pad is let go of, then latched if that is asked for."""
        machine = Pin.machine
        if value is not None:
            machine.drive(self.number, value)
        if hold is not None:
            pending = machine.latched.pop(self.number, None)
            if pending is not None:
                machine.drive(self.number, pending)
            if hold:
                machine.latched[self.number] = machine.levels[self.number]

    def value(self, level=None):
        if level is None:
            return Pin.machine.sense(self.number)
        Pin.machine.drive(self.number, level)
        return None


class SoftI2C:
    def __init__(self, scl, sda, freq, timeout):
        self._bus = (sda.number, scl.number)
        assert 0 < timeout <= 50000
        assert freq in (100000, 400000)

    def _chip(self, address):
        machine = Pin.machine
        machine.transfers += 1
        if machine.held:
            raise OSError(TIMEOUT)
        chip = machine.chips.get((self._bus, address))
        if chip is None or chip.away:
            raise OSError(NACK)
        return chip

    def writeto(self, address, data):
        self._chip(address).write(bytes(data))

    def readfrom_into(self, address, buf):
        answer = self._chip(address).read(len(buf))
        assert len(answer) == len(buf), (address, answer, len(buf))
        buf[:] = answer


class ADC:
    ATTN_11DB = 3

    def __init__(self, pin, atten):
        self._pin = pin
        assert atten == ADC.ATTN_11DB

    def read_uv(self):
        samples = Pin.machine.volts[self._pin.number]
        samples.append(samples.pop(0))
        return samples[-1]


class Machine:
    """Stands for the module `machine` of one board. log: every set-up of a pin; changes: every change of a level."""

    def __init__(self):
        self.Pin, self.SoftI2C, self.ADC = Pin, SoftI2C, ADC
        Pin.machine = self
        self.levels = {}
        self.latched = {}  # pads that keep their level, whatever is written: {number: the level once it is let go of}
        self.log = []
        self.changes = []
        self.chips = {}
        self.volts = {}
        self.held = 0  # clocks for which a chip still holds SDA
        self.scl = self.sda = None
        self.transfers = 0
        self.watchers = []
        self.pulses = None  # the DHT's train: highs in us
        self.masked = False

    def wire(self, sda, scl, address, chip):
        self.sda, self.scl = sda, scl
        self.chips[((sda, scl), address)] = chip
        return chip

    def drive(self, number, level):
        if number in self.latched:
            self.latched[number] = level
            return
        rising = level and not self.levels.get(number)
        if self.levels.get(number) != level:
            self.changes.append((number, level))
        self.levels[number] = level
        if rising and number == self.scl and self.held:
            self.held -= 1
        for watch in self.watchers:
            watch(number, level, rising)

    def sense(self, number):
        if number == self.sda and self.held:
            return 0
        return self.levels.get(number, 1)

    def disable_irq(self):
        self.masked = True
        return 7

    def enable_irq(self, state):
        assert state == 7
        self.masked = False

    def time_pulse_us(self, pin, level, timeout):
        assert level == 1
        if not self.levels.get(pin.number):
            self.changes.append(("low for", timeout))
            return -2
        assert self.masked
        return self.pulses.pop(0) if self.pulses else -1


class Scripted:
    """An I2C chip that answers `answers[command]`; an unknown command is not acknowledged."""

    def __init__(self, answers):
        self.answers = answers
        self.seen = []
        self.away = False
        self._next = None

    def write(self, data):
        self.seen.append(data)
        if data not in self.answers:
            raise OSError(NACK)
        self._next = self.answers[data]

    def read(self, n):
        if self._next is None:
            raise OSError(NACK)  # nothing measured yet
        answer, self._next = self._next, None
        return answer


class Registers:
    """An I2C chip of registers with a pointer."""

    def __init__(self, memory):
        self.memory = memory
        self.written = []
        self.away = False
        self._at = 0

    def write(self, data):
        self._at = data[0]
        if len(data) > 1:
            self.written.append(data)

    def read(self, n):
        return bytes([self.memory[self._at + i] for i in range(n)])


class Latch:
    """An expander: remembers the last byte written."""

    def __init__(self):
        self.away = False
        self.bits = 0xFF

    def write(self, data):
        assert len(data) == 1
        self.bits = data[0]


class Chain595:
    """Two 74HC595 in a row: shifts on the clock's rising edge, shows on the latch's."""

    def __init__(self, machine, data, clock, latch):
        self.register = 0xBEEF  # undefined at power-up
        self.shown = []
        self._pins = (data, clock, latch)
        self._machine = machine
        machine.watchers.append(self._edge)

    def _edge(self, number, _level, rising):
        data, clock, latch = self._pins
        if rising and number == clock:
            self.register = (self.register << 1 | self._machine.levels[data]) & 0xFFFF
        elif rising and number == latch:
            self.shown.append(self.register)


class Wire:
    """Stands for the module `_onewire` with one DS18B20 on the pin."""

    def __init__(self, rom, scratchpad):
        self.rom, self.scratchpad = rom, scratchpad
        self.away = False
        self.orders = []
        self._out = []
        self._at = None

    def reset(self, _pin):
        self._at = "rom"
        self._out = []
        return not self.away

    def writebyte(self, _pin, byte):
        self.orders.append(byte)
        if self._at == "rom" and byte == 0x33:
            self._out = list(self.rom)
        elif self._at == "rom" and byte == 0xCC:
            self._at = "function"
        elif self._at == "function" and byte == 0xBE:
            self._out = list(self.scratchpad)
        elif self._at != "function" or byte != 0x44:
            raise AssertionError("order", byte)

    def readbyte(self, _pin):
        return self._out.pop(0) if self._out else 0xFF


def dht_pulses(data, head=(30, 80)):
    """The highs of a DHT22's answer: released line, its response, then 26 or 70 us a bit."""
    return list(head) + [70 if byte >> bit & 1 else 26 for byte in data for bit in range(7, -1, -1)]
