"""Runs the node. On a PC it ends in order at the end of its input, if PEANUT_STOP=stdin is set.

Rule: Ctrl-C is no planned end. On the unix port it strikes in the middle of anything, TLS included, so all that is
done then is to switch off; the gateway publishes the will.
"""

import asyncio
import os
import sys

from profiles import greenhouse

from node import config, hardware, link, log
from node.app import App


async def _input_ends():
    """Over when whoever started this node closes its standard input, or is gone."""
    reader = asyncio.StreamReader(sys.stdin)
    while await reader.read(64):
        pass


def run():
    """Returns after a planned stop. A configuration that cannot be used is logged and ends the program: status 2."""
    try:
        app = App(greenhouse)
    except (config.ConfigError, link.LinkError) as e:
        for line in str(e).split("\n"):
            log.error("config", line)
        sys.exit(2)
    stopping = None
    if hasattr(os, "getenv") and os.getenv("PEANUT_STOP") == "stdin":
        stopping = _input_ends
    try:
        if asyncio.run(app.run(stopping)) is not None:
            hardware.reset()
    except KeyboardInterrupt:
        app.safe()
        log.warn("app", "interrupted: outputs off")
