"""One gateway for all foreign clients, an identity for each, and the operator who looks on.

The rule it keeps: a real gateway with certificates from `peanut`, programs on the other side (README.md here), waiting
by condition with a deadline. "Nothing else came" is proved by a marker that comes after it, never by silence.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.interop import programs
from tests.system.conftest import House
from tools.ports import free_port

DEADLINE = 60.0  # seconds after which what ought to happen has failed to
ASYNCHRONOUS = ("message", "closed")


@dataclass(frozen=True)
class Line:
    """What a program told: a word and its fields; a field that the library does not tell is None."""

    word: str
    fields: dict[str, list[str]]

    @classmethod
    def parse(cls, line: str) -> Line:
        word, *pairs = line.split()
        fields: dict[str, list[str]] = {}
        for key, _, value in (pair.partition("=") for pair in pairs):
            fields.setdefault(key, []).append(value)
        return cls(word, fields)

    def text(self, key: str) -> str | None:
        return unquote(self.fields[key][0]) if key in self.fields else None

    def number(self, key: str) -> int | None:
        return int(self.fields[key][0]) if key in self.fields else None

    def numbers(self, key: str) -> list[int]:
        return [int(value) for value in self.fields.get(key, [])]

    def binary(self, key: str) -> bytes | None:
        return bytes.fromhex(self.fields[key][0]) if key in self.fields else None

    @property
    def users(self) -> list[tuple[str, str]]:
        pairs = (value.partition(":") for value in self.fields.get("user", []))
        return [(unquote(name), unquote(value)) for name, _, value in pairs]


def _encode(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return ":".join(quote(str(part), safe="/") for part in value)
    if isinstance(value, bool):
        return str(int(value))
    return quote(str(value), safe="/")


class Program:
    """A foreign client's running program."""

    def __init__(self, client: programs.Client) -> None:
        self.client = client
        self.messages: list[Line] = []
        self.closed: list[Line] = []
        self._answers: list[Line] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            client.command(), env={**os.environ, **client.environment()}, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for text in self._process.stdout:
            line = Line.parse(text)
            with self._changed:
                kind = {"message": self.messages, "closed": self.closed}.get(line.word, self._answers)
                kind.append(line)
                self._changed.notify_all()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self, condition: Callable[[], Any], why: str) -> Any:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE), f"{self.client.name}: {why}: not in {DEADLINE:.0f} s"
            return condition()

    def ask(self, word: str, **fields: object) -> Line:
        """Sends a request and waits for its answer. Lists repeat a field, None leaves it out."""
        parts = [word]
        for key, value in fields.items():
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    parts.append(f"{key}={_encode(one)}")
        assert not self._answers, f"{self.client.name}: an answer to nothing: {self._answers}"
        assert self._process.stdin
        self._process.stdin.write(" ".join(parts) + "\n")
        self._process.stdin.flush()
        self.wait(lambda: self._answers or not self.alive, f"answer to {word}")
        assert self._answers, f"{self.client.name} has ended with status {self._process.poll()} on {word}"
        return self._answers.pop(0)

    def reset(self) -> None:
        """As new, for the next test."""
        self.ask("disconnect")
        self.messages.clear()
        self.closed.clear()

    def kill(self) -> None:
        """Ends it as a power cut does."""
        self._process.kill()
        self._process.wait()
        self._reader.join(DEADLINE)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


@dataclass(frozen=True)
class Keys:
    """Files of an identity."""

    ca: Path
    certificate: Path
    key: Path


class Gateway(House):
    """The gateway of this folder's tests, and identities for foreign clients.

    It listens under a name that its certificate does not have, too, and for secure WebSockets.
    """

    WRONG_NAME = "127.0.0.2"
    WEB_PATH = "/mqtt"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.other_port, self.web_port = free_port(), free_port()
        with (home / "gateway.toml").open("a") as settings:
            settings.write(
                f'[[listener]]\naddress = "{self.WRONG_NAME}:{self.other_port}"\ntransport = "tls"\n'
                f'[[listener]]\naddress = "127.0.0.1:{self.web_port}"\ntransport = "wss"\npath = "{self.WEB_PATH}"\n'
            )

    def keys(self, name: str) -> tuple[Keys, Keys]:
        """Enrols the node `name`; its files in PEM and in DER."""
        self.peanut("device", "add", name, "--kind", "greenhouse", "--board", "sim", check=True)
        bundle = self.home / "devices" / name
        der = Keys(*(bundle / file for file in ("ca.der", "cert.der", "key.der")))
        pem = Keys(*(bundle / file for file in ("ca.pem", "cert.pem", "key.pem")))
        for source, target in ((der.ca, pem.ca), (der.certificate, pem.certificate)):
            target.write_bytes(x509.load_der_x509_certificate(source.read_bytes()).public_bytes(Encoding.PEM))
        key = load_der_private_key(der.key.read_bytes(), None)
        pem.key.touch(mode=0o600)
        pem.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pem, der


@dataclass
class Message:
    """What the operator has heard."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties = field(repr=False)

    def __getattr__(self, name: str) -> Any:
        """A property by paho's name, None when it is not there."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.properties, name, None)


class Operator:
    """The other side: paho-mqtt 5.0 with an operator's certificate, which may read all and command all."""

    def __init__(self, gateway: Gateway) -> None:
        self.heard: list[Message] = []
        self._changed = threading.Condition()
        self._subscribed = 0
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        ca, certificate, key = map(str, gateway.operator)
        self.client.tls_set(ca, certificate, key)
        self.client.on_message = self._on_message
        self.client.on_subscribe = self._on_subscribe
        self.client.connect("localhost", gateway.port)
        self.client.loop_start()

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            properties = message.properties or Properties(PacketTypes.PUBLISH)
            self.heard.append(Message(message.topic, bytes(message.payload), message.qos, message.retain, properties))
            self._changed.notify_all()

    def _on_subscribe(self, *_: object) -> None:
        with self._changed:
            self._subscribed += 1
            self._changed.notify_all()

    def listen(self, topic_filter: str, qos: int = 2, **options: Any) -> None:
        """Subscribes, and waits until it counts."""
        with self._changed:
            expected = self._subscribed + 1
        self.client.subscribe(topic_filter, options=SubscribeOptions(qos, **options))
        with self._changed:
            assert self._changed.wait_for(lambda: self._subscribed >= expected, DEADLINE)

    def unlisten(self, topic_filter: str) -> None:
        self.client.unsubscribe(topic_filter)

    def say(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, **properties: Any) -> None:
        """Publishes, and waits for the acknowledgement."""
        found = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(found, name, value)
        self.client.publish(topic, payload, qos, retain, found).wait_for_publish(DEADLINE)

    def hears(self, topic: str, count: int = 1) -> list[Message]:
        """Waits until `count` messages have come on `topic`; all of that topic."""

        def found() -> list[Message]:
            return [message for message in self.heard if message.topic == topic]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, DEADLINE), f"{topic}: {found()}"
            return found()

    def forget(self) -> None:
        with self._changed:
            self.heard.clear()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Foreign:
    """A foreign client in one of its protocol versions, with a node's identity or an operator's."""

    def __init__(self, cast: Cast, client: programs.Client, version: int) -> None:
        self.cast, self.client, self.version = cast, client, version
        self.node = client.name.replace(".", "-")
        self.root = f"/plant/{self.node}"
        self._used: set[int] = set()

    def program(self, number: int = 0) -> Program:
        """The running program; `number` 1 is a second one beside it."""
        self._used.add(number)
        return self.cast.program(self.client, number)

    def connect(self, number: int = 0, *, identity: str = "node", answer: str = "connected", **fields: Any) -> Line:
        """Connects as the node, with a clean session unless told otherwise."""
        keys = self.cast.keys(self.node) if identity == "node" else self.cast.operator_keys
        files = keys[1] if self.client.der else keys[0]
        given: dict[str, Any] = {
            "host": "localhost", "port": self.cast.gateway.port, "ca": files.ca, "cert": files.certificate,
            "key": files.key, "id": self.node, "version": self.version, "clean": 1, **fields,
        }  # fmt: skip
        line = self.program(number).ask("connect", **given)
        assert line.word == answer, line
        return line

    @property
    def over_web(self) -> dict[str, Any]:
        """Fields of `connect` for a secure WebSocket."""
        gateway = self.cast.gateway
        return {"transport": "wss", "port": gateway.web_port, "path": gateway.WEB_PATH}

    def ask(self, word: str, number: int = 0, **fields: Any) -> Line:
        return self.program(number).ask(word, **fields)

    def publish(self, topic: str, payload: bytes, qos: int = 1, **fields: Any) -> Line:
        line = self.ask("publish", topic=topic, payload=payload, qos=qos, **fields)
        assert line.word == "published", line
        return line

    def subscribe(self, topic_filter: str, qos: int = 1, number: int = 0, **fields: Any) -> Line:
        line = self.ask("subscribe", number, filter=topic_filter, qos=qos, **fields)
        assert line.word == "subscribed", line
        return line

    def hears(self, count: int, number: int = 0) -> list[Line]:
        """Waits for `count` messages; all that have come."""
        program = self.program(number)
        program.wait(lambda: len(program.messages) >= count, f"{count} messages")
        return list(program.messages)

    def payloads(self, count: int, number: int = 0) -> list[bytes | None]:
        return [line.binary("payload") for line in self.hears(count, number)]

    def kill(self, number: int = 0) -> None:
        self.cast.kill(self.client, number)

    def leave(self) -> None:
        for number in self._used:
            self.cast.leave(self.client, number)


class Cast:
    """Everyone in these tests: the gateway, the programs that run, the identities there are."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        ca, certificate, key = gateway.operator
        self.operator_keys = (Keys(ca, certificate, key), Keys(ca, certificate, key))
        self._keys: dict[str, tuple[Keys, Keys]] = {}
        self._programs: dict[tuple[str, int], Program] = {}

    def keys(self, name: str) -> tuple[Keys, Keys]:
        if name not in self._keys:
            self._keys[name] = self.gateway.keys(name)
        return self._keys[name]

    def program(self, client: programs.Client, number: int) -> Program:
        found = self._programs.get((client.name, number))
        if found is None or not found.alive:
            found = self._programs[client.name, number] = Program(client)
        return found

    def leave(self, client: programs.Client, number: int) -> None:
        """Makes the program ready for the next test; one that cannot be is ended."""
        found = self._programs.get((client.name, number))
        if found is None:
            return
        try:
            found.reset()
        except (AssertionError, OSError):
            self.kill(client, number)

    def kill(self, client: programs.Client, number: int) -> None:
        self._programs.pop((client.name, number)).kill()

    def close(self) -> None:
        for program in self._programs.values():
            program.kill()


@pytest.fixture(scope="session")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """The gateway, running."""
    gateway = Gateway(tmp_path_factory.mktemp("interop") / "fleet")
    gateway.start()
    cast = Cast(gateway)
    try:
        yield cast
    finally:
        cast.close()
        gateway.stop()


@pytest.fixture
def operator(cast: Cast) -> Iterator[Operator]:
    """Who looks on."""
    operator = Operator(cast.gateway)
    try:
        yield operator
    finally:
        operator.close()


def variants(*versions: int, where: Callable[[programs.Client], bool] = lambda _: True) -> list[Any]:
    """Every client of which `where` is true, in each of the versions that it speaks, as parameters of a test."""
    return [
        pytest.param((client, version), id=f"{client.name}-{'3.1.1' if version == 4 else '5.0'}")
        for client in programs.ALL
        for version in client.versions
        if version in versions and where(client)
    ]


@pytest.fixture
def foreign(request: pytest.FixtureRequest, cast: Cast) -> Iterator[Foreign]:
    """The client under test; parametrised with `variants`."""
    foreign = Foreign(cast, *request.param)
    try:
        yield foreign
    finally:
        foreign.leave()


def pass_time(seconds: float) -> None:
    """Lets the world's clock go on by so much: for what is measured in whole seconds and has no event to wait for."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)
