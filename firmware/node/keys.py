"""The node's certificate and key: the TLS context made of them, and how long they are valid.

Rule: verification is always set. In memory at the start only (see node.forget).
"""

import ssl

from node.link import LinkError


def context(read):
    """(the TLS context, the validity of this node's certificate): made once, kept for life (it costs memory).

    read: function (file name) -> bytes. Raises LinkError naming the file that cannot be used.
    """
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.verify_mode = ssl.CERT_REQUIRED
    try:
        cert = read("cert.der")
        ctx.load_cert_chain(cert, read("key.der"))
        ctx.load_verify_locations(cadata=read("ca.der"))
    except (OSError, ValueError) as e:
        raise LinkError("key.der, cert.der or ca.der cannot be used (%s): put the device bundle on this node" % e)
    return ctx, validity(cert)


def validity(cert):
    """(not before, not after) of a certificate in DER, as Unix seconds; (0, 0) if they are not found."""
    at = cert.find(b"\x30\x1e\x17\x0d")  # a sequence of two UTCTime
    if at < 0 or len(cert) < at + 32:
        return 0, 0
    return _utc(cert[at + 4 : at + 17]), _utc(cert[at + 19 : at + 32])


def _utc(text):
    """Unix seconds of "YYMMDDhhmmssZ"."""
    y, m, d, hour, minute, second = [int(text[i : i + 2]) for i in range(0, 12, 2)]
    y, m = (y + 1999, m + 12) if m < 3 else (y + 2000, m)  # a year that ends with February
    days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * m - 457) // 5 + d - 719469
    return ((days * 24 + hour) * 60 + minute) * 60 + second
