"""The PROXY protocol: the parser against HAProxy's proxy-protocol.txt, and listeners behind a proxy on real sockets."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peanutd.proxy import MAX, V2_MAX, Header, ProxyError, parse
from tests.broker.conftest import unharmed

LOOPS = ("asyncio", "uvloop")
SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"  # §2.2


def v2(command: int, family: int, addresses: bytes, extensions: bytes = b"") -> bytes:
    body = addresses + extensions
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


def inet(host: str, port: int) -> bytes:
    """Addresses of a connection from `host` and `port` to a gateway."""
    address = ipaddress.ip_address(host)
    return address.packed + bytes(len(address.packed)) + struct.pack(">HH", port, 8883)


TLV = b"\x02\x00\x0bexample.org"  # PP2_TYPE_AUTHORITY (§2.2.2)

RIGHT = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n", "203.0.113.9", 56324),  # the example of §2.1
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 0 1\r\n", "1.2.3.4", 0),
    (b"PROXY TCP6 2001:db8::1 ::1 4124 443\r\n", "2001:db8::1", 4124),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None, None),
    (v2(0x21, 0x11, inet("203.0.113.9", 56324)), "203.0.113.9", 56324),
    (v2(0x21, 0x11, inet("203.0.113.9", 56324), TLV * 3), "203.0.113.9", 56324),
    (v2(0x21, 0x21, inet("2001:db8::1", 1)), "2001:db8::1", 1),
    (v2(0x21, 0x31, b"/run/client".ljust(108, b"\0") + bytes(108)), "/run/client", None),
    (v2(0x21, 0x00, b""), None, None),  # UNSPEC
    (v2(0x20, 0x00, b""), None, None),  # LOCAL: the proxy's own health check
    (v2(0x20, 0x11, inet("203.0.113.9", 1), TLV), None, None),  # whose addresses are to be ignored
    (v2(0x20, 0xFF, b"anything"), None, None),
    (v2(0x21, 0x11, inet("203.0.113.9", 1), bytes(V2_MAX - 12)), "203.0.113.9", 1),
]

WRONG = [
    b"\x10\x0d\x00\x04MQTT",
    b"\x16\x03\x01",
    b"GET / HTTP/1.1\r\n",
    b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
    b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
    b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
    b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 x 1 2\r\n",
    b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n",
    "PROXY TCP4 1.2.3.4 5.6.7.8 \u0661 2\r\n".encode(),
    b"PROXY UNKNOWNS\r\n",
    b"PROXY " + b"x" * 110,
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",  # 108 bytes
    v2(0x11, 0x11, inet("1.2.3.4", 1)),  # version 1 in the binary form
    v2(0x22, 0x11, inet("1.2.3.4", 1)),  # a command that there is not
    v2(0x21, 0x12, inet("1.2.3.4", 1)),  # datagrams
    v2(0x21, 0x41, inet("1.2.3.4", 1)),
    v2(0x21, 0x11, inet("1.2.3.4", 1)[:-1]),
    v2(0x21, 0x21, inet("1.2.3.4", 1)),
    v2(0x21, 0x31, bytes(215)),
    v2(0x21, 0x11, bytes(V2_MAX + 1)),
    SIGNATURE[:-1] + b"x",
]


@pytest.mark.parametrize(("data", "host", "port"), RIGHT)
def test_right_headers_in_every_split(data: bytes, host: str | None, port: int | None) -> None:
    for size in range(len(data)):
        assert parse(data[:size]) is None, f"{size} bytes are not all of it"
    assert parse(data + b"behind") == Header(len(data), host, port)
    assert len(data) <= MAX


def test_the_longest_text_header_has_107_bytes() -> None:
    """§2.1: the worst case of TCP6, and of UNKNOWN, with CRLF."""
    host = b":".join([b"ffff"] * 8)
    longest = b"PROXY UNKNOWN " + host + b" " + host + b" 65535 65535\r\n"
    assert len(longest) == 107
    assert parse(longest) == Header(107)
    assert parse(b"PROXY TCP6 " + host + b" " + host + b" 65535 65535\r\n") == Header(104, host.decode(), 65535)


@pytest.mark.parametrize("data", WRONG)
def test_wrong_headers(data: bytes) -> None:
    with pytest.raises(ProxyError, match="PROXY header"):
        parse(data)


@given(st.one_of(st.binary(max_size=300), st.sampled_from(RIGHT).map(lambda row: row[0])), st.data())
def test_whatever_comes_there_is_an_end(data: bytes, drawn: Any) -> None:
    """Right, wrong or not whole, never anything else, and never more to come than MAX bytes."""
    if data:
        at = drawn.draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([drawn.draw(st.integers(0, 255))]) + data[at + 1 :]
    with contextlib.suppress(ProxyError):
        header = parse(data)
        assert header is None or header.size <= len(data)
        assert header is not None or parse(data + bytes(MAX)) is not None


# --- behind a proxy ---

SETTINGS = """
[listen]
mqtts = ""
handshake_timeout = 4
[mqtt]
max_connections_per_address = 2
[[listener]]
address = "127.0.0.1:0"
transport = "tls"
proxy_protocol = true
[[listener]]
address = "127.0.0.1:0"
transport = "tcp"
insecure = true
proxy_protocol = true
certificate = "none"
password = true
[[listener]]
address = "127.0.0.1:0"
transport = "wss"
proxy_protocol = true
proxy_from = ["127.6.0.0/16", "::1/128"]
"""


@pytest.fixture(scope="module", params=LOOPS)
def gateway(request: pytest.FixtureRequest, shared_fleet: Any) -> Iterator[Any]:
    shared_fleet.settings(SETTINGS)
    with unharmed(shared_fleet.home, request.param) as daemon:
        yield daemon


def behind(
    dial: Any, fleet: Any, port: int, header: bytes, *, source: str | None = None, together: bool = False
) -> Any:
    """A raw client over TLS behind a PROXY header; `together`: header and TLS hello in one segment."""
    wire = dial(port, source=source)
    context = fleet.context(fleet.issue("peanut:operator/anna"))
    if not together:
        wire.sock.sendall(header)
        wire.sock = context.wrap_socket(wire.sock, server_hostname="localhost")
        return wire
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # holds it back for the hello to come along
    wire.sock.sendall(header)
    wire.sock = context.wrap_socket(wire.sock, server_hostname="localhost")
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    return wire


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n", "203.0.113.9:56324"),
        (v2(0x21, 0x21, inet("2001:db8::9", 77), TLV), r"\[2001:db8::9\]:77"),
        (v2(0x21, 0x31, b"/run/client".ljust(108, b"\0") + bytes(108)), "unix:/run/client"),
    ],
)
def test_the_clients_address_is_in_the_log(
    gateway: Any, shared_fleet: Any, dial: Any, header: bytes, shown: str, together: bool
) -> None:
    wire = behind(dial, shared_fleet, gateway.port(), header, together=together)
    assert wire.connect(f"seen-{together}")[1] == 0
    wire.ping()
    gateway.line(rf"connected who=operator/anna/seen-{together} address={shown} ")
    wire.disconnect()
    assert wire.closed()


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", v2(0x20, 0x00, b"")])
def test_a_proxy_that_does_not_say_shows_itself(gateway: Any, shared_fleet: Any, dial: Any, header: bytes) -> None:
    wire = behind(dial, shared_fleet, gateway.port(), header)
    source = wire.source
    assert wire.connect("local")[1] == 0
    gateway.line(rf"connected who=operator/anna/local address={source}:\d+ ")


def test_byte_by_byte(gateway: Any, dial: Any) -> None:
    wire = dial(gateway.port("mqtt"), version=4)
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"PROXY TCP4 198.51.100.1 192.0.2.1 1 2\r\n":
        wire.sock.sendall(bytes([byte]))
    assert wire.connect("x") == b"\x00\x05"
    gateway.line("refused address=198.51.100.1:1 ")


@pytest.mark.parametrize(
    "data", [b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x", b"PROXY TCP4 x\r\n", SIGNATURE + b"\xff" * 4]
)
def test_without_a_right_header_nothing_is_read(gateway: Any, dial: Any, data: bytes) -> None:
    wire = dial(gateway.port("mqtt"), version=4)
    wire.sock.sendall(data)
    assert wire.closed()
    assert "PROXY header" in gateway.line(rf"connection refused address={wire.source}:")


def test_a_header_that_does_not_come_is_waited_for_no_longer_than_a_handshake(gateway: Any, dial: Any) -> None:
    wires = [dial(gateway.port(scheme)) for scheme in ("mqtt", "mqtts")]
    begin = time.monotonic()
    wires[0].sock.sendall(b"PROXY TCP4 ")
    wires[1].sock.sendall(b"PROXY UNKNOWN\r\n")  # the same deadline spans the TLS handshake behind it
    for wire in wires:
        assert wire.closed()
        gateway.line(rf'handshake failed address={wire.source}:\d+ why="not finished in 4 s"')
    assert time.monotonic() - begin < 60


def test_only_from_a_trusted_proxy(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    header = b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n"
    behind(dial, shared_fleet, gateway.port("wss"), header, source="127.6.0.1")
    wire = dial(gateway.port("wss"), source="127.7.0.1")
    assert wire.closed()
    gateway.line(r'connection refused address=127.7.0.1:\d+ why="not from an address of proxy_from"')


def test_the_clients_address_counts_and_not_the_proxys(gateway: Any, dial: Any) -> None:
    """max_connections_per_address, for two clients behind one proxy; an IPv6 /64 is one address."""

    def come(host: str, number: int) -> Any:
        wire = dial(gateway.port("mqtt"), version=4, source="127.8.0.1")
        family = 0x21 if ":" in host else 0x11
        wire.sock.sendall(v2(0x21, family, inet(host, number)))
        return wire

    def served(wire: Any) -> bool:
        """It comes as far as a verdict on its CONNECT."""
        return bool(wire.connect("x") == b"\x00\x05")

    for first, second, third in (
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:3"),
    ):
        here = [come(first, 1), come(second, 2)]
        late = come(third, 3)
        assert late.closed()
        gateway.line(r'connection refused address=\S+:3 why="there are 2 from \S+ already"', count=1)
        assert all(served(wire) for wire in here)
        other = come("192.0.2.77" if ":" not in first else "2001:db8:0:1::1", 4)
        assert served(other)
