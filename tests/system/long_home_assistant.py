"""Home Assistant's part is played by mosquitto_sub and mosquitto_pub: it finds a real greenhouse and a real car by
their discovery documents, and drives them on the topics that are named there.

Rule: what it publishes is obeyed as anybody's command; a car's are signed, by the gateway, and what happened to a
greenhouse is in the history. `make test-long`: a document takes its time.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from peanutd.history import Reader
from tests.broker.home_assistant import check, render, shown
from tests.broker.scram_client import write_users
from tests.system.conftest import House, wait_for
from tests.system.test_api import VIN, vehicle
from tools.ports import free_port

SETTINGS = """
https = "127.0.0.1:{https}"
[home_assistant]
enabled = true
code_file = "ha.code"
"""


def listen(house: House, topic: str) -> dict[str, Any]:
    """The message that is retained there, or comes first."""
    done = subprocess.run(
        house.mosquitto("mosquitto_sub", "-t", topic, "-C", "1", "-W", "240"),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def say(house: House, topic: str, payload: str) -> None:
    done = subprocess.run(
        house.mosquitto("mosquitto_pub", "-q", "1", "-t", topic, "-m", payload),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(600)
def test_a_lock_entity_drives_a_real_car(tmp_path: Path) -> None:
    """Opened with the code, not with another, closed without one; the car was added while the gateway ran."""
    house = House(tmp_path / "house")
    with (house.home / "gateway.toml").open("a") as file:
        file.write(SETTINGS.format(https=free_port()))
    (house.home / "ha.code").write_text("4711\n")
    write_users(house.home)
    house.start()
    try:
        with vehicle(house):
            lock: dict[str, Any] = {}

            def known() -> bool:
                document = listen(house, f"homeassistant/device/peanut_{VIN}/config")
                check(document)
                lock.update(document["components"].get("lock", {}))
                return bool(lock)

            def becomes(do: str, code: str | None, word: str) -> bool:
                """As somebody would who presses again when nothing has happened."""
                say(house, lock["command_topic"], render(lock["command_template"], value=do, code=code))
                end = time.monotonic() + 15
                while not (done := shows(word)) and time.monotonic() < end:
                    time.sleep(0.2)
                return done

            def shows(word: str) -> bool:
                return shown(lock["value_template"], json.dumps(listen(house, lock["state_topic"]))) == word

            wait_for(known, "a document with its lock", 120)
            wait_for(lambda: becomes("unlock", "4711", "UNLOCKED"), "open", 90)
            say(house, lock["command_topic"], render(lock["command_template"], value="unlock", code="1174"))
            wait_for(lambda: "wrong code" in house.log, "the code that is wrong", 60)
            wait_for(lambda: becomes("lock", None, "LOCKED"), "closed", 90)
    finally:
        house.stop()


@pytest.mark.timeout(600)  # the gateway looks for new nodes each minute
def test_a_climate_entity_drives_a_real_greenhouse(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    with (house.home / "gateway.toml").open("a") as file:
        file.write("[home_assistant]\nenabled = true\n[history]\nbatch_seconds = 1\n")
    house.start()
    try:
        with house.node("peanut"):
            path = "homeassistant/device/peanut_peanut/config"
            parts: dict[str, Any] = {}

            def known() -> bool:
                document = listen(house, path)
                check(document)
                parts.update(document["components"])
                return {"climate", "reading_temperature"} <= set(parts)

            wait_for(known, "a document with its climate and its temperature", 60)
            climate = parts["climate"]
            payload = render(climate["temperature_command_template"], value=16.5)
            done = subprocess.run(
                house.mosquitto("mosquitto_pub", "-q", "1", "-t", climate["temperature_command_topic"], "-m", payload),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

            def is_set() -> bool:
                state = listen(house, climate["temperature_state_topic"])
                return shown(climate["temperature_state_template"], json.dumps(state)) == "16.5"

            wait_for(is_set, "the set point in the state", 60)
            reader, now = Reader(house.home / "history.db"), int(time.time())

            def kept() -> bool:
                curves = {curve.name: curve for curve in reader.curves("/plant/peanut", [], now - 600, now + 600, 1)}
                points = curves["setpoint"].points if "setpoint" in curves else ()
                return bool(points) and points[-1].mean == 16.5 and "temperature" in curves

            wait_for(kept, "the set point in the history", 60)
    finally:
        house.stop()
