"""Web Push: a message that only the browser can read (RFC 8291), from a gateway that its push service knows (RFC 8292).

The rule it keeps: bytes in, bytes out, and time is an argument. A push service is called only if its host is one of
those that alerts.toml allows: what a browser says of itself is no reason to call anybody.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_FILE: Final = "push.key"
RECORD: Final = 4096
"""Bytes of the one record that a message has at the most."""
MAX_ENDPOINT: Final = 1_000
"""Characters of the URL of a browser."""
TOKEN_LIFE: Final = 12 * 3600
"""Seconds that a token for a push service is good; 24 h would be allowed."""


class PushError(ValueError):
    """What is wrong with what a browser has sent."""


def key(home: Path) -> ec.EllipticCurvePrivateKey:
    """The gateway's key for push services, made when there is none. OSError when it cannot be read or written."""
    path = home / KEY_FILE
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(found, ec.EllipticCurvePrivateKey):
            return found
        raise OSError(f"{path}: not a key on an elliptic curve; move it away, and a new one is made")
    except FileNotFoundError:
        made = ec.generate_private_key(ec.SECP256R1())
    except ValueError:
        raise OSError(f"{path}: not a key; move it away, and a new one is made") from None
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(scratch, "wb", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, 0o600)) as file:
        file.write(made.private_bytes(*form))
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)
    return made


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half as browsers want it: uncompressed."""
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def check(endpoint: str, p256dh: str, auth: str, services: Sequence[str]) -> None:
    """PushError says why a subscription cannot be one."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise PushError("endpoint is no URL") from None
    place = host if port is None else f"{host}:{port}"
    if parts.scheme != "https" or parts.username is not None or len(endpoint) > MAX_ENDPOINT or not endpoint.isascii():
        raise PushError("endpoint must be a URL that begins with https://")
    if not any(fnmatchcase(place, service) for service in services):
        raise PushError(f"{place} is no push service that is known here; push_services in alerts.toml names them")
    _point(p256dh)
    if len(bytes_of(auth)) != 16:
        raise PushError("auth must be 16 bytes")


def encrypt(
    text: bytes, p256dh: str, auth: str, *, sender: ec.EllipticCurvePrivateKey | None = None, salt: bytes | None = None
) -> bytes:
    """The body of a push message (aes128gcm). sender and salt are for tests; each message has its own."""
    sender = sender or ec.generate_private_key(ec.SECP256R1())
    salt = salt or os.urandom(16)
    receiver = _point(p256dh)
    point = receiver.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    info = b"WebPush: info\0" + point + public(sender)
    shared = HKDF(hashes.SHA256(), 32, bytes_of(auth), info).derive(sender.exchange(ec.ECDH(), receiver))
    content_key = HKDF(hashes.SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(shared)
    nonce = HKDF(hashes.SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(shared)
    sealed = AESGCM(content_key).encrypt(nonce, text + b"\x02", None)  # 2: this is the last record
    own = public(sender)
    return salt + RECORD.to_bytes(4, "big") + bytes([len(own)]) + own + sealed


def authorization(endpoint: str, key: ec.EllipticCurvePrivateKey, contact: str, now: float) -> str:
    """The header by which the push service knows who sends."""
    parts = urlsplit(endpoint)
    claims = {"aud": f"{parts.scheme}://{parts.netloc}", "exp": int(now) + TOKEN_LIFE, "sub": contact}
    return f"vapid t={jwt.encode(claims, key, algorithm='ES256')}, k={text_of(public(key))}"


def bytes_of(text: str) -> bytes:
    """What base64url says, with or without its padding. PushError when it says nothing."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise PushError("not base64url") from None


def text_of(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _point(text: str) -> ec.EllipticCurvePublicKey:
    try:
        data = bytes_of(text)
        if data[:1] != b"\4":
            raise ValueError  # compressed, which browsers do not send
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data)
    except ValueError:
        raise PushError("p256dh is no point of the curve P-256") from None
