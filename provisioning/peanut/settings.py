"""fleet.toml (under which names the gateway is reached), the few lines of gateway.toml that the command line reads, and
device.toml (which gateway was asked for, for one device).

Rule: fleet.toml belongs to the operator as well: writing it keeps comments and other keys. gateway.toml is written
once, with every default in a comment, and never touched again.
"""

import ipaddress
import socket
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomlkit

from peanut import board, names, store
from peanut.errors import PeanutError
from peanut.fields import Value, check
from peanut.home import Home

MQTTS_PORT = 8883  # IANA secure-mqtt
HTTPS_PORT = 8443
MQTTS_DEFAULT = f"0.0.0.0:{MQTTS_PORT}"

GATEWAY_TOML = f"""\
# Settings of peanutd, the gateway. Every key may be left out; what stands behind a '#' is the default, the safe one.
# After a change: `kill -HUP` peanutd. `peanutd --check` tells what is wrong with this file.

[listen]
# mqtts   = "{MQTTS_DEFAULT}"      # nodes and operators, mutual TLS
# https   = "0.0.0.0:8443"      # the app, its API under /api/v1, MQTT over WebSocket at /mqtt
# mqtt    = ""                  # plaintext, off; any address but loopback is refused without `insecure = true`
# metrics = "127.0.0.1:9883"    # Prometheus text at /metrics

[access]
# anonymous = false             # true: whoever connects to a loopback plaintext listener may do everything
"""

_FLEET_TOML = """\
# This fleet. `hosts`: the names and addresses under which its gateway is reached; nodes use the first one.
# Add one with `peanut init --host NAME_OR_IP`, which also issues the gateway's certificate for it.
"""

_DEVICE_TOML = """\
# What was asked for with `peanut device add --set gateway.…`, and what node.json therefore keeps when the fleet's
# gateway moves. Take a line out, and the next `peanut device add` follows the fleet again. It does not go to the node.
"""


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(store.read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeanutError(f"{path} is not valid TOML: {error}", "Mend that line and try again.") from None


def hosts(home: Home) -> list[str]:
    """`hosts` of fleet.toml, checked; empty if there is no such file."""
    path = home.fleet_toml
    if not path.exists():
        return []
    found = _load(path).get("hosts")
    if not isinstance(found, list) or not found or not all(isinstance(h, str) for h in found):
        raise PeanutError(
            f"{path} needs `hosts`, a list of names or addresses", 'Write for example: hosts = ["gateway.local"]'
        )
    return [names.check_host(h) for h in found]


def fleet_toml(home: Home, wanted: Sequence[str]) -> bytes:
    """The text of fleet.toml with these hosts; what else stands in the present file is kept."""
    path = home.fleet_toml
    document = tomlkit.parse(store.read(path).decode()) if path.exists() else tomlkit.parse(_FLEET_TOML)
    array = tomlkit.array()
    array.extend(wanted)
    document["hosts"] = array
    return tomlkit.dumps(document).encode()


def default_hosts() -> list[str]:
    """How this machine is likely reached: its host name, that name under .local (mDNS), its address on the LAN."""
    found = []
    name = socket.gethostname().split(".")[0]
    for candidate in (name, f"{name}.local"):
        try:
            found.append(names.check_host(candidate))
        except PeanutError:  # a host name that DNS has no place for
            continue
    address = _lan_address()
    if address:
        found.append(address)
    return list(dict.fromkeys(found)) or ["localhost"]


def _lan_address() -> str:
    # Connecting a UDP socket sends nothing; it asks the kernel which address a packet would leave from.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
            address = ipaddress.ip_address(probe.getsockname()[0])
        except OSError:
            return ""
    return "" if address.is_loopback or address.is_unspecified else str(address)


def mqtts_address(home: Home) -> tuple[str, int]:
    """Host and port of the gateway's TLS listener, as gateway.toml has it (its default if it has not).

    Where `mqtts` is off it is that of the first [[listener]] that nodes can use.
    """
    text: object = MQTTS_DEFAULT
    if home.gateway_toml.exists():
        found = _load(home.gateway_toml)
        listen = found.get("listen", {})
        text = listen.get("mqtts", MQTTS_DEFAULT) if isinstance(listen, dict) else None
        text = text or next(_for_nodes(found), text)
    if not isinstance(text, str) or not text:
        raise PeanutError(
            f"{home.gateway_toml} has no address for `mqtts` in [listen]",
            f'Write for example: mqtts = "{MQTTS_DEFAULT}"',
        )
    try:
        return names.split_host_port(text, MQTTS_PORT)
    except PeanutError:
        raise PeanutError(
            f"{home.gateway_toml}: mqtts = {text!r} is not an address", f'Write for example: mqtts = "{MQTTS_DEFAULT}"'
        ) from None


def _for_nodes(gateway_toml: Mapping[str, Any]) -> Iterator[object]:
    """Addresses of the tables [[listener]] where a node's certificate is asked for, over TLS and without a proxy."""
    tables = gateway_toml.get("listener", [])
    for table in tables if isinstance(tables, list) else []:
        if isinstance(table, dict) and not str(table.get("address", "")).startswith("unix:"):
            mutual = table.get("transport", "tls") == "tls" and table.get("certificate", "required") != "none"
            if mutual and table.get("proxy_protocol", False) is not True:
                yield table.get("address")


def connect_address(home: Home) -> tuple[str, int]:
    """Where a client on this machine reaches the gateway.

    gateway.toml says the port; a gateway that listens everywhere is reached on 127.0.0.1. Where there is no
    gateway.toml the gateway runs elsewhere, and the first host of fleet.toml says where.
    """
    if not home.gateway_toml.exists():
        known = hosts(home)
        if known:
            return known[0], MQTTS_PORT
    host, port = mqtts_address(home)
    try:
        anywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        anywhere = False
    return ("127.0.0.1" if anywhere else host), port


def https_port(home: Home) -> int:
    """The port of the app, as gateway.toml has it (its default if it has not, or if the app is off)."""
    if not home.gateway_toml.exists():
        return HTTPS_PORT
    listen = _load(home.gateway_toml).get("listen", {})
    text = listen.get("https", "") if isinstance(listen, dict) else ""
    try:
        return names.split_host_port(str(text), HTTPS_PORT)[1] if text else HTTPS_PORT
    except PeanutError:
        return HTTPS_PORT


def device_gateway(path: Path) -> dict[str, Value]:
    """`host` and `port` of [gateway] in a device.toml, as far as they are there, checked."""
    document = _load(path)
    unknown = sorted(set(document) - {"gateway"})
    if unknown:
        raise PeanutError(f"{path}: unknown key {unknown[0]!r}", "It has one table, [gateway].")
    table = {key: replace(field, required=False) for key, field in board.GATEWAY.items()}
    return check(table, document.get("gateway", {}), f"{path}: [gateway]")


def device_toml(gateway: Mapping[str, Value]) -> bytes:
    """The text of a device.toml."""
    document = tomlkit.parse(_DEVICE_TOML)
    document["gateway"] = {key: gateway[key] for key in board.GATEWAY if key in gateway}
    return tomlkit.dumps(document).encode()
