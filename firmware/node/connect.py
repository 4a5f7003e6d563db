"""The way to the gateway: the memory for it, its name, the time, TCP, TLS with a certificate on both sides, CONNECT.

Rule: the gateway proves itself or there is no connection. Verification and host name are always set (MicroPython's
defaults are neither), and no clock, retry or setting takes them off. In memory only while somebody connects (see
node.borrow).
"""

import asyncio
import errno
import socket

from node import birth, clock, hardware, log, mqtt
from node.link import NO_ROOM, LinkError, Stream

TIME_MS = 86400000  # between two questions for the time, once it is known
SOON_MS = 60000  # and while it is not
TLS_BLOCK = 20000  # bytes that TLS wants in one piece of the IDF's heap: 16.8 KB, and some beside
STARVED = 5  # tries without, after which a restart is asked for


def _roomy(link):
    """Raises LinkError where TLS would fail for want of memory, after which not even Wi-Fi is sure to live."""
    room = hardware.tls_room()
    if room is None or room[1] >= TLS_BLOCK:
        link._starved = 0
        return
    link._starved += 1
    link.starving = link._starved >= STARVED
    raise LinkError("no memory for TLS: the largest block is %d bytes of %d" % (room[1], TLS_BLOCK))


async def tell_time(link, name, info):
    """Ask the gateway for the time, before TLS judges certificates by it; what the clock says stands if it is silent.
    name: of the host, or better its address; info: of the two with the gateway's port."""
    if link._asked is not None and clock.since(link._asked) < (TIME_MS if clock.quality() == "ntp" else SOON_MS):
        return
    link._asked = clock.now()
    try:
        if link._time_port != link.port:
            info = socket.getaddrinfo(name, link._time_port, 0, socket.SOCK_DGRAM)[0]
        from node import sntp

        told = await sntp.ask(info[0], info[-1])
    except (OSError, MemoryError):
        told = None
    if told is None:
        log.warn("time", "%s does not tell it: going by what is known (%s)" % (link.host, clock.quality()))
    else:
        clock.put(told, link.host)


async def connect(link):
    """A connected stream on which CONNECT has been written: the first write of a TLS stream makes the handshake.

    Raises LinkError.
    """
    _roomy(link)
    host, port = link.host, link.port
    turn = link._failures // len(link._hosts)
    try:
        # Asked again at each try, because the gateway may have moved. What `getaddrinfo` then has to ask DNS for stops
        # the whole program meanwhile.
        names = (host,)
        if link.wlan is not None and ":" not in host and not host.replace(".", "").isdigit():
            from node import dns

            names = await dns.find(link, host)
        name = names[turn % len(names)]
        found = socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM)
    except OSError as e:
        raise LinkError("the name %s cannot be found (DNS: %s)" % (host, e))
    # A name may have several addresses: each failure moves on to the next of them.
    info = found[turn % len(found)]
    await tell_time(link, name, info)
    sock = deadline = None
    shaking = False
    try:
        sock = socket.socket(info[0], info[1], info[2])
        sock.setblocking(False)
        try:
            sock.connect(info[-1])
        except OSError as e:
            if e.errno != errno.EINPROGRESS:
                raise
        sock = link._ctx.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        sock.setblocking(False)
        stream = Stream(sock)
        deadline = asyncio.create_task(_expire(link, stream))
        shaking = True
        begun = clock.now()
        await stream.write(birth.hello(link._client))
        link.shake_ms = clock.since(begun)
        sock = None
        return stream
    except Exception as e:
        if deadline is not None and deadline.done():
            raise LinkError("no answer from %s:%d within %d s" % (host, port, link._connect_ms // 1000))
        try:
            from node import words

            said = words.explain(e, host, port, shaking)
        except (OSError, MemoryError):  # not even to read the words
            said = (NO_ROOM % e, mqtt.LOST)
        raise LinkError(*said)
    finally:
        if deadline is not None:
            deadline.cancel()
        if sock is not None:
            sock.close()


async def _expire(link, stream):
    await asyncio.sleep_ms(link._connect_ms)
    stream.close()
