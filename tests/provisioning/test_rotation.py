"""`peanut ca rotate|finish`: what is trusted when, what is refused too early, and a kill between any two steps."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from peanut import ca, device, ledger, names, renewal, rotation, store
from peanut.errors import PeanutError
from peanut.home import Home
from peanut.names import Kind
from peanut.plan import Step
from tests.programs import program

from .conftest import Run

NOW = datetime.now(UTC)


def passphrase(home: Home) -> bytes:
    return (home.ca / "root.pass").read_bytes().strip()


def act(steps: Sequence[Step]) -> None:
    for step in steps:
        if step.act is not None:
            step.act()


def renew(home: Home) -> None:
    """As if every node and operator had been there."""
    for row in ledger.devices(home.ledger):
        renewal.renew_here(home, row, NOW)
    from peanut import operators

    for name in operators.existing(home):
        act(operators.renew(home, name, NOW))


def trusting(home: Home, roots: Sequence[str]) -> None:
    """What the nodes have reported."""
    seen = {}
    for row in ledger.devices(home.ledger):
        uri = names.device_uri(row.name, Kind(row.kind)).removeprefix("peanut:")
        seen[uri] = {"first": 1, "last": 2, "serial": row.serial, "reported": {"ca": list(roots)}}
    (home.path / "seen.json").write_text(json.dumps({"format": 1, "seen": seen}))


def verified(home: Home, certificate: Path, *, untrusted: bool = True) -> bool:
    """What openssl says of a certificate, with the fleet's files as they are."""
    command = [program("openssl"), "verify", "-x509_strict", "-CAfile", str(home.ca / "root.crt")]
    command += ["-untrusted", str(home.ca / "issuing.crt")] if untrusted else []
    return subprocess.run([*command, str(certificate)], capture_output=True).returncode == 0


def test_the_issuing_ca_is_replaced_and_the_old_is_trusted_until_nobody_needs_it(home: Home, run: Run) -> None:
    old = store.issuing(home).certificate
    done = run("ca", "rotate")
    assert done.exit_code == 0, done.output
    new = store.issuing(home).certificate
    assert new != old
    assert store.certificates(home.ca / "issuing.crt") == [new, old]
    gateway = store.certificates(home.gateway / "gateway.crt")
    assert ca.issued_by(gateway[0], new)
    assert gateway[1] == new
    for name in ("peanut", "tomato"):
        row = device.row(home, name)
        device.check(home, row)  # still good
        assert renewal.tasks(home, [row], {}, NOW, force=False)[0].with_key, "to be renewed"
    assert verified(home, home.operator("operator") / "operator.crt")
    done = run("ca", "finish")
    assert done.exit_code == 2
    assert "are still the old CA's: 1M8GDM9AXKP042788, peanut, tomato, operator operator" in done.output
    renew(home)
    assert run("ca", "finish").exit_code == 0
    assert store.certificates(home.ca / "issuing.crt") == [new]
    assert verified(home, home.operator("operator") / "operator.crt")
    assert "nothing old is trusted" in run("ca", "finish").output
    shown = run("ca", "show").output
    assert shown.count("in use") == 2
    assert "trusted" not in shown


def test_who_is_revoked_holds_up_no_rotation(home: Home, run: Run) -> None:
    run("ca", "rotate")
    new = store.issuing(home).certificate
    assert "peanut" in rotation.dependants(home, new)
    run("device", "revoke", "peanut")
    assert "peanut" not in rotation.dependants(home, new)


def test_the_root_is_replaced_in_two_steps(home: Home, run: Run) -> None:
    old = store.root_certificate(home)
    assert run("ca", "rotate", "--root").exit_code == 0
    both = store.roots(home)
    assert both[0] == old
    assert len(both) == 2
    assert (home.ca / rotation.NEXT_KEY).stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (home.ca / rotation.NEXT_KEY).read_bytes()
    assert store.certificates(home.operator("operator") / "ca.crt") == both
    prints = renewal.root_prints(both)
    trusting(home, prints[:1])
    early = run("ca", "rotate", "--root")
    assert early.exit_code == 2
    assert "3 nodes do not trust the new root yet" in early.output
    assert "go on with" in run("ca", "finish").output.lower()
    assert renewal.tasks(home, [device.row(home, "peanut")], {"plant/peanut": {"reported": {"ca": prints[:1]}}}, NOW,
                         force=False)[0].with_roots  # fmt: skip
    trusting(home, prints)
    done = run("ca", "rotate", "--root")
    assert done.exit_code == 0, done.output
    assert store.roots(home) == [both[1], old]
    assert ca.issued_by(store.issuing(home).certificate, both[1])
    assert not (home.ca / rotation.NEXT_KEY).exists()
    assert ca.same_key(both[1], store.key(home.ca / "root.key", passphrase(home)))
    assert verified(home, home.gateway / "gateway.crt")
    assert verified(home, home.operator("operator") / "operator.crt"), "the old ones as well"
    renew(home)
    assert run("ca", "finish").exit_code == 0
    assert store.roots(home) == [both[1]]
    assert store.certificates(home.operator("operator") / "ca.crt") == [both[1]]
    assert verified(home, home.operator("operator") / "operator.crt")
    assert run("init").exit_code == 0, "init finds nothing to object to"


def test_without_the_roots_key_nothing_is_replaced(home: Home, run: Run) -> None:
    (home.ca / "root.key").unlink()
    before = (home.ca / "issuing.crt").read_bytes()
    assert run("ca", "rotate").exit_code == 2
    assert (home.ca / "issuing.crt").read_bytes() == before


@pytest.mark.parametrize("last", range(6))
def test_a_kill_between_any_two_steps_leaves_a_home_that_works(home: Home, last: int) -> None:
    def begin() -> list[Step]:
        return rotation.root_begin(home, passphrase(home), NOW)

    def switch() -> list[Step]:
        return rotation.root_switch(home, passphrase(home), NOW, force=True)

    def some(make: Callable[[], list[Step]]) -> None:
        act(make()[: last + 1])
        issuer = store.issuing(home)
        ca.issue_gateway(ca.new_key().public_key(), [], issuer, NOW)
        assert verified(home, home.gateway / "gateway.crt")
        for name in ("peanut", "tomato"):
            device.check(home, device.row(home, name))

    some(begin)
    if not rotation.root_is_begun(home) or len(store.roots(home)) == 1:
        act(begin())
    some(switch)
    if rotation.root_is_begun(home):
        act(switch())
    renew(home)
    act(rotation.finish(home, force=False))
    assert len(store.roots(home)) == 1
    assert verified(home, home.gateway / "gateway.crt")
    with pytest.raises(PeanutError):
        rotation.issuing(home, b"not the passphrase", NOW)
    act(rotation.issuing(home, passphrase(home), NOW))
