"""The node put together: control first, then the link, then the reports.

Rule: the only module that knows all the others. The control loop depends on nothing that can be away: it starts
before the network and runs on when the gateway is gone. If any task fails, `run` ends with its exception, the outputs
off.
"""

import asyncio

from node import VERSION, clock, command, config, link, log, mqtt, report, ticks
from node.store import Store

OUTBOX = 16  # acknowledgements waiting to be sent
BUSY_ROOM = 4  # of these kept for refusals: a command without room for its two acks outside them is answered `busy`
STOP_MS = 2000  # for the last words at a planned stop


def _read(path):
    with open(path, "rb") as f:
        return f.read()


class App:
    def __init__(self, profile):
        """profile: a module of profiles/. Raises config.ConfigError or link.LinkError with what to mend."""
        cfg = config.load()
        self._cfg = cfg
        self._root = cfg["root"]
        self._sim = "simulate" in cfg
        self._sensors = sorted(cfg["board"]["sensors"])
        self._store = Store()
        self._boot = int(self._store.number("boot", 0, 1 << 29, 0)) + 1
        self._store.put("boot", self._boot)
        self._time = clock.LoopTime(cfg["simulate"]["speed"] if self._sim else 1)
        limits = cfg["control"]
        setpoint = self._store.number("setpoint", limits["min"], limits["max"], limits["setpoint"])
        self._house = profile.house(cfg, self._time.now)
        self._thermostat = profile.thermostat(cfg, self._time.now, setpoint)
        self._readings = {}
        self._recent = command.Recent()
        self._pending = []  # commands accepted, to be in force after the next turn of the control loop
        self._outbox = []  # payloads for <root>/ack
        self._lost_acks = 0
        self._changed = True  # the state differs from the one published
        self._dropped = 0
        self._wake = asyncio.Event()
        self._commands = {self._root + "/" + command.SETPOINT: command.SETPOINT}
        self._verbs = self._root + "/cmd/"
        self._client = mqtt.Client(
            cfg["name"],
            (self._root + "/status", self._status("offline", why="connection lost", will=True)),
            [self._root + "/" + command.SETPOINT, self._verbs + "+"],
            cfg["link"]["keepalive_s"],
            False,  # a set point sent while the node was away must reach it
            self._on_message,
            self._birth,
        )
        self._link = link.Link(cfg["gateway"], cfg["link"], link.context(_read), self._client)
        log.info("app", "%s, firmware %s, boot %d, set point %.1f" % (cfg["name"], VERSION, self._boot, setpoint))

    async def run(self, stopping=None):
        """Run until `stopping` (a coroutine) is over, or for ever. Raises what a task raised."""
        ended = asyncio.Event()
        fault = []

        async def watch(coroutine):
            try:
                await coroutine
            except Exception as e:
                fault.append(e)
            ended.set()

        work = [self._control(), self._link.run(), self._reports()]
        self._tasks = [asyncio.create_task(watch(c)) for c in work + ([stopping] if stopping is not None else [])]
        await ended.wait()
        if fault:
            self.safe()
            raise fault[0]
        await self.stop()

    async def stop(self):
        """The planned end: outputs off, `offline` with the reason, DISCONNECT; STOP_MS at the most."""
        self._link.stopping = True
        self.safe()
        last = asyncio.create_task(self._last_words())
        begun = clock.now()
        while not last.done() and clock.since(begun) < STOP_MS:
            await asyncio.sleep_ms(20)
        log.info("app", "stopped")

    async def _last_words(self):
        status = self._status("offline", why="shutdown")
        if self._client.up and await self._client.publish(self._root + "/status", status, 1, True):
            while self._client.up and self._client.in_flight():
                await asyncio.sleep_ms(20)
        await self._client.disconnect("stopped")

    def safe(self):
        """Everything off, at once."""
        for name in ("heater", "vent"):
            self._house.write(name, False, self._time.now)

    # -- control -----------------------------------------------------------------------------------------------------

    async def _control(self):
        thermostat = self._thermostat
        before = None
        while True:
            now = self._time.turn()
            for name in self._sensors:
                self._readings[name] = self._measure(name, now)
            value, quality = self._readings["temperature"]
            thermostat.step(now, value, quality)
            # Off before on: at no moment are the two on together.
            heater, vent = thermostat.heater.on, thermostat.vent.on
            for name, on in (("heater", heater), ("vent", vent)) if vent else (("vent", vent), ("heater", heater)):
                self._house.write(name, on, now)
            after = (thermostat.setpoint, heater, vent, thermostat.mode(), thermostat.faults)
            if after != before:
                if before is None or after[1:] != before[1:]:
                    log.info("control", thermostat.reason)
                before = after
                self._changed = True
            while self._pending:
                cmd = self._pending.pop(0)
                self._recent.note(cmd, "done")
                self._ack(cmd, "done")
            self._wake.set()
            await asyncio.sleep_ms(self._time.period_ms)

    def _measure(self, name, now):
        try:
            return self._house.read(name, now)
        except OSError:  # a bus that hangs, a sensor pulled out
            return None, "missing"

    # -- commands ----------------------------------------------------------------------------------------------------

    def _on_message(self, topic, payload, retained):
        name = self._commands.get(topic)
        if name is None:
            if not topic.startswith(self._verbs):
                log.warn("app", "ignored: a message on " + topic)
                return
            name = topic[len(self._verbs) :]
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
        if cmd.why is None and len(self._outbox) + len(self._pending) + 2 > OUTBOX - BUSY_ROOM:
            cmd.why = "busy: too many commands at once"
        if cmd.why is None:
            cmd.why = self._accept(cmd)
        if cmd.why is not None:
            if not cmd.why.startswith(("busy", "retained")):  # the same command may be welcome the next time
                self._recent.note(cmd, "rejected", cmd.why)
            log.warn("app", "rejected %s: %s" % (cmd.name, cmd.why))
            self._ack(cmd, "rejected", cmd.why)

    def _accept(self, cmd):
        """Store the command and hand it to the control loop. Returns a reason if it cannot be stored."""
        thermostat = self._thermostat
        if cmd.name == command.SETPOINT:
            try:
                self._store.put("setpoint", cmd.value)
            except OSError as e:
                return "busy: the set point cannot be stored (%s)" % e
            thermostat.setpoint = cmd.value
        elif cmd.name == "heater":
            thermostat.heater_mode = cmd.value
        elif cmd.name == "vent":
            thermostat.vent_mode = cmd.value
        else:
            log.info("app", "identify: I am " + self._cfg["name"])
        log.info("app", "accepted %s %s" % (cmd.name, "" if cmd.value is None else cmd.value))
        self._recent.note(cmd, "accepted")
        self._ack(cmd, "accepted")
        self._pending.append(cmd)
        return None

    def _ack(self, cmd, stage, why=None):
        # Commands that were accepted have room kept for their `done`.
        if len(self._outbox) + (0 if stage == "done" else len(self._pending)) >= OUTBOX:
            self._lost_acks += 1
            log.warn("app", "acknowledgement dropped, %d so far" % self._lost_acks)
            return
        self._outbox.append(report.ack(cmd, stage, why, self._thermostat, clock.unix()))
        self._wake.set()

    # -- reports -----------------------------------------------------------------------------------------------------

    def _status(self, word, why=None, will=False, dropped=None):
        ts = None if will else clock.unix()
        return report.status(word, self._cfg["kind"], VERSION, self._boot, self._sim, ts, why, dropped)

    async def _birth(self):
        """Online, then the whole state; both retained."""
        log.info("link", "online at %s:%d" % (self._cfg["gateway"]["host"], self._cfg["gateway"]["port"]))
        await self._client.publish(self._root + "/status", self._status("online", dropped=self._dropped), 1, True)
        await self._state()

    async def _state(self):
        self._changed = False
        body = report.state(self._thermostat, clock.unix())
        if not await self._client.publish(self._root + "/state", body, 1, True):
            self._changed = True

    async def _reports(self):
        """Acks, state and telemetry, in this order, each when due."""
        telemetry_ms = int(self._cfg["report"]["telemetry_s"] * 1000)
        state_ms = int(self._cfg["report"]["state_s"] * 1000)
        said = stated = clock.now()
        while True:
            await self._wake.wait()
            self._wake.clear()
            ready = self._client.ready
            while ready and self._outbox:
                ready = await self._client.publish(self._root + "/ack", self._outbox[0], 1)
                if ready:
                    self._outbox.pop(0)
            if ready and (self._changed or clock.since(stated) >= state_ms):
                stated = clock.now()
                await self._state()
            if clock.since(said) >= telemetry_ms:
                said = ticks.add(said, telemetry_ms)
                if clock.since(said) >= telemetry_ms:  # later than a whole interval: do not catch up
                    said = clock.now()
                body = report.telemetry(self._readings, clock.unix(), clock.quality())
                if not ready or not await self._client.publish(self._root + "/telemetry", body):
                    # Here the offline ring will take it; until then it is dropped, counted, and told at the birth.
                    self._dropped += 1
