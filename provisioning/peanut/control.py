"""The gateway that runs on this fleet home, told and asked over its control socket.

Rule: a question is one line of JSON, the answer another. That no gateway runs is no error: it reads the files when it
starts. Only the gateway's own user may open the socket; from another machine it is forwarded with ssh, and
PEANUT_CONTROL names it.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

from peanut.errors import PeanutError
from peanut.home import Home

NAME = "control.sock"
TIMEOUT_S = 10.0  # for a whole question
ANSWER_MAX = 4 * 1024 * 1024  # bytes
_PATH_MAX = 107  # bytes of a Unix socket's path on Linux


class GatewayRefusal(PeanutError):
    """The gateway has understood the question, and does not want to."""


def ask(home: Home, question: dict[str, Any]) -> dict[str, Any] | None:
    """The gateway's answer; None if no gateway runs here. PeanutError if it does not answer, or refuses."""
    directory = -1
    try:
        path = socket_path(home)
        name = os.fsencode(path)
        if len(name) > _PATH_MAX:
            directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            name = f"/proc/self/fd/{directory}/{path.name}".encode()
        answer = json.loads(_exchange(name, json.dumps(question).encode() + b"\n"))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise PeanutError(
            f"{socket_path(home)} may not be opened", "Run this as the user that the gateway runs as."
        ) from None
    except (OSError, ValueError) as error:
        raise PeanutError(f"the gateway does not answer: {error}", "Look at its log.") from None
    finally:
        if directory >= 0:
            os.close(directory)
    if not isinstance(answer, dict) or "error" in answer:
        raise GatewayRefusal(f"the gateway: {answer['error'] if isinstance(answer, dict) else answer}")
    return answer


def _exchange(name: bytes, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(name)
        sock.sendall(line)
        data = b""
        while (chunk := sock.recv(65536)) and len(data) <= ANSWER_MAX:
            data += chunk
    return data


def socket_path(home: Home) -> Path:
    """Where the socket is, while a gateway runs."""
    return home.control or home.path / NAME
