"""Renewal and revocation at once: what was sent to a board that is then stolen lets that board in nowhere."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pytest

from peanut import crl, device, renewal, revocation, store
from peanut.home import Home

from .conftest import Run

NOW = datetime.now(UTC)
URI = "peanut:plant/peanut"


def test_what_was_on_its_way_to_a_board_that_is_revoked_is_revoked_with_it(home: Home, run: Run) -> None:
    row = device.row(home, "peanut")
    sent = renewal.serial(renewal.stage(home, row, NOW))
    assert run("device", "revoke", "peanut").exit_code == 0
    assert set(crl.revoked_serials(home, NOW)) == {row.serial, sent}, "others hear of both"
    renewal.promote(home, "peanut")  # a `peanut renew` that had seen the node with it just before
    assert revocation.is_revoked(revocation.read(home), URI, sent)


def test_nor_does_a_promotion_that_is_mended_let_it_in(home: Home, run: Run) -> None:
    sent = renewal.stage(home, device.row(home, "peanut"), NOW)
    where = home.device("peanut")
    shutil.copyfile(where / renewal.NEXT / "key.der", where / "key.der")  # and killed here
    assert run("device", "revoke", "peanut").exit_code == 0
    renewal.mend(home, "peanut")
    assert store.certificate(where / "cert.der") == sent
    assert revocation.is_revoked(revocation.read(home), URI, renewal.serial(sent))
    made = renewal.renew_here(home, device.row(home, "peanut"), NOW)
    assert not revocation.is_revoked(revocation.read(home), URI, renewal.serial(made)), "for a board to be flashed"


@pytest.mark.parametrize("at", range(2))
def test_a_full_disk_while_a_key_is_made_leaves_what_was(home: Home, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is not sent half a pair, and the bundle stays good; with room again it goes on."""
    row, real, calls = device.row(home, "peanut"), renewal.write_file, []

    def full(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > at:
            raise OSError(28, "No space left on device")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(renewal, "write_file", full)
    with pytest.raises(OSError, match="No space"):
        renewal.stage(home, row, NOW)
    monkeypatch.undo()
    assert renewal.staged(home, "peanut") is None
    device.check(home, row)
    made = renewal.stage(home, row, NOW)
    assert renewal.staged(home, "peanut") == made
