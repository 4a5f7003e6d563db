"""Builds the load generator (load.c) and runs it against a broker.

The rule it keeps: what the generator cannot do (no TLS headers, a broken run) is said in words that name the remedy; a
figure that comes back is the generator's own, untouched.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .brokers import ROOT, Endpoint

SOURCE = Path(__file__).with_name("load.c")
BUILD = ROOT / "build" / "bench"
FLAGS = ["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
NO_COMPILER = "no C compiler: apt-get install gcc libc6-dev"
NO_TLS = "no OpenSSL headers, so no TLS rows: apt-get install libssl-dev"
RETAINED_TIMES = 4  # deliveries of a retained run: they cost so little that it would be over too soon
SPARSE_S = 5  # a sparse run is measured for so long, whatever else is asked for
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
    """One line of the table. `transport` is "plain" or "tls"."""

    scenario: str
    qos: int
    transport: str


@dataclass(frozen=True)
class Load:
    """How hard a case is driven.

    `clients` is the number of publishers, subscribers or pairs; `window` the messages a publisher may have in flight;
    `filters` what the subscribers of a wildcard run hold in all, `retained` the messages of a retained run and `queue`
    those of a drain run; `sparse` the pairs of a sparse run, each with a message a second; `messages` the deliveries
    measured; `seconds` ends the measuring earlier (a sparse run lasts SPARSE_S); `deadline` is that of the whole run.
    """

    messages: int
    clients: int = 50
    window: int = 4
    payload: int = 64
    idle_clients: int = 1000
    filters: int = 100_000
    retained: int = 10_000
    queue: int = 100_000
    sparse: int = 1000
    seconds: int = 10
    deadline: int = 60


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


def build(directory: Path = BUILD) -> Generator:
    """Builds the generator, without TLS where OpenSSL's headers are missing. Raises GeneratorError."""
    if compile_c([SOURCE], directory / "load", "-DWITH_TLS=1", "-lssl", "-lcrypto") is None:
        return Generator(directory / "load", tls=True)
    complaint = compile_c([SOURCE], directory / "load-plain", "-DWITH_TLS=0")
    if complaint is not None:
        raise GeneratorError(f"{SOURCE.name} does not compile:\n{complaint}")
    return Generator(directory / "load-plain", tls=False)


def run(generator: Generator, endpoint: Endpoint, case: Case, load: Load, core: int | None) -> dict[str, Any]:
    """Runs one case on `core` and returns what the generator measured. Raises GeneratorError with its reason."""
    options: dict[str, object] = {
        "port": endpoint.port,
        "broker": endpoint.pid,
        "scenario": case.scenario,
        "qos": case.qos,
        "publishers": load.sparse if case.scenario == "sparse" else load.clients,
        "subscribers": load.clients,
        "messages": _messages(case, load),
        "window": load.window,
        "payload": load.payload,
        "filters": load.filters,
        "retained": load.retained,
        "clients": load.idle_clients + load.idle_clients // 10,
        "base": load.idle_clients // 10,
        "seconds": SPARSE_S if case.scenario == "sparse" else load.seconds,
        "deadline": load.deadline,
    }
    if endpoint.credentials is not None:
        options |= {
            "ca": endpoint.credentials.ca,
            "cert": endpoint.credentials.certificate,
            "key": endpoint.credentials.key,
            "host": endpoint.credentials.host,
        }
    command = [str(generator.program)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=load.deadline + KILL_MARGIN_S,
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
        return load.sparse * SPARSE_S
    return load.messages * (RETAINED_TIMES if case.scenario == "retained" else 1)


def faults(figures: dict[str, Any]) -> list[str]:
    """What went wrong with messages in a run, in words; empty when every message came once, whole and in order."""
    kinds = ("lost", "duplicated", "reordered", "damaged", "unacknowledged")
    return [f"{figures[kind]} {kind}" for kind in kinds if figures[kind]]
