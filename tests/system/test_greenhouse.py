"""The story the house is built for: a set point is sent, the greenhouse acknowledges, acts and settles.

Every client that is not ours gets its turn with the operator's certificate: mosquitto_pub, paho-mqtt 3.1.1 and 5.
"""

from __future__ import annotations

import json
import subprocess

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.system.conftest import House, Watcher, wait_for
from tools.fleet import Node

REPORTS = ("/plant/+/status", "/plant/+/state", "/plant/+/ack", "/plant/+/telemetry")


def settled(watcher: Watcher, setpoint: float, name: str = "peanut") -> bool:
    """The set point is in force, reported and reached within a degree."""
    state = watcher.latest(f"/plant/{name}/state")
    readings = watcher.latest(f"/plant/{name}/telemetry").get("readings", {})
    temperature = readings.get("temperature", [None])[0]
    return state.get("setpoint") == setpoint and temperature is not None and abs(temperature - setpoint) <= 1.0


def online(watcher: Watcher, name: str = "peanut") -> bool:
    """The node has announced itself."""
    return bool(watcher.latest(f"/plant/{name}/status").get("state") == "online")


def test_peanut_send_is_acknowledged_acted_upon_and_reached(house: House) -> None:
    with house.node("peanut"), house.watch(*REPORTS) as watcher:
        wait_for(lambda: online(watcher), "birth")
        done = house.peanut("send", "peanut", "UpdateTemperature", "15")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.index("accepted") < done.stdout.index("done")
        wait_for(lambda: settled(watcher, 15.0), "15 °C")
        stages = [ack["stage"] for ack in watcher.all("/plant/peanut/ack")]
        assert stages == ["accepted", "done"]


def test_a_set_point_out_of_range_is_rejected_with_the_reason(house: House) -> None:
    with house.node("peanut"), house.watch(*REPORTS) as watcher:
        wait_for(lambda: online(watcher), "birth")
        done = house.peanut("send", "peanut", "UpdateTemperature", "99")
        assert done.returncode == 1
        assert "range" in done.stdout + done.stderr
        assert watcher.latest("/plant/peanut/state")["setpoint"] == 18.0


def test_mosquitto_pub_moves_the_greenhouse(house: House) -> None:
    with house.node("peanut"), house.watch(*REPORTS) as watcher:
        wait_for(lambda: online(watcher), "birth")
        command = house.mosquitto(
            "mosquitto_pub", "-q", "1", "-t", "/plant/peanut/UpdateTemperature", "-m", "temperature:15"
        )
        subprocess.run(command, check=True, timeout=120)
        wait_for(lambda: settled(watcher, 15.0), "15 °C")
        acks = watcher.all("/plant/peanut/ack")
        assert [(ack["stage"], ack["echo"]) for ack in acks] == [
            ("accepted", "temperature:15"),
            ("done", "temperature:15"),
        ]


@pytest.mark.parametrize("version", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
def test_paho_moves_the_greenhouse(house: House, version: MQTTProtocolVersion) -> None:
    with house.node("peanut"), house.watch(*REPORTS, version=version) as watcher:
        wait_for(lambda: online(watcher), "birth")
        command = json.dumps({"temperature": 15.5, "id": "from-paho"})
        watcher.client.publish("/plant/peanut/UpdateTemperature", command, qos=1).wait_for_publish(90)
        wait_for(lambda: settled(watcher, 15.5), "15.5 °C")
        assert [(ack["stage"], ack["id"]) for ack in watcher.all("/plant/peanut/ack")] == [
            ("accepted", "from-paho"),
            ("done", "from-paho"),
        ]


def test_commands_reach_their_greenhouse_alone(house: House) -> None:
    with house.node("peanut"), house.node("tomato"), house.watch(*REPORTS) as watcher:
        wait_for(lambda: online(watcher) and online(watcher, "tomato"), "two births")
        assert house.peanut("send", "tomato", "UpdateTemperature", "16").returncode == 0
        wait_for(lambda: watcher.latest("/plant/tomato/state").get("setpoint") == 16.0, "tomato's state")
        assert watcher.latest("/plant/peanut/state")["setpoint"] == 18.0
        assert watcher.all("/plant/peanut/ack") == []


def test_readings_are_seen_under_the_literal_topic_and_not_without_its_slash(house: House) -> None:
    """MQTT-4.7.3: `/plant/#` and `plant/#` are different filters; the leading slash is an empty level."""
    with house.watch("plant/#") as other, house.watch("/plant/+/telemetry") as watcher, house.node("peanut"):
        wait_for(lambda: len(watcher.all("/plant/peanut/telemetry")) >= 3, "three readings")
        reading = watcher.latest("/plant/peanut/telemetry")
        value, quality, age = reading["readings"]["temperature"]
        assert (quality, age) == ("ok", 0)
        assert 0 < value < 45
        assert other.heard == []


def test_a_configuration_waits_for_the_node_and_is_reported(house: House) -> None:
    """Retained under config/desired by mosquitto_pub, before the node is there; another node's it cannot write."""
    topic = "/plant/peanut/config/"
    document = json.dumps({"gen": 4, "control": {"setpoint": 16, "max": 30}})
    command = house.mosquitto("mosquitto_pub", "-q", "1", "-r", "-t", topic + "desired", "-m", document)
    with house.watch("/plant/#") as watcher:
        subprocess.run(command, check=True, timeout=120)
        with house.node("peanut"):
            told = wait_for(lambda: watcher.latest(topic + "reported"), "the report")
            assert (told["gen"], told["errors"]) == (4, [])
            wait_for(lambda: settled(watcher, 16.0), "16 °C")
            done = house.peanut("send", "peanut", "UpdateTemperature", "31")
            assert "range" in done.stdout + done.stderr


def test_peanut_send_to_a_node_that_is_away_says_so_and_fails(house: House) -> None:
    house.device("peanut")
    done = house.peanut("send", "peanut", "UpdateTemperature", "15", "--timeout", "2")
    assert done.returncode not in (0, 1)
    words = done.stdout + done.stderr
    assert "peanut" in words
    assert "\x1b" not in words


def test_a_planned_stop_is_reported_and_a_power_cut_too(house: House) -> None:
    bundle = house.device("peanut")
    with house.watch(*REPORTS) as watcher:
        with Node(bundle) as node:
            wait_for(lambda: online(watcher), "birth")
            node.wait_for_log("info time set from localhost")  # by the gateway, before TLS
        wait_for(lambda: watcher.latest("/plant/peanut/status").get("why") == "shutdown", "farewell")
        with Node(bundle) as node:
            wait_for(lambda: online(watcher), "second birth")
            node.kill()
            wait_for(lambda: watcher.latest("/plant/peanut/status").get("state") == "offline", "will")
        assert watcher.latest("/plant/peanut/status")["why"] == "connection lost"
