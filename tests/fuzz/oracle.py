"""oracle.py SECONDS [SEED]: random programs on the core and on a plain Python model of a broker, side by side.

The model (tests/broker/test_broker_model.py) says who must receive what, in which order and at which QoS, and the core
must agree. The suite runs the same few thousand programs each time, this one others. A difference is printed with its
seed, which runs it again, and ends this with status 1.
"""

import secrets
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.broker.test_broker_model import Program


def main(arguments: list[str]) -> int:
    """Runs until the time is up; 0 when model and core agreed all the while."""
    seconds = float(arguments[0])
    seed = int(arguments[1]) if len(arguments) > 1 else secrets.randbits(48)
    end, programs = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            Program(seed + programs).run()
        except AssertionError as difference:
            print(f"seed {seed + programs}: {difference}")
            return 1
        programs += 1
    print(f"{programs} programs from seed {seed} on: the core does what the model says")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
