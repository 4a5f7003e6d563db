"""Notices on the phone, from the gateway to what is shown: a browser that has subscribed, its push service, and
Chromium behind it.

Rule: what Chromium has no service for on a machine without Google's is made here: the subscription with its key, and
the push service, which hands on to Chromium what it could decrypt. All else is the app's, its worker's and the
gateway's own.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.app.conftest import PATIENCE_S, AppHouse, sign_in
from tests.broker.receivers import Browser as Receiver
from tests.broker.receivers import Web, certificate
from tests.system.conftest import wait_for

SUBSCRIBES = """
(() => {
  const made = %s;
  const subscription = {
    toJSON: () => made,
    unsubscribe: async () => { localStorage.removeItem('test.push'); return true; },
  };
  PushManager.prototype.getSubscription = async () => localStorage.getItem('test.push') ? subscription : null;
  PushManager.prototype.subscribe = async ({ userVisibleOnly, applicationServerKey }) => {
    if (!userVisibleOnly || applicationServerKey.length !== 65) throw new Error('no such key');
    localStorage.setItem('test.push', 'yes');
    return subscription;
  };
})()
"""
SHOWN = "navigator.serviceWorker.ready.then(r => r.getNotifications()).then(a => a.map(n => [n.title, n.body, n.data]))"


class Worker:
    """The app's service worker, as Chromium's tools reach it."""

    def __init__(self, context: BrowserContext, page: Page, origin: str) -> None:
        self._origin = origin
        self._tools = context.new_cdp_session(page)
        self._known: list[str] = []
        self._tools.on("ServiceWorker.workerRegistrationUpdated", self._seen)
        self._tools.send("ServiceWorker.enable")
        wait_for(lambda: page.wait_for_timeout(50) or self._known, "the service worker", PATIENCE_S)

    def _seen(self, event: dict[str, Any]) -> None:
        self._known += [one["registrationId"] for one in event["registrations"] if not one["isDeleted"]]

    def gets(self, text: str) -> None:
        """A push message whose text it is."""
        told = {"origin": self._origin, "registrationId": self._known[-1], "data": text}
        self._tools.send("ServiceWorker.deliverPushMessage", told)


def subscriptions(house: AppHouse) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(house.home / "alerts.db", timeout=PATIENCE_S)) as db:
        return list(db.execute("SELECT user, endpoint FROM subscription"))


@pytest.mark.timeout(600)  # the gateway looks for new nodes each minute
def test_frost_is_shown_on_the_phone_of_whoever_is_signed_in(
    browser: Browser, home_of_app: AppHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, receiver = home_of_app, Receiver()
    pem, _ = certificate(tmp_path)
    service = Web(pem)
    rules = f'push_services = ["{service.place}"]\n[[tell]]\nname = "push"\npush = true\n'
    rule = '[[rule]]\nid = "never-seen"\nwhat = "silence"\nfor_s = 0\n'
    (house.home / "alerts.toml").write_text(rules)
    # The gateway trusts whom its machine trusts: here that is the push service.
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    house.stop()
    house.start()
    origin = house.url.rstrip("/")
    context = browser.new_context(locale="en-GB")
    context.grant_permissions(["notifications"], origin=origin)
    keys = {"p256dh": receiver.p256dh, "auth": receiver.auth}
    context.add_init_script(SUBSCRIBES % json.dumps({"endpoint": f"{service.url}/phone", "keys": keys}))
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    sign_in(page, house, address="#/settings")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.reload()
    wanted = page.get_by_label("Tell this phone about alerts")
    expect(wanted).not_to_be_checked()
    wanted.click()
    expect(wanted).to_be_checked()
    assert subscriptions(house) == [("anna", f"{service.url}/phone")]

    house.device("silent")
    (house.home / "alerts.toml").write_text(rules + rule)
    wait_for(lambda: service.got, "the notice at its push service", 240)
    _, headers, body = service.got[0]
    assert headers["content-encoding"] == "aes128gcm"
    text = receiver.read(body).decode()
    assert "silent" in text
    Worker(context, page, origin).gets(text)
    said = json.loads(text)
    wait_for(lambda: page.evaluate(SHOWN) == [[said["title"], said["body"], "#/alerts"]], "a notice", PATIENCE_S)

    page.goto(f"{house.url}#/more")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    wait_for(lambda: not subscriptions(house), "told no more", PATIENCE_S)
    assert page.evaluate("localStorage.getItem('peanut.push')") is None
    assert page.evaluate("localStorage.getItem('test.push')") is None, "the browser has given up its subscription"
    context.close()
    service.end()
