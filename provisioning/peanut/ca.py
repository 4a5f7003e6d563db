"""The fleet's certificate authorities: profiles, issuing, and the check of what was issued.

Rules: this file is the Identity table of the house's README as code (EC P-256, ECDSA with SHA-256, the extensions of
RFC 5280 as strictly as `openssl verify -x509_strict` asks); pure functions, the time is an argument; a certificate
never outlives its issuer.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peanut.errors import PeanutError

BACKDATE = timedelta(days=1)  # a node whose clock is a little behind shall not refuse a new certificate
RENEW_BEFORE = timedelta(days=30)  # less than this left: running the command again issues a new certificate
CN_MAX = 64  # ub-common-name, RFC 5280 appendix A.1
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # always in the gateway's certificate

Key = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


@dataclass(frozen=True)
class Profile:
    """What one sort of certificate looks like. `path_length`: of a CA; None for a leaf."""

    days: int
    path_length: int | None = None
    usage: x509.ObjectIdentifier | None = None


ROOT = Profile(days=3650, path_length=1)
ISSUING = Profile(days=1825, path_length=0)
GATEWAY = Profile(days=90, usage=ExtendedKeyUsageOID.SERVER_AUTH)
OCSP = Profile(days=90, usage=ExtendedKeyUsageOID.OCSP_SIGNING)
CLIENT = Profile(days=365, usage=ExtendedKeyUsageOID.CLIENT_AUTH)  # nodes and operators


@dataclass(frozen=True)
class Authority:
    """A CA that can sign."""

    certificate: x509.Certificate
    key: Key


def not_after(profile: Profile, issuer: x509.Certificate | None, now: datetime) -> datetime:
    """When a certificate that is issued now ends: `days` from its start, which is BACKDATE ago, and with its issuer."""
    end = (now - BACKDATE).replace(microsecond=0) + timedelta(days=profile.days)
    return end if issuer is None else min(end, issuer.not_valid_after_utc)


def new_key() -> Key:
    """A new private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def key_mark(public: PublicKey) -> str:
    """Eight hexadecimal digits by which people tell a CA from another one: of its key's identifier."""
    return x509.SubjectKeyIdentifier.from_public_key(public).digest.hex()[:8]


def _ca_name(role: str, public: PublicKey) -> x509.Name:
    # The key's own digest in the name: two fleets never have CAs of one name, so a mix-up reads as "unknown issuer".
    return _common_name(f"Peanut {role} CA {key_mark(public)}")


def _issue(
    profile: Profile,
    subject: x509.Name,
    public: PublicKey,
    issuer: x509.Certificate | None,
    key: Key,
    now: datetime,
    names: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    start, end = (now - BACKDATE).replace(microsecond=0), not_after(profile, issuer, now)
    if issuer is not None:
        if issuer.not_valid_after_utc <= now:
            raise PeanutError(
                f"the CA {common_name(issuer)} expired on {issuer.not_valid_after_utc:%Y-%m-%d} and can sign no more",
                "Make a new fleet home with `peanut init` and enrol the nodes anew.",
            )
        start = max(start, issuer.not_valid_before_utc)
    is_ca = profile.path_length is not None
    authority = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())  # 159 random bits, 20 bytes at the most (RFC 5280, 4.1.2.2)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=profile.path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_ca,
                key_cert_sign=is_ca,
                crl_sign=is_ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )
    if profile.usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([profile.usage]), critical=False)
    if profile is OCSP:
        # Whoever asks about a certificate need not ask about the one that answers (RFC 6960, 4.2.2.2.1).
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


def issue_root(key: Key, now: datetime) -> x509.Certificate:
    """The root: self-signed, 10 years, one CA below it."""
    return _issue(ROOT, _ca_name("root", key.public_key()), key.public_key(), None, key, now)


def issue_issuing(public: PublicKey, root: Authority, now: datetime) -> x509.Certificate:
    """The issuing CA: 5 years, signs leaves only."""
    return _issue(ISSUING, _ca_name("issuing", public), public, root.certificate, root.key, now)


def issue_gateway(public: PublicKey, hosts: Sequence[str], issuing: Authority, now: datetime) -> x509.Certificate:
    """The gateway's certificate for `hosts` (each passed names.check_host) and the loopback names."""
    every = list(dict.fromkeys([*hosts, *LOOPBACK]))
    names = [_general_name(host) for host in every]
    # "first host name" of the Identity table; one that is longer than a CN may be stands in the SAN alone
    fit = (h for h, n in zip(every, names, strict=True) if isinstance(n, x509.DNSName) and len(h) <= CN_MAX)
    first = next(fit)  # `localhost` at the latest
    return _issue(GATEWAY, _common_name(first), public, issuing.certificate, issuing.key, now, names)


def issue_client(public: PublicKey, name: str, uri: str, issuing: Authority, now: datetime) -> x509.Certificate:
    """A node's or an operator's certificate. uri: the identity (names.device_uri, names.operator_uri)."""
    names = [x509.UniformResourceIdentifier(uri)]
    return _issue(CLIENT, _common_name(name), public, issuing.certificate, issuing.key, now, names)


def issue_ocsp(public: PublicKey, issuing: Authority, now: datetime) -> x509.Certificate:
    """The certificate with which the gateway answers who asks whether another one is revoked."""
    return _issue(OCSP, _common_name("Peanut OCSP"), public, issuing.certificate, issuing.key, now)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def common_name(certificate: x509.Certificate) -> str:
    """The CN, for people to read; empty if there is none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def san_hosts(certificate: x509.Certificate) -> list[str]:
    """DNS names and addresses in the SAN, in their order there."""
    names = _san(certificate)
    return [str(n.value) for n in names if isinstance(n, x509.DNSName | x509.IPAddress)]


def san_uris(certificate: x509.Certificate) -> list[str]:
    """URIs in the SAN."""
    return [n.value for n in _san(certificate) if isinstance(n, x509.UniformResourceIdentifier)]


def _san(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def same_key(certificate: x509.Certificate, key: Key) -> bool:
    """Whether the certificate is for this key."""
    return certificate.public_key() == key.public_key()


def days_left(certificate: x509.Certificate, now: datetime) -> int:
    """Whole days until it expires; negative if it has."""
    return (certificate.not_valid_after_utc - now) // timedelta(days=1)


def until(end: datetime) -> str:
    """How every command tells the end of a certificate's life."""
    return f"valid until {end:%Y-%m-%d}"


def validity(certificate: x509.Certificate, now: datetime) -> str:
    """`until`, and the days that are left."""
    return f"{until(certificate.not_valid_after_utc)} ({days_left(certificate, now)} days left)"


def why_reissue(certificate: x509.Certificate, key: Key, issuer: x509.Certificate, now: datetime) -> str:
    """Why a leaf must be issued anew, in words; empty if it is good for a while yet."""
    if not same_key(certificate, key):
        return "is for another key"
    if not issued_by(certificate, issuer):
        return "was not issued by this fleet's CA"
    end = certificate.not_valid_after_utc
    if end <= now:
        return f"expired on {end:%Y-%m-%d}"
    if end - now < RENEW_BEFORE and issuer.not_valid_after_utc > end:
        return f"expires on {end:%Y-%m-%d}"
    return ""


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, as `openssl x509 -fingerprint -sha256` writes it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def certificate_pem(*chain: x509.Certificate) -> bytes:
    """PEM of one certificate or of a chain, leaf first."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain)


def certificate_der(certificate: x509.Certificate) -> bytes:
    """DER of one certificate."""
    return certificate.public_bytes(serialization.Encoding.DER)


def key_pem(key: Key, passphrase: bytes | None = None) -> bytes:
    """PKCS #8 PEM; encrypted (PBES2 with AES-256) if there is a passphrase."""
    how: serialization.KeySerializationEncryption
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def key_der(key: Key) -> bytes:
    """SEC 1 DER, unencrypted, 121 bytes: what Mbed TLS on a node reads."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def utc_now() -> datetime:
    """The wall clock; only the command line's entry points call it."""
    return datetime.now(UTC)
