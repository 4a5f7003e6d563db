"""Every page of the app in both languages, on a desk in the dark and on a phone in the light, before axe.

Rule: each page is looked at with something on it.
"""

from __future__ import annotations

from playwright.sync_api import Browser

from tests.app.conftest import GREENHOUSE, VIN, AppHouse, walk
from tools.fleet import Node

PAGES = {
    "fleet": "",
    "greenhouse": f"device/{GREENHOUSE}",
    "vehicle": f"device/{VIN}",
    **{
        name: name
        for name in (
            *("alerts", "groups", "recipes", "more", "settings", "users", "shares"),
            *("onboard", "certificates", "audit", "console", "trust"),
        )
    },
}


def test_every_page_in_both_languages_and_sizes(
    browser: Browser, home_of_app: AppHouse, greenhouse: Node, vehicle: Node
) -> None:
    walk(browser, home_of_app, PAGES)
