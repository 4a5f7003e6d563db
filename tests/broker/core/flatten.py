"""Writes the packet vectors as lines of words, for test_packet.c: name, version, codes, canonical, limit, hex.

The rule it keeps: one vector is one line of six words. The codes are comma-separated decimal reason codes, `-` for a
valid packet; canonical is 1 when the encoder must write these very bytes; the limit is the largest
packet allowed in bytes.
"""

import json
import sys
from pathlib import Path
from typing import Any

PACKET_SIZE_MAX = 268_435_460  # bytes of the largest packet there can be (5.0 §1.5.5)


def line(vector: dict[str, Any]) -> str:
    """One vector as a line, without the line end."""
    codes = vector.get("code", [])
    allowed = ",".join(str(code) for code in (codes if isinstance(codes, list) else [codes]))
    valid = "packet" in vector
    canonical = int(valid and vector.get("canonical", True))
    digits = "".join(vector["hex"].split())
    limit = vector.get("max_size", PACKET_SIZE_MAX)
    return f"{vector['name']} {vector['version']} {'-' if valid else allowed} {canonical} {limit} {digits}"


def main() -> None:
    """Prints every vector of the JSON files in the directory that is the only argument."""
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        for vector in json.loads(path.read_text(encoding="utf-8")):
            print(line(vector))


if __name__ == "__main__":
    main()
