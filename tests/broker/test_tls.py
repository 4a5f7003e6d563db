"""The TLS contexts: what shakes hands and what does not, and how a failure reads.

Handshakes run between two in-memory ends, so every one of them is a real one of OpenSSL's.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from peanutd import access, tls

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def load(fleet: Any) -> tls.Credentials:
    return tls.load(fleet.home, NOW)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, session: Any = None) -> tuple[Any, Any]:
    """Both ends after the handshake. What the server complains of is raised first, then what the client does."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    complaint: Exception | None = None
    for _ in range(10):
        done = True
        for end in (there, here):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError as error:
                if end is here:
                    raise
                complaint = complaint or error
                done = False
        if done:
            return here, there
    raise complaint or AssertionError("a handshake that does not end")


def failure(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    with pytest.raises(ssl.SSLError) as caught:
        shake(server, client)
    return tls.explain(caught.value, b"\x16\x03\x01\x00")


# --- what shakes hands ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_member_of_the_fleet_shakes_hands(fleet: Any, version: ssl.TLSVersion) -> None:
    client = fleet.context(leaf := fleet.issue("peanut:plant/peanut"))
    client.minimum_version = client.maximum_version = version
    here, there = shake(load(fleet).context, client)
    assert here.getpeercert(binary_form=True) == leaf.der
    assert here.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
    assert there.getpeercert()["subject"] == ((("commonName", "localhost"),),)


def test_what_an_esp32_offers_is_taken(fleet: Any) -> None:
    client = fleet.context(fleet.issue("peanut:plant/peanut"))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    client.set_ecdh_curve("prime256v1")
    here, _ = shake(load(fleet).context, client)
    assert here.cipher()[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert here.compression() is None


def test_tls_1_2_has_only_aead_with_forward_secrecy(fleet: Any) -> None:
    offered = [cipher for cipher in load(fleet).context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert offered
    assert all(cipher["name"].startswith("ECDHE-") and cipher["aead"] for cipher in offered)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_there_are_no_tickets(fleet: Any, version: ssl.TLSVersion) -> None:
    client = fleet.context(fleet.issue("peanut:plant/peanut"))
    client.minimum_version = client.maximum_version = version
    server = load(fleet).context
    _, there = shake(server, client)
    assert not there.session or not there.session.has_ticket
    assert server.num_tickets == 0
    assert server.options & ssl.OP_NO_RENEGOTIATION
    assert server.options & ssl.OP_NO_COMPRESSION


def test_a_resumed_session_shows_its_certificate_again(fleet: Any) -> None:
    """TLS 1.2 by session id: what is judged on every connection must not be missing on such a one."""
    credentials = load(fleet)
    leaf = fleet.issue("peanut:plant/peanut", end=NOW + DAY)
    client = fleet.context(leaf)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    _, first = shake(credentials.context, client)
    here, there = shake(credentials.context, client, session=first.session)
    assert there.session_reused
    der = here.getpeercert(binary_form=True)
    assert der == leaf.der
    with pytest.raises(access.IdentityError, match="expired since"):
        access.identify(der, credentials.authorities, NOW + 2 * DAY)


# --- what does not ---


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_is_not_of_the_fleet_does_not_shake_hands(fleet: Any, signer: Any, version: ssl.TLSVersion) -> None:
    server = load(fleet).context

    def reason(leaf: Any, *extra: bytes) -> str:
        client = fleet.context(leaf, *extra)
        client.minimum_version = client.maximum_version = version
        return failure(server, client)

    other_root = signer("root")
    other = signer("issuing", other_root)
    name = "peanut:plant/peanut"
    foreign = "client certificate not issued by this fleet's CA"
    assert reason(None) == "no client certificate given"
    assert reason(fleet.issue(name, issuer=other)).startswith(foreign)
    assert reason(fleet.issue(name, issuer=other), other.pem, other_root.pem).startswith(foreign)
    assert reason(fleet.issue(name, issuer=other_root)).startswith(foreign)
    assert reason(fleet.issue(name, self_signed=True)).startswith(foreign)
    below = signer("below", fleet.issuing)
    assert reason(fleet.issue(name, issuer=below), below.pem).startswith(foreign), "the issuing CA may not make CAs"
    only_server = fleet.issue(name, usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert reason(only_server) == "client certificate is not for clients (its extended key usage has no clientAuth)"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("dates", [(-10, -1), (1, 10)], ids=["expired", "not yet valid"])
def test_out_of_date_shakes_hands_and_is_turned_away_by_name(
    fleet: Any, version: ssl.TLSVersion, dates: tuple[int, int]
) -> None:
    """The two halves of one check: OpenSSL is told not to look at the clock, so access.identify must."""
    credentials = load(fleet)
    client = fleet.context(fleet.issue("peanut:plant/peanut", start=NOW + dates[0] * DAY, end=NOW + dates[1] * DAY))
    client.minimum_version = client.maximum_version = version
    here, _ = shake(credentials.context, client)
    der = here.getpeercert(binary_form=True)
    with pytest.raises(
        access.IdentityError, match=r"certificate of greenhouse peanut (expired since|not yet valid before) 20"
    ):
        access.identify(der, credentials.authorities, NOW)
    credentials.context.verify_flags &= ~ssl.VerifyFlags(tls.NO_CHECK_TIME)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"expired|not yet valid"):
        shake(credentials.context, client)


def test_only_the_clock_is_left_out_of_openssls_check(fleet: Any, signer: Any) -> None:
    """The flag has no name in Python: this holds its number to what it does, for expired and foreign at once."""
    server = load(fleet).context
    assert server.verify_flags & 0x200000
    assert server.verify_mode is ssl.CERT_REQUIRED
    foreign = fleet.issue("peanut:plant/peanut", issuer=signer("issuing", signer("root")), end=NOW - DAY / 2)
    assert "not issued by this fleet's CA" in failure(server, fleet.context(foreign))
    server.verify_flags &= ~ssl.VerifyFlags(0x200000)
    expired = fleet.issue("peanut:plant/peanut", start=NOW - 2 * DAY, end=NOW - DAY)
    assert failure(server, fleet.context(expired)) == "client certificate not accepted: certificate has expired"


def test_old_versions_and_ciphers(fleet: Any) -> None:
    server = load(fleet).context
    client = fleet.context(fleet.issue("peanut:plant/peanut"))
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        client.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    assert failure(server, client) == "TLS version too old (1.2 or 1.3 is needed)"
    for ciphers in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
        client = fleet.context(fleet.issue("peanut:plant/peanut"))
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers(ciphers + ":@SECLEVEL=0")
        assert failure(server, client).startswith("no shared cipher"), ciphers
    client = fleet.context(fleet.issue("peanut:plant/peanut"))
    client.set_ecdh_curve("secp384r1")
    assert failure(server, client).startswith(("no shared curve", "no shared cipher"))


def test_a_client_of_another_fleet_says_why_it_leaves(fleet: Any, signer: Any) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.minimum_version = client.maximum_version = version
        client.load_verify_locations(cadata=signer("root").pem.decode())
        assert failure(load(fleet).context, client) == (
            "the client does not trust this gateway's CA (it has another fleet's CA certificate)"
        )


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"\x10\x0c\x00\x04", "not TLS: an MQTT CONNECT without encryption; set the client to TLS (mqtts)"),
        (b"GET ", "not TLS: an HTTP request"),
        (b"\x80\x2e\x01\x03", "not TLS"),
        (b"SSH-", "not TLS"),
        (b"", "not TLS"),
    ],
)
def test_what_is_not_tls_is_called_by_its_name(first: bytes, words: str) -> None:
    assert tls.explain(ssl.SSLError(1, "wrong version number"), first) == words


# --- the files ---


@pytest.mark.parametrize("name", ["ca/root.crt", "ca/issuing.crt", "gateway/gateway.crt", "gateway/gateway.key"])
def test_a_missing_or_spoilt_file_is_named_with_the_remedy(fleet: Any, name: str) -> None:
    path: Path = fleet.home / name
    path.write_text("-----BEGIN NONSENSE-----\n")
    with pytest.raises(tls.TlsError, match=str(path)):
        load(fleet)
    path.write_bytes(b"")
    with pytest.raises(tls.TlsError, match=str(path)):
        load(fleet)
    path.unlink()
    with pytest.raises(tls.TlsError, match=rf"{path}: not there; .*`peanut --home {fleet.home} init`"):
        load(fleet)


def test_a_key_that_is_not_the_certificates(fleet: Any) -> None:
    (fleet.home / "gateway" / "gateway.key").write_bytes(fleet.issue_gateway().key_pem())
    with pytest.raises(tls.TlsError, match=r"gateway\.key: not the key of .*gateway\.crt"):
        load(fleet)


def test_an_encrypted_key_is_an_error_and_not_a_question(fleet: Any) -> None:
    """In a process of its own with a terminal nowhere: it must end, not wait for a passphrase."""
    (fleet.home / "gateway" / "gateway.key").write_bytes(fleet.gateway.key_pem(b"secret"))
    code = (
        "import sys; from pathlib import Path; from datetime import UTC, datetime; from peanutd import tls\n"
        "try: tls.load(Path(sys.argv[1]), datetime.now(UTC))\n"
        "except tls.TlsError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(fleet.home)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "not a usable certificate with its key (unencrypted PEM)" in done.stdout, done.stderr
    assert "secret" not in done.stdout


def test_good_files_have_no_warnings(fleet: Any) -> None:
    assert load(fleet).warnings == ()


def test_what_will_soon_stop_working_is_pointed_out(fleet: Any, signer: Any) -> None:
    def warning() -> str:
        fleet.write()
        (text,) = load(fleet).warnings
        return text

    fleet.gateway = fleet.issue_gateway(end=NOW + 3 * DAY)
    assert "the gateway's certificate ends on" in warning()
    fleet.gateway = fleet.issue_gateway(start=NOW - 3 * DAY, end=NOW - DAY)
    assert "the gateway's certificate expired since" in warning()
    fleet.gateway = fleet.issue_gateway(start=NOW + DAY)
    assert "is the clock right?" in warning()
    good, fleet.issuing = fleet.issuing, signer("issuing", fleet.root, days=4)
    fleet.gateway = fleet.issue_gateway()
    assert "CA certificate CN=issuing ends on" in warning()
    fleet.issuing = signer("issuing", fleet.root)
    assert "not issued by this fleet's CA" in warning()
    fleet.issuing = good
    fleet.gateway = fleet.issue_gateway()
    fleet.write()
    key = fleet.home / "gateway" / "gateway.key"
    key.chmod(0o640)
    (text,) = load(fleet).warnings
    assert text == f"{key}: readable by others; run `chmod 600 {key}`"


def test_the_longest_valid_authority_comes_first(fleet: Any, signer: Any) -> None:
    """Then a CA renewed with its old key counts instead of the old certificate (test_access.py)."""
    fresh = signer("issuing", fleet.root, days=4000, key=fleet.issuing.key)
    (fleet.home / "ca" / "issuing.crt").write_bytes(fleet.issuing.pem + fresh.pem)
    assert load(fleet).authorities[0] == fresh.certificate
