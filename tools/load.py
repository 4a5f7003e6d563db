"""What open apps cost: from a command to the node's word, without apps and with them, while the history grows.

    .venv/bin/python -m tools.load                           1,000 devices, 50 apps, a minute without them and one with
    .venv/bin/python -m tools.load --devices 100 --apps 5 --seconds 5 --json

The rule it keeps: the gateway is the real one, in a home of its own; devices are MQTT clients in one process of their
own that report every ten seconds and answer at once; apps, in another, are a live stream each, and a page of devices
and a curve of a greenhouse every ten seconds. All of them are on the same machine, and take their share of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import httpx

from peanutd._core import Decoder, encode
from tools.ports import free_port

PERIOD: Final = 10.0
"""Seconds from report to report, and from page to page of an app."""
WINDOWS: Final = 15
"""Apps of one user: the gateway keeps twenty streams for each."""
PASSWORD: Final = "a load of apples"
VERSION: Final = 4
BIN: Final = Path(sys.executable).parent
CONTEXT: Final = multiprocessing.get_context("spawn")
PATIENCE: Final = 60.0
"""Seconds that the gateway, the devices and the apps may each take to be there: all of it ends within eight minutes."""


# --- devices, in a process of their own -------------------------------------------------------------------------------


class Device(asyncio.Protocol):
    """A greenhouse that does as it is told."""

    def __init__(self, name: str) -> None:
        self.root = f"/plant/{name}"
        self._name = name
        self._decoder = Decoder(VERSION)
        self._transport: asyncio.WriteTransport | None = None
        self._setpoint = 18.0
        self.ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        hello = {"type": "CONNECT", "version": VERSION, "client_id": self._name, "clean_start": True, "keep_alive": 0}
        self._send({**hello, "properties": [], "will": None, "username": None, "password": None})
        options = {"qos": 1, "no_local": False, "retain_as_published": False, "retain_handling": 0}
        filters = [{"filter": f"{self.root}/UpdateTemperature", **options}]
        self._send({"type": "SUBSCRIBE", "id": 1, "properties": [], "filters": filters})

    def data_received(self, data: bytes) -> None:
        for packet in self._decoder.feed(data):
            if packet["type"] == "SUBACK":
                self.ready = True
                self.say("status", {"state": "online", "kind": "greenhouse", "fw": "load"}, retain=True)
            elif packet["type"] == "PUBLISH":
                if packet["qos"]:
                    self._send({"type": "PUBACK", "id": packet["id"], "reason": 0, "properties": []})
                said = json.loads(packet["payload"])
                self._setpoint = said["temperature"]
                for stage in ("accepted", "done"):
                    self.say("ack", {"id": said["id"], "cmd": "UpdateTemperature", "stage": stage, "ts": time.time()})
                self.state()

    def report(self) -> None:
        """What a node says every ten seconds."""
        warmth = round(self._setpoint + random.uniform(-1, 1), 1)
        readings = {name: [warmth, "ok", 1] for name in ("temperature", "outside", "humidity", "soil")}
        self.say("telemetry", {"ts": int(time.time()), "tq": "ntp", "readings": readings})

    def state(self) -> None:
        found = {"setpoint": self._setpoint, "by": "order", "temperature": self._setpoint, "heater": False}
        self.say("state", {**found, "mode": "auto", "reason": "", "faults": [], "ts": int(time.time())}, retain=True)

    def say(self, leaf: str, said: dict[str, Any], *, retain: bool = False) -> None:
        payload = json.dumps(said, separators=(",", ":")).encode()
        packet = {"type": "PUBLISH", "dup": False, "qos": 0, "retain": retain, "topic": f"{self.root}/{leaf}"}
        self._send({**packet, "id": None, "payload": payload, "properties": []})

    def _send(self, packet: dict[str, Any]) -> None:
        assert self._transport is not None
        self._transport.write(encode(packet, VERSION))


def devices(port: int, names: list[str], ready: Event) -> None:
    """The process of the devices."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        made: list[Device] = []
        for name in names:
            _, device = await loop.create_connection(lambda name=name: Device(name), "127.0.0.1", port)  # type: ignore[misc]
            made.append(device)
        while not all(device.ready for device in made):
            await asyncio.sleep(0.05)
        for device in made:
            device.state()
        ready.set()
        while True:
            for number, device in enumerate(made):
                device.report()
                if number % 25 == 24:
                    await asyncio.sleep(PERIOD * 25 / len(made))
            await asyncio.sleep(0.01)

    with suppress(ConnectionError, RuntimeError):
        asyncio.run(run())


# --- apps and the one who measures ------------------------------------------------------------------------------------


class Api:
    """Somebody who has signed in."""

    def __init__(self, port: int, ca: Path) -> None:
        context = ssl.create_default_context(cafile=ca)
        self.client = httpx.AsyncClient(base_url=f"https://localhost:{port}/api/v1", verify=context, timeout=60)

    async def sign_in(self, user: int) -> None:
        answer = await self.client.post("/session", json={"user": f"load{user}", "password": PASSWORD})
        answer.raise_for_status()
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


async def app(api: Api, names: list[str], counts: dict[str, int]) -> None:
    """An app that is open."""

    async def stream() -> None:
        async with api.client.stream("GET", "/events") as answer:
            async for chunk in answer.aiter_bytes():
                counts["news"] += chunk.count(b"\n\n")

    async def pages() -> None:
        await asyncio.sleep(random.uniform(0, PERIOD))
        while True:
            await api.client.get("/devices", params={"limit": 100})
            await api.client.get(f"/devices/{random.choice(names)}/history", params={"quantity": "temperature"})
            counts["pages"] += 2
            await asyncio.sleep(PERIOD)

    await asyncio.gather(stream(), pages())


async def measure(api: Api, names: list[str], seconds: float) -> dict[str, float]:
    """Milliseconds from a command to the node's word, one command after the other."""
    taken: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        body = {"command": "UpdateTemperature", "args": {"temperature": random.randint(10, 25)}}
        begun = time.perf_counter()
        answer = await api.client.post(f"/devices/{random.choice(names)}/commands", json=body)
        taken.append(1000 * (time.perf_counter() - begun))
        if answer.status_code != 200:
            raise SystemExit(f"a command has failed: {answer.text}")
        await asyncio.sleep(0.05)
    taken.sort()
    found = {"commands": len(taken), "p50_ms": statistics.median(taken), "p99_ms": taken[int(len(taken) * 0.99)]}
    return {name: round(value, 1) for name, value in found.items()}


def apps(port: int, ca: Path, names: list[str], count: int, open_: Event, results: Queue[Any]) -> None:
    """The process of the apps, until it is told SIGTERM; then it says what they have got."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    counts = {"news": 0, "pages": 0}

    async def run() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, over.set)
        made = [Api(port, ca) for _ in range(count)]
        for number, one in enumerate(made):
            first = made[number // WINDOWS * WINDOWS]
            if one is first:
                await one.sign_in(number // WINDOWS)
            one.client.headers["Authorization"] = first.client.headers["Authorization"]
        tasks = [asyncio.create_task(app(one, names, counts)) for one in made]
        await asyncio.sleep(1)
        open_.set()
        await over.wait()
        failed = [task.exception() for task in tasks if task.done()]
        results.put({**counts, "failed": [repr(error) for error in failed]})
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def cpu(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


async def phase(api: Api, names: list[str], seconds: float, pid: int) -> dict[str, float]:
    """`measure`, and how much of a processor the gateway has used meanwhile."""
    begun, before = time.monotonic(), cpu(pid)
    found = await measure(api, names, seconds)
    return {**found, "gateway_cpu_percent": round(100 * (cpu(pid) - before) / (time.monotonic() - begun), 1)}


async def load(port: int, ca: Path, names: list[str], count: int, seconds: float, pid: int) -> dict[str, Any]:
    """Both measurements. pid: the gateway's."""
    one = Api(port, ca)
    await one.sign_in(0)

    async def known() -> bool:
        answer = await one.client.get("/devices", params={"presence": "online", "limit": 1000})
        return len(answer.json()["devices"]) == min(1000, len(names))

    await until(known)
    found: dict[str, Any] = {"devices": len(names), "apps": count}
    found["without_apps"] = await phase(one, names, seconds, pid)
    open_, results = CONTEXT.Event(), CONTEXT.Queue()
    others = CONTEXT.Process(target=apps, args=(port, ca, names, count, open_, results), daemon=True)
    others.start()
    try:
        if not await asyncio.to_thread(open_.wait, PATIENCE):
            raise SystemExit("the apps do not open")
        found["with_apps"] = await phase(one, names, seconds, pid)
        others.terminate()
        got = await asyncio.to_thread(results.get, True, PATIENCE)
    finally:
        others.kill()
    if got["failed"]:
        raise SystemExit(f"apps have failed: {got['failed'][0]}")
    return {**found, "news": got["news"], "pages": got["pages"]}


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + PATIENCE
    while not await what():
        if time.monotonic() > end:
            raise SystemExit("the devices are not there")
        await asyncio.sleep(0.2)


# --- the gateway ------------------------------------------------------------------------------------------------------


def make_home(home: Path, names: list[str], mqtt: int, https: int, users: int) -> None:
    """A fleet of these devices, which come in without certificates: TLS is not what is measured here."""
    password = home.parent / "password"
    password.write_text(PASSWORD)
    for command in (
        ("init", "--host", "localhost", "--generate-passphrase"),
        *(("user", "add", f"load{n}", "--role", "operator", "--password-file", str(password)) for n in range(users)),
    ):
        subprocess.run([BIN / "peanut", "--home", home, *command], check=True, capture_output=True)
    with sqlite3.connect(home / "ledger.db") as ledger:
        now = int(time.time())
        columns = {row[1] for row in ledger.execute("PRAGMA table_info(device)")}
        for number, name in enumerate(names):
            row = {"name": name, "kind": "greenhouse", "board": "sim", "serial": f"{number:x}", "created": now}
            row |= {"not_before": now, "not_after": now + 90 * 86_400}
            used = [key for key in row if key in columns]
            ledger.execute(
                f"INSERT INTO device ({', '.join(used)}) VALUES ({', '.join('?' * len(used))})",
                [row[key] for key in used],
            )
    (home / "gateway.toml").write_text(
        f'[listen]\nmqtts = ""\ntime = ""\nmqtt = "127.0.0.1:{mqtt}"\nhttps = "127.0.0.1:{https}"\n'
        f"[access]\nanonymous = true\n[mqtt]\nmax_connections_per_address = 0\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--apps", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    names = [f"g{number:04d}" for number in range(arguments.devices)]
    mqtt, https = free_port(), free_port()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        make_home(home, names, mqtt, https, 1 + arguments.apps // WINDOWS)
        log = (Path(scratch) / "log").open("w+")
        gateway = subprocess.Popen([BIN / "peanutd", "--home", home], stdout=log, stderr=log)
        ready = CONTEXT.Event()
        fleet = CONTEXT.Process(target=devices, args=(mqtt, names, ready), daemon=True)
        try:
            end = time.monotonic() + PATIENCE
            while "listening https" not in (Path(scratch) / "log").read_text():
                if gateway.poll() is not None or time.monotonic() > end:
                    raise SystemExit((Path(scratch) / "log").read_text())
                time.sleep(0.1)
            fleet.start()
            if not ready.wait(PATIENCE):
                raise SystemExit("the devices do not come in")
            ca = home / "ca" / "root.crt"
            found = asyncio.run(load(https, ca, names, arguments.apps, arguments.seconds, gateway.pid))
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(20)
            with sqlite3.connect(home / "history.db") as db:
                (found["readings_kept"],) = db.execute(
                    "SELECT (SELECT count(*) FROM raw) + (SELECT count(*) FROM arrived)"
                ).fetchone()
        finally:
            if fleet.is_alive():
                fleet.terminate()
            if gateway.poll() is None:
                gateway.kill()
            log.close()
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:14} {json.dumps(value)}")


if __name__ == "__main__":
    main()
