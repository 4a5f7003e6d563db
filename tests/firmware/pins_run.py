"""Runs on the unix port, in a node's work directory: the whole app on a board with pins, which are fakes.py.

Prints the levels of the outputs after a cold reading, after a warm one, and after the sensor was pulled out.
"""

import asyncio
import json
import sys

import fakes
from drivers.sensirion import crc8

m = fakes.Machine()
sys.modules["machine"] = m


def word(value):
    data = bytes((value >> 8, value & 255))
    return data + bytes((crc8(data),))


def answer(celsius):
    return {b"\xfd": word(int((celsius + 45) * 65535 / 175)) + word(0x8000)}


chip = m.wire(21, 22, 0x44, fakes.Scripted(answer(10.0)))

from node import hardware, powerup  # noqa: E402
from node.blackbox import BlackBox  # noqa: E402
from node.greenhouse import Greenhouse  # noqa: E402
from profiles import greenhouse  # noqa: E402

SELDOM = (
    "node.assembly",
    "node.backlog",
    "node.birth",
    "node.changes",
    "node.config",
    "node.desired",
    "node.health",
    "node.keys",
    "node.lastlife",
    "node.powerup",
    "node.schedule",
    "drivers.opening",
)


async def until(what):
    for _ in range(200):
        if what():
            return
        await asyncio.sleep_ms(50)
    raise AssertionError(m.levels)


async def main():
    app = Greenhouse(greenhouse, BlackBox(hardware.memory, powerup.cause()))
    for module in SELDOM:
        assert module not in sys.modules, module
        parent, name = module.split(".")
        assert not hasattr(sys.modules[parent], name), module
    out = [[m.levels[25], m.levels[26]]]

    async def never():
        while True:
            await asyncio.sleep(1)

    task = asyncio.create_task(app.run(never))
    await until(lambda: m.levels[25] == 1)  # heater on: active high
    out.append([m.levels[25], m.levels[26]])
    await until(lambda: (2, 1) in m.changes and m.changes[-1] != (2, 1))  # the status light
    reading = app._house.told("temperature", app._time.now)
    assert abs(reading[0] - 10) < 0.01, reading
    assert reading[1] == "ok", reading
    chip.away = True
    await until(lambda: app._house.read("temperature", app._time.now)[1] == "missing")
    app.safe()
    out.append([m.levels[25], m.levels[26]])
    task.cancel()
    print(json.dumps(out))


asyncio.run(main())
