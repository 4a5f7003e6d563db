"""Home Assistant's part is played by mosquitto_sub and mosquitto_pub: it finds a real greenhouse by its discovery
document, sets it on the topic that is named there, and what happened is in the history afterwards."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from peanutd.history import Reader
from tests.broker.home_assistant import check, render, shown
from tests.system.conftest import House, wait_for


def listen(house: House, topic: str) -> dict[str, Any]:
    """The message that is retained there, or comes first."""
    done = subprocess.run(
        house.mosquitto("mosquitto_sub", "-t", topic, "-C", "1", "-W", "240"),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


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
