"""`peanut flash --all`: a carton of boards, several at a time, each by a `peanut flash` of its own.

Rule: what is done is remembered with the device (flashed.toml), so that the same command goes on where it stopped.
"""

import csv
import io
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peanut import flash, names, programs, store
from peanut.errors import PeanutError
from peanut.home import Home
from peanut.names import Kind

NAMES_MAX = 1000  # devices of one list
COLUMNS = ("name", "board", "kind")
SILENCE_S = 600.0  # times patience; a `peanut flash` says something more often: its own limits are shorter


@dataclass(frozen=True)
class Item:
    """One line of the list. board, kind: empty if the line does not say."""

    name: str
    board: str = ""
    kind: str = ""


def read(path: Path) -> list[Item]:
    """The list: CSV with a heading `name,board,kind` (board and kind may be left out), or a name a line."""
    text = store.read(path).decode("utf-8-sig", errors="replace")
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row and row[0].strip()]
    rows = [row for row in rows if not row[0].startswith("#")]
    head = [cell.lower() for cell in rows[0]] if rows else []
    columns: Sequence[str] = head if "name" in head else COLUMNS
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise PeanutError(f"{path}: unknown column {names.printable(unknown[0])!r}", f"Columns: {', '.join(COLUMNS)}.")
    items = [Item(**dict(zip(columns, row, strict=False))) for row in rows[1 if "name" in head else 0 :]]
    if not 0 < len(items) <= NAMES_MAX:
        raise PeanutError(f"{path} has {len(items)} names", f"Give 1 to {NAMES_MAX}, one a line.")
    seen: set[str] = set()
    for item in items:
        names.check_device(item.name, Kind(item.kind) if item.kind in list(Kind) else names.kind_of(item.name))
        if item.name in seen:
            raise PeanutError(f"{path}: {item.name} is there twice", "Take one of them out.")
        seen.add(item.name)
    return items


def left(home: Home, items: Sequence[Item]) -> list[Item]:
    """Those that have not come online on a board yet."""
    return [item for item in items if not flash.is_done(home, item.name)]


def round_of(
    home: Home,
    items: Sequence[Item],
    ports: Sequence[str],
    options: Sequence[str],
    say: Callable[[str], None],
    patience: float = 1.0,
) -> dict[str, int]:
    """Write one item to each port, all at once; the exit status by name. options: what each `peanut flash` is given."""
    ended: dict[str, int] = {}
    lock = threading.Lock()

    def tell(text: str) -> None:
        with lock:
            say(text)

    def one(item: Item, port: str) -> None:
        command = [sys.executable, "-m", "peanut", "--home", str(home.path), "flash", item.name, "--port", port]
        command += ["--board", item.board] if item.board else []
        command += ["--kind", item.kind] if item.kind else []
        try:
            done = programs.run(
                [*command, *options], SILENCE_S * max(1.0, patience), lambda s: tell(f"{item.name:<16}  {s}"), item.name
            )
            ended[item.name] = done.status
        except PeanutError as error:
            tell(f"{item.name:<16}  {error.message}")
            ended[item.name] = int(error.status)

    threads = [threading.Thread(target=one, args=pair) for pair in zip(items, ports, strict=False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended
