"""Web Push: the example of RFC 8291, what a browser reads, and whom the gateway does not call."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from peanutd import webpush
from peanutd.alert_rules import SERVICES
from peanutd.webpush import PushError
from tests.broker.receivers import Browser, data, text, vapid

# RFC 8291 §5
WORDS = b"When I grow up, I want to be a watermelon"
RECEIVER = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
RECEIVER_POINT = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
    "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def private(text_: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(data(text_), "big"), ec.SECP256R1())


def test_the_example_of_the_standard() -> None:
    made = webpush.encrypt(WORDS, RECEIVER_POINT, AUTH, sender=private(SENDER), salt=data(SALT))
    assert text(made) == BODY
    browser = Browser(private(RECEIVER), data(AUTH))
    assert browser.p256dh == RECEIVER_POINT
    assert browser.read(made) == WORDS


def test_no_two_messages_are_alike() -> None:
    browser = Browser()
    one, two = (webpush.encrypt(WORDS, browser.p256dh, browser.auth) for _ in range(2))
    assert one[:16] != two[:16]
    assert one[21:86] != two[21:86]
    assert browser.read(one) == browser.read(two) == WORDS


def test_the_push_service_knows_the_gateway_by_its_key(tmp_path: Path) -> None:
    key = webpush.key(tmp_path)
    header = webpush.authorization("https://push.example.org:8443/abc", key, "mailto:a@b.c", 1_763_740_800)
    claims, named = vapid(header)
    assert claims == {"aud": "https://push.example.org:8443", "exp": 1_763_740_800 + 43_200, "sub": "mailto:a@b.c"}
    assert named == webpush.public(key)


def test_the_key_stays(tmp_path: Path) -> None:
    assert webpush.public(webpush.key(tmp_path)) == webpush.public(webpush.key(tmp_path))
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("no key")
    with pytest.raises(OSError, match="not a key"):
        webpush.key(tmp_path)


GOOD = ("https://fcm.googleapis.com/fcm/send/abc", Browser().p256dh, Browser().auth)


def test_what_browsers_send_is_taken() -> None:
    for host in (
        "fcm.googleapis.com",
        "updates.push.services.mozilla.com",
        "web.push.apple.com",
        "a.notify.windows.com",
    ):
        webpush.check(f"https://{host}/x", GOOD[1], GOOD[2], SERVICES)
    webpush.check("https://10.0.0.1:8443/x", GOOD[1], GOOD[2], ["10.0.0.1:8443"])


@pytest.mark.parametrize(
    ("endpoint", "p256dh", "auth"),
    [
        ("http://fcm.googleapis.com/x", None, None),
        ("https://localhost/x", None, None),
        ("https://fcm.googleapis.com:22/x", None, None),
        ("https://fcm.googleapis.com@evil.example/x", None, None),
        ("https://fcm.googleapis.com.evil.example/x", None, None),
        ("https://[::1/x", None, None),
        ("https://fcm.googleapis.com/" + "x" * 1000, None, None),
        ("https://fcm.googleapis.com/\u00e4", None, None),
        ("", None, None),
        (None, "!!", None),
        (None, text(b"\4" + bytes(64)), None),
        (None, text(b"\2" + bytes(32)), None),
        (None, None, text(bytes(15))),
        (None, None, "\u00e4"),
    ],
)
def test_what_could_not_be_one_is_refused(endpoint: str | None, p256dh: str | None, auth: str | None) -> None:
    with pytest.raises(PushError):
        webpush.check(
            GOOD[0] if endpoint is None else endpoint,
            GOOD[1] if p256dh is None else p256dh,
            GOOD[2] if auth is None else auth,
            SERVICES,
        )
