"""The asyncio driver: listeners, connections and time around the core.

The rule it keeps: only this file awaits, and it decides nothing; bytes go into the core, events come out, `access`
judges, and what the core has to say is written once a loop turn. How many there may be is limited: connections in all,
of an address, of an identity.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from peanutd import access, status, tls
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
from peanutd.config import FILE_NAME, Address, Jwt, Listener, Mqtt, UnixPath
from peanutd.connection import (
    KINDS,
    PLAIN_BUFFER,
    RECEIVE_BUFFER,
    SERVER_SHUTTING_DOWN,
    Connection,
    Deadlines,
    Handshakes,
    now_ms,
)
from peanutd.log import Flood, Log, clean
from peanutd.reception import Reception
from peanutd.rules import Book, built_in
from peanutd.sntp import TimeServer
from peanutd.sockets import BACKLOG, Bound, bind, bind_udp
from peanutd.throttle import network
from peanutd.users import Store

if TYPE_CHECKING:
    from peanutd._core import Event

STOP_TIMEOUT: Final = 2.0
"""Seconds for all connections to end when the gateway stops, before they are cut."""
TICK: Final = 0.5
"""Seconds between two ticks of the core."""
RECHECK: Final = 60.0
"""Seconds between two looks at the certificates and users of those connected."""
SPARE_FILES: Final = 64
"""File descriptors that are kept for other things than connections."""
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
        handshake_timeout: float = 10.0,
        max_packet_size: int = LIMITS["max_packet_size"],
        version: str = "",
        mqtt: Mqtt | None = None,
        book: Book | None = None,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Secure listeners need `credentials`, those with passwords `users`. `credentials`, `census.limits` and
        `handshake_timeout` (seconds) may be set anew while the server runs: they count for connections to come. So may
        `mqtt`; without its `sys_interval` there are no news of clients either. $SYS names `version`. Certificates are
        held to `wall_clock`. `max_packet_size` is the core's; it bounds WebSocket frames. `book` has the rules; without
        one, those that are built in count.
        """
        # At most 29 attributes: with the 30th, CPython 3.11 reads each of them more slowly, and some are read with
        # every chunk that comes in.
        self.broker = broker
        self.log = log
        self.flood = Flood(log)
        self.credentials = credentials
        self.census = Census(limits)
        self.handshake_timeout = handshake_timeout
        self.max_packet_size = max_packet_size
        self.mqtt = mqtt or Mqtt(sys_interval=0)
        self.wall_clock = wall_clock
        self.inbox = memoryview(bytearray(RECEIVE_BUFFER))
        self.plain = memoryview(bytearray(PLAIN_BUFFER))
        self.connections: set[Connection] = set()
        self.handshakes = Handshakes(loop)
        self.handshaking = Deadlines()
        self.lingering = Deadlines()
        self._loop = loop
        self._reception = Reception(self, loop, log, users or Store(), lambda: self.wall_clock().timestamp())
        self._listening: list[tuple[asyncio.Server, Bound]] = []
        self._clock: TimeServer | None = None
        self._status = status.Status(version, time.monotonic())
        self._report_is_due = 0.0
        self._events: deque[Event] = deque()
        self._handling = False
        self._flush_is_due = False
        self._stopping = False
        self._ended = asyncio.Event()
        self._empty = asyncio.Event()
        self._recheck = time.monotonic() + RECHECK
        self._timer: asyncio.TimerHandle | None = None
        self.set_rules(book or built_in())

    def set_rules(self, book: Book) -> None:
        """Takes other rules. They count for the next publication, and every session is judged anew: subscriptions and
        wills that are no longer allowed end, and nobody is disconnected.
        """
        self.book = book
        book.install(self.broker)

    def take_tokens(self, settings: Jwt | None, home: Path) -> None:
        """The tokens that listeners with `jwt` take from now on; None: none."""
        self._reception.take_tokens(settings, home)

    async def serve(self, listeners: Sequence[Listener], time_at: Address | None = None) -> None:
        """Serves until `end` is called, and ends in order. ListenError as `start`."""
        await self.start(listeners, time_at)
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
        try:
            for listener in listeners:
                bound = bind(listener)
                make = partial(KINDS[listener.transport], self, listener)
                if isinstance(bound.address, UnixPath):
                    server = await self._loop.create_unix_server(make, sock=bound.socket, backlog=BACKLOG)
                else:
                    server = await self._loop.create_server(make, sock=bound.socket, backlog=BACKLOG)
                self._listening.append((server, bound))
                found.append(bound.address)
                self.log.info("server", f"listening {replace(listener, address=bound.address)}")
            if time_at is not None:
                ports = [address.port for address in found if isinstance(address, Address)]
                time_at = replace(time_at, port=time_at.port or ports[0])
                clock = TimeServer()
                await self._loop.create_datagram_endpoint(
                    lambda: clock, sock=bind_udp(time_at, f"time in [listen] of {FILE_NAME}")
                )
                self._clock = clock
                self.log.info("server", f"telling the time at {time_at} (UDP)")
        except BaseException:
            self._stop_listening()
            raise
        self._report(time.monotonic())
        self._timer = self._loop.call_later(TICK, self._tick)
        return found

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
        self.flood.sweep(float("inf"))
        await asyncio.sleep(0)  # lets the loop tell the cut connections

    def admit(self, connection: Connection) -> str | None:
        """Counts a new connection; or why there is no room for it. The oldest that has not come in yet makes room."""
        if self._stopping:
            return REASONS[SERVER_SHUTTING_DOWN]
        census = self.census
        problem = census.room(len(self.connections))
        if census.crowded or (problem is not None and census.room(len(self.connections) - OVERLAP) is None):
            oldest = cast("Connection | None", census.give_up())
            if oldest is not None:
                self.report(oldest, "connection cut", "too many that have not come in (max_handshakes in [listen])")
                oldest.cut()
                problem = None
        if problem is None:
            self.connections.add(connection)
            census.expect(connection)
        return problem

    def admit_address(self, connection: Connection) -> str | None:
        """Counts a connection among those of its address; or why there is no room for it."""
        problem = self.census.arrive(connection.peer_host)
        if problem is None:
            connection.counted = connection.peer_host
        return problem

    def forget(self, connection: Connection) -> None:
        """The connection is gone for good."""
        self.connections.discard(connection)
        self.census.part(connection)
        self._reception.forget(connection)
        self.handshaking.drop(connection)
        self.lingering.drop(connection)
        host, connection.counted = connection.counted, None
        if host is not None:
            self.census.depart(host)
        if not self.connections and self._stopping:
            self._empty.set()

    def publish_unless_known(self, topic: str, payload: bytes) -> None:
        """A retained message in the gateway's own name, unless there is one on that topic."""
        if self.broker.retained(topic) is None:
            self.run(self.broker.publish(topic, payload, qos=1, retain=True, now=now_ms()))

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
        connection = cast(Connection, link.owner)
        if kind == EVENT_CONNECT:
            self._judge(connection, link)
        elif kind == EVENT_AUTH:
            self._reception.proves(connection, link, reason)
        elif kind == EVENT_PAUSE:
            connection.hold()
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
        if self._stopping:
            self.settle(connection, link, access.Refuse(SERVER_SHUTTING_DOWN, REASONS[SERVER_SHUTTING_DOWN]))
        elif wish.version == MQTT_31 and not self.mqtt.mqtt31:
            problem = "MQTT 3.1 is not spoken here (mqtt31 in [mqtt]); the client can surely do 3.1.1"
            self.settle(connection, link, access.Refuse(access.UNSUPPORTED_VERSION, problem))
        elif connection.problem is not None:
            self.settle(connection, link, access.Refuse(access.NOT_AUTHORIZED, connection.problem))
        elif not self._reception.takes(connection, link, wish):
            identity = connection.credential.identity if connection.credential else None
            self.settle(connection, link, access.decide(wish, identity, connection.listener.policy))

    def settle(
        self,
        connection: Connection,
        link: Link,
        verdict: access.Accept | access.Refuse,
        *,
        user: str | None = None,
        data: bytes = b"",
    ) -> None:
        """Carries out the verdict on the CONNECT that waits. user: who the client says it is; data: the last word of
        an authentication.
        """
        wish = link.connect
        if wish is None:
            return
        if isinstance(verdict, access.Accept):
            verdict = self.census.judge(verdict)
        if isinstance(verdict, access.Refuse):
            connection.problem = verdict.text
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
            self.note(connection, "refused", "warning", user=user, why=connection.problem, code=f"0x{reason:02x}")
            self.run(events)
            return
        connection.accepted = verdict
        version = _VERSIONS.get(wish.version, str(wish.version))
        ends = connection.credential.not_after if connection.credential else None
        soon = f"{ends:%Y-%m-%d}" if ends is not None and ends - self.wall_clock() < tls.SOON else None
        level = "warning" if soon else "info"
        self.note(connection, "connected", level, mqtt=version, tls=connection.tls_version, certificate_ends=soon)
        self._comes_online(connection, verdict, version)
        self.run(events)

    def _comes_online(self, connection: Connection, verdict: access.Accept, version: str) -> None:
        """A client is let in."""
        self.census.enter(connection, verdict)
        self._status.joined(self.census.online)
        self._tell(verdict.session, "connected", address=connection.peer, mqtt=version, tls=connection.tls_version)

    def _taken_over(self, connection: Connection) -> None:
        """Another connection has its session. Again and again from another address, that is two devices in one name."""
        session = connection.accepted.session if connection.accepted is not None else ""
        rival = cast("Connection | None", self.census.holder(session))
        if rival is None or rival is connection or rival.peer_host == connection.peer_host:
            return
        if self.census.contested(session, time.monotonic()):
            why = "two devices have the same certificate and client id, or the certificate is stolen"
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
        if self.mqtt.sys_interval and now >= self._report_is_due:
            self._report_is_due = now + self.mqtt.sys_interval
            for topic, text in self._status.report(self.broker.stats(), self.census.online, now):
                self.run(self.broker.publish(topic, text.encode(), retain=True, now=now_ms()))

    def _why(self, connection: Connection, text: str) -> str:
        """Why the core has denied something: `text` is as in EVENT_DENIED."""
        accepted = connection.accepted
        if accepted is None:
            return "no rule allows it"
        return self.book.why(self.broker, accepted.slot, accepted.identity, text)

    def note(self, connection: Connection, happened: str, level: str, /, **fields: object) -> None:
        """A line about a client; a client that causes many of a kind has them counted."""
        who = connection.who
        now = time.monotonic()
        owner = connection.accepted.client if connection.accepted is not None else who
        group = (f"{happened}, all clients", owner or network(connection.peer_host))
        if self.flood.admits(group, now):
            kind = (happened, who or connection.peer_host)
            self.flood.write(kind, now, level, "server", happened, who=who, address=connection.peer, **fields)

    def report(self, connection: Connection, what: str, why: str) -> None:
        """A line about a connection that has not come as far as a CONNECT."""
        kind = (what, connection.peer_host)
        now = time.monotonic()
        self.flood.write(kind, now, "warning", "server", what, address=connection.peer, why=why)

    def _flush(self) -> None:
        self._flush_is_due = False
        for link in self.broker.dirty():
            cast(Connection, link.owner).pump()
        if self.broker.busy:
            self.run(self.broker.work(now_ms()))

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK, self._tick)
        now = time.monotonic()
        self.run(self.broker.tick(now_ms()))
        for connection in self.handshaking.over(now):
            self.report(connection, "handshake failed", f"not finished in {self.handshake_timeout:g} s")
            connection.abort()
        for connection in self.lingering.over(now):
            connection.abort()
        self.flood.sweep(now)
        self._reception.refresh()
        self._report(now)
        if now >= self._recheck:
            self._recheck = now + RECHECK
            self.recheck()

    def recheck(self) -> None:
        """Ends the connections whose certificates have expired, or whose users have changed, since they came in."""
        self._reception.recheck()
        now = self.wall_clock()
        for connection in list(self.connections):
            if connection.credential is not None and now > connection.credential.not_after:
                self.note(connection, "certificate expired", "warning", since=f"{connection.credential.not_after}")
                connection.end(access.NOT_AUTHORIZED)

    def _stop_listening(self) -> None:
        for server, bound in self._listening:
            server.close()
            bound.remove()
        self._listening.clear()
        if self._clock is not None:
            self._clock.close()


def _refused(events: Iterable[Event], link: Link) -> int | None:
    """The reason with which `accept` has refused a client after all, None if it is in: closed, and never online."""
    kinds = {kind: reason for kind, about, reason, _ in events if about is link}
    return None if EVENT_DISCONNECT in kinds else kinds.get(EVENT_CLOSED)
