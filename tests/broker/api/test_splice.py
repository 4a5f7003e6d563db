"""MQTT over WebSocket at the app's address: what is spliced, byte for byte, and that neither side fills the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

from peanutd import proxy
from peanutd.api.splice import Splice, preface

DEADLINE = 60.0


@pytest.mark.parametrize(
    ("client", "host"), [(("192.168.1.9", 4711), "192.168.1.9"), (("fe80::1%eth0", 9), "fe80::1"), (None, None)]
)
def test_the_broker_is_told_who_is_there(client: tuple[str, int] | None, host: str | None) -> None:
    header = proxy.parse(preface(client) + b"GET /mqtt")
    assert header is not None
    assert (header.host, header.size) == (host, len(preface(client)))


async def spliced() -> tuple[socket.socket, socket.socket, asyncio.Event]:
    """A client's socket, the broker's, and whether the connection was reported as gone."""
    loop = asyncio.get_running_loop()
    adopted: asyncio.Future[socket.socket] = loop.create_future()
    gone = asyncio.Event()
    client, server = socket.socketpair()
    client.setblocking(False)
    transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=server)
    splice = Splice(adopted.set_result)
    splice.begin(transport, ("127.0.0.1", 1), b"GET /mqtt HTTP/1.1\r\n\r\n", lambda _: gone.set())
    broker = await asyncio.wait_for(adopted, DEADLINE)
    first = preface(("127.0.0.1", 1)) + b"GET /mqtt HTTP/1.1\r\n\r\n"
    found = b""
    while len(found) < len(first):
        found += await asyncio.wait_for(loop.sock_recv(broker, 4096), DEADLINE)
    assert found == first
    return client, broker, gone


async def read(sock: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        found += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), DEADLINE)
    return bytes(found)


def test_bytes_go_both_ways() -> None:
    async def story() -> None:
        client, broker, _ = await spliced()
        loop = asyncio.get_running_loop()
        there, back = os.urandom(300_000), os.urandom(300_000)
        for sender, receiver, data in ((client, broker, there), (broker, client, back)):
            sending = loop.create_task(loop.sock_sendall(sender, data))
            assert await read(receiver, len(data)) == data
            await sending
        client.close()
        broker.close()

    asyncio.run(story())


@pytest.mark.parametrize("first", ["client", "broker"])
def test_the_end_of_one_is_the_end_of_the_other(first: str) -> None:
    async def story() -> None:
        client, broker, gone = await spliced()
        (client if first == "client" else broker).close()
        left = broker if first == "client" else client
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(left, 1), DEADLINE) == b""
        left.close()
        await asyncio.wait_for(gone.wait(), DEADLINE)

    asyncio.run(story())


def test_who_does_not_read_is_not_written_to_without_end() -> None:
    async def story() -> None:
        client, broker, _ = await spliced()
        loop = asyncio.get_running_loop()
        taken = 0
        with contextlib.suppress(TimeoutError):
            while taken < 64 << 20:
                await asyncio.wait_for(loop.sock_sendall(client, bytes(65536)), 0.5)
                taken += 65536
        assert taken < 16 << 20, "the broker read nothing, and all of it was taken"
        client.close()
        broker.close()

    asyncio.run(story())


def test_a_gateway_that_ends_closes_it() -> None:
    async def story() -> None:
        def closed(sock: socket.socket) -> None:
            raise RuntimeError("the loop is closed")

        gone = asyncio.Event()
        client, server = socket.socketpair()
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=server)
        Splice(closed).begin(transport, None, b"GET /mqtt HTTP/1.1\r\n\r\n", lambda _: gone.set())
        assert await asyncio.wait_for(loop.sock_recv(client, 1), DEADLINE) == b""
        await asyncio.wait_for(gone.wait(), DEADLINE)
        client.close()

    asyncio.run(story())
