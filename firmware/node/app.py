"""What every node does, whatever it is: its link, tasks and pulses, answers, events, reports, its configuration.

Rule: what a kind of node does itself is a subclass in a module of its own (node/greenhouse.py), so that no kind has
another's code in memory. The control loop depends on nothing that can be away: it starts before the network and runs on
when the gateway is gone. If it fails itself, `run` ends with its exception, the outputs off; whatever else fails is
logged and started again. What the gateway can make this node do often has a limit.

Each task has a pulse (node/supervisor.py), and the watchdog is fed while all of them beat. To hook in:
    self._tasks         (name, coroutine function with a Pulse as its argument): one line more is one task more
    self._topics        topic: function (payload, retained), before its PUBACK: one line more is one subscription more
    self.event(...)     an alarm begins or is over; sent when there is a session
    self.restart(why)   the planned end: `offline` with the reason, outputs off, a reset
What it is made of is put together in node/assembly.py. A kind of node fills in what stands under "what a kind of node
does itself".
"""

import asyncio

from node import VERSION, borrow, clock, forget, hardware, log, report, ticks

OUTBOX = 16  # acknowledgements waiting to be sent
BUSY_ROOM = 4  # of these kept for refusals: a command without room for its two acks outside them is answered `busy`
ACKS_A_TURN = 4  # acknowledgements sent before the state gets its turn
STOP_MS = 2000  # for the last words at a planned stop
AGAIN_S = 5  # between two looks for tasks that failed, to start them again
MEND_MS = 1000  # between two looks for what only a restart mends
TURN_MS = 50  # between two looks whether the node is to end
EVENTS = 8  # waiting to be sent; the oldest give way
SILENT_MS = 120000  # so long a task may show no progress
CONTROL_PERIODS = 3  # so many turns the control loop may miss
DAY_S = 86400  # between two notes of the time in flash


class App:
    CLEAN = False  # whether a session begins without what was sent while the node was away
    _before = None  # a coroutine function: what is published before the subscriptions

    def __init__(self, profile, box):
        """profile: a module of profiles/; box: node.blackbox.BlackBox. Raises ConfigError with what to mend."""
        from node import assembly

        assembly.assemble(self, profile, box)
        forget("node.assembly")

    # -- what a kind of node does itself -----------------------------------------------------------------------------
    #
    # _control(pulse)             the control loop, a coroutine
    # _order(name, payload, retained)   a command on <root>/cmd/<name>, or what _topics leads there
    # _answer(cmd, stage, why)    the payload of an acknowledgement
    # _done(cmd)                  a pending command is in force
    # _idle()                     whether a restart that nobody ordered does no harm
    # _dropped()                  records of readings given up since boot
    # _reconfigured()             the configuration may have changed
    # _own_facts(body)            add to the health report what this kind of node knows
    # _state_body()               the payload of <root>/state
    # _measured(ts)               send the readings, a coroutine

    _since = None  # ticks since which somebody looks for this node (`identify`); a name that costs none

    def _ailing(self):
        """Words for what is wrong with the control: what an update must not make worse."""
        return []

    # -- its life ----------------------------------------------------------------------------------------------------

    async def run(self, stopping=None):
        """Run until `stopping` (a coroutine function) is over or `restart` was called; returns the reason to start
        again, or None. Raises what the control loop raised."""
        self._over = False
        self._fault = None
        works = [(self._control, self._vitals.watch("control", CONTROL_PERIODS * clock.LoopTime.PERIOD_MS))]
        works += [(work, self._vitals.watch(name, SILENT_MS)) for name, work in self._tasks]
        works.append((self._vitals.supervise,))
        if stopping is not None:
            works.append((self._end_with, stopping))
        self._running = [asyncio.create_task(w[0](*w[1:])) for w in works]
        asyncio.get_event_loop().set_exception_handler(self._failed)
        pulse = self._vitals.watch("mend", SILENT_MS)
        begun = looked = mended = clock.now()
        while not self._over:
            await asyncio.sleep_ms(TURN_MS)
            if clock.since(looked) >= AGAIN_S * 1000:
                looked = clock.now()
                self._revive(works)
            if clock.since(mended) >= MEND_MS:
                mended = clock.now()
                pulse.beat(mended)
                try:
                    self._mend(begun)
                except Exception as e:
                    log.fault("app", "mending failed and will be tried again", e)
        if self._fault:
            raise self._fault
        await self.stop()
        return self._why

    async def _end_with(self, stopping):
        await stopping()
        self._over = True

    def _failed(self, loop, context):
        """A task ended by an exception. That of the control loop ends the node; another's stays its own."""
        if context["future"] is self._running[0]:
            self._fault = context["exception"]
            self._over = True
            self.safe()
        else:
            log.fault("app", "a task failed and will be started again", context["exception"])

    def _revive(self, works):
        """Start again the tasks that failed."""
        for i, task in enumerate(self._running):
            if i and task.done():
                try:
                    self._running[i] = asyncio.create_task(works[i][0](*works[i][1:]))
                except MemoryError:  # later, then
                    pass

    def restart(self, why):
        """End in order, with this reason in the last status, and start again."""
        log.warn("app", "restart: " + why)
        self._why = why
        self._over = True

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
        status = self._status("offline", why=self._why or "shutdown")
        if self._client.up and await self._send("status", status, 1, True):
            while self._client.up and self._client.in_flight():
                await asyncio.sleep_ms(20)
        await self._client.disconnect("stopped")

    def safe(self):
        """Every output to its safe level, at once."""
        for name, on in self._cfg["board"]["outputs"].items():
            self._house.write(name, on, self._time.now)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _on_message(self, topic, payload, retained):
        take = self._topics.get(topic)
        if take is not None:
            take(payload, retained)
        elif topic.startswith(self._verbs):
            self._order(topic[len(self._verbs) :], payload, retained)
        else:
            self._tell(log.warn, "ignored: a message on " + topic)

    def _crowded(self):
        """Whether a command has no room for its two acknowledgements, but for that of its refusal."""
        return len(self._outbox) + len(self._pending) + 2 > OUTBOX - BUSY_ROOM

    def _ack(self, cmd, stage, why=None):
        # Commands that were accepted have room kept for their `done`.
        if len(self._outbox) + (0 if stage == "done" else len(self._pending)) >= OUTBOX:
            self._lost_acks += 1
            self._tell(log.warn, "acknowledgement dropped, %d so far" % self._lost_acks)
            return
        self._outbox.append(self._answer(cmd, stage, why))
        self._wake.set()

    def _tell(self, write, text):
        """A log line about a command: left out, and counted, where there are too many of them."""
        if self._untold or self._lines.take(clock.now()):
            self._untold += 1
        else:
            write("app", text)

    # -- configuration -----------------------------------------------------------------------------------------------

    def _configure(self, payload, retained):
        """A configuration from the gateway; nothing: the retained one was removed."""
        if payload:
            self._configured = True
            self._change("configure", self._asked, payload)
            self._reconfigured()

    def _renew(self, payload, retained):
        """A certificate from the gateway."""
        if payload and not retained:
            self._change("renew", self._cert, payload)

    def _change(self, what, told, *args):
        """A function of node/changes.py, which is in memory meanwhile only. told: what is reported of it."""
        self._wake.set()
        try:
            from node import changes

            getattr(changes, what)(self, *args)
        except MemoryError as e:  # not even to judge it; it will come again
            told["errors"] = ["busy: %s" % e]
        finally:
            changes = None
            forget("node.changes")

    # -- reports -----------------------------------------------------------------------------------------------------

    def _status(self, word, why=None, will=False, dropped=None):
        ts = None if will else clock.unix()
        return report.status(word, self._cfg["kind"], VERSION, self._boot, self._sim, ts, why, dropped)

    def event(self, ident, text, begins=True):
        """An alarm: `ident` names its kind, and comes again with begins=False when it is over."""
        log.info("event", "%s: %s" % (ident, text))
        if len(self._events) >= EVENTS:
            self._events.pop(0)
        self._events.append(report.event(ident, text, begins, clock.unix()))
        self._wake.set()

    async def _send(self, topic, body, qos=0, retain=False):
        """Publish under <root>; False if there is no session."""
        return await self._client.publish(self._root + "/" + topic, body, qos, retain)

    async def _birth(self):
        """Online, then the whole state; both retained."""
        log.info("link", "online at %s:%d" % (self._link.host, self._link.port))
        if self._link.twins:
            self._link.twins = False
            self.event("identity", "another node came with this one's certificate, again and again")
        await self._send("status", self._status("online", dropped=self._dropped()), 1, True)
        await self._state()

    async def _state(self):
        self._changed = False
        if not await self._send("state", self._state_body(), 1, True):
            self._changed = True

    def _facts(self):
        """What the app adds to the health report."""
        return borrow("node.health").facts(self)

    async def _report(self, pulse):
        await self._vitals.report(pulse, lambda: self._client.ready, self._send)

    async def _radio(self, pulse):
        while True:
            ms = self._wifi.step(clock.now())
            pulse.beat(clock.now(), ms)
            await asyncio.sleep_ms(ms)

    def _reachable(self):
        """Whether this is the time to connect."""
        return self._wifi is None or self._wifi.up

    def _mend(self, begun):
        """Restarts that nobody ordered: where nothing else can help, at a moment when that does no harm; and at the end
        of a trial, where what was before returns."""
        if self._trials and (self._client.ready or clock.since(begun) > self._cfg["link"]["trial_s"] * 1000):
            self._change("settle", {})
        why = "no Wi-Fi for 30 minutes" if self._wifi is not None and self._wifi.hopeless else None
        if self._link.starving:
            why = "no memory for TLS"
        if self._renewed:
            why = "certificate"
        if why is not None and self._idle():
            self._renewed = False
            self.restart(why)

    async def _answers(self, pulse):
        """What waits for a place in flight: acks, events, state, by turns: a flood of commands starves none of them."""
        stated = clock.now()
        while True:
            await self._wake.wait()
            state_ms = int(self._cfg["report"]["state_s"] * 1000)
            self._wake.clear()
            pulse.beat(clock.now())
            while self._in_force:
                self._in_force -= 1
                self._done(self._pending.pop(0))
            if self._untold and not self._lines.take(clock.now()):
                log.warn("app", "%d lines about commands left out" % self._untold)
                self._untold = 0
            for _ in range(min(ACKS_A_TURN, len(self._outbox))):
                if not self._client.ready or not await self._send("ack", self._outbox[0], 1):
                    break
                self._outbox.pop(0)
            if self._events and self._client.ready and await self._send("event", self._events[0], 1):
                self._events.pop(0)
            if self._client.ready and (self._changed or clock.since(stated) >= state_ms):
                stated = clock.now()
                await self._state()
            if self._configured and self._client.ready:
                told = report.configured(self._asked, clock.unix())
                self._configured = False
                if not await self._send("config/reported", told, 1, True):
                    self._configured = True
            if self._certified and self._client.up and (self._client.ready or self._client.limited):
                self._cert["chip"] = hardware.chip()
                told = report.configured(self._cert, clock.unix())
                self._certified = False  # before it is sent: there may be something new meanwhile
                if not await self._send("cert/reported", told, 1, True):
                    self._certified = True
            if (self._outbox or self._events) and self._client.ready:
                self._wake.set()
            await asyncio.sleep_ms(0)

    async def _telemetry(self, pulse):
        """QoS 0, so it waits for no place in flight; a task of its own, so it waits for no ack either."""
        said = clock.now()
        while True:
            now = clock.unix()
            if now is not None and abs(now - self._seen) > DAY_S:  # the floor after the next power cut
                self._seen = now
                self._store.put("time", now)
            period_ms = int(self._cfg["report"]["telemetry_s"] * 1000)
            wait = max(0, period_ms - clock.since(said))
            pulse.beat(clock.now(), wait)
            await asyncio.sleep_ms(wait)
            said = ticks.add(said, period_ms)
            if clock.since(said) >= period_ms:  # later than a whole interval: do not catch up
                said = clock.now()
            await self._measured(clock.unix())
