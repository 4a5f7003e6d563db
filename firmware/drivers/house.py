"""The real house: the outputs and sensors that the board's tables name, opened by the names of their drivers.

Rule: composition; nothing here knows a chip. Only the files that this board needs are imported. `machine` is imported
here and nowhere else, and can be given instead.
"""

from node import config, log
from node.sensing import Probe, Unit


class House:
    """The same two calls as the model: `read(name, now)` and `write(name, on, now)`, `now` in ticks of loop time.

    For the drivers it has: machine; bus(name), an open bus; spec(name), a bus's table; shared(key, make), one of a
    thing; onewire(), the module that keeps 1-Wire's time slots.
    """

    def __init__(self, board, now, machine=None, wire=None):
        """board: the table of node.json. Raises ConfigError naming the output or sensor that cannot be opened."""
        if machine is None:
            import machine
        self.machine = machine
        self._wire = wire
        self._buses = board.get("buses", {})
        self._things = {}
        self._now = None
        self._silent = set()  # outputs whose chip does not answer
        self._outputs = {}
        for name, spec in sorted(board["outputs"].items()):
            level = spec.get("safe") == "on"
            self._outputs[name] = self._open("outputs." + name, spec.get("driver"), spec, level)
        self._probes = {}
        for name, spec in sorted(board["sensors"].items()):
            key = (spec.get("driver"), spec.get("bus"), spec.get("address"), spec.get("pin"))
            where = "sensors." + name
            if key not in self._things:
                self._things[key] = self._unit(where, spec, now)
            unit = self._things[key]
            quantities = unit.chip.QUANTITIES
            quantity = spec.get("quantity", quantities[0])
            if quantity not in quantities:
                raise config.ConfigError("board.%s: %s does not measure %s" % (where, spec["driver"], quantity))
            self._probes[name] = unit.probes[quantities.index(quantity)]
        self._units = [unit for unit in self._things.values() if isinstance(unit, Unit)]

    def _unit(self, where, spec, now):
        chip = self._open(where, spec.get("driver"), spec)
        bus = self._things.get("bus %s" % spec.get("bus"))  # 1-Wire has none that could be freed
        return Unit(chip, [Probe(q == "temperature") for q in chip.QUANTITIES], bus, now)

    def _open(self, where, driver, spec, *more):
        try:
            return __import__("drivers.%s" % driver, None, None, ("open",)).open(spec, self, *more)
        except (ImportError, AttributeError, KeyError, ValueError, OSError) as e:
            raise config.ConfigError("board.%s: cannot be opened (%s: %s)" % (where, type(e).__name__, e))

    # -- for the drivers ---------------------------------------------------------------------------------------------

    def shared(self, key, make):
        if key not in self._things:
            self._things[key] = make()
        return self._things[key]

    def spec(self, name):
        return self._buses[name]

    def bus(self, name):
        spec = self._buses[name]
        return self.shared("bus " + name, lambda: self._open("buses." + name, spec["kind"], spec))

    def onewire(self):
        if self._wire is None:
            import _onewire

            self._wire = _onewire
        return self._wire

    # -- for the control loop ----------------------------------------------------------------------------------------

    def read(self, name, now):
        """(value, quality), filtered, as control needs it. The first call of a turn serves the chips."""
        self._turn(now)
        return self._probes[name].read(now)

    def told(self, name, now):
        """[value, quality, age in s] as measured, for the reports."""
        return self._probes[name].told(now)

    def _turn(self, now):
        if now != self._now:
            self._now = now
            for unit in self._units:
                unit.turn(now)

    def write(self, name, on, now):
        """Switches an output. KeyError for one that this board does not have; a chip that is away is logged."""
        output = self._outputs[name]
        try:
            output.write(on)
        except OSError as e:
            if name not in self._silent:
                self._silent.add(name)
                log.error("outputs", "%s: no answer (%s)" % (name, e))
        else:
            if name in self._silent:
                self._silent.remove(name)
                log.info("outputs", "%s: answers again" % name)
