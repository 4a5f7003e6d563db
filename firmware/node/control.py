"""The climate of a greenhouse: which of its outputs are on, and why.

Rule: pure. It imports neither machine nor network nor asyncio; readings and time come in as arguments, so the same
file runs on CPython, on the unix port and on the chip. Order of authority, highest first:

    hard limit > sensor fault > the switch at the node > interlock > minimum and maximum times > demand

Demand is what a person ordered, else what set point, schedule and soil ask for. A person's "off" is obeyed at once,
"on" waits for the times. A step allocates next to nothing: sentences are made when they are asked for.
"""

import struct

from node import ticks
from node.actuator import KEPT, NAMES, Output

SETPOINT = "UpdateTemperature"  # what orders a set point; other orders have the name of their output

STALE_MS = 60000  # a reading older than this is no reading: heater off at once
BAD_IN_A_ROW = 5  # readings; then no heating begins until there is a good one
COLDEST = -50  # deg C; what lies below is no reading
HOTTEST = 100  # nor what lies above
TOO_HOT = 45  # deg C; above it heater off, vent open and fan on, whatever anybody asked for
TOO_HOT_OVER = 43  # deg C; below it the hard limit lets go
FROST = 2  # deg C; below it there is an alarm
FROST_OVER = 3  # deg C; above it the alarm is over
RISE = 0.5  # K that heating must achieve within the heater's maximum time, else it has no effect
SOAK = 5  # % of soil moisture between "water" and "enough"

# Who may be on only while another is on (True) or off (False). What the board does not have forbids nothing; a tank
# whose sensor cannot be read is empty.
INTERLOCKS = (("heater", "vent", False), ("heater", "fan", True), ("irrigation", "tank", True))

# What can be wrong: the texts of `faults`; up to the colon they are the ids of the events. Each is a bit of a mask.
ALARMS = (
    "overheat: above %d, so heater off and vent open" % TOO_HOT,
    "frost: below %d" % FROST,
    "sensor: silent",
    "heater: no effect",
    "tank: empty",
    "switch: off at the node",
)
_HOT, _FROST, _SENSOR, _HEATER, _TANK, _SWITCH = [1 << _i for _i in range(6)]

WARM_UP, FRESH, COASTING, FAULT = range(4)  # the temperature: none yet, good, a few bad ones, none for STALE_MS

# Of `Climate.held`, beside a minute of the day.
NOTHING = -1
UNTIL_NEXT = -2

_FORMAT = "<BhI" + len(NAMES) * "BBIIII"  # version, the hopeless temperature in 1/100 K (0: none), ms heated; KEPT
_VERSION = 1
_CEILING = ticks.PERIOD - 1  # ms; no counter grows beyond it


class Climate:
    """Holds `setpoint` (deg C) within the hysteresis (K), and moves whatever else the board has.

    Read after each `step`:
    setpoint    the one in force, and `by`, who says so: "order", "schedule" or "fallback"
    temperature deg C, None while unknown
    outputs     a tuple of Output; heater, vent, fan, irrigation, light
    faults      texts of ALARMS
    events      [(id, text, begins), …] of this step
    reason      a sentence for the grower
    held        goes with a stored set point: the minute of the schedule's entry that it replaces; NOTHING if the
                schedule rules; UNTIL_NEXT while the clock is unknown
    Write `online`: whether the gateway is there.
    """

    def __init__(self, now, setpoint, settings, outputs, held=NOTHING, day=None, lamp=None):
        """now: ticks; settings: the table `control` of node.json, checked; outputs: the board's, {name: table}; day and
        lamp: the schedules of set point and light, as node/schedule.py reads them."""
        self.outputs = tuple([Output(i, outputs.get(name), settings["starts_h"]) for i, name in enumerate(NAMES)])
        self.heater, self.vent, self.fan, self.irrigation, self.light = self.outputs
        self.setpoint = self._ordered = setpoint
        self.by = "order"
        self.held = held
        self.temperature = None
        self.faults = []
        self.events = []
        self.online = True
        self._settings = settings
        self._day = day
        self._lamp = lamp
        self._last = now
        self._state = WARM_UP
        self._bad = 0  # readings in a row
        self._silent = 0  # ms since the last good reading
        self._alarms = 0  # as they are
        self._told = 0  # as they were at the last step
        self._heated = 0  # ms of heating since it last had an effect
        self._low = 0  # deg C, the lowest since then
        self._hopeless = None  # deg C at which heating had no effect; no heating before that has changed
        self._alone = 0  # ms without the gateway
        self._diary = None  # (heater's seconds before, lowest temperature) of a long time alone

    def order(self, name, value, for_s=0):
        """Another set point (until the schedule's next entry), or, where `name` is that of an output, another mode, for
        a time or for good. In force after the next step. Returns None, or why not."""
        if name not in NAMES:
            self.setpoint = self._ordered = value
            self.by = "order"
            self.held = UNTIL_NEXT if self._day else NOTHING
            return None
        o = self.outputs[NAMES.index(name)]
        if not o.here:
            return "unknown: this board has no " + name
        if self._alarms & _SWITCH:
            return "busy: " + ALARMS[5]
        o.order(o.modes.index(value), for_s)
        if o is self.heater:
            self._hopeless = None
        return None

    def ordered(self, name, value, for_s):
        """Whether an order would change nothing."""
        if name not in NAMES:
            return self.by == "order" and self.setpoint == value
        o = self.outputs[NAMES.index(name)]
        return not for_s and o.modes[o.mode] == value

    def pattern(self):
        """A number that changes with what is on and with what was ordered."""
        n = 0
        for o in self.outputs:
            n = n * 8 + o.mode * 2 + o.on
        return n

    def mode(self):
        """'auto', or what a person has taken over: 'heater off', 'vent open', 'heater off, vent closed', …"""
        return ", ".join(["%s %s" % (o.name, o.modes[o.mode]) for o in self.outputs if o.mode]) or "auto"

    # -- a step ------------------------------------------------------------------------------------------------------

    def step(self, now, readings, minute=None):
        """One turn of the loop. readings: {name: (value, quality) or (value, quality, age in ms)}; minute: of the local
        day, None while unknown."""
        ms = max(0, ticks.diff(now, self._last))
        self._last = now
        if self.events:
            self.events = []
        for o in self.outputs:
            o.tick(ms)
        self._read(ms, readings["temperature"])
        self._choose(ms, minute)
        self._effect(ms)
        self._alarm(_SWITCH, _value(readings, "override", 0) >= 0.5)
        self._alarm(_TANK, "tank" in readings and _value(readings, "tank", 0) < 0.5)
        self._air()
        soil = _value(readings, "soil", 100)
        self._drive(self.irrigation, soil < self._settings["water_below"] + (SOAK if self.irrigation.on else 0))
        lamp = self._lamp and minute is not None and _entry(self._lamp, minute)[1] > 0
        self._drive(self.light, bool(lamp))
        if self._alarms != self._told:
            self._tell()

    def _alarm(self, bit, on):
        self._alarms = self._alarms | bit if on else self._alarms & ~bit

    def _read(self, ms, reading):
        t = reading[0] if reading[1] == "ok" else None
        age = reading[2] if len(reading) > 2 else 0
        # Every comparison with NaN is false.
        if t is not None and COLDEST < t < HOTTEST and age <= STALE_MS:
            self._bad = 0
            self._silent = age
            self._state = FRESH
            self.temperature = t
            self._alarm(_HOT, t > TOO_HOT or (self._alarms & _HOT and t >= TOO_HOT_OVER))
            self._alarm(_FROST, t < FROST or (self._alarms & _FROST and t <= FROST_OVER))
        else:
            self._bad += 1
            self._silent = min(_CEILING, self._silent + ms)
            if self._silent > STALE_MS:
                self._state = FAULT
                self.temperature = None
            elif self._state == FRESH and self._bad >= BAD_IN_A_ROW:
                self._state = COASTING
        self._alarm(_SENSOR, self._state == FAULT)

    def _choose(self, ms, minute):
        """The set point in force. A schedule needs no gateway, but a clock."""
        fallback = self._settings["fallback"]
        if self.online:
            if self._diary:
                self._report()
            self._alone = 0
        else:
            self._alone = min(_CEILING, self._alone + ms)
        alone = self._alone >= self._settings["fallback_after_s"] * 1000
        t = self.temperature
        if alone and t is not None and (self._diary is None or t < self._diary[1]):
            self._diary = (self._diary[0] if self._diary else self.heater.run_s, t)
        if self._day and minute is not None:
            entry = _entry(self._day, minute)
            if self.held == UNTIL_NEXT:
                self.held = entry[0]
            if self.held != entry[0]:
                self.held = NOTHING
                self.setpoint = entry[1]
                self.by = "schedule"
                return
        elif (alone and fallback is not None) or (self._day and self.held != UNTIL_NEXT):
            self.setpoint = self._settings["setpoint"] if fallback is None else fallback
            self.by = "fallback"
            return
        self.setpoint = self._ordered
        self.by = "order"

    def _report(self):
        """What happened in a long time without the gateway."""
        text = "without gateway for %d min: set point %.1f, lowest %.1f, heater on for %d min" % (
            self._alone // 60000,
            self.setpoint,
            self._diary[1],
            (self.heater.run_s - self._diary[0]) // 60,
        )
        self.events.append(("alone", text, False))
        self._diary = None

    def _effect(self, ms):
        """Whether heating warms. It may go on for its maximum time only if the house gets warmer by RISE meanwhile."""
        t = self.temperature
        if t is None:
            return
        if self._hopeless is not None and abs(t - self._hopeless) >= RISE:
            self._hopeless = None
        if self.heater.on:
            self._heated += ms
        if t < self._low or not self.heater.on:
            self._low = t
        if t >= (self._low + RISE if self.heater.on else self.setpoint - self._settings["hysteresis"]):
            self._heated = 0
            self._low = t
            self._alarm(_HEATER, False)
        elif 0 < self.heater.most <= self._heated:
            self._alarm(_HEATER, True)
            self._heated = 0
            self._hopeless = t

    def _air(self):
        """Vent, fan and heater."""
        s = self.setpoint
        h = self._settings["hysteresis"]
        t = self.temperature
        vent = self.vent.on
        heat = False
        if self._state == FRESH:
            vent = t > s + h + (0 if vent else self._settings["dead_band"])
            heat = t < s + (h if self.heater.on else -h)
        if self._alarms & _HOT:
            self.heater.force(False)
            self.vent.force(True)
            self.fan.force(not self._alarms & _SWITCH)  # somebody's hand may be in it
        elif self._state == FAULT:
            self.heater.force(False)
            self.vent.force(self._settings["vent_fail"] == "open" and not self._alarms & _SWITCH)
            self._drive(self.fan, self.vent.on)
        else:
            self._drive(self.vent, vent)
            self._drive(self.fan, heat or self.vent.on or self.heater.on)
            self._drive(self.heater, heat)

    def _drive(self, o, demand):
        """Move an output as interlock, times and demand allow, in this order."""
        o.wanted = demand
        o.blocked = None
        for who, other, state in INTERLOCKS:
            if who == o.name and self._is(other) == (not state):
                o.blocked = other
        if o is self.heater:
            demand = demand and self._hopeless is None
        elif o.spent():
            o.order(0)
            demand = False
            o.force(False)
        if o.mode:
            demand = True
        if o.blocked or self._alarms & _SWITCH or o.off():
            o.force(False)
        else:
            o.ask(demand)

    def _is(self, name):
        """Whether an output is on, or water in the tank; None for what the board does not have."""
        if name == "tank":
            return not self._alarms & _TANK
        o = self.outputs[NAMES.index(name)]
        return o.on if o.here else None

    def _tell(self):
        """What changed since the last step: faults and events."""
        self.faults = []
        for i, text in enumerate(ALARMS):
            bit = 1 << i
            on = self._alarms & bit
            if (self._told & bit) != on:
                self.events.append((text.split(":")[0], text, on > 0))
            if on:
                self.faults.append(text)
        self._told = self._alarms

    def move(self, write, now):
        """Call write(name, on, now) for each output of the board. Off before on, the fan before the heater: at no time
        are two on that must not be."""
        for o in self.outputs:
            if o.here and not o.on:
                write(o.name, False, now)
        for o in reversed(self.outputs):
            if o.on:
                write(o.name, True, now)

    # -- for the grower ----------------------------------------------------------------------------------------------

    @property
    def reason(self):
        """Why the outputs are as they are, in a sentence."""
        for i in (0, 5):
            if self._alarms & 1 << i:
                return ALARMS[i]
        if self._state != FRESH:
            what = "heater off" if self._state == FAULT else "no heating begins"
            return "%s: sensor silent for %d s" % (what, self._silent // 1000)
        what = "holding"
        if self.vent.wanted or self.vent.on:
            what = "venting" if self.vent.on else "too warm"
        elif self.heater.wanted or self.heater.on:
            what = "heating" if self.heater.on else "too cold"
        by = "set point" if self.by == "order" else self.by
        text = "%s: %.1f, %s %.1f" % (what, self.temperature, by, self.setpoint)
        for o in self.outputs:
            if o.here and o.wanted != o.on:
                text += "; " + self._why(o)
        return text

    def _why(self, o):
        """What keeps an output from what is wanted."""
        if o.mode:
            return "%s %s by order" % (o.name, o.modes[o.mode])
        if o.blocked:
            return "%s waits for %s" % (o.name, o.blocked)
        if o.wait:
            return "%s stays %s for %d s" % (o.name, "on" if o.on else "off", (o.wait + 999) // 1000)
        return o.name + " has no effect"

    def duty(self):
        """{output: [times switched on in the last hour, seconds on]}, of those that the board has."""
        return {o.name: [o.starts_h(), o.run_s] for o in self.outputs if o.here}

    # -- over a reset ------------------------------------------------------------------------------------------------

    def export(self):
        """What a reset must not forget, as bytes: times, counters, orders."""
        hopeless = 0 if self._hopeless is None else int(self._hopeless * 100) or 1
        kept = [getattr(o, key) for o in self.outputs for key in KEPT]
        return struct.pack(_FORMAT, _VERSION, hopeless, self._heated, *kept)

    def restore(self, data):
        """Take over what `export` gave before the reset. Returns False for what another version gave."""
        if len(data) != struct.calcsize(_FORMAT) or data[0] != _VERSION:
            return False
        kept = list(struct.unpack(_FORMAT, data))
        self._hopeless = kept[1] / 100 if kept[1] else None
        self._heated = kept[2]
        for o in reversed(self.outputs):
            for key in reversed(KEPT):
                setattr(o, key, kept.pop())
            o.revive()
        return True


def _entry(day, minute):
    """The entry of a schedule in force: the last of the day holds until the first of the next."""
    now = day[-1]
    for entry in day:
        if entry[0] > minute:
            break
        now = entry
    return now


def _value(readings, name, default):
    """The value of a reading that is good, else `default`."""
    reading = readings.get(name)
    return reading[0] if reading and reading[1] == "ok" and reading[0] is not None else default
