"""The certificates: the Identity table of the house's README, checked by OpenSSL and by handshakes, not by us."""

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from peanut import ca, names
from peanut.errors import PeanutError
from peanut.names import Kind
from tests.programs import program

NOW = datetime.now(UTC)


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run([program("openssl"), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def verify(home: Path, purpose: str, certificate: Path) -> None:
    openssl(
        "verify", "-x509_strict", "-purpose", purpose, "-CAfile", home / "ca/root.crt",
        "-untrusted", home / "ca/issuing.crt", certificate,
    )  # fmt: skip


def text(path: Path) -> str:
    return openssl("x509", "-in", path, "-noout", "-text", *(["-inform", "DER"] if path.suffix == ".der" else []))


def test_openssl_verifies_the_chains_strictly(made: Path, tmp_path: Path) -> None:
    verify(made, "sslserver", made / "gateway/gateway.crt")
    verify(made, "sslclient", made / "operators/operator/operator.crt")
    pem = tmp_path / "node.pem"
    openssl("x509", "-in", made / "devices/peanut/cert.der", "-inform", "DER", "-out", pem)
    verify(made, "sslclient", pem)
    openssl("verify", "-x509_strict", "-CAfile", made / "ca/root.crt", made / "ca/issuing.crt")


@pytest.mark.parametrize(
    ("path", "constraints", "usage"),
    [
        ("ca/root.crt", "CA:TRUE, pathlen:1", "Certificate Sign, CRL Sign"),
        ("ca/issuing.crt", "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"),
        ("gateway/gateway.crt", "CA:FALSE", "Digital Signature"),
        ("operators/operator/operator.crt", "CA:FALSE", "Digital Signature"),
        ("devices/peanut/cert.der", "CA:FALSE", "Digital Signature"),
    ],
)
def test_profile_as_openssl_prints_it(made: Path, path: str, constraints: str, usage: str) -> None:
    lines = [line.strip() for line in text(made / path).splitlines()]
    assert lines[lines.index("X509v3 Basic Constraints: critical") + 1] == constraints
    assert lines[lines.index("X509v3 Key Usage: critical") + 1] == usage
    assert lines.count("Signature Algorithm: ecdsa-with-SHA256") == 2
    assert "NIST CURVE: P-256" in lines
    assert "X509v3 Subject Key Identifier:" in lines
    assert "X509v3 Authority Key Identifier:" in lines
    assert "Version: 3 (0x2)" in lines


@pytest.mark.parametrize(
    ("path", "eku", "san"),
    [
        (
            "gateway/gateway.crt",
            "TLS Web Server Authentication",
            "DNS:gateway.local, IP Address:192.168.1.20, DNS:localhost, IP Address:127.0.0.1, "
            "IP Address:0:0:0:0:0:0:0:1",
        ),
        ("operators/operator/operator.crt", "TLS Web Client Authentication", "URI:peanut:operator/operator"),
        ("devices/peanut/cert.der", "TLS Web Client Authentication", "URI:peanut:plant/peanut"),
        ("devices/1M8GDM9AXKP042788/cert.der", "TLS Web Client Authentication", "URI:peanut:vin/1M8GDM9AXKP042788"),
    ],
)
def test_identity_as_openssl_prints_it(made: Path, path: str, eku: str, san: str) -> None:
    lines = [line.strip() for line in text(made / path).splitlines()]
    assert lines[lines.index("X509v3 Extended Key Usage:") + 1] == eku
    assert lines[lines.index("X509v3 Subject Alternative Name:") + 1] == san


def test_common_names(made: Path) -> None:
    for path, name in (
        ("gateway/gateway.crt", "gateway.local"),
        ("operators/operator/operator.crt", "operator"),
        ("devices/peanut/cert.der", "peanut"),
    ):
        assert f"Subject: CN = {name}\n" in text(made / path)


def test_cas_carry_no_extended_usage_and_two_fleets_differ_in_name(made: Path) -> None:
    assert "Extended Key Usage" not in text(made / "ca/issuing.crt") + text(made / "ca/root.crt")
    one, two = (ca.issue_root(ca.new_key(), NOW) for _ in range(2))
    assert one.subject != two.subject


def test_root_key_opens_with_the_passphrase_only(made: Path) -> None:
    openssl("pkey", "-in", made / "ca/root.key", "-passin", f"file:{made / 'ca/root.pass'}", "-noout")
    wrong = subprocess.run(
        [program("openssl"), "pkey", "-in", made / "ca/root.key", "-passin", "pass:wrong", "-noout"],
        capture_output=True,
    )
    assert wrong.returncode != 0
    assert b"ENCRYPTED" in (made / "ca/root.key").read_bytes()


def test_node_files_are_der_as_a_node_takes_them(made: Path) -> None:
    bundle = made / "devices/peanut"
    assert len((bundle / "key.der").read_bytes()) == 121  # SEC 1 with curve and public key
    openssl("ec", "-in", bundle / "key.der", "-inform", "DER", "-noout")
    root = x509.load_pem_x509_certificate((made / "ca/root.crt").read_bytes())
    assert x509.load_der_x509_certificate((bundle / "ca.der").read_bytes()) == root


def fleet(now: datetime) -> tuple[ca.Authority, ca.Authority]:
    key = ca.new_key()
    root = ca.Authority(ca.issue_root(key, now), key)
    key = ca.new_key()
    return root, ca.Authority(ca.issue_issuing(key.public_key(), root, now), key)


def test_lifetimes() -> None:
    root, issuing = fleet(NOW)
    public = ca.new_key().public_key()
    gateway = ca.issue_gateway(public, ["g"], issuing, NOW)
    node = ca.issue_client(public, "n", "peanut:plant/n", issuing, NOW)

    def days(certificate: x509.Certificate) -> float:
        return (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / timedelta(days=1)

    assert [days(c) for c in (root.certificate, issuing.certificate, gateway, node)] == [3650, 1825, 90, 365]
    for certificate in (root.certificate, issuing.certificate, gateway, node):
        assert certificate.not_valid_before_utc == (NOW - timedelta(days=1)).replace(microsecond=0)


def test_nothing_outlives_or_predates_its_issuer() -> None:
    root, issuing = fleet(NOW)
    public = ca.new_key().public_key()
    late = issuing.certificate.not_valid_after_utc - timedelta(days=10)
    node = ca.issue_client(public, "n", "peanut:plant/n", issuing, late)
    assert node.not_valid_after_utc == issuing.certificate.not_valid_after_utc
    later = root.certificate.not_valid_after_utc - timedelta(days=100)
    assert ca.issue_issuing(public, root, later).not_valid_after_utc == root.certificate.not_valid_after_utc
    early = ca.issue_client(public, "n", "peanut:plant/n", issuing, NOW - timedelta(hours=12))
    assert early.not_valid_before_utc == issuing.certificate.not_valid_before_utc
    with pytest.raises(PeanutError, match="expired on"):
        ca.issue_client(public, "n", "peanut:plant/n", issuing, issuing.certificate.not_valid_after_utc)


def test_serial_numbers_are_random_and_short_enough() -> None:
    _, issuing = fleet(NOW)
    public = ca.new_key().public_key()
    serials = {ca.issue_client(public, "n", "peanut:plant/n", issuing, NOW).serial_number for _ in range(50)}
    assert len(serials) == 50
    assert max(s.bit_length() for s in serials) <= 159  # 20 bytes and positive, RFC 5280 4.1.2.2
    assert max(s.bit_length() for s in serials) > 64


def test_a_host_name_too_long_for_a_cn_stands_in_the_san() -> None:
    _, issuing = fleet(NOW)
    long = f"{'a' * 60}.greenhouse.example.org"
    certificate = ca.issue_gateway(ca.new_key().public_key(), [long], issuing, NOW)
    assert ca.san_hosts(certificate)[0] == long
    assert ca.common_name(certificate) == "localhost"


# Handshakes


class Party:
    """A certificate with its key on disk, as the ssl module wants them."""

    def __init__(self, folder: Path, name: str, chain: list[x509.Certificate], key: ca.Key) -> None:
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(ca.certificate_pem(*chain) + ca.key_pem(key))


def server(
    party: Party, *trusted: x509.Certificate, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(party.path)
    context.load_verify_locations(cadata=ca.certificate_pem(*trusted).decode())
    return context


def client(party: Party, root: x509.Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(party.path)
    context.load_verify_locations(cadata=ca.certificate_der(root))
    return context


def shake(server_context: ssl.SSLContext, client_context: ssl.SSLContext, host: str = "gateway.local") -> None:
    """A handshake in memory and one byte each way; raises what either side raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client_context.wrap_bio(down, up, server_hostname=host)
    two = server_context.wrap_bio(up, down, server_side=True)
    shaken = set()
    for _ in range(10):
        for side in (one, two):
            try:
                side.do_handshake()
                shaken.add(side)
            except ssl.SSLWantReadError:
                pass
    assert shaken == {one, two}
    two.write(b"x")
    assert one.read(1) == b"x"


@pytest.fixture
def parties(tmp_path: Path) -> dict[str, object]:
    root, issuing = fleet(NOW)
    keys = {name: ca.new_key() for name in ("gateway", "node")}
    gateway = ca.issue_gateway(keys["gateway"].public_key(), ["gateway.local", "192.168.1.20"], issuing, NOW)
    uri = names.device_uri("peanut", Kind.GREENHOUSE)
    node = ca.issue_client(keys["node"].public_key(), "peanut", uri, issuing, NOW)
    return {
        "root": root.certificate,
        "issuing": issuing.certificate,
        "gateway": Party(tmp_path, "gateway", [gateway, issuing.certificate], keys["gateway"]),
        "node": Party(tmp_path, "node", [node], keys["node"]),
    }


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("host", ["gateway.local", "192.168.1.20", "localhost", "127.0.0.1", "::1"])
def test_node_and_gateway_shake_hands(parties: dict[str, object], version: ssl.TLSVersion, host: str) -> None:
    p = parties
    # a node sends its own certificate only, so the gateway trusts root and issuing CA (agreement 1)
    shake(server(p["gateway"], p["root"], p["issuing"], version=version), client(p["node"], p["root"]), host)


@pytest.mark.parametrize("host", ["other.local", "192.168.1.21"])
def test_a_gateway_of_another_name_is_refused(parties: dict[str, object], host: str) -> None:
    p = parties
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(server(p["gateway"], p["root"], p["issuing"]), client(p["node"], p["root"]), host)


def test_a_gateways_certificate_is_no_clients(parties: dict[str, object]) -> None:
    p = parties
    with pytest.raises(ssl.SSLError, match="certificate purpose"):
        shake(server(p["gateway"], p["root"], p["issuing"]), client(p["gateway"], p["root"]))


def test_a_nodes_certificate_is_no_gateways(tmp_path: Path) -> None:
    # With the right name in it: only the extended key usage stands between a stolen node and a false gateway.
    root, issuing = fleet(NOW)
    key = ca.new_key()
    names_ = [x509.DNSName("gateway.local")]
    forged = ca._issue(ca.CLIENT, ca._common_name("g"), key.public_key(), issuing.certificate, issuing.key, NOW, names_)
    party = Party(tmp_path, "forged", [forged, issuing.certificate], key)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake(server(party, root.certificate, issuing.certificate), client(party, root.certificate))


def test_another_fleets_node_is_refused(parties: dict[str, object], tmp_path: Path) -> None:
    p = parties
    _, other = fleet(NOW)
    key = ca.new_key()
    uri = names.device_uri("peanut", Kind.GREENHOUSE)
    stranger = Party(tmp_path, "x", [ca.issue_client(key.public_key(), "peanut", uri, other, NOW)], key)
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake(server(p["gateway"], p["root"], p["issuing"]), client(stranger, p["root"]))


def test_another_fleets_gateway_is_refused(parties: dict[str, object]) -> None:
    p = parties
    other, _ = fleet(NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake(server(p["gateway"], p["root"], p["issuing"]), client(p["node"], other.certificate))


def test_an_expired_node_is_refused(tmp_path: Path) -> None:
    then = NOW - timedelta(days=400)
    root, issuing = fleet(then)
    keys = ca.new_key(), ca.new_key()
    uri = names.device_uri("peanut", Kind.GREENHOUSE)
    node = Party(tmp_path, "n", [ca.issue_client(keys[0].public_key(), "peanut", uri, issuing, then)], keys[0])
    gateway = ca.issue_gateway(keys[1].public_key(), ["gateway.local"], issuing, NOW)
    party = Party(tmp_path, "g", [gateway, issuing.certificate], keys[1])
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake(server(party, root.certificate, issuing.certificate), client(node, root.certificate))


def test_why_reissue() -> None:
    _, issuing = fleet(NOW)
    key = ca.new_key()
    node = ca.issue_client(key.public_key(), "n", "peanut:plant/n", issuing, NOW)
    end = node.not_valid_after_utc
    assert ca.why_reissue(node, key, issuing.certificate, NOW) == ""
    assert ca.why_reissue(node, key, issuing.certificate, end - timedelta(days=30)) == ""
    assert "expires on" in ca.why_reissue(node, key, issuing.certificate, end - timedelta(days=30, seconds=-1))
    assert "expired on" in ca.why_reissue(node, key, issuing.certificate, end)
    assert "another key" in ca.why_reissue(node, ca.new_key(), issuing.certificate, NOW)
    assert "this fleet" in ca.why_reissue(node, key, fleet(NOW)[1].certificate, NOW)
