"""The whole suite is heard, and no secret is in what it prints (`heard.py`); what takes long begins first (`order.py`).

Rule: the house's eighth law, for commands and logs alike. Each worker checks what it has heard against every secret
that its tests have made.
"""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.effort import EFFORT
from tests.heard import leaks, secrets_below, transcript
from tests.order import rank

# A machine that does something else meanwhile takes its time; that says nothing of what is tested.
settings.register_profile("peanut", deadline=None, derandomize=EFFORT == 1)
settings.load_profile("peanut")

subprocess.Popen = transcript.popen()  # type: ignore[misc,assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Within a file the order stays."""
    items.sort(key=lambda item: rank(item.path))


def pytest_collection_finish() -> None:
    """Six thousand tests lie about until the end: the garbage collector need not look through them again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What pytest has captured of a test."""
    for _, said in report.sections:
        transcript.hear(said)


@pytest.fixture(scope="session", autouse=True)
def _nothing_says_a_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end: no command, no log and no test has printed a key, a passphrase or a password."""
    yield
    found = leaks(transcript.text(), secrets_below(tmp_path_factory.getbasetemp()))
    assert not found, f"printed: {', '.join(found)}"
