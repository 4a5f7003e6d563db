"""How much the tests try that try at random: a little in the fast suite, EFFORT times as much in `make test-long`.

Rule: a number of tries is written as the fast suite has it, and multiplied here. With an effort of 1 the same is tried
each time, so that a suite that passed passes again; with more it is something else each time.
"""

from __future__ import annotations

import os

EFFORT = int(os.environ.get("EFFORT", "1"))


def tries(few: int) -> int:
    """So many times `few`."""
    return few * EFFORT
