"""A board at the bench: what is on it, and bringing it what has changed, through the program mpremote.

Rule: only what differs is copied, and the node is started again after it; what the node keeps itself is left alone.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peanut import application, programs
from peanut.errors import PeanutError
from peanut.fsimage import Files
from peanut.home import SECRET, write_file
from peanut.names import printable

SILENCE_S = 60.0  # until a board has started its REPL; the longest mpremote is quiet: it hashes a large file
_NOT_YET = "could not enter raw repl"  # mpremote, after the ten seconds that it gives a board
_MARK = "peanut-file"
_SCAN = f"""
import os, hashlib, json
def scan(folder):
    for entry in os.ilistdir(folder or "/"):
        path = folder + "/" + entry[0]
        if entry[1] == 0x4000:
            scan(path)
            continue
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while True:
                block = file.read(1024)
                if not block:
                    break
                digest.update(block)
        print({_MARK!r}, json.dumps([path[1:], digest.digest().hex()]))
scan("")
try:
    with open("/node.json") as file:
        print({_MARK!r}, json.dumps(["", json.load(file)["name"]]))
except Exception:
    pass
"""


@dataclass(frozen=True)
class There:
    """What is on a board. name: of the node, empty if it is none; hashes: SHA-256 of each file."""

    name: str
    hashes: dict[str, str]


@dataclass(frozen=True)
class Changes:
    """What has to be done to a board."""

    copy: tuple[str, ...]
    remove: tuple[str, ...]


def scan(port: str, patience: float) -> There:
    """What is on the board; its program is stopped for that."""
    found: dict[str, str] = {}
    for line in _mpremote(port, ["exec", _SCAN], patience).splitlines():
        if line.startswith(_MARK):
            try:
                path, value = json.loads(line.removeprefix(_MARK))
                found[str(path)] = str(value)
            except (ValueError, TypeError):
                continue
    name = found.pop("", "")
    if not found:
        raise PeanutError(f"the board on {port} has no files", "Is MicroPython on it? First: peanut flash")
    return There(name, found)


def changes(wanted: Files, there: There) -> Changes:
    """What differs. Only files of the application are removed."""
    copy = [p for p, data in wanted.items() if there.hashes.get(p) != hashlib.sha256(data).hexdigest()]
    remove = [p for p in there.hashes if p not in wanted and application.owns(p)]
    # main.py last: a copy that breaks off shall not start half a node
    return Changes(tuple(sorted(copy, key=lambda p: (p == "main.py", p))), tuple(sorted(remove)))


def apply(port: str, wanted: Files, todo: Changes, work: Path, patience: float, say: Callable[[str], None]) -> None:
    """Copy and remove, and start the node again. work: a private directory."""
    folders = sorted({p.rpartition("/")[0] for p in todo.copy if "/" in p})
    words = ["resume", "exec", _make(folders, todo.remove)]
    for number, path in enumerate(todo.copy):
        local = work / f"{number}.bin"
        write_file(local, wanted[path], SECRET)
        words += ["+", "fs", "cp", str(local), f":/{path}"]
    try:
        _mpremote(port, words, patience)
    finally:
        for number in range(len(todo.copy)):
            (work / f"{number}.bin").unlink(missing_ok=True)
    for path in todo.copy:
        say(f"  copy    {path}")
    for path in todo.remove:
        say(f"  remove  {path}")


def restart(port: str, patience: float) -> None:
    """Start the node again."""
    _mpremote(port, ["resume", "reset"], patience)


def _make(folders: Sequence[str], removed: Sequence[str]) -> str:
    return (
        "import os\n"
        f"for folder in {[f'/{folder}' for folder in folders]!r}:\n"
        "    try:\n"
        "        os.mkdir(folder)\n"
        "    except OSError:\n"
        "        pass\n"
        f"for path in {[f'/{path}' for path in removed]!r}:\n"
        "    os.remove(path)\n"
    )


def _mpremote(port: str, words: Sequence[str], patience: float) -> str:
    """Run mpremote. A board that starts its REPL for longer than mpremote itself waits is asked again, until it has."""
    end = time.monotonic() + SILENCE_S * patience
    while True:
        command = [programs.find("mpremote"), "connect", port, *words]
        ended = programs.run(command, SILENCE_S * patience, what=f"the board on {port}")
        if ended.status == 0:
            return ended.output
        if _NOT_YET not in ended.output or time.monotonic() > end:
            raise _failed(port, ended.output)
        if words[0] != "resume":
            words = ["resume", *words]  # it starts for us already, and would begin anew


def _failed(port: str, output: str) -> PeanutError:
    why = printable(" / ".join([line for line in output.splitlines() if line.strip()][-2:]), 300)
    if "in use" in why:
        return PeanutError(f"{port} is in use", "Close what uses it (a console, a monitor), then try again.")
    if _NOT_YET in output:
        return PeanutError(
            f"the board on {port} does not come to its REPL",
            "Is MicroPython on it? Press RESET (EN) and try again; a slow one gets more time with --patience 3; "
            "`peanut flash` brings it back.",
        )
    return PeanutError(
        f"the board on {port} does not do as it is told: {why}",
        "Is MicroPython on it? Press RESET (EN) and try again; `peanut flash` brings it back.",
    )
