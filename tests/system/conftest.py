"""A whole house for the system tests: `peanut` makes it, `peanutd` serves it, the firmware lives in it.

The rule it keeps: real parts only, run as a user runs them: programs from the virtual environment, certificates from
`peanut`, nodes on MicroPython's unix port. Waiting is polling with a deadline; what a test starts ends with it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.programs import program
from tools.fleet import Node
from tools.ports import free_port

BIN = Path(sys.executable).parent
DEADLINE = 90.0  # seconds after which what ought to happen has failed to

# The physics of these houses runs 240 times as fast as the world, and reconnecting does not dawdle.
QUICK = ["simulate.speed=240", "report.telemetry_s=1", "link.base_s=0.2", "link.cap_s=2", "link.first_s=0.5"]


def wait_for(what: Callable[[], Any], why: str, deadline: float = DEADLINE) -> Any:
    """Polls until `what()` is true; returns it."""
    end = time.monotonic() + deadline
    while not (found := what()):
        assert time.monotonic() < end, f"{why}: not within {deadline:.0f} s"
        time.sleep(0.02)
    return found


class Watcher:
    """An operator's MQTT client that keeps what it hears."""

    def __init__(self, house: House, *filters: str, version: MQTTProtocolVersion) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.ready = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=f"watcher-{id(self)}", protocol=version)
        self.client.tls_set(*map(str, house.operator))
        self.client.on_connect = lambda client, *_: client.subscribe([(f, 1) for f in filters])
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = self._on_message
        self.client.connect("localhost", house.port)
        self.client.loop_start()
        assert self.ready.wait(DEADLINE), "the gateway did not let the operator subscribe"

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload), bool(message.retain)))

    def latest(self, topic: str) -> dict[str, Any]:
        """The last JSON heard on `topic`, or an empty one."""
        found = [payload for name, payload, _ in list(self.heard) if name == topic]
        report: dict[str, Any] = json.loads(found[-1]) if found else {}
        return report

    def all(self, topic: str) -> list[dict[str, Any]]:
        """Everything heard on `topic`, in order."""
        return [json.loads(payload) for name, payload, _ in list(self.heard) if name == topic]

    def close(self) -> None:
        """Disconnects."""
        self.client.disconnect()
        self.client.loop_stop()


def _peanut(home: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "peanut", "--home", home, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


@functools.cache
def _founded() -> Path:
    """A fleet home as `peanut init` makes it, once for all houses of this process; not to be written to."""
    folder = Path(tempfile.mkdtemp(prefix="peanut-founded-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    home = folder / "fleet"
    done = _peanut(home, "init", "--host", "localhost", "--generate-passphrase", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


class House:
    """A fleet home with its gateway; nodes are added as needed. All houses of a process have the same CA."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        shutil.copytree(_founded(), home)
        (home / "gateway.toml").write_text(f'[listen]\nmqtts = "127.0.0.1:{self.port}"\n')
        keys = home / "operators" / "operator"
        self.operator = (keys / "ca.crt", keys / "operator.crt", keys / "operator.key")

    def peanut(self, *arguments: str, check: bool = False, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """The operator's command line, without a terminal."""
        done = _peanut(self.home, *arguments, timeout=timeout)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def mosquitto(self, tool: str, *arguments: str, keys: tuple[Path, ...] | None = None) -> list[str]:
        """The command line of mosquitto_pub or mosquitto_sub with the operator's (or other) certificate."""
        ca, certificate, key = keys or self.operator
        return [
            program(tool, "mosquitto-clients"),
            "-h", "localhost", "-p", str(self.port), "--cafile", str(ca), "--cert", str(certificate),
            "--key", str(key), *arguments,
        ]  # fmt: skip

    @property
    def log(self) -> str:
        """What the gateway has said."""
        return (self.home / "peanutd.log").read_text()

    def start(self) -> None:
        """Starts the gateway and waits until it listens."""
        before = len(self.log) if (self.home / "peanutd.log").exists() else 0
        with (self.home / "peanutd.log").open("ab") as out:
            self.process = subprocess.Popen(
                [BIN / "peanutd", "--home", self.home], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        process = self.process
        wait_for(lambda: "listening mqtts" in self.log[before:] or process.poll() is not None, "listening")
        assert self.process.poll() is None, self.log

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends the gateway; its exit status."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(DEADLINE)

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """A running gateway, or as many as are started, one after the other; none is left at the end."""
        self.start()
        try:
            yield
        finally:
            if self.process and self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def device(self, name: str, *settings: str) -> Path:
        """Enrols a simulated greenhouse; its bundle."""
        sets = [argument for setting in (*QUICK, *settings) for argument in ("--set", setting)]
        self.peanut("device", "add", name, "--kind", "greenhouse", "--board", "sim", *sets, check=True)
        return self.home / "devices" / name

    @contextlib.contextmanager
    def node(self, name: str, *settings: str) -> Iterator[Node]:
        """A running greenhouse."""
        with Node(self.device(name, *settings)) as node:
            yield node

    @contextlib.contextmanager
    def watch(self, *filters: str, version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311) -> Iterator[Watcher]:
        """An operator that listens."""
        watcher = Watcher(self, *filters, version=version)
        try:
            yield watcher
        finally:
            watcher.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house with a running gateway."""
    house = House(tmp_path / "fleet")
    with house.served():
        yield house
