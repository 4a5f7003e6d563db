"""An MQTT 3.1.1 client for asyncio: QoS 0 and 1 both ways, one receive buffer, a deadline on everything.

Rule: whatever the gateway sends or fails to send, `run` ends with a reason in words; it never raises, grows or waits
for ever. No read is ever wrapped in a timeout: a task of its own watches the deadlines and closes the stream, and the
read ends by that. Numbers in brackets are statements of the standard (MQTT 3.1.1, OASIS, 29 October 2014).

The stream is made by node/link.py:  n = await readinto(buffer); await write(buffer); close()
"""

import asyncio
import errno

from node import clock, forget, log

MAX_PACKET = 4096  # bytes after the fixed header, in and out; a larger packet is refused before a byte of it is read
WINDOW = 4  # QoS 1 messages in flight
CONNACK_S = 15
ACK_S = 30  # for PUBACK and SUBACK; TCP loses nothing, so a late one means a sick gateway
WRITE_S = 20  # for the other side to take what is being written

# How a session ended.
LOST = "lost"
CUT = "cut"  # by the gateway, without a word
REFUSED = "refused"  # trying again soon will not help
STOPPED = "stopped"

# What the end of a connection looks like to a socket that was writing: EPIPE, and the resets of Linux and of lwIP.
BROKEN = (32, errno.ECONNRESET, errno.ECONNABORTED)

# The receive buffer: one client a node, and the largest block of its heap, so it is taken before the heap is in pieces.
_RX = bytearray(MAX_PACKET + 5)

_PINGREQ = b"\xc0\x00"
_DISCONNECT = b"\xe0\x00"


class Closed(Exception):
    """Inside this file: the session is over. args: (words, kind)."""

    def __init__(self, why, kind=LOST):
        super().__init__(why)
        self.why = why
        self.kind = kind


def remaining_length(n):
    """The variable length of the fixed header [2.2.3]."""
    out = bytearray()
    while True:
        byte = n & 0x7F
        n >>= 7
        out.append(byte | 0x80 if n else byte)
        if not n:
            return out


def string(data):
    """str or bytes with their length before them [1.5.3]."""
    data = data.encode() if isinstance(data, str) else data
    return len(data).to_bytes(2, "big") + data


def packet(first, *parts):
    """A control packet; `first` is its first byte."""
    size = sum([len(p) for p in parts])
    out = bytearray((first,))
    out.extend(remaining_length(size))
    for part in parts:
        out.extend(part)
    return out


class Client:
    """One client for the life of the node; `run` once for each connection.

    on_message(topic: str, payload: memoryview, retained: bool) is called for every message, before its PUBACK is
    sent: what it has accepted, it must have stored. The view is valid until it returns. It must not block; what it
    raises is logged. on_session() is a coroutine function, called when the subscriptions stand: the birth.
    """

    def __init__(self, client_id, will, subscriptions, keepalive_s, clean, on_message, on_session):
        """will: (topic, payload), retained, QoS 1. subscriptions: topic filters, QoS 1. clean: no session is kept."""
        self.client_id = client_id
        self.will = will
        self.subscriptions = subscriptions
        self.keepalive_s = keepalive_s
        self.clean = clean
        self._on_message = on_message
        self._on_session = on_session
        self.up = False  # CONNACK was good
        self.ready = False  # subscribed, and the birth is on its way
        self.welcome = False  # the last session got as far as a good CONNACK
        self.before = None  # a coroutine function, called before the subscriptions
        self.limited = False  # it may have its certificate renewed, and nothing else
        self.alive = lambda: None  # called each turn in which the deadlines of a session were watched
        self._stream = None
        self._why = None
        self._epoch = 0
        self._flight = []  # [packet id, packet, ticks when sent], oldest first
        self._last_id = 0
        self._moved = asyncio.Event()  # a slot became free, a packet was written, or the session ended
        self._rx = _RX

    # -- a session ---------------------------------------------------------------------------------------------------

    async def run(self, stream):
        """Serve one connection, on which `hello` was written, to its end. Returns (kind, words): how and why."""
        self._epoch += 1
        self._stream = stream
        self._why = None
        self._session = None
        self.welcome = False
        self._suback = None
        self._writing = None  # ticks when the packet was begun that is being written; one at a time
        self._ping_task = None
        self._heard = self._sent = self._begun = clock.now()
        guard = asyncio.create_task(self._guard(self._epoch))
        opening = asyncio.create_task(self._open(self._epoch))
        try:
            await self._read()
        except Closed as e:
            self._fail(e.why, e.kind)
        except OSError as e:
            if e.errno in BROKEN:
                self._fail("closed by the gateway", CUT)
            else:
                self._fail("connection lost (%s)" % e)
        except Exception as e:  # MemoryError, or a fault of ours: the node goes on with the next session
            self._fail("internal: %s: %s" % (type(e).__name__, e))
        finally:
            self.up = self.ready = False
            stream.close()
            guard.cancel()
            opening.cancel()
            self._moved.set()
        return self._why

    def _fail(self, why, kind=LOST):
        """End the session; the first reason stands."""
        if self._why is None:
            self._why = (kind, why)
        self.up = self.ready = False
        self._stream.close()
        self._moved.set()

    async def _open(self, epoch):
        """Begin the session; how, is in memory meanwhile only."""
        try:
            from node import birth

            if await birth.begin(self, epoch):
                self.ready = self._epoch == epoch and self.up
        except OSError:
            pass  # the reader sees it as well, and says so
        except Exception as e:
            log.fault("mqtt", "birth", e)
            if self._epoch == epoch:
                self._fail("internal: %s" % e)
        finally:
            birth = None  # a task that is over keeps what its variables name
            forget("node.birth")

    async def _change(self, epoch):
        """Wait until something moved. False if the session of this epoch is over."""
        self._moved.clear()
        await self._moved.wait()
        return self._epoch == epoch and self._why is None

    async def _guard(self, epoch):
        """The deadlines: a session without them is none. Never writes itself, so that nothing can stall it."""
        try:
            await self._watch(epoch)
        except Exception as e:
            log.fault("mqtt", "deadlines", e)
            if self._epoch == epoch:
                self._fail("internal: the deadlines cannot be watched")

    async def _watch(self, epoch):
        turn_ms = min(1000, self.keepalive_s * 1000 // 8)
        quiet_ms = self.keepalive_s * 250  # a quarter of keep alive
        dead_ms = self.keepalive_s * 1500
        while self._epoch == epoch and self._why is None:
            await asyncio.sleep_ms(turn_ms)
            self.alive()
            if self._session is None and clock.since(self._begun) > CONNACK_S * 1000:
                self._fail("no CONNACK within %d s" % CONNACK_S)
            elif self._writing is not None and clock.since(self._writing) > WRITE_S * 1000:
                self._fail("the gateway takes nothing for %d s" % WRITE_S)
            elif clock.since(self._heard) > dead_ms:
                self._fail("no whole packet heard for %d s" % (dead_ms // 1000))
            elif self._suback is not None and clock.since(self._suback[1]) > ACK_S * 1000:
                self._fail("no SUBACK within %d s" % ACK_S)
            elif self.up and self._flight and clock.since(self._flight[0][2]) > ACK_S * 1000:
                self._fail("no PUBACK within %d s" % ACK_S)
            elif self.up and not self._ping_task and max(clock.since(self._heard), clock.since(self._sent)) >= quiet_ms:
                self._ping_task = asyncio.create_task(self._ping())

    async def _ping(self):
        try:
            await self._send(_PINGREQ)
        except Exception:  # a dead session tells its reader; what else there is (MemoryError), the next turn mends
            pass
        self._ping_task = None

    # -- out ---------------------------------------------------------------------------------------------------------

    async def _send(self, packet):
        """One packet, whole. Raises OSError when the stream fails or the session changes meanwhile."""
        epoch = self._epoch
        while self._writing is not None:
            if not await self._change(epoch):
                break
        if epoch != self._epoch or self._why is not None:
            raise OSError("session over")
        self._writing = self._sent = clock.now()
        try:
            await self._stream.write(packet)
        finally:
            if epoch == self._epoch:
                self._writing = None
            self._moved.set()

    def _id(self):
        """A packet id that is not in flight [MQTT-2.3.1-2]."""
        while True:
            self._last_id = self._last_id % 65535 + 1
            for slot in self._flight:
                if slot[0] == self._last_id:
                    break
            else:
                return self._last_id

    async def publish(self, topic, payload, qos=0, retain=False):
        """Publish. True, or with QoS 1 the packet id (see `waiting`): on its way; with QoS 1 it is kept and repeated
        until acknowledged, over reconnects.

        False: there is no session, and it is the caller's to keep. Waits while WINDOW are in flight. A packet that
        is too large is dropped, with an error in the log.
        """
        if isinstance(payload, str):
            payload = payload.encode()
        size = 4 + len(topic) + len(payload)
        if size > MAX_PACKET:
            log.error("mqtt", "not sent: %d bytes to %s, limit %d" % (size, topic, MAX_PACKET))
            return True
        epoch = self._epoch
        if not self.up:
            return False
        first = 0x30 | qos << 1 | (1 if retain else 0)
        try:
            if not qos:
                await self._send(packet(first, string(topic), payload))
                return True
            while len(self._flight) >= WINDOW:
                if not await self._change(epoch):
                    return False
            ident = self._id()
            slot = [ident, packet(first, string(topic), ident.to_bytes(2, "big"), payload), clock.now()]
            self._flight.append(slot)
        except OSError:
            return False
        try:
            await self._send(slot[1])
        except OSError:
            pass  # it is in flight: the next session repeats it
        return ident

    def waiting(self, ident):
        """Whether the PUBACK of what `publish` gave this id is still to come."""
        return any(slot[0] == ident for slot in self._flight)

    def in_flight(self):
        """How many QoS 1 messages wait for their PUBACK."""
        return len(self._flight)

    async def disconnect(self, why):
        """A planned end: the gateway forgets the will [MQTT-3.14.4-3]."""
        if self.up:
            try:
                await self._send(_DISCONNECT)
            except OSError:
                pass
        if self._stream is not None:
            self._fail(why, STOPPED)

    # -- in ----------------------------------------------------------------------------------------------------------

    async def _read(self):
        """Cut the stream into packets, in place, until it ends. Raises Closed or OSError."""
        view = memoryview(self._rx)
        have = 0
        while True:
            n = await self._stream.readinto(view[have:])
            if self._why is not None:
                raise Closed(self._why[1])
            if n == 0:
                raise Closed("closed by the gateway", CUT)
            have += n
            at = 0
            while True:
                body = self._header(view, at, have)
                if body is None or body[1] > have:
                    break
                await self._handle(self._rx[at], view[body[0] : body[1]])
                if self._why is not None:
                    raise Closed(self._why[1])
                at = body[1]
                self._heard = clock.now()
            if at:
                view[: have - at] = view[at:have]
                have -= at
            # A gateway that never pauses must not keep the control loop from its turn.
            await asyncio.sleep_ms(0)

    def _header(self, view, at, have):
        """(begin, end) of the body of the packet at `at`; None if the header is not whole yet."""
        if self._session is None and at < have and view[at] >> 4 != 2:
            raise Closed("protocol error: packet type %d before CONNACK" % (view[at] >> 4))  # [MQTT-3.2.0-1]
        size = shift = 0
        i = at + 1
        while i < have:
            byte = view[i]
            size |= (byte & 0x7F) << shift
            i += 1
            if not byte & 0x80:
                if size > MAX_PACKET:
                    raise Closed("packet of %d bytes, limit %d" % (size, MAX_PACKET))
                return i, i + size
            shift += 7
            if shift == 28:
                raise Closed("malformed: remaining length")
        return None

    async def _handle(self, first, body):
        kind = first >> 4
        if kind == 3:
            await self._on_publish(first & 15, body)
        elif first & 15:
            raise Closed("malformed: reserved flags of packet type %d" % kind)  # [MQTT-2.2.2-2]
        elif kind == 4:
            self._on_puback(body)
        elif kind == 13:
            if len(body):
                raise Closed("malformed: PINGRESP")
        elif kind == 2 or kind == 9:
            from node import birth

            (birth.on_connack if kind == 2 else birth.on_suback)(self, body)
        else:
            raise Closed("protocol error: packet type %d" % kind)

    async def _on_publish(self, flags, body):
        qos = flags >> 1 & 3
        if qos == 3:
            raise Closed("malformed: QoS 3")  # [MQTT-3.3.1-4]
        if qos == 2:
            raise Closed("protocol error: QoS 2, but QoS 1 was the most asked for")
        if not qos and flags & 8:
            raise Closed("malformed: DUP with QoS 0")  # [MQTT-3.3.1-2]
        if len(body) < 2:
            raise Closed("malformed: PUBLISH")
        end = 2 + (body[0] << 8 | body[1])
        start = end + 2 if qos else end
        if end == 2 or start > len(body):
            raise Closed("malformed: PUBLISH")
        try:
            topic = bytes(body[2:end]).decode()
        except UnicodeError:
            raise Closed("malformed: topic is not UTF-8")  # [MQTT-1.5.3-1]
        if "\0" in topic or "+" in topic or "#" in topic:
            raise Closed("malformed: topic")  # [MQTT-1.5.3-2], [MQTT-3.3.2-2]
        if qos and not (body[end] or body[end + 1]):
            raise Closed("malformed: packet id 0")  # [MQTT-2.3.1-1]
        try:
            self._on_message(topic, body[start:], bool(flags & 1))
        except Exception as e:
            # Not acknowledged, it would come back for ever; so it is logged and laid to rest.
            log.fault("mqtt", "message on " + topic, e)
        if qos:
            await self._send(b"\x40\x02" + bytes(body[end:start]))

    def _on_puback(self, body):
        if len(body) != 2:
            raise Closed("malformed: PUBACK")
        ident = body[0] << 8 | body[1]
        for slot in self._flight:
            if slot[0] == ident:
                self._flight.remove(slot)
                self._moved.set()
                return
        # An id that is not in flight may be left over from before a restart of this node: harmless.
