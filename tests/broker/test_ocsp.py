"""The OCSP responder, asked by openssl: good, revoked, unknown; and what is no question."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from peanutd.ocsp import LIFE, OWN, REQUEST_MAX, RETRY, Responder, Staple
from tests.broker.conftest import Leaf
from tests.broker.native_loop import needs_loop
from tests.broker.test_revoked import entry, write
from tests.programs import program

NOW = datetime.now(UTC)


@pytest.fixture
def home(fleet: Any) -> Path:
    """With a signer and two nodes in the ledger; the fleet's `peanut` and `tomato`."""
    usages = [ExtendedKeyUsageOID.OCSP_SIGNING]
    signer = Leaf(fleet.issuing, "ocsp", [], usages, NOW - timedelta(days=1), NOW + timedelta(days=90))
    (fleet.home / "gateway" / "ocsp.crt").write_bytes(signer.pem)
    (fleet.home / "gateway" / "ocsp.key").write_bytes(signer.key_pem())
    fleet.leaves = {name: fleet.issue(f"peanut:plant/{name}") for name in ("peanut", "tomato", "stranger")}
    with sqlite3.connect(fleet.home / "ledger.db") as ledger:
        ledger.execute("CREATE TABLE issued(serial TEXT, name TEXT, kind TEXT, not_after INTEGER)")
        for name in ("peanut", "tomato"):
            serial = f"{fleet.leaves[name].certificate.serial_number:x}"
            ledger.execute("INSERT INTO issued VALUES (?, ?, 'greenhouse', 0)", (serial, name))
    ledger.close()
    write(fleet.home, tomato=entry())
    made: Path = fleet.home
    return made


def request(fleet: Any, name: str, issuer: Any = None) -> bytes:
    from cryptography.hazmat.primitives import serialization

    above = (issuer or fleet.issuing).certificate
    made = ocsp.OCSPRequestBuilder().add_certificate(fleet.leaves[name].certificate, above, hashes.SHA256()).build()
    return made.public_bytes(serialization.Encoding.DER)


def test_openssl_is_told(fleet: Any, home: Path, start: Any, tmp_path: Path) -> None:
    """Over HTTP, with a nonce, and openssl checks signature, signer and times."""
    fleet.settings('[listen]\nmqtts = "127.0.0.1:0"\nmetrics = "127.0.0.1:0"\n')
    daemon = start(home)
    url = "http://" + daemon.line("listening metrics").rpartition(" ")[2].replace("/metrics", "/ocsp")
    for name, said in (("peanut", "good"), ("tomato", "revoked"), ("stranger", "unknown")):
        leaf = tmp_path / f"{name}.pem"
        leaf.write_bytes(fleet.leaves[name].pem)
        done = subprocess.run(
            [
                *(program("openssl"), "ocsp", "-issuer", str(home / "ca" / "issuing.crt"), "-cert", str(leaf)),
                *("-CAfile", str(home / "ca" / "root.crt"), "-verify_other", str(home / "ca" / "issuing.crt")),
                *("-url", url, "-nonce"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Response verify OK" in done.stderr, done.stderr
        assert f"{name}.pem: {said}" in done.stdout
    with urllib.request.urlopen(url, data=b"nothing", timeout=60) as answer:
        assert answer.headers["Content-Type"] == "application/ocsp-response"
        found = ocsp.load_der_ocsp_response(answer.read())
        assert found.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


# --- the gateway's own certificate ---


def handshake(fleet: Any, port: int, *more: str) -> str:
    """What openssl says of a handshake in which it has asked for the state of the gateway's certificate."""
    certificate, key, _ = fleet.save(fleet.issue("peanut:plant/peanut"))
    done = subprocess.run(
        [
            *(program("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-status", *more),
            *("-cert", certificate, "-key", key, "-CAfile", str(fleet.home / "ca" / "root.crt")),
        ],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


@needs_loop
def test_a_handshake_brings_along_what_is_said_of_the_gateway(fleet: Any, home: Path, start: Any) -> None:
    fleet.settings('[listen]\nmqtts = "127.0.0.1:0"\ntime = ""\ndriver = "native"\n')
    port = start(home).port()
    serial = f"{x509.load_pem_x509_certificate((home / OWN).read_bytes()).serial_number:x}"
    for version in ("-tls1_3", "-tls1_2"):
        said = handshake(fleet, port, version)
        assert "OCSP Response Status: successful" in said, said
        assert "Cert Status: good" in said
        assert serial.upper().zfill(len(serial) + len(serial) % 2) in said.partition("Serial Number: ")[2][:60]
        assert "Verify return code: 0 (ok)" in said


def test_a_staple_is_signed_for_the_gateway_and_never_old(fleet: Any, home: Path) -> None:
    own = x509.load_pem_x509_certificate((home / OWN).read_bytes())
    staple = Staple(Responder(home), own)
    first = staple.current(NOW)
    found = ocsp.load_der_ocsp_response(first)
    signer = found.certificates[0].public_key()
    assert isinstance(signer, ec.EllipticCurvePublicKey)
    signer.verify(found.signature, found.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert (found.serial_number, found.certificate_status) == (own.serial_number, ocsp.OCSPCertStatus.GOOD)
    assert found.next_update_utc is not None
    assert timedelta(0) <= found.next_update_utc + timedelta(seconds=1) - (NOW + LIFE) <= timedelta(seconds=1)
    assert staple.current(NOW + LIFE / 2 - timedelta(seconds=1)) is first
    second = staple.current(NOW + LIFE / 2)
    assert second != first
    (home / "gateway" / "ocsp.key").rename(home / "gateway" / "away")
    assert staple.current(NOW + LIFE) is second, "it is not over yet"
    assert staple.current(NOW + LIFE * 2) == b""
    (home / "gateway" / "away").rename(home / "gateway" / "ocsp.key")
    assert staple.current(NOW + LIFE * 2 + RETRY / 2) == b"", "not with every look"
    assert staple.current(NOW + LIFE * 2 + RETRY) != b""
    assert staple.current(NOW) != b"", "the clock went back"
    (home / "gateway" / "ocsp.key").rename(home / "gateway" / "away")
    assert staple.current(NOW - LIFE) == b"", "what there is is not valid yet"
    (home / "gateway" / "away").rename(home / "gateway" / "ocsp.key")
    assert staple.current(NOW - LIFE + RETRY / 2) == b"", "not with every look, after the clock went back either"
    assert staple.current(NOW - LIFE + RETRY) != b""
    (home / "gateway" / "ocsp.key").rename(home / "gateway" / "away")
    assert staple.current(NOW + LIFE * 100) == b"", "a clock that went astray"
    (home / "gateway" / "away").rename(home / "gateway" / "ocsp.key")
    assert staple.current(NOW) != b"", "and came back"


def test_of_another_ca_s_certificate_nothing_is_said(fleet: Any, home: Path, signer: Any) -> None:
    other = fleet.issue("peanut:plant/other", issuer=signer("other", signer("other root")))
    assert Staple(Responder(home), other.certificate).current(NOW) == b""


def test_the_responder_knows_the_gateway(fleet: Any, home: Path) -> None:
    fleet.leaves["gateway"] = SimpleNamespace(certificate=x509.load_pem_x509_certificate((home / OWN).read_bytes()))
    assert answer(home, request(fleet, "gateway")).certificate_status is ocsp.OCSPCertStatus.GOOD


def answer(home: Path, data: bytes) -> ocsp.OCSPResponse:
    return ocsp.load_der_ocsp_response(Responder(home).answer(data, NOW))


def test_what_is_no_question_gets_an_error(fleet: Any, home: Path, signer: Any) -> None:
    status = ocsp.OCSPResponseStatus
    for data in (b"", b"0", request(fleet, "peanut")[:-9], b"x" * (REQUEST_MAX + 1)):
        assert answer(home, data).response_status is status.MALFORMED_REQUEST
    other = signer("other", signer("other root"))
    assert answer(home, request(fleet, "peanut", other)).response_status is status.UNAUTHORIZED


def test_operators_are_known_too(fleet: Any, home: Path) -> None:
    fleet.leaves["anna"] = fleet.issue("peanut:operator/anna")
    serial = f"{fleet.leaves['anna'].certificate.serial_number:x}"
    with sqlite3.connect(home / "ledger.db") as ledger:
        ledger.execute("INSERT INTO issued VALUES (?, 'anna', 'operator', 0)", (serial,))
    ledger.close()
    assert answer(home, request(fleet, "anna")).certificate_status is ocsp.OCSPCertStatus.GOOD
    document = {"format": 1, "revoked": {"peanut:operator/anna": entry()}}
    (home / "revoked.json").write_text(json.dumps(document))
    assert answer(home, request(fleet, "anna")).certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_it_answers_later_rather_than_wrongly(fleet: Any, home: Path) -> None:
    """A list or a ledger that cannot be read makes nobody good."""
    assert answer(home, request(fleet, "peanut")).certificate_status is ocsp.OCSPCertStatus.GOOD
    (home / "revoked.json").write_text("{")
    assert answer(home, request(fleet, "peanut")).response_status is ocsp.OCSPResponseStatus.TRY_LATER
    write(home, tomato=entry(f"{fleet.leaves['tomato'].certificate.serial_number:x}"))
    assert answer(home, request(fleet, "tomato")).certificate_status is ocsp.OCSPCertStatus.GOOD, "issued since"
    (home / "ledger.db").write_bytes(b"no database" * 100)
    assert answer(home, request(fleet, "peanut")).response_status is ocsp.OCSPResponseStatus.TRY_LATER
    (home / "gateway" / "ocsp.key").unlink()
    assert not Responder(home).ready


def test_each_ca_that_is_trusted_is_spoken_for_by_whom_it_has_certified(fleet: Any, home: Path, signer: Any) -> None:
    new = signer("issuing 2", fleet.root)
    (home / "ca" / "issuing.crt").write_bytes(new.pem + fleet.issuing.pem)
    fleet.leaves["new"] = fleet.issue("peanut:plant/new", issuer=new)
    assert answer(home, request(fleet, "new", new)).response_status is ocsp.OCSPResponseStatus.TRY_LATER
    gateway = home / "gateway"
    for suffix in ("crt", "key"):
        (gateway / f"ocsp.{suffix}").rename(gateway / f"ocsp-0123abcd.{suffix}")
    usages = [ExtendedKeyUsageOID.OCSP_SIGNING]
    mine = Leaf(new, "ocsp", [], usages, NOW - timedelta(days=1), NOW + timedelta(days=90))
    (gateway / "ocsp.crt").write_bytes(mine.pem)
    (gateway / "ocsp.key").write_bytes(mine.key_pem())
    status = ocsp.OCSPCertStatus
    for name, issuer, said in (("tomato", fleet.issuing, status.REVOKED), ("new", new, status.UNKNOWN)):
        found = answer(home, request(fleet, name, issuer))
        assert found.certificate_status is said
        assert found.certificates[0].issuer == issuer.certificate.subject
