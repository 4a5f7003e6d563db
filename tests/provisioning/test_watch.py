"""Where a node hangs that does not come online: from the lines of its console to words with a fix."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peanut import serialport, watch
from peanut.errors import Exit
from peanut.watch import Birth, Console, Step

FIRMWARE = Path(__file__).parents[2] / "firmware"
ROM = ["ets Jul 29 2019 12:21:46", "rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)"]
UP = "00:00:01 info app leek, firmware 0.1.0, boot 1, set point 18.0"
JOINED = "00:00:03 info wifi joined Glass House, 192.168.1.7, -61 dBm"
TIME = "12:00:00 info time set from gateway.local, by +849312000 s"


@pytest.mark.parametrize(
    ("lines", "step", "words", "fix"),
    [
        ([], Step.SILENT, "the very start (nothing is heard on the serial port)", "Press RESET"),
        (["invalid header: 0xffffffff"], Step.ROM, "its start (the chip runs, the node's program does not)", "again"),
        ([*ROM, UP], Step.APPLICATION, "hangs at Wi-Fi", "peanut wifi list"),
        ([UP, "00:00:09 warn wifi Glass House: wrong password"], Step.APPLICATION,
         "hangs at Wi-Fi: Glass House: wrong password", "Give the right one"),
        ([UP, "00:00:09 warn wifi Glass House: not found"], Step.APPLICATION, "Glass House: not found", "2.4 GHz"),
        ([UP, "00:00:01 error config node.json: control.min: missing"], Step.APPLICATION, "config: node.json", "wifi"),
        ([UP, JOINED], Step.WIFI, "hangs at time", "UDP"),
        ([UP, JOINED, TIME, "12:00:02 warn link refused: nothing listens on gw:8883; again in 2.0 s"], Step.TIME,
         "hangs at the connection to the gateway: refused: nothing listens on gw:8883", "Does peanutd run"),
        ([UP, JOINED, TIME, "12:00:02 warn link certificate error: the gateway's certificate is not for the name gw"],
         Step.TCP, "hangs at TLS: certificate error", "peanut init --host HOST"),
        ([UP, "12:00:02 warn link closed by the gateway in the TLS handshake: is it known?; again in 2.0 s"], Step.TCP,
         "hangs at TLS", "fleet home"),
        ([UP, "12:00:02 warn link no CONNACK within 15 s; again in 2.0 s"], Step.TLS, "hangs at MQTT", "gateway's log"),
        ([UP, JOINED, "12:00:03 info link online at gw:8883"], Step.ONLINE, "this gateway has not seen it", "another"),
    ],
)  # fmt: skip
def test_verdicts(lines: list[str], step: Step, words: str, fix: str) -> None:
    console = Console()
    for line in lines:
        console.hear(line)
    assert console.reached is step
    verdict = console.verdict("leek", 120)
    assert words in verdict.message
    assert verdict.message.startswith("leek was not online within 120 s; it hangs at ")
    assert fix in verdict.fix
    assert "NAME" not in verdict.fix
    assert "--patience" in verdict.fix
    assert verdict.status is Exit.OFFLINE


def test_each_of_the_node_s_words_names_its_step() -> None:
    code = "from node import words as w\nprint(*[w.refused(code)[0] for code in range(1, 7)], sep='\\n')\nprint()\n"
    code += "print(*['certificate error: ' + text for _, text in w._CERTIFICATE_WORDS], sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(FIRMWARE), "PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
    connack, certificate = (part.splitlines() for part in done.stdout.split("\n\n"))
    assert (len(connack), len(certificate)) == (6, 4)
    fixes = set()
    for step, group in ((Step.TLS, connack), (Step.TCP, certificate)):
        for text in group:
            console = Console()
            console.hear(f"12:00:02 warn link {text}; again in 2.0 s")
            assert console.reached is step, text
            fixes.add(console.verdict("leek", 1).fix)
    assert len(fixes) == 5  # each certificate's own, and one for MQTT


def test_what_the_line_says_is_made_printable_and_short() -> None:
    console = Console()
    for number in range(1000):
        console.hear(f"\x1b[31m noise {number} " + "x" * 1000)
    message = console.verdict("leek", 1).message
    assert "\x1b" not in message
    assert len(message) < 500
    assert len(console.raw) == watch.KEPT_MAX


class Message:
    def __init__(self, payload: bytes, retain: bool = False) -> None:
        self.payload, self.retain = payload, retain


def test_a_birth_is_one_that_was_not_there_before() -> None:
    old = b'{"state": "online", "boot": 3, "ts": 5}'
    birth = Birth(old)
    for payload in (old, b'{"state": "offline"}', b"noise", b"[1]", b"[" * 100_000):
        birth.hear(Message(payload))  # type: ignore[arg-type]
        assert not birth.seen
    birth.hear(Message(b'{"state": "online", "boot": 4, "ts": 9}', retain=True))  # type: ignore[arg-type]
    assert birth.seen


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: our end, and the name of the other."""
    ours, theirs = pty.openpty()
    try:
        yield ours, os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_listening_puts_lines_together(line: tuple[int, str]) -> None:
    ours, name = line
    heard: list[str] = []
    with watch.listening(name, heard.append):
        os.write(ours, b"one\r\ntw")
        os.write(ours, b"o\r\n\r\n\xff\x1b[31m\r\n" + b"y" * 3000 + b"\r\n")
        deadline = time.monotonic() + 60
        while len(heard) < 4:
            assert time.monotonic() < deadline, heard
            time.sleep(0.01)
    assert heard[:2] == ["one", "two"]
    assert "\x1b" not in heard[2]
    assert len(heard[3]) <= watch.LINE_MAX
    assert serialport.kind(name) is serialport.Kind.PTY
    assert not serialport.has_reset_lines(name)


def test_a_port_in_use_says_by_whom(line: tuple[int, str]) -> None:
    error = serialport.busy(line[1])
    assert f"{line[1]} is in use" in error.message
    assert "Close that" in error.fix
