"""Runs on the unix port, in a node's work directory: commands and turns of the control loop by the thousand through the
whole app with all its tasks, and what the heap says.

The gateway is a stream in memory: it acknowledges what the node sends and feeds it commands as fast as they are taken.
Each turn of the control loop is a second of its time. Prints the bytes in use after half of them and after all, and how
often each stage was answered. plan.json says how many, and whether the heap is cut to pieces of BLOCK bytes then: more
messages show that nothing larger is ever asked for, nor for a configuration, nor for an update.
"""

import asyncio
import gc
import json

from node import forget, log
from node.blackbox import BlackBox

with open("plan.json") as f:
    plan = json.load(f)
TOTAL = plan["messages"]
TURNS = plan["turns"]
PIECES = plan["pieces"]  # messages in a heap of pieces
BLOCK = 2048  # bytes, of a heap whose words are twice as wide as the chip's
if PIECES:
    import memory_pieces as pieces
faults = []
log.print = lambda line: faults.append(line) if " error " in line else None


def publish(i):
    topic = b"/plant/peanut/UpdateTemperature"
    # Ten set points in all: more changes would be refused, and a refusal costs less memory than a change.
    body = b'{"temperature":%d,"id":"m%d"}' % (10 + min(9, i * 10 // TOTAL), i)
    rest = len(topic).to_bytes(2, "big") + topic + (i % 65535 + 1).to_bytes(2, "big") + body
    return b"\x32" + bytes((len(rest),)) + rest


class Stream:
    def __init__(self):
        self._inward = bytearray(b"\x20\x02\x00\x00")
        self._count = 0
        self._pubacks = 0
        self._stages = {}
        self._marks = (TOTAL // 2, TOTAL) + ((TOTAL + PIECES,) if PIECES else ()) + (None,)
        self._over = asyncio.Event()
        self._alloc = []
        self._held = 0  # bytes of the pieces

    async def readinto(self, view):
        while not self._inward:
            if self._marks[len(self._alloc)] is None:
                return 0
            # Lets the node answer now and then, else it would say `busy` 10,000 times.
            await asyncio.sleep_ms(1 if self._count % 8 == 0 else 0)
            if self._pubacks == self._count == self._marks[len(self._alloc)]:
                while turns[0] < TURNS * min(2, len(self._alloc) + 1) // 2:
                    await asyncio.sleep_ms(5)
                await asyncio.sleep_ms(500)  # what is under way has arrived: like is compared with like
                gc.collect()
                self._alloc.append(gc.mem_alloc() - self._held)
                if len(self._alloc) == 2 and PIECES:
                    self._held, self._pieces = pieces.cut(BLOCK)
            if self._count < TOTAL + PIECES and self._pubacks == self._count:
                self._inward.extend(publish(self._count))
                self._count += 1
        n = min(len(view), len(self._inward))
        view[:n] = self._inward[:n]
        self._inward = self._inward[n:]
        return n

    async def write(self, data):
        kind = data[0] >> 4
        if kind == 8:
            codes = b""
            head = 2 if data[1] < 128 else 3
            at = head + 2
            while at < len(data):
                at += 3 + int.from_bytes(data[at : at + 2], "big")
                codes += b"\x01"
            self._inward.extend(b"\x90" + bytes((2 + len(codes),)) + data[head : head + 2] + codes)
        elif kind == 4:
            self._pubacks += 1
        elif kind == 3 and data[0] & 6:
            at = 2 if data[1] < 128 else 3
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            self._inward.extend(b"\x40\x02" + data[end : end + 2])
            if bytes(data[at + 2 : end]).endswith(b"/ack"):
                stage = json.loads(bytes(data[end + 2 :]))["stage"]
                self._stages[stage] = self._stages.get(stage, 0) + 1

    def close(self):
        self._over.set()


turns = [0]


async def main():
    gc.collect()
    from profiles import greenhouse

    app = greenhouse.app(BlackBox(lambda *_: b"", "power"))
    forget("profiles.greenhouse")
    del greenhouse
    app._time.period_ms = 0

    def turn():
        turns[0] += 1
        app._time.now = (app._time.now + 1000) & ((1 << 30) - 1)
        return app._time.now

    app._time.turn = turn
    stream = Stream()

    gc.threshold(max(4096, gc.mem_free() // 2))  # as node/start.py
    if PIECES:
        pieces.name()
        # Only what handles the messages, so that nothing else lies between the pieces.
        tasks = [asyncio.create_task(w(app._vitals.watch("x", 1000))) for w in (app._control, app._answers)]
        end = (await app._client.run(stream))[1]
        for task in tasks:
            task.cancel()
    else:

        async def opened():
            if stream._over.is_set():
                await asyncio.sleep(3600)
            return stream

        app._link._open = opened
        await app.run(stream._over.wait)
        end = app._link.words
    gc.collect()
    out = {
        "end": end,
        "alloc": stream._alloc,
        "stages": stream._stages,
        "free": gc.mem_free(),
        "turns": turns[0],
        "faults": faults[:3],
    }
    if PIECES:
        # In what is left of the heap, and in its pieces, the node still judges a configuration, and takes an update.
        out.update(pieces.use(app))
    print(json.dumps(out))


asyncio.run(main())
