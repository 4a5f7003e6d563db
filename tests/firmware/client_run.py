"""Runs on the unix port: node.mqtt.Client against streams in memory, with its deadlines shortened.

Its argument is a port of 127.0.0.1 on which somebody listens. Prints `ok NAME` for each check; an assertion that fails
ends it.
"""

import asyncio
import socket
import sys

import node
from node import clock, connect, dns, link, log, mqtt, supervisor
from node.link import Stream

node.forget = lambda *names: None  # what is put in place of a part of node/connect.py stays there

TOPIC = b"\x00\x01t"
PULSE = supervisor.Pulse("link", 1000, 0)


class Fake:
    """A stream that reads what `script` holds, then waits for `close`; `stall` makes writes never end."""

    def __init__(self, script=b"", answer=True):
        self.inward = bytearray(script)
        self.outward = []
        self.answer = answer
        self.stall = False
        self.closed = False

    async def readinto(self, view):
        while not self.inward:
            if self.closed:
                raise OSError(9)
            await asyncio.sleep_ms(2)
        n = min(len(view), len(self.inward))
        view[:n] = self.inward[:n]
        self.inward = self.inward[n:]
        return n

    async def write(self, data):
        while self.stall:
            if self.closed:
                raise OSError(9)
            await asyncio.sleep_ms(2)
        self.outward.append(bytes(data))
        if data[0] == 0x82 and self.answer:
            self.inward.extend(b"\x90\x03" + data[2:4] + b"\x01")

    def close(self):
        self.closed = True


async def _nothing():
    pass


def client(on_message=None, on_session=_nothing, keepalive_s=60):
    return mqtt.Client("c", ("w", "gone"), ["t"], keepalive_s, False, on_message or (lambda *a: None), on_session)


async def _ended(c, stream, why, kind=mqtt.LOST):
    end = await c.run(stream)
    assert end == (kind, why), end
    assert not c.up
    assert not c.ready
    assert stream.closed


async def check_no_connack():
    mqtt.CONNACK_S = 0.2
    await _ended(client(keepalive_s=2), Fake(), "no CONNACK within 0 s")
    mqtt.CONNACK_S = 15


async def check_no_suback():
    mqtt.ACK_S = 0.2
    await _ended(client(keepalive_s=2), Fake(b"\x20\x02\x00\x00", answer=False), "no SUBACK within 0 s")
    mqtt.ACK_S = 30


async def check_no_puback():
    mqtt.ACK_S = 0.2
    c = client(keepalive_s=2)

    async def birth():
        assert await c.publish("s", "x", 1)

    c._on_session = birth
    await _ended(c, Fake(b"\x20\x02\x00\x00"), "no PUBACK within 0 s")
    assert c.in_flight() == 1  # kept for the next session
    mqtt.ACK_S = 30


async def check_stalled_write():
    mqtt.WRITE_S = 0.2
    c = client(keepalive_s=2)
    stream = Fake(b"\x20\x02\x00\x00")

    async def birth():
        stream.stall = True
        await c.publish("s", "x", 1)

    c._on_session = birth
    await _ended(c, stream, "the gateway takes nothing for 0 s")
    mqtt.WRITE_S = 20


class Parts(Fake):
    """A stream that reads one part after the other, and then was closed in order; a third look is one too many."""

    def __init__(self, *parts):
        super().__init__(answer=False)
        self.parts = list(parts)
        self.ends = 0

    async def readinto(self, view):
        if not self.parts:
            self.ends += 1
            if self.ends > 2:
                raise OSError(9)
            return 0
        part = self.parts.pop(0)
        view[: len(part)] = part
        return len(part)


async def check_an_orderly_close_ends_the_session_at_once():
    """Without any deadline: nothing is read any more."""
    stream = Parts(b"\x20\x02\x00\x00")
    await _ended(client(keepalive_s=3600), stream, "closed by the gateway", mqtt.CUT)
    assert stream.ends == 1


async def check_packets_may_be_cut_anywhere():
    whole = b"\x20\x02\x00\x00" + b"\x30\x05" + TOPIC + b"ab" + b"\x30\x06" + TOPIC + b"cde"
    for at in range(1, len(whole)):
        seen = []
        c = client(lambda topic, payload, retained, seen=seen: seen.append(bytes(payload)))
        await _ended(c, Parts(whole[:at], whole[at:]), "closed by the gateway", mqtt.CUT)
        assert seen == [b"ab", b"cde"], (at, seen)
        assert c._rx is mqtt._RX  # one buffer for life


async def check_handler_that_raises_is_survived():
    def broken(topic, payload, retained):
        raise RuntimeError("fault of ours")

    stream = Fake(b"\x20\x02\x00\x00" + b"\x32\x06" + TOPIC + b"\x00\x05x" + b"\xf0\x00")
    await _ended(client(broken), stream, "protocol error: packet type 15")
    assert b"\x40\x02\x00\x05" in stream.outward  # acknowledged, else it would come back for ever
    assert "fault of ours" in log.after(log.count() - 1)[1]


async def check_birth_that_raises_is_survived():
    async def broken():
        raise RuntimeError("fault of ours")

    await _ended(client(on_session=broken), Fake(b"\x20\x02\x00\x00"), "internal: fault of ours")


async def check_publish_without_a_session():
    c = client()
    assert not await c.publish("t", "x")
    assert not await c.publish("t", "x", 1)
    assert c.in_flight() == 0
    assert await c.publish("t", "x" * 5000)  # dropped, said in the log
    assert "limit 4096" in log.after(log.count() - 1)[1]


async def check_packet_ids_wrap_and_skip():
    """1 to 65535, never 0, never one in flight [MQTT-2.3.1-1], [MQTT-2.3.1-2]."""
    c = client()
    c._last_id = 65534
    c._flight = [[65535, b"", 0], [2, b"", 0]]
    assert [c._id() for _ in range(3)] == [1, 3, 4]


async def check_waiting_publisher_is_released():
    """Whoever waits for a free slot when the session ends gets False, not a wait for ever."""
    c = client()
    stream = Fake(b"\x20\x02\x00\x00")
    got = []

    async def fifth():
        while not c.ready:
            await asyncio.sleep_ms(2)
        for _ in range(5):
            got.append(await c.publish("s", "x", 1))
        stream.inward.extend(b"\xf0\x00")

    async def cut():
        while len(got) < 4:
            await asyncio.sleep_ms(2)
        await asyncio.sleep_ms(20)
        stream.inward.extend(b"\xf0\x00")

    tasks = [asyncio.create_task(fifth()), asyncio.create_task(cut())]
    await _ended(c, stream, "protocol error: packet type 15")
    for task in tasks:
        await task
    assert all(got[:4])
    assert got[4] is False
    assert c.in_flight() == mqtt.WINDOW
    assert all(c.waiting(ident) for ident in got[:4])
    assert not c.waiting(got[3] + 1)


async def check_endless_input_leaves_the_others_their_turn():
    """A gateway that sends without pause cannot keep the control loop from running."""

    class Endless(Fake):
        turns = 0

        async def readinto(self, view):
            self.turns += 1
            if self.turns == 1:
                view[:4] = b"\x20\x02\x00\x00"
                return 4
            if self.turns == 500:
                return 0
            n = len(view) // 2 * 2
            view[:n] = b"\xd0\x00" * (n // 2)
            return n

    ticks = []

    async def control():
        while True:
            ticks.append(1)
            await asyncio.sleep_ms(0)

    mqtt.ACK_S = 600  # a million packets may take a busy machine longer than a SUBACK may
    task = asyncio.create_task(control())
    await _ended(client(), Endless(), "closed by the gateway", mqtt.CUT)
    task.cancel()
    mqtt.ACK_S = 30
    assert len(ticks) > 400, len(ticks)


class _Broken:
    """A TLS context that cannot; each try fails in another way, the last of them ends the link."""

    def __init__(self, faults):
        self.faults = faults
        self.link = None
        self.socks = []

    def wrap_socket(self, sock, **_):
        self.socks.append(sock)
        fault = self.faults.pop(0)
        self.link.stopping = not self.faults
        raise fault


def _link(ctx, c):
    times = {"connect_s": 5, "base_s": 0.01, "cap_s": 0.02, "first_s": 0, "settle_s": 60, "refused_cap_s": 0.02}
    return link.Link({"host": "127.0.0.1", "port": int(sys.argv[1])}, times, ctx, c)


async def check_any_exception_of_connecting_is_a_lost_link():
    """No kind of failure ends the link for good, and each has its words; no socket is left behind."""
    said = []
    real, link.log.warn = link.log.warn, lambda module, text: said.append(text) if module == "link" else None
    faults = [
        MemoryError("no heap"),
        OSError(23),
        OSError(12),
        RuntimeError("fault of ours"),
        KeyError("x"),
        OSError(5),
    ]
    ctx = _Broken(faults)
    ctx.link = made = _link(ctx, client())
    await made.run(PULSE)
    link.log.warn = real
    words = (
        "MemoryError: no heap",
        "no socket or memory",
        "no socket or memory",
        "RuntimeError: fault of ours",
        "KeyError",
    )
    assert len(said) == len(words), said  # the sixth was the end
    for i, word in enumerate(words):
        assert word in said[i], said
        assert "again in" in said[i]
    for sock in ctx.socks:
        assert sock.fileno() == -1


async def check_any_exception_of_a_session_is_a_lost_link():
    """A session that raises instead of ending: its stream is closed, the next one comes."""
    c = client()
    streams = []
    made = _link(None, c)

    async def opened():
        streams.append(Fake())
        made.stopping = len(streams) == 3
        return streams[-1]

    async def broken(stream):
        raise MemoryError("no heap")

    made._open = opened
    c.run = broken
    await made.run(PULSE)
    assert [s.closed for s in streams] == [True] * 3
    assert "internal: MemoryError: no heap; again in" in log.after(log.count() - 1)[1]


async def check_link_can_be_cancelled():
    """Cancelling is no failure to come back from."""
    ctx = _Broken([OSError(5)] * 1000)
    ctx.link = made = _link(ctx, client())
    task = asyncio.create_task(made.run(PULSE))
    await asyncio.sleep_ms(50)
    assert not task.done()
    task.cancel()
    try:
        await task
        raise AssertionError("not cancelled")
    except asyncio.CancelledError:
        pass


class _Names:
    """Stands before `socket` in node/connect.py: each name has two addresses, and nobody listens on any of them."""

    SOCK_STREAM = 1

    def __init__(self, tries):
        self.tries = tries
        self.asked = []
        self.tried = []
        self.link = None

    def getaddrinfo(self, host, *_):
        self.asked.append(host)
        return [(2, 1, 0, "", host + " 1"), (2, 1, 0, "", host + " 2")]

    def socket(self, *_):
        return self

    def setblocking(self, on):
        pass

    def connect(self, address):
        self.tried.append(address)
        self.link.stopping = len(self.tried) == self.tries
        raise OSError(111)

    def close(self):
        pass


async def _no_time(link, name, info):
    pass


async def check_the_name_is_asked_for_at_each_try_and_every_address_has_its_turn():
    """The gateway may have moved; and of two gateways each is tried before the second address of either."""
    real, real_time = connect.socket, connect.tell_time
    connect.tell_time = _no_time
    for second, tried in ((None, ["a 1", "a 2", "a 1"]), ("b", ["a 1", "b 1", "a 2", "b 2", "a 1"])):
        made = _link(None, client())
        made._hosts = ["a", second] if second else ["a"]
        connect.socket = names = _Names(len(tried))
        names.link = made
        await made.run(PULSE)
        connect.socket = real
        assert names.tried == tried, names.tried
        assert names.asked == [address[0] for address in tried], names.asked
    connect.tell_time = real_time


async def check_a_name_in_local_is_asked_for_where_mdns_answers():
    """And not at the network's DNS server; RFC 6762 has the answer come to the port that asked."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setblocking(False)
    for port in range(20000, 30000):  # MicroPython does not say which port a socket was given
        try:
            server.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
            break
        except OSError:
            pass
    real = dns.MULTICAST, dns.WAIT_MS
    dns.MULTICAST, dns.WAIT_MS = ("127.0.0.1", port), 60000
    asking = asyncio.create_task(dns.ask("gateway.local", "192.0.2.1"))
    question = None
    while question is None:
        await asyncio.sleep_ms(10)
        try:  # noqa: SIM105
            question, sender = server.recvfrom(600)
        except OSError:
            pass
    assert question == dns.question("gateway.local", question[:2])
    answer = b"\xc0\x0c\0\x01\x80\x01\0\0\0\x78\0\x04\x0a\0\0\x07"
    for ident in (b"\0\0" if question[:2] != b"\0\0" else b"\0\1", question[:2]):  # the first is for somebody else
        server.sendto(ident + b"\x84\0\0\1\0\1\0\0\0\0" + question[12:] + answer, sender)
        answer = answer[:-1] + b"\x08"
    assert await asking == ["10.0.0.8"]
    server.close()
    dns.MULTICAST, dns.WAIT_MS = real


class _Silent:
    """Stands for node/sntp.py: counts the questions, and has no answer."""

    asked = 0

    async def ask(self, family, address):
        self.asked += 1


async def check_the_time_is_asked_for_each_minute_until_it_is_known_then_each_day():
    made = _link(None, client())
    real = clock.now, clock.quality, link.log.warn
    link.log.warn = lambda *_: None
    for quality, minutes, questions in (("floor", 60, 61), ("rtc", 60, 61), ("ntp", 3 * 1440, 4)):
        at = [0]
        clock.now = lambda at=at: at[0]
        clock.quality = lambda quality=quality: quality
        made._asked = None
        silent = _Silent()
        for second in range(0, minutes * 60 + 1, 20):
            at[0] = second * 1000
            sys.modules["node.sntp"] = node.sntp = silent
            await connect.tell_time(made, "name", (2, 1, 0, "", "address"))
        assert silent.asked == questions, (quality, silent.asked)
    del sys.modules["node.sntp"], node.sntp
    clock.now, clock.quality, link.log.warn = real


async def check_no_try_without_a_network():
    made = _link(None, client())
    tries = []
    up = []

    async def opened():
        tries.append(1)
        made.stopping = True
        raise link.LinkError("no")

    made._open = opened
    made.network = lambda: up
    task = asyncio.create_task(made.run(PULSE))
    await asyncio.sleep_ms(300)
    assert not tries
    up.append(1)
    await task
    assert tries


async def check_what_haste_does_not_mend_is_tried_seldom():
    """A wrong certificate, of which the clock may be guilty, and a refusal; a session tells how long it lived."""
    c = client()
    made = _link(None, c)
    ends = [
        link.LinkError("away"),
        link.LinkError("expired", link.CERTIFICATE),
        (mqtt.REFUSED, "not authorised"),
        (mqtt.LOST, "gone"),
    ]
    waits = []

    async def opened():
        if isinstance(ends[0], link.LinkError):
            raise ends.pop(0)
        return Fake()

    async def run(stream):
        await asyncio.sleep_ms(20)
        return ends.pop(0)

    def after(lived, hopeless):
        waits.append((lived > 0.01, hopeless, made._asked))
        made._asked = 5
        made.stopping = len(waits) == 4
        return 0

    made._open = opened
    c.run = run
    made._asked = 5
    made._backoff.next = after
    await made.run(PULSE)
    assert waits == [(False, False, 5), (False, True, None), (True, True, 5), (True, False, 5)], waits
    assert made.ends == {mqtt.LOST: 2, link.CERTIFICATE: 1, mqtt.REFUSED: 1}, made.ends


async def check_twins_are_not_fought():
    """From the fifth session on that is cut right after its welcome, the next try comes as late as after a refusal."""
    c = client()
    made = _link(None, c)
    waits = []

    async def opened():
        return Fake()

    async def run(stream):
        c.welcome = True
        return mqtt.CUT, "cut"

    def after(lived, hopeless):
        waits.append(hopeless)
        made.stopping = len(waits) == 7
        return 0

    made._open = opened
    c.run = run
    made._backoff.next = after
    await made.run(PULSE)
    assert waits == [False] * (link.TWIN_CUTS - 1) + [True] * 3, waits
    assert made.twins


async def check_a_guard_that_fails_ends_the_session():
    """No session without its deadlines."""
    c = client(keepalive_s=2)

    async def broken(epoch):
        raise MemoryError("no heap")

    c._watch = broken
    await _ended(c, Fake(), "internal: the deadlines cannot be watched")


async def check_stop():
    c = client()
    stream = Fake(b"\x20\x02\x00\x00")

    async def stop():
        while not c.ready:
            await asyncio.sleep_ms(2)
        await c.disconnect("stopped")

    task = asyncio.create_task(stop())
    await _ended(c, stream, "stopped", mqtt.STOPPED)
    await task
    assert stream.outward[-1] == b"\xe0\x00"


async def check_stream_close_ends_a_write():
    class Sock:
        def write(self, data):
            return None

        def ioctl(self, *a):
            return 0

        def close(self):
            pass

    s = Stream(Sock())

    async def close():
        await asyncio.sleep_ms(30)
        s.close()

    task = asyncio.create_task(close())
    try:
        await s.write(b"x")
        raise AssertionError("written")
    except OSError:
        pass
    await task


for _name in sorted(globals()):
    if _name.startswith("check_"):
        asyncio.run(globals()[_name]())
        print("ok", _name)
