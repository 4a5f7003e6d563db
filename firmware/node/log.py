"""The node's log: plain lines `HH:MM:SS level module text` on stdout, the last of them in memory for the gateway.

Rule: bounded, and free of control characters, for a line may quote what a stranger sent.
"""

from node import clock, lines

RING = 2048  # bytes
WIDTH = 200  # characters

LEVELS = ("info", "warn", "error")

level = None  # from this level on, lines go to the gateway; None: not known yet
keep = None  # function (line): the black box of the node
_ring = bytearray(RING)
_end = 0  # of the lines in it
_first = 0  # the number of the first of them
_count = 0  # of all lines since the start that may be for the gateway


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
    global _count, _end, _first
    line = "%s %s %s %s" % (clock.hhmmss(), word, module, _clean(text[:WIDTH]))
    if wanted(word):
        _end, lost = lines.push(_ring, 0, _end, line.encode())
        _first += lost
        _count += 1
    if keep is not None:
        keep(line)
    try:
        print(line)
    except OSError:  # nobody reads: the node goes on
        pass


def wanted(word):
    """Whether lines of this level are for the gateway; all of them, before the configuration has told."""
    return level is None or (level in LEVELS and word in LEVELS[LEVELS.index(level) :])


def count():
    """How many lines for the gateway were written since the start."""
    return _count


def after(n):
    """(n', line): the first line after the first `n` that is for the gateway, and how many are done with then."""
    at = 0
    i = _first
    while i < _count:
        line, at = lines.pull(_ring, at)
        i += 1
        if i > n and wanted(line.split(" ", 2)[1]):
            return i, line
    return _count, None
