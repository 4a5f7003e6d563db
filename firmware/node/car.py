"""What a vehicle does with a command that may act: the safe states, and the pulses to its relays.

Rule: pure; readings and time come in, pulses go out. Nothing moves a relay but a command, and what a command has set
going (locking again, the end of a remote start): neither a reboot nor a lost link does, and what is to be ended is
ended also by the life after a reset. What is not known is not safe. Whether it is safe is asked twice: when a
command comes, and at the moment of its act, for it may have waited while the car moved off.
"""

import struct

from node import ticks
from node.limit import Bucket

UNKNOWN_MS = 5000  # a reading older than this is no reading
QUIET_MS = 600000  # so long nothing has told whether it moves: the engine is off, and says nothing
RELOCK_MS = 30000  # after an unlock that nobody answered by opening a door
RUN_S = 600  # a remote start ends after it, unless the board says otherwise
HORNS = (3, 20000)  # at once, and ms to one more: three in a minute
STARTS = (3, 200000)  # three in ten minutes
AMBIENT = (-30, 45)  # deg C within which a remote start may run
PULSES = {"unlock": 300, "lock": 300, "start": 800, "stop": 500, "horn": 500}  # ms that each relay is closed


class Car:
    """Read after each `step`: locked (None while unknown), running (the same), reason (a sentence for the driver)."""

    def __init__(self, sensors, now, run_s=RUN_S):
        """sensors: names of what the board can read, of: speed gps_speed rpm door brake parked locked ambient.

        now: ticks.
        """
        self._sensors = sensors
        self._run_ms = int(run_s * 1000)
        self._known = {}  # name: (value, ticks)
        self._horns = Bucket(HORNS[0], HORNS[1], now)
        self._starts = Bucket(STARTS[0], STARTS[1], now)
        self._unlocked = None  # ticks of an unlock that waits for a door
        self._started = None  # ticks of a remote start that has not ended
        self._ending = None  # why it is to end
        self._stirred = now  # ticks at which it may have moved last; None: it stands
        self.locked = None
        self.running = None
        self.reason = "no command since the start"

    def idle(self):
        """Whether nothing that a command has set going is still to be ended."""
        return self._unlocked is None and self._started is None

    def stands(self):
        """Whether it is at rest with its engine off, as far as it can tell."""
        return self._stirred is None

    def export(self, now):
        """What is to be ended, for the life after a reset: seconds since then, and what is known of the lock."""
        ages = [65535 if t is None else min(65534, ticks.diff(now, t) // 1000) for t in (self._unlocked, self._started)]
        return struct.pack("<HHb", ages[0], ages[1], -1 if self.locked is None else self.locked)

    def restore(self, kept, now):
        """The life before, as `export` gave it; b"" after a power cut."""
        if len(kept) != 5:
            return
        unlocked, started, locked = struct.unpack("<HHb", kept)
        self._unlocked = None if unlocked == 65535 else ticks.add(now, -1000 * unlocked)
        self._started = None if started == 65535 else ticks.add(now, -1000 * started)
        self.locked = None if locked < 0 else bool(locked)

    def sense(self, name, value, quality, now):
        """A reading of `now`: value (km/h, 1/min, deg C, or truth) and "ok" or what is wrong with it."""
        if quality == "ok" and value is not None and value == value:
            self._known[name] = (value, now)
            if name == "locked":  # a switch in the lock knows better
                self.locked = bool(value)

    def reading(self, name, now):
        """The last good value of `name`, None if it is older than UNKNOWN_MS."""
        value, then = self._known.get(name, (None, now))
        if value is not None and not 0 <= ticks.diff(now, then) <= UNKNOWN_MS:
            del self._known[name]  # for good: a tick counter that wraps must not make it young again
            return None
        return value

    def speed(self, now):
        """km/h, None while unknown. Whatever tells it, the faster is true, and one is enough."""
        told = [v for v in (self.reading("speed", now), self.reading("gps_speed", now)) if v is not None]
        return max(told) if told else None

    def open(self, now):
        """Whether a door is open, None while unknown."""
        door = self.reading("door", now)
        return None if door is None else bool(door)

    def refuse(self, verb, now):
        """Why `verb` must not be accepted now ("unsafe: …", "busy: …"), or None. Asks the limits, so ask once."""
        why = self.unsafe(verb, now)
        if why is None and verb == "start":
            return self._wait(verb, self._starts, now)
        if verb == "horn":
            return self._wait(verb, self._horns, now)
        return why

    def unsafe(self, verb, now):
        """Why the car as it is now forbids `verb`, or None. Changes nothing."""
        if verb == "stop" or verb == "start":
            speed = self.speed(now)
            if speed is None:
                return "unsafe: the speed is not known"
            if speed > 0:
                return "unsafe: moving at %d km/h" % max(1, int(speed))
        if verb == "start":
            return self._unsafe_start(now)
        return None

    def _unsafe_start(self, now):
        rpm = self.reading("rpm", now)
        if rpm is None or self._started is not None:
            return "unsafe: %s" % ("whether the engine runs is not known" if rpm is None else "it was started already")
        if rpm > 0:
            return "unsafe: the engine is running"
        for name, wanted, words in (
            ("parked", True, "the car is not parked"),
            ("door", False, "a door is open"),
            ("brake", False, "the brake is pressed"),
        ):
            value = self.reading(name, now)
            if name in self._sensors and (value is None or bool(value) != wanted):
                return "unsafe: %s" % (name + " is not known" if value is None else words)
        if "ambient" in self._sensors:
            ambient = self.reading("ambient", now)
            if ambient is None or not AMBIENT[0] <= ambient <= AMBIENT[1]:
                return "unsafe: ambient temperature %s" % ("is not known" if ambient is None else "%d C" % ambient)
        return None

    def _wait(self, verb, bucket, now):
        wait = bucket.take(now)
        return "busy: the next %s in %d s" % (verb, (wait + 999) // 1000) if wait else None

    def act(self, verb, now, reason=None):
        """Carry out what `unsafe` let pass, or `step` asked for. Returns for how many ms the relay is to be closed."""
        if verb == "unlock":
            self.locked = False
            self._unlocked = now
        elif verb == "lock":
            self.locked = True
            self._unlocked = None
        elif verb == "start":
            self._started = now
            self._ending = None
        elif verb == "stop":
            self._started = None
        self.reason = reason or verb + " by command"
        return PULSES[verb]

    def step(self, now):
        """One turn: (verb, reason) to end what a command has set going, again until `act` does it; or None."""
        rpm = self.reading("rpm", now)
        self.running = None if rpm is None else rpm > 0
        door = self.reading("door", now)
        self._look(now, rpm)
        end = self._tend_start(now, door)
        if self._unlocked is not None:
            if door:
                self._unlocked = None
            elif ticks.diff(now, self._unlocked) >= RELOCK_MS:
                return "lock", "locked again: no door was opened within %d s" % (RELOCK_MS // 1000)
        return end

    def _look(self, now, rpm):
        speed = self.reading("speed", now)
        gear = self.reading("parked", now)
        if speed or rpm or gear == 0:
            self._stirred = now
        elif self._stirred is not None:
            silent = speed is None and rpm is None and gear is None
            if not silent or ticks.diff(now, self._stirred) >= QUIET_MS:
                self._stirred = None

    def _tend_start(self, now, door):
        """A remote start ends with its time, an open door or the brake; at once, or when the car is known to stand."""
        if self._started is None:
            return None
        if self._ending is None:
            if door:
                self._ending = "a door was opened"
            elif self.reading("brake", now):
                self._ending = "the brake was pressed"
            elif not 0 <= ticks.diff(now, self._started) < self._run_ms:
                self._ending = "its time is over"
        speed = self.speed(now)
        if speed:  # somebody drives off, and has taken over: nothing is switched off any more
            self._started = None
            self.reason = "remote start ended: the car moves"
        elif self._ending is not None and speed == 0:
            return "stop", "remote start ended: " + self._ending
        return None
