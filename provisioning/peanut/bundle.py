"""node.json: what a node reads about itself. Generated from the board file; the other half of agreement 3.

Rule: pure functions; the same arguments give the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from peanut import board as boards
from peanut.board import Board
from peanut.errors import PeanutError
from peanut.fields import Value, check_value
from peanut.names import Kind, topic_root

FORMAT = 1
FILES = ("key.der", "cert.der", "ca.der", "node.json")  # the device bundle, in the order in which it is written

Node = dict[str, Any]
Settings = Sequence[tuple[str, str, str]]  # section, key, value as it was typed


def parse_settings(texts: Sequence[str]) -> Settings:
    """`section.key=value` each; PeanutError lists the sections and keys there are."""
    found = []
    for text in texts:
        path, equals, value = text.partition("=")
        section, _, key = path.strip().partition(".")
        if not equals or not key:
            raise PeanutError(f"--set {text!r} is not SECTION.KEY=VALUE", "For example: --set control.setpoint=16")
        tables = [sections[section] for sections in boards.SECTIONS.values() if section in sections]
        if not tables:
            raise PeanutError(f"--set {text!r}: no section {section!r}", f"Sections: {', '.join(boards.ALL_SECTIONS)}.")
        keys = dict.fromkeys(key for table in tables for key in table)
        if key not in keys:
            raise PeanutError(f"--set {text!r}: no key {key!r} in {section}", f"Keys: {', '.join(keys)}.")
        found.append((section, key, value.strip()))
    return found


def new_node(name: str, kind: Kind, board: Board, gateway: Mapping[str, Value], *, simulate: bool) -> Node:
    """node.json of a new device, with the board's defaults. simulate: run the model in place of the pins."""
    if kind not in board.profiles:
        can = ", ".join(board.profiles) or "nothing"
        raise PeanutError(f"the board {board.name!r} is no {kind}", f"It can be: {can}. Choose another --board.")
    greenhouse = kind is Kind.GREENHOUSE
    model = board.model(kind)
    if simulate and model is None:
        raise PeanutError(f"there is no model of a {kind} on the board {board.name!r}", "Leave out --simulate.")
    node: Node = {
        "format": FORMAT,
        "name": name,
        "kind": str(kind),
        "root": topic_root(name, kind),
        "gateway": dict(gateway),
        "board": _board(board if greenhouse else boards.fitted(board)),
    }
    if greenhouse and board.control is not None:
        node["control"] = dict(board.control)
    node["report"] = dict(board.report)
    if board.link is not None:
        node["link"] = dict(board.link)
    if (simulate or board.simulated) and model is not None:
        node["simulate"] = dict(model)
    return node


def _board(board: Board) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": board.name,
        "chip": board.chip,
        "outputs": _plain(board.outputs),
        "sensors": _plain(board.sensors),
    }
    optional = {"buses": _plain(board.buses), "led": board.led, "button": board.button}
    return found | {key: value for key, value in optional.items() if value}


def _plain(tables: Mapping[str, Mapping[str, Value]]) -> dict[str, dict[str, Value]]:
    return {name: dict(table) for name, table in tables.items()}


def apply(node: Node, settings: Settings) -> Node:
    """A copy of `node` with the settings applied and checked; PeanutError names the setting that is wrong."""
    result: Node = json.loads(json.dumps(node))
    for section, key, text in settings:
        where = f"--set {section}.{key}"
        table = boards.SECTIONS[Kind(result["kind"])].get(section, {})
        if section in ("link", "vehicle") and table:
            # optional in node.json; the node's own defaults hold for the keys that are not given
            result.setdefault(section, {})
        if section not in result:
            what = "give --simulate as well" if section == "simulate" else "leave this out"
            raise PeanutError(f"{where}: {node['name']} has no {section}", what[0].upper() + what[1:] + ".")
        if key not in table:
            raise PeanutError(f"{where}: {node['name']} has no such key", f"Keys of {section}: {', '.join(table)}.")
        field = table[key]
        value: object = text
        if field.type is not str:
            try:
                value = json.loads(text)
            except ValueError:
                value = text
        result[section][key] = check_value(field, value, where)
    link = result.get("link", {})
    sections = {"control": result.get("control", {}), "vehicle": result.get("vehicle", {})}
    if {"base_s", "cap_s"} <= set(link):
        sections["link"] = link
    boards.check_sense(sections, str(node["name"]))
    return result


def differences(old: Node, new: Node) -> list[str]:
    """What changes, as `section.key: old -> new`."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += [f"{key}.{line}" for line in differences(before, after)]
        else:
            found.append(f"{key}: {_show(before)} -> {_show(after)}")
    return found


def _show(value: object) -> str:
    return "none" if value is None else json.dumps(value)


def render(node: Node) -> bytes:
    """The bytes of node.json: JSON, two spaces, one newline at the end."""
    return (json.dumps(node, indent=2, ensure_ascii=True) + "\n").encode()
