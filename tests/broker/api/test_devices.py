"""Devices and commands: what is seen, who may do what, and that "done" is the node's own word."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import pytest

from peanutd import rules
from peanutd.api import commands, devices, nodes, proofs, signing
from tests.broker.api.conftest import PASSWORD, START, Node, Refused, World

VIN = "WVWZZZ1JZXW000001"
KEY = hashlib.sha256(b"a car's key").digest()  # looks like no payload: the suite's output is searched for it
STATE = {"setpoint": 15.0, "temperature": 15.2, "heater": False, "faults": ["frost", 7], "ts": 7}


def set_point(world: World, token: str, name: str = "peanut", degrees: Any = 15, **more: Any) -> Any:
    body = {"command": "UpdateTemperature", "args": {"temperature": degrees}, **more}
    return world.ask("POST", f"/devices/{name}/commands", body, token=token)


def test_a_device_is_what_it_says(world: World) -> None:
    node, token = world.node("peanut"), world.token("vera")
    node.say("state", STATE, retain=True)
    node.say("telemetry", {"ts": 8, "readings": {"temperature": [15.2, "ok", 3]}})
    node.say("health", {"up": 9})
    node.say("config/reported", {"gen": 7}, retain=True)
    world.settle()
    found = world.ask("GET", "/devices/peanut", token=token).json()
    assert (found["kind"], found["root"]) == ("greenhouse", "/plant/peanut")
    assert (found["presence"], found["presence_ts"], found["fw"], found["sim"]) == ("online", 5, "1", True)
    assert (found["state"], found["state_ts"], found["faults"]) == (STATE, 7, ["frost"])
    assert (found["readings"], found["readings_ts"]) == ({"temperature": [15.2, "ok", 3]}, 8)
    assert (found["health"], found["config"], found["ota"]) == ({"up": 9}, {"gen": 7}, None)
    (listed,) = world.ask("GET", "/devices", token=token).json()["devices"]
    assert {key: found[key] for key in listed} == listed
    assert listed["commands"] == []  # a viewer
    assert world.ask("GET", "/devices/peanut/state", token=token).json()["state"] == STATE


def test_a_cars_fault_codes_are_shown_while_it_has_them(world: World) -> None:
    node, token = world.node(VIN), world.token("vera")

    def shown(codes: Any) -> Any:
        node.say("telemetry", {"ts": 8, "readings": {}, "codes": codes})
        world.settle()
        return world.ask("GET", f"/devices/{VIN}", token=token).json()["codes"]

    assert shown(["P0420", 7, "U0100"]) == ["P0420", "U0100"]
    assert shown("P0420") == []


def test_what_is_no_report_is_not_shown(world: World) -> None:
    node, token = world.node("peanut"), world.token("vera")
    big = b'{"a":"' + b"x" * nodes.PAYLOAD_MAX + b'"}'
    for payload in (
        b"",
        b"{",
        b"[]",
        b'{"a":NaN}',
        b'{"a":1e999}',
        b"[" * 100_000,
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        big,
    ):
        node.say("state", payload)
    world.settle()
    assert world.ask("GET", "/devices/peanut/state", token=token).json()["state"] is None


def test_a_late_reading_is_not_the_present_one(world: World) -> None:
    node, token = world.node("peanut"), world.token("vera")
    node.say("telemetry", {"late": True, "batch": [{"ts": 1, "readings": {"temperature": [1, "ok", 0]}}]})
    world.settle()
    assert world.ask("GET", "/devices/peanut", token=token).json()["readings"] is None


def test_devices_come_in_pages_and_by_kind(world: World) -> None:
    world.enrol("a", "b", "c", VIN)
    token = world.token("vera")
    first = world.ask("GET", "/devices?limit=3", token=token).json()
    second = world.ask("GET", f"/devices?limit=3&after={first['next']}", token=token).json()
    assert [one["name"] for one in first["devices"] + second["devices"]] == [VIN, "a", "b", "c"]
    assert second["next"] is None
    found = world.ask("GET", "/devices?kind=vehicle&presence=unknown", token=token).json()["devices"]
    assert [one["name"] for one in found] == [VIN]
    world.now += nodes.LOOK
    world.enrol("d")
    assert len(world.ask("GET", "/devices", token=token).json()["devices"]) == 5


# --- commands -------------------------------------------------------------------------------------------------------


def test_done_is_the_nodes_word(world: World) -> None:
    node, token = world.node("peanut"), world.token("maria")
    answer = set_point(world, token)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["outcome"], found["accepted"], found["state"]) == ("done", True, {"setpoint": 15})
    ((verb, body),) = node.heard
    assert (verb, body["temperature"], body["id"]) == ("UpdateTemperature", 15, found["id"])
    assert body["exp"] == int(START) + commands.LIFETIME == START + found["lifetime_s"]
    sent, answered = world.entries(action="command")[0], world.entries(action="answer")[0]
    assert sent["seq"] < answered["seq"]
    assert (sent["who"], sent["target"], sent["outcome"], sent["address"]) == (
        "user/maria",
        "peanut",
        "sent",
        "192.168.1.9",
    )
    assert sent["detail"]["args"] == {"temperature": 15}
    assert (answered["outcome"], answered["detail"]["id"]) == ("done", found["id"])


def test_other_commands_carry_their_arguments(world: World) -> None:
    node, token = world.node("peanut"), world.token("maria")
    body = {"command": "heater", "args": {"mode": "off", "for_s": 60}}
    assert world.ask("POST", "/devices/peanut/commands", body, token=token).status_code == 200
    assert world.ask("POST", "/devices/peanut/commands", {"command": "identify"}, token=token).status_code == 200
    assert [(verb, body["args"]) for verb, body in node.heard] == [
        ("cmd/heater", {"mode": "off", "for_s": 60}),
        ("cmd/identify", {}),
    ]


def test_a_refusal_has_the_nodes_reason(world: World, refused: Refused) -> None:
    node, token = world.node("peanut"), world.token("maria")
    node.act = lambda verb, body: [{"id": body["id"], "stage": "rejected", "why": "range 2 to 40"}]
    found = refused(set_point(world, token, degrees=99), "rejected")
    assert (found["outcome"], found["why"], found["accepted"]) == ("rejected", "range 2 to 40", False)
    assert "range 2 to 40" in found["detail"]
    assert world.entries(action="answer")[0]["why"] == "range 2 to 40"


@pytest.mark.parametrize(
    ("presence", "words"), [("offline", "is offline"), ("sleeping", "is sleeping"), (None, "never been seen")]
)
def test_what_is_merely_sent_is_no_success(world: World, refused: Refused, presence: str | None, words: str) -> None:
    token = world.token("maria")
    world.enrol("peanut")
    if presence is not None:
        node = Node(world, "/plant/peanut")
        node.act = lambda verb, body: []
        node.say("status", {"state": presence}, retain=True)
        world.settle()
    found = refused(set_point(world, token, wait_s=1), "not_answered")
    assert (found["outcome"], found["accepted"], found["answered"]) == ("not_answered", False, None)
    assert words in found["detail"]
    assert world.entries(action="answer")[0]["outcome"] == "not_answered"


def test_accepted_is_not_done(world: World, refused: Refused) -> None:
    node, token = world.node("peanut"), world.token("maria")
    node.act = lambda verb, body: [{"id": body["id"], "stage": "accepted"}]
    found = refused(set_point(world, token, wait_s=1), "not_answered")
    assert (found["accepted"], found["outcome"]) == (True, "not_answered")


def test_answers_to_others_are_not_taken_for_ones_own(world: World, refused: Refused) -> None:
    node, token = world.node("peanut"), world.token("maria")
    node.act = lambda verb, body: [
        {"id": "another", "stage": "done"},
        {"stage": "done"},
        {"id": body["id"], "stage": "x"},
    ]
    refused(set_point(world, token, wait_s=1), "not_answered")


@pytest.mark.parametrize("degrees", ["15", None, True, [15]])
def test_a_set_point_is_a_number(world: World, refused: Refused, degrees: Any) -> None:
    world.node("peanut")
    refused(set_point(world, world.token("maria"), degrees=degrees), "invalid")
    assert not world.entries(action="command")


def test_a_command_has_the_nodes_limit(world: World, refused: Refused) -> None:
    node, token = world.node("peanut"), world.token("maria")
    body = {"command": "heater", "args": {"mode": "x" * commands.PAYLOAD_MAX}}
    refused(world.ask("POST", "/devices/peanut/commands", body, token=token), "invalid")
    assert not node.heard


def test_so_many_commands_of_one_user_wait_and_no_more(world: World) -> None:
    node, token = world.node("peanut"), world.token("maria")
    node.act = lambda verb, body: []
    body = {"command": "identify", "wait_s": 1}

    async def many() -> list[int]:
        most = devices.PLACES._most
        asked = (world.asking("POST", "/devices/peanut/commands", body, token=token) for _ in range(most + 4))
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    found = world.run(many())
    assert (found.count(429), found.count(504)) == (4, len(found) - 4)


# --- who may --------------------------------------------------------------------------------------------------------


def test_a_viewer_commands_nothing_and_it_is_noted(world: World, refused: Refused) -> None:
    node = world.node("peanut")
    refused(set_point(world, world.token("vera")), "forbidden")
    assert not node.heard
    (entry,) = world.entries(action="command")
    assert (entry["who"], entry["outcome"], entry["target"]) == ("user/vera", "refused", "peanut")


NEIGHBOUR = """
otherwise = "built-in"
[[rule]]
kind = "user"
name = "vera"
allow = "publish"
retain = false
topic = ["/plant/peanut/UpdateTemperature"]
[[rule]]
kind = "user"
name = "vera"
allow = "subscribe"
topic = "/plant/peanut/#"
[[rule]]
kind = "user"
name = "vera"
deny = "both"
topic = "#"
"""


def test_the_rules_of_mqtt_are_those_of_https(world: World, refused: Refused) -> None:
    world.node("peanut")
    world.node("other")
    world.server.set_rules(rules.parse(NEIGHBOUR, "rules.toml", "rules.toml"))
    vera = world.token("vera")
    (seen,) = world.ask("GET", "/devices", token=vera).json()["devices"]
    assert (seen["name"], seen["commands"]) == ("peanut", ["UpdateTemperature"])
    assert set_point(world, vera).status_code == 200
    refused(set_point(world, vera, "other"), "not_found")
    refused(world.ask("GET", "/devices/other", token=vera), "not_found")
    refused(world.ask("POST", "/devices/peanut/commands", {"command": "heater"}, token=vera), "forbidden")
    assert len(world.ask("GET", "/devices", token=world.token("maria")).json()["devices"]) == 2


class North:
    """One group."""

    def members(self, group: str) -> frozenset[str]:
        return frozenset({"peanut"}) if group == "north" else frozenset()

    def of(self, device: str) -> frozenset[str]:
        return frozenset({"north"}) if device == "peanut" else frozenset()


def test_a_scope_hides_everything_else(world: World, refused: Refused) -> None:
    world.node("peanut")
    world.node("other")
    world.services.rights.groups = North()
    maria = world.token("maria")
    assert len(world.ask("GET", "/devices", token=maria).json()["devices"]) == 2
    world.run(world.services.scopes.set("maria", frozenset({"north"})))
    (seen,) = world.ask("GET", "/devices", token=maria).json()["devices"]
    assert (seen["name"], seen["groups"]) == ("peanut", ["north"])
    assert set_point(world, maria).status_code == 200
    for answer in (set_point(world, maria, "other"), world.ask("GET", "/devices/other/state", token=maria)):
        refused(answer, "not_found")
    world.restart()
    world.services.rights.groups = North()
    assert world.ask("GET", "/me", token=maria).json()["scope"] == ["north"]
    world.run(world.services.scopes.set("maria", frozenset()))
    assert world.ask("GET", "/devices", token=maria).json()["devices"] == []


@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e%2fx", "a%2Fb", "%2B", "%23", "PEANUT"])
def test_a_name_is_a_name_and_no_topic(world: World, refused: Refused, name: str) -> None:
    world.node("peanut")
    refused(world.ask("GET", f"/devices/{name}/state", token=world.token("maria")), "not_found")


# --- vehicles -------------------------------------------------------------------------------------------------------


class Car:
    """A vehicle's side of agreement 2, written from its text."""

    def __init__(self, world: World) -> None:
        self.key = KEY
        folder = world.home / "devices" / VIN
        folder.mkdir(parents=True)
        (folder / "sign.key").write_bytes(self.key)
        self.counter = 41
        self.up = 1000
        self.node = world.node(VIN)
        self.node.act = self.act
        self.done: list[str] = []
        self.forge = False
        self.lies: list[dict[str, Any]] = []  # what strangers say of its session before it does

    def mac(self, purpose: bytes, text: str) -> str:
        derived = hmac.new(self.key, purpose, hashlib.sha256).digest()
        return hmac.new(derived, text.encode(), hashlib.sha256).hexdigest()

    def act(self, verb: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        if verb == "cmd/session":
            said = {"leaf": "session", "epoch": "e1", "ctr": self.counter, "up": self.up}
            said["sig"] = self.mac(b"vin-session-v1", f"v1|{VIN}|e1|{self.counter}|{self.up}")
            return [*({**said, **lie} for lie in self.lies), said]
        parts = ["v1", VIN, *(str(body[name]) for name in ("id", "cmd", "epoch", "ctr", "exp", "args"))]
        why = None
        if self.mac(b"vin-cmd-v1", "|".join(parts)) != body["sig"]:
            why = "malformed signature"
        elif (body["epoch"], body["cmd"]) != ("e1", verb) or body["ctr"] <= self.counter or body["exp"] > self.up + 30:
            why = "replayed"
        else:
            self.counter = body["ctr"]
            self.done.append(verb)
        digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
        stage = "done" if why is None else "rejected"
        sig = self.mac(b"vin-ack-v1", "|".join(["v1", VIN, body["id"], stage, why or "", digest]))
        answer = {"id": body["id"], "stage": stage, "sig": "0" * 64 if self.forge else sig}
        return [{**answer, "why": why} if why else answer]


def proof(world: World, token: str, verb: str = "unlock", device: str = VIN, **more: Any) -> Any:
    body = {"device": device, "command": verb, **(more or {"password": PASSWORD})}
    return world.ask("POST", "/step-up", body, token=token)


def drive(world: World, token: str, verb: str, **more: Any) -> Any:
    return world.ask("POST", f"/devices/{VIN}/commands", {"command": verb, **more}, token=token)


def test_a_vehicles_command_is_signed_for_its_session(world: World) -> None:
    car, token = Car(world), world.token("maria")
    answer = drive(world, token, "lock")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["outcome"], answer.json()["lifetime_s"]) == ("done", signing.LIFETIME)
    assert car.done == ["lock"]
    assert drive(world, token, "horn", args={"argument": "3"}).status_code == 200
    assert car.node.heard[-1][1]["args"] == "3"


def test_a_session_that_the_vehicle_has_not_said_is_not_signed_for(world: World) -> None:
    """A command made for tomorrow's clock could be kept until then; one for the last counter would be the last."""
    car, token = Car(world), world.token("maria")
    car.lies = [{"up": 90_000}, {"ctr": 2**53 - 3}, {"epoch": "e2"}, {"sig": "0" * 64}, {"sig": "ü"}, {"sig": None}]
    answer = drive(world, token, "lock")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "done"), answer.text
    assert [(heard["ctr"], heard["exp"]) for verb, heard in car.node.heard if verb == "lock"] == [(42, 1010)]


def test_commands_to_one_vehicle_wait_for_each_other(world: World) -> None:
    car, token = Car(world), world.token("maria")

    async def both() -> list[int]:
        path, body = f"/devices/{VIN}/commands", {"command": "lock"}
        asked = (world.asking("POST", path, body, token=token) for _ in range(4))
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert world.run(both()) == [200] * 4
    assert car.done == ["lock"] * 4


def test_a_forged_answer_is_not_believed(world: World, refused: Refused) -> None:
    car, token = Car(world), world.token("maria")
    car.forge = True
    refused(drive(world, token, "lock", wait_s=1), "not_answered")


def test_without_the_key_nothing_is_sent(world: World, refused: Refused) -> None:
    car, token = Car(world), world.token("maria")
    (world.home / "devices" / VIN / "sign.key").unlink()
    refused(drive(world, token, "lock"), "unavailable")
    assert not car.node.heard


@pytest.mark.parametrize(
    "args", [{"argument": "a|b"}, {"argument": "x" * 65}, {"argument": 1}, {"other": ""}, {"argument": "ü"}]
)
def test_a_vehicle_takes_one_short_argument(world: World, refused: Refused, args: dict[str, Any]) -> None:
    Car(world)
    refused(drive(world, world.token("maria"), "horn", args=args), "invalid")


@pytest.mark.parametrize("verb", ["unlock", "start"])
def test_a_door_opens_with_a_second_proof_once(world: World, refused: Refused, verb: str) -> None:
    car, token = Car(world), world.token("maria")
    refused(drive(world, token, verb), "step_up")
    refused(drive(world, token, verb, step_up="guessed"), "step_up")
    given = proof(world, token, verb).json()["step_up"]
    assert drive(world, token, verb, step_up=given).status_code == 200
    refused(drive(world, token, verb, step_up=given), "step_up")
    assert car.done == [verb]


def test_a_proof_is_for_one_user_one_command_and_a_minute(world: World, refused: Refused) -> None:
    car, token = Car(world), world.token("maria")
    for_start = proof(world, token, "start").json()["step_up"]
    refused(drive(world, token, "unlock", step_up=for_start), "step_up")
    hers = proof(world, token).json()["step_up"]
    refused(drive(world, world.token("ada"), "unlock", step_up=hers), "step_up")
    late = proof(world, token).json()["step_up"]
    world.now += proofs.LIFETIME
    refused(drive(world, token, "unlock", step_up=late), "step_up")
    ahead = proof(world, token).json()["step_up"]
    world.now -= 2
    refused(drive(world, token, "unlock", step_up=ahead), "step_up")  # the clock was put back: a minute is a minute
    assert car.done == []


def test_the_second_proof_is_no_way_to_guess_passwords(world: World, refused: Refused) -> None:
    Car(world)
    token = world.token("maria")
    for _ in range(5):
        refused(proof(world, token, password="no"), "step_up")
    refused(proof(world, token), "too_often")
    assert world.entries(action="step-up")[0]["outcome"] == "refused"
    refused(proof(world, world.token("vera")), "forbidden")
    refused(proof(world, token, device="nobody"), "not_found")
    world.now += 60
    refused(proof(world, token, pin="1"), "invalid")
