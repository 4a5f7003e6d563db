"""Certificates that were judged before: what is remembered, for how long, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from peanutd import access
from peanutd.access import IdentityError
from peanutd.known import Known

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """The certificates that were looked at in earnest."""
    found: list[bytes | None] = []
    identify = access.identify

    def watched(der: bytes | None, *rest: Any) -> access.Credential:
        found.append(der)
        return identify(der, *rest)

    monkeypatch.setattr(access, "identify", watched)
    return found


def test_a_certificate_is_judged_once(shared_fleet: Any, judged: list[bytes | None]) -> None:
    known, by = Known(), (shared_fleet.root.certificate, shared_fleet.issuing.certificate)
    leaf, other = shared_fleet.issue("peanut:plant/peanut"), shared_fleet.issue("peanut:plant/peanut")
    first = known.identify(leaf.der, by, NOW)
    assert known.identify(leaf.der, by, NOW + DAY) is first
    assert known.identify(other.der, by, NOW).serial != first.serial, "another certificate of the same name"
    assert judged == [leaf.der, other.der]


def test_it_counts_until_it_ends_and_not_before_it_was_judged(
    shared_fleet: Any, signer: Any, judged: list[bytes | None]
) -> None:
    known, by = Known(), (shared_fleet.root.certificate, shared_fleet.issuing.certificate)
    leaf = shared_fleet.issue("peanut:plant/peanut", start=NOW - DAY, end=NOW + DAY)
    ends = known.identify(leaf.der, by, NOW).not_after
    assert known.identify(leaf.der, by, ends).not_after == ends
    with pytest.raises(IdentityError, match="expired"):
        known.identify(leaf.der, by, ends + timedelta(seconds=1))
    with pytest.raises(IdentityError, match="not yet valid"):  # the clock was set back
        known.identify(leaf.der, by, NOW - 2 * DAY)
    assert len(judged) == 3


def test_its_grace_is_a_judgement_of_its_own(shared_fleet: Any) -> None:
    known, by = Known(), (shared_fleet.root.certificate, shared_fleet.issuing.certificate)
    leaf = shared_fleet.issue("peanut:plant/peanut", start=NOW - DAY, end=NOW + DAY)
    assert not known.identify(leaf.der, by, NOW, 7 * DAY).expired
    assert known.identify(leaf.der, by, NOW + 2 * DAY, 7 * DAY).expired
    with pytest.raises(IdentityError, match="expired"):
        known.identify(leaf.der, by, NOW + 2 * DAY)


def test_other_authorities_judge_anew(shared_fleet: Any, signer: Any) -> None:
    known, by = Known(), (shared_fleet.root.certificate, shared_fleet.issuing.certificate)
    leaf = shared_fleet.issue("peanut:plant/peanut")
    known.identify(leaf.der, by, NOW)
    with pytest.raises(IdentityError, match="not issued by this fleet's CA"):
        known.identify(leaf.der, (signer("root").certificate,), NOW)


def test_failures_are_not_remembered_and_there_is_a_limit(shared_fleet: Any, judged: list[bytes | None]) -> None:
    known, by = Known(most=2), (shared_fleet.root.certificate, shared_fleet.issuing.certificate)
    first, second, third = (shared_fleet.issue(f"peanut:plant/{name}").der for name in "abc")
    for der in (first, second, b"\x30", None, shared_fleet.issue("x:nobody").der):
        try:
            known.identify(der, by, NOW)
        except IdentityError:
            assert len(known) == 2
    assert known.identify(third, by, NOW).identity.name == "c"
    assert len(known) == 2
    before = len(judged)
    known.identify(second, by, NOW)
    known.identify(third, by, NOW)
    assert len(judged) == before
    known.identify(first, by, NOW)
    assert len(judged) == before + 1, "the oldest has given way"
