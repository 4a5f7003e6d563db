"""A day in entries: "06:00 18, 20:00 14.5", or for a lamp "05:00 on, 08:30 off".

Rule: pure. Needed at the start only, so it does not stay in memory; which entry is in force is control.py's matter.
"""

MAX_ENTRIES = 12


def parse(text):
    """[(minute of the day, value), …] in the order of the day. Raises ValueError with what is wrong."""
    out = {}
    parts = text.split(",")
    try:
        for part in parts:
            at, word = part.split()
            hour, minute = [int(n) for n in at.split(":")]
            if 0 <= hour < 24 and 0 <= minute < 60:
                out[hour * 60 + minute] = (word == "on") * 1.0 if word[0] == "o" else float(word)
        if len(out) == len(parts) <= MAX_ENTRIES:
            return sorted(out.items())
    except ValueError:
        pass
    raise ValueError('not like "06:00 18, 20:00 14.5", %d entries at most' % MAX_ENTRIES)
