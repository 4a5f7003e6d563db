"""The whole of the story over HTTPS, with real nodes: sign in, command, the node's word, its refusal, its silence.

The rule it keeps: programs as a user runs them, certificates checked, and a client that is not ours (httpx).
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.broker.scram_client import user, write_users
from tests.system.conftest import QUICK, House, wait_for
from tools.fleet import Node
from tools.ports import free_port

PASSWORD = "correct horse battery"
VIN = "WVWZZZ1JZXW000001"
DEADLINE = 60.0


class Gateway:
    """HTTPS of a house."""

    def __init__(self, house: House, port: int) -> None:
        self.house = house
        context = ssl.create_default_context(cafile=str(house.operator[0]))
        self.client = httpx.Client(base_url=f"https://localhost:{port}", verify=context, timeout=DEADLINE)

    def ask(self, method: str, path: str, token: str = "", **body: Any) -> httpx.Response:
        """One request below /api/v1."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.request(method, f"/api/v1{path}", headers=headers, json=body or None)

    def sign_in(self, name: str) -> str:
        """An access token."""
        answer = self.ask("POST", "/session", user=name, password=PASSWORD)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def command(self, token: str, device: str, verb: str, **more: Any) -> httpx.Response:
        """A command."""
        return self.ask("POST", f"/devices/{device}/commands", token, command=verb, **more)

    def online(self, token: str, device: str) -> None:
        """Waits until a device is."""
        wait_for(
            lambda: self.ask("GET", f"/devices/{device}", token).json().get("presence") == "online",
            f"{device} online",
            DEADLINE,
        )


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A house with HTTPS, its users maria (operator), vera (viewer), ada (admin), and a greenhouse that is online."""
    folder = tmp_path_factory.mktemp("api")
    with serving(folder) as made, made.house.node("peanut"):
        made.online(made.sign_in("vera"), "peanut")
        yield made
    log = made.house.log
    assert not [line for line in log.splitlines() if " error " in line], log


@contextmanager
def serving(folder: Path) -> Iterator[Gateway]:
    """The house."""
    house = House(folder / "fleet")
    port = free_port()
    with (house.home / "gateway.toml").open("a") as file:
        file.write(f'https = "127.0.0.1:{port}"\n')
    roles = {"maria": "operator", "vera": "viewer", "ada": "admin"}
    write_users(house.home, **{name: user(PASSWORD, role, argon=True) for name, role in roles.items()})  # quick ones
    house.start()
    made = Gateway(house, port)
    try:
        yield made
        assert house.stop() == 0
    finally:
        made.client.close()
        if house.process and house.process.poll() is None:
            house.process.kill()
            house.process.wait()


@contextmanager
def vehicle(house: House) -> Iterator[Node]:
    """A running vehicle."""
    sets = [argument for setting in QUICK if setting.startswith("link") for argument in ("--set", setting)]
    house.peanut("device", "add", VIN, "--kind", "vehicle", "--board", "sim", *sets, check=True)
    with Node(house.home / "devices" / VIN) as node:
        yield node


def test_the_whole_story_over_https(gateway: Gateway) -> None:
    house = gateway.house
    maria, ada = gateway.sign_in("maria"), gateway.sign_in("ada")
    with vehicle(house):
        house.device("away")

        # A greenhouse: done is its own word, and the state shows it.
        done = gateway.command(maria, "peanut", "UpdateTemperature", args={"temperature": 15})
        assert done.status_code == 200, done.text
        assert done.json()["state"]["setpoint"] == 15
        wait_for(
            lambda: gateway.ask("GET", "/devices/peanut/state", maria).json()["state"]["setpoint"] == 15, "the state"
        )

        # Its refusal, with its reason; the silence of one that is off; what a viewer may.
        refused = gateway.command(maria, "peanut", "UpdateTemperature", args={"temperature": 99})
        assert refused.status_code == 409
        assert refused.json()["why"].startswith("range")
        wait_for(lambda: gateway.ask("GET", "/devices/away", maria).status_code == 200, "the ledger")
        silent = gateway.command(maria, "away", "UpdateTemperature", args={"temperature": 15}, wait_s=1)
        assert (silent.status_code, silent.json()["outcome"]) == (504, "not_answered")
        assert gateway.command(gateway.sign_in("vera"), "peanut", "identify").status_code == 403

        # A vehicle: signed by the gateway, with a second proof for the door.
        gateway.online(maria, VIN)
        assert gateway.command(maria, VIN, "unlock").status_code == 403
        for _ in range(
            6
        ):  # a machine that is busy enough makes even ten seconds short: that is a 504, and is no failure
            proof = gateway.ask("POST", "/step-up", maria, device=VIN, command="unlock", password=PASSWORD).json()
            opened = gateway.command(maria, VIN, "unlock", step_up=proof["step_up"])
            if opened.status_code != 504:
                break
        assert (opened.status_code, opened.json().get("outcome")) == (200, "done"), opened.text

        # A share that opens the door for a while, and expires.
        until = time.time() + 20
        share = gateway.ask(
            "POST", "/shares", maria, device=VIN, commands=["lock"], **{"from": 0, "until": until, "note": "mechanic"}
        ).json()
        mechanic = gateway.ask("POST", "/share-session", secret=share["secret"]).json()["access_token"]
        assert [one["name"] for one in gateway.ask("GET", "/devices", mechanic).json()["devices"]] == [VIN]
        wait_for(
            lambda: gateway.ask("POST", "/share-session", secret=share["secret"]).status_code == 401, "the share's end"
        )
        assert gateway.ask("GET", "/me", mechanic).status_code == 401

    # Who did what is written down, and whole.
    entries = gateway.ask("GET", "/audit?limit=1000", ada).json()["entries"]
    told = [(entry["action"], entry["target"], entry["outcome"]) for entry in reversed(entries)]
    for line in (
        ("answer", "peanut", "done"),
        ("answer", "peanut", "rejected"),
        ("answer", "away", "not_answered"),
        ("command", "peanut", "refused"),
        ("step-up", VIN, "ok"),
        ("answer", VIN, "done"),
        ("share", VIN, "ok"),
    ):
        assert line in told
    assert gateway.ask("GET", "/audit/check", ada).json()["whole"] is True


def test_live_updates_over_https(gateway: Gateway) -> None:
    found: dict[str, Any] = {}
    headers = {"Authorization": f"Bearer {gateway.sign_in('vera')}"}
    with gateway.client.stream("GET", "/api/v1/events?device=peanut", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                found[name] = json.loads(value)
            if {"readings", "state"} <= set(found):
                break
    assert found["readings"]["device"] == "peanut"
    assert found["readings"]["readings"]["temperature"][1] == "ok"
