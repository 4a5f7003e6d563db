"""Whole nodes under mosquitto over mutual TLS, watched and commanded by clients that are not ours."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from .conftest import MakeNode
from .gateway import closed_port
from .pki import Pki, issue

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
ROOT = "/plant/peanut"
FAST = {"speed": 600}  # ten minutes of greenhouse a second
QUICK = {"telemetry_s": 0.1, "state_s": 3600}

if MOSQUITTO is None and not os.environ.get("CI"):
    pytest.skip("mosquitto is not installed (Debian package: mosquitto)", allow_module_level=True)


class Mosquitto:
    """A broker with mutual TLS only; the certificate's CN is the user name."""

    def __init__(self, pki: Pki, folder: Path) -> None:
        self.port = closed_port()
        self.folder = folder
        operator = issue("operator", pki.issuing)
        for name, data in {
            "ca.pem": pki.trust().encode(),
            "gateway.pem": pki.gateways["good"].pem(),
            "operator.pem": operator.pem(),
        }.items():
            (folder / name).write_bytes(data)
        # mosquitto started by root becomes another user before it reads these
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/gateway.pem\n"
            f"keyfile {folder}/gateway.pem\nrequire_certificate true\nuse_identity_as_username true\n"
            f"allow_anonymous false\nuser {'root' if os.getuid() == 0 else 'mosquitto'}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None, "CI must have mosquitto (Debian package: mosquitto)"
        log = (self.folder / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-v", "-c", self.folder / "mosquitto.conf"], stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def publish(self, topic: str, message: str) -> None:
        """mosquitto_pub with the operator's certificate, QoS 1."""
        tls: list[str] = []
        for option, name in (("--cafile", "ca.pem"), ("--cert", "operator.pem"), ("--key", "operator.pem")):
            tls += [option, str(self.folder / name)]
        subprocess.run(
            ["mosquitto_pub", "-h", "localhost", "-p", str(self.port), *tls, "-q", "1", "-t", topic, "-m", message],
            check=True,
            timeout=60,
        )


class Watcher:
    """paho-mqtt with the operator's certificate: keeps every message under /plant/peanut."""

    def __init__(self, broker: Mosquitto) -> None:
        self.messages: list[tuple[str, Any, bool]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "watcher")
        ca, operator = (str(broker.folder / name) for name in ("ca.pem", "operator.pem"))
        self._client.tls_set(ca, operator, operator, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("/plant/#", 1)
        self._client.on_message = self._keep
        deadline = time.monotonic() + 60
        while True:
            try:
                self._client.connect("localhost", broker.port)
                break
            except OSError:
                assert time.monotonic() < deadline, (broker.folder / "mosquitto.log").read_text()
                time.sleep(0.05)
        self._client.loop_start()

    def _keep(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if not message.topic.endswith("UpdateTemperature"):
            name = message.topic.removeprefix(ROOT + "/")
            self.messages.append((name, json.loads(message.payload), message.retain))

    def all(self, topic: str) -> list[Any]:
        return [body for name, body, _ in self.messages if name == topic]

    def until(self, topic: str, accept: Callable[[Any], bool], timeout: float = 60, after: int = 0) -> Any:
        """The first message of the topic from number `after` on that is accepted; fails with all that came instead."""
        deadline = time.monotonic() + timeout
        while True:
            for name, body, _ in self.messages[after:]:
                if name == topic and accept(body):
                    return body
            assert time.monotonic() < deadline, self.messages[after:]
            time.sleep(0.02)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(pki: Pki, tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(pki, tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def watcher(broker: Mosquitto) -> Iterator[Watcher]:
    made = Watcher(broker)
    yield made
    made.close()


def test_a_set_point_is_acknowledged_reached_and_held(broker: Mosquitto, watcher: Watcher, make_node: MakeNode) -> None:
    """mosquitto_pub moves the greenhouse: accepted, done, 15 deg C within the band, and held for long."""
    make_node(broker.port, simulate=FAST, report=QUICK).start()
    birth = watcher.until("status", lambda b: b["state"] == "online")
    assert (birth["kind"], birth["sim"], birth["boot"]) == ("greenhouse", True, 1)
    broker.publish(ROOT + "/UpdateTemperature", "temperature:15")
    accepted = watcher.until("ack", lambda b: b["stage"] == "accepted")
    done = watcher.until("ack", lambda b: b["stage"] == "done")
    assert accepted["echo"] == done["echo"] == "temperature:15"
    assert accepted["cmd"] == done["cmd"] == "UpdateTemperature"
    assert done["state"]["setpoint"] == 15
    watcher.until("telemetry", lambda b: "late" not in b and 14.4 <= b["readings"]["temperature"][0] <= 15.6)
    settled = len(watcher.messages)
    held: list[dict[str, Any]] = []
    deadline = time.monotonic() + 60
    while len(held) < 30 and time.monotonic() < deadline:  # three seconds at least: half an hour of the model
        time.sleep(0.1)
        said = watcher.messages[settled:]
        held = [b["readings"] for name, b, _ in said if name == "telemetry" and "late" not in b]
    assert len(held) >= 30
    assert all(13.5 <= readings["temperature"][0] <= 16.5 for readings in held), held
    assert all(readings["outside"] == [6.0, "ok", 0] for readings in held)
    assert {b["heater"] for b in watcher.all("state")} == {True, False}
    assert all(not (b["heater"] and b["vent"]) for b in watcher.all("state"))


def test_power_cut_and_return(broker: Mosquitto, watcher: Watcher, make_node: MakeNode) -> None:
    """SIGKILL: the will is retained; a command sent meanwhile waits; after the restart it is obeyed, boot counted."""
    node = make_node(broker.port, report=QUICK)
    node.start()
    watcher.until("state", lambda b: True)
    node.kill()
    will = watcher.until("status", lambda b: b["state"] == "offline")
    assert will["why"] == "connection lost"
    broker.publish(ROOT + "/UpdateTemperature", '{"temperature":21,"id":"while-away"}')
    node.start()
    assert watcher.until("status", lambda b: b["state"] == "online" and b["boot"] == 2)
    done = watcher.until("ack", lambda b: b["id"] == "while-away" and b["stage"] == "done")
    assert done["state"]["setpoint"] == 21
    assert node.stop() == 0
    watcher.until("status", lambda b: b["state"] == "offline" and b["why"] == "shutdown")


def test_gateway_killed_and_control_goes_on(broker: Mosquitto, watcher: Watcher, make_node: MakeNode) -> None:
    """The gateway dies: the house is regulated all the while; when it returns, so do node and state, by themselves."""
    node = make_node(broker.port, simulate=FAST, report=QUICK, link={"base_s": 0.1, "cap_s": 0.5})
    node.start()
    watcher.until("state", lambda b: True)
    broker.kill()
    node.wait_for_log("warn link")
    mark = len(node.log)
    node.wait_for_log("heating: ", after=mark)
    node.wait_for_log("holding: ", after=mark)
    messages = len(watcher.messages)
    broker.start()
    online = watcher.until("status", lambda b: b["state"] == "online", after=messages)
    assert online["dropped"] == 0  # what was measured meanwhile is kept (test_offline.py)
    state = watcher.until("state", lambda b: True, after=messages)
    assert state["setpoint"] == 18
    assert 17 < state["temperature"] < 19


def test_two_nodes_of_one_bundle_do_not_storm(broker: Mosquitto, watcher: Watcher, make_node: MakeNode) -> None:
    """Two with one identity push each other out: the back-off grows, for a session that lives briefly is no success."""
    first = make_node(broker.port, link={"base_s": 0.2, "cap_s": 5})
    second = make_node(broker.port, link={"base_s": 0.2, "cap_s": 5})
    first.start()
    second.start()
    first.wait_for_log("again in")
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        time.sleep(0.1)
    for node in (first, second):
        assert node.running
        assert node.log.count("online at") < 20
