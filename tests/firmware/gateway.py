"""A gateway that does exactly what a test tells it: a TLS listener, and packets read and written by hand.

Rule: every wait has a deadline, so a node that stays silent is a failed test and not a hanging one.
"""

from __future__ import annotations

import json
import socket
import ssl
import tempfile
from dataclasses import dataclass
from typing import Any, Self

from tools.ports import free_port

from .pki import Pki

DEADLINE_S = 60.0
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14


@dataclass(frozen=True)
class Packet:
    """A packet from the node."""

    first: int
    body: bytes

    @property
    def type(self) -> int:
        return self.first >> 4

    @property
    def qos(self) -> int:
        return self.first >> 1 & 3

    @property
    def dup(self) -> bool:
        return bool(self.first & 8)

    @property
    def retain(self) -> bool:
        return bool(self.first & 1)

    @property
    def topic(self) -> str:
        return self.body[2 : 2 + int.from_bytes(self.body[:2])].decode()

    @property
    def id(self) -> int:
        at = 2 + int.from_bytes(self.body[:2]) if self.type == PUBLISH else 0
        return int.from_bytes(self.body[at : at + 2])

    @property
    def payload(self) -> bytes:
        return self.body[2 + int.from_bytes(self.body[:2]) + (2 if self.qos else 0) :]

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


def packet(first: int, body: bytes) -> bytes:
    """A packet with its fixed header."""
    size, length = len(body), b""
    while True:
        size, low = size >> 7, size & 0x7F
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([first]) + length + body


def publish(topic: str, payload: bytes | str, qos: int = 1, ident: int = 1, flags: int = 0) -> bytes:
    """A PUBLISH; flags: 8 for DUP, 1 for retained."""
    name = topic.encode()
    body = len(name).to_bytes(2) + name + (ident.to_bytes(2) if qos else b"")
    return packet(0x30 | qos << 1 | flags, body + (payload.encode() if isinstance(payload, str) else payload))


class Peer:
    """One connection of a node."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._data = b""
        self._passed: list[Packet] = []  # messages of other topics than the one that was waited for

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def dribble(self, data: bytes) -> None:
        """One byte a TLS record."""
        for i in range(len(data)):
            self._sock.sendall(data[i : i + 1])

    def read(self) -> Packet | None:
        """The next packet; None when the node has closed."""
        while True:
            for size in range(2, min(6, len(self._data) + 1)):
                if not self._data[size - 1] & 0x80:
                    length = sum((self._data[i] & 0x7F) << 7 * (i - 1) for i in range(1, size))
                    if len(self._data) >= size + length:
                        found = Packet(self._data[0], self._data[size : size + length])
                        self._data = self._data[size + length :]
                        return found
                    break
            try:
                more = self._sock.recv(65536)
            except (ConnectionError, ssl.SSLEOFError):
                more = b""
            if not more:
                return None
            self._data += more

    def expect(self, kind: int, topic: str = "") -> Packet:
        """The next packet of this type (and topic); pings are answered and others skipped, their QoS acknowledged."""
        while True:
            found = self.read()
            assert found is not None, f"the node closed; packet type {kind} {topic} was expected"
            if found.type == PINGREQ and kind != PINGREQ:
                self.send(b"\xd0\x00")
            if found.type == PUBLISH and found.qos:
                self.puback(found)
            if found.type == kind and (not topic or found.topic == topic):
                return found
            if found.type == PUBLISH:
                self._passed.append(found)

    def told(self, topic: str) -> Packet:
        """The first message of this topic, also where it came before one that was waited for: the node's tasks take
        turns, so the report of health may come before the state, and the log before an event."""
        for i, found in enumerate(self._passed):
            if found.topic == topic:
                return self._passed.pop(i)
        return self.expect(PUBLISH, topic)

    def expect_closed(self) -> None:
        """The node closes; what it says until then does not matter."""
        while self.read() is not None:
            pass

    def connack(self, session: int = 0, code: int = 0) -> None:
        self.send(bytes([0x20, 2, session, code]))

    def suback(self, subscribe: Packet, *codes: int) -> None:
        """SUBACK; by default every filter gets QoS 1."""
        if not codes:
            at, count = 2, 0
            while at < len(subscribe.body):
                at += 3 + int.from_bytes(subscribe.body[at : at + 2])
                count += 1
            codes = (1,) * count
        self.send(packet(0x90, subscribe.body[:2] + bytes(codes)))

    def puback(self, received: Packet) -> None:
        self.send(b"\x40\x02" + received.id.to_bytes(2))

    def welcome(self, session: int = 0) -> None:
        """A whole, friendly start: CONNECT, SUBSCRIBE, birth and state."""
        self.expect(CONNECT)
        self.connack(session)
        self.suback(self.expect(SUBSCRIBE))
        self.expect(PUBLISH, "/plant/peanut/status")
        self.expect(PUBLISH, "/plant/peanut/state")

    def close(self) -> None:
        self._sock.close()


class Gateway:
    """A mutual TLS listener on a free port of 127.0.0.1."""

    def __init__(
        self, pki: Pki, certificate: str = "good", trust: str | None = None, after: Gateway | None = None
    ) -> None:
        """certificate: a key of pki.gateways; trust: PEM of the CAs that nodes must come from; after: the gateway whose
        place (its listener) it takes."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(pki.gateways[certificate].pem())
            file.flush()
            self._context.load_cert_chain(file.name)
        self._context.load_verify_locations(cadata=pki.trust() if trust is None else trust)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0)) if after is None else after._listener
        self._listener.settimeout(DEADLINE_S)
        self.port = int(self._listener.getsockname()[1])
        self._peers: list[Peer] = []

    def accept_tcp(self) -> socket.socket:
        """The next connection, before TLS."""
        sock, _ = self._listener.accept()
        sock.settimeout(DEADLINE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def accept(self) -> Peer:
        """The next connection, its handshake made. ssl.SSLError if the node refuses."""
        peer = Peer(self._context.wrap_socket(self.accept_tcp(), server_side=True))
        self._peers.append(peer)
        return peer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.close()
        self._listener.close()


def closed_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    return free_port()


__all__ = ["Gateway", "Packet", "Peer", "closed_port", "packet", "publish"]
