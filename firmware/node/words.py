"""Why there is no connection, in words that a grower can act on.

Rule: every failure has words and a kind. In memory only when there is one (see node.forget).
"""

import errno

from node import mqtt
from node.link import CERTIFICATE, NO_ROOM

_EHOSTUNREACH = (101, 113, 118)  # ENETUNREACH and EHOSTUNREACH on Linux, EHOSTUNREACH on lwIP
_ROOM = (12, 23, 24, 105)  # ENOMEM, ENFILE, EMFILE, ENOBUFS: lwIP has few sockets, and no errno names for these
_FATAL_ALERT = -0x7780  # MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE

# What Mbed TLS says of a certificate, and what a grower can do with it.
_CERTIFICATE_WORDS = (
    ("trusted CA", "the gateway's certificate was not issued by this fleet's CA"),
    ("does not match", "the gateway's certificate is not for the name %s"),
    ("has expired", "the gateway's certificate has expired (or this node's clock is wrong)"),
    ("in the future", "the gateway's certificate is not valid yet (or this node's clock is wrong)"),
)

# Return codes of CONNACK [3.2.2.3]: (words, kind)
_CONNACK = {
    1: ("the gateway does not speak MQTT 3.1.1", mqtt.REFUSED),
    2: ("the gateway does not take this client id", mqtt.REFUSED),
    3: ("the gateway is not available now", mqtt.LOST),
    4: ("the gateway refused user name or password", mqtt.REFUSED),
    5: ("not authorised by the gateway", mqtt.REFUSED),
}

# wlan.status() of the ESP32 in words.
_STATUS = {
    200: "out of reach",
    201: "not found",
    202: "wrong password",
    203: "refused by the access point",
    204: "no answer to the key",
    210: "no network with this security",
    211: "no network with this security",
    212: "signal too weak",
}


def explain(e, host, port, shaking):
    """(words, kind) for an exception of connecting. shaking: it came out of the TLS handshake."""
    if isinstance(e, ValueError):
        said = str(e).replace("\n", " ").strip()
        words = [w % host if "%s" in w else w for key, w in _CERTIFICATE_WORDS if key in said]
        return "certificate error: %s" % ("; ".join(words) or said), CERTIFICATE
    at = "%s:%d" % (host, port)
    if not isinstance(e, OSError):  # MemoryError, or a fault of ours
        return "connecting to %s failed (%s: %s)" % (at, type(e).__name__, e), mqtt.LOST
    code = e.errno if isinstance(e.errno, int) else None
    if code in _ROOM:
        return NO_ROOM % e, mqtt.LOST
    if code == errno.ECONNREFUSED:
        return "refused: nothing listens on %s" % at, mqtt.LOST
    if code in _EHOSTUNREACH:
        return "no route to %s" % at, mqtt.LOST
    if code == errno.ETIMEDOUT:
        return "no answer from %s" % at, mqtt.LOST
    if shaking and code == _FATAL_ALERT:
        return "certificate error: the gateway refused this node's certificate", CERTIFICATE
    if shaking and code in mqtt.BROKEN:
        # What a refused certificate looks like if the gateway is quick to close; but also a gateway that just died.
        return "closed by the gateway in the TLS handshake: is this node's certificate known and valid?", mqtt.LOST
    return "connecting to %s failed (%s)" % (at, e), mqtt.LOST


def refused(code):
    """(words, kind) for a return code of CONNACK."""
    return _CONNACK.get(code, ("CONNACK with unknown code %d" % code, mqtt.LOST))


def unjoined(status, waited_s):
    """Words for a Wi-Fi network that was not joined in so many seconds."""
    return _STATUS.get(status, "no answer within %d s (status %s)" % (waited_s, status))
