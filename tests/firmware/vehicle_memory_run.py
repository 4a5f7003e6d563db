"""Runs on the unix port, in a vehicle's work directory: signed commands and turns of the control loop through the whole
app, and what the heap says.

The gateway is a stream in memory, and the signer beside it. Each turn of the control loop is a second; every
second command has a counter that was used. Prints the bytes in use after half of them and after all.
"""

import asyncio
import binascii
import gc
import hashlib
import json

from node import log
from node.blackbox import BlackBox
from node.hmac import Hmac
from profiles import vehicle as profile

TOTAL = 2000
TURNS = 20000
VIN = "1M8GDM9AXKP042788"
faults = []
log.print = lambda line: faults.append(line) if " error " in line else None
signer = Hmac(Hmac(hashlib.sha256(b"a car's key").digest()).sign(b"vin-cmd-v1"))


def publish(app, i):
    verb = "lock" if i // 2 % 2 else "unlock"
    ctr, exp = app._gate.counter + (i + 1) % 2, app._up() + 20
    text = f"v1|{VIN}|c{i}|{verb}|{app._gate.epoch}|{ctr}|{exp}|"
    body = {"id": f"c{i}", "cmd": verb, "epoch": app._gate.epoch, "ctr": ctr, "exp": exp, "args": ""}
    body["sig"] = binascii.hexlify(signer.sign(text.encode())).decode()
    body = json.dumps(body).encode()
    topic = f"vin/{VIN}/{verb}".encode()
    rest = len(topic).to_bytes(2, "big") + topic + (i % 65535 + 1).to_bytes(2, "big") + body
    return b"\x32" + bytes((len(rest) & 127 | 128, len(rest) >> 7)) + rest


class Stream:
    def __init__(self):
        self.inward = bytearray(b"\x20\x02\x00\x00")
        self.count = self.pubacks = 0
        self.app = None
        self.stages = {}
        self.alloc = []

    async def readinto(self, view):
        while not self.inward:
            await asyncio.sleep_ms(1)
            if len(self.alloc) == 2:
                return 0
            if self.pubacks == self.count == (TOTAL // 2, TOTAL)[len(self.alloc)]:
                while turns[0] < TURNS * (len(self.alloc) + 1) // 2 or self.app._outbox or self.app._pending:
                    await asyncio.sleep_ms(5)
                gc.collect()
                self.alloc.append(gc.mem_alloc())
            elif self.pubacks == self.count and len(self.app._outbox) < 4 and not self.app._pending:
                self.inward.extend(publish(self.app, self.count))
                self.count += 1
        n = min(len(view), len(self.inward))
        view[:n] = self.inward[:n]
        self.inward = self.inward[n:]
        return n

    async def write(self, data):
        kind = data[0] >> 4
        if kind == 8:
            codes = b""
            at = 4 if data[1] < 128 else 5
            ident = data[at - 2 : at]
            while at < len(data):
                at += 3 + int.from_bytes(data[at : at + 2], "big")
                codes += b"\x01"
            self.inward.extend(b"\x90" + bytes((2 + len(codes),)) + ident + codes)
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


async def main():
    gc.collect()
    app = profile.app(BlackBox(lambda *_: b"", "power"))
    tasks = [asyncio.create_task(w(app._vitals.watch("x", 1000))) for w in (app._control, app._answers, app._session)]

    def turn():
        turns[0] += 1
        app._time.now = (app._time.now + 1000) & ((1 << 30) - 1)
        return app._time.now

    app._time.turn = turn
    app._time.period_ms = 0
    stream = Stream()
    stream.app = app
    end = await app._client.run(stream)
    for task in tasks:
        task.cancel()
    print(
        json.dumps(
            {
                "end": end[1],
                "alloc": stream.alloc,
                "stages": stream.stages,
                "turns": turns[0],
                "faults": faults[:3],
                "free": gc.mem_free(),
            }
        )
    )


asyncio.run(main())
