"""The link to the gateway: kept for ever, and coming back when it was lost. How one is made stands in connect.py.

Rule: every failure, whatever it is, is told in plain words and tried again later.
"""

import asyncio
import errno
import random

from node import borrow, clock, forget, log, mqtt
from node.backoff import Backoff

POLL_MS = 10  # between two tries of a handshake or a write that would block
TWIN_S = 5  # a session cut so soon after its welcome may be cut by another node of the same name
TWIN_CUTS = 5  # so often in a row, it is

NO_ROOM = "this node has no socket or memory free to connect (%s)"

CERTIFICATE = "certificate"  # like mqtt.REFUSED, a kind of failure that haste does not mend


class LinkError(Exception):
    """No connection came about. kind: mqtt.LOST or CERTIFICATE."""

    def __init__(self, why, kind=mqtt.LOST):
        super().__init__(why)
        self.why = why
        self.kind = kind


def _readable(sock):
    """Waits until there is something to read: all that asyncio.stream would be imported for."""
    yield asyncio.core._io_queue.queue_read(sock)


class Stream:
    """A non-blocking socket, TLS or not, for mqtt.Client. `close` ends a read that is waiting."""

    def __init__(self, sock):
        self._sock = sock
        self._open = True

    async def readinto(self, view):
        """Bytes read (0: the other side has closed). Raises OSError, also when `close` was called."""
        while self._open:
            # Try before waiting: TLS may hold bytes that no poll of the socket shows.
            n = self._sock.readinto(view)
            if n is not None:
                return n
            await _readable(self._sock)
        raise OSError(errno.EBADF)

    async def write(self, data):
        """All of `data`. Raises OSError; in the first write, which makes the TLS handshake, ValueError too."""
        view = memoryview(data)
        while self._open:
            n = self._sock.write(view)
            if n is None:
                await asyncio.sleep_ms(POLL_MS)
                continue
            view = view[n:]
            if not view:
                return
        raise OSError(errno.EBADF)

    def close(self):
        if self._open:
            self._open = False
            try:
                self._sock.close()
            except OSError:
                pass


class Link:
    """Keeps `client` connected for ever. `words` says how it stands, for people."""

    def __init__(self, gateway, settings, ctx, client):
        """gateway, settings: the tables `gateway` and `link` of the configuration."""
        self._hosts = [h for h in (gateway["host"], gateway.get("second")) if h]
        self.host = self._hosts[0]
        self.port = gateway["port"]
        self._time_port = gateway.get("time_port") or self.port
        self._asked = None  # ticks when the gateway was last asked for the time
        self._short = 0  # sessions in a row that were cut within TWIN_S
        self._starved = 0  # tries in a row that found no memory
        self.twins = False  # another node seems to have this identity
        self.starving = False  # only a restart gives TLS its memory back
        self.ends = {}  # how many connections ended so: {kind: n}
        self.shake_ms = None  # what the last handshake took
        self._connect_ms = int(settings["connect_s"] * 1000)
        self._ctx = ctx
        self._client = client
        self._backoff = Backoff(
            settings["base_s"],
            settings["cap_s"],
            settings["first_s"],
            settings["settle_s"],
            settings["refused_cap_s"],
            random.uniform,
        )
        self._failures = 0
        self.network = lambda: True  # whether there is a network to connect through
        self.wlan = None  # whose DNS server is asked for names; None: the system knows
        self.known = {}  # {host: addresses found last}
        self.words = "not connected yet"
        self.stopping = False

    async def run(self, pulse):
        """Connect, serve, wait, again. Returns only when `stopping` was set. pulse: beats while there is progress."""
        self._client.alive = lambda: pulse.beat(clock.now())
        while not self.stopping:
            begun = stream = None
            while not self.network():
                pulse.beat(clock.now())
                await asyncio.sleep_ms(200)
            pulse.beat(clock.now(), self._connect_ms)
            try:
                self.host = self._hosts[self._failures % len(self._hosts)]
                stream = await self._open()
                begun = clock.now()
                kind, self.words = await self._client.run(stream)
            except LinkError as e:
                self._failures += 1
                kind, self.words = e.kind, e.why
            except Exception as e:  # whatever it is, it must not be the last session
                if stream is not None:
                    stream.close()
                kind, self.words = mqtt.LOST, "internal: %s: %s" % (type(e).__name__, e)
            if self.stopping:
                break
            forget("node.words")
            lived = clock.since(begun) / 1000 if begun is not None else 0
            if kind == CERTIFICATE:
                self._asked = None  # whose fault is it, the certificate's or the clock's?
            self.ends[kind] = self.ends.get(kind, 0) + 1
            cut = begun is not None and kind == mqtt.CUT and self._client.welcome and lived < TWIN_S
            self._short = self._short + 1 if cut else 0 if lived >= TWIN_S else self._short
            if self._short >= TWIN_CUTS:
                self.twins = True
                self.words = "cut off soon after each welcome: has another node this one's certificate? " + self.words
            delay = self._backoff.next(lived, self._short >= TWIN_CUTS or kind in (mqtt.REFUSED, CERTIFICATE))
            log.warn("link", "%s; again in %.1f s" % (self.words, delay))
            pulse.beat(clock.now(), int(delay * 1000))
            await asyncio.sleep_ms(int(delay * 1000))

    async def _open(self):
        """A connected stream on which CONNECT has been written. Raises LinkError."""
        try:
            way = borrow("node.connect", "node.birth", "node.dns", "node.sntp", "node.words")
        except (ImportError, OSError, MemoryError) as e:  # not even to read how it is done
            raise LinkError(NO_ROOM % e)
        try:
            return await way.connect(self)
        finally:
            borrow()
