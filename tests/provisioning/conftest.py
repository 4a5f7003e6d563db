"""Fixtures: a fleet home made once by the program itself and copied for each test, and two ways to run `peanut`.

Rule: whatever a test starts, it stops; each test has a home of its own.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from peanut.__main__ import main
from peanut.home import Home
from tests.heard import transcript
from tools.virtual_board import VirtualBoard

from .gateway import Mosquitto

Run = Callable[..., Result]
BOARDS = Path(__file__).parents[2] / "boards"
WIFI_PASSWORD = "correct horse 7 battery"


def invoke(home: Path, *arguments: str, **options: object) -> Result:
    """`peanut` in this process, with standard output and standard error apart and no terminal."""
    result = CliRunner().invoke(main, ["--home", str(home), *arguments], **options)  # type: ignore[arg-type]
    transcript.hear(result.output)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PEANUT_HOME", "PEANUT_BOARDS"):
        monkeypatch.delenv(name, raising=False)
    # Where ports are locked: many tests at once name the same port, at which nothing listens.
    runtime = tmp_path.with_name(f"{tmp_path.name}-run")
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet home with two greenhouses and a vehicle; not to be written to."""
    home = tmp_path_factory.mktemp("made") / "fleet"
    assert invoke(home, "init", "--host", "gateway.local", "--host", "192.168.1.20").exit_code == 0
    for name in ("peanut", "tomato"):
        assert invoke(home, "device", "add", name, "--kind", "greenhouse").exit_code == 0
    assert invoke(home, "device", "add", "1M8GDM9AXKP042788", "--kind", "vehicle").exit_code == 0
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Home:
    """A copy of that home, for one test."""
    shutil.copytree(made, tmp_path / "fleet")
    return Home(tmp_path / "fleet")


@pytest.fixture
def run(home: Home) -> Run:
    """`run("device", "list")` in this process on the test's home."""
    return lambda *arguments, **options: invoke(home.path, *arguments, **options)


def _hear_signals() -> None:
    """A suite that runs under nohup or in the background ignores these, and so would what it starts."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def start(home: Path, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    """`peanut` as a process of its own, without a terminal."""
    command = [sys.executable, "-m", "peanut", "--home", str(home), *arguments]
    environment = {k: v for k, v in os.environ.items() if k not in ("PEANUT_HOME", "PEANUT_BOARDS")}
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=_hear_signals,
        **options,  # type: ignore[call-overload]
    )


def tree(path: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `path` with its mode and bytes, but for SQLite's side files and the lock."""
    return {
        str(p.relative_to(path)): (p.stat().st_mode & 0o7777, p.read_bytes())
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name != ".lock" and not p.name.startswith("ledger.db-")
    }


@pytest.fixture(scope="session")
def mosquitto(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A foreign gateway that trusts the fleet `made`, mutual TLS only; its log is checked by whoever wants to."""
    broker = Mosquitto(made, tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def board() -> Iterator[VirtualBoard]:
    with VirtualBoard("esp32") as one:
        yield one


@pytest.fixture(scope="module")
def boards(board: VirtualBoard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board files of the house, with the image that boots on the virtual board pinned in place of MicroPython's."""
    folder = tmp_path_factory.mktemp("boards")
    for name in ("esp32-devkitc", "esp32-s3-devkitc-1"):
        (folder / name).mkdir()
        text = (BOARDS / name / "board.toml").read_text()
        pinned = hashlib.sha256(board.image().read_bytes()).hexdigest()
        lines = [f'sha256 = "{pinned}"' if line.startswith("sha256") else line for line in text.splitlines()]
        (folder / name / "board.toml").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def fleet(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet that knows a Wi-Fi network, and a greenhouse on a board with pins."""
    home = tmp_path_factory.mktemp("flash") / "fleet"
    shutil.copytree(made, home)
    secret = home.parent / "password"
    secret.write_text(WIFI_PASSWORD + "\n")
    assert invoke(home, "wifi", "add", "Glass House", "--password-file", str(secret), "--country", "de").exit_code == 0
    added = invoke(home, "device", "add", "leek", "--kind", "greenhouse", "--board", "esp32-devkitc")
    assert added.exit_code == 0
    return home
