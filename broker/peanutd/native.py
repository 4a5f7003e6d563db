"""The native driver: connections whose bytes a loop in C moves (native/loop.h), in a thread of its own.

The rule it keeps: everything that is decided is decided here, in the asyncio loop and by the same words as for
connections of `connection.py`; what the C thread has to ask or to tell comes as posts, and orders go back. Neither
waits for the other: while Python is busy, who is in is served.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Final, cast

from peanutd import _core, access, psk, tls
from peanutd.config import Listener, Policy, UnixPath
from peanutd.connection import LINGER, Connection, Home, now_ms
from peanutd.throttle import network

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from peanutd._core import Link

AVAILABLE: Final = hasattr(_core, "Loop")
"""Whether the loop was built: it needs Linux and OpenSSL (setup.py)."""

OPENSSL: Final[str | None] = getattr(_core, "OPENSSL", None)
"""The library that it was built with, in its own words; Python's ssl may have another."""

REST_AT: Final = 64
"""Connections that have been let in and not yet sent to rest, at the most; the tick sends fewer."""
_VERSIONS: Final = {2: "TLSv1.2", 3: "TLSv1.3"}
NOTE_MAX: Final = 0xFFFF
"""Bytes of the note of one that rests, at the most: a client id can be almost as long, where it may (max_client_id)."""
_NOTE: Final = struct.Struct("<BBBH")
"""What is noted of one that rests: listener, slot, version of TLS and the three bits below, the peer's port. Behind it
its host (four bytes of IPv4, or a text and a zero) and its client id, which is empty where the identity says it."""
_SUSPECT: Final = 4
_BLAMED: Final = 8
_IPV4: Final = 16


def serves(listener: Listener) -> bool:
    """Whether the native driver can serve a listener: TCP without more, or TLS on it."""
    plain = listener.transport in ("tcp", "tls") and listener.proxy_from is None
    return AVAILABLE and plain and not isinstance(listener.address, UnixPath)


class Native(Connection):
    """One connection that the C thread holds, and its link in the core."""

    __slots__ = ("_driver", "_first", "_keys", "_name", "_opening", "_promised", "_ready", "_version")

    def __init__(self, server: Home, listener: Listener, driver: Driver) -> None:
        super().__init__(server, listener)
        self._driver = driver
        self._name = 0  # of the C thread's connection
        self._first = b""  # the first bytes from the peer
        self._keys = psk.NO_KEYS  # those of devices that the handshake goes by, where there are any
        self._opening: Link | None = None  # what will be its link when the handshake is done
        self._promised = False  # its handshake may begin at once, and has not yet
        self._ready = not listener.secure  # the handshake is finished
        self._version: int | None = None

    @property
    def tls_version(self) -> str | None:
        return _VERSIONS.get(self._version or 0)

    @property
    def gone(self) -> bool:
        """There is no peer any more."""
        return self._done or self._name == 0

    def enter(self, fd: int) -> None:
        """Takes over an accepted socket, if there is room; else closes it."""
        server = self.server
        problem = server.admit(self)
        if problem is None:
            problem = server.admit_address(self)
        if problem is not None:
            self._done = True
            server.report(self, "connection refused", problem)
            os.close(fd)
            server.forget(self)
        else:
            try:
                self._hand_over(fd)
            except BaseException:  # nobody would tell us that it is gone
                self._done = True
                self._unpromise()
                os.close(fd)
                server.forget(self)
                raise

    def _hand_over(self, fd: int) -> None:
        """The socket is the C thread's from now on."""
        server = self.server
        if self.listener.secure:
            server.waits.handshaking.set(self)
            self._promised = server.handshakes.at_once()
            context = self._context if self._promised else None
            self._name, self._opening = self._driver.loop.welcome(fd, self, context)
        else:
            self._name, self._link = self._driver.loop.add(fd, self, now_ms())

    # --- what the C thread tells ---

    def greeted(self, first: bytes, begun: bool) -> None:
        """The peer has begun with these bytes, and so has the handshake; or it is not heard further until it is said
        what to do.
        """
        self._first = first
        self._unpromise()
        if self._done or begun:
            return
        if problem := tls.no_hello(first):
            self.server.report(self, "handshake failed", problem, "not TLS")
            self._end_handshake()
        elif len(first) < tls.HELLO_HEADER:
            self._driver.loop.more(self._name)
        else:
            self.server.handshakes.begin(self, network(self.peer_host))

    def step(self) -> None:
        """It is this connection's turn: the handshake begins, and the C thread goes on with it."""
        if not self._done:
            self._driver.loop.begin(self._name, self._context)

    def proved(self, certificate: bytes, version: int) -> None:
        """The handshake is done, but for our last word; `certificate` (or the identity of a key) is empty where there
        is none.
        """
        link, self._opening = self._opening, None
        if not self._done and self._may_speak(certificate, version):
            assert link is not None
            self.server.waits.handshaking.drop(self)
            self._link = link
            self._driver.loop.attach(self._name, link, now_ms())

    def opened(self, certificate: bytes, version: int) -> None:
        """The handshake is done, and the C thread has opened the link. Its CONNECT, if it has come, is next."""
        self._link, self._opening = self._opening, None
        if not self._done and self._may_speak(certificate, version):
            self.server.waits.handshaking.drop(self)

    def failed(self, reason: str, verify: int) -> None:
        """The handshake is not done: OpenSSL's words, and what was wrong with the certificate."""
        if self._done:
            return
        error = _error(reason, verify)
        kind = "certificate" if tls.about_certificate(error) else "TLS"
        why = tls.explain(error, self._first, by_key=self.listener.policy.psk)
        self.server.report(self, "handshake failed", why, kind)
        self._done = True
        self.server.waits.handshaking.drop(self)

    def seen(self) -> None:
        """The server has heard of its CONNECT, or AUTH."""
        if self._name:
            self._driver.loop.seen(self._name)

    def stalled(self) -> None:
        """It was cut, because it reads nothing."""
        why = f"it has read nothing for {self.server.waits.stalled.seconds:g} s"
        self.server.note(self, "cut", "warning", why=why)

    def pestered(self) -> None:
        """It was cut, because it reads nothing and asks for more."""
        self.server.report(self, "connection cut", "it reads nothing and asks for more")

    def left(self) -> None:
        """Nothing more comes from the peer."""
        self._done = True
        self._lose()

    def closed(self) -> None:
        """The socket is closed."""
        if not self._ready and not self._done and self._first:
            hello = self._first[:1] == b"\x16"
            words = "closed in the handshake" if hello else tls.explain(None, self._first)
            self.server.report(self, "handshake failed", words, "closed" if hello else "not TLS")
        self._done = True
        self._name = 0
        self._opening = None
        self._unpromise()
        try:
            self._lose()
        finally:
            self.server.forget(self)

    # --- its rest: see native/guest.h ---

    def is_in(self) -> None:
        self._driver.let_rest(self)

    def rest(self) -> None:
        """Python has no more to do with it: what is needed to go on is noted, and the object may go."""
        verdict, link, server = self.accepted, self._link, self.server
        if self._done or verdict is None or link is None or self._name == 0:
            return
        client_id = verdict.session[len(_who(self.credential)) + 1 :]
        again = _verdict(verdict.slot, self.credential, client_id)
        if (again.session, again.identity, again.owner) != (verdict.session, verdict.identity, verdict.owner):
            return  # of somebody who has logged in: the reception knows it
        bits, host = _host_noted(self.peer_host)
        bits |= (self._version or 0) | _SUSPECT * self.suspect | _BLAMED * self.blamed
        at, port = self._driver.listeners.index(self.listener), int(self.peer.rpartition(":")[2])
        note = _NOTE.pack(at, verdict.slot.value, bits, port) + host + client_id.encode()
        if len(note) > NOTE_MAX or server.census.holder(verdict.session) is not self:
            return
        self._driver.loop.rest(link, note, self.credential)  # first: without memory for it nothing has happened
        self._link = None
        server.census.rest(self, verdict)
        server.connections.discard(self)

    @classmethod
    def woken(cls, driver: Driver, name: int, link: Link, note: bytes, credential: access.Credential | None) -> Native:
        """The same as it was."""
        at, slot, bits, port = _NOTE.unpack_from(note)
        host, client_id = _host_of(bits, note[_NOTE.size :])
        self = cls(driver.server, driver.listeners[at], driver)
        self.came_from(host, port)
        self.counted = host
        self.credential, self.accepted = credential, _verdict(access.Slot(slot), credential, client_id)
        self.suspect, self.blamed = bool(bits & _SUSPECT), bool(bits & _BLAMED)
        self._link, self._name, self._version, self._ready = link, name, bits & 3 or None, True
        self.server.connections.add(self)
        self.server.census.wake(self, self.accepted)
        return self

    # --- called by the server ---

    def pump(self) -> None:
        """The C thread sends."""

    def hold(self) -> None:
        self._driver.loop.hold(self._name)

    def go_on(self) -> None:
        self._driver.loop.hold(self._name)

    def finish(self, reason: int = 0, words: str = "") -> None:
        if self._done:
            return
        if self._link is None:  # the core was faster than the news that it has a link
            self.cut()
            return
        if self.accepted is None and self.problem is None and reason >= 0x80:
            self.server.report(self, "no connection", words, "no CONNECT")
        self._done = True
        self._driver.loop.finish(self._name)

    def abort(self) -> None:
        if self._name:
            self._driver.loop.abort(self._name)

    # --- inside ---

    def _unpromise(self) -> None:
        if self._promised:
            self._promised = False
            self.server.handshakes.kept()

    @property
    def _context(self) -> _core.Tls:
        policy = self.listener.policy
        context = self._driver.context(policy)
        if policy.psk and (known := self.server.credentials) is not None:
            self._keys = known.keys
        return context

    def _may_speak(self, shown: bytes, version: int) -> bool:
        """Whether who has proved to own this certificate, or the key of this identity, may say what it wants."""
        self._version = version
        if self.listener.policy.psk:
            self._identify_by_key(shown)
        else:
            self._identify(shown or None)
        if self.credential is not None and (why := self.server.revoked(self.credential)) is not None:
            self._done = True
            self.server.report(self, "handshake failed", why, "revoked")
            self.abort()
            return False
        self._ready = True
        self._first = b""
        return True

    def _identify_by_key(self, identity: bytes) -> None:
        """As `_identify`. The keys of now are asked by whoever asks who is revoked."""
        keys, self._keys = self._keys, psk.NO_KEYS
        try:
            self.credential = psk.identify(keys, identity)
        except access.IdentityError as error:
            self.problem = str(error)

    def _end_handshake(self) -> None:
        self._done = True
        self.server.waits.handshaking.drop(self)
        self._driver.loop.finish(self._name)

    def _lose(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self.server.run(link.lost(now_ms()))


def _who(credential: access.Credential | None) -> str:
    return "anonymous" if credential is None else str(credential.identity)


def _verdict(slot: access.Slot, credential: access.Credential | None, client_id: str) -> access.Accept:
    """What `access.decide` has said of who has a certificate or key, or is anonymous; client_id: "" of a node."""
    who = _who(credential)
    session = f"{who}/{client_id}" if client_id else who
    if credential is None:
        return access.Accept(session, who, slot)
    return access.Accept(session, credential.identity.name, slot, owner=who if client_id else None)


def _host_noted(host: str) -> tuple[int, bytes]:
    """The bit and the bytes for a peer's address."""
    try:
        return _IPV4, socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return 0, host.encode() + b"\0"


def _host_of(bits: int, noted: bytes) -> tuple[str, str]:
    """The same back, and what stands behind."""
    if bits & _IPV4:
        return socket.inet_ntop(socket.AF_INET, noted[:4]), noted[4:].decode()
    host, _, rest = noted.partition(b"\0")
    return host.decode(), rest.decode()


class Driver:
    """The C thread, and what goes between it and the connections. To be ended when all of them are gone."""

    def __init__(self, server: Home, loop: AbstractEventLoop) -> None:
        self.server = server
        self.listeners: list[Listener] = []
        """Those by which somebody has come."""
        self._asyncio = loop
        self._stall = server.waits.stalled.seconds
        self.loop = _core.Loop(
            server.broker,
            stall=self._stall,
            linger=LINGER,
            threads=server.handshakes.threads,
            loops=server.handshakes.loops,
            wake=self._wake,
        )
        self._soon: list[Native] = []  # those that may rest
        server.connections.sleepers = self.loop
        self.accept = _core.accept
        """What the doors of its listeners accept by."""
        self._contexts: dict[Policy, _core.Tls] = {}
        self._context_of: dict[int, _core.Tls] = {}  # by the id of a policy: listeners live as long as this
        self._made_of: tls.Credentials | None = None
        self._stapled = b""  # what the contexts say of our certificate
        self._rotated = 0.0  # when the keys of tickets were made, by the monotonic clock
        loop.add_reader(self.loop.fileno(), self._read)
        self.loop.start()

    def enter(self, listener: Listener, fd: int, host: str, port: int) -> None:
        """Somebody has come in by a door."""
        if listener not in self.listeners:
            self.listeners.append(listener)
        connection = Native(self.server, listener, self)
        connection.came_from(host, port)
        connection.enter(fd)

    def context(self, policy: Policy) -> _core.Tls:
        """What a handshake that begins now goes by, on a listener of this policy."""
        credentials = self.server.credentials
        assert credentials is not None, "a secure listener without credentials"
        if credentials is self._made_of and (found := self._context_of.get(id(policy))) is not None:
            return found
        if credentials is not self._made_of:
            self._contexts.clear()
            self._context_of.clear()
            self._made_of = credentials
            self._rotated = time.monotonic()
            self._staple()
        wanted = Policy(policy.certificate, psk=policy.psk)  # what else it takes is no matter of TLS
        context = self._contexts.get(wanted)
        if context is None:
            context = self._contexts[wanted] = tls.native_context(credentials, wanted)
            context.staple(self._stapled)
        self._context_of[id(policy)] = context
        return context

    def _rotate(self) -> None:
        """A key seals tickets for as long as they are good; then another one, and it opens them for as long again."""
        now = time.monotonic()
        tickets = self._made_of.tickets if self._made_of is not None else 0
        if tickets and now - self._rotated >= tickets:
            self._rotated = now
            for context in self._contexts.values():
                context.rotate()

    def _staple(self) -> None:
        """Has handshakes to come tell what an OCSP responder says of our certificate now."""
        staple = self._made_of.staple if self._made_of is not None else None
        answer = staple.current(self.server.wall_clock()) if staple is not None else b""
        if answer != self._stapled:
            self._stapled = answer
            for context in self._contexts.values():
                context.staple(answer)

    def tick(self) -> None:
        """To be called about twice a second, before the core's tick: so that all links are known which that may end."""
        self._read()  # what rang no bell
        self._rest()
        stall = self.server.waits.stalled.seconds
        if stall != self._stall:
            self._stall = stall
            self.loop.set_times(stall=stall, linger=LINGER)
        self._staple()
        self._rotate()

    def end(self) -> None:
        """Ends the thread; what is open still is closed."""
        self._asyncio.remove_reader(self.loop.fileno())
        self._read()
        self._soon.clear()
        self.loop.end()

    def _read(self) -> None:
        for kind, about, reason, text in self.loop.posts():
            try:
                self._hear(kind, about, reason, text)
            except Exception as error:  # a mistake of ours about one of them; there is news of others
                self._give_up(about, error)
        if len(self._soon) >= REST_AT:
            self._rest()

    def let_rest(self, connection: Native) -> None:
        """There is nothing to be decided about it now; it rests when there is nothing to be heard of it either."""
        self._soon.append(connection)

    def _rest(self) -> None:
        """Not while posts are read: they have been given the objects that go."""
        if self.server.unheard:
            return
        soon, self._soon = self._soon, []
        for connection in soon:
            connection.rest()

    def _wake(self, name: int, link: Link, note: bytes, credential: access.Credential | None) -> Native:
        connection = Native.woken(self, name, link, note, credential)
        self.let_rest(connection)
        return connection

    def _hear(self, kind: int, about: Link | object, reason: int, text: str | bytes) -> None:
        if kind < _core.POST_HELLO:
            link = cast("Link", about)
            asks = kind in (_core.EVENT_CONNECT, _core.EVENT_AUTH) and isinstance(link.owner, Native)
            if asks and cast(Native, link.owner).gone:
                return  # it was cut for its certificate, say, and is not answered any more
            self.server.run(((kind, link, reason, cast(str, text)),))
            if asks:
                cast(Native, link.owner).seen()
        elif kind == _core.POST_JOURNAL:
            self.server.run(())
        elif kind == _core.POST_PUMP:
            cast(Connection, cast("Link", about).owner).pump()
        else:
            self._told(cast(Native, about), kind, reason, text)

    def _give_up(self, about: Link | object, error: Exception) -> None:
        """Cuts a connection about which we have failed, as asyncio does, and says so."""
        owner = about if isinstance(about, Native) else getattr(about, "owner", None)
        self._asyncio.call_exception_handler({"message": "the native driver's news", "exception": error})
        if isinstance(owner, Connection):
            owner.cut()  # and what it has said already, a CONNECT say, is not answered

    @staticmethod
    def _told(connection: Native, kind: int, reason: int, text: str | bytes) -> None:
        if kind == _core.POST_HELLO:
            connection.greeted(cast(bytes, text), reason == 1)
        elif kind == _core.POST_READY:
            connection.proved(cast(bytes, text), reason)
        elif kind == _core.POST_OPENED:
            connection.opened(cast(bytes, text), reason)
        elif kind == _core.POST_FAILED:
            connection.failed(cast(str, text), reason)
        elif kind == _core.POST_LOST:
            connection.left()
        elif kind == _core.POST_STALLED:
            connection.stalled()
        elif kind == _core.POST_PESTERS:
            connection.pestered()
        elif kind == _core.POST_GONE:
            connection.closed()


def _error(reason: str, verify: int) -> ssl.SSLError:
    """What Python's ssl would have raised."""
    name = reason.upper().replace(" ", "_")
    if verify:
        broken = ssl.SSLCertVerificationError(reason)
        broken.reason, broken.verify_code, broken.verify_message = name, verify, f"error {verify}"
        return broken
    error = ssl.SSLError(reason)
    error.reason = name
    return error
