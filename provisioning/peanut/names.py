"""Names: how nodes, vehicles, operators and hosts are called, and the topic root and certificate URI that follow.

Rule: this file is the command line's copy of agreement 1 (identity) of the house's README; a name that passed here is
safe as a directory name, as an MQTT topic level and in a certificate.
"""

import ipaddress
import re
from enum import StrEnum

from peanut.errors import PeanutError

NAME_MAX = 32  # characters of a node's or operator's name
_NAME = re.compile(rf"(?!-)[a-z0-9-]{{1,{NAME_MAX}}}(?<!-)")
_VIN = re.compile(r"[A-HJ-NPR-Z0-9]{17}")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
HOST_MAX = 253  # characters of a DNS name (RFC 1035, 2.3.4)

# ISO 3779 transliteration; the check digit is position 9 (49 CFR 565.15 (c))
_VIN_VALUE = dict(zip("ABCDEFGH", range(1, 9), strict=True))
_VIN_VALUE |= dict(zip("JKLMN", range(1, 6), strict=True)) | {"P": 7, "R": 9}
_VIN_VALUE |= dict(zip("STUVWXYZ", range(2, 10), strict=True)) | {str(d): d for d in range(10)}
_VIN_WEIGHT = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


class Kind(StrEnum):
    """What a node is; the value is the word used in `node.json`, in the ledger and on the command line."""

    GREENHOUSE = "greenhouse"
    VEHICLE = "vehicle"


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it is one for a node or an operator; else raise PeanutError that says the rule."""
    if not is_name(name):
        raise PeanutError(
            f"{name!r} is not {'an' if what[0] in 'aeio' else 'a'} {what}",  # a user's name: u as in you
            f"Use 1 to {NAME_MAX} characters of a-z, 0-9 and '-', with no '-' at either end.",
        )
    return name


def is_name(name: str) -> bool:
    """Whether `name` is one for a node or an operator."""
    return _NAME.fullmatch(name) is not None


def check_device(name: str, kind: Kind) -> str:
    """Return `name` if a node of this kind may be called so: a vehicle is called by its VIN."""
    if kind is Kind.GREENHOUSE:
        if _VIN.fullmatch(name):
            raise PeanutError(f"{name!r} would be taken for a vehicle's VIN", "Use a name with a letter in it.")
        return check_name(name, "greenhouse's name")
    if not _VIN.fullmatch(name):
        raise PeanutError(
            f"{name!r} is not a VIN", "A vehicle's name is its VIN: 17 capital letters and digits without I, O and Q."
        )
    return name


def kind_of(name: str) -> Kind:
    """The kind that a name can only belong to: a VIN has capitals or 17 digits, a greenhouse's name never."""
    return Kind.VEHICLE if _VIN.fullmatch(name) else Kind.GREENHOUSE


def vin_check_digit(vin: str) -> str:
    """The check digit that the other sixteen characters of a VIN ask for. North American rule; others ignore it."""
    rest = sum(_VIN_VALUE[c] * w for c, w in zip(vin, _VIN_WEIGHT, strict=True)) % 11
    return "X" if rest == 10 else str(rest)


def topic_root(name: str, kind: Kind) -> str:
    """The node's topic root, literally as agreement 2 has it: the leading slash belongs to the first only."""
    return f"/plant/{name}" if kind is Kind.GREENHOUSE else f"vin/{name}"


def device_uri(name: str, kind: Kind) -> str:
    """The SAN URI that is the identity of a node."""
    return f"peanut:plant/{name}" if kind is Kind.GREENHOUSE else f"peanut:vin/{name}"


def operator_uri(name: str) -> str:
    """The SAN URI that is the identity of an operator."""
    return f"peanut:operator/{name}"


def check_host(host: str) -> str:
    """A host name (lower case) or IP address (canonical form) fit for a certificate; else raise PeanutError."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if address.is_unspecified or getattr(address, "scope_id", None):
            raise PeanutError(f"{host} is not an address that a node can connect to", "Give the gateway's own address.")
        return str(address)
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if not name or len(name) > HOST_MAX or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise PeanutError(
            f"{host!r} is neither a host name nor an IP address",
            "Give it without a port, like greenhouse.local or 192.168.1.20 (non-ASCII names in their xn-- form).",
        )
    return name


def split_host_port(text: str, default_port: int) -> tuple[str, int]:
    """Split `HOST`, `HOST:PORT`, `[IPv6]:PORT` or a bare IPv6 address; raise PeanutError if it is none of these."""
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:\[\]]*)(?::(\d{1,5}))?", text)
    if match:
        host, port = match[1] or match[3], match[2] or match[4]
    else:
        host, port = (text if _is_address(text) else ""), None
    number = default_port if port is None else int(port)
    if not host or not 0 < number < 65536:
        raise PeanutError(f"{text!r} is not an address", "Give HOST or HOST:PORT, like gateway.local:8883.")
    return host, number


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def printable(text: object, limit: int = 200) -> str:
    """Text from elsewhere, safe on a terminal: no control characters (so no escape codes), at most `limit` long."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
