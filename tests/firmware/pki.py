"""A certificate authority for tests, as README's identity table has it: P-256, SHA-256, root, issuing CA, leaves."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOCAL = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


@dataclass(frozen=True)
class Credential:
    """A certificate, its key, and who signed it."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    issuer: Credential | None = None

    def pem(self) -> bytes:
        """Key, certificate and the issuing CA's, as a server loads them."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = [self.cert] if self.issuer is None or self.issuer.issuer is None else [self.cert, self.issuer.cert]
        return key + b"".join(cert.public_bytes(Encoding.PEM) for cert in chain)

    def key_der(self) -> bytes:
        """The key as a node stores it."""
        return self.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def issue(
    cn: str,
    issuer: Credential | None = None,
    *,
    san: list[x509.GeneralName] | None = None,
    ca: bool = False,
    server: bool = False,
    days: tuple[float, float] = (-1, 30),
) -> Credential:
    """A credential valid from days[0] to days[1] from now; self-signed without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.cert.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    if not ca:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return Credential(builder.sign(key if issuer is None else issuer.key, hashes.SHA256()), key, issuer)


class Pki:
    """A fleet's CA, its gateway and node, and impostors."""

    def __init__(self) -> None:
        self.root = issue("Test root", ca=True)
        self.issuing = issue("Test issuing CA", self.root, ca=True)
        foreign = issue("Test root", ca=True)  # the same names, another key
        elsewhere: list[x509.GeneralName] = [x509.DNSName("elsewhere.example")]
        self.gateways = {
            "good": issue("localhost", self.issuing, san=LOCAL, server=True),
            "wrong CA": issue("localhost", issue("Test issuing CA", foreign, ca=True), san=LOCAL, server=True),
            "wrong name": issue("localhost", self.issuing, san=elsewhere, server=True),
            "expired": issue("localhost", self.issuing, san=LOCAL, server=True, days=(-9, -2)),
            "not yet valid": issue("localhost", self.issuing, san=LOCAL, server=True, days=(2, 9)),
        }
        self.nodes = {
            "peanut": issue("peanut", self.issuing, san=[x509.UniformResourceIdentifier("peanut:plant/peanut")]),
            "foreign": issue("peanut", foreign, san=[x509.UniformResourceIdentifier("peanut:plant/peanut")]),
        }

    def write_bundle(self, folder: Path, node: str) -> None:
        """key.der, cert.der and ca.der of a node."""
        credential = self.nodes[node]
        (folder / "key.der").write_bytes(credential.key_der())
        (folder / "cert.der").write_bytes(credential.cert.public_bytes(Encoding.DER))
        (folder / "ca.der").write_bytes(self.root.cert.public_bytes(Encoding.DER))

    def trust(self) -> str:
        """Root and issuing CA in PEM: what the gateway trusts."""
        return "".join(c.cert.public_bytes(Encoding.PEM).decode() for c in (self.root, self.issuing))
