"""A port for a program that must be told one beforehand.

Rule: not from the range that the system hands out to outgoing connections. A port that the system gave us and we gave
back may be anybody's a moment later, and on a busy machine it now and then is.
"""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 20_000, 32_000  # below Linux's ip_local_port_range, 32768 to 60999
TRIES = 100

_random = random.SystemRandom()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that nobody listens on now. OSError when there is none to be found."""
    for _ in range(TRIES):
        port = _random.randint(LOWEST, HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port of {host} between {LOWEST} and {HIGHEST} in {TRIES} tries")
