"""The time from the gateway, before TLS needs it: SNTP (RFC 4330) over UDP, three samples that must agree.

Rule: an answer counts if it echoes what was asked; a time counts if SAMPLES answers agree to within SPREAD_MS. No clock
is set here: clock.put judges whether it can be.
"""

import asyncio
import errno
import os
import socket

from node import clock

SAMPLES = 3
SPREAD_MS = 2000
WAIT_MS = 1000  # for one answer
POLL_MS = 20

_1970 = 2208988800  # seconds from 1900, where NTP begins


def parse(data, cookie):
    """Unix ms that the answer `data` (bytes) tells, or None: RFC 4330, section 5, the checks of a client."""
    if len(data) < 48 or data[0] & 7 != 4 or data[0] >> 6 == 3 or not 0 < data[1] < 16 or data[24:32] != cookie:
        return None
    seconds = int.from_bytes(data[40:44], "big")
    if seconds < 1 << 31:  # the era that begins in 2036
        seconds += 1 << 32
    return (seconds - _1970) * 1000 + (data[44] * 1000 >> 8) if seconds > _1970 else None


def agree(samples):
    """The middle one of the samples (ms), or None if they are too few or too far apart."""
    if len(samples) < SAMPLES or max(samples) - min(samples) > SPREAD_MS:
        return None
    return sorted(samples)[len(samples) // 2]


async def ask(family, address):
    """Unix seconds as the gateway at `address` (of getaddrinfo) tells them, or None. Raises OSError.

    Takes SAMPLES times WAIT_MS at the most.
    """
    sock = socket.socket(family, socket.SOCK_DGRAM)
    begun = clock.now()
    samples = []
    try:
        sock.setblocking(False)
        sock.connect(address)  # so only its answers come in, and a port that nobody has is known at once
        for _ in range(SAMPLES):
            cookie = os.urandom(8)
            sent = clock.now()
            sock.send(b"\x23" + bytes(39) + cookie)
            told = None
            while told is None and clock.since(sent) < WAIT_MS:
                await asyncio.sleep_ms(POLL_MS)
                try:
                    told = parse(sock.recv(64), cookie)
                except OSError as e:
                    if e.errno != errno.EAGAIN:  # else there is nothing yet
                        raise
            if told is None:
                return None
            # What the way took, half of it each way; and what has passed since the first question, taken off again.
            samples.append(told + clock.since(sent) // 2 - clock.since(begun))
    finally:
        sock.close()
    middle = agree(samples)
    return None if middle is None else (middle + clock.since(begun) + 500) // 1000
