"""The node of a vehicle: its session, signed commands and their receipts, and what it tells of itself.

Rule: what node/app.py does for every node is not done here. A relay closes for a command that the gate (signed.py)
let through and the car (car.py) did not refuse, and for nothing else but what such a command has set going. A session
is clean, and commands are subscribed to after the session was published: none from before can arrive.
"""

import asyncio
import json

from node import clock, forget, log, report, ticks
from node.app import App
from node.signed import LOCKED_MS, VERBS, Order

PERIOD_MS = 100  # between two turns of the control loop
SESSION_S = 60  # between two publications of the session
ASKED = (10, 1000)  # times at once that the session is told to who asks, and ms to one more
BARE = (5, 6000)  # the same for commands without a signature
MAX_BARE = 32  # bytes of one
MAX_ECHO = 64  # characters of a payload repeated in an answer
STILL = 3  # km/h: below it, a GPS receiver that stands says as much


class Vehicle(App):
    """Composed in profiles/vehicle.py.

    _gate, _car   what may act, and how
    _plain        verbs obeyed without a signature
    _acting       whether the first command of _pending that is not in force has its relay closed
    _seal         node.seal.Seal, or None
    """

    _faults = None  # words of node/proof.py, once it was asked
    CLEAN = True  # an unlock that was sent while the car was in a tunnel must not open it hours later

    def _idle(self):
        """Parked, and nothing that a command has set going is still to be ended."""
        return self._car.stands() and self._car.idle() and self._at_rest()

    def _ailing(self):
        """Of this application, not of the car: a sensor that falls silent when the engine stops is no fault of it."""
        if self._faults is None:
            from node import proof

            self._faults = proof.faults()
            forget("node.proof")
        return self._faults

    def _reachable(self):
        """Not while a relay is closed: connecting may stop the program, and with it the timers' callbacks."""
        return self._at_rest() and App._reachable(self)

    def _at_rest(self):
        return self._house.idle() and not self._pending

    def _up(self):
        """Whole seconds since the boot; called often, so that ticks may wrap."""
        now = clock.now()
        self._up_ms += ticks.diff(now, self._up_at)
        self._up_at = now
        self._up_s += self._up_ms // 1000
        self._up_ms %= 1000
        return self._up_s

    # -- control -----------------------------------------------------------------------------------------------------

    async def _control(self, pulse):
        before = None
        told = 0
        while True:
            now = self._time.turn()
            self._sense(now)
            self._house.tend(now)
            self._relays(now)
            after = (self._car.locked, self._car.running, self._car.reason, self._car.reading("door", now))
            if after != before:
                if before is not None and after[2] != before[2]:
                    log.info("control", after[2])
                before = after
                self._changed = True
                self._box.keep(actuators=self._car.export(now))
            if self._alarm and not self._gate.locked(clock.now()):
                self._alarm = False
                self.event("lockout", "remote commands are judged again", False)
            if self._up() - told >= SESSION_S:
                told = self._up_s
                self._due.set()
            self._wake.set()
            pulse.beat(clock.now())
            await asyncio.sleep_ms(self._time.period_ms)

    def _relays(self, now):
        """At most one relay: what is to be ended first, then the commands in their order, each judged once more."""
        ending = self._car.step(now)
        if not self._house.idle():
            return
        self._in_force += self._acting
        self._acting = False
        if ending:
            self._house.pulse(ending[0], self._car.act(ending[0], now, ending[1]))
        elif self._in_force < len(self._pending):
            order = self._pending[self._in_force]
            order.why = self._car.unsafe(order.verb, now)
            if order.exp is not None and order.exp <= self._up():
                order.why = "expired while it waited"
            if order.why is None:
                self._acting = True
                self._house.pulse(order.verb, self._car.act(order.verb, now))
            else:
                self._in_force += 1

    def _sense(self, now):
        car = self._car
        for name in self._sensors:
            reading = self._house.read(name, now)
            then = ticks.add(now, -reading[2]) if len(reading) > 2 else now
            value = reading[0]
            if name == "gps_speed" and value is not None and value < STILL:
                value = 0
            car.sense(name, value, reading[1], then)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _order(self, name, payload, retained):
        """<root>/cmd/<name>: `session` has no signature, for it moves nothing."""
        if name == "session":
            if not retained and not self._asked_for.take(clock.now()):
                self._due.set()
            return
        order = self._looked_at(name, payload)
        order.why = "unknown command; known: session, and beside cmd/ " + ", ".join(VERBS)
        self._refused(order)

    def _command(self, verb, payload, retained):
        """<root>/<verb>."""
        now = clock.now()
        if verb in self._plain and len(payload) <= MAX_BARE and bytes(payload).lstrip()[:1] != b"{":
            order = self._looked_at(verb, payload)
            order.why = self._refuse_bare(retained, now)
        else:
            order = self._gate.judge(verb, payload, retained, now, self._up())
            order.echo = _printable(payload)
        if self._gate.alarm:
            self._gate.alarm = False
            self._alarm = True
            self.event("lockout", "forged commands: none is judged for %d s" % (LOCKED_MS // 1000))
        if order.again:
            self._ack(order, order.answer[0], order.answer[1])
            return
        if order.why is None:
            order.why = self._hinder(verb)
            if order.why is None:
                self._accepted(order)
                return
            self._gate.answered(order, "rejected", order.why)
        self._refused(order)

    def _looked_at(self, verb, payload):
        """An order that the gate has no word in."""
        order = Order(_printable(verb.encode()), bytes(payload[:MAX_BARE]))
        order.echo = _printable(payload)
        return order

    def _refuse_bare(self, retained, now):
        """Why a command without a signature must not act, or None. Asks the limits, so ask once."""
        if retained:
            return "retained: a command must not be retained"
        if self._gate.locked(now):
            return "busy: locked after forged commands"
        wait = self._bare.take(now)
        return "busy: the next one without a signature in %d s" % ((wait + 999) // 1000) if wait else None

    def _hinder(self, verb):
        if self._crowded():
            return "busy: too many commands at once"
        if verb not in self._cfg["board"]["outputs"]:
            return "unknown: this board has no " + verb
        return self._car.refuse(verb, self._time.now)

    def _accepted(self, order):
        self._tell(log.info, "accepted %s%s" % (order.verb, "" if order.id else ", without a signature"))
        self._ack(order, "accepted")
        self._pending.append(order)
        self._changed = True
        self._due.set()

    def _refused(self, order):
        self._tell(log.warn, "rejected %s: %s" % (order.verb, order.why))
        self._ack(order, "rejected", order.why)

    def _done(self, order):
        """The pulse is over, or there was none: what was safe when the command came no longer is."""
        self._gate.answered(order, "rejected" if order.why else "done", order.why)
        if order.why:
            self._refused(order)
        else:
            self._ack(order, "done")

    def _answer(self, order, stage, why):
        body = {"cmd": order.verb, "stage": stage, "state": self._brief(), "ts": clock.unix()}
        body["sig"] = self._gate.receipt(order, stage, why)
        if order.id:
            body["id"] = order.id
        else:
            body["echo"] = order.echo
        if order.ctr is not None:
            body["ctr"] = order.ctr
        if why:
            body["why"] = why
        return json.dumps(body)

    # -- the session -------------------------------------------------------------------------------------------------

    async def _before(self):
        await self._tell_session()

    async def _tell_session(self):
        return await self._send("session", json.dumps(self._gate.session(self._up())), 1, True)

    async def _session(self, pulse):
        """Each SESSION_S, after each command that was accepted, and to who asks."""
        while True:
            await self._due.wait()
            self._due.clear()
            pulse.beat(clock.now())
            if self._client.ready:
                await self._tell_session()

    # -- reports -----------------------------------------------------------------------------------------------------

    def _reconfigured(self):
        pass

    def _dropped(self):
        return None  # nothing is kept while there is no session

    def _own_facts(self, body):
        body["can"] = self._can

    def _brief(self):
        now = self._time.now
        car = self._car
        return {"locked": car.locked, "running": car.running, "door": car.open(now), "speed": car.speed(now)}

    def _state_body(self):
        body = self._brief()
        body["reason"] = self._car.reason
        body["faults"] = [n for n in self._sensors if self._house.told(n, self._time.now)[1] != "ok"]
        if self._plain:
            body["compat"] = list(self._plain)
        body["ts"] = clock.unix()
        return json.dumps(body)

    async def _measured(self, ts):
        readings = {}
        for name in self._sensors:
            value, quality, age = self._house.told(name, self._time.now)
            # A degree of latitude is 111 km: two decimals would be a village.
            place = name == "latitude" or name == "longitude"
            readings[name] = [round(value, 5) if place and value is not None else report.number(value), quality, age]
        body = {"ts": ts, "tq": clock.quality(), "readings": readings}
        codes = self._house.codes()
        if codes is not None:
            body["codes"] = codes
        if self._sim:
            body["sim"] = True
        if self._client.ready:
            body = json.dumps(body)
            await self._send("telemetry", body if self._seal is None else self._seal.close("telemetry", body))


def _printable(raw):
    return "".join([chr(b) if 32 <= b < 127 else "?" for b in bytes(raw[:MAX_ECHO])])
