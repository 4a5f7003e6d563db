"""Types of the extension module that core/module.c builds; the docstrings are there."""

from typing import Any, final

# A packet as a dictionary; tests/vectors/README.md describes the keys of each type. Binary fields are bytes.
Packet = dict[str, Any]

PACKET_SIZE_MAX: int  # bytes of the largest packet there can be

class MqttError(Exception):
    code: int  # reason code (5.0 §2.4)
    name: str  # its name in snake_case: "malformed_packet"

def decode(
    data: bytes | bytearray | memoryview, version: int | None = None, max_size: int = ...
) -> tuple[Packet, int] | None: ...
def encode(packet: Packet, version: int | None) -> bytes: ...

@final
class Decoder:
    def __init__(self, version: int | None = None, max_size: int = ...) -> None: ...
    def feed(self, chunk: bytes | bytearray | memoryview, /) -> list[Packet]: ...
    @property
    def version(self) -> int | None: ...
