"""The way to the gateway: name, TCP, TLS with a certificate on both sides, and coming back when it was lost.

Rule: the gateway proves itself or there is no connection. Verification and host name are always set (MicroPython's
defaults are neither), and no clock, retry or setting takes them off. Every failure, whatever it is, is told in plain
words and tried again later.
"""

import asyncio
import errno
import random
import socket
import ssl

from node import clock, log, mqtt
from node.backoff import Backoff

POLL_MS = 10  # between two tries of a handshake or a write that would block

CERTIFICATE = "certificate"  # like mqtt.REFUSED, a kind of failure that haste does not mend

_EHOSTUNREACH = (101, 113, 118)  # ENETUNREACH and EHOSTUNREACH on Linux, EHOSTUNREACH on lwIP
_NO_ROOM = (12, 23, 24, 105)  # ENOMEM, ENFILE, EMFILE, ENOBUFS: lwIP has few sockets, and no errno names for these
_FATAL_ALERT = -0x7780  # MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE

# What Mbed TLS says of a certificate, and what a grower can do with it.
_CERTIFICATE_WORDS = (
    ("trusted CA", "the gateway's certificate was not issued by this fleet's CA"),
    ("does not match", "the gateway's certificate is not for the name %s"),
    ("has expired", "the gateway's certificate has expired (or this node's clock is wrong)"),
    ("in the future", "the gateway's certificate is not valid yet (or this node's clock is wrong)"),
)


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


def context(read):
    """The TLS context: made once, kept for life (it costs memory). read: function (file name) -> bytes.

    Raises LinkError naming the file that cannot be used.
    """
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.verify_mode = ssl.CERT_REQUIRED
    try:
        ctx.load_cert_chain(read("cert.der"), read("key.der"))
        ctx.load_verify_locations(cadata=read("ca.der"))
    except (OSError, ValueError) as e:
        raise LinkError("key.der, cert.der or ca.der cannot be used (%s): put the device bundle on this node" % e)
    return ctx


def explain(e, host, port, shaking):
    """(words, kind) for an exception of connecting. shaking: it came out of the TLS handshake."""
    if isinstance(e, ValueError):
        said = str(e).replace("\n", " ").strip()
        words = [w % host if "%s" in w else w for key, w in _CERTIFICATE_WORDS if key in said]
        return "certificate error: %s" % ("; ".join(words) or said), CERTIFICATE
    at = "%s:%d" % (host, port)
    if not isinstance(e, OSError):  # MemoryError, or a fault of ours
        return "connecting to %s failed (%s: %s)" % (at, type(e).__name__, e), mqtt.LOST
    code = e.errno if isinstance(e.errno, int) else None
    if code in _NO_ROOM:
        return "this node has no socket or memory free to connect (%s)" % e, mqtt.LOST
    if code == errno.ECONNREFUSED:
        return "refused: nothing listens on %s" % at, mqtt.LOST
    if code in _EHOSTUNREACH:
        return "no route to %s" % at, mqtt.LOST
    if code == errno.ETIMEDOUT:
        return "no answer from %s" % at, mqtt.LOST
    if shaking and code == _FATAL_ALERT:
        return "certificate error: the gateway refused this node's certificate", CERTIFICATE
    if shaking and code in mqtt.BROKEN:
        # What a refused certificate looks like if the gateway is quick to close; but also a gateway that just died.
        return "closed by the gateway in the TLS handshake: is this node's certificate known and valid?", mqtt.LOST
    return "connecting to %s failed (%s)" % (at, e), mqtt.LOST


class Link:
    """Keeps `client` connected for ever. `words` says how it stands, for people."""

    def __init__(self, gateway, settings, ctx, client):
        """gateway, settings: the tables `gateway` and `link` of the configuration."""
        self._host = gateway["host"]
        self._port = gateway["port"]
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
        self.words = "not connected yet"
        self.stopping = False

    async def run(self, pulse):
        """Connect, serve, wait, again. Returns only when `stopping` was set. pulse: beats while there is progress."""
        self._client.alive = lambda: pulse.beat(clock.now())
        while not self.stopping:
            begun = stream = None
            pulse.beat(clock.now(), self._connect_ms)
            try:
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
            lived = clock.since(begun) / 1000 if begun is not None else 0
            delay = self._backoff.next(lived, kind in (mqtt.REFUSED, CERTIFICATE))
            log.warn("link", "%s; again in %.1f s" % (self.words, delay))
            pulse.beat(clock.now(), int(delay * 1000))
            await asyncio.sleep_ms(int(delay * 1000))

    async def _open(self):
        """A connected stream on which CONNECT has been written: the first write of a TLS stream makes the handshake.

        Raises LinkError.
        """
        host, port = self._host, self._port
        try:
            # Blocks, as MicroPython has no other (README.md says what that means for the control loop); asked again at
            # each try, because the gateway may have moved. An IP address is answered without asking DNS.
            found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        except OSError as e:
            raise LinkError("the name %s cannot be found (DNS: %s)" % (host, e))
        # A name may have several addresses (IPv6 and IPv4): each failure moves on to the next of them.
        info = found[self._failures % len(found)]
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
            await stream.write(self._client.hello())
            sock = None
            return stream
        except Exception as e:
            if deadline is not None and deadline.done():
                raise LinkError("no answer from %s:%d within %d s" % (host, port, self._connect_ms // 1000))
            raise LinkError(*explain(e, host, port, shaking))
        finally:
            if deadline is not None:
                deadline.cancel()
            if sock is not None:
                sock.close()

    async def _expire(self, stream):
        await asyncio.sleep_ms(self._connect_ms)
        stream.close()
