"""`machine` of an ESP32 on a virtual board: pins, RTC, watchdog, resets; buses with nothing on them.

Rule: no logic of its own. Levels, memory and time are the board's, which outlives the interpreter.
"""

import utime as _time
from _chip import ask as _ask
from _chip import state as _state
from _chip import tell as _tell

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
PIN_WAKE, EXT0_WAKE, EXT1_WAKE, TIMER_WAKE, TOUCHPAD_WAKE, ULP_WAKE = 2, 2, 3, 4, 5, 6
RTC_MEMORY = 2048


def reset_cause():
    return _state["cause"]


def wake_reason():
    return TIMER_WAKE if _state["cause"] == DEEPSLEEP_RESET else 0


def unique_id():
    return bytes(_state["mac"])


_freq = 160000000


def freq(hz=None):
    global _freq
    if hz is None:
        return _freq
    _freq = hz


def reset():
    _ask("reset")


def bootloader():
    _ask("bootloader")


def soft_reset():
    raise SystemExit


def deepsleep(ms=0):
    _ask("sleep", ms)


def lightsleep(ms=0):
    _time.sleep_ms(ms)


def disable_irq():
    return 0


def enable_irq(was):
    pass


class Pin:
    IN, OUT, OPEN_DRAIN = 1, 3, 7
    PULL_DOWN, PULL_UP = 1, 2
    IRQ_RISING, IRQ_FALLING, WAKE_LOW, WAKE_HIGH = 1, 2, 4, 5
    DRIVE_0, DRIVE_1, DRIVE_2, DRIVE_3 = 0, 1, 2, 3

    def __init__(self, id, mode=-1, pull=-1, *, value=None, drive=None, hold=None):
        if not isinstance(id, int) or not 0 <= id <= 48:
            raise ValueError("invalid pin")
        self._id = id
        self._mode = self.IN
        self.init(mode, pull, value=value, drive=drive, hold=hold)

    def init(self, mode=-1, pull=-1, *, value=None, drive=None, hold=None):
        if value is not None:
            _tell("pin", self._id, int(bool(value)))
        if mode is not None and mode != -1:
            self._mode = mode
            _tell("mode", self._id, mode)

    def value(self, x=None):
        if x is None:
            return _ask("level", self._id)
        _tell("pin", self._id, int(bool(x)))

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def toggle(self):
        self.value(1 - self.value())

    def irq(self, handler=None, trigger=3, wake=None):
        return None

    def __repr__(self):
        return f"Pin({self._id})"


class ADC:
    ATTN_0DB, ATTN_2_5DB, ATTN_6DB, ATTN_11DB = 0, 1, 2, 3
    WIDTH_9BIT, WIDTH_10BIT, WIDTH_11BIT, WIDTH_12BIT = 9, 10, 11, 12

    def __init__(self, pin, atten=0):
        self._id = pin._id if isinstance(pin, Pin) else pin

    def atten(self, a):
        pass

    def width(self, w):
        pass

    def read_uv(self):
        return _ask("uv", self._id)

    def read_u16(self):
        return min(65535, self.read_uv() * 65535 // 3300000)

    def read(self):
        return self.read_u16() >> 4


class SoftI2C:
    """A bus with nobody on it: every address is without an acknowledge (ENODEV)."""

    def __init__(self, *args, **kw):
        pass

    init = __init__

    def scan(self):
        return []

    def _nobody(self, *args, **kw):
        raise OSError(19)

    readfrom = readfrom_into = writeto = writevto = _nobody
    readfrom_mem = readfrom_mem_into = writeto_mem = _nobody


I2C = SoftI2C


class UART:
    """Open ends: nothing comes, and what is sent is lost."""

    def __init__(self, *args, **kw):
        pass

    init = __init__

    def any(self):
        return 0

    def read(self, *n):
        return None

    readline = readinto = read

    def write(self, data):
        return len(data)

    def deinit(self):
        pass


class PWM:
    def __init__(self, pin, **kw):
        self._pin = pin
        self.init(**kw)

    def init(self, freq=None, duty_u16=None, duty=None):
        if duty_u16 is not None:
            self.duty_u16(duty_u16)
        elif duty is not None:
            self.duty(duty)

    def freq(self, f=None):
        return 1000

    def duty(self, d):
        self._pin.value(d >= 512)

    def duty_u16(self, d):
        self._pin.value(d >= 32768)

    def deinit(self):
        pass


class Timer:
    """Soft, as the ESP32's are: the callback runs when the program gives way, here to its event loop."""

    ONE_SHOT, PERIODIC = 0, 1

    def __init__(self, id):
        self._task = None

    def init(self, *, mode, period, callback):
        import asyncio

        async def work():
            while True:
                await asyncio.sleep_ms(period)
                callback(self)
                if mode == self.ONE_SHOT:
                    return

        self.deinit()
        self._task = asyncio.create_task(work())

    def deinit(self):
        if self._task is not None:
            self._task.cancel()
            self._task = None


def bitstream(pin, encoding, timing, data):
    pass


class RTC:
    """The clock and the memory that a reset leaves alone."""

    def __init__(self, id=0):
        pass

    def datetime(self, t=None):
        import time

        if t is None:
            y, mo, d, h, mi, s, wd, _ = time.gmtime()
            return (y, mo, d, wd, h, mi, s, time.time_ns() // 1000 % 1000000)
        seconds = time.mktime((t[0], t[1], t[2], t[4], t[5], t[6], 0, 0))
        _state["clock"] = _time.time() - seconds
        _tell("clock", _state["clock"])

    def init(self, t):
        self.datetime(t)

    def memory(self, data=None):
        if data is None:
            return bytes.fromhex(_ask("memory"))
        if len(data) > RTC_MEMORY:
            raise ValueError("buffer too long")
        _tell("remember", bytes(data).hex() or "-")


class WDT:
    """It bites: the board kills the interpreter and boots, if it is not fed in time. It cannot be stopped."""

    def __init__(self, id=0, timeout=5000):
        if timeout <= 0:
            raise ValueError("WDT timeout too short")
        _tell("watchdog", timeout)

    def feed(self):
        _tell("feed")
