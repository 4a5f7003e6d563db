"""What a stranger may make the native driver hold, and what a failure of ours leaves behind.

The rule it keeps: what fails is made to fail for real, or in our own place; that the others are served goes without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from peanutd import native, tls
from peanutd._core import Broker
from peanutd.access import Credential
from peanutd.config import Address, Listener
from peanutd.log import Log
from peanutd.server import Server
from tests.broker.native_loop import needs_loop

pytestmark = needs_loop

SETTINGS = '[listen]\nmqtts = "127.0.0.1:0"\ntime = ""\ndriver = "native"\n'


def hello() -> bytes:
    """The first flight of a TLS 1.2 client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


def test_no_room_is_kept_for_certificates_that_are_only_announced(fleet: Any, start: Any) -> None:
    """A header of four bytes that promises 100 KB: a fatal alert, and no room set aside."""
    fleet.settings(SETTINGS)
    daemon = start(fleet.home)
    with socket.create_connection(("127.0.0.1", daemon.port()), 20) as sock:
        sock.sendall(hello())
        assert sock.recv(4096)
        sock.sendall(b"\x16\x03\x03\x00\x04\x0b" + (100_000).to_bytes(3, "big"))
        answer = b""
        while piece := sock.recv(4096):
            answer += piece
        assert answer[-2:-1] == b"\x02", "a fatal alert"


def test_a_key_of_the_responder_that_cannot_be_read_stops_nothing(fleet: Any, start: Any, dial: Any) -> None:
    """Clients come in without a staple, and the deadlines of others are kept."""
    gateway: Path = fleet.home / "gateway"
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    leaf = fleet.issue("peanut:plant/ocsp", usages=[ExtendedKeyUsageOID.OCSP_SIGNING])
    (gateway / "ocsp.crt").write_bytes(leaf.pem)
    (gateway / "ocsp.key").write_bytes(key)
    fleet.settings(SETTINGS + "handshake_timeout = 4\n")
    daemon = start(fleet.home)
    assert dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/bean"))).connect("bean")[1] == 0
    silent = socket.create_connection(("127.0.0.1", daemon.port()), 15)
    with silent, contextlib.suppress(ConnectionResetError):
        assert silent.recv(1) == b"", "deadlines are kept"


def test_who_cannot_be_handed_over_leaves_no_place_behind() -> None:
    """The C thread has not taken the socket, so nobody would say that it is gone."""

    async def run() -> None:
        listener = Listener(Address("127.0.0.1", 0), "tls")
        server = Server(Broker(seed=b"not a secret"), Log(stream=StringIO()), asyncio.get_running_loop())
        driver: Any = SimpleNamespace(context=broken, loop=None)
        ours, theirs = socket.socketpair()
        connection = native.Native(server, listener, driver)
        connection.peer_host = "192.0.2.1"
        with theirs:
            with pytest.raises(RuntimeError):
                connection.enter(ours.detach())
            assert theirs.recv(1) == b"", "it is closed"
        assert not server.connections
        assert not server.census.newcomers
        assert connection.counted is None
        assert not len(server.waits.handshaking)

    def broken(policy: str) -> None:
        raise RuntimeError(policy)

    asyncio.run(run())


def test_who_could_not_be_judged_is_not_let_in(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask whether it is revoked fails, and its CONNECT is there by then: the event loop stands still meanwhile."""

    def fails(server: Server, credential: Credential) -> str | None:
        raise LookupError("the list is torn")

    def says_who_it_is(sock: socket.socket) -> ssl.SSLSocket:
        secure = fleet.context(fleet.issue("peanut:plant/bean")).wrap_socket(sock, server_hostname="localhost")
        secure.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04bean")
        return secure

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        said: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: said.append(context))
        log = StringIO()
        credentials = tls.load(fleet.home, datetime.now(UTC))
        server = Server(Broker(seed=b"not a secret"), Log(stream=log), loop, credentials=credentials)
        (address,) = await server.start([Listener(Address("127.0.0.1", 0), "tls", driver="native")])
        assert isinstance(address, Address)
        for _ in range(5):
            sock = socket.create_connection((address.host, address.port), 60)
            while not server.connections:
                await asyncio.sleep(0.01)
            with says_who_it_is(sock) as client:
                with contextlib.suppress(OSError):
                    assert await asyncio.to_thread(client.recv, 1) == b"", "it is cut, and gets no CONNACK"
                while server.connections:
                    await asyncio.sleep(0.01)
        await server.stop()
        assert [str(context["exception"]) for context in said] == ["the list is torn"] * 5
        assert " connected " not in log.getvalue()

    monkeypatch.setattr(Server, "revoked", fails)
    asyncio.run(asyncio.wait_for(scenario(), 120))
