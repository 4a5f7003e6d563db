"""Ten thousand nodes on one gateway: commands and their answers while a thousand report, while Python is busy, and
while all come back after a restart.

    .venv/bin/python -m tools.bench.fleet                       ten thousand, about four minutes
    .venv/bin/python -m tools.bench.fleet --nodes 1000 --seconds 5
    .venv/bin/python -m tools.bench.fleet --soak 3600           an hour of it: nothing may grow

The rule it keeps: the gateway is peanutd with its own limits, TLS, rules, history and store; a node is a certificate of
the fleet's own, an address and the firmware's way of coming back (fleet.c). Every report and every answer is checked.
"""

import argparse
import contextlib
import datetime
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tools.ports import free_port

from . import pki, report
from .brokers import HOST, ROOT, Peanutd, stop
from .generator import BUILD, WIRE, GeneratorError, chosen, compile_c, openssl

SOURCES = [Path(__file__).with_name("fleet.c"), *WIRE]
RESULTS = BUILD / "fleet.jsonl"
TABLE = BUILD / "fleet.txt"
START_S = 60.0
STOP_S = 30.0
STEP_S = 0.05
SOAK_STEP_S = 300.0
BACK_S = 120.0  # all nodes are back within, after a restart
ANSWER_MS = 50.0  # 99 of 100 commands are answered within
ANSWER_BACK_MS = 200.0  # those to nodes that are already back
GROWTH = 0.05  # of its memory that the gateway may gain in the second half of a soak
MORE_FILES = 16  # that it may have open at the end of it: what the store and the history open now and then
REPORTERS = 1000
COMMANDS = 50  # a second


class FleetError(Exception):
    """What could not be measured, and why."""


def make_certificates(home: Path, nodes: int) -> Path:
    """Certificates of the nodes, in one PEM file, and their rows in the ledger. All have the operator's key."""
    issuing = x509.load_pem_x509_certificate((home / "ca" / "issuing.crt").read_bytes())
    issuer = serialization.load_pem_private_key((home / "ca" / "issuing.key").read_bytes(), None)
    operator = serialization.load_pem_private_key((home / "operators" / "operator" / "operator.key").read_bytes(), None)
    assert isinstance(issuer, ec.EllipticCurvePrivateKey)
    assert isinstance(operator, ec.EllipticCurvePrivateKey)
    signer = pki.Issuer(issuing, issuer)
    rows, text = [], []
    for number in range(nodes):
        name = f"n{number:05}"
        made = pki.client(name, f"peanut:plant/{name}", signer, operator)
        text.append(made.certificate.public_bytes(serialization.Encoding.PEM))
        begin, end = (
            int(at.replace(tzinfo=datetime.UTC).timestamp())
            for at in (made.certificate.not_valid_before_utc, made.certificate.not_valid_after_utc)
        )
        rows.append((name, "greenhouse", "sim", f"{made.certificate.serial_number:x}", begin, end, begin))
    with sqlite3.connect(home / "ledger.db") as ledger:
        ledger.executemany(
            "INSERT INTO device (name, kind, board, serial, not_before, not_after, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
    path = home.parent / "nodes.pem"
    path.write_bytes(b"".join(text))
    return path


def _cpu(pid: int) -> float:
    """Seconds of a core that a process has used, in steps of a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _machine_cpu() -> float:
    """The same of all processes, what the host has taken for itself included."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Gateway:
    """peanutd in `home`, started and stopped as often as is needed."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        (home / "gateway.toml").write_text(f'[listen]\nmqtts = "{HOST}:{port}"\ntime = ""\nhttps = ""\nmetrics = ""\n')

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it listens."""
        log = self.home.parent / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.bench.busy", "--home", str(self.home)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        end = time.monotonic() + START_S
        while self.port not in self._listening():
            if self._process.poll() is not None or time.monotonic() > end:
                raise FleetError(f"the gateway does not listen:\n{log.read_text()[-2000:]}")
            time.sleep(STEP_S)

    @staticmethod
    def _listening() -> set[int]:
        """Ports on which anybody listens: a connection to try it would be one more client."""
        sockets = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return {int(address.partition(":")[2], 16) for _, address, _, state, *_ in sockets if state == "0A"}

    def toggle_busy(self) -> None:
        """Python is busy from now on, or no longer."""
        os.kill(self.pid, signal.SIGUSR2)

    def stop(self) -> None:
        """In order; at once where that takes too long."""
        if self._process is not None:
            stop(self._process, STOP_S)
            self._process = None

    def memory(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise FleetError("the gateway has no memory")

    def files(self) -> int:
        """Open files, sockets among them."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def disk(self) -> int:
        """Bytes of its fleet home. What goes while they are counted is none."""
        size = 0
        for path in self.home.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size if path.is_file() else 0
        return size

    def cpu(self) -> float:
        return _cpu(self.pid)


class Nodes:
    """The generator, which does what it is told, a line at a time."""

    def __init__(self, program: Path, gateway: Gateway, certificates: Path, reporters: int, commands: int) -> None:
        operator = gateway.home / "operators" / "operator"
        options: dict[str, object] = {
            "port": gateway.port,
            "ca": operator / "ca.crt",
            "cert": operator / "operator.crt",
            "key": operator / "operator.key",
            "certs": certificates,
            "reporters": reporters,
            "commands": commands,
        }
        command = [str(program), *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def cpu(self) -> float:
        return _cpu(self._process.pid)

    def tell(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise FleetError(self._process.stderr.read().strip() or "the nodes have ended")
        said: dict[str, Any] = json.loads(line)
        return said

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def build(directory: Path = BUILD) -> Path:
    """Builds the generator. Raises GeneratorError."""
    complaint = compile_c([*SOURCES, *chosen()], directory / "fleet", *openssl())
    if complaint is not None:
        raise GeneratorError(f"{SOURCES[0].name} does not compile:\n{complaint}")
    return directory / "fleet"


@contextlib.contextmanager
def home_of(nodes: int) -> Iterator[tuple[Gateway, Path]]:
    """A fleet of so many nodes, its gateway not yet started, and their certificates; all is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-fleet-") as directory:
        home = Path(directory) / "home"
        Peanutd.init(home)
        certificates = make_certificates(home, nodes)
        gateway = Gateway(home, free_port(HOST))
        try:
            yield gateway, certificates
        finally:
            gateway.stop()


def _phase(nodes: Nodes, gateway: Gateway, order: str, label: str) -> dict[str, Any]:
    def used() -> tuple[float, float, float]:
        return gateway.cpu(), _machine_cpu() - gateway.cpu() - nodes.cpu(), time.monotonic()

    before = used()
    nodes.tell(order)
    said = nodes.hear()
    ours, others, seconds = (now - then for now, then in zip(used(), before, strict=True))
    return said | {
        "label": label,
        "gateway_cpu": round(ours / seconds, 3),
        "others": round(max(0.0, others / seconds), 3),
        "gateway_bytes": gateway.memory(),
        "gateway_files": gateway.files(),
        "gateway_disk": gateway.disk(),
    }


def run(program: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What each phase found, as soon as it is over."""
    with home_of(arguments.nodes) as (gateway, certificates):
        gateway.start()
        nodes = Nodes(program, gateway, certificates, arguments.reporters, arguments.commands)
        try:
            empty = gateway.memory()
            came = _phase(nodes, gateway, "connect", "all come in")
            yield came | {"bytes_per_node": round((came["gateway_bytes"] - empty) / arguments.nodes)}
            yield _phase(nodes, gateway, f"steady {arguments.seconds}", "reports and commands")
            gateway.toggle_busy()
            yield _phase(nodes, gateway, f"steady {arguments.seconds}", "the same, Python busy")
            gateway.toggle_busy()
            if arguments.soak:
                yield from _soak(nodes, gateway, arguments.soak)
            nodes.tell(f"recover {BACK_S}")
            nodes.hear()
            gateway.stop()
            gateway.start()
            yield nodes.hear() | {"label": "the gateway restarts", "gateway_bytes": gateway.memory()}
            yield _phase(nodes, gateway, f"steady {arguments.seconds}", "reports and commands, after it")
        finally:
            nodes.end()


def _soak(nodes: Nodes, gateway: Gateway, seconds: float) -> Iterator[dict[str, Any]]:
    """Steady phases, one after the other; at last what has grown from the middle of them to the end."""
    steps = max(2, round(seconds / SOAK_STEP_S))
    found = []
    for step in range(steps):
        found.append(_phase(nodes, gateway, f"steady {seconds / steps}", f"soak, {step + 1} of {steps}"))
        yield found[-1]
    middle, end = found[steps // 2 - 1], found[-1]
    reports = sum(said["reports"] for said in found[steps // 2 :])
    yield {
        "phase": "growth",
        "label": "second half of the soak",
        "growth": round(end["gateway_bytes"] / middle["gateway_bytes"] - 1, 4),
        "more_files": end["gateway_files"] - middle["gateway_files"],
        "disk_a_report": round((end["gateway_disk"] - middle["gateway_disk"]) / max(1, reports)),
    }


def faults(said: dict[str, Any]) -> list[str]:
    """What of a phase was wrong, or too slow for a goal, in words."""
    words = [f"{said[kind]} {kind}" for kind in ("lost", "unanswered", "doubled", "reordered") if said.get(kind)]
    most = {"steady": ANSWER_MS, "recover": ANSWER_BACK_MS}.get(said["phase"])
    if most is not None and said["p99_ms"] > most:
        words.append(f"p99 {said['p99_ms']:.0f} ms, not {most:.0f}")
    if said.get("growth", 0) > GROWTH:
        words.append(f"memory has grown by {said['growth']:.0%}")
    if said.get("more_files", 0) > MORE_FILES:
        words.append(f"{said['more_files']} more files are open")
    return words


def table(found: list[dict[str, Any]]) -> list[str]:
    """A line a phase."""
    header = ["phase", "seconds", "reports", "commands", "p50 ms", "p99 ms", "max ms", "gateway CPU", "MiB",
              "gen waits", "remarks"]  # fmt: skip
    rows = []
    for said in found:
        remarks = faults(said)
        if said["phase"] == "connect":
            remarks.append(f"{said['nodes']} nodes, {said['bytes_per_node'] / 1024:.1f} KiB each")
        if said["phase"] == "recover":
            remarks.append(
                f"all back; first after {said['first_back_s']:.1f} s, mean {said['mean_s']:.1f} s, "
                f"last {said['longest_s']:.1f} s, attempts at most {said['attempts']}"
            )
        if said.get("others", 0) > report.NOISE:
            remarks.append(f"noise: others took {said['others']:.0%} of a core")
        if said["phase"] == "growth":
            remarks.append(
                f"memory {said['growth']:+.1%}, open files {said['more_files']:+}, "
                f"{said['disk_a_report']} bytes of disk a report"
            )
        answers = [f"{said[key]:.2f}" if said.get("commands") else "-" for key in ("p50_ms", "p99_ms", "max_ms")]
        rows.append([
            said["label"],
            f"{said['seconds']:.1f}" if "seconds" in said else "-",
            str(said.get("reports", "-")),
            str(said.get("commands", "-")),
            *answers,
            f"{said['gateway_cpu']:.0%}" if "gateway_cpu" in said else "-",
            f"{said['gateway_bytes'] / 2**20:.1f}" if "gateway_bytes" in said else "-",
            f"{said['waiting']:.0%}" if "waiting" in said else "-",
            ", ".join(remarks),
        ])  # fmt: skip
    return report.align(header, rows, 1)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--nodes", type=int, default=10_000)
    add("--reporters", type=int, default=REPORTERS, help="nodes that report, each every second")
    add("--commands", type=int, default=COMMANDS, help="a second, to nodes at random")
    add("--seconds", type=float, default=15, help="of each steady phase")
    add("--soak", type=float, default=0, help="seconds more, in which nothing may grow")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs it. Exit status 1: something was lost, or a goal was missed, or it could not be measured."""
    arguments = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    context = report.machine([Peanutd.version()])
    found: list[dict[str, Any]] = []
    failure = ""
    try:
        for said in run(build(), arguments):
            found.append(said)
            print(
                f"{said['label']}: {', '.join(faults(said)) or 'well'} {json.dumps(said)}", file=sys.stderr, flush=True
            )
    except (FleetError, GeneratorError) as error:
        failure = str(error)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps({"machine": context, "found": found, "failure": failure}) + "\n")
    head = f"{context['date']}  {context['cpu']}, {context['cores']} cores, {', '.join(context['versions'])}"
    text = "\n".join([head, f"load before: {context['load_before']}", "", *(table(found) if found else []), failure])
    TABLE.write_text(f"{text.rstrip()}\n")
    print(text.rstrip())
    return 1 if failure or any(faults(said) for said in found) else 0


if __name__ == "__main__":
    sys.exit(main())
