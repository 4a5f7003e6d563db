"""The revocation list for others: what is in it, that openssl goes by it, and that it never decides anything here."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from peanut import ca, crl, device, operators, renewal, store
from peanut.home import Home
from tests.programs import program

from .conftest import Run

NOW = datetime.now(UTC)


def serials(home: Home) -> set[str]:
    found = x509.load_der_x509_crl(crl.path(home).read_bytes())
    return {f"{entry.serial_number:x}" for entry in found}


def openssl(home: Home, certificate: Path, tmp_path: Path, made: Path | None = None) -> bool:
    """`openssl verify` with the list, or with another one."""
    chain = tmp_path / "chain.pem"
    subprocess.run(
        [program("openssl"), "crl", "-inform", "DER", "-in", str(made or crl.path(home)), "-out", str(chain)],
        check=True,
    )
    pem = tmp_path / "leaf.pem"
    pem.write_bytes(ca.certificate_pem(store.certificate(certificate)))
    done = subprocess.run(
        [
            *(program("openssl"), "verify", "-x509_strict", "-crl_check", "-CRLfile", str(chain)),
            *("-CAfile", str(home.ca / "root.crt"), "-untrusted", str(home.ca / "issuing.crt"), str(pem)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 or "certificate revoked" in done.stderr, done.stderr
    return done.returncode == 0


def test_everything_that_was_issued_to_one_who_is_revoked_is_in_it(home: Home, run: Run, tmp_path: Path) -> None:
    first = device.row(home, "peanut").serial
    renewal.renew_here(home, device.row(home, "peanut"), NOW)
    second = device.row(home, "peanut").serial
    done = run("device", "revoke", "peanut")
    assert "published: ca/issuing.crl" in done.output
    assert serials(home) == {first, second}
    assert crl.path(home).stat().st_mode & 0o777 == 0o644
    assert not openssl(home, home.device("peanut") / "cert.der", tmp_path)
    assert openssl(home, home.device("tomato") / "cert.der", tmp_path)
    renewal.renew_here(home, device.row(home, "peanut"), NOW)
    assert run("operator", "revoke", "operator").exit_code == 0
    operator = store.certificate(home.operator("operator") / "operator.crt")
    assert serials(home) == {first, second, renewal.serial(operator)}, "what was issued since is good"
    assert openssl(home, home.device("peanut") / "cert.der", tmp_path)
    assert run("device", "restore", "peanut").exit_code == 0
    assert serials(home) == {renewal.serial(operator)}


def test_operators_are_in_it_with_what_they_had_before(home: Home, run: Run) -> None:
    path = home.operator("operator") / operators.CERTIFICATE
    had = [renewal.serial(store.certificate(path))]
    for step in operators.renew(home, "operator", NOW):
        assert step.act is not None
        step.act()
    had.append(renewal.serial(store.certificate(path)))
    assert run("operator", "revoke", "operator").exit_code == 0
    assert serials(home) == set(had)


def test_each_ca_that_is_trusted_has_a_list_of_its_own(home: Home, run: Run, tmp_path: Path) -> None:
    """A list counts for its signer's certificates only: those of a CA that was replaced would have none."""
    assert run("ca", "ocsp").exit_code == 0
    assert run("ca", "rotate").exit_code == 0
    (key,) = home.ca.glob("issuing-*.key")
    assert key.stat().st_mode & 0o777 == 0o600
    assert run("device", "revoke", "peanut").exit_code == 0
    (old,) = home.ca.glob("issuing-*.crl")
    assert not openssl(home, home.device("peanut") / "cert.der", tmp_path, old)
    assert openssl(home, home.device("tomato") / "cert.der", tmp_path, old)
    renewal.renew_here(home, device.row(home, "tomato"), NOW)
    assert openssl(home, home.device("tomato") / "cert.der", tmp_path)
    issuers = store.certificates(home.ca / "issuing.crt")
    signers = [store.certificate(path) for path in sorted(home.gateway.glob("ocsp*.crt"))]
    assert {issuer.subject for issuer in issuers} == {signer.issuer for signer in signers}, "and one to speak for it"
    assert run("ca", "finish", "--force").exit_code == 0
    assert not [*home.ca.glob("issuing-*"), *home.gateway.glob("ocsp-*")], "the key is gone, too"
    assert crl.problem(home, NOW) == ""


def test_its_number_grows_and_what_has_ended_leaves_it(home: Home, run: Run) -> None:
    run("device", "revoke", "peanut")

    def number(made: x509.CertificateRevocationList) -> int:
        return made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    one, two = (crl.make(home, NOW + timedelta(seconds=later)) for later in (0, 1))
    assert number(one) < number(two)
    assert len(list(one)) == 1
    assert not list(crl.make(home, NOW + timedelta(days=366)))


def test_without_the_key_a_revocation_counts_all_the_same(home: Home, run: Run) -> None:
    (home.ca / "issuing.key").rename(home.path / "elsewhere.key")
    done = run("device", "revoke", "peanut")
    assert done.exit_code == 0
    assert "published" not in done.output
    assert not crl.path(home).exists()
    assert run("ca", "crl").exit_code == 2
    assert crl.problem(home, NOW) == ""


def test_what_is_wrong_with_it_is_said(home: Home, run: Run) -> None:
    assert run("ca", "crl").exit_code == 0
    assert crl.problem(home, NOW) == ""
    assert "out of date" in crl.problem(home, NOW + crl.LIFE + timedelta(hours=1))
    crl.path(home).write_bytes(b"nothing")
    assert crl.problem(home, NOW) == "cannot be read"
    assert "ca/issuing.crl: cannot be read; others go by it" in run("audit").output
    assert run("device", "revoke", "peanut").exit_code == 0, "it is made anew"
    assert crl.problem(home, NOW) == ""


def test_the_responders_certificate_is_for_that_alone(home: Home, run: Run) -> None:
    assert run("ca", "ocsp").exit_code == 0
    made = store.certificate(home.gateway / "ocsp.crt")
    text = subprocess.run(
        [program("openssl"), "x509", "-in", str(home.gateway / "ocsp.crt"), "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "OCSP Signing" in text
    assert "OCSP No Check" in text
    assert "TLS Web" not in text
    assert (home.gateway / "ocsp.key").stat().st_mode & 0o777 == 0o600
    assert ca.days_left(made, NOW) < 90
    assert not crl.ocsp_is_due(home, NOW)
    assert crl.ocsp_is_due(home, NOW + timedelta(days=70))
