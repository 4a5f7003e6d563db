"""Whether a vehicle's gate (signed.py) still tells commands from forgeries: what an update must not have broken.

Rule: pure. The gate is one of its own with no relay behind it; the command was signed elsewhere, by the fleet's code,
with a key that is no secret, so that a mistake which signs as wrongly as it verifies is seen. In memory once in a life,
and only if there is an update (see node.forget).
"""

from node import signed

KEY = bytes(range(32))
VIN = "11111111111111111"
COMMAND = '{"id":"p","cmd":"unlock","epoch":"proof","ctr":1,"exp":9,"args":"","sig":"%s"}'
SIGNATURE = "cce0347d2132721d9595c97feb6cead004b4ad9446758f6f7f8f8ada62263339"


def faults():
    """[], or ["gate"] if it does not do what it is for."""
    try:
        return [] if _works() else ["gate"]
    except Exception:  # whatever it is: no command gets past it
        return ["gate"]


def _works():
    stored = []
    gate = signed.Gate(KEY, VIN, "proof", 0, stored.append)
    good = (COMMAND % SIGNATURE).encode()
    forged = (COMMAND % (SIGNATURE[:-1] + "0")).encode()
    for payload, up_s, word in ((forged, 1, "bad_sig"), (good, 9, "expired")):
        if not (gate.judge("unlock", payload, False, 0, up_s).why or "").startswith(word):
            return False
    first = gate.judge("unlock", good, False, 0, 1)
    again = gate.judge("unlock", good, False, 0, 1)
    return first.why is None and not first.again and again.again and stored == [1]
