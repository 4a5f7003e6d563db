"""The board's loader, through the program esptool: who is there, reading the flash, writing and verifying it.

Rule: one session. The chip goes into its loader once, and stays there from one step to the next; what is written is
what was looked at. Each step either says what the chip answered or raises what is wrong, with the fix.
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peanut import programs, serialport
from peanut.errors import PeanutError
from peanut.home import SECRET, write_file
from peanut.names import printable

CONNECT_S = 60.0  # until the chip answers; includes the time somebody needs to press a button
SILENCE_S = 120.0  # the longest a step is quiet: erasing 16 MB of flash
BY_HAND_S = 3.0  # a board that needs no button has answered by then
MB = 1024 * 1024

_CONNECTED = re.compile(r"Connected to (ESP\S+) on ")
_MAC = re.compile(r"MAC:\s+([0-9a-f]{2}(?::[0-9a-f]{2}){5,7})")
_SIZE = re.compile(r"Detected flash size: (\d+)(KB|MB)")
_TYPE = re.compile(r"Chip type:\s+(.+)")
_PROGRESS = re.compile(r"(?:Writing|Reading) (?:at|from) .*?([0-9.]+)% +([0-9]+)/([0-9]+) bytes")
_VERIFIED = re.compile(r"Hash of data verified|already in flash, skipping write")


@dataclass(frozen=True)
class Chip:
    """What is on the port. name: as `chips.Chip.name`; flash: bytes, 0 if it could not be told."""

    name: str
    type: str
    mac: str
    flash: int


@dataclass(frozen=True)
class Part:
    """One piece of the flash: what it is, for people; where from; the bytes."""

    what: str
    offset: int
    data: bytes


Progress = Callable[[float], None]  # the share that is done, 0 to 1


class Loader:
    """A board in its loader.

    work: a private directory; what passes through it holds the node's key. say: told what somebody has to do by hand.
    manual: the port's reset lines do not reset. patience: every limit is multiplied with it.
    """

    def __init__(
        self, port: str, work: Path, say: Callable[[str], None], *, manual: bool = False, patience: float = 1.0
    ) -> None:
        self.baud = serialport.CONSOLE_BAUD  # what the flash is written with; the board file knows better
        self._port = port
        self._work = work
        self._say = say
        self._lines = serialport.has_reset_lines(port) and not manual
        self._patience = patience
        self.wrote = False  # whether a byte may have been written
        self.written = False  # whether all of them have been, and verified
        self._in_stub = False  # the loader answers at CONSOLE_BAUD, without a reset

    @property
    def by_hand(self) -> bool:
        """Whether somebody has to press the board's buttons."""
        return not self._lines

    def release(self) -> None:
        """Let the board go on with what it had, because it will not be written. Says so where that takes a hand."""
        if self.by_hand:
            self._say("The board was not written. Press and release RESET (EN), and it goes on with what it had.")
            return
        with contextlib.suppress(PeanutError), serialport.opened(self._port) as line:
            serialport.reset(line)

    def identify(self) -> Chip:
        """Which chip is there, and how much flash it has."""
        if self.by_hand:
            self._say(
                f"{self._port} has no reset lines. If nothing happens: hold BOOT, press and release RESET (EN), "
                f"let go of BOOT. Waiting for up to {CONNECT_S * self._patience:.0f} s."
            )
        output = self._run(["flash-id"], fast=False, wait_s=CONNECT_S)
        name, mac, size = _CONNECTED.search(output), _MAC.search(output), _SIZE.search(output)
        if name is None or mac is None:
            raise PeanutError(f"esptool did not say what is on {self._port}", "Its words: " + _last(output))
        unit = MB if size and size[2] == "MB" else 1024
        kind = _TYPE.search(output)
        return Chip(name[1], printable(kind[1]) if kind else name[1], mac[1], int(size[1]) * unit if size else 0)

    def read(self, offset: int, size: int, progress: Progress = lambda _: None) -> bytes:
        """`size` bytes of the flash."""
        path = self._work / "read.bin"
        write_file(path, b"", SECRET)  # esptool writes into what is there
        try:
            self._run(["read-flash", hex(offset), hex(size), str(path)], fast=size > MB // 8, progress=progress)
            data = path.read_bytes()
        finally:
            path.unlink(missing_ok=True)
        if len(data) != size:
            raise PeanutError(f"{len(data)} of {size} bytes came from the board", "Run the same command again.")
        return data

    def write(self, parts: Sequence[Part], *, erase_all: bool, progress: Progress = lambda _: None) -> None:
        """Write, and read the hash of every part back. The chip stays in its loader until somebody resets it."""
        self.wrote = True
        words = ["write-flash", "--erase-all" if erase_all else "--skip-flashed"]
        for part in parts:
            path = self._work / f"{part.offset:#x}.bin"
            write_file(path, part.data, SECRET)
            words += [hex(part.offset), str(path)]
        try:
            output = self._run(words, fast=True, last=True, progress=progress, total=sum(len(p.data) for p in parts))
        finally:
            for part in parts:
                (self._work / f"{part.offset:#x}.bin").unlink(missing_ok=True)
        verified = len(_VERIFIED.findall(output))
        if verified != len(parts):
            raise PeanutError(
                f"only {verified} of {len(parts)} parts were verified after writing",
                "Run the same command again; if it happens again, the flash of this board is worn or protected.",
            )
        self.written = True

    def _run(
        self,
        words: Sequence[str],
        *,
        fast: bool,
        wait_s: float = SILENCE_S,
        last: bool = False,
        progress: Progress = lambda _: None,
        total: int = 0,
    ) -> str:
        raised = fast and self._lines  # a port without lines has no speed, or one that we had better not change
        before = "no-reset" if self._in_stub or self.by_hand else "default-reset"
        after = "no-reset" if last and self.by_hand else "no-reset-stub"
        command = [
            programs.find("esptool"), "--port", self._port, "--before", before, "--after", after,
            *(["--baud", str(self.baud)] if raised else []),
            *(["--connect-attempts", "0"] if self.by_hand else []),
            *words,
        ]  # fmt: skip
        done = _Done(progress, total)
        try:
            ended = programs.run(command, wait_s * self._patience, done.heard, f"no answer from {self._port}")
        except PeanutError as error:
            raise self._no_answer(error) from None
        if ended.status != 0:
            raise self._failed(ended.output)
        self._in_stub = not raised and not last
        return ended.output

    def _no_answer(self, error: PeanutError) -> PeanutError:
        if self.by_hand:
            fix = "Hold BOOT, press and release RESET (EN), let go of BOOT, and run the same command again."
            return PeanutError(error.message, f"{fix} More time: --patience 3.")
        return error

    def _failed(self, output: str) -> PeanutError:
        """What esptool's last words mean."""
        port, low = self._port, output.lower()
        if serialport.kind(port) in (serialport.Kind.DEVICE, serialport.Kind.PTY):
            try:
                serialport.check(port)
            except PeanutError as error:
                return serialport.gone(port) if "there is no port" in error.message else error
        if "connection refused" in low or "no route to host" in low or "name or service not known" in low:
            return PeanutError(f"nothing listens at {port}", "Is that its address? Is the server of the port running?")
        if "port is busy" in low or "could not exclusively lock" in low or "resource temporarily" in low:
            return serialport.busy(port)
        if any(
            text in low
            for text in ("device disconnected", "input/output error", "device not configured", "readiness to read but")
        ):
            return serialport.gone(port)
        if "no serial data received" in low or "failed to connect" in low:
            return PeanutError(
                f"nothing answers on {port}",
                "Is it an ESP32, and is its cable one that carries data? Hold BOOT while this command starts, or hold "
                "BOOT and press RESET (EN) before it.",
            )
        if "wrong boot mode" in low:
            return PeanutError(
                f"the chip on {port} runs, and is not in its loader",
                "Hold BOOT, press and release RESET (EN), let go of BOOT, and run the same command again.",
            )
        if "does not match" in low or "md5 of" in low:
            return PeanutError(
                "what was written is not what was read back",
                "Run the same command again, with a shorter cable; if it happens again, the flash of this board is "
                "worn or protected.",
            )
        return PeanutError(f"esptool failed on {port}: {_last(output)}", "Run the same command again.")


class _Done:
    """Turns esptool's lines into one share of the whole."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._before = self._part = 0  # bytes of the parts that are through, and of the present one

    def heard(self, line: str) -> None:
        match = _PROGRESS.search(line)
        if match:
            at, self._part = int(match[2]), int(match[3])
            self._progress(min(1.0, float(match[1]) / 100) if not self._total else self._share(at))
        elif _VERIFIED.search(line):
            self._before, self._part = self._before + self._part, 0

    def _share(self, at: int) -> float:
        return min(1.0, (self._before + at) / self._total)


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return printable(" / ".join(lines[-3:]), 400)
