"""Two files of which one is in force: JSON behind a checksum, so that a write that broke off is as if it had not begun.

In memory only while somebody asks (see node.forget).
"""

import binascii
import json

from node import store


def read(path):
    """What the slot holds; None if there is none, or not whole."""
    try:
        with open(path, "rb") as f:
            data = f.read()
        if int(data[:8], 16) == binascii.crc32(data[8:]):
            return json.loads(data[8:])
    except (OSError, ValueError):
        pass
    return None


def write(path, body):
    """The slot holds `body` now, or what it held before. Raises OSError."""
    data = json.dumps(body).encode()
    store.replace(path, b"%08x" % binascii.crc32(data) + data)
