"""JSON Web Tokens (RFC 7519): who a token says that its bearer is, until when, and the keys that prove it (RFC 7517).

The rule it keeps (RFC 8725): the key decides about the algorithm, never the token. Each key is for the algorithms of
its kind that the settings allow, for one of them if it says so itself, and there is no `none`. Issuer, audience and end
are asked for, and what a token does not say is not made up. Nothing here reads a clock, a file or a socket.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import hashes

from peanutd.access import TOKEN_NAME, Role
from peanutd.config import Jwt

MAX_TOKEN: Final = 8192
"""Bytes of a token."""
MAX_KEYS: Final = 100
"""Keys of a set that are looked at."""
RSA_MIN: Final = 2048
"""Bits of an RSA key, at least."""

_SECRETS: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms with a shared secret, and the bytes that it has at least (RFC 7518 §3.2)."""
_KINDS: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = MappingProxyType(
    {
        ("oct", None): tuple(_SECRETS),
        ("EC", "P-256"): ("ES256",),
        ("OKP", "Ed25519"): ("EdDSA",),
        ("RSA", None): ("RS256",),
    }
)
"""Kind and curve of a key, and what it may be used for."""
_COMPACT: Final = re.compile(rb"e[w-z][A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
"""A `{` is `e` in base64, and 2 bits of the next character."""
_JWS: Final = jwt.PyJWS()


class TokenError(Exception):
    """Why a token proves nothing, in words."""


class ForgedError(TokenError):
    """The token is not what an issuer makes: its bearer guesses, or has been deceived."""


class UnknownKeyError(TokenError):
    """The key is none of those that there are; there may be newer ones."""


class KeysError(Exception):
    """Why a set of keys cannot be used."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its name in tokens, one of our own that changes with it, and itself for each algorithm that it is for."""

    name: str | None
    print: str
    uses: Mapping[str, jwt.PyJWK] = field(repr=False)

    @property
    def secret(self) -> bool:
        """Whether whoever has it can sign with it as well."""
        return any(algorithm in _SECRETS for algorithm in self.uses)


@dataclass(frozen=True, slots=True)
class Token:
    """What a token has proved. `ends` is in Unix seconds; `key` is the `print` of the key."""

    name: str
    role: Role
    ends: float
    key: str


def parse_keys(raw: bytes, allowed: Sequence[str]) -> tuple[Key, ...]:
    """The keys of a JWK Set that can be used, for the `allowed` algorithms. Others are passed over (RFC 7517 §5).

    KeysError when it is none, or has no such key.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise KeysError("not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeysError('not a JWK Set: it has no list "keys"')
    found = tuple(key for entry in entries[:MAX_KEYS] if (key := _key(entry, allowed)) is not None)
    if not found:
        raise KeysError(f"no key in it is for {' or '.join(allowed)}")
    return found


def _key(entry: object, allowed: Sequence[str]) -> Key | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    kind, curve, name = entry.get("kty"), entry.get("crv"), entry.get("kid")
    if not isinstance(kind, str) or not (curve is None or isinstance(curve, str)) or not isinstance(name, str | None):
        return None
    uses: dict[str, jwt.PyJWK] = {}
    for algorithm in _KINDS.get((kind, curve), ()):
        if algorithm not in allowed or entry.get("alg", algorithm) != algorithm:
            continue
        try:
            key = jwt.PyJWK(entry, algorithm)
        except Exception:  # the parsers' errors are many; whatever it is, the key is of no use
            return None
        if _strong(key, algorithm):
            uses[algorithm] = key
    return Key(name, _print(entry), MappingProxyType(uses)) if uses else None


def _strong(key: jwt.PyJWK, algorithm: str) -> bool:
    """Whether the key is as long as its algorithm wants it."""
    if algorithm in _SECRETS:
        return len(key.key) >= _SECRETS[algorithm]
    return algorithm != "RS256" or int(key.key.key_size) >= RSA_MIN


def _print(entry: Mapping[str, Any]) -> str:
    made = hashes.Hash(hashes.SHA256())
    made.update(json.dumps(entry, sort_keys=True).encode())
    return made.finalize().hex()


def looks_like_one(data: bytes) -> bool:
    """Whether a password is meant as a token: three parts in base64url, and the first begins as a JSON object does."""
    return _COMPACT.fullmatch(data) is not None


def read(token: bytes, keys: Iterable[Key], settings: Jwt, now: float) -> Token:
    """What the token proves at `now` (Unix seconds). TokenError says why it proves nothing."""
    if len(token) > MAX_TOKEN:
        raise ForgedError(f"the token has {len(token)} bytes; {MAX_TOKEN} are allowed")
    try:
        header = jwt.get_unverified_header(token)
    except Exception as error:  # of bytes from a stranger
        raise ForgedError(f"not a token: {error}") from None
    if "crit" in header or "b64" in header:
        raise ForgedError("the token demands an extension")
    algorithm, name = header.get("alg"), header.get("kid")
    if algorithm not in settings.algorithms:
        raise ForgedError(f'algorithm "{str(algorithm)[:20]}" is not allowed here (algorithms in [jwt])')
    fitting = [key for key in keys if algorithm in key.uses and (name is None or key.name == name)]
    if len(fitting) > 1:
        raise TokenError(f"the token does not say with which of {len(fitting)} keys it is signed")
    if not fitting:
        raise UnknownKeyError("signed with a key that is not among those of the issuer")
    try:
        raw = _JWS.decode_complete(token, fitting[0].uses[algorithm], [algorithm])["payload"]
    except Exception as error:
        raise ForgedError(f"the signature is false ({type(error).__name__})") from None
    return _judge(_claims(raw), settings, now, fitting[0])


def _claims(raw: bytes) -> dict[str, Any]:
    try:
        claims = json.loads(raw)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise TokenError("the token has no claims")
    return claims


def _judge(claims: Mapping[str, Any], settings: Jwt, now: float, key: Key) -> Token:
    if claims.get("iss") != settings.issuer:
        raise TokenError(f"the token is not issued by {settings.issuer} (iss)")
    audience = claims.get("aud")
    if settings.audience not in (audience if isinstance(audience, list) else [audience]):
        raise TokenError(f"the token is not for {settings.audience} (aud)")
    ends = _moment(claims, "exp")
    if ends is None:
        raise TokenError("the token has no end (exp)")
    if now >= ends:
        raise TokenError("the token has expired (exp)")
    for claim in ("nbf", "iat"):
        begins = _moment(claims, claim)
        if begins is not None and now < begins - settings.leeway:
            raise TokenError(f"the token is not valid yet ({claim})")
    name = claims.get(settings.name_claim)
    if not isinstance(name, str) or not TOKEN_NAME.fullmatch(name):
        raise TokenError(f"the token has no name that can be one here ({settings.name_claim})")
    return Token(name, _role(claims, settings), ends, key.print)


def _moment(claims: Mapping[str, Any], claim: str) -> float | None:
    """A NumericDate in Unix seconds; None when it is not there."""
    value = claims.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e15:
        raise TokenError(f"the token has no moment in {claim}")
    return float(value)


def _role(claims: Mapping[str, Any], settings: Jwt) -> Role:
    if not settings.role_claim:
        return Role(settings.role)
    try:
        return Role(claims.get(settings.role_claim))
    except ValueError:
        words = ", ".join(role.value for role in Role)
        raise TokenError(f"the token has none of {words} in {settings.role_claim}") from None
