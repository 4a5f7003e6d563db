"""The gate of a vehicle: which command may act. None does twice, late, for another car, or without the key.

Rule: pure; time is an argument, and it is the vehicle's own, so that no clock anybody can set opens a door. The checks
go from cheap to dear; the counter is stored after the last of them and before the act, so that a forger cannot burn
counters and a power cut cannot make a command act again. What is refused is told why in a word of agreement 2.

    key of commands   HMAC(device key, "vin-cmd-v1")          key of receipts   HMAC(device key, "vin-ack-v1")
    a command's sig   over  v1|VIN|id|cmd|epoch|ctr|exp|args            hexadecimal, as are all of them
    a receipt's sig   over  v1|VIN|id|stage|why|sha256(payload of the command)
    a session's sig   over  v1|VIN|epoch|ctr|up, with the key HMAC(device key, "vin-session-v1")
"""

import binascii
import hashlib

from node import strictjson, ticks
from node.hmac import Hmac, equal

MAX_SIZE = 512  # bytes of a command
MAX_TEXT = 64  # characters of id and args
AHEAD_S = 30  # a command may be valid for at most so long, by the vehicle's clock
FORGED = 5  # bad signatures within FORGED_MS lock remote commands out for LOCKED_MS
FORGED_MS = 60000
LOCKED_MS = 60000
REPEATS = 8  # commands whose repetition is answered again instead of refused
VERBS = ("unlock", "lock", "start", "stop", "horn")

_FIELDS = ("id", "cmd", "epoch", "ctr", "exp", "args", "sig")  # in the order in which they are signed


class Order:
    """A command that was looked at. `why` is None if it may act, or the reason of its rejection.

    again: the very same command was judged before; it must be answered as `answer` = (stage, why), without an act.
    """

    def __init__(self, verb, payload):
        self.verb = verb
        self.id = ""
        self.args = ""
        self.echo = ""  # of the payload, for the answer to what has no id
        self.ctr = self.exp = None  # of what is signed
        self.digest = binascii.hexlify(hashlib.sha256(payload).digest()).decode()
        self.why = None
        self.again = False
        self.answer = None


class Gate:
    """Judges commands for one vehicle, from one boot to the next."""

    def __init__(self, key, vin, epoch, counter, keep):
        """key: the device key, 32 bytes; epoch: text, new at every boot; counter: the highest that was ever accepted.

        keep: function (counter) that stores it for good; it may raise OSError, and then the command does not act.
        """
        self._vin = vin
        self._commands = Hmac(Hmac(key).sign(b"vin-cmd-v1"))
        self._receipts = Hmac(Hmac(key).sign(b"vin-ack-v1"))
        self._sessions = Hmac(Hmac(key).sign(b"vin-session-v1"))
        self.epoch = epoch
        self.counter = counter
        self._keep = keep
        self._forged = []  # ticks of the last bad signatures
        self._locked = None  # ticks since which nothing is judged
        self._known = []  # [digest, stage, why, id, verb] of accepted commands, oldest first
        self.alarm = False  # a lock-out has begun; who has told it sets it back

    def judge(self, verb, payload, retained, now, up_s):
        """Look at a command. now: ticks; up_s: whole seconds since the boot. Returns an Order, and never raises."""
        order = Order(verb, b"" if len(payload) > MAX_SIZE else bytes(payload))
        try:
            order.why = self._check(order, payload, retained, now, up_s)
        except ValueError as e:
            order.why = "malformed: %s" % e
        return order

    def locked(self, now):
        """For how many more seconds nothing is judged, 0 if it is."""
        if self._locked is not None:
            left = LOCKED_MS - ticks.diff(now, self._locked)
            if 0 < left <= LOCKED_MS:
                return (left + 999) // 1000
            self._locked = None
            self._forged = []
        return 0

    def answered(self, order, stage, why=None):
        """Remember how an accepted command was answered last, for its repetitions."""
        for entry in self._known:
            if entry[0] == order.digest:
                entry[1] = stage
                entry[2] = why

    def receipt(self, order, stage, why):
        """The signature of an answer: proof that this vehicle gave it to exactly this command."""
        parts = ("v1", self._vin, order.id, stage, why or "", order.digest)
        return binascii.hexlify(self._receipts.sign("|".join(parts).encode())).decode()

    def session(self, up_s):
        """What the next command must be signed for. Signed itself: who could tell a signer another time or counter
        would be given a command to keep for that time, or one that uses all counters up."""
        body = {"epoch": self.epoch, "ctr": self.counter, "up": up_s}
        text = "v1|%s|%s|%d|%d" % (self._vin, self.epoch, self.counter, up_s)
        body["sig"] = binascii.hexlify(self._sessions.sign(text.encode())).decode()
        return body

    def _check(self, order, payload, retained, now, up_s):
        if len(payload) > MAX_SIZE:
            return "malformed: more than %d bytes" % MAX_SIZE
        if retained:
            return "retained: a command must not be retained"
        for digest, stage, why, ident, verb in self._known:
            if digest == order.digest and verb == order.verb:
                order.again = True
                order.id = ident
                order.answer = (stage, why)
                return None
        body = self._read(payload)
        order.id = body["id"]  # so that its sender hears why
        order.args = body["args"]
        left = self.locked(now)
        if left:
            return "busy: locked for %d s after forged commands" % left
        if body["cmd"] != order.verb:
            return "malformed: the command says %s" % body["cmd"]
        if order.verb not in VERBS:
            return "unknown command %s; known: %s" % (order.verb, ", ".join(VERBS))
        if body["epoch"] != self.epoch:
            return "replay: of an earlier boot, or of another vehicle"
        if body["ctr"] <= self.counter:
            return "replay: counter %d has been used" % body["ctr"]
        if body["exp"] <= up_s:
            return "expired %d s ago" % (up_s - body["exp"])
        if body["exp"] > up_s + AHEAD_S:
            return "range: valid for more than %d s" % AHEAD_S
        parts = ["v1", self._vin] + [str(body[key]) for key in _FIELDS[:-1]]
        wanted = binascii.hexlify(self._commands.sign("|".join(parts).encode()))
        if not equal(wanted, body["sig"].encode()):
            return self._forgery(now)
        try:
            self._keep(body["ctr"])
        except OSError as e:
            return "busy: the counter cannot be stored (%s)" % e
        order.ctr = self.counter = body["ctr"]
        order.exp = body["exp"]
        if len(self._known) >= REPEATS:
            self._known.pop(0)
        self._known.append([order.digest, "accepted", None, order.id, order.verb])
        return None

    def _forgery(self, now):
        self._forged = [then for then in self._forged if 0 <= ticks.diff(now, then) < FORGED_MS] + [now]
        if len(self._forged) >= FORGED:
            self._locked = now
            self.alarm = True
        return "bad_sig: the signature is not right"

    def _read(self, payload):
        """The document, every field of its type. Raises ValueError."""
        body = strictjson.loads(payload)
        if not isinstance(body, dict):
            raise ValueError("a JSON object expected")
        for key in body:
            if key not in _FIELDS:
                raise ValueError("unknown key")
        for key in _FIELDS:
            value = body.get(key)
            if key == "ctr" or key == "exp":
                if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 53:
                    raise ValueError("%s must be a whole number above 0" % key)
                continue
            # A field that held the separator could be cut in two ways, and one signature would fit both.
            if not isinstance(value, str) or len(value) > MAX_TEXT or "|" in value:
                raise ValueError("%s must be a text of at most %d characters without |" % (key, MAX_TEXT))
            for c in value:
                if not " " <= c <= "~":
                    raise ValueError("%s must be printable ASCII" % key)
        if not body["id"]:
            raise ValueError("id is empty")
        return body
