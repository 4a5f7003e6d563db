"""What the programs share that write the seeds of a fuzz target into a folder, one file each.

The rule it keeps: all of them are called alike, and a folder that cannot be written is an error that says so.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path


def write_seeds(target: str, seeds: Mapping[str, bytes]) -> int:
    """The main program: {name: what `target` reads} goes into the folder that the command line names.

    Returns the exit status; ends with status 1 and a line on stderr when the folder cannot be written.
    """
    parser = argparse.ArgumentParser(description=f"Write seeds for {target}, one file each.")
    parser.add_argument("folder", type=Path, help="where the seeds go; made when it is not there")
    folder = parser.parse_args().folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        parser.exit(1, f"{target}: cannot write to {folder}: {error.strerror}; name a folder that can be written\n")
    print(f"{len(seeds)} seeds in {folder}")
    return 0
