"""schemathesis at length: every operation with many bodies, and one after another as their answers lead on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system.conftest import BIN
from tests.system.test_api import Gateway, serving

# 504 is a node's silence. 422 is also what no schema can say: a share that ends before it begins, a password that is
# the user's own name.
SCHEMATHESIS = """\
[[operations]]
include-name = ["GET /devices/{name}", "GET /devices/{name}/state", "POST /devices/{name}/commands"]
parameters = { "path.name" = "peanut" }
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "504"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "422", "429"]
"""


@pytest.mark.timeout(1800)
def test_schemathesis_at_length(tmp_path: Path) -> None:
    """Every answer to whatever is asked is one that /api/v1/openapi.json promises; nothing fails with 500."""
    with serving(tmp_path) as gateway, gateway.house.node("peanut"):
        gateway.online(gateway.sign_in("vera"), "peanut")
        check(gateway, tmp_path, "coverage,fuzzing,stateful", 50, "all")


def check(gateway: Gateway, folder: Path, phases: str, examples: int, mode: str) -> None:
    """Runs schemathesis as an admin. Not signing out, which would end the run, and no streams, which do not end."""
    settings = folder / "schemathesis.toml"
    settings.write_text(SCHEMATHESIS)
    done = subprocess.run(
        [
            *(f"{BIN / 'schemathesis'}", "--config-file", str(settings), "run"),
            f"{gateway.client.base_url}/api/v1/openapi.json",
            *("--tls-verify", str(gateway.house.operator[0]), "-H", f"Authorization: Bearer {gateway.sign_in('ada')}"),
            *("--phases", phases, "--max-examples", str(examples), "--checks", "all", "--no-color", "--no-shrink"),
            *("--exclude-operation-id", "delete_session", "--exclude-path", "/events", "--warnings", "off"),
            *("--request-timeout", "60", "--generation-deterministic", "--mode", mode),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
