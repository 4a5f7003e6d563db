"""The gateway on real sockets: who gets in, who does not, and that nobody can hurt it.

Each test runs on asyncio and on uvloop. The clients are raw sockets with packets written by hand, and paho-mqtt.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest

from peanutd import tls
from peanutd._core import Broker
from peanutd.config import Listener, Policy, parse_address
from peanutd.log import Log
from peanutd.server import Server
from peanutd.sockets import BACKLOG, ListenError
from tests.broker.conftest import unharmed

DAY = timedelta(days=1)
VIN = "WVWZZZ1JZXW000001"
LOOPS = ("asyncio", "uvloop")

SETTINGS = """
[listen]
mqtts = "127.0.0.1:0"
mqtt = "127.0.0.1:0"
handshake_timeout = 4
[access]
anonymous = true
[mqtt]
connect_timeout = 4000
"""


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module", params=LOOPS)
def gateway(request: pytest.FixtureRequest, shared_fleet: Any) -> Iterator[Any]:
    shared_fleet.settings(f'{SETTINGS}\n[store]\npath = "{request.param}.db"\n')  # neither knows of the other
    with unharmed(shared_fleet.home, request.param) as daemon:
        yield daemon


@pytest.fixture
def enter(gateway: Any, shared_fleet: Any, dial: Any) -> Callable[..., Any]:
    """Connects with a new certificate for `uri`; the client id is its name unless told otherwise."""

    def connect(uri: str, client_id: str | None = None, version: int = 5, **connect: Any) -> Any:
        wire = dial(gateway.port(), shared_fleet.context(shared_fleet.issue(uri)), version)
        answer = wire.connect(uri.rpartition("/")[2] if client_id is None else client_id, **connect)
        assert answer[1] == 0, f"refused: {answer!r}"
        return wire

    return connect


# --- who gets in ---


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("tls_version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("uri", ["peanut:plant/peanut", f"peanut:vin/{VIN}", "peanut:operator/anna"])
def test_a_member_of_the_fleet_gets_in(
    gateway: Any, shared_fleet: Any, dial: Any, version: int, tls_version: ssl.TLSVersion, uri: str
) -> None:
    context = shared_fleet.context(shared_fleet.issue(uri))
    context.minimum_version = context.maximum_version = tls_version
    wire = dial(gateway.port(), context, version)
    assert wire.connect(uri.rpartition("/")[2])[1] == 0
    wire.ping()
    address = str(wire.sock.getsockname()[0])
    shown = {4: "3.1.1", 5: "5.0"}[version]
    gateway.line(
        rf"connected who={uri.removeprefix('peanut:')}\S* address={address}:\d+ mqtt={shown} tls={wire.sock.version()}$"
    )
    wire.disconnect()
    assert wire.closed()
    gateway.line(rf'disconnected who=\S+ address={address}:\d+ why="the client said goodbye" code=0x00')


@pytest.mark.parametrize("version", [4, 5])
def test_paho_commands_a_greenhouse(gateway: Any, shared_fleet: Any, paho: Any, version: int) -> None:
    name = f"paho{version}"
    node = paho(shared_fleet, gateway.port(), shared_fleet.issue(f"peanut:plant/{name}"), name, version)
    assert not node.expect("connect").is_failure
    node.client.subscribe(f"/plant/{name}/UpdateTemperature", 1)
    assert not node.expect("subscribe")[0].is_failure
    operator = paho(
        shared_fleet, gateway.port(), shared_fleet.issue("peanut:operator/anna"), f"phone{version}", version
    )
    assert not operator.expect("connect").is_failure
    operator.client.subscribe(f"/plant/{name}/#", 1)
    assert not operator.expect("subscribe")[0].is_failure
    operator.client.publish(f"/plant/{name}/UpdateTemperature", "temperature:15", 1)
    message = node.expect("message")
    assert (message.topic, message.payload, message.retain) == (
        f"/plant/{name}/UpdateTemperature",
        b"temperature:15",
        False,
    )
    node.client.publish(f"/plant/{name}/state", '{"setpoint":15}', 1, retain=True)
    assert [operator.expect("message").payload for _ in range(2)] == [b"temperature:15", b'{"setpoint":15}']


def test_without_tls_only_where_it_was_configured(gateway: Any, dial: Any) -> None:
    wire = dial(gateway.port("mqtt"), version=4)
    assert wire.connect("anybody") == b"\x00\x00"
    assert wire.subscribe("any/#") == b"\x01"
    assert wire.publish("any/thing", b"goes") == 0
    assert wire.message() == ("any/thing", b"goes", False)
    gateway.line("connected who=anonymous/anybody .* mqtt=3.1.1$")


# --- who does not: the issue's list ---


def test_no_certificate(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    refused_in_handshake(gateway, dial, shared_fleet.context(None), "no client certificate given")


def test_a_certificate_from_another_ca(gateway: Any, shared_fleet: Any, dial: Any, signer: Any) -> None:
    words = "client certificate not issued by this fleet's CA"
    other = signer("issuing", signer("root"))
    leaf = shared_fleet.issue("peanut:plant/peanut", issuer=other)
    refused_in_handshake(gateway, dial, shared_fleet.context(leaf), words)
    refused_in_handshake(gateway, dial, shared_fleet.context(leaf, other.pem), words)
    alone = shared_fleet.issue("peanut:plant/peanut", self_signed=True)
    refused_in_handshake(gateway, dial, shared_fleet.context(alone), words)


def refused_in_handshake(gateway: Any, dial: Any, context: ssl.SSLContext, words: str) -> None:
    """Under both versions of TLS. In 1.3 the client believes in the handshake until it reads."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = context.maximum_version = version
        port = gateway.port()
        source = f"127.2.{next(_sources)}.1"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            dial(port, context, source=source).connect("peanut")
        line = gateway.line(f"handshake failed address={source}:")
        assert words in line, line


_sources = iter(range(256))


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("tls_version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("start", "end", "words"),
    [(-90, -60, "expired since"), (2, 9, "not yet valid before")],
    ids=["expired", "not yet valid"],
)
def test_an_out_of_date_certificate(
    gateway: Any,
    shared_fleet: Any,
    dial: Any,
    enter: Any,
    version: int,
    tls_version: ssl.TLSVersion,
    start: int,
    end: int,
    words: str,
) -> None:
    """It gets a handshake and a reason, and nothing of what it sent along is carried out."""
    watcher = enter("peanut:operator/anna", f"watch-{version}")
    assert watcher.subscribe("/plant/old/#") == b"\x01"
    leaf = shared_fleet.issue("peanut:plant/old", start=now() + start * DAY, end=now() + end * DAY)
    context = shared_fleet.context(leaf)
    context.minimum_version = context.maximum_version = tls_version
    wire = dial(gateway.port(), context, version)
    properties = b"\x00" if version == 5 else b""
    body = struct.pack(">H", 4) + b"MQTT" + bytes([version, 2]) + b"\x00\x00" + properties + b"\x00\x03old"
    topic = b"/plant/old/state"
    publish = struct.pack(">H", len(topic)) + topic + properties + b"forged"
    wire.sock.sendall(bytes([0x10, len(body)]) + body + bytes([0x31, len(publish)]) + publish)
    first, answer = wire.receive()
    assert first == 0x20
    if version == 5:
        assert answer[1] == 0x87
        assert f"certificate of greenhouse old {words} 20".encode() in answer, "the node can show why"
    else:
        assert answer == b"\x00\x05"
    assert wire.closed()
    gateway.line(
        rf'refused address={wire.source}:\d+ why="certificate of greenhouse old {words} 20\S+ .* UTC" code=0x87'
    )
    assert watcher.publish("/plant/old/cmd/marker", b"") == 0
    assert watcher.message()[0] == "/plant/old/cmd/marker", "nothing came before it"


def test_a_certificate_that_names_nobody(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    for uris, words in (
        ((), "has no peanut: name in it"),
        (("peanut:plant/a", "peanut:plant/b"), "has 2 peanut: names"),
        (("peanut:plant/a\\b",), "none that a fleet gives"),
    ):
        wire = dial(gateway.port(), shared_fleet.context(shared_fleet.issue(*uris)))
        answer = wire.connect("a")
        assert answer[1] == 0x87
        assert words.encode() in answer
        assert wire.closed()
        assert words in gateway.line(f"refused address={wire.source}:")


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", ["plant/own", "vin/WVWZZZ1JZXW00001"])
def test_a_node_may_not_write_commands(gateway: Any, enter: Any, version: int, kind: str) -> None:
    kind += str(version)
    root = f"/{kind}" if kind.startswith("plant") else kind
    command = f"{root}/UpdateTemperature" if kind.startswith("plant") else f"{root}/unlock"
    another = command.replace("own", "another").replace("1JZXW00001", "1JZXW00002")
    watcher = enter("peanut:operator/anna", f"watch-{version}")
    assert watcher.subscribe(f"{root}/#", another.rpartition("/")[0] + "/#") == b"\x01\x01"
    node = enter(f"peanut:{kind}", version=version)
    for topic in (command, another, another.rpartition("/")[0] + "/telemetry"):
        reason = node.publish(topic, b"temperature:35")
        assert version == 4 or reason == 0x87
        gateway.line(rf'denied who={kind} address={node.source}:\d+ what="publish {topic}" why="no rule allows it"')
    assert node.publish(f"{root}/telemetry", b"mine") == 0
    assert watcher.message()[:2] == (f"{root}/telemetry", b"mine"), "nothing came before it"


@pytest.mark.parametrize("version", [4, 5])
def test_a_node_may_not_read_another_nodes_commands(gateway: Any, enter: Any, version: int) -> None:
    operator = enter("peanut:operator/anna", f"sender-{version}")
    name = f"reader{version}"
    node = enter(f"peanut:plant/{name}", version=version)
    refused = b"\x87" if version == 5 else b"\x80"  # 3.1.1 knows only "failure" (MQTT-3.9.3-2)
    wrong = [
        "/plant/other/UpdateTemperature",
        "/plant/+/UpdateTemperature",
        "/plant/other/cmd/+",
        "/plant/#",
        "#",
        "$SYS/#",
    ]
    own = f"/plant/{name}/UpdateTemperature"
    assert node.subscribe(*wrong, own) == refused * len(wrong) + b"\x01"
    gateway.line(rf'denied who=plant/{name} address={node.source}:\d+ what="subscribe /plant/\+/UpdateTemperature"')
    for topic in ("/plant/other/UpdateTemperature", "/plant/other/cmd/x", own):
        assert operator.publish(topic, topic.encode()) in (0, 0x10)
    assert node.message() == (own, own.encode(), False), "nothing came before it"


def test_the_longest_names_fit(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    """Identity and client id make the session key; [mqtt] max_client_id bounds what a client may send."""
    leaf = shared_fleet.issue(f"peanut:operator/{'o' * 32}")
    wire = dial(gateway.port(), shared_fleet.context(leaf))
    assert wire.connect("ä" * 128)[1] == 0
    wire.ping()
    wire = dial(gateway.port(), shared_fleet.context(leaf))
    assert wire.connect("x" * 257)[1] == 0x85
    wire = dial(gateway.port(), shared_fleet.context(leaf))
    assert wire.connect("x", username="ä" * 8000)[1] == 0x86, "its reason is cut, not malformed"


@pytest.mark.parametrize("version", [4, 5])
def test_a_client_id_that_is_not_the_certificates_name(
    gateway: Any, shared_fleet: Any, dial: Any, enter: Any, version: int
) -> None:
    victim = enter("peanut:plant/victim", version=version)
    for client_id in ("victim", "", "thief "):
        leaf = shared_fleet.issue(f"peanut:plant/thief{version}")
        wire = dial(gateway.port(), shared_fleet.context(leaf), version)
        answer = wire.connect(client_id)
        assert answer[1] == (0x85 if version == 5 else 2)
        assert wire.closed()
        gateway.line(
            rf'refused who=plant/thief{version} address={wire.source}:\d+ why="client id .*not the cert.*code=0x85'
        )
    victim.ping()  # was not taken over


def test_a_user_name_that_is_not_the_certificates_name(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    wire = dial(gateway.port(), shared_fleet.context(shared_fleet.issue("peanut:plant/peanut")))
    assert wire.connect("peanut", username="admin")[1] == 0x86
    assert wire.closed()


def test_an_authentication_method(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    """MQTT 5.0 §4.12: a method that the server does not support gets 0x8C."""
    wire = dial(gateway.port(), shared_fleet.context(shared_fleet.issue("peanut:operator/anna")))
    assert wire.connect("x", method="SCRAM-SHA-1")[1] == 0x8C
    assert wire.closed()


def test_a_retained_command(gateway: Any, enter: Any) -> None:
    operator = enter("peanut:operator/anna", "retainer")
    topic = "/plant/kept/UpdateTemperature"
    assert operator.publish(topic, b"temperature:15", retain=True) == 0x87
    gateway.line(rf'denied who=operator/anna/retainer \S+ what="publish retained {topic}" why="must not be retained"')
    node = enter("peanut:plant/kept")
    assert node.subscribe(topic) == b"\x01"
    assert operator.publish(topic, b"temperature:16") == 0
    assert node.message() == (topic, b"temperature:16", False)


def test_a_will_that_no_rule_allows(gateway: Any, enter: Any, dial: Any, shared_fleet: Any) -> None:
    watcher = enter("peanut:operator/anna", "will-watch")
    assert watcher.subscribe("/plant/+/UpdateTemperature", "/plant/+/status") == b"\x01\x01"
    wire = dial(gateway.port(), shared_fleet.context(shared_fleet.issue("peanut:plant/heir")))
    answer = wire.connect("heir", will=("/plant/peanut/UpdateTemperature", b"temperature:40"))
    gateway.line(rf'denied \S*.*address={wire.source}:\d+ what="will /plant/peanut/UpdateTemperature"')
    assert answer[1] in (0, 0x87)
    wire.close()
    other = enter("peanut:plant/heir", will=("/plant/heir/status", b"gone"))
    other.close()
    assert watcher.message()[:2] == ("/plant/heir/status", b"gone"), "nothing came before it"


def test_an_operators_session_is_no_other_operators(enter: Any) -> None:
    anna = enter("peanut:operator/anna", "phone")
    ben = enter("peanut:operator/ben", "phone")
    anna.ping()
    ben.ping()


# --- sessions and wills through real sockets ---


def test_a_second_connection_of_a_node_takes_over(gateway: Any, enter: Any) -> None:
    first = enter("peanut:plant/twice")
    second = enter("peanut:plant/twice")
    kind, body = first.receive()
    assert (kind, body[:1]) == (0xE0, b"\x8e")
    assert first.closed()
    second.ping()
    gateway.line(rf'disconnected who=plant/twice address={first.source}:\d+ why="taken over.*code=0x8e')


def test_the_will_is_published_when_the_socket_is_lost(gateway: Any, enter: Any) -> None:
    watcher = enter("peanut:operator/anna", "status-watch")
    assert watcher.subscribe("/plant/mortal/status") == b"\x01"
    node = enter("peanut:plant/mortal", will=("/plant/mortal/status", b"polite"))
    node.disconnect()
    assert node.closed()
    node = enter("peanut:plant/mortal", will=("/plant/mortal/status", b"offline"))
    node.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    node.close()  # a reset, as when the power goes
    assert watcher.message()[:2] == ("/plant/mortal/status", b"offline"), "and not the polite one's"
    gateway.line(r'disconnected who=plant/mortal .* why="connection lost" code=0x80')


def test_silence_beyond_the_keep_alive_ends_a_connection(gateway: Any, enter: Any) -> None:
    """MQTT-3.1.2-22: one and a half times the keep alive."""
    node = enter("peanut:plant/silent", keep_alive=1)
    begin = time.monotonic()
    kind, body = node.receive()
    assert time.monotonic() - begin > 1.0
    assert (kind, body[:1]) == (0xE0, b"\x8d")
    assert node.closed()
    gateway.line('disconnected who=plant/silent .* why="nothing heard for 1.5 times the keep alive"')


def test_half_closed_by_the_client_after_a_question(gateway: Any, dial: Any) -> None:
    """Its answers still come."""
    wire = dial(gateway.port("mqtt"), version=4)
    assert wire.connect("half") == b"\x00\x00"
    wire.sock.sendall(b"\xc0\x00" * 3)
    wire.sock.shutdown(socket.SHUT_WR)
    assert [wire.receive()[0] for _ in range(3)] == [0xD0] * 3
    assert wire.closed()


def test_tls_is_closed_both_ways(gateway: Any, shared_fleet: Any, enter: Any) -> None:
    """close_notify is answered, and sent: an end that can be told from a cut (RFC 8446 §6.1)."""
    node = enter("peanut:plant/closer")
    node.sock.unwrap()
    context = shared_fleet.context(shared_fleet.issue("peanut:plant/closer"))
    with socket.create_connection(("127.0.0.1", gateway.port()), 10) as raw:
        sock = context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
        sock.sendall(b"\xe0\x00")  # DISCONNECT before CONNECT: the gateway closes
        while sock.recv(1024):
            pass
        sock.close()


# --- TLS on our own feet ---


def test_one_byte_at_a_time(gateway: Any, shared_fleet: Any) -> None:
    """Handshake and packets, each TLS record torn into single bytes."""
    context = shared_fleet.context(shared_fleet.issue("peanut:plant/slow"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", gateway.port()), 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def go(step: Callable[[], Any]) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    send()
                    incoming.write(sock.recv(65536))

        def send() -> None:
            for byte in outgoing.read():
                sock.sendall(bytes([byte]))

        go(session.do_handshake)
        session.write(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04slow\xc0\x00")
        send()
        answer = b""
        while len(answer) < 6:
            answer += go(lambda: session.read(100))
        assert answer == b"\x20\x02\x00\x00\xd0\x00"


@pytest.mark.parametrize("tls_version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_large_messages_come_through_whole(
    gateway: Any, shared_fleet: Any, dial: Any, tls_version: ssl.TLSVersion
) -> None:
    context = shared_fleet.context(shared_fleet.issue("peanut:operator/anna"))
    context.minimum_version = context.maximum_version = tls_version
    sender, receiver = dial(gateway.port(), context, 4), dial(gateway.port(), context, 4)
    assert sender.connect("large-out") == receiver.connect("large-in") == b"\x00\x00"
    assert receiver.subscribe("/plant/+/cmd/large") == b"\x01"
    topic = b"/plant/x/cmd/large"
    for size in (1, 16383, 16384, 16385, 65536, 300_000, 1_000_000):
        payload = os.urandom(size)
        body = struct.pack(">H", len(topic)) + topic + b"\x00\x07" + payload
        sender.sock.sendall(b"\x32" + variable(len(body)) + body)
        assert receiver.message() == (topic.decode(), payload, False)
        assert sender.await_type(4) == b"\x00\x07"


def variable(number: int) -> bytes:
    """MQTT 5.0 §1.5.5."""
    out = b""
    while True:
        number, digit = divmod(number, 128)
        out += bytes([digit | (0x80 if number else 0)])
        if not number:
            return out


@pytest.mark.parametrize("secure", [True, False])
def test_a_reader_that_does_not_read_costs_a_bounded_amount(
    gateway: Any, shared_fleet: Any, dial: Any, secure: bool
) -> None:
    """QoS 0 above max_output_bytes (4 MiB) is dropped for it; others are served, and it goes on when it reads again."""
    context = shared_fleet.context(shared_fleet.issue("peanut:operator/anna")) if secure else None
    port = gateway.port("mqtts" if secure else "mqtt")
    lazy, sender = dial(port, context, 4), dial(port, context, 4)
    assert lazy.connect("lazy") == sender.connect("busy") == b"\x00\x00"
    assert lazy.subscribe("/plant/+/cmd/flood") == b"\x01"
    topic = b"/plant/lazy/cmd/flood"
    body = struct.pack(">H", len(topic)) + topic + bytes(100_000)
    before = rss(gateway.process.pid)
    for _ in range(600):  # 60 MB
        sender.sock.sendall(b"\x30" + variable(len(body)) + body)
    sender.ping()
    assert rss(gateway.process.pid) - before < 24 * 1024 * 1024
    assert sender.publish("/plant/lazy/cmd/other", b"") in (0, 0x10)
    count = 0
    lazy.send(0xC0, b"")
    while lazy.receive()[0] != 0xD0:
        count += 1
    assert 10 < count < 600
    assert sender.publish("/plant/lazy/cmd/flood", b"end") == 0
    while lazy.message()[1] != b"end":
        pass


def rss(pid: int) -> int:
    """Bytes of memory that a process has in RAM."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- peers that are nobody's clients ---


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x", "not TLS: an MQTT CONNECT without encryption"),
        (b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n", "not TLS: an HTTP request"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not TLS"),
        (b"\x00" * 64, "not TLS"),
        (b"\x16\x03\x01\x00\x05hello", "TLS: "),
        (b"\x16\x03\x01\xff\xff" + bytes(70_000), "TLS: "),
    ],
    ids=["mqtt", "http", "ssh", "zeros", "no hello", "record too long"],
)
def test_what_is_not_tls_is_named_and_closed(gateway: Any, dial: Any, data: bytes, words: str) -> None:
    wire = dial(gateway.port())
    wire.sock.sendall(data)
    assert wire.closed()
    assert words in gateway.line(f"handshake failed address={wire.source}:")


def test_an_old_tls_version_is_named(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    context = shared_fleet.context(shared_fleet.issue("peanut:plant/peanut"))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        dial(gateway.port(), context, source="127.3.0.1")
    assert "TLS version too old (1.2 or 1.3 is needed)" in gateway.line("handshake failed address=127.3.0.1:")


def hello(context: ssl.SSLContext) -> bytes:
    """A whole first flight of a client."""
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0], ids=["nothing", "a bit", "half", "all"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_peer_that_goes_away_in_the_handshake(
    gateway: Any, shared_fleet: Any, dial: Any, share: float, reset: bool
) -> None:
    wire = dial(gateway.port())
    data = hello(shared_fleet.context(None))
    wire.sock.sendall(data[: int(len(data) * share)])
    if share == 1.0:
        assert wire.sock.recv(1), "the gateway has answered"
    if reset:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()
    if share:
        # uvloop asks for the address only when it is too late to tell it of a peer that has reset the connection.
        gateway.line(rf'handshake failed address=({wire.source}:\d+|unknown) why="closed in the handshake"')
    knock = dial(gateway.port(), shared_fleet.context(shared_fleet.issue("peanut:plant/next")))
    assert knock.connect("next")[1] == 0
    assert share or not [line for line in gateway.lines if f"address={wire.source}:" in line], "a knock is no news"


def test_a_handshake_that_does_not_go_on_is_cut(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    """[listen] handshake_timeout, after nothing, half of the first flight, and all of it; told, and counted, once."""
    data = hello(shared_fleet.context(None))
    wires = [dial(gateway.port()) for _ in range(3)]
    for wire, size in zip(wires, (0, len(data) // 2, len(data)), strict=True):
        wire.sock.sendall(data[:size])
    for wire in wires:
        assert wire.closed()
        gateway.line(rf'handshake failed address={wire.source}:\d+ why="not finished in 4 s"')
    knock = dial(gateway.port(), shared_fleet.context(shared_fleet.issue("peanut:plant/later")))
    assert knock.connect("later")[1] == 0  # by then all has been said of those before
    for wire in wires:
        assert len([line for line in gateway.lines if f"address={wire.source}:" in line]) == 1


def test_a_connection_without_a_connect_is_closed(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    """[mqtt] connect_timeout, with TLS and without, and an out-of-date certificate gets no more time."""
    port = gateway.port()
    old = shared_fleet.issue("peanut:plant/old", start=now() - 9 * DAY, end=now() - DAY)
    wires = [
        dial(gateway.port("mqtt")),
        dial(port, shared_fleet.context(shared_fleet.issue("peanut:plant/mute"))),
        dial(port, shared_fleet.context(old)),
    ]
    assert all(wire.closed() for wire in wires)


@pytest.mark.parametrize(
    "data", [b"\xc0\x00", b"\x00\x00", b"\xff" * 10, b"\x10\xff\xff\xff\x7f", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_mqtt_is_closed(gateway: Any, shared_fleet: Any, dial: Any, data: bytes) -> None:
    for context in (None, shared_fleet.context(shared_fleet.issue("peanut:plant/noise"))):
        wire = dial(gateway.port("mqtts" if context else "mqtt"), context)
        wire.sock.sendall(data)
        assert wire.closed()
        gateway.line(f"no connection .*address={wire.source}:")


def test_what_a_peer_sends_cannot_forge_a_line(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    evil = 'x"\n2026-11-21T12:00:00 info  server: connected who=operator/root \x1b[31m' + "y" * 1000
    wire = dial(gateway.port(), shared_fleet.context(shared_fleet.issue("peanut:plant/poet")))
    assert wire.connect("poet", username=evil)[1] == 0x86
    assert wire.closed()
    line = gateway.line(f"refused who=plant/poet address={wire.source}:")
    assert "\\n2026-11-21" in line
    assert "\\x1b[31m" in line
    assert len(line) < 600
    assert not [
        line
        for line in gateway.lines
        if line.startswith("2026-11-21T12:00:00 info  server: connected who=operator/root")
    ]


# --- limits that need a gateway of their own ---


@pytest.mark.parametrize("loop", LOOPS)
def test_connections_beyond_the_limit_are_closed_as_they_come(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(SETTINGS + "max_connections = 2")
    daemon = start(fleet.home, loop=loop)
    port = daemon.port("mqtt")
    kept = [dial(port, version=4) for _ in range(2)]
    assert [wire.connect(f"kept-{number}") for number, wire in enumerate(kept)] == [b"\x00\x00"] * 2
    late = dial(port, version=4)
    assert late.closed()
    daemon.line(rf'connection refused address={late.source}:\d+ why="there are 2 already"')
    kept.pop().close()
    daemon.line("disconnected who=anonymous/kept-1")

    def comes_in() -> bool:
        try:
            return bool(dial(port, version=4).connect("new") == b"\x00\x00")
        except (EOFError, ConnectionError):
            return False

    assert any(comes_in() for _ in range(50)), "there is room again"
    kept[0].ping()


@pytest.mark.parametrize("loop", LOOPS)
def test_connections_of_one_address_are_limited(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """[mqtt] max_connections_per_address: at the limit, beyond it, and when one has gone; others do not care."""
    fleet.settings(SETTINGS + "max_connections_per_address = 3")
    daemon = start(fleet.home, loop=loop)
    port = daemon.port("mqtt")
    here = [dial(port, version=4, source="127.9.0.1") for _ in range(3)]
    assert [wire.connect(f"here-{number}") for number, wire in enumerate(here)] == [b"\x00\x00"] * 3
    for listener in ("mqtt", "mqtts"):  # all listeners together
        late = dial(daemon.port(listener), version=4, source="127.9.0.1")
        assert late.closed()
    daemon.line(r'connection refused address=127.9.0.1:\d+ why="there are 3 from 127.9.0.1 already"', count=2)
    assert dial(port, version=4, source="127.9.0.2").connect("there") == b"\x00\x00"
    here.pop().close()
    daemon.line("disconnected who=anonymous/here-2")

    def comes_in() -> bool:
        try:
            return bool(dial(port, version=4, source="127.9.0.1").connect("new") == b"\x00\x00")
        except (EOFError, ConnectionError):
            return False

    assert any(comes_in() for _ in range(50)), "there is room again"


@pytest.mark.parametrize("loop", LOOPS)
def test_clients_of_one_operator_are_limited(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """[mqtt] max_connections_per_identity: at the limit, beyond it, by takeover, and when one has gone."""
    fleet.settings(SETTINGS + "max_connections_per_identity = 2")
    daemon = start(fleet.home, loop=loop)
    anna = fleet.context(fleet.issue("peanut:operator/anna"))
    ben = fleet.context(fleet.issue("peanut:operator/ben"))

    def come(context: ssl.SSLContext, client_id: str, version: int = 5) -> tuple[Any, int]:
        wire = dial(daemon.port(), context, version)
        return wire, wire.connect(client_id)[1]

    first, answer = come(anna, "first")
    assert answer == 0
    assert come(anna, "second")[1] == 0
    late, answer = come(anna, "third")
    assert answer == 0x97
    assert late.closed()
    daemon.line('refused who=operator/anna .* why="operator/anna has 2 clients connected already" code=0x97')
    assert come(anna, "third", 4)[1] == 3, "server unavailable: 3.1.1 has nothing nearer"
    assert come(ben, "first")[1] == 0
    second, answer = come(anna, "second")
    assert answer == 0, "one that returns takes its own place"
    second.disconnect()
    assert second.closed()
    daemon.line("disconnected who=operator/anna/second .* code=0x00")
    assert come(anna, "third")[1] == 0
    assert come(anna, "second")[1] == 0x97
    for number in range(3):  # nodes and the anonymous are nobody's many clients
        assert dial(daemon.port("mqtt"), version=4).connect(f"any-{number}") == b"\x00\x00"
    first.ping()


@pytest.mark.parametrize("loop", LOOPS)
def test_no_limit_is_zero(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    none = "max_connections_per_identity = 0\nmax_connections_per_address = 0"
    fleet.settings(SETTINGS + none)
    daemon = start(fleet.home, loop=loop)
    anna = fleet.context(fleet.issue("peanut:operator/anna"))
    assert all(dial(daemon.port(), anna, 4).connect(str(n)) == b"\x00\x00" for n in range(70)), "64 is the default"


# --- policies of listeners ---

POLICIES = """
[listen]
mqtts = ""
[[listener]]
address = "127.0.0.1:0"
certificate = "optional"
anonymous = true
[[listener]]
address = "127.0.0.1:0"
transport = "wss"
certificate = "optional"
password = true
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_an_optional_certificate(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """Shown, it counts, and a bad one is worse than none; not shown, the rest of the policy decides."""
    fleet.settings(POLICIES)
    daemon = start(fleet.home, loop=loop)
    port = daemon.port("mqtts")
    assert dial(port, fleet.context(None)).connect("nobody")[1] == 0
    daemon.line("connected who=anonymous/nobody .* tls=TLSv1.3")
    leaf = fleet.issue("peanut:plant/peanut")
    assert dial(port, fleet.context(leaf)).connect("peanut")[1] == 0
    daemon.line("connected who=plant/peanut ")
    assert dial(port, fleet.context(leaf)).connect("nobody")[1] == 0x85, "a node keeps its name"
    old = fleet.issue("peanut:plant/peanut", start=now() - 90 * DAY, end=now() - 60 * DAY)
    assert dial(port, fleet.context(old)).connect("peanut")[1] == 0x87
    alone = fleet.issue("peanut:plant/peanut", self_signed=True)
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        dial(port, fleet.context(alone)).connect("peanut")


def test_check_says_who_is_let_in_where(fleet: Any, start: Any) -> None:
    fleet.settings(POLICIES)
    daemon = start(fleet.home, "--check")
    assert daemon.wait() == 0
    assert "listen    mqtts 127.0.0.1:0, lets in anybody" in daemon.lines
    assert "listen    wss 127.0.0.1:0/mqtt, lets in certificates of this fleet and users" in daemon.lines


@pytest.mark.parametrize("loop", LOOPS)
def test_a_flood_of_failures_is_counted_and_not_written(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(SETTINGS)
    daemon = start(fleet.home, loop=loop)
    for _ in range(200):
        wire = dial(daemon.port(), source="127.4.0.1")
        wire.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert wire.closed()
        wire.close()
    daemon.stop()
    assert len([line for line in daemon.lines if "handshake failed address=127.4.0.1" in line]) == 5
    daemon.line('more of the same left out what="handshake failed" who=127.4.0.1 lines=195')


@pytest.mark.parametrize("loop", LOOPS)
def test_plaintext_without_anonymous_lets_nobody_in(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    fleet.settings(SETTINGS.replace("anonymous = true", "anonymous = false"))
    daemon = start(fleet.home, loop=loop)
    for version, reason in ((4, 5), (5, 0x87)):
        wire = dial(daemon.port("mqtt"), version=version)
        assert wire.connect("anybody", username="root")[1] == reason
        assert wire.closed()


@pytest.mark.parametrize("loop", LOOPS)
def test_an_idle_tls_connection_costs_less_than_60_kib(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """In a process of its own, because one that has been busy has free memory to hide it in."""
    fleet.settings(SETTINGS + "max_connections_per_identity = 0")
    daemon = start(fleet.home, loop=loop)
    context = fleet.context(fleet.issue("peanut:operator/anna"))

    def connect(number: int) -> None:
        assert dial(daemon.port(), context, 4).connect(f"idle-{number}") == b"\x00\x00"

    for number in range(20):  # what the first ones cost, the rest will not cost again
        connect(number)
    before = rss(daemon.process.pid)
    for number in range(20, 220):
        connect(number)
    each = (rss(daemon.process.pid) - before) / 200
    print(f"{loop}: {each / 1024:.1f} KiB a connection")
    assert each < 60 * 1024


# --- the server as an object, where time must pass ---


def test_a_certificate_that_expires_while_connected_ends_the_connection(fleet: Any) -> None:
    """Otherwise a node that never goes away would keep what its certificate no longer gives."""

    async def scenario() -> None:
        clock = [now()]
        output = StringIO()
        server = Server(
            Broker(seed=b"not a secret"),
            Log(stream=output),
            asyncio.get_running_loop(),
            credentials=tls.load(fleet.home, now()),
            wall_clock=lambda: clock[0],
        )
        (address,) = await server.start([Listener(parse_address("127.0.0.1:0"))])
        try:
            leaf = fleet.issue("peanut:plant/peanut", end=now() + DAY)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", address.port, ssl=fleet.context(leaf), server_hostname="localhost"
            )
            writer.write(b"\x10\x13\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x06peanut")
            assert (await reader.readexactly(4))[3] == 0
            server.recheck()
            writer.write(b"\xc0\x00")
            await reader.readuntil(b"\xd0\x00")
            clock[0] += 2 * DAY
            server.recheck()
            assert (await reader.read())[:3:2] == b"\xe0\x87"
            writer.close()
        finally:
            await server.stop()
        assert "certificate expired who=plant/peanut" in output.getvalue()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_certificate_that_ends_soon_is_pointed_out_when_it_comes_in(
    gateway: Any, shared_fleet: Any, dial: Any
) -> None:
    end = now() + 3 * DAY
    wire = dial(gateway.port(), shared_fleet.context(shared_fleet.issue("peanut:plant/ending", end=end)))
    assert wire.connect("ending")[1] == 0
    gateway.line(rf"warn  server: connected who=plant/ending .* certificate_ends={end:%Y-%m-%d}$")


def test_what_every_connection_has_and_how_long_it_may_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_NODELAY and TCP's own probes; and a peer that is refused and does not go is cut after LINGER seconds."""
    monkeypatch.setattr("peanutd.connection.LINGER", 0.1)
    monkeypatch.setattr("peanutd.server.TICK", 0.05)

    async def scenario(connected: Callable[[Server], None]) -> None:
        server = Server(Broker(seed=b"not a secret"), Log(stream=StringIO()), asyncio.get_running_loop())
        (address,) = await server.start(
            [Listener(parse_address("127.0.0.1:0"), "tcp", Policy("none"), driver="asyncio")]
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x")
        assert await reader.readexactly(4) == b"\x20\x02\x00\x05"
        connected(server)
        assert await reader.read() == b"", "half closed by the gateway, and not by the client"
        while server.connections:
            await asyncio.sleep(0.01)
        writer.close()
        await server.stop()

    def options(server: Server) -> None:
        (connection,) = server.connections
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60

    asyncio.run(asyncio.wait_for(scenario(options), 60))


def test_an_address_that_cannot_be_had(fleet: Any) -> None:
    async def scenario(address: str) -> str:
        server = Server(Broker(seed=b"not a secret"), Log(stream=StringIO()), asyncio.get_running_loop())
        with pytest.raises(ListenError) as caught:
            await server.start([Listener(parse_address(address), "tcp", where="mqtt in [listen] of gateway.toml")])
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = asyncio.run(scenario(address))
        assert words.startswith(f"{address}: in use")
        assert "change mqtt in [listen] of gateway.toml" in words
    assert "no such address" in asyncio.run(scenario("203.0.113.1:0"))


def test_many_connections_at_once_find_room_in_the_backlog() -> None:
    assert BACKLOG >= 1000


def test_what_is_read_with_every_chunk_is_read_fast() -> None:
    """CPython keeps the attributes of an object beside it only while they are few (SHARED_KEYS_MAX_SIZE is 30)."""

    async def count() -> int:
        return len(vars(Server(Broker(seed=b"not a secret"), Log(stream=StringIO()), asyncio.get_running_loop())))

    assert asyncio.run(count()) < 30
