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
from tests.system.conftest import BIN, DEADLINE, House, Watcher, wait_for
from tools.fleet.node import FIRMWARE

TOPICS = ("/plant/+/status", "/plant/+/ota/status")
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


@pytest.mark.timeout(2 * LONG)
def test_a_bad_build_stops_at_the_first_node_and_a_good_one_reaches_all(house: House, tmp_path: Path) -> None:
    """Two stages; the bad one never connects. Its node returns by itself and says why; the good one is kept."""
    names = ["ash", "birch", "cedar"]
    with ExitStack() as stack:
        nodes = [stack.enter_context(house.node(name, "link.health_s=6", "simulate.speed=30")) for name in names]
        watcher = stack.enter_context(house.watch(*TOPICS))
        for name in names:
            wait_for(lambda n=name: said(watcher, n).get("stage") == "running", "first status")  # type: ignore[misc]

        head = "    async def run(self, pulse):\n"
        pause = "            pulse.beat(clock.now())\n            await asyncio.sleep(1)\n"
        mute = spoilt(tmp_path, "node/link.py", head, head + "        while True:\n" + pause)
        assert update(house, "build", "--version", "mute", firmware=mute).returncode == 0
        done = update(house, "push", "--stages", "1,100%")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "no session with the gateway" in done.stderr
        [(tried, (step, why))] = [item for item in steps(house).items() if item[1][0] != "waiting"]
        assert (step, why) == ("returned", "no session with the gateway")
        for name in names:
            wait_for(lambda n=name: watcher.latest(f"/plant/{n}/status")["state"] == "online", "all online")  # type: ignore[misc]
            assert said(watcher, name)["slot"] == "factory"
        assert said(watcher, tried)["why"] == "no session with the gateway"

        made = update(house, "build", "--version", "good")
        assert made.returncode == 0
        seq = int(made.stdout.partition("number ")[2].partition(",")[0])
        done = update(house, "push", "--stages", "1,100%")
        assert done.returncode == 0, done.stdout + done.stderr
        for name, node in zip(names, nodes, strict=True):
            assert steps(house)[name] == ["good", ""]
            wait_for(lambda n=name: said(watcher, n).get("stage") == "running", "the last word")  # type: ignore[misc]
            assert (said(watcher, name)["seq"], said(watcher, name)["version"]) == (seq, "good")
            assert json.loads((node.workdir / "slot.json").read_text())["run"] == ["a", seq, "good"]
        assert house.peanut("send", "ash", "UpdateTemperature", "15").returncode == 0
        assert "done" in update(house, "status").stdout

        # What came over the air takes the next one: compiled, with short names, into the other slot.
        signing = release.load_key((house.home / "updates/signing.key").read_bytes(), "key")
        same = release.read(Path(made.stdout.partition(": ")[0]).read_bytes(), "made").files
        one = release.pack(same, signing, seq=seq + 1, version="better", kind="greenhouse")
        (house.home / f"updates/greenhouse-{seq + 1}.update").write_bytes(one.file)
        done = update(house, "push", "--to", "birch")
        assert done.returncode == 0, done.stdout + done.stderr
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
    assert json.loads(update(house, "status", "--json").stdout)["state"] == "withdrawn"
