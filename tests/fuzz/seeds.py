"""Writes the protocol vectors as seeds for the packet fuzzer: one file a vector, the version, then the packet.

    python tests/fuzz/seeds.py FOLDER

The rule it keeps: a seed is what the target reads. `fuzz_packet` takes the first byte as the protocol level and the
rest as the stream.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.reference import vectors


def write(folder: Path) -> int:
    """Writes the seeds into `folder`, which is made when it is not there; returns how many they are."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = vectors.load()
    for vector in chosen:
        (folder / vector.name).write_bytes(bytes([vector.version]) + vector.data)
    return len(chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write fuzz seeds from the protocol vectors, one file each.")
    parser.add_argument("folder", type=Path, help="where the seeds go; made when it is not there")
    folder = parser.parse_args().folder
    try:
        count = write(folder)
    except OSError as error:
        parser.exit(1, f"seeds: cannot write to {folder}: {error.strerror}; name a folder that can be written\n")
    print(f"{count} seeds in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
