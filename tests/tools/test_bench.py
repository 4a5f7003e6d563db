"""Proves that the benchmark sees what it claims to see: every wrong message is counted, every broken broker named.

The rule it keeps: a check that has never failed proves nothing, so a small broker that loses, doubles, swaps and spoils
messages on purpose stands in front of the generator, which is built with address and undefined-behaviour sanitizers.
"""

import asyncio
import json
import os
import shutil
import struct
import subprocess
import tomllib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import topic_matches_sub

from tools.bench import codec, plot, report, rows
from tools.bench.brokers import Broker, BrokerError, Credentials, Mosquitto, Peanutd, workplace
from tools.bench.generator import (
    SOURCES,
    TIMES,
    Case,
    Generator,
    GeneratorError,
    Load,
    build,
    compile_c,
    faults,
    run,
)

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MESSAGES = 60

needs_mosquitto = pytest.mark.skipif(  # in CI, which installs it, the tests run and fail
    Mosquitto.missing() is not None and not os.environ.get("CI"),
    reason="mosquitto is not installed: sudo apt-get install mosquitto",
)


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    program = tmp_path_factory.mktemp("load") / "load"
    assert compile_c(SOURCES, program, "-DWITH_TLS=1", *SANITIZERS, "-lssl", "-lcrypto") is None
    return Generator(program, tls=True)


# --- A broker that misbehaves ---------------------------------------------------------------------------------------


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        length += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            return bytes([first]) + length + body


async def _read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, size, shift = (await reader.readexactly(1))[0], 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return first, await reader.readexactly(size)


@dataclass
class Liar:
    """A broker of QoS 0 and 1 without topics: all is for all. `deliver` may change what the n-th message becomes.

    What is retained goes to nobody but new subscribers, with QoS 0. It remembers the filters and the topics.
    """

    deliver: Callable[[int, bytes], list[bytes]] = lambda _number, packet: [packet]
    connack: bytes = b"\x20\x02\x00\x00"
    granted: Callable[[int], int] = lambda qos: qos
    puback: Callable[[bytes], bytes] = lambda packet_id: b"\x40\x02" + packet_id
    count: int = 0
    audience: list[asyncio.StreamWriter] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)

    def _subscribe(self, body: bytes) -> bytes:
        codes, rest = b"", body[2:]
        while rest:
            end = 2 + int.from_bytes(rest[:2])
            self.filters.append(rest[2:end].decode())
            codes += bytes([self.granted(rest[end])])
            rest = rest[end + 1 :]
        return _packet(0x90, body[:2] + codes)

    def _deliver(self, packet: bytes, audience: list[asyncio.StreamWriter]) -> None:
        for wire in self.deliver(self.count, packet):
            for each in audience:
                each.write(wire)
        self.count += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, body = await _read_packet(reader)
                kind = first >> 4
                if kind == 1:
                    writer.write(self.connack)
                elif kind == 8:
                    if writer not in self.audience:
                        self.audience.append(writer)
                    writer.write(self._subscribe(body))
                    for packet in self.kept:
                        self._deliver(packet, [writer])
                elif kind == 3:
                    topic = 2 + int.from_bytes(body[:2])
                    self.topics.append(body[2:topic].decode())
                    if first & 6:
                        writer.write(self.puback(body[topic : topic + 2]))
                    if first & 1:
                        self.kept.append(_packet(0x31, body[:topic] + body[topic + 2 :]))
                    else:
                        self._deliver(_packet(first, body), self.audience)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _drive(generator: Generator, liar: Liar, **options: object) -> tuple[int, dict[str, Any], str]:
    """Runs the generator against the liar: exit status, figures, what it said."""

    async def both() -> tuple[int, bytes, bytes]:
        server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
        given = {
            "port": server.sockets[0].getsockname()[1],
            "publishers": 3,
            "subscribers": 3,
            "messages": MESSAGES,
            "deadline": 20,
            "stall": 1,
        } | options
        command = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        process = await asyncio.create_subprocess_exec(
            str(generator.program), *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        server.close()
        assert process.returncode is not None
        return process.returncode, out, err

    status, out, err = asyncio.run(both())
    return status, json.loads(out) if out else {}, err.decode()


def _wrong(figures: dict[str, Any]) -> dict[str, int]:
    return {kind: figures[kind] for kind in ("lost", "duplicated", "reordered", "damaged") if figures[kind]}


@pytest.mark.parametrize("scenario", ["fan-in", "broadcast"])
@pytest.mark.parametrize("qos", [0, 1])
def test_an_honest_broker_gets_no_complaint(generator: Generator, scenario: str, qos: int) -> None:
    status, figures, said = _drive(generator, Liar(), scenario=scenario, qos=qos)
    assert (status, said) == (0, "")
    assert figures["delivered"] == MESSAGES
    assert faults(figures) == []
    assert 0 < figures["latency_us"]["p50"] <= figures["latency_us"]["p99"] <= figures["latency_us"]["max"]


def test_a_fan_out_is_of_every_publisher_to_every_subscriber(generator: Generator) -> None:
    """Three of each, one topic: nine deliveries for three messages."""
    liar = Liar()
    status, figures, said = _drive(generator, liar, scenario="fan-out", qos=1, messages=90)
    assert (status, said) == (0, "")
    assert (figures["delivered"], figures["sent"], faults(figures)) == (90, 30, [])
    assert (figures["publishers"], figures["subscribers"]) == (3, 3)
    assert len(set(liar.topics)) == len(set(liar.filters)) == 1


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        pytest.param(lambda _: [], {"lost": 3}, id="lost"),
        pytest.param(lambda packet: [packet, packet], {"duplicated": 3}, id="doubled"),
    ],
)
def test_a_fan_out_counts_what_is_wrong_for_each_subscriber(
    generator: Generator, spoil: Callable[[bytes], list[bytes]], wrong: dict[str, int]
) -> None:
    liar = Liar(lambda n, packet: spoil(packet) if n == 20 else [packet])
    _, figures, _ = _drive(generator, liar, scenario="fan-out", messages=90)
    assert _wrong(figures) == wrong


@pytest.mark.parametrize("payload", [24, 65536])
def test_packets_of_every_size_come_in_pieces(generator: Generator, payload: int) -> None:
    status, figures, said = _drive(generator, Liar(), payload=payload, qos=1, scenario="broadcast", window=1024)
    assert (status, said) == (0, "")
    assert (figures["delivered"], faults(figures)) == (MESSAGES, [])


def test_a_sparse_publisher_keeps_to_its_rate(generator: Generator) -> None:
    """20 messages a second: the last of 12 is due 0.55 s later, however fast the broker is; none is lost."""
    status, figures, said = _drive(generator, Liar(), scenario="sparse", publishers=1, rate=20, messages=12, seconds=10)
    assert (status, said) == (0, "")
    assert (figures["delivered"], faults(figures)) == (12, [])
    assert figures["seconds"] > 11 / 20


def test_a_sparse_run_ends_in_time(generator: Generator) -> None:
    """A message a second of which 100 are asked for in one second: what is not yet due is not sent, and is no loss."""
    _, figures, _ = _drive(generator, Liar(), scenario="sparse", publishers=1, rate=10, messages=100, seconds=1)
    assert 0 < figures["delivered"] < 20
    assert faults(figures) == []


def test_a_lost_message_is_counted(generator: Generator) -> None:
    status, figures, _ = _drive(generator, Liar(lambda n, packet: [] if n == 30 else [packet]))
    assert status == 0
    assert _wrong(figures) == {"lost": 1}
    assert faults(figures) == ["1 lost", "1 unacknowledged"]


def test_a_doubled_message_is_counted(generator: Generator) -> None:
    _, figures, _ = _drive(generator, Liar(lambda n, packet: [packet, packet] if n in (20, 40) else [packet]))
    assert _wrong(figures) == {"duplicated": 2}
    assert figures["delivered"] == MESSAGES


def test_a_message_doubled_long_after_is_counted(generator: Generator) -> None:
    first: list[bytes] = []

    def deliver(number: int, packet: bytes) -> list[bytes]:
        first.append(packet)
        return [packet, first[0]] if number in (250, 1100) else [packet]

    _, figures, _ = _drive(generator, Liar(deliver), publishers=1, messages=1200, window=64)
    assert _wrong(figures) == {"duplicated": 2}


@pytest.mark.parametrize(("window", "behind"), [(4, 1), (4, 3), (1024, 1023)])
def test_a_late_message_is_counted(generator: Generator, window: int, behind: int) -> None:
    """It comes `behind` messages late: the most that a window lets pass."""
    held: list[bytes] = []

    def deliver(number: int, packet: bytes) -> list[bytes]:
        if number == 400:  # warming up takes 301
            held.append(packet)
            return []
        return [packet, *held] if number == 400 + behind else [packet]

    _, figures, _ = _drive(generator, Liar(deliver), publishers=1, messages=3000, window=window)
    assert _wrong(figures) == {"reordered": 1}
    assert figures["delivered"] == 3000


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda packet: packet[:-1] + bytes([packet[-1] ^ 1]), id="last byte of the payload"),
        pytest.param(lambda packet: packet.replace(b"bench", b"Bench"), id="topic"),
        pytest.param(lambda packet: _packet(packet[0], packet[2:-1]), id="a byte short"),
        pytest.param(lambda packet: packet[:-64] + bytes(64), id="zeros"),
        pytest.param(lambda packet: bytes([packet[0] | 1]) + packet[1:], id="as if retained"),
        pytest.param(lambda packet: _packet(packet[0] | 2, packet[2:-64] + b"\0\1" + packet[-64:]), id="QoS"),
    ],
)
def test_a_damaged_message_is_counted(generator: Generator, spoil: Callable[[bytes], bytes]) -> None:
    _, figures, _ = _drive(generator, Liar(lambda n, packet: [spoil(packet), packet] if n == 30 else [packet]))
    assert _wrong(figures) == {"damaged": 1}


def test_a_message_that_was_never_sent_is_damage(generator: Generator) -> None:
    ahead = (10**6).to_bytes(8, "little")  # its sequence number
    _, figures, _ = _drive(
        generator, Liar(lambda n, packet: [packet[:-56] + ahead + packet[-48:], packet] if n == 30 else [packet])
    )
    assert _wrong(figures) == {"damaged": 1}


WILDCARD: dict[str, object] = {"scenario": "wildcard", "publishers": 1, "filters": 45}
RETAINED: dict[str, object] = {"scenario": "retained", "retained": 30}  # one subscriber warms up, two are measured


def test_a_wildcard_topic_matches_one_filter(generator: Generator) -> None:
    """One of all, and every filter has its turn. paho says what matches."""
    liar = Liar()
    status, figures, said = _drive(generator, liar, **WILDCARD)
    assert (status, said) == (0, "")
    assert (figures["delivered"], faults(figures)) == (MESSAGES, [])
    assert figures["filters"]["count"] == len(set(liar.filters)) == len(liar.filters) == 45
    assert all("+" in each or "#" in each for each in liar.filters)
    matched = {topic: [each for each in liar.filters if topic_matches_sub(each, topic)] for topic in liar.topics}
    assert all(len(filters) == 1 for filters in matched.values())
    assert {filters[0] for filters in matched.values()} == set(liar.filters)


def test_a_message_for_the_filter_of_another_is_damage(generator: Generator) -> None:
    """All is for all here: each of two subscribers gets what matches the other's filters."""
    _, figures, _ = _drive(generator, Liar(), **WILDCARD | {"publishers": 2})
    assert figures["delivered"] == MESSAGES
    wrong = _wrong(figures)
    assert wrong.keys() == {"damaged"}
    # Every one that counts, and of the warming up (a tenth and one, of each) what has arrived when the count begins.
    assert MESSAGES <= wrong["damaged"] <= MESSAGES + 8


def test_what_is_retained_comes_whole(generator: Generator) -> None:
    liar = Liar()
    status, figures, said = _drive(generator, liar, **RETAINED)
    assert (status, said) == (0, "")
    assert (figures["delivered"], faults(figures)) == (60, [])
    assert (figures["retained"]["count"], figures["retained"]["subscribers"]) == (30, 2)
    assert len(set(liar.topics)) == len(liar.kept) == 30
    assert figures["retained"]["all_ms"] > 0


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        pytest.param(lambda _: [], {"lost": 1}, id="lost"),
        pytest.param(lambda packet: [packet, packet], {"duplicated": 1}, id="doubled"),
        pytest.param(lambda packet: [b"\x30" + packet[1:], packet], {"damaged": 1}, id="not marked as retained"),
        pytest.param(lambda packet: [packet.replace(b"/n0", b"/n9", 1), packet], {"damaged": 1}, id="topic"),
    ],
)
def test_what_is_wrong_with_a_retained_message_is_counted(
    generator: Generator, spoil: Callable[[bytes], list[bytes]], wrong: dict[str, int]
) -> None:
    _, figures, _ = _drive(generator, Liar(lambda n, packet: spoil(packet) if n == 40 else [packet]), **RETAINED)
    assert _wrong(figures) == wrong
    assert figures["unacknowledged"] == wrong.get("lost", 0)


@pytest.mark.parametrize(
    ("liar", "options", "words"),
    [
        pytest.param(Liar(connack=b"\x20\x02\x00\x05"), {}, "CONNACK return code 5", id="refused"),
        pytest.param(Liar(connack=b""), {}, "without an answer", id="silent"),
        pytest.param(Liar(granted=lambda _: 0x80), {}, "with 0x80, not with QoS 0", id="no subscription"),
        pytest.param(
            Liar(granted=lambda _: 0x80), WILDCARD, "filter 0 of subscriber 0 with 0x80", id="no wildcard subscription"
        ),
        pytest.param(Liar(lambda _n, _p: [b"\x30\xff\xff\xff\xff\x01"]), {}, "more than four bytes", id="length"),
        pytest.param(Liar(lambda _n, _p: [b"\x30\xff\xff\x7f"]), {}, "at most", id="too large"),
        pytest.param(Liar(lambda _n, _p: [b"\x30\x02\x00\x05"]), {}, "malformed PUBLISH", id="topic beyond the end"),
        pytest.param(Liar(lambda _n, _p: [b"\x30\x00"]), {}, "malformed PUBLISH", id="empty PUBLISH"),
        pytest.param(Liar(lambda _n, _p: [b"\x32\x03\x00\x01t"]), {}, "malformed PUBLISH", id="no packet id"),
        pytest.param(Liar(lambda _n, _p: [b"\xf0\x00"]), {}, "packet of type 15", id="type"),
        pytest.param(Liar(lambda _n, _p: [b"\x62\x02\x00\x01"]), {}, "PUBREL that was not due", id="stray PUBREL"),
        pytest.param(Liar(puback=lambda _: b"\x40\x02\x00\x40"), {"qos": 1}, "which it never sent", id="packet id"),
        pytest.param(
            Liar(puback=lambda i: 2 * (b"\x40\x02" + i)), {"qos": 1, "window": 1}, "not due", id="PUBACK twice"
        ),
        pytest.param(Liar(puback=lambda i: b"\x70\x02" + i), {"qos": 1}, "not due", id="PUBCOMP for PUBACK"),
    ],
)
def test_a_broken_broker_is_named(generator: Generator, liar: Liar, options: dict[str, object], words: str) -> None:
    status, figures, said = _drive(generator, liar, **options)
    assert (status, figures) == (1, {})
    assert words in said
    assert "Sanitizer" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--port is missing"),
        ({"port": "70000"}, "--port must be a number from 1 to 65535"),
        ({"port": "1883", "window": "1025"}, "--window must be a number from 1 to 1024"),
        ({"port": "1883", "payload": "23"}, "--payload must be a number from 24"),
        ({"port": "1883", "scenario": "fan"}, "no such scenario"),
        ({"port": "1883", "filters": "900001"}, "--filters must be a number from 1 to 900000"),
        ({"port": "1883", "retained": "0"}, "--retained must be a number from 1 to 900000"),
        ({"port": "1883", "scenario": "wildcard", "ca": "x", "cert": "x", "key": "x"}, "run without TLS"),
        ({"port": "1883", "scenario": "drain", "qos": "0"}, "kept and drain need --qos 1 or 2"),
        ({"port": "1883", "ca": "x", "key": "x"}, "belong together"),
        ({"port": "1883", "cert": "x", "key": "x"}, "belong together"),
    ],
)
def test_wrong_options_are_named(generator: Generator, options: dict[str, str], words: str) -> None:
    command = [text for name, value in options.items() for text in (f"--{name}", value)]
    done = subprocess.run([generator.program, *command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr


# --- Against the real one -------------------------------------------------------------------------------------------


@needs_mosquitto
@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_every_scenario_runs_against_mosquitto(generator: Generator, transport: str) -> None:
    load = Load(messages=400, clients=4, idle_clients=20, storm=10)
    with workplace("mosquitto") as broker, broker.running(transport, None) as endpoint:
        for scenario in ("fan-in", "fan-out", "broadcast", "pairs"):
            for qos in (0, 1, 2):
                figures = run(generator, endpoint, Case(scenario, qos, transport), load, None)
                expected = 400 * TIMES.get(scenario, 1)
                assert (figures["delivered"], faults(figures)) == (expected, []), (scenario, qos)
                assert (figures["tls"] or "").startswith("TLSv1.3" if transport == "tls" else "")
                assert figures["broker"]["cpu_us"] > 0
                assert figures["broker"]["rss_end"] > 1024 * 1024
        for scenario, counted in (("idle", 20), ("storm", 10)):
            figures = run(generator, endpoint, Case(scenario, 0, transport), load, None)
            assert (figures["connections"], figures["counted"]) == (counted + counted // 10, counted)
            assert figures["broker"]["connect_us"] > 0
            assert 0 <= figures["generator"]["connect_waiting"] <= 1


@needs_mosquitto
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_crowds_run_against_mosquitto(generator: Generator, qos: int) -> None:
    load = Load(messages=400, clients=8, filters=1001, retained=50)  # both are rounded up to as many for each client
    with workplace("mosquitto") as broker, broker.running("plain", None) as endpoint:
        figures = run(generator, endpoint, Case("wildcard", qos, "plain"), load, None)
        assert (figures["delivered"], faults(figures), figures["filters"]["count"]) == (400, [], 1004)
        assert figures["filters"]["subscribe_us"] > 0
        assert figures["broker"]["cpu_us"] > 0
        figures = run(generator, endpoint, Case("retained", qos, "plain"), load, None)
        subscribers = 400 * TIMES["retained"] // 50
        assert (figures["delivered"], faults(figures)) == (subscribers * 52, [])
        assert (figures["retained"]["count"], figures["retained"]["subscribers"]) == (52, subscribers)


@needs_mosquitto
@pytest.mark.parametrize("qos", [1, 2])
def test_sessions_that_are_kept_run_against_mosquitto(generator: Generator, qos: int) -> None:
    load = Load(messages=400, clients=8, queue=1001)
    with workplace("mosquitto") as broker:
        with broker.running("plain", None) as endpoint:
            figures = run(generator, endpoint, Case("kept", qos, "plain"), load, None)
            assert (figures["delivered"], faults(figures)) == (400, [])
        with broker.running("plain", None) as endpoint:
            figures = run(generator, endpoint, Case("drain", qos, "plain"), load, None)
            assert (figures["delivered"], faults(figures), figures["queue"]["count"]) == (1000, [], 1000)
            assert figures["queue"]["all_ms"] > 0


@needs_mosquitto
def test_the_server_must_be_the_right_one(generator: Generator) -> None:
    with workplace("mosquitto") as broker, workplace("mosquitto") as other:
        _, foreign = other.prepare("tls", 1, "always")
        assert foreign is not None
        with broker.running("tls", None) as endpoint:
            assert endpoint.credentials is not None
            own = endpoint.credentials
            for credentials, words in (
                (
                    Credentials(foreign.ca, own.certificate, own.key),
                    "certificate is refused: certificate signature failure",
                ),
                (
                    Credentials(own.ca, own.certificate, own.key, host="impostor"),
                    "certificate is refused: hostname mismatch",
                ),
            ):
                wrong = type(endpoint)(endpoint.pid, endpoint.port, credentials)
                with pytest.raises(GeneratorError, match=words):
                    run(generator, wrong, Case("fan-in", 0, "tls"), Load(messages=10, clients=2), None)


@needs_mosquitto
def test_a_broker_that_does_not_start_shows_its_log() -> None:
    class Misconfigured(Mosquitto):
        def prepare(self, transport: str, port: int, sync: str) -> tuple[list[str], Credentials | None]:
            command, credentials = super().prepare(transport, port, sync)
            Path(command[-1]).write_text("no_such_setting 1\n")
            return command, credentials

    with workplace("mosquitto") as place:
        broker: Broker = Misconfigured(place.directory)
        with (
            pytest.raises(BrokerError, match=r"(?s)ended with status \d+ at start:.*no_such_setting"),
            broker.running("plain", None),
        ):
            pass


@needs_mosquitto
def test_a_stopped_broker_is_gone() -> None:
    with workplace("mosquitto") as broker:
        with broker.running("plain", None) as endpoint:
            assert Path(f"/proc/{endpoint.pid}").exists()
        assert not Path(f"/proc/{endpoint.pid}").exists()
    assert not broker.directory.exists()


@pytest.mark.parametrize(
    ("transport", "listen", "anonymous", "others"),
    [
        ("plain", {"mqtt": "127.0.0.1:1234", "mqtts": ""}, True, {}),
        ("tls", {"mqtt": "", "mqtts": "127.0.0.1:1234"}, False, {}),
        (
            "server-tls",
            {"mqtt": "", "mqtts": ""},
            False,
            {"listener": [{"address": "127.0.0.1:1234", "transport": "tls", "certificate": "none", "anonymous": True}]},
        ),
    ],
)
def test_peanutd_gets_one_listener(
    tmp_path: Path, transport: str, listen: dict[str, str], anonymous: bool, others: dict[str, Any]
) -> None:
    (tmp_path / "fleet").mkdir()  # as if `peanut init` had run
    command, credentials = Peanutd(tmp_path).prepare(transport, 1234, "batch")
    settings = tomllib.loads((tmp_path / "fleet" / "gateway.toml").read_text())
    limits = {"max_connections_per_identity": 0, "max_connections_per_address": 0}  # one operator, one address
    assert (
        settings
        == {
            "listen": {**listen, "https": "", "metrics": "", "driver": "native", "handshake_rate": 0, "accept_rate": 0},
            "access": {"anonymous": anonymous},
            "mqtt": {
                "max_queued_messages": 1_000_000,
                "max_queued_bytes": 1_000_000_000,
                "max_subscriptions": 1_000_000,
                "max_memory": 0,
                **limits,
            },
            "bans": {"connects": 0},
            "store": {"sync": "batch"},
        }
        | others
    )
    assert command[1:] == ["--home", str(tmp_path / "fleet")]
    assert (credentials is None) == (transport == "plain")


def test_without_tls_headers_the_plain_rows_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    real = shutil.which("gcc") or shutil.which("cc")
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *WITH_TLS=1*) echo no headers >&2; exit 1;; esac\nexec {real} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    built = build(tmp_path)
    assert not built.tls
    done = subprocess.run(
        [built.program, "--port", "1", "--ca", "x", "--cert", "x", "--key", "x"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, "install libssl-dev" in done.stderr) == (2, True)


# --- The report -----------------------------------------------------------------------------------------------------


def _figures(
    cpu: float, waiting: float = 0.5, busy: float = 1.0, others: float = 0.0, lost: int = 0, seconds: float = 1.0
) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "delivered": 100, "lost": lost, "duplicated": 0, "reordered": 0, "damaged": 0, "unacknowledged": 0,
        "per_second": 1e6 / cpu, "latency_us": {"p50": 1000.0, "p99": 2000.0, "max": 3000.0},
        "broker": {"cpu_us": cpu, "busy": busy, "kernel_share": 0.8, "rss_end": 8 * 1024 * 1024},
        "generator": {"cpu_us": 1.0, "waiting": waiting}, "machine": {"others": others, "steal": 0.0},
    }  # fmt: skip


def _row(runs: list[report.Run], broker: str) -> list[str]:
    lines = report.traffic_table(runs)
    line = next(line for line in lines if f"  {broker}" in line)
    return line.split(maxsplit=17)


CASE = Case("fan-in", 0, "plain")


def test_the_share_is_taken_inside_the_rounds() -> None:
    """The machine was three times slower in the second round; medians apart would give 8/10, or 0.8."""
    cpu = {"mosquitto": [10.0, 30.0, 9.0], "peanutd": [5.0, 15.0, 8.0]}
    runs = [report.Run(CASE, name, i, _figures(values[i])) for name, values in cpu.items() for i in range(3)]
    assert _row(runs, "mosquitto")[7:9] == ["10.0", "1.000"]
    assert _row(runs, "peanutd")[7:10] == ["8.00", "0.500", "125%"]


@pytest.mark.parametrize(
    ("figures", "remark"),
    [
        (_figures(10, waiting=0.01), "limited by the generator"),
        (_figures(10, busy=0.6), "limited by neither: both wait"),
        (_figures(10, others=0.3), "noise: others took 30% of a core"),
        (_figures(10, lost=2), "2 lost"),
        (_figures(10, seconds=0.026), "short: 26 ms, give more --messages"),
    ],
)
def test_what_spoils_a_figure_stands_beside_it(figures: dict[str, Any], remark: str) -> None:
    assert _row([report.Run(CASE, "mosquitto", 0, figures)], "mosquitto")[-1] == remark


def test_the_crowds_have_tables_of_their_own() -> None:
    wildcard, retained = Case("wildcard", 0, "plain"), Case("retained", 0, "plain")
    filters = {"mosquitto": (6.0, 1000.0), "peanutd": (3.0, 250.0)}
    runs = [
        report.Run(
            wildcard, name, 0, _figures(10) | {"filters": {"count": 100_000, "subscribe_us": cost, "bytes": size}}
        )
        for name, (cost, size) in filters.items()
    ]
    runs += [
        report.Run(retained, name, 0, _figures(cost) | {"retained": {"count": 10_000, "all_ms": 10 * cost}})
        for name, cost in (("mosquitto", 4.0), ("peanutd", 1.0))
    ]
    assert report.traffic_table(runs) == []
    row = report.wildcard_table(runs)[-1].split()
    assert row[2:9] == ["0", "peanutd", "100000", "3.00", "0.500", "250", "0.250"]
    assert report.retained_table(runs)[-1].split()[2:9] == ["0", "peanutd", "10000", "1.00", "0.250", "10.0", "0.250"]
    drain = report.Run(Case("drain", 1, "plain"), "peanutd", 0, _figures(4) | {"queue": {"count": 9, "all_ms": 8.0}})
    assert report.drain_table([drain])[-1].split()[2:9] == ["1", "peanutd", "9.00", "4.00", "-", "8.00", "-"]
    assert report.traffic_table([drain]) == []
    failed = [report.Run(retained, "mosquitto", 0, None, "it fell over")]
    assert report.retained_table(failed)[-1].endswith("1 of 1 failed: it fell over")


def test_a_goal_stands_beside_its_row() -> None:
    """Shares for traffic, the figure itself for memory, the least for the decoder; and nothing for what has no goal."""
    connected = {"connect_us": 500.0, "connect_bytes": 3072.0}
    idle = _figures(10) | {"broker": connected}
    runs = [
        report.Run(Case("fan-in"), "mosquitto", 0, _figures(10)),
        report.Run(Case("fan-in"), "peanutd", 0, _figures(1.2)),
        report.Run(Case("fan-in", window=1), "mosquitto", 0, _figures(10)),
        report.Run(Case("fan-in", window=1), "peanutd", 0, _figures(5)),
        report.Run(Case("fan-in", 1), "peanutd", 0, _figures(5)),  # without its yardstick
        report.Run(Case("idle"), "peanutd", 0, idle),
        report.Run(Case("broadcast"), "peanutd", 0, _figures(1)),
    ]
    decoded = [
        {"sample": "mix", "codec": codec_name, "stream_ns": ns} for codec_name, ns in (("core", 10), ("mqtt5", 25))
    ]
    goals = report.goals(runs, decoded)
    said = [line.split() for line in report.goals_table(goals)[2:]]
    assert [(line[3], line[-3:]) for line in said] == [
        ("1", ["0.500", "0.37", "missed"]),
        ("4", ["0.120", "0.13", "reached"]),
        ("4", ["us/message", "-", "0.11"]),
        ("-", ["3.00", "1", "missed"]),
        ("mqtt5", ["0.4000", "0.333", "missed"]),
    ]
    parts = [(bar.label, round(bar.part, 2)) for bar in report.bars(goals)]
    assert parts[0] == ("plain fan-in QoS 0, 1 in flight", 1.35)
    assert len(parts) == 4  # what has no share has no bar


def test_of_more_than_two_brokers_each_has_a_column() -> None:
    """What lost a message or did not run has no figure there; the other tables say why."""
    idle = _figures(10) | {"broker": {"connect_us": 500.0, "connect_bytes": 3072.0}}
    runs = [report.Run(CASE, name, 0, _figures(cpu)) for name, cpu in (("mosquitto", 10), ("peanutd", 1.2))]
    assert report.brokers_table(runs) == []
    runs += [
        report.Run(CASE, "amqtt", 0, _figures(200, lost=1)),
        report.Run(CASE, "nats", 0, None, "it fell over"),
        report.Run(Case("idle"), "nats", 0, idle),
        report.Run(Case("broadcast"), "nats", 0, _figures(1)),  # without a goal
    ]
    said = [line.split() for line in report.brokers_table(runs)]
    assert said[0][-5:] == ["mosquitto", "peanutd", "amqtt", "nats", "unit"]
    assert [(line[1], line[-5:-1]) for line in said[2:]] == [
        ("fan-in", ["10.0", "1.20", "-", "-"]),
        ("memory,", ["-", "-", "-", "3.00"]),
    ]


def test_the_picture_is_a_png_with_a_bar_a_row() -> None:
    data = plot.draw("title: 0.5 (goal)", [plot.Bar("a row", 0.5, "0.1 (goal 0.2)"), plot.Bar("one", 9.0, "much")])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    at, pixels = 8, b""
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert int.from_bytes(data[at + 8 + size : at + 12 + size]) == zlib.crc32(kind + body)
        pixels += body if kind == b"IDAT" else b""
        at += 12 + size
    rows = zlib.decompress(pixels)
    assert len(rows) == height * (width + 1)
    longest = {colour: max(row.count(colour) for row in rows.split(b"\0")) for colour in (plot.GREEN, plot.RED)}
    assert longest == {
        plot.GREEN: plot.FULL // 2,
        plot.RED: round(plot.FULL * plot.MOST) - plot.DOT,
    }  # but for the line


def test_every_letter_of_the_rows_can_be_drawn() -> None:
    words = "".join(f"{row.name} {row.case} {row.figure.unit}" for row in rows.ROWS) + "(goal 0.123) in flight QoS, B"
    assert set(words) - set(plot.GLYPHS) - {" "} == set()
    assert {len(dots) for dots in plot.GLYPHS.values()} == {7}


def test_every_row_runs_once_and_those_without_a_goal_only_when_asked_for() -> None:
    usual = rows.cases(None, ["plain", "tls", "server-tls"])
    assert len(usual) == len(set(usual))
    assert {row.case for row in rows.ROWS if row.most is not None} == set(usual)
    assert rows.cases(["broadcast"], ["tls"]) == [Case("broadcast", qos, "tls") for qos in (0, 1)]
    assert all(case.transport == "plain" for case in rows.cases(None, ["plain"]))


def test_a_storm_has_a_table_of_its_own() -> None:
    figures = _figures(10) | {"counted": 50}
    figures["broker"] |= {"connect_us": 400.0}
    figures["generator"] |= {"connect_seconds": 0.1, "connect_waiting": 0.4}
    runs = [report.Run(Case("storm", transport="tls"), "mosquitto", 0, figures)]
    assert report.storm_table(runs)[-1].split()[:7] == ["tls", "mosquitto", "50", "500", "400", "1.000", "40%"]
    assert report.traffic_table(runs) == []


def test_a_failed_round_is_not_hidden() -> None:
    runs = [
        report.Run(CASE, "mosquitto", 0, _figures(10)),
        report.Run(CASE, "mosquitto", 1, None, "log:\n  it fell over\n"),
    ]
    assert _row(runs, "mosquitto")[-1] == "1 of 2 failed: it fell over"
    only_failed = report.traffic_table(runs[1:])
    assert only_failed[-1].endswith("1 of 1 failed: it fell over")


def test_a_json_line_stands_alone() -> None:
    line = json.loads(report.json_line({"cpu": "x"}, {"rounds": 3}, report.Run(CASE, "mosquitto", 2, _figures(10))))
    assert (line["machine"], line["settings"], line["transport"]) == ({"cpu": "x"}, {"rounds": 3}, "plain")
    assert (line["case"]["scenario"], line["round"], line["figures"]["lost"]) == ("fan-in", 2, 0)


# --- The codecs -----------------------------------------------------------------------------------------------------


def test_the_mix_has_all_fifteen_packet_types() -> None:
    mix = codec.samples()[0]
    assert len({packet["type"] for packet in mix.packets}) == 15
    assert len(mix.packets) == len(mix.single) == codec.MIX_PACKETS


def test_every_codec_here_decodes_the_samples() -> None:
    said: list[str] = []
    lines = codec.measure(1, 0.001, said.append)
    timed = {line["codec"] for line in lines}
    assert {"reference", "mqtt5"} <= timed
    assert all(line["stream_ns"] > 0 for line in lines)
    assert len(timed) + len(said) == 4


def test_a_codec_that_decodes_something_else_is_not_timed() -> None:
    sample = codec.samples()[1]
    wrong = codec.Codec("wrong", "", lambda *_: 1.0, None, lambda s: [p | {"payload": b""} for p in s.packets])
    with pytest.raises(codec.CodecError, match="something else"):
        codec._check(wrong, sample)
