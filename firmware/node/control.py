"""The thermostat of a greenhouse: one heater, one vent, one temperature.

Rule: pure. It imports neither machine nor network nor asyncio; readings and time come in as arguments, so the same
file runs on CPython, on the unix port and on the chip. Order of authority, highest first:

    hard limit > sensor fault > interlock (never heater and vent together) > minimum on and off times > demand

Only what a step adds to a counter is ever measured by the clock, and the counters stop at a ceiling. So nothing here
goes wrong when the tick counter wraps (2**30 ms), not even after a fault of weeks.
"""

from node import ticks

STALE_S = 60  # a reading older than this is no reading: heater off at once
TOO_HOT = 45.0  # deg C; above it the heater is off and the vent open, whatever anybody asked for
TOO_HOT_OVER = 43.0  # deg C; below it the hard limit lets go
DEAD_BAND = 1.0  # K between "heater off" and "vent open", so that the two never chase each other
MIN_TIMES = {"heater": (60, 180), "vent": (30, 30)}  # seconds (on, off): relays, burners and motors wear by switching
HEATER_MODES = ("auto", "off")
VENT_MODES = ("auto", "open", "closed")

_CEILING = ticks.PERIOD - 1  # ms; no counter grows beyond it


class Switch:
    """An output with a minimum on and a minimum off time (ms). It starts off, with the off time just begun."""

    def __init__(self, min_on_ms, min_off_ms):
        self.on = False
        self._min = (min_off_ms, min_on_ms)
        self._since = 0

    def tick(self, ms):
        self._since = min(_CEILING, self._since + ms)

    def force(self, on):
        """Set it now; the right of safety and of a person's plain order."""
        if on != self.on:
            self.on = on
            self._since = 0

    def ask(self, on):
        """Set it if the minimum time allows. Returns the ms still to wait: 0 if it is as asked."""
        wait = 0 if on == self.on else self._min[self.on] - self._since
        if wait > 0:
            return wait
        self.force(on)
        return 0


class Thermostat:
    """Holds `setpoint` (deg C) within `hysteresis` (K).

    Read after each `step`: heater.on, vent.on, temperature (deg C, None while unknown), reason (a sentence for the
    grower), faults (list of str), and the modes. `setpoint`, `heater_mode` and `vent_mode` may be set at any time by
    who has checked them; they are in force after the next step.
    """

    def __init__(self, now, setpoint, hysteresis=0.5, min_times=MIN_TIMES, vent_fail=False):
        """now: ticks; min_times: {"heater": (on_s, off_s), "vent": …}; vent_fail: vent open when the sensor is lost."""
        self.setpoint = setpoint
        self.hysteresis = hysteresis
        self.heater_mode = "auto"
        self.vent_mode = "auto"
        self.heater = Switch(int(min_times["heater"][0] * 1000), int(min_times["heater"][1] * 1000))
        self.vent = Switch(int(min_times["vent"][0] * 1000), int(min_times["vent"][1] * 1000))
        self.temperature = None
        self.reason = "starting"
        self.faults = []
        self._vent_fail = vent_fail
        self._hot = False
        self._last = now
        self._silent = 0  # ms since the last good reading

    def mode(self):
        """'auto', or what a person has taken over: 'heater off', 'vent open', 'heater off, vent closed', …"""
        said = []
        if self.heater_mode != "auto":
            said.append("heater " + self.heater_mode)
        if self.vent_mode != "auto":
            said.append("vent " + self.vent_mode)
        return ", ".join(said) or "auto"

    def step(self, now, value, quality="ok"):
        """One turn of the loop. value: deg C or None; quality: "ok" or what is wrong with the reading."""
        ms = max(0, ticks.diff(now, self._last))
        self._last = now
        self.heater.tick(ms)
        self.vent.tick(ms)
        self._read(ms, value, quality)
        self.faults = []
        if self._hot:
            self.faults.append("temperature: above %.0f" % TOO_HOT)
        if self.temperature is None:
            self.faults.append("temperature: silent")
        if self._hot:
            self._set(False, True)
            self.reason = "too hot: above %.0f, until below %.0f: heater off, vent open" % (TOO_HOT, TOO_HOT_OVER)
        elif self.temperature is None:
            self._set(False, self._vent_fail)
            self.reason = "heater off: sensor silent for %d s" % (self._silent // 1000)
        else:
            self._regulate(self.temperature)

    def _read(self, ms, value, quality):
        # `value == value` is false for NaN alone; the bounds keep infinity and nonsense out.
        if quality == "ok" and value is not None and value == value and -100 < value < 150:
            self._silent = 0
            self.temperature = value
            self._hot = value > TOO_HOT or (self._hot and value >= TOO_HOT_OVER)
            return
        self._silent = min(_CEILING, self._silent + ms)
        if self._silent > STALE_S * 1000:
            self.temperature = None

    def _set(self, heater, vent):
        self.heater.force(heater)
        self.vent.force(vent)

    def _regulate(self, t):
        """Demand, minimum times and interlock, for a reading that holds."""
        s = self.setpoint
        h = self.hysteresis
        if self.vent_mode == "auto":
            vent = t > s + h + DEAD_BAND or (self.vent.on and t > s + h)
            vent_wait = self.vent.ask(vent)
        else:
            vent = self.vent_mode == "open"
            vent_wait = 0
            self.vent.force(vent)
        heat = self.heater_mode == "auto" and (t < s - h or (self.heater.on and t < s + h))
        if self.vent.on or self.heater_mode == "off":
            heater_wait = 0
            self.heater.force(False)
        else:
            heater_wait = self.heater.ask(heat)
        self.reason = self._explain(t, heat, vent, heater_wait, vent_wait)

    def _explain(self, t, heat, vent, heater_wait, vent_wait):
        s = self.setpoint
        h = self.hysteresis
        if self.vent.on:
            if heat and vent_wait:
                return "heat wanted: %.1f < %.1f - %.1f; vent closes in %d s" % (t, s, h, _s(vent_wait))
            if self.vent_mode == "open":
                return "heater off: vent is open by order" if heat else "venting: by order"
            if vent_wait:
                return "venting: %.1f; vent closes in %d s" % (t, _s(vent_wait))
            if t > s + h + DEAD_BAND:
                return "venting: %.1f > %.1f + %.1f" % (t, s, h + DEAD_BAND)
            return "venting: %.1f, until %.1f" % (t, s + h)
        if self.heater.on:
            if not heat:
                return "heating: %.1f; heater off in %d s" % (t, _s(heater_wait))
            if t < s - h:
                return "heating: %.1f < %.1f - %.1f" % (t, s, h)
            return "heating: %.1f, until %.1f" % (t, s + h)
        if heat:
            return "heat wanted: %.1f < %.1f - %.1f; heater rests %d s more" % (t, s, h, _s(heater_wait))
        if vent:
            return "venting wanted: %.1f > %.1f + %.1f; vent rests %d s more" % (t, s, h + DEAD_BAND, _s(vent_wait))
        if self.heater_mode == "off" and t < s - h:
            return "heater off: by order; %.1f < %.1f - %.1f" % (t, s, h)
        if t > s + h + DEAD_BAND:
            return "too warm: %.1f > %.1f + %.1f; vent is closed by order" % (t, s, h + DEAD_BAND)
        return "holding: %.1f, set point %.1f" % (t, s)


def _s(ms):
    return (ms + 999) // 1000
