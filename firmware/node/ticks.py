"""Milliseconds that wrap, and the arithmetic that survives it.

Rule: no module compares two tick values with < or subtracts them with -; `diff` alone knows that the counter of the
chip returns to 0 after 2**30 ms (12.4 days).
"""

PERIOD = 1 << 30
_HALF = PERIOD >> 1


def diff(later, earlier):
    """`later - earlier` in ms (negative if reversed), right for two less than 2**29 ms (6.2 days) apart."""
    return ((later - earlier + _HALF) & (PERIOD - 1)) - _HALF


def add(ticks, ms):
    """`ms` milliseconds after `ticks` (before it, if negative), wrapped."""
    return (ticks + ms) & (PERIOD - 1)
