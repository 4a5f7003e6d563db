"""The rescue app's ways to Wi-Fi, to the time and to either gateway, and its watchdog: on CPython, beside a chip that
is stood in for. The whole of it is in test_rescue.py.
"""

from __future__ import annotations

import calendar
import json
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from tools.fleet import find_micropython

from .conftest import ROOT
from .datagrams import TimeServer

import rescue  # isort: skip

CFG = {"name": "peanut", "root": "/plant/peanut", "kind": "greenhouse"}
NETWORKS = {"networks": [{"ssid": "barn", "password": "hunter22"}, {"ssid": "open", "password": ""}]}


class House:
    """The control, as far as the connection knows it: it counts its turns."""

    turns = 0

    def step(self) -> None:
        self.turns += 1


def line(cfg: dict[str, Any], wifi: str | None = None) -> Any:
    """The rescue app's connection, of a node with this configuration."""
    return rescue._Line({**CFG, **cfg}, wifi, "why", "", House())


class Chip(types.ModuleType):
    """`machine`: a clock, a watchdog, a reset."""

    def __init__(self) -> None:
        super().__init__("machine")
        self.set: list[tuple[int, ...]] = []
        self.fed = 0
        self.timeouts: list[int] = []
        chip = self

        class RTC:
            def datetime(self, told: tuple[int, ...]) -> None:
                chip.set.append(told)

        class WDT:
            def __init__(self, timeout: int) -> None:
                chip.timeouts.append(timeout)

            def feed(self) -> None:
                chip.fed += 1

        self.RTC, self.WDT = RTC, WDT

    def reset(self) -> None:
        raise SystemExit("reset")


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Chip:
    """A chip in its directory, on which no second passes."""
    made = Chip()
    monkeypatch.setitem(sys.modules, "machine", made)
    monkeypatch.chdir(tmp_path)
    stands = types.SimpleNamespace(time=time.time, gmtime=time.gmtime, sleep=lambda _: None)
    monkeypatch.setattr(rescue, "time", stands)
    return made


@pytest.mark.parametrize("port_of_its_own", [True, False])
def test_a_clock_of_2000_is_set_by_the_gateway(
    chip: Chip, monkeypatch: pytest.MonkeyPatch, port_of_its_own: bool
) -> None:
    """Asked where the configuration says; a clock that goes right is left alone; a time that cannot be is none."""
    now = int(time.time())
    with TimeServer(now) as server:
        own = {"port": 1, "time_port": server.port} if port_of_its_own else {"port": server.port, "time_port": None}
        one = line({"gateway": {"host": "127.0.0.1", **own}})
        one._clock("127.0.0.1")
        assert server.asked == 0
        monkeypatch.setattr(rescue.time, "time", lambda: 946684800.0)
        one._clock("127.0.0.1")
        ((year, month, day, weekday, hour, minute, second, _),) = chip.set
        assert calendar.timegm((year, month, day, hour, minute, second)) == now
        assert weekday == time.gmtime(now)[6]
        for wrong in (rescue.FLOOR - 1, rescue.FLOOR + 16 * 31557600):
            server.unix = wrong
            one._clock("127.0.0.1")
        assert server.asked == 3
        assert len(chip.set) == 1


def test_each_network_in_its_turn(chip: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wifi.json, or what the gateway has sent; a fresh radio for each; no network is said; control goes on."""
    calls: list[Any] = []

    class Wlan:
        joined = False

        def isconnected(self) -> bool:
            return self.joined

        def active(self, on: bool) -> None:
            calls.append(on)

        def connect(self, ssid: str, password: str | None) -> None:
            calls.append((ssid, password))
            self.joined = ssid == "open"

    wlan = Wlan()
    network = types.ModuleType("network")
    network.WLAN, network.STA_IF = lambda _: wlan, 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "network", network)
    Path("wifi.json").write_text(json.dumps({"networks": [{"ssid": "old", "password": "x"}]}))
    asked = line({}, json.dumps(NETWORKS))
    asked._tries = 2
    with pytest.raises(OSError, match="Wi-Fi"):
        asked._join()
    assert asked._house.turns == rescue.JOIN_S, "the plants do not wait for the radio"
    asked._tries = 3
    asked._join()
    asked._join()
    assert calls == [False, True, ("barn", "hunter22"), False, True, ("open", None)]
    wlan.joined = False
    with pytest.raises(OSError, match="Wi-Fi"):
        line({})._join()
    assert calls[-1] == ("old", "x")


def test_both_gateways_in_turn(chip: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is asked where there is one."""
    umqtt = types.ModuleType("umqtt.simple")
    umqtt.MQTTClient = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umqtt", types.ModuleType("umqtt"))
    monkeypatch.setitem(sys.modules, "umqtt.simple", umqtt)
    for second, hosts in (("b", ["a", "b", "a", "b"]), (None, ["a"] * 4)):
        one = line({"gateway": {"host": "a", "port": 1, "second": second}})
        asked: list[str] = []

        def clock(host: str, asked: list[str] = asked) -> None:
            asked.append(host)
            raise OSError("far enough")

        one._clock = clock
        for turn in (2, 2 + rescue.CONNECT_S, 2 + 2 * rescue.CONNECT_S, 2 + 3 * rescue.CONNECT_S):
            with pytest.raises(OSError, match="far enough"):
                one.step(turn)
            one.step(turn + 1)  # a minute between two tries
        assert asked == hosts


def test_the_watchdog_is_fed_each_second_and_waits_an_hour_for_whoever_interrupts(
    chip: Chip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that fails in a turn (here there is no node.json) costs the watchdog its food."""
    with pytest.raises(SystemExit, match="reset"):
        rescue.run(None, "main: it is broken")
    assert (chip.timeouts, chip.fed) == ([60000], rescue.AGAIN_S)
    assert "rescue: main: it is broken" in capsys.readouterr().out
    chip.timeouts.clear()

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rescue.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rescue.run(None, "again")
    assert chip.timeouts == [60000, 3600000]


def test_rescue_without_the_parts_of_an_update_is_as_it_was(chip: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is broken may be they: an offer is heard and nothing comes of it; without any of them, none is asked for."""
    monkeypatch.setattr(time, "ticks_ms", lambda: 0, raising=False)
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "node.update", None)
        broken.delattr("node.update", raising=False)
        one = line({"gateway": {}})
        assert one.updates.topics() == ("/ota/desired", "/ota/chunk")
        one.updates.take("desired", b"{}\n")
        one.updates.take("chunk", bytes(20))
        assert one.updates.step() is None
    monkeypatch.setitem(sys.modules, "node.limit", None)
    monkeypatch.delattr("node.limit", raising=False)
    one = line({"gateway": {}})
    assert one.updates.topics() == ()
    assert one.updates.step() is None


@pytest.mark.parametrize(
    ("why", "cause", "first"), [("watchdog: no word of it", 1, 600), ("main: x", 3, 600), ("crash: x", 1, 0)]
)
def test_after_a_hang_the_plants_have_their_time_before_the_network(
    chip: Chip, monkeypatch: pytest.MonkeyPatch, why: str, cause: int, first: int
) -> None:
    """The watchdog ended the last life: no try before the heater could have had its time off, and some on."""
    chip.reset_cause, chip.WDT_RESET = lambda: cause, 3  # type: ignore[attr-defined]
    begun: list[int] = []

    def serve(house: object, line: Any, dog: object) -> None:
        monkeypatch.setattr(line, "_join", lambda: None)
        monkeypatch.setattr(line, "_connect", lambda: begun.append(turn))
        for turn in range(1, 700):
            line.step(turn)

    monkeypatch.setattr(rescue, "_serve", serve)
    with pytest.raises(SystemExit):
        rescue.run(None, why)
    assert begun[0] == first + 2


def test_not_even_rescue(tmp_path: Path) -> None:
    """main.py ends in a reset, never at a silent prompt, also where rescue.py cannot be read."""
    (tmp_path / "main.py").write_text((ROOT / "firmware" / "main.py").read_text())
    (tmp_path / "rescue.py").write_text("damaged !")
    (tmp_path / "machine.py").write_text("def reset():\n    print('machine: reset')\n")
    done = subprocess.run([find_micropython(), "main.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "machine: reset" in done.stdout, done.stdout + done.stderr
