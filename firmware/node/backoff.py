"""How long to wait before the next connection: decorrelated jitter.

Rule: pure; chance is an argument. A fleet that lost its gateway must not come back as one herd, and a gateway that
accepts and drops must not be hammered: only a session that has lived `settle_s` counts as a success.
"""


class Backoff:
    """Times in seconds (floats).

    base_s, cap_s   bounds of a delay: d = min(cap, uniform(base, 3 * d))
    first_s         the first retry after a settled session is uniform(0, first_s)
    settle_s        a session that lived so long sets d back to base
    refused_cap_s   the cap where trying again cannot help soon: not authorised, wrong certificate
    uniform         function (a, b) -> float in [a, b], e.g. random.uniform
    """

    def __init__(self, base_s, cap_s, first_s, settle_s, refused_cap_s, uniform):
        self.base_s = base_s
        self.cap_s = cap_s
        self.first_s = first_s
        self.settle_s = settle_s
        self.refused_cap_s = refused_cap_s
        self._uniform = uniform
        self._delay = base_s

    def next(self, lived_s, hopeless=False):
        """Seconds to wait now. lived_s: how long the session lived (0 if none came about); hopeless: a refusal."""
        if lived_s >= self.settle_s:
            self._delay = self.base_s
            return self._uniform(0, self.first_s)
        cap = self.refused_cap_s if hopeless else self.cap_s
        self._delay = min(cap, self._uniform(self.base_s, max(self.base_s, 3 * self._delay)))
        return self._delay
