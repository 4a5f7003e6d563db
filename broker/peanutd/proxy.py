"""The PROXY protocol, versions 1 and 2: who is at the other end of a proxy.

The rule it keeps: bytes in, an address out. A header is right by the letter of HAProxy's proxy-protocol.txt (2.1 the
text form, 2.2 the binary one) or the connection ends; it is bounded, and whatever cannot become one is refused at its
first wrong byte. Extensions (TLVs) are skipped.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final

V1_MAX: Final = 107
"""Bytes of a text header with its CRLF (2.1)."""
V2_MAX: Final = 4096
"""Bytes of addresses and extensions of a binary header. The format allows 65535; extensions take a few hundred."""

MAX: Final = 16 + V2_MAX
"""Bytes of any header; `parse` needs to see no more."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES: Final = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class ProxyError(Exception):
    """What is wrong with a header, in words."""


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header. `host` and `port` are the client's; None when the proxy speaks for itself or does not know."""

    size: int
    """Bytes it has taken."""
    host: str | None = None
    port: int | None = None
    """None: `host` is the path of a Unix socket."""


def parse(data: bytes) -> Header | None:
    """The header that `data` begins with, or None while it is not complete. ProxyError when it cannot become one."""
    if data[: len(_V2)] == _V2[: len(data)]:
        return _binary(data)
    if data[: len(_V1)] == _V1[: len(data)]:
        return _text(data)
    raise ProxyError("no PROXY header (is the client behind the proxy, and does the proxy send it?)")


def _text(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, V1_MAX)
    if end < 0:
        if len(data) >= V1_MAX:
            raise ProxyError(f"PROXY header of version 1 longer than {V1_MAX} bytes")
        return None
    if data.startswith(b"PROXY UNKNOWN") and data[13:14] in b" \r":
        return Header(end + 2)
    try:
        _, family, source, target, source_port, target_port = data[:end].decode("ascii").split(" ")
        make = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}[family]
        make(target)
        host = str(make(source))
        if "%" in host:
            raise ValueError("a scope")
        ports = [int(port) for port in (source_port, target_port) if _PORT.fullmatch(port)]
        if len(ports) < 2 or max(ports) > 65535:
            raise ValueError("not a port")
    except (ValueError, KeyError):
        raise ProxyError("PROXY header of version 1 malformed") from None
    return Header(end + 2, host, ports[0])


def _binary(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family, size = struct.unpack_from(">BBH", data, 12)
    if command not in (_LOCAL, _PROXY):
        raise ProxyError(f"PROXY header of version 2 malformed: version and command {command:#04x}")
    if size > V2_MAX:
        raise ProxyError(f"PROXY header of version 2 longer than {V2_MAX} bytes")
    if command == _PROXY:
        if family not in _ADDRESSES:
            raise ProxyError(f"PROXY header of version 2 malformed: family {family:#04x} is not a stream's")
        if size < _ADDRESSES[family]:
            raise ProxyError("PROXY header of version 2 malformed: too short for its addresses")
    end = 16 + size
    if len(data) < end:
        return None
    if command == _LOCAL or family == _UNSPEC:
        return Header(end)
    if family == _UNIX:
        path = data[16 : 16 + 108].partition(b"\0")[0]
        return Header(end, path.decode("utf-8", "replace"))
    width = 4 if family == _TCP4 else 16
    host = ipaddress.ip_address(data[16 : 16 + width])
    return Header(end, str(host), struct.unpack_from(">H", data, 16 + 2 * width)[0])
