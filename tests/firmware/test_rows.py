"""The table of what a node must do is whole: each mechanism is there, each test is there, and nothing is left open.

That the tests fail without the mechanisms is tried by `make field WITHOUT=1`, for it takes an hour.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import field

from .rows import HOSTS, ROWS, SECTIONS, TABLE, WIDTH, Row, defined, node_id

ROOT = Path(__file__).resolve().parents[2]


def functions(path: str) -> set[str]:
    """Those that pytest, or a list of checks, finds in a file: at its top."""
    body = ast.parse((ROOT / path).read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_section_has_its_rows() -> None:
    assert list(TABLE) == list(SECTIONS)
    assert len({(row.section, row.meaning) for row in ROWS}) == len(ROWS)
    assert [row.meaning for row in ROWS if not 0 < len(row.meaning) <= WIDTH] == []


def test_every_row_has_a_mechanism_and_a_test_or_a_reason() -> None:
    """The reasons are few; a new one is a decision."""
    assert [row.meaning for row in ROWS if bool(row.tests) == bool(row.reason)] == []
    assert sum(bool(row.reason) for row in ROWS) <= 5


def test_every_mechanism_is_there_and_can_be_taken_out() -> None:
    """Once, where the table says; and what is left can be read by Python, so that tests fail for want of it alone."""
    texts = {row.file: (ROOT / row.file).read_text() for row in ROWS if row.file}
    for row in ROWS:
        if row.file:
            ast.parse(field.without(row, texts[row.file]))


def test_every_test_is_there() -> None:
    tests = {test for row in ROWS for test in row.tests} | set(HOSTS.values())
    found = {file: functions(file) for file in {defined(test)[0] for test in tests}}
    assert [test for test in sorted(tests) if defined(test)[1] not in found[defined(test)[0]]] == []


def test_a_row_names_what_pytest_runs() -> None:
    """The two forms of a check: one that pytest lists, and one that runs inside another test."""
    control = "control_checks::minimum_times"
    assert node_id(control) == "tests/firmware/test_pure.py::test_on_cpython[check_minimum_times-check_minimum_times]"
    assert node_id("app_run::alarms_become_events") == node_id("test_flood::limits_and_failures_of_the_app")
    assert node_id("provisioning/test_pinout::refused") == "tests/provisioning/test_pinout.py::test_refused"


@pytest.mark.parametrize(
    ("name", "piece"),
    [("Gone.step", "x"), ("Climate.gone", "x"), ("Climate.step", "not there"), ("Climate.step", "now")],
)
def test_a_mechanism_that_is_not_there_or_twice_is_said(name: str, piece: str) -> None:
    row = Row("control", "", "firmware/node/control.py", name, piece, "pass", ("test_rows::x",))
    with pytest.raises(LookupError):
        field.without(row, (ROOT / row.file).read_text())


def test_only_the_named_mechanism_is_taken_out() -> None:
    text = "A = 1\n\n\nclass C:\n    def f(self):\n        return 1\n\n\ndef f():\n    return 1\n"
    for name, out in (("A", "A = 2"), ("C.f", "    def f(self):\n        return 2"), ("f", "\ndef f():\n    return 2")):
        row = Row("control", "", "x.py", name, "1", "2", ("test_rows::x",))
        assert field.without(row, text) == text.replace(out.replace("2", "1"), out)


def test_sections_and_rows_can_be_chosen() -> None:
    assert field.chosen([]) == list(ROWS)
    assert {row.section for row in field.chosen(["clock", "control"])} == {"clock", "control"}
    assert [field.number(row) for row in field.chosen(["boot:2", "boot:3"])] == [2, 3]
    with pytest.raises(LookupError, match="weather"):
        field.chosen(["weather"])
