"""The phone app as a person uses it: what is done with it now and then.

Rule: that of test_app.py, which has what is done every day.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from typing import Any

from playwright.sync_api import BrowserContext, Page, expect

from tests.app.conftest import GREENHOUSE, PASSWORDS, PATIENCE_S, VIN, Api, AppHouse, accessible, shoot, sign_in, steps
from tests.system.conftest import wait_for
from tools.fleet import Node

SHARE_S = 15.0
"""Seconds of a share that expires: enough to open a page on a machine that does eight things at once."""


def test_who_signs_out_without_a_connection_is_out(page: Page, context: BrowserContext, home_of_app: AppHouse) -> None:
    """The cookie is still there then, and no script can take it away."""
    sign_in(page, home_of_app, address="#/more")
    assert context.cookies(f"{home_of_app.url}api/v1/session")
    context.set_offline(True)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    context.set_offline(False)
    page.goto(f"{home_of_app.url}#/%/%E0%A4%A")  # nor does an address that means nothing stop the app
    page.reload()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    wait_for(lambda: not context.cookies(f"{home_of_app.url}api/v1/session"), "the gateway is told", PATIENCE_S)


def test_trusted_https_is_tried_not_assumed(context: BrowserContext, home_of_app: AppHouse) -> None:
    page = context.new_page()
    page.goto(home_of_app.url + "#/trust")
    expect(page.locator("[data-trust=trusted]")).to_be_visible()
    expect(page.get_by_text(re.compile(r"([0-9A-F]{2}:){31}[0-9A-F]{2}"))).to_be_visible()
    accessible(page)
    shoot(page, "trust", whole=True)


def test_localhost_needs_no_certificate(page: Page, home_of_app: AppHouse) -> None:
    """On the gateway's own PC, without TLS: trusted, signed in over a reload; by another name there is nothing."""
    sign_in(page, home_of_app, url=home_of_app.plain_url)
    page.goto(f"{home_of_app.plain_url}#/trust")
    page.reload()
    expect(page.get_by_role("navigation")).to_be_visible()
    expect(page.locator("[data-trust=local]")).to_be_visible()
    port = home_of_app.plain_url.rstrip("/").rpartition(":")[2]
    with socket.create_connection(("127.0.0.1", int(port)), PATIENCE_S) as rebound:
        rebound.sendall(b"GET / HTTP/1.1\r\nHost: evil.example:%s\r\n\r\n" % port.encode())
        assert rebound.recv(100).startswith(b"HTTP/1.1 421 ")


def test_a_car_that_says_nothing_is_not_said_to_have_honked(page: Page, home_of_app: AppHouse, vehicle: Node) -> None:
    """Connected, and silent: nobody knows whether it was done, and the page says so."""
    sign_in(page, home_of_app, address=f"#/device/{VIN}")
    expect(page.get_by_role("button", name="Horn")).to_be_enabled()
    assert vehicle.pid is not None
    os.kill(vehicle.pid, signal.SIGSTOP)
    try:
        page.get_by_role("button", name="Horn").click()
        silent = page.locator("[data-stage=silent]")
        expect(silent).to_contain_text("Horn: no answer")
        expect(silent).to_contain_text("Nobody knows")
        shoot(page, "no-answer")
    finally:
        os.kill(vehicle.pid, signal.SIGCONT)


def test_a_passkey_opens_without_the_password(page: Page, home_of_app: AppHouse, vehicle: Node) -> None:
    """Made in the settings with the phone's own authenticator; then a finger unlocks the car."""
    sign_in(page, home_of_app, address="#/settings")
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    phone = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": {**phone, "isUserVerified": True}})
    card = page.get_by_role("region", name="Passkeys")
    card.get_by_label("Name of this phone").fill("Anna's phone")
    card.get_by_label("Password").fill(PASSWORDS["anna"])
    card.get_by_role("button", name="Make a passkey").click()
    expect(card.get_by_role("listitem")).to_contain_text("Anna's phone")
    page.goto(f"{home_of_app.url}#/device/{VIN}")
    page.get_by_role("button", name="Unlock", exact=True).click()
    page.get_by_role("button", name="Use the passkey").click()
    expect(page.locator("[data-stage=done]")).to_contain_text("Unlock: done")
    expect(page.get_by_test_id("locked")).to_have_text("Unlocked")


def test_a_share_is_taken_back_and_another_one_expires(page: Page, home_of_app: AppHouse, vehicle: Node) -> None:
    """The mechanic unlocks the car with link and PIN and can do nothing else; when it is over he is outside."""
    api = Api(home_of_app)

    def share(lasts_s: float) -> dict[str, Any]:
        now = time.time()
        asked = {"device": VIN, "commands": ["unlock"], "from": now - 60, "until": now + lasts_s, "note": "mechanic"}
        asked["password"] = PASSWORDS["anna"]
        made = api.ask("POST", "/shares", asked)
        page.goto(f"{home_of_app.url}#/share/{made['secret']}")
        page.get_by_role("button", name="Go in").click()
        expect(page.get_by_role("navigation")).to_be_visible()
        return made

    given = share(3600)
    page.get_by_role("link", name=re.compile(VIN)).click()
    expect(page.get_by_role("button", name="Lock", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Unlock", exact=True).click()
    proof = page.get_by_role("dialog")
    proof.get_by_label("PIN").fill(given["pin"])
    proof.get_by_role("button", name="Unlock").click()
    expect(page.locator("[data-stage=done]")).to_contain_text("Unlock: done")
    shoot(page, "share")
    api.ask("DELETE", f"/shares/{given['id']}")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    share(SHARE_S)
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_group_is_brought_there(page: Page, home_of_app: AppHouse, greenhouse: Node) -> None:
    """A group is brought to a recipe, then to a set point by one act; its members are counted, a chart is drawn."""
    sign_in(page, home_of_app, address="#/recipes")
    page.get_by_role("button", name="New recipe").click()
    page.get_by_label("Name").fill("lettuce")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("img", name=re.compile("06:00: 20.0 °C"))).to_be_visible()
    page.goto(f"{home_of_app.url}#/groups")
    page.get_by_role("button", name="New group").click()
    page.get_by_label("Name").fill("north")
    page.get_by_label("Title").fill("North side")
    page.get_by_label(re.compile(f"^{GREENHOUSE}")).check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("North side")
    page.get_by_role("button", name="Recipe", exact=True).click()
    page.get_by_label("Recipe").select_option("lettuce")
    page.get_by_role("button", name="All to this recipe").click()
    expect(page.get_by_text("recipe lettuce")).to_be_visible()
    page.get_by_role("button", name="Set point", exact=True).click()
    steps(page, 16.0)
    page.get_by_role("button", name="All to 16.0 °C").click()
    expect(page.get_by_text("are at 16.0 °C")).to_be_visible()
    expect(page.get_by_test_id("progress")).to_have_text("1 / 1")
    shoot(page, "group")
    page.goto(f"{home_of_app.url}#/device/{GREENHOUSE}")
    expect(page.get_by_test_id("setpoint")).to_have_text("16.0 °C")
    expect(page.get_by_role("img", name=re.compile("on average"))).to_be_visible()
    expect(page.locator("canvas")).to_be_visible()
    shoot(page, "greenhouse", whole=True)


def test_a_viewer_sees_and_changes_nothing(page: Page, home_of_app: AppHouse, greenhouse: Node) -> None:
    sign_in(page, home_of_app, "joe", f"#/device/{GREENHOUSE}")
    expect(page.get_by_test_id("temperature")).to_contain_text(re.compile(r"\d"))
    expect(page.get_by_text("You may look, but not change anything here.")).to_be_visible()
    expect(page.get_by_role("button", name="Warmer")).to_have_count(0)
    page.get_by_role("link", name="More").click()
    expect(page.get_by_role("link", name="Users")).to_have_count(0)


def test_the_console_speaks_mqtt(page: Page, home_of_app: AppHouse, greenhouse: Node) -> None:
    sign_in(page, home_of_app, address="#/console")
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(page.get_by_role("log")).to_contain_text("Closed")
    page.get_by_label("Password").fill(PASSWORDS["anna"])
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(page.get_by_text("Connected", exact=True).first).to_be_visible()
    page.get_by_role("button", name="Subscribe").click()
    heard = page.get_by_role("log")
    expect(heard).to_contain_text("subscribed")
    expect(heard).to_contain_text("/plant/peanut/state")
    page.get_by_label("Topic", exact=True).fill(f"/plant/{GREENHOUSE}/UpdateTemperature")
    page.get_by_label("Payload").fill("temperature:16")
    page.get_by_role("button", name="Publish").click()
    expect(heard).to_contain_text("published")
    expect(heard).to_contain_text('"setpoint": 16')
    shoot(page, "console-phone")


def test_a_node_is_revoked_and_let_in_again(page: Page, home_of_app: AppHouse, greenhouse: Node) -> None:
    """With the password once more; it is offline at once, as the gateway says, and comes back by itself."""
    sign_in(page, home_of_app, address="#/certificates")
    for verb, then in (("Revoke", "Offline"), ("Let in again", "Hold|Heat|Vent")):
        page.get_by_role("button", name=f"{verb}: {GREENHOUSE}", exact=True).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Password").fill(PASSWORDS["anna"])
        dialog.get_by_role("button", name=verb).click()
        expect(dialog).to_have_count(0)
        if verb == "Revoke":
            expect(page.get_by_role("button", name=f"Let in again: {GREENHOUSE}", exact=True)).to_be_visible()
            shoot(page, "revoked")
        page.goto(f"{home_of_app.url}#/device/{GREENHOUSE}")
        expect(page.get_by_text(re.compile(f"^({then})")).first).to_be_visible()
        page.goto(f"{home_of_app.url}#/certificates")
    expect(page.get_by_text(re.compile(r"^\d+ days$")).first).to_be_visible()


def test_an_alert_is_raised_seen_to_and_over(page: Page, home_of_app: AppHouse, greenhouse: Node) -> None:
    """By a rule that comes while the page is open; it goes to the top of the fleet, and away with the rule's reason."""
    sign_in(page, home_of_app)
    rules = home_of_app.home / "alerts.toml"
    rule = f'[[rule]]\nid = "warm"\nwhat = "threshold"\nseverity = "critical"\ndevices = ["{GREENHOUSE}"]\nabove = '
    rules.write_text(f"{rule}1\n")
    expect(page.get_by_text("Need you: 1 of")).to_be_visible()
    expect(page.locator(".tile").first).to_have_class(re.compile("wrong"))
    shoot(page, "fleet-alert")
    page.get_by_role("link", name=re.compile("^Alerts")).click()
    page.get_by_role("button", name="I see to it").click()
    expect(page.get_by_text("anna sees to it")).to_be_visible()
    accessible(page)
    rules.write_text(f"{rule}60\n")
    expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    page.get_by_role("button", name="Over", exact=True).click()
    expect(page.get_by_text("anna sees to it")).to_be_visible()
    rules.unlink()
