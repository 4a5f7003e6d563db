"""First thing at power-up: every output that is a pin to its safe level. On the simulated board there is none.

Rule: imports nothing of ours, so that no fault of ours can keep a heater on.
"""

import json

try:
    with open("node.json") as f:
        _outputs = json.load(f)["board"]["outputs"]
    for _o in _outputs.values():
        if "pin" in _o:
            from machine import Pin

            # `on` is the level that switches it on; value= is set before the direction, so a relay does not click
            Pin(_o["pin"], Pin.OUT, value=_o.get("on", 1) if _o.get("safe") == "on" else 1 - _o.get("on", 1))
except Exception as e:  # main.py will say what is wrong with the configuration
    print("boot:", e)
