"""Listening sockets: TCP and Unix.

The rule it keeps: an address is taken whole or refused with a reason and a remedy, a Unix socket is never wider open
than configured, not even for a moment, and no other program's socket is ever removed. Nothing here awaits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import stat
from dataclasses import dataclass
from typing import Final

from peanutd.config import Address, Listener, UnixPath

BACKLOG: Final = 1024
"""Connections that the kernel holds until they are accepted."""
TRIES: Final = 20
"""Port numbers that are asked for until one is free for TCP and for UDP."""
PROBE_TIMEOUT: Final = 1.0
"""Seconds in which whoever listens on a Unix socket that is already there must answer."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""TCP's own probes find the peers that are gone without a word and have an MQTT keep alive of 0."""


class ListenError(Exception):
    """Why an address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A listening socket, the address that it really got, and the file that is to go when it ends."""

    socket: socket.socket
    address: Address | UnixPath
    file: os.stat_result | None = None
    """Of the Unix socket, as it was made."""

    def remove(self) -> None:
        """Removes the file of a Unix socket, unless it is another's by now. (Inode numbers alone are used again.)"""
        if self.file is not None and isinstance(self.address, UnixPath):
            with contextlib.suppress(OSError):
                there = os.lstat(self.address.path)
                if (there.st_ino, there.st_mtime_ns) == (self.file.st_ino, self.file.st_mtime_ns):
                    os.unlink(self.address.path)


def raise_file_limit() -> int:
    """Raises the limit of open files to what the system allows; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def bind(listener: Listener) -> Bound:
    """A socket that listens, not blocking. ListenError says why there is none and which key to change."""
    address = listener.address
    try:
        if isinstance(address, UnixPath):
            return _bind_unix(address, listener.mode)
        sock = _bind_tcp(address)
        return Bound(sock, Address(address.host, sock.getsockname()[1]))
    except OSError as error:
        raise ListenError(f"{address}: {_problem(error)}; change {listener.where}") from None


def bind_udp(address: Address, where: str) -> socket.socket:
    """A UDP socket, not blocking. ListenError says why there is none; `where` is the key to change."""
    everywhere = not address.host
    dual = everywhere and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or ":" in address.host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
            sock.bind((address.host, address.port))
        except BaseException:
            sock.close()
            raise
        return sock
    except OSError as error:
        raise ListenError(f"UDP {address}: {_problem(error)}; change {where}") from None


def bind_both(listener: Listener, host: str, where: str) -> tuple[Bound, socket.socket]:
    """`bind`, and `bind_udp` on `host` with the same number. For port 0 the system chooses without a look at UDP: where
    that has given it to somebody, another is asked for.
    """
    assert isinstance(listener.address, Address)
    left = 1 if listener.address.port else TRIES
    while True:
        bound = bind(listener)
        assert isinstance(bound.address, Address)
        try:
            return bound, bind_udp(Address(host, bound.address.port), where)
        except ListenError:
            bound.socket.close()
            left -= 1
            if not left:
                raise


def _bind_tcp(address: Address) -> socket.socket:
    """Accepted sockets inherit the options (Linux)."""
    everywhere = not address.host
    dual = everywhere and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual or ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind((address.host, address.port))
        return _listen(sock)
    except BaseException:
        sock.close()
        raise


def _bind_unix(address: UnixPath, mode: int) -> Bound:
    path = address.path
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o777 & ~mode)  # chmod afterwards would leave it open for a moment
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        return Bound(_listen(sock), address, os.lstat(path))
    except BaseException:
        sock.close()
        raise


def _clear(path: str) -> None:
    """Removes a socket that nobody listens on any more; OSError when something else is there."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise OSError(errno.ENOTSOCK, "something that is not a socket is there; it stays untouched")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # left behind by one that was killed
        except OSError as error:
            raise OSError(errno.EADDRINUSE, f"cannot see whether somebody listens there: {error}") from None
        else:
            raise OSError(errno.EADDRINUSE, "in use")


def _listen(sock: socket.socket) -> socket.socket:
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def _problem(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "in use: another program (another peanutd?) listens there; stop it"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if error.errno == errno.EACCES:
        return "not allowed (ports below 1024 are the system's, and a socket needs a directory that may be written to)"
    if error.errno == errno.ENOENT:
        return "the directory is not there; make it"
    return str(error.strerror)
