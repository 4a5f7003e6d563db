"""Certificates that look after themselves, end to end: real nodes, the real programs, mosquitto_sub beside them.

Time is in the certificates: they are issued with the dates that a test wants, and nothing is waited for.
"""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from peanut import ca, device, renewal, store
from peanut.home import PUBLIC, Home, write_file
from tests.system.conftest import House, wait_for
from tools.fleet import Node

DAY = timedelta(days=1)


def age(house: House, name: str, days: float) -> str:
    """The node's certificate was issued so many days ago; its serial number."""
    home = Home(house.home)
    path, issuing = home.device(name) / "cert.der", store.issuing(home)
    old, then = store.certificate(path), datetime.now(UTC) - days * DAY
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), x509.random_serial_number(), then - DAY, then + 364 * DAY
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made = builder.sign(issuing.key, hashes.SHA256())
    write_file(path, ca.certificate_der(made), PUBLIC)
    device.record(home, name)
    return renewal.serial(made)


def serial(bundle: Path) -> str:
    return renewal.serial(store.certificate(bundle / "cert.der"))


@pytest.mark.timeout(600)
def test_due_and_expired_nodes_are_renewed_over_their_own_sessions(house: House, tmp_path: Path) -> None:
    """One is due, one has expired and is let in for this alone; one is young and left alone. A foreign client that
    reads everything reads no key.
    """
    bundles = {name: house.device(name) for name in ("due", "expired", "young")}
    before = {"due": age(house, "due", 300), "expired": age(house, "expired", 370), "young": serial(bundles["young"])}
    heard = tmp_path / "heard"
    with heard.open("wb") as out:
        listening = subprocess.Popen(
            house.mosquitto("mosquitto_sub", "-v", "-t", "#", "-t", "/plant/#"), stdout=out, stderr=out
        )
        try:
            with Node(bundles["due"]), Node(bundles["expired"]), Node(bundles["young"]):
                wait_for(lambda: "renewed who=plant/expired" in house.log, "quarantine")
                for name in ("due", "young"):
                    wait_for(lambda name=name: f"connected who=plant/{name}" in house.log, name)
                told = wait_for(lambda: len(heard.read_text().split("/cert/reported")) > 3, "all three reports")
                assert told
                assert house.peanut("send", "expired", "UpdateTemperature", "16", "--timeout", "1").returncode == 6
                done = house.peanut("renew", "--wait", "180", timeout=240)
                assert done.returncode == 0, done.stdout + done.stderr + house.log
                after = {name: serial(path) for name, path in bundles.items()}
                assert after["young"] == before["young"]
                assert "young" not in done.stdout
                for name in ("due", "expired"):
                    assert after[name] != before[name]
                    assert f"{name}: has certificate {after[name][:12]}" in done.stdout
                    assert not (bundles[name] / "next").exists()
                    text = renewal._base64((bundles[name] / "key.der").read_bytes())
                    assert text[:40] not in heard.read_text() + house.log + done.stdout
                wait_for(
                    lambda: house.peanut("send", "expired", "UpdateTemperature", "17").returncode == 0, "obedience"
                )
                answer = json.loads(house.peanut("device", "list", "--json", check=True).stdout)
                assert {row["name"]: row["days_left"] for row in answer}["expired"] > 360
        finally:
            listening.terminate()
            listening.wait()
