"""Mends the modes of what holds a secret.

Rule: every key and root.pass 0600, every directory that holds one 0700, whatever a backup or a copy made of them.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from peanut.home import PRIVATE_DIR, SECRET, Home, mode_of
from peanut.plan import State, Step


def plan(home: Home, directory: Path, files: Iterable[str]) -> list[Step]:
    """Steps for a directory and those of its files that are there and more open than they should be."""
    wanted = [(directory, PRIVATE_DIR), *((directory / name, SECRET) for name in files)]
    return [
        Step(
            State.CHANGE,
            home.relative(path),
            f"mode {mode_of(path):04o} becomes {mode:04o}: others could read a secret",
            partial(path.chmod, mode),
        )
        for path, mode in wanted
        if path.exists() and mode_of(path) & ~mode
    ]
