"""The status light: which flashes for which state, and their rhythm. Time is a number."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from . import fakes
from .conftest import ROOT

from node import clock, led  # isort: skip


def node(**more: Any) -> Any:
    """An application as the light sees it, with nothing wrong."""
    faults: list[str] = more.pop("faults", [])
    whole = {
        "_since": None,
        "_ailing": lambda: faults,
        "_wifi": SimpleNamespace(up=True),
        "_client": SimpleNamespace(ready=True),
        "_link": SimpleNamespace(words="not connected yet"),
    }
    return SimpleNamespace(**{**whole, **more})


AWAY = SimpleNamespace(ready=False)
NO_WIFI = SimpleNamespace(up=False)
REFUSED = SimpleNamespace(words="certificate error: the gateway refused this node's certificate")


@pytest.mark.parametrize(
    ("state", "flashes"),
    [
        ({}, led.WELL),
        ({"_wifi": None}, led.WELL),
        ({"_client": AWAY}, led.GATEWAY),
        ({"_client": AWAY, "_link": REFUSED}, led.REFUSED),
        ({"_client": AWAY, "_link": REFUSED, "_wifi": NO_WIFI}, led.WIFI),
        ({"_client": AWAY, "_wifi": NO_WIFI, "faults": ["sensor: silent"]}, led.FAULT),
    ],
)
def test_the_worst_is_since(state: dict[str, Any], flashes: int) -> None:
    assert led.flashes(node(**state)) == flashes


def test_who_is_looked_for_is_found_for_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000
    monkeypatch.setattr(clock, "now", lambda: now)
    app = node(_since=1000, faults=["sensor: silent"])
    assert led.flashes(app) == 0
    now += led.IDENTIFY_MS
    assert led.flashes(app) == led.FAULT
    now = 1000  # the tick counter comes round
    assert led.flashes(app) == led.FAULT


@pytest.mark.parametrize("kind", ["gpio", "ws2812"])
@pytest.mark.parametrize("state", [{"_wifi": NO_WIFI}, {"_since": 0}])
def test_the_rhythm(monkeypatch: pytest.MonkeyPatch, kind: str, state: dict[str, Any]) -> None:
    """So many flashes and a pause, again and again; without an end where the node is looked for."""
    machine: Any = fakes.Machine()
    monkeypatch.setattr(clock, "now", lambda: 0)
    seen: list[int] = []
    machine.watchers.append(lambda number, level, rising: seen.append(level))
    machine.bitstream = lambda pin, way, timing, data: seen.append(int(any(data)))
    made = led.Led(machine, {"pin": 2, "kind": kind}, node(**state))
    seen.clear()
    waits: list[int] = []

    async def sleep_ms(ms: int) -> None:
        waits.append(ms)
        if len(waits) == 10:
            raise asyncio.CancelledError

    monkeypatch.setattr(led, "asyncio", SimpleNamespace(sleep_ms=sleep_ms))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(made.run(SimpleNamespace(beat=lambda now: None)))
    flash = [led.FLASH_MS, led.GAP_MS]
    assert waits == ([*flash, *flash, led.PAUSE_MS] * 2 if "_wifi" in state else flash * 5)
    assert seen == [1, 0] * (4 if "_wifi" in state else 5)


def test_the_readme_tells_the_flashes() -> None:
    text = (ROOT / "firmware" / "README.md").read_text()
    for count, words in ((led.WELL, "well"), (led.WIFI, "no Wi-Fi"), (led.GATEWAY, "no gateway")):
        assert f"{count} {words}" in text
    assert f"{led.REFUSED} the gateway's or the node's certificate is refused, {led.FAULT} a fault" in text
