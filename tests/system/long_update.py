"""A roll-out to fifty nodes: a build that never connects stops at the first of them; a good one reaches all.

Rule: as test_update.py, with a fleet. `make test-long` runs it; ROLLOUT_NODES sets how many nodes there are.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from peanut.__main__ import main
from tests.system.conftest import House, wait_for
from tests.system.test_update import TOPICS, said, spoilt, update
from tools.fleet import Node

COUNT = int(os.environ.get("ROLLOUT_NODES", "50"))
LONG = 1200
# The houses are as slow as the world: fifty of them share this machine.
SLOW = ["simulate.speed=1", "report.telemetry_s=60", "link.base_s=0.5", "link.cap_s=5", "link.first_s=2"]
SLOW += ["link.health_s=20", "simulate.start=25"]  # warm: nothing heats, so nobody waits to restart


def enrol(house: House, name: str) -> Path:
    """A simulated greenhouse."""
    words = [word for setting in SLOW for word in ("--set", setting)]
    done = CliRunner().invoke(
        main, ["--home", str(house.home), "device", "add", name, "--kind", "greenhouse", "--board", "sim", *words]
    )
    assert done.exit_code == 0, done.output
    return house.home / "devices" / name


@pytest.mark.timeout(3 * LONG)
def test_fifty_nodes_and_one_bad_build(house: House, tmp_path: Path) -> None:
    names = [f"house-{number:02}" for number in range(COUNT)]
    with ExitStack() as stack:
        watcher = stack.enter_context(house.watch(*TOPICS))
        for name in names:
            stack.enter_context(Node(enrol(house, name)))
            wait_for(lambda n=name: said(watcher, n), f"the first word of {name}", 120)  # type: ignore[misc]

        head = "    async def run(self, pulse):\n"
        pause = "            pulse.beat(clock.now())\n            await asyncio.sleep(1)\n"
        mute = spoilt(tmp_path, "node/link.py", head, head + "        while True:\n" + pause)
        assert update(house, "build", "--version", "mute", firmware=mute).returncode == 0
        done = update(house, "push", timeout=LONG)
        assert done.returncode == 1, done.stdout + done.stderr
        nodes = json.loads((house.home / "updates/rollout.json").read_text())["nodes"]
        assert [step for step, _ in nodes.values() if step != "waiting"] == ["returned"]
        wait_for(
            lambda: all(watcher.latest(f"/plant/{n}/status").get("state") == "online" for n in names), "online", 120
        )
        assert {str(said(watcher, name)["slot"]) for name in names} == {"factory"}

        assert update(house, "build", "--version", "good").returncode == 0
        done = update(house, "push", timeout=LONG)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_for(lambda: {said(watcher, name).get("version") for name in names} == {"good"}, "the last word", 60)
        print(done.stdout)
