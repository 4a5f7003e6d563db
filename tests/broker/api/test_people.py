"""Users, shares and the audit log: who may change what, and that it shows."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from peanutd.api import shares
from tests.broker.api.conftest import PASSWORD, START, Refused, World
from tests.broker.api.test_devices import VIN, Car, drive, proof

# --- users ------------------------------------------------------------------------------------------------------------


def test_an_admin_makes_changes_and_removes_users(world: World, refused: Refused) -> None:
    ada = world.token("ada")
    body = {"role": "operator", "password": "a long password", "scope": ["north"]}
    made = world.ask("PUT", "/users/tom", body, token=ada)
    assert made.status_code == 201
    assert made.json() == {"name": "tom", "role": "operator", "created": START, "scope": ["north"]}
    world.passwords["tom"] = "a long password"
    tom = world.token("tom")
    assert world.ask("GET", "/me", token=tom).json()["scope"] == ["north"]
    changed = world.ask("PUT", "/users/tom", {"role": "viewer", "scope": None}, token=ada)
    assert (changed.status_code, changed.json()["role"], changed.json()["scope"]) == (200, "viewer", None)
    assert world.ask("GET", "/me", token=tom).json()["role"] == "viewer"
    names = [user["name"] for user in world.ask("GET", "/users", token=ada).json()["users"]]
    assert names == ["ada", "maria", "tom", "vera"]
    assert world.ask("DELETE", "/users/tom", token=ada).status_code == 204
    refused(world.ask("GET", "/me", token=tom), "unauthorized")
    refused(world.ask("DELETE", "/users/tom", token=ada), "not_found")
    told = [(entry["target"], entry["outcome"]) for entry in world.entries(action="user")]
    assert told == [("tom", "removed"), ("tom", "changed"), ("tom", "made")]
    assert "a long password" not in json.dumps(world.entries())


def test_the_file_is_as_peanut_writes_it(world: World) -> None:
    """Agreement 1: the other program goes on with what this one has written, and the other way round."""
    for name in ("root.crt", "issuing.crt"):  # a fleet home, as far as this command looks
        (world.home / "ca").mkdir(exist_ok=True)
        (world.home / "ca" / name).touch()
    password = world.home / "password"
    password.write_text("another password\n")
    assert world.ask("PUT", "/users/tom", {"password": "a long password"}, token=world.token("ada")).status_code == 201
    peanut = [sys.executable, "-m", "peanut", "--home", str(world.home), "user"]
    shown = subprocess.run([*peanut, "list"], capture_output=True, text=True, check=True, timeout=60)
    assert "tom" in shown.stdout
    subprocess.run([*peanut, "passwd", "tom", "--password-file", str(password)], check=True, timeout=60)
    world.passwords["tom"] = "another password"
    assert world.token("tom")
    assert (world.home / "users.json").stat().st_mode & 0o777 == 0o600


def test_another_password_ends_all_other_sign_ins(world: World, refused: Refused) -> None:
    here, there = world.token("maria"), world.token("maria")
    body = {"password": "no", "new_password": "another password"}
    refused(world.ask("POST", "/me/password", body, token=here), "step_up")
    body["password"] = PASSWORD
    assert world.ask("POST", "/me/password", body, token=here).status_code == 204
    assert world.ask("GET", "/me", token=here).status_code == 200
    refused(world.ask("GET", "/me", token=there), "unauthorized")
    world.passwords["maria"] = "another password"
    assert world.token("maria")


@pytest.mark.parametrize(
    "body", [{"password": "short"}, {"password": "tomtomtomtom"}, {}, {"password": "tab\tin the password"}]
)
def test_a_password_that_will_not_do_is_refused(world: World, refused: Refused, body: dict[str, Any]) -> None:
    refused(world.ask("PUT", "/users/tom", body, token=world.token("ada")), "invalid")


def test_there_is_always_an_admin(world: World, refused: Refused) -> None:
    ada = world.token("ada")
    refused(world.ask("DELETE", "/users/ada", token=ada), "conflict")
    refused(world.ask("PUT", "/users/ada", {"role": "viewer"}, token=ada), "conflict")
    assert world.ask("PUT", "/users/maria", {"role": "admin"}, token=ada).status_code == 200
    assert world.ask("DELETE", "/users/ada", token=ada).status_code == 204


# --- shares -----------------------------------------------------------------------------------------------------------


def share(world: World, token: str, **more: Any) -> Any:
    body = {"device": VIN, "commands": ["unlock"], "from": world.now, "until": world.now + 7200, "note": "mechanic"}
    return world.ask("POST", "/shares", {**body, "password": PASSWORD, **more}, token=token)


def test_who_has_found_a_token_shares_no_door(world: World, refused: Refused) -> None:
    """The PIN of a share opens what a second proof opens, so it takes one to get it."""
    Car(world)
    maria = world.token("maria")
    body = {"device": VIN, "from": world.now, "until": world.now + 7200}
    for commands in (["unlock"], ["lock", "start"]):
        refused(world.ask("POST", "/shares", {**body, "commands": commands}, token=maria), "step_up")
    refused(share(world, maria, password="a guess"), "step_up")
    assert world.ask("POST", "/shares", {**body, "commands": ["lock"]}, token=maria).status_code == 201
    assert len(world.entries(action="share", outcome="refused")) == 3
    for _ in range(10):
        last = share(world, maria, password="a guess")
    refused(last, "too_often")


def enter(world: World, secret: str) -> Any:
    return world.ask("POST", "/share-session", {"secret": secret}, address="10.5.5.5")


def test_unlock_for_the_mechanic_from_two_to_four(world: World, refused: Refused) -> None:
    car, maria = Car(world), world.token("maria")
    world.enrol("peanut")
    made = share(world, maria, **{"from": START + 3600, "until": START + 10800})
    assert made.status_code == 201
    found = made.json()
    early = refused(enter(world, found["secret"]), "forbidden")
    assert early["from"] == START + 3600
    world.now = START + 3600
    session = enter(world, found["secret"]).json()
    assert "refresh_token" not in session
    token = session["access_token"]
    assert world.ask("GET", "/me", token=token).json()["share"]["commands"] == ["unlock"]
    (seen,) = world.ask("GET", "/devices", token=token).json()["devices"]
    assert (seen["name"], seen["commands"], seen["step_up"]) == (VIN, ["unlock"], ["unlock"])
    refused(world.ask("GET", "/devices/peanut", token=token), "not_found")
    refused(drive(world, token, "start"), "forbidden")
    for method, path in (("GET", "/users"), ("GET", "/sessions"), ("GET", "/shares"), ("GET", "/audit")):
        refused(world.ask(method, path, token=token), "forbidden")
    refused(proof(world, token, pin="nonsense"), "step_up")
    refused(proof(world, token, password=PASSWORD), "invalid")
    given = proof(world, token, pin=found["pin"]).json()["step_up"]
    assert drive(world, token, "unlock", step_up=given).status_code == 200
    assert car.done == ["unlock"]
    assert world.entries(action="answer")[0]["who"] == f"share/{found['id']}"
    world.now = START + 10800
    refused(world.ask("GET", "/me", token=token), "unauthorized")
    refused(enter(world, found["secret"]), "unauthorized")


def test_a_share_is_revoked_at_once(world: World, refused: Refused) -> None:
    Car(world)
    maria = world.token("maria")
    found = share(world, maria).json()
    token = enter(world, found["secret"]).json()["access_token"]
    refused(world.ask("DELETE", f"/shares/{found['id']}", token=world.token("vera")), "not_found")
    assert world.ask("DELETE", f"/shares/{found['id']}", token=maria).status_code == 204
    refused(world.ask("GET", "/me", token=token), "unauthorized")
    refused(enter(world, found["secret"]), "unauthorized")
    world.restart()
    refused(enter(world, found["secret"]), "unauthorized")
    (listed,) = world.ask("GET", "/shares", token=maria).json()["shares"]
    assert listed["revoked"] == START
    assert {"secret", "pin"}.isdisjoint(listed)


def test_a_share_is_worth_what_its_giver_may_do(world: World, refused: Refused) -> None:
    Car(world)
    refused(share(world, world.token("vera")), "forbidden")
    found = share(world, world.token("maria")).json()
    token = enter(world, found["secret"]).json()["access_token"]
    ada = world.token("ada")
    world.ask("PUT", "/users/maria", {"role": "viewer"}, token=ada)
    world.now += 5
    refused(drive(world, token, "unlock"), "forbidden")
    world.ask("PUT", "/users/maria", {"role": "operator", "scope": []}, token=ada)
    world.now += 5
    refused(drive(world, token, "unlock"), "not_found")
    world.ask("DELETE", "/users/maria", token=ada)
    refused(world.ask("GET", "/me", token=token), "unauthorized")


def test_who_is_held_to_groups_cannot_free_himself(world: World, refused: Refused) -> None:
    """Nor by a user whom he makes, changes or removes; and nobody holds himself, or nobody could free him."""
    ada = world.token("ada")
    refused(world.ask("PUT", "/users/ada", {"scope": ["north"]}, token=ada), "conflict")
    assert world.ask("GET", "/me", token=ada).json()["scope"] is None
    made = {"role": "admin", "password": "a long password", "scope": ["north"]}
    assert world.ask("PUT", "/users/tom", made, token=ada).status_code == 201
    world.passwords["tom"] = "a long password"
    tom = world.token("tom")
    for name, change in (("tom", {"scope": None}), ("eve", made), ("maria", {"password": "another password"})):
        refused(world.ask("PUT", f"/users/{name}", change, token=tom), "forbidden")
    refused(world.ask("DELETE", "/users/ada", token=tom), "forbidden")
    assert world.ask("GET", "/me", token=tom).json()["scope"] == ["north"]
    assert [one["name"] for one in world.ask("GET", "/users", token=ada).json()["users"]].count("eve") == 0
    assert world.ask("PUT", "/users/tom", {"scope": None}, token=ada).status_code == 200


@pytest.mark.parametrize("removed", ["here", "by peanut"])
def test_who_gets_the_name_of_somebody_who_is_gone_gets_nothing_of_his(
    world: World, refused: Refused, removed: str
) -> None:
    Car(world)
    secret, ada = share(world, world.token("maria")).json()["secret"], world.token("ada")
    if removed == "here":
        assert world.ask("DELETE", "/users/maria", token=ada).status_code == 204
    else:
        del world.users["maria"]
        world.write_users()
    body = {"role": "operator", "password": "a long password", "scope": None}
    assert world.ask("PUT", "/users/maria", body, token=ada).status_code == 201
    refused(enter(world, secret), "unauthorized")
    assert [one["revoked"] for one in world.ask("GET", "/shares", token=ada).json()["shares"]] == [START]


def test_a_pin_is_not_to_be_guessed(world: World, refused: Refused) -> None:
    Car(world)
    found = share(world, world.token("maria"), until=START + 86400).json()
    wrong = "000000" if found["pin"] != "000000" else "111111"
    codes = []
    for _ in range(shares.PIN_GUESSES):
        session = enter(world, found["secret"])
        codes.append(proof(world, session.json()["access_token"], pin=wrong).status_code)
        world.now += 60
    assert set(codes) == {403}
    refused(enter(world, found["secret"]), "unauthorized")


@pytest.mark.parametrize(
    "more",
    [
        {"until": START - 1},
        {"from": START + 10, "until": START + 10},
        {"until": START + shares.LONGEST + 1},
        {"commands": []},
        {"commands": ["fly"]},
        {"until": 1e300},
    ],
)
def test_a_share_that_makes_no_sense_is_refused(world: World, refused: Refused, more: dict[str, Any]) -> None:
    Car(world)
    refused(share(world, world.token("maria"), **more), "invalid")


def test_neither_link_nor_pin_are_stored(world: World) -> None:
    Car(world)
    found = share(world, world.token("maria")).json()
    world.close()
    stored = b"".join(path.read_bytes() for path in world.home.glob("api.db*"))
    world.open()
    assert found["secret"].encode() not in stored
    assert found["secret"] not in world.lines.text


# --- the audit log ----------------------------------------------------------------------------------------------------


@pytest.fixture
def auditor(world: World) -> str:
    """The token of an admin, who may check the log; there are a few lines in it."""
    token = world.token("ada")
    for _ in range(3):
        world.token("maria")
    return token


def check(world: World, token: str) -> Any:
    return world.ask("GET", "/audit/check", token=token).json()


def test_the_log_only_grows_and_a_change_shows(world: World, auditor: str) -> None:
    assert check(world, auditor)["whole"] is True
    with sqlite3.connect(world.home / "api.db") as database:
        for change in ("UPDATE audit SET who = 'user/vera' WHERE seq = 2", "DELETE FROM audit WHERE seq = 2"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(change)
        database.execute("DROP TRIGGER audit_stays")
        database.execute("UPDATE audit SET who = 'user/vera' WHERE seq = 2")
    found = check(world, auditor)
    assert (found["whole"], found["broken_at"]) == (False, 2)


def test_a_line_that_is_taken_out_or_put_in_shows(world: World, auditor: str) -> None:
    with sqlite3.connect(world.home / "api.db") as database:
        database.execute("DROP TRIGGER audit_keeps")
        database.execute("DELETE FROM audit WHERE seq = 3")
    assert check(world, auditor)["broken_at"] == 3


def test_a_line_that_is_written_anew_with_its_hash_shows_at_the_next_one(world: World, auditor: str) -> None:
    """Each holds the one before it: to change one is to write all that came later, and the last hash is elsewhere."""
    with sqlite3.connect(world.home / "api.db") as database:
        database.execute("DROP TRIGGER audit_stays")
        (before,) = database.execute("SELECT hash FROM audit WHERE seq = 1").fetchone()
        *row, _ = database.execute("SELECT * FROM audit WHERE seq = 2").fetchone()
        row[2] = "user/vera"
        digest = hashlib.sha256(json.dumps([before, *row]).encode()).hexdigest()
        database.execute("UPDATE audit SET who = ?, hash = ? WHERE seq = 2", (row[2], digest))
    assert check(world, auditor)["broken_at"] == 3


def test_it_is_read_in_pages_and_by_admins(world: World, refused: Refused) -> None:
    ada = world.token("ada")
    for _ in range(4):
        world.token("maria")
    first = world.ask("GET", "/audit?user=maria&limit=3", token=ada).json()
    second = world.ask("GET", f"/audit?user=maria&limit=3&before={first['next']}", token=ada).json()
    seqs = [entry["seq"] for entry in first["entries"] + second["entries"]]
    assert seqs == sorted(seqs, reverse=True)
    assert (len(seqs), second["next"]) == (4, None)
    entry = first["entries"][0]
    assert (entry["who"], entry["action"]) == ("user/maria", "sign-in")
    assert (entry["address"], entry["ts"]) == ("192.168.1.9", START)
    for name in ("maria", "vera"):
        refused(world.ask("GET", "/audit", token=world.token(name)), "forbidden")


def test_the_last_hash_is_told_where_the_database_is_not(world: World) -> None:
    world.token("maria")
    head = world.entries()[0]["hash"]
    world.restart()
    assert head in world.lines.text
