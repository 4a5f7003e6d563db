"""Servers that a node asks over UDP: the gateway's time, and the names of the network.

The rule it keeps: they answer in a thread of their own while the `with` block lasts, fall silent when they are told to,
and count what they were asked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self

from peanutd import sntp


class DatagramServer(ABC):
    """A UDP port of 127.0.0.1. asked: the questions so far."""

    def __init__(self) -> None:
        self.asked = 0
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.port = int(self._sock.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    @abstractmethod
    def answer(self, question: bytes) -> bytes | None:
        """None: silence."""

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, sender = self._sock.recvfrom(600)
                self.asked += 1
                said = self.answer(question)
                if said is not None:
                    self._sock.sendto(said, sender)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()


class TimeServer(DatagramServer):
    """Tells that it is `unix`; None: nothing."""

    def __init__(self, unix: float | None) -> None:
        self.unix = unix
        super().__init__()

    def answer(self, question: bytes) -> bytes | None:
        if self.unix is None:
            return None
        said = sntp.answer(question, int(self.unix * 10**9))
        assert said is not None
        return said


class NameServer(DatagramServer):
    """Says that localhost is 127.0.0.1; nothing while `silent`."""

    silent = True

    def answer(self, question: bytes) -> bytes | None:
        assert question[12:] == b"\x09localhost\0\0\x01\0\x01"
        if self.silent:
            return None
        head = question[:2] + b"\x81\x80\0\x01\0\x01\0\0\0\0"
        return head + question[12:] + b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x7f\0\0\x01"
