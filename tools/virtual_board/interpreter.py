"""The chip's program: MicroPython's unix port, on a terminal of its own, started on the file system in the flash.

Rule: one process from one start of the interpreter to the next (a soft reset ends it). Ctrl-C is a signal while a
program runs and a byte while the REPL reads, as on the chip. Nothing of this PC gets in but the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.fleet.node import asleep, find_micropython

HARDWARE = Path(__file__).parent / "hardware"
RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
FRIENDLY = b'Type "help()" for more information.\r\n'
FRIENDLY_PROMPT = b">>> "
READY = b"\x00ready\x00"  # said on the terminal after boot.py and main.py
CTRL_A, CTRL_C = b"\x01", b"\x03"
READ = 65536
INTERRUPTS_S = 0.2  # two signals in less would kill the interpreter
ASLEEP_S = 0.1  # so long Ctrl-C waits for a program to sleep
LOOK_S = 0.001  # between two looks at whether it does
# The unix port starts in the friendly REPL, so after a soft reset out of the raw one it is led over.
STARTING, LEADING, LED, READING = range(4)
TURN_S = 0.005  # how long a throttled one runs at a time
_KEEP = 64  # bytes of output in which a prompt is looked for

# Runs as `-c`: the file system in the flash becomes the root, then what the chip runs at its start.
_START = "import sys;sys.path[:]=[sys.argv[1],'.frozen'];import _chip;_chip.start(sys.argv[2:],globals())"


class Interpreter:
    """A running MicroPython.

    output(data)   what the chip says on its UART
    ended()        the interpreter is over: soft reset
    asked(words)   a line of the hardware's modules; returns the answer
    frozen         a folder of modules that the image carries
    throttle       how many times slower than this PC it is: stopped and continued in turns
    """

    def __init__(
        self,
        flash: Path,
        offset: int,
        size: int,
        heap_kib: int,
        raw: bool,
        frozen: Path | None,
        throttle: float,
        output: Callable[[bytes], None],
        ended: Callable[[], None],
        asked: Callable[[list[str]], Any],
    ) -> None:
        self._output, self._ended, self._asked = output, ended, asked
        self.raw = raw
        self._phase = STARTING
        self._binary = False
        self._recent = b""
        self._waiting_input = b""
        self._interruptible = False  # until then Ctrl-C would keep it from becoming the chip
        self._interrupt_waits = False
        self._interrupting = False
        self._last_interrupt = 0.0
        self._loop = asyncio.get_running_loop()
        self._terminal, child_terminal = pty.openpty()
        tty.setraw(child_terminal)
        settings = termios.tcgetattr(child_terminal)
        settings[3] |= termios.ISIG
        termios.tcsetattr(child_terminal, termios.TCSANOW, settings)
        os.set_blocking(self._terminal, False)
        self._wire, child_wire = socket.socketpair()
        self._wire.setblocking(False)
        self._wire_input = b""
        command = [find_micropython(), "-X", f"heapsize={heap_kib}wK", "-i", "-c"]
        scripts = "boot.py" if raw else "boot.py main.py"
        command += [_START, str(HARDWARE)]
        command += [str(child_wire.fileno()), str(flash.resolve()), str(offset), str(size), scripts]
        command += [str(frozen.resolve()) if frozen else ""]

        def become_terminals_owner() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self._process = subprocess.Popen(
            command,
            stdin=child_terminal,
            stdout=child_terminal,
            stderr=child_terminal,
            pass_fds=(child_wire.fileno(),),
            preexec_fn=become_terminals_owner,
            env={"PATH": os.environ.get("PATH", "")},
            cwd="/",
        )
        os.close(child_terminal)
        child_wire.close()
        self._throttle = throttle
        if throttle > 1:
            self._turn(signal.SIGSTOP)
        self._loop.add_reader(self._terminal, self._read)
        self._loop.add_reader(self._wire, self._read_wire)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def _turn(self, number: signal.Signals) -> None:
        """Stops or continues it, until the next turn."""
        if self._terminal < 0 or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        stopped = number == signal.SIGSTOP
        after, then = (TURN_S * (self._throttle - 1), signal.SIGCONT) if stopped else (TURN_S, signal.SIGSTOP)
        self._loop.call_later(after, self._turn, then)

    def write(self, data: bytes) -> None:
        """Bytes from the PC."""
        while data:
            before, interrupt, data = data.partition(CTRL_C)
            self._type(before)
            if interrupt:
                self._interrupt()

    def _type(self, data: bytes) -> None:
        if self._phase != READING and self.raw:
            self._waiting_input += data  # for the raw REPL, which is not there yet
        elif data:
            self._waiting_input += data
            self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            written = os.write(self._terminal, self._waiting_input)
            self._waiting_input = self._waiting_input[written:]
        if self._waiting_input and self._process.poll() is None:
            self._loop.call_later(0.005, self._flush)

    def _interrupt(self) -> None:
        """Ctrl-C: a signal if a program is running, which is when the interpreter catches it; else a byte."""
        if not self._interruptible:
            self._interrupt_waits = True
        elif not self._runs():
            self._type(CTRL_C)
        elif not self._interrupting and self._loop.time() - self._last_interrupt > INTERRUPTS_S:
            self._strike(self._loop.time() + ASLEEP_S)

    def _strike(self, latest: float) -> None:
        """The signal, while the program sleeps; to one that does not, at `latest`.

        The unix port raises KeyboardInterrupt out of its signal handler. In the middle of a garbage collection that
        leaves the heap locked for good; a chip looks for Ctrl-C between two bytecodes.
        """
        self._interrupting = self._runs()
        if not self._interrupting:
            return  # it has ended by itself
        if self._loop.time() < latest and not asleep(self.pid):
            self._loop.call_later(LOOK_S, self._strike, latest)
            return
        self._interrupting = False
        self._last_interrupt = self._loop.time()
        self._process.send_signal(signal.SIGINT)

    def _runs(self) -> bool:
        """Whether it runs a program."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return False
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> signal.SIGINT - 1 & 1)

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.kill()
            self._ended()
            return
        self._heard(data)

    def _heard(self, data: bytes) -> None:
        if self._phase != READING:
            data = self._until_ready(data)
        if not data:
            return
        self._recent = (self._recent + data)[-_KEEP:]
        if self._recent.endswith(RAW_PROMPT):
            self.raw = True
        elif FRIENDLY in self._recent:
            self.raw = False
            self._recent = b""
        # On the chip print() ends lines with CR LF. What the REPL says has that; mounted files (0x18) are left alone.
        self._binary = self._binary or b"\x18" in data
        if not self.raw and not self._binary:
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._output(data)

    def _until_ready(self, data: bytes) -> bytes:
        """What boot.py and main.py say goes out; the mark, and what is said on the way to the raw REPL, does not."""
        self._recent += data
        if self._phase == STARTING:
            before, mark, after = self._recent.partition(READY)
            if not mark:  # a part of it may be at the end
                cut = next((n for n in range(len(READY) - 1, 0, -1) if before.endswith(READY[:n])), 0)
                self._said(before[: len(before) - cut])
                self._recent = before[len(before) - cut :]
                return b""
            self._said(before)
            self._recent = after
            self._phase = LEADING if self.raw else READING
        if self._phase == LEADING and self._recent.endswith(FRIENDLY_PROMPT):
            os.write(self._terminal, CTRL_A)
            self._phase = LED
        if self._phase == LED and RAW_PROMPT in self._recent:
            self._phase = READING
            self._recent = RAW_PROMPT
            self._flush()
        if self._phase != READING:
            return b""
        data, self._recent = self._recent, b""
        return data

    def _said(self, data: bytes) -> None:
        if data:
            self._output(data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    def _read_wire(self) -> None:
        try:
            data = self._wire.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._wire)
            return
        *lines, self._wire_input = (self._wire_input + data).split(b"\n")
        for line in lines:
            words = line.decode().split(" ")
            if words[0] == "?":
                if words[2:] == ["interruptible"]:
                    # A Ctrl-C from before is told, not signalled: where a signal strikes now, it may be lost.
                    answer = self._interrupt_waits
                    self._interruptible = True
                else:
                    answer = self._asked(words[2:])
                if self._process.poll() is None:
                    with contextlib.suppress(OSError):
                        self._wire.send(json.dumps([int(words[1]), answer]).encode() + b"\n")
            else:
                self._asked(words)

    def kill(self) -> None:
        """The end, at once; what it has said by then is heard."""
        if self._terminal < 0:
            return
        self._loop.remove_reader(self._terminal)
        self._loop.remove_reader(self._wire)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            while data := os.read(self._terminal, READ):
                self._heard(data)
        os.close(self._terminal)
        self._terminal = -1
        self._wire.close()
