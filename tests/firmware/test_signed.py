"""The gate of a vehicle, held against an honest signer and against strangers who have everything but the key.

What no command may ever do is stated once, in `Yard`: act twice, late or too early, in another boot or car, or altered.
Recorded, replayed, reordered, cut and joined commands, games with clocks and reboots are tried against it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.fleet import find_micropython

from .conftest import ROOT

from node import proof, signed, ticks  # isort: skip
from node.hmac import Hmac, equal  # isort: skip
from node.signed import AHEAD_S, FORGED, FORGED_MS, LOCKED_MS, MAX_SIZE, MAX_TEXT, REPEATS, VERBS, Gate  # isort: skip

KEY = hashlib.sha256(b"a car's key").digest()  # looks like no payload: the suite's output is searched for it
VIN = "WVWZZZ1JZXW000001"
EPOCH = "0123456789abcdef"


def derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose, "sha256")


def make(cmd: str = "unlock", *, key: bytes = KEY, vin: str = VIN, **fields: Any) -> bytes:
    """A command as a signer writes it: agreement 2, in the order of its fields."""
    body = {"id": "a", "cmd": cmd, "epoch": EPOCH, "ctr": 1, "exp": 110, "args": "", **fields}
    text = "|".join(["v1", vin, *(str(body[name]) for name in ("id", "cmd", "epoch", "ctr", "exp", "args"))])
    body["sig"] = hmac.new(derived(key, b"vin-cmd-v1"), text.encode(), "sha256").hexdigest()
    return json.dumps(body).encode()


def changed(payload: bytes, **fields: Any) -> bytes:
    """The same with other fields and the old signature; None leaves one out."""
    body = {**json.loads(payload), **fields}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


class Kept:
    """What the vehicle has stored, over its boots."""

    def __init__(self) -> None:
        self.counter = 0
        self.full = False

    def keep(self, counter: int) -> None:
        if self.full:
            raise OSError(28)
        self.counter = counter


def gate(kept: Kept | None = None, epoch: str = EPOCH) -> Any:
    kept = kept or Kept()
    return Gate(KEY, VIN, epoch, kept.counter, kept.keep)


def judge(
    gate: Any, payload: bytes, verb: str = "unlock", *, retained: bool = False, now: int = 0, up: int = 100
) -> Any:
    return gate.judge(verb, memoryview(payload), retained, now, up)


# --- what the parts do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "code"),
    [  # RFC 4231, test cases 1, 2, 3, 6
        (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ],
)
def test_hmac_is_that_of_rfc_4231(key: bytes, text: bytes, code: str) -> None:
    assert Hmac(key).sign(text).hex() == code


def test_the_gate_opens_on_the_unix_port_as_well() -> None:
    """The same command, the same answer, on MicroPython; and the receipt is the same one."""
    script = (
        "from node.signed import Gate\n"
        f"g = Gate({KEY!r}, {VIN!r}, {EPOCH!r}, 0, lambda n: None)\n"
        f"o = g.judge('unlock', memoryview({make()!r}), False, 0, 100)\n"
        "print(o.why, o.ctr, g.receipt(o, 'done', None))\n"
        f"print(g.judge('unlock', {changed(make(ctr=2), exp=111)!r}, False, 0, 100).why)\n"
    )
    done = subprocess.run(
        [find_micropython(), "-c", script],
        env={"MICROPYPATH": f"{ROOT / 'firmware'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    here = gate()
    order = judge(here, make())
    assert done.stdout.splitlines() == [
        f"None 1 {here.receipt(order, 'done', None)}",
        "bad_sig: the signature is not right",
    ], done.stderr


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_equal_is_equality(a: bytes, b: bytes) -> None:
    assert equal(a, b) == (a == b)
    assert equal(a, bytes(a))


def test_a_receipt_is_bound_to_the_command_and_the_answer() -> None:
    here = gate()
    payload = make(id="x1")
    order = judge(here, payload)
    text = f"v1|{VIN}|x1|rejected|unsafe: moving at 3 km/h|{hashlib.sha256(payload).hexdigest()}"
    wanted = hmac.new(derived(KEY, b"vin-ack-v1"), text.encode(), "sha256").hexdigest()
    assert here.receipt(order, "rejected", "unsafe: moving at 3 km/h") == wanted
    assert here.receipt(order, "done", None) != wanted


# --- what is refused, and why -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_right_may_act(verb: str) -> None:
    kept = Kept()
    here = gate(kept)
    order = judge(here, make(verb, ctr=7, args="lvl=2"), verb)
    assert (order.why, order.again, order.ctr, order.args, order.id) == (None, False, 7, "lvl=2", "a")
    assert kept.counter == 7, "stored before the act"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "malformed"),
        (b"unlock", "malformed"),
        (b"[]", "malformed: a JSON object"),
        (b'{"id":"a","id":"b"}', "malformed"),
        (b"\xff" * 20, "malformed"),
        (make() + b" " * MAX_SIZE, "malformed: more than 512 bytes"),
        *(
            (changed(make(), **{name: None}), f"malformed: {name}")
            for name in ("id", "cmd", "epoch", "ctr", "exp", "args", "sig")
        ),
        *((changed(make(), **{name: 1.5}), f"malformed: {name}") for name in ("id", "ctr", "exp", "args", "sig")),
        (changed(make(), ctr=True), "malformed: ctr"),
        (changed(make(), ctr=-1), "malformed: ctr"),
        (changed(make(), ctr=1 << 53), "malformed: ctr"),
        (changed(make(), extra=1), "malformed: unknown key"),
        (make(id="a|unlock"), "malformed: id"),
        (make(args="|"), "malformed: args"),
        (make(args="x" * (MAX_TEXT + 1)), "malformed: args"),
        (make(id=""), "malformed: id is empty"),
        (make(args="\u00e4"), "malformed: args must be printable"),
        (make("lock"), "malformed: the command says lock"),
        (make(epoch="0123456789abcdee"), "replay: of an earlier boot"),
        (make(exp=100), "expired 0 s ago"),
        (make(exp=1), "expired 99 s ago"),
        (make(exp=100 + AHEAD_S + 1), "range: valid for more than 30 s"),
        (make(key=bytes(32)), "bad_sig"),
        (make(vin="WVWZZZ1JZXW000002"), "bad_sig"),
        (changed(make(), sig="0" * 64), "bad_sig"),
        (changed(make(), sig=""), "bad_sig"),
        (changed(make(), args="lvl=2"), "bad_sig"),
        (changed(make(), exp=111), "bad_sig"),
        (changed(make(), ctr=2), "bad_sig"),
        (changed(make(), id="b"), "bad_sig"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(payload: bytes, why: str) -> None:
    kept = Kept()
    here = gate(kept)
    order = judge(here, payload)
    assert order.why is not None
    assert order.why.startswith(why)
    assert (here.counter, kept.counter) == (0, 0), "a forger burns no counters"
    assert judge(here, make()).why is None, "and keeps nobody else out"


def test_the_word_and_the_topic_must_agree() -> None:
    """A signed `lock` that somebody publishes under `unlock`, and a verb that no vehicle has."""
    assert judge(gate(), make("lock"), "unlock").why.startswith("malformed: the command says lock")
    assert judge(gate(), make("open"), "open").why.startswith("unknown command open")


def test_a_retained_command_is_refused() -> None:
    here = gate()
    assert judge(here, make(), retained=True).why.startswith("retained")
    assert judge(here, make()).why is None


def test_a_counter_that_cannot_be_stored_lets_nothing_act() -> None:
    kept = Kept()
    here = gate(kept)
    kept.full = True
    assert judge(here, make()).why.startswith("busy: the counter cannot be stored")
    kept.full = False
    assert judge(here, make()).why is None


def test_a_repetition_gets_the_same_answer_and_no_second_act() -> None:
    """QoS 1 may deliver twice (MQTT 3.1.1, 4.3.2)."""
    here = gate()
    payload = make()
    order = judge(here, payload)
    here.answered(order, "done")
    again = judge(here, payload)
    assert (again.why, again.again, again.answer, again.id) == (None, True, ("done", None), "a")
    assert judge(here, payload, "start").why.startswith("malformed"), "on another topic it is no repetition"
    assert judge(here, payload + b" ").why.startswith("replay"), "the same command in other bytes"
    for number in range(2, REPEATS + 2):
        assert judge(here, make(ctr=number)).why is None
    assert judge(here, payload).why.startswith("replay"), "forgotten, and refused all the same"


def test_forgeries_lock_out_for_a_while_and_raise_an_alarm() -> None:
    here = gate()
    bad = changed(make(), sig="0" * 64)
    for number in range(FORGED):
        assert judge(here, bad, now=number * 1000).why.startswith("bad_sig")
    assert here.alarm
    last = (FORGED - 1) * 1000
    assert judge(here, make(), now=last + LOCKED_MS - 1).why == "busy: locked for 1 s after forged commands"
    assert judge(here, make(), now=last + LOCKED_MS).why is None


def test_forgeries_that_are_rare_lock_nobody_out() -> None:
    here = gate()
    bad = changed(make(), sig="0" * 64)
    for number in range(3 * FORGED):
        assert judge(here, bad, now=number * FORGED_MS // (FORGED - 1)).why.startswith("bad_sig")
    assert not here.alarm


def test_a_lock_out_ends_when_the_tick_counter_has_wrapped() -> None:
    here = gate()
    begun = ticks.PERIOD - 1000
    for _ in range(FORGED):
        judge(here, changed(make(), sig="0" * 64), now=begun)
    assert judge(here, make(), now=ticks.add(begun, LOCKED_MS)).why is None


# --- the search for a way in ------------------------------------------------------------------------------------------


class Yard:
    """A vehicle, a signer who is honest, and a stranger who records all there is and may send anything at any time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.kept = Kept()
        self.boots = 0
        self.up = 0
        self.now = self.random.choice([0, ticks.PERIOD - 20_000])
        self.acted: set[bytes] = set()
        self.issued: dict[bytes, dict[str, Any]] = {}
        self.heard: list[bytes] = []
        self.boot()

    def boot(self) -> None:
        """The power was cut; sometimes what was stored is lost too."""
        if self.random.random() < 0.3:
            self.kept.counter = 0
        self.boots += 1
        self.up = 0
        self.gate = gate(self.kept, f"{self.random.getrandbits(64):016x}")

    def issue(self) -> bytes:
        """The signer makes a command that is right now; it may be delivered, delayed or lost."""
        verb = self.random.choice(VERBS)
        exp = self.up + self.random.randint(1, AHEAD_S)
        ctr = self.gate.counter + self.random.randint(1, 2)
        payload = make(verb, epoch=self.gate.epoch, ctr=ctr, exp=exp, id=f"i{len(self.issued)}")
        self.issued[payload] = {"verb": verb, "boot": self.boots, "exp": exp}
        self.heard.append(payload)
        return payload

    def stranger(self) -> bytes:
        """A recording, or one with parts of another or of the stranger's making."""
        if not self.heard:
            return b"{}"
        payload = self.random.choice(self.heard)
        if self.random.random() < 0.5:
            return payload
        body, other = json.loads(payload), json.loads(self.random.choice(self.heard))
        for name in self.random.sample(sorted(body), self.random.randint(1, 4)):
            made: dict[str, Any] = {"ctr": self.gate.counter + 1, "exp": self.up + 5, "epoch": self.gate.epoch}
            body[name] = self.random.choice([other[name], made.get(name, other[name]), body[name]])
        return json.dumps(body).encode()

    def send(self, payload: bytes) -> None:
        if self.random.random() < 0.9:
            verb = str(json.loads(payload).get("cmd", "unlock"))
        else:
            verb = self.random.choice(VERBS)
        order = judge(self.gate, payload, verb, now=self.now, up=self.up)
        if order.why is not None or order.again:
            return
        # It acts: then all of this must be true.
        facts = self.issued.get(payload)
        assert facts is not None, "nobody with the key ever said this"
        assert facts["verb"] == verb
        assert facts["boot"] == self.boots
        assert self.up < facts["exp"] <= self.up + AHEAD_S
        assert payload not in self.acted, "a second time"
        self.acted.add(payload)

    def wait(self) -> None:
        seconds = self.random.choice([0, 1, 5, 31, 61, 3600])
        self.up += seconds
        self.now = ticks.add(self.now, seconds * 1000)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            kind = self.random.random()
            if kind < 0.35:
                payload = self.issue()
                if self.random.random() < 0.6:
                    self.send(payload)
            elif kind < 0.85:
                self.send(self.stranger())
            elif kind < 0.97:
                self.wait()
            else:
                self.boot()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32))
def test_no_command_acts_twice_late_or_altered(seed: int) -> None:
    Yard(seed).run(120)


def test_the_search_is_worth_something() -> None:
    """Honest commands act, and the stranger comes as far as each of the checks that matter."""
    yards = [Yard(seed) for seed in range(30)]
    for yard in yards:
        yard.run(150)
    assert sum(len(yard.acted) for yard in yards) > 100
    whys = set()
    for _ in range(400):
        yard.issue()
        payload = yard.stranger()
        order = judge(yard.gate, payload, json.loads(payload)["cmd"], now=yard.now, up=yard.up)
        whys.add((order.why or "acts").split(":")[0].split(" ")[0])
        yard.wait()
        if yard.random.random() < 0.05:
            yard.boot()
    assert {"acts", "replay", "expired", "bad_sig"} <= whys


def test_the_search_finds_a_gate_without_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that forgets its counter lets a recording act again, and the search must see it."""

    class Forgetful(Gate):  # type: ignore[misc]
        def judge(self, *arguments: Any) -> Any:
            self.counter = 0
            self._known = []
            return super().judge(*arguments)

    monkeypatch.setattr("tests.firmware.test_signed.Gate", Forgetful)

    def search() -> None:
        for seed in range(200):
            Yard(seed).run(120)

    with pytest.raises(AssertionError, match="a second time"):
        search()


def test_what_an_update_must_show_is_signed_as_the_fleet_signs() -> None:
    """The proof of a vehicle on trial is an honest command of another car; and a gate that works passes it."""
    body = json.loads(proof.COMMAND % proof.SIGNATURE)
    fields = {name: body[name] for name in ("id", "epoch", "ctr", "exp", "args")}
    assert json.loads(make(body["cmd"], key=proof.KEY, vin=proof.VIN, **fields)) == body
    assert proof.faults() == []


@pytest.mark.parametrize(
    ("name", "spoilt"),
    [
        ("equal", lambda a, b: True),
        ("equal", lambda a, b: False),
        ("Hmac", None),
        ("VERBS", ()),
        ("REPEATS", 0),
        ("AHEAD_S", 0),
    ],
)
def test_a_broken_gate_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, spoilt: object) -> None:
    monkeypatch.setattr(signed, name, spoilt)
    assert proof.faults() == ["gate"]
