"""Signed commands, signer against gate: what `peanut` signs, the vehicle's own code takes, and the other way round."""

import hmac
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from peanut import send, signing
from peanut.errors import PeanutError
from peanut.names import Kind

sys.path.insert(0, str(Path(__file__).parents[2] / "firmware"))
from node.signed import AHEAD_S, MAX_SIZE, Gate

VIN = "1M8GDM9AXKP042788"
KEY = bytes(range(1, 33))


def gate(epoch: str = "00ff", counter: int = 4) -> Any:
    return Gate(KEY, VIN, epoch, counter, lambda number: None)


def made(verb: str = "unlock", argument: str = "", session: signing.Session | None = None) -> bytes:
    now = session or signing.Session("00ff", 4, 100)
    return json.dumps(signing.signed(KEY, VIN, verb, "i1", argument, now)).encode()


@pytest.mark.parametrize("verb", signing.VERBS)
def test_the_vehicle_takes_what_is_signed(verb: str) -> None:
    payload = made(verb, "lvl=2")
    order = gate().judge(verb, payload, False, 0, 103)
    assert (order.why, order.ctr, order.args) == (None, 5, "lvl=2")
    assert signing.LIFETIME_S <= AHEAD_S
    assert len(made(verb, "x" * signing.ARGUMENT_MAX)) <= MAX_SIZE


def test_a_command_for_another_vehicle_or_boot_is_refused() -> None:
    assert (
        Gate(KEY, "1M8GDM9AXKP042789", "00ff", 4, lambda number: None)
        .judge("unlock", made(), False, 0, 100)
        .why.startswith("bad_sig")
    )
    assert gate("00fe").judge("unlock", made(), False, 0, 100).why.startswith("replay")
    assert gate().judge("unlock", made(), False, 0, 100 + signing.LIFETIME_S).why.startswith("expired")


@pytest.mark.parametrize(
    ("stage", "why"), [("accepted", None), ("done", None), ("rejected", "unsafe: moving at 3 km/h")]
)
def test_a_receipt_is_believed_and_nothing_else(stage: str, why: str | None) -> None:
    here, payload = gate(), made()
    order = here.judge("unlock", payload, False, 0, 100)
    answer = {"id": order.id, "stage": stage, "why": why, "sig": here.receipt(order, stage, why)}
    assert signing.genuine(KEY, VIN, payload, answer)
    assert not signing.genuine(bytes(32), VIN, payload, answer)
    assert not signing.genuine(KEY, VIN, payload + b" ", answer)
    for name, other in (
        ("id", "i2"),
        ("stage", "x"),
        ("why", "fine"),
        ("sig", "0" * 64),
        ("sig", None),
        ("sig", 5),
        ("id", 1),
    ):
        assert not signing.genuine(KEY, VIN, payload, {**answer, name: other})


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"epoch": "00ff", "ctr": 1},
        {"epoch": "00ff", "ctr": True, "up": 1},
        {"epoch": "00ff", "ctr": -1, "up": 1},
        {"epoch": "00ff", "ctr": 1 << 53, "up": 1},
        {"epoch": "00ff", "ctr": 1.0, "up": 1},
        {"epoch": "0|f", "ctr": 1, "up": 1},
        {"epoch": "", "ctr": 1, "up": 1},
        {"epoch": "f" * 65, "ctr": 1, "up": 1},
        {"epoch": "ü", "ctr": 1, "up": 1},
    ],
)
def test_a_session_that_is_none(content: dict[str, Any]) -> None:
    text = "|".join(["v1", VIN, *(str(content.get(name)) for name in ("epoch", "ctr", "up"))])
    assert signing.session(KEY, VIN, {**content, "sig": session_code(text)}) is None


def session_code(text: str) -> str:
    return hmac.new(hmac.digest(KEY, b"vin-session-v1", "sha256"), text.encode(), "sha256").hexdigest()


def test_a_session_is_believed_as_the_vehicle_says_it_and_no_other() -> None:
    said = gate().session(12)
    assert said["sig"] == session_code(f"v1|{VIN}|00ff|4|12")
    assert signing.session(KEY, VIN, {**said, "more": 1}) == signing.Session("00ff", 4, 12)
    assert signing.session(bytes(32), VIN, said) is None
    assert signing.session(KEY, "1M8GDM9AXKP042789", said) is None
    for name, other in (("epoch", "00fe"), ("ctr", 5), ("up", 13), ("sig", "0" * 64), ("sig", None), ("sig", "\ud800")):
        assert signing.session(KEY, VIN, {**said, name: other}) is None


def test_what_cannot_be_signed_is_said(tmp_path: Path) -> None:
    for verb, values, why in (
        ("open", [], "is not a command of a vehicle"),
        ("start", ["x" * 65], "one short argument"),
        ("start", ["a|b"], "one short argument"),
        ("start", ["\u00e4"], "one short argument"),
        ("start", ["a\nb"], "one short argument"),
    ):
        with pytest.raises(PeanutError, match=why):
            send.compose(VIN, Kind.VEHICLE, verb, values, KEY)
    assert send.compose(VIN, Kind.VEHICLE, "start", [], KEY).topic == f"vin/{VIN}/start"
    (tmp_path / "sign.key").write_bytes(b"short")
    with pytest.raises(PeanutError, match="not a device key: 5 bytes"):
        signing.read_key(tmp_path / "sign.key")
    (tmp_path / "sign.key").write_bytes(signing.new_key())
    assert len(signing.read_key(tmp_path / "sign.key")) == signing.KEY_SIZE
