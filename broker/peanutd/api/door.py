"""The door of HTTPS: accepts connections, within bounds, and hands them to uvicorn's HTTP protocol.

The rule it keeps: what a peer can hold without being known has a limit with a name: connections in all and of an
address, the time of a TLS handshake, the time to say a request's headers. The file descriptors of the nodes are not
used up here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from peanutd.api.splice import PATH, Splice
from peanutd.log import Log
from peanutd.throttle import network

CONNECTIONS: Final = 1000
"""Connections in all; one more is closed as it comes."""
PER_ADDRESS: Final = 200
"""Connections of an IPv4 address or an IPv6 /64: a browser has six, a household has some browsers."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for TLS."""
SHUTDOWN_TIMEOUT: Final = 5.0
"""Seconds for the end of TLS."""
HEAD_TIMEOUT: Final = 15.0
"""Seconds from the first byte of a request (or from the connection) to the end of its headers."""
PIECE: Final = 16 * 1024
"""Bytes that are parsed at once: h11 holds only what is incomplete to its limit, and a read may bring far more."""
REST: Final = 1.0
"""Seconds without accepting, when the system has no more file descriptors."""


class Http(H11Protocol):
    """uvicorn's HTTP/1.1, which waits for headers, but not for ever, and leaves WebSockets to the broker."""

    _head: asyncio.TimerHandle | None = None

    def __init__(self, splice: Splice, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._splice = splice

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            if self.transport.is_closing():
                return
            if start and self.transport.get_protocol() is not self:  # a WebSocket's first frames wait for the answer
                self.transport.abort()
                return
            super().data_received(data[start : start + PIECE])
        if self.conn.their_state is h11.IDLE:
            if self._head is None and self.timeout_keep_alive_task is None:
                self._expect()
        else:
            self._cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _should_upgrade_to_ws(self) -> bool:
        return self.scope["path"] == PATH

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._cancel()
        self.connections.discard(self)
        fields = [b"%s: %s\r\n" % (name, value) for name, value in event.headers.raw_items()]
        head = b"".join((event.method, b" ", event.target, b" HTTP/1.1\r\n", *fields, b"\r\n"))
        behind, _ = self.conn.trailing_data
        self._splice.begin(self.transport, self.client, head + behind, self.connection_lost)

    def _expect(self) -> None:
        self._head = self.loop.call_later(HEAD_TIMEOUT, self.transport.abort)

    def _cancel(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class Door:
    """Accepts until it is closed."""

    def __init__(
        self, sock: socket.socket, context: Callable[[], ssl.SSLContext] | None, make: Callable[[], Http], log: Log
    ) -> None:
        """`context` is asked for each connection: the certificate may change. None: plain HTTP."""
        self._socket = sock
        self._context = context
        self._make = make
        self._log = log
        self._here: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Accepts until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, name = await loop.sock_accept(self._socket)
            except OSError as error:
                self._log.warning("api", "cannot accept connections", error=error.strerror)
                await asyncio.sleep(REST)
                continue
            where = network(name[0])
            if self._here.total() >= CONNECTIONS or self._here[where] >= PER_ADDRESS:
                self._log.debug("api", "too many connections, one is closed", address=where)
                sock.close()
                continue
            self._here[where] += 1
            task = loop.create_task(self._enter(sock, where))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _enter(self, sock: socket.socket, where: str) -> None:
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()

        def make() -> Http:
            protocol = self._make()
            lost = protocol.connection_lost

            def connection_lost(exc: Exception | None) -> None:
                gone.set()
                lost(exc)

            protocol.connection_lost = connection_lost  # type: ignore[method-assign]
            return protocol

        try:
            await loop.connect_accepted_socket(
                make,
                sock,
                ssl=self._context() if self._context is not None else None,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT if self._context is not None else None,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT if self._context is not None else None,
            )
            await gone.wait()
        except (OSError, ssl.SSLError) as error:
            self._log.debug("api", "no connection", address=where, why=str(error))
        finally:
            with contextlib.suppress(OSError):
                sock.close()
            self._here[where] -= 1
            if not self._here[where]:
                del self._here[where]
