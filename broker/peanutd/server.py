"""The asyncio driver: sockets and TLS around the core.

The rule it keeps: only this file awaits, and it decides nothing; bytes go into the core, events come out, `access`
judges, and what the core has to say is written once a loop turn. A peer can end its own connection, never the loop, and
each thing that it can hold (a handshake, a connection, unsent bytes, log lines) has a limit with a name.

TLS runs over memory BIOs on plain transports: asyncio's own TLS transport takes up to 290 KiB a connection, this one
needs none beyond OpenSSL's. All connections of a server share one receive buffer, because the loop hands each chunk
over before it reads the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from peanutd import access, tls
from peanutd._core import EVENT_CLOSED, EVENT_CONNECT, EVENT_DENIED, EVENT_DISCONNECT, MAY_PUBLISH, Broker, Link
from peanutd.config import Address
from peanutd.log import Flood, Log, clean

if TYPE_CHECKING:
    from peanutd._core import Event

RECEIVE_BUFFER: Final = 256 * 1024
"""Bytes read from a socket at once, at most."""
PLAIN_BUFFER: Final = 64 * 1024
"""Bytes of decrypted input that the core gets at once, at most."""
RECORD: Final = 16 * 1024
"""Bytes that pass through OpenSSL's memory BIOs at once: they keep the size that they once had."""
TAKE: Final = 64 * 1024
"""Bytes of output that are taken from the core at once."""
BACKLOG: Final = 1024
"""Connections that the kernel holds until they are accepted."""
LINGER: Final = 5.0
"""Seconds that a connection may take to send the rest and to be closed by the peer, before it is cut."""
STOP_TIMEOUT: Final = 2.0
"""Seconds for all connections to end when the gateway stops, before they are cut."""
TICK: Final = 0.5
"""Seconds between two ticks of the core."""
RECHECK: Final = 60.0
"""Seconds between two looks at the certificates of those connected."""
SPARE_FILES: Final = 64
"""File descriptors that are kept for other things than connections."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""TCP's own probes find the peers that are gone without a word and have an MQTT keep alive of 0."""

SERVER_SHUTTING_DOWN: Final = 0x8B

REASONS: Final = {
    0x00: "the client said goodbye",
    0x04: "the client said goodbye and asked for its will",
    0x80: "connection lost",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "refused by the receiver",
    0x84: "unsupported protocol version",
    0x85: "client id not valid",
    0x86: "bad user name or password",
    0x87: "not authorised",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "the gateway stops",
    0x8C: "bad authentication method",
    0x8D: "nothing heard for 1.5 times the keep alive",
    0x8E: "taken over by a new connection of the same client",
    0x8F: "topic filter not valid",
    0x90: "topic name not valid",
    0x91: "packet identifier in use",
    0x92: "packet identifier not found",
    0x93: "more messages in flight than allowed (receive maximum)",
    0x94: "topic alias not valid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format not valid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscriptions not supported",
}
"""Reason codes of DISCONNECT and CONNACK (MQTT 5.0 §2.4) in plain words."""

_VERSIONS: Final = {3: "3.1", 4: "3.1.1", 5: "5.0"}


class ListenError(Exception):
    """Why an address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One address: `secure` for mutual TLS; `anonymous` lets clients without a certificate in where it is not."""

    address: Address
    secure: bool
    anonymous: bool = False

    @property
    def scheme(self) -> str:
        return "mqtts" if self.secure else "mqtt"


def raise_file_limit() -> int:
    """Raises the limit of open files to what the system allows; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def _now() -> int:
    """Milliseconds of the monotonic clock, as the core counts."""
    return time.monotonic_ns() // 1_000_000


class _Deadlines:
    """Connections that must have moved on after a time that is the same for all: first in, first due."""

    def __init__(self) -> None:
        self._due: dict[_Connection, float] = {}

    def set(self, connection: _Connection, due: float) -> None:
        self._due[connection] = due

    def drop(self, connection: _Connection) -> None:
        self._due.pop(connection, None)

    def over(self, now: float) -> list[_Connection]:
        """Removes and returns those whose time is up."""
        late: list[_Connection] = []
        for connection, due in self._due.items():
            if due > now:
                break
            late.append(connection)
        for connection in late:
            del self._due[connection]
        return late


class Server:
    """All listeners and connections around one Broker. Not thread-safe; everything runs in one loop."""

    def __init__(
        self,
        broker: Broker,
        log: Log,
        loop: asyncio.AbstractEventLoop,
        *,
        credentials: tls.Credentials | None = None,
        max_connections: int = 20_000,
        handshake_timeout: float = 10.0,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Secure listeners need `credentials`. These, `max_connections` and `handshake_timeout` (seconds) may be set
        anew while the server runs: they count for connections to come. Certificates are held to `wall_clock`.
        """
        self.broker = broker
        self.log = log
        self.flood = Flood(log)
        self.credentials = credentials
        self.max_connections = max_connections
        self.handshake_timeout = handshake_timeout
        self.wall_clock = wall_clock
        self.inbox = memoryview(bytearray(RECEIVE_BUFFER))
        self.plain = memoryview(bytearray(PLAIN_BUFFER))
        self.connections: set[_Connection] = set()
        self.handshaking = _Deadlines()
        self.lingering = _Deadlines()
        self._loop = loop
        self._listening: list[asyncio.Server] = []
        self._events: deque[Event] = deque()
        self._handling = False
        self._flush_is_due = False
        self._stopping = False
        self._ended = asyncio.Event()
        self._empty = asyncio.Event()
        self._recheck = time.monotonic() + RECHECK
        self._timer: asyncio.TimerHandle | None = None
        for slot, rules in access.RULES.items():
            broker.set_rules(slot.value, rules)

    async def serve(self, listeners: Sequence[Listener]) -> None:
        """Serves until `end` is called, and ends in order. ListenError as `start`."""
        await self.start(listeners)
        await self._ended.wait()
        self.log.info("server", "stopping", connections=len(self.connections))
        await self.stop()
        self.log.info("server", "stopped")

    def end(self) -> None:
        """Makes `serve` return; for signal handlers."""
        self._ended.set()

    async def start(self, listeners: Sequence[Listener]) -> list[Address]:
        """Listens; returns the addresses with the ports that they really got. ListenError says which failed and why."""
        bound: list[Address] = []
        try:
            for listener in listeners:
                sock = _bind(listener)
                make = _Secure if listener.secure else _Plain
                self._listening.append(
                    await self._loop.create_server(partial(make, self, listener), sock=sock, backlog=BACKLOG)
                )
                bound.append(Address(listener.address.host, sock.getsockname()[1]))
                self.log.info("server", f"listening {listener.scheme} {bound[-1]}")
        except BaseException:
            self._stop_listening()
            raise
        self._timer = self._loop.call_later(TICK, self._tick)
        return bound

    async def stop(self) -> None:
        """Stops listening, tells every client, waits STOP_TIMEOUT seconds at the most until all is sent and closed."""
        self._stopping = True
        self._stop_listening()
        for connection in list(self.connections):
            connection.stop()
        self._flush()
        if self.connections:
            try:
                await asyncio.wait_for(self._empty.wait(), STOP_TIMEOUT)
            except TimeoutError:
                self.log.info("server", "connections that did not end in time are cut", count=len(self.connections))
        for connection in list(self.connections):
            connection.abort()
        if self._timer is not None:
            self._timer.cancel()
        self.flood.sweep(float("inf"))
        await asyncio.sleep(0)  # lets the loop tell the cut connections

    @property
    def full(self) -> bool:
        """Whether a further connection is one too many."""
        return self._stopping or len(self.connections) >= self.max_connections

    def forget(self, connection: _Connection) -> None:
        """The connection is gone for good."""
        self.connections.discard(connection)
        self.handshaking.drop(connection)
        self.lingering.drop(connection)
        if not self.connections and self._stopping:
            self._empty.set()

    def publish_unless_known(self, topic: str, payload: bytes) -> None:
        """A retained message in the gateway's own name, unless there is one on that topic."""
        if self.broker.retained(topic) is None:
            self.run(self.broker.publish(topic, payload, qos=1, retain=True, now=_now()))

    def run(self, events: Iterable[Event]) -> None:
        """Handles what the core has to say, and has its output written once the loop has gone round.

        Every call into the core that returns events goes through here. An event may raise others: those queue up.
        """
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        if not events:
            return
        self._events.extend(events)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                self._handle(*self._events.popleft())
        finally:
            self._handling = False

    def _handle(self, kind: int, link: Link, reason: int, text: str) -> None:
        connection = cast(_Connection, link.owner)
        if kind == EVENT_CONNECT:
            self._judge(connection, link)
        elif kind == EVENT_CLOSED:
            connection.finish(reason)
        elif kind == EVENT_DISCONNECT:
            words = REASONS.get(reason, "no reason known")
            usual = reason in (0x00, 0x04, 0x80, 0x8B, 0x8E)
            self._write(connection, "disconnected", "info" if usual else "warning", why=words, code=f"0x{reason:02x}")
        elif kind == EVENT_DENIED:
            self._write(connection, "denied", "warning", what=text, why=self._why(connection, text))

    def _judge(self, connection: _Connection, link: Link) -> None:
        """A CONNECT has arrived: in or out."""
        wish = link.connect
        if wish is None:
            return  # an event before this one has ended the link
        verdict: access.Accept | access.Refuse
        if self._stopping:
            verdict = access.Refuse(SERVER_SHUTTING_DOWN, REASONS[SERVER_SHUTTING_DOWN])
        elif connection.problem is not None:
            verdict = access.Refuse(access.NOT_AUTHORIZED, connection.problem)
        else:
            identity = connection.credential.identity if connection.credential else None
            verdict = access.decide(wish, identity, connection.listener.anonymous)
        if isinstance(verdict, access.Refuse):
            connection.problem = verdict.text
            self._write(connection, "refused", "warning", why=verdict.text, code=f"0x{verdict.reason:02x}")
            self.run(link.refuse(verdict.reason, clean(verdict.text), now=_now()))
            return
        connection.accepted = verdict
        version = _VERSIONS.get(wish.version, str(wish.version))
        ends = connection.credential.not_after if connection.credential else None
        soon = f"{ends:%Y-%m-%d}" if ends is not None and ends - self.wall_clock() < tls.SOON else None
        level = "warning" if soon else "info"
        self._write(connection, "connected", level, mqtt=version, tls=connection.tls_version, certificate_ends=soon)
        self.run(
            link.accept(
                session=verdict.session,
                identity=verdict.identity,
                rules=verdict.slot.value,
                assigned_client_id=verdict.assigned,
                now=_now(),
            )
        )

    def _why(self, connection: _Connection, text: str) -> str:
        """Why the core has denied something: `text` is as in EVENT_DENIED."""
        accepted = connection.accepted
        if accepted is not None and text.startswith("publish retained "):
            topic = text.removeprefix("publish retained ")
            allowed, _ = self.broker.explain(accepted.slot.value, accepted.identity, MAY_PUBLISH, topic, False)
            if allowed:
                return "must not be retained"
        return "no rule allows it"

    def _write(self, connection: _Connection, happened: str, level: str, /, **fields: object) -> None:
        """A line about a client; a client that causes many of a kind has them counted."""
        kind = (happened, connection.who or connection.peer_host)
        now = time.monotonic()
        self.flood.write(kind, now, level, "server", happened, who=connection.who, address=connection.peer, **fields)

    def report(self, connection: _Connection, what: str, why: str) -> None:
        """A line about a connection that has not come as far as a CONNECT."""
        kind = (what, connection.peer_host)
        now = time.monotonic()
        self.flood.write(kind, now, "warning", "server", what, address=connection.peer, why=why)

    def _flush(self) -> None:
        self._flush_is_due = False
        for link in self.broker.dirty():
            cast(_Connection, link.owner).pump()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK, self._tick)
        now = time.monotonic()
        self.run(self.broker.tick(_now()))
        for connection in self.handshaking.over(now):
            self.report(connection, "handshake failed", f"not finished in {self.handshake_timeout:g} s")
            connection.abort()
        for connection in self.lingering.over(now):
            connection.abort()
        self.flood.sweep(now)
        if now >= self._recheck:
            self._recheck = now + RECHECK
            self.recheck()

    def recheck(self) -> None:
        """Ends the connections whose certificates have expired since they came in."""
        now = self.wall_clock()
        for connection in list(self.connections):
            if connection.credential is not None and now > connection.credential.not_after:
                self._write(connection, "certificate expired", "warning", since=f"{connection.credential.not_after}")
                connection.end(access.NOT_AUTHORIZED)

    def _stop_listening(self) -> None:
        for server in self._listening:
            server.close()
        self._listening.clear()


class _Connection(asyncio.BufferedProtocol):
    """One transport connection and its link in the core; the two kinds differ in what lies between them."""

    __slots__ = (
        "_done",
        "_link",
        "_paused",
        "_transport",
        "accepted",
        "credential",
        "listener",
        "peer",
        "peer_host",
        "problem",
        "server",
    )

    def __init__(self, server: Server, listener: Listener) -> None:
        self.server = server
        self.listener = listener
        self.peer = self.peer_host = "unknown"
        self.credential: access.Credential | None = None
        """Who has proved to be at the other end."""
        self.problem: str | None = None
        """Why the peer is to be refused although its handshake was finished."""
        self.accepted: access.Accept | None = None
        self._transport: asyncio.Transport | None = None
        self._link: Link | None = None
        self._paused = False
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
        name = transport.get_extra_info("peername")
        if name:
            self.peer_host = name[0]
            self.peer = str(Address(name[0], name[1]))
        if self.server.full:
            self._done = True
            self.server.report(self, "connection refused", f"there are {len(self.server.connections)} already")
            self._transport.abort()
            return
        self.server.connections.add(self)
        self._opened()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.server.inbox

    def buffer_updated(self, nbytes: int) -> None:
        if not self._done:
            self._received(self.server.inbox[:nbytes])

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

    def resume_writing(self) -> None:
        self._paused = False
        self.pump()

    # --- called by the server ---

    def pump(self) -> None:
        """Writes the output of the link as far as the transport takes it."""
        link = self._link
        while link is not None and link.pending and not self._paused and not self._done:
            self._send(link.take(TAKE))

    def finish(self, reason: int = 0) -> None:
        """The core is done with the link: sends the rest, says goodbye, waits for the peer to close."""
        link = self._link
        if self._done or link is None:
            return
        if self.accepted is None and self.problem is None and reason >= 0x80:
            self.server.report(self, "no connection", REASONS.get(reason, f"reason 0x{reason:02x}"))
        while rest := link.take(TAKE):
            self._send(rest)
        self._goodbye()
        self._shut_down()
        self._lose()

    def end(self, reason: int) -> None:
        """Ends the connection from our side."""
        if self._link is not None:
            self.server.run(self._link.close(reason, _now()))

    def stop(self) -> None:
        """The gateway stops."""
        self.end(SERVER_SHUTTING_DOWN)
        if not self._done:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- inside ---

    def _opened(self) -> None:
        raise NotImplementedError

    def _received(self, data: memoryview) -> None:
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        raise NotImplementedError

    def _goodbye(self) -> None:
        """What the layer below MQTT says at the end."""

    def _open_link(self) -> None:
        self._link = self.server.broker.open(self, _now())

    def _feed(self, data: memoryview) -> None:
        if self._link is not None:
            self.server.run(self._link.feed(data, _now()))

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _shut_down(self) -> None:
        """Half closes: closed at once, with input unread, the kernel would throw away what the peer has yet to read."""
        self._done = True
        self.server.lingering.set(self, time.monotonic() + LINGER)
        if self._transport is not None and not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except (OSError, RuntimeError):
                self._transport.abort()

    def _lose(self) -> None:
        """Nothing more will come from the peer."""
        if not self._done:
            self._done = True
            self.server.lingering.set(self, time.monotonic() + LINGER)
        link, self._link = self._link, None
        if link is not None:
            self.server.run(link.lost(_now()))


class _Plain(_Connection):
    """MQTT on TCP."""

    __slots__ = ()

    def _opened(self) -> None:
        self._open_link()

    def _received(self, data: memoryview) -> None:
        self._feed(data)

    def _send(self, data: bytes) -> None:
        self._write(data)


class _Secure(_Connection):
    """MQTT in TLS in TCP."""

    __slots__ = ("_first", "_incoming", "_outgoing", "_ready", "_tls")

    def __init__(self, server: Server, listener: Listener) -> None:
        super().__init__(server, listener)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._first = b""  # the first bytes from the peer, for the explanation of a failure
        self._ready = False  # the handshake is finished
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
            words = "closed in the handshake" if self._first[:1] == b"\x16" else tls.explain(None, self._first)
            self.server.report(self, "handshake failed", words)

    def _opened(self) -> None:
        credentials = self.server.credentials
        assert credentials is not None, "a secure listener without credentials"
        self._tls = credentials.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.server.handshaking.set(self, time.monotonic() + self.server.handshake_timeout)

    def _received(self, data: memoryview) -> None:
        if not self._first:
            self._first = bytes(data[:4])
        for at in range(0, len(data), RECORD):
            self._incoming.write(data[at : at + RECORD])
            if self._ready or self._handshake():
                self._decrypt()
            if self._done:
                break

    def _handshake(self) -> bool:
        """Goes on with the handshake; True once it is finished."""
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._write(self._outgoing.read())
            return False
        except (ssl.SSLError, OSError, ValueError) as error:
            self.server.handshaking.drop(self)
            self.server.report(self, "handshake failed", tls.explain(error, self._first))
            self._write(self._outgoing.read())  # the alert
            self._shut_down()
            return False
        self._write(self._outgoing.read())
        self._ready = True
        self.server.handshaking.drop(self)
        self._identify()
        self._open_link()
        return True

    def _identify(self) -> None:
        """Sets `credential`, or else `problem`: then the CONNECT is refused with it, so that the node can show why."""
        self.problem = "the certificate was not checked"  # fail closed, whatever happens below
        if self._tls is None or self.server.credentials is None:
            return
        certificate = self._tls.getpeercert(binary_form=True)
        try:
            self.credential = access.identify(
                certificate, self.server.credentials.authorities, self.server.wall_clock()
            )
        except access.IdentityError as error:
            self.problem = str(error)
        else:
            self.problem = None

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
            self._goodbye()
            self._shut_down()
            self._lose()
        elif self._outgoing.pending:
            # An answer of TLS itself. Who asks for answers without reading them would fill our memory with them.
            if self._paused:
                self.server.report(self, "connection cut", "it reads nothing and asks for more")
                self.abort()
            self._write(self._outgoing.read())

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

    def _goodbye(self) -> None:
        if self._tls is None or not self._ready:
            return
        with contextlib.suppress(ssl.SSLError, OSError, ValueError):
            self._tls.unwrap()  # writes our close_notify, and then wants to read the peer's
        self._write(self._outgoing.read())


def _bind(listener: Listener) -> socket.socket:
    """A socket bound to the address of the listener; accepted ones inherit its options (Linux)."""
    address = listener.address
    everywhere = not address.host
    dual = everywhere and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"{address}: {_bind_problem(error, listener)}") from None
    sock.setblocking(False)
    return sock


def _bind_problem(error: OSError, listener: Listener) -> str:
    key = f"{listener.scheme} in [listen] of gateway.toml"
    if error.errno == errno.EADDRINUSE:
        return f"in use: another program (another peanutd?) listens there; stop it, or change {key}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address; change {key}"
    if error.errno == errno.EACCES:
        return f"not allowed; ports below 1024 are the system's: change {key}"
    return f"{error.strerror}; change {key}"
