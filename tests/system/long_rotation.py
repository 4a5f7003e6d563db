"""The root replaced, end to end: a real node, the real programs, no minute offline. Run by `make test-long`.

The fast suite has its parts: tests/provisioning/test_rotation.py (the steps) and tests/firmware/test_renewal.py (a node
that trusts two roots).
"""

from __future__ import annotations

import json

import pytest

from peanut import ca, renewal, store
from peanut.home import Home
from tests.system.conftest import House, wait_for


@pytest.mark.timeout(600)
def test_the_root_is_replaced_and_no_node_is_offline_for_it(house: House) -> None:
    """Two steps and an end, each brought to a real node over its session. It restarts to try what is new, and is back
    each time with what was in force; at the end it trusts the new root alone, and so does its gateway's certificate.
    """
    home = Home(house.home)
    old = store.root_certificate(home)
    with house.node("peanut") as node:
        node.wait_for_log("online at", timeout=30)

        def obeys(value: int) -> bool:
            return house.peanut("send", "peanut", "UpdateTemperature", str(value)).returncode == 0

        wait_for(lambda: obeys(16), "obedience")
        for number, command in enumerate((("rotate", "--root"), ("rotate", "--root"), ("finish",))):
            done = house.peanut("ca", *command)
            assert done.returncode == 0, done.stdout + done.stderr
            renewed = wait_for(
                lambda: (
                    (made := house.peanut("renew", "--wait", "60", timeout=90)).returncode == 0
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
