"""Runs on the unix port, in a vehicle's work directory: the whole app of a vehicle, without a gateway.

Time that limits count is injected (`clock.now`). Prints `ok NAME` for each check; an assertion that fails ends it.
"""

import asyncio
import binascii
import gc
import hashlib
import json
import os

from app_parts import Memory, Moved, Pulse, lines
from node import store
from node.blackbox import BlackBox
from node.hmac import Hmac
from node.signed import FORGED, LOCKED_MS
from node.vehicle import BARE
from profiles import vehicle as profile

VIN = "1M8GDM9AXKP042788"
signer = Hmac(Hmac(hashlib.sha256(b"a car's key").digest()).sign(b"vin-cmd-v1"))


def _app(memory=lambda *_: b"", cause="power"):
    gc.collect()
    return profile.app(BlackBox(memory, cause))


def _signed(a, verb, ident="a", key=signer):
    body = {"id": ident, "cmd": verb, "epoch": a._gate.epoch, "ctr": a._gate.counter + 1, "args": ""}
    body["exp"] = a._up() + 20
    text = "|".join(["v1", VIN] + [str(body[k]) for k in ("id", "cmd", "epoch", "ctr", "exp", "args")])
    body["sig"] = binascii.hexlify(key.sign(text.encode())).decode()
    return json.dumps(body).encode()


def _give(a, verb, payload, retained=False):
    """One command, its first answer taken away: (stage, why)."""
    a._on_message(f"vin/{VIN}/{verb}", memoryview(payload), retained)
    ack = json.loads(a._outbox[-1])
    a._outbox.clear()
    return ack["stage"], ack.get("why", "")


async def _until(a, what, why):
    """The control loop alone, for a few turns and until `what()` is true; for 30 s at the most."""
    turns = []
    turn = a._time.turn
    a._time.turn = lambda: turns.append(1) or turn()
    task = asyncio.create_task(a._control(Pulse()))
    for _ in range(1500):
        if len(turns) > 2 and what():
            break
        await asyncio.sleep_ms(20)
    else:
        raise AssertionError(why)
    task.cancel()
    await asyncio.sleep_ms(0)
    a._time.turn = turn


async def check_a_lock_out_is_an_alarm_and_ends():
    """Told when it begins and when it is over; meanwhile neither a signed command nor a bare one acts."""
    lines()
    with Moved() as time:
        a = _app()
        a._plain = ["horn"]
        stranger = Hmac(b"stranger")
        for i in range(FORGED):
            assert _give(a, "unlock", _signed(a, "unlock", str(i), stranger))[1].startswith("bad_sig")
        assert json.loads(a._events[-1])["id"] == "lockout"
        assert _give(a, "unlock", _signed(a, "unlock"))[1].startswith("busy: locked for")
        assert _give(a, "horn", b"horn")[1].startswith("busy: locked")
        await _until(a, lambda: True, "a few turns")
        assert json.loads(a._events[-1])["clear"] is False
        time.now += LOCKED_MS
        await _until(a, lambda: json.loads(a._events[-1])["clear"], "the end of the alarm")
        assert _give(a, "unlock", _signed(a, "unlock", "later")) == ("accepted", "")


async def check_what_cannot_be_counted_does_not_act():
    """A flash that is full: the counter cannot be stored, so the door stays shut; and again when there is room."""
    lines()
    a = _app()

    class Full:
        def rename(self, *_):
            raise OSError(28)

    store.os = Full()
    before = a._gate.counter
    try:
        assert _give(a, "unlock", _signed(a, "unlock"))[1].startswith("busy: the counter cannot be stored")
        assert a._house.locked
        assert a._gate.counter == before
    finally:
        store.os = os
    assert _give(a, "unlock", _signed(a, "unlock")) == ("accepted", "")
    a._relays(a._time.turn())
    assert not a._house.locked
    with open("state.json") as f:
        assert json.load(f)["counter"] == a._gate.counter
    again = _app()
    assert again._gate.counter == a._gate.counter
    assert again._gate.epoch != a._gate.epoch


async def check_the_session_is_told_each_minute_and_its_clock_never_wraps():
    """Where the tick counter begins anew (every 12.4 days), the seconds since the boot go on."""
    lines()
    with Moved() as time:
        a = _app()
        a._due.clear()
        time.now = 59000
        await _until(a, lambda: True, "a few turns")
        assert not a._due.is_set()
        time.now = 60000
        await _until(a, a._due.is_set, "a minute")
        up = 60
        for _ in range(30 * 24):  # an hour a turn
            time.now = (time.now + 3600000) & ((1 << 30) - 1)
            up += 3600
            assert a._up() == up


async def check_bare_commands():
    """None without compatibility; with it, what is named, by whatever bytes, but seldom, and never a retained one."""
    lines()
    with Moved() as time:
        a = _app()
        assert a._plain == []
        assert _give(a, "lock", b"lock")[1].startswith("malformed")
        a._plain = ["lock", "horn"]
        assert _give(a, "lock", b"", True)[1].startswith("retained")
        assert _give(a, "unlock", b"unlock")[1].startswith("malformed")
        assert _give(a, "lock", b" " * 33)[1].startswith("malformed")
        assert _give(a, "lock", b' {"id":"a"}')[1].startswith("malformed")
        taken = []
        for _ in range(100):
            taken.append(_give(a, "lock", b"lock")[0] == "accepted")
            a._pending.clear()
            time.now += 100
        assert sum(taken) == BARE[0] + 10000 // BARE[1], taken


async def check_too_many_at_once_are_busy_and_each_accepted_one_is_answered():
    lines()
    a = _app()
    answers = []
    for i in range(20):
        verb = "lock" if i % 2 else "unlock"
        a._on_message(f"vin/{VIN}/{verb}", _signed(a, verb, str(i)), False)
    answers = [json.loads(ack) for ack in a._outbox]
    accepted = [ack for ack in answers if ack["stage"] == "accepted"]
    assert len(accepted) == len(a._pending) > 2
    assert [ack for ack in answers if ack.get("why", "").startswith("busy: too many")]
    await _until(a, lambda: a._in_force == len(a._pending), "every pulse is over")
    a._outbox.clear()
    while a._in_force:
        a._in_force -= 1
        a._done(a._pending.pop(0))
    assert len([1 for ack in a._outbox if json.loads(ack)["stage"] == "done"]) == len(accepted)


async def check_a_remote_start_outlives_a_reset_and_no_power_cut():
    """What was started is known to the life after a reset, which will end it; the reset itself moves nothing."""
    lines()
    memory = Memory()
    a = _app(memory)
    assert _give(a, "start", _signed(a, "start"))[0] == "rejected"  # nothing is known of the car yet
    await _until(a, lambda: a._car.reading("rpm", a._time.now) == 0, "the car is known")
    assert _give(a, "start", _signed(a, "start")) == ("accepted", "")
    await _until(a, lambda: a._car.running, "the engine runs")
    assert not a._idle()
    again = _app(memory, "reset")
    assert not again._car.idle()
    await _until(again, lambda: True, "a few turns")
    assert not again._house.running
    assert _app(memory, "power")._car.idle()


def _answers(a):
    """What became of the commands so far: [(id, stage, why)], taken away."""
    while a._in_force:
        a._in_force -= 1
        a._done(a._pending.pop(0))
    told = [json.loads(ack) for ack in a._outbox]
    a._outbox.clear()
    return [(ack["id"], ack["stage"], ack.get("why", "")) for ack in told]


class Relays:
    """Stands for drivers/dash.py: which relays closed, at what speed."""

    def __init__(self, **said):
        self.said = said
        self.closed = None
        self.done = []

    def read(self, name, now):
        return (self.said[name], "ok", 0) if name in self.said else (None, "missing")

    def told(self, name, now):
        return [self.said.get(name), "ok", 0]

    def tend(self, now):
        pass

    def idle(self):
        return self.closed is None

    def pulse(self, name, ms):
        assert self.closed is None
        self.closed = name
        self.done.append((name, self.said["speed"]))


def _turn(a):
    """One turn of the control loop, as `_control` has it."""
    now = a._time.turn()
    a._sense(now)
    a._house.tend(now)
    a._relays(now)


async def check_a_command_is_judged_again_at_the_moment_of_its_act():
    """A stop that was accepted at rest, behind a horn: the car moves off while the horn sounds. Neither the stop nor a
    start behind it closes a relay, their senders are told why, and a repetition of the stop is told the same."""
    lines()
    a = _app()
    a._house = Relays(speed=0, rpm=0, door=0, brake=0, parked=1, ambient=20)
    a._sensors = sorted(a._house.said)
    _turn(a)
    assert _give(a, "horn", _signed(a, "horn", "h")) == ("accepted", "")
    _turn(a)
    stop = _signed(a, "stop", "s")
    assert _give(a, "stop", stop) == ("accepted", "")
    assert _give(a, "start", _signed(a, "start", "g")) == ("accepted", "")
    assert _give(a, "lock", _signed(a, "lock", "l")) == ("accepted", "")
    assert not a._link.network()
    assert not a._idle()
    for _ in range(3):
        _turn(a)
    assert a._house.done == [("horn", 0)], "one relay at a time"
    a._house.said["speed"] = 30
    a._house.closed = None
    assert not a._link.network(), "between two pulses neither"
    for _ in range(3):
        _turn(a)
    assert a._house.done == [("horn", 0), ("lock", 30)], a._house.done
    why = "unsafe: moving at 30 km/h"
    assert _answers(a) == [("h", "done", ""), ("s", "rejected", why), ("g", "rejected", why)]
    assert a._car.idle(), "a start that never was is not to be ended"
    a._house.closed = None
    _turn(a)
    assert _answers(a) == [("l", "done", "")]
    a._house.said["speed"] = 0
    _turn(a)
    assert _give(a, "stop", stop) == ("rejected", why)
    assert a._house.done == [("horn", 0), ("lock", 30)]
    assert a._link.network()


async def check_of_two_starts_in_a_row_the_second_is_none():
    lines()
    a = _app()
    a._house = Relays(speed=0, rpm=0, door=0, brake=0, parked=1, ambient=20)
    a._sensors = sorted(a._house.said)
    _turn(a)
    for ident in "ab":
        assert _give(a, "start", _signed(a, "start", ident)) == ("accepted", "")
    for _ in range(3):
        _turn(a)
        a._house.closed = None
    assert a._house.done == [("start", 0)]
    assert _answers(a) == [("a", "done", ""), ("b", "rejected", "unsafe: it was started already")]


async def check_a_command_that_waited_beyond_its_time_is_late():
    lines()
    with Moved() as time:
        a = _app()
        a._house = Relays(speed=0)
        for ident, verb in (("h", "horn"), ("u", "unlock")):
            assert _give(a, verb, _signed(a, verb, ident)) == ("accepted", "")
        _turn(a)
        time.now += 20000
        a._house.closed = None
        _turn(a)
        assert _answers(a) == [("h", "done", ""), ("u", "rejected", "expired while it waited")]
        assert a._house.done == [("horn", 0)]


class Told:
    """A house whose readings are what a check says."""

    def __init__(self, **said):
        self.said = said

    def read(self, name, now):
        return (self.said[name], "ok", 0) if name in self.said else (None, "missing")


async def check_the_faster_of_two_speeds_is_true():
    """In whatever order the sensors are read; a receiver that stands says a little more than nothing."""
    lines()
    a = _app()
    for order in (["gps_speed", "speed"], ["speed", "gps_speed"]):
        a._sensors = order
        for obd, gps, speed in ((0, 80, 80), (50, 0, 50), (0, 2.9, 0), (0, 3, 3)):
            a._house = Told(speed=obd, gps_speed=gps)
            for _ in range(2):
                a._sense(a._time.now)
                assert a._car.speed(a._time.now) == speed, (order, obd, gps)
        why = a._car.refuse("stop", a._time.now)
        assert why == "unsafe: moving at 3 km/h", why


async def check_a_relay_that_is_closed_keeps_the_node_from_connecting():
    lines()
    a = _app()
    assert a._link.network()
    a._house.pulse("horn", 300)
    assert not a._link.network()
    await _until(a, a._link.network, "the relay is open")


for _name in sorted(globals()):
    if _name.startswith("check_"):
        asyncio.run(globals()[_name]())
        asyncio.new_event_loop()  # the tasks that a check left behind go with it
        lines()
        gc.collect()
        print("ok", _name)
