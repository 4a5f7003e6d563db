"""A car for the system tests: the node on a real board file, its pins in a file, its lines on ptys.

The rule it keeps: beyond the pty there are bytes only; what answers them is tests/firmware/lines.py.
"""

from __future__ import annotations

import json
import os
import pty
import select
import threading
import tty
from pathlib import Path
from typing import Any

from peanut import signing
from tests.firmware.lines import Elm
from tools.fleet import Node

from .conftest import House, Watcher, wait_for

VIN = "1M8GDM9AXKP042788"
OTHER_VIN = "11111111111111111"
BOARD = "lilygo-t-can485"
PINS = {"unlock": 25, "lock": 32, "horn": 33, "start": 27, "stop": 26}  # the last two on the bench only
QUICK = ("report.telemetry_s=0.3", "link.base_s=0.2", "link.cap_s=2", "link.first_s=0.5")
BENCH = """
[vehicle.outputs.start]
driver = "gpio"
pin = 27
safe = "off"

[vehicle.outputs.stop]
driver = "gpio"
pin = 26
safe = "off"
"""


class Line:
    """A pty under a node's `uart.NUMBER`, and a thread that is the device at its other end."""

    def __init__(self, workdir: Path, number: int, device: Elm | None = None) -> None:
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        self._device = device
        self._ending = threading.Event()
        link = workdir / f"uart.{number}"
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._theirs))
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def say(self, data: bytes) -> None:
        """What the device says by itself."""
        os.write(self._ours, data)

    def _answer(self) -> None:
        while not self._ending.is_set():
            if select.select([self._ours], [], [], 0.2)[0]:
                data = os.read(self._ours, 4096)
                if self._device is not None:
                    os.write(self._ours, self._device.feed(data))

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        os.close(self._ours)
        os.close(self._theirs)


class Car:
    """A vehicle that lives in a house, on the bench version of a real board."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.root = f"vin/{VIN}"
        boards = house.home / "boards" / "bench"
        boards.mkdir(parents=True)
        ours = Path(__file__).resolve().parents[2] / "boards" / BOARD / "board.toml"
        text = ours.read_text().replace("[27, 26, 23,", "[23,")  # no CAN on this bench: its pins move relays
        (boards / "board.toml").write_text(text + BENCH)
        sets = [word for setting in QUICK for word in ("--set", setting)]
        add = ("device", "add", VIN, "--kind", "vehicle", "--board", "bench", "--boards", str(boards.parent), *sets)
        house.peanut(*add, check=True)
        self.work = house.home / "car"
        self.work.mkdir(mode=0o700)
        self.elm = Elm()
        self.gps = Line(self.work, 1)
        self.obd = Line(self.work, 2, self.elm)
        self.node = Node(house.home / "devices" / VIN, self.work)

    def close(self) -> None:
        self.node.kill()
        self.gps.close()
        self.obd.close()

    def moved(self) -> list[tuple[str, int]]:
        """Every change of a relay since the node's first start: (which, level). At each start they come up open.

        The status light has a pin as well; it is none of them.
        """
        names = {number: name for name, number in PINS.items()}
        path = self.work / "pins"
        changes = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(names[int(number)], int(level)) for number, level, _ in changes if int(number) in names]

    def closed(self) -> list[str]:
        """The relays that were closed, in order; but for `lock`, which 30 s after an unlock a car closes by itself."""
        return [name for name, level in self.moved() if level and name != "lock"]

    def wait_open(self) -> None:
        """Until no relay is closed."""
        wait_for(lambda: not any(dict(self.moved()).values()), "the relays are open")

    def send(self, verb: str) -> tuple[int, str]:
        """`peanut send`, again while a busy machine keeps the car from knowing how it is: exit status, what it says."""
        for _ in range(5):
            done = self.house.peanut("send", VIN, verb)
            if "is not known" not in done.stdout:
                break
        return done.returncode, done.stdout + done.stderr

    def commands(self, watcher: Watcher, verb: str) -> list[bytes]:
        """The payloads that were heard on a command's topic."""
        return [payload for topic, payload, _ in list(watcher.heard) if topic == f"{self.root}/{verb}"]

    def answer(self, watcher: Watcher, stage: str, after: int, *why: str) -> dict[str, Any]:
        """The first answer of this stage (and reason) among those heard after the first `after`."""

        def found() -> dict[str, Any] | None:
            for ack in watcher.all(f"{self.root}/ack")[after:]:
                if ack["stage"] == stage and str(ack.get("why", "")).startswith(why or ("",)):
                    return ack
            return None

        answer: dict[str, Any] = wait_for(found, f"{stage} {why}")
        return answer

    def session(self, watcher: Watcher) -> dict[str, Any]:
        """The session as it is now, on request."""
        topic = f"{self.root}/session"
        before = len(watcher.all(topic))
        watcher.client.publish(f"{self.root}/cmd/session", b"", qos=1)
        wait_for(lambda: len(watcher.all(topic)) > before, "the session")
        return watcher.latest(topic)

    def signed(self, verb: str, watcher: Watcher) -> bytes:
        """A command that is signed for the present session, by the operator's own code."""
        key = signing.read_key(self.house.home / "devices" / VIN / signing.KEY_FILE)
        now = signing.session(key, VIN, self.session(watcher))
        assert now is not None
        return json.dumps(signing.signed(key, VIN, verb, "t1", "", now)).encode()
