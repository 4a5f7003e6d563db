"""schemathesis at length: every operation with many bodies, and one after another as their answers lead on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.test_api import check, serving


@pytest.mark.timeout(1800)
def test_schemathesis_at_length(tmp_path: Path) -> None:
    with serving(tmp_path) as gateway, gateway.house.node("peanut"):
        gateway.online(gateway.sign_in("vera"), "peanut")
        check(gateway, tmp_path, "coverage,fuzzing,stateful", 50, "all")
