"""Serves the API: its thread, its loop, its TLS, and the parts put together.

The rule it keeps: it starts whole or says why not, before anything is served; it ends with the gateway, within two
seconds; and whatever happens in here, the broker's loop goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import uvicorn
from starlette.types import ASGIApp

from peanutd import tls
from peanutd._core import MAY_PUBLISH, Broker
from peanutd.access import Role
from peanutd.api import app, database, keys, rights, telling
from peanutd.api.audit import Audit, Refusals
from peanutd.api.bridge import Bridge, Relay
from peanutd.api.certificates import Certificates, Standing
from peanutd.api.commands import Commands
from peanutd.api.door import Door, Http
from peanutd.api.homes import Homes
from peanutd.api.live import Live
from peanutd.api.nodes import Nodes
from peanutd.api.passkeys import Passkeys
from peanutd.api.passwords import Passwords
from peanutd.api.rights import NoGroups, Rights
from peanutd.api.scopes import Scopes
from peanutd.api.services import Services
from peanutd.api.sessions import Sessions
from peanutd.api.shares import Shares
from peanutd.api.splice import Splice
from peanutd.api.static import Static
from peanutd.config import FILE_NAME, Address, Https, Listener
from peanutd.ear import Ear, Report
from peanutd.log import Log
from peanutd.monitor import Monitor
from peanutd.sockets import Bound, ListenError, bind
from peanutd.users import Store

KEEP_ALIVE: Final = 60
"""Seconds that a connection stays open without a request."""
HEAD_MAX: Final = 32 * 1024
"""Bytes of a request's headers."""
END_TIMEOUT: Final = 1.0
"""Seconds for what is under way when the gateway ends."""
SWEEP: Final = 60.0
"""Seconds between two looks at what is over: sign-ins, failures."""


class ApiError(Exception):
    """Why the API cannot be served."""


class Gateway(Protocol):
    """What is needed of the server, in its loop."""

    @property
    def broker(self) -> Broker: ...

    def send(self, topic: str, payload: bytes, *, lifetime: int) -> None:
        """Publishes in the gateway's own name. lifetime: milliseconds."""

    def adopt(self, sock: socket.socket) -> None:
        """Serves MQTT over WebSocket on a connected socket; a PROXY header comes first."""

    def recheck(self) -> None:
        """Puts out whoever is no longer who he was when he came in."""

    def standing(self) -> Standing:
        """Who has been seen, and who is revoked."""


def services(
    home: Path,
    found: database.Database,
    secret: keys.Keys,
    gateway: Gateway,
    broker_loop: asyncio.AbstractEventLoop,
    log: Log,
    version: str = "",
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    monitor: Monitor | None = None,
) -> Services:
    """Everything that the API works with."""
    groups = monitor.groups if monitor is not None else None
    bridge, nodes = Bridge(broker_loop), Nodes(home, clock)
    sessions = Sessions(found, secret, partial(_forget_browsers, monitor))
    passwords = Passwords(
        Store(home),
        monotonic,
        partial(log.warning, "api"),
        lambda name: {family.address for family in sessions.of(name, clock())},
    )
    scopes = Scopes(found)
    audit = Audit(found, clock, partial(log.info, "api"))

    def rules(role: Role, name: str, action: int, topic: str) -> bool:
        return gateway.broker.explain(rights.slot(role), name, action, topic, False, action == MAY_PUBLISH)[0]

    return Services(
        home=home,
        log=log,
        keys=secret,
        database=found,
        sessions=sessions,
        passwords=passwords,
        scopes=scopes,
        shares=Shares(found, secret),
        audit=audit,
        refusals=Refusals(audit, monotonic),
        bridge=bridge,
        nodes=nodes,
        rights=Rights(bridge, nodes, rules, passwords.role, scopes.of, monotonic, groups or NoGroups()),
        commands=Commands(home, bridge, nodes, audit, gateway.send, clock),
        clock=clock,
        monotonic=monotonic,
        live=Live(nodes),
        passkeys=Passkeys(found),
        certificates=Certificates(home, bridge, gateway.standing),
        recheck=gateway.recheck,
        monitor=monitor,
        version=version,
    )


def _forget_browsers(monitor: Monitor | None, sign_ins: Sequence[str]) -> None:
    """The browsers of sign-ins that were ended are not told of alerts any more. Nobody waits for it."""
    if monitor is not None and (alerts := monitor.alerts) is not None:
        monitor.recorder.ask(lambda: alerts.forget(sign_ins))


def _there(loop: asyncio.AbstractEventLoop, adopt: Callable[[socket.socket], None], sock: socket.socket) -> None:
    """Has the broker's loop adopt the socket, and close it if that fails."""

    def adopting() -> None:
        try:
            adopt(sock)
        except BaseException:
            sock.close()
            raise

    loop.call_soon_threadsafe(adopting)


class Api:
    """HTTPS in a thread of its own, from `start` to `end`."""

    def __init__(
        self,
        home: Path,
        address: Address,
        https: Https,
        gateway: Gateway,
        ear: Ear,
        broker_loop: asyncio.AbstractEventLoop,
        make_loop: Callable[[], asyncio.AbstractEventLoop],
        log: Log,
        version: str = "",
        monitor: Monitor | None = None,
    ) -> None:
        """Binds the address and opens what it needs. ListenError, TlsError, ApiError say why that cannot be.

        `gateway` and `ear` live in `broker_loop`, which does not run yet.
        """
        self._home = home
        self._log = log
        self._make_loop = make_loop
        self.context = _context(home, https)
        self._bound: Bound = bind(Listener(address, where=f"https in [listen] of {FILE_NAME}"))
        self.address = self._bound.address
        """With the port that it really got."""
        self._local: Bound | None = None
        if https.local is not None:
            try:
                self._local = bind(Listener(https.local, where=f"local in [https] of {FILE_NAME}"))
            except ListenError:
                self._bound.socket.close()
                raise
        self._database: database.Database | None = None
        try:
            self._database = database.Database(home)
            secret = keys.load(home)
            self.services = services(home, self._database, secret, gateway, broker_loop, log, version, monitor=monitor)
        except (database.DatabaseError, keys.NoKeyError) as error:
            self._shut()
            raise ApiError(str(error)) from None
        self._splice = Splice(lambda sock: _there(broker_loop, gateway.adopt, sock))
        self._relay = Relay(self.services.nodes.take)
        self._deaf = ear.listen(self._relay.put)
        self._wishes: Relay[Report] | None = None
        if monitor is not None and monitor.home_assistant.enabled:
            made = self.services
            homes = Homes(home, monitor.home_assistant, made.nodes, made.commands, made.audit, log, made.monotonic)
            self._wishes = wishes = Relay(homes.take)
            ear.listen(lambda report: wishes.put(report) if homes.wants(report) else None)
        self._app: ASGIApp = app.make(self.services, home, Static())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)

    def start(self) -> None:
        """Serves from now on."""
        self._thread.start()
        self._log.info("server", f"listening https {self.address}")
        if self._local is not None:
            self._log.info("server", f"listening http {self._local.address}")

    def _shut(self) -> None:
        for bound in (self._bound, self._local):
            if bound is not None:
                bound.socket.close()

    def end(self) -> None:
        """Serves no more; returns when it is over, or when it takes too long."""
        self._deaf()
        if self._loop is not None and self._ending is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(2 * END_TIMEOUT + 1)

    def reload(self, https: Https) -> None:
        """Takes the certificate anew, for connections to come. TlsError, and then the old one stays."""
        chain, key = _files(self._home, https)
        self.context = tls.web(chain, key)  # whole: a half-changed one would serve nobody

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._make_loop) as runner:
                runner.get_loop().set_exception_handler(self._failed)
                runner.run(self._serve())
        except Exception as error:
            self._log.error("api", "the API has ended", error=repr(error))
        finally:
            self._shut()
            self.services.passwords.close()
            if self._database is not None:
                self._database.close()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        quiet = isinstance(error, ssl.SSLError | ConnectionError | TimeoutError)
        self._log.write("debug" if quiet else "error", "api", str(context.get("message")), error=repr(error))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self.services.nodes.refresh()
        self._relay.open(self._loop)
        if self._wishes is not None:
            self._wishes.open(self._loop)
        if self.services.monitor is not None:
            telling.connect(self.services.monitor, self.services, self._loop)
        for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [_Forward(self._log)], False
            logger.setLevel(logging.WARNING)
        config = uvicorn.Config(
            self._app,
            http=Http,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=None,
            h11_max_incomplete_event_size=HEAD_MAX,
        )
        config.load()
        server = _Uvicorn(config)
        make = partial(Http, self._splice, config=config, server_state=server.server_state, app_state={})
        doors = [Door(self._bound.socket, lambda: self.context, make, self._log)]
        if self._local is not None:
            doors.append(Door(self._local.socket, None, make, self._log))
        serving = asyncio.create_task(server.serve(sockets=[]))
        accepting = [asyncio.create_task(door.serve()) for door in doors]
        tasks = [serving, *accepting, asyncio.create_task(self._sweep())]
        try:
            await self._ending.wait()
            for task in accepting:
                task.cancel()
            self.services.live.end()
            server.should_exit = True
            await asyncio.wait([serving], timeout=END_TIMEOUT)
            for connection in tuple(server.server_state.connections):  # of those who keep theirs, whatever is said
                connection.transport.abort()
            await asyncio.wait([serving], timeout=END_TIMEOUT)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.services.passwords.sweep()
            await self.services.sessions.sweep(self.services.clock())


class _Uvicorn(uvicorn.Server):
    """Without signals: they are the gateway's."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


class _Forward(logging.Handler):
    """uvicorn's lines, in the gateway's log. What a peer can cause at will is for those who want to see it."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        slow = record.exc_info is not None and isinstance(record.exc_info[1], app.SlowReaderError)
        level = "error" if record.levelno >= logging.ERROR and not slow else "debug"
        self._log.write(level, "api", record.getMessage())


def _files(home: Path, https: Https) -> tuple[Path, Path]:
    if https.certificate:
        return home / https.certificate, home / https.key
    return home / "gateway" / "gateway.crt", home / "gateway" / "gateway.key"


def _context(home: Path, https: Https) -> ssl.SSLContext:
    return tls.web(*_files(home, https))
