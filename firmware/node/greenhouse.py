"""The node of a greenhouse: its control loop, the orders of people, and the readings while the gateway is away.

Rule: what node/app.py does for every node is not done here. The control loop needs nothing of the network; a set point
is on flash before it is acknowledged.
"""

import asyncio

from node import borrow, clock, log, report
from node.app import App
from node.control import SETPOINT

BACKFILL_MS = 1000  # between two messages of readings that are late
KEEP_TURNS = 16  # of the control loop, between two notes of how long what has been on or off


class Greenhouse(App):
    """Composed in profiles/greenhouse.py.

    _climate    its control
    _readings   {name: (value, quality)} of the last turn of the control loop
    _recent     the commands that were answered
    _ring       readings kept while the gateway is away; _kept: when the last ones went into it
    _aim        the set point of the configuration
    """

    def _idle(self):
        """Nothing heats."""
        return not self._climate.heater.on

    def _ailing(self):
        return self._climate.faults

    # -- control -----------------------------------------------------------------------------------------------------

    async def _control(self, pulse):
        climate = self._climate
        before = None
        turns = 0
        while True:
            now = self._time.turn()
            for name in self._sensors:
                self._readings[name] = self._measure(name, now)
            climate.online = self._client.ready
            climate.step(now, self._readings, self._minute(now))
            climate.move(self._house.write, now)
            for event in climate.events:
                self.event(*event)
            after = (climate.setpoint, climate.by, climate.pattern(), climate.faults)
            if after != before:
                if before is None or after[2:] != before[2:]:
                    log.info("control", climate.reason)
                before = after
                self._changed = True
                turns = 0
                try:
                    self._store.put("held", climate.held)
                except OSError:
                    pass  # the next change tries again; without it, a restart asks the schedule
            if turns % KEEP_TURNS == 0:
                self._box.keep(actuators=climate.export())
            turns += 1
            self._in_force = len(self._pending)
            self._wake.set()
            pulse.beat(clock.now())
            await asyncio.sleep_ms(self._time.period_ms)

    def _minute(self, now):
        """The minute of the local day, or of the model's; None while the clock is not set."""
        if self._sim:
            return self._house.minute(now)
        unix = clock.unix()
        return unix and (unix // 60 + int(self._cfg["control"]["utc_offset_h"] * 60)) % 1440

    def _measure(self, name, now):
        try:
            return self._house.read(name, now)
        except OSError:  # a bus that hangs, a sensor pulled out
            return None, "missing"

    # -- orders ------------------------------------------------------------------------------------------------------

    def _set(self, payload, retained):
        self._order(SETPOINT, payload, retained)

    def _order(self, name, payload, retained):
        command = borrow("node.command", "node.strictjson")
        cmd = command.parse(name, payload, retained)
        known = self._recent.find(cmd)
        if cmd.why is None and known is not None:
            if known[1] == cmd.crc:
                self._ack(cmd, known[2], known[3])  # a repetition: the same answer, no second act
                return
            cmd.why = "malformed: this id was given to another command"
        if cmd.why is None:
            limits = self._cfg["control"]
            cmd.why = command.check(cmd, clock.unix(), limits["min"], limits["max"])
        if cmd.why is None and self._crowded():
            cmd.why = "busy: too many commands at once"
        if cmd.why is None:
            cmd.why = self._accept(cmd)
        if cmd.why is not None:
            if not cmd.why.startswith(("busy", "retained")):  # the same command may be welcome the next time
                self._recent.note(cmd, "rejected", cmd.why)
            self._tell(log.warn, "rejected %s: %s" % (cmd.name, cmd.why))
            self._ack(cmd, "rejected", cmd.why)

    def _accept(self, cmd):
        """Store the command and hand it to the control loop. Returns a reason if that cannot be done now."""
        aim = cmd.name == SETPOINT
        order = (cmd.name, cmd.value, cmd.for_s)
        if cmd.name == "identify":
            self._since = clock.now()
            self._tell(log.info, "identify: I am " + self._cfg["name"])
        elif not self._climate.ordered(*order) or (aim and not self._store.keeps("setpoint", cmd.value)):
            wait = self._changes[cmd.name].take(clock.now())
            if wait:
                return "busy: too many changes, the next one is taken in %d s" % ((wait + 999) // 1000)
            if aim:
                try:
                    self._store.put("setpoint", cmd.value)
                except OSError as e:
                    return "busy: the set point cannot be stored (%s)" % e
            why = self._climate.order(*order)
            if why:
                return why
        self._tell(log.info, "accepted %s %s" % (cmd.name, "" if cmd.value is None else cmd.value))
        self._recent.note(cmd, "accepted")
        self._box.keep(self._climate.export(), self._recent.export())  # before it is acknowledged
        self._ack(cmd, "accepted")
        self._pending.append(cmd)
        return None

    def _done(self, cmd):
        self._recent.note(cmd, "done")
        self._ack(cmd, "done")

    def _answer(self, cmd, stage, why):
        return report.ack(cmd, stage, why, self._climate, clock.unix())

    def _reconfigured(self):
        """Another set point in the configuration is an order."""
        setpoint = self._cfg["control"]["setpoint"]
        if setpoint != self._aim:
            self._aim = setpoint
            self._store.put("setpoint", setpoint)
            self._climate.order("setpoint", setpoint)

    # -- reports -----------------------------------------------------------------------------------------------------

    def _dropped(self):
        return self._ring.lost

    def _state_body(self):
        return report.state(self._climate, clock.unix())

    def _own_facts(self, body):
        body["kept"] = len(self._ring)
        body["dropped"] = self._ring.lost
        body["duty"] = self._climate.duty()

    async def _measured(self, ts):
        """Readings go to the gateway, or into the ring while it is away."""
        readings = {name: self._house.told(name, self._time.now) for name in self._sensors}
        if self._air:
            self._air(readings)
        body = report.telemetry(readings, ts, clock.quality(), self._sim)
        keep_ms = int(self._cfg["report"]["keep_s"] * 1000)
        if self._client.ready and await self._send("telemetry", body):
            self._kept = None
        elif self._kept is None or clock.since(self._kept) >= keep_ms:
            self._ring.add(ts, readings)
            self._kept = clock.now()

    async def _backfill(self, pulse):
        """Readings from the time without a gateway, one message a second, when no ack and no event waits."""
        sent = None
        while True:
            pulse.beat(clock.now())
            await asyncio.sleep_ms(BACKFILL_MS)
            self._ring.tick(clock.now(), clock.unix())
            if sent and not self._client.waiting(sent):
                self._ring.done()
                sent = None
            if sent or not self._client.ready or self._outbox or self._events or self._client.in_flight() > 1:
                continue
            batch = self._ring.batch()
            if batch is not None:
                sent = await self._send("telemetry", report.late(batch, self._sim), 1)
