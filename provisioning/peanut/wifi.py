"""The Wi-Fi networks of a fleet: wifi.toml in the fleet home (0600), and wifi.json, which the nodes get.

Rule: a password is asked for once, and is never printed, logged or put into an error.
"""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field

import tomlkit

from peanut import store
from peanut.errors import PeanutError
from peanut.home import SECRET, Home, write_file
from peanut.names import printable

FORMAT = 1
FILE = "wifi.json"
SSID_MAX = 32  # bytes (IEEE 802.11)
PASSWORD_MIN, PASSWORD_MAX = 8, 63  # characters of a WPA passphrase
NETWORKS_MAX = 8  # a node tries them in turn
WORLD = "XX"  # the country that is none: what is allowed everywhere
_TITLE = """\
# The Wi-Fi networks that this fleet's nodes join. Kept by `peanut wifi`; it has passwords, so its mode is 0600.
"""


@dataclass(frozen=True)
class Network:
    """One network. password: "" for an open one."""

    ssid: str
    password: str = field(repr=False)

    @property
    def open(self) -> bool:
        return not self.password


@dataclass(frozen=True)
class Wifi:
    """What a node needs to know. country: two letters, which tell the allowed channels."""

    country: str = WORLD
    networks: tuple[Network, ...] = ()


def network(ssid: str, password: str) -> Network:
    """A checked network; PeanutError that says what is wrong, without the password."""
    if not 0 < len(ssid.encode()) <= SSID_MAX or not ssid.isprintable():
        raise PeanutError(
            f"{printable(ssid)!r} is not the name of a network", f"It has 1 to {SSID_MAX} printable characters."
        )
    if password and not (
        PASSWORD_MIN <= len(password) <= PASSWORD_MAX and password.isascii() and password.isprintable()
    ):
        raise PeanutError(
            f"the password of {ssid} is none that Wi-Fi knows",
            f"It has {PASSWORD_MIN} to {PASSWORD_MAX} printable ASCII characters, or none at all for an open network.",
        )
    return Network(ssid, password)


def country(text: str) -> str:
    """A checked country."""
    code = text.upper()
    if len(code) != 2 or not code.isascii() or not code.isalpha():
        raise PeanutError(f"{printable(text)!r} is not a country", "Give its two letters, like DE.")
    return code


def read(home: Home) -> Wifi:
    """What wifi.toml says; no networks if there is none."""
    path = home.wifi_toml
    if not path.exists():
        return Wifi()
    try:
        found = tomllib.loads(store.read(path).decode())
        networks = tuple(network(str(n["ssid"]), str(n.get("password", ""))) for n in found.get("network", []))
        return Wifi(country(str(found.get("country", WORLD))), networks)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        # the parser's own words might show a password
        raise PeanutError(
            f"{path} cannot be read as TOML", "Mend it, or remove it and run `peanut wifi add`."
        ) from None


def write(home: Home, wifi: Wifi) -> None:
    """Replace wifi.toml. The home's lock is held."""
    document = tomlkit.parse(_TITLE)
    document["country"] = wifi.country
    tables = tomlkit.aot()
    for one in wifi.networks:
        tables.append(tomlkit.item({"ssid": one.ssid, "password": one.password}))
    document["network"] = tables
    write_file(home.wifi_toml, tomlkit.dumps(document).encode(), SECRET)


def with_network(wifi: Wifi, new: Network) -> Wifi:
    """`wifi` with a network added at the end, or with another password."""
    if new.ssid in [n.ssid for n in wifi.networks]:
        networks: Sequence[Network] = [new if n.ssid == new.ssid else n for n in wifi.networks]
    else:
        networks = [*wifi.networks, new]
    if len(networks) > NETWORKS_MAX:
        raise PeanutError(f"there are {NETWORKS_MAX} networks already", "Remove one: peanut wifi remove SSID")
    return Wifi(wifi.country, tuple(networks))


def without_network(wifi: Wifi, ssid: str) -> Wifi:
    """`wifi` without a network; PeanutError if there is none of this name."""
    if ssid not in [n.ssid for n in wifi.networks]:
        listed = ", ".join(n.ssid for n in wifi.networks) or "none"
        raise PeanutError(f"there is no network {printable(ssid)!r}", f"Networks: {listed}.")
    return Wifi(wifi.country, tuple(n for n in wifi.networks if n.ssid != ssid))


def render(wifi: Wifi) -> bytes:
    """The bytes of wifi.json."""
    body = {
        "format": FORMAT,
        "country": wifi.country,
        "networks": [{"ssid": n.ssid, "password": n.password} for n in wifi.networks],
    }
    return (json.dumps(body, ensure_ascii=True) + "\n").encode()
