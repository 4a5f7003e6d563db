"""Home Assistant's part is played by mosquitto_sub and mosquitto_pub: it finds a real car by its discovery document and
drives its lock, which wants signed commands, that the gateway makes of what is published. `make test-long`: a car's
document takes its time."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.broker.home_assistant import check, render, shown
from tests.broker.scram_client import write_users
from tests.system.conftest import House, wait_for
from tests.system.test_api import VIN, vehicle
from tests.system.test_home_assistant import listen
from tools.ports import free_port

SETTINGS = """
https = "127.0.0.1:{https}"
[home_assistant]
enabled = true
code_file = "ha.code"
"""


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
