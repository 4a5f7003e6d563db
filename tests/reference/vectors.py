"""The protocol vectors of tests/vectors as Python values; the format is told in the README there.

The rule it keeps: read and check, never compute. What a vector says comes from the standard, not from a codec.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reference.codec import (
    MALFORMED_PACKET,
    PACKET_SIZE_MAX,
    PACKET_TOO_LARGE,
    PROTOCOL_ERROR,
    TOPIC_ALIAS_INVALID,
    TOPIC_NAME_INVALID,
    UNSUPPORTED_PROTOCOL_VERSION,
    Packet,
)

FOLDER = Path(__file__).resolve().parent.parent / "vectors"

# Names of errors in the vectors and the reason code that each stands for.
ERRORS = {
    "malformed": MALFORMED_PACKET,
    "protocol": PROTOCOL_ERROR,
    "unsupported_protocol_version": UNSUPPORTED_PROTOCOL_VERSION,
    "topic_name_invalid": TOPIC_NAME_INVALID,
    "topic_alias_invalid": TOPIC_ALIAS_INVALID,
    "packet_too_large": PACKET_TOO_LARGE,
}

_KEYS = {"name", "clause", "version", "from", "hex", "packet", "error", "code", "canonical", "max_size", "why"}
_BINARY_PROPERTIES = {"correlation_data", "authentication_data"}


@dataclass(frozen=True)
class Vector:
    """One vector: bytes, and the packet they are or the error they deserve."""

    name: str
    file: str  # name of the file that has it
    clause: str  # statement number or section of the standard
    version: int  # protocol level of the connection: 3, 4 or 5
    source: str  # who sends it: "client" or "server"
    data: bytes
    packet: Packet | None  # None in an invalid vector
    error: str  # "" in a valid vector
    codes: frozenset[int]  # reason codes that the standard allows as the answer; empty in a valid vector
    canonical: bool  # whether an encoder writes these bytes
    max_size: int  # bytes of the largest packet that is allowed
    why: str


def _binary_properties(properties: list[list[Any]]) -> list[list[Any]]:
    return [[name, bytes.fromhex(value) if name in _BINARY_PROPERTIES else value] for name, value in properties]


def _packet(raw: Packet) -> Packet:
    """The packet with `bytes` where JSON has hex."""
    packet = dict(raw)
    if "properties" in packet:
        packet["properties"] = _binary_properties(packet["properties"])
    for field in ("payload", "password"):
        if packet.get(field) is not None:
            packet[field] = bytes.fromhex(packet[field])
    if packet.get("will") is not None:
        packet["will"] = _packet(packet["will"])
    return packet


def _vector(raw: dict[str, Any], file: str) -> Vector:
    """Raises ValueError when the entry is not of the form that the README tells."""
    name = raw.get("name", "")
    unknown = raw.keys() - _KEYS
    if unknown or not name:
        raise ValueError(f"{file}: {name!r} has unknown keys {sorted(unknown)}" if name else f"{file}: without a name")
    if ("packet" in raw) == ("error" in raw) or ("error" in raw) != ("code" in raw):
        raise ValueError(f"{file}: {name} needs either `packet`, or `error` and `code`")
    if raw["version"] not in (3, 4, 5) or raw["from"] not in ("client", "server"):
        raise ValueError(f"{file}: {name}: `version` is 3, 4 or 5, `from` is client or server")
    code = raw.get("code", [])
    codes = frozenset(code if isinstance(code, list) else [code])
    if "error" in raw and ERRORS.get(raw["error"]) not in codes:
        raise ValueError(f"{file}: {name}: `error` {raw['error']} is not among `code` {sorted(codes)}")
    return Vector(
        name=name,
        file=file,
        clause=raw["clause"],
        version=raw["version"],
        source=raw["from"],
        data=bytes.fromhex(raw["hex"]),
        packet=_packet(raw["packet"]) if "packet" in raw else None,
        error=raw.get("error", ""),
        codes=codes,
        canonical=raw.get("canonical", True),
        max_size=raw.get("max_size", PACKET_SIZE_MAX),
        why=raw["why"],
    )


def load() -> list[Vector]:
    """Every vector of every file, in the order of the files. Raises ValueError when one is not well formed."""
    return [_vector(raw, path.name) for path in sorted(FOLDER.glob("*.json")) for raw in json.loads(path.read_text())]


def valid() -> list[Vector]:
    """The vectors that are packets."""
    return [vector for vector in load() if vector.packet is not None]


def invalid() -> list[Vector]:
    """The vectors that must be refused."""
    return [vector for vector in load() if vector.packet is None]
