"""Updates over the air, as a user rolls them out: build, push, what a node says, pause, resume, withdraw.

long_update.py has bad builds, which get nowhere, and many nodes.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from peanut import release
from tests.system.conftest import BIN, DEADLINE, House, Watcher, wait_for

TOPICS = ("/plant/+/status", "/plant/+/ota/status")
# As slow as the world, so that they cost little; warm, so that nothing heats and nobody waits to restart. An update on
# trial has three times health_s to connect, on whatever machine this is.
CALM = ("link.health_s=10", "simulate.speed=1", "simulate.start=25")
LONG = 8 * DEADLINE  # for a roll-out on a machine that has other things to do


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
def test_a_build_reaches_a_node(house: House) -> None:
    """It runs from the other slot, says so, and obeys."""
    with house.node("ash", *CALM) as node, house.watch(*TOPICS) as watcher:
        wait_for(lambda: said(watcher, "ash").get("stage") == "running", "first status", LONG)
        assert update(house, "build", "--board", "sim", "--version", "good").returncode == 0
        done = update(house, "push")
        assert done.returncode == 0, done.stdout + done.stderr + node.log[-6000:]
        assert steps(house)["ash"] == ["good", ""]
        wait_for(lambda: said(watcher, "ash").get("version") == "good", "its last word", LONG)
        run = json.loads((node.workdir / "slot.json").read_text())["run"]
        assert (run[0], run[2]) == ("a", "good")
        assert house.peanut("send", "ash", "UpdateTemperature", "15").returncode == 0


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
