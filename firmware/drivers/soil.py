"""A capacitive soil probe on an ADC pin: moisture in % between two calibrated voltages. Rule: as in sensing.py.

A voltage at one of the rails is a broken wire; one that does not move at all for an hour is a probe that is not in
circuit or fakes its output, for an ADC of this chip is never so quiet.
"""

from node import ticks

SAMPLES = 9  # their median counts
LOW_UV, HIGH_UV = 100000, 3100000  # a probe that works stays within
QUIET_UV = 1000  # what moves less than this ...
QUIET_MS = 3600 * 1000  # ... for so long is stuck


class Chip:
    QUANTITIES = ("moisture",)
    EVERY_MS = 10000

    def __init__(self, adc, dry_uv, wet_uv):
        """dry_uv, wet_uv: what the probe gives in air and in water; dry is the higher one, or not."""
        self._adc = adc
        self._dry = dry_uv
        self._span = wet_uv - dry_uv
        self._low = self._high = None  # microvolts since self._since
        self._since = 0

    def start(self, fresh, now):
        return 0

    def read(self, now):
        uv = sorted([self._adc.read_uv() for _ in range(SAMPLES)])[SAMPLES // 2]
        if not LOW_UV <= uv <= HIGH_UV:
            return "range"
        if self._low is None or max(self._high, uv) - min(self._low, uv) >= QUIET_UV:
            self._low = self._high = uv
            self._since = now
        self._low = min(self._low, uv)
        self._high = max(self._high, uv)
        if ticks.diff(now, self._since) >= QUIET_MS:
            self._since = ticks.add(now, -QUIET_MS)  # so that days of silence do not wrap into health
            return "stuck"
        return (min(100.0, max(0.0, (uv - self._dry) * 100 / self._span)),)


def open(spec, hw):
    m = hw.machine
    adc = m.ADC(m.Pin(spec["pin"]), atten=m.ADC.ATTN_11DB)
    return Chip(adc, spec.get("dry_uv", 2700000), spec.get("wet_uv", 1200000))
