"""HMAC-SHA256 (RFC 2104), and a comparison that takes as long for a near miss as for a far one.

Rule: pure. MicroPython has sha256 but neither of these.
"""

import hashlib

_BLOCK = 64  # bytes of SHA-256 (FIPS 180-4)


class Hmac:
    """One key, padded once; `sign` as often as needed."""

    def __init__(self, key):
        if len(key) > _BLOCK:
            key = hashlib.sha256(key).digest()
        key = key + bytes(_BLOCK - len(key))
        self._inner = bytes([b ^ 0x36 for b in key])
        self._outer = bytes([b ^ 0x5C for b in key])

    def sign(self, text):
        """The 32 bytes of the code over `text` (bytes)."""
        return hashlib.sha256(self._outer + hashlib.sha256(self._inner + text).digest()).digest()


def equal(a, b):
    """Whether two byte strings are the same; the time tells nothing but whether their lengths are."""
    if len(a) != len(b):
        return False
    differs = 0
    for i in range(len(a)):
        differs |= a[i] ^ b[i]
    return differs == 0
