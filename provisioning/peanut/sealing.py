"""What a vehicle has sealed (agreement 2), opened: AES-256-CBC under HMAC-SHA256, with keys made of its device key.

Rule: the code is checked before a byte is decrypted, so that no answer tells anything about the padding. One complaint
for all that is wrong with it.
"""

import base64
import binascii
import hmac
import json

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from peanut.errors import PeanutError

CODE = 32  # bytes of HMAC-SHA256
BLOCK = 16  # bytes of AES


def opened(key: bytes, topic: str, payload: bytes) -> str:
    """The text in a sealed payload of this topic (its last level); PeanutError if it was not sealed with this key."""
    complaint = PeanutError("this was not sealed by that vehicle, or was changed on the way", "Is it its telemetry?")
    try:
        raw = base64.b64decode(str(json.loads(payload)["sealed"]), validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise PeanutError("this is not sealed", 'Lines like {"sealed":"…"} are.') from None
    body, code = raw[:-CODE], raw[-CODE:]
    if not hmac.compare_digest(hmac.digest(_key(key, "mac", topic), body, "sha256"), code):
        raise complaint
    if len(body) < 2 * BLOCK or len(body) % BLOCK:
        raise complaint
    cipher = Cipher(algorithms.AES(_key(key, "enc", topic)), modes.CBC(body[:BLOCK])).decryptor()
    text = cipher.update(body[BLOCK:]) + cipher.finalize()
    return text[: -text[-1]].decode()


def _key(key: bytes, purpose: str, topic: str) -> bytes:
    return hmac.digest(key, f"vin-{purpose}-v1|{topic}".encode(), "sha256")
