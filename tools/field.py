"""`make field`: what a node must do in the field, the mechanism of each, its verdict, and the tests for it.

Rule: the table is data (tests/firmware/rows.py); here it is run and printed, and nothing is decided. With `--without`
the mechanism of each row is taken out of a copy of this project, and the verdict is pass where its tests fail there.
Exit status 0 when no row fails.

    python -m tools.field                       all of it
    python -m tools.field control clock         some sections
    python -m tools.field --without control     the same, each row without its mechanism: some seconds a row
    python -m tools.field --without control:3 control:5   some rows
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.firmware.rows import ROWS, SECTIONS, WIDTH, Row, defined, node_id
from tools.conformance import FAIL, NONE, PASS, SKIP, Recorder

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = (".git", ".venv", "node_modules", "build", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
HANGS = "E  it hangs"
TEST_S = 60
"""What a test may take without its mechanism: many then wait for what never comes."""


def span(text: str, name: str) -> tuple[int, int]:
    """Where the definition of `name` ("function", "Class.method", "CONSTANT"; "": all of it) stands in a file's text.

    LookupError if it is not there.
    """
    first, last = 0, len(text.splitlines())
    body: list[ast.stmt] = ast.parse(text).body
    for part in name.split(".") if name else ():
        found = next((node for node in body if part in _names(node)), None)
        if found is None:
            raise LookupError(name)
        first, last = found.lineno - 1, found.end_lineno or found.lineno
        body = getattr(found, "body", [])
    lines = text.splitlines(keepends=True)
    return len("".join(lines[:first])), len("".join(lines[:last]))


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {getattr(node, "name", "")}


def without(row: Row, text: str) -> str:
    """The text of the row's file without its mechanism. LookupError if that is not there, or not just once."""
    begin, end = span(text, row.name)
    source = text[begin:end]
    if source.count(row.piece) != 1:
        raise LookupError(f"{row.file} {row.name}: {row.piece!r} is there {source.count(row.piece)} times")
    return text[:begin] + source.replace(row.piece, row.instead) + text[end:]


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Of a folder, what no test reads; the fleet home has keys in it."""
    return shutil.ignore_patterns(*LEFT_OUT)(folder, names) | ({"fleet"} if Path(folder) == ROOT else set())


class Scratch:
    """A copy of this project in a folder of its own, in which mechanisms can be missing."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "peanut"
        shutil.copytree(ROOT, self._root, ignore=_left_out, symlinks=True)

    def verdict(self, row: Row) -> tuple[str, str]:
        """PASS if each test of the row fails without its mechanism, else FAIL; and what they said."""
        if not row.tests:
            return NONE, row.reason
        path = self._root / row.file
        whole = path.read_text()
        path.write_text(without(row, whole))
        try:
            said = self._run(row.ids)
        finally:
            path.write_text(whole)
        held = [test for test in row.tests if not self._fails(test, said)]
        if held:
            return FAIL, "passes without it: " + " ".join(held)
        words = [line[1:].strip() for line in said.splitlines() if line.startswith("E ")]
        return PASS, words[0][:100] if words else "it did not run"

    def _run(self, ids: Sequence[str]) -> str:
        options = ("-q", "-rA", "--no-header", "-p", "no:cacheprovider", f"--timeout={TEST_S}")
        path = os.pathsep.join(str(self._root / folder) for folder in ("provisioning", "."))
        try:
            return subprocess.run(
                [sys.executable, "-m", "pytest", *options, *ids],
                cwd=self._root,
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TEST_S * (1 + len(ids)),
            ).stdout
        except subprocess.TimeoutExpired:
            return "".join(f"FAILED {ident}\n" for ident in ids) + HANGS

    def _fails(self, test: str, said: str) -> bool:
        """Whether it failed. Of checks that run one after the other in one test, it must be the one that ended it."""
        bad = (f"FAILED {node_id(test)}", f"ERROR {node_id(test)}")
        failed = any(line.startswith(bad) for line in said.splitlines())
        if not failed or not test.partition("::")[0].endswith("_run") or HANGS in said:
            return failed
        path, name = defined(test)
        checks = sorted(re.findall(r"^async def (check_\w+)", (self._root / path).read_text(), re.MULTILINE))
        passed = set(re.findall(r"\bok (check_\w+)", said))
        return name == next((check for check in checks if check not in passed), None)


def chosen(words: Sequence[str]) -> list[Row]:
    """The rows of the sections that are named, or SECTION:NUMBER; without words all of them. LookupError for others."""
    names = {f"{row.section}:{number(row)}": row for row in ROWS}
    out = []
    for word in words or SECTIONS:
        found = [row for name, row in names.items() if word in (name, row.section)]
        if not found:
            raise LookupError(f"no row {word}; there are {', '.join(SECTIONS)}, or {next(iter(names))} for one row")
        out += found
    return out


def number(row: Row) -> int:
    """Its place in its section, from 1."""
    return [other for other in ROWS if other.section == row.section].index(row) + 1


def verdicts(rows: Sequence[Row]) -> Callable[[Row], tuple[str, str]]:
    """Runs the tests of all of them, once each. What became of a row: (verdict, what proves it)."""
    recorder = Recorder()
    ids = list(dict.fromkeys(ident for row in rows for ident in row.ids))
    pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", *ids], plugins=[recorder])

    def verdict(row: Row) -> tuple[str, str]:
        more = f" (+{len(row.tests) - 1})" if len(row.tests) > 1 else ""
        return recorder.verdict(row.ids), row.tests[0] + more if row.tests else row.reason

    return verdict


def show(rows: Sequence[Row], verdict: Callable[[Row], tuple[str, str]]) -> int:
    """Prints the table as it comes; the number of rows that failed."""
    counts = dict.fromkeys((PASS, FAIL, SKIP, NONE), 0)
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            print(f"\n{section}: {SECTIONS[section]}")
        word, proof = verdict(row)
        counts[word] += 1
        where = f"{row.file}::{row.name}".removeprefix("firmware/").removesuffix("::")
        print(
            f"  {number(row):>2} {row.meaning:<{WIDTH}} {word:<4}  {where if row.file else '':<44} {proof}", flush=True
        )
    print(
        f"\n{len(rows)} rows: {counts[PASS]} pass, {counts[FAIL]} fail, {counts[SKIP]} skipped, "
        f"{counts[NONE]} without a mechanism, for the reason that is told"
    )
    return counts[FAIL]


def main(words: Sequence[str]) -> int:
    try:
        rows = chosen([word for word in words if word != "--without"])
    except LookupError as e:
        print(f"field: {e}", file=sys.stderr)
        return 2
    if "--without" not in words:
        return 1 if show(rows, verdicts(rows)) else 0
    with tempfile.TemporaryDirectory() as folder:
        return 1 if show(rows, Scratch(Path(folder)).verdict) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
