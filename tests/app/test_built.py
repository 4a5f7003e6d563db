"""What `make setup` has built of the phone app: small, whole, nothing inline, nothing from elsewhere; and its tests.

Rule: these need no browser and no gateway. The budget counts what a first visit loads before anything is touched.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.app import ROOT, STATIC

BUDGET = 200_000
"""Bytes, compressed, of a first load: the page, its scripts and styles, and the icon. Issue 8's number."""
GROWTH = 60_000
"""Bytes of it today, and some air: whoever needs more thinks twice, and says why."""


@pytest.fixture(scope="module")
def page() -> str:
    """The built index.html."""
    path = STATIC / "index.html"
    assert path.is_file(), "the app is not built: make setup"
    return path.read_text()


def first_load(page: str) -> list[Path]:
    """The page, and everything that it or a script of it loads at once."""
    wanted = re.findall(r'(?:src|href)="\./([^"]+\.(?:js|css))"', page)
    found: list[Path] = []
    while wanted:
        path = STATIC / wanted.pop()
        if path in found:
            continue
        found.append(path)
        if path.suffix == ".js":
            statically = re.findall(r'(?:from|import)\s*["\']\./([^"\']+\.js)["\']', path.read_text())
            wanted += [f"assets/{name}" for name in statically]
    return [STATIC / "index.html", STATIC / "icon.svg", *found]


def test_the_first_load_is_small(page: str) -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in first_load(page)}
    assert len(sizes) >= 4, sizes
    assert sum(sizes.values()) < min(BUDGET, GROWTH), sizes
    assert not any("uPlot" in name or "zh" in name for name in sizes), f"loaded before it is needed: {sorted(sizes)}"


def test_nothing_is_inline_or_from_elsewhere(page: str) -> None:
    """What the gateway's content policy forbids, and what a house without internet could not load."""
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page)
    assert not re.search(r'(?:src|href)="(?!\./)', page)
    for path in STATIC.rglob("*.css"):
        assert not re.search(r"@import|url\((?![\"']?data:)", path.read_text()), path


def test_the_worker_keeps_the_whole_shell() -> None:
    text = (STATIC / "sw.js").read_text()
    found = re.search(r"JSON\.parse\((\"(?:[^\"\\]|\\.)*\")\)", text)
    assert found, text[:300]
    files = json.loads(json.loads(found[1]))["files"]
    assets = {f"assets/{path.name}" for path in (STATIC / "assets").iterdir() if path.suffix in (".js", ".css")}
    assert set(files) == {"./", "icon.svg", "manifest.webmanifest", *assets}


def test_the_manifest_makes_it_installable() -> None:
    manifest = json.loads((STATIC / "manifest.webmanifest").read_text())
    assert manifest["display"] == "standalone"
    assert {"192x192", "512x512"} <= {icon["sizes"] for icon in manifest["icons"]}
    for icon in manifest["icons"]:
        assert (STATIC / icon["src"]).is_file(), icon


def test_the_boards_that_it_offers_are_those_there_are() -> None:
    listed = subprocess.run(
        [Path(sys.executable).parent / "peanut", "board", "list"], cwd=ROOT, capture_output=True, text=True, timeout=250
    ).stdout
    offered = json.loads((ROOT / "broker" / "app" / "src" / "boards.json").read_text())
    there: dict[str, set[str]] = {"greenhouse": set(), "vehicle": set()}
    row = r"^(\S+) +esp32\S* +\d+ MB +((?:greenhouse|vehicle)(?:, (?:greenhouse|vehicle))?) "
    for name, kinds in re.findall(row, listed, re.MULTILINE):
        for kind in kinds.split(", "):
            there[kind].add(name)
    assert {kind: set(names) for kind, names in offered.items()} == there


def test_its_own_tests_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.app", "test"], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
