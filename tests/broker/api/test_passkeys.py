"""Passkeys: a phone in software, written from the text of WebAuthn Level 2, and what it could say falsely."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from peanutd.api import passkeys
from tests.broker.api.conftest import PASSWORD, Refused, World
from tests.broker.api.test_devices import VIN, Car, drive

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Phone:
    """An authenticator with one key (§6.1, §6.5.4, §7)."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = b"credential-of-a-phone"
        self.counter = 0
        self.origin = "https://gateway.local"
        self.host = "gateway.local"
        self.flags = PRESENT | VERIFIED

    def said(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": f"webauthn.{kind}", "challenge": challenge, "origin": self.origin}).encode()

    def data(self, flags: int) -> bytes:
        self.counter += 1
        return hashlib.sha256(self.host.encode()).digest() + bytes([flags]) + struct.pack(">I", self.counter)

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        numbers = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + cbor2.dumps(cose)
        data = self.data(self.flags | ATTESTED) + attested
        made = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        said = self.said("create", options["challenge"])
        return self.shaped({"clientDataJSON": b64(said), "attestationObject": b64(made)})

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        said, data = self.said("get", options["challenge"]), self.data(self.flags)
        signature = self.key.sign(data + hashlib.sha256(said).digest(), ec.ECDSA(hashes.SHA256()))
        return self.shaped(
            {
                "clientDataJSON": b64(said),
                "authenticatorData": b64(data),
                "signature": b64(signature),
                "userHandle": None,
            }
        )

    def shaped(self, response: dict[str, Any]) -> dict[str, Any]:
        return {"id": b64(self.id), "rawId": b64(self.id), "type": "public-key", "response": response}


def make(world: World, token: str, phone: Phone) -> Any:
    options = world.ask("POST", "/passkeys/options", {"password": PASSWORD}, token=token).json()["publicKey"]
    assert options["rp"]["id"] == "gateway.local"
    body = {"name": "phone", "credential": phone.create(options)}
    return world.ask("POST", "/passkeys", body, token=token)


def challenge(world: World, token: str, verb: str = "unlock") -> dict[str, Any]:
    answer = world.ask("POST", "/step-up/passkey", {"device": VIN, "command": verb}, token=token)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["publicKey"]
    return found


def proof(world: World, token: str, credential: dict[str, Any], verb: str = "unlock") -> Any:
    return world.ask("POST", "/step-up", {"device": VIN, "command": verb, "passkey": credential}, token=token)


def test_a_finger_opens_the_door(world: World, refused: Refused) -> None:
    car, phone, token = Car(world), Phone(), world.token("maria")
    made = make(world, token, phone)
    assert made.status_code == 201, made.text
    assert world.ask("GET", "/me", token=token).json()["passkeys"] == 1
    world.restart()
    options = challenge(world, token)
    assert [one["id"] for one in options["allowCredentials"]] == [b64(phone.id)]
    given = proof(world, token, phone.get(options)).json()["step_up"]
    assert drive(world, token, "unlock", step_up=given).status_code == 200
    assert car.done == ["unlock"]
    (key,) = world.ask("GET", "/passkeys", token=token).json()["passkeys"]
    assert world.ask("DELETE", f"/passkeys/{key['id']}", token=token).status_code == 204
    refused(proof(world, token, phone.get(challenge(world, token))), "step_up")
    told = [
        (entry["action"], entry["outcome"]) for entry in world.entries(target="maria") if entry["action"] == "passkey"
    ]
    assert told == [("passkey", "removed"), ("passkey", "made")]


def test_a_passkey_needs_the_password_first(world: World, refused: Refused) -> None:
    token = world.token("maria")
    refused(world.ask("POST", "/passkeys/options", {"password": "no"}, token=token), "step_up")
    body = {"name": "phone", "credential": Phone().create({"challenge": "eA"})}
    refused(world.ask("POST", "/passkeys", body, token=token), "step_up")


def test_an_answer_counts_once_and_for_what_it_was_asked(world: World, refused: Refused) -> None:
    Car(world)
    phone, token = Phone(), world.token("maria")
    make(world, token, phone)
    answer = phone.get(challenge(world, token))
    refused(proof(world, token, answer, verb="start"), "step_up")
    assert proof(world, token, answer).status_code == 200
    refused(proof(world, token, answer), "step_up")
    late = phone.get(challenge(world, token))
    world.now += passkeys.CHALLENGE
    refused(proof(world, token, late), "step_up")
    ahead = phone.get(challenge(world, token))
    world.now -= 2
    refused(proof(world, token, ahead), "step_up")


@pytest.mark.parametrize("wrong", ["origin", "host", "unverified", "counter", "key", "user", "nonsense"])
def test_what_proves_nothing_opens_nothing(world: World, refused: Refused, wrong: str) -> None:
    car, phone, token = Car(world), Phone(), world.token("maria")
    make(world, token, phone)
    if wrong == "origin":
        phone.origin = "https://evil.example"
    elif wrong == "host":
        phone.host = "evil.example"
    elif wrong == "unverified":
        phone.flags = PRESENT
    elif wrong == "counter":
        assert proof(world, token, phone.get(challenge(world, token))).status_code == 200
        phone.counter = 0  # a copy of the phone, from earlier
    elif wrong == "key":
        phone.key = ec.generate_private_key(ec.SECP256R1())
    elif wrong == "user":
        token = world.token("ada")
    answer = phone.get(challenge(world, token))
    if wrong == "nonsense":
        answer["response"] = {"authenticatorData": 7}
    refused(proof(world, token, answer), "step_up")
    assert world.entries(action="step-up")[0]["outcome"] == "refused"
    assert car.done == []


def test_passkeys_go_with_their_user(world: World) -> None:
    ada, token = world.token("ada"), world.token("maria")
    make(world, token, Phone())
    world.ask("DELETE", "/users/maria", token=ada)
    world.ask("PUT", "/users/maria", {"password": PASSWORD}, token=ada)
    assert world.ask("GET", "/passkeys", token=world.token("maria")).json()["passkeys"] == []


@pytest.mark.parametrize(
    ("header", "host", "origin"),
    [
        ("Gateway.local:8443", "gateway.local", "https://gateway.local:8443"),
        ("gateway.local", "gateway.local", "https://gateway.local"),
        ("gateway.local:443", "gateway.local", "https://gateway.local"),
        ("[::1]:8443", "[::1]", "https://[::1]:8443"),
        ("[::1]", "[::1]", "https://[::1]"),
    ],
)
def test_where_a_request_came_to(header: str, host: str, origin: str) -> None:
    assert passkeys.place(header) == passkeys.Place(host, origin)
