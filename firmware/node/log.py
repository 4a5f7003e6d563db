"""The node's log: plain lines `HH:MM:SS level module text` on stdout, the last RING of them in memory.

Rule: bounded, and free of control characters, for a line may quote what a stranger sent.
"""

from node import clock

RING = 50
WIDTH = 200  # characters

_lines = [None] * RING
_next = 0


def info(module, text):
    """What a grower may want to know."""
    _write("info", module, text)


def warn(module, text):
    """What somebody should look at."""
    _write("warn", module, text)


def error(module, text):
    """What stops the node from doing its work."""
    _write("error", module, text)


def fault(module, what, e):
    """An exception that is survived. Never raises: there may be no memory for the words."""
    try:
        _write("error", module, "%s: %s: %s" % (what, type(e).__name__, e))
    except MemoryError:
        pass


def _write(level, module, text):
    global _next
    text = "".join([c if c >= " " and c != "\x7f" else "?" for c in text[:WIDTH]])
    line = "%s %s %s %s" % (clock.hhmmss(), level, module, text)
    _lines[_next] = line
    _next = (_next + 1) % RING
    try:
        print(line)
    except OSError:  # nobody reads: the node goes on
        pass


def recent():
    """The lines in memory, oldest first."""
    return [line for line in _lines[_next:] + _lines[:_next] if line is not None]
