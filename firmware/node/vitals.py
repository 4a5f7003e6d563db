"""How the node is: the watchdog, the health report, the log on its way to the gateway, what the last life left behind.

Rule: the watchdog is fed here and nowhere else, and only while no task is late. Reports cost the network little: one
message of health in HEALTH_S, log lines by a bucket; for a gateway that is away only the log's ring is kept.
"""

import asyncio
import gc
import json

from node import borrow, clock, hardware, log
from node.limit import Bucket
from node.supervisor import Supervisor

WATCHDOG_MS = 60000  # a dead name server stops the whole node for 14 s, and a TLS handshake for some
HEALTH_S = 300
NOTE_S = 60  # between two notes in the black box
LINES = (10, 1000)  # log lines sent at once, and ms to one more


class Vitals:
    """box: node.blackbox.BlackBox. facts: function () -> dict, what the app adds to the health report."""

    def __init__(self, box, facts):
        self._box = box
        self._facts = facts
        self._supervisor = Supervisor()
        self._watchdog = None
        self._begun = clock.now()
        self._alive_s = 0
        self._lag_ms = 0  # the longest stall of the loop since the last report
        self._most = 0  # bytes of heap in use at the most
        self._told = 0  # log lines that need not be sent any more

    def watch(self, name, limit_ms):
        """The pulse of one more task."""
        return self._supervisor.watch(name, limit_ms, clock.now())

    async def supervise(self):
        """Feeds the watchdog, which is started here, while every task shows progress."""
        if self._watchdog is None:
            self._watchdog = hardware.watchdog(WATCHDOG_MS)
        said = None
        noted = clock.now()
        while True:
            before = clock.now()
            await asyncio.sleep_ms(1000)
            self._lag_ms = max(self._lag_ms, clock.since(before) - 1000)
            late = self._supervisor.late(clock.now())
            if late is None:
                if self._watchdog is not None:
                    self._watchdog.feed()
                if said is not None:
                    self._box.ending("")
            elif late is not said:
                text = "no progress of %s for %d s" % (late.name, late.silent(clock.now()) // 1000)
                log.error("app", text)
                self._box.ending(text)
            said = late
            if clock.since(noted) >= NOTE_S * 1000:
                self._alive_s += clock.since(noted) // 1000
                noted = clock.now()
                self._most = max(self._most, gc.mem_alloc())
                room = hardware.tls_room()
                self._box.note(self._alive_s, gc.mem_free(), room[1] if room else 0)

    def health(self):
        """The body of <root>/health; the longest stall is counted anew after it."""
        return borrow("node.health").body(self)

    async def report(self, pulse, ready, send):
        """The task that sends health and log. ready: function () -> bool; send: coroutine function (topic, body)."""
        bucket = Bucket(LINES[0], LINES[1], clock.now())
        due = None
        while True:
            pulse.beat(clock.now(), 1000)
            await asyncio.sleep_ms(500)
            if not ready():
                continue
            if self._box.lines:
                lines, self._box.lines = self._box.lines, ""
                await send("log", json.dumps({"was": self._box.was, "lines": lines.strip().split("\n")}))
            if due is None or clock.since(due) >= HEALTH_S * 1000:
                due = clock.now()
                await send("health", self.health())
            while self._told < log.count() and not bucket.take(clock.now()):
                self._told, line = log.after(self._told)
                if line is not None:
                    await send("log", json.dumps({"line": line}))
