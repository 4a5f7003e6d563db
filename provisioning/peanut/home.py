"""The fleet home on disk: where things are, with which mode, and how they are written.

Rules: a file appears whole or not at all (temporary file in the same directory, then rename); a secret is 0600 from its
first byte on; a directory that holds one is 0700; whoever writes holds the lock.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from peanut.errors import PeanutError

SECRET = 0o600
PUBLIC = 0o644
PRIVATE_DIR = 0o700
LOCK_WAIT_S = 30.0  # how long a second `peanut` waits for the first
LOCK_POLL_S = 0.05


@dataclass(frozen=True)
class Home:
    """Paths of one fleet home; makes nothing by itself."""

    path: Path
    control: Path | None = None  # the gateway's control socket where it is not in the home: forwarded with ssh, say

    @property
    def ca(self) -> Path:
        return self.path / "ca"

    @property
    def gateway(self) -> Path:
        return self.path / "gateway"

    @property
    def operators(self) -> Path:
        return self.path / "operators"

    @property
    def devices(self) -> Path:
        return self.path / "devices"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.db"

    @property
    def users(self) -> Path:
        return self.path / "users.json"

    @property
    def revoked(self) -> Path:
        return self.path / "revoked.json"

    @property
    def fleet_toml(self) -> Path:
        return self.path / "fleet.toml"

    @property
    def gateway_toml(self) -> Path:
        return self.path / "gateway.toml"

    @property
    def wifi_toml(self) -> Path:
        return self.path / "wifi.toml"

    @property
    def updates(self) -> Path:
        return self.path / "updates"

    @property
    def images_toml(self) -> Path:
        return self.path / "images.toml"

    def operator(self, name: str) -> Path:
        """Directory of one operator; `name` has passed names.check_name."""
        return self.operators / name

    def device(self, name: str) -> Path:
        """Directory of one device bundle; `name` has passed names.check_device."""
        return self.devices / name

    def relative(self, path: Path) -> str:
        """`path` as an operator reads it: from the fleet home on."""
        return str(path.relative_to(self.path))

    def require(self) -> None:
        """Raise PeanutError unless `peanut init` has finished here."""
        if not (self.ca / "issuing.crt").exists() or not (self.ca / "root.crt").exists():
            raise PeanutError(
                f"there is no fleet at {self.path}",
                "Make one with `peanut init`, or say where it is with --home DIR or PEANUT_HOME.",
            )

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Hold the home alone; made with the home if there is none. Left-overs of a killed writer are swept.

        waiting: told once if another `peanut` is at work. Raises PeanutError after LOCK_WAIT_S seconds.
        """
        make_private_dir(self.path)
        fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, SECRET)
        try:
            deadline = time.monotonic() + LOCK_WAIT_S
            told = False
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise PeanutError(
                            f"another `peanut` has been at work in {self.path} for more than {LOCK_WAIT_S:.0f} s",
                            "Let it finish (it may be waiting for a passphrase), then try again.",
                        ) from None
                    if not told:
                        waiting("waiting for another `peanut` to finish")
                        told = True
                    time.sleep(LOCK_POLL_S)
            self._sweep()
            yield
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        # With the lock held nobody is writing, so every temporary file is what a killed writer left.
        for pattern in (
            ".*.tmp",
            "ca/.*.tmp",
            "gateway/.*.tmp",
            "operators/*/.*.tmp",
            "devices/*/.*.tmp",
            "devices/*/next/.*.tmp",
            "updates/.*.tmp",
        ):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)


def make_private_dir(path: Path) -> None:
    """Make `path` and its missing parents; those made are 0700. An existing directory keeps its mode."""
    if path.is_dir():
        return
    if path.parent != path:
        make_private_dir(path.parent)
    try:
        path.mkdir(mode=PRIVATE_DIR, exist_ok=True)
    except FileExistsError:
        raise PeanutError(f"{path} is in the way: not a directory", "Move it away, or choose another place.") from None


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Write `path` atomically with exactly `mode`; the directory is made if missing.

    The data is on disk when this returns. A failure leaves the old file, or none, and no temporary file; the OSError
    has `path` as its filename, which that of a failed write(2) has not by itself.
    """
    make_private_dir(path.parent)
    try:
        _write_file(path, data, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write_file(path: Path, data: bytes, mode: int) -> None:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, SECRET)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def mode_of(path: Path) -> int:
    """The permission bits of `path`."""
    return path.stat().st_mode & 0o7777


def resolve(option: Path | None, environment: str | None, control: str | None = None) -> Home:
    """--home, else $PEANUT_HOME, else ./fleet; an empty variable counts as not set. control: $PEANUT_CONTROL."""
    where = (option or Path(environment or "fleet")).absolute()
    return Home(where, Path(control).absolute() if control else None)
