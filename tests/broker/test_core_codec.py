"""The codec half of peanutd._core as Python sees it, beyond what the vectors say.

Proves: a dictionary that is no packet gets an error that names what to mend, and never a packet that no decoder takes;
a Decoder ends with its first error, holds one packet at most and cannot be fed by itself; nothing leaks; every
interpreter has its own module.
"""

import contextlib
import copy
import gc
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from peanutd import _core

PUBLISH: dict[str, Any] = {
    "type": "PUBLISH",
    "dup": False,
    "qos": 1,
    "retain": True,
    "topic": "/plant/peanut/state",
    "id": 7,
    "properties": [["message_expiry_interval", 60], ["user_property", ["a", "b"]], ["correlation_data", b"\0"]],
    "payload": b"15",
}
CONNECT: dict[str, Any] = {
    "type": "CONNECT",
    "version": 5,
    "clean_start": True,
    "keep_alive": 60,
    "client_id": "peanut",
    "properties": [["receive_maximum", 9]],
    "will": {"qos": 1, "retain": True, "topic": "gone", "payload": b"", "properties": [["will_delay_interval", 5]]},
    "username": "u",
    "password": b"p",
}
SUBSCRIBE: dict[str, Any] = {
    "type": "SUBSCRIBE",
    "id": 1,
    "properties": [],
    "filters": [
        {"filter": "a/#", "qos": 2, "no_local": True, "retain_as_published": False, "retain_handling": 2},
    ],
}
UNSUBACK: dict[str, Any] = {"type": "UNSUBACK", "id": 1, "properties": [], "reasons": [0, 0x11]}
UNSUBSCRIBE: dict[str, Any] = {"type": "UNSUBSCRIBE", "id": 1, "properties": [], "filters": ["a", "b"]}
ALL = [PUBLISH, CONNECT, SUBSCRIBE, UNSUBACK, UNSUBSCRIBE]


def changed(packet: dict[str, Any], *path: Any) -> dict[str, Any]:
    """A copy of the packet with the value at a path of keys replaced by the last argument."""
    result = copy.deepcopy(packet)
    at: Any = result
    for key in path[:-2]:
        at = at[key]
    at[path[-2]] = path[-1]
    return result


@pytest.mark.parametrize("packet", ALL, ids=lambda packet: str(packet["type"]))
def test_every_key_is_needed_and_its_absence_named(packet: dict[str, Any]) -> None:
    data = _core.encode(packet, 5)
    assert _core.decode(data, 5) == (packet, len(data))
    for key in packet:
        rest = {name: value for name, value in packet.items() if name != key}
        with pytest.raises(KeyError, match=key):
            _core.encode(rest, 5)


@pytest.mark.parametrize(
    ("packet", "error", "words"),
    [
        (changed(PUBLISH, "topic", b"a"), TypeError, "topic must be str, not bytes"),
        (changed(PUBLISH, "payload", "15"), TypeError, "payload must be bytes, not str"),
        (changed(PUBLISH, "qos", 1.0), TypeError, "qos must be int, not float"),
        (changed(PUBLISH, "properties", {}), TypeError, "properties must be a list, not dict"),
        (changed(PUBLISH, "properties", [["user_property"]]), ValueError, "two items"),
        (changed(PUBLISH, "properties", [["user_property", ["a"]]]), ValueError, "two items"),
        (changed(PUBLISH, "properties", [["nonsense", 1]]), ValueError, "no property 'nonsense'"),
        (changed(PUBLISH, "properties", [[1, 1]]), ValueError, "no property 1"),
        (changed(PUBLISH, "type", "PUBLISHED"), ValueError, "no packet type 'PUBLISHED'"),
        (changed(PUBLISH, "type", 3), ValueError, "no packet type 3"),
        (changed(PUBLISH, "topic", "\ud800"), UnicodeEncodeError, "surrogates"),
        (changed(CONNECT, "will", "gone"), TypeError, "will must be a dict or None, not str"),
        (changed(SUBSCRIBE, "filters", 0, "a"), TypeError, "must be a dict, not str"),
        (changed(SUBSCRIBE, "filters", "a"), TypeError, "filters must be a list, not str"),
        (changed(UNSUBSCRIBE, "filters", 0, b"a"), TypeError, "filters must be str, not bytes"),
    ],
)
def test_a_dictionary_that_is_no_packet(packet: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        _core.encode(packet, 5)


@pytest.mark.parametrize(
    ("packet", "name"),
    [
        (changed(PUBLISH, "qos", 3), "protocol_error"),
        (changed(PUBLISH, "qos", -1), "protocol_error"),
        (changed(PUBLISH, "id", 65_536), "protocol_error"),
        (changed(PUBLISH, "id", 0), "protocol_error"),
        (changed(PUBLISH, "id", None), "protocol_error"),
        (changed(PUBLISH, "id", 1 << 70), "protocol_error"),
        (changed(PUBLISH, "topic", "a/+"), "topic_name_invalid"),
        (changed(PUBLISH, "topic", "a\0"), "malformed_packet"),
        (changed(PUBLISH, "topic", "ä" * 32_768), "packet_too_large"),
        (changed(PUBLISH, "properties", [["topic_alias", 0]]), "topic_alias_invalid"),
        (changed(PUBLISH, "properties", [["topic_alias", 65_536]]), "protocol_error"),
        (changed(PUBLISH, "properties", [["maximum_qos", 1]]), "malformed_packet"),
        (changed(PUBLISH, "properties", [["content_type", "a"], ["content_type", "a"]]), "protocol_error"),
        (changed(PUBLISH, "properties", [["content_type", "a" * 65_536]]), "packet_too_large"),
        (changed(PUBLISH, "properties", [["subscription_identifier", 268_435_456]]), "protocol_error"),
        (changed(CONNECT, "will", "qos", 3), "protocol_error"),
        (changed(CONNECT, "password", bytes(65_536)), "packet_too_large"),
        (changed(CONNECT, "version", 6), "protocol_error"),
        (changed(CONNECT, "version", 4), "protocol_error"),  # with properties
        (changed(SUBSCRIBE, "filters", []), "protocol_error"),
        (changed(SUBSCRIBE, "filters", 0, "qos", 3), "protocol_error"),
        (changed(SUBSCRIBE, "filters", 0, "no_local", 2), "protocol_error"),
        (changed(UNSUBACK, "reasons", [0x12]), "protocol_error"),
        (changed(UNSUBACK, "reasons", [256]), "protocol_error"),
    ],
)
def test_a_packet_that_breaks_the_standard_is_not_written(packet: dict[str, Any], name: str) -> None:
    with pytest.raises(_core.MqttError) as refused:
        _core.encode(packet, 5)
    assert refused.value.name == name


@pytest.mark.parametrize("version", [0, 2, 6, -1, 1 << 70, "5", 5.0])
def test_versions_there_are_not(version: Any) -> None:
    for call in (lambda: _core.decode(b"", version), lambda: _core.Decoder(version), lambda: _core.encode({}, version)):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            call()


def test_the_limit_is_in_bytes_of_the_whole_packet() -> None:
    data = _core.encode(PUBLISH, 5)
    assert _core.decode(data, 5, len(data)) is not None
    with pytest.raises(_core.MqttError) as refused:
        _core.decode(data[:2], 5, len(data) - 1)
    assert (refused.value.code, refused.value.name) == (0x95, "packet_too_large")
    assert _core.decode(data, 5, 1 << 40) is not None
    for size in (1, 0, -1):
        with pytest.raises(ValueError, match="max_size"):
            _core.decode(data, 5, size)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_any_buffer_is_read_and_let_go(form: Any) -> None:
    data = form(_core.encode(PUBLISH, 5))
    assert _core.decode(data, 5) == (PUBLISH, len(data))
    assert _core.Decoder(5).feed(data) == [PUBLISH]
    if form is bytearray:
        data.clear()  # BufferError while somebody holds it


def test_a_decoder_ends_with_its_first_error() -> None:
    decoder = _core.Decoder(4)
    assert decoder.feed(b"\xc0\x00") == [{"type": "PINGREQ"}]
    for chunk in (b"\xc1", b"\xc0\x00", b""):
        with pytest.raises(_core.MqttError) as refused:
            decoder.feed(chunk)
        assert refused.value.name == "malformed_packet"


def test_a_decoder_learns_its_version_and_can_begin_again() -> None:
    decoder = _core.Decoder()
    assert decoder.version is None
    decoder.feed(_core.encode(CONNECT, 5)[:-1])
    assert decoder.version is None
    assert decoder.feed(b"p") == [CONNECT]
    assert decoder.version == 5
    decoder.__init__(4)
    assert decoder.version == 4
    assert decoder.feed(b"\xd0\x00") == [{"type": "PINGRESP"}]


def test_a_decoder_that_was_never_made_refuses() -> None:
    """object.__new__ without __init__ must not crash."""
    with pytest.raises(_core.MqttError):
        _core.Decoder.__new__(_core.Decoder).feed(b"\x10\x00")


def test_a_decoder_keeps_only_what_has_arrived() -> None:
    """Memory follows the bytes that came, not what a length announces: 100 times 256 MiB go into half a GiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), hard))
    try:
        decoders = [_core.Decoder(4) for _ in range(100)]
        for decoder in decoders:
            assert decoder.feed(b"\x30\xff\xff\xff\x7f\x00\x01a") == []
        with pytest.raises(MemoryError):
            bytearray(1 << 30)  # the limit is one
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_decoder_is_not_fed_while_it_is_fed() -> None:
    """A finaliser may run others' code in the middle of a feed; that code must not pull the input away."""
    decoder = _core.Decoder(4)
    said: list[str] = []

    class Meddler:
        def __init__(self) -> None:
            self.me = self  # a cycle: the collector ends it, in the middle of whatever allocates

        def __del__(self) -> None:
            try:
                decoder.feed(b"\xc0\x00" * 1000)
            except RuntimeError as error:
                said.append(str(error))

    packet = _core.encode(changed(UNSUBSCRIBE, "filters", ["a"] * 50), 4)
    decoder.feed(packet[:5])
    threshold = gc.get_threshold()
    gc.collect()
    gc.disable()
    Meddler()
    gc.set_threshold(1, 1, 1)
    gc.enable()
    try:
        packets = decoder.feed(packet[5:] + packet * 50)
    finally:
        gc.set_threshold(*threshold)
    if sys.version_info < (3, 12):  # later ones collect between bytecodes only
        assert said == ["the decoder is being fed"]
    assert packets == [changed(UNSUBSCRIBE, "filters", ["a"] * 50)] * 51


def test_types_are_closed() -> None:
    with pytest.raises(TypeError):
        type("Mine", (_core.Decoder,), {})
    with pytest.raises(TypeError):
        _core.Decoder.feed = None  # type: ignore[assignment, method-assign]


def test_nothing_leaks() -> None:
    """Blocks in use do not grow with the work done, on the good ways and on the bad ones."""
    bad = [changed(PUBLISH, "qos", 3), changed(CONNECT, "will", "topic", 5), changed(SUBSCRIBE, "filters", [{}]), {}]
    encoded = [_core.encode(packet, 5) for packet in ALL]

    def work() -> None:
        for _ in range(200):
            for data in encoded:
                _core.decode(data, 5)
                decoder = _core.Decoder(5)
                decoder.feed(data[:3])
                decoder.feed(data[3:])
                decoder.feed(data[:9])
            for packet in bad:
                with contextlib.suppress(_core.MqttError, TypeError, KeyError):
                    _core.encode(packet, 5)
            for wrong in (b"\x00", b"\x30\xff\xff\xff\xff", b"\x90\x03\x00\x01\x03"):
                with contextlib.suppress(_core.MqttError):
                    _core.decode(wrong, 4)

    work()
    gc.collect()
    before = sys.getallocatedblocks()
    work()
    gc.collect()
    assert sys.getallocatedblocks() - before < 200  # a leak of one object in 200 rounds shows


def test_the_module_can_be_loaded_and_dropped_many_times() -> None:
    """Multi-phase initialisation: each import has its own types and lets them go."""
    script = """
        import gc, importlib, sys, weakref
        import peanutd
        from peanutd import _core as first
        alive = []
        for _ in range(5):
            del sys.modules["peanutd._core"]
            module = importlib.import_module("peanutd._core")
            assert module is not first and module.MqttError is not first.MqttError
            assert module.Decoder(4).feed(b"\\xc0\\x00") == [{"type": "PINGREQ"}]
            try:
                module.decode(b"\\0")
            except module.MqttError as error:
                assert error.code == 0x81
            alive.append(weakref.ref(module.Decoder))
        del module, peanutd._core, sys.modules["peanutd._core"]
        gc.collect()
        assert not any(ref() for ref in alive), "types outlive their module"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
