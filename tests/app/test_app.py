"""The phone app as a person uses it, in a real browser against the real gateway and real nodes: what most is done with.

Rule: each test is a story with an end that a person would see; one house serves them all, in the order of this file.
long_app.py tells the other stories, long_pages.py looks at every page.
"""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, Page, expect

from tests.app.conftest import (
    GREENHOUSE,
    MOST,
    PASSWORDS,
    PATIENCE_S,
    VIN,
    AppHouse,
    accessible,
    settle,
    shoot,
    sign_in,
    steps,
    watched,
)
from tests.system.conftest import wait_for
from tools.fleet import Node


def test_the_door(context: BrowserContext, home_of_app: AppHouse) -> None:
    """A wrong password is refused in the gateway's words, the right one lets in; a reload keeps the sign-in."""
    page = context.new_page()
    wrong = watched(page)
    page.goto(home_of_app.url)
    accessible(page)
    shoot(page, "door")
    page.get_by_label("User", exact=True).fill("anna")
    page.get_by_label("Password", exact=True).fill("not this one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    sign_in(page, home_of_app)
    page.reload()
    expect(page.get_by_role("navigation")).to_be_visible()
    page.get_by_role("link", name="More").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert not wrong, wrong


def test_a_temperature_is_changed_and_settles(page: Page, home_of_app: AppHouse, greenhouse: Node) -> None:
    """Through the fleet to the greenhouse; the node's word, and then the temperature itself; then a refusal and why."""
    sign_in(page, home_of_app)
    tile = page.get_by_role("link", name=re.compile(f"^{GREENHOUSE}"))
    expect(tile).to_contain_text(re.compile(r"\d+\.\d°"))
    accessible(page)
    shoot(page, "fleet")
    tile.click()
    steps(page, 15.0)
    page.get_by_role("button", name="Set to 15.0 °C").click()
    expect(page.locator("[data-stage=done]")).to_contain_text("Set point: done")
    expect(page.get_by_test_id("setpoint")).to_have_text("15.0 °C")
    settle(page, 15.0)
    steps(page, MOST + 1, keys=True)
    page.get_by_role("button", name=f"Set to {MOST + 1:.1f} °C").click()
    expect(page.locator("[data-stage=refused]")).to_contain_text(re.compile(r"refused.*range"))
    expect(page.get_by_test_id("setpoint")).to_have_text("15.0 °C")
    accessible(page)
    shoot(page, "refused")


def test_a_car_is_unlocked_with_a_second_proof(page: Page, home_of_app: AppHouse, vehicle: Node) -> None:
    """The wrong password opens nothing; the right one opens once; the horn needs none; what is not safe is refused."""
    sign_in(page, home_of_app, address=f"#/device/{VIN}")
    unlock = page.get_by_role("button", name="Unlock", exact=True)
    unlock.click()
    proof = page.get_by_role("dialog")
    accessible(page)
    proof.get_by_label("Password").fill("let me in")
    proof.get_by_role("button", name="Unlock").click()
    expect(proof.get_by_role("alert")).to_be_visible()
    shoot(page, "step-up")
    proof.get_by_label("Password").fill(PASSWORDS["anna"])
    proof.get_by_role("button", name="Unlock").click()
    expect(page.locator("[data-stage=done]")).to_contain_text("Unlock: done")
    expect(page.get_by_test_id("locked")).to_have_text("Unlocked")
    shoot(page, "vehicle")
    page.get_by_role("button", name="Lock", exact=True).click()
    expect(page.locator("[data-stage=done]")).to_contain_text("Lock: done")
    expect(page.get_by_test_id("locked")).to_have_text("Locked")
    accessible(page)
    page.goto(f"{home_of_app.url}#/shares/{VIN}")
    making = page.get_by_role("dialog")
    making.get_by_label("Lock", exact=True).check()
    expect(making.get_by_label("Password")).to_have_count(0)
    making.get_by_label("Unlock", exact=True).check()
    making.get_by_label("Password").fill(PASSWORDS["anna"])
    making.get_by_role("button", name="Share a command").click()
    expect(page.get_by_test_id("share-pin")).to_have_text(re.compile(r"^\d{6}$"))


def test_the_gateway_restarts_under_an_open_page(page: Page, home_of_app: AppHouse, greenhouse: Node) -> None:
    """What was known stays, marked as old, even over a reload without a gateway; then all comes back by itself."""
    sign_in(page, home_of_app, address=f"#/device/{GREENHOUSE}")
    expect(page.get_by_test_id("temperature")).to_contain_text(re.compile(r"\d"))
    wait_for(lambda: page.evaluate("navigator.serviceWorker.controller !== null"), "the service worker", PATIENCE_S)
    old = page.get_by_test_id("old")
    expect(old).to_have_count(0)
    home_of_app.stop()
    expect(old).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("^Set to"))).to_be_disabled()
    page.reload()
    expect(old).to_be_visible()
    expect(page.get_by_test_id("temperature")).to_contain_text(re.compile(r"\d"))
    shoot(page, "offline")
    home_of_app.start()
    expect(old).to_have_count(0)
    expect(page.locator(".pill", has_text="Offline")).to_have_count(0)
