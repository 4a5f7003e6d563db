"""Signing in: tokens, refresh, theft, guessing; who is out is out at once."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import jwt
import pytest

from peanutd.api import passwords, quota, sessions
from peanutd.api.audit import REFUSALS_PER_SECOND, Refusals
from peanutd.throttle import PER_ADDRESS, PER_USER, WINDOW
from tests.broker.api.conftest import PASSWORD, START, Refused, World


def test_a_password_gives_tokens_and_a_token_says_who(world: World) -> None:
    found = world.sign_in("maria")
    assert (found["token_type"], found["expires_in"]) == ("Bearer", 900)
    assert found["user"] == {"name": "maria", "role": "operator"}
    me = world.ask("GET", "/me", token=found["access_token"]).json()
    assert (me["name"], me["role"], me["scope"], me["share"]) == ("maria", "operator", None, None)


def test_what_is_wrong_is_wrong_in_the_same_words(world: World, refused: Refused) -> None:
    wrong = world.ask("POST", "/session", {"user": "maria", "password": "no"})
    nobody = world.ask("POST", "/session", {"user": "nobody", "password": "no"})
    assert refused(wrong, "unauthorized") == refused(nobody, "unauthorized")
    assert wrong.headers["www-authenticate"].startswith("Bearer")
    assert [(entry["who"], entry["outcome"]) for entry in world.entries(action="sign-in")] == [
        ("user/nobody", "refused"),
        ("user/maria", "refused"),
    ]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer x", "Basic bWFyaWE6eA==", "Bearer a.b.c"])
def test_without_a_token_nobody_is_anybody(world: World, refused: Refused, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    refused(world.ask("GET", "/me", headers=headers), "unauthorized")


def forged(claims: dict[str, Any], key: str | bytes, algorithm: str, typ: str = "at+jwt") -> str:
    return jwt.encode(claims, key, algorithm, {"typ": typ})


def test_a_token_that_is_not_ours_is_none(world: World, refused: Refused) -> None:
    real = world.token("maria")
    claims = jwt.decode(real, options={"verify_signature": False})
    head, body, signature = real.split(".")
    admin = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "user/ada"}).encode()).decode().rstrip("=")
    for token in (
        forged(claims, "k" * 32, "HS256"),
        forged(claims, "", "none"),
        f"{head}.{admin}.{signature}",
        f"{head}.{body}.",
        world.services.keys.refresh("x", 0),
    ):
        refused(world.ask("GET", "/me", token=token), "unauthorized")
    # The right key and another purpose: an ID token, say. It must not do.
    other = forged(claims, world.services.keys._access, "HS256", typ="JWT")
    refused(world.ask("GET", "/me", token=other), "unauthorized")
    assert world.ask("GET", "/me", token=real).status_code == 200


def test_an_access_token_lasts_a_quarter_of_an_hour(world: World, refused: Refused) -> None:
    token = world.token("maria")
    world.now = START + sessions.ACCESS_LIFETIME - 1
    assert world.ask("GET", "/me", token=token).status_code == 200
    world.now = START + sessions.ACCESS_LIFETIME
    refused(world.ask("GET", "/me", token=token), "unauthorized")


def test_what_a_clock_that_was_ahead_has_given_does_not_last(world: World, refused: Refused) -> None:
    world.now = START + 365 * 86400
    given = world.sign_in("maria")
    world.now = START
    world.services.rate = quota.Rate()  # its clock cannot be put, and here it is the same one
    refused(world.ask("GET", "/me", token=given["access_token"]), "unauthorized")
    fresh = world.ask("POST", "/session/refresh", {"refresh_token": given["refresh_token"]}).json()
    assert world.ask("GET", "/me", token=fresh["access_token"]).status_code == 200, "and nobody has to sign in anew"


def test_a_refresh_token_works_once_and_a_copy_ends_the_sign_in(world: World, refused: Refused) -> None:
    first = world.sign_in("maria")
    second = world.ask("POST", "/session/refresh", {"refresh_token": first["refresh_token"]}).json()
    third = world.ask("POST", "/session/refresh", {"refresh_token": second["refresh_token"]}).json()
    assert world.ask("GET", "/me", token=third["access_token"]).status_code == 200
    # The thief comes with an old one: nobody knows who is who, so all of it is over, at once.
    refused(world.ask("POST", "/session/refresh", {"refresh_token": first["refresh_token"]}), "unauthorized")
    refused(world.ask("POST", "/session/refresh", {"refresh_token": third["refresh_token"]}), "unauthorized")
    for one in (first, second, third):
        refused(world.ask("GET", "/me", token=one["access_token"]), "unauthorized")
    (entry,) = world.entries(action="refresh")
    assert (entry["who"], entry["outcome"]) == ("user/maria", "refused")
    assert world.sign_in("maria")


def test_an_answer_that_was_lost_on_the_way_is_given_again_for_a_moment(world: World, refused: Refused) -> None:
    first = world.sign_in("maria")["refresh_token"]

    def again(token: str) -> Any:
        return world.ask("POST", "/session/refresh", {"refresh_token": token})

    lost = again(first).json()["refresh_token"]
    world.restart()
    world.now += sessions.GRACE - 1
    found = again(first).json()
    assert found["refresh_token"] == lost, "the same answer, and nothing new in the world"
    assert world.ask("GET", "/me", token=found["access_token"]).status_code == 200
    later = again(lost).json()["refresh_token"]
    world.now += sessions.GRACE
    refused(again(lost), "unauthorized")  # too late: it was copied
    refused(again(later), "unauthorized")
    assert len(world.entries(action="refresh", outcome="refused")) == 1


def test_of_a_sign_in_that_is_over_no_answer_is_given_again(world: World, refused: Refused) -> None:
    first = world.sign_in("maria")["refresh_token"]
    second = world.ask("POST", "/session/refresh", {"refresh_token": first}).json()
    world.ask("DELETE", "/session", token=second["access_token"])
    refused(world.ask("POST", "/session/refresh", {"refresh_token": first}), "unauthorized")


def test_two_that_come_with_one_refresh_token_at_once_get_the_same_answer(world: World) -> None:
    """Two pages of one browser, say."""
    token = world.sign_in("maria")["refresh_token"]

    async def both() -> list[Any]:
        asked = (world.asking("POST", "/session/refresh", {"refresh_token": token}) for _ in range(2))
        return [answer.json()["refresh_token"] for answer in await asyncio.gather(*asked)]

    one, other = world.run(both())
    assert one == other != token


def test_guessed_refresh_tokens_are_none_and_end_nothing(world: World, refused: Refused) -> None:
    found = world.sign_in("maria")
    family, counter, signature = found["refresh_token"].split(".")
    for token in (
        "",
        "x",
        "..",
        f"{family}.1.{signature}",
        f"{family}.-1.{signature}",
        f"{family}.00.{signature}",
        "ü.0.ü",
    ):
        refused(world.ask("POST", "/session/refresh", {"refresh_token": token}), "unauthorized")
    assert counter == "0"
    assert world.ask("GET", "/me", token=found["access_token"]).status_code == 200


def test_sign_ins_survive_a_restart_and_those_that_ended_do_not(world: World, refused: Refused) -> None:
    stays, ends = world.sign_in("maria"), world.sign_in("maria")
    assert world.ask("DELETE", "/session", token=ends["access_token"]).status_code == 204
    world.restart()
    assert world.ask("GET", "/me", token=stays["access_token"]).status_code == 200
    refused(world.ask("GET", "/me", token=ends["access_token"]), "unauthorized")
    assert world.ask("POST", "/session/refresh", {"refresh_token": stays["refresh_token"]}).status_code == 200
    world.now += sessions.GRACE
    refused(world.ask("POST", "/session/refresh", {"refresh_token": stays["refresh_token"]}), "unauthorized")


def test_a_sign_in_ends_after_a_month_without_use_and_after_three_in_any_case(world: World, refused: Refused) -> None:
    found = world.sign_in("maria")
    day = 86400.0
    for _ in range(3):
        world.now += 29 * day
        found = world.ask("POST", "/session/refresh", {"refresh_token": found["refresh_token"]}).json()
    world.now = START + sessions.LONGEST
    refused(world.ask("POST", "/session/refresh", {"refresh_token": found["refresh_token"]}), "unauthorized")
    idle = world.sign_in("maria")
    world.now += sessions.IDLE
    refused(world.ask("POST", "/session/refresh", {"refresh_token": idle["refresh_token"]}), "unauthorized")


def test_a_new_password_or_role_or_no_user_counts_at_once(world: World, refused: Refused) -> None:
    maria, vera = world.sign_in("maria"), world.sign_in("vera")
    world.users["maria"] = "viewer"
    del world.users["vera"]
    kept = json.loads((world.home / "users.json").read_text())
    kept["users"]["maria"]["role"] = "viewer"
    del kept["users"]["vera"]
    (world.home / "users.json").write_text(json.dumps(kept))
    assert world.ask("GET", "/me", token=maria["access_token"]).json()["role"] == "viewer"
    refused(world.ask("GET", "/me", token=vera["access_token"]), "unauthorized")
    world.passwords["maria"] = "another horse"
    world.write_users()
    refused(world.ask("GET", "/me", token=maria["access_token"]), "unauthorized")
    refused(world.ask("POST", "/session/refresh", {"refresh_token": maria["refresh_token"]}), "unauthorized")


# --- the cookie -------------------------------------------------------------------------------------------------------


def test_the_cookie_is_for_no_script_and_no_other_site(world: World, refused: Refused) -> None:
    answer = world.ask("POST", "/session", {"user": "maria", "password": PASSWORD, "cookie": True})
    assert "refresh_token" not in answer.json()
    cookie = answer.headers["set-cookie"]
    for part in ("__Secure-peanut=", "HttpOnly", "Secure", "SameSite=strict", "Path=/api/v1/session"):
        assert part in cookie
    own = {"Cookie": cookie.partition(";")[0], "Origin": "https://gateway.local", "Sec-Fetch-Site": "same-origin"}
    refused(world.ask("POST", "/session/refresh", {}, headers=own), "csrf")  # a form of ours cannot either
    for wrong in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        refused(world.ask("POST", "/session/refresh", {}, headers={**own, "X-Peanut": "1", **wrong}), "csrf")
    good = world.ask("POST", "/session/refresh", {}, headers={**own, "X-Peanut": "1"})
    assert good.status_code == 200
    assert "refresh_token" not in good.json()
    out = world.ask("DELETE", "/session", token=good.json()["access_token"])
    assert "Max-Age=0" in out.headers["set-cookie"]


# --- guessing ---------------------------------------------------------------------------------------------------------


def guess(world: World, name: str = "maria", address: str = "10.0.0.1", password: str = "no") -> int:
    return world.ask("POST", "/session", {"user": name, "password": password}, address=address).status_code


def test_after_five_wrong_passwords_an_address_waits_for_a_minute(world: World) -> None:
    assert [guess(world) for _ in range(PER_USER)] == [401] * PER_USER
    answer = world.ask("POST", "/session", {"user": "maria", "password": PASSWORD}, address="10.0.0.1")
    assert answer.status_code == 429  # not even the right one
    assert 1 <= int(answer.headers["retry-after"]) <= WINDOW
    assert guess(world, address="10.0.0.2", password=PASSWORD) == 200
    world.now += WINDOW
    assert guess(world, password=PASSWORD) == 200


def test_an_address_that_tries_many_users_waits_too(world: World) -> None:
    assert {guess(world, name=f"user{number}") for number in range(PER_ADDRESS)} == {401}
    assert guess(world, name="vera", password=PASSWORD) == 429


def test_many_addresses_that_guess_one_user_lock_themselves_out_and_not_him(world: World) -> None:
    world.sign_in("maria", address="192.168.1.9")
    tried = [guess(world, address=f"10.1.{number}.1") for number in range(passwords.LOCKED_AFTER)]
    assert set(tried) == {401}
    assert guess(world, address="10.2.0.1", password=PASSWORD) == 429
    assert guess(world, address="192.168.1.9", password=PASSWORD) == 200  # from home she comes in
    assert guess(world, name="vera", address="10.2.0.1", password=PASSWORD) == 200


def test_who_guesses_for_ever_fills_no_disk(world: World) -> None:
    """Of refused sign-ins so many are written as may be, and the next entry counts the rest; who signs in is always
    written.
    """
    world.services.refusals = Refusals(world.services.audit, lambda: world.now, most=3)
    assert {guess(world, name=f"user{number}", address=f"10.4.{number}.1") for number in range(8)} == {401}
    world.sign_in("maria")
    said = [entry["who"] for entry in world.entries(action="sign-in")]
    assert said == ["user/maria", "user/user2", "user/user1", "user/user0"]
    world.now += 1 / REFUSALS_PER_SECOND
    assert [guess(world, name=name, address="10.5.0.1") for name in ("later", "again")] == [401, 401]
    latest = world.entries(action="sign-in")[0]
    assert (latest["who"], latest["detail"]) == ("user/later", {"unwritten": 5})
    assert world.run(world.services.audit.broken())[2] is None


def test_guesses_side_by_side_do_not_add_up(world: World) -> None:
    async def many() -> list[int]:
        body = {"user": "maria", "password": "no"}
        asked = (world.asking("POST", "/session", body, address="10.0.0.1") for _ in range(3 * PER_USER))
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert world.run(many()).count(401) <= PER_USER + passwords.WORKERS


def test_more_than_can_be_checked_are_told_to_come_again(world: World) -> None:
    async def many() -> list[int]:
        places = passwords.WORKERS + passwords.WAITING
        body = {"user": "maria", "password": PASSWORD}
        asked = (world.asking("POST", "/session", body, address=f"10.3.0.{one}") for one in range(places + 8))
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    found = world.run(many())
    assert found.count(429) == 8
    assert found.count(200) == len(found) - 8


def test_whoever_asks_too_much_waits_for_himself(world: World, refused: Refused) -> None:
    maria, vera = world.token("maria"), world.token("vera")
    for _ in range(int(quota.BURST)):
        assert world.ask("GET", "/me", token=maria).status_code == 200
    answer = world.ask("GET", "/me", token=maria)
    refused(answer, "too_often")
    assert int(answer.headers["retry-after"]) >= 1
    assert world.ask("GET", "/me", token=vera).status_code == 200
    world.now += 1
    assert world.ask("GET", "/me", token=maria).status_code == 200


# --- sign-ins of one's own ------------------------------------------------------------------------------------------


def test_one_sees_and_ends_ones_own_sign_ins_and_an_admin_those_of_others(world: World, refused: Refused) -> None:
    here, there = world.sign_in("maria"), world.sign_in("maria", address="10.9.9.9")
    token = here["access_token"]
    found = world.ask("GET", "/sessions", token=token).json()["sessions"]
    assert {(one["address"], one["current"]) for one in found} == {("192.168.1.9", True), ("10.9.9.9", False)}
    other = next(one["id"] for one in found if not one["current"])
    vera = world.token("vera")
    refused(world.ask("DELETE", f"/sessions/{other}", token=vera), "not_found")
    refused(world.ask("GET", "/sessions?user=maria", token=vera), "forbidden")
    assert len(world.ask("GET", "/sessions?user=maria", token=world.token("ada")).json()["sessions"]) == 2
    assert world.ask("DELETE", f"/sessions/{other}", token=token).status_code == 204
    refused(world.ask("GET", "/me", token=there["access_token"]), "unauthorized")
    assert world.ask("GET", "/me", token=token).status_code == 200


def test_the_sign_in_that_was_used_least_gives_way(world: World, refused: Refused) -> None:
    first = world.sign_in("maria")["access_token"]
    for _ in range(sessions.PER_USER - 1):
        world.now += 1
        last = world.token("maria")
    assert world.ask("GET", "/me", token=first).status_code == 200
    world.token("maria")
    refused(world.ask("GET", "/me", token=first), "unauthorized")
    assert world.ask("GET", "/me", token=last).status_code == 200


def test_nothing_that_logs_anybody_in_is_stored(world: World) -> None:
    found = world.sign_in("maria")
    world.close()
    stored = b"".join(path.read_bytes() for path in world.home.glob("api.db*"))
    world.open()
    for secret in (found["access_token"], found["refresh_token"], PASSWORD):
        assert secret.encode() not in stored
        assert secret not in world.lines.text
    for name in ("api.db", "api.key"):
        assert (world.home / name).stat().st_mode & 0o777 == 0o600
