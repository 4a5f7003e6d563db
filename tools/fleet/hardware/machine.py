"""`machine` under a node on this PC: RTC memory that outlives a reset, a cause of the start, a reset.

Rule: it is the chip, not a stand-in for anything of ours. RTC memory is a file beside the node's flash, which a power cut
(Node.kill) takes away; after a reset the fleet tool starts the process again. There is no watchdog: the virtual board
has one that bites.
"""

import sys

PWRON_RESET, HARD_RESET, WDT_RESET = 1, 2, 3
RESTART = 3  # exit status of reset(), which tools/fleet/node.py knows

_CAUSE = {"power": PWRON_RESET, "reset": HARD_RESET, "watchdog": WDT_RESET}[sys.argv[2]]


class RTC:
    def memory(self, data=None):
        try:
            with open("/rtc.mem", "rb" if data is None else "wb") as f:
                return f.read() if data is None else f.write(data)
        except OSError:
            return b""


def reset_cause():
    return _CAUSE


def reset():
    sys.exit(RESTART)
