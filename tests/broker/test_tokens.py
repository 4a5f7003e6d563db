"""Tokens: what they prove and what not, where their keys come from, and a gateway that takes them.

The rule it keeps: tokens are made by token_maker.py, which has nothing of the gateway's library; time is an argument
wherever it can be. The statements are those of RFC 7515, 7518, 7519 and 8725, and of MQTT 5.0 §4.12.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from peanutd import keyring, tokens
from peanutd.__main__ import main
from peanutd.access import Role
from peanutd.config import ALGORITHMS, Jwt
from peanutd.keyring import Keyring
from peanutd.tokens import ForgedError, KeysError, Token, TokenError, UnknownKeyError
from tests.broker import house
from tests.broker.conftest import Daemon, Dial, Fleet, Start
from tests.broker.scram_client import user, write_users
from tests.broker.test_login import Talker, auth, named, proof
from tests.broker.token_maker import AUDIENCE, ISSUER, Signer, b64, claims, compact, jwks, mac

NOW = 1_800_000_000.0
ALL = Jwt("jwks.json", ISSUER, AUDIENCE, algorithms=ALGORITHMS)
SIGNERS = {algorithm: Signer(algorithm) for algorithm in ALGORITHMS}
ES = SIGNERS["ES256"]


def read(token: bytes, *signers: Signer, settings: Jwt = ALL, now: float = NOW) -> Token:
    return tokens.read(token, tokens.parse_keys(jwks(*(signers or (ES,))), settings.algorithms), settings, now)


# --- what a token proves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm(algorithm: str) -> None:
    signer = SIGNERS[algorithm]
    found = read(signer.token(claims(NOW)), *SIGNERS.values())
    assert (found.name, found.role, found.ends) == ("maria", Role.VIEWER, NOW + 600)
    token = bytearray(signer.token(claims(NOW)))
    token[-10] ^= 1
    with pytest.raises(ForgedError):
        read(bytes(token), *SIGNERS.values())
    other = Signer(algorithm, size=65 if algorithm.startswith("HS") else 0)
    with pytest.raises(ForgedError, match="signature is false"):
        read(other.token(claims(NOW)), *SIGNERS.values())


def test_an_algorithm_that_is_not_asked_for_does_not_count() -> None:
    """Secrets are not in the usual list, and a key of another algorithm is not looked at."""
    usual = Jwt("k", ISSUER, AUDIENCE)
    assert usual.algorithms == ("ES256", "EdDSA", "RS256")
    for algorithm in ("HS256", "HS384", "HS512"):
        with pytest.raises(ForgedError, match="not allowed here"):
            read(SIGNERS[algorithm].token(claims(NOW)), *SIGNERS.values(), settings=usual)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", None, "HS1", "RS512", "PS256", "ES384", "ES256K", 7, ["ES256"]]
)
def test_algorithms_that_there_are_not(algorithm: Any) -> None:
    """RFC 8725 §3.1, §3.2: `none` above all, with a signature and without."""
    for sign in (ES.sign, lambda data: b""):
        header = {"alg": algorithm, "kid": ES.kid} if algorithm is not None else {"kid": ES.kid}
        with pytest.raises(TokenError):
            read(compact(header, claims(NOW), sign), *SIGNERS.values())


def test_a_public_key_is_no_secret() -> None:
    """RFC 8725 §2.1: a token with HS256 whose "secret" is the public key, in whatever form."""
    rs = SIGNERS["RS256"]
    public = rs._key.public_key()
    forms = [public.public_bytes(e, PublicFormat.SubjectPublicKeyInfo) for e in (Encoding.PEM, Encoding.DER)]
    forms += [json.dumps(rs.jwk).encode(), rs.jwk["n"].encode(), b"\0"]
    for secret in forms:
        for signers in ((rs,), tuple(SIGNERS.values())):
            forged = compact({"alg": "HS256", "kid": rs.kid}, claims(NOW), partial(mac, "HS256", secret))
            with pytest.raises(TokenError):
                read(forged, *signers)


def test_a_key_is_for_its_own_algorithm_only() -> None:
    """A secret that says HS512 checks no HS256; one that says nothing checks what it is long enough for."""
    secret = bytes(range(64))
    forged = compact({"alg": "HS256"}, claims(NOW), lambda data: mac("HS256", secret, data))
    with pytest.raises(UnknownKeyError):
        read(forged, Signer("HS512"))
    assert read(forged, Signer("HS512", alg=None)).name == "maria"
    with pytest.raises(ForgedError, match="not allowed"):
        read(forged, Signer("HS512", alg=None), settings=Jwt("k", ISSUER, AUDIENCE, algorithms=("HS512",)))


def test_keys_in_the_token_itself_are_not_believed() -> None:
    """RFC 8725 §3.10: jwk, jku, x5u and x5c of a stranger."""
    stranger = Signer("ES256", ES.kid)
    for more in ({"jwk": stranger.jwk}, {"jku": "https://evil.example.org/"}, {"x5u": "https://evil.example.org/"}):
        with pytest.raises(ForgedError, match="signature is false"):
            read(stranger.token(claims(NOW), **more))


@pytest.mark.parametrize("more", [{"crit": ["exp"]}, {"crit": []}, {"b64": False}, {"b64": False, "crit": ["b64"]}])
def test_extensions_are_not_understood(more: dict[str, Any]) -> None:
    """RFC 7515 §4.1.11: what must be understood and is not, is the end."""
    with pytest.raises(ForgedError, match=r"extension|not a token"):
        read(ES.token(claims(NOW), **more))


def test_which_key() -> None:
    first, second = Signer("ES256", "one"), Signer("ES256", "two")
    assert read(second.token(claims(NOW)), first, second).name == "maria"
    with pytest.raises(UnknownKeyError):
        read(second.token(claims(NOW), kid="three"), first, second)
    with pytest.raises(ForgedError):
        read(second.token(claims(NOW), kid="one"), first, second)
    with pytest.raises(TokenError, match="with which of 2 keys"):
        read(second.token(claims(NOW), kid=None), first, second)
    assert read(second.token(claims(NOW), kid=None), second, SIGNERS["RS256"]).name == "maria"


CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"iss": None}, "not issued by"),
    ({"iss": "https://id.example.org"}, "not issued by"),
    ({"iss": [ISSUER]}, "not issued by"),
    ({"aud": None}, "not for peanut"),
    ({"aud": "peanuts"}, "not for peanut"),
    ({"aud": ["x", "y"]}, "not for peanut"),
    ({"aud": {"peanut": 1}}, "not for peanut"),
    ({"exp": None}, "no end"),
    ({"exp": NOW}, "has expired"),
    ({"exp": NOW - 1}, "has expired"),
    ({"exp": "2100-01-01"}, "no moment in exp"),
    ({"exp": True}, "no moment in exp"),
    ({"exp": 1e300}, "no moment in exp"),
    ({"exp": [NOW + 1]}, "no moment in exp"),
    ({"nbf": NOW + 31}, "not valid yet"),
    ({"iat": NOW + 31}, "not valid yet"),
    ({"nbf": "now"}, "no moment in nbf"),
    ({"sub": None}, "no name"),
    ({"sub": ""}, "no name"),
    ({"sub": 7}, "no name"),
    ({"sub": "a/b"}, "no name"),
    ({"sub": "+"}, "no name"),
    ({"sub": "#"}, "no name"),
    ({"sub": "$SYS"}, "no name"),
    ({"sub": "maria\n"}, "no name"),
    ({"sub": "märia"}, "no name"),
    ({"sub": "x" * 129}, "no name"),
]


@pytest.mark.parametrize(("more", "words"), CLAIMS)
def test_claims_that_do_not_do(more: dict[str, Any], words: str) -> None:
    assert read(ES.token(claims(NOW))).name == "maria"
    with pytest.raises(TokenError, match=words) as caught:
        read(ES.token(claims(NOW, **more)))
    assert not isinstance(caught.value, ForgedError), "an honest client with an old token is no attacker"


@pytest.mark.parametrize(
    "more",
    [
        {"aud": ["other", AUDIENCE]},
        {"exp": NOW + 0.5},
        {"nbf": NOW + 30},
        {"iat": None},
        {"sub": "auth0|507f1f77bcf86cd799439011"},
        {"sub": "x" * 128},
        {"more": {"and": ["more"]}},
    ],
)
def test_claims_that_do(more: dict[str, Any]) -> None:
    found = read(ES.token(claims(NOW, **more)))
    assert found.name == more.get("sub", "maria")


def test_name_and_role_come_from_claims() -> None:
    settings = Jwt("k", ISSUER, AUDIENCE, name_claim="email", role_claim="peanut_role", role="admin")
    found = read(ES.token(claims(NOW, email="m@example.org", peanut_role="operator")), settings=settings)
    assert (found.name, found.role) == ("m@example.org", Role.OPERATOR)
    for role in (None, "root", ["admin"], 1):
        with pytest.raises(TokenError, match="none of viewer, operator, admin"):
            read(ES.token(claims(NOW, email="m", peanut_role=role)), settings=settings)
    with pytest.raises(TokenError, match="no name"):
        read(ES.token(claims(NOW, peanut_role="viewer")), settings=settings)


@pytest.mark.parametrize(
    "token",
    [b"", b".", b"..", b"a.b.c", b"eyJ.e.e", b"\xff.\xff.\xff", b"eyJhbGciOiJFUzI1NiJ9..", b"eyJhbGciOiJFUzI1NiJ9.W10"],
)
def test_bytes_that_are_no_token(token: bytes) -> None:
    with pytest.raises(TokenError):
        read(token)


def test_what_is_meant_as_a_token() -> None:
    """Beside passwords: however its header is written."""
    for header in (
        b'{"alg":"ES256"}',
        b'{ "alg":"ES256"}',
        b'{\n"alg":"ES256"}',
        b'{\r\n"alg":"ES256"}',
        b'{\t"alg":1}',
    ):
        assert tokens.looks_like_one(f"{b64(header)}.e30.c2ln".encode())
    for password in (
        b"",
        b"correct horse",
        b"eyJ",
        b"eyJ.x",
        b"eyJ.x.y.z",
        b"e.a.b",
        b"eyJ .x.y",
        b"x.y.z",
        b"eyJ.x.y\n",
    ):
        assert not tokens.looks_like_one(password)


def test_claims_that_are_none() -> None:
    for payload in (b"", b"[]", b"{", b"null", b"[" * 3000, b'"x"', b"\xff"):
        with pytest.raises(TokenError, match="no claims"):
            read(ES.token(payload))


def test_a_token_has_an_end() -> None:
    """MAX_TOKEN."""
    small = len(ES.token(claims(NOW, x="")))
    room = tokens.MAX_TOKEN - small
    assert read(ES.token(claims(NOW, x="y" * (room * 3 // 4 - 3)))).name == "maria"
    with pytest.raises(ForgedError, match="8192 are allowed"):
        read(ES.token(claims(NOW, x="y" * room)))


@given(st.binary(max_size=60), st.integers(0, 400))
def test_no_change_of_a_token_is_missed(noise: bytes, at: int) -> None:
    """Whatever is put into a token in place of something else: it is refused, or nothing has changed."""
    good = ES.token(claims(NOW))
    at %= len(good)
    changed = good[:at] + noise + good[at + len(noise) :]
    try:
        found = read(changed)
    except TokenError:
        return
    # The last character of a part may carry bits that mean nothing (RFC 4648 §3.5).
    assert found == read(good)
    assert changed.split(b".")[:2] == good.split(b".")[:2]


# --- keys -------------------------------------------------------------------------------------------------------------


def parse(*entries: Any, allowed: tuple[str, ...] = ALGORITHMS) -> tuple[tokens.Key, ...]:
    return tokens.parse_keys(json.dumps({"keys": entries}).encode(), allowed)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"[" * 100_000, b"\xff", b'{"keys": [1, null, "x"]}'],
    ids=lambda raw: raw[:20].decode("latin-1"),
)
def test_what_is_no_set_of_keys(raw: bytes) -> None:
    with pytest.raises(KeysError):
        tokens.parse_keys(raw, ALGORITHMS)


UNFIT: dict[str, dict[str, Any]] = {
    "for encryption": ES.jwk | {"use": "enc"},
    "not for verification": ES.jwk | {"key_ops": ["sign"]},
    "of another algorithm": ES.jwk | {"alg": "ECDH-ES"},
    "of another curve": ES.jwk | {"crv": "P-384"},
    "of no curve": {key: value for key, value in ES.jwk.items() if key != "crv"},
    "not on the curve": ES.jwk | {"y": ES.jwk["x"]},
    "half a key": {key: value for key, value in ES.jwk.items() if key != "y"},
    "of a kind that is a list": ES.jwk | {"kty": ["EC"]},
    "with a name that is none": ES.jwk | {"kid": 7},
    "a short secret": Signer("HS256", size=31).jwk,
    "a secret too short for its algorithm": Signer("HS512", size=63).jwk,
    "no secret": {"kty": "oct", "k": ""},
    "a short RSA key": Signer("RS256", size=1024).jwk,
    "an RSA key of text": SIGNERS["RS256"].jwk | {"n": "*"},
}


@pytest.mark.parametrize("entry", UNFIT.values(), ids=UNFIT.keys())
def test_keys_that_are_passed_over(entry: dict[str, Any]) -> None:
    """RFC 7517 §5; RFC 7518 §3.2, §3.3; RFC 8725 §3.5."""
    assert [key.name for key in parse(entry, SIGNERS["EdDSA"].jwk)] == ["key-EdDSA"]
    with pytest.raises(KeysError, match="no key in it"):
        parse(entry)


def test_keys_are_limited_and_hidden() -> None:
    """MAX_KEYS."""
    many = [Signer("HS256", f"k{n}").jwk for n in range(tokens.MAX_KEYS + 5)]
    found = parse(*many)
    assert len(found) == tokens.MAX_KEYS
    assert many[0]["k"] not in repr(found)


class Ring:
    """A keyring whose work is done when a test says so."""

    def __init__(self, home: Path, keys: str = "jwks.json", **more: Any) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.jobs: list[tuple[Callable[[], keyring.Fetched], Callable[[keyring.Fetched], None]]] = []
        settings = Jwt(keys, ISSUER, AUDIENCE, **more)
        self.ring = Keyring(
            settings,
            home,
            lambda work, done: self.jobs.append((work, done)),
            lambda: self.now,
            lambda level, text: self.lines.append(f"{level} {text}"),
        )

    def answer(self, result: keyring.Fetched) -> None:
        """Refreshes; if that begins a fetch, this is what comes of it."""
        self.ring.refresh()
        if self.jobs:
            self.jobs.pop()[1](result)

    @property
    def names(self) -> list[str | None]:
        return [key.name for key in self.ring.keys]


def test_a_file_is_followed(tmp_path: Path) -> None:
    """Fail closed from the start, last good kept afterwards, and each trouble is said once."""
    path = tmp_path / "jwks.json"
    ring = Ring(tmp_path)
    ring.ring.refresh()
    ring.ring.refresh()
    assert ring.names == []
    assert ring.lines == ["error jwks.json: cannot be read: No such file or directory; every token is refused"]
    path.write_bytes(jwks(ES))
    ring.ring.refresh()
    assert ring.names == [ES.kid]
    print_of = ring.ring.keys[0].print
    assert ring.ring.has(print_of)
    os.truncate(path, 10)
    ring.ring.refresh()
    assert ring.names == [ES.kid]
    assert ring.lines[-1] == "error jwks.json: not JSON; the keys of before stay"
    path.unlink()
    ring.ring.refresh()
    assert ring.names == [ES.kid]
    path.write_bytes(jwks(Signer("ES256")))
    ring.ring.refresh()
    assert ring.names == [ES.kid], "of the same name"
    assert not ring.ring.has(print_of), "but another key"
    path.write_bytes(b" " * (keyring.MAX_SIZE + 1))
    ring.ring.refresh()
    assert "larger than 262144 bytes; the keys of before stay" in ring.lines[-1]


def test_a_secret_that_others_can_read_is_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    for mode, signer, warned in ((0o600, "HS256", 0), (0o644, "HS256", 1), (0o644, "ES256", 0)):
        ring = Ring(tmp_path, algorithms=ALGORITHMS)
        path.write_bytes(jwks(SIGNERS[signer]))
        path.chmod(mode)
        ring.ring.refresh()
        assert ring.names == [SIGNERS[signer].kid]
        assert sum("chmod 600" in line for line in ring.lines) == warned


def test_a_url_is_fetched_now_and_then(tmp_path: Path) -> None:
    """`refresh`, RETRY, one fetch at a time; last good kept."""
    ring = Ring(tmp_path, "https://id.example.org/jwks", refresh=300)
    ring.ring.refresh()
    ring.ring.refresh()
    assert len(ring.jobs) == 1
    assert ring.names == []
    ring.jobs.pop()[1]("cannot be had: it is down")
    assert ring.lines == ["error https://id.example.org/jwks: cannot be had: it is down; every token is refused"]
    ring.now = keyring.RETRY - 1
    ring.ring.refresh()
    assert ring.jobs == []
    ring.now = keyring.RETRY
    ring.answer(jwks(ES))
    assert ring.names == [ES.kid]
    ring.now += 299
    ring.ring.refresh()
    assert ring.jobs == []
    ring.now += 1
    ring.answer(b"<html>")
    assert ring.names == [ES.kid]
    assert ring.lines[-1].endswith("not JSON; the keys of before stay")
    ring.now += keyring.RETRY
    second = Signer("ES256", "second")
    ring.answer(jwks(ES, second))
    assert ring.names == [ES.kid, "second"]


def test_an_unknown_key_is_looked_for_but_not_all_the_time(tmp_path: Path) -> None:
    ring = Ring(tmp_path, "https://id.example.org/jwks", refresh=3600)
    ring.answer(jwks(ES))
    ring.now = 10.0
    ring.ring.missed()
    assert ring.jobs == []
    ring.now = keyring.RETRY
    ring.ring.refresh()
    assert len(ring.jobs) == 1, "it is due earlier than it was"
    ring.jobs.pop()[1](jwks(ES))
    ring.now += keyring.RETRY + 1
    ring.ring.missed()
    ring.ring.missed()
    assert len(ring.jobs) == 1


class Site(BaseHTTPRequestHandler):
    """What a server of keys may do wrong."""

    def do_GET(self) -> None:
        path = self.path.removeprefix("/")
        body = jwks(ES) if path == "good" else b" " * (keyring.MAX_SIZE + 1) if path == "large" else b"x"
        self.send_response({"moved": 302, "gone": 404, "empty": 204}.get(path, 200))
        if path == "moved":
            self.send_header("Location", "/good")
        if path != "slow":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if path == "slow":
            end: threading.Event = self.server.end  # type: ignore[attr-defined]
            while not end.wait(0.02):
                self.wfile.write(b" ")
                self.wfile.flush()
        elif path != "empty":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def site(fleet: Fleet) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.end = threading.Event()  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(fleet.home / "gateway" / "gateway.crt", fleet.home / "gateway" / "gateway.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.end.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()


def test_a_fetch_has_limits(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAX_SIZE, FETCH_TIME; no redirection, no other status, no certificate of somebody else; never an exception."""
    ca = str(fleet.home / "ca" / "root.crt")
    monkeypatch.setattr(keyring, "FETCH_TIME", 0.3)
    with site(fleet) as url:
        assert keyring.fetch(f"{url}/good", ca) == jwks(ES)
        assert keyring.fetch(f"{url}/large", ca) == "larger than 262144 bytes"
        assert "302" in str(keyring.fetch(f"{url}/moved", ca))
        assert "404" in str(keyring.fetch(f"{url}/gone", ca))
        assert "204" in str(keyring.fetch(f"{url}/empty", ca))
        assert keyring.fetch(f"{url}/slow", ca) == "not there within 0.3 s"
        assert "CERTIFICATE_VERIFY_FAILED" in str(keyring.fetch(f"{url}/good", None))
    assert str(keyring.fetch(f"{url}/good", ca)).startswith("cannot be had: ")
    assert str(keyring.fetch(f"{url}/good", str(fleet.home / "none"))).startswith("cannot be had: ")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(keyring, "SOCKET_TIME", 0.2)
        assert "timed out" in str(keyring.fetch(f"https://127.0.0.1:{silent.getsockname()[1]}/", ca))


# --- a gateway that takes tokens --------------------------------------------------------------------------------------

SETTINGS = f"""\
[listen]
mqtts = ""
[jwt]
keys = "jwks.json"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
algorithms = ["ES256", "EdDSA"]
role_claim = "role"
[[listener]]
address = "127.0.0.1:0"
transport = "tcp"
jwt = true
password = true
[[listener]]
address = "127.0.0.1:0"
transport = "tcp"
password = true
"""
COMMAND = "/plant/peanut/UpdateTemperature"


class Ports:
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.tokens, self.passwords = (int(daemon.line("listening mqtt ", n).rpartition(":")[2]) for n in (1, 2))


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def gateway(request: pytest.FixtureRequest, shared_fleet: Fleet, daemon_class: type[Daemon]) -> Iterator[Ports]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    home = shared_fleet.home
    shared_fleet.settings(SETTINGS)
    (home / "jwks.json").write_bytes(jwks(ES, SIGNERS["EdDSA"], SIGNERS["HS256"]))
    write_users(home, maria=user("correct horse", argon=True))
    daemon = daemon_class(home, loop=request.param)
    try:
        yield Ports(daemon)
    finally:
        daemon.stop()


def token(signer: Signer = ES, **more: Any) -> bytes:
    return signer.token(claims(time.time(), **{"role": "operator", **more}))


@pytest.fixture
def talk(dial: Dial, gateway: Ports) -> Any:
    def connect(version: int = 5, port: int = 0, **options: Any) -> Talker:
        return Talker(dial(port or gateway.tokens, version=version, **options), version)

    return connect


def enter(talker: Talker, given: bytes, client_id: str = "c", username: str | None = "", **more: Any) -> int:
    """Sends a CONNECT with the token as password; the reason of the CONNACK."""
    talker.send(house.connect(client_id, talker.version, username=username, password=given, **more))
    reason = talker.expect("CONNACK")["reason"]
    assert isinstance(reason, int)
    return reason


@pytest.mark.parametrize(("version", "username"), [(4, ""), (4, "maria"), (5, ""), (5, "maria"), (5, None)])
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_a_token_as_password(talk: Any, gateway: Ports, version: int, username: str | None, algorithm: str) -> None:
    """The name is the token's: a user name beside it says the same or nothing."""
    talker = talk(version)
    assert enter(talker, token(SIGNERS[algorithm]), f"p{version}{username}{algorithm}", username) == 0
    gateway.daemon.line(f"connected who=token/maria/p{version}{username}{algorithm} ")
    talker.send(house.publish(COMMAND, b"temperature:15", 1), house.PINGREQ)
    assert talker.expect("PUBACK").get("reason", 0) in (0, 0x10)
    talker.expect("PINGRESP")


BAD: dict[str, dict[str, Any]] = {
    "expired": {"ends": -1},
    "for somebody else": {"aud": "other"},
    "no role": {"role": "root"},
    "two levels": {"sub": "a/b"},
    "forged": {"signer": Signer("ES256", ES.kid)},
    "a secret": {"signer": SIGNERS["HS256"]},
    "an unknown key": {"signer": Signer("ES256", "unknown")},
}


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_token_that_does_not_do(talk: Any, version: int, bad: dict[str, Any]) -> None:
    """0x86; before 5.0 return code 4."""
    talker = talk(version)
    assert enter(talker, token(**bad)) == (0x86 if version == 5 else 4)
    assert talker.ended()


def test_another_name_than_the_token_s(talk: Any) -> None:
    assert enter(talk(), token(), username="anna") == 0x86


def test_the_role_of_the_token_counts(talk: Any) -> None:
    viewer = talk()
    assert enter(viewer, token(role="viewer"), "viewer") == 0
    viewer.send(house.publish(COMMAND, b"temperature:15", 1))
    assert viewer.expect("PUBACK")["reason"] == 0x87
    viewer.send(house.subscribe(house.topic_filter("#"), house.topic_filter("$share/g/#")))
    assert viewer.expect("SUBACK")["reasons"] == [0, 0x87]


def test_passwords_go_on_beside_tokens(talk: Any, gateway: Ports) -> None:
    talker = talk()
    assert talker.password("maria", "correct horse", "same")["reason"] == 0
    other = talk()
    assert enter(other, token(), "same") == 0
    talker.send(house.PINGREQ)
    talker.expect("PINGRESP")  # a user and a token of one name are two


def test_no_token_where_the_listener_takes_none(talk: Any, gateway: Ports) -> None:
    assert enter(talk(port=gateway.passwords), token(), username="maria") == 0x86
    talker = talk(port=gateway.passwords)
    talker.send(house.connect("c", props=proof("JWT", token())))
    assert talker.expect("CONNACK")["reason"] == 0x8C


def test_forged_tokens_are_not_listened_to_for_long(talk: Any) -> None:
    forger = Signer("ES256", ES.kid)
    reasons = [enter(talk(source="127.7.7.7"), token(forger), "forger") for _ in range(6)]
    assert reasons == [0x86] * 5 + [0x9F]
    assert enter(talk(source="127.7.7.7"), token(), "honest") == 0, "it is that client, not its whole network"


def test_who_has_a_token_can_be_banned_and_no_user_with_him(fleet: Fleet, start: Start, dial: Dial) -> None:
    """peanutd bans: `token/NAME` stands where a user's name does; a user of that name is somebody else."""
    fleet.settings(SETTINGS)
    (fleet.home / "jwks.json").write_bytes(jwks(ES))
    write_users(fleet.home, maria=user("correct horse"))
    port = Ports(start(fleet.home)).tokens
    talkers = [Talker(dial(port)) for _ in range(4)]
    assert enter(talkers[0], token(), "c") == 0
    assert talkers[1].password("maria", "correct horse")["reason"] == 0
    assert main(["--home", str(fleet.home), "bans", "add", "user", "token/maria", "--seconds", "600"]) == 0
    assert talkers[0].expect("DISCONNECT")["reason"] == 0x98, "administrative action"
    assert enter(talkers[2], token(), "c") == 0x8A
    assert enter(talkers[3], token(sub="anna"), "c") == 0
    talkers[1].send(house.PINGREQ)
    talkers[1].expect("PINGRESP")


def begin(talker: Talker, given: bytes | None, client_id: str) -> None:
    talker.send(house.connect(client_id, props=proof("JWT", given)))


def test_a_token_by_auth(talk: Any) -> None:
    """MQTT-4.12.0-5: the method in the CONNACK; asked for where it has not come at once (RFC 4422 §5.1)."""
    for data in (token(), None):
        talker = talk()
        begin(talker, data, "by-auth")
        if data is None:
            assert talker.challenge("JWT") == b""
            talker.send(auth("JWT", token()))
        connack = talker.expect("CONNACK")
        assert connack["reason"] == 0
        assert named(connack, "authentication_method") == "JWT"


@pytest.mark.parametrize("bad", ["nonsense", "expired", "forged"])
def test_a_token_by_auth_that_does_not_do(talk: Any, bad: str) -> None:
    """MQTT-4.12.0-4."""
    data = token(**BAD[bad]) if bad in BAD else b"nonsense"
    talker = talk()
    begin(talker, data, "by-auth-not")
    assert talker.expect("CONNACK")["reason"] == 0x87
    assert talker.ended()


def test_the_session_ends_with_the_token(talk: Any, gateway: Ports) -> None:
    """§3.14.2.1: 0xA0, the maximum connection time authorised for this connection has been exceeded."""
    talker = talk()
    begin = time.monotonic()
    assert enter(talker, token(ends=4.0), "short") == 0
    packet = talker.expect("DISCONNECT")
    assert packet["reason"] == 0xA0
    assert time.monotonic() - begin > 2
    assert talker.ended()
    gateway.daemon.line('logged out who=token/maria/short .* why="its token has expired"')


def test_no_will_is_delayed_beyond_the_token(talk: Any) -> None:
    """What a token allows is over with it, also for what was left to be done later. A will without delay is heard."""
    watcher = talk()
    assert enter(watcher, token(), "watcher") == 0
    watcher.send(house.subscribe(house.topic_filter("fleet/#")))
    watcher.expect("SUBACK")
    for delay in (1, 0):
        talker = talk()
        props = [["session_expiry_interval", 60]]
        will = house.will(f"fleet/{delay}", **({"will_delay_interval": delay} if delay else {}))
        assert enter(talker, token(ends=3.0), f"will-{delay}", will=will, props=props) == 0
        assert talker.expect("DISCONNECT")["reason"] == 0xA0
    # One whose token lasts, and whose will is due after the other's would have been.
    talker = talk()
    will = house.will("fleet/last", will_delay_interval=1)
    assert enter(talker, token(), "will-last", will=will, props=[["session_expiry_interval", 60]]) == 0
    talker.sock.close()
    assert [watcher.expect("PUBLISH")["topic"] for _ in range(2)] == ["fleet/0", "fleet/last"]


def test_a_client_renews_its_token(talk: Any) -> None:
    """MQTT-4.12.1-1: AUTH 0x19, and the session goes on until the new token ends."""
    talker = talk()
    first = token(ends=3.0)
    begin(talker, first, "renews")
    assert talker.expect("CONNACK")["reason"] == 0
    ends = time.monotonic() + 3.0
    talker.send(auth("JWT", token(ends=6.0), 0x19))
    packet = talker.expect("AUTH")
    assert packet["reason"] == 0
    assert named(packet, "authentication_method") == "JWT"
    assert talker.expect("DISCONNECT")["reason"] == 0xA0
    assert time.monotonic() > ends + 0.5, "not with the first token"


@pytest.mark.parametrize("bad", ["another name", "another role", "expired", "an unknown key"])
def test_a_renewal_that_fails(talk: Any, bad: str) -> None:
    """MQTT-4.12.1-2: DISCONNECT and closed; another name or role is another client."""
    more = {"another name": {"sub": "anna"}, "another role": {"role": "admin"}}.get(bad) or BAD[bad]
    talker = talk()
    begin(talker, token(), f"fails-{bad}")
    assert talker.expect("CONNACK")["reason"] == 0
    talker.send(auth("JWT", token(**more), 0x19))
    assert talker.expect("DISCONNECT")["reason"] == 0x87
    assert talker.ended()


def test_keys_come_and_go(fleet: Fleet, start: Start, dial: Dial) -> None:
    """Fail closed without keys, without a restart; whose key is taken back is put out."""
    fleet.settings(SETTINGS)
    path = fleet.home / "jwks.json"
    daemon = start(fleet.home)
    port = Ports(daemon).tokens
    daemon.line(r"error tokens: jwks.json: cannot be read: .*; every token is refused")

    def come(given: bytes, client_id: str) -> tuple[Talker, int]:
        talker = Talker(dial(port))
        return talker, enter(talker, given, client_id)

    assert come(token(), "early")[1] == 0x88
    path.write_bytes(jwks(ES))
    old, reason = come(token(), "old")
    assert reason == 0
    path.write_bytes(b"{")
    assert come(token(), "still")[1] == 0, "the keys of before stay"
    fresh = Signer("ES256", "fresh")
    path.write_bytes(jwks(fresh))
    assert come(token(), "late")[1] == 0x86
    new, reason = come(token(fresh), "new")
    assert reason == 0
    daemon.signal(signal.SIGHUP)
    assert old.expect("DISCONNECT")["reason"] == 0x87
    daemon.line('logged out who=token/maria/old .* why="the key of its token counts no more"')
    new.send(house.PINGREQ)
    new.expect("PINGRESP")
    fleet.settings(SETTINGS.replace(f'audience = "{AUDIENCE}"', 'audience = "other"'))
    daemon.signal(signal.SIGHUP)
    daemon.line("info  peanutd: reloaded", 2)
    assert come(token(fresh), "wrong")[1] == 0x86
    assert come(token(fresh, aud="other"), "right")[1] == 0


def test_keys_from_a_url(fleet: Fleet, start: Start, dial: Dial) -> None:
    with site(fleet) as url:
        keys = f'keys = "{url}/good"\nca = "ca/root.crt"'
        fleet.settings(SETTINGS.replace('keys = "jwks.json"', keys))
        daemon = start(fleet.home)
        daemon.line(r"info  tokens: https://.*/good: 1 keys for tokens")
        talker = Talker(dial(Ports(daemon).tokens))
        assert enter(talker, token()) == 0


def test_a_gateway_whose_keys_never_come(fleet: Fleet, start: Start, dial: Dial) -> None:
    """Fail closed; and a server that says nothing keeps the gateway from nothing, not even from ending."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        keys = f'keys = "https://127.0.0.1:{silent.getsockname()[1]}/"'
        fleet.settings(SETTINGS.replace('keys = "jwks.json"', keys))
        write_users(fleet.home, maria=user("correct horse"))
        took = []
        while not took or min(took) >= keyring.SOCKET_TIME:  # a busy machine may be slow, but not each time
            assert len(took) < 5, took
            daemon = start(fleet.home)
            port = Ports(daemon).tokens
            assert enter(Talker(dial(port)), token()) == 0x88
            maria = Talker(dial(port))
            assert maria.password("maria", "correct horse")["reason"] == 0
            maria.sock.close()
            begin = time.monotonic()
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
            took.append(time.monotonic() - begin)


def test_a_forged_token_costs_little() -> None:
    """It is checked in the loop: far below what a turn may take. The bound is generous for a busy machine."""
    forged = Signer("ES256", ES.kid).token(claims(NOW))
    keys = tokens.parse_keys(jwks(ES), ALGORITHMS)
    best = 1.0
    for _ in range(20):
        begin = time.thread_time()
        with pytest.raises(ForgedError):
            tokens.read(forged, keys, ALL, NOW)
        best = min(best, time.thread_time() - begin)
    assert best < 0.005
