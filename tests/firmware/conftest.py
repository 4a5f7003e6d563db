"""What these tests share: import paths, a certificate authority, a scripted gateway, nodes that end with the test."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
for _path in (ROOT, ROOT / "firmware"):
    if str(_path) not in sys.path:
        sys.path.insert(0, str(_path))

import node as firmware  # noqa: E402

from tools.fleet import Node, find_micropython  # noqa: E402

from .gateway import Gateway  # noqa: E402
from .pki import Pki  # noqa: E402

MakeNode = Callable[..., Node]


def on_the_unix_port(file: str, heap: str = "128wK", cwd: Path | None = None) -> list[str]:
    """The names of the checks of a file that pass on MicroPython, in a heap like the chip's; a failure is shown."""
    done = subprocess.run(
        [find_micropython(), "-X", f"heapsize={heap}", file],
        cwd=cwd,
        env={"MICROPYPATH": f"{ROOT / 'firmware'}:{Path(file).parent}:.frozen"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return [line[3:] for line in done.stdout.splitlines() if line.startswith("ok ")]


# A module that is forgotten gives its heap back at once. On CPython that heap is the test runner's, and going through
# all of it for each failed try in half an hour without Wi-Fi took a minute.
firmware.gc = types.SimpleNamespace(collect=lambda: 0)  # type: ignore[assignment]


def node_json(port: int, **tables: dict[str, Any] | None) -> dict[str, Any]:
    """A node.json as `peanut device add` writes it; each keyword updates (or adds) a table, None takes it away."""
    body: dict[str, Any] = {
        "format": 1,
        "name": "peanut",
        "kind": "greenhouse",
        "root": "/plant/peanut",
        "gateway": {"host": "localhost", "port": port},
        "board": {
            "name": "sim",
            "chip": "unix",
            "outputs": {
                "heater": {"driver": "greenhouse_model", "safe": "off", "min_on_s": 60, "min_off_s": 180},
                "vent": {"driver": "greenhouse_model", "safe": "off", "min_on_s": 0, "min_off_s": 0},
            },
            "sensors": {"temperature": {"driver": "greenhouse_model"}, "outside": {"driver": "greenhouse_model"}},
        },
        "control": {"setpoint": 18.0, "min": 2.0, "max": 40.0, "hysteresis": 0.5},
        "report": {"telemetry_s": 3600, "state_s": 3600},
        "link": {"base_s": 0.05, "cap_s": 0.2, "first_s": 0},
        "simulate": {"speed": 60, "outside": 6.0, "start": 18.0},
    }
    for name, table in tables.items():
        if table is None:
            del body[name]
        else:
            body[name] = {**body.get(name, {}), **table}
    return body


@pytest.fixture(scope="session")
def pki() -> Pki:
    """One fleet's certificate authority."""
    return Pki()


@pytest.fixture
def gateway(pki: Pki) -> Iterator[Gateway]:
    """A gateway that does what the test tells it."""
    with Gateway(pki) as made:
        yield made


@pytest.fixture
def make_node(pki: Pki, tmp_path: Path) -> Iterator[MakeNode]:
    """make_node(port, node=Node, link={…}, …) -> a Node, not started; stopped after the test."""
    nodes: list[Node] = []

    def make(port: int, node: type[Node] = Node, **tables: dict[str, Any] | None) -> Node:
        bundle = tmp_path / f"bundle{len(nodes)}"
        bundle.mkdir()
        pki.write_bundle(bundle, "peanut")
        (bundle / "node.json").write_text(json.dumps(node_json(port, **tables)))
        nodes.append(node(bundle, tmp_path / f"flash{len(nodes)}"))
        return nodes[-1]

    yield make
    for made in nodes:
        made.kill()
