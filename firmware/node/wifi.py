"""Joining one of several Wi-Fi networks, and staying: what is done when, harder from step to step.

Rule: pure but for the `wlan` it is given (network.WLAN or its like); time is an argument, nothing waits. It never calls
`connect` twice without `disconnect` and a pause between, and it never restarts the node: it says when that would help.
"""

from node import forget, log, ticks

JOIN_MS = 20000  # for one network to let us in
OWN_MS = 10000  # for the chip to come back by itself
PAUSE_MS = 1000  # between `disconnect` and `connect`
OFF_MS = 2000  # between `active(False)` and `active(True)`
ROUNDS = 3  # through all networks; then the radio is switched off and on
HOPELESS_MS = 1800000  # without any; then a restart would help


class Wifi:
    """networks: [(ssid, password)], the password "" for an open one. Call `step(now)` again after the ms it returns.

    up        joined, with an address
    hopeless  nothing for HOPELESS_MS: who finds that no output needs this node may restart it
    lost      how often a network that was joined went away
    """

    def __init__(self, wlan, networks, now):
        self._wlan = wlan
        self._networks = networks
        self._at = -1
        self._tries = 0
        self._step = self._on
        self._since = self._gone = now
        self.up = self.hopeless = False
        self.lost = 0
        self._why = None  # of the last failure

    def step(self, now):
        """Do what is due at `now` (ticks); returns in how many ms to come again."""
        try:
            return self._step(now)
        except OSError as e:  # "Wifi Internal Error", whatever it means today
            log.warn("wifi", "the radio fails (%s)" % e)
            return self._next(self._off, PAUSE_MS)
        finally:
            self.hopeless = not self.up and ticks.diff(now, self._gone) > HOPELESS_MS

    def facts(self):
        """For the health report; wifi_why is the radio's last word on why there was none (see node/words.py)."""
        channel = self._ask(self._wlan.config, "channel")
        return {"rssi": self._rssi(), "channel": channel, "wifi_lost": self.lost, "wifi_why": self._why}

    def _rssi(self):
        return self._ask(self._wlan.status, "rssi")

    def _ask(self, tell, what):
        try:
            return tell(what) if self.up else None
        except (OSError, ValueError):
            return None

    def _next(self, step, ms):
        self._step = step
        return ms

    def _off(self, now):
        self._wlan.active(False)
        return self._next(self._on, OFF_MS)

    def _on(self, now):
        self._wlan.active(True)
        self._tries = 0
        return self._next(self._connect, 0)

    def _connect(self, now):
        if self._tries >= ROUNDS * len(self._networks):
            return self._off(now)
        self._tries += 1
        self._at = self._choose()
        ssid, password = self._networks[self._at]
        self._wlan.connect(ssid, password or None)
        self._since = now
        return self._next(self._joining, 200)

    def _choose(self):
        """The strongest network on the first try, where there are several; then each in its turn."""
        if len(self._networks) > 1 and self._tries == 1:
            best = None
            for found in self._wlan.scan():  # blocks for two seconds; only here, while there is no network anyway
                for i, (ssid, _) in enumerate(self._networks):
                    if found[0] == ssid.encode() and (best is None or found[3] > best[0]):
                        best = (found[3], i)
            if best is not None:
                return best[1]
        return (self._at + 1) % len(self._networks)

    def _joining(self, now):
        if self._wlan.isconnected():
            self.up = True
            self._tries = 0
            log.info(
                "wifi",
                "joined %s, %s, %s dBm" % (self._networks[self._at][0], self._wlan.ifconfig()[0], self._rssi()),
            )
            return self._next(self._joined, 1000)
        status = self._wlan.status()
        waited = ticks.diff(now, self._since)
        if waited < JOIN_MS and (not 200 <= status < 1000 or waited < 2000):
            return 200
        from node import words

        self._why = status
        log.warn("wifi", "%s: %s" % (self._networks[self._at][0], words.unjoined(status, waited // 1000)))
        forget("node.words")
        return self._again(now)

    def _again(self, now):
        self._wlan.disconnect()
        return self._next(self._connect, PAUSE_MS)

    def _joined(self, now):
        if self._wlan.isconnected():
            return 1000
        self.up = False
        self.lost += 1
        self._why = self._wlan.status()
        self._since = self._gone = now
        log.warn("wifi", "%s: lost" % self._networks[self._at][0])
        return self._next(self._returning, 200)

    def _returning(self, now):
        if self._wlan.isconnected() or ticks.diff(now, self._since) < OWN_MS:
            return self._joining(now) if self._wlan.isconnected() else 200
        return self._again(now)
