"""The fleet's benchmark against a real gateway, its generator with address and undefined-behaviour sanitizers.

The rule it keeps: what is asked for is that every phase comes to its end and nothing is lost, not how long it takes.
"""

from pathlib import Path

import pytest

from tools.bench import fleet
from tools.bench.generator import compile_c

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.timeout(600)
def test_a_small_fleet_lives_through_a_restart(tmp_path: Path) -> None:
    program = tmp_path / "fleet"
    assert compile_c(fleet.SOURCES, program, "-DWITH_TLS=1", *SANITIZERS, "-lssl", "-lcrypto") is None
    arguments = fleet.parse(["--nodes", "30", "--reporters", "10", "--seconds", "3", "--soak", "4"])
    found = list(fleet.run(program, arguments))
    assert [said["phase"] for said in found] == [
        "connect", "steady", "steady", "steady", "steady", "growth", "recover", "steady"
    ]  # fmt: skip
    for said in found:
        for kind in ("lost", "unanswered", "doubled", "reordered"):
            assert said.get(kind, 0) == 0, said
        assert "Sanitizer" not in str(said)
    steady = [said for said in found if said["phase"] == "steady"]
    assert all(said["reports"] > 0 and said["commands"] > 0 for said in steady)
    assert found[-2]["attempts"] >= 1
    assert found[0]["bytes_per_node"] > 0
