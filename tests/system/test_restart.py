"""The gateway dies and comes back: the crop does not notice, the nodes return, and nobody is told a lie meanwhile."""

from __future__ import annotations

import re
import signal
import time

from tests.system.conftest import QUICK, House, wait_for

BACKOFF_CAP_S = 2.0  # link.cap_s of these houses
assert f"link.cap_s={BACKOFF_CAP_S:.0f}" in QUICK


def test_nodes_return_after_the_gateway_was_killed_and_control_never_stopped(house: House) -> None:
    with house.node("peanut") as peanut, house.node("tomato") as tomato:
        with house.watch("/plant/+/status") as watcher:
            for name in ("peanut", "tomato"):
                wait_for(lambda name=name: watcher.latest(f"/plant/{name}/status").get("state") == "online", name)
        assert house.peanut("send", "peanut", "UpdateTemperature", "16").returncode == 0
        killed = int(time.time())
        house.stop(signal.SIGKILL)
        # The nodes notice and try again, while their control loops go on.
        begun = {node: len(node.log) for node in (peanut, tomato)}
        tries = peanut.log.count("; again in")
        wait_for(lambda: peanut.log.count("; again in") >= tries + 2, "another try to connect")
        assert peanut.running
        house.start()
        heard = {node: node.log.count("; again in") for node in (peanut, tomato)}
        with house.watch("/plant/+/status", "/plant/+/state") as watcher:
            # Until they are back they are known to be offline, not remembered as online.
            wait_for(lambda: watcher.all("/plant/peanut/status"), "the first word about peanut")
            first = watcher.all("/plant/peanut/status")[0]
            assert first["state"] == "offline" or first["ts"] >= killed, first
            for name in ("peanut", "tomato"):
                wait_for(
                    lambda name=name: watcher.latest(f"/plant/{name}/status").get("state") == "online", f"{name} back"
                )
            # At the next try, which the back-off put off no longer than it may; one try more, if that was under way
            # when the gateway began to listen.
            for node in (peanut, tomato):
                waits = [float(said) for said in re.findall(r"; again in ([\d.]+) s", node.log[begun[node] :])]
                assert waits
                assert max(waits) <= BACKOFF_CAP_S, waits
                assert node.log.count("; again in") <= heard[node] + 1
            # What was in force before the crash still is.
            wait_for(lambda: watcher.latest("/plant/peanut/state").get("setpoint") == 16.0, "the set point")
        assert house.peanut("send", "peanut", "UpdateTemperature", "17").returncode == 0


def test_a_restarted_gateway_knows_its_devices_to_be_offline(house: House) -> None:
    """Retained status of a node that does not come back: never "online"."""
    bundle = house.device("peanut")
    house.stop(signal.SIGKILL)
    house.start()
    with house.watch("/plant/peanut/status") as watcher:
        wait_for(lambda: watcher.latest("/plant/peanut/status"), "retained status")
        assert watcher.latest("/plant/peanut/status")["state"] == "offline"
    assert bundle.is_dir()


def test_sigterm_ends_in_order_and_wills_are_published_before(house: House) -> None:
    with house.node("peanut") as peanut:
        with house.watch("/plant/peanut/status") as watcher:
            wait_for(lambda: watcher.latest("/plant/peanut/status").get("state") == "online", "birth")
        assert house.stop(signal.SIGTERM) == 0
        assert "Traceback" not in house.log
        assert peanut.running
