"""peanutd with a thread in it that keeps Python busy, 20 ms in every 100, for as long as somebody wants that (SIGUSR2).

    python -m tools.bench.busy --home HOME

The rule it keeps: all else is peanutd as it is; the thread holds Python's lock as the app, the history and the store do
when they have much to do, and touches nothing.
"""

import signal
import sys
import threading
import time

from peanutd.__main__ import main

PERIOD = 0.100
BUSY = 0.020


def _work(wanted: threading.Event) -> None:
    while wanted.wait():
        begun = time.monotonic()
        while time.monotonic() < begun + BUSY:
            pass
        time.sleep(PERIOD - BUSY)


def _toggle(wanted: threading.Event) -> None:
    wanted.clear() if wanted.is_set() else wanted.set()


if __name__ == "__main__":
    wanted = threading.Event()
    sys.setswitchinterval(BUSY)  # else it would give the lock away after 5 ms to whoever asks: it is to be one piece
    signal.signal(signal.SIGUSR2, lambda *_: _toggle(wanted))
    threading.Thread(target=_work, args=(wanted,), daemon=True).start()
    sys.exit(main())
