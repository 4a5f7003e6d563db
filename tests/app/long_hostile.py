"""The app in front of nodes that somebody has taken over: whatever they say is shown as words, and breaks no page.

Rule: a node speaks with its own certificate, through the real gateway; what it says is markup, or of another shape than
it should be. No script of its runs, nothing goes wrong in a page, and every page comes up.
"""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from playwright.sync_api import Browser, Page, expect

from tests.app.conftest import PATIENCE_S, PHONE, Api, AppHouse, sign_in, watched
from tests.system.conftest import wait_for

GREENHOUSE = "evil"
VIN = "PEANUTBAD00000001"
MARKUP = '<img src=x onerror="window.taken=1"><script>window.taken=1</script>{{7*7}} ${taken=1} javascript:taken=1'
ODD: tuple[Any, ...] = (
    MARKUP,
    None,
    True,
    -1e300,
    1e300,
    [],
    [MARKUP],
    {},
    {"toString": MARKUP},
    "",
    0,
    "\u202e\u0000",
)
STATE = (
    "setpoint",
    "by",
    "temperature",
    "heater",
    "vent",
    "mode",
    "reason",
    "faults",
    "ts",
    "locked",
    "running",
    "speed",
)
READINGS = ("temperature", "outside", "latitude", "longitude", "speed", "fuel", "battery", "course", "rpm", "door")


class Taken:
    """A node's certificate in somebody else's hands."""

    def __init__(self, house: AppHouse, name: str, root: str, scratch: Path) -> None:
        bundle = house.home / "devices" / name
        key = load_der_private_key((bundle / "key.der").read_bytes(), None)
        (scratch / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        chain = (bundle / "cert.der").read_bytes()
        certificates = b""
        while chain:
            length = 4 + int.from_bytes(chain[2:4], "big")
            certificates += x509.load_der_x509_certificate(chain[:length]).public_bytes(Encoding.PEM)
            chain = chain[length:]
        (scratch / f"{name}.crt").write_bytes(certificates)
        self._root = root
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name)
        context = ssl.create_default_context(cafile=str(house.operator[0]))
        context.load_cert_chain(scratch / f"{name}.crt", scratch / f"{name}.key")
        self._client.tls_set_context(context)
        self._client.connect("localhost", house.port)
        self._client.loop_start()

    def say(self, leaf: str, said: Any, retain: bool = False) -> None:
        payload = said if isinstance(said, bytes) else json.dumps(said).encode()
        sent = self._client.publish(f"{self._root}/{leaf}", payload, qos=1, retain=retain)
        sent.wait_for_publish(PATIENCE_S)
        assert sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def lies(self, odd: Any) -> None:
        """Says it wherever it can."""
        now = int(time.time())
        self.say("status", {"state": "online", "why": odd, "fw": odd, "sim": odd, "ts": odd, "kind": odd}, retain=True)
        self.say("state", dict.fromkeys(STATE, odd), retain=True)
        self.say("telemetry", {"ts": now, "readings": {name: [odd, "ok", odd] for name in READINGS}, "codes": [odd]})
        self.say("telemetry", {"ts": odd, "readings": dict.fromkeys(READINGS, odd), "codes": odd})
        self.say("event", {"id": "frost", "text": odd, "clear": odd, "ts": now})
        self.say("health", dict.fromkeys(("up", "was", "heap", "rssi", "cert_days", "ends"), odd))
        self.say("log", {"line": odd, "was": odd, "lines": odd})
        self.say("config/reported", {"gen": odd, "errors": odd, "trial": odd}, retain=True)
        self.say("ota/status", {"stage": odd, "version": odd, "slot": odd, "why": odd}, retain=True)
        self.say("ack", {"id": odd, "cmd": odd, "stage": odd, "why": odd, "state": odd})

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.timeout(900)
def test_what_a_node_says_is_words_and_breaks_no_page(browser: Browser, home_of_app: AppHouse, tmp_path: Path) -> None:
    house = home_of_app
    house.device(GREENHOUSE)
    house.car(VIN)
    with httpx.Client(verify=ssl.create_default_context(cafile=str(house.home / "ca" / "root.crt"))) as stranger:
        said = {"user": MARKUP[:64], "password": "x"}
        stranger.post(f"{house.url}api/v1/session", json=said, headers={"User-Agent": MARKUP})
    api = Api(house)
    nodes = (
        Taken(house, GREENHOUSE, f"/plant/{GREENHOUSE}", tmp_path),
        Taken(house, VIN, f"vin/{VIN}", tmp_path),
    )
    context = browser.new_context(viewport=PHONE, locale="en-GB")
    context.set_default_timeout(1000 * PATIENCE_S)
    page = context.new_page()
    wrong = watched(page)
    page.on(
        "console",
        lambda line: wrong.append(line.text) if line.type == "error" and "resource" not in line.text else None,
    )
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    sign_in(page, house)
    for odd in (*ODD, MARKUP):
        for node in nodes:
            node.lies(odd)
        wait_for(lambda: api.ask("GET", f"/devices/{VIN}")["presence"] == "online", "heard", PATIENCE_S)
        visit(page, house, wrong, repr(odd))
    expect(page.get_by_text("<script>").first).to_be_visible()
    for node in nodes:
        node.close()
    context.close()


def visit(page: Page, house: AppHouse, wrong: list[str], odd: str) -> None:
    """Each page that shows what nodes and strangers say."""
    for address in ("", f"device/{GREENHOUSE}", f"device/{VIN}", "alerts", "audit", "certificates", f"device/{VIN}"):
        page.goto(f"{house.url}#/{address}")
        page.get_by_role("heading", level=1).or_(page.get_by_role("alert")).first.wait_for()
        assert not wrong, (odd, address, wrong)
        expect(page.get_by_text("One moment…")).to_have_count(0)
        assert page.evaluate("window.taken") is None, f"{odd} at {address}"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{odd} at {address} is too wide"
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert not wrong, (odd, wrong)
