"""`time` of an ESP32: it counts from 2000-01-01, and begins there at power-up, until somebody sets the clock."""

import utime as _utime
from _chip import state as _state
from utime import *

_EPOCH = 946684800  # 2000-01-01 in seconds of Unix


def time():
    return int(_utime.time() - _state["clock"])


def time_ns():
    return _utime.time_ns() - int(_state["clock"] * 1_000_000_000)


def gmtime(secs=None):
    return _utime.gmtime((time() if secs is None else secs) + _EPOCH)[:8]


localtime = gmtime


def mktime(t):
    days = 0
    year, month, day, hour, minute, second = t[:6]
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    # Days of the civil calendar since 2000-03-01, shifted to begin on 2000-01-01
    y = year - (month <= 2) - 2000
    days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 1 + 60
    return ((days * 24 + hour) * 60 + minute) * 60 + second
