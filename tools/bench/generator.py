"""Builds the load generator (load.c) and runs it against a broker.

The rule it keeps: what the generator cannot do (no TLS headers, a broken run) is said in words that name the remedy; a
figure that comes back is the generator's own, untouched.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .brokers import ROOT, Endpoint

SOURCE = Path(__file__).with_name("load.c")
WIRE = [SOURCE.with_name("wire.c"), SOURCE.with_name("wire.h")]
SOURCES = [SOURCE, *WIRE]
BUILD = ROOT / "build" / "bench"
FLAGS = ["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
NO_COMPILER = "no C compiler: apt-get install gcc libc6-dev"
NO_TLS = "no OpenSSL headers, so no TLS rows: apt-get install libssl-dev"
TIMES = {
    "retained": 4,
    "fan-out": 8,
}  # as many deliveries: they cost so little that it would be over too soon
CROWD_DEADLINE_S = 300  # of a run that is connecting and nothing else: 10,000 handshakes take their time
SILENT = ("storm", "idle")
KILL_MARGIN_S = 15.0  # the generator ends itself at its deadline; this stands behind that


class GeneratorError(Exception):
    """The generator could not be built, or a run failed; the text says why."""


@dataclass(frozen=True)
class Generator:
    """The compiled program, and whether it speaks TLS."""

    program: Path
    tls: bool


@dataclass(frozen=True)
class Case:
    """One line of the table.

    `transport` is "plain", "tls" (mutual) or "server-tls" (clients without certificates); `window` the messages that a
    publisher may have in flight; `payload` bytes of each; `sync` how peanutd keeps what must not be lost.
    """

    scenario: str
    qos: int = 0
    transport: str = "plain"
    window: int = 4
    payload: int = 64
    sync: str = "always"

    def __str__(self) -> str:
        words = [self.transport, self.scenario]
        if self.scenario not in SILENT:
            words.append(f"QoS {self.qos}")
        words += [f"x{self.window}"] * (self.window != 4) + [f"{self.payload} B"] * (self.payload != 64)
        return " ".join(words + [self.sync] * (self.sync != "always"))


@dataclass(frozen=True)
class Load:
    """How hard a case is driven.

    `clients` is the number of publishers of a fan-in, of publishers and of subscribers of a fan-out, of both together
    where each publisher has a subscriber of its own; `filters` what the subscribers of a wildcard run hold in all,
    `retained` the messages of a retained run and `queue` those of a drain run; `sparse` the clients of a sparse run
    (`sparse_tls` over TLS), of which half send a message a second for `sparse_s` seconds; `storm` and `idle_clients`
    the connections of those runs; `messages` the deliveries measured; `seconds` ends the measuring of the
    others earlier; `deadline` is that of the whole run.
    """

    messages: int
    clients: int = 100
    idle_clients: int = 1000
    storm: int = 1000
    filters: int = 100_000
    retained: int = 10_000
    queue: int = 100_000
    sparse: int = 2000
    sparse_tls: int = 1000
    sparse_s: int = 10
    seconds: int = 10
    deadline: int = 60

    def publishers(self, case: Case) -> int:
        """Publishers of a run."""
        if case.scenario == "sparse":
            return max(1, (self.sparse if case.transport == "plain" else self.sparse_tls) // 2)
        return self.clients if case.scenario in ("fan-in", "fan-out") else max(1, self.clients // 2)

    def connections(self, case: Case) -> int:
        """Connections that a storm or an idle run counts."""
        return self.storm if case.scenario == "storm" else self.idle_clients


def compile_c(sources: list[Path], program: Path, *flags: str) -> str | None:
    """Compiles when a source is newer than the program. Returns None, or the compiler's complaint.

    Raises GeneratorError when there is no compiler.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise GeneratorError(NO_COMPILER)
    if program.exists() and all(source.stat().st_mtime <= program.stat().st_mtime for source in sources):
        return None
    program.parent.mkdir(parents=True, exist_ok=True)
    new = program.with_suffix(f".{os.getpid()}")
    inputs = [str(source) for source in sources if source.suffix == ".c"]
    done = subprocess.run(
        [compiler, *FLAGS, *inputs, *flags, "-o", str(new)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return done.stderr
    new.replace(program)
    return None


def chosen() -> list[Path]:
    """The file that remembers which OpenSSL was chosen: with another one, all is to be built anew."""
    path = Path(sys.prefix) / "openssl"
    return [path] if path.exists() else []


def openssl() -> list[str]:
    """Flags for the OpenSSL that peanutd's native loop has here: the system's, or that of `make setup OPENSSL=…`."""
    prefix = "".join(path.read_text().strip() for path in chosen())
    if not prefix:
        return ["-DWITH_TLS=1", "-lssl", "-lcrypto"]
    lib = next((path for path in (Path(prefix, "lib"), Path(prefix, "lib64")) if (path / "libssl.a").exists()), None)
    if lib is None:
        raise GeneratorError(f"no libssl.a in {prefix}: make setup OPENSSL=system")
    return ["-DWITH_TLS=1", f"-I{prefix}/include", f"{lib}/libssl.a", f"{lib}/libcrypto.a", "-pthread"]


def build(directory: Path = BUILD) -> Generator:
    """Builds the generator, without TLS where OpenSSL's headers are missing. Raises GeneratorError."""
    if compile_c([*SOURCES, *chosen()], directory / "load", *openssl()) is None:
        return Generator(directory / "load", tls=True)
    complaint = compile_c(SOURCES, directory / "load-plain", "-DWITH_TLS=0")
    if complaint is not None:
        raise GeneratorError(f"{SOURCE.name} does not compile:\n{complaint}")
    return Generator(directory / "load-plain", tls=False)


def run(generator: Generator, endpoint: Endpoint, case: Case, load: Load, core: int | None) -> dict[str, Any]:
    """Runs one case on `core` and returns what the generator measured. Raises GeneratorError with its reason."""
    connections = load.connections(case)
    deadline = max(load.deadline, CROWD_DEADLINE_S) if case.scenario in SILENT else load.deadline
    options: dict[str, object] = {
        "port": endpoint.port,
        "broker": endpoint.pid,
        "scenario": case.scenario,
        "qos": case.qos,
        "publishers": load.publishers(case),
        "subscribers": load.clients,
        "messages": _messages(case, load),
        "window": case.window,
        "payload": case.payload,
        "filters": load.filters,
        "retained": load.retained,
        "clients": connections + connections // 10,
        "base": connections // 10,
        "seconds": load.sparse_s if case.scenario == "sparse" else load.seconds,
        "deadline": deadline,
    }
    if endpoint.credentials is not None:
        options |= {"ca": endpoint.credentials.ca, "host": endpoint.credentials.host}
        if case.transport == "tls":
            options |= {"cert": endpoint.credentials.certificate, "key": endpoint.credentials.key}
    command = [str(generator.program)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline + KILL_MARGIN_S,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
    except subprocess.TimeoutExpired as error:
        raise GeneratorError(f"the generator did not end within {error.timeout:.0f} s") from None
    if done.returncode != 0:
        raise GeneratorError(done.stderr.strip() or f"the generator ended with status {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _messages(case: Case, load: Load) -> int:
    if case.scenario == "drain":
        return load.queue
    if case.scenario == "sparse":
        return load.publishers(case) * load.sparse_s
    return load.messages * TIMES.get(case.scenario, 1)


def faults(figures: dict[str, Any]) -> list[str]:
    """What went wrong with messages in a run, in words; empty when every message came once, whole and in order."""
    kinds = ("lost", "duplicated", "reordered", "damaged", "unacknowledged")
    return [f"{figures[kind]} {kind}" for kind in kinds if figures[kind]]
