"""Writes the packet vectors as lines of words, for test_packet.c: name, version, allowed codes, canonical, hex.

The rule it keeps: one vector is one line of five words. The codes are comma-separated decimal reason codes, `-` for a
valid packet; canonical is 1 when the encoder must write these very bytes; an empty packet's hex is `-`.
"""

import json
import sys
from pathlib import Path
from typing import Any


def line(vector: dict[str, Any]) -> str:
    """One vector as a line, without the line end."""
    codes = vector.get("code", [])
    allowed = ",".join(str(code) for code in (codes if isinstance(codes, list) else [codes]))
    valid = "packet" in vector
    canonical = int(valid and vector.get("canonical", True))
    digits = "".join(vector["hex"].split()) or "-"
    return f"{vector['name']} {vector['version']} {'-' if valid else allowed} {canonical} {digits}"


def main() -> None:
    """Prints every vector of the JSON files in the directory that is the only argument."""
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        for vector in json.loads(path.read_text(encoding="utf-8")):
            print(line(vector))


if __name__ == "__main__":
    main()
