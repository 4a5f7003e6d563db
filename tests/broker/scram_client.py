"""A SCRAM client after RFC 5802, and credentials made with another library: nothing of the gateway's is in here.

The rule it keeps: PBKDF2, argon2id, HMAC and hash come from `cryptography`, not from other libraries as the gateway's.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

HASHES: dict[str, type[hashes.HashAlgorithm]] = {"SCRAM-SHA-256": hashes.SHA256, "SCRAM-SHA-512": hashes.SHA512}
LEAST = {"SCRAM-SHA-256": 4096, "SCRAM-SHA-512": 10_000}
"""Iterations that RFC 7677 and the draft of SHA-512 ask for at least: the tests' own, to be quick."""


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def mac(method: str, key: bytes, text: bytes) -> bytes:
    made = hmac.HMAC(key, HASHES[method]())
    made.update(text)
    return made.finalize()


def digest(method: str, data: bytes) -> bytes:
    made = hashes.Hash(HASHES[method]())
    made.update(data)
    return made.finalize()


def salted(method: str, password: str, salt: bytes, iterations: int) -> bytes:
    algorithm = HASHES[method]()
    return PBKDF2HMAC(algorithm, algorithm.digest_size, salt, iterations).derive(password.encode())


class Client:
    """The client's side of one exchange. Attributes may be bent between the steps, to see what the server says."""

    def __init__(self, user: str, password: str, method: str = "SCRAM-SHA-256", nonce: str = "") -> None:
        self.method = method
        self.password = password
        self.header = "n,,"
        self.nonce = nonce or b64(os.urandom(18))
        self.bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={self.nonce}"
        self.server_signature = b""
        self.salt = b""
        self.iterations = 0

    def first(self) -> bytes:
        return (self.header + self.bare).encode()

    def final(self, challenge: bytes) -> bytes:
        parts = dict(part.split("=", 1) for part in challenge.decode().split(","))
        assert parts["r"].startswith(self.nonce)
        assert len(parts["r"]) >= len(self.nonce) + 24
        self.salt, self.iterations = base64.b64decode(parts["s"]), int(parts["i"])
        key = salted(self.method, self.password, self.salt, self.iterations)
        unproved = f"c={b64(self.header.encode())},r={parts['r']}"
        message = ",".join((self.bare, challenge.decode(), unproved)).encode()
        client_key = mac(self.method, key, b"Client Key")
        signature = mac(self.method, digest(self.method, client_key), message)
        self.server_signature = mac(self.method, mac(self.method, key, b"Server Key"), message)
        return f"{unproved},p={b64(bytes(a ^ b for a, b in zip(client_key, signature, strict=True)))}".encode()

    def check(self, final: bytes) -> bool:
        """Whether the server has proved that it knows the password, too."""
        return final == b"v=" + b64(self.server_signature).encode()


def credential(method: str, password: str, iterations: int | None = None) -> dict[str, Any]:
    """As users.json has it."""
    salt = os.urandom(16)
    count = iterations or LEAST[method]
    key = salted(method, password, salt, count)
    return {
        "iterations": count,
        "salt": b64(salt),
        "stored_key": b64(digest(method, mac(method, key, b"Client Key"))),
        "server_key": b64(mac(method, key, b"Server Key")),
    }


def argon2id(password: str, memory: int = 7 * 1024, rounds: int = 1) -> str:
    """The same for those who send their password; by `cryptography`, too. memory: KiB, the least that is taken."""
    kdf = Argon2id(salt=os.urandom(16), length=32, iterations=rounds, lanes=1, memory_cost=memory)
    return kdf.derive_phc_encoded(password.encode())


def user(password: str, role: str = "operator", iterations: int | None = None, argon: bool = False) -> dict[str, Any]:
    keys: dict[str, Any] = {method: credential(method, password, iterations) for method in HASHES}
    return {"role": role, "created": 1, **keys, **({"argon2id": argon2id(password)} if argon else {})}


def write_users(home: Path, secret: bytes = b"s" * 32, **users: dict[str, Any]) -> Path:
    """users.json in `home`, replaced as the operator's program does it: written beside, then renamed."""
    path, fresh = home / "users.json", home / ".users.json.new"
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps({"format": 1, "secret": b64(secret), "users": users}))
    fresh.rename(path)
    return path
