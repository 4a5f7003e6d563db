"""MQTT over WebSocket at the app's own address: what comes to /mqtt goes on to the broker, and back.

The rule it keeps: this thread ends TLS and looks at no more than the request's path; the broker judges the handshake,
the Origin and the password as it does on every other listener. Neither side may fill the other's memory: who is slow is
not read from.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Final, cast

PATH: Final = "/mqtt"

Adopt = Callable[[socket.socket], None]
"""Gives the broker a connected socket, on which a PROXY header comes first. To be called in this loop."""


def preface(client: tuple[str, int] | None) -> bytes:
    """The PROXY header (version 1) that tells the broker who is at the other end."""
    if client is None:
        return b"PROXY UNKNOWN\r\n"
    host, port = client
    address = ipaddress.ip_address(host.partition("%")[0])
    family, own = ("TCP6", "::1") if address.version == 6 else ("TCP4", "127.0.0.1")
    return f"PROXY {family} {address} {own} {port} 443\r\n".encode()


class _Half(asyncio.Protocol):
    """One end of the splice: what it receives is written to the other one."""

    def __init__(self, lost: Callable[[Exception | None], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Half | None = None
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()
        self._lost(exc)


class Splice:
    """Splices connections into the broker."""

    def __init__(self, adopt: Adopt) -> None:
        self._adopt = adopt
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self,
        transport: asyncio.Transport,
        client: tuple[str, int] | None,
        head: bytes,
        lost: Callable[[Exception | None], None],
    ) -> None:
        """Takes over a connection whose request was `head`; `lost` is called when it is gone."""
        outer = _Half(lost)
        outer.connection_made(transport)
        transport.pause_reading()
        transport.set_protocol(outer)
        task = asyncio.get_running_loop().create_task(self._join(outer, preface(client) + head))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, outer: _Half, first: bytes) -> None:
        here, there = socket.socketpair()
        try:
            here.setblocking(False)
            there.setblocking(False)
            self._adopt(there)
        except (RuntimeError, OSError):  # the broker's loop is closed: the gateway ends
            here.close()
            there.close()
            if outer.transport is not None:
                outer.transport.close()
            return
        inner = _Half(lambda exc: None)
        await asyncio.get_running_loop().create_unix_connection(lambda: inner, sock=here)
        if inner.transport is None or outer.transport is None:
            if inner.transport is not None:
                inner.transport.close()
            if outer.transport is not None:
                outer.transport.close()
            return
        inner.other, outer.other = outer, inner
        inner.transport.write(first)
        with contextlib.suppress(RuntimeError):  # it is closing already
            outer.transport.resume_reading()
