"""The firmware's sources with names that cost less: a node's heap keeps every name of its code, once and for good.

Rule: nothing but names changes, and none that anybody can see from outside. This is done, over all files of the
firmware together, so that a file comes out the same whichever node it is for:

* A module's number or short word written in capitals (`MAX_SIZE = 2048`) is put where it is used, in whichever file;
  the name itself goes, unless a file outside folders or a string names it, or somebody sets it.
* A private name (`_flight`), and what a module defines (`def since`) if it is only ever asked of that module, becomes a
  short one (`_b`), the same in all files. Two names may become one where they can never meet: no file has both, nor do
  two files of which one has a class that the other's inherits from, and neither is only ever set from outside.
* So does what objects of ours have for others (`ring.batch`), unless MicroPython's objects have it, too
  (peanut/image_names.py): `pin.value` stays.
* An argument that no call names becomes a letter.

A private name that no file of ours gives a meaning is somebody else's (`asyncio.core._io_queue`), and stays. What a
string also says (it may be meant for getattr) and `__names__` stay; so do errors, whose names are told, and what the
files outside folders have, which an older application may find beside it.
"""

import ast
import builtins
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from peanut.image_names import NAMES

Nodes = Sequence[ast.AST]
"""Of one tree, as `_walk` finds them."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD = 10  # characters; mpy-cross makes a name of a text that is not longer


def shorten(sources: Mapping[str, str], callers: Iterable[str] = ()) -> dict[str, str]:
    """{path: source} of a whole firmware, rewritten. SyntaxError for what Python cannot read.

    callers: sources that stay as they are; what they ask for keeps its name.
    """
    trees = {path: ast.parse(text, path) for path, text in sources.items()}
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in trees}
    nodes = {path: _walk(tree) for path, tree in trees.items()}
    own = {path: _modules_of(found, modules) for path, found in nodes.items()}
    kept = {text for found in nodes.values() for text in _said(found)} | {m.split(".")[-1] for m in modules}
    for path, found in nodes.items():
        kept.update(_asked_of_others(found, own[path], modules))
    kept.update(_foreign(nodes.values()))
    handed = _handed(nodes.values()) - NAMES - kept
    for found in [*(_walk(ast.parse(text)) for text in callers), *(f for path, f in nodes.items() if "/" not in path)]:
        kept.update(name for name in _names(found) if not _private(name) and name != name.upper())
        kept.update(_asked_of_others(found, set(), set()), _behind_dots(found, set()))
    for path, found in nodes.items():
        kept.update(set(_behind_dots(found, own[path])) - handed)
    _put_numbers_of_others(trees, nodes, own, kept)
    nodes = {path: _walk(tree) for path, tree in trees.items()}  # the trees are others now, and so again below
    asked = {n for found in nodes.values() for n in _asked_of(found, _modules_of(found, modules), modules)}
    for path, tree in trees.items():
        _put_numbers(tree, nodes[path], kept | asked)
        _letter_arguments(tree, kept)
    nodes = {path: _walk(tree) for path, tree in trees.items()}
    short = _short_names(trees, nodes, kept, handed - kept)
    for found in nodes.values():
        _rename(found, short)
    return {path: ast.unparse(tree) + "\n" for path, tree in trees.items()}


def _walk(tree: ast.AST) -> list[ast.AST]:
    """The nodes of a tree, in the order of ast.walk and in a third of its time: what is done with a name (Load) or with
    numbers (Add) is not among them."""
    found = [tree]
    for node in found:  # which grows meanwhile
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                found += [one for one in value if isinstance(one, ast.AST)]
            elif isinstance(value, ast.AST) and field not in ("ctx", "op"):
                found.append(value)
    return found


def _said(nodes: Nodes) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _modules_of(nodes: Nodes, modules: set[str]) -> set[str]:
    """The names that stand for modules of ours in a file, and for nothing else."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            found |= {
                alias.name for alias in node.names if f"{node.module}.{alias.name}" in modules and not alias.asname
            }
    bound = Counter(name for node in nodes for name in _written(node) if not isinstance(node, ast.ImportFrom))
    return {name for name in found if not bound[name]}


def _homes(nodes: Nodes, own: set[str]) -> dict[str, str]:
    """{name: module} of the modules `own` that a file imports; not of two that have the same name."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if alias.name in own:
                found.setdefault(alias.name, set()).add(f"{node.module}.{alias.name}")  # type: ignore[attr-defined]
    return {name: homes.pop() for name, homes in found.items() if len(homes) == 1}


def _asked_of(nodes: Nodes, own: set[str], modules: set[str]) -> Iterator[str]:
    """The names that a file asks of modules of ours."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module in modules:
            yield from (alias.name for alias in node.names if f"{node.module}.{alias.name}" not in modules)
        elif isinstance(node, ast.Attribute) and _stands_behind(own, node):
            yield node.attr


def _asked_of_others(nodes: Nodes, own: set[str], modules: set[str]) -> Iterator[str]:
    """The names that a file has of anything else: imported, or naming an argument of a call."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            ours = isinstance(node, ast.ImportFrom) and node.module in modules
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from node.module.split(".")
            for alias in node.names:
                if not ours or f"{node.module}.{alias.name}" in modules:  # type: ignore[union-attr]
                    yield from alias.name.split(".")
                if alias.asname:
                    yield from (alias.name, alias.asname)
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg


def _behind_dots(nodes: Nodes, own: set[str]) -> Iterator[str]:
    """The public names that a file reads from anything but the modules `own`."""
    for node in _dotted(nodes):
        if not node.attr.startswith("_") and not _stands_behind(own, node):
            yield node.attr


def _handed(trees: Iterable[Nodes]) -> set[str]:
    """The public names that objects of ours have for others: set in a class, or by its methods, and nowhere else."""
    mine: set[str] = set()
    theirs: set[str] = set()
    for nodes in trees:
        mine.update(_of_classes(nodes))
        for node in _dotted(nodes):
            if not isinstance(node.ctx, ast.Load):
                (mine if _stands_behind({"self"}, node) else theirs).add(node.attr)
    return {name for name in mine - theirs if name.islower() and not name.startswith("_")}


def _foreign(trees: Iterable[Nodes]) -> set[str]:
    """The names behind a dot that none of these files gives a meaning."""
    asked: set[str] = set()
    given: set[str] = set()
    for nodes in trees:
        given.update(name for node in nodes for name in _written(node))
        for node in _dotted(nodes):
            (asked if isinstance(node.ctx, ast.Load) else given).add(node.attr)
    return asked - given


def _dotted(nodes: Nodes) -> Iterator[ast.Attribute]:
    """Everything in them that stands behind a dot."""
    return (node for node in nodes if isinstance(node, ast.Attribute))


def _stands_behind(names: set[str], node: ast.Attribute) -> bool:
    """Whether one of the names is before the dot, and nothing else."""
    return isinstance(node.value, ast.Name) and node.value.id in names


# -- numbers -----------------------------------------------------------------------------------------------------------


def _put_numbers(tree: ast.Module, nodes: Nodes, kept: set[str]) -> None:
    """Each number of the module's where its name was read; the names that are not `kept` go."""
    values = _values_of(tree, nodes)
    tree.body = [s for s in tree.body if _constant_name(s) not in values or _constant_name(s) in kept]
    _Numbers(values).visit(tree)


def _put_numbers_of_others(
    trees: Mapping[str, ast.Module], nodes: Mapping[str, Nodes], own: Mapping[str, set[str]], kept: set[str]
) -> None:
    """The same of other modules' numbers. What a file outside folders has or asks for stays as it is.

    own: {path: the names that stand for modules of ours in that file}.
    """
    stored = {n.attr for found in nodes.values() for n in _dotted(found) if not isinstance(n.ctx, ast.Load)}
    values = {}
    for path, tree in trees.items():
        if "/" in path:
            module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            values[module] = {n: v for n, v in _values_of(tree, nodes[path]).items() if n not in kept | stored}
    for path, tree in trees.items():
        if "/" in path:
            taken = _Taken(values, _homes(nodes[path], own[path]), nodes[path])
            taken.visit(tree)
            _Numbers(taken.values).visit(tree)


def _values_of(tree: ast.Module, nodes: Nodes) -> dict[str, int | str]:
    """{name: value} of a module's numbers and short words."""
    written = Counter(name for node in nodes for name in _written(node))
    values: dict[str, int | str] = {}
    for statement in tree.body:
        name = _constant_name(statement)
        if name is not None and written[name] == 1:
            value = _number(statement.value, values)  # type: ignore[attr-defined]
            if value is not None:
                values[name] = value
    return values


def _constant_name(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        if isinstance(target, ast.Name) and target.id == target.id.upper():
            return target.id
    return None


def _written(node: ast.AST) -> Iterator[str]:
    """The names that a node of the tree gives a meaning: assigned, arguments, functions, global, imported."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Global | ast.Nonlocal):
        yield from node.names
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)


def _number(node: ast.expr, known: Mapping[str, int | str]) -> int | str | None:
    """The whole number that an expression of numbers is; a word that is kept as a name anyway; or None."""
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, str):
            return value if len(value) <= WORD else None
        return value if type(value) is int else None  # True and False are none
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(node.operand, known)
        return -value if isinstance(value, int) else None
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left, known), _number(node.right, known)
        if isinstance(left, int) and isinstance(right, int):
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.Mult):
                return left * right
            if isinstance(node.op, ast.LShift):
                return left << right
            if isinstance(node.op, ast.RShift):
                return left >> right
    return None


class _Numbers(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, int | str]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Load) and node.id in self._values:
            return ast.Constant(self._values[node.id])
        return node


class _Taken(ast.NodeTransformer):
    """Takes what modules of ours are asked for (`mqtt.WINDOW`) from their values, and imports of such."""

    def __init__(self, values: Mapping[str, Mapping[str, int | str]], own: Mapping[str, str], nodes: Nodes) -> None:
        """own: {name: module} in the tree of these nodes."""
        self._of_modules = values
        self._own = own
        self._written = Counter(name for node in nodes for name in _written(node))
        self.values: dict[str, int | str] = {}  # of the names that were imported

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load):
            known = self._of_modules.get(self._own.get(node.value.id, ""), {})
            if node.attr in known:
                return ast.Constant(known[node.attr])
        return self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        known = self._of_modules.get(node.module or "", {})
        taken = {a.name for a in node.names if a.name in known and not a.asname and self._written[a.name] == 1}
        self.values.update({name: known[name] for name in taken})
        node.names = [alias for alias in node.names if alias.name not in taken]
        return node if node.names else ast.Pass()


# -- arguments ---------------------------------------------------------------------------------------------------------


def _letter_arguments(tree: ast.Module, kept: set[str]) -> None:
    """The arguments of each function, and of those inside it, that are not `kept`."""
    fixed = kept | set(_of_module(tree)) | set(dir(builtins)) | {"self"}
    for function in _functions(tree):
        nodes = _walk(function)
        there = fixed.union(_names(nodes))
        free = iter([letter for letter in LETTERS if letter not in there])
        short: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.arg) and node.arg not in fixed and node.arg not in short:
                short[node.arg] = next(free, node.arg)
        if short:
            _rename(nodes, short, attributes=False)


def _functions(node: ast.AST) -> Iterator[ast.AST]:
    """The functions of a module and of its classes, not those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
        else:
            yield from _functions(child)


def _of_module(node: ast.AST) -> Iterator[str]:
    """The names that a module's statements give a meaning in the module itself."""
    for child in ast.iter_child_nodes(node):
        yield from _written(child)
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _of_module(child)


def _of_classes(nodes: Nodes) -> Iterator[str]:
    """The names that classes have: whoever gets an object of theirs may ask for them."""
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            yield from _of_module(node)


# -- names -------------------------------------------------------------------------------------------------------------


def _short_names(
    trees: Mapping[str, ast.Module], nodes: Mapping[str, Nodes], kept: set[str], handed: set[str]
) -> dict[str, str]:
    """{name: its short one} of the private names, of the `handed`, and of those that no other file asks for."""
    own = {name for tree in trees.values() for name in _of_module(tree)} - set(dir(builtins))
    own -= {name for found in nodes.values() for name in _of_classes(found)}
    own = {name for name in own | handed if not name.endswith("Error")}
    found = {path: Counter(_names(of_file)) for path, of_file in nodes.items()}
    family = _families(nodes)
    taken = kept | {name for names in found.values() for name in names}
    often: Counter[str] = Counter()
    where: dict[str, set[str]] = {}  # the families in which a name occurs
    for path, names in found.items():
        for name, times in names.items():
            if (_private(name) or name in own) and name not in kept and not name.startswith("__"):
                often[name] += times
                where.setdefault(name, set()).add(family[path])
    everywhere = set(family.values())
    for name in _set_from_outside(nodes.values()) & where.keys():
        where[name] = everywhere
    short: dict[str, str] = {}
    used: list[tuple[str, set[str]]] = []  # short names, and the families that have them
    for name in sorted(often, key=lambda n: (-len(where[n]), -often[n], n)):
        free = next((pair for pair in used if not pair[1] & where[name]), None)
        if free is None:
            free = (_next(len(used), taken), set())
            used.append(free)
        free[1].update(where[name])
        short[name] = free[0]
    return short


def _set_from_outside(trees: Iterable[Nodes]) -> set[str]:
    """The names that are set on objects, and that no class asks `self` for: which object has them, nobody can tell."""
    found: set[str] = set()
    own: set[str] = set()
    for nodes in trees:
        for node in _dotted(nodes):
            if _stands_behind({"self"}, node):
                own.add(node.attr)
            elif not isinstance(node.ctx, ast.Load):
                found.add(node.attr)
    return found - own


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _names(nodes: Nodes) -> Iterator[str]:
    """Every name in them, as often as it occurs."""
    for node in nodes:
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        else:
            yield from _written(node)


def _families(trees: Mapping[str, Nodes]) -> dict[str, str]:
    """{path: a name for all files that inherit from one another}."""
    head = {path: path for path in trees}

    def top(path: str) -> str:
        while head[path] != path:
            path = head[path]
        return path

    classes = {n.name: path for path, nodes in trees.items() for n in nodes if isinstance(n, ast.ClassDef)}
    for path, nodes in trees.items():
        for node in nodes:
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
                if name in classes:
                    head[top(path)] = top(classes[name])
    return {path: top(path) for path in trees}


def _next(number: int, taken: set[str]) -> str:
    """The short name of this number: _a, _b, … _z, _aa, …; `taken` ones have a `_` behind."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, len(LETTERS))
        text = LETTERS[rest] + text
    text = "_" + text
    while text in taken:
        text += "_"
    return text


def _rename(nodes: Nodes, short: Mapping[str, str], attributes: bool = True) -> None:
    """Names by a table; without `attributes` only those that a function finds without a dot."""
    for node in nodes:
        if isinstance(node, ast.Name):
            node.id = short.get(node.id, node.id)
        elif isinstance(node, ast.Attribute):
            if attributes:
                node.attr = short.get(node.attr, node.attr)
        elif isinstance(node, ast.arg | ast.keyword):
            if node.arg is not None:
                node.arg = short.get(node.arg, node.arg)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            node.names = [short.get(name, name) for name in node.names]
        elif attributes and isinstance(node, ast.ImportFrom):
            for alias in node.names:
                alias.name = short.get(alias.name, alias.name)
        elif attributes and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.name = short.get(node.name, node.name)
