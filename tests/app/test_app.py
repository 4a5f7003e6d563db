"""The phone app as a person uses it, in a real browser against the real gateway and real nodes.

Rule: each test is a story with an end that a person would see; one house serves them all, in the order of this file.
"""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, expect

from tests.app.conftest import AppHouse, accessible, shoot, sign_in, watched


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


def test_trusted_https_is_tried_not_assumed(context: BrowserContext, home_of_app: AppHouse) -> None:
    page = context.new_page()
    page.goto(home_of_app.url + "#/trust")
    expect(page.locator("[data-trust=trusted]")).to_be_visible()
    expect(page.get_by_text(re.compile(r"([0-9A-F]{2}:){31}[0-9A-F]{2}"))).to_be_visible()
    accessible(page)
    shoot(page, "trust", whole=True)
