"""The cable between PC and board: a pseudo terminal, a TCP socket, or a serial port over TCP (RFC 2217).

Rule: a line carries bytes and says when somebody takes or leaves the other end; only RFC 2217 has the wires DTR and
RTS. A board talks into the void where nobody listens: what it says then is lost, as on a desk.
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import socket
import termios
import tty
from pathlib import Path
from typing import Protocol

from serial.rfc2217 import PortManager

POLL_S = 0.02  # how soon it is seen that somebody opens the terminal
READ = 65536
MAX_PENDING = 1 << 20  # bytes that the PC has not taken; more are lost

SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name.startswith("B") and name[1:].isdigit()}


class Far(Protocol):
    """The board, as a line sees it."""

    def received(self, data: bytes) -> None:
        """Bytes from the PC."""

    def opened(self) -> None:
        """Somebody has opened the port."""

    def closed(self) -> None:
        """Nobody has it open any more."""

    def wires(self, dtr: bool, rts: bool) -> None:
        """DTR and RTS, as pyserial calls their states."""


class Line(Protocol):
    """What the board needs of a line. `port` is what a person gives to a tool."""

    port: str

    async def connect(self, far: Far) -> None:
        """Plugs in: from now on the port is there."""

    def send(self, data: bytes) -> None:
        """Bytes to the PC."""

    def speed(self) -> int | None:
        """At which speed the PC has opened the port, if the line knows."""

    def disconnect(self) -> None:
        """Unplugs."""


class PtyLine:
    """A pseudo terminal, with a link of a name that stays."""

    def __init__(self, link: Path | None = None) -> None:
        self._link = link
        self.port = "" if link is None else str(link)
        self._master = -1
        self._open = False
        self._pending = b""

    async def connect(self, far: Far) -> None:
        """Makes the terminal and the link."""
        self._far = far
        self._loop = asyncio.get_running_loop()
        self._master, slave = pty.openpty()
        tty.setraw(slave)  # the kernel keeps it so as long as the master is open
        name = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        if self._link is None:
            self.port = name
        else:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(name)
        self._poll = select.poll()
        self._poll.register(self._master, select.POLLIN)
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        """While nobody has it open: has somebody?"""
        self._timer.cancel()
        events = self._poll.poll(0)
        state = events[0][1] if events else 0
        if state & select.POLLHUP and not state & select.POLLIN:
            self._timer = self._loop.call_later(POLL_S, self._look)
            return
        self._open = True
        self._loop.add_reader(self._master, self._read)
        self._far.opened()

    def _read(self) -> None:
        try:
            data = os.read(self._master, READ)
        except BlockingIOError:
            return
        except OSError:
            self._open = False
            self._pending = b""
            self._loop.remove_reader(self._master)
            self._loop.remove_writer(self._master)
            self._timer = self._loop.call_later(POLL_S, self._look)
            self._far.closed()
            return
        self._far.received(data)

    def send(self, data: bytes) -> None:
        """Bytes to whoever has the terminal open."""
        if not self._open and self._master >= 0:
            self._look()
        if self._open and len(self._pending) < MAX_PENDING:
            self._pending += data
            self._write()

    def _write(self) -> None:
        try:
            self._pending = self._pending[os.write(self._master, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""
        if self._pending:
            self._loop.add_writer(self._master, self._write)
        else:
            self._loop.remove_writer(self._master)

    def speed(self) -> int | None:
        """The speed that the terminal is set to."""
        return SPEEDS.get(termios.tcgetattr(self._master)[5]) if self._open else None

    def disconnect(self) -> None:
        """Hangs up; whoever has it open gets an error."""
        if self._master < 0:
            return
        self._timer.cancel()
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        os.close(self._master)
        self._master, self._open, self._pending = -1, False, b""
        if self._link is not None:
            self._link.unlink(missing_ok=True)


class TcpLine(asyncio.Protocol):
    """A TCP server that takes one client at a time: socket://HOST:PORT."""

    scheme = "socket"

    def __init__(self, host: str, number: int) -> None:
        self._host, self._number = host, number
        self.port = ""
        self._server: asyncio.Server | None = None
        self._client: asyncio.Transport | None = None

    async def connect(self, far: Far) -> None:
        """Listens."""
        self._far = far
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), self._host, self._number)
        self._number = self._server.sockets[0].getsockname()[1]
        self.port = f"{self.scheme}://{self._host}:{self._number}"

    def taken(self, client: asyncio.Transport) -> None:
        """A client has come: the port is its, unless somebody has it."""
        if self._client is not None:
            client.abort()
            return
        client.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = client
        self._far.opened()

    def left(self, client: asyncio.Transport) -> None:
        """A client has gone."""
        if self._client is client:
            self._client = None
            self._far.closed()

    def heard(self, client: asyncio.Transport, data: bytes) -> None:
        """Bytes from a client."""
        if self._client is client:
            self._far.received(data)

    def send(self, data: bytes) -> None:
        """Bytes to the client, if there is one."""
        if self._client is not None and self._client.get_write_buffer_size() < MAX_PENDING:
            self._client.write(data)

    def speed(self) -> int | None:
        """Not known: TCP has none."""
        return None

    def disconnect(self) -> None:
        """Closes the connection, and listens no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._client is not None:
            self._client.abort()
            self._client = None


class _Client(asyncio.Protocol):
    """A connection to a TcpLine."""

    def __init__(self, line: TcpLine) -> None:
        self._line = line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._line.taken(transport)

    def data_received(self, data: bytes) -> None:
        self._line.heard(self._transport, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._line.left(self._transport)


class Rfc2217Line(TcpLine):
    """A serial port over TCP with its wires and its speed: rfc2217://HOST:PORT."""

    scheme = "rfc2217"

    def taken(self, client: asyncio.Transport) -> None:
        """Begins the negotiation."""
        super().taken(client)
        if self._client is client:
            self._port = _PortState(self._far)
            # It asks no more of them than what these two have, though its types say otherwise.
            self._manager = PortManager(self._port, _Writer(client))  # type: ignore[arg-type]

    def heard(self, client: asyncio.Transport, data: bytes) -> None:
        """Takes the negotiation out of the bytes."""
        if self._client is client:
            plain = b"".join(self._manager.filter(data))
            if plain:
                self._far.received(plain)

    def send(self, data: bytes) -> None:
        """Bytes to the client, if there is one."""
        if self._client is not None:
            super().send(b"".join(self._manager.escape(data)))

    def speed(self) -> int | None:
        """What the client has set."""
        return self._port.baudrate if self._client is not None else None


class _Writer:
    """Where the negotiation writes to."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self._client.write(data)


class _PortState:
    """What a serial port is to PortManager: settings, and wires that the board hears of."""

    def __init__(self, far: Far) -> None:
        self._far = far
        self._dtr = self._rts = False
        self.baudrate = 115200
        self.bytesize, self.parity, self.stopbits = 8, "N", 1
        self.xonxoff = self.rtscts = self.break_condition = False
        self.cts = self.dsr = self.cd = True
        self.ri = False

    @property
    def dtr(self) -> bool:
        """Data terminal ready."""
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self._dtr = value
        self._far.wires(self._dtr, self._rts)

    @property
    def rts(self) -> bool:
        """Request to send."""
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self._rts = value
        self._far.wires(self._dtr, self._rts)

    def reset_input_buffer(self) -> None:
        """Nothing is kept."""

    def reset_output_buffer(self) -> None:
        """Nothing is kept."""
