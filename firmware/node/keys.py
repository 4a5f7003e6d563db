"""The node's key and certificates: the bundle that it was flashed with, two slots for what the gateway sends in their
place, and the TLS context made of those that are in force.

Rule: verification is always set. What is sent goes into the slot that is not in force, whole or not at all, and is on
trial until there was a session with it; without one in TRIES starts, or in time, what was before returns. A bundle
with a newer certificate than the slots' counts: who flashes a node means it. No key is ever told.

In memory at the start and while a certificate is renewed only (see node.forget).

A slot is {"gen", "hash", "trial", "key", "cert", "ca"}: trial is 0 once it has proved itself, the number of starts
while on trial, and the reason if it was given up; cert, key and each of ca are DER in base64.
"""

import binascii
import hashlib

from node import ConfigError, log, slots, strictjson

MAX_SIZE = 3584  # bytes of what the gateway sends
MAX_PART = 1024  # bytes of a certificate or a key
MAX_ROOTS = 2  # the old one and the new one, while the fleet changes from one to the other
TRIES = 3  # starts on trial without a session

_PARTS = ("key", "cert")


class Keys:
    """read: function (file name) -> bytes, of the bundle. errors: why something was refused or given up."""

    def __init__(self, read, paths=("cert.a", "cert.b")):
        self._read = read
        self._paths = paths
        self._slots = [slots.read(path) for path in paths]
        self.slot = None  # the one in force; None: the bundle is
        self.errors = []

    def choose(self, start=False):
        """What is in force: (certificate, key, roots), each in DER. `start` counts as one on trial, where there is one.

        Raises OSError if there is no bundle.
        """
        bundle = self._read("cert.der")
        since = validity(bundle)[0]
        self.errors = []
        for slot in sorted([s for s in self._slots if s], key=lambda s: -s["gen"]):
            cert = _der(slot["cert"])
            if validity(cert)[0] < since:
                continue
            self.slot = slot
            if slot["trial"] in range(1, TRIES + 2) and start:
                self.mark("no session in %d starts" % TRIES if slot["trial"] > TRIES else slot["trial"] + 1)
            if not isinstance(slot["trial"], str):
                return cert, _der(slot["key"]), [_der(root) for root in slot["ca"]]
            self.errors = ["%s: %s" % (serial(cert), slot["trial"])]
        self.slot = None
        return bundle, self._read("key.der"), [self._read("ca.der")]

    @property
    def trial(self):
        """Whether what is in force must still prove itself by a session."""
        return self.slot is not None and self.slot["trial"] in range(1, TRIES + 2)

    def mark(self, trial):
        """The trial of what is in force is over: 0, there is a session; or a reason, and the next `choose` gives what
        was before. Or it goes on: the number of the start."""
        self.slot["trial"] = trial
        if isinstance(trial, str):
            log.warn("keys", "the new certificate is given up: " + trial)
        try:
            slots.write(self._paths[self._slots.index(self.slot)], self.slot)
        except OSError as e:
            log.error("keys", "cannot be stored (%s)" % e)

    def take(self, payload, uri):
        """Judge what the gateway has sent and store it; what it leaves out stays as it is. Returns whether there is
        something new to try. uri: the name that the certificate must have in it.

        Raises ValueError (what is wrong) or OSError (it cannot be stored).
        """
        if len(payload) > MAX_SIZE:
            raise ValueError("more than %d bytes" % MAX_SIZE)
        digest = binascii.hexlify(hashlib.sha256(payload).digest()[:8]).decode()
        for slot in self._slots:
            if slot and slot["hash"] == digest:  # known; if it was given up, `errors` says so
                self._counts(_der(slot["cert"]))
                return False
        cert, key, roots = self.choose()
        if self.trial:
            raise ValueError("busy: another certificate is on trial")
        slot = {"hash": digest, "trial": 1, "cert": _b64(cert), "key": _b64(key), "ca": [_b64(root) for root in roots]}
        body = strictjson.loads(payload)
        if not isinstance(body, dict) or not body or [k for k in body if k not in slot or k in ("hash", "trial")]:
            raise ValueError("key, cert and ca are expected")
        slot.update(body)
        if [name in body for name in _PARTS] not in ([True, True], [False, False]):
            raise ValueError("key and cert belong together")
        if not isinstance(slot["ca"], list) or not 0 < len(slot["ca"]) <= MAX_ROOTS:
            raise ValueError("ca: 1 to %d roots are expected" % MAX_ROOTS)
        for part in [slot[name] for name in _PARTS] + slot["ca"]:
            if not isinstance(part, str) or not 0 < len(_der(part)) <= MAX_PART or _der(part)[0] != 0x30:
                raise ValueError("DER of at most %d bytes in base64 is expected" % MAX_PART)
        cert = _der(slot["cert"])
        if uri.encode() not in cert or not validity(cert)[1]:
            raise ValueError("a certificate for %s is expected" % uri)
        self._counts(cert)
        slot["gen"] = 1 + max([0] + [s["gen"] for s in self._slots if s])
        i = 1 if self.slot is not None and self.slot is self._slots[0] else 0
        slots.write(self._paths[i], slot)
        self._slots[i] = slot
        log.info("keys", "certificate %s is stored, and to be tried" % serial(cert))
        return True

    def _counts(self, cert):
        """Raises ValueError if the bundle goes before it, so that it would never be in force: told by its serial
        number, by which the gateway knows that this one has failed."""
        if validity(cert)[0] < validity(self._read("cert.der"))[0]:
            raise ValueError(serial(cert) + ": older than what was flashed: the issuer's clock was set back")

    def told(self):
        """For <root>/cert/reported."""
        errors = self.errors  # of a refusal: `choose` would forget it
        cert, _, roots = self.choose()
        ca = [binascii.hexlify(hashlib.sha256(root).digest()[:8]).decode() for root in roots]
        return {"serial": serial(cert), "trial": self.trial, "errors": errors or self.errors, "ca": ca}


def context(read):
    """(the TLS context, the validity of this node's certificate, Keys.told(), whether it is on trial): made once, kept
    for life (it costs memory).

    read: function (file name) -> bytes. Raises ConfigError naming the file that cannot be used.
    """
    import tls  # what MicroPython's ssl is made of; that module and its objects would stay in memory, too

    keys = Keys(read)
    while True:
        ctx = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        ctx.verify_mode = tls.CERT_REQUIRED
        try:
            cert, key, roots = keys.choose(True)
            ctx.load_cert_chain(cert, key)
            for root in roots:
                ctx.load_verify_locations(root)
        except (OSError, ValueError) as e:
            if keys.slot is None:
                raise ConfigError(
                    "key.der, cert.der or ca.der cannot be used (%s): put the device bundle on this node" % e
                )
            keys.mark("cannot be used (%s)" % e)
            continue
        return ctx, validity(cert), keys.told(), keys.trial


def judge(read, payload, uri):
    """Take what the gateway has sent. Returns (what is to be reported, whether it is to be tried by a restart)."""
    keys = Keys(read)
    new = False
    try:
        new = keys.take(payload, uri)
    except (OSError, ValueError, MemoryError) as e:
        keys.errors = [str(e)]
        log.warn("keys", "refused: %s" % e)
    told = keys.told()
    if new:
        told["trial"] = True
    return told, new


def settle(read, trial):
    """The end of a trial, see Keys.mark. Returns as `judge`."""
    keys = Keys(read)
    keys.choose()
    if keys.trial:
        keys.mark(trial)
    return keys.told(), trial != 0


def _der(text):
    try:
        return binascii.a2b_base64(text)
    except (TypeError, ValueError):
        return b""


def _b64(der):
    return binascii.b2a_base64(der).decode().strip()


def serial(cert):
    """The serial number of a certificate in DER, in hexadecimal digits without leading zeros; "" if it is not found."""
    at = cert.find(b"\xa0\x03\x02\x01\x02\x02")  # version 3, and the integer behind it
    if at < 0 or at + 7 > len(cert):
        return ""
    return binascii.hexlify(cert[at + 7 : at + 7 + cert[at + 6]]).decode().lstrip("0")


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
