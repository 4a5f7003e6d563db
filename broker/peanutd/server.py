"""The asyncio driver: listeners, connections and time around the core.

The rule it keeps: only this file awaits, and it decides nothing; bytes go into the core, events come out, `access`
judges, and what the core has to say is written once a loop turn. How many there may be is limited: connections in all,
of an address, of an identity.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from peanutd import access, native, status, tls
from peanutd._core import (
    EVENT_AUTH,
    EVENT_CLOSED,
    EVENT_CONNECT,
    EVENT_DENIED,
    EVENT_DISCONNECT,
    EVENT_PAUSE,
    EVENT_RESUME,
    LIMITS,
    Broker,
    Link,
)
from peanutd.census import QUOTA_EXCEEDED, Census, Limits
from peanutd.config import FILE_NAME, Address, Jwt, Listen, Listener, Mqtt, Policy, UnixPath
from peanutd.connection import (
    KINDS,
    PLAIN_BUFFER,
    RECEIVE_BUFFER,
    SERVER_SHUTTING_DOWN,
    Connection,
    Waits,
    now_ms,
)
from peanutd.control import Answer, Control, ControlError, Question
from peanutd.crowd import Crowd
from peanutd.door import Door, Handshakes, accept
from peanutd.ear import Ear
from peanutd.keeper import Keeper
from peanutd.log import Log, clean
from peanutd.psk import FILE_NAME as FILE_OF_KEYS
from peanutd.reception import Reception
from peanutd.revoked import Entry
from peanutd.rules import Book, built_in
from peanutd.sntp import TimeServer
from peanutd.sockets import BACKLOG, Bound, ListenError, bind, bind_both, bind_udp
from peanutd.store import Database
from peanutd.users import Store
from peanutd.watch import BANNED, Watch

if TYPE_CHECKING:
    from peanutd._core import Connect, Event

STOP_TIMEOUT: Final = 2.0
"""Seconds for all connections to end when the gateway stops, before they are cut."""
TICK: Final = 0.5
"""Seconds between two ticks of the core."""
RECHECK: Final = 60.0
"""Seconds between two looks at the certificates and users of those connected."""
FAR: Final = 1e9
"""Seconds ahead that are as good as never."""
SPARE_FILES: Final = 64
"""File descriptors that are kept for other things than connections."""
ADOPTED: Final = Listener(
    UnixPath("https"), "ws", Policy("none", password=True), proxy_from=(), where=f"https in [listen] of {FILE_NAME}"
)
"""What holds for MQTT over WebSocket at the app's address; whose TLS ends in the API's thread."""
SHOWN_OUT: Final = 0.05
"""What closing a connection at once costs, against making something of it."""
NO_KEYS_HERE: Final = "psk needs the native loop: sudo apt-get install libssl-dev, then make setup"
FULL: Final = "there are as many connections as there may be (max_connections in [mqtt])"
OVERLAP: Final = 32
"""Connections beyond max_connections while those that were cut for them are not closed yet; fewer than SPARE_FILES."""
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

TAKEN_OVER: Final = 0x8E
ADMINISTRATIVE_ACTION: Final = 0x98
CERTIFICATE_MAX: Final = 3584
"""Bytes of what a node gets to renew its certificate: it takes packets of 4096."""
SNAPSHOT_TIMEOUT: Final = 2.0
"""Seconds that another thread waits for a snapshot."""
MQTT_31: Final = 3
"""The protocol level of MQTT 3.1."""
_VERSIONS: Final = {MQTT_31: "3.1", 4: "3.1.1", 5: "5.0"}


class Server:
    """All listeners and connections around one Broker. Not thread-safe; everything runs in one loop."""

    def __init__(
        self,
        broker: Broker,
        log: Log,
        loop: asyncio.AbstractEventLoop,
        *,
        credentials: tls.Credentials | None = None,
        users: Store | None = None,
        limits: Limits | None = None,
        watch: Watch | None = None,
        handshake_timeout: float = Listen().handshake_timeout,
        max_packet_size: int = LIMITS["max_packet_size"],
        version: str = "",
        mqtt: Mqtt | None = None,
        book: Book | None = None,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Secure listeners need `credentials`, those with passwords `users`. `credentials`, `census.limits` and
        the seconds in `waits` may be set anew while the server runs: they count for connections to come. So may
        `mqtt`; without its `sys_interval` there are no news of clients either. $SYS names `version`. Certificates are
        held to `wall_clock`. `max_packet_size` is the core's; it bounds WebSocket frames. `book` has the rules; without
        one, those that are built in count.
        """
        # At most 29 attributes: with the 30th, CPython 3.11 reads each of them more slowly, and some are read with
        # every chunk that comes in.
        self.broker = broker
        self.log = log
        self.watch = watch or Watch(log)
        self.credentials = credentials
        self.census = Census(limits)
        self.max_packet_size = max_packet_size
        self.mqtt = mqtt or Mqtt(sys_interval=0)
        self.wall_clock = wall_clock
        self.inbox = memoryview(bytearray(RECEIVE_BUFFER))
        self.plain = memoryview(bytearray(PLAIN_BUFFER))
        self.connections: Crowd[Connection] = Crowd()
        self.handshakes = Handshakes(loop)
        self.waits = Waits(handshake_timeout, Listen().stall_timeout)
        self._loop = loop
        self._reception = Reception(self, loop, log, users or Store(), lambda: self.wall_clock().timestamp())
        self._listening: list[tuple[asyncio.Server | Door[Any] | TimeServer, Bound | None]] = []
        self._native: native.Driver | None = None
        self._status = status.Status(version, time.monotonic())
        self.keeper: Keeper | None = None
        self._events: deque[Event] = deque()
        self._handling = False
        self._flush_is_due = False
        self._stopping = False
        self._entering: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._empty = asyncio.Event()
        self._recheck = time.monotonic() + RECHECK
        self._timer: asyncio.TimerHandle | None = None
        self.set_rules(book or built_in())

    def keep(self, database: Database, *, waits: bool) -> None:
        """Takes up what `database` has kept, and keeps in it from now on; before `start`, after the rules are set.
        waits: who is told that something is kept is told when it is on the disk. StoreError when it cannot be read.
        """
        took = self.watch.tally.journal.add
        self.keeper = Keeper(self.broker, database, self.log, self._loop, self.run, waits=waits, now=now_ms, took=took)
        self.keeper.restore()

    def set_rules(self, book: Book) -> None:
        """Takes other rules. They count for the next publication, and every session is judged anew: subscriptions and
        wills that are no longer allowed end, and nobody is disconnected.
        """
        self.book = book
        book.install(self.broker)

    def take_tokens(self, settings: Jwt | None, home: Path) -> None:
        """The tokens that listeners with `jwt` take from now on; None: none."""
        self._reception.take_tokens(settings, home)

    def confine(self, confined: Callable[[Iterable[str]], frozenset[str]]) -> None:
        """`confined` picks those users who may not come in: the rules would let them do more than they may."""
        self._reception.confined = confined

    async def serve(
        self,
        listeners: Sequence[Listener],
        time_at: Address | None = None,
        control: Listener | None = None,
        answer: Callable[[Question], Answer] | None = None,
    ) -> None:
        """Serves until `end` is called, and ends in order. ListenError as `start`. control: the control socket; that it
        cannot be had is no reason not to serve. answer: who answers there, in place of `self.answer`.
        """
        await self.start(listeners, time_at)
        try:
            if control is not None:
                await self.listen_to_operator(control, answer)
        except ListenError as error:
            self.log.warning("server", f"`peanutd status` and `peanutd bans` cannot reach this gateway: {error}")
        await self._ended.wait()
        self.log.info("server", "stopping", connections=len(self.connections))
        await self.stop()
        self.log.info("server", "stopped")

    def end(self) -> None:
        """Makes `serve` return; for signal handlers."""
        self._ended.set()

    async def start(self, listeners: Sequence[Listener], time_at: Address | None = None) -> list[Address | UnixPath]:
        """Listens; returns the addresses with the ports that they really got. ListenError says which failed and why.

        time_at: where to tell the time (UDP); port 0 takes the number of the first listener.
        """
        found: list[Address | UnixPath] = []
        where = f"time in [listen] of {FILE_NAME}"
        same = next((one for one in listeners if isinstance(one.address, Address)), None)
        telling: socket.socket | None = None
        try:
            for listener in listeners:
                if listener.policy.psk and not (listener.driver == "native" and native.serves(listener)):
                    raise ListenError(f"{listener.address}: {NO_KEYS_HERE}; or leave out psk in {listener.where}")
                if listener is same and time_at is not None and not time_at.port:
                    bound, telling = bind_both(listener, time_at.host, where)
                else:
                    bound = bind(listener)
                if self._native is None and listener.driver == "native" and native.serves(listener):
                    self._native = native.Driver(self, self._loop)
                make = partial(KINDS[listener.transport], self, listener)
                server: asyncio.Server | Door[Any]
                accepts = self.handshakes.accepts
                if isinstance(bound.address, UnixPath):
                    server = await self._loop.create_unix_server(make, sock=bound.socket, backlog=BACKLOG)
                elif self._native is not None and listener.driver == "native" and native.serves(listener):
                    show_in = partial(self._show_in, self._native, listener)
                    server = Door(self._loop, bound.socket, accepts, self._native.accept, show_in)
                else:
                    enter = partial(self._enter, listener, make)
                    server = Door(self._loop, bound.socket, accepts, accept, enter)
                self._listening.append((server, bound))
                found.append(bound.address)
                self.log.info("server", f"listening {replace(listener, address=bound.address)}")
            if time_at is not None:
                telling = telling or bind_udp(time_at, where)
                time_at = replace(time_at, port=telling.getsockname()[1])
                clock = TimeServer()
                await self._loop.create_datagram_endpoint(lambda: clock, sock=telling)
                self._listening.append((clock, None))
                self.log.info("server", f"telling the time at {time_at} (UDP)")
        except BaseException:
            if telling is not None:
                telling.close()
            self._stop_listening()
            raise
        self._report(time.monotonic())
        self._timer = self._loop.call_later(TICK, self._tick)
        return found

    def adopt(self, sock: socket.socket) -> None:
        """Serves MQTT over WebSocket on a connected socket: the app's HTTPS has ended TLS, and a PROXY header says who
        is there. Users may log in, as on a listener with `password`.
        """
        make = partial(KINDS[ADOPTED.transport], self, ADOPTED)
        self._enter(ADOPTED, make, sock, "app", 0)

    def standing(self) -> tuple[Mapping[str, dict[str, Any]], Mapping[str, Entry]]:
        """Who has been seen and who is revoked, by identity."""
        return self.watch.seen.records, self.watch.revoked.entries

    async def listen_to_operator(self, where: Listener, answer: Callable[[Question], Answer] | None = None) -> None:
        """Opens the control socket (control.py). ListenError when another gateway has it, for example."""
        bound = bind(where)
        make = partial(Control, answer or self.answer, self._loop)
        self._listening.append((await self._loop.create_unix_server(make, sock=bound.socket), bound))

    async def _take(self, connection: Connection, sock: socket.socket) -> None:
        """Makes a connection of an accepted socket."""
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:  # the peer has gone already
            sock.close()
            self.watch.knocked(connection)

    def _shuts_out(self, host: str, listener: Listener) -> bool:
        """Counts somebody who has come in by a door; whether he is banned, and is shown out before it costs much."""
        self.watch.tally.accepted += 1
        if listener.proxy_from is not None or self.watch.shuts(host, listener) is None:
            return False
        self.watch.tally.turned_away["banned"] += 1
        return True

    def _show_in(self, driver: native.Driver, listener: Listener, fd: int, host: str, port: int) -> float:
        """Somebody has come in by a door of the native driver; what that has cost."""
        if self._shuts_out(host, listener):
            os.close(fd)
            return SHOWN_OUT
        driver.enter(listener, fd, host, port)
        return 1.0

    def _enter(
        self, listener: Listener, make: Callable[[], Connection], sock: socket.socket, host: str, port: int
    ) -> float:
        """The same by another door."""
        if self._shuts_out(host, listener):
            sock.close()
            return SHOWN_OUT
        connection = make()
        connection.came_from(host, port)  # a socket that is reset by now cannot say it
        task = self._loop.create_task(self._take(connection, sock))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        return 1.0

    async def stop(self) -> None:
        """Stops listening, tells every client, waits STOP_TIMEOUT seconds at the most until all is sent and closed."""
        self._stopping = True
        self._stop_listening()
        for connection in list(self.connections):
            connection.stop(self.mqtt.server_reference)
        self._flush()
        if self.connections:
            try:
                await asyncio.wait_for(self._empty.wait(), STOP_TIMEOUT)
            except TimeoutError:
                self.log.info("server", "connections that did not end in time are cut", count=len(self.connections))
        for connection in list(self.connections):
            connection.abort()
        self._reception.stop()
        if self._timer is not None:
            self._timer.cancel()
        self.watch.flood.sweep(float("inf"))
        if (found := self.watch.sweep()) is not None:
            self.watch.save(found)
        if (sightings := self.watch.seen.contents()) is not None:
            self.watch.save_seen(sightings)
        await asyncio.sleep(0)  # lets the loop tell the cut connections
        if self._native is not None:
            self._native.end()
        if self.keeper is not None:
            self.keeper.end()

    def admit(self, connection: Connection) -> str | None:
        """Counts a new connection; or why there is no room for it. The oldest that has not come in yet makes room."""
        if self._stopping:
            self.watch.tally.turned_away["stopping"] += 1
            return REASONS[SERVER_SHUTTING_DOWN]
        census = self.census
        problem = census.room(len(self.connections))
        if census.crowded or (problem is not None and census.room(len(self.connections) - OVERLAP) is None):
            oldest = cast("Connection | None", census.give_up())
            if oldest is not None:
                why = FULL if problem is not None else "too many that have not come in (max_handshakes in [listen])"
                self.report(oldest, "connection cut", why, "full" if problem is not None else "newcomers")
                oldest.cut()
                problem = None
        if problem is not None:
            self.watch.tally.turned_away["full"] += 1
        else:
            self.connections.add(connection)
            census.expect(connection)
        return problem

    def admit_address(self, connection: Connection) -> str | None:
        """Counts a connection among those of its address; or why there is no room for it."""
        watch = self.watch
        ban = watch.shuts(connection.peer_host, connection.listener) if connection.listener.proxy_from else None
        if ban is not None:
            watch.tally.turned_away["banned"] += 1
            return f"banned: {ban.reason}"
        problem = self.census.arrive(connection.peer_host)
        if problem is None:
            connection.counted = connection.peer_host
            connection.suspect = watch.suspects(connection)
        else:
            watch.tally.turned_away["address"] += 1
        return problem

    def forget(self, connection: Connection) -> None:
        """The connection is gone for good."""
        self.connections.discard(connection)
        self.census.part(connection)
        self._reception.forget(connection)
        self.waits.forget(connection)
        if not self._stopping:
            self.watch.gone(connection)
        host, connection.counted = connection.counted, None
        if host is not None:
            self.census.depart(host)
        if not self.connections and self._stopping:
            self._empty.set()

    def publish(self, topic: str, payload: bytes) -> None:
        """A retained message in the gateway's own name."""
        self.run(self.broker.publish(topic, payload, qos=1, retain=True, now=now_ms()))

    def send(self, topic: str, payload: bytes, *, lifetime: int) -> None:
        """A message in the gateway's own name, not retained; after `lifetime` milliseconds it waits for nobody."""
        self.run(self.broker.publish(topic, payload, qos=1, lifetime=lifetime, now=now_ms()))

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

    @property
    def unheard(self) -> bool:
        """Whether there is something that the core has said and nobody has handled yet."""
        return bool(self._events)

    def _handle(self, kind: int, link: Link, reason: int, text: str) -> None:
        if isinstance(link.owner, Ear):
            link.owner.told(kind, reason)
            return
        connection = cast(Connection, link.owner)
        if kind == EVENT_CONNECT:
            self._judge(connection, link)
        elif kind == EVENT_AUTH:
            self._reception.proves(connection, link, reason)
        elif kind == EVENT_PAUSE:
            connection.hold()
            if reason:
                why = "it sends more than publish_rate or byte_rate in [mqtt]"
                self.note(connection, "throttled", "warning", why=why)
        elif kind == EVENT_RESUME:
            connection.go_on()
        elif kind == EVENT_CLOSED:
            connection.finish(reason, REASONS.get(reason, f"reason 0x{reason:02x}"))
        elif kind == EVENT_DISCONNECT:
            words = REASONS.get(reason, "no reason known")
            if reason == TAKEN_OVER:
                self._taken_over(connection)
            self._goes_offline(connection, words, reason)
            self.watch.left(connection, reason)
            usual = reason in (0x00, 0x04, 0x80, 0x8B, 0x8E) or self._stopping
            self.note(connection, "disconnected", "info" if usual else "warning", why=words, code=f"0x{reason:02x}")
        elif kind == EVENT_DENIED:
            if reason == QUOTA_EXCEEDED:
                why = "the retained store is full (max_retained, max_retained_bytes)"
                self.note(connection, "not retained", "warning", what=text, why=why)
            else:
                self.note(connection, "denied", "warning", what=text, why=self._why(connection, text))

    def _judge(self, connection: Connection, link: Link) -> None:
        """A CONNECT has arrived: in or out."""
        wish = link.connect
        if wish is None:
            return  # an event before this one has ended the link
        self.watch.tally.connects += 1
        if self._stopping:
            self.settle(connection, link, access.Refuse(SERVER_SHUTTING_DOWN, REASONS[SERVER_SHUTTING_DOWN]))
        elif wish.version == MQTT_31 and not self.mqtt.mqtt31:
            problem = "MQTT 3.1 is not spoken here (mqtt31 in [mqtt]); the client can surely do 3.1.1"
            self.settle(connection, link, access.Refuse(access.UNSUPPORTED_VERSION, problem))
        elif connection.problem is not None:
            self.settle(connection, link, access.Refuse(access.NOT_AUTHORIZED, connection.problem))
        elif (why := self.watch.bars(connection, wish.username, None)) is not None:
            self.settle(connection, link, access.Refuse(BANNED, why))
        elif not self._reception.takes(connection, link, wish):
            identity = connection.credential.identity if connection.credential else None
            over = connection.credential is not None and connection.credential.expired
            policy = connection.listener.policy
            verdict = access.decide(wish, identity, policy, expired=over, proof=_proof(connection))
            self.settle(connection, link, verdict, wish=wish)

    def settle(
        self,
        connection: Connection,
        link: Link,
        verdict: access.Accept | access.Refuse,
        *,
        user: str | None = None,
        data: bytes = b"",
        wish: Connect | None = None,
    ) -> None:
        """Carries out the verdict on the CONNECT that waits. user: who the client says it is; data: the last word of
        an authentication; wish: the CONNECT, where it has been looked at just now.
        """
        if wish is None and (wish := link.connect) is None:
            return
        if isinstance(verdict, access.Accept):
            why = self.watch.bars(connection, user, verdict.session)
            verdict = self.census.judge(verdict, self.broker.online) if why is None else access.Refuse(BANNED, why)
        if isinstance(verdict, access.Refuse):
            connection.problem = verdict.text
            self.watch.refused(connection, user or wish.username, verdict.reason)
            self.note(connection, "refused", "warning", user=user, why=verdict.text, code=f"0x{verdict.reason:02x}")
            self.run(link.refuse(verdict.reason, clean(verdict.text), now=now_ms()))
            return
        # Its wishes can still be too much for the core, which refuses it then: that is no coming in.
        events = link.accept(
            session=verdict.session,
            identity=verdict.identity,
            rules=verdict.slot.value,
            assigned_client_id=verdict.assigned,
            authentication_data=data,
            response_information=self.mqtt.response_information.replace("{id}", verdict.identity) or None,
            now=now_ms(),
        )
        if (reason := _refused(events, link)) is not None:
            connection.problem = REASONS.get(reason, "no reason known")
            self.watch.refused(connection, user, reason)
            self.note(connection, "refused", "warning", user=user, why=connection.problem, code=f"0x{reason:02x}")
            self.run(events)
            return
        connection.accepted = verdict
        if connection.credential is not None and verdict.slot.person:
            self.proved_until(link, connection.credential.not_after.timestamp())
        version = _VERSIONS.get(wish.version, str(wish.version))
        ends = connection.credential.ends if connection.credential else None
        soon = f"{ends:%Y-%m-%d}" if ends is not None and ends - self.wall_clock() < tls.SOON else None
        level = "warning" if soon else "info"
        what = "connected, only to have its certificate renewed" if verdict.slot.expired else "connected"
        self.note(connection, what, level, mqtt=version, tls=connection.tls_version, certificate_ends=soon)
        self._comes_online(connection, verdict, version)
        self.run(events)

    def proved_until(self, link: Link, ends: float) -> None:
        """The proof of who the client is ends then (Unix seconds). Not said of nodes: their wills say they are away."""
        left = ends - self.wall_clock().timestamp()
        now = now_ms()
        link.proved_until(now + round(1000 * min(left, FAR)), now)

    def revoked(self, credential: access.Credential) -> str | None:
        """Why the bearer of a certificate or key that is good is to be kept out all the same, or None."""
        psk, known = credential.psk, self.credentials
        if psk is not None and (known is None or known.keys.get(psk.name) != psk):
            return f"its key counts no more: {psk.name} is gone from {FILE_OF_KEYS}, or has another one"
        return self.watch.revoked.why(credential)

    def cut_revoked(self) -> int:
        """Cuts the connections of those who are revoked; how many. Their wills are published: they are away."""
        revoked = self.connections.shown(lambda shown: shown is not None and self.revoked(shown) is not None)
        for connection in revoked:
            assert connection.credential is not None
            self.note(connection, "cut", "warning", why=self.revoked(connection.credential))
            connection.end(ADMINISTRATIVE_ACTION)
            connection.abort()  # it is not waited for: nobody knows in whose hands it is
        return len(revoked)

    def revoke(self, slot: access.Slot, name: str) -> None:
        """Somebody is known no longer, or not as before."""
        self.broker.revoke(slot.value, name, now_ms())

    def _comes_online(self, connection: Connection, verdict: access.Accept, version: str) -> None:
        """A client is let in."""
        self.census.enter(connection, verdict)
        self.watch.came(connection, verdict)
        self._status.joined(self.census.online)
        self._tell(verdict.session, "connected", address=connection.peer, mqtt=version, tls=connection.tls_version)
        connection.is_in()

    def _taken_over(self, connection: Connection) -> None:
        """Another connection has its session. Again and again from another address, that is two devices in one name."""
        session = connection.accepted.session if connection.accepted is not None else ""
        rival = cast("Connection | None", self.census.holder(session))
        if rival is None or rival is connection or rival.peer_host == connection.peer_host:
            return
        if self.census.contested(session, time.monotonic()):
            proof = _proof(connection)
            why = f"two devices have the same {proof} and client id, or the {proof} is stolen"
            self.note(connection, "taken over again and again", "warning", by=rival.peer, why=why)

    def _goes_offline(self, connection: Connection, words: str, reason: int) -> None:
        """The session of a connection has gone offline; a takeover is no going."""
        verdict = connection.accepted
        if verdict is not None and self.census.leave(connection, verdict):
            self._tell(verdict.session, "disconnected", address=connection.peer, why=words, code=reason)

    def _tell(self, session: str, happened: str, **fields: object) -> None:
        """News of a client on $SYS."""
        if self.mqtt.sys_interval and not self._stopping:
            topic, payload = status.event(session, happened, **fields, ts=int(time.time()))
            self.run(self.broker.publish(topic, payload, now=now_ms()))

    def _report(self, now: float) -> None:
        """The numbers on $SYS, when they are due."""
        if self.mqtt.sys_interval and now >= self._status.due:
            self._status.due = now + self.mqtt.sys_interval
            tally = self.watch.tally
            stats = {**self._stats(), "connects": tally.connects, "sockets": tally.accepted}
            for topic, text in self._status.report(stats, self.census.online, now):
                self.run(self.broker.publish(topic, text.encode(), retain=True, now=now_ms()))

    def _why(self, connection: Connection, text: str) -> str:
        """Why the core has denied something: `text` is as in EVENT_DENIED."""
        accepted = connection.accepted
        if accepted is None:
            return "no rule allows it"
        return self.book.why(self.broker, accepted.slot, accepted.identity, text)

    def note(self, connection: Connection, happened: str, level: str, /, **fields: object) -> None:
        """A line about a client."""
        self.watch.note(connection, happened, level, **fields)

    def report(self, connection: Connection, what: str, why: str, kind: str = "") -> None:
        """A line about a connection that has not come as far as a CONNECT. kind: the word of tally.py for it."""
        self.watch.report(connection, what, why, kind)

    def _flush(self) -> None:
        self._flush_is_due = False
        for link in self.broker.dirty():
            cast(Connection, link.owner).pump()
        if self.broker.busy:
            self.run(self.broker.work(now_ms()))
        if self.keeper is not None:
            self.keeper.pump()

    def _tick(self) -> None:
        assert self._timer is not None
        self.watch.tally.lag.add(max(0.0, self._loop.time() - self._timer.when()))
        self._timer = self._loop.call_later(TICK, self._tick)
        now = time.monotonic()
        if self.keeper is not None:
            self.keeper.tick()
        if self._native is not None:
            self._native.tick()
        self.run(self.broker.tick(now_ms()))
        waits = self.waits
        for connection in waits.handshaking.over(now):
            why = f"not finished in {waits.handshaking.seconds:g} s"
            self.report(connection, "handshake failed", why, "timeout")
            connection.cut()
        for connection in waits.stalled.over(now):
            self.note(connection, "cut", "warning", why=f"it has read nothing for {waits.stalled.seconds:g} s")
            connection.abort()
        for connection in waits.lingering.over(now):
            connection.abort()
        if (found := self.watch.sweep()) is not None:
            self._loop.run_in_executor(None, self.watch.save, found)
        if self.watch.revoked.refresh():
            self.cut_revoked()
        if (sightings := self.watch.seen.sweep()) is not None:
            self._loop.run_in_executor(None, self.watch.save_seen, sightings)
        self._reception.refresh()
        self._report(now)
        if now >= self._recheck:
            self._recheck = now + RECHECK
            self.recheck()

    def recheck(self) -> None:
        """Ends the connections whose certificates have expired, or whose users have changed, since they came in."""
        self._reception.recheck()
        self.watch.tally.lag.turn()
        self.watch.tally.journal.turn()
        now = self.wall_clock()
        for connection in self.connections.shown(lambda shown: shown is not None and now > shown.not_after):
            assert connection.credential is not None
            self.note(connection, "certificate expired", "warning", since=f"{connection.credential.not_after}")
            connection.end(access.NOT_AUTHORIZED)

    # --- for the operator and for Prometheus ---

    def snapshot(self) -> dict[str, Any]:
        """Everything that is counted, as of now."""
        tally = self.watch.tally
        online, newcomers = self.census.online, self.census.newcomers
        return {
            "version": self._status.version,
            "openssl": native.OPENSSL or ssl.OPENSSL_VERSION,
            "uptime": self._status.uptime(time.monotonic()),
            "pid": os.getpid(),
            "rss": status.resident_bytes(),
            "max_memory": tally.max_memory,
            "core": self._stats(),
            "connections": {
                "online": online,
                "coming_in": newcomers,
                "waiting_for_handshake": self.handshakes.waiting,
                "closing": max(0, len(self.connections) - online - newcomers),
            },
            "accepted": tally.accepted,
            "handshakes_failed": dict(tally.handshakes_failed),
            "turned_away": dict(tally.turned_away),
            "refused": {REASONS.get(code, hex(code)): count for code, count in tally.refused.items()},
            "disconnected": {REASONS.get(code, hex(code)): count for code, count in tally.disconnected.items()},
            "bans": len(self.watch.bans),
            "banned": dict(tally.bans),
            "lag": tally.lag,
            "journal": tally.journal,
            "store": None if self.keeper is None else {"failure": self.keeper.failure},
            "certificates": self._certificates(),
        }

    def _certificates(self) -> dict[str, dict[str, float]]:
        """When certificates end (Unix seconds): by kind, then by whose they are. Devices as they were seen last."""
        found: dict[str, dict[str, float]] = {"device": {}, "gateway": {}, "ca": {}}
        for identity, record in self.watch.seen.records.items():
            if not identity.startswith("operator/") and "not_after" in record:
                found["device"][identity] = record["not_after"]
        if (known := self.credentials) is not None:
            found["gateway"]["gateway"] = known.certificate.not_valid_after_utc.timestamp()
            for authority in known.authorities:
                found["ca"][authority.subject.rfc4514_string()] = authority.not_valid_after_utc.timestamp()
        return found

    def _stats(self) -> dict[str, int]:
        """The core's numbers, without the gateway's own session."""
        own = self.watch.tally.own
        return {name: value - own.get(name, 0) for name, value in self.broker.stats().items()}

    def snapshot_from_afar(self) -> dict[str, Any]:
        """The same for another thread; TimeoutError when the loop is too busy."""
        found: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(lambda: found.set_result(self.snapshot()))
        return found.result(SNAPSHOT_TIMEOUT)

    def answer(self, question: Question) -> Answer:
        """What the control socket is asked. ControlError when it is something else."""
        match question:
            case {"command": "status"}:
                now = self.snapshot()
                return {**now, "lag": now["lag"].recent, "journal": now["journal"].recent}
            case {"command": "revoked"}:
                self.watch.revoked.refresh()
                return {"revoked": len(self.watch.revoked.entries), "cut": self.cut_revoked()}
            case {"command": "seen"}:
                return {"seen": self.watch.seen.records, "online": self._serials()}
            case {"command": "certificate", "identity": str(identity), "certificate": dict(parts)}:
                return {"sent": self._send_certificate(identity, parts)}
            case {"command": "bans"}:
                return {"bans": [asdict(ban) for ban in self.watch.bans]}
            case {"command": "bans add", "kind": str(kind), "key": str(key), "seconds": int(time_), "reason": str(why)}:
                ban = self.watch.ban(kind, key, why, time_)
                found = [one for one in list(self.connections) if self.watch.concerns(ban, one)]
                for connection in found:
                    connection.end(ADMINISTRATIVE_ACTION)
                return {"done": f"{ban} is banned for {time_} s; connections ended: {len(found)}"}
            case {"command": "bans remove", "kind": str(kind), "key": str(key)}:
                if self.watch.unban(kind, key):
                    return {"done": f"{kind} {key} is banned no more"}
                raise ControlError(f"{kind} {key} is not banned")
        raise ControlError("no such command")

    def _serials(self) -> dict[str, str]:
        """The serial numbers of the certificates with which nodes are connected, by identity."""
        awake = {
            connection.accepted.session: connection.credential
            for connection in self.connections.awake()
            if connection.accepted is not None
            and connection.credential is not None
            and self.census.holder(connection.accepted.session) is connection
        }
        asleep = {str(credential.identity): credential for credential in self.connections.asleep()}
        return {
            session: credential.serial
            for session, credential in (awake | asleep).items()
            if credential.psk is None and credential.identity.kind is not access.Kind.OPERATOR
        }

    def _send_certificate(self, identity: str, parts: Mapping[str, Any]) -> bool:
        """Sends a node what it is to renew its certificate with, if it is here: with QoS 0 and never retained, so that
        a key is kept nowhere on its way.
        """
        body = json.dumps(parts, separators=(",", ":"))
        if len(body) > CERTIFICATE_MAX:
            raise ControlError(f"more than {CERTIFICATE_MAX} bytes")
        if identity not in self._serials():
            return False
        self.run(self.broker.publish(f"$cert/{identity}", body.encode(), now=now_ms()))
        return True

    def _stop_listening(self) -> None:
        for server, bound in self._listening:
            server.close()
            if bound is not None:
                bound.remove()
        self._listening.clear()


def _proof(connection: Connection) -> str:
    """What has proved who it is, in words, or would."""
    return connection.credential.proof if connection.credential else "certificate"


def _refused(events: Iterable[Event], link: Link) -> int | None:
    """The reason with which `accept` has refused a client after all, None if it is in: closed, and never online."""
    kinds = {kind: reason for kind, about, reason, _ in events if about is link}
    return None if EVENT_DISCONNECT in kinds else kinds.get(EVENT_CLOSED)
