"""The ring of readings for the time without a gateway: the shared checks on both interpreters, and hypothesis."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import ring_checks
from .conftest import on_the_unix_port

from node import ring  # isort: skip


@pytest.mark.parametrize(("name", "check"), ring_checks.checks())
def test_on_cpython(name: str, check: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check."""
    monkeypatch.chdir(tmp_path)
    check()


def test_the_same_checks_on_the_unix_port(tmp_path: Path) -> None:
    """Every check passes on MicroPython, in a heap like the chip's."""
    assert on_the_unix_port(ring_checks.__file__, cwd=tmp_path) == [name for name, _ in ring_checks.checks()]


STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 40)),
    st.tuples(st.just("send"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["flush", "restart"]), st.just(0)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(2, 4))
def test_all_that_was_kept_arrives(steps: list[Any], segments: int) -> None:
    """Any order of adding, sending, flushing and power cuts: what arrives is in order within a start, what was
    acknowledged may come again after a cut only, and what is missing was counted or in RAM at a cut."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "SEGMENTS", segments)
        patch.setattr(ring, "SEGMENT", 512)
        number = cut = lost = boot = 0
        arrived: list[int] = []
        r = ring.Ring(("t",), boot, 0, folder)

        def send() -> bool:
            batch = r.batch()
            if batch is None:
                return False
            arrived.extend(entry["ts"] for entry in batch)
            r.done()
            return True

        for what, count in steps:
            if what == "add":
                for _ in range(count):
                    r.add(number, {"t": (number % 100, "ok")})
                    number += 1
            elif what == "send":
                before = len(arrived)
                while count and send():
                    count -= 1
                assert arrived[before:] == sorted(arrived[before:])
            elif what == "flush" and len(r):
                r.flush()
            elif what == "restart":
                cut += r._used // ring.RECORD
                lost += r.lost
                boot += 1
                r = ring.Ring(("t",), boot, 0, folder)
            assert len(list(Path(folder).iterdir())) <= segments
        while send():
            pass
        assert len(r) == 0
        missing = number - len(set(arrived))
        assert missing <= cut + lost + r.lost
