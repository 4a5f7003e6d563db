"""The OCSP responder (RFC 6960): whether a certificate is revoked, for other programs that trust this CA.

The rule it keeps: bytes in, bytes out; it decides nothing for the gateway itself, which goes by revoked.json. It signs
with a key that the issuing CA has certified for this alone (`peanut ca ocsp`), never with the CA's own. What the ledger
does not know is `unknown`, not good; a question that is none gets an error as the RFC has it, and costs little. What it
says of the gateway's own certificate goes along with handshakes whose clients ask for it (a staple), and is never old.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from peanutd import revoked
from peanutd.access import NAME, VIN, issued_by
from peanutd.revoked import Entries, RevokedError

CERTIFICATE: Final = "gateway/ocsp.crt"
KEY: Final = "gateway/ocsp.key"
OWN: Final = "gateway/gateway.crt"
"""The gateway's certificate: it is in no ledger, and good."""
OLDER: Final = "ocsp-*.crt"
"""Beside it: those of issuing CAs that were replaced and are still trusted."""
REQUEST_MAX: Final = 2048
"""Bytes of a question: it is about one certificate."""
LIFE: Final = timedelta(hours=1)
"""How long an answer may be kept."""

RETRY: Final = timedelta(minutes=1)
"""After which a staple that could not be had is tried again."""

_HASHES: Final = {"sha1": hashes.SHA1, "sha256": hashes.SHA256}
_SHAPES: Final = {"greenhouse": ("plant", NAME), "vehicle": ("vin", VIN), "operator": ("operator", NAME)}


class Responder:
    """Answers for the fleet home; every answer reads what is there now."""

    def __init__(self, home: Path) -> None:
        self._home = home

    @property
    def ready(self) -> bool:
        """Whether there is a key to sign answers with."""
        return (self._home / CERTIFICATE).is_file() and (self._home / KEY).is_file()

    def about(self, certificate: x509.Certificate, now: datetime) -> bytes:
        """What is said of the gateway's own certificate, which nobody has asked for, in DER. OSError or ValueError when
        nobody here may say it.
        """
        issuer = next((one for one in self._issuers() if issued_by(certificate, one)), None)
        if issuer is None:
            raise ValueError("not one of ours to speak for")
        start = now.replace(microsecond=0)
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=certificate,
            issuer=issuer,
            algorithm=hashes.SHA1(),  # that is how clients look for it: a name, and no proof of anything
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=start,
            next_update=start + LIFE,
            revocation_time=None,
            revocation_reason=None,
        )
        return _signed(builder, *self._signer(issuer)).public_bytes(serialization.Encoding.DER)

    def answer(self, request: bytes, now: datetime) -> bytes:
        """The response to a request, both in DER."""
        return self._answer(request, now).public_bytes(serialization.Encoding.DER)

    def _answer(self, request: bytes, now: datetime) -> ocsp.OCSPResponse:
        try:
            asked = ocsp.load_der_ocsp_request(request[:REQUEST_MAX])
            kind = _HASHES.get(asked.hash_algorithm.name)
        except ValueError:  # no request, about several certificates, or with a hash that nobody knows
            return ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
        try:
            issuer = next((one for one in self._issuers() if kind is not None and _is_about(asked, one, kind())), None)
            if issuer is None:  # not one of ours to speak for
                return ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
            signer, key = self._signer(issuer)
            status, since = self._status(f"{asked.serial_number:x}")
        except (OSError, ValueError, sqlite3.Error, RevokedError):
            return ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
        start = now.replace(microsecond=0)
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            issuer_name_hash=asked.issuer_name_hash,
            issuer_key_hash=asked.issuer_key_hash,
            serial_number=asked.serial_number,
            algorithm=asked.hash_algorithm,
            cert_status=status,
            this_update=start,
            next_update=start + LIFE,
            revocation_time=since,
            revocation_reason=None,
        )
        try:
            nonce = asked.extensions.get_extension_for_class(x509.OCSPNonce).value
            builder = builder.add_extension(nonce, critical=False)
        except x509.ExtensionNotFound:
            pass
        return _signed(builder, signer, key)

    def _issuers(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates((self._home / "ca" / "issuing.crt").read_bytes())

    def _signer(self, issuer: x509.Certificate) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Who may answer for an issuer: the one that it has certified (RFC 6960, 4.2.2.2), by all that are here."""
        folder = self._home / Path(CERTIFICATE).parent
        for path in (self._home / CERTIFICATE, *sorted(folder.glob(OLDER))):
            found = x509.load_pem_x509_certificate(path.read_bytes())
            if not issued_by(found, issuer):
                continue
            key = serialization.load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
            return found, cast(ec.EllipticCurvePrivateKey, key)
        raise ValueError("nobody")

    def _status(self, serial: str) -> tuple[ocsp.OCSPCertStatus, datetime | None]:
        """What is known of a serial number, and since when it is revoked."""
        own = self._home / OWN
        if own.is_file() and x509.load_pem_x509_certificate(own.read_bytes()).serial_number == int(serial, 16):
            return ocsp.OCSPCertStatus.GOOD, None
        path = self._home / "ledger.db"
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1.0)) as ledger:
            row = ledger.execute("SELECT name, kind FROM issued WHERE serial = ?", (serial,)).fetchone()
        word, shape = _SHAPES.get(row[1], ("", NAME)) if row else ("", NAME)
        if not word or not shape.fullmatch(row[0]):
            return ocsp.OCSPCertStatus.UNKNOWN, None
        entry = self._entries().get(f"{word}/{row[0]}")
        if entry is None or serial in entry.good:
            return ocsp.OCSPCertStatus.GOOD, None
        return ocsp.OCSPCertStatus.REVOKED, datetime.fromtimestamp(entry.since, UTC)

    def _entries(self) -> Entries:
        path = self._home / revoked.FILE_NAME
        return revoked.parse(path.read_bytes(), str(path)) if path.is_file() else {}


class Staple:
    """What handshakes carry along about the gateway's certificate (RFC 6066 §8), renewed at half its life."""

    def __init__(self, responder: Responder, certificate: x509.Certificate) -> None:
        self._responder = responder
        self._certificate = certificate
        self._answer = b""
        self._tried = self._due = self._from = self._end = datetime.min.replace(tzinfo=UTC)

    def current(self, now: datetime) -> bytes:
        """In DER; empty while there is none that could be believed. Cheap but twice an hour."""
        if not self._tried <= now < self._due:  # before it was tried: the clock was put back
            self._renew(now)
        return self._answer if self._from <= now < self._end else b""

    def _renew(self, now: datetime) -> None:
        self._tried = now
        try:
            self._answer = self._responder.about(self._certificate, now)
        except Exception:  # whatever is wrong with the files: handshakes do without, and the gateway's tick goes on
            self._due = now + RETRY
        else:
            self._from, self._due, self._end = now.replace(microsecond=0), now + LIFE / 2, now + LIFE


def _signed(
    builder: ocsp.OCSPResponseBuilder, signer: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> ocsp.OCSPResponse:
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer).certificates([signer])
    return builder.sign(key, hashes.SHA256())


def _is_about(asked: ocsp.OCSPRequest, issuer: x509.Certificate, kind: hashes.HashAlgorithm) -> bool:
    """Whether the request is about a certificate of this issuer."""
    public = issuer.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    name = issuer.subject.public_bytes()
    return asked.issuer_name_hash == _digest(kind, name) and asked.issuer_key_hash == _digest(kind, public)


def _digest(kind: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(kind)
    digest.update(data)
    return digest.finalize()
