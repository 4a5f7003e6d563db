"""Updates over the air, as a user rolls them out: build, push, what the nodes say, and a bad build that gets nowhere.

Rule: an update that is bad is a copy of the firmware with one line spoilt, built and signed like any other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from peanut import release
from tests.interop.programs import umqtt_path
from tests.system.conftest import BIN, DEADLINE, House, Watcher, wait_for
from tools.fleet import Node
from tools.fleet.node import FIRMWARE

TOPICS = ("/plant/+/status", "/plant/+/ota/status")
# As slow as the world, so that they cost little; warm, so that nothing heats and nobody waits to restart. An update on
# trial has three times health_s to connect, on whatever machine this is.
CALM = ("link.health_s=10", "simulate.speed=1", "simulate.start=25")
LONG = 8 * DEADLINE  # for a roll-out on a machine that has other things to do


def spoilt(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """A copy of the firmware with one text replaced."""
    folder = tmp_path / "firmware"
    shutil.copytree(FIRMWARE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    return folder


def update(
    house: House, *arguments: str, firmware: Path | None = None, timeout: float = LONG
) -> subprocess.CompletedProcess[str]:
    """`peanut update …`."""
    environment = os.environ | ({"PEANUT_FIRMWARE": str(firmware)} if firmware else {})
    return subprocess.run(
        [BIN / "peanut", "--home", house.home, "update", *arguments],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def said(watcher: Watcher, name: str) -> dict[str, object]:
    return watcher.latest(f"/plant/{name}/ota/status")


def steps(house: House) -> dict[str, list[str]]:
    """What the fleet home keeps of each node."""
    nodes: dict[str, list[str]] = json.loads((house.home / "updates/rollout.json").read_text())["nodes"]
    return nodes


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
            wait_for(lambda n=name: said(watcher, n).get("stage") == "running", "first status", LONG)  # type: ignore[misc]
        rescued = wait_for(lambda: watcher.latest("/plant/cedar/status").get("rescue"), "rescue", LONG)
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
            wait_for(lambda n=name: watcher.latest(f"/plant/{n}/status")["state"] == "online", "all online")  # type: ignore[misc]
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
            wait_for(lambda n=name: said(watcher, n).get("stage") == "running", "the last word")  # type: ignore[misc]
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


def test_a_roll_out_is_paused_resumed_and_withdrawn(house: House) -> None:
    """While its only node is away: nothing is lost by an end of the push, and one push at a time is enough."""
    house.device("ash")
    key = release.load_key((house.home / "updates/signing.key").read_bytes(), "key")
    one = release.pack({"choice.mpy": b"x"}, key, seq=1 << 31, version="1", kind="greenhouse")
    (house.home / f"updates/greenhouse-{1 << 31}.update").write_bytes(one.file)

    def push(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [BIN / "peanut", "--home", house.home, "update", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        wait_for(lambda: "waiting" in str(process.stdout and process.stdout.readline()), "it waits")
        return process

    going = push("push")
    assert "another push" in update(house, "push").stderr
    done = update(house, "pause")
    assert (done.returncode, "is paused" in done.stdout) == (0, True), done.stderr
    output, _ = going.communicate(timeout=DEADLINE)
    assert going.returncode == 0
    assert "`peanut update resume` goes on" in output
    assert "1 nodes are away" in update(house, "resume", "--no-wait").stdout

    going = push("resume")
    house.stop()  # the gateway goes, and comes back
    house.start()
    assert "is withdrawn" in update(house, "withdraw").stdout
    assert going.communicate(timeout=2 * DEADLINE)[0]
    assert going.returncode == 0
    told = json.loads(update(house, "status", "--json").stdout)
    assert (told["state"], told["running"]["ash"]["presence"]) == ("withdrawn", "offline")
    house.stop()
    done = update(house, "status")  # what the fleet home knows
    assert (done.returncode, "withdrawn" in done.stdout) == (0, True)
    assert "what the nodes run is not known" in done.stderr
