"""Nanoseconds per packet of MQTT decoders, on the same MQTT 5.0 bytes.

The rule it keeps: before a codec is timed it must give the types, topics and payloads that the packets were made from;
codecs take turns, and the median of the rounds counts. Four decoders:

* `core`: broker/core/packet.c called from C (decode.c), packets as spans: what the broker pays.
* `peanutd._core`: the same decoder called from Python, packets as dictionaries.
* `mqtt5`: the package of that name (Rust), packets as objects. It speaks 5.0 only, hence 5.0 for all.
* `reference`: tests/reference/codec.py, plain Python, packets as dictionaries.
"""

import gc
import importlib
import importlib.metadata
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .brokers import ROOT
from .generator import BUILD, GeneratorError, compile_c

VERSION = 5
MIX_PACKETS = 1000
SEED = 1883  # the mix is the same on every machine
CORE = ROOT / "broker" / "core"

Packet = dict[str, Any]


class CodecError(Exception):
    """A codec that cannot be timed; the text says why."""


@dataclass(frozen=True)
class Sample:
    """Packets to decode: as they were meant, one by one, and as one stream."""

    name: str
    packets: list[Packet]
    single: list[bytes]
    stream: bytes


@dataclass(frozen=True)
class Codec:
    """A decoder and its two ways: `time_stream` (one chunk with all packets) and `time_single` (a call a packet; None
    where there is no such call) take a sample and seconds and return nanoseconds per packet. `decode` gives the packets
    of a sample with type, topic and payload, for the check; None where nothing comes back."""

    name: str
    version: str
    time_stream: Callable[[Sample, float], float]
    time_single: Callable[[Sample, float], float] | None
    decode: Callable[[Sample], list[Packet]] | None


def _ack(kind: str, number: int, reason: int = 0, properties: list[list[Any]] | None = None) -> Packet:
    return {"type": kind, "id": number, "reason": reason, "properties": properties or []}


def _publish(
    topic: str, payload: bytes, number: int | None = None, *properties: list[Any], retain: bool = False
) -> Packet:
    qos = 0 if number is None else 1
    return {
        "type": "PUBLISH",
        "dup": False,
        "qos": qos,
        "retain": retain,
        "topic": topic,
        "id": number,
        "properties": list(properties),
        "payload": payload,
    }


# What goes through a gateway of a fleet, both ways, and how often in MIX_PACKETS: (weight, packet).
_TELEMETRY = (
    b'{"ts":1764072000,"tq":"rtc","readings":{"temperature":[15.2,"ok"],"outside":[4.0,"ok"],"humidity":[61,"ok"]}}'
)
_STATE = (
    b'{"setpoint":15.0,"temperature":15.2,"heater":false,"vent":false,"mode":"auto",'
    b'"reason":"within hysteresis","faults":[],"ts":1764072000}'
)
_COMMAND = b'{"id":"0b0e7e42","args":{"on":true},"exp":1764072060}'
_EXPIRY = ["message_expiry_interval", 300]
_WILL = {
    "qos": 1,
    "retain": True,
    "topic": "/plant/peanut/status",
    "payload": b'{"state":"offline","why":"connection lost"}',
    "properties": [["will_delay_interval", 5]],
}
MIX: list[tuple[int, Packet]] = [
    (300, _publish("/plant/peanut/telemetry", _TELEMETRY)),
    (100, _publish("/plant/tomato/telemetry", _TELEMETRY, None, _EXPIRY)),
    (100, _publish("/plant/peanut/state", _STATE, 17, ["content_type", "application/json"], retain=True)),
    (40, _publish("/plant/tomato/state", _STATE, 18, ["user_property", ["fw", "1.0.0"]], _EXPIRY, retain=True)),
    (40, _publish("/plant/peanut/UpdateTemperature", b"temperature:15", 19)),
    (30, _publish("/plant/peanut/cmd/vent", _COMMAND, 20, ["response_topic", "/plant/peanut/ack"],
                  ["correlation_data", bytes(range(8))])),
    (30, _publish("", _TELEMETRY, None, ["topic_alias", 3])),
    (190, _ack("PUBACK", 17)),
    (20, _ack("PUBACK", 18, 0x87, [["reason_string", "no rule allows this"]])),
    (10, _ack("PUBREC", 21)),
    (10, _ack("PUBREL", 21)),
    (10, _ack("PUBCOMP", 21)),
    (40, {"type": "PINGREQ"}),
    (40, {"type": "PINGRESP"}),
    (8, {"type": "CONNECT", "version": 5, "clean_start": False, "keep_alive": 30, "client_id": "peanut",
         "properties": [["session_expiry_interval", 3600], ["receive_maximum", 20], ["maximum_packet_size", 8192]],
         "will": _WILL, "username": None, "password": None}),
    (8, {"type": "CONNACK", "session_present": True, "reason": 0,
         "properties": [["receive_maximum", 20], ["topic_alias_maximum", 10], ["shared_subscription_available", 1]]}),
    (8, {"type": "SUBSCRIBE", "id": 1, "properties": [["subscription_identifier", 1]],
         "filters": [{"filter": f, "qos": 1, "no_local": False, "retain_as_published": True, "retain_handling": 0}
                     for f in ("/plant/peanut/UpdateTemperature", "/plant/peanut/cmd/+", "fleet/time")]}),
    (8, {"type": "SUBACK", "id": 1, "properties": [], "reasons": [1, 1, 1]}),
    (2, {"type": "UNSUBSCRIBE", "id": 2, "properties": [], "filters": ["fleet/time"]}),
    (2, {"type": "UNSUBACK", "id": 2, "properties": [], "reasons": [0]}),
    (2, {"type": "DISCONNECT", "reason": 0, "properties": []}),
    (2, {"type": "AUTH", "reason": 0x18, "properties": [["authentication_method", "SCRAM-SHA-256"],
                                                       ["authentication_data", bytes(range(32))]]}),
]  # fmt: skip


def samples() -> list[Sample]:
    """The fleet's mix in a fixed shuffled order, and a 64-byte PUBLISH at QoS 0 alone."""
    reference = _reference()
    mix = [packet for weight, packet in MIX for _ in range(weight)]
    assert len(mix) == MIX_PACKETS
    random.Random(SEED).shuffle(mix)
    publish = [_publish("/plant/peanut/telemetry", bytes(range(64)))] * 100
    made = []
    for name, packets in (("mix", mix), ("publish-64", publish)):
        single = [reference.encode(packet, VERSION) for packet in packets]
        made.append(Sample(name, packets, single, b"".join(single)))
    return made


def _reference() -> Any:
    try:
        return importlib.import_module("tests.reference.codec")
    except ImportError as error:
        raise CodecError(f"{error}; run from the root of the checkout") from None


def _repeat(work: Callable[[], object], packets: int, seconds: float) -> float:
    """Nanoseconds of CPU per packet of `work`, which decodes `packets`, called for about `seconds`, collector off."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        calls = 0
        start = time.process_time_ns()
        while True:
            work()
            calls += 1
            elapsed = time.process_time_ns() - start
            if elapsed >= seconds * 1e9:
                return elapsed / calls / packets
    finally:
        if was_on:
            gc.enable()


def _dict_codec(name: str, version: str, module: Any) -> Codec:
    """A module with the house's interface: Decoder(version).feed(chunk), decode(data, version)."""

    def stream(sample: Sample) -> list[Packet]:
        packets: list[Packet] = module.Decoder(VERSION).feed(sample.stream)
        return packets

    def single(sample: Sample) -> None:
        decode = module.decode
        for data in sample.single:
            decode(data, VERSION)

    return Codec(
        name,
        version,
        lambda sample, seconds: _repeat(partial(stream, sample), len(sample.single), seconds),
        lambda sample, seconds: _repeat(partial(single, sample), len(sample.single), seconds),
        stream,
    )


def _mqtt5() -> Codec:
    try:
        import mqtt5
    except ImportError:
        raise CodecError("not installed: pip install mqtt5") from None

    def stream(sample: Sample) -> list[Any]:
        read, view, at, packets = mqtt5.read, memoryview(sample.stream), 0, []
        while at < len(view):
            packet, size = read(view[at:])
            packets.append(packet)
            at += size
        return packets

    def single(sample: Sample) -> None:
        read = mqtt5.read
        for data in sample.single:
            read(memoryview(data))

    def decode(sample: Sample) -> list[Packet]:
        return [
            {"type": type(packet).__name__.removesuffix("Packet").upper()}
            | ({"topic": packet.topic, "payload": packet.payload} if isinstance(packet, mqtt5.PublishPacket) else {})
            for packet in stream(sample)
        ]

    return Codec(
        "mqtt5",
        f"mqtt5 {importlib.metadata.version('mqtt5')}",
        lambda sample, seconds: _repeat(partial(stream, sample), len(sample.single), seconds),
        lambda sample, seconds: _repeat(partial(single, sample), len(sample.single), seconds),
        decode,
    )


def _extension() -> Codec:
    try:
        module = importlib.import_module("peanutd._core")
    except ImportError as error:
        raise CodecError(f"{error}: make setup") from None
    return _dict_codec("peanutd._core", f"peanutd {importlib.metadata.version('peanutd')}", module)


def _core() -> Codec:
    program = BUILD / "decode"
    sources = [Path(__file__).with_name("decode.c"), *(CORE / name for name in ("packet.c", "buf.c", "mem.c"))]
    absent = [source.name for source in sources if not source.exists()]
    if absent:
        raise CodecError(f"broker/core has no {', '.join(absent)}")
    try:
        complaint = compile_c(sources + sorted(CORE.glob("*.h")), program, f"-I{CORE}")
    except GeneratorError as error:
        raise CodecError(str(error)) from None
    if complaint is not None:
        raise CodecError(f"decode.c does not compile:\n{complaint}")

    def measure(sample: Sample, seconds: float) -> float:
        done = subprocess.run(
            [str(program), str(int(seconds * 1000))], input=sample.stream, capture_output=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise CodecError(done.stderr.decode(errors="replace").strip())
        return float(done.stdout)

    return Codec("core", "broker/core, -O2", measure, None, None)


def _check(codec: Codec, sample: Sample) -> None:
    if codec.decode is None:
        return
    got = codec.decode(sample)
    keys = ("type", "topic", "payload")
    if [[packet.get(key) for key in keys] for packet in got] != [
        [packet.get(key) for key in keys] for packet in sample.packets
    ]:
        raise CodecError(f"it decodes the sample {sample.name} to something else than was encoded")


def measure(rounds: int, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Times every codec that is here, `rounds` times for `seconds` a figure, in turns.

    Returns a line per codec and sample: codec, version, sample, stream_ns, single_ns (None where the codec has no such
    call), medians. Codecs that cannot be timed are named to `say` with the reason. Raises CodecError without reference.
    """
    material = samples()
    reference = _dict_codec("reference", "tests/reference", _reference())
    codecs = []
    for name, make in (("core", _core), ("peanutd._core", _extension), ("mqtt5", _mqtt5)):
        try:
            codec = make()
            for sample in material:
                _check(codec, sample)
            codecs.append(codec)
        except CodecError as error:
            say(f"codec {name} is left out: {error}")
    codecs.append(reference)
    for sample in material:
        _check(reference, sample)

    figures: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(rounds):
        for sample in material:
            for codec in codecs:
                ways = {"stream": codec.time_stream, "single": codec.time_single}
                for way, timer in ways.items():
                    if timer is not None:
                        figures.setdefault((codec.name, sample.name, way), []).append(timer(sample, seconds))
    lines = []
    for sample in material:
        for codec in codecs:
            medians = {
                way: statistics.median(figures[key]) if (key := (codec.name, sample.name, way)) in figures else None
                for way in ("stream", "single")
            }
            lines.append(
                {
                    "codec": codec.name,
                    "version": codec.version,
                    "sample": sample.name,
                    "bytes": len(sample.stream) / len(sample.single),
                    "stream_ns": medians["stream"],
                    "single_ns": medians["single"],
                    "rounds": rounds,
                }
            )
    return lines
