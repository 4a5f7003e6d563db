"""The address of a name, asked for over UDP (RFC 1035), so that the program goes on meanwhile as it does not with
`getaddrinfo`.

Rule: bounded in time and in bytes, and nothing hangs on it: whoever answers, TLS judges the gateway by its name. A name
in .local is asked for where mDNS answers, from a port of our own, which makes the answer come here alone (RFC 6762,
section 6.7). In memory only while somebody connects (see node.borrow).
"""

import asyncio
import errno
import os
import socket

from node import clock, log
from node.link import LinkError

PORT = 53
MULTICAST = "224.0.0.251", 5353  # who has names in .local
TRIES = 2
WAIT_MS = 1200  # for an answer to each
POLL_MS = 20
MAX_SIZE = 512  # bytes of an answer

_HEADER = b"\x01\0\0\x01\0\0\0\0\0\0"  # recursion desired, one question


def question(name, cookie):
    """The message that asks for the IPv4 addresses of `name`, with `cookie` (2 bytes) as its number. None if it is no
    name."""
    out = cookie + _HEADER
    for label in name.rstrip(".").split("."):
        if not 0 < len(label) < 64:
            return None
        out += bytes((len(label),)) + label.encode()
    return out + b"\0\0\x01\0\x01"


def parse(data, asked):
    """The addresses in the answer `data` to the message `asked`; [] if there are none, None if it answers nothing."""
    at = len(asked)
    if (
        data[:2] != asked[:2]
        or data[12:at].lower() != asked[12:].lower()
        or not data[2] & 0x80
        or data[4:6] != b"\0\x01"
    ):
        return None
    out = []
    for _ in range(int.from_bytes(data[6:8], "big")):
        while at < len(data) and 0 < data[at] < 0xC0:  # labels, of which the last may point to others
            at += 1 + data[at]
        at += 2 if at < len(data) and data[at] else 1
        end = at + 10 + int.from_bytes(data[at + 8 : at + 10], "big")
        if end > len(data):
            break
        # An address in the Internet; mDNS sets the highest bit of the class for reasons of its own.
        if end == at + 14 and data[at : at + 2] == b"\0\x01" and data[at + 2] & 0x7F == 0 and data[at + 3] == 1:
            out.append("%d.%d.%d.%d" % tuple(data[at + 10 : end]))
        at = end
    return out


async def find(link, host):
    """What `getaddrinfo` is to be asked for, so that it need not ask: the addresses of `host`. Or `host`, where there
    is no such name by what we hear, and the system's own hosts and searches may know more: it hears as fast.

    Raises LinkError where nobody answers, nor ever has, and OSError.
    """
    server = link.wlan.ifconfig()[3]
    if server == "0.0.0.0":  # the network has named none
        return [host]
    found = await ask(host, server)
    if found:
        link.known[host] = found
    elif host in link.known:
        log.warn("link", "%s: going by the address of before" % host)
    elif found is None:
        raise LinkError("the name %s cannot be found (no answer from DNS, asked at %s)" % (host, server))
    return link.known.get(host) or [host]


async def ask(name, server):
    """The addresses of `name` as `server` tells them, in text; [] if it knows none, None if nobody answers within
    TRIES times WAIT_MS. Raises OSError."""
    asked = question(name, os.urandom(2))
    if asked is None:
        return []
    where = MULTICAST if name.rstrip(".").endswith(".local") else (server, PORT)
    info = socket.getaddrinfo(where[0], where[1], 0, socket.SOCK_DGRAM)[0]
    sock = socket.socket(info[0], socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for _ in range(TRIES):
            sock.sendto(asked, info[-1])
            sent = clock.now()
            while clock.since(sent) < WAIT_MS:
                await asyncio.sleep_ms(POLL_MS)
                try:
                    told = parse(sock.recv(MAX_SIZE), asked)
                except OSError as e:
                    if e.errno != errno.EAGAIN:
                        raise
                    continue
                if told is not None:
                    return told
    finally:
        sock.close()
    return None
