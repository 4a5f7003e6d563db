"""The table is complete: every number of both appendices once, with a test or a reason, and each test is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker.conformance.statements import CLIENT, STATEMENTS, Statement

ROOT = Path(__file__).resolve().parents[3]

# How many statements each section has, by the appendices B ("Mandatory normative statements") of the two standards.
# Numbers run from 1, but for 5.0 §2.2.1, which begins with 2. The text of 3.1.1 spells two of them in a way of its own.
APPENDIX = {
    "3.1.1": """
        1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 3.3.4:1 3.3.5:2
        3.6.1:1 3.8.1:1 3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 3.14.1:1 3.14.4:3 4.1.0:2
        4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1 4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 7.1.2:1
    """,
    "5.0": """
        1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 3.2.2:22 3.3.1:13
        3.3.2:20 3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1
        3.10.3:2 3.10.4:6 3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1 3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2
        4.2.0:1 4.3.1:1 4.3.2:5 4.3.3:13 4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3
        4.12.0:7 4.12.1:2 4.13.1:1 4.13.2:1 6.0.0:4
    """,
}
SPELLED = {("3.1.1", "MQTT-3.1.2-7"): "MQTT-3.1.2.7", ("3.1.1", "MQTT-3.8.3-4"): "MQTT-3-8.3-4"}
MISSING = {("5.0", "MQTT-2.2.1-1")}
TOTAL = {"3.1.1": 141, "5.0": 251}


def appendix(version: str) -> list[str]:
    numbers = []
    for entry in APPENDIX[version].split():
        section, _, count = entry.partition(":")
        for n in range(1, int(count) + 1):
            number = f"MQTT-{section}-{n}"
            if (version, number) not in MISSING:
                numbers.append(SPELLED.get((version, number), number))
    return numbers


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_every_number_is_there_once_and_in_order(version: str) -> None:
    numbers = [one.number for one in STATEMENTS if one.version == version]
    assert numbers == appendix(version)
    assert len(numbers) == len(set(numbers)) == TOTAL[version]


def test_every_statement_has_a_test_or_a_reason() -> None:
    for one in STATEMENTS:
        assert one.meaning
        assert one.tests or one.reason, f"{one.version} {one.number}"
        assert len(one.meaning) <= 60, f"{one.version} {one.number}: the table has no more room"


def test_only_what_binds_clients_or_a_server_that_connects_has_no_test() -> None:
    """The reasons are few; a new one is a decision."""
    without = {one.reason for one in STATEMENTS if not one.tests}
    assert without <= {CLIENT, "the gateway opens no connection to another server"}
    assert sum(not one.tests for one in STATEMENTS) <= 16


def test_every_test_that_is_named_is_collected() -> None:
    """In a process of its own: pytest lists what it would run in the files that the table names."""
    files = sorted({test.partition("::")[0] for one in STATEMENTS for test in one.tests})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line for line in done.stdout.splitlines() if "::" in line}
    found |= {line.partition("[")[0] for line in found}

    def missing(one: Statement) -> list[str]:
        return [f"{one.number} {test}" for test in one.tests if test not in found]

    assert [line for one in STATEMENTS for line in missing(one)] == []
