"""One output: how long it must stay, how long and how often it may be on, and what a person ordered.

Rule: pure. Only what a turn of the loop adds is ever measured by the clock, and the counters stop at a ceiling: nothing
here goes wrong when the tick counter wraps (2**30 ms), not even after a fault of weeks.
"""

from array import array

from node import ticks

NAMES = ("heater", "vent", "fan", "irrigation", "light")
# Seconds: on at least, off at least (relays, burners and motors wear by switching), on at most (0: no bound).
TIMES = ((60, 180, 5400), (30, 30, 0), (30, 30, 0), (10, 300, 600), (60, 60, 0))
# The modes of each; the last is the one in which it is off.
MODES = (("auto", "off"), ("auto", "open", "closed")) + 3 * (("auto", "on", "off"),)
HOUR_S = 3600
KEPT = ("on", "mode", "since", "left", "run_s", "starts")  # what a reset must not forget

_CEILING = ticks.PERIOD - 1  # ms; no counter grows beyond it


class Output:
    """It starts off, with the minimum off time just begun. One that the board does not have (`here`) never comes on."""

    def __init__(self, number, table, starts_h):
        """number: of NAMES; table: the board's, whose min_on_s, min_off_s and max_on_s go before TIMES, None if it has
        no such output; starts_h: how often it may be switched on in any hour."""
        self.name = NAMES[number]
        self.modes = MODES[number]
        self.here = table is not None
        self.on = False
        self.mode = 0  # what a person ordered, an index of `modes`; 0: nothing
        self.wanted = False  # by whoever may demand it
        self.blocked = None  # the partner in an interlock that keeps it off
        self.wait = 0  # ms that its own times keep it from what is wanted
        self.run_s = 0  # seconds on
        self.starts = 0  # times switched on
        self.left = 0  # ms until an order ends by itself; 0: it does not
        self.since = 0  # ms since it switched
        self._age = HOUR_S  # seconds this object has seen, and an hour
        self._ms = 0  # what is not yet a second of it
        on, off, most = TIMES[number]
        table = table or {}
        self._min = int(table.get("min_off_s", off) * 1000), int(table.get("min_on_s", on) * 1000)
        self.most = int(table.get("max_on_s", most) * 1000)
        # When it was last switched on, as often as it may be in an hour.
        self._begun = array("i", [0] * (starts_h if self.here else 1))

    def tick(self, ms):
        """`ms` have passed."""
        self.since = min(_CEILING, self.since + ms)
        self._ms += ms
        s = self._ms // 1000
        self._ms -= s * 1000
        self._age += s
        if self.on:
            self.run_s += s
        if self.left and (self.on or self.off()):  # what has to wait for its times does not lose time by it
            self.left -= ms
            if self.left <= 0:
                self.order(0)

    def order(self, mode, for_s=0):
        """What a person wants, an index of `modes`; after `for_s` seconds of it, it is 0 again (0: it stays)."""
        self.mode = mode
        self.left = for_s * 1000

    def off(self):
        """Whether a person ordered it off."""
        return self.mode == len(self.modes) - 1

    def spent(self):
        """Whether it has been on for as long as it may be."""
        return self.on and 0 < self.most <= self.since

    def force(self, on):
        """Set it now, the right of safety."""
        self.wait = 0
        if on != self.on and self.here:
            self.on = on
            self.since = 0
            if on:
                self._begun[self.starts % len(self._begun)] = self._age
                self.starts += 1

    def ask(self, on):
        """Set it if its times allow; else `wait` says how long it takes."""
        wait = 0
        if on != self.on:
            wait = self._min[self.on] - self.since
            if on:  # the oldest of the last starts must be an hour ago
                wait = max(wait, (self._begun[self.starts % len(self._begun)] + HOUR_S - self._age) * 1000)
        if wait <= 0:
            self.force(on)
        else:
            self.wait = wait

    def starts_h(self):
        """How often it was switched on in the last hour."""
        return sum([self._age - begun < HOUR_S for begun in self._begun])

    def revive(self):
        """KEPT was set to what it was before a reset, which switched this off: what was on has rested 0 s."""
        if self.on:
            self.on = False
            self.since = 0
        if self.most and not self.off():  # what may be on for a time only does not come on again by itself
            self.order(0)
