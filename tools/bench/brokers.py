"""The brokers under test: how each is configured, started on a free port of 127.0.0.1, and stopped.

The rule it keeps: a broker is started fresh for every run, pinned to its core before its first instruction, and gone
when the `with` block ends. To add a broker: a subclass of Broker and a line in BROKERS.
"""

import contextlib
import importlib.metadata
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.ports import free_port

from . import pki

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "build" / "bench"  # where brokers are looked for that are installed for the benchmark only
HOST = "127.0.0.1"
START_S = 20.0  # a broker must listen within
STOP_S = 10.0  # and be gone within, after SIGTERM
STEP_S = 0.01
SERVER_TLS = """[[listener]]
address = "{address}"
transport = "tls"
certificate = "none"
anonymous = true
"""
LOG_LINES = 15  # shown when it does not start


class BrokerError(Exception):
    """A broker that cannot be started or that did not live; the text says why and what to do."""


@dataclass(frozen=True)
class Credentials:
    """What a client of the TLS listener needs: PEM files, and the name the server's certificate must carry.

    Certificate and key are for mutual TLS.
    """

    ca: Path
    certificate: Path
    key: Path
    host: str = "localhost"


@dataclass(frozen=True)
class Endpoint:
    """A running broker."""

    pid: int
    port: int
    credentials: Credentials | None


class Broker(ABC):
    """One broker program. `directory` is its own, temporary, and outlives its runs."""

    name: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Why it cannot run here and what to do about it; None when it can."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Name and version, as the table shows them."""

    @abstractmethod
    def prepare(self, transport: str, port: int, sync: str) -> tuple[list[str], Credentials | None]:
        """Writes the configuration for `transport` ("plain", "tls", "server-tls"); returns command and client's part.

        `sync`, how what must not be lost is kept, is for brokers that have the choice.
        """

    @contextlib.contextmanager
    def running(self, transport: str, core: int | None, sync: str = "always") -> Iterator[Endpoint]:
        """Starts the broker on `core` (None: anywhere), waits until it listens, stops it at the end.

        Raises BrokerError with the tail of its log when it does not listen within START_S, or did not live to the end.
        """
        port = free_port(HOST)
        command, credentials = self.prepare(transport, port, sync)
        log = self.directory / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: _settle_in(core),
            )
        try:
            self._await_port(process, port, log)
            yield Endpoint(process.pid, port, credentials)
            if process.poll() is not None:
                raise BrokerError(f"{self.name} ended with status {process.returncode} during the run:\n{_tail(log)}")
        finally:
            stop(process, STOP_S)

    def _await_port(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        end = time.monotonic() + START_S
        while True:
            if process.poll() is not None:
                raise BrokerError(f"{self.name} ended with status {process.returncode} at start:\n{_tail(log)}")
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
                return
            if time.monotonic() > end:
                raise BrokerError(f"{self.name} does not listen on {HOST}:{port} after {START_S:.0f} s:\n{_tail(log)}")
            time.sleep(STEP_S)


def stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """In order; at once where that takes longer than so many seconds."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _settle_in(core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # of 10,000 connections; not every broker sees to it


class Mosquitto(Broker):
    """Eclipse mosquitto from the distribution: the yardstick, since everyone can install the same."""

    name = "mosquitto"

    @classmethod
    def _program(cls) -> str | None:
        return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

    @classmethod
    def missing(cls) -> str | None:
        return None if cls._program() else "not installed: apt-get install mosquitto"

    @classmethod
    def version(cls) -> str:
        program = cls._program()
        if program is None:
            return "mosquitto, not installed"
        text = subprocess.run([program, "-h"], capture_output=True, text=True, check=False, timeout=10).stdout
        return text.splitlines()[0].replace(" version ", " ") if text else "mosquitto, version unknown"

    def prepare(self, transport: str, port: int, sync: str) -> tuple[list[str], Credentials | None]:
        lines = [
            f"listener {port} {HOST}",
            "allow_anonymous true",
            "persistence false",
            "set_tcp_nodelay true",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            "sys_interval 0",
            "connection_messages false",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
        ]
        if os.geteuid() == 0:
            lines.insert(0, "user root")  # else it gives up root and cannot read its keys
        credentials = None
        if transport != "plain":
            certificates, credentials = _certificates(self.directory)
            lines += [
                f"cafile {certificates.authorities}",
                f"certfile {certificates.chain}",
                f"keyfile {certificates.server_key}",
                f"require_certificate {'true' if transport == 'tls' else 'false'}",
                "tls_version tlsv1.3",
            ]
        config = self.directory / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        return [str(self._program()), "-c", str(config)], credentials


class Peanutd(Broker):
    """The gateway daemon of this repository, from the environment that `make setup` makes."""

    name = "peanutd"
    driver = "native"
    _bin = Path(sys.executable).parent

    @classmethod
    def missing(cls) -> str | None:
        absent = [name for name in ("peanutd", "peanut") if not (cls._bin / name).exists()]
        return f"no {' and no '.join(absent)} beside {Path(sys.executable).name}: make setup" if absent else None

    @classmethod
    def version(cls) -> str:
        try:
            version = importlib.metadata.version("peanutd")
        except importlib.metadata.PackageNotFoundError:
            return "peanutd, not installed"
        git = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        )
        said = subprocess.run([str(cls._bin / "peanutd"), "--version"], capture_output=True, text=True, check=False)
        library = re.search(r"native loop: (OpenSSL [^ ]+)", said.stdout)  # it may have one of its own
        notes = [git.stdout.strip()] * (git.returncode == 0) + ([library[1]] if library else [])
        return f"peanutd {version}" + (f" ({', '.join(notes)})" if notes else "")

    @classmethod
    def init(cls, home: Path) -> None:
        """A fleet home. Raises BrokerError."""
        init = subprocess.run(
            [str(cls._bin / "peanut"), "--home", str(home), "init", "--host", "localhost"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if init.returncode != 0:
            raise BrokerError(f"`peanut init` ended with status {init.returncode}:\n{init.stderr.strip()}")

    def prepare(self, transport: str, port: int, sync: str) -> tuple[list[str], Credentials | None]:
        home = self.directory / "fleet"
        if not home.exists():
            self.init(home)
        for left in home.glob("store.db*"):  # of the run before
            left.unlink()
        plain = transport == "plain"
        (home / "gateway.toml").write_text(
            "[listen]\n"
            f'mqtt = "{f"{HOST}:{port}" if plain else ""}"\n'
            f'mqtts = "{f"{HOST}:{port}" if transport == "tls" else ""}"\n'
            'https = ""\n'
            'metrics = ""\n'
            "handshake_rate = 0\n"  # a run connects everybody at once; mosquitto does not pace either
            "accept_rate = 0\n"
            f'driver = "{self.driver}"\n'
            "[access]\n"
            f"anonymous = {'true' if plain else 'false'}\n"
            "[mqtt]\n"
            "max_connections_per_identity = 0\n"  # the clients over TLS are all the same operator
            "max_connections_per_address = 0\n"
            "max_memory = 0\n"
            "max_queued_messages = 1000000\n"  # of a drain run; mosquitto is given no limit either
            "max_queued_bytes = 1000000000\n"
            "max_subscriptions = 1000000\n"  # a wildcard run may give all to one client; mosquitto has no limit
            "[bans]\n"
            "connects = 0\n"  # client ids come again from run to run
            "[store]\n"
            f'sync = "{sync}"\n' + (SERVER_TLS.format(address=f"{HOST}:{port}") if transport == "server-tls" else "")
        )
        operator = home / "operators" / "operator"
        credentials = Credentials(operator / "ca.crt", operator / "operator.crt", operator / "operator.key")
        return [str(self._bin / "peanutd"), "--home", str(home)], None if plain else credentials


class PeanutdAsyncio(Peanutd):
    """The same with the driver that is Python's."""

    name = "peanutd-asyncio"
    driver = "asyncio"


class Nats(Broker):
    """nats-server, whose MQTT is a gateway to its own protocol; QoS 2 came with 2.10."""

    name = "nats"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("nats-server") else "not installed: apt-get install nats-server"

    @classmethod
    def version(cls) -> str:
        done = subprocess.run(["nats-server", "--version"], capture_output=True, text=True, check=False)
        return done.stdout.strip().replace(":", "")

    def prepare(self, transport: str, port: int, sync: str) -> tuple[list[str], Credentials | None]:
        store = self.directory / "jetstream"
        shutil.rmtree(store, ignore_errors=True)
        lines = [
            "server_name: bench",
            f'listen: "{HOST}:{free_port(HOST)}"',
            "max_connections: 100000",
            f'jetstream {{ store_dir: "{store}" }}',
            "mqtt {",
            f'  listen: "{HOST}:{port}"',
        ]
        credentials = None
        if transport != "plain":
            certificates, credentials = _certificates(self.directory)
            mutual = "true" if transport == "tls" else "false"
            lines.append(
                f'  tls {{ cert_file: "{certificates.chain}", key_file: "{certificates.server_key}", '
                f'ca_file: "{certificates.authorities}", verify: {mutual} }}'
            )
        config = self.directory / "nats.conf"
        config.write_text("\n".join([*lines, "}"]) + "\n")
        return ["nats-server", "-c", str(config)], credentials


class Aedes(Broker):
    """aedes, for Node, from npm."""

    name = "aedes"
    package = TOOLS / "node_modules" / "aedes"

    @classmethod
    def missing(cls) -> str | None:
        if not shutil.which("node"):
            return "no node: apt-get install nodejs npm"
        return None if cls.package.exists() else "not installed: npm install --prefix build/bench aedes"

    @classmethod
    def version(cls) -> str:
        return f"aedes {json.loads((cls.package / 'package.json').read_text())['version']}"

    def prepare(self, transport: str, port: int, sync: str) -> tuple[list[str], Credentials | None]:
        program = TOOLS / "aedes.mjs"  # beside node_modules, where Node looks for what is imported
        program.write_text(Path(__file__).with_name("aedes.mjs").read_text())
        command = ["node", str(program), str(port), HOST]
        if transport == "plain":
            return command, None
        certificates, credentials = _certificates(self.directory)
        files = [str(certificates.chain), str(certificates.server_key), str(certificates.authorities)]
        return [*command, *files, "mutual" if transport == "tls" else "server"], credentials


class Amqtt(Broker):
    """amqtt, for Python, in an environment of its own."""

    name = "amqtt"
    program = TOOLS / "amqtt" / "bin" / "amqtt"

    @classmethod
    def missing(cls) -> str | None:
        remedy = "python3 -m venv build/bench/amqtt && build/bench/amqtt/bin/pip install amqtt"
        return None if cls.program.exists() else f"not installed: {remedy}"

    @classmethod
    def version(cls) -> str:
        done = subprocess.run([str(cls.program), "--version"], capture_output=True, text=True, check=False)
        return f"amqtt {done.stdout.strip().rpartition(' ')[2]}"

    def prepare(self, transport: str, port: int, sync: str) -> tuple[list[str], Credentials | None]:
        listener: dict[str, Any] = {"type": "tcp", "bind": f"{HOST}:{port}", "max_connections": 100_000}
        credentials = None
        if transport != "plain":  # a listener with `cafile` asks for certificates and takes clients without, too
            certificates, credentials = _certificates(self.directory)
            listener |= {
                "ssl": True,
                "cafile": str(certificates.authorities),
                "certfile": str(certificates.chain),
                "keyfile": str(certificates.server_key),
            }
        everybody = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        config = self.directory / "amqtt.yaml"
        config.write_text(json.dumps({"listeners": {"default": listener}, "plugins": everybody}))  # JSON is YAML, too
        return [str(self.program), "-c", str(config)], credentials


def _certificates(directory: Path) -> tuple[pki.Pki, Credentials]:
    made = pki.make(directory)
    return made, Credentials(made.root, made.client, made.client_key)


BROKERS: dict[str, type[Broker]] = {
    each.name: each for each in (Mosquitto, Peanutd, PeanutdAsyncio, Nats, Amqtt, Aedes)
}
USUAL = tuple(name for name in BROKERS if name != PeanutdAsyncio.name)
"""Those that run where nobody says which."""


@contextlib.contextmanager
def workplace(name: str) -> Iterator[Broker]:
    """The broker called `name` with a directory of its own, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as directory:
        yield BROKERS[name](Path(directory))


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (its log is empty)"
