"""A small car in numbers, standing in for relays, contacts and lines: it is parked, drives a circle, and parks again.

Rule: the same calls as drivers/dash.py, with `now` in ticks of loop time. Pure, so an afternoon takes milliseconds in a
test. A pulse does what its relay would do, at its beginning, and like a relay's it lasts.

A drive: somebody unlocks, opens a door for DOOR_S, starts, moves off at RATE up to the cruising speed, brakes at RATE,
stops the engine, opens a door again and locks.
"""

from math import cos, pi, sin

from node import ticks

RATE = 2.0  # m/s2
DOOR_S = 3
RADIUS = 500.0  # m, of the circle
DEGREE = 111195.0  # m of latitude
STEP_S = 1.0  # the longest step
IDLE_RPM = 800.0
OFF_V, ON_V = 12.6, 14.2
FUEL_M = 40.0 / 500000  # per cent a metre: 40 % in 500 km


class Vehicle:
    """outputs: unlock, lock, start, stop, horn; sensors: see `_value`."""

    def __init__(self, now, latitude, longitude, kmh, parked_s, drive_s):
        """latitude, longitude: where it is parked; kmh: its cruising speed; parked_s, drive_s: how long each lasts."""
        self._last = now
        self._at = (latitude, longitude)
        self._cruise = kmh / 3.6
        self._parked_s = parked_s
        self._drive_s = drive_s
        self._s = 0.0  # of the round
        self._speed = 0.0  # m/s
        self._way = 0.0  # m
        self.fuel = 60.0
        self.locked = True
        self.running = False
        self.horns = 0
        self._closed_ms = 0  # of the pulse that is under way
        self._driven = False

    # -- as drivers/dash.py ------------------------------------------------------------------------------------------

    def read(self, name, now):
        """(value, "ok", 0); (None, "missing") for what this car does not have."""
        self._advance(now)
        value = self._value(name)
        return (None, "missing") if value is None else (value, "ok", 0)

    def told(self, name, now):
        """[value, quality, age in s], for the reports."""
        return list(self.read(name, now)[:2]) + [0]

    def codes(self):
        return []

    def write(self, name, on, now):
        """A relay of a vehicle is opened, whatever `on` is."""
        self._closed_ms = 0

    def pulse(self, name, ms):
        if name == "unlock" or name == "lock":
            self.locked = name == "lock"
        elif name == "start" or name == "stop":
            self.running = name == "start"
        else:
            self.horns += 1
        self._closed_ms = ms

    def tend(self, now):
        self._advance(now)

    def idle(self):
        return not self._closed_ms

    # -- physics -----------------------------------------------------------------------------------------------------

    def _value(self, name):
        if name == "speed" or name == "gps_speed":
            return self._speed * 3.6
        if name == "rpm":
            return IDLE_RPM + 60 * self._speed if self.running else 0.0
        if name == "fuel":
            return self.fuel
        if name == "battery":
            return ON_V if self.running else OFF_V
        if name == "ambient":
            return 15.0
        if name == "door" or name == "brake" or name == "parked" or name == "locked":
            return 1.0 if self._contact(name) else 0.0
        angle = self._way / RADIUS
        if name == "latitude":
            return self._at[0] + RADIUS * sin(angle) / DEGREE
        if name == "longitude":
            return self._at[1] + RADIUS * (1 - cos(angle)) / (DEGREE * cos(self._at[0] * pi / 180))
        if name == "course":
            return angle * 180 / pi % 360
        return {"satellites": 9, "codes": 0}.get(name)

    def _contact(self, name):
        into = self._s - self._parked_s  # s of the drive
        if name == "locked":
            return self.locked
        if name == "parked":
            return into < 0
        if name == "brake":
            return into >= 0 and self._speed == 0
        return 0 <= into < DOOR_S or into > self._drive_s - DOOR_S

    def _advance(self, now):
        left = max(0, ticks.diff(now, self._last))
        self._last = now
        self._closed_ms = max(0, self._closed_ms - left)
        left /= 1000
        while left > 0:
            dt = min(left, STEP_S)
            left -= dt
            self._s += dt
            self._drive(self._s - self._parked_s, dt)

    def _drive(self, into, dt):
        if into < 0:
            return
        if not self._driven:
            self._driven = True
            self.locked = False
            self.running = True
        if into >= self._drive_s:
            self._s = 0.0
            self._speed = 0.0
            self._driven = False
            self.locked = True
            self.running = False
            return
        # Off after the door has closed, still before it opens again; as fast as the way there and the brakes allow.
        limit = min(into - DOOR_S, self._drive_s - DOOR_S - 1 - into) * RATE
        self._speed = max(0.0, min(self._cruise, limit))
        self._way += self._speed * dt
        self.fuel = max(5.0, self.fuel - self._speed * dt * FUEL_M)
