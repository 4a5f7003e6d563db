"""A node whose certificate has expired: for a while it is let in to be renewed, and can do nothing else.

Dates are in the certificates; nothing is waited for.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from peanutd import access, control, rules
from peanutd.access import IdentityError, Kind
from peanutd.config import ConfigError, parse
from peanutd.control import ControlError
from peanutd.seen import KEPT, Seen
from peanutd.server import CERTIFICATE_MAX
from tests.broker.conftest import wait_for_control

DAY = timedelta(days=1)
LISTEN = '[listen]\nmqtts = "127.0.0.1:0"\n'
URI = "peanut:plant/peanut"


def expired(fleet: Any, days: float, uri: str = URI) -> Any:
    now = datetime.now(UTC)
    return fleet.issue(uri, start=now - 300 * DAY, end=now - days * DAY)


def ask(home: Any, question: dict[str, Any]) -> dict[str, Any]:
    """Once the gateway has its control socket, which is the last thing it opens."""
    wait_for_control(home)
    return control.ask(home, question)


# --- the verdict ---


def test_within_its_grace_a_node_is_known_and_marked(shared_fleet: Any) -> None:
    fleet, now = shared_fleet, datetime.now(UTC)
    authorities = [fleet.root.certificate, fleet.issuing.certificate]
    leaf = expired(fleet, 3)
    found = access.identify(leaf.der, authorities, now, 30 * DAY)
    assert found.expired
    assert found.ends == leaf.certificate.not_valid_after_utc
    assert found.not_after == found.ends + 30 * DAY
    good = access.identify(fleet.issue(URI).der, authorities, now, 30 * DAY)
    assert not good.expired
    assert good.not_after == good.ends
    for der, grace in ((leaf.der, 2 * DAY), (leaf.der, timedelta(0)), (expired(fleet, 31).der, 30 * DAY)):
        with pytest.raises(IdentityError, match="certificate of greenhouse peanut expired since"):
            access.identify(der, authorities, now, grace)


def test_nobody_but_a_node_has_a_grace(shared_fleet: Any) -> None:
    authorities = [shared_fleet.root.certificate, shared_fleet.issuing.certificate]
    with pytest.raises(IdentityError, match="operator anna expired"):
        access.identify(expired(shared_fleet, 1, "peanut:operator/anna").der, authorities, datetime.now(UTC), 30 * DAY)


def test_the_grace_ends_with_the_ca(shared_fleet: Any, signer: Any) -> None:
    now = datetime.now(UTC)
    short = signer("short", shared_fleet.root, now - 400 * DAY, 410)
    leaf = shared_fleet.issue(URI, issuer=short, start=now - 300 * DAY, end=now - DAY)
    found = access.identify(leaf.der, [shared_fleet.root.certificate, short.certificate], now, 30 * DAY)
    assert found.not_after == short.certificate.not_valid_after_utc


@pytest.mark.parametrize("days", ["-1", "367", '"30"', "true"])
def test_the_grace_has_bounds(days: str) -> None:
    with pytest.raises(ConfigError, match="renew_grace_days"):
        parse(f"[access]\nrenew_grace_days = {days}\n", "gateway.toml", {})


def test_the_rules_of_renewal_stand_before_every_file() -> None:
    book = rules.parse('[[rule]]\nallow = "both"\ntopic = ["#", "$cert/#"]\n', "x", "x")
    for slot in access.Slot:
        node = {"plant": "$cert/plant/{id}", "vin": "$cert/vin/{id}"}.get(slot.kind)
        first = [item[3] for item, _ in book.sets[slot] if item[0] and item[3].startswith("$cert/")]
        assert first[:1] == ([node] if node else ["$cert/#"])
        topics = [item[3] for item, _ in book.sets[slot]]
        if slot.expired:
            assert len(topics) == 4
        else:
            assert topics.index("$cert/#") < topics.index("#"), "denied before it is allowed"


# --- the gateway ---


@pytest.mark.parametrize("version", [4])  # what nodes speak
def test_it_may_be_renewed_and_nothing_else(fleet: Any, start: Any, dial: Any, version: int) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    watching = dial(daemon.port(), fleet.context(fleet.issue("peanut:operator/anna")))
    assert watching.connect("watch")[1] == 0
    assert watching.subscribe("#", "/plant/#") == b"\x01\x01"
    fresh = dial(daemon.port(), fleet.context(fleet.issue(URI)), version)
    assert fresh.connect("peanut", clean=False)[1] == 0
    assert fresh.subscribe("/plant/peanut/cmd/+", "$cert/plant/peanut") == b"\x01\x01"
    fresh.disconnect()
    fresh.closed()
    node = dial(daemon.port(), fleet.context(expired(fleet, 3)), version)
    assert node.connect("peanut", clean=False, will=("/plant/peanut/status", b"offline"))[1] == 0
    daemon.line("connected, only to have its certificate renewed who=plant/peanut")
    no = b"\x80" if version == 4 else b"\x87"
    asked = ("$cert/plant/peanut", "/plant/peanut/cmd/+", "fleet/#", "#", "$cert/plant/tomato", "$cert/#", "$SYS/#")
    assert node.subscribe(*asked) == b"\x01" + 6 * no
    node.publish("/plant/peanut/state", b"secretly on")
    node.publish("/plant/peanut/cert/reported", b'{"serial":"ab"}')
    assert watching.message()[:2] == ("/plant/peanut/cert/reported", b'{"serial":"ab"}'), "and not the state before it"
    # What was subscribed with the certificate of before has ended: only the new key comes, and nobody else sees it.
    watching.publish("/plant/peanut/cmd/vent", b"{}")
    parts = {"key": "a2V5", "cert": "Y2VydA=="}
    asked_for = {"command": "certificate", "identity": "plant/peanut", "certificate": parts}
    assert ask(fleet.home, asked_for) == {"sent": True}
    topic, payload, retained = node.message()
    assert (topic, json.loads(payload), retained) == ("$cert/plant/peanut", parts, False)
    assert watching.message()[0] == "/plant/peanut/cmd/vent"
    watching.publish("fleet/last", b"")
    assert watching.message()[0] == "fleet/last", "the key did not come by"


@pytest.mark.parametrize("version", [4, 5])
def test_nobody_else_gets_or_sends_a_key(fleet: Any, start: Any, dial: Any, version: int) -> None:
    """Not with every wildcard, not by sharing, not as another node, and whatever rules.toml allows."""
    (fleet.home / "rules.toml").write_text('[[rule]]\nallow = "both"\ntopic = ["#", "$cert/#", "+/plant/+"]\n')
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    node = dial(daemon.port(), fleet.context(fleet.issue(URI)), version)
    assert node.connect("peanut")[1] == 0
    assert node.subscribe("$cert/plant/peanut") == b"\x01"
    no, mine = (b"\x80" if version == 4 else b"\x87"), "$cert/plant/peanut"
    asked = (
        mine,
        "$cert/#",
        "$cert/plant/+",
        f"$share/g/{mine}",
        "$share/g/$cert/#",
        "$share/g/#",
        "#",
        "+/plant/peanut",
    )
    thieves = []
    for uri in ("peanut:operator/anna", "peanut:plant/tomato"):
        thief = dial(daemon.port(), fleet.context(fleet.issue(uri)), version)
        assert thief.connect(uri.rpartition("/")[2])[1] == 0
        assert thief.subscribe(*asked) == 5 * no + 3 * b"\x01"
        thief.publish(mine, b'{"key":"forged"}')
        thieves.append(thief)
    parts = {"key": "a2V5", "cert": "Y2VydA=="}
    assert ask(fleet.home, {"command": "certificate", "identity": "plant/peanut", "certificate": parts})["sent"]
    assert json.loads(node.message()[1]) == parts, "and nothing forged before it"
    for thief in thieves:
        thief.publish("last", b"")
        assert thief.message()[0] == "last"


def test_the_grace_can_be_changed_while_it_runs(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN + "[access]\nrenew_grace_days = 0\n")
    daemon = start(fleet.home)
    context = fleet.context(expired(fleet, 3))
    assert dial(daemon.port(), context).connect("peanut")[1] == 0x87
    fleet.settings(LISTEN + "[access]\nrenew_grace_days = 4\n")
    ask(fleet.home, {"command": "reload"})
    assert dial(daemon.port(), context).connect("peanut")[1] == 0


def test_a_key_is_sent_to_who_is_there_and_kept_for_nobody(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    context = fleet.context(fleet.issue(URI))
    node = dial(daemon.port(), context)
    assert node.connect("peanut", clean=False)[1] == 0
    assert node.subscribe("$cert/plant/peanut") == b"\x01"
    node.disconnect()
    node.closed()
    parts = {"key": "c2VjcmV0", "cert": "Y2VydA=="}
    question = {"command": "certificate", "identity": "plant/peanut", "certificate": parts}
    assert ask(fleet.home, question) == {"sent": False}
    too_long = {**question, "certificate": {"key": "x" * CERTIFICATE_MAX}}
    with pytest.raises(ControlError, match=f"more than {CERTIFICATE_MAX} bytes"):
        ask(fleet.home, too_long)
    again = dial(daemon.port(), context)
    assert again.connect("peanut", clean=False)[1] == 0
    again.ping()
    assert not again._kept, "nothing was queued"
    daemon.stop()
    assert not any(b"c2VjcmV0" in path.read_bytes() for path in fleet.home.iterdir() if path.is_file())


# --- who has been seen ---


def test_who_comes_is_recorded(fleet: Any, start: Any, dial: Any) -> None:
    fleet.settings(LISTEN)
    daemon = start(fleet.home)
    leaf = fleet.issue(URI)
    node = dial(daemon.port(), fleet.context(leaf), source="127.9.8.7")
    assert node.connect("peanut")[1] == 0
    node.publish("/plant/peanut/status", b'{"state":"online","fw":"0.1.0"}', retain=True)
    serial = f"{leaf.certificate.serial_number:x}"
    told = json.dumps({"serial": serial, "chip": "240ac4b0a7d0", "trial": False, "errors": [], "ca": ["ab"]})
    node.publish("/plant/peanut/cert/reported", told.encode(), retain=True)
    node.ping()
    answer = ask(fleet.home, {"command": "seen"})
    assert answer["online"] == {"plant/peanut": serial}
    record = answer["seen"]["plant/peanut"]
    assert (record["serial"], record["address"], record["networks"]) == (serial, "127.9.8.7", ["127.9.8.0/24"])
    assert (record["fw"], record["chips"]) == ("0.1.0", ["240ac4b0a7d0"])
    assert record["not_after"] == int(leaf.certificate.not_valid_after_utc.timestamp())
    assert len(record["keys"][0]) == 64
    assert record["reported"] == {"serial": serial, "trial": False, "errors": [], "ca": ["ab"]}
    daemon.stop()
    path = fleet.home / "seen.json"
    assert path.stat().st_mode & 0o777 == 0o600
    kept = json.loads(path.read_text())["seen"]["plant/peanut"]
    assert kept | {"last": 0} == record | {"last": 0}
    daemon = start(fleet.home)
    daemon.port()
    assert ask(fleet.home, {"command": "seen"})["seen"]["plant/peanut"]["first"] == record["first"]


def seen(tmp_path: Any) -> Seen:
    made = Seen(tmp_path, lambda: 1795000000.0)
    made.came(access.Credential(access.Identity(Kind.PLANT, "peanut"), datetime.now(UTC), "ab", "cd"), "10.0.0.1")
    return made


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"[" * 4000, b'{"chip":7,"errors":{},"ca":"x"}', b"x" * 5000])
def test_reports_that_mean_nothing_do_no_harm(tmp_path: Any, payload: bytes) -> None:
    made = seen(tmp_path)
    for leaf in ("status", "cert/reported", "telemetry"):
        made.heard("plant/peanut", leaf, payload)
        made.heard("plant/unknown", leaf, payload)
    assert set(made.records) == {"plant/peanut"}
    assert "chips" not in made.records["plant/peanut"]


def test_what_was_before_is_kept_within_a_bound(tmp_path: Any) -> None:
    made = seen(tmp_path)
    for number in [*range(9), 8, 7]:
        made.heard("plant/peanut", "cert/reported", json.dumps({"chip": f"chip{number}" + "\n" + "x" * 99}).encode())
    chips = made.records["plant/peanut"]["chips"]
    assert len(chips) == KEPT
    assert chips[-1].startswith("chip7x")
    assert len(chips[-1]) == 64


def test_a_file_that_is_damaged_is_said_and_begun_anew(tmp_path: Any) -> None:
    for raw in ("{", '{"format":1,"seen":{"plant/../x":{"first":1}}}', '{"format":1,"seen":{"plant/x":{}}}', "[]"):
        (tmp_path / "seen.json").write_text(raw)
        made = Seen(tmp_path, lambda: 0.0)
        assert made.problem is not None
        assert made.records == {}
