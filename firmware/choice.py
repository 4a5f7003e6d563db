"""Which application a start runs: the one that `peanut flash` wrote (slot ""), or one that came over the air (a, b).

Rule: one application runs whole: sys.path has the folder of its slot and of no other. slot.json is written whole or
not at all, and what is damaged in it means the application of `peanut flash`, which is never replaced over the air.
A slot on trial has so many starts to prove itself; then, and when it fails, the one before it returns.

slot.json: {"run": [slot, seq, version]      in force
            "old": [slot, seq, version]      what was before, if it is still there
            "trial": [slot, seq, version, starts left, faults that there were before]
            "gone": [seq, why]               what was given up last
            "image": [label, seq, version]   the MicroPython image on trial, or in force}
"""

import json
import os

FILE = "slot.json"
STARTS = 3  # of a slot on trial
FACTORY = ["", 0, ""]


def read():
    """slot.json; of a node that never had an update, or whose slot.json is damaged, what `peanut flash` wrote."""
    try:
        with open(FILE) as f:
            s = json.load(f)
        for key in ("run", "old", "trial"):
            if s.get(key, FACTORY)[0] not in ("", "a", "b"):
                raise ValueError
        s["run"][2]
        return s
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {"run": FACTORY}


def write(s):
    """Raises OSError; what was before is there then."""
    with open(FILE + ".tmp", "w") as f:
        f.write(json.dumps(s))
    os.rename(FILE + ".tmp", FILE)


def pick():
    """The folder that this start imports from, for sys.path. Called once a start: it counts those of a trial."""
    s = read()
    trial = s.get("trial")
    if trial:
        try:
            if trial[3] > 0:
                trial[3] -= 1
                write(s)  # before it runs: whatever it does, it has had this start
                return "/" + trial[0]
        except OSError:
            pass  # a start that cannot be counted is not given
        else:
            back("no proof in %d starts" % STARTS)
    return s["run"][0] and "/" + s["run"][0]


def begin(slot, seq, version, faults):
    """The next start is the first of this slot's trial. faults: words for what is wrong already. Raises OSError."""
    s = read()
    s["trial"] = [slot, seq, version, STARTS, faults]
    write(s)


def commit():
    """The slot on trial is in force. Raises OSError."""
    s = read()
    if "trial" not in s:
        raise OSError("slot.json cannot be read")
    s["old"] = s["run"]
    s["run"] = s.pop("trial")[:3]
    s.pop("gone", None)
    write(s)


def back(why, trial=False):
    """Give up what runs. True: a reset starts what was before. trial: only if it is on trial. Never raises: where it
    cannot be written, a trial still has its other starts, and no more."""
    s = read()
    if "trial" in s:
        gone = s.pop("trial")
    elif trial or not s["run"][0]:
        return False
    else:
        gone = s["run"]
        s["run"] = s.pop("old", FACTORY)
    s["gone"] = [gone[1], why[:120]]
    try:
        write(s)
    except OSError:
        return False
    return True


def judge(box, most):
    """At the start: crashes in a row are the fault of what runs. True: a reset starts what was before.

    box: node.blackbox.BlackBox; most: crashes.
    """
    if "trial" in read():
        box.crashes = 0  # it has its own count, of starts
    elif box.crashes < most or not back("%d crashes in a row: %s" % (box.crashes, box.was)):
        return False
    else:
        box.crashes = 0
        box.ending("update: what was before returns", planned=True)
        return True
    box.save()
    return False


def spare():
    """The slot that an update is received into. It is no longer what could return. Raises OSError."""
    s = read()
    slot = "b" if s["run"][0] == "a" else "a"
    if s.get("old", FACTORY)[0] == slot:
        s["old"] = FACTORY
        write(s)
    return slot
