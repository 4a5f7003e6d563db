"""The real house: the outputs and sensors of a board. Opened by drivers/opening.py.

Rule: nothing here knows a chip.
"""

from node import log


class House:
    """The same two calls as the model: `read(name, now)` and `write(name, on, now)`, `now` in ticks of loop time."""

    def __init__(self, outputs, probes, units):
        """outputs: {name: a driver's Output}; probes: {name: node.sensing.Probe}; units: the chips behind them."""
        self._outputs = outputs
        self._probes = probes
        self._units = units
        self._now = None
        self._silent = set()  # outputs whose chip does not answer

    def read(self, name, now):
        """(value, quality), if that is ok with the age in ms; filtered, as control needs it. The first call of a turn
        serves the chips."""
        if now != self._now:
            self._now = now
            for unit in self._units:
                unit.turn(now)
        probe = self._probes[name]
        reading = probe.read(now)
        return reading + (probe.age(now),) if reading[1] == "ok" else reading

    def told(self, name, now):
        """[value, quality, age in s] as measured, for the reports."""
        return self._probes[name].told(now)

    def write(self, name, on, now):
        """Switches an output. KeyError for one that this board does not have; a chip that is away is logged."""
        output = self._outputs[name]
        try:
            output.write(on)
            self._silent.discard(name)
        except OSError as e:
            if name not in self._silent:
                self._silent.add(name)
                log.error("outputs", "%s: no answer (%s)" % (name, e))
