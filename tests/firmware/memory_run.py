"""Runs on the unix port, in a node's work directory: 10,000 commands and 100,000 turns of the control loop through the
whole app, and what the heap says.

The gateway is a stream in memory: it acknowledges what the node sends and feeds it commands as fast as they are taken.
Each turn of the control loop is a second of its time. Prints the bytes in use after half of them and
after all, and how often each stage was answered. Then the heap is cut to pieces of BLOCK bytes, and 1,000 more messages
show that nothing larger is ever asked for, nor for a configuration.
"""

import asyncio
import gc
import json

from node import log
from node.blackbox import BlackBox
from node.greenhouse import Greenhouse
from profiles import greenhouse

TOTAL = 10000
TURNS = 100000
BLOCK = 2048  # bytes, of a heap whose words are twice as wide as the chip's
PIECES = 1000  # messages in a heap of pieces
faults = []
log.print = lambda line: faults.append(line) if " error " in line else None


def publish(i):
    topic = b"/plant/peanut/UpdateTemperature"
    # Ten set points in all: more changes would be refused, and a refusal costs less memory than a change.
    body = b'{"temperature":%d,"id":"m%d"}' % (10 + i // 1000, i)
    rest = len(topic).to_bytes(2, "big") + topic + (i % 65535 + 1).to_bytes(2, "big") + body
    return b"\x32" + bytes((len(rest),)) + rest


class Stream:
    def __init__(self):
        self.inward = bytearray(b"\x20\x02\x00\x00")
        self.count = 0
        self.pubacks = 0
        self.stages = {}
        self.marks = (TOTAL // 2, TOTAL, TOTAL + PIECES, None)
        self.alloc = []
        self.pieces = []
        self.held = 0  # bytes of them

    async def readinto(self, view):
        while not self.inward:
            if len(self.alloc) == 3:
                return 0
            # Lets the node answer now and then, else it would say `busy` 10,000 times.
            await asyncio.sleep_ms(1 if self.count % 8 == 0 else 0)
            if self.pubacks == self.count == self.marks[len(self.alloc)]:
                while turns[0] < TURNS * min(2, len(self.alloc) + 1) // 2:
                    await asyncio.sleep_ms(5)
                await asyncio.sleep_ms(500)  # what is under way has arrived: like is compared with like
                gc.collect()
                self.alloc.append(gc.mem_alloc() - self.held)
                if len(self.alloc) == 2:
                    self.cut()
            if self.count < TOTAL + PIECES and self.pubacks == self.count:
                self.inward.extend(publish(self.count))
                self.count += 1
        n = min(len(view), len(self.inward))
        view[:n] = self.inward[:n]
        self.inward = self.inward[n:]
        return n

    def cut(self):
        """Leave no free block larger than BLOCK: fill the heap with such, and free every other one."""
        try:
            while True:
                self.pieces.append(bytearray(BLOCK))
        except MemoryError:
            pass
        for i in range(0, len(self.pieces), 2):
            self.pieces[i] = None
        gc.collect()
        self.held = gc.mem_alloc() - self.alloc[1]

    async def write(self, data):
        kind = data[0] >> 4
        if kind == 8:
            codes = b""
            head = 2 if data[1] < 128 else 3
            at = head + 2
            while at < len(data):
                at += 3 + int.from_bytes(data[at : at + 2], "big")
                codes += b"\x01"
            self.inward.extend(b"\x90" + bytes((2 + len(codes),)) + data[head : head + 2] + codes)
        elif kind == 4:
            self.pubacks += 1
        elif kind == 3 and data[0] & 6:
            at = 2 if data[1] < 128 else 3
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            self.inward.extend(b"\x40\x02" + data[end : end + 2])
            if bytes(data[at + 2 : end]).endswith(b"/ack"):
                stage = json.loads(bytes(data[end + 2 :]))["stage"]
                self.stages[stage] = self.stages.get(stage, 0) + 1

    def close(self):
        pass


turns = [0]


def receive(app):
    """Take in made.update, from its offer to the restart; the last word on it."""
    from node import update

    app._idle = lambda: True
    job = update.Job(app)
    now = 0
    told = None
    with open("made.update", "rb") as f:
        job.desired(f.readline() + f.readline().strip(), now)
        start = f.tell()
        while not job.over:
            now += 20
            job.step(now)
            told = job.tell() or told
            if told is not None and '"receiving"' in told[0]:
                body = json.loads(told[0])
                told = None
                for place in range(body["at"], min(body["at"] + 4096, body["of"]), 1024):
                    f.seek(start + place)
                    job.chunk(job._receiver.id + place.to_bytes(4, "big") + f.read(1024), now)
    return told[0]


async def main():
    gc.collect()
    app = Greenhouse(greenhouse, BlackBox(lambda *_: b"", "power"))
    tasks = [asyncio.create_task(w(app._vitals.watch("x", 1000))) for w in (app._control, app._answers)]
    app._time.period_ms = 0

    def turn():
        turns[0] += 1
        app._time.now = (app._time.now + 1000) & ((1 << 30) - 1)
        return app._time.now

    app._time.turn = turn
    stream = Stream()
    end = await app._client.run(stream)
    for task in tasks:
        task.cancel()
    gc.collect()
    # In what is left of the heap, and in its pieces, the node still judges a configuration.
    app.restart = lambda why: None
    app._configure(b'{"gen":1,"report":{"telemetry_s":30},"control":{"schedule":"06:00 18, 20:00 14"}}', True)
    print(
        json.dumps(
            {
                "updated": receive(app),
                "end": end[1],
                "alloc": stream.alloc,
                "stages": stream.stages,
                "free": gc.mem_free(),
                "turns": turns[0],
                "faults": faults[:3],
                "configured": [app._asked["gen"], app._asked["errors"]],
            }
        )
    )


asyncio.run(main())
