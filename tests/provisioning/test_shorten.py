"""Short names: what changes, and what must not."""

import ast
import contextlib
import io
import re
import subprocess
from pathlib import Path

import pytest

from peanut.image_names import NAMES
from peanut.shorten import shorten
from tools.fleet import find_micropython

FIRMWARE = Path(__file__).parents[2] / "firmware"


def lines(text: str) -> list[str]:
    return text.strip().split("\n")


def test_a_number_goes_where_it_is_used() -> None:
    short = shorten({
        "n/a.py": "LIMIT = 1 << 4\nBYTES = 3 * LIMIT\nHERE = -2\nRATE = 0.5\ndef f():\n    return (BYTES, HERE, RATE)",
        "n/b.py": "from n import a\nprint(a.LIMIT)",
        "n/c.py": "from n.a import LIMIT\nprint(LIMIT + 1)",
    })  # fmt: skip
    assert "LIMIT" not in short["n/a.py"]
    assert "BYTES" not in short["n/a.py"]
    assert "return (48, -2, " in short["n/a.py"]  # a fraction stays a name, for it would be made at each use
    assert short["n/b.py"] == "from n import a\nprint(16)\n"
    assert short["n/c.py"] == "pass\nprint(16 + 1)\n"


def test_so_does_a_short_word() -> None:
    word, text = "lost", "a text that is kept once"
    short = shorten({
        "n/a.py": f"WORD = '{word}'\nTEXT = '{text}'\ndef f():\n    return (WORD, TEXT)",
        "n/b.py": "from n import a\ndef f():\n    return (a.WORD, a.TEXT)",
    })  # fmt: skip
    assert f"return ('{word}', " in short["n/a.py"]
    assert f"return ('{word}', a." in short["n/b.py"]
    assert text not in short["n/b.py"]
    assert "WORD" not in short["n/a.py"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("from n import a\na.LIMIT = 3", r"a\.\w+"),  # somebody sets it
        ("from n import a\nLIMIT = getattr(a, 'LIMIT')", r"a\.LIMIT"),  # a string says it
        ("def f(a):\n    return a.LIMIT", r"a\.LIMIT"),  # of whom, nobody knows
        ("from m import a\nprint(a.LIMIT)", "16"),  # another module of the same name has its own
    ],
)
def test_a_number_that_may_change_stays(other: str, said: str) -> None:
    short = shorten({
        "n/a.py": "LIMIT = 16",
        "m/a.py": "LIMIT = 17",
        "n/b.py": "from n import a\nprint(a.LIMIT)",
        "n/c.py": other,
    })  # fmt: skip
    assert re.search(rf"print\({said}\)\n$", short["n/b.py"])
    assert "16" not in short["n/c.py"]
    assert ("17" in short["n/c.py"]) == ("from m" in other)


def test_who_imports_two_of_one_name_asks_them() -> None:
    short = shorten({
        "n/a.py": "LIMIT = 16",
        "m/a.py": "LIMIT = 17",
        "n/c.py": "def f():\n    from n import a\n    return a.LIMIT\n"
        "def g():\n    from m import a\n    return a.LIMIT",
        "outside.py": "from n.a import LIMIT\nprint(LIMIT)",
    })  # fmt: skip
    assert "16" not in short["n/c.py"] + short["outside.py"]
    assert "17" not in short["n/c.py"]
    assert "= 16" in short["n/a.py"]


@pytest.mark.parametrize(
    "text",
    [
        "COUNT = 0\ndef f():\n    global COUNT\n    COUNT = COUNT + 1\nf()\nprint(COUNT)",
        "SIZE = 1\nSIZE = SIZE + 1\nprint(SIZE)",
        "N = 1\ndef f(N):\n    return N\nprint(f(2), N)",
        "N = 1\ndef f():\n    for N in (3, 4):\n        print(N)\nf()\nprint(N)",
        "N = 1\ndef f():\n    from math import pi as N\n    return N\nprint(f(), N)",
        "def outer(first):\n    def inner(second):\n        nonlocal first\n        first += second\n    inner(3)\n"
        "    return first\nprint(outer(1))",
        "ON = True\nprint(ON)",
        "a = 5\ndef f(long, name):\n    return [x + a for x in (long, name)]\nprint(f(1, 2))",
        "try:\n    raise ValueError(1)\nexcept ValueError as error:\n    print(error)",
    ],
)
def test_what_it_does_stays(text: str) -> None:
    said = []
    for source in (text, shorten({"n/a.py": text})["n/a.py"]):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(source, {"__name__": "a"})
        said.append(out.getvalue())
    assert said[0] == said[1] != ""


def test_private_names_are_shared_where_they_cannot_meet() -> None:
    short = shorten({
        "n/a.py": "class A:\n    def __init__(self):\n        self._first = self._second = 0",
        "n/b.py": "class B:\n    def __init__(self):\n        self._fourth = 0",
    })  # fmt: skip
    names = [set(re.findall(r"self\.(_[a-z])\b", short[path])) for path in ("n/a.py", "n/b.py")]
    assert len(names[0]) == 2
    assert names[1] < names[0]


def test_what_is_set_from_outside_shares_its_name_with_nothing() -> None:
    """Here `_about` and `_session` are of one object, though no file has both."""
    short = shorten({
        "n/app.py": "class App:\n    def __init__(self):\n        self._session = 1",
        "n/assembly.py": "def assemble(app):\n    app._about = 'text'",
        "n/changes.py": "def change(app):\n    return app._about",
    })  # fmt: skip
    session, about = (re.search(r"\.(_\w+)", short[f"n/{name}.py"]) for name in ("app", "assembly"))
    assert session is not None
    assert about is not None
    assert session[1] != about[1]


def test_who_inherits_shares_no_name_with_its_base() -> None:
    short = shorten({
        "n/base.py": "class A:\n    def __init__(self):\n        self._one = 1",
        "n/kind.py": "from n import base\nclass B(base.A):\n    def more(self):\n        self._two = 2",
        "n/grand.py": "from n.kind import B\nclass C(B):\n    def most(self):\n        self._three = self._one",
    })  # fmt: skip
    words = {name: short[f"n/{name}.py"].split("self.") for name in ("base", "kind", "grand")}
    assert len({words["base"][1][:2], words["kind"][1][:2], words["grand"][1][:2]}) == 3
    assert words["grand"][2][:2] == words["base"][1][:2]


def test_what_only_our_modules_are_asked_for_is_short_everywhere() -> None:
    short = shorten({
        "n/a.py": "class Thing:\n    pass\ndef since(then):\n    return then\ndef value():\n    return 1",
        "n/b.py": "from n import a\nfrom n.a import Thing\ndef f(p):\n    return a.since(Thing), a.value(), p.value()",
        "outside.py": "from n import a\ndef f():\n    return old(a.since)\ndef old(x):\n    return x",
    })  # fmt: skip
    assert "Thing" not in short["n/a.py"] + short["n/b.py"]
    assert "def value" in short["n/a.py"]  # a pin has one, too
    assert "def since" in short["n/a.py"]  # what is outside may be of another version
    assert "def old" in short["outside.py"]
    del_outside = {"n/a.py": "def since(then):\n    return then", "n/b.py": "from n import a\nprint(a.since(1))"}
    assert "since" not in "".join(shorten(del_outside).values())
    own = {"n/a.py": "class OurError(Exception):\n    pass", "n/b.py": "from n.a import OurError\nraise OurError(1)"}
    assert "class OurError" in shorten(own)["n/a.py"]  # it is told in words
    local = {"n/a.py": "def since():\n    return 1", "n/b.py": "from n import a\ndef f(a):\n    return a.since"}
    assert "since" in shorten(local)["n/b.py"]  # of whatever `a` is there


def test_what_somebody_may_ask_for_stays() -> None:
    text = """
import _onewire
KEPT = ('_since',)
class A:
    STEP = 3
    def __init__(self, size, spec, now):
        self._since = now
        self.size = size
    def _private(self):
        return _onewire.reset(self.STEP)
    def readinto(self, view):
        return view
    def __len__(self):
        return len(self.size)
def make(type):
    return A(1, spec=2, now=type)
"""
    short = shorten({"n/a.py": text})["n/a.py"]
    for name in ("_onewire", "'_since'", "self._since", "STEP", "spec", "now", "readinto", "__len__", "type"):
        assert name in short, name
    assert "_private" not in short
    assert "view" not in short  # no call names it


def test_what_objects_have_for_others_is_short_unless_others_have_it_too() -> None:
    short = shorten({
        "n/a.py": "class A:\n    def __init__(self):\n        self.ours = self.value = self.said = self.theirs = 0\n"
        "    def batch(self):\n        return 1",
        "n/b.py": "def f(a, pin):\n    a.theirs = 1\n"
        "    return a.ours, a.value, a.said, a.theirs, a.batch(), pin.unknown",
        "n/c.py": "KEY = 'said'\nclass C:\n    def __init__(self):\n        self.more = 0",
    })  # fmt: skip
    for name in ("ours", "batch"):
        assert name not in short["n/a.py"] + short["n/b.py"]
    # A pin has one, too; a string names it; another file sets it, on who knows what; nobody gives it a meaning.
    for name in ("value", "said", "theirs", "unknown"):
        assert f".{name}" in short["n/b.py"], name
    assert len(set(re.findall(r"\._\w+", short["n/b.py"]))) == 2


def test_the_names_of_the_image_are_whole() -> None:
    """Those that MicroPython's unix port shows, of the modules that the firmware imports: a short one would hide."""
    script = """
import sys
found = set()
def look(thing, depth):
    for name in dir(thing):
        found.add(name)
        if depth:
            look(getattr(thing, name), depth - 1)
for name in "array asyncio binascii builtins errno gc hashlib io json machine micropython os random select".split():
    look(__import__(name), 3)
for name in "socket ssl struct sys time vfs".split():
    look(__import__(name), 3)
for thing in (bytearray(), memoryview(b""), (x for x in ()), 1, 1.0):
    look(thing, 0)
print(" ".join(found))
"""
    done = subprocess.run([find_micropython(), "-c", script], capture_output=True, text=True, check=True, timeout=60)
    shown = {name for name in done.stdout.split() if name.islower() and not name.startswith("_")}
    assert {"append", "read", "value", "wrap_socket", "sleep_ms"} <= shown
    assert shown <= NAMES, shown - NAMES


def test_a_private_name_of_others_stays() -> None:
    """What no file of ours gives a meaning is part of the image, and a node has no other name for it."""
    text = "import asyncio\nclass A:\n    def f(self):\n        self._ours = asyncio.core._theirs.read(self._ours)"
    short = shorten({"n/a.py": text})["n/a.py"]
    assert "asyncio.core._theirs.read" in short
    assert "_ours" not in short
    link = shorten({"node/link.py": (FIRMWARE / "node/link.py").read_text()})["node/link.py"]
    assert "asyncio.core._io_queue" in link


def test_an_argument_hides_nothing_that_its_function_needs() -> None:
    text = "a = 1\ndef f(first, second):\n    b = a\n    return [g(second) for g in (lambda third: third + b + first,)]"
    space: dict[str, object] = {}
    short = shorten({"n/x.py": text})["n/x.py"]
    assert "first" not in short
    exec(short, space)
    found = [value for name, value in space.items() if callable(value)]
    assert len(found) == 1
    assert found[0](10, 100) == [111]


def test_the_firmware_keeps_names_apart() -> None:
    """In no file do two names become one, and files that are asked for nothing more than before say the same."""
    texts = {str(p.relative_to(FIRMWARE)): p.read_text() for p in FIRMWARE.rglob("*.py")}
    short = shorten(texts)
    assert set(short) == set(texts)
    before, after = set(), set()
    for path in texts:
        names = [
            {n.attr for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute)}
            for text in (texts[path], short[path])
        ]
        numbers = {name for name in names[0] if name == name.upper()}  # which may have gone
        assert len(names[0] - numbers) <= len(names[1]) <= len(names[0]), path
        before |= names[0]
        after |= names[1]
    assert len(after) < 0.8 * len(before)
