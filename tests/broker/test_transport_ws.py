"""MQTT over WebSocket on real sockets: MQTT 5.0 §6, RFC 6455, and what no page and no peer may do.

Each test runs on asyncio and on uvloop, most of them with TLS and without. The raw client is our own reading of the
RFC (websocket.py); paho-mqtt is the one that is not ours.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peanutd.ws import HANDSHAKE_MAX, Stream, may_connect
from tests.broker.conftest import Wire, cpu_of, packet, text, unharmed
from tests.broker.websocket import BINARY, CLOSE, CONT, PING, PONG, TEXT, Socket, frame, request

LOOPS = ("asyncio", "uvloop")
MAX_PACKET = 100_000

SETTINGS = f"""
[listen]
mqtts = ""
mqtt = "127.0.0.1:0"
handshake_timeout = 4
[access]
anonymous = true
[mqtt]
max_packet_size = {MAX_PACKET}
[[listener]]
address = "127.0.0.1:0"
transport = "ws"
certificate = "none"
anonymous = true
[[listener]]
address = "127.0.0.1:0"
transport = "wss"
origins = ["https://app.example.org"]
path = "/mqtt/v1"
"""

PATH = {"ws": "/mqtt", "wss": "/mqtt/v1"}


@pytest.fixture(scope="module", params=LOOPS)
def gateway(request: pytest.FixtureRequest, shared_fleet: Any) -> Iterator[Any]:
    shared_fleet.settings(SETTINGS)
    with unharmed(shared_fleet.home, request.param) as daemon:
        yield daemon


Knock = Callable[..., Socket]


@pytest.fixture
def knock(gateway: Any, shared_fleet: Any, dial: Any) -> Knock:
    """A connection on which nothing has been said; with TLS as the operator anna."""

    def connect(scheme: str = "ws") -> Socket:
        secure = scheme == "wss"
        context = shared_fleet.context(shared_fleet.issue("peanut:operator/anna")) if secure else None
        return Socket(dial(gateway.port(scheme), context).sock)

    return connect


@pytest.fixture
def enter(knock: Knock) -> Callable[..., Wire]:
    """A client that has shaken hands, and has sent its CONNECT unless that is None."""

    def connect(client_id: str | None, scheme: str = "ws", version: int = 4) -> Wire:
        sock = knock(scheme)
        status, headers, _ = sock.handshake(PATH[scheme])
        assert (status, headers["sec-websocket-protocol"]) == (101, "mqtt")
        wire = Wire(sock, version)  # type: ignore[arg-type]
        if client_id is not None:
            assert wire.connect(client_id)[1] == 0
        return wire

    return connect


def publish(topic: str, payload: bytes) -> bytes:
    """A PUBLISH of QoS 0 for 3.1.1."""
    body = text(topic) + payload
    size, length = len(body), b""
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | (0x80 if size else 0)])
        if not size:
            return b"\x30" + length + body


# --- who gets in ---


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("version", [4, 5])
def test_mqtt_comes_through(enter: Any, gateway: Any, scheme: str, version: int) -> None:
    """MQTT-6.0.0-1, MQTT-6.0.0-4: binary frames both ways, subprotocol mqtt."""
    client = enter(f"c{version}", scheme, version)
    assert client.subscribe("/plant/+/cmd/x") == b"\x01"
    assert client.publish("/plant/peanut/cmd/x", b"\x00\xff") == 0
    assert client.message() == ("/plant/peanut/cmd/x", b"\x00\xff", False)
    who = rf"anonymous/c{version}" if scheme == "ws" else rf"operator/anna/c{version}"
    gateway.line(rf"connected who={who} ")
    client.disconnect()
    assert client.sock.ended() == 1000
    assert {opcode for opcode, _ in client.sock.frames} == {BINARY, CLOSE}


def test_an_old_client_of_mqttv31_gets_its_name_back(knock: Any) -> None:
    status, headers, _ = knock().handshake(sec_websocket_protocol="mqttv3.1")
    assert (status, headers["sec-websocket-protocol"]) == (101, "mqttv3.1")
    status, headers, _ = knock().handshake(sec_websocket_protocol="chat, mqttv3.1, mqtt")
    assert (status, headers["sec-websocket-protocol"]) == (101, "mqtt")


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_paho_over_websocket(gateway: Any, shared_fleet: Any, scheme: str, version: int) -> None:
    import paho.mqtt.client as mqtt

    from tests.broker.conftest import Paho

    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=f"paho{version}",
        protocol=mqtt.MQTTProtocolVersion(version),
        transport="websockets",
    )
    client.ws_set_options(path=PATH[scheme], headers=_without_origin if scheme == "wss" else None)
    if scheme == "wss":
        client.tls_set_context(shared_fleet.context(shared_fleet.issue("peanut:operator/anna")))
    paho = Paho(client)
    client.connect("localhost", gateway.port(scheme))
    client.loop_start()
    try:
        assert not paho.expect("connect").is_failure
        client.subscribe("/plant/+/cmd/paho", 1)
        assert not paho.expect("subscribe")[0].is_failure
        for size in (0, 1, 125, 126, 70_000):  # each form of a frame's length
            payload = os.urandom(size)
            client.publish("/plant/peanut/cmd/paho", payload, 1)
            assert paho.expect("message").payload == payload
    finally:
        paho.stop()


def _without_origin(headers: dict[str, str]) -> dict[str, str]:
    """paho says it was a page of the gateway's own; that listener lets in those of app.example.org only."""
    return {key: value for key, value in headers.items() if key != "Origin"}


# --- frames ---


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_packet_may_span_frames_and_a_frame_may_hold_packets(enter: Any, scheme: str) -> None:
    """MQTT-6.0.0-2: the border of a frame means nothing."""
    client = enter(None, scheme)
    connect = packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text("spans"))
    for byte in connect:
        client.sock.send(BINARY, bytes([byte]))
    assert client.receive() == (0x20, b"\x00\x00")
    client.sock.send(BINARY, b"\xc0\x00" * 50)
    assert [client.receive()[0] for _ in range(50)] == [0xD0] * 50
    client.sock.send(BINARY, b"\xc0", fin=False)  # fragments of one message, with a control frame between (§5.4)
    client.sock.send(PING, b"between")
    client.sock.send(CONT, b"\x00\xc0\x00", fin=False)
    client.sock.send(CONT, b"")
    assert [client.receive()[0] for _ in range(2)] == [0xD0] * 2
    assert (PONG, b"between") in client.sock.frames
    client.sock.send(BINARY, b"")
    client.ping()


def test_every_split_of_the_stream(enter: Any) -> None:
    """Frames torn over TCP segments anywhere."""
    client = enter("torn")
    client.sock.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in frame(BINARY, b"\xc0\x00") + frame(PING, b"p") + frame(BINARY, b"\xc0\x00" * 100):
        client.sock.raw.sendall(bytes([byte]))
    assert [client.receive()[0] for _ in range(101)] == [0xD0] * 101
    assert (PONG, b"p") in client.sock.frames


def test_one_flush_is_one_frame(enter: Any) -> None:
    client = enter("flush")
    client.sock.send(BINARY, b"\xc0\x00" * 20)
    assert client.sock.frame() == (BINARY, b"\xd0\x00" * 20)


def test_a_ping_is_answered_with_its_payload(enter: Any) -> None:
    """§5.5.2; an unasked-for pong is nothing (§5.5.3)."""
    client = enter("ping")
    for payload in (b"", b"x" * 125):
        client.sock.send(PONG, payload)
        client.sock.send(PING, payload)
        assert client.sock.frame() == (PONG, payload)


def test_a_close_is_answered_with_its_code_and_the_will_is_published(enter: Any, dial: Any, gateway: Any) -> None:
    """§5.5.1. Without a DISCONNECT it is a lost connection (MQTT-3.1.2-8)."""
    watcher = dial(gateway.port("mqtt"), version=4)
    assert watcher.connect("watcher") == b"\x00\x00"
    watcher.subscribe("wills")
    client = enter(None)
    client.connect("mortal", will=("wills", b"gone"))
    client.sock.send(CLOSE, struct.pack(">H", 1001) + b"bye")
    assert client.sock.ended() == 1001
    assert watcher.message() == ("wills", b"gone", False)
    client = enter("empty")
    client.sock.send(CLOSE)
    assert client.sock.ended() == 1005


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\x30\x03\x00\x01x"), 1003),  # MQTT-6.0.0-1
        (frame(BINARY, b"\xc0\x00", mask=None), 1002),  # §5.1: a client masks
        (frame(CONT, b"\xc0\x00"), 1002),  # nothing to continue
        (frame(BINARY, b"\xc0", fin=False) + frame(BINARY, b"\x00"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(3, b""), 1002),  # reserved opcode
        (b"\xc2" + frame(BINARY, b"\xc0\x00")[1:], 1002),  # RSV1: compressed, though nobody agreed on it
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, struct.pack(">H", 1005)), 1002),
        (frame(CLOSE, struct.pack(">H", 1000) + b"\xff"), 1007),
        (frame(BINARY, b"")[:1] + b"\xff" + struct.pack(">Q", 1 << 62), 1009),
        (frame(BINARY, b"")[:1] + b"\xff" + struct.pack(">Q", MAX_PACKET + 6), 1009),
    ],
    ids=lambda value: value.hex()[:24] if isinstance(value, bytes) else str(value),
)
def test_wrong_frames_end_the_connection_with_their_code(
    enter: Any, gateway: Any, dial: Any, scheme: str, data: bytes, code: int
) -> None:
    client = enter("wrong", scheme)
    client.sock.raw.sendall(data + frame(BINARY, b"\xc0\x00"))
    assert client.sock.ended() == code
    assert not [payload for opcode, payload in client.sock.frames if payload == b"\xd0\x00"], "nothing more was read"
    gateway.line(rf"connection ended address={client.source}:\d+ why=\"WebSocket: ")
    gateway.line(r"disconnected who=\S+/wrong .*code=0x80")


def test_a_frame_as_large_as_the_largest_packet_fits(enter: Any) -> None:
    client = enter("large")
    assert client.subscribe("large") == b"\x01"
    payload = os.urandom(MAX_PACKET - 20)
    whole = publish("large", payload)
    assert len(whole) <= MAX_PACKET
    client.sock.send(BINARY, whole + b"\xc0\x00" * ((MAX_PACKET + 5 - len(whole)) // 2))
    assert client.message() == ("large", payload, False)
    client.ping()


@pytest.mark.parametrize(("data", "code"), [(b"\x00\x00", 1002), (b"\x30\xff\xff\xff\x7f", 1009), (b"\xe0\x00", 1000)])
def test_the_end_of_mqtt_has_a_close_code(enter: Any, data: bytes, code: int) -> None:
    client = enter("ends")
    client.sock.sendall(data)
    assert client.sock.ended() == code


def test_a_refusal_is_seen_before_the_close(enter: Any, gateway: Any) -> None:
    client = enter(None, "wss", 5)
    assert client.connect("x", username="root")[1] == 0x86
    assert client.sock.ended() == 1008


@pytest.mark.parametrize("loop", LOOPS)
def test_when_the_gateway_stops_everybody_is_told(fleet: Any, start: Any, dial: Any, loop: str) -> None:
    """In MQTT (0x8B) and in WebSocket (1001); who is in the middle of a handshake is dropped."""
    fleet.settings(SETTINGS)
    daemon = start(fleet.home, loop=loop)
    sock, knocking = Socket(dial(daemon.port("ws")).sock), dial(daemon.port("ws"))
    knocking.sock.sendall(request()[:20])
    assert sock.handshake()[0] == 101
    wire = Wire(sock, 5)  # type: ignore[arg-type]
    assert wire.connect("x")[1] == 0
    daemon.signal(signal.SIGTERM)
    first, body = wire.receive()
    assert (first, body[0]) == (0xE0, 0x8B)
    assert sock.ended() == 1001
    assert knocking.closed()
    sock.close()
    assert daemon.wait() == 0


# --- the handshake ---


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"path": "/"}, 404, "nothing is served at /; MQTT is at /mqtt"),
        ({"path": "/mqtt/"}, 404, "nothing is served"),
        ({"upgrade": None, "connection": None}, 426, "connect an MQTT client, with subprotocol mqtt"),
        ({"upgrade": "h2c"}, 426, "no WebSocket handshake"),
        ({"sec_websocket_protocol": None}, 400, "missing subprotocol"),
        ({"sec_websocket_protocol": "chat"}, 400, "expected one of mqtt"),
        ({"sec_websocket_version": "8"}, 400, "Sec-WebSocket-Version"),
        ({"sec_websocket_key": None}, 400, "Sec-WebSocket-Key"),
        ({"sec_websocket_key": "short"}, 400, "Sec-WebSocket-Key"),
        ({"host": None}, 400, "no Host"),
        ({"origin": "https://evil.example"}, 403, "may not connect"),
        ({"origin": "null"}, 403, "may not connect"),
        ({"origin": "http://[", "host": "["}, 403, "may not connect"),
    ],
    ids=str,
)
def test_a_handshake_that_is_none(
    knock: Any, gateway: Any, change: dict[str, str | None], status: int, words: str
) -> None:
    """MQTT-6.0.0-3 among them: who does not offer mqtt is refused."""
    sock = knock()
    got, headers, body = sock.handshake(**change)
    assert got == status
    assert words in body.decode()
    assert headers["connection"] == ("close, Upgrade" if status == 426 else "close")
    assert headers.get("upgrade") == ("websocket" if status == 426 else None)
    assert len(body) < 300
    assert sock.ended() is None
    gateway.line(rf"handshake failed address={sock.raw.getsockname()[0]}:\d+ why=\"WebSocket: ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /mqtt HTTP/1.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /mqtt HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /mqtt HTTP/1.1\r\n" + b"X: " + b"y" * 9000 + b"\r\n\r\n", 431),
        (b"GET /mqtt HTTP/1.1\r\n" + b"x" * HANDSHAKE_MAX, 431),
        (packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text("x")), 400),
        (b"\x16\x03\x01\x00\x05hello", 400),
        (b"\x00" * 100, 400),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_requests_that_are_none_get_an_answer(knock: Any, gateway: Any, data: bytes, status: int) -> None:
    sock = knock()
    sock.raw.sendall(data)
    assert sock.answer()[0] == status
    assert sock.ended() is None
    gateway.line(rf"handshake failed address={sock.raw.getsockname()[0]}:\d+ why=\"WebSocket: ")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /mqtt HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_closed(knock: Any, gateway: Any, data: bytes) -> None:
    sock = knock()
    sock.raw.sendall(data)
    assert sock.ended() is None
    gateway.line(rf"handshake failed address={sock.raw.getsockname()[0]}:\d+ why=\"WebSocket: ")


def test_two_origins_or_hosts_are_none(knock: Any) -> None:
    for name in ("Host", "Origin"):
        sock = knock()
        sock.raw.sendall(request(origin="http://localhost")[:-2] + f"{name}: localhost\r\n\r\n".encode())
        assert sock.answer()[0] == 400


def test_a_handshake_byte_by_byte_with_mqtt_behind_it(knock: Any) -> None:
    """And what comes with it is not lost, though no client may send it before the answer (§4.1)."""
    sock = knock()
    sock.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request()[:-1]:
        sock.raw.sendall(bytes([byte]))
    connect = packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text("eager"))
    sock.raw.sendall(b"\n" + frame(PING, b"hi") + frame(BINARY, connect))
    assert sock.answer()[0] == 101
    assert sock.frame() == (PONG, b"hi")
    assert sock.frame() == (BINARY, b"\x20\x02\x00\x00")


def test_no_compression_even_if_it_is_asked_for(knock: Any) -> None:
    status, headers, _ = knock().handshake(sec_websocket_extensions="permessage-deflate; client_max_window_bits")
    assert status == 101
    assert "sec-websocket-extensions" not in headers


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("data", [b"", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n"])
def test_a_handshake_that_does_not_go_on_is_cut(knock: Any, gateway: Any, scheme: str, data: bytes) -> None:
    """[listen] handshake_timeout counts from the TCP connection on."""
    begin = time.monotonic()
    sock = knock(scheme)
    sock.raw.sendall(data)
    assert sock.ended() is None
    assert time.monotonic() - begin < 60
    gateway.line(rf'handshake failed address={sock.raw.getsockname()[0]}:\d+ why="not finished in 4 s"')


# --- which pages may connect ---


def test_pages(knock: Any) -> None:
    """Without `origins`, pages of the host that is connected to; with them, only those."""
    assert knock().handshake(origin="http://localhost:8080")[0] == 101
    assert knock().handshake(host="127.0.0.1:1", origin="http://127.0.0.1")[0] == 101
    assert knock().handshake(host="evil.example", origin="http://evil.example")[0] == 403, "DNS rebinding"
    assert knock("wss").handshake(PATH["wss"], origin="https://app.example.org")[0] == 101
    assert knock("wss").handshake(PATH["wss"], origin="https://localhost")[0] == 403


@pytest.mark.parametrize(
    ("origin", "host", "origins", "trusting", "may"),
    [
        ("https://gateway.local", "gateway.local:8443", (), False, True),
        ("https://GATEWAY.local:1", "gateway.LOCAL", (), False, True),
        ("https://[::1]:1", "[::1]:2", (), True, True),
        ("https://gateway.local.evil.example", "gateway.local", (), False, False),
        ("https://gateway.local@evil.example", "gateway.local", (), False, False),
        ("null", "gateway.local", (), False, False),
        ("", "", (), False, False),
        ("file://", "gateway.local", (), False, False),
        ("https://gateway.local", "gateway.local", (), True, False),
        ("https://app.example", "gateway.local", ("https://APP.example",), False, True),
        ("https://app.example:444", "gateway.local", ("https://app.example",), False, False),
        ("http://app.example", "gateway.local", ("https://app.example",), False, False),
        ("https://gateway.local", "gateway.local", ("https://app.example",), False, False),
        ("null", "gateway.local", ("*",), False, True),
    ],
)
def test_may_connect(origin: str, host: str, origins: tuple[str, ...], trusting: bool, may: bool) -> None:
    assert may_connect(origin, host, origins, trusting) is may


# --- what no peer can do ---

FRAMES = st.lists(
    st.builds(
        frame,
        st.sampled_from([BINARY, BINARY, CONT, PING, PONG, TEXT, CLOSE, 0xF]),
        st.one_of(st.binary(max_size=130), st.just(struct.pack(">H", 1000))),
        fin=st.booleans(),
    ),
    max_size=6,
).map(b"".join)


@given(st.one_of(st.binary(max_size=200), FRAMES), st.one_of(st.just(request()), st.binary(max_size=80)), st.data())
def test_any_bytes_in_any_split_have_one_meaning(data: bytes, head: bytes, drawn: Any) -> None:
    """Whole and torn give the same MQTT, the same answers and the same end, and nothing raises."""

    def run(pieces: list[bytes]) -> tuple[bytes, bytes, str | None]:
        stream = Stream(path="/mqtt", origins=(), trusting=True, max_packet_size=100)
        found, answers = b"", b""
        for piece in pieces:
            found += b"".join(stream.receive(piece))
            answers += stream.take()
        return found, answers.partition(b"\r\n\r\n")[2], stream.problem  # the head has the date in it

    whole = head + data
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]
    once, torn = run([whole]), run(pieces)
    if "text frame" not in (once[2] or ""):  # answers to what stands behind one are given only if it has come with it
        assert once == torn
    assert once[2] == torn[2]


def rss(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_pings_whose_pongs_nobody_reads_do_not_fill_memory(enter: Any, gateway: Any, scheme: str) -> None:
    client = enter("pinger", scheme)
    before = rss(gateway.process.pid)
    flood = frame(PING, b"x" * 125) * 500
    client.sock.settimeout(200)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        client.sock.raw.sendall(flood * 2000)  # 130 MB
    gateway.line(rf'connection cut address={client.source}:\d+ why="it reads nothing and asks for more"')
    assert rss(gateway.process.pid) - before < 16 * 1024 * 1024


def test_others_are_served_while_one_sends_nothing_but_tiny_frames(enter: Any, gateway: Any) -> None:
    """In turns: none of the floods holds the loop for longer than a fraction of a second of CPU."""
    flooder, other = enter("flooder"), enter("other")
    flood = frame(BINARY, b"") * 10_000 + frame(PONG, b"") * 10_000
    slowest = 0.0
    for _ in range(5):
        flooder.sock.raw.sendall(flood)
        begin = cpu_of(gateway.process.pid)
        other.ping()
        slowest = max(slowest, cpu_of(gateway.process.pid) - begin)
    flooder.ping()
    assert slowest < 1.0


def test_unfinished_messages_cost_no_more_than_a_packet(enter: Any, gateway: Any) -> None:
    """A message without an end is a stream like any other; a frame is held until it is whole, and bounded."""
    client = enter("endless")
    before = rss(gateway.process.pid)
    client.sock.send(BINARY, b"\xc0\x00" * 100, fin=False)
    for _ in range(300):
        client.sock.send(CONT, b"\xc0\x00" * 5000, fin=False)
        while client.sock.frame()[1].count(b"\xd0") == 0:
            pass
    assert rss(gateway.process.pid) - before < 8 * 1024 * 1024
