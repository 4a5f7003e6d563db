"""Readings as control and reports need them: when each chip is asked, what its answers are worth, and how old they are.

Rule: pure; nothing sleeps and nothing raises. What a driver of a sensor is:

    QUANTITIES        what it measures, in the order of its answers
    EVERY_MS          from one measurement to the next
    start(fresh, now) begins one, returns the ms until its answer; `fresh`: the chip was away, or was never asked before
    read(now)         a tuple of values (in place of one may stand a word of quality, or None: nothing new); a word that
                      is the quality of them all; or None: not ready, ask again
    both              raise OSError when nobody answers

The words of quality: ok, stale, range, crc, stuck, missing. A reading is of use to control only if it is ok.
"""

from node import ticks

STALE_MS = 30000  # a good reading older than this is stale
OLD_MS = 3600000  # beyond it, the age of a reading is not told
GIVE_UP_MS = 15000  # a chip that is not ready for so long is missing
RECOVER = 3  # each so many failures in a row, the bus is freed
RATE = 3 / 60000  # K a ms: air in a house changes no faster
RATE_MS = 60000  # what insists for so long is true, however fast it came


class Probe:
    """One quantity of one chip. `limited`: spikes are cut and changes slowed (temperature)."""

    def __init__(self, limited):
        self._limited = limited
        self.quality = "missing"
        self._recent = []  # the last three good ones; the last of all is the raw value
        self._value = None  # filtered
        self._at = 0  # ticks of the last good one
        self._lag = 0  # ms for which the filtered value has lagged

    def feed(self, now, value):
        """A reading: a number, or a word of quality."""
        if not isinstance(value, str) and not -1e9 < value < 1e9:  # NaN is not either
            value = "range"
        if isinstance(value, str):
            self.quality = value
            return
        ms = ticks.diff(now, self._at)
        if not 0 <= ms <= STALE_MS:
            self._recent = []
        recent = self._recent = self._recent[-2:] + [value]
        self._at = now
        self.quality = "ok"
        if not self._limited:
            self._value = value
            return
        median = sorted(recent)[len(recent) // 2]
        step = RATE * ms
        if len(recent) == 1 or abs(median - self._value) <= step:
            self._lag = 0
        else:
            self._lag += ms
            if self._lag <= RATE_MS:
                median = self._value + (step if median > self._value else -step)
        self._value = median

    def read(self, now):
        """(value, quality); the value None unless ok or stale."""
        value = self._told(now, self._value)
        return value, self.quality

    def age(self, now):
        """ms since the last good one."""
        return ticks.diff(now, self._at)

    def told(self, now):
        """[value as measured, quality, seconds since the last good one or None]."""
        value = self._told(now, self._recent[-1] if self._recent else None)
        return [value, self.quality, self.age(now) // 1000 if self._recent else None]

    def _told(self, now, value):
        ms = ticks.diff(now, self._at)
        if self.quality == "ok" and not 0 <= ms <= STALE_MS:
            self.quality = "stale"
        if not 0 <= ms <= OLD_MS:
            self._recent = []
        return value if self.quality in ("ok", "stale") else None


class Unit:
    """A chip, the probes of its quantities, and where its measurement stands. bus: freed when it hangs; or None."""

    def __init__(self, chip, probes, bus, now):
        self.chip = chip
        self.probes = probes
        self._bus = bus
        self._fresh = True
        self._began = ticks.add(now, -chip.EVERY_MS)
        self._wait = None  # ms from the beginning to the answer; None: nothing under way
        self._failures = 0

    def turn(self, now):
        """What is due now: the beginning of a measurement, or its answer."""
        passed = ticks.diff(now, self._began)
        try:
            if self._wait is None:
                if 0 <= passed < self.chip.EVERY_MS:
                    return
                self._began = now
                passed = 0
                self._wait = self.chip.start(self._fresh, now)
            if passed >= self._wait:
                found = self.chip.read(now)
                if found is not None:
                    self._done(now, found)
                elif passed > GIVE_UP_MS:
                    raise OSError(110)  # ETIMEDOUT
        except OSError:
            self._done(now, "missing")
            self._failures += 1
            self._fresh = True
            if self._bus and self._failures % RECOVER == 0:
                self._bus.recover()
        else:
            if self._wait is None:
                self._failures = 0
                self._fresh = False

    def _done(self, now, found):
        self._wait = None
        for i in range(len(self.probes)):
            value = found if isinstance(found, str) else found[i]
            if value is not None:
                self.probes[i].feed(now, value)
