"""Who is not let in, and what nobody may do: each case with a client that would succeed if the gateway did not refuse.

Every test first shows, or has beside it, the same client let in with the right papers, so that a refusal cannot be an
accident. What the node itself refuses (an impostor of a gateway) is in tests/firmware/test_link.py.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.system.conftest import BIN, House, wait_for
from tools.ports import free_port

PEM = serialization.Encoding.PEM
COMMAND = ("-q", "1", "-t", "/plant/peanut/UpdateTemperature", "-m", "temperature:15")


def published(house: House, keys: tuple[Path, ...] | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """mosquitto_pub with MQTT 5.0, so that reasons are seen."""
    command = house.mosquitto("mosquitto_pub", "-V", "5", *arguments, keys=keys)
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def pem_keys(house: House, name: str, folder: Path) -> tuple[Path, Path, Path]:
    """A device bundle's keys in PEM, for clients that want them so."""
    bundle = house.device(name)
    folder.mkdir(exist_ok=True)
    key = serialization.load_der_private_key((bundle / "key.der").read_bytes(), None)
    texts = {
        "ca": x509.load_der_x509_certificate((bundle / "ca.der").read_bytes()).public_bytes(PEM),
        "cert": x509.load_der_x509_certificate((bundle / "cert.der").read_bytes()).public_bytes(PEM),
        "key": key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    }
    for which, text in texts.items():
        (folder / f"{which}.pem").write_bytes(text)
    return folder / "ca.pem", folder / "cert.pem", folder / "key.pem"


def other_fleet(folder: Path) -> tuple[Path, Path, Path]:
    """The operator's papers of a fleet that is not this one."""
    home = folder / "other"
    subprocess.run(
        [BIN / "peanut", "--home", home, "init", "--host", "localhost", "--generate-passphrase"],
        check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    keys = home / "operators" / "operator"
    return keys / "ca.crt", keys / "operator.crt", keys / "operator.key"


def test_the_operator_is_let_in(house: House) -> None:
    done = published(house, None, *COMMAND)
    assert done.returncode == 0, done.stderr


def test_without_a_certificate(house: House) -> None:
    command = house.mosquitto("mosquitto_pub", *COMMAND)
    at = command.index("--cert")
    done = subprocess.run(command[:at] + command[at + 4 :], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    wait_for(lambda: "no client certificate" in house.log, "the reason in the log")


def test_a_certificate_of_another_ca(house: House, tmp_path: Path) -> None:
    _, certificate, key = other_fleet(tmp_path)
    done = published(house, (house.operator[0], certificate, key), *COMMAND)
    assert done.returncode != 0
    wait_for(lambda: "not issued by this fleet's CA" in house.log, "the reason in the log")


def test_a_client_that_expects_another_gateway(house: House, tmp_path: Path) -> None:
    """Right name, wrong CA: the client refuses us, and the log says so instead of staying silent."""
    ca, _, _ = other_fleet(tmp_path)
    done = published(house, (ca, *house.operator[1:]), *COMMAND)
    assert done.returncode != 0
    wait_for(lambda: "handshake" in house.log, "a word in the log")


def test_a_node_may_not_command_itself_or_read_another(house: House, tmp_path: Path) -> None:
    keys = pem_keys(house, "peanut", tmp_path / "pem")
    house.device("tomato")
    own_report = published(house, keys, "-i", "peanut", "-q", "1", "-t", "/plant/peanut/event", "-m", "{}")
    assert own_report.returncode == 0, own_report.stderr
    forged = published(house, keys, "-i", "peanut", *COMMAND)
    # mosquitto_pub tells of a refusal and may still exit 0; the reason is what counts.
    assert "ot authorized" in forged.stdout + forged.stderr
    wait_for(lambda: "/plant/peanut/UpdateTemperature" in house.log, "the denial in the log")
    for topic in ("/plant/tomato/UpdateTemperature", "/plant/+/UpdateTemperature", "#", "/plant/tomato/telemetry"):
        command = house.mosquitto(
            "mosquitto_sub", "-V", "5", "-i", "peanut", "-q", "1", "-W", "2", "-t", topic, keys=keys
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        words = (done.stdout + done.stderr).lower()
        assert "denied" in words or "not authorized" in words or "rejected" in words, (topic, words)


def test_a_client_id_that_is_not_the_certificates_name(house: House, tmp_path: Path) -> None:
    keys = pem_keys(house, "peanut", tmp_path / "pem")
    report = ("-q", "1", "-t", "/plant/peanut/event", "-m", "{}")
    assert published(house, keys, "-i", "peanut", *report).returncode == 0
    done = published(house, keys, "-i", "tomato", *report)
    assert done.returncode != 0
    wait_for(lambda: "client id" in house.log.lower(), "the reason in the log")


def test_retained_commands_are_refused(house: House) -> None:
    done = published(house, None, "-r", *COMMAND)
    assert "ot authorized" in done.stdout + done.stderr
    with house.watch("/plant/peanut/UpdateTemperature") as watcher:
        assert published(house, None, *COMMAND).returncode == 0
        wait_for(lambda: watcher.heard, "the command that was not retained")
        assert [retained for _, _, retained in watcher.heard] == [False]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_tls_versions_are_spoken(house: House, version: ssl.TLSVersion) -> None:
    """The ESP32 speaks 1.2 only, everybody else 1.3."""
    ca, certificate, key = house.operator
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(certificate, key)
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", house.port), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        assert tls.version() == version.name.replace("_", ".")


def test_a_plaintext_listener_on_a_public_address(tmp_path: Path) -> None:
    """Refused before anything listens, with the key that would allow it; on loopback it is fine."""
    house = House(tmp_path / "fleet")
    settings = house.home / "gateway.toml"
    for address, fine in (("127.0.0.1", True), ("0.0.0.0", False)):
        settings.write_text(f'[listen]\nmqtts = "127.0.0.1:{house.port}"\nmqtt = "{address}:{free_port()}"\n')
        done = subprocess.run(
            [BIN / "peanutd", "--home", house.home, "--check"], capture_output=True, text=True, timeout=120
        )
        assert (done.returncode == 0) == fine, done.stdout + done.stderr
        if not fine:
            assert "insecure" in done.stderr + done.stdout
            assert "gateway.toml:3" in done.stderr + done.stdout
