"""Keys and certificates as files: reading them back with errors that name the file and the fix.

Rule: the only file that turns the bytes of a fleet home into keys and certificates; nothing here writes.
"""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from peanut import ca
from peanut.errors import PeanutError
from peanut.home import Home

FILE_MAX = 64 * 1024  # bytes; no key, certificate or settings file of ours comes near


def read(path: Path, limit: int = FILE_MAX) -> bytes:
    """The bytes of a file of at most `limit`; PeanutError in plain words if that does not work."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise PeanutError(f"{path} is missing") from None
    except OSError as error:
        raise PeanutError(f"cannot read {path}: {error.strerror}", "Mend its owner or mode and try again.") from None
    if len(data) > limit:
        raise PeanutError(f"{path} is larger than {limit} bytes: not a file of a fleet home", "Move it away.")
    return data


def certificate(path: Path) -> x509.Certificate:
    """A certificate in PEM (the first of a chain) or DER, by the file's name."""
    data = read(path)
    try:
        return x509.load_der_x509_certificate(data) if path.suffix == ".der" else x509.load_pem_x509_certificate(data)
    except ValueError:
        raise PeanutError(f"{path} is not a certificate", "Put it back from a backup, or move it away.") from None


def key(path: Path, passphrase: bytes | None = None) -> ca.Key:
    """A P-256 private key in PEM or DER, by the file's name; PeanutError for a wrong passphrase as well."""
    data = read(path)
    load = serialization.load_der_private_key if path.suffix == ".der" else serialization.load_pem_private_key
    try:
        found = load(data, passphrase)
    except (ValueError, TypeError):
        if b"ENCRYPTED" in data:
            raise PeanutError(f"the passphrase does not open {path}", "Try again with the right one.") from None
        raise PeanutError(f"{path} is not a private key", "Put it back from a backup, or move it away.") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != "secp256r1":
        raise PeanutError(f"{path} is not a key on the curve P-256", "Put back the one that `peanut` made.")
    return found


def issuing(home: Home) -> ca.Authority:
    """The issuing CA, ready to sign."""
    home.require()
    secret = key(home.ca / "issuing.key")
    found = next((one for one in certificates(home.ca / "issuing.crt") if ca.same_key(one, secret)), None)
    if found is None:
        raise PeanutError(
            f"{home.ca / 'issuing.key'} does not belong to issuing.crt beside it", "Put both back from one backup."
        )
    return ca.Authority(found, secret)


def retired_key(home: Home, public: ca.PublicKey) -> Path:
    """Where the key of an issuing CA is kept that issues no more, for as long as it is trusted."""
    return home.ca / f"issuing-{ca.key_mark(public)}.key"


def retired(home: Home) -> list[ca.Authority]:
    """The issuing CAs that were replaced and are still trusted, as far as their keys are here."""
    current, found = issuing(home).certificate, []
    for one in certificates(home.ca / "issuing.crt"):
        public = one.public_key()
        if one == current or not isinstance(public, ec.EllipticCurvePublicKey):
            continue
        path = retired_key(home, public)
        if path.exists() and ca.same_key(one, secret := key(path)):
            found.append(ca.Authority(one, secret))
    return found


def certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, in their order."""
    try:
        return x509.load_pem_x509_certificates(read(path))
    except ValueError:
        raise PeanutError(f"{path} is not a certificate", "Put it back from a backup, or move it away.") from None


def roots(home: Home) -> list[x509.Certificate]:
    """Every root that the fleet trusts: the present one first, and those of before while nodes still need them."""
    return certificates(home.ca / "root.crt")


def root_certificate(home: Home) -> x509.Certificate:
    """The root's certificate."""
    return certificate(home.ca / "root.crt")
