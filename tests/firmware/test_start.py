"""node/start.py beside a chip that is stood in for: what is set before the node runs, what each of its ends leaves."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .test_rescue_parts import Chip

import choice  # isort: skip
from node import blackbox, hardware, log, start  # isort: skip
from profiles import greenhouse  # isort: skip


class Ended(Exception):
    """The chip has reset itself."""


def run(monkeypatch: pytest.MonkeyPatch, end: Callable[[], Any]) -> tuple[list[Any], Chip, blackbox.BlackBox]:
    """Run start.py with an app that ends as `end` does: (what happened, the chip, the black box of the next life)."""
    happened: list[Any] = []
    kept = [b""]
    chip = Chip()

    def memory(data: bytes | None = None) -> bytes:
        kept[0] = kept[0] if data is None else bytes(data)
        return kept[0]

    def reset() -> None:
        happened.append("reset")
        raise Ended

    class App:
        def __init__(self, *_: object) -> None:
            happened.append("made")

        def safe(self) -> None:
            happened.append("safe")

        async def run(self, _: object) -> Any:
            happened.append("run")
            return end()

    monkeypatch.setattr(greenhouse, "app", App)
    monkeypatch.setattr(start, "forget", lambda *_: None)
    monkeypatch.setattr(hardware, "machine", chip)
    monkeypatch.setattr(hardware, "memory", memory)
    monkeypatch.setattr(hardware, "reset", reset)
    monkeypatch.setattr(log, "keep", None)
    heap = types.SimpleNamespace(
        collect=lambda: 0, mem_free=lambda: 40000, mem_alloc=lambda: 500, threshold=happened.append
    )
    monkeypatch.setattr(start, "gc", heap)
    monkeypatch.setattr(sys, "print_exception", lambda _: None, raising=False)  # MicroPython's
    with contextlib.suppress(Ended):
        start.run()
    return happened, chip, blackbox.BlackBox(lambda *data: memory(*data), "reset")


def test_the_collector_runs_before_the_heap_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold is set once, when the application stands: half of what is free."""
    happened, _, after = run(monkeypatch, lambda: "config")
    assert happened == ["made", 20000, "run", "reset"]
    assert (after.was, after.crashes) == ("planned: config", 0)


def test_whoever_interrupts_the_node_gets_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog cannot be stopped; the outputs are off, and nothing resets the chip."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    happened, chip, _ = run(monkeypatch, interrupted)
    assert happened[2:] == ["run", "safe"]
    assert chip.timeouts == [3600000]


def test_a_fault_switches_off_and_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs first, then the reason to RTC memory, then the reset: the next life knows."""

    def broken() -> None:
        raise RuntimeError("control is broken")

    happened, _, after = run(monkeypatch, broken)
    assert happened[2:] == ["run", "safe", "reset"]
    assert (after.was, after.crashes) == ("crash: RuntimeError: control is broken", 1)


def test_an_update_on_trial_that_fails_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not after the three starts that it has: what was before runs next, and knows why."""

    def broken() -> None:
        raise RuntimeError("update is broken")

    monkeypatch.chdir(tmp_path)
    choice.begin("a", 10, "1.0", [])
    happened, _, _ = run(monkeypatch, broken)
    assert happened[2:] == ["run", "safe", "reset"]
    assert choice.pick() == ""
    assert choice.read()["gone"] == [10, "RuntimeError: update is broken"]


def test_a_planned_stop_is_no_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    happened, chip, _ = run(monkeypatch, lambda: None)
    assert happened[2:] == ["run"]
    assert chip.timeouts == []
