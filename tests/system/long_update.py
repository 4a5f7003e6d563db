"""A build that never connects stops at the first of its nodes, and a good one reaches all: three of them, and fifty.

Rule: an update that is bad is a copy of the firmware with one line spoilt, built and signed like any other. `make
test-long` runs it; ROLLOUT_NODES sets how many nodes there are.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from peanut import release
from peanut.__main__ import main
from tests.interop.programs import umqtt_path
from tests.system.conftest import House, wait_for
from tests.system.test_update import CALM, TOPICS, said, steps, update
from tools.fleet import Node
from tools.fleet.node import FIRMWARE

COUNT = int(os.environ.get("ROLLOUT_NODES", "50"))
LONG = 1200
# The houses are as slow as the world: fifty of them share this machine.
SLOW = ["simulate.speed=1", "report.telemetry_s=60", "link.base_s=0.5", "link.cap_s=5", "link.first_s=2"]
SLOW += ["link.health_s=20", "simulate.start=25"]  # warm: nothing heats, so nobody waits to restart


def spoilt(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """A copy of the firmware with one text replaced."""
    folder = tmp_path / "firmware"
    shutil.copytree(FIRMWARE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    return folder


def enrol(house: House, name: str) -> Path:
    """A simulated greenhouse."""
    words = [word for setting in SLOW for word in ("--set", setting)]
    done = CliRunner().invoke(
        main, ["--home", str(house.home), "device", "add", name, "--kind", "greenhouse", "--board", "sim", *words]
    )
    assert done.exit_code == 0, done.output
    return house.home / "devices" / name


class Rescued(Node):
    """A node whose application was spoilt where it lies: rescue is all that it has, and umqtt.simple in its image."""

    def install(self) -> None:
        super().install()
        image = self.workdir / "umqtt"
        if not image.exists():
            shutil.copytree(Path(umqtt_path()["MICROPYPATH"].split(":")[0]) / "umqtt", image)
        (self.workdir / "node/start.py").write_text("raise RuntimeError('spoilt')\n")


@pytest.mark.timeout(2 * LONG)
def test_a_bad_build_stops_at_the_first_node_and_a_good_one_reaches_all(house: House, tmp_path: Path) -> None:
    """Two stages; the bad one never connects. Its node returns by itself and says why; the good one is kept, and brings
    back the application of a node that had only rescue left."""
    names = ["ash", "birch", "cedar"]
    with ExitStack() as stack:
        nodes = [stack.enter_context(house.node(name, *CALM)) for name in names[:2]]
        nodes.append(stack.enter_context(Rescued(house.device("cedar", *CALM))))
        watcher = stack.enter_context(house.watch(*TOPICS))
        for name in names[:2]:
            wait_for(lambda n=name: said(watcher, n).get("stage") == "running", "first status", 240)  # type: ignore[misc]
        rescued = wait_for(lambda: watcher.latest("/plant/cedar/status").get("rescue"), "rescue", 240)
        assert "spoilt" in rescued

        head = "    async def run(self, pulse):\n"
        pause = "            pulse.beat(clock.now())\n            await asyncio.sleep(1)\n"
        mute = spoilt(tmp_path, "node/link.py", head, head + "        while True:\n" + pause)
        assert update(house, "build", "--board", "sim", "--version", "mute", firmware=mute).returncode == 0
        done = update(house, "push", "--stages", "1,100%")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "no session with the gateway" in done.stderr
        [(tried, (step, why))] = [item for item in steps(house).items() if item[1][0] != "waiting"]
        assert (step, why) == ("returned", "no session with the gateway")
        for name in names:
            wait_for(lambda n=name: watcher.latest(f"/plant/{n}/status")["state"] == "online", "all online", 240)  # type: ignore[misc]
        for name in names[:2]:
            assert said(watcher, name)["slot"] == "factory"
        assert said(watcher, tried)["why"] == "no session with the gateway"
        told = json.loads(update(house, "status", "--json").stdout)["running"]
        assert told["cedar"]["presence"] == "rescue"
        assert (told[tried]["slot"], told[tried]["seq"]) == ("factory", 0)
        assert told[tried]["update"].endswith(" returned: no session with the gateway")

        made = update(house, "build", "--board", "sim", "--version", "good")
        assert made.returncode == 0
        seq = int(made.stdout.partition("number ")[2].partition(",")[0])
        done = update(house, "push", "--stages", "1,100%")
        assert done.returncode == 0, done.stdout + done.stderr + nodes[0].log[-6000:]
        for name, node in zip(names, nodes, strict=True):
            assert steps(house)[name] == ["good", ""]
            wait_for(lambda n=name: said(watcher, n).get("stage") == "running", "the last word", 240)  # type: ignore[misc]
            assert (said(watcher, name)["seq"], said(watcher, name)["version"]) == (seq, "good")
            assert json.loads((node.workdir / "slot.json").read_text())["run"] == ["a", seq, "good"]
        for name in ("ash", "cedar"):
            assert "rescue" not in watcher.latest(f"/plant/{name}/status")
            assert house.peanut("send", name, "UpdateTemperature", "15").returncode == 0
        told = json.loads(update(house, "status", "--json").stdout)
        assert told["state"] == "done"
        assert {one["version"] for one in told["running"].values()} == {"good"}
        assert {one["presence"] for one in told["running"].values()} == {"online"}
        shown = update(house, "status").stdout
        assert [line.split()[:5] for line in shown.splitlines()[3:]] == [
            [name, "online", "good", str(seq), "a"] for name in names
        ]

        # What came over the air takes the next one: compiled, with short names, into the other slot.
        signing = release.load_key((house.home / "updates/signing.key").read_bytes(), "key")
        same = release.read(Path(made.stdout.partition(": ")[0]).read_bytes(), "made").files
        one = release.pack(same, signing, seq=seq + 1, version="better", kind="greenhouse")
        (house.home / f"updates/greenhouse-{seq + 1}.update").write_bytes(one.file)
        done = update(house, "push", "--to", "birch")
        assert done.returncode == 0, done.stdout + done.stderr + nodes[0].log[-6000:]
        run = json.loads((nodes[1].workdir / "slot.json").read_text())
        assert (run["run"][0], run["run"][2], run["old"][0]) == ("b", "better", "a")


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
