"""SCRAM, the server's side: a client proves that it knows a password, which neither travels nor is stored.

RFC 5802 (the mechanism), RFC 7677 (SCRAM-SHA-256), draft-melnikov-scram-sha-512 (SCRAM-SHA-512), RFC 4013 (SASLprep).
The rule it keeps: bytes in, bytes out; no clock, no socket, no randomness of its own. An exchange is `first`, then
`final`, and each raises or answers; whatever a client sends is bounded by MAX_MESSAGE, and secrets are compared in
constant time. Channel binding is not offered: "n" and "y" are taken, "p=…" is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

MAX_MESSAGE: Final = 1024
"""Bytes of one message of a client; one of ordinary size has about 100."""
MAX_PASSWORD: Final = 1024
"""Bytes of a password; nobody has a longer one."""
MAX_NONCE: Final = 256
"""Characters of a client's nonce; clients send 18 to 32."""
MAX_ITERATIONS: Final = 10_000_000
"""Of PBKDF2, some seconds of a PC's time; a credential that asks for more is damaged."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A member of the family. `digest` is hashlib's name, `size` its bytes, `min_iterations` what its text demands."""

    name: str
    digest: str
    size: int
    min_iterations: int

    def hmac(self, key: bytes, text: bytes) -> bytes:
        return hmac.digest(key, text, self.digest)

    def hash(self, data: bytes) -> bytes:
        return hashlib.new(self.digest, data).digest()


SHA_256: Final = Mechanism("SCRAM-SHA-256", "sha256", 32, 4096)
SHA_512: Final = Mechanism("SCRAM-SHA-512", "sha512", 64, 10_000)
MECHANISMS: Final[Mapping[str, Mechanism]] = MappingProxyType({m.name: m for m in (SHA_256, SHA_512)})


@dataclass(frozen=True, slots=True)
class Credential:
    """What is stored of a password for one mechanism (RFC 5802 §3). It does not suffice to log in with."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:  # a log or a traceback is no place for keys
        return f"Credential(iterations={self.iterations})"


class ScramError(Exception):
    """Why an exchange has failed. `error` is the server-error-value of RFC 5802 §7; the text is for the log."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error

    @property
    def message(self) -> bytes:
        """The server-final-message that says so."""
        return b"e=" + self.error.encode()


# --- passwords --------------------------------------------------------------------------------------------------------


def prepare(text: str, *, stored: bool = False) -> str:
    """SASLprep (RFC 4013): what is typed differently and means the same becomes the same.

    `stored` as in RFC 3454 §7: what is to be stored may hold no code point that Unicode 3.2 did not know, what is to be
    compared with it may. ValueError says what is not allowed; the result may be empty.
    """
    if text.isascii() and text.isprintable():
        return text  # as nearly always: nothing below would touch it
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    result = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    for c in result:
        if any(prohibited(c) for prohibited in _PROHIBITED):
            raise ValueError(f"the character U+{ord(c):04X} is not allowed")
        if stored and stringprep.in_table_a1(c):
            raise ValueError(f"the character U+{ord(c):04X} is newer than Unicode 3.2")
    if any(stringprep.in_table_d1(c) for c in result):  # RFC 3454 §6
        mixed = any(stringprep.in_table_d2(c) for c in result)
        if mixed or not stringprep.in_table_d1(result[0]) or not stringprep.in_table_d1(result[-1]):
            raise ValueError("characters written from the right are mixed with others")
    return result


_PROHIBITED: Final[tuple[Callable[[str], bool], ...]] = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def derive(mechanism: Mechanism, password: bytes, salt: bytes, iterations: int) -> Credential:
    """The credential of a prepared password in UTF-8 (RFC 5802 §3). Slow by design: `iterations` rounds of PBKDF2."""
    salted = hashlib.pbkdf2_hmac(mechanism.digest, password, salt, iterations)
    client_key = mechanism.hmac(salted, b"Client Key")
    return Credential(salt, iterations, mechanism.hash(client_key), mechanism.hmac(salted, b"Server Key"))


def prepared_password(password: bytes) -> bytes:
    """A password as a client has sent it, prepared; empty for what is nobody's password, which is checked all the same:
    the time that it takes is not to tell.
    """
    try:
        return prepare(password.decode()).encode() if len(password) <= MAX_PASSWORD else b""
    except ValueError:
        return b""


def verify(mechanism: Mechanism, credential: Credential, password: bytes) -> bool:
    """Whether it is the password of the credential. As slow as `derive`, and for whatever `password` holds."""
    prepared = prepared_password(password)
    found = derive(mechanism, prepared, credential.salt, credential.iterations)
    return hmac.compare_digest(found.stored_key, credential.stored_key) and bool(prepared)


def decoy(mechanism: Mechanism, name: str, secret: bytes, iterations: int) -> Credential:
    """The credential of a user who does not exist (RFC 5802 §9): the same one each time, and no password fits it."""

    def part(what: bytes) -> bytes:
        return mechanism.hmac(secret, b"\0".join((mechanism.name.encode(), what, name.encode())))

    return Credential(part(b"salt")[:16], iterations, part(b"stored key"), part(b"server key"))


# --- the exchange -----------------------------------------------------------------------------------------------------


class Server:
    """One exchange. `lookup` gives the credential of a prepared user name (a decoy where there is no such user).

    `nonce` is the server's part of it: at least 18 random bytes as printable ASCII without a comma, used once.
    """

    def __init__(self, mechanism: Mechanism, lookup: Callable[[str], Credential], nonce: str) -> None:
        self.user = ""
        """The prepared user name, once `first` has returned: a claim, which `final` proves."""
        self._mechanism = mechanism
        self._lookup = lookup
        self._nonce = nonce
        self._header = b""  # the gs2-header, as it came
        self._bare = b""  # client-first-message-bare
        self._challenge = b""
        self._credential: Credential | None = None

    def first(self, data: bytes) -> bytes:
        """Takes the client-first-message; returns the server-first-message. ScramError when it is not one."""
        self._header, self._bare, authzid = _split_header(_text(data))
        name, nonce = _first_bare(self._bare.decode())
        if authzid is not None and _user(authzid) != name:
            raise ScramError("other-error", "asks to act for somebody else")
        self._credential = self._lookup(name)
        self.user = name
        self._nonce = nonce + self._nonce
        salt = base64.b64encode(self._credential.salt).decode()
        self._challenge = f"r={self._nonce},s={salt},i={self._credential.iterations}".encode()
        return self._challenge

    def final(self, data: bytes) -> bytes:
        """Takes the client-final-message; returns the server-final-message: the client has proved to be `user`.

        ScramError when it has not. To be called once, after `first`.
        """
        credential, self._credential = self._credential, None
        assert credential is not None, "final without first"
        text = _text(data)
        unproved, comma, last = text.rpartition(",")
        attributes = unproved.split(",")
        if not comma or not last.startswith("p=") or len(attributes) < 2:
            raise ScramError("invalid-encoding", "not a client-final-message")
        binding, nonce = (_value(part, name) for part, name in zip(attributes[:2], "cr", strict=True))
        _extensions(attributes[2:])
        proof = _base64(last[2:])
        if _base64(binding) != self._header:
            raise ScramError("channel-bindings-dont-match", "channel binding is not what the client began with")
        if not hmac.compare_digest(nonce.encode(), self._nonce.encode()):
            raise ScramError("other-error", "the nonce is not this exchange's")
        if len(proof) != self._mechanism.size:
            raise ScramError("invalid-encoding", f"the proof has {len(proof)} bytes")
        signed = b",".join((self._bare, self._challenge, unproved.encode()))
        signature = self._mechanism.hmac(credential.stored_key, signed)
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(self._mechanism.hash(client_key), credential.stored_key):
            raise ScramError("invalid-proof", "wrong user name or password")
        return b"v=" + base64.b64encode(self._mechanism.hmac(credential.server_key, signed))


# --- its grammar (RFC 5802 §7) ----------------------------------------------------------------------------------------

_ATTRIBUTE: Final = re.compile(r"[A-Za-z]=[^,\0]+")
_NONCE: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]+")  # printable, but for the comma


def _text(data: bytes) -> str:
    if len(data) > MAX_MESSAGE:
        raise ScramError("other-error", f"a message of {len(data)} bytes; {MAX_MESSAGE} are allowed")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ScramError("invalid-encoding", "not UTF-8") from None
    if "\0" in text:
        raise ScramError("invalid-encoding", "a NUL in the message")
    return text


def _split_header(text: str) -> tuple[bytes, bytes, str | None]:
    """gs2-header, client-first-message-bare, and the name to act for, if one is given."""
    flag, first, rest = text.partition(",")
    authzid, second, bare = rest.partition(",")
    if flag.startswith("p="):
        raise ScramError("channel-binding-not-supported", "the client asks for channel binding, which is not offered")
    if flag not in ("n", "y") or not first or not second or (authzid and not authzid.startswith("a=")):
        raise ScramError("invalid-encoding", "not a client-first-message")
    return f"{flag},{authzid},".encode(), bare.encode(), authzid[2:] if authzid else None


def _first_bare(text: str) -> tuple[str, str]:
    """Prepared user name and nonce."""
    attributes = text.split(",")
    if attributes[0].startswith("m="):
        raise ScramError("extensions-not-supported", "the client demands an extension")
    if len(attributes) < 2:
        raise ScramError("invalid-encoding", "not a client-first-message")
    name, nonce = (_value(part, name) for part, name in zip(attributes[:2], "nr", strict=True))
    if not _NONCE.fullmatch(nonce):
        raise ScramError("invalid-encoding", "the nonce has characters that are not allowed")
    if len(nonce) > MAX_NONCE:
        raise ScramError("other-error", f"a nonce of {len(nonce)} characters; {MAX_NONCE} are allowed")
    _extensions(attributes[2:])
    return _user(name), nonce


def _user(name: str) -> str:
    """A saslname, unescaped and prepared."""
    if re.search(r"=(?!2C|3D)", name):
        raise ScramError("invalid-username-encoding", '"=" in the user name that is neither "=2C" nor "=3D"')
    try:
        prepared = prepare(name.replace("=2C", ",").replace("=3D", "="))
    except ValueError as error:
        raise ScramError("invalid-username-encoding", f"user name: {error}") from None
    if not prepared:
        raise ScramError("invalid-username-encoding", "the user name is empty")
    return prepared


def _value(part: str, name: str) -> str:
    if not part.startswith(f"{name}="):
        raise ScramError("invalid-encoding", f'the attribute "{name}" is missing')
    return part[2:]


def _extensions(parts: list[str]) -> None:
    """Extensions that are not mandatory are passed over (RFC 5802 §5.1), but they must look like some."""
    for part in parts:
        if not _ATTRIBUTE.fullmatch(part):
            raise ScramError("invalid-encoding", "an extension that is none")
        if part.startswith("m="):
            raise ScramError("extensions-not-supported", "the client demands an extension")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ScramError("invalid-encoding", "not base64") from None
