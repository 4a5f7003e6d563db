"""`peanut audit` and what `peanut device list` knows: each finding with a fleet that has just that."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from peanut import audit, ca, ledger, renewal, store
from peanut.home import Home

from .conftest import Run

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _root_is_elsewhere(home: Home) -> None:
    for name in ("root.key", "root.pass"):
        (home.ca / name).unlink()


def see(home: Home, **records: dict[str, Any]) -> None:
    """As the gateway writes it."""
    usual = {"first": 1795000000, "last": 1795003600, "address": "192.168.1.7", "networks": ["192.168.1.0/24"]}
    seen = {f"plant/{name}": {**usual, **record} for name, record in records.items()}
    (home.path / "seen.json").write_text(json.dumps({"format": 1, "seen": seen}))
    (home.path / "seen.json").chmod(0o600)


def found(home: Home, now: datetime = NOW) -> list[str]:
    return [f"{finding.level} {finding.who}: {finding.what}" for finding in audit.audit(home, now)]


def row(home: Home, name: str = "peanut") -> ledger.Device:
    made = ledger.device(home.ledger, name)
    assert made is not None
    return made


def test_a_good_fleet_has_nothing(home: Home, run: Run) -> None:
    see(home, peanut={"serial": row(home).serial, "chips": ["240ac4b0a7d0"]})
    assert found(home) == []
    done = run("audit")
    assert (done.exit_code, done.output) == (0, "nothing found\n")


def test_the_exit_status_and_json(home: Home, run: Run) -> None:
    (home.device("peanut") / "key.der").chmod(0o644)
    done = run("audit", "--json")
    assert done.exit_code == 1
    (finding,) = json.loads(done.output)
    assert (finding["level"], finding["who"]) == ("error", "devices/peanut/key.der")
    assert "chmod 600" in finding["fix"]


def test_two_devices_with_one_key(home: Home) -> None:
    public = store.certificate(home.device("peanut") / "cert.der").public_key()
    assert isinstance(public, ca.PublicKey)
    made = ca.issue_client(public, "tomato", "peanut:plant/tomato", store.issuing(home), NOW)
    shutil.copy(home.device("peanut") / "key.der", home.device("tomato") / "key.der")
    (home.device("tomato") / "cert.der").write_bytes(ca.certificate_der(made))
    assert next(line for line in found(home) if "share one key" in line).startswith("error peanut, tomato: ")


def test_a_key_that_was_seen_at_another(home: Home) -> None:
    key = audit.spki(store.certificate(home.device("peanut") / "cert.der"))
    see(home, tomato={"keys": ["00" * 32, key]})
    assert any(line.startswith("error peanut, tomato: share one key") for line in found(home))


def test_another_chip(home: Home) -> None:
    see(home, peanut={"chips": ["aa", "bb"]}, tomato={"chips": ["cc"]})
    assert "error peanut: has come with another chip: aa -> bb" in found(home)
    (home.device("tomato") / "flashed.toml").write_text('mac = "24:0a:c4:b0:a7:d0"\n')
    assert "error tomato: was flashed to 240ac4b0a7d0, and comes with the chip cc" in found(home)
    see(home, peanut={"chips": ["cc"]}, tomato={"chips": ["cc"]})
    assert "error peanut, tomato: have come with the same chip (cc)" in found(home)


def test_other_addresses_and_another_certificate(home: Home) -> None:
    nets = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]
    see(home, peanut={"networks": nets, "serial": "abcdef0123456789", "reported": {"errors": ["ab: no session"]}})
    lines = found(home)
    assert any("warning peanut: has come from 3 networks" in line for line in lines)
    assert "warning peanut: comes with abcdef012345, which is not in the ledger" in lines
    assert "warning peanut: gave up a new certificate: ab: no session" in lines


def test_what_is_on_its_way_is_no_stranger(home: Home) -> None:
    made = renewal.stage(home, row(home), NOW)
    see(home, peanut={"serial": renewal.serial(made)})
    assert found(home) == []


def test_what_ends_soon_or_has_ended(home: Home) -> None:
    lines = found(home, NOW + timedelta(days=300))
    assert any(line.startswith("warning peanut: is valid until") and "not renewed" in line for line in lines)
    assert any(line.startswith("error the gateway: its certificate") for line in lines)
    lines = found(home, NOW + timedelta(days=400))
    assert any(line.startswith("error peanut: its certificate expired on") for line in lines)
    lines = found(home, NOW + timedelta(days=1500))
    assert any(line.startswith("warning Peanut issuing CA") for line in lines)
    assert not any("due" in line for line in found(home, NOW + timedelta(days=200)))


def test_who_is_revoked_needs_no_renewal(home: Home, run: Run) -> None:
    assert run("device", "revoke", "peanut").exit_code == 0
    assert not any("peanut: " in line for line in found(home, NOW + timedelta(days=400)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[rule]]\nallow = "subscribe"\ntopic = "/plant/+/state"\n', "allows it to everybody"),
        ('[[rule]]\nkind = "user"\nallow = "both"\ntopic = "#"\n', "lets them publish #"),
        ('[[rule]]\nkind = "greenhouse"\nallow = "subscribe"\ntopic = ["fleet/#", "/plant/#"]\n', "lets a node read"),
        ('[[rule]]\nallow = "both"\ntopic = "home/{user}/#"\n', ""),
        ('[[rule]]\nkind = "user"\nname = "tom"\ndeny = "both"\ntopic = "#"\n', ""),
        ("not toml [", ""),
    ],
)
def test_rules_that_are_wide(home: Home, text: str, said: str) -> None:
    (home.path / "rules.toml").write_text(text)
    lines = [line for line in found(home) if "rules.toml" in line]
    assert (said in lines[0]) if said else not lines


def test_anonymous_is_said(home: Home) -> None:
    home.gateway_toml.write_text('[listen]\nmqtt = "127.0.0.1:1883"\n[access]\nanonymous = true\n')
    assert any(line.startswith("warning gateway.toml: anonymous") for line in found(home))


def test_the_root_key_on_this_machine(home: Home) -> None:
    (home.ca / "root.key").touch(mode=0o600)
    assert found(home) == ["warning ca/root.key: is still on this machine"]


def test_the_list_has_what_was_seen(home: Home, run: Run) -> None:
    see(home, peanut={"serial": row(home).serial, "chips": ["240ac4b0a7d0"], "fw": "0.1.0"})
    assert run("device", "revoke", "tomato").exit_code == 0
    lines = {line.split()[0]: line for line in run("device", "list", "--long").output.splitlines()}
    assert "2026-11-18 11:06  2026-11-18 12:06  192.168.1.7  240ac4b0a7d0  0.1.0" in lines["peanut"]
    assert "revoked" in lines["tomato"]
    assert "never" in lines["tomato"]
    listed = {entry["name"]: entry for entry in json.loads(run("device", "list", "--json").output)}
    assert listed["peanut"]["seen"]["chip"] == "240ac4b0a7d0"
    assert len(listed["peanut"]["key"]) == 64
    assert listed["tomato"]["revoked"] is True
    (home.path / "seen.json").write_text("{")
    assert run("device", "list").exit_code == 0
