"""Runs on the unix port, in a node's work directory: 10,000 commands through the whole app, and what the heap says.

The gateway is a stream in memory: it acknowledges what the node sends and feeds it commands as fast as they are taken.
Prints the bytes in use after 1,000 and after 10,000 messages, and how often each stage was answered.
"""

import asyncio
import gc
import json

from node import log
from node.app import App
from node.blackbox import BlackBox
from profiles import greenhouse

TOTAL = 10000
log.print = lambda line: None  # the log of 10,000 commands is not what is measured


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
        self.marks = (TOTAL // 10, TOTAL, None)
        self.alloc = []

    async def readinto(self, view):
        while not self.inward:
            if len(self.alloc) == 2:
                return 0
            # Lets the node answer now and then, else it would say `busy` 10,000 times.
            await asyncio.sleep_ms(1 if self.count % 8 == 0 else 0)
            if self.pubacks == self.count == self.marks[len(self.alloc)]:
                await asyncio.sleep_ms(500)  # what is under way has arrived: like is compared with like
                gc.collect()
                self.alloc.append(gc.mem_alloc())
            if self.count < TOTAL and self.pubacks == self.count:
                self.inward.extend(publish(self.count))
                self.count += 1
        n = min(len(view), len(self.inward))
        view[:n] = self.inward[:n]
        self.inward = self.inward[n:]
        return n

    async def write(self, data):
        kind = data[0] >> 4
        if kind == 8:
            codes = b""
            at = 4
            while at < len(data):
                at += 3 + int.from_bytes(data[at : at + 2], "big")
                codes += b"\x01"
            self.inward.extend(b"\x90" + bytes((2 + len(codes),)) + data[2:4] + codes)
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


async def main():
    app = App(greenhouse, BlackBox(lambda *_: b"", "power"))
    tasks = [asyncio.create_task(w(app._vitals.watch("x", 1000))) for w in (app._control, app._answers)]
    stream = Stream()
    end = await app._client.run(stream)
    for task in tasks:
        task.cancel()
    print(json.dumps({"end": end[1], "alloc": stream.alloc, "stages": stream.stages, "free": gc.mem_free()}))


asyncio.run(main())
