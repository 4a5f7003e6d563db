"""OWASP's API Security Top Ten of 2023, a test for each row that applies, over every operation that there is.

The rule it keeps: what is tested comes from the table of operations, so that a new one is tested by being there. Rows 6
(sensitive business flows) and 9 (inventory) are the second proof and the document; row 7 (requests that the gateway is
talked into) are push subscriptions, in test_monitoring.py.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from peanutd.access import Role
from peanutd.api import devices, openapi, quota
from peanutd.api.app import OPERATIONS
from peanutd.api.people import RANK
from peanutd.api.signing import STEP_UP
from peanutd.api.table import BODY_MAX, Operation
from tests.broker.api.conftest import PASSWORD, Refused, World
from tests.broker.api.test_devices import KEY, VIN, Car, drive
from tests.broker.api.test_people import share

NAMES = {"name": "peanut", "session": "x", "user": "maria", "share": "1", "passkey": "x", "alert": "1"}
BODIES: dict[str, Any] = {
    "POST /devices/{name}/commands": {"command": "identify"},
    "POST /devices/{name}/revoke": {"password": PASSWORD},
    "POST /devices/{name}/restore": {"password": PASSWORD},
}


def path(operation: Operation) -> str:
    return re.sub(r"{(\w+)}", lambda match: NAMES.get(match[1], "x"), operation.path)


def label(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def call(world: World, operation: Operation, token: str | None = None) -> Any:
    body = BODIES.get(label(operation), {}) if operation.body is not None else None
    return world.ask(operation.method, path(operation), body, token=token)


closed = [operation for operation in OPERATIONS if not operation.open]


# --- 1: broken object level authorization ---------------------------------------------------------------------------

of_a_device = [operation for operation in closed if operation.path.startswith("/devices/{name}")]


def test_1_a_device_of_others_is_not_there(world: World, refused: Refused) -> None:
    """Whatever is asked of it, by somebody who may not see it: as if there were none."""
    world.node("peanut")
    world.users["maria"] = "admin"  # the role is not what keeps her out
    world.write_users()
    maria = world.token("maria")
    world.run(world.services.scopes.set("maria", frozenset({"south"})))
    for operation in of_a_device:
        answer = call(world, operation, maria)
        assert answer.status_code == 404, label(operation)
        refused(answer, "not_found")


def test_1_what_belongs_to_others_cannot_be_reached_by_its_number(world: World, refused: Refused) -> None:
    Car(world)
    maria, vera = world.token("maria"), world.token("vera")
    number = share(world, maria).json()["id"]
    session = world.ask("GET", "/sessions", token=maria).json()["sessions"][0]["id"]
    for target in (f"/shares/{number}", f"/sessions/{session}"):
        refused(world.ask("DELETE", target, token=vera), "not_found")
    assert world.ask("GET", "/shares", token=vera).json()["shares"] == []


# --- 2: broken authentication ---------------------------------------------------------------------------------------


def test_2_nothing_is_done_for_nobody(world: World, refused: Refused) -> None:
    for operation in closed:
        for token in (None, "x.y.z"):
            answer = call(world, operation, token)
            assert answer.status_code == 401, label(operation)
            refused(answer, "unauthorized")
            assert answer.headers["www-authenticate"]


def test_2_what_is_open_is_known() -> None:
    assert {label(operation) for operation in OPERATIONS if operation.open} == {
        "GET /health",
        "GET /openapi.json",
        "POST /session",
        "POST /session/refresh",
        "POST /share-session",
    }


# --- 3: broken object property level authorization ------------------------------------------------------------------


def test_3_nobody_sets_what_is_not_his_to_set() -> None:
    """No body takes a property that the table does not name: no role, no owner, no time of creation."""
    for operation in closed:
        body = operation.body or {"additionalProperties": False}
        if "$ref" in body:
            body = openapi.shape.NAMED[body["$ref"].rpartition("/")[2]]
        for form in body.get("anyOf", [body]):
            assert form["additionalProperties"] is False, label(operation)


def test_3_a_user_does_not_make_himself_an_admin(world: World, refused: Refused) -> None:
    maria = world.token("maria")
    body = {"password": PASSWORD, "new_password": "another password", "role": "admin"}
    refused(world.ask("POST", "/me/password", body, token=maria), "invalid")
    refused(world.ask("PUT", "/users/maria", {"role": "admin"}, token=maria), "forbidden")


def test_3_secrets_are_in_no_answer(world: World) -> None:
    Car(world)
    ada = world.token("ada")
    share(world, ada)
    answers = [call(world, one, ada) for one in closed if one.method == "GET" and one.path != "/events"]
    said = "".join(answer.text for answer in answers)
    for word in ("argon2id", "stored_key", '"secret"', '"pin"', KEY.hex()):
        assert word not in said


# --- 4: unrestricted resource consumption ---------------------------------------------------------------------------


def test_4_a_body_has_an_end(world: World, refused: Refused) -> None:
    body = b'{"user":"' + b"x" * BODY_MAX + b'"}'
    refused(world.ask("POST", "/session", content=body), "too_large")
    refused(world.ask("POST", "/session", content=b'{"a":' * 9_000 + b"1" + b"}" * 9_000), "malformed")
    refused(world.ask("GET", f"/devices?after={'x' * 9000}", token=world.token("vera")), "too_large")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1e9", "nan", "x", "9" * 400])
def test_4_a_page_has_an_end(world: World, refused: Refused, limit: str) -> None:
    refused(world.ask("GET", f"/devices?limit={limit}", token=world.token("vera")), "invalid")


def test_4_one_caller_does_not_use_up_anothers_share(world: World) -> None:
    async def flood() -> list[int]:
        asked = (world.asking("GET", "/health", address="10.6.6.6") for _ in range(int(quota.BURST) + 20))
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert world.run(flood()).count(429) == 20
    assert world.ask("GET", "/health").status_code == 200


# --- 5: broken function level authorization -------------------------------------------------------------------------

above = [operation for operation in closed if operation.role is not Role.VIEWER]


@pytest.mark.parametrize("name", ["vera", "maria"])
def test_5_a_role_does_what_it_is_for(world: World, refused: Refused, name: str) -> None:
    token, role = world.token(name), Role(world.users[name])
    beyond = [operation for operation in above if RANK[role] < RANK[operation.role]]
    assert beyond
    for operation in beyond:
        answer = call(world, operation, token)
        assert answer.status_code == 403, label(operation)
        refused(answer, "forbidden")


def test_5_the_holder_of_a_share_reaches_what_a_share_is_for(world: World, refused: Refused) -> None:
    Car(world)
    secret = share(world, world.token("maria")).json()["secret"]
    token = world.ask("POST", "/share-session", {"secret": secret}).json()["access_token"]
    for operation in closed:
        if not operation.shares:
            refused(call(world, operation, token), "forbidden")
    assert {label(operation) for operation in OPERATIONS if operation.shares} == {
        "DELETE /session",
        "GET /me",
        "POST /step-up",
        "GET /devices",
        "GET /devices/{name}",
        "GET /devices/{name}/state",
        "POST /devices/{name}/commands",
        "POST /events/ticket",
        "GET /events",
    }


# --- 6: unrestricted access to sensitive business flows -------------------------------------------------------------


@pytest.mark.parametrize("verb", sorted(STEP_UP))
def test_6_a_stolen_token_opens_no_door(world: World, refused: Refused, verb: str) -> None:
    car, token = Car(world), world.token("ada")
    refused(drive(world, token, verb), "step_up")
    assert car.done == []


# --- 8: security misconfiguration -----------------------------------------------------------------------------------


def test_8_errors_say_nothing_of_the_inside(world: World, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError(f"at {Path(__file__)}")

    monkeypatch.setattr(devices, "shown", fails)
    found = refused(world.ask("GET", "/devices", token=world.token("vera")), "failed")
    assert "RuntimeError" not in json.dumps(found)
    assert "RuntimeError" in world.lines.text


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "OPTIONS", "CONNECT", "HEAD"])
def test_8_other_methods_mean_nothing(world: World, method: str) -> None:
    answer = world.ask(method, "/devices", token=world.token("vera"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert "access-control-allow-origin" not in answer.headers  # no other site's page reads anything


# --- 9: improper inventory management -------------------------------------------------------------------------------


def test_9_every_operation_is_in_the_document_and_in_the_contract(world: World) -> None:
    document = world.ask("GET", "/openapi.json").json()
    shown = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert shown == {label(operation) for operation in OPERATIONS}
    contract = (Path(openapi.__file__).parent / "README.md").read_text()
    for operation in OPERATIONS:
        assert re.sub(r"{\w+}", "{", operation.path) in re.sub(r"{\w+}", "{", contract), operation.path


# --- 10: unsafe consumption of APIs: what nodes say -----------------------------------------------------------------


def test_10_a_node_says_what_it_wants_and_nothing_breaks(world: World) -> None:
    node, token = world.node("peanut"), world.token("vera")
    for said in (
        {"state": {"state": "online"}, "ts": "now"},
        {"state": "<script>", "why": ["x"], "fw": {}, "sim": "yes", "ts": True},
        {"faults": {"a": 1}, "readings": [1], "ts": [], "device": VIN},
    ):
        for leaf in ("status", "state", "telemetry", "event", "ack", "health", "session", "config/reported"):
            node.say(leaf, said)
    world.settle()
    answer = world.ask("GET", "/devices/peanut", token=token)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["presence"], found["sim"], found["faults"], found["name"]) == ("unknown", False, [], "peanut")
    assert openapi.shape.check(devices.DEVICE, found) is None
