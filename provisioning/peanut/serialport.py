"""Serial ports: which there are, what can be done with one, and what is wrong with it, in words with the fix.

Rule: a port is a device file, a pseudo-terminal, `socket://HOST:PORT` or `rfc2217://HOST:PORT`. Only device files and
rfc2217 have reset lines; on the others somebody presses the button.
"""

import contextlib
import errno
import fcntl
import grp
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from peanut.errors import PeanutError
from peanut.names import printable
from peanut.programs import EXTRA

RESET_S = 0.1  # how long EN is held low
CONSOLE_BAUD = 115200  # MicroPython's console and the boot ROM's
HOLDERS_MAX = 3  # programs that an error names
_URL = re.compile(r"(socket|rfc2217)://[^/?#\s]+:\d{1,5}(?:[/?].*)?")
# USB makers whose chips stand on ESP32 boards: Silicon Labs, WCH, FTDI, Prolific, Espressif
_MAKERS = (0x10C4, 0x1A86, 0x0403, 0x067B, 0x303A)


class Kind(StrEnum):
    """What sort of port it is."""

    DEVICE = "device file"
    PTY = "pseudo-terminal"
    SOCKET = "socket"
    RFC2217 = "rfc2217"


@dataclass(frozen=True)
class Found:
    """A port that a board may be on. likely: its USB chip is one that ESP32 boards have."""

    port: str
    description: str
    likely: bool


def module() -> Any:
    """pyserial; PeanutError with the command that installs it."""
    try:
        import_module("serial.tools.list_ports")
        return import_module("serial")
    except ImportError:
        raise PeanutError("the Python package pyserial is missing", f"Install what flashing needs: {EXTRA}") from None


def listed() -> list[Found]:
    """The USB ports of this machine, those that are likely boards first."""
    found = [
        Found(port.device, printable(port.description or "", 60).strip(), port.vid in _MAKERS)
        for port in module().tools.list_ports.comports()
        if port.vid is not None
    ]
    return sorted(found, key=lambda f: (not f.likely, f.port))


def kind(port: str) -> Kind:
    """What sort of port a name is for."""
    match = _URL.fullmatch(port)
    if match:
        return Kind.SOCKET if match[1] == "socket" else Kind.RFC2217
    if "://" in port:
        raise PeanutError(f"{port} is not a port", "Give a device file, socket://HOST:PORT or rfc2217://HOST:PORT.")
    return Kind.PTY if os.path.realpath(port).startswith("/dev/pts/") else Kind.DEVICE


def has_reset_lines(port: str) -> bool:
    """Whether the PC can reset the board behind it."""
    return kind(port) in (Kind.DEVICE, Kind.RFC2217)


def check(port: str) -> str:
    """Return `port` if it can be used by us; PeanutError that says why not and what to do."""
    if kind(port) in (Kind.SOCKET, Kind.RFC2217):
        return port
    path = Path(port)
    try:
        mode = path.stat()
    except OSError as error:
        if error.errno == errno.EACCES:
            raise PeanutError(f"no permission to look at {port}", "Mend the mode of its directory.") from None
        raise PeanutError(f"there is no port {port}", _others()) from None
    if not stat.S_ISCHR(mode.st_mode):
        raise PeanutError(f"{port} is not a serial port", _others())
    if not os.access(path, os.R_OK | os.W_OK):
        group = _group(mode.st_gid)
        raise PeanutError(
            f"no permission to use {port}",
            f"It belongs to the group {group!r}. Join it, then log out and in again: sudo usermod -aG {group} $USER",
        )
    return port


def _others() -> str:
    try:
        ports = [found.port for found in listed()]
    except PeanutError:
        ports = []
    if ports:
        return f"USB ports there are: {', '.join(ports)}."
    return "There is no USB serial port at all: is the board plugged in, with a cable that carries data?"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def holders(port: str) -> list[str]:
    """Which programs of this user have the port open, as `name (pid)`."""
    target, found = os.path.realpath(port), []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            if any(os.path.realpath(fd) == target for fd in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
    return found


def busy(port: str) -> PeanutError:
    """The error for a port that somebody else has."""
    who = ", ".join(holders(port)[:HOLDERS_MAX])
    return PeanutError(
        f"{port} is in use" + (f" by {who}" if who else ""),
        "Close that (a console, a monitor, an IDE), then try again.",
    )


def gone(port: str) -> PeanutError:
    """The error for a port that was there a moment ago."""
    return PeanutError(
        f"{port} has gone: the board was unplugged, or its cable is bad",
        "Plug it in again (another cable, no hub) and run the same command: it begins anew.",
    )


@contextlib.contextmanager
def locked(port: str) -> Iterator[None]:
    """Keep the port from another `peanut` of this user until the block ends; PeanutError if one has it.

    The lock is a file under $XDG_RUNTIME_DIR or the temporary directory, and not the port itself: the programs that do
    the work open and close that several times meanwhile, and lock it. The system drops the lock with its holder; the
    empty file stays.
    """
    name = os.path.realpath(port) if kind(port) in (Kind.DEVICE, Kind.PTY) else port
    key = hashlib.sha256(name.encode()).hexdigest()[:16]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = runtime if os.path.isdir(runtime) else tempfile.gettempdir()
    path = Path(folder, f"peanut-port-{os.getuid()}-{key}.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PeanutError(
                f"another peanut is writing to {port}", "Wait until it has ended, then run the same command again."
            ) from None
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def opened(port: str, baud: int = CONSOLE_BAUD, timeout_s: float = 0.1) -> Iterator[Any]:
    """The port as pyserial has it, without resetting what is behind it. PeanutError if it cannot be opened."""
    serial = module()
    check(port)
    try:
        line = serial.serial_for_url(port, baudrate=baud, timeout=timeout_s, do_not_open=True)
        if has_reset_lines(port):
            line.dtr = line.rts = False  # both: with most boards' circuit that is "run", and not a reset
        line.open()
    except (serial.SerialException, OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.EBUSY, errno.EAGAIN) or "lock" in str(error):
            raise busy(port) from None
        raise PeanutError(f"{port} cannot be opened: {error}", "Is the board still there?") from None
    try:
        yield line
    finally:
        line.close()


def reset(line: Any) -> None:
    """Let the board on an open port start from its flash, by the port's reset line."""
    line.rts = True  # EN low; DTR stays off, so BOOT is not pressed
    time.sleep(RESET_S)
    line.rts = False
