"""Wi-Fi networks: asked for once, kept 0600, never shown; what a node reads is what it understands."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from peanut import wifi
from peanut.errors import PeanutError
from peanut.home import Home
from tests.heard import secrets_below

from .conftest import Run

FIRMWARE = Path(__file__).parents[2] / "firmware"
PASSWORD = "long enough ÷".replace("÷", "#")


def add(run: Run, tmp_path: Path, ssid: str, password: str = PASSWORD, *more: str) -> object:
    (tmp_path / "password").write_text(password + "\n")
    return run("wifi", "add", ssid, "--password-file", str(tmp_path / "password"), *more)


def test_added_listed_changed_removed(run: Run, home: Home, tmp_path: Path) -> None:
    for ssid in ("Glass House", 'o"dd\\ näme'):
        result = add(run, tmp_path, ssid, PASSWORD, "--country", "de")
        assert result.exit_code == 0, result.output
    assert stat.S_IMODE(home.wifi_toml.stat().st_mode) == 0o600
    known = wifi.read(home)
    assert known.country == "DE"
    assert [(n.ssid, n.password) for n in known.networks] == [("Glass House", PASSWORD), ('o"dd\\ näme', PASSWORD)]
    listed = run("wifi", "list")
    assert "Glass House" in listed.stdout
    assert PASSWORD not in listed.output
    assert json.loads(run("wifi", "list", "--json").stdout)["networks"][0] == {"ssid": "Glass House", "open": False}
    add(run, tmp_path, "Glass House", "another one, longer")
    assert [n.password for n in wifi.read(home).networks] == ["another one, longer", PASSWORD]
    assert PASSWORD not in repr(wifi.read(home))
    assert run("wifi", "remove", "Glass House").exit_code == 0
    assert [n.ssid for n in wifi.read(home).networks] == ['o"dd\\ näme']
    result = run("wifi", "remove", "Glass House")
    assert (result.exit_code, "there is no network" in result.stderr) == (2, True)


def test_an_open_network_is_taken_with_a_warning(run: Run, home: Home) -> None:
    result = run("wifi", "add", "Guests", "--open")
    assert result.exit_code == 0
    assert "Guests is open" in result.stderr
    assert wifi.read(home).networks[0].open


def test_without_a_terminal_the_password_is_not_asked_for(run: Run) -> None:
    result = run("wifi", "add", "Glass House")
    assert result.exit_code == 2
    assert "--password-file" in result.stderr


@pytest.mark.parametrize(
    ("ssid", "password", "complaint"),
    [
        ("", PASSWORD, "is not the name of a network"),
        ("x" * 33, PASSWORD, "1 to 32"),
        ("ä" * 17, PASSWORD, "is not the name of a network"),
        ("a\nb", PASSWORD, "is not the name of a network"),
        ("home", "seven77", "8 to 63"),
        ("home", "x" * 64, "8 to 63"),
        ("home", "passwört", "8 to 63"),
    ],
)
def test_limits(ssid: str, password: str, complaint: str) -> None:
    with pytest.raises(PeanutError) as caught:
        wifi.network(ssid, password)
    assert complaint in caught.value.message + caught.value.fix
    assert password not in caught.value.message + caught.value.fix
    assert wifi.network("x" * 32, "x" * 63).password == "x" * 63


def test_no_more_networks_than_a_node_tries() -> None:
    known = wifi.Wifi()
    for number in range(wifi.NETWORKS_MAX):
        known = wifi.with_network(known, wifi.Network(f"n{number}", ""))
    with pytest.raises(PeanutError, match="8 networks already"):
        wifi.with_network(known, wifi.Network("one more", ""))
    assert len(wifi.with_network(known, wifi.Network("n3", PASSWORD)).networks) == wifi.NETWORKS_MAX


def test_a_damaged_file_is_not_quoted(home: Home) -> None:
    home.wifi_toml.write_text(f'[[network]]\nssid = "a"\npassword = "{PASSWORD}" oops\n')
    with pytest.raises(PeanutError) as caught:
        wifi.read(home)
    assert PASSWORD not in caught.value.message + caught.value.fix


def test_the_node_reads_what_we_write(tmp_path: Path) -> None:
    known = wifi.Wifi("DE", (wifi.Network("Glass House", PASSWORD), wifi.Network("Gäste", "")))
    (tmp_path / "wifi.json").write_bytes(wifi.render(known))
    read = ("DE", [("Glass House", PASSWORD), ("Gäste", "")])
    code = "import sys\nfrom node import config\n"  # it does not print them: a suite says no password
    code += "print(config.networks(open(sys.argv[1], 'rb').read()) == eval(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "wifi.json"), repr(read)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(FIRMWARE), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


def test_what_would_give_a_secret_away_is_found(run: Run, home: Home, tmp_path: Path) -> None:
    # all that the suite prints is looked through for these words (tests/heard.py); here is that it knows them
    add(run, tmp_path, "Glass House")
    found = secrets_below(home.path)
    key = (home.device("peanut") / "key.der").read_bytes()
    assert {PASSWORD, key.hex(), (home.ca / "root.pass").read_text().strip()} <= set(found)
    assert any(line in found for line in home.operator("operator").joinpath("operator.key").read_text().splitlines())
