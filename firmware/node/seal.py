"""Encryption of what a vehicle publishes, for the eyes of whoever has its device key: AES-256-CBC, then HMAC-SHA256.

Rule: a new random IV for each text, padding as PKCS #7 (RFC 5652, 6.3), the code over IV and ciphertext; the keys are
derived from the device key, one pair for each topic, so that what was sealed for one is nothing on another. TLS is not
replaced by it: it keeps the position from the gateway's disk and its readers.

    key, code key   HMAC(device key, "vin-enc-v1|TOPIC"), HMAC(device key, "vin-mac-v1|TOPIC")
    sealed          {"sealed": base64(IV | ciphertext | code)}
"""

import binascii
import os

from cryptolib import aes

from node.hmac import Hmac

CBC = 2  # mode of cryptolib.aes
BLOCK = 16  # bytes of AES


class Seal:
    """key: the device key, 32 bytes."""

    def __init__(self, key):
        self._key = Hmac(key)

    def close(self, topic, text):
        """`text` as the payload for `topic` (the last level of it)."""
        raw = text.encode()
        pad = BLOCK - len(raw) % BLOCK
        iv = os.urandom(BLOCK)
        topic = topic.encode()
        body = iv + aes(self._key.sign(b"vin-enc-v1|" + topic), CBC, iv).encrypt(raw + bytes([pad]) * pad)
        code = Hmac(self._key.sign(b"vin-mac-v1|" + topic)).sign(body)
        return '{"sealed":"%s"}' % binascii.b2a_base64(body + code).decode().strip()
