"""Every sentence of the firmware and of the gateway's alerts has its Chinese in the app's table.

Rule: the sentences are taken from their speakers' source, so that a new one fails here before it stays English.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = ROOT / "firmware" / "node"
TABLE = ROOT / "broker" / "app" / "src" / "words" / "said.zh.json"
LEADS = re.compile(r"^(malformed|range|expired|retained|unknown|busy|unsafe|replay|bad_sig): ")
"""Words of agreement 2, which the app says in words of its own."""
OF_A_CAR = ("refuse", "unsafe", "_unsafe_start", "_wait", "act", "step", "_tend_start")
"""Functions of node/car.py whose texts a driver reads."""


def template(node: ast.expr) -> str:
    """A text as the table writes it: `%g` for a number, `%s` for anything else that is put in."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"%\.?\d*[dfg]", "%g", text)
        case ast.BinOp(left=left, op=ast.Mod()):
            return template(left)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
        case ast.JoinedStr(values=values):
            return "".join(template(value) for value in values)
        case ast.FormattedValue(format_spec=spec):
            return "%s" if spec is None else "%g"
    return "%s"


def texts(node: ast.AST) -> Iterator[str]:
    """Whatever is said below `node`; docstrings are not."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Constant | ast.BinOp | ast.JoinedStr) and isinstance(node, ast.expr):
        said = LEADS.sub("", template(node)).strip()
        if re.search(r"[a-z]", said.replace("%s", "").replace("%g", "")):
            yield said
    match node:
        case ast.BinOp(op=ast.Mod(), right=right):
            yield from texts(right)
        case ast.BinOp(left=left, right=right):
            for side in (left, right):
                if not isinstance(side, ast.Constant | ast.JoinedStr):
                    yield from texts(side)
        case ast.JoinedStr():
            pass
        case _:
            for below in ast.iter_child_nodes(node):
                yield from texts(below)


def functions(path: Path, *names: str) -> Iterator[ast.FunctionDef]:
    """Those of a file with one of these names."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert set(names) <= {one.name for one in found}, path
    yield from (one for one in found if one.name in names)


def greenhouse() -> set[str]:
    """Why a greenhouse does what it does, and its alarms."""
    tree = ast.parse((NODE / "control.py").read_text())
    said = {text for one in functions(NODE / "control.py", "reason", "_why") for text in texts(one)}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ALARMS":
            said |= set(texts(node.value))
    return said


def vehicle() -> set[str]:
    """Why a vehicle does what it does, and what it refuses; that it begins with a reason."""
    said = {text for one in functions(NODE / "car.py", *OF_A_CAR) for text in texts(one)}
    for one in functions(NODE / "car.py", "__init__"):
        for node in ast.walk(one):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.reason":
                said |= set(texts(node.value))
    return said


def events() -> set[str]:
    """What nodes send as events."""
    calls = [node for path in NODE.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    calls = [node for node in calls if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return {
        text
        for call in calls
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".event") and len(call.args) > 1
        for text in texts(call.args[1])
    }


def alerts() -> set[str]:
    """What the gateway's judges say."""
    path = ROOT / "broker" / "peanutd" / "judges.py"
    said = {text for one in functions(path, "_judge", "tick", "hear", "duration") for text in texts(one)}
    return {text for text in said if re.search(r"[ %]", text)}  # the others are names of readings and of leaves


SPEAKERS = {"greenhouse": greenhouse, "vehicle": vehicle, "events": events, "alerts": alerts}
LEAST = {"greenhouse": 20, "vehicle": 25, "events": 3, "alerts": 12}
"""Sentences and words of each, so that none is silently heard no more."""


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_all_that_is_said_is_in_the_table(speaker: str) -> None:
    known = json.loads(TABLE.read_text())
    said = SPEAKERS[speaker]()
    assert len(said) >= LEAST[speaker], sorted(said)
    assert not sorted(said - set(known)), "say these in broker/app/src/words/said.zh.json"
