"""A root replaced and a board revoked, end to end: real nodes, the real programs. Run by `make test-long`.

The fast suite has the parts: tests/provisioning/test_rotation.py (the steps), tests/firmware/test_renewal.py (a node
that trusts two roots), tests/broker/test_revoked.py (who is cut, and comes in no more).
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from peanut import ca, renewal, store
from peanut.home import Home
from tests.system.car import VIN, Car
from tests.system.conftest import House, wait_for


@pytest.mark.timeout(600)
def test_the_root_is_replaced_and_no_node_is_offline_for_it(house: House) -> None:
    """Two steps and an end, each brought to a real node over its session. It restarts to try what is new, and is back
    each time with what was in force; at the end it trusts the new root alone, and so does its gateway's certificate.
    """
    home = Home(house.home)
    old = store.root_certificate(home)
    with house.node("peanut") as node:
        node.wait_for_log("online at", timeout=120)

        def obeys(value: int) -> bool:
            return house.peanut("send", "peanut", "UpdateTemperature", str(value)).returncode == 0

        wait_for(lambda: obeys(16), "obedience")
        for number, command in enumerate((("rotate", "--root"), ("rotate", "--root"), ("finish",))):
            done = house.peanut("ca", *command)
            assert done.returncode == 0, done.stdout + done.stderr
            renewed = wait_for(
                lambda: (
                    (made := house.peanut("renew", "--wait", "180", timeout=240)).returncode == 0
                    and "peanut: " in made.stdout
                    and made
                ),
                f"renewal after step {number}",
                60,
            )
            assert "peanut: trusts" in renewed.stdout or "peanut: has certificate" in renewed.stdout
            wait_for(lambda number=number: obeys(17 + number), "obedience")
        (root,) = store.roots(home)
        assert root != old
        assert ca.issued_by(store.certificate(home.devices / "peanut" / "cert.der"), store.issuing(home).certificate)
        told = json.loads(house.peanut("device", "list", "--json", check=True).stdout)[0]["seen"]
        assert told["roots"] == renewal.root_prints([root])
        assert told["errors"] == []
        # From nothing but the new root on: a power cut, and a gateway that has seen nothing of the old one.
        house.stop()
        house.start()
        node.kill()
        node.start()
        wait_for(lambda: obeys(21), "obedience")


@pytest.mark.timeout(600)
def test_a_vehicle_is_renewed_and_obeys_still(house: House) -> None:
    """The key that its commands are signed with is another one, and stays."""
    car = Car(house)
    try:
        car.node.start()
        car.node.wait_for_log("online", 60)
        wait_for(lambda: car.send("unlock")[0] == 0, "obedience", 60)
        car.wait_open()
        bundle = house.home / "devices" / VIN
        before = renewal.serial(store.certificate(bundle / "cert.der"))
        signed = (bundle / "sign.key").read_bytes()
        done = house.peanut("device", "renew", VIN, "--wait", "120", timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr + car.node.log
        after = renewal.serial(store.certificate(bundle / "cert.der"))
        assert before != after
        assert f"{VIN}: has certificate {after[:12]}" in done.stdout
        assert (bundle / "sign.key").read_bytes() == signed
        told = json.loads(house.peanut("device", "list", "--json", check=True).stdout)[0]["seen"]
        assert told["serial"] == after
        wait_for(lambda: car.send("unlock")[0] == 0, "obedience with the new certificate", 60)
    finally:
        car.close()


def test_a_node_that_is_revoked_is_out_and_a_new_board_in_its_name_is_in(house: House, tmp_path: Path) -> None:
    with house.node("peanut") as stolen:
        with house.watch("/plant/peanut/status") as watcher:
            wait_for(lambda: watcher.latest("/plant/peanut/status").get("state") == "online", "birth")
            done = house.peanut("device", "revoke", "peanut", "--why", "stolen", check=True)
            assert "connections cut: 1" in done.stdout
            wait_for(lambda: watcher.latest("/plant/peanut/status").get("state") == "offline", "its will")
            wait_for(lambda: "handshake failed" in house.log and "revoked since" in house.log, "the next try")
        house.stop(signal.SIGTERM)
        house.start()
        wait_for(lambda: stolen.log.count("; again in") >= 3, "more tries")
        assert house.peanut("send", "peanut", "UpdateTemperature", "16", "--timeout", "1").returncode == 6
        renewed = house.peanut("device", "renew", "peanut", check=True)
        assert "now flash it" in renewed.stdout
        with house.node("peanut") as new:
            new.wait_for_log("online at", timeout=120)
            assert house.peanut("send", "peanut", "UpdateTemperature", "16").returncode == 0
        assert "online at" not in stolen.log.split("; again in", 1)[1]
