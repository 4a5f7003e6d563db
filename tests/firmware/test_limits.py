"""What a chip has little of: flash, heap. And the walls between the modules."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from peanut import application, prose, release
from tools.fleet import Node, find_micropython
from tools.fleet.node import FIRMWARE, firmware_files

from .conftest import MakeNode

RESCUE_LIMIT = 6 * 1024
PLAIN_LIMIT = 3584  # boot.py and main.py are compiled on the node; they leave nothing in memory
APP_LIMIT = 45 * 1024  # bytes of .mpy in memory together: what an ESP32 without PSRAM can hold beside TLS
TEXTS_LIMIT = 8192  # of flash
VEHICLE_LIMIT = 43 * 1024  # the same of a vehicle, which has neither climate nor ring, but lines to read
# Bytes over 1,500 messages: log lines differ in length, and one block of memory_run.py may look as if it were in use
# (the collector takes what lies on the stack for addresses); one lost block a message would be 160,000.
GROWTH_LIMIT = 4096

# What a C3 begins with (it takes more from the IDF): room for the application as it is, and for memory_run.py, which
# takes 2. The least in which it passed was 62.
SMALL_HEAP = "64wK"
PIECES_HEAP = "78wK"  # and what reads a configuration or an update besides, where the heap is in pieces

SELDOM = (
    "node.assembly",
    "node.backlog",
    "node.birth",
    "node.changes",
    "node.config",
    "node.greenhouse_config",
    "node.vehicle_config",
    "node.desired",
    "node.dns",
    "node.health",
    "node.image",
    "node.keys",
    "node.lastlife",
    "node.offer",
    "node.powerup",
    "node.proof",
    "node.receive",
    "node.schedule",
    "node.sntp",
    "node.trial",
    "node.update",
    "node.words",
    "drivers.opening",
    "profiles.greenhouse",
    "profiles.vehicle",
    "choice",
)

PURE = (
    "actuator",
    "schedule",
    "air",
    "control",
    "command",
    "recent",
    "strictjson",
    "backoff",
    "ticks",
    "limit",
    "lines",
    "report",
    "config",
    "supervisor",
    "sensing",
    "blackbox",
    "car",
    "hmac",
    "signed",
    "greenhouse_config",
    "vehicle_config",
    "trial",
    "proof",
)
PURE_MAY_IMPORT = {
    "node",
    "node.ConfigError",
    "node.forget",
    "node.lastlife",
    "node.lines",
    "node.ticks",
    "node.actuator",
    "node.control",
    "node.SETPOINT",
    "node.schedule",
    "node.limit",
    "node.limit.Bucket",
    "node.hmac",
    "node.signed",
    "array",
    "binascii",
    "hashlib",
    "json",
    "math",
    "struct",
}


def compiled_sizes(kind: str, drivers: Iterable[str]) -> dict[str, int]:
    """Bytes of each file of such a node with these drivers, as a board gets it."""
    outputs = {name: {"driver": name} for name in drivers}
    body = {"kind": kind, "board": {"outputs": outputs, "sensors": {}}}
    return {name: len(data) for name, data in application.compiled(body, FIRMWARE).items()}


@pytest.mark.parametrize(
    ("kind", "limit", "drivers"),
    [
        ("greenhouse", APP_LIMIT, ("greenhouse_model",)),
        ("greenhouse", APP_LIMIT, ("gpio", "sht4x")),
        ("vehicle", VEHICLE_LIMIT, ("vehicle_model",)),
        ("vehicle", VEHICLE_LIMIT, ("gpio", "contact", "elm327", "nmea")),
    ],
)
def test_the_app_fits_its_budget(kind: str, limit: int, drivers: tuple[str, ...]) -> None:
    """All .mpy files that are in memory together; `python -m pytest -k budget -rP` shows the tables."""
    sizes = compiled_sizes(kind, drivers)
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{size:6} {name}")
    assert sizes.pop("rescue.mpy") < RESCUE_LIMIT  # never in memory beside the application
    assert sizes.pop("boot.py") + sizes.pop("main.py") < PLAIN_LIMIT
    assert sizes.pop(prose.PLACE) < TEXTS_LIMIT  # read line by line
    for module in SELDOM:  # nor do these, once the node works: pins_run.py looks
        sizes.pop(module.replace(".", "/") + ".mpy", None)
    print(f"{sum(sizes.values()):6} in all without these, limit {limit}")
    assert sum(sizes.values()) < limit


def flashed(node: Node) -> Path:
    """The node's flash as a board's, compiled, and the scripts beside it. Returns the directory.

    All get both scripts, though not all import both: what is compiled of the same texts is prepared once.
    """
    node.install()
    for source in node.workdir.rglob("*.py"):
        source.unlink()
    body = json.loads((node.workdir / "node.json").read_text())
    scripts = {name: (Path(__file__).parent / name).read_text() for name in ("memory_run.py", "memory_pieces.py")}
    for name, data in application.compiled(body, FIRMWARE, scripts).items():
        (node.workdir / name).write_bytes(data)
    return node.workdir


def in_heap(heap: str, folder: Path, **plan: int) -> dict[str, Any]:
    """What memory_run.py says in a heap of this size. plan: messages, turns, pieces."""
    (folder / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(
        [find_micropython(), "-X", f"heapsize={heap}", "-c", "import memory_run"],
        cwd=folder,
        env={"MICROPYPATH": f"{folder}:.frozen"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(result)
    assert result["end"] == "closed by the gateway"
    assert result["faults"] == []  # nothing was denied its memory
    assert result["turns"] >= plan["turns"]
    assert result["stages"]["done"] > plan["messages"] // 2  # commands were really obeyed meanwhile
    assert 0 <= result["stages"]["accepted"] - result["stages"]["done"] <= 16  # what was on its way when it closed
    alloc = result["alloc"]
    assert max(alloc) - alloc[0] < GROWTH_LIMIT, result
    return result


def no_growth(node: Node, messages: int, turns: int) -> None:
    """Commands and turns, with all tasks: the heap in use after all is what it was after half."""
    in_heap(SMALL_HEAP, flashed(node), messages=messages, turns=turns, pieces=0)


@pytest.mark.timeout(300)  # 6 s of a quiet core, and many times that on a busy machine
def test_no_growth_in_a_small_heap(make_node: MakeNode) -> None:
    """A lost block a message would be 48,000 bytes. long_limits.py does it 100,000 times."""
    no_growth(make_node(1, simulate={"speed": 3600}), 3000, 30_000)


@pytest.mark.timeout(300)
def test_no_large_block_in_a_heap_of_pieces(make_node: MakeNode) -> None:
    """Commands where no free block is larger than 2 KB (1 KB on a chip, whose words are half as wide); and in the same
    a configuration and an update."""
    folder = flashed(make_node(1, simulate={"speed": 3600}))
    key = release.new_key()
    files = {f"node/{size}.mpy": bytes(size) for size in (100, 900, 2300, 6600)}
    made = release.pack(files, key, seq=1 << 31, version="1", kind="greenhouse")
    (folder / "made.update").write_bytes(made.file)
    (folder / "update.pub").write_bytes(release.public(key))
    result = in_heap(PIECES_HEAP, folder, messages=1000, turns=1000, pieces=1000)
    assert result["configured"] == [1, []]
    assert json.loads(result["updated"])["stage"] == "restarting", result


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            found |= {f"node.{alias.name}" for alias in node.names} if node.module == "node" else {node.module}
    return found


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_stay_pure(module: str) -> None:
    """No machine, network, asyncio, socket or time in what decides."""
    assert imports(FIRMWARE / "node" / f"{module}.py") <= PURE_MAY_IMPORT | {"node.strictjson"}


def test_only_app_knows_everybody() -> None:
    """app.py alone imports the network; what a kind of node does itself, profiles and drivers do not."""
    for path in FIRMWARE.rglob("*.py"):
        network = {"node.link", "node.mqtt", "socket", "ssl", "network"} & imports(path)
        if path.name not in (
            "assembly.py",
            "birth.py",
            "link.py",
            "connect.py",
            "mqtt.py",
            "start.py",
            "sntp.py",
            "dns.py",
            "powerup.py",
            "rescue.py",
            "keys.py",
            "words.py",
        ):
            assert not network, path
    for path in [*(FIRMWARE / "drivers").glob("*.py")]:
        assert "asyncio" not in imports(path)


def test_manifest_names_every_file_and_no_other() -> None:
    """A new module that is not in manifest.toml would be missing on the node."""
    present = {str(path.relative_to(FIRMWARE)) for path in FIRMWARE.rglob("*.py")}
    manifest = tomllib.loads((FIRMWARE / "manifest.toml").read_text())
    assert {name for kind in manifest["kind"] for name in firmware_files(kind, manifest["driver"])} == present


def test_no_kind_of_node_gets_another_ones_code() -> None:
    """Nor could it import it: flash and heap are for its own."""
    own = {kind: set(files) for kind, files in tomllib.loads((FIRMWARE / "manifest.toml").read_text())["kind"].items()}
    for kind in own:
        mine = firmware_files(kind, [f"{kind}_model", "gpio"])
        others = {name[:-3].replace("/", ".") for other in own for name in own[other] - {*mine}}
        for name in mine:
            if name not in ("rescue.py", "node/start.py"):  # which try what there is
                assert not imports(FIRMWARE / name) & others, name


def test_each_driver_gets_what_it_imports() -> None:
    """A board's files are whole: every import of ours in them is among them."""
    manifest = tomllib.loads((FIRMWARE / "manifest.toml").read_text())
    for driver in manifest["driver"]:
        kind = "vehicle" if driver in ("elm327", "nmea", "vehicle_model") else "greenhouse"
        files = firmware_files(kind, [driver])
        assert f"drivers/{driver}.py" in files
        needed = {name.replace(".", "/") + ".py" for file in files for name in imports(FIRMWARE / file)}
        # The profile opens either the house or the model (its imports are inside `house`), a bus by its kind.
        ours = {name for name in needed if (FIRMWARE / name).is_file()}
        tried = {"profiles/greenhouse.py", "profiles/vehicle.py"}  # by start.py and rescue.py
        model = f"drivers/{kind}_model.py"
        assert ours - set(files) <= {"drivers/opening.py", "node/sensing.py", model, *tried}, driver
        if '"bus"' in (FIRMWARE / f"drivers/{driver}.py").read_text() and driver not in ("ds18b20", "shift595"):
            assert ("drivers/uart.py" if kind == "vehicle" else "drivers/i2c.py") in files, driver


def test_main_and_boot_need_nothing_of_ours() -> None:
    """boot.py imports no module of ours; main.py imports ours inside its `try` only."""
    assert imports(FIRMWARE / "boot.py") <= {"json", "machine", "os"}
    top = ast.parse((FIRMWARE / "main.py").read_text()).body
    assert {a.name for n in top if isinstance(n, ast.Import) for a in n.names} == {"sys"}
    assert not [n for n in top if isinstance(n, ast.ImportFrom)]
