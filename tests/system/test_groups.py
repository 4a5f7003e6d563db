"""A group of real greenhouses over HTTPS: one act, a member that is away and returns, and a recipe for all of them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.conftest import House, wait_for
from tools.ports import free_port

PASSWORD = "a group of peanuts"
SETTINGS = """
https = "127.0.0.1:{https}"
[history]
batch_seconds = 1
"""
RECIPE = {"title": "Lettuce", "seasons": [{"from": "01-01", "curve": [{"at": "00:00", "setpoint": 11.5}]}]}


class Person:
    """Somebody who has signed in."""

    def __init__(self, house: House, port: int) -> None:
        ca = house.home / "ca" / "root.crt"
        context = ssl.create_default_context(cafile=ca)
        self.client = httpx.Client(base_url=f"https://localhost:{port}/api/v1", verify=context, timeout=90)
        session = self("POST", "/session", 200, user="maria", password=PASSWORD)
        self.client.headers["Authorization"] = f"Bearer {session['access_token']}"

    def __call__(self, method: str, path: str, status: int, **body: Any) -> Any:
        answer = self.client.request(method, path, **({"json": body} if body else {}))
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def setpoint(self, name: str) -> float | None:
        state = self("GET", f"/devices/{name}/state", 200)["state"] or {}
        return state.get("setpoint")

    def history(self, name: str, quantity: str) -> list[float]:
        """Every reading of it that is kept, none of them a mean of several."""
        past = self("GET", f"/devices/{name}/history?quantity={quantity}&step_s=1", 200)
        return [point[1] for point in past["points"]]

    def states(self) -> dict[str, str]:
        found = self("GET", "/groups/house/desired", 200)
        return {one["device"]: one["state"] for one in found["devices"]}


@pytest.mark.timeout(600)
def test_a_group_converges_when_its_members_return(tmp_path: Path) -> None:
    house, port = House(tmp_path / "house"), free_port()
    with (house.home / "gateway.toml").open("a") as file:
        file.write(SETTINGS.format(https=port))
    (tmp_path / "password").write_text(PASSWORD)
    words = ("user", "add", "maria", "--role", "operator", "--password-file", str(tmp_path / "password"))
    house.peanut(*words, check=True)
    house.start()
    try:
        house.device("walnut")
        with house.node("peanut"):
            wait_for(lambda: "listening https" in house.log, "https", 60)
            maria = Person(house, port)
            wait_for(lambda: maria("GET", "/devices/peanut", 200)["presence"] == "online", "peanut is online", 60)
            maria("PUT", "/groups/house", 201, title="The house", members=["peanut", "walnut"])
            maria("PUT", "/groups/house/desired", 202, setpoint=15.5)
            wait_for(lambda: maria.states() == {"peanut": "at", "walnut": "offline"}, "peanut is there", 60)
            with house.node("walnut"):
                wait_for(lambda: set(maria.states().values()) == {"at"}, "walnut is there as well", 60)
                wait_for(lambda: maria.setpoint("walnut") == 15.5, "its own word", 60)
                wait_for(lambda: 15.5 in maria.history("peanut", "setpoint"), "the act in peanut's history", 60)
                maria("PUT", "/recipes/lettuce", 201, **RECIPE)
                maria("PUT", "/groups/house/desired", 202, recipe="lettuce")
                wait_for(lambda: set(maria.states().values()) == {"at"}, "both have the recipe", 90)
                for name in ("peanut", "walnut"):
                    wait_for(lambda name=name: maria.setpoint(name) == 11.5, f"{name} holds what the recipe says", 90)
                wait_for(lambda: 11.5 in maria.history("walnut", "setpoint"), "the recipe in walnut's history", 60)
    finally:
        house.stop()
