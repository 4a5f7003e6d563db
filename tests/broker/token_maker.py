"""An issuer of tokens: keys as JWK (RFC 7517) and signatures (RFC 7518) made with `cryptography`, not with PyJWT.

The rule it keeps: whatever it is asked to sign it signs, so that tests can be wrong in every way.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER, AUDIENCE = "https://id.example.org/", "peanut"
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Signer:
    """A key of the issuer's; `jwk` is what it publishes (of a secret: what it shares)."""

    def __init__(self, algorithm: str, kid: str | None = None, size: int = 0, **more: Any) -> None:
        """size: bytes of a secret, bits of an RSA key. `more` goes into the JWK; `alg = None` is left out."""
        self.algorithm = algorithm
        self.kid = kid if kid is not None else f"key-{algorithm}"
        self._secret = b""
        self._key: Any = None
        if algorithm.startswith("HS"):
            self._secret = bytes(range(size or 64))
            public = {"kty": "oct", "k": b64(self._secret)}
        elif algorithm == "ES256":
            self._key = ec.generate_private_key(ec.SECP256R1())
            point = self._key.public_key().public_numbers()
            public = {
                "kty": "EC",
                "crv": "P-256",
                "x": b64(point.x.to_bytes(32, "big")),
                "y": b64(point.y.to_bytes(32, "big")),
            }
        elif algorithm == "EdDSA":
            self._key = ed25519.Ed25519PrivateKey.generate()
            public = {"kty": "OKP", "crv": "Ed25519", "x": b64(self._key.public_key().public_bytes_raw())}
        else:
            self._key = rsa.generate_private_key(65537, size or 2048)
            numbers = self._key.public_key().public_numbers()
            public = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        whole = {**public, "kid": self.kid, "alg": algorithm, "use": "sig", **more}
        self.jwk: dict[str, Any] = {key: value for key, value in whole.items() if value is not None}

    def sign(self, data: bytes) -> bytes:
        if self._secret:
            return mac(self.algorithm, self._secret, data)
        if self.algorithm == "ES256":
            r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if self.algorithm == "EdDSA":
            return bytes(self._key.sign(data))
        return bytes(self._key.sign(data, padding.PKCS1v15(), hashes.SHA256()))

    def token(self, claims: dict[str, Any] | bytes, **header: Any) -> bytes:
        """A token; `header` changes its header, None takes away."""
        whole = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **header}
        return compact({key: value for key, value in whole.items() if value is not None}, claims, self.sign)


def mac(algorithm: str, secret: bytes, data: bytes) -> bytes:
    made = hmac.HMAC(secret, _HASHES[algorithm[2:]]())
    made.update(data)
    return made.finalize()


def compact(header: dict[str, Any], claims: dict[str, Any] | bytes, sign: Any) -> bytes:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{b64(json.dumps(header).encode())}.{b64(payload)}".encode()
    return signed + b"." + b64(sign(signed)).encode()


def jwks(*signers: Signer) -> bytes:
    return json.dumps({"keys": [signer.jwk for signer in signers]}).encode()


def claims(now: float, *, ends: float = 600, **more: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim away."""
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "maria", "iat": now, "exp": now + ends, **more}
    return {key: value for key, value in whole.items() if value is not None}
