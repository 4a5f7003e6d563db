"""Opens the outputs and sensors that a board's tables name, by the names of their drivers.

Rule: composition; only the files that this board needs are imported. `machine` is imported here and nowhere else among
the drivers, and can be given instead. In memory at the start only (see node.forget).
"""

from drivers.house import House
from node import ConfigError
from node.sensing import Probe, Unit


class Opening:
    """What a driver's `open` has: machine; buses, their tables; bus(name), an open bus; spec(name), a bus's table;
    shared(key, make), one of a thing; onewire(), the module that keeps 1-Wire's time slots."""

    def __init__(self, board, now, machine=None, wire=None, house=House):
        """board: the table of node.json; house: House, or a class made of it. `house` is what came out.

        Raises ConfigError naming the output or sensor that cannot be opened.
        """
        if machine is None:
            import machine
        self.machine = machine
        self._wire = wire
        self.buses = board.get("buses", {})
        self._things = {}
        outputs = {}
        for name, spec in sorted(board.get("outputs", {}).items()):
            outputs[name] = self._open("outputs." + name, spec.get("driver"), spec, spec.get("safe") == "on")
        probes = {}
        units = {}
        for name, spec in sorted(board.get("sensors", {}).items()):
            key = (spec.get("driver"), spec.get("bus"), spec.get("address"), spec.get("pin"))
            where = "sensors." + name
            if key not in units:
                chip = self._open(where, key[0], spec)
                bus = self._things.get("bus %s" % key[1])  # 1-Wire has none that could be freed
                units[key] = Unit(chip, [Probe(q == "temperature") for q in chip.QUANTITIES], bus, now)
            unit = units[key]
            quantities = unit.chip.QUANTITIES
            quantity = spec.get("quantity", quantities[0])
            if quantity not in quantities:
                raise ConfigError("board.%s: %s does not measure %s" % (where, key[0], quantity))
            probes[name] = unit.probes[quantities.index(quantity)]
        self.house = house(outputs, probes, list(units.values()))

    def _open(self, where, driver, spec, *more):
        try:
            return __import__("drivers.%s" % driver, None, None, ("open",)).open(spec, self, *more)
        except (ImportError, AttributeError, KeyError, ValueError, OSError) as e:
            raise ConfigError("board.%s: cannot be opened (%s: %s)" % (where, type(e).__name__, e))

    def shared(self, key, make):
        if key not in self._things:
            self._things[key] = make()
        return self._things[key]

    def spec(self, name):
        return self.buses[name]

    def bus(self, name):
        spec = self.buses[name]
        return self.shared("bus " + name, lambda: self._open("buses." + name, spec["kind"], spec))

    def onewire(self):
        if self._wire is None:
            import _onewire

            self._wire = _onewire
        return self._wire
