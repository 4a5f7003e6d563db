"""TLS contexts from the fleet home, and handshake failures in plain words.

The rule it keeps: a peer is let in by a certificate of this fleet or not at all, TLS 1.2 or 1.3, AEAD ciphers
with forward secrecy. OpenSSL checks chain, signature and purpose but not the clock, because all it could say is
"certificate has expired"; `access.identify` checks the clock right after, and says whose certificate and since when.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from peanutd import _core, access, psk
from peanutd.config import Certificate, Policy
from peanutd.known import Known
from peanutd.ocsp import Responder, Staple

NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h; Python's ssl has no name for it."""

CIPHERS: Final = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
"""Those of TLS 1.2; an ESP32 offers ECDHE-ECDSA on P-256. TLS 1.3 has only ciphers of this sort."""

PSK_CIPHERS: Final = "ECDHE-PSK-CHACHA20-POLY1305"
"""That of TLS 1.2 for devices with keys: of those with forward secrecy the only AEAD cipher that OpenSSL has."""

CURVE: Final = "prime256v1"
GROUPS: Final = f"{CURVE}:X25519"
"""Where keys are exchanged. P-256 for those who leave the choice to us, as TLS 1.2 does; most libraries begin TLS 1.3
with a key on X25519, and would have to begin anew. Python's ssl knows one curve at a time and has the first."""
SOON: Final = timedelta(days=14)
"""A certificate that ends within this time is worth a warning."""


FILES: Final = ("ca/root.crt", "ca/issuing.crt", "gateway/gateway.crt", "gateway/gateway.key")
"""In the fleet home: what is read."""


CRL: Final = "ca/issuing.crl"
"""In the fleet home: the revocation list for others, in DER."""


class TlsError(Exception):
    """Why the gateway has no certificates to serve with, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Material:
    """What contexts are made of, as PEM: the gateway's chain and key, and whom it trusts."""

    chain: bytes
    key: bytes = field(repr=False)
    trusted: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What new connections are served with: a context for each policy on client certificates.

    `authorities` are this fleet's CAs, those valid longest first.
    """

    contexts: Mapping[Certificate, ssl.SSLContext]
    authorities: tuple[x509.Certificate, ...]
    certificate: x509.Certificate
    warnings: tuple[str, ...]
    material: Material
    grace: timedelta = timedelta(0)
    """How long a node's certificate that has expired still lets it in to be renewed."""
    known: Known = field(default_factory=Known, repr=False, compare=False)
    tickets: int = 0
    """Seconds that a session of the native loop can be resumed for; 0: none is."""
    keys: psk.Keys = field(default_factory=lambda: psk.NO_KEYS, repr=False)
    """Those that devices share with the gateway, for listeners with `psk`."""
    staple: Staple | None = field(default=None, repr=False, compare=False)
    """What is said of `certificate` in handshakes of the native loop; Python's ssl has no way to say it."""

    def identify(self, certificate: bytes | None, now: datetime) -> access.Credential:
        """Whose certificate this is (DER), and until when. access.IdentityError says why it is nobody's."""
        return self.known.identify(certificate, self.authorities, now, self.grace)

    @property
    def context(self) -> ssl.SSLContext:
        """The strict one: no handshake without a certificate."""
        return self.contexts["required"]


def load(
    home: Path,
    now: datetime,
    grace: timedelta = timedelta(0),
    tickets: int = 0,
    keys: psk.Keys = psk.NO_KEYS,
) -> Credentials:
    """Reads CAs, the gateway's chain and its key from the fleet home. TlsError names the file and the remedy."""
    roots, issuing, chain, key = (home / name for name in FILES)
    for path in (roots, issuing, chain, key):
        if not path.is_file():
            raise TlsError(f"{path}: not there; make the fleet home with `peanut --home {home} init`")
    # After a CA was renewed with its old key, old and new fit the same signatures: access.identify takes the first.
    found = [*_certificates(roots), *_certificates(issuing)]
    authorities = tuple(sorted(found, key=lambda authority: authority.not_valid_after_utc, reverse=True))
    certificate = _certificates(chain)[0]
    contexts = {policy: _context(chain, key, mode) for policy, mode in _MODES.items()}
    try:
        trusted = "\n".join(path.read_text() for path in (roots, issuing))
        for context in contexts.values():
            context.load_verify_locations(cadata=trusted)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise TlsError(f"{roots} and {issuing}: not usable as CA certificates: {error}") from None
    material = Material(chain.read_bytes(), key.read_bytes(), trusted.encode())
    warnings = (*_warnings(authorities, certificate, chain, key, now), *_about_list(home / CRL, now))
    staple = Staple(Responder(home), certificate)
    return Credentials(
        contexts, authorities, certificate, warnings, material, grace, tickets=tickets, keys=keys, staple=staple
    )


def native_context(credentials: Credentials, policy: Policy) -> _core.Tls:
    """The same for the native loop (native.py). Where keys count, nothing else does, and no certificate is shown."""
    if policy.psk:
        return _core.Tls(
            chain=b"",
            key=b"",
            authorities=b"",
            certificate=_core.TLS_NONE,
            ciphers=PSK_CIPHERS,
            groups=GROUPS,
            tickets=0,
            psk=[(one.name.encode(), one.key) for one in credentials.keys.values()],
        )
    modes: Mapping[Certificate, int] = {
        "required": _core.TLS_REQUIRED,
        "optional": _core.TLS_OPTIONAL,
        "none": _core.TLS_NONE,
    }
    material = credentials.material
    return _core.Tls(
        chain=material.chain,
        key=material.key,
        authorities=material.trusted,
        certificate=modes[policy.certificate],
        ciphers=CIPHERS,
        groups=GROUPS,
        tickets=credentials.tickets,
        psk=None,
    )


_MODES: Final[Mapping[Certificate, ssl.VerifyMode]] = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


def _context(chain: Path, key: Path, mode: ssl.VerifyMode) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = mode
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    # No tickets: there is no ticket key to be kept secret and renewed. Sessions of TLS 1.2 may still be resumed by
    # their id: OpenSSL keeps up to 20,480 of them (3 KiB each, two hours), and Python has no switch for that. They
    # carry the peer's certificate, so access.identify judges it again on every connection.
    context.options |= (
        ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    context.num_tickets = 0
    context.set_ciphers(CIPHERS)
    context.set_ecdh_curve(CURVE)
    try:
        # Without a password function OpenSSL would ask at the terminal, and a daemon would hang there.
        context.load_cert_chain(chain, key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key}: not the key of {chain}; put back the pair that `peanut init` made") from None
        if isinstance(error, PermissionError):
            raise TlsError(f"{key}: not readable by this user; start peanutd as the owner of the fleet home") from None
        raise TlsError(f"{chain} and {key}: not a usable certificate with its key (unencrypted PEM): {error}") from None
    return context


def web(chain: Path, key: Path) -> ssl.SSLContext:
    """What browsers are served with: no client certificate, HTTP/1.1. TlsError names the file and the remedy."""
    for path in (chain, key):
        if not path.is_file():
            raise TlsError(f"{path}: not there; mend certificate and key in [https], or leave them out")
    context = _context(chain, key, ssl.CERT_NONE)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise TlsError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise TlsError(f"{path}: not a certificate in PEM; put back the file that `peanut init` made") from None


def _about_list(path: Path, now: datetime) -> tuple[str, ...]:
    """What is wrong with the revocation list for others. It decides nothing: who is out stands in revoked.json."""
    if not path.is_file():
        return ()
    same = "nobody is locked out for it, revoked.json decides; make it anew: peanut ca crl"
    try:
        end = x509.load_der_x509_crl(path.read_bytes()).next_update_utc
    except (OSError, ValueError):
        return (f"{path}: the revocation list for others cannot be read; {same}",)
    if end is not None and end < now:
        return (f"{path}: the revocation list for others is out of date since {end:%Y-%m-%d}; {same}",)
    return ()


def _warnings(
    authorities: Sequence[x509.Certificate], certificate: x509.Certificate, chain: Path, key: Path, now: datetime
) -> tuple[str, ...]:
    """What works, but not for everybody or not for long."""
    found: list[str] = []
    subjects = [(f"CA certificate {c.subject.rfc4514_string()}", c) for c in authorities]
    for what, subject in [*subjects, (f"{chain}: the gateway's certificate", certificate)]:
        end = subject.not_valid_after_utc
        if now > end:
            found.append(f"{what} expired since {end:%Y-%m-%d}: nobody will trust it; renew it")
        elif now < subject.not_valid_before_utc:
            found.append(f"{what} not valid before {subject.not_valid_before_utc:%Y-%m-%d}; is the clock right?")
        elif end - now < SOON:
            found.append(f"{what} ends on {end:%Y-%m-%d}; renew it")
    if not any(access.issued_by(certificate, authority) for authority in authorities):
        found.append(f"{chain}: not issued by this fleet's CA: nodes will not trust it; run `peanut init` again")
    if key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        found.append(f"{key}: readable by others; run `chmod 600 {key}`")
    return tuple(found)


# --- the first bytes of a client --------------------------------------------------------------------------------------

HELLO_HEADER: Final = 9
"""Bytes of the headers that a connection begins with: record (RFC 8446 §5.1) and handshake message (§4)."""
HELLO_MAX: Final = 16 * 1024
"""Bytes of a ClientHello, at most; real ones have half a KiB, and two with post-quantum keys. OpenSSL would keep room
for whatever a header announces (128 KiB) until the handshake is given up."""
_HANDSHAKE: Final = 0x16
_CLIENT_HELLO: Final = 1


def no_hello(first: bytes) -> str | None:
    """Why `first`, up to HELLO_HEADER bytes, cannot begin a ClientHello; None while it can."""
    if first[:1] != bytes([_HANDSHAKE]):
        return explain(None, first)
    if first[1:2] not in (b"", b"\x03"):
        return "not TLS"
    if len(first) >= 5 and not 4 <= (size := int.from_bytes(first[3:5])) <= HELLO_MAX:
        return f"not TLS: a first record of {size} bytes"
    if len(first) >= 6 and first[5] != _CLIENT_HELLO:
        return "not TLS: it does not begin with a ClientHello"
    if len(first) >= HELLO_HEADER and (size := int.from_bytes(first[6:9])) > HELLO_MAX:
        return f"not TLS: it announces a ClientHello of {size} bytes, and {HELLO_MAX} are allowed"
    return None


# --- handshake failures in plain words --------------------------------------------------------------------------------

# OpenSSL's reason -> what happened. The peer's alerts are spelled with the version that introduced them.
_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no client certificate given",
    "UNSUPPORTED_PROTOCOL": "TLS version too old (1.2 or 1.3 is needed)",
    "VERSION_TOO_LOW": "TLS version too old (1.2 or 1.3 is needed)",
    "NO_SHARED_CIPHER": "no shared cipher (TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20, is needed)",
    "NO_SHARED_GROUP": "no shared curve (P-256 or X25519 is needed)",
    "NO_SUITABLE_KEY_SHARE": "no shared curve (P-256 or X25519 is needed)",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "no shared signature algorithm (ECDSA with SHA-256 is needed)",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no shared signature algorithm (ECDSA with SHA-256 is needed)",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust this gateway's CA (it has another fleet's CA certificate)",
    "TLSV1_ALERT_DECRYPT_ERROR": "the client finds a signature false (it may have another fleet's CA certificate)",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept this gateway's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept this gateway's certificate (its CA, host name or dates)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client finds this gateway's certificate expired (or its clock is wrong)",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the client broke off the handshake",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the client does not speak TLS 1.2 or 1.3",
    "TLSV1_ALERT_INTERNAL_ERROR": "the client broke off the handshake: internal error there",
    "BAD_SIGNATURE": "the client does not have the key of its certificate",
    "DECRYPT_ERROR": "the client does not have the key of its certificate",
    "BAD_ECPOINT": "the client sent a key that is none",
}

# The same where keys count, and no certificates.
_WRONG_KEY: Final = "the device's key is not the one in psk.toml, or nobody there has its identity"
_NO_KEY: Final = "the client has no key to offer (here devices come in by one: psk), or none with an exchange of keys"
_PSK_REASONS: Final = {
    "BINDER_DOES_NOT_VERIFY": _WRONG_KEY,  # TLS 1.3
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": _WRONG_KEY,  # 1.2, as the next two
    "DIGEST_CHECK_FAILED": _WRONG_KEY,
    "BAD_DECRYPT": _WRONG_KEY,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _NO_KEY,
    "NO_SHARED_SIGNATURE_ALGORITHMS": _NO_KEY,
    "NO_SHARED_CIPHER": f"{_NO_KEY}; with TLS 1.2 only by {PSK_CIPHERS}",
    "DATA_LENGTH_TOO_LONG": f"an identity of more than {psk.IDENTITY_MAX} bytes",
}

# X509_V_ERR_… of OpenSSL's x509_vfy.h -> what is wrong with the peer's certificate.
_VERIFY: Final = {
    2: "client certificate not issued by this fleet's CA",
    7: "client certificate not issued by this fleet's CA (its signature is false)",
    18: "client certificate not issued by this fleet's CA (it is self-signed)",
    19: "client certificate not issued by this fleet's CA (it comes from another one)",
    20: "client certificate not issued by this fleet's CA",
    21: "client certificate not issued by this fleet's CA",
    24: "client certificate not issued by a CA certificate",
    25: "client certificate not issued by this fleet's CA (its CA may not issue CAs)",
    26: "client certificate is not for clients (its extended key usage has no clientAuth)",
}


def explain(error: Exception | None, first: bytes, *, by_key: bool = False) -> str:
    """Why the handshake failed: OpenSSL's error, if it came to that, and the first bytes that the peer sent.

    by_key: devices were to show that they have a key.
    """
    if first[:1] != bytes([_HANDSHAKE]):  # a client has nothing else to begin with
        if first[:1] == b"\x10":
            return "not TLS: an MQTT CONNECT without encryption; set the client to TLS (mqtts)"
        if first[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"PRI "):
            return "not TLS: an HTTP request"
        return "not TLS"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, f"client certificate not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError) and by_key and error.reason in _PSK_REASONS:
        return _PSK_REASONS[error.reason]
    if isinstance(error, ssl.SSLError) and error.reason:
        return _REASONS.get(error.reason, f"TLS: {error.reason.lower().replace('_', ' ')}")
    return f"TLS: {error}"


def about_certificate(error: Exception) -> bool:
    """Whether a handshake failed because of the client's certificate, or because it did not like ours."""
    return isinstance(error, ssl.SSLError) and "CERT" in (error.reason or "")
