"""An update that is offered: whose it is and whether it is for this node, judged before one byte of it is fetched.

Rule: the signature comes first, and nothing unsigned is even read. Every refusal says why, and begins with one word:
signature, format, kind, board, mpy, seq. In memory only while somebody offers (see node.forget).

An offer is a line of JSON, the manifest, and a line of base64, its signature (RSA 3072, PKCS #1 v1.5, SHA-256).
"""

import binascii
import hashlib
import sys

from node import strictjson

PUBLIC = "update.pub"  # the modulus of the fleet's key, in its device bundle
BYTES = 384  # of modulus and signature
EXPONENT = 65537
MAX_SIZE = 2048  # bytes of an offer
MAX_UPDATE = 4 << 20  # bytes of what comes after it
MAX_INDEX = 16384
FORMAT = 1
# Version of .mpy files that can be read here. The name is in a string: peanut/shorten.py would shorten it else.
MPY = getattr(sys.implementation, "_mpy", 0) & 255

# What is signed stands behind this in the block of a signature [RFC 8017, 9.2]: the DigestInfo of SHA-256.
_SHA256 = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"

_FIELDS = (("seq", int), ("version", str), ("kind", str), ("boards", list), ("mpy", int), ("size", int))
_FIELDS += (("index", int), ("sha256", str), ("image", bool))


def signed(text, signature, modulus):
    """Whether `signature` over `text` was made with the key of this modulus (all bytes). The whole block is compared,
    not read, so there is nothing in it to hide a forgery in."""
    if len(modulus) != BYTES or len(signature) != BYTES:
        return False
    n = int.from_bytes(modulus, "big")
    s = int.from_bytes(signature, "big")
    if not 1 < s < n:
        return False
    end = _SHA256 + hashlib.sha256(text).digest()
    wanted = b"\x00\x01" + b"\xff" * (BYTES - 3 - len(end)) + b"\x00" + end
    return pow(s, EXPONENT, n).to_bytes(BYTES, "big") == wanted


def judge(raw, kind, board, running, gone):
    """The manifest (a dict) of an offer (bytes) for this node. Raises ValueError: why not, and
    OSError if the public key cannot be read.

    running: seqs of the application and of the image in force; gone: seq of what was given up last, or None.
    """
    if len(raw) > MAX_SIZE:
        raise ValueError("format: more than %d bytes" % MAX_SIZE)
    text, _, code = raw.partition(b"\n")
    try:
        signature = binascii.a2b_base64(code)
    except ValueError:
        signature = b""
    with open(PUBLIC, "rb") as f:
        modulus = f.read(BYTES + 1)
    if not signed(text, signature, modulus):
        raise ValueError("signature: not made by this fleet's key")
    del modulus, signature, code
    m = strictjson.loads(text)
    if m.get("format") != FORMAT:
        raise ValueError("format: %s, and this node knows %d" % (m.get("format"), FORMAT))
    for key, sort in _FIELDS:
        if type(m.get(key)) is not sort:
            raise ValueError("format: " + key)
    if not 0 < m["index"] <= MAX_INDEX or not m["index"] < m["size"] <= MAX_UPDATE:
        raise ValueError("format: size")
    if m["kind"] != kind:
        raise ValueError("kind: for a %s, and this is a %s" % (m["kind"], kind))
    if m["boards"] and board not in m["boards"]:
        raise ValueError("board: for %s, and this is %s" % (", ".join(m["boards"])[:60], board))
    if m["mpy"] != MPY:
        raise ValueError("mpy: version %d, and this node reads %d" % (m["mpy"], MPY))
    if m["seq"] == gone:
        raise ValueError("seq: %d was tried and given up" % m["seq"])
    if m["seq"] <= running[m["image"]]:
        raise ValueError("seq: %d is not newer than %d" % (m["seq"], running[m["image"]]))
    return m
