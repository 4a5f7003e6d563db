"""MQTT over WebSocket, the server's end, sans-IO: the HTTP handshake, then frames (RFC 6455; MQTT 5.0 §6).

The rule it keeps: bytes in; MQTT bytes and answers out. The frames are the work of the package `websockets`; here is
what MQTT and this gateway ask for beyond: one path, the subprotocol, whose web pages may connect, binary frames only
(MQTT-6.0.0-1), no compression, and a limit on everything that a peer can make grow.
"""

from __future__ import annotations

import http
import ipaddress
import logging
from collections.abc import Sequence
from typing import Final, cast
from urllib.parse import urlsplit

from websockets.datastructures import MultipleValuesError
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

SUBPROTOCOLS: Final = (Subprotocol("mqtt"), Subprotocol("mqttv3.1"))
"""The one of MQTT-6.0.0-3, and what clients of 3.1 called it."""
HANDSHAKE_MAX: Final = 16 * 1024
"""Bytes of a handshake request; its lines are limited to 8 KiB each, and to 128."""
CHUNK: Final = 16 * 1024
"""Bytes to be handed to `Stream.receive` at once, at most: thousands of tiny frames take time."""
FIXED_HEADER: Final = 5
"""Bytes of the largest fixed header of an MQTT packet."""

_END: Final = b"\r\n\r\n"
_LOG: Final = logging.Logger("websockets", logging.CRITICAL + 1)  # the gateway writes its own lines

_CLOSE: Final = {
    0x81: CloseCode.PROTOCOL_ERROR,
    0x82: CloseCode.PROTOCOL_ERROR,
    0x8B: CloseCode.GOING_AWAY,
    0x9C: CloseCode.GOING_AWAY,
    0x95: CloseCode.MESSAGE_TOO_BIG,
}
"""The code of the close frame for a reason code of MQTT; 1000 below 0x80, 1008 (policy violation) for all others."""


class Stream:
    """One WebSocket. `receive` takes what the peer sends, `take` has what it is to get."""

    __slots__ = ("_head", "_origins", "_path", "_protocol", "_trusting", "problem")

    def __init__(self, *, path: str, origins: Sequence[str], trusting: bool, max_packet_size: int) -> None:
        """`origins` as `Listener.origins`; `trusting`: clients need no credentials here, so that pages from elsewhere
        must not get in by a name that points to this machine. `max_packet_size` bounds a frame.
        """
        self.problem: str | None = None
        """Why it is over, in words for the log; "" for an end in order, None while it goes on."""
        self._path = path
        self._origins = origins
        self._trusting = trusting
        self._head: bytearray | None = bytearray()  # the handshake request; None when it has been answered
        self._protocol = ServerProtocol(
            subprotocols=SUBPROTOCOLS, max_size=(None, max_packet_size + FIXED_HEADER), logger=_LOG
        )

    @property
    def open(self) -> bool:
        """Whether the handshake is done and nobody has closed yet."""
        return self._protocol.state is State.OPEN

    def receive(self, data: bytes | memoryview) -> list[bytes]:
        """Bytes from the peer, in any split, at most CHUNK. Returns the bytes of MQTT in them, in order."""
        if self.problem is not None or not data:
            return []
        if self._head is not None:
            rest = self._handshake(self._head, data)
            if not self.open or not rest:
                return []
            data = rest
        self._protocol.receive_data(bytes(data))
        found: list[bytes] = []
        for event in self._protocol.events_received():
            frame = cast(Frame, event)
            if frame.opcode in (Opcode.BINARY, Opcode.CONT):
                if frame.data:
                    found.append(cast(bytes, frame.data))
            elif frame.opcode is Opcode.TEXT:
                self._fail("a text frame: MQTT is binary", CloseCode.UNSUPPORTED_DATA)
                break
        if self.problem is None and not self.open:
            error = self._protocol.parser_exc
            self.problem = "" if error is None else f"WebSocket: {error}"
        return found

    def take(self) -> bytes:
        """What the peer is to get: the answer to its handshake, pongs, a close frame."""
        return b"".join(self._protocol.data_to_send())

    def frame(self, data: bytes) -> bytes:
        """`data` in one binary frame; nothing once the WebSocket is closing."""
        try:
            self._protocol.send_binary(data)
        except InvalidState:
            return b""
        return self.take()

    def close(self, reason: int) -> bytes:
        """The close frame for the end of MQTT with this reason code; nothing when one was sent, or none is due."""
        if self.problem is None:
            self.problem = ""
        if self.open:
            usual = CloseCode.NORMAL_CLOSURE if reason < 0x80 else CloseCode.POLICY_VIOLATION
            self._protocol.send_close(_CLOSE.get(reason, usual))
        return self.take()

    def _fail(self, problem: str, code: CloseCode) -> None:
        self.problem = f"WebSocket: {problem}"
        self._protocol.fail(code, problem)

    # --- the handshake ---

    def _handshake(self, head: bytearray, data: bytes | memoryview) -> bytes:
        """Collects the request and answers it; returns what has come behind it."""
        searched = max(0, len(head) - len(_END) + 1)
        head += data
        if not b"A" <= head[:1] <= b"Z":
            what = {0x10: "an MQTT CONNECT without WebSocket", 0x16: "TLS"}.get(head[0], "something else")
            self._refuse(400, f"not HTTP but {what}")
            return b""
        end = head.find(_END, searched) + len(_END)
        if end > HANDSHAKE_MAX or (end < len(_END) and len(head) > HANDSHAKE_MAX):
            self._refuse(431, f"a handshake request longer than {HANDSHAKE_MAX} bytes")
            return b""
        if end < len(_END):
            return b""
        self._head = None
        self._protocol.receive_data(bytes(head[:end]))
        events = self._protocol.events_received()
        if events:
            self._answer(cast(Request, events[0]))
        else:  # the parser has given up, and has answered where HTTP says so
            error = self._protocol.handshake_exc
            self.problem = f"WebSocket: {error.__cause__ or error}" if error is not None else "WebSocket: not HTTP"
        return bytes(head[end:])

    def _answer(self, request: Request) -> None:
        problem = self._judge(request)
        if problem is not None:
            self._refuse(*problem)
            return
        response = self._protocol.accept(request)
        if response.status_code == http.HTTPStatus.UPGRADE_REQUIRED:
            self._refuse(426, "no WebSocket handshake: connect an MQTT client, with subprotocol mqtt")
            return
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.problem = f"WebSocket: {self._protocol.handshake_exc}"
        self._protocol.send_response(response)

    def _judge(self, request: Request) -> tuple[int, str] | None:
        """What is wrong with a request before it comes to WebSocket: status and words."""
        path = request.path.partition("?")[0]
        if path != self._path:
            return 404, f"nothing is served at {path}; MQTT is at {self._path}"
        try:
            host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        except MultipleValuesError as error:
            return 400, f"more than one {error!s}"
        if not host:
            return 400, "no Host header"
        if origin is not None and not may_connect(origin, host, self._origins, self._trusting):
            return 403, f'pages of "{origin}" may not connect to "{host}"; origins of the [[listener]] allows them'
        return None

    def _refuse(self, status: int, problem: str) -> None:
        """Ends the handshake with a short answer."""
        self._head = None
        self.problem = f"WebSocket: {problem}"
        response: Response = self._protocol.reject(status, f"{problem}\n")
        if status == http.HTTPStatus.UPGRADE_REQUIRED:
            del response.headers["Connection"]
            response.headers["Connection"] = "close, Upgrade"
            response.headers["Upgrade"] = "websocket"
        self._protocol.send_response(response)


def may_connect(origin: str, host: str, origins: Sequence[str], trusting: bool) -> bool:
    """Whether a page of `origin` may connect to `host` (the headers of these names).

    `origins` decide where there are any. Without, the page must come from the host that it connects to. That alone
    does not stop a page whose name was made to point to this machine (DNS rebinding), so where everybody is trusted the
    host must be named by its address or as localhost.
    """
    if origins:
        return "*" in origins or origin.lower() in (allowed.lower() for allowed in origins)
    page, here = _host_of(origin), _host_of(f"//{host}")
    if page is None or page != here:
        return False
    return not trusting or here == "localhost" or _is_address(here)


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
