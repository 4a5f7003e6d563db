"""What an update must show before it is in force: a control without new faults and a session, for health_s in a row.

Rule: pure; time and what is looked at are arguments. Who does not get there in PATIENCE times that long goes back, and
the node says why. In memory during a trial only (see node.forget).
"""

from node.ticks import diff

PATIENCE = 3
GOOD = "good"


class Trial:
    """verdict: None; then GOOD, or the reason why what was before has to return."""

    def __init__(self, known, health_ms, now):
        """known: faults that there were before the update: they are not its doing."""
        self._known = known
        self._health_ms = health_ms
        self._begun = self._good = now
        self.verdict = None

    def step(self, now, online, faults):
        """Look. online: there is a session; faults: words for what is wrong with the control now."""
        new = [f for f in faults if f not in self._known]
        why = "control: " + ", ".join(new) if new else None if online else "no session with the gateway"
        if why:
            self._good = now
            if diff(now, self._begun) > PATIENCE * self._health_ms:
                self.verdict = why
        elif diff(now, self._good) >= self._health_ms:
            self.verdict = GOOD
