"""`machine` under a node on this PC: RTC memory that outlives a reset, a cause of the start, a reset; pins, serial lines
and a timer for who has something to wire to them.

Rule: it is the chip, not a stand-in for anything of ours. RTC memory is a file beside the node's flash, which a power cut
(Node.kill) takes away; after a reset the fleet tool starts the process again. There is no watchdog: the virtual board
has one that bites.

What is wired lies in the work directory: `pins` has a line "NUMBER LEVEL MS" for each change of an output, `pin.NUMBER` holds
the level of an input (1 where there is none: pulled up), `uart.NUMBER` is the line's other end, for example a link to a pty.
"""

import asyncio
import select
import sys
import time

PWRON_RESET, HARD_RESET, WDT_RESET = 1, 2, 3
RESTART = 3  # exit status of reset(), which tools/fleet/node.py knows

_CAUSE = {"power": PWRON_RESET, "reset": HARD_RESET, "watchdog": WDT_RESET}[sys.argv[2]]


class RTC:
    def memory(self, data=None):
        try:
            with open("/rtc.mem", "rb" if data is None else "wb") as f:
                return f.read() if data is None else f.write(data)
        except OSError:
            return b""


class Pin:
    IN, OUT, PULL_DOWN, PULL_UP = 1, 3, 1, 2
    _levels = {}

    def __init__(self, number, mode=-1, pull=-1, *, value=None):
        self._number = number
        if value is not None:
            self.value(value)

    def init(self, *, value=None, hold=None):
        if value is not None:
            self.value(value)

    def value(self, level=None):
        if level is None:
            try:
                with open("/pin.%d" % self._number) as f:
                    return int(f.read(1) or 1)
            except OSError:
                return 1
        if Pin._levels.get(self._number) != level:
            Pin._levels[self._number] = level
            with open("/pins", "a") as f:
                f.write("%d %d %d\n" % (self._number, level, time.ticks_ms()))
        return None


class UART:
    def __init__(self, number, baud, tx, rx, rxbuf):
        self._room = rxbuf
        self._wire = None
        try:
            self._wire = open("/uart.%d" % number, "r+b", 0)
        except OSError:  # an open end
            return
        self._poll = select.poll()
        self._poll.register(self._wire, select.POLLIN)

    def read(self):
        out = b""
        while self._wire is not None and len(out) < self._room and self._poll.poll(0):
            out += self._wire.read(1)
        return out or None

    def write(self, data):
        return len(data) if self._wire is None else self._wire.write(data)


class Timer:
    """Soft, as the ESP32's are: the callback runs when the program gives way."""

    ONE_SHOT = 0

    def __init__(self, number):
        self._task = None

    def init(self, *, mode, period, callback):
        async def work():
            await asyncio.sleep_ms(period)
            callback(self)

        self._task = asyncio.create_task(work())


def reset_cause():
    return _CAUSE


def reset():
    sys.exit(RESTART)
