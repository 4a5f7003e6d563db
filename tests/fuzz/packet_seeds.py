"""Writes the protocol vectors as seeds for the packet fuzzer: one file a vector, the version, then the packet.

    python -m tests.fuzz.packet_seeds FOLDER

The rule it keeps: a seed is what the target reads. `fuzz_packet` takes the first byte as the protocol level and the
rest as the stream.
"""

import sys

from tests.fuzz.seeds import write_seeds
from tests.reference import vectors


def seeds() -> dict[str, bytes]:
    return {vector.name: bytes([vector.version]) + vector.data for vector in vectors.load()}


if __name__ == "__main__":
    sys.exit(write_seeds("fuzz_packet", seeds()))
