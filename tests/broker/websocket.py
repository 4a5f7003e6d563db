"""The client's end of a WebSocket, by hand from RFC 6455, so that nothing of the gateway's stands on both sides.

The rule it keeps: it hides nothing. A test says opcode, FIN, mask and split of every frame, and sees the peer's as they
are. `Socket` looks like a socket that carries MQTT, for the raw client of conftest.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
from typing import Any

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


def request(path: str = "/mqtt", **headers: str | None) -> bytes:
    """A handshake request; a header that is None is left out, `_` in its name is `-`."""
    found: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "mqtt",
    }
    for name, value in headers.items():
        key = next((known for known in found if known.lower() == name.replace("_", "-").lower()), name)
        found[key] = value
    lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in found.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes | None = b"\x11\x22\x33\x44") -> bytes:
    """§5.2, with the shortest length."""
    size = len(payload)
    masked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 65536:
        head += bytes([masked | 126]) + struct.pack(">H", size)
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", size)
    if mask is None:
        return head + payload
    key = (mask * (size // 4 + 1))[:size]
    body = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return head + mask + body


class Socket:
    """A WebSocket on a connected socket. What is sent goes out as one binary frame, what is received is unpacked."""

    def __init__(self, sock: socket.socket) -> None:
        self.raw = sock
        self.frames: list[tuple[int, bytes]] = []  # every frame that has come, opcode and payload
        self.close_code: int | None = None
        self._held = b""

    def handshake(self, path: str = "/mqtt", **headers: str | None) -> tuple[int, dict[str, str], bytes]:
        """Sends a request; status, headers (names in lower case) and body of the answer."""
        self.raw.sendall(request(path, **headers))
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._held:
            self._more()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
        status, body = int(first.split()[1]), b""
        if status == 101:
            accept = base64.b64encode(hashlib.sha1(base64.b64encode(bytes(16)) + GUID).digest()).decode()
            assert headers["sec-websocket-accept"] == accept
        else:
            while len(self._held) < int(headers["content-length"]):
                self._more()
            body, self._held = self._held, b""
        return status, headers, body

    def send(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        self.raw.sendall(frame(opcode, payload, **options))

    def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. It must be unmasked and whole (§5.1)."""
        first, second = self._take(2)
        assert first & 0xF0 == 0x80, "FIN, and no extension"
        assert not second & 0x80, "a server does not mask"
        size = second
        if second == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif second == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        self.frames.append((first & 0x0F, self._take(size)))
        if first & 0x0F == CLOSE:
            payload = self.frames[-1][1]
            self.close_code = struct.unpack(">H", payload[:2])[0] if payload else 1005
        return self.frames[-1]

    def ended(self) -> int | None:
        """Reads to the end of the connection: the code of the close frame, or None when there was none."""
        try:
            while True:
                self.frame()
        except (EOFError, ConnectionError):
            return self.close_code

    # --- as a socket ---

    def sendall(self, data: bytes) -> None:
        self.send(BINARY, data, mask=os.urandom(4))

    def recv(self, size: int) -> bytes:
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == BINARY:
                    return payload
        except EOFError:
            return b""

    def settimeout(self, seconds: float) -> None:
        self.raw.settimeout(seconds)

    def getsockname(self) -> Any:
        return self.raw.getsockname()

    def close(self) -> None:
        self.raw.close()

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            self._more()
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def _more(self) -> None:
        chunk = self.raw.recv(65536)
        if not chunk:
            raise EOFError("closed by the gateway")
        self._held += chunk
