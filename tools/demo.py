"""`make demo`: a gateway, two greenhouses and a car here, the way into the phone app, and a table of what they do.

Rule: everything in it is the real thing, run the way a user runs it: `peanut` makes the fleet, `peanutd` serves it, the
firmware runs on MicroPython's unix port, and the table is one more MQTT client with the operator's certificate. A fleet
home and a gateway.toml that are there are taken as they are; what was started is ended, whatever ends the demo.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import segno
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tools.fleet import FleetError, Node

BIN = Path(sys.executable).parent
GREENHOUSES = ("peanut", "tomato")
VEHICLE = "PEANUTDEM00000001"
NODES = {**dict.fromkeys(GREENHOUSES, "greenhouse"), VEHICLE: "vehicle"}
START_S = 20.0  # how long the gateway may take to listen
TABLE_WIDTH = 120  # columns of a terminal on which the table has room to breathe
PLAIN_LINE_S = 2.0  # without a terminal: at most a line a greenhouse in this time
GATEWAY_TOML = """\
# Made by `make demo`: nodes on this machine only. For boards in the field, let it listen on every address:
# "0.0.0.0:8883". The app is for the phones of this network as well.
[listen]
mqtts = "127.0.0.1:8883"
https = "0.0.0.0:8443"
# Without a certificate, for a browser on this PC only.
[https]
local = "127.0.0.1:8442"
"""
APP_USER = "operator"
FIRST_PASSWORD = "demo.pass"  # in the fleet home, 0600: what APP_USER's password was at first
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another


class DemoError(Exception):
    """The demo cannot run; the text says what to do."""


@dataclass
class House:
    """What the table knows of a greenhouse: its latest reports."""

    status: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    readings: dict[str, list[Any]] = field(default_factory=dict)
    ack: str = ""

    def row(self) -> tuple[str, ...]:
        """Set point, temperature, heater, vent, online, last acknowledgement, reason; as a person reads them."""
        temperature = self.readings.get("temperature", [self.state.get("temperature")])[0]
        return (
            degrees(self.state.get("setpoint")),
            degrees(temperature),
            switch(self.state.get("heater"), "on", "off"),
            switch(self.state.get("vent"), "open", "closed"),
            str(self.status.get("state", "not seen yet")),
            self.ack or "-",
            str(self.state.get("reason", "-")),
        )


COLUMNS = ("node", "set point", "temperature", "heater", "vent", "status", "last ack", "why")


def degrees(value: object) -> str:
    """`15.0 °C`, or a dash."""
    return f"{value:.1f} °C" if isinstance(value, int | float) and not isinstance(value, bool) else "-"


def switch(value: object, on: str, off: str) -> str:
    """The word for a state that may be unknown."""
    return "-" if value is None else on if value else off


class Board:
    """The houses, kept current by an MQTT client's thread."""

    def __init__(self) -> None:
        self.houses = {name: House() for name in NODES}
        self.lock = threading.Lock()
        self.connected = threading.Event()

    def take(self, topic: str, payload: bytes | bytearray) -> None:
        """One report of a node. Others' topics and what is not JSON are passed over."""
        *_, name, leaf = topic.split("/")
        if name not in self.houses:
            return
        try:
            report = json.loads(payload)
        except ValueError:
            return
        with self.lock:
            house = self.houses[name]
            if leaf == "status":
                house.status = report
            elif leaf == "state":
                house.state = report
            elif leaf == "telemetry":
                house.readings = report.get("readings", house.readings)
            elif leaf == "ack":
                why = report.get("why")
                house.ack = f"{report.get('cmd')}: {report.get('stage')}" + (f" ({why})" if why else "")

    def rows(self) -> list[tuple[str, ...]]:
        """A row a greenhouse."""
        with self.lock:
            return [(name, *house.row()) for name, house in self.houses.items()]


def watch(home: Path, port: int, board: Board) -> Client:
    """An MQTT client with the operator's certificate that feeds the board."""
    keys = operator_keys(home)
    client = Client(CallbackAPIVersion.VERSION2, client_id=f"demo-{secrets.token_hex(4)}")
    client.tls_set(str(keys / "ca.crt"), str(keys / "operator.crt"), str(keys / "operator.key"))

    def on_connect(
        client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if not reason.is_failure:
            reports = ("status", "state", "telemetry", "ack")
            client.subscribe([(f"{root}/+/{report}", 1) for root in ("/plant", "vin") for report in reports])
            board.connected.set()

    def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
        board.take(message.topic, message.payload)

    client.on_connect = on_connect
    client.on_message = on_message
    client.connect("127.0.0.1", port, keepalive=30)
    client.loop_start()
    return client


def operator_keys(home: Path) -> Path:
    """The folder of the operator's certificate; the first account there is."""
    accounts = sorted(path for path in (home / "operators").glob("*") if (path / "operator.crt").exists())
    if not accounts:
        raise DemoError(f"{home} has no operator account. Make one: peanut --home {home} operator add operator")
    return next((path for path in accounts if path.name == "operator"), accounts[0])


def peanut(home: Path, *arguments: str) -> None:
    """Runs the operator's command line; its words are shown only when it fails."""
    done = subprocess.run(
        [BIN / "peanut", "--home", home, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise DemoError(f"peanut {' '.join(arguments)} failed:\n{done.stderr or done.stdout}")


def prepare(home: Path) -> None:
    """Makes the fleet home where there is none."""
    if not (home / "fleet.toml").exists():
        print(f"making a fleet in {home}", flush=True)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (home / "gateway.toml").exists():
            (home / "gateway.toml").write_text(GATEWAY_TOML)
        hosts = ["localhost", "127.0.0.1", *filter(None, [own_address()])]
        peanut(home, "init", *(word for host in hosts for word in ("--host", host)), "--generate-passphrase")
        print(f"the root key's passphrase is in {home / 'ca' / 'root.pass'}: move both away before you use this fleet")


def own_address() -> str | None:
    """This machine's address in its network, None where it has none. Nothing is sent for it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))
        found = str(asking.getsockname()[0])
        return None if found.startswith(("127.", "0.")) else found
    return None


def first_password(home: Path) -> str | None:
    """Makes the app's first user in a fleet without users; his password at first, None if others made the users."""
    path, users = home / FIRST_PASSWORD, home / "users.json"
    if not users.exists():
        words = ["".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(3)]
        path.touch(mode=0o600)
        path.write_text("-".join(words) + "\n")
        peanut(home, "user", "add", APP_USER, "--role", "admin", "--password-file", str(path))
    return path.read_text().strip() if path.exists() else None


def app_url(address: str, hosts: list[str]) -> str:
    """Where the app is, for the phones of this network if the gateway listens to them under a name of its certificate.

    address: as peanutd says it (`0.0.0.0:8443`).
    """
    where, _, port = address.rpartition(":")
    here = own_address()
    outside = where in ("0.0.0.0", "[::]") and here in hosts
    return f"https://{here if outside else 'localhost'}:{port}/"


def qr_code(text: str) -> list[str]:
    """A QR code as lines of half blocks, light on dark as cameras read it from a terminal."""
    rows = [[bool(dot) for dot in row] for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    rows += [[False] * len(rows[0])] * (len(rows) % 2)
    shapes = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
    return [
        "  " + "".join(shapes[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]


def way_in(home: Path, address: str | None, password: str | None, *, drawn: bool) -> list[str]:
    """The lines that lead into the app: its address, the code of it if there is a terminal, who may sign in."""
    if address is None:
        return ["The app is off: gateway.toml names listeners, and no https among them."]
    with (home / "fleet.toml").open("rb") as file:
        url = app_url(address, [str(host) for host in tomllib.load(file).get("hosts", [])])
    who = f"as {APP_USER}, first password {password}" if password else "with a user of yours (peanut user list)"
    settings = home / "gateway.toml"
    local = tomllib.loads(settings.read_text()).get("https", {}).get("local", "") if settings.exists() else ""
    here = f"on this PC http://localhost:{local.rpartition(':')[2]}/, " if local else ""
    return [
        f"The app: {here}{url}  Sign in {who}.",
        *(qr_code(url) if drawn else []),
        "A phone does not know this gateway yet and warns: go on, and see Trusted HTTPS in the app.",
        "",
    ]


def simulated(home: Path, port: int) -> list[Path]:
    """The bundles of the nodes that are simulated, made where they are missing.

    They live on this machine, so that is where they look for the gateway, at the port that it has today.
    """
    with contextlib.closing(sqlite3.connect(home / "ledger.db")) as ledger:
        boards = dict(ledger.execute("SELECT name, board FROM device").fetchall())
    bundles = []
    for name, kind in NODES.items():
        if boards.get(name, "sim") != "sim":
            print(f"{name} is a real one: not simulated", flush=True)
            continue
        if name not in boards:
            print(f"adding {kind} {name}", flush=True)
        here = ("--set", "gateway.host=localhost", "--set", f"gateway.port={port}")
        peanut(home, "device", "add", name, "--kind", kind, "--board", "sim", *here)
        bundles.append(home / "devices" / name)
    return bundles


@contextlib.contextmanager
def gateway(home: Path) -> Iterator[tuple[int, str | None, subprocess.Popen[bytes]]]:
    """Runs peanutd; yields the port of its mutual TLS listener, the app's address, and the process; ends it then."""
    log = home / "peanutd.log"
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        process = subprocess.Popen(
            [BIN / "peanutd", "--home", home], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield *listening(process, log, start), process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listening(process: subprocess.Popen[bytes], log: Path, start: int) -> tuple[int, str | None]:
    """What peanutd says of itself: the port for nodes, the app's address. DemoError with its last words if it ends."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        text = log.read_bytes()[start:].decode(errors="replace")
        if found := re.search(r"listening mqtts \S*:(\d+)", text):
            app = re.search(r"listening https (\S+:\d+)", text)
            return int(found.group(1)), app.group(1) if app else None
        if process.poll() is not None:
            raise DemoError(f"the gateway did not start:\n{text.strip()}")
        time.sleep(0.05)
    raise DemoError(f"the gateway does not listen after {START_S:.0f} s; see {log}")


def advice(home: Path, port: int) -> list[str]:
    """The commands to try, ready to be copied."""

    def shown(path: Path) -> str:
        return shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))

    default = home == Path("fleet").absolute() and "PEANUT_HOME" not in os.environ
    command = shown(BIN / "peanut") + ("" if default else f" --home {shown(home)}")
    folder = operator_keys(home)
    keys = " ".join(
        f"--{option} {shown(folder / name)}"
        for option, name in (("cafile", "ca.crt"), ("cert", "operator.crt"), ("key", "operator.key"))
    )
    return [
        f"The gateway listens on 127.0.0.1:{port}. Try this in a second terminal:",
        f"  {command} send peanut UpdateTemperature 15",
        f"  {command} send {VEHICLE} unlock",
        "or the first with a client that is not ours:",
        f"  mosquitto_pub -h localhost -p {port} {keys} -q 1 -t /plant/peanut/UpdateTemperature -m temperature:15",
        f"  mosquitto_sub -h localhost -p {port} {keys} -t '/plant/+/telemetry' -v",
        "Ctrl-C ends it all.",
    ]


def table(rows: list[tuple[str, ...]], width: int) -> Table:
    """The table; on a narrow terminal the sentences stand below it."""
    wide = width >= TABLE_WIDTH
    words = None if wide else "\n".join(f"{row[0]}: {row[-1]}; last ack {row[-2]}" for row in rows)
    made = Table(*(COLUMNS if wide else COLUMNS[:-2]), caption=words, caption_justify="left")
    for row in rows:
        made.add_row(*(row if wide else row[:-2]))
    return made


def show(board: Board, lines: list[str], over: Callable[[float], bool]) -> None:
    """The live table on a terminal, elsewhere plain lines. `over` waits so many seconds, or for the end."""
    console = Console()
    if console.is_terminal:
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        with Live(console=console, refresh_per_second=4) as live:
            while not over(0.25):
                live.update(table(board.rows(), console.width))
        return
    for line in lines:
        print(line, flush=True)
    said: dict[str, tuple[str, ...]] = {}
    while not over(PLAIN_LINE_S):
        for row in board.rows():
            if said.get(row[0]) != row:
                said[row[0]] = row
                print("  ".join(f"{column}: {cell}" for column, cell in zip(COLUMNS, row, strict=True)), flush=True)


def main() -> int:
    """Runs the demo until Ctrl-C, SIGTERM or DEMO_SECONDS. Exit status 0; 1 when a part could not be started."""
    home = Path(os.environ.get("PEANUT_HOME") or "fleet").absolute()
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.set())
    try:
        seconds = float(os.environ.get("DEMO_SECONDS") or 0)
    except ValueError:
        print("demo: DEMO_SECONDS is a number of seconds", file=sys.stderr)
        return 2
    if seconds:
        timer = threading.Timer(seconds, ending.set)
        timer.daemon = True
        timer.start()
    try:
        with contextlib.ExitStack() as stack:
            prepare(home)
            password = first_password(home)
            port, app, process = stack.enter_context(gateway(home))
            nodes: list[Node] = []
            for bundle in simulated(home, port):
                node = Node(bundle, home / "nodes" / bundle.name)
                stack.callback(node.close)
                node.start()
                stack.callback(node.stop)
                nodes.append(node)
            board = Board()
            client = watch(home, port, board)
            stack.callback(client.loop_stop)
            stack.callback(client.disconnect)
            if not board.connected.wait(START_S):
                raise DemoError(f"the gateway did not let the operator in; see {home / 'peanutd.log'}")

            def over(seconds: float) -> bool:
                return ending.wait(seconds) or process.poll() is not None

            lines = way_in(home, app, password, drawn=sys.stdout.isatty()) + advice(home, port)
            show(board, lines, over)
            if not ending.is_set():
                raise DemoError(f"the gateway has ended by itself; its last words are in {home / 'peanutd.log'}")
            print("ending: gateway and nodes", flush=True)
    except (DemoError, FleetError, OSError, sqlite3.Error) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
