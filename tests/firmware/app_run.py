"""Runs on the unix port, in a node's work directory: the whole app, with tasks that fail and commands without end.

Time that limits count is injected (`clock.now`), file-system calls are counted, the gateway is not there.
Prints `ok NAME` for each check; an assertion that fails ends it.
"""

import asyncio
import gc
import json
import os

import micropython
from app_parts import Memory, Moved, Pulse, lines
from node import app, assembly, clock, hardware, log, store, vitals
from node.blackbox import BlackBox
from node.greenhouse import Greenhouse
from profiles import greenhouse

SET = "/plant/peanut/UpdateTemperature"


class CountingOs:
    """Stands before `os` in node/store.py."""

    renames = 0

    def rename(self, old, new):
        self.renames += 1
        os.rename(old, new)


def _order(a, i, topic=SET, **body):
    """One command, its answer taken away at once: the reason of its rejection, or None."""
    body["id"] = "c" + str(i)
    a._on_message(topic, json.dumps(body).encode(), False)
    why = json.loads(a._outbox[-1]).get("why")
    a._outbox.clear()
    a._pending.clear()
    return why


async def check_whatever_fails_control_goes_on():
    """Link, answers, telemetry and the wait for a stop raise all that can be raised; the loop never misses a turn."""
    seen = lines()
    app.AGAIN_S = 0.02
    a = Greenhouse(greenhouse, BlackBox(lambda *_: b"", "power"))
    faults = (MemoryError("no heap"), OSError(23), RuntimeError("ours"), KeyError("x"), ValueError("y"))
    tries = {}

    def failing(name):
        async def work(*_):
            n = tries[name] = tries.get(name, 0) + 1
            if name == "stop" and n > 10:
                while min(tries.values()) < 10:
                    await asyncio.sleep_ms(5)
                return
            await asyncio.sleep_ms(0)
            raise faults[n % len(faults)]

        return work

    a._tasks = [(name, failing(name)) for name, _ in a._tasks]
    turns = []
    turn = a._time.turn
    a._time.turn = lambda: turns.append(1) or turn()
    due = []

    async def witness():
        while True:
            due.append(1)
            await asyncio.sleep_ms(a._time.period_ms)

    witnessing = asyncio.create_task(witness())
    await a.run(failing("stop"))
    witnessing.cancel()
    assert min(tries.values()) >= 10, tries
    assert len(due) >= 10
    assert len(turns) >= len(due) // 2, (len(turns), len(due))  # on a busy machine all turns come late, not one's only
    assert [line for line in seen if "a task failed and will be started again: MemoryError: no heap" in line]


class Dog:
    """A watchdog that counts."""

    fed = 0

    def feed(self):
        self.fed += 1


async def check_the_watchdog_is_fed_while_every_task_lives():
    """Fed each second; starved, and said once, when one task of many is silent for longer than it declared."""
    memory = Memory()
    a = Greenhouse(greenhouse, BlackBox(memory, "power"))
    seen = lines()
    a._vitals._watchdog = dog = Dog()
    with Moved() as time:
        pulses = [a._vitals.watch(name, limit) for name, limit in (("control", 3000), ("link", 120000))]
        sleep = app.asyncio.sleep_ms
        task = asyncio.create_task(a._vitals.supervise())

        async def second():
            time.now += 1000
            await sleep(0)
            await sleep(0)

        app.asyncio.sleep_ms = lambda _: sleep(0)
        try:
            for i in range(300):
                pulses[0].beat(time.now)
                if i % 100 == 0:
                    pulses[1].beat(time.now, 80000)
                await second()
            fed = dog.fed
            assert fed >= 300
            for _ in range(600):
                pulses[0].beat(time.now)
                await second()
            assert 100 <= dog.fed - fed < 230, dog.fed - fed  # 80 s declared, 120 s allowed, and no more
            assert len(seen) == 1, seen
            assert "no progress of link for 121 s" in seen[0], seen
            assert BlackBox(memory, "watchdog").was == "watchdog: no progress of link for 121 s"
        finally:
            app.asyncio.sleep_ms = sleep
            task.cancel()


async def check_control_that_fails_ends_the_node_with_outputs_off():
    """The one failure that is not survived: whoever cannot control must not heat, and starts anew."""
    a = Greenhouse(greenhouse, BlackBox(lambda *_: b"", "power"))

    async def never(*_):
        while True:
            await asyncio.sleep(1)

    def step(*_):
        a._house.write("heater", True, a._time.now)
        raise RuntimeError("control is broken")

    a._tasks = [("link", never)]
    a._climate.step = step
    try:
        await a.run(never)
        raise AssertionError("still there")
    except RuntimeError:
        pass
    assert not a._house._on["heater"]


async def check_control_has_its_turn_before_the_network():
    """Whatever the way to the gateway blocks on, the outputs are where they belong by then."""
    a = _app(BlackBox(lambda *_: b"", "power"))
    turns = []
    turn = a._time.turn
    a._time.turn = lambda: turns.append(1) or turn()
    first = []

    async def blocking(*_):
        first.append(len(turns))

    async def stopping():
        while not first:
            await asyncio.sleep_ms(1)

    a._tasks = [("link", blocking)]
    await a.run(stopping)
    assert first == [1], first


async def check_every_task_is_watched():
    """Link, answers, telemetry and the others: none can be silent without the watchdog's knowing."""
    a = _app(BlackBox(lambda *_: b"", "power"))
    given = {}
    silent = asyncio.Event()
    gone = []

    def idle(name):
        async def work(pulse):
            given[name] = pulse
            await silent.wait()

        return work

    async def stopping():
        while len(given) < len(a._tasks):
            await asyncio.sleep_ms(1)
        now = clock.now()
        for name in given:
            given[name].beat(now)  # watched a moment ago: a millisecond of that would make it late
        for name in given:
            assert a._vitals._supervisor.late((now + app.SILENT_MS) & ((1 << 30) - 1)).name == "control"
            given[name].beat(now, -2 * app.SILENT_MS)
            gone.append(a._vitals._supervisor.late(now).name)
            given[name].beat(now)

    a._tasks = [(name, idle(name)) for name, _ in a._tasks]
    await a.run(stopping)
    assert gone == list(given), (gone, given)
    assert {"link", "answers", "telemetry", "backfill", "report"} <= set(gone)
    assert {"control", "mend"} <= {pulse.name for pulse in a._vitals._supervisor._pulses}


async def check_events_are_bounded_and_the_newest_kept():
    lines()
    a = Greenhouse(greenhouse, BlackBox(lambda *_: b"", "power"))
    for i in range(50):
        a.event("frost", f"it is {i} below")
    assert [json.loads(e)["text"] for e in a._events] == [f"it is {i} below" for i in range(50 - app.EVENTS, 50)]
    a.event("frost", "over", False)
    assert json.loads(a._events[-1])["clear"] is True


def _app(box):
    gc.collect()  # the one before has left holes
    return Greenhouse(greenhouse, box)


async def _turns(a, ms=100):
    """The control loop alone, for a while."""
    task = asyncio.create_task(a._control(Pulse()))
    await asyncio.sleep_ms(ms)
    task.cancel()
    await asyncio.sleep_ms(0)


async def check_vpd_is_told_where_it_is_asked_for():
    """And beside the readings alone: the ring keeps what was measured."""
    lines()
    with open("node.json") as f:
        whole = f.read()
    for asked in (False, True):
        body = json.loads(whole)
        body["report"]["air"] = asked
        body["board"]["sensors"]["humidity"] = {"driver": "greenhouse_model"}
        with open("node.json", "w") as f:
            f.write(json.dumps(body))
        try:
            a = _app(BlackBox(lambda *_: b"", "power"))
        finally:
            with open("node.json", "w") as f:
                f.write(whole)
        a._house.told = lambda name, now: [{"temperature": 20, "humidity": 50}.get(name, 0), "ok", 0]
        sent = []

        async def send(topic, text, sent=sent):
            sent.append(json.loads(text)["readings"])
            return True

        a._client.ready = True
        a._send = send
        await a._measured(None)
        names = {"temperature", "outside", "humidity"}
        assert set(sent[0]) == (names | {"vpd", "dew_point"} if asked else names), sent
        a._client.ready = False
        await a._measured(None)
        assert len(a._ring) == 1


async def check_alarms_become_events():
    """What control finds goes out as <root>/event, and again when it is over."""
    seen = lines()
    a = _app(BlackBox(lambda *_: b"", "power"))
    a._house._t = 60.0
    await _turns(a)
    event = json.loads(a._events[0])
    assert (event["id"], event["clear"]) == ("overheat", False), event
    a._house._t = 20.0
    await _turns(a)
    assert json.loads(a._events[-1])["clear"] is True
    assert [line for line in seen if "overheat: above 45" in line]


async def check_what_a_reset_must_not_forget():
    """Orders and times come back from RTC memory after a reset; after a power cut they do not."""
    lines()
    memory = Memory()
    a = _app(BlackBox(memory, "power"))
    order = ("/plant/peanut/cmd/vent", b'{"id":"c1","args":{"mode":"open"}}', False)
    a._on_message(*order)
    assert _order(a, 2, "/plant/peanut/cmd/fan", args={"mode": "on"}).startswith("unknown: this board has no fan")
    await _turns(a)
    assert a._climate.vent.on
    del a
    again = _app(BlackBox(memory, "reset"))
    assert again._climate.mode() == "vent open"
    assert not again._climate.vent.on
    assert again._climate.vent.starts == 1
    again._on_message(*order)
    assert json.loads(again._outbox[-1])["stage"] == "done"  # redelivered: the answer, no second act
    assert not again._pending
    del again
    assert _app(BlackBox(memory, "power"))._climate.mode() == "auto"
    # What has been accepted is kept before its PUBACK: a reset may come before control has had a turn.
    a = _app(BlackBox(memory, "power"))
    assert _order(a, 3, "/plant/peanut/cmd/heater", args={"mode": "off"}) is None
    del a
    assert _app(BlackBox(memory, "reset"))._climate.mode() == "heater off"


async def check_a_set_point_over_the_schedule_survives_a_power_cut():
    """It holds until the schedule's next entry, also where the power was away meanwhile; not after that entry."""
    lines()
    a = _app(BlackBox(lambda *_: b"", "power"))
    entries = [(0, 16.0), (720, 21.0)]
    a._climate._day = entries
    a._minute = lambda now: 800
    assert _order(a, 1, temperature=19) is None
    await _turns(a)
    assert (a._climate.setpoint, a._climate.held) == (19, 720)
    for minute, value, by in ((900, 19, "order"), (10, 16, "schedule"), (900, 21, "schedule")):
        again = _app(BlackBox(lambda *_: b"", "power"))
        again._climate._day = entries
        again._minute = lambda now, minute=minute: minute
        await _turns(again)
        assert (again._climate.setpoint, again._climate.by) == (value, by), minute


async def check_set_points_without_end_spare_the_flash():
    """Ten minutes of ten new set points a second: 10 writes, then one each 6 s; what is accepted is stored."""
    lines()
    with Moved() as time:
        a = Greenhouse(greenhouse, BlackBox(lambda *_: b"", "power"))
        counting = store.os = CountingOs()
        size, refill_ms = assembly.CHANGES
        for i in range(6000):
            value = 10 + i % 97 / 10
            before = counting.renames
            why = _order(a, i, temperature=value)
            if why is None:
                assert counting.renames == before + 1
                with open("state.json") as f:
                    assert json.load(f)["setpoint"] == a._climate.setpoint == round(value, 2)
            else:
                assert counting.renames == before
                assert why.startswith("busy: too many changes, the next one is taken in "), why
                assert 1 <= int(why.split(" ")[-2]) <= 6
            if i == size:
                assert counting.renames == size
                assert why is not None
            time.now += 100
        assert counting.renames == size + (6000 * 100 - 1) // refill_ms, counting.renames
        # Neither a repetition of what is in force nor another output waits for the set points.
        assert _order(a, 7000, temperature=a._climate.setpoint) is None
        assert _order(a, 7001, "/plant/peanut/cmd/heater", args={"mode": "off"}) is None
        assert a._climate.heater.off()
        store.os = os


async def check_documents_without_end_spare_the_flash():
    """Twenty seconds of ten configurations a second: 10 writes, then one each 6 s; the others hear that it is busy."""
    lines()
    with Moved() as time:
        a = _app(BlackBox(lambda *_: b"", "power"))
        counting = store.os = CountingOs()
        size, refill_ms = assembly.CHANGES
        busy = 0
        for i in range(1, 201):
            a._on_message("/plant/peanut/config/desired", b'{"gen":%d,"report":{"telemetry_s":%d}}' % (i, i), True)
            busy += a._asked["errors"] == ["busy: too many changes"]
            assert (a._cfg["report"]["telemetry_s"] == i) == (not a._asked["errors"]), (i, a._asked)
            time.now += 100
        assert counting.renames == 200 - busy == size + (200 * 100 - 1) // refill_ms, (counting.renames, busy)
        store.os = os
    os.remove("config.a")
    os.remove("config.b")


async def check_orders_without_end_spare_the_relays():
    """Vent open, vent closed, without end: ten changes at once, then one each 6 s."""
    lines()
    with Moved() as time:
        a = Greenhouse(greenhouse, BlackBox(lambda *_: b"", "power"))
        taken = 0
        for i in range(600):
            mode = "open" if a._climate.mode() != "vent open" else "closed"
            taken += _order(a, i, "/plant/peanut/cmd/vent", args={"mode": mode}) is None
            time.now += 100
        assert taken == 10 + (600 * 100 - 1) // 6000, taken


async def check_rejections_without_end_are_fewlines():
    """LINES at once, then one line each 3 s that says how many are missing: none is unaccounted for."""
    with Moved() as time:
        a = Greenhouse(greenhouse, BlackBox(lambda *_: b"", "power"))
        task = asyncio.create_task(a._answers(a._vitals.watch("answers", 1000)))
        seen = lines()
        size, refill_ms = assembly.LINES
        total = 3000
        for i in range(total):
            assert _order(a, i, temperature=99).startswith("range")
            time.now += 10
            if i % 10 == 0:
                a._wake.set()
                await asyncio.sleep_ms(0)
        time.now += refill_ms
        a._wake.set()
        await asyncio.sleep_ms(5)
        task.cancel()
        rejected = [line for line in seen if "rejected UpdateTemperature: range" in line]
        left_out = [int(line.split(" ")[3]) for line in seen if "lines about commands left out" in line]
        assert len(rejected) >= size
        assert len(seen) == len(rejected) + len(left_out) <= size + total * 10 // refill_ms + 1, len(seen)
        assert len(rejected) + sum(left_out) == total, (len(rejected), left_out)


class Instant:
    """Nobody sleeps, for a `with`: `turn(ms)` lets the tasks run up to their next sleep, so much later."""

    def __init__(self, time):
        self.time = time

    def __enter__(self):
        self.sleep = asyncio.sleep_ms
        asyncio.sleep_ms = lambda _: self.sleep(0)
        return self

    def __exit__(self, *_):
        asyncio.sleep_ms = self.sleep

    async def turn(self, ms):
        self.time.now += ms
        await self.sleep(0)
        await self.sleep(0)


class Station:
    """A radio that finds nothing."""

    def active(self, on):
        pass

    def isconnected(self):
        return False

    def status(self, what):
        return {"rssi": -61}[what]

    def config(self, what):
        raise ValueError("unknown config param")  # an image that does not tell it


async def check_without_wifi_no_try_and_in_the_end_a_restart_but_not_while_it_heats():
    """wifi.json names the networks and the country; the link waits for them."""
    lines()
    with open("wifi.json", "w") as f:
        f.write('{"format":1,"country":"DE","networks":[{"ssid":"house","password":"right"}]}')
    asked = []
    from node import powerup

    powerup.wlan = lambda *who: asked.append(who) or Station()
    a = _app(BlackBox(lambda *_: b"", "power"))
    os.remove("wifi.json")
    assert asked == [("peanut", "DE")]
    assert not a._link.network()
    a._wifi.up = True
    assert a._link.network()
    facts = a._facts()
    assert (facts["rssi"], facts["channel"], facts["wifi_lost"]) == (-61, None, 0), facts
    a._wifi.up = False
    a._over = False
    begun = clock.now()
    a._mend(begun)
    assert a._why is None
    a._wifi.hopeless = True
    a._climate.heater.force(True)
    for _ in range(50):
        a._mend(begun)
    assert a._why is None, a._why
    a._climate.heater.force(False)
    a._mend(begun)
    assert a._why == "no Wi-Fi for 30 minutes", a._why
    assert a._over


async def check_what_fails_to_mend_ends_nothing():
    """A fault in the look for what a restart mends is logged, and the node looks again."""
    seen = lines()
    a = _app(BlackBox(lambda *_: b"", "power"))
    app.MEND_MS = 20
    looks = []

    def mend(begun):
        looks.append(begun)
        raise MemoryError("no heap")

    async def stopping():
        while len(looks) < 3:
            await asyncio.sleep_ms(5)

    a._mend = mend
    await a.run(stopping)
    assert [line for line in seen if "mending failed and will be tried again: MemoryError" in line]


async def check_health_is_told_every_five_minutes_and_log_lines_one_a_second():
    """Ten lines at once; no `info`; the longest stall since the last report, once."""
    lines()
    sent = []

    async def send(topic, body):
        sent.append((topic, body))

    v = vitals.Vitals(BlackBox(lambda *_: b"", "power"), lambda: {"more": 1})
    v._told = log.count()
    with Moved() as time, Instant(time) as instant:
        v._begun = 0
        tasks = [asyncio.create_task(t) for t in (v.supervise(), v.report(Pulse(), lambda: True, send))]
        for i in range(40):
            (log.info if i % 4 == 0 else log.warn)("test", f"line {i}")
        counts = []
        for _ in range(25):
            await instant.turn(1000)
            counts.append(len([1 for topic, _ in sent if topic == "log"]))
        assert counts[0] <= vitals.LINES[0] < counts[-1] == 30, counts
        assert max([counts[i + 1] - counts[i] for i in range(24)]) <= 3, counts  # the task has turns of its own
        assert not [body for topic, body in sent if topic == "log" and " info " in body]
        await instant.turn(8000)
        for _ in range(3600):
            await instant.turn(1000)
        told = [json.loads(body) for topic, body in sent if topic == "health"]
        assert len(told) == 13, len(told)
        assert told[1]["more"] == 1
        stalls = [body["lag_ms"] for body in told]
        assert stalls[1] >= 7000 > max(stalls[2:]), stalls
        for task in tasks:
            task.cancel()


async def check_birth_tells_the_whole_state():
    """Also where nothing has changed since the last session: who has just come knows nothing."""
    lines()
    a = _app(BlackBox(lambda *_: b"", "power"))
    sent = []

    async def send(topic, body, qos=0, retain=False):
        sent.append((topic, qos, retain))
        return True

    a._send = send
    a._link.host = "gateway"
    for _ in range(2):
        sent.clear()
        await a._birth()
        assert sent == [("status", 1, True), ("state", 1, True)], sent


async def check_late_readings_wait_for_what_is_live_and_for_their_acknowledgement():
    """Eight of them: five are sent once nothing else waits, and until their PUBACK no more; then the rest."""
    lines()
    a = _app(BlackBox(lambda *_: b"", "power"))
    sent = []
    waits = True

    async def send(topic, body, qos=0, retain=False):
        sent.append((topic, qos, len(json.loads(body)["batch"])))
        return len(sent)

    a._send = send
    a._client.ready = True
    a._client.waiting = lambda ident: waits
    for i in range(8):
        a._ring.add(1767225600 + i, dict.fromkeys(a._sensors, (20.0, "ok")))
    with Moved() as time, Instant(time) as instant:
        task = asyncio.create_task(a._backfill(Pulse()))
        for live in (a._outbox, a._events):
            live.append("{}")
            for _ in range(20):
                await instant.turn(1000)
            assert not sent, (live, sent)
            live.clear()
        for _ in range(20):
            await instant.turn(1000)
        assert sent == [("telemetry", 1, 5)], sent
        assert len(a._ring) == 8
        waits = False
        for _ in range(20):
            await instant.turn(1000)
        assert sent == [("telemetry", 1, 5), ("telemetry", 1, 3)], sent
        assert len(a._ring) == 0
        task.cancel()


async def check_the_floor_of_the_clock():
    """After a power cut: the last time noted in flash, the certificate's beginning where that is later."""
    lines()
    a = _app(BlackBox(lambda *_: b"", "power"))
    a._seen = 0
    task = asyncio.create_task(a._telemetry(Pulse()))
    await asyncio.sleep_ms(50)
    task.cancel()
    now = clock.unix()
    begun = []
    real, clock.begin = clock.begin, begun.append
    _app(BlackBox(lambda *_: b"", "power"))
    a._store.put("time", 1)
    _app(BlackBox(lambda *_: b"", "power"))
    clock.begin = real
    assert now - 60 < begun[0] <= now, begun
    assert now - 400 * 86400 < begun[1] < now - 60, begun


async def check_no_memory_to_judge_a_configuration_is_said():
    """It is told as `busy`, nothing half of a module stays in memory, and the next one is judged."""
    lines()
    a = _app(BlackBox(lambda *_: b"", "power"))

    class Full:
        def __getattr__(self, name):
            raise MemoryError("no heap")

    import sys

    import node

    sys.modules["node.desired"] = node.desired = Full()
    a._configure(b'{"gen":1,"report":{"telemetry_s":30}}', True)
    assert a._configured
    assert a._asked["errors"] == ["busy: no heap"], a._asked
    assert "node.desired" not in sys.modules
    a._configure(b'{"gen":1,"report":{"telemetry_s":30}}', True)
    assert (a._asked["gen"], a._asked["errors"]) == (1, []), a._asked
    assert a._cfg["report"]["telemetry_s"] == 30
    os.remove("config.a")


class Nvs:
    """Stands for esp32.NVS: what is apart from the file system."""

    kept = b""

    def set_blob(self, key, data):
        Nvs.kept = bytes(data)

    def get_blob(self, key, buf):
        buf[: len(self.kept)] = self.kept
        return len(self.kept)

    def commit(self):
        pass


async def check_no_memory_for_a_line_ends_nothing():
    """Where not one byte is to be had, a line is lost; what is clean needs no list of its characters."""
    seen = lines()
    micropython.heap_lock()
    try:
        log.info("app", "heater on: 14.2 below 15")
    finally:
        micropython.heap_unlock()
    assert seen == []
    before = gc.mem_alloc()
    log.info("app", "x" * log.WIDTH)
    plain = gc.mem_alloc() - before
    before = gc.mem_alloc()
    log.info("app", "x" * (log.WIDTH - 1) + "\n")
    assert gc.mem_alloc() - before > plain + 2 * log.WIDTH, "the measure sees no list"
    assert len(seen) == 2
    assert seen[1].endswith("?")


class Esp32:
    NVS = staticmethod(lambda name: Nvs())


async def check_a_set_point_outlives_its_file():
    """Spoilt by a brown-out: NVS knows it."""
    lines()
    hardware.esp32 = Esp32
    assert _order(_app(BlackBox(lambda *_: b"", "power")), 1, temperature=23.5) is None
    with open("state.json", "w") as f:
        f.write("spoilt")
    again = _app(BlackBox(lambda *_: b"", "power"))
    hardware.esp32 = None
    assert again._climate.setpoint == 23.5
    assert again._boot > 1


for _name in sorted(globals()):
    if _name.startswith("check_"):
        asyncio.run(globals()[_name]())
        asyncio.new_event_loop()  # the tasks that a check left behind go with it
        lines()  # nor do its lines take room from the next
        gc.collect()
        print("ok", _name)
