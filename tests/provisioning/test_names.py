"""Names, hosts and addresses: agreement 1's rules, and nothing else, pass."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peanut import names
from peanut.errors import PeanutError
from peanut.names import Kind


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9-]{0,34}", fullmatch=True))
def test_a_name_is_what_agreement_1_says(text: str) -> None:
    good = bool(re.fullmatch(r"[a-z0-9-]{1,32}", text)) and text[0] != "-" and text[-1] != "-"
    assert names.is_name(text) == good
    # and what passes is harmless as a path, a topic level and a certificate field
    assert not good or not set(text) & set("/.+#\0\n ")


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a" * 33, "a\n", "../x", "a/b", "ä", "a b", "#", "+"])
def test_a_bad_name_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(PeanutError) as caught:
        names.check_device(name, Kind.GREENHOUSE)
    assert "a-z, 0-9" in caught.value.fix


@pytest.mark.parametrize("vin", ["1M8GDM9AXKP04278", "1M8GDM9AXKP0427888", "1m8gdm9axkp042788", "IM8GDM9AXKP042788"])
def test_a_bad_vin_is_refused(vin: str) -> None:
    with pytest.raises(PeanutError, match="not a VIN"):
        names.check_device(vin, Kind.VEHICLE)


def test_vin_check_digit() -> None:
    # 49 CFR 565.15 (c), table and worked example; and the well-known VIN of seventeen ones
    assert names.vin_check_digit("1M8GDM9AXKP042788") == "X"
    assert names.vin_check_digit("1" * 17) == "1"
    assert names.vin_check_digit("5GZCZ43D13S812715") == "1"


def test_roots_and_uris_are_literal() -> None:
    assert names.topic_root("peanut", Kind.GREENHOUSE) == "/plant/peanut"
    assert names.topic_root("1M8GDM9AXKP042788", Kind.VEHICLE) == "vin/1M8GDM9AXKP042788"
    assert names.device_uri("peanut", Kind.GREENHOUSE) == "peanut:plant/peanut"
    assert names.device_uri("1M8GDM9AXKP042788", Kind.VEHICLE) == "peanut:vin/1M8GDM9AXKP042788"
    assert names.operator_uri("maria") == "peanut:operator/maria"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Gateway.Local", "gateway.local"),
        ("gateway.local.", "gateway.local"),
        ("192.168.1.20", "192.168.1.20"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("localhost", "localhost"),
    ],
)
def test_a_host_is_kept_in_one_form(given: str, kept: str) -> None:
    assert names.check_host(given) == kept


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "-a.b",
        "a_b",
        "*.local",
        "a:8883",
        "300.1.1.1",
        "1.2.3",
        "0.0.0.0",
        "fe80::1%eth0",
        "ü.de",
        "a" * 64,
        ".".join(["a" * 63] * 4),
    ],
)
def test_a_bad_host_is_refused(host: str) -> None:
    with pytest.raises(PeanutError):
        names.check_host(host)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gateway", ("gateway", 1)),
        ("gateway:99", ("gateway", 99)),
        ("[::1]:99", ("::1", 99)),
        ("[::1]", ("::1", 1)),
        ("2001:db8::1", ("2001:db8::1", 1)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert names.split_host_port(text, 1) == found


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:0", "a:65536", "a:b", "[::1"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(PeanutError, match="not an address"):
        names.split_host_port(text, 1)


@given(st.text())
def test_printable_text_cannot_steer_a_terminal(text: str) -> None:
    shown = names.printable(text, 50)
    assert len(shown) <= 50
    assert all(c.isprintable() for c in shown)


def test_what_a_name_is_not_has_its_article() -> None:
    for what, said in (("operator's name", "not an operator's name"), ("user's name", "not a user's name")):
        with pytest.raises(PeanutError, match=said):
            names.check_name("No", what)


def test_a_greenhouse_cannot_have_a_name_that_is_a_vin() -> None:
    """Seventeen digits would do for both; nobody could tell whom a command is for."""
    with pytest.raises(PeanutError, match="VIN"):
        names.check_device("12345678901234567", Kind.GREENHOUSE)
    assert names.check_device("1234567890123456", Kind.GREENHOUSE) == "1234567890123456"
