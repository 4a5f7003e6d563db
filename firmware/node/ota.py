"""Updates over the air, as much of them as is always in memory: whom a message is for, and what there is to tell.

Rule: small. The work is done by node/update.py and what it asks for, in memory only while there is an update. A node
whose update fails in whatever way runs on as it is.
"""

import asyncio

from node import borrow, clock, forget

STEP_MS = 20  # between two pieces of work
BUSY_MS = 60  # between two looks whether there is more to ask for
IDLE_MS = 250
HELPERS = ("node.update", "node.receive", "node.image", "node.trial", "choice")


class Ota:
    def __init__(self, app):
        self._app = app
        self._job = None  # node.update.Job, while there is something to do
        self._told = None  # what is to be told on <root>/ota/status: (payload, whether it is retained)

    def _begin(self):
        borrow()  # its room
        from node import update

        self._job = update.Job(self._app)

    def desired(self, payload, retained):
        """An offer; an empty one takes back what was offered."""
        if self._job is None:
            self._begin()
        self._job.desired(bytes(payload), clock.now())

    def chunk(self, payload, retained):
        if self._job is not None:
            self._job.chunk(payload, clock.now())

    async def run(self, pulse):
        self._begin()
        self._job.begin(clock.now())
        while True:
            soon = False
            if self._job is not None:
                soon = self._job.step(clock.now())
                self._told = self._job.tell() or self._told
                if self._job.over:
                    self._job = None
                    forget(*HELPERS)
            told = self._told
            if told and self._app._client.ready and await self._app._send("ota/status", told[0], 1, told[1]):
                self._told = None
            pulse.beat(clock.now())
            await asyncio.sleep_ms(STEP_MS if soon else IDLE_MS if self._job is None else BUSY_MS)
