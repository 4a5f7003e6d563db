"""What `peanut send` talks to in the tests: Debian's mosquitto, a scripted gateway, and small nodes on paho-mqtt.

Rule: independent of the code under test, but for the certificates, which are what is being tested.
"""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.programs import program
from tools.ports import free_port

sys.path.insert(0, str(Path(__file__).parents[2] / "firmware"))
from node.signed import Gate  # isort: skip

DEADLINE_S = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.01)


class Mosquitto:
    """mosquitto with mutual TLS on 127.0.0.1. trusts: whose clients it admits (default: its own fleet's)."""

    def __init__(self, home: Path, work: Path, trusts: Path | None = None, acl: str = "") -> None:
        self.home, self.work, self.port = home, work, free_port()
        self.log = work / "mosquitto.log"
        ca = (trusts or home) / "ca"
        (work / "trust.pem").write_bytes((ca / "root.crt").read_bytes() + (ca / "issuing.crt").read_bytes())
        (work / "acl").write_text(acl)
        # mosquitto drops root for a user that may not read the test's directory
        (work / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nallow_anonymous true\npersistence false\nlog_type all\n"
            f"cafile {work}/trust.pem\ncertfile {home}/gateway/gateway.crt\nkeyfile {home}/gateway/gateway.key\n"
            "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.2\n"
            + (f"acl_file {work}/acl\n" if acl else "")
        )

    def start(self) -> None:
        command = [program("mosquitto"), "-c", str(self.work / "mosquitto.conf")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._listening, "mosquitto")

    def _listening(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def running(broker: Mosquitto) -> Iterator[Mosquitto]:
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


Answer = Callable[[dict[str, Any]], list[Any]]


def obey(command: dict[str, Any]) -> list[Any]:
    """accepted, then done, as agreement 2 has it."""
    state = {"setpoint": command.get("temperature"), "temperature": 18.25, "heater": False}
    return [{"stage": "accepted", "state": state}, {"stage": "done", "state": state}]


class Node:
    """A greenhouse on paho-mqtt (3.1.1), with the certificate of its bundle.

    `answer` makes its acknowledgements; those that are dictionaries get the command's id, others are sent as they are.
    """

    def __init__(
        self, home: Path, name: str, port: int, work: Path, answer: Answer, status: str = "online", root: str = ""
    ) -> None:
        self.received: list[tuple[str, dict[str, Any], bool]] = []
        self.root, self._answer, self._status = root or f"/plant/{name}", answer, status
        bundle = home / "devices" / name
        pem = work / f"{name}.pem"
        key = serialization.load_der_private_key((bundle / "key.der").read_bytes(), None)
        cert = x509.load_der_x509_certificate((bundle / "cert.der").read_bytes())
        pem.write_bytes(
            cert.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.create_default_context(cadata=(bundle / "ca.der").read_bytes())
        context.load_cert_chain(pem)
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)
        self._client.tls_set_context(context)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda c, *_: c.subscribe(f"{self.root}/#", 1)
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("localhost", port)
        self._client.loop_start()
        assert ready.wait(DEADLINE_S)
        if status:
            self._publish_status(json.dumps({"state": status}))

    def _publish_status(self, payload: str) -> None:
        self._client.publish(f"{self.root}/status", payload, 1, retain=True).wait_for_publish(DEADLINE_S)

    def _on_message(self, client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        topic = message.topic.removeprefix(self.root)
        if topic in ("/ack", "/status"):
            return
        command = json.loads(message.payload)
        self.received.append((message.topic, command, message.retain))
        for one in self._answer(command):
            payload = json.dumps({"id": command["id"], **one}) if isinstance(one, dict) else one
            client.publish(f"{self.root}/ack", payload, 1)

    def stop(self) -> None:
        if self._status:
            self._publish_status("")  # the retained status goes, so that the next test starts clean
        self._client.disconnect()
        self._client.loop_stop()


class Vehicle(Node):
    """A vehicle that knows what its bundle tells it: the gate is that of the firmware.

    `answers` are the stages (and reasons) with which it answers a command that may act.
    """

    EPOCH = "0123456789abcdef"

    def __init__(self, home: Path, vin: str, port: int, work: Path, *answers: tuple[str, str | None]) -> None:
        self.gate = Gate((home / "devices" / vin / "sign.key").read_bytes(), vin, self.EPOCH, 0, lambda number: None)
        self.up = 100  # seconds since its boot
        self.forge = False  # the receipts are made with another key
        self.lies: list[dict[str, Any]] = []  # what strangers say of its session before it does
        self._answers = answers
        super().__init__(home, vin, port, work, lambda _: [], root=f"vin/{vin}")

    def _on_message(self, client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        topic = message.topic.removeprefix(self.root)
        if topic == "/cmd/session":
            real = self.gate.session(self.up)
            for said in ({**real, **fields} for fields in (*self.lies, {})):
                client.publish(f"{self.root}/session", json.dumps(said), 1, retain=True)
        if topic in ("/ack", "/status", "/session", "/cmd/session"):
            return
        self.received.append((message.topic, json.loads(message.payload), message.retain))
        order = self.gate.judge(topic[1:], message.payload, message.retain, 0, self.up)
        for stage, why in [("rejected", order.why)] if order.why else self._answers:
            sig = "0" * 64 if self.forge else self.gate.receipt(order, stage, why)
            answer = {"id": order.id, "cmd": order.verb, "stage": stage, "why": why, "sig": sig}
            client.publish(f"{self.root}/ack", json.dumps(answer), 1)


class Scripted:
    """A gateway with the right certificate that answers each MQTT packet with the next of `replies`, then closes.

    It stands for what mosquitto cannot be made to do. Accepts one client.
    """

    def __init__(self, home: Path, *replies: bytes, trusts: Path | None = None) -> None:
        """trusts: a CA file; then it asks for a client's certificate, in TLS 1.2."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(home / "gateway/gateway.crt", home / "gateway/gateway.key")
        if trusts is not None:
            self._context.load_verify_locations(trusts)
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._replies = replies
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        plain, _ = self._listener.accept()
        plain.settimeout(DEADLINE_S)
        with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as peer:
            for reply in self._replies:
                peer.recv(4096)
                peer.sendall(reply)

    def stop(self) -> None:
        self._listener.close()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
