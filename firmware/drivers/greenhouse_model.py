"""A small greenhouse in numbers, standing in for pins and sensors.

Rule: the same two calls as the drivers of real things: `read(name, now) -> (value, quality)` and `write(name, on,
now)`, with `now` in ticks of loop time. Pure, so a winter night takes milliseconds in a test.

One lump of heat, first order:

    capacity * dT/dt = heater_w + lamp + sun(t) - (ua + vent_ua if open, FAN times that if the fan runs) * (T - outside)

in W = J/s. The soil gains WATER while it is irrigated and dries towards 0 with the time constant DRY_S.

The defaults are a poly-tunnel of 3 m x 6 m: 50 m2 of film at 6 W/(m2 K) make ua = 300 W/K; air, wet soil to a hand's
depth and benches make 1.08 MJ/K (so it cools with a time constant of one hour); 36 m3 of air changed 33 times an hour
through the open vent carry 400 W/K; a 9 kW heater; the sun of a dull day, 1.5 kW at noon through the film.
"""

from math import pi, sin

from node import ticks

STEP_S = 5.0  # the longest step of the integration; shorter where the house is lighter than its losses
DAY_S = 86400.0
LAMP_W = 400.0  # heat of the light
FAN = 1.5  # times the air through the open vent
WATER = 0.02  # % of moisture a second
DRY_S = 172800.0
LUX = 20.0  # for each W of sun


class Greenhouse:
    """outputs: heater, vent, fan, irrigation, light; sensors: temperature, outside (deg C), soil (%), light (lx)."""

    def __init__(self, now, start, outside, swing, hour, sun_w, heater_w, ua, vent_ua, capacity):
        """start, outside: deg C; swing: K of the outside's daily sine; hour: time of day; the rest in W, W/K, J/K."""
        self._last = now
        self._t = start
        self._outside = outside
        self._swing = swing
        self._clock = hour * 3600.0
        self._sun_w = sun_w
        self._heater_w = heater_w
        self._ua = ua
        self._vent_ua = vent_ua
        self._capacity = capacity
        self._step = min(STEP_S, capacity / (4 * (ua + FAN * vent_ua)))
        self._soil = 50.0
        self._on = dict.fromkeys(("heater", "vent", "fan", "irrigation", "light"), False)
        self.energy = 0.0  # J that the heater gave

    def read(self, name, now):
        """(value, "ok"); (None, "missing") for a sensor that this house does not have."""
        self._advance(now)
        if name == "temperature":
            return self._t, "ok"
        if name == "outside":
            return self.outside(), "ok"
        if name == "soil":
            return self._soil, "ok"
        if name == "light":
            return self.sun() * LUX, "ok"
        return None, "missing"

    def told(self, name, now):
        """[value, quality, age in s], for the reports."""
        return list(self.read(name, now)) + [0]

    def write(self, name, on, now):
        """Switch an output. KeyError for one that this house does not have."""
        self._advance(now)
        if name not in self._on:
            raise KeyError(name)
        self._on[name] = bool(on)

    def minute(self, now):
        """The minute of this house's day."""
        self._advance(now)
        return int(self._clock // 60) % 1440

    def outside(self):
        """deg C; coldest at 3 h, warmest at 15 h."""
        return self._outside + self._swing * sin(2 * pi * (self._clock / DAY_S - 0.375))

    def sun(self):
        """W into the house: half a sine from 6 h to 18 h."""
        return max(0.0, self._sun_w * sin(2 * pi * (self._clock / DAY_S - 0.25)))

    def _advance(self, now):
        left = max(0, ticks.diff(now, self._last)) / 1000
        self._last = now
        while left > 0:
            dt = min(left, self._step)
            left -= dt
            on = self._on
            heat = self._heater_w if on["heater"] else 0.0
            vent = self._vent_ua * (FAN if on["fan"] else 1.0) if on["vent"] else 0.0
            gain = heat + self.sun() + (LAMP_W if on["light"] else 0.0)
            self._t += (gain - (self._ua + vent) * (self._t - self.outside())) * dt / self._capacity
            self._soil = min(100.0, self._soil * (1 - dt / DRY_S) + (WATER * dt if on["irrigation"] else 0.0))
            self._clock = (self._clock + dt) % DAY_S
            self.energy += heat * dt
