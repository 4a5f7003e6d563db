"""A browser in front of a whole house: Chromium, the gateway with the built app, and nodes that run the firmware.

The rule it keeps: the browser trusts this gateway's key, and no other, by its pin, so that the service worker runs as
on a phone with the fleet's CA; nothing of ours is stood in for. Waiting is the browser's own, on what is to be seen.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.system.conftest import House, wait_for
from tools.fleet import Node
from tools.ports import free_port

PATIENCE_S = 90.0
"""Seconds within which what ought to be on the screen is there, on a machine that does eight things at once."""
PATIENCE_MS = PATIENCE_S * 1000
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 860}
GREENHOUSE = "peanut"
VIN = "PEANUTTEST0000001"
MOST = 20.0
"""What this greenhouse allows, so that a person gets a refusal with a few taps."""
SCREENS = Path(__file__).parent / "screens"
AXE = Path(__file__).parents[2] / "broker" / "app" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
# Nobody's anywhere else: made for a fleet that lives for a minute.
PASSWORDS = {"anna": "forty-two tomatoes", "joe": "just looking around"}

expect.set_options(timeout=PATIENCE_MS)


class AppHouse(House):
    """A house whose gateway serves the app, with an admin, anna, and a viewer, joe."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.https = free_port()
        self.url = f"https://localhost:{self.https}/"
        local = free_port()
        self.plain_url = f"http://localhost:{local}/"
        (home / "gateway.toml").write_text(
            f'[listen]\nmqtts = "127.0.0.1:{self.port}"\nhttps = "127.0.0.1:{self.https}"\n'
            f'[https]\nlocal = "127.0.0.1:{local}"\n'
        )
        for name, role in (("anna", "admin"), ("joe", "viewer")):
            secret = home / f"{name}.pass"
            secret.write_text(PASSWORDS[name] + "\n")
            self.peanut("user", "add", name, "--role", role, "--password-file", str(secret), check=True)
            secret.unlink()

    def car(self, vin: str) -> Node:
        """A car, parked for as long as the tests last; not started yet."""
        quick = (
            "report.telemetry_s=1",
            "link.base_s=0.2",
            "link.cap_s=2",
            "link.first_s=0.5",
            "simulate.parked_s=3600",
        )
        sets = [word for setting in quick for word in ("--set", setting)]
        self.peanut("device", "add", vin, "--kind", "vehicle", "--board", "sim", *sets, check=True)
        return Node(self.home / "devices" / vin)

    @property
    def pin(self) -> str:
        """SHA-256 of the gateway's public key, as Chromium wants it."""
        certificate = x509.load_pem_x509_certificate((self.home / "gateway" / "gateway.crt").read_bytes())
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(key).digest()).decode()


class Api:
    """The gateway's API for what a test prepares; anna asks."""

    def __init__(self, house: AppHouse) -> None:
        self._base = house.url + "api/v1"
        self._context = ssl.create_default_context(cafile=str(house.home / "ca" / "root.crt"))
        self._token = ""
        self._token = self.ask("POST", "/session", {"user": "anna", "password": PASSWORDS["anna"]})["access_token"]

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer's body, or an empty one; urllib's HTTPError for what is refused."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, sent, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S, context=self._context) as answer:
            found: dict[str, Any] = json.loads(answer.read() or b"{}")
            return found


def chromium() -> str:
    """The browser's program; the test is skipped where there is none, and fails in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "chromium is missing: sudo apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def home_of_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppHouse]:
    """A house with a running gateway, for all the tests of a file."""
    chromium()
    house = AppHouse(tmp_path_factory.mktemp("app") / "fleet")
    with house.served():
        yield house


@pytest.fixture(scope="module")
def browser(home_of_app: AppHouse) -> Iterator[Browser]:
    """Chromium, which trusts the house's gateway."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=chromium(), args=[*CHROMIUM, f"--ignore-certificate-errors-spki-list={home_of_app.pin}"]
        )
        yield made
        made.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A phone that has never seen the app; nothing that it does may be an error in its console."""
    made = browser.new_context(viewport=PHONE, device_scale_factor=2, locale="en-GB", has_touch=True)
    made.set_default_timeout(PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def greenhouse(home_of_app: AppHouse) -> Iterator[Node]:
    """A running greenhouse."""
    with home_of_app.node(GREENHOUSE, f"control.max={MOST}") as node:
        yield node


@pytest.fixture(scope="module")
def vehicle(home_of_app: AppHouse) -> Iterator[Node]:
    """A running car, parked for as long as the tests of a file last."""
    with home_of_app.car(VIN) as node:
        yield node


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page in which nothing goes wrong."""
    made = context.new_page()
    wrong = watched(made)
    yield made
    assert not wrong, wrong


def watched(page: Page) -> list[str]:
    """A list that gets whatever goes wrong in the page: exceptions, and what the content policy refuses."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    return wrong


def sign_in(page: Page, house: AppHouse, user: str = "anna", address: str = "", url: str = "") -> None:
    """From the door to the fleet, or to the page of `address`."""
    page.goto((url or house.url) + address)
    page.get_by_label("User", exact=True).fill(user)
    page.get_by_label("Password", exact=True).fill(PASSWORDS[user])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation").wait_for()


def settle(page: Page, wanted: float, by: float = 0.8) -> None:
    """Waits until the big number is near enough."""
    number = page.get_by_test_id("temperature")
    wait_for(lambda: abs(float(number.inner_text().removesuffix("°C")) - wanted) <= by, f"{wanted} °C", PATIENCE_S)


def steps(page: Page, wanted: float, *, keys: bool = False) -> None:
    """Taps the stepper until it says `wanted`; with `keys` by its arrow keys."""
    draft = page.get_by_test_id("draft")
    for _ in range(60):
        now = float(draft.inner_text().split()[0])
        if now == wanted:
            return
        button = page.get_by_role("button", name="Warmer" if now < wanted else "Colder")
        if keys:
            button.press("ArrowUp" if now < wanted else "ArrowDown")
        else:
            button.click()
        expect(draft).not_to_have_text(f"{now:.1f} °C")
    raise AssertionError(f"the stepper does not come to {wanted}")


def shoot(page: Page, name: str, *, whole: bool = False) -> None:
    """A picture for people, in tests/app/screens/."""
    SCREENS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png", full_page=whole)


def walk(browser: Browser, house: AppHouse, pages: dict[str, str]) -> None:
    """Looks at these pages ({name: address}) on a desk in the dark, then on a phone in Chinese: nothing goes wrong, axe
    finds nothing serious, nothing is wider than the phone; a picture of each."""
    context = browser.new_context(viewport=DESKTOP, locale="en-GB", color_scheme="dark")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong = watched(page)
    sign_in(page, house)

    def visit(moment: str, device: str, *, whole: bool) -> None:
        for name, address in pages.items():
            page.goto(f"{house.url}#/{address}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            expect(page.get_by_text(moment)).to_have_count(0)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
            accessible(page)
            shoot(page, f"{name}-{device}", whole=whole)

    visit("One moment…", "desktop-dark", whole=False)
    page.goto(f"{house.url}#/settings")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("设置")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="light")
    visit("请稍候…", "phone-zh", whole=True)
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert not wrong, wrong
    context.close()


def accessible(page: Page) -> None:
    """axe finds nothing serious on the page as it is."""
    page.evaluate(AXE.read_text() + ";void 0")
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
        ".then(r => r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html + ' ' + n.failureSummary)]))"
    )
    serious = [one for one in found if one[0] in ("serious", "critical")]
    assert not serious, serious
