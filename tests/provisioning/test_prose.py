"""Texts that stay in flash: which leave the code, and that a node says them all the same."""

import ast
import subprocess
from pathlib import Path

from peanut import application, prose
from tools.fleet import find_micropython

FIRMWARE = Path(__file__).parents[2] / "firmware"

CODE = """'''A module.'''
from node import log
KEY = 'a key that is data'
def f(self, x):
    log.warn('short', 'the log says %d' % x)
    self._fail('it ended because of %s' % x)
    self._send('what is sent now')
    if x:
        raise ValueError('not this: %s' % KEY, 'no_words_here', 'with a\\nline feed')
"""


def test_only_texts_of_failure_leave_the_code() -> None:
    short, texts = prose.put_away({"n/a.py": CODE, "outside.py": CODE, "node/__init__.py": CODE})
    assert texts.decode().split("\n") == ["the log says %d", "it ended because of %s", "not this: %s", ""]
    for text in ("a key that is data", "short", "what is sent now", "no_words_here", "with a\\nline feed"):
        assert text in short["n/a.py"], text
    for text in texts.decode().split("\n")[:-1]:
        assert text not in short["n/a.py"]
        assert text in short["outside.py"]  # it may lie beside another application's file
        assert text in short["node/__init__.py"]
    assert "from node import say" in short["n/a.py"]


def test_what_is_said_again_lies_there_once() -> None:
    code = "def f():\n    raise OSError('said by two files')"
    short, texts = prose.put_away({"n/a.py": "raise OSError('the first of all')", "n/b.py": code, "n/c.py": code})
    assert texts == b"the first of all\nsaid by two files\n"
    assert short["n/b.py"] == short["n/c.py"]
    assert "say(17)" in short["n/b.py"]


def test_a_node_says_every_text(tmp_path: Path) -> None:
    """As it is compiled, from wherever it was started; and without the file, or beyond its end, a mark."""
    body = {"kind": "greenhouse", "board": {"outputs": {}, "sensors": {}}}
    files = application.compiled(
        body, FIRMWARE, {"ask.py": "import sys\nfrom node import say\nfor a in sys.argv[1:]:\n    print(say(int(a)))"}
    )
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    texts = files[prose.PLACE].decode()
    lines = texts.split("\n")[:-1]
    places = [len("\n".join([*lines[:i], ""]).encode()) for i in range(len(lines))]
    assert len(lines) > 40

    def said(*at: int) -> list[str]:
        done = subprocess.run(
            [find_micropython(), "-m", "ask", *map(str, at)], cwd=tmp_path.parent, capture_output=True, text=True,
            env={"MICROPYPATH": f"{tmp_path}:.frozen"}, check=True, timeout=60,
        )  # fmt: skip
        return done.stdout.split("\n")[:-1]

    assert said(*places) == lines
    assert said(len(texts.encode()) + 1) == [""]
    (tmp_path / prose.PLACE).unlink()
    assert said(*places[:2]) == ["?", "?"]


def test_what_the_node_reads_is_what_was_written() -> None:
    """Every place that the firmware's code asks for is the beginning of a text."""
    sources = {str(path.relative_to(FIRMWARE)): path.read_text() for path in FIRMWARE.rglob("*.py")}
    short, texts = prose.put_away(sources)
    for path, text in short.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == prose.SAY:
                at = ast.literal_eval(node.args[0])
                line = texts[at:].split(b"\n")[0].decode()
                assert at == 0 or texts[at - 1 : at] == b"\n"
                assert repr(line) in ast.unparse(ast.parse(sources[path])), (path, line)
