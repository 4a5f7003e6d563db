"""The status light: what is wrong with the node, in flashes, for who stands before it.

Rule: it looks at the application and changes nothing; the worst is shown. In memory on boards with a [led] only.
"""

import asyncio

from node import clock, hardware, log

WELL, WIFI, GATEWAY, REFUSED, FAULT = 1, 2, 3, 4, 5  # flashes, then a pause
FLASH_MS = 150
GAP_MS = 300
PAUSE_MS = 1700
IDENTIFY_MS = 30000  # without a pause, after the command `identify`

_TIMING = 400, 850, 800, 450  # ns of the bits of a WS2812
_LIT, _DARK = b"\x08\x08\x08", b"\x00\x00\x00"


def flashes(app):
    """How many flashes tell how the node is; 0: they never end, it is to be found."""
    if app._since is not None:
        if clock.since(app._since) < IDENTIFY_MS:
            return 0
        app._since = None
    if app._ailing():
        return FAULT
    if app._wifi is not None and not app._wifi.up:
        return WIFI
    if app._client.ready:
        return WELL
    return REFUSED if app._link.words.startswith("certificate") else GATEWAY  # as node/words.py has it


def open(app, spec):
    """Have `app` show how it is by the board's light, whose table is `spec`. Without it the node works as well."""
    try:
        app._tasks.append(("led", Led(hardware.machine, spec, app).run))
    except (AttributeError, KeyError, ValueError) as e:
        log.warn("led", "%s: %s" % (type(e).__name__, e))


class Led:
    def __init__(self, machine, spec, app):
        """spec: the board's table, `pin` and `kind`. Raises ValueError."""
        self._app = app
        self._pin = machine.Pin(spec["pin"], machine.Pin.OUT, value=0)
        self._bits = machine.bitstream if spec.get("kind") == "ws2812" else None

    def _show(self, on):
        if self._bits:
            self._bits(self._pin, 0, _TIMING, _LIT if on else _DARK)
        else:
            self._pin.value(on)

    async def run(self, pulse):
        while True:
            count = flashes(self._app)
            for _ in range(count or 1):
                self._show(1)
                await asyncio.sleep_ms(FLASH_MS)
                self._show(0)
                await asyncio.sleep_ms(GAP_MS)
            if count:
                await asyncio.sleep_ms(PAUSE_MS)
            pulse.beat(clock.now())
