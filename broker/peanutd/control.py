"""The control socket: how `peanutd status` and `peanutd bans` speak with the gateway that runs in a fleet home.

The rule it keeps: whoever may open the socket may ask, and that is the gateway's own user (mode 0600, no password, no
network). A question is one line of JSON, the answer another, and then it is over. Both are short and have a limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from peanutd.config import UNIX_PATH_MAX, Listener, Policy, UnixPath

NAME: Final = "control.sock"
MODE: Final = 0o600
QUESTION_MAX: Final = 8192
"""Bytes of a question."""
ANSWER_MAX: Final = 4 * 1024 * 1024
"""Bytes of an answer."""
TIMEOUT: Final = 5.0
"""Seconds that a question may take, on both sides."""

Question = Mapping[str, Any]
Answer = dict[str, Any]


class ControlError(Exception):
    """Why the gateway could not be asked, or what it had against it."""


def path(home: Path) -> str:
    """Of the socket; by way of /proc where its own path is too long for one: the directory stays open then."""
    name = str(home / NAME)
    if len(os.fsencode(name)) <= UNIX_PATH_MAX:
        return name
    return f"/proc/self/fd/{os.open(home, os.O_PATH | os.O_DIRECTORY)}/{NAME}"


def listener(home: Path) -> Listener:
    """What to bind."""
    return Listener(UnixPath(path(home)), "tcp", Policy("none"), mode=MODE, where=f"{NAME} in the fleet home")


class Control(asyncio.Protocol):
    """One question. `answer` raises ControlError for what it does not want to do."""

    def __init__(self, answer: Callable[[Question], Answer], loop: asyncio.AbstractEventLoop) -> None:
        self._answer = answer
        self._loop = loop
        self._held = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(TIMEOUT, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._held += data
        if b"\n" in self._held or len(self._held) > QUESTION_MAX:
            self._transport.write(json.dumps(self._reply()).encode() + b"\n")
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _reply(self) -> Answer:
        try:
            question = json.loads(self._held[: QUESTION_MAX + 1].partition(b"\n")[0])
            if not isinstance(question, dict):
                raise ControlError("a question is an object")
            return self._answer(question)
        except (ControlError, ValueError, RecursionError) as error:
            return {"error": str(error)}


def ask(home: Path, question: Question) -> Answer:
    """Asks the gateway of this fleet home, and waits. ControlError when there is none, or it does not want to."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(path(home))
            sock.sendall(json.dumps(question).encode() + b"\n")
            data = b""
            while (chunk := sock.recv(65536)) and len(data) <= ANSWER_MAX:
                data += chunk
        answer = json.loads(data)
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(f"no gateway runs in {home}; start it with `peanutd --home {home}`") from None
    except PermissionError:
        raise ControlError(f"{home / NAME}: not allowed; ask as the user that the gateway runs as") from None
    except (OSError, ValueError) as error:
        raise ControlError(f"the gateway does not answer: {error}") from None
    if not isinstance(answer, dict) or "error" in answer:
        raise ControlError(str(answer["error"] if isinstance(answer, dict) else answer))
    return answer
