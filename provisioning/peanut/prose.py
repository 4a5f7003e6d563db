"""The firmware's texts of failure in a file of their own: a node reads from flash what it seldom says.

Rule: nothing but where a text lies changes. A text is taken out where it stands in a `raise`, in an argument of the
log or of a function that ends something with a reason (TELLERS), and has words, so that no key and no format of data is
among them. In its place stands `say(at)` (firmware/node/__init__.py), `at` being where its line begins in the file.
"""

import ast
from collections.abc import Mapping

PLACE = "node/texts"
SAY = "say"
HOME = "node/__init__.py"  # where `say` is
TELLERS = ("_fail", "_bad")
LEAST = 11  # characters; a shorter one is kept as a name, which costs less than asking for it


def put_away(sources: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """({path: source}, the file of texts) of a whole firmware. SyntaxError for what Python cannot read.

    What lies outside folders keeps its texts: another application's file may lie beside it.
    """
    lines: dict[str, int] = {}
    out = {}
    size = 0
    for path in sorted(sources):
        tree = ast.parse(sources[path], path)
        if "/" in path and path != HOME:
            taken = _Taken(lines, size)
            taken.visit(tree)
            if taken.used:
                _import(tree)
            size = taken.size
        out[path] = ast.unparse(tree) + "\n"
    return out, "".join(f"{text}\n" for text in lines).encode()


def _import(tree: ast.Module) -> None:
    """`from node import say`, below what the file says of itself."""
    at = 1 if ast.get_docstring(tree) is not None else 0
    tree.body.insert(at, ast.ImportFrom("node", [ast.alias(SAY)], 0))


class _Taken(ast.NodeTransformer):
    """Texts by where they begin: those that are known already, and what this file adds from `size` on."""

    def __init__(self, lines: dict[str, int], size: int) -> None:
        self._lines = lines
        self._telling = False
        self.size = size
        self.used = False

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return self._inside(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return self._inside(node) if _tells(node.func) else self.generic_visit(node)

    def _inside(self, node: ast.AST) -> ast.AST:
        before, self._telling = self._telling, True
        self.generic_visit(node)
        self._telling = before
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        text = node.value
        if not self._telling or not isinstance(text, str) or len(text) < LEAST or " " not in text:
            return node
        if not text.isprintable():  # a line feed would end its line
            return node
        self.used = True
        if text not in self._lines:
            self._lines[text] = self.size
            self.size += len(text.encode()) + 1
        return ast.Call(ast.Name(SAY, ast.Load()), [ast.Constant(self._lines[text])], [])


def _tells(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "log":
        return True
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in TELLERS
