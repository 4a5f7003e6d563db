"""What stands between the node and its network: the shared checks on both interpreters, the time, the boot file."""

from __future__ import annotations

import json
import shutil
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.fleet import Node

from . import net_checks
from .conftest import ROOT, MakeNode, on_the_unix_port
from .datagrams import TimeServer
from .gateway import CONNECT, PUBLISH, SUBSCRIBE, Gateway


@pytest.mark.parametrize(("name", "check"), net_checks.checks())
def test_on_cpython(name: str, check: Callable[[], None]) -> None:
    """Each shared check."""
    check()


def test_the_same_checks_on_the_unix_port() -> None:
    """Every shared check passes on MicroPython."""
    assert on_the_unix_port(net_checks.__file__, heap="256wK") == [name for name, _ in net_checks.checks()]


BOARD = {
    "outputs": {
        "heater": {"driver": "gpio", "pin": 4, "on": 0},
        "vent": {"driver": "pcf8574", "bus": "i2c", "address": 36, "bit": 2, "on": 0, "safe": "off"},
        "fan": {"driver": "pcf8574", "bus": "i2c", "address": 36, "bit": 3, "on": 1, "safe": "off"},
        "light": {"driver": "shift595", "bus": "chain", "bit": 9, "on": 1, "safe": "on"},
        "irrigation": {"driver": "shift595", "bus": "chain", "bit": 0, "on": 0},
    },
    "buses": {
        "i2c": {"kind": "i2c", "sda": 21, "scl": 22, "khz": 100},
        "chain": {"kind": "shift595", "data": 7, "clock": 5, "latch": 6},
    },
}


class Chip:
    """Pins, an expander and a chain of two shift registers, as boot.py finds them."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int | None]] = []
        self.levels: dict[int, int] = {}
        self.pads: list[tuple[int, int]] = []  # levels as they came out
        self.shifted: list[int] = []
        self.latched: list[int] = []
        self.written: list[tuple[int, bytes]] = []
        self.fail: set[int] = set()
        self.held: dict[int, int] = {}  # pads that the life before latched
        chip = self

        class Pin:
            OUT = 3

            def __init__(self, number: int, mode: int = 0, value: int | None = None) -> None:
                if number in chip.fail:
                    raise ValueError("invalid pin")
                self.number = number
                if mode == Pin.OUT:
                    chip.made.append((number, value))
                chip.set(number, value or 0)

            def init(self, *, hold: bool) -> None:
                assert not hold, "rescue could not switch it"
                if self.number in chip.held:
                    del chip.held[self.number]
                    chip.set(self.number, chip.levels[self.number])

            def value(self, level: int) -> None:
                chip.set(self.number, level)

        class SoftI2C:
            def __init__(self, scl: Pin, sda: Pin) -> None:
                assert (scl.number, sda.number) == (22, 21)

            def writeto(self, address: int, data: bytes) -> None:
                chip.written.append((address, data))

        self.module = types.ModuleType("machine")
        self.module.Pin = Pin  # type: ignore[attr-defined]
        self.module.SoftI2C = SoftI2C  # type: ignore[attr-defined]

    def set(self, number: int, level: int) -> None:
        """A level; the registers shift at the rising clock and show their bits at the rising latch."""
        if number not in self.held:
            self.pads.append((number, level))
        rising = level and not self.levels.get(number, 0)
        self.levels[number] = level
        if number == 5 and rising:
            self.shifted.append(self.levels[7])
        if number == 6 and rising:
            self.latched = self.shifted[-16:][::-1]


def boot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Chip:
    """boot.py, run in `folder` on a chip just powered up."""
    chip = Chip()
    monkeypatch.setitem(sys.modules, "machine", chip.module)
    monkeypatch.chdir(folder)
    exec((ROOT / "firmware" / "boot.py").read_text(), {})
    return chip


def safe(chip: Chip) -> bool:
    """Whether each output of BOARD is at its safe level: bit 2 of the expander high, 3 low, register bits 9 and 0."""
    ((address, data),) = chip.written
    return (
        chip.made[0] == (4, 1)
        and (address, data[0] & 0x0C, data[0] | 0x0C) == (36, 0x04, 0xFF)
        and chip.latched == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    )


def test_boot_makes_expanders_and_registers_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins with the level before the direction; one write to the expander; zeros shifted before they are shown."""
    (tmp_path / "node.json").write_text(json.dumps({"board": BOARD}))
    chip = boot(tmp_path, monkeypatch)
    assert safe(chip)
    assert chip.made[0] == (4, 1), "the pin of the heater comes before anything that may fail"


def test_boot_lets_go_of_a_latched_pad_at_its_safe_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the board file no longer says `hold`: else nothing but a power cut would ever move it again. The level
    is there before the pad is let go of, so it shows no other one."""
    (tmp_path / "node.json").write_text(json.dumps({"board": BOARD}))
    chip = Chip()
    chip.held = {4: 1}
    monkeypatch.setitem(sys.modules, "machine", chip.module)
    monkeypatch.chdir(tmp_path)
    exec((ROOT / "firmware" / "boot.py").read_text(), {})
    assert chip.held == {}
    assert [level for number, level in chip.pads if number == 4] == [1]
    assert safe(chip)


@pytest.mark.parametrize("damage", ["", "{", '{"board":1}', '{"board":{"outputs":{"heater":3}}}', None])
def test_boot_knows_the_board_when_node_json_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str | None
) -> None:
    """What it needs of the last good node.json is in a file of its own, written once."""
    (tmp_path / "node.json").write_text(json.dumps({"board": BOARD}))
    boot(tmp_path, monkeypatch)
    kept = (tmp_path / "safe.json").stat().st_ino
    boot(tmp_path, monkeypatch)
    assert (tmp_path / "safe.json").stat().st_ino == kept, "flash wears"
    if damage is None:
        (tmp_path / "node.json").unlink()
    else:
        (tmp_path / "node.json").write_text(damage)
    assert safe(boot(tmp_path, monkeypatch))


def test_one_output_that_fails_leaves_the_others_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pin that the chip does not have, an expander that does not answer: the rest is made safe all the same."""
    (tmp_path / "node.json").write_text(json.dumps({"board": BOARD}))
    chip = Chip()
    chip.fail = {4, 22}
    monkeypatch.setitem(sys.modules, "machine", chip.module)
    monkeypatch.chdir(tmp_path)
    exec((ROOT / "firmware" / "boot.py").read_text(), {})
    assert chip.latched[9] == 1


class Unset(Node):
    """A node whose clock says 2000, as an ESP32's does after a power cut."""

    def install(self) -> None:
        super().install()
        ago = int(time.time()) - 946684800
        (self.workdir / "time.py").write_text(
            f"import utime\nfrom utime import *\ndef time():\n    return utime.time() - {ago}\n"
        )


class Patient(Unset):
    """One that waits for the answer of a machine that has other things to do."""

    def install(self) -> None:
        super().install()
        asks, usual = self.workdir / "node" / "sntp.py", "\nWAIT_MS = 1000 "
        assert usual in asks.read_text()
        asks.write_text(asks.read_text().replace(usual, "\nWAIT_MS = 60000 "))


def test_a_clock_of_2000_is_set_by_the_gateway_before_tls(gateway: Gateway, make_node: MakeNode) -> None:
    """Three questions, then TLS; the status has the right time. Without an answer it has none, and the node connects
    by the floor: verification is the same."""
    now = time.time()
    with TimeServer(now) as server:
        node = make_node(gateway.port, node=Patient, gateway={"time_port": server.port}, report={"telemetry_s": 0.1})
        node.start()
        peer = gateway.accept()
        assert server.asked == 3
        peer.expect(CONNECT)
        peer.connack()
        peer.suback(peer.expect(SUBSCRIBE))
        assert abs(peer.expect(PUBLISH, "/plant/peanut/status").json["ts"] - now) < 30
        assert peer.expect(PUBLISH, "/plant/peanut/telemetry").json["tq"] == "ntp"
        node.wait_for_log("info time set from localhost")
        node.kill()
        server.unix = None
        shutil.rmtree(node.workdir)
        node.__class__ = Unset
        node.start()
        peer = gateway.accept()
        peer.expect(CONNECT)
        peer.connack()
        peer.suback(peer.expect(SUBSCRIBE))
        assert "ts" not in peer.expect(PUBLISH, "/plant/peanut/status").json
        node.wait_for_log("warn time localhost does not tell it: going by what is known (floor)")


def test_a_time_that_cannot_be_is_not_believed(gateway: Gateway, make_node: MakeNode) -> None:
    with TimeServer(946684800.0) as server:
        node = make_node(gateway.port, gateway={"time_port": server.port})
        node.start()
        gateway.accept().welcome()
        node.wait_for_log("warn time localhost says 946684800: that cannot be now")


def test_two_gateways_are_tried_in_turn(gateway: Gateway, make_node: MakeNode) -> None:
    """The first does not exist: the second is asked, by its own name; back again when that one is gone."""
    node = make_node(gateway.port, gateway={"host": "no-such-gateway.invalid", "second": "localhost"})
    node.start()
    peer = gateway.accept()
    peer.welcome()
    node.wait_for_log(f"online at localhost:{gateway.port}")
    assert node.log.count("no-such-gateway.invalid cannot be found") == 1
    peer.close()
    gateway.accept().welcome()
    assert node.log.count("no-such-gateway.invalid cannot be found") <= 2


def test_a_twin_is_recognised_told_and_not_fought(gateway: Gateway, make_node: MakeNode) -> None:
    """Five sessions cut right after their welcome: the node waits with the patience of a refusal, and tells it."""
    node = make_node(gateway.port, link={"refused_cap_s": 0.2, "cap_s": 0.05})
    node.start()
    for i in range(5):
        peer = gateway.accept()
        peer.welcome(session=int(i > 0))
        peer.close()
    node.wait_for_log("has another node this one's certificate?")
    peer = gateway.accept()
    peer.welcome(session=1)
    event = peer.told("/plant/peanut/event").json
    assert event["id"] == "identity"


class Starved(Node):
    """A node whose IDF heap is in pieces too small for TLS while the file `starved` is there."""

    def install(self) -> None:
        super().install()
        (self.workdir / "esp32.py").write_text(
            "HEAP_DATA = 4\n"
            "def idf_heap_info(kind):\n"
            "    import os\n"
            "    try:\n"
            "        os.stat('starved')\n"
            "        return [(90000, 60000, 12000, 9000), (4000, 3000, 2000, 1000)]\n"
            "    except OSError:\n"
            "        return [(90000, 60000, 30000, 9000)]\n"
        )


def test_no_connection_is_tried_without_the_memory_for_it(gateway: Gateway, make_node: MakeNode) -> None:
    """Under TLS_BLOCK in one piece: not even TCP. With room again the node connects; without, it restarts in the end,
    but not while it heats."""
    cold = {"speed": 600, "start": 10.0, "outside": 0.0}
    node = make_node(gateway.port, node=Starved, simulate=cold, link={"base_s": 0.3, "cap_s": 0.4})
    node.install()
    (node.workdir / "starved").write_text("")
    node.start()
    node.wait_for_log("no memory for TLS: the largest block is 12000 bytes of 20000")
    (node.workdir / "starved").unlink()
    gateway.accept().welcome()
    node.kill()
    (node.workdir / "starved").write_text("")
    mark = len(node.log)
    node.start()
    node.wait_for_log("restart: no memory for TLS", after=mark)
    (node.workdir / "starved").unlink()
    peer = gateway.accept()
    peer.welcome(session=1)
    said = node.log[mark:].split("restart: no memory")[0]
    assert said.count("no memory for TLS") >= 5
    assert "heating" not in said.split("info control")[-1]


def test_health_and_log_reach_the_gateway(gateway: Gateway, make_node: MakeNode) -> None:
    """The first health report at once, with every figure; warnings of before the session follow it, INFO does not."""
    node = make_node(gateway.port)
    node.start()
    gateway.accept().close()
    peer = gateway.accept()
    peer.welcome()
    health = peer.told("/plant/peanut/health").json
    assert {"ts", "tq", "up", "starts", "was", "heap", "lag_ms", "fw", "image", "ends", "shake_ms"} <= set(health)
    assert health["shake_ms"] > 0
    assert (health["kept"], health["dropped"], set(health["duty"])) == (0, 0, {"heater", "vent"})
    assert health["was"] == "power"
    assert health["starts"] == 1
    assert sum(health["ends"].values()) == 1
    assert health["cert_days"] in (29, 30)
    assert all(figure > 0 for figure in health["heap"])
    line = peer.told("/plant/peanut/log").json["line"]
    assert " warn " in line
