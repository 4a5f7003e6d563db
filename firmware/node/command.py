"""Commands: strict reading and checking.

Rule: pure; time and limits are arguments. Every refusal says why, and begins with a word of the agreement in
README.md: malformed, range, expired, retained, unknown, busy. Nothing here raises, whatever the payload. In memory from
the first command on, until something else is seldom needed (see node.borrow).
"""

import binascii

from node import strictjson
from node.actuator import MODES, NAMES
from node.control import SETPOINT

MAX_BARE = 32  # bytes of `temperature:15`, white space included
MAX_JSON = 512  # bytes of a command in JSON
MAX_ID = 64  # characters
MAX_ECHO = 128  # characters of a payload repeated in an ack

VERBS = NAMES + ("identify",)
MAX_FOR_S = 43200  # an order for a time ends by itself after this at the latest


class Command:
    """One command as read. `why` is None, or the reason of its rejection; `value` the set point, the mode or None;
    `for_s`: for how many seconds the mode holds, 0 for good."""

    def __init__(self, name, echo, crc):
        self.name = name
        self.id = None
        self.echo = echo
        self.crc = crc
        self.exp = None
        self.value = None
        self.for_s = 0
        self.why = None


def printable(text, limit):
    """`text` (str or bytes) as ASCII without control characters, at most `limit` characters."""
    out = "".join([c if " " <= c <= "~" else "?" for c in (chr(b) if isinstance(b, int) else b for b in text[:limit])])
    return out + "..." if len(text) > limit else out


def parse(name, payload, retained=False):
    """Read a command. name: "UpdateTemperature" or the verb of cmd/<verb>; payload: bytes-like. Returns a Command."""
    raw = bytes(payload[: MAX_JSON + 1])
    cmd = Command(printable(name, MAX_ID), printable(raw, MAX_ECHO), binascii.crc32(raw, binascii.crc32(name.encode())))
    try:
        if name == SETPOINT and raw.lstrip()[:1] != b"{":
            cmd.value = _bare(raw)
        else:
            _document(cmd, name, raw)
    except ValueError as e:
        cmd.why = str(e)
    if retained:
        cmd.why = "retained: a command must not be retained"
    return cmd


def check(cmd, now, low, high):
    """Judge expiry (now: Unix seconds, None if unknown) and range (deg C). Returns `why`, or None."""
    if cmd.exp is not None:
        if now is None:
            return "busy: the clock is not set, so `exp` cannot be judged"
        if now >= cmd.exp:
            return "expired %d s ago" % (now - cmd.exp)
    if cmd.name == SETPOINT and not low <= cmd.value <= high:
        return "range: %s is not within %s to %s" % (_short(cmd.value), _short(low), _short(high))
    return None


def _bad(text):
    return ValueError("malformed: " + text)


def _short(number):
    return ("%.2f" % number).rstrip("0").rstrip(".") if abs(number) < 1e6 else "%g" % number


def _bare(raw):
    """The number of `temperature:15`, white space around it allowed."""
    expected = _bad("expected temperature:15, temperature:15.5 or JSON")
    text = raw.strip(b" \t\r\n")
    if len(raw) > MAX_BARE or not text.startswith(b"temperature:"):
        raise expected
    number = text[12:]
    whole, dot, part = (number[1:] if number[:1] == b"-" else number).partition(b".")
    if not 1 <= len(whole) <= 3 or len(part) > 3 or (dot and not part) or (len(whole) > 1 and whole[:1] == b"0"):
        raise expected
    for digit in whole + part:
        if not 48 <= digit <= 57:
            raise expected
    return round(float(number.decode()), 2)


def _document(cmd, name, raw):
    """Fill `cmd` from JSON. Raises ValueError with the reason."""
    if len(raw) > MAX_JSON:
        raise _bad("more than %d bytes" % MAX_JSON)
    try:
        body = strictjson.loads(raw)
    except strictjson.JSONError as e:
        raise _bad("%s" % e)
    if not isinstance(body, dict):
        raise _bad("a JSON object expected")
    if "id" in body:
        ident = body["id"]
        if not isinstance(ident, str) or not 0 < len(ident) <= MAX_ID or printable(ident, MAX_ID) != ident:
            raise _bad("id must be 1 to %d printable ASCII characters" % MAX_ID)
        cmd.id = ident
    if name != SETPOINT and name not in VERBS:
        raise ValueError("unknown command %s; known: %s" % (cmd.name, ", ".join(VERBS)))
    what = "temperature" if name == SETPOINT else "args"
    for key in body:
        if key not in ("id", "exp", what):
            raise _bad("unknown key %s" % printable(key, 32))
    if "exp" in body:
        exp = body["exp"]
        if isinstance(exp, bool) or not isinstance(exp, int) or not 0 < exp < 1 << 40:
            raise _bad("exp must be a whole number of Unix seconds")
        cmd.exp = exp
    if name == SETPOINT:
        cmd.value = _temperature(body)
        return
    if cmd.id is None:
        raise _bad("id is missing")
    _args(cmd, name, body.get("args", {}))


def _temperature(body):
    value = body.get("temperature")
    # inf is what a float makes of 1e999; check() could not print it in a helpful way.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value in (float("inf"), -float("inf")):
        raise _bad("temperature must be a number")
    return round(float(value), 2)


def _args(cmd, name, args):
    if not isinstance(args, dict):
        raise _bad("args must be an object")
    modes = MODES[NAMES.index(name)] if name in NAMES else None
    for key in args:
        if modes is None or key not in ("mode", "for_s"):
            raise _bad("unknown argument %s" % printable(key, 32))
    if modes is None:
        return
    if args.get("mode") not in modes:
        raise _bad('mode must be one of "%s"' % '", "'.join(modes))
    cmd.value = args["mode"]
    if "for_s" in args:
        cmd.for_s = args["for_s"]
        if isinstance(cmd.for_s, bool) or not isinstance(cmd.for_s, int) or not 0 < cmd.for_s <= MAX_FOR_S:
            raise _bad("for_s must be a whole number of 1 to %d" % MAX_FOR_S)
