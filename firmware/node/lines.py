"""Lines of text in one block of bytes: a new one at the end, and the oldest give way.

Rule: pure; nothing larger than a line is ever allocated, however long the node lives.
"""


def push(b, at, end, line):
    """Put `line` (bytes, shorter than the room) and a newline behind the lines in b[at:end]. Returns (the new end, how
    many lines gave way)."""
    lost = 0
    over = end + len(line) + 1 - len(b)
    if over > 0:
        cut = at
        while cut < at + over or b[cut - 1] != 10:
            lost += b[cut] == 10
            cut += 1
        view = memoryview(b)
        view[at : at + end - cut] = view[cut:end]
        end -= cut - at
    b[end : end + len(line)] = line
    end += len(line)
    b[end] = 10
    return end + 1, lost


def pull(b, at):
    """(line, where the next one begins) of the line that begins at `at`."""
    end = at
    while b[end] != 10:
        end += 1
    return bytes(b[at:end]).decode(), end + 1
