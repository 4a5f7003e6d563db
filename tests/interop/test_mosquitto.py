"""The same stories with the commands of mosquitto-clients, as a person at a terminal tells them.

mosquitto_pub and mosquitto_sub 2.0 over mutual TLS, MQTT 3.1.1 and 5.0; mosquitto_rr for request and response.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop import programs
from tests.interop.conftest import DEADLINE, Cast, Foreign, Keys, Operator, pass_time
from tests.system.conftest import wait_for

NODE = "mosquitto"
ROOT = f"/plant/{NODE}"
VERSIONS = pytest.mark.parametrize("version", ["311", "5"])
FORMAT = "message|%t|%x|%q|%r"


class Commands:
    """Runs the commands, with the node's certificate unless told otherwise; ends what still runs."""

    def __init__(self, cast: Cast) -> None:
        self.gateway = cast.gateway
        self.node: Keys = cast.keys(NODE)[0]
        self.running: list[Listening] = []

    def line(self, tool: str, *arguments: str, operator: bool = False) -> list[str]:
        keys: tuple[Path, ...] | None = None
        if not operator:
            keys = (self.node.ca, self.node.certificate, self.node.key)
            arguments = ("-i", NODE, *arguments)
        return self.gateway.mosquitto(tool, *arguments, keys=keys)

    def run(self, tool: str, *arguments: str, operator: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.line(tool, *arguments, operator=operator), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=DEADLINE,
        )  # fmt: skip

    def publish(self, *arguments: str, operator: bool = False) -> None:
        done = self.run("mosquitto_pub", *arguments, operator=operator)
        assert (done.returncode, done.stderr) == (0, "")

    def listen(self, *arguments: str, operator: bool = False, pattern: str = FORMAT) -> Listening:
        listening = Listening(self.line("mosquitto_sub", "-d", "-F", pattern, *arguments, operator=operator))
        self.running.append(listening)
        return listening


class Listening:
    """A mosquitto_sub that runs. Its debug lines tell when the subscription counts."""

    def __init__(self, command: list[str]) -> None:
        self.lines: list[str] = []
        # Into a pipe it would keep back what it says, but for stdbuf.
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def messages(self) -> list[list[str]]:
        return [line.split("|")[1:] for line in list(self.lines) if line.startswith("message|")]

    def subscribed(self) -> Listening:
        wait_for(lambda: any("Subscribed" in line for line in self.lines), f"subscribed: {self.lines}", DEADLINE)
        return self

    def hears(self, count: int) -> list[list[str]]:
        wait_for(lambda: len(self.messages) >= count, f"{count} messages", DEADLINE)
        return self.messages

    def ended(self) -> int:
        status = self.process.wait(DEADLINE)
        self.reader.join(DEADLINE)
        return status

    def kill(self) -> None:
        self.process.kill()
        self.ended()
        if self.process.stdout:
            self.process.stdout.close()


@pytest.fixture
def commands(cast: Cast) -> Iterator[Commands]:
    commands = Commands(cast)
    try:
        yield commands
    finally:
        for listening in commands.running:
            listening.kill()


def spell(payload: bytes) -> str:
    return payload.hex()


@VERSIONS
def test_a_gateway_by_another_name_is_not_trusted_and_nobody_is_without_certificate(
    commands: Commands, version: str
) -> None:
    message = ["-V", f"mqttv{version}", "-t", f"{ROOT}/event", "-m", "x", "-q", "1"]
    gateway = commands.gateway
    elsewhere = [*message, "-h", gateway.WRONG_NAME, "-p", str(gateway.other_port)]
    done = commands.run("mosquitto_pub", *elsewhere)
    assert done.returncode != 0
    assert "TLS error" in done.stdout + done.stderr
    assert commands.run("mosquitto_pub", *elsewhere, "--insecure").returncode == 0  # so it is the name alone
    tool, *_ = commands.line("mosquitto_pub")
    bare = [tool, "-h", "localhost", "-p", str(gateway.port), "--cafile", str(commands.node.ca), *message]
    assert subprocess.run(bare, capture_output=True, timeout=DEADLINE).returncode != 0


@VERSIONS
def test_each_qos_arrives_both_ways(commands: Commands, operator: Operator, version: str) -> None:
    """MQTT-4.3.1-1, 4.3.2-1, 4.3.3-1 and 3.8.4-6 of 3.1.1."""
    operator.listen(f"{ROOT}/event")
    for qos in (0, 1, 2):
        commands.publish("-V", f"mqttv{version}", "-q", str(qos), "-t", f"{ROOT}/event", "-m", f"größe {qos}")
    heard = operator.hears(f"{ROOT}/event", 3)
    assert {(message.payload, message.qos) for message in heard} == {
        (f"größe {qos}".encode(), qos) for qos in (0, 1, 2)
    }
    listening = commands.listen("-V", f"mqttv{version}", "-q", "2", "-t", f"{ROOT}/cmd/+").subscribed()
    for qos in (0, 1, 2):
        operator.say(f"{ROOT}/cmd/test", b"\x00\xff%d" % qos, qos)
    expected = sorted([f"{ROOT}/cmd/test", spell(b"\x00\xff%d" % qos), str(qos), "0"] for qos in (0, 1, 2))
    assert sorted(listening.hears(3)) == expected


@VERSIONS
def test_retained_is_kept_received_and_cleared(commands: Commands, operator: Operator, version: str) -> None:
    """MQTT-3.3.1-5, -6, -8 of 5.0. `-n -r` clears."""
    speak = ["-V", f"mqttv{version}", "-q", "1", "-r", "-t", f"{ROOT}/state"]
    commands.publish(*speak, "-m", "first")
    commands.publish(*speak, "-m", "second")
    listening = commands.listen("-V", f"mqttv{version}", "-C", "1", "-t", f"{ROOT}/state", operator=True)
    assert listening.ended() == 0
    assert listening.messages == [[f"{ROOT}/state", spell(b"second"), "0", "1"]]
    commands.publish(*speak, "-n")
    again = commands.listen("-V", f"mqttv{version}", "-C", "1", "-t", f"{ROOT}/state", operator=True).subscribed()
    commands.publish("-V", f"mqttv{version}", "-q", "1", "-t", f"{ROOT}/state", "-m", "marker")
    assert again.hears(1) == [[f"{ROOT}/state", spell(b"marker"), "0", "0"]]


@VERSIONS
def test_the_will_is_published_when_it_is_cut_off(commands: Commands, operator: Operator, version: str) -> None:
    """MQTT-3.1.2-8."""
    operator.listen(f"{ROOT}/status")
    listening = commands.listen(
        "-V", f"mqttv{version}", "-t", f"{ROOT}/cmd/+", "--will-topic", f"{ROOT}/status", "--will-payload", "gone",
        "--will-qos", "2", "--will-retain",
    ).subscribed()  # fmt: skip
    listening.kill()
    (message,) = operator.hears(f"{ROOT}/status")
    assert (message.payload, message.qos) == (b"gone", 2)
    operator.forget()
    operator.listen(f"{ROOT}/status")
    (message,) = operator.hears(f"{ROOT}/status")
    assert (message.payload, message.retain) == (b"gone", True)
    commands.publish("-r", "-n", "-q", "1", "-t", f"{ROOT}/status")


@VERSIONS
def test_a_session_keeps_what_came_while_it_was_away(commands: Commands, operator: Operator, version: str) -> None:
    """MQTT-3.1.2-4 to -6: `-c` keeps the session, `-E` leaves as soon as it is subscribed."""
    lasting = ["-V", f"mqttv{version}", "-c", "-q", "1", "-t", f"{ROOT}/cmd/+"]
    assert commands.listen(*lasting, "-E").ended() == 0
    for number in range(5):
        operator.say(f"{ROOT}/cmd/test", b"%d" % number)
    listening = commands.listen(*lasting, "-C", "5")
    assert listening.ended() == 0
    assert [payload for _, payload, *_ in listening.messages] == [spell(b"%d" % number) for number in range(5)]
    assert commands.listen("-V", f"mqttv{version}", "-E", "-t", f"{ROOT}/cmd/+").ended() == 0  # a clean start ends it


def test_properties_arrive_unchanged_both_ways(commands: Commands, operator: Operator) -> None:
    """MQTT-3.3.2-4, -15 to -20: with -D, and with the format's %C %R %D %P %F %E."""
    operator.listen(f"{ROOT}/event")
    commands.publish(
        "-V", "mqttv5", "-q", "1", "-t", f"{ROOT}/event", "-m", "text",
        "-D", "publish", "payload-format-indicator", "1", "-D", "publish", "content-type", "text/plain",
        "-D", "publish", "response-topic", "replies/here", "-D", "publish", "correlation-data", "id 7",
        "-D", "publish", "user-property", "crop", "tomato", "-D", "publish", "user-property", "bed", "3",
        "-D", "publish", "user-property", "crop", "pepper", "-D", "publish", "message-expiry-interval", "600",
    )  # fmt: skip
    (heard,) = operator.hears(f"{ROOT}/event")
    assert (heard.PayloadFormatIndicator, heard.ContentType, heard.ResponseTopic) == (1, "text/plain", "replies/here")
    assert heard.CorrelationData == b"id 7"
    assert heard.UserProperty == [("crop", "tomato"), ("bed", "3"), ("crop", "pepper")]
    assert 590 <= heard.MessageExpiryInterval <= 600

    listening = commands.listen(
        "-V", "mqttv5", "-t", f"{ROOT}/cmd/+", "-D", "subscribe", "subscription-identifier", "9",
        pattern="message|%F|%C|%R|%D|%P|%E|%S",
    ).subscribed()  # fmt: skip
    operator.say(
        f"{ROOT}/cmd/test", b"{}", PayloadFormatIndicator=1, ContentType="application/json", ResponseTopic="to/me",
        CorrelationData=b"id 8", UserProperty=[("a", "1"), ("b", "2"), ("a", "3")], MessageExpiryInterval=600,
    )  # fmt: skip
    *texts, expiry, identifier = listening.hears(1)[0]
    assert texts == ["1", "application/json", "to/me", "id 8", "a:1 b:2 a:3"]
    assert 590 <= int(expiry) <= 600
    assert identifier == "9"


def test_expiry_counts_down_and_ends_a_session(commands: Commands, operator: Operator) -> None:
    """MQTT-3.3.2-5, -6 and 4.1.0-2: `-x` is the session expiry interval."""
    lasting = ["-V", "mqttv5", "-c", "-q", "1", "-t", f"{ROOT}/cmd/+"]
    assert commands.listen(*lasting, "-x", "600", "-E").ended() == 0
    operator.say(f"{ROOT}/cmd/test", b"short", MessageExpiryInterval=1)
    operator.say(f"{ROOT}/cmd/test", b"long", MessageExpiryInterval=600)
    pass_time(1.1)
    listening = commands.listen(*lasting, "-x", "1", "-C", "1", pattern="message|%p|%E")
    assert listening.ended() == 0
    ((payload, expiry),) = listening.messages
    assert payload == "long"
    assert 500 <= int(expiry) <= 599
    operator.say(f"{ROOT}/cmd/test", b"missed")
    pass_time(2.1)
    again = commands.listen(*lasting, "-x", "0").subscribed()
    operator.say(f"{ROOT}/cmd/test", b"marker")
    assert again.hears(1)[0][1] == spell(b"marker")


def test_a_shared_subscription_shares(commands: Commands, operator: Operator) -> None:
    """5.0 §4.8.2: each message to one of the two, and both get some."""
    shared = ["-V", "mqttv5", "-q", "1", "-t", f"$share/workers/{ROOT}/cmd/+"]
    both = [commands.listen(*shared, operator=True).subscribed() for _ in range(2)]
    for number in range(20):
        operator.say(f"{ROOT}/cmd/test", b"%d" % number)
    wait_for(lambda: sum(len(one.messages) for one in both) >= 20, "all of them", DEADLINE)
    heard = [bytes.fromhex(payload) for one in both for _, payload, *_ in one.messages]
    assert sorted(map(int, heard)) == list(range(20))
    assert all(one.messages for one in both)


def test_what_is_refused_is_said_at_the_terminal(commands: Commands) -> None:
    """5.0 §2.4: not authorised, in a PUBACK and in a SUBACK."""
    done = commands.run("mosquitto_pub", "-V", "mqttv5", "-q", "1", "-t", f"{ROOT}/cmd/test", "-m", "forged")
    assert "Not authorized" in done.stdout + done.stderr
    done = commands.run("mosquitto_sub", "-V", "mqttv5", "-t", "/plant/other/cmd/+")
    assert "denied" in done.stdout + done.stderr


def test_a_request_finds_its_response(commands: Commands, cast: Cast) -> None:
    """mosquitto_rr: response topic and correlation data through the gateway and back."""
    gardener = Foreign(cast, programs.ALL[0], 5)
    try:
        gardener.connect()
        gardener.subscribe(f"{gardener.root}/cmd/+")
        command = commands.line(
            "mosquitto_rr", "-V", "mqttv5", "-q", "1", "-t", f"{gardener.root}/cmd/test", "-e",
            f"{gardener.root}/event", "-m", "how warm?", operator=True,
        )  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
            (question,) = gardener.hears(1)
            assert question.binary("payload") == b"how warm?"
            gardener.publish(question.text("response") or "", b"15 C", correlation=question.binary("correlation"))
            assert asking.communicate(timeout=DEADLINE)[0] == "15 C\n"
    finally:
        gardener.leave()
