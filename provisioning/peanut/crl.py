"""The revocation lists for others to use: ca/issuing.crl (DER, RFC 5280), signed by the issuing CA, and for each CA
that was replaced and is still trusted ca/issuing-MARK.crl, signed by it: a list counts for its signer's own only.

Rules: it is made from revoked.json and the ledger and decides nothing here: the gateway goes by revoked.json, so a list
that is old, damaged or missing locks nobody out. It is made anew at each revocation and by `peanut renew`, where the
key of the issuing CA is at hand; without the key the old one stays, and says when it ends.
"""

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from peanut import ca, ledger, names, operators, renewal, revocation, store
from peanut.errors import PeanutError
from peanut.home import PUBLIC, SECRET, Home, write_file
from peanut.names import Kind

LIFE = timedelta(days=7)  # `peanut renew` makes a new one every few hours
FILE = "issuing.crl"


def path(home: Home) -> Path:
    """Where it is."""
    return home.ca / FILE


def revoked_serials(home: Home, now: datetime) -> dict[str, int]:
    """Serial numbers that are revoked and have not ended, and since when (Unix seconds)."""
    entries = revocation.read(home)
    known = [(_uri(old), old.serial, old.not_after) for old in ledger.issued(home.ledger)]
    for name in operators.existing(home):
        where = home.operator(name) / operators.CERTIFICATE
        if where.exists():
            found = store.certificate(where)
            end = int(found.not_valid_after_utc.timestamp())
            known.append((names.operator_uri(name), renewal.serial(found), end))
    return {
        serial: entries[uri].since
        for uri, serial, end in known
        if revocation.is_revoked(entries, uri, serial) and end > now.timestamp()
    }


def _uri(old: ledger.Issued) -> str:
    return names.operator_uri(old.name) if old.kind == ledger.OPERATOR else names.device_uri(old.name, Kind(old.kind))


def make(home: Home, now: datetime, issuer: ca.Authority | None = None) -> x509.CertificateRevocationList:
    """A new list, of the CA in use or another one. PeanutError where the issuing CA's key is elsewhere."""
    issuer = issuer or store.issuing(home)
    start = now.replace(microsecond=0)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(start)
        .next_update(start + LIFE)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)  # grows with each
    )
    for serial, since in sorted(revoked_serials(home, now).items()):
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
        when = min(datetime.fromtimestamp(since, now.tzinfo), start)
        builder = builder.add_revoked_certificate(entry.revocation_date(when).build())
    return builder.sign(issuer.key, hashes.SHA256())


def publish(home: Home, now: datetime) -> bool:
    """Write new lists; False where the issuing CA's key is elsewhere."""
    if not (home.ca / "issuing.key").exists():
        return False
    write_file(path(home), make(home, now).public_bytes(serialization.Encoding.DER), PUBLIC)
    for old in store.retired(home):
        where = store.retired_key(home, old.key.public_key()).with_suffix(".crl")
        write_file(where, make(home, now, old).public_bytes(serialization.Encoding.DER), PUBLIC)
    return True


def ocsp_signer(home: Home, now: datetime) -> None:
    """A key, and a certificate of the issuing CA for it, with which the gateway answers OCSP; a new pair each time. So
    too for a CA that was replaced and is still trusted: only whom it has certified speaks for it (RFC 6960, 4.2.2.2).
    """
    pairs = {"ocsp": store.issuing(home)}
    pairs |= {f"ocsp-{ca.key_mark(old.key.public_key())}": old for old in store.retired(home)}
    for name, issuer in pairs.items():
        key = ca.new_key()
        made = ca.issue_ocsp(key.public_key(), issuer, now)
        write_file(home.gateway / f"{name}.key", ca.key_pem(key), SECRET)
        write_file(home.gateway / f"{name}.crt", ca.certificate_pem(made), PUBLIC)


def ocsp_is_due(home: Home, now: datetime) -> bool:
    """Whether there is such a certificate, and it is to be renewed."""
    where = home.gateway / "ocsp.crt"
    return where.exists() and renewal.certificate_is_due(home, store.certificate(where), now)


def problem(home: Home, now: datetime) -> str:
    """What is wrong with the list that is published, in words; empty if nothing is, or if there is none."""
    if not path(home).exists():
        return ""
    try:
        found = x509.load_der_x509_crl(store.read(path(home), 8 * 1024 * 1024))
    except (ValueError, PeanutError):
        return "cannot be read"
    end = found.next_update_utc
    if end is not None and end < now:
        return f"is out of date since {end:%Y-%m-%d}"
    issuers = store.certificates(home.ca / "issuing.crt")
    public = issuers[0].public_key()
    if not isinstance(public, ca.PublicKey) or not found.is_signature_valid(public):
        return "is not signed by the issuing CA in use"
    return ""
