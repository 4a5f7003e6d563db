"""What becomes of a node that has just been started: its birth on the gateway, or the step at which it hangs.

Rule: the gateway's word counts (a birth message that is not a retained one of yesterday); the serial log says where a
node is until then. What comes over the line is made printable, and is quoted, never obeyed.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import paho.mqtt.client as mqtt

from peanut import serialport
from peanut.errors import Exit, PeanutError
from peanut.names import printable
from peanut.session import Session

ONLINE_S = 120.0  # from the reset to the birth
LINE_MAX = 500  # bytes of a line of the console
KEPT_MAX = 8  # last lines of trouble that are kept

_LINE = re.compile(r"\d\d:\d\d:\d\d (debug|info|warn|error) (\w+) (.*)")


class Step(IntEnum):
    """How far a start has come. What hangs is the next one."""

    SILENT = 0  # nothing is heard
    ROM = 1  # the chip starts
    APPLICATION = 2  # the node's program runs
    WIFI = 3
    TIME = 4
    TCP = 5  # the gateway answers
    TLS = 6
    ONLINE = 7  # it says that it is


# What hangs after each step, and what to do about it.
_HANGS = {
    Step.SILENT: (
        "the very start (nothing is heard on the serial port)",
        "Press RESET (EN) on the board. Is another program reading the port?",
    ),
    Step.ROM: (
        "its start (the chip runs, the node's program does not)",
        "Run `peanut flash` again, with --factory if that does not help.",
    ),
    Step.APPLICATION: ("Wi-Fi", "Which networks does it know? peanut wifi list. One without needs none: --no-wifi."),
    Step.WIFI: ("time", "May UDP through to the gateway, at the port of its `[listen] time`?"),
    Step.TIME: (
        "the connection to the gateway",
        "Does peanutd run at the address that the node uses (peanut device show NAME), and may TCP through?",
    ),
    Step.TCP: ("TLS", "Is the node of this fleet home? peanut device show NAME; the gateway's log says what it saw."),
    Step.TLS: ("MQTT", "The gateway's log says why it did not let the node in."),
    Step.ONLINE: (
        "nothing: it says that it is online, and this gateway has not seen it",
        "Is it another gateway that it found? peanut device show NAME",
    ),
}
_HINTS = {
    "not for the name": "Let the gateway's certificate have the name that the node uses: peanut init --host HOST",
    "not issued by": "Is it the gateway of this fleet home that listens there? peanut device show NAME",
    "has expired": "Run `peanut init` on the gateway: it renews. Is the clock of the gateway right?",
    "not valid yet": "Is the clock of the gateway right?",
    "wrong password": "Give the right one: peanut wifi add SSID, then `peanut flash` again.",
    "not found": "Is it a network of 2.4 GHz, in reach, and spelled like that? peanut wifi list",
    "out of reach": "Is it a network of 2.4 GHz, in reach, and spelled like that? peanut wifi list",
}

# What the node says of a gateway that speaks MQTT with it, and does not let it in (firmware/node/words.py).
_MQTT_WORDS = (
    "connack", "the gateway refused", "the gateway closed", "the gateway does not", "not available now",
    "not authorised",
)  # fmt: skip


@dataclass
class Console:
    """What the serial log has told so far. `hear` is called with each line."""

    reached: Step = Step.SILENT
    troubles: dict[str, str] = field(default_factory=dict)  # module: its last complaint
    raw: list[str] = field(default_factory=list)  # last lines that are not the node's

    def hear(self, line: str) -> None:
        """One line of the console."""
        match = _LINE.search(line)
        if match is None:
            self.raw = [*self.raw[1 - KEPT_MAX :], line]
            self._reach(Step.ROM)
            return
        level, module, text = match.groups()
        self._reach(Step.APPLICATION)
        if level in ("warn", "error"):
            self.troubles[module] = text
            if module == "link":
                self._reach(_before(text))
            return
        if module == "wifi" and text.startswith("joined"):
            self._reach(Step.WIFI)
        elif module == "time" and text.startswith("set"):
            self._reach(Step.TIME)
        elif module == "link" and text.startswith("online"):
            self._reach(Step.ONLINE)

    def _reach(self, step: Step) -> None:
        self.reached = max(self.reached, step)

    def verdict(self, name: str, waited_s: float) -> PeanutError:
        """Where the node hangs, for an operator who waited for it in vain."""
        step, trouble = self._where()
        hint = next((fix for word, fix in _HINTS.items() if word in trouble), _HANGS[step][1])
        quoted = f": {trouble}" if trouble else ""
        return PeanutError(
            f"{name} was not online within {waited_s:.0f} s; it hangs at {_HANGS[step][0]}{quoted}",
            f"{hint.replace('NAME', name)} More time: --patience 3.",
            Exit.OFFLINE,
        )

    def _where(self) -> tuple[Step, str]:
        if "config" in self.troubles:
            return Step.APPLICATION, f"config: {self.troubles['config']}"
        module = {Step.APPLICATION: "wifi", Step.WIFI: "time"}.get(self.reached, "link")
        trouble = self.troubles.get(module, "") if self.reached >= Step.APPLICATION else ""
        if self.reached is Step.APPLICATION and not trouble:
            trouble = self.troubles.get("app", "")
        if self.reached is Step.ROM:
            trouble = " / ".join(line for line in self.raw[-3:] if line)
        return self.reached, printable(trouble, 300)


def _before(trouble: str) -> Step:
    """How far a node got that complains so about its link."""
    low = trouble.lower()
    if any(word in low for word in ("certificate", "tls", "handshake")):
        return Step.TCP
    if any(word in low for word in _MQTT_WORDS):
        return Step.TLS
    return Step.TIME


@contextlib.contextmanager
def listening(port: str, heard: Callable[[str], None], *, reset: bool = False) -> Iterator[None]:
    """Give every line of the board's console to `heard`, from a thread of its own, until the block ends.

    reset: let the board start, by the port's reset line.
    """
    ending = threading.Event()

    def read(line: object) -> None:
        rest = b""
        while not ending.is_set():
            try:
                data: bytes = line.read(4096)  # type: ignore[attr-defined]
            except Exception:  # the board has gone, or pyserial's own error: what was heard counts
                return
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            rest = rest[-LINE_MAX:]
            for one in lines:
                text = printable(one[:LINE_MAX].decode(errors="replace"), LINE_MAX)
                if text.strip():
                    heard(text)

    with serialport.opened(port) as line:
        thread = threading.Thread(target=read, args=(line,), daemon=True)
        thread.start()
        try:
            if reset:
                serialport.reset(line)
            yield
        finally:
            ending.set()
            thread.join(2.0)


class Birth:
    """Hears a node's status, and knows when it was born anew: when it says `online`, and not as it did `before`."""

    def __init__(self, before: bytes = b"") -> None:
        self.latest = self._before = before
        self.seen = False

    def hear(self, message: mqtt.MQTTMessage) -> None:
        """One status message, retained or not: each birth has a time or a count of its own."""
        self.latest = bytes(message.payload)
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(self.latest)
            online = isinstance(content, dict) and content.get("state") == "online"
            self.seen = self.seen or (online and self.latest != self._before)


def wait(session: Session | None, birth: Birth, console: Console, name: str, limit_s: float) -> float:
    """Wait for the birth; the seconds it took. PeanutError with the verdict if there is none in time.

    session: None if the gateway cannot be asked; then the node's own word is taken.
    """
    start = time.monotonic()

    def late() -> PeanutError:
        return console.verdict(name, limit_s)

    if session is not None:
        session.until(lambda: birth.seen, limit_s, late)
    else:
        while console.reached is not Step.ONLINE:
            if time.monotonic() - start > limit_s:
                raise late()
            time.sleep(0.05)
    return time.monotonic() - start
