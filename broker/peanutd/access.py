"""Who may come in: identities, and the verdict on a CONNECT. What they may do then is in rules.py.

The rule it keeps: what nothing allows is refused, with a reason that a person can act on. The identity is the one
`peanut:` URI in a certificate that this fleet's CA issued and that is valid now; the README's first agreement is the
law. Nothing here awaits or touches a socket.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from peanutd.config import Policy

URI_PREFIX: Final = "peanut:"
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
"""Names of greenhouses and operators."""
TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}")
"""Names in tokens, as other issuers give them; none of them can be more than one literal level of a topic."""
VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}")
"""Vehicle identification number: no I, O, Q (ISO 3779)."""

# Reason codes of MQTT 5.0 §2.4 that a verdict may have.
CLIENT_ID_NOT_VALID: Final = 0x85
UNSUPPORTED_VERSION: Final = 0x84
BAD_USER_OR_PASSWORD: Final = 0x86
NOT_AUTHORIZED: Final = 0x87
BAD_AUTH_METHOD: Final = 0x8C


class IdentityError(Exception):
    """Why a certificate names nobody, in words for the log and for the peer."""


class Kind(Enum):
    """What a certificate may name, the value is the word in its URI; and a device with a key, which none can name."""

    PLANT = "plant"
    VIN = "vin"
    OPERATOR = "operator"
    PSK = "psk"

    @property
    def word(self) -> str:
        return {"plant": "greenhouse", "vin": "vehicle", "operator": "operator", "psk": "device"}[self.value]


@dataclass(frozen=True, slots=True)
class Identity:
    """A member of the fleet, as its certificate or its key (psk.py) names it."""

    kind: Kind
    name: str
    _text: str = field(init=False, repr=False, compare=False)  # asked for several times with each CONNECT

    def __post_init__(self) -> None:
        object.__setattr__(self, "_text", f"{self.kind.value}/{self.name}")

    def __str__(self) -> str:
        return self._text


@dataclass(frozen=True, slots=True)
class Psk:
    """A key that the gateway shares with a device, and who the device proves to be by it."""

    name: str
    """Its identity in TLS (RFC 8446 §4.2.11)."""
    key: bytes = field(repr=False)
    identity: Identity


@dataclass(frozen=True, slots=True)
class Credential:
    """An identity and the moment from which its certificate proves it no longer."""

    identity: Identity
    not_after: datetime
    serial: str = ""
    """The certificate's serial number, in hexadecimal digits."""
    key: str = ""
    """SHA-256 of its public key (SubjectPublicKeyInfo), in hexadecimal digits."""
    expired: bool = False
    """It is over, and within its grace: good for being renewed, and for nothing else. `not_after` is when that ends."""
    grace: timedelta = timedelta(0)
    """How much of that is grace."""
    psk: Psk | None = None
    """The key by which it was proved, in place of a certificate: then there is neither a serial number nor an end."""

    @property
    def proof(self) -> str:
        """What has proved it, in words."""
        return "certificate" if self.psk is None else "key"

    @property
    def ends(self) -> datetime:
        """When the certificate itself ends."""
        return self.not_after - self.grace


def by_key(psk: Psk) -> Credential:
    """Of who has proved to have the key. It counts for as long as psk.toml has it."""
    return Credential(psk.identity, datetime.max.replace(tzinfo=UTC), psk=psk)


# --- from a certificate to an identity --------------------------------------------------------------------------------


def identify(
    der: bytes | None,
    authorities: Sequence[x509.Certificate],
    now: datetime,
    grace: timedelta = timedelta(0),
) -> Credential:
    """The identity in the client certificate `der`, which the TLS handshake has proved the peer to own.

    OpenSSL has checked chain and purpose, but was told not to look at the clock (see tls.py), so that the reason can be
    given in words: this function is what stands between an expired certificate and the fleet. It trusts nothing that it
    has not checked: the signature by one of `authorities` (and theirs, up to the root), the validity of each of them at
    `now`, purpose, name. Where several authorities fit, the first one counts. A node's certificate that has expired
    within `grace` is `expired`. IdentityError says what is wrong.
    """
    if not der:
        raise IdentityError("no client certificate given")
    try:
        certificate = x509.load_der_x509_certificate(der)
        identity = _name(certificate)
        who = f"certificate of {identity.kind.word} {identity.name}"
        chain = [certificate, *_issuers(certificate, authorities, who)]
        _check_purpose(certificate, who)
        # The outermost first: that is the one to renew when several are over.
        for above in reversed(chain[1:]):
            _check_time(above, f"this fleet's CA certificate {_common_name(above)}", now)
        over = identity.kind is not Kind.OPERATOR and timedelta(0) < now - certificate.not_valid_after_utc <= grace
        if not over:
            _check_time(certificate, who, now)
            grace = timedelta(0)
        last = min(certificate.not_valid_after_utc + grace, *(above.not_valid_after_utc for above in chain[1:]))
        return Credential(identity, last, f"{certificate.serial_number:x}", _print(certificate), over, grace)
    except IdentityError:
        raise
    except Exception as error:  # the parser's errors are many; whatever it is, the certificate is not one of ours
        raise IdentityError(f"client certificate cannot be read: {type(error).__name__}: {error}") from None


def parse_uri(uri: str) -> Identity:
    """`peanut:plant/<name>`, `peanut:vin/<VIN>` or `peanut:operator/<name>`; IdentityError when it is none of them."""
    kind, slash, name = uri.removeprefix(URI_PREFIX).partition("/")
    shape = {"plant": NAME, "vin": VIN, "operator": NAME}.get(kind)
    if not uri.startswith(URI_PREFIX) or not slash or shape is None or not shape.fullmatch(name):
        raise IdentityError(f'client certificate has the name "{uri}", which is none that a fleet gives')
    return Identity(Kind(kind), name)


def _name(certificate: x509.Certificate) -> Identity:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(URI_PREFIX)]
    except x509.ExtensionNotFound:
        uris = []
    if not uris:
        raise IdentityError(f"client certificate ({_common_name(certificate)}) has no {URI_PREFIX} name in it")
    if len(uris) > 1:
        raise IdentityError(
            f"client certificate has {len(uris)} {URI_PREFIX} names ({', '.join(uris)}); one is allowed"
        )
    return parse_uri(uris[0])


def _issuers(
    certificate: x509.Certificate, authorities: Sequence[x509.Certificate], who: str
) -> list[x509.Certificate]:
    """The CAs above `certificate`, the root last. Only our own files count, not what the peer has sent along."""
    issuer = next((authority for authority in authorities if issued_by(certificate, authority)), None)
    above = None if issuer is None else _up_to_the_root(issuer, tuple(authorities))
    if above is None:
        raise IdentityError(f"{who} is not issued by this fleet's CA")
    return [*above]


@functools.lru_cache(maxsize=64)
def _up_to_the_root(
    first: x509.Certificate, authorities: tuple[x509.Certificate, ...]
) -> tuple[x509.Certificate, ...] | None:
    """A CA and those above it, the root last; None when there is no way to a root. It is the same for every client, and
    what is looked at is signatures, which do not depend on the time: so they are looked at once.
    """
    chain = [first]
    while len(chain) <= len(authorities):
        issuer = next((authority for authority in authorities if issued_by(chain[-1], authority)), None)
        if issuer is None:
            break
        if issuer in chain:  # the root, which issued itself
            return tuple(chain)
        chain.append(issuer)
    return None


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether `authority` signed `certificate`; what cannot be compared is no."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _print(certificate: x509.Certificate) -> str:
    """SHA-256 of the public key."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashes.Hash(hashes.SHA256())
    digest.update(certificate.public_key().public_bytes(serialization.Encoding.DER, form))
    return digest.finalize().hex()


def _check_purpose(certificate: x509.Certificate, who: str) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise IdentityError(f"{who} is not for clients (its extended key usage has no clientAuth)")


def _check_time(certificate: x509.Certificate, who: str, now: datetime) -> None:
    if now < certificate.not_valid_before_utc:
        raise IdentityError(f"{who} not yet valid before {_moment(certificate.not_valid_before_utc)}")
    if now > certificate.not_valid_after_utc:
        raise IdentityError(f"{who} expired since {_moment(certificate.not_valid_after_utc)}")


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else "without a CN"


# --- classes of clients -----------------------------------------------------------------------------------------------


class Role(Enum):
    """What a person may do; the value is the word in users.json. An operator's certificate counts as operator."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Slot(Enum):
    """Rule sets by their number in the core: one for each kind of client and role. Sessions keep the number."""

    PLANT = 0
    VIN = 1
    OPERATOR = 2
    ANONYMOUS = 3
    USER_VIEWER = 4
    USER_OPERATOR = 5
    USER_ADMIN = 6
    TOKEN_VIEWER = 7
    TOKEN_OPERATOR = 8
    TOKEN_ADMIN = 9
    PLANT_EXPIRED = 10
    VIN_EXPIRED = 11
    PSK = 12

    @functools.cached_property
    def expired(self) -> bool:
        """Whether it is for nodes that are let in to have their certificates renewed, and for nothing else."""
        return self.name.endswith("_EXPIRED")

    @property
    def kind(self) -> str:
        """The word for the kind of client, as identities begin with it: `plant/peanut`, `user/maria`."""
        return self.name.partition("_")[0].lower()

    @property
    def role(self) -> Role | None:
        """The role, None for those that have none."""
        if self is Slot.OPERATOR:
            return Role.OPERATOR
        if self.expired:
            return None
        word = self.name.partition("_")[2].lower()
        return Role(word) if word else None

    @functools.cached_property
    def person(self) -> bool:
        """Whether `{user}` in a rule stands for its names."""
        return self.role is not None


@functools.cache
def slot_of(kind: str, role: Role | None = None) -> Slot:
    """The slot of a kind of client; users and tokens have one for each role."""
    return next(slot for slot in Slot if slot.kind == kind and (slot.role is role or slot is Slot.OPERATOR))


_ROOT: Final[Mapping[Kind, str]] = {Kind.PLANT: "/plant/", Kind.VIN: "vin/"}


def root_of(kind: Kind, name: str) -> str:
    """The topic under which everything of a node lives: `/plant/<name>` or `vin/<VIN>`."""
    return _ROOT[kind] + name


# --- the verdict on a CONNECT -----------------------------------------------------------------------------------------


class Wish(Protocol):
    """What of a CONNECT the verdict depends on; `peanutd._core.Connect` is one."""

    @property
    def version(self) -> int: ...
    @property
    def client_id(self) -> str: ...
    @property
    def username(self) -> str | None: ...
    @property
    def clean_start(self) -> bool: ...
    @property
    def authentication_method(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Accept:
    """Let it in: the key of its session, what {id} stands for, its rules, and the client id it gets if it sent none."""

    session: str
    identity: str
    slot: Slot
    assigned: str | None = None
    owner: str | None = None
    """Whose connections it is counted among, against max_connections_per_identity; None: nobody's."""

    @property
    def client(self) -> str | None:
        """Whose client it is, whatever its client id; None: anybody's."""
        return self.owner or (self.session if self.slot is not Slot.ANONYMOUS else None)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Turn it away with a reason code of MQTT 5.0 and the reason in words."""

    reason: int
    text: str


_SLOT: Final = {Kind.PLANT: Slot.PLANT, Kind.VIN: Slot.VIN, Kind.OPERATOR: Slot.OPERATOR, Kind.PSK: Slot.PSK}
_EXPIRED: Final = {Kind.PLANT: Slot.PLANT_EXPIRED, Kind.VIN: Slot.VIN_EXPIRED}


def decide(
    wish: Wish, identity: Identity | None, policy: Policy, *, expired: bool = False, proof: str = "certificate"
) -> Accept | Refuse:
    """The verdict. `identity` is None where no certificate was shown; `policy` is the listener's; expired: the
    certificate is within its grace; proof: what has proved the identity, in words.
    """
    if wish.authentication_method is not None:
        return Refuse(BAD_AUTH_METHOD, f'authentication method "{wish.authentication_method}" is not supported')
    if identity is None and not policy.anonymous:
        return Refuse(NOT_AUTHORIZED, _nothing_shown(policy))
    # A user name adds nothing to a certificate, but one that contradicts it is a mix-up of certificates or of settings.
    if identity is not None and wish.username is not None and wish.username != identity.name:
        return Refuse(
            BAD_USER_OR_PASSWORD,
            f'user name "{wish.username}" is not the {proof}\'s name "{identity.name}"; leave it out',
        )
    if identity is not None and identity.kind in _ROOT:
        if wish.client_id != identity.name:
            return Refuse(
                CLIENT_ID_NOT_VALID,
                f'client id "{wish.client_id}" is not the {proof}\'s name "{identity.name}"',
            )
        return Accept(str(identity), identity.name, (_EXPIRED if expired else _SLOT)[identity.kind])
    if identity is None:
        return _come_in(wish, "anonymous", "anonymous", Slot.ANONYMOUS)
    return _come_in(wish, str(identity), identity.name, _SLOT[identity.kind], owner=str(identity))


def welcome(wish: Wish, name: str, slot: Slot) -> Accept | Refuse:
    """The verdict on somebody without a certificate who has proved to be the user `name`, or has a token of that name.

    A user, a token and an operator's certificate of one name are three identities: none gets at another's sessions.
    """
    # Before 5.0 there is no password without a user name; an empty one beside a token says nothing.
    if wish.username != name and (wish.username or (wish.username is not None and slot.kind == "user")):
        return Refuse(BAD_USER_OR_PASSWORD, f'user name "{wish.username}" is not "{name}", who has logged in')
    who = f"{slot.kind}/{name}"
    return _come_in(wish, who, name, slot, owner=who)


def _come_in(wish: Wish, who: str, name: str, slot: Slot, owner: str | None = None) -> Accept | Refuse:
    """Lets in somebody with any client id, or with one that is assigned."""
    assigned = None
    if not wish.client_id:
        if not wish.clean_start and wish.version < 5:  # MQTT-3.1.3-8 of 3.1.1: there is nothing to find the session by
            return Refuse(CLIENT_ID_NOT_VALID, "an empty client id needs a clean session")
        assigned = f"auto-{secrets.token_hex(10)}"
    return Accept(f"{who}/{assigned or wish.client_id}", name, slot, assigned, owner)


def _nothing_shown(policy: Policy) -> str:
    """Why a client without a certificate is turned away."""
    if policy.password or policy.jwt:
        wanted = " and ".join(["no user name and password"] * policy.password + ["no token"] * policy.jwt)
        return f"{wanted} given" + ("" if policy.certificate == "none" else ", and no certificate")
    if policy.certificate == "none":
        return "this listener asks for no certificate, and lets in nobody without one (anonymous is false)"
    return "no client certificate given"
