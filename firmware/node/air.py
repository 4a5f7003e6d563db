"""What a grower reads off temperature and humidity: how much water the air still takes, and where it lets go of it.

Rule: pure. Magnus's formula over water with the constants of Tetens; within 0 to 60 deg C it errs by less than 1 %.
"""

from math import exp, log

_A, _B, _C = 17.27, 237.3, 0.61078  # 1, deg C, kPa


def vpd(t, h):
    """The vapour pressure deficit in kPa, at t deg C and h % of relative humidity."""
    return _C * exp(_A * t / (_B + t)) * (1 - h / 100)


def dew_point(t, h):
    """deg C at which air of t deg C and h % (above 0) is saturated."""
    x = log(h / 100) + _A * t / (_B + t)
    return _B * x / (_A - x)


def extend(readings):
    """Add both to `readings`, {name: [value, quality, age in s]}, where it has `temperature` and `humidity`. They are
    as good and as old as the worse of these two."""
    if "temperature" not in readings or "humidity" not in readings:
        return
    pair = readings["temperature"], readings["humidity"]
    worse = [one[1] for one in pair if one[1] != "ok"]
    ages = [one[2] for one in pair if one[2] is not None]
    t, h = pair[0][0], pair[1][0]
    for name, law in (("vpd", vpd), ("dew_point", dew_point)):
        value = law(t, min(h, 100)) if not worse and h > 0 else None
        readings[name] = [value, worse[0] if worse else "ok" if h > 0 else "range", max(ages) if ages else None]
