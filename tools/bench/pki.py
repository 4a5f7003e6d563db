"""Certificates for a broker that cannot make its own, of the same shape as a fleet's (README, agreement 1).

The rule it keeps: root, issuing CA and leaves are EC P-256 with SHA-256; the server sends its certificate and the
issuing CA's, the client its own only; keys have mode 0600. They live a day, in a temporary directory.
"""

import datetime
import ipaddress
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pki:
    """Paths of PEM files. `authorities` is root and issuing CA, `chain` is server certificate and issuing CA."""

    root: Path
    authorities: Path
    chain: Path
    server_key: Path
    client: Path
    client_key: Path


@dataclass(frozen=True)
class Issuer:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_private(path: Path, data: bytes) -> None:
    """Writes `data` to `path` at once or not at all, readable by the owner only."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mkstemp gives mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _issue(
    name: str,
    issuer: Issuer | None,
    *,
    path_length: int | None = None,
    usage: x509.ObjectIdentifier | None = None,
    names: list[x509.GeneralName] | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Issuer:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    authority = path_length is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                key_cert_sign=authority,
                crl_sign=authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Issuer(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def _pem(*certificates: Issuer) -> bytes:
    return b"".join(each.certificate.public_bytes(serialization.Encoding.PEM) for each in certificates)


def _key_pem(owner: Issuer) -> bytes:
    return owner.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def client(name: str, uri: str, issuer: Issuer, key: ec.EllipticCurvePrivateKey | None = None) -> Issuer:
    """A client's certificate, with a key of its own or the one that is given. uri: its identity."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    return _issue(name, issuer, usage=ExtendedKeyUsageOID.CLIENT_AUTH, names=names, key=key)


def make(directory: Path) -> Pki:
    """Makes a root, an issuing CA, a server certificate for localhost and an operator's certificate in `directory`."""
    root = _issue("bench root", None, path_length=1)
    issuing = _issue("bench issuing", root, path_length=0)
    server = _issue(
        "localhost",
        issuing,
        usage=ExtendedKeyUsageOID.SERVER_AUTH,
        names=[x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))],
    )
    operator = client("operator", "peanut:operator/operator", issuing)
    pki = Pki(
        root=directory / "root.crt",
        authorities=directory / "authorities.crt",
        chain=directory / "server.crt",
        server_key=directory / "server.key",
        client=directory / "operator.crt",
        client_key=directory / "operator.key",
    )
    pki.root.write_bytes(_pem(root))
    pki.authorities.write_bytes(_pem(root, issuing))
    pki.chain.write_bytes(_pem(server, issuing))
    pki.client.write_bytes(_pem(operator))
    write_private(pki.server_key, _key_pem(server))
    write_private(pki.client_key, _key_pem(operator))
    return pki
