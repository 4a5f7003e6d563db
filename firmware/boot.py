"""First thing at power-up: every output of the board to its safe level, pins and chips alike.

Rule: imports nothing of ours and raises nothing, so that no fault of ours can keep a heater on. A node.json that cannot
be read does not matter either: what this file needs of the last good one it has kept in safe.json.
"""


def _safe(board):
    expanders, chains = {}, {}
    for o in board["outputs"].values():
        # `on` is the level that switches it on
        level = o.get("on", 1) if o.get("safe") == "on" else 1 - o.get("on", 1)
        try:
            if "pin" in o:
                from machine import Pin

                pin = Pin(o["pin"], Pin.OUT, value=level)  # the level before the direction, so a relay does not click
                pin.init(hold=False)  # what the life before latched goes from its level to this one, and never floats
            elif o.get("driver") == "pcf8574":
                at = (o["bus"], o["address"])
                expanders[at] = expanders.get(at, 255) & ~(1 << o["bit"]) | level << o["bit"]  # unused bits: inputs
            elif o.get("driver") == "shift595":
                high, bits = chains.get(o["bus"], (0, 0))
                chains[o["bus"]] = (max(high, o["bit"]), bits | level << o["bit"])
        except Exception as e:
            print("boot:", e)
    for name in chains:
        try:
            _shift(board["buses"][name], chains[name])
        except Exception as e:
            print("boot:", e)
    for name, address in expanders:
        try:
            from machine import Pin, SoftI2C

            bus = board["buses"][name]
            SoftI2C(scl=Pin(bus["scl"]), sda=Pin(bus["sda"])).writeto(address, bytes((expanders[name, address],)))
        except Exception as e:
            print("boot:", e)


def _shift(bus, chain):
    from machine import Pin

    data, clock, latch = [Pin(bus[k], Pin.OUT, value=0) for k in ("data", "clock", "latch")]
    for i in range(chain[0] // 8 * 8 + 7, -1, -1):
        data.value(chain[1] >> i & 1)
        clock.value(1)
        clock.value(0)
    latch.value(1)


def _board(name):
    import json

    with open(name) as f:
        return json.load(f)["board"]


def _run():
    try:
        board = _board("node.json")
        _safe(board)
    except Exception as e:  # main.py will say what is wrong with it
        print("boot:", e)
        _safe(_board("safe.json"))
        return
    kept = {"board": {"outputs": board["outputs"], "buses": board.get("buses", {})}}
    try:
        if _board("safe.json") == kept["board"]:
            return
    except Exception:
        pass
    import json
    import os

    with open("safe.tmp", "w") as f:
        f.write(json.dumps(kept))
    os.rename("safe.tmp", "safe.json")


try:
    _run()
except Exception as e:
    print("boot:", e)
for _name in ("_safe", "_shift", "_board", "_run"):
    del globals()[_name]  # the heap is for the application
