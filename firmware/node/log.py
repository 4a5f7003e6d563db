"""The node's log: plain lines `HH:MM:SS level module text` on stdout, the last RING of them in memory.

Rule: bounded, and free of control characters, for a line may quote what a stranger sent.
"""

from node import clock

RING = 50
WIDTH = 200  # characters

LEVELS = ("info", "warn", "error")

level = "warn"  # from this level on, lines go to the gateway
keep = None  # function (line): the black box of the node
_lines = [None] * RING
_count = 0  # of all lines since the start


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


def _clean(text):
    """`text` without control characters. One look at what needs nothing: a list of 200 characters is a large block."""
    for c in text:
        if c < " " or c == "\x7f":
            return "".join([c if c >= " " and c != "\x7f" else "?" for c in text])
    return text


def _write(word, module, text):
    """Never raises for want of memory: a line that is lost must not end the control that wrote it."""
    try:
        _tell(word, module, text)
    except MemoryError:
        pass


def _tell(word, module, text):
    global _count
    line = "%s %s %s %s" % (clock.hhmmss(), word, module, _clean(text[:WIDTH]))
    _lines[_count % RING] = line
    _count += 1
    if keep is not None:
        keep(line)
    try:
        print(line)
    except OSError:  # nobody reads: the node goes on
        pass


def recent():
    """The lines in memory, oldest first."""
    return [_lines[i % RING] for i in range(max(0, _count - RING), _count)]


def count():
    """How many lines were written since the start."""
    return _count


def after(n):
    """(n', line): the first line after the first `n` that is for the gateway, and how many are done with then."""
    n = max(n, _count - RING)
    while n < _count:
        line = _lines[n % RING]
        n += 1
        if level in LEVELS and line.split(" ", 2)[1] in LEVELS[LEVELS.index(level) :]:
            return n, line
    return n, None
