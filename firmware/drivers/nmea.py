"""A GPS receiver on a serial line: NMEA 0183 sentences RMC and GGA, of any constellation.

Rule: pure; bytes and time come in by `feed`. A sentence counts only whole, with the right checksum (XOR of what lies
between `$` and `*`); a fix that the receiver calls void is none, and none is younger than its sentence.
"""

from node import ticks

MAX_SENTENCE = 82  # characters, `$` to the end of the line (NMEA 0183)
OLD_MS = 5000  # a fix that was not repeated for so long is stale
_KNOT = 1.852  # km/h


class Nmea:
    """Read `fix(now)`: (latitude, longitude, km/h, course, satellites, quality), degrees WGS 84, None while unknown.

    then: ticks of the last fix.
    """

    def __init__(self):
        self._line = bytearray()
        self._skip = True  # up to the next `$`
        self._place = None  # latitude, longitude
        self._speed = self._course = self._satellites = None
        self.then = 0
        self.bad = 0  # sentences refused

    def feed(self, data, now):
        """Bytes as they come from the line, at `now` (ticks)."""
        for b in data:
            if b == 0x24:  # $
                if self._line:
                    self.bad += 1  # one that never ended
                self._line = bytearray()
                self._skip = False
            elif self._skip:
                continue
            elif b == 10 or b == 13:
                if self._line and not self._sentence(bytes(self._line), now):
                    self.bad += 1
                self._line = bytearray()
                self._skip = True
            elif len(self._line) >= MAX_SENTENCE:
                self.bad += 1
                self._line = bytearray()
                self._skip = True
            else:
                self._line.append(b)

    def fix(self, now):
        """The last fix; its quality is "missing" without one, "stale" after OLD_MS."""
        if self._place is None:
            return None, None, None, None, self._satellites, "missing"
        if not 0 <= ticks.diff(now, self.then) <= OLD_MS:
            self._place = None
            return None, None, None, None, self._satellites, "stale"
        return self._place[0], self._place[1], self._speed, self._course, self._satellites, "ok"

    def _sentence(self, line, now):
        """Whether it could be used, or was none of ours."""
        body, star, code = line.partition(b"*")
        total = 0
        for b in body:
            total ^= b
        try:
            if not star or len(code) != 2 or int(code, 16) != total:
                return False
            field = body.decode().split(",")
            if field[0][2:] == "RMC":
                return self._rmc(field, now)
            if field[0][2:] == "GGA" and len(field) > 7 and field[7]:
                self._satellites = int(field[7])
            return True
        except (ValueError, UnicodeError):
            return False

    def _rmc(self, field, now):
        # $--RMC,time,status,lat,N/S,lon,E/W,knots,course,date,...
        if len(field) < 10:
            return False
        if field[2] != "A":
            self._place = None
            return True
        place = (_degrees(field[3], 2, field[4], "NS", 90), _degrees(field[5], 3, field[6], "EW", 180))
        speed = float(field[7]) * _KNOT if field[7] else None
        if speed is not None and not 0 <= speed < 1000:
            return False
        self._place, self._speed, self.then = place, speed, now
        self._course = float(field[8]) if field[8] else None
        return True


def _degrees(text, whole, side, sides, limit):
    """Degrees of `ddmm.mmmm` with `whole` digits of degrees. Raises ValueError."""
    minutes = float(text[whole:])
    value = int(text[:whole]) + minutes / 60
    if not 0 <= minutes < 60 or value > limit or len(side) != 1 or side not in sides:
        raise ValueError("no place")
    return -value if side == sides[1] else value


class Chip:
    """The receiver as node/sensing.py asks for it."""

    QUANTITIES = ("latitude", "longitude", "speed", "course", "satellites")
    EVERY_MS = 100

    def __init__(self, line):
        self._line = line
        self._nmea = Nmea()
        self._told = None  # ticks of the last fix that was given out

    def start(self, fresh, now):
        return 0

    def read(self, now):
        """Each fix once; the first word without one after OLD_MS."""
        self._nmea.feed(self._line.read(), now)
        found = self._nmea.fix(now)
        if found[5] != "ok":
            self._told = None
            return found[5]
        if self._told == self._nmea.then:
            return (None, None, None, None, None)
        self._told = self._nmea.then
        return found[:5]


def open(spec, hw):
    return Chip(hw.bus(spec["bus"]))
