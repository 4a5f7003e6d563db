"""Connections: what lies between a socket and a link of the core. PROXY header, TLS, WebSocket, in this order.

The rule it keeps: a connection moves bytes and decides nothing; what it needs of the server is `Home`. A peer can end
its own connection, never the loop, and each thing that it can hold (a handshake, unsent bytes) has a limit with a name.

TLS runs over memory BIOs on plain transports: asyncio's own TLS transport takes up to 290 KiB a connection, this one
needs none beyond OpenSSL's. All connections of a server share one receive buffer, because the loop hands each chunk
over before it reads the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

from peanutd import access, proxy, tls, ws
from peanutd._core import Broker, Link
from peanutd.census import Census
from peanutd.config import Address, Listener
from peanutd.crowd import Crowd
from peanutd.door import Handshakes
from peanutd.throttle import network

if TYPE_CHECKING:
    from peanutd._core import Event

RECEIVE_BUFFER: Final = 16 * 1024
"""Bytes read from a socket at once, at most: a TLS record. It is what one peer gets before the others have their turn:
while the buffer comes back full, libuv reads the same socket again, up to 32 times a wake-up. With 256 KiB a flooding
peer made others wait a quarter of a second and more (p95 of a PING); with 16 KiB it is 14 ms, and more goes through."""
PLAIN_BUFFER: Final = 64 * 1024
"""Bytes of decrypted input that the core gets at once, at most."""
RECORD: Final = 16 * 1024
"""Bytes that pass through OpenSSL's memory BIOs at once: they keep the size that they once had."""
TAKE: Final = 64 * 1024
"""Bytes of output that are taken from the core at once; a WebSocket frame holds at most so many."""
LINGER: Final = 5.0
"""Seconds that a connection may take to send the rest and to be closed by the peer, before it is cut."""

SERVER_SHUTTING_DOWN: Final = 0x8B
USE_ANOTHER_SERVER: Final = 0x9C


def now_ms() -> int:
    """Milliseconds of the monotonic clock, as the core counts."""
    return time.monotonic_ns() // 1_000_000


class Deadlines:
    """Connections that must have moved on after `seconds`: first in, first due."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        """May be set anew; 0: nothing is ever due."""
        self._due: dict[Connection, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def set(self, connection: Connection) -> None:
        """Begins; what was set before counts no more."""
        self._due.pop(connection, None)
        if self.seconds:
            self._due[connection] = time.monotonic() + self.seconds

    def drop(self, connection: Connection) -> None:
        self._due.pop(connection, None)

    def over(self, now: float) -> list[Connection]:
        """Removes and returns those whose time is up."""
        late: list[Connection] = []
        for connection, due in self._due.items():
            if due > now:
                break
            late.append(connection)
        for connection in late:
            del self._due[connection]
        return late


class Waits:
    """Whom the gateway waits for, and for how long."""

    def __init__(self, handshake: float, stall: float) -> None:
        self.handshaking = Deadlines(handshake)
        """To the end of all handshakes."""
        self.stalled = Deadlines(stall)
        """To read what has been sent."""
        self.lingering = Deadlines(LINGER)
        """To close, when all is said."""

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        for deadlines in (self.handshaking, self.stalled, self.lingering):
            deadlines.drop(connection)


class Home(Protocol):
    """What connections need of the server."""

    broker: Broker
    census: Census
    connections: Crowd[Connection]
    credentials: tls.Credentials | None
    max_packet_size: int
    wall_clock: Callable[[], datetime]
    handshakes: Handshakes
    waits: Waits
    inbox: memoryview
    """RECEIVE_BUFFER bytes for what is read."""
    plain: memoryview
    """PLAIN_BUFFER bytes for what is decrypted."""

    def admit(self, connection: Connection) -> str | None:
        """Counts a new connection; or why there is no room for it."""

    def admit_address(self, connection: Connection) -> str | None:
        """Counts a connection among those of its address; or why there is no room for it."""

    def forget(self, connection: Connection) -> None:
        """The connection is gone for good."""

    def revoked(self, credential: access.Credential) -> str | None:
        """Why the bearer of a certificate or key that is good is to be kept out all the same, or None."""

    def run(self, events: Iterable[Event]) -> None:
        """Handles what the core has to say."""

    @property
    def unheard(self) -> bool:
        """Whether there is something that the core has said and nobody has handled yet."""

    def report(self, connection: Connection, what: str, why: str, kind: str = "") -> None:
        """A log line about a connection that has not come as far as a CONNECT. kind: the word of tally.py for it."""

    def note(self, connection: Connection, happened: str, level: str, /, **fields: object) -> None:
        """A log line about a client."""


class Connection(asyncio.BufferedProtocol):
    """One transport connection and its link in the core; the kinds differ in what lies between them."""

    __slots__ = (
        "_done",
        "_link",
        "_paused",
        "_preface",
        "_transport",
        "_ws",
        "accepted",
        "blamed",
        "counted",
        "credential",
        "listener",
        "peer",
        "peer_host",
        "problem",
        "server",
        "suspect",
    )

    def __init__(self, server: Home, listener: Listener) -> None:
        self.server = server
        self.listener = listener
        self.peer = self.peer_host = "unknown"
        self.credential: access.Credential | None = None
        """Who has proved to be at the other end."""
        self.problem: str | None = None
        """Why the peer is to be refused although its handshake was finished."""
        self.accepted: access.Accept | None = None
        self.counted: str | None = None
        """The address among whose connections it is counted."""
        self.suspect = False
        """Its address is banned: only a certificate gets it in."""
        self.blamed = False
        """What it did has been held against somebody: once is enough."""
        self._transport: asyncio.Transport | None = None
        self._link: Link | None = None
        self._preface: bytearray | None = None  # of the PROXY header, until it is whole
        self._paused = False
        self._ws: ws.Stream | None = None  # here and not in the class that uses it: see `WebSocket`
        self._done = False  # nothing more is read; what was written is on its way out

    @property
    def who(self) -> str | None:
        if self.accepted is not None:
            return self.accepted.session
        return str(self.credential.identity) if self.credential is not None else None

    @property
    def tls_version(self) -> str | None:
        return None

    # --- called by the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._set_peer(transport.get_extra_info("peername"))
        if problem := self.server.admit(self):
            self._turn_away(problem)
            return
        listener = self.listener
        if listener.secure or listener.websocket or listener.proxy_from is not None:
            self.server.waits.handshaking.set(self)
        if listener.proxy_from is None:
            self._begin()
        elif self.peer_host == "unix" or _within(self.peer_host, listener.proxy_from):
            self._preface = bytearray()
        else:
            self._turn_away("not from an address of proxy_from", "proxy")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.server.inbox

    def buffer_updated(self, nbytes: int) -> None:
        if self._done:
            return
        if self._preface is None:
            self._received(self.server.inbox[:nbytes])
        elif rest := self._read_preface(self._preface, self.server.inbox[:nbytes]):
            self._received(rest)

    def eof_received(self) -> None:
        """The peer sends no more, so MQTT is over; the transport closes when what is written is sent, or is cut."""
        self.pump()  # the answers to what came last
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose()
        self._transport = None
        self.server.forget(self)

    def pause_writing(self) -> None:
        self._paused = True  # the core keeps what comes now, and bounds it
        self.server.waits.stalled.set(self)

    def resume_writing(self) -> None:
        self._paused = False
        self.server.waits.stalled.drop(self)
        self.pump()

    # --- called by the server ---

    def pump(self) -> None:
        """Writes the output of the link as far as the transport takes it."""
        link = self._link
        while link is not None and link.pending and not self._paused and not self._done:
            self._send(link.take(TAKE))

    def hold(self) -> None:
        """Reads no more for now: the client is too fast."""
        if self._transport is not None and not self._done:
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def finish(self, reason: int = 0, words: str = "") -> None:
        """The core is done with the link: sends the rest, says goodbye, waits for the peer to close.

        `words` say the reason, for a line about a peer that did not come as far as a verdict.
        """
        link = self._link
        if self._done or link is None:
            return
        if self.accepted is None and self.problem is None and reason >= 0x80:
            self.server.report(self, "no connection", words, "no CONNECT")
        while rest := link.take(TAKE):
            self._send(rest)
        self._goodbye(reason)
        self._shut_down()
        self._lose()

    def is_in(self) -> None:
        """It has been let in, and nothing is to be decided about it until something happens."""

    def end(self, reason: int, text: str = "") -> None:
        """Ends the connection from our side; `text` is as in the core's `close`."""
        if self._link is not None:
            self.server.run(self._link.close(reason, now_ms(), text))

    def stop(self, reference: str = "") -> None:
        """The gateway stops; `reference` is the server that clients may go to meanwhile (MQTT 5.0 §4.11)."""
        self.end(USE_ANOTHER_SERVER if reference else SERVER_SHUTTING_DOWN, reference)
        if not self._done:
            self.abort()

    def cut(self) -> None:
        """Ends the connection at once, and nothing is said about a handshake that was not finished."""
        self._done = True
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- what lies between, from below to above ---

    def _opened(self) -> None:
        """The way to the client is there."""
        self._open_link()

    def _received(self, data: memoryview) -> None:
        """Bytes from it."""
        self._feed(data)

    def _send(self, data: bytes) -> None:
        """MQTT for it."""
        self._write(data)

    def _goodbye(self, reason: int) -> None:
        """What the layers below MQTT say at the end."""

    def _open_link(self) -> None:
        """All handshakes are done."""
        self.server.waits.handshaking.drop(self)
        self._link = self.server.broker.open(self, now_ms())

    def _feed(self, data: memoryview | bytes) -> None:
        """MQTT from it."""
        if self._link is not None:
            self.server.run(self._link.feed(data, now_ms()))

    # --- inside ---

    def _identify(self, certificate: bytes | None) -> None:
        """Sets `credential`, or else `problem`: then the CONNECT is refused with it, so that the node can show why.
        `certificate` is what the handshake has proved the peer to own.
        """
        self.problem = "the certificate was not checked"  # fail closed, whatever happens below
        if self.server.credentials is None:
            return
        if certificate is None and self.listener.policy.certificate != "required":
            self.problem = None
            return
        try:
            known = self.server.credentials
            self.credential = known.identify(certificate, self.server.wall_clock())
        except access.IdentityError as error:
            self.problem = str(error)
        else:
            self.problem = None

    def came_from(self, host: str, port: int) -> None:
        """Sets who is at the other end of a TCP connection."""
        self.peer_host, self.peer = host, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"  # as an Address

    def _set_peer(self, name: object) -> None:
        """Sets who is at the other end of the socket."""
        if isinstance(name, tuple):
            self.came_from(name[0], name[1])
        elif self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None and sock.family == socket.AF_UNIX:
                pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                self.peer_host, self.peer = "unix", f"unix:uid={uid},pid={pid}"

    def _begin(self) -> None:
        """It is known who is there, and what comes now is the client's own."""
        if problem := self.server.admit_address(self):
            self._turn_away(problem)
        else:
            self._opened()

    def _read_preface(self, preface: bytearray, data: memoryview) -> memoryview:
        """Collects the PROXY header; returns what has come behind it."""
        preface += data
        try:
            header = proxy.parse(bytes(preface[: proxy.MAX]))
        except proxy.ProxyError as error:
            self._turn_away(str(error), "proxy")
            return memoryview(b"")
        if header is None:
            return memoryview(b"")
        self._preface = None
        if header.host is not None:
            self.peer_host = header.host
            self.peer = f"unix:{header.host}" if header.port is None else str(Address(header.host, header.port))
        self._begin()
        return memoryview(b"") if self._done else memoryview(preface)[header.size :]

    def _turn_away(self, why: str, kind: str = "") -> None:
        self._done = True
        self.server.report(self, "connection refused", why, kind)
        self.abort()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _answer(self, data: bytes) -> bool:
        """Writes an answer of a layer below MQTT. Who asks for answers without reading them would fill our memory with
        them: that is the end of the connection, and the answer is False.
        """
        if data and self._paused:
            self.server.report(self, "connection cut", "it reads nothing and asks for more")
            self.abort()
            return False
        self._write(data)
        return True

    def _shut_down(self) -> None:
        """Half closes: closed at once, with input unread, the kernel would throw away what the peer has yet to read."""
        self._done = True
        self.server.waits.handshaking.drop(self)
        self.server.waits.lingering.set(self)
        if self._transport is not None and not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except (OSError, RuntimeError):
                self._transport.abort()

    def _lose(self) -> None:
        """Nothing more will come from the peer."""
        if not self._done:
            self._done = True
            self.server.waits.lingering.set(self)
        link, self._link = self._link, None
        if link is not None:
            self.server.run(link.lost(now_ms()))


class Plain(Connection):
    """MQTT on the socket."""

    __slots__ = ()


class Secure(Connection):
    """MQTT in TLS."""

    __slots__ = ("_first", "_incoming", "_outgoing", "_ready", "_tls", "_waiting")

    def __init__(self, server: Home, listener: Listener) -> None:
        super().__init__(server, listener)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._first = b""  # the first bytes from the peer: OpenSSL gets nothing that cannot be a ClientHello
        self._ready = False  # the handshake is finished
        self._waiting = False  # for its turn in the handshake; nothing is read meanwhile
        self._tls: ssl.SSLObject | None = None

    @property
    def tls_version(self) -> str | None:
        return self._tls.version() if self._tls is not None else None

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ready and not self._done:
            self._unfinished()
        super().connection_lost(exc)
        self._tls = None

    def eof_received(self) -> None:
        if not self._ready and not self._done:
            self._unfinished()
        super().eof_received()

    def _unfinished(self) -> None:
        """The peer has left before the handshake was over. Without a byte from it, it was somebody knocking."""
        if self._first:
            hello = self._first[:1] == b"\x16"
            words = "closed in the handshake" if hello else tls.explain(None, self._first)
            self.server.report(self, "handshake failed", words, "closed" if hello else "not TLS")

    def _opened(self) -> None:
        """Nothing is needed before it is known that the peer speaks TLS."""

    def _received(self, data: memoryview) -> None:
        if not self._ready:
            self._greeted(data)
            return
        for at in range(0, len(data), RECORD):
            self._incoming.write(data[at : at + RECORD])
            self._decrypt()
            if self._done:
                break

    def _greeted(self, data: memoryview) -> None:
        """Bytes of the handshake, and perhaps of what comes right behind it."""
        if self._tls is None:
            missing = tls.HELLO_HEADER - len(self._first)
            self._first += data[:missing]
            data = data[missing:]
            if problem := tls.no_hello(self._first):
                self.server.report(self, "handshake failed", problem, "not TLS")
                self._shut_down()
                return
            if len(self._first) < tls.HELLO_HEADER:
                return
            credentials = self.server.credentials
            assert credentials is not None, "a secure listener without credentials"
            context = credentials.contexts[self.listener.policy.certificate]
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._incoming.write(self._first)
            self._incoming.write(data)
            self._wait(partial(self.server.handshakes.begin, self, network(self.peer_host)))
        else:
            self._incoming.write(data)
            self._wait(partial(self.server.handshakes.add, self))

    def _wait(self, queue: Callable[[], None]) -> None:
        """For its turn: `queue` has `step` called then. Nothing is read meanwhile."""
        if not self._waiting and self._transport is not None:
            self._waiting = True
            self._transport.pause_reading()
            queue()

    @property
    def gone(self) -> bool:
        """There is no peer any more."""
        return self._transport is None or self._done

    def step(self) -> None:
        """It is this connection's turn: goes on with the handshake, and with what has come behind it."""
        self._waiting = False
        transport = self._transport
        if transport is None or self._done:
            return
        if self._handshake():
            self._decrypt()
        if not transport.is_closing():
            transport.resume_reading()

    def _handshake(self) -> bool:
        """Goes on with the handshake; True once it is finished."""
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._write(self._outgoing.read())
            return False
        except (ssl.SSLError, OSError, ValueError) as error:
            kind = "certificate" if tls.about_certificate(error) else "TLS"
            self.server.report(self, "handshake failed", tls.explain(error, self._first), kind)
            self._write(self._outgoing.read())  # the alert
            self._shut_down()
            return False
        self._identify(self._tls.getpeercert(binary_form=True))
        if self.credential is not None and (why := self.server.revoked(self.credential)) is not None:
            # What would finish the handshake of TLS 1.2 is not sent; with 1.3 the peer hears nothing more.
            self._done = True
            self.server.report(self, "handshake failed", why, "revoked")
            self.abort()
            return False
        self._write(self._outgoing.read())
        self._ready = True
        self._open_link()
        return True

    def _decrypt(self) -> None:
        """Hands everything that can be decrypted to the core, in chunks as large as there are."""
        incoming, plain, session = self._incoming, self.server.plain, self._tls
        assert session is not None
        filled = 0
        over = False
        while not self._done:
            try:
                count = session.read(PLAIN_BUFFER - filled, cast(bytearray, plain[filled:]))
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLError, OSError):
                over = True  # close_notify, or a broken record
                break
            if not count:
                over = True
                break
            filled += cast(int, count)
            if filled == PLAIN_BUFFER:
                self._feed(plain)
                filled = 0
            if not incoming.pending and not session.pending():
                break
        if filled and not self._done:
            self._feed(plain[:filled])
        if over and not self._done:
            self._goodbye(0)
            self._shut_down()
            self._lose()
        elif self._outgoing.pending:
            self._answer(self._outgoing.read())  # of TLS itself

    def _send(self, data: bytes) -> None:
        if self._tls is None:
            return
        view = memoryview(data)
        parts: list[bytes] = []
        at = 0
        try:
            while at < len(view):
                at += self._tls.write(view[at : at + RECORD])
                parts.append(self._outgoing.read())
        except (ssl.SSLError, OSError):
            self.abort()  # the session is broken; connection_lost follows
            return
        self._write(parts[0] if len(parts) == 1 else b"".join(parts))

    def _goodbye(self, reason: int) -> None:
        if self._tls is None or not self._ready:
            return
        with contextlib.suppress(ssl.SSLError, OSError, ValueError):
            self._tls.unwrap()  # writes our close_notify, and then wants to read the peer's
        self._write(self._outgoing.read())


class WebSocket(Connection):
    """What a WebSocket has above the layer below. It is mixed into `Plain` and `Secure`, so it can have no slots."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.server.inbox[: ws.CHUNK]

    def _open_link(self) -> None:
        """Not yet: first comes the handshake."""
        listener = self.listener
        self._ws = ws.Stream(
            path=listener.path,
            origins=listener.origins,
            trusting=listener.policy.anonymous,
            max_packet_size=self.server.max_packet_size,
        )

    def _feed(self, data: memoryview | bytes) -> None:
        stream = self._ws
        if stream is None or self._done:
            return
        found = stream.receive(data)
        if answer := stream.take():
            if self._paused:
                self._answer(answer)
                return
            super()._send(answer)
        if self._link is None and stream.open:
            super()._open_link()
        for piece in found:
            super()._feed(piece)
            if self._done:
                return
        if stream.problem is not None:
            if stream.problem:
                what = "handshake failed" if self._link is None else "connection ended"
                self.server.report(self, what, stream.problem, "WebSocket" if self._link is None else "")
            super()._goodbye(0)
            self._shut_down()
            self._lose()

    def _send(self, data: bytes) -> None:
        if self._ws is not None:
            super()._send(self._ws.frame(data))

    def _goodbye(self, reason: int) -> None:
        if self._ws is not None and (frame := self._ws.close(reason)):
            super()._send(frame)
        super()._goodbye(reason)


class PlainWebSocket(WebSocket, Plain):
    """MQTT in a WebSocket."""

    __slots__ = ()


class SecureWebSocket(WebSocket, Secure):
    """MQTT in a WebSocket in TLS."""

    __slots__ = ()


KINDS: Final[dict[str, type[Connection]]] = {
    "tcp": Plain,
    "tls": Secure,
    "ws": PlainWebSocket,
    "wss": SecureWebSocket,
}
"""The class for each transport of a listener."""


def _within(host: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether an address is in one of the networks; an IPv4 address mapped into IPv6 counts as what it is."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any((mapped or address) in network for network in networks)
