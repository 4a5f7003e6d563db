"""Runs the node, and says of every end why: to the log, to the black box, and so to the gateway after the next start.

Rule: Ctrl-C is no planned end. On the unix port it strikes in the middle of anything, TLS included, so all that is
done then is to switch off; the gateway publishes the will. On a PC the node ends in order at the end of its input, if
PEANUT_STOP=stdin is set.
"""

import asyncio
import gc
import os
import sys

from node import ConfigError, forget, hardware, log
from node.blackbox import CRASHES_TO_OTHER, CRASHES_TO_RESCUE, BlackBox

GARBAGE = 4096  # bytes; to collect less of it at a time would take too long
BENCH_MS = 3600000  # a watchdog cannot be stopped, so whoever interrupts the node gets an hour


async def _input_ends():
    """Over when whoever started this node closes its standard input, or is gone."""
    reader = asyncio.StreamReader(sys.stdin)
    while await reader.read(64):
        pass


def run():
    """Returns after a planned stop and after Ctrl-C; every other end is a reset. On the unix port a configuration
    that cannot be used ends the program with status 2."""
    from node import powerup

    box = BlackBox(hardware.memory, powerup.cause())
    log.keep = box.line
    _judge(box)
    if box.crashes >= CRASHES_TO_RESCUE:
        import rescue

        rescue.run(box)
    app = None
    try:
        app = _app(box)
        gc.threshold(max(GARBAGE, gc.mem_free() // 2))  # before it is full, or what stays would lie all over it
        why = asyncio.run(app.run(_input_ends if _on_a_pc() else None))
    except KeyboardInterrupt:
        if app is not None:
            app.safe()
        hardware.watchdog(BENCH_MS)
        log.warn("app", "interrupted: outputs off")
        return
    except Exception as e:
        if app is not None:
            app.safe()
        box.ending("%s: %s" % (type(e).__name__, e))
        import choice

        if choice.back("%s: %s" % (type(e).__name__, e), True):  # an update that was only to be tried
            log.fault("update", "it fails, and what was before returns", e)
            hardware.reset()
        if isinstance(e, ConfigError):
            for line in str(e).split("\n"):
                log.error("config", line)
            from node import powerup

            powerup.halt(2)
        log.fault("app", "the node ends", e)
        sys.print_exception(e)
        hardware.reset()
    if why is not None:
        box.ending(why, planned=True)
        hardware.reset()


def _judge(box):
    """Whether the application that is here is the one to run."""
    import choice

    other = choice.judge(box, CRASHES_TO_OTHER)
    forget("choice")
    if other:
        hardware.reset()


def _app(box):
    """The application of the kind of node that this is: of the profiles, a node has its own and no other."""
    try:
        from profiles import greenhouse as profile
    except ImportError:
        from profiles import vehicle as profile
    app = profile.app(box)
    forget(profile.__name__)
    return app


def _on_a_pc():
    return hasattr(os, "getenv") and os.getenv("PEANUT_STOP") == "stdin"
