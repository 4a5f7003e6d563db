"""The power goes at every write of the flash: the node finds the old or the new, never a mixture, and always mounts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tools.fleet import find_micropython

from .conftest import ROOT

AT_LEAST = {  # cuts that there must have been, or littlefs was not where the writing went
    "update": 20,
    "update over another": 20,
    "starts on trial": 6,
    "update kept": 4,
    "update returned": 4,
    "set point": 3,
    "certificate": 6,
    "certificate lost": 6,
    "certificate won": 6,
    "configuration": 6,
    "trial lost": 6,
    "trial won": 6,
    "buffer append": 6,
    "buffer turn": 5,
    "buffer sent": 1,
}


def test_every_cut_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """powercut_run.py: littlefs on a block device that dies, each program and erase cut, the last one half done."""
    here = Path(__file__).parent
    done = subprocess.run(
        [find_micropython(), "-X", "heapsize=4M", str(here / "powercut_run.py")],
        cwd=tmp_path,
        env={"MICROPYPATH": f"{ROOT / 'firmware'}:{here}:.frozen"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    results = {line["what"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert set(results) == set(AT_LEAST)
    for what, least in AT_LEAST.items():
        assert results[what]["cuts"] >= least, results[what]
        assert all(results[what]["found"]), results[what]  # the old, the new, and each step between were seen
