"""Files that are watched: whether any of them is another one than it was.

The rule it keeps: a change counts when it has held still for one look, so that a file that is being written, or the
second of two that belong together, is waited for. Looking is a stat(2) a file; nothing is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_Stamp = tuple[int, int, int, int] | None


class Stamps:
    """What `paths` looked like when they were last taken up."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._taken = self._seen = self._look()

    def take(self) -> None:
        """What is there now has been taken up, or refused: until something changes there is nothing to do."""
        self._taken = self._seen = self._look()

    def changed(self) -> bool:
        """Whether there is something new that has held still since the last call. To be called now and then."""
        before, self._seen = self._seen, self._look()
        return self._seen != self._taken and self._seen == before

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size
