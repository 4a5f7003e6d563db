"""`make conformance`: every numbered statement of MQTT 3.1.1 and 5.0, its meaning, its verdict, and the test for it.

Rule: the table is data (tests/broker/conformance/statements.py); here it is run and printed, and nothing is decided.
Exit status 0 when no statement fails.

    python -m tools.conformance              both standards
    python -m tools.conformance 5.0 3.2      MQTT 5.0, numbers that begin with MQTT-3.2
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TextIO

import pytest

from tests.broker.conformance.statements import HERE, STATEMENTS, Statement

PASS, FAIL, SKIP, NONE = "pass", "FAIL", "skip", "-"
"""Verdicts. NONE: no test, since it does not bind a server."""


class Recorder:
    """What became of each test, by its node id without parameters and with them."""

    def __init__(self) -> None:
        self.outcomes: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for set-up, call and tear-down of each test."""
        if report.when == "call" or report.outcome != "passed":
            for name in {report.nodeid, report.nodeid.partition("[")[0]}:
                self.outcomes.setdefault(name, set()).add(report.outcome)

    def verdict(self, tests: Sequence[str]) -> str:
        """Of all these: one that failed, or was not run, fails them; one that was skipped leaves it open."""
        if not tests:
            return NONE
        verdicts = {self._verdict(self.outcomes.get(test, set())) for test in tests}
        return next(verdict for verdict in (FAIL, SKIP, PASS) if verdict in verdicts)

    @staticmethod
    def _verdict(outcomes: set[str]) -> str:
        """Of one test, over its parameters."""
        if not outcomes or "failed" in outcomes:
            return FAIL
        return PASS if "passed" in outcomes else SKIP


def chosen(words: Sequence[str]) -> list[Statement]:
    """Those that the words leave over: a version, the beginnings of numbers; without words all of them."""
    versions = [word for word in words if word in {one.version for one in STATEMENTS}]
    begins = tuple("MQTT-" + word.removeprefix("MQTT-") for word in words if word not in versions)
    return [
        one
        for one in STATEMENTS
        if (not versions or one.version in versions) and (not begins or one.number.startswith(begins))
    ]


def rows(statements: Iterable[Statement], recorder: Recorder) -> list[tuple[str, str, str, str]]:
    """Number, meaning, verdict, and the tests (the first one, and how many more) or the reason there is none."""
    out = []
    for one in statements:
        proof = one.tests[0].removeprefix(HERE) if one.tests else one.reason
        more = f" (+{len(one.tests) - 1})" if len(one.tests) > 1 else ""
        note = f" [{one.reason}]" if one.tests and one.reason else ""
        out.append((one.number, one.meaning, recorder.verdict(one.tests), proof + more + note))
    return out


def show(statements: Sequence[Statement], recorder: Recorder, out: TextIO) -> int:
    """Prints the table; the number of statements that failed."""
    failed = 0
    for version in dict.fromkeys(one.version for one in statements):
        mine = [one for one in statements if one.version == version]
        print(f"\nMQTT {version}", file=out)
        for number, meaning, verdict, proof in rows(mine, recorder):
            print(f"  {number:<14} {meaning:<60} {verdict:<4}  {proof}", file=out)
        counts = Counter(recorder.verdict(one.tests) for one in mine)
        failed += counts[FAIL]
        print(
            f"  {len(mine)} statements: {counts[PASS]} pass, {counts[FAIL]} fail, {counts[SKIP]} skipped, "
            f"{counts[NONE]} without a test, as they do not bind a server",
            file=out,
        )
    return failed


def main(words: Sequence[str]) -> int:
    statements = chosen(words)
    if not statements:
        print(f"conformance: no statement begins with {' or '.join(words)}; try 5.0, 3.1.1, or 3.8.4", file=sys.stderr)
        return 2
    recorder = Recorder()
    tests = list(dict.fromkeys(test for one in statements for test in one.tests))
    status = pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", *tests], plugins=[recorder])
    failed = show(statements, recorder, sys.stdout)
    return 1 if failed or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
