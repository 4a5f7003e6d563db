"""A gateway that is trusted and hostile: nothing that it can do often wears the node out or keeps it from its work."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tools.fleet import find_micropython
from tools.fleet.node import HEAP

from .conftest import MakeNode
from .gateway import PUBACK, PUBLISH, Gateway, publish

SET = "/plant/peanut/UpdateTemperature"
AT_ONCE = 8  # commands on their way at a time, so that the node has some in each of its turns


@pytest.mark.timeout(200)  # 4 s of a quiet core
def test_limits_and_failures_of_the_app(make_node: MakeNode) -> None:
    """Every check of app_run.py, each of which runs the app on the unix port, in a heap like the chip's."""
    node = make_node(1, simulate={"speed": 600})
    node.install()
    script = Path(__file__).parent / "app_run.py"
    done = subprocess.run(
        [find_micropython(), "-X", f"heapsize={HEAP}", str(script)],
        cwd=node.workdir,
        env={"MICROPYPATH": f"{node.workdir}:.frozen"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    ran = [line.removeprefix("ok ") for line in done.stdout.splitlines() if line.startswith("ok ")]
    defined = [
        line[10:].split("(")[0] for line in script.read_text().splitlines() if line.startswith("async def check_")
    ]
    assert ran == sorted(defined)


def test_bad_commands_without_end_starve_neither_telemetry_nor_state(gateway: Gateway, make_node: MakeNode) -> None:
    """A new bad command for each answer, for ever: readings keep their interval, state is told, the log is small."""
    node = make_node(gateway.port, report={"telemetry_s": 0.1, "state_s": 1}, simulate={"speed": 600})
    node.start()
    peer = gateway.accept()
    peer.welcome()
    number = itertools.count(1)
    seen: Counter[str] = Counter()
    for _ in range(AT_ONCE):
        peer.send(publish(SET, "temperature:99", ident=next(number) % 65535 + 1))
    begun = time.monotonic()
    while seen["ack"] <= 100 or seen["telemetry"] <= 20 or seen["state"] < 3:
        assert time.monotonic() - begun < 100, seen
        found = peer.read()
        assert found is not None, node.log[-2000:]
        if found.type == PUBACK:
            peer.send(publish(SET, "temperature:99", ident=next(number) % 65535 + 1))
        elif found.type == PUBLISH:
            seen[found.topic.rsplit("/", 1)[1]] += 1
            if found.qos:
                peer.puback(found)
    assert node.log.count("rejected") <= 20 + (time.monotonic() - begun) / 3 + 1
    node.wait_for_log("lines about commands left out")


def test_a_gateway_that_acknowledges_nothing_still_gets_readings(gateway: Gateway, make_node: MakeNode) -> None:
    """With all places in flight taken, acks and state wait; telemetry (QoS 0) does not."""
    node = make_node(gateway.port, report={"telemetry_s": 0.1})
    node.start()
    peer = gateway.accept()
    peer.welcome()
    for i in range(6):
        peer.send(publish(SET, "temperature:99", ident=i + 1))
    readings = 0
    while readings < 10:
        found = peer.read()
        assert found is not None
        readings += found.type == PUBLISH and found.topic.endswith("/telemetry")
