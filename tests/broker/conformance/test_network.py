"""What shows on a network only: chapters 4.2, 4.13, 7 and the ends of connections, with a real gateway on real sockets.

WebSocket (chapter 6) is in test_transport_ws.py, TLS and time in test_server.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.broker.conftest import text

SETTINGS = """
[listen]
mqtts = "127.0.0.1:0"
mqtt = "127.0.0.1:0"
[access]
anonymous = true
"""


@pytest.fixture(scope="module")
def gateway(shared_fleet: Any, daemon_class: Any) -> Iterator[Any]:
    shared_fleet.settings(SETTINGS)
    daemon = daemon_class(shared_fleet.home)
    try:
        yield daemon
    finally:
        daemon.stop()
    assert daemon.process.returncode == 0


def at_end(wire: Any) -> bool:
    """Whether the gateway closes the connection, and says nothing more before."""
    try:
        wire.receive()
    except (EOFError, ConnectionError):
        return True
    return False


@pytest.mark.parametrize("version", [4, 5])
def test_a_plain_client_needs_nothing_of_ours(gateway: Any, dial: Any, version: int) -> None:
    """MQTT-4.2.0-1; 3.1.1 MQTT-7.0.0-2, MQTT-7.1.1-1: over TCP, with what the standard says and no more: QoS 0, 1 and
    2, retained, in order and whole."""
    none = b"\0" if version == 5 else b""
    wire = dial(gateway.port("mqtt"), version=version)
    assert wire.connect(f"plain-{version}")[:2] == b"\0\0"
    topic = f"plain/{version}"
    wire.send(0x82, b"\0\1" + none + text(topic) + b"\2")
    assert wire.await_type(9)[-1] == 2
    large = bytes(range(256)) * 60
    for number in range(1, 31):
        qos = number % 3
        body = text(topic) + (struct.pack(">H", number) if qos else b"") + none + b"%d:" % number + large
        wire.send(0x30 | qos << 1, body)
    got: list[int] = []
    while len(got) < 30:
        first, body = wire.receive()
        if first >> 4 == 3:
            qos = first >> 1 & 3
            rest = body[2 + len(topic) :]
            if qos:
                wire.send(0x40 if qos == 1 else 0x50, rest[:2])
                rest = rest[2:]
            rest = rest[len(none) :]
            number = int(rest.partition(b":")[0])
            assert qos == number % 3
            assert rest == b"%d:" % number + large
            got.append(number)
        elif first >> 4 == 5:
            wire.send(0x62, body[:2])
        elif first >> 4 == 6:
            wire.send(0x70, body[:2])
    for qos in (0, 1, 2):
        assert [number for number in got if number % 3 == qos] == [n for n in range(1, 31) if n % 3 == qos]
    wire.ping()
    wire.disconnect()
    assert wire.closed()


@pytest.mark.parametrize("version", [4, 5])
def test_an_empty_client_identifier(gateway: Any, dial: Any, version: int) -> None:
    """MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16; 3.1.1 MQTT-3.1.3-6, MQTT-3.1.3-8: each gets one of its own, told to
    5.0 clients, and they do not push each other out; before 5.0 only with a clean session, else return code 2."""
    wires = [dial(gateway.port("mqtt"), version=version) for _ in range(5)]
    answers = [wire.connect("") for wire in wires]
    assert all(answer[:2] == b"\0\0" for answer in answers)
    for wire in wires:
        wire.ping()
    if version == 5:
        names = set()
        for answer in answers:
            at = answer.index(b"\x12", 3)
            (size,) = struct.unpack(">H", answer[at + 1 : at + 3])
            names.add(answer[at + 3 : at + 3 + size].decode())
        assert len(names) == 5
        assert all(names)
    wire = dial(gateway.port("mqtt"), version=version)
    answer = wire.connect("", clean=False)
    if version == 5:
        assert answer[:2] == b"\0\0"
    else:
        assert answer == b"\0\2"
        assert at_end(wire)


def test_a_method_that_is_not_supported(gateway: Any, shared_fleet: Any, dial: Any) -> None:
    """MQTT-4.12.0-1: CONNACK 0x8C or 0x87, then closed; on both listeners."""
    for port, context in (
        (gateway.port("mqtt"), None),
        (gateway.port(), shared_fleet.context(shared_fleet.issue("peanut:operator/anna"))),
    ):
        wire = dial(port, context)
        answer = wire.connect("x", method="NO-SUCH-METHOD")
        assert answer[0] == 0
        assert answer[1] in (0x8C, 0x87)
        assert at_end(wire)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("wrong", ["10 00", "00 00", "D0 00", "82 02 00 01", "36 00"])
def test_the_end_after_a_disconnect(gateway: Any, dial: Any, version: int, wrong: str) -> None:
    """MQTT-3.14.4-1, MQTT-3.14.4-2, MQTT-4.13.2-1; 3.1.1 MQTT-4.8.0-1: the gateway's DISCONNECT (5.0) is its last
    word, and the connection is closed; after the client's own there is none (3.1.1 MQTT-3.14.4-1)."""
    wire = dial(gateway.port("mqtt"), version=version)
    assert wire.connect(f"ends-{version}")[:2] == b"\0\0"
    wire.sock.sendall(b"\xc0\0" + bytes.fromhex(wrong) + b"\xc0\0" * 10)
    assert wire.receive() == (0xD0, b"")
    if version == 5:
        first, body = wire.receive()
        assert first == 0xE0
        assert body[0] in (0x81, 0x82)
    assert at_end(wire)
    polite = dial(gateway.port("mqtt"), version=version)
    polite.connect(f"polite-{version}")
    polite.disconnect()
    assert at_end(polite)
