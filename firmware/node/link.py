"""The way to the gateway: name, TCP, TLS with a certificate on both sides, and coming back when it was lost.

Rule: the gateway proves itself or there is no connection. Verification and host name are always set (MicroPython's
defaults are neither), and no clock, retry or setting takes them off. Every failure, whatever it is, is told in plain
words and tried again later.
"""

import asyncio
import errno
import random
import socket

from node import clock, forget, hardware, log, mqtt
from node.backoff import Backoff

POLL_MS = 10  # between two tries of a handshake or a write that would block

TIME_MS = 86400000  # between two questions for the time, once it is known
SOON_MS = 60000  # and while it is not
TLS_BLOCK = 20000  # bytes that TLS wants in one piece of the IDF's heap: 16.8 KB, and some beside
STARVED = 5  # tries without, after which a restart is asked for
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


class Stream:
    """A non-blocking socket, TLS or not, for mqtt.Client. `close` ends a read that is waiting."""

    def __init__(self, sock):
        self._sock = sock
        self._reader = asyncio.StreamReader(sock)
        self._open = True

    async def readinto(self, view):
        """Bytes read (0: the other side has closed). Raises OSError, also when `close` was called."""
        while self._open:
            # Try before waiting: TLS may hold bytes that no poll of the socket shows.
            n = self._sock.readinto(view)
            if n is None:
                n = await self._reader.readinto(view)
            if n is not None:
                return n
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
                self._roomy()
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

    def _roomy(self):
        """Raises LinkError where TLS would fail for want of memory, after which not even Wi-Fi is sure to live."""
        room = hardware.tls_room()
        if room is None or room[1] >= TLS_BLOCK:
            self._starved = 0
            return
        self._starved += 1
        self.starving = self._starved >= STARVED
        raise LinkError("no memory for TLS: the largest block is %d bytes of %d" % (room[1], TLS_BLOCK))

    async def _time(self, info):
        """Ask the gateway for the time, before TLS judges certificates by it; what the clock says stands if it is
        silent."""
        if self._asked is not None and clock.since(self._asked) < (TIME_MS if clock.quality() == "ntp" else SOON_MS):
            return
        self._asked = clock.now()
        try:
            if self._time_port != self.port:
                info = socket.getaddrinfo(self.host, self._time_port, 0, socket.SOCK_DGRAM)[0]
            from node import sntp  # before TLS, and once a day

            told = await sntp.ask(info[0], info[-1])
        except (OSError, MemoryError):
            told = None
        forget("node.sntp")
        if told is None:
            log.warn("time", "%s does not tell it: going by what is known (%s)" % (self.host, clock.quality()))
        else:
            clock.put(told, self.host)

    async def _open(self):
        """A connected stream on which CONNECT has been written: the first write of a TLS stream makes the handshake.

        Raises LinkError.
        """
        host, port = self.host, self.port
        try:
            # Blocks, as MicroPython has no other (README.md says what that means for the control loop); asked again at
            # each try, because the gateway may have moved. An IP address is answered without asking DNS.
            found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        except OSError as e:
            raise LinkError("the name %s cannot be found (DNS: %s)" % (host, e))
        # A name may have several addresses (IPv6 and IPv4): each failure moves on to the next of them.
        info = found[self._failures // len(self._hosts) % len(found)]
        await self._time(info)
        sock = deadline = None
        shaking = False
        try:
            sock = socket.socket(info[0], info[1], info[2])
            sock.setblocking(False)
            try:
                sock.connect(info[-1])
            except OSError as e:
                if e.errno != errno.EINPROGRESS:
                    raise
            sock = self._ctx.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            sock.setblocking(False)
            stream = Stream(sock)
            deadline = asyncio.create_task(self._expire(stream))
            shaking = True
            begun = clock.now()
            await stream.write(self._client.hello())
            self.shake_ms = clock.since(begun)
            sock = None
            return stream
        except Exception as e:
            if deadline is not None and deadline.done():
                raise LinkError("no answer from %s:%d within %d s" % (host, port, self._connect_ms // 1000))
            try:
                from node import words

                said = words.explain(e, host, port, shaking)
            except (OSError, MemoryError):  # not even to read the words
                said = (NO_ROOM % e, mqtt.LOST)
            forget("node.words")
            raise LinkError(*said)
        finally:
            if deadline is not None:
                deadline.cancel()
            if sock is not None:
                sock.close()

    async def _expire(self, stream):
        await asyncio.sleep_ms(self._connect_ms)
        stream.close()
